//! The agent's packages for Windows, as an administrator rolls them out: installed, upgraded and removed under Wine, with relay and
//! receiver on this machine.

mod rooms;
mod updates;

use std::{
    fs,
    path::{Path, PathBuf},
};

use towpath_samples::erp;
use towpath_testkit::{
    AGENT, End, JOB, Outcome, RECEIVER, Server, TENANT, Wine, World, assert_same_tables, eventually, query_text,
};

use crate::{
    executable,
    maker::{KEYS, Maker},
    tables,
};

/// The versions that `cargo xtask test --windows` makes packages of.
const OLD: &str = "0.1.0";
const NEW: &str = "0.1.1";
/// Folders as people name them.
const DATA: &str = "C:\\Towpath Däten";
const ERP: &str = "C:\\ERP für Größen\\erp.sqlite";
/// What comes back.
const KIND: &str = "orders";
const PROGRAM: &str = "C:\\Program Files\\Towpath\\towpath-agent.exe";
const SERVICE: &str = "HKLM\\System\\CurrentControlSet\\Services\\TowpathAgent";
/// The package's task, as the scheduler keeps it, and the folder of updates.
const TASK: &str = "C:\\windows\\system32\\tasks\\Towpath\\Agent update";
const KEPT: &str = "C:\\ProgramData\\Towpath Update";
/// What Windows lists as installed, the source of events, and the entry of the Start menu.
const REMOVABLE: &str = "HKLM\\Software\\Microsoft\\Windows\\CurrentVersion\\Uninstall";
const EVENTS: &str = "HKLM\\System\\CurrentControlSet\\Services\\EventLog\\Application\\TowpathAgent";
const SHORTCUT: &str = "AppData/Roaming/Microsoft/Windows/Start Menu/Programs/Towpath status.lnk";
const MACHINE: &str = "HKLM\\System\\CurrentControlSet\\Control\\Session Manager\\Environment";

/// Where the packages of a version lie.
fn folder_of(version: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(here, PathBuf::from);
    target.join("packages-of-windows-tests").join(version)
}

fn package(version: &str, end: &str) -> PathBuf {
    let file = folder_of(version).join(format!("towpath-agent-{version}-x64{end}.msi"));
    assert!(file.exists(), "{} is missing; cargo xtask test --windows makes it", file.display());
    file
}

/// A Windows to which the packages were carried, and a relay with a receiver that knows no agent yet.
struct Site {
    wine: Wine,
    world: World,
    end: End,
    relay: Option<Server>,
    _receiver: Server,
}

impl Site {
    /// Every program of this Windows has these variables.
    fn new(variables: &[(&str, &str)]) -> Self {
        let world = World::new(executable());
        let (end, _) = world.end(TENANT, 300, 1);
        let relay = Some(world.serve_relay());
        world.create_tenant(TENANT);
        let code = world.enrolment_code(TENANT, "receiver", RECEIVER);
        let landing = format!("127.0.0.1:{}", end.port);
        let _ = end.receiver.run(&["enrol", &code, "--landing", &landing]).succeeded();
        let receiver = end.receiver.serve(&["serve"]);
        let wine = Wine::new(variables);
        for (name, version, end) in [("old", OLD, ""), ("new", NEW, ""), ("german", NEW, "-de")] {
            fs::copy(package(version, end), wine.path(&format!("C:\\{name}.msi"))).unwrap();
        }
        wine.write(ERP, &fs::read(&end.erp).unwrap());
        Self { wine, world, end, relay, _receiver: receiver }
    }

    fn msiexec(&self, what: &str, name: &str, properties: &[&str]) -> (Outcome, String) {
        let (package, log) = (format!("C:\\{name}.msi"), "C:\\installer.log");
        let _ = fs::remove_file(self.wine.path(log));
        let words = ["msiexec", what, &package, "/qn", "/l*v", log];
        let outcome = self.wine.run(&[&words, properties].concat());
        let told = String::from_utf8_lossy(&fs::read(self.wine.path(log)).unwrap()).into_owned();
        // Wine knows nothing of properties that are hidden; what it does with them is as on Windows.
        let told = told.lines().filter(|line| !line.starts_with("Property(")).map(|line| format!("{line}\n")).collect();
        (outcome, told)
    }

    #[track_caller]
    fn install(&self, name: &str, properties: &[&str]) -> String {
        let (outcome, log) = self.msiexec("/i", name, properties);
        assert!(outcome.status.success(), "{:?}\n{}\n{log}", outcome, self.set_up_log());
        log
    }

    fn set_up_log(&self) -> String {
        fs::read_to_string(self.wine.path(&format!("{DATA}\\setup.log"))).unwrap_or_default()
    }

    fn agent(&self, words: &[&str]) -> Outcome {
        self.wine.run(&[&[PROGRAM], words].concat())
    }

    fn runs(&self) -> bool {
        self.agent(&["service", "status"]).status.success()
    }

    fn is_installed(&self) -> bool {
        self.wine.registry(SERVICE).contains("ImagePath")
    }

    fn configure(&self, more: &str) {
        let job = erp::job_toml(JOB, ERP.as_ref());
        let returns = format!("[[delivery]]\nkind = \"{KIND}\"\nfolder = '{}'\n", delivery());
        fs::create_dir_all(self.wine.path(&delivery())).unwrap();
        let text = format!("[receipt]\npoll = \"100ms\"\n{more}{job}\n{returns}");
        self.wine.write(&format!("{DATA}\\agent.toml"), text.as_bytes());
    }

    /// Each end believes the other.
    fn approve_ends(&self) {
        let fingerprint = |status: Outcome| status.succeeded().json()["fingerprint"].as_str().unwrap().to_owned();
        let agent = fingerprint(self.agent(&["status", "--json"]));
        let _ = self.end.receiver.run(&["agent", "approve", &agent]).succeeded();
        let receiver = fingerprint(self.end.receiver.run(&["status", "--json"]));
        let _ = self.agent(&["receiver", "approve", &receiver]).succeeded();
    }

    /// A file comes back from the app.
    fn comes_back(&self) {
        let file = self.world.dir.path().join("back.csv");
        fs::write(&file, "item,quantity\r\n7,12\r\n").unwrap();
        let words = ["send", file.to_str().unwrap(), "--kind", KIND, "--to", AGENT, "--wait", "--timeout", "60s"];
        let _ = self.end.receiver.run(&words).succeeded();
        let delivered = self.wine.path(&format!("{}\\back.csv", delivery()));
        assert_eq!(fs::read(&delivered).unwrap(), fs::read(&file).unwrap());
        fs::remove_file(delivered).unwrap();
    }

    /// Doctor finds nothing wrong, and knows the room on the disk.
    fn is_sound(&self) {
        let outcome = self.agent(&["doctor", "--json"]);
        assert!(outcome.status.success(), "{outcome:?}");
        let report = outcome.json();
        let checks = report["checks"].as_array().unwrap();
        let space = checks.iter().find(|check| check["id"] == "disk-space").unwrap();
        assert!(space["outcome"] == "ok" && space["found"].as_str().unwrap().contains("MiB are free"), "{report}");
    }

    fn is_imported(&self, transfers: u64) {
        assert_same_tables(&self.end.erp, &self.end.app(), &tables());
        assert_eq!(query_text(&self.end.app(), "SELECT count(*) FROM towpath_imports"), transfers.to_string());
    }
}

/// A folder whose path is longer than Windows has allowed for long: MAX_PATH, 260 characters.
fn delivery() -> String {
    let folder = format!(
        "C:\\Lieferungen{}",
        "\\aus der Stadt mit dem l\u{e4}ngsten Namen weit und breit, die es gar nicht gibt".repeat(4)
    );
    assert!(folder.len() > 260);
    folder
}

/// What the agent says of the newest transfer.
fn newest(site: &Site) -> String {
    let folder = site.wine.path(&format!("{DATA}\\agent\\transfers"));
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.pop().unwrap()
}

#[test]
fn windows_packages_are_installed_upgraded_with_a_transfer_under_way_and_removed() {
    let mut site = Site::new(&[(KEYS, &Maker::new().public_key())]);
    let data = format!("DATADIR={DATA}");

    // A code that is none: everything is taken back, and the reason is told.
    let (refused, log) = site.msiexec("/i", "old", &[&data, "RELAY_CODE=towpath1-nonsense"]);
    assert!(!refused.status.success(), "{log}");
    let told = site.set_up_log();
    assert!(told.contains("FAILED: ") && told.contains("[enrolment-code-invalid]") && !told.contains("nonsense"), "{told}");
    assert!(!log.contains("nonsense"), "{log}");
    assert!(
        !site.is_installed() && !site.wine.path(PROGRAM).exists() && !site.wine.path(&format!("{DATA}\\agent.toml")).exists()
    );

    // As configuration management does it: the file is there, and the package gets the code.
    site.configure("");
    let code = site.world.enrolment_code(TENANT, "agent", AGENT);
    let log = site.install("old", &[&data, &format!("RELAY_CODE={code}")]);
    let told = site.set_up_log();
    assert!(!log.contains(&code) && !told.contains(&code), "{log}{told}");
    assert!(told.contains("enrolled as erp of tenant acme") && told.contains("the service runs"), "{told}");
    assert!(site.runs());
    let service = site.wine.registry(SERVICE);
    assert!(service.contains("NT SERVICE\\TowpathAgent") && service.contains("run --service"), "{service}");
    assert!(site.wine.registry(MACHINE).contains("C:\\Program Files\\Towpath\\"));
    let removable = site.wine.registry(REMOVABLE);
    for shown in ["Towpath Agent", "0.1.0", "https://github.com/towpath/towpath"] {
        assert!(removable.contains(shown), "{shown}: {removable}");
    }
    assert!(site.wine.registry(EVENTS).contains("EventMessageFile"));
    // Wine puts it into the user's menu, Windows into everybody's.
    let mut users = fs::read_dir(site.wine.path("C:\\users")).unwrap();
    assert!(users.any(|user| user.unwrap().path().join(SHORTCUT).exists()));
    site.approve_ends();
    let sent = site.agent(&["send", "--job", JOB, "--wait", "--timeout", "60s", "--json"]).succeeded().json();
    assert_eq!(sent["transfers"][0]["state"], "imported", "{sent}");
    site.is_imported(1);
    site.comes_back();
    site.is_sound();

    let _ = site.agent(&["service", "stop"]).succeeded();
    assert!(!site.runs());
    let _ = site.agent(&["service", "start"]).succeeded();
    assert!(site.runs());

    // It starts with Windows.
    site.wine.cut_power();
    site.wine.boot();
    eventually("the service runs again", || site.runs().then_some(()));

    // A transfer waits at the agent, for a relay that is away, while the agent is upgraded.
    drop(site.relay.take());
    let waits = site.agent(&["send", "--job", JOB, "--full", "--wait", "--timeout", "3s"]);
    assert!(!waits.status.success(), "{waits:?}");
    let waiting = newest(&site);
    site.install("new", &[]);
    assert!(site.runs() && site.set_up_log().contains("the service runs"), "{}", site.set_up_log());
    site.relay = Some(site.world.serve_relay());
    eventually("the agent has the receipt of what has waited", || {
        let shown = site.agent(&["show", &waiting, "--json"]);
        (shown.status.success() && shown.json()["state"] == "imported").then_some(())
    });
    site.is_imported(2);
    let checked = site.agent(&["update", "check", "--json"]).succeeded().json();
    assert_eq!(checked["installed"], serde_json::json!({"kind": "msi", "version": "0.1.1", "arch": "x86_64"}), "{checked}");

    let (refused, log) = site.msiexec("/i", "old", &[]);
    assert!(!refused.status.success(), "{log}");
    assert!(site.runs(), "an older version was refused, and what is there works on");
    assert!(site.wine.path(TASK).exists());

    // A repair starts it again, and does nothing that is asked for beside it.
    let asked =
        ["REINSTALL=ALL", "REINSTALLMODE=vamus", "DATADIR=C:\\elsewhere", "RELAY_CODE=towpath1-nonsense", "STARTSERVICE=0"];
    let log = site.install("new", &asked);
    assert!(site.runs() && !site.wine.path("C:\\elsewhere").exists(), "{log}");
    assert!(site.wine.registry(SERVICE).contains("NT SERVICE\\TowpathAgent"));

    let (removed, log) = site.msiexec("/x", "new", &[]);
    assert!(removed.status.success(), "{log}");
    assert!(!site.is_installed() && !site.wine.path(TASK).exists(), "{}", site.wine.registry(SERVICE));
    assert!(!site.wine.path(PROGRAM).exists(), "{log}");
    assert!(!site.wine.registry(MACHINE).contains("Towpath"));
    assert!(site.wine.path(&format!("{DATA}\\agent\\key")).exists(), "the key stays");

    // Neither a folder that somebody uses already nor a drive is taken, and whoever asks for it is told.
    for (folder, why) in [("C:\\ERP für Größen", "holds nothing of an agent"), ("C:\\", "is a whole drive")] {
        let (refused, log) = site.msiexec("/i", "new", &[&format!("DATADIR={folder}")]);
        assert!(!refused.status.success() && !site.is_installed(), "{log}");
        let told = fs::read_to_string(site.wine.path(&format!("{KEPT}\\setup.log"))).unwrap();
        assert!(told.contains(why), "{told}");
    }

    // Elsewhere, behind a proxy, where nothing was before.
    let proxy = "PROXY=http://user:unspoken@127.0.0.1:3128";
    let log = site.install("new", &["INSTALLDIR=C:\\Programme von uns\\Towpath", proxy]);
    assert!(!log.contains("unspoken"), "{log}");
    let config = fs::read_to_string(site.wine.path("C:\\ProgramData\\Towpath\\agent.toml")).unwrap();
    assert!(config.contains("127.0.0.1:3128") && !config.contains("unspoken"), "{config}");
    let elsewhere = "C:\\Programme von uns\\Towpath\\towpath-agent.exe";
    assert!(site.wine.path(elsewhere).exists() && !site.wine.path(PROGRAM).exists());
    assert!(
        site.wine.registry(SERVICE).contains(elsewhere) && !site.wine.run(&[elsewhere, "service", "status"]).status.success()
    );
    let (removed, log) = site.msiexec("/x", "new", &["REMOVEDATA=1"]);
    assert!(removed.status.success() && !site.wine.path("C:\\ProgramData\\Towpath").exists(), "{log}");

    // Once more, in the other language: it is enrolled, and starts where that is asked for.
    site.install("german", &[&data, "STARTSERVICE=1"]);
    assert!(site.runs());
    site.wine.write(&format!("{DATA}\\of somebody else.txt"), b"x");
    let (removed, log) = site.msiexec("/x", "german", &["REMOVEDATA=1"]);
    assert!(removed.status.success(), "{log}");
    let left: Vec<_> = fs::read_dir(site.wine.path(DATA)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["of somebody else.txt"]);
    assert!(!site.wine.path(KEPT).exists());
}
