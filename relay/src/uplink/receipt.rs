//! Receipt: the receiver says how a transfer has ended, signed; the relay keeps that for the agent and ends the transfer.

use std::sync::Arc;

use towpath_journal::{Journal, JournalError, TransferRecord};
use towpath_keys::{Namespace, PublicKey};
use towpath_transfer::{
    Code, Direction, Failure, TransferEvent, TransferKey, TransferState,
    api::AppReceipt,
    failure::Result,
    receipt::{ReceiptStage, SignedReceipt},
    state::Outcome,
};

use crate::{
    scope::{AgentScope, Caller, not_found},
    spool::{Spool, blocking},
};

/// How often the journal is asked again where something else happens to the transfer at the same time.
const TRIES: usize = 8;

/// Takes a receiver's receipt. Idempotent: the same receipt may come any number of times.
///
/// # Errors
/// [`Code::NotFound`] where there is no such transfer in the receiver's tenant; [`Code::ReceiptInvalid`] where it is not
/// signed by the receiver, does not fit the transfer, or contradicts an earlier receipt.
pub async fn settle(spool: &Arc<Spool>, journal: &dyn Journal, caller: &Caller, posted: &AppReceipt) -> Result<()> {
    let scope = caller.as_receiver()?.agent(posted.agent.clone());
    let key = scope.key(posted.transfer);
    for _ in 0..TRIES {
        let record = journal.get(&key).await.map_err(Failure::from)?.ok_or_else(not_found)?;
        let outcome = check(caller, &record, posted)?;
        if let Some(ended) = ended(&record.state) {
            return if ended == outcome { Ok(()) } else { Err(contradicted(&key)) };
        }
        keep(spool, &scope, posted, &outcome).await?;
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
    tracing::error!(transfer = %key, code = %Code::ReceiptInvalid, "a receiver contradicts its own receipt");
    refused("it contradicts an earlier receipt of the same transfer")
}

fn ended(state: &TransferState) -> Option<Outcome> {
    match state {
        TransferState::Imported => Some(Outcome::Imported),
        TransferState::Rejected { rejection } => Some(Outcome::Rejected(rejection.clone())),
        TransferState::Removed { outcome } => Some(outcome.clone()),
        _ => None,
    }
}

/// Whether the receipt is one of this receiver for this transfer, and how it says that the transfer has ended.
fn check(caller: &Caller, record: &TransferRecord, posted: &AppReceipt) -> Result<Outcome> {
    let receipt = posted.signed.parse().map_err(|e| refused("it is malformed").caused_by(e))?;
    if receipt.key() != record.key || receipt.direction != Direction::Uplink {
        return Err(refused("it is for another transfer"));
    }
    let outcome = receipt.outcome().ok_or_else(|| refused("it does not say how the transfer has ended"))?;
    if receipt.signer != caller.key().fingerprint() {
        return Err(refused("it names another signer"));
    }
    let key = PublicKey::try_from(caller.key())?;
    let signed =
        towpath_keys::verify(posted.signed.signature.as_bytes(), Namespace::Receipt, posted.signed.receipt.as_bytes(), &key);
    signed.map_err(|e| refused("its signature is wrong").caused_by(e))?;
    let identity = match &record.state {
        TransferState::Accepted { identity } | TransferState::Forwarded { identity } => Some(identity),
        state if ended(state).is_some() => None,
        _ => return Err(refused("the relay has not accepted the transfer itself yet")),
    };
    // A rejected manifest may be one that was altered on its way; an imported one cannot be.
    let other = identity.is_some_and(|identity| receipt.manifest != Some(identity.manifest));
    if other && outcome == Outcome::Imported {
        return Err(refused("it is for another manifest"));
    }
    Ok(outcome)
}

/// Keeps the receipt. What an earlier try has kept must say the same.
async fn keep(spool: &Arc<Spool>, scope: &AgentScope, posted: &AppReceipt, outcome: &Outcome) -> Result<()> {
    let (spool, scope, id) = (Arc::clone(spool), scope.clone(), posted.transfer);
    let (signed, outcome) = (posted.signed.clone(), outcome.clone());
    let stage = if outcome == Outcome::Imported { ReceiptStage::Imported } else { ReceiptStage::Rejected };
    blocking(move || {
        let says = |kept: &SignedReceipt| kept.parse().ok().and_then(|receipt| receipt.outcome());
        for earlier in [ReceiptStage::Imported, ReceiptStage::Rejected] {
            match spool.receipt(&scope, id, earlier)? {
                Some(kept) if says(&kept).as_ref() == Some(&outcome) => return Ok(()),
                Some(_) => return Err(contradicted(&scope.key(id))),
                None => {}
            }
        }
        spool.keep_receipt(&scope, id, stage, &signed)
    })
    .await?
}
