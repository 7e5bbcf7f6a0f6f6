//! The relay's own keys: what it shows now, what it will show next, and how the one becomes the other while it serves.
//!
//! Ends pin these keys for years. A next key is announced, signed by the present receipt key; an end that has pinned it says
//! so; only then is it used.

mod folder;
mod kept;
mod place;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use serde::Serialize;
use towpath_keys::Identity;
use towpath_transfer::{announcement::SignedAnnouncement, public_key::PublicKeyLine};

pub use folder::{KeyFolder, KeyRow, Present};
pub use watch::{KeyWatch, WATCH_PERIOD};
pub(crate) use watch::{ssh_keys, warn_strangers};

/// What a key of the relay is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KeyUse {
    /// The SSH host keys.
    Host,
    /// The key that signs receipts and announcements.
    Receipt,
    /// The certificate.
    Certificate,
}

impl KeyUse {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Host, Self::Receipt, Self::Certificate];

    /// The word for it in commands and folders.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Receipt => "receipt",
            Self::Certificate => "certificate",
        }
    }
}

impl fmt::Display for KeyUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The newest announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Its number.
    pub serial: u64,
    /// Its bytes and their signature.
    pub signed: SignedAnnouncement,
}

/// What a relay shows of itself at one moment.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its SSH host keys.
    pub ssh_host_keys: Vec<PublicKeyLine>,
    /// Signs its receipts.
    pub receipt_key: Identity,
    /// What it announces; a relay without a state folder of its own announces nothing.
    pub announced: Option<Announced>,
}

/// What a relay shows of itself, and may change while it serves. Clones share it.
#[derive(Clone)]
pub struct Keyring(Arc<RwLock<Arc<Shown>>>);

impl Keyring {
    /// These keys, for now.
    #[must_use]
    pub fn new(shown: Shown) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(shown))))
    }

    /// What is shown at this moment.
    #[must_use]
    pub fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows this from now on.
    pub fn set(&self, shown: Shown) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(shown);
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.shown()).finish()
    }
}
