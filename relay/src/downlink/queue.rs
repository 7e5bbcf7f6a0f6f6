//! Queue: the relay signs that it holds everything, and the agent may see it from here on.

use std::sync::Arc;

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_transfer::{Direction, Failure, Stage, TransferEvent, TransferId, TransferState, failure::Result, state::Place};
use towpath_transport::files::file_failure;

use super::wrong_state;
use crate::{
    scope::AgentScope,
    signer::Signer,
    spool::{Room, Spool, blocking},
};

/// The stage.
#[derive(Debug)]
pub struct Queue {
    spool: Arc<Spool>,
    signer: Signer,
}

impl Queue {
    /// The stage over these parts.
    #[must_use]
    pub fn new(spool: Arc<Spool>, signer: Signer) -> Self {
        Self { spool, signer }
    }
}

#[async_trait]
impl Step for Queue {
    fn place(&self) -> Place {
        Place::Relay
    }

    fn stage(&self) -> Stage {
        Stage::Queue
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let TransferState::Packed { identity } = lease.record.state else { return Err(wrong_state(lease)) };
        let (scope, id) = (AgentScope::of_lease(lease), lease.key().id);
        let (spool, signer, owner) = (Arc::clone(&self.spool), self.signer.clone(), scope.clone());
        let alone = self.spool.freeze(&scope, id).await;
        let queued = blocking(move || {
            let _alone = alone;
            // Where a try was stopped after the rename, everything is there already; so it is where the files are of a later time
            // than the journal.
            let shown = spool.lacking(Room::Downlink, &scope, id, identity)?.is_empty();
            if !shown && !spool.lacking(Room::Packed, &scope, id, identity)?.is_empty() {
                return Ok(false);
            }
            spool.remove(if shown { Room::Packed } else { Room::Downlink }, &scope, id)?;
            spool.hold(if shown { Room::Downlink } else { Room::Packed }, &scope, id)?;
            signer.accepted(&spool, &scope, id, Direction::Downlink, identity.manifest)?;
            if shown {
                sync(&spool, &scope, id)?;
            } else {
                show(&spool, &scope, id)?;
            }
            Ok(true)
        });
        let whole: Result<bool> = queued.await?;
        Ok(StepOutcome::Event(if whole? { TransferEvent::Queued } else { self.spool.refetch(&owner, id).await? }))
    }
}

/// Gives the folder the name under which the agent sees it.
fn show(spool: &Spool, scope: &AgentScope, id: TransferId) -> Result<()> {
    let (from, to) = (spool.folder(Room::Packed, scope, id), spool.folder(Room::Downlink, scope, id));
    let failed = |e| file_failure("name the folder", &to, e);
    if let Some(parent) = to.parent() {
        spool.files().create_dir_all(parent).map_err(failed)?;
    }
    spool.files().rename(&from, &to).map_err(failed)?;
    sync(spool, scope, id)
}

/// Makes the name durable, the new one first, so that the folder is never in neither.
fn sync(spool: &Spool, scope: &AgentScope, id: TransferId) -> Result<()> {
    for room in [Room::Downlink, Room::Packed] {
        if let Some(parent) = spool.folder(room, scope, id).parent() {
            spool.files().sync_dir(parent).map_err(|e| file_failure("name the folder in", parent, e))?;
        }
    }
    Ok(())
}
