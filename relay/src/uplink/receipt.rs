//! Receipt: the receiver says how a transfer has ended, signed; the relay keeps that for the agent and ends the transfer.

use std::sync::Arc;

use towpath_journal::Journal;
use towpath_transfer::{Direction, api::AppReceipt, failure::Result};

use crate::{
    scope::Caller,
    settle::{self, Posted},
    spool::Spool,
};

/// Takes a receiver's receipt. Idempotent: the same receipt may come any number of times.
///
/// # Errors
/// [`towpath_transfer::Code::NotFound`] where there is no such uplink in the receiver's tenant;
/// [`towpath_transfer::Code::ReceiptInvalid`] where the receipt is not signed by the receiver, does not fit the transfer, or
/// contradicts an earlier receipt.
pub async fn settle(spool: &Arc<Spool>, journal: &dyn Journal, caller: &Caller, posted: &AppReceipt) -> Result<()> {
    let scope = caller.as_receiver()?.agent(posted.agent.clone());
    let (direction, id, signed) = (Direction::Uplink, posted.transfer, &posted.signed);
    settle::settle(spool, journal, &Posted { direction, scope, id, signers: caller.keys(), signed }).await
}
