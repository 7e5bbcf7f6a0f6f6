//! The landing as the relay sees it over SFTP.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use towpath_transfer::{AgentName, FileName, RemotePath, TransferId, manifest::MANIFEST_NAME};
use towpath_transport::{
    files::{self, FileStat, publish},
    server::{
        Attributes, Entry, FileKind, FsError, FsResult, OpenOptions, Replace, SetAttributes, VirtualFile, VirtualFs,
        VirtualListing,
    },
};

use super::{
    Landing, Spot,
    file::{Opening, Reader, Writer},
    gate::Gate,
    on_disk, told, visible_name,
};

const UPLINK: &str = "uplink";

/// The landing's root, for one session.
#[derive(Debug)]
pub struct LandingView {
    landing: Arc<Landing>,
    /// The gate of the folder that was used last stays alive, so that its files need not be counted anew for each of them.
    last: Mutex<Option<(Spot, Arc<Gate>)>>,
}

/// What a path can mean. Every other path does not exist.
enum Place {
    Root,
    Uplink,
    Agent(AgentName),
    Transfer(Spot),
    File(Spot, FileName),
}

fn locate(path: &RemotePath) -> FsResult<Place> {
    let names: Vec<&str> = path.components().iter().map(FileName::as_str).collect();
    let agent = |text: &str| text.parse::<AgentName>().map_err(|_| FsError::NotFound);
    let spot = |of: &str, id: &str| {
        let id = id.parse::<TransferId>().map_err(|_| FsError::NotFound)?;
        Ok(Spot { agent: agent(of)?, id })
    };
    match names.as_slice() {
        [] => Ok(Place::Root),
        [UPLINK] => Ok(Place::Uplink),
        [UPLINK, of] => Ok(Place::Agent(agent(of)?)),
        [UPLINK, of, id] => Ok(Place::Transfer(spot(of, id)?)),
        [UPLINK, of, id, name] => Ok(Place::File(spot(of, id)?, visible_name(name).ok_or(FsError::NotFound)?)),
        _ => Err(FsError::NotFound),
    }
}

fn folder() -> Attributes {
    Attributes { kind: FileKind::Directory, mode: 0o755, ..Attributes::default() }
}

/// A folder or file on disk as the peer sees it; everything else does not exist.
pub(super) fn attributes(stat: &FileStat) -> FsResult<Attributes> {
    let seconds = stat.modified.and_then(|at| u32::try_from(at.as_second()).ok()).unwrap_or(0);
    let base = Attributes { accessed: seconds, modified: seconds, ..Attributes::default() };
    match stat.kind {
        files::FileKind::File => Ok(Attributes { kind: FileKind::File, mode: 0o644, size: stat.len, ..base }),
        files::FileKind::Dir => Ok(Attributes { kind: FileKind::Directory, mode: 0o755, ..base }),
        files::FileKind::Other => Err(FsError::NotFound),
    }
}

impl LandingView {
    /// A session's view of `landing`.
    #[must_use]
    pub fn new(landing: Arc<Landing>) -> Self {
        Self { landing, last: Mutex::default() }
    }

    fn gate(&self, spot: &Spot) -> Arc<Gate> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, gate)) if known == spot => Arc::clone(gate),
            _ => {
                let gate = self.landing.gate(spot);
                *last = Some((spot.clone(), Arc::clone(&gate)));
                gate
            }
        }
    }

    async fn on_landing<T: Send + 'static>(&self, work: impl FnOnce(&Landing) -> FsResult<T> + Send + 'static) -> FsResult<T> {
        let landing = Arc::clone(&self.landing);
        on_disk(move || work(&landing)).await
    }

    /// What is on disk at a path; `None` for the folders that always exist.
    fn on_disk_path(&self, place: &Place) -> Option<PathBuf> {
        match place {
            Place::Root | Place::Uplink => None,
            Place::Agent(agent) => Some(self.landing.layout.landing_agent(agent)),
            Place::Transfer(spot) => Some(self.landing.folder(spot)),
            Place::File(spot, name) => Some(self.landing.path(spot, name)),
        }
    }

    async fn open_to_write(&self, spot: Spot, name: FileName, options: OpenOptions) -> FsResult<Box<dyn VirtualFile>> {
        let gate = self.gate(&spot);
        let mut names = gate.alone().await;
        let (landing, files) = (Arc::clone(&self.landing), names.files);
        let opening = Opening { landing, spot, gate: Arc::clone(&gate), name, options, files };
        let (writer, files) = on_disk(move || Writer::open(opening)).await?;
        names.files = Some(files);
        Ok(Box::new(writer))
    }

    /// Denied where it exists, and missing where it does not.
    async fn refuse<T>(&self, path: &RemotePath) -> FsResult<T> {
        Err(if self.stat(path).await.is_ok() { FsError::Denied } else { FsError::NotFound })
    }
}

#[async_trait]
impl VirtualFs for LandingView {
    async fn stat(&self, path: &RemotePath) -> FsResult<Attributes> {
        let place = locate(path)?;
        let Some(disk) = self.on_disk_path(&place) else { return Ok(folder()) };
        let wanted = if matches!(place, Place::File(..)) { FileKind::File } else { FileKind::Directory };
        self.on_landing(move |landing| {
            let found = landing.files.stat(&disk).map_err(|e| told(&e)).and_then(|stat| attributes(&stat))?;
            if found.kind == wanted { Ok(found) } else { Err(FsError::NotFound) }
        })
        .await
    }

    async fn open(&self, path: &RemotePath, options: OpenOptions, _: &SetAttributes) -> FsResult<Box<dyn VirtualFile>> {
        let Place::File(spot, name) = locate(path)? else { return self.refuse(path).await };
        if options.write || options.append {
            return self.open_to_write(spot, name, options).await;
        }
        let disk = self.landing.path(&spot, &name);
        let reader = self.on_landing(move |landing| Reader::open(landing, &disk)).await?;
        Ok(Box::new(reader))
    }

    async fn list(&self, path: &RemotePath) -> FsResult<Box<dyn VirtualListing>> {
        let place = locate(path)?;
        let (dir, wanted) = match &place {
            Place::Root => return Ok(Box::new(Root(vec![Entry { name: UPLINK.to_owned(), attributes: folder() }]))),
            Place::Uplink => (self.landing.uplink(), Wanted::Agents),
            Place::Agent(agent) => (self.landing.layout.landing_agent(agent), Wanted::Transfers),
            Place::Transfer(spot) => (self.landing.folder(spot), Wanted::Files),
            Place::File(..) => {
                self.stat(path).await?;
                return Err(FsError::Failure("Not a directory".to_owned()));
            }
        };
        self.stat(path).await?;
        Ok(Box::new(Pages { landing: Arc::clone(&self.landing), dir, wanted, after: None, over: false }))
    }

    async fn make_dir(&self, path: &RemotePath, _: &SetAttributes) -> FsResult<()> {
        let place = locate(path)?;
        let (parent, most, what) = match &place {
            Place::Root | Place::Uplink => return Err(FsError::Exists),
            Place::Agent(_) => (self.landing.uplink(), self.landing.limits.agents, "agents"),
            Place::Transfer(spot) => {
                (self.landing.layout.landing_agent(&spot.agent), self.landing.limits.transfers, "transfers of one agent")
            }
            Place::File(..) => return Err(FsError::NotFound),
        };
        let Some(disk) = self.on_disk_path(&place) else { return Err(FsError::Exists) };
        let gate = if let Place::Transfer(spot) = &place { Some(self.gate(spot)) } else { None };
        let made = self.on_landing(move |landing| {
            if landing.files.stat(&disk).is_ok() {
                return Err(FsError::Exists);
            }
            // As everywhere, a folder is made in one that exists.
            if what != "agents" && landing.files.stat(&parent).is_err() {
                return Err(FsError::NotFound);
            }
            if landing.count(&parent, files::FileKind::Dir, most.saturating_mul(2))? >= most {
                return Err(FsError::Failure(format!("at most {most} {what} can lie here")));
            }
            landing.check_room(0)?;
            landing.files.create_dir_all(&disk).map_err(|e| told(&e))
        });
        made.await?;
        if let Some(gate) = gate {
            // The folder may have been here before, with files that were counted.
            gate.alone().await.files = None;
        }
        Ok(())
    }

    async fn remove_dir(&self, path: &RemotePath) -> FsResult<()> {
        let place = locate(path)?;
        let Some(disk) = self.on_disk_path(&place) else { return Err(FsError::Denied) };
        if matches!(place, Place::File(..)) {
            return Err(FsError::NotFound);
        }
        self.stat(path).await?;
        self.on_landing(move |landing| landing.files.remove_dir(&disk).map_err(|e| told(&e))).await
    }

    async fn remove(&self, path: &RemotePath) -> FsResult<()> {
        let Place::File(spot, name) = locate(path)? else { return self.refuse(path).await };
        let gate = self.gate(&spot);
        let mut names = gate.alone().await;
        self.stat(path).await?;
        gate.withdraw(&name);
        self.on_landing(move |landing| landing.files.remove(&landing.path(&spot, &name)).map_err(|e| told(&e))).await?;
        names.files = names.files.map(|files| files.saturating_sub(1));
        Ok(())
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace) -> FsResult<()> {
        let (Place::File(spot, old), Place::File(other, new)) = (locate(from)?, locate(to)?) else {
            return self.refuse(from).await;
        };
        self.stat(from).await?;
        if spot != other {
            return Err(FsError::Denied);
        }
        let gate = self.gate(&spot);
        let mut names = gate.alone().await;
        // An open handle must not change a file under the name it gets now.
        gate.withdraw(&old);
        gate.withdraw(&new);
        let replaced = self.on_landing(move |landing| {
            let (source, target) = (landing.path(&spot, &old), landing.path(&spot, &new));
            let existing = landing.files.stat(&target).is_ok();
            if existing && replace == Replace::Refuse {
                return Err(FsError::Exists);
            }
            // Whoever wrote it may have gone without CLOSE, and its bytes may not have reached the disk.
            let synced = landing.files.open_write(&source).and_then(|mut file| file.sync_all());
            synced.and_then(|()| publish(&*landing.files, &source, &target)).map_err(|e| told(&e))?;
            if new.as_str() == MANIFEST_NAME {
                landing.arrived.notify_one();
            }
            Ok(existing && source != target)
        });
        if replaced.await? {
            names.files = names.files.map(|files| files.saturating_sub(1));
        }
        Ok(())
    }

    /// Accepted and ignored: a landing has no owners, modes or times of its own.
    async fn set_attributes(&self, path: &RemotePath, _: &SetAttributes, _follow: bool) -> FsResult<()> {
        self.stat(path).await.map(|_| ())
    }
}

/// The root, which is not on disk as the peer sees it.
struct Root(Vec<Entry>);

#[async_trait]
impl VirtualListing for Root {
    async fn next_page(&mut self, _most: usize) -> FsResult<Vec<Entry>> {
        Ok(std::mem::take(&mut self.0))
    }
}

/// Whose names a listing shows.
#[derive(Clone, Copy)]
enum Wanted {
    Agents,
    Transfers,
    Files,
}

impl Wanted {
    fn is(self, name: &str, kind: FileKind) -> bool {
        match self {
            Self::Agents => kind == FileKind::Directory && name.parse::<AgentName>().is_ok(),
            Self::Transfers => kind == FileKind::Directory && name.parse::<TransferId>().is_ok(),
            Self::Files => kind == FileKind::File && visible_name(name).is_some(),
        }
    }
}

/// A folder on disk, page by page.
struct Pages {
    landing: Arc<Landing>,
    dir: PathBuf,
    wanted: Wanted,
    after: Option<String>,
    over: bool,
}

#[async_trait]
impl VirtualListing for Pages {
    async fn next_page(&mut self, most: usize) -> FsResult<Vec<Entry>> {
        let most = most.max(1);
        while !self.over {
            let (landing, dir, after) = (Arc::clone(&self.landing), self.dir.clone(), self.after.clone());
            let page = on_disk(move || match landing.files.list(&dir, after.as_deref(), most) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
                other => other.map_err(|e| told(&e)),
            });
            let page = page.await?;
            // A page may be short by a name that went meanwhile; then the listing ends early, as one taken then would have.
            self.over = page.is_empty();
            self.after = page.last().map(|entry| entry.name.clone()).or_else(|| self.after.take());
            let seen = page.into_iter().filter_map(|entry| {
                let attributes = attributes(&entry.stat).ok()?;
                self.wanted.is(&entry.name, attributes.kind).then_some(Entry { name: entry.name, attributes })
            });
            let entries: Vec<Entry> = seen.collect();
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    }
}
