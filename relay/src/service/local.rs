//! The relay's calls without a network, as one authenticated end makes them; for tests and simulations.

use std::time::Duration;

use async_trait::async_trait;
use towpath_transfer::{
    AgentName, Code, Failure, TransferId,
    announcement::SignedAnnouncement,
    api::{
        Acknowledgement, AppReceipt, Complete, Downlinks, EnrolmentAnswer, EnrolmentRequest, Expectations, Export, ExportStatus,
        KeyRotation, Peers, Releases, UplinkStatus,
    },
    digest::Sha256Digest,
    failure::Result,
    public_key::PublicKeyLine,
};
use towpath_transport::relay_api::RelayApi;

use super::RelayService;
use crate::scope::Caller;

/// [`RelayApi`] over a [`RelayService`] in the same process. Every call asks the registry for the end anew, so that a
/// revocation bites here as it does over HTTP.
#[derive(Debug, Clone)]
pub struct LocalRelayApi {
    service: RelayService,
    end: Option<(String, PublicKeyLine)>,
}

impl LocalRelayApi {
    /// The calls of whoever is enrolled as `user` (`<tenant>.<name>`) with `key`.
    #[must_use]
    pub fn new(service: RelayService, user: impl Into<String>, key: PublicKeyLine) -> Self {
        Self { service, end: Some((user.into(), key)) }
    }

    /// The one call of somebody who is not enrolled yet.
    #[must_use]
    pub fn anonymous(service: RelayService) -> Self {
        Self { service, end: None }
    }

    async fn caller(&self) -> Result<Caller> {
        match &self.end {
            Some((user, key)) => self.service.registry.authenticate_key(user, key).await,
            None => Err(Failure::park(Code::AuthenticationRefused, "the call needs an enrolled end")),
        }
    }
}

#[async_trait]
impl RelayApi for LocalRelayApi {
    async fn enrol(&self, request: &EnrolmentRequest) -> Result<EnrolmentAnswer> {
        self.service.enrol(request, None).await
    }

    async fn peers(&self) -> Result<Peers> {
        self.service.peers(&self.caller().await?).await
    }

    async fn rotate_key(&self, rotation: &KeyRotation) -> Result<KeyRotation> {
        self.service.rotate_key(&self.caller().await?, rotation).await
    }

    async fn complete(&self, transfer: TransferId, complete: &Complete) -> Result<UplinkStatus> {
        self.service.complete(&self.caller().await?, transfer, complete).await
    }

    async fn uplink(&self, transfer: TransferId) -> Result<UplinkStatus> {
        self.service.uplink(&self.caller().await?, transfer).await
    }

    async fn post_receipt(&self, receipt: &AppReceipt) -> Result<()> {
        self.service.app_receipt(&self.caller().await?, receipt).await
    }
    async fn downlinks(&self, wait: Duration, unless: Option<Sha256Digest>) -> Result<Downlinks> {
        self.service.downlinks(&self.caller().await?, wait, unless).await
    }

    async fn acknowledge(&self, transfer: TransferId, acknowledgement: &Acknowledgement) -> Result<()> {
        self.service.acknowledge(&self.caller().await?, transfer, acknowledgement).await
    }

    async fn export(&self, export: &Export) -> Result<ExportStatus> {
        self.service.export(&self.caller().await?, export).await
    }

    async fn export_status(&self, agent: &AgentName, transfer: TransferId) -> Result<ExportStatus> {
        self.service.export_status(&self.caller().await?, agent, transfer).await
    }

    async fn expect(&self, expectations: &Expectations) -> Result<()> {
        self.service.expect(&self.caller().await?, expectations).await
    }

    async fn releases(&self) -> Result<Releases> {
        self.service.releases(&self.caller().await?).await
    }

    async fn announcement(&self, pinned: u64) -> Result<SignedAnnouncement> {
        self.service.announcement(&self.caller().await?, pinned).await
    }
}
