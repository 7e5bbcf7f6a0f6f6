//! Backups that are put back under the real programs, as docs/operations.md says: the relay's state folder with its files and
//! without, and the app database. Nothing is lost, nothing is doubled, and nobody lends a hand.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use towpath_samples::erp::{self, TouchOptions};
use towpath_testkit::{AGENT, End, JOB, RECEIVER, Server, TENANT, World, assert_same_tables, eventually, query_text};

use crate::{executable, tables};

const IMPORTS: &str = "SELECT count(*) FROM towpath_imports";

fn a_day_passes(end: &End, seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(erp::touch(&end.erp, &TouchOptions { seed, ..TouchOptions::default() })).unwrap();
}

/// Copies a folder of a program that does not run, in the place of whatever is there.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "copying {} to {}", from.display(), to.display());
}

/// The agent's transfer that is under way, once it is in this state.
fn until(end: &End, id: &str, state: &str) {
    eventually(&format!("transfer {id} is {state} at the agent"), || {
        let shown = end.agent.run(&["show", id, "--json"]);
        (shown.status.success() && shown.json()["state"] == state).then_some(())
    });
}

/// Hands over a transfer of the job, and waits until the relay has signed for it; the app server is off.
fn accepted(end: &End) -> String {
    let before = end.transfers();
    let sending = end.agent.start(&["send", "--job", JOB, "--wait"]);
    let id = eventually("the transfer has a folder", || end.transfers().into_iter().find(|id| !before.contains(id)));
    until(end, &id, "accepted");
    sending.kill();
    id
}

/// Everything is started, and the transfer comes to its end by itself.
fn comes_to_its_end(world: &World, end: &End, id: &str, imports: u64) -> (Server, Server) {
    let (relay, receiver) = (world.serve_relay(), end.receiver.serve(&["serve"]));
    let agent = end.run();
    until(end, id, "imported");
    agent.kill();
    assert_same_tables(&end.erp, &end.app(), &tables());
    assert_eq!(query_text(&end.app(), IMPORTS), imports.to_string());
    let _ = end.agent.run(&["receipts", "verify"]).succeeded();
    (relay, receiver)
}

#[test]
fn the_relay_is_put_back_without_its_files_and_then_to_before_the_transfer() {
    let (world, end, _, relay, receiver) = World::running(executable(), 400);
    let _ = end.send().succeeded();
    receiver.kill();

    // The night finds a transfer that waits for the app server. Its files are not in the backup.
    a_day_passes(&end, 1);
    let id = accepted(&end);
    relay.kill();
    let night = world.dir.path().join("night");
    copy(&world.relay.state, &night);
    fs::remove_dir_all(night.join("spool")).unwrap();
    copy(&night, &world.relay.state);
    let (relay, receiver) = comes_to_its_end(&world, &end, &id, 2);
    receiver.kill();

    // The night knows nothing yet of what the day has brought.
    relay.kill();
    copy(&world.relay.state, &night);
    let relay = world.serve_relay();
    a_day_passes(&end, 2);
    let id = accepted(&end);
    relay.kill();
    copy(&night, &world.relay.state);
    let _running = comes_to_its_end(&world, &end, &id, 3);
}

#[test]
fn the_app_database_is_put_back() {
    let (_world, end, _, _relay, receiver) = World::running(executable(), 400);
    let _ = end.send().succeeded();
    receiver.kill();
    let night: PathBuf = end.receiver.state.join("night");
    copy(&end.receiver.state.join("import"), &night);
    let receiver = end.receiver.serve(&["serve"]);
    a_day_passes(&end, 1);
    let _ = end.send().succeeded();
    receiver.kill();
    copy(&night, &end.receiver.state.join("import"));
    let _receiver = end.receiver.serve(&["serve"]);
    let restored = eventually("it is noticed", || {
        let status = end.receiver.run(&["status", "--json"]).succeeded().json();
        status["app_restored"].as_array().filter(|found| !found.is_empty()).cloned()
    });
    assert_eq!((&restored[0]["agent"], &restored[0]["job"]), (&AGENT.into(), &JOB.into()));
    let log = fs::read_to_string(&end.receiver.log).unwrap();
    assert!(log.contains("app-restored"), "{log}");

    // What builds on the day is rejected, and the agent sends everything by itself.
    let agent = end.run();
    let _ = end.agent.run(&["send", "--job", JOB]);
    eventually("the app has everything again", || (query_text(&end.app(), IMPORTS) == "2").then_some(()));
    eventually("it is well again", || {
        let status = end.receiver.run(&["status", "--json"]).succeeded().json();
        status["app_restored"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
    agent.kill();
    assert_same_tables(&end.erp, &end.app(), &tables());
}

#[test]
fn who_was_revoked_since_the_backup_stays_revoked() {
    let (world, end, _, relay, _receiver) = World::running(executable(), 50);
    let _ = end.send().succeeded();
    relay.kill();
    let (night, list) = (world.dir.path().join("night"), world.relay.state.join("access.jsonl"));
    copy(&world.relay.state, &night);
    let _ = world.relay.run(&["agent", "revoke", "--tenant", TENANT, AGENT]).succeeded();
    let (kept, head) = (fs::read(&list).unwrap(), world.relay.run(&["audit", "verify", "--json"]).succeeded().json());
    copy(&night, &world.relay.state);
    fs::write(&list, kept).unwrap();
    // What the service would have noted, had it run on.
    let (id, hash) = (&head["head"]["id"], head["head"]["hash"].as_str().unwrap());
    fs::write(world.relay.state.join("audit-head"), format!("{hash}@{id}\n")).unwrap();
    let cut = world.relay.run(&["audit", "verify"]).failed_with("audit-broken");
    assert!(cut.stderr.contains("put back from a backup"), "{}", cut.stderr);
    let relay = world.serve_relay();
    let ends = world.relay.run(&["agent", "list", "--tenant", TENANT, "--json"]).succeeded().json();
    let revoked = |name: &str| ends.as_array().unwrap().iter().any(|end| end["name"] == name && !end["revoked"].is_null());
    assert!(revoked(AGENT) && !revoked(RECEIVER), "{ends}");
    assert!(fs::read_to_string(&world.relay.log).unwrap().contains("relay-restored"));

    let verified = world.relay.run(&["audit", "verify", "--json"]).succeeded().json();
    assert_eq!((&verified["valid"], &verified["lost"]), (&true.into(), &1.into()), "{verified}");
    let lost = world.relay.run(&["audit", "show", "--action", "lost", "--json"]).succeeded().json();
    assert!(lost[0]["detail"].as_str().unwrap().starts_with(&format!("row {id} {hash} is not there")), "{lost}");
    relay.kill();
    let again = world.serve_relay();
    again.kill();
    assert_eq!(world.relay.run(&["audit", "verify", "--json"]).succeeded().json()["lost"], 1, "it is told once");
}
