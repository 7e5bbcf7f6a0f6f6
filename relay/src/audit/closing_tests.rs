//! Questions whose look-up does not answer, or fails: they keep no row from being written, and do not hold up the end of the service.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use towpath_journal::{
    Count, Created, Fault, FaultJournal, Filter, History, Journal, JournalError, Lease, NewTransfer, Operation, Prune, Release,
    TransferRecord, Wanted,
};
use towpath_transfer::{AgentName, Direction, Sequence, TransferKey, clock::ManualClock, state::Place};

use super::{chain::Row, *};
use crate::{
    registry::AuditFilter,
    service::tests::{Enrolled, World},
};

type Listed<T> = std::result::Result<T, JournalError>;

/// A journal whose `list` never answers, as when every reader is stuck.
#[derive(Debug)]
struct Silent {
    inner: Arc<dyn Journal>,
    /// Told when it is asked.
    listing: Notify,
}

#[async_trait]
impl Journal for Silent {
    fn place(&self) -> Place {
        self.inner.place()
    }

    async fn create(&self, new: NewTransfer) -> Listed<Created> {
        self.inner.create(new).await
    }

    async fn acquire_wanted(&self, wanted: &Wanted, limit: usize, ttl: Duration) -> Listed<Vec<Lease>> {
        self.inner.acquire_wanted(wanted, limit, ttl).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Listed<Timestamp> {
        self.inner.renew(lease, ttl).await
    }

    async fn append(&self, lease: &Lease, expected: u64, event: &TransferEvent) -> Listed<TransferRecord> {
        self.inner.append(lease, expected, event).await
    }

    async fn append_unleased(&self, key: &TransferKey, expected: u64, event: &TransferEvent) -> Listed<TransferRecord> {
        self.inner.append_unleased(key, expected, event).await
    }

    async fn release(&self, lease: &Lease, how: Release) -> Listed<()> {
        self.inner.release(lease, how).await
    }

    async fn unpark(&self, key: &TransferKey) -> Listed<TransferRecord> {
        self.inner.unpark(key).await
    }

    async fn break_leases(&self) -> Listed<u64> {
        self.inner.break_leases().await
    }

    async fn get(&self, key: &TransferKey) -> Listed<Option<TransferRecord>> {
        self.inner.get(key).await
    }

    async fn list(&self, _: &Filter, _: usize, _: Option<u64>) -> Listed<Vec<TransferRecord>> {
        self.listing.notify_one();
        std::future::pending().await
    }

    async fn history(&self, key: &TransferKey) -> Listed<History> {
        self.inner.history(key).await
    }

    async fn last_sequence(&self, tenant: &TenantName, agent: &AgentName, direction: Direction) -> Listed<Option<Sequence>> {
        self.inner.last_sequence(tenant, agent, direction).await
    }

    async fn counts(&self) -> Listed<Vec<Count>> {
        self.inner.counts().await
    }

    async fn withdraw(&self, key: &TransferKey) -> Listed<bool> {
        self.inner.withdraw(key).await
    }

    async fn begin_anew(&self, new: NewTransfer) -> Listed<bool> {
        self.inner.begin_anew(new).await
    }

    async fn prune(&self, what: &Prune) -> Listed<u64> {
        self.inner.prune(what).await
    }

    async fn health(&self) -> Listed<()> {
        self.inner.health().await
    }
}

struct Scene {
    world: World,
    clock: ManualClock,
    trail: Trail,
    asker: Enrolled,
    /// The rows before anything was asked.
    before: usize,
}

impl Scene {
    /// One agent, and a trail that looks at `journal`.
    async fn of(world: World, journal: Arc<dyn Journal>) -> Self {
        let asker = world.enrol("acme", Role::Agent).await;
        let clock = world.clock.clone();
        let trail = Trail::new(world.registry.clone(), journal, Arc::new(clock.clone()));
        let before = world.audit().await.len();
        Self { world, clock, trail, asker, before }
    }

    async fn silent() -> (Self, Arc<Silent>) {
        let world = World::new().await;
        let silent = Arc::new(Silent { inner: world.journal.clone(), listing: Notify::new() });
        (Self::of(world, silent.clone()).await, silent)
    }

    /// A journal whose look-ups fail where `fails` says so of the nth, and how many there were.
    async fn failing(fails: impl Fn(u64) -> bool + Send + Sync + 'static) -> (Self, Arc<AtomicUsize>) {
        let (world, looked) = (World::new().await, Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&looked);
        let journal = FaultJournal::new(world.journal.clone(), move |operation, nth| {
            (operation == Operation::List).then(|| count.fetch_add(1, Ordering::SeqCst));
            (operation == Operation::List && fails(nth)).then_some(Fault::Before)
        });
        (Self::of(world, Arc::new(journal)).await, looked)
    }

    /// The agent asks for so many transfers that are not there.
    fn ask(&self, times: usize) -> Vec<String> {
        let witness = Witness::of(&self.trail, &self.asker.caller);
        let ids: Vec<TransferId> = (0..times).map(|_| self.world.id()).collect();
        ids.iter().for_each(|id| witness.missed(*id));
        ids.iter().map(ToString::to_string).collect()
    }

    /// What is written when the trail was closed over a journal that never answers.
    async fn closed(&self, silent: &Silent) -> Vec<Row> {
        let trail = self.trail.clone();
        let closing = tokio::spawn(async move { trail.close().await });
        silent.listing.notified().await;
        self.clock.advance(trail::CLOSING_LOOK_UP);
        closing.await.unwrap();
        self.written().await
    }

    /// What is written by now.
    async fn written(&self) -> Vec<Row> {
        let mut rows = self.world.registry.audit_rows(&AuditFilter::default(), 1_000).await.unwrap();
        rows.reverse();
        rows.split_off(self.before)
    }
}

fn told(rows: &[Row]) -> Vec<(&str, &str, &str, &str)> {
    rows.iter().map(|row| (&*row.role, &*row.action, &*row.result, &*row.transfer)).collect()
}

#[tokio::test]
async fn rows_that_wait_are_written_before_a_look_up_that_never_answers_and_its_asker_is_named() {
    let (scene, silent) = Scene::silent().await;
    let ids = scene.ask(2);
    scene.trail.record(Entry::new(scene.trail.now(), Who::relay(), Action::KeyAnnounce));
    let trail = scene.trail.clone();
    let closing = tokio::spawn(async move { trail.close().await });
    silent.listing.notified().await;
    assert_eq!(
        told(&scene.written().await),
        [("relay", "key-announce", "ok", "")],
        "it would be lost if the service were killed"
    );

    scene.clock.advance(trail::CLOSING_LOOK_UP - Duration::from_micros(1));
    assert_eq!(scene.written().await.len(), 1, "there is time left");
    scene.clock.advance(Duration::from_micros(1));
    closing.await.unwrap();
    let rows = scene.written().await;
    let unchecked = |id| ("agent", "unchecked", "cancelled", id);
    let expected =
        [("relay", "key-announce", "ok", ""), unchecked(&*ids[0]), unchecked(&*ids[1]), ("relay", "stopped", "ok", "")];
    assert_eq!(told(&rows), expected, "{rows:#?}");
    assert_eq!((&*rows[1].tenant, &*rows[1].key), ("acme", &*scene.asker.caller.key().fingerprint().to_string()));
}

#[tokio::test]
async fn as_many_questions_of_one_end_as_may_wait_are_a_few_rows_at_the_end() {
    let (scene, silent) = Scene::silent().await;
    scene.ask(trail::QUEUE_ASKED_OF_ONE);
    let rows = scene.closed(&silent).await;
    // Some with their transfer, one that begins to count the others, one that has counted them, and the end.
    assert_eq!(rows.len(), MOST_ALIKE + 3, "{rows:#?}");
    let counted = format!("{} times", trail::QUEUE_ASKED_OF_ONE - MOST_ALIKE - 1);
    assert!(rows[MOST_ALIKE + 1].detail.contains(&counted), "{rows:#?}");
    assert_eq!(rows.last().unwrap().action, "stopped");
}

#[tokio::test]
async fn a_look_up_that_never_answers_ends_with_the_writer_and_its_question_is_kept_for_the_end() {
    let (scene, silent) = Scene::silent().await;
    let ids = scene.ask(1);
    let (shutdown, trail) = (CancellationToken::new(), scene.trail.clone());
    let stop = shutdown.clone();
    let running = tokio::spawn(async move { trail.run(stop).await });
    silent.listing.notified().await;
    scene.trail.record(Entry::new(scene.trail.now(), Who::relay(), Action::KeyAnnounce));
    shutdown.cancel();
    running.await.unwrap();

    let rows = scene.closed(&silent).await;
    let expected =
        [("relay", "key-announce", "ok", ""), ("agent", "unchecked", "cancelled", &*ids[0]), ("relay", "stopped", "ok", "")];
    assert_eq!(told(&rows), expected, "{rows:#?}");
}

#[tokio::test]
async fn after_a_few_failures_in_a_row_nothing_more_is_looked_up_and_nothing_piles_up() {
    let (scene, looked) = Scene::failing(|_| true).await;
    let ids = scene.ask(trail::LOOK_UP_FAILURES + 2);
    scene.trail.flush(false).await.unwrap();
    assert_eq!((looked.load(Ordering::SeqCst), scene.trail.asks()), (trail::LOOK_UP_FAILURES, 0));
    let rows = scene.written().await;
    let expected: Vec<_> = ids.iter().map(|id| ("agent", "unchecked", "journal-failed", &**id)).collect();
    assert_eq!(told(&rows), expected, "{rows:#?}");

    // The next time it is tried anew.
    scene.ask(1);
    scene.trail.flush(false).await.unwrap();
    assert_eq!(looked.load(Ordering::SeqCst), trail::LOOK_UP_FAILURES + 1);
}

#[tokio::test]
async fn while_nothing_can_be_written_either_no_more_is_looked_up_after_a_few_failures() {
    let (scene, looked) = Scene::failing(|_| true).await;
    scene.ask(trail::QUEUE_ASKED_OF_ONE);
    scene.trail.record(Entry::new(scene.trail.now(), Who::relay(), Action::KeyAnnounce));
    scene.world.registry.close().await;
    scene.trail.flush(false).await.unwrap_err();
    assert_eq!((looked.load(Ordering::SeqCst), scene.trail.asks()), (trail::LOOK_UP_FAILURES, 0));
}

#[tokio::test]
async fn failures_that_are_not_in_a_row_leave_the_other_questions_to_be_looked_up() {
    let in_row = u64::try_from(trail::LOOK_UP_FAILURES).unwrap();
    let (scene, looked) = Scene::failing(move |nth| nth % in_row != 0).await;
    let asked = 3 * trail::LOOK_UP_FAILURES;
    scene.ask(asked);
    scene.trail.flush(false).await.unwrap();
    assert_eq!(looked.load(Ordering::SeqCst), asked);
    assert_eq!(scene.written().await.len(), 3 * (trail::LOOK_UP_FAILURES - 1));
}
