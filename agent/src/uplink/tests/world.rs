//! An agent in memory, with a relay and a receiver that judge what they get as the real ones do.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towpath_journal::{FailPoints, MemoryJournal, NoFailPoints, Point, TransferRecord, WakeUp};
use towpath_keys::{Identity, KeyKind, Namespace, sign_enrolment};
use towpath_transfer::{
    AgentName, Clock, Code, Direction, Failure, Stage, TransferId, TransferKey,
    announcement::SignedAnnouncement,
    api::{
        Acknowledgement, AppReceipt, Complete, Downlinks, EnrolmentAnswer, EnrolmentRequest, Export, ExportStatus, KeyRotation,
        Peer, Peers, Role, Trouble, UplinkState, UplinkStatus,
    },
    beside::{Wait, wait_here},
    clock::{ManualClock, SeededEntropy},
    digest::{FileHasher, Sha256Digest},
    manifest::{Column, Content, FileEntry, Manifest, Snapshot, SqlType, Table},
    packed::{PackedFile, PackedList},
    receipt::{Receipt, ReceiptStage, SignedReceipt, TableRows},
    state::{MissingFile, Place, Rejection},
};
use towpath_transport::{
    files::{FileStore, MemoryFiles, read_whole, write_whole},
    relay_api::{MemoryRelay, RelayApi},
    store::{Connect, MemoryStore, RemoteStore, StoreError, StoreErrorKind, StoreResult},
};

use super::super::plan;
use crate::{
    config::{ActionConfig, Config, Trust},
    downlink::action::{ActionOf, Actions},
    engine::Engine,
    extract::{ExtractEvent, ExtractRequest, Extracted},
    layout::Layout,
    own_key::OwnKey,
    parts::{Extractor, NoWatcher, Parts},
    trust::{FileTrust, RELAY_PRINCIPAL},
};

pub(crate) const CONFIG: &str = "[receipt]\npoll = \"1s\"\n[[job]]\nname = \"main\"\nschedule = \"02:00\"\ntime_zone = \"UTC\"\n[job.source]\nkind = \"sqlite\"\npath = \"erp.sqlite\"\n[[job.table]]\nname = \"items\"\n[[job.table]]\nname = \"sales\"\n";

/// How often the drive loop turns before a test gives up.
const MAX_TURNS: u32 = 3_000_000;

pub(crate) fn identity(seed: u64) -> Identity {
    Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(seed)).unwrap()
}

/// File work is done in the thread of the tasks, and there is no other work beside them.
#[derive(Debug)]
struct ThisThread;

impl Wait for ThisThread {
    fn until_ready(&self, _: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
        unreachable!("a test in which something works on other threads says so in `World::threads`");
    }
}

pub(crate) struct World {
    pub(crate) parts: Parts,
    pub(crate) clock: ManualClock,
    pub(crate) files: Arc<MemoryFiles>,
    pub(crate) erp: Arc<FakeErp>,
    pub(crate) far: Arc<Far>,
    /// Whether something works on other threads, so that time must not pass faster than they can.
    pub(crate) threads: bool,
    _pins: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_trust(Trust::Approve)
    }

    pub(crate) fn with_trust(trust: Trust) -> Self {
        let clock = ManualClock::new("2026-03-01T12:00:00Z".parse().unwrap());
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let entropy = Arc::new(SeededEntropy::new(1));
        let files = Arc::new(MemoryFiles::with_clock(Arc::clone(&shared)));
        let layout = Layout::new("/state");
        files.create_dir_all(layout.state()).unwrap();
        let pins = tempfile::tempdir().unwrap();
        let far = Arc::new(Far::new(Arc::clone(&shared)));
        let erp = Arc::new(FakeErp::new(files.clone()));
        let mut config = Config::parse(CONFIG, Path::new("/etc/agent.toml")).unwrap();
        config.trust = trust;
        let parts = Parts {
            layout,
            files: files.clone(),
            journal: Arc::new(MemoryJournal::new(Place::Agent, Arc::clone(&shared), entropy.clone())),
            relay: far.clone(),
            stores: far.clone(),
            extractor: erp.clone(),
            actions: Arc::new(NoActions),
            delivering: crate::downlink::delivering::Delivering::default(),
            trust: Arc::new(FileTrust(pins.path().join("allowed_signers"))),
            identity: OwnKey::new(identity(10)).unwrap(),
            tenant: "acme".parse().unwrap(),
            agent: "erp".parse().unwrap(),
            config: crate::config::SharedConfig::new(config),
            clock: shared,
            entropy,
            fail_points: Arc::new(NoFailPoints),
            watcher: Arc::new(NoWatcher),
        };
        parts.trust.pin("erp", Namespace::Manifest, parts.identity.now().public_key()).unwrap();
        parts.trust.pin(RELAY_PRINCIPAL, Namespace::Receipt, far.relay_key.public_key()).unwrap();
        if trust == Trust::Approve {
            parts.trust.pin("app", Namespace::Receipt, far.receiver_key.public_key()).unwrap();
        }
        Self { parts, clock, files, erp, far, threads: false, _pins: pins }
    }

    pub(crate) async fn plan(&self, full: bool) -> TransferId {
        plan(&self.parts, &"main".parse().unwrap(), full).await.unwrap().record().key.id
    }

    pub(crate) async fn record(&self, id: TransferId) -> TransferRecord {
        self.parts.journal.get(&self.parts.key(id)).await.unwrap().unwrap()
    }

    /// Lets the stages work, and time pass, until the transfer is as wanted. Nothing of them goes on afterwards: file work on another
    /// thread would run to its end, and change what the test is about to look at.
    pub(crate) async fn drive(&self, id: TransferId, wanted: impl Fn(&TransferRecord) -> bool) -> TransferRecord {
        let _here = (!self.threads).then(|| wait_here(Arc::new(ThisThread)));
        let stop = CancellationToken::new();
        let engine = tokio::spawn(Engine::new(Arc::new(self.parts.clone()), WakeUp::new()).run(stop.clone()));
        let mut last = None;
        for _ in 0..MAX_TURNS {
            let record = self.record(id).await;
            if wanted(&record) {
                engine.abort();
                assert!(engine.await.is_err());
                self.parts.journal.break_leases().await.unwrap();
                return record;
            }
            last = Some(record);
            self.clock.advance(Duration::from_millis(50));
            if self.threads {
                tokio::task::spawn_blocking(|| ()).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
        panic!("the transfer did not get there: {last:?}");
    }

    /// Plans a transfer and drives it to its end, or until it is parked.
    pub(crate) async fn send(&self) -> TransferRecord {
        let id = self.plan(false).await;
        self.finish(id).await
    }

    pub(crate) async fn finish(&self, id: TransferId) -> TransferRecord {
        self.drive(id, |record| record.state.is_final() || record.parked).await
    }

    /// Drives until the failpoint is reached, then stops everything where it stands and cuts the power.
    pub(crate) async fn crash_at(&mut self, id: TransferId, stage: Stage, point: Point) {
        let reached = Arc::new(AtomicBool::new(false));
        self.parts.fail_points = Arc::new(StopAt { stage, point, reached: reached.clone() });
        self.drive(id, |_| reached.load(Ordering::SeqCst)).await;
        self.files.power_loss();
        self.parts.fail_points = Arc::new(NoFailPoints);
    }

    pub(crate) fn manifest(&self, id: TransferId) -> Manifest {
        super::super::folder::manifest(&*self.files, &self.parts.layout, id).unwrap().0
    }
}

struct StopAt {
    stage: Stage,
    point: Point,
    reached: Arc<AtomicBool>,
}

#[async_trait]
impl FailPoints for StopAt {
    async fn hit(&self, _: Place, stage: Stage, point: Point, _: &TransferKey) {
        if (stage, point) == (self.stage, self.point) {
            self.reached.store(true, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
    }
}

/// An ERP whose tables are texts.
pub(crate) struct FakeErp {
    files: Arc<dyn FileStore>,
    pub(crate) tables: Mutex<BTreeMap<&'static str, String>>,
    pub(crate) failures: Mutex<Vec<Failure>>,
    pub(crate) extracts: Mutex<u32>,
    /// What each extract was asked for: the transfer it may build on, and whether it is to be in full.
    pub(crate) asked: Mutex<Vec<(Option<TransferId>, bool)>>,
    /// The tables of which each extract was asked for every row.
    pub(crate) anew: Mutex<Vec<BTreeSet<String>>>,
    /// What the ERP's source has to say of itself.
    pub(crate) warnings: Mutex<Vec<String>>,
}

impl FakeErp {
    fn new(files: Arc<dyn FileStore>) -> Self {
        let tables = BTreeMap::from([("items", "id\r\n1\r\n2\r\n".to_owned()), ("sales", "id\r\n7\r\n".to_owned())]);
        Self {
            files,
            tables: Mutex::new(tables),
            failures: Mutex::default(),
            extracts: Mutex::default(),
            asked: Mutex::default(),
            anew: Mutex::default(),
            warnings: Mutex::default(),
        }
    }

    pub(crate) fn change(&self, table: &'static str, text: &str) {
        self.tables.lock().unwrap().insert(table, text.to_owned());
    }
}

#[async_trait]
impl Extractor for FakeErp {
    async fn extract(
        &self,
        request: ExtractRequest,
        events: mpsc::Sender<ExtractEvent>,
        _: CancellationToken,
    ) -> Result<Extracted, Failure> {
        *self.extracts.lock().unwrap() += 1;
        let previous = request.previous.as_ref().map(|manifest| manifest.transfer);
        self.asked.lock().unwrap().push((previous, request.full));
        self.anew.lock().unwrap().push(request.anew.clone());
        if let Some(failure) = self.failures.lock().unwrap().pop() {
            return Err(failure);
        }
        let tables = self.tables.lock().unwrap().clone();
        let (mut entries, mut packed) = (Vec::new(), Vec::new());
        for (name, text) in tables {
            let mut hasher = FileHasher::new();
            hasher.update(text.as_bytes());
            let digests = hasher.finish();
            let before = request.previous.as_ref().filter(|_| !request.full).and_then(|manifest| {
                let same = |file: &&FileEntry| file.sha256 == digests.sha256 && file.name.as_str() == format!("{name}.csv");
                let brought_by = |file: &FileEntry| file.base.filter(|_| file.unchanged).unwrap_or(manifest.transfer);
                manifest.files.iter().find(same).map(brought_by)
            });
            let column = Column { name: "id".parse().unwrap(), sql_type: SqlType::Text, nullable: false };
            entries.push(FileEntry {
                name: format!("{name}.csv").parse().unwrap(),
                media_type: "text/csv".into(),
                size: digests.size,
                md5: digests.md5,
                sha256: digests.sha256,
                unchanged: before.is_some(),
                base: before,
                content: Content::Table(Table::whole(
                    name.parse().unwrap(),
                    vec![column],
                    text.lines().count() as u64 - 1,
                    vec![],
                )),
            });
            if before.is_none() {
                // Packing is another room's; here it is enough that the bytes are others.
                let bytes = format!("packed {text}");
                let file: PackedFile = PackedFile {
                    name: format!("{name}.csv.bz2").parse().unwrap(),
                    size: bytes.len() as u64,
                    sha256: Sha256Digest::of(bytes.as_bytes()),
                };
                write_whole(&*self.files, &request.folder.join(file.name.as_str()), bytes.as_bytes()).unwrap();
                packed.push(file.clone());
                let _ = events.send(ExtractEvent::FileFinished(file)).await;
            }
        }
        let snapshot = Snapshot { id: "1".into(), isolation: "serializable".into(), consistent: true };
        Ok(Extracted { snapshot, warnings: self.warnings.lock().unwrap().clone(), taken: None, files: entries, packed })
    }
}

/// Nothing follows an uplink.
#[derive(Debug)]
struct NoActions;

#[async_trait]
impl Actions for NoActions {
    async fn act(&self, _: &ActionConfig, _: &ActionOf) -> Result<(), Failure> {
        Err(Failure::park(Code::Internal, "nothing is to follow"))
    }
}

/// The relay and, behind it, the receiver.
#[derive(Debug)]
pub(crate) struct Far {
    pub(crate) files: Arc<MemoryFiles>,
    pub(crate) relay_key: Identity,
    pub(crate) receiver_key: Identity,
    /// What waits for the agent, and what it has acknowledged.
    pub(crate) downlinks: MemoryRelay,
    clock: Arc<dyn Clock>,
    state: Mutex<FarState>,
}

#[derive(Debug, Default)]
struct FarState {
    claimed: BTreeMap<TransferId, (Complete, Manifest)>,
    incomplete: BTreeMap<TransferId, Vec<MissingFile>>,
    imports: Vec<TransferId>,
    completes: u32,
    rejection: Option<Rejection>,
    trouble: Option<Trouble>,
    receipt: Option<fn(&mut Receipt)>,
    forged: bool,
    shown_before: Option<SignedReceipt>,
    imports_withheld: bool,
    lost_answers: u32,
    refused_complete: Option<Code>,
    refused_peers: Option<Code>,
    unreachable: Option<StoreErrorKind>,
}

impl Far {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let files = Arc::new(MemoryFiles::new());
        files.create_dir_all(Path::new("/relay")).unwrap();
        let (relay_key, receiver_key) = (identity(11), identity(12));
        Self { files, relay_key, receiver_key, downlinks: MemoryRelay::new(), clock, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, FarState> {
        self.state.lock().unwrap()
    }

    /// The transfers that were imported, once for each import.
    pub(crate) fn imports(&self) -> Vec<TransferId> {
        self.state().imports.clone()
    }

    pub(crate) fn completes(&self) -> u32 {
        self.state().completes
    }

    /// The receiver rejects from now on.
    pub(crate) fn refuse_peers(&self, code: Option<Code>) {
        self.state().refused_peers = code;
    }

    pub(crate) fn reject(&self, rejection: Option<Rejection>) {
        self.state().rejection = rejection;
    }

    pub(crate) fn set_trouble(&self, trouble: Option<Trouble>) {
        self.state().trouble = trouble;
    }

    /// Receipts are changed like this before they are signed.
    pub(crate) fn change_receipts(&self, how: Option<fn(&mut Receipt)>) {
        self.state().receipt = how;
    }

    /// Receipts are changed after they were signed.
    pub(crate) fn forge_receipts(&self, forge: bool) {
        self.state().forged = forge;
    }

    /// No receipt of the receiver is shown.
    pub(crate) fn withhold_imports(&self, withhold: bool) {
        self.state().imports_withheld = withhold;
    }

    /// This is shown before the receipts.
    pub(crate) fn show_before(&self, receipt: Option<SignedReceipt>) {
        self.state().shown_before = receipt;
    }

    /// So many answers to `complete` get lost.
    pub(crate) fn lose_answers(&self, count: u32) {
        self.state().lost_answers = count;
    }

    /// `complete` is refused with this code from now on.
    pub(crate) fn refuse_complete(&self, code: Option<Code>) {
        self.state().refused_complete = code;
    }

    pub(crate) fn refuse_connections(&self, kind: Option<StoreErrorKind>) {
        self.state().unreachable = kind;
    }

    /// The relay finds these files wrong after it has said yes.
    pub(crate) fn find_wrong(&self, id: TransferId, name: &str) {
        let missing = MissingFile { name: name.parse().unwrap(), problem: "differs".into() };
        self.state().incomplete.insert(id, vec![missing]);
    }

    /// Forgets a transfer with everything of it, as a relay does that was restored to before it.
    pub(crate) fn forget(&self, id: TransferId) {
        self.state().claimed.remove(&id);
        self.files.remove_dir_all(&self.folder(id)).unwrap();
    }

    pub(crate) fn folder(&self, id: TransferId) -> PathBuf {
        Path::new("/relay/uplink").join(id.to_string())
    }

    pub(crate) fn names(&self, id: TransferId) -> Vec<String> {
        self.files.list(&self.folder(id), None, 100).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    fn read(&self, id: TransferId, name: &str) -> Option<Vec<u8>> {
        read_whole(&*self.files, &self.folder(id).join(name), 1_000_000).ok()
    }

    /// What differs from what `complete` names, as the relay's `accept` finds it.
    fn missing(&self, id: TransferId, complete: &Complete) -> Vec<MissingFile> {
        let wrong = |name: &str| MissingFile { name: name.parse().unwrap(), problem: "differs".into() };
        let differs =
            |name: &str, digest: Sha256Digest| self.read(id, name).is_none_or(|bytes| Sha256Digest::of(&bytes) != digest);
        let mut missing = Vec::new();
        for (name, digest) in [("manifest.json", complete.manifest), ("packed.json", complete.packed)] {
            if differs(name, digest) {
                missing.push(wrong(name));
            }
        }
        if !missing.is_empty() {
            return missing;
        }
        let list = PackedList::parse(&self.read(id, "packed.json").unwrap()).unwrap();
        let damaged = list.files.iter().filter(|file| differs(file.name.as_str(), file.sha256));
        missing.extend(damaged.map(|file| wrong(file.name.as_str())));
        missing
    }

    fn sign(&self, key: &Identity, state: &FarState, mut receipt: Receipt) -> SignedReceipt {
        if let Some(change) = state.receipt {
            change(&mut receipt);
        }
        let text = String::from_utf8(receipt.to_bytes().unwrap()).unwrap();
        let signature = key.sign(Namespace::Receipt, text.as_bytes()).unwrap();
        let receipt = if state.forged { text.replace("\"uplink\"", "\"uplink\" ") } else { text };
        SignedReceipt { receipt, signature }
    }

    fn receipts(&self, state: &FarState, manifest: &Manifest, digest: Sha256Digest) -> (UplinkState, Vec<SignedReceipt>) {
        let receipt = |stage, key: &Identity| Receipt {
            version: 1,
            transfer: manifest.transfer,
            tenant: manifest.tenant.clone(),
            agent: manifest.agent.clone(),
            direction: Direction::Uplink,
            stage,
            manifest: Some(digest),
            rows: Vec::new(),
            reason: None,
            time: self.clock.now(),
            signer: key.fingerprint(),
        };
        let accepted = self.sign(&self.relay_key, state, receipt(ReceiptStage::Accepted, &self.relay_key));
        if state.trouble.is_some() {
            return (UplinkState::Accepted, vec![accepted]);
        }
        let counted = manifest.files.iter().filter_map(|file| file.table());
        let rows = counted.map(|table| TableRows::new(table.table.clone(), table.rows)).collect();
        let stage = if state.rejection.is_some() { ReceiptStage::Rejected } else { ReceiptStage::Imported };
        let ended = Receipt { rows, reason: state.rejection.clone(), ..receipt(stage, &self.receiver_key) };
        let word = if state.rejection.is_some() { UplinkState::Rejected } else { UplinkState::Imported };
        (word, vec![accepted, self.sign(&self.receiver_key, state, ended)])
    }
}

#[async_trait]
impl Connect for Far {
    async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
        match self.state().unreachable {
            Some(kind) => Err(StoreError::new(kind, "connecting to the relay, refused on purpose")),
            None => Ok(Arc::new(MemoryStore::over(self.files.clone(), "/relay"))),
        }
    }
}

#[async_trait]
impl RelayApi for Far {
    async fn enrol(&self, _: &EnrolmentRequest) -> Result<EnrolmentAnswer, Failure> {
        Err(Failure::park(Code::EnrolmentUsed, "enrolling: the code was used by another key"))
    }

    async fn peers(&self) -> Result<Peers, Failure> {
        if let Some(code) = self.state().refused_peers {
            return Err(Failure::park(code, "refused on purpose"));
        }
        Ok(Peers { peers: vec![peer("app", &self.receiver_key)] })
    }

    async fn rotate_key(&self, rotation: &KeyRotation) -> Result<KeyRotation, Failure> {
        Ok(rotation.clone())
    }

    async fn complete(&self, transfer: TransferId, complete: &Complete) -> Result<UplinkStatus, Failure> {
        self.state().completes += 1;
        if let Some(code) = self.state().refused_complete {
            return Err(Failure::park(code, "refused on purpose"));
        }
        let frozen = self.state().claimed.get(&transfer).map(|(before, _)| *before);
        if let Some(before) = frozen.filter(|_| !self.state().incomplete.contains_key(&transfer)) {
            assert_eq!(before, *complete, "a frozen transfer is the same transfer");
        } else {
            let missing = self.missing(transfer, complete);
            if !missing.is_empty() {
                let (state, receipts) = (UplinkState::Incomplete, vec![]);
                return Ok(UplinkStatus { transfer, state, missing, trouble: None, receipts });
            }
            let manifest = Manifest::parse(&self.read(transfer, "manifest.json").unwrap()).unwrap();
            let mut state = self.state();
            state.incomplete.remove(&transfer);
            if state.claimed.insert(transfer, (*complete, manifest)).is_none() && state.rejection.is_none() {
                state.imports.push(transfer);
            }
        }
        let lost = {
            let mut state = self.state();
            let lost = state.lost_answers > 0;
            state.lost_answers = state.lost_answers.saturating_sub(1);
            lost
        };
        if lost {
            return Err(Failure::retry(Code::RelayUnreachable, "the answer got lost"));
        }
        let (state, missing, receipts) = (UplinkState::Claimed, vec![], vec![]);
        Ok(UplinkStatus { transfer, state, missing, trouble: None, receipts })
    }

    async fn uplink(&self, transfer: TransferId) -> Result<UplinkStatus, Failure> {
        let state = self.state();
        let (complete, manifest) =
            state.claimed.get(&transfer).ok_or_else(|| Failure::park(Code::NotFound, "no such transfer"))?;
        if let Some(missing) = state.incomplete.get(&transfer) {
            let missing = missing.clone();
            return Ok(UplinkStatus { transfer, state: UplinkState::Incomplete, missing, trouble: None, receipts: vec![] });
        }
        let (word, mut receipts) = self.receipts(&state, manifest, complete.manifest);
        if state.imports_withheld {
            receipts.truncate(1);
        }
        receipts.splice(0..0, state.shown_before.clone());
        Ok(UplinkStatus { transfer, state: word, missing: vec![], trouble: state.trouble.clone(), receipts })
    }

    async fn post_receipt(&self, _: &AppReceipt) -> Result<(), Failure> {
        Err(Failure::park(Code::RequestInvalid, "agents post no such receipts"))
    }

    async fn downlinks(&self, wait: Duration, unless: Option<Sha256Digest>) -> Result<Downlinks, Failure> {
        self.downlinks.downlinks(wait, unless).await
    }

    async fn acknowledge(&self, transfer: TransferId, acknowledgement: &Acknowledgement) -> Result<(), Failure> {
        self.downlinks.acknowledge(transfer, acknowledgement).await
    }

    async fn export(&self, _: &Export) -> Result<ExportStatus, Failure> {
        Err(Failure::park(Code::RequestInvalid, "agents export nothing"))
    }

    async fn export_status(&self, _: &AgentName, _: TransferId) -> Result<ExportStatus, Failure> {
        Err(Failure::park(Code::RequestInvalid, "agents export nothing"))
    }

    async fn expect(&self, expectations: &towpath_transfer::api::Expectations) -> Result<(), Failure> {
        self.downlinks.expect(expectations).await
    }

    async fn releases(&self) -> Result<towpath_transfer::api::Releases, Failure> {
        self.downlinks.releases().await
    }

    async fn announcement(&self, pinned: u64) -> Result<SignedAnnouncement, Failure> {
        self.downlinks.announcement(pinned).await
    }
}

/// An enrolled receiver, as the relay tells of it.
pub(crate) fn peer(name: &str, key: &Identity) -> Peer {
    let (secret, url) = ("a secret of sixteen bytes", "https://relay.example");
    Peer {
        name: name.parse().unwrap(),
        role: Role::Receiver,
        public_key: key.public_line().clone(),
        secret_sha256: Sha256Digest::of(secret.as_bytes()),
        relay_url: url.into(),
        proof: sign_enrolment(key, secret.as_bytes(), url).unwrap(),
        rotations: Vec::new(),
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}
