//! One transfer's folder: who changes it now, and whether anybody may.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use towpath_transfer::FileName;

/// Changes of a folder's bytes share the gate; changes of its names, and `complete`, have it alone.
#[derive(Debug)]
pub(super) struct Gate {
    lock: Arc<RwLock<Names>>,
    /// The journal was asked and said that the folder is open. Only this process' `complete` closes it again, and that
    /// takes the answer back under the exclusive lock; so an open answer stays true until then.
    open: Arc<AtomicBool>,
    writers: Mutex<Writers>,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    /// How many visible and hidden files there are, once they were counted.
    pub(super) files: Option<usize>,
}

#[derive(Debug, Default)]
struct Writers {
    next: u64,
    current: HashMap<FileName, u64>,
}

/// Nobody changes the folder while this lives.
#[derive(Debug)]
pub struct Frozen {
    _alone: OwnedRwLockWriteGuard<Names>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { lock: Arc::default(), open: Arc::default(), writers: Mutex::default() }
    }

    pub(super) async fn freeze(&self) -> Frozen {
        let alone = Arc::clone(&self.lock).write_owned().await;
        self.open.store(false, Ordering::SeqCst);
        Frozen { _alone: alone }
    }

    pub(super) async fn shared(&self) -> OwnedRwLockReadGuard<Names> {
        Arc::clone(&self.lock).read_owned().await
    }

    pub(super) async fn alone(&self) -> OwnedRwLockWriteGuard<Names> {
        Arc::clone(&self.lock).write_owned().await
    }

    pub(super) fn known_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    /// To be called with the lock held in either way.
    pub(super) fn found_open(&self) {
        self.open.store(true, Ordering::SeqCst);
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

    pub(super) fn done(&self, name: &FileName, token: u64) {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        if writers.current.get(name) == Some(&token) {
            writers.current.remove(name);
        }
    }
}
