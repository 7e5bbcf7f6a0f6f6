//! The app server.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use towpath_journal::{DriverSettings, FailPoints, Journal as _, TransferRecord};
use towpath_keys::{Identity, KeyKind};
use towpath_receiver::{
    agents::{self, Approval, TrustPolicy},
    downlink::take::{self, Request, Source},
    enrolment::{Enrolment, enrol},
    import::{ImportScope, Owner, SqliteTarget},
    landing::{Landing, LandingLimits, LandingView},
    layout::Layout,
    parts::{FileTrust, Limits, Parts, TableFilter},
    restored::{self, Lacking},
    service::{SHUTDOWN_GRACE, Service, ServiceSettings},
};
use towpath_relay::service::LocalRelayApi;
use towpath_transfer::{
    AgentName, Failure, FileName, RemotePath, TransferId, TransferKey,
    api::EnrolmentCode,
    manifest::MANIFEST_NAME,
    public_key::Fingerprint,
    receipt::{ReceiptStage, SignedReceipt},
    state::Place,
};
use towpath_transport::{
    files::{FileStore as _, file_failure, write_whole},
    relay_api::RelayApi,
    store::{BytesSource, NoProgress, RemoteStore as _},
};

use super::{
    agent::KIND,
    door::{Caller, Callers, Door, Line, RelayDoor},
    far::ViewStore,
    machine::{Machine, Nature},
    wiring::Host,
};
use crate::JOB;

/// An app server with its receiver. Its app databases are real files, and so are its pins.
#[derive(Debug)]
pub struct Receiver {
    /// The machine.
    pub machine: Machine,
    /// The landing while it runs.
    pub landing: Door<Arc<Landing>>,
    /// The receiver's key.
    pub identity: Identity,
    /// What enrolment has told.
    pub enrolment: Enrolment,
    layout: Layout,
    target: SqliteTarget,
    pins: PathBuf,
    parts: Option<Arc<Parts>>,
}

impl Receiver {
    /// Enrols a receiver. `folder` keeps its pins and databases, and `landing` is where the relay finds it.
    ///
    /// # Panics
    /// Where that fails.
    pub async fn enrolled(
        nature: &Nature,
        relay: &LocalRelayApi,
        code: &EnrolmentCode,
        folder: &Path,
        landing: Door<Arc<Landing>>,
    ) -> Self {
        let machine = Machine::new(Host { place: Place::Receiver, tenant: Some(code.tenant.clone()) }, nature);
        let identity = Identity::generate(KeyKind::Ed25519, &*nature.entropy).unwrap();
        let layout = Layout::new("/receiver");
        machine.disk.create_dir_all(layout.state()).unwrap();
        let enrolled = enrol(code, &identity, None, relay, &machine.disk, &layout.enrolment()).await;
        let enrolment = enrolled.unwrap().0;
        let owner = Owner { tenant: enrolment.tenant.clone(), receiver: identity.fingerprint() };
        let (target, pins) = (SqliteTarget::new(folder.join("import"), owner), folder.join("receiver_signers"));
        Self { machine, landing, identity, enrolment, layout, target, pins, parts: None }
    }

    /// Who the receiver is to the relay.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller { user: self.enrolment.sftp_user.clone(), key: self.identity.public_line().clone() }
    }

    /// The relay's calls as this receiver makes them, each so many times.
    #[must_use]
    pub fn line(&self, door: &RelayDoor, times: usize) -> Arc<dyn RelayApi> {
        Arc::new(Line::by_hand(&self.machine, door, self.caller(), times))
    }

    /// The receiver's operator approves an agent.
    ///
    /// # Panics
    /// Where the relay names no such agent.
    pub async fn approve(&self, door: &RelayDoor, agent: &Fingerprint) {
        self.try_approve(door, agent).await.unwrap();
    }

    /// The receiver's operator approves an agent, where that succeeds.
    ///
    /// # Errors
    /// Those of [`agents::approve`].
    pub async fn try_approve(&self, door: &RelayDoor, agent: &Fingerprint) -> Result<(), Failure> {
        let line = self.line(door, 1);
        agents::approve(&*line, &self.pins, agent, &self.enrolment.tenant, Approval::WithEarlier).await.map(|_| ())
    }

    /// The receiver's operator takes every key of an agent from those that are believed.
    ///
    /// # Panics
    /// Where the pins cannot be written.
    pub fn disapprove(&self, agent: &AgentName) {
        agents::remove(&self.pins, agent).unwrap();
    }

    /// Starts the program.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start(&mut self, door: &RelayDoor, times: usize, fail_points: Arc<dyn FailPoints>) {
        self.try_start(door, times, fail_points).await.unwrap();
    }

    /// Starts the program.
    ///
    /// # Errors
    /// Where its disk does not let it start.
    ///
    /// # Panics
    /// Where its pins are damaged.
    pub async fn try_start(&mut self, door: &RelayDoor, times: usize, fail_points: Arc<dyn FailPoints>) -> Result<(), Failure> {
        let start = self.machine.switch_on().await;
        let (nature, host) = (&self.machine.nature, &self.machine.host);
        agents::complete_pins(&self.pins, &self.enrolment.receipt_key).unwrap();
        let caller = self.caller();
        let callers: Callers = Arc::new(move || caller.clone());
        let parts = Arc::new(Parts {
            layout: self.layout.clone(),
            files: start.files.clone(),
            journal: Arc::clone(&start.journal),
            relay: Arc::new(Line::of_a_life(&self.machine, door, callers, times, &start.life)),
            target: nature.wiring.target(host, &start.life, Arc::new(self.target.clone())),
            trust: nature.wiring.trust(host, Arc::new(FileTrust(self.pins.clone()))),
            policy: TrustPolicy::Approve,
            identity: self.identity.clone(),
            tenant: self.enrolment.tenant.clone(),
            name: self.enrolment.name.clone(),
            tables: TableFilter::All,
            exports: Vec::new(),
            limits: Limits::default(),
            clock: Arc::clone(&nature.clock),
            entropy: Arc::clone(&nature.entropy),
            fail_points,
        });
        self.parts = Some(Arc::clone(&parts));
        let arrived = Arc::new(Notify::new());
        let landing = Landing::new(start.files.clone(), self.layout.clone(), LandingLimits::default(), Arc::clone(&arrived));
        landing.prepare().map_err(|error| file_failure("preparing", self.layout.state(), error))?;
        self.landing.offer(Arc::new(landing), start.life.clone());
        let drivers = DriverSettings { shutdown_grace: SHUTDOWN_GRACE, ..nature.pace.drivers };
        let settings = ServiceSettings { scan: nature.pace.scan, compare: nature.pace.compare, drivers };
        let service = Service::new(parts, settings, start.busy.clone(), arrived);
        self.machine.run(&start, service.run(CancellationToken::new()));
        Ok(())
    }

    /// Sends a return file to an agent, as `send` does.
    ///
    /// # Panics
    /// Where it is not taken.
    pub async fn send(&self, agent: &AgentName, name: &str, content: &[u8]) -> TransferId {
        let (id, sent) = self.try_send(agent, name, content).await;
        sent.unwrap();
        id
    }

    /// Sends a return file to an agent, as `send` does. Where it fails, the transfer may have been taken all the same, unless the disk
    /// was too full for the app to write the file: then nobody has heard of it.
    ///
    /// # Panics
    /// Where the outbox cannot be used for another reason, or the receiver was never started.
    pub async fn try_send(&self, agent: &AgentName, name: &str, content: &[u8]) -> (TransferId, Result<(), Failure>) {
        let parts = self.parts.as_ref().expect("the receiver was started");
        let (path, name) = (Path::new("/outbox").join(name), name.parse::<FileName>().unwrap());
        let id = TransferId::new(&*self.machine.nature.clock, &*self.machine.nature.entropy);
        let outbox = self.machine.disk.create_dir_all("/outbox".as_ref());
        match outbox.and_then(|()| write_whole(&self.machine.disk, &path, content)) {
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                return (id, Err(file_failure("the app writes", &path, error)));
            }
            written => written.unwrap(),
        }
        let request = Request {
            version: 1,
            agent: agent.clone(),
            kind: KIND.parse().unwrap(),
            job: JOB.parse().unwrap(),
            taken: self.machine.nature.clock.now(),
            files: vec![name.clone()],
        };
        let taken = take::take(parts, id, &request, &[Source { name, path: path.clone() }]);
        let sent = match taken {
            Ok(()) => take::note(parts, id, &request).await.map(|_| ()),
            Err(failure) => Err(failure),
        };
        // The file was the app's own, and none of these tests looks for it.
        self.machine.disk.remove(&path).unwrap();
        self.machine.disk.sync_dir("/outbox".as_ref()).unwrap();
        (id, sent)
    }

    /// Whether any copy of a return file is left here.
    #[must_use]
    pub fn has_export(&self, key: &TransferKey) -> bool {
        [self.layout.export(key), self.layout.laid_out(key)].iter().any(|path| self.machine.disk.stat(path).is_ok())
    }

    /// Puts files onto the landing as the relay does, the manifest last.
    ///
    /// # Panics
    /// Where the landing refuses.
    pub async fn land(&self, key: &TransferKey, files: &[(String, Vec<u8>)]) {
        let (landing, life) = self.landing.open().expect("the receiver is on");
        let store = ViewStore::new(Arc::new(LandingView::new(landing)), life);
        let folder: RemotePath = format!("/uplink/{}/{}", key.agent, key.id).parse().unwrap();
        store.make_dir_all(&folder).await.unwrap();
        let is_manifest = |name: &str| name == MANIFEST_NAME;
        let (last, first): (Vec<_>, Vec<_>) = files.iter().partition(|(name, _)| is_manifest(name));
        for (name, bytes) in first.into_iter().chain(last) {
            let at = |name: &str| folder.clone().join(name.parse().unwrap()).unwrap();
            let (part, whole) = (at(&format!("{name}.part")), at(name));
            store.put_new(&part, BytesSource::new(bytes.clone()), &NoProgress).await.unwrap();
            store.publish(&part, &whole).await.unwrap();
        }
    }

    /// The app databases that are known here to lack what was imported.
    ///
    /// # Panics
    /// Where the notes cannot be read.
    #[must_use]
    pub fn lacking(&self) -> Vec<Lacking> {
        restored::known(&self.machine.disk, &self.layout).unwrap()
    }

    /// Whether anything of a transfer lies on the landing.
    #[must_use]
    pub fn has_landed(&self, key: &TransferKey) -> bool {
        self.machine.disk.stat(&self.layout.landed(key)).is_ok()
    }

    /// Where a transfer stands here, where it is known.
    ///
    /// # Panics
    /// Never: a journal in memory can be read.
    pub async fn record(&self, key: &TransferKey) -> Option<TransferRecord> {
        self.machine.journal.get(key).await.unwrap()
    }

    /// A receipt that the receiver has signed.
    #[must_use]
    pub fn receipt(&self, key: &TransferKey, stage: ReceiptStage) -> Option<Vec<u8>> {
        super::read(&self.machine.disk, &self.layout.receipts(key).join(format!("{}.json", stage.as_str())))
    }

    /// A receipt with its signature.
    ///
    /// # Panics
    /// Where one of them is missing.
    #[must_use]
    pub fn signed(&self, key: &TransferKey, stage: ReceiptStage) -> SignedReceipt {
        let at = |suffix: &str| self.layout.receipts(key).join(format!("{}.json{suffix}", stage.as_str()));
        let text = |suffix| String::from_utf8(super::read(&self.machine.disk, &at(suffix)).unwrap()).unwrap();
        SignedReceipt { receipt: text(""), signature: text(".sig") }
    }

    /// The app database of an agent.
    ///
    /// # Panics
    /// Never: the job's name is one.
    #[must_use]
    pub fn database(&self, agent: &AgentName) -> PathBuf {
        self.target.path(&ImportScope { agent: agent.clone(), job: JOB.parse().unwrap() })
    }
}
