use std::time::Duration;

use bytes::Bytes;
use towpath_transfer::{
    RemotePath, Stage, TransferId,
    api::Role,
    packed::PART_SUFFIX,
    receipt::{ReceiptStage, SignedReceipt},
};
use towpath_transport::{
    files::FileStore as _,
    server::{FsError, Lack, OpenOptions, Replace, SetAttributes, VirtualFile, VirtualFs as _},
};

use super::*;
use crate::service::tests::{Enrolled, Sent, WRITE, World, path, put, small_limits};

const NONE: SetAttributes = SetAttributes { size: None, owner: None, mode: None, times: None };
const READ: OpenOptions =
    OpenOptions { read: true, write: false, append: false, create: false, truncate: false, exclusive: false };
const RESUME: OpenOptions = OpenOptions { truncate: false, ..WRITE };

struct Fixture {
    world: World,
    agent: Enrolled,
    view: AgentView,
    id: TransferId,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(small_limits()).await
    }

    async fn with(limits: SpoolLimits) -> Self {
        let world = World::with(limits).await;
        let agent = world.enrol("acme", Role::Agent).await;
        let (view, id) = (world.view(&agent), world.id());
        view.make_dir(&path(id, ""), &NONE).await.unwrap();
        Self { world, agent, view, id }
    }

    async fn open(&self, name: &str, options: OpenOptions) -> Result<Box<dyn VirtualFile>, FsError> {
        self.view.open(&path(self.id, name), options, &NONE).await
    }

    async fn size(&self, name: &str) -> Result<u64, FsError> {
        self.view.stat(&path(self.id, name)).await.map(|found| found.size)
    }

    async fn names(&self, dir: &str) -> Vec<String> {
        let mut listing = self.view.list(&at(dir)).await.unwrap();
        let mut names = Vec::new();
        loop {
            let page = listing.next_page(2).await.unwrap();
            if page.is_empty() {
                return names;
            }
            names.extend(page.into_iter().map(|entry| entry.name));
        }
    }

    fn used(&self) -> u64 {
        self.world.relay.spool().quota().used()
    }
}

fn at(text: &str) -> RemotePath {
    RemotePath::parse(text.as_bytes()).unwrap()
}

fn bytes(count: usize) -> Bytes {
    Bytes::from(vec![7; count])
}

#[tokio::test]
async fn a_name_is_hidden_until_close_and_gone_without_it() {
    let fixture = Fixture::new().await;
    let mut file = fixture.open("a.csv.bz2", WRITE).await.unwrap();
    file.write_at(0, bytes(10)).await.unwrap();
    assert_eq!(fixture.size("a.csv.bz2").await, Err(FsError::NotFound));
    assert!(fixture.names(&format!("/uplink/{}", fixture.id)).await.is_empty());
    file.close().await.unwrap();
    assert_eq!(fixture.size("a.csv.bz2").await, Ok(10));

    let mut replacement = fixture.open("a.csv.bz2", WRITE).await.unwrap();
    replacement.write_at(0, bytes(3)).await.unwrap();
    assert_eq!(fixture.size("a.csv.bz2").await, Ok(10), "the old one stays until then");
    replacement.abandon().await;
    assert_eq!(fixture.size("a.csv.bz2").await, Ok(10));
    put(&fixture.view, fixture.id, "a.csv.bz2", &[1; 3]).await.unwrap();
    assert_eq!((fixture.size("a.csv.bz2").await, fixture.used()), (Ok(3), 3));
    let read = fixture.open("a.csv.bz2", READ).await.unwrap().read_at(1, 100).await.unwrap();
    assert_eq!(read.as_ref(), [1, 1]);
}

#[tokio::test]
async fn a_part_stays_at_its_length_and_is_renamed_durably() {
    let fixture = Fixture::new().await;
    let part = format!("a.csv.bz2{PART_SUFFIX}");
    let mut file = fixture.open(&part, WRITE).await.unwrap();
    file.write_at(0, bytes(10)).await.unwrap();
    file.abandon().await;
    assert_eq!(fixture.size(&part).await, Ok(10));
    let mut file = fixture.open(&part, RESUME).await.unwrap();
    file.write_at(10, bytes(5)).await.unwrap();
    file.close().await.unwrap();
    let (from, to) = (path(fixture.id, &part), path(fixture.id, "a.csv.bz2"));
    fixture.view.rename(&from, &to, Replace::Refuse).await.unwrap();
    fixture.world.files.power_loss();
    assert_eq!((fixture.size("a.csv.bz2").await, fixture.size(&part).await), (Ok(15), Err(FsError::NotFound)));
    put(&fixture.view, fixture.id, &part, &[1; 4]).await.unwrap();
    assert_eq!(fixture.view.rename(&from, &to, Replace::Refuse).await, Err(FsError::Exists));
    fixture.view.rename(&from, &to, Replace::Allow).await.unwrap();
    assert_eq!((fixture.size("a.csv.bz2").await, fixture.used()), (Ok(4), 4));
}

#[tokio::test]
async fn the_last_to_open_a_file_writes_it() {
    let fixture = Fixture::new().await;
    for name in ["a.csv.bz2", "a.csv.bz2.part"] {
        let mut first = fixture.open(name, WRITE).await.unwrap();
        first.write_at(0, bytes(10)).await.unwrap();
        let mut second = fixture.open(name, WRITE).await.unwrap();
        assert!(matches!(first.write_at(10, bytes(1)).await, Err(FsError::Failure(_))));
        second.write_at(0, bytes(2)).await.unwrap();
        assert!(first.close().await.is_err());
        second.close().await.unwrap();
        assert_eq!(fixture.size(name).await, Ok(2));
    }
    let mut open = fixture.open("b.part", WRITE).await.unwrap();
    open.write_at(0, bytes(1)).await.unwrap();
    fixture.view.rename(&path(fixture.id, "b.part"), &path(fixture.id, "b"), Replace::Refuse).await.unwrap();
    assert!(open.write_at(1, bytes(1)).await.is_err(), "a renamed file is not changed through an old handle");
    assert_eq!(fixture.used(), 5);
}

#[tokio::test]
async fn complete_freezes_open_handles_too() {
    let fixture = Fixture::new().await;
    let (world, agent) = (&fixture.world, &fixture.agent);
    let sent = Sent::new(world, agent, 1);
    sent.push(world, agent).await;
    let mut part = fixture.view.open(&path(sent.id, "x.part"), WRITE, &NONE).await.unwrap();
    let mut hidden = fixture.view.open(&path(sent.id, "items.csv.bz2"), WRITE, &NONE).await.unwrap();
    part.write_at(0, bytes(1)).await.unwrap();
    hidden.write_at(0, bytes(1)).await.unwrap();
    world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    assert_eq!(part.write_at(1, bytes(1)).await, Err(FsError::Denied));
    assert_eq!(hidden.write_at(1, bytes(1)).await, Err(FsError::Denied));
    assert_eq!(hidden.close().await, Err(FsError::Denied));
    let (file, view) = (path(sent.id, "items.csv.bz2"), &fixture.view);
    assert_eq!(view.stat(&file).await.unwrap().size, 12, "what was complete stays as it was");
    assert_eq!(view.open(&file, RESUME, &NONE).await.err(), Some(FsError::Denied));
    assert_eq!(view.remove(&file).await, Err(FsError::Denied));
    assert_eq!(view.rename(&file, &path(sent.id, "other"), Replace::Allow).await, Err(FsError::Denied));
    assert_eq!(view.remove_dir(&path(sent.id, "")).await, Err(FsError::Denied));
    view.set_attributes(&file, &NONE, true).await.unwrap();
    assert!(matches!(world.work(Stage::Accept).await.remove(0), Ok(towpath_journal::StepOutcome::Event(_))));
}

#[tokio::test]
async fn only_what_belongs_here_exists() {
    let fixture = Fixture::new().await;
    let other = fixture.world.enrol("other", Role::Agent).await;
    let sent = Sent::new(&fixture.world, &other, 1);
    sent.push(&fixture.world, &other).await;
    let theirs = sent.id;
    let mine = fixture.id;
    for text in [
        format!("/uplink/{theirs}"),
        format!("/uplink/{theirs}/manifest.json"),
        format!("/uplink/{mine}/.manifest.json.new"),
        format!("/uplink/{mine}/.health"),
        format!("/uplink/{mine}/a/b"),
        format!("/downlink/{mine}"),
        "/uplink/x".to_owned(),
        "/uplink/550e8400-e29b-41d4-a716-446655440000".to_owned(),
        "/spool".to_owned(),
        "/other/agent/uplink".to_owned(),
        "/registry.sqlite".to_owned(),
    ] {
        let (view, found) = (&fixture.view, at(&text));
        assert_eq!(view.stat(&found).await, Err(FsError::NotFound), "{text}");
        assert_eq!(view.open(&found, READ, &NONE).await.err(), Some(FsError::NotFound), "{text}");
        assert_eq!(view.list(&found).await.err(), Some(FsError::NotFound), "{text}");
        assert_eq!(view.remove(&found).await, Err(FsError::NotFound), "{text}");
        assert_eq!(view.remove_dir(&found).await, Err(FsError::NotFound), "{text}");
        assert_eq!(view.rename(&found, &path(mine, "x"), Replace::Allow).await, Err(FsError::NotFound), "{text}");
        assert_eq!(view.set_attributes(&found, &NONE, true).await, Err(FsError::NotFound), "{text}");
        if text != format!("/uplink/{theirs}") {
            assert_eq!(view.open(&found, WRITE, &NONE).await.err(), Some(FsError::NotFound), "{text}");
            assert_eq!(view.make_dir(&found, &NONE).await, Err(FsError::NotFound), "{text}");
        }
    }
    assert_eq!(fixture.names("/").await, ["downlink", "uplink"]);
    assert_eq!(fixture.names("/uplink").await, [mine.to_string()]);
    assert!(fixture.names("/downlink").await.is_empty());
    for text in ["/", "/uplink", "/downlink"] {
        assert_eq!(fixture.view.make_dir(&at(text), &NONE).await, Err(FsError::Exists));
        assert_eq!(fixture.view.remove_dir(&at(text)).await, Err(FsError::Denied));
        assert_eq!(fixture.view.open(&at(text), WRITE, &NONE).await.err(), Some(FsError::Denied));
    }
    assert_eq!(fixture.view.make_dir(&path(mine, ""), &NONE).await, Err(FsError::Exists));
}

#[tokio::test]
async fn a_full_spool_a_full_tenant_and_a_full_disk_refuse_and_recover() {
    let limits = SpoolLimits { total_bytes: 100, tenant_bytes: 60, reserve_bytes: 0, ..small_limits() };
    let fixture = Fixture::with(limits).await;
    put(&fixture.view, fixture.id, "a", &[0; 50]).await.unwrap();
    assert_eq!(put(&fixture.view, fixture.id, "b", &[0; 20]).await, Err(FsError::Full(Lack::Quota)), "the tenant's share");
    assert_eq!(fixture.used(), 50);
    let other = fixture.world.enrol("other", Role::Agent).await;
    let (view, id) = (fixture.world.view(&other), fixture.world.id());
    view.make_dir(&path(id, ""), &NONE).await.unwrap();
    assert_eq!(put(&view, id, "a", &[0; 55]).await, Err(FsError::Full(Lack::Spool)), "the whole spool");
    put(&view, id, "a", &[0; 45]).await.unwrap();
    fixture.view.remove(&path(fixture.id, "a")).await.unwrap();
    put(&fixture.view, fixture.id, "b", &[0; 20]).await.unwrap();
    assert_eq!(fixture.used(), 65);
    // A hole counts like bytes: a peer must not get room by writing far out.
    let mut far = fixture.open("c.part", WRITE).await.unwrap();
    assert_eq!(far.write_at(1 << 40, bytes(1)).await, Err(FsError::Full(Lack::Quota)));
}

#[tokio::test]
async fn below_the_reserve_new_files_are_refused_first() {
    let limits = SpoolLimits { reserve_bytes: 1000, ..small_limits() };
    let fixture = Fixture::with(limits).await;
    put(&fixture.view, fixture.id, "a", &[0; 10]).await.unwrap();
    fixture.world.files.set_space(Some(900));
    let spool = Arc::clone(fixture.world.relay.spool());
    assert_eq!(spool.health().unwrap_err().code(), Code::DiskFull);
    let mut refused = false;
    for n in 0..200 {
        // The disk is asked again after some megabytes, or at once when it was found full.
        let name = format!("f{}.part", n % 4);
        refused |= put(&fixture.view, fixture.id, &name, &[0; 40_000]).await == Err(FsError::Full(Lack::Reserve));
    }
    assert!(refused);
    fixture.world.files.set_space(None);
    put(&fixture.view, fixture.id, "b", &[0; 10]).await.unwrap();
}

#[tokio::test]
async fn transfers_and_files_are_counted() {
    let fixture = Fixture::new().await;
    let (a, b, c) = (fixture.world.id(), fixture.world.id(), fixture.world.id());
    fixture.view.make_dir(&path(a, ""), &NONE).await.unwrap();
    fixture.view.make_dir(&path(b, ""), &NONE).await.unwrap();
    assert!(matches!(fixture.view.make_dir(&path(c, ""), &NONE).await, Err(FsError::Failure(_))), "three are open");
    fixture.view.remove_dir(&path(a, "")).await.unwrap();
    fixture.view.make_dir(&path(c, ""), &NONE).await.unwrap();
    for n in 0..8 {
        put(&fixture.view, fixture.id, &format!("f{n}"), b"x").await.unwrap();
    }
    assert!(matches!(put(&fixture.view, fixture.id, "f8", b"x").await, Err(FsError::Failure(_))));
    put(&fixture.view, fixture.id, "f7", b"y").await.unwrap();
    fixture.view.remove(&path(fixture.id, "f0")).await.unwrap();
    put(&fixture.view, fixture.id, "f8", b"x").await.unwrap();
    assert!(matches!(fixture.view.remove_dir(&path(fixture.id, "")).await, Err(FsError::Failure(_))), "not empty");
}

#[tokio::test]
async fn a_restart_counts_what_is_there_and_drops_what_was_unfinished() {
    let fixture = Fixture::new().await;
    put(&fixture.view, fixture.id, "a", &[0; 30]).await.unwrap();
    let mut part = fixture.open("b.part", WRITE).await.unwrap();
    part.write_at(0, bytes(12)).await.unwrap();
    let mut hidden = fixture.open("c", WRITE).await.unwrap();
    hidden.write_at(0, bytes(9)).await.unwrap();
    assert_eq!(fixture.used(), 51);
    std::mem::forget((part, hidden));
    let files: Arc<dyn FileStore> = Arc::new(fixture.world.files.clone());
    let again = Spool::open(files, "/state".as_ref(), fixture.world.journal.clone(), small_limits()).unwrap();
    assert_eq!(again.quota().used(), 42);
    let scope = fixture.agent.caller.as_agent().unwrap();
    assert_eq!(again.quota().used_by(scope.tenant()), 42);
    let left = fixture.world.files.list(&again.folder(Room::Uplink, &scope, fixture.id), None, 10).unwrap();
    assert_eq!(left.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["a", "b.part"]);
}

#[tokio::test]
async fn exclusive_and_missing_are_told_apart() {
    let fixture = Fixture::new().await;
    put(&fixture.view, fixture.id, "a", b"x").await.unwrap();
    let exclusive = OpenOptions { exclusive: true, ..WRITE };
    assert_eq!(fixture.open("a", exclusive).await.err(), Some(FsError::Exists));
    let no_create = OpenOptions { create: false, ..WRITE };
    assert_eq!(fixture.open("b", no_create).await.err(), Some(FsError::NotFound));
    let elsewhere = path(fixture.world.id(), "a");
    assert_eq!(fixture.view.open(&elsewhere, WRITE, &NONE).await.err(), Some(FsError::NotFound), "no folder was made");
    let mut append = fixture.open("a", OpenOptions { append: true, ..RESUME }).await.unwrap();
    append.write_at(0, Bytes::from_static(b"yz")).await.unwrap();
    append.close().await.unwrap();
    let read = fixture.open("a", READ).await.unwrap().read_at(0, 10).await.unwrap();
    assert_eq!(read.as_ref(), b"xyz");
    fixture.world.clock.advance(Duration::from_secs(1));
}

#[tokio::test]
async fn a_receipt_that_is_found_is_durable_from_then_on() {
    let fixture = Fixture::new().await;
    let (spool, files, id) = (fixture.world.relay.spool(), &fixture.world.files, fixture.id);
    let scope = fixture.agent.caller.as_agent().unwrap();
    let signed = SignedReceipt { receipt: "{}".to_owned(), signature: "s".to_owned() };
    spool.keep_receipt(&scope, id, ReceiptStage::Accepted, &signed).unwrap();
    let folder = spool.receipts.join(scope.tenant().tenant().as_str()).join(scope.agent().as_str()).join(id.to_string());
    let (name, temp) = (folder.join("accepted.json"), folder.join("temp"));
    files.rename(&name, &temp).unwrap();
    files.sync_dir(&folder).unwrap();
    // Stopped between the rename and the sync of the folder.
    files.rename(&temp, &name).unwrap();
    spool.hold_receipt(&scope, id, ReceiptStage::Accepted).unwrap();
    files.power_loss();
    assert_eq!(spool.receipt(&scope, id, ReceiptStage::Accepted).unwrap(), Some(signed));
}
