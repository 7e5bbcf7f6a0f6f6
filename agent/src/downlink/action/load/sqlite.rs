//! SQLite as the ERP's database.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};
use towpath_transfer::{Failure, TransferId, csv::RowBatch, failure::Result, manifest::Label};

use super::{Load, LoadTarget, failed};

/// How long a load waits for another writer of the ERP before it is tried again later.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// The most bound values of one statement; SQLite's own limit is 32,766.
const MAX_BOUND_VALUES: usize = 8_192;
/// The transfers that were loaded. An ordinary table, because the ERP's own SQLite may be older than `STRICT` tables.
const LEDGER: &str = "CREATE TABLE IF NOT EXISTS towpath_loads (transfer TEXT PRIMARY KEY NOT NULL, target TEXT NOT NULL, \
                      loaded TEXT NOT NULL, rows INTEGER NOT NULL)";

/// A table of a database file.
pub(super) struct SqliteLoad {
    path: PathBuf,
    table: Label,
    transfer_column: Label,
}

impl SqliteLoad {
    /// The file is opened when a load begins.
    pub(super) fn new(path: PathBuf, table: Label, transfer_column: Label) -> Self {
        Self { path, table, transfer_column }
    }
}

/// A connection on which what is committed is durable, in whichever journal mode the ERP has the file.
///
/// In the mode DELETE a commit removes the journal, and a power cut may bring it back, so that the next to open the file takes the
/// commit back: EXTRA syncs the folder as well (SQLite, `PRAGMA synchronous`). Windows has nothing that does; there the journal is emptied.
async fn open(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .synchronous(SqliteSynchronous::Extra)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options).await?;
    if cfg!(windows) {
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await?;
        if mode == "delete" {
            sqlx::raw_sql("PRAGMA journal_mode = truncate").execute(&mut connection).await?;
        }
    }
    Ok(connection)
}

struct Open {
    connection: SqliteConnection,
    shown: String,
    transfer: TransferId,
    table: Label,
    transfer_column: Label,
    known: Vec<String>,
    columns: Vec<String>,
}

#[async_trait]
impl LoadTarget for SqliteLoad {
    async fn begin(&self, transfer: TransferId) -> Result<Option<Box<dyn Load>>> {
        let shown = self.path.display().to_string();
        let doing = |what: &'static str| move |error| refused(&self.path.display().to_string(), what, error);
        let mut connection = open(&self.path).await.map_err(doing("opening it"))?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.map_err(doing("beginning a transaction"))?;
        sqlx::raw_sql(LEDGER).execute(&mut connection).await.map_err(doing("making the table towpath_loads"))?;
        let before: Option<i64> = sqlx::query_scalar("SELECT 1 FROM towpath_loads WHERE transfer = ?")
            .bind(transfer.to_string())
            .fetch_optional(&mut connection)
            .await
            .map_err(doing("reading the table towpath_loads"))?;
        if before.is_some() {
            return Ok(None);
        }
        // Generated columns cannot be written.
        let known: Vec<String> =
            sqlx::query_scalar("SELECT name FROM pragma_table_xinfo(?, 'main') WHERE hidden = 0 ORDER BY cid")
                .bind(self.table.as_str().to_owned())
                .fetch_all(&mut connection)
                .await
                .map_err(doing("looking at the table"))?;
        let (table, transfer_column) = (self.table.clone(), self.transfer_column.clone());
        if known.is_empty() {
            return Err(failed(format!("the ERP database {shown} has no table {table}")));
        }
        if !has(&known, transfer_column.as_str()) {
            let message =
                format!("table {table} of {shown} has no column {transfer_column} for the transfer's id: add one of type TEXT");
            return Err(failed(message));
        }
        Ok(Some(Box::new(Open { connection, shown, transfer, table, transfer_column, known, columns: Vec::new() })))
    }
}

#[async_trait]
impl Load for Open {
    async fn columns(&mut self, names: &[String]) -> Result<()> {
        if let Some(unknown) = names.iter().find(|name| !has(&self.known, name)) {
            return Err(failed(format!("table {} of {} has no column {unknown:?}, which the file has", self.table, self.shown)));
        }
        if has(names, self.transfer_column.as_str()) {
            return Err(failed(format!("the file has a column {} itself, which is for the transfer's id", self.transfer_column)));
        }
        self.columns = names.to_vec();
        Ok(())
    }

    async fn insert(&mut self, batch: RowBatch) -> Result<()> {
        let width = self.columns.len() + 1;
        let per_statement = (MAX_BOUND_VALUES / width).max(1);
        let mut left = batch.rows();
        let mut fields = batch.fields();
        while left > 0 {
            let rows = left.min(per_statement);
            left -= rows;
            // Only two sizes recur: a full statement, and the rest of a full batch.
            let mut query = sqlx::query(AssertSqlSafe(self.statement(rows))).persistent(true);
            for _ in 0..rows {
                for _ in 1..width {
                    query = query.bind(fields.next().flatten().map(str::to_owned));
                }
                query = query.bind(self.transfer.to_string());
            }
            query.execute(&mut self.connection).await.map_err(|error| refused(&self.shown, "inserting rows", error))?;
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>, at: Timestamp, rows: u64) -> Result<()> {
        let doing = |what: &'static str| {
            let shown = self.shown.clone();
            move |error| refused(&shown, what, error)
        };
        let (noting, committing) = (doing("noting the transfer"), doing("committing"));
        sqlx::query("INSERT INTO towpath_loads (transfer, target, loaded, rows) VALUES (?, ?, ?, ?)")
            .bind(self.transfer.to_string())
            .bind(self.table.as_str().to_owned())
            .bind(at.to_string())
            .bind(i64::try_from(rows).unwrap_or(i64::MAX))
            .execute(&mut self.connection)
            .await
            .map_err(noting)?;
        sqlx::raw_sql("COMMIT").execute(&mut self.connection).await.map_err(committing)?;
        // Everything is durable; a connection that cannot be closed in order changes nothing about that.
        let _ = self.connection.close().await;
        Ok(())
    }
}

impl Open {
    fn statement(&self, rows: usize) -> String {
        let names: Vec<String> = self.columns.iter().map(|name| quoted(name)).collect();
        let row = format!("({})", vec!["?"; names.len() + 1].join(", "));
        let (table, transfer) = (quoted(self.table.as_str()), quoted(self.transfer_column.as_str()));
        format!("INSERT INTO main.{table} ({}, {transfer}) VALUES {}", names.join(", "), vec![row.as_str(); rows].join(", "))
    }
}

/// SQLite's names are equal whatever the case of their ASCII letters.
fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn refused(shown: &str, doing: &str, error: sqlx::Error) -> Failure {
    failed(format!("the ERP database {shown} refused {doing}")).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_committed_is_durable_and_the_journal_mode_stays_the_erps() {
        for mode in ["delete", "wal"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("erp.sqlite");
            let erp = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
            let mut erp = SqliteConnection::connect_with(&erp).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (x)")))
                .execute(&mut erp)
                .await
                .unwrap();
            let mut connection = open(&path).await.unwrap();
            let extra: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut connection).await.unwrap();
            let found: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await.unwrap();
            assert_eq!((extra, &*found), (3, if cfg!(windows) && mode == "delete" { "truncate" } else { mode }));
        }
    }
}
