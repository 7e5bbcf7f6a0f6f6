//! How programs reach each other without a network, and how a call ends when the other machine does.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use towpath_relay::{
    service::{LocalRelayApi, RelayService},
    spool::{AgentView, Spool},
};
use towpath_transfer::{
    AgentName, Clock, Code, Failure, TransferId,
    announcement::SignedAnnouncement,
    api::{
        Acknowledgement, AppReceipt, Complete, Downlinks, EnrolmentAnswer, EnrolmentRequest, Expectations, Export, ExportStatus,
        KeyRotation, Peers, Releases, UplinkStatus,
    },
    digest::Sha256Digest,
    failure::Result,
    public_key::PublicKeyLine,
};
use towpath_transport::{
    relay_api::RelayApi,
    store::{Connect, RemoteStore, StoreError, StoreErrorKind, StoreResult},
};

use super::{far::ViewStore, machine::Machine, power::Life, wiring::Fate};

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
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its calls.
    pub service: RelayService,
    /// The agents' folders.
    pub spool: Arc<Spool>,
    /// The connections to them.
    pub sessions: Sessions,
}

/// Where a running relay is found.
pub type RelayDoor = Door<Offer>;

/// The open connections to a relay, by user. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Mutex<BTreeMap<String, CancellationToken>>>);

impl Sessions {
    /// What is cancelled when the sessions of a user are ended that are open then.
    #[must_use]
    pub fn of(&self, user: &str) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(user.to_owned()).or_default().clone()
    }

    /// Ends the sessions of a user.
    pub fn end(&self, user: &str) {
        if let Some(open) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(user) {
            open.cancel();
        }
    }
}

/// An enrolled end, as it shows itself to the relay.
#[derive(Debug, Clone)]
pub struct Caller {
    /// `<tenant>.<name>`.
    pub user: String,
    /// Its key.
    pub key: PublicKeyLine,
}

/// An enrolled end that may change its key.
pub type Callers = Arc<dyn Fn() -> Caller + Send + Sync>;

/// The relay's calls as one end makes them, of which something may become.
#[derive(Clone)]
pub struct Line {
    /// The relay.
    pub door: RelayDoor,
    /// Who calls, at the time of each call.
    pub caller: Callers,
    /// How long the caller lives; somebody who makes calls by hand lives on.
    pub life: Life,
    /// The caller's clock.
    pub clock: Arc<dyn Clock>,
    /// What becomes of each call.
    pub fates: Arc<dyn Fn(&'static str) -> Fate + Send + Sync>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("caller", &(self.caller)()).finish_non_exhaustive()
    }
}

fn unreachable() -> Failure {
    Failure::retry(Code::RelayUnreachable, "the relay is off")
}

fn lost(what: &str) -> Failure {
    Failure::retry(Code::RelayUnreachable, format!("the {what} was lost on its way"))
}

impl Line {
    /// The calls that somebody makes by hand, each so many times.
    #[must_use]
    pub fn by_hand(machine: &Machine, door: &RelayDoor, caller: Caller, times: usize) -> Self {
        let (clock, fates) = (Arc::clone(&machine.nature.clock), Arc::new(move |_: &'static str| Fate::copied(times)));
        Self { door: door.clone(), caller: Arc::new(move || caller.clone()), life: Life::new(), clock, fates }
    }

    /// The calls of a program in one life, with what its wiring makes of each.
    #[must_use]
    pub fn of_a_life(machine: &Machine, door: &RelayDoor, caller: Callers, times: usize, life: &Life) -> Self {
        let (wiring, host) = (Arc::clone(&machine.nature.wiring), machine.host.clone());
        let fates = move |call: &'static str| {
            let fate = wiring.fate(&host, call);
            Fate { copies: fate.copies * times, ..fate }
        };
        let clock = Arc::clone(&machine.nature.clock);
        Self { door: door.clone(), caller, life: life.clone(), clock, fates: Arc::new(fates) }
    }

    async fn call<T, F>(&self, name: &'static str, call: impl Fn(LocalRelayApi) -> F + Send + Sync + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let fate = (self.fates)(name);
        self.wait(fate.before).await?;
        let called = self.once(fate.copies, &call).await;
        if let Some(pause) = fate.echo {
            let line = self.clone();
            tokio::spawn(async move {
                line.clock.sleep(pause).await;
                // Nobody waits for this answer any more.
                let _ = line.once(1, &call).await;
            });
        }
        self.wait(fate.after).await?;
        let called = called.ok_or_else(|| lost("request"))?;
        match fate.refused {
            Some(code) => called.and(Err(Failure::park(code, "the relay says so"))),
            None if fate.answered => called,
            None => Err(lost("answer")),
        }
    }

    /// Makes the call so many times at once, and passes the last answer on.
    async fn once<T, F: Future<Output = Result<T>>>(
        &self,
        copies: usize,
        call: &impl Fn(LocalRelayApi) -> F,
    ) -> Option<Result<T>> {
        let Some((Offer { service, .. }, life)) = self.door.open() else { return Some(Err(unreachable())) };
        let caller = (self.caller)();
        let api = LocalRelayApi::new(service, caller.user, caller.key);
        let calls = (0..copies).map(|_| call(api.clone()));
        tokio::select! {
            biased;
            () = life.over() => Some(Err(unreachable())),
            answers = join_all(calls) => answers.into_iter().reduce(|first, second| first.and(second)),
        }
    }

    /// Waits, where there is something to wait for; whoever is dead says nothing.
    async fn wait(&self, pause: Duration) -> Result<()> {
        if !pause.is_zero() {
            self.clock.sleep(pause).await;
        }
        if self.life.is_over() { Err(Failure::retry(Code::RelayUnreachable, "the caller is off")) } else { Ok(()) }
    }
}

#[async_trait]
impl RelayApi for Line {
    async fn enrol(&self, request: &EnrolmentRequest) -> Result<EnrolmentAnswer> {
        let request = request.clone();
        self.call("enrol", move |api| {
            let request = request.clone();
            async move { api.enrol(&request).await }
        })
        .await
    }

    async fn peers(&self) -> Result<Peers> {
        self.call("peers", move |api| async move { api.peers().await }).await
    }

    async fn rotate_key(&self, rotation: &KeyRotation) -> Result<KeyRotation> {
        let rotation = rotation.clone();
        self.call("rotate_key", move |api| {
            let rotation = rotation.clone();
            async move { api.rotate_key(&rotation).await }
        })
        .await
    }

    async fn complete(&self, transfer: TransferId, complete: &Complete) -> Result<UplinkStatus> {
        let complete = *complete;
        self.call("complete", move |api| async move { api.complete(transfer, &complete).await }).await
    }

    async fn uplink(&self, transfer: TransferId) -> Result<UplinkStatus> {
        self.call("uplink", move |api| async move { api.uplink(transfer).await }).await
    }

    async fn post_receipt(&self, receipt: &AppReceipt) -> Result<()> {
        let receipt = receipt.clone();
        self.call("post_receipt", move |api| {
            let receipt = receipt.clone();
            async move { api.post_receipt(&receipt).await }
        })
        .await
    }

    async fn downlinks(&self, wait: Duration, unless: Option<Sha256Digest>) -> Result<Downlinks> {
        self.call("downlinks", move |api| async move { api.downlinks(wait, unless).await }).await
    }

    async fn acknowledge(&self, transfer: TransferId, acknowledgement: &Acknowledgement) -> Result<()> {
        let acknowledgement = acknowledgement.clone();
        self.call("acknowledge", move |api| {
            let acknowledgement = acknowledgement.clone();
            async move { api.acknowledge(transfer, &acknowledgement).await }
        })
        .await
    }

    async fn export(&self, export: &Export) -> Result<ExportStatus> {
        let export = export.clone();
        self.call("export", move |api| {
            let export = export.clone();
            async move { api.export(&export).await }
        })
        .await
    }

    async fn export_status(&self, agent: &AgentName, transfer: TransferId) -> Result<ExportStatus> {
        let agent = agent.clone();
        self.call("export_status", move |api| {
            let agent = agent.clone();
            async move { api.export_status(&agent, transfer).await }
        })
        .await
    }

    async fn expect(&self, expectations: &Expectations) -> Result<()> {
        let expectations = expectations.clone();
        self.call("expect", move |api| {
            let expectations = expectations.clone();
            async move { api.expect(&expectations).await }
        })
        .await
    }

    async fn releases(&self) -> Result<Releases> {
        self.call("releases", move |api| async move { api.releases().await }).await
    }

    async fn announcement(&self, pinned: u64) -> Result<SignedAnnouncement> {
        self.call("announcement", move |api| async move { api.announcement(pinned).await }).await
    }
}

/// The way of an agent to its folders on the relay.
#[derive(Clone)]
pub struct SpoolConnect {
    /// The relay.
    pub door: RelayDoor,
    /// Who connects.
    pub caller: Callers,
}

impl fmt::Debug for SpoolConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpoolConnect").field("caller", &(self.caller)()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Connect for SpoolConnect {
    async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
        let failed = |kind| StoreError::new(kind, "connecting to the relay");
        let (Offer { service, spool, sessions }, life) = self.door.open().ok_or_else(|| failed(StoreErrorKind::Unreachable))?;
        let refused = |e: Failure| failed(StoreErrorKind::AuthenticationRefused).caused_by(e);
        let Caller { user, key } = (self.caller)();
        let caller = service.registry().authenticate_key(&user, &key).await.map_err(refused)?;
        let view = AgentView::new(spool, caller.as_agent().map_err(refused)?);
        Ok(Arc::new(ViewStore::new(Arc::new(view), life).until(sessions.of(&user))))
    }
}
