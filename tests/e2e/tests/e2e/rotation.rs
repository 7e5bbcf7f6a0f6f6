//! The relay's keys change while everything runs, and nobody is restarted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use towpath_samples::erp::{self, TouchOptions};
use towpath_testkit::{End, Server, World, assert_same_tables, eventually, query_text};

use crate::{executable, tables};

const ROWS: u64 = 300;
/// Transfers that may pass before every end has pinned an announcement.
const TRIES: usize = 100;
const KEYS: [&str; 3] = ["host", "receipt", "certificate"];

/// What the running relay says once it shows the other key.
fn shows(what: &str) -> &'static str {
    match what {
        "host" => "the relay shows other keys",
        "receipt" => "the relay signs with another key",
        _ => "the relay shows another certificate",
    }
}

fn wait_for_log(world: &World, text: &str) {
    eventually(text, || fs::read_to_string(&world.relay.log).ok().filter(|log| log.contains(text)));
}

fn key_list(world: &World) -> serde_json::Value {
    world.relay.run(&["key", "list", "--json"]).succeeded().json()
}

fn fingerprints(world: &World) -> Vec<String> {
    let keys = key_list(world)["keys"].as_array().unwrap().clone();
    keys.iter().filter(|key| key["next"] == false).map(|key| key["fingerprint"].as_str().unwrap().to_owned()).collect()
}

/// Changes something in the ERP and sends it.
fn send_a_change(end: &End, seed: u64) {
    let options = TouchOptions { seed, ..TouchOptions::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(erp::touch(&end.erp, &options)).unwrap();
    let sent = end.send().succeeded().json();
    assert_eq!(sent["transfers"][0]["state"], "imported", "{sent}");
}

/// Sends changes until every end has said that it has pinned what is announced: the running relay takes an announcement within
/// seconds, and ends learn of it with a call. Returns the number of the last change.
fn send_until_pinned(world: &World, end: &End, mut sent: u64) -> u64 {
    for _ in 0..TRIES {
        sent += 1;
        send_a_change(end, sent);
        let ends = key_list(world)["ends"].as_array().unwrap().clone();
        if ends.iter().all(|end| end["behind"].as_array().unwrap().is_empty()) {
            return sent;
        }
    }
    panic!("the ends do not follow: {}", key_list(world));
}

fn assert_all_arrived(end: &End, sent: u64) {
    assert_same_tables(&end.erp, &end.app(), &tables());
    assert_eq!(query_text(&end.app(), "SELECT count(*) FROM towpath_imports"), sent.to_string());
    let _ = end.agent.run(&["receipts", "verify"]).succeeded();
}

fn assert_running(servers: &mut [&mut Server]) {
    assert!(servers.iter_mut().all(|server| server.ended().is_none()), "nothing was restarted");
}

#[test]
fn every_key_changes_under_a_running_agent_and_receiver() {
    let (world, end, _, mut relay, mut receiver) = World::running(executable(), ROWS);
    let mut agent = end.agent.start(&["run"]);
    let before = fingerprints(&world);
    let mut sent = 1;
    send_a_change(&end, sent);
    for what in KEYS {
        let _ = world.relay.run(&["key", "announce", what]).succeeded();
        sent = send_until_pinned(&world, &end, sent);
        let _ = world.relay.run(&["key", "switch", what]).succeeded();
        wait_for_log(&world, shows(what));
        sent += 1;
        send_a_change(&end, sent);
    }
    let after = fingerprints(&world);
    assert!(after.len() == before.len() && after.iter().all(|key| !before.contains(key)), "{before:?} {after:?}");
    assert_all_arrived(&end, sent);
    assert_running(&mut [&mut relay, &mut receiver, &mut agent]);
}

#[test]
fn whoever_has_not_pinned_the_next_key_holds_the_switch_up_and_whoever_has_may_be_away() {
    let (world, end, _, _relay, _receiver) = World::running(executable(), ROWS);
    end.send().succeeded();
    for what in KEYS {
        let _ = world.relay.run(&["key", "announce", what]).succeeded();
        // No agent runs that could have learnt of it.
        let refused = world.relay.run(&["key", "switch", what]).failed_with("request-invalid");
        assert!(refused.stderr.contains("acme.erp"), "{}", refused.stderr);
    }
    let sent = send_until_pinned(&world, &end, 0);
    // The agent is away while all of it happens.
    for what in KEYS {
        let _ = world.relay.run(&["key", "switch", what]).succeeded();
        wait_for_log(&world, shows(what));
    }
    send_a_change(&end, sent + 1);
    assert_all_arrived(&end, sent + 2);
    // A key that is taken back was never shown.
    let present = fingerprints(&world);
    let _ = world.relay.run(&["key", "announce", "host"]).succeeded();
    let _ = world.relay.run(&["key", "withdraw", "host"]).succeeded();
    assert_eq!(fingerprints(&world), present);
    let _ = world.relay.run(&["key", "switch", "host"]).failed_with("not-found");
    let audit = world.relay.run(&["audit", "show"]).succeeded().stdout;
    assert!(
        audit.contains("key-switch") && audit.contains("receipt of announcement") && audit.contains("key-withdraw"),
        "{audit}"
    );
}

/// A certificate and its key, made by the relay, as files of the operator's.
fn certificate(world: &World, name: &str) -> (PathBuf, PathBuf) {
    let made = world.relay.state.join("next/certificate");
    let _ = world.relay.run(&["key", "announce", "certificate"]).succeeded();
    let copy = |file: &str| {
        let to = world.dir.path().join(format!("{name}-{file}"));
        fs::copy(made.join(file), &to).unwrap();
        to
    };
    (copy("certificate.pem"), copy("key.pem"))
}

fn put(from: &(PathBuf, PathBuf), to: &(PathBuf, PathBuf)) {
    fs::copy(&from.1, &to.1).unwrap();
    fs::copy(&from.0, &to.0).unwrap();
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_str().unwrap())
}

#[test]
fn certificate_files_are_served_when_they_are_replaced() {
    let world = World::new(executable());
    let first = certificate(&world, "first");
    let _ = world.relay.run(&["key", "withdraw", "certificate"]).succeeded();
    let live = (world.dir.path().join("live.pem"), world.dir.path().join("live.key"));
    put(&first, &live);
    let tls = format!("[tls]\ncertificate = {}\nkey = {}\npin = true\n", quoted(&live.0), quoted(&live.1));
    world.configure_relay(&tls);
    let mut relay = world.serve_relay();
    let (end, _) = world.end("acme", ROWS, 1);
    world.create_tenant("acme");
    world.enrol(&end);
    let _receiver = end.receiver.serve(&["serve"]);
    end.send().succeeded();

    // A file that cannot be used leaves what was there.
    fs::write(&live.0, "half a certific").unwrap();
    wait_for_log(&world, "cannot be used; the relay shows the one before");
    send_a_change(&end, 1);

    // The announced one is put there by hand, as an ACME client would.
    put(&first, &live);
    let second = certificate(&world, "second");
    let sent = send_until_pinned(&world, &end, 1);
    put(&second, &live);
    wait_for_log(&world, "the relay shows another certificate");
    send_a_change(&end, sent + 1);
    assert_all_arrived(&end, sent + 2);
    assert!(key_list(&world)["keys"].as_array().unwrap().iter().all(|key| key["next"] == false));

    // One that nobody was told of: the relay says aloud who is lost, and the agent does not believe it.
    let third = certificate(&world, "third");
    let _ = world.relay.run(&["key", "withdraw", "certificate"]).succeeded();
    put(&third, &live);
    wait_for_log(&world, "the relay uses a key that it never announced");
    let log = fs::read_to_string(&world.relay.log).unwrap();
    assert!(log.contains("acme.erp") && log.contains("acme.app"), "{log}");
    let _ = end.agent.run(&["send", "--job", "main", "--wait"]).failed_with("relay-certificate");
    assert_running(&mut [&mut relay]);
}
