//! The three programs as processes of this same executable.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde::Deserialize;
use tokio::process::{Child, Command};

use super::{DemoError, io};
use crate::roles::ROLE;

/// How long a server may take until it says where it listens.
const START: Duration = Duration::from_secs(30);
/// How often its `listening.json` is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// How long a server may take to end.
const STOP: Duration = Duration::from_secs(30);

/// One of the programs with its configuration and state.
#[derive(Debug, Clone)]
pub(super) struct Program {
    executable: PathBuf,
    role: &'static str,
    /// Its configuration file.
    pub(super) config: PathBuf,
    /// Its state folder.
    pub(super) state: PathBuf,
    log: PathBuf,
}

/// A program that runs until it is stopped.
#[derive(Debug)]
pub(super) struct Server {
    name: &'static str,
    child: Child,
    /// What it said about where it listens.
    pub(super) listening: Listening,
}

/// `listening.json`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Listening {
    /// Addresses for the other programs.
    pub(super) listen: Vec<String>,
}

impl Program {
    /// The program `role` with a folder of its own below `dir`.
    pub(super) fn new(dir: &Path, role: &'static str) -> Result<Self, DemoError> {
        let executable = std::env::current_exe().map_err(io("finding the demo's own executable failed"))?;
        let folder = dir.join(role);
        std::fs::create_dir_all(&folder).map_err(io(format!("creating {} failed", folder.display())))?;
        let log = folder.join("log.txt");
        Ok(Self { executable, role, config: folder.join(format!("{role}.toml")), state: folder.join("state"), log })
    }

    /// Writes the configuration file.
    pub(super) fn configure(&self, text: &str) -> Result<(), DemoError> {
        std::fs::write(&self.config, text).map_err(io(format!("writing {} failed", self.config.display())))
    }

    /// The command line a user would type.
    pub(super) fn command_line(&self) -> String {
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        format!(
            "{} {ROLE} {} --config {} --state {}",
            quoted(&self.executable),
            self.role,
            quoted(&self.config),
            quoted(&self.state)
        )
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command.args([ROLE, self.role, "--config"]).arg(&self.config).arg("--state").arg(&self.state).args(arguments);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end and returns what it printed.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<String, DemoError> {
        self.finish(self.command(arguments), arguments).await
    }

    /// As [`Program::run`], with its progress in front of the user.
    pub(super) async fn run_in_front(&self, arguments: &[&str]) -> Result<String, DemoError> {
        let mut command = self.command(arguments);
        command.stderr(Stdio::inherit()).stdout(Stdio::piped());
        let child = command.spawn().map_err(io(format!("starting towpath-{} failed", self.role)))?;
        let output = child.wait_with_output().await.map_err(io(format!("waiting for towpath-{} failed", self.role)))?;
        self.checked(arguments, &output)
    }

    async fn finish(&self, mut command: Command, arguments: &[&str]) -> Result<String, DemoError> {
        let output = command.output().await.map_err(io(format!("starting towpath-{} failed", self.role)))?;
        self.checked(arguments, &output)
    }

    fn checked(&self, arguments: &[&str], output: &Output) -> Result<String, DemoError> {
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            return Ok(said);
        }
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        // The first word is the command; what follows may be an enrolment code.
        let command = arguments.first().copied().unwrap_or_default();
        Err(DemoError::Program(format!("`towpath-{} {command}` ended with {}: {said} {why}", self.role, output.status)))
    }

    /// Starts a program that listens nowhere.
    pub(super) fn start(&self, arguments: &[&str]) -> Result<Server, DemoError> {
        let child = self.spawn(arguments)?;
        Ok(Server { name: self.role, child, listening: Listening { listen: Vec::new() } })
    }

    fn spawn(&self, arguments: &[&str]) -> Result<Child, DemoError> {
        let log = File::create(&self.log).map_err(io(format!("creating {} failed", self.log.display())))?;
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(log);
        command.spawn().map_err(io(format!("starting towpath-{} failed", self.role)))
    }

    /// Starts a server and waits until it listens.
    pub(super) async fn serve(&self, arguments: &[&str]) -> Result<Server, DemoError> {
        let announced = self.state.join("listening.json");
        if announced.exists() {
            std::fs::remove_file(&announced).map_err(io(format!("removing {} failed", announced.display())))?;
        }
        let mut child = self.spawn(arguments)?;
        let waiting = async {
            let mut look = tokio::time::interval(LOOK);
            loop {
                look.tick().await;
                let text = std::fs::read(&announced).ok();
                if let Some(listening) = text.and_then(|text| serde_json::from_slice::<Listening>(&text).ok()) {
                    return Ok(listening);
                }
                if let Ok(Some(status)) = child.try_wait() {
                    let told = format!("towpath-{} ended with {status}; see {}", self.role, self.log.display());
                    return Err(DemoError::Program(told));
                }
            }
        };
        let listening = tokio::time::timeout(START, waiting).await.map_err(|_| {
            DemoError::Program(format!("towpath-{} did not start to listen; see {}", self.role, self.log.display()))
        })??;
        Ok(Server { name: self.role, child, listening })
    }
}

impl Server {
    /// Asks the server to end, as systemd would, and waits for it.
    pub(super) async fn stop(mut self) -> Result<(), DemoError> {
        terminate(&self.child);
        match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(DemoError::Program(format!("towpath-{} ended with {status}", self.name))),
            Ok(Err(error)) => Err(io(format!("waiting for towpath-{} failed", self.name))(error)),
            Err(_) => Err(DemoError::Program(format!("towpath-{} did not end within {STOP:?}", self.name))),
        }
    }
}

#[cfg(unix)]
fn terminate(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // A process that has ended already needs no signal.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

#[cfg(not(unix))]
fn terminate(child: &Child) {
    // Windows has no signal to ask with; the process ends when its handle is dropped.
    let _ = child;
}
