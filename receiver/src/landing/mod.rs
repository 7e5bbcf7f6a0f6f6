//! The landing: where the relay puts transfers over SFTP, and how much of them there may be.
//!
//! On disk and for the relay alike: `uplink/<agent>/<transfer>/<file>` below the landing's root, which the relay writes,
//! `downlink/<agent>/<transfer>/<file>`, which it reads, and nothing else exists.
//! A plain OpenSSH server in front of the same folder does as well; then this room is not used.

mod listen;
mod view;

#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, sync::Arc};

use tokio::sync::Notify;
use towpath_transfer::{AgentName, FileName, TransferId, manifest::MAX_FILES};
use towpath_transport::{
    files::{FileKind, FileStore},
    server::{
        FsError, FsResult, Lack,
        stored::{FolderGate, Gates, told},
    },
};

pub use listen::{LANDING_USER, LandingServer};
pub use view::LandingView;

use crate::layout::Layout;

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
    gates: Gates<Spot, FolderGate>,
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
        Self { files, layout, limits, arrived, gates: Gates::default() }
    }

    /// Makes the folders that always exist. Blocking.
    ///
    /// # Errors
    /// As the disk reports.
    pub fn prepare(&self) -> io::Result<()> {
        self.files.create_dir_all(&self.uplink())?;
        self.files.create_dir_all(&self.layout.landing_downlink())
    }

    fn uplink(&self) -> PathBuf {
        self.layout.landing().join("uplink")
    }

    fn folder(&self, spot: &Spot) -> PathBuf {
        self.layout.landing_agent(&spot.agent).join(spot.id.to_string())
    }

    fn laid_out(&self, spot: &Spot) -> PathBuf {
        self.layout.downlink_agent(&spot.agent).join(spot.id.to_string())
    }

    fn path(&self, spot: &Spot, name: &FileName) -> PathBuf {
        self.folder(spot).join(name.as_str())
    }

    /// Refuses what would leave less than the reserve on the disk. Blocking.
    fn check_room(&self, more: u64) -> FsResult<()> {
        match self.files.free_space(&self.uplink()) {
            Ok(free) if free < self.limits.reserve_bytes.saturating_add(more) => Err(FsError::Full(Lack::Reserve)),
            Ok(_) => Ok(()),
            Err(e) => Err(told(&e)),
        }
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
