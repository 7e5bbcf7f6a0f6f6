//! A machine with a real systemd as PID 1, in namespaces of its own. It boots in about a second.
//!
//! Its `/usr` is this host's, under a layer that takes what the machine writes; `/etc`, `/var` and everything else begin empty, so
//! that nothing that this host has configured or enabled runs in it, and it knows root and nobody else. All that it writes is in
//! memory, stays over a reboot, and is gone with the machine. Its network is a loopback of its own, which it shares with the
//! programs that are started [beside](Machine::beside) it.
//!
//! The kernel is the host's. What is not in a namespace cannot be changed from inside: kernel settings, modules, the clock.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{Outcome, eventually};

const SYSTEMD: &str = "/usr/lib/systemd/systemd";
const BOOT: &str = include_str!("systemd/boot.sh");
/// Where its programs, and those that make it, are found.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// How much a machine may write.
const MEMORY: &str = "size=1g,mode=755";
/// Folders that every system has.
const FOLDERS: [&str; 14] = [
    ".old",
    "dev",
    "etc/systemd/system",
    "home",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "tmp",
    "usr",
    "var/lib",
    "var/log/journal",
    "var/tmp",
];
/// What systemd's packages start in every system, and this one needs. All the rest is for real hardware, or of other packages.
const KEPT: [&str; 10] = [
    "dbus.service",
    "dbus.socket",
    "systemd-journal-flush.service",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
    "systemd-sysusers.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tmpfiles-setup.service",
    "systemd-user-sessions.service",
];
/// How long what is left of a machine is waited for at its end, which is no reason for a test to fail.
const END: Duration = Duration::from_secs(20);

/// A running machine. Dropped, it is gone with everything that ran in it.
#[derive(Debug)]
pub struct Machine {
    /// The memory is mounted below it, which only the holder sees; and what it says before it has a journal.
    folder: tempfile::TempDir,
    /// Keeps the network and the memory while the machine is off. It ends when this process does.
    holder: Child,
    booted: Option<Booted>,
}

#[derive(Debug)]
struct Booted {
    child: Child,
    /// systemd's, as the host numbers it.
    pid: u32,
}

impl Machine {
    /// Boots one that has these programs, by their names.
    ///
    /// # Panics
    /// Where this process may not make namespaces, and where systemd is not installed.
    #[must_use]
    pub fn new(programs: &[(&str, &Path)]) -> Self {
        assert!(Path::new(SYSTEMD).exists(), "{SYSTEMD} is missing: install the package systemd, or run cargo xtask test");
        let folder = tempfile::Builder::new().prefix("towpath-machine-").tempdir().unwrap();
        fs::create_dir(folder.path().join("memory")).unwrap();
        let mut machine = Self { holder: holder(), folder, booted: None };
        machine.mount();
        machine.furnish();
        for (name, program) in programs {
            let place = machine.root().join("usr/bin").join(name);
            File::create(machine.seen(&place)).unwrap();
            machine.hold(&["mount", "--bind", "-o", "ro", text(program), text(&place)]);
        }
        machine.boot();
        machine
    }

    /// A file of the machine, as this process reads and writes it. Links in it that are absolute lead elsewhere.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.seen(&self.root().join(path.trim_start_matches('/')))
    }

    /// Runs a line of the shell in it, as root.
    ///
    /// # Panics
    /// Where it is off.
    #[must_use]
    pub fn run(&self, line: &str) -> Outcome {
        let booted = self.booted.as_ref().expect("the machine runs");
        let mut command = Command::new("nsenter");
        command.args(["--target", &booted.pid.to_string(), "--all", "--", "env", "-i", "--chdir=/"]);
        command.args([&*format!("PATH={PATH}"), "HOME=/root", "LC_ALL=C.UTF-8", "sh", "-c", line]).stdin(Stdio::null());
        command.output().unwrap_or_else(|e| panic!("nsenter: {e}; run cargo xtask test, which installs it")).into()
    }

    /// What systemd says of a unit (`systemctl show`).
    #[must_use]
    pub fn property(&self, unit: &str, property: &str) -> String {
        self.run(&format!("systemctl show --value --property={property} {unit}")).succeeded().stdout
    }

    /// The command that starts a program of this host on the machine's loopback, also while the machine is off.
    #[must_use]
    pub fn beside(&self) -> [String; 3] {
        ["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.holder.id()), "--".to_owned()]
    }

    /// Switches it off as its administrator does, and waits until it is.
    pub fn power_off(&mut self) {
        // The connection may end before the answer.
        let _ = self.run("systemctl poweroff");
        let mut booted = self.booted.take().expect("the machine runs");
        eventually("the machine is off", || booted.child.try_wait().unwrap());
        self.sweep();
    }

    /// Cuts its power: everything in it ends at this moment, and what is on its disk stays as it is.
    pub fn cut_power(&mut self) {
        let booted = self.booted.take().expect("the machine runs");
        self.end(booted);
    }

    /// With its PID 1 the kernel ends everything in it. One that is over needs no signal, and is reaped all the same.
    fn end(&self, mut booted: Booted) {
        let _ = fs::write(self.seen(&self.control()).join("cgroup.kill"), "1");
        let _ = booted.child.kill();
        let _ = booted.child.wait();
        self.sweep();
    }

    /// Boots it, and waits until it is up.
    ///
    /// # Panics
    /// Where a unit of the system has failed.
    pub fn boot(&mut self) {
        let control = self.control();
        self.hold(&["mkdir", text(&control)]);
        let said = self.folder.path().join("console");
        let mut command = self.in_holder();
        let begin = "echo $$ > \"$1/cgroup.procs\" && exec setpriv --pdeathsig KILL -- unshare --mount --uts --ipc --pid --cgroup \
                     --fork --kill-child=KILL -- sh -c \"$3\" boot \"$2\"";
        command.args(["sh", "-c", begin, "begin"]).arg(&control).arg(self.root()).arg(BOOT);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&said).unwrap());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("nsenter: {e}; run cargo xtask test, which installs it"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said = || fs::read_to_string(&said).unwrap_or_default();
        let pid = line.trim().parse().unwrap_or_else(|_| panic!("the machine does not boot: {}", said()));
        self.booted = Some(Booted { child, pid });
        eventually("the machine is up", || {
            let ended = self.booted.as_mut().and_then(|booted| booted.child.try_wait().unwrap());
            assert!(ended.is_none(), "the machine went off with {ended:?}: {}", said());
            let state = self.run("systemctl is-system-running --wait").stdout;
            let failed = ["degraded", "maintenance"].contains(&state.as_str());
            assert!(!failed, "{state}: {}", self.run("systemctl --failed --no-pager; journalctl --no-pager -p err").stdout);
            (state == "running").then_some(())
        });
    }

    /// Its memory: a folder for it, and beside that the layer above `/usr` and its cgroup.
    fn mount(&self) {
        let memory = self.memory();
        self.hold(&["ip", "link", "set", "lo", "up"]);
        self.hold(&["mount", "-t", "tmpfs", "-o", MEMORY, "towpath-machine", text(&memory)]);
        for folder in ["cgroup", "upper", "work"] {
            fs::create_dir(self.seen(&memory.join(folder))).unwrap();
        }
        for folder in FOLDERS {
            fs::create_dir_all(self.path(folder)).unwrap();
        }
        let shown = memory.display();
        let layers = format!("lowerdir=/usr,upperdir={shown}/upper,workdir={shown}/work");
        self.hold(&["mount", "-t", "overlay", "-o", &layers, "overlay", text(&self.root().join("usr"))]);
        self.hold(&["mount", "-t", "cgroup2", "cgroup2", text(&memory.join("cgroup"))]);
    }

    /// What every system has beside `/usr`.
    fn furnish(&self) {
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            if let Ok(to) = fs::read_link(Path::new("/").join(name)) {
                symlink(to, self.path(name)).unwrap();
            }
        }
        symlink("/run", self.path("var/run")).unwrap();
        let write = |name: &str, text: &str| fs::write(self.path(&format!("etc/{name}")), text).unwrap();
        write("passwd", "root:x:0:0:root:/root:/bin/sh\nmessagebus:x:100:101::/nonexistent:/usr/sbin/nologin\n");
        write("group", "root:x:0:\nmessagebus:x:101:\n");
        write("shadow", "root:*:19000:0:99999:7:::\n");
        fs::set_permissions(self.path("etc/shadow"), fs::Permissions::from_mode(0o600)).unwrap();
        write("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n");
        write("hosts", "127.0.0.1 localhost towpath-machine\n");
        // One of its own, and written down: without it systemd takes this for the first boot, and enables whatever is installed.
        let random = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        write("machine-id", &random.replace('-', ""));
        for name in ["ld.so.cache", "login.defs"] {
            let of_host = Path::new("/etc").join(name);
            if of_host.exists() {
                fs::copy(of_host, self.path(&format!("etc/{name}"))).unwrap();
            }
        }
        let units = self.path("etc/systemd/system");
        symlink("/usr/lib/systemd/system/multi-user.target", units.join("default.target")).unwrap();
        for name in wanted_by_packages() {
            symlink("/dev/null", units.join(name)).unwrap();
        }
    }

    fn memory(&self) -> PathBuf {
        self.folder.path().join("memory")
    }

    fn root(&self) -> PathBuf {
        self.memory().join("root")
    }

    /// The machine's cgroup; no other has this name.
    fn control(&self) -> PathBuf {
        self.memory().join("cgroup").join(self.folder.path().file_name().unwrap())
    }

    /// What the holder has under this path.
    fn seen(&self, path: &Path) -> PathBuf {
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(path.strip_prefix("/").unwrap())
    }

    fn in_holder(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--mount", "--net", "--"]).env("PATH", PATH);
        command
    }

    fn hold(&self, words: &[&str]) {
        let output = self.in_holder().args(words).output();
        let output = output.unwrap_or_else(|e| panic!("nsenter: {e}; run cargo xtask test, which installs it"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{}` failed: {said}\n{RIGHTS}", words.join(" "));
    }

    /// Removes the machine's cgroups once nothing is in them any more.
    fn sweep(&self) {
        let control = self.seen(&self.control());
        #[expect(clippy::disallowed_methods, reason = "a test's own patience is real time")]
        let start = Instant::now();
        while control.exists() && !remove_cgroup(&control) && start.elapsed() < END {
            #[expect(clippy::disallowed_methods, reason = "looks at processes that end, which give no signal")]
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(booted) = self.booted.take() {
            self.end(booted);
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

const RIGHTS: &str = "This test boots a systemd in namespaces of its own, for which it must be run by root with CAP_SYS_ADMIN and CAP_NET_ADMIN, and \
     the kernel must have overlayfs and cgroup2";

/// Keeps a mount and a network namespace until its standard input ends, which it does with this process.
fn holder() -> Child {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--propagation", "private", "--", "cat"]).env("PATH", PATH);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut holder = command.spawn().unwrap_or_else(|e| panic!("unshare: {e}; run cargo xtask test, which installs it"));
    // What comes back has gone through the namespaces. Where there are none, its end says so.
    let _ = holder.stdin.as_mut().unwrap().write_all(b"\n");
    let come_back = holder.stdout.as_mut().unwrap().read(&mut [0]).unwrap();
    if come_back == 0 {
        let output = holder.wait_with_output().unwrap();
        panic!("{}\n{RIGHTS}", String::from_utf8_lossy(&output.stderr).trim());
    }
    holder
}

/// The units that packages of this host have any system start, without those that are needed.
fn wanted_by_packages() -> Vec<String> {
    let names = |folder: &Path| -> Vec<PathBuf> { fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let folders = names(Path::new("/usr/lib/systemd/system"));
    let folders = folders.iter().filter(|path| path.extension().is_some_and(|extension| extension == "wants"));
    let mut wanted: Vec<String> = folders
        .flat_map(|folder| names(folder))
        .map(|unit| unit.file_name().unwrap().to_str().unwrap().to_owned())
        .filter(|unit| !unit.ends_with(".target") && !KEPT.contains(&unit.as_str()))
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

/// Removes a cgroup with those below it; false where something still runs in one.
fn remove_cgroup(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return true };
    let below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    below.iter().all(|folder| remove_cgroup(folder)) && fs::remove_dir(folder).is_ok()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of this test is UTF-8")
}
