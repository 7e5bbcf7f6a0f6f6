//! Which landing a receiver may name, and when it is taken back.

use towpath_keys::Identity;
use towpath_transfer::{
    AgentName,
    api::{EnrolmentRequest, Landing, Role},
    clock::SeededEntropy,
    public_key::PublicKeyLine,
};

use super::{
    tests::{Fixture, request},
    *,
};
use crate::scope::TenantScope;

fn landing(host: &str, key: &PublicKeyLine) -> Landing {
    let (host, user, folder) = (host.to_owned(), "relay".to_owned(), "/".to_owned());
    Landing { host, port: 22, user, folder, host_keys: vec![key.clone()] }
}

impl Fixture {
    fn host_key(&self) -> PublicKeyLine {
        self.identity().public_line().clone()
    }

    async fn landing_host(&self, scope: &TenantScope) -> Option<String> {
        self.registry.landing(scope).await.unwrap().map(|landing| landing.host)
    }

    /// A receiver that has not enrolled yet, with what it will say.
    async fn receiver(&self, landing: Option<Landing>) -> (Identity, EnrolmentRequest) {
        let (code, identity) = (self.code(Role::Receiver, None).await.unwrap(), self.identity());
        let request = EnrolmentRequest { landing, ..request(&code, &identity) };
        (identity, request)
    }

    async fn enrol(&self, landing: Option<Landing>) -> AgentName {
        let (_, request) = self.receiver(landing).await;
        self.registry.redeem(&request).await.unwrap().name
    }
}

#[tokio::test]
async fn a_landing_goes_with_the_receiver_that_has_named_it() {
    let fixture = Fixture::in_memory().await;
    let (registry, scope, key) = (&fixture.registry, &fixture.scope, fixture.host_key());
    let host = async || fixture.landing_host(scope).await;
    let first = fixture.enrol(Some(landing("a", &key))).await;
    let (_, said) = fixture.receiver(Some(landing("b", &key))).await;
    let second = registry.redeem(&said).await.unwrap().name;
    assert_eq!(host().await.as_deref(), Some("b"));
    registry.revoke(scope, &second).await.unwrap();
    assert_eq!(host().await, None, "though the first receiver is there still");
    // Its code is good still, and names nothing any more.
    assert_eq!(registry.redeem(&said).await.unwrap_err().code(), Code::AgentRevoked);
    assert_eq!(host().await, None);
    // Whoever has only used what another has named takes nothing along.
    let third = fixture.enrol(Some(landing("c", &key))).await;
    let fourth = fixture.enrol(None).await;
    registry.revoke(scope, &fourth).await.unwrap();
    registry.revoke(scope, &first).await.unwrap();
    assert_eq!(host().await.as_deref(), Some("c"));
    // A receiver that follows another on the same host stands for its landing.
    let fifth = fixture.enrol(Some(landing("c", &key))).await;
    registry.revoke(scope, &third).await.unwrap();
    assert_eq!(host().await.as_deref(), Some("c"));
    registry.set_landing(scope, &landing("operator", &key)).await.unwrap();
    registry.revoke(scope, &fifth).await.unwrap();
    assert_eq!(host().await.as_deref(), Some("operator"), "what the operator has said stays, whoever is revoked");
}

#[tokio::test]
async fn a_landing_that_an_older_program_took_goes_with_any_receiver() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.sqlite");
    let fixture = Fixture::in_memory().await;
    let open = async || {
        let (clock, entropy) = (Arc::new(fixture.clock.clone()), Arc::new(SeededEntropy::new(9)));
        Registry::open(&path, clock, entropy).await.unwrap()
    };
    let registry = open().await;
    let scope = registry.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
    let mut old = fixture.over(registry, scope);
    let first = old.enrol(None).await;
    old.enrol(Some(landing("b", &old.host_key()))).await;
    let (code, identity) = (old.code(Role::Agent, None).await.unwrap(), old.identity());
    let agent = old.registry.redeem(&request(&code, &identity)).await.unwrap().name;
    for statement in ["ALTER TABLE tenants DROP COLUMN landing_of", "PRAGMA user_version = 7"] {
        sqlx::query(statement).execute(&old.registry.pool).await.unwrap();
    }
    old.registry.close().await;
    old.registry = open().await;
    assert_eq!(old.landing_host(&old.scope).await.as_deref(), Some("b"), "it stays as it was");
    old.registry.revoke(&old.scope, &agent).await.unwrap();
    assert_eq!(old.landing_host(&old.scope).await.as_deref(), Some("b"), "an agent has named none");
    old.registry.revoke(&old.scope, &first).await.unwrap();
    assert_eq!(old.landing_host(&old.scope).await, None, "who has named it is not known");
}

#[tokio::test]
async fn a_receiver_names_no_app_server_of_another_tenant() {
    let fixture = Fixture::in_memory().await;
    let (registry, acme, theirs, own) = (&fixture.registry, fixture.scope.clone(), fixture.host_key(), fixture.host_key());
    fixture.enrol(Some(landing("app.acme.example", &theirs))).await;
    let scope = registry.create_tenant(&"other".parse().unwrap(), None).await.unwrap();
    let other = fixture.over(registry.clone(), scope.clone());
    other.enrol(Some(landing("app.other.example", &own))).await;
    let both = Landing { host_keys: vec![other.host_key(), theirs.clone()], ..landing("third.example", &own) };
    for foreign in [landing("alias.example", &theirs), both, landing("APP.acme.example", &own)] {
        let (_, request) = other.receiver(Some(foreign)).await;
        let refused = registry.redeem(&request).await.unwrap_err();
        assert_eq!(refused.code(), Code::RequestInvalid);
        assert!(refused.report().contains("tenant app-server") && !refused.report().contains("acme"), "{}", refused.report());
        assert_eq!(fixture.landing_host(&scope).await.as_deref(), Some("app.other.example"), "it stays as it was");
        // The code is not used up by that.
        registry.redeem(&EnrolmentRequest { landing: None, ..request }).await.unwrap();
    }
    // Its own host, whoever names it, is not another's.
    other.enrol(Some(landing("app.other.example", &own))).await;
    // One server may have a root for each of two tenants: the operator knows.
    registry.set_landing(&scope, &landing("alias.example", &theirs)).await.unwrap();
    assert_eq!(fixture.landing_host(&scope).await.as_deref(), Some("alias.example"));
    assert_eq!(fixture.landing_host(&acme).await.as_deref(), Some("app.acme.example"));
}
