//! SQLite as import target: one file for each agent and job, `<folder>/<agent>/<job>.sqlite`.
//!
//! A column's declared type names the manifest's type and has the affinity that keeps the value exact: a `DECIMAL_TEXT`
//! stays the text it is, where a `DECIMAL` would become a float (<https://www.sqlite.org/datatype3.html>, section 3.1).

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, time::Duration};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Row, Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use towpath_transfer::{
    Code, Failure, Sequence, TransferId,
    digest::Sha256Digest,
    manifest::{Column, Label, SqlType, Table},
};

use super::{Import, ImportRecord, ImportScope, ImportTarget, Ledger, RowBatch, TableState};

/// How long an import waits for a reader or writer of the app before it is tried again later.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// The most bound values of one statement; SQLite's own limit is 32,766.
const MAX_BOUND_VALUES: usize = 8_192;
/// Tables of these names belong to the ledger or to SQLite.
const RESERVED_PREFIXES: [&str; 2] = ["towpath_", "sqlite_"];

const LEDGER: &str = "
CREATE TABLE IF NOT EXISTS towpath_imports (
    transfer TEXT PRIMARY KEY, sequence INTEGER NOT NULL, manifest TEXT NOT NULL, imported TEXT NOT NULL, rows TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS towpath_tables (
    name TEXT PRIMARY KEY, transfer TEXT NOT NULL, sha256 TEXT NOT NULL, columns TEXT NOT NULL, rows INTEGER NOT NULL
) STRICT;";

/// Imports into SQLite files below a folder.
#[derive(Debug, Clone)]
pub struct SqliteTarget {
    folder: PathBuf,
}

impl SqliteTarget {
    /// Files are made below `folder` as they are needed.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The database file of a schema.
    #[must_use]
    pub fn path(&self, scope: &ImportScope) -> PathBuf {
        self.folder.join(scope.agent.as_str()).join(format!("{}.sqlite", scope.job))
    }
}

#[async_trait]
impl ImportTarget for SqliteTarget {
    async fn begin(&self, scope: &ImportScope, transfer: TransferId) -> Result<(Box<dyn Import>, Ledger), Failure> {
        let path = self.path(scope);
        let shown = path.display().to_string();
        let folder = self.folder.join(scope.agent.as_str());
        tokio::fs::create_dir_all(&folder)
            .await
            .map_err(|e| Failure::retry(Code::ImportFailed, format!("creating {} failed", folder.display())).caused_by(e))?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let opening = |e| failed(&shown, "opening the app database", e);
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(opening)?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.map_err(opening)?;
        sqlx::raw_sql(LEDGER).execute(&mut connection).await.map_err(opening)?;
        let mut import = SqliteImport { connection, shown, current: None };
        let ledger = import.read_ledger(transfer).await?;
        Ok((Box::new(import), ledger))
    }
}

#[derive(Debug)]
struct Current {
    name: Label,
    quoted: String,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct SqliteImport {
    connection: SqliteConnection,
    shown: String,
    current: Option<Current>,
}

impl SqliteImport {
    fn failed(&self, what: &str, error: sqlx::Error) -> Failure {
        failed(&self.shown, what, error)
    }

    fn damaged(&self, what: &str) -> Failure {
        Failure::park(Code::ImportFailed, format!("the import ledger in {} is damaged: {what}", self.shown))
    }

    async fn read_ledger(&mut self, transfer: TransferId) -> Result<Ledger, Failure> {
        let reading = "reading the import ledger";
        let this = sqlx::query("SELECT sequence, manifest, imported, rows FROM towpath_imports WHERE transfer = ?")
            .bind(transfer.to_string())
            .fetch_optional(&mut self.connection)
            .await
            .map_err(|e| failed(&self.shown, reading, e))?;
        let this = this.map(|row| self.import_record(transfer, &row)).transpose()?;
        let last: Option<i64> = sqlx::query_scalar("SELECT max(sequence) FROM towpath_imports")
            .fetch_one(&mut self.connection)
            .await
            .map_err(|e| failed(&self.shown, reading, e))?;
        let last_sequence = last.map(|n| u64::try_from(n).map(Sequence)).transpose();
        let rows = sqlx::query("SELECT name, transfer, sha256, columns, rows FROM towpath_tables")
            .fetch_all(&mut self.connection)
            .await
            .map_err(|e| failed(&self.shown, reading, e))?;
        let mut tables = BTreeMap::new();
        for row in rows {
            let (name, state) = table_state(&row).ok_or_else(|| self.damaged("a row of towpath_tables"))?;
            tables.insert(name, state);
        }
        Ok(Ledger { this, last_sequence: last_sequence.map_err(|_| self.damaged("a negative sequence"))?, tables })
    }

    fn import_record(&self, transfer: TransferId, row: &sqlx::sqlite::SqliteRow) -> Result<ImportRecord, Failure> {
        let read = || {
            Some(ImportRecord {
                transfer,
                sequence: Sequence(u64::try_from(row.try_get::<i64, _>(0).ok()?).ok()?),
                manifest: row.try_get::<&str, _>(1).ok()?.parse().ok()?,
                imported: row.try_get::<&str, _>(2).ok()?.parse().ok()?,
                rows: serde_json::from_str(row.try_get(3).ok()?).ok()?,
            })
        };
        read().ok_or_else(|| self.damaged("a row of towpath_imports"))
    }

    async fn exists(&mut self, name: &str) -> Result<bool, Failure> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM sqlite_schema WHERE lower(name) = lower(?)")
            .bind(name.to_owned())
            .fetch_optional(&mut self.connection)
            .await
            .map_err(|e| failed(&self.shown, "looking for a table", e))?;
        Ok(found.is_some())
    }

    async fn count(&mut self, quoted: &str) -> Result<u64, Failure> {
        let counted: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {quoted}")))
            .fetch_one(&mut self.connection)
            .await
            .map_err(|e| failed(&self.shown, "counting rows", e))?;
        u64::try_from(counted).map_err(|_| self.damaged("a negative row count"))
    }

    async fn execute(&mut self, what: &str, sql: String) -> Result<(), Failure> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await;
        done.map(|_| ()).map_err(|e| self.failed(what, e))
    }
}

fn table_state(row: &sqlx::sqlite::SqliteRow) -> Option<(Label, TableState)> {
    let state = TableState {
        transfer: row.try_get::<&str, _>(1).ok()?.parse().ok()?,
        sha256: row.try_get::<&str, _>(2).ok()?.parse().ok()?,
        columns: serde_json::from_str(row.try_get(3).ok()?).ok()?,
        rows: u64::try_from(row.try_get::<i64, _>(4).ok()?).ok()?,
    };
    Some((row.try_get::<&str, _>(0).ok()?.parse().ok()?, state))
}

#[async_trait]
impl Import for SqliteImport {
    async fn start_table(&mut self, table: &Table, old: Option<&TableState>) -> Result<(), Failure> {
        let name = table.table.as_str();
        let folded = name.to_lowercase();
        if RESERVED_PREFIXES.iter().any(|prefix| folded.starts_with(prefix)) {
            return Err(Failure::park(Code::ImportRefused, format!("a table may not be called {name:?}: the name is reserved")));
        }
        let quoted = quote(name);
        let there = self.exists(name).await?;
        match old {
            Some(old) if there && old.columns == table.columns => {
                self.execute("emptying a table", format!("DELETE FROM {quoted}")).await?;
            }
            None if there => {
                let told = format!("{} already has a {name:?} that Towpath has not made", self.shown);
                return Err(Failure::park(Code::ImportRefused, told));
            }
            _ => {
                self.execute("dropping a table whose columns changed", format!("DROP TABLE IF EXISTS {quoted}")).await?;
                let columns: Vec<String> = table.columns.iter().map(column_definition).collect();
                self.execute("creating a table", format!("CREATE TABLE {quoted} ({})", columns.join(", "))).await?;
            }
        }
        self.current = Some(Current { name: table.table.clone(), quoted, columns: table.columns.clone() });
        Ok(())
    }

    async fn insert(&mut self, batch: RowBatch) -> Result<(), Failure> {
        let current = self.current.take().ok_or_else(|| no_table("insert"))?;
        let width = current.columns.len();
        let per_statement = (MAX_BOUND_VALUES / width.max(1)).max(1);
        let mut left = batch.rows();
        let mut fields = batch.fields();
        while left > 0 {
            let rows = left.min(per_statement);
            left -= rows;
            let sql = insert_statement(&current.quoted, width, rows);
            // Only the two sizes that recur are worth a prepared statement: a full one, and the rest of a full batch.
            let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(true);
            for _ in 0..rows {
                for column in &current.columns {
                    let field = fields.next().flatten();
                    query = bind(query, column, field).ok_or_else(|| does_not_fit(&current.name, column))?;
                }
            }
            query.execute(&mut self.connection).await.map_err(|e| failed(&self.shown, "inserting rows", e))?;
        }
        self.current = Some(current);
        Ok(())
    }

    async fn count_table(&mut self, table: &Label) -> Result<Option<u64>, Failure> {
        if !self.exists(table.as_str()).await? {
            return Ok(None);
        }
        self.count(&quote(table.as_str())).await.map(Some)
    }

    async fn finish_table(&mut self, transfer: TransferId, sha256: Sha256Digest) -> Result<u64, Failure> {
        let current = self.current.take().ok_or_else(|| no_table("finish"))?;
        let counted = self.count(&current.quoted).await?;
        let columns = serde_json::to_string(&current.columns)
            .map_err(|e| Failure::park(Code::Internal, "writing a table's columns failed").caused_by(e))?;
        sqlx::query("INSERT OR REPLACE INTO towpath_tables (name, transfer, sha256, columns, rows) VALUES (?, ?, ?, ?, ?)")
            .bind(current.name.as_str().to_owned())
            .bind(transfer.to_string())
            .bind(sha256.to_string())
            .bind(columns)
            .bind(i64::try_from(counted).unwrap_or(i64::MAX))
            .execute(&mut self.connection)
            .await
            .map_err(|e| failed(&self.shown, "writing the import ledger", e))?;
        Ok(counted)
    }

    async fn commit(mut self: Box<Self>, record: &ImportRecord) -> Result<(), Failure> {
        let rows = serde_json::to_string(&record.rows)
            .map_err(|e| Failure::park(Code::Internal, "writing the import ledger failed").caused_by(e))?;
        let sequence = i64::try_from(record.sequence.0)
            .map_err(|e| Failure::park(Code::ImportRefused, "the sequence number is out of range").caused_by(e))?;
        sqlx::query("INSERT INTO towpath_imports (transfer, sequence, manifest, imported, rows) VALUES (?, ?, ?, ?, ?)")
            .bind(record.transfer.to_string())
            .bind(sequence)
            .bind(record.manifest.to_string())
            .bind(record.imported.to_string())
            .bind(rows)
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

fn failed(path: &str, what: &str, error: sqlx::Error) -> Failure {
    let full = matches!(&error, sqlx::Error::Database(e) if e.code().is_some_and(|c| c == "13"));
    let code = if full { Code::DiskFull } else { Code::ImportFailed };
    Failure::retry(code, format!("{what} in {path} failed")).caused_by(error)
}

fn no_table(what: &str) -> Failure {
    Failure::park(Code::Internal, format!("{what} without a started table"))
}

fn does_not_fit(table: &Label, column: &Column) -> Failure {
    let told = format!("a value of column {:?} in table {table:?} is not a {}", column.name.as_str(), column.sql_type);
    Failure::park(Code::ContentInvalid, told)
}

/// Quotes a name from a manifest; a double quote inside is doubled, so that the name stays a name.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn column_definition(column: &Column) -> String {
    let declared = match column.sql_type {
        SqlType::BigInt => "BIGINT".to_owned(),
        SqlType::Decimal { precision, scale } => format!("DECIMAL_TEXT({precision},{scale})"),
        SqlType::Double => "DOUBLE PRECISION".to_owned(),
        SqlType::Text => "TEXT".to_owned(),
        SqlType::Boolean => "BOOLEAN".to_owned(),
        SqlType::Date => "DATE_TEXT".to_owned(),
        SqlType::Time => "TIME_TEXT".to_owned(),
        SqlType::Timestamp => "TIMESTAMP_TEXT".to_owned(),
        SqlType::TimestampTz => "TIMESTAMPTZ_TEXT".to_owned(),
        SqlType::Binary => "BLOB".to_owned(),
    };
    let null = if column.nullable { "" } else { " NOT NULL" };
    format!("{} {declared}{null}", quote(column.name.as_str()))
}

fn insert_statement(table: &str, width: usize, rows: usize) -> String {
    let mut row = String::with_capacity(2 * width + 2);
    for at in 0..width {
        row.push_str(if at == 0 { "(?" } else { ",?" });
    }
    row.push(')');
    let mut sql = String::with_capacity(rows * (row.len() + 1) + 32 + table.len());
    // Writing to a String cannot fail.
    let _ = write!(sql, "INSERT INTO {table} VALUES ");
    for at in 0..rows {
        if at > 0 {
            sql.push(',');
        }
        sql.push_str(&row);
    }
    sql
}

type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Binds a value as its type's storage class; `None` where the text is not of the type.
fn bind<'q>(query: Bound<'q>, column: &Column, field: Option<&str>) -> Option<Bound<'q>> {
    let Some(text) = field else {
        return Some(query.bind(None::<String>));
    };
    Some(match column.sql_type {
        SqlType::BigInt => query.bind(text.parse::<i64>().ok()?),
        // SQLite stores NaN as NULL: the value would be lost.
        SqlType::Double => query.bind(text.parse::<f64>().ok().filter(|value| !value.is_nan())?),
        SqlType::Boolean => query.bind(match text {
            "true" => 1i64,
            "false" => 0,
            _ => return None,
        }),
        SqlType::Binary => query.bind(STANDARD.decode(text).ok()?),
        SqlType::Decimal { .. } | SqlType::Text | SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz => {
            query.bind(text.to_owned())
        }
    })
}

/// The one column of a query in an app database.
#[cfg(test)]
pub(crate) async fn query_texts(database: &std::path::Path, sql: &'static str) -> Vec<String> {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(database)).await.unwrap();
    sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_transfer::manifest::ControlTotal;

    fn column(name: &str, sql_type: SqlType) -> Column {
        Column { name: name.parse().unwrap(), sql_type, nullable: true }
    }

    fn table(name: &str, columns: Vec<Column>) -> Table {
        let totals: Vec<ControlTotal> = Vec::new();
        Table::whole(name.parse().unwrap(), columns, 0, totals)
    }

    fn id(n: u8) -> TransferId {
        format!("01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a{n:02x}").parse().unwrap()
    }

    fn scope() -> ImportScope {
        ImportScope { agent: "erp".parse().unwrap(), job: "main".parse().unwrap() }
    }

    fn record(n: u8) -> ImportRecord {
        ImportRecord {
            transfer: id(n),
            sequence: Sequence(n.into()),
            manifest: Sha256Digest::of(&[n]),
            imported: "2026-01-02T03:04:05Z".parse().unwrap(),
            rows: vec![("items".parse().unwrap(), 2)],
        }
    }

    async fn import(target: &SqliteTarget, n: u8, table: &Table, rows: &[&[Option<&str>]]) -> Result<u64, Failure> {
        let (mut import, ledger) = target.begin(&scope(), id(n)).await?;
        import.start_table(table, ledger.tables.get(&table.table)).await?;
        let mut batch = RowBatch::new(table.columns.len());
        rows.iter().flat_map(|row| row.iter()).for_each(|field| batch.push(*field));
        import.insert(batch).await?;
        let counted = import.finish_table(id(n), Sha256Digest::of(&[n])).await?;
        import.commit(&record(n)).await?;
        Ok(counted)
    }

    async fn text(target: &SqliteTarget, sql: &'static str) -> Vec<String> {
        query_texts(&target.path(&scope()), sql).await
    }

    #[tokio::test]
    async fn values_stay_exact_and_names_stay_names() {
        let folder = tempfile::tempdir().unwrap();
        let target = SqliteTarget::new(folder.path());
        let hostile = "it\"ems\"; DROP TABLE towpath_imports; --";
        let columns = vec![
            column("a \"b\"", SqlType::Decimal { precision: 30, scale: 10 }),
            column("select", SqlType::BigInt),
            column("d", SqlType::Date),
            column("x", SqlType::Binary),
            column("t", SqlType::Boolean),
        ];
        let rows: &[&[Option<&str>]] = &[
            &[
                Some("12345678901234567890.1234567890"),
                Some("-9223372036854775808"),
                Some("9999-12-31"),
                Some("AAE="),
                Some("true"),
            ],
            &[None, None, None, None, None],
        ];
        assert_eq!(import(&target, 1, &table(hostile, columns), rows).await.unwrap(), 2);
        let found = text(
            &target,
            r#"SELECT typeof("a ""b""") || "a ""b""" || "select" || d || hex(x) || t FROM "it""ems""; DROP TABLE towpath_imports; --" WHERE d IS NOT NULL"#,
        );
        assert_eq!(found.await, ["text12345678901234567890.1234567890-92233720368547758089999-12-3100011"]);
        assert_eq!(text(&target, "SELECT transfer FROM towpath_imports").await, [id(1).to_string()]);
    }

    #[tokio::test]
    async fn an_import_that_is_not_committed_has_not_happened() {
        let folder = tempfile::tempdir().unwrap();
        let target = SqliteTarget::new(folder.path());
        let items = table("items", vec![column("n", SqlType::BigInt)]);
        import(&target, 1, &items, &[&[Some("1")], &[Some("2")]]).await.unwrap();

        let (mut open, ledger) = target.begin(&scope(), id(2)).await.unwrap();
        assert_eq!(ledger.this, None);
        assert_eq!(ledger.last_sequence, Some(Sequence(1)));
        open.start_table(&items, ledger.tables.get(&items.table)).await.unwrap();
        drop(open);
        assert_eq!(text(&target, "SELECT cast(sum(n) AS TEXT) FROM items").await, ["3"]);

        let (_, ledger) = target.begin(&scope(), id(1)).await.unwrap();
        assert_eq!(ledger.this, Some(record(1)));
        assert_eq!(ledger.tables.len(), 1);
    }

    #[tokio::test]
    async fn columns_may_change_and_indexes_survive_where_they_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = SqliteTarget::new(folder.path());
        let narrow = table("items", vec![column("n", SqlType::BigInt)]);
        import(&target, 1, &narrow, &[&[Some("1")]]).await.unwrap();
        text(&target, "CREATE INDEX by_n ON items (n)").await;
        import(&target, 2, &narrow, &[&[Some("2")], &[Some("3")]]).await.unwrap();
        assert_eq!(text(&target, "SELECT name FROM sqlite_schema WHERE type = 'index' AND name = 'by_n'").await, ["by_n"]);
        let wide = table("items", vec![column("n", SqlType::BigInt), column("m", SqlType::Text)]);
        import(&target, 3, &wide, &[&[Some("4"), Some("")]]).await.unwrap();
        assert_eq!(text(&target, "SELECT n || '/' || m FROM items").await, ["4/"]);
    }

    #[tokio::test]
    async fn a_table_that_somebody_dropped_is_missed_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let target = SqliteTarget::new(folder.path());
        let items = table("items", vec![column("n", SqlType::BigInt)]);
        import(&target, 1, &items, &[&[Some("1")], &[Some("2")]]).await.unwrap();
        let (mut open, _) = target.begin(&scope(), id(2)).await.unwrap();
        assert_eq!(open.count_table(&items.table).await.unwrap(), Some(2));
        drop(open);
        text(&target, "DROP TABLE items").await;
        let (mut open, _) = target.begin(&scope(), id(2)).await.unwrap();
        assert_eq!(open.count_table(&items.table).await.unwrap(), None);
        drop(open);
        assert_eq!(import(&target, 2, &items, &[&[Some("3")]]).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn tables_of_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let target = SqliteTarget::new(folder.path());
        import(&target, 1, &table("items", vec![column("n", SqlType::BigInt)]), &[]).await.unwrap();
        text(&target, "CREATE TABLE Orders (n)").await;
        for name in ["orders", "towpath_imports", "SQLITE_sequence"] {
            let refused = import(&target, 2, &table(name, vec![column("n", SqlType::BigInt)]), &[]).await.unwrap_err();
            assert_eq!(refused.code(), Code::ImportRefused, "{name}");
        }
        assert_eq!(text(&target, "SELECT count(*) || '' FROM towpath_imports").await, ["1"]);
    }

    #[tokio::test]
    async fn a_value_of_the_wrong_type_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let target = SqliteTarget::new(folder.path());
        for (sql_type, bad) in [
            (SqlType::BigInt, "1.5"),
            (SqlType::Boolean, "yes"),
            (SqlType::Binary, "%"),
            (SqlType::Double, "x"),
            (SqlType::Double, "NaN"),
        ] {
            let refused = import(&target, 1, &table("t", vec![column("c", sql_type)]), &[&[Some(bad)]]).await.unwrap_err();
            assert_eq!(refused.code(), Code::ContentInvalid, "{sql_type}");
        }
    }
}
