//! The comms server.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use towpath_journal::{FailPoints, Journal as _, TransferRecord};
use towpath_keys::{Identity, KeyKind};
use towpath_receiver::landing::{Landing, LandingView};
use towpath_relay::{
    admin::Metrics,
    downlink::DownlinkSettings,
    keyring::{Keyring, Shown},
    registry::{NewEnrolment, Registry},
    relay::{Parts, Relay as Program, StageSettings},
    scope::TenantScope,
    service::{LocalRelayApi, RelayIdentity},
    spool::SpoolLimits,
    uplink::forward::{AppServer, AppServers},
};
use towpath_transfer::{
    AgentName, Code, Failure, RemotePath, TenantName, TransferKey,
    api::{EnrolmentCode, Role},
    beside::beside,
    failure::Result,
    receipt::ReceiptStage,
    state::Place,
};
use towpath_transport::files::FileStore as _;

use super::{
    door::{Door, Offer, RelayDoor, Sessions},
    far::ViewStore,
    machine::{Machine, Nature},
    wiring::Host,
};

const URL: &str = "https://relay.test";
const STATE: &str = "/relay";
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The landings of the tenants, as the relay finds them.
#[derive(Debug, Clone, Default)]
struct Landings(Arc<Mutex<BTreeMap<TenantName, Door<Arc<Landing>>>>>);

#[async_trait]
impl AppServers for Landings {
    async fn connect(&self, scope: &TenantScope) -> Result<AppServer> {
        let door = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(scope.tenant()).cloned();
        let door = door.ok_or_else(|| Failure::retry(Code::AppServerMissing, "the tenant has no app server"))?;
        let off = || Failure::retry(Code::AppServerUnreachable, "the app server is off");
        let (landing, life) = door.open().ok_or_else(off)?;
        let view = Arc::new(LandingView::new(landing));
        Ok(AppServer { store: Arc::new(ViewStore::new(view, life)), folder: RemotePath::root(), landing: None })
    }
}

/// A comms server with its relay. Its registry is in memory and lasts, as its file would.
#[derive(Debug)]
pub struct Relay {
    /// The machine.
    pub machine: Machine,
    /// What it offers while it runs.
    pub door: RelayDoor,
    /// Whom it knows.
    pub registry: Registry,
    /// The connections to its folders.
    pub sessions: Sessions,
    landings: Landings,
    /// The key of its receipts.
    pub receipt_key: Identity,
    retention: Duration,
}

impl Relay {
    /// A relay that is off; it keeps what has ended for `retention`.
    ///
    /// # Panics
    /// Where that fails.
    pub async fn new(nature: &Nature, retention: Duration) -> Self {
        let machine = Machine::new(Host { place: Place::Relay, tenant: None }, nature);
        machine.disk.create_dir_all(STATE.as_ref()).unwrap();
        let registry = beside(Registry::in_memory(Arc::clone(&machine.nature.clock), Arc::clone(&nature.entropy))).await.unwrap();
        let receipt_key = Identity::generate(KeyKind::Ed25519, &*nature.entropy).unwrap();
        let (door, landings, sessions) = (Door::new(), Landings::default(), Sessions::default());
        Self { machine, door, registry, sessions, landings, receipt_key, retention }
    }

    /// Starts the program.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start(&mut self, fail_points: Arc<dyn FailPoints>) {
        self.try_start(fail_points).await.unwrap();
    }

    /// Starts the program.
    ///
    /// # Errors
    /// Where its disk or its journal do not let it start.
    ///
    /// # Panics
    /// Where there are no metrics.
    pub async fn try_start(&mut self, fail_points: Arc<dyn FailPoints>) -> Result<()> {
        let start = self.machine.switch_on().await;
        let (nature, host) = (&self.machine.nature, &self.machine.host);
        let key = self.receipt_key.public_line().clone();
        let parts = Parts {
            files: start.files.clone(),
            state: STATE.into(),
            journal: Arc::clone(&start.journal),
            registry: self.registry.clone(),
            clock: Arc::clone(&nature.clock),
            entropy: Arc::clone(&nature.entropy),
            fail_points,
            app_servers: nature.wiring.app_servers(host, &start.life, Arc::new(self.landings.clone())),
            identity: RelayIdentity {
                public_url: URL.to_owned(),
                keys: Keyring::new(Shown {
                    ssh_host_keys: vec![key.clone()],
                    receipt_key: self.receipt_key.clone(),
                    announced: None,
                }),
                forward_key: key,
            },
            spool_limits: SpoolLimits {
                total_bytes: 1 << 24,
                tenant_bytes: 1 << 23,
                reserve_bytes: 0,
                open_transfers: 10,
                files_per_transfer: 100,
            },
            stages: StageSettings {
                accept_at_once: 2,
                forward_at_once: 2,
                forward_per_tenant: 2,
                retention: self.retention,
                abandoned: HOUR * 24,
                journal_keeps: 100,
                audit: towpath_relay::audit::AuditSettings::default(),
                downlink: DownlinkSettings::default(),
                driver: nature.pace.drivers,
            },
            metrics: Metrics::new().unwrap(),
        };
        let program = Program::new(parts)?;
        program.tidy().await?;
        let (service, spool) = (program.service().clone(), Arc::clone(program.spool()));
        self.door.offer(Offer { service, spool, sessions: self.sessions.clone() }, start.life.clone());
        let mut drivers = JoinSet::new();
        if let Some(pause) = nature.pace.upkeep {
            program.drivers().into_iter().for_each(|driver| drop(drivers.spawn(driver.run(CancellationToken::new()))));
            let clock = Arc::clone(&nature.clock);
            self.machine.run(&start, async move {
                let _drivers = drivers;
                loop {
                    clock.sleep(pause).await;
                    // What could not be cleared away is left to the next time.
                    let _ = program.tidy().await;
                }
            });
            return Ok(());
        }
        for driver in program.drivers() {
            // Without a network there are no sessions to watch; the drivers are all of the program.
            drivers.spawn(driver.observed_by(start.busy.clone()).run(CancellationToken::new()));
        }
        self.machine.run(&start, async move { while drivers.join_next().await.is_some() {} });
        Ok(())
    }

    /// The call of somebody who is not enrolled.
    ///
    /// # Panics
    /// Where the relay is off.
    #[must_use]
    pub fn anonymous(&self) -> LocalRelayApi {
        LocalRelayApi::anonymous(self.door.open().expect("the relay is on").0.service)
    }

    /// Makes a tenant whose app server is behind `landing`.
    ///
    /// # Panics
    /// Where there is one of that name.
    pub async fn create_tenant(&self, tenant: &TenantName, landing: Door<Arc<Landing>>) -> TenantScope {
        self.landings.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.clone(), landing);
        self.registry.create_tenant(tenant, None).await.unwrap()
    }

    /// Makes an enrolment code.
    ///
    /// # Panics
    /// Where the name is taken.
    pub async fn code(&self, scope: &TenantScope, role: Role, name: &str) -> EnrolmentCode {
        let name = Some(name.parse::<AgentName>().unwrap());
        let new = NewEnrolment { role, name, valid_for: HOUR, relay_url: URL.to_owned(), spki_pin: None };
        self.registry.create_enrolment(scope, new).await.unwrap().0
    }

    /// Where a transfer stands here, where it is known.
    ///
    /// # Panics
    /// Never: a journal in memory can be read.
    pub async fn record(&self, key: &TransferKey) -> Option<TransferRecord> {
        self.machine.journal.get(key).await.unwrap()
    }

    /// A receipt that the relay keeps; one without its signature, which is written last, is none yet.
    #[must_use]
    pub fn receipt(&self, key: &TransferKey, stage: ReceiptStage) -> Option<Vec<u8>> {
        let path = folder("receipts", key, None).join(format!("{}.json", stage.as_str()));
        super::read(&self.machine.disk, &path.with_extension("json.sig"))?;
        super::read(&self.machine.disk, &path)
    }

    /// The files of a transfer, as they lie in the spool.
    #[must_use]
    pub fn spooled(&self, key: &TransferKey) -> Vec<(String, Vec<u8>)> {
        self.files_in(&folder("spool", key, Some("uplink")))
    }

    /// The files of a return transfer, as its agent sees them.
    #[must_use]
    pub fn queued(&self, key: &TransferKey) -> Vec<(String, Vec<u8>)> {
        self.files_in(&folder("spool", key, Some("downlink")))
    }

    fn files_in(&self, folder: &Path) -> Vec<(String, Vec<u8>)> {
        let entries = self.machine.disk.list(folder, None, 100).unwrap_or_default();
        let read = |name: String| super::read(&self.machine.disk, &folder.join(&name)).map(|bytes| (name, bytes));
        entries.into_iter().filter_map(|entry| read(entry.name)).collect()
    }
}

fn folder(root: &str, key: &TransferKey, below: Option<&str>) -> PathBuf {
    let agent = PathBuf::from(STATE).join(root).join(key.tenant.as_str()).join(key.agent.as_str());
    agent.join(below.unwrap_or_default()).join(key.id.to_string())
}
