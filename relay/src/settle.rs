//! Settle: the end that a transfer was for says how it has ended, signed; the relay keeps that for the other end and ends the
//! transfer. The same both ways.

use std::sync::Arc;

use towpath_journal::{Journal, JournalError, TransferRecord};
use towpath_keys::{Namespace, PublicKey};
use towpath_transfer::{
    Code, Direction, Failure, TransferEvent, TransferId, TransferKey, TransferState,
    failure::Result,
    public_key::PublicKeyLine,
    receipt::{ReceiptStage, SignedReceipt},
    state::{Identity, Outcome},
};

use crate::{
    scope::{AgentScope, not_found},
    spool::{Spool, blocking},
};

/// How often the journal is asked again where something else happens to the transfer at the same time.
const TRIES: usize = 8;

/// A receipt that somebody has posted.
#[derive(Debug)]
pub(crate) struct Posted<'a> {
    /// Which way the transfer goes.
    pub(crate) direction: Direction,
    /// Whose transfer it is.
    pub(crate) scope: AgentScope,
    /// The transfer.
    pub(crate) id: TransferId,
    /// The keys of whoever posts it: it may have changed its key since it signed.
    pub(crate) signers: &'a [PublicKeyLine],
    /// The receipt.
    pub(crate) signed: &'a SignedReceipt,
}

/// Takes a receipt that ends a transfer. Idempotent: the same receipt may come any number of times.
///
/// # Errors
/// [`Code::NotFound`] where there is no such transfer of this direction, or it was not handed on yet; [`Code::ReceiptInvalid`] where the receipt is not
/// signed by one of `signers`, does not fit the transfer, or contradicts an earlier receipt.
pub(crate) async fn settle(spool: &Arc<Spool>, journal: &dyn Journal, posted: &Posted<'_>) -> Result<()> {
    let key = posted.scope.key(posted.id);
    for _ in 0..TRIES {
        let found = journal.get(&key).await.map_err(Failure::from)?;
        let record = found.filter(|record| record.direction == posted.direction).ok_or_else(not_found)?;
        let outcome = check(&record, posted)?;
        if let Some(ended) = ended(&record.state) {
            return if ended == outcome { Ok(()) } else { Err(contradicted(&key)) };
        }
        keep(spool, posted, &outcome).await?;
        match journal.append_unleased(&key, record.events, &TransferEvent::Settled { outcome }).await {
            Ok(_) => return Ok(()),
            Err(JournalError::Conflict { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(Failure::retry(Code::JournalFailed, format!("settle transfer {key}: it changes all the time")))
}

fn refused(why: &str) -> Failure {
    Failure::park(Code::ReceiptInvalid, format!("the receipt was not accepted: {why}"))
}

fn contradicted(key: &TransferKey) -> Failure {
    tracing::error!(transfer = %key, code = %Code::ReceiptInvalid, "an end contradicts its own receipt");
    refused("it contradicts an earlier receipt of the same transfer")
}

/// How a transfer has ended, where it has.
pub(crate) fn ended(state: &TransferState) -> Option<Outcome> {
    match state {
        TransferState::Imported => Some(Outcome::Imported),
        TransferState::Delivered => Some(Outcome::Delivered),
        TransferState::Rejected { rejection } => Some(Outcome::Rejected(rejection.clone())),
        TransferState::Removed { outcome } => Some(outcome.clone()),
        _ => None,
    }
}

/// The stage of the receipt that says so.
pub(crate) fn stage_of(outcome: &Outcome) -> ReceiptStage {
    match outcome {
        Outcome::Imported => ReceiptStage::Imported,
        Outcome::Delivered => ReceiptStage::Delivered,
        Outcome::Rejected(_) => ReceiptStage::Rejected,
    }
}

/// Whether the receipt is one of its signer for this transfer, and how it says that the transfer has ended.
fn check(record: &TransferRecord, posted: &Posted<'_>) -> Result<Outcome> {
    let receipt = posted.signed.parse().map_err(|e| refused("it is malformed").caused_by(e))?;
    if receipt.key() != record.key || receipt.direction != posted.direction {
        return Err(refused("it is for another transfer"));
    }
    let outcome = receipt.outcome().ok_or_else(|| refused("it does not say how the transfer has ended"))?;
    let signer = posted.signers.iter().find(|known| known.fingerprint() == receipt.signer);
    let key = PublicKey::try_from(signer.ok_or_else(|| refused("it names another signer"))?)?;
    let signed =
        towpath_keys::verify(posted.signed.signature.as_bytes(), Namespace::Receipt, posted.signed.receipt.as_bytes(), &key);
    signed.map_err(|e| refused("its signature is wrong").caused_by(e))?;
    let identity = handed_on(&record.state, posted.direction)?;
    // A rejected manifest may be one that was altered on the way to the app server. An agent has compared it with the offer.
    let exact = posted.direction == Direction::Downlink || outcome == Outcome::Imported;
    if exact && identity.is_some_and(|identity| receipt.manifest != Some(identity.manifest)) {
        return Err(refused("it is for another manifest"));
    }
    Ok(outcome)
}

/// What the relay has handed on; nothing where the transfer has ended already.
fn handed_on(state: &TransferState, direction: Direction) -> Result<Option<Identity>> {
    match (direction, state) {
        (Direction::Uplink, TransferState::Accepted { identity } | TransferState::Forwarded { identity })
        | (Direction::Downlink, TransferState::Queued { identity }) => Ok(Some(*identity)),
        _ if ended(state).is_some() => Ok(None),
        // A relay that was restored has it yet to come, as if it had never been here.
        _ => Err(not_found()),
    }
}

/// Keeps the receipt. What an earlier try has kept must say the same.
async fn keep(spool: &Arc<Spool>, posted: &Posted<'_>, outcome: &Outcome) -> Result<()> {
    let (spool, scope, id) = (Arc::clone(spool), posted.scope.clone(), posted.id);
    let (signed, outcome) = (posted.signed.clone(), outcome.clone());
    blocking(move || {
        let says = |kept: &SignedReceipt| kept.parse().ok().and_then(|receipt| receipt.outcome());
        for earlier in [ReceiptStage::Imported, ReceiptStage::Delivered, ReceiptStage::Rejected] {
            match spool.receipt(&scope, id, earlier)? {
                Some(kept) if says(&kept).as_ref() == Some(&outcome) => return spool.hold_receipt(&scope, id, earlier),
                Some(_) => return Err(contradicted(&scope.key(id))),
                None => {}
            }
        }
        spool.keep_receipt(&scope, id, stage_of(&outcome), &signed)
    })
    .await?
}
