//! The receipt chain of a transfer, as the agent keeps it. What follows from the documents is
//! [`towpath_keys::chain`]'s affair.

use towpath_keys::{
    AllowedSigners, Namespace, PublicKey,
    chain::{Believes, Document, Kept, Party, RECEIPTS, Signer},
};
use towpath_transfer::{
    Code, Direction, Failure, TransferId, TransferState,
    failure::Result,
    manifest::MAX_MANIFEST_BYTES,
    packed::MAX_PACKED_LIST_BYTES,
    receipt::{MAX_SIGNATURE_BYTES, ReceiptStage},
    state::Outcome,
};

use crate::{parts::Parts, small_file, trust::RELAY_PRINCIPAL, uplink::folder};

pub use towpath_keys::chain::{Chain, Link};

/// Checks every document of a transfer that should be there by now.
///
/// # Errors
/// `not-found` where the journal has no such transfer; as journal and disk report. What is wrong with a document is in the chain.
pub async fn verify(parts: &Parts, id: TransferId) -> Result<Chain> {
    let key = parts.key(id);
    let record = parts.journal.get(&key).await?;
    let record = record.ok_or_else(|| Failure::park(Code::NotFound, format!("there is no transfer {id}")))?;
    let own = Signer { name: parts.agent.to_string(), key: parts.identity.now().public_key().clone() };
    let believed = Believed { signers: parts.trust.signers()?, own };
    let kept = kept(parts, id, record.direction, &record.state);
    Ok(towpath_keys::chain::check(&key, record.direction, &record.state, kept, &believed))
}

fn kept(parts: &Parts, id: TransferId, direction: Direction, state: &TransferState) -> Kept {
    let (files, layout) = (&*parts.files, &parts.layout.of(direction));
    let signed_manifest = || {
        let Some(bytes) = small_file::read(files, &layout.manifest(id), MAX_MANIFEST_BYTES)? else { return Ok(None) };
        Ok(Some((bytes, small_file::read_existing(files, &layout.signature(id), MAX_SIGNATURE_BYTES)?)))
    };
    let packed = layout.packed(id);
    let receipts = RECEIPTS.map(|stage| {
        let content = folder::kept_receipt(files, layout, id, stage);
        (stage, Document { path: layout.receipt(id, stage), content, due: is_due(direction, state, stage) })
    });
    Kept {
        manifest: Document { path: layout.manifest(id), content: signed_manifest(), due: has_manifest(direction, state) },
        packed: Document { content: small_file::read(files, &packed, MAX_PACKED_LIST_BYTES), path: packed, due: false },
        receipts: receipts.into_iter().collect(),
    }
}

/// A transfer of return files has its manifest here once that is verified; of one that was rejected it may be that nothing was signed.
fn has_manifest(direction: Direction, state: &TransferState) -> bool {
    let may_lack = matches!(
        state,
        TransferState::Offered { .. } | TransferState::Decided { outcome: Outcome::Rejected(_) } | TransferState::Rejected { .. }
    );
    direction == Direction::Uplink || !may_lack
}

fn is_due(direction: Direction, state: &TransferState, stage: ReceiptStage) -> bool {
    // The relay's receipt for a downlink goes to the receiver.
    let accepted = stage == ReceiptStage::Accepted && direction == Direction::Uplink;
    match state {
        TransferState::Accepted { .. } => accepted,
        TransferState::Imported => accepted || stage == ReceiptStage::Imported,
        TransferState::Delivered => stage == ReceiptStage::Delivered,
        TransferState::Rejected { .. } => stage == ReceiptStage::Rejected,
        _ => false,
    }
}

/// Whom the agent believes: its own key, the relay's, and the approved receivers'.
struct Believed {
    signers: AllowedSigners,
    own: Signer,
}

impl Believed {
    /// Approval counts for a receiver as such: what was approved before there were return files names receipts only.
    fn receiver(&self, key: &PublicKey) -> Option<String> {
        let allowed = |name: &str| {
            let known = |namespace| self.signers.lookup(name, namespace).any(|known| known == key);
            known(Namespace::Receipt) || known(Namespace::Manifest)
        };
        let names = self.signers.pins().flat_map(|pin| pin.principals());
        let mut receivers = names.filter(|name| *name != RELAY_PRINCIPAL && **name != self.own.name);
        receivers.find(|name| allowed(name)).cloned()
    }

    fn name_of(&self, party: Party, namespace: Namespace, key: &PublicKey) -> Result<String> {
        let pinned = |name: &str| self.signers.lookup(name, namespace).any(|known| known == key).then(|| name.to_owned());
        let unknown = |code, what| Failure::park(code, format!("{} is not {what}", key.fingerprint()));
        match party {
            Party::Relay => pinned(RELAY_PRINCIPAL).ok_or_else(|| unknown(Code::SignatureInvalid, "a pinned key of the relay")),
            Party::Agent if *key == self.own.key => Ok(self.own.name.clone()),
            Party::Agent => pinned(&self.own.name).ok_or_else(|| unknown(Code::SignatureInvalid, "a key of this agent")),
            Party::Receiver => {
                self.receiver(key).ok_or_else(|| unknown(Code::ReceiverUnapproved, "the key of a receiver that is approved here"))
            }
        }
    }
}

impl Believes for Believed {
    fn signer(&self, party: Party, namespace: Namespace, message: &[u8], signature: &[u8]) -> Result<Signer> {
        let key = towpath_keys::signer_of(signature)?;
        let name = self.name_of(party, namespace, &key)?;
        towpath_keys::verify(signature, namespace, message, &key)?;
        Ok(Signer { name, key })
    }
}
