//! Programs that do something wrong on purpose, to prove that the oracle sees it.

mod journal;

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Write as _},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use towpath_agent::key_files::KeyFiles;
use towpath_journal::{Journal, NewTransfer};
use towpath_keys::{AllowedSigners, Identity, KeyKind, PublicKey};
use towpath_receiver::{
    import::{Import, ImportRecord, ImportScope, ImportTarget, Ledger, OldRows, RowBatch, TableState},
    parts::Trust,
};
use towpath_relay::{
    scope::TenantScope,
    uplink::forward::{AppServer, AppServers},
};
use towpath_testkit::seams::{DELIVERY, Host};
use towpath_transfer::{
    AgentName, Clock, Code, Entropy, TransferId,
    clock::{SeededEntropy, Sleep},
    digest::Sha256Digest,
    failure::Result,
    manifest::{Label, Table},
    state::Place,
};
use towpath_transport::files::{FileEntry, FileStat, FileStore, FolderWalk, ReadFile, WriteFile, read_whole, write_whole};

/// The longest file that is copied, in bytes.
const MOST: u64 = 1 << 20;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Half of a return file is visible to the ERP before the whole is there.
    PublishesHalf,
    /// The ERP finds every return file twice.
    DeliversTwice,
    /// A receiver says that an import is done and undoes it.
    ForgetsImports,
    /// A receiver imports rows without their last one.
    LosesRows,
    /// The relay hands the files of a tenant to the app server of another.
    CrossesTenants,
    /// The relay removes nothing.
    KeepsEverything,
    /// The agent's receipts do not survive.
    LosesReceipts,
    /// The relay closes nothing that it has read.
    KeepsFilesOpen,
    /// The relay begins something with each file that it reads, and never ends it.
    KeepsTasks,
    /// What the receiver lays out never becomes visible.
    StandsStill,
    /// The agent signs with a key that nobody was told of, once it has changed its own.
    SignsAsStranger,
    /// The agent does not keep the key that it has changed to.
    LosesKeys,
    /// The relay's clock is too slow to retire a key.
    KeepsOldKeys,
    /// The relay lets in whom it was told to shut out.
    IgnoresRevocations,
    /// The relay takes an agent's first transfer and tells the agent that another one has its number.
    TakesAndRefuses,
    /// A receiver does not know at first that its agent is approved.
    ForgetsApprovals,
    /// A receiver's journal has the newest event of no transfer, though it has the state that it led to.
    LosesEvents,
    /// A receiver notes as well what the receiver of another tenant has noted.
    NotesOfOthers,
    /// A receiver never gives back what it has taken to work on.
    KeepsLeases,
}

/// So often a receiver that forgets whom it trusts has forgotten it.
const FORGETS: usize = 3;

/// Files that are kept open, whatever becomes of the program.
#[derive(Clone, Default)]
struct Open(Arc<Mutex<Vec<Box<dyn ReadFile>>>>);

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Open")
    }
}

/// One wrong thing in every program of its kind.
#[derive(Debug, Clone)]
pub struct Broken {
    what: Wrong,
    last: Arc<Mutex<Option<AppServer>>>,
    open: Open,
    refused: Arc<Mutex<BTreeSet<Host>>>,
    noted: Arc<Mutex<Vec<NewTransfer>>>,
}

impl Broken {
    /// An installation in which this is wrong.
    #[must_use]
    pub fn new(what: Wrong) -> Self {
        Self { what, last: Arc::default(), open: Open::default(), refused: Arc::default(), noted: Arc::default() }
    }

    pub(crate) fn files(&self, host: &Host, files: Arc<dyn FileStore>) -> Arc<dyn FileStore> {
        let concerns = match self.what {
            Wrong::PublishesHalf | Wrong::DeliversTwice | Wrong::LosesReceipts => host.place == Place::Agent,
            Wrong::KeepsEverything | Wrong::KeepsFilesOpen | Wrong::KeepsTasks => host.place == Place::Relay,
            Wrong::StandsStill => host.place == Place::Receiver,
            _ => false,
        };
        if concerns { Arc::new(Files { inner: files, what: self.what, open: self.open.clone() }) } else { files }
    }

    pub(crate) fn journal(&self, host: &Host, journal: Arc<dyn Journal>) -> Arc<dyn Journal> {
        match self.what {
            Wrong::LosesEvents | Wrong::NotesOfOthers | Wrong::KeepsLeases if host.place == Place::Receiver => {
                Arc::new(journal::Broken { inner: journal, what: self.what, noted: Arc::clone(&self.noted) })
            }
            _ => journal,
        }
    }

    pub(crate) fn keys(&self, keys: Arc<dyn KeyFiles>) -> Arc<dyn KeyFiles> {
        match self.what {
            Wrong::SignsAsStranger | Wrong::LosesKeys => Arc::new(Keys { inner: keys, what: self.what, changed: Arc::default() }),
            _ => keys,
        }
    }

    pub(crate) fn clock(&self, host: &Host, clock: Arc<dyn Clock>) -> Arc<dyn Clock> {
        match (self.what, host.place) {
            (Wrong::KeepsOldKeys, Place::Relay) => Arc::new(SlowClock { first: clock.now(), inner: clock }),
            _ => clock,
        }
    }

    /// What an agent is told though the relay has done what it was asked for.
    pub(crate) fn refusal(&self, host: &Host, call: &str) -> Option<Code> {
        let lies = self.what == Wrong::TakesAndRefuses && host.place == Place::Agent && call == "complete";
        (lies && self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone())).then_some(Code::SequenceForked)
    }

    pub(crate) fn trust(&self, trust: Arc<dyn Trust>) -> Arc<dyn Trust> {
        match self.what {
            Wrong::ForgetsApprovals => Arc::new(Forgetful { inner: trust, asked: AtomicUsize::new(0) }),
            _ => trust,
        }
    }

    pub(crate) fn ignores_revocations(&self) -> bool {
        self.what == Wrong::IgnoresRevocations
    }

    pub(crate) fn app_servers(&self, servers: Arc<dyn AppServers>) -> Arc<dyn AppServers> {
        match self.what {
            Wrong::CrossesTenants => Arc::new(Crossing { inner: servers, broken: self.clone() }),
            _ => servers,
        }
    }

    pub(crate) fn target(&self, target: Arc<dyn ImportTarget>) -> Arc<dyn ImportTarget> {
        match self.what {
            Wrong::ForgetsImports | Wrong::LosesRows => Arc::new(Target { inner: target, what: self.what }),
            _ => target,
        }
    }
}

/// Files that do not do what they are told.
#[derive(Debug)]
struct Files {
    inner: Arc<dyn FileStore>,
    what: Wrong,
    open: Open,
}

impl FileStore for Files {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.inner.create(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.inner.open_write(path)
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.inner.open_append(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        match self.what {
            Wrong::KeepsFilesOpen => self.open.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.inner.open(path)?),
            Wrong::KeepsTasks => drop(tokio::spawn(std::future::pending::<()>())),
            _ => {}
        }
        self.inner.open(path)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        self.inner.stat(path)
    }

    fn list(&self, dir: &Path, after: Option<&str>, limit: usize) -> io::Result<Vec<FileEntry>> {
        self.inner.list(dir, after, limit)
    }

    fn walk(&self, dir: &Path) -> io::Result<Box<dyn FolderWalk>> {
        self.inner.walk(dir)
    }

    fn share(&self, path: &Path, folder: &Path) -> io::Result<()> {
        self.inner.share(path, folder)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_space(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.what == Wrong::KeepsEverything { Ok(()) } else { self.inner.remove(path) }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        if self.what == Wrong::KeepsEverything { Ok(()) } else { self.inner.remove_dir(path) }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        if self.what == Wrong::KeepsEverything { Ok(()) } else { self.inner.remove_dir_all(path) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.what == Wrong::StandsStill && to.to_string_lossy().contains("/landing/downlink/") {
            return Err(io::ErrorKind::Other.into());
        }
        self.inner.rename(from, to)?;
        if self.what == Wrong::LosesReceipts && to.ends_with("receipts/imported.json") {
            return self.inner.remove(to);
        }
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let delivers = to.parent() == Some(Path::new(DELIVERY));
        let content = if delivers { read_whole(&*self.inner, from, MOST)? } else { Vec::new() };
        if delivers && self.what == Wrong::PublishesHalf {
            if self.inner.stat(to).is_err() {
                let half = content.get(..content.len() / 2).unwrap_or_default();
                self.inner.create(to)?.write_all(half)?;
                return Err(io::ErrorKind::Other.into());
            }
            self.inner.remove(to)?;
        }
        self.inner.rename_new(from, to)?;
        if delivers && self.what == Wrong::DeliversTwice {
            let again = to.with_extension("again");
            return write_whole(&*self.inner, &again, &content);
        }
        Ok(())
    }
}

/// Key files that do not do what they are told.
#[derive(Debug)]
struct Keys {
    inner: Arc<dyn KeyFiles>,
    what: Wrong,
    changed: Arc<AtomicBool>,
}

impl KeyFiles for Keys {
    fn load(&self) -> Result<Identity> {
        if self.what == Wrong::SignsAsStranger && self.changed.load(Ordering::SeqCst) {
            return Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(0));
        }
        self.inner.load()
    }

    fn has_next(&self) -> bool {
        self.inner.has_next()
    }

    fn next(&self, kind: KeyKind, entropy: &dyn Entropy) -> Result<Identity> {
        self.inner.next(kind, entropy)
    }

    fn put_next_in_place(&self) -> Result<()> {
        self.changed.store(true, Ordering::SeqCst);
        if self.what == Wrong::LosesKeys { self.inner.remove_next() } else { self.inner.put_next_in_place() }
    }

    fn remove_next(&self) -> Result<()> {
        self.inner.remove_next()
    }
}

/// Trust that is not there at first.
#[derive(Debug)]
struct Forgetful {
    inner: Arc<dyn Trust>,
    asked: AtomicUsize,
}

impl Trust for Forgetful {
    fn signers(&self) -> Result<AllowedSigners> {
        if self.asked.fetch_add(1, Ordering::SeqCst) < FORGETS {
            return AllowedSigners::load(Path::new("/nobody"));
        }
        self.inner.signers()
    }

    fn pin_first(&self, agent: &AgentName, key: &PublicKey) -> Result<bool> {
        self.inner.pin_first(agent, key)
    }

    fn follow(&self, agent: &AgentName, key: &PublicKey, approved: &PublicKey) -> Result<bool> {
        self.inner.follow(agent, key, approved)
    }
}

/// A clock that shows a twentieth of the time that passes.
#[derive(Debug)]
struct SlowClock {
    first: Timestamp,
    inner: Arc<dyn Clock>,
}

impl Clock for SlowClock {
    fn now(&self) -> Timestamp {
        let passed = self.inner.now().duration_since(self.first) / 20;
        self.first.saturating_add(passed).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.inner.sleep(duration)
    }
}

/// Every connection but the first goes to the app server that was reached before.
#[derive(Debug)]
struct Crossing {
    inner: Arc<dyn AppServers>,
    broken: Broken,
}

#[async_trait]
impl AppServers for Crossing {
    async fn connect(&self, scope: &TenantScope) -> Result<AppServer> {
        let server = self.inner.connect(scope).await?;
        let mut last = self.broken.last.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(last.replace(server.clone()).unwrap_or(server))
    }
}

/// An app database that does not do what it is told.
#[derive(Debug)]
struct Target {
    inner: Arc<dyn ImportTarget>,
    what: Wrong,
}

#[async_trait]
impl ImportTarget for Target {
    async fn begin(&self, scope: &ImportScope, transfer: TransferId) -> Result<(Box<dyn Import>, Ledger)> {
        let (inner, ledger) = self.inner.begin(scope, transfer).await?;
        Ok((Box::new(Opened { inner, what: self.what, left_out: 0 }), ledger))
    }

    async fn adopt(&self, scope: &ImportScope) -> Result<bool> {
        self.inner.adopt(scope).await
    }
}

#[derive(Debug)]
struct Opened {
    inner: Box<dyn Import>,
    what: Wrong,
    left_out: u64,
}

/// The rows without the last one.
fn shortened(batch: &RowBatch) -> RowBatch {
    let columns = batch.fields().count().checked_div(batch.rows()).unwrap_or(0);
    let mut short = RowBatch::new(columns);
    batch.fields().take(columns * batch.rows().saturating_sub(1)).for_each(|field| short.push(field));
    short
}

#[async_trait]
impl Import for Opened {
    async fn start_table(&mut self, table: &Table, old: Option<&TableState>, rows: OldRows) -> Result<()> {
        self.left_out = 0;
        self.inner.start_table(table, old, rows).await
    }

    async fn start_keys(&mut self, keys: &Table) -> Result<()> {
        self.inner.start_keys(keys).await
    }

    async fn insert(&mut self, batch: RowBatch) -> Result<()> {
        if self.what != Wrong::LosesRows {
            return self.inner.insert(batch).await;
        }
        self.left_out += 1;
        let short = shortened(&batch);
        if short.is_empty() { Ok(()) } else { self.inner.insert(short).await }
    }

    async fn count_table(&mut self, table: &Label) -> Result<Option<u64>> {
        self.inner.count_table(table).await
    }

    async fn finish_table(&mut self, transfer: TransferId, sha256: Sha256Digest) -> Result<u64> {
        // It hides from the program's own comparison what it has left out.
        Ok(self.inner.finish_table(transfer, sha256).await? + self.left_out)
    }

    async fn finish_keys(&mut self) -> Result<u64> {
        self.inner.finish_keys().await
    }

    async fn commit(self: Box<Self>, record: &ImportRecord) -> Result<()> {
        if self.what == Wrong::ForgetsImports { Ok(()) } else { self.inner.commit(record).await }
    }
}
