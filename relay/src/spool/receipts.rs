//! The signed receipts, as files: written once, kept after the payload is gone.

use std::{path::PathBuf, sync::Arc};

use towpath_transfer::{
    Failure, TransferId,
    failure::Result,
    receipt::{MAX_RECEIPT_BYTES, MAX_SIGNATURE_BYTES, ReceiptStage, SignedReceipt},
};
use towpath_transport::files::{file_failure, hold, ignore_missing, read_if_there, write_whole};

use super::{PAGE, Spool, blocking};
use crate::scope::AgentScope;

impl Spool {
    /// Removes the receipts of transfers that the journal has forgotten, and returns how many transfers those were.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`], [`towpath_transfer::Code::JournalFailed`].
    pub async fn remove_forgotten_receipts(self: &Arc<Self>) -> Result<usize> {
        let (spool, mut removed) = (Arc::clone(self), 0);
        let agents = blocking(move || spool.agents_in(&spool.receipts)).await??;
        for scope in agents {
            let folder = self.receipts.join(scope.tenant().tenant().as_str()).join(scope.agent().as_str());
            let failed = |e| file_failure("list the folder", &folder, e);
            let (spool, dir) = (Arc::clone(self), folder.clone());
            let mut walk = blocking(move || spool.files.walk(&dir)).await?.map_err(failed)?;
            loop {
                let (page, same) = blocking(move || (walk.next(PAGE), walk)).await?;
                walk = same;
                let page = page.map_err(failed)?;
                if page.is_empty() {
                    break;
                }
                for id in page.iter().filter_map(|entry| entry.name.parse::<TransferId>().ok()) {
                    if self.journal.get(&scope.key(id)).await.map_err(Failure::from)?.is_none() {
                        let (spool, path) = (Arc::clone(self), folder.join(id.to_string()));
                        let gone = blocking(move || ignore_missing(spool.files.remove_dir_all(&path))).await?;
                        gone.map_err(|e| file_failure("remove the receipts in", &folder, e))?;
                        removed += 1;
                    }
                }
            }
        }
        Ok(removed)
    }

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
        let read = |path: PathBuf, limit: usize| -> Result<Option<String>> {
            let bytes = read_if_there(&*self.files, &path, limit as u64).map_err(|e| file_failure("read", &path, e))?;
            // What is not text was not written here; it is written anew.
            Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
        };
        let signature = read(path.with_extension("json.sig"), MAX_SIGNATURE_BYTES)?;
        let receipt = read(path, MAX_RECEIPT_BYTES)?;
        Ok(receipt.zip(signature).map(|(receipt, signature)| SignedReceipt { receipt, signature }))
    }

    /// Makes a receipt durable that was found: the program that kept it may have stopped before it was. Blocking.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`].
    pub fn hold_receipt(&self, scope: &AgentScope, id: TransferId, stage: ReceiptStage) -> Result<()> {
        let path = self.receipt_path(scope, id, stage);
        hold(&*self.files, &path).map_err(|e| file_failure("sync the folder of", &path, e))
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
