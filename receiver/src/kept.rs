//! What is kept of a transfer: its receipts, and its manifest as soon as nothing else holds it any more.

use std::path::{Path, PathBuf};

use towpath_transfer::{
    Code, Failure, TransferKey,
    manifest::{MANIFEST_NAME, MAX_MANIFEST_BYTES, SIGNATURE_NAME},
    receipt::{MAX_RECEIPT_BYTES, MAX_SIGNATURE_BYTES, ReceiptStage, SignedReceipt},
};
use towpath_transport::files::{FileStore, file_failure, hold, read_if_there, read_whole, remove_begun, write_whole};

use crate::layout::Layout;

/// A document and the armoured signature over it.
pub type SignedBytes = (Vec<u8>, Vec<u8>);

/// Where a receipt lies; its signature has `.sig` appended to this name.
#[must_use]
pub fn receipt_path(layout: &Layout, key: &TransferKey, stage: ReceiptStage) -> PathBuf {
    layout.receipts(key).join(format!("{}.json", stage.as_str()))
}

/// A receipt that is kept; `None` where there is none. The signature is the caller's affair.
///
/// # Errors
/// `receipt-invalid` where it is not text, and as the disk reports.
pub fn receipt(
    files: &dyn FileStore,
    layout: &Layout,
    key: &TransferKey,
    stage: ReceiptStage,
) -> Result<Option<SignedReceipt>, Failure> {
    let path = receipt_path(layout, key, stage);
    let Some(bytes) = read(files, &path, MAX_RECEIPT_BYTES)? else { return Ok(None) };
    let signature_path = path.with_extension("json.sig");
    let signature = read_whole(files, &signature_path, MAX_SIGNATURE_BYTES as u64)
        .map_err(|e| file_failure("reading", &signature_path, e))?;
    let text = |bytes| {
        let damaged = || Failure::park(Code::ReceiptInvalid, format!("{} was altered on this machine", path.display()));
        String::from_utf8(bytes).map_err(|_| damaged())
    };
    Ok(Some(SignedReceipt { receipt: text(bytes)?, signature: text(signature)? }))
}

/// Keeps a receipt, durable. It counts once its own file is there; the signature is there before it.
///
/// # Errors
/// As the disk reports.
pub fn keep_receipt(
    files: &dyn FileStore,
    layout: &Layout,
    key: &TransferKey,
    stage: ReceiptStage,
    signed: &SignedReceipt,
) -> Result<(), Failure> {
    let path = receipt_path(layout, key, stage);
    keep(files, &path.with_extension("json.sig"), signed.signature.as_bytes())?;
    keep(files, &path, signed.receipt.as_bytes())
}

/// A manifest and its signature as they lie in `folder`; `None` where there is no manifest.
///
/// # Errors
/// As the disk reports.
pub fn manifest(files: &dyn FileStore, folder: &Path) -> Result<Option<SignedBytes>, Failure> {
    let Some(bytes) = read(files, &folder.join(MANIFEST_NAME), MAX_MANIFEST_BYTES)? else { return Ok(None) };
    let path = folder.join(SIGNATURE_NAME);
    let signature = read_whole(files, &path, MAX_SIGNATURE_BYTES as u64).map_err(|e| file_failure("reading", &path, e))?;
    Ok(Some((bytes, signature)))
}

/// Keeps a manifest beside the receipts, durable, the signature first.
///
/// # Errors
/// As the disk reports.
pub fn keep_manifest(
    files: &dyn FileStore,
    layout: &Layout,
    key: &TransferKey,
    bytes: &[u8],
    signature: &[u8],
) -> Result<(), Failure> {
    let folder = layout.receipts(key);
    keep(files, &folder.join(SIGNATURE_NAME), signature)?;
    keep(files, &folder.join(MANIFEST_NAME), bytes)
}

fn keep(files: &dyn FileStore, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if read(files, path, bytes.len()).is_ok_and(|there| there.as_deref() == Some(bytes)) {
        return held(files, path);
    }
    if let Some(folder) = path.parent() {
        files.create_dir_all(folder).map_err(|e| file_failure("creating", folder, e))?;
    }
    write_whole(files, path, bytes).map_err(|e| file_failure("writing", path, e))
}

/// Makes what is found durable: the program that kept it may have stopped before it was.
///
/// # Errors
/// As the disk reports.
pub(crate) fn held(files: &dyn FileStore, path: &Path) -> Result<(), Failure> {
    hold(files, path).map_err(|e| file_failure("syncing the folder of", path, e))
}

/// What is kept of a transfer that is over stays as it is from here on: what a program that was stopped has begun to write beside it
/// goes, and what was found, not written, is durable. May be repeated.
///
/// # Errors
/// As the disk reports.
pub fn close(files: &dyn FileStore, layout: &Layout, key: &TransferKey) -> Result<(), Failure> {
    let folder = layout.receipts(key);
    remove_begun(files, &folder).map_err(|e| file_failure("clearing", &folder, e))
}

/// A small file of our own; `None` where there is none.
///
/// # Errors
/// As the disk reports.
pub(crate) fn read(files: &dyn FileStore, path: &Path, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
    read_if_there(files, path, limit as u64).map_err(|e| file_failure("reading", path, e))
}

#[cfg(test)]
mod tests {
    use towpath_transport::files::MemoryFiles;

    use super::*;

    #[test]
    fn what_is_found_is_durable_from_then_on() {
        let (files, path, temp) = (MemoryFiles::new(), Path::new("/f"), Path::new("/f.tmp"));
        let mut file = files.create(temp).unwrap();
        file.write_all(b"same").unwrap();
        file.sync_all().unwrap();
        // Stopped between the rename and the sync of the folder.
        files.rename(temp, path).unwrap();
        keep(&files, path, b"same").unwrap();
        files.power_loss();
        assert_eq!(read(&files, path, 9).unwrap().unwrap(), b"same");
    }
}
