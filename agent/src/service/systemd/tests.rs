//! Installing into a folder, with a systemctl that only notes what it is told.

use std::{cell::RefCell, os::unix::process::ExitStatusExt as _, process::ExitStatus};

use super::*;
use crate::config::{Config, LoadedConfig};

/// A host with an agent's files, all of them of this process's user and open to everybody.
struct Host {
    folder: tempfile::TempDir,
    of: Installation,
    ran: RefCell<Vec<String>>,
    said: RefCell<Vec<String>>,
    status: i32,
}

/// A user that every host has: as root another one, else oneself, because nobody else can be given anything.
fn user() -> &'static str {
    static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NAME.get_or_init(|| {
        if owner::is_root() {
            return "nobody".to_owned();
        }
        let output = run("id", &["-un"]).unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    })
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["units", "state", "state/transfers"] {
            fs::create_dir(at(name)).unwrap();
        }
        for name in ["agent.toml", "pw", "state/key", "state/transfers/one"] {
            fs::write(at(name), "x").unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        let toml = "[network]\nproxy = \"http://p:1\"\nproxy_user = \"u\"\nproxy_password = \"file:pw\"\n[[delivery]]\nkind = \"orders\"\n\
                    folder = \"in\"\n";
        let file = at("agent.toml");
        let loaded = LoadedConfig { config: Config::parse(toml, &file).unwrap(), file };
        let of = Installation::new("/usr/bin/towpath-agent".into(), &loaded, at("state"), user());
        Self { folder, of, ran: RefCell::default(), said: RefCell::default(), status: 0 }
    }

    fn act(&self, act: impl FnOnce(&Systemd<'_>) -> Result<()>) -> Result<()> {
        let run = |program: &str, arguments: &[&str]| {
            self.ran.borrow_mut().push(format!("{program} {}", arguments.join(" ")));
            let status = ExitStatus::from_raw(self.status << 8);
            Ok(Output { status, stdout: Vec::new(), stderr: b"it is broken\n".to_vec() })
        };
        let say = |text: &str| self.said.borrow_mut().push(text.to_owned());
        act(&Systemd { units: self.folder.path().join("units"), run: &run, say: &say })
    }

    fn ran(&self) -> Vec<String> {
        self.ran.take()
    }

    fn owner_and_mode(&self, name: &str) -> (u32, u32) {
        let metadata = fs::symlink_metadata(self.folder.path().join(name)).unwrap();
        (metadata.uid(), metadata.mode() & 0o777)
    }
}

#[test]
fn everything_is_given_to_the_service_once_and_the_second_time_nothing_is_left_to_do() {
    let host = Host::new();
    host.act(|systemd| systemd.install(&host.of, true)).unwrap();
    let unit = format!("systemctl enable {UNIT}");
    assert_eq!(host.ran(), ["systemctl daemon-reload", &unit, &format!("systemctl restart {UNIT}")]);
    let ids = owner::user(user()).unwrap().unwrap();
    let root = if owner::is_root() { 0 } else { ids.uid };
    assert_eq!(host.owner_and_mode("state"), (ids.uid, 0o700));
    assert_eq!(host.owner_and_mode("state/transfers/one").0, ids.uid);
    assert_eq!(host.owner_and_mode("pw"), (ids.uid, 0o600));
    assert_eq!(host.owner_and_mode("agent.toml"), (root, 0o640), "the service reads its configuration and cannot change it");
    let text = fs::read_to_string(host.folder.path().join("units").join(UNIT)).unwrap();
    assert!(text.contains(&format!("User={}\n", user())) && text.contains("/in\"\n"));
    let first = host.said.take();
    assert!(first.iter().any(|line| line.starts_with("wrote ")) && first.iter().any(|line| line.contains("doctor")), "{first:?}");
    host.act(|systemd| systemd.install(&host.of, false)).unwrap();
    let second = host.said.take();
    assert!(
        !second.iter().any(|line| line.starts_with("gave") || line.starts_with("made") || line.starts_with("wrote")),
        "{second:?}"
    );
    assert!(second.iter().any(|line| line.ends_with("is up to date")), "{second:?}");
}

#[test]
fn removing_it_leaves_what_the_agent_has() {
    let host = Host::new();
    assert_eq!(host.act(|systemd| systemd.start()).unwrap_err().code(), Code::ServiceFailed);
    host.act(|systemd| systemd.uninstall()).unwrap();
    assert_eq!(host.ran(), [""; 0]);
    host.act(|systemd| systemd.install(&host.of, false)).unwrap();
    host.ran();
    host.act(|systemd| systemd.start()).unwrap();
    host.act(|systemd| systemd.stop()).unwrap();
    host.act(|systemd| systemd.uninstall()).unwrap();
    let disable = format!("systemctl disable --now {UNIT}");
    assert_eq!(
        host.ran(),
        [&*format!("systemctl start {UNIT}"), &*format!("systemctl stop {UNIT}"), &*disable, "systemctl daemon-reload"]
    );
    assert!(!host.folder.path().join("units").join(UNIT).exists());
    assert!(host.of.state.join("key").exists() && host.of.config.exists());
}

#[test]
fn what_systemd_says_is_said() {
    let host = Host { status: 1, ..Host::new() };
    let failure = host.act(|systemd| systemd.install(&host.of, false)).unwrap_err();
    assert_eq!(failure.code(), Code::ServiceFailed);
    assert!(failure.report().contains("systemctl daemon-reload failed: it is broken"), "{}", failure.report());
    let failure = host.act(|systemd| systemd.start()).unwrap_err();
    assert!(failure.report().contains("journalctl -u towpath-agent"), "{}", failure.report());
}

#[test]
fn somebody_elses_folder_is_never_given_away() {
    let host = Host::new();
    let other = host.folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("theirs"), "x").unwrap();
    let of = Installation { state: other, ..host.of.clone() };
    let failure = host.act(|systemd| systemd.install(&of, false)).unwrap_err();
    assert!(failure.report().contains("holds nothing of an agent"), "{}", failure.report());
    fs::hard_link(host.of.config.clone(), host.of.state.join("second-name")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", host.of.state.join("link")).unwrap();
    host.act(|systemd| systemd.install(&host.of, false)).unwrap();
    let passwd = fs::metadata("/etc/passwd").unwrap();
    assert_eq!(passwd.uid(), 0, "a link is not followed");
    if owner::is_root() {
        assert!(host.said.take().iter().any(|line| line.contains("another name as well")));
        assert_eq!(host.owner_and_mode("agent.toml").0, 0);
    }
}

#[test]
fn users_have_plain_names_and_are_not_root() {
    for good in ["towpath", "_erp-2"] {
        check_user(good).unwrap();
    }
    for bad in ["root", "", "Towpath", "2erp", "a b", "a\nUser=root", &"a".repeat(32)] {
        assert_eq!(check_user(bad).unwrap_err().code(), Code::ServiceFailed, "{bad:?}");
    }
}

#[test]
fn what_systemctl_shows_is_read() {
    let shown = "LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=42\nUnitFileState=enabled\nUser=towpath\nNRestarts=3\n\
                 StatusText=next run: main\n";
    let status = read_status(shown);
    assert!(status.installed && status.enabled && status.running);
    assert_eq!((status.pid, status.restarts, status.state.as_str()), (Some(42), 3, "active (running)"));
    assert_eq!(status.says.as_deref(), Some("next run: main"));
    let none = read_status("LoadState=not-found\nActiveState=inactive\nSubState=dead\nMainPID=0\nUser=\n");
    assert!(!none.installed && !none.running && none.pid.is_none() && none.user.is_none());
}
