//! Enrolment: this receiver's place at its relay, told once and kept in `enrolment.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use towpath_keys::{Identity, sign_enrolment};
use towpath_transfer::{
    AgentName, Code, Failure, TenantName,
    announcement::RelayKeys,
    api::{EnrolmentCode, EnrolmentRequest, Landing, Peer, Role},
    digest::Sha256Digest,
    public_key::PublicKeyLine,
};
use towpath_transport::{
    files::{FileStore, file_failure, write_whole},
    relay_api::RelayApi,
};

use crate::{kept, landing::LANDING_USER};

/// The largest `enrolment.json`, in bytes.
pub const MAX_ENROLMENT_BYTES: usize = 256 * 1024;
/// The longest host name the relay may be told, in bytes (RFC 1035).
const MAX_HOST_BYTES: usize = 253;

/// What enrolment has told, and what this receiver has told about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// Always 1.
    pub version: u32,
    /// The relay's URL, as the enrolment code writes it.
    pub relay_url: String,
    /// SHA-256 of the relay's SubjectPublicKeyInfo, where its certificate is not publicly trusted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spki_pin: Option<Sha256Digest>,
    /// The tenant this receiver serves.
    pub tenant: TenantName,
    /// Its name within the tenant.
    pub name: AgentName,
    /// The issuer of its tokens.
    pub sftp_user: String,
    /// The relay's SSH host keys.
    pub ssh_host_keys: Vec<PublicKeyLine>,
    /// The key that signs the relay's receipts.
    pub receipt_key: PublicKeyLine,
    /// What the relay has announced since, in place of its host keys, receipt key and pin here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub announced: Option<RelayKeys>,
    /// The key with which the relay logs in on the landing.
    pub forward_key: PublicKeyLine,
    /// Where the relay was told to reach the landing; absent where a person tells it (`towpath-relay tenant app-server`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub landing: Option<Landing>,
}

impl Enrolment {
    /// Reads what enrolment has told.
    ///
    /// # Errors
    /// `not-enrolled` where there is none yet, `config-invalid` where it is damaged.
    pub fn load(files: &dyn FileStore, path: &Path) -> Result<Self, Failure> {
        Self::find(files, path)?
            .ok_or_else(|| Failure::park(Code::NotEnrolled, "this receiver is not enrolled; run: towpath-receiver enrol CODE"))
    }

    /// Reads what enrolment has told, where it has been.
    ///
    /// # Errors
    /// `config-invalid` where it is damaged.
    pub fn find(files: &dyn FileStore, path: &Path) -> Result<Option<Self>, Failure> {
        let Some(bytes) = kept::read(files, path, MAX_ENROLMENT_BYTES)? else { return Ok(None) };
        let damaged = || Failure::park(Code::ConfigInvalid, format!("{} is damaged; enrol again", path.display()));
        let enrolment: Self = serde_json::from_slice(&bytes).map_err(|e| damaged().caused_by(e))?;
        if enrolment.version == 1 { Ok(Some(enrolment)) } else { Err(damaged()) }
    }

    /// The keys of the relay that are pinned now.
    #[must_use]
    pub fn relay_keys(&self) -> RelayKeys {
        RelayKeys::believed(self.spki_pin, &self.ssh_host_keys, &self.receipt_key, self.announced.as_ref())
    }

    pub(crate) fn write(&self, files: &dyn FileStore, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| Failure::park(Code::Internal, "writing the enrolment failed").caused_by(e))?;
        write_whole(files, path, &text).map_err(|e| file_failure("writing", path, e))
    }
}

/// Where the relay reaches a landing, `host:port` or `[address]:port`.
///
/// # Errors
/// `config-invalid` for any other form.
pub fn parse_landing(text: &str) -> Result<(String, u16), Failure> {
    let invalid =
        || Failure::park(Code::ConfigInvalid, format!("{text:?} is not of the form host:port, such as app.example.com:2222"));
    let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().map_err(|_| invalid())?.to_string(),
        None => host.to_owned(),
    };
    let plain = bare.is_some() || host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if host.is_empty() || host.len() > MAX_HOST_BYTES || !plain {
        return Err(invalid());
    }
    Ok((host, port))
}

/// What this receiver tells about its own landing.
#[must_use]
pub fn landing_of(host: String, port: u16, host_keys: &[PublicKeyLine]) -> Landing {
    Landing { host, port, user: LANDING_USER.to_owned(), folder: "/".to_owned(), host_keys: host_keys.to_vec() }
}

/// Enrols with the relay and keeps its answer at `path`. May be repeated: the same code gives the same answer until it
/// expires.
///
/// # Errors
/// `enrolment-code-invalid` for a code of an agent, `config-invalid` where this state folder belongs to another tenant, the
/// relay's own refusals, `relay-protocol` where its answer is not for this code.
pub async fn enrol(
    code: &EnrolmentCode,
    identity: &Identity,
    landing: Option<Landing>,
    relay: &dyn RelayApi,
    files: &dyn FileStore,
    path: &Path,
) -> Result<(Enrolment, Vec<Peer>), Failure> {
    if code.role != Role::Receiver {
        let told = "this code enrols an agent; create one with: towpath-relay enrolment create --role receiver";
        return Err(Failure::park(Code::EnrolmentCodeInvalid, told));
    }
    if let Some(before) = Enrolment::find(files, path)?
        && before.tenant != code.tenant
    {
        let told = format!(
            "this state folder serves tenant {}, and the code is for tenant {}; use another --state",
            before.tenant, code.tenant
        );
        return Err(Failure::park(Code::ConfigInvalid, told));
    }
    let request = EnrolmentRequest {
        tenant: code.tenant.clone(),
        role: Role::Receiver,
        secret: code.secret.clone(),
        public_key: identity.public_line().clone(),
        proof: sign_enrolment(identity, code.secret.as_bytes(), &code.relay_url)?,
        landing: landing.clone(),
    };
    let answer = relay.enrol(&request).await?;
    if answer.tenant != code.tenant || answer.role != Role::Receiver {
        return Err(Failure::park(Code::RelayProtocol, "enrolling: the relay's answer is for another tenant or role"));
    }
    let enrolment = Enrolment {
        version: 1,
        relay_url: code.relay_url.clone(),
        spki_pin: code.spki_pin,
        tenant: answer.tenant,
        name: answer.name,
        sftp_user: answer.sftp_user,
        ssh_host_keys: answer.ssh_host_keys,
        receipt_key: answer.receipt_key,
        announced: None,
        forward_key: answer.forward_key,
        landing,
    };
    enrolment.write(files, path)?;
    Ok((enrolment, answer.peers))
}

#[cfg(test)]
mod tests {
    use towpath_transfer::api::EnrolmentAnswer;
    use towpath_transport::{files::MemoryFiles, relay_api::MemoryRelay};

    use super::*;
    use crate::testing::{identity, key_line};

    fn code(tenant: &str, role: Role) -> EnrolmentCode {
        let secret = "0123456789abcdef0123456789abcdef".to_owned();
        EnrolmentCode { relay_url: "https://relay.test".into(), tenant: tenant.parse().unwrap(), role, secret, spki_pin: None }
    }

    fn answer() -> EnrolmentAnswer {
        EnrolmentAnswer {
            tenant: "acme".parse().unwrap(),
            name: "app".parse().unwrap(),
            role: Role::Receiver,
            sftp_user: "acme.app".into(),
            ssh_host_keys: vec![key_line(7)],
            receipt_key: key_line(8),
            forward_key: key_line(9),
            peers: vec![],
        }
    }

    #[tokio::test]
    async fn enrolling_twice_gives_the_same_file() {
        let (files, relay, me) = (MemoryFiles::new(), MemoryRelay::new(), identity(1));
        let path = Path::new("/enrolment.json");
        assert_eq!(Enrolment::load(&files, path).unwrap_err().code(), Code::NotEnrolled);
        let landing = landing_of("app".into(), 2222, &[key_line(3)]);
        let unknown = enrol(&code("acme", Role::Receiver), &me, None, &relay, &files, path).await.unwrap_err();
        assert_eq!(unknown.code(), Code::EnrolmentUnknown);
        relay.set_enrolment(answer());
        for _ in 0..2 {
            enrol(&code("acme", Role::Receiver), &me, Some(landing.clone()), &relay, &files, path).await.unwrap();
            let kept = Enrolment::load(&files, path).unwrap();
            assert_eq!((kept.forward_key, kept.landing), (key_line(9), Some(landing.clone())));
        }
    }

    #[tokio::test]
    async fn codes_for_others_are_refused() {
        let (files, relay, me) = (MemoryFiles::new(), MemoryRelay::new(), identity(1));
        let path = Path::new("/enrolment.json");
        relay.set_enrolment(answer());
        let refused = enrol(&code("acme", Role::Agent), &me, None, &relay, &files, path).await.unwrap_err();
        assert_eq!(refused.code(), Code::EnrolmentCodeInvalid);
        let wrong = enrol(&code("other", Role::Receiver), &me, None, &relay, &files, path).await.unwrap_err();
        assert_eq!(wrong.code(), Code::RelayProtocol);
        enrol(&code("acme", Role::Receiver), &me, None, &relay, &files, path).await.unwrap();
        let moved = enrol(&code("other", Role::Receiver), &me, None, &relay, &files, path).await.unwrap_err();
        assert_eq!(moved.code(), Code::ConfigInvalid);
    }

    #[test]
    fn landings_are_host_and_port() {
        assert_eq!(parse_landing("app.example.com:2222").unwrap(), ("app.example.com".to_owned(), 2222));
        assert_eq!(parse_landing("127.0.0.1:1").unwrap(), ("127.0.0.1".to_owned(), 1));
        assert_eq!(parse_landing("[::1]:22").unwrap(), ("::1".to_owned(), 22));
        for bad in
            ["", "app", ":22", "app:0", "app:70000", "a b:22", "a/b:22", "[x]:22", "::1:22", &format!("{}:1", "a".repeat(254))]
        {
            assert_eq!(parse_landing(bad).unwrap_err().code(), Code::ConfigInvalid, "{bad}");
        }
    }
}
