//! systemd, dpkg and rpm.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use towpath_host::process::{Output, run};
use towpath_transfer::{Code, Failure, failure::Result, release::PackageKind};

use super::{
    super::runner, Health, INSTALL_LIMIT, InstallEnd, Means, OUTPUT_BYTES, PROGRAM_LIMIT, SystemMeans, call, not_runnable,
};
use crate::service::{systemd, unit::UNIT};

/// How long the agent may take to start anew: as long as its unit lets it stop and start.
const RESTART_LIMIT: Duration = Duration::from_secs(360);
/// How long one call of the service manager may take.
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(60);

impl SystemMeans {
    async fn systemctl(&self, words: &[&str]) -> Result<()> {
        self.call("systemctl", words, SYSTEMCTL_LIMIT, Code::ServiceFailed).await.map(drop).map_err(|(failure, _)| failure)
    }

    /// Runs a program to its end; what it has printed, also where it has failed.
    async fn call(&self, program: &str, words: &[&str], timeout: Duration, code: Code) -> Result<String, (Failure, String)> {
        let output = Output::new(OUTPUT_BYTES);
        match run(&*self.clock, &call(program, words, timeout, code), &output).await {
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
        let done = self.call(&program.to_string_lossy(), &["--version"], PROGRAM_LIMIT, Code::UpdateRefused).await;
        done.map(drop).map_err(|(failure, _)| not_runnable(program, failure))
    }

    async fn start(&self) -> Result<()> {
        self.systemctl(&["daemon-reload"]).await?;
        self.systemctl(&["start", "--no-block", runner::NAME]).await
    }

    async fn forget(&self) {
        if let Err(failure) = self.systemctl(&["daemon-reload"]).await {
            tracing::warn!(code = %failure.code(), error = %failure.report(), "systemd was not told that the update is over");
        }
    }

    async fn hold(&self) -> Result<usize> {
        self.ask_to_hold().await
    }

    async fn release(&self) {
        self.ask_to_go_on().await;
    }

    async fn install(&self, kind: PackageKind, package: &Path) -> Result<InstallEnd> {
        let (program, words) = installer(kind)?;
        let package = package.to_string_lossy();
        let words: Vec<&str> = words.iter().copied().chain([&*package]).collect();
        match self.call(program, &words, INSTALL_LIMIT, Code::UpdateFailed).await {
            Ok(said) => {
                tracing::info!(package = &*package, "installed: {}", said.trim());
                Ok(InstallEnd::Done)
            }
            Err((_, said)) if is_locked(&said) => Ok(InstallEnd::Busy),
            Err((failure, said)) => {
                tracing::error!(package = &*package, "the installer has failed: {}", said.trim());
                Err(failure)
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
        self.version(process).await
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
