//! Stage `acknowledge`: the signed receipt reaches the relay; only then the payload goes.

use std::sync::Arc;

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_transfer::{Code, Direction, Failure, Stage, TransferEvent, TransferState, api::Acknowledgement, state::Place};

use super::decide;
use crate::{blocking::blocking, parts::Parts, uplink::folder};

/// Stage `acknowledge`.
#[derive(Debug, Clone)]
pub struct AcknowledgeStep {
    /// What it touches.
    pub parts: Arc<Parts>,
}

#[async_trait]
impl Step for AcknowledgeStep {
    fn place(&self) -> Place {
        Place::Agent
    }

    fn stage(&self) -> Stage {
        Stage::Acknowledge
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let (parts, id) = (Arc::clone(&self.parts), lease.record.key.id);
        let TransferState::Decided { outcome } = lease.record.state.clone() else {
            return Err(Failure::park(Code::Internal, format!("transfer {id} is not decided")));
        };
        let of = Arc::clone(&parts);
        let kept = blocking(move || decide::decided(&of, id, None)).await?;
        let lost = || Failure::park(Code::ReceiptInvalid, format!("the signed receipt of transfer {id} is not here any more"));
        let (signed_outcome, signed) = kept.ok_or_else(lost)?;
        if signed_outcome != outcome {
            return Err(Failure::park(
                Code::ReceiptInvalid,
                format!("the receipt of transfer {id} says something else than its journal"),
            ));
        }
        parts.relay.acknowledge(id, &Acknowledgement { signed }).await.map_err(unknown_there)?;
        // From here on the relay answers for the receipt, and the files are in the ERP's folder.
        blocking(move || folder::remove_payload(&*parts.files, &parts.layout.of(Direction::Downlink), id)).await?;
        Ok(StepOutcome::Event(TransferEvent::Settled { outcome }))
    }
}

/// A relay that was restored from an old backup learns of the transfer again from the receiver, so waiting helps.
fn unknown_there(failure: Failure) -> Failure {
    if failure.code() != Code::NotFound {
        return failure;
    }
    Failure::retry(Code::NotFound, "handing the relay the signed receipt: it does not know the transfer now").caused_by(failure)
}
