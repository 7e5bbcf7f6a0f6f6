//! The relay's web service, as the programs call it.
//!
//! [`HttpRelayApi`] speaks HTTPS; [`MemoryRelay`] answers from memory, for the simulation and for tests of a stage.

mod follow;
mod http;
mod memory;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use towpath_transfer::{
    AgentName, TransferId,
    announcement::SignedAnnouncement,
    api::{
        Acknowledgement, AppReceipt, Complete, Downlinks, EnrolmentAnswer, EnrolmentRequest, Expectations, Export, ExportStatus,
        KeyRotation, Peers, Releases, UplinkStatus,
    },
    digest::Sha256Digest,
    failure::Result,
};

pub use follow::{FOLLOW_INTERVAL, Follower, Keeper, RETRY_PAUSE, RelayPins};
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use http::fuzzing;
pub(crate) use http::retry_after;
pub use http::{HttpRelayApi, MAX_ANSWER_BYTES, MAX_CLOCK_SKEW, MAX_RETRY_AFTER, REQUEST_TIMEOUT};
pub use memory::MemoryRelay;

/// The calls of `towpath_transfer::api`. Every call may be repeated after any failure, also after a lost answer, and then leads
/// to the same end.
///
/// **Failures** carry the relay's own operator error code where it answered with one; otherwise `relay-unreachable` (retry),
/// `relay-certificate` (park) or `relay-protocol`. A 429, a 5xx and a broken connection are retried, after the pause that the relay
/// asked for; every other refusal is parked.
#[async_trait]
pub trait RelayApi: Debug + Send + Sync {
    /// `POST /v1/enrolments`; the secret in the request is what authenticates it.
    ///
    /// # Errors
    /// As above.
    async fn enrol(&self, request: &EnrolmentRequest) -> Result<EnrolmentAnswer>;

    /// `GET /v1/peers`.
    ///
    /// # Errors
    /// As above.
    async fn peers(&self) -> Result<Peers>;

    /// `POST /v1/keys`: the calling end takes a new key. The answer is what counts, also where it was asked for before.
    ///
    /// # Errors
    /// As above; `rotation-invalid`.
    async fn rotate_key(&self, rotation: &KeyRotation) -> Result<KeyRotation>;

    /// `POST /v1/uplinks/{transfer}/complete`.
    ///
    /// # Errors
    /// As above.
    async fn complete(&self, transfer: TransferId, complete: &Complete) -> Result<UplinkStatus>;

    /// `GET /v1/uplinks/{transfer}`.
    ///
    /// # Errors
    /// As above; `not-found` for a transfer the relay does not know.
    async fn uplink(&self, transfer: TransferId) -> Result<UplinkStatus>;

    /// `POST /v1/app/receipts`.
    ///
    /// # Errors
    /// As above.
    async fn post_receipt(&self, receipt: &AppReceipt) -> Result<()>;

    /// `GET /v1/downlinks`: what waits for the calling agent. Answers at once where the list is another than the one that `unless`
    /// names, or, without `unless`, where it is not empty; else as soon as that becomes so, or after `wait`, which is cut to whole
    /// seconds and to [`towpath_transfer::api::MAX_WAIT_SECONDS`].
    ///
    /// # Errors
    /// As above.
    async fn downlinks(&self, wait: Duration, unless: Option<Sha256Digest>) -> Result<Downlinks>;

    /// `POST /v1/downlinks/{transfer}/acknowledge`.
    ///
    /// # Errors
    /// As above; `not-found` for a transfer the relay does not have for this agent.
    async fn acknowledge(&self, transfer: TransferId, acknowledgement: &Acknowledgement) -> Result<()>;

    /// `POST /v1/app/exports`.
    ///
    /// # Errors
    /// As above; `not-found` for an agent that is not enrolled.
    async fn export(&self, export: &Export) -> Result<ExportStatus>;

    /// `GET /v1/app/exports/{transfer}`.
    ///
    /// # Errors
    /// As above; `not-found` for a transfer the relay does not know.
    async fn export_status(&self, agent: &AgentName, transfer: TransferId) -> Result<ExportStatus>;

    /// `PUT /v1/expectations`: by when the relay must have each of the calling agent's jobs.
    ///
    /// # Errors
    /// As above.
    async fn expect(&self, expectations: &Expectations) -> Result<()>;

    /// `GET /v1/releases`: the versions that are approved for the calling agent.
    ///
    /// # Errors
    /// As above; `not-found` to a receiver.
    async fn releases(&self) -> Result<Releases>;

    /// `GET /v1/announcement`: the keys that the relay shows now and will show next. `pinned` is the serial of the announcement
    /// that the caller has pinned, 0 before the first; the relay uses a next key only once every end has said that it pinned it.
    ///
    /// # Errors
    /// As above; `not-found` where the relay announces nothing.
    async fn announcement(&self, pinned: u64) -> Result<SignedAnnouncement>;
}

/// Makes the bearer tokens of requests. The programs implement it over their key.
pub trait TokenSource: Debug + Send + Sync {
    /// A fresh JWT (RS256 or EdDSA) for `audience`, the relay's URL without a trailing slash. `now` is the relay's time as far as it is known:
    /// the token's times follow it and not the clock of this host. Each call makes a new `jti`. Quick enough to be called on the runtime.
    ///
    /// # Errors
    /// Where the key cannot sign.
    fn token(&self, audience: &str, now: Timestamp) -> Result<String>;
}
