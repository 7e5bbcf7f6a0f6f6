//! What is broken on purpose, and what is said to do about it.
#![cfg(unix)]

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use towpath_journal::{
    NoFailPoints,
    system::{SystemClock, SystemEntropy},
};
use towpath_keys::KeyKind;
use towpath_transport::files::{file_failure, write_whole};

use super::*;
use crate::{
    config::{Config, LoadedConfig},
    enrolment::Enrolment,
    host::Base,
    trust::{FileTrust, TrustStore as _},
};

struct Bench {
    host: Host,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// A host with this configuration, in a folder of its own; nothing else is there.
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        let config = LoadedConfig { config: Config::parse(config, &file).unwrap(), file };
        let base = Base {
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(SystemEntropy::new()),
            fail_points: Arc::new(NoFailPoints),
        };
        let host = Host::look(config, &folder.path().join("state"), base);
        Self { host, _folder: folder }
    }

    fn state(&self) -> &Path {
        self.host.layout.state()
    }

    /// Enrolled with a relay at this URL, whose receiver is approved.
    fn enrolled(config: &str, url: &str) -> Self {
        let bench = Self::new(config);
        std::fs::create_dir(bench.state()).unwrap();
        std::fs::set_permissions(bench.state(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let identity = bench.host.identity_or_new(KeyKind::Ed25519).unwrap();
        let enrolment = Enrolment {
            version: 1,
            relay_url: url.to_owned(),
            tenant: "acme".parse().unwrap(),
            name: "erp".parse().unwrap(),
            sftp_user: "acme.erp".into(),
            spki_pin: Some(site::digest(bench.host.settings())),
            ssh_host_keys: vec![identity.public_line().clone()],
            receipt_key: identity.public_line().clone(),
            announced: None,
        };
        let bytes = serde_json::to_vec(&enrolment).unwrap();
        write_whole(&*bench.host.files, &bench.host.layout.enrolment(), &bytes).unwrap();
        FileTrust(bench.host.layout.allowed_signers()).approve("app", identity.public_key()).unwrap();
        bench
    }

    async fn report(&self, offline: bool) -> Report {
        let visit = Visit { host: &self.host, unreadable: None, offline };
        let mut told = Vec::new();
        let mut tell = |check: &Check| {
            told.push(check.clone());
            Ok(())
        };
        let report = examine(&visit, &mut tell).await.unwrap();
        assert_eq!(told, report.checks, "each is told as it is made");
        report
    }
}

fn check<'r>(report: &'r Report, id: &str) -> &'r Check {
    report.checks.iter().find(|check| check.id == id).unwrap_or_else(|| panic!("there is no {id} in {report:#?}"))
}

#[track_caller]
fn says(report: &Report, id: &str, outcome: Outcome, code: Option<Code>, found: &str, remedy: &str) {
    let check = check(report, id);
    assert_eq!((check.outcome, check.code), (outcome, code), "{check:#?}");
    assert!(check.found.contains(found), "{check:#?}");
    assert!(check.remedy.as_deref().unwrap_or_default().contains(remedy), "{check:#?}");
}

fn sqlite_job(path: &Path, tables: &str) -> String {
    format!(
        "[[job]]\nname = \"main\"\nschedule = \"02:00\"\ntime_zone = \"UTC\"\n[job.source]\nkind = \"sqlite\"\npath = \"{}\"\n{tables}",
        path.display()
    )
}

const ITEMS: &str = "[[job.table]]\nname = \"items\"\n";

async fn make_erp(path: &Path) {
    use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};

    let mut erp = SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE items (id INTEGER PRIMARY KEY)").execute(&mut erp).await.unwrap();
    sqlx::Connection::close(erp).await.unwrap();
}

#[tokio::test]
async fn before_enrolment_everything_is_looked_at_and_nothing_is_made() {
    let bench = Bench::new("");
    let report = bench.report(false).await;
    assert!(!bench.state().exists(), "doctor changes nothing");
    says(&report, "configuration", Outcome::Warning, None, "0 jobs", "add a [[job]]");
    says(&report, "state-folder", Outcome::Skipped, None, "towpath-agent enrol CODE", "");
    says(&report, "key", Outcome::Skipped, None, "there is none yet", "");
    says(&report, "machine", Outcome::Skipped, None, "no journal yet", "");
    says(&report, "enrolment", Outcome::Failed, Some(Code::NotEnrolled), "is not enrolled", "towpath-agent enrol CODE");
    says(&report, "network", Outcome::Skipped, None, "before this agent is enrolled", "");
    says(&report, "service", Outcome::Warning, Some(Code::NotRunning), "was checked as ", "service start");
    says(&report, "parked", Outcome::Skipped, None, "no journal", "");
    assert_eq!((report.ok, report.failed, report.checks.len()), (false, 1, report.checks.len()));
    let failure = report.outcome().unwrap_err();
    assert_eq!(failure.code(), Code::CheckFailed);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_hides_nothing_else() {
    let bench = Bench::enrolled("", "https://relay.example");
    let failure = Failure::park(Code::ConfigMissing, "reading the configuration x failed");
    let visit = Visit { host: &bench.host, unreadable: Some(&failure), offline: true };
    let report = examine(&visit, &mut |_| Ok(())).await.unwrap();
    says(&report, "configuration", Outcome::Failed, Some(Code::ConfigMissing), "reading", "config example > FILE");
    says(&report, "enrolment", Outcome::Ok, None, "agent erp of tenant acme", "");
    says(&report, "receiver", Outcome::Ok, None, "approved: app (SHA256:", "");
    says(&report, "network", Outcome::Skipped, None, "--offline", "");
}

#[tokio::test]
async fn a_damaged_state_folder_is_told_piece_by_piece() {
    let bench = Bench::enrolled("", "https://relay.example");
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(bench.state(), 0o755);
    mode(&bench.host.layout.key(), 0o644);
    std::fs::write(bench.host.layout.journal(), [7; 8192]).unwrap();
    std::fs::write(bench.host.layout.enrolment(), "{").unwrap();
    std::fs::remove_file(bench.host.layout.allowed_signers()).unwrap();
    let report = bench.report(true).await;
    says(&report, "state-folder", Outcome::Warning, Some(Code::KeyPermissions), "(mode 0755)", "chmod 700");
    says(&report, "key", Outcome::Failed, Some(Code::KeyPermissions), "run: chmod 600", "only the agent's own user");
    says(&report, "machine", Outcome::Failed, Some(Code::JournalFailed), "the file is damaged", "from a backup");
    says(&report, "enrolment", Outcome::Failed, Some(Code::ConfigInvalid), "enrol again", "");
    std::fs::remove_file(bench.host.layout.key()).unwrap();
    let report = bench.report(true).await;
    says(&report, "key", Outcome::Failed, Some(Code::KeyMissing), "is enrolled, so put the key back", "from your backup");
}

#[tokio::test]
async fn a_state_folder_that_is_a_file_is_said() {
    let bench = Bench::new("");
    std::fs::write(bench.state(), "x").unwrap();
    let report = bench.report(true).await;
    says(&report, "state-folder", Outcome::Failed, Some(Code::FileFailed), "is no folder", "--state");
}

#[tokio::test]
async fn a_copy_of_a_host_and_a_receiver_that_nobody_approved_are_told() {
    let bench = Bench::enrolled("", "https://relay.example");
    let (clock, entropy) = (Arc::clone(bench.host.clock()), Arc::clone(bench.host.entropy()));
    let place = towpath_transfer::state::Place::Agent;
    let journal = towpath_journal::SqliteJournal::open(&bench.host.layout.journal(), place, clock, entropy).await.unwrap();
    towpath_journal::MachineBinding::bind_or_check(&journal, "another machine").await.unwrap();
    journal.close().await;
    std::fs::remove_file(bench.host.layout.allowed_signers()).unwrap();
    let report = bench.report(true).await;
    says(&report, "machine", Outcome::Failed, Some(Code::HostMoved), "towpath-agent moved", "towpath-agent moved");
    says(&report, "receiver", Outcome::Failed, Some(Code::ReceiverUnapproved), "no receiver is approved", "receiver approve");
    says(&report, "parked", Outcome::Ok, None, "no transfer waits", "");
    says(&report, "pause", Outcome::Ok, None, "not paused", "");
    let pause = crate::pause::Pause::new(bench.host.clock().now(), None, "anna", Some("ERP update"));
    pause.begin(&*bench.host.files, &bench.host.layout).unwrap();
    let report = bench.report(true).await;
    says(&report, "pause", Outcome::Warning, Some(Code::Paused), "by anna: ERP update", "towpath-agent resume");
}

#[tokio::test]
async fn sources_are_opened_and_every_query_is_prepared() {
    let folder = tempfile::tempdir().unwrap();
    let erp = folder.path().join("erp.sqlite");
    let tables =
        format!("{ITEMS}[[job.table]]\nname = \"gone\"\n[[job.table]]\nname = \"wrong\"\nquery = \"SELECT x FROM items\"\n");
    let bench = Bench::new(&sqlite_job(&erp, &tables));
    let report = bench.report(false).await;
    says(&report, "source:main", Outcome::Failed, Some(Code::ErpMissing), "", "usermod -aG GROUP USER");
    says(&report, "tables:main", Outcome::Skipped, None, "cannot be opened", "");
    says(&report, "schedule:main", Outcome::Ok, None, "next run ", "");
    make_erp(&erp).await;
    let report = bench.report(false).await;
    says(&report, "source:main", Outcome::Ok, None, "", "");
    says(&report, "tables:main", Outcome::Failed, Some(Code::ErpQuery), "2 of 3 cannot be read: gone: ", "extract --check");
    assert!(check(&report, "tables:main").found.contains("wrong: "), "{report:#?}");
    assert!(check(&report, "source:main").user.is_some());
    let offline = bench.report(true).await;
    says(&offline, "source:main", Outcome::Skipped, None, "--offline", "");
}

#[tokio::test]
async fn files_that_are_not_there_yet_are_no_fault_and_a_folder_that_is_missing_is() {
    let folder = tempfile::tempdir().unwrap();
    let dropped = folder.path().join("dropped");
    let job = |more: &str| {
        format!("[[job]]\nname = \"main\"\n[job.source]\nkind = \"files\"\nfolder = \"{}\"\n{more}{ITEMS}", dropped.display())
    };
    let report = Bench::new(&job("")).report(false).await;
    says(&report, "source:main", Outcome::Failed, Some(Code::ErpMissing), "", "where [job.source] says");
    std::fs::create_dir(&dropped).unwrap();
    let report = Bench::new(&job("")).report(false).await;
    says(&report, "source:main", Outcome::Ok, None, "waiting for files in", "");
    says(&report, "tables:main", Outcome::Skipped, None, "no file to look into", "");
}

#[test]
fn a_folder_that_the_unit_does_not_open_is_told_from_one_that_may_not_be_written() {
    let failure = |kind: std::io::ErrorKind| file_failure("writing to", Path::new("/srv/erp"), kind.into());
    let unwritable = |kind| site::unwritable(&failure(kind), "let the user write");
    assert!(unwritable(std::io::ErrorKind::ReadOnlyFilesystem).contains("ReadWritePaths="));
    assert_eq!(unwritable(std::io::ErrorKind::PermissionDenied), "let the user write");
}

#[tokio::test]
async fn folders_are_written_to_and_left_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let [there, missing, file] = ["there", "missing", "file"].map(|name| folder.path().join(name));
    std::fs::create_dir(&there).unwrap();
    std::fs::write(&file, "x").unwrap();
    let delivery = |kind: &str, folder: &Path, more: &str| {
        format!("[[delivery]]\nkind = \"{kind}\"\nfolder = \"{}\"\n{more}", folder.display())
    };
    let run = format!("run = {{ program = \"{}\" }}\n", missing.display());
    let config = [
        delivery("orders", &there, ""),
        delivery("lost", &missing, ""),
        delivery("plain", &file, ""),
        delivery("acted", &there, &run),
    ];
    let report = Bench::new(&config.concat()).report(false).await;
    says(&report, "delivery:orders", Outcome::Ok, None, "can be put into", "");
    says(&report, "delivery:lost", Outcome::Failed, Some(Code::DeliveryFailed), "looking for the folder", "make or mount");
    says(&report, "delivery:plain", Outcome::Failed, Some(Code::DeliveryFailed), "is no folder", "make or mount");
    says(&report, "delivery:acted", Outcome::Failed, Some(Code::ActionFailed), "is not there", "action-failed");
    assert_eq!(std::fs::read_dir(&there).unwrap().count(), 0);
}

#[tokio::test]
async fn who_is_told_of_what_is_wrong_must_be_there_and_a_password_in_the_file_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let [tell, hook] = ["tell", "hook"].map(|name| folder.path().join(name));
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let config = format!(
        "[alert]\nprogram = \"{}\"\nwebhook = \"https://x.example\"\nwebhook_secret = \"file:{}\"\n",
        tell.display(),
        hook.display()
    );
    let bench = Bench::new(&config);
    let report = bench.report(false).await;
    says(&report, "alert", Outcome::Failed, Some(Code::AlertFailed), "tell is not there", "alert test");
    std::fs::write(&tell, "#!/bin/sh\n").unwrap();
    mode(&tell, 0o644);
    let report = bench.report(false).await;
    says(&report, "alert", Outcome::Failed, Some(Code::AlertFailed), "tell cannot be started: ", "alert test");
    mode(&tell, 0o755);
    std::fs::write(&hook, "hush").unwrap();
    mode(&hook, 0o644);
    let report = bench.report(false).await;
    says(&report, "alert", Outcome::Failed, Some(Code::SecretUnusable), "hook is open to other users", "for nobody else");
    mode(&hook, 0o600);
    let report = bench.report(false).await;
    says(&report, "alert", Outcome::Ok, None, "can be used", "");
    assert!(check(&report, "alert").user.is_some(), "the account decides");
    assert!(Bench::new("").report(false).await.checks.iter().all(|check| check.id != "alert"), "nobody is to be told");

    let clear = config.replace(&format!("file:{}", hook.display()), "clear:hunter2");
    let delivery = "[[delivery]]\nkind = \"orders\"\nfolder = \"in\"\n";
    let report = Bench::new(&format!("{clear}{delivery}")).report(true).await;
    says(
        &report,
        "configuration",
        Outcome::Warning,
        None,
        "0 jobs, 0 tables, 1 delivery; [alert] webhook_secret stands in",
        "check",
    );
    assert!(!format!("{report:?}").contains("hunter2"));
}

#[tokio::test]
async fn each_way_names_the_hop_that_blocks_it() {
    // What nobody listens on, once the listener is gone.
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let bench = Bench::enrolled("[network]\nproxy = \"none\"\n", &format!("https://127.0.0.1:{port}"));
    let report = bench.report(false).await;
    says(&report, "name", Outcome::Ok, None, "127.0.0.1", "");
    for way in ["ssh", "tls"] {
        let id = format!("way:{way}:{port}");
        says(&report, &id, Outcome::Failed, Some(Code::RelayUnreachable), "nothing listens on 127.0.0.1", "firewall");
    }
    says(&report, "way:https", Outcome::Failed, Some(Code::RelayUnreachable), "nothing listens", "firewall");
    says(&report, "login", Outcome::Skipped, None, "no way for SSH is open", "");
    says(&report, "token", Outcome::Skipped, None, "not reached", "");
    says(&report, "clock", Outcome::Skipped, None, "not told its time", "");
    assert!(!bench.host.layout.ways().exists(), "doctor remembers nothing");
}

/// Answers every connection with these bytes once something was said, and hangs up.
async fn answers(with: &'static [u8]) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut said = [0; 512];
            // Who hangs up first has had enough.
            let _ = stream.read(&mut said).await;
            let _ = stream.write_all(with).await;
            let _ = stream.shutdown().await;
            while stream.read(&mut said).await.is_ok_and(|read| read > 0) {}
        }
    });
    port
}

#[tokio::test]
async fn proxies_that_refuse_are_told_with_what_they_want() {
    for (answer, code, found, remedy) in [
        (&b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\n\r\n"[..], Code::ProxyRefused, "a login by NTLM", "cntlm"),
        (b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n", Code::ProxyRefused, "wants a user", "set proxy_user"),
        (b"HTTP/1.1 403 No\r\n\r\n", Code::ProxyRefused, "403", "allow CONNECT to 127.0.0.1:9"),
        (b"HTTP/1.1 502 No\r\n\r\n", Code::RelayUnreachable, "502", "whether it reaches 127.0.0.1:9"),
    ] {
        let port = answers(answer).await;
        let bench = Bench::enrolled(&format!("[network]\nproxy = \"http://127.0.0.1:{port}\"\n"), "https://127.0.0.1:9");
        let report = bench.report(false).await;
        for id in ["way:ssh:9", "way:tls:9", "way:https"] {
            says(&report, id, Outcome::Failed, Some(code), found, remedy);
        }
        assert!(check(&report, "name").tried.contains("the proxy"), "{report:#?}");
    }
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let bench = Bench::enrolled(&format!("[network]\nproxy = \"http://127.0.0.1:{gone}\"\n"), "https://127.0.0.1:9");
    let report = bench.report(false).await;
    says(&report, "way:ssh:9", Outcome::Failed, Some(Code::RelayUnreachable), "itself is not reached", "names the right host");
}

#[tokio::test]
async fn something_that_is_no_ssh_is_told() {
    let port = answers(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let bench = Bench::enrolled("[network]\nproxy = \"none\"\n", &format!("https://127.0.0.1:{port}"));
    let report = bench.report(false).await;
    let ssh = check(&report, &format!("way:ssh:{port}"));
    assert_eq!(ssh.outcome, Outcome::Failed, "{ssh:#?}");
    assert!(ssh.found.contains("is no relay") || ssh.found.contains("cuts it or swallows"), "{ssh:#?}");
    says(&report, &format!("way:tls:{port}"), Outcome::Failed, Some(Code::RelayUnreachable), "is no relay", "captive portal");
}
