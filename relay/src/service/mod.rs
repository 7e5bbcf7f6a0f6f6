//! What the relay's web service does, as plain methods: who calls goes in, a message comes out. The web framework is an
//! edge around this; so is [`LocalRelayApi`], which has no network at all.

mod downlinks;
mod enrolments;
mod keys;
mod local;
mod uplinks;

#[cfg(test)]
pub(crate) mod tests;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use towpath_journal::{Journal, WakeUp};
use towpath_transfer::{
    AgentName, Clock, Code, Failure, TransferId,
    announcement::SignedAnnouncement,
    api::{
        Acknowledgement, AppReceipt, Complete, DownlinkState, Downlinks, Expectations, Export, ExportStatus, MAX_EXPECTATIONS,
        Peers, Releases, Role, UplinkState, UplinkStatus,
    },
    digest::Sha256Digest,
    failure::Result,
    public_key::PublicKeyLine,
};

pub use local::LocalRelayApi;

use crate::{
    access::AccessLog,
    audit::{Action, Entry, Trail, Who, Witness},
    downlink::{self, Arrivals, DownlinkSettings},
    keyring::Keyring,
    registry::Registry,
    scope::{Caller, not_found},
    spool::Spool,
    uplink,
};

/// By how much a token's times may be off: the caller follows the relay's `Date`, which has whole seconds.
pub const TOKEN_LEEWAY: Duration = Duration::from_secs(5);

/// What an end is told when it enrols, and what tokens are checked against.
#[derive(Debug, Clone)]
pub struct RelayIdentity {
    /// The relay's public URL, without a trailing slash: the audience of tokens.
    pub public_url: String,
    /// Its SSH host keys, and the key that signs its receipts, as they are at a moment.
    pub keys: Keyring,
    /// The key with which it logs in on app servers.
    pub forward_key: PublicKeyLine,
}

/// The relay's calls.
#[derive(Clone)]
pub struct RelayService {
    identity: Arc<RelayIdentity>,
    registry: Registry,
    journal: Arc<dyn Journal>,
    spool: Arc<Spool>,
    clock: Arc<dyn Clock>,
    wake: WakeUp,
    arrivals: Arrivals,
    downlinks: DownlinkSettings,
    access: Option<AccessLog>,
    trail: Trail,
}

impl fmt::Debug for RelayService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayService").field("public_url", &self.identity.public_url).finish_non_exhaustive()
    }
}

impl RelayService {
    /// The calls over these parts. `wake` is hinted when there is work for a stage.
    #[must_use]
    pub fn new(
        identity: RelayIdentity,
        registry: Registry,
        journal: Arc<dyn Journal>,
        spool: Arc<Spool>,
        clock: Arc<dyn Clock>,
        wake: WakeUp,
        downlinks: DownlinkSettings,
    ) -> Self {
        let (identity, arrivals) = (Arc::new(identity), Arrivals::default());
        let trail = Trail::new(registry.clone(), Arc::clone(&journal), Arc::clone(&clock));
        Self { identity, registry, journal, spool, clock, wake, arrivals, downlinks, access: None, trail }
    }

    /// Notes in `access` which codes were used, so that a registry that is put back does not open them again.
    #[must_use]
    pub fn remembering(mut self, access: AccessLog) -> Self {
        self.access = Some(access);
        self
    }

    /// What ends are told.
    #[must_use]
    pub fn identity(&self) -> &RelayIdentity {
        &self.identity
    }

    /// The registry behind the calls.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The clock whose time callers follow.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Who waits for return files, to be hinted when there are some.
    #[must_use]
    pub fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// Where what happens is noted.
    #[must_use]
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// Checks the token of a call from `address` and uses it up.
    ///
    /// # Errors
    /// Those of [`Registry::authenticate_token`]; [`Code::AuthenticationRefused`] where there is none.
    pub async fn authenticate(&self, token: Option<&str>, address: Option<IpAddr>) -> Result<Caller> {
        let tried = match token {
            Some(token) => self.registry.authenticate_token(token, &self.identity.public_url, TOKEN_LEEWAY).await,
            None => Err(Failure::park(Code::AuthenticationRefused, "the call needs a bearer token")),
        };
        if let Err(failure) = &tried {
            let user = token.and_then(|token| towpath_keys::unverified_issuer(token).ok()).unwrap_or_default();
            let entry = Entry::new(self.trail.now(), Who::nobody(None, address), Action::Token);
            self.trail.note(entry.refused_to(&user, failure.code()));
        }
        tried.map(|caller| caller.from_address(address))
    }

    /// The serial of the newest announcement of the relay's keys; 0 where there is none.
    #[must_use]
    pub fn announced(&self) -> u64 {
        self.identity.keys.shown().announced.as_ref().map_or(0, |announced| announced.serial)
    }

    /// The newest announcement of the relay's keys. The caller has pinned the one that it names (0 for none), and the relay
    /// remembers that.
    ///
    /// # Errors
    /// [`Code::NotFound`] where nothing is announced; [`Code::FileFailed`].
    pub async fn announcement(&self, caller: &Caller, pinned: u64) -> Result<SignedAnnouncement> {
        let shown = self.identity.keys.shown();
        let announced = shown.announced.as_ref().ok_or_else(not_found)?;
        if pinned > announced.serial {
            // The relay's state is older than the end's: it must not pass for an end that has pinned the newest keys.
            let (user, newest) = (caller.user(), announced.serial);
            tracing::warn!(user, pinned, newest, code = %Code::RelayRestored, "an end has pinned an announcement that this relay does not know");
        } else {
            self.registry.announcement_pinned(caller, pinned).await?;
        }
        Ok(announced.signed.clone())
    }

    /// By when the relay must have each of the agent's jobs, in the place of what the agent has said before. Idempotent.
    ///
    /// # Errors
    /// [`Code::NotFound`] to a receiver; [`Code::RequestInvalid`] for more than [`MAX_EXPECTATIONS`] jobs, or for one twice;
    /// [`Code::FileFailed`].
    pub async fn expect(&self, caller: &Caller, expectations: &Expectations) -> Result<()> {
        let agent = caller.as_agent()?;
        let names: std::collections::BTreeSet<_> = expectations.jobs.iter().map(|expected| &expected.job).collect();
        if names.len() != expectations.jobs.len() || names.len() > MAX_EXPECTATIONS {
            let message = format!("expectations name at most {MAX_EXPECTATIONS} jobs, each once");
            return Err(Failure::park(Code::RequestInvalid, message));
        }
        self.registry.expect(&agent, expectations).await
    }

    /// The releases that are approved for the agent's tenant.
    ///
    /// # Errors
    /// [`Code::NotFound`] to a receiver; [`Code::FileFailed`].
    pub async fn releases(&self, caller: &Caller) -> Result<Releases> {
        let agent = caller.as_agent()?;
        Ok(Releases { versions: self.registry.approved_releases(agent.tenant()).await? })
    }

    /// The ends of the other role.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn peers(&self, caller: &Caller) -> Result<Peers> {
        let other = match caller.role() {
            Role::Agent => Role::Receiver,
            Role::Receiver => Role::Agent,
        };
        Ok(Peers { peers: self.registry.peers(caller.scope(), other).await? })
    }

    /// An agent has sent everything and names it; the folder is frozen from here on. Idempotent.
    ///
    /// # Errors
    /// [`Code::TransferFrozen`] where the transfer was completed as something else,
    /// [`Code::SequenceForked`], [`Code::NotFound`] to a receiver.
    pub async fn complete(&self, caller: &Caller, id: TransferId, complete: &Complete) -> Result<UplinkStatus> {
        let tried = match caller.as_agent() {
            Ok(scope) => self.claim(&scope, id, complete).await,
            Err(failure) => Err(failure),
        };
        let witness = self.witness(caller);
        match &tried {
            Ok(status) if status.state == UplinkState::Incomplete => {
                witness.note(witness.entry(Action::Complete).transfer(id).failed(Code::TransferIncomplete));
                witness.missed(id);
            }
            _ => witness.tried(Action::Complete, id, "", &tried),
        }
        tried
    }

    /// Where one of the agent's uplinks stands.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn uplink(&self, caller: &Caller, id: TransferId) -> Result<UplinkStatus> {
        let tried = match caller.as_agent() {
            Ok(scope) => self.status(&scope, id).await,
            Err(failure) => Err(failure),
        };
        self.witness(caller).looked(id, &tried);
        tried
    }

    /// A receiver says how an uplink has ended. Idempotent.
    ///
    /// # Errors
    /// Those of [`uplink::receipt::settle`].
    pub async fn app_receipt(&self, caller: &Caller, receipt: &AppReceipt) -> Result<()> {
        let tried = uplink::receipt::settle(&self.spool, &*self.journal, caller, receipt).await;
        Self::look_ahead(caller, receipt.transfer, &tried);
        self.witness(caller).tried(Action::Receipt, receipt.transfer, &format!("agent {}", receipt.agent), &tried);
        self.wake.hint();
        tried
    }

    /// A receiver has return files to be fetched. Idempotent.
    ///
    /// # Errors
    /// [`Code::NotFound`] where the receiver's tenant has no such agent, or it was revoked; [`Code::TransferFrozen`] where the
    /// transfer was announced as something else, [`Code::SequenceForked`], [`Code::RequestInvalid`];
    /// [`Code::SpoolFull`] where as many transfers as may be are on their way to the agent.
    pub async fn export(&self, caller: &Caller, export: &Export) -> Result<ExportStatus> {
        let tried = match caller.as_receiver() {
            Ok(scope) => self.announce(&scope.agent(export.agent.clone()), export).await,
            Err(failure) => Err(failure),
        };
        let witness = self.witness(caller);
        witness.tried(Action::Export, export.transfer, &format!("agent {}", export.agent), &tried);
        // What is announced here under its own agent may bear the name of someone else's.
        if matches!(&tried, Ok(status) if status.state == DownlinkState::Announced) {
            witness.missed(export.transfer);
        }
        tried
    }

    /// Where one of the receiver's downlinks stands.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn export_status(&self, caller: &Caller, agent: &AgentName, id: TransferId) -> Result<ExportStatus> {
        let tried = match caller.as_receiver() {
            Ok(scope) => self.announced_status(&scope.agent(agent.clone()), id).await,
            Err(failure) => Err(failure),
        };
        self.witness(caller).looked(id, &tried);
        tried
    }

    /// What waits for the agent. Answers at once where the list is another than the one that `unless` names, or, without
    /// `unless`, where it is not empty; else as soon as that becomes so, or after `wait`, which is cut to
    /// [`towpath_transfer::api::MAX_WAIT_SECONDS`].
    ///
    /// # Errors
    /// [`Code::NotFound`] to a receiver; [`Code::AgentRevoked`], also while it waits; [`Code::RateLimited`] beyond
    /// [`downlink::MAX_POLLS_PER_AGENT`] at once; [`Code::Cancelled`] where the relay stops meanwhile.
    pub async fn downlinks(&self, caller: &Caller, wait: Duration, unless: Option<Sha256Digest>) -> Result<Downlinks> {
        self.offers_unless(caller, wait, unless).await
    }

    /// An agent says how a downlink has ended. Idempotent.
    ///
    /// # Errors
    /// Those of [`downlink::acknowledge::settle`].
    pub async fn acknowledge(&self, caller: &Caller, id: TransferId, acknowledgement: &Acknowledgement) -> Result<()> {
        let tried = downlink::acknowledge::settle(&self.spool, &*self.journal, caller, id, acknowledgement).await;
        Self::look_ahead(caller, id, &tried);
        self.witness(caller).tried(Action::Acknowledge, id, "", &tried);
        if tried.is_ok() {
            self.arrivals.hint(&caller.as_agent()?);
        }
        self.wake.hint();
        tried
    }

    /// Whoever has a receipt for what was never handed on here is ahead of this relay, or lies.
    fn look_ahead(caller: &Caller, transfer: TransferId, tried: &Result<()>) {
        if tried.as_ref().is_err_and(|failure| failure.code() == Code::NotFound) {
            let user = caller.user();
            tracing::warn!(
                user, %transfer, code = %Code::RelayRestored,
                "an end has a receipt for a transfer that this relay has not handed on: it knows more than this relay"
            );
        }
    }

    fn witness(&self, caller: &Caller) -> Witness {
        Witness::of(&self.trail, caller)
    }
}
