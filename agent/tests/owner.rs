//! Root's commands on a state folder that belongs to the service's user.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail and say why")]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
    process::{Command, Output},
};

/// A user with an entry in the user database, and one without.
const NOBODY: u32 = 65_534;
const NAMELESS: u32 = 54_321;

/// Whether this process may give files to these users, who then reach them: in a namespace with few ids root may not, and a folder
/// for temporary files may lie in a private one.
fn may_give() -> bool {
    let trial = tempfile::NamedTempFile::new().unwrap();
    let given = [NOBODY, NAMELESS].iter().all(|user| chown(trial.path(), Some(*user), Some(*user)).is_ok());
    let folders = trial.path().canonicalize().unwrap();
    given && folders.ancestors().skip(1).all(|folder| fs::metadata(folder).unwrap().mode() & 0o001 != 0)
}

/// Makes a key in a state folder of `owner`, by a command that another may start.
fn generate(launcher: &[&str], folder: &Path, owner: Option<u32>) -> Output {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let (config, state) = (folder.join("agent.toml"), folder.join("state"));
    fs::write(&config, "").unwrap();
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&state, owner, owner).unwrap();
    let program = env!("CARGO_BIN_EXE_towpath-agent");
    let mut command = match launcher.split_first() {
        Some((launcher, arguments)) => {
            let mut command = Command::new(launcher);
            command.args(arguments).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.arg("--config").arg(&config).arg("--state").arg(&state).args(["key", "generate", "--type", "ed25519"]);
    command.env("TOWPATH_LOG", "debug").output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_root_makes_in_the_services_folder_belongs_to_the_service() {
    let owners: &[Option<u32>] = if may_give() { &[Some(NOBODY), Some(NAMELESS), None] } else { &[None] };
    for owner in owners {
        let folder = tempfile::tempdir().unwrap();
        let made = generate(&[], folder.path(), *owner);
        assert!(made.status.success(), "{}", stderr(&made));
        let expected = owner.unwrap_or_else(|| fs::metadata("/proc/self").unwrap().uid());
        for name in ["key", "key.pub"] {
            assert_eq!(fs::metadata(folder.path().join("state").join(name)).unwrap().uid(), expected, "{name}");
        }
        assert_eq!(stderr(&made).matches("goes on as that user").count(), usize::from(owner.is_some()), "{}", stderr(&made));
    }
}

/// Lets a state folder with a key look enrolled, with a relay that nobody is.
fn enrol(state: &Path) {
    let line = fs::read_to_string(state.join("key.pub")).unwrap();
    let key: Vec<&str> = line.split_whitespace().take(2).collect();
    let key = key.join(" ");
    let enrolment = serde_json::json!({
        "version": 1, "relay_url": "https://127.0.0.1:9", "tenant": "acme", "name": "erp", "sftp_user": "acme.erp",
        "ssh_host_keys": [key], "receipt_key": key,
    });
    let path = state.join("enrolment.json");
    fs::write(&path, enrolment.to_string()).unwrap();
    let owner = fs::metadata(state).unwrap();
    chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

#[test]
fn the_log_file_of_an_agent_that_root_runs_belongs_to_the_service() {
    let owner = may_give().then_some(NOBODY);
    let folder = tempfile::tempdir().unwrap();
    let made = generate(&[], folder.path(), owner);
    assert!(made.status.success(), "{}", stderr(&made));
    let (config, state, logs) = (folder.path().join("agent.toml"), folder.path().join("state"), folder.path().join("logs"));
    enrol(&state);
    // Both could make a file there.
    fs::create_dir(&logs).unwrap();
    fs::set_permissions(&logs, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(&config, "[log]\nfile = \"logs/agent.log\"\n[network]\nproxy = \"none\"\n").unwrap();
    let errors = fs::File::create(folder.path().join("stderr")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_towpath-agent"));
    command.arg("--config").arg(&config).arg("--state").arg(&state).arg("run").stderr(errors);
    let mut agent = command.env_remove("TOWPATH_LOG").spawn().unwrap();
    let log = logs.join("agent.log");
    let said = || fs::read_to_string(folder.path().join("stderr")).unwrap();
    while !log.exists() {
        assert!(agent.try_wait().unwrap().is_none(), "{}", said());
        std::thread::yield_now();
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
    let expected = owner.unwrap_or_else(|| fs::metadata("/proc/self").unwrap().uid());
    assert_eq!(fs::metadata(&log).unwrap().uid(), expected, "{}", said());
}

#[test]
fn root_without_the_right_to_become_another_says_so_and_makes_nothing() {
    if !may_give() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let refused = generate(&["setpriv", "--bounding-set=-setuid,-setgid"], folder.path(), Some(NOBODY));
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(said.contains("[service-failed]") && said.contains("run it as that user"), "{said}");
    assert_eq!(fs::read_dir(folder.path().join("state")).unwrap().count(), 0);
}

#[test]
fn the_unit_names_the_state_folder_itself_and_not_a_link_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let (state, link, config) = (folder.path().join("real"), folder.path().join("link"), folder.path().join("agent.toml"));
    fs::create_dir(&state).unwrap();
    symlink(&state, &link).unwrap();
    fs::write(&config, "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_towpath-agent"));
    command.arg("--config").arg(&config).arg("--state").arg(&link).args(["service", "install", "--dry-run"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    let named = format!("ReadWritePaths=\"{}\"", state.canonicalize().unwrap().display());
    assert!(said.lines().any(|line| line == named), "{said}");
    assert!(!said.contains(link.to_str().unwrap()), "{said}");
}
