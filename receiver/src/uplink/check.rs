//! Everything that is checked of a transfer before any of it is imported.

use std::path::Path;

use towpath_keys::{AllowedSigners, Namespace};
use towpath_transfer::{
    AgentName, Code, Direction, Failure, FileName, TenantName, TransferId,
    digest::Sha256Digest,
    manifest::{MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, SIGNATURE_NAME},
    md5sums,
    packed::{MAX_PACKED_LIST_BYTES, MD5SUMS_NAME, PACKED_NAME, PackedList},
    public_key::Fingerprint,
    receipt::{MAX_SIGNATURE_BYTES, TableRows},
};
use towpath_transport::files::{FileStore, file_failure, read_whole};

use super::content::{self, Discard};

/// Whose transfer a folder must hold, as far as that is known from where it lies.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// The tenant this receiver serves.
    pub tenant: Option<TenantName>,
    /// The agent the relay says it comes from.
    pub agent: Option<AgentName>,
    /// The transfer the folder is named after.
    pub transfer: Option<TransferId>,
}

/// The signed part of a transfer, checked.
#[derive(Debug, Clone)]
pub struct Opened {
    /// What the origin says it sends.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's bytes.
    pub digest: Sha256Digest,
    /// The approved key that has signed it.
    pub signer: Fingerprint,
    /// The packed files.
    pub packed: PackedList,
}

/// Reads manifest, signature and lists, and checks who signed and whether they belong together. Reads no content.
///
/// # Errors
/// A failure of disposition park where something is wrong with the transfer, of disposition retry where a file cannot be
/// read now.
pub fn open(files: &dyn FileStore, folder: &Path, expected: &Expected, signers: &AllowedSigners) -> Result<Opened, Failure> {
    let bytes = small_file(files, folder, MANIFEST_NAME, MAX_MANIFEST_BYTES, Code::ManifestInvalid)?;
    let manifest =
        Manifest::parse(&bytes).map_err(|e| Failure::park(Code::ManifestInvalid, "the manifest cannot be used").caused_by(e))?;
    check_belongs(&manifest, expected)?;
    let signer = check_signature(files, folder, &manifest.agent, &bytes, signers)?;

    let listed = small_file(files, folder, PACKED_NAME, MAX_PACKED_LIST_BYTES, Code::PackedListInvalid)?;
    let invalid = |e| Failure::park(Code::PackedListInvalid, "the packed list cannot be used").caused_by(e);
    let packed = PackedList::parse(&listed).map_err(invalid)?;
    let digest = Sha256Digest::of(&bytes);
    packed.check_against(&manifest, digest).map_err(invalid)?;

    let md5sums = small_file(files, folder, MD5SUMS_NAME, md5sums::MAX_BYTES, Code::ContentInvalid)?;
    check_md5sums(&manifest, &md5sums)?;
    Ok(Opened { manifest, digest, signer, packed })
}

/// Reads every packed file to its end and compares it with manifest and packed list; returns the rows of every table.
///
/// # Errors
/// As [`open`].
pub fn contents(files: &dyn FileStore, folder: &Path, opened: &Opened) -> Result<Vec<TableRows>, Failure> {
    let mut listed = opened.packed.files.iter();
    let mut rows = Vec::new();
    for entry in &opened.manifest.files {
        let counted = if entry.unchanged {
            entry.table().map_or(0, |table| table.rows)
        } else {
            let packed = listed.next().ok_or_else(|| Failure::park(Code::PackedListInvalid, "the packed list is too short"))?;
            let mut source = open_file(files, folder, &packed.name)?;
            content::read(&mut *source, packed, entry, &mut Discard)?
        };
        if let Some(table) = entry.table() {
            rows.push(TableRows { drift: table.drift.clone(), ..TableRows::new(table.table.clone(), counted) });
        }
    }
    Ok(rows)
}

/// Opens a packed file of the folder.
///
/// # Errors
/// A missing file is a fault of the transfer; everything else may pass.
pub fn open_file(
    files: &dyn FileStore,
    folder: &Path,
    name: &FileName,
) -> Result<Box<dyn towpath_transport::files::ReadFile>, Failure> {
    let path = folder.join(name.as_str());
    files.open(&path).map_err(|e| missing_or(e, name.as_str(), &path))
}

fn missing_or(error: std::io::Error, name: &str, path: &Path) -> Failure {
    if error.kind() == std::io::ErrorKind::NotFound {
        return Failure::park(Code::TransferIncomplete, format!("{name} is missing"));
    }
    file_failure("reading", path, error)
}

fn small_file(files: &dyn FileStore, folder: &Path, name: &str, limit: usize, code: Code) -> Result<Vec<u8>, Failure> {
    let path = folder.join(name);
    read_whole(files, &path, limit as u64).map_err(|e| match e.kind() {
        std::io::ErrorKind::FileTooLarge => Failure::park(code, format!("{name} is larger than {limit} bytes")),
        _ => missing_or(e, name, &path),
    })
}

fn check_belongs(manifest: &Manifest, expected: &Expected) -> Result<(), Failure> {
    let wrong = |what: &str| Err(Failure::park(Code::ManifestInvalid, format!("the manifest belongs to another {what}")));
    if manifest.direction != Direction::Uplink {
        return wrong("direction");
    }
    if expected.tenant.as_ref().is_some_and(|tenant| *tenant != manifest.tenant) {
        return wrong("tenant");
    }
    if expected.agent.as_ref().is_some_and(|agent| *agent != manifest.agent) {
        return wrong("agent");
    }
    if expected.transfer.is_some_and(|transfer| transfer != manifest.transfer) {
        return wrong("transfer");
    }
    Ok(())
}

fn check_signature(
    files: &dyn FileStore,
    folder: &Path,
    agent: &AgentName,
    manifest: &[u8],
    signers: &AllowedSigners,
) -> Result<Fingerprint, Failure> {
    let signature = small_file(files, folder, SIGNATURE_NAME, MAX_SIGNATURE_BYTES, Code::SignatureInvalid)?;
    if signers.lookup(agent.as_str(), Namespace::Manifest).next().is_none() {
        let told = format!(
            "no key of agent {agent} is approved here; compare its fingerprint, then run: towpath-receiver agent approve"
        );
        return Err(Failure::park(Code::AgentUnapproved, told));
    }
    let signer = signers.verify(agent.as_str(), Namespace::Manifest, manifest, &signature)?;
    Ok(signer.fingerprint())
}

fn check_md5sums(manifest: &Manifest, bytes: &[u8]) -> Result<(), Failure> {
    let listed = md5sums::parse(bytes)?;
    let agrees = listed.iter().map(|entry| (&entry.md5, &entry.name)).eq(manifest.sent_files().map(|f| (&f.md5, &f.name)));
    if agrees { Ok(()) } else { Err(Failure::park(Code::ContentInvalid, "MD5SUMS does not agree with the manifest")) }
}
