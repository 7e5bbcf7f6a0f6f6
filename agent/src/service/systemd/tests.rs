//! Installing into a folder, with a systemctl that only notes what it is told.

use std::{
    cell::RefCell,
    os::{
        fd::AsFd as _,
        unix::{
            fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
            process::ExitStatusExt as _,
        },
    },
    process::ExitStatus,
};

use super::*;
use crate::{
    config::{Config, LoadedConfig},
    service::installation::resolved,
};

/// A host with an agent's files, all of them of this process's user and open to everybody.
struct Host {
    folder: tempfile::TempDir,
    of: Installation,
    ran: RefCell<Vec<String>>,
    said: RefCell<Vec<String>>,
    status: i32,
    /// Whether a package has brought a unit.
    packaged: bool,
}

/// A user that hosts have and nothing else runs as.
const NOBODY: u32 = 65_534;
/// The name that the service's user goes by here; who that is, is said by `ids`.
const USER: &str = "towpath-test";

/// Somebody else where this process may give files away, which even root may not in a namespace with few ids; else oneself.
fn ids() -> UserIds {
    let trial = tempfile::NamedTempFile::new().unwrap();
    if chown(trial.path(), Some(NOBODY), Some(NOBODY)).is_ok() {
        return UserIds { uid: NOBODY, gid: NOBODY };
    }
    UserIds { uid: own_uid(), gid: rustix::process::getegid().as_raw() }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
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
        let state = resolved(&at("state")).unwrap();
        let of = Installation::new("/usr/bin/towpath-agent".into(), &loaded, state, USER);
        Self { folder, of, ran: RefCell::default(), said: RefCell::default(), status: 0, packaged: false }
    }

    fn install(&self) -> Result<()> {
        self.act(|systemd| systemd.install(&self.of, false))
    }

    fn act(&self, act: impl FnOnce(&Systemd<'_>) -> Result<()>) -> Result<()> {
        let run = |program: &str, arguments: &[&str]| {
            let asks = arguments.first() == Some(&"cat");
            if !asks {
                self.ran.borrow_mut().push(format!("{program} {}", arguments.join(" ")));
            }
            let status = if asks { i32::from(!self.packaged) } else { self.status };
            let status = ExitStatus::from_raw(status << 8);
            Ok(Output { status, stdout: Vec::new(), stderr: b"it is broken\n".to_vec() })
        };
        let say = |text: &str| self.said.borrow_mut().push(text.to_owned());
        let user = |_: &str| Ok(Some(ids()));
        let units = self.folder.path().join("units");
        act(&Systemd { units, administrator: own_uid(), user: &user, run: &run, say: &say })
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
    let ids = ids();
    assert_eq!(host.owner_and_mode("state"), (ids.uid, 0o700));
    assert_eq!(host.owner_and_mode("state/transfers/one").0, ids.uid);
    assert_eq!(host.owner_and_mode("pw"), (ids.uid, 0o600));
    assert_eq!(host.owner_and_mode("agent.toml"), (own_uid(), 0o640), "the service reads its configuration and cannot change it");
    let text = fs::read_to_string(host.folder.path().join("units").join(UNIT)).unwrap();
    assert!(text.contains(&format!("User={USER}\n")) && text.contains("/in\"\n"));
    let first = host.said.take();
    assert!(first.iter().any(|line| line.starts_with("wrote ")) && first.iter().any(|line| line.contains("doctor")), "{first:?}");
    host.install().unwrap();
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
    host.install().unwrap();
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
fn the_unit_of_a_package_is_started_and_stopped_and_is_in_force_again_without_ours() {
    let host = Host { packaged: true, ..Host::new() };
    host.act(|systemd| systemd.restart()).unwrap();
    host.act(|systemd| systemd.stop()).unwrap();
    host.act(|systemd| systemd.uninstall()).unwrap();
    assert_eq!(host.ran(), [format!("systemctl restart {UNIT}"), format!("systemctl stop {UNIT}")], "there is none of ours");
    host.install().unwrap();
    host.ran();
    host.act(|systemd| systemd.uninstall()).unwrap();
    let [disable, enable] = [format!("systemctl disable --now {UNIT}"), format!("systemctl enable {UNIT}")];
    assert_eq!(host.ran(), [&*disable, "systemctl daemon-reload", &*enable]);
}

#[test]
fn what_systemd_says_is_said() {
    let host = Host { status: 1, ..Host::new() };
    let failure = host.install().unwrap_err();
    assert_eq!(failure.code(), Code::ServiceFailed);
    assert!(failure.report().contains("systemctl daemon-reload failed: it is broken"), "{}", failure.report());
    let packaged = Host { status: 1, packaged: true, ..Host::new() };
    let failure = packaged.act(|systemd| systemd.start()).unwrap_err();
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
    host.install().unwrap();
    if ids().uid != own_uid() {
        assert!(host.said.take().iter().any(|line| line.contains("another name as well")));
        assert_eq!(host.owner_and_mode("agent.toml").0, own_uid());
    }
}

/// Somebody else's folder with a file, beside the state folder.
fn others(host: &Host) -> PathBuf {
    let other = host.folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("theirs"), "x").unwrap();
    other
}

#[test]
fn links_in_the_state_folder_are_not_followed() {
    let host = Host::new();
    let other = others(&host);
    let before = [host.owner_and_mode("other"), host.owner_and_mode("other/theirs")];
    symlink(&other, host.of.state.join("folder")).unwrap();
    symlink(other.join("theirs"), host.of.state.join("transfers/file")).unwrap();
    fs::remove_file(host.folder.path().join("pw")).unwrap();
    symlink(other.join("theirs"), host.folder.path().join("pw")).unwrap();
    let link = host.owner_and_mode("state/folder");
    host.install().unwrap();
    assert_eq!([host.owner_and_mode("other"), host.owner_and_mode("other/theirs")], before);
    assert_eq!(host.owner_and_mode("state/folder"), link);
    let said = host.said.take();
    assert!(said.iter().any(|line| line.ends_with("pw as it is: it is not a file of its own")), "{said:?}");
}

#[test]
fn a_link_that_is_put_in_after_the_look_is_not_followed() {
    let host = Host::new();
    let other = others(&host);
    let before = [host.owner_and_mode("other"), host.owner_and_mode("other/theirs")];
    symlink(&other, host.of.state.join("folder")).unwrap();
    symlink(other.join("theirs"), host.of.state.join("file")).unwrap();
    let state = fs::File::open(&host.of.state).unwrap();
    let say = |text: &str| host.said.borrow_mut().push(text.to_owned());
    let mut giving = given::Giving { ids: ids(), say: &say, given: 0 };
    giving.subfolder(state.as_fd(), c"folder", Path::new("folder"), 1).unwrap();
    giving.file(state.as_fd(), c"file", Path::new("file")).unwrap();
    giving.file(state.as_fd(), c"gone", Path::new("gone")).unwrap();
    giving.subfolder(state.as_fd(), c"gone", Path::new("gone"), 1).unwrap();
    assert_eq!(giving.given, 0);
    assert_eq!([host.owner_and_mode("other"), host.owner_and_mode("other/theirs")], before);
    let said = host.said.take();
    assert!(said.len() == 2 && said.iter().all(|line| line.contains("was just put in its place")), "{said:?}");
}

#[test]
fn folders_are_given_down_to_a_depth() {
    let host = Host::new();
    let deepest = (1..=given::MAX_DEPTH + 1).fold("state".to_owned(), |path, _| path + "/d");
    fs::create_dir_all(host.folder.path().join(&deepest)).unwrap();
    host.install().unwrap();
    let last = deepest.strip_suffix("/d").unwrap();
    assert_eq!(host.owner_and_mode(last).0, ids().uid);
    assert_eq!(host.owner_and_mode(&deepest).0, own_uid());
    let said = host.said.take();
    assert_eq!(said.iter().filter(|line| line.contains("deeper than")).count(), 1, "{said:?}");
}

#[test]
fn a_state_folder_behind_a_link_is_installed_where_it_is() {
    let host = Host::new();
    let link = host.folder.path().join("link");
    symlink(&host.of.state, &link).unwrap();
    let unresolved = Installation { state: link.clone(), ..host.of.clone() };
    let before = host.owner_and_mode("state");
    let failure = host.act(|systemd| systemd.install(&unresolved, false)).unwrap_err();
    assert_eq!((failure.code(), host.owner_and_mode("state")), (Code::ServiceFailed, before));
    let of = Installation { state: resolved(&link).unwrap(), ..unresolved };
    assert_eq!(of, host.of);
    let link_before = host.owner_and_mode("link");
    host.act(|systemd| systemd.install(&of, false)).unwrap();
    assert_eq!(host.owner_and_mode("state"), (ids().uid, 0o700));
    assert_eq!(host.owner_and_mode("link"), link_before);
    assert_eq!(resolved(&link.join("not/there")).unwrap(), host.of.state.join("not/there"));
    let dangling = host.folder.path().join("dangling");
    symlink(host.folder.path().join("nothing"), &dangling).unwrap();
    for path in [dangling.join("state"), dangling] {
        assert_eq!(resolved(&path).unwrap_err().code(), Code::ServiceFailed);
    }
}

#[test]
fn the_log_files_folder_is_given_and_one_in_which_others_write_is_not() {
    let host = Host::new();
    let at = |name: &str| host.folder.path().join(name);
    let with_log = |log: &str| Installation { log: Some(at(log)), ..host.of.clone() };
    let install = |of: &Installation| host.act(|systemd| systemd.install(of, false)).unwrap();
    install(&with_log("log/agent.log"));
    assert_eq!(host.owner_and_mode("log").0, ids().uid, "it is made where there is none");
    // An agent that root has run before has left these.
    fs::create_dir(at("own")).unwrap();
    for name in ["own/agent.log", "own/agent.log.1"] {
        fs::write(at(name), "x").unwrap();
    }
    install(&with_log("own/agent.log"));
    for name in ["own", "own/agent.log", "own/agent.log.1"] {
        assert_eq!(host.owner_and_mode(name).0, ids().uid, "{name}");
    }
    assert!(!host.said.take().iter().any(|line| line.contains("it is not the log's own")));
    let other = others(&host);
    fs::write(other.join("agent.log"), "x").unwrap();
    install(&with_log("other/agent.log"));
    assert_eq!([host.owner_and_mode("other").0, host.owner_and_mode("other/theirs").0], [own_uid(); 2]);
    assert_eq!(host.owner_and_mode("other/agent.log").0, ids().uid);
    let said = host.said.take();
    assert!(ids().uid == own_uid() || said.iter().any(|line| line.contains("it is not the log's own")), "{said:?}");
    // Neither one that was there before, empty, nor one of the ERP's in which a log lies.
    fs::create_dir(at("empty")).unwrap();
    install(&with_log("empty/agent.log"));
    assert_eq!(host.owner_and_mode("empty").0, own_uid());
    fs::create_dir(at("orders")).unwrap();
    fs::write(at("orders/agent.log"), "x").unwrap();
    install(&Installation { others: [at("orders")].into(), ..with_log("orders/agent.log") });
    assert_eq!(host.owner_and_mode("orders").0, own_uid());
    symlink(&other, at("link")).unwrap();
    install(&with_log("link/agent.log"));
    assert_eq!(host.owner_and_mode("other").0, own_uid());
    let said = host.said.take();
    assert!(said.iter().any(|line| line.contains("is not a folder of its own")), "{said:?}");
}

#[test]
fn a_program_that_the_service_could_not_start_is_told() {
    let host = Host::new();
    let of = Installation { programs: [host.folder.path().join("tell")].into(), ..host.of.clone() };
    host.act(|systemd| systemd.install(&of, false)).unwrap();
    let said = host.said.take();
    assert!(said.iter().any(|line| line.starts_with(&format!("note: {USER} could not start "))), "{said:?}");
}

#[test]
fn the_service_can_pass_through_what_was_made_for_this_program() {
    let host = Host::new();
    let at = |name: &str| host.folder.path().join(name);
    let closed = |name: &str| {
        fs::create_dir_all(at(name)).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o700)).unwrap();
    };
    for name in ["towpath", "towpath/other"] {
        closed(name);
    }
    let say = |text: &str| host.said.borrow_mut().push(text.to_owned());
    // Nobody who is here; a folder that is missing is passed over.
    let ids = UserIds { uid: u32::MAX - 1, gid: u32::MAX - 1 };
    for _ in 0..2 {
        given::passage(&at("towpath/other/missing/state"), own_uid(), ids, &say).unwrap();
    }
    assert_eq!((host.owner_and_mode("towpath").1, host.owner_and_mode("towpath/other").1), (0o711, 0o700));
    let said = host.said.take();
    let count = |words: &str| said.iter().filter(|line| line.ends_with(words)).count();
    assert_eq!(count(&format!("let users pass through {}", at("towpath").display())), 1, "{said:?}");
    let note = format!("note: the service must be able to pass through {}", at("towpath/other").display());
    assert_eq!(count(&note), 2, "{said:?}");

    // A link is not followed, and what is somebody else's is told.
    fs::remove_dir_all(at("towpath")).unwrap();
    closed("real");
    symlink(at("real"), at("towpath")).unwrap();
    given::passage(&at("towpath/state"), own_uid(), ids, &say).unwrap();
    assert_eq!(host.owner_and_mode("real").1, 0o700);
    fs::remove_file(at("towpath")).unwrap();
    closed("towpath");
    given::passage(&at("towpath/state"), own_uid().wrapping_add(1), ids, &say).unwrap();
    assert_eq!(host.owner_and_mode("towpath").1, 0o700);
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
