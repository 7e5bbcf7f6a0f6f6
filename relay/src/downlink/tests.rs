//! The way of a downlink through the relay, what can go wrong with it, and every stage stopped dead and gone on with.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::task::JoinHandle;
use towpath_journal::{Journal as _, NoFailPoints, Point, StepOutcome};
use towpath_keys::Namespace;
use towpath_transfer::{
    Clock as _, Code, Direction, Disposition, RemotePath, Sequence, Stage, TransferEvent, TransferId, TransferKey, TransferState,
    api::{Acknowledgement, Complete, DownlinkState, Downlinks, Export, Role},
    codec::Unpacker,
    digest::{FileHasher, Sha256Digest},
    failure::Result,
    manifest::{Content, FileEntry, Manifest},
    packed::PackedList,
    receipt::{Receipt, ReceiptStage, SignedReceipt},
    state::{Announced, Outcome, Rejection},
};
use towpath_transport::{
    files::{FileStore as _, write_whole},
    server::{FsError, OpenOptions, Replace, SetAttributes, VirtualFs as _},
};

use super::*;
use crate::{
    downlink::alarm::{Alarm, WARN_AGAIN},
    registry::TenantLimits,
    service::tests::{DAY, Enrolled, WRITE, World, code_of, small_limits},
    settle::stage_of,
    spool::{Room, SpoolLimits},
};

mod room;

const READ: OpenOptions =
    OpenOptions { read: true, write: false, append: false, create: false, truncate: false, exclusive: false };

/// Long enough that a test would hang rather than pass where a hint is missing: nobody moves the clock.
const WAIT: Duration = Duration::from_secs(55);

/// What a receiver has laid out, and told of.
struct Laid {
    id: TransferId,
    key: TransferKey,
    plain: Vec<(&'static str, Vec<u8>)>,
    manifest: Vec<u8>,
    export: Export,
}

struct Way {
    world: World,
    agent: Enrolled,
    receiver: Enrolled,
    laid: Laid,
}

fn plain() -> Vec<(&'static str, Vec<u8>)> {
    let orders: Vec<u8> = (0..6_000u32).flat_map(|n| format!("{n},{}\r\n", n * 7 % 13).into_bytes()).collect();
    // The second is named as the first is when it is packed.
    vec![("orders.csv", orders), ("orders.csv.bz2", b"not packed at all".to_vec()), ("empty.txt", Vec::new())]
}

impl Laid {
    fn new(world: &World, receiver: &Enrolled, agent: &Enrolled, sequence: u64) -> Self {
        Self::of(world, receiver, agent, sequence, |_| {})
    }

    fn of(world: &World, receiver: &Enrolled, agent: &Enrolled, sequence: u64, change: impl FnOnce(&mut Manifest)) -> Self {
        Self::with(world, receiver, agent, sequence, plain(), change)
    }

    fn with(
        world: &World,
        receiver: &Enrolled,
        agent: &Enrolled,
        sequence: u64,
        plain: Vec<(&'static str, Vec<u8>)>,
        change: impl FnOnce(&mut Manifest),
    ) -> Self {
        let id = world.id();
        let file = |(name, bytes): &(&str, Vec<u8>)| {
            let mut hasher = FileHasher::new();
            hasher.update(bytes);
            let digests = hasher.finish();
            FileEntry {
                name: name.parse().unwrap(),
                media_type: "text/csv".into(),
                size: digests.size,
                md5: digests.md5,
                sha256: digests.sha256,
                unchanged: false,
                base: None,
                content: Content::File,
            }
        };
        let mut manifest = Manifest {
            version: 1,
            transfer: id,
            direction: Direction::Downlink,
            tenant: agent.caller.scope().tenant().clone(),
            agent: agent.caller.name().clone(),
            job: "main".parse().unwrap(),
            kind: Some("recommended-orders".parse().unwrap()),
            created: Timestamp::UNIX_EPOCH,
            sequence: Sequence(sequence),
            snapshot: None,
            files: plain.iter().map(file).collect(),
        };
        change(&mut manifest);
        let bytes = manifest.to_bytes().unwrap();
        let path = format!("/downlink/{}/{id}/manifest.json", agent.caller.name()).parse().unwrap();
        let announced = Announced { path, size: bytes.len() as u64, manifest: Sha256Digest::of(&bytes) };
        let export = Export { transfer: id, agent: agent.caller.name().clone(), sequence: Sequence(sequence), announced };
        let laid = Self { id, key: agent.caller.as_agent().unwrap().key(id), plain, manifest: bytes, export };
        laid.lay_out(world, receiver);
        laid
    }

    fn put(&self, world: &World, name: &str, bytes: &[u8]) {
        let folder = format!("/app/{}/landing/downlink/{}/{}", self.key.tenant, self.key.agent, self.id);
        world.app_files().create_dir_all(folder.as_ref()).unwrap();
        write_whole(world.app_files(), format!("{folder}/{name}").as_ref(), bytes).unwrap();
    }

    fn lay_out(&self, world: &World, signer: &Enrolled) {
        for (name, bytes) in &self.plain {
            self.put(world, name, bytes);
        }
        let signature = signer.identity.sign(Namespace::Manifest, &self.manifest).unwrap();
        self.put(world, "manifest.json.sig", signature.as_bytes());
        self.put(world, "manifest.json", &self.manifest);
    }

    fn receipt(&self, signer: &Enrolled, outcome: &Outcome, change: impl FnOnce(&mut Receipt)) -> Acknowledgement {
        let reason = match outcome {
            Outcome::Rejected(reason) => Some(reason.clone()),
            _ => None,
        };
        let mut receipt = Receipt {
            version: 1,
            transfer: self.id,
            tenant: self.key.tenant.clone(),
            agent: self.key.agent.clone(),
            direction: Direction::Downlink,
            stage: stage_of(outcome),
            manifest: Some(self.export.announced.manifest),
            rows: Vec::new(),
            reason,
            time: Timestamp::UNIX_EPOCH,
            signer: signer.identity.fingerprint(),
        };
        change(&mut receipt);
        let bytes = receipt.to_bytes().unwrap();
        let signature = signer.identity.sign(Namespace::Receipt, &bytes).unwrap();
        Acknowledgement { signed: SignedReceipt { receipt: String::from_utf8(bytes).unwrap(), signature } }
    }
}

fn down(id: TransferId, name: &str) -> RemotePath {
    RemotePath::parse(format!("/downlink/{id}/{name}").as_bytes()).unwrap()
}

impl Way {
    async fn new() -> Self {
        Self::with(small_limits()).await
    }

    async fn with(limits: SpoolLimits) -> Self {
        let world = World::with(limits).await;
        let (agent, receiver) = (world.enrol("acme", Role::Agent).await, world.enrol("acme", Role::Receiver).await);
        let laid = Laid::new(&world, &receiver, &agent, 1);
        Self { world, agent, receiver, laid }
    }

    async fn announced() -> Self {
        let way = Self::new().await;
        way.announce().await;
        way
    }

    async fn queued() -> Self {
        let way = Self::announced().await;
        for stage in [Stage::Fetch, Stage::Pack, Stage::Queue] {
            assert!(matches!(way.world.work(stage).await[..], [Ok(StepOutcome::Event(_))]), "{stage}");
        }
        way
    }

    async fn announce(&self) {
        self.world.service().export(&self.receiver.caller, &self.laid.export).await.unwrap();
    }

    async fn state(&self) -> (DownlinkState, Option<(Code, bool)>) {
        let status = self.world.service().export_status(&self.receiver.caller, self.agent.caller.name(), self.laid.id);
        let status = status.await.unwrap();
        (status.state, status.trouble.map(|trouble| (trouble.code, trouble.parked)))
    }

    async fn receipts(&self) -> Vec<SignedReceipt> {
        let status = self.world.service().export_status(&self.receiver.caller, self.agent.caller.name(), self.laid.id);
        status.await.unwrap().receipts
    }

    async fn list(&self) -> Downlinks {
        self.world.service().downlinks(&self.agent.caller, Duration::ZERO, None).await.unwrap()
    }

    async fn read(&self, name: &str) -> Result<Bytes, FsError> {
        let mut file = self.world.view(&self.agent).open(&down(self.laid.id, name), READ, &SetAttributes::default()).await?;
        file.read_at(0, 1 << 20).await
    }

    /// A long poll of `end` that has begun to wait.
    async fn poll(&self, end: &Enrolled, wait: Duration) -> (JoinHandle<Result<Downlinks>>,) {
        let (service, caller) = (self.world.service().clone(), end.caller.clone());
        let (arrivals, scope) = (service.arrivals().clone(), caller.as_agent().unwrap());
        let poll = tokio::spawn(async move { service.downlinks(&caller, wait, None).await });
        while arrivals.polls(&scope) == 0 {
            tokio::task::yield_now().await;
        }
        (poll,)
    }

    /// Everything an agent checks: the digests of the offer, the list, the packed and the plain bytes.
    async fn assert_taken(&self) {
        let list = self.list().await;
        let [offer] = list.downlinks.as_slice() else { panic!("{list:?}") };
        assert_eq!((offer.transfer, offer.sequence), (self.laid.id, self.laid.export.sequence));
        let (manifest, packed) = (self.read("manifest.json").await.unwrap(), self.read("packed.json").await.unwrap());
        assert_eq!(manifest.as_ref(), self.laid.manifest);
        assert_eq!(offer.identity.manifest, Sha256Digest::of(&manifest));
        assert_eq!(offer.identity.packed, Sha256Digest::of(&packed));
        let signature = self.read("manifest.json.sig").await.unwrap();
        let key = self.receiver.identity.public_key();
        towpath_keys::verify(&signature, Namespace::Manifest, &manifest, key).unwrap();
        let (manifest, list) = (Manifest::parse(&manifest).unwrap(), PackedList::parse(&packed).unwrap());
        list.check_against(&manifest, offer.identity.manifest).unwrap();
        for (file, (name, plain)) in list.files.iter().zip(&self.laid.plain) {
            let bytes = if file.size == 0 { Bytes::new() } else { self.read(file.name.as_str()).await.unwrap() };
            assert_eq!((bytes.len() as u64, Sha256Digest::of(&bytes)), (file.size, file.sha256), "{name}");
            let mut unpacked = Vec::new();
            std::io::Read::read_to_end(&mut Unpacker::new(bytes.as_ref(), 1 << 20), &mut unpacked).unwrap();
            assert_eq!(&unpacked, plain, "{name}");
        }
        let sums = String::from_utf8(self.read("MD5SUMS").await.unwrap().to_vec()).unwrap();
        assert_eq!(sums.lines().count(), self.laid.plain.len());
    }

    /// That the spool counts exactly what lies in it.
    fn assert_counted(&self) {
        let used = self.world.relay.spool().quota().used();
        let files: Arc<dyn towpath_transport::files::FileStore> = Arc::new(self.world.files.clone());
        let again = crate::spool::Spool::open(files, "/state".as_ref(), self.world.journal.clone(), small_limits()).unwrap();
        assert_eq!(used, again.quota().used());
    }

    fn used(&self) -> u64 {
        self.world.relay.spool().quota().used()
    }

    async fn events(&self) -> Vec<TransferEvent> {
        self.world.journal.history(&self.laid.key).await.unwrap().entries.into_iter().map(|entry| entry.event).collect()
    }
}

#[tokio::test]
async fn a_downlink_goes_all_the_way_and_its_receipts_come_back() {
    let way = Way::announced().await;
    let (world, id, service) = (&way.world, way.laid.id, way.world.service());
    assert_eq!(way.state().await, (DownlinkState::Announced, None));
    world.work(Stage::Fetch).await;
    assert_eq!(way.state().await, (DownlinkState::Fetched, None));
    way.assert_counted();
    world.work(Stage::Pack).await;
    assert_eq!(way.state().await, (DownlinkState::Packed, None));
    assert!(way.list().await.downlinks.is_empty());
    assert_eq!(world.view(&way.agent).stat(&down(id, "")).await, Err(FsError::NotFound), "not before it is queued");
    way.assert_counted();
    world.work(Stage::Queue).await;
    assert_eq!(way.state().await, (DownlinkState::Queued, None));
    way.assert_taken().await;
    way.assert_counted();
    let accepted = way.receipts().await;
    let [receipt] = accepted.as_slice() else { panic!("{accepted:?}") };
    let key = world.receipt_key().public_key();
    towpath_keys::verify(receipt.signature.as_bytes(), Namespace::Receipt, receipt.receipt.as_bytes(), key).unwrap();
    let said = receipt.parse().unwrap();
    assert_eq!((said.direction, said.stage), (Direction::Downlink, ReceiptStage::Accepted));
    assert_eq!(said.manifest, Some(way.laid.export.announced.manifest));

    let delivered = way.laid.receipt(&way.agent, &Outcome::Delivered, |_| {});
    service.acknowledge(&way.agent.caller, id, &delivered).await.unwrap();
    assert_eq!(way.state().await, (DownlinkState::Delivered, None));
    assert_eq!(way.receipts().await, [receipt.clone(), delivered.signed.clone()]);
    assert!(way.list().await.downlinks.is_empty());
    assert!(matches!(world.work(Stage::Remove).await[..], [Ok(StepOutcome::Wait(_))]), "the files stay for a week");
    world.clock.advance(DAY * 7);
    world.work(Stage::Remove).await;
    assert_eq!(world.view(&way.agent).stat(&down(id, "")).await, Err(FsError::NotFound));
    assert_eq!(way.used(), 0);
    service.acknowledge(&way.agent.caller, id, &delivered).await.unwrap();
    assert_eq!(way.receipts().await.len(), 2, "the receipts stay");
    assert_eq!(service.export(&way.receiver.caller, &way.laid.export).await.unwrap().state, DownlinkState::Delivered);
}

/// A try whose disk failed after the rename has left the name all the same, and the next one finds everything packed.
#[tokio::test]
async fn what_is_queued_is_durable() {
    let way = Way::announced().await;
    way.world.work(Stage::Fetch).await;
    way.world.work(Stage::Pack).await;
    let (files, scope) = (&way.world.files, way.agent.caller.as_agent().unwrap());
    let folder = way.world.relay.spool().folder(Room::Packed, &scope, way.laid.id);
    let (whole, part) = (folder.join("packed.json"), folder.join("packed.json.part"));
    files.rename(&whole, &part).unwrap();
    files.sync_dir(&folder).unwrap();
    files.rename(&part, &whole).unwrap();
    way.world.work(Stage::Queue).await;
    files.power_loss();
    way.assert_taken().await;
}

#[tokio::test]
async fn an_agent_reads_what_is_queued_and_changes_nothing() {
    let way = Way::queued().await;
    let (view, id, none) = (way.world.view(&way.agent), way.laid.id, SetAttributes::default());
    let mut names = Vec::new();
    let mut listing = view.list(&down(id, "")).await.unwrap();
    while let Some(page) = Some(listing.next_page(100).await.unwrap()).filter(|page| !page.is_empty()) {
        names.extend(page.into_iter().map(|entry| entry.name));
    }
    names.sort();
    let expected =
        ["MD5SUMS", "empty.txt.bz2", "manifest.json", "manifest.json.sig", "orders.csv.bz2", "orders.csv.bz2.bz2", "packed.json"];
    assert_eq!(names, expected);
    for name in ["manifest.json", "new.csv"] {
        assert_eq!(view.open(&down(id, name), WRITE, &none).await.err(), Some(FsError::Denied), "{name}");
    }
    assert_eq!(view.remove(&down(id, "manifest.json")).await, Err(FsError::Denied));
    assert_eq!(view.remove_dir(&down(id, "")).await, Err(FsError::Denied));
    assert_eq!(view.make_dir(&down(id, ""), &none).await, Err(FsError::Exists));
    assert_eq!(view.make_dir(&down(way.world.id(), ""), &none).await, Err(FsError::NotFound));
    assert_eq!(view.open(&down(way.world.id(), "new.csv"), WRITE, &none).await.err(), Some(FsError::NotFound));
    let renamed = view.rename(&down(id, "manifest.json"), &down(id, "other"), Replace::Allow).await;
    assert_eq!(renamed, Err(FsError::Denied));
    let up = RemotePath::parse(format!("/uplink/{id}/manifest.json").as_bytes()).unwrap();
    assert_eq!(view.rename(&down(id, "manifest.json"), &up, Replace::Allow).await, Err(FsError::Denied));
    for hidden in ["fetched", "packed"] {
        let path = RemotePath::parse(format!("/{hidden}/{id}").as_bytes()).unwrap();
        assert_eq!(view.stat(&path).await, Err(FsError::NotFound));
    }
    let other = way.world.enrol("other", Role::Agent).await;
    assert_eq!(way.world.view(&other).stat(&down(id, "manifest.json")).await, Err(FsError::NotFound));
    way.assert_taken().await;
}

#[tokio::test]
async fn every_message_may_come_ten_times() {
    let way = Way::new().await;
    let service = way.world.service();
    for _ in 0..10 {
        way.announce().await;
    }
    for stage in [Stage::Fetch, Stage::Pack, Stage::Queue] {
        way.world.work(stage).await;
    }
    for _ in 0..10 {
        way.announce().await;
        way.assert_taken().await;
    }
    let delivered = way.laid.receipt(&way.agent, &Outcome::Delivered, |_| {});
    for _ in 0..10 {
        service.acknowledge(&way.agent.caller, way.laid.id, &delivered).await.unwrap();
        way.announce().await;
    }
    assert_eq!(way.events().await.len(), 4, "fetched, packed, queued, settled");
    assert_eq!(way.receipts().await.len(), 2);
    let other = Export { sequence: Sequence(9), ..way.laid.export.clone() };
    assert_eq!(code_of(service.export(&way.receiver.caller, &other)).await, Code::TransferFrozen);
    let mut other = way.laid.export.clone();
    other.announced.manifest = Sha256Digest::of(b"other");
    assert_eq!(code_of(service.export(&way.receiver.caller, &other)).await, Code::TransferFrozen);
}

#[tokio::test]
async fn what_an_announcement_says_is_checked() {
    let way = Way::announced().await;
    let (service, receiver) = (way.world.service(), &way.receiver.caller);
    let second = Export { transfer: way.world.id(), ..way.laid.export.clone() };
    assert_eq!(code_of(service.export(receiver, &second)).await, Code::SequenceForked);
    let second = Export { sequence: Sequence(2), ..second };
    let mut elsewhere = second.clone();
    elsewhere.announced.path = "/downlink/agent/x/packed.json".parse().unwrap();
    assert_eq!(code_of(service.export(receiver, &elsewhere)).await, Code::RequestInvalid);
    let mut large = second.clone();
    large.announced.size = u64::MAX;
    assert_eq!(code_of(service.export(receiver, &large)).await, Code::RequestInvalid);
    let nobody = Export { agent: "nobody".parse().unwrap(), ..second.clone() };
    assert_eq!(code_of(service.export(receiver, &nobody)).await, Code::NotFound);
    let not_an_agent = Export { agent: way.receiver.caller.name().clone(), ..second.clone() };
    assert_eq!(code_of(service.export(receiver, &not_an_agent)).await, Code::NotFound);
    way.world.registry.revoke(way.agent.caller.scope(), way.agent.caller.name()).await.unwrap();
    assert_eq!(code_of(service.export(receiver, &second)).await, Code::NotFound, "a revoked agent gets nothing new");
}

#[tokio::test]
async fn what_belongs_to_others_is_not_there() {
    let way = Way::queued().await;
    let (world, service, id) = (&way.world, way.world.service(), way.laid.id);
    let second = world.enrol("acme", Role::Agent).await;
    let (other, other_receiver) = (world.enrol("other", Role::Agent).await, world.enrol("other", Role::Receiver).await);
    let nowhere = world.id();
    for stranger in [&second, &other] {
        assert!(service.downlinks(&stranger.caller, Duration::ZERO, None).await.unwrap().downlinks.is_empty());
        let posted = way.laid.receipt(stranger, &Outcome::Delivered, |_| {});
        let there = service.acknowledge(&stranger.caller, id, &posted).await.unwrap_err();
        let missing = service.acknowledge(&stranger.caller, nowhere, &posted).await.unwrap_err();
        assert_eq!((there.code(), there.report()), (Code::NotFound, missing.report()));
    }
    let name = way.agent.caller.name();
    let there = service.export_status(&other_receiver.caller, name, id).await.unwrap_err();
    let missing = service.export_status(&other_receiver.caller, name, nowhere).await.unwrap_err();
    assert_eq!((there.code(), there.report()), (Code::NotFound, missing.report()));
    assert_eq!(code_of(service.export_status(&way.receiver.caller, second.caller.name(), id)).await, Code::NotFound);
    // No call of the one role exists for the other.
    let receiver = &way.receiver.caller;
    let delivered = way.laid.receipt(&way.agent, &Outcome::Delivered, |_| {});
    assert_eq!(code_of(service.acknowledge(receiver, id, &delivered)).await, Code::NotFound);
    assert_eq!(code_of(service.downlinks(receiver, Duration::ZERO, None)).await, Code::NotFound);
    assert_eq!(code_of(service.export(&way.agent.caller, &way.laid.export)).await, Code::NotFound);
    assert_eq!(code_of(service.export_status(&way.agent.caller, name, id)).await, Code::NotFound);
    // A downlink is no uplink.
    assert_eq!(code_of(service.uplink(&way.agent.caller, id)).await, Code::NotFound);
    let complete = towpath_transfer::api::Complete { manifest: Sha256Digest::of(b"m"), packed: Sha256Digest::of(b"p") };
    assert_eq!(code_of(service.complete(&way.agent.caller, id, &complete)).await, Code::TransferFrozen);
    let posted = towpath_transfer::api::AppReceipt { agent: name.clone(), transfer: id, signed: delivered.signed };
    assert_eq!(code_of(service.app_receipt(receiver, &posted)).await, Code::NotFound);
}

#[tokio::test]
async fn only_a_right_receipt_ends_a_downlink() {
    let way = Way::announced().await;
    let (service, id) = (way.world.service(), way.laid.id);
    let post = async |signer: &Enrolled, outcome: &Outcome, change: fn(&mut Receipt)| {
        let posted = way.laid.receipt(signer, outcome, change);
        service.acknowledge(&way.agent.caller, id, &posted).await.map_err(|failure| failure.code())
    };
    assert_eq!(post(&way.agent, &Outcome::Delivered, |_| {}).await, Err(Code::NotFound), "nothing is queued yet");
    for stage in [Stage::Fetch, Stage::Pack, Stage::Queue] {
        way.world.work(stage).await;
    }
    let rejected = Outcome::Rejected(Rejection { code: Code::UnpackFailed, detail: "damaged".into() });
    let other = |r: &mut Receipt| r.manifest = Some(Sha256Digest::of(b"x"));
    type Wrong<'a> = (&'a Enrolled, &'a Outcome, fn(&mut Receipt));
    let wrong: [Wrong<'_>; 7] = [
        (&way.receiver, &Outcome::Delivered, |_| {}),
        (&way.agent, &Outcome::Delivered, other),
        (&way.agent, &rejected, other),
        (&way.agent, &rejected, |r| r.manifest = None),
        (&way.agent, &Outcome::Delivered, |r| r.agent = "someone".parse().unwrap()),
        (&way.agent, &Outcome::Delivered, |r| r.stage = ReceiptStage::Accepted),
        (&way.agent, &rejected, |r| r.direction = Direction::Uplink),
    ];
    for (signer, outcome, change) in wrong {
        assert_eq!(post(signer, outcome, change).await, Err(Code::ReceiptInvalid));
    }
    assert_eq!(way.state().await, (DownlinkState::Queued, None));
    post(&way.agent, &rejected, |_| {}).await.unwrap();
    assert_eq!(post(&way.agent, &Outcome::Delivered, |_| {}).await, Err(Code::ReceiptInvalid), "it contradicts");
    post(&way.agent, &rejected, |r| r.time = Timestamp::MAX).await.unwrap();
    assert_eq!(way.state().await, (DownlinkState::Rejected, None));
    assert_eq!(way.receipts().await[1].parse().unwrap().outcome(), Some(rejected));
}

#[tokio::test]
async fn what_the_app_server_does_not_have_as_announced_is_waited_for() {
    type Change = fn(&Laid, &World);
    let changes: [(&str, Change); 6] = [
        ("altered", |laid, world| {
            let mut bytes = laid.plain[0].1.clone();
            bytes[7] ^= 1;
            laid.put(world, "orders.csv", &bytes);
        }),
        ("longer", |laid, world| laid.put(world, "orders.csv", &[laid.plain[0].1.as_slice(), b"x"].concat())),
        ("shorter", |laid, world| laid.put(world, "orders.csv", &laid.plain[0].1[1..])),
        ("another manifest", |laid, world| laid.put(world, "manifest.json", &[laid.manifest.as_slice(), b" "].concat())),
        ("a manifest of the same length", |laid, world| laid.put(world, "manifest.json", &vec![b'x'; laid.manifest.len()])),
        ("nothing", |_, world| world.lose_landings()),
    ];
    for (what, change) in changes {
        let way = Way::announced().await;
        change(&way.laid, &way.world);
        let failure = way.world.work(Stage::Fetch).await.remove(0).unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (Code::ExportMissing, Disposition::Retry), "{what}: {failure}");
        assert_eq!(way.state().await, (DownlinkState::Announced, Some((Code::ExportMissing, false))), "{what}");
        way.assert_counted();
        way.laid.lay_out(&way.world, &way.receiver);
        way.announce().await;
        for stage in [Stage::Fetch, Stage::Pack, Stage::Queue] {
            way.world.work(stage).await;
        }
        way.assert_taken().await;
        way.assert_counted();
    }
}

#[tokio::test]
async fn what_the_receiver_has_not_signed_for_this_agent_is_never_taken() {
    let way = Way::new().await;
    let (world, service) = (&way.world, way.world.service());
    let try_it = async |laid: &Laid| {
        service.export(&way.receiver.caller, &laid.export).await.unwrap();
        let failure = world.work(Stage::Fetch).await.remove(0).unwrap_err();
        assert_eq!(failure.disposition(), Disposition::Park);
        failure.code()
    };
    let (agent, receiver) = (&way.agent, &way.receiver);
    let foreign = Laid::new(world, agent, agent, 2);
    assert_eq!(try_it(&foreign).await, Code::SignatureInvalid);
    let elsewhere = Laid::of(world, receiver, agent, 3, |m| m.tenant = "other".parse().unwrap());
    assert_eq!(try_it(&elsewhere).await, Code::ManifestInvalid);
    let numbered = Laid::of(world, receiver, agent, 4, |m| m.sequence = Sequence(40));
    assert_eq!(try_it(&numbered).await, Code::SequenceForked);
    let up = Laid::of(world, receiver, agent, 5, |m| (m.direction, m.kind) = (Direction::Uplink, None));
    assert_eq!(try_it(&up).await, Code::ManifestInvalid);
    let broken = Laid { manifest: b"{}".to_vec(), ..Laid::new(world, receiver, agent, 6) };
    broken.lay_out(world, receiver);
    let mut export = broken.export.clone();
    (export.announced.size, export.announced.manifest) = (2, Sha256Digest::of(b"{}"));
    assert_eq!(try_it(&Laid { export, ..broken }).await, Code::ManifestInvalid);
    assert_eq!(way.used(), 0, "nothing of it is kept");
    world.registry.revoke(receiver.caller.scope(), receiver.caller.name()).await.unwrap();
    assert_eq!(try_it(&way.laid).await, Code::SignatureInvalid, "a revoked receiver's signature counts no more");
}

#[tokio::test]
async fn trouble_with_the_app_server_never_parks() {
    let way = Way::announced().await;
    for (code, how) in [(Code::AppServerMissing, Disposition::Park), (Code::AppServerUnreachable, Disposition::Retry)] {
        way.world.app_server_fails(Some((code, how)));
        way.world.work(Stage::Fetch).await;
        assert_eq!(way.state().await, (DownlinkState::Announced, Some((code, false))));
    }
    way.world.app_server_fails(None);
    way.world.work(Stage::Fetch).await;
    assert_eq!(way.state().await, (DownlinkState::Fetched, None));
}

#[tokio::test]
async fn a_full_spool_is_said_and_recovers() {
    let total: u64 = plain().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let way = Way::with(SpoolLimits { tenant_bytes: total - 1, ..small_limits() }).await;
    way.announce().await;
    let failure = way.world.work(Stage::Fetch).await.remove(0).unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::SpoolFull, Disposition::Retry));
    assert_eq!(way.state().await, (DownlinkState::Announced, Some((Code::SpoolFull, false))));
    assert_eq!(way.used(), 0, "nothing was begun that cannot be whole");

    // Room for the plain files, and not for the packed ones beside them: what could not be packed is not fetched.
    let way = Way::with(SpoolLimits { tenant_bytes: total + 4000, ..small_limits() }).await;
    way.announce().await;
    assert_eq!(way.world.work(Stage::Fetch).await.remove(0).unwrap_err().code(), Code::SpoolFull);
    assert_eq!(way.used(), 0, "what was kept for packing is given back");
    way.assert_counted();

    let way = Way::with(SpoolLimits { reserve_bytes: 1000, ..small_limits() }).await;
    way.announce().await;
    way.world.files.set_space(Some(900));
    assert_eq!(way.world.work(Stage::Fetch).await.remove(0).unwrap_err().code(), Code::SpoolFull);
    way.world.files.set_space(None);
    for stage in [Stage::Fetch, Stage::Pack, Stage::Queue] {
        way.world.work(stage).await;
    }
    way.assert_taken().await;
}

#[tokio::test]
async fn in_what_there_is_no_room_is_told_at_both_ends() {
    let way = Way::with(SpoolLimits { reserve_bytes: 1000, ..small_limits() }).await;
    way.announce().await;
    let told = async || {
        let failure = way.world.work(Stage::Fetch).await.remove(0).unwrap_err();
        let status = way.world.service().export_status(&way.receiver.caller, way.agent.caller.name(), way.laid.id).await;
        (failure.report(), status.unwrap().trouble.unwrap().detail)
    };
    let (scope, quota) = (way.agent.caller.scope(), way.world.relay.spool().quota());
    let said = |quota, reserve| TenantLimits { quota, reserve, ..TenantLimits::default() };
    quota.follow(vec![(scope.tenant().clone(), said(Some(5), None))]);
    let (journal, public) = told().await;
    assert!(journal.contains("tenant acme needs") && journal.contains("of a quota of 5B"), "{journal}");
    assert_eq!(public, "the tenant's quota at the relay is used up");
    quota.follow(vec![("other".parse().unwrap(), said(None, Some(1 << 20)))]);
    assert_eq!(told().await.1, "the relay's spool is used up, or what is left is kept for others");
    way.world.files.set_space(Some(900));
    // Whatever is said anew lets the disk be asked at once.
    quota.follow(Vec::new());
    assert_eq!(told().await.1, "the relay's disk is full, or down to its reserve");
    way.world.files.set_space(None);
    for stage in [Stage::Fetch, Stage::Pack, Stage::Queue] {
        way.world.work(stage).await;
    }
    way.assert_taken().await;
}

#[tokio::test]
async fn a_quota_that_is_lowered_stops_nothing_that_has_its_room() {
    let way = Way::announced().await;
    way.world.work(Stage::Fetch).await;
    let (scope, quota) = (way.agent.caller.scope(), way.world.relay.spool().quota());
    let lower = TenantLimits { quota: Some(1), ..TenantLimits::default() };
    quota.follow(vec![(scope.tenant().clone(), lower)]);
    let failure = way.world.work(Stage::Pack).await.remove(0).unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::SpoolFull, Disposition::Retry), "packing needs more");
    quota.follow(Vec::new());
    way.world.work(Stage::Pack).await;
    quota.follow(vec![(scope.tenant().clone(), lower)]);
    way.world.work(Stage::Queue).await;
    way.assert_taken().await;
}

#[tokio::test]
async fn only_so_many_are_on_their_way_to_one_agent() {
    let settings = DownlinkSettings { waiting: 2, ..DownlinkSettings::default() };
    let mut way = Way::new().await;
    way.world.set_downlink(settings);
    way.world.restart(Arc::new(NoFailPoints));
    way.announce().await;
    let (second, third) = (2, 3);
    let [second, third] = [second, third].map(|n| Laid::new(&way.world, &way.receiver, &way.agent, n));
    let service = way.world.service();
    service.export(&way.receiver.caller, &second.export).await.unwrap();
    let full = service.export(&way.receiver.caller, &third.export).await.unwrap_err();
    assert_eq!((full.code(), full.disposition()), (Code::SpoolFull, Disposition::Retry));
    way.announce().await;
    for stage in [Stage::Fetch, Stage::Pack, Stage::Queue] {
        way.world.work(stage).await;
    }
    let ids: Vec<_> = way.list().await.downlinks.iter().map(|offer| offer.transfer).collect();
    assert_eq!(ids, [way.laid.id, second.id], "oldest first");
    let delivered = way.laid.receipt(&way.agent, &Outcome::Delivered, |_| {});
    service.acknowledge(&way.agent.caller, way.laid.id, &delivered).await.unwrap();
    service.export(&way.receiver.caller, &third.export).await.unwrap();
}

#[tokio::test]
async fn what_has_changed_on_the_relays_disk_is_fetched_again() {
    let way = Way::announced().await;
    way.world.work(Stage::Fetch).await;
    let (spool, scope) = (Arc::clone(way.world.relay.spool()), way.agent.caller.as_agent().unwrap());
    let fetched = |name: &str| spool.path(Room::Fetched, &scope, way.laid.id, name);
    for name in ["orders.csv", "manifest.json", "manifest.json.sig"] {
        way.world.files.remove(&fetched(name)).unwrap();
        assert!(matches!(way.world.work(Stage::Pack).await[..], [Ok(StepOutcome::Event(TransferEvent::FetchAgain))]), "{name}");
        way.world.work(Stage::Fetch).await;
    }
    let size = way.laid.plain[0].1.len();
    write_whole(&way.world.files, &fetched("orders.csv"), &vec![0; size]).unwrap();
    assert!(matches!(way.world.work(Stage::Pack).await[..], [Ok(StepOutcome::Event(TransferEvent::FetchAgain))]));
    for stage in [Stage::Fetch, Stage::Pack] {
        way.world.work(stage).await;
    }
    let packed = spool.path(Room::Packed, &scope, way.laid.id, "orders.csv.bz2");
    way.world.files.remove(&packed).unwrap();
    let announced = way.laid.export.announced.clone();
    let outcome = way.world.work(Stage::Queue).await.remove(0).unwrap();
    assert_eq!(outcome, StepOutcome::Event(TransferEvent::Refetch { announced }));
    assert!(way.list().await.downlinks.is_empty());
    for stage in [Stage::Fetch, Stage::Pack, Stage::Queue] {
        way.world.work(stage).await;
    }
    way.assert_taken().await;
}

#[tokio::test]
async fn what_is_queued_and_gone_is_fetched_again_when_its_agent_asks_for_it() {
    let way = Way::queued().await;
    let (spool, scope) = (Arc::clone(way.world.relay.spool()), way.agent.caller.as_agent().unwrap());
    let offered = way.list().await;
    assert_eq!(way.read("nothing.csv").await, Err(FsError::NotFound));
    assert_eq!(way.state().await, (DownlinkState::Queued, None), "a name that was never there is no loss");
    for name in [Some("orders.csv.bz2"), None] {
        match name {
            Some(name) => way.world.files.remove(&spool.path(Room::Downlink, &scope, way.laid.id, name)).unwrap(),
            None => spool.remove(Room::Downlink, &scope, way.laid.id).unwrap(),
        }
        assert_eq!(way.state().await, (DownlinkState::Queued, None), "nobody has asked");
        assert_eq!(way.read(name.unwrap_or("manifest.json")).await, Err(FsError::NotFound));
        assert_eq!(way.state().await, (DownlinkState::Announced, None));
        for stage in [Stage::Fetch, Stage::Pack, Stage::Queue] {
            way.world.work(stage).await;
        }
        // The agent has noted what it was offered: it must come to the same bytes.
        assert_eq!(way.list().await, offered);
        way.assert_taken().await;
    }
}

#[tokio::test]
async fn stopped_anywhere_it_fetches_packs_and_queues_once() {
    for stage in [Stage::Fetch, Stage::Pack, Stage::Queue] {
        for point in Point::ALL {
            let mut way = Way::announced().await;
            way.world.stop_at(stage, *point).await;
            let accepted = ReceiptStage::Accepted;
            let scope = way.agent.caller.as_agent().unwrap();
            let signed = way.world.relay.spool().receipt(&scope, way.laid.id, accepted).unwrap();
            assert_eq!(signed.is_some(), stage == Stage::Queue && *point != Point::BeforeEffect, "{stage} {point}");
            let key = way.laid.key.clone();
            way.world.go_on(&key, |state| matches!(state, TransferState::Queued { .. })).await;
            let events = way.events().await;
            assert_eq!(events.len(), 3, "{stage} {point}: {events:?}");
            way.assert_taken().await;
            way.assert_counted();
            let after = way.receipts().await.remove(0);
            assert_eq!(signed.unwrap_or_else(|| after.clone()), after, "{stage} {point}: signed once");
        }
    }
}

#[tokio::test]
async fn a_power_loss_that_leaves_the_old_name_beside_the_new_one_stops_nothing() {
    let mut way = Way::announced().await;
    way.world.stop_at(Stage::Queue, Point::AfterEffect).await;
    let scope = way.agent.caller.as_agent().unwrap();
    let old = way.world.relay.spool().folder(Room::Packed, &scope, way.laid.id);
    way.world.files.create_dir_all(&old).unwrap();
    write_whole(&way.world.files, &old.join("manifest.json"), b"{}").unwrap();
    let key = way.laid.key.clone();
    way.world.go_on(&key, |state| matches!(state, TransferState::Queued { .. })).await;
    way.assert_taken().await;
    assert!(way.world.files.stat(&old).is_err());
}

#[tokio::test]
async fn stopped_anywhere_it_removes_the_files_and_keeps_the_receipts() {
    for point in Point::ALL {
        let mut way = Way::queued().await;
        let delivered = way.laid.receipt(&way.agent, &Outcome::Delivered, |_| {});
        way.world.service().acknowledge(&way.agent.caller, way.laid.id, &delivered).await.unwrap();
        way.world.clock.advance(DAY * 7);
        way.world.stop_at(Stage::Remove, *point).await;
        let key = way.laid.key.clone();
        way.world.go_on(&key, |state| matches!(state, TransferState::Removed { .. })).await;
        assert_eq!(way.used(), 0, "{point}");
        way.assert_counted();
        assert_eq!(way.receipts().await[1], delivered.signed, "{point}");
        assert_eq!(way.state().await.0, DownlinkState::Delivered);
    }
}

#[tokio::test]
async fn an_acknowledgement_that_was_kept_and_not_journalled_counts_when_it_comes_again() {
    let mut way = Way::queued().await;
    let delivered = way.laid.receipt(&way.agent, &Outcome::Delivered, |_| {});
    let scope = way.agent.caller.as_agent().unwrap();
    way.world.relay.spool().keep_receipt(&scope, way.laid.id, ReceiptStage::Delivered, &delivered.signed).unwrap();
    way.world.files.power_loss();
    way.world.restart(Arc::new(NoFailPoints));
    assert_eq!(way.state().await.0, DownlinkState::Queued);
    for _ in 0..2 {
        way.world.service().acknowledge(&way.agent.caller, way.laid.id, &delivered).await.unwrap();
        assert_eq!(way.state().await.0, DownlinkState::Delivered);
    }
    assert_eq!(way.receipts().await[1], delivered.signed);
}

#[tokio::test]
async fn a_waiting_agent_learns_of_its_files_at_once() {
    let way = Way::new().await;
    let service = way.world.service();
    let (poll,) = way.poll(&way.agent, WAIT).await;
    let drivers = way.world.start();
    way.announce().await;
    let list = poll.await.unwrap().unwrap();
    assert_eq!(list.downlinks.iter().map(|offer| offer.transfer).collect::<Vec<_>>(), [way.laid.id]);
    // The same list again is waited with; the acknowledgement changes it.
    let (polling, caller, known) = (service.clone(), way.agent.caller.clone(), Some(list.version));
    let poll = tokio::spawn(async move { polling.downlinks(&caller, WAIT, known).await });
    let delivered = way.laid.receipt(&way.agent, &Outcome::Delivered, |_| {});
    service.acknowledge(&way.agent.caller, way.laid.id, &delivered).await.unwrap();
    assert!(poll.await.unwrap().unwrap().downlinks.is_empty());
    let at_once = service.downlinks(&way.agent.caller, WAIT, Some(list.version)).await.unwrap();
    assert!(at_once.downlinks.is_empty(), "another list than the known one is answered at once");
    drop(drivers);
}

#[tokio::test]
async fn a_poll_ends_when_its_time_is_over_the_agent_is_revoked_or_the_relay_stops() {
    let way = Way::new().await;
    let (service, agent) = (way.world.service(), &way.agent);
    let (poll,) = way.poll(agent, Duration::from_secs(3600)).await;
    way.world.clock.advance(WAIT);
    assert!(poll.await.unwrap().unwrap().downlinks.is_empty(), "no longer than 55 s");
    let (poll,) = way.poll(agent, WAIT).await;
    way.world.registry.revoke(agent.caller.scope(), agent.caller.name()).await.unwrap();
    service.arrivals().hint_all();
    assert_eq!(poll.await.unwrap().unwrap_err().code(), Code::AgentRevoked);
    let second = way.world.enrol("acme", Role::Agent).await;
    let (poll,) = way.poll(&second, WAIT).await;
    service.arrivals().close();
    assert_eq!(poll.await.unwrap().unwrap_err().code(), Code::Cancelled);
}

#[tokio::test]
async fn an_agent_that_never_comes_raises_an_alarm_and_loses_nothing() {
    let way = Way::queued().await;
    let (world, after) = (&way.world, DownlinkSettings::default().alarm_after);
    let mut alarm = Alarm::new(after);
    let scope = way.agent.caller.as_agent().unwrap();
    let none = (std::collections::BTreeMap::new(), Vec::new());
    let ring = async |alarm: &mut Alarm| alarm.ring(&*world.journal, world.clock.now()).await.unwrap();
    world.clock.advance(after - Duration::from_secs(1));
    assert_eq!(ring(&mut alarm).await, none);
    assert_eq!(way.state().await, (DownlinkState::Queued, None));
    world.clock.advance(Duration::from_secs(1));
    let tenant = scope.tenant().tenant().clone();
    let overdue = std::collections::BTreeMap::from([(tenant, 1)]);
    assert_eq!(ring(&mut alarm).await, (overdue.clone(), vec![scope.clone()]));
    assert_eq!(ring(&mut alarm).await, (overdue.clone(), vec![]), "once");
    assert_eq!(way.state().await, (DownlinkState::Queued, Some((Code::AgentSilent, false))));
    world.clock.advance(WARN_AGAIN);
    assert_eq!(ring(&mut alarm).await, (overdue.clone(), vec![scope]), "and again every day");
    world.relay.metrics().downlinks_overdue(&overdue);
    let figures = world.relay.metrics().text(&[], &crate::spool::SpoolFigures::default()).unwrap();
    assert!(figures.contains("towpath_downlinks_overdue{tenant=\"acme\"} 1"), "{figures}");

    world.clock.advance(DAY * 365);
    assert!(world.work(Stage::Remove).await.is_empty());
    world.relay.tidy().await.unwrap();
    way.assert_taken().await;
    let delivered = way.laid.receipt(&way.agent, &Outcome::Delivered, |_| {});
    world.service().acknowledge(&way.agent.caller, way.laid.id, &delivered).await.unwrap();
    assert_eq!(ring(&mut alarm).await, none);
    world.relay.metrics().downlinks_overdue(&none.0);
    assert!(
        !world.relay.metrics().text(&[], &crate::spool::SpoolFigures::default()).unwrap().contains("towpath_downlinks_overdue{")
    );
}
