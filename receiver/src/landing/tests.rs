use std::{
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, process::Command, sync::Notify};
use tokio_util::sync::CancellationToken;
use towpath_journal::NoObserver;
use towpath_keys::{HostKeys, Identity, KeyKind};
use towpath_transfer::{
    Clock, RemotePath, TransferState, clock::SeededEntropy, manifest::MANIFEST_NAME, public_key::PublicKeyLine,
};
use towpath_transport::{
    client::{SftpLogin, SftpStore},
    files::{Disk, FaultFiles, FileOp, FileStore as _, MemoryFiles, read_whole, write_whole},
    server::{FsError, FsResult, Lack, Limits, OpenOptions, Replace, SetAttributes, VirtualFs as _},
    store::{RemoteStore as _, StoreErrorKind},
};

use super::*;
use crate::{
    enrolment::Enrolment,
    service::{Service, ServiceSettings},
    testing::{Bench, folder, id, key_line, sent},
};

const WRITE: OpenOptions =
    OpenOptions { read: false, write: true, append: false, create: true, truncate: true, exclusive: false };

struct Fixture {
    files: Arc<MemoryFiles>,
    view: LandingView,
    arrived: Arc<Notify>,
}

fn fixture(limits: LandingLimits) -> Fixture {
    let (files, arrived) = (Arc::new(MemoryFiles::new()), Arc::new(Notify::new()));
    let landing = Landing::new(files.clone(), Layout::new("/state"), limits, Arc::clone(&arrived));
    landing.prepare().unwrap();
    Fixture { files, view: LandingView::new(Arc::new(landing)), arrived }
}

fn at(path: &str) -> RemotePath {
    path.parse().unwrap()
}

fn spot(n: u8) -> String {
    format!("/uplink/erp/{}", id(n))
}

async fn make(view: &LandingView, path: &str) -> FsResult<()> {
    view.make_dir(&at(path), &SetAttributes::default()).await
}

async fn put(view: &LandingView, path: &str, bytes: &'static [u8]) -> FsResult<()> {
    let mut file = view.open(&at(path), WRITE, &SetAttributes::default()).await?;
    file.write_at(0, Bytes::from_static(bytes)).await?;
    file.close().await
}

async fn names(view: &LandingView, path: &str) -> Vec<String> {
    let mut listing = view.list(&at(path)).await.unwrap();
    let mut names = Vec::new();
    loop {
        let page = listing.next_page(1).await.unwrap();
        if page.is_empty() {
            return names;
        }
        names.extend(page.into_iter().map(|entry| entry.name));
    }
}

async fn opened(fixture: &Fixture) -> String {
    make(&fixture.view, "/uplink/erp").await.unwrap();
    make(&fixture.view, &spot(1)).await.unwrap();
    spot(1)
}

#[tokio::test]
async fn other_paths_do_not_exist() {
    let fixture = fixture(LandingLimits::default());
    let folder = opened(&fixture).await;
    let Fixture { view, files, .. } = &fixture;
    write_whole(&**files, Path::new("/state/key"), b"secret").unwrap();
    let of_landing = |name: &str| Path::new("/state/landing/uplink/erp").join(name);
    files.create_dir_all(&of_landing("strange")).unwrap();
    write_whole(&**files, &of_landing(&id(1).to_string()).join(".hidden"), b"x").unwrap();
    write_whole(&**files, &of_landing("file"), b"x").unwrap();
    let upper = format!("/uplink/erp/{}", id(1).to_string().to_uppercase());
    let missing = [
        "/key".to_owned(),
        "/etc/passwd".to_owned(),
        "/landing".to_owned(),
        "/downlink/ERP".to_owned(),
        "/downlink/erp".to_owned(),
        format!("/downlink/erp/{}/x", id(1)),
        "/uplink/ERP".to_owned(),
        "/uplink/erp/strange".to_owned(),
        "/uplink/erp/file".to_owned(),
        upper,
        spot(2),
        format!("{}/x", spot(2)),
        format!("{folder}/.hidden"),
        format!("{folder}/sub/deeper"),
    ];
    let none = SetAttributes::default();
    for path in &missing {
        let path = at(path);
        assert_eq!(view.stat(&path).await.unwrap_err(), FsError::NotFound, "stat {path}");
        assert_eq!(view.set_attributes(&path, &none, true).await.unwrap_err(), FsError::NotFound, "setstat {path}");
        assert_eq!(view.open(&path, WRITE, &none).await.err(), Some(FsError::NotFound), "write {path}");
        let read = OpenOptions { read: true, ..OpenOptions::default() };
        assert_eq!(view.open(&path, read, &none).await.err(), Some(FsError::NotFound), "read {path}");
        assert_eq!(view.list(&path).await.err(), Some(FsError::NotFound), "list {path}");
        assert_eq!(view.remove(&path).await.unwrap_err(), FsError::NotFound, "remove {path}");
        assert_eq!(view.remove_dir(&path).await.unwrap_err(), FsError::NotFound, "rmdir {path}");
        let good = at(&format!("{folder}/x"));
        assert_eq!(view.rename(&path, &good, Replace::Allow).await.unwrap_err(), FsError::NotFound, "rename {path}");
    }
    for path in ["/other", "/uplink/ERP", "/uplink/erp/strange", &format!("{folder}/sub"), &format!("/uplink/new/{}", id(1))] {
        assert_eq!(make(view, path).await.unwrap_err(), FsError::NotFound, "mkdir {path}");
    }
    assert_eq!(names(view, "/").await, ["downlink", "uplink"]);
    assert_eq!(names(view, "/uplink/erp").await, [id(1).to_string()]);
    assert!(names(view, &folder).await.is_empty());
    for fixed in ["/uplink", "/downlink"] {
        assert_eq!(view.remove_dir(&at(fixed)).await, Err(FsError::Denied));
    }
    for folder in ["/downlink", "/downlink/erp", &format!("/downlink/erp/{}", id(1))] {
        assert!(make(view, folder).await.is_err(), "mkdir {folder}");
    }
    assert_eq!(make(view, "/uplink").await, Err(FsError::Exists));
}

#[tokio::test]
async fn a_name_is_hidden_until_close_and_durable_after_it() {
    let fixture = fixture(LandingLimits::default());
    let folder = opened(&fixture).await;
    let (view, path) = (&fixture.view, at(&format!("{folder}/MD5SUMS")));
    let mut file = view.open(&path, WRITE, &SetAttributes::default()).await.unwrap();
    file.write_at(0, Bytes::from_static(b"half")).await.unwrap();
    assert_eq!(view.stat(&path).await.unwrap_err(), FsError::NotFound);
    assert!(names(view, &folder).await.is_empty());
    file.abandon().await;
    assert_eq!(view.stat(&path).await.unwrap_err(), FsError::NotFound);
    put(view, &format!("{folder}/MD5SUMS"), b"whole").await.unwrap();
    fixture.files.power_loss();
    assert_eq!(view.stat(&path).await.unwrap().size, 5);
    // Replacing is hidden until it is whole too.
    let file = view.open(&path, WRITE, &SetAttributes::default()).await.unwrap();
    file.abandon().await;
    assert_eq!(view.stat(&path).await.unwrap().size, 5);
    let refused = view.open(&path, OpenOptions { exclusive: true, ..WRITE }, &SetAttributes::default()).await.err();
    assert_eq!(refused, Some(FsError::Exists));
}

#[tokio::test]
async fn a_part_stays_and_is_published_by_rename() {
    let fixture = fixture(LandingLimits::default());
    let folder = opened(&fixture).await;
    let view = &fixture.view;
    let (part, name) = (at(&format!("{folder}/manifest.json.part")), at(&format!("{folder}/{MANIFEST_NAME}")));
    let mut file = view.open(&part, WRITE, &SetAttributes::default()).await.unwrap();
    file.write_at(0, Bytes::from_static(b"half")).await.unwrap();
    file.sync().await.unwrap();
    file.abandon().await;
    assert_eq!(view.stat(&part).await.unwrap().size, 4);
    let resume = OpenOptions { truncate: false, ..WRITE };
    let mut file = view.open(&part, resume, &SetAttributes::default()).await.unwrap();
    file.write_at(4, Bytes::from_static(b" and half")).await.unwrap();
    file.set_attributes(&SetAttributes { size: Some(0), ..SetAttributes::default() }).await.unwrap();
    // Whoever still writes after the rename writes nowhere.
    view.rename(&part, &name, Replace::Refuse).await.unwrap();
    assert!(file.write_at(0, Bytes::from_static(b"late")).await.is_err());
    assert!(file.close().await.is_err());
    fixture.arrived.notified().await;
    fixture.files.power_loss();
    let disk = Path::new("/state/landing").join(folder.trim_start_matches('/')).join(MANIFEST_NAME);
    assert_eq!(read_whole(&*fixture.files, &disk, 100).unwrap(), b"half and half");
    assert_eq!(names(view, &folder).await, [MANIFEST_NAME]);
    // A second copy replaces it where that is asked for, and only there.
    put(view, &format!("{folder}/manifest.json.part"), b"second").await.unwrap();
    assert_eq!(view.rename(&part, &name, Replace::Refuse).await, Err(FsError::Exists));
    view.rename(&part, &name, Replace::Allow).await.unwrap();
    assert_eq!(read_whole(&*fixture.files, &disk, 100).unwrap(), b"second");
    // Not into another transfer.
    make(view, &spot(2)).await.unwrap();
    let elsewhere = at(&format!("{}/x", spot(2)));
    assert_eq!(view.rename(&name, &elsewhere, Replace::Allow).await, Err(FsError::Denied));
}

#[tokio::test]
async fn of_two_writers_the_later_one_has_the_name() {
    let fixture = fixture(LandingLimits::default());
    let folder = opened(&fixture).await;
    let (view, path) = (&fixture.view, at(&format!("{folder}/a.part")));
    let mut first = view.open(&path, WRITE, &SetAttributes::default()).await.unwrap();
    first.write_at(0, Bytes::from_static(b"first")).await.unwrap();
    let mut second = view.open(&path, WRITE, &SetAttributes::default()).await.unwrap();
    assert!(first.write_at(0, Bytes::from_static(b"FIRST")).await.is_err());
    second.write_at(0, Bytes::from_static(b"2nd")).await.unwrap();
    assert!(first.close().await.is_err());
    second.close().await.unwrap();
    assert_eq!(view.stat(&path).await.unwrap().size, 3);
}

#[tokio::test]
async fn below_the_reserve_nothing_more_is_taken() {
    let fixture = fixture(LandingLimits { reserve_bytes: 1_000, ..LandingLimits::default() });
    let folder = opened(&fixture).await;
    let view = &fixture.view;
    put(view, &format!("{folder}/a"), b"before").await.unwrap();
    let mut open = view.open(&at(&format!("{folder}/b.part")), WRITE, &SetAttributes::default()).await.unwrap();
    fixture.files.set_space(Some(999));
    assert_eq!(open.write_at(0, Bytes::from_static(b"x")).await, Err(FsError::Full(Lack::Reserve)));
    assert_eq!(put(view, &format!("{folder}/c"), b"x").await, Err(FsError::Full(Lack::Reserve)));
    assert_eq!(make(view, &spot(2)).await, Err(FsError::Full(Lack::Reserve)));
    // Room for a hole is asked for like room for bytes.
    fixture.files.set_space(Some(2_000));
    assert_eq!(open.write_at(1 << 40, Bytes::from_static(b"x")).await, Err(FsError::Full(Lack::Reserve)));
    open.write_at(0, Bytes::from_static(b"x")).await.unwrap();
    open.close().await.unwrap();
    put(view, &format!("{folder}/c"), b"x").await.unwrap();
}

#[tokio::test]
async fn agents_transfers_and_files_are_bounded() {
    let fixture = fixture(LandingLimits { agents: 2, transfers: 2, files: 2, ..LandingLimits::default() });
    let folder = opened(&fixture).await;
    let view = &fixture.view;
    make(view, "/uplink/second").await.unwrap();
    assert!(matches!(make(view, "/uplink/third").await, Err(FsError::Failure(_))));
    make(view, &spot(2)).await.unwrap();
    assert!(matches!(make(view, &spot(3)).await, Err(FsError::Failure(_))));
    view.remove_dir(&at(&spot(2))).await.unwrap();
    make(view, &spot(3)).await.unwrap();
    put(view, &format!("{folder}/a"), b"x").await.unwrap();
    put(view, &format!("{folder}/b"), b"x").await.unwrap();
    put(view, &format!("{folder}/b"), b"again").await.unwrap();
    assert!(matches!(put(view, &format!("{folder}/c"), b"x").await, Err(FsError::Failure(_))));
    view.remove(&at(&format!("{folder}/a"))).await.unwrap();
    put(view, &format!("{folder}/c"), b"x").await.unwrap();
    // The receiver takes the folder away, and the relay begins anew.
    fixture.files.remove_dir_all(Path::new(&format!("/state/landing{folder}"))).unwrap();
    make(view, &folder).await.unwrap();
    put(view, &format!("{folder}/d"), b"x").await.unwrap();
}

#[tokio::test]
async fn what_is_laid_out_is_read_and_nothing_else() {
    let fixture = fixture(LandingLimits::default());
    let Fixture { view, files, .. } = &fixture;
    let (folder, hidden) = (format!("/downlink/erp/{}", id(1)), format!("/downlink/erp/.{}", id(2)));
    for of in [&folder, &hidden] {
        let disk = Path::new("/state/landing").join(of.trim_start_matches('/'));
        files.create_dir_all(&disk).unwrap();
        write_whole(&**files, &disk.join("orders.csv"), b"orders").unwrap();
    }
    assert_eq!(names(view, "/downlink").await, ["erp"]);
    assert_eq!(names(view, "/downlink/erp").await, [id(1).to_string()]);
    assert_eq!(names(view, &folder).await, ["orders.csv"]);
    let (path, none) = (at(&format!("{folder}/orders.csv")), SetAttributes::default());
    let read = OpenOptions { read: true, ..OpenOptions::default() };
    let mut file = view.open(&path, read, &none).await.unwrap();
    assert_eq!(file.read_at(0, 100).await.unwrap().as_ref(), b"orders");
    assert_eq!(view.stat(&path).await.unwrap().size, 6);
    // What is not whole is hidden.
    assert_eq!(view.stat(&at(&format!("{hidden}/orders.csv"))).await.unwrap_err(), FsError::NotFound);
    // Nothing of it can be changed.
    assert_eq!(view.open(&path, WRITE, &none).await.err(), Some(FsError::Denied));
    let both = OpenOptions { read: true, append: true, ..OpenOptions::default() };
    assert_eq!(view.open(&path, both, &none).await.err(), Some(FsError::Denied));
    assert_eq!(view.remove(&path).await, Err(FsError::Denied));
    assert!(view.remove_dir(&at(&folder)).await.is_err());
    assert_eq!(view.remove_dir(&at("/downlink/erp")).await, Err(FsError::Denied));
    assert!(make(view, "/downlink/other").await.is_err());
    assert!(make(view, &format!("{folder}/x")).await.is_err());
    let up = opened(&fixture).await;
    assert_eq!(view.rename(&path, &at(&format!("{up}/orders.csv")), Replace::Allow).await, Err(FsError::Denied));
    put(view, &format!("{up}/x"), b"x").await.unwrap();
    assert_eq!(view.rename(&at(&format!("{up}/x")), &path, Replace::Allow).await, Err(FsError::Denied));
    assert_eq!(view.open(&at(&format!("{folder}/new")), WRITE, &none).await.err(), Some(FsError::NotFound));
    assert_eq!(
        read_whole(&**files, &Path::new("/state/landing").join(path.to_string().trim_start_matches('/')), 10).unwrap(),
        b"orders"
    );
}

/// OpenSSH's `sftp` with commands on its standard input; whether it ended well, and what it said.
async fn sftp(address: std::net::SocketAddr, user: &str, key: &Path, commands: &str) -> (bool, String) {
    let mut child = Command::new("sftp")
        .args(["-q", "-F", "none", "-b", "-", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no"])
        .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentityAgent=none", "-P", &address.port().to_string()])
        .arg("-i")
        .arg(key)
        .arg(format!("{user}@{}", address.ip()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("OpenSSH's sftp is installed");
    child.stdin.take().unwrap().write_all(commands.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn enrolled(forward_key: &PublicKeyLine) -> Enrolment {
    Enrolment {
        version: 1,
        relay_url: "https://relay.test".into(),
        spki_pin: None,
        tenant: "acme".parse().unwrap(),
        name: "app".parse().unwrap(),
        sftp_user: "acme.app".into(),
        ssh_host_keys: vec![],
        receipt_key: key_line(8),
        announced: None,
        forward_key: forward_key.clone(),
        landing: None,
    }
}

/// Within how long a session ends whose key is not the enrolled one any more.
const SESSION_END: Duration = Duration::from_secs(5);
/// What listing a folder may cost in memory, in KiB, with the entries of the published figure.
const LISTING_KIB: u64 = 50 * 1024;
const ENTRIES: usize = 100_000;
/// What a large folder may cost more than a small one, in KiB, so that it cannot be held as a whole; and what it has more of.
const LISTING_MORE_KIB: u64 = 2 * 1024;
const FEW_ENTRIES: usize = 1_000;

/// What a listing has cost.
struct Listed {
    /// How often a page of the folder was asked for.
    reads: usize,
    /// How long its first page took.
    first: Duration,
    /// How much more memory the process has ever held than before, in KiB.
    more: u64,
}

/// The most memory that this process has held since [`forget_peak`], in KiB. Each test has a process of its own where the suite runs.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// A folder for many files, in memory where the system has such a place: a disk that has to take 50,000 new files keeps everybody waiting
/// whose data it is to hold, such as the databases of other tests.
fn roomy() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Lists a folder of so many entries of a real file system.
async fn listed(entries: usize) -> Listed {
    let (temp, reads) = (roomy(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&reads);
    let plan = move |op: FileOp, _: &Path| {
        counted.fetch_add(usize::from(op == FileOp::List), Ordering::SeqCst);
        None
    };
    let files = Arc::new(FaultFiles::new(Arc::new(Disk), Box::new(plan)));
    let landing = Landing::new(files, Layout::new(temp.path()), LandingLimits::default(), Arc::default());
    landing.prepare().unwrap();
    let folder = temp.path().join("landing").join(spot(1).trim_start_matches('/'));
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..entries {
        std::fs::write(folder.join(format!("f{number:06}.csv")), b"x").unwrap();
    }
    let (view, most) = (LandingView::new(Arc::new(landing)), Limits::default().page_entries);
    // Whatever the first listing of a process costs, such as the thread that reads the disk, is there then.
    assert_eq!(names(&view, "/uplink/erp").await, [id(1).to_string()]);
    reads.store(0, Ordering::SeqCst);
    let clock = towpath_journal::system::SystemClock::new();
    forget_peak();
    let (before, begun) = (peak_memory(), clock.monotonic());
    let mut listing = view.list(&at(&spot(1))).await.unwrap();
    let mut seen = listing.next_page(most).await.unwrap().len();
    let first = clock.monotonic().saturating_sub(begun);
    assert_eq!(seen, most);
    while let page @ 1.. = listing.next_page(most).await.unwrap().len() {
        seen += page;
    }
    assert_eq!(seen, entries);
    let (reads, more) = (reads.load(Ordering::SeqCst), peak_memory().saturating_sub(before));
    println!(
        "{entries} entries on a landing: the first page after {first:?}, {reads} reads of pages, {more} KiB more than before"
    );
    Listed { reads, first, more }
}

#[tokio::test]
async fn a_large_folder_is_read_once_in_little_memory() {
    let few = listed(FEW_ENTRIES).await;
    let Listed { reads, more, .. } = listed(50_000).await;
    assert_eq!(reads, 1 + 500 + 1, "it is opened, read page by page, and found to be at its end");
    assert!(more < few.more + LISTING_MORE_KIB, "{more} KiB, and {} KiB with {FEW_ENTRIES} entries", few.more);
}

#[tokio::test]
async fn long_a_folder_of_100_000_entries_shows_its_first_page_within_two_seconds_in_50_mib() {
    let few = listed(FEW_ENTRIES).await;
    let Listed { reads, first, more } = listed(ENTRIES).await;
    assert!(reads == 1_002 && first < Duration::from_secs(2), "{reads} {first:?}");
    assert!(more < LISTING_KIB.min(few.more + LISTING_MORE_KIB), "{more} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_whose_key_is_not_the_enrolled_one_any_more() {
    let (temp, files, layout) = (tempfile::tempdir().unwrap(), Arc::new(MemoryFiles::new()), Layout::new("/state"));
    let [old, new] = [21, 22].map(|seed| Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(seed)).unwrap());
    let enrol = |key: &Identity| {
        write_whole(&*files, &layout.enrolment(), &serde_json::to_vec(&enrolled(key.public_line())).unwrap()).unwrap();
    };
    let landing = Landing::new(files.clone(), layout.clone(), LandingLimits::default(), Arc::default());
    landing.prepare().unwrap();
    enrol(&old);
    let host_keys = HostKeys::load_or_generate(temp.path(), &SeededEntropy::new(23)).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(towpath_journal::system::SystemClock::new());
    let (landing, path) = (Arc::new(landing), layout.enrolment());
    let server = LandingServer::bind("127.0.0.1:0", &host_keys, landing, path, Limits::default(), Arc::clone(&clock));
    let server = server.await.unwrap();
    let (address, shutdown) = (server.address(), CancellationToken::new());
    let listening = tokio::spawn(server.run(shutdown.clone()));
    let log_in = async |key: &Identity| {
        let login = SftpLogin {
            user: LANDING_USER.to_owned(),
            public_key: key.public_key().to_ssh().unwrap(),
            signer: key.ssh_signer().unwrap(),
            host_keys: host_keys.public_lines().to_vec().into(),
        };
        SftpStore::connect(TcpStream::connect(address).await.unwrap(), login, Arc::clone(&clock)).await
    };
    let gone = async |session: &SftpStore, changed: Duration| {
        let ended = async {
            while session.list(&at("/uplink"), 10).await.is_ok() {
                clock.sleep(Duration::from_millis(50)).await;
            }
        };
        let patience = SESSION_END.saturating_sub(clock.monotonic().saturating_sub(changed));
        tokio::time::timeout(patience, ended).await.expect("a session outlives its key");
        let took = clock.monotonic().saturating_sub(changed);
        println!("a session whose key is not the enrolled one any more has ended after {took:?}");
        assert!(took < SESSION_END, "{took:?}");
    };

    let first = log_in(&old).await.unwrap();
    first.list(&at("/uplink"), 10).await.unwrap();
    let changed = clock.monotonic();
    enrol(&new);
    gone(&first, changed).await;
    assert_eq!(log_in(&old).await.unwrap_err().kind(), StoreErrorKind::AuthenticationRefused);
    let second = log_in(&new).await.unwrap();
    second.list(&at("/uplink"), 10).await.unwrap();
    let changed = clock.monotonic();
    files.remove(&layout.enrolment()).unwrap();
    gone(&second, changed).await;
    assert_eq!(log_in(&new).await.unwrap_err().kind(), StoreErrorKind::AuthenticationRefused);
    shutdown.cancel();
    listening.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_put_by_hand_with_openssh_is_imported() {
    let bench = Bench::new().await;
    let here = bench.temp.path();
    let entropy = SeededEntropy::new(11);
    let relay = Identity::create_file(&here.join("forward_key"), KeyKind::Ed25519, &entropy).unwrap();
    Identity::create_file(&here.join("stranger"), KeyKind::Rsa2048, &towpath_journal::system::SystemEntropy::new()).unwrap();
    let layout = &bench.parts.layout;
    write_whole(&*bench.files, &layout.enrolment(), &serde_json::to_vec(&enrolled(relay.public_line())).unwrap()).unwrap();
    let host_keys = HostKeys::load_or_generate(here, &entropy).unwrap();
    let arrived = Arc::new(Notify::new());
    let landing = Landing::new(bench.files.clone(), layout.clone(), LandingLimits::default(), Arc::clone(&arrived));
    let clock: Arc<dyn Clock> = Arc::new(towpath_journal::system::SystemClock::new());
    let server = LandingServer::bind("127.0.0.1:0", &host_keys, Arc::new(landing), layout.enrolment(), Limits::default(), clock)
        .await
        .unwrap();
    let (address, shutdown) = (server.address(), CancellationToken::new());
    let listening = tokio::spawn(server.run(shutdown.clone()));
    let parts = bench.parts_with(|_| ());
    let service = Service::new(parts, ServiceSettings::default(), Arc::new(NoObserver), arrived);
    let serving = tokio::spawn(service.run(shutdown.clone()));

    let mut commands = format!("mkdir /uplink/erp\nmkdir {}\n", spot(1));
    let whole = folder(&sent(1), &bench.erp);
    for (name, bytes) in &whole {
        std::fs::write(here.join(name), bytes).unwrap();
    }
    let last = [MANIFEST_NAME.to_owned()];
    for name in whole.keys().filter(|name| *name != MANIFEST_NAME).chain(&last) {
        commands.push_str(&format!("put {0}/{name} {1}/{name}\n", here.display(), spot(1)));
    }
    let (good, said) = sftp(address, LANDING_USER, &here.join("forward_key"), &commands).await;
    assert!(good, "{said}");
    let key = Bench::key("erp", id(1));
    while !bench.parts.journal.get(&key).await.unwrap().is_some_and(|record| record.is_over()) {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.parts.journal.get(&key).await.unwrap().unwrap().state, TransferState::Imported);

    for (user, with) in [(LANDING_USER, "stranger"), ("root", "forward_key"), ("acme.app", "forward_key")] {
        let (good, said) = sftp(address, user, &here.join(with), "ls /\n").await;
        assert!(!good && !said.contains("uplink"), "{user} with {with}: {said}");
    }
    let forward = here.join("forward_key");
    for command in
        ["ls /etc", "get /uplink/../key x", "mkdir /uplink/../../x", "put forward_key /uplink/x", "ln -s / /uplink/erp/l"]
    {
        let (good, said) = sftp(address, LANDING_USER, &forward, &format!("lcd {}\n{command}\n", here.display())).await;
        assert!(!good, "{command}: {said}");
    }
    shutdown.cancel();
    serving.await.unwrap();
    listening.await.unwrap();
}
