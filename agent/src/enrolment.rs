//! Enrolment: once, with a code from the relay's operator, the agent and its relay learn each other's keys.

use std::path::Path;

use serde::{Deserialize, Serialize};
use towpath_keys::{Identity, Namespace, PublicKey, sign_enrolment};
use towpath_transfer::{
    AgentName, Code, Failure, TenantName,
    announcement::RelayKeys,
    api::{EnrolmentAnswer, EnrolmentCode, EnrolmentRequest, Role},
    digest::Sha256Digest,
    public_key::PublicKeyLine,
};
use towpath_transport::{files::FileStore, relay_api::RelayApi};

use crate::{
    config::Trust,
    small_file,
    trust::{KnownReceiver, RELAY_PRINCIPAL, TrustStore, pin_first, pinned_receivers},
};

/// The largest enrolment file, in bytes.
pub const MAX_ENROLMENT_BYTES: usize = 256 * 1024;

/// `enrolment.json`: what the agent learnt when it enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// Always 1.
    pub version: u32,
    /// The relay's URL, as the enrolment code wrote it.
    pub relay_url: String,
    /// The tenant this agent belongs to.
    pub tenant: TenantName,
    /// This agent's name within the tenant.
    pub name: AgentName,
    /// Its user name for SFTP, and the issuer of its tokens.
    pub sftp_user: String,
    /// The pin of the relay's certificate, where it is not publicly trusted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spki_pin: Option<Sha256Digest>,
    /// The relay's SSH host keys.
    pub ssh_host_keys: Vec<PublicKeyLine>,
    /// The key that signs the relay's receipts.
    pub receipt_key: PublicKeyLine,
    /// What the relay has announced since, in place of the three above.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub announced: Option<RelayKeys>,
}

impl Enrolment {
    /// Reads the file; `None` where there is none.
    ///
    /// # Errors
    /// `config-invalid` where it cannot be understood, and as the disk reports.
    pub fn read(files: &dyn FileStore, path: &Path) -> Result<Option<Self>, Failure> {
        let Some(bytes) = small_file::read(files, path, MAX_ENROLMENT_BYTES)? else { return Ok(None) };
        let damaged =
            || Failure::park(Code::ConfigInvalid, format!("the enrolment {} cannot be used; enrol again", path.display()));
        let enrolment: Self = serde_json::from_slice(&bytes).map_err(|error| damaged().caused_by(error))?;
        if enrolment.version == 1 { Ok(Some(enrolment)) } else { Err(damaged()) }
    }

    /// The keys of the relay that are pinned now.
    #[must_use]
    pub fn relay_keys(&self) -> RelayKeys {
        RelayKeys::believed(self.spki_pin, &self.ssh_host_keys, &self.receipt_key, self.announced.as_ref())
    }

    pub(crate) fn write(&self, files: &dyn FileStore, path: &Path) -> Result<(), Failure> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::park(Code::Internal, "writing the enrolment as JSON").caused_by(error))?;
        bytes.push(b'\n');
        small_file::write(files, path, &bytes)
    }
}

/// What came of enrolling.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// What is kept.
    pub enrolment: Enrolment,
    /// The receivers pinned now.
    pub receivers: Vec<KnownReceiver>,
    /// Receivers that the relay names and that nobody has approved here.
    pub unapproved: Vec<KnownReceiver>,
}

/// Reads an enrolment code and checks that it is for an agent.
///
/// # Errors
/// `enrolment-code-invalid`.
pub fn parse_code(text: &str) -> Result<EnrolmentCode, Failure> {
    let code: EnrolmentCode = text
        .parse()
        .map_err(|error| Failure::park(Code::EnrolmentCodeInvalid, "the enrolment code cannot be read").caused_by(error))?;
    if code.role == Role::Agent {
        return Ok(code);
    }
    let message = format!("this enrolment code is for a {}: use it with towpath-{}", code.role, code.role);
    Err(Failure::park(Code::EnrolmentCodeInvalid, message))
}

/// What enrolling touches.
#[derive(Debug)]
pub struct EnrolParts<'a> {
    /// The disk.
    pub files: &'a dyn FileStore,
    /// `enrolment.json`.
    pub path: &'a Path,
    /// The relay that the code names.
    pub relay: &'a dyn RelayApi,
    /// The pins.
    pub trust: &'a dyn TrustStore,
    /// The key to enrol.
    pub identity: &'a Identity,
    /// Whom to believe to be the receiver.
    pub mode: Trust,
}

/// Enrols with `code`. May be repeated: the same key with the same code gets the same answer, and is written again.
///
/// # Errors
/// The relay's own refusal (`enrolment-unknown`, `enrolment-used`, `enrolment-expired`, …); `request-invalid` where this state
/// folder belongs to another agent; `relay-protocol` where the answer is not for an agent; as the disk reports.
pub async fn enrol(parts: EnrolParts<'_>, code: &EnrolmentCode) -> Result<Enrolled, Failure> {
    let before = Enrolment::read(parts.files, parts.path)?;
    if let Some(before) = before.as_ref().filter(|before| before.tenant != code.tenant) {
        return Err(other_agent(parts.path, before, code.tenant.as_str()));
    }
    let request = EnrolmentRequest {
        tenant: code.tenant.clone(),
        role: Role::Agent,
        secret: code.secret.clone(),
        public_key: parts.identity.public_line().clone(),
        proof: sign_enrolment(parts.identity, code.secret.as_bytes(), &code.relay_url)?,
        landing: None,
    };
    let answer = parts.relay.enrol(&request).await?;
    let enrolment = accept(code, &answer)?;
    if let Some(before) = before.as_ref().filter(|before| before.name != enrolment.name) {
        return Err(other_agent(parts.path, before, &format!("{}/{}", enrolment.tenant, enrolment.name)));
    }
    // The pins come first: an enrolment without them would look finished and believe nobody.
    parts.trust.pin_end(enrolment.name.as_str(), parts.identity.public_key())?;
    parts.trust.pin(RELAY_PRINCIPAL, Namespace::Receipt, &PublicKey::try_from(&answer.receipt_key)?)?;
    pin_first(parts.trust, parts.mode, &enrolment.name, &answer.peers)?;
    enrolment.write(parts.files, parts.path)?;
    let receivers = pinned_receivers(&parts.trust.signers()?, &enrolment.name);
    let unapproved = unapproved(&answer, &receivers);
    Ok(Enrolled { enrolment, receivers, unapproved })
}

fn accept(code: &EnrolmentCode, answer: &EnrolmentAnswer) -> Result<Enrolment, Failure> {
    let wrong = |what: &str| Failure::park(Code::RelayProtocol, format!("the relay's answer to the enrolment {what}"));
    if answer.tenant != code.tenant {
        return Err(wrong("is for another tenant"));
    }
    if answer.role != Role::Agent {
        return Err(wrong("is not for an agent"));
    }
    if answer.ssh_host_keys.is_empty() {
        return Err(wrong("names no SSH host key"));
    }
    Ok(Enrolment {
        version: 1,
        relay_url: code.relay_url.clone(),
        tenant: answer.tenant.clone(),
        name: answer.name.clone(),
        sftp_user: answer.sftp_user.clone(),
        spki_pin: code.spki_pin,
        ssh_host_keys: answer.ssh_host_keys.clone(),
        receipt_key: answer.receipt_key.clone(),
        announced: None,
    })
}

fn unapproved(answer: &EnrolmentAnswer, pinned: &[KnownReceiver]) -> Vec<KnownReceiver> {
    let proven = answer.peers.iter().filter_map(|peer| match crate::trust::proven_receiver(peer) {
        Ok(receiver) => receiver,
        Err(failure) => {
            tracing::warn!(receiver = %peer.name, code = %failure.code(), "not believed: {}", failure.report());
            None
        }
    });
    proven.filter(|receiver| !pinned.iter().any(|known| known.key == receiver.key)).collect()
}

fn other_agent(path: &Path, before: &Enrolment, now: &str) -> Failure {
    let folder = path.parent().unwrap_or(path).display();
    let message = format!(
        "the state folder {folder} belongs to agent {}/{}, and the code enrols {now}: use another folder (--state)",
        before.tenant, before.name
    );
    Failure::park(Code::RequestInvalid, message)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use towpath_keys::KeyKind;
    use towpath_transfer::{api::Peer, clock::SeededEntropy};
    use towpath_transport::{
        files::{MemoryFiles, read_whole},
        relay_api::MemoryRelay,
    };

    use super::*;
    use crate::{trust::FileTrust, uplink::tests::world::peer};

    struct Bench {
        files: MemoryFiles,
        relay: MemoryRelay,
        trust: FileTrust,
        identity: Identity,
        path: PathBuf,
        _folder: tempfile::TempDir,
    }

    fn key(seed: u64) -> Identity {
        Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(seed)).unwrap()
    }

    fn code(tenant: &str) -> EnrolmentCode {
        EnrolmentCode {
            relay_url: "https://relay.example".into(),
            tenant: tenant.parse().unwrap(),
            role: Role::Agent,
            secret: "s".repeat(22),
            spki_pin: None,
        }
    }

    fn answer(peers: Vec<Peer>) -> EnrolmentAnswer {
        EnrolmentAnswer {
            tenant: "acme".parse().unwrap(),
            name: "erp".parse().unwrap(),
            role: Role::Agent,
            sftp_user: "acme.erp".into(),
            ssh_host_keys: vec![key(1).public_line().clone()],
            receipt_key: key(2).public_line().clone(),
            forward_key: key(3).public_line().clone(),
            peers,
        }
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let trust = FileTrust(folder.path().join("allowed_signers"));
            let (files, relay) = (MemoryFiles::new(), MemoryRelay::new());
            Self { files, relay, trust, identity: key(4), path: "/state/enrolment.json".into(), _folder: folder }
        }

        async fn enrol(&self, code: &EnrolmentCode, mode: Trust) -> Result<Enrolled, Failure> {
            let parts = EnrolParts {
                files: &self.files,
                path: &self.path,
                relay: &self.relay,
                trust: &self.trust,
                identity: &self.identity,
                mode,
            };
            enrol(parts, code).await
        }
    }

    #[tokio::test]
    async fn what_was_learnt_is_kept_and_again_is_the_same() {
        let bench = Bench::new();
        bench.relay.set_enrolment(answer(vec![peer("app", &key(5))]));
        let first = bench.enrol(&code("acme"), Trust::Approve).await.unwrap();
        assert!(first.receivers.is_empty());
        assert_eq!(first.unapproved[0].name, "app");
        let kept = read_whole(&bench.files, &bench.path, 100_000).unwrap();
        let again = bench.enrol(&code("acme"), Trust::Approve).await.unwrap();
        assert_eq!(again.enrolment, first.enrolment);
        assert_eq!(read_whole(&bench.files, &bench.path, 100_000).unwrap(), kept);
        assert_eq!(Enrolment::read(&bench.files, &bench.path).unwrap(), Some(first.enrolment));
        let pins = bench.trust.signers().unwrap();
        assert_eq!(pins.pins().count(), 2);
        assert_eq!(pins.lookup(RELAY_PRINCIPAL, Namespace::Receipt).count(), 1);
        assert_eq!(pins.lookup("erp", Namespace::Manifest).count(), 1);
        assert_eq!(pins.lookup("erp", Namespace::Receipt).count(), 1);
    }

    #[tokio::test]
    async fn at_first_use_the_first_receiver_with_a_good_proof_is_pinned() {
        let bench = Bench::new();
        let liar = Peer { public_key: key(6).public_line().clone(), ..peer("liar", &key(5)) };
        bench.relay.set_enrolment(answer(vec![liar, peer("app", &key(7)), peer("late", &key(8))]));
        let enrolled = bench.enrol(&code("acme"), Trust::FirstUse).await.unwrap();
        assert_eq!(enrolled.receivers.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["app"]);
        assert_eq!(enrolled.unapproved.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["late"]);
    }

    #[tokio::test]
    async fn the_relays_refusal_is_told_as_it_is() {
        for code_of_relay in [Code::EnrolmentUnknown, Code::EnrolmentUsed, Code::EnrolmentExpired] {
            let bench = Bench::new();
            bench.relay.fail_before(Failure::park(code_of_relay, "enrolling: refused"));
            let failure = bench.enrol(&code("acme"), Trust::Approve).await.unwrap_err();
            assert_eq!(failure.code(), code_of_relay);
            assert_eq!(Enrolment::read(&bench.files, &bench.path).unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_state_folder_belongs_to_one_agent() {
        let bench = Bench::new();
        bench.relay.set_enrolment(answer(vec![]));
        bench.enrol(&code("acme"), Trust::Approve).await.unwrap();
        let failure = bench.enrol(&code("other"), Trust::Approve).await.unwrap_err();
        assert_eq!(failure.code(), Code::RequestInvalid);
        bench.relay.set_enrolment(EnrolmentAnswer { name: "second".parse().unwrap(), ..answer(vec![]) });
        let failure = bench.enrol(&code("acme"), Trust::Approve).await.unwrap_err();
        assert!(failure.report().contains("belongs to agent acme/erp"), "{}", failure.report());
    }

    #[tokio::test]
    async fn an_answer_that_does_not_fit_is_refused() {
        let wrong = [
            EnrolmentAnswer { tenant: "other".parse().unwrap(), ..answer(vec![]) },
            EnrolmentAnswer { role: Role::Receiver, ..answer(vec![]) },
            EnrolmentAnswer { ssh_host_keys: vec![], ..answer(vec![]) },
        ];
        for answer in wrong {
            let bench = Bench::new();
            bench.relay.set_enrolment(answer);
            assert_eq!(bench.enrol(&code("acme"), Trust::Approve).await.unwrap_err().code(), Code::RelayProtocol);
        }
    }

    #[test]
    fn codes_that_are_no_codes_of_an_agent_are_refused() {
        let text = code("acme").to_string();
        assert_eq!(parse_code(&format!("{text}\n")).unwrap(), code("acme"));
        let receiver = EnrolmentCode { role: Role::Receiver, ..code("acme") }.to_string();
        assert!(parse_code(&receiver).unwrap_err().report().contains("towpath-receiver"));
        for bad in ["", "towpath1-", &text[..text.len() - 1]] {
            assert_eq!(parse_code(bad).unwrap_err().code(), Code::EnrolmentCodeInvalid);
        }
    }

    #[test]
    fn a_damaged_enrolment_is_no_enrolment() {
        let bench = Bench::new();
        small_file::write(&bench.files, &bench.path, b"{}").unwrap();
        assert_eq!(Enrolment::read(&bench.files, &bench.path).unwrap_err().code(), Code::ConfigInvalid);
    }
}
