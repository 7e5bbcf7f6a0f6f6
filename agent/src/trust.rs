//! Whom the agent believes: the relay's receipt key and the receivers' keys, pinned in `allowed_signers`.

use std::{fmt::Debug, path::PathBuf};

use towpath_keys::{AllowedSigners, Namespace, PublicKey, verify_enrolment};
use towpath_transfer::{
    AgentName, Code, Failure,
    api::{Peer, Role},
    public_key::Fingerprint,
    receipt::{Receipt, ReceiptStage, SignedReceipt},
};

use crate::config::Trust;

pub use towpath_keys::chain::RELAY_PRINCIPAL;

/// What an end signs.
const END_NAMESPACES: [Namespace; 2] = [Namespace::Receipt, Namespace::Manifest];

/// The pinned keys. Read anew for each use, so that an approval counts at once.
pub trait TrustStore: Debug + Send + Sync {
    /// The keys pinned now.
    ///
    /// # Errors
    /// Where they cannot be read.
    fn signers(&self) -> Result<AllowedSigners, Failure>;

    /// Pins the key of an end, a receiver's or our own, by the word of a person: its manifests and its receipts are believed from now on.
    ///
    /// # Errors
    /// Where they cannot be written.
    fn approve(&self, principal: &str, key: &PublicKey) -> Result<bool, Failure> {
        self.signers()?.approve(principal, &END_NAMESPACES, key)
    }

    /// As [`TrustStore::approve`], by nobody's word: `false` where a person has taken back that it is believed.
    ///
    /// # Errors
    /// Where they cannot be written.
    fn pin_end(&self, principal: &str, key: &PublicKey) -> Result<bool, Failure> {
        self.signers()?.add(principal, &END_NAMESPACES, key)
    }

    /// Believes no key of a receiver any more, until a person approves one; returns how many there were.
    ///
    /// # Errors
    /// `not-found` where none is pinned; those of the file.
    fn withdraw(&self, own: &AgentName, receiver: &str) -> Result<usize, Failure> {
        let mut signers = self.signers()?;
        if !pinned_receivers(&signers, own).iter().any(|known| known.name == receiver) {
            return Err(Failure::park(Code::NotFound, format!("no key of receiver {receiver} is approved here")));
        }
        Ok(signers.withdraw(receiver)?.len())
    }

    /// Pins a key for one purpose; `false` where it was pinned already.
    ///
    /// # Errors
    /// Where they cannot be written.
    fn pin(&self, principal: &str, namespace: Namespace, key: &PublicKey) -> Result<bool, Failure> {
        self.signers()?.add(principal, &[namespace], key)
    }
}

/// Pins in a file of OpenSSH's `allowed_signers` form.
#[derive(Debug, Clone)]
pub struct FileTrust(pub PathBuf);

impl TrustStore for FileTrust {
    fn signers(&self) -> Result<AllowedSigners, Failure> {
        AllowedSigners::load(&self.0)
    }
}

/// A receiver that is pinned here, or that the relay names, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownReceiver {
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: PublicKey,
    /// Whether its key is pinned here.
    pub pinned: bool,
}

/// The receivers pinned for this agent.
#[must_use]
pub fn pinned_receivers(signers: &AllowedSigners, own: &AgentName) -> Vec<KnownReceiver> {
    let mut found: Vec<KnownReceiver> = Vec::new();
    for pin in signers.pins() {
        if !pin.namespaces().is_empty() && !pin.namespaces().iter().any(|name| name == Namespace::Receipt.as_str()) {
            continue;
        }
        let receivers = pin.principals().iter().filter(|name| *name != RELAY_PRINCIPAL && *name != own.as_str());
        for name in receivers {
            let receiver = KnownReceiver { name: name.clone(), key: pin.key().clone(), pinned: true };
            // One that was approved for receipts first stands in two lines.
            if !found.contains(&receiver) {
                found.push(receiver);
            }
        }
    }
    found
}

/// A peer's key, where it is a receiver and has proven that it holds the key.
///
/// # Errors
/// `enrolment-proof-invalid` or `key-invalid`.
pub fn proven_receiver(peer: &Peer) -> Result<Option<KnownReceiver>, Failure> {
    if peer.role != Role::Receiver {
        return Ok(None);
    }
    let key = PublicKey::try_from(&peer.public_key)?;
    verify_enrolment(&key, &peer.secret_sha256, &peer.relay_url, peer.proof.as_bytes())?;
    Ok(Some(KnownReceiver { name: peer.name.to_string(), key, pinned: false }))
}

/// Pins the first proven receiver where none was ever pinned and the configuration believes at first use. Returns it.
///
/// # Errors
/// Where pins cannot be read or written; a peer whose proof is wrong is passed over with a warning.
pub fn pin_first(store: &dyn TrustStore, mode: Trust, own: &AgentName, peers: &[Peer]) -> Result<Option<KnownReceiver>, Failure> {
    let is_receiver = |name: &String| *name != RELAY_PRINCIPAL && *name != own.as_str();
    if mode != Trust::FirstUse || store.signers()?.pins().any(|pin| pin.principals().iter().any(is_receiver)) {
        return Ok(None);
    }
    for peer in peers {
        match proven_receiver(peer) {
            Ok(Some(receiver)) => {
                if !store.pin_end(&receiver.name, &receiver.key)? {
                    return Ok(None);
                }
                tracing::info!(receiver = %receiver.name, fingerprint = %receiver.key.fingerprint(), "pinned the receiver at first use");
                return Ok(Some(KnownReceiver { pinned: true, ..receiver }));
            }
            Ok(None) => {}
            Err(failure) => {
                tracing::warn!(receiver = %peer.name, code = %failure.code(), "not believed: {}", failure.report());
            }
        }
    }
    Ok(None)
}

/// Checks who signed a receipt: the relay for `accepted`, a pinned receiver for the others. Returns the signer's name.
///
/// # Errors
/// `receiver-unapproved` where a receiver's receipt is by a key that is not pinned, `receipt-invalid` otherwise.
pub fn check_receipt(
    signers: &AllowedSigners,
    own: &AgentName,
    signed: &SignedReceipt,
    receipt: &Receipt,
) -> Result<String, Failure> {
    let invalid = |why: Failure| {
        let message = format!("the {} receipt of transfer {} was not believed", receipt.stage.as_str(), receipt.transfer);
        Failure::park(Code::ReceiptInvalid, message).caused_by(why)
    };
    let key = towpath_keys::signer_of(signed.signature.as_bytes()).map_err(invalid)?;
    if receipt.signer != key.fingerprint() {
        let why = format!("it says it is signed by {}, but {} has signed", receipt.signer, key.fingerprint());
        return Err(invalid(Failure::park(Code::ReceiptInvalid, why)));
    }
    let principal = match receipt.stage {
        ReceiptStage::Accepted => RELAY_PRINCIPAL.to_owned(),
        ReceiptStage::Imported | ReceiptStage::Rejected | ReceiptStage::Delivered => {
            let known = pinned_receivers(signers, own).into_iter().find(|receiver| receiver.key == key);
            known.ok_or_else(|| unapproved(key.fingerprint()))?.name
        }
    };
    let message = signed.receipt.as_bytes();
    signers.verify(&principal, Namespace::Receipt, message, signed.signature.as_bytes()).map_err(invalid)?;
    Ok(principal)
}

/// The receiver whose key has made a signature, where it is approved here. Whether it signs anything is another question.
///
/// # Errors
/// `receiver-unapproved` (retry) where the key is not pinned, `signature-invalid` where it is no signature.
pub fn check_receiver(store: &dyn TrustStore, own: &AgentName, signature: &[u8]) -> Result<KnownReceiver, Failure> {
    let key = towpath_keys::signer_of(signature)?;
    let known = pinned_receivers(&store.signers()?, own).into_iter().find(|receiver| receiver.key == key);
    known.ok_or_else(|| {
        let found = key.fingerprint();
        let message = format!(
            "return files are signed by {found}, and no receiver with this key is approved here; compare the fingerprint with the \
             one that the receiver's operator sees, then run: towpath-agent receiver approve {found}"
        );
        Failure::retry(Code::ReceiverUnapproved, message)
    })
}

/// Checks that a receiver that is approved here has signed a manifest of return files. Returns the receiver's name.
///
/// # Errors
/// `receiver-unapproved` (retry) where the key is not pinned, `signature-invalid` otherwise.
pub fn check_return_manifest(
    store: &dyn TrustStore,
    own: &AgentName,
    manifest: &[u8],
    signature: &[u8],
) -> Result<String, Failure> {
    let key = towpath_keys::signer_of(signature)?;
    towpath_keys::verify(signature, Namespace::Manifest, manifest, &key)?;
    let known = check_receiver(store, own, signature)?;
    let signers = store.signers()?;
    // Approval counts for the receiver as such; what was approved before there were return files names receipts only.
    if !signers.lookup(&known.name, Namespace::Manifest).any(|pinned| *pinned == key) {
        store.pin_end(&known.name, &key)?;
    }
    Ok(known.name)
}

fn unapproved(found: Fingerprint) -> Failure {
    let message = format!(
        "a receipt is signed by {found}, and no receiver with this key is approved here; compare the fingerprint with the one that \
         the receiver's operator sees, then run: towpath-agent receiver approve {found}"
    );
    Failure::park(Code::ReceiverUnapproved, message)
}
