//! Import targets: where verified tables go. One database transaction per transfer, keyed by the transfer's id.
//!
//! What may be imported is decided by [`crate::uplink::import`]; a target only keeps the transaction and the ledger.

#[cfg(test)]
mod conformance;
mod ledger;
mod names;
mod postgres;
mod sqlite;

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use towpath_transfer::{
    AgentName, Code, Failure, JobName, Sequence, TenantName, TransferId,
    digest::Sha256Digest,
    manifest::{Column, Label, Mode, Table},
    public_key::Fingerprint,
    receipt::TableRows,
};

pub use postgres::PostgresTarget;
pub use sqlite::SqliteTarget;
#[cfg(test)]
pub(crate) use sqlite::query_texts;
pub use towpath_transfer::csv::{MAX_BATCH_BYTES, MAX_BATCH_ROWS, RowBatch};

/// How long an import waits for a lock of the app before it is tried again later.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// The schema an import writes into: one for each agent and job, and nothing outside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportScope {
    /// The agent whose key signed the manifest.
    pub agent: AgentName,
    /// The ERP company.
    pub job: JobName,
}

/// The receiver that a target imports for. Each schema belongs to the one that has imported into it first: of two that fill one,
/// each would replace the tables that the other has signed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The tenant that it serves.
    pub tenant: TenantName,
    /// Its key.
    pub receiver: Fingerprint,
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
    /// The columns of its unique index; empty where it has none.
    pub key: Vec<Label>,
    /// How that CSV went into the table: after [`Mode::Merge`] it is not the table's whole content.
    pub mode: Mode,
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
    /// Its tables, in the manifest's order.
    pub rows: Vec<TableRows>,
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
    /// A failure of disposition retry where the database does not answer or is locked; `app-taken` where the schema is another
    /// receiver's.
    async fn begin(&self, scope: &ImportScope, transfer: TransferId) -> Result<(Box<dyn Import>, Ledger), Failure>;

    /// Makes a schema this receiver's own, whosever it is. Returns whether it was another's.
    ///
    /// # Errors
    /// `not-found` where it is nobody's; else as [`ImportTarget::begin`].
    async fn adopt(&self, scope: &ImportScope) -> Result<bool, Failure>;
}

/// What becomes of the rows that a table has when its import begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldRows {
    /// They go: the table is what is inserted.
    Removed,
    /// They stay, and what is inserted is merged into them by key.
    Kept,
}

/// An open transaction. Dropped without [`Import::commit`], nothing of it has happened.
///
/// Tables and keys are filled one after the other: [`Import::start_table`] or [`Import::start_keys`], any number of
/// [`Import::insert`], and the `finish` that belongs to the start.
#[async_trait]
pub trait Import: Debug + Send {
    /// Takes rows for `table` from here on, by its mode and key. Its old rows are removed or kept; where they are removed, a table
    /// whose columns differ from `old` is made anew. It has a unique index on its key, and none of ours where it has no key.
    ///
    /// # Errors
    /// `import-refused` where a table of that name exists that this program has not made, or the database has no place for such a
    /// table; `base-missing` where rows are to be kept and there is no such table; database errors.
    async fn start_table(&mut self, table: &Table, old: Option<&TableState>, rows: OldRows) -> Result<(), Failure>;

    /// Takes the keys of all rows that a finished table may keep. `keys` has the table's name, and the key's columns.
    ///
    /// # Errors
    /// Database errors.
    async fn start_keys(&mut self, keys: &Table) -> Result<(), Failure>;

    /// Inserts rows into what was started. Values have been checked against their types.
    ///
    /// # Errors
    /// `content-invalid` where two rows have one key and are not merged; `import-refused` where the database has no such value;
    /// database errors.
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

    /// Ends the started keys: deletes every row of their table whose key is not among them, counts those that are left and notes
    /// their number in the ledger.
    ///
    /// # Errors
    /// Database errors.
    async fn finish_keys(&mut self) -> Result<u64, Failure>;

    /// Notes the transfer in the ledger and makes everything durable.
    ///
    /// # Errors
    /// Database errors; then nothing has happened, or, where the answer was lost, everything: the next
    /// [`ImportTarget::begin`] tells.
    async fn commit(self: Box<Self>, record: &ImportRecord) -> Result<(), Failure>;
}

fn no_table(what: &str) -> Failure {
    Failure::park(Code::Internal, format!("{what} without a started table"))
}

fn no_base(table: &Label) -> Failure {
    Failure::park(Code::BaseMissing, format!("rows are to be merged into table {table}, and there is no such table"))
}

fn not_ours(table: &Label, shown: &str) -> Failure {
    Failure::park(Code::ImportRefused, format!("{shown} already has a {:?} that Towpath has not made", table.as_str()))
}

fn two_of_one_key(table: &Label, key: &[Label]) -> Failure {
    let columns: Vec<&str> = key.iter().map(Label::as_str).collect();
    Failure::park(Code::ContentInvalid, format!("table {table} has two rows with the same key ({})", columns.join(", ")))
}
