//! The update that is under way, as it stands on the disk before and after each step.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use towpath_transfer::{
    Code, Failure, FileName,
    failure::Result,
    release::{PackageKind, ReleaseVersion},
};
use towpath_transport::files::Disk;

use super::{candidate, public_file};
use crate::small_file;

/// Larger than any that is written.
const MAX_BYTES: usize = 64 * 1024;

/// How far an update is. What stands here is begun, and may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Both packages are in root's folder, and nothing is changed.
    Prepared,
    /// The new one is being installed.
    Installing,
    /// It is, and the agent is to show that it works.
    Installed,
    /// The one before is being installed again.
    Reverting,
}

/// A version and its package in root's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The version.
    pub version: ReleaseVersion,
    /// The package's file, in the version's folder.
    pub file: FileName,
}

impl Side {
    pub(super) fn path(&self, kept: &Path) -> PathBuf {
        candidate::kept_folder(kept, self.version).join(self.file.as_str())
    }
}

/// The update that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// How far it is.
    pub step: Step,
    /// Whose installer is used.
    pub kind: PackageKind,
    /// What is gone back to.
    pub from: Side,
    /// What is to follow.
    pub to: Side,
    /// How often the step was begun.
    pub tries: u32,
    /// Why it is undone.
    pub why: String,
    /// Whether a person has begun it, so that neither mode nor window count.
    pub by_hand: bool,
    /// The agent's configuration file.
    pub config_file: PathBuf,
    /// The agent's state folder.
    pub state: PathBuf,
}

impl Open {
    fn path(kept: &Path) -> PathBuf {
        kept.join("open.json")
    }

    /// The one under way, if any.
    ///
    /// # Errors
    /// `file-failed`, also where it is damaged.
    pub fn read(kept: &Path) -> Result<Option<Self>> {
        let path = Self::path(kept);
        let Some(bytes) = small_file::read(&Disk, &path, MAX_BYTES)? else { return Ok(None) };
        let damaged = |error| Failure::park(Code::FileFailed, format!("reading {}", path.display())).caused_by(error);
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Writes down where it stands, durably.
    pub(super) fn write(&self, kept: &Path) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::park(Code::Internal, "writing down an update").caused_by(error))?;
        public_file::write(&Self::path(kept), &bytes, 0o644)
    }

    /// It is over.
    pub(super) fn close(kept: &Path) -> Result<()> {
        public_file::remove(&Self::path(kept))
    }
}
