//! SQLite as a source: the file is opened for reading only, and one transaction is the snapshot.
//!
//! In WAL mode the ERP goes on writing while an extract reads. In the rollback modes SQLite lets nobody commit while
//! somebody reads, so the ERP's writers wait as long as the extract takes.

mod declared;
mod error;
mod literal;
pub(super) mod totals;
pub(super) mod types;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::TryStreamExt as _;
use sqlx::{
    AssertSqlSafe, Column as _, ConnectOptions as _, Connection as _, Either, Executor as _, Row as _, SqlSafeStr as _, Sqlite,
    SqliteConnection, Statement as _, TypeInfo as _, ValueRef as _,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock, Failure, manifest::Snapshot};

#[cfg(feature = "odbc")]
pub(super) use self::{
    declared::{create_view, drop_view, not_null, types_of_view},
    literal::literal,
};
use super::{Read, RowSink, Source, SourceColumn, SourceSnapshot, TableTotals, Value, select::Dialect};
use crate::config::TableConfig;

/// Rows that SQLite may read ahead of us: enough to keep both threads busy. They are counted and not weighed: with texts of 1 MB
/// they take 8 MB.
pub(crate) const ROWS_AHEAD: usize = 8;
/// After so many steps of its virtual machine SQLite looks whether it was cancelled; about a millisecond.
const STEPS_BETWEEN_LOOKS: i32 = 50_000;
/// The memory SQLite may use for its page cache, in KiB.
const CACHE_KIB: u32 = 16 * 1024;

const DIALECT: Dialect = Dialect { quotes: ('"', '"'), schema: Some("main"), literal: literal::literal };

/// A database file of an ERP.
pub(crate) struct SqliteSource {
    path: PathBuf,
    busy_timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl SqliteSource {
    /// The file is touched when the source is opened. A lock is waited for as long as `busy_timeout`.
    pub(crate) fn new(path: PathBuf, busy_timeout: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { path, busy_timeout, clock }
    }
}

impl fmt::Debug for SqliteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSource").field("path", &self.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for SqliteSource {
    async fn open(&self, cancel: &CancellationToken) -> Result<Box<dyn SourceSnapshot>, Failure> {
        let shown = self.path.display().to_string();
        let failed = |error| error::failure(&shown, "opening it", error);
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .read_only(true)
            .create_if_missing(false)
            .busy_timeout(self.busy_timeout)
            .row_buffer_size(ROWS_AHEAD)
            .pragma("cache_size", format!("-{CACHE_KIB}"))
            .disable_statement_logging();
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
        let stop = cancel.clone();
        connection.lock_handle().await.map_err(failed)?.set_progress_handler(STEPS_BETWEEN_LOOKS, move || !stop.is_cancelled());
        // A transaction takes its snapshot at its first read, not at BEGIN.
        sqlx::raw_sql("BEGIN").execute(&mut connection).await.map_err(failed)?;
        let tables: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut connection).await.map_err(failed)?;
        let schema: i64 = sqlx::query_scalar("PRAGMA schema_version").fetch_one(&mut connection).await.map_err(failed)?;
        let snapshot = Snapshot {
            id: format!("sqlite at {}, schema {schema} of {tables} objects", self.clock.now()),
            // https://www.sqlite.org/isolation.html: "all transactions in SQLite show serializable isolation".
            isolation: "serializable".to_owned(),
            consistent: true,
        };
        Ok(Box::new(SqliteSnapshot { connection, shown, snapshot, views: AtomicU64::new(0) }))
    }
}

struct SqliteSnapshot {
    connection: SqliteConnection,
    shown: String,
    snapshot: Snapshot,
    views: AtomicU64,
}

impl fmt::Debug for SqliteSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSnapshot").field("path", &self.shown).field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

#[async_trait]
impl SourceSnapshot for SqliteSnapshot {
    fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    async fn columns(&mut self, table: &TableConfig) -> Result<Vec<SourceColumn>, Failure> {
        let sql = DIALECT.all_columns(table);
        let doing = format!("preparing table {}", table.name);
        let refused = |why: &str| Err(error::refused(&self.shown, &doing, why));
        let prepared = self
            .connection
            .prepare(AssertSqlSafe(sql.clone()).into_sql_str())
            .await
            .map_err(|error| error::failure(&self.shown, &doing, error))?;
        if matches!(prepared.parameters(), Some(Either::Right(1..))) {
            return refused("the query has parameters");
        }
        if prepared.columns().is_empty() {
            return refused("the query gives no columns");
        }
        // What the statement says of a column's declared type is too coarse; a view's column has it in full.
        let declared = self
            .declared_types(&sql, prepared.columns().len())
            .await
            .map_err(|error| error::failure(&self.shown, &doing, error))?;
        let not_null = match table.query {
            Some(_) => Vec::new(),
            None => self.not_null(table).await.map_err(|error| error::failure(&self.shown, &doing, error))?,
        };
        let columns = prepared.columns().iter().zip(declared);
        Ok(columns
            .map(|(column, declared)| {
                // A view gives a column without declared type the type BLOB.
                let undeclared = declared == "BLOB" && column.type_info().name() != "BLOB";
                SourceColumn {
                    name: column.name().to_owned(),
                    sql_type: types::of_declared(if undeclared { "" } else { &declared }),
                    nullable: !not_null.iter().any(|name| name == column.name()),
                }
            })
            .collect())
    }

    async fn rows(&mut self, read: &Read<'_>, sink: &mut RowSink) -> Result<(), Failure> {
        let doing = format!("reading table {}", read.table.name);
        let mut rows = sqlx::query(AssertSqlSafe(DIALECT.rows(read))).fetch(&mut self.connection);
        while let Some(row) = rows.try_next().await.map_err(|error| error::failure(&self.shown, &doing, error))? {
            push(&row, read.columns.len(), sink).map_err(|error| error::failure(&self.shown, &doing, error))?;
            sink.end_row().await?;
        }
        Ok(())
    }

    async fn totals(&mut self, read: &Read<'_>) -> Result<TableTotals, Failure> {
        let doing = format!("summing table {}", read.table.name);
        totals::of(&mut self.connection, &DIALECT.rows(read), read.columns)
            .await
            .map_err(|error| error.into_failure(|error| error::failure(&self.shown, &doing, error), &doing))
    }
}

impl SqliteSnapshot {
    /// The type each column was declared with, or what SQLite makes of an expression.
    async fn declared_types(&mut self, sql: &str, width: usize) -> Result<Vec<String>, sqlx::Error> {
        let view = format!("towpath_columns_{}", self.views.fetch_add(1, Ordering::Relaxed));
        let names: Vec<String> = (1..=width).map(|n| format!("c{n}")).collect();
        sqlx::query(AssertSqlSafe(declared::create_view(&view, &names, sql))).execute(&mut self.connection).await?;
        let types = sqlx::query_scalar(AssertSqlSafe(declared::types_of_view(&view))).fetch_all(&mut self.connection).await?;
        sqlx::query(AssertSqlSafe(declared::drop_view(&view))).execute(&mut self.connection).await?;
        Ok(types)
    }

    /// The columns of a table in which NULL cannot stand: declared so, or the rowid under another name.
    async fn not_null(&mut self, table: &TableConfig) -> Result<Vec<String>, sqlx::Error> {
        sqlx::query_scalar(AssertSqlSafe(declared::not_null(table.name.as_str()))).fetch_all(&mut self.connection).await
    }
}

fn push(row: &SqliteRow, width: usize, sink: &mut RowSink) -> Result<(), sqlx::Error> {
    if row.len() != width {
        return Err(sqlx::Error::ColumnIndexOutOfBounds { index: width, len: row.len() });
    }
    for index in 0..width {
        let value = row.try_get_raw(index)?;
        let decoding = |source| sqlx::Error::ColumnDecode { index: index.to_string(), source };
        if value.is_null() {
            sink.push(Value::Null);
            continue;
        }
        // Of a value that is not NULL this is how it is stored, whatever the column was declared.
        let stored = value.type_info();
        match stored.name() {
            "INTEGER" => sink.push(Value::Integer(<i64 as sqlx::Decode<Sqlite>>::decode(value).map_err(decoding)?)),
            "REAL" => sink.push(Value::Real(<f64 as sqlx::Decode<Sqlite>>::decode(value).map_err(decoding)?)),
            "TEXT" => sink.push(Value::Text(<&[u8] as sqlx::Decode<Sqlite>>::decode(value).map_err(decoding)?)),
            _ => sink.push(Value::Bytes(<&[u8] as sqlx::Decode<Sqlite>>::decode(value).map_err(decoding)?)),
        }
    }
    Ok(())
}
