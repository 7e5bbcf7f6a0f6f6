//! The web service's messages, version 1.

mod code;
mod expectations;
mod releases;
mod rotation;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    digest::Sha256Digest,
    failure::Code,
    id::{AgentName, Sequence, TenantName, TransferId},
    public_key::PublicKeyLine,
    receipt::SignedReceipt,
    state::{Announced, Identity, MissingFile, Stage},
};

pub use code::{EnrolmentCode, InvalidEnrolmentCode, MAX_ENROLMENT_CODE_CHARS};
pub use expectations::{Expectation, Expectations, MAX_EXPECTATIONS};
pub use releases::{MAX_RELEASES, Releases};
pub use rotation::{KeyRotation, MAX_KEY_OVERLAP, MAX_LIVE_KEYS, MAX_ROTATIONS};

/// The largest request body the web service reads, in bytes.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// The longest long poll, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 55;
/// The most downlinks one answer names, oldest first.
pub const MAX_OFFERS: usize = 1_000;

/// What an enrolled end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// On the ERP host.
    Agent,
    /// Beside the app.
    Receiver,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Receiver => "receiver",
        })
    }
}

/// Text that is neither `agent` nor `receiver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a role is agent or receiver")]
pub struct InvalidRole;

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        match text {
            "agent" => Ok(Self::Agent),
            "receiver" => Ok(Self::Receiver),
            _ => Err(InvalidRole),
        }
    }
}

/// `POST /v1/enrolments`.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentRequest {
    /// The tenant of the code.
    pub tenant: TenantName,
    /// The role of the code.
    pub role: Role,
    /// The code's one-time secret.
    #[schema(max_length = 128)]
    pub secret: String,
    /// The key to enrol.
    pub public_key: PublicKeyLine,
    /// Armoured SSHSIG by that key, namespace `towpath-enrol@1`.
    #[schema(max_length = 8192)]
    pub proof: String,
    /// A receiver with an SFTP landing of its own says where the relay reaches it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub landing: Option<Landing>,
}

impl fmt::Debug for EnrolmentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolmentRequest({} {} {:?}, secret withheld)", self.tenant, self.role, self.public_key)
    }
}

/// Where and how an app server takes SFTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Landing {
    /// Host name or address.
    #[schema(max_length = 253)]
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The user the relay logs in as.
    #[schema(max_length = 128)]
    pub user: String,
    /// The folder below which `uplink/<agent>/<transfer>/` is written; `/` for the user's root.
    #[schema(max_length = 1024)]
    pub folder: String,
    /// The host keys the relay pins.
    #[schema(max_items = 8)]
    pub host_keys: Vec<PublicKeyLine>,
}

/// The answer to an enrolment; the same key gets the same answer again until the code expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentAnswer {
    /// The tenant.
    pub tenant: TenantName,
    /// The end's name within the tenant.
    pub name: AgentName,
    /// What it was enrolled as.
    pub role: Role,
    /// The user name for SFTP, and the issuer of its tokens.
    pub sftp_user: String,
    /// The relay's SSH host keys, to pin.
    pub ssh_host_keys: Vec<PublicKeyLine>,
    /// The key that signs the relay's receipts, to pin.
    pub receipt_key: PublicKeyLine,
    /// The key with which the relay logs in on app servers; a receiver admits it on its landing.
    pub forward_key: PublicKeyLine,
    /// The enrolled ends of the other role.
    pub peers: Vec<Peer>,
}

/// Another enrolled end of the same tenant, with the proof that it holds its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name within the tenant.
    pub name: AgentName,
    /// What it is.
    pub role: Role,
    /// The key it enrolled with.
    pub public_key: PublicKeyLine,
    /// SHA-256 of the secret it enrolled with, as the proof names it.
    pub secret_sha256: Sha256Digest,
    /// The relay URL the proof names.
    pub relay_url: String,
    /// Its armoured enrolment proof.
    pub proof: String,
    /// Which keys have followed that key, in order, each named by the one before it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schema(max_items = 100)]
    pub rotations: Vec<KeyRotation>,
}

impl Peer {
    /// Every key it had, the first one first.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKeyLine> {
        std::iter::once(&self.public_key).chain(self.rotations.iter().map(|rotation| &rotation.new_key))
    }

    /// The newest key it has, as it says itself; believed by whoever has checked the chain.
    #[must_use]
    pub fn newest_key(&self) -> &PublicKeyLine {
        self.rotations.last().map_or(&self.public_key, |rotation| &rotation.new_key)
    }
}

/// `GET /v1/peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// The enrolled ends of the other role, not revoked.
    pub peers: Vec<Peer>,
}

/// `POST /v1/uplinks/{transfer}/complete`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Complete {
    /// SHA-256 of `manifest.json`.
    pub manifest: Sha256Digest,
    /// SHA-256 of `packed.json`.
    pub packed: Sha256Digest,
}

/// Where an uplink stands at the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UplinkState {
    /// Complete was said; the relay compares.
    Claimed,
    /// Files are missing or differ; send them again and say complete again.
    Incomplete,
    /// Whole, signed for, on its way to the app server.
    Accepted,
    /// On the app server.
    Forwarded,
    /// The end: imported.
    Imported,
    /// The end: rejected.
    Rejected,
}

/// `GET /v1/uplinks/{transfer}`, and the answer to `complete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UplinkStatus {
    /// The transfer.
    pub transfer: TransferId,
    /// Where it stands.
    pub state: UplinkState,
    /// The files to send again, where `incomplete`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub missing: Vec<MissingFile>,
    /// What holds it up, where something does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<Trouble>,
    /// The receipts so far, in the order they were signed.
    pub receipts: Vec<SignedReceipt>,
}

/// What holds a transfer up on another machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Trouble {
    /// The operator error code.
    pub code: Code,
    /// The stage that fails.
    pub stage: Stage,
    /// Whether it waits for a person.
    pub parked: bool,
    /// One sentence without internals of the other machine.
    pub detail: String,
}

/// `POST /v1/app/receipts`: a receiver's `imported` or `rejected` receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AppReceipt {
    /// The agent whose transfer it is.
    pub agent: AgentName,
    /// The transfer.
    pub transfer: TransferId,
    /// The signed receipt.
    pub signed: SignedReceipt,
}

/// `POST /v1/app/exports`: the app server has return files to be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The transfer.
    pub transfer: TransferId,
    /// The agent they are for.
    pub agent: AgentName,
    /// The manifest's position among the agent's downlinks.
    pub sequence: Sequence,
    /// The manifest, which names every other file of the transfer: where it lies, how long it is, and its SHA-256.
    pub announced: Announced,
}

/// Where a downlink stands at the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DownlinkState {
    /// The receiver has told of it; the relay fetches.
    Announced,
    /// Every file is at the relay.
    Fetched,
    /// Packed.
    Packed,
    /// Waits for its agent.
    Queued,
    /// The end: delivered to the ERP.
    Delivered,
    /// The end: rejected by the agent.
    Rejected,
}

/// `GET /v1/app/exports/{transfer}?agent=NAME`, and the answer to `POST /v1/app/exports`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportStatus {
    /// The transfer.
    pub transfer: TransferId,
    /// Where it stands.
    pub state: DownlinkState,
    /// What holds it up, where something does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<Trouble>,
    /// The receipts so far, in the order they were signed: `accepted` by the relay, then the agent's.
    pub receipts: Vec<SignedReceipt>,
}

/// A downlink that waits for its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The transfer; its files lie in `/downlink/<transfer>/`.
    pub transfer: TransferId,
    /// Its position among the agent's downlinks.
    pub sequence: Sequence,
    /// What travels.
    pub identity: Identity,
}

/// `GET /v1/downlinks?wait=SECONDS&unless=VERSION`: what waits for the calling agent.
///
/// The answer comes at once where the list is another than the one of `unless`, or, without `unless`, where it is not empty; else
/// as soon as that becomes so, or when `wait` is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Downlinks {
    /// Names this list: the SHA-256 over the ids in it. To be sent as `unless` with the next call.
    pub version: Sha256Digest,
    /// What waits, oldest first, at most [`MAX_OFFERS`].
    #[schema(max_items = 1000)]
    pub downlinks: Vec<Offer>,
}

impl Downlinks {
    /// The list of these offers.
    #[must_use]
    pub fn of(downlinks: Vec<Offer>) -> Self {
        let ids: String = downlinks.iter().map(|offer| format!("{}\n", offer.transfer)).collect();
        Self { version: Sha256Digest::of(ids.as_bytes()), downlinks }
    }
}

/// `POST /v1/downlinks/{transfer}/acknowledge`: the agent's `delivered` or `rejected` receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acknowledgement {
    /// The signed receipt.
    pub signed: SignedReceipt,
}

/// An error answer: `application/problem+json` (RFC 9457) with the operator error code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// A URI reference to the code's page.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// The code's short title.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, for a person.
    pub detail: String,
    /// The operator error code.
    pub code: Code,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_named_by_the_ids_in_it() {
        let offer = |id: &str| Offer {
            transfer: id.parse().unwrap(),
            sequence: Sequence(1),
            identity: Identity { manifest: Sha256Digest::of(b"m"), packed: Sha256Digest::of(b"p") },
        };
        let (one, two) = (offer("01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b"), offer("01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5c"));
        let versions =
            [vec![], vec![one.clone()], vec![two.clone()], vec![one.clone(), two]].map(|list| Downlinks::of(list).version);
        assert_eq!(std::collections::HashSet::from(versions).len(), 4);
        assert_eq!(Downlinks::of(vec![one]).version, versions[1]);
    }

    #[test]
    fn an_export_knows_its_fields_and_its_path_stays_below_the_root() {
        let text = r#"{"transfer":"01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b","agent":"erp","sequence":3,
            "announced":{"path":"/downlink/erp/x/manifest.json","size":7,"manifest":"HASH"}}"#;
        let text = text.replace("HASH", &Sha256Digest::of(b"m").to_string());
        let export: Export = serde_json::from_str(&text).unwrap();
        assert_eq!((export.announced.size, export.sequence), (7, Sequence(3)));
        assert_eq!(serde_json::from_str::<Export>(&serde_json::to_string(&export).unwrap()).unwrap(), export);
        assert!(serde_json::from_str::<Export>(&text.replacen('{', "{\"more\":1,", 1)).is_err());
        assert!(serde_json::from_str::<Export>(&text.replace("/downlink", "/../downlink")).is_err());
    }
}
