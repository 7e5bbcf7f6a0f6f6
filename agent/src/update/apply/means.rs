//! What an update is done with: the package manager, the service manager, and the agent that runs. A seam, so that tests can put
//! something else here.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use towpath_host::process::Call;
use towpath_transfer::{
    Clock, Code, Failure,
    failure::Result,
    release::{PackageKind, ReleaseVersion},
};

use crate::{
    control::{self, Answer, Request},
    layout::Layout,
};

/// How long an installer may take.
pub const INSTALL_LIMIT: Duration = Duration::from_secs(900);
/// How long the kept program may take to say its version.
const PROGRAM_LIMIT: Duration = Duration::from_secs(60);
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

/// How an installer has ended that has not failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallEnd {
    /// The package is installed.
    Done,
    /// Another installer is at work, and nothing has changed.
    Busy,
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
    async fn install(&self, kind: PackageKind, package: &Path) -> Result<InstallEnd>;

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
    /// Root's folder.
    pub kept: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl SystemMeans {
    async fn ask_to_hold(&self) -> Result<usize> {
        match control::ask(&self.layout, &*self.clock, &Request::Hold).await? {
            Answer::Held { open } => Ok(open),
            other => Err(Failure::park(Code::RequestInvalid, format!("the agent answers {other:?}"))),
        }
    }

    async fn ask_to_go_on(&self) {
        if let Err(failure) = control::ask(&self.layout, &*self.clock, &Request::GoOn).await {
            tracing::warn!(code = %failure.code(), error = %failure.report(), "the agent goes on by itself when its pause is over");
        }
    }

    /// What the agent answers that runs in this process.
    async fn version(&self, process: u32) -> Health {
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

/// A call of a program that is asked nothing.
fn call(program: &str, words: &[&str], timeout: Duration, code: Code) -> Call {
    Call {
        program: program.into(),
        arguments: words.iter().map(|word| (*word).to_owned()).collect(),
        folder: None,
        // What is asked on a terminal has nobody to answer it.
        environment: vec![("DEBIAN_FRONTEND", Some("noninteractive".into())), ("LC_ALL", Some("C.UTF-8".into()))],
        input: Vec::new(),
        timeout,
        code,
    }
}

/// That a copy of this program cannot be run where it was put.
fn not_runnable(program: &Path, failure: Failure) -> Failure {
    let message = format!("a copy of this program cannot be run in {}", program.parent().unwrap_or(program).display());
    Failure::park(Code::UpdateRefused, message).caused_by(failure)
}
