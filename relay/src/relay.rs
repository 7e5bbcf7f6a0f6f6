//! The relay put together from its parts, without network or disk of its own: the service, the stages, and the upkeep.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use towpath_journal::{DriverSettings, FailPoints, Journal, MAX_PRUNE, Observer, Prune, StageDriver, Step, WakeUp};
use towpath_transfer::{Clock, Entropy, Failure, failure::Result};
use towpath_transport::files::FileStore;

use crate::{
    access::{AccessLog, Replayed},
    admin::Metrics,
    audit::{AuditSettings, NotedHead, Trail},
    downlink::{Announcer, DownlinkSettings, alarm::Alarm, fetch::Fetch, pack::Pack, queue::Queue},
    limits::Follower,
    registry::Registry,
    remove::Remove,
    service::{RelayIdentity, RelayService},
    sftpd::Sessions,
    signer::Signer,
    spool::{Spool, SpoolLimits, blocking},
    uplink::{
        accept::Accept,
        forward::{AppServers, Forward, RECEIPT_OVERDUE, forward_overdue},
    },
};

/// How often void tokens are forgotten, and overdue return files looked for.
const TOKEN_UPKEEP: Duration = Duration::from_secs(60);
/// After so many rounds of that the journal is shortened and abandoned folders are removed.
const ROUNDS: u32 = 60;

/// How long an uplink waits in the journal for its agent to send what was missing. Its files go before, with every folder that is not
/// complete.
pub const INCOMPLETE_KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The figures of the stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageSettings {
    /// Transfers accepted at once.
    pub accept_at_once: usize,
    /// Transfers forwarded at once.
    pub forward_at_once: usize,
    /// Transfers of one tenant forwarded at once; at least one. Whoever's app server does not answer holds no more places.
    pub forward_per_tenant: usize,
    /// How long a transfer's files stay after its end, where nothing else is said of its tenant.
    pub retention: Duration,
    /// How long a transfer that is never completed may lie untouched.
    pub abandoned: Duration,
    /// Ended transfers of a tenant that the journal keeps, where nothing else is said of it.
    pub journal_keeps: u64,
    /// How long the audit trail is kept.
    pub audit: AuditSettings,
    /// The figures of the way back.
    pub downlink: DownlinkSettings,
    /// The other figures of the drivers; their concurrency is not used.
    pub driver: DriverSettings,
}

/// How many transfers a stage works on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtOnce {
    /// Of all tenants together.
    pub all: usize,
    /// Of one tenant.
    pub of_tenant: usize,
}

impl AtOnce {
    /// Without a bound for one tenant: for work that waits for nobody's machine.
    const fn of_all(all: usize) -> Self {
        Self { all, of_tenant: usize::MAX }
    }
}

/// Everything the relay is made of. Tests and simulations put other things here.
pub struct Parts {
    /// The disk.
    pub files: Arc<dyn FileStore>,
    /// The folder of the spool and the receipts.
    pub state: PathBuf,
    /// The journal, of place relay.
    pub journal: Arc<dyn Journal>,
    /// Tenants and keys.
    pub registry: Registry,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Where tests stop the program.
    pub fail_points: Arc<dyn FailPoints>,
    /// The way to the app servers.
    pub app_servers: Arc<dyn AppServers>,
    /// What ends are told, and the key that signs the receipts.
    pub identity: RelayIdentity,
    /// How much the spool may hold.
    pub spool_limits: SpoolLimits,
    /// The figures of the stages.
    pub stages: StageSettings,
    /// The figures for the operator.
    pub metrics: Metrics,
}

/// A relay that nobody has connected to the network yet.
pub struct Relay {
    service: RelayService,
    access: AccessLog,
    head: NotedHead,
    spool: Arc<Spool>,
    sessions: Sessions,
    limits: Follower,
    wake: WakeUp,
    journal: Arc<dyn Journal>,
    registry: Registry,
    clock: Arc<dyn Clock>,
    started: Timestamp,
    entropy: Arc<dyn Entropy>,
    fail_points: Arc<dyn FailPoints>,
    app_servers: Arc<dyn AppServers>,
    signer: Signer,
    stages: StageSettings,
    metrics: Metrics,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Relay {
    /// Puts the parts together and counts what is in the spool. Blocking.
    ///
    /// # Errors
    /// Those of [`Spool::open`].
    pub fn new(parts: Parts) -> Result<Self> {
        let access = AccessLog::new(Arc::clone(&parts.files), &parts.state, Arc::clone(&parts.clock));
        let head = NotedHead::new(Arc::clone(&parts.files), &parts.state, Arc::clone(&parts.clock));
        let spool = Spool::open(parts.files, &parts.state, Arc::clone(&parts.journal), parts.spool_limits)?;
        let (spool, wake) = (Arc::new(spool), WakeUp::new());
        let limits = Follower::new(parts.registry.clone(), Arc::clone(&parts.journal), Arc::clone(&spool), wake.clone());
        let signer = Signer::new(parts.identity.keys.clone(), Arc::clone(&parts.clock));
        let service = RelayService::new(
            parts.identity,
            parts.registry.clone(),
            Arc::clone(&parts.journal),
            Arc::clone(&spool),
            Arc::clone(&parts.clock),
            wake.clone(),
            parts.stages.downlink,
        );
        Ok(Self {
            service: service.remembering(access.clone()),
            access,
            head,
            spool,
            sessions: Sessions::default(),
            limits,
            wake,
            journal: parts.journal,
            registry: parts.registry,
            started: parts.clock.now(),
            clock: parts.clock,
            entropy: parts.entropy,
            fail_points: parts.fail_points,
            app_servers: parts.app_servers,
            signer,
            stages: parts.stages,
            metrics: parts.metrics,
        })
    }

    /// Carries out again what a registry that was put back has forgotten, and says what its audit trail has lost; before anybody can
    /// log in.
    ///
    /// # Errors
    /// Those of [`AccessLog::replay`].
    pub async fn replay_access(&self) -> Result<Replayed> {
        self.note_head().await;
        self.access.replay(&self.registry).await
    }

    /// What tenants may have, as it is followed while the relay runs; to be read once before anybody can log in.
    #[must_use]
    pub fn limits(&self) -> &Follower {
        &self.limits
    }

    /// Notes the end of the audit trail beside the database. That this fails must not stop the data; it is tried again.
    pub async fn note_head(&self) {
        if let Err(failure) = self.head.follow(&self.registry).await {
            tracing::warn!(code = %failure.code(), error = failure.report(), "the audit trail's end could not be noted");
        }
    }

    /// The calls.
    #[must_use]
    pub fn service(&self) -> &RelayService {
        &self.service
    }

    /// Where the uplinks lie.
    #[must_use]
    pub fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    /// The SSH sessions that a revocation ends.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Where what happens is noted.
    #[must_use]
    pub fn trail(&self) -> &Trail {
        self.service.trail()
    }

    /// The figures for the operator.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Tells the stages that there may be work.
    #[must_use]
    pub fn wake(&self) -> &WakeUp {
        &self.wake
    }

    /// The stages, each with how many transfers it works on at once.
    #[must_use]
    pub fn steps(&self) -> Vec<(Arc<dyn Step>, AtOnce)> {
        let (spool, signer, stages, downlink) = (&self.spool, &self.signer, &self.stages, &self.stages.downlink);
        let accept = Accept::new(Arc::clone(spool), self.registry.clone(), signer.clone());
        let forward = Forward::new(Arc::clone(spool), Arc::clone(&self.app_servers));
        let fetch = Fetch::new(Arc::clone(spool), self.registry.clone(), Arc::clone(&self.app_servers));
        let pack = Pack::new(Arc::clone(spool));
        let queue = Queue::new(Arc::clone(spool), signer.clone());
        let remove = Remove::new(Arc::clone(spool), Arc::clone(&self.clock), self.stages.retention);
        vec![
            (Arc::new(accept), AtOnce::of_all(stages.accept_at_once)),
            (Arc::new(forward), AtOnce { all: stages.forward_at_once, of_tenant: stages.forward_per_tenant }),
            (Arc::new(fetch), AtOnce { all: downlink.fetch_at_once, of_tenant: downlink.fetch_per_tenant }),
            (Arc::new(pack), AtOnce::of_all(downlink.pack_at_once)),
            (Arc::new(queue), AtOnce::of_all(1)),
            (Arc::new(remove), AtOnce::of_all(1)),
        ]
    }

    /// One driver per stage.
    #[must_use]
    pub fn drivers(&self) -> Vec<StageDriver> {
        let arrivals = self.service.arrivals();
        let (next, trail) = (self.metrics.clone(), self.trail().clone());
        let observer: Arc<dyn Observer> = Arc::new(Announcer { next, arrivals: arrivals.clone(), trail });
        let driver = |(step, at_once): (Arc<dyn Step>, AtOnce)| {
            let settings = DriverSettings { concurrency: at_once.all, per_tenant: at_once.of_tenant, ..self.stages.driver };
            let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(&self.entropy));
            StageDriver::new(Arc::clone(&self.journal), step, clock, entropy, self.wake.clone(), settings)
                .observed_by(Arc::clone(&observer))
                .with_failpoints(Arc::clone(&self.fail_points))
        };
        self.steps().into_iter().map(driver).collect()
    }

    /// Runs stages, upkeep and the watch over revocations until `shutdown` is cancelled and the running steps are over.
    pub async fn run(&self, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        for driver in self.drivers() {
            tasks.spawn(driver.run(shutdown.clone()));
        }
        let (trail, stop) = (self.trail().clone(), shutdown.clone());
        tasks.spawn(async move { trail.run(stop).await });
        tasks.close();
        tokio::select! {
            biased;
            () = self.upkeep() => {}
            () = self.sessions.watch(&self.limits, self.trail(), &*self.clock, || self.registry_changed()) => {}
            () = self.limits.run() => {}
            () = shutdown.cancelled() => {}
        }
        // Whoever waits for return files would keep the shutdown waiting as well.
        self.service.arrivals().close();
        tasks.wait().await;
    }

    /// Transfers may wait for an app server, and whoever waits for return files may have been revoked.
    fn registry_changed(&self) {
        self.wake.hint();
        self.service.arrivals().hint_all();
    }

    async fn upkeep(&self) {
        let (mut round, mut alarm) = (0u32, Alarm::new(self.stages.downlink.alarm_after));
        loop {
            match alarm.ring(&*self.journal, self.clock.now()).await {
                Ok((overdue, _)) => self.metrics.downlinks_overdue(&overdue),
                Err(failure) => {
                    tracing::warn!(code = %failure.code(), error = failure.report(), "what is overdue could not be looked for");
                }
            }
            let done = if round == 0 { self.tidy().await } else { self.registry.prune_tokens().await.map(|_| ()) };
            if let Err(failure) = done {
                tracing::warn!(code = %failure.code(), error = failure.report(), "the upkeep failed and is tried again");
            }
            self.note_head().await;
            round = (round + 1) % ROUNDS;
            self.clock.sleep(TOKEN_UPKEEP).await;
        }
    }

    /// Shortens the journal, for each tenant apart, so that none pushes out what another may still look at; and forgets transfers whose
    /// sender was told what is missing and never came back. It may: then the transfer begins again.
    async fn shorten_journal(&self) -> Result<()> {
        let given_up = self.clock.now().saturating_sub(INCOMPLETE_KEPT).unwrap_or(Timestamp::MIN);
        self.prune(&Prune::over(given_up, 0).incomplete()).await?;
        for tenant in self.registry.tenants().await? {
            let keep = tenant.limits.journal_keeps.unwrap_or(self.stages.journal_keeps);
            let most = Prune::over(Timestamp::MAX, keep).of(&tenant.name);
            self.prune(&most).await?;
            self.prune(&most.incomplete()).await?;
        }
        Ok(())
    }

    async fn prune(&self, what: &Prune) -> Result<()> {
        while self.journal.prune(what).await.map_err(Failure::from)? >= MAX_PRUNE as u64 {}
        Ok(())
    }

    /// Sends again what the app servers seem to have lost, and removes what nobody needs any more.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`], [`towpath_transfer::Code::JournalFailed`]; what is left is removed the next time.
    pub async fn tidy(&self) -> Result<()> {
        // The same moment does not count: what is forwarded from now on has its time.
        let before_start = self.started.saturating_sub(Duration::from_micros(1)).unwrap_or(Timestamp::MIN);
        // What was forwarded before this process began is forwarded again as well: the state may be one that was put back, and
        // its receipt was handed to a relay that is gone. What still lies at the app server is not sent twice.
        let overdue = self.clock.now().saturating_sub(RECEIPT_OVERDUE).unwrap_or(Timestamp::MIN).max(before_start);
        if forward_overdue(&*self.journal, overdue).await? > 0 {
            self.wake.hint();
        }
        self.registry.prune_tokens().await?;
        self.registry.prune_enrolments().await?;
        if let Err(failure) = self.registry.prune_audit(self.stages.audit).await {
            // A trail that somebody has damaged must not keep anything else from being tidied.
            tracing::error!(code = %failure.code(), error = failure.report(), "old rows of the audit trail could not be removed");
        }
        self.shorten_journal().await?;
        self.spool.remove_forgotten_receipts().await?;
        let spool = Arc::clone(&self.spool);
        let before = self.clock.now().saturating_sub(self.stages.abandoned).unwrap_or(Timestamp::MIN);
        for scope in blocking(move || spool.agents()).await?? {
            let removed = self.spool.remove_abandoned(&scope, before).await?;
            if removed > 0 {
                tracing::info!(agent = %scope, removed, "folders of transfers that were never completed were removed");
            }
        }
        Ok(())
    }
}
