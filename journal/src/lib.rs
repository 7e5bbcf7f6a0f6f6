//! The durable journal of transfers: what has happened to each, who works on it, and when it is due again.
//!
//! A program writes every step of a transfer's life here *after* the step's effect and *before* anything that builds on
//! it, so that a program that is stopped at any point goes on where it stood. The order is always the same: an
//! idempotent effect, [`Journal::append`], [`Journal::release`]. Work happens outside the journal's transactions, under
//! a [`Lease`]; a lease that was lost cannot append.
//!
//! * [`Journal`] is the contract; [`SqliteJournal`] keeps it on disk, [`MemoryJournal`] in a simulation,
//!   [`FaultJournal`] breaks it on purpose. The suite in `conformance` holds all of them to the same contract.
//! * [`StageDriver`] is the only thing that loops, leases, appends, retries and backs off. A stage of a program is one
//!   [`Step`].
//! * [`MachineBinding`] notices that a journal was copied to another machine.

#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod conformance;
mod driver;
mod error;
#[cfg(feature = "failpoints")]
pub mod failpoints;
mod fault;
mod log;
mod machine;
mod memory;
mod prune;
mod record;
mod row;
mod sequences;
mod sqlite;
pub mod system;
mod traits;

pub use driver::{
    Again, Backoff, DriverSettings, FailPoints, LONGEST_PAUSE, LONGEST_TROUBLED_POLL, NoFailPoints, NoObserver, Observer, Point,
    StageDriver, StageReport, StageResult, Step, StepOutcome, Turn, WakeUp,
};
pub use error::{JournalError, Result};
pub use fault::{Fault, FaultJournal, FaultPlan, Operation};
pub use log::LogObserver;
pub use machine::MachineBinding;
pub use memory::MemoryJournal;
pub use prune::{Prune, Spent};
pub use record::{
    Count, Created, Filter, History, HistoryEntry, Lease, LeaseToken, NewTransfer, Order, Release, SequenceChoice, Sharer,
    TransferRecord, Wanted,
};
pub use row::{CLOCK_TOLERANCE, MAX_EVENT_BYTES, MAX_EVENTS, MAX_PAUSE};
pub use sqlite::{SqliteJournal, is_usable};
pub use traits::{Journal, MAX_ACQUIRE, MAX_LIST, MAX_PRUNE, verify};
