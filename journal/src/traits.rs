//! The contract of every journal.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use towpath_transfer::{
    AgentName, Direction, Sequence, Stage, TenantName, TransferEvent, TransferKey, TransferState, state::Place,
};

use crate::{
    error::{JournalError, Result},
    prune::Prune,
    record::{Count, Created, Filter, History, Lease, NewTransfer, Release, TransferRecord, Wanted},
};

/// The most leases one call hands out; a larger limit means this one.
pub const MAX_ACQUIRE: usize = 1_000;
/// The most records one listing returns; a larger limit means this one.
pub const MAX_LIST: usize = 1_000;
/// The most transfers one call prunes; a larger limit means this one.
pub const MAX_PRUNE: usize = 1_000;

/// A durable journal of the transfers of one machine.
///
/// # Contract
/// * Every method is one transaction: it has happened whole or not at all. When it returns `Ok`, what it changed is on
///   stable storage and survives a power cut. When it returns an error of storage, it may still have happened (a lost
///   acknowledgement): the caller reads again, or relies on the next paragraph.
/// * Repeating is safe: `create` is idempotent by key; a repeated `append` is refused as [`JournalError::Conflict`];
///   `release`, `renew` and `unpark` may be repeated.
/// * At most one lease on a transfer is good. It is taken over only after its expiry, or by [`Journal::break_leases`].
/// * A record's state is always the replay of its events over its start ([`verify`]).
/// * Times come from the journal's clock and are cut to microseconds. A wall clock that was turned back by more than
///   [`crate::CLOCK_TOLERANCE`] voids pending pauses and leases rather than stretch them.
#[async_trait]
pub trait Journal: Debug + Send + Sync {
    /// The machine whose journal this is.
    fn place(&self) -> Place;

    /// Creates a transfer; where one with the same key exists, or for [`crate::SequenceChoice::NextOfJob`] an open one of the same job,
    /// returns that one unchanged.
    ///
    /// # Errors
    /// [`JournalError::SequenceForked`] where another transfer of the same tenant, agent and direction has, or once
    /// had, the given sequence number.
    async fn create(&self, new: NewTransfer) -> Result<Created>;

    /// Leases transfers that are wanted, due and not parked. `ttl` is cut to [`crate::MAX_PAUSE`].
    ///
    /// # Errors
    /// Storage.
    async fn acquire_wanted(&self, wanted: &Wanted, limit: usize, ttl: Duration) -> Result<Vec<Lease>>;

    /// Leases whatever waits for `stage`, in order of creation.
    ///
    /// # Errors
    /// Storage.
    async fn acquire(&self, stage: Stage, limit: usize, ttl: Duration) -> Result<Vec<Lease>> {
        self.acquire_wanted(&Wanted::of(stage), limit, ttl).await
    }

    /// Makes a lease last for `ttl` from now and returns its new end.
    ///
    /// # Errors
    /// [`JournalError::LeaseLost`], [`JournalError::NotFound`].
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Timestamp>;

    /// Appends what came of leased work. `expected` is the number of events the holder knows. The transfer stays
    /// leased; its attempts, pause and last failure start afresh.
    ///
    /// # Errors
    /// [`JournalError::LeaseLost`], [`JournalError::Conflict`], [`JournalError::Illegal`], [`JournalError::Limit`],
    /// [`JournalError::NotFound`].
    async fn append(&self, lease: &Lease, expected: u64, event: &TransferEvent) -> Result<TransferRecord>;

    /// Appends what a message said. A running lease stays, and its holder learns of it as a conflict; a parked transfer
    /// is parked no more, for it has left the stage it was parked in.
    ///
    /// # Errors
    /// As [`Journal::append`], without `LeaseLost`.
    async fn append_unleased(&self, key: &TransferKey, expected: u64, event: &TransferEvent) -> Result<TransferRecord>;

    /// Ends a lease. A pause beyond [`crate::MAX_PAUSE`] is cut to that.
    ///
    /// # Errors
    /// [`JournalError::LeaseLost`] where another worker has the transfer by now, [`JournalError::NotFound`].
    async fn release(&self, lease: &Lease, how: Release) -> Result<()>;

    /// Makes a parked or pausing transfer due at once, with its attempts at zero. Its last failure stays until it gets
    /// further.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    async fn unpark(&self, key: &TransferKey) -> Result<TransferRecord>;

    /// Ends every lease and returns how many there were. Only for the process that owns the journal, once, when it
    /// starts: whoever held them is gone, and nothing need wait for their expiry.
    ///
    /// # Errors
    /// Storage.
    async fn break_leases(&self) -> Result<u64>;

    /// A transfer, where there is one.
    ///
    /// # Errors
    /// Storage.
    async fn get(&self, key: &TransferKey) -> Result<Option<TransferRecord>>;

    /// Transfers that agree with `filter`, newest first, at most [`MAX_LIST`]. The next page is what comes `before` the
    /// serial of the last.
    ///
    /// # Errors
    /// Storage.
    async fn list(&self, filter: &Filter, limit: usize, before: Option<u64>) -> Result<Vec<TransferRecord>>;

    /// Everything that happened to a transfer.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    async fn history(&self, key: &TransferKey) -> Result<History>;

    /// The highest sequence number ever seen of a tenant, agent and direction, also of transfers pruned since.
    ///
    /// # Errors
    /// Storage.
    async fn last_sequence(&self, tenant: &TenantName, agent: &AgentName, direction: Direction) -> Result<Option<Sequence>>;

    /// How many transfers stand alike, sorted by state, stage and parked.
    ///
    /// # Errors
    /// Storage.
    async fn counts(&self) -> Result<Vec<Count>>;

    /// Forgets a transfer to which nothing has happened yet and on which nobody works. Its number is free again, unless a transfer with
    /// the same or a higher one was pruned since. Returns whether there was one.
    ///
    /// # Errors
    /// Storage.
    async fn withdraw(&self, key: &TransferKey) -> Result<bool>;

    /// Puts `new` in the place of the transfer with its key, to which nothing has happened yet and on which nobody works. The number
    /// that it has may be given again. Returns whether there was one.
    ///
    /// # Errors
    /// [`JournalError::SequenceForked`] as [`Journal::create`]; then it stays as it was.
    async fn begin_anew(&self, new: NewTransfer) -> Result<bool>;

    /// Removes what `what` names, oldest first. Returns how many went; call again while that is its limit.
    ///
    /// # Errors
    /// Storage.
    async fn prune(&self, what: &Prune) -> Result<u64>;

    /// Whether the journal can be read and written now.
    ///
    /// # Errors
    /// Storage.
    async fn health(&self) -> Result<()>;
}

/// Replays a transfer's events and compares the outcome with its record.
///
/// # Errors
/// A storage failure of disposition park where they differ; [`JournalError::NotFound`]; storage. A transfer that gets
/// an event during the check is read again.
pub async fn verify(journal: &dyn Journal, key: &TransferKey) -> Result<()> {
    /// How often a transfer that moves during the check is read.
    const READS: usize = 16;
    let mut last = None;
    for _ in 0..READS {
        let history = journal.history(key).await?;
        let record = journal.get(key).await?.ok_or_else(|| JournalError::NotFound(Box::new(key.clone())))?;
        if last.as_ref() == Some(&record) {
            break;
        }
        let problem = match replay(&history) {
            Ok(state) if state == record.state && history.entries.len() as u64 == record.events => return Ok(()),
            Ok(_) => JournalError::corrupt(format!("the events of transfer {key} do not lead to the state it is recorded in")),
            Err(problem) => JournalError::corrupt(format!("the events of transfer {key} cannot be replayed: {problem}")),
        };
        if history.entries.len() as u64 == record.events {
            return Err(problem);
        }
        last = Some(record);
    }
    Err(JournalError::corrupt(format!("transfer {key} is recorded with another number of events than it has")))
}

fn replay(history: &History) -> Result<TransferState, String> {
    let mut state = history.start.clone();
    for (expected, entry) in (0u64..).zip(&history.entries) {
        if entry.seq != expected {
            return Err(format!("event {expected} is missing"));
        }
        state = state.apply(&entry.event).map_err(|e| e.to_string())?;
    }
    Ok(state)
}
