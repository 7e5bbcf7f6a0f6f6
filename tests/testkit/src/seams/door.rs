//! How programs reach each other without a network, and how a call ends when the other machine does.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use towpath_relay::{
    service::{LocalRelayApi, RelayService},
    spool::{AgentView, Spool},
};
use towpath_transfer::{
    AgentName, Code, Failure, TransferId,
    announcement::SignedAnnouncement,
    api::{
        Acknowledgement, AppReceipt, Complete, Downlinks, EnrolmentAnswer, EnrolmentRequest, Export, ExportStatus, KeyRotation,
        Peers, UplinkStatus,
    },
    digest::Sha256Digest,
    failure::Result,
    public_key::PublicKeyLine,
};
use towpath_transport::{
    relay_api::RelayApi,
    store::{Connect, RemoteStore, StoreError, StoreErrorKind, StoreResult},
};

use super::{far::ViewStore, power::Life};

/// What a program offers to others while it runs.
#[derive(Debug)]
pub struct Door<T>(Arc<Mutex<Option<(T, Life)>>>);

impl<T> Clone for Door<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone> Door<T> {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// Offers something for as long as `life` lasts.
    pub fn offer(&self, what: T, life: Life) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((what, life));
    }

    /// What is offered now.
    #[must_use]
    pub fn open(&self) -> Option<(T, Life)> {
        let offered = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        offered.filter(|(_, life)| !life.is_over())
    }
}

impl<T: Clone> Default for Door<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a running relay offers.
pub type RelayDoor = Door<(RelayService, Arc<Spool>)>;

/// An enrolled end, as it shows itself to the relay.
#[derive(Debug, Clone)]
pub struct Caller {
    /// `<tenant>.<name>`.
    pub user: String,
    /// Its key.
    pub key: PublicKeyLine,
}

/// The relay's calls as one end makes them, each so many times at once.
#[derive(Debug, Clone)]
pub struct Line {
    /// The relay.
    pub door: RelayDoor,
    /// Who calls.
    pub caller: Caller,
    /// How often each call is made; at least once.
    pub times: usize,
}

fn unreachable() -> Failure {
    Failure::retry(Code::RelayUnreachable, "the relay is off")
}

impl Line {
    /// Makes the call so many times at once, and passes the last answer on.
    async fn call<T, F: Future<Output = Result<T>>>(&self, call: impl Fn(LocalRelayApi) -> F) -> Result<T> {
        let ((service, _), life) = self.door.open().ok_or_else(unreachable)?;
        let api = LocalRelayApi::new(service, self.caller.user.clone(), self.caller.key.clone());
        let calls = (0..self.times.max(1)).map(|_| call(api.clone()));
        tokio::select! {
            biased;
            () = life.over() => Err(unreachable()),
            answers = join_all(calls) => answers.into_iter().collect::<Result<Vec<T>>>()?.pop().ok_or_else(unreachable),
        }
    }
}

#[async_trait]
impl RelayApi for Line {
    async fn enrol(&self, request: &EnrolmentRequest) -> Result<EnrolmentAnswer> {
        self.call(async |api| api.enrol(request).await).await
    }

    async fn peers(&self) -> Result<Peers> {
        self.call(async |api| api.peers().await).await
    }

    async fn rotate_key(&self, rotation: &KeyRotation) -> Result<KeyRotation> {
        self.call(async |api| api.rotate_key(rotation).await).await
    }

    async fn complete(&self, transfer: TransferId, complete: &Complete) -> Result<UplinkStatus> {
        self.call(async |api| api.complete(transfer, complete).await).await
    }

    async fn uplink(&self, transfer: TransferId) -> Result<UplinkStatus> {
        self.call(async |api| api.uplink(transfer).await).await
    }

    async fn post_receipt(&self, receipt: &AppReceipt) -> Result<()> {
        self.call(async |api| api.post_receipt(receipt).await).await
    }

    async fn downlinks(&self, wait: Duration, unless: Option<Sha256Digest>) -> Result<Downlinks> {
        self.call(async |api| api.downlinks(wait, unless).await).await
    }

    async fn acknowledge(&self, transfer: TransferId, acknowledgement: &Acknowledgement) -> Result<()> {
        self.call(async |api| api.acknowledge(transfer, acknowledgement).await).await
    }

    async fn export(&self, export: &Export) -> Result<ExportStatus> {
        self.call(async |api| api.export(export).await).await
    }

    async fn export_status(&self, agent: &AgentName, transfer: TransferId) -> Result<ExportStatus> {
        self.call(async |api| api.export_status(agent, transfer).await).await
    }

    async fn expect(&self, expectations: &towpath_transfer::api::Expectations) -> Result<()> {
        self.call(async |api| api.expect(expectations).await).await
    }

    async fn announcement(&self, pinned: u64) -> Result<SignedAnnouncement> {
        self.call(async |api| api.announcement(pinned).await).await
    }
}

/// The way of an agent to its folders on the relay.
#[derive(Debug, Clone)]
pub struct SpoolConnect {
    /// The relay.
    pub door: RelayDoor,
    /// Who connects.
    pub caller: Caller,
}

#[async_trait]
impl Connect for SpoolConnect {
    async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
        let failed = |kind| StoreError::new(kind, "connecting to the relay");
        let ((service, spool), life) = self.door.open().ok_or_else(|| failed(StoreErrorKind::Unreachable))?;
        let refused = |e: Failure| failed(StoreErrorKind::AuthenticationRefused).caused_by(e);
        let caller = service.registry().authenticate_key(&self.caller.user, &self.caller.key).await.map_err(refused)?;
        let view = AgentView::new(spool, caller.as_agent().map_err(refused)?);
        Ok(Arc::new(ViewStore::new(Arc::new(view), life)))
    }
}
