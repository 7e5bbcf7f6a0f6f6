//! The main way: what is in the ERP is in the app, and the chain of receipts says so.

use towpath_samples::erp::{self, TouchOptions};
use towpath_testkit::{World, assert_same_tables, query_text};

use crate::{executable, tables};

const ROWS: u64 = 3_000;

fn touch(path: &std::path::Path, seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = TouchOptions { seed, ..TouchOptions::default() };
    runtime.block_on(erp::touch(path, &options)).unwrap();
}

#[test]
fn every_value_arrives_and_unchanged_tables_send_no_bytes() {
    let (world, end, expected, _relay, _receiver) = World::running(executable(), ROWS);

    let first = end.send().succeeded().json();
    assert_eq!(first["transfers"][0]["state"], "imported", "{first}");
    assert_same_tables(&end.erp, &end.app(), &tables());
    for table in &expected {
        let counted = query_text(&end.app(), &format!("SELECT count(*) FROM \"{}\"", table.table));
        assert_eq!(counted, table.rows.to_string(), "{}", table.table);
    }
    let chain = end.agent.run(&["receipts", "verify"]).succeeded().stdout;
    assert!(chain.contains("imported"), "{chain}");

    touch(&end.erp, 1);
    end.send().succeeded();
    assert_same_tables(&end.erp, &end.app(), &tables());
    let (id, folder) = end.newest();
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let files = manifest["files"].as_array().unwrap();
    let sent: Vec<&str> =
        files.iter().filter(|f| f["unchanged"] != true).map(|f| f["content"]["table"].as_str().unwrap()).collect();
    assert_eq!(sent, erp::TABLES.iter().filter(|t| erp::TOUCHED.contains(t)).copied().collect::<Vec<_>>());
    let spooled = std::fs::read_dir(world.spool(&end.tenant, &id)).unwrap();
    let packed = spooled.filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".bz2")).count();
    assert_eq!(packed, sent.len(), "unchanged tables must not travel");
    assert_eq!(query_text(&end.app(), "SELECT count(*) FROM towpath_imports"), "2");
}

#[test]
fn extract_alone_writes_csvs_and_sends_nothing() {
    let world = World::new(executable());
    let (end, _) = world.end("solo", ROWS, 1);
    let out = world.dir.path().join("look");
    end.agent.run(&["extract", "--out", out.to_str().unwrap()]).succeeded();
    assert!(out.join("manifest.json").is_file());
    let header = std::fs::read_to_string(out.join("warehouses.csv")).unwrap();
    assert!(header.lines().count() > 1, "{header}");
    assert!(end.transfers().is_empty());
}

#[test]
fn the_payload_goes_when_the_receipt_is_here_and_the_rest_stays() {
    let (_world, end, _, _relay, _receiver) = World::running(executable(), 500);
    end.send().succeeded();
    let (_, folder) = end.newest();
    let names: Vec<String> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|n| !n.ends_with(".bz2")), "{names:?}");
    for kept in ["manifest.json", "manifest.json.sig", "packed.json", "MD5SUMS"] {
        assert!(names.iter().any(|n| n == kept), "{kept} is gone: {names:?}");
    }
    for receipt in ["accepted.json", "accepted.json.sig", "imported.json", "imported.json.sig"] {
        assert!(folder.join("receipts").join(receipt).is_file(), "{receipt}");
    }
}

#[test]
fn a_receiver_that_is_away_gets_everything_when_it_is_back() {
    let (_world, end, _, _relay, receiver) = World::running(executable(), 500);
    receiver.kill();
    end.agent.run(&["send", "--job", "main"]).succeeded();
    let _receiver = end.receiver.serve(&["serve"]);
    let again = end.send().succeeded().json();
    assert_eq!(again["transfers"][0]["state"], "imported", "{again}");
    assert_same_tables(&end.erp, &end.app(), &tables());
}
