//! `doctor` over a whole installation, with real processes.

use serde_json::Value;
use towpath_testkit::{End, JOB, TENANT, World, eventually};

use crate::executable;

const ROWS: u64 = 50;

/// What doctor says, whether it succeeds or not.
fn doctor(end: &End) -> (bool, Value) {
    let outcome = end.agent.run(&["doctor", "--json"]);
    let report = outcome.json();
    assert_eq!(outcome.status.success(), report["ok"] == true, "{outcome:?}");
    if !outcome.status.success() {
        outcome.failed_with("check-failed");
    }
    (report["ok"] == true, report)
}

fn check<'r>(report: &'r Value, id: &str) -> &'r Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("there is no {id} in {report:#}"))
}

#[track_caller]
fn says(report: &Value, id: &str, outcome: &str, found: &str) {
    let check = check(report, id);
    assert_eq!(check["outcome"], outcome, "{check:#}");
    assert!(check["found"].as_str().unwrap().contains(found), "{check:#}");
}

#[test]
fn doctor_passes_a_sound_host_and_names_what_is_broken() {
    let (world, mut end, _, relay, _receiver) = World::running(executable(), ROWS);
    let deliveries = end.agent.config.with_file_name("orders");
    std::fs::create_dir(&deliveries).unwrap();
    let before = std::fs::read_to_string(&end.agent.config).unwrap();
    let delivery = format!("[[delivery]]\nkind = \"orders\"\nfolder = \"{}\"\n", deliveries.display());
    end.agent.configure(&format!("{before}{delivery}"));

    let (ok, report) = doctor(&end);
    assert!(ok, "{report:#}");
    let port = world.port;
    for id in [&*format!("way:ssh:{port}"), &format!("way:tls:{port}"), "way:https", "clock", "login", "token", "receiver"] {
        says(&report, id, "ok", "");
    }
    for id in [&*format!("source:{JOB}"), &format!("tables:{JOB}"), "delivery:orders"] {
        says(&report, id, "ok", "");
    }
    says(&report, "service", "warning", "none runs");
    says(&report, &format!("last-run:{JOB}"), "ok", "not run yet");

    // Beside the service, which looks by itself.
    let mut service = end.agent.start(&["run"]);
    eventually("the service answers", || {
        assert!(service.ended().is_none(), "{}", std::fs::read_to_string(&end.agent.log).unwrap());
        let (_, report) = doctor(&end);
        (check(&report, "service")["outcome"] == "ok").then_some(())
    });
    let _ = end.send().succeeded();
    std::fs::remove_dir(&deliveries).unwrap();
    let (ok, report) = doctor(&end);
    assert!(!ok);
    says(&report, "service", "ok", "it runs as ");
    says(&report, "delivery:orders", "failed", "orders");
    says(&report, &format!("last-run:{JOB}"), "ok", "is imported");
    says(&report, "machine", "ok", "belongs to this machine");
    std::fs::create_dir(&deliveries).unwrap();
    // The file is another one now, and the service has not taken it up.
    end.agent.configure(&before);
    let (ok, report) = doctor(&end);
    assert!(ok, "{report:#}");
    says(&report, "service", "warning", "another configuration than the file has now");
    service.kill();

    // A revoked agent is reached, and not let in.
    let _ = world.relay.run(&["agent", "revoke", "--tenant", TENANT, towpath_testkit::AGENT]).succeeded();
    let (_, report) = doctor(&end);
    says(&report, &format!("way:ssh:{port}"), "ok", "it is open");
    says(&report, "login", "failed", "does not let");
    says(&report, "token", "failed", "");

    // Another server in the relay's place: neither its host key nor its certificate is the pinned one.
    relay.kill();
    let other = World::new(executable());
    let port_of = |text: &str| text.replace(&other.port.to_string(), &port.to_string());
    let config = std::fs::read_to_string(&other.relay.config).unwrap();
    other.relay.configure(&port_of(&config));
    let impostor = other.relay.serve(&["serve"]);
    let (_, report) = doctor(&end);
    says(&report, &format!("way:ssh:{port}"), "failed", "host key");
    says(&report, &format!("way:tls:{port}"), "failed", "not the one that is pinned");
    says(&report, "way:https", "failed", "not the one that is pinned");
    says(&report, "login", "failed", "host key");
    impostor.kill();

    let text = end.agent.run(&["doctor"]).failed_with("check-failed");
    assert!(text.stdout.contains(&format!("✗ way ssh:{port}: nothing listens on 127.0.0.1 port {port}")), "{text:?}");
    assert!(text.stdout.contains("    to do: ask the relay's operator whether it listens there"), "{text:?}");
    end.agent.state = end.agent.state.join("elsewhere");
    assert!(end.agent.run(&["doctor", "--offline"]).failed_with("check-failed").stdout.contains("✗ enrolment"));
}
