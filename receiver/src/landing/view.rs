//! The landing as the relay sees it over SFTP.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use towpath_transfer::{AgentName, FileName, RemotePath, TransferId, manifest::MANIFEST_NAME};
use towpath_transport::{
    files::{self, FileStore},
    server::{
        Attributes, FileKind, FsError, FsResult, OpenOptions, Replace, SetAttributes, VirtualFile, VirtualFs, VirtualListing,
        stored::{
            FixedListing, FolderGate, LastGate, StoredListing, StoredReader, UploadFolder, Uploads, attributes_of,
            folder_attributes, on_disk, stat_in_folder, told, visible_name,
        },
    },
};

use super::{Landing, Spot};

const UPLINK: &str = "uplink";
const DOWNLINK: &str = "downlink";

/// The landing's root, for one session.
#[derive(Debug)]
pub struct LandingView {
    landing: Arc<Landing>,
    last: LastGate<Spot, FolderGate>,
}

/// One transfer's folder, as uploads change it.
#[derive(Debug)]
struct TransferFolder {
    landing: Arc<Landing>,
    spot: Spot,
    gate: Arc<FolderGate>,
}

impl UploadFolder for TransferFolder {
    fn files(&self) -> &Arc<dyn FileStore> {
        &self.landing.files
    }

    fn path(&self) -> PathBuf {
        self.landing.folder(&self.spot)
    }

    fn gate(&self) -> &FolderGate {
        &self.gate
    }

    fn most_files(&self) -> usize {
        self.landing.limits.files
    }

    fn grow(&self, bytes: u64) -> FsResult<()> {
        self.landing.check_room(bytes)
    }

    fn published(&self, name: &FileName) {
        if name.as_str() == MANIFEST_NAME {
            self.landing.arrived.notify_one();
        }
    }
}

/// What a path can mean. Every other path does not exist.
enum Place {
    Root,
    Uplink,
    Agent(AgentName),
    Transfer(Spot),
    File(Spot, FileName),
    /// Everything below `downlink` is only read.
    Downlink,
    Recipient(AgentName),
    Return(Spot),
    ReturnFile(Spot, FileName),
}

impl Place {
    const fn is_file(&self) -> bool {
        matches!(self, Self::File(..) | Self::ReturnFile(..))
    }

    const fn is_read_only(&self) -> bool {
        matches!(self, Self::Downlink | Self::Recipient(_) | Self::Return(_) | Self::ReturnFile(..))
    }
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
        [DOWNLINK] => Ok(Place::Downlink),
        [DOWNLINK, of] => Ok(Place::Recipient(agent(of)?)),
        [DOWNLINK, of, id] => Ok(Place::Return(spot(of, id)?)),
        [DOWNLINK, of, id, name] => Ok(Place::ReturnFile(spot(of, id)?, visible_name(name).ok_or(FsError::NotFound)?)),
        _ => Err(FsError::NotFound),
    }
}

impl LandingView {
    /// A session's view of `landing`.
    #[must_use]
    pub fn new(landing: Arc<Landing>) -> Self {
        Self { landing, last: LastGate::default() }
    }

    fn gate(&self, spot: &Spot) -> Arc<FolderGate> {
        self.last.of(spot, &self.landing.gates)
    }

    fn uploads(&self, spot: Spot) -> Uploads {
        let (landing, gate) = (Arc::clone(&self.landing), self.gate(&spot));
        Uploads::into(Arc::new(TransferFolder { landing, spot, gate }))
    }

    async fn on_landing<T: Send + 'static>(&self, work: impl FnOnce(&Landing) -> FsResult<T> + Send + 'static) -> FsResult<T> {
        let landing = Arc::clone(&self.landing);
        on_disk(move || work(&landing)).await
    }

    /// What is on disk at a path; `None` for the folders that always exist.
    fn on_disk_path(&self, place: &Place) -> Option<PathBuf> {
        match place {
            Place::Root | Place::Uplink | Place::Downlink => None,
            Place::Agent(agent) => Some(self.landing.layout.landing_agent(agent)),
            Place::Transfer(spot) => Some(self.landing.folder(spot)),
            Place::File(spot, name) => Some(self.landing.path(spot, name)),
            Place::Recipient(agent) => Some(self.landing.layout.downlink_agent(agent)),
            Place::Return(spot) => Some(self.landing.laid_out(spot)),
            Place::ReturnFile(spot, name) => Some(self.landing.laid_out(spot).join(name.as_str())),
        }
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
        let Some(disk) = self.on_disk_path(&place) else { return Ok(folder_attributes()) };
        let wanted = if place.is_file() { FileKind::File } else { FileKind::Directory };
        self.on_landing(move |landing| {
            let found = attributes_of(&stat_in_folder(&*landing.files, &disk).map_err(|e| told(&e))?)?;
            if found.kind == wanted { Ok(found) } else { Err(FsError::NotFound) }
        })
        .await
    }

    async fn open(&self, path: &RemotePath, options: OpenOptions, _: &SetAttributes) -> FsResult<Box<dyn VirtualFile>> {
        let disk = match locate(path)? {
            Place::File(spot, name) if options.write || options.append => {
                return self.uploads(spot).open(name, options).await;
            }
            Place::File(spot, name) => self.landing.path(&spot, &name),
            Place::ReturnFile(spot, name) if !(options.write || options.append) => {
                self.landing.laid_out(&spot).join(name.as_str())
            }
            _ => return self.refuse(path).await,
        };
        let reader = self.on_landing(move |landing| StoredReader::open(&*landing.files, &disk)).await?;
        Ok(Box::new(reader))
    }

    async fn list(&self, path: &RemotePath) -> FsResult<Box<dyn VirtualListing>> {
        let place = locate(path)?;
        let (dir, shows): (PathBuf, fn(&str, FileKind) -> bool) = match &place {
            Place::Root => return Ok(Box::new(FixedListing::new(&[DOWNLINK, UPLINK]))),
            Place::Uplink => (self.landing.uplink(), is_agent),
            Place::Agent(agent) => (self.landing.layout.landing_agent(agent), is_transfer),
            Place::Transfer(spot) => (self.landing.folder(spot), is_file),
            Place::Downlink => (self.landing.layout.landing_downlink(), is_agent),
            Place::Recipient(agent) => (self.landing.layout.downlink_agent(agent), is_transfer),
            Place::Return(spot) => (self.landing.laid_out(spot), is_file),
            Place::File(..) | Place::ReturnFile(..) => {
                self.stat(path).await?;
                return Err(FsError::Failure("Not a directory".to_owned()));
            }
        };
        self.stat(path).await?;
        Ok(Box::new(StoredListing::new(Arc::clone(&self.landing.files), dir, shows)))
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
            Place::Downlink | Place::Recipient(_) | Place::Return(_) | Place::ReturnFile(..) => return self.refuse(path).await,
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
        if place.is_file() {
            return Err(FsError::NotFound);
        }
        if place.is_read_only() {
            return self.refuse(path).await;
        }
        self.stat(path).await?;
        self.on_landing(move |landing| landing.files.remove_dir(&disk).map_err(|e| told(&e))).await
    }

    async fn remove(&self, path: &RemotePath) -> FsResult<()> {
        let Place::File(spot, name) = locate(path)? else { return self.refuse(path).await };
        self.uploads(spot).remove(name).await
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace) -> FsResult<()> {
        let (Place::File(spot, old), Place::File(other, new)) = (locate(from)?, locate(to)?) else {
            return self.refuse(from).await;
        };
        self.stat(from).await?;
        if spot != other {
            return Err(FsError::Denied);
        }
        self.uploads(spot).rename(old, new, replace).await
    }

    /// Accepted and ignored: a landing has no owners, modes or times of its own.
    async fn set_attributes(&self, path: &RemotePath, _: &SetAttributes, _follow: bool) -> FsResult<()> {
        self.stat(path).await.map(|_| ())
    }
}

fn is_agent(name: &str, kind: FileKind) -> bool {
    kind == FileKind::Directory && name.parse::<AgentName>().is_ok()
}

fn is_transfer(name: &str, kind: FileKind) -> bool {
    kind == FileKind::Directory && name.parse::<TransferId>().is_ok()
}

fn is_file(name: &str, kind: FileKind) -> bool {
    kind == FileKind::File && visible_name(name).is_some()
}
