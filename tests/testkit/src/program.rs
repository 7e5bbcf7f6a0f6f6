//! One of the programs, as processes.

use std::{
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use towpath_samples::roles::ROLE;

use crate::eventually;

/// A program with its configuration and state.
#[derive(Debug, Clone)]
pub struct Program {
    executable: PathBuf,
    role: &'static str,
    /// The configuration file.
    pub config: PathBuf,
    /// The state folder.
    pub state: PathBuf,
    /// What the server said on standard error.
    pub log: PathBuf,
    environment: Vec<(String, OsString)>,
    launcher: Vec<String>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// Standard output, trimmed.
    pub stdout: String,
    /// Standard error, trimmed.
    pub stderr: String,
}

impl Outcome {
    /// The outcome, where the command succeeded.
    ///
    /// # Panics
    /// Where it failed.
    pub fn succeeded(self) -> Self {
        assert!(self.status.success(), "the command ended with {}\n{}\n{}", self.status, self.stdout, self.stderr);
        self
    }

    /// The outcome, where the command failed with this operator error code.
    ///
    /// # Panics
    /// Where it succeeded, or failed in another way.
    pub fn failed_with(self, code: &str) -> Self {
        let said = format!("{}\n{}", self.stdout, self.stderr);
        assert!(!self.status.success(), "the command succeeded instead of failing with {code}\n{said}");
        assert_eq!(self.status.code(), Some(1), "{said}");
        assert!(said.contains(code), "the command did not fail with {code} but said\n{said}");
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// Where it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON: {e}\n{}\n{}", self.stdout, self.stderr))
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Self { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl Program {
    /// The program `role`, run by `executable`, with a folder of its own below `dir`.
    ///
    /// # Panics
    /// Where the folder cannot be made.
    #[must_use]
    pub fn new(executable: &Path, dir: &Path, role: &'static str, name: &str) -> Self {
        let folder = dir.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self {
            executable: executable.to_owned(),
            role,
            config: folder.join(format!("{role}.toml")),
            state: folder.join("state"),
            log: folder.join("log.txt"),
            environment: Vec::new(),
            launcher: Vec::new(),
        }
    }

    /// Writes the configuration file.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn configure(&self, text: &str) {
        std::fs::write(&self.config, text).unwrap();
    }

    /// The same program with one more environment variable.
    #[must_use]
    pub fn with(&self, name: &str, value: impl Into<OsString>) -> Self {
        let mut changed = self.clone();
        changed.environment.push((name.to_owned(), value.into()));
        changed
    }

    /// The same program, started by another command, such as `ip netns exec NAME`, which becomes the program.
    #[must_use]
    pub fn started_by(&self, launcher: &[&str]) -> Self {
        Self { launcher: launcher.iter().map(|word| (*word).to_owned()).collect(), ..self.clone() }
    }

    /// The command with its arguments, ready to be started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.launcher.split_first() {
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(&self.executable);
                command
            }
            None => Command::new(&self.executable),
        };
        command.args([ROLE, self.role, "--config"]).arg(&self.config).arg("--state").arg(&self.state).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.command(arguments).output().unwrap_or_else(|e| panic!("starting {} failed: {e}", self.role)).into()
    }

    /// Starts a server and waits until it listens.
    ///
    /// # Panics
    /// Where it does not.
    #[must_use]
    pub fn serve(&self, arguments: &[&str]) -> Server {
        let listening = self.state.join("listening.json");
        let _ = std::fs::remove_file(&listening);
        let mut server = self.start(arguments);
        let log = self.log.clone();
        eventually("the server listens", || {
            if let Some(status) = server.ended() {
                panic!("the server ended with {status}: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            let text = std::fs::read(&listening).ok()?;
            serde_json::from_slice::<serde_json::Value>(&text).ok()
        });
        server
    }

    /// Starts a command that goes on by itself, and waits until a line of what it says has all of these words.
    ///
    /// # Panics
    /// Where it ends before.
    #[must_use]
    pub fn start_until(&self, arguments: &[&str], words: &[&str]) -> Server {
        let before = std::fs::metadata(&self.log).map_or(0, |log| log.len());
        let mut server = self.start(arguments);
        eventually(&format!("{} says {words:?}", self.role), || {
            // Asked before the log is read, so that nothing is said afterwards.
            let ended = server.ended();
            let log = std::fs::read(&self.log).unwrap();
            let log = String::from_utf8_lossy(log.get(usize::try_from(before).unwrap()..).unwrap_or_default()).into_owned();
            let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
            assert!(found || ended.is_none(), "it ended with {ended:?}: {log}");
            found.then_some(())
        });
        server
    }

    /// Starts a command that goes on by itself; what it says goes to [`Program::log`].
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Server {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(log);
        Server { child: command.spawn().unwrap() }
    }
}

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// How it ended, where it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("asking for a child's status")
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// Where it does not.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", || self.ended())
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        self.end();
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn end(&mut self) {
        // A process that is over needs no signal, and is reaped all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
