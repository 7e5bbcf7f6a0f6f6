//! One tenant's way into another's files: every form of a path in every operation of SFTP.
//!
//! Two worlds are the same, files of another tenant included. In one a peer names what belongs to the other; in the other it names,
//! in the same form, what exists nowhere. All answers must be the same, byte for byte once the names are; nothing of what is not the
//! peer's own may change; and what the other's files hold must not come back.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use tempfile::TempDir;
use tokio::sync::Notify;
use towpath_journal::MemoryJournal;
use towpath_receiver::{
    landing::{Landing, LandingLimits, LandingView},
    layout::Layout,
};
use towpath_relay::{
    registry::Registry,
    spool::{AgentView, Spool, SpoolLimits},
};
use towpath_transfer::{
    Clock, Entropy,
    clock::{ManualClock, SeededEntropy},
    stage::Place,
};
use towpath_transport::{
    client::fuzzing::meanings,
    files::disk_below,
    server::{Limits, VirtualFs, fuzzing::answers},
};

/// What the other tenant's files hold.
const SECRET: &[u8] = b"nobody else may read this";
const OWN: Names = Names { tenant: "acme", agent: "erp-1", id: "01922c1e-8a4f-7d3a-9b5e-000000000001", file: "items.csv.bz2" };
/// Whose tenant begins like ours.
const THEIRS: Names =
    Names { tenant: "acme2", agent: "erp-2", id: "01922c1e-8a4f-7d3a-9b5e-000000000002", file: "sales.csv.bz2" };
/// Who does not exist; each name is as long as theirs.
const NOBODY: Names =
    Names { tenant: "acme3", agent: "erp-3", id: "01922c1e-8a4f-7d3a-9b5e-000000000003", file: "ghost.csv.bz2" };

/// Looks like the one in an id.
const HYPHEN: &str = "\u{2010}";

#[derive(Debug, Clone, Copy)]
struct Names {
    tenant: &'static str,
    agent: &'static str,
    id: &'static str,
    file: &'static str,
}

impl Names {
    fn all(&self) -> [&'static str; 4] {
        [self.tenant, self.agent, self.id, self.file]
    }

    /// Plain paths that might lead to what they name, were the peer's root another one.
    fn paths(&self) -> Vec<String> {
        let Self { tenant, agent, id, file } = self;
        vec![
            format!("/uplink/{id}"),
            format!("/uplink/{id}/{file}"),
            format!("/downlink/{id}/{file}"),
            format!("/uplink/{agent}/{id}/{file}"),
            format!("/{tenant}"),
            format!("/{tenant}/{agent}/uplink/{id}/{file}"),
            format!("/spool/{tenant}/{agent}/uplink/{id}/{file}"),
            format!("/../{tenant}/{agent}/uplink/{id}/{file}"),
            format!("/uplink/../../../{tenant}/{agent}/uplink/{id}/{file}"),
            format!("/uplink/{}/../../../../{tenant}/{agent}/uplink/{id}/{file}", OWN.id),
            format!("/uplink/{}/{file}", OWN.id),
        ]
    }
}

type Form = Box<dyn Fn(&str) -> Vec<u8>>;

/// Replaces every `from` by bytes that a decoder further in might make `from` of again.
fn respelt(from: &'static str, to: &'static [u8]) -> Form {
    Box::new(move |path| {
        let parts: Vec<&[u8]> = path.split(from).map(str::as_bytes).collect();
        parts.join(to)
    })
}

fn around(before: &'static [u8], after: &'static [u8]) -> Form {
    Box::new(move |path| [before, path.as_bytes(), after].concat())
}

/// The forms that a path is given, the plain one first.
fn forms() -> Vec<Form> {
    let mut all: Vec<Form> = vec![around(b"", b"")];
    for before in [
        &b"/"[..],
        b"//",
        b"/.",
        b"./",
        b"/./.",
        b"/..",
        b"/../..",
        b"..",
        b"../../../../../../..",
        b"/uplink/..",
        b"/uplink/./..",
        b"~",
        b"~/",
        b"file://",
        b"C:",
        b"C:\\",
        b"\\\\?\\C:\\",
        b"\\\\.\\",
        b"//server/share",
        b" ",
        b"\t",
        b"\n",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xae",
        b"%2e%2e",
        b"%252e%252e",
        b"..%2f",
        b"..\\",
        b"/proc/self/root",
        b"/proc/self/cwd",
        b"/dev/fd/3",
        b"$HOME",
        b"`pwd`",
        b"-",
    ] {
        all.push(around(before, b""));
    }
    for after in [
        &b"/"[..],
        b"//",
        b"/.",
        b"/..",
        b"/../",
        b".",
        b"..",
        b" ",
        b"\0",
        b"\0.txt",
        b"\xef\xbf\xbd",
        b"\xc0\x80",
        b"/con",
        b"/NUL",
        b"/aux.txt",
        b"/COM\xc2\xb9",
        b"::$DATA",
        b":stream",
        b"*",
        b"?",
        b"/*",
        b".part",
        b".new",
        b"~1",
        b"\r\n",
        b"%00",
        b"\x1b[2J",
        b"\xe2\x80\x8b",
        b"|id",
        b";id",
    ] {
        all.push(around(b"", after));
    }
    let overlong: [(&'static str, &'static [u8]); 17] = [
        ("/", b"//"),
        ("/", b"/./"),
        ("/", b"\\"),
        ("/", b"/\\"),
        ("/", b"%2f"),
        ("/", b"%5c"),
        ("/", b"\xc0\xaf"),
        ("/", b"\xe0\x80\xaf"),
        ("/", b"\xf0\x80\x80\xaf"),
        ("/", b"\xef\xbc\x8f"),
        ("..", b"%2e%2e"),
        ("..", b"\xc0\xae\xc0\xae"),
        ("..", b"\xe2\x80\xa4\xe2\x80\xa4"),
        ("..", b"..."),
        ("..", b".. "),
        ("..", b".\0."),
        ("-", HYPHEN.as_bytes()),
    ];
    all.extend(overlong.into_iter().map(|(from, to)| respelt(from, to)));
    all.push(Box::new(|path| path.to_uppercase().into_bytes()));
    all.push(Box::new(|path| path.trim_start_matches('/').as_bytes().to_vec()));
    all.push(Box::new(|path| format!("/{}{path}", "a/../".repeat(150)).into_bytes()));
    all.push(Box::new(|path| format!("/{}{path}", "a/".repeat(20)).into_bytes()));
    all.push(Box::new(|path| format!("/{}{path}", "a".repeat(300)).into_bytes()));
    all.push(Box::new(|path| format!("{}{path}", "/".repeat(4200)).into_bytes()));
    all.push(Box::new(|path| path.encode_utf16().flat_map(u16::to_le_bytes).collect()));
    all
}

/// Every path in every form, by whatever names it goes.
fn every_path(names: &Names) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    for form in forms() {
        all.extend(names.paths().iter().map(|path| form(path)));
    }
    all
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn frame(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&u32::try_from(body.len() + 5).unwrap().to_be_bytes()[..], &[kind, 0, 0, 0, 7], &body].concat()
}

/// Every operation on a path, and on the handles that it may have given; `mine` is a file that the peer may touch.
fn operations(path: &[u8], mine: &str) -> Vec<u8> {
    let (path, mine, none) = (text(path), text(mine.as_bytes()), [0; 4]);
    let attributes = [&[0, 0, 0, 0x0d][..], &[0; 8], &[0, 0, 1, 0xff], &[0; 8]].concat();
    let extended = |name: &str, rest: &[&[u8]]| frame(200, &[&text(name.as_bytes()), &rest.concat()]);
    let open = |flags: u32| frame(3, &[&path, &flags.to_be_bytes(), &none]);
    let check = [&text(b"sha256")[..], &[0; 16], &none].concat();
    let mut all = vec![[&[0, 0, 0, 5, 1][..], &[0, 0, 0, 3]].concat()];
    all.extend([7, 17, 16, 19, 11].map(|kind| frame(kind, &[&path])));
    all.extend([1, 2, 1 | 2].map(open));
    all.push(extended("check-file-name", &[&path, &check]));
    all.push(extended("check-file", &[&path, &check]));
    all.push(extended("statvfs@openssh.com", &[&path]));
    all.push(extended("home-directory", &[&path]));
    all.push(extended("expand-path@openssh.com", &[&path]));
    let handles = |all: &mut Vec<Vec<u8>>| {
        for handle in ["0", "1", "2"].map(|handle| text(handle.as_bytes())) {
            all.push(frame(5, &[&handle, &[0; 8], &[0, 0, 4, 0]]));
            all.push(frame(12, &[&handle]));
            all.push(frame(6, &[&handle, &[0; 8], &text(b"mine")]));
            all.push(extended("check-file-handle", &[&handle, &check]));
        }
    };
    handles(&mut all);
    all.push(frame(9, &[&path, &attributes]));
    all.push(extended("lsetstat@openssh.com", &[&path, &attributes]));
    all.push(frame(20, &[&path, &mine]));
    all.push(frame(20, &[&text(b"link"), &path]));
    all.push(extended("hardlink@openssh.com", &[&path, &text(b"/uplink/link")]));
    all.push(extended("hardlink@openssh.com", &[&mine, &path]));
    all.push(frame(18, &[&path, &mine]));
    all.push(frame(18, &[&mine, &path]));
    all.push(extended("posix-rename@openssh.com", &[&path, &mine]));
    all.push(frame(14, &[&path, &none]));
    all.extend([2 | 8 | 0x20, 2 | 8 | 0x10, 4 | 8].map(open));
    handles(&mut all);
    all.push(extended("copy-data", &[&text(b"0"), &[0; 8], &[0; 8], &text(b"1"), &[0; 8]]));
    all.extend(["0", "1", "2", "3", "4", "5"].map(|handle| frame(4, &[&text(handle.as_bytes())])));
    all.push(frame(13, &[&path]));
    all.push(frame(15, &[&path]));
    all.concat()
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for cased in [str::to_owned, str::to_uppercase] as [fn(&str) -> String; 2] {
        let (from, to) = (cased(from), cased(to));
        let mut at = 0;
        while let Some(rest) = out.get(at..at + from.len()) {
            if rest == from.as_bytes() {
                out.splice(at..at + from.len(), to.bytes());
            }
            at += 1;
        }
    }
    out
}

/// An answer once the names are the same, without the times of what the peer has made itself.
fn comparable(answer: &[u8], names: &Names) -> Vec<u8> {
    let mut bytes = answer.to_vec();
    for (from, to) in names.all().into_iter().zip(THEIRS.all()) {
        bytes = replaced(&bytes, from, to);
        // As one of the forms spells them.
        bytes = replaced(&bytes, &from.replace('-', HYPHEN), &to.replace('-', HYPHEN));
    }
    match bytes.get(4) {
        Some(104 | 105) => meanings(&bytes, usize::MAX).concat().into_bytes(),
        _ => bytes,
    }
}

/// Everything below a folder that does not begin with `but`.
fn snapshot(root: &Path, but: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
            if path == but {
                continue;
            }
            let content = if kind.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            all.insert(path.clone(), content);
            if kind.is_dir() {
                folders.push(path);
            }
        }
    }
    all
}

fn put(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A state folder with what is the peer's own and what is not.
struct World {
    state: TempDir,
    own: PathBuf,
    mine: String,
    view: Box<dyn Fn() -> Arc<dyn VirtualFs>>,
}

impl World {
    async fn answers(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let said = answers((self.view)(), Limits::default(), &operations(path, &self.mine), usize::MAX).await;
        // The first one is the version, which names its extensions in any order.
        said.into_iter().skip(1).map(|answer| answer.to_vec()).collect()
    }

    fn not_own(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        snapshot(self.state.path(), &self.own)
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH))
}

fn entropy() -> Arc<dyn Entropy> {
    Arc::new(SeededEntropy::new(1))
}

/// The relay as an agent of one of two tenants sees it.
async fn relay() -> World {
    let state = tempfile::tempdir().unwrap();
    let registry = Registry::in_memory(clock(), entropy()).await.unwrap();
    let scope = registry.create_tenant(&OWN.tenant.parse().unwrap(), None).await.unwrap().agent(OWN.agent.parse().unwrap());
    let spool = state.path().join("spool");
    for names in [OWN, THEIRS] {
        let agent = spool.join(names.tenant).join(names.agent);
        let content = if names.id == OWN.id { &b"own"[..] } else { SECRET };
        for room in ["uplink", "downlink", "packed"] {
            put(&agent.join(room).join(names.id).join(names.file), content);
        }
    }
    put(&state.path().join("registry.sqlite"), SECRET);
    let journal = Arc::new(MemoryJournal::new(Place::Relay, clock(), entropy()));
    let (total_bytes, tenant_bytes) = (1 << 30, 1 << 30);
    let limits = SpoolLimits { total_bytes, tenant_bytes, reserve_bytes: 0, open_transfers: 100, files_per_transfer: 1000 };
    let opened = Arc::new(Spool::open(disk_below(state.path()).unwrap(), state.path(), journal, limits).unwrap());
    World {
        own: spool.join(OWN.tenant).join(OWN.agent),
        mine: format!("/uplink/{}/{}", OWN.id, OWN.file),
        state,
        view: Box::new(move || Arc::new(AgentView::new(Arc::clone(&opened), scope.clone()))),
    }
}

/// A receiver's landing as the relay sees it; what is not the relay's is the rest of the state folder.
async fn landing() -> World {
    let state = tempfile::tempdir().unwrap();
    let own = state.path().join("landing");
    put(&own.join("uplink").join(OWN.agent).join(OWN.id).join(OWN.file), b"own");
    put(&own.join("downlink").join(OWN.agent).join(OWN.id).join(OWN.file), b"own");
    put(&state.path().join(THEIRS.tenant).join(THEIRS.agent).join("uplink").join(THEIRS.id).join(THEIRS.file), SECRET);
    put(&state.path().join(THEIRS.file), SECRET);
    put(&state.path().join("key"), SECRET);
    let limits = LandingLimits { reserve_bytes: 0, ..LandingLimits::default() };
    let landing =
        Arc::new(Landing::new(disk_below(state.path()).unwrap(), Layout::new(state.path()), limits, Arc::new(Notify::new())));
    landing.prepare().unwrap();
    World {
        own,
        mine: format!("/uplink/{}/{}/{}", OWN.agent, OWN.id, OWN.file),
        state,
        view: Box::new(move || Arc::new(LandingView::new(Arc::clone(&landing)))),
    }
}

async fn nothing_is_told_or_changed(theirs: World, nobodys: World) {
    let before = theirs.not_own();
    assert!(before.values().any(|content| content == SECRET));
    let (named, unnamed) = (every_path(&THEIRS), every_path(&NOBODY));
    assert_eq!((forms().len(), THEIRS.paths().len(), named.len(), unnamed.len()), (91, 11, 1_002, 1_002));
    for (named, unnamed) in named.iter().zip(&unnamed) {
        let shown = String::from_utf8_lossy(named);
        let (said, expected) = (theirs.answers(named).await, nobodys.answers(unnamed).await);
        assert_eq!(said.len(), expected.len(), "{shown}");
        for (at, (said, expected)) in said.iter().zip(&expected).enumerate() {
            assert!(!said.windows(SECRET.len()).any(|part| part == SECRET), "answer {at} tells what {shown} holds");
            let (said, expected) = (comparable(said, &THEIRS), comparable(expected, &NOBODY));
            assert!(
                said == expected,
                "answer {at} to {shown:?} tells that it exists: {} instead of {}",
                said.escape_ascii(),
                expected.escape_ascii()
            );
        }
    }
    assert_eq!(theirs.not_own(), before, "what is not the peer's own has changed");
    assert_eq!(nobodys.not_own().len(), before.len());
    let own = snapshot(&theirs.own, Path::new("/"));
    assert!(own.values().all(|content| content != SECRET));
}

#[tokio::test]
async fn an_agent_reaches_nothing_of_another_tenant() {
    nothing_is_told_or_changed(relay().await, relay().await).await;
}

#[tokio::test]
async fn a_relay_reaches_nothing_of_a_receiver_but_its_landing() {
    nothing_is_told_or_changed(landing().await, landing().await).await;
}

/// The names of what was planted.
#[cfg(unix)]
const PLANTED: &str = "01922c1e-8a4f-7d3a-9b5e-000000000009";

/// Puts links where the peer's own things would be, and asks for them in every way.
#[cfg(unix)]
async fn links_lead_nowhere(world: World, transfers: &Path, their_folder: &Path, paths: &[String]) {
    use std::os::unix::fs::symlink;
    symlink(their_folder, transfers.join(PLANTED)).unwrap();
    symlink(their_folder.join(THEIRS.file), transfers.join(OWN.id).join("link.bz2")).unwrap();
    symlink(their_folder, transfers.join(OWN.id).join("folder")).unwrap();
    let before = world.not_own();
    for path in paths {
        for (at, said) in world.answers(path.as_bytes()).await.iter().enumerate() {
            assert!(!said.windows(SECRET.len()).any(|part| part == SECRET), "answer {at} tells what {path} holds");
        }
        assert_eq!(world.not_own(), before, "{path}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn links_on_the_relays_disk_lead_nowhere() {
    let world = relay().await;
    let (transfers, theirs) = (
        world.own.join("uplink"),
        world.state.path().join("spool").join(THEIRS.tenant).join(THEIRS.agent).join("uplink").join(THEIRS.id),
    );
    let paths = [
        format!("/uplink/{PLANTED}"),
        format!("/uplink/{PLANTED}/{}", THEIRS.file),
        format!("/uplink/{PLANTED}/new"),
        format!("/uplink/{}/link.bz2", OWN.id),
        format!("/uplink/{}/folder/{}", OWN.id, THEIRS.file),
    ];
    links_lead_nowhere(world, &transfers, &theirs, &paths).await;
}

#[cfg(unix)]
#[tokio::test]
async fn links_on_the_landing_lead_nowhere() {
    let world = landing().await;
    let transfers = world.own.join("uplink").join(OWN.agent);
    let theirs = world.state.path().join(THEIRS.tenant).join(THEIRS.agent).join("uplink").join(THEIRS.id);
    let agent = OWN.agent;
    let paths = [
        format!("/uplink/{agent}/{PLANTED}"),
        format!("/uplink/{agent}/{PLANTED}/{}", THEIRS.file),
        format!("/uplink/{agent}/{PLANTED}/new"),
        format!("/uplink/{agent}/{}/link.bz2", OWN.id),
        format!("/uplink/{agent}/{}/folder/{}", OWN.id, THEIRS.file),
    ];
    links_lead_nowhere(world, &transfers, &theirs, &paths).await;
}

/// The peer's own transfer, which a second thread exchanges with a link to another's all the while; or a folder above it.
#[cfg(target_os = "linux")]
async fn nobody_gets_through_while_folders_change(world: World, exchanged: &Path, their_folder: &Path) {
    use std::{
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
    };
    const ROUNDS: usize = 60;
    let (aside, link) = (exchanged.with_file_name("aside"), exchanged.with_file_name("link"));
    symlink(their_folder, &link).unwrap();
    let before = snapshot(world.state.path(), &world.own);
    let over = Arc::new(AtomicBool::new(false));
    let (stop, ours) = (Arc::clone(&over), exchanged.to_owned());
    let exchanging = std::thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            fs::rename(&ours, &aside).unwrap();
            fs::rename(&link, &ours).unwrap();
            std::thread::yield_now();
            fs::rename(&ours, &link).unwrap();
            fs::rename(&aside, &ours).unwrap();
            std::thread::yield_now();
        }
    });
    let folder = world.mine.trim_end_matches(OWN.file);
    for _ in 0..ROUNDS {
        for name in [THEIRS.file, OWN.file, "new.part"] {
            for (at, said) in world.answers(format!("{folder}{name}").as_bytes()).await.iter().enumerate() {
                assert!(!said.windows(SECRET.len()).any(|part| part == SECRET), "answer {at} tells what {name} holds");
            }
        }
    }
    over.store(true, Ordering::SeqCst);
    exchanging.join().unwrap();
    assert_eq!(snapshot(world.state.path(), &world.own), before, "what is not the peer's own has changed");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn folders_that_become_links_on_the_relay_meanwhile_lead_nowhere() {
    for depth in ["uplink", "transfer"] {
        let world = relay().await;
        let theirs = world.state.path().join("spool").join(THEIRS.tenant).join(THEIRS.agent).join("uplink");
        // Under the link there is a transfer of the same name, as only somebody on this machine could make it.
        put(&theirs.join(OWN.id).join(THEIRS.file), SECRET);
        let uplink = world.own.join("uplink");
        let (exchanged, leads) = if depth == "uplink" { (uplink, theirs) } else { (uplink.join(OWN.id), theirs.join(OWN.id)) };
        nobody_gets_through_while_folders_change(world, &exchanged, &leads).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn folders_that_become_links_on_the_landing_meanwhile_lead_nowhere() {
    for depth in ["agent", "transfer"] {
        let world = landing().await;
        let theirs = world.state.path().join(THEIRS.tenant).join(THEIRS.agent).join("uplink");
        put(&theirs.join(OWN.id).join(THEIRS.file), SECRET);
        let agent = world.own.join("uplink").join(OWN.agent);
        let (exchanged, leads) = if depth == "agent" { (agent, theirs) } else { (agent.join(OWN.id), theirs.join(OWN.id)) };
        nobody_gets_through_while_folders_change(world, &exchanged, &leads).await;
    }
}

/// Rooms whose own folder is a link, and a file with a second name.
#[cfg(target_os = "linux")]
async fn planted_rooms_and_second_names_lead_nowhere(world: World, rooms: [PathBuf; 2], their_room: &Path, paths: &[String]) {
    use std::os::unix::fs::symlink;
    let second = world.state.path().join(THEIRS.file);
    put(&second, SECRET);
    put(&their_room.join(OWN.id).join(THEIRS.file), SECRET);
    fs::hard_link(&second, rooms[0].join(OWN.id).join("second.bz2")).unwrap();
    fs::hard_link(&second, rooms[0].join(OWN.id).join("second.bz2.part")).unwrap();
    for with_links in [false, true] {
        if with_links {
            for room in &rooms {
                fs::rename(room, room.with_file_name(format!("was-{}", room.file_name().unwrap().display()))).unwrap();
                symlink(their_room, room).unwrap();
            }
        }
        let before = world.not_own();
        for path in paths {
            for (at, said) in world.answers(path.as_bytes()).await.iter().enumerate() {
                assert!(!said.windows(SECRET.len()).any(|part| part == SECRET), "answer {at} tells what {path} holds");
            }
            assert_eq!(world.not_own(), before, "{path}");
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn rooms_that_are_links_and_second_names_on_the_relay_lead_nowhere() {
    let world = relay().await;
    let theirs = world.state.path().join("spool").join(THEIRS.tenant).join(THEIRS.agent).join("uplink");
    let rooms = ["uplink", "downlink"].map(|room| world.own.join(room));
    let paths: Vec<String> = ["uplink", "downlink"]
        .iter()
        .flat_map(|room| ["", "/second.bz2", "/second.bz2.part"].map(|name| format!("/{room}/{}{name}", OWN.id)))
        .chain(["/uplink".into(), "/downlink".into(), format!("/uplink/{}/{}", OWN.id, THEIRS.file)])
        .chain([format!("/downlink/{}/{}", OWN.id, THEIRS.file), format!("/uplink/{PLANTED}")])
        .collect();
    planted_rooms_and_second_names_lead_nowhere(world, rooms, &theirs, &paths).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn rooms_that_are_links_and_second_names_on_the_landing_lead_nowhere() {
    let world = landing().await;
    let theirs = world.state.path().join(THEIRS.tenant).join(THEIRS.agent).join("uplink");
    let rooms = ["uplink", "downlink"].map(|room| world.own.join(room).join(OWN.agent));
    let paths: Vec<String> = ["uplink", "downlink"]
        .iter()
        .flat_map(|room| {
            let agent = format!("/{room}/{}", OWN.agent);
            let transfer = format!("{agent}/{}", OWN.id);
            let names = ["second.bz2", "second.bz2.part", THEIRS.file].map(|name| format!("{transfer}/{name}"));
            [vec![agent.clone(), transfer.clone(), format!("{agent}/{PLANTED}")], names.to_vec()].concat()
        })
        .collect();
    planted_rooms_and_second_names_lead_nowhere(world, rooms, &theirs, &paths).await;
}
