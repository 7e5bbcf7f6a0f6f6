//! `receipt`, on the way back: asks the relay until the agent's signed receipt is here; only then the copies go.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use towpath_journal::{Again, LONGEST_TROUBLED_POLL, Lease, Order, Step, StepOutcome, TransferRecord};
use towpath_keys::{
    Namespace,
    chain::{Believes as _, Party},
};
use towpath_transfer::{
    Code, Direction, Failure, Stage, TransferEvent, TransferKey, TransferState,
    api::ExportStatus,
    digest::Sha256Digest,
    receipt::{Receipt, ReceiptStage, SignedReceipt},
    state::{Outcome, Place},
};

use super::{export, remove_copies};
use crate::{agent_keys, chain::Believed, kept, parts::Parts, uplink::verify::blocking};

/// The shortest pause between two questions; the longest is [`crate::parts::Limits::receipt_poll`].
pub const SHORTEST_POLL: Duration = Duration::from_millis(200);

/// The events of a transfer that the relay was told of once.
const EVENTS_ONCE: u64 = 2;

/// The stage. Return files wait as long as their agent is away, and each is asked for again and again: they have a driver of their own,
/// beside that of the [decisions](crate::uplink::receipt) that are handed over, and every one has its turn.
#[derive(Debug, Clone)]
pub struct Awaited(pub Arc<Parts>);

#[async_trait]
impl Step for Awaited {
    fn place(&self) -> Place {
        Place::Receiver
    }

    fn stage(&self) -> Stage {
        Stage::Receipt
    }

    fn direction(&self) -> Option<Direction> {
        Some(Direction::Downlink)
    }

    fn order(&self) -> Order {
        Order::Due
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        ask(&self.0, lease).await
    }
}

/// Asks once how a transfer stands that the relay was told of.
///
/// # Errors
/// `receipt-invalid` (park) for a receipt that must not be believed; `agent-unapproved` (park) where the agent is not believed any
/// more; what holds the transfer up on the relay, so that it is seen here; those of relay and disk.
pub async fn ask(parts: &Arc<Parts>, lease: &Lease) -> Result<StepOutcome, Failure> {
    let TransferState::Notified { manifest } = lease.record.state else {
        return Err(Failure::park(Code::Internal, format!("transfer {} waits for no receipt", lease.key())));
    };
    let key = lease.key();
    // Ended before, and stopped before the journal knew; by now the relay may have forgotten it.
    let (reader, of) = (Arc::clone(parts), key.clone());
    if let Some(outcome) = blocking(move || ended_before(&reader, &of, manifest)).await? {
        return settle(parts, &lease.record, manifest, outcome).await;
    }
    let status = match parts.relay.export_status(&key.agent, key.id).await {
        Err(failure) if failure.code() == Code::NotFound => {
            let why = "the relay does not know the transfer any more";
            let again = Again { event: TransferEvent::NotifyAgain, events_once: EVENTS_ONCE, code: Code::NotFound, why };
            return again.step(lease, parts.clock.now());
        }
        answered => answered?,
    };
    if status.transfer != key.id {
        let told = format!("asked for transfer {}, the relay answered for {}", key.id, status.transfer);
        return Err(Failure::retry(Code::RelayProtocol, told));
    }
    let take = || {
        let (taker, of, receipts) = (Arc::clone(parts), key.clone(), status.receipts.clone());
        blocking(move || take_receipts(&taker, &of, &receipts, manifest))
    };
    let taken = match take().await {
        // The agent may have changed its key since it was approved. Where nothing is left to be approved, another transfer may have
        // seen to that just now, so it is looked at once more in any case.
        Err(failure) if agent_keys::may_follow(&failure) => {
            agent_keys::follow(parts, &key.agent).await?;
            take().await
        }
        taken => taken,
    };
    if let Some(outcome) = taken? {
        return settle(parts, &lease.record, manifest, outcome).await;
    }
    match trouble(parts, lease, &status) {
        None => Ok(StepOutcome::Wait(pause(parts, lease))),
        Some(failure) => {
            if failure.code() == Code::ExportMissing {
                let (mender, record) = (Arc::clone(parts), lease.record.clone());
                blocking(move || export::restore(&mender, &record, manifest)).await?;
            }
            Err(failure)
        }
    }
}

/// Keeps the manifest beside the receipts and removes the copies: from here on the agent answers for the files. What was laid out
/// may have been changed since the relay fetched it; then the manifest is made again from the copies, which are still here.
async fn settle(
    parts: &Arc<Parts>,
    record: &TransferRecord,
    promised: Sha256Digest,
    outcome: Outcome,
) -> Result<StepOutcome, Failure> {
    let (parts, record) = (Arc::clone(parts), record.clone());
    blocking(move || {
        let (files, key) = (&*parts.files, &record.key);
        // A disk that cannot be read now is tried again: without the copies, which may be gone already, nothing can be made anew.
        let kept_before = kept::manifest(files, &parts.layout.receipts(key))?;
        if kept_before.is_none_or(|(bytes, _)| Sha256Digest::of(&bytes) != promised) {
            export::restore(&parts, &record, promised)?;
            if let Some((bytes, signature)) = kept::manifest(files, &parts.layout.laid_out(key))? {
                kept::keep_manifest(files, &parts.layout, key, &bytes, &signature)?;
            }
        }
        // Without the copies nothing can be made again, so what was found beside the receipts must be durable before they go.
        kept::close(files, &parts.layout, key)?;
        remove_copies(&parts, key)
    })
    .await?;
    Ok(StepOutcome::Event(TransferEvent::Settled { outcome }))
}

/// How a transfer ended, by a receipt that is here already.
fn ended_before(parts: &Parts, key: &TransferKey, manifest: Sha256Digest) -> Result<Option<Outcome>, Failure> {
    for stage in [ReceiptStage::Delivered, ReceiptStage::Rejected] {
        if let Some(signed) = kept::receipt(&*parts.files, &parts.layout, key, stage)? {
            return Ok(believe(&Believed::of(parts, &key.agent)?, key, &signed, manifest)?.outcome());
        }
    }
    Ok(None)
}

/// Looks at every receipt the relay has; keeps those that are good, and says how the transfer ended where one ends it.
fn take_receipts(
    parts: &Parts,
    key: &TransferKey,
    receipts: &[SignedReceipt],
    manifest: Sha256Digest,
) -> Result<Option<Outcome>, Failure> {
    let mut ended = None;
    let mut good = Vec::new();
    let believed = Believed::of(parts, &key.agent)?;
    for signed in receipts {
        let receipt = believe(&believed, key, signed, manifest)?;
        if let Some(outcome) = receipt.outcome()
            && ended.replace(outcome.clone()).is_some_and(|before| before != outcome)
        {
            let told = format!("the relay has two receipts of transfer {key} that contradict each other");
            return Err(Failure::park(Code::ReceiptInvalid, told));
        }
        good.push((receipt.stage, signed));
    }
    for (stage, signed) in good {
        kept::keep_receipt(&*parts.files, &parts.layout, key, stage, signed)?;
    }
    Ok(ended)
}

/// Checks content, signature and signer of one receipt.
fn believe(believed: &Believed, key: &TransferKey, signed: &SignedReceipt, manifest: Sha256Digest) -> Result<Receipt, Failure> {
    let wrong = |why: &str| Failure::park(Code::ReceiptInvalid, format!("a receipt of transfer {key} was not believed: {why}"));
    let receipt = signed.parse().map_err(|e| wrong("it cannot be read").caused_by(e))?;
    let direction = Direction::Downlink;
    if receipt.key() != *key || receipt.direction != direction {
        return Err(wrong("it is of another transfer"));
    }
    let party = Party::of(direction, Some(receipt.stage));
    let (message, signature) = (signed.receipt.as_bytes(), signed.signature.as_bytes());
    let signer = believed.signer(party, Namespace::Receipt, message, signature).map_err(|why| match why.code() {
        Code::AgentUnapproved => why,
        _ => wrong("its signature is not by the one who should have signed").caused_by(why),
    })?;
    if receipt.signer != signer.key.fingerprint() {
        return Err(wrong(&format!("it names {} as its signer, and {} has signed", receipt.signer, signer.key.fingerprint())));
    }
    match receipt.manifest {
        Some(digest) if digest == manifest => Ok(receipt),
        // An agent that was given something else says so by rejecting it; that is no lie about our manifest.
        _ if receipt.stage == ReceiptStage::Rejected => Ok(receipt),
        _ => Err(wrong("it is for another manifest")),
    }
}

/// What holds the transfer up on the relay. It is mended there or by the agent, so it is asked for again, whoever must mend it.
fn trouble(parts: &Parts, lease: &Lease, status: &ExportStatus) -> Option<Failure> {
    let trouble = status.trouble.as_ref()?;
    let waits = if trouble.parked { ", which waits for the relay's operator" } else { "" };
    let told = format!("the relay reports at {}{waits}: {}", trouble.stage, trouble.detail);
    // While the relay reports trouble the pause grows with each question.
    let poll = parts.limits.receipt_poll;
    Some(
        Failure::retry(trouble.code, told)
            .after(poll.saturating_mul(lease.attempts().max(1)).min(LONGEST_TROUBLED_POLL.max(poll))),
    )
}

/// Asks often while a transfer is young and ever more seldom afterwards.
fn pause(parts: &Parts, lease: &Lease) -> Duration {
    let longest = parts.limits.receipt_poll;
    (lease.record.age(parts.clock.now()) / 4).clamp(SHORTEST_POLL.min(longest), longest)
}
