//! Whether the spool still holds what the journal says: a relay whose database was restored without its files, or from an older
//! backup than they are, does not.

use std::sync::Arc;

use towpath_transfer::{
    Code, Failure, FileName, TransferEvent, TransferId, TransferKey, TransferState,
    digest::Sha256Digest,
    failure::Result,
    manifest::{MANIFEST_NAME, MAX_MANIFEST_BYTES, SIGNATURE_NAME},
    name::InvalidName,
    packed::{MAX_PACKED_LIST_BYTES, MD5SUMS_NAME, PACKED_NAME, PackedList},
    state::{Identity, MissingFile},
};

use super::{Room, Spool, blocking};
use crate::scope::AgentScope;

/// The most missing files that are named at once; the rest shows when these are mended.
pub const MAX_MISSING: usize = 1_000;
/// What is wrong with a file that is not there at all.
pub(crate) const GONE: &str = "is not there";

/// What is wrong with files of one transfer, up to [`MAX_MISSING`].
#[derive(Debug, Default)]
pub(crate) struct Missing(pub(crate) Vec<MissingFile>);

impl Missing {
    pub(crate) fn note(&mut self, name: &FileName, problem: impl Into<String>) {
        if self.0.len() < MAX_MISSING {
            self.0.push(MissingFile { name: name.clone(), problem: problem.into() });
        }
    }
}

/// The name of a file that every transfer has.
pub(crate) fn own_name(name: &str) -> Result<FileName> {
    name.parse().map_err(|e: InvalidName| Failure::park(Code::Internal, "name a file").caused_by(e))
}

impl Spool {
    /// What a folder that was whole lacks now: its two lists by their digests, everything else by its length. Whoever gets the
    /// files compares every digest. Blocking.
    ///
    /// # Errors
    /// [`Code::FileFailed`], [`Code::LimitExceeded`].
    pub(crate) fn lacking(&self, room: Room, scope: &AgentScope, id: TransferId, travels: Identity) -> Result<Vec<MissingFile>> {
        let mut missing = Missing::default();
        let present = self.list(room, scope, id, self.quota.limits().files_per_transfer)?;
        let size = |name: &str| {
            let found = present.binary_search_by(|known| known.name.as_str().cmp(name)).ok();
            found.and_then(|at| present.get(at)).map(|file| file.size)
        };
        let mut list = None;
        let lists = [(MANIFEST_NAME, travels.manifest, MAX_MANIFEST_BYTES), (PACKED_NAME, travels.packed, MAX_PACKED_LIST_BYTES)];
        for (name, digest, limit) in lists {
            let fits = size(name).is_some_and(|size| size <= limit as u64);
            let bytes = if fits { self.read(room, scope, id, name, limit)? } else { None };
            match bytes {
                Some(bytes) if Sha256Digest::of(&bytes) == digest => {
                    if name == PACKED_NAME {
                        list = PackedList::parse(&bytes).ok();
                    }
                }
                Some(_) => missing.note(&own_name(name)?, "is another one"),
                None => missing.note(&own_name(name)?, GONE),
            }
        }
        for name in [SIGNATURE_NAME, MD5SUMS_NAME] {
            if size(name).is_none() {
                missing.note(&own_name(name)?, GONE);
            }
        }
        for file in list.iter().flat_map(|list| &list.files) {
            match size(file.name.as_str()) {
                Some(there) if there == file.size => {}
                Some(there) => missing.note(&file.name, format!("has {there} bytes instead of {}", file.size)),
                None => missing.note(&file.name, GONE),
            }
        }
        Ok(missing.0)
    }

    /// Lets a downlink be fetched once more that was packed or queued and is not in the spool any more. What is left of it goes.
    ///
    /// # Errors
    /// [`Code::FileFailed`], [`Code::JournalFailed`]; [`Code::Internal`] where the journal does not say what was announced.
    pub(crate) async fn refetch(self: &Arc<Self>, scope: &AgentScope, id: TransferId) -> Result<TransferEvent> {
        let key = scope.key(id);
        let history = self.journal.history(&key).await.map_err(Failure::from)?;
        let TransferState::Announced { announced } = history.start else {
            return Err(Failure::park(Code::Internal, format!("transfer {key} was never announced")));
        };
        tracing::warn!(transfer = %key, "return files are not in the spool any more: they are fetched once more");
        let (spool, owner) = (Arc::clone(self), scope.clone());
        blocking(move || [Room::Packed, Room::Downlink].iter().try_for_each(|room| spool.remove(*room, &owner, id))).await??;
        Ok(TransferEvent::Refetch { announced })
    }

    /// The agent asked for a file of a downlink that is not there: where it was queued and is lacking, it is fetched once more.
    ///
    /// # Errors
    /// Those of [`Spool::refetch`].
    pub(super) async fn mend_queued(self: &Arc<Self>, scope: &AgentScope, id: TransferId) -> Result<()> {
        let key: TransferKey = scope.key(id);
        let queued = async || {
            let found = self.journal.get(&key).await.map_err(Failure::from)?;
            Ok::<_, Failure>(found.filter(|record| matches!(record.state, TransferState::Queued { .. })))
        };
        if queued().await?.is_none() {
            // Nobody waits here for a fetch that has the folder, which may take as long as an app server likes.
            return Ok(());
        }
        let _alone = self.freeze(scope, id).await;
        let Some(record) = queued().await? else { return Ok(()) };
        let TransferState::Queued { identity } = record.state else { return Ok(()) };
        let (spool, owner) = (Arc::clone(self), scope.clone());
        if blocking(move || spool.lacking(Room::Downlink, &owner, id, identity)).await??.is_empty() {
            return Ok(());
        }
        let event = self.refetch(scope, id).await?;
        match self.journal.append_unleased(&key, record.events, &event).await {
            // Its receipt has come in this moment.
            Ok(_) | Err(towpath_journal::JournalError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
