//! Programs that are started and ended.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long a server may take until it answers; a machine with much else to do takes long.
const START: Duration = Duration::from_secs(120);
/// How long a server may take to end before it is ended hard.
const STOP: Duration = Duration::from_secs(20);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A running server. Dropped, it is ended and waited for.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stop: &'static str,
}

impl Running {
    /// Starts `command`, which ends with this process whatever happens; `answers` says when it is ready. `stop` is the signal that
    /// ends it quickly.
    pub(crate) fn start(
        mut command: Command,
        stop: &'static str,
        log: &Path,
        mut answers: impl FnMut() -> bool,
    ) -> Result<Self, String> {
        let output = fs::File::create(log).map_err(|e| format!("creating {} failed: {e}", log.display()))?;
        let errors = output.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child = child.map_err(|e| format!("starting {command:?} failed: {e}"))?;
        let mut running = Self { child, stop };
        let end = Instant::now() + START;
        while !answers() {
            let ended = running.child.try_wait().map_err(|e| format!("waiting for {command:?} failed: {e}"))?;
            if ended.is_some() || Instant::now() > end {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(format!("{command:?} does not answer ({ended:?}):\n{said}"));
            }
            std::thread::sleep(LOOK);
        }
        Ok(running)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let id = self.child.id().to_string();
        // Whether it was sent shows in what follows.
        drop(Command::new("kill").args([self.stop, &id]).status());
        let end = Instant::now() + STOP;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A command that is run as `user` where this is root, and that ends with this process.
pub(crate) fn command(program: &Path, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]);
    if let Some(user) = user.filter(|_| is_root()) {
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    }
    command.arg("--").arg(program).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command
}

/// Runs a command to its end.
pub(crate) fn succeed(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("starting {command:?} failed: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{command:?} ended with {}:\n{}", output.status, String::from_utf8_lossy(&said)))
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| {
        use std::os::unix::fs::MetadataExt as _;
        me.uid() == 0
    })
}

/// A folder that `user` owns where this is root, and that others may walk through.
pub(crate) fn folder(user: &str) -> Result<tempfile::TempDir, String> {
    let folder = tempfile::Builder::new().prefix("towpath-db-").tempdir().map_err(|e| format!("making a folder failed: {e}"))?;
    succeed(Command::new("chmod").arg("755").arg(folder.path()))?;
    if is_root() {
        succeed(Command::new("chown").arg(user).arg(folder.path()))?;
    }
    Ok(folder)
}

/// A port that is free now. Whoever takes it must be ready to find it taken.
pub(crate) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| format!("finding a free port failed: {e}"))?;
    listener.local_addr().map(|address| address.port()).map_err(|e| format!("finding a free port failed: {e}"))
}

/// The first of these programs that is there.
pub(crate) fn find(names: &[&str], folders: &[PathBuf], package: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = folders.to_vec();
    all.extend(std::env::split_paths(&path));
    all.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = names.iter().find_map(|name| all.iter().map(|folder| folder.join(name)).find(|file| file.is_file()));
    found.ok_or_else(|| format!("{} is missing: apt-get install --no-install-recommends {package}", names.join(" or ")))
}

/// A name that no other test of this or another process has. The ids of processes are used again; the time is not.
pub(crate) fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    format!("{prefix}_{}_{}_{time:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
