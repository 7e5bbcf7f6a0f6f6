//! A program or a database is away while there is work. Once it is back everything goes on by itself within a minute, however long it
//! was away: here for seconds, and in the long form until the pauses between two tries are as long as they get.

use std::{fs, time::Duration};

use towpath_servers::{PASSWORD, Postgres, PostgresDatabase, READER};
use towpath_testkit::{
    AGENT, End, JOB, Program, Server, TENANT, World, assert_same_tables, eventually, let_it_last, noise, query_text, recovers,
};

use crate::{executable, tables};

const KIND: &str = "orders";
/// Rows of the sample ERP.
const ROWS: u64 = 200;
const SHORT: Duration = Duration::from_secs(3);
/// The growing pauses have their full length after about two minutes.
const LONG: Duration = Duration::from_secs(300);

fn sending(end: &End) -> Server {
    end.agent.start(&["send", "--job", JOB, "--wait"])
}

fn state(program: &Program, id: &str) -> String {
    program.run(&["show", id, "--json"]).succeeded().json()["state"].as_str().unwrap().to_owned()
}

fn is(program: &Program, id: &str, wanted: &str) -> Option<()> {
    (state(program, id) == wanted).then_some(())
}

/// Waits until the program's log names the code.
fn says(program: &Program, code: &str) {
    eventually(&format!("{} has {code}", program.log.display()), || {
        fs::read_to_string(&program.log).unwrap().contains(code).then_some(())
    });
}

/// The only transfer to the app, as soon as there is one.
fn only(end: &End) -> String {
    eventually("there is a transfer", || end.transfers().pop())
}

/// A file on its way back.
fn send_back(world: &World, end: &End) -> String {
    let file = world.dir.path().join("orders.csv");
    fs::write(&file, noise(5, 20_000)).unwrap();
    let sent = end.receiver.run(&["send", file.to_str().unwrap(), "--kind", KIND, "--to", AGENT, "--json"]).succeeded().json();
    sent["transfer"].as_str().unwrap().to_owned()
}

/// An agent that takes return files, not yet started.
fn deliver(world: &World, end: &End) {
    let folder = world.dir.path().join("erp-in");
    fs::create_dir_all(&folder).unwrap();
    let config = fs::read_to_string(&end.agent.config).unwrap();
    end.agent.configure(&format!("{config}\n[[delivery]]\nkind = \"{KIND}\"\nfolder = '{}'\n", folder.display()));
}

/// Everything is there, whole and once.
fn all_is_there(end: &End) {
    assert_same_tables(&end.erp, &end.app(), &tables());
    assert_eq!((query_text(&end.app(), "SELECT count(*) FROM towpath_imports").as_str(), end.transfers().len()), ("1", 1));
}

fn the_relay_is_away(length: Duration) {
    let (world, end, _, relay, _receiver) = World::running(executable(), ROWS);
    deliver(&world, &end);
    let _agent = end.run();
    relay.kill();
    let _sending = sending(&end);
    let down = send_back(&world, &end);
    let up = only(&end);
    eventually("all is done that can be done without the relay", || is(&end.agent, &up, "packed"));
    says(&end.agent, "relay-unreachable");
    let_it_last(length);
    assert_eq!(state(&end.agent, &up), "packed");
    let _relay = world.serve_relay();
    recovers(&format!("the relay was away for {} s", length.as_secs()), || {
        is(&end.agent, &up, "imported")?;
        is(&end.receiver, &down, "delivered")
    });
    all_is_there(&end);
}

fn the_receiver_is_away(length: Duration) {
    let (world, end, _, _relay, receiver) = World::running(executable(), ROWS);
    deliver(&world, &end);
    let _agent = end.run();
    // What it was to send back has not left it yet, and its landing is not there.
    receiver.kill();
    let down = send_back(&world, &end);
    let _sending = sending(&end);
    let up = only(&end);
    eventually("all is done that can be done without the receiver", || is(&end.agent, &up, "accepted"));
    says(&world.relay, "app-server-unreachable");
    let_it_last(length);
    assert_eq!(state(&end.agent, &up), "accepted");
    let _receiver = end.receiver.serve(&["serve"]);
    recovers(&format!("the receiver was away for {} s", length.as_secs()), || {
        is(&end.agent, &up, "imported")?;
        is(&end.receiver, &down, "delivered")
    });
    all_is_there(&end);
}

/// A database of a server that both outlive the test.
fn database() -> (Postgres, PostgresDatabase) {
    let server = Postgres::get();
    let database = server.database();
    (server, database)
}

fn the_app_database_is_away(length: Duration) {
    let (server, app) = database();
    let world = World::new(executable());
    let (end, _) = world.end(TENANT, ROWS, 1);
    end.import_into(&app);
    let _relay = world.serve_relay();
    world.create_tenant(TENANT);
    world.enrol(&end);
    let _receiver = end.receiver.serve(&["serve"]);
    let _agent = end.run();
    server.close(&app, true);
    let _sending = sending(&end);
    let up = only(&end);
    says(&end.receiver, "import-failed");
    let_it_last(length);
    assert_ne!(state(&end.agent, &up), "imported");
    server.close(&app, false);
    recovers(&format!("the app database was away for {} s", length.as_secs()), || is(&end.agent, &up, "imported"));
    for table in tables() {
        let there = query_text(&end.erp, &format!("SELECT count(*) FROM {table}"));
        assert_eq!(app.run(&format!("SELECT count(*) FROM \"{}\".{table}", end.schema())).trim(), there, "{table}");
    }
}

fn the_erp_database_is_away(length: Duration) {
    let (server, erp) = database();
    erp.run("CREATE TABLE items (no bigint PRIMARY KEY, name text); INSERT INTO items SELECT n, 'item ' || n FROM generate_series(1, 500) n");
    let world = World::new(executable());
    let (end, _) = world.end(TENANT, 1, 1);
    let password = world.dir.path().join("erp-password");
    fs::write(&password, PASSWORD).unwrap();
    fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    end.agent.configure(&format!(
        "[receipt]\npoll = \"100ms\"\n[[job]]\nname = \"{JOB}\"\n[job.source]\nkind = \"postgresql\"\nhost = \"{}\"\nport = {}\n\
         database = \"{}\"\nuser = \"{READER}\"\npassword = \"file:{}\"\n[[job.table]]\nname = \"items\"\n",
        erp.host,
        erp.port,
        erp.name,
        password.display()
    ));
    let _relay = world.serve_relay();
    world.create_tenant(TENANT);
    world.enrol(&end);
    let _receiver = end.receiver.serve(&["serve"]);
    let _agent = end.run();
    server.close(&erp, true);
    let _sending = sending(&end);
    says(&end.agent, "erp-missing");
    let_it_last(length);
    server.close(&erp, false);
    recovers(&format!("the ERP's database was away for {} s", length.as_secs()), || {
        let up = end.transfers().pop()?;
        is(&end.agent, &up, "imported")
    });
    assert_eq!(query_text(&end.app(), "SELECT count(*) FROM items"), "500");
}

#[test]
fn the_relay_is_away_for_seconds() {
    the_relay_is_away(SHORT);
}

#[test]
fn the_receiver_is_away_for_seconds() {
    the_receiver_is_away(SHORT);
}

#[test]
fn the_app_database_is_away_for_seconds() {
    the_app_database_is_away(SHORT);
}

#[test]
fn the_erp_database_is_away_for_seconds() {
    the_erp_database_is_away(SHORT);
}

#[test]
fn long_the_relay_is_away_for_minutes() {
    the_relay_is_away(LONG);
}

#[test]
fn long_the_receiver_is_away_for_minutes() {
    the_receiver_is_away(LONG);
}

#[test]
fn long_the_app_database_is_away_for_minutes() {
    the_app_database_is_away(LONG);
}

#[test]
fn long_the_erp_database_is_away_for_minutes() {
    the_erp_database_is_away(LONG);
}
