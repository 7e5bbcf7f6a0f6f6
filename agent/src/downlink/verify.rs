//! Stage `verify`: everything once more from the disk, and the plain files.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome, TransferRecord};
use towpath_transfer::{
    Code, Direction, Failure, Stage, TransferEvent, TransferState,
    codec::{CodecError, Unpacker},
    digest::{FileHasher, Sha256Hasher},
    failure::Result,
    manifest::FileEntry,
    packed::PackedFile,
    state::{Identity, Place},
};
use towpath_transport::files::{FileStore, file_failure};

use super::{describe::Described, download::Downloads, pull::or_rejected};
use crate::{blocking::blocking, layout::Layout, parts::Parts};

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// Stage `verify`.
#[derive(Debug, Clone)]
pub struct VerifyStep {
    /// What it touches.
    pub parts: Arc<Parts>,
}

#[async_trait]
impl Step for VerifyStep {
    fn place(&self) -> Place {
        Place::Agent
    }

    fn stage(&self) -> Stage {
        Stage::Verify
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let id = lease.record.key.id;
        let TransferState::Pulled { identity } = lease.record.state else {
            return Err(Failure::park(Code::Internal, format!("transfer {id} is not pulled")));
        };
        let verified = self.verify(&lease.record, identity).await;
        let event = verified.map(|()| TransferEvent::Verified { manifest: identity.manifest });
        or_rejected(&self.parts, &lease.record, identity, event).await
    }
}

impl VerifyStep {
    async fn verify(&self, record: &TransferRecord, identity: Identity) -> Result<()> {
        let downloads = Downloads::of(&self.parts, record.key.id)?;
        let described = Arc::new(downloads.described(record, identity).await?);
        let (parts, of) = (Arc::clone(&self.parts), Arc::clone(&described));
        let damaged = blocking(move || damaged(&*parts.files, &parts.layout.of(Direction::Downlink), &of)).await?;
        for file in &damaged {
            tracing::warn!(transfer = %record.key.id, file = %file.name, "damaged on the disk; fetched anew");
            downloads.packed_anew(file).await?;
        }
        let parts = Arc::clone(&self.parts);
        blocking(move || unpack_all(&*parts.files, &parts.layout.of(Direction::Downlink), &described)).await
    }
}

/// The packed files that are not as they were when they were fetched.
fn damaged(files: &dyn FileStore, layout: &Layout, described: &Described) -> Result<Vec<PackedFile>> {
    let mut damaged = Vec::new();
    for file in &described.packed.files {
        if !is_whole(files, &layout.sent(described.manifest.transfer, &file.name), file)? {
            damaged.push(file.clone());
        }
    }
    Ok(damaged)
}

fn is_whole(files: &dyn FileStore, path: &Path, listed: &PackedFile) -> Result<bool> {
    let failed = |error| file_failure("reading", path, error);
    let mut file = match files.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(failed)?,
    };
    if file.len().map_err(failed)? != listed.size {
        return Ok(false);
    }
    let mut hasher = Sha256Hasher::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = file.read(&mut chunk).map_err(failed)?;
        if count == 0 {
            return Ok(hasher.finish() == listed.sha256);
        }
        hasher.update(chunk.get(..count).unwrap_or_default());
    }
}

fn unpack_all(files: &dyn FileStore, layout: &Layout, described: &Described) -> Result<()> {
    let folder = layout.plain(described.manifest.transfer);
    files.create_dir_all(&folder).map_err(|error| file_failure("making the folder", &folder, error))?;
    for (entry, packed) in described.files() {
        let from = layout.sent(described.manifest.transfer, &packed.name);
        unpack(files, &from, entry, &folder.join(entry.name.as_str()))?;
    }
    files.sync_dir(&folder).map_err(|error| file_failure("syncing", &folder, error))
}

/// Unpacks one file and compares it with the manifest. Never more is written than the manifest declares.
///
/// # Errors
/// A failure of disposition park where the content is not the promised one; as the disk reports.
pub(crate) fn unpack(files: &dyn FileStore, from: &Path, entry: &FileEntry, to: &Path) -> Result<()> {
    let unpacking = || format!("unpacking {}", entry.name);
    let packed = files.open(from).map_err(|error| file_failure("opening", from, error))?;
    let mut unpacker = Unpacker::new(packed, entry.size);
    let mut plain = files.create(to).map_err(|error| file_failure("making", to, error))?;
    let mut hasher = FileHasher::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = unpacker.read(&mut chunk).map_err(|error| CodecError::from(error).into_failure(unpacking()))?;
        if count == 0 {
            break;
        }
        let bytes = chunk.get(..count).unwrap_or_default();
        hasher.update(bytes);
        plain.write_all(bytes).map_err(|error| file_failure("writing", to, error))?;
    }
    let found = hasher.finish();
    if found != entry.digests() {
        let message = format!(
            "{} unpacks to {} bytes with SHA-256 {}, and the manifest says {} bytes with {}",
            entry.name, found.size, found.sha256, entry.size, entry.sha256
        );
        return Err(Failure::park(Code::DigestMismatch, message));
    }
    plain.sync_all().map_err(|error| file_failure("syncing", to, error))
}
