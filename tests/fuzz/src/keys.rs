//! Keys, signatures, tokens and codes.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use towpath_keys::{
    Namespace, PublicKey, TokenClaims, fuzzing, sign_enrolment, signer_of,
    sshsig::MAX_SIGNATURE_BYTES,
    token::{MAX_TOKEN_BYTES, MAX_TOKEN_LIFETIME},
    unverified_issuer, verify, verify_enrolment, verify_token,
};
use towpath_transfer::{
    api::{EnrolmentCode, MAX_ENROLMENT_CODE_CHARS, Role},
    clock::SeededEntropy,
    digest::Sha256Digest,
    public_key::{MAX_PUBLIC_KEY_BYTES, PublicKeyLine},
};

use crate::{
    choice,
    samples::{KEY, RELAY_URL, RSA},
    texts,
};

const MESSAGE: &[u8] = b"{\"rows\":3}\n";
const SECRET: &[u8] = b"one-time-secret";

pub(crate) fn public_key(data: &[u8]) {
    if let Ok(line) = PublicKeyLine::from_blob(data) {
        check_line(&line);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(line) = text.parse::<PublicKeyLine>()
    {
        check_line(&line);
    }
}

fn check_line(line: &PublicKeyLine) {
    assert!(line.blob().len() <= MAX_PUBLIC_KEY_BYTES);
    let printed = line.to_string();
    assert!(!printed.contains(['\n', '\r']));
    assert_eq!(printed.parse::<PublicKeyLine>().as_ref(), Ok(line), "{printed:?}");
    assert_eq!(PublicKeyLine::from_blob(line.blob()).as_ref(), Ok(line));
    let Ok(key) = PublicKey::try_from(line) else { return };
    assert!(matches!(line.algorithm(), "ssh-rsa" | "ssh-ed25519"));
    assert_eq!((key.to_string(), key.fingerprint()), (printed, line.fingerprint()));
    // A signature by somebody else is none by this key.
    if key != *KEY.public_key() && key != *RSA.public_key() {
        let signature = KEY.sign(Namespace::Receipt, MESSAGE).unwrap();
        assert!(verify(signature.as_bytes(), Namespace::Receipt, MESSAGE, &key).is_err());
    }
    // What we take, the SSH library does too, and its bytes are the same; but for a point that is on no curve.
    if let Ok(ssh) = key.to_ssh() {
        assert_eq!(ssh.to_bytes().unwrap(), line.blob(), "a key has one encoding");
    }
}

pub(crate) fn public_key_seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for line in [KEY.public_line(), RSA.public_line()] {
        all.push(line.blob().to_vec());
        all.push(line.to_string().into_bytes());
        all.push(format!("{line} comment").into_bytes());
    }
    all
}

pub(crate) fn sshsig(data: &[u8]) {
    let (form, rest) = choice(data);
    let armoured = if form % 2 == 0 { rest.to_vec() } else { fuzzing::armoured(rest).into_bytes() };
    let Ok(signer) = signer_of(&armoured) else {
        assert!(verify(&armoured, Namespace::Manifest, MESSAGE, KEY.public_key()).is_err());
        return;
    };
    assert!(armoured.len() <= MAX_SIGNATURE_BYTES);
    for key in [&signer, KEY.public_key(), RSA.public_key()] {
        let good: Vec<Namespace> =
            Namespace::ALL.iter().copied().filter(|namespace| verify(&armoured, *namespace, MESSAGE, key).is_ok()).collect();
        assert!(good.len() <= 1, "a signature is for one purpose: {good:?}");
        if let [namespace] = good.as_slice() {
            assert_eq!(*key, signer);
            assert!(verify(&armoured, *namespace, b"{\"rows\":4}\n", key).is_err(), "a signature is over one message");
        }
    }
}

pub(crate) fn sshsig_seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for key in [&KEY, &RSA] {
        let armoured = key.sign(Namespace::Manifest, MESSAGE).unwrap();
        all.push([&[0], armoured.as_bytes()].concat());
        all.push([&[0], armoured.replace('\n', "\r\n").as_bytes()].concat());
        all.push([&[1][..], &fuzzing::signature(key, Namespace::Manifest, MESSAGE).unwrap()].concat());
    }
    all
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

/// Where the header ends and the claims begin, in inputs whose parts are signed.
const BETWEEN: u8 = b'\n';

pub(crate) fn token(data: &[u8]) {
    let (form, rest) = choice(data);
    let token = if form % 2 == 0 {
        let Ok(text) = std::str::from_utf8(rest) else { return };
        text.to_owned()
    } else {
        let cut = rest.iter().position(|byte| *byte == BETWEEN).unwrap_or(rest.len());
        let (header, claims) = rest.split_at(cut);
        fuzzing::token(&KEY, header, claims.get(1..).unwrap_or_default()).unwrap()
    };
    let leeway = Duration::from_secs(5);
    match verify_token(&token, KEY.public_key(), RELAY_URL, now(), leeway) {
        Ok(claims) => {
            assert!(token.len() <= MAX_TOKEN_BYTES);
            assert_eq!(claims.audience, RELAY_URL);
            assert_eq!(unverified_issuer(&token).ok().as_ref(), Some(&claims.issuer));
            let life = claims.expires_at.duration_since(claims.issued_at);
            assert!(life.is_positive() && life <= jiff::SignedDuration::try_from(MAX_TOKEN_LIFETIME).unwrap());
            assert!(verify_token(&token, RSA.public_key(), RELAY_URL, now(), leeway).is_err());
            assert!(verify_token(&token, KEY.public_key(), "https://other.example", now(), leeway).is_err());
        }
        Err(_) => {
            let _ = unverified_issuer(&token);
        }
    }
}

pub(crate) fn token_seeds() -> Vec<Vec<u8>> {
    let claims = TokenClaims::new("acme.erp", RELAY_URL, now(), &SeededEntropy::new(3));
    let mut all = Vec::new();
    for key in [&KEY, &RSA] {
        all.push([&[0], key.token(&claims).unwrap().as_bytes()].concat());
    }
    let token = KEY.token(&claims).unwrap();
    let parts: Vec<Vec<u8>> = token.split('.').take(2).map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
    all.push([vec![1], parts.join(&BETWEEN)].concat());
    all
}

pub(crate) fn enrolment_code(data: &[u8]) {
    let (form, rest) = choice(data);
    let Ok(text) = std::str::from_utf8(rest) else { return };
    // A mutated code fails its check sum; one of mutated content does not.
    let text = if form % 2 == 0 { text.to_owned() } else { sealed(rest) };
    let Ok(code) = text.parse::<EnrolmentCode>() else { return };
    assert!(text.trim().len() <= MAX_ENROLMENT_CODE_CHARS);
    let printed = code.to_string();
    // Whoever makes a code may write its secret into the URL as well; what is shown of the secret itself is nothing.
    let another = EnrolmentCode { secret: "another".into(), ..code.clone() };
    assert_eq!(format!("{code:?}"), format!("{another:?}"), "a secret is never shown");
    if printed.len() <= MAX_ENROLMENT_CODE_CHARS {
        assert!(printed.parse::<EnrolmentCode>().is_ok_and(|again| again == code), "{printed:?}");
    }
}

fn sealed(json: &[u8]) -> String {
    let check = Sha256Digest::of(json);
    let bytes: Vec<u8> = json.iter().chain(check.as_bytes().iter().take(4)).copied().collect();
    format!("towpath1-{}", URL_SAFE_NO_PAD.encode(bytes))
}

pub(crate) fn enrolment_code_seeds() -> Vec<Vec<u8>> {
    let code = EnrolmentCode {
        relay_url: RELAY_URL.into(),
        tenant: "acme".parse().unwrap(),
        role: Role::Agent,
        secret: "c2VjcmV0LXNlY3JldC1zZWNyZXQ".into(),
        spki_pin: Some(Sha256Digest::of(b"pin")),
    };
    vec![[&[0], code.to_string().as_bytes()].concat(), [&[1][..], &serde_json::to_vec(&code).unwrap()].concat()]
}

pub(crate) fn enrolment_proof(data: &[u8]) {
    let (form, rest) = choice(data);
    let secret = Sha256Digest::of(SECRET);
    if form % 2 == 0 {
        let good = sign_enrolment(&KEY, SECRET, RELAY_URL).unwrap();
        let accepted = verify_enrolment(KEY.public_key(), &secret, RELAY_URL, rest).is_ok();
        // Ed25519 has one signature for a message, and only the armour's line ends may differ.
        let plain = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(['\r', '\n'], "");
        assert!(!accepted || plain(rest) == plain(good.as_bytes()));
        return;
    }
    let Ok(url) = std::str::from_utf8(rest) else { return };
    let Ok(proof) = sign_enrolment(&KEY, SECRET, url) else { return };
    verify_enrolment(KEY.public_key(), &secret, url, proof.as_bytes()).unwrap();
    assert!(url == RELAY_URL || verify_enrolment(KEY.public_key(), &secret, RELAY_URL, proof.as_bytes()).is_err());
}

pub(crate) fn enrolment_proof_seeds() -> Vec<Vec<u8>> {
    let proof = sign_enrolment(&KEY, SECRET, RELAY_URL).unwrap();
    vec![[&[0], proof.as_bytes()].concat(), [&[1], RELAY_URL.as_bytes()].concat()]
}

pub(crate) fn allowed_signers(data: &[u8]) {
    let Ok(store) = fuzzing::allowed_signers(data) else { return };
    let text = fuzzing::text_of(&store);
    let again = fuzzing::allowed_signers(text.as_bytes()).unwrap();
    let pins = |store: &towpath_keys::AllowedSigners| store.pins().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(pins(&again), pins(&store));
    for pin in store.pins() {
        assert!(!pin.to_string().contains('\n'));
        for principal in pin.principals() {
            assert!(!principal.contains(['*', '?', '!', ' ', '"', ',']), "{principal:?} is no pattern");
            let found = store.lookup(principal, Namespace::Receipt).any(|key| key == pin.key());
            let meant = pin.namespaces().is_empty() || pin.namespaces().iter().any(|n| n == Namespace::Receipt.as_str());
            assert!(found || !meant);
        }
    }
}

pub(crate) fn allowed_signers_seeds() -> Vec<Vec<u8>> {
    let (ed, rsa) = (KEY.public_line(), RSA.public_line());
    let short = format!(
        "# agents\nacme.erp,acme.two namespaces=\"towpath-receipt@1,towpath-manifest@1\" {ed} comment\n\nrelay@towpath {ed}\n"
    );
    let mut all = texts(&[&short, &format!("a\tNAMESPACES=\"x\"\t{ed}\r\n")]);
    all.push(format!("a {rsa}\n").into_bytes());
    all
}
