//! The ERP host.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use towpath_agent::{
    chain,
    config::{Config, SharedConfig},
    downlink::{action::SystemActions, delivering::Delivering, poll},
    engine::{Engine, EngineSettings},
    enrolment::{EnrolParts, Enrolment, enrol},
    extract::{Attempts, ExtractParts},
    key_files::KeyFiles as _,
    layout::Layout,
    own_key::OwnKey,
    parts::{NoWatcher, Parts, SourceExtractor},
    rotation::{KeyRotator, Rotated},
    service::heart::Heart,
    trust::FileTrust,
    uplink::{folder, plan, prune::prune_or_warn},
};
use towpath_journal::{FailPoints, Journal as _, TransferRecord, WakeUp};
use towpath_keys::{Identity, KeyKind, PseudonymKey, pseudonym::KEY_BYTES};
use towpath_relay::service::LocalRelayApi;
use towpath_transfer::{
    Clock, Direction, Failure, TransferId, TransferKey,
    api::EnrolmentCode,
    packed::PACKED_SUFFIX,
    receipt::{ReceiptStage, SignedReceipt},
    state::Place,
};
use towpath_transport::{files::FileStore, relay_api::RelayApi};

use super::{
    door::{Caller, Callers, Line, RelayDoor, SpoolConnect},
    keys::{DiskKeys, Made},
    machine::{Machine, Nature, Start},
    wiring::Host,
};
use crate::JOB;

/// What the return files are that this agent delivers.
pub const KIND: &str = "orders";
/// Where it delivers them.
pub const DELIVERY: &str = "/erp-in";
/// How long a program that starts waits for a change of the key to come to its end.
const KEY_LIMIT: Duration = Duration::from_secs(10);

/// An ERP host with its agent.
#[derive(Debug)]
pub struct Agent {
    /// The machine.
    pub machine: Machine,
    /// The ERP database.
    pub erp: PathBuf,
    /// The key that the agent enrolled with.
    pub identity: Identity,
    /// What enrolment has told.
    pub enrolment: Enrolment,
    layout: Layout,
    config: Arc<Config>,
    trust: FileTrust,
    parts: Option<Arc<Parts>>,
    wake: WakeUp,
    /// The relay's time, where it is not this machine's: its answers tell it.
    pub relay_time: Option<Arc<dyn Clock>>,
    /// Every key that it ever had.
    made: Made,
    rotator: Option<KeyRotator>,
}

impl Agent {
    /// Enrols an agent that extracts the database `erp` and believes the first receiver; `tables` is the part of the configuration
    /// that names them. `folder` keeps its pins.
    ///
    /// # Errors
    /// Where it is refused.
    ///
    /// # Panics
    /// Where the configuration cannot be used.
    pub async fn enrolled(
        nature: &Nature,
        relay: &LocalRelayApi,
        code: &EnrolmentCode,
        folder: &Path,
        erp: PathBuf,
        tables: &str,
    ) -> Result<Self, Failure> {
        let machine = Machine::new(Host { place: Place::Agent, tenant: Some(code.tenant.clone()) }, nature);
        let identity = Identity::generate(KeyKind::Ed25519, &*nature.entropy).unwrap();
        let trust = FileTrust(folder.join("agent_signers"));
        let mut config = Config::parse(&configuration(&erp, tables, nature.pace.receipts), &folder.join("agent.toml")).unwrap();
        // Threads would make what a seed stands for depend on the machine.
        config.extract.workers = 1;
        let layout = Layout::new("/agent");
        for folder in [layout.state(), Path::new(DELIVERY)] {
            machine.disk.create_dir_all(folder).unwrap();
        }
        let parts = EnrolParts {
            files: &machine.disk,
            path: &layout.enrolment(),
            relay,
            trust: &trust,
            identity: &identity,
            mode: config.trust,
        };
        let enrolment = enrol(parts, code).await?.enrolment;
        let (config, made) = (Arc::new(config), Made::default());
        let keys = DiskKeys { files: Arc::new(machine.disk.clone()), layout: layout.clone(), made: made.clone() };
        keys.begin(&identity).unwrap();
        let (wake, parts, rotator) = (WakeUp::new(), None, None);
        Ok(Self { machine, erp, identity, enrolment, layout, config, trust, parts, wake, relay_time: None, made, rotator })
    }

    /// The key in use, as it lies on the disk.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn key_on_disk(&self) -> Identity {
        self.keys(Arc::new(self.machine.disk.clone())).load().unwrap()
    }

    fn keys(&self, files: Arc<dyn FileStore>) -> DiskKeys {
        DiskKeys { files, layout: self.layout.clone(), made: self.made.clone() }
    }

    /// Who the agent is to the relay.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller { user: self.enrolment.sftp_user.clone(), key: self.key_on_disk().public_line().clone() }
    }

    /// Who it is while it runs with `own`.
    fn callers(&self, own: &OwnKey) -> Callers {
        let (user, own) = (self.enrolment.sftp_user.clone(), own.clone());
        Arc::new(move || Caller { user: user.clone(), key: own.now().public_line().clone() })
    }

    /// What changes its key in this life.
    fn rotator_of(&self, door: &RelayDoor, start: &Start, own: &OwnKey, relay_time: Arc<dyn Clock>) -> KeyRotator {
        let (nature, user) = (&self.machine.nature, self.enrolment.sftp_user.clone());
        let line = Line::of_a_life(&self.machine, door, self.callers(own), 1, &start.life);
        let relay = move |key: &Identity| -> Result<Arc<dyn RelayApi>, Failure> {
            let caller = Caller { user: user.clone(), key: key.public_line().clone() };
            Ok(Arc::new(Line { caller: Arc::new(move || caller.clone()), ..line.clone() }))
        };
        KeyRotator {
            keys: nature.wiring.keys(&self.machine.host, Arc::new(self.keys(start.files.clone()))),
            layout: self.layout.clone(),
            files: start.files.clone(),
            own: own.clone(),
            trust: Arc::new(self.trust.clone()),
            agent: self.enrolment.name.clone(),
            relay_url: self.enrolment.relay_url.clone(),
            user: self.enrolment.sftp_user.clone(),
            relay: Arc::new(relay),
            now: Arc::new(move || relay_time.now()),
            clock: Arc::clone(&nature.clock),
            entropy: Arc::clone(&nature.entropy),
            one: Arc::default(),
        }
    }

    /// Changes the agent's key, as `key rotate` does; `told` hears what came of it.
    ///
    /// # Panics
    /// Where the agent was never started.
    pub fn rotate(&self, overlap: Duration, told: impl FnOnce(Result<Rotated, Failure>) + Send + 'static) {
        let rotator = self.rotator.clone().expect("the agent was started");
        tokio::spawn(async move { told(rotator.rotate(overlap, KeyKind::Ed25519).await) });
    }

    /// The relay's calls as this agent makes them, each so many times.
    #[must_use]
    pub fn line(&self, door: &RelayDoor, times: usize) -> Arc<dyn RelayApi> {
        Arc::new(Line::by_hand(&self.machine, door, self.caller(), times))
    }

    /// The way of this agent to its folders on the relay.
    #[must_use]
    pub fn connect(&self, door: &RelayDoor) -> SpoolConnect {
        let caller = self.caller();
        SpoolConnect { door: door.clone(), caller: Arc::new(move || caller.clone()) }
    }

    /// Starts the program.
    pub async fn start(&mut self, door: &RelayDoor, times: usize, fail_points: Arc<dyn FailPoints>) {
        let start = self.machine.switch_on().await;
        let (nature, host) = (&self.machine.nature, &self.machine.host);
        let (files, clock, wiring) = (Arc::clone(&start.files), Arc::clone(&nature.clock), &nature.wiring);
        // A simulated host has no folder of its own on a real disk, and needs no other key than any other of its kind.
        let pseudonyms = Arc::new(PseudonymKey::from_bytes(&[7; KEY_BYTES]));
        let (attempts, reader) = (Attempts::default(), Arc::clone(&clock));
        let extract = ExtractParts { files: files.clone(), clock: reader, pseudonyms, workers: 1, attempts };
        let own = OwnKey::new(self.key_on_disk()).unwrap();
        let relay_time = self.relay_time.clone().unwrap_or_else(|| Arc::clone(&clock));
        let rotator = self.rotator_of(door, &start, &own, relay_time);
        let connect = SpoolConnect { door: door.clone(), caller: self.callers(&own) };
        let extractor = SourceExtractor { parts: extract, config: SharedConfig::new((*self.config).clone()) };
        let parts = Arc::new(Parts {
            layout: self.layout.clone(),
            files,
            journal: Arc::clone(&start.journal),
            relay: Arc::new(Line::of_a_life(&self.machine, door, self.callers(&own), times, &start.life)),
            stores: wiring.connect(host, &start.life, Arc::new(connect)),
            extractor: wiring.extractor(host, &start.life, Arc::new(extractor)),
            actions: Arc::new(SystemActions { files: start.files.clone(), clock: Arc::clone(&clock), succeeded: Arc::default() }),
            delivering: Delivering::default(),
            trust: Arc::new(self.trust.clone()),
            identity: own,
            tenant: self.enrolment.tenant.clone(),
            agent: self.enrolment.name.clone(),
            config: SharedConfig::new((*self.config).clone()),
            clock,
            entropy: Arc::clone(&nature.entropy),
            fail_points,
            watcher: Arc::new(NoWatcher),
        });
        prune_or_warn(&parts).await;
        self.parts = Some(Arc::clone(&parts));
        self.wake = WakeUp::new();
        let settings = EngineSettings { driver: nature.pace.drivers, ..EngineSettings::default() };
        let engine = Engine::new(Arc::clone(&parts), self.wake.clone()).observed_by(start.busy.clone()).with_settings(settings);
        let heart = Heart::unwatched(&parts.clock);
        let poll = poll::run(parts, self.wake.clone(), heart, CancellationToken::new());
        self.rotator = Some(rotator.clone());
        self.machine.run(&start, async move {
            // Before anything logs in, as the program does.
            tokio::select! {
                biased;
                _ = rotator.finish_or_warn() => {}
                () = rotator.clock.sleep(KEY_LIMIT) => {}
            }
            tokio::join!(engine.run(CancellationToken::new()), poll, rotator.finish(CancellationToken::new()));
        });
    }

    fn parts(&self) -> &Arc<Parts> {
        self.parts.as_ref().expect("the agent was started")
    }

    /// Plans a transfer of the one job.
    ///
    /// # Panics
    /// Where that fails.
    pub async fn plan(&self, full: bool) -> TransferId {
        self.try_plan(full).await.unwrap()
    }

    /// Plans a transfer of the one job, where that succeeds.
    ///
    /// # Errors
    /// Those of [`plan()`].
    pub async fn try_plan(&self, full: bool) -> Result<TransferId, Failure> {
        let planned = plan(self.parts(), &JOB.parse().unwrap(), full).await;
        self.wake.hint();
        planned.map(|planned| planned.record().key.id)
    }

    /// The full name of one of its transfers.
    #[must_use]
    pub fn key(&self, id: TransferId) -> TransferKey {
        self.parts().key(id)
    }

    /// Where a transfer stands here, where it is known.
    ///
    /// # Panics
    /// Never: a journal in memory can be read.
    pub async fn record_of(&self, id: TransferId) -> Option<TransferRecord> {
        self.machine.journal.get(&self.key(id)).await.unwrap()
    }

    /// Where a transfer stands here.
    ///
    /// # Panics
    /// Where there is no such transfer.
    pub async fn record(&self, id: TransferId) -> TransferRecord {
        self.machine.journal.get(&self.key(id)).await.unwrap().unwrap()
    }

    /// A receipt that the agent keeps.
    #[must_use]
    pub fn receipt(&self, id: TransferId, stage: ReceiptStage) -> Option<Vec<u8>> {
        super::read(&self.machine.disk, &self.layout.receipt(id, stage))
    }

    /// A receipt of a return file that the agent keeps.
    #[must_use]
    pub fn returned_receipt(&self, id: TransferId, stage: ReceiptStage) -> Option<Vec<u8>> {
        super::read(&self.machine.disk, &self.layout.of(Direction::Downlink).receipt(id, stage))
    }

    /// A receipt of a return file that the agent has signed, with its signature.
    ///
    /// # Panics
    /// Where one of them is missing.
    #[must_use]
    pub fn signed_return(&self, id: TransferId, stage: ReceiptStage) -> SignedReceipt {
        let layout = self.layout.of(Direction::Downlink);
        let text = |path: PathBuf| String::from_utf8(super::read(&self.machine.disk, &path).unwrap()).unwrap();
        SignedReceipt { receipt: text(layout.receipt(id, stage)), signature: text(layout.receipt_signature(id, stage)) }
    }

    /// The transfers that the tables of a transfer build on, as its manifest says; none where the agent has no manifest of it.
    #[must_use]
    pub fn bases(&self, id: TransferId) -> Vec<TransferId> {
        let manifest = folder::manifest(&self.machine.disk, &self.layout, id).ok();
        manifest.into_iter().flat_map(|(manifest, _)| manifest.files).filter_map(|file| file.base).collect()
    }

    /// The packed files that the agent still keeps of a transfer.
    ///
    /// # Panics
    /// Where the transfer's folder is not there.
    #[must_use]
    pub fn payload(&self, id: TransferId) -> Vec<String> {
        let entries = self.machine.disk.list(&self.layout.transfer(id), None, 1_000).unwrap();
        entries.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(PACKED_SUFFIX)).collect()
    }

    /// The files that the ERP can see in its folder, by name.
    ///
    /// # Panics
    /// Where the folder is gone.
    #[must_use]
    pub fn delivered(&self) -> Vec<(String, Vec<u8>)> {
        let entries = self.machine.disk.list(DELIVERY.as_ref(), None, 1_000).unwrap();
        let visible = entries.into_iter().map(|entry| entry.name).filter(|name| !name.starts_with('.'));
        visible
            .filter_map(|name| Some((name.clone(), super::read(&self.machine.disk, &Path::new(DELIVERY).join(name))?)))
            .collect()
    }

    /// The ERP takes away whatever it can see, and tells the contents.
    ///
    /// # Panics
    /// Where it cannot.
    #[must_use]
    pub fn take_delivered(&self) -> Vec<Vec<u8>> {
        let seen = self.delivered();
        for (name, _) in &seen {
            self.machine.disk.remove(&Path::new(DELIVERY).join(name)).unwrap();
        }
        // What the ERP has taken stays taken, also after a power loss.
        self.machine.disk.sync_dir(DELIVERY.as_ref()).unwrap();
        seen.into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// Whether notes of the work on a transfer are still there.
    #[must_use]
    pub fn has_notes(&self, id: TransferId) -> bool {
        self.machine.disk.stat(&self.layout.work_of(id)).is_ok()
    }

    /// Where a transfer stands here, where it is known.
    ///
    /// # Panics
    /// Never: a journal in memory can be read.
    pub async fn machine_record(&self, key: &TransferKey) -> Option<TransferRecord> {
        self.machine.journal.get(key).await.unwrap()
    }

    /// What is wrong with the documents of a transfer, as `receipts verify` says.
    ///
    /// # Errors
    /// The chain, where it is not right.
    pub async fn chain(&self, id: TransferId) -> Result<(), String> {
        match chain::verify(self.parts(), id).await {
            Ok(chain) if chain.ok => Ok(()),
            other => Err(format!("its documents are not right: {other:?}")),
        }
    }

    /// Checks every document of a transfer as `receipts verify` does.
    ///
    /// # Panics
    /// Where one is wrong or missing.
    pub async fn verify_chain(&self, id: TransferId) {
        let chain = chain::verify(self.parts(), id).await.unwrap();
        assert!(chain.ok && chain.links.len() >= 4, "{chain:?}");
    }
}

fn configuration(erp: &Path, tables: &str, receipts: Duration) -> String {
    format!(
        "trust = \"first-use\"\n[receipt]\npoll = \"{}s\"\n[[delivery]]\nkind = \"{KIND}\"\nfolder = \"{DELIVERY}\"\n[[job]]\nname = \"{JOB}\"\n[job.source]\nkind = \"sqlite\"\npath = '{}'\n{tables}",
        receipts.as_secs(),
        erp.display()
    )
}
