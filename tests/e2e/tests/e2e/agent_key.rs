//! The agent's key changes while transfers go both ways, and nobody approves, restarts or loses anything.

use std::{fs, time::Duration};

use towpath_keys::Identity;
use towpath_samples::erp::{self, TouchOptions};
use towpath_testkit::{
    AGENT, End, JOB, Manner, NOISE, Program, RoughProxy, Server, TENANT, World, assert_same_tables, eventually,
    eventually_within, noisy_erp, noisy_job, query_text,
};

use crate::{executable, tables};

const ROWS: u64 = 300;
const KIND: &str = "orders";
/// Changes of the key, one after the other.
const CHANGES: usize = 3;
/// An overlap of 30 s, and at most a minute more.
const RETIRED: Duration = Duration::from_secs(90);
/// What an upload carries that is held in the middle, in bytes.
const PAYLOAD: usize = 3_000_000;
/// How fast it goes until a third is at the relay, in bytes a second.
const AT_FIRST: u64 = 100_000;
/// How fast it goes while it is held: something is on its way all the time, and what is left takes minutes.
const HELD: u64 = 5_000;
/// What goes over the wire for a payload, in hundredths of it: whoever begins anew after a third needs more.
const MOST: u64 = 125;

fn touch(end: &End, seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(erp::touch(&end.erp, &TouchOptions { seed, ..TouchOptions::default() })).unwrap();
}

fn key_of(agent: &Program) -> String {
    agent.run(&["key", "show", "--json"]).succeeded().json()["fingerprint"].as_str().unwrap().to_owned()
}

/// The fingerprint by which the relay knows the agent.
fn known_at_relay(world: &World) -> String {
    let ends = world.relay.run(&["agent", "list", "--json"]).succeeded().json();
    let ends = ends.as_array().or_else(|| ends["ends"].as_array()).unwrap().clone();
    let agent = ends.iter().find(|end| end["name"] == AGENT).unwrap().clone();
    agent["fingerprint"].as_str().unwrap().to_owned()
}

/// The keys of the agent that the receiver believes.
fn approved(end: &End) -> Vec<String> {
    let listed = end.receiver.run(&["agent", "list", "--json"]).succeeded().json();
    let agents = listed["agents"].as_array().unwrap();
    let approved = agents.iter().filter(|agent| agent["standing"] == "approved");
    approved.map(|agent| agent["fingerprint"].as_str().unwrap().to_owned()).collect()
}

/// An agent with the same state as it is now, and another one's hands on it.
fn thief(world: &World, end: &End) -> Program {
    let copy = Program::new(executable(), world.dir.path(), "agent", "thief");
    fs::create_dir_all(&copy.state).unwrap();
    for file in ["key", "enrolment.json", "allowed_signers"] {
        fs::copy(end.agent.state.join(file), copy.state.join(file)).unwrap();
    }
    copy.configure("");
    copy
}

#[test]
fn transfers_go_on_both_ways_while_the_key_changes_and_nobody_approves_anything() {
    let (world, end, _, mut relay, mut receiver) = World::running(executable(), ROWS);
    let delivery = world.dir.path().join("erp-in");
    fs::create_dir_all(&delivery).unwrap();
    let job = erp::job_toml(towpath_testkit::JOB, &end.erp);
    end.agent.configure(&format!(
        "[receipt]\npoll = \"100ms\"\n{job}\n[[delivery]]\nkind = \"{KIND}\"\nfolder = '{}'\n",
        delivery.display()
    ));
    let mut agent = end.run();
    let thief = thief(&world, &end);
    let mut keys = vec![key_of(&end.agent)];
    let mut returned = Vec::new();
    for round in 0..CHANGES {
        touch(&end, round as u64 + 1);
        let mut up = end.agent.start(&["send", "--job", towpath_testkit::JOB, "--wait"]);
        let file = world.dir.path().join(format!("orders-{round}.csv"));
        fs::write(&file, format!("order,{round}\r\n").repeat(1_000)).unwrap();
        let sent =
            end.receiver.run(&["send", file.to_str().unwrap(), "--kind", KIND, "--to", AGENT, "--json"]).succeeded().json();
        returned.push(sent["transfer"].as_str().unwrap().to_owned());
        let rotated = end.agent.run(&["key", "rotate", "--overlap", "1h", "--json"]).succeeded().json();
        assert_eq!(rotated["old"].as_str(), keys.last().map(String::as_str));
        keys.push(rotated["new"].as_str().unwrap().to_owned());
        assert_eq!((key_of(&end.agent), known_at_relay(&world)), (keys[round + 1].clone(), keys[round + 1].clone()));
        assert!(up.wait().success(), "{}", fs::read_to_string(&end.agent.log).unwrap());
    }
    for transfer in &returned {
        eventually("every return file is delivered", || {
            let shown = end.receiver.run(&["show", transfer, "--json"]).succeeded().json();
            assert_ne!(shown["parked"], true, "{shown}");
            (shown["state"] == "delivered").then_some(())
        });
    }
    touch(&end, 99);
    end.send().succeeded();
    assert_same_tables(&end.erp, &end.app(), &tables());
    let sent = end.transfers().len();
    assert_eq!(query_text(&end.app(), "SELECT count(*) FROM towpath_imports"), sent.to_string());
    let names = fs::read_dir(&delivery).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| !name.starts_with('.')).count(), CHANGES);
    // Whoever signed what is proven for ever.
    let _ = end.agent.run(&["receipts", "verify"]).succeeded();
    for transfer in &returned {
        let _ = end.receiver.run(&["receipts", "verify", transfer]).succeeded();
    }
    assert!(approved(&end).contains(keys.last().unwrap()) && approved(&end).contains(&keys[0]));
    // The first key is still good: so is whoever has copied it, until it is retired.
    assert_eq!(thief.run(&["receiver", "list"]).succeeded().stderr, "");
    assert!([&mut relay, &mut receiver, &mut agent].iter_mut().all(|server| server.ended().is_none()), "nobody was restarted");
    let audit = world.relay.run(&["audit", "show"]).succeeded().stdout;
    assert!(audit.matches("rotate").count() >= CHANGES, "{audit}");
}

#[test]
fn a_retired_key_is_refused_by_ssh_and_by_the_web_service() {
    let (world, end, _, _relay, _receiver) = World::running(executable(), ROWS);
    let thief = thief(&world, &end);
    assert_eq!(thief.run(&["receiver", "list"]).succeeded().stderr, "");
    // No agent runs: the command does it by itself.
    let told = end.agent.run(&["key", "rotate", "--overlap", "30s", "--type", "ed25519"]).succeeded().stdout;
    assert!(told.contains("from now on") && told.contains("is refused from"), "{told}");
    eventually_within(RETIRED, "the retired key is refused", || {
        thief.run(&["receiver", "list"]).stderr.contains("authentication-refused").then_some(())
    });
    let report = thief.run(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    let login = report["checks"].as_array().unwrap().iter().find(|check| check["id"] == "login").unwrap().clone();
    assert_eq!(login["code"], "authentication-refused", "{report:#}");
    // Neither can it be used to take the agent over.
    thief.run(&["key", "rotate"]).failed_with("authentication-refused");
    end.send().succeeded();
    assert_same_tables(&end.erp, &end.app(), &tables());
}

#[test]
fn a_change_that_was_cut_off_is_ended_by_the_agent_that_runs() {
    let (world, end, _, relay, _receiver) = World::running(executable(), ROWS);
    end.send().succeeded();
    let before = key_of(&end.agent);
    relay.kill();
    end.agent.run(&["key", "rotate"]).failed_with("relay-unreachable");
    let next = Identity::load(&end.agent.state.join("key.next")).unwrap().fingerprint().to_string();
    assert_eq!(key_of(&end.agent), before);
    let _relay = world.serve_relay();
    let _agent = end.run();
    eventually("the agent that runs ends the change", || (key_of(&end.agent) == next).then_some(()));
    assert_eq!(known_at_relay(&world), next);
    assert!(!end.agent.state.join("key.next").exists());
    touch(&end, 1);
    end.send().succeeded();
    assert_same_tables(&end.erp, &end.app(), &tables());
}

/// An upload in the middle, from behind a proxy that counts.
struct Upload {
    world: World,
    end: End,
    proxy: RoughProxy,
    id: String,
    up: Server,
    running: [Server; 3],
}

impl Upload {
    fn held_in_the_middle() -> Self {
        let world = World::new(executable());
        let (mut end, _) = world.end(TENANT, 1, 1);
        end.erp = world.dir.path().join("noise.sqlite");
        noisy_erp(&end.erp, 1, PAYLOAD);
        let proxy = RoughProxy::start(Manner::Passes);
        configure(&end, &proxy, Some(AT_FIRST));
        let relay = world.serve_relay();
        world.create_tenant(TENANT);
        world.enrol(&end);
        let running = [relay, end.receiver.serve(&["serve"]), end.run()];
        let up = end.agent.start(&["send", "--job", JOB, "--wait"]);
        let id = eventually("the transfer has a folder", || end.transfers().pop());
        let upload = Self { world, end, proxy, id, up, running };
        eventually("a third is at the relay", || (upload.at_relay() >= PAYLOAD as u64 / 3).then_some(()));
        upload.goes_at(Some(HELD));
        upload
    }

    /// Bytes of it that lie at the relay.
    fn at_relay(&self) -> u64 {
        let Ok(entries) = fs::read_dir(self.world.spool(TENANT, &self.id)) else { return 0 };
        entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
    }

    /// The agent that runs takes another limit, which counts in the middle of a file.
    fn goes_at(&self, bytes_per_second: Option<u64>) {
        configure(&self.end, &self.proxy, bytes_per_second);
        let told = self.end.agent.run(&["reload", "--json"]).succeeded().json();
        assert_eq!(told["changed"], serde_json::json!(["[bandwidth]"]));
    }

    /// More of it arrives than was there, and not all: it is on its way.
    fn moves(&self, than: u64) {
        eventually("more of it is at the relay", || (self.at_relay() > than).then_some(()));
        let is_there = self.at_relay();
        assert!(is_there < PAYLOAD as u64 * 3 / 4, "{is_there} bytes are there: the upload was not held");
    }

    /// How often somebody has logged in for files.
    fn logins(&self) -> usize {
        let rows = self.world.relay.run(&["audit", "show", "--action", "login", "--json"]).succeeded().json();
        rows.as_array().unwrap().len()
    }

    fn change_key(&self, overlap: &str) {
        let before = self.at_relay();
        let changed = self.end.agent.run(&["key", "rotate", "--overlap", overlap, "--json"]).succeeded().json();
        assert_eq!(changed["new"], known_at_relay(&self.world).as_str());
        assert_eq!(changed["new"], key_of(&self.end.agent).as_str());
        self.moves(before);
    }

    /// Let go, it arrives whole and once, and no more of it was sent again than what was on its way when something ended. Returns what
    /// the agent has said.
    fn arrives(mut self) -> String {
        self.goes_at(None);
        let log = || fs::read_to_string(&self.end.agent.log).unwrap();
        assert!(self.up.wait().success(), "{}", log());
        assert_same_tables(&self.end.erp, &self.end.app(), &[NOISE]);
        assert_eq!(query_text(&self.end.app(), "SELECT count(*) FROM towpath_imports"), "1");
        assert_eq!(self.end.transfers(), [self.id.as_str()]);
        let _ = self.end.agent.run(&["receipts", "verify"]).succeeded();
        assert!(self.running.iter_mut().all(|server| server.ended().is_none()), "nobody was restarted");
        let sent = self.proxy.told().up * 100 / PAYLOAD as u64;
        assert!(sent <= MOST, "{sent} % of the payload went over the wire\n{}", log());
        log()
    }
}

fn configure(end: &End, proxy: &RoughProxy, bytes_per_second: Option<u64>) {
    let limit = bytes_per_second.map_or_else(String::new, |limit| format!("[bandwidth]\nmax_bytes_per_second = {limit}\n"));
    let job = noisy_job(JOB, &end.erp);
    end.agent.configure(&format!("{}{limit}[receipt]\npoll = \"100ms\"\n{job}", proxy.toml()));
}

#[test]
fn an_upload_that_is_on_its_way_goes_on_when_the_key_changes() {
    let upload = Upload::held_in_the_middle();
    let logins = upload.logins();
    upload.change_key("1h");
    assert_eq!(upload.logins(), logins, "the session of the old key goes on");
    let log = upload.arrives();
    assert!(!log.contains("\"code\":"), "something has failed: {log}");
}

#[test]
fn an_upload_goes_on_by_the_new_key_where_the_old_one_is_retired_in_the_middle_of_it() {
    let upload = Upload::held_in_the_middle();
    upload.change_key("30s");
    let logins = upload.logins();
    let ended = || {
        let log = fs::read_to_string(&upload.world.relay.log).unwrap();
        log.contains("the sessions of a revoked agent or a retired key end").then_some(())
    };
    eventually_within(RETIRED, "the session of the retired key ends", ended);
    let before = upload.at_relay();
    upload.moves(before);
    let noted = upload.world.relay.run(&["audit", "show", "--action", "sessions-ended", "--json"]).succeeded().json();
    assert_eq!(noted.as_array().map(Vec::len), Some(1), "{noted}");
    assert!(upload.logins() > logins, "another session goes on with it");
    let _ = upload.arrives();
}
