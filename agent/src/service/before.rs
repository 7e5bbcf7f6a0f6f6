//! How the service stood before its package was taken away, for the one that follows. It lies in root's folder: whoever could write it
//! would choose the account that the service runs as.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use towpath_platform::{folders::Chosen, services::Standing};
use towpath_transfer::{Code, Failure, failure::Result};
use towpath_transport::files::{Disk, FileStore as _, file_failure, ignore_missing};

use crate::{small_file, update::kept};

/// The longest note, in bytes.
pub const MAX_NOTE_BYTES: usize = 4 * 1024;

/// What is known of the service that was taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Whether it ran.
    pub running: bool,
    /// The account that it ran as.
    pub account: Option<String>,
    /// The folder of its data.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// The folder of its program.
    #[serde(default)]
    pub program: Option<PathBuf>,
}

impl Before {
    fn path(kept: &Path) -> PathBuf {
        kept.join("before-removal.json")
    }

    /// What was noted; nothing where nothing was, or where it cannot be read.
    #[must_use]
    pub fn read(kept: &Path) -> Self {
        let read = small_file::read(&Disk, &Self::path(kept), MAX_NOTE_BYTES);
        read.ok().flatten().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Takes note of how a service stands, and where it lies: `chosen`. What was noted stays until a set-up has done what it says: a
    /// package that was interrupted, or whose program did nothing, leaves a service of its own, with an account that nobody has chosen.
    ///
    /// # Errors
    /// As the disk reports.
    pub fn note(kept: &Path, standing: &Standing, chosen: Chosen) -> Result<()> {
        kept::claim(kept)?;
        let noted = Self::read(kept);
        let before = Self {
            running: noted.running || standing.running,
            account: noted.account.or_else(|| standing.account.clone()),
            data: noted.data.or(chosen.data),
            program: noted.program.or(chosen.program),
        };
        let text = serde_json::to_vec(&before)
            .map_err(|error| Failure::park(Code::Internal, "writing how the service stands").caused_by(error))?;
        small_file::write(&Disk, &Self::path(kept), &text)
    }

    /// Which folders the package that follows is to be told, because nothing tells it any more.
    #[must_use]
    pub fn missing(self, chosen: &Chosen) -> Chosen {
        let lost = |now: &Option<PathBuf>, noted: Option<PathBuf>| noted.filter(|_| now.is_none());
        Chosen { data: lost(&chosen.data, self.data), program: lost(&chosen.program, self.program) }
    }

    /// What was noted is done.
    ///
    /// # Errors
    /// As the disk reports.
    pub fn forget(kept: &Path) -> Result<()> {
        let path = Self::path(kept);
        ignore_missing(Disk.remove(&path)).map_err(|error| file_failure("removing", &path, error))
    }
}
