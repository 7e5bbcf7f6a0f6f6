//! The relay's own receipts: it holds every file of a transfer, whole.

use std::sync::{Arc, Mutex, PoisonError};

use towpath_keys::{Namespace, PublicKey};
use towpath_transfer::{
    Clock, Code, Direction, Failure, TransferId,
    digest::Sha256Digest,
    failure::Result,
    receipt::{Receipt, ReceiptStage, SignedReceipt},
};

use crate::{keyring::Keyring, scope::AgentScope, spool::Spool};

/// Signs for the relay. Clones sign one after the other.
#[derive(Debug, Clone)]
pub struct Signer {
    keys: Keyring,
    clock: Arc<dyn Clock>,
    /// Held from looking for a receipt to having written one, so that a transfer has one receipt.
    signing: Arc<Mutex<()>>,
}

impl Signer {
    /// Signs with the present receipt key, at the time of this clock.
    #[must_use]
    pub fn new(keys: Keyring, clock: Arc<dyn Clock>) -> Self {
        Self { keys, clock, signing: Arc::default() }
    }

    /// Keeps the `accepted` receipt for this manifest, or leaves the one that was signed already. Written once: a repeated step
    /// finds the first. What lies there and is not signed with the relay's key (half of it was written, or somebody changed it)
    /// is written anew. Blocking.
    ///
    /// # Errors
    /// [`Code::FileFailed`], [`Code::DiskFull`]; [`Code::KeyInvalid`] where the key cannot sign.
    pub fn accepted(
        &self,
        spool: &Spool,
        scope: &AgentScope,
        id: TransferId,
        direction: Direction,
        manifest: Sha256Digest,
    ) -> Result<()> {
        let _alone = self.signing.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = self.keys.shown();
        let key = &shown.receipt_key;
        let known = spool.receipt(scope, id, ReceiptStage::Accepted)?;
        let ours = PublicKey::try_from(key.public_line())?;
        let same = |signed: &SignedReceipt| {
            let (text, signature) = (signed.receipt.as_bytes(), signed.signature.as_bytes());
            let receipt = signed.parse().ok().filter(|receipt| receipt.key() == scope.key(id) && receipt.direction == direction);
            receipt.is_some_and(|receipt| receipt.manifest == Some(manifest))
                && towpath_keys::verify(signature, Namespace::Receipt, text, &ours).is_ok()
        };
        if known.as_ref().is_some_and(same) {
            return spool.hold_receipt(scope, id, ReceiptStage::Accepted);
        }
        let receipt = Receipt {
            version: 1,
            transfer: id,
            tenant: scope.tenant().tenant().clone(),
            agent: scope.agent().clone(),
            direction,
            stage: ReceiptStage::Accepted,
            manifest: Some(manifest),
            rows: Vec::new(),
            reason: None,
            time: self.clock.now(),
            signer: key.fingerprint(),
        };
        let internal = |e| Failure::park(Code::Internal, "write a receipt as JSON").caused_by(e);
        let bytes = receipt.to_bytes().map_err(internal)?;
        let signature = key.sign(Namespace::Receipt, &bytes)?;
        let receipt =
            String::from_utf8(bytes).map_err(|e| Failure::park(Code::Internal, "write a receipt as text").caused_by(e))?;
        spool.keep_receipt(scope, id, ReceiptStage::Accepted, &SignedReceipt { receipt, signature })
    }
}
