//! Root's part: applies what the agent has fetched, and goes back where it does not work.
//!
//! What lies in the agent's state folder is hostile: whoever has the service's account can write it, and must not get to be root by
//! that. So it is copied by open folders and files that no link leads to, and the copy is what is verified and installed. Two steps, by
//! two services:
//!
//! 1. [`Applier::prepare`], which may do little: takes the new package and the one of the installed version into root's folder, writes
//!    down that an update is [`Open`], keeps a copy of the program that does all this, and makes a service of that.
//! 2. [`Applier::go_on`], in that service, by the copy that is known to work: installs, waits until the agent works, else installs the
//!    version before. It is started at boot as well, so that it goes on after a power loss at any point, whatever then lies in the place
//!    of the program.

mod candidate;
mod course;
mod means;
mod open;
mod public_file;
mod runner;
#[cfg(windows)]
pub mod task;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::tz::TimeZone;
use towpath_host::StateLock;
use towpath_keys::ReleaseKeys;
use towpath_transfer::{
    Clock, Code, Disposition, Failure,
    failure::Result,
    release::{PackageKind, ReleaseVersion},
};

pub use course::{HEALTH_LIMIT, HOLD_LIMIT, LOCK_LIMIT, MAX_TRIES, SETTLED};
pub use means::{Health, INSTALL_LIMIT, InstallEnd, Means, SystemMeans};
pub use open::{Open, Step};

use super::{Installed, Postponed, Report, System, kept, watch};
use crate::{
    config::{UpdateConfig, UpdateMode},
    layout::Layout,
};

/// Where an administrator's units lie, where there are units.
const UNITS: &str = "/etc/systemd/system";
/// The kinds of packages that are installed by this program here.
const INSTALLED: &[PackageKind] = if cfg!(windows) { &[PackageKind::Msi] } else { &[PackageKind::Deb, PackageKind::Rpm] };
/// How often whoever waits for the end of an update looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long the end of an update is waited for: longer than every step of it may take.
pub const FOLLOW_LIMIT: Duration = Duration::from_secs(5_400);

/// Applies updates on one host.
pub struct Applier {
    system: System,
    units: PathBuf,
    /// The program that is known to work.
    program: PathBuf,
    keys: Option<ReleaseKeys>,
    means: Arc<dyn Means>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Applier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applier").field("system", &self.system).finish_non_exhaustive()
    }
}

/// What the agent is applied with.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its state folder.
    pub layout: Layout,
    /// Its configuration file.
    pub config_file: PathBuf,
    /// What that says of updates.
    pub config: UpdateConfig,
    /// Whether a person applies it, at whatever time.
    pub by_hand: bool,
}

/// What came of a preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// An update is under way, of this version.
    Begun(ReleaseVersion),
    /// There is nothing newer.
    Nothing,
    /// The configuration does not allow it now.
    NotNow,
    /// Another process is at it.
    UnderWay,
}

impl Applier {
    /// Of this host, as this process.
    ///
    /// # Errors
    /// `update-failed` where it is not known which program this is.
    pub fn of_this_host(layout: &Layout, clock: Arc<dyn Clock>) -> Result<Self> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::park(Code::UpdateFailed, "finding out which program this is").caused_by(error))?;
        let system = System::default();
        let means = Arc::new(SystemMeans { layout: layout.clone(), kept: system.kept.clone(), clock: Arc::clone(&clock) });
        Ok(Self { system, units: UNITS.into(), program, keys: None, means, clock })
    }

    fn keys(&self) -> Result<ReleaseKeys> {
        self.keys.clone().map_or_else(ReleaseKeys::of_this_program, Ok)
    }

    fn kept(&self) -> &Path {
        &self.system.kept
    }

    /// Root's folder, which everybody may read, and the right to work in it alone.
    fn alone(&self) -> Result<Option<StateLock>> {
        kept::claim(self.kept())?;
        StateLock::try_take(&self.kept().join("lock"))
    }

    /// Takes what lies ready and begins to apply it, or goes on with what is under way.
    ///
    /// # Errors
    /// `update-refused`, `release-invalid`, `digest-mismatch` for what is not taken; as disk and service manager report. Nothing has
    /// changed then.
    pub async fn prepare(&self, site: &Site) -> Result<Prepared> {
        let Some(lock) = self.alone()? else { return Ok(Prepared::UnderWay) };
        let prepared = if let Some(open) = Open::read(self.kept())? {
            Prepared::Begun(open.to.version)
        } else if self.is_allowed(site) {
            match self.take(site).await {
                Ok(Some(version)) => Prepared::Begun(version),
                Ok(None) => Prepared::Nothing,
                Err(failure) => return Err(self.refused(failure)),
            }
        } else {
            Prepared::NotNow
        };
        drop(lock);
        if let Prepared::Begun(_) = prepared {
            self.means.start().await?;
        }
        Ok(prepared)
    }

    /// Whether the configuration lets it begin now.
    fn is_allowed(&self, site: &Site) -> bool {
        site.by_hand
            || site.config.mode == UpdateMode::Install && watch::is_open(&site.config, self.clock.now(), &TimeZone::system())
    }

    /// The agent tells why nothing comes of it.
    fn refused(&self, failure: Failure) -> Failure {
        let refused = failure.disposition() == Disposition::Park;
        if let Err(unwritten) =
            self.wait(Postponed { to: None, at: self.clock.now(), why: failure.message().to_owned(), refused })
        {
            tracing::warn!(code = %unwritten.code(), error = %unwritten.report(), "that an update was refused could not be noted");
        }
        failure
    }

    /// Waits until nothing is under way, and says how it has ended.
    ///
    /// # Errors
    /// `cancelled` after [`FOLLOW_LIMIT`]; as the disk reports.
    pub async fn follow(&self) -> Result<Report> {
        let until = self.clock.monotonic().saturating_add(FOLLOW_LIMIT);
        while Open::read(self.kept())?.is_some() {
            if self.clock.monotonic() >= until {
                let message = format!("the update has not ended within {} s; it goes on by itself", FOLLOW_LIMIT.as_secs());
                return Err(Failure::retry(Code::Cancelled, message));
            }
            self.clock.sleep(LOOK).await;
        }
        Report::read(self.kept())
    }

    fn postpone(&self, to: Option<ReleaseVersion>, why: &str) -> Result<()> {
        self.wait(Postponed { to, at: self.clock.now(), why: why.to_owned(), refused: false })
    }

    fn wait(&self, postponed: Postponed) -> Result<()> {
        let mut report = Report::read(self.kept())?;
        report.postponed = Some(postponed);
        self.tell(&report)
    }

    fn tell(&self, report: &Report) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(report)
            .map_err(|error| Failure::park(Code::Internal, "writing how an update has ended").caused_by(error))?;
        public_file::write(&Report::path(self.kept()), &bytes, 0o644)
    }

    async fn take(&self, site: &Site) -> Result<Option<ReleaseVersion>> {
        let installed = Installed::read(&self.system.record)?;
        if !INSTALLED.contains(&installed.kind) {
            let message = format!("packages of the kind {} are not installed by this program", installed.kind);
            return Err(Failure::park(Code::UpdateRefused, message));
        }
        let (keys, report) = (self.keys()?, Report::read(self.kept())?);
        let taking = candidate::Taking { kept: self.kept(), layout: &site.layout, installed: &installed, keys: &keys };
        let Some(to) = taking.candidate(&report)? else { return Ok(None) };
        let from = taking.previous()?;
        let program = runner::kept_program(self.kept());
        public_file::copy(&self.program, &program, 0o755)?;
        self.means.check_program(&program).await?;
        let open = Open {
            step: Step::Prepared,
            kind: installed.kind,
            from,
            to,
            tries: 0,
            why: String::new(),
            by_hand: site.by_hand,
            config_file: site.config_file.clone(),
            state: site.layout.state().to_owned(),
        };
        // From here on the service that goes on may run at any boot. It finds nothing to do, or this.
        runner::write(&self.units, self.kept(), &open)?;
        open.write(self.kept())?;
        Ok(Some(open.to.version))
    }
}
