//! Remove: some time after a transfer has ended, either way, its files go; the receipts stay.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use towpath_journal::{Lease, MAX_PAUSE, Step, StepOutcome};
use towpath_transfer::{Clock, Direction, Failure, Stage, TransferEvent, failure::Result, state::Place};

use crate::{
    scope::AgentScope,
    spool::{Room, Spool, blocking},
};

/// The stage.
#[derive(Debug)]
pub struct Remove {
    spool: Arc<Spool>,
    clock: Arc<dyn Clock>,
    retention: Duration,
}

impl Remove {
    /// The stage; a transfer's files stay for `retention` after its end, or as long as is said of its tenant.
    #[must_use]
    pub fn new(spool: Arc<Spool>, clock: Arc<dyn Clock>, retention: Duration) -> Self {
        Self { spool, clock, retention }
    }
}

#[async_trait]
impl Step for Remove {
    fn place(&self) -> Place {
        Place::Relay
    }

    fn stage(&self) -> Stage {
        Stage::Remove
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let retention = self.spool.quota().said_of(&lease.key().tenant).retention.unwrap_or(self.retention);
        let left = retention.saturating_sub(lease.record.age(self.clock.now()));
        if !left.is_zero() {
            return Ok(StepOutcome::Wait(left.min(MAX_PAUSE)));
        }
        let (spool, scope, id) = (Arc::clone(&self.spool), AgentScope::of_lease(lease), lease.key().id);
        let rooms: &[Room] = match lease.record.direction {
            Direction::Uplink => &[Room::Uplink],
            Direction::Downlink => &[Room::Downlink, Room::Packed, Room::Fetched],
        };
        let _alone = self.spool.freeze(&scope, id).await;
        blocking(move || rooms.iter().try_for_each(|room| spool.remove(*room, &scope, id))).await??;
        Ok(StepOutcome::Event(TransferEvent::Removed))
    }
}
