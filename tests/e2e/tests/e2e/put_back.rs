//! Backups that are put back under the real programs, as docs/operations.md says: the relay's state folder with its files and
//! without, and the app database. Nothing is lost, nothing is doubled, and nobody lends a hand.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use towpath_samples::erp::{self, TouchOptions};
use towpath_testkit::{AGENT, End, JOB, RECEIVER, Server, TENANT, World, assert_same_tables, eventually, query_text};

use crate::{executable, tables};

const KIND: &str = "orders";
const KILLED: Option<i32> = Some(9);
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

/// What of a relay's state is never put back.
const BESIDE: [&str; 2] = ["access.jsonl", "audit-head"];

/// Puts a relay's backup back as docs/operations.md says.
fn put_back(world: &World, night: &Path) {
    let kept = BESIDE.map(|name| (world.relay.state.join(name), fs::read(world.relay.state.join(name)).ok()));
    copy(night, &world.relay.state);
    for (path, bytes) in kept {
        bytes.into_iter().for_each(|bytes| fs::write(&path, bytes).unwrap());
    }
}

/// Stops a service as `systemctl stop` does.
fn stop(mut server: Server) {
    assert!(Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap().success());
    assert_eq!(server.wait().code(), Some(0));
}

/// What the relay's log says of having been put back.
fn noticed(world: &World) -> Vec<String> {
    let log = fs::read_to_string(&world.relay.log).unwrap();
    log.lines().filter(|line| line.contains("relay-restored")).map(str::to_owned).collect()
}

/// The rows of the relay's audit trail about an action.
fn audited(world: &World, action: &str) -> Vec<String> {
    let rows = world.relay.run(&["audit", "show", "--action", action, "--json"]).succeeded().json();
    rows.as_array().unwrap().iter().map(|row| row["detail"].as_str().unwrap().to_owned()).collect()
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
    assert_eq!(noticed(&world), [""; 0], "its database is as it was");

    // The night knows nothing yet of what the day has brought.
    stop(relay);
    copy(&world.relay.state, &night);
    let relay = world.serve_relay();
    a_day_passes(&end, 2);
    let id = accepted(&end);
    stop(relay);
    put_back(&world, &night);
    let _running = comes_to_its_end(&world, &end, &id, 3);
    let told = noticed(&world);
    assert!(told.len() == 1 && told[0].contains("rows of the audit trail are gone"), "{told:?}");
    assert_eq!(audited(&world, "lost").len(), 1);
}

/// An installation whose agent delivers, after its first transfer; and the relay's backup of that night.
fn after_a_night() -> (World, End, PathBuf, PathBuf) {
    let (world, end, _, relay, receiver) = World::running(executable(), 400);
    let delivery = world.dir.path().join("erp-in");
    fs::create_dir_all(&delivery).unwrap();
    let job = erp::job_toml(JOB, &end.erp);
    end.agent.configure(&format!(
        "[receipt]\npoll = \"100ms\"\n{job}\n[[delivery]]\nkind = \"{KIND}\"\nfolder = '{}'\n",
        delivery.display()
    ));
    let _ = end.send().succeeded();
    receiver.kill();
    stop(relay);
    let night = world.dir.path().join("night");
    copy(&world.relay.state, &night);
    (world, end, night, delivery)
}

#[test]
fn a_relay_whose_host_was_lost_gets_again_what_it_has_signed_for() {
    let (world, end, night, _) = after_a_night();
    let relay = world.serve_relay();
    a_day_passes(&end, 1);
    let id = accepted(&end);
    relay.kill();
    copy(&night, &world.relay.state);
    let _running = comes_to_its_end(&world, &end, &id, 2);
    let log = fs::read_to_string(&end.agent.log).unwrap();
    assert!(log.lines().any(|line| line.contains(&id) && line.contains("it is given again")), "{log}");
}

#[test]
fn a_relay_whose_host_was_lost_learns_it_from_a_receipt_that_it_cannot_place() {
    let (world, end, night, _) = after_a_night();
    let relay = world.serve_relay();
    a_day_passes(&end, 1);
    let before = end.transfers();
    let sending = end.agent.start(&["send", "--job", JOB, "--wait"]);
    let mut dying = end.receiver.with("TOWPATH_FAILPOINT", "receiver:receipt:before-effect").start(&["serve"]);
    assert_eq!(dying.wait().signal(), KILLED);
    sending.kill();
    relay.kill();
    let id = end.transfers().into_iter().find(|id| !before.contains(id)).unwrap();

    // What is kept beside the database was lost as well.
    copy(&night, &world.relay.state);
    let relay = world.serve_relay();
    assert_eq!(noticed(&world), [""; 0], "it cannot know yet");
    let receiver = end.receiver.serve(&["serve"]);
    eventually("the receipt tells it", || noticed(&world).iter().any(|line| line.contains(&id)).then_some(()));
    relay.kill();
    receiver.kill();
    let _running = comes_to_its_end(&world, &end, &id, 2);
}

#[test]
fn a_relay_whose_host_was_lost_learns_it_from_an_acknowledgement_that_it_cannot_place() {
    let (world, end, night, delivery) = after_a_night();
    let (relay, receiver) = (world.serve_relay(), end.receiver.serve(&["serve"]));
    let file = world.dir.path().join("orders.csv");
    fs::write(&file, "order,1\r\n").unwrap();
    let sent = end.receiver.run(&["send", file.to_str().unwrap(), "--kind", KIND, "--to", AGENT, "--json"]).succeeded().json();
    let id = sent["transfer"].as_str().unwrap();
    let mut dying = end.agent.with("TOWPATH_FAILPOINT", "agent:acknowledge:before-effect").start(&["run"]);
    assert_eq!(dying.wait().signal(), KILLED);
    // Whoever announces it again would bring it back to the relay before the agent has said that it has it.
    receiver.kill();
    relay.kill();

    copy(&night, &world.relay.state);
    let _relay = world.serve_relay();
    assert_eq!(noticed(&world), [""; 0], "it cannot know yet");
    let _agent = end.run();
    eventually("the acknowledgement tells it", || noticed(&world).iter().any(|line| line.contains(id)).then_some(()));
    let _receiver = end.receiver.serve(&["serve"]);
    eventually("the receiver hears of the delivery", || {
        let shown = end.receiver.run(&["show", id, "--json"]).succeeded().json();
        assert_ne!(shown["parked"], true, "{shown}");
        (shown["state"] == "delivered").then_some(())
    });
    let names = fs::read_dir(&delivery).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| !name.starts_with('.')).collect::<Vec<_>>(), ["orders.csv"]);
}

#[test]
fn a_relay_whose_host_was_lost_learns_it_from_an_announcement_that_was_pinned() {
    let (world, end, night, _) = after_a_night();
    let (relay, _receiver, agent) = (world.serve_relay(), end.receiver.serve(&["serve"]), end.run());
    let _ = world.relay.run(&["key", "announce", "host"]).succeeded();
    // Ends learn of an announcement with a call, which they make for a transfer.
    eventually("everybody has pinned what is announced", || {
        a_day_passes(&end, 1);
        let _ = end.send().succeeded();
        let listed = world.relay.run(&["key", "list", "--json"]).succeeded().json();
        let ends = listed["ends"].as_array().unwrap();
        (!ends.is_empty() && ends.iter().all(|end| end["behind"].as_array().unwrap().is_empty())).then_some(())
    });
    relay.kill();
    agent.kill();

    copy(&night, &world.relay.state);
    let _relay = world.serve_relay();
    let _agent = end.run();
    eventually("what was pinned tells it", || {
        noticed(&world).iter().any(|line| line.contains("has pinned an announcement that this relay does not know")).then_some(())
    });
    a_day_passes(&end, 2);
    let _ = end.send().succeeded();
    assert_same_tables(&end.erp, &end.app(), &tables());
}

#[test]
fn a_code_that_was_used_and_a_key_that_was_changed_since_the_backup_stay_so() {
    let (world, end, night, _) = after_a_night();
    let relay = world.serve_relay();
    let code = world.enrolment_code(TENANT, "agent", "late");
    stop(relay);
    copy(&world.relay.state, &night);
    let relay = world.serve_relay();
    let ends = ["late", "thief"].map(|name| world.end(name, 1, 1).0);
    let _ = ends[0].agent.run(&["enrol", &code]).succeeded();
    let changed = end.agent.run(&["key", "rotate", "--overlap", "1h", "--json"]).succeeded().json();
    relay.kill();

    put_back(&world, &night);
    let relay = world.serve_relay();
    let again = noticed(&world).into_iter().find(|line| line.contains("revoked, used up or changed since is so again")).unwrap();
    assert_eq!(audited(&world, "restored"), ["0 revoked, 1 codes closed and 1 keys changed again"], "{again}");
    let listed = world.relay.run(&["agent", "list", "--tenant", TENANT, "--json"]).succeeded().json();
    let agent = listed.as_array().unwrap().iter().find(|end| end["name"] == AGENT).unwrap().clone();
    assert_eq!(agent["fingerprint"], changed["new"]);
    ends[1].agent.run(&["enrol", &code]).failed_with("enrolment-expired");
    // Who has enrolled since the backup is not known any more.
    assert!(ends[0].agent.run(&["receiver", "list"]).stderr.contains("authentication-refused"));
    let _receiver = end.receiver.serve(&["serve"]);
    a_day_passes(&end, 1);
    let _ = end.send().succeeded();
    assert_same_tables(&end.erp, &end.app(), &tables());
    let told = noticed(&world).len();
    stop(relay);
    let _relay = world.serve_relay();
    assert_eq!((noticed(&world).len(), audited(&world, "restored").len()), (told, 1), "it is told once");
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
    app_is_noticed(&end);

    // What builds on the day is rejected, and the agent sends everything by itself.
    let agent = end.run();
    let _ = end.agent.run(&["send", "--job", JOB]);
    eventually("the app has everything again", || (query_text(&end.app(), IMPORTS) == "2").then_some(()));
    app_is_well(&end);
    agent.kill();
    assert_same_tables(&end.erp, &end.app(), &tables());
    let rejected = |id: &String| end.agent.run(&["show", id, "--json"]).succeeded().stdout.contains("base-missing");
    assert_eq!(end.transfers().iter().filter(|id| rejected(id)).count(), 1);
}

#[test]
fn the_app_database_is_made_anew() {
    let (_world, end, _, _relay, receiver) = World::running(executable(), 400);
    let _ = end.send().succeeded();
    receiver.kill();
    fs::remove_dir_all(end.receiver.state.join("import")).unwrap();
    let _receiver = end.receiver.serve(&["serve"]);
    app_is_noticed(&end);
    a_day_passes(&end, 1);
    let _ = end.send().succeeded();
    app_is_well(&end);
    assert_eq!(query_text(&end.app(), IMPORTS), "1");
    assert_same_tables(&end.erp, &end.app(), &tables());
}

/// The receiver says that its app database was put back, in its status and once in its log.
fn app_is_noticed(end: &End) {
    let restored = eventually("it is noticed", || {
        let status = end.receiver.run(&["status", "--json"]).succeeded().json();
        status["app_restored"].as_array().filter(|found| !found.is_empty()).cloned()
    });
    assert_eq!((&restored[0]["agent"], &restored[0]["job"]), (&AGENT.into(), &JOB.into()));
    let log = fs::read_to_string(&end.receiver.log).unwrap();
    assert_eq!(log.matches("app-restored").count(), 1, "{log}");
}

fn app_is_well(end: &End) {
    eventually("it is well again", || {
        let status = end.receiver.run(&["status", "--json"]).succeeded().json();
        status["app_restored"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
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
    let told = noticed(&world);
    let says = |words: &str| told.iter().filter(|line| line.contains(words)).count();
    assert_eq!((says("is so again"), says("rows of the audit trail are gone"), told.len()), (1, 1, 2), "{told:?}");
    assert_eq!(audited(&world, "restored"), ["1 revoked, 0 codes closed and 0 keys changed again"]);

    let verified = world.relay.run(&["audit", "verify", "--json"]).succeeded().json();
    assert_eq!((&verified["valid"], &verified["lost"]), (&true.into(), &1.into()), "{verified}");
    let lost = world.relay.run(&["audit", "show", "--action", "lost", "--json"]).succeeded().json();
    assert!(lost[0]["detail"].as_str().unwrap().starts_with(&format!("row {id} {hash} is not there")), "{lost}");
    relay.kill();
    let again = world.serve_relay();
    again.kill();
    assert_eq!(world.relay.run(&["audit", "verify", "--json"]).succeeded().json()["lost"], 1, "it is told once");
}
