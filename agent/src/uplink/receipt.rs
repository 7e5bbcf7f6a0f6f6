//! Stage `receipt`: asks the relay until the signed receipts are here; only then the payload goes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_transfer::{
    Code, Direction, Failure, Stage, TransferEvent, TransferId, TransferState,
    api::{UplinkState, UplinkStatus},
    digest::Sha256Digest,
    receipt::{Receipt, ReceiptStage, SignedReceipt},
    state::{Outcome, Place},
};

use super::{archive, folder};
use crate::{
    parts::Parts,
    trust::{check_receipt, pin_first},
};

/// The shortest pause between two questions; the longest is the configured one.
pub const SHORTEST_POLL: Duration = Duration::from_millis(200);
/// While the relay reports trouble the pause grows with each question up to so many times the configured one.
pub const MAX_TROUBLED_POLLS: u32 = 60;

/// Stage `receipt`.
#[derive(Debug, Clone)]
pub struct ReceiptStep {
    /// What it touches.
    pub parts: Arc<Parts>,
}

#[async_trait]
impl Step for ReceiptStep {
    fn place(&self) -> Place {
        Place::Agent
    }

    fn stage(&self) -> Stage {
        Stage::Receipt
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let id = lease.record.key.id;
        let (TransferState::Pushed { identity } | TransferState::Accepted { identity }) = lease.record.state else {
            return Err(Failure::park(Code::Internal, format!("transfer {id} waits for no receipt")));
        };
        let status = self.parts.relay.uplink(id).await?;
        if status.transfer != id {
            let message = format!("asked for transfer {id}, the relay answered for {}", status.transfer);
            return Err(Failure::retry(Code::RelayProtocol, message));
        }
        let waits_for_acceptance = matches!(lease.record.state, TransferState::Pushed { .. });
        if waits_for_acceptance && status.state == UplinkState::Incomplete {
            return Ok(StepOutcome::Event(TransferEvent::PushAgain));
        }
        if let Some(event) = self.take_receipts(id, &status, identity.manifest, waits_for_acceptance).await? {
            return Ok(StepOutcome::Event(event));
        }
        match trouble(&status, lease, self.parts.config.now().receipt.poll) {
            Some(failure) => Err(failure),
            None => Ok(StepOutcome::Wait(self.pause(lease))),
        }
    }
}

impl ReceiptStep {
    /// Looks at every receipt the relay has; keeps those that are good, and says what follows from them.
    async fn take_receipts(
        &self,
        id: TransferId,
        status: &UplinkStatus,
        manifest: Sha256Digest,
        waits_for_acceptance: bool,
    ) -> Result<Option<TransferEvent>, Failure> {
        let parts = &*self.parts;
        let mut accepted = false;
        let mut outcome = None;
        for signed in &status.receipts {
            let receipt = self.believe(id, signed, manifest).await?;
            folder::keep_receipt(&*parts.files, &parts.layout, id, receipt.stage, signed)?;
            accepted |= receipt.stage == ReceiptStage::Accepted;
            if let Some(ended) = receipt.outcome()
                && outcome.replace(ended.clone()).is_some_and(|before| before != ended)
            {
                let message = format!("the relay has two receipts of transfer {id} that contradict each other");
                return Err(Failure::park(Code::ReceiptInvalid, message));
            }
        }
        if accepted && waits_for_acceptance {
            return Ok(Some(TransferEvent::Accepted));
        }
        let Some(outcome) = outcome else { return Ok(None) };
        if outcome == Outcome::Imported {
            archive::put_away(parts, id).await?;
        }
        // The receipt is on the disk: from here on the receiver answers for the content.
        folder::remove_payload(&*parts.files, &parts.layout, id)?;
        Ok(Some(TransferEvent::Settled { outcome }))
    }

    /// Checks signature, signer and content of one receipt.
    async fn believe(&self, id: TransferId, signed: &SignedReceipt, manifest: Sha256Digest) -> Result<Receipt, Failure> {
        let parts = &*self.parts;
        let wrong =
            |why: &str| Failure::park(Code::ReceiptInvalid, format!("a receipt of transfer {id} was not believed: {why}"));
        let receipt = signed.parse().map_err(|error| wrong("it cannot be read").caused_by(error))?;
        if receipt.key() != parts.key(id) || receipt.direction != Direction::Uplink {
            return Err(wrong("it is of another transfer"));
        }
        if receipt.stage == ReceiptStage::Delivered {
            return Err(wrong("an uplink is not delivered"));
        }
        match check_receipt(&parts.trust.signers()?, &parts.agent, signed, &receipt) {
            Err(failure) if failure.code() == Code::ReceiverUnapproved => {
                let peers = parts.relay.peers().await?.peers;
                if pin_first(&*parts.trust, parts.config.now().trust, &parts.agent, &peers)?.is_none() {
                    return Err(failure);
                }
                check_receipt(&parts.trust.signers()?, &parts.agent, signed, &receipt)?
            }
            other => other?,
        };
        match receipt.manifest {
            Some(digest) if digest == manifest => Ok(receipt),
            // A receiver that was given something else says so by rejecting it; that is no lie about our manifest.
            _ if receipt.stage == ReceiptStage::Rejected => Ok(receipt),
            _ => Err(wrong("it is for another manifest")),
        }
    }

    /// Asks often while a transfer is young and ever more seldom afterwards.
    fn pause(&self, lease: &Lease) -> Duration {
        let longest = self.parts.config.now().receipt.poll;
        let age = self.parts.clock.now().duration_since(lease.record.changed);
        let age = Duration::try_from(age).unwrap_or(Duration::ZERO);
        (age / 4).clamp(SHORTEST_POLL.min(longest), longest)
    }
}

/// What holds the transfer up on the relay, as a failure of this stage, so that it is seen here.
fn trouble(status: &UplinkStatus, lease: &Lease, poll: Duration) -> Option<Failure> {
    let trouble = status.trouble.as_ref()?;
    let message = format!("the relay reports at {}: {}", trouble.stage, trouble.detail);
    Some(if trouble.parked {
        Failure::park(trouble.code, message)
    } else {
        Failure::retry(trouble.code, message).after(poll.saturating_mul(lease.attempts().clamp(1, MAX_TROUBLED_POLLS)))
    })
}
