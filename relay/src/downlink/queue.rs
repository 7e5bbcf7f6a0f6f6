//! Queue: the relay signs that it holds everything, and the agent may see it from here on.

use std::{io, sync::Arc};

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_transfer::{
    Code, Direction, Failure, Stage, TransferEvent, TransferId, TransferState,
    digest::Sha256Digest,
    failure::Result,
    manifest::{MANIFEST_NAME, MAX_MANIFEST_BYTES, SIGNATURE_NAME},
    packed::{MAX_PACKED_LIST_BYTES, MD5SUMS_NAME, PACKED_NAME, PackedList},
    state::{Identity, Place},
};
use towpath_transport::files::{FileKind, file_failure};

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
        let (spool, signer) = (Arc::clone(&self.spool), self.signer.clone());
        let alone = self.spool.freeze(&scope, id).await;
        let queued = blocking(move || {
            let _alone = alone;
            // Where a try was stopped after the rename, everything is there already.
            let room = if is_there(&spool, Room::Packed, &scope, id)? { Room::Packed } else { Room::Downlink };
            check(&spool, room, &scope, id, identity)?;
            signer.accepted(&spool, &scope, id, Direction::Downlink, identity.manifest)?;
            if room == Room::Packed { show(&spool, &scope, id) } else { sync(&spool, &scope, id) }
        });
        queued.await??;
        Ok(StepOutcome::Event(TransferEvent::Queued))
    }
}

fn is_there(spool: &Spool, room: Room, scope: &AgentScope, id: TransferId) -> Result<bool> {
    let folder = spool.folder(room, scope, id);
    match spool.files().stat(&folder) {
        Ok(stat) => Ok(stat.kind == FileKind::Dir),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(file_failure("look at", &folder, e)),
    }
}

/// Whether the folder is the packed one: its lists by their digests, the files by their lengths. The agent compares every digest.
fn check(spool: &Spool, room: Room, scope: &AgentScope, id: TransferId, identity: Identity) -> Result<()> {
    let gone = |what: &str| {
        let message = format!("queue transfer {}: {what} in the spool is not what was packed", scope.key(id));
        Failure::park(Code::FileFailed, message)
    };
    let read = |name: &str, limit: usize| spool.read(room, scope, id, name, limit);
    let manifest = read(MANIFEST_NAME, MAX_MANIFEST_BYTES)?;
    manifest.filter(|bytes| Sha256Digest::of(bytes) == identity.manifest).ok_or_else(|| gone(MANIFEST_NAME))?;
    let list = read(PACKED_NAME, MAX_PACKED_LIST_BYTES)?.filter(|bytes| Sha256Digest::of(bytes) == identity.packed);
    let list = list.and_then(|bytes| PackedList::parse(&bytes).ok()).ok_or_else(|| gone(PACKED_NAME))?;
    let present = spool.list(room, scope, id, spool.quota().limits().files_per_transfer)?;
    let has = |name: &str, size: Option<u64>| {
        let found = present.binary_search_by(|known| known.name.as_str().cmp(name)).ok().and_then(|at| present.get(at));
        if found.is_some_and(|found| size.is_none_or(|size| size == found.size)) { Ok(()) } else { Err(gone(name)) }
    };
    has(SIGNATURE_NAME, None)?;
    has(MD5SUMS_NAME, None)?;
    list.files.iter().try_for_each(|file| has(file.name.as_str(), Some(file.size)))
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
