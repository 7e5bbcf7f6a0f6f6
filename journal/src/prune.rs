//! Which transfers a journal forgets.

use jiff::Timestamp;
use towpath_transfer::{Direction, TenantName, TransferState};

use crate::record::TransferRecord;

/// Which transfers have nothing more to do here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// Those that are over ([`TransferRecord::is_over`]). Their sequence numbers stay used.
    Over,
    /// Those that wait for files from their sender, who may have gone for ever, and are not leased. Whoever comes back begins such a
    /// transfer again, under the same number.
    Incomplete,
}

impl Spent {
    /// Whether a record is one of them.
    #[must_use]
    pub fn matches(self, record: &TransferRecord) -> bool {
        match self {
            Self::Over => record.is_over(),
            Self::Incomplete => matches!(record.state, TransferState::Incomplete { .. }),
        }
    }
}

/// What [`crate::Journal::prune`] removes: transfers that are spent and unchanged since before a time, but for the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prune {
    /// Of this tenant alone; without one of all together.
    pub tenant: Option<TenantName>,
    /// Which of them.
    pub spent: Spent,
    /// Unchanged since before this time.
    pub older_than: Timestamp,
    /// So many of those that are spent stay, the newest.
    pub keep: u64,
    /// At most so many at once, up to [`crate::MAX_PRUNE`].
    pub limit: usize,
    /// The serials of those that stay whatever comes after them.
    pub spared: Vec<u64>,
    /// Of this direction alone; of both where absent. Not for [`Spent::Incomplete`], which only uplinks are.
    pub direction: Option<Direction>,
}

impl Prune {
    /// Transfers that are over, of all tenants, as many at once as may be.
    #[must_use]
    pub fn over(older_than: Timestamp, keep: u64) -> Self {
        Self { tenant: None, spent: Spent::Over, older_than, keep, limit: crate::MAX_PRUNE, spared: Vec::new(), direction: None }
    }

    /// The same of one direction alone.
    #[must_use]
    pub fn travelling(self, direction: Direction) -> Self {
        Self { direction: Some(direction), ..self }
    }

    /// The same for one tenant alone.
    #[must_use]
    pub fn of(self, tenant: &TenantName) -> Self {
        Self { tenant: Some(tenant.clone()), ..self }
    }

    /// Without the transfers that have these serials.
    #[must_use]
    pub fn sparing(self, spared: Vec<u64>) -> Self {
        Self { spared, ..self }
    }

    /// Transfers that wait for files from their sender instead.
    #[must_use]
    pub fn incomplete(self) -> Self {
        Self { spent: Spent::Incomplete, ..self }
    }
}
