//! The relay in memory: enrolment, the way of an uplink, and everything that can go wrong with it.

mod forgotten;
mod shares;
mod stopping;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;
use jiff::Timestamp;
use towpath_journal::{DriverSettings, FailPoints, Lease, MemoryJournal, NoFailPoints, Prune, Release, StepOutcome};
use towpath_keys::{Identity, KeyKind, Namespace, sign_enrolment};
use towpath_transfer::{
    Code, Direction, Disposition, RemotePath, Sequence, Stage, TenantName,
    api::{EnrolmentCode, EnrolmentRequest, Landing, UplinkState},
    clock::{ManualClock, SeededEntropy},
    digest::{FileHasher, Sha256Digest},
    failure::FailureRecord,
    manifest::{Content, FileEntry, Manifest},
    packed::{PackedFile, PackedList},
    receipt::{Receipt, ReceiptStage, SignedReceipt},
    state::{Outcome, Place, Rejection},
};
use towpath_transport::{
    files::{FileStore, MemoryFiles, read_whole},
    relay_api::RelayApi as _,
    server::{FsError, OpenOptions, SetAttributes, VirtualFs as _},
    store::{MemoryStore, RemoteStore as _},
};

use super::*;
use crate::{
    admin::Metrics,
    downlink::DownlinkSettings,
    keyring::{Keyring, Shown},
    registry::NewEnrolment,
    relay::{Parts, Relay, StageSettings},
    scope::TenantScope,
    spool::{AgentView, SpoolLimits},
    uplink::forward::{AppServer, AppServers},
};

pub(crate) const URL: &str = "https://relay.example";
/// One key for everything, of a relay that announces nothing.
fn keyring(key: &Identity) -> Keyring {
    let ssh_host_keys = vec![key.public_line().clone()];
    Keyring::new(Shown { ssh_host_keys, receipt_key: key.clone(), announced: None })
}

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// App servers of which each tenant has one in memory, unless a test says otherwise.
#[derive(Debug)]
struct Apps {
    files: MemoryFiles,
    fails: Mutex<Option<(Code, Disposition)>>,
    /// Whose app server never answers.
    silent: Mutex<Option<TenantName>>,
    /// How often that one was asked.
    asked: AtomicUsize,
}

#[async_trait::async_trait]
impl AppServers for Apps {
    async fn connect(&self, scope: &TenantScope) -> Result<AppServer> {
        if self.silent.lock().unwrap().as_ref() == Some(scope.tenant()) {
            self.asked.fetch_add(1, SeqCst);
            return std::future::pending().await;
        }
        match *self.fails.lock().unwrap() {
            Some((code, Disposition::Retry)) => Err(Failure::retry(code, "connecting")),
            Some((code, Disposition::Park)) => Err(Failure::park(code, "connecting")),
            None => {
                let root = format!("/app/{scope}");
                self.files.create_dir_all(root.as_ref()).unwrap();
                let store = Arc::new(MemoryStore::over(Arc::new(self.files.clone()), root));
                Ok(AppServer { store, folder: "/landing".parse().unwrap(), landing: None })
            }
        }
    }
}

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) entropy: Arc<SeededEntropy>,
    pub(crate) files: MemoryFiles,
    pub(crate) journal: Arc<MemoryJournal>,
    pub(crate) registry: Registry,
    pub(crate) relay: Relay,
    receipt_key: Identity,
    apps: Arc<Apps>,
    downlink: Arc<Mutex<DownlinkSettings>>,
    parts: Box<dyn Fn(Arc<dyn FailPoints>) -> Parts>,
}

/// One enrolled end.
pub(crate) struct Enrolled {
    pub(crate) identity: Identity,
    pub(crate) caller: Caller,
}

impl Enrolled {
    pub(crate) fn token(&self, world: &World) -> String {
        let claims = towpath_keys::TokenClaims::new(self.caller.user(), URL, world.clock.now(), &*world.entropy);
        self.identity.token(&claims).unwrap()
    }
}

pub(crate) fn small_limits() -> SpoolLimits {
    SpoolLimits { total_bytes: 1 << 20, tenant_bytes: 1 << 19, reserve_bytes: 0, open_transfers: 3, files_per_transfer: 8 }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(small_limits()).await
    }

    pub(crate) async fn with(spool_limits: SpoolLimits) -> Self {
        let clock = ManualClock::new("2026-03-01T00:00:00Z".parse().unwrap());
        let entropy = Arc::new(SeededEntropy::new(7));
        let files = MemoryFiles::with_clock(Arc::new(clock.clone()));
        let (shared, random): (Arc<dyn Clock>, Arc<dyn towpath_transfer::Entropy>) = (Arc::new(clock.clone()), entropy.clone());
        let journal = Arc::new(MemoryJournal::new(Place::Relay, shared.clone(), random.clone()));
        let registry = Registry::in_memory(shared.clone(), random.clone()).await.unwrap();
        let receipt_key = Identity::generate(KeyKind::Ed25519, &*entropy).unwrap();
        let apps = Arc::new(Apps {
            files: MemoryFiles::new(),
            fails: Mutex::default(),
            silent: Mutex::default(),
            asked: AtomicUsize::new(0),
        });
        let downlink = Arc::new(Mutex::new(DownlinkSettings::default()));
        let configured = Arc::clone(&downlink);
        let shown = (files.clone(), journal.clone(), registry.clone(), receipt_key.clone(), apps.clone());
        let parts = move |fail_points| Parts {
            files: Arc::new(files.clone()),
            state: "/state".into(),
            journal: journal.clone(),
            registry: registry.clone(),
            clock: shared.clone(),
            entropy: random.clone(),
            fail_points,
            app_servers: apps.clone(),
            identity: RelayIdentity {
                public_url: URL.to_owned(),
                keys: keyring(&receipt_key),
                forward_key: receipt_key.public_line().clone(),
            },
            spool_limits,
            stages: StageSettings {
                accept_at_once: 1,
                forward_at_once: 4,
                forward_per_tenant: 2,
                retention: DAY * 7,
                abandoned: DAY * 14,
                journal_keeps: 100,
                audit: crate::audit::AuditSettings::default(),
                downlink: *configured.lock().unwrap(),
                driver: DriverSettings::default(),
            },
            metrics: Metrics::new().unwrap(),
        };
        let relay = Relay::new(parts(Arc::new(NoFailPoints))).unwrap();
        let (files, journal, registry, receipt_key, apps) = shown;
        Self { clock, entropy, files, journal, registry, relay, receipt_key, apps, downlink, parts: Box::new(parts) }
    }

    /// What another process finds that starts over the same state.
    pub(crate) fn restart(&mut self, fail_points: Arc<dyn FailPoints>) {
        self.relay = Relay::new((self.parts)(fail_points)).unwrap();
    }

    /// The names and bytes of a transfer at the tenant's app server.
    pub(crate) fn landed(&self, tenant: &str, agent: &str, id: TransferId) -> Vec<(String, Vec<u8>)> {
        let folder = format!("/app/{tenant}/landing/uplink/{agent}/{id}");
        let entries = self.apps.files.list(folder.as_ref(), None, 100).unwrap();
        let read = |name: &str| read_whole(&self.apps.files, format!("{folder}/{name}").as_ref(), 1 << 20).unwrap();
        entries.into_iter().map(|entry| (entry.name.clone(), read(&entry.name))).collect()
    }

    /// The files of the app servers: of a tenant, below `/app/<tenant>/landing`.
    pub(crate) fn app_files(&self) -> &MemoryFiles {
        &self.apps.files
    }

    /// What connecting to an app server fails with from now on.
    pub(crate) fn app_server_fails(&self, how: Option<(Code, Disposition)>) {
        *self.apps.fails.lock().unwrap() = how;
    }

    /// The figures of the way back from the next start on.
    pub(crate) fn set_downlink(&self, settings: DownlinkSettings) {
        *self.downlink.lock().unwrap() = settings;
    }

    /// The key that signs the relay's receipts.
    pub(crate) fn receipt_key(&self) -> &Identity {
        &self.receipt_key
    }

    /// The app server loses everything that has landed.
    pub(crate) fn lose_landings(&self) {
        self.apps.files.remove_dir_all("/app".as_ref()).unwrap();
    }

    pub(crate) fn service(&self) -> &RelayService {
        self.relay.service()
    }

    pub(crate) async fn code(&self, tenant: &str, role: Role) -> EnrolmentCode {
        let tenant: TenantName = tenant.parse().unwrap();
        let scope = match self.registry.operator_scope(&tenant).await {
            Ok(scope) => scope,
            Err(_) => self.registry.create_tenant(&tenant, None).await.unwrap(),
        };
        let new = NewEnrolment { role, name: None, valid_for: DAY, relay_url: URL.to_owned(), spki_pin: None };
        self.registry.create_enrolment(&scope, new).await.unwrap().0
    }

    pub(crate) fn request(code: &EnrolmentCode, identity: &Identity) -> EnrolmentRequest {
        EnrolmentRequest {
            tenant: code.tenant.clone(),
            role: code.role,
            secret: code.secret.clone(),
            public_key: identity.public_line().clone(),
            proof: sign_enrolment(identity, code.secret.as_bytes(), URL).unwrap(),
            landing: None,
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::generate(KeyKind::Ed25519, &*self.entropy).unwrap()
    }

    pub(crate) async fn enrol(&self, tenant: &str, role: Role) -> Enrolled {
        let (code, identity) = (self.code(tenant, role).await, self.identity());
        let answer = self.service().enrol(&Self::request(&code, &identity), None).await.unwrap();
        let caller = self.registry.authenticate_key(&answer.sftp_user, identity.public_line()).await.unwrap();
        Enrolled { identity, caller }
    }

    pub(crate) fn view(&self, end: &Enrolled) -> AgentView {
        AgentView::new(Arc::clone(self.relay.spool()), end.caller.as_agent().unwrap())
    }

    /// Does the work of a stage once, as a driver would, and returns what came of it for each transfer.
    pub(crate) async fn work(&self, stage: Stage) -> Vec<Result<StepOutcome>> {
        let (step, _) = self.relay.steps().into_iter().find(|(step, _)| step.stage() == stage).unwrap();
        let mut outcomes = Vec::new();
        for lease in self.journal.acquire(stage, 10, Duration::from_secs(60)).await.unwrap() {
            let outcome = step.step(&lease).await;
            self.record(&lease, &outcome).await;
            outcomes.push(outcome);
        }
        outcomes
    }

    pub(crate) async fn record(&self, lease: &Lease, outcome: &Result<StepOutcome>) {
        let how = match outcome {
            Ok(StepOutcome::Event(event)) => {
                self.journal.append(lease, lease.record.events, event).await.unwrap();
                Release::Done
            }
            Ok(StepOutcome::Wait(_)) => Release::WaitUntil { at: self.clock.now() },
            Err(failure) if failure.disposition() == Disposition::Park => Release::Park { failure: FailureRecord::from(failure) },
            Err(failure) => Release::RetryAt { at: self.clock.now(), failure: FailureRecord::from(failure) },
        };
        self.journal.release(lease, how).await.unwrap();
    }

    /// Everything that is in the audit trail now, oldest first, with what is held back to be counted.
    pub(crate) async fn audit(&self) -> Vec<crate::audit::chain::Row> {
        self.relay.trail().flush(true).await.unwrap();
        self.registry.verify_audit(None).await.unwrap().unwrap();
        let mut rows = self.registry.audit_rows(&crate::registry::AuditFilter::default(), 1_000).await.unwrap();
        rows.reverse();
        rows
    }

    pub(crate) fn id(&self) -> TransferId {
        TransferId::new(&self.clock, &*self.entropy)
    }
}

/// Everything an agent sends for one transfer.
pub(crate) struct Sent {
    pub(crate) id: TransferId,
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
    pub(crate) complete: Complete,
}

impl Sent {
    pub(crate) fn new(world: &World, end: &Enrolled, sequence: u64) -> Self {
        Self::of(world, end, sequence, |_| {})
    }

    pub(crate) fn of(world: &World, end: &Enrolled, sequence: u64, change: impl FnOnce(&mut Manifest)) -> Self {
        let (id, plain, packed) = (world.id(), b"a\r\n1\r\n".as_slice(), b"packed bytes".as_slice());
        let mut hasher = FileHasher::new();
        hasher.update(plain);
        let digests = hasher.finish();
        let mut manifest = Manifest {
            version: 1,
            transfer: id,
            direction: Direction::Uplink,
            tenant: end.caller.scope().tenant().clone(),
            agent: end.caller.name().clone(),
            job: "main".parse().unwrap(),
            created: Timestamp::UNIX_EPOCH,
            sequence: Sequence(sequence),
            snapshot: None,
            kind: None,
            files: vec![FileEntry {
                name: "items.csv".parse().unwrap(),
                media_type: "text/csv".into(),
                size: digests.size,
                md5: digests.md5,
                sha256: digests.sha256,
                unchanged: false,
                base: None,
                content: Content::File,
            }],
        };
        change(&mut manifest);
        let manifest_bytes = manifest.to_bytes().unwrap();
        let file =
            PackedFile { name: "items.csv.bz2".parse().unwrap(), size: packed.len() as u64, sha256: Sha256Digest::of(packed) };
        let list = PackedList { version: 1, transfer: id, manifest: Sha256Digest::of(&manifest_bytes), files: vec![file] };
        let packed_bytes = list.to_bytes().unwrap();
        let signature = end.identity.sign(Namespace::Manifest, &manifest_bytes).unwrap();
        let complete = Complete { manifest: Sha256Digest::of(&manifest_bytes), packed: Sha256Digest::of(&packed_bytes) };
        let files = vec![
            ("items.csv.bz2", packed.to_vec()),
            ("MD5SUMS", format!("{}  items.csv\n", digests.md5).into_bytes()),
            ("packed.json", packed_bytes),
            ("manifest.json.sig", signature.into_bytes()),
            ("manifest.json", manifest_bytes),
        ];
        Self { id, files, complete }
    }

    pub(crate) async fn push(&self, world: &World, end: &Enrolled) {
        let view = world.view(end);
        view.make_dir(&path(self.id, ""), &SetAttributes::default()).await.unwrap();
        for (name, bytes) in &self.files {
            put(&view, self.id, name, bytes).await.unwrap();
        }
    }
}

pub(crate) fn path(id: TransferId, name: &str) -> RemotePath {
    RemotePath::parse(format!("/uplink/{id}/{name}").as_bytes()).unwrap()
}

pub(crate) const WRITE: OpenOptions =
    OpenOptions { read: false, write: true, append: false, create: true, truncate: true, exclusive: false };

pub(crate) async fn put(view: &AgentView, id: TransferId, name: &str, bytes: &[u8]) -> Result<(), FsError> {
    let mut file = view.open(&path(id, name), WRITE, &SetAttributes::default()).await?;
    let written = file.write_at(0, Bytes::copy_from_slice(bytes)).await;
    match written {
        Ok(()) => file.close().await,
        Err(e) => {
            file.abandon().await;
            Err(e)
        }
    }
}

pub(crate) fn receipt_of(world: &World, receiver: &Enrolled, agent: &Enrolled, sent: &Sent, outcome: &Outcome) -> AppReceipt {
    let reason = match outcome {
        Outcome::Imported | Outcome::Delivered => None,
        Outcome::Rejected(rejection) => Some(rejection.clone()),
    };
    let stage = crate::settle::stage_of(outcome);
    let receipt = Receipt {
        version: 1,
        transfer: sent.id,
        tenant: receiver.caller.scope().tenant().clone(),
        agent: agent.caller.name().clone(),
        direction: Direction::Uplink,
        stage,
        manifest: Some(sent.complete.manifest),
        rows: Vec::new(),
        reason,
        time: world.clock.now(),
        signer: receiver.identity.fingerprint(),
    };
    sign(receiver, agent, &receipt)
}

fn sign(receiver: &Enrolled, agent: &Enrolled, receipt: &Receipt) -> AppReceipt {
    let bytes = receipt.to_bytes().unwrap();
    let signature = receiver.identity.sign(Namespace::Receipt, &bytes).unwrap();
    let signed = SignedReceipt { receipt: String::from_utf8(bytes).unwrap(), signature };
    AppReceipt { agent: agent.caller.name().clone(), transfer: receipt.transfer, signed }
}

pub(crate) async fn code_of<T: std::fmt::Debug>(call: impl Future<Output = Result<T>>) -> Code {
    call.await.unwrap_err().code()
}

#[tokio::test]
async fn an_uplink_goes_all_the_way_and_its_receipts_come_back() {
    let world = World::new().await;
    let (agent, receiver) = (world.enrol("acme", Role::Agent).await, world.enrol("acme", Role::Receiver).await);
    let sent = Sent::new(&world, &agent, 1);
    sent.push(&world, &agent).await;
    let service = world.service();

    let claimed = service.complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    assert_eq!((claimed.state, claimed.receipts.len()), (UplinkState::Claimed, 0));
    world.work(Stage::Accept).await;
    let accepted = service.uplink(&agent.caller, sent.id).await.unwrap();
    assert_eq!(accepted.state, UplinkState::Accepted);
    let receipt = accepted.receipts.first().unwrap();
    towpath_keys::verify(
        receipt.signature.as_bytes(),
        Namespace::Receipt,
        receipt.receipt.as_bytes(),
        world.receipt_key.public_key(),
    )
    .unwrap();
    assert_eq!(receipt.parse().unwrap().manifest, Some(sent.complete.manifest));

    world.work(Stage::Forward).await;
    assert_eq!(service.uplink(&agent.caller, sent.id).await.unwrap().state, UplinkState::Forwarded);
    let landed = MemoryStore::over(Arc::new(world.apps.files.clone()), "/app/acme");
    let folder = RemotePath::parse(format!("/landing/uplink/agent/{}", sent.id).as_bytes()).unwrap();
    let names: Vec<String> = landed.list(&folder, 10).await.unwrap().into_iter().map(|e| e.name.to_string()).collect();
    assert_eq!(names, ["MD5SUMS", "items.csv.bz2", "manifest.json", "manifest.json.sig", "packed.json"]);

    let imported = receipt_of(&world, &receiver, &agent, &sent, &Outcome::Imported);
    service.app_receipt(&receiver.caller, &imported).await.unwrap();
    service.app_receipt(&receiver.caller, &imported).await.unwrap();
    let ended = service.uplink(&agent.caller, sent.id).await.unwrap();
    assert_eq!((ended.state, ended.receipts.len()), (UplinkState::Imported, 2));
    assert_eq!(ended.receipts[1], imported.signed);

    assert!(matches!(world.work(Stage::Remove).await[0], Ok(StepOutcome::Wait(_))), "the files stay for a week");
    assert!(world.view(&agent).stat(&path(sent.id, "manifest.json")).await.is_ok());
    world.clock.advance(DAY * 7);
    world.work(Stage::Remove).await;
    assert_eq!(world.view(&agent).stat(&path(sent.id, "")).await, Err(FsError::NotFound));
    assert_eq!(world.relay.spool().quota().used(), 0);
    assert_eq!(service.uplink(&agent.caller, sent.id).await.unwrap(), ended, "the receipts stay");
    assert_eq!(service.complete(&agent.caller, sent.id, &sent.complete).await.unwrap(), ended, "and `complete` is idempotent");
    world.relay.tidy().await.unwrap();
    assert_eq!(service.uplink(&agent.caller, sent.id).await.unwrap(), ended);
    world.journal.prune(&Prune::over(Timestamp::MAX, 0)).await.unwrap();
    world.relay.tidy().await.unwrap();
    let scope = agent.caller.as_agent().unwrap();
    let kept = world.relay.spool().receipt(&scope, sent.id, ReceiptStage::Imported).unwrap();
    assert_eq!(kept, None, "they go when the journal forgets the transfer");
}

#[tokio::test]
async fn what_is_missing_is_named_and_sending_it_mends_it() {
    let world = World::new().await;
    let agent = world.enrol("acme", Role::Agent).await;
    let sent = Sent::new(&world, &agent, 1);
    let (service, view) = (world.service(), world.view(&agent));
    let nothing = service.complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    assert_eq!(nothing.state, UplinkState::Incomplete);
    assert_eq!(nothing.missing[0].name.as_str(), "manifest.json");
    assert_eq!(code_of(service.uplink(&agent.caller, sent.id)).await, Code::NotFound, "nothing was claimed");

    sent.push(&world, &agent).await;
    put(&view, sent.id, "items.csv.bz2", b"packed bytez").await.unwrap();
    view.remove(&path(sent.id, "MD5SUMS")).await.unwrap();
    put(&view, sent.id, "left-over.csv.bz2", b"of an earlier extract").await.unwrap();
    service.complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    assert_eq!(put(&view, sent.id, "items.csv.bz2", b"packed bytes").await, Err(FsError::Denied), "frozen from here on");
    world.work(Stage::Accept).await;
    let found = service.uplink(&agent.caller, sent.id).await.unwrap();
    let missing: Vec<&str> = found.missing.iter().map(|m| m.name.as_str()).collect();
    assert_eq!((found.state, missing), (UplinkState::Incomplete, vec!["MD5SUMS", "items.csv.bz2"]));

    for (name, bytes) in &sent.files {
        put(&view, sent.id, name, bytes).await.unwrap();
    }
    service.complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    world.work(Stage::Accept).await;
    assert_eq!(service.uplink(&agent.caller, sent.id).await.unwrap().state, UplinkState::Accepted);
    assert_eq!(view.stat(&path(sent.id, "left-over.csv.bz2")).await, Err(FsError::NotFound), "strange files are removed");
}

#[tokio::test]
async fn what_sending_again_cannot_mend_is_parked_and_shown() {
    type Change = fn(&mut Sent, &World);
    let changes: [(Code, Change); 4] = [
        (Code::SignatureInvalid, |sent, world| {
            let other = world.identity().sign(Namespace::Manifest, &sent.files[4].1).unwrap();
            sent.files[3].1 = other.into_bytes();
        }),
        (Code::PackedListInvalid, |sent, _| {
            sent.files[2].1.push(b' ');
            sent.complete.packed = Sha256Digest::of(&sent.files[2].1);
        }),
        (Code::ManifestInvalid, |sent, _| {
            sent.files[4].1 = b"{}".to_vec();
            sent.complete.manifest = Sha256Digest::of(b"{}");
        }),
        (Code::ManifestInvalid, |sent, _| {
            let text = String::from_utf8(sent.files[4].1.clone()).unwrap().replace("\"acme\"", "\"other\"");
            sent.files[4].1 = text.into_bytes();
            sent.complete.manifest = Sha256Digest::of(&sent.files[4].1);
        }),
    ];
    for (code, change) in changes {
        let world = World::new().await;
        let agent = world.enrol("acme", Role::Agent).await;
        let mut sent = Sent::new(&world, &agent, 1);
        change(&mut sent, &world);
        sent.push(&world, &agent).await;
        world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
        world.work(Stage::Accept).await;
        let status = world.service().uplink(&agent.caller, sent.id).await.unwrap();
        let trouble = status.trouble.unwrap();
        assert_eq!((status.state, trouble.code, trouble.parked), (UplinkState::Claimed, code, true));
    }
}

#[tokio::test]
async fn another_identity_after_complete_is_refused() {
    let world = World::new().await;
    let agent = world.enrol("acme", Role::Agent).await;
    let sent = Sent::new(&world, &agent, 1);
    sent.push(&world, &agent).await;
    let service = world.service();
    service.complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    let other = Complete { packed: Sha256Digest::of(b"other"), ..sent.complete };
    assert_eq!(code_of(service.complete(&agent.caller, sent.id, &other)).await, Code::TransferFrozen);
    let again = service.complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    assert_eq!(again.state, UplinkState::Claimed);
    world.work(Stage::Accept).await;
    assert_eq!(code_of(service.complete(&agent.caller, sent.id, &other)).await, Code::TransferFrozen);
}

#[tokio::test]
async fn a_sequence_number_belongs_to_one_transfer() {
    let world = World::new().await;
    let agent = world.enrol("acme", Role::Agent).await;
    let (first, second) = (Sent::new(&world, &agent, 5), Sent::new(&world, &agent, 5));
    for sent in [&first, &second] {
        sent.push(&world, &agent).await;
    }
    world.service().complete(&agent.caller, first.id, &first.complete).await.unwrap();
    let forked = code_of(world.service().complete(&agent.caller, second.id, &second.complete)).await;
    assert_eq!(forked, Code::SequenceForked);
    let rows = world.audit().await;
    let last = rows.last().unwrap();
    assert_eq!((last.name.as_str(), last.tenant.as_str(), last.result.as_str()), ("agent", "acme", "sequence-forked"));
}

#[tokio::test]
async fn another_tenants_transfer_is_not_there() {
    let world = World::new().await;
    let (agent, receiver) = (world.enrol("acme", Role::Agent).await, world.enrol("acme", Role::Receiver).await);
    let (other, other_receiver) = (world.enrol("other", Role::Agent).await, world.enrol("other", Role::Receiver).await);
    let sent = Sent::new(&world, &agent, 1);
    sent.push(&world, &agent).await;
    let service = world.service();
    service.complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    world.work(Stage::Accept).await;
    for stranger in [&other, &receiver, &other_receiver] {
        let not_there = service.uplink(&stranger.caller, sent.id).await.unwrap_err();
        let nowhere = service.uplink(&stranger.caller, world.id()).await.unwrap_err();
        assert_eq!((not_there.code(), not_there.report()), (Code::NotFound, nowhere.report()));
    }
    let status = service.complete(&other.caller, sent.id, &sent.complete).await.unwrap();
    assert_eq!(status.state, UplinkState::Incomplete, "the same id in the other tenant is another transfer");
    let imported = receipt_of(&world, &other_receiver, &agent, &sent, &Outcome::Imported);
    assert_eq!(code_of(service.app_receipt(&other_receiver.caller, &imported)).await, Code::NotFound);
    let own = receipt_of(&world, &receiver, &agent, &sent, &Outcome::Imported);
    assert_eq!(code_of(service.app_receipt(&agent.caller, &own)).await, Code::NotFound);
    let peers = service.peers(&agent.caller).await.unwrap().peers;
    assert_eq!(peers.iter().map(|peer| &peer.public_key).collect::<Vec<_>>(), [receiver.identity.public_line()]);
}

#[tokio::test]
async fn only_a_right_receipt_ends_a_transfer() {
    let world = World::new().await;
    let (agent, receiver) = (world.enrol("acme", Role::Agent).await, world.enrol("acme", Role::Receiver).await);
    let sent = Sent::new(&world, &agent, 1);
    sent.push(&world, &agent).await;
    let service = world.service();
    service.complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    let imported = receipt_of(&world, &receiver, &agent, &sent, &Outcome::Imported);
    let early = code_of(service.app_receipt(&receiver.caller, &imported)).await;
    assert_eq!(early, Code::NotFound, "nothing was accepted yet");
    world.work(Stage::Accept).await;

    let post = async |change: fn(&mut Receipt)| {
        let mut receipt = imported.signed.parse().unwrap();
        change(&mut receipt);
        let posted = AppReceipt { transfer: sent.id, ..sign(&receiver, &agent, &receipt) };
        code_of(service.app_receipt(&receiver.caller, &posted)).await
    };
    assert_eq!(post(|r| r.manifest = Some(Sha256Digest::of(b"x"))).await, Code::ReceiptInvalid);
    assert_eq!(post(|r| r.agent = "someone".parse().unwrap()).await, Code::ReceiptInvalid);
    assert_eq!(post(|r| r.stage = ReceiptStage::Accepted).await, Code::ReceiptInvalid);
    assert_eq!(post(|r| r.direction = Direction::Downlink).await, Code::ReceiptInvalid);
    let forged = AppReceipt { signed: SignedReceipt { signature: "x".into(), ..imported.signed.clone() }, ..imported.clone() };
    assert_eq!(code_of(service.app_receipt(&receiver.caller, &forged)).await, Code::ReceiptInvalid);
    let unknown = AppReceipt { transfer: world.id(), ..imported.clone() };
    assert_eq!(code_of(service.app_receipt(&receiver.caller, &unknown)).await, Code::NotFound);

    let rejected = Outcome::Rejected(Rejection { code: Code::ContentInvalid, detail: "rows".into() });
    let no = receipt_of(&world, &receiver, &agent, &sent, &rejected);
    service.app_receipt(&receiver.caller, &no).await.unwrap();
    assert_eq!(code_of(service.app_receipt(&receiver.caller, &imported)).await, Code::ReceiptInvalid, "it contradicts");
    let status = service.uplink(&agent.caller, sent.id).await.unwrap();
    assert_eq!((status.state, status.receipts.last()), (UplinkState::Rejected, Some(&no.signed)));
}

#[tokio::test]
async fn trouble_with_the_app_server_is_shown_and_never_parks() {
    let world = World::new().await;
    let agent = world.enrol("acme", Role::Agent).await;
    let sent = Sent::new(&world, &agent, 1);
    sent.push(&world, &agent).await;
    world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    world.work(Stage::Accept).await;
    for (code, how) in [
        (Code::AppServerMissing, Disposition::Park),
        (Code::HostKeyUnknown, Disposition::Park),
        (Code::AppServerUnreachable, Disposition::Retry),
    ] {
        *world.apps.fails.lock().unwrap() = Some((code, how));
        world.work(Stage::Forward).await;
        let trouble = world.service().uplink(&agent.caller, sent.id).await.unwrap().trouble.unwrap();
        assert_eq!((trouble.code, trouble.stage, trouble.parked), (code, Stage::Forward, false));
        assert!(!trouble.detail.contains("connecting"), "no internals");
    }
    *world.apps.fails.lock().unwrap() = None;
    world.work(Stage::Forward).await;
    let status = world.service().uplink(&agent.caller, sent.id).await.unwrap();
    assert_eq!((status.state, status.trouble), (UplinkState::Forwarded, None));
}

#[tokio::test]
async fn every_stage_can_run_twice() {
    let world = World::new().await;
    let agent = world.enrol("acme", Role::Agent).await;
    let sent = Sent::new(&world, &agent, 1);
    sent.push(&world, &agent).await;
    world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    for stage in [Stage::Accept, Stage::Forward] {
        let (step, _) = world.relay.steps().into_iter().find(|(step, _)| step.stage() == stage).unwrap();
        let lease = world.journal.acquire(stage, 1, Duration::from_secs(60)).await.unwrap().remove(0);
        let first = step.step(&lease).await.unwrap();
        let scope = agent.caller.as_agent().unwrap();
        let receipt = world.relay.spool().receipt(&scope, sent.id, ReceiptStage::Accepted).unwrap();
        world.clock.advance(Duration::from_secs(5));
        world.files.power_loss();
        assert_eq!(step.step(&lease).await.unwrap(), first, "{stage}");
        assert_eq!(world.relay.spool().receipt(&scope, sent.id, ReceiptStage::Accepted).unwrap(), receipt, "signed once");
        world.record(&lease, &Ok(first)).await;
    }
}

#[tokio::test]
async fn a_kept_receipt_that_the_relay_has_not_signed_is_written_anew() {
    let world = World::new().await;
    let (agent, receiver) = (world.enrol("acme", Role::Agent).await, world.enrol("acme", Role::Receiver).await);
    let sent = Sent::new(&world, &agent, 1);
    sent.push(&world, &agent).await;
    world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    let lease = world.journal.acquire(Stage::Accept, 1, Duration::from_secs(60)).await.unwrap().remove(0);
    let (step, _) = world.relay.steps().into_iter().find(|(step, _)| step.stage() == Stage::Accept).unwrap();
    let (spool, scope) = (world.relay.spool(), agent.caller.as_agent().unwrap());
    step.step(&lease).await.unwrap();
    let kept = || spool.receipt(&scope, sent.id, ReceiptStage::Accepted).unwrap().unwrap();
    let first = kept();
    let foreign = receiver.identity.sign(Namespace::Receipt, first.receipt.as_bytes()).unwrap();
    for signature in [foreign, String::new()] {
        let forged = SignedReceipt { receipt: first.receipt.clone(), signature };
        spool.keep_receipt(&scope, sent.id, ReceiptStage::Accepted, &forged).unwrap();
        step.step(&lease).await.unwrap();
        let now = kept();
        let key = towpath_keys::PublicKey::try_from(world.receipt_key.public_line()).unwrap();
        towpath_keys::verify(now.signature.as_bytes(), Namespace::Receipt, now.receipt.as_bytes(), &key).unwrap();
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_open_the_folder_before_its_claim_is_kept() {
    let world = World::new().await;
    let agent = world.enrol("acme", Role::Agent).await;
    let sent = Sent::new(&world, &agent, 1);
    sent.push(&world, &agent).await;
    let scope = agent.caller.as_agent().unwrap();
    let frozen = world.relay.spool().freeze(&scope, sent.id).await;
    let mut call = Box::pin(world.service().complete(&agent.caller, sent.id, &sent.complete));
    assert!(futures::poll!(&mut call).is_pending());
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    drop(call);
    drop(frozen);
    // Whoever wants the folder next gets it when the claim is in the journal.
    let _next = world.relay.spool().freeze(&scope, sent.id).await;
    assert_eq!(world.journal.get(&scope.key(sent.id)).await.unwrap().unwrap().state.word(), "claimed");
}

#[tokio::test]
async fn an_agent_that_was_revoked_after_complete_is_not_accepted() {
    let world = World::new().await;
    let agent = world.enrol("acme", Role::Agent).await;
    let sent = Sent::new(&world, &agent, 1);
    sent.push(&world, &agent).await;
    world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    world.registry.revoke(agent.caller.scope(), agent.caller.name()).await.unwrap();
    assert_eq!(world.work(Stage::Accept).await.remove(0).unwrap_err().code(), Code::AgentRevoked);
}

#[tokio::test]
async fn a_receivers_landing_counts_unless_the_operator_has_said_otherwise() {
    let world = World::new().await;
    let key = world.identity().public_line().clone();
    let landing = |host: &str| Landing {
        host: host.to_owned(),
        port: 22,
        user: "relay".to_owned(),
        folder: "/".to_owned(),
        host_keys: vec![key.clone()],
    };
    let enrol = async |host: &str| {
        let (code, identity) = (world.code("acme", Role::Receiver).await, world.identity());
        let request = EnrolmentRequest { landing: Some(landing(host)), ..World::request(&code, &identity) };
        world.service().enrol(&request, None).await
    };
    enrol("first").await.unwrap();
    enrol("second").await.unwrap();
    let scope = world.registry.operator_scope(&"acme".parse().unwrap()).await.unwrap();
    assert_eq!(world.registry.landing(&scope).await.unwrap().unwrap().host, "second");
    world.registry.set_landing(&scope, &landing("operator")).await.unwrap();
    enrol("third").await.unwrap();
    assert_eq!(world.registry.landing(&scope).await.unwrap().unwrap().host, "operator");
    assert_eq!(code_of(enrol("no host")).await, Code::RequestInvalid);
    let (code, identity) = (world.code("acme", Role::Agent).await, world.identity());
    let request = EnrolmentRequest { landing: Some(landing("agent")), ..World::request(&code, &identity) };
    assert_eq!(code_of(world.service().enrol(&request, None)).await, Code::RequestInvalid, "an agent has none");
}

#[tokio::test]
async fn who_repeats_what_proves_a_key_moves_no_landing_and_a_revoked_receiver_has_none() {
    let world = World::new().await;
    let key = world.identity().public_line().clone();
    let landing = |host: &str| {
        let (host, user, folder) = (host.to_owned(), "relay".to_owned(), "/".to_owned());
        Some(Landing { host, port: 22, user, folder, host_keys: vec![key.clone()] })
    };
    let (code, identity) = (world.code("acme", Role::Receiver).await, world.identity());
    let scope = world.registry.operator_scope(&"acme".parse().unwrap()).await.unwrap();
    let host = async || world.registry.landing(&scope).await.unwrap().map(|landing| landing.host);
    let plain = World::request(&code, &identity);
    let enrol = async |landing: Option<Landing>| {
        let request = EnrolmentRequest { landing, ..plain.clone() };
        world.service().enrol(&request, None).await
    };
    // A receiver may say it later, as long as nobody has.
    enrol(None).await.unwrap();
    enrol(landing("its-own")).await.unwrap();
    enrol(landing("its-own")).await.unwrap();
    // Every agent of the tenant is told key and proof, and may have seen the code.
    assert_eq!(code_of(enrol(landing("thief"))).await, Code::EnrolmentUsed);
    assert_eq!(host().await.as_deref(), Some("its-own"));
    let first = enrol(None).await.unwrap();
    // Another receiver takes over, and the first is revoked.
    let (code, second) = (world.code("acme", Role::Receiver).await, world.identity());
    let request = EnrolmentRequest { landing: landing("new"), ..World::request(&code, &second) };
    let second = world.service().enrol(&request, None).await.unwrap();
    world.registry.revoke(&scope, &first.name).await.unwrap();
    assert_eq!(host().await.as_deref(), Some("new"));
    world.registry.revoke(&scope, &second.name).await.unwrap();
    assert_eq!(host().await, None, "nothing goes to the host of a receiver that was revoked");
    // What the operator has said is the operator's to change.
    world.registry.set_landing(&scope, &landing("operator").unwrap()).await.unwrap();
    world.registry.revoke(&scope, &second.name).await.unwrap();
    assert_eq!(host().await.as_deref(), Some("operator"));
}

#[tokio::test]
async fn the_calls_work_without_a_network() {
    let world = World::new().await;
    let agent = world.enrol("acme", Role::Agent).await;
    let api = LocalRelayApi::new(world.service().clone(), agent.caller.user(), agent.identity.public_line().clone());
    let sent = Sent::new(&world, &agent, 1);
    sent.push(&world, &agent).await;
    assert_eq!(api.complete(sent.id, &sent.complete).await.unwrap().state, UplinkState::Claimed);
    assert_eq!(api.uplink(sent.id).await.unwrap().state, UplinkState::Claimed);
    assert!(api.peers().await.unwrap().peers.is_empty());
    world.registry.revoke(agent.caller.scope(), agent.caller.name()).await.unwrap();
    assert_eq!(code_of(api.uplink(sent.id)).await, Code::AgentRevoked);
    assert_eq!(code_of(LocalRelayApi::anonymous(world.service().clone()).peers()).await, Code::AuthenticationRefused);
}

#[tokio::test]
async fn folders_that_are_never_completed_go_after_a_while() {
    let world = World::new().await;
    let agent = world.enrol("acme", Role::Agent).await;
    let (kept, left) = (Sent::new(&world, &agent, 1), world.id());
    kept.push(&world, &agent).await;
    world.service().complete(&agent.caller, kept.id, &kept.complete).await.unwrap();
    let view = world.view(&agent);
    view.make_dir(&path(left, ""), &SetAttributes::default()).await.unwrap();
    put(&view, left, "a.csv.bz2.part", b"some").await.unwrap();
    world.clock.advance(DAY * 13);
    world.relay.tidy().await.unwrap();
    assert!(view.stat(&path(left, "")).await.is_ok());
    world.clock.advance(DAY * 2);
    world.relay.tidy().await.unwrap();
    assert_eq!(view.stat(&path(left, "")).await, Err(FsError::NotFound));
    assert!(view.stat(&path(kept.id, "")).await.is_ok(), "what was completed stays");
}
