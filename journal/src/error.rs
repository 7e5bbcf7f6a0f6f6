//! What can go wrong at the journal, told apart as far as callers act differently.

use thiserror::Error;
use towpath_transfer::{Code, Direction, Failure, Sequence, TransferKey, state::IllegalTransition};

/// The result of a journal operation.
pub type Result<T, E = JournalError> = std::result::Result<T, E>;

/// Why a journal operation did not happen. Converts into a [`Failure`] with code and disposition.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The journal has no such transfer.
    #[error("there is no transfer {0} in the journal")]
    NotFound(Box<TransferKey>),
    /// Another worker holds the transfer by now; whatever this one did, it may not append.
    #[error("the lease on transfer {0} was lost to another worker")]
    LeaseLost(Box<TransferKey>),
    /// The transfer has other events than the caller knew. Read it again and decide anew.
    #[error("transfer {key} has {actual} events, not {expected}: something else has happened to it")]
    Conflict {
        /// The transfer.
        key: Box<TransferKey>,
        /// What the caller knew.
        expected: u64,
        /// What the journal has.
        actual: u64,
    },
    /// The event cannot follow the state the transfer is in.
    #[error("an event of transfer {key} was refused")]
    Illegal {
        /// The transfer.
        key: Box<TransferKey>,
        /// Which event and which state.
        #[source]
        source: IllegalTransition,
    },
    /// Another transfer of the same agent and direction has this sequence number.
    #[error("sequence {sequence} of {direction} transfers of {tenant}/{agent} was used before, so {id} cannot have it",
            tenant = key.tenant, agent = key.agent, id = key.id)]
    SequenceForked {
        /// The transfer that asked for the number.
        key: Box<TransferKey>,
        /// Its direction.
        direction: Direction,
        /// The number.
        sequence: Sequence,
    },
    /// A limit of the journal was exceeded.
    #[error("{what} of transfer {key} exceeds the limit of {limit}")]
    Limit {
        /// The transfer.
        key: Box<TransferKey>,
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// The journal belongs to another machine.
    #[error("the journal was written on another machine: this host is a copy, or the journal was moved")]
    HostMoved,
    /// The storage below failed, or holds what this program cannot read.
    #[error("{0}")]
    Storage(
        /// What was tried, and the cause.
        #[source]
        Failure,
    ),
}

impl JournalError {
    /// The operator error code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::LeaseLost(_) | Self::Conflict { .. } => Code::JournalFailed,
            Self::Illegal { .. } => Code::Internal,
            Self::SequenceForked { .. } => Code::SequenceForked,
            Self::Limit { .. } => Code::LimitExceeded,
            Self::HostMoved => Code::HostMoved,
            Self::Storage(failure) => failure.code(),
        }
    }

    /// Storage that may answer the next time.
    pub(crate) fn storage(message: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Storage(Failure::retry(Code::JournalFailed, message).caused_by(source))
    }

    /// Storage whose content a person has to look at.
    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::Storage(Failure::park(Code::JournalFailed, message))
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let (code, message) = (error.code(), error.to_string());
        match error {
            JournalError::Storage(failure) => failure,
            JournalError::LeaseLost(_) | JournalError::Conflict { .. } => Self::retry(code, message),
            JournalError::Illegal { source, .. } => Self::park(code, message).caused_by(source),
            JournalError::NotFound(_)
            | JournalError::SequenceForked { .. }
            | JournalError::Limit { .. }
            | JournalError::HostMoved => Self::park(code, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::Disposition;

    use super::*;

    #[test]
    fn a_storage_failure_keeps_its_code_and_cause() {
        let error = JournalError::storage("write the journal", std::io::Error::other("no space"));
        let failure = Failure::from(error);
        assert_eq!(failure.report(), "write the journal: no space [journal-failed]");
        assert_eq!(failure.disposition(), Disposition::Retry);
    }

    #[test]
    fn a_moved_host_is_for_a_person() {
        let failure = Failure::from(JournalError::HostMoved);
        assert_eq!((failure.code(), failure.disposition()), (Code::HostMoved, Disposition::Park));
    }
}
