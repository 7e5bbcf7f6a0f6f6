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
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(body));
        let signature = self.sign_raw(alg.signature(), token.as_bytes())?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        if token.len() > MAX_TOKEN_BYTES {
            return Err(failed("it is too long"));
        }
        Ok(token)
    }
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
