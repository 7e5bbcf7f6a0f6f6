//! The commands of the handbook, with what they print there.

use std::fs;

use towpath_testkit::{AGENT, JOB, assert_same_tables, eventually};

use super::{ERP, KIND, Site, UNIT};
use crate::{documented::page, tables};

/// Every command of the handbook's section on the service. They need a systemd and are run here, and nowhere else.
const COMMANDS: [&str; 10] = [
    "towpath-agent service install --now",
    "usermod -aG erp towpath",
    "towpath-agent service restart",
    "towpath-agent service status",
    "towpath-agent service status --json",
    "systemctl reload towpath-agent",
    "journalctl -u towpath-agent -f",
    "towpath-agent service stop",
    "towpath-agent service start",
    "towpath-agent service uninstall",
];

/// A text in which every number is the same.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for character in text.trim().chars() {
        match character {
            '0'..='9' if plain.ends_with('0') => {}
            '0'..='9' => plain.push('0'),
            other => plain.push(other),
        }
    }
    plain
}

/// A transfer to the app, and a return file from there.
fn it_works(site: &Site) {
    let sent = site.machine.run(&format!("towpath-agent send --job {JOB} --wait --json")).succeeded().json();
    assert_eq!(sent["transfers"][0]["state"], "imported", "{sent}");
    assert_same_tables(&site.end.erp, &site.end.app(), &tables());
    let file = site.world.dir.path().join("orders.csv");
    fs::write(&file, "item,quantity\r\nA-1,4\r\n").unwrap();
    let sent = site.end.receiver.run(&["send", file.to_str().unwrap(), "--to", AGENT, "--kind", KIND, "--json"]);
    let id = sent.succeeded().json()["transfer"].as_str().unwrap().to_owned();
    eventually("the return file is delivered", || {
        let shown = site.machine.run(&format!("towpath-agent show {id} --json"));
        (shown.status.success() && shown.json()["state"] == "delivered").then_some(())
    });
    let owner = site.machine.run(&format!("stat --format=%U {ERP}/import/orders.csv")).succeeded().stdout;
    assert_eq!(owner, "towpath");
}

/// What systemd was told, and whom it runs.
fn it_is_a_service_of_its_own_user(site: &Site) {
    assert_eq!(site.machine.run("systemctl is-active towpath-agent").succeeded().stdout, "active");
    let known = ["Type", "NotifyAccess", "User", "WatchdogUSec"].map(|name| site.property(name));
    assert_eq!(known, ["notify", "main", "towpath", "2min"]);
    let pid = site.ready("");
    assert_eq!(site.machine.run(&format!("stat --format=%U /proc/{pid}")).succeeded().stdout, "towpath");
    // systemd counts a start as done when READY=1 has come, and notes each sign of life.
    assert_ne!(site.property("WatchdogTimestampMonotonic"), "0");
    let status = site.machine.run("towpath-agent service status --json").succeeded().json();
    assert_eq!((status["installed"].as_bool(), status["enabled"].as_bool()), (Some(true), Some(true)), "{status}");
    assert_eq!((status["running"].as_bool(), status["pid"].to_string()), (Some(true), pid), "{status}");
    assert_eq!((&status["state"], &status["user"]), (&"active (running)".into(), &"towpath".into()), "{status}");
    assert_eq!((&status["restarts"], &status["says"]), (&0.into(), &site.property("StatusText").into()), "{status}");
}

#[test]
fn interop_the_commands_of_the_handbook_do_what_it_says() {
    let site = Site::enrolled();
    let mut shown = page::commands("docs/agent.md");
    shown.retain(|one| COMMANDS.contains(&one.command.as_str()));
    assert_eq!(shown.iter().map(|one| one.command.as_str()).collect::<Vec<_>>(), COMMANDS);
    for page::Shown { line, command, output } in shown {
        if site.property("ActiveState") == "active" {
            eventually("the service has nothing to do", || {
                let says = site.property("StatusText");
                (says.starts_with("next run: main at ") && !says.contains("in work")).then_some(())
            });
        }
        // What has no end is shown as far as it goes now.
        let said = site.machine.run(&command.replace(" -f", " --no-pager")).succeeded().stdout;
        if !output.is_empty() {
            assert_eq!(plain(&said), plain(&output), "docs/agent.md:{line}: {command} prints\n{said}");
        }
        if command == "towpath-agent service restart" {
            it_is_a_service_of_its_own_user(&site);
            it_works(&site);
        }
    }
    assert_eq!(site.property("LoadState"), "not-found");
    assert!(!site.machine.path(&format!("/etc/systemd/system/{UNIT}")).exists());
}
