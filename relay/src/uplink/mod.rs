//! The relay's part of the way from the ERP to the app: accept, forward, and take the receipt back.

pub mod accept;
pub mod forward;
pub mod receipt;

#[cfg(test)]
mod tests;

use towpath_journal::Lease;
use towpath_transfer::{Code, Failure, TransferState, failure::Result, state::Identity};

/// What travels, of a transfer that was leased in the state of this word.
fn identity_of(lease: &Lease) -> Result<Identity> {
    match &lease.record.state {
        TransferState::Claimed { identity } | TransferState::Accepted { identity } => Ok(*identity),
        other => Err(Failure::park(Code::Internal, format!("a {} transfer was leased for a stage it is not in", other.word()))),
    }
}
