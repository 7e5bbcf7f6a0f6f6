//! The kinds of key pair that can be made.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The kind of a key pair. The default suits ERP hosts whose peers know nothing newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KeyKind {
    /// RSA with a modulus of 2048 bits.
    #[default]
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
    /// Ed25519 (RFC 8032).
    Ed25519,
}

/// Text that is not a [`KeyKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a kind of key is one of rsa-2048, rsa-3072, rsa-4096 and ed25519")]
pub struct InvalidKeyKind;

impl KeyKind {
    /// Every kind there is.
    pub const ALL: &[Self] = &[Self::Rsa2048, Self::Rsa3072, Self::Rsa4096, Self::Ed25519];

    /// The kind as it stands in configuration files and options.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
            Self::Ed25519 => "ed25519",
        }
    }

    /// The length of the modulus in bits; `None` for Ed25519.
    #[must_use]
    pub const fn rsa_bits(self) -> Option<usize> {
        match self {
            Self::Rsa2048 => Some(2048),
            Self::Rsa3072 => Some(3072),
            Self::Rsa4096 => Some(4096),
            Self::Ed25519 => None,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyKind {
    type Err = InvalidKeyKind;

    fn from_str(text: &str) -> Result<Self, InvalidKeyKind> {
        Self::ALL.iter().find(|kind| kind.as_str() == text).copied().ok_or(InvalidKeyKind)
    }
}

impl TryFrom<String> for KeyKind {
    type Error = InvalidKeyKind;

    fn try_from(text: String) -> Result<Self, InvalidKeyKind> {
        text.parse()
    }
}

impl From<KeyKind> for String {
    fn from(kind: KeyKind) -> Self {
        kind.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_parses_back() {
        for kind in KeyKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(*kind));
        }
        assert_eq!(KeyKind::default(), KeyKind::Rsa2048);
        assert_eq!("rsa-1024".parse::<KeyKind>(), Err(InvalidKeyKind));
    }
}
