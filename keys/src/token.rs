//! Tokens for the web service: JWT (RFC 7519) in compact form, signed by the caller's own key.
//!
//! This is deliberately far less than the standard allows: one header per kind of key, five claims, all of them required.
//! It is written here, over `ring`, because the usual libraries bring an RSA implementation of their own or a provider that
//! is set for the whole process.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use towpath_transfer::{Code, Entropy, Failure, failure::Result};

use crate::{
    identity::Identity,
    public::{PublicKey, SignatureAlgorithm},
    random,
};

/// The longest accepted token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// The longest time between a token's `iat` and `exp`.
pub const MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// The longest issuer: tenant, dot and name.
pub const MAX_ISSUER_BYTES: usize = 127;
/// The shortest and the longest token id; ids are letters, digits, `-` and `_`.
pub const TOKEN_ID_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// What a token says. Times are whole seconds; fractions are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClaims {
    /// `iss`: who calls, written as the SFTP user `<tenant>.<name>`.
    pub issuer: String,
    /// `aud`: the relay's URL.
    pub audience: String,
    /// `iat`: when the token was made, by the relay's clock.
    pub issued_at: Timestamp,
    /// `exp`: from when on it is void; at most [`MAX_TOKEN_LIFETIME`] after `issued_at`.
    pub expires_at: Timestamp,
    /// `jti`: used once.
    pub id: String,
}

impl TokenClaims {
    /// Claims for one call at `now`, with the longest lifetime and a fresh id of 128 random bits.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>, now: Timestamp, entropy: &dyn Entropy) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            issued_at: now,
            expires_at: now.saturating_add(MAX_TOKEN_LIFETIME).unwrap_or(Timestamp::MAX),
            id: random::hex::<16>(entropy),
        }
    }
}

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenRefused {
    /// It is longer than [`MAX_TOKEN_BYTES`].
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// It is not a token, or has other fields than those required.
    #[error("the token is malformed")]
    Malformed,
    /// Its algorithm is not the one of the key.
    #[error("the token's algorithm does not belong to the key")]
    Algorithm,
    /// Its signature is not by the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// It is meant for someone else.
    #[error("the token is for another audience")]
    Audience,
    /// It claims to live longer than [`MAX_TOKEN_LIFETIME`], or not at all.
    #[error("the token's lifetime is not between 1 and 60 seconds")]
    Lifetime,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token was issued in the future")]
    NotYetValid,
}

impl TokenRefused {
    /// [`Code::ClockSkew`] where only the time is wrong, [`Code::AuthenticationRefused`] otherwise.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Expired | Self::NotYetValid => Code::ClockSkew,
            _ => Code::AuthenticationRefused,
        }
    }
}

impl From<TokenRefused> for Failure {
    fn from(why: TokenRefused) -> Self {
        Self::park(why.code(), why.to_string())
    }
}

/// The JOSE header (RFC 7515 section 4): these two fields and no other.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: Alg,
    typ: Typ,
}

/// RFC 7518 section 3.1 and RFC 8037 section 3.1.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Alg {
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

#[derive(Serialize, Deserialize)]
enum Typ {
    #[serde(rename = "JWT")]
    Jwt,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClaims {
    iss: String,
    aud: String,
    iat: i64,
    exp: i64,
    jti: String,
}

impl Alg {
    fn of(key: &PublicKey) -> Self {
        if key.is_rsa() { Self::Rs256 } else { Self::EdDsa }
    }

    const fn signature(self) -> SignatureAlgorithm {
        match self {
            Self::Rs256 => SignatureAlgorithm::RsaSha256,
            Self::EdDsa => SignatureAlgorithm::Ed25519,
        }
    }
}

impl Identity {
    /// A token that says `claims`: RS256 for RSA, EdDSA for Ed25519.
    ///
    /// # Errors
    /// [`Code::Internal`] when the claims do not fit a token or signing fails.
    pub fn token(&self, claims: &TokenClaims) -> Result<String> {
        let failed = |what: &str| Failure::park(Code::Internal, format!("making a token for {:?} failed: {what}", claims.issuer));
        let raw = RawClaims {
            iss: claims.issuer.clone(),
            aud: claims.audience.clone(),
            iat: claims.issued_at.as_second(),
            exp: claims.expires_at.as_second(),
            jti: claims.id.clone(),
        };
        check_form(&raw).and_then(|()| check_lifetime(&raw)).map_err(|e| failed("its claims are not allowed").caused_by(e))?;
        let alg = Alg::of(self.public_key());
        let header = serde_json::to_vec(&Header { alg, typ: Typ::Jwt }).map_err(|e| failed("its header").caused_by(e))?;
        let body = serde_json::to_vec(&raw).map_err(|e| failed("its claims").caused_by(e))?;
        let token = sign_parts(self, &format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(body)))?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(failed("it is too long"));
        }
        Ok(token)
    }
}

/// The token of these two parts, with the signature behind them.
pub(crate) fn sign_parts(by: &Identity, parts: &str) -> Result<String> {
    let signature = by.sign_raw(Alg::of(by.public_key()).signature(), parts.as_bytes())?;
    Ok(format!("{parts}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Who claims to have made the token. Nothing is proven: this only says which key to give to [`verify_token`].
///
/// # Errors
/// [`TokenRefused::TooLong`] or [`TokenRefused::Malformed`].
pub fn unverified_issuer(token: &str) -> Result<String, TokenRefused> {
    Ok(Parts::split(token)?.claims()?.iss)
}

/// Checks a token against the key of its issuer. That its `jti` is used once is the caller's to see to: an id can be
/// forgotten when [`TokenClaims::expires_at`] plus `leeway` is over.
///
/// # Errors
/// The first reason found, in the order: form, algorithm, signature, claims, audience, lifetime, time.
pub fn verify_token(
    token: &str,
    key: &PublicKey,
    audience: &str,
    now: Timestamp,
    leeway: Duration,
) -> Result<TokenClaims, TokenRefused> {
    let parts = Parts::split(token)?;
    let header: Header = decode_json(parts.header)?;
    if header.alg != Alg::of(key) {
        return Err(TokenRefused::Algorithm);
    }
    let signature = URL_SAFE_NO_PAD.decode(parts.signature).map_err(|_| TokenRefused::Malformed)?;
    if !key.accepts(header.alg.signature(), parts.signed.as_bytes(), &signature) {
        return Err(TokenRefused::Signature);
    }
    let raw = parts.claims()?;
    if raw.aud != audience {
        return Err(TokenRefused::Audience);
    }
    check_lifetime(&raw)?;
    let second = |value| Timestamp::from_second(value).map_err(|_| TokenRefused::Malformed);
    let (issued_at, expires_at) = (second(raw.iat)?, second(raw.exp)?);
    let later = |time: Timestamp| time.saturating_add(leeway).unwrap_or(Timestamp::MAX);
    if now >= later(expires_at) {
        return Err(TokenRefused::Expired);
    }
    if issued_at > later(now) {
        return Err(TokenRefused::NotYetValid);
    }
    Ok(TokenClaims { issuer: raw.iss, audience: raw.aud, issued_at, expires_at, id: raw.jti })
}

struct Parts<'a> {
    signed: &'a str,
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, TokenRefused> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRefused::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenRefused::Malformed)?;
        // A further dot would end up in the claims and is no base64.
        let (header, claims) = signed.split_once('.').ok_or(TokenRefused::Malformed)?;
        Ok(Self { signed, header, claims, signature })
    }

    fn claims(&self) -> Result<RawClaims, TokenRefused> {
        let raw = decode_json(self.claims)?;
        check_form(&raw)?;
        Ok(raw)
    }
}

fn decode_json<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, TokenRefused> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenRefused::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenRefused::Malformed)
}

fn check_form(raw: &RawClaims) -> Result<(), TokenRefused> {
    let id = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let issuer = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let good = (1..=MAX_ISSUER_BYTES).contains(&raw.iss.len())
        && raw.iss.bytes().all(issuer)
        && TOKEN_ID_BYTES.contains(&raw.jti.len())
        && raw.jti.bytes().all(id);
    if good { Ok(()) } else { Err(TokenRefused::Malformed) }
}

fn check_lifetime(raw: &RawClaims) -> Result<(), TokenRefused> {
    let longest = i64::try_from(MAX_TOKEN_LIFETIME.as_secs()).unwrap_or(i64::MAX);
    match raw.exp.checked_sub(raw.iat) {
        Some(seconds) if (1..=longest).contains(&seconds) => Ok(()),
        _ => Err(TokenRefused::Lifetime),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use towpath_transfer::clock::SeededEntropy;

    use super::*;
    use crate::testing::{ed25519, other, rsa};

    const RELAY: &str = "https://relay.example";
    const LEEWAY: Duration = Duration::from_secs(5);

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn claims() -> TokenClaims {
        TokenClaims::new("acme.erp1", RELAY, now(), &SeededEntropy::new(1))
    }

    fn verify(token: &str, identity: &Identity) -> Result<TokenClaims, TokenRefused> {
        verify_token(token, identity.public_key(), RELAY, now(), LEEWAY)
    }

    /// Signs any header and claims at all.
    fn forge(identity: &Identity, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = identity.sign_raw(Alg::of(identity.public_key()).signature(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;

    fn json(iat: i64, exp: i64) -> String {
        format!(r#"{{"iss":"acme.erp1","aud":"{RELAY}","iat":{iat},"exp":{exp},"jti":"0123456789abcdef"}}"#)
    }

    #[test]
    fn a_token_comes_back_as_it_was_made() {
        for identity in [rsa(), ed25519()] {
            let token = identity.token(&claims()).unwrap();
            assert_eq!(verify(&token, identity), Ok(claims()));
            assert_eq!(unverified_issuer(&token).unwrap(), "acme.erp1");
            assert_eq!(verify(&token, other()).unwrap_err().code(), Code::AuthenticationRefused);
        }
        let (first, second) = (claims(), TokenClaims::new("acme.erp1", RELAY, now(), &SeededEntropy::new(2)));
        assert_ne!(first.id, second.id);
        assert_eq!(first.expires_at.as_second() - first.issued_at.as_second(), 60);
    }

    #[test]
    fn the_form_is_that_of_the_standard() {
        let token = ed25519().token(&claims()).unwrap();
        let parts: Vec<_> = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        assert_eq!(parts[0], HEADER.as_bytes());
        let body: serde_json::Value = serde_json::from_slice(&parts[1]).unwrap();
        let expected = serde_json::json!({
            "iss": "acme.erp1", "aud": RELAY, "iat": 1_767_323_045, "exp": 1_767_323_105, "jti": claims().id,
        });
        assert_eq!(body, expected);
        assert_eq!(parts[2].len(), 64);
    }

    /// RFC 7515 appendix A.2 and RFC 8037 appendix A.4.
    #[test]
    fn signatures_of_the_standards_are_accepted() {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let modulus = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2l\
            ZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665x\
            smtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
        let signed = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0\
            cnVlfQ";
        let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF\
            9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jz\
            DwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
        let key = PublicKey::from_rsa_parts(&decode(modulus), &decode("AQAB")).unwrap();
        assert!(key.accepts(Alg::Rs256.signature(), signed.as_bytes(), &decode(signature)));
        assert!(!key.accepts(Alg::EdDsa.signature(), signed.as_bytes(), &decode(signature)));

        let key = PublicKey::from_ed25519(&decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")).unwrap();
        let signed = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert!(key.accepts(Alg::EdDsa.signature(), signed, &decode(signature)));
    }

    #[test]
    fn the_header_is_exact() {
        let iat = now().as_second();
        assert!(verify(&forge(ed25519(), HEADER, &json(iat, iat + 60)), ed25519()).is_ok());
        for (header, why) in [
            (r#"{"alg":"none","typ":"JWT"}"#, TokenRefused::Malformed),
            (r#"{"alg":"HS256","typ":"JWT"}"#, TokenRefused::Malformed),
            (r#"{"alg":"RS512","typ":"JWT"}"#, TokenRefused::Malformed),
            (r#"{"alg":"eddsa","typ":"JWT"}"#, TokenRefused::Malformed),
            (r#"{"alg":"RS256","typ":"JWT"}"#, TokenRefused::Algorithm),
            (r#"{"alg":"EdDSA"}"#, TokenRefused::Malformed),
            (r#"{"alg":"EdDSA","typ":"JWS"}"#, TokenRefused::Malformed),
            (r#"{"alg":"EdDSA","typ":"JWT","kid":"x"}"#, TokenRefused::Malformed),
            (r#"{"alg":"EdDSA","typ":"JWT","crit":[]}"#, TokenRefused::Malformed),
            (r#"{"alg":"EdDSA","alg":"EdDSA","typ":"JWT"}"#, TokenRefused::Malformed),
            ("", TokenRefused::Malformed),
        ] {
            assert_eq!(verify(&forge(ed25519(), header, &json(iat, iat + 60)), ed25519()), Err(why), "{header}");
        }
    }

    #[test]
    fn the_claims_are_exact() {
        let iat = now().as_second();
        let good = json(iat, iat + 60);
        for (from, to) in [
            (r#""iss":"acme.erp1","#, ""),
            ("acme.erp1", ""),
            ("acme.erp1", "acme/erp1"),
            ("acme.erp1", "a\\u0000b"),
            (r#""acme.erp1""#, "1"),
            (r#""iat":"#, r#""nbf":0,"iat":"#),
            (r#""iat":"#, r#""iat":0,"iat":"#),
            ("0123456789abcdef", "0123456789abcde"),
            ("0123456789abcdef", "0123456789abcdef 0"),
            (r#","jti":"0123456789abcdef""#, ""),
            (r#""https://relay.example""#, r#"["https://relay.example"]"#),
            (r#""exp":"#, r#""exp":1.5e0,"x":"#),
            ("}", "} x"),
        ] {
            let claims = good.replacen(from, to, 1);
            assert_ne!(claims, good, "{from}");
            assert_eq!(verify(&forge(ed25519(), HEADER, &claims), ed25519()), Err(TokenRefused::Malformed), "{claims}");
        }
        for long in [good.replace("0123456789abcdef", &"a".repeat(65)), good.replace("acme.erp1", &"a".repeat(128))] {
            assert_eq!(verify(&forge(ed25519(), HEADER, &long), ed25519()), Err(TokenRefused::Malformed));
        }
        for audience in ["", "https://relay.example/", "https://other.example"] {
            let token = forge(ed25519(), HEADER, &good.replace(RELAY, audience));
            assert_eq!(verify(&token, ed25519()), Err(TokenRefused::Audience), "{audience}");
        }
    }

    #[test]
    fn lifetime_and_time_are_limited() {
        let at = now().as_second();
        for (iat, exp, why) in [
            (at, at + 60, None),
            (at, at + 1, None),
            (at, at + 61, Some(TokenRefused::Lifetime)),
            (at, at, Some(TokenRefused::Lifetime)),
            (at, at - 1, Some(TokenRefused::Lifetime)),
            (i64::MIN, i64::MAX, Some(TokenRefused::Lifetime)),
            (i64::MAX - 60, i64::MAX, Some(TokenRefused::Malformed)),
            (at - 64, at - 4, None),
            (at - 65, at - 5, Some(TokenRefused::Expired)),
            (at + 5, at + 65, None),
            (at + 6, at + 66, Some(TokenRefused::NotYetValid)),
            (at - 86_400, at - 86_340, Some(TokenRefused::Expired)),
        ] {
            assert_eq!(verify(&forge(ed25519(), HEADER, &json(iat, exp)), ed25519()).err(), why, "{iat} {exp}");
        }
        assert_eq!(Failure::from(TokenRefused::Expired).code(), Code::ClockSkew);
        assert_eq!(TokenRefused::NotYetValid.code(), Code::ClockSkew);
    }

    #[test]
    fn the_compact_form_is_strict_and_limited() {
        let token = ed25519().token(&claims()).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let other_signature = other().token(&claims()).unwrap().rsplit_once('.').unwrap().1.to_owned();
        assert_eq!(verify(&format!("{signed}.{other_signature}"), ed25519()), Err(TokenRefused::Signature));
        assert_eq!(verify(&format!("{signed}."), ed25519()), Err(TokenRefused::Signature));
        for bad in [
            "",
            ".",
            "..",
            signed,
            &format!("{token}="),
            &format!(" {token}"),
            &format!("{token}\n"),
            &format!("{signed}.x.{signature}"),
        ] {
            let refused = verify(bad, ed25519()).unwrap_err();
            assert!(matches!(refused, TokenRefused::Malformed | TokenRefused::Signature), "{bad:?} {refused:?}");
        }
        let long = format!("{token}{}", "A".repeat(MAX_TOKEN_BYTES));
        assert_eq!(verify(&long, ed25519()), Err(TokenRefused::TooLong));
        assert_eq!(unverified_issuer(&long), Err(TokenRefused::TooLong));
    }

    #[test]
    fn claims_that_would_be_refused_are_not_signed() {
        let mut long = claims();
        long.expires_at = now() + Duration::from_secs(61);
        let mut nobody = claims();
        nobody.issuer = String::new();
        let mut large = claims();
        large.audience = "a".repeat(MAX_TOKEN_BYTES);
        for bad in [long, nobody, large] {
            assert_eq!(ed25519().token(&bad).unwrap_err().code(), Code::Internal);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[ -~]{0,40}(\\.[A-Za-z0-9_-]{0,40}){0,3}") {
            prop_assert!(verify(&text, ed25519()).is_err());
            prop_assert!(unverified_issuer(&text).is_err());
        }
    }
}
