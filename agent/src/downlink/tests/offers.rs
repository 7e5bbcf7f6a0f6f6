//! Offers and acknowledgements that come more than once, or not at all, or too many.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use towpath_journal::{Filter, Point, WakeUp};
use towpath_transfer::{
    Code, Direction, Failure, Sequence, Stage, TransferId, TransferState, api::Offer, digest::Sha256Digest, receipt::ReceiptStage,
};
use towpath_transport::{
    files::{FileStore as _, read_whole, write_whole},
    store::StoreErrorKind,
};

use super::world::Returns;
use crate::{
    downlink::{
        decide,
        poll::{self, MAX_OPEN_DOWNLINKS},
    },
    engine::Engine,
    service::heart::Heart,
    uplink::prune::prune,
};

#[tokio::test]
async fn ten_offers_and_ten_lost_answers_have_one_effect() {
    let returns = Returns::new();
    let id = returns.orders().await;
    let offers = returns.offers();
    for _ in 0..10 {
        assert!(returns.take().await.new.is_empty());
        returns.world.far.downlinks.fail_after(Failure::retry(Code::RelayUnreachable, "the answer got lost"));
    }
    assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
    assert_eq!(returns.delivered().len(), 2);
    assert_eq!(returns.world.far.downlinks.acknowledged().len(), 1);
    // Offered again after its end: the kept receipt is handed over again, and nothing else happens.
    for _ in 0..10 {
        let taken = poll::take(&returns.world.parts, &offers).await.unwrap();
        assert_eq!((taken.new.len(), taken.acknowledged), (0, vec![id]));
    }
    assert_eq!(returns.world.far.downlinks.acknowledged().len(), 1);
    assert_eq!(returns.delivered().len(), 2);
    assert_eq!(returns.world.parts.journal.list(&Filter::default(), 10, None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_relay_that_has_forgotten_the_transfer_gets_the_receipt_when_it_offers_it_again() {
    let mut returns = Returns::new();
    let id = returns.orders().await;
    returns.stop_at(id, Stage::Acknowledge, Point::BeforeEffect, 1).await;
    let offers = returns.offers();
    returns.world.far.downlinks.set_offers(vec![]);
    assert_eq!(returns.failed(id).await, (Code::NotFound, false));
    returns.world.far.downlinks.set_offers(offers);
    assert_eq!(returns.retry(id).await.state, TransferState::Delivered);
    assert_eq!(returns.delivered().len(), 2);
}

#[tokio::test]
async fn a_number_that_another_transfer_has_is_not_taken() {
    let returns = Returns::new();
    let id = returns.orders().await;
    let forked = returns.sent(1, &[("orders.csv", b"other")]);
    let mut forked = forked;
    forked.manifest.transfer =
        towpath_transfer::TransferId::new(&returns.world.clock, &towpath_transfer::clock::SeededEntropy::new(7));
    returns.offer(&forked);
    assert!(returns.take().await.new.is_empty());
    assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
    assert_eq!(returns.delivered()[1].1, b"item\r\n1\r\n");
}

#[tokio::test]
async fn a_relay_that_offers_without_end_fills_nothing() {
    let returns = Returns::new();
    let one = returns.sent(1, &[("a", b"a")]);
    let offer = |n: u64| {
        let transfer =
            towpath_transfer::TransferId::new(&returns.world.clock, &towpath_transfer::clock::SeededEntropy::new(10_000 + n));
        let digest = towpath_transfer::digest::Sha256Digest::of(b"x");
        let identity = towpath_transfer::state::Identity { manifest: digest, packed: digest };
        Offer { transfer, sequence: towpath_transfer::Sequence(one.manifest.sequence.0 + n), identity }
    };
    let offers: Vec<Offer> = (0..1_500).map(offer).collect();
    let taken = poll::take(&returns.world.parts, &offers).await.unwrap();
    assert_eq!((taken.new.len(), taken.left), (MAX_OPEN_DOWNLINKS, 1_500 - MAX_OPEN_DOWNLINKS));
    let again = poll::take(&returns.world.parts, &offers).await.unwrap();
    assert_eq!((again.new.len(), again.left), (0, 1_500 - MAX_OPEN_DOWNLINKS));
}

#[tokio::test]
async fn a_waiting_agent_learns_of_files_at_once_and_survives_an_unreachable_relay() {
    let returns = Returns::new();
    let parts = Arc::new(returns.world.parts.clone());
    returns.world.far.downlinks.fail_before(Failure::retry(Code::RelayUnreachable, "no answer"));
    let (wake, stop) = (WakeUp::new(), CancellationToken::new());
    let engine = tokio::spawn(Engine::new(Arc::clone(&parts), wake.clone()).run(stop.clone()));
    let polling = tokio::spawn(poll::run(Arc::clone(&parts), wake, Heart::unwatched(&parts.clock), stop.clone()));
    let mut ids = Vec::new();
    for number in 1..=3u64 {
        let name = format!("orders-{number}.csv");
        let id = returns.offer(&returns.sent(number, &[(name.as_str(), b"x")]));
        ids.push(id);
        let mut turns = 0u32;
        while !returns.world.parts.journal.get(&parts.key(id)).await.unwrap().is_some_and(|record| record.state.is_final()) {
            returns.world.clock.advance(Duration::from_millis(20));
            tokio::task::yield_now().await;
            turns += 1;
            assert!(turns < 3_000_000, "the files were not delivered");
        }
    }
    stop.cancel();
    // Running steps may wait for time while they end.
    let pump = async {
        loop {
            returns.world.clock.advance(Duration::from_millis(20));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        ended = async { (engine.await, polling.await) } => { ended.0.unwrap(); ended.1.unwrap(); }
        () = pump => unreachable!("the clock never stops"),
    }
    assert_eq!(returns.delivered().len(), 3);
    assert_eq!(returns.world.far.downlinks.acknowledged().len(), 3);
    assert_eq!(ids.len(), 3);
}

/// A relay that makes an offer up: nobody has signed for it.
fn made_up(returns: &Returns, number: u64, sequence: u64) -> TransferId {
    let mut sent = returns.sent(number, &[("orders.csv", b"x")]);
    sent.manifest.sequence = Sequence(sequence);
    let id = returns.offer(&sent);
    returns.put(id, "manifest.json.sig", b"not a signature");
    id
}

/// The offers of this transfer alone.
fn only(returns: &Returns, id: TransferId) -> Vec<Offer> {
    returns.offers().into_iter().filter(|offer| offer.transfer == id).collect()
}

#[tokio::test]
async fn an_offer_that_nobody_has_signed_uses_no_number_up() {
    let returns = Returns::new();
    let fakes = [made_up(&returns, 100, 1), made_up(&returns, 101, i64::MAX as u64)];
    returns.take().await;
    let genuine = returns.offer(&returns.sent(1, &[("orders.csv", b"item\r\n1\r\n")]));
    assert!(returns.take().await.new.is_empty(), "its number is another's while the relay offers that");
    for fake in fakes {
        assert_eq!(returns.failed(fake).await, (Code::SignatureInvalid, false));
    }
    assert_eq!(poll::take(&returns.world.parts, &only(&returns, genuine)).await.unwrap().new, [genuine]);
    assert_eq!(returns.world.finish(genuine).await.state, TransferState::Delivered);
    // The highest has not been the end of the line either.
    returns.world.clock.advance(Duration::from_secs(3_600));
    prune(&returns.world.parts, 0).await.unwrap();
    let next = returns.offer(&returns.sent(2, &[("more.csv", b"x")]));
    assert_eq!(poll::take(&returns.world.parts, &only(&returns, next)).await.unwrap().new, [next]);
    assert_eq!(returns.world.finish(next).await.state, TransferState::Delivered);
    // What was delivered has used its number up, also when nobody remembers more of it.
    assert!(poll::take(&returns.world.parts, &only(&returns, genuine)).await.unwrap().new.is_empty());
}

#[tokio::test]
async fn what_many_have_overtaken_is_taken_and_only_once() {
    let returns = Returns::new();
    let sent: Vec<_> = (1..=3).map(|number| returns.offer(&returns.sent(number, &[("orders.csv", b"x")]))).collect();
    for id in [sent[2], sent[1], sent[0]] {
        assert_eq!(poll::take(&returns.world.parts, &only(&returns, id)).await.unwrap().new, [id]);
        assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
        returns.world.clock.advance(Duration::from_secs(3_600));
        prune(&returns.world.parts, 0).await.unwrap();
    }
    assert!(poll::take(&returns.world.parts, &returns.offers()).await.unwrap().new.is_empty());
    assert_eq!(returns.delivered().len(), 3);
}

#[tokio::test]
async fn what_is_not_offered_any_more_holds_no_place() {
    let returns = Returns::new();
    let stranger = crate::uplink::tests::world::identity(99);
    for number in 0..MAX_OPEN_DOWNLINKS as u64 {
        let mut sent = returns.sent(1_000 + number, &[]);
        sent.signer = Some(stranger.clone());
        returns.offer(&sent);
    }
    let genuine = returns.offer(&returns.sent(1, &[("orders.csv", b"x")]));
    assert_eq!(returns.take().await.left, 1);
    // Whoever had the relay has gone.
    let offers: Vec<Offer> = returns.offers().into_iter().filter(|offer| offer.transfer == genuine).collect();
    let taken = poll::take(&returns.world.parts, &offers).await.unwrap();
    assert_eq!((taken.new, taken.left), (vec![genuine], 0));
    assert_eq!(poll::open_downlinks(&returns.world.parts).await.unwrap().len(), MAX_OPEN_DOWNLINKS);
    assert_eq!(returns.world.finish(genuine).await.state, TransferState::Delivered);
}

#[tokio::test]
async fn an_offer_that_is_corrected_is_taken_as_it_is_now() {
    let returns = Returns::new();
    let id = returns.offer(&returns.sent(1, &[("orders.csv", b"x")]));
    let right = returns.offers();
    let changes: [fn(&mut Offer); 3] = [
        |offer| offer.identity.manifest = Sha256Digest::of(b"other"),
        |offer| offer.identity.packed = Sha256Digest::of(b"other"),
        |offer| offer.sequence.0 = i64::MAX as u64,
    ];
    for change in changes {
        let mut wrong = right.clone();
        change(&mut wrong[0]);
        assert_eq!(poll::take(&returns.world.parts, &wrong).await.unwrap().new, [id]);
    }
    assert_eq!(poll::take(&returns.world.parts, &right).await.unwrap().new, [id]);
    assert!(poll::take(&returns.world.parts, &right).await.unwrap().new.is_empty());
    assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
}

#[tokio::test]
async fn offers_that_nobody_has_signed_push_no_receipts_out() {
    let returns = Returns::new();
    let delivered = returns.orders().await;
    assert_eq!(returns.world.finish(delivered).await.state, TransferState::Delivered);
    let fakes = [made_up(&returns, 100, 100), made_up(&returns, 101, 101)];
    returns.take().await;
    for fake in fakes {
        assert_eq!(returns.failed(fake).await, (Code::SignatureInvalid, false));
    }
    returns.world.clock.advance(Duration::from_secs(3_600));
    prune(&returns.world.parts, 1).await.unwrap();
    let layout = returns.world.parts.layout.of(Direction::Downlink);
    let folders = returns.world.files.list(&layout.transfers(), None, 1_000).unwrap();
    assert_eq!(folders.into_iter().map(|entry| entry.name).collect::<Vec<_>>(), [delivered.to_string()]);
    assert!(crate::chain::verify(&returns.world.parts, delivered).await.unwrap().ok);
}

#[tokio::test]
async fn the_number_of_what_is_not_offered_any_more_is_free_again() {
    let returns = Returns::new();
    let mut sent = returns.sent(100, &[]);
    sent.manifest.sequence = Sequence(1);
    sent.signer = Some(crate::uplink::tests::world::identity(99));
    returns.offer(&sent);
    returns.take().await;
    let genuine = returns.offer(&returns.sent(1, &[("orders.csv", b"x")]));
    assert!(returns.take().await.new.is_empty(), "the relay still offers both");
    let offers: Vec<Offer> = returns.offers().into_iter().filter(|offer| offer.transfer == genuine).collect();
    assert_eq!(poll::take(&returns.world.parts, &offers).await.unwrap().new, [genuine]);
    assert_eq!(returns.world.finish(genuine).await.state, TransferState::Delivered);
}

#[tokio::test]
async fn what_waits_outlives_a_list_without_it() {
    let returns = Returns::new();
    let waits = returns.offer(&returns.sent(1, &[("orders.csv", b"x")]));
    let (far, manifest) = (&returns.world.far.files, returns.far_file(waits, "manifest.json"));
    let bytes = read_whole(&**far, &manifest, 100_000).unwrap();
    far.remove(&manifest).unwrap();
    returns.take().await;
    assert_eq!(returns.failed(waits).await, (Code::NotFound, false));
    let next = returns.offer(&returns.sent(2, &[("more.csv", b"x")]));
    let without = |id| returns.offers().into_iter().filter(|offer| offer.transfer != id).collect::<Vec<_>>();
    // The relay does not know of it for a while, and what came after it is forgotten.
    poll::take(&returns.world.parts, &without(waits)).await.unwrap();
    assert_eq!(returns.world.finish(next).await.state, TransferState::Delivered);
    returns.world.clock.advance(Duration::from_secs(3_600));
    prune(&returns.world.parts, 0).await.unwrap();
    let mut corrected = without(next);
    let right = corrected.clone();
    corrected[0].identity.packed = Sha256Digest::of(b"other");
    for offers in [corrected, right] {
        assert_eq!(poll::take(&returns.world.parts, &offers).await.unwrap().new, [waits], "it begins anew under its number");
    }
    returns.put(waits, "manifest.json", &bytes);
    assert_eq!(returns.world.finish(waits).await.state, TransferState::Delivered);
}

#[tokio::test]
async fn a_manifest_that_the_relay_makes_up_is_no_end_of_the_transfer() {
    let returns = Returns::new();
    let mut sent = returns.sent(1, &[("orders.csv", b"x")]);
    let id = returns.offer(&sent);
    let right = returns.offers();
    let genuine = ["manifest.json", "manifest.json.sig", "packed.json", "MD5SUMS"]
        .map(|name| (name, read_whole(&*returns.world.far.files, &returns.far_file(id, name), 100_000).unwrap()));
    sent.manifest.created += Duration::from_secs(1);
    returns.offer(&sent);
    let wrong = returns.offers().split_off(1);
    returns.put(id, "manifest.json.sig", &genuine[1].1);
    poll::take(&returns.world.parts, &wrong).await.unwrap();
    assert_eq!(returns.failed(id).await, (Code::SignatureInvalid, false));
    assert!(returns.world.far.downlinks.acknowledged().is_empty());
    // It is itself again.
    for (name, bytes) in &genuine {
        returns.put(id, name, bytes);
    }
    returns.world.far.downlinks.set_offers(right.clone());
    assert_eq!(poll::take(&returns.world.parts, &right).await.unwrap().new, [id]);
    assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
    assert_eq!(returns.world.far.downlinks.acknowledged().len(), 1);
}

/// A transfer whose packed list is empty, refused and then killed before the journal knew.
async fn refused_and_killed() -> (Returns, TransferId) {
    let mut returns = Returns::new();
    let mut sent = returns.sent(1, &[("orders.csv", b"x")]);
    sent.listed = |list| list.files.clear();
    let id = returns.offer(&sent);
    returns.take().await;
    returns.stop_at(id, Stage::Pull, Point::AfterEffect, 1).await;
    assert!(decide::kept(&returns.world.parts, id, ReceiptStage::Rejected).unwrap().is_some());
    assert_eq!(returns.world.record(id).await.state.word(), "offered");
    (returns, id)
}

#[tokio::test]
async fn a_refusal_that_the_journal_does_not_know_yet_keeps_no_number_that_was_made_up() {
    let (returns, id) = refused_and_killed().await;
    let right = returns.offers();
    let mut wrong = right.clone();
    wrong[0].sequence = Sequence(i64::MAX as u64);
    assert_eq!(poll::take(&returns.world.parts, &wrong).await.unwrap().new, [id]);
    assert_eq!(returns.failed(id).await, (Code::ManifestInvalid, false));
    // Also where the relay is another one.
    returns.world.far.refuse_connections(Some(StoreErrorKind::HostKeyUnknown));
    returns.world.parts.journal.unpark(&returns.world.parts.key(id)).await.unwrap();
    let record = returns.world.drive(id, |record| record.parked).await;
    assert_eq!(record.state.word(), "offered", "{record:?}");
    returns.world.far.refuse_connections(None);
    assert_eq!(poll::take(&returns.world.parts, &right).await.unwrap().new, [id]);
    let record = returns.world.finish(id).await;
    assert!(matches!(record.state, TransferState::Rejected { .. }) && record.sequence == Some(Sequence(1)), "{record:?}");
    returns.world.clock.advance(Duration::from_secs(3_600));
    prune(&returns.world.parts, 0).await.unwrap();
    let next = returns.offer(&returns.sent(2, &[("more.csv", b"x")]));
    assert_eq!(poll::take(&returns.world.parts, &only(&returns, next)).await.unwrap().new, [next]);
}

#[tokio::test]
async fn a_refusal_that_was_told_to_nobody_counts_for_its_own_manifest_only() {
    for damaged in [false, true] {
        a_refusal_that_was_told_to_nobody(damaged).await;
    }
}

async fn a_refusal_that_was_told_to_nobody(damaged: bool) {
    let (returns, id) = refused_and_killed().await;
    if damaged {
        let refusal = returns.world.parts.layout.of(Direction::Downlink).receipt(id, ReceiptStage::Rejected);
        write_whole(&*returns.world.files, &refusal, b"\0\0").unwrap();
    }
    // The receiver has made it once more.
    let mut anew = returns.sent(1, &[("orders.csv", b"x")]);
    anew.manifest.transfer = id;
    returns.offer(&anew);
    let offers = returns.offers().split_off(1);
    assert_eq!(poll::take(&returns.world.parts, &offers).await.unwrap().new, [id]);
    assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
    assert!(decide::kept(&returns.world.parts, id, ReceiptStage::Rejected).unwrap().is_none());
    let chain = crate::chain::verify(&returns.world.parts, id).await.unwrap();
    assert!(chain.ok, "{chain:?}");
}

#[tokio::test]
async fn refusals_with_ids_of_the_future_are_cleared_away() {
    let returns = Returns::new();
    let day = Duration::from_secs(24 * 3_600);
    returns.world.clock.advance(365 * day);
    let mut sent = returns.sent(100, &[("orders.csv", b"x")]);
    sent.listed = |list| list.files.clear();
    let refused = returns.offer(&sent);
    returns.world.clock.set_wall(returns.world.parts.clock.now() - 365 * day);
    returns.take().await;
    assert!(matches!(returns.world.finish(refused).await.state, TransferState::Rejected { .. }));
    returns.world.clock.advance(Duration::from_secs(3_600));
    prune(&returns.world.parts, 0).await.unwrap();
    let layout = returns.world.parts.layout.of(Direction::Downlink);
    assert!(returns.world.files.list(&layout.transfers(), None, 10).unwrap().is_empty());
}
