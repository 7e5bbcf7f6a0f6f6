//! What the journal forgets, for each tenant apart, and that nothing is lost by it.

use super::*;
use crate::registry::{Budget, LimitsChange};

const BUDGET: Budget = Budget { total: 1 << 20, quota: 1 << 19 };

/// A transfer that was said to be complete and lacks a file.
async fn incomplete(world: &World, agent: &Enrolled, sequence: u64) -> Sent {
    let sent = Sent::new(world, agent, sequence);
    sent.push(world, agent).await;
    world.view(agent).remove(&path(sent.id, "MD5SUMS")).await.unwrap();
    world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    world.work(Stage::Accept).await;
    assert_eq!(world.service().uplink(&agent.caller, sent.id).await.unwrap().state, UplinkState::Incomplete);
    sent
}

async fn imported(world: &World, agent: &Enrolled, receiver: &Enrolled, sequence: u64) -> Sent {
    let sent = Sent::new(world, agent, sequence);
    sent.push(world, agent).await;
    world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    world.work(Stage::Accept).await;
    world.work(Stage::Forward).await;
    let receipt = receipt_of(world, receiver, agent, &sent, &Outcome::Imported);
    world.service().app_receipt(&receiver.caller, &receipt).await.unwrap();
    sent
}

#[tokio::test]
async fn an_agent_that_comes_back_after_its_transfer_was_forgotten_sends_it_again() {
    let world = World::new().await;
    let agent = world.enrol("acme", Role::Agent).await;
    let (service, sent) = (world.service(), incomplete(&world, &agent, 1).await);
    let is_known = async || service.uplink(&agent.caller, sent.id).await.is_ok();
    world.clock.advance(DAY * 15);
    world.relay.tidy().await.unwrap();
    assert_eq!((world.relay.spool().quota().used(), is_known().await), (0, true), "the files go, the row says what is missing");
    world.clock.advance(crate::relay::INCOMPLETE_KEPT - DAY * 15);
    world.relay.tidy().await.unwrap();
    assert!(is_known().await, "not before its time");
    world.clock.advance(DAY);
    world.relay.tidy().await.unwrap();
    assert!(!is_known().await);
    sent.push(&world, &agent).await;
    service.complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    world.work(Stage::Accept).await;
    assert_eq!(service.uplink(&agent.caller, sent.id).await.unwrap().state, UplinkState::Accepted, "under the same number");
}

#[tokio::test]
async fn a_busy_tenant_pushes_out_its_own_rows_and_receipts_alone() {
    let world = World::new().await;
    let (busy, busy_app) = (world.enrol("acme", Role::Agent).await, world.enrol("acme", Role::Receiver).await);
    let (quiet, quiet_app) = (world.enrol("quiet", Role::Agent).await, world.enrol("quiet", Role::Receiver).await);
    let keeps = LimitsChange { journal_keeps: Some(Some(2)), ..LimitsChange::default() };
    world.registry.change_limits(busy.caller.scope(), &keeps, &BUDGET).await.unwrap();
    let old = imported(&world, &quiet, &quiet_app, 1).await;
    let waits = incomplete(&world, &quiet, 2).await;
    let mut sent = Vec::new();
    for sequence in 1..=4 {
        sent.push(imported(&world, &busy, &busy_app, sequence).await);
    }
    for sequence in 5..=7 {
        let given_up = incomplete(&world, &busy, sequence).await;
        let view = world.view(&busy);
        // Its folder goes, so that another may be begun.
        for (name, _) in given_up.files.iter().filter(|(name, _)| *name != "MD5SUMS") {
            view.remove(&path(given_up.id, name)).await.unwrap();
        }
        view.remove_dir(&path(given_up.id, "")).await.unwrap();
        sent.push(given_up);
    }
    world.clock.advance(DAY * 8);
    world.work(Stage::Remove).await;
    world.relay.tidy().await.unwrap();
    let service = world.service();
    let known = async |end: &Enrolled, id| service.uplink(&end.caller, id).await.is_ok();
    let mut left = Vec::new();
    for transfer in &sent {
        left.push(known(&busy, transfer.id).await);
    }
    assert_eq!(left, [false, false, true, true, false, true, true], "the newest two that have ended, and that are incomplete");
    assert!(known(&quiet, old.id).await && known(&quiet, waits.id).await);
    let receipt = |end: &Enrolled, sent: &Sent| {
        let scope = end.caller.as_agent().unwrap();
        world.relay.spool().receipt(&scope, sent.id, ReceiptStage::Imported).unwrap().is_some()
    };
    assert_eq!([receipt(&busy, &sent[0]), receipt(&busy, &sent[2]), receipt(&quiet, &old)], [false, true, true]);
}
