//! What describes a transfer of return files: manifest, signature and lists, checked before any of it comes to the disk and again before
//! the payload is unpacked.

use std::path::Path;

use towpath_journal::TransferRecord;
use towpath_transfer::{
    Code, Direction, Failure,
    digest::Sha256Digest,
    failure::Result,
    manifest::{FileEntry, MAX_MANIFEST_BYTES, Manifest},
    md5sums,
    packed::{MAX_PACKED_LIST_BYTES, PackedFile, PackedList},
    receipt::MAX_SIGNATURE_BYTES,
    state::Identity,
};
use towpath_transport::files::FileStore;

use super::decide;
use crate::{
    parts::Parts,
    small_file,
    trust::{check_receiver, check_return_manifest, pin_first},
};

/// What bzip2 may add to a file at most, beside a 32nd of it: bzip2's manual says 1 % and 600 bytes for each stream.
pub const PACKING_OVERHEAD: u64 = 64 * 1024;

/// The descriptions of a transfer, checked.
#[derive(Debug, Clone)]
pub struct Described {
    /// What the receiver says it sends.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's bytes.
    pub digest: Sha256Digest,
    /// The packed files, by the relay.
    pub packed: PackedList,
}

impl Described {
    /// Every file with its packed form, in the manifest's order.
    pub fn files(&self) -> impl Iterator<Item = (&FileEntry, &PackedFile)> {
        self.manifest.sent_files().zip(&self.packed.files)
    }
}

/// Reads and checks what lies in the transfer's folder. A receiver that nobody has approved yet is approved at first use where
/// the configuration says so.
///
/// # Errors
/// A failure of disposition retry where nothing is signed for this transfer, or a file is missing here or is not the one that was offered;
/// of disposition park where something else is wrong with what was sent.
pub async fn open(parts: &Parts, record: &TransferRecord, identity: Identity) -> Result<Described> {
    let (id, files, layout) = (record.key.id, &*parts.files, parts.layout.of(Direction::Downlink));
    let manifest = offered(files, &layout.manifest(id), MAX_MANIFEST_BYTES, identity.manifest)?;
    let signature = here(files, &layout.signature(id), MAX_SIGNATURE_BYTES)?;
    let packed = offered(files, &layout.packed(id), MAX_PACKED_LIST_BYTES, identity.packed)?;
    let md5sums = here(files, &layout.md5sums(id), md5sums::MAX_BYTES)?;
    approved(parts, &signature).await?;
    described(parts, signed(parts, record, &manifest, &signature)?, identity, &packed, &md5sums)
}

/// Whether the key of the signature is that of a receiver that is approved here; one that nobody has approved yet is approved at
/// first use where the configuration says so. What it signs is not looked at.
///
/// # Errors
/// `receiver-unapproved` (retry), `signature-invalid` where it is none, and as the relay answers.
pub(crate) async fn approved(parts: &Parts, signature: &[u8]) -> Result<()> {
    let check = || check_receiver(&*parts.trust, &parts.agent, signature).map(drop);
    match check() {
        Err(failure) if failure.code() == Code::ReceiverUnapproved => {
            let peers = parts.relay.peers().await?.peers;
            if pin_first(&*parts.trust, parts.config.now().trust, &parts.agent, &peers)?.is_none() {
                return Err(failure);
            }
            check()
        }
        other => other,
    }
}

/// Whatever goes wrong before it is known that the receiver has signed for a transfer may be no more than the relay's word: neither side
/// may take it for the end of the transfer, so it is asked for again.
pub(crate) fn unsigned(failure: Failure) -> Failure {
    let code = failure.code();
    if code == Code::SignatureInvalid || decide::is_rejection(&failure) {
        let message = "the relay shows nothing of which it is known that the receiver has signed it for this transfer";
        return Failure::retry(code, message).caused_by(failure);
    }
    failure
}

/// The manifest, which a receiver that is approved here has signed for this transfer.
///
/// # Errors
/// `receiver-unapproved` (retry), `signature-invalid` where it is not signed, `manifest-invalid` (retry) where it belongs elsewhere or is of
/// a version that is not known here.
pub(crate) fn signed(parts: &Parts, record: &TransferRecord, manifest: &[u8], signature: &[u8]) -> Result<Manifest> {
    let signer = check_return_manifest(&*parts.trust, &parts.agent, manifest, signature)?;
    let invalid = |error| Failure::retry(Code::ManifestInvalid, "the manifest cannot be used").caused_by(error);
    let manifest = Manifest::parse(manifest).map_err(invalid)?;
    check_belongs(parts, record, &manifest)?;
    tracing::debug!(transfer = %record.key.id, %signer, files = manifest.files.len(), "what is offered is signed by the receiver");
    Ok(manifest)
}

/// What the relay lists, compared with what is signed.
///
/// # Errors
/// A failure of disposition park where they do not agree, or where a file is too large to be taken.
pub(crate) fn described(
    parts: &Parts,
    manifest: Manifest,
    identity: Identity,
    packed: &[u8],
    md5sums: &[u8],
) -> Result<Described> {
    let invalid = |error| Failure::park(Code::PackedListInvalid, "the packed list cannot be used").caused_by(error);
    let packed = PackedList::parse(packed).map_err(invalid)?;
    packed.check_against(&manifest, identity.manifest).map_err(invalid)?;
    let described = Described { manifest, digest: identity.manifest, packed };
    check_sizes(&described, parts.config.now().downlink.unpacked_file.0)?;

    let listed = md5sums::parse(md5sums)?;
    let sent = described.manifest.sent_files().map(|file| (&file.md5, &file.name));
    if !listed.iter().map(|entry| (&entry.md5, &entry.name)).eq(sent) {
        return Err(Failure::park(Code::ContentInvalid, "MD5SUMS does not agree with the manifest"));
    }
    Ok(described)
}

/// A file of which the offer names the digest.
fn offered(files: &dyn FileStore, path: &Path, limit: usize, digest: Sha256Digest) -> Result<Vec<u8>> {
    let bytes = here(files, path, limit)?;
    if Sha256Digest::of(&bytes) == digest {
        return Ok(bytes);
    }
    Err(Failure::retry(Code::DigestMismatch, format!("{} is not the file that was offered", path.display())))
}

fn here(files: &dyn FileStore, path: &Path, limit: usize) -> Result<Vec<u8>> {
    let missing = || Failure::retry(Code::FileFailed, format!("{} is not here", path.display()));
    small_file::read(files, path, limit)?.ok_or_else(missing)
}

fn check_belongs(parts: &Parts, record: &TransferRecord, manifest: &Manifest) -> Result<()> {
    let wrong = |what: &str| {
        let message = format!("the relay offers it with a manifest that belongs to another {what}");
        Err(Failure::retry(Code::ManifestInvalid, message))
    };
    if manifest.direction != Direction::Downlink {
        return wrong("direction");
    }
    if manifest.tenant != parts.tenant {
        return wrong("tenant");
    }
    if manifest.agent != parts.agent {
        return wrong("agent");
    }
    if manifest.transfer != record.key.id {
        return wrong("transfer");
    }
    if record.sequence != Some(manifest.sequence) {
        return wrong("sequence number");
    }
    Ok(())
}

/// Neither side of the packing may be larger than the signed manifest lets one expect.
fn check_sizes(described: &Described, unpacked_file: u64) -> Result<()> {
    for (entry, packed) in described.files() {
        if entry.size > unpacked_file {
            let message = format!(
                "{} would unpack to {} bytes, and this agent takes at most {unpacked_file} (downlink.unpacked_file)",
                entry.name, entry.size
            );
            return Err(Failure::park(Code::LimitExceeded, message));
        }
        let most = largest_packed(entry.size);
        if packed.size > most {
            let message =
                format!("{} has {} bytes, and {} bytes can pack to {most} at most", packed.name, packed.size, entry.size);
            return Err(Failure::park(Code::LimitExceeded, message));
        }
    }
    Ok(())
}

/// The most bytes that so many plain bytes can pack to.
#[must_use]
pub const fn largest_packed(plain: u64) -> u64 {
    plain.saturating_add(plain / 32).saturating_add(PACKING_OVERHEAD)
}
