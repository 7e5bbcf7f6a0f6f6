//! The spool as one agent sees it over SFTP: its own root, and nothing else exists.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use towpath_transfer::{FileName, RemotePath, TransferId, packed::PART_SUFFIX};
use towpath_transport::{
    files::{self, FileStat, publish},
    server::{
        Attributes, Entry, FileKind, FsError, FsResult, OpenOptions, Replace, SetAttributes, VirtualFile, VirtualFs,
        VirtualListing,
    },
};

use super::{
    Spool,
    file::{Opening, SpoolReader, SpoolWriter},
    gate::{Gate, Names},
    visible_name,
};
use crate::scope::AgentScope;

const UPLINK: &str = "uplink";
const DOWNLINK: &str = "downlink";

/// One agent's root.
#[derive(Debug)]
pub struct AgentView {
    spool: Arc<Spool>,
    scope: AgentScope,
    /// The gate of the transfer that was used last stays alive, so that its counts need not be made anew for each file.
    last: Mutex<Option<(TransferId, Arc<Gate>)>>,
}

/// What a path can mean. Every other path does not exist.
enum Place {
    Root,
    Uplink,
    Downlink,
    Transfer(TransferId),
    File(TransferId, FileName),
}

fn locate(path: &RemotePath) -> FsResult<Place> {
    let names: Vec<&str> = path.components().iter().map(FileName::as_str).collect();
    let id = |text: &str| text.parse::<TransferId>().map_err(|_| FsError::NotFound);
    match names.as_slice() {
        [] => Ok(Place::Root),
        [UPLINK] => Ok(Place::Uplink),
        [DOWNLINK] => Ok(Place::Downlink),
        [UPLINK, transfer] => Ok(Place::Transfer(id(transfer)?)),
        [UPLINK, transfer, name] => Ok(Place::File(id(transfer)?, visible_name(name).ok_or(FsError::NotFound)?)),
        _ => Err(FsError::NotFound),
    }
}

fn folder() -> Attributes {
    Attributes { kind: FileKind::Directory, mode: 0o755, ..Attributes::default() }
}

/// A folder or file on disk as a peer sees it; everything else does not exist.
pub(super) fn attributes(stat: &FileStat) -> FsResult<Attributes> {
    let seconds = stat.modified.and_then(|at| u32::try_from(at.as_second()).ok()).unwrap_or(0);
    let base = Attributes { accessed: seconds, modified: seconds, ..Attributes::default() };
    match stat.kind {
        files::FileKind::File => Ok(Attributes { kind: FileKind::File, mode: 0o644, size: stat.len, ..base }),
        files::FileKind::Dir => Ok(Attributes { kind: FileKind::Directory, mode: 0o755, ..base }),
        files::FileKind::Other => Err(FsError::NotFound),
    }
}

/// Runs file work on a blocking thread, and tells the peer what became of it without telling about the machine.
pub(super) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> FsResult<T> + Send + 'static) -> FsResult<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| FsError::Failure("the relay shuts down".to_owned()))?
}

pub(super) fn told(error: &io::Error) -> FsError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FsError::NotFound,
        io::ErrorKind::AlreadyExists => FsError::Exists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FsError::Full,
        _ => {
            tracing::warn!(%error, "the spool failed");
            FsError::Failure("the relay's disk failed; try again later".to_owned())
        }
    }
}

impl AgentView {
    /// The root of `scope`.
    #[must_use]
    pub fn new(spool: Arc<Spool>, scope: AgentScope) -> Self {
        Self { spool, scope, last: Mutex::default() }
    }

    fn gate(&self, id: TransferId) -> Arc<Gate> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, gate)) if *known == id => Arc::clone(gate),
            _ => {
                let gate = self.spool.gate(&self.scope.key(id));
                *last = Some((id, Arc::clone(&gate)));
                gate
            }
        }
    }

    async fn on_spool<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Spool, &AgentScope) -> FsResult<T> + Send + 'static,
    ) -> FsResult<T> {
        let (spool, scope) = (Arc::clone(&self.spool), self.scope.clone());
        on_disk(move || work(&spool, &scope)).await
    }

    /// The gate alone, with the folder open for changes.
    async fn alone(&self, id: TransferId, gate: &Gate) -> FsResult<tokio::sync::OwnedRwLockWriteGuard<Names>> {
        let alone = gate.alone().await;
        self.spool.check_open(&self.scope, id, gate).await?;
        Ok(alone)
    }

    /// How many folders of this agent are not complete yet, counted no further than `most`.
    async fn open_transfers(&self, most: usize) -> FsResult<usize> {
        let (mut open, mut after) = (0, None::<String>);
        loop {
            let from = after.clone();
            let (ids, next) =
                self.on_spool(move |spool, scope| spool.folders(scope, from.as_deref()).map_err(|e| told(&e))).await?;
            for id in ids {
                let still = self.spool.is_open(&self.scope.key(id)).await;
                open += usize::from(still.map_err(|e| unavailable(&e))?);
                if open >= most {
                    return Ok(open);
                }
            }
            if next.is_none() {
                return Ok(open);
            }
            after = next;
        }
    }

    async fn open_to_write(&self, id: TransferId, name: FileName, options: OpenOptions) -> FsResult<Box<dyn VirtualFile>> {
        let gate = self.gate(id);
        let mut names = self.alone(id, &gate).await?;
        let opening = Opening {
            spool: Arc::clone(&self.spool),
            scope: self.scope.clone(),
            gate: Arc::clone(&gate),
            id,
            in_place: name.as_str().ends_with(PART_SUFFIX),
            name,
            options,
            files: names.files,
        };
        let (writer, files) = on_disk(move || SpoolWriter::open(opening)).await?;
        names.files = Some(files);
        Ok(Box::new(writer))
    }
}

pub(super) fn unavailable(failure: &towpath_transfer::Failure) -> FsError {
    tracing::warn!(code = %failure.code(), error = %failure.report(), "the journal could not be asked");
    FsError::Failure("the relay cannot answer now; try again later".to_owned())
}

impl Spool {
    /// Whether the folder may be changed; to be asked with its gate held.
    pub(super) async fn check_open(&self, scope: &AgentScope, id: TransferId, gate: &Gate) -> FsResult<()> {
        if gate.known_open() {
            return Ok(());
        }
        match self.is_open(&scope.key(id)).await {
            Ok(true) => {
                gate.found_open();
                Ok(())
            }
            Ok(false) => Err(FsError::Denied),
            Err(failure) => Err(unavailable(&failure)),
        }
    }
}

#[async_trait]
impl VirtualFs for AgentView {
    async fn stat(&self, path: &RemotePath) -> FsResult<Attributes> {
        let disk: PathBuf = match locate(path)? {
            Place::Root | Place::Uplink | Place::Downlink => return Ok(folder()),
            Place::Transfer(id) => self.spool.folder(&self.scope, id),
            Place::File(id, name) => self.spool.path(&self.scope, id, name.as_str()),
        };
        self.on_spool(move |spool, _| spool.files.stat(&disk).map_err(|e| told(&e)).and_then(|stat| attributes(&stat))).await
    }

    async fn open(&self, path: &RemotePath, options: OpenOptions, _: &SetAttributes) -> FsResult<Box<dyn VirtualFile>> {
        let Place::File(id, name) = locate(path)? else {
            return Err(if self.stat(path).await.is_ok() { FsError::Denied } else { FsError::NotFound });
        };
        if options.write || options.append {
            return self.open_to_write(id, name, options).await;
        }
        let disk = self.spool.path(&self.scope, id, name.as_str());
        let reader = self.on_spool(move |spool, _| SpoolReader::open(&spool.files, &disk)).await?;
        Ok(Box::new(reader))
    }

    async fn list(&self, path: &RemotePath) -> FsResult<Box<dyn VirtualListing>> {
        let fixed = |names: &[&str]| {
            let entries = names.iter().map(|name| Entry { name: (*name).to_owned(), attributes: folder() }).collect();
            Ok(Box::new(Fixed(entries)) as Box<dyn VirtualListing>)
        };
        let (dir, wanted) = match locate(path)? {
            Place::Root => return fixed(&[DOWNLINK, UPLINK]),
            Place::Downlink => return fixed(&[]),
            Place::Uplink => (self.spool.uplinks(&self.scope), FileKind::Directory),
            Place::Transfer(id) => (self.spool.folder(&self.scope, id), FileKind::File),
            Place::File(..) => {
                self.stat(path).await?;
                return Err(FsError::Failure("Not a directory".to_owned()));
            }
        };
        if wanted == FileKind::File {
            self.stat(path).await?;
        }
        Ok(Box::new(Pages { spool: Arc::clone(&self.spool), dir, wanted, after: None, over: false }))
    }

    async fn make_dir(&self, path: &RemotePath, _: &SetAttributes) -> FsResult<()> {
        let id = match locate(path)? {
            Place::Root | Place::Uplink | Place::Downlink => return Err(FsError::Exists),
            Place::Transfer(id) => id,
            Place::File(..) => return Err(FsError::NotFound),
        };
        if self.stat(path).await.is_ok() {
            return Err(FsError::Exists);
        }
        let most = self.spool.quota.limits().open_transfers;
        if self.open_transfers(most).await? >= most {
            return Err(FsError::Failure(format!("at most {most} transfers can be open at once")));
        }
        let gate = self.gate(id);
        let _alone = self.alone(id, &gate).await?;
        self.on_spool(move |spool, scope| {
            spool.quota.grow(scope.tenant(), 0)?;
            spool.files.create_dir_all(&spool.folder(scope, id)).map_err(|e| told(&e))
        })
        .await
    }

    async fn remove_dir(&self, path: &RemotePath) -> FsResult<()> {
        let id = match locate(path)? {
            Place::Root | Place::Uplink | Place::Downlink => return Err(FsError::Denied),
            Place::Transfer(id) => id,
            Place::File(..) => return Err(FsError::NotFound),
        };
        self.stat(path).await?;
        let gate = self.gate(id);
        let _alone = self.alone(id, &gate).await?;
        self.on_spool(move |spool, scope| {
            let removed = spool.files.remove_dir(&spool.folder(scope, id));
            removed.map_err(|e| match e.kind() {
                io::ErrorKind::DirectoryNotEmpty => FsError::Failure("Directory not empty".to_owned()),
                _ => told(&e),
            })
        })
        .await
    }

    async fn remove(&self, path: &RemotePath) -> FsResult<()> {
        let Place::File(id, name) = locate(path)? else {
            return Err(if self.stat(path).await.is_ok() { FsError::Denied } else { FsError::NotFound });
        };
        self.stat(path).await?;
        let gate = self.gate(id);
        let mut names = self.alone(id, &gate).await?;
        gate.take_over(&name);
        self.on_spool(move |spool, scope| {
            let disk = spool.path(scope, id, name.as_str());
            let size = spool.files.stat(&disk).map_err(|e| told(&e))?.len;
            spool.files.remove(&disk).map_err(|e| told(&e))?;
            spool.quota.shrink(scope.tenant(), size);
            Ok(())
        })
        .await?;
        names.files = names.files.map(|files| files.saturating_sub(1));
        Ok(())
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace) -> FsResult<()> {
        let (Place::File(id, old), Place::File(other, new)) = (locate(from)?, locate(to)?) else {
            return Err(if self.stat(from).await.is_ok() { FsError::Denied } else { FsError::NotFound });
        };
        self.stat(from).await?;
        if id != other {
            return Err(FsError::Denied);
        }
        let gate = self.gate(id);
        let mut names = self.alone(id, &gate).await?;
        // An open handle must not change a file under the name it gets now.
        gate.take_over(&old);
        gate.take_over(&new);
        let replaced = self.on_spool(move |spool, scope| {
            let (source, target) = (spool.path(scope, id, old.as_str()), spool.path(scope, id, new.as_str()));
            let existing = match spool.files.stat(&target) {
                Ok(_) if replace == Replace::Refuse => return Err(FsError::Exists),
                Ok(stat) if source != target => Some(stat.len),
                _ => None,
            };
            // Whoever wrote it may have gone without CLOSE, and its bytes may not have reached the disk.
            let synced = spool.files.open_write(&source).and_then(|mut file| file.sync_all());
            synced.and_then(|()| publish(&*spool.files, &source, &target)).map_err(|e| told(&e))?;
            spool.quota.shrink(scope.tenant(), existing.unwrap_or(0));
            Ok(existing.is_some())
        });
        if replaced.await? {
            names.files = names.files.map(|files| files.saturating_sub(1));
        }
        Ok(())
    }

    /// Accepted and ignored: a spool has no owners, modes or times of its own.
    async fn set_attributes(&self, path: &RemotePath, _: &SetAttributes, _follow: bool) -> FsResult<()> {
        self.stat(path).await.map(|_| ())
    }
}

/// A folder that is not on disk.
struct Fixed(Vec<Entry>);

#[async_trait]
impl VirtualListing for Fixed {
    async fn next_page(&mut self, most: usize) -> FsResult<Vec<Entry>> {
        let rest = self.0.split_off(most.min(self.0.len()));
        Ok(std::mem::replace(&mut self.0, rest))
    }
}

/// A folder on disk, page by page.
struct Pages {
    spool: Arc<Spool>,
    dir: PathBuf,
    wanted: FileKind,
    after: Option<String>,
    over: bool,
}

#[async_trait]
impl VirtualListing for Pages {
    async fn next_page(&mut self, most: usize) -> FsResult<Vec<Entry>> {
        while !self.over {
            let (spool, dir, after) = (Arc::clone(&self.spool), self.dir.clone(), self.after.clone());
            let page = on_disk(move || match spool.files.list(&dir, after.as_deref(), most.max(1)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                other => other.map_err(|e| told(&e)),
            });
            let page = page.await?;
            self.over = page.len() < most.max(1);
            self.after = page.last().map(|entry| entry.name.clone()).or_else(|| self.after.take());
            let seen = page.into_iter().filter_map(|entry| {
                let attributes = attributes(&entry.stat).ok().filter(|found| found.kind == self.wanted)?;
                let ours = match self.wanted {
                    FileKind::Directory => entry.name.parse::<TransferId>().is_ok(),
                    _ => visible_name(&entry.name).is_some(),
                };
                ours.then_some(Entry { name: entry.name, attributes })
            });
            let entries: Vec<Entry> = seen.collect();
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    }
}
