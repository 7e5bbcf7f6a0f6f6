//! The agent as a service of a real systemd: installed, killed, stuck, stopped, reloaded, rebooted and removed, by the commands of
//! the handbook.

mod handbook;
mod removal;

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use towpath_samples::{erp, ports::free_port};
use towpath_testkit::{AGENT, End, JOB, Machine, RECEIVER, Server, TENANT, World, assert_same_tables, eventually, query_text};

use crate::{executable, tables, ways::tinyproxy};

const ROWS: u64 = 400;
const UNIT: &str = "towpath-agent.service";
const ERP: &str = "/srv/erp";
const CONFIG: &str = "/etc/towpath/agent.toml";
const KIND: &str = "orders";
const PROXY_PASSWORD: &str = "tow-and-path";
/// The most that `systemd-analyze security` may find: 0 is a service that can do nothing, 10 one that can do everything.
pub(crate) const EXPOSURE: f64 = 1.5;
/// Once in four years, so that no run begins by itself while a test looks.
const SCHEDULE: &str = "schedule = \"0 0 29 2 *\"\n";

/// A machine on which the agent is enrolled and not installed, and the others of its installation on the same loopback. What
/// uses the machine's network ends before the machine does.
struct Site {
    relay: Server,
    _receiver: Server,
    end: End,
    world: World,
    machine: Machine,
}

impl Site {
    /// The agent's machine has nothing but the ERP and the program.
    fn bare() -> Self {
        let machine = Machine::new(&[("towpath-agent", executable())]);
        let beside = machine.beside();
        let beside = beside.each_ref().map(String::as_str);
        let mut world = World::new(executable());
        world.relay = world.relay.started_by(&beside);
        let (mut end, _) = world.end(TENANT, ROWS, 1);
        end.receiver = end.receiver.started_by(&beside);
        let relay = world.serve_relay();
        world.create_tenant(TENANT);
        let code = world.enrolment_code(TENANT, "receiver", RECEIVER);
        let landing = format!("127.0.0.1:{}", end.port);
        let _ = end.receiver.run(&["enrol", &code, "--landing", &landing]).succeeded();
        let receiver = end.receiver.serve(&["serve"]);
        // The ERP's own, with a group that it lets in.
        let _ = machine.run(&format!("groupadd --system erp && mkdir -p {ERP}/import")).succeeded();
        fs::copy(&end.erp, machine.path(&format!("{ERP}/erp.sqlite"))).unwrap();
        let _ = machine.run(&format!("chown -R root:erp {ERP} && chmod -R u=rwX,g=rwX,o= {ERP}")).succeeded();
        Self { relay, _receiver: receiver, end, world, machine }
    }

    fn enrolled() -> Self {
        let site = Self::bare();
        fs::create_dir_all(site.machine.path("/etc/towpath")).unwrap();
        site.configure("");
        let code = site.world.enrolment_code(TENANT, "agent", AGENT);
        let _ = site.machine.run(&format!("towpath-agent enrol {code}")).succeeded();
        site.approve_agent();
        let receiver = site.end.receiver.run(&["status", "--json"]).succeeded().json();
        let _ = site
            .machine
            .run(&format!("towpath-agent receiver approve {}", receiver["fingerprint"].as_str().unwrap()))
            .succeeded();
        site
    }

    /// Installed as the handbook has it, with the ERP's folders open to it. `drop_in` are settings of `systemctl edit`.
    fn installed(drop_in: &str) -> Self {
        let site = Self::enrolled();
        site.edit("test", drop_in);
        let _ = site.machine.run("towpath-agent service install").succeeded();
        let started = site.machine.run("usermod -aG erp towpath && towpath-agent service start");
        assert!(started.status.success(), "{started:?}\n{}", site.journal());
        site
    }

    fn approve_agent(&self) {
        let agent = self.machine.run("towpath-agent status --json").succeeded().json();
        let _ = self.end.receiver.run(&["agent", "approve", agent["fingerprint"].as_str().unwrap()]).succeeded();
    }

    /// Writes the agent's configuration, with `more` before the job.
    fn configure(&self, more: &str) {
        let job = erp::job_toml(JOB, format!("{ERP}/erp.sqlite").as_ref()).replace("schedule = \"02:00\"\n", SCHEDULE);
        let delivery = format!("[[delivery]]\nkind = \"{KIND}\"\nfolder = \"{ERP}/import\"\n");
        fs::write(self.machine.path(CONFIG), format!("[receipt]\npoll = \"100ms\"\n{more}\n{job}\n{delivery}")).unwrap();
    }

    /// What `systemctl edit` does.
    fn edit(&self, name: &str, settings: &str) {
        let folder = self.machine.path(&format!("/etc/systemd/system/{UNIT}.d"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{name}.conf")), format!("[Service]\n{settings}\n")).unwrap();
        let _ = self.machine.run("systemctl daemon-reload").succeeded();
    }

    fn property(&self, name: &str) -> String {
        self.machine.property(UNIT, name)
    }

    /// The service's process, once it is ready and is not `before`.
    fn ready(&self, before: &str) -> String {
        eventually("the service is ready", || {
            let pid = self.property("MainPID");
            (self.property("ActiveState") == "active" && pid != "0" && pid != before).then_some(pid)
        })
    }

    /// Waits until the service says this of itself.
    fn says(&self, words: &str) {
        eventually(&format!("the service says {words}"), || self.property("StatusText").contains(words).then_some(()));
    }

    /// Hands a transfer to the service, and waits until its push hangs at a relay that stands still.
    fn stuck_at_the_relay(&self) -> String {
        signal("-STOP", &self.relay);
        let _ =
            self.machine.run(&format!("systemd-run --quiet --unit=sending towpath-agent send --job {JOB} --wait")).succeeded();
        self.says("in work: push (1)");
        let _ = self.machine.run("systemctl kill --signal=KILL sending").succeeded();
        self.newest()
    }

    fn newest(&self) -> String {
        self.machine.run("ls /var/lib/towpath/agent/transfers").succeeded().stdout.lines().last().unwrap().to_owned()
    }

    /// The relay goes on; the service brings the transfer to its end by itself, once.
    fn is_finished(&self, id: &str) {
        signal("-CONT", &self.relay);
        eventually("the transfer is imported", || {
            let shown = self.machine.run(&format!("towpath-agent show {id} --json"));
            (shown.status.success() && shown.json()["state"] == "imported").then_some(())
        });
        self.is_imported_once(id);
    }

    fn is_imported_once(&self, id: &str) {
        assert_same_tables(&self.end.erp, &self.end.app(), &tables());
        assert_eq!(query_text(&self.end.app(), "SELECT count(*) FROM towpath_imports"), "1");
        assert_eq!(self.machine.run("ls /var/lib/towpath/agent/transfers").succeeded().stdout, id);
    }

    /// What the service has written to the journal.
    fn journal(&self) -> String {
        self.machine.run("journalctl --sync && journalctl --no-pager -u towpath-agent").succeeded().stdout
    }
}

/// systemd's own judgement of what an installed unit leaves open.
pub(crate) fn exposure(machine: &Machine, unit: &str) -> f64 {
    let said = machine.run(&format!("systemd-analyze security --no-pager {unit}")).succeeded().stdout;
    let level = said.lines().find_map(|line| line.split_once("Overall exposure level for ")?.1.split_whitespace().nth(1));
    level.and_then(|level| level.parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

/// Sends a signal to a process beside the machine.
fn signal(name: &str, process: &Server) {
    assert!(Command::new("kill").args([name, &process.id().to_string()]).status().unwrap().success());
}

#[test]
fn interop_a_service_that_is_killed_or_hangs_is_started_again() {
    let site = Site::installed("RestartSec=100ms\nWatchdogSec=10");
    let id = site.stuck_at_the_relay();
    let first = site.ready("");
    // On a busy machine the watchdog may be quicker, and there is no main process for a moment.
    let signal_main = |name: &str| {
        eventually("its main process gets the signal", || {
            let sent = site.machine.run(&format!("systemctl kill --kill-who=main --signal={name} {UNIT}"));
            sent.status.success().then_some(())
        });
    };
    signal_main("KILL");
    let second = site.ready(&first);
    assert_ne!(site.property("NRestarts"), "0");
    site.is_finished(&id);

    signal_main("STOP");
    eventually("systemd has noticed that it hangs", || site.journal().contains("Watchdog timeout").then_some(()));
    site.ready(&second);
    let status = site.machine.run("towpath-agent service status --json").succeeded().json();
    assert!(status["restarts"].as_u64().unwrap() >= 2, "{status}");
}

#[test]
fn interop_stopped_in_its_work_it_ends_in_time_and_goes_on_when_it_is_started() {
    let site = Site::installed("");
    let id = site.stuck_at_the_relay();
    let _ = site.machine.run("towpath-agent service stop").succeeded();
    // Not by systemd, whose patience is longer than the bound, and not as a failure.
    let ended = ["ActiveState", "Result", "ExecMainCode", "ExecMainStatus"].map(|name| site.property(name));
    assert_eq!(ended, ["inactive", "success", "1", "0"], "{}", site.journal());
    let shown = site.machine.run(&format!("towpath-agent show {id} --json")).succeeded().json();
    assert_eq!(shown["state"], "packed", "{shown}");
    let said = site.machine.run("towpath-agent service status").failed_with("not-running").stderr;
    assert!(said.contains("start it with: towpath-agent service start"), "{said}");
    signal("-CONT", &site.relay);
    let _ = site.machine.run("towpath-agent service start").succeeded();
    site.is_finished(&id);
}

#[test]
fn interop_a_reload_puts_a_new_configuration_in_force_and_leaves_the_old_one_where_it_is_broken() {
    let site = Site::installed("");
    site.says("next run: main at ");
    let pid = site.ready("");
    let good = fs::read_to_string(site.machine.path(CONFIG)).unwrap();
    let write = |text: &str| fs::write(site.machine.path(CONFIG), text).unwrap();
    write(&good.replacen(SCHEDULE, "", 1));
    let _ = site.machine.run("systemctl reload towpath-agent").succeeded();
    site.says("no run is scheduled");

    write(&good.replacen("schedule", "shedule", 1));
    let _ = site.machine.run("systemctl reload towpath-agent").succeeded();
    eventually("the service says that the old one stays", || {
        site.journal().contains("the configuration in force stays: ").then_some(())
    });
    let said = site.machine.run("towpath-agent reload").failed_with("config-invalid").stderr;
    assert!(said.contains("shedule") && said.contains("schedule"), "{said}");
    let (said, state) = (site.property("StatusText"), site.property("ActiveState"));
    assert_eq!((said.as_str(), state.as_str()), ("no run is scheduled", "active"));

    write(&good);
    let _ = site.machine.run("systemctl reload towpath-agent").succeeded();
    site.says("next run: main at ");
    assert_eq!(site.property("MainPID"), pid, "it was never restarted");
}

#[test]
fn interop_set_up_by_answers_it_runs_again_after_a_reboot_and_finishes_what_was_open() {
    let mut site = Site::bare();
    let receiver = site.end.receiver.run(&["status", "--json"]).succeeded().json();
    let code = site.world.enrolment_code(TENANT, "agent", AGENT);
    let tables = tables().iter().map(|table| format!("{table:?}")).collect::<Vec<_>>().join(", ");
    let answers = format!(
        "receiver = {}\nsource = \"sqlite\"\npath = \"{ERP}/erp.sqlite\"\ntables = [{tables}]\n{SCHEDULE}service = true\n\
         send = false\n",
        receiver["fingerprint"]
    );
    fs::write(site.machine.path("/srv/answers.toml"), answers).unwrap();
    fs::write(site.machine.path("/srv/code.txt"), code).unwrap();
    let set_up = site.machine.run("cd /srv && towpath-agent init --answers answers.toml --code - < code.txt").succeeded();
    let told = format!("{}{}", set_up.stdout, set_up.stderr);
    assert!(told.contains("usermod -aG GROUP USER") && told.contains("before this is mended"), "root may read it alone: {told}");
    site.approve_agent();
    let _ = site.machine.run("usermod -aG erp towpath && towpath-agent service restart").succeeded();
    let _ = site.machine.run("cd /srv && towpath-agent init --answers answers.toml").succeeded();
    let id = site.stuck_at_the_relay();
    site.machine.power_off();
    site.machine.boot();
    site.ready("");
    site.is_finished(&id);
    let _ = site.machine.run("towpath-agent service status").succeeded();
}

#[test]
fn interop_a_credential_of_systemd_is_a_secret_of_the_service() {
    let site = Site::installed("");
    let id = site.stuck_at_the_relay();
    let _ = site.machine.run(&format!("systemctl kill --signal=KILL {UNIT} && systemctl stop {UNIT}")).succeeded();
    let (port, beside) = (free_port().unwrap(), site.machine.beside());
    let limits = format!("BasicAuth towpath {PROXY_PASSWORD}\nConnectPort {}", site.world.port);
    let beside = beside.each_ref().map(String::as_str);
    let proxy = tinyproxy(site.world.dir.path(), "127.0.0.1", port, "127.0.0.1", &limits, &beside);
    site.configure(&format!(
        "[network]\nproxy = \"http://127.0.0.1:{port}\"\nproxy_user = \"towpath\"\nproxy_password = \"systemd:proxy-password\"\n"
    ));
    let secret = site.machine.path("/etc/towpath/proxy-password");
    fs::write(&secret, PROXY_PASSWORD).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    signal("-CONT", &site.relay);
    let _ = site.machine.run("towpath-agent service start").failed_with("service-failed");
    assert!(site.journal().contains("(LoadCredential= in its unit)"), "{}", site.journal());

    site.edit("secrets", "LoadCredential=proxy-password:/etc/towpath/proxy-password");
    let _ = site.machine.run("towpath-agent service restart").succeeded();
    // The commands that tell it need the proxy's password themselves.
    eventually("the service says that the transfer is imported", || site.journal().contains("state=imported").then_some(()));
    site.is_imported_once(&id);
    assert!(proxy.log().contains(&format!("127.0.0.1:{}", site.world.port)), "{}", proxy.log());
    let owner = site.machine.run("stat --format=%U:%a /etc/towpath/proxy-password").succeeded().stdout;
    assert_eq!(owner, "root:600", "the service has it from systemd alone");
}
