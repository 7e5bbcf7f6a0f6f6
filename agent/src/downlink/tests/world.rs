//! Return files on a relay in memory, an ERP that takes them, and an action that counts.

use std::{
    collections::BTreeMap,
    io::Write as _,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use towpath_journal::{FailPoints, NoFailPoints, Point, TransferRecord};
use towpath_keys::{Identity, Namespace};
use towpath_transfer::{
    Code, Direction, Failure, Sequence, Stage, TransferId, TransferKey,
    api::Offer,
    clock::SeededEntropy,
    codec::Packer,
    digest::{FileHasher, Sha256Digest},
    failure::Result,
    manifest::{Content, FileEntry, Manifest},
    md5sums,
    packed::{PackedFile, PackedList},
    state::{Identity as Named, Place},
};
use towpath_transport::files::{FileStore as _, read_whole, write_whole};

use crate::{
    config::{ActionConfig, Config},
    downlink::{
        action::{ActionOf, Actions},
        poll,
    },
    uplink::tests::world::{CONFIG, World},
};

/// The ERP's folder.
pub(crate) const FOLDER: &str = "/erp/in";

pub(crate) const DELIVERY: &str =
    "[[delivery]]\nkind = \"recommended-orders\"\nfolder = \"/erp/in\"\n[delivery.run]\nprogram = \"import\"\n";

/// An agent with a delivery folder.
pub(crate) struct Returns {
    pub(crate) world: World,
    pub(crate) actions: Arc<CountedActions>,
    offers: Mutex<Vec<Offer>>,
    /// What the ERP has taken away: each name with its bytes, as often as it was there.
    taken: Mutex<Vec<(String, Vec<u8>)>>,
}

/// What a transfer is made of, before a test changes it.
pub(crate) struct Sent {
    pub(crate) manifest: Manifest,
    pub(crate) signer: Option<Identity>,
    /// The packed bytes of each file.
    pub(crate) packed: BTreeMap<String, Vec<u8>>,
    /// What is changed of the packed list.
    pub(crate) listed: fn(&mut PackedList),
}

impl Returns {
    pub(crate) fn new() -> Self {
        Self::with(DELIVERY)
    }

    pub(crate) fn with(deliveries: &str) -> Self {
        let mut world = World::new();
        let actions = Arc::new(CountedActions::default());
        world.parts.actions = actions.clone();
        world.files.create_dir_all(Path::new(FOLDER)).unwrap();
        let returns = Self { world, actions, offers: Mutex::default(), taken: Mutex::default() };
        returns.configured(deliveries)
    }

    pub(crate) fn configured(mut self, deliveries: &str) -> Self {
        self.configure(deliveries);
        self
    }

    /// Starts with another configuration.
    pub(crate) fn configure(&mut self, deliveries: &str) {
        let config = Config::parse(&format!("{CONFIG}{deliveries}"), Path::new("/etc/agent.toml")).unwrap();
        self.world.parts.config = crate::config::SharedConfig::new(config);
    }

    /// A transfer as the receiver and the relay make it.
    pub(crate) fn sent(&self, number: u64, files: &[(&str, &[u8])]) -> Sent {
        let parts = &self.world.parts;
        let id = TransferId::new(&self.world.clock, &SeededEntropy::new(1_000 + number));
        let entry = |(name, bytes): &(&str, &[u8])| {
            let mut hasher = FileHasher::new();
            hasher.update(bytes);
            let digests = hasher.finish();
            FileEntry {
                name: name.parse().unwrap(),
                media_type: "text/csv".into(),
                size: digests.size,
                md5: digests.md5,
                sha256: digests.sha256,
                unchanged: false,
                base: None,
                content: Content::File,
            }
        };
        let manifest = Manifest {
            version: 1,
            transfer: id,
            direction: Direction::Downlink,
            tenant: parts.tenant.clone(),
            agent: parts.agent.clone(),
            job: "main".parse().unwrap(),
            kind: Some("recommended-orders".parse().unwrap()),
            created: self.world.parts.clock.now(),
            sequence: Sequence(number),
            snapshot: None,
            files: files.iter().map(entry).collect(),
        };
        let packed = files.iter().map(|(name, bytes)| (format!("{name}.bz2"), packed(bytes))).collect();
        Sent { manifest, signer: None, packed, listed: |_| {} }
    }

    /// Puts it on the relay and offers it.
    pub(crate) fn offer(&self, sent: &Sent) -> TransferId {
        let id = sent.manifest.transfer;
        let bytes = serde_json::to_vec_pretty(&sent.manifest).unwrap();
        let digest = Sha256Digest::of(&bytes);
        let signer = sent.signer.as_ref().unwrap_or(&self.world.far.receiver_key);
        let files = sent.manifest.files.iter().map(|entry| {
            let name = format!("{}.bz2", entry.name);
            let bytes = &sent.packed[&name];
            PackedFile { name: name.parse().unwrap(), size: bytes.len() as u64, sha256: Sha256Digest::of(bytes) }
        });
        let mut list = PackedList { version: 1, transfer: id, manifest: digest, files: files.collect() };
        (sent.listed)(&mut list);
        let list = list.to_bytes().unwrap();
        let sums = md5sums::write(sent.manifest.files.iter().map(|file| (&file.md5, &file.name))).unwrap();
        self.put(id, "MD5SUMS", sums.as_bytes());
        self.put(id, "packed.json", &list);
        self.put(id, "manifest.json.sig", signer.sign(Namespace::Manifest, &bytes).unwrap().as_bytes());
        for (name, bytes) in &sent.packed {
            self.put(id, name, bytes);
        }
        self.put(id, "manifest.json", &bytes);
        let identity = Named { manifest: digest, packed: Sha256Digest::of(&list) };
        self.offers.lock().unwrap().push(Offer { transfer: id, sequence: sent.manifest.sequence, identity });
        self.world.far.downlinks.set_offers(self.offers());
        id
    }

    /// Two files, offered and taken into the journal.
    pub(crate) async fn orders(&self) -> TransferId {
        let id = self.offer(&self.sent(1, &[("orders.csv", b"item\r\n1\r\n"), ("notes.txt", b"by hand")]));
        self.take().await;
        id
    }

    pub(crate) fn offers(&self) -> Vec<Offer> {
        self.offers.lock().unwrap().clone()
    }

    pub(crate) async fn take(&self) -> poll::Taken {
        poll::take(&self.world.parts, &self.offers()).await.unwrap()
    }

    pub(crate) fn far_file(&self, id: TransferId, name: &str) -> PathBuf {
        Path::new("/relay/downlink").join(id.to_string()).join(name)
    }

    pub(crate) fn put(&self, id: TransferId, name: &str, bytes: &[u8]) {
        let path = self.far_file(id, name);
        self.world.far.files.create_dir_all(path.parent().unwrap()).unwrap();
        write_whole(&*self.world.far.files, &path, bytes).unwrap();
    }

    /// What lies in the delivery folder under names that are shown.
    pub(crate) fn delivered(&self) -> Vec<(String, Vec<u8>)> {
        self.in_folder(FOLDER)
    }

    pub(crate) fn in_folder(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
        let files = &self.world.files;
        let entries = files.list(Path::new(folder), None, 1_000).unwrap();
        let shown = entries.into_iter().filter(|entry| !entry.name.starts_with('.'));
        shown
            .map(|entry| (entry.name.clone(), read_whole(&**files, &Path::new(folder).join(entry.name), 100_000).unwrap()))
            .collect()
    }

    /// The ERP takes everything away that it sees.
    pub(crate) fn erp_takes(&self) {
        for (name, bytes) in self.delivered() {
            self.world.files.remove(&Path::new(FOLDER).join(&name)).unwrap();
            self.taken.lock().unwrap().push((name, bytes));
        }
        self.world.files.sync_dir(Path::new(FOLDER)).unwrap();
    }

    /// Everything the ERP ever had, sorted.
    pub(crate) fn ever_delivered(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = self.taken.lock().unwrap().clone();
        all.extend(self.delivered());
        all.sort();
        all
    }

    /// Drives until the point is reached for the `nth` time, and stops everything where it stands.
    pub(crate) async fn stop_at(&mut self, id: TransferId, stage: Stage, point: Point, nth: u32) {
        let reached = Arc::new(AtomicBool::new(false));
        let left = AtomicU32::new(nth);
        self.world.parts.fail_points = Arc::new(StopAtNth { stage, point, left, reached: reached.clone() });
        self.world.drive(id, |_| reached.load(Ordering::SeqCst)).await;
        self.world.parts.fail_points = Arc::new(NoFailPoints);
    }

    /// Drives until a try has failed, and says why.
    pub(crate) async fn failed(&self, id: TransferId) -> (Code, bool) {
        let record = self.world.drive(id, |record| record.last_failure.is_some()).await;
        (record.last_failure.unwrap().code, record.parked)
    }

    /// Makes a transfer due now.
    pub(crate) async fn retry(&self, id: TransferId) -> TransferRecord {
        self.world.parts.journal.unpark(&self.world.parts.key(id)).await.unwrap();
        self.world.finish(id).await
    }
}

pub(crate) fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = Packer::new(Vec::new(), NonZeroUsize::MIN).unwrap();
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap().0
}

struct StopAtNth {
    stage: Stage,
    point: Point,
    left: AtomicU32,
    reached: Arc<AtomicBool>,
}

#[async_trait]
impl FailPoints for StopAtNth {
    async fn hit(&self, _: Place, stage: Stage, point: Point, _: &TransferKey) {
        if (stage, point) == (self.stage, self.point) && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.reached.store(true, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
    }
}

/// An action that fails as often as it is told, and counts what it is asked for.
#[derive(Debug, Default)]
pub(crate) struct CountedActions {
    pub(crate) asked: Mutex<Vec<(TransferId, Vec<PathBuf>)>>,
    pub(crate) failures: AtomicU32,
}

#[async_trait]
impl Actions for CountedActions {
    async fn act(&self, action: &ActionConfig, of: &ActionOf) -> Result<()> {
        assert!(matches!(action, ActionConfig::Run(_)));
        let files = of.files.iter().map(|file| file.delivered.clone()).collect();
        self.asked.lock().unwrap().push((of.transfer, files));
        if self.failures.load(Ordering::SeqCst) > 0 {
            self.failures.fetch_sub(1, Ordering::SeqCst);
            return Err(Failure::retry(Code::ActionFailed, "the program import ended with exit status: 3"));
        }
        Ok(())
    }
}
