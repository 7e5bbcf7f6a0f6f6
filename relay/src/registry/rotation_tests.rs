//! An end takes a new key: both are good for a while, nobody else can do it, and no key comes back.

use std::time::Duration;

use jiff::SignedDuration;
use towpath_keys::{Identity, RotatingEnd, TokenClaims, sign_rotation};
use towpath_transfer::api::{KeyRotation, MAX_KEY_OVERLAP, MAX_LIVE_KEYS, MAX_ROTATIONS, Role};

use super::{
    rotations::{MAX_TENANT_ROTATIONS, check_room},
    tests::{Fixture, request},
    *,
};

const URL: &str = "https://relay.example";
const USER: &str = "acme.agent";
const HOUR: Duration = Duration::from_secs(3600);

fn change(fixture: &Fixture, old: &Identity, new: &Identity, overlap: Duration) -> KeyRotation {
    let until = fixture.clock.now() + SignedDuration::try_from(overlap).unwrap();
    sign_rotation(RotatingEnd { relay_url: URL, user: USER }, old, new, until).unwrap()
}

async fn rotate(fixture: &Fixture, by: &Identity, change: &KeyRotation) -> Result<KeyRotation> {
    let caller = fixture.registry.authenticate_key(USER, by.public_line()).await?;
    fixture.registry.rotate(&caller, change, async { Ok(()) }).await
}

/// Whether a key is let in by SSH and by a token, which must agree.
async fn lets_in(fixture: &Fixture, key: &Identity) -> bool {
    let by_key = fixture.registry.authenticate_key(USER, key.public_line()).await;
    let claims = TokenClaims::new(USER, URL, fixture.clock.now(), &*fixture.entropy);
    let token = key.token(&claims).unwrap();
    let by_token = fixture.registry.authenticate_token(&token, URL, Duration::from_secs(5)).await;
    assert_eq!(by_key.is_ok(), by_token.is_ok(), "{by_key:?} {by_token:?}");
    if let (Ok(one), Ok(other)) = (&by_key, &by_token) {
        assert_eq!((one.key(), other.key()), (key.public_line(), key.public_line()));
    }
    let out = fixture.registry.is_out(USER, &key.fingerprint()).await.unwrap();
    assert_eq!(out.is_none(), by_key.is_ok());
    by_key.is_ok()
}

async fn refused(fixture: &Fixture, by: &Identity, change: &KeyRotation) {
    let before = fixture.registry.ends(&fixture.scope).await.unwrap();
    assert_eq!(rotate(fixture, by, change).await.unwrap_err().code(), Code::RotationInvalid, "{change:?}");
    assert_eq!(fixture.registry.ends(&fixture.scope).await.unwrap(), before);
}

#[tokio::test]
async fn both_keys_are_good_until_the_old_one_is_retired_and_the_chain_is_told() {
    let fixture = Fixture::on_disk().await;
    let (first, _) = fixture.enrolled().await;
    let (second, third) = (fixture.identity(), fixture.identity());
    let told = change(&fixture, &first, &second, HOUR);
    let changes = fixture.registry.changes().await.unwrap();
    assert_eq!(rotate(&fixture, &first, &told).await.unwrap(), told);
    assert_ne!(fixture.registry.changes().await.unwrap(), changes, "a running relay looks again");
    // The same again, with another time: the first answer counts.
    let again = change(&fixture, &first, &second, HOUR * 2);
    assert_eq!(rotate(&fixture, &second, &again).await.unwrap(), told);
    assert!(lets_in(&fixture, &first).await && lets_in(&fixture, &second).await);
    fixture.clock.advance(HOUR);
    assert!(!lets_in(&fixture, &first).await && lets_in(&fixture, &second).await);
    let at_once = change(&fixture, &second, &third, Duration::ZERO);
    rotate(&fixture, &second, &at_once).await.unwrap();
    assert!(!lets_in(&fixture, &second).await && lets_in(&fixture, &third).await);
    let end = fixture.registry.ends(&fixture.scope).await.unwrap().remove(0);
    assert_eq!((end.fingerprint(), end.key.fingerprint()), (third.fingerprint(), first.fingerprint()));
    let peers = fixture.registry.peers(&fixture.scope, Role::Agent).await.unwrap();
    assert_eq!((&peers[0].public_key, &peers[0].rotations[..]), (first.public_line(), &[told, at_once][..]));
    // What an earlier key has signed is still this end's word.
    let caller = fixture.registry.authenticate_key(USER, third.public_line()).await.unwrap();
    assert_eq!(caller.keys(), [&first, &second, &third].map(|key| key.public_line().clone()));
}

#[tokio::test]
async fn whoever_retires_a_key_retires_those_before_it() {
    let fixture = Fixture::in_memory().await;
    let (code, first) = (fixture.code(Role::Agent, None).await.unwrap(), fixture.identity());
    fixture.registry.redeem(&request(&code, &first)).await.unwrap();
    let (second, third) = (fixture.identity(), fixture.identity());
    rotate(&fixture, &first, &change(&fixture, &first, &second, MAX_KEY_OVERLAP)).await.unwrap();
    assert!(fixture.registry.redeem(&request(&code, &first)).await.is_ok(), "its code is still good for the same key");
    rotate(&fixture, &second, &change(&fixture, &second, &third, Duration::ZERO)).await.unwrap();
    assert!(!lets_in(&fixture, &first).await && !lets_in(&fixture, &second).await && lets_in(&fixture, &third).await);
    let retired = fixture.registry.redeem(&request(&code, &first)).await.unwrap_err();
    assert_eq!(retired.code(), Code::AuthenticationRefused);
}

#[tokio::test]
async fn a_tenant_has_so_many_changes() {
    let fixture = Fixture::in_memory().await;
    let (first, _) = fixture.enrolled().await;
    sqlx::query(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
         INSERT INTO rotations (tenant, name, place, new_key, fingerprint, old_until, by_old, by_new)
         SELECT 'acme', 'agent', 1000 + i, 'k', 'f' || i, 0, '', '' FROM n",
    )
    .bind(MAX_TENANT_ROTATIONS)
    .execute(&fixture.registry.pool)
    .await
    .unwrap();
    let told = change(&fixture, &first, &fixture.identity(), HOUR);
    let mut connection = fixture.registry.pool.acquire().await.unwrap();
    let full = check_room(&mut connection, &fixture.scope, &told).await.unwrap_err();
    assert_eq!(full.code(), Code::RotationInvalid);
    // As the message says: who is revoked counts no more.
    drop(connection);
    fixture.registry.revoke(&fixture.scope, &"agent".parse().unwrap()).await.unwrap();
    let mut connection = fixture.registry.pool.acquire().await.unwrap();
    check_room(&mut connection, &fixture.scope, &told).await.unwrap();
}

#[tokio::test]
async fn whatever_does_not_follow_changes_nothing() {
    let fixture = Fixture::in_memory().await;
    let (first, _) = fixture.enrolled().await;
    let (code, stranger) = (fixture.code(Role::Agent, Some("other")).await.unwrap(), fixture.identity());
    fixture.registry.redeem(&request(&code, &stranger)).await.unwrap();
    let second = fixture.identity();
    let good = change(&fixture, &first, &second, HOUR);
    let elsewhere = RotatingEnd { relay_url: URL, user: "acme.other" };
    for bad in [
        KeyRotation { by_old: good.by_new.clone(), ..good.clone() },
        KeyRotation { by_new: good.by_old.clone(), ..good.clone() },
        change(&fixture, &stranger, &second, HOUR),
        change(&fixture, &first, &stranger, HOUR),
        change(&fixture, &first, &second, MAX_KEY_OVERLAP + HOUR),
        sign_rotation(elsewhere, &first, &second, fixture.clock.now()).unwrap(),
        change(&fixture, &first, &second, Duration::from_millis(1_500)),
    ] {
        refused(&fixture, &first, &bad).await;
    }
    rotate(&fixture, &first, &good).await.unwrap();
    // The old key is good for now, and follows nobody any more; no key comes back.
    refused(&fixture, &first, &change(&fixture, &first, &fixture.identity(), HOUR)).await;
    refused(&fixture, &second, &change(&fixture, &second, &first, HOUR)).await;
}

#[tokio::test]
async fn so_many_keys_are_good_at_once_and_so_often_they_change() {
    let fixture = Fixture::in_memory().await;
    let (mut newest, _) = fixture.enrolled().await;
    for _ in 1..MAX_LIVE_KEYS {
        let next = fixture.identity();
        rotate(&fixture, &newest, &change(&fixture, &newest, &next, HOUR)).await.unwrap();
        newest = next;
    }
    let next = fixture.identity();
    refused(&fixture, &newest, &change(&fixture, &newest, &next, HOUR)).await;
    fixture.clock.advance(HOUR);
    for _ in MAX_LIVE_KEYS..=MAX_ROTATIONS {
        let next = fixture.identity();
        rotate(&fixture, &newest, &change(&fixture, &newest, &next, Duration::ZERO)).await.unwrap();
        newest = next;
    }
    refused(&fixture, &newest, &change(&fixture, &newest, &next, Duration::ZERO)).await;
}

#[tokio::test]
async fn two_at_once_make_one_change() {
    let fixture = Fixture::on_disk().await;
    let (first, _) = fixture.enrolled().await;
    let next: Vec<Identity> = (0..8).map(|_| fixture.identity()).collect();
    let asked: Vec<KeyRotation> = next.iter().map(|next| change(&fixture, &first, next, HOUR)).collect();
    let done = futures::future::join_all(asked.iter().map(|asked| rotate(&fixture, &first, asked))).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1);
    let end = fixture.registry.ends(&fixture.scope).await.unwrap().remove(0);
    assert_eq!(end.rotations.len(), 1);
}

#[tokio::test]
async fn a_revoked_end_changes_nothing_and_none_of_its_keys_enrols_again() {
    let fixture = Fixture::in_memory().await;
    let (first, end) = fixture.enrolled().await;
    let second = fixture.identity();
    let caller = fixture.registry.authenticate_key(USER, first.public_line()).await.unwrap();
    fixture.registry.rotate(&caller, &change(&fixture, &first, &second, HOUR), async { Ok(()) }).await.unwrap();
    fixture.registry.revoke(&fixture.scope, &end.name).await.unwrap();
    let late = fixture.registry.rotate(&caller, &change(&fixture, &second, &fixture.identity(), HOUR), async { Ok(()) }).await;
    assert_eq!(late.unwrap_err().code(), Code::AgentRevoked);
    for key in [&first, &second] {
        assert!(!lets_in(&fixture, key).await);
        let code = fixture.code(Role::Agent, None).await.unwrap();
        assert_eq!(fixture.registry.redeem(&request(&code, key)).await.unwrap_err().code(), Code::AgentRevoked);
    }
}
