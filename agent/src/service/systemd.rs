//! Installing the service for systemd, and telling systemd to start and stop it.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::fs::Mode;
use serde::Serialize;
use towpath_host::owner::{self, UserIds};
use towpath_transfer::{Code, Failure, failure::Result};

use super::{
    installation::{Installation, is_agents_or_empty},
    unit::{self, UNIT},
};
use crate::layout::Layout;

mod given;
mod reach;

/// Where an administrator's units lie.
const UNITS: &str = "/etc/systemd/system";
/// There where systemd is the service manager (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";
/// The longest name of a user.
const MAX_USER_CHARS: usize = 31;

/// systemd, as this program uses it.
pub struct Systemd<'a> {
    units: PathBuf,
    /// Whose the configuration is: root, so that the service reads and cannot change it.
    administrator: u32,
    /// Looks up a user of this host.
    user: &'a dyn Fn(&str) -> Result<Option<UserIds>>,
    /// Runs a program with its arguments to its end.
    run: &'a dyn Fn(&str, &[&str]) -> io::Result<Output>,
    /// Is told each step that is done.
    say: &'a dyn Fn(&str),
}

impl std::fmt::Debug for Systemd<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Systemd").field("units", &self.units).finish_non_exhaustive()
    }
}

/// How the service stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Whether the unit is there.
    pub installed: bool,
    /// Whether it is started at boot.
    pub enabled: bool,
    /// Whether it runs and is ready.
    pub running: bool,
    /// systemd's words, such as `active (running)`.
    pub state: String,
    /// The main process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The user it runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How often it was started again since it was started by somebody.
    pub restarts: u32,
    /// What it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
}

/// Runs a program of this host.
///
/// # Errors
/// Where it cannot be started.
pub fn run(program: &str, arguments: &[&str]) -> io::Result<Output> {
    Command::new(program).args(arguments).stdin(Stdio::null()).output()
}

impl<'a> Systemd<'a> {
    /// This host's, where it has systemd and this process may change it.
    ///
    /// # Errors
    /// `service-failed` without systemd, or without the right to change it.
    pub fn of_this_host(say: &'a dyn Fn(&str)) -> Result<Self> {
        booted()?;
        if !owner::is_root() {
            return Err(failed("services are installed, started and stopped by root: run the same command with sudo"));
        }
        Ok(Self { units: UNITS.into(), administrator: 0, user: &owner::user, run: &run, say })
    }

    /// Makes the user, gives it what it must read and write, and writes and enables the unit. May be repeated.
    ///
    /// # Errors
    /// `service-failed`, with what could not be done; what was done before stays.
    pub fn install(&self, of: &Installation, start: bool) -> Result<()> {
        check_user(&of.user)?;
        check_state(&of.state)?;
        let text = unit::text(of)?;
        let ids = self.user(&of.user, &of.state)?;
        fs::create_dir_all(&of.state)
            .map_err(|error| failed(format!("making {} failed", of.state.display())).caused_by(error))?;
        given::folder(&of.state, ids, self.say)?;
        let of_config = UserIds { uid: self.administrator, ..ids };
        given::file(&of.config, of_config, Mode::RUSR | Mode::WUSR | Mode::RGRP, self.say)?;
        for secret in &of.secrets {
            given::file(secret, ids, Mode::RUSR | Mode::WUSR, self.say)?;
        }
        if let Some(log) = &of.log {
            given::log(log, of.log_folder_is_others(), ids, self.say)?;
        }
        for path in [Some(&of.state), Some(&of.config), of.log.as_ref()].into_iter().flatten() {
            given::passage(path, self.administrator, ids, self.say)?;
        }
        self.write_unit(&text)?;
        self.systemctl(&["daemon-reload"])?;
        self.systemctl(&["enable", UNIT])?;
        (self.say)("the service starts with this host");
        // Before it is started, because what they tell may be why it does not.
        for note in of.programs.iter().filter_map(|program| reach::program(program, &of.user, ids)) {
            (self.say)(&note);
        }
        for note in of.secrets.iter().filter_map(|secret| reach::secret(secret, &of.user, ids)) {
            (self.say)(&note);
        }
        for folder in &of.others {
            let (user, shown) = (&of.user, folder.display());
            (self.say)(&format!(
                "note: {user} must be able to read and write {shown}; towpath-agent doctor tells whether it can"
            ));
        }
        if start {
            self.restart()?;
            (self.say)("the service runs");
        } else {
            (self.say)("start it now with: towpath-agent service start");
        }
        Ok(())
    }

    /// Stops and removes the service, and nothing else.
    ///
    /// # Errors
    /// `service-failed`.
    pub fn uninstall(&self) -> Result<()> {
        let file = self.units.join(UNIT);
        if !file.exists() {
            (self.say)("the service is not installed");
            return Ok(());
        }
        self.systemctl(&["disable", "--now", UNIT])?;
        fs::remove_file(&file).map_err(|error| failed(format!("removing {} failed", file.display())).caused_by(error))?;
        self.systemctl(&["daemon-reload"])?;
        (self.say)(&format!("stopped, and removed {}", file.display()));
        if self.is_packaged() {
            // What the package has brought is in force again, and starts with the host as it did before.
            self.systemctl(&["enable", UNIT])?;
            (self.say)("the unit of the package is in force again: towpath-agent service start");
        }
        Ok(())
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// `service-failed`, with where the reason stands.
    pub fn start(&self) -> Result<()> {
        self.installed()?;
        self.systemctl(&["start", UNIT])
    }

    /// Stops it and waits until it has.
    ///
    /// # Errors
    /// `service-failed`.
    pub fn stop(&self) -> Result<()> {
        self.installed()?;
        self.systemctl(&["stop", UNIT])
    }

    /// Stops it where it runs, starts it and waits until it is ready.
    ///
    /// # Errors
    /// As [`Systemd::start`].
    pub fn restart(&self) -> Result<()> {
        self.installed()?;
        self.systemctl(&["restart", UNIT])
    }

    fn installed(&self) -> Result<()> {
        if self.units.join(UNIT).exists() || self.is_packaged() {
            return Ok(());
        }
        Err(failed("the service is not installed; install it with: towpath-agent service install"))
    }

    /// Whether systemd knows a unit of this name that is not ours.
    fn is_packaged(&self) -> bool {
        (self.run)("systemctl", &["cat", UNIT]).is_ok_and(|output| output.status.success())
    }

    fn systemctl(&self, arguments: &[&str]) -> Result<()> {
        let output = (self.run)("systemctl", arguments).map_err(|error| failed("systemctl cannot be run").caused_by(error))?;
        if output.status.success() {
            return Ok(());
        }
        let (said, command) = (String::from_utf8_lossy(&output.stderr), arguments.join(" "));
        let said = said.trim();
        let reason = if arguments.first().is_some_and(|word| ["start", "restart"].contains(word)) {
            "; the reason stands in: journalctl -u towpath-agent -n 20"
        } else {
            ""
        };
        Err(failed(format!("systemctl {command} failed: {said}{reason}")))
    }

    fn user(&self, name: &str, home: &Path) -> Result<UserIds> {
        if let Some(ids) = (self.user)(name)? {
            return Ok(ids);
        }
        let home = home.to_string_lossy();
        let arguments =
            ["--system", "--user-group", "--no-create-home", "--home-dir", &*home, "--shell", "/usr/sbin/nologin", name];
        let output = (self.run)("useradd", &arguments);
        let output = output.map_err(|error| failed(format!("making the user {name} with useradd failed")).caused_by(error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!("making the user {name} with useradd failed: {}", said.trim())));
        }
        (self.say)(&format!("made the system user {name}"));
        (self.user)(name)?.ok_or_else(|| failed(format!("the user {name} is not there after useradd has made it")))
    }

    fn write_unit(&self, text: &str) -> Result<()> {
        let file = self.units.join(UNIT);
        if fs::read_to_string(&file).is_ok_and(|there| there == text) {
            (self.say)(&format!("{} is up to date", file.display()));
            return Ok(());
        }
        let temporary = self.units.join(format!(".{UNIT}.tmp"));
        let write = || {
            let mut new = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o644).open(&temporary)?;
            new.write_all(text.as_bytes())?;
            new.sync_all()?;
            fs::rename(&temporary, &file)?;
            fs::File::open(&self.units)?.sync_all()
        };
        write().map_err(|error| failed(format!("writing {} failed", file.display())).caused_by(error))?;
        (self.say)(&format!("wrote {}", file.display()));
        Ok(())
    }
}

/// How the service stands; everybody may ask.
///
/// # Errors
/// `service-failed` without systemd.
pub fn status() -> Result<Status> {
    booted()?;
    let asked = "--property=LoadState,ActiveState,SubState,MainPID,UnitFileState,User,NRestarts,StatusText";
    let output = run("systemctl", &["show", UNIT, asked]).map_err(|error| failed("systemctl cannot be run").caused_by(error))?;
    if !output.status.success() {
        return Err(failed(format!("systemctl show failed: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(read_status(&String::from_utf8_lossy(&output.stdout)))
}

fn read_status(shown: &str) -> Status {
    let value = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    let text = |name| Some(value(name)).filter(|text| !text.is_empty()).map(str::to_owned);
    let running = value("ActiveState") == "active";
    Status {
        installed: value("LoadState") == "loaded",
        enabled: value("UnitFileState").starts_with("enabled"),
        running,
        state: format!("{} ({})", value("ActiveState"), value("SubState")),
        pid: value("MainPID").parse().ok().filter(|pid| *pid != 0),
        user: text("User"),
        restarts: value("NRestarts").parse().unwrap_or(0),
        says: text("StatusText").filter(|_| running),
    }
}

fn booted() -> Result<()> {
    if Path::new(BOOTED).is_dir() {
        return Ok(());
    }
    Err(failed("systemd does not run here; let your own service manager run in the foreground: towpath-agent run"))
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::park(Code::ServiceFailed, message.into())
}

/// The names that useradd makes.
fn check_user(name: &str) -> Result<()> {
    let (first, rest) = name.split_at_checked(1).unwrap_or(("", ""));
    let starts = first.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let goes_on = rest.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'));
    if name == "root" {
        return Err(failed("the service needs no rights of root: name another user with --user"));
    }
    if starts && goes_on && name.len() <= MAX_USER_CHARS {
        return Ok(());
    }
    Err(failed(format!(
        "{name:?} is no name of a system user: a-z, 0-9, _ and -, at most {MAX_USER_CHARS}, beginning with a letter"
    )))
}

/// Everything in the folder is given to the service, so it must be an agent's, or empty.
fn check_state(state: &Path) -> Result<()> {
    let layout = Layout::new(state);
    let ours = [layout.key(), layout.enrolment(), layout.journal(), layout.lock()];
    // What cannot be read is told by what follows.
    if is_agents_or_empty(state, &ours.each_ref().map(AsRef::as_ref)).unwrap_or(true) {
        return Ok(());
    }
    let shown = state.display();
    Err(failed(format!(
        "{shown} is not empty and holds nothing of an agent, so it is not given to the service; name a folder with --state"
    )))
}

#[cfg(test)]
mod tests;
