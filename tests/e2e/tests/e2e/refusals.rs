//! Everything that must be refused, each with a clear answer, its code, and nothing lost.

use std::{
    fs,
    path::{Path, PathBuf},
};

use towpath_samples::erp::{self, TouchOptions};
use towpath_testkit::{AGENT, End, JOB, Program, RECEIVER, Server, TENANT, World, assert_same_tables, eventually, query_text};

use crate::{executable, tables};

#[test]
fn enrolment_codes_that_are_wrong_used_or_expired() {
    let world = World::new(executable());
    let (end, _) = world.end(TENANT, 100, 1);
    let (thief, _) = world.end("thief", 100, 1);
    let _relay = world.serve_relay();
    world.create_tenant(TENANT);

    let code = world.enrolment_code(TENANT, "agent", AGENT);
    end.agent.run(&["enrol", &code[..code.len() - 1]]).failed_with("enrolment-code-invalid");
    let other = World::new(executable());
    let _other_relay = other.serve_relay();
    end.agent.run(&["enrol", &code]).succeeded();
    end.agent.run(&["enrol", &code]).succeeded();
    thief.agent.run(&["enrol", &code]).failed_with("enrolment-used");

    let arguments = ["enrolment", "create", "--tenant", TENANT, "--role", "agent", "--name", "late", "--expires", "1s"];
    let brief = world.relay.run(&arguments).succeeded().stdout;
    let expired = towpath_testkit::eventually("the code has expired", || {
        let tried = thief.agent.run(&["enrol", &brief]);
        (!tried.status.success()).then_some(tried)
    });
    // A code that was used in time stays its key's own until it expires; either way it ends as expired.
    expired.failed_with("enrolment-expired");
}

#[test]
fn an_agent_that_nobody_approved() {
    let world = World::new(executable());
    let (end, _) = world.end(TENANT, 300, 1);
    let _relay = world.serve_relay();
    world.create_tenant(TENANT);
    let code = world.enrolment_code(TENANT, "receiver", RECEIVER);
    end.receiver.run(&["enrol", &code, "--landing", &format!("127.0.0.1:{}", end.port)]).succeeded();
    let code = world.enrolment_code(TENANT, "agent", AGENT);
    end.agent.run(&["enrol", &code]).succeeded();
    end.approve_receiver();
    let _receiver = end.receiver.serve(&["serve"]);

    end.send().failed_with("agent-unapproved");
    assert!(!end.app().exists() || query_text(&end.app(), "SELECT count(*) FROM towpath_imports") == "0");
    end.approve_agent();
    end.send().succeeded();
    assert_same_tables(&end.erp, &end.app(), &tables());
}

#[test]
fn a_revoked_agent() {
    let (world, end, _, _relay, _receiver) = World::running(executable(), 300);
    end.send().succeeded();
    world.relay.run(&["agent", "revoke", "--tenant", TENANT, AGENT]).succeeded();
    towpath_testkit::eventually("the relay refuses the agent", || {
        let sent = end.send();
        let said = format!("{}{}", sent.stdout, sent.stderr);
        (!sent.status.success() && said.contains("agent-revoked")).then_some(())
    });
}

#[test]
fn a_relay_that_was_set_up_anew() {
    let (world, end, _, relay, _receiver) = World::running(executable(), 300);
    relay.kill();
    // With its receipt key alone it could still announce its other host keys.
    std::fs::remove_dir_all(world.relay.state.join("host_keys")).unwrap();
    for file in ["receipt_key", "announcement.json"] {
        std::fs::remove_file(world.relay.state.join(file)).unwrap();
    }
    let _relay = world.serve_relay();
    end.send().failed_with("host-key-unknown");
}

#[test]
fn an_erp_database_that_is_missing_or_locked() {
    let (_world, end, _, _relay, _receiver) = World::running(executable(), 300);
    let away = end.erp.with_extension("away");
    std::fs::rename(&end.erp, &away).unwrap();
    end.send().failed_with("erp-missing");
    std::fs::rename(&away, &end.erp).unwrap();
    end.send().succeeded();
    assert_same_tables(&end.erp, &end.app(), &tables());
}

#[test]
fn an_older_transfer_after_a_newer_one() {
    let (world, end, _, relay, receiver) = World::running(executable(), 300);
    end.send().succeeded();
    receiver.kill();
    end.agent.run(&["send", "--job", "main"]).succeeded();
    let (older, _) = end.newest();
    // The ledger of the app database already holds a newer number, as after a restore of the relay alone.
    let app = end.app();
    let _ = query_texts_of(&app, "UPDATE towpath_imports SET sequence = sequence + 100");
    let _receiver = end.receiver.serve(&["serve"]);
    let sent = end.send();
    let sent = sent.failed_with("superseded");
    assert!(format!("{}{}", sent.stdout, sent.stderr).contains(&older) || end.newest().0 == older);
    drop((relay, world));
}

fn query_texts_of(database: &std::path::Path, sql: &str) -> Vec<String> {
    towpath_testkit::query_texts(database, sql)
}

#[test]
fn a_spool_that_is_full() {
    let (world, end, _, relay, _receiver) = World::running(executable(), 3_000);
    relay.kill();
    world.configure_relay("[spool]\nlimit = \"20KiB\"\ntenant_limit = \"20KiB\"\n");
    let small = world.serve_relay();
    let mut waiting = end.agent.start(&["send", "--job", "main", "--wait"]);
    towpath_testkit::eventually("the agent is told that the spool is full", || {
        let status = end.agent.run(&["status", "--json"]).stdout;
        status.contains("spool-full").then_some(())
    });
    small.kill();
    world.configure_relay("");
    let _relay = world.serve_relay();
    assert!(waiting.wait().success(), "the agent did not go on by itself once there was room");
    assert_same_tables(&end.erp, &end.app(), &tables());
}

const KIND: &str = "orders";

/// A program as it runs on a host whose clock is so far off.
fn with_clock(program: &Program, offset: &str) -> Program {
    let library = ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or_else(|| panic!("libfaketime is missing: apt-get install libfaketime, or run cargo xtask test"));
    program.with("LD_PRELOAD", library).with("FAKETIME", offset).with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

/// An installation that carries something each way again and again.
struct Scene {
    world: World,
    end: End,
    delivery: PathBuf,
    carried: u64,
}

impl Scene {
    fn new() -> (Self, Server, Server) {
        let (world, end, _, relay, receiver) = World::running(executable(), 300);
        let delivery = world.dir.path().join("erp-in");
        fs::create_dir_all(&delivery).unwrap();
        let job = erp::job_toml(JOB, &end.erp);
        end.agent.configure(&format!(
            "[receipt]\npoll = \"100ms\"\n{job}\n[[delivery]]\nkind = \"{KIND}\"\nfolder = '{}'\n",
            delivery.display()
        ));
        (Self { world, end, delivery, carried: 0 }, relay, receiver)
    }

    /// Carries a change of the ERP up and a file back, each once; returns what the agent has said.
    fn carries(&mut self, what: &str) -> String {
        self.carried += 1;
        let options = TouchOptions { seed: self.carried, ..TouchOptions::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(erp::touch(&self.end.erp, &options)).unwrap();
        let sent = self.end.agent.run(&["send", "--job", JOB, "--wait"]);
        assert!(sent.status.success(), "{what}: {sent:?}");
        assert_same_tables(&self.end.erp, &self.end.app(), &tables());
        assert_eq!(query_text(&self.end.app(), "SELECT count(*) FROM towpath_imports"), self.carried.to_string(), "{what}");
        let file = self.world.dir.path().join(format!("orders-{}.csv", self.carried));
        fs::write(&file, format!("order,{}\r\n", self.carried)).unwrap();
        let told = self.end.receiver.run(&["send", file.to_str().unwrap(), "--kind", KIND, "--to", AGENT, "--json"]);
        let id = told.succeeded().json()["transfer"].as_str().unwrap().to_owned();
        let agent = self.end.run();
        eventually(&format!("{what}: the file is delivered"), || {
            let shown = self.end.receiver.run(&["show", &id, "--json"]).succeeded().json();
            assert_ne!(shown["parked"], true, "{what}: {shown}");
            (shown["state"] == "delivered").then_some(())
        });
        agent.kill();
        let names = fs::read_dir(&self.delivery).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| !name.starts_with('.')).count() as u64, self.carried, "{what}");
        let _ = self.end.agent.run(&["receipts", "verify"]).succeeded();
        let _ = self.end.receiver.run(&["receipts", "verify", &id]).succeeded();
        sent.stderr
    }
}

fn length(log: &Path) -> usize {
    fs::read(log).unwrap().len()
}

/// From here on the log has a word about the clock.
fn says_so(log: &Path, from: usize) {
    let said = fs::read(log).unwrap().split_off(from);
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("clock-skew"), "no word about the clock: {said}");
}

#[test]
fn an_agent_whose_clock_is_a_day_off() {
    let (mut scene, _relay, _receiver) = Scene::new();
    let right = scene.end.agent.clone();
    let _ = scene.carries("before");
    for offset in ["+1d", "-1d"] {
        scene.end.agent = with_clock(&right, offset);
        let told = scene.carries(offset);
        assert!(told.contains("clock-skew"), "no word about the clock: {told}");
        scene.end.agent = right.clone();
        let told = scene.carries(&format!("after {offset}"));
        assert!(!told.contains("clock-skew"), "all clocks are right: {told}");
    }
}

#[test]
fn a_relay_whose_clock_is_a_day_off() {
    let (mut scene, mut relay, _receiver) = Scene::new();
    let right = scene.world.relay.clone();
    let _ = scene.carries("before");
    for offset in ["+1d", "-1d"] {
        relay.kill();
        scene.world.relay = with_clock(&right, offset);
        relay = scene.world.serve_relay();
        let from = length(&scene.end.receiver.log);
        let told = scene.carries(offset);
        assert!(told.contains("clock-skew"), "no word about the clock: {told}");
        says_so(&scene.end.receiver.log, from);
        relay.kill();
        scene.world.relay = right.clone();
        relay = scene.world.serve_relay();
        let told = scene.carries(&format!("after {offset}"));
        assert!(!told.contains("clock-skew"), "all clocks are right: {told}");
    }
}

#[test]
fn a_receiver_whose_clock_is_a_day_off() {
    let (mut scene, _relay, mut receiver) = Scene::new();
    let right = scene.end.receiver.clone();
    let _ = scene.carries("before");
    for offset in ["+1d", "-1d"] {
        receiver.kill();
        let from = length(&right.log);
        scene.end.receiver = with_clock(&right, offset);
        receiver = scene.end.receiver.serve(&["serve"]);
        let told = scene.carries(offset);
        assert!(!told.contains("clock-skew"), "the agent's clock is right: {told}");
        says_so(&right.log, from);
        receiver.kill();
        scene.end.receiver = right.clone();
        receiver = scene.end.receiver.serve(&["serve"]);
        let told = scene.carries(&format!("after {offset}"));
        assert!(!told.contains("clock-skew"), "all clocks are right: {told}");
    }
}
