//! What `run` plans, and when.

use towpath_transfer::{Code, state::Rejection};

use super::world::{World, at};
use crate::schedule::plan_if_due;

async fn due(world: &World, now: &str) -> bool {
    world.clock.set_wall(at(now));
    plan_if_due(&world.parts, &world.parts.config.now().jobs[0]).await.unwrap()
}

async fn finish_newest(world: &World) {
    let newest = world.parts.journal.list(&towpath_journal::Filter::default(), 1, None).await.unwrap();
    world.finish(newest[0].key.id).await;
}

#[tokio::test]
async fn a_job_is_planned_once_a_day() {
    let world = World::new();
    assert!(!due(&world, "2026-03-01T12:00:00Z").await, "a job that was never sent begins at its time of day");
    assert!(!due(&world, "2026-03-02T01:59:59Z").await);
    assert!(due(&world, "2026-03-02T02:00:00Z").await);
    assert!(!due(&world, "2026-03-02T02:00:30Z").await);
    finish_newest(&world).await;
    assert!(!due(&world, "2026-03-02T23:59:59Z").await);
    assert!(due(&world, "2026-03-03T02:00:10Z").await);
}

#[tokio::test]
async fn a_time_that_passed_while_the_host_was_off_is_made_up_for() {
    let world = World::new();
    assert!(due(&world, "2026-03-02T02:00:00Z").await);
    finish_newest(&world).await;
    assert!(due(&world, "2026-03-05T09:00:00Z").await);
    assert!(!due(&world, "2026-03-05T09:01:00Z").await);
}

#[tokio::test]
async fn a_transfer_that_is_still_open_is_not_doubled() {
    let world = World::new();
    assert!(due(&world, "2026-03-02T02:00:00Z").await);
    assert!(!due(&world, "2026-03-03T02:00:00Z").await);
    finish_newest(&world).await;
    assert!(due(&world, "2026-03-03T02:30:00Z").await, "what it could not carry follows when it has ended");
}

#[tokio::test]
async fn a_clock_that_was_ahead_does_not_stop_the_schedule() {
    let world = World::new();
    assert!(due(&world, "2027-03-02T02:00:00Z").await);
    finish_newest(&world).await;
    assert!(!due(&world, "2026-03-02T01:00:00Z").await, "what was due before is not known to be missed");
    assert!(due(&world, "2026-03-02T02:00:00Z").await);
    finish_newest(&world).await;
    assert!(!due(&world, "2026-03-02T02:01:00Z").await, "once, and then by the right clock");
    assert!(due(&world, "2026-03-03T02:00:00Z").await);
    finish_newest(&world).await;
    let within = at("2026-03-03T02:00:00Z").checked_sub(towpath_journal::CLOCK_TOLERANCE).unwrap().to_string();
    assert!(!due(&world, &within).await, "a clock that was put right by a little does not send twice");
}

#[tokio::test]
async fn a_lost_base_is_followed_by_a_transfer_in_full_without_waiting_for_the_night() {
    let world = World::new();
    world.send().await;
    world.far.reject(Some(Rejection { code: Code::BaseMissing, detail: "lost".into() }));
    world.send().await;
    world.far.reject(None);
    assert!(due(&world, "2026-03-01T13:00:00Z").await);
    finish_newest(&world).await;
    assert!(!due(&world, "2026-03-01T13:01:00Z").await);
}
