//! The way back in one process over the seams: a crash at every point of every stage, with the power and without, under an ERP that
//! leaves its files where they are and one that takes them away at once; every message ten times; two tenants with equal names.

use std::{cell::RefCell, collections::BTreeSet, sync::Arc, time::Duration};

use towpath_journal::{FailPoints, Point, verify};
use towpath_testkit::seams::{Ends, Seams, Spot, StopAt};
use towpath_transfer::{
    Code, RemotePath, Stage, TransferId, TransferState,
    api::{Acknowledgement, DownlinkState, Export},
    receipt::{ReceiptStage, SignedReceipt},
    state::{Announced, Outcome, Place},
};
use towpath_transport::store::{Connect as _, StoreErrorKind};

const RETENTION: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CONTENT: &[u8] = b"item_no,quantity\r\nA-1,7\r\n";

/// Every stage of every program on the way back, with how many events it comes to.
const STAGES: &[(Place, Stage, u32)] = &[
    (Place::Receiver, Stage::Export, 1),
    (Place::Receiver, Stage::Notify, 1),
    (Place::Receiver, Stage::Receipt, 1),
    (Place::Relay, Stage::Fetch, 1),
    (Place::Relay, Stage::Pack, 1),
    (Place::Relay, Stage::Queue, 1),
    (Place::Relay, Stage::Remove, 1),
    (Place::Agent, Stage::Pull, 1),
    (Place::Agent, Stage::Verify, 1),
    (Place::Agent, Stage::Deliver, 3),
    (Place::Agent, Stage::Acknowledge, 1),
];

fn nowhere() -> Arc<dyn FailPoints> {
    Arc::new(StopAt::nowhere())
}

/// What the ERP does with its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Leaves,
    TakesAtOnce,
}

/// The ERP of the first tenant, with what it has taken.
struct Erp {
    habit: Habit,
    taken: RefCell<Vec<Vec<u8>>>,
}

impl Erp {
    fn new(habit: Habit) -> Self {
        Self { habit, taken: RefCell::default() }
    }

    fn look(&self, world: &Seams) {
        if self.habit == Habit::TakesAtOnce {
            self.taken.borrow_mut().extend(world.tenant(0).agent.take_delivered());
        }
    }

    /// Everything that was ever delivered.
    fn all(&self, world: &Seams) -> Vec<Vec<u8>> {
        let there = world.tenant(0).agent.delivered().into_iter().map(|(_, bytes)| bytes);
        self.taken.borrow().iter().cloned().chain(there).collect()
    }
}

async fn send(ends: &Ends) -> TransferId {
    ends.receiver.send(&ends.agent.enrolment.name, "orders.csv", CONTENT).await
}

/// Waits until a return file has ended as delivered on all three machines and the relay's copy is removed.
async fn until_over(world: &Seams, erp: &Erp, what: &str, id: TransferId) {
    let ends = world.tenant(0);
    let key = ends.agent.key(id);
    let over = async |world: &Seams| {
        erp.look(world);
        let is =
            |record: Option<towpath_journal::TransferRecord>, state: &TransferState| record.is_some_and(|r| r.state == *state);
        is(world.relay.record(&key).await, &TransferState::Removed { outcome: Outcome::Delivered })
            && is(ends.receiver.record(&key).await, &TransferState::Delivered)
            && ends.agent.record(id).await.state == TransferState::Delivered
    };
    world.until(&format!("return file {key} is over, after {what}"), over).await;
}

/// Everything that must hold of a return file that is over.
async fn check(world: &Seams, erp: &Erp, what: &str, id: TransferId) {
    let ends = world.tenant(0);
    let key = ends.agent.key(id);
    assert_eq!(erp.all(world), [CONTENT], "{what}");
    for stage in [ReceiptStage::Accepted, ReceiptStage::Delivered] {
        let at_the_relay = world.relay.receipt(&key, stage);
        assert!(at_the_relay.is_some(), "{what}: the {stage:?} receipt is missing");
        assert_eq!(ends.receiver.receipt(&key, stage), at_the_relay, "{what}");
    }
    assert_eq!(
        world.relay.receipt(&key, ReceiptStage::Delivered),
        ends.agent.returned_receipt(id, ReceiptStage::Delivered),
        "{what}"
    );
    assert!(world.relay.queued(&key).is_empty(), "{what}: the relay keeps files");
    assert!(!ends.receiver.has_export(&key), "{what}: the receiver keeps files");
    verify(&*ends.agent.machine.journal, &key).await.unwrap();
    verify(&*world.relay.machine.journal, &key).await.unwrap();
    verify(&*ends.receiver.machine.journal, &key).await.unwrap();
}

#[tokio::test]
async fn a_return_file_goes_all_the_way_past_every_stage() {
    let stop = Arc::new(StopAt::nowhere());
    let mut world = Seams::new(&["acme"], RETENTION).await;
    world.start(&(stop.clone() as Arc<dyn FailPoints>)).await;
    let erp = Erp::new(Habit::Leaves);
    let id = send(world.tenant(0)).await;
    until_over(&world, &erp, "no trouble", id).await;
    check(&world, &erp, "no trouble", id).await;
    for (place, stage, times) in STAGES {
        assert_eq!(stop.hits((*place, *stage, Point::AfterJournal)), *times, "{place:?} {stage}");
    }
}

/// What goes away at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Program,
    Power,
    PowerOfAll,
}

#[tokio::test]
async fn a_killed_program_delivers_once_though_the_erp_takes_the_file_at_once() {
    for place in [Place::Agent, Place::Relay, Place::Receiver] {
        at_every_point(place, Loss::Program, Habit::TakesAtOnce).await;
    }
}

#[tokio::test]
async fn a_machine_without_power_delivers_once() {
    for place in [Place::Agent, Place::Relay, Place::Receiver] {
        at_every_point(place, Loss::Power, Habit::Leaves).await;
    }
}

#[tokio::test]
async fn three_machines_without_power_deliver_once() {
    for place in [Place::Agent, Place::Relay, Place::Receiver] {
        at_every_point(place, Loss::PowerOfAll, Habit::Leaves).await;
    }
}

async fn at_every_point(place: Place, loss: Loss, habit: Habit) {
    for (_, stage, times) in STAGES.iter().filter(|(at, _, _)| *at == place) {
        for point in Point::ALL {
            for nth in 1..=*times {
                lose((place, *stage, *point), nth, loss, habit).await;
            }
        }
    }
}

async fn lose(at: Spot, nth: u32, loss: Loss, habit: Habit) {
    let (place, stage, point) = at;
    let what = format!("{loss:?}, {habit:?}, {place:?} {stage} {point} {nth}");
    let mut world = Seams::new(&["acme"], RETENTION).await;
    let stop = Arc::new(StopAt::new(at, nth));
    world.start(&(stop.clone() as Arc<dyn FailPoints>)).await;
    let erp = Erp::new(habit);
    let id = send(world.tenant(0)).await;
    world
        .until(&format!("it stops at {what}"), async |world| {
            erp.look(world);
            stop.has_stopped()
        })
        .await;
    let all = [Place::Agent, Place::Relay, Place::Receiver];
    let off: Vec<Place> = all.into_iter().filter(|one| *one == place || loss == Loss::PowerOfAll).collect();
    for one in &off {
        match loss {
            Loss::Program => world.kill(*one).await,
            Loss::Power | Loss::PowerOfAll => world.crash(*one).await,
        }
    }
    erp.look(&world);
    world.clock.advance(Duration::from_secs(60 * 60));
    for one in &off {
        world.restart(*one, nowhere()).await;
    }
    until_over(&world, &erp, &what, id).await;
    check(&world, &erp, &what, id).await;
}

#[tokio::test]
async fn every_message_of_the_way_back_ten_times_is_one_delivery() {
    let mut world = Seams::new(&["acme"], DAY).await;
    world.times = 10;
    world.start(&nowhere()).await;
    let ends = world.tenant(0);
    let erp = Erp::new(Habit::TakesAtOnce);
    let id = send(ends).await;
    let key = ends.agent.key(id);
    let delivered = async |world: &Seams| {
        erp.look(world);
        let record = ends.receiver.record(&key).await;
        record.is_some_and(|record| record.state == TransferState::Delivered)
    };
    world.until("it is delivered", delivered).await;
    let (agent, receiver) = (ends.agent.line(&world.relay.door, 10), ends.receiver.line(&world.relay.door, 10));
    let acknowledgement = Acknowledgement { signed: ends.agent.signed_return(id, ReceiptStage::Delivered) };
    for _ in 0..10 {
        agent.acknowledge(id, &acknowledgement).await.unwrap();
    }
    let status = receiver.export_status(&key.agent, id).await.unwrap();
    assert_eq!((status.state, status.receipts.len()), (DownlinkState::Delivered, 2));
    // The agent itself waits ten times at once, and the relay lets nobody wait without end.
    let once = ends.agent.line(&world.relay.door, 1);
    assert!(once.downlinks(Duration::ZERO, None).await.unwrap().downlinks.is_empty());
    // The same word with another signature is not the receipt that is kept.
    let other = SignedReceipt { signature: "nothing".into(), ..acknowledgement.signed };
    agent.acknowledge(id, &Acknowledgement { signed: other }).await.unwrap_err();
    world.clock.advance(Duration::from_secs(60));
    world
        .until("a minute has passed", async |world| {
            erp.look(world);
            true
        })
        .await;
    assert_eq!(erp.all(&world), [CONTENT]);
}

#[tokio::test]
async fn a_return_file_of_one_tenant_does_not_exist_for_another() {
    let mut world = Seams::new(&["acme", "bolt"], DAY).await;
    world.start(&nowhere()).await;
    let erp = Erp::new(Habit::Leaves);
    let id = send(world.tenant(0)).await;
    let key = world.tenant(0).agent.key(id);
    let queued = async |world: &Seams| {
        erp.look(world);
        world.relay.receipt(&key, ReceiptStage::Delivered).is_some()
    };
    world.until("it is delivered", queued).await;
    let (own, stranger) = (world.tenant(0), world.tenant(1));
    let (agent, receiver) = (stranger.agent.line(&world.relay.door, 1), stranger.receiver.line(&world.relay.door, 1));
    let signed = own.agent.signed_return(id, ReceiptStage::Delivered);
    let refused = agent.acknowledge(id, &Acknowledgement { signed }).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(receiver.export_status(&key.agent, id).await.unwrap_err().code(), Code::NotFound);
    assert!(agent.downlinks(Duration::ZERO, None).await.unwrap().downlinks.is_empty());
    assert_eq!(seen(&world, 0, id).await.len(), 5, "a packed file and four documents");
    assert_eq!(seen(&world, 1, id).await, BTreeSet::new());
    assert!(stranger.agent.delivered().is_empty());
    // A stranger that announces the id makes a transfer of its own, which touches nothing of the other.
    let path = format!("/downlink/{}/{id}/manifest.json", key.agent).parse().unwrap();
    let announced = Announced { path, size: 1, manifest: towpath_transfer::digest::Sha256Digest::of(b"m") };
    let export = Export { transfer: id, agent: key.agent.clone(), sequence: towpath_transfer::Sequence(1), announced };
    let status = receiver.export(&export).await.unwrap();
    assert_eq!(status.state, DownlinkState::Announced);
    let untouched = own.receiver.line(&world.relay.door, 1).export_status(&key.agent, id).await.unwrap();
    assert_eq!(untouched.state, DownlinkState::Delivered);
}

/// What a tenant's agent sees of a return file over SFTP.
async fn seen(world: &Seams, tenant: usize, id: TransferId) -> BTreeSet<String> {
    let connect = world.tenant(tenant).agent.connect(&world.relay.door);
    let store = connect.connect().await.unwrap();
    let folder: RemotePath = format!("/downlink/{id}").parse().unwrap();
    match store.list(&folder, 100).await {
        Ok(entries) => entries.into_iter().map(|entry| entry.name.to_string()).collect(),
        Err(error) => {
            assert_eq!(error.kind(), StoreErrorKind::NotFound);
            BTreeSet::new()
        }
    }
}
