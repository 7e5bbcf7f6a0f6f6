//! Real programs, by the system's own shell as an ordinary program.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use towpath_journal::system::SystemClock;
use towpath_transport::files::{Disk, FaultFiles, FileFault, FileOp};

use super::*;

struct Host {
    dir: tempfile::TempDir,
    files: Arc<dyn FileStore>,
    succeeded: Succeeded,
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), files: Arc::new(Disk), succeeded: Succeeded::default() }
    }

    fn of(&self, names: &[&str]) -> ActionOf {
        let folder = self.dir.path().to_owned();
        let file = |name: &&str| ActionFile {
            name: name.parse().unwrap(),
            delivered: folder.join(name),
            plain: folder.join("plain").join(name),
        };
        ActionOf {
            transfer: "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b".parse().unwrap(),
            kind: "recommended-orders".parse().unwrap(),
            files: names.iter().map(file).collect(),
            log: folder.join("state/action.log"),
            done: folder.join("state/acted.json"),
            folder,
        }
    }

    async fn sh(&self, script: &str, more: &[&str], timeout: Duration, of: &ActionOf) -> Result<()> {
        let arguments = ["-c", script, "sh"].iter().chain(more).map(ToString::to_string).collect();
        let config = RunConfig { program: "/bin/sh".into(), arguments, timeout };
        run(&self.files, &SystemClock::new(), &self.succeeded, &config, of).await
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_program_is_told_file_kind_and_transfer_and_no_shell_looks_at_them() {
    let host = Host::new();
    let of = host.of(&["a; touch hacked $(touch hacked).csv", "b.csv"]);
    let script = "printf '%s|%s|%s|%s\\n' \"$1\" \"$TOWPATH_FILE\" \"$TOWPATH_KIND\" \"$TOWPATH_TRANSFER\" >> told; echo seen";
    host.sh(script, &["{file}"], LONG, &of).await.unwrap();
    let lines: Vec<String> = host.read("told").lines().map(str::to_owned).collect();
    let file = |n: usize| of.files[n].delivered.display().to_string();
    let expected = |n: usize| format!("{}|{}|recommended-orders|{}", file(n), file(n), of.transfer);
    assert_eq!(lines, [expected(0), expected(1)]);
    assert!(!host.path("hacked").exists());
    assert_eq!(host.read("state/action.log").matches("\nseen\n").count(), 2);
}

#[tokio::test]
async fn without_a_file_among_the_arguments_it_runs_once() {
    let host = Host::new();
    let script = "echo \"$1 ${TOWPATH_FILE-none}\" >> told";
    for _ in 0..2 {
        host.sh(script, &["{folder}"], LONG, &host.of(&["a", "b"])).await.unwrap();
    }
    std::fs::remove_file(host.path("state/acted.json")).unwrap();
    host.sh(script, &["{transfer}"], LONG, &host.of(&["a"])).await.unwrap();
    let expected =
        format!("{} none\n01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b {}\n", host.dir.path().display(), host.path("a").display());
    assert_eq!(host.read("told"), expected);
}

#[tokio::test]
async fn a_failing_program_says_why_and_what_succeeded_is_not_repeated() {
    let host = Host::new();
    let of = host.of(&["a", "b"]);
    let script = "echo \"$1\" >> told; echo \"bad row 7\" >&2; case \"$1\" in *b) test -e mended || exit 3;; esac";
    let failure = host.sh(script, &["{file}"], LONG, &of).await.unwrap_err();
    assert_eq!(failure.code(), Code::ActionFailed);
    assert_eq!(failure.disposition(), towpath_transfer::Disposition::Retry);
    for told in ["exit status: 3", "bad row 7", "/bin/sh"] {
        assert!(failure.report().contains(told), "{}", failure.report());
    }
    assert!(host.read("state/action.log").contains("exit status: 3"));
    std::fs::write(host.path("mended"), b"").unwrap();
    host.sh(script, &["{file}"], LONG, &of).await.unwrap();
    let expected: String = ["a", "b", "b"].map(|name| format!("{}\n", host.path(name).display())).concat();
    assert_eq!(host.read("told"), expected);
}

#[tokio::test]
async fn a_success_that_cannot_be_written_down_is_not_repeated() {
    for argument in ["{file}", "{folder}"] {
        let mut host = Host::new();
        let mut notes = 0;
        // The output is never kept, and the note is not taken from the moment on in which the program has run.
        host.files = Arc::new(FaultFiles::new(
            Arc::new(Disk),
            Box::new(move |op, path| {
                let is_of = |name: &str| path.to_string_lossy().contains(name);
                notes += u32::from(op == FileOp::OpenWrite && is_of("acted.json"));
                let fails = is_of("action.log") || is_of("acted.json") && (2..5).contains(&notes);
                (op == FileOp::OpenWrite && fails).then_some(FileFault::Before(ErrorKind::StorageFull))
            }),
        ));
        let (of, script) = (host.of(&["a"]), "echo ran >> told");
        for _ in 0..3 {
            assert_eq!(host.sh(script, &[argument], LONG, &of).await.unwrap_err().code(), Code::DiskFull);
        }
        for _ in 0..2 {
            host.sh(script, &[argument], LONG, &of).await.unwrap();
        }
        host.succeeded = Succeeded::default();
        host.sh(script, &[argument], LONG, &of).await.unwrap();
        assert_eq!(host.read("told"), "ran\n", "{argument}");
    }
}

#[tokio::test]
async fn a_program_is_not_begun_where_its_success_could_not_be_written_down() {
    let mut host = Host::new();
    let plan = |op, path: &Path| {
        (op == FileOp::OpenWrite && path.to_string_lossy().contains("acted.json"))
            .then_some(FileFault::Before(ErrorKind::StorageFull))
    };
    host.files = Arc::new(FaultFiles::new(Arc::new(Disk), Box::new(plan)));
    let failure = host.sh("echo ran >> told", &["{folder}"], LONG, &host.of(&["a"])).await.unwrap_err();
    assert_eq!((failure.code(), host.read("told")), (Code::DiskFull, String::new()));
}

#[tokio::test]
async fn a_missing_program_is_an_action_that_failed() {
    let host = Host::new();
    let config = RunConfig { program: host.path("none"), arguments: vec![], timeout: LONG };
    let failure = run(&host.files, &SystemClock::new(), &host.succeeded, &config, &host.of(&["a"])).await.unwrap_err();
    assert_eq!(failure.code(), Code::ActionFailed);
    assert!(failure.report().contains("cannot be started"), "{}", failure.report());
    assert!(host.read("state/action.log").contains("cannot be started"));
}

/// Whether a process is there and is not only waiting to be reaped.
fn is_alive(pid: &str) -> bool {
    assert!(pid.parse::<u32>().is_ok(), "the program did not say which process it is: {pid:?}");
    let Ok(stat) = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")) else { return false };
    !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
}

async fn until_gone(pid: &str) {
    let clock = SystemClock::new();
    while is_alive(pid) {
        clock.sleep(Duration::from_millis(10)).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hanging_program_is_ended_with_its_children() {
    let host = Host::new();
    // The shell's child outlives the shell unless both are ended.
    let script = "sleep 3600 & echo $! > child; echo $$ > parent; echo begun; wait";
    let failure = host.sh(script, &[], Duration::from_secs(5), &host.of(&["a"])).await.unwrap_err();
    assert!(failure.report().contains("longer than 5 s"), "{}", failure.report());
    for name in ["child", "parent"] {
        until_gone(host.read(name).trim()).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_program_is_ended_with_its_children_when_the_agent_gives_it_up() {
    let host = Host::new();
    let of = host.of(&["a"]);
    let script = "sleep 3600 & echo $! > child.new; mv child.new child; wait";
    let mut work = Box::pin(host.sh(script, &[], LONG, &of));
    let clock = SystemClock::new();
    while !host.path("child").exists() {
        tokio::select! {
            ended = &mut work => panic!("it ended: {ended:?}"),
            () = clock.sleep(Duration::from_millis(10)) => {}
        }
    }
    drop(work);
    until_gone(host.read("child").trim()).await;
}

#[tokio::test]
async fn a_noisy_program_is_not_held_up_and_its_last_words_are_kept() {
    let host = Host::new();
    let script = "head -c 5000000 /dev/zero | tr '\\0' 'x'; echo; echo the end; exit 1";
    let failure = host.sh(script, &[], LONG, &host.of(&["a"])).await.unwrap_err();
    assert!(failure.report().contains("the last it said: the end"), "{}", failure.report());
    let log = host.read("state/action.log");
    assert!(log.len() < MAX_OUTPUT_BYTES + 200 && log.starts_with('['), "{}", log.len());
}

#[tokio::test]
async fn what_a_program_leaves_running_does_not_hold_it_up() {
    let host = Host::new();
    host.sh("sleep 3600 & echo $! > child", &[], LONG, &host.of(&["a"])).await.unwrap();
    let child = host.read("child").trim().parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
}
