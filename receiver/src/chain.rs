//! The receipt chain of a transfer, as the receiver keeps it. What follows from the documents is
//! [`towpath_keys::chain`]'s affair.

use towpath_journal::TransferRecord;
use towpath_keys::{
    AllowedSigners, Namespace, PublicKey,
    chain::{Believes, Document, Kept, Party, RECEIPTS, RELAY_PRINCIPAL, Signer},
};
use towpath_transfer::{
    AgentName, Code, Direction, Failure, TransferKey, TransferState,
    manifest::MANIFEST_NAME,
    packed::{MAX_PACKED_LIST_BYTES, PACKED_NAME},
    receipt::ReceiptStage,
    state::Outcome,
};

use crate::{kept, parts::Parts};

pub use towpath_keys::chain::{Chain, Link};

/// Checks every document of a transfer that should be here by now. Blocking.
///
/// # Errors
/// Where the approved keys cannot be read. What is wrong with a document is in the chain.
pub fn verify(parts: &Parts, record: &TransferRecord) -> Result<Chain, Failure> {
    let (key, state) = (&record.key, &record.state);
    let believed = Believed::of(parts, &key.agent)?;
    let kept = documents(parts, key, record.direction, state);
    Ok(towpath_keys::chain::check(key, record.direction, state, kept, &believed))
}

fn documents(parts: &Parts, key: &TransferKey, direction: Direction, state: &TransferState) -> Kept {
    let (files, layout) = (&*parts.files, &parts.layout);
    // As long as a transfer is under way its manifest lies with the files; then beside the receipts.
    let under_way = match direction {
        Direction::Uplink => layout.landed(key),
        Direction::Downlink => layout.laid_out(key),
    };
    let settled = layout.receipts(key);
    let folder = if files.stat(&settled.join(MANIFEST_NAME)).is_ok() { settled } else { under_way };
    let packed = folder.join(PACKED_NAME);
    let receipts = RECEIPTS.map(|stage| {
        let path = kept::receipt_path(layout, key, stage);
        (stage, Document { path, content: kept::receipt(files, layout, key, stage), due: is_due(state, stage) })
    });
    Kept {
        manifest: Document {
            path: folder.join(MANIFEST_NAME),
            content: kept::manifest(files, &folder),
            // Of what came from an agent the receipt is enough; nothing that was sent back is settled without its manifest.
            due: direction == Direction::Downlink && *state != TransferState::Taken,
        },
        packed: Document { content: kept::read(files, &packed, MAX_PACKED_LIST_BYTES), path: packed, due: false },
        receipts: receipts.into_iter().collect(),
    }
}

fn is_due(state: &TransferState, stage: ReceiptStage) -> bool {
    match state {
        TransferState::Decided { outcome: Outcome::Imported } | TransferState::Imported => stage == ReceiptStage::Imported,
        TransferState::Decided { outcome: Outcome::Rejected(_) } | TransferState::Rejected { .. } => {
            stage == ReceiptStage::Rejected
        }
        TransferState::Delivered => matches!(stage, ReceiptStage::Accepted | ReceiptStage::Delivered),
        _ => false,
    }
}

/// Whom this receiver believes about the transfers of one agent: itself, the relay, and the agent.
#[derive(Debug)]
pub struct Believed {
    signers: AllowedSigners,
    own: Signer,
    agent: AgentName,
}

impl Believed {
    /// As the keys are approved now. Blocking.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn of(parts: &Parts, agent: &AgentName) -> Result<Self, Failure> {
        let own = Signer { name: parts.name.to_string(), key: parts.identity.public_key().clone() };
        Ok(Self { signers: parts.trust.signers()?, own, agent: agent.clone() })
    }

    fn name_of(&self, party: Party, namespace: Namespace, key: &PublicKey) -> Result<String, Failure> {
        let pinned = |name: &str| self.signers.lookup(name, namespace).any(|known| known == key);
        let stranger = |whose: &str| Failure::park(Code::SignatureInvalid, format!("{} is not {whose}", key.fingerprint()));
        match party {
            Party::Receiver if *key == self.own.key => Ok(self.own.name.clone()),
            Party::Receiver => Err(stranger("the key of this receiver")),
            Party::Relay if pinned(RELAY_PRINCIPAL) => Ok(RELAY_PRINCIPAL.to_owned()),
            Party::Relay => Err(stranger("a pinned key of the relay")),
            Party::Agent if pinned(self.agent.as_str()) => Ok(self.agent.to_string()),
            Party::Agent if self.signers.lookup(self.agent.as_str(), namespace).next().is_some() => {
                Err(stranger(&format!("an approved key of agent {}", self.agent)))
            }
            Party::Agent => {
                let told = format!(
                    "no key of agent {} is approved here; compare its fingerprint, then run: towpath-receiver agent approve",
                    self.agent
                );
                Err(Failure::park(Code::AgentUnapproved, told))
            }
        }
    }
}

impl Believes for Believed {
    fn signer(&self, party: Party, namespace: Namespace, message: &[u8], signature: &[u8]) -> Result<Signer, Failure> {
        let key = towpath_keys::signer_of(signature)?;
        let name = self.name_of(party, namespace, &key)?;
        towpath_keys::verify(signature, namespace, message, &key)?;
        Ok(Signer { name, key })
    }
}
