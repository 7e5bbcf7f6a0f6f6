//! Stage `pull`: what describes the transfer first, and the payload only when the receiver has signed for it.

use std::{io::ErrorKind, sync::Arc};

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome, TransferRecord};
use towpath_transfer::{
    Code, Direction, Failure, Stage, TransferEvent, TransferId, TransferState,
    failure::Result,
    state::{Identity, Place},
};
use towpath_transport::files::file_failure;

use super::{
    decide,
    describe::{self, Described},
    download::Downloads,
};
use crate::{blocking::blocking, parts::Parts};

/// Bytes that must stay free on the agent's disk.
pub const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

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
        // What describes a transfer is written before anybody has signed for it, so the reserve must hold before that.
        has_room(parts, record.key.id, RESERVE_BYTES)?;
        downloads.descriptions(identity).await?;
        let described = describe::open(parts, record, identity).await?;
        check_space(parts, &described)?;
        for file in &described.packed.files {
            downloads.packed(file).await?;
        }
        Ok(())
    }
}

/// The event, or the signed rejection where what was sent is wrong. A receipt that was signed before stands.
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
        if let Some((outcome, _)) = decide::decided(&parts, id)? {
            return Ok(StepOutcome::Event(TransferEvent::Decided { outcome }));
        }
        match done {
            Err(failure) if decide::is_rejection(&failure) => {
                let outcome = decide::rejected(&parts, id, identity.manifest, &failure)?;
                Ok(StepOutcome::Event(TransferEvent::Decided { outcome }))
            }
            other => other.map(StepOutcome::Event),
        }
    })
    .await
}

/// What is still to be fetched, and all of it unpacked, must have room beside the reserve.
fn check_space(parts: &Parts, described: &Described) -> Result<()> {
    let layout = parts.layout.of(Direction::Downlink);
    let needed = described.files().fold(RESERVE_BYTES, |sum, (entry, packed)| {
        let here = parts.files.stat(&layout.sent(described.manifest.transfer, &packed.name)).map_or(0, |stat| stat.len);
        sum.saturating_add(entry.size).saturating_add(packed.size.saturating_sub(here))
    });
    has_room(parts, described.manifest.transfer, needed)
}

fn has_room(parts: &Parts, id: TransferId, needed: u64) -> Result<()> {
    let folder = parts.layout.of(Direction::Downlink).transfer(id);
    let free = match parts.files.free_space(parts.layout.state()) {
        Ok(free) => free,
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        Err(error) => return Err(file_failure("asking for the free space of", &folder, error)),
    };
    if free >= needed {
        return Ok(());
    }
    let message = format!("the return files need {needed} bytes on the disk of {}, and {free} are free", folder.display());
    Err(Failure::retry(Code::DiskFull, message))
}
