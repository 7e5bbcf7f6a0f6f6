//! The driver under a clock that moves only when told to.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio::task::{JoinHandle, yield_now};
use towpath_transfer::{
    Code, Disposition, Failure, Stage, TransferEvent, TransferKey,
    clock::{ManualClock, SeededEntropy},
    digest::Sha256Digest,
    state::Place,
};

use super::*;
use crate::{
    Fault, FaultJournal, JournalError, Lease, MemoryJournal, Operation, SequenceChoice, TransferRecord,
    conformance::{key, planned, start},
    verify,
};

const SECOND: Duration = Duration::from_secs(1);

enum Script {
    /// Succeeds when told to.
    Gate(Arc<tokio::sync::Notify>),
    Answer(Result<StepOutcome, Failure>),
    Panic,
    Hang,
}

/// A step that follows a script and, when that is over, succeeds.
struct Scripted {
    script: Mutex<VecDeque<Script>>,
    calls: AtomicUsize,
}

impl Scripted {
    fn new(script: impl IntoIterator<Item = Script>) -> Arc<Self> {
        Arc::new(Self { script: Mutex::new(script.into_iter().collect()), calls: AtomicUsize::new(0) })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Step for Scripted {
    fn place(&self) -> Place {
        Place::Agent
    }

    fn stage(&self) -> Stage {
        Stage::Extract
    }

    async fn step(&self, _: &Lease) -> Result<StepOutcome, Failure> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let next = self.script.lock().unwrap().pop_front();
        match next {
            Some(Script::Answer(answer)) => answer,
            Some(Script::Panic) => panic!("as told"),
            Some(Script::Hang) => std::future::pending().await,
            Some(Script::Gate(gate)) => {
                gate.notified().await;
                Ok(StepOutcome::Event(TransferEvent::Extracted { manifest: Sha256Digest::of(b"manifest") }))
            }
            None => Ok(StepOutcome::Event(TransferEvent::Extracted { manifest: Sha256Digest::of(b"manifest") })),
        }
    }
}

#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<&'static str>>,
    journal_failures: AtomicUsize,
    turns: Mutex<Vec<Turn>>,
}

impl Observer for Recorder {
    fn stage_started(&self, _: Place, _: Stage, _: &Lease) {
        self.seen.lock().unwrap().push("started");
    }

    fn stage_finished(&self, report: &StageReport<'_>) {
        assert!(report.attempts >= 1);
        self.seen.lock().unwrap().push(report.result.as_str());
    }

    fn journal_failed(&self, _: Place, _: Stage, _: &JournalError) {
        self.journal_failures.fetch_add(1, Ordering::SeqCst);
    }

    fn turned(&self, _: Place, _: Stage, turn: Turn) {
        self.turns.lock().unwrap().push(turn);
    }
}

struct Bench {
    clock: ManualClock,
    memory: Arc<dyn Journal>,
    recorder: Arc<Recorder>,
    wake: WakeUp,
    shutdown: CancellationToken,
    settings: DriverSettings,
}

impl Bench {
    async fn new(transfers: u64) -> Self {
        let clock = ManualClock::new(start());
        let memory = Arc::new(MemoryJournal::new(Place::Agent, Arc::new(clock.clone()), Arc::new(SeededEntropy::new(1))));
        for number in 1..=transfers {
            memory.create(planned(number, SequenceChoice::Next)).await.unwrap();
        }
        let (recorder, wake, shutdown) = (Arc::default(), WakeUp::new(), CancellationToken::new());
        Self { clock, memory, recorder, wake, shutdown, settings: DriverSettings::default() }
    }

    fn driver(&self, step: &Arc<Scripted>, journal: Arc<dyn Journal>) -> StageDriver {
        let (clock, entropy) = (Arc::new(self.clock.clone()), Arc::new(SeededEntropy::new(2)));
        StageDriver::new(journal, Arc::clone(step) as _, clock, entropy, self.wake.clone(), self.settings)
            .observed_by(Arc::clone(&self.recorder) as _)
    }

    fn start(&self, step: &Arc<Scripted>) -> JoinHandle<()> {
        tokio::spawn(self.driver(step, Arc::clone(&self.memory)).run(self.shutdown.clone()))
    }

    async fn record(&self, number: u64) -> TransferRecord {
        self.memory.get(&key(number)).await.unwrap().unwrap()
    }

    /// Lets every task run until nothing moves without the clock.
    async fn settle(&self) {
        for _ in 0..200 {
            yield_now().await;
        }
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.settle().await;
    }

    fn seen(&self) -> Vec<&'static str> {
        self.recorder.seen.lock().unwrap().clone()
    }

    /// The transfer is extracted once, and nobody holds it.
    async fn extracted_once(&self, number: u64) {
        let record = self.record(number).await;
        assert_eq!((record.state.word(), record.events, record.parked), ("extracted", 1, false));
        verify(&*self.memory, &key(number)).await.unwrap();
    }

    /// Stops a driver whose steps do not end by themselves.
    async fn interrupt(self, driver: JoinHandle<()>) {
        self.shutdown.cancel();
        self.settle().await;
        self.advance(self.settings.shutdown_grace).await;
        self.stop(driver).await;
    }

    async fn stop(self, driver: JoinHandle<()>) {
        self.shutdown.cancel();
        driver.await.unwrap();
        assert_eq!(self.memory.break_leases().await.unwrap(), 0, "no lease is left");
    }
}

#[tokio::test]
async fn a_step_that_succeeds_is_appended_and_released() {
    let bench = Bench::new(2).await;
    let step = Scripted::new([]);
    let driver = bench.start(&step);
    bench.settle().await;
    bench.extracted_once(1).await;
    bench.extracted_once(2).await;
    assert_eq!(step.calls(), 2);
    assert_eq!(bench.seen(), ["started", "done", "started", "done"]);
    // A hint leads to work at once; without one, the poll does.
    for number in [3, 4] {
        bench.memory.create(planned(number, SequenceChoice::Next)).await.unwrap();
        if number == 3 {
            bench.wake.hint();
        } else {
            bench.clock.advance(bench.settings.poll);
        }
        bench.settle().await;
        bench.extracted_once(number).await;
    }
    bench.stop(driver).await;
}

#[tokio::test]
async fn a_failure_is_tried_again_when_the_other_side_asked() {
    let bench = Bench::new(1).await;
    let busy = Failure::retry(Code::RateLimited, "too many requests").after(SECOND * 30);
    let step = Scripted::new([Script::Answer(Err(busy))]);
    let driver = bench.start(&step);
    bench.settle().await;
    let record = bench.record(1).await;
    assert_eq!(record.last_failure.unwrap().code, Code::RateLimited);
    assert_eq!(record.not_before.unwrap().duration_since(record.changed).as_secs(), 30);
    bench.advance(SECOND * 29).await;
    assert_eq!(step.calls(), 1);
    bench.advance(SECOND).await;
    bench.extracted_once(1).await;
    assert_eq!(bench.record(1).await.last_failure, None);
    assert_eq!(bench.seen(), ["started", "retrying", "started", "done"]);
    bench.stop(driver).await;
}

#[tokio::test]
async fn tries_back_off_and_end_parked_at_their_limit() {
    let mut bench = Bench::new(1).await;
    bench.settings.max_attempts = 4;
    let step = Scripted::new((0..9).map(|_| Script::Answer(Err(Failure::retry(Code::RelayUnreachable, "no answer")))));
    let driver = bench.start(&step);
    bench.settle().await;
    for attempt in 1..4 {
        let record = bench.record(1).await;
        assert_eq!(record.attempts, attempt);
        let pause = record.not_before.unwrap().duration_since(bench.clock.now()).unsigned_abs();
        assert!(pause <= bench.settings.backoff.ceiling(attempt) && !pause.is_zero(), "{pause:?}");
        bench.advance(pause + Duration::from_micros(1)).await;
    }
    let record = bench.record(1).await;
    assert!(record.parked);
    assert_eq!(record.last_failure.unwrap().disposition, Disposition::Park);
    assert_eq!(step.calls(), 4);
    bench.stop(driver).await;
}

#[tokio::test]
async fn a_parked_transfer_waits_for_a_person() {
    let bench = Bench::new(1).await;
    let step = Scripted::new([Script::Answer(Err(Failure::park(Code::ErpMissing, "no database")))]);
    let driver = bench.start(&step);
    bench.advance(SECOND * 3_600).await;
    assert!(bench.record(1).await.parked);
    assert_eq!(step.calls(), 1);
    bench.memory.unpark(&key(1)).await.unwrap();
    bench.wake.hint();
    bench.settle().await;
    bench.extracted_once(1).await;
    assert_eq!(bench.seen(), ["started", "parked", "started", "done"]);
    bench.stop(driver).await;
}

#[tokio::test]
async fn a_panic_parks_its_transfer_and_no_other() {
    let mut bench = Bench::new(2).await;
    bench.settings.concurrency = 1;
    let step = Scripted::new([Script::Panic]);
    let driver = bench.start(&step);
    bench.settle().await;
    let failure = bench.record(1).await.last_failure.unwrap();
    assert_eq!((failure.code, failure.disposition), (Code::Internal, Disposition::Park));
    assert!(failure.report.contains("as told"), "{}", failure.report);
    bench.extracted_once(2).await;
    bench.stop(driver).await;
}

#[tokio::test]
async fn a_step_that_waits_is_asked_again_without_counting_as_failed() {
    let bench = Bench::new(1).await;
    let wait = |pause| Script::Answer(Ok(StepOutcome::Wait(pause)));
    let step = Scripted::new([wait(Duration::from_millis(300)), wait(Duration::ZERO)]);
    let driver = bench.start(&step);
    bench.settle().await;
    assert_eq!(bench.record(1).await.attempts, 0);
    // Sooner than the poll, because the driver remembers the pause.
    bench.advance(Duration::from_millis(300)).await;
    assert_eq!(step.calls(), 2, "even a step that asks for no pause gets a short one");
    bench.advance(Duration::from_millis(10)).await;
    bench.extracted_once(1).await;
    assert_eq!(bench.seen(), ["started", "waiting", "started", "waiting", "started", "done"]);
    bench.stop(driver).await;
}

#[tokio::test]
async fn a_long_step_keeps_its_lease_and_is_dropped_when_it_loses_it() {
    let bench = Bench::new(1).await;
    let step = Scripted::new([Script::Hang]);
    let driver = bench.start(&step);
    bench.settle().await;
    for _ in 0..10 {
        bench.advance(SECOND * 20).await;
        assert!(bench.memory.acquire(Stage::Extract, 1, SECOND).await.unwrap().is_empty());
    }
    assert_eq!(step.calls(), 1);
    bench.memory.break_leases().await.unwrap();
    bench.advance(SECOND * 20).await;
    bench.settle().await;
    assert!(bench.seen().contains(&"overtaken"), "{:?}", bench.seen());
    bench.advance(HAND_BACK_PAUSE).await;
    bench.extracted_once(1).await;
    bench.stop(driver).await;
}

#[tokio::test]
async fn a_step_of_the_wall_clock_does_not_begin_running_work_again() {
    let bench = Bench::new(1).await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let step = Scripted::new([Script::Gate(Arc::clone(&gate))]);
    let driver = bench.start(&step);
    bench.settle().await;
    bench.clock.set_wall(bench.clock.now() + SECOND * 86_400);
    bench.wake.hint();
    bench.settle().await;
    for _ in 0..5 {
        bench.advance(SECOND * 2).await;
        assert_eq!((step.calls(), bench.seen()), (1, vec!["started"]), "it is not entered while it runs");
    }
    gate.notify_one();
    bench.settle().await;
    assert_eq!(bench.seen().get(1), Some(&"overtaken"), "its lease is gone, so nothing of it is appended");
    bench.advance(HAND_BACK_PAUSE).await;
    bench.extracted_once(1).await;
    assert_eq!(step.calls(), 2);
    bench.stop(driver).await;
}

#[tokio::test]
async fn a_step_whose_lease_was_lost_to_the_clock_is_dropped_at_its_next_renewal() {
    let bench = Bench::new(1).await;
    let step = Scripted::new([Script::Hang]);
    let driver = bench.start(&step);
    bench.settle().await;
    bench.clock.set_wall(bench.clock.now() + SECOND * 86_400);
    bench.wake.hint();
    bench.settle().await;
    bench.advance(bench.settings.lease_ttl / 3).await;
    assert!(bench.seen().contains(&"overtaken"), "{:?}", bench.seen());
    bench.advance(HAND_BACK_PAUSE).await;
    bench.extracted_once(1).await;
    assert_eq!(step.calls(), 2);
    bench.stop(driver).await;
}

#[tokio::test]
async fn no_more_run_at_once_than_allowed() {
    let mut bench = Bench::new(6).await;
    bench.settings.concurrency = 2;
    let step = Scripted::new((0..6).map(|_| Script::Hang));
    let driver = bench.start(&step);
    bench.advance(SECOND * 5).await;
    assert_eq!(step.calls(), 2);
    bench.interrupt(driver).await;
}

/// A step that ends when its transfer's gate opens, and notes what has begun.
#[derive(Default)]
struct Gated {
    open: Mutex<HashMap<TransferKey, Arc<tokio::sync::Notify>>>,
    begun: Mutex<Vec<TransferKey>>,
}

impl Gated {
    fn gate(&self, key: &TransferKey) -> Arc<tokio::sync::Notify> {
        Arc::clone(self.open.lock().unwrap().entry(key.clone()).or_default())
    }

    /// How many of a tenant have begun.
    fn begun(&self, tenant: &str) -> usize {
        self.begun.lock().unwrap().iter().filter(|key| key.tenant.as_str() == tenant).count()
    }
}

#[async_trait]
impl Step for Gated {
    fn place(&self) -> Place {
        Place::Agent
    }

    fn stage(&self) -> Stage {
        Stage::Extract
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        self.begun.lock().unwrap().push(lease.key().clone());
        self.gate(lease.key()).notified().await;
        Ok(StepOutcome::Event(TransferEvent::Extracted { manifest: Sha256Digest::of(b"manifest") }))
    }
}

#[tokio::test]
async fn a_tenant_whose_steps_never_end_keeps_its_share_and_no_more() {
    let mut bench = Bench::new(0).await;
    (bench.settings.concurrency, bench.settings.per_tenant) = (8, 3);
    let of = |number, tenant: &str| {
        let mut new = planned(number, SequenceChoice::Next);
        new.key.tenant = tenant.parse().unwrap();
        new
    };
    for number in 1..=20 {
        bench.memory.create(of(number, "stuck")).await.unwrap();
    }
    let step = Arc::new(Gated::default());
    let (clock, entropy) = (Arc::new(bench.clock.clone()), Arc::new(SeededEntropy::new(2)));
    let (journal, shared) = (Arc::clone(&bench.memory), Arc::clone(&step) as Arc<dyn Step>);
    let driver = StageDriver::new(journal, shared, clock, entropy, bench.wake.clone(), bench.settings);
    let driver = tokio::spawn(driver.run(bench.shutdown.clone()));
    bench.settle().await;
    assert_eq!(step.begun("stuck"), 3);
    // Others, also those that come later, go on meanwhile, in order and up to what all have together.
    for number in 21..=24 {
        bench.memory.create(of(number, "other")).await.unwrap();
        bench.memory.create(of(number, "third")).await.unwrap();
    }
    bench.wake.hint();
    bench.settle().await;
    assert_eq!([step.begun("stuck"), step.begun("other"), step.begun("third")], [3, 3, 2]);
    // What is next of whoever has its share begins as soon as one of them ends, and no poll is waited for.
    let first = step.begun.lock().unwrap().first().unwrap().clone();
    step.gate(&first).notify_one();
    bench.settle().await;
    assert_eq!([step.begun("stuck"), step.begun("other"), step.begun("third")], [4, 3, 2]);
    let mut stuck = step.begun.lock().unwrap().clone();
    stuck.retain(|key| key.tenant.as_str() == "stuck");
    let expected: Vec<_> = (1..=4).map(|number| of(number, "stuck").key).collect();
    assert_eq!(stuck, expected, "its own go in order");
    bench.advance(SECOND * 5).await;
    assert_eq!([step.begun("stuck"), step.begun("other"), step.begun("third")], [4, 3, 2]);
    bench.interrupt(driver).await;
}

#[tokio::test]
async fn an_agent_whose_steps_never_end_keeps_its_share_and_no_more() {
    let mut bench = Bench::new(0).await;
    (bench.settings.concurrency, bench.settings.per_tenant, bench.settings.per_agent) = (8, 6, 2);
    for (number, agent) in (1..).zip(["stuck", "stuck", "stuck", "other", "other", "other", "third", "third", "fourth"]) {
        let mut new = planned(number, SequenceChoice::Next);
        new.key.agent = agent.parse().unwrap();
        bench.memory.create(new).await.unwrap();
    }
    let step = Arc::new(Gated::default());
    let (clock, entropy) = (Arc::new(bench.clock.clone()), Arc::new(SeededEntropy::new(2)));
    let (journal, shared) = (Arc::clone(&bench.memory), Arc::clone(&step) as Arc<dyn Step>);
    let driver = StageDriver::new(journal, shared, clock, entropy, bench.wake.clone(), bench.settings);
    let driver = tokio::spawn(driver.run(bench.shutdown.clone()));
    bench.advance(SECOND * 5).await;
    let begun = |agent: &str| step.begun.lock().unwrap().iter().filter(|key| key.agent.as_str() == agent).count();
    assert_eq!(["stuck", "other", "third", "fourth"].map(begun), [2, 2, 2, 0], "six are the share of their tenant");
    let first = step.begun.lock().unwrap().first().unwrap().clone();
    step.gate(&first).notify_one();
    bench.settle().await;
    assert_eq!(["stuck", "other", "third", "fourth"].map(begun), [3, 2, 2, 0]);
    bench.interrupt(driver).await;
}

#[tokio::test]
async fn a_share_of_nothing_is_one_and_one_beyond_all_bounds_nothing() {
    for (share, expected) in [(0, 1), (1, 1), (4, 4), (5, 4), (usize::MAX, 4)] {
        let mut bench = Bench::new(6).await;
        (bench.settings.concurrency, bench.settings.per_tenant) = (4, share);
        let step = Scripted::new((0..6).map(|_| Script::Hang));
        let driver = bench.start(&step);
        bench.advance(SECOND * 5).await;
        assert_eq!(step.calls(), expected, "{share}");
        bench.interrupt(driver).await;
    }
}

#[tokio::test]
async fn shutdown_interrupts_what_does_not_finish_and_gives_it_back() {
    let bench = Bench::new(1).await;
    let step = Scripted::new([Script::Hang]);
    let driver = bench.start(&step);
    bench.settle().await;
    bench.shutdown.cancel();
    bench.settle().await;
    bench.advance(bench.settings.shutdown_grace - SECOND).await;
    assert!(!driver.is_finished(), "it waits for the running step");
    bench.memory.create(planned(2, SequenceChoice::Next)).await.unwrap();
    bench.wake.hint();
    bench.advance(SECOND).await;
    assert!(driver.is_finished());
    assert_eq!(bench.seen(), ["started", "interrupted"]);
    assert_eq!(step.calls(), 1, "nothing new is begun");
    assert_eq!(bench.memory.acquire(Stage::Extract, 9, SECOND).await.unwrap().len(), 2, "both are due at once");
}

#[tokio::test]
async fn the_loop_shows_that_it_goes_round_and_rests_while_a_step_runs() {
    let mut bench = Bench::new(1).await;
    bench.settings.concurrency = 1;
    let gate = Arc::new(tokio::sync::Notify::new());
    let step = Scripted::new([Script::Gate(Arc::clone(&gate))]);
    let driver = bench.start(&step);
    let turns = || std::mem::take(&mut *bench.recorder.turns.lock().unwrap());
    bench.settle().await;
    assert_eq!(turns(), [Turn::Working, Turn::Resting]);
    bench.advance(SECOND * 3_600).await;
    assert_eq!(turns(), [], "nothing more is begun, so the loop has nothing to do");
    gate.notify_one();
    bench.settle().await;
    let seen = turns();
    assert!(seen.len() >= 2 && seen.chunks(2).all(|pair| pair == [Turn::Working, Turn::Resting]), "{seen:?}");
    bench.shutdown.cancel();
    driver.await.unwrap();
    assert_ne!(bench.recorder.turns.lock().unwrap().last(), Some(&Turn::Working), "whoever has ended does not hang");
}

#[tokio::test]
async fn shutdown_lets_a_running_step_finish() {
    let bench = Bench::new(1).await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let step = Scripted::new([Script::Gate(Arc::clone(&gate))]);
    let driver = bench.start(&step);
    bench.settle().await;
    bench.shutdown.cancel();
    bench.settle().await;
    assert!(!driver.is_finished());
    gate.notify_one();
    bench.settle().await;
    bench.extracted_once(1).await;
    assert_eq!(bench.seen(), ["started", "done"]);
    bench.stop(driver).await;
}

#[tokio::test]
async fn whatever_call_of_the_journal_fails_the_event_is_appended_once() {
    for operation in [Operation::Acquire, Operation::Append, Operation::Release, Operation::Renew] {
        for fault in [Fault::Before, Fault::After] {
            for times in [1, 2, 5] {
                let bench = Bench::new(1).await;
                let plan = move |called, nth| (called == operation && nth <= times).then_some(fault);
                let journal = Arc::new(FaultJournal::new(Arc::clone(&bench.memory), plan));
                let step = Scripted::new([]);
                let driver = tokio::spawn(bench.driver(&step, journal).run(bench.shutdown.clone()));
                for _ in 0..120 {
                    bench.advance(SECOND * 5).await;
                }
                bench.extracted_once(1).await;
                let failures = bench.recorder.journal_failures.load(Ordering::SeqCst);
                assert_eq!(failures > 0, operation != Operation::Renew, "{operation:?} {fault:?}");
                bench.shutdown.cancel();
                driver.await.unwrap();
            }
        }
    }
}

/// Stops for ever at a point; the test then drops the driver.
struct StopAt(Point);

#[async_trait]
impl FailPoints for StopAt {
    async fn hit(&self, _: Place, _: Stage, point: Point, _: &TransferKey) {
        if point == self.0 {
            std::future::pending::<()>().await;
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_point_is_mended_by_a_restart() {
    for (point, effects) in [(Point::BeforeEffect, 1), (Point::AfterEffect, 2), (Point::AfterJournal, 1)] {
        let bench = Bench::new(1).await;
        let step = Scripted::new([]);
        let crashing = bench.driver(&step, Arc::clone(&bench.memory)).with_failpoints(Arc::new(StopAt(point)));
        let crashing = tokio::spawn(crashing.run(bench.shutdown.clone()));
        bench.settle().await;
        crashing.abort();
        assert!(crashing.await.unwrap_err().is_cancelled());
        bench.settle().await;
        assert_eq!(bench.memory.break_leases().await.unwrap(), 1, "a crash leaves its lease");
        let driver = bench.start(&step);
        bench.settle().await;
        bench.extracted_once(1).await;
        assert_eq!(step.calls(), effects, "{point}");
        bench.stop(driver).await;
    }
}
