//! Acknowledge: the agent says how a downlink has ended, signed; the relay keeps that for the receiver and ends the transfer.

use std::sync::Arc;

use towpath_journal::Journal;
use towpath_transfer::{Direction, TransferId, api::Acknowledgement, failure::Result};

use crate::{
    scope::Caller,
    settle::{self, Posted},
    spool::Spool,
};

/// Takes an agent's receipt for a downlink that was queued for it. Idempotent: the same receipt may come any number of times.
///
/// # Errors
/// [`towpath_transfer::Code::NotFound`] where the agent has no such downlink; [`towpath_transfer::Code::ReceiptInvalid`] where the
/// receipt is not signed by the agent, does not fit what was queued, or contradicts an earlier receipt.
pub async fn settle(
    spool: &Arc<Spool>,
    journal: &dyn Journal,
    caller: &Caller,
    id: TransferId,
    posted: &Acknowledgement,
) -> Result<()> {
    let (direction, scope, signed) = (Direction::Downlink, caller.as_agent()?, &posted.signed);
    settle::settle(spool, journal, &Posted { direction, scope, id, signers: caller.keys(), signed }).await
}
