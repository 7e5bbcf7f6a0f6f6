//! Who changes the folder of a transfer now.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use towpath_transfer::FileName;

/// Changes of a folder's bytes share the gate; changes of its names have it alone.
#[derive(Debug, Default)]
pub(super) struct Gate {
    lock: RwLock<Names>,
    writers: Mutex<Writers>,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    /// How many files there are, hidden ones included, once they were counted.
    pub(super) files: Option<usize>,
}

#[derive(Debug, Default)]
struct Writers {
    next: u64,
    current: HashMap<FileName, u64>,
}

impl Gate {
    pub(super) async fn shared(&self) -> RwLockReadGuard<'_, Names> {
        self.lock.read().await
    }

    pub(super) async fn alone(&self) -> RwLockWriteGuard<'_, Names> {
        self.lock.write().await
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
