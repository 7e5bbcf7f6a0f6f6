use std::time::Duration;

use towpath_transfer::{
    Code,
    clock::{ManualClock, SeededEntropy},
};

use super::{schema::BACK_TO_VERSION_5, tests::Fixture, *};
use crate::{
    audit::{Action, Entry, Who},
    scope::TenantScope,
};

const BUDGET: Budget = Budget { total: 1_000, quota: 500 };
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn quota(bytes: u64) -> LimitsChange {
    LimitsChange { quota: Some(Some(bytes)), ..LimitsChange::default() }
}

fn reserve(bytes: u64) -> LimitsChange {
    LimitsChange { reserve: Some(Some(bytes)), ..LimitsChange::default() }
}

#[tokio::test]
async fn limits_are_said_one_by_one_and_taken_back_and_each_change_is_in_the_trail() {
    let fixture = Fixture::on_disk().await;
    let (registry, scope) = (&fixture.registry, &fixture.scope);
    let before = registry.changes().await.unwrap();
    let all = LimitsChange {
        quota: Some(Some(400)),
        reserve: Some(Some(100)),
        retention: Some(Some(DAY * 30)),
        journal_keeps: Some(Some(7)),
    };
    assert_eq!(all.in_words(), "quota 400B, reserve 100B, retention 30d, journal-keeps 7");
    let noting = registry.noting(Entry::new(fixture.clock.now(), Who::operator(), Action::TenantLimits).detail(all.in_words()));
    noting.change_limits(scope, &all, &BUDGET).await.unwrap();
    assert!(registry.changes().await.unwrap() > before, "a running relay sees it");
    let rows = registry.audit_rows(&AuditFilter::default(), 10).await.unwrap();
    assert_eq!((rows[0].action.as_str(), rows[0].detail.as_str()), ("tenant-limits", all.in_words().as_str()));
    let back = LimitsChange { quota: Some(None), ..LimitsChange::default() };
    assert_eq!(back.in_words(), "quota default");
    let left = registry.change_limits(scope, &back, &BUDGET).await.unwrap();
    let expected = TenantLimits { quota: None, reserve: Some(100), retention: Some(DAY * 30), journal_keeps: Some(7) };
    assert_eq!(left, expected);
    assert_eq!(registry.limits().await.unwrap(), [(scope.tenant().clone(), expected)]);
    assert_eq!(registry.tenants().await.unwrap()[0].limits, expected);
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_and_changes_nothing() {
    let fixture = Fixture::in_memory().await;
    let (registry, scope) = (&fixture.registry, &fixture.scope);
    let refused = async |scope: &TenantScope, change: LimitsChange| {
        let failure = registry.change_limits(scope, &change, &BUDGET).await.unwrap_err();
        assert_eq!(failure.code(), Code::RequestInvalid);
        failure.report()
    };
    assert!(refused(scope, quota(0)).await.contains("at least 1B"));
    assert!(refused(scope, quota(u64::MAX)).await.contains("larger than"));
    assert!(refused(scope, reserve(501)).await.contains("its quota of 500B"), "the configuration's quota counts");
    registry.change_limits(scope, &quota(600), &BUDGET).await.unwrap();
    registry.change_limits(scope, &reserve(600), &BUDGET).await.unwrap();
    assert!(refused(scope, quota(599)).await.contains("a reserve of 600B"));
    let said = registry.limits().await.unwrap();

    // Together they are no more than there is, also for a tenant that is just made.
    let other: towpath_transfer::TenantName = "other".parse().unwrap();
    let failure = registry.create_limited_tenant(&other, None, Some((&reserve(401), &BUDGET))).await.unwrap_err();
    assert!(failure.report().contains("together would be 1001B"), "{}", failure.report());
    assert_eq!((registry.limits().await.unwrap(), registry.tenants().await.unwrap().len()), (said, 1));
    let other = registry.create_limited_tenant(&other, None, Some((&reserve(400), &BUDGET))).await.unwrap();
    assert!(refused(&other, reserve(401)).await.contains("spool.limit"));
    registry.change_limits(scope, &LimitsChange { reserve: Some(None), ..quota(1) }, &BUDGET).await.unwrap();
    registry.change_limits(&other, &reserve(500), &BUDGET).await.unwrap();
}

#[tokio::test]
async fn a_registry_of_version_5_has_nothing_said_of_its_tenants() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.sqlite");
    let clock = Arc::new(ManualClock::new("2026-03-01T00:00:00Z".parse().unwrap()));
    let open = async || Registry::open(&path, clock.clone(), Arc::new(SeededEntropy::new(3))).await.unwrap();
    let before = open().await;
    let scope = before.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
    before.audit_append(&[Entry::new(clock.now(), Who::relay(), Action::Started)]).await.unwrap();
    for statement in BACK_TO_VERSION_5 {
        sqlx::query(*statement).execute(&before.pool).await.unwrap();
    }
    before.close().await;
    let after = open().await;
    assert_eq!(after.tenants().await.unwrap()[0].limits, TenantLimits::default());
    assert_eq!(after.verify_audit(None).await.unwrap().unwrap().rows, 1, "the trail goes on");
    after.change_limits(&scope, &quota(5), &BUDGET).await.unwrap();
    after.close().await;
    assert_eq!(open().await.limits().await.unwrap().len(), 1, "another start migrates nothing again");
}
