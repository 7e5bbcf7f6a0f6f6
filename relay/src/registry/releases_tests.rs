use towpath_transfer::{Code, api::MAX_RELEASES, release::ReleaseVersion};

use super::{tests::Fixture, *};
use crate::audit::{Action, Entry, Who};

fn version(text: &str) -> ReleaseVersion {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_tenant_sees_what_is_approved_for_its_ring_and_nothing_else() {
    let fixture = Fixture::on_disk().await;
    let (registry, acme) = (&fixture.registry, &fixture.scope);
    let other = registry.create_tenant(&"other".parse().unwrap(), None).await.unwrap();
    for text in ["1.10.0", "1.9.0", "1.8.0"] {
        registry.add_release(version(text)).await.unwrap();
    }
    let seen = async |scope| -> Vec<String> {
        registry.approved_releases(scope).await.unwrap().iter().map(ToString::to_string).collect()
    };
    registry.approve_release(version("1.9.0"), 1).await.unwrap();
    assert!(seen(acme).await.is_empty(), "it is in no ring");
    registry.set_ring(acme, 1).await.unwrap();
    registry.set_ring(&other, 2).await.unwrap();
    let before = registry.changes().await.unwrap();
    let noting =
        registry.noting(Entry::new(fixture.clock.now(), Who::operator(), Action::ReleaseApprove).detail("1.10.0, ring 1"));
    for _ in 0..2 {
        noting.approve_release(version("1.10.0"), 1).await.unwrap();
    }
    assert!(registry.changes().await.unwrap() > before, "a running relay sees it");
    assert_eq!(seen(acme).await, ["1.9.0", "1.10.0"], "by their numbers and not as text");
    assert!(seen(&other).await.is_empty());
    let rows = registry.releases().await.unwrap();
    let rings: Vec<(String, Vec<u8>)> = rows.into_iter().map(|row| (row.version.to_string(), row.rings)).collect();
    assert_eq!(rings, [("1.8.0".to_owned(), vec![]), ("1.9.0".to_owned(), vec![1]), ("1.10.0".to_owned(), vec![1])]);
    assert_eq!(registry.audit_rows(&AuditFilter::default(), 1).await.unwrap()[0].action, "release-approve");

    registry.withdraw_release(version("1.10.0"), 1).await.unwrap();
    assert_eq!(seen(acme).await, ["1.9.0"]);
    registry.approve_release(version("1.9.0"), 2).await.unwrap();
    assert_eq!(seen(&other).await, ["1.9.0"]);
    registry.set_ring(&other, 0).await.unwrap();
    assert!(seen(&other).await.is_empty());
    assert_eq!(registry.rings().await.unwrap(), [(acme.tenant().clone(), 1)]);
    registry.remove_release(version("1.9.0")).await.unwrap();
    assert!(seen(acme).await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let fixture = Fixture::in_memory().await;
    let registry = &fixture.registry;
    let code = |done: Result<()>| done.unwrap_err().code();
    let one = version("1.0.0");
    assert_eq!(code(registry.approve_release(one, 1).await), Code::NotFound);
    assert_eq!(code(registry.remove_release(one).await), Code::NotFound);
    registry.add_release(one).await.unwrap();
    assert_eq!(code(registry.add_release(one).await), Code::RequestInvalid);
    assert_eq!(code(registry.withdraw_release(one, 1).await), Code::NotFound);
    for ring in [0, MAX_RING + 1] {
        assert_eq!(code(registry.approve_release(one, ring).await), Code::RequestInvalid);
    }
    assert_eq!(code(registry.set_ring(&fixture.scope, MAX_RING + 1).await), Code::RequestInvalid);
    for patch in 1..MAX_RELEASES {
        registry.add_release(version(&format!("1.0.{patch}"))).await.unwrap();
    }
    assert_eq!(code(registry.add_release(version("2.0.0")).await), Code::LimitExceeded);
}
