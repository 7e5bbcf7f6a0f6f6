//! Updates on Windows: from the maker's signature over relay and agent to the version that runs, or to the one before where it does not
//! work. Wine makes and removes tasks, but starts none: their commands are started here.

use std::fs;

use serde_json::Value;
use towpath_testkit::{AGENT, JOB, Outcome, TENANT, eventually};

use super::{DATA, KEPT, NEW, OLD, PROGRAM, SERVICE, Site, TASK, folder_of};
use crate::maker::{KEYS, Maker};

/// One whose program does nothing at all.
const BROKEN: &str = "0.1.2";

impl Site {
    /// Hands a release to the relay and approves it.
    fn approve(&self, maker: &Maker, version: &str) {
        let folder = maker.release(version, &folder_of(version));
        let relay = self.world.relay.with(KEYS, maker.public_key());
        let _ = relay.run(&["release", "add", folder.to_str().unwrap()]).succeeded();
        let _ = relay.run(&["release", "approve", version, "--ring", "1"]).succeeded();
    }

    fn download(&self) -> Value {
        self.agent(&["update", "download", "--json"]).succeeded().json()
    }

    /// What the scheduler starts: program and arguments of a task, as it was told.
    fn task(&self, name: &str) -> Vec<String> {
        let bytes = fs::read(self.wine.path(&format!("{KEPT}\\{name}.xml"))).unwrap();
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        let text = String::from_utf16(&units).unwrap();
        let part = |tag: &str| {
            let (_, rest) = text.split_once(&format!("<{tag}>")).unwrap();
            rest.split_once("</").unwrap().0.to_owned()
        };
        assert!(text.contains("<UserId>S-1-5-18</UserId>"), "{text}");
        let arguments = part("Arguments");
        let quoted = arguments.split('"').enumerate().flat_map(|(index, piece)| {
            let is_quoted = index % 2 == 1;
            if is_quoted { vec![piece.to_owned()] } else { piece.split_whitespace().map(str::to_owned).collect() }
        });
        [part("Command")].into_iter().chain(quoted).collect()
    }

    /// Does what the scheduler does.
    fn run_task(&self, name: &str) -> Outcome {
        let words = self.task(name);
        self.wine.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn report(&self) -> Value {
        let file = self.wine.path(&format!("{KEPT}\\report.json"));
        fs::read(file).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap())
    }

    /// How far the update is that is under way.
    fn step(&self) -> Option<String> {
        let bytes = fs::read(self.wine.path(&format!("{KEPT}\\open.json"))).ok()?;
        let open: Value = serde_json::from_slice(&bytes).ok()?;
        Some(open["step"].as_str().unwrap().to_owned())
    }

    /// The agent works in a version, and carries a transfer.
    fn works(&self, version: &str, transfers: u64) {
        let checked = self.agent(&["update", "check", "--json"]).succeeded().json();
        assert_eq!(checked["installed"]["version"], version, "{checked}");
        assert!(self.runs() && self.wine.path(TASK).exists());
        let service = self.wine.registry(SERVICE);
        assert!(service.contains("NT SERVICE\\TowpathAgent"), "{service}");
        assert!(!self.wine.path(&format!("{TASK} under way")).exists() && self.step().is_none());
        let sent = self.agent(&["send", "--job", JOB, "--full", "--wait", "--timeout", "60s", "--json"]).succeeded().json();
        assert_eq!(sent["transfers"][0]["state"], "imported", "{sent}");
        self.is_imported(transfers);
    }
}

#[test]
fn windows_updates_are_applied_undone_and_gone_on_with_after_a_power_loss() {
    let maker = Maker::new();
    let mut site = Site::new(&[(KEYS, &maker.public_key())]);
    site.configure("[update]\nmode = \"install\"\n");
    let code = site.world.enrolment_code(TENANT, "agent", AGENT);
    site.install("old", &[&format!("DATADIR={DATA}"), &format!("RELAY_CODE={code}")]);
    site.approve_ends();
    let looked = site.run_task("task").succeeded();
    assert!(looked.stdout.starts_with("there is nothing newer"), "{looked:?}");
    assert_eq!(site.task("task")[0], PROGRAM);

    // One whose program does nothing is installed, and undone.
    let _ = site.world.relay.run(&["tenant", "ring", TENANT, "1"]).succeeded();
    site.approve(&maker, OLD);
    site.approve(&maker, BROKEN);
    let ready = site.download();
    assert_eq!((&ready["ready"]["version"], &ready["asked"]), (&Value::from(BROKEN), &Value::from(true)));
    let begun = site.run_task("task").succeeded();
    assert_eq!(begun.stdout.trim(), format!("{BROKEN} is being applied"));
    assert!(site.wine.path(&format!("{TASK} under way")).exists());
    let _ = site.run_task("under-way").succeeded();
    let report = site.report();
    assert_eq!(
        (&report["last"]["outcome"], &report["last"]["to"]),
        (&Value::from("rolled-back"), &Value::from(BROKEN)),
        "{report}"
    );
    assert!(report["last"]["why"].as_str().unwrap().contains("its service is"), "{report}");
    site.works(OLD, 1);

    // What the service's account has changed is not believed.
    site.approve(&maker, NEW);
    assert_eq!(site.download()["ready"]["version"], NEW);
    let package = site.wine.path(&format!("{DATA}\\agent\\update\\{NEW}\\towpath-agent-{NEW}-x64.msi"));
    let right = fs::read(&package).unwrap();
    let mut changed = right.clone();
    changed[right.len() / 2] ^= 1;
    fs::write(&package, changed).unwrap();
    let _ = site.run_task("task").failed_with("digest-mismatch");
    assert!(site.step().is_none());
    fs::write(&package, right).unwrap();

    // The power goes while the new one is being installed.
    let _ = site.run_task("task").succeeded();
    let words = site.task("under-way");
    let mut going = site.wine.command(&words.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
    eventually("Windows Installer has removed the old one", || {
        (site.step()? == "installing" && !site.wine.path(PROGRAM).exists()).then_some(())
    });
    site.wine.cut_power();
    let _ = going.wait().unwrap();
    site.wine.boot();
    assert_eq!(site.step().as_deref(), Some("installing"));
    let _ = site.run_task("under-way").succeeded();
    assert_eq!(site.report()["last"]["outcome"], "installed", "{}", site.report());
    site.works(NEW, 2);
}
