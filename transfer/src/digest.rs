//! SHA-256, which decides, and MD5, which is carried because the field expects it.

use std::{fmt, str::FromStr};

use md5::Digest as _;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Text that is not the lower-case hexadecimal form of a digest of the right length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a digest is {0} lower-case hexadecimal digits")]
pub struct InvalidDigest(usize);

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, pattern = $pattern)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Takes the raw digest.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The raw digest.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidDigest;

            fn from_str(text: &str) -> Result<Self, InvalidDigest> {
                let mut bytes = [0u8; $bytes];
                parse_hex(text, &mut bytes).ok_or(InvalidDigest($bytes * 2))?;
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidDigest;

            fn try_from(text: String) -> Result<Self, InvalidDigest> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(digest: $name) -> Self {
                digest.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

digest! {
    /// SHA-256 (FIPS 180-4). Where two digests exist, this one decides.
    Sha256Digest, 32, "^[0-9a-f]{64}$"
}
digest! {
    /// MD5 (RFC 1321). Never decides anything.
    Md5Digest, 16, "^[0-9a-f]{32}$"
}

fn parse_hex(text: &str, into: &mut [u8]) -> Option<()> {
    let nibble = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != into.len() || !rest.is_empty() {
        return None;
    }
    for ([high, low], byte) in pairs.iter().zip(into) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(())
}

impl Sha256Digest {
    /// The digest of bytes that are already in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Sha256Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }
}

/// Computes a [`Sha256Digest`] piece by piece.
#[derive(Clone)]
pub struct Sha256Hasher(ring::digest::Context);

impl Sha256Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything taken.
    #[must_use]
    pub fn finish(self) -> Sha256Digest {
        let mut bytes = [0u8; 32];
        for (to, from) in bytes.iter_mut().zip(self.0.finish().as_ref()) {
            *to = *from;
        }
        Sha256Digest(bytes)
    }
}

impl Default for Sha256Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sha256Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256Hasher")
    }
}

/// SHA-256, MD5 and length of the same bytes, in one pass.
#[derive(Debug, Clone, Default)]
pub struct FileHasher {
    sha256: Sha256Hasher,
    md5: md5::Md5,
    size: u64,
}

impl FileHasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.md5.update(bytes);
        self.size = self.size.saturating_add(bytes.len() as u64);
    }

    /// The digests and length of everything taken.
    #[must_use]
    pub fn finish(self) -> FileDigests {
        FileDigests { sha256: self.sha256.finish(), md5: Md5Digest(self.md5.finalize().into()), size: self.size }
    }
}

/// What [`FileHasher`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileDigests {
    /// Decides.
    pub sha256: Sha256Digest,
    /// Carried along.
    pub md5: Md5Digest,
    /// Length in bytes.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // FIPS 180-4 and RFC 1321 test vectors for "abc".
        let mut hasher = FileHasher::new();
        hasher.update(b"a");
        hasher.update(b"bc");
        let found = hasher.finish();
        assert_eq!(found.sha256.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(found.md5.to_string(), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(found.size, 3);
    }

    #[test]
    fn text_form_is_strict() {
        let good = Sha256Digest::of(b"x").to_string();
        assert!(good.parse::<Sha256Digest>().is_ok());
        for bad in [good.to_uppercase(), good[1..].to_owned(), format!("{good}0"), format!("g{}", &good[1..])] {
            assert!(bad.parse::<Sha256Digest>().is_err(), "{bad}");
        }
    }
}
