//! A byte changed at rest on the relay: rejected with the reason, quarantined, and the next send succeeds.

use std::path::{Path, PathBuf};

use towpath_testkit::{End, Server, World, assert_same_tables, eventually, query_text};

use crate::{executable, tables};

/// Sends while the app server is away, so that everything waits on the relay; returns the spool folder.
fn waiting_on_the_relay() -> (World, End, Server, PathBuf, String) {
    let (world, end, _, relay, receiver) = World::running(executable(), 400);
    end.send().succeeded();
    receiver.kill();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(towpath_samples::erp::touch(&end.erp, &Default::default())).unwrap();
    end.agent.run(&["send", "--job", "main"]).succeeded();
    let (id, _) = end.newest();
    let listing = || {
        let shown = world.relay.run(&["transfer", "show", &id, "--json"]).succeeded().json();
        (shown["state"] == "accepted").then_some(())
    };
    eventually("the relay has accepted the transfer", listing);
    let spool = world.spool(&end.tenant, &id);
    (world, end, relay, spool, id)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn rejected(file: &str, at: fn(usize) -> usize, codes: &[&str]) {
    let (_world, end, _relay, spool, id) = waiting_on_the_relay();
    let path = spool.join(file);
    let length = usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
    flip(&path, at(length));
    let _receiver = end.receiver.serve(&["serve"]);

    let sent = end.send();
    assert!(!sent.status.success(), "a changed byte in {file} was not noticed");
    let said = format!("{} {}", sent.stdout, sent.stderr);
    assert!(codes.iter().any(|code| said.contains(code)), "{file}: none of {codes:?} in {said}");
    let quarantined = end.receiver.state.join("quarantine").join(towpath_testkit::AGENT).join(&id);
    let reason = std::fs::read_to_string(quarantined.join("reason.json")).unwrap();
    assert!(codes.iter().any(|code| reason.contains(code)), "{reason}");
    let receipt = end.agent.state.join("transfers").join(&id).join("receipts");
    assert!(receipt.join("rejected.json").is_file() && receipt.join("rejected.json.sig").is_file());

    end.send().succeeded();
    assert_same_tables(&end.erp, &end.app(), &tables());
}

#[test]
fn a_packed_file() {
    rejected("stock.csv.bz2", |length| length / 2, &["unpack-failed", "digest-mismatch"]);
}

/// The relay knows both lists by their digests, so it sees the change itself, before the app server does: the agent is asked for
/// the transfer again, and the same transfer is imported.
fn mended(file: &str) {
    let (world, end, _relay, spool, id) = waiting_on_the_relay();
    let path = spool.join(file);
    let length = usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
    flip(&path, length / 2);
    let _receiver = end.receiver.serve(&["serve"]);

    let sent = end.send().succeeded().json();
    assert_eq!(
        (sent["transfers"][0]["transfer"].as_str(), sent["transfers"][0]["state"].as_str()),
        (Some(&*id), Some("imported"))
    );
    let log = std::fs::read_to_string(&world.relay.log).unwrap();
    assert!(log.contains("its agent is asked for them again"), "{log}");
    assert_same_tables(&end.erp, &end.app(), &tables());
    let imports = "SELECT count(*) FROM towpath_imports WHERE transfer = '";
    assert_eq!(query_text(&end.app(), &format!("{imports}{id}'")), "1");
}

#[test]
fn the_packed_list() {
    mended("packed.json");
}

#[test]
fn the_manifest() {
    mended("manifest.json");
}

#[test]
fn the_signature() {
    rejected("manifest.json.sig", |length| length / 2, &["signature-invalid"]);
}

#[test]
fn the_md5_list() {
    rejected("MD5SUMS", |_| 3, &["content-invalid"]);
}

#[test]
fn a_receipt_on_the_relay() {
    let (world, end, _, _relay, _receiver) = World::running(executable(), 400);
    end.agent.run(&["send", "--job", "main"]).succeeded();
    let (id, _) = end.newest();
    let receipts = world.relay.state.join("receipts").join(&end.tenant).join(towpath_testkit::AGENT).join(&id);
    let imported = receipts.join("imported.json");
    eventually("the receiver's receipt is on the relay", || imported.is_file().then_some(()));
    let text = std::fs::read_to_string(&imported).unwrap();
    std::fs::write(&imported, text.replacen("\"rows\": ", "\"rows\": 1", 1)).unwrap();

    end.send().failed_with("receipt-invalid");
    end.agent.run(&["show", &id]).succeeded();
    let fresh = end.agent.run(&["send", "--job", "main", "--wait", "--full"]);
    let fresh = fresh.succeeded();
    assert!(fresh.stdout.contains("imported") || fresh.stderr.contains("imported"), "{fresh:?}");
    assert_same_tables(&end.erp, &end.app(), &tables());
}
