//! What cannot go on by itself is parked with a code and a page. Once the cause is gone, the command of that page makes the very same
//! transfer go on, and it is imported once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use towpath_servers::Postgres;
use towpath_testkit::{AGENT, End, JOB, Program, TENANT, World, assert_same_tables, eventually, query_text, query_texts};

use crate::{executable, tables};

const ROWS: u64 = 300;

/// A folder or file that is out of the way until it is put back.
struct Away {
    from: PathBuf,
    to: PathBuf,
}

impl Away {
    fn take(from: &Path) -> Self {
        let to = from.with_extension("away");
        fs::rename(from, &to).unwrap();
        Self { from: from.to_owned(), to }
    }

    /// Puts it back over what has taken its place.
    fn put_back(self) {
        if self.from.is_dir() {
            fs::remove_dir_all(&self.from).unwrap();
        }
        fs::rename(&self.to, &self.from).unwrap();
    }
}

fn change(database: &Path, sql: &str) {
    let _ = query_texts(database, sql);
}

/// What a program tells of a transfer.
fn shown(program: &Program, arguments: &[&str], transfer: &str) -> Value {
    let mut all = arguments.to_vec();
    all.extend([transfer, "--json"]);
    program.run(&all).succeeded().json()
}

/// Waits until a program has parked a transfer, and returns the code; its page tells how the transfer goes on.
fn parked_with(program: &Program, arguments: &[&str], transfer: &str, command: &str) -> String {
    let code = eventually("the transfer is parked", || {
        let shown = shown(program, arguments, transfer);
        (shown["parked"] == true).then(|| shown["failure"]["code"].as_str().unwrap().to_owned())
    });
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors").join(format!("{code}.md"));
    let page = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(page.contains(command), "docs/errors/{code}.md does not tell of {command}");
    code
}

fn imported_once(end: &End, transfer: &str) {
    let imports = format!("SELECT count(*) FROM towpath_imports WHERE transfer = '{transfer}'");
    assert_eq!(query_text(&end.app(), &imports), "1");
    assert_same_tables(&end.erp, &end.app(), &tables());
}

/// What keeps an agent from sending, and how a person mends it.
struct Cause {
    code: &'static str,
    comes: fn(&End),
    goes: fn(&End),
}

const CAUSES: [Cause; 3] = [
    Cause {
        code: "erp-query",
        comes: |end| change(&end.erp, "ALTER TABLE items RENAME TO items_of_old"),
        goes: |end| change(&end.erp, "ALTER TABLE items_of_old RENAME TO items"),
    },
    Cause {
        code: "erp-value",
        comes: |end| change(&end.erp, "UPDATE items SET pack_size = 'many' WHERE rowid = (SELECT min(rowid) FROM items)"),
        goes: |end| change(&end.erp, "UPDATE items SET pack_size = 1 WHERE rowid = (SELECT min(rowid) FROM items)"),
    },
    Cause {
        code: "erp-query",
        comes: |end| {
            fs::rename(&end.erp, end.erp.with_extension("db")).unwrap();
            fs::write(&end.erp, [b'x'; 4096]).unwrap();
        },
        goes: |end| fs::rename(end.erp.with_extension("db"), &end.erp).unwrap(),
    },
];

#[test]
fn at_the_agent_retry_lets_it_go_on() {
    let (_world, end, _, _relay, _receiver) = World::running(executable(), ROWS);
    for Cause { code, comes, goes } in CAUSES {
        comes(&end);
        end.send().failed_with(code);
        let (transfer, _) = end.newest();
        assert_eq!(parked_with(&end.agent, &["show"], &transfer, "towpath-agent retry"), code);
        // Tried again before the cause is gone, it is parked again.
        end.agent.run(&["retry", &transfer, "--wait"]).failed_with(code);
        goes(&end);
        end.agent.run(&["retry", &transfer, "--wait"]).succeeded();
        assert_eq!(end.newest().0, transfer, "it is another transfer");
        imported_once(&end, &transfer);
    }
}

#[test]
fn at_the_agent_retry_goes_on_with_a_relay_that_is_itself_again() {
    let (world, end, _, relay, _receiver) = World::running(executable(), ROWS);
    relay.kill();
    let state = &world.relay.state;
    let keys = ["host_keys", "receipt_key", "announcement.json"].map(|name| Away::take(&state.join(name)));
    let stranger = world.serve_relay();
    end.send().failed_with("host-key-unknown");
    let (transfer, _) = end.newest();
    assert_eq!(parked_with(&end.agent, &["show"], &transfer, "towpath-agent retry"), "host-key-unknown");
    // Tried again before the cause is gone, it is parked again.
    end.agent.run(&["retry", &transfer, "--wait"]).failed_with("host-key-unknown");
    stranger.kill();
    keys.into_iter().for_each(Away::put_back);
    let _relay = world.serve_relay();
    end.agent.run(&["retry", &transfer, "--wait"]).succeeded();
    imported_once(&end, &transfer);
}

#[test]
fn at_the_relay_retry_forwards_to_an_app_server_that_is_itself_again() {
    let (world, end, _, _relay, receiver) = World::running(executable(), ROWS);
    receiver.kill();
    let keys = Away::take(&end.receiver.state.join("host_keys"));
    let stranger = end.receiver.serve(&["serve"]);
    end.agent.run(&["send", "--job", JOB]).succeeded();
    let (transfer, _) = end.newest();
    let known = || world.relay.run(&["transfer", "show", &transfer, "--json"]).status.success().then_some(());
    eventually("the relay has it", known);
    // The relay tries this again by itself, later and later.
    eventually("the relay refuses the app server", || {
        let shown = shown(&world.relay, &["transfer", "show"], &transfer);
        (shown["failure"]["code"] == "host-key-unknown").then_some(())
    });
    stranger.kill();
    keys.put_back();
    let _receiver = end.receiver.serve(&["serve"]);
    world.relay.run(&["transfer", "retry", &transfer]).succeeded();
    let sent = end.send().succeeded().json();
    assert_eq!(sent["transfers"][0]["transfer"].as_str(), Some(&*transfer), "another transfer was begun");
    imported_once(&end, &transfer);
    let audit = world.relay.run(&["audit", "show"]).succeeded().stdout;
    assert!(audit.contains("retry") && audit.contains(&transfer), "{audit}");
}

#[test]
fn at_the_receiver_retry_imports_into_a_database_that_takes_it_again() {
    let world = World::new(executable());
    let (end, _) = world.end(TENANT, ROWS, 1);
    let server = Postgres::get();
    let database = server.database();
    end.import_into(&database);
    let _relay = world.serve_relay();
    world.create_tenant(TENANT);
    world.enrol(&end);
    let _receiver = end.receiver.serve(&["serve"]);
    end.send().succeeded();
    let schema = end.schema();
    database.run(&format!(
        "CREATE FUNCTION closed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'closed for stocktaking'; END $$;
         CREATE TRIGGER stocktaking BEFORE INSERT ON {schema}.towpath_imports EXECUTE FUNCTION closed()"
    ));
    change(&end.erp, "UPDATE items SET name = 'Another name' WHERE rowid = (SELECT min(rowid) FROM items)");
    let transfer = sent_and_known(&end);
    let imports = format!("SELECT count(*) FROM {schema}.towpath_imports WHERE transfer = '{transfer}'");
    let counted = || database.run(&imports).trim().to_owned();
    let code = parked_with(&end.receiver, &["show"], &transfer, "towpath-receiver retry");
    assert_eq!(code, "import-failed");
    // Tried again before the cause is gone, it is parked again.
    end.receiver.run(&["retry", &transfer]).succeeded();
    assert_eq!(parked_with(&end.receiver, &["show"], &transfer, "towpath-receiver retry"), "import-failed");
    assert_eq!(counted(), "0");
    database.run(&format!("DROP TRIGGER stocktaking ON {schema}.towpath_imports"));
    end.receiver.run(&["retry", &transfer]).succeeded();
    let sent = end.send().succeeded().json();
    assert_eq!(sent["transfers"][0]["transfer"].as_str(), Some(&*transfer), "another transfer was begun");
    // The same number comes once: the ledger takes no transfer twice.
    assert_eq!(counted(), "1");
}

#[test]
fn at_the_receiver_the_tables_of_another_tenant_are_left_alone() {
    let world = World::new(executable());
    let server = Postgres::get();
    let database = server.database();
    let _relay = world.serve_relay();
    let [first, second] = [(TENANT, 1), ("staging", 2)].map(|(tenant, company)| {
        let (end, _) = world.end(tenant, ROWS, company);
        end.import_into(&database);
        world.create_tenant(tenant);
        world.enrol(&end);
        end
    });
    let (_serving, beside) = (first.receiver.serve(&["serve"]), second.receiver.serve(&["serve"]));
    first.send().succeeded();
    let schema = first.schema();
    let items = format!("SELECT string_agg(t::text, '|' ORDER BY t::text) FROM {schema}.items AS t");
    let of_the_first = database.run(&items);
    let transfer = sent_and_known(&second);
    let parked = || parked_with(&second.receiver, &["show"], &transfer, "towpath-receiver retry");
    assert_eq!(parked(), "app-taken");
    // Tried again before the cause is gone, it is parked again.
    second.receiver.run(&["retry", &transfer]).succeeded();
    assert_eq!(parked(), "app-taken");
    let own = server.database();
    second.import_into(&own);
    beside.kill();
    let _beside = second.receiver.serve(&["serve"]);
    second.receiver.run(&["retry", &transfer]).succeeded();
    let sent = second.send().succeeded().json();
    assert_eq!(sent["transfers"][0]["transfer"].as_str(), Some(&*transfer), "another transfer was begun");
    assert_ne!(own.run(&items), of_the_first);
    assert_eq!(database.run(&items), of_the_first, "the tables of the first are not what it has signed for");
}

#[test]
fn at_the_receiver_its_own_tables_are_adopted_after_it_got_another_key() {
    let (_world, end, _, _relay, _receiver) = World::running(executable(), ROWS);
    end.send().succeeded();
    change(&end.app(), "UPDATE towpath_owner SET receiver = 'SHA256:NYRWtq3eADODtJBzuq0wfPzo1ZlxEVxqpEqkDBTQbD4'");
    change(&end.erp, "UPDATE items SET name = 'Another name' WHERE rowid = (SELECT min(rowid) FROM items)");
    let transfer = sent_and_known(&end);
    assert_eq!(parked_with(&end.receiver, &["show"], &transfer, "towpath-receiver adopt"), "app-taken");
    end.receiver.run(&["adopt", AGENT, "no-such-job"]).failed_with("not-found");
    end.receiver.run(&["adopt", AGENT, JOB]).succeeded();
    end.receiver.run(&["retry", &transfer]).succeeded();
    end.send().succeeded();
    imported_once(&end, &transfer);
}

/// Begins a transfer, and waits until the receiver has it.
fn sent_and_known(end: &End) -> String {
    end.agent.run(&["send", "--job", JOB]).succeeded();
    let (transfer, _) = end.newest();
    let known = || end.receiver.run(&["show", &transfer, "--json"]).status.success().then_some(());
    eventually("the receiver has it", known);
    transfer
}

#[test]
fn what_has_ended_is_left_alone() {
    let (_world, end, _, _relay, _receiver) = World::running(executable(), ROWS);
    end.send().succeeded();
    let (transfer, _) = end.newest();
    end.agent.run(&["retry", &transfer]).failed_with("request-invalid");
    eventually("the receiver is done with it", || (shown(&end.receiver, &["show"], &transfer)["stage"].is_null()).then_some(()));
    end.receiver.run(&["retry", &transfer]).failed_with("request-invalid");
    imported_once(&end, &transfer);
}
