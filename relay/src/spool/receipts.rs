//! The signed receipts, as files: written once, kept after the payload is gone.

use std::{io, path::PathBuf};

use towpath_transfer::{
    TransferId,
    failure::Result,
    receipt::{MAX_RECEIPT_BYTES, MAX_SIGNATURE_BYTES, ReceiptStage, SignedReceipt},
};
use towpath_transport::files::{file_failure, read_whole, write_whole};

use super::Spool;
use crate::scope::AgentScope;

impl Spool {
    fn receipt_path(&self, scope: &AgentScope, id: TransferId, stage: ReceiptStage) -> PathBuf {
        let folder = self.receipts.join(scope.tenant().tenant().as_str()).join(scope.agent().as_str()).join(id.to_string());
        folder.join(format!("{}.json", stage.as_str()))
    }

    /// A receipt, where it and its signature are there. Blocking.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`].
    pub fn receipt(&self, scope: &AgentScope, id: TransferId, stage: ReceiptStage) -> Result<Option<SignedReceipt>> {
        let path = self.receipt_path(scope, id, stage);
        let read = |path: PathBuf, limit: usize| match read_whole(&*self.files, &path, limit as u64) {
            // What is not text was not written here; it is written anew.
            Ok(bytes) => Ok(String::from_utf8(bytes).ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(file_failure("read", &path, e)),
        };
        let signature = read(path.with_extension("json.sig"), MAX_SIGNATURE_BYTES)?;
        let receipt = read(path, MAX_RECEIPT_BYTES)?;
        Ok(receipt.zip(signature).map(|(receipt, signature)| SignedReceipt { receipt, signature }))
    }

    /// Keeps a receipt durably. The signature is written last: with it there, both are. Blocking.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`], [`towpath_transfer::Code::DiskFull`].
    pub fn keep_receipt(&self, scope: &AgentScope, id: TransferId, stage: ReceiptStage, signed: &SignedReceipt) -> Result<()> {
        let path = self.receipt_path(scope, id, stage);
        if let Some(folder) = path.parent() {
            self.files.create_dir_all(folder).map_err(|e| file_failure("make the folder", folder, e))?;
        }
        for (path, text) in [(path.clone(), &signed.receipt), (path.with_extension("json.sig"), &signed.signature)] {
            write_whole(&*self.files, &path, text.as_bytes()).map_err(|e| file_failure("write", &path, e))?;
        }
        Ok(())
    }
}
