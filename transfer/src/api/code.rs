//! The enrolment code that an operator hands over.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Role;
use crate::{digest::Sha256Digest, id::TenantName};

/// The longest enrolment code, in characters.
pub const MAX_ENROLMENT_CODE_CHARS: usize = 1024;
const CODE_PREFIX: &str = "towpath1-";

/// What `towpath-relay enrolment create` prints: everything an end needs to find and trust its relay, once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentCode {
    /// The relay's URL, `https://host[:port]`.
    #[serde(rename = "u")]
    pub relay_url: String,
    /// The tenant.
    #[serde(rename = "t")]
    pub tenant: TenantName,
    /// What the code enrols.
    #[serde(rename = "r")]
    pub role: Role,
    /// The one-time secret: at least 128 bits, base64url.
    #[serde(rename = "s")]
    pub secret: String,
    /// SHA-256 of the certificate's SubjectPublicKeyInfo, where the certificate is not publicly trusted.
    #[serde(rename = "p", skip_serializing_if = "Option::is_none", default)]
    pub spki_pin: Option<Sha256Digest>,
}

/// A string that is not an enrolment code, or one with a typing error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this is not a whole enrolment code: copy it again, from {CODE_PREFIX} to its last character")]
pub struct InvalidEnrolmentCode;

impl fmt::Display for EnrolmentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        let check = Sha256Digest::of(&json);
        let sealed: Vec<u8> = json.into_iter().chain(check.as_bytes().iter().take(4).copied()).collect();
        write!(f, "{CODE_PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed))
    }
}

impl fmt::Debug for EnrolmentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolmentCode({} {} {}, secret withheld)", self.relay_url, self.tenant, self.role)
    }
}

impl FromStr for EnrolmentCode {
    type Err = InvalidEnrolmentCode;

    fn from_str(text: &str) -> Result<Self, InvalidEnrolmentCode> {
        let text = text.trim();
        let encoded = text.strip_prefix(CODE_PREFIX).filter(|_| text.len() <= MAX_ENROLMENT_CODE_CHARS);
        let sealed = URL_SAFE_NO_PAD.decode(encoded.ok_or(InvalidEnrolmentCode)?).map_err(|_| InvalidEnrolmentCode)?;
        let (json, check) = sealed.split_last_chunk::<4>().ok_or(InvalidEnrolmentCode)?;
        if !Sha256Digest::of(json).as_bytes().starts_with(check) {
            return Err(InvalidEnrolmentCode);
        }
        serde_json::from_slice(json).map_err(|_| InvalidEnrolmentCode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enrolment_code_survives_and_every_typing_error_is_noticed() {
        let code = EnrolmentCode {
            relay_url: "https://relay.example".into(),
            tenant: "acme".parse().unwrap(),
            role: Role::Agent,
            secret: URL_SAFE_NO_PAD.encode([7u8; 32]),
            spki_pin: Some(Sha256Digest::of(b"spki")),
        };
        let text = code.to_string();
        assert_eq!(text.parse(), Ok(code.clone()));
        assert_eq!(format!("  {text}\n").parse(), Ok(code.clone()));
        assert!(!format!("{code:?}").contains(&code.secret));
        for at in 0..text.len() {
            let mut typo = text.clone().into_bytes();
            typo[at] = if typo[at] == b'A' { b'B' } else { b'A' };
            let parsed = String::from_utf8(typo).unwrap().parse::<EnrolmentCode>();
            assert!(parsed.is_err(), "a wrong character at {at} was not noticed");
            assert!(text[..at].parse::<EnrolmentCode>().is_err());
        }
    }
}
