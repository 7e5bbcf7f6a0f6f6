//! Who changes a folder now.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use towpath_transfer::FileName;

/// Gates that may be remembered without a user before those are dropped.
const IDLE_GATES: usize = 1_000;

/// Changes of a folder's bytes share the gate; changes of its names have it alone.
#[derive(Debug, Default)]
pub struct FolderGate {
    lock: Arc<RwLock<FolderNames>>,
    writers: Mutex<Writers>,
}

/// What is known of a folder's names while its gate is held.
#[derive(Debug, Default)]
pub struct FolderNames {
    /// How many files there are, hidden ones included, once they were counted.
    pub files: Option<usize>,
}

#[derive(Debug, Default)]
struct Writers {
    next: u64,
    current: HashMap<FileName, u64>,
}

impl FolderGate {
    /// Waits until nobody has the gate alone.
    pub async fn shared(&self) -> OwnedRwLockReadGuard<FolderNames> {
        Arc::clone(&self.lock).read_owned().await
    }

    /// Waits until nobody has the gate.
    pub async fn alone(&self) -> OwnedRwLockWriteGuard<FolderNames> {
        Arc::clone(&self.lock).write_owned().await
    }

    /// Makes the caller the one writer of a name; whoever wrote it before writes no more.
    pub(super) fn take_over(&self, name: &FileName) -> u64 {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.next += 1;
        let token = writers.next;
        writers.current.insert(name.clone(), token);
        token
    }

    pub(super) fn writes(&self, name: &FileName, token: u64) -> bool {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner).current.get(name) == Some(&token)
    }

    /// Nobody writes the name any more.
    pub(super) fn withdraw(&self, name: &FileName) {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner).current.remove(name);
    }

    pub(super) fn done(&self, name: &FileName, token: u64) {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        if writers.current.get(name) == Some(&token) {
            writers.current.remove(name);
        }
    }
}

/// The gates of many folders: one each, for as long as somebody has it.
#[derive(Debug)]
pub struct Gates<K, G>(Mutex<HashMap<K, Weak<G>>>);

impl<K, G> Default for Gates<K, G> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, G: Default> Gates<K, G> {
    /// The gate of the folder `key`.
    pub fn of(&self, key: &K) -> Arc<G> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(key).and_then(Weak::upgrade) {
            return gate;
        }
        if gates.len() >= IDLE_GATES {
            gates.retain(|_, gate| gate.strong_count() > 0);
        }
        let gate = Arc::new(G::default());
        gates.insert(key.clone(), Arc::downgrade(&gate));
        gate
    }
}

/// The gate that a session used last: it stays alive, so that what it knows need not be found anew for each file.
#[derive(Debug)]
pub struct LastGate<K, G>(Mutex<Option<(K, Arc<G>)>>);

impl<K, G> Default for LastGate<K, G> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, G: Default> LastGate<K, G> {
    /// The gate of the folder `key` among `gates`.
    pub fn of(&self, key: &K, gates: &Gates<K, G>) -> Arc<G> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, gate)) if known == key => Arc::clone(gate),
            _ => {
                let gate = gates.of(key);
                *last = Some((key.clone(), Arc::clone(&gate)));
                gate
            }
        }
    }
}
