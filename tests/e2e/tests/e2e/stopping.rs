//! The service is told to stop in the middle of its work: it ends well within its bound, and the next start goes on with the same
//! transfer, which is imported once.

use std::{os::unix::process::ExitStatusExt as _, process::Command};

use towpath_testkit::{End, JOB, Server, World, assert_same_tables, eventually, query_text};

use crate::{executable, tables};

/// Sends a signal to a process of the test.
fn signal(name: &str, process: &Server) {
    assert!(Command::new("kill").args([name, &process.id().to_string()]).status().unwrap().success());
}

/// Waits until the log of the agent has a line with all of these words.
fn logged(end: &End, words: &[&str]) {
    eventually(&format!("the agent says {words:?}"), || {
        let log = std::fs::read_to_string(&end.agent.log).ok()?;
        log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    });
}

/// The service, with the lock.
fn run(end: &End) -> Server {
    end.agent.with("TOWPATH_LOG", "info,towpath_journal=debug").start_until(&["run"], &["\"running\""])
}

/// Hands a transfer over and waits until the service works on a stage of it.
fn in_work(end: &End, stage: &str) -> String {
    let sending = end.agent.start(&["send", "--job", JOB, "--wait"]);
    logged(end, &["the step begins", &format!("\"stage\":\"{stage}\"")]);
    sending.kill();
    // The step makes the transfer's folder.
    eventually("the transfer has a folder", || end.transfers().pop())
}

/// Started again, the agent brings the transfer to its end by itself.
fn goes_on(end: &End, id: &str) {
    let _agent = end.agent.start(&["run"]);
    eventually("the transfer is imported", || {
        let shown = end.agent.run(&["show", id, "--json"]);
        (shown.status.success() && shown.json()["state"] == "imported").then_some(())
    });
    assert_same_tables(&end.erp, &end.app(), &tables());
    assert_eq!(query_text(&end.app(), "SELECT count(*) FROM towpath_imports"), "1");
    assert_eq!(end.transfers(), [id.to_owned()]);
}

#[test]
fn in_the_middle_of_a_push() {
    let (_world, end, _, relay, _receiver) = World::running(executable(), 2_000);
    let mut run = run(&end);
    // The relay stands still, so that the push hangs.
    signal("-STOP", &relay);
    let id = in_work(&end, "push");
    signal("-TERM", &run);
    assert_eq!(run.wait().code(), Some(0), "{}", std::fs::read_to_string(&end.agent.log).unwrap());
    signal("-CONT", &relay);
    goes_on(&end, &id);
}

#[test]
fn in_the_middle_of_a_long_extract() {
    let (_world, end, _, _relay, _receiver) = World::running(executable(), 400);
    // A query that never ends stands before the tables.
    let quick = std::fs::read_to_string(&end.agent.config).unwrap();
    let long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS i FROM n";
    let slow =
        quick.replacen("[[job.table]]\n", &format!("[[job.table]]\nname = \"numbers\"\nquery = \"{long}\"\n[[job.table]]\n"), 1);
    end.agent.configure(&slow);
    let mut run = run(&end);
    let id = in_work(&end, "extract");
    signal("-TERM", &run);
    assert_eq!(run.wait().code(), Some(0), "{}", std::fs::read_to_string(&end.agent.log).unwrap());
    end.agent.configure(&quick);
    goes_on(&end, &id);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (_world, end, _, relay, _receiver) = World::running(executable(), 400);
    let mut run = run(&end);
    signal("-STOP", &relay);
    let id = in_work(&end, "push");
    signal("-TERM", &run);
    logged(&end, &["a second signal ends the program at once"]);
    signal("-INT", &run);
    assert_eq!(run.wait().signal(), Some(9), "the push had 20 s more");
    signal("-CONT", &relay);
    goes_on(&end, &id);
}
