//! The packages, as an administrator installs, upgrades and removes them on a machine with a real systemd: all three programs on one
//! machine, which talk over its loopback.

use std::{
    fs,
    path::{Path, PathBuf},
};

use towpath_samples::erp::{self, ErpOptions};
use towpath_testkit::{AGENT, JOB, Machine, RECEIVER, TENANT, assert_same_tables, eventually, query_text};

use crate::{
    systemd::{EXPOSURE, exposure},
    tables,
};

/// The versions that `cargo xtask test` makes packages of.
pub(crate) const OLD: &str = "0.1.0";
pub(crate) const NEW: &str = "0.1.1";
const ROLES: [&str; 3] = ["relay", "receiver", "agent"];
pub(crate) const STATE: &str = "/var/lib/towpath";
const KIND: &str = "orders";
/// Where the receiver lands: a port that needs a right of root's. 443 and 80 are the relay's on this machine.
const LANDING: &str = "127.0.0.1:990";

/// Where the packages of a version lie.
pub(crate) fn folder_of(version: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(here, PathBuf::from);
    target.join("packages-of-tests").join(version)
}

/// The packages of a version, whose names end so.
fn packages(version: &str, end: &str) -> Vec<PathBuf> {
    let folder = folder_of(version);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}; cargo xtask test makes them", folder.display()));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.to_str().unwrap().ends_with(end));
    found.sort();
    assert_eq!(found.len(), ROLES.len(), "{found:?}");
    found
}

/// A machine to which all packages were carried.
pub(crate) struct Site {
    pub(crate) machine: Machine,
    /// Databases of the machine, as SQLite can open them here: it follows no path into another process's root.
    copies: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new(end: &str) -> Self {
        let machine = Machine::new(&[]);
        for version in [OLD, NEW] {
            let folder = machine.path(&format!("/srv/{version}"));
            fs::create_dir_all(&folder).unwrap();
            for package in packages(version, end) {
                fs::copy(&package, folder.join(package.file_name().unwrap())).unwrap();
            }
        }
        Self { machine, copies: tempfile::tempdir().unwrap() }
    }

    #[track_caller]
    pub(crate) fn run(&self, line: &str) -> String {
        self.machine.run(line).succeeded().stdout
    }

    pub(crate) fn property(&self, role: &str, name: &str) -> String {
        self.machine.property(&format!("towpath-{role}.service"), name)
    }

    fn is_active(&self, role: &str) -> bool {
        self.property(role, "ActiveState") == "active"
    }

    /// The whole set-up, with everything running: an ERP beside the agent, whose folders are opened by a drop-in.
    pub(crate) fn set_up(&self) {
        let machine = &self.machine;
        let config = fs::read_to_string(machine.path("/etc/towpath/relay.toml")).unwrap();
        let config = config.replace("public_url = \"https://localhost\"", "public_url = \"https://127.0.0.1\"");
        fs::write(machine.path("/etc/towpath/relay.toml"), config).unwrap();
        // The machine has less memory in the place of a disk than is kept free of one.
        let _ = self.run("sed -i 's/^reserve = .*/reserve = \"16MiB\"/' /etc/towpath/relay.toml /etc/towpath/receiver.toml");
        let _ = self.run("systemctl start towpath-relay && towpath-relay tenant create acme");
        let code = |role: &str, name: &str| {
            self.run(&format!("towpath-relay enrolment create --tenant {TENANT} --role {role} --name {name}"))
        };
        let _ = self.run(&format!("sed -i 's/^listen = .*/listen = \"{LANDING}\"/' /etc/towpath/receiver.toml"));
        let _ = self.run(&format!("towpath-receiver enrol {} --landing {LANDING}", code("receiver", RECEIVER)));
        let _ = self.run("systemctl start towpath-receiver");
        let _ = self.run("mkdir -p /srv/erp/import && chown towpath /srv/erp /srv/erp/import");
        let erp = self.copies.path().join("erp.sqlite");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(erp::generate(&erp, &ErpOptions { rows: 300, seed: 7, company: 1 }, |_| ())).unwrap();
        fs::copy(&erp, machine.path("/srv/erp/erp.sqlite")).unwrap();
        let _ = self.run("chown towpath /srv/erp/erp.sqlite");
        let job = erp::job_toml(JOB, "/srv/erp/erp.sqlite".as_ref());
        let delivery = format!("[[delivery]]\nkind = \"{KIND}\"\nfolder = \"/srv/erp/import\"\n");
        fs::write(machine.path("/etc/towpath/agent.toml"), format!("[receipt]\npoll = \"100ms\"\n{job}\n{delivery}")).unwrap();
        let _ = self.run(&format!("towpath-agent enrol {}", code("agent", AGENT)));
        let fingerprint = |role: &str| {
            let status: serde_json::Value = serde_json::from_str(&self.run(&format!("towpath-{role} status --json"))).unwrap();
            status["fingerprint"].as_str().unwrap().to_owned()
        };
        let _ = self.run(&format!("towpath-receiver agent approve {}", fingerprint("agent")));
        let _ = self.run(&format!("towpath-agent receiver approve {}", fingerprint("receiver")));
        let drop_in = machine.path("/etc/systemd/system/towpath-agent.service.d");
        fs::create_dir_all(&drop_in).unwrap();
        fs::write(drop_in.join("erp.conf"), "[Service]\nReadWritePaths=/srv/erp\n").unwrap();
        let _ = self.run("systemctl daemon-reload && systemctl start towpath-agent");
    }

    /// The app database as it is now.
    fn app(&self) -> PathBuf {
        let copy = self.copies.path().join("app.sqlite");
        for end in ["", "-wal"] {
            let of_machine = self.machine.path(&format!("{STATE}/receiver/import/{AGENT}/{JOB}.sqlite{end}"));
            let to = self.copies.path().join(format!("app.sqlite{end}"));
            let _ = fs::remove_file(&to);
            if of_machine.exists() {
                fs::copy(of_machine, to).unwrap();
            }
        }
        copy
    }

    fn imports(&self) -> String {
        query_text(&self.app(), "SELECT count(*) FROM towpath_imports")
    }

    /// Everything that was sent is imported once, and the tables are the same.
    fn is_imported(&self, transfers: u64) {
        assert_same_tables(&self.copies.path().join("erp.sqlite"), &self.app(), &tables());
        assert_eq!(self.imports(), transfers.to_string());
    }

    /// The agent's newest transfer.
    fn newest(&self) -> String {
        self.run(&format!("ls {STATE}/agent/transfers | tail -n 1"))
    }

    /// The agent gets the receipt of a transfer that has waited.
    fn is_over(&self, waiting: &str) {
        eventually("the agent has the receipt of what has waited", || {
            let shown = self.machine.run(&format!("towpath-agent show {waiting} --json"));
            (shown.status.success() && shown.json()["state"] == "imported").then_some(())
        });
    }

    /// One cycle each way.
    pub(crate) fn cycle(&self, transfers: u64) {
        let _ = self.run(&format!("towpath-agent send --job {JOB} --full --wait --timeout 60s"));
        self.is_imported(transfers);
        let _ = self.run("printf 'item,quantity\\r\\n7,12\\r\\n' > /tmp/back.csv");
        let sent =
            self.run(&format!("towpath-receiver send /tmp/back.csv --kind {KIND} --to {AGENT} --wait --timeout 60s --json"));
        let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
        assert_eq!(self.run("cat /srv/erp/import/back.csv"), "item,quantity\r\n7,12", "{sent}");
        let _ = self.run("rm /srv/erp/import/back.csv");
    }
}

impl Site {
    /// A machine on which dpkg has installed the old version of everything.
    pub(crate) fn of_debian() -> Self {
        let site = Self::new(".deb");
        // What dpkg knows of this host's packages is what the machine has in /usr.
        let dpkg = site.machine.path("/var/lib/dpkg");
        for folder in ["info", "updates", "triggers", "alternatives"] {
            fs::create_dir_all(dpkg.join(folder)).unwrap();
        }
        fs::copy("/var/lib/dpkg/status", dpkg.join("status")).unwrap();
        // Where this host forbids packages to start and stop services, as a container does, the machine does not.
        let _ = site.run("rm -f /usr/sbin/policy-rc.d");
        let _ = site.run(&format!("dpkg --install /srv/{OLD}/*.deb"));
        site
    }
}

#[test]
fn interop_debian_packages_are_installed_upgraded_with_a_transfer_under_way_and_purged() {
    let mut site = Site::of_debian();
    for role in ROLES {
        let unit = format!("towpath-{role}");
        assert_eq!(site.run(&format!("systemctl is-enabled {unit}")), "enabled");
        assert!(!site.is_active(role), "{role} was started before anybody has configured it");
        assert_eq!(site.property(role, "Type"), "notify");
        let exposure = exposure(&site.machine, &format!("{unit}.service"));
        assert!(exposure <= EXPOSURE, "{unit}: {exposure}");
        assert!(site.run(&format!("{unit} --version")).starts_with(&unit));
        for file in [
            format!("/usr/share/man/man1/{unit}.1.gz"),
            format!("/usr/share/bash-completion/completions/{unit}"),
            format!("/usr/share/doc/{unit}/copyright"),
            format!("/usr/share/doc/{unit}/THIRD-PARTY-LICENSES"),
            format!("/usr/share/doc/{unit}/sbom.cdx.json"),
        ] {
            assert!(fs::metadata(site.machine.path(&file)).is_ok_and(|found| found.len() > 100), "{file}");
        }
    }
    site.set_up();
    site.cycle(1);
    // None is root. Killed, they are started again.
    let before = ROLES.map(|role| site.property(role, "MainPID"));
    assert_eq!(ROLES.map(|role| site.property(role, "WatchdogUSec")), ["2min"; 3]);
    for (pid, user) in before.iter().zip(["towpath-relay", "towpath-receiver", "towpath"]) {
        assert_eq!(site.run(&format!("stat --format=%U /proc/{pid}")), user);
    }
    let _ = site.run("systemctl kill --signal=KILL towpath-relay towpath-receiver towpath-agent");
    for (role, pid) in ROLES.iter().zip(&before) {
        eventually("it is started again", || (site.is_active(role) && site.property(role, "MainPID") != *pid).then_some(()));
    }
    site.cycle(2);

    // A transfer waits at the relay while everything is upgraded. What an administrator has stopped stays so, and what was
    // configured is kept.
    let _ = site.run("systemctl stop towpath-receiver");
    let _ = site.run(&format!("towpath-agent send --job {JOB} --full"));
    let waiting = site.newest();
    let before = ["relay", "agent"].map(|role| site.property(role, "MainPID"));
    let _ = site.run(&format!("dpkg --install /srv/{NEW}/*.deb"));
    let after = ["relay", "agent"].map(|role| site.property(role, "MainPID"));
    assert!(before.iter().zip(&after).all(|(before, after)| before != after && after != "0"), "{before:?} {after:?}");
    assert!(!site.is_active("receiver"), "it was stopped by a person");
    let status = site.run("dpkg --status towpath-relay");
    assert!(status.contains(&format!("Version: {NEW}-1")) && status.contains("Installed-Size: "), "{status}");
    assert!(site.run("cat /etc/towpath/relay.toml").contains("public_url = \"https://127.0.0.1\""));
    let _ = site.run("systemctl start towpath-receiver");
    site.is_over(&waiting);
    site.is_imported(3);
    site.cycle(4);

    site.machine.power_off();
    site.machine.boot();
    assert!(ROLES.iter().all(|role| site.is_active(role)), "{}", site.run("journalctl --no-pager -p warning"));
    site.cycle(5);

    let _ = site.run("dpkg --remove towpath-agent towpath-receiver towpath-relay");
    assert_eq!(ROLES.map(|role| site.property(role, "MainPID")), ["0", "0", "0"]);
    assert!(site.machine.path(&format!("{STATE}/agent/key")).exists(), "the key went before the package was purged");
    let _ = site.run("dpkg --purge towpath-agent towpath-receiver towpath-relay");
    let left = site.run("ls -d /etc/towpath /var/log/towpath /etc/systemd/system/*towpath* 2>/dev/null || true");
    assert_eq!(left, "");
    // What was imported is not the package's to remove.
    let left = site.run("find /var/lib/towpath -type f");
    let imported = format!("{STATE}/receiver/import/{AGENT}/{JOB}.sqlite");
    assert!(left.lines().any(|file| file == imported) && left.lines().all(|file| file.starts_with(&imported)), "{left}");
}

#[test]
fn interop_rpm_packages_are_installed_upgraded_and_removed() {
    let site = Site::new(".rpm");
    // What they need is on this machine, but its package manager is another one.
    let rpm = |line: &str| site.run(&format!("rpm --nodeps {line}"));
    let _ = rpm(&format!("--install /srv/{OLD}/*.rpm"));
    for role in ROLES {
        assert!(!site.is_active(role));
        let _ = site.run(&format!("systemctl enable towpath-{role}"));
    }
    site.set_up();
    site.cycle(1);
    // A transfer waits at the agent while everything is upgraded.
    let _ = site.run("systemctl stop towpath-relay");
    let waits = site.machine.run(&format!("towpath-agent send --job {JOB} --full --wait --timeout 3s"));
    assert!(!waits.status.success(), "{waits:?}");
    let waiting = site.newest();
    let before = ROLES.map(|role| site.property(role, "MainPID"));
    let _ = rpm(&format!("--upgrade /srv/{NEW}/*.rpm"));
    assert!(!site.is_active("relay"), "it was stopped by a person");
    let _ = site.run("systemctl start towpath-relay");
    for (role, before) in ROLES.iter().zip(before) {
        assert_eq!(
            site.run(&format!("rpm --query towpath-{role}")),
            format!("towpath-{role}-{NEW}-1.{}", std::env::consts::ARCH)
        );
        eventually("the new program runs", || (site.is_active(role) && site.property(role, "MainPID") != before).then_some(()));
    }
    assert!(site.run("cat /etc/towpath/relay.toml").contains("public_url = \"https://127.0.0.1\""));
    site.is_over(&waiting);
    site.is_imported(2);
    site.cycle(3);
    let _ = rpm("--erase towpath-agent towpath-receiver towpath-relay");
    assert!(ROLES.iter().all(|role| site.property(role, "MainPID") == "0"));
    assert!(site.machine.path(&format!("{STATE}/agent/key")).exists());
}
