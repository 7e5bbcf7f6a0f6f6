//! What is installed, as its package says.

use std::path::Path;

use serde::{Deserialize, Serialize};
use towpath_transfer::{
    Code, Failure,
    failure::Result,
    release::{Package, PackageKind, Release, ReleaseVersion},
};
use towpath_transport::files::Disk;

use crate::small_file;

/// The largest record, in bytes.
pub const MAX_RECORD_BYTES: usize = 4 * 1024;

/// The package by which this agent was installed. The package has this as a file: it names the platform, and the version for which a
/// restart is to be waited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Whose installer has installed it.
    pub kind: PackageKind,
    /// Its version.
    pub version: ReleaseVersion,
    /// Its architecture, as a [`Package`] names it.
    pub arch: String,
}

impl Installed {
    /// Reads what the package says at `record`. Blocking.
    ///
    /// # Errors
    /// `update-refused` where no package has installed this agent; `file-failed` where the record is damaged.
    pub fn read(record: &Path) -> Result<Self> {
        let Some(bytes) = small_file::read(&Disk, record, MAX_RECORD_BYTES)? else {
            let message = format!(
                "this agent was not installed by a package, because there is no {}: updates are for those that were",
                record.display()
            );
            return Err(Failure::park(Code::UpdateRefused, message));
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::park(Code::FileFailed, format!("reading {}", record.display())).caused_by(error))
    }

    /// The package of a release for this platform.
    ///
    /// # Errors
    /// `update-refused` where it has none.
    pub fn package<'a>(&self, release: &'a Release) -> Result<&'a Package> {
        release.package(self.kind, &self.arch).ok_or_else(|| {
            let message = format!("release {} has no {} package for {}", release.version, self.kind, self.arch);
            Failure::park(Code::UpdateRefused, message)
        })
    }
}
