//! The chain on a real file: what is noticed, what is refused, and what is kept.

use std::{path::PathBuf, time::Duration};

use towpath_journal::MemoryJournal;
use towpath_transfer::{
    api::Role,
    clock::{ManualClock, SeededEntropy},
    state::Place,
};

use super::{
    tests::{Fixture, old_registry},
    *,
};
use crate::audit::{
    Action, AuditSettings, FEWEST_ROWS, QUEUE_ROWS, SHORTEST_KEEP, Standing, Trail, Who, Witness,
    chain::{Broken, Link, Verified},
};
use crate::service::tests::World;

const DAY: Duration = Duration::from_hours(24);
const TRIGGERS: [&str; 6] =
    ["audit_appends", "audit_stays", "audit_loses_its_oldest", "audit_anchor_moves", "audit_anchor_is_one", "audit_anchor_stays"];

async fn sql(registry: &Registry, statement: &'static str) -> sqlx::Result<()> {
    sqlx::query(statement).execute(&registry.pool).await.map(|_| ())
}

async fn verified(registry: &Registry) -> std::result::Result<Verified, Broken> {
    registry.verify_audit(None).await.unwrap()
}

async fn append(fixture: &Fixture, rows: usize) {
    let entry = Entry::new(fixture.clock.now(), Who::relay(), Action::Started);
    fixture.registry.audit_append(&vec![entry; rows]).await.unwrap();
}

/// What somebody does who can write the file and knows how the triggers are removed.
async fn spoilt(statements: &[&'static str], expected: Option<Link>) -> std::result::Result<Verified, Broken> {
    let fixture = Fixture::on_disk().await;
    append(&fixture, 5).await;
    let head = verified(&fixture.registry).await.unwrap().head;
    assert_eq!((head.id, fixture.registry.verify_audit(Some(head)).await.unwrap().unwrap().head), (5, head));
    for trigger in TRIGGERS {
        sqlx::query(sqlx::AssertSqlSafe(format!("DROP TRIGGER {trigger}"))).execute(&fixture.registry.pool).await.unwrap();
    }
    for statement in statements {
        sql(&fixture.registry, statement).await.unwrap();
    }
    let expected = expected.map(|link| if link.id == 0 { head } else { link });
    fixture.registry.verify_audit(expected).await.unwrap()
}

#[tokio::test]
async fn every_change_of_what_was_written_is_noticed_and_named() {
    for (statements, row) in [
        (&["UPDATE audit SET result = 'no' WHERE id = 3"] as &[_], 3),
        (&["UPDATE audit SET at = at + 1 WHERE id = 1"], 1),
        (&["UPDATE audit SET role = '', name = 'relay' WHERE id = 2"], 2),
        (&["UPDATE audit SET hash = 'x' WHERE id = 4"], 4),
        (&["DELETE FROM audit WHERE id = 3"], 3),
        (&["DELETE FROM audit WHERE id = 3", "UPDATE audit SET id = id - 1 WHERE id > 3"], 3),
        (&["DELETE FROM audit WHERE id = 1"], 1),
        (
            &[
                "UPDATE audit SET id = 99 WHERE id = 2",
                "UPDATE audit SET id = 2 WHERE id = 3",
                "UPDATE audit SET id = 3 WHERE id = 99",
            ],
            2,
        ),
        (
            &[
                "INSERT INTO audit SELECT 6, at, role, name, key, address, tenant, action, detail, transfer, result, hash FROM audit WHERE id = 5",
            ],
            6,
        ),
        // The beginning is removed, and the anchor moved as the relay would.
        (&["UPDATE audit_anchor SET id = 2, hash = (SELECT hash FROM audit WHERE id = 2)", "DELETE FROM audit WHERE id <= 2"], 2),
    ] {
        assert_eq!(spoilt(statements, None).await.unwrap_err().id, row, "{statements:?}");
    }
}

#[tokio::test]
async fn an_end_that_is_cut_off_is_noticed_by_whoever_has_noted_the_head() {
    assert!(spoilt(&["DELETE FROM audit WHERE id = 5"], None).await.is_ok(), "the chain alone cannot tell");
    let cut = spoilt(&["DELETE FROM audit WHERE id = 5"], Some(Link::first())).await.unwrap_err();
    assert!(cut.id == 5 && cut.why.contains("ends with row 4"), "{cut}");
    let other = Link { id: 3, ..Link::first() };
    let anew = spoilt(&[], Some(other)).await.unwrap_err();
    assert!(anew.id == 3 && anew.why.contains("written anew"), "{anew}");
}

#[tokio::test]
async fn the_file_itself_refuses_what_the_relay_never_does() {
    let fixture = Fixture::on_disk().await;
    append(&fixture, 5).await;
    for statement in [
        "UPDATE audit SET result = 'no' WHERE id = 3",
        "DELETE FROM audit WHERE id = 5",
        "DELETE FROM audit WHERE id = 1",
        "DELETE FROM audit",
        "INSERT INTO audit VALUES (7, 0, '', '', '', '', '', '', '', '', '', '')",
        "INSERT INTO audit (at, role, name, key, address, tenant, action, detail, transfer, result, hash) VALUES (0, '', '', '', '', '', '', '', '', '', '')",
        "INSERT OR REPLACE INTO audit VALUES (5, 0, '', '', '', '', '', '', '', '', '', '')",
        "UPDATE audit_anchor SET id = 2, hash = (SELECT hash FROM audit WHERE id = 2)",
        "UPDATE audit_anchor SET id = 5",
        "DELETE FROM audit_anchor",
        "INSERT INTO audit_anchor VALUES (2, 0, '')",
    ] {
        let refused = sql(&fixture.registry, statement).await.unwrap_err();
        assert!(refused.to_string().contains("audit trail"), "{statement}: {refused}");
    }
    assert_eq!(verified(&fixture.registry).await.unwrap().rows, 5);
}

#[tokio::test]
async fn the_oldest_rows_go_by_time_and_number_and_the_rest_still_follows() {
    let fixture = Fixture::on_disk().await;
    let registry = &fixture.registry;
    let settings = AuditSettings { keep: SHORTEST_KEEP, rows: 1_500 };
    append(&fixture, 10).await;
    fixture.clock.advance(DAY);
    append(&fixture, 10).await;
    assert_eq!(registry.prune_audit(settings).await.unwrap(), 0);
    fixture.clock.advance(DAY * 29);
    assert_eq!(registry.prune_audit(settings).await.unwrap(), 0, "exactly as old as they may be");
    fixture.clock.advance(Duration::from_micros(1));
    assert_eq!(registry.prune_audit(settings).await.unwrap(), 10);
    let after = verified(registry).await.unwrap();
    assert_eq!((after.after.id, after.head.id, after.rows), (10, 21, 11));
    let told = registry.audit_rows(&AuditFilter { action: Some(Action::Pruned), ..AuditFilter::default() }, 9).await.unwrap();
    assert_eq!(told[0].detail, after.after.pruned_detail("older than 30 days"));
    // Nobody shortens the time below its floor.
    assert_eq!(registry.prune_audit(AuditSettings { keep: Duration::ZERO, rows: 0 }).await.unwrap(), 0);

    append(&fixture, 1_500).await;
    assert_eq!(registry.prune_audit(settings).await.unwrap(), 12);
    let after = verified(registry).await.unwrap();
    assert_eq!((after.after.id, after.rows), (22, 1_500));
    assert_eq!(registry.prune_audit(AuditSettings { rows: 0, ..settings }).await.unwrap(), 1_501 - FEWEST_ROWS);
    assert_eq!(verified(registry).await.unwrap().rows, FEWEST_ROWS);
    let gone = registry.verify_audit(Some(after.after)).await.unwrap().unwrap_err();
    assert!(gone.id == 22 && gone.why.contains("begin later"), "{gone}");
    let stands = registry.audit_standing(after.after).await.unwrap();
    assert_eq!(stands, Standing::Held, "what the relay has removed itself was not cut off");
    // Everything is too old: only that it was removed stays.
    fixture.clock.advance(DAY * 31);
    registry.prune_audit(settings).await.unwrap();
    assert_eq!(verified(registry).await.unwrap().rows, 1);
    append(&fixture, 1).await;
    assert_eq!(verified(registry).await.unwrap().rows, 2);
}

#[tokio::test]
async fn the_rows_of_version_3_begin_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("registry.sqlite");
    old_registry(
        &path,
        &[
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
             INSERT INTO audit (at, who, tenant, what, result) SELECT i, 'acme.agent', 'acme', 'complete ' || i, 'ok' FROM n",
            "DELETE FROM audit WHERE id <= 100",
            "INSERT INTO audit (at, who, what, result) VALUES (9, 'operator', 'announce the next host', 'ok')",
        ],
    )
    .await;
    let clock = Arc::new(ManualClock::new("2026-03-01T00:00:00Z".parse().unwrap()));
    let open = async || Registry::open(&path, clock.clone(), Arc::new(SeededEntropy::new(3))).await.unwrap();
    let registry = open().await;
    assert_eq!(verified(&registry).await.unwrap().rows, 2_401);
    let rows = registry.audit_rows(&AuditFilter::default(), 5_000).await.unwrap();
    let (newest, oldest) = (&rows[0], &rows[2_400]);
    assert_eq!(
        (newest.role.as_str(), newest.detail.as_str(), newest.action.as_str()),
        ("operator", "announce the next host", "earlier")
    );
    assert_eq!((oldest.id, oldest.at, oldest.name.as_str(), oldest.detail.as_str()), (1, 101, "acme.agent", "complete 101"));
    registry.audit_append(&[Entry::new(clock.now(), Who::relay(), Action::Started)]).await.unwrap();
    registry.close().await;
    assert_eq!(verified(&open().await).await.unwrap().rows, 2_402, "another start migrates nothing again");
}

#[tokio::test]
async fn a_long_trail_is_followed_page_by_page() {
    const ROWS: usize = 100_000;
    let fixture = Fixture::on_disk().await;
    append(&fixture, ROWS).await;
    let mut reader = fixture.registry.audit_reader(&AuditFilter::default()).await.unwrap();
    let mut seen = 0;
    loop {
        let page = reader.page().await.unwrap();
        assert!(page.len() <= usize::try_from(PAGE_ROWS).unwrap());
        if page.is_empty() {
            break;
        }
        seen += page.len();
        // Nobody is held up meanwhile, and what is written now is not of this reading.
        if seen <= 2_000 {
            append(&fixture, 1).await;
        }
    }
    assert_eq!(seen, ROWS);
    drop(reader);
    assert_eq!(verified(&fixture.registry).await.unwrap().rows, ROWS as u64 + 2);
}

#[tokio::test]
async fn what_the_operator_changes_is_noted_or_not_changed() {
    let fixture = Fixture::in_memory().await;
    let registry = &fixture.registry;
    let (identity, end) = fixture.enrolled().await;
    let entry = || Entry::new(fixture.clock.now(), Who::operator(), Action::Revoke).of(fixture.scope.tenant());
    sql(registry, "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'on purpose'); END").await.unwrap();
    assert_eq!(registry.noting(entry()).revoke(&fixture.scope, &end.name).await.unwrap_err().code(), Code::FileFailed);
    assert_eq!(registry.is_out("acme.agent", &identity.fingerprint()).await.unwrap(), None);
    let touched = std::sync::atomic::AtomicBool::new(false);
    let work = async {
        touched.store(true, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    };
    assert_eq!(registry.audited(entry(), work).await.unwrap_err().code(), Code::FileFailed);
    assert!(!touched.into_inner(), "what cannot be noted is not begun");
    sql(registry, "DROP TRIGGER full").await.unwrap();
    registry.noting(entry()).revoke(&fixture.scope, &end.name).await.unwrap();
    registry.audited(entry(), async { Ok(()) }).await.unwrap();
    let refused = registry.audited(entry(), async { Err::<(), _>(Failure::park(Code::NotFound, "no")) }).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let rows = registry.audit_rows(&AuditFilter { tenant: Some(end.tenant), ..AuditFilter::default() }, 9).await.unwrap();
    let results: Vec<_> = rows.iter().map(|row| (row.role.as_str(), row.action.as_str(), row.result.as_str())).collect();
    assert_eq!(results, [("operator", "revoke", "not-found"), ("operator", "revoke", "ok"), ("operator", "revoke", "ok")]);
}

#[tokio::test]
async fn a_trail_that_cannot_be_written_holds_nobody_up_and_says_what_it_lost() {
    let fixture = Fixture::in_memory().await;
    let (clock, registry) = (Arc::new(fixture.clock.clone()), &fixture.registry);
    let journal = MemoryJournal::new(Place::Relay, clock.clone(), Arc::new(SeededEntropy::new(1)));
    let trail = Trail::new(registry.clone(), Arc::new(journal), clock);
    let entry = || Entry::new(fixture.clock.now(), Who::relay(), Action::Accept);
    sql(registry, "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'on purpose'); END").await.unwrap();
    trail.record(entry());
    assert_eq!(trail.flush(false).await.unwrap_err().code(), Code::FileFailed);
    for _ in 0..QUEUE_ROWS + 7 {
        trail.record(entry());
    }
    assert_eq!(trail.flush(false).await.unwrap_err().code(), Code::FileFailed);
    sql(registry, "DROP TRIGGER full").await.unwrap();
    trail.flush(false).await.unwrap();
    trail.flush(false).await.unwrap();
    assert_eq!(verified(registry).await.unwrap().rows, 1 + QUEUE_ROWS as u64 + 1);
    let last = registry.audit_rows(&AuditFilter::default(), 1).await.unwrap();
    assert_eq!((last[0].action.as_str(), last[0].detail.as_str()), ("gap", "7 rows could not be written"));
}

#[tokio::test]
async fn honest_questions_are_looked_at_while_the_trail_cannot_be_written() {
    let world = World::new().await;
    let agent = world.enrol("acme", Role::Agent).await;
    let (trail, registry) = (world.service().trail(), &world.registry);
    let before = world.audit().await.len();
    sql(registry, "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'on purpose'); END").await.unwrap();
    trail.record(Entry::new(world.clock.now(), Who::relay(), Action::Accept));
    let witness = Witness::of(trail, &agent.caller);
    for _ in 0..20 {
        // More than are looked at between two batches of rows.
        for _ in 0..80 {
            witness.missed(world.id());
        }
        assert_eq!(trail.flush(false).await.unwrap_err().code(), Code::FileFailed);
    }
    sql(registry, "DROP TRIGGER full").await.unwrap();
    let rows = world.audit().await.split_off(before);
    assert_eq!(rows.iter().map(|row| &*row.action).collect::<Vec<_>>(), ["accept"], "{rows:#?}");
}
