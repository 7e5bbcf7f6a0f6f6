//! Ends that ask for more transfers than can be looked up, and questions that cannot be looked up at all.

use std::{collections::BTreeSet, sync::Arc};

use towpath_journal::{Fault, FaultJournal, Operation};
use towpath_transfer::clock::SeededEntropy;
use towpath_transport::server::VirtualFs as _;

use super::{
    chain::Row,
    tests::{at_home, found},
    *,
};
use crate::{
    registry::AuditFilter,
    service::tests::{Enrolled, Sent, World},
    spool::AgentView,
};

/// A transfer of one tenant, and the agent of another that looks for it.
async fn sought() -> (World, Sent, Enrolled) {
    let world = World::new().await;
    let (agent, thief) = (world.enrol("acme", Role::Agent).await, world.enrol("other", Role::Agent).await);
    let sent = Sent::new(&world, &agent, 1);
    sent.push(&world, &agent).await;
    world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    world.audit().await;
    (world, sent, thief)
}

/// What is written by now.
async fn written(world: &World) -> Vec<Row> {
    let mut rows = world.registry.audit_rows(&AuditFilter::default(), 1_000).await.unwrap();
    rows.reverse();
    rows
}

/// Looks at everything that was asked.
async fn look_up_all(trail: &Trail) {
    while trail.asks() > 0 {
        trail.flush(false).await.unwrap();
    }
}

/// The rows of this one key, which has the role, the name and the tenant.
fn of<'a>(rows: &'a [Row], end: &Enrolled, tenant: &str) -> Vec<&'a Row> {
    let key = end.caller.key().fingerprint().to_string();
    let of = |row: &&Row| (&*row.role, &*row.name, &*row.key, &*row.tenant) == ("agent", "agent", &*key, tenant);
    rows.iter().filter(of).collect()
}

#[tokio::test]
async fn one_caller_that_asks_without_end_is_named_and_leaves_room_for_the_questions_of_others() {
    let (world, sent, thief) = sought().await;
    let spy = world.enrol("third", Role::Agent).await;
    let trail = world.service().trail();
    let before = world.audit().await.len();
    let greedy = Witness::of(trail, &thief.caller);
    for _ in 0..5_000 {
        greedy.missed(world.id());
    }
    // From another address it is the same one.
    Witness::of(trail, &at_home(&thief)).missed(sent.id);
    Witness::of(trail, &spy.caller).missed(sent.id);
    look_up_all(trail).await;
    let rows = world.audit().await.split_off(before);
    let foreign = found(&rows, Action::Foreign, "not-found");
    let tenants: Vec<&str> = foreign.iter().map(|row| &*row.tenant).collect();
    assert_eq!(tenants, ["third"]);
    // One row for each address, and one that counts what came after the first.
    let told: Vec<&Row> = of(&rows, &thief, "other");
    assert!(told.iter().all(|row| (&*row.action, &*row.result) == ("unchecked", "limit-exceeded")), "{told:#?}");
    let addresses: Vec<&str> = told.iter().map(|row| &*row.address).collect();
    assert_eq!(addresses, ["", "192.0.2.7", ""], "{told:#?}");
    let counted = 5_000 - trail::QUEUE_ASKED_OF_ONE - 1;
    assert!(told[2].detail.contains(&format!("{counted} times")), "{told:#?}");
    assert_eq!(rows.len(), 4, "no row is missing, and nothing says so: {rows:#?}");
}

#[tokio::test]
async fn whoever_hides_a_question_among_invented_ones_in_one_path_is_named() {
    // What is looked for is in order behind what is invented.
    let (world, sent, thief) = sought().await;
    let view = AgentView::new(world.relay.spool().clone(), thief.caller.as_agent().unwrap());
    let view = view.witnessed_by(Witness::of(world.service().trail(), &thief.caller));
    let (then, entropy) = (towpath_transfer::clock::ManualClock::new(Timestamp::UNIX_EPOCH), SeededEntropy::new(1));
    let invented: BTreeSet<_> = (0..trail::QUEUE_ASKED_OF_ONE).map(|_| TransferId::new(&then, &entropy)).collect();
    assert_eq!(invented.len(), trail::QUEUE_ASKED_OF_ONE);
    let names: Vec<String> = invented.iter().chain([&sent.id]).map(ToString::to_string).collect();
    let before = world.audit().await.len();
    view.symlink(&names.join("/"), &"/uplink".parse().unwrap()).await.unwrap_err();
    look_up_all(world.service().trail()).await;
    let rows = world.audit().await.split_off(before);
    let told: Vec<_> = of(&rows, &thief, "other").iter().map(|row| (&*row.action, &*row.result)).collect();
    assert_eq!((told, rows.len()), (vec![("unchecked", "limit-exceeded")], 1), "{rows:#?}");
}

#[tokio::test]
async fn more_questions_of_many_ends_than_fit_name_whose_is_dropped() {
    let (world, sent, thief) = sought().await;
    let trail = world.service().trail();
    let mut others = Vec::new();
    for number in 0..trail::QUEUE_ASKED / trail::QUEUE_ASKED_OF_ONE {
        others.push(world.enrol(&format!("tenant-{number}"), Role::Agent).await);
    }
    let before = world.audit().await.len();
    for other in others {
        let witness = Witness::of(trail, &other.caller);
        for _ in 0..trail::QUEUE_ASKED_OF_ONE {
            witness.missed(world.id());
        }
    }
    Witness::of(trail, &thief.caller).missed(sent.id);
    look_up_all(trail).await;
    let rows = world.audit().await.split_off(before);
    let told: Vec<_> = of(&rows, &thief, "other").iter().map(|row| (&*row.action, &*row.result)).collect();
    assert_eq!((told, rows.len()), (vec![("unchecked", "limit-exceeded")], 1), "{rows:#?}");
}

#[tokio::test]
async fn a_question_that_cannot_be_looked_up_is_no_row_that_is_missing() {
    let (world, sent, thief) = sought().await;
    let unreadable = |operation, _| (operation == Operation::List).then_some(Fault::Before);
    let journal = Arc::new(FaultJournal::new(world.journal.clone(), unreadable));
    let trail = Trail::new(world.registry.clone(), journal, Arc::new(world.clock.clone()));
    let before = world.audit().await.len();
    Witness::of(&trail, &thief.caller).missed(sent.id);
    look_up_all(&trail).await;
    trail.flush(true).await.unwrap();
    let rows = world.audit().await.split_off(before);
    let told: Vec<_> = of(&rows, &thief, "other").iter().map(|row| (&*row.action, &*row.transfer)).collect();
    assert_eq!((told, rows.len()), (vec![("unchecked", &*sent.id.to_string())], 1), "{rows:#?}");
    assert_ne!(rows[0].result, OK);
}

#[tokio::test]
async fn what_was_asked_is_looked_at_before_the_service_ends() {
    let (world, sent, thief) = sought().await;
    let witness = Witness::of(world.service().trail(), &thief.caller);
    // As many as may wait, which is more than are looked at between two batches of rows.
    for _ in 1..trail::QUEUE_ASKED_OF_ONE {
        witness.missed(world.id());
    }
    witness.missed(sent.id);
    let before = written(&world).await.len();
    world.service().trail().close().await;
    let rows = written(&world).await.split_off(before);
    let told: Vec<_> = rows.iter().map(|row| (&*row.action, &*row.transfer)).collect();
    assert_eq!(told, [("foreign", &*sent.id.to_string()), ("stopped", "")], "{rows:#?}");
}
