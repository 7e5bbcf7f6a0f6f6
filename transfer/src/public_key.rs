//! Public keys as text: the one-line OpenSSH form and its fingerprint. What a key can do lives in the `keys` room.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::Sha256Digest;

/// The longest accepted public key line, in bytes; an RSA key of 4096 bits needs about 720.
pub const MAX_PUBLIC_KEY_BYTES: usize = 2048;

/// A line that is not `<algorithm> <base64>` with the same algorithm named inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an OpenSSH public key: expected one line such as `ssh-ed25519 AAAA…`")]
pub struct InvalidPublicKey;

/// A public key in OpenSSH's one-line form (RFC 4253 section 6.6 blob in base64), without comment or options.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, max_length = 2048, pattern = "^[a-zA-Z0-9@.-]+ [A-Za-z0-9+/]+={0,2}$")]
pub struct PublicKeyLine(Vec<u8>);

impl PublicKeyLine {
    /// Takes a key blob as SSH carries it.
    ///
    /// # Errors
    /// [`InvalidPublicKey`] when the blob does not begin with an algorithm name or is too long.
    pub fn from_blob(blob: &[u8]) -> Result<Self, InvalidPublicKey> {
        let name = algorithm_of(blob).ok_or(InvalidPublicKey)?;
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'@'));
        if name.is_empty() || !plain || blob.len() > MAX_PUBLIC_KEY_BYTES {
            return Err(InvalidPublicKey);
        }
        Ok(Self(blob.to_vec()))
    }

    /// The algorithm, such as `ssh-ed25519`.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        algorithm_of(&self.0).unwrap_or_default()
    }

    /// The key as SSH carries it.
    #[must_use]
    pub fn blob(&self) -> &[u8] {
        &self.0
    }

    /// The fingerprint that `ssh-keygen -l` shows.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(*Sha256Digest::of(&self.0).as_bytes())
    }
}

fn algorithm_of(blob: &[u8]) -> Option<&str> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    std::str::from_utf8(rest.get(..length)?).ok()
}

impl FromStr for PublicKeyLine {
    type Err = InvalidPublicKey;

    /// Reads the first two fields; a comment after them is dropped.
    fn from_str(line: &str) -> Result<Self, InvalidPublicKey> {
        if line.len() > MAX_PUBLIC_KEY_BYTES * 2 || line.trim().contains(['\n', '\r']) {
            return Err(InvalidPublicKey);
        }
        let mut fields = line.split_ascii_whitespace();
        let (Some(algorithm), Some(encoded)) = (fields.next(), fields.next()) else {
            return Err(InvalidPublicKey);
        };
        let key = Self::from_blob(&STANDARD.decode(encoded).map_err(|_| InvalidPublicKey)?)?;
        if key.algorithm() == algorithm { Ok(key) } else { Err(InvalidPublicKey) }
    }
}

impl TryFrom<String> for PublicKeyLine {
    type Error = InvalidPublicKey;

    fn try_from(line: String) -> Result<Self, InvalidPublicKey> {
        line.parse()
    }
}

impl From<PublicKeyLine> for String {
    fn from(key: PublicKeyLine) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKeyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm(), STANDARD.encode(&self.0))
    }
}

impl fmt::Debug for PublicKeyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKeyLine({} {})", self.algorithm(), self.fingerprint())
    }
}

/// SHA-256 of a public key blob, written `SHA256:` and unpadded base64 as OpenSSH does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^SHA256:[A-Za-z0-9+/]{43}$")]
pub struct Fingerprint([u8; 32]);

/// Text that is not a SHA-256 fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a fingerprint looks like SHA256: and 43 characters of base64")]
pub struct InvalidFingerprint;

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let encoded = text.strip_prefix("SHA256:").ok_or(InvalidFingerprint)?;
        let bytes = STANDARD_NO_PAD.decode(encoded).map_err(|_| InvalidFingerprint)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidFingerprint)?))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = InvalidFingerprint;

    fn try_from(text: String) -> Result<Self, InvalidFingerprint> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key bytes 0, 1, 2 … 31; the fingerprint below is what `ssh-keygen -lf` prints for it.
    const LINE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    #[test]
    fn the_line_survives_and_lies_are_refused() {
        let key: PublicKeyLine = format!("{LINE} erp@host").parse().unwrap();
        assert_eq!(key.to_string(), LINE);
        assert_eq!(key.fingerprint().to_string(), "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA");
        assert_eq!(key.fingerprint().to_string().parse(), Ok(key.fingerprint()));
        assert!(LINE.replace("ssh-ed25519", "ssh-rsa").parse::<PublicKeyLine>().is_err());
        assert!(format!("restrict {LINE}").parse::<PublicKeyLine>().is_err());
        assert!(format!("{LINE}\n{LINE}").parse::<PublicKeyLine>().is_err());
    }
}
