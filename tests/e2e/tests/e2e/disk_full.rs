//! Each program's disk is filled: it says so by its code, acknowledges nothing that it has not kept and shows nothing that is not
//! whole; once there is space again it goes on by itself.

use std::{fs, path::Path};

use towpath_samples::erp::{self, TouchOptions};
use towpath_testkit::{
    AGENT, End, JOB, Program, Server, SmallDisk, TENANT, World, assert_same_tables, eventually, noise, query_text, recovers,
};

use crate::{executable, tables};

const KIND: &str = "orders";
const MIB: u64 = 1 << 20;
/// The rows of the sample: a transfer of some hundred kilobytes, more than any disk below has left.
const ROWS: u64 = 3_000;

/// Whether this command's words name the code.
fn told(program: &Program, command: &[&str], code: &str) {
    eventually(&format!("{command:?} says {code}"), || {
        let said = program.run(command);
        (said.stdout.contains(code) || said.stderr.contains(code)).then_some(())
    });
}

fn is_imported(end: &End, id: &str) -> Option<()> {
    let shown = end.agent.run(&["show", id, "--json"]);
    (shown.status.success() && shown.json()["state"] == "imported").then_some(())
}

fn imports(end: &End) -> String {
    let ledger = "SELECT count(*) FROM sqlite_master WHERE name = 'towpath_imports'";
    if end.app().exists() && query_text(&end.app(), ledger) == "1" {
        query_text(&end.app(), "SELECT count(*) FROM towpath_imports")
    } else {
        "0".to_owned()
    }
}

/// Everything of so many transfers is there, whole and once.
fn all_is_there(end: &End, transfers: usize) {
    assert_same_tables(&end.erp, &end.app(), &tables());
    assert_eq!((imports(end), end.transfers().len()), (transfers.to_string(), transfers));
    let _ = end.agent.run(&["receipts", "verify"]).succeeded();
}

/// A service that waits for the transfer to end, which `send` has only handed over.
fn sending(end: &End) -> Server {
    end.agent.start(&["send", "--job", JOB, "--wait"])
}

#[test]
fn interop_the_agents_disk_is_full() {
    let world = World::new(executable());
    let (end, _) = world.end(TENANT, ROWS, 1);
    // The agent leaves 64 MiB alone when it takes return files.
    let disk = SmallDisk::mount(&end.agent.state, 80 * MIB);
    let delivery = world.dir.path().join("erp-in");
    deliver_into(&end, &delivery);
    let _relay = world.serve_relay();
    world.create_tenant(TENANT);
    world.enrol(&end);
    let _receiver = end.receiver.serve(&["serve"]);
    let _agent = end.run();

    // Less is left than the transfer takes, and enough that the journal can tell of it.
    disk.fill_but(120 * 1024);
    let _sending = sending(&end);
    let down = send_back(&world, &end);
    // A journal that cannot be written keeps no failure either: it stands in the log.
    eventually("the agent says that the disk is full", || {
        fs::read_to_string(&end.agent.log).unwrap().contains("disk-full").then_some(())
    });
    assert_eq!((imports(&end), visible(&delivery)), ("0".to_owned(), 0));

    // And now not one byte is left.
    disk.fill();
    let refused = end.agent.run(&["send", "--job", JOB, "--wait", "--timeout", "1s"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!((imports(&end), visible(&delivery)), ("0".to_owned(), 0));

    disk.empty();
    let (id, _) = end.newest();
    recovers("the agent's state folder, a transfer", || is_imported(&end, &id));
    recovers("the agent's state folder, a return file", || is_delivered(&end, &down));
    all_is_there(&end, 1);
    assert_eq!(visible(&delivery), 1);
}

#[test]
fn interop_the_delivery_folders_disk_is_full() {
    let world = World::new(executable());
    let (end, _) = world.end(TENANT, 10, 1);
    let delivery = world.dir.path().join("erp-in");
    // The agent leaves 64 MiB of it alone.
    let disk = SmallDisk::mount(&delivery, 80 * MIB);
    deliver_into(&end, &delivery);
    let _relay = world.serve_relay();
    world.create_tenant(TENANT);
    world.enrol(&end);
    let _receiver = end.receiver.serve(&["serve"]);
    disk.fill_but(MIB);
    let _agent = end.run();
    let down = send_back(&world, &end);
    told(&end.agent, &["history", "--json"], "delivery-failed");
    // What fills the disk is visible; nothing else is.
    assert_eq!(visible(&delivery), 1);
    disk.empty();
    recovers("the delivery folder", || is_delivered(&end, &down));
    assert_eq!(visible(&delivery), 1);
    let file = fs::read_dir(&delivery).unwrap().map(|entry| entry.unwrap()).find(|entry| entry.file_name() == "orders.csv");
    assert!(fs::read(file.unwrap().path()).unwrap() == returned(), "the return file is another than the one that was sent");
}

/// The receiver's configuration with a small reserve.
fn configure_receiver(end: &End, import: &str) {
    end.receiver.configure(&format!(
        "[landing]\nlisten = \"127.0.0.1:{}\"\nreserve = \"64KiB\"\n[send]\npoll = \"200ms\"\n{import}",
        end.port
    ));
}

#[test]
fn interop_the_receivers_disk_is_full() {
    let world = World::new(executable());
    let (end, _) = world.end(TENANT, ROWS, 1);
    let disk = SmallDisk::mount(&end.receiver.state, 64 * MIB);
    configure_receiver(&end, "");
    let _relay = world.serve_relay();
    world.create_tenant(TENANT);
    world.enrol(&end);
    let _receiver = end.receiver.serve(&["serve"]);
    let _agent = end.run();
    disk.fill();
    let _sending = sending(&end);
    // The relay says what holds it up, and the agent passes it on.
    told(&end.agent, &["status", "--json"], "app-server-refused");
    eventually("the relay says what the receiver told it", || {
        fs::read_to_string(&world.relay.log).unwrap().contains("No space left").then_some(())
    });
    assert_eq!(imports(&end), "0");
    disk.empty();
    let (id, _) = end.newest();
    recovers("the receiver's state folder", || is_imported(&end, &id));
    all_is_there(&end, 1);
}

#[test]
fn interop_the_app_databases_disk_is_full() {
    let world = World::new(executable());
    let (end, _) = world.end(TENANT, ROWS, 1);
    let folder = end.receiver.state.join("import");
    let disk = SmallDisk::mount(&folder, 16 * MIB);
    let _relay = world.serve_relay();
    world.create_tenant(TENANT);
    world.enrol(&end);
    let _receiver = end.receiver.serve(&["serve"]);
    let _agent = end.run();
    disk.fill_but(160 * 1024);
    let _sending = sending(&end);
    eventually("the receiver says that the disk is full", || {
        fs::read_to_string(&end.receiver.log).unwrap().contains("\"disk-full\"").then_some(())
    });
    assert_eq!(imports(&end), "0");
    disk.empty();
    let (id, _) = end.newest();
    recovers("the app database's folder", || is_imported(&end, &id));
    all_is_there(&end, 1);
}

#[test]
fn interop_the_relays_disk_is_full() {
    let world = World::new(executable());
    let disk = SmallDisk::mount(&world.relay.state, 64 * MIB);
    world.configure_relay("[spool]\nreserve = \"16MiB\"\n");
    let (end, _) = world.end(TENANT, ROWS, 1);
    let relay = world.serve_relay();
    world.create_tenant(TENANT);
    world.enrol(&end);
    let _agent = end.run();

    // One transfer is accepted while the receiver is away.
    let first = sending(&end);
    let one = eventually("the relay has accepted the first", || {
        let id = end.transfers().pop()?;
        let shown = end.agent.run(&["show", &id, "--json"]);
        (shown.status.success() && shown.json()["state"] == "accepted").then_some(id)
    });
    first.kill();

    // Below its reserve it takes nothing new, and delivers what it has.
    relay.kill();
    disk.fill_but(8 * MIB);
    // The disk is asked at the start, and then after every few megabytes.
    let _relay = world.serve_relay();
    let receiver = end.receiver.serve(&["serve"]);
    eventually("the first is delivered all the same", || is_imported(&end, &one));
    all_is_there(&end, 1);
    receiver.kill();
    touch(&end, 1);
    let _sending = sending(&end);
    told(&end.agent, &["status", "--json"], "spool-full");

    // Without a byte left it acknowledges nothing.
    disk.fill();
    let _receiver = end.receiver.serve(&["serve"]);
    let (two, _) = end.newest();
    assert_ne!(one, two);
    let refused = end.agent.run(&["send", "--job", JOB, "--wait", "--timeout", "2s"]);
    assert!(!refused.status.success(), "{refused:?}");
    let shown = end.agent.run(&["show", &two, "--json"]).succeeded().json();
    assert_eq!(shown["state"], "packed", "something was acknowledged: {shown}");
    assert_eq!(imports(&end), "1");

    disk.empty();
    recovers("the relay's state folder", || is_imported(&end, &two));
    all_is_there(&end, 2);
}

fn touch(end: &End, seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(erp::touch(&end.erp, &TouchOptions { seed, ..TouchOptions::default() })).unwrap();
}

fn deliver_into(end: &End, delivery: &Path) {
    fs::create_dir_all(delivery).unwrap();
    let config = fs::read_to_string(&end.agent.config).unwrap();
    end.agent.configure(&format!("{config}\n[[delivery]]\nkind = \"{KIND}\"\nfolder = '{}'\n", delivery.display()));
}

fn returned() -> Vec<u8> {
    noise(3, 400_000)
}

fn send_back(world: &World, end: &End) -> String {
    let file = world.dir.path().join("orders.csv");
    fs::write(&file, returned()).unwrap();
    let sent = end.receiver.run(&["send", file.to_str().unwrap(), "--kind", KIND, "--to", AGENT, "--json"]).succeeded().json();
    sent["transfer"].as_str().unwrap().to_owned()
}

fn is_delivered(end: &End, id: &str) -> Option<()> {
    (end.receiver.run(&["show", id, "--json"]).succeeded().json()["state"] == "delivered").then_some(())
}

/// How many names without a leading dot are in a folder.
fn visible(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().filter(|entry| !entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.')).count()
}
