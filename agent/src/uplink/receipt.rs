//! Stage `receipt`: asks the relay until the signed receipts are here; only then the payload goes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use towpath_journal::{Again, LONGEST_TROUBLED_POLL, Lease, Step, StepOutcome};
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

/// The events of a transfer that was pushed once.
const EVENTS_ONCE: u64 = 3;

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
        // Ended before, and stopped before the journal knew; by now the relay may have forgotten it, and the payload may be gone.
        if let Some(outcome) = kept_outcome(&self.parts, id, identity.manifest)? {
            return self.settle(id, outcome).await.map(StepOutcome::Event);
        }
        let status = match self.parts.relay.uplink(id).await {
            // It was restored to before the transfer. Everything is still here, so it gets everything again.
            Err(failure) if failure.code() == Code::NotFound => {
                return self.push_again(lease, Code::NotFound, "the relay does not know the transfer any more");
            }
            answered => answered?,
        };
        if status.transfer != id {
            let message = format!("asked for transfer {id}, the relay answered for {}", status.transfer);
            return Err(Failure::retry(Code::RelayProtocol, message));
        }
        if status.state == UplinkState::Incomplete {
            return self.push_again(lease, Code::TransferIncomplete, "the relay asks for files again");
        }
        let waits_for_acceptance = matches!(lease.record.state, TransferState::Pushed { .. });
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
    fn push_again(&self, lease: &Lease, code: Code, why: &'static str) -> Result<StepOutcome, Failure> {
        let again = Again { event: TransferEvent::PushAgain, events_once: EVENTS_ONCE, code, why };
        again.step(lease, self.parts.clock.now())
    }

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
        let (mut good, mut doubted) = (Vec::new(), None);
        for signed in &status.receipts {
            let receipt = match self.believe(id, signed, manifest).await {
                // What is good beside it counts all the same: only the relay says that this one is of anybody.
                Err(failure) if is_doubt(&failure) => {
                    doubted.get_or_insert(failure);
                    continue;
                }
                other => other?,
            };
            accepted |= receipt.stage == ReceiptStage::Accepted;
            good.push((receipt.stage, signed));
            if let Some(ended) = receipt.outcome()
                && outcome.replace(ended.clone()).is_some_and(|before| before != ended)
            {
                let message = format!("the relay has two receipts of transfer {id} that contradict each other");
                return Err(Failure::park(Code::ReceiptInvalid, message));
            }
        }
        // Only now: one that is here ends the transfer, also where the other is not looked at any more.
        for (stage, signed) in good {
            folder::keep_receipt(&*parts.files, &parts.layout, id, stage, signed)?;
        }
        if accepted && waits_for_acceptance {
            return Ok(Some(TransferEvent::Accepted));
        }
        let Some(outcome) = outcome else { return doubted.map_or(Ok(None), Err) };
        self.settle(id, outcome).await.map(Some)
    }

    /// The receipt is on the disk: from here on the receiver answers for the content. May be repeated.
    async fn settle(&self, id: TransferId, outcome: Outcome) -> Result<TransferEvent, Failure> {
        let parts = &*self.parts;
        if outcome == Outcome::Imported {
            archive::put_away(parts, id).await?;
        }
        folder::remove_payload(&*parts.files, &parts.layout, id)?;
        Ok(TransferEvent::Settled { outcome })
    }

    /// Checks signature, signer and content of one receipt.
    async fn believe(&self, id: TransferId, signed: &SignedReceipt, manifest: Sha256Digest) -> Result<Receipt, Failure> {
        let parts = &*self.parts;
        match believed(parts, id, signed, manifest) {
            Err(failure) if failure.code() == Code::ReceiverUnapproved => {
                let peers = parts.relay.peers().await?.peers;
                if pin_first(&*parts.trust, parts.config.now().trust, &parts.agent, &peers)?.is_none() {
                    return Err(failure);
                }
                believed(parts, id, signed, manifest)
            }
            other => other,
        }
    }

    /// Asks often while a transfer is young and ever more seldom afterwards.
    fn pause(&self, lease: &Lease) -> Duration {
        let longest = self.parts.config.now().receipt.poll;
        (lease.record.age(self.parts.clock.now()) / 4).clamp(SHORTEST_POLL.min(longest), longest)
    }
}

/// A receipt of which signature, signer and content are right.
fn believed(parts: &Parts, id: TransferId, signed: &SignedReceipt, manifest: Sha256Digest) -> Result<Receipt, Failure> {
    let wrong = |why: &str| Failure::park(Code::ReceiptInvalid, format!("a receipt of transfer {id} was not believed: {why}"));
    let receipt = signed.parse().map_err(|error| wrong("it cannot be read").caused_by(error))?;
    if receipt.key() != parts.key(id) || receipt.direction != Direction::Uplink {
        return Err(wrong("it is of another transfer"));
    }
    if receipt.stage == ReceiptStage::Delivered {
        return Err(wrong("an uplink is not delivered"));
    }
    check_receipt(&parts.trust.signers()?, &parts.agent, signed, &receipt)?;
    match receipt.manifest {
        Some(digest) if digest == manifest => Ok(receipt),
        // A receiver that was given something else says so by rejecting it; that is no lie about our manifest.
        _ if receipt.stage == ReceiptStage::Rejected => Ok(receipt),
        _ => Err(wrong("it is for another manifest")),
    }
}

/// Whether a receipt is not to be believed, and not only cannot be judged now.
fn is_doubt(failure: &Failure) -> bool {
    matches!(failure.code(), Code::ReceiptInvalid | Code::ReceiverUnapproved)
}

/// How a transfer has ended by a receipt that is here. One that cannot be believed any more is asked for again.
///
/// # Errors
/// As the disk reports.
pub(super) fn kept_outcome(parts: &Parts, id: TransferId, manifest: Sha256Digest) -> Result<Option<Outcome>, Failure> {
    for stage in [ReceiptStage::Imported, ReceiptStage::Rejected] {
        let kept = match folder::kept_receipt(&*parts.files, &parts.layout, id, stage) {
            Err(failure) if failure.code() == Code::ReceiptInvalid => None,
            other => other?,
        };
        let Some(signed) = kept else { continue };
        match believed(parts, id, &signed, manifest) {
            Ok(receipt) if receipt.stage == stage => return Ok(receipt.outcome()),
            Err(failure) if !is_doubt(&failure) => return Err(failure),
            _ => {}
        }
    }
    Ok(None)
}

/// What holds the transfer up on the relay, as a failure of this stage, so that it is seen here.
fn trouble(status: &UplinkStatus, lease: &Lease, poll: Duration) -> Option<Failure> {
    let trouble = status.trouble.as_ref()?;
    let message = format!("the relay reports at {}: {}", trouble.stage, trouble.detail);
    Some(if trouble.parked {
        Failure::park(trouble.code, message)
    } else {
        // While the relay reports trouble the pause grows with each question.
        Failure::retry(trouble.code, message)
            .after(poll.saturating_mul(lease.attempts().max(1)).min(LONGEST_TROUBLED_POLL.max(poll)))
    })
}
