//! The one transaction of an import into SQLite.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use towpath_transfer::{
    Code, Failure, TransferId,
    digest::Sha256Digest,
    manifest::{Column, Label, Mode, Table},
};

use super::{
    super::{
        Import, ImportRecord, OldRows, RowBatch, TableState,
        ledger::{mode_word, signed, text},
        names::{check_reserved, delete_unlisted, key_index, list, on_conflict, quote},
        no_base, no_table, not_ours, two_of_one_key,
    },
    failed,
    values::{bind, definitions, insert_statement},
};

/// The most bound values of one statement; SQLite's own limit is 32,766.
const MAX_BOUND_VALUES: usize = 8_192;
/// The most columns of a table, <https://www.sqlite.org/limits.html#max_column>.
const MAX_COLUMNS: usize = 2_000;
/// Tables of these names belong to SQLite.
const RESERVED: [&str; 1] = ["sqlite_"];
/// Where keys wait until all are there. The database of temporary tables is a file that nobody else sees and that goes with the
/// connection, so that keys take no memory.
const KEYS: &str = "temp.towpath_keys";
/// What SQLite calls a row that a unique index, or a primary key, has already,
/// <https://www.sqlite.org/rescode.html#constraint_unique>.
const NOT_UNIQUE: [&str; 2] = ["2067", "1555"];

/// What rows go into.
#[derive(Debug)]
struct Current {
    table: Table,
    keys: bool,
    /// The quoted table with its columns.
    into: String,
    conflict: String,
}

/// The open transaction, and the connection that it ends with.
#[derive(Debug)]
pub(super) struct SqliteImport {
    connection: SqliteConnection,
    shown: String,
    current: Option<Current>,
}

impl SqliteImport {
    /// Takes a connection with a transaction; `shown` is what messages call the database.
    pub(super) fn new(connection: SqliteConnection, shown: String) -> Self {
        Self { connection, shown, current: None }
    }

    async fn exists(&mut self, name: &str) -> Result<bool, Failure> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM main.sqlite_schema WHERE lower(name) = lower(?)")
            .bind(name.to_owned())
            .fetch_optional(&mut self.connection)
            .await
            .map_err(|e| failed(&self.shown, "looking for a table", e))?;
        Ok(found.is_some())
    }

    async fn count(&mut self, table: &Label) -> Result<u64, Failure> {
        let counted: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {}", quote(table.as_str()))))
            .fetch_one(&mut self.connection)
            .await
            .map_err(|e| failed(&self.shown, "counting rows", e))?;
        u64::try_from(counted).map_err(|e| Failure::park(Code::ImportFailed, "a negative number of rows").caused_by(e))
    }

    async fn execute(&mut self, what: &str, sql: String) -> Result<(), Failure> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await;
        done.map(|_| ()).map_err(|e| failed(&self.shown, what, e))
    }

    /// Gives an empty table the index of its key, and takes away one that it had.
    async fn index_key(&mut self, table: &Table, old: &[Label]) -> Result<(), Failure> {
        let name = quote(&key_index(&table.table));
        if old != table.key {
            self.execute("dropping the index of a key", format!("DROP INDEX IF EXISTS {name}")).await?;
        }
        if table.key.is_empty() {
            return Ok(());
        }
        let on = format!("{} ({})", quote(table.table.as_str()), list(table.key.iter()));
        self.execute("indexing a key", format!("CREATE UNIQUE INDEX IF NOT EXISTS {name} ON {on}")).await
    }

    fn started(&mut self, table: &Table, keys: bool, name: &str) {
        let merged = !keys && table.mode == Mode::Merge;
        self.current = Some(Current {
            into: format!("{name} AS towpath_target ({})", list(table.columns.iter().map(|column| &column.name))),
            conflict: if merged { on_conflict(table) } else { String::new() },
            table: table.clone(),
            keys,
        });
    }

    /// Two rows of one key are a fault of the content; a row that an index of the app's own refuses is not.
    fn refused(&self, current: &Current, error: sqlx::Error) -> Failure {
        let sqlx::Error::Database(database) = &error else { return failed(&self.shown, "inserting rows", error) };
        let not_unique = database.code().is_some_and(|code| NOT_UNIQUE.contains(&&*code));
        let table = if current.keys { "towpath_keys" } else { current.table.table.as_str() };
        let columns: Vec<String> = current.table.key.iter().map(|name| format!("{table}.{name}")).collect();
        if not_unique && database.message() == format!("UNIQUE constraint failed: {}", columns.join(", ")) {
            return two_of_one_key(&current.table.table, &current.table.key).caused_by(error);
        }
        failed(&self.shown, "inserting rows", error)
    }
}

#[async_trait]
impl Import for SqliteImport {
    async fn start_table(&mut self, table: &Table, old: Option<&TableState>, rows: OldRows) -> Result<(), Failure> {
        check_reserved(&table.table, &RESERVED)?;
        if table.columns.len() > MAX_COLUMNS {
            let told = format!("table {} has more than the {MAX_COLUMNS} columns that SQLite can keep", table.table);
            return Err(Failure::park(Code::ImportRefused, told));
        }
        let quoted = quote(table.table.as_str());
        let there = self.exists(table.table.as_str()).await?;
        match (old, rows) {
            (Some(old), OldRows::Kept) if there && old.columns == table.columns => self.index_key(table, &table.key).await?,
            (_, OldRows::Kept) => return Err(no_base(&table.table)),
            (Some(old), OldRows::Removed) if there && old.columns == table.columns => {
                self.execute("emptying a table", format!("DELETE FROM {quoted}")).await?;
                self.index_key(table, &old.key).await?;
            }
            (None, OldRows::Removed) if there => return Err(not_ours(&table.table, &self.shown)),
            (_, OldRows::Removed) => {
                self.execute("dropping a table whose columns changed", format!("DROP TABLE IF EXISTS {quoted}")).await?;
                self.execute("creating a table", format!("CREATE TABLE {quoted} ({})", definitions(&table.columns))).await?;
                self.index_key(table, &[]).await?;
            }
        }
        self.started(table, false, &quoted);
        Ok(())
    }

    async fn start_keys(&mut self, keys: &Table) -> Result<(), Failure> {
        let (columns, key) = (definitions(&keys.columns), list(keys.key.iter()));
        self.execute("dropping the keys of another table", format!("DROP TABLE IF EXISTS {KEYS}")).await?;
        let sql = format!("CREATE TABLE {KEYS} ({columns}, PRIMARY KEY ({key})) WITHOUT ROWID");
        self.execute("making room for keys", sql).await?;
        self.started(keys, true, KEYS);
        Ok(())
    }

    async fn insert(&mut self, batch: RowBatch) -> Result<(), Failure> {
        let current = self.current.take().ok_or_else(|| no_table("insert"))?;
        let columns = &current.table.columns;
        let per_statement = (MAX_BOUND_VALUES / columns.len().max(1)).max(1);
        let mut left = batch.rows();
        let mut fields = batch.fields();
        while left > 0 {
            let rows = left.min(per_statement);
            left -= rows;
            let sql = insert_statement(&current.into, &current.conflict, columns.len(), rows);
            // Only the two sizes that recur are worth a prepared statement: a full one, and the rest of a full batch.
            let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(true);
            for _ in 0..rows {
                for column in columns {
                    let field = fields.next().flatten();
                    query = bind(query, column, field).ok_or_else(|| does_not_fit(&current.table.table, column))?;
                }
            }
            query.execute(&mut self.connection).await.map_err(|e| self.refused(&current, e))?;
        }
        self.current = Some(current);
        Ok(())
    }

    async fn count_table(&mut self, table: &Label) -> Result<Option<u64>, Failure> {
        if !self.exists(table.as_str()).await? {
            return Ok(None);
        }
        self.count(table).await.map(Some)
    }

    async fn finish_table(&mut self, transfer: TransferId, sha256: Sha256Digest) -> Result<u64, Failure> {
        let Some(Current { table, keys: false, .. }) = self.current.take() else { return Err(no_table("finish")) };
        let counted = self.count(&table.table).await?;
        sqlx::query(
            "INSERT OR REPLACE INTO towpath_tables (name, transfer, sha256, columns, rows, key_columns, mode) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(table.table.as_str().to_owned())
        .bind(transfer.to_string())
        .bind(sha256.to_string())
        .bind(text(&table.columns)?)
        .bind(signed(counted)?)
        .bind(text(&table.key)?)
        .bind(mode_word(table.mode))
        .execute(&mut self.connection)
        .await
        .map_err(|e| failed(&self.shown, "writing the import ledger", e))?;
        Ok(counted)
    }

    async fn finish_keys(&mut self) -> Result<u64, Failure> {
        let Some(Current { table: keys, keys: true, .. }) = self.current.take() else { return Err(no_table("finish")) };
        let sql = delete_unlisted(&format!("main.{}", quote(keys.table.as_str())), KEYS, &keys.key);
        self.execute("deleting rows that the ERP has no more", sql).await?;
        self.execute("forgetting keys", format!("DROP TABLE {KEYS}")).await?;
        let counted = self.count(&keys.table).await?;
        sqlx::query("UPDATE towpath_tables SET rows = ? WHERE name = ?")
            .bind(signed(counted)?)
            .bind(keys.table.as_str().to_owned())
            .execute(&mut self.connection)
            .await
            .map_err(|e| failed(&self.shown, "writing the import ledger", e))?;
        Ok(counted)
    }

    async fn commit(mut self: Box<Self>, record: &ImportRecord) -> Result<(), Failure> {
        sqlx::query("INSERT INTO towpath_imports (transfer, sequence, manifest, imported, rows) VALUES (?, ?, ?, ?, ?)")
            .bind(record.transfer.to_string())
            .bind(signed(record.sequence.0)?)
            .bind(record.manifest.to_string())
            .bind(record.imported.to_string())
            .bind(text(&record.rows)?)
            .execute(&mut self.connection)
            .await
            .map_err(|e| failed(&self.shown, "writing the import ledger", e))?;
        self.execute("committing the import", "COMMIT".to_owned()).await?;
        // The commit stands; how the connection ends changes nothing any more.
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "closing the app database failed after the commit");
        }
        Ok(())
    }
}

fn does_not_fit(table: &Label, column: &Column) -> Failure {
    let told = format!("a value of column {:?} in table {table} is not a {}", column.name.as_str(), column.sql_type);
    Failure::park(Code::ContentInvalid, told)
}
