//! Where transfers lie on the relay, what an agent sees of them, and how much there may be.
//!
//! On disk: `spool/<tenant>/<agent>/<room>/<transfer>/<file>`, where a room is `uplink` or, of a downlink, `fetched` and `packed`
//! (nobody but the relay sees these) and `downlink`; and, apart because they are kept longer,
//! `receipts/<tenant>/<agent>/<transfer>/<word>.json`. Every path is made from a scope, so that there is no way to name a
//! folder of somebody else.

mod count;
mod gate;
mod lacking;
mod noted;
mod place;
mod quota;
mod receipts;
mod reserved;
mod view;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use towpath_journal::Journal;
use towpath_transfer::{
    Code, Failure, FileName, TransferId, TransferKey, TransferState,
    digest::{Sha256Digest, Sha256Hasher},
    failure::Result,
};
use towpath_transport::{
    files::{FileKind, FileStore, each_chunk, file_failure, hold, ignore_missing, read_whole},
    server::stored::{Gates, visible_name},
};

use crate::scope::{AgentScope, TenantScope};

pub use count::used_on_disk;
pub use gate::Frozen;
pub use lacking::MAX_MISSING;
pub(crate) use lacking::{GONE, Missing, own_name};
pub use quota::{Followed, MAX_TENANT_FIGURES, Quota, SpoolFigures, SpoolLimits, reason};
pub(crate) use reserved::IN_PUBLIC;
pub use reserved::Reserved;
pub use view::AgentView;

use gate::Gate;

/// Entries read at once from a folder.
const PAGE: usize = 500;

/// What a transfer's folder is for; each room has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Room {
    /// What an agent sends.
    Uplink,
    /// The plain files of a downlink, as they come from the app server.
    Fetched,
    /// The same, packed, until they are queued.
    Packed,
    /// What an agent may take.
    Downlink,
}

impl Room {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Uplink => "uplink",
            Self::Fetched => "fetched",
            Self::Packed => "packed",
            Self::Downlink => "downlink",
        }
    }
}

/// The relay's spool.
#[derive(Debug)]
pub struct Spool {
    files: Arc<dyn FileStore>,
    root: PathBuf,
    receipts: PathBuf,
    journal: Arc<dyn Journal>,
    quota: Quota,
    gates: Gates<TransferKey, Gate>,
}

/// A file in a transfer's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolFile {
    /// Its name.
    pub name: FileName,
    /// Its length in bytes.
    pub size: u64,
}

fn root_of(state: &Path) -> PathBuf {
    state.join("spool")
}

impl Spool {
    /// The spool below the folder `state`, which exists. What an earlier process left unfinished goes, and the rest is
    /// counted. Blocking.
    ///
    /// # Errors
    /// [`Code::FileFailed`], [`Code::DiskFull`].
    pub fn open(files: Arc<dyn FileStore>, state: &Path, journal: Arc<dyn Journal>, limits: SpoolLimits) -> Result<Self> {
        let (root, receipts) = (root_of(state), state.join("receipts"));
        for folder in [&root, &receipts] {
            files.create_dir_all(folder).map_err(|e| file_failure("make the folder", folder, e))?;
        }
        let quota = Quota::new(Arc::clone(&files), root.clone(), limits);
        quota.scan().map_err(|e| file_failure("count what is in", &root, e))?;
        Ok(Self { files, root, receipts, journal, quota, gates: Gates::default() })
    }

    /// How much there may be, and is.
    #[must_use]
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// The files, for reading what [`Spool::path`] names.
    #[must_use]
    pub fn files(&self) -> &Arc<dyn FileStore> {
        &self.files
    }

    fn tenant_dir(&self, scope: &TenantScope) -> PathBuf {
        self.root.join(scope.tenant().as_str())
    }

    /// The folder of an agent's transfers.
    fn room(&self, room: Room, scope: &AgentScope) -> PathBuf {
        self.tenant_dir(scope.tenant()).join(scope.agent().as_str()).join(room.as_str())
    }

    /// A transfer's folder.
    #[must_use]
    pub fn folder(&self, room: Room, scope: &AgentScope, id: TransferId) -> PathBuf {
        self.room(room, scope).join(id.to_string())
    }

    /// A file of a transfer.
    #[must_use]
    pub fn path(&self, room: Room, scope: &AgentScope, id: TransferId, name: &str) -> PathBuf {
        self.folder(room, scope, id).join(name)
    }

    /// The files of a transfer, sorted by name, hidden ones left out; at most `limit`. Blocking.
    ///
    /// # Errors
    /// [`Code::LimitExceeded`] beyond `limit`, [`Code::FileFailed`]. A folder that does not exist has no files.
    pub fn list(&self, room: Room, scope: &AgentScope, id: TransferId, limit: usize) -> Result<Vec<SpoolFile>> {
        let folder = self.folder(room, scope, id);
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = match self.files.list(&folder, after.as_deref(), PAGE) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
                other => other.map_err(|e| file_failure("list the folder", &folder, e))?,
            };
            let visible = page.iter().filter(|entry| entry.stat.kind == FileKind::File);
            found.extend(visible.filter_map(|entry| {
                let name = visible_name(&entry.name)?;
                Some(SpoolFile { name, size: entry.stat.len })
            }));
            if found.len() > limit {
                return Err(Failure::park(Code::LimitExceeded, format!("a transfer has more than {limit} files")));
            }
            after = page.last().map(|entry| entry.name.clone());
            if page.len() < PAGE {
                return Ok(found);
            }
        }
    }

    /// Reads a small file of a transfer; `None` where it is not there. Blocking.
    ///
    /// # Errors
    /// [`Code::FileFailed`], also where it is larger than `limit`.
    pub fn read(&self, room: Room, scope: &AgentScope, id: TransferId, name: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        let path = self.path(room, scope, id, name);
        match read_whole(&*self.files, &path, limit as u64) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(file_failure("read", &path, e)),
        }
    }

    /// Makes every name in a transfer's folder durable, and that of the folder: whoever has put a file there may have failed before
    /// its name was. Blocking.
    ///
    /// # Errors
    /// [`Code::FileFailed`], also where there is no folder.
    pub fn hold(&self, room: Room, scope: &AgentScope, id: TransferId) -> Result<()> {
        let folder = self.folder(room, scope, id);
        let held = self.files.sync_dir(&folder).and_then(|()| hold(&*self.files, &folder));
        held.map_err(|e| file_failure("make durable", &folder, e))
    }

    /// Removes one file of a transfer that nobody can write to any more. Blocking; repeating is safe.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub fn remove_file(&self, room: Room, scope: &AgentScope, id: TransferId, file: &SpoolFile) -> Result<()> {
        let path = self.path(room, scope, id, file.name.as_str());
        match self.files.remove(&path) {
            Ok(()) => self.quota.shrink(scope.tenant(), file.size),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(file_failure("remove", &path, e)),
        }
        Ok(())
    }

    /// Removes a transfer's folder with everything in it. Blocking; repeating is safe.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub fn remove(&self, room: Room, scope: &AgentScope, id: TransferId) -> Result<()> {
        let folder = self.folder(room, scope, id);
        let failed = |e| file_failure("remove the folder", &folder, e);
        let size = self.quota.size_of(&folder).map_err(failed)?;
        ignore_missing(self.files.remove_dir_all(&folder)).map_err(failed)?;
        self.quota.shrink(scope.tenant(), size);
        if let Some(parent) = folder.parent() {
            ignore_missing(self.files.sync_dir(parent)).map_err(failed)?;
        }
        Ok(())
    }

    /// The ids of the uplinks that an agent has a folder of, after `after`, at most a page. Blocking.
    fn folders(&self, scope: &AgentScope, after: Option<&str>) -> io::Result<(Vec<TransferId>, Option<String>)> {
        let page = match self.files.list(&self.room(Room::Uplink, scope), after, PAGE) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), None)),
            other => other?,
        };
        let next = (page.len() == PAGE).then(|| page.last().map(|entry| entry.name.clone())).flatten();
        let ids = page.iter().filter(|entry| entry.stat.kind == FileKind::Dir).filter_map(|entry| entry.name.parse().ok());
        Ok((ids.collect(), next))
    }

    /// The SHA-256 of a file of a transfer, read piece by piece; `None` where it is not there. Blocking.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub fn digest(&self, room: Room, scope: &AgentScope, id: TransferId, name: &str) -> Result<Option<Sha256Digest>> {
        let path = self.path(room, scope, id, name);
        let mut hasher = Sha256Hasher::new();
        match each_chunk(&*self.files, &path, u64::MAX, |bytes| hasher.update(bytes)) {
            Ok(()) => Ok(Some(hasher.finish())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(file_failure("read", &path, e)),
        }
    }

    /// Removes the folders of transfers that were never completed and have not been touched since `before`, and returns
    /// how many. Each is frozen while it is looked at and removed; one that somebody uses is left for the next time, so that nobody's
    /// app server holds up the upkeep of all tenants.
    ///
    /// # Errors
    /// [`Code::FileFailed`], [`Code::JournalFailed`].
    pub async fn remove_abandoned(self: &Arc<Self>, scope: &AgentScope, before: jiff::Timestamp) -> Result<usize> {
        let (mut removed, mut after) = (0, None::<String>);
        loop {
            let (spool, wanted, from) = (Arc::clone(self), scope.clone(), after.clone());
            let listing = blocking(move || spool.folders(&wanted, from.as_deref()));
            let (ids, next) = listing.await?.map_err(|e| file_failure("list the folder", &self.room(Room::Uplink, scope), e))?;
            for id in ids {
                let key = scope.key(id);
                if !self.is_open(&key).await? {
                    continue;
                }
                let Some(_frozen) = self.gates.of(&key).try_freeze().await else { continue };
                // It may have been claimed since.
                if !self.is_open(&key).await? {
                    continue;
                }
                let (spool, owner) = (Arc::clone(self), scope.clone());
                let gone = blocking(move || spool.remove_where_old(&owner, id, before)).await??;
                removed += usize::from(gone);
            }
            if next.is_none() {
                return Ok(removed);
            }
            after = next;
        }
    }

    fn remove_where_old(&self, scope: &AgentScope, id: TransferId, before: jiff::Timestamp) -> Result<bool> {
        let folder = self.folder(Room::Uplink, scope, id);
        let touched = |path: &Path| self.files.stat(path).ok().and_then(|stat| stat.modified);
        let newest = self
            .list(Room::Uplink, scope, id, usize::MAX)?
            .iter()
            .filter_map(|file| touched(&folder.join(file.name.as_str())))
            .max();
        let old = newest.max(touched(&folder)).is_some_and(|at| at < before);
        if old {
            self.remove(Room::Uplink, scope, id)?;
        }
        Ok(old)
    }

    /// Every agent that has a folder here. Blocking.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub(crate) fn agents(&self) -> Result<Vec<AgentScope>> {
        self.agents_in(&self.root)
    }

    fn agents_in(&self, root: &Path) -> Result<Vec<AgentScope>> {
        let names = |dir: &Path| count::names(&*self.files, dir);
        let failed = |e| file_failure("list the folder", root, e);
        let mut agents = Vec::new();
        for tenant in names(root).map_err(failed)? {
            let Ok(name) = tenant.parse() else { continue };
            let scope = TenantScope::proven(name);
            let below = names(&root.join(&tenant)).map_err(failed)?;
            agents.extend(below.iter().filter_map(|agent| Some(scope.agent(agent.parse().ok()?))));
        }
        Ok(agents)
    }

    /// Whether the spool can be written to now. Blocking.
    ///
    /// # Errors
    /// [`Code::DiskFull`] below the reserve, [`Code::FileFailed`].
    pub fn health(&self) -> Result<()> {
        let path = self.root.join(".health");
        let written = towpath_transport::files::write_whole(&*self.files, &path, b"ok\n");
        written.map_err(|e| file_failure("write", &path, e))?;
        if self.quota.below_reserve() {
            return Err(Failure::retry(Code::DiskFull, "the spool's disk is below its reserve"));
        }
        Ok(())
    }

    /// Waits until no operation changes the folder and keeps every further one out while the answer lives. What is
    /// written to the journal meanwhile decides whether the folder is open afterwards.
    pub async fn freeze(&self, scope: &AgentScope, id: TransferId) -> Frozen {
        self.gates.of(&scope.key(id)).freeze().await
    }

    /// Whether the agent may change the transfer's folder: nothing was claimed yet, or something was found missing.
    async fn is_open(&self, key: &TransferKey) -> Result<bool> {
        let record = self.journal.get(key).await.map_err(Failure::from)?;
        Ok(record.is_none_or(|record| matches!(record.state, TransferState::Incomplete { .. })))
    }
}

/// Runs file work on a blocking thread.
///
/// # Errors
/// [`Code::Cancelled`] where the runtime shuts down.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    towpath_transport::files::blocking(work)
        .await
        .map_err(|e| Failure::retry(Code::Cancelled, "file work was given up").caused_by(e))
}
