//! The contract of [`Journal`] as checks that every implementation passes. For tests only.
#![expect(clippy::unwrap_used, reason = "a check that cannot go on fails its test")]

mod views;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use towpath_transfer::{
    Clock, Code, Direction, Disposition, Sequence, Stage, TransferEvent, TransferId, TransferKey, TransferState,
    clock::{ManualClock, SeededEntropy},
    digest::Sha256Digest,
    failure::FailureRecord,
    state::{Identity, Outcome, Place, Rejection},
};

use crate::{
    CLOCK_TOLERANCE, Created, Filter, Journal, JournalError, Lease, MAX_ACQUIRE, MAX_EVENT_BYTES, MAX_EVENTS, MAX_PAUSE,
    MachineBinding, NewTransfer, Order, Prune, Release, SequenceChoice, Sharer, TransferRecord, Wanted, verify,
};

use views::{
    a_journal_knows_its_machine, a_number_that_many_have_overtaken_is_not_used, acquiring_follows_what_is_wanted,
    acquiring_is_limited_and_in_order, acquiring_passes_sharers_over, counts_agree_with_the_listing, events_are_limited,
    listings_filter_and_page, one_tenants_business_pushes_nothing_of_another_out, pruning_keeps_what_it_must,
    unknown_transfers_are_not_found, what_is_untouched_can_be_withdrawn, what_is_untouched_can_begin_anew,
    what_waits_for_its_sender_for_ever_goes_and_may_come_back,
};

const TTL: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// An empty journal of [`Place::Agent`] and the clock it looks at.
#[derive(Clone)]
pub struct Fixture {
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The same journal, where it can be bound to a machine.
    pub binding: Option<Arc<dyn MachineBinding>>,
    /// Its clock, at [`start`].
    pub clock: ManualClock,
}

/// When every check begins. It has more digits than a journal keeps.
#[must_use]
pub fn start() -> Timestamp {
    Timestamp::new(1_790_000_000, 123_456_789).unwrap()
}

/// A transfer of tenant `acme`, agent `erp`; the same number gives the same transfer.
#[must_use]
pub fn key(number: u64) -> TransferKey {
    let clock = ManualClock::new(start());
    let id = TransferId::new(&clock, &SeededEntropy::new(number));
    TransferKey { tenant: "acme".parse().unwrap(), agent: "erp".parse().unwrap(), id }
}

/// A planned uplink.
#[must_use]
pub fn planned(number: u64, sequence: SequenceChoice) -> NewTransfer {
    let (direction, state) = (Direction::Uplink, TransferState::Planned);
    NewTransfer { key: key(number), direction, job: Some("main".parse().unwrap()), state, sequence }
}

fn extracted() -> TransferEvent {
    TransferEvent::Extracted { manifest: Sha256Digest::of(b"manifest") }
}

fn packed() -> TransferEvent {
    TransferEvent::Packed { packed: Sha256Digest::of(b"packed") }
}

fn identity() -> Identity {
    Identity { manifest: Sha256Digest::of(b"manifest"), packed: Sha256Digest::of(b"packed") }
}

fn failure() -> FailureRecord {
    FailureRecord { code: Code::RelayUnreachable, disposition: Disposition::Retry, report: "no answer".into() }
}

impl Fixture {
    async fn plan(&self, number: u64) -> TransferRecord {
        let created = self.journal.create(planned(number, SequenceChoice::Next)).await.unwrap();
        assert!(created.is_new());
        created.into_record()
    }

    async fn lease(&self, stage: Stage) -> Vec<Lease> {
        self.journal.acquire(stage, 10, TTL).await.unwrap()
    }

    async fn one(&self, stage: Stage) -> Lease {
        let mut leases = self.lease(stage).await;
        assert_eq!(leases.len(), 1, "one transfer is due for {stage}");
        leases.pop().unwrap()
    }

    async fn record(&self, number: u64) -> TransferRecord {
        self.journal.get(&key(number)).await.unwrap().unwrap()
    }

    async fn abandon(&self, number: u64) {
        let event = TransferEvent::Abandoned { reason: "test".into() };
        self.journal.append_unleased(&key(number), 0, &event).await.unwrap();
    }
}

/// Every check, each on a journal of its own from `make`.
pub async fn all(make: impl AsyncFn() -> Fixture) {
    creation_is_idempotent(make().await).await;
    sequences_are_allotted_and_forks_refused(make().await).await;
    lines_of_sequences_are_apart(make().await).await;
    of_one_job_one_is_open(make().await).await;
    a_lease_excludes_others_until_it_ends(make().await).await;
    a_stale_lease_cannot_do_anything(make().await).await;
    a_renewed_lease_lasts(make().await).await;
    events_are_counted_and_replayed(make().await).await;
    illegal_and_oversized_events_are_refused(make().await).await;
    a_message_overtakes_a_lease(make().await).await;
    releases_say_what_happens_next(make().await).await;
    a_release_after_something_else_happened_only_ends_the_lease(make().await).await;
    parked_transfers_wait_for_a_person(make().await).await;
    broken_leases_are_due_at_once(make().await).await;
    a_clock_turned_back_stalls_nothing(make().await).await;
    acquiring_is_limited_and_in_order(make().await).await;
    acquiring_passes_sharers_over(make().await).await;
    acquiring_follows_what_is_wanted(make().await).await;
    listings_filter_and_page(make().await).await;
    counts_agree_with_the_listing(make().await).await;
    pruning_keeps_what_it_must(make().await).await;
    a_number_that_many_have_overtaken_is_not_used(make().await).await;
    one_tenants_business_pushes_nothing_of_another_out(make().await).await;
    what_waits_for_its_sender_for_ever_goes_and_may_come_back(make().await).await;
    what_is_untouched_can_be_withdrawn(make().await).await;
    what_is_untouched_can_begin_anew(make().await).await;
    unknown_transfers_are_not_found(make().await).await;
    events_are_limited(make().await).await;
    a_journal_knows_its_machine(make().await).await;
}

async fn creation_is_idempotent(t: Fixture) {
    let new = planned(1, SequenceChoice::Next);
    let first = t.journal.create(new.clone()).await.unwrap();
    t.clock.advance(SECOND);
    let second = t.journal.create(NewTransfer { sequence: SequenceChoice::Given(Some(Sequence(9))), ..new }).await.unwrap();
    assert_eq!(second, Created::Existing(first.record().clone()));
    let record = first.record();
    assert_eq!(t.journal.get(&key(1)).await.unwrap().as_ref(), Some(record));
    assert_eq!((record.place, t.journal.place()), (Place::Agent, Place::Agent));
    assert_eq!(record.created, Timestamp::from_microsecond(start().as_microsecond()).unwrap());
    assert_eq!((record.events, record.attempts, record.parked, record.sequence), (0, 0, false, Some(Sequence(1))));
    t.journal.health().await.unwrap();
}

async fn sequences_are_allotted_and_forks_refused(t: Fixture) {
    let line = key(1);
    let last = async || t.journal.last_sequence(&line.tenant, &line.agent, Direction::Uplink).await.unwrap();
    assert_eq!(last().await, None);
    let given = |number, sequence| t.journal.create(planned(number, SequenceChoice::Given(sequence)));
    assert_eq!(given(1, None).await.unwrap().record().sequence, None);
    given(2, Some(Sequence(5))).await.unwrap();
    let fork = given(3, Some(Sequence(5))).await.unwrap_err();
    assert!(matches!(fork, JournalError::SequenceForked { sequence: Sequence(5), .. }), "{fork:?}");
    assert_eq!(fork.code(), Code::SequenceForked);
    assert_eq!(t.journal.get(&key(3)).await.unwrap(), None);
    assert_eq!(t.plan(4).await.sequence, Some(Sequence(6)));
    given(5, Some(Sequence(3))).await.unwrap();
    assert_eq!(last().await, Some(Sequence(6)));
    for (number, beyond) in [(6, u64::MAX), (7, 1 << 63)] {
        let error = given(number, Some(Sequence(beyond))).await.unwrap_err();
        assert_eq!(error.code(), Code::LimitExceeded);
    }
}

async fn lines_of_sequences_are_apart(t: Fixture) {
    t.plan(1).await;
    let mut other = planned(1, SequenceChoice::Given(Some(Sequence(1))));
    other.key.tenant = "other".parse().unwrap();
    assert!(t.journal.create(other.clone()).await.unwrap().is_new(), "the same id of another tenant is another transfer");
    let mut down = planned(2, SequenceChoice::Next);
    down.direction = Direction::Downlink;
    assert_eq!(t.journal.create(down).await.unwrap().record().sequence, Some(Sequence(1)));
    let mut agent = planned(3, SequenceChoice::Next);
    agent.key.agent = "second".parse().unwrap();
    assert_eq!(t.journal.create(agent).await.unwrap().record().sequence, Some(Sequence(1)));
    t.journal.append_unleased(&other.key, 0, &extracted()).await.unwrap();
    assert_eq!(t.record(1).await.state, TransferState::Planned);
}

async fn of_one_job_one_is_open(t: Fixture) {
    let next = |number| planned(number, SequenceChoice::NextOfJob);
    let create = async |new: NewTransfer| t.journal.create(new).await.unwrap();
    let first = create(next(1)).await;
    assert!(first.is_new());
    assert_eq!(first.record().sequence, Some(Sequence(1)));
    let second = create(next(2)).await;
    assert!(!second.is_new());
    assert_eq!((second.record(), t.journal.get(&key(2)).await.unwrap()), (first.record(), None));
    // Another job, direction, agent or tenant has its own; so have those without a job.
    let others: [fn(&mut NewTransfer); 5] = [
        |new| new.job = Some("other".parse().unwrap()),
        |new| new.job = None,
        |new| new.direction = Direction::Downlink,
        |new| new.key.agent = "second".parse().unwrap(),
        |new| new.key.tenant = "other".parse().unwrap(),
    ];
    for (number, change) in (10..).zip(others) {
        let mut new = next(number);
        change(&mut new);
        assert!(create(new).await.is_new(), "{number}");
    }
    // One that waits for a person leaves room, and so does one that has ended.
    let lease = t.journal.acquire(Stage::Extract, 1, TTL).await.unwrap().pop().unwrap();
    assert_eq!(lease.record.key, key(1));
    assert!(!create(next(3)).await.is_new());
    t.journal.release(&lease, Release::Park { failure: failure() }).await.unwrap();
    assert!(create(next(3)).await.is_new());
    t.abandon(3).await;
    assert!(create(next(4)).await.is_new());
    assert!(!create(next(3)).await.is_new(), "the same key is the same transfer, also when it has ended");
}

async fn a_lease_excludes_others_until_it_ends(t: Fixture) {
    t.plan(1).await;
    assert!(t.lease(Stage::Pack).await.is_empty());
    let lease = t.one(Stage::Extract).await;
    assert_eq!(lease.attempts(), 1);
    assert!(t.lease(Stage::Extract).await.is_empty());
    t.clock.advance(TTL - SECOND);
    assert!(t.lease(Stage::Extract).await.is_empty());
    t.clock.advance(SECOND);
    let second = t.one(Stage::Extract).await;
    assert_ne!(second.token, lease.token);
    assert_eq!(second.attempts(), 2);
    t.journal.append(&second, 0, &extracted()).await.unwrap();
    assert!(t.lease(Stage::Pack).await.is_empty(), "the transfer stays leased");
    t.journal.release(&second, Release::Done).await.unwrap();
    assert_eq!(t.one(Stage::Pack).await.attempts(), 1);
}

async fn a_stale_lease_cannot_do_anything(t: Fixture) {
    t.plan(1).await;
    let stale = t.one(Stage::Extract).await;
    t.clock.advance(TTL);
    let good = t.one(Stage::Extract).await;
    let before = t.record(1).await;
    let lost = |error: JournalError| assert!(matches!(error, JournalError::LeaseLost(_)), "{error:?}");
    lost(t.journal.append(&stale, 0, &extracted()).await.unwrap_err());
    lost(t.journal.renew(&stale, TTL).await.unwrap_err());
    lost(t.journal.release(&stale, Release::Park { failure: failure() }).await.unwrap_err());
    assert_eq!(t.record(1).await, before);
    assert!(t.journal.history(&key(1)).await.unwrap().entries.is_empty());
    let wrong = t.journal.append(&good, 1, &extracted()).await.unwrap_err();
    assert!(matches!(wrong, JournalError::Conflict { expected: 1, actual: 0, .. }), "{wrong:?}");
    t.journal.append(&good, 0, &extracted()).await.unwrap();
    let again = t.journal.append(&good, 0, &extracted()).await.unwrap_err();
    assert!(matches!(again, JournalError::Conflict { expected: 0, actual: 1, .. }), "{again:?}");
}

async fn a_renewed_lease_lasts(t: Fixture) {
    t.plan(1).await;
    let lease = t.one(Stage::Extract).await;
    t.clock.advance(TTL - SECOND);
    let until = t.journal.renew(&lease, TTL).await.unwrap();
    assert!(until > lease.until);
    t.clock.advance(TTL - SECOND);
    assert!(t.lease(Stage::Extract).await.is_empty());
    t.clock.advance(SECOND * 2);
    // An expired lease that nobody took is still good.
    t.journal.renew(&lease, Duration::MAX).await.unwrap();
    t.clock.advance(MAX_PAUSE - SECOND);
    assert!(t.lease(Stage::Extract).await.is_empty());
    t.clock.advance(SECOND);
    t.one(Stage::Extract).await;
}

async fn events_are_counted_and_replayed(t: Fixture) {
    t.plan(1).await;
    let lease = t.one(Stage::Extract).await;
    t.clock.advance(SECOND);
    let record = t.journal.append(&lease, 0, &extracted()).await.unwrap();
    assert_eq!((record.events, record.attempts, record.stage()), (1, 0, Some(Stage::Pack)));
    assert_eq!(record.changed.duration_since(record.created).as_secs(), 1);
    let record = t.journal.append(&lease, 1, &packed()).await.unwrap();
    assert_eq!(record.state, TransferState::Packed { identity: identity() });
    assert_eq!(t.record(1).await, record);
    let history = t.journal.history(&key(1)).await.unwrap();
    assert_eq!(history.start, TransferState::Planned);
    assert_eq!(history.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(history.entries.iter().map(|entry| &entry.event).collect::<Vec<_>>(), [&extracted(), &packed()]);
    assert!(history.entries.iter().all(|entry| entry.at == record.changed));
    verify(&*t.journal, &key(1)).await.unwrap();
}

async fn illegal_and_oversized_events_are_refused(t: Fixture) {
    let before = t.plan(1).await;
    let illegal = t.journal.append_unleased(&key(1), 0, &TransferEvent::Pushed).await.unwrap_err();
    assert!(matches!(illegal, JournalError::Illegal { .. }), "{illegal:?}");
    let reason = "x".repeat(MAX_EVENT_BYTES);
    let large = t.journal.append_unleased(&key(1), 0, &TransferEvent::Abandoned { reason }).await.unwrap_err();
    assert_eq!(large.code(), Code::LimitExceeded);
    assert_eq!(t.record(1).await, before);
    assert!(t.journal.history(&key(1)).await.unwrap().entries.is_empty());
}

async fn a_message_overtakes_a_lease(t: Fixture) {
    t.plan(1).await;
    let lease = t.one(Stage::Extract).await;
    t.abandon(1).await;
    let late = t.journal.append(&lease, 0, &extracted()).await.unwrap_err();
    assert!(matches!(late, JournalError::Conflict { .. }), "{late:?}");
    t.journal.release(&lease, Release::Done).await.unwrap();
    assert!(t.record(1).await.state.is_final());
    verify(&*t.journal, &key(1)).await.unwrap();
}

async fn releases_say_what_happens_next(t: Fixture) {
    t.plan(1).await;
    let at = |pause| t.clock.now().saturating_add(pause).unwrap();
    let lease = t.one(Stage::Extract).await;
    t.journal.release(&lease, Release::RetryAt { at: at(SECOND * 5), failure: failure() }).await.unwrap();
    t.journal.release(&lease, Release::Done).await.unwrap();
    let record = t.record(1).await;
    assert_eq!((record.attempts, record.last_failure, record.parked), (1, Some(failure()), false));
    assert!(record.not_before.is_some());
    t.clock.advance(SECOND * 4);
    assert!(t.lease(Stage::Extract).await.is_empty());
    t.clock.advance(SECOND);
    let lease = t.one(Stage::Extract).await;
    assert_eq!((lease.attempts(), lease.record.not_before), (2, None));
    t.journal.release(&lease, Release::WaitUntil { at: at(SECOND) }).await.unwrap();
    let record = t.record(1).await;
    assert_eq!((record.attempts, record.last_failure), (0, None));
    t.clock.advance(SECOND);
    let lease = t.one(Stage::Extract).await;
    t.journal.release(&lease, Release::WaitUntil { at: at(MAX_PAUSE * 2) }).await.unwrap();
    t.clock.advance(MAX_PAUSE);
    let lease = t.one(Stage::Extract).await;
    // A time that is past means at once.
    t.journal.release(&lease, Release::WaitUntil { at: Timestamp::UNIX_EPOCH }).await.unwrap();
    t.one(Stage::Extract).await;
}

async fn a_release_after_something_else_happened_only_ends_the_lease(t: Fixture) {
    t.plan(1).await;
    let lease = t.one(Stage::Extract).await;
    t.journal.append_unleased(&key(1), 0, &extracted()).await.unwrap();
    assert!(t.lease(Stage::Pack).await.is_empty(), "one worker at a time");
    t.journal.release(&lease, Release::Park { failure: failure() }).await.unwrap();
    let record = t.record(1).await;
    assert_eq!((record.parked, record.last_failure), (false, None));
    t.one(Stage::Pack).await;
}

async fn parked_transfers_wait_for_a_person(t: Fixture) {
    t.plan(1).await;
    let lease = t.one(Stage::Extract).await;
    t.journal.release(&lease, Release::Park { failure: failure() }).await.unwrap();
    t.clock.advance(MAX_PAUSE);
    assert!(t.lease(Stage::Extract).await.is_empty());
    assert!(t.record(1).await.parked);
    let record = t.journal.unpark(&key(1)).await.unwrap();
    assert_eq!((record.parked, record.attempts, record.last_failure.clone()), (false, 0, Some(failure())));
    assert_eq!(t.journal.unpark(&key(1)).await.unwrap(), record);
    let lease = t.one(Stage::Extract).await;
    t.journal.unpark(&key(1)).await.unwrap();
    assert!(t.lease(Stage::Extract).await.is_empty(), "a running lease goes on");
    t.journal.release(&lease, Release::Park { failure: failure() }).await.unwrap();
    // What a message moves on is parked no more.
    let record = t.journal.append_unleased(&key(1), 0, &extracted()).await.unwrap();
    assert_eq!((record.parked, record.last_failure), (false, None));
    t.one(Stage::Pack).await;
}

async fn broken_leases_are_due_at_once(t: Fixture) {
    t.plan(1).await;
    t.plan(2).await;
    let leases = t.lease(Stage::Extract).await;
    assert_eq!(t.journal.break_leases().await.unwrap(), 2);
    assert_eq!(t.journal.break_leases().await.unwrap(), 0);
    let gone = leases.first().unwrap();
    assert!(matches!(t.journal.append(gone, 0, &extracted()).await, Err(JournalError::LeaseLost(_))));
    t.journal.release(gone, Release::Park { failure: failure() }).await.unwrap();
    assert!(!t.record(1).await.parked);
    assert_eq!(t.lease(Stage::Extract).await.len(), 2);
}

async fn a_clock_turned_back_stalls_nothing(t: Fixture) {
    t.plan(1).await;
    let lease = t.one(Stage::Extract).await;
    let at = t.clock.now().saturating_add(SECOND * 30).unwrap();
    t.journal.release(&lease, Release::RetryAt { at, failure: failure() }).await.unwrap();
    let now = t.clock.now();
    t.clock.set_wall(now.saturating_sub(CLOCK_TOLERANCE).unwrap());
    assert!(t.lease(Stage::Extract).await.is_empty(), "a small correction changes nothing");
    t.clock.set_wall(now.saturating_sub(MAX_PAUSE).unwrap());
    t.one(Stage::Extract).await;
    assert!(t.lease(Stage::Extract).await.is_empty());
}
