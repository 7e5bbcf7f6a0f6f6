//! `kill -9` before the effect of every stage, between effect and journal, and after the journal: one import each time.

use std::os::unix::process::ExitStatusExt as _;

use towpath_samples::erp::{self, TouchOptions};
use towpath_testkit::{End, Program, Server, TENANT, World, assert_same_tables, eventually, query_text};

use crate::{executable, tables};

const POINTS: [&str; 3] = ["before-effect", "after-effect", "after-journal"];
const KILLED: Option<i32> = Some(9);

/// One installation in which one program after the other is killed, and what has been imported so far.
struct Scene {
    world: World,
    end: End,
    imports: u64,
}

fn scene() -> (Scene, Server, Server) {
    let (world, end, _, relay, receiver) = World::running(executable(), 400);
    (Scene { world, end, imports: 0 }, relay, receiver)
}

impl Scene {
    /// Changes the ERP, so that each round has something of its own to carry.
    fn a_day_passes(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = TouchOptions { seed: self.imports, ..TouchOptions::default() };
        runtime.block_on(erp::touch(&self.end.erp, &options)).unwrap();
    }

    /// The agent is killed at a failpoint while it sends.
    fn dies_at(&self, failpoint: &str) {
        let sending = self.end.agent.with("TOWPATH_FAILPOINT", failpoint);
        let killed = sending.run(&["send", "--job", "main", "--wait", "--json"]);
        assert_eq!(killed.status.signal(), KILLED, "{failpoint} was not reached: {killed:?}");
    }

    /// How far the newest transfer has come at the agent.
    fn state(&self) -> String {
        let shown = self.end.agent.run(&["show", &self.end.newest().0, "--json"]).succeeded().json();
        shown["state"].as_str().unwrap().to_owned()
    }

    /// After the crash and a restart everything is there, once.
    fn all_is_well(&mut self, what: &str) {
        self.imports += 1;
        let sent = self.end.send();
        assert!(sent.status.success(), "after {what}: {sent:?}");
        assert_same_tables(&self.end.erp, &self.end.app(), &tables());
        let imports = query_text(&self.end.app(), "SELECT count(*) FROM towpath_imports");
        assert_eq!(imports, self.imports.to_string(), "after {what}");
        assert_eq!(self.end.transfers().len() as u64, self.imports, "after {what}");
        let _ = self.end.agent.run(&["receipts", "verify"]).succeeded();
        let parts = query_parts(&self.end.receiver);
        assert!(parts.is_empty(), "after {what} something is left on the landing: {parts:?}");
    }
}

/// What is still on the landing; the receiver removes a transfer once its receipt is handed over.
fn query_parts(receiver: &Program) -> Vec<String> {
    let agent = receiver.state.join("landing").join("uplink").join(towpath_testkit::AGENT);
    let Ok(entries) = std::fs::read_dir(agent) else { return Vec::new() };
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_agent_is_killed_at_every_stage() {
    let (mut scene, _relay, _receiver) = scene();
    // Two events make up the receipt: the relay's, and the receiver's.
    for (stage, earlier) in [("extract", None), ("pack", None), ("push", None), ("receipt", None), ("receipt", Some("accepted"))]
    {
        for point in POINTS {
            scene.a_day_passes();
            if let Some(earlier) = earlier {
                scene.dies_at(&format!("agent:{stage}:after-journal"));
                assert_eq!(scene.state(), earlier);
            }
            let failpoint = format!("agent:{stage}:{point}");
            scene.dies_at(&failpoint);
            // The last point of the last stage leaves nothing open, so that a further send is a further transfer.
            if (stage, point) == ("receipt", "after-journal") && scene.state() == "imported" {
                assert_eq!(earlier, Some("accepted"));
                scene.imports += 1;
                scene.a_day_passes();
            }
            scene.all_is_well(&failpoint);
        }
    }
}

#[test]
fn the_relay_is_killed_at_every_stage() {
    let (mut scene, relay, _receiver) = scene();
    relay.kill();
    // Files go at once, so that the stage that removes them comes within each round.
    scene.world.configure_relay("[spool]\nretention = \"1ms\"\n");
    for stage in ["accept", "forward", "remove"] {
        for point in POINTS {
            scene.a_day_passes();
            let failpoint = format!("relay:{stage}:{point}");
            let mut dying = scene.world.relay.with("TOWPATH_FAILPOINT", &failpoint).serve(&["serve"]);
            let mut sending = scene.end.agent.start(&["send", "--job", "main", "--wait"]);
            assert_eq!(dying.wait().signal(), KILLED, "{failpoint}");
            let relay = scene.world.serve_relay();
            assert!(sending.wait().success(), "the agent did not go on by itself after {failpoint}");
            // The waiting agent has finished the transfer; a send of the same content would be another one.
            scene.check_without_sending(&failpoint);
            let spooled = scene.world.spool(TENANT, &scene.end.newest().0);
            eventually(&format!("the relay has removed the transfer after {failpoint}"), || {
                let shown = scene.world.relay.run(&["transfer", "show", &scene.end.newest().0, "--json"]).succeeded().json();
                (shown["state"] == "removed" && !spooled.exists()).then_some(())
            });
            relay.kill();
        }
    }
}

#[test]
fn the_receiver_is_killed_at_every_stage() {
    let (mut scene, _relay, receiver) = scene();
    receiver.kill();
    for stage in ["verify", "import", "receipt"] {
        for point in POINTS {
            scene.a_day_passes();
            let failpoint = format!("receiver:{stage}:{point}");
            let mut dying = scene.end.receiver.with("TOWPATH_FAILPOINT", &failpoint).serve(&["serve"]);
            let mut sending = scene.end.agent.start(&["send", "--job", "main", "--wait"]);
            assert_eq!(dying.wait().signal(), KILLED, "{failpoint}");
            let receiver = scene.end.receiver.serve(&["serve"]);
            assert!(sending.wait().success(), "the agent did not go on by itself after {failpoint}");
            scene.check_without_sending(&failpoint);
            receiver.kill();
        }
    }
}

impl Scene {
    /// The transfer under way has come to its end; looks at what it left.
    fn check_without_sending(&mut self, what: &str) {
        self.imports += 1;
        assert_same_tables(&self.end.erp, &self.end.app(), &tables());
        let imports = query_text(&self.end.app(), "SELECT count(*) FROM towpath_imports");
        assert_eq!(imports, self.imports.to_string(), "after {what}");
        assert_eq!(self.end.transfers().len() as u64, self.imports, "after {what}");
        let _ = self.end.agent.run(&["receipts", "verify"]).succeeded();
    }
}
