//! Logins that a well-behaved client never tries: keys that are none, keys that look like another, and rules that change on the way.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{digest, signature::Ed25519KeyPair};
use tokio_util::sync::CancellationToken;
use towpath_transfer::{clock::ManualClock, public_key::PublicKeyLine};
use towpath_transport::server::{Authenticator, Ended, Limits, Session};

use super::{
    support::{Counting, TestServer, UserKey, start_with, text, until},
    wire::{Wire, mpint, offered, signed, string},
};

const USER: &str = "tester";
const CONNECTION: &str = "ssh-connection";
const FAILURE: u8 = 51;
const SUCCESS: u8 = 52;
const KEY_OK: u8 = 60;
const CHANNEL_OPEN: u8 = 90;
const CERTIFICATE: &str = "ssh-ed25519-cert-v01@openssh.com";

/// Knows one user with these keys.
struct OneUser(Session, Vec<PublicKeyLine>);

#[async_trait]
impl Authenticator for OneUser {
    async fn authenticate(&self, user: &str, key: &PublicKeyLine, _: SocketAddr) -> Option<Session> {
        (user == USER && self.1.contains(key)).then(|| self.0.clone())
    }
}

/// A server on which one failure is too much, so that it shows whether something was counted.
async fn strict(keys: &[&UserKey]) -> TestServer {
    granting(Limits { failures_per_minute: 1, ..Limits::default() }, keys).await
}

async fn granting(limits: Limits, keys: &[&UserKey]) -> TestServer {
    let revoked = CancellationToken::new();
    let session = Session::new(Arc::new(Counting::default()), revoked.clone());
    let known = OneUser(session, keys.iter().map(|key| key.public.clone()).collect());
    start_with(Arc::new(known), revoked, limits, Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH))).await
}

/// Hangs up, and says whether the address was charged.
async fn is_charged(mut server: TestServer, wire: Wire) -> bool {
    drop(wire);
    server.next_end().await;
    server.server.attempts().refused_for(server.address.ip()).is_some()
}

fn blob(key: &UserKey) -> Vec<u8> {
    let line = std::fs::read_to_string(key.path.with_extension("pub")).unwrap();
    STANDARD.decode(line.split(' ').nth(1).unwrap().trim()).unwrap()
}

fn sign(key: &UserKey) -> impl Fn(&[u8]) -> Vec<u8> {
    let seed = key.private.key_data().ed25519().unwrap().private.to_bytes();
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    move |message| pair.sign(message).as_ref().to_vec()
}

#[tokio::test]
async fn the_right_key_gets_in_byte_by_byte() {
    let key = UserKey::ed25519();
    let server = strict(&[&key]).await;
    let mut wire = Wire::connect(server.address).await;
    let blob = blob(&key);
    assert_eq!(wire.login(&offered(USER, CONNECTION, "ssh-ed25519", &blob)).await, Some(KEY_OK));
    let wrong = signed(&wire.session, USER, "ssh-ed25519", &blob, |_| vec![0; 64]);
    assert_eq!(wire.login(&wrong).await, Some(FAILURE));
    let right = signed(&wire.session, USER, "ssh-ed25519", &blob, sign(&key));
    assert_eq!(wire.login(&right).await, Some(SUCCESS));
    assert!(!is_charged(server, wire).await);
}

/// The key offers of one connection and the failed logins of one address within a minute, as they are published.
const OFFERS: usize = 6;
const FAILURES: usize = 10;

#[tokio::test]
async fn keys_that_are_only_asked_about_count_like_those_that_are_refused() {
    let (key, other) = (UserKey::ed25519(), UserKey::ed25519());
    let probes = [blob(&key), blob(&other)].map(|blob| offered(USER, CONNECTION, "ssh-ed25519", &blob));
    let mut server = granting(Limits::default(), &[&key, &other]).await;
    let mut charged = 0;
    while charged < FAILURES {
        assert_eq!(server.server.attempts().refused_for(server.address.ip()), None, "after {charged} probes");
        let mut wire = Wire::connect(server.address).await;
        // Whether it is one key again and again or another one each time is all the same.
        for probe in probes.iter().cycle().take(OFFERS) {
            assert_eq!(wire.login(probe).await, Some(KEY_OK));
        }
        assert_eq!(wire.login(&probes[0]).await, None, "the seventh ends the connection");
        assert_eq!(server.next_end().await, Ended::TooManyOffers);
        charged += OFFERS;
    }
    assert!(
        server.server.attempts().refused_for(server.address.ip()).is_some(),
        "{charged} in a minute are charged to the address"
    );

    // Whoever holds the key gets in from there all the same, with as many offers as there may be.
    let mut wire = Wire::connect(server.address).await;
    for _ in 0..OFFERS {
        assert_eq!(wire.login(&probes[0]).await, Some(KEY_OK));
    }
    let proven = signed(&wire.session, USER, "ssh-ed25519", &blob(&key), sign(&key));
    assert_eq!(wire.login(&proven).await, Some(SUCCESS), "the proof of the last one is no offer of its own");
    until(|| server.server.connections() == 1).await;
}

#[tokio::test]
async fn the_proof_of_a_seventh_key_is_too_late() {
    let (key, other) = (UserKey::ed25519(), UserKey::ed25519());
    let mut server = granting(Limits::default(), &[&key, &other]).await;
    let mut wire = Wire::connect(server.address).await;
    for _ in 0..OFFERS {
        assert_eq!(wire.login(&offered(USER, CONNECTION, "ssh-ed25519", &blob(&other))).await, Some(KEY_OK));
    }
    let proven = signed(&wire.session, USER, "ssh-ed25519", &blob(&key), sign(&key));
    assert_eq!(wire.login(&proven).await, None);
    assert_eq!(server.next_end().await, Ended::TooManyOffers);
}

#[tokio::test]
async fn signatures_that_are_wrong_count_with_a_question_before_them_and_without() {
    let key = UserKey::ed25519();
    let blob = blob(&key);
    let mut server = granting(Limits::default(), &[&key]).await;
    for asks_first in [false, true] {
        assert_eq!(server.server.attempts().refused_for(server.address.ip()), None);
        let mut wire = Wire::connect(server.address).await;
        for _ in 0..OFFERS {
            if asks_first {
                assert_eq!(wire.login(&offered(USER, CONNECTION, "ssh-ed25519", &blob)).await, Some(KEY_OK));
            }
            let wrong = signed(&wire.session, USER, "ssh-ed25519", &blob, |_| vec![0; 64]);
            assert_eq!(wire.login(&wrong).await, Some(FAILURE));
        }
        let right = signed(&wire.session, USER, "ssh-ed25519", &blob, sign(&key));
        assert_eq!(wire.login(&right).await, None, "the seventh is too late even if it is right");
        assert_eq!(server.next_end().await, Ended::TooManyOffers);
    }
    assert!(server.server.attempts().refused_for(server.address.ip()).is_some(), "twelve in a minute");
}

#[tokio::test]
async fn what_is_no_key_or_looks_like_another_is_refused_and_counted() {
    let (ed25519, rsa) = (UserKey::ed25519(), UserKey::new(&["-t", "rsa", "-b", "2048"]));
    let (good, good_rsa) = (blob(&ed25519), blob(&rsa));
    let (_, rest) = string(&good_rsa);
    let (_, modulus) = string(rest);
    let (modulus, _) = string(modulus);
    let rsa_with = |exponent: &[u8], modulus: &[u8]| [text("ssh-rsa"), mpint(exponent), mpint(modulus)].concat();
    assert_eq!(rsa_with(&[1, 0, 1], modulus), good_rsa, "the pieces are the right ones");
    for (what, algorithm, blob) in [
        ("nothing", "ssh-ed25519", vec![]),
        ("a type without a key", "ssh-ed25519", text("ssh-ed25519")),
        ("31 bytes", "ssh-ed25519", [text("ssh-ed25519"), text(&good[good.len() - 31..])].concat()),
        ("a length of 4 GiB", "ssh-ed25519", [text("ssh-ed25519"), vec![0xff; 4], vec![7; 32]].concat()),
        ("another type inside", "ssh-ed25519", good_rsa.clone()),
        ("another type outside", "rsa-sha2-512", good.clone()),
        ("a type that there is not", "ssh-ed25519x", [text("ssh-ed25519x"), text([7; 32])].concat()),
        ("SHA-1", "ssh-rsa", good_rsa.clone()),
        ("DSA", "ssh-dss", [text("ssh-dss"), mpint(&[7; 128]), mpint(&[7; 20]), mpint(&[2]), mpint(&[7; 128])].concat()),
        ("the modulus with the exponent 1", "rsa-sha2-512", rsa_with(&[1], modulus)),
        ("the modulus with the exponent 3", "rsa-sha2-512", rsa_with(&[3], modulus)),
        ("an even exponent", "rsa-sha2-512", rsa_with(&[1, 0, 0], modulus)),
        ("no exponent", "rsa-sha2-512", rsa_with(&[], modulus)),
        ("no modulus", "rsa-sha2-512", rsa_with(&[1, 0, 1], &[])),
        (
            "a negative modulus",
            "rsa-sha2-512",
            [text("ssh-rsa"), mpint(&[1, 0, 1]), text(modulus.strip_prefix(&[0]).unwrap())].concat(),
        ),
        ("the key with zeros before it", "rsa-sha2-512", [text("ssh-rsa"), text([0, 1, 0, 1]), text(modulus)].concat()),
        ("a certificate that is none", CERTIFICATE, good.clone()),
    ] {
        let server = strict(&[&ed25519, &rsa]).await;
        let mut wire = Wire::connect(server.address).await;
        let answer = wire.login(&offered(USER, CONNECTION, algorithm, &blob)).await;
        assert!(matches!(answer, None | Some(FAILURE)), "{what}: {answer:?}");
        assert!(is_charged(server, wire).await, "{what} is not counted");
    }
}

#[tokio::test]
async fn a_key_with_something_behind_it_needs_its_own_signature_all_the_same() {
    let (key, other) = (UserKey::ed25519(), UserKey::ed25519());
    let good = blob(&key);
    let longer = [text("ssh-ed25519"), text([&good[good.len() - 32..], &[0]].concat())].concat();
    for blob in [longer, [&good[..], &[0]].concat()] {
        let server = strict(&[&key]).await;
        let mut wire = Wire::connect(server.address).await;
        // The SSH library reads no further than the key, and says whose it is.
        let _ = wire.login(&offered(USER, CONNECTION, "ssh-ed25519", &blob)).await;
        let answer = wire.login(&signed(&wire.session, USER, "ssh-ed25519", &blob, sign(&other))).await;
        assert!(matches!(answer, None | Some(FAILURE)), "{answer:?}");
        assert!(is_charged(server, wire).await);
    }
}

/// A signature that fits every message where the exponent is 1: what is signed itself (RFC 8017 section 9.2).
fn of_exponent_one(message: &[u8], length: usize) -> Vec<u8> {
    const SHA512_INFO: [u8; 19] =
        [0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40];
    let hash = digest::digest(&digest::SHA512, message);
    let padding = vec![0xff; length - 3 - SHA512_INFO.len() - hash.as_ref().len()];
    [&[0, 1][..], &padding, &[0], &SHA512_INFO, hash.as_ref()].concat()
}

#[tokio::test]
async fn a_forged_signature_under_a_known_modulus_is_refused_and_counted() {
    let rsa = UserKey::new(&["-t", "rsa", "-b", "2048"]);
    let server = strict(&[&rsa]).await;
    let mut wire = Wire::connect(server.address).await;
    let known = blob(&rsa);
    let (_, rest) = string(&known);
    let (_, modulus) = string(rest);
    let forged_key = [text("ssh-rsa"), mpint(&[1]), modulus.to_vec()].concat();
    // The known key is confirmed first, so that only its modulus could be remembered.
    assert_eq!(wire.login(&offered(USER, CONNECTION, "rsa-sha2-512", &known)).await, Some(KEY_OK));
    let forged = signed(&wire.session, USER, "rsa-sha2-512", &forged_key, |message| of_exponent_one(message, 256));
    let answer = wire.login(&forged).await;
    assert!(matches!(answer, None | Some(FAILURE)), "{answer:?}");
    assert!(is_charged(server, wire).await);
}

#[tokio::test]
async fn a_certificate_of_a_known_key_is_refused_and_counted() {
    let (key, authority) = (UserKey::ed25519(), UserKey::ed25519());
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-I", "id", "-n", USER, "-s"])
        .args([&authority.path, &key.path.with_extension("pub")])
        .status();
    assert!(made.unwrap().success());
    let line = std::fs::read_to_string(key.path.with_file_name("id-cert.pub")).unwrap();
    let certificate = STANDARD.decode(line.split(' ').nth(1).unwrap()).unwrap();
    let server = strict(&[&key, &authority]).await;
    let mut wire = Wire::connect(server.address).await;
    let of_its_type = signed(&wire.session, USER, CERTIFICATE, &certificate, sign(&key));
    // As OpenSSH does it: the signature has the type of the key inside.
    let mut request = offered(USER, CONNECTION, CERTIFICATE, &certificate);
    request[1 + text(USER).len() + text(CONNECTION).len() + text("publickey").len()] = 1;
    let signature = sign(&key)(&[text(&wire.session), request.clone()].concat());
    let of_its_key = [request, text([text("ssh-ed25519"), text(signature)].concat())].concat();
    for login in [of_its_key, of_its_type] {
        let answer = wire.login(&login).await;
        assert!(matches!(answer, None | Some(FAILURE)), "{answer:?}");
    }
    assert!(is_charged(server, wire).await);
}

#[tokio::test]
async fn a_confirmed_key_is_of_one_user_and_one_service() {
    let key = UserKey::ed25519();
    let blob = blob(&key);
    let server = strict(&[&key]).await;
    let mut wire = Wire::connect(server.address).await;
    assert_eq!(wire.login(&offered(USER, CONNECTION, "ssh-ed25519", &blob)).await, Some(KEY_OK));
    let other = signed(&wire.session, "other", "ssh-ed25519", &blob, sign(&key));
    assert_eq!(wire.login(&other).await, Some(FAILURE), "the name has changed since");
    assert!(is_charged(server, wire).await);

    for service in ["ssh-userauth", "", "ssh-connection2"] {
        let mut server = strict(&[&key]).await;
        let mut wire = Wire::connect(server.address).await;
        assert_eq!(wire.login(&offered(USER, CONNECTION, "ssh-ed25519", &blob)).await, Some(KEY_OK));
        assert_eq!(wire.login(&offered(USER, service, "ssh-ed25519", &blob)).await, None, "{service}");
        assert!(matches!(server.next_end().await, Ended::Failed(_)));
        assert!(server.server.attempts().refused_for(server.address.ip()).is_some());
    }
}

#[tokio::test]
async fn new_keys_before_the_login_change_nothing_about_it() {
    let (key, wrong) = (UserKey::ed25519(), UserKey::ed25519());
    let (good, bad) = (blob(&key), blob(&wrong));
    let server = strict(&[&key]).await;
    let mut wire = Wire::connect(server.address).await;
    wire.exchange_keys().await;
    assert_ne!(wire.session, wire.exchange);
    // What belongs behind a login is not even answered.
    let open = [&[CHANNEL_OPEN][..], &text("session"), &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x80, 0]].concat();
    wire.send(&open).await;
    assert_eq!(wire.login(&offered(USER, CONNECTION, "ssh-ed25519", &good)).await, Some(KEY_OK));
    wire.exchange_keys().await;
    let of_the_new_keys = signed(&wire.exchange, USER, "ssh-ed25519", &good, sign(&key));
    assert_eq!(wire.login(&of_the_new_keys).await, Some(FAILURE), "signatures are over the first exchange");
    let right = signed(&wire.session, USER, "ssh-ed25519", &good, sign(&key));
    assert_eq!(wire.login(&right).await, Some(SUCCESS));
    assert!(!is_charged(server, wire).await);

    let server = strict(&[&key]).await;
    let mut wire = Wire::connect(server.address).await;
    wire.exchange_keys().await;
    assert_eq!(wire.login(&signed(&wire.session, USER, "ssh-ed25519", &bad, sign(&wrong))).await, Some(FAILURE));
    assert!(is_charged(server, wire).await);
}

#[tokio::test]
async fn methods_that_there_are_not_are_refused_and_counted() {
    let key = UserKey::ed25519();
    for (method, rest) in
        [("password", [&[0][..], &text("secret")].concat()), ("keyboard-interactive", [text(""), text("")].concat())]
    {
        let server = strict(&[&key]).await;
        let mut wire = Wire::connect(server.address).await;
        let request = [&[50][..], &text(USER), &text(CONNECTION), &text(method), &rest].concat();
        assert_eq!(wire.login(&request).await, Some(FAILURE), "{method}");
        assert!(is_charged(server, wire).await, "{method}");
    }
}
