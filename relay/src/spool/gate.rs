//! One transfer's folder: who changes it now, and whether anybody may.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::OwnedRwLockWriteGuard;
use towpath_transport::server::stored::{FolderGate, FolderNames};

/// Changes of a folder's bytes share the gate; changes of its names, and `complete`, have it alone.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pub(super) folder: FolderGate,
    /// The journal was asked and said that the folder is open. Only this process' `complete` closes it again, and that
    /// takes the answer back under the exclusive lock; so an open answer stays true until then.
    open: AtomicBool,
}

/// Nobody changes the folder while this lives.
#[derive(Debug)]
pub struct Frozen {
    _alone: OwnedRwLockWriteGuard<FolderNames>,
    /// A gate that nobody holds is forgotten, and the next user would get another one that knows nothing of this.
    _gate: Arc<Gate>,
}

impl Gate {
    pub(super) async fn freeze(self: Arc<Self>) -> Frozen {
        let alone = self.folder.alone().await;
        self.frozen(alone)
    }

    /// The same without waiting; `None` where somebody has the gate.
    pub(super) async fn try_freeze(self: Arc<Self>) -> Option<Frozen> {
        let alone = tokio::select! {
            biased;
            // Not to be mistaken for a gate that is taken: a task that has used up its turn.
            alone = tokio::task::unconstrained(self.folder.alone()) => alone,
            () = std::future::ready(()) => return None,
        };
        Some(self.frozen(alone))
    }

    fn frozen(self: Arc<Self>, alone: OwnedRwLockWriteGuard<FolderNames>) -> Frozen {
        self.open.store(false, Ordering::SeqCst);
        Frozen { _alone: alone, _gate: self }
    }

    pub(super) fn known_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    /// To be called with the gate held in either way.
    pub(super) fn found_open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}
