//! SQLite as import target: one file for each agent and job, `<folder>/<agent>/<job>.sqlite`.
//!
//! A column's declared type names the manifest's type and has the affinity that keeps the value exact: a `DECIMAL_TEXT`
//! stays the text it is, where a `DECIMAL` would become a float (<https://www.sqlite.org/datatype3.html>, section 3.1).

mod import;
mod values;

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};
use towpath_transfer::{Code, Disposition, Failure, Sequence, TransferId, manifest::Label};

use self::import::SqliteImport;
use super::{
    Import, ImportRecord, ImportScope, ImportTarget, LOCK_TIMEOUT, Ledger, Owner, TableState,
    ledger::{ImportText, TableText, not_taken},
};

const LEDGER: &str = "
CREATE TABLE IF NOT EXISTS towpath_imports (
    transfer TEXT PRIMARY KEY, sequence INTEGER NOT NULL, manifest TEXT NOT NULL, imported TEXT NOT NULL, rows TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS towpath_tables (
    name TEXT PRIMARY KEY, transfer TEXT NOT NULL, sha256 TEXT NOT NULL, columns TEXT NOT NULL, rows INTEGER NOT NULL,
    key_columns TEXT NOT NULL DEFAULT '[]', mode TEXT NOT NULL DEFAULT 'replace'
) STRICT;
CREATE TABLE IF NOT EXISTS towpath_owner (tenant TEXT NOT NULL, receiver TEXT NOT NULL) STRICT;";
/// Columns of `towpath_tables` that a ledger has since tables are merged, with what an older one means by not having them.
const LATER_COLUMNS: [(&str, &str); 2] =
    [("key_columns", "TEXT NOT NULL DEFAULT '[]'"), ("mode", "TEXT NOT NULL DEFAULT 'replace'")];

/// Imports into SQLite files below a folder.
#[derive(Debug, Clone)]
pub struct SqliteTarget {
    folder: PathBuf,
    owner: Owner,
}

impl SqliteTarget {
    /// Files are made below `folder` as they are needed, and are `owner`'s.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, owner: Owner) -> Self {
        Self { folder: folder.into(), owner }
    }

    /// The database file of a schema.
    #[must_use]
    pub fn path(&self, scope: &ImportScope) -> PathBuf {
        self.folder.join(scope.agent.as_str()).join(format!("{}.sqlite", scope.job))
    }

    /// Opens a transaction that has the file for itself, and the ledger complete.
    async fn open(&self, scope: &ImportScope, shown: &str) -> Result<SqliteConnection, Failure> {
        let path = self.path(scope);
        let folder = self.folder.join(scope.agent.as_str());
        tokio::fs::create_dir_all(&folder)
            .await
            .map_err(|e| Failure::retry(Code::ImportFailed, format!("creating {} failed", folder.display())).caused_by(e))?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(LOCK_TIMEOUT)
            .disable_statement_logging();
        let opening = |e| failed(shown, "opening the app database", e);
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(opening)?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.map_err(opening)?;
        complete_ledger(&mut connection).await.map_err(opening)?;
        Ok(connection)
    }

    fn shown(&self, scope: &ImportScope) -> String {
        self.path(scope).display().to_string()
    }
}

#[async_trait]
impl ImportTarget for SqliteTarget {
    async fn begin(&self, scope: &ImportScope, transfer: TransferId) -> Result<(Box<dyn Import>, Ledger), Failure> {
        let shown = self.shown(scope);
        let mut connection = self.open(scope, &shown).await?;
        let found = owner(&mut connection, &shown).await?;
        if self.owner.may_take(found.as_ref(), &shown)? {
            own(&mut connection, &shown, &self.owner).await?;
        }
        let ledger = read_ledger(&mut connection, &shown, transfer).await?;
        Ok((Box::new(SqliteImport::new(connection, shown)), ledger))
    }

    async fn adopt(&self, scope: &ImportScope) -> Result<bool, Failure> {
        let shown = self.shown(scope);
        // Opening it would make it.
        if !tokio::fs::try_exists(self.path(scope)).await.unwrap_or(true) {
            return Err(not_taken(&shown));
        }
        let mut connection = self.open(scope, &shown).await?;
        let found = owner(&mut connection, &shown).await?.ok_or_else(|| not_taken(&shown))?;
        if self.owner.is(&found) {
            return Ok(false);
        }
        own(&mut connection, &shown, &self.owner).await?;
        let committed = sqlx::raw_sql("COMMIT").execute(&mut connection).await;
        committed.map(|_| true).map_err(|e| failed(&shown, "committing the adoption", e))
    }
}

/// Whose the file is: tenant and receiver.
async fn owner(connection: &mut SqliteConnection, shown: &str) -> Result<Option<(String, String)>, Failure> {
    let found = sqlx::query_as("SELECT tenant, receiver FROM towpath_owner").fetch_optional(connection).await;
    found.map_err(|e| failed(shown, "reading whose the app database is", e))
}

/// Makes the file `owner`'s.
async fn own(connection: &mut SqliteConnection, shown: &str, owner: &Owner) -> Result<(), Failure> {
    let failed = |e| failed(shown, "writing whose the app database is", e);
    sqlx::raw_sql("DELETE FROM towpath_owner").execute(&mut *connection).await.map_err(failed)?;
    let written = sqlx::query("INSERT INTO towpath_owner (tenant, receiver) VALUES (?, ?)")
        .bind(owner.tenant.to_string())
        .bind(owner.receiver.to_string());
    written.execute(connection).await.map(|_| ()).map_err(failed)
}

/// Makes the ledger where it is missing, and gives one of an earlier build the columns that it has not.
async fn complete_ledger(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(LEDGER).execute(&mut *connection).await?;
    let there: Vec<String> =
        sqlx::query_scalar("SELECT name FROM pragma_table_info('towpath_tables')").fetch_all(&mut *connection).await?;
    for (name, definition) in LATER_COLUMNS.iter().filter(|(name, _)| !there.iter().any(|column| column == name)) {
        let sql = format!("ALTER TABLE towpath_tables ADD COLUMN {name} {definition}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn read_ledger(connection: &mut SqliteConnection, shown: &str, transfer: TransferId) -> Result<Ledger, Failure> {
    let failed = |e| failed(shown, "reading the import ledger", e);
    let damaged = |what: &str| Failure::park(Code::ImportFailed, format!("the import ledger in {shown} is damaged: {what}"));
    let this = sqlx::query("SELECT sequence, manifest, imported, rows FROM towpath_imports WHERE transfer = ?")
        .bind(transfer.to_string())
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed)?;
    let this = match this {
        Some(row) => Some(import_record(transfer, &row).ok_or_else(|| damaged("a row of towpath_imports"))?),
        None => None,
    };
    let last: Option<i64> =
        sqlx::query_scalar("SELECT max(sequence) FROM towpath_imports").fetch_one(&mut *connection).await.map_err(failed)?;
    let last_sequence = last.map(|n| u64::try_from(n).map(Sequence)).transpose();
    let rows = sqlx::query("SELECT name, transfer, sha256, columns, rows, key_columns, mode FROM towpath_tables")
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let mut tables = BTreeMap::new();
    for row in rows {
        let (name, state) = table_state(&row).ok_or_else(|| damaged("a row of towpath_tables"))?;
        tables.insert(name, state);
    }
    Ok(Ledger { this, last_sequence: last_sequence.map_err(|_| damaged("a negative sequence"))?, tables })
}

fn import_record(transfer: TransferId, row: &SqliteRow) -> Option<ImportRecord> {
    let text = ImportText {
        sequence: row.try_get(0).ok()?,
        manifest: row.try_get(1).ok()?,
        imported: row.try_get(2).ok()?,
        rows: row.try_get(3).ok()?,
    };
    text.read(transfer)
}

fn table_state(row: &SqliteRow) -> Option<(Label, TableState)> {
    let text = TableText {
        name: row.try_get(0).ok()?,
        transfer: row.try_get(1).ok()?,
        sha256: row.try_get(2).ok()?,
        columns: row.try_get(3).ok()?,
        rows: row.try_get(4).ok()?,
        key: row.try_get(5).ok()?,
        mode: row.try_get(6).ok()?,
    };
    text.read()
}

fn failed(path: &str, what: &str, error: sqlx::Error) -> Failure {
    let result = match &error {
        sqlx::Error::Database(e) => e.code().and_then(|code| code.parse().ok()),
        _ => None,
    };
    let told = format!("{what} in {path} failed");
    match result.map(by_result) {
        Some((code, Disposition::Park)) => Failure::park(code, told),
        Some((code, Disposition::Retry)) => Failure::retry(code, told),
        None => Failure::retry(Code::ImportFailed, told),
    }
    .caused_by(error)
}

/// By the result code, whose last byte is the primary one (<https://www.sqlite.org/rescode.html>). What a trigger or an index of the app
/// refuses, and a file that is damaged or none of SQLite's, waits for a person.
fn by_result(code: i32) -> (Code, Disposition) {
    match code & 0xff {
        // SQLITE_FULL.
        13 => (Code::DiskFull, Disposition::Retry),
        // SQLITE_ERROR, _CORRUPT, _TOOBIG, _CONSTRAINT, _MISMATCH, _MISUSE, _AUTH and _NOTADB.
        1 | 11 | 18 | 19 | 20 | 21 | 23 | 26 => (Code::ImportFailed, Disposition::Park),
        _ => (Code::ImportFailed, Disposition::Retry),
    }
}

/// The one column of a query in an app database.
#[cfg(test)]
pub(crate) async fn query_texts(database: &std::path::Path, sql: &'static str) -> Vec<String> {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(database)).await.unwrap();
    sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
}

#[cfg(test)]
mod tests;
