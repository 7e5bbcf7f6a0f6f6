//! Keys that are believed, and that may become others while they are in use.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

/// A set of pinned keys. Clones share it: what one of them [sets](Pins::set), every verifier sees at its next connection.
pub struct Pins<T>(Arc<RwLock<Arc<[T]>>>);

impl<T> Pins<T> {
    /// These keys, for now.
    #[must_use]
    pub fn new(keys: Vec<T>) -> Self {
        Self(Arc::new(RwLock::new(keys.into())))
    }

    /// The keys believed at this moment.
    #[must_use]
    pub fn get(&self) -> Arc<[T]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Believes these keys from now on, and no others. Connections that exist go on.
    pub fn set(&self, keys: Vec<T>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
    }
}

impl<T> Clone for Pins<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> From<Vec<T>> for Pins<T> {
    fn from(keys: Vec<T>) -> Self {
        Self::new(keys)
    }
}

impl<T: PartialEq> PartialEq for Pins<T> {
    fn eq(&self, other: &Self) -> bool {
        *self.get() == *other.get()
    }
}

impl<T: Eq> Eq for Pins<T> {}

impl<T: fmt::Debug> fmt::Debug for Pins<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pins").field(&self.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clone_sees_what_one_sets() {
        let pins = Pins::new(vec![1]);
        let other = pins.clone();
        assert_eq!(pins, other);
        other.set(vec![2, 3]);
        assert_eq!(*pins.get(), [2, 3]);
        assert_ne!(pins, Pins::from(vec![1]));
    }
}
