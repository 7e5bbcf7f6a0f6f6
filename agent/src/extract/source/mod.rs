//! Where rows come from: the seam behind which every kind of ERP database stands.
//!
//! A source is opened once for each extract and then reads all tables in one state of the database. It hands out
//! values as its database holds them ([`Value`]); the rest of the extract turns them into the text of the wire, so
//! that every source has the same rules. A second opinion on rows and sums comes from the database itself.

mod batch;
pub mod files;
mod mariadb;
#[cfg(feature = "odbc")]
mod odbc;
mod postgres;
pub(super) mod select;
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
use towpath_transport::files::FileStore;

pub(super) use self::batch::Feed;
pub use self::batch::{BATCH_BYTES, BATCH_VALUES, BATCHES_WAITING, BYTES_WAITING, RowBatch, RowSink, Value, Values};
use crate::config::{JobConfig, SourceConfig, TableConfig};

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

/// One state of the whole database. Calls do not overlap; dropping it ends the snapshot. A call that was given up is the last one
/// but [`SourceSnapshot::close`].
#[async_trait]
pub trait SourceSnapshot: Debug + Send {
    /// How the snapshot was taken, for the manifest. Whether it is consistent is known once the columns of all tables are.
    fn snapshot(&self) -> Snapshot;

    /// What an administrator should know of the source though the extract goes on: a login that may write, tables that are not
    /// of the snapshot. Sentences for people; the same for each extract until somebody changes something.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// All columns of a table or query, in order, with the types that the database tells. Reads no rows.
    ///
    /// # Errors
    /// `erp-query` naming the table where it is missing or its query is wrong.
    async fn columns(&mut self, table: &TableConfig) -> Result<Vec<SourceColumn>, Failure>;

    /// Every row that `read` names. For each, as many values as columns go into `sink`, in their order, then
    /// [`RowSink::end_row`]; an error of the sink is passed on as it is.
    ///
    /// # Errors
    /// As [`SourceSnapshot::columns`], and what the sink reports.
    async fn rows(&mut self, read: &Read<'_>, sink: &mut RowSink) -> Result<(), Failure>;

    /// Rows, values and sums of the same rows as the database itself counts them, computed without going through the rows of
    /// [`SourceSnapshot::rows`] and without rounding.
    ///
    /// # Errors
    /// As [`SourceSnapshot::columns`].
    async fn totals(&mut self, read: &Read<'_>) -> Result<TableTotals, Failure>;

    /// What the source has taken, where it is something that is put away once the app has it; complete when all rows were read.
    fn taken(&self) -> Option<files::Taken> {
        None
    }

    /// Ends what the database still does for a call that was given up, and the connection, within about two seconds. Nothing else is
    /// called afterwards.
    async fn close(&mut self) {}
}

/// What is read of a table.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    /// The table or query.
    pub table: &'a TableConfig,
    /// The columns that are wanted, with the types that their values will have; some of [`SourceSnapshot::columns`].
    pub columns: &'a [Column],
    /// Whether these are all columns, in the source's own order.
    pub all: bool,
    /// Only rows from here on; `None` for all. Rows before it do no harm where they are the same in rows and totals, rows that are
    /// missing are lost to the app.
    pub since: Option<&'a Since>,
}

/// The least watermark that is wanted: rows whose values of these columns, compared in this order, are equal or greater, and rows
/// that have NULL in the first column, or in a later one where those before it are equal. Without any columns: what is new since the
/// last import, of a source that knows this by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Since(pub Vec<SinceValue>);

/// One column of a [`Since`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinceValue {
    /// The column, in the source's own writing.
    pub column: String,
    /// Its type.
    pub sql_type: SqlType,
    /// The value, as the wire has it.
    pub value: String,
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

/// What a build without sources by ODBC has in their place.
#[cfg(not(feature = "odbc"))]
#[derive(Debug)]
struct NoOdbc;

#[cfg(not(feature = "odbc"))]
#[async_trait]
impl Source for NoOdbc {
    async fn open(&self, _: &CancellationToken) -> Result<Box<dyn SourceSnapshot>, Failure> {
        let told = "this build of towpath-agent has no sources of kind \"odbc\": the packages have them, and so has a build with \
                    `--features odbc` where unixODBC is installed";
        Err(Failure::park(towpath_transfer::Code::ConfigInvalid, told))
    }
}

/// The source that a job's configuration names. Files of its own it reads from `files`.
#[must_use]
pub fn source_of(job: &JobConfig, files: &Arc<dyn FileStore>, clock: Arc<dyn Clock>) -> Arc<dyn Source> {
    match &job.source {
        SourceConfig::Sqlite { path, busy_timeout } => {
            Arc::new(sqlite::SqliteSource::new(path.clone(), busy_timeout.unwrap_or(crate::config::DEFAULT_BUSY_TIMEOUT), clock))
        }
        SourceConfig::PostgreSql(server) => Arc::new(postgres::PostgresSource::new(server.clone(), clock)),
        SourceConfig::MariaDb(server) => Arc::new(mariadb::MariaDbSource::new(server.clone(), clock)),
        SourceConfig::Files(config) => {
            Arc::new(files::FilesSource::new(config.clone(), job.tables.clone(), Arc::clone(files), clock))
        }
        #[cfg(feature = "odbc")]
        SourceConfig::Odbc(config) => Arc::new(odbc::OdbcSource::new(config.clone(), clock)),
        #[cfg(not(feature = "odbc"))]
        SourceConfig::Odbc(_) => Arc::new(NoOdbc),
    }
}
