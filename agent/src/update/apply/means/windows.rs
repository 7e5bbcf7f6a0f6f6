//! Services, tasks and Windows Installer.

use std::path::Path;

use async_trait::async_trait;
use towpath_host::process::{Output, run, run_to_status};
use towpath_platform::services::Standing;
use towpath_transfer::{Code, Failure, failure::Result, release::PackageKind};

use super::{
    super::runner, Health, INSTALL_LIMIT, InstallEnd, Means, OUTPUT_BYTES, PROGRAM_LIMIT, SystemMeans, call, not_runnable,
};
use crate::service::{before::Before, tasks, windows};

/// What Windows Installer tells of the last package, beside the packages.
const LOG: &str = "installer.log";
/// `ERROR_INSTALL_ALREADY_RUNNING` of winerror.h: Windows Installer does one thing at a time.
const ALREADY_RUNNING: i32 = 1618;
/// It is done: as it should be, with a restart of Windows that was begun (`ERROR_SUCCESS_REBOOT_INITIATED`), or that is still to come
/// (`ERROR_SUCCESS_REBOOT_REQUIRED`).
const DONE: [i32; 3] = [0, 1641, 3010];

#[async_trait]
impl Means for SystemMeans {
    async fn check_program(&self, program: &Path) -> Result<()> {
        let call = call(&program.to_string_lossy(), &["--version"], PROGRAM_LIMIT, Code::UpdateRefused);
        run(&*self.clock, &call, &Output::new(OUTPUT_BYTES)).await.map_err(|failure| not_runnable(program, failure))
    }

    async fn start(&self) -> Result<()> {
        tasks::register_file(runner::NAME, &runner::file(&self.kept))?;
        tasks::run(runner::NAME)
    }

    async fn forget(&self) {
        // None was made where an update was not begun.
        if let Err(failure) = tasks::remove(runner::NAME) {
            tracing::debug!(code = %failure.code(), error = %failure.report(), "the update's task was not removed");
        }
    }

    async fn hold(&self) -> Result<usize> {
        self.ask_to_hold().await
    }

    async fn release(&self) {
        self.ask_to_go_on().await;
    }

    async fn install(&self, kind: PackageKind, package: &Path) -> Result<InstallEnd> {
        if kind != PackageKind::Msi {
            return Err(Failure::park(Code::UpdateFailed, format!("nothing installs packages of the kind {kind} here")));
        }
        let chosen = windows::chosen_folders()?;
        // The package that goes notes this as well, if its program works. An agent that is updated is one that has run, also where it was
        // not started again after a power loss, and a new version shows that it works by running.
        if let Some(standing) = windows::status()? {
            Before::note(&self.kept, &Standing { running: true, ..standing }, chosen.clone())?;
        }
        // A power loss may have left nothing of the package that was there, and the next one would begin in the folders of a new one.
        windows::choose_folders(&Before::read(&self.kept).missing(&chosen))?;
        let (program, log) = (tasks::system32().join("msiexec.exe"), self.kept.join(LOG));
        let (program, log, package) = (program.to_string_lossy(), log.to_string_lossy(), package.to_string_lossy());
        let words = ["/i", &*package, "/qn", "/norestart", "GOBACK=1", "/l*v", &*log];
        let call = call(&program, &words, INSTALL_LIMIT, Code::UpdateFailed);
        match run_to_status(&*self.clock, &call, &Output::new(OUTPUT_BYTES)).await?.code() {
            Some(status) if DONE.contains(&status) => {
                tracing::info!(package = &*package, status, "installed");
                Ok(InstallEnd::Done)
            }
            Some(ALREADY_RUNNING) => Ok(InstallEnd::Busy),
            status => {
                let status = status.unwrap_or_default();
                let message = format!("Windows Installer ended with {status}; what it did stands in {log}");
                Err(Failure::park(Code::UpdateFailed, message))
            }
        }
    }

    async fn restart(&self) -> Result<()> {
        windows::restart()
    }

    async fn health(&self) -> Health {
        match windows::status() {
            Err(failure) => Health::NotYet(format!("the services cannot be asked: {}", failure.report())),
            Ok(None) => Health::Broken("its service is not there".to_owned()),
            // Windows starts it again after a minute; once is enough to know.
            Ok(Some(standing)) if standing.state == "stopped" => Health::Broken("its service is stopped".to_owned()),
            Ok(Some(standing)) if !standing.running => Health::NotYet(format!("its service is {}", standing.state)),
            Ok(Some(standing)) => self.version(standing.pid.unwrap_or_default()).await,
        }
    }
}
