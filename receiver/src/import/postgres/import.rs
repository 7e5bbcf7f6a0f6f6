//! The one transaction of an import into PostgreSQL.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use towpath_transfer::{
    Code, Failure, TransferId,
    digest::Sha256Digest,
    manifest::{Label, Mode, Table},
};

use super::{
    super::{
        Import, ImportRecord, OldRows, RowBatch, TableState,
        ledger::{mode_word, signed, text},
        names::{delete_unlisted, key_index, list, on_conflict, quote},
        no_base, no_table, not_ours, two_of_one_key,
    },
    error::Database,
    names::{check, order_column},
    values::{definitions, encode},
    within,
};

/// Where rows wait that are merged, in the schema of temporary tables: nothing of it is written to the server's log of changes, and
/// it is gone with the transaction.
const MERGED: &str = "pg_temp.towpath_merge";
/// Where keys wait until all are there.
const KEYS: &str = "pg_temp.towpath_keys";
/// What PostgreSQL calls the primary key of [`KEYS`].
const KEYS_INDEX: &str = "towpath_keys_pkey";
/// From this many new rows on, the planner's statistics are renewed with the import; below, autovacuum will do.
const ANALYZE_FROM_ROWS: u64 = 10_000;
/// How much is handed to the connection at a time; it keeps a copy of its own.
const COPY_BYTES: usize = 64 * 1024;
/// A buffer that one huge row has made larger than this is not kept.
const MAX_KEPT_BUFFER: usize = 4 * 1024 * 1024;
/// SQLSTATE `unique_violation`.
const UNIQUE_VIOLATION: &str = "23505";

/// Where rows go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Straight,
    Merged,
    Keys,
}

#[derive(Debug)]
struct Current {
    table: Table,
    way: Way,
    copy: String,
    /// Orders rows that are merged.
    order: String,
    rows: u64,
}

/// The open transaction, and the connection that it ends with.
#[derive(Debug)]
pub(super) struct PostgresImport {
    connection: PgConnection,
    database: Database,
    name: String,
    /// The quoted schema.
    schema: String,
    current: Option<Current>,
    buffer: Vec<u8>,
}

impl PostgresImport {
    /// Takes a connection with a transaction that holds the schema's lock.
    pub(super) fn new(connection: PgConnection, database: Database, schema: &str) -> Self {
        let (name, schema) = (schema.to_owned(), quote(schema));
        Self { connection, database, name, schema, current: None, buffer: Vec::new() }
    }

    fn qualified(&self, table: &Label) -> String {
        format!("{}.{}", self.schema, quote(table.as_str()))
    }

    async fn execute(&mut self, what: &str, sql: String) -> Result<(), Failure> {
        let done = within(sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection)).await;
        done.map(|_| ()).map_err(|e| self.database.failure(what, e))
    }

    /// What has this name in the schema: `r` is a table. Indexes, views and the like share one space of names with tables.
    async fn kind(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let looking = sqlx::query_scalar(
            "SELECT c.relkind::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relname = $2",
        )
        .bind(self.name.clone())
        .bind(name.to_owned());
        let found = within(looking.fetch_optional(&mut self.connection)).await;
        found.map_err(|e| self.database.failure("looking for a table", e))
    }

    async fn count(&mut self, table: &Label) -> Result<u64, Failure> {
        let sql = format!("SELECT count(*) FROM {}", self.qualified(table));
        let counting = sqlx::query_scalar(AssertSqlSafe(sql));
        let counted: i64 =
            within(counting.fetch_one(&mut self.connection)).await.map_err(|e| self.database.failure("counting rows", e))?;
        u64::try_from(counted).map_err(|e| Failure::park(Code::ImportFailed, "a negative number of rows").caused_by(e))
    }

    /// Gives a table the index of its key, and takes away one that it had. A reader waits for neither, unless there was another.
    async fn index_key(&mut self, table: &Table, old: &[Label]) -> Result<(), Failure> {
        let name = key_index(&table.table);
        let there = self.kind(&name).await?.is_some();
        if there && old != table.key {
            let sql = format!("DROP INDEX {}.{}", self.schema, quote(&name));
            self.execute("dropping the index of a key", sql).await?;
        }
        if table.key.is_empty() || (there && old == table.key) {
            return Ok(());
        }
        let on = format!("{} ({})", self.qualified(&table.table), list(table.key.iter()));
        self.execute("indexing a key", format!("CREATE UNIQUE INDEX {} ON {on}", quote(&name))).await
    }

    async fn started(&mut self, table: &Table) -> Result<(), Failure> {
        let order = order_column(table);
        let way = if table.mode == Mode::Merge { Way::Merged } else { Way::Straight };
        let into = match way {
            Way::Straight | Way::Keys => self.qualified(&table.table),
            Way::Merged => {
                let (columns, order) = (definitions(&table.columns), quote(&order));
                let identity = format!("{order} bigint GENERATED ALWAYS AS IDENTITY");
                let sql = format!("CREATE TEMPORARY TABLE {MERGED} ({columns}, {identity}) ON COMMIT DROP");
                self.execute("making room for rows that are merged", sql).await?;
                MERGED.to_owned()
            }
        };
        self.current = Some(Current { copy: copy_into(&into, table), table: table.clone(), way, order, rows: 0 });
        Ok(())
    }

    async fn copy(&mut self, statement: &str) -> Result<(), sqlx::Error> {
        let mut copy = self.connection.copy_in_raw(statement).await?;
        for chunk in self.buffer.chunks(COPY_BYTES) {
            copy.send(chunk).await?;
        }
        copy.finish().await.map(|_| ())
    }

    /// Two rows of one key are a fault of the content; a row that an index of the app's own refuses is not.
    fn refused(&self, current: &Current, error: sqlx::Error) -> Failure {
        let index = if current.way == Way::Keys { KEYS_INDEX.to_owned() } else { key_index(&current.table.table) };
        let ours = error
            .as_database_error()
            .is_some_and(|e| e.code().as_deref() == Some(UNIQUE_VIOLATION) && e.constraint() == Some(&index));
        if ours {
            return two_of_one_key(&current.table.table, &current.table.key).caused_by(error);
        }
        self.database.failure("inserting rows", error)
    }

    /// Merges what waits: of the rows of one key the last, over the row that is there or as a new one.
    async fn merge(&mut self, current: &Current) -> Result<(), Failure> {
        let table = &current.table;
        let columns = list(table.columns.iter().map(|column| &column.name));
        let (key, order) = (list(table.key.iter()), quote(&current.order));
        let sql = format!(
            "INSERT INTO {} AS towpath_target ({columns}) \
             SELECT DISTINCT ON ({key}) {columns} FROM {MERGED} ORDER BY {key}, {order} DESC {}",
            self.qualified(&table.table),
            on_conflict(table),
        );
        self.execute("merging rows", sql).await?;
        self.execute("forgetting rows that are merged", format!("DROP TABLE {MERGED}")).await
    }
}

fn copy_into(into: &str, table: &Table) -> String {
    format!("COPY {into} ({}) FROM STDIN", list(table.columns.iter().map(|column| &column.name)))
}

#[async_trait]
impl Import for PostgresImport {
    async fn start_table(&mut self, table: &Table, old: Option<&TableState>, rows: OldRows) -> Result<(), Failure> {
        check(table)?;
        let quoted = self.qualified(&table.table);
        let kind = self.kind(table.table.as_str()).await?;
        let there = kind.as_deref() == Some("r");
        match (old, rows) {
            (Some(old), OldRows::Kept) if there && old.columns == table.columns => self.index_key(table, &table.key).await?,
            (_, OldRows::Kept) => return Err(no_base(&table.table)),
            (Some(old), OldRows::Removed) if there && old.columns == table.columns => {
                self.execute("emptying a table", format!("DELETE FROM {quoted}")).await?;
                self.index_key(table, &old.key).await?;
            }
            (old, OldRows::Removed) if kind.is_some() && (old.is_none() || !there) => {
                return Err(not_ours(&table.table, &self.database.shown));
            }
            (_, OldRows::Removed) => {
                self.execute("dropping a table whose columns changed", format!("DROP TABLE IF EXISTS {quoted}")).await?;
                self.execute("creating a table", format!("CREATE TABLE {quoted} ({})", definitions(&table.columns))).await?;
                self.index_key(table, &[]).await?;
            }
        }
        self.started(table).await
    }

    async fn start_keys(&mut self, keys: &Table) -> Result<(), Failure> {
        check(keys)?;
        let (columns, key) = (definitions(&keys.columns), list(keys.key.iter()));
        let sql = format!("CREATE TEMPORARY TABLE {KEYS} ({columns}, PRIMARY KEY ({key})) ON COMMIT DROP");
        self.execute("making room for keys", sql).await?;
        let copy = copy_into(KEYS, keys);
        self.current = Some(Current { table: keys.clone(), way: Way::Keys, copy, order: String::new(), rows: 0 });
        Ok(())
    }

    async fn insert(&mut self, batch: RowBatch) -> Result<(), Failure> {
        let mut current = self.current.take().ok_or_else(|| no_table("insert"))?;
        self.buffer.clear();
        encode(&batch, &current.table, &mut self.buffer)?;
        within(self.copy(&current.copy)).await.map_err(|e| self.refused(&current, e))?;
        self.buffer.clear();
        self.buffer.shrink_to(MAX_KEPT_BUFFER);
        current.rows = current.rows.saturating_add(u64::try_from(batch.rows()).unwrap_or(u64::MAX));
        self.current = Some(current);
        Ok(())
    }

    async fn count_table(&mut self, table: &Label) -> Result<Option<u64>, Failure> {
        if self.kind(table.as_str()).await?.as_deref() != Some("r") {
            return Ok(None);
        }
        self.count(table).await.map(Some)
    }

    async fn finish_table(&mut self, transfer: TransferId, sha256: Sha256Digest) -> Result<u64, Failure> {
        let current = self.current.take().filter(|current| current.way != Way::Keys).ok_or_else(|| no_table("finish"))?;
        if current.way == Way::Merged {
            self.merge(&current).await?;
        }
        let table = &current.table;
        if current.rows >= ANALYZE_FROM_ROWS {
            self.execute("renewing statistics", format!("ANALYZE {}", self.qualified(&table.table))).await?;
        }
        let counted = self.count(&table.table).await?;
        let sql = format!(
            "INSERT INTO {}.towpath_tables AS t (name, transfer, sha256, columns, rows, key_columns, mode) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO UPDATE SET transfer = excluded.transfer, \
             sha256 = excluded.sha256, columns = excluded.columns, rows = excluded.rows, \
             key_columns = excluded.key_columns, mode = excluded.mode",
            self.schema
        );
        let noting = sqlx::query(AssertSqlSafe(sql))
            .bind(table.table.as_str().to_owned())
            .bind(transfer.to_string())
            .bind(sha256.to_string())
            .bind(text(&table.columns)?)
            .bind(signed(counted)?)
            .bind(text(&table.key)?)
            .bind(mode_word(table.mode));
        within(noting.execute(&mut self.connection)).await.map_err(|e| self.database.failure("writing the import ledger", e))?;
        Ok(counted)
    }

    async fn finish_keys(&mut self) -> Result<u64, Failure> {
        let current = self.current.take().filter(|current| current.way == Way::Keys).ok_or_else(|| no_table("finish"))?;
        let keys = &current.table;
        // Nobody else sees a temporary table, so that nobody else tells the planner how large it is.
        self.execute("counting keys", format!("ANALYZE {KEYS}")).await?;
        let sql = delete_unlisted(&self.qualified(&keys.table), KEYS, &keys.key);
        self.execute("deleting rows that the ERP has no more", sql).await?;
        self.execute("forgetting keys", format!("DROP TABLE {KEYS}")).await?;
        let counted = self.count(&keys.table).await?;
        let sql = format!("UPDATE {}.towpath_tables SET rows = $1 WHERE name = $2", self.schema);
        let noting = sqlx::query(AssertSqlSafe(sql)).bind(signed(counted)?).bind(keys.table.as_str().to_owned());
        within(noting.execute(&mut self.connection)).await.map_err(|e| self.database.failure("writing the import ledger", e))?;
        Ok(counted)
    }

    async fn commit(mut self: Box<Self>, record: &ImportRecord) -> Result<(), Failure> {
        let sql = format!(
            "INSERT INTO {}.towpath_imports (transfer, sequence, manifest, imported, rows) VALUES ($1, $2, $3, $4, $5)",
            self.schema
        );
        let noting = sqlx::query(AssertSqlSafe(sql))
            .bind(record.transfer.to_string())
            .bind(signed(record.sequence.0)?)
            .bind(record.manifest.to_string())
            .bind(record.imported.to_string())
            .bind(text(&record.rows)?);
        within(noting.execute(&mut self.connection)).await.map_err(|e| self.database.failure("writing the import ledger", e))?;
        self.execute("committing the import", "COMMIT".to_owned()).await?;
        // The commit stands; how the connection ends changes nothing any more.
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "closing the connection to the app database failed after the commit");
        }
        Ok(())
    }
}
