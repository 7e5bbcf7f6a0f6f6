//! Offers and acknowledgements that come more than once, or not at all, or too many.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use towpath_journal::{Filter, Point, WakeUp};
use towpath_transfer::{Code, Failure, Stage, TransferState, api::Offer};

use super::world::Returns;
use crate::{
    downlink::poll::{self, MAX_OPEN_DOWNLINKS},
    engine::Engine,
    service::heart::Heart,
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
