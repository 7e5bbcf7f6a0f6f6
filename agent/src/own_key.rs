//! The agent's own key, as it is at a moment: it may be changed while the agent runs.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use towpath_keys::{Identity, SshSigner};
use towpath_transfer::failure::Result;

/// The key with which the agent logs in and signs. Clones share it; whatever signs twice for one thing asks once.
#[derive(Clone)]
pub struct OwnKey(Arc<RwLock<Held>>);

struct Held {
    identity: Identity,
    signer: SshSigner,
}

impl Held {
    fn new(identity: Identity) -> Result<Self> {
        Ok(Self { signer: identity.ssh_signer()?, identity })
    }
}

impl OwnKey {
    /// Begins with this key.
    ///
    /// # Errors
    /// `internal` where the SSH library does not take it.
    pub fn new(identity: Identity) -> Result<Self> {
        Ok(Self(Arc::new(RwLock::new(Held::new(identity)?))))
    }

    /// The key.
    #[must_use]
    pub fn now(&self) -> Identity {
        self.0.read().unwrap_or_else(PoisonError::into_inner).identity.clone()
    }

    /// What signs logins with it.
    #[must_use]
    pub fn signer(&self) -> SshSigner {
        self.0.read().unwrap_or_else(PoisonError::into_inner).signer.clone()
    }

    /// Goes on with another key, from the next login and signature on.
    ///
    /// # Errors
    /// As [`OwnKey::new`]; the key then stays.
    pub fn replace(&self, identity: Identity) -> Result<()> {
        let held = Held::new(identity)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(())
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnKey({})", self.now().fingerprint())
    }
}
