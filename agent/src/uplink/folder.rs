//! A transfer's own folder: reading back what was written there, and removing what is not needed any more.

use serde::{Serialize, de::DeserializeOwned};
use towpath_transfer::{
    Code, Failure, FileName, TransferId,
    digest::Sha256Digest,
    manifest::{MAX_MANIFEST_BYTES, Manifest},
    packed::{MAX_PACKED_LIST_BYTES, PACKED_SUFFIX, PART_SUFFIX, PackedList},
    receipt::{MAX_RECEIPT_BYTES, MAX_SIGNATURE_BYTES, ReceiptStage, SignedReceipt},
};
use towpath_transport::files::{FileStore, file_failure, ignore_missing, is_begun, remove_begun};

use crate::{layout::Layout, small_file};

/// Names read from a folder at a time.
const PAGE: usize = 256;

/// The manifest of a transfer, and the digest of its bytes.
///
/// # Errors
/// `file-failed` where it is missing, `manifest-invalid` where it cannot be read.
pub fn manifest(files: &dyn FileStore, layout: &Layout, id: TransferId) -> Result<(Manifest, Sha256Digest), Failure> {
    let bytes = small_file::read_existing(files, &layout.manifest(id), MAX_MANIFEST_BYTES)?;
    let invalid =
        |error| Failure::park(Code::ManifestInvalid, format!("the manifest of transfer {id} was changed")).caused_by(error);
    Ok((Manifest::parse(&bytes).map_err(invalid)?, Sha256Digest::of(&bytes)))
}

/// The packed list of a transfer.
///
/// # Errors
/// `file-failed` where it is missing, `packed-list-invalid` where it cannot be read.
pub fn packed_list(files: &dyn FileStore, layout: &Layout, id: TransferId) -> Result<PackedList, Failure> {
    let bytes = small_file::read_existing(files, &layout.packed(id), MAX_PACKED_LIST_BYTES)?;
    let invalid =
        |error| Failure::park(Code::PackedListInvalid, format!("the packed list of transfer {id} was changed")).caused_by(error);
    PackedList::parse(&bytes).map_err(invalid)
}

/// Keeps a receipt, durable: signature first, so that a receipt without one cannot be.
///
/// # Errors
/// As the disk reports.
pub fn keep_receipt(
    files: &dyn FileStore,
    layout: &Layout,
    id: TransferId,
    stage: ReceiptStage,
    signed: &SignedReceipt,
) -> Result<(), Failure> {
    small_file::write_if_different(files, &layout.receipt_signature(id, stage), signed.signature.as_bytes())?;
    small_file::write_if_different(files, &layout.receipt(id, stage), signed.receipt.as_bytes())
}

/// A receipt that is kept; `None` where there is none.
///
/// # Errors
/// `receipt-invalid` where it is not text or its signature is missing, and as the disk reports.
pub fn kept_receipt(
    files: &dyn FileStore,
    layout: &Layout,
    id: TransferId,
    stage: ReceiptStage,
) -> Result<Option<SignedReceipt>, Failure> {
    let Some(receipt) = small_file::read(files, &layout.receipt(id, stage), MAX_RECEIPT_BYTES)? else { return Ok(None) };
    let damaged = || Failure::park(Code::ReceiptInvalid, format!("the {} receipt of transfer {id} is damaged", stage.as_str()));
    let signature = small_file::read(files, &layout.receipt_signature(id, stage), MAX_SIGNATURE_BYTES)?.ok_or_else(damaged)?;
    let text = |bytes| String::from_utf8(bytes).map_err(|error| damaged().caused_by(error));
    Ok(Some(SignedReceipt { receipt: text(receipt)?, signature: text(signature)? }))
}

/// Removes the packed and unpacked files of a transfer, and what was noted while it was worked on. May be repeated.
///
/// # Errors
/// As the disk reports.
pub fn remove_payload(files: &dyn FileStore, layout: &Layout, id: TransferId) -> Result<(), Failure> {
    let folder = layout.transfer(id);
    // The transfer is over once the journal says so, and nobody would remove again what came back after a power cut.
    let synced =
        |folder: &std::path::Path| ignore_missing(files.sync_dir(folder)).map_err(|error| file_failure("syncing", folder, error));
    let mut after = None;
    loop {
        let page = match files.list(&folder, after.as_deref(), PAGE) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            other => other.map_err(|error| file_failure("listing", &folder, error))?,
        };
        let payload = |name: &str| name.ends_with(PACKED_SUFFIX) || name.ends_with(PART_SUFFIX) || is_begun(name);
        for entry in page.iter().filter(|entry| payload(&entry.name)) {
            let path = folder.join(&entry.name);
            ignore_missing(files.remove(&path)).map_err(|error| file_failure("removing", &path, error))?;
        }
        if page.len() < PAGE {
            break;
        }
        after = page.into_iter().next_back().map(|entry| entry.name);
    }
    let plain = layout.plain(id);
    ignore_missing(files.remove_dir_all(&plain)).map_err(|error| file_failure("removing", &plain, error))?;
    synced(&folder)?;
    let receipts = layout.receipts(id);
    remove_begun(files, &receipts).map_err(|error| file_failure("clearing", &receipts, error))?;
    forget_work(files, layout, id)?;
    synced(&layout.work())
}

/// Removes what was noted while a transfer was worked on.
///
/// # Errors
/// As the disk reports.
pub fn forget_work(files: &dyn FileStore, layout: &Layout, id: TransferId) -> Result<(), Failure> {
    let work = layout.work_of(id);
    ignore_missing(files.remove_dir_all(&work)).map_err(|error| file_failure("removing", &work, error))
}

/// Empties a transfer's folder before it is extracted (again).
///
/// # Errors
/// As the disk reports.
pub fn start_afresh(files: &dyn FileStore, layout: &Layout, id: TransferId) -> Result<(), Failure> {
    let folder = layout.transfer(id);
    ignore_missing(files.remove_dir_all(&folder)).map_err(|error| file_failure("emptying", &folder, error))?;
    files.create_dir_all(&folder).map_err(|error| file_failure("making the folder", &folder, error))
}

/// Notes a value as JSON.
pub(crate) fn note<T: Serialize>(files: &dyn FileStore, path: &std::path::Path, value: &T) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Failure::park(Code::Internal, format!("writing {} as JSON", path.display())).caused_by(error))?;
    small_file::write(files, path, &bytes)
}

/// Reads a noted value; `None` where it is missing or cannot be understood, because every note can be made again.
pub(crate) fn noted<T: DeserializeOwned>(
    files: &dyn FileStore,
    path: &std::path::Path,
    limit: usize,
) -> Result<Option<T>, Failure> {
    Ok(small_file::read(files, path, limit)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// As [`noted`], for what is relied on at once: what is found is durable from then on.
pub(crate) fn noted_for_good<T: DeserializeOwned>(
    files: &dyn FileStore,
    path: &std::path::Path,
    limit: usize,
) -> Result<Option<T>, Failure> {
    let found = noted(files, path, limit)?;
    if found.is_some() {
        small_file::held(files, path)?;
    }
    Ok(found)
}

/// One of the protocol's own file names.
pub(crate) fn own_name(name: &str) -> Result<FileName, Failure> {
    name.parse().map_err(|error| Failure::park(Code::Internal, format!("{name} is not a file name")).caused_by(error))
}
