//! `receipt`: hands the signed decision to the relay, from where the agent gets it; then what has landed may go.

use std::sync::Arc;

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_transfer::{Code, Direction, Failure, Stage, TransferEvent, TransferKey, api::AppReceipt, state::Place};

use super::{decide, verify::blocking};
use crate::{kept, parts::Parts};

/// The stage.
#[derive(Debug, Clone)]
pub struct Receipt(pub Arc<Parts>);

#[async_trait]
impl Step for Receipt {
    fn place(&self) -> Place {
        Place::Receiver
    }

    fn stage(&self) -> Stage {
        Stage::Receipt
    }

    fn direction(&self) -> Option<Direction> {
        Some(Direction::Uplink)
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        hand_over(&self.0, lease.key()).await.map(StepOutcome::Event)
    }
}

/// Posts the receipt of a decided transfer and removes what has landed of it. May be repeated.
///
/// # Errors
/// The relay's, or of the disk.
pub async fn hand_over(parts: &Arc<Parts>, key: &TransferKey) -> Result<TransferEvent, Failure> {
    let (reader, of) = (Arc::clone(parts), key.clone());
    let decided = blocking(move || decide::decided(&reader, &of)).await?;
    let missing = || Failure::park(Code::ReceiptInvalid, format!("the receipt of transfer {key} is gone from this machine"));
    let (receipt, signed) = decided.ok_or_else(missing)?;
    let outcome = receipt.outcome().ok_or_else(missing)?;
    parts.relay.post_receipt(&AppReceipt { agent: key.agent.clone(), transfer: key.id, signed }).await.map_err(unknown_there)?;
    let (remover, of) = (Arc::clone(parts), key.clone());
    blocking(move || {
        kept::close(&*remover.files, &remover.layout, &of)?;
        decide::remove_landed(&remover, &of)
    })
    .await?;
    Ok(TransferEvent::Settled { outcome })
}

/// A relay that was restored from an old backup gets the transfer again from its agent, so waiting helps.
fn unknown_there(failure: Failure) -> Failure {
    if failure.code() != Code::NotFound {
        return failure;
    }
    Failure::retry(Code::NotFound, "handing the relay the signed receipt: it has not handed on the transfer now")
        .caused_by(failure)
}
