//! What a tenant may have, over real sockets: said by another process while the relay runs.

use towpath_keys::KeyKind;
use towpath_relay::{
    audit::Action,
    registry::{AuditFilter, Budget, LimitsChange},
};
use towpath_transfer::{Code, Disposition, TransferId, api::Role};
use towpath_transport::{
    client::SftpStore,
    dial::Route,
    store::{BytesSource, Far, NoProgress, RemoteStore as _, StoreErrorKind, StoreResult},
};

use crate::flow::{Running, asked, at, clock, entropy, within};

const BUDGET: Budget = Budget { total: 200 << 30, quota: 50 << 30 };

/// Sends a file of so many bytes as a transfer of its own.
async fn send(sftp: &SftpStore, bytes: usize) -> StoreResult<()> {
    let folder = format!("/uplink/{}", TransferId::new(&*clock(), &*entropy()));
    sftp.make_dir_all(&at(&folder)).await?;
    let part = at(&format!("{folder}/items.csv.bz2.part"));
    sftp.put_new(&part, BytesSource::new(vec![7; bytes]), &NoProgress).await?;
    sftp.publish(&part, &at(&format!("{folder}/items.csv.bz2"))).await
}

/// Waits until the relay's figures have this line.
async fn figures_have(relay: &Running, line: &str) {
    within(async {
        while !asked(relay.admin, "/metrics").await.lines().any(|found| found == line) {
            clock().sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_over_its_quota_is_told_so_and_hinders_no_other() {
    let state = tempfile::tempdir().unwrap();
    let relay = Running::start(state.path()).await;
    let registry = relay.registry().await;
    let scope = registry.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
    registry.create_tenant(&"other".parse().unwrap(), None).await.unwrap();
    let full = relay.enrol(Role::Agent, KeyKind::Ed25519).await;
    let other = relay.enrol_in("other", Role::Agent, KeyKind::Ed25519).await;
    let (full, other) = (relay.sftp(&full, Route::Ssh).await.unwrap(), relay.sftp(&other, Route::Ssh).await.unwrap());
    let quota = |bytes| LimitsChange { quota: Some(Some(bytes)), ..LimitsChange::default() };
    send(&full, 600).await.unwrap();

    registry.change_limits(&scope, &quota(1_000), &BUDGET).await.unwrap();
    figures_have(&relay, "towpath_relay_tenant_quota_bytes{tenant=\"acme\"} 1000").await;
    let refused = send(&full, 500).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Full);
    let failure = refused.into_failure(Far::Relay);
    assert_eq!((failure.code(), failure.disposition()), (Code::SpoolFull, Disposition::Retry));
    assert!(failure.report().contains("Quota exceeded"), "{}", failure.report());
    send(&other, 5_000).await.unwrap();
    figures_have(&relay, "towpath_relay_tenant_spool_bytes{tenant=\"other\"} 5000").await;
    let figures = asked(relay.admin, "/metrics").await;
    assert!(figures.contains("towpath_relay_spool_refusals_total{reason=\"quota\"}"), "{figures}");
    assert!(figures.contains("towpath_relay_spool_refusals_total{reason=\"reserve\"} 0"), "{figures}");

    // Less than is there: what is new is refused before a byte of it, and nothing is removed.
    registry.change_limits(&scope, &quota(100), &BUDGET).await.unwrap();
    figures_have(&relay, "towpath_relay_tenant_quota_bytes{tenant=\"acme\"} 100").await;
    assert_eq!(send(&full, 1).await.unwrap_err().kind(), StoreErrorKind::Full);
    figures_have(&relay, "towpath_relay_tenant_quota_bytes{tenant=\"other\"} 53687091200").await;

    registry.change_limits(&scope, &LimitsChange { quota: Some(None), ..LimitsChange::default() }, &BUDGET).await.unwrap();
    figures_have(&relay, "towpath_relay_tenant_quota_bytes{tenant=\"acme\"} 53687091200").await;
    send(&full, 500).await.unwrap();
    relay.stop().await;
    let filter = AuditFilter { action: Some(Action::Upload), ..AuditFilter::default() };
    let rows = registry.audit_rows(&filter, 10).await.unwrap();
    assert!(!rows.is_empty());
    assert!(
        rows.iter().all(|row| row.tenant == "acme" && row.result == "spool-full" && row.detail.starts_with("quota")),
        "{rows:?}"
    );
}
