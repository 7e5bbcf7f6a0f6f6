//! Updates of the agent: what the relay's operator has approved is fetched, and what its maker has signed is believed.
//!
//! The account that the agent runs as may not change programs. It asks ([`Updates::check`]) and fetches ([`Updates::download`]), by the
//! same channel as return files, and lays what it has verified into `update/` of its state folder. What applies it is root's, and
//! believes nothing of what it finds there.

#[cfg(any(target_os = "linux", windows))]
pub mod apply;
mod fetch;
pub mod hold;
mod installed;
#[cfg(any(target_os = "linux", windows))]
pub mod kept;
mod report;
pub mod watch;

#[cfg(test)]
pub(crate) mod tests;

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use towpath_keys::ReleaseKeys;
use towpath_transfer::{Code, Failure, api::MAX_RELEASES, failure::Result, release::ReleaseVersion};

pub use fetch::{DOWNLOAD_TRIES, Told};
pub use installed::{Installed, MAX_RECORD_BYTES};
pub use report::{Attempt, MAX_REFUSED, Outcome, Postponed, Report};

use crate::{blocking::blocking, parts::Parts, small_file};

/// Where Windows has ProgramData, unless it says otherwise.
#[cfg(windows)]
const PROGRAM_DATA: &str = r"C:\ProgramData";

/// Where a system has what is about updates and not the service's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// What the package says of itself.
    pub record: PathBuf,
    /// Root's folder: what is applied, what to go back to, and how the last update has ended.
    pub kept: PathBuf,
}

impl Default for System {
    /// As the packages lay it out.
    #[cfg(not(windows))]
    fn default() -> Self {
        Self { record: "/usr/share/towpath-agent/package.json".into(), kept: "/var/lib/towpath/update".into() }
    }

    /// As the package lays it out: the record lies beside the program, which may be installed anywhere.
    #[cfg(windows)]
    fn default() -> Self {
        let program_data = towpath_platform::folders::program_data().unwrap_or_else(|_| PROGRAM_DATA.into());
        let installed = towpath_platform::folders::program().ok().flatten();
        let folder = installed.or_else(|| std::env::current_exe().ok()?.parent().map(PathBuf::from));
        Self { record: folder.unwrap_or_default().join("package.json"), kept: program_data.join("Towpath Update") }
    }
}

/// What an update may be, before anything is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// What is installed.
    pub installed: Installed,
    /// The versions that are approved for this agent, the oldest first.
    pub approved: Vec<ReleaseVersion>,
    /// The newest of them that this agent would follow.
    pub next: Option<ReleaseVersion>,
    /// Whether that one was fetched already.
    pub fetched: bool,
    /// Versions that did not work here and are not tried again.
    pub refused: Vec<ReleaseVersion>,
    /// How the last update has ended.
    pub last: Option<Attempt>,
}

/// What was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// The version to follow.
    pub version: ReleaseVersion,
    /// The version to go back to.
    pub previous: ReleaseVersion,
}

/// What asks root to apply what lies ready: the file says which version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) version: ReleaseVersion,
}

/// Asks for updates and fetches them.
#[derive(Debug, Clone)]
pub struct Updates {
    parts: Arc<Parts>,
    system: System,
    keys: Option<ReleaseKeys>,
}

impl Updates {
    /// Of this program on this system.
    #[must_use]
    pub fn of(parts: Arc<Parts>) -> Self {
        Self { parts, system: System::default(), keys: None }
    }

    /// Of a system of a test, by these keys.
    #[cfg(test)]
    pub(crate) fn with(parts: Arc<Parts>, system: System, keys: ReleaseKeys) -> Self {
        Self { parts, system, keys: Some(keys) }
    }

    fn keys(&self) -> Result<ReleaseKeys> {
        self.keys.clone().map_or_else(ReleaseKeys::of_this_program, Ok)
    }

    async fn installed(&self) -> Result<(Installed, Report)> {
        let system = self.system.clone();
        blocking(move || Ok((Installed::read(&system.record)?, Report::read(&system.kept)?))).await
    }

    async fn approved(&self) -> Result<Vec<ReleaseVersion>> {
        let mut versions = self.parts.relay.releases().await?.versions;
        if versions.len() > MAX_RELEASES {
            let message = format!("the relay names more than {MAX_RELEASES} releases");
            return Err(Failure::park(Code::RelayProtocol, message));
        }
        versions.sort_unstable();
        versions.dedup();
        Ok(versions)
    }

    /// Asks the relay which versions are approved, and says what follows from that.
    ///
    /// # Errors
    /// `update-refused` where this program takes no updates, or was not installed by a package; as relay and disk report.
    pub async fn check(&self) -> Result<Checked> {
        self.keys()?;
        let (installed, report) = self.installed().await?;
        let approved = self.approved().await?;
        let next = approved.iter().rev().find(|version| is_open(**version, &installed, &report)).copied();
        let fetched = next.is_some_and(|version| self.is_fetched(version));
        Ok(Checked { installed, approved, next, fetched, refused: report.refused, last: report.last })
    }

    /// Whether a release lies here; whoever applies it looks closer.
    fn is_fetched(&self, version: ReleaseVersion) -> bool {
        small_file::exists(&*self.parts.files, &self.parts.layout.update_whole(version))
    }

    /// Asks root to apply a version that lies ready.
    ///
    /// # Errors
    /// As the disk reports.
    pub async fn request(&self, version: ReleaseVersion) -> Result<()> {
        let bytes = serde_json::to_vec(&Request { version })
            .map_err(|error| Failure::park(Code::Internal, "writing what asks for an update").caused_by(error))?;
        let parts = Arc::clone(&self.parts);
        blocking(move || small_file::write(&*parts.files, &parts.layout.update_request(), &bytes)).await
    }
}

/// Whether a version may be followed, as far as its number and what was tried here say.
fn is_open(version: ReleaseVersion, installed: &Installed, report: &Report) -> bool {
    version > installed.version && !report.refused.contains(&version)
}

/// How updates stand on this host, without asking anybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// What is installed, where a package has.
    pub installed: Option<Installed>,
    /// How updates have ended.
    #[serde(flatten)]
    pub report: Report,
}

impl Standing {
    /// Of this system. What cannot be read is not known. Blocking.
    #[must_use]
    pub fn look() -> Self {
        Self::of(&System::default())
    }

    fn of(system: &System) -> Self {
        Self { installed: Installed::read(&system.record).ok(), report: Report::read(&system.kept).unwrap_or_default() }
    }

    /// The version that runs after a start now: the package's, or, without one, the program's own.
    #[must_use]
    pub fn version(&self) -> String {
        let installed = self.installed.as_ref().map(|installed| installed.version.to_string());
        installed.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned())
    }

    /// What a person should know: an update that did not work.
    #[must_use]
    pub fn trouble(&self) -> Option<(Code, &Attempt)> {
        self.report.trouble(self.installed.as_ref()?.version)
    }
}
