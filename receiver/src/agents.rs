//! Which agents this receiver believes: the relay names them, a person (or the first use, where that is configured) pins
//! their keys, and only the pins count.

use std::{path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use towpath_keys::{AllowedSigners, Namespace, PublicKey, chain::RELAY_PRINCIPAL};
use towpath_transfer::{
    AgentName, Code, Failure, TenantName,
    api::{Peer, Role},
    public_key::{Fingerprint, PublicKeyLine},
};
use towpath_transport::relay_api::RelayApi;

use crate::{
    agent_keys::{followers, proven_key, proven_keys},
    parts::{AGENT_NAMESPACES, Parts},
    uplink::verify::blocking,
};

/// How an agent's key comes to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrustPolicy {
    /// A person compares its fingerprint and approves it.
    #[default]
    Approve,
    /// The key the relay names is pinned with the agent's first transfer, and never replaced afterwards.
    FirstUse,
}

/// Which keys of an agent a person's word is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    /// The newest, and those that it has followed: a transfer may be under way that an earlier one has signed.
    WithEarlier,
    /// The newest alone: an earlier one was stolen.
    NewestOnly,
}

/// How a key stands here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Pinned: manifests by this key are accepted.
    Approved,
    /// The relay names it, its proof of possession is good, and nobody has approved it.
    Waiting,
    /// As `waiting`, and another key of the same agent is pinned: the key was changed, or somebody lies.
    Changed,
    /// An approved key names it as its follower: it is believed with the agent's next transfer, and nobody has to approve it.
    Follows,
    /// It was believed, and a person has taken that back; only a person gives it again.
    Withdrawn,
    /// The proof that the relay shows for it is wrong; it cannot be approved.
    ProofInvalid,
}

/// A key of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KnownAgent {
    /// The agent's name within the tenant.
    pub name: AgentName,
    /// The key's fingerprint, as `ssh-keygen -l` shows it.
    pub fingerprint: Fingerprint,
    /// The key.
    pub public_key: PublicKeyLine,
    /// How it stands here.
    pub standing: Standing,
    /// Whether the relay names it today; `None` where the relay could not be asked.
    pub enrolled: Option<bool>,
}

/// Every pinned key and every key that the relay names, sorted by name. `peers` is `None` where it could not be asked.
#[must_use]
pub fn list(peers: Option<&[Peer]>, signers: &AllowedSigners, tenant: &TenantName) -> Vec<KnownAgent> {
    let mut known: Vec<KnownAgent> = Vec::new();
    for pin in signers.pins() {
        for name in pin.principals().iter().filter_map(|name| name.parse::<AgentName>().ok()) {
            let line = pin.key().line();
            let usable = signers.lookup(name.as_str(), Namespace::Manifest).any(|key| key == pin.key());
            if !usable || known.iter().any(|agent| agent.name == name && agent.public_key == *line) {
                continue;
            }
            let enrolled = peers.map(|peers| peers.iter().any(|peer| peer.name == name && peer.keys().any(|key| key == line)));
            let fingerprint = line.fingerprint();
            known.push(KnownAgent { name, fingerprint, public_key: line.clone(), standing: Standing::Approved, enrolled });
        }
    }
    for peer in peers.unwrap_or_default().iter().filter(|peer| peer.role == Role::Agent) {
        let newest = peer.newest_key();
        if known.iter().any(|agent| agent.name == peer.name && agent.public_key == *newest) {
            continue;
        }
        let is_pinned = signers.lookup(peer.name.as_str(), Namespace::Manifest).next().is_some();
        let follows = |key: &PublicKey| followers(peer, tenant, signers).is_ok_and(|found| found.keys.contains(key));
        let standing = match proven_key(peer, tenant) {
            Ok(key) if signers.is_withdrawn(peer.name.as_str(), &key) => Standing::Withdrawn,
            Ok(key) if follows(&key) => Standing::Follows,
            Ok(_) if is_pinned => Standing::Changed,
            Ok(_) => Standing::Waiting,
            Err(_) => Standing::ProofInvalid,
        };
        known.push(KnownAgent {
            name: peer.name.clone(),
            fingerprint: newest.fingerprint(),
            public_key: newest.clone(),
            standing,
            enrolled: Some(true),
        });
    }
    known.sort_by(|a, b| a.name.cmp(&b.name));
    known
}

/// Pins an agent by the fingerprint of its newest key, under the name the relay gives it. May be repeated.
///
/// # Errors
/// `not-found` where the relay names no such key, `enrolment-proof-invalid`, `request-invalid` where it names it twice, those
/// of the relay and of the file.
pub async fn approve(
    relay: &dyn RelayApi,
    path: &Path,
    fingerprint: &Fingerprint,
    tenant: &TenantName,
    approval: Approval,
) -> Result<AgentName, Failure> {
    let peers = relay.peers().await?.peers;
    let mut of_key = peers.iter().filter(|peer| peer.role == Role::Agent && peer.newest_key().fingerprint() == *fingerprint);
    let Some(peer) = of_key.next() else {
        let told = format!("the relay names no agent with the key {fingerprint}; see: towpath-receiver agent list");
        return Err(Failure::park(Code::NotFound, told));
    };
    if let Some(other) = of_key.next() {
        let told =
            format!("the relay names the key {fingerprint} for both {} and {}, so none was approved", peer.name, other.name);
        return Err(Failure::park(Code::RequestInvalid, told));
    }
    let (first, later) = proven_keys(peer, tenant)?;
    let mut keys: Vec<PublicKey> = std::iter::once(first).chain(later).collect();
    if approval == Approval::NewestOnly {
        keys.drain(..keys.len().saturating_sub(1));
    }
    let (path, name) = (path.to_owned(), peer.name.clone());
    blocking(move || {
        let mut signers = AllowedSigners::load(&path)?;
        for key in keys {
            signers.approve(name.as_str(), &AGENT_NAMESPACES, &key)?;
        }
        Ok(name)
    })
    .await
}

/// Brings the pins up to what this version relies on: the relay's receipt key is pinned, and every key that was approved for
/// the manifests of an agent is good for its receipts too, as [`approve`] has it. May be repeated.
///
/// # Errors
/// `key-invalid` where the relay's key cannot be used, those of the file.
pub fn complete_pins(path: &Path, receipt_key: &PublicKeyLine) -> Result<(), Failure> {
    let mut signers = AllowedSigners::load(path)?;
    signers.add(RELAY_PRINCIPAL, &[Namespace::Receipt], &PublicKey::try_from(receipt_key)?)?;
    let approved: Vec<(AgentName, PublicKey)> = approved(&signers)
        .flat_map(|name| {
            let keys: Vec<PublicKey> = signers.lookup(name.as_str(), Namespace::Manifest).cloned().collect();
            keys.into_iter().map(move |key| (name.clone(), key))
        })
        .collect();
    for (name, key) in approved {
        signers.add(name.as_str(), &AGENT_NAMESPACES, &key)?;
    }
    Ok(())
}

/// The names of the agents of which a key is approved, each once for each of its keys.
fn approved(signers: &AllowedSigners) -> impl Iterator<Item = AgentName> {
    let names = signers.pins().flat_map(|pin| pin.principals()).filter_map(|name| name.parse::<AgentName>().ok());
    names.filter(|name| signers.lookup(name.as_str(), Namespace::Manifest).next().is_some())
}

/// For whom return files are: the agent that is named, or the only one that is approved.
///
/// # Errors
/// `agent-unapproved` where nobody is approved, or not the agent that is named, for its receipt could not be believed;
/// `request-invalid` where several are and none is named.
pub fn addressee(signers: &AllowedSigners, named: Option<&AgentName>) -> Result<AgentName, Failure> {
    let known: std::collections::BTreeSet<AgentName> = approved(signers).collect();
    let approve = "compare its fingerprint, then run: towpath-receiver agent approve";
    if let Some(name) = named {
        if known.contains(name) {
            return Ok(name.clone());
        }
        return Err(Failure::park(Code::AgentUnapproved, format!("no key of agent {name} is approved here; {approve}")));
    }
    let mut names = known.into_iter();
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Failure::park(Code::AgentUnapproved, format!("no agent is approved here; {approve}"))),
        (Some(one), Some(other)) => {
            let told =
                format!("both {one} and {other} are approved here: say for which agent the files are (--to, or agent = …)");
            Err(Failure::park(Code::RequestInvalid, told))
        }
    }
}

/// Believes no key of the agent any more, until a person approves one; returns how many there were.
///
/// # Errors
/// Those of the file.
pub fn remove(path: &Path, agent: &AgentName) -> Result<usize, Failure> {
    Ok(AllowedSigners::load(path)?.withdraw(agent.as_str())?.len())
}

/// Before the first transfer of an agent is looked at: pins the key that the relay names for it, where first use is
/// believed and no key of the agent was ever pinned. An agent that the relay does not name stays unapproved.
///
/// # Errors
/// Those of the relay and of the file; the transfer then waits.
pub async fn believe_first_use(parts: &Arc<Parts>, agent: &AgentName) -> Result<(), Failure> {
    if parts.policy != TrustPolicy::FirstUse || is_known(parts, agent).await? {
        return Ok(());
    }
    let peers = parts.relay.peers().await?.peers;
    let Some(peer) = peers.iter().find(|peer| peer.role == Role::Agent && peer.name == *agent) else { return Ok(()) };
    let (first, later) = match proven_keys(peer, &parts.tenant) {
        Ok(keys) => keys,
        Err(failure) => {
            tracing::warn!(%agent, code = %failure.code(), error = %failure.report(), "the agent's key is not believed");
            return Ok(());
        }
    };
    let fingerprint = first.fingerprint();
    let (trust, name) = (Arc::clone(&parts.trust), agent.clone());
    let pinned = blocking(move || {
        // All of them: a transfer may be under way that an earlier key has signed.
        let pinned = trust.pin_first(&name, &first)?;
        later.iter().filter(|_| pinned).try_for_each(|key| trust.follow(&name, key, &first).map(|_| ()))?;
        Ok(pinned)
    });
    if pinned.await? {
        tracing::warn!(%agent, %fingerprint, "the agent's key is believed on first use");
    }
    Ok(())
}

async fn is_known(parts: &Arc<Parts>, agent: &AgentName) -> Result<bool, Failure> {
    let (trust, name) = (Arc::clone(&parts.trust), agent.clone());
    blocking(move || Ok(trust.signers()?.knows(name.as_str()))).await
}

#[cfg(test)]
mod tests {
    use towpath_keys::sign_enrolment;
    use towpath_transfer::digest::Sha256Digest;
    use towpath_transport::relay_api::MemoryRelay;

    use super::*;
    use crate::testing::{identity, peer};

    fn tenant() -> TenantName {
        "acme".parse().unwrap()
    }

    #[tokio::test]
    async fn approving_pins_and_removing_unpins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed_signers");
        let relay = MemoryRelay::new();
        let (erp, other) = (identity(1), identity(2));
        relay.set_peers(vec![peer("erp", &erp), peer("other", &other)]);
        let peers = relay.peers().await.unwrap().peers;
        let standing = |peers: &[Peer]| -> Vec<(String, Standing)> {
            let signers = AllowedSigners::load(&path).unwrap();
            list(Some(peers), &signers, &tenant()).into_iter().map(|agent| (agent.name.to_string(), agent.standing)).collect()
        };
        assert_eq!(standing(&peers), [("erp".to_owned(), Standing::Waiting), ("other".to_owned(), Standing::Waiting)]);
        for _ in 0..2 {
            assert_eq!(
                approve(&relay, &path, &erp.fingerprint(), &tenant(), Approval::WithEarlier).await.unwrap().as_str(),
                "erp"
            );
        }
        assert_eq!(standing(&peers)[0].1, Standing::Approved);
        assert_eq!(AllowedSigners::load(&path).unwrap().pins().count(), 1);
        // Manifests and receipts, and nothing else.
        let pins = AllowedSigners::load(&path).unwrap();
        assert_eq!(pins.lookup("erp", Namespace::Receipt).count(), 1);
        assert!(pins.lookup("erp", Namespace::Enrol).next().is_none());

        let changed = vec![peer("erp", &identity(3))];
        assert_eq!(standing(&changed).iter().map(|(_, s)| *s).collect::<Vec<_>>(), [Standing::Approved, Standing::Changed]);
        let unlisted = list(Some(&[]), &AllowedSigners::load(&path).unwrap(), &tenant());
        assert_eq!(unlisted[0].enrolled, Some(false));

        assert_eq!(remove(&path, &"erp".parse().unwrap()).unwrap(), 1);
        assert_eq!(remove(&path, &"erp".parse().unwrap()).unwrap(), 0);
        assert_eq!(standing(&peers)[0].1, Standing::Withdrawn);
        approve(&relay, &path, &erp.fingerprint(), &tenant(), Approval::WithEarlier).await.unwrap();
        assert_eq!(standing(&peers)[0].1, Standing::Approved);
    }

    #[tokio::test]
    async fn an_agent_that_has_changed_its_key_is_approved_with_all_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed_signers");
        let (first, newest) = (identity(1), identity(2));
        let end = towpath_keys::RotatingEnd { relay_url: "https://relay.test", user: "acme.erp" };
        let rotation = towpath_keys::sign_rotation(end, &first, &newest, jiff::Timestamp::UNIX_EPOCH).unwrap();
        let relay = MemoryRelay::new();
        relay.set_peers(vec![Peer { rotations: vec![rotation], ..peer("erp", &first) }]);
        let refused = approve(&relay, &path, &first.fingerprint(), &tenant(), Approval::WithEarlier).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "a person compares the key that is in use");
        approve(&relay, &path, &newest.fingerprint(), &tenant(), Approval::WithEarlier).await.unwrap();
        let pins = AllowedSigners::load(&path).unwrap();
        for namespace in AGENT_NAMESPACES {
            let keys: Vec<_> = pins.lookup("erp", namespace).collect();
            assert_eq!(keys, [first.public_key(), newest.public_key()]);
        }
        assert_eq!(remove(&path, &"erp".parse().unwrap()).unwrap(), 2);
        for (approval, believed) in [
            (Approval::NewestOnly, vec![newest.public_key()]),
            (Approval::WithEarlier, vec![newest.public_key(), first.public_key()]),
        ] {
            approve(&relay, &path, &newest.fingerprint(), &tenant(), approval).await.unwrap();
            let pins = AllowedSigners::load(&path).unwrap();
            assert_eq!(pins.lookup("erp", Namespace::Manifest).collect::<Vec<_>>(), believed);
        }
    }

    #[test]
    fn pins_from_before_there_were_return_files_are_completed_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed_signers");
        let (erp, relay) = (identity(1), identity(8));
        AllowedSigners::load(&path).unwrap().add("erp", &[Namespace::Manifest], erp.public_key()).unwrap();
        let mut written = Vec::new();
        for _ in 0..3 {
            complete_pins(&path, relay.public_line()).unwrap();
            written.push(std::fs::read_to_string(&path).unwrap());
        }
        assert_eq!(written[0], written[2]);
        let pins = AllowedSigners::load(&path).unwrap();
        assert_eq!(pins.lookup("erp", Namespace::Receipt).collect::<Vec<_>>(), [erp.public_key()]);
        assert_eq!(pins.lookup("erp", Namespace::Manifest).next(), Some(erp.public_key()));
        assert_eq!(pins.lookup(RELAY_PRINCIPAL, Namespace::Receipt).collect::<Vec<_>>(), [relay.public_key()]);
        assert!(pins.lookup(RELAY_PRINCIPAL, Namespace::Manifest).next().is_none());
        // The relay is no agent, and one agent is one, however many lines it has.
        let known: Vec<String> = list(None, &pins, &tenant()).into_iter().map(|agent| agent.name.to_string()).collect();
        assert_eq!(known, ["erp"]);
        assert_eq!(addressee(&pins, None).unwrap().as_str(), "erp");
        assert_eq!(remove(&path, &"erp".parse().unwrap()).unwrap(), 1);
        assert!(AllowedSigners::load(&path).unwrap().lookup("erp", Namespace::Receipt).next().is_none());
    }

    #[tokio::test]
    async fn what_is_not_proven_or_not_named_cannot_be_approved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed_signers");
        let relay = MemoryRelay::new();
        let erp = identity(1);
        assert_eq!(
            approve(&relay, &path, &erp.fingerprint(), &tenant(), Approval::WithEarlier).await.unwrap_err().code(),
            Code::NotFound
        );
        let mut forged = peer("erp", &erp);
        forged.proof = sign_enrolment(&identity(2), b"secret", "https://relay.test").unwrap();
        relay.set_peers(vec![forged.clone()]);
        assert_eq!(
            approve(&relay, &path, &erp.fingerprint(), &tenant(), Approval::WithEarlier).await.unwrap_err().code(),
            Code::EnrolmentProofInvalid
        );
        let signers = AllowedSigners::load(&path).unwrap();
        assert_eq!(list(Some(&[forged]), &signers, &tenant())[0].standing, Standing::ProofInvalid);
        let mut replayed = peer("erp", &erp);
        replayed.secret_sha256 = Sha256Digest::of(b"another secret");
        relay.set_peers(vec![replayed]);
        assert_eq!(
            approve(&relay, &path, &erp.fingerprint(), &tenant(), Approval::WithEarlier).await.unwrap_err().code(),
            Code::EnrolmentProofInvalid
        );
        relay.set_peers(vec![peer("erp", &erp), peer("second", &erp)]);
        assert_eq!(
            approve(&relay, &path, &erp.fingerprint(), &tenant(), Approval::WithEarlier).await.unwrap_err().code(),
            Code::RequestInvalid
        );
        assert!(!path.exists());
    }
}
