//! A receiver for tests: files, journal and relay in memory, the real import target in a temporary folder.

use std::{collections::BTreeMap, num::NonZeroUsize, path::PathBuf, sync::Arc};

use tempfile::TempDir;
use towpath_journal::{MemoryJournal, NoFailPoints};
use towpath_keys::{AllowedSigners, Identity, KeyKind, Namespace, sign_enrolment};
use towpath_transfer::{
    AgentName, Direction, Sequence, TransferId, TransferKey,
    api::{Peer, Role},
    clock::{ManualClock, SeededEntropy},
    codec::Packer,
    decimal::DecimalSum,
    digest::{FileHasher, Sha256Digest},
    manifest::{Column, Content, ControlTotal, Drift, FileEntry, MANIFEST_NAME, Manifest, Mode, SIGNATURE_NAME, SqlType, Table},
    md5sums,
    packed::{MD5SUMS_NAME, PACKED_NAME, PackedFile, PackedList},
    public_key::PublicKeyLine,
    state::Place,
};
use towpath_transport::{
    files::{FileStore, MemoryFiles, write_whole},
    relay_api::MemoryRelay,
};

use crate::{
    agents::{TrustPolicy, complete_pins},
    import::{ImportScope, Owner, SqliteTarget},
    layout::Layout,
    parts::{AGENT_NAMESPACES, FileTrust, Limits, Parts, TableFilter},
};

pub(crate) fn identity(seed: u64) -> Identity {
    Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(seed)).unwrap()
}

/// A receiver of `tenant` with the key of that seed.
pub(crate) fn owner(tenant: &str, seed: u64) -> Owner {
    Owner { tenant: tenant.parse().unwrap(), receiver: identity(seed).fingerprint() }
}

/// The relay's receipt key is the identity of this seed.
pub(crate) const RELAY_SEED: u64 = 8;

pub(crate) fn key_line(seed: u64) -> PublicKeyLine {
    identity(seed).public_line().clone()
}

pub(crate) fn peer(name: &str, identity: &Identity) -> Peer {
    let relay_url = "https://relay.test".to_owned();
    Peer {
        name: name.parse().unwrap(),
        role: Role::Agent,
        public_key: identity.public_line().clone(),
        secret_sha256: Sha256Digest::of(b"secret"),
        proof: sign_enrolment(identity, b"secret", &relay_url).unwrap(),
        relay_url,
        rotations: Vec::new(),
    }
}

pub(crate) fn id(n: u8) -> TransferId {
    format!("01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a{n:02x}").parse().unwrap()
}

/// What a file of a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Is {
    /// A table without a key. It is unchanged where it has a base.
    Whole,
    /// A table with the key `n`. It is unchanged where it has a base.
    Keyed,
    /// Changes of such a table.
    Changes,
    /// Its keys.
    Keys,
}

/// One file of a transfer's manifest.
#[derive(Clone)]
pub(crate) struct Plain {
    pub(crate) table: &'static str,
    pub(crate) csv: String,
    pub(crate) base: Option<TransferId>,
    pub(crate) is: Is,
    pub(crate) drift: Vec<Drift>,
}

impl Plain {
    fn name(&self) -> String {
        if self.is == Is::Keys { format!("{}.keys.csv", self.table) } else { format!("{}.csv", self.table) }
    }

    fn sent(&self) -> bool {
        self.base.is_none() || self.is == Is::Changes
    }
}

pub(crate) fn table(table: &'static str, csv: &str) -> Plain {
    Plain { table, csv: csv.to_owned(), base: None, is: Is::Whole, drift: Vec::new() }
}

/// A transfer to be built.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) agent: &'static str,
    pub(crate) job: &'static str,
    pub(crate) id: TransferId,
    pub(crate) sequence: u64,
    pub(crate) tables: Vec<Plain>,
}

pub(crate) const ITEMS: &str = "n,t\r\n1.50,a\r\n,\"\"\r\n2.25,\"x,\"\"y\"\r\n";

/// Transfer `n` of agent `erp`, job `main`, with the table `items`.
pub(crate) fn sent(n: u8) -> Sent {
    Sent { agent: "erp", job: "main", id: id(n), sequence: n.into(), tables: vec![table("items", ITEMS)] }
}

fn entry(plain: &Plain) -> FileEntry {
    let mut hasher = FileHasher::new();
    hasher.update(plain.csv.as_bytes());
    let found = hasher.finish();
    let mut sum = DecimalSum::new();
    let mut rows = 0;
    for line in plain.csv.split("\r\n").skip(1).filter(|line| !line.is_empty()) {
        rows += 1;
        let number = line.split(',').next().unwrap();
        if !number.is_empty() {
            sum.add_str(number).unwrap();
        }
    }
    let keyed = plain.is != Is::Whole;
    let column = |name: &str, sql_type| Column { name: name.parse().unwrap(), sql_type, nullable: !keyed || name == "t" };
    let totals = vec![ControlTotal { column: "n".parse().unwrap(), count: sum.count(), sum: sum.finish() }];
    let mut columns = vec![column("n", SqlType::Decimal { precision: 12, scale: 2 }), column("t", SqlType::Text)];
    if plain.is == Is::Keys {
        columns.truncate(1);
    }
    let table = Table {
        mode: if plain.is == Is::Changes { Mode::Merge } else { Mode::Replace },
        key: if keyed { vec!["n".parse().unwrap()] } else { Vec::new() },
        drift: plain.drift.clone(),
        ..Table::whole(plain.table.parse().unwrap(), columns, rows, totals)
    };
    let content = if plain.is == Is::Keys { Content::Keys(table) } else { Content::Table(table) };
    FileEntry {
        name: plain.name().parse().unwrap(),
        media_type: "text/csv".into(),
        size: found.size,
        md5: found.md5,
        sha256: found.sha256,
        unchanged: !plain.sent(),
        base: plain.base,
        content,
    }
}

pub(crate) fn manifest(sent: &Sent) -> Manifest {
    Manifest {
        version: 1,
        transfer: sent.id,
        direction: Direction::Uplink,
        tenant: "acme".parse().unwrap(),
        agent: sent.agent.parse().unwrap(),
        job: sent.job.parse().unwrap(),
        created: "2026-01-02T03:04:05Z".parse().unwrap(),
        sequence: Sequence(sent.sequence),
        snapshot: None,
        kind: None,
        files: sent.tables.iter().map(entry).collect(),
    }
}

pub(crate) type Folder = BTreeMap<String, Vec<u8>>;

/// The files of a transfer, as its agent writes them.
pub(crate) fn folder(sent: &Sent, signer: &Identity) -> Folder {
    sealed(&manifest(sent), &sent.tables, signer)
}

/// As [`folder`], for a manifest that may lie about the tables.
pub(crate) fn sealed(manifest: &Manifest, tables: &[Plain], signer: &Identity) -> Folder {
    let mut folder = Folder::new();
    let mut listed = Vec::new();
    for plain in tables.iter().filter(|plain| plain.sent()) {
        let mut packer = Packer::new(Vec::new(), NonZeroUsize::MIN).unwrap();
        std::io::Write::write_all(&mut packer, plain.csv.as_bytes()).unwrap();
        let (bytes, digests) = packer.finish().unwrap();
        let name = format!("{}.bz2", plain.name());
        listed.push(PackedFile { name: name.parse().unwrap(), size: digests.size, sha256: digests.sha256 });
        folder.insert(name, bytes);
    }
    let bytes = manifest.to_bytes().unwrap();
    let packed = PackedList { version: 1, transfer: manifest.transfer, manifest: Sha256Digest::of(&bytes), files: listed };
    let sums = md5sums::write(manifest.sent_files().map(|file| (&file.md5, &file.name))).unwrap();
    folder.insert(MD5SUMS_NAME.into(), sums.into_bytes());
    folder.insert(PACKED_NAME.into(), packed.to_bytes().unwrap());
    folder.insert(SIGNATURE_NAME.into(), signer.sign(Namespace::Manifest, &bytes).unwrap().into_bytes());
    folder.insert(MANIFEST_NAME.into(), bytes);
    folder
}

/// A receiver of tenant `acme` with the approved agent `erp`.
pub(crate) struct Bench {
    pub(crate) temp: TempDir,
    pub(crate) clock: ManualClock,
    pub(crate) files: Arc<MemoryFiles>,
    pub(crate) relay: MemoryRelay,
    pub(crate) target: SqliteTarget,
    pub(crate) erp: Identity,
    pub(crate) parts: Arc<Parts>,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Parts)) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let clock = ManualClock::new("2026-01-02T03:04:05Z".parse().unwrap());
        let files = Arc::new(MemoryFiles::with_clock(Arc::new(clock.clone())));
        let relay = MemoryRelay::new();
        let target = SqliteTarget::new(temp.path().join("import"), owner("acme", 99));
        let erp = identity(1);
        let signers = temp.path().join("allowed_signers");
        AllowedSigners::load(&signers).unwrap().add("erp", &AGENT_NAMESPACES, erp.public_key()).unwrap();
        complete_pins(&signers, identity(RELAY_SEED).public_line()).unwrap();
        let entropy = Arc::new(SeededEntropy::new(5));
        let layout = Layout::new("/state");
        files.create_dir_all(&layout.landing().join("uplink")).unwrap();
        let mut parts = Parts {
            layout,
            files: files.clone(),
            journal: Arc::new(MemoryJournal::new(Place::Receiver, Arc::new(clock.clone()), entropy.clone())),
            relay: Arc::new(relay.clone()),
            target: Arc::new(target.clone()),
            trust: Arc::new(FileTrust(signers)),
            policy: TrustPolicy::Approve,
            identity: identity(99),
            name: "app".parse().unwrap(),
            exports: Vec::new(),
            tenant: "acme".parse().unwrap(),
            tables: TableFilter::All,
            limits: Limits::default(),
            clock: Arc::new(clock.clone()),
            entropy,
            fail_points: Arc::new(NoFailPoints),
        };
        change(&mut parts);
        Self { temp, clock, files, relay, target, erp, parts: Arc::new(parts) }
    }

    /// The same state under other parts, as after a restart.
    pub(crate) fn parts_with(&self, change: impl FnOnce(&mut Parts)) -> Arc<Parts> {
        let of = &self.parts;
        let mut parts = Parts {
            layout: of.layout.clone(),
            files: of.files.clone(),
            journal: of.journal.clone(),
            relay: of.relay.clone(),
            target: of.target.clone(),
            trust: of.trust.clone(),
            policy: of.policy,
            identity: of.identity.clone(),
            name: of.name.clone(),
            exports: of.exports.clone(),
            tenant: of.tenant.clone(),
            tables: of.tables.clone(),
            limits: of.limits,
            clock: of.clock.clone(),
            entropy: of.entropy.clone(),
            fail_points: of.fail_points.clone(),
        };
        change(&mut parts);
        Arc::new(parts)
    }

    pub(crate) fn key(agent: &str, id: TransferId) -> TransferKey {
        TransferKey { tenant: "acme".parse().unwrap(), agent: agent.parse().unwrap(), id }
    }

    /// Puts files where the relay's transfers land, the manifest last.
    pub(crate) fn land(&self, agent: &str, id: TransferId, folder: &Folder) {
        let to = self.parts.layout.landed(&Self::key(agent, id));
        self.files.create_dir_all(&to).unwrap();
        for (name, bytes) in folder.iter().filter(|(name, _)| *name != MANIFEST_NAME) {
            write_whole(&*self.files, &to.join(name), bytes).unwrap();
        }
        if let Some(bytes) = folder.get(MANIFEST_NAME) {
            write_whole(&*self.files, &to.join(MANIFEST_NAME), bytes).unwrap();
        }
    }

    pub(crate) fn database(&self, agent: &str, job: &str) -> PathBuf {
        self.target.path(&ImportScope { agent: agent.parse::<AgentName>().unwrap(), job: job.parse().unwrap() })
    }

    /// The one column of a query in an app database.
    pub(crate) async fn query(&self, agent: &str, job: &str, sql: &'static str) -> Vec<String> {
        crate::import::query_texts(&self.database(agent, job), sql).await
    }
}
