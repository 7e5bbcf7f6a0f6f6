use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use towpath_keys::{Identity, KeyKind, TokenClaims, sign_enrolment};
use towpath_transfer::{
    AgentName, TenantName,
    api::{EnrolmentCode, EnrolmentRequest, Expectation, Expectations, Role},
    clock::{ManualClock, SeededEntropy},
};

use super::*;
use crate::{
    audit::{Action, Who},
    scope::TenantScope,
};

const URL: &str = "https://relay.example";
const LEEWAY: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);

pub(super) struct Fixture {
    pub(super) clock: ManualClock,
    pub(super) entropy: Arc<SeededEntropy>,
    pub(super) registry: Registry,
    pub(super) scope: TenantScope,
    _folder: Option<tempfile::TempDir>,
}

impl Fixture {
    pub(super) async fn in_memory() -> Self {
        Self::new(None).await
    }

    pub(super) async fn on_disk() -> Self {
        Self::new(Some(tempfile::tempdir().unwrap())).await
    }

    async fn new(folder: Option<tempfile::TempDir>) -> Self {
        let clock = ManualClock::new("2026-03-01T00:00:00Z".parse().unwrap());
        let entropy = Arc::new(SeededEntropy::new(3));
        let (shared, random) = (Arc::new(clock.clone()), entropy.clone());
        let registry = match &folder {
            Some(folder) => Registry::open(&folder.path().join("registry.sqlite"), shared, random).await.unwrap(),
            None => Registry::in_memory(shared, random).await.unwrap(),
        };
        let scope = registry.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
        Self { clock, entropy, registry, scope, _folder: folder }
    }

    /// The same clock and randomness over another registry or tenant.
    pub(super) fn over(&self, registry: Registry, scope: TenantScope) -> Self {
        Self { clock: self.clock.clone(), entropy: self.entropy.clone(), registry, scope, _folder: None }
    }

    pub(super) async fn code(&self, role: Role, name: Option<&str>) -> Result<EnrolmentCode> {
        let name = name.map(|name| name.parse().unwrap());
        let new = NewEnrolment { role, name, valid_for: HOUR, relay_url: URL.to_owned(), spki_pin: None };
        self.registry.create_enrolment(&self.scope, new).await.map(|(code, _)| code)
    }

    pub(super) fn identity(&self) -> Identity {
        Identity::generate(KeyKind::Ed25519, &*self.entropy).unwrap()
    }

    pub(super) async fn enrolled(&self) -> (Identity, End) {
        let (code, identity) = (self.code(Role::Agent, None).await.unwrap(), self.identity());
        let end = self.registry.redeem(&request(&code, &identity)).await.unwrap();
        (identity, end)
    }

    fn claims(&self) -> TokenClaims {
        TokenClaims::new("acme.agent", URL, self.clock.now(), &*self.entropy)
    }

    async fn refused(&self, identity: &Identity, claims: &TokenClaims) -> Code {
        let token = identity.token(claims).unwrap();
        self.registry.authenticate_token(&token, URL, LEEWAY).await.unwrap_err().code()
    }
}

pub(super) fn request(code: &EnrolmentCode, identity: &Identity) -> EnrolmentRequest {
    EnrolmentRequest {
        tenant: code.tenant.clone(),
        role: code.role,
        secret: code.secret.clone(),
        public_key: identity.public_line().clone(),
        proof: sign_enrolment(identity, code.secret.as_bytes(), URL).unwrap(),
        landing: None,
    }
}

#[tokio::test]
async fn the_first_key_binds_a_code_and_only_it_gets_the_answer_again() {
    let fixture = Fixture::in_memory().await;
    let (code, first, second) = (fixture.code(Role::Agent, None).await.unwrap(), fixture.identity(), fixture.identity());
    let end = fixture.registry.redeem(&request(&code, &first)).await.unwrap();
    assert_eq!(end.name.as_str(), "agent");
    fixture.clock.advance(HOUR - Duration::from_secs(1));
    assert_eq!(fixture.registry.redeem(&request(&code, &first)).await.unwrap(), end);
    let other = fixture.registry.redeem(&request(&code, &second)).await.unwrap_err();
    assert_eq!(other.code(), Code::EnrolmentUsed);
    fixture.clock.advance(Duration::from_secs(1));
    let late = fixture.registry.redeem(&request(&code, &first)).await.unwrap_err();
    assert_eq!(late.code(), Code::EnrolmentExpired);
}

#[tokio::test]
async fn wrong_codes_and_proofs_bind_nothing() {
    let fixture = Fixture::in_memory().await;
    let (code, identity) = (fixture.code(Role::Agent, None).await.unwrap(), fixture.identity());
    let good = request(&code, &identity);
    let other_tenant = fixture.registry.create_tenant(&"other".parse().unwrap(), None).await.unwrap();
    let cases: [(EnrolmentRequest, Code); 4] = [
        (EnrolmentRequest { secret: "guess".into(), ..good.clone() }, Code::EnrolmentUnknown),
        (EnrolmentRequest { tenant: other_tenant.tenant().clone(), ..good.clone() }, Code::EnrolmentUnknown),
        (EnrolmentRequest { role: Role::Receiver, ..good.clone() }, Code::EnrolmentUnknown),
        (EnrolmentRequest { public_key: fixture.identity().public_line().clone(), ..good.clone() }, Code::EnrolmentProofInvalid),
    ];
    for (request, expected) in cases {
        assert_eq!(fixture.registry.redeem(&request).await.unwrap_err().code(), expected);
    }
    let elsewhere = sign_enrolment(&identity, code.secret.as_bytes(), "https://evil.example").unwrap();
    let moved = EnrolmentRequest { proof: elsewhere, ..good.clone() };
    assert_eq!(fixture.registry.redeem(&moved).await.unwrap_err().code(), Code::EnrolmentProofInvalid);
    fixture.registry.redeem(&good).await.unwrap();
}

#[tokio::test]
async fn a_hundred_keys_at_once_bind_a_code_once() {
    for fixture in [Fixture::in_memory().await, Fixture::on_disk().await] {
        let code = fixture.code(Role::Agent, None).await.unwrap();
        let requests: Vec<_> = (0..100).map(|_| request(&code, &fixture.identity())).collect();
        let tries = requests.iter().map(|request| {
            let (registry, request) = (fixture.registry.clone(), request.clone());
            tokio::spawn(async move { registry.redeem(&request).await })
        });
        let answers = join_all(tries.collect::<Vec<_>>()).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().map(|answer| answer.unwrap()).partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 99));
        assert!(lost.into_iter().all(|answer| answer.unwrap_err().code() == Code::EnrolmentUsed));
        assert_eq!(fixture.registry.ends(&fixture.scope).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn the_secret_is_not_in_the_registry() {
    let fixture = Fixture::on_disk().await;
    let code = fixture.code(Role::Agent, None).await.unwrap();
    assert_eq!(code.secret.len(), 43, "256 bits in base64url");
    let folder = fixture._folder.as_ref().unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(code.secret.len()).any(|window| window == code.secret.as_bytes()));
    }
}

#[tokio::test]
async fn names_are_given_once() {
    let fixture = Fixture::in_memory().await;
    let (_, end) = fixture.enrolled().await;
    let (_, second) = fixture.enrolled().await;
    assert_eq!((end.name.as_str(), second.name.as_str()), ("agent", "agent-2"));
    assert_eq!(fixture.code(Role::Receiver, Some("agent")).await.unwrap_err().code(), Code::RequestInvalid);
    fixture.code(Role::Agent, Some("erp")).await.unwrap();
    assert_eq!(fixture.code(Role::Agent, Some("erp")).await.unwrap_err().code(), Code::RequestInvalid, "while a code is open");
    fixture.clock.advance(HOUR);
    fixture.code(Role::Agent, Some("erp")).await.unwrap();
    fixture.registry.revoke(&fixture.scope, &end.name).await.unwrap();
    assert_eq!(
        fixture.code(Role::Agent, Some("agent")).await.unwrap_err().code(),
        Code::RequestInvalid,
        "also after a revocation"
    );
    let too_long = NewEnrolment {
        role: Role::Agent,
        name: None,
        valid_for: MAX_ENROLMENT_LIFE + HOUR,
        relay_url: URL.to_owned(),
        spki_pin: None,
    };
    assert_eq!(fixture.registry.create_enrolment(&fixture.scope, too_long).await.unwrap_err().code(), Code::RequestInvalid);
}

#[tokio::test]
async fn a_token_is_good_once_and_only_from_its_own_key() {
    let fixture = Fixture::in_memory().await;
    let (identity, end) = fixture.enrolled().await;
    let claims = fixture.claims();
    let token = identity.token(&claims).unwrap();
    let caller = fixture.registry.authenticate_token(&token, URL, LEEWAY).await.unwrap();
    assert_eq!((caller.name(), caller.role()), (&end.name, Role::Agent));
    let again = fixture.registry.authenticate_token(&token, URL, LEEWAY).await.unwrap_err();
    assert_eq!(again.code(), Code::AuthenticationRefused);
    assert_eq!(fixture.refused(&fixture.identity(), &fixture.claims()).await, Code::AuthenticationRefused);
    let elsewhere = TokenClaims { audience: "https://evil.example".into(), ..fixture.claims() };
    assert_eq!(fixture.refused(&identity, &elsewhere).await, Code::AuthenticationRefused);
    for stranger in ["acme.nobody", "nobody.agent", "acme", "agent"] {
        let claims = TokenClaims { issuer: stranger.into(), ..fixture.claims() };
        assert_eq!(fixture.refused(&identity, &claims).await, Code::AuthenticationRefused, "{stranger}");
    }
    let late = fixture.claims();
    fixture.clock.advance(Duration::from_secs(66));
    assert_eq!(fixture.refused(&identity, &late).await, Code::ClockSkew);
    assert_eq!(fixture.registry.prune_tokens().await.unwrap(), 1);
}

#[tokio::test]
async fn an_end_has_so_many_tokens_and_no_more() {
    let fixture = Fixture::in_memory().await;
    let (identity, _) = fixture.enrolled().await;
    sqlx::query("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO used_tokens SELECT 'acme.agent', i, ? FROM n")
        .bind(MAX_LIVE_TOKENS)
        .bind(i64::MAX)
        .execute(&fixture.registry.pool)
        .await
        .unwrap();
    assert_eq!(fixture.refused(&identity, &fixture.claims()).await, Code::RateLimited);
}

#[tokio::test]
async fn a_revoked_end_is_told_so_and_nobody_else_learns_it() {
    let fixture = Fixture::in_memory().await;
    let (identity, end) = fixture.enrolled().await;
    let before = fixture.registry.changes().await.unwrap();
    fixture.registry.revoke(&fixture.scope, &end.name).await.unwrap();
    assert!(fixture.registry.changes().await.unwrap() > before);
    assert_eq!(fixture.registry.is_out("acme.agent", &identity.fingerprint()).await.unwrap(), Some(Code::AgentRevoked));
    assert_eq!(fixture.refused(&identity, &fixture.claims()).await, Code::AgentRevoked);
    assert_eq!(fixture.refused(&fixture.identity(), &fixture.claims()).await, Code::AuthenticationRefused);
    let ssh = fixture.registry.authenticate_key("acme.agent", identity.public_line()).await.unwrap_err();
    assert_eq!(ssh.code(), Code::AgentRevoked);
    let stranger = fixture.registry.authenticate_key("acme.agent", fixture.identity().public_line()).await.unwrap_err();
    assert_eq!(stranger.code(), Code::AuthenticationRefused);
    assert!(fixture.registry.peers(&fixture.scope, Role::Agent).await.unwrap().is_empty());
    let nobody: AgentName = "nobody".parse().unwrap();
    assert_eq!(fixture.registry.revoke(&fixture.scope, &nobody).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_revoked_key_is_not_enrolled_again_under_another_name() {
    let fixture = Fixture::in_memory().await;
    let (identity, end) = fixture.enrolled().await;
    fixture.registry.revoke(&fixture.scope, &end.name).await.unwrap();
    let code = fixture.code(Role::Agent, Some("other")).await.unwrap();
    let refused = fixture.registry.redeem(&request(&code, &identity)).await.unwrap_err();
    assert_eq!(refused.code(), Code::AgentRevoked);
    let fresh = fixture.registry.redeem(&request(&code, &fixture.identity())).await.unwrap();
    assert_eq!(fresh.name.as_str(), "other", "the refused key has not used the code up");
}

#[tokio::test]
async fn two_processes_see_each_other() {
    let fixture = Fixture::on_disk().await;
    let path = fixture._folder.as_ref().unwrap().path().join("registry.sqlite");
    let other = Registry::open(&path, Arc::new(fixture.clock.clone()), fixture.entropy.clone()).await.unwrap();
    let (identity, end) = fixture.enrolled().await;
    let seen = other.changes().await.unwrap();
    fixture.registry.revoke(&fixture.scope, &end.name).await.unwrap();
    assert_eq!(other.changes().await.unwrap(), seen + 1);
    assert_eq!(other.is_out("acme.agent", &identity.fingerprint()).await.unwrap(), Some(Code::AgentRevoked));
}

#[tokio::test]
async fn tenants_are_created_once_and_known_by_name() {
    let fixture = Fixture::in_memory().await;
    let acme: TenantName = "acme".parse().unwrap();
    assert_eq!(fixture.registry.create_tenant(&acme, None).await.unwrap_err().code(), Code::RequestInvalid);
    let names: BTreeSet<String> = fixture.registry.tenants().await.unwrap().iter().map(|t| t.name.to_string()).collect();
    assert_eq!(names, BTreeSet::from(["acme".to_owned()]));
    let missing = fixture.registry.operator_scope(&"nobody".parse().unwrap()).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    fixture.registry.health().await.unwrap();
    fixture.enrolled().await;
    fixture.clock.advance(HOUR + MAX_ENROLMENT_LIFE);
    assert_eq!(fixture.registry.prune_enrolments().await.unwrap(), 1);
    assert_eq!(fixture.registry.ends(&fixture.scope).await.unwrap().len(), 1, "who has enrolled stays");
}

#[tokio::test]
async fn a_newer_registry_is_left_alone() {
    let fixture = Fixture::on_disk().await;
    sqlx::query("PRAGMA user_version = 99").execute(&fixture.registry.pool).await.unwrap();
    let path = fixture._folder.as_ref().unwrap().path().join("registry.sqlite");
    let refused = Registry::open(&path, Arc::new(fixture.clock.clone()), fixture.entropy.clone()).await.unwrap_err();
    assert!(refused.report().contains("newer version"));
}

#[tokio::test]
async fn what_an_end_has_pinned_is_its_newest_word_until_it_enrols_anew_or_is_revoked() {
    let fixture = Fixture::on_disk().await;
    let (registry, code) = (&fixture.registry, fixture.code(Role::Agent, None).await.unwrap());
    let identity = fixture.identity();
    registry.redeem(&request(&code, &identity)).await.unwrap();
    let caller = registry.authenticate_key("acme.agent", identity.public_line()).await.unwrap();
    let pinned = async || registry.followers(10).await.unwrap().first().map(|end| (end.to_string(), end.pinned));
    assert_eq!(pinned().await, Some(("acme.agent".to_owned(), 0)));
    for serial in [3, 3, 2] {
        registry.announcement_pinned(&caller, serial).await.unwrap();
        assert_eq!(pinned().await.unwrap().1, serial);
    }
    assert!(registry.followers_below(2, 10).await.unwrap().is_empty());
    assert_eq!(registry.followers_below(3, 10).await.unwrap().len(), 1);
    // Whoever enrols again has pinned what enrolment tells.
    registry.redeem(&request(&code, &identity)).await.unwrap();
    assert_eq!(pinned().await.unwrap().1, 0);
    registry.revoke(&fixture.scope, &"agent".parse().unwrap()).await.unwrap();
    assert_eq!(pinned().await, None);
}

/// Makes a registry as an older program did, with a tenant, then does the given statements.
pub(super) async fn old_registry(path: &Path, statements: &[&'static str]) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    super::schema::make_version_3(&mut tx).await.unwrap();
    for statement in ["INSERT INTO tenants (name, created) VALUES ('acme', 0)"].iter().chain(statements) {
        sqlx::query(*statement).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    pool.close().await;
}

#[tokio::test]
async fn an_older_registry_becomes_one_of_today() {
    let version_2: &[&str] = &["DROP TABLE expectations", "DROP TABLE expecting", "PRAGMA user_version = 2"];
    let version_1: &[&str] =
        &["DROP TABLE expectations", "DROP TABLE expecting", "DROP TABLE pinned_announcements", "PRAGMA user_version = 1"];
    for statements in [&[], version_2, version_1] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.sqlite");
        old_registry(&path, statements).await;
        let clock = Arc::new(ManualClock::new("2026-03-01T00:00:00Z".parse().unwrap()));
        let after = Registry::open(&path, clock, Arc::new(SeededEntropy::new(3))).await.unwrap();
        assert_eq!(after.tenants().await.unwrap().len(), 1);
        assert!(after.followers(10).await.unwrap().is_empty());
        assert!(after.expected().await.unwrap().is_empty());
        assert!(after.audit_rows(&AuditFilter::default(), 10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_is_expected_is_the_agents_newest_word_until_it_is_revoked_or_enrols_anew() {
    let fixture = Fixture::on_disk().await;
    let (registry, code) = (&fixture.registry, fixture.code(Role::Agent, None).await.unwrap());
    let identity = fixture.identity();
    registry.redeem(&request(&code, &identity)).await.unwrap();
    let scope = registry.authenticate_key("acme.agent", identity.public_line()).await.unwrap().as_agent().unwrap();
    let expected = |job: &str, by: Option<Timestamp>| Expectation { job: job.parse().unwrap(), expected_by: by };
    let by = fixture.clock.now();
    let told = Expectations { jobs: vec![expected("a", Some(by)), expected("b", None)] };
    registry.expect(&scope, &told).await.unwrap();
    let jobs = async || -> Vec<(String, Option<Timestamp>)> {
        registry.expected().await.unwrap().into_iter().map(|one| (one.job.to_string(), one.by)).collect()
    };
    assert_eq!(jobs().await, [("a".to_owned(), Some(by)), ("b".to_owned(), None)]);
    assert!(!registry.expected().await.unwrap()[0].is_late(by));
    fixture.clock.advance(Duration::from_secs(1));
    assert!(registry.expected().await.unwrap()[0].is_late(fixture.clock.now()));
    registry.expect(&scope, &Expectations { jobs: vec![expected("b", Some(by))] }).await.unwrap();
    assert_eq!(jobs().await, [("b".to_owned(), Some(by))]);
    registry.redeem(&request(&code, &identity)).await.unwrap();
    assert!(jobs().await.is_empty());
    registry.expect(&scope, &told).await.unwrap();
    registry.revoke(&fixture.scope, &"agent".parse().unwrap()).await.unwrap();
    assert!(jobs().await.is_empty());
}

/// Two agents of the same name, each of a tenant of its own.
pub(crate) async fn enrolled_agents(registry: &Registry, entropy: &dyn Entropy) -> [crate::scope::AgentScope; 2] {
    let mut scopes = Vec::new();
    for tenant in ["acme", "other"] {
        let scope = registry.create_tenant(&tenant.parse().unwrap(), None).await.unwrap();
        let name = Some("erp".parse().unwrap());
        let new = NewEnrolment { role: Role::Agent, name, valid_for: HOUR, relay_url: URL.to_owned(), spki_pin: None };
        let (code, _) = registry.create_enrolment(&scope, new).await.unwrap();
        let identity = Identity::generate(KeyKind::Ed25519, entropy).unwrap();
        registry.redeem(&request(&code, &identity)).await.unwrap();
        let caller = registry.authenticate_key(&format!("{tenant}.erp"), identity.public_line()).await.unwrap();
        scopes.push(caller.as_agent().unwrap());
    }
    scopes.try_into().unwrap()
}

#[tokio::test]
async fn once_the_disk_has_room_again_it_goes_on_by_itself() {
    let fixture = Fixture::on_disk().await;
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&fixture.registry.pool).await.unwrap();
    let limit = format!("PRAGMA max_page_count = {pages}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(limit)).execute(&fixture.registry.pool).await.unwrap();
    let entry = Entry::new(fixture.clock.now(), Who::operator(), Action::Retry).detail("x".repeat(400));
    let full = loop {
        if let Err(failure) = fixture.registry.audit_append(std::slice::from_ref(&entry)).await {
            break failure;
        }
    };
    assert_eq!(full.code(), Code::DiskFull);
    // The limit was the connection's own; it is given up for one that can begin a transaction, and that one has room.
    fixture.registry.audit_append(&[entry]).await.unwrap();
    fixture.registry.health().await.unwrap();
}
