//! `export`: digests and signs what was taken, and lays it out for the relay.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome, TransferRecord};
use towpath_keys::Namespace;
use towpath_transfer::{
    Code, Direction, Failure, FileName, Stage, TransferEvent, TransferKey,
    digest::{FileDigests, FileHasher, Sha256Digest},
    manifest::{Content, FileEntry, MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, SIGNATURE_NAME},
    md5sums,
    packed::MD5SUMS_NAME,
    state::Place,
};
use towpath_transport::files::{each_chunk, file_failure, write_whole};

use super::{copy, publish_folder, remove_tree, take};
use crate::{kept, parts::Parts, uplink::verify::blocking};

/// The stage.
#[derive(Debug, Clone)]
pub struct Export(pub Arc<Parts>);

#[async_trait]
impl Step for Export {
    fn place(&self) -> Place {
        Place::Receiver
    }

    fn stage(&self) -> Stage {
        Stage::Export
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let (parts, record) = (Arc::clone(&self.0), lease.record.clone());
        let laid = blocking(move || match laid_out(&parts, &record.key)? {
            // Laid out before, and stopped before the journal knew.
            Some(laid) => kept::held(&*parts.files, &parts.layout.laid_out(&record.key)).map(|()| laid),
            None => lay_out(&parts, &record),
        })
        .await?;
        Ok(StepOutcome::Event(TransferEvent::Exported { manifest: laid.digest }))
    }
}

/// What the relay is told of a transfer that is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaidOut {
    /// The manifest's length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub digest: Sha256Digest,
}

/// What is laid out of a transfer, by its manifest, which comes with everything else or not at all. Blocking.
///
/// # Errors
/// As the disk reports.
pub fn laid_out(parts: &Parts, key: &TransferKey) -> Result<Option<LaidOut>, Failure> {
    let path = parts.layout.laid_out(key).join(MANIFEST_NAME);
    let bytes = kept::read(&*parts.files, &path, MAX_MANIFEST_BYTES)?;
    Ok(bytes.map(|bytes| LaidOut { size: bytes.len() as u64, digest: Sha256Digest::of(&bytes) }))
}

/// Makes sure that exactly what the relay was told of is laid out: where anything of it is missing or differs, all of it is laid
/// out again from the copies. The manifest comes out the same, because nothing in it depends on when it is written. Blocking.
///
/// # Errors
/// `digest-mismatch` (park) where the copies differ too; as the disk reports.
pub fn restore(parts: &Parts, record: &TransferRecord, promised: Sha256Digest) -> Result<LaidOut, Failure> {
    let key = &record.key;
    if let Some(laid) = laid_out(parts, key)?.filter(|laid| laid.digest == promised)
        && is_intact(parts, key)?
    {
        return Ok(laid);
    }
    tracing::warn!(transfer = %key, "what was laid out for the relay is missing or was changed; it is laid out again");
    remove_tree(&*parts.files, &parts.layout.laid_out(key))?;
    let laid = lay_out(parts, record)?;
    if laid.digest == promised {
        return Ok(laid);
    }
    let told = format!("the copies of transfer {key} on this machine are not what the relay was told of; send the files again");
    Err(Failure::park(Code::DigestMismatch, told))
}

/// Whether every file that is laid out is the one its manifest names.
fn is_intact(parts: &Parts, key: &TransferKey) -> Result<bool, Failure> {
    let folder = parts.layout.laid_out(key);
    let Some((bytes, signature)) = kept::manifest(&*parts.files, &folder).ok().flatten() else { return Ok(false) };
    let Ok(manifest) = Manifest::parse(&bytes) else { return Ok(false) };
    if towpath_keys::verify(&signature, Namespace::Manifest, &bytes, parts.identity.public_key()).is_err() {
        return Ok(false);
    }
    for file in &manifest.files {
        match digests(parts, &folder.join(file.name.as_str()), file.size) {
            Ok(found) if found == file.digests() => {}
            Ok(_) => return Ok(false),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(file_failure("reading", &folder.join(file.name.as_str()), e)),
        }
    }
    Ok(true)
}

/// The digests of a file's first bytes: one more than it should have, so that a longer file is seen.
fn digests(parts: &Parts, path: &Path, size: u64) -> std::io::Result<FileDigests> {
    let mut hasher = FileHasher::new();
    each_chunk(&*parts.files, path, size.saturating_add(1), |bytes| hasher.update(bytes))?;
    Ok(hasher.finish())
}

/// Lays a transfer out under a hidden name and gives it its own when it is whole and durable.
fn lay_out(parts: &Parts, record: &TransferRecord) -> Result<LaidOut, Failure> {
    let (files, key) = (&*parts.files, &record.key);
    let begun = parts.layout.laying_out(key);
    remove_tree(files, &begun)?;
    files.create_dir_all(&begun).map_err(|e| file_failure("creating", &begun, e))?;
    let laid = write_all(parts, record, &begun);
    if laid.is_err() {
        // What failed is reported; what stays behind is removed by the next try.
        let _ = remove_tree(files, &begun);
    }
    let laid = laid?;
    publish_folder(files, &begun, &parts.layout.laid_out(key))?;
    Ok(laid)
}

fn write_all(parts: &Parts, record: &TransferRecord, folder: &Path) -> Result<LaidOut, Failure> {
    let (files, key) = (&*parts.files, &record.key);
    let request = take::request(parts, key)?;
    let mut entries = Vec::new();
    for name in &request.files {
        let from = take::file_path(&parts.layout, key, name);
        let unread = |e| file_failure("reading", &from, e);
        let found = copy(files, &from, &folder.join(name.as_str()), parts.limits.export_file_bytes, &unread)?;
        entries.push(entry(name, found));
    }
    let sequence = record.sequence.ok_or_else(|| Failure::park(Code::Internal, format!("transfer {key} has no number")))?;
    let manifest = Manifest {
        version: 1,
        transfer: key.id,
        direction: Direction::Downlink,
        tenant: key.tenant.clone(),
        agent: key.agent.clone(),
        job: request.job,
        kind: Some(request.kind),
        created: request.taken,
        sequence,
        snapshot: None,
        files: entries,
    };
    let refused = || Failure::park(Code::ExportRefused, format!("transfer {key} cannot travel"));
    let bytes = manifest.to_bytes().map_err(|e| refused().caused_by(e))?;
    let sums = md5sums::write(manifest.files.iter().map(|file| (&file.md5, &file.name)));
    let sums = sums.map_err(|e| refused().caused_by(e))?;
    let signature = parts.identity.sign(Namespace::Manifest, &bytes)?;
    for (name, content) in [(MD5SUMS_NAME, sums.as_bytes()), (SIGNATURE_NAME, signature.as_bytes()), (MANIFEST_NAME, &bytes)] {
        let path = folder.join(name);
        write_whole(files, &path, content).map_err(|e| file_failure("writing", &path, e))?;
    }
    Ok(LaidOut { size: bytes.len() as u64, digest: Sha256Digest::of(&bytes) })
}

fn entry(name: &FileName, found: FileDigests) -> FileEntry {
    FileEntry {
        name: name.clone(),
        media_type: media_type(name).to_owned(),
        size: found.size,
        md5: found.md5,
        sha256: found.sha256,
        unchanged: false,
        base: None,
        content: Content::File,
    }
}

/// What the end of a name says about a file, as IANA has registered it; nothing decides by it.
fn media_type(name: &FileName) -> &'static str {
    let folded = name.case_folded();
    match folded.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "csv" => "text/csv",
        "htm" | "html" => "text/html",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "xml" => "application/xml",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}
