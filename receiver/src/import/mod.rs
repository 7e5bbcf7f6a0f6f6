//! Import targets: where verified tables go. One database transaction per transfer, keyed by the transfer's id.
//!
//! What may be imported is decided by [`crate::uplink::import`]; a target only keeps the transaction and the ledger.

mod sqlite;

use std::{collections::BTreeMap, fmt::Debug};

use async_trait::async_trait;
use jiff::Timestamp;
use towpath_transfer::{
    AgentName, Failure, JobName, Sequence, TransferId,
    digest::Sha256Digest,
    manifest::{Column, Label, Table},
};

pub use sqlite::SqliteTarget;
#[cfg(test)]
pub(crate) use sqlite::query_texts;
pub use towpath_transfer::csv::{MAX_BATCH_BYTES, MAX_BATCH_ROWS, RowBatch};

/// The schema an import writes into: one for each agent and job, and nothing outside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportScope {
    /// The agent whose key signed the manifest.
    pub agent: AgentName,
    /// The ERP company.
    pub job: JobName,
}

/// What the ledger says of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableState {
    /// The transfer that brought its present content.
    pub transfer: TransferId,
    /// SHA-256 of the CSV it was filled from.
    pub sha256: Sha256Digest,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows.
    pub rows: u64,
}

/// A transfer that was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRecord {
    /// The transfer.
    pub transfer: TransferId,
    /// Its sequence number.
    pub sequence: Sequence,
    /// SHA-256 of its manifest.
    pub manifest: Sha256Digest,
    /// When it was imported.
    pub imported: Timestamp,
    /// The rows of each of its tables, in the manifest's order.
    pub rows: Vec<(Label, u64)>,
}

/// What a schema holds at the start of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The transfer at hand, where it was imported before.
    pub this: Option<ImportRecord>,
    /// The highest sequence number imported so far.
    pub last_sequence: Option<Sequence>,
    /// The tables this program has made.
    pub tables: BTreeMap<Label, TableState>,
}

/// A database that tables are imported into.
#[async_trait]
pub trait ImportTarget: Debug + Send + Sync {
    /// Opens the one transaction of an import and reads the ledger for `transfer` inside it.
    ///
    /// # Errors
    /// A failure of disposition retry where the database does not answer or is locked.
    async fn begin(&self, scope: &ImportScope, transfer: TransferId) -> Result<(Box<dyn Import>, Ledger), Failure>;
}

/// An open transaction. Dropped without [`Import::commit`], nothing of it has happened.
#[async_trait]
pub trait Import: Debug + Send {
    /// Empties `table`, or makes it anew where its columns differ from `old`, and takes rows for it from here on.
    ///
    /// # Errors
    /// `import-refused` where a table of that name exists that this program has not made; database errors.
    async fn start_table(&mut self, table: &Table, old: Option<&TableState>) -> Result<(), Failure>;

    /// Inserts rows into the started table. Values have been checked against their types.
    ///
    /// # Errors
    /// Database errors, and a value that does not fit after all.
    async fn insert(&mut self, batch: RowBatch) -> Result<(), Failure>;

    /// The rows of a table as they are in the database now; `None` where there is no such table.
    ///
    /// # Errors
    /// Database errors.
    async fn count_table(&mut self, table: &Label) -> Result<Option<u64>, Failure>;

    /// Ends the started table: counts its rows in the database and notes what it holds in the ledger.
    ///
    /// # Errors
    /// Database errors.
    async fn finish_table(&mut self, transfer: TransferId, sha256: Sha256Digest) -> Result<u64, Failure>;

    /// Notes the transfer in the ledger and makes everything durable.
    ///
    /// # Errors
    /// Database errors; then nothing has happened, or, where the answer was lost, everything: the next
    /// [`ImportTarget::begin`] tells.
    async fn commit(self: Box<Self>, record: &ImportRecord) -> Result<(), Failure>;
}
