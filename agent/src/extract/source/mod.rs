//! Where rows come from: the seam behind which every kind of ERP database stands.
//!
//! A source is opened once for each extract and then reads all tables in one state of the database. It hands out
//! values as its database holds them ([`Value`]); the rest of the extract turns them into the text of the wire, so
//! that every source has the same rules. A second opinion on rows and sums comes from the database itself.

mod batch;
pub(super) mod sqlite;

#[cfg(test)]
mod conformance;

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{
    Clock, Failure,
    decimal::Decimal,
    manifest::{Column, Snapshot, SqlType},
};

pub(super) use self::batch::Feed;
pub use self::batch::{BATCH_BYTES, BATCH_VALUES, BATCHES_WAITING, RowBatch, RowSink, Value, Values};
use crate::config::{SourceConfig, TableConfig};

/// A database that can be read.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// Connects and takes one read-only snapshot that every later call reads from. What is under way ends soon after
    /// `cancel` is cancelled.
    ///
    /// # Errors
    /// `erp-missing` and `erp-locked` (retry), `erp-query` where what is there is no database of this kind.
    async fn open(&self, cancel: &CancellationToken) -> Result<Box<dyn SourceSnapshot>, Failure>;
}

/// One state of the whole database. Calls do not overlap; dropping it ends the snapshot.
#[async_trait]
pub trait SourceSnapshot: Debug + Send {
    /// How the snapshot was taken, for the manifest.
    fn snapshot(&self) -> Snapshot;

    /// The columns of a table or query, in order, with the types that the database tells. Reads no rows.
    ///
    /// # Errors
    /// `erp-query` naming the table where it is missing or its query is wrong.
    async fn columns(&mut self, table: &TableConfig) -> Result<Vec<SourceColumn>, Failure>;

    /// Every row of a table or query. For each, as many values as `columns` go into `sink`, then [`RowSink::end_row`];
    /// an error of the sink is passed on as it is.
    ///
    /// # Errors
    /// As [`SourceSnapshot::columns`], and what the sink reports.
    async fn rows(&mut self, table: &TableConfig, columns: &[Column], sink: &mut RowSink) -> Result<(), Failure>;

    /// Rows, values and sums as the database itself counts them, computed without going through the rows of
    /// [`SourceSnapshot::rows`] and without rounding.
    ///
    /// # Errors
    /// As [`SourceSnapshot::columns`].
    async fn totals(&mut self, table: &TableConfig, columns: &[Column]) -> Result<TableTotals, Failure>;
}

/// A column as the source knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceColumn {
    /// Its name, in the database's own writing.
    pub name: String,
    /// The type that the database tells; the configuration may say another.
    pub sql_type: SqlType,
    /// Whether NULL may occur.
    pub nullable: bool,
}

/// Rows of a table, and count and sum of each column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableTotals {
    /// How many rows there are.
    pub rows: u64,
    /// One for each column, in order.
    pub columns: Vec<ColumnTotals>,
}

/// Count and sum of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnTotals {
    /// How many values are not NULL.
    pub count: u64,
    /// Their exact sum, normalised; only for the types that have one ([`SqlType::has_total`]).
    pub sum: Option<Decimal>,
}

/// The source that a job's configuration names.
#[must_use]
pub fn source_of(config: &SourceConfig, clock: Arc<dyn Clock>) -> Arc<dyn Source> {
    match config {
        SourceConfig::Sqlite { path, busy_timeout } => {
            Arc::new(sqlite::SqliteSource::new(path.clone(), busy_timeout.unwrap_or(crate::config::DEFAULT_BUSY_TIMEOUT), clock))
        }
    }
}
