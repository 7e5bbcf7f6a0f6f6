//! Agent, relay and receiver in one process over the seams, without network and, but for the databases, without disk: a crash
//! at every point of every stage, every message ten times, and two tenants with equal names.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use towpath_journal::{FailPoints, Point};
use towpath_testkit::seams::{Seams, Signed, Spot, StopAt, rows};
use towpath_transfer::{
    Code, Failure, RemotePath, Stage, TransferId, TransferState,
    api::{AppReceipt, Complete, UplinkState},
    clock::SeededEntropy,
    digest::Sha256Digest,
    receipt::ReceiptStage,
    state::Place,
};
use towpath_transport::store::{Connect as _, StoreErrorKind};

/// The relay keeps what has ended so long, where a test does not look at its files.
const RETENTION: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn nowhere() -> Arc<dyn FailPoints> {
    Arc::new(StopAt::nowhere())
}

#[tokio::test]
async fn one_transfer_goes_all_the_way() {
    let stop = Arc::new(StopAt::nowhere());
    let mut world = Seams::new(&["acme"], RETENTION).await;
    world.start(&(stop.clone() as Arc<dyn FailPoints>)).await;
    let ends = world.tenant(0);
    let id = ends.agent.plan(false).await;
    world.until_over("no trouble", ends, id).await;
    world.check("no trouble", ends, id, &Signed::default()).await;
    until_removed(&world, id).await;
    // Every stage of every program was passed, so that the list of crashes below leaves none out.
    for (place, stage, times) in STAGES {
        let events = stop.hits((*place, *stage, Point::AfterJournal));
        assert_eq!(events, *times, "{place:?} {stage}");
    }
}

/// Every stage of every program, with how many events it comes to on the way of one transfer.
const STAGES: &[(Place, Stage, u32)] = &[
    (Place::Agent, Stage::Extract, 1),
    (Place::Agent, Stage::Pack, 1),
    (Place::Agent, Stage::Push, 1),
    (Place::Agent, Stage::Receipt, 2),
    (Place::Relay, Stage::Accept, 1),
    (Place::Relay, Stage::Forward, 1),
    (Place::Relay, Stage::Remove, 1),
    (Place::Receiver, Stage::Verify, 1),
    (Place::Receiver, Stage::Import, 1),
    (Place::Receiver, Stage::Receipt, 1),
];

/// What loses its power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    OfTheMachine,
    OfAll,
}

#[tokio::test]
async fn the_agent_crashes_at_every_point_and_goes_on() {
    crash_at_every_point(Place::Agent, Power::OfTheMachine).await;
}

#[tokio::test]
async fn the_relay_crashes_at_every_point_and_goes_on() {
    crash_at_every_point(Place::Relay, Power::OfTheMachine).await;
}

#[tokio::test]
async fn the_receiver_crashes_at_every_point_and_goes_on() {
    crash_at_every_point(Place::Receiver, Power::OfTheMachine).await;
}

#[tokio::test]
async fn all_three_crash_at_once_at_every_point_and_go_on() {
    for place in [Place::Agent, Place::Relay, Place::Receiver] {
        crash_at_every_point(place, Power::OfAll).await;
    }
}

async fn crash_at_every_point(place: Place, power: Power) {
    for (_, stage, times) in STAGES.iter().filter(|(at, _, _)| *at == place) {
        for point in Point::ALL {
            for nth in 1..=*times {
                crash((place, *stage, *point), nth, power).await;
            }
        }
    }
}

/// The power goes at one point; an hour later it comes back, and everything goes on as if nothing had been.
async fn crash(at: Spot, nth: u32, power: Power) {
    let (place, stage, point) = at;
    let spot = format!("{power:?}, {place:?} {stage} {point} {nth}");
    let mut world = Seams::new(&["acme"], RETENTION).await;
    let stop = Arc::new(StopAt::new(at, nth));
    world.start(&(stop.clone() as Arc<dyn FailPoints>)).await;
    let id = world.tenant(0).agent.plan(false).await;
    world.until(&format!("it stops at {spot}"), async |_| stop.has_stopped()).await;
    let all = [Place::Agent, Place::Relay, Place::Receiver];
    let off: Vec<Place> = all.into_iter().filter(|one| *one == place || power == Power::OfAll).collect();
    for one in &off {
        world.crash(*one).await;
    }
    // What a stage has signed is not lost with the power, and is never signed anew.
    let signed = world.signed(world.tenant(0), id);
    if point != Point::BeforeEffect {
        assert!(stage != Stage::Accept || signed.accepted.is_some(), "{spot}: the receipt is lost");
        assert!(stage != Stage::Import || signed.imported.is_some(), "{spot}: the receipt is lost");
    }
    world.clock.advance(Duration::from_secs(60 * 60));
    for one in &off {
        world.restart(*one, nowhere()).await;
    }
    let ends = world.tenant(0);
    world.until_over(&spot, ends, id).await;
    world.check(&spot, ends, id, &signed).await;
    until_removed(&world, id).await;
}

/// Waits until the relay has removed its copy.
async fn until_removed(world: &Seams, id: TransferId) {
    let key = world.tenant(0).agent.key(id);
    let removed = async |world: &Seams| {
        let record = world.relay.record(&key).await;
        record.is_some_and(|record| matches!(record.state, TransferState::Removed { .. }))
    };
    world.until("the relay has removed its copy", removed).await;
    assert!(world.relay.spooled(&key).is_empty());
    assert!(world.relay.receipt(&key, ReceiptStage::Imported).is_some(), "receipts outlive the copy");
}

#[tokio::test]
async fn every_message_ten_times_is_one_import() {
    let mut world = Seams::new(&["acme"], DAY).await;
    world.times = 10;
    world.start(&nowhere()).await;
    let ends = world.tenant(0);
    let id = ends.agent.plan(false).await;
    let key = ends.agent.key(id);
    world.until_over("everything ten times", ends, id).await;
    let signed = world.signed(ends, id);
    let files = world.relay.spooled(&key);
    assert_eq!(files.len(), 6, "two tables and four documents");

    let (agent, receiver) = (ends.agent.line(&world.relay.door, 10), ends.receiver.line(&world.relay.door, 10));
    let digest = |name: &str| Sha256Digest::of(&files.iter().find(|(file, _)| file == name).unwrap().1);
    let complete = Complete { manifest: digest("manifest.json"), packed: digest("packed.json") };
    let status = agent.complete(id, &complete).await.unwrap();
    assert_eq!((status.state, status.receipts.len()), (UplinkState::Imported, 2));
    assert_eq!(agent.uplink(id).await.unwrap(), status);
    let other = Complete { manifest: complete.packed, ..complete };
    assert_eq!(agent.complete(id, &other).await.unwrap_err().code(), Code::TransferFrozen);
    receiver.post_receipt(&receipt(&world, 0, id)).await.unwrap();

    let database = ends.receiver.database(&key.agent);
    let ledger = rows(&database, "SELECT * FROM towpath_imports").await;
    assert_eq!(ledger.len(), 1);
    for _ in 0..10 {
        ends.receiver.land(&key, &files).await;
        world.until("what landed again is gone", async |_| !ends.receiver.has_landed(&key)).await;
    }
    assert_eq!(rows(&database, "SELECT * FROM towpath_imports").await, ledger);
    world.until_over("everything ten times", ends, id).await;
    world.check("everything ten times", ends, id, &signed).await;
}

/// The `imported` receipt of a transfer, as its receiver posts it.
fn receipt(world: &Seams, tenant: usize, id: TransferId) -> AppReceipt {
    let ends = world.tenant(tenant);
    let key = ends.agent.key(id);
    let signed = ends.receiver.signed(&key, ReceiptStage::Imported);
    AppReceipt { agent: key.agent, transfer: id, signed }
}

#[tokio::test]
async fn two_tenants_with_equal_names_see_nothing_of_each_other() {
    let mut world = Seams::new(&["acme", "bolt"], DAY).await;
    world.start(&nowhere()).await;
    let ids = [world.tenant(0).agent.plan(false).await, world.tenant(1).agent.plan(false).await];
    for (ends, id) in world.ends.iter().zip(ids) {
        world.until_over("both at once", ends, id).await;
    }
    for (ends, id) in world.ends.iter().zip(ids) {
        world.check("both at once", ends, id, &Signed::default()).await;
        let database = ends.receiver.database(&ends.agent.key(id).agent);
        let names = rows(&database, "SELECT DISTINCT substr(name, 1, 4) FROM items").await;
        assert_eq!(names, [ends.tenant.as_str()]);
        assert_eq!(rows(&database, "SELECT transfer FROM towpath_imports").await, [id.to_string()]);
    }
    let none = TransferId::new(&world.clock, &SeededEntropy::new(99));
    let [first, second] = ids;
    for (own, mine, theirs) in [(0, first, second), (1, second, first)] {
        assert_eq!(asked(&world, own, theirs, theirs).await, asked(&world, own, theirs, none).await);
        assert_eq!(seen(&world, own, theirs).await, seen(&world, own, none).await);
        assert_eq!(seen(&world, own, mine).await.len(), 6);
    }
    // Being asked for by a stranger has changed nothing.
    for (ends, id) in world.ends.iter().zip(ids) {
        world.check("questions of a stranger", ends, id, &Signed::default()).await;
    }
}

/// What the relay answers to every call of a tenant's ends for `id`, with the id itself left out. The documents are those of
/// the other tenant's transfer `of`.
async fn asked(world: &Seams, own: usize, of: TransferId, id: TransferId) -> Vec<String> {
    let ends = world.tenant(own);
    let (agent, receiver) = (ends.agent.line(&world.relay.door, 1), ends.receiver.line(&world.relay.door, 1));
    let other = world.tenant(1 - own);
    let files = world.relay.spooled(&other.agent.key(of));
    let digest = |name: &str| Sha256Digest::of(&files.iter().find(|(file, _)| file == name).unwrap().1);
    let complete = Complete { manifest: digest("manifest.json"), packed: digest("packed.json") };
    let posted = AppReceipt { transfer: id, ..receipt(world, 1 - own, of) };
    let mut answers = Vec::new();
    for (who, api) in [("agent", &agent), ("receiver", &receiver)] {
        answers.push(format!("{who}: {}", answer(id, api.uplink(id).await)));
        answers.push(format!("{who}: {}", answer(id, api.complete(id, &complete).await)));
        answers.push(format!("{who}: {}", answer(id, api.post_receipt(&posted).await)));
    }
    answers
}

fn answer<T: std::fmt::Debug>(id: TransferId, answer: Result<T, Failure>) -> String {
    let text = match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(failure) => format!("{:?} {}", failure.disposition(), failure.report()),
    };
    text.replace(&id.to_string(), "ID").replace(&format!("{id:?}"), "ID")
}

/// What a tenant's agent sees of a transfer over SFTP.
async fn seen(world: &Seams, own: usize, id: TransferId) -> BTreeSet<String> {
    let connect = world.tenant(own).agent.connect(&world.relay.door);
    let store = connect.connect().await.unwrap();
    let folder: RemotePath = format!("/uplink/{id}").parse().unwrap();
    let file: RemotePath = format!("/uplink/{id}/manifest.json").parse().unwrap();
    match store.list(&folder, 100).await {
        Ok(entries) => entries.into_iter().map(|entry| entry.name.to_string()).collect(),
        Err(error) => {
            assert_eq!(error.kind(), StoreErrorKind::NotFound);
            assert_eq!(store.stat(&file).await.unwrap_err().kind(), StoreErrorKind::NotFound);
            BTreeSet::new()
        }
    }
}
