//! The files in which the agent's key lies, and the one that is to follow it.

use std::fmt::Debug;

use towpath_keys::{Identity, KeyKind};
use towpath_transfer::{Entropy, failure::Result};

use crate::layout::Layout;

/// The files of a key that is changed. Every method blocks, and may be repeated wherever it was stopped.
pub trait KeyFiles: Debug + Send + Sync {
    /// The key in use.
    ///
    /// # Errors
    /// Those of [`Identity::load`].
    fn load(&self) -> Result<Identity>;

    /// Whether there is a key that is to follow.
    fn has_next(&self) -> bool;

    /// The key that is to follow; it is made where there is none.
    ///
    /// # Errors
    /// Those of [`Identity::load_or_create`].
    fn next(&self, kind: KeyKind, entropy: &dyn Entropy) -> Result<Identity>;

    /// Puts it in the place of the key in use, in one step.
    ///
    /// # Errors
    /// Those of [`Identity::put_in_place`].
    fn put_next_in_place(&self) -> Result<()>;

    /// Removes it, where it is there.
    ///
    /// # Errors
    /// Those of [`Identity::remove`].
    fn remove_next(&self) -> Result<()>;
}

impl KeyFiles for Layout {
    fn load(&self) -> Result<Identity> {
        Identity::load(&self.key())
    }

    fn has_next(&self) -> bool {
        self.next_key().exists()
    }

    fn next(&self, kind: KeyKind, entropy: &dyn Entropy) -> Result<Identity> {
        Identity::load_or_create(&self.next_key(), kind, entropy)
    }

    fn put_next_in_place(&self) -> Result<()> {
        Identity::put_in_place(&self.next_key(), &self.key())
    }

    fn remove_next(&self) -> Result<()> {
        Identity::remove(&self.next_key())
    }
}
