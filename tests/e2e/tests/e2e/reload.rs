//! The configuration is changed while the service runs.

use std::process::Command;

use towpath_testkit::{End, JOB, World, eventually};

use crate::executable;

/// Waits until the log of the agent has a line with all of these words.
fn logged(end: &End, words: &[&str]) {
    eventually(&format!("the agent says {words:?}"), || {
        let log = std::fs::read_to_string(&end.agent.log).ok()?;
        log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    });
}

#[test]
fn a_running_agent_takes_a_changed_file_and_keeps_the_old_one_where_it_has_a_mistake() {
    let (_world, end, _, _relay, _receiver) = World::running(executable(), 50);
    let good = std::fs::read_to_string(&end.agent.config).unwrap();
    let run = end.agent.with("TOWPATH_LOG", "info").start(&["run"]);
    logged(&end, &["\"running\""]);

    end.agent.configure(&format!("{good}\n[extract]\nworkers = 3\n"));
    let told = end.agent.run(&["reload", "--json"]);
    assert!(told.status.success(), "{}", told.stderr);
    assert_eq!(told.json()["changed"], serde_json::json!(["[extract]"]));

    // By its signal, as `systemctl reload` does; a mistake leaves what is in force.
    end.agent.configure(&format!("{good}\n[extract]\nworkres = 3\n"));
    assert!(Command::new("kill").args(["-HUP", &run.id().to_string()]).status().unwrap().success());
    logged(&end, &["the configuration in force stays", "config-invalid", "did you mean `workers`?"]);
    let refused = end.agent.run(&["reload"]);
    assert!(!refused.status.success());
    let said = &refused.stderr;
    assert!(said.contains("unknown field `workres`") && said.contains("keeps the configuration"), "{said}");

    // Work goes on all the while, and the old file's settings count again when it is back.
    end.agent.configure(&good);
    assert_eq!(end.agent.run(&["reload", "--json"]).json()["changed"], serde_json::json!(["[extract]"]));
    let sent = end.agent.run(&["send", "--job", JOB, "--wait"]);
    assert!(sent.status.success(), "{}", sent.stderr);
}
