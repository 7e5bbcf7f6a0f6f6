//! What an update is done with: the package manager, the service manager, and the agent that runs. A seam, so that tests can put
//! something else here.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use towpath_host::process::{Call, Output, run};
use towpath_transfer::{
    Clock, Code, Failure,
    failure::Result,
    release::{PackageKind, ReleaseVersion},
};

use super::unit;
use crate::{
    control::{self, Answer, Request},
    layout::Layout,
    service::{systemd, unit::UNIT},
};

/// How long an installer may take.
pub const INSTALL_LIMIT: Duration = Duration::from_secs(900);
/// How long it is waited for another installer that holds the system's package database.
pub const LOCK_LIMIT: Duration = Duration::from_secs(600);
/// The pause before such a database is tried again.
const LOCK_PAUSE: Duration = Duration::from_secs(5);
/// How long the agent may take to start anew: as long as its unit lets it stop and start.
const RESTART_LIMIT: Duration = Duration::from_secs(360);
/// How long one call of the service manager may take.
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(60);
/// What of an installer's output is kept, in bytes.
const OUTPUT_BYTES: usize = 16 * 1024;

/// How the agent stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It runs, and answers as this version.
    Runs {
        /// What it says that it is.
        version: ReleaseVersion,
        /// Its process: another one is another start.
        process: u32,
    },
    /// Not yet.
    NotYet(String),
    /// It has ended by itself.
    Broken(String),
}

/// What an update is done with.
#[async_trait]
pub trait Means: Send + Sync {
    /// Whether a copy of this program can be run where it lies: `/var` may be mounted without that right.
    ///
    /// # Errors
    /// `update-refused`.
    async fn check_program(&self, program: &Path) -> Result<()>;

    /// Lets the service begin that goes on with the update; it has just been written.
    ///
    /// # Errors
    /// `service-failed`.
    async fn start(&self) -> Result<()>;

    /// Tells the service manager that the service is gone.
    async fn forget(&self);

    /// Asks the agent to begin nothing new: 0, or how many transfers are open and keep it from that.
    ///
    /// # Errors
    /// `not-running`, and as the agent answers.
    async fn hold(&self) -> Result<usize>;

    /// Lets the agent begin again, where one runs.
    async fn release(&self);

    /// Installs a package, an older one as well.
    ///
    /// # Errors
    /// `update-failed` with what the installer said.
    async fn install(&self, kind: PackageKind, package: &Path) -> Result<()>;

    /// Starts the agent anew, also where it is being started again and again, and waits until it is ready or has ended.
    ///
    /// # Errors
    /// `service-failed`.
    async fn restart(&self) -> Result<()>;

    /// How the agent stands.
    async fn health(&self) -> Health;
}

/// The system's own.
#[derive(Debug, Clone)]
pub struct SystemMeans {
    /// The agent's state folder.
    pub layout: Layout,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl SystemMeans {
    async fn systemctl(&self, words: &[&str]) -> Result<()> {
        self.call("systemctl", words, SYSTEMCTL_LIMIT, Code::ServiceFailed).await.map(drop).map_err(|(failure, _)| failure)
    }

    /// Runs a program to its end; what it has printed, also where it has failed.
    async fn call(&self, program: &str, words: &[&str], timeout: Duration, code: Code) -> Result<String, (Failure, String)> {
        let output = Output::new(OUTPUT_BYTES);
        let call = Call {
            program: program.into(),
            arguments: words.iter().map(|word| (*word).to_owned()).collect(),
            folder: None,
            // What is asked on a terminal has nobody to answer it.
            environment: vec![("DEBIAN_FRONTEND", Some("noninteractive".into())), ("LC_ALL", Some("C.UTF-8".into()))],
            input: Vec::new(),
            timeout,
            code,
        };
        match run(&*self.clock, &call, &output).await {
            Ok(()) => Ok(output.text()),
            Err(failure) => Err((failure, output.text())),
        }
    }
}

/// The installer of a kind, and its words before the package. Both go back to an older version as well; neither asks a network for
/// anything, so that nothing is installed but what was signed.
fn installer(kind: PackageKind) -> Result<(&'static str, &'static [&'static str])> {
    match kind {
        PackageKind::Deb => Ok(("dpkg", &["--force-confdef", "--force-confold", "--install"])),
        PackageKind::Rpm => Ok(("rpm", &["--upgrade", "--oldpackage", "--replacepkgs"])),
        other => Err(Failure::park(Code::UpdateFailed, format!("nothing installs packages of the kind {other} here"))),
    }
}

/// Whether an installer says that another one is at work: dpkg(1) and rpm(8) name the lock.
fn is_locked(said: &str) -> bool {
    said.lines().any(|line| line.contains("lock") && (line.contains("dpkg") || line.contains("transaction")))
}

#[async_trait]
impl Means for SystemMeans {
    async fn check_program(&self, program: &Path) -> Result<()> {
        let done = self.call(&program.to_string_lossy(), &["--version"], SYSTEMCTL_LIMIT, Code::UpdateRefused).await;
        done.map(drop).map_err(|(failure, _)| {
            let message = format!("a copy of this program cannot be run in {}", program.parent().unwrap_or(program).display());
            Failure::park(Code::UpdateRefused, message).caused_by(failure)
        })
    }

    async fn start(&self) -> Result<()> {
        self.systemctl(&["daemon-reload"]).await?;
        self.systemctl(&["start", "--no-block", unit::NAME]).await
    }

    async fn forget(&self) {
        if let Err(failure) = self.systemctl(&["daemon-reload"]).await {
            tracing::warn!(code = %failure.code(), error = %failure.report(), "systemd was not told that the update is over");
        }
    }

    async fn hold(&self) -> Result<usize> {
        match control::ask(&self.layout, &*self.clock, &Request::Hold).await? {
            Answer::Held { open } => Ok(open),
            other => Err(Failure::park(Code::RequestInvalid, format!("the agent answers {other:?}"))),
        }
    }

    async fn release(&self) {
        if let Err(failure) = control::ask(&self.layout, &*self.clock, &Request::GoOn).await {
            tracing::warn!(code = %failure.code(), error = %failure.report(), "the agent goes on by itself when its pause is over");
        }
    }

    async fn install(&self, kind: PackageKind, package: &Path) -> Result<()> {
        let (program, words) = installer(kind)?;
        let package = package.to_string_lossy();
        let words: Vec<&str> = words.iter().copied().chain([&*package]).collect();
        let until = self.clock.monotonic().saturating_add(LOCK_LIMIT);
        loop {
            match self.call(program, &words, INSTALL_LIMIT, Code::UpdateFailed).await {
                Ok(said) => {
                    tracing::info!(package = &*package, "installed: {}", said.trim());
                    return Ok(());
                }
                Err((_, said)) if is_locked(&said) && self.clock.monotonic() < until => {
                    tracing::info!("another installer is at work; it is waited for");
                    self.clock.sleep(LOCK_PAUSE).await;
                }
                Err((failure, said)) => {
                    tracing::error!(package = &*package, "the installer has failed: {}", said.trim());
                    return Err(failure);
                }
            }
        }
    }

    async fn restart(&self) -> Result<()> {
        let done = self.call("systemctl", &["restart", UNIT], RESTART_LIMIT, Code::ServiceFailed).await;
        done.map(drop).map_err(|(failure, _)| failure)
    }

    async fn health(&self) -> Health {
        let shown = systemd::run("systemctl", &["show", UNIT, "--property=ActiveState,SubState,Result,MainPID"]);
        let shown = match shown {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) => return Health::NotYet(format!("systemd cannot be asked: {error}")),
        };
        let value = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
        let (active, sub, result) = (value("ActiveState"), value("SubState"), value("Result"));
        if active != "active" {
            let told = format!("its service is {active} ({sub}), with the result {result}");
            // systemd starts it again and again; once is enough to know.
            let ended = active == "failed" || sub.starts_with("auto-restart");
            return if ended { Health::Broken(told) } else { Health::NotYet(told) };
        }
        let process = value("MainPID").parse().unwrap_or_default();
        match control::ask(&self.layout, &*self.clock, &Request::Version).await {
            Ok(Answer::Version { version }) => match version.parse() {
                Ok(version) => Health::Runs { version, process },
                Err(error) => Health::NotYet(format!("it answers that its version is {version:?}: {error}")),
            },
            Ok(other) => Health::NotYet(format!("it answers {other:?}")),
            Err(failure) => Health::NotYet(failure.report()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_locked_is_waited_for() {
        assert!(is_locked("dpkg: error: dpkg frontend lock was locked by another process with pid 7\nNote: x"));
        assert!(is_locked("error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Resource temporarily unavailable)"));
        assert!(!is_locked("dpkg: error processing archive x.deb (--install):\n cannot access archive"));
        assert!(installer(PackageKind::Msi).is_err() && installer(PackageKind::Rpm).is_ok());
    }
}
