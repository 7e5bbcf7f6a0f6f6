//! The landing: where the relay puts transfers over SFTP, and how much of them there may be.
//!
//! On disk and for the relay alike: `uplink/<agent>/<transfer>/<file>` below the landing's root, and nothing else exists.
//! A plain OpenSSH server in front of the same folder does as well; then this room is not used.

mod file;
mod gate;
mod listen;
mod view;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::Notify;
use towpath_transfer::{AgentName, FileName, TransferId, manifest::MAX_FILES};
use towpath_transport::{
    files::{FileKind, FileStore},
    server::{FsError, FsResult},
};

pub use listen::{LANDING_USER, LandingServer};
pub use view::LandingView;

use crate::layout::Layout;
use gate::Gate;

/// The suffix of a file that is hidden until it is whole; its name begins with a dot too, which no peer can write.
const HIDDEN_SUFFIX: &str = ".new";
/// Gates that may be remembered without a user before those are dropped.
const IDLE_GATES: usize = 1_000;

/// How much may lie on the landing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LandingLimits {
    /// Bytes that must stay free on the disk, so that imports and receipts still have room. Default 1 GiB.
    pub reserve_bytes: u64,
    /// Agents that have a folder. Default 1,000.
    pub agents: usize,
    /// Transfers of one agent. Default 1,000.
    pub transfers: usize,
    /// Files of one transfer, those still being written included. Default: those of the largest manifest and 100 more.
    pub files: usize,
}

impl Default for LandingLimits {
    fn default() -> Self {
        Self { reserve_bytes: 1 << 30, agents: 1_000, transfers: 1_000, files: MAX_FILES + 100 }
    }
}

/// The landing's folder on disk.
#[derive(Debug)]
pub struct Landing {
    files: Arc<dyn FileStore>,
    layout: Layout,
    limits: LandingLimits,
    arrived: Arc<Notify>,
    gates: Mutex<HashMap<Spot, Weak<Gate>>>,
}

/// The folder of one transfer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Spot {
    agent: AgentName,
    id: TransferId,
}

impl Landing {
    /// The landing below `layout`. `arrived` is told whenever a manifest gets its name.
    #[must_use]
    pub fn new(files: Arc<dyn FileStore>, layout: Layout, limits: LandingLimits, arrived: Arc<Notify>) -> Self {
        Self { files, layout, limits, arrived, gates: Mutex::default() }
    }

    /// Makes the folders that always exist. Blocking.
    ///
    /// # Errors
    /// As the disk reports.
    pub fn prepare(&self) -> io::Result<()> {
        self.files.create_dir_all(&self.uplink())
    }

    fn uplink(&self) -> PathBuf {
        self.layout.landing().join("uplink")
    }

    fn folder(&self, spot: &Spot) -> PathBuf {
        self.layout.landing_agent(&spot.agent).join(spot.id.to_string())
    }

    fn path(&self, spot: &Spot, name: &FileName) -> PathBuf {
        self.folder(spot).join(name.as_str())
    }

    fn hidden(&self, spot: &Spot, name: &FileName) -> PathBuf {
        self.folder(spot).join(format!(".{name}{HIDDEN_SUFFIX}"))
    }

    /// Refuses what would leave less than the reserve on the disk. Blocking.
    fn check_room(&self, more: u64) -> FsResult<()> {
        match self.files.free_space(&self.uplink()) {
            Ok(free) if free < self.limits.reserve_bytes.saturating_add(more) => Err(FsError::Full),
            // A system that cannot be asked tells by a full disk.
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
            Err(e) => Err(told(&e)),
        }
    }

    fn gate(&self, spot: &Spot) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(spot).and_then(Weak::upgrade) {
            return gate;
        }
        if gates.len() >= IDLE_GATES {
            gates.retain(|_, gate| gate.strong_count() > 0);
        }
        let gate = Arc::new(Gate::default());
        gates.insert(spot.clone(), Arc::downgrade(&gate));
        gate
    }

    /// How many entries of `kind` a folder has, counted to `most` entries of any kind. Blocking.
    fn count(&self, folder: &std::path::Path, kind: FileKind, most: usize) -> FsResult<usize> {
        match self.files.list(folder, None, most) {
            Ok(entries) => Ok(entries.iter().filter(|entry| entry.stat.kind == kind).count()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(told(&e)),
        }
    }
}

/// The name as the peer may see it; `None` for what is not its own.
fn visible_name(name: &str) -> Option<FileName> {
    if name.starts_with('.') { None } else { name.parse().ok() }
}

/// Runs file work on a blocking thread, and tells the peer what became of it without telling about the machine.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> FsResult<T> + Send + 'static) -> FsResult<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| FsError::Failure("the receiver shuts down".to_owned()))?
}

fn told(error: &io::Error) -> FsError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FsError::NotFound,
        io::ErrorKind::AlreadyExists => FsError::Exists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FsError::Full,
        io::ErrorKind::DirectoryNotEmpty => FsError::Failure("Directory not empty".to_owned()),
        _ => {
            tracing::warn!(%error, "the landing's disk failed");
            FsError::Failure("the receiver's disk failed; try again later".to_owned())
        }
    }
}
