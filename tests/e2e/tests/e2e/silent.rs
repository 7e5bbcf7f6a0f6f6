//! A host that goes silent: it has promised the relay a run, and is gone before. The relay says so once, and once that it is back.

use serde_json::Value;
use towpath_testkit::{AGENT, JOB, TENANT, TellingProgram, World, eventually, query_text};

use crate::executable;

/// The agent's configuration without what it says of its schedule, and one that runs so, by the UTC clock.
fn scheduled(config: &str, schedule: &str) -> String {
    let daily = "schedule = \"02:00\"\n";
    assert!(config.contains(daily), "{config}");
    let schedule = format!("schedule = \"{schedule}\"\ntime_zone = \"UTC\"\n");
    format!("[alert]\nlate_after = \"1s\"\n{}", config.replace(daily, &schedule))
}

/// What `late --json` lists.
fn late(world: &World) -> Vec<Value> {
    world.relay.run(&["late", "--json"]).succeeded().json().as_array().unwrap().clone()
}

/// Waits until the relay's figures have, or have not, the tenant's late run.
fn figure(world: &World, is_late: bool) {
    let line = format!("\ntowpath_runs_late{{tenant=\"{TENANT}\"}} 1\n");
    eventually(&format!("/metrics {} {line:?}", if is_late { "has" } else { "lacks" }), || {
        let metrics = world.metrics();
        // Where nothing is late no tenant has the figure at all.
        (metrics.contains(&line) == is_late && (is_late || !metrics.contains("towpath_runs_late{"))).then_some(())
    });
}

#[test]
fn a_silent_host_is_late_once_and_back_once() {
    let (world, end, _, relay, _receiver) = World::running(executable(), 50);
    relay.kill();
    let told = TellingProgram::new(world.relay.config.parent().unwrap());
    world.configure_relay(&format!("[alert]\n{}", told.toml()));
    let relay = world.serve_relay();
    assert!(late(&world).is_empty());

    // A run each minute, and none that succeeds: whatever comes first, the promise or the run, the relay gets nothing.
    let config = std::fs::read_to_string(&end.agent.config).unwrap();
    end.agent.configure(&scheduled(&config, "* * * * *"));
    let aside = end.erp.with_extension("aside");
    std::fs::rename(&end.erp, &aside).unwrap();
    let agent = end.run();
    eventually("the relay knows what to expect", || {
        let promised = "SELECT count(*) FROM expectations WHERE expected_by IS NOT NULL";
        (query_text(&world.relay.state.join("registry.sqlite"), promised) == "1").then_some(())
    });
    agent.kill();

    let silent = eventually("the run is late", || late(&world).pop());
    assert_eq!((&silent["tenant"], &silent["agent"], &silent["job"]), (&TENANT.into(), &AGENT.into(), &JOB.into()));
    let (by, heard) = (silent["expected_by"].as_str().unwrap(), silent["last_heard"].as_str().unwrap());
    let shown = world.relay.run(&["late"]).succeeded().stdout;
    let cells: Vec<Vec<&str>> =
        shown.lines().map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect();
    assert_eq!(cells, [vec!["TENANT", "AGENT", "JOB", "EXPECTED BY", "LAST HEARD OF"], vec![TENANT, AGENT, JOB, by, heard]]);
    figure(&world, true);
    eventually("somebody is told, and that is noted", || {
        let kept: Value = serde_json::from_slice(&std::fs::read(world.relay.state.join("alerts.json")).ok()?).unwrap();
        kept["alerts"].as_object().unwrap().values().any(|alert| alert["program"] == "told").then_some(())
    });
    assert_eq!(told.heard().len(), 1);

    // A relay that begins anew says nothing anew.
    relay.kill();
    let relay = world.serve_relay();
    figure(&world, true);

    // The host is back, with a schedule that was due at that minute and is due again tomorrow: it makes up for the run.
    std::fs::rename(&aside, &end.erp).unwrap();
    let (hour, minute) = by.split_once('T').unwrap().1.split_once(':').unwrap();
    end.agent.configure(&scheduled(&config, &format!("{} {hour} * * *", minute.get(..2).unwrap())));
    let _agent = end.run();
    eventually("nothing is late", || late(&world).is_empty().then_some(()));
    eventually("the newest run is imported", || {
        let jobs = end.agent.run(&["status", "--json"]).succeeded().json()["jobs"].clone();
        (jobs[0]["last"]["state"] == "imported" && jobs[0]["open"].is_null()).then_some(())
    });
    figure(&world, false);
    eventually("its recovery is told", || (told.heard().len() >= 2).then_some(()));
    relay.kill();
    let heard = told.heard();
    let said: Vec<&str> = heard.iter().map(|(said, _)| said.as_str()).collect();
    assert_eq!(said, [format!("raised {JOB} run-late"), format!("recovered {JOB} run-late")]);
    assert!(heard.iter().all(|(_, alert)| alert["agent"] == AGENT && alert["tenant"] == TENANT), "{heard:#?}");
    assert_eq!(heard[0].1["since"], by);
}
