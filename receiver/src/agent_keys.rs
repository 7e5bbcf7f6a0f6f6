//! Agents change their keys: from one that is approved here the newer ones follow, without a person.
//!
//! Each change is signed by the key before it ([`towpath_keys::rotation`]), and the holder of an approved key could sign everything
//! in the agent's name anyway. A key that is not named by an approved one is not believed, whatever the relay says.

use std::{io::ErrorKind, sync::Arc};

use towpath_keys::{AllowedSigners, Namespace, PublicKey, RotatingEnd, follow_rotations, signer_of, verify_enrolment};
use towpath_transfer::{
    AgentName, Code, Failure, TenantName, TransferKey,
    api::{Peer, Role},
    id::sftp_user,
    manifest::SIGNATURE_NAME,
    public_key::PublicKeyLine,
    receipt::MAX_SIGNATURE_BYTES,
};
use towpath_transport::files::{file_failure, read_whole};

use crate::{parts::Parts, uplink::verify::blocking};

/// The newest key of a peer, where the proofs show that whoever enrolled holds its first key, and that each key has named the next.
///
/// # Errors
/// `enrolment-proof-invalid`, `rotation-invalid`, `key-invalid`.
pub fn proven_key(peer: &Peer, tenant: &TenantName) -> Result<PublicKey, Failure> {
    let (first, mut later) = proven_keys(peer, tenant)?;
    Ok(later.pop().unwrap_or(first))
}

/// As [`proven_key`]: the first key, and those that have followed it.
///
/// # Errors
/// As [`proven_key`].
pub fn proven_keys(peer: &Peer, tenant: &TenantName) -> Result<(PublicKey, Vec<PublicKey>), Failure> {
    let key = PublicKey::try_from(&peer.public_key)?;
    verify_enrolment(&key, &peer.secret_sha256, &peer.relay_url, peer.proof.as_bytes())?;
    Ok((key, chain(peer, tenant, &peer.public_key, 0)?))
}

/// The keys that follow `first`, which the first `skip` changes lead to.
fn chain(peer: &Peer, tenant: &TenantName, first: &PublicKeyLine, skip: usize) -> Result<Vec<PublicKey>, Failure> {
    let end = RotatingEnd { relay_url: &peer.relay_url, user: &sftp_user(tenant, &peer.name) };
    follow_rotations(end, first, peer.rotations.get(skip..).unwrap_or_default())
}

/// Keys that follow from one that is approved here.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    /// The newest key that is approved; none where none is.
    approved: Option<PublicKey>,
    /// Those that follow it, up to one that was taken back.
    pub(crate) keys: Vec<PublicKey>,
}

/// The keys of a peer that follow from one that is approved here.
///
/// # Errors
/// `rotation-invalid`, `key-invalid`.
pub(crate) fn followers(peer: &Peer, tenant: &TenantName, signers: &AllowedSigners) -> Result<Followers, Failure> {
    let approved = |line: &PublicKeyLine| signers.lookup(peer.name.as_str(), Namespace::Manifest).any(|key| key.line() == line);
    let Some((at, line)) = peer.keys().enumerate().filter(|(_, line)| approved(line)).last() else {
        return Ok(Followers::default());
    };
    let mut keys = chain(peer, tenant, line, at)?;
    let taken_back = keys.iter().position(|key| signers.is_withdrawn(peer.name.as_str(), key));
    keys.truncate(taken_back.unwrap_or(keys.len()));
    Ok(Followers { approved: Some(PublicKey::try_from(line)?), keys })
}

/// Asks the relay whether an agent has changed its key, and approves what follows from an approved key. Returns whether there was
/// anything.
///
/// # Errors
/// Those of the relay and of the file. A chain that is not proven is passed over with a warning.
pub async fn follow(parts: &Arc<Parts>, agent: &AgentName) -> Result<bool, Failure> {
    let peers = parts.relay.peers().await?.peers;
    let Some(peer) = peers.into_iter().find(|peer| peer.role == Role::Agent && peer.name == *agent) else { return Ok(false) };
    let parts = Arc::clone(parts);
    blocking(move || {
        let found = match followers(&peer, &parts.tenant, &parts.trust.signers()?) {
            Ok(found) => found,
            Err(failure) => {
                let (agent, error) = (&peer.name, failure.report());
                tracing::warn!(%agent, code = %failure.code(), error, "the agent's newer key is not believed");
                return Ok(false);
            }
        };
        let Some(approved) = &found.approved else { return Ok(false) };
        let mut any = false;
        for key in &found.keys {
            if parts.trust.follow(&peer.name, key, approved)? {
                tracing::info!(agent = %peer.name, fingerprint = %key.fingerprint(), "the agent has changed its key");
                any = true;
            }
        }
        Ok(any)
    })
    .await
}

/// Before a transfer is looked at: where it is signed by a key that is not approved, while another one of its agent is, the agent may
/// have changed its key.
///
/// # Errors
/// Those of the relay and of the disk; the transfer then waits, because it may be good.
pub async fn follow_signer(parts: &Arc<Parts>, key: &TransferKey) -> Result<(), Failure> {
    let (reader, of) = (Arc::clone(parts), key.clone());
    let strange = blocking(move || {
        let path = reader.layout.landed(&of).join(SIGNATURE_NAME);
        let signature = match read_whole(&*reader.files, &path, MAX_SIGNATURE_BYTES as u64) {
            // What is wrong with the file is for whoever checks everything; that the disk cannot be read for a moment is not.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::FileTooLarge) => return Ok(false),
            other => other.map_err(|error| file_failure("reading", &path, error))?,
        };
        let Ok(signer) = signer_of(&signature) else { return Ok(false) };
        let signers = reader.trust.signers()?;
        let mut approved = signers.lookup(of.agent.as_str(), Namespace::Manifest).peekable();
        Ok(approved.peek().is_some() && !approved.any(|key| *key == signer))
    })
    .await?;
    if strange {
        follow(parts, &key.agent).await?;
    }
    Ok(())
}

/// Whether a receipt may be by a key that has followed the approved one.
pub(crate) fn may_follow(failure: &Failure) -> bool {
    matches!(failure.code(), Code::ReceiptInvalid | Code::SignatureInvalid)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jiff::Timestamp;
    use towpath_keys::{Identity, sign_rotation};
    use towpath_transfer::{Disposition, api::KeyRotation};
    use towpath_transport::files::{FaultFiles, FileFault, FileOp};

    use super::*;
    use crate::testing::{Bench, folder, id, identity, peer, sent};

    fn change(old: &Identity, new: &Identity) -> KeyRotation {
        let end = RotatingEnd { relay_url: "https://relay.test", user: "acme.erp" };
        sign_rotation(end, old, new, Timestamp::UNIX_EPOCH).unwrap()
    }

    fn rotated(seeds: &[u64]) -> Peer {
        let keys: Vec<Identity> = seeds.iter().map(|seed| identity(*seed)).collect();
        let rotations = keys.windows(2).map(|pair| change(&pair[0], &pair[1])).collect();
        Peer { rotations, ..peer("erp", &keys[0]) }
    }

    fn approved(bench: &Bench) -> Vec<PublicKey> {
        bench.parts.trust.signers().unwrap().lookup("erp", Namespace::Manifest).cloned().collect()
    }

    #[tokio::test]
    async fn newer_keys_follow_from_whichever_key_is_approved() {
        let bench = Bench::new().await;
        let erp: AgentName = "erp".parse().unwrap();
        let before = approved(&bench);
        let own = identity(1);
        assert_eq!(before, [own.public_key().clone()]);
        for (seeds, keys) in [(vec![31], 1), (vec![1, 32], 2), (vec![30, 1, 32, 33], 3)] {
            bench.relay.set_peers(vec![rotated(&seeds)]);
            assert_eq!(follow(&bench.parts, &erp).await.unwrap(), keys > 1, "{seeds:?}");
            assert_eq!(approved(&bench).len(), keys, "{seeds:?}");
        }
        assert!(!follow(&bench.parts, &erp).await.unwrap(), "there is nothing new");
        assert!(approved(&bench).contains(identity(33).public_key()));
        assert!(!approved(&bench).contains(identity(30).public_key()));
    }

    #[tokio::test]
    async fn none_follows_by_way_of_a_key_that_was_taken_back() {
        let bench = Bench::new().await;
        let erp: AgentName = "erp".parse().unwrap();
        bench.relay.set_peers(vec![rotated(&[1, 32])]);
        assert!(follow(&bench.parts, &erp).await.unwrap());
        let pins = bench.temp.path().join("allowed_signers");
        crate::agents::remove(&pins, &erp).unwrap();
        bench.relay.set_peers(vec![rotated(&[1])]);
        let (relay, tenant, own) = (&*bench.parts.relay, &bench.parts.tenant, identity(1).fingerprint());
        crate::agents::approve(relay, &pins, &own, tenant, crate::agents::Approval::WithEarlier).await.unwrap();
        bench.relay.set_peers(vec![rotated(&[1, 32, 33])]);
        assert!(!follow(&bench.parts, &erp).await.unwrap());
        assert_eq!(approved(&bench), [identity(1).public_key().clone()]);
        let peers = bench.parts.relay.peers().await.unwrap().peers;
        let known = crate::agents::list(Some(&peers), &bench.parts.trust.signers().unwrap(), &bench.parts.tenant);
        assert!(known.iter().any(|agent| agent.standing == crate::agents::Standing::Changed), "{known:?}");
    }

    #[tokio::test]
    async fn a_relay_cannot_slip_in_a_key_of_its_own() {
        let bench = Bench::new().await;
        let erp: AgentName = "erp".parse().unwrap();
        let own = identity(1);
        let forged = KeyRotation { by_old: change(&identity(40), &identity(41)).by_old, ..change(&own, &identity(41)) };
        let other = Peer { rotations: vec![change(&identity(40), &identity(41))], ..peer("erp", &identity(40)) };
        for lie in [Peer { rotations: vec![forged], ..peer("erp", &own) }, other] {
            bench.relay.set_peers(vec![lie]);
            assert!(!follow(&bench.parts, &erp).await.unwrap());
            assert_eq!(approved(&bench), [own.public_key().clone()]);
        }
        bench.relay.set_peers(vec![]);
        assert!(!follow(&bench.parts, &erp).await.unwrap());
    }

    #[tokio::test]
    async fn a_disk_that_cannot_be_read_for_a_moment_makes_no_newer_key_a_strange_one() {
        let bench = Bench::new().await;
        bench.relay.set_peers(vec![rotated(&[1, 32])]);
        bench.land("erp", id(1), &folder(&sent(1), &identity(32)));
        let key = Bench::key("erp", id(1));
        for failing in [FileOp::Open, FileOp::Read] {
            let plan = Box::new(move |op, path: &Path| {
                (op == failing && path.ends_with(SIGNATURE_NAME)).then_some(FileFault::Before(ErrorKind::Other))
            });
            let parts = bench.parts_with(|parts| parts.files = Arc::new(FaultFiles::new(bench.files.clone(), plan)));
            let failure = follow_signer(&parts, &key).await.unwrap_err();
            assert_eq!((failure.code(), failure.disposition()), (Code::FileFailed, Disposition::Retry), "{failing:?}");
        }
        follow_signer(&bench.parts, &key).await.unwrap();
        assert!(approved(&bench).contains(identity(32).public_key()));
    }

    #[test]
    fn whoever_is_approved_late_is_approved_with_the_newest_key() {
        let tenant: TenantName = "acme".parse().unwrap();
        assert_eq!(proven_key(&rotated(&[1, 2, 3]), &tenant).unwrap(), *identity(3).public_key());
        assert_eq!(proven_key(&rotated(&[1]), &tenant).unwrap(), *identity(1).public_key());
        let mut broken = rotated(&[1, 2, 3]);
        broken.rotations.swap(0, 1);
        assert_eq!(proven_key(&broken, &tenant).unwrap_err().code(), Code::RotationInvalid);
        assert_eq!(proven_key(&rotated(&[1, 2]), &"other".parse().unwrap()).unwrap_err().code(), Code::RotationInvalid);
    }
}
