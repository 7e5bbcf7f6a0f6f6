//! The way back with real processes: return files reach an ERP that takes them away at once, and `kill -9` of each program
//! before the effect of every stage, between effect and journal, and after the journal delivers each of them exactly once.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use towpath_samples::erp;
use towpath_testkit::{AGENT, End, JOB, Program, Server, TENANT, World, eventually};

use crate::executable;

const POINTS: [&str; 3] = ["before-effect", "after-effect", "after-journal"];
const KILLED: Option<i32> = Some(9);
const KIND: &str = "recommended-orders";

/// An installation with a delivery folder, and an ERP that takes everything out of it the moment it is there.
struct Scene {
    /// It stops to look before its folder goes.
    erp: Erp,
    world: World,
    end: End,
    sent: u64,
}

/// What the ERP has taken: contents, and how often.
pub(crate) type Taken = BTreeMap<String, u32>;

/// The ERP's import, which looks into its folder all the time.
pub(crate) struct Erp {
    pub(crate) folder: PathBuf,
    taken: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Erp {
    pub(crate) fn new(dir: &Path) -> Self {
        let (folder, taken) = (dir.join("erp-in"), dir.join("erp-taken"));
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(&taken).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (folder, taken, stop) = (folder.clone(), taken.clone(), Arc::clone(&stop));
            move || take(&folder, &taken, &stop)
        });
        Self { folder, taken, stop, thread: Some(thread) }
    }

    fn taken(&self) -> Taken {
        let mut taken = Taken::new();
        for entry in fs::read_dir(&self.taken).unwrap() {
            *taken.entry(fs::read_to_string(entry.unwrap().path()).unwrap()).or_default() += 1;
        }
        taken
    }
}

impl Erp {
    /// What it has taken, once that are at least so many files: it may not have looked yet.
    pub(crate) fn taken_all(&self, files: u64) -> Taken {
        eventually(&format!("the ERP has taken {files} files"), || {
            let taken = self.taken();
            (taken.values().map(|times| u64::from(*times)).sum::<u64>() >= files).then_some(taken)
        })
    }
}

impl Drop for Erp {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || ended.is_none_or(|ended| ended.is_ok()), "the ERP's import failed");
    }
}

/// Moves every file with a visible name away, until it is told to stop.
fn take(folder: &Path, taken: &Path, stop: &AtomicBool) {
    let mut count = 0u32;
    while !stop.load(Ordering::SeqCst) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with('.') {
                continue;
            }
            count += 1;
            fs::rename(entry.path(), taken.join(format!("{count}-{name}"))).unwrap();
        }
        #[expect(clippy::disallowed_methods, reason = "another program's import polls its folder")]
        thread::sleep(Duration::from_millis(1));
    }
}

fn scene() -> (Scene, Server, Server) {
    let (world, end, _, relay, receiver) = World::running(executable(), 50);
    let erp = Erp::new(world.dir.path());
    let folder = toml_string(&erp.folder);
    let delivery = format!("[[delivery]]\nkind = \"{KIND}\"\nfolder = {folder}\n");
    end.agent.configure(&format!("[receipt]\npoll = \"100ms\"\n{}\n{delivery}", erp::job_toml(JOB, &end.erp)));
    (Scene { erp, world, end, sent: 0 }, relay, receiver)
}

fn toml_string(path: &Path) -> String {
    format!("'{}'", path.display())
}

impl Scene {
    /// Hands the receiver one more return file, with content of its own under the same name, and tells its transfer.
    fn send(&mut self) -> String {
        self.sent += 1;
        let file = self.world.dir.path().join("orders.csv");
        fs::write(&file, content(self.sent)).unwrap();
        let path = file.to_str().unwrap();
        let sent = self.end.receiver.run(&["send", path, "--kind", KIND, "--to", AGENT, "--json"]).succeeded().json();
        sent["transfer"].as_str().unwrap().to_owned()
    }

    /// Waits until the receiver holds the agent's receipt; then every file so far was delivered, exactly once.
    fn delivered(&self, transfer: &str, what: &str) {
        let state = |program: &Program| {
            let shown = program.run(&["show", transfer, "--json"]).succeeded().json();
            shown["state"].as_str().unwrap_or_default().to_owned()
        };
        eventually(&format!("transfer {transfer} is delivered after {what}"), || {
            (state(&self.end.receiver) == "delivered").then_some(())
        });
        // The agent learns of the acknowledged receipt by the answer, which a crash may have kept from it.
        eventually(&format!("the agent has ended transfer {transfer} after {what}"), || {
            (state(&self.end.agent) == "delivered").then_some(())
        });
        let once: Taken = (1..=self.sent).map(|nth| (content(nth), 1)).collect();
        assert_eq!(self.erp.taken_all(self.sent), once, "after {what}");
        let _ = self.end.receiver.run(&["receipts", "verify", transfer]).succeeded();
    }

    /// Waits until the relay has removed the transfer's files.
    fn removed(&self, transfer: &str, what: &str) {
        let rooms = self.world.relay.state.join("spool").join(TENANT).join(AGENT);
        eventually(&format!("the relay has removed transfer {transfer} after {what}"), || {
            let shown = self.world.relay.run(&["transfer", "show", transfer, "--json"]).succeeded().json();
            let gone = ["fetched", "packed", "downlink"].iter().all(|room| !rooms.join(room).join(transfer).exists());
            (shown["state"] == "removed" && gone).then_some(())
        });
    }
}

fn content(nth: u64) -> String {
    format!("item_no,quantity\r\nA-{nth},{nth}\r\n")
}

#[test]
fn a_return_file_reaches_a_waiting_agent_and_is_acknowledged() {
    let (mut scene, _relay, _receiver) = scene();
    let _agent = scene.end.agent.start(&["run"]);
    for _ in 0..3 {
        let transfer = scene.send();
        scene.delivered(&transfer, "no trouble");
    }
    let sent = scene.end.receiver.run(&["sent", "--json"]).succeeded().json();
    let stages: Vec<_> =
        sent["transfers"].as_array().unwrap().iter().map(|transfer| transfer["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["delivered"; 3]);
}

/// The export folder's file is taken when it is whole, the program that follows its delivery fails until its cause is mended,
/// and only then the sender is told that it was delivered.
#[test]
fn a_watched_file_is_delivered_and_its_program_runs_until_it_succeeds() {
    let (scene, _relay, receiver) = scene();
    let dir = scene.world.dir.path();
    let (export, ledger, open) = (dir.join("export"), dir.join("ledger"), dir.join("open"));
    fs::create_dir_all(&export).unwrap();
    let import = dir.join("import.sh");
    // Fails while there is no `open`; then it writes down what it was told.
    fs::write(&import, "test -e \"$3\" || exit 3\necho \"$1 $TOWPATH_KIND $2\" >> \"$4\"\n").unwrap();
    let program = format!(
        "[delivery.run]\nprogram = \"/bin/sh\"\narguments = ['{}', '{{transfer}}', '{{file}}', '{}', '{}']\n",
        import.display(),
        open.display(),
        ledger.display()
    );
    let config = fs::read_to_string(&scene.end.agent.config).unwrap();
    scene.end.agent.configure(&format!("{config}{program}"));
    receiver.kill();
    let watched = format!("[[export]]\nfolder = {}\nkind = \"{KIND}\"\ncomplete = \"marker\"\n", toml_string(&export));
    let config = fs::read_to_string(&scene.end.receiver.config).unwrap();
    scene.end.receiver.configure(&format!("{config}{watched}"));
    let _receiver = scene.end.receiver.serve(&["serve"]);
    let _agent = scene.end.agent.start(&["run"]);

    fs::write(export.join("orders.csv"), content(1)).unwrap();
    fs::write(export.join("orders.csv.ready"), "").unwrap();
    let waiting = eventually("the failing program is told of", || {
        let listed = scene.end.agent.run(&["history", "--json"]).succeeded().stdout;
        listed.contains("action-failed").then(|| scene.end.receiver.run(&["sent", "--json"]).succeeded().json())
    });
    let transfer = waiting["transfers"][0]["transfer"].as_str().unwrap().to_owned();
    assert_eq!(waiting["transfers"][0]["stage"], "queued", "{waiting}");
    assert!(fs::read_dir(&export).unwrap().all(|entry| entry.unwrap().file_name().to_str().unwrap().starts_with('.')));
    fs::write(&open, "").unwrap();
    // It may have tried again by itself in this moment, and be through.
    let _ = scene.end.agent.run(&["retry", &transfer]);
    eventually("the receiver knows that it is delivered", || {
        let shown = scene.end.receiver.run(&["show", &transfer, "--json"]).succeeded().json();
        (shown["state"] == "delivered").then_some(())
    });
    let told = fs::read_to_string(&ledger).unwrap();
    let words: Vec<&str> = told.split_whitespace().collect();
    assert_eq!((words.len(), words[0], words[1]), (3, transfer.as_str(), KIND), "{told}");
    assert!(words[2].ends_with("orders.csv"), "{told}");
    assert_eq!(scene.erp.taken_all(1), Taken::from([(content(1), 1)]));
}

#[test]
fn the_agent_is_killed_at_every_stage_of_the_way_back() {
    let (mut scene, _relay, _receiver) = scene();
    // Three events make up the delivery: staged, placed, and the signed receipt.
    let stages = [("pull", 1), ("verify", 1), ("deliver", 3), ("acknowledge", 1)];
    for (stage, events) in stages {
        for point in POINTS {
            for nth in 1..=events {
                let failpoint = format!("agent:{stage}:{point}:{nth}");
                let transfer = scene.send();
                let mut dying = scene.end.agent.with("TOWPATH_FAILPOINT", &failpoint).start(&["run"]);
                assert_eq!(dying.wait().signal(), KILLED, "{failpoint}");
                let agent = scene.end.agent.start(&["run"]);
                scene.delivered(&transfer, &failpoint);
                agent.kill();
            }
        }
    }
}

#[test]
fn the_relay_is_killed_at_every_stage_of_the_way_back() {
    let (mut scene, relay, _receiver) = scene();
    relay.kill();
    // Files go at once, so that the stage that removes them comes within each round.
    scene.world.configure_relay("[spool]\nretention = \"1ms\"\n");
    let _agent = scene.end.agent.start(&["run"]);
    for stage in ["fetch", "pack", "queue", "remove"] {
        for point in POINTS {
            let failpoint = format!("relay:{stage}:{point}");
            let mut dying = scene.world.relay.with("TOWPATH_FAILPOINT", &failpoint).serve(&["serve"]);
            let transfer = scene.send();
            assert_eq!(dying.wait().signal(), KILLED, "{failpoint}");
            let relay = scene.world.serve_relay();
            scene.delivered(&transfer, &failpoint);
            scene.removed(&transfer, &failpoint);
            relay.kill();
        }
    }
}

#[test]
fn the_receiver_is_killed_at_every_stage_of_the_way_back() {
    let (mut scene, _relay, receiver) = scene();
    receiver.kill();
    let _agent = scene.end.agent.start(&["run"]);
    for stage in ["export", "notify", "receipt"] {
        for point in POINTS {
            let failpoint = format!("receiver:{stage}:{point}");
            let transfer = scene.send();
            // It may reach the failpoint before it listens: the file is there already.
            let mut dying = scene.end.receiver.with("TOWPATH_FAILPOINT", &failpoint).start(&["serve"]);
            assert_eq!(dying.wait().signal(), KILLED, "{failpoint}");
            let receiver = scene.end.receiver.serve(&["serve"]);
            scene.delivered(&transfer, &failpoint);
            receiver.kill();
        }
    }
}
