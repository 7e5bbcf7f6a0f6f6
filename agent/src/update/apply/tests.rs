//! What root's part does with what lies there, by a package manager and an agent of a test.

use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_keys::{Identity, KeyKind, Namespace};
use towpath_transfer::{
    clock::{ManualClock, SeededEntropy},
    digest::Sha256Digest,
    release::{Package, RELEASE_NAME, RELEASE_SIGNATURE_NAME, Release},
};

use super::*;
use crate::{
    config::Config,
    update::{Attempt, Outcome},
};

/// Where the host goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Down {
    BeforeInstall,
    AfterInstall,
    Health,
    Restart,
}

/// The host: which version is installed, and how it does.
#[derive(Debug, Default)]
struct Host {
    installed: String,
    /// Versions that end at their start.
    broken: Vec<String>,
    /// Versions that the installer refuses.
    refused: Vec<String>,
    /// How often another installer is at work, and how often after the next installation.
    busy: u32,
    busy_after: u32,
    installs: Vec<String>,
    open_transfers: usize,
    stopped: bool,
    noexec: bool,
    held: bool,
    down: Option<Down>,
    begun: u32,
    forgotten: u32,
    process: u32,
}

#[derive(Debug)]
struct FakeMeans {
    host: Mutex<Host>,
    record: PathBuf,
    looks: AtomicU32,
}

impl FakeMeans {
    fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap()
    }

    fn set_installed(&self, version: &str) {
        let mut host = self.host();
        host.installed = version.to_owned();
        host.process += 1;
        let record = format!("{{\"kind\":\"deb\",\"version\":\"{version}\",\"arch\":\"x86_64\"}}");
        std::fs::write(&self.record, record).unwrap();
    }

    /// Never comes back where the host goes down here.
    async fn pass(&self, point: Down) {
        let down = self.host().down == Some(point);
        if down {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Means for FakeMeans {
    async fn check_program(&self, program: &Path) -> Result<()> {
        assert_eq!(std::fs::read(program).unwrap(), b"the program");
        let runs = !self.host().noexec;
        if runs { Ok(()) } else { Err(Failure::park(Code::UpdateRefused, "it cannot be run there")) }
    }

    async fn start(&self) -> Result<()> {
        self.host().begun += 1;
        Ok(())
    }

    async fn forget(&self) {
        self.host().forgotten += 1;
    }

    async fn hold(&self) -> Result<usize> {
        let mut host = self.host();
        if host.stopped {
            return Err(Failure::park(Code::NotRunning, "none runs"));
        }
        host.held = host.open_transfers == 0;
        Ok(host.open_transfers)
    }

    async fn release(&self) {
        self.host().held = false;
    }

    async fn install(&self, _: PackageKind, package: &Path) -> Result<InstallEnd> {
        self.pass(Down::BeforeInstall).await;
        {
            let mut host = self.host();
            if host.busy > 0 {
                host.busy -= 1;
                return Ok(InstallEnd::Busy);
            }
        }
        let version = std::fs::read_to_string(package).unwrap().trim_start_matches("package ").to_owned();
        self.host().installs.push(version.clone());
        if self.host().refused.contains(&version) {
            return Err(Failure::retry(Code::UpdateFailed, format!("the installer refuses {version}")));
        }
        self.set_installed(&version);
        {
            let mut host = self.host();
            host.busy = std::mem::take(&mut host.busy_after);
        }
        self.pass(Down::AfterInstall).await;
        Ok(InstallEnd::Done)
    }

    async fn restart(&self) -> Result<()> {
        self.pass(Down::Restart).await;
        Ok(())
    }

    async fn health(&self) -> Health {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.pass(Down::Health).await;
        let host = self.host();
        if host.broken.contains(&host.installed) {
            return Health::Broken("it has ended".into());
        }
        Health::Runs { version: host.installed.parse().unwrap(), process: host.process }
    }
}

struct Bench {
    folder: tempfile::TempDir,
    key: Identity,
    clock: ManualClock,
    means: Arc<FakeMeans>,
    applier: Applier,
}

impl Bench {
    /// An agent of version 0.1.0, whose package lies ready, too.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["lib/agent/update", "units"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        std::fs::write(at("program"), "the program").unwrap();
        let key = Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(9)).unwrap();
        let clock = ManualClock::new("2026-07-01T03:00:00Z".parse().unwrap());
        let host = Mutex::new(Host::default());
        let means = Arc::new(FakeMeans { host, record: at("package.json"), looks: AtomicU32::new(0) });
        means.set_installed("0.1.0");
        let applier = Applier {
            system: System { record: at("package.json"), kept: at("lib/update") },
            units: at("units"),
            program: at("program"),
            keys: Some(ReleaseKeys::of(vec![key.public_line().try_into().unwrap()])),
            means: means.clone(),
            clock: Arc::new(clock.clone()),
        };
        let bench = Self { folder, key, clock, means, applier };
        bench.lay_ready("0.1.0", "0.0.1");
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn layout(&self) -> Layout {
        Layout::new(self.at("lib/agent"))
    }

    fn theirs(&self, version: &str, name: &str) -> PathBuf {
        self.at("lib/agent/update").join(version).join(name)
    }

    /// What the agent lays out when it has fetched a version.
    fn lay_ready(&self, version: &str, follows: &str) {
        let bytes = format!("package {version}");
        let file = file_of(version).parse().unwrap();
        let (size, sha256) = (bytes.len() as u64, Sha256Digest::of(bytes.as_bytes()));
        let package = Package { kind: PackageKind::Deb, arch: "x86_64".into(), file, size, sha256 };
        let release = Release::of(version.parse().unwrap(), follows.parse().unwrap(), vec![package]);
        let document = release.to_bytes().unwrap();
        std::fs::create_dir_all(self.theirs(version, "")).unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(self.theirs(version, name), bytes).unwrap();
        write(RELEASE_NAME, &document);
        write(RELEASE_SIGNATURE_NAME, self.key.sign(Namespace::Release, &document).unwrap().as_bytes());
        write(&file_of(version), bytes.as_bytes());
        write(".whole", b"");
    }

    fn site(&self, config: &str) -> Site {
        std::fs::write(self.at("agent.toml"), config).unwrap();
        let config = Config::parse(config, &self.at("agent.toml")).unwrap().update;
        Site { layout: self.layout(), config_file: self.at("agent.toml"), config, by_hand: false }
    }

    async fn prepare(&self) -> Result<Prepared> {
        self.applier.prepare(&self.site("[update]\nmode = \"install\"\n")).await
    }

    /// Goes on while time passes; nothing where the host goes down.
    async fn go_on(&self) -> Option<Option<Attempt>> {
        let goes_down = self.means.host().down.is_some();
        let mut passed = 0u32;
        let time = async {
            loop {
                self.clock.advance(Duration::from_millis(500));
                tokio::task::yield_now().await;
                passed += 1;
                // Every wait of an update is over long before.
                if goes_down && passed > 20_000 {
                    break;
                }
            }
        };
        let stop = CancellationToken::new();
        tokio::select! {
            biased;
            ended = self.applier.go_on(&stop) => Some(ended.unwrap()),
            () = time => None,
        }
    }

    async fn applied(&self) -> Attempt {
        assert!(matches!(self.prepare().await.unwrap(), Prepared::Begun(_)));
        self.go_on().await.unwrap().unwrap()
    }

    fn report(&self) -> Report {
        Report::read(self.applier.kept()).unwrap()
    }

    fn installed(&self) -> String {
        self.means.host().installed.clone()
    }

    fn kept(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.at("lib/update/packages")).into_iter().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Nothing is left of an update, and the agent is not held.
    fn is_over(&self) {
        assert_eq!(Open::read(self.applier.kept()).unwrap(), None);
        assert!(!self.at("lib/update/program").exists());
        let units: Vec<_> = walk(&self.at("units"));
        assert!(units.is_empty(), "{units:?}");
        assert!(!self.means.host().held);
    }

    async fn refused(&self) -> Code {
        let failure = self.prepare().await.unwrap_err();
        assert_eq!(Open::read(self.applier.kept()).unwrap(), None, "{}", failure.report());
        let begun = self.means.host().begun;
        assert_eq!((begun, self.installed().as_str()), (0, "0.1.0"));
        assert!(self.report().postponed.is_some_and(|waits| waits.refused && !waits.why.is_empty()));
        failure.code()
    }
}

fn file_of(version: &str) -> String {
    format!("towpath-agent_{version}-1_amd64.deb")
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() && !path.is_symlink() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_good_update_is_installed_and_the_next_goes_back_to_it() {
    let bench = Bench::new();
    assert_eq!(bench.prepare().await.unwrap(), Prepared::Nothing);
    bench.lay_ready("0.2.0", "0.1.0");
    assert_eq!(bench.prepare().await.unwrap(), Prepared::Begun("0.2.0".parse().unwrap()));
    // What goes on is the kept copy, started at boot as well.
    let unit = std::fs::read_to_string(bench.at("units").join(runner::NAME)).unwrap();
    assert!(unit.contains(&format!("ExecStart=\"{}\" --config", bench.at("lib/update/program").display())), "{unit}");
    assert!(bench.at("units/multi-user.target.wants").join(runner::NAME).is_symlink());
    assert_eq!(std::fs::read(bench.at("lib/update/program")).unwrap(), b"the program");
    assert_eq!(bench.means.host().begun, 1);
    // Asked once more it is the same update.
    assert!(matches!(bench.prepare().await.unwrap(), Prepared::Begun(_)));

    let ended = bench.go_on().await.unwrap().unwrap();
    assert_eq!((ended.outcome, ended.why.as_str()), (Outcome::Installed, ""));
    assert_eq!((bench.installed().as_str(), bench.kept(), bench.report().last), ("0.2.0", vec!["0.2.0".to_owned()], Some(ended)));
    assert_eq!(bench.report().kept.unwrap().to_string(), "0.2.0");
    bench.is_over();
    assert!(bench.means.looks.load(Ordering::SeqCst) >= 10, "it was looked at until it had settled");
    let mode = std::fs::metadata(Report::path(bench.applier.kept())).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o644, "the agent reads it");

    // The one before is not needed from the agent any more.
    std::fs::remove_dir_all(bench.at("lib/agent/update")).unwrap();
    bench.lay_ready("0.3.0", "0.2.0");
    bench.means.host().broken = vec!["0.3.0".into()];
    assert_eq!(bench.applied().await.outcome, Outcome::RolledBack);
    assert_eq!(bench.installed(), "0.2.0");
    bench.is_over();
}

#[tokio::test]
async fn a_version_that_does_not_work_is_undone_and_not_tried_again() {
    for refuses in [false, true] {
        let bench = Bench::new();
        bench.lay_ready("0.2.0", "0.1.0");
        let list = vec!["0.2.0".to_owned()];
        if refuses {
            bench.means.host().refused = list;
        } else {
            bench.means.host().broken = list;
        }
        let ended = bench.applied().await;
        assert_eq!((ended.outcome, bench.installed().as_str()), (Outcome::RolledBack, "0.1.0"));
        assert!(ended.why.contains(if refuses { "refuses 0.2.0" } else { "has ended" }), "{}", ended.why);
        assert_eq!(bench.means.host().installs, ["0.2.0", "0.1.0"]);
        assert_eq!((bench.report().refused.len(), bench.kept()), (1, vec!["0.1.0".to_owned()]));
        bench.is_over();
        assert_eq!(bench.prepare().await.unwrap(), Prepared::Nothing);
        bench.lay_ready("0.2.1", "0.1.0");
        assert_eq!(bench.applied().await.outcome, Outcome::Installed);
    }
}

#[tokio::test]
async fn where_neither_works_both_packages_stay() {
    let bench = Bench::new();
    bench.lay_ready("0.2.0", "0.1.0");
    bench.means.host().broken = vec!["0.2.0".into(), "0.1.0".into()];
    let ended = bench.applied().await;
    assert_eq!((ended.outcome, bench.kept()), (Outcome::Failed, vec!["0.1.0".to_owned(), "0.2.0".to_owned()]));
    assert_eq!(bench.means.host().installs, ["0.2.0", "0.1.0", "0.1.0"]);
    bench.is_over();
}

#[tokio::test]
async fn after_a_power_loss_anywhere_it_goes_on_and_the_agent_works() {
    for (point, works) in [Down::BeforeInstall, Down::AfterInstall, Down::Health, Down::Restart]
        .into_iter()
        .flat_map(|point| [(point, true), (point, false)])
        .filter(|case| *case != (Down::Restart, true))
    {
        let bench = Bench::new();
        bench.lay_ready("0.2.0", "0.1.0");
        if !works {
            // The installer starts nothing that was being started again and again.
            bench.means.host().broken = vec!["0.2.0".into()];
        }
        assert!(matches!(bench.prepare().await.unwrap(), Prepared::Begun(_)));
        if point == Down::Restart {
            bench.means.host().broken.push("0.1.0".into());
        }
        bench.means.host().down = Some(point);
        assert_eq!(bench.go_on().await, None, "{point:?}");
        assert!(Open::read(bench.applier.kept()).unwrap().is_some(), "{point:?}");
        {
            let mut host = bench.means.host();
            host.down = None;
            host.broken.retain(|version| version != "0.1.0");
        }
        let ended = bench.go_on().await.unwrap().unwrap();
        let expected = if works { (Outcome::Installed, "0.2.0") } else { (Outcome::RolledBack, "0.1.0") };
        assert_eq!((ended.outcome, bench.installed().as_str()), expected, "{point:?}");
        bench.is_over();
    }
}

#[tokio::test]
async fn another_installer_is_waited_for_and_nothing_is_given_up() {
    // More looks than the limit, at five seconds each, has for as many tries as there are.
    const LONG: u32 = 3 * 120;
    let bench = Bench::new();
    bench.lay_ready("0.2.0", "0.1.0");
    bench.means.host().busy = u32::MAX;
    assert!(matches!(bench.prepare().await.unwrap(), Prepared::Begun(_)));
    assert_eq!(bench.go_on().await, Some(None));
    assert!(bench.report().postponed.unwrap().why.contains("another installer") && bench.report().refused.is_empty());
    assert_eq!(bench.installed(), "0.1.0");
    let looks = u32::MAX - bench.means.host().busy;
    assert!(looks > 100, "it was waited for in {looks} looks");
    bench.is_over();

    // One that is done in time is no reason to put anything off.
    let bench = Bench::new();
    bench.lay_ready("0.2.0", "0.1.0");
    bench.means.host().busy = 3;
    assert!(matches!(bench.prepare().await.unwrap(), Prepared::Begun(_)));
    assert_eq!(bench.go_on().await.unwrap().unwrap().outcome, Outcome::Installed);
    let left = bench.means.host().busy;
    assert!(left == 0 && bench.report().postponed.is_none());
    bench.is_over();

    // Where a power loss has left neither version whole, and on the way back, there is nothing else to do than to wait.
    for (down, broken) in [(Some(Down::BeforeInstall), false), (None, true)] {
        let bench = Bench::new();
        bench.lay_ready("0.2.0", "0.1.0");
        assert!(matches!(bench.prepare().await.unwrap(), Prepared::Begun(_)));
        if let Some(down) = down {
            bench.means.host().down = Some(down);
            assert_eq!(bench.go_on().await, None);
        }
        {
            let mut host = bench.means.host();
            (host.down, host.busy) = (None, LONG);
            if broken {
                (host.busy, host.busy_after, host.broken) = (0, LONG, vec!["0.2.0".into()]);
            }
        }
        let ended = bench.go_on().await.unwrap().unwrap();
        assert_eq!(ended.outcome, if broken { Outcome::RolledBack } else { Outcome::Installed }, "{}", ended.why);
        let busy = bench.means.host().busy;
        assert_eq!(busy, 0);
        bench.is_over();
    }
}

#[tokio::test]
async fn a_host_that_goes_down_again_and_again_goes_back() {
    let bench = Bench::new();
    bench.lay_ready("0.2.0", "0.1.0");
    assert!(matches!(bench.prepare().await.unwrap(), Prepared::Begun(_)));
    bench.means.host().down = Some(Down::AfterInstall);
    for _ in 0..MAX_TRIES {
        assert_eq!(bench.go_on().await, None);
    }
    bench.means.host().down = None;
    let ended = bench.go_on().await.unwrap().unwrap();
    assert!(ended.outcome == Outcome::RolledBack && ended.why.contains("went down 2 times"), "{}", ended.why);
    assert_eq!(bench.installed(), "0.1.0");
    // Where nothing is under way nothing is done, and nothing is left.
    assert_eq!(bench.go_on().await, Some(None));
    bench.is_over();
}

#[tokio::test]
async fn it_does_not_begin_while_a_transfer_is_open_or_no_agent_runs() {
    let bench = Bench::new();
    bench.lay_ready("0.2.0", "0.1.0");
    for stopped in [false, true] {
        {
            let mut host = bench.means.host();
            (host.open_transfers, host.stopped) = (3, stopped);
        }
        assert!(matches!(bench.prepare().await.unwrap(), Prepared::Begun(_)));
        assert_eq!(bench.go_on().await, Some(None));
        let waits = bench.report().postponed.unwrap();
        assert!(waits.why.contains(if stopped { "none runs" } else { "3 transfers are open" }), "{}", waits.why);
        assert!(bench.means.host().installs.is_empty());
        bench.is_over();
    }
    {
        let mut host = bench.means.host();
        (host.open_transfers, host.stopped) = (0, false);
    }
    assert_eq!(bench.applied().await.outcome, Outcome::Installed);
    assert_eq!(bench.report().postponed, None);
}

#[tokio::test]
async fn the_configuration_says_whether_and_when() {
    let bench = Bench::new();
    bench.lay_ready("0.2.0", "0.1.0");
    let here = bench.clock.now().to_zoned(TimeZone::system());
    let (from, to) = ((here.hour() + 12) % 24, (here.hour() + 12) % 24 + 1);
    for (config, allowed) in [
        (String::new(), false),
        ("[update]\nmode = \"download\"\n".to_owned(), false),
        (format!("[update]\nmode = \"install\"\nwindow = \"{from:02}:00-{to:02}:00\"\n"), false),
        ("[update]\nmode = \"install\"\nwindow = \"00:00-24:00\"\n".to_owned(), true),
    ] {
        let prepared = bench.applier.prepare(&bench.site(&config)).await.unwrap();
        assert_eq!(prepared != Prepared::NotNow, allowed, "{config}");
    }
    // It may be another one when it is about to begin.
    let _ = bench.site("");
    assert_eq!(bench.go_on().await, Some(None));
    assert!(bench.report().postponed.unwrap().why.contains("does not allow"));
    let by_hand = Site { by_hand: true, ..bench.site("") };
    assert!(matches!(bench.applier.prepare(&by_hand).await.unwrap(), Prepared::Begun(_)));
    assert_eq!(bench.go_on().await.unwrap().unwrap().outcome, Outcome::Installed);
}

/// Changes what the service's account may change.
type Plant<'a> = &'a dyn Fn(&Bench);

#[tokio::test]
async fn what_the_services_account_has_planted_is_not_followed() {
    let secret = |bench: &Bench| {
        std::fs::write(bench.at("secret"), "package 0.2.0").unwrap();
        bench.at("secret")
    };
    let package = file_of("0.2.0");
    let plants: [(&str, Plant<'_>); 5] = [
        ("a link in place of the package", &|bench| {
            std::fs::remove_file(bench.theirs("0.2.0", &package)).unwrap();
            symlink(secret(bench), bench.theirs("0.2.0", &package)).unwrap();
        }),
        ("a second name of somebody's file", &|bench| {
            std::fs::remove_file(bench.theirs("0.2.0", &package)).unwrap();
            std::fs::hard_link(secret(bench), bench.theirs("0.2.0", &package)).unwrap();
        }),
        ("a link in place of the version's folder", &|bench| {
            std::fs::rename(bench.theirs("0.2.0", ""), bench.at("elsewhere")).unwrap();
            symlink(bench.at("elsewhere"), bench.at("lib/agent/update/0.2.0")).unwrap();
        }),
        ("a link in place of the document", &|bench| {
            std::fs::rename(bench.theirs("0.2.0", RELEASE_NAME), bench.at("document")).unwrap();
            symlink(bench.at("document"), bench.theirs("0.2.0", RELEASE_NAME)).unwrap();
        }),
        ("a folder in place of the package", &|bench| {
            std::fs::remove_file(bench.theirs("0.2.0", &package)).unwrap();
            std::fs::create_dir(bench.theirs("0.2.0", &package)).unwrap();
        }),
    ];
    for (what, plant) in plants {
        let bench = Bench::new();
        bench.lay_ready("0.2.0", "0.1.0");
        plant(&bench);
        let prepared = bench.prepare().await;
        assert!(!matches!(prepared, Ok(Prepared::Begun(_))), "{what}");
        assert_eq!((Open::read(bench.applier.kept()).unwrap(), bench.means.host().begun), (None, 0), "{what}");
        assert!(!bench.at("lib/update/packages/0.2.0").exists(), "{what}");
    }
    let bench = Bench::new();
    bench.lay_ready("0.2.0", "0.1.0");
    std::fs::rename(bench.at("lib/agent/update"), bench.at("elsewhere")).unwrap();
    symlink(bench.at("elsewhere"), bench.at("lib/agent/update")).unwrap();
    assert!(bench.prepare().await.is_err(), "a link in place of the folder of updates");
}

#[tokio::test]
async fn what_was_not_signed_as_it_is_is_refused() {
    let write = |bench: &Bench, name: &str, bytes: &[u8]| std::fs::write(bench.theirs("0.2.0", name), bytes).unwrap();
    for wrong in ["Package 0.2.0", "package 0.2.", "package 0.2.0 and more"] {
        let bench = Bench::new();
        bench.lay_ready("0.2.0", "0.1.0");
        write(&bench, &file_of("0.2.0"), wrong.as_bytes());
        assert_eq!(bench.refused().await, Code::DigestMismatch, "{wrong}");
        assert!(bench.kept().iter().all(|name| !name.contains("0.2.0")), "{:?}", bench.kept());
    }
    let bench = Bench::new();
    bench.lay_ready("0.2.0", "0.1.0");
    write(&bench, RELEASE_SIGNATURE_NAME, b"nobody");
    assert_eq!(bench.refused().await, Code::ReleaseInvalid);
    assert!(bench.kept().iter().all(|name| !name.contains("0.2.0")), "{:?}", bench.kept());
    // An older release in the folder of a newer one.
    for name in [RELEASE_NAME, RELEASE_SIGNATURE_NAME] {
        std::fs::copy(bench.theirs("0.1.0", name), bench.theirs("0.2.0", name)).unwrap();
    }
    assert_eq!(bench.refused().await, Code::ReleaseInvalid);
    // One that leaves a version out.
    bench.lay_ready("0.2.0", "0.1.5");
    assert_eq!(bench.refused().await, Code::UpdateRefused);
    // Nothing to go back to.
    bench.lay_ready("0.2.0", "0.1.0");
    std::fs::remove_dir_all(bench.theirs("0.1.0", "")).unwrap();
    assert_eq!(bench.refused().await, Code::UpdateRefused);
    // What is to go on could not.
    bench.lay_ready("0.1.0", "0.0.1");
    bench.means.host().noexec = true;
    assert_eq!(bench.refused().await, Code::UpdateRefused);
    bench.means.host().noexec = false;
    // No update goes back.
    bench.lay_ready("0.0.9", "0.0.1");
    std::fs::remove_dir_all(bench.theirs("0.2.0", "")).unwrap();
    assert_eq!(bench.prepare().await.unwrap(), Prepared::Nothing);
}
