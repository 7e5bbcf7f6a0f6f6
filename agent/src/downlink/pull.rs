//! Stage `pull`: what describes the transfer first, and the payload only when the receiver has signed for it.

use std::sync::Arc;

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome, TransferRecord};
use towpath_transfer::{
    Code, Direction, Failure, FileName, Stage, TransferEvent, TransferState,
    failure::Result,
    packed::PART_SUFFIX,
    state::{Identity, Place},
};

use super::{
    decide,
    describe::Described,
    download::{Downloads, RETURN_FILES},
};
use crate::{blocking::blocking, parts::Parts, room};

/// Stage `pull`.
#[derive(Debug, Clone)]
pub struct PullStep {
    /// What it touches.
    pub parts: Arc<Parts>,
}

#[async_trait]
impl Step for PullStep {
    fn place(&self) -> Place {
        Place::Agent
    }

    fn stage(&self) -> Stage {
        Stage::Pull
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let id = lease.record.key.id;
        let TransferState::Offered { identity } = lease.record.state else {
            return Err(Failure::park(Code::Internal, format!("transfer {id} is not offered")));
        };
        let pulled = self.pull(&lease.record, identity).await;
        or_rejected(&self.parts, &lease.record, identity, pulled.map(|()| TransferEvent::Pulled)).await
    }
}

impl PullStep {
    async fn pull(&self, record: &TransferRecord, identity: Identity) -> Result<()> {
        let parts = &*self.parts;
        let downloads = Downloads::of(parts, record.key.id)?;
        let described = downloads.described(record, identity).await?;
        check_space(parts, &described)?;
        for file in &described.packed.files {
            downloads.packed(file).await?;
        }
        Ok(())
    }
}

/// The event, or the signed rejection where what was sent is wrong. A receipt that was signed before stands, unless it cannot be told
/// for now whether what the relay shows is what it was signed for: every other failure comes first.
///
/// # Errors
/// Every other failure.
pub(crate) async fn or_rejected(
    parts: &Arc<Parts>,
    record: &TransferRecord,
    identity: Identity,
    done: Result<TransferEvent>,
) -> Result<StepOutcome> {
    let (parts, id) = (Arc::clone(parts), record.key.id);
    blocking(move || {
        let done = match done {
            Err(failure) if !decide::is_rejection(&failure) => return Err(failure),
            other => other,
        };
        if let Some((outcome, _)) = decide::decided(&parts, id, Some(identity.manifest))? {
            return Ok(StepOutcome::Event(TransferEvent::Decided { outcome }));
        }
        match done {
            Ok(event) => Ok(StepOutcome::Event(event)),
            Err(failure) => {
                let outcome = decide::rejected(&parts, id, identity.manifest, &failure)?;
                Ok(StepOutcome::Event(TransferEvent::Decided { outcome }))
            }
        }
    })
    .await
}

/// What is still to be fetched, and all of it unpacked, must have room beside the reserve.
fn check_space(parts: &Parts, described: &Described) -> Result<()> {
    let layout = parts.layout.of(Direction::Downlink);
    let id = described.manifest.transfer;
    let length = |name: &FileName| parts.files.stat(&layout.sent(id, name)).map_or(0, |stat| stat.len);
    let needed = described.files().fold(0u64, |sum, (entry, packed)| {
        // What an interrupted try has left is gone on with.
        let part = packed.name.with_suffix(PART_SUFFIX).map_or(0, |part| length(&part));
        let left = packed.size.saturating_sub(length(&packed.name).max(part));
        sum.saturating_add(entry.size).saturating_add(left)
    });
    room::check_here(parts, needed, RETURN_FILES)
}
