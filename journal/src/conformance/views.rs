//! The checks of what is read across transfers: listings, counts, pruning, limits, the machine.
#![expect(clippy::unwrap_used, reason = "a check that cannot go on fails its test")]

use super::*;

pub(super) async fn acquiring_is_limited_and_in_order(t: Fixture) {
    for number in 1..=5 {
        t.plan(number).await;
    }
    assert!(t.journal.acquire(Stage::Extract, 0, TTL).await.unwrap().is_empty());
    let sequences = |leases: Vec<Lease>| leases.iter().map(|lease| lease.record.sequence.unwrap().0).collect::<Vec<_>>();
    let mut first = t.journal.acquire(Stage::Extract, 2, TTL).await.unwrap();
    assert_eq!(sequences(first.clone()), [1, 2]);
    // One that pauses and is due again goes first, for it was created first.
    let (lease, at) = (first.remove(0), t.clock.now());
    t.journal.release(&lease, Release::RetryAt { at, failure: failure() }).await.unwrap();
    assert_eq!(sequences(t.journal.acquire(Stage::Extract, 2, TTL).await.unwrap()), [1, 3]);
    assert_eq!(sequences(t.journal.acquire(Stage::Extract, usize::MAX, TTL).await.unwrap()), [4, 5]);
    for number in 6..=MAX_ACQUIRE as u64 + 6 {
        t.plan(number).await;
    }
    assert_eq!(t.journal.acquire(Stage::Extract, usize::MAX, TTL).await.unwrap().len(), MAX_ACQUIRE);
}

/// What is leased of what is wanted, by serials.
async fn take(t: &Fixture, wanted: &Wanted, limit: usize) -> Vec<u64> {
    let leases = t.journal.acquire_wanted(wanted, limit, TTL).await.unwrap();
    leases.iter().map(|lease| lease.record.serial).collect()
}

pub(super) async fn acquiring_passes_sharers_over(t: Fixture) {
    for (number, tenant, agent) in [
        (1, "acme", "erp"),
        (2, "acme", "erp"),
        (3, "other", "erp"),
        (4, "third", "erp"),
        (5, "acme", "store"),
        (6, "other", "store"),
    ] {
        let mut new = planned(number, SequenceChoice::Given(None));
        (new.key.tenant, new.key.agent) = (tenant.parse().unwrap(), agent.parse().unwrap());
        t.journal.create(new).await.unwrap();
    }
    let sharer = |name: &&str| {
        let (tenant, agent) = name.split_once('/').map_or((*name, None), |(tenant, agent)| (tenant, Some(agent)));
        Sharer { tenant: tenant.parse().unwrap(), agent: agent.map(|agent| agent.parse().unwrap()) }
    };
    for order in [Order::Created, Order::Due] {
        let take = async |limit, without: &[&str]| {
            let wanted = Wanted { order, without: without.iter().map(sharer).collect(), ..Wanted::of(Stage::Extract) };
            take(&t, &wanted, limit).await
        };
        assert_eq!(take(9, &["acme", "other", "third"]).await, [0u64; 0]);
        assert_eq!(take(9, &["acme/erp", "acme/store", "other", "third"]).await, [0u64; 0]);
        assert_eq!(take(1, &["acme", "nobody"]).await, [3], "the limit counts what is not passed over");
        assert_eq!(take(9, &["acme/erp", "other", "third/store"]).await, [4, 5], "an agent of another tenant has another share");
        assert_eq!(take(9, &["acme", "third"]).await, [6]);
        assert_eq!(take(2, &[]).await, [1, 2]);
        // Also what is due because the clock was turned back.
        t.clock.set_wall(t.clock.now().saturating_sub(MAX_PAUSE).unwrap());
        assert_eq!(take(9, &["acme/erp", "other/store"]).await.len(), 3);
        assert_eq!(take(9, &["other/erp", "third"]).await.len(), 3);
        t.clock.advance(TTL + SECOND);
    }
}

pub(super) async fn acquiring_follows_what_is_wanted(t: Fixture) {
    for number in 1..=4 {
        let mut new = planned(number, SequenceChoice::Given(None));
        if number % 2 == 0 {
            new.direction = Direction::Downlink;
        }
        t.journal.create(new).await.unwrap();
    }
    let all = Wanted::of(Stage::Extract);
    let longest = Wanted { order: Order::Due, ..all.clone() };
    let of = |direction| Wanted { direction: Some(direction), ..longest.clone() };
    assert_eq!(take(&t, &of(Direction::Downlink), 9).await, [2, 4]);
    assert_eq!(take(&t, &Wanted { direction: Some(Direction::Uplink), ..all.clone() }, 1).await, [1]);
    assert_eq!(take(&t, &of(Direction::Uplink), 9).await, [3]);
    t.clock.advance(TTL + SECOND);
    // They are due again one after the other, in another order than that of creation.
    for (lease, pause) in t.journal.acquire(Stage::Extract, 9, TTL).await.unwrap().into_iter().zip([3, 1, 4, 2]) {
        let at = t.clock.now() + SECOND * pause;
        t.journal.release(&lease, Release::WaitUntil { at }).await.unwrap();
    }
    t.clock.advance(SECOND * 3);
    assert_eq!(take(&t, &longest, 2).await, [2, 4]);
    t.clock.advance(SECOND);
    assert_eq!(take(&t, &longest, 1).await, [1], "it is due for longer than the other, which was made later");
    assert_eq!(take(&t, &all, 9).await, [3]);
}

pub(super) async fn listings_filter_and_page(t: Fixture) {
    for number in 1..=4 {
        t.plan(number).await;
    }
    t.abandon(2).await;
    let mut other = planned(5, SequenceChoice::Given(None));
    (other.job, other.direction) = (None, Direction::Downlink);
    other.key.tenant = "other".parse().unwrap();
    t.journal.create(other.clone()).await.unwrap();
    let lease = t.journal.acquire(Stage::Extract, 1, TTL).await.unwrap().pop().unwrap();
    t.journal.release(&lease, Release::Park { failure: failure() }).await.unwrap();

    let serials = async |filter: Filter, limit, before| {
        let records = t.journal.list(&filter, limit, before).await.unwrap();
        assert!(records.iter().all(|record| filter.matches(record)));
        records.iter().map(|record| record.serial).collect::<Vec<_>>()
    };
    let any = Filter::default();
    assert_eq!(serials(any.clone(), usize::MAX, None).await, [5, 4, 3, 2, 1]);
    assert_eq!(serials(any.clone(), 2, None).await, [5, 4]);
    assert_eq!(serials(any.clone(), 2, Some(4)).await, [3, 2]);
    assert_eq!(serials(any.clone(), 0, None).await, [0u64; 0]);
    let list = async |filter| serials(filter, 10, None).await;
    assert_eq!(list(Filter { tenant: Some(other.key.tenant.clone()), ..any.clone() }).await, [5]);
    assert_eq!(list(Filter { agent: Some("nobody".parse().unwrap()), ..any.clone() }).await, [0u64; 0]);
    assert_eq!(list(Filter { id: Some(other.key.id), ..any.clone() }).await, [5]);
    assert_eq!(list(Filter { direction: Some(Direction::Uplink), ..any.clone() }).await, [4, 3, 2, 1]);
    assert_eq!(list(Filter { job: Some("main".parse().unwrap()), ..any.clone() }).await, [4, 3, 2, 1]);
    assert_eq!(list(Filter { state: Some("abandoned".into()), ..any.clone() }).await, [2]);
    assert_eq!(list(Filter { stage: Some(Stage::Extract), ..any.clone() }).await, [5, 4, 3, 1]);
    assert_eq!(list(Filter { parked: Some(true), ..any.clone() }).await, [1]);
    assert_eq!(list(Filter { parked: Some(false), ended: Some(false), ..any.clone() }).await, [5, 4, 3]);
    assert_eq!(list(Filter { ended: Some(true), ..any.clone() }).await, [2]);
    assert_eq!(list(Filter { sequence_below: Some(Sequence(3)), ended: Some(false), ..any.clone() }).await, [1]);
    let hostile = Filter { state: Some("' OR 1=1 --".into()), ..any };
    assert_eq!(list(hostile).await, [0u64; 0]);
}

pub(super) async fn counts_agree_with_the_listing(t: Fixture) {
    assert!(t.journal.counts().await.unwrap().is_empty());
    for number in 1..=4 {
        t.plan(number).await;
        t.clock.advance(SECOND);
    }
    t.abandon(2).await;
    let lease = t.journal.acquire(Stage::Extract, 1, TTL).await.unwrap().pop().unwrap();
    t.journal.release(&lease, Release::Park { failure: failure() }).await.unwrap();
    let counts = t.journal.counts().await.unwrap();
    let shown: Vec<_> = counts.iter().map(|c| (c.state.as_str(), c.stage, c.parked, c.transfers)).collect();
    let stage = Some(Stage::Extract);
    assert_eq!(shown, [("abandoned", None, false, 1), ("planned", stage, false, 2), ("planned", stage, true, 1)]);
    let oldest = t.record(3).await.changed;
    assert_eq!(counts.get(1).unwrap().oldest_change, oldest);
}

fn over(older_than: Timestamp, keep: u64, limit: usize) -> Prune {
    Prune { limit, ..Prune::over(older_than, keep) }
}

pub(super) async fn pruning_keeps_what_it_must(t: Fixture) {
    for number in 1..=6 {
        t.plan(number).await;
    }
    for number in [1, 2, 3, 5, 6] {
        t.abandon(number).await;
    }
    let now = t.clock.now();
    assert_eq!(t.journal.prune(&over(now, 0, 10)).await.unwrap(), 0, "they ended just now");
    t.clock.advance(SECOND);
    let later = t.clock.now();
    assert_eq!(t.journal.prune(&over(later, 3, 10).sparing(vec![1, 2])).await.unwrap(), 0, "those that could go are spared");
    assert_eq!(t.journal.prune(&over(later, 3, 1)).await.unwrap(), 1);
    assert_eq!(t.journal.prune(&over(later, 3, 10)).await.unwrap(), 1);
    assert_eq!(t.journal.prune(&over(later, 3, 10)).await.unwrap(), 0, "the newest three are kept");
    assert_eq!(t.journal.prune(&over(later, u64::MAX, 10)).await.unwrap(), 0);
    let left = t.journal.list(&Filter::default(), 10, None).await.unwrap();
    assert_eq!(left.iter().map(|record| record.serial).collect::<Vec<_>>(), [6, 5, 4, 3]);
    assert!(matches!(t.journal.history(&key(1)).await, Err(JournalError::NotFound(_))));
    assert_eq!(t.journal.prune(&over(later, 0, usize::MAX)).await.unwrap(), 3);

    // What was pruned is still known to have been: its numbers and its serials are not used again.
    let line = key(1);
    assert_eq!(t.journal.last_sequence(&line.tenant, &line.agent, Direction::Uplink).await.unwrap(), Some(Sequence(6)));
    let replayed = t.journal.create(planned(1, SequenceChoice::Given(Some(Sequence(1))))).await.unwrap_err();
    assert!(matches!(replayed, JournalError::SequenceForked { .. }), "{replayed:?}");
    let next = t.plan(7).await;
    assert_eq!((next.sequence, next.serial), (Some(Sequence(7)), 7));
}

pub(super) async fn a_number_that_many_have_overtaken_is_not_used(t: Fixture) {
    for number in [3, 7, 4] {
        refused(&t, number, number).await;
    }
    assert_eq!(t.journal.prune(&over(t.clock.now(), 0, 10)).await.unwrap(), 3);
    for pruned in [3, 4, 7] {
        let replayed = t.journal.create(offered(100 + pruned, pruned)).await.unwrap_err();
        assert!(matches!(replayed, JournalError::SequenceForked { .. }), "{replayed:?}");
    }
    for late in [5, 2, 6, 1] {
        assert_eq!(t.journal.create(offered(late, late)).await.unwrap().record().sequence, Some(Sequence(late)));
        let twice = t.journal.create(offered(100 + late, late)).await.unwrap_err();
        assert!(matches!(twice, JournalError::SequenceForked { .. }), "{twice:?}");
    }
    assert!(t.journal.withdraw(&key(5)).await.unwrap());
    refused(&t, 5, 5).await;
    assert_eq!(t.journal.prune(&over(t.clock.now(), 0, 10)).await.unwrap(), 1);
    assert!(t.journal.create(offered(105, 5)).await.is_err(), "it has come, and was pruned");
}

/// A transfer of another tenant, which ends or waits for its files.
async fn other(t: &Fixture, number: u64, state: TransferState) {
    let mut new = planned(number, SequenceChoice::Given(Some(Sequence(number))));
    new.key.tenant = "other".parse().unwrap();
    new.state = state;
    t.journal.create(new).await.unwrap();
}

pub(super) async fn one_tenants_business_pushes_nothing_of_another_out(t: Fixture) {
    for number in 1..=4 {
        t.plan(number).await;
        t.abandon(number).await;
    }
    other(&t, 1, TransferState::Abandoned { reason: "test".into() }).await;
    let ids = async |tenant: &str| {
        let filter = Filter { tenant: Some(tenant.parse().unwrap()), ..Filter::default() };
        t.journal.list(&filter, 10, None).await.unwrap().iter().map(|record| record.serial).collect::<Vec<_>>()
    };
    t.clock.advance(SECOND);
    let later = t.clock.now();
    assert_eq!(t.journal.prune(&over(later, 1, 10).of(&"other".parse().unwrap())).await.unwrap(), 0);
    assert_eq!(t.journal.prune(&over(later, 2, 10).of(&"acme".parse().unwrap())).await.unwrap(), 2);
    assert_eq!((ids("acme").await, ids("other").await), (vec![4, 3], vec![5]));
    assert_eq!(t.journal.prune(&over(later, 0, 10).of(&"other".parse().unwrap())).await.unwrap(), 1);
    assert_eq!((ids("acme").await, ids("other").await), (vec![4, 3], Vec::new()));
}

pub(super) async fn what_waits_for_its_sender_for_ever_goes_and_may_come_back(t: Fixture) {
    let incomplete = || TransferState::Incomplete { missing: Vec::new() };
    t.plan(1).await;
    for number in 1..=3 {
        other(&t, number, incomplete()).await;
        t.clock.advance(SECOND);
    }
    let (other_tenant, now) = ("other".parse().unwrap(), t.clock.now());
    let what = |older_than, keep| over(older_than, keep, 10).incomplete();
    assert_eq!(t.journal.prune(&what(now, 0).of(&"acme".parse().unwrap())).await.unwrap(), 0, "a planned one is not meant");
    assert_eq!(t.journal.prune(&what(now - SECOND * 3, 0)).await.unwrap(), 0, "they are younger");
    assert_eq!(t.journal.prune(&what(now, 2).of(&other_tenant)).await.unwrap(), 1);
    assert_eq!(t.journal.prune(&what(now, 0)).await.unwrap(), 2);
    assert_eq!(t.journal.list(&Filter::default(), 10, None).await.unwrap().len(), 1);
    // Its number was never used up: whoever comes back has the only transfer of it.
    other(&t, 3, incomplete()).await;
    other(&t, 2, incomplete()).await;
    let found = t.journal.list(&Filter { id: Some(key(3).id), ..Filter::default() }, 10, None).await.unwrap();
    assert_eq!(found.iter().map(|record| record.sequence).collect::<Vec<_>>(), [Some(Sequence(3))]);
}

pub(super) async fn unknown_transfers_are_not_found(t: Fixture) {
    t.plan(1).await;
    let mut foreign = t.one(Stage::Extract).await;
    foreign.record.key = key(2);
    let unknown = |error: JournalError| assert!(matches!(error, JournalError::NotFound(_)), "{error:?}");
    assert_eq!(t.journal.get(&key(2)).await.unwrap(), None);
    unknown(t.journal.append_unleased(&key(2), 0, &extracted()).await.unwrap_err());
    unknown(t.journal.append(&foreign, 0, &extracted()).await.unwrap_err());
    unknown(t.journal.renew(&foreign, TTL).await.unwrap_err());
    unknown(t.journal.release(&foreign, Release::Done).await.unwrap_err());
    unknown(t.journal.unpark(&key(2)).await.unwrap_err());
    unknown(t.journal.history(&key(2)).await.unwrap_err());
    unknown(verify(&*t.journal, &key(2)).await.unwrap_err());
}

pub(super) async fn events_are_limited(t: Fixture) {
    t.plan(1).await;
    let t = &t;
    let append = |seq, event| async move { t.journal.append_unleased(&key(1), seq, &event).await };
    append(0, extracted()).await.unwrap();
    append(1, packed()).await.unwrap();
    let mut seq = 2;
    let refused = loop {
        append(seq, TransferEvent::Pushed).await.unwrap();
        match append(seq + 1, TransferEvent::PushAgain).await {
            Ok(record) => seq = record.events,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code(), Code::LimitExceeded);
    assert!((MAX_EVENTS..MAX_EVENTS + 2).contains(&(seq + 1)), "{seq}");
    append(seq + 1, TransferEvent::Settled { outcome: Outcome::Imported }).await.unwrap();
    verify(&*t.journal, &key(1)).await.unwrap();
}

pub(super) async fn a_journal_knows_its_machine(t: Fixture) {
    let Some(binding) = &t.binding else { return };
    binding.bind_or_check("one").await.unwrap();
    binding.bind_or_check("one").await.unwrap();
    let moved = binding.bind_or_check("two").await.unwrap_err();
    assert_eq!(moved.code(), Code::HostMoved);
    binding.rebind("two").await.unwrap();
    binding.bind_or_check("two").await.unwrap();
    assert_eq!(binding.bind_or_check("one").await.unwrap_err().code(), Code::HostMoved);
}

pub(super) async fn what_is_untouched_can_be_withdrawn(t: Fixture) {
    assert!(!t.journal.withdraw(&key(1)).await.unwrap(), "there is none");
    let given = |number| t.journal.create(planned(number, SequenceChoice::Given(Some(Sequence(4)))));
    given(1).await.unwrap();
    let lease = t.one(Stage::Extract).await;
    assert!(!t.journal.withdraw(&key(1)).await.unwrap(), "somebody works on it");
    t.journal.release(&lease, Release::RetryAt { at: t.clock.now() + TTL, failure: failure() }).await.unwrap();
    assert!(t.journal.withdraw(&key(1)).await.unwrap());
    assert_eq!(t.journal.get(&key(1)).await.unwrap(), None);
    assert!(given(2).await.unwrap().is_new(), "its number is free again");
    t.abandon(2).await;
    assert!(!t.journal.withdraw(&key(2)).await.unwrap(), "something has happened to it");
}

pub(super) async fn what_is_untouched_can_begin_anew(t: Fixture) {
    let begin_anew = |number, sequence| t.journal.begin_anew(offered(number, sequence));
    assert!(!begin_anew(1, 1).await.unwrap(), "there is none");
    t.journal.create(offered(1, 1)).await.unwrap();
    let lease = t.one(Stage::Pull).await;
    assert!(!begin_anew(1, 1).await.unwrap(), "somebody works on it");
    t.journal.release(&lease, Release::RetryAt { at: t.clock.now() + TTL, failure: failure() }).await.unwrap();
    let mut other = offered(1, 1);
    other.state = TransferState::Offered { identity: Identity { packed: Sha256Digest::of(b"other"), ..identity() } };
    assert!(t.journal.begin_anew(other.clone()).await.unwrap());
    let record = t.record(1).await;
    assert_eq!((&record.state, record.sequence, record.not_before), (&other.state, Some(Sequence(1)), None));
    verify(&*t.journal, &key(1)).await.unwrap();
    // A number that others have passed and that was pruned is still its own.
    refused(&t, 2, 2).await;
    assert_eq!(t.journal.prune(&over(t.clock.now(), 0, 10)).await.unwrap(), 1);
    assert!(begin_anew(1, 1).await.unwrap());
    // Another one is given only where nobody has it.
    t.journal.create(offered(3, 3)).await.unwrap();
    for forked in [2, 3] {
        let error = begin_anew(1, forked).await.unwrap_err();
        assert!(matches!(error, JournalError::SequenceForked { .. }), "{error:?}");
    }
    assert_eq!(t.record(1).await.sequence, Some(Sequence(1)), "it stays as it was");
    assert!(begin_anew(1, 4).await.unwrap());
    t.journal.append_unleased(&key(1), 0, &TransferEvent::Pulled).await.unwrap();
    assert!(!begin_anew(1, 4).await.unwrap(), "something has happened to it");
    refused(&t, 6, 6).await;
    assert!(!begin_anew(6, 6).await.unwrap(), "it is over");
}

fn offered(number: u64, sequence: u64) -> NewTransfer {
    let state = TransferState::Offered { identity: identity() };
    let sequence = SequenceChoice::Given(Some(Sequence(sequence)));
    NewTransfer { key: key(number), direction: Direction::Downlink, job: None, state, sequence }
}

/// Offered, and rejected.
async fn refused(t: &Fixture, number: u64, sequence: u64) {
    t.journal.create(offered(number, sequence)).await.unwrap();
    let outcome = Outcome::Rejected(Rejection { code: Code::DigestMismatch, detail: "test".into() });
    t.journal.append_unleased(&key(number), 0, &TransferEvent::Decided { outcome: outcome.clone() }).await.unwrap();
    t.journal.append_unleased(&key(number), 1, &TransferEvent::Settled { outcome }).await.unwrap();
    t.clock.advance(SECOND);
}
