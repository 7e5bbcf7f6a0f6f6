//! Installing and removing, without anybody to talk to.

use std::fs;

use towpath_samples::erp;
use towpath_testkit::{JOB, Machine};

use super::{CONFIG, EXPOSURE, UNIT, exposure};
use crate::executable;

const STATE: &str = "/var/lib/towpath/agent";

fn unit(machine: &Machine) -> Option<String> {
    fs::read_to_string(machine.path(&format!("/etc/systemd/system/{UNIT}"))).ok()
}

#[track_caller]
fn refused(machine: &Machine, command: &str, code: &str, why: &[&str]) {
    let said = machine.run(command).failed_with(code).stderr;
    assert!(why.iter().all(|why| said.contains(why)), "{command} says {said}");
}

#[test]
fn interop_it_is_installed_once_and_removed_without_its_data() {
    let machine = Machine::new(&[("towpath-agent", executable())]);
    refused(&machine, "towpath-agent service install", "config-missing", &[CONFIG, "docs/errors/config-missing.md"]);
    refused(&machine, "towpath-agent service status", "not-running", &["towpath-agent service install --now"]);
    for command in ["start", "stop", "restart"] {
        let command = format!("towpath-agent service {command}");
        refused(&machine, &command, "service-failed", &["install it with: towpath-agent service install"]);
    }
    fs::create_dir_all(machine.path("/etc/towpath")).unwrap();
    let job = erp::job_toml(JOB, "/srv/erp/erp.sqlite".as_ref());
    let secrets = "[network]\nproxy = \"http://proxy:1\"\nproxy_user = \"u\"\nproxy_password = \"file:/etc/towpath/pw\"\n";
    fs::write(machine.path(CONFIG), format!("{secrets}{job}")).unwrap();
    fs::write(machine.path("/etc/towpath/pw"), "hush").unwrap();
    let nobody = format!("setpriv --reuid=daemon --regid=daemon --clear-groups towpath-agent --config {CONFIG} service");
    refused(&machine, &format!("{nobody} install"), "service-failed", &["run the same command with sudo"]);
    let shown = machine.run("towpath-agent service install --dry-run").succeeded().stdout;
    let (steps, printed) = shown.split_once("\n\n").unwrap();
    assert!(steps.contains("1. make the system user towpath") && steps.contains("give /etc/towpath/pw to towpath"), "{steps}");
    assert!(unit(&machine).is_none() && !machine.run("id towpath").status.success());

    let first = machine.run("towpath-agent service install").succeeded().stdout;
    assert!(first.contains("made the system user towpath") && first.contains("towpath-agent service start"), "{first}");
    assert_eq!(unit(&machine).unwrap().trim_end(), printed);
    let rights = machine.run(&format!("stat --format=%U:%G:%a {CONFIG} /etc/towpath/pw {STATE}")).succeeded().stdout;
    assert_eq!(rights, "root:towpath:640\ntowpath:towpath:600\ntowpath:towpath:700");
    assert!(
        exposure(&machine, UNIT) <= EXPOSURE,
        "{}",
        machine.run(&format!("systemd-analyze security --no-pager {UNIT}")).stdout
    );
    refused(&machine, "towpath-agent service status", "not-running", &["towpath-agent service start"]);
    let status = machine.run(&format!("{nobody} status --json"));
    assert_eq!(
        (status.json()["installed"].as_bool(), status.json()["enabled"].as_bool()),
        (Some(true), Some(true)),
        "{status:?}"
    );
    let second = machine.run("towpath-agent service install").succeeded().stdout;
    assert!(
        second.contains(" is up to date") && ["made ", "gave ", "wrote "].iter().all(|word| !second.contains(word)),
        "{second}"
    );

    // It cannot start before it is enrolled, and says so.
    refused(&machine, "towpath-agent service install --now", "service-failed", &["journalctl -u towpath-agent -n 20"]);
    let journal = machine.run("journalctl --sync && journalctl -u towpath-agent -n 20 --no-pager").succeeded().stdout;
    assert!(journal.contains("[not-enrolled]"), "{journal}");

    fs::write(machine.path(&format!("{STATE}/key")), "kept").unwrap();
    let removed = machine.run("towpath-agent service uninstall").succeeded().stdout;
    assert!(removed.contains(&format!("stopped, and removed /etc/systemd/system/{UNIT}")), "{removed}");
    assert!(removed.contains(&format!("left as they are: {CONFIG}, and key, journal and transfers in {STATE}")), "{removed}");
    assert_eq!(machine.property(UNIT, "LoadState"), "not-found");
    assert_eq!(machine.run(&format!("cat {STATE}/key")).succeeded().stdout, "kept");
    assert!(
        machine.path(CONFIG).exists() && machine.path("/etc/towpath/pw").exists() && machine.run("id towpath").status.success()
    );
    let again = machine.run("towpath-agent service uninstall").succeeded().stdout;
    assert!(again.contains("the service is not installed"), "{again}");
    refused(&machine, "towpath-agent service status", "not-running", &["towpath-agent service install --now"]);
}
