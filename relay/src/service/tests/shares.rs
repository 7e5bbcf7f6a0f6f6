//! What one tenant's app server can keep from the others.

use super::*;

/// An uplink that is said to be complete.
async fn complete(world: &World, agent: &Enrolled, sequence: u64) -> Sent {
    let sent = Sent::new(world, agent, sequence);
    sent.push(world, agent).await;
    world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    sent
}

#[tokio::test]
async fn an_app_server_that_never_answers_holds_up_its_own_tenant_alone() {
    let world = World::new().await;
    let (acme, other) = (world.enrol("acme", Role::Agent).await, world.enrol("other", Role::Agent).await);
    let at_once = world.relay.steps().into_iter().find(|(step, _)| step.stage() == Stage::Forward).unwrap().1;
    assert!(at_once.of_tenant < at_once.all);
    *world.apps.silent.lock().unwrap() = Some("acme".parse().unwrap());
    // More of them than there are places, all before the other's.
    for sequence in 1..=at_once.all as u64 + 1 {
        complete(&world, &acme, sequence).await;
        world.work(Stage::Accept).await;
    }
    let mut stages = world.start();
    while world.apps.asked.load(SeqCst) < at_once.of_tenant {
        tokio::task::yield_now().await;
    }
    let sent = complete(&world, &other, 1).await;
    while world.service().uplink(&other.caller, sent.id).await.unwrap().state != UplinkState::Forwarded {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.landed("other", "agent", sent.id).len(), sent.files.len());
    assert_eq!(world.apps.asked.load(SeqCst), at_once.of_tenant, "its share is being tried meanwhile, and no more");
    stages.shutdown().await;
}

#[tokio::test]
async fn whoever_waits_for_an_app_server_has_a_share_for_each_tenant() {
    let world = World::new().await;
    let fetched = world.relay.steps().into_iter().find(|(step, _)| step.stage() == Stage::Fetch).unwrap().1;
    let settings = DownlinkSettings::default();
    assert_eq!((fetched.all, fetched.of_tenant), (settings.fetch_at_once, settings.fetch_per_tenant));
    assert!(fetched.of_tenant < fetched.all);
}
