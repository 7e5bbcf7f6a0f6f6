//! Which tables a source has, for a person who is to choose among them.

use std::{collections::BTreeSet, sync::Arc};

use tokio_util::sync::CancellationToken;
use towpath_transfer::{
    Clock, Code, Failure,
    failure::Result,
    manifest::{Column, Label},
};
use towpath_transport::files::{FileStore, file_failure};

use super::{
    source::{Feed, Read, RowSink, SourceSnapshot, Value, source_of},
    unless_cancelled,
};
use crate::config::{FolderConfig, JobConfig, SourceConfig, TableConfig};

/// The most tables that are listed; an ERP has thousands.
pub const MAX_LISTED: usize = 20_000;
/// Names of a folder that are looked at in one go.
const PAGE: usize = 1_000;

/// A table, as a source names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedTable {
    /// Its schema, where that is not the login's own.
    pub schema: Option<String>,
    /// Its name; of files the name without `.csv`.
    pub name: String,
}

impl std::fmt::Display for ListedTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The tables and views that the login can see, at most [`MAX_LISTED`], the login's own schema first; of a folder the CSV files
/// in it. `None` where the database has no list that is known here: databases behind ODBC need not have one.
///
/// # Errors
/// Where the source cannot be opened, as [`super::check_source`] tells it.
pub async fn list_tables(
    source: &SourceConfig,
    files: &Arc<dyn FileStore>,
    clock: Arc<dyn Clock>,
    cancel: &CancellationToken,
) -> Result<Option<Vec<ListedTable>>> {
    let name = "listing".parse().map_err(|error| Failure::park(Code::Internal, "the name of a list").caused_by(error))?;
    let job = JobConfig::new(name, source.clone(), Vec::new());
    if let SourceConfig::Files(folder) = source {
        return csv_files(&**files, folder).map(Some);
    }
    let mut snapshot = unless_cancelled(cancel, source_of(&job, files, clock).open(cancel)).await?;
    let mut listed = Ok(None);
    for query in queries(source) {
        listed = unless_cancelled(cancel, listing(snapshot.as_mut(), query)).await.map(Some);
        if listed.is_ok() || cancel.is_cancelled() {
            break;
        }
    }
    snapshot.close().await;
    match listed {
        // Which catalogue a database behind ODBC has is not known before one of them answers.
        Err(failure) if matches!(source, SourceConfig::Odbc(_)) && failure.code() == Code::ErpQuery => Ok(None),
        other => other,
    }
}

/// The queries to be tried, each with two columns: the schema, NULL for the login's own, and the name.
fn queries(source: &SourceConfig) -> &'static [&'static str] {
    const SQLITE: &str = "SELECT NULL AS table_schema, name AS table_name FROM sqlite_master \
                          WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    const POSTGRESQL: &str = "SELECT CAST(NULLIF(table_schema, current_schema()) AS text) AS table_schema, \
                              CAST(table_name AS text) AS table_name FROM information_schema.tables \
                              WHERE table_schema NOT IN ('pg_catalog', 'information_schema') \
                              ORDER BY table_schema <> current_schema(), table_schema, table_name";
    const MARIADB: &str = "SELECT NULLIF(table_schema, DATABASE()) AS table_schema, table_name AS table_name \
                           FROM information_schema.tables \
                           WHERE table_schema NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys') \
                           ORDER BY table_schema <> DATABASE(), table_schema, table_name";
    // The schema is named always: what the login's own is has no standard name.
    const STANDARD: &str = "SELECT TABLE_SCHEMA, TABLE_NAME FROM INFORMATION_SCHEMA.TABLES ORDER BY TABLE_SCHEMA, TABLE_NAME";
    const ORACLE: &str = "SELECT NULL AS TABLE_SCHEMA, TABLE_NAME FROM USER_TABLES ORDER BY TABLE_NAME";
    const DB2: &str = "SELECT TABSCHEMA, TABNAME FROM SYSCAT.TABLES WHERE TABSCHEMA NOT LIKE 'SYS%' ORDER BY TABSCHEMA, TABNAME";
    match source {
        SourceConfig::Sqlite { .. } => &[SQLITE],
        SourceConfig::PostgreSql(_) => &[POSTGRESQL],
        SourceConfig::MariaDb(_) => &[MARIADB],
        SourceConfig::Odbc(_) => &[STANDARD, SQLITE, ORACLE, DB2],
        SourceConfig::Files(_) => &[],
    }
}

async fn listing(snapshot: &mut dyn SourceSnapshot, query: &str) -> Result<Vec<ListedTable>> {
    let label = |text: &str| -> Result<Label> {
        text.parse().map_err(|error| Failure::park(Code::Internal, "the name of a list").caused_by(error))
    };
    let table = TableConfig { query: Some(query.to_owned()), ..TableConfig::whole(label("tables")?) };
    let columns = snapshot.columns(&table).await?;
    let columns = columns
        .iter()
        .map(|column| Ok(Column { name: label(&column.name)?, sql_type: column.sql_type, nullable: column.nullable }))
        .collect::<Result<Vec<_>>>()?;
    let (mut sink, mut feed) = RowSink::new(columns.len());
    let reading = async {
        let read = Read { table: &table, columns: &columns, all: true, since: None };
        snapshot.rows(&read, &mut sink).await?;
        sink.finish().await
    };
    let taking = async move {
        let mut listed = Vec::new();
        while let Some(Feed::Rows(batch)) = feed.recv().await {
            let mut values = batch.values();
            while let (Some(schema), Some(name)) = (values.next(), values.next()) {
                if listed.len() < MAX_LISTED
                    && let Some(name) = text(bytes_of(name))
                {
                    listed.push(ListedTable { schema: text(bytes_of(schema)), name });
                }
            }
        }
        listed
    };
    let (read, listed) = tokio::join!(reading, taking);
    read.map(|()| listed)
}

fn bytes_of(value: Value<'_>) -> Option<&[u8]> {
    match value {
        Value::Text(bytes) | Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// Db2 pads schemas with blanks.
fn text(bytes: Option<&[u8]>) -> Option<String> {
    let text = std::str::from_utf8(bytes?).ok()?.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

fn csv_files(files: &dyn FileStore, folder: &FolderConfig) -> Result<Vec<ListedTable>> {
    let path = &folder.folder;
    let missing = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            Failure::retry(Code::ErpMissing, format!("there is no folder {}", path.display())).caused_by(error)
        }
        _ => file_failure("listing", path, error),
    };
    let mut names = BTreeSet::new();
    let mut after: Option<String> = None;
    loop {
        let page = files.list(path, after.as_deref(), PAGE).map_err(missing)?;
        let stems = page.iter().filter_map(|entry| {
            let (stem, suffix) = entry.name.rsplit_once('.')?;
            suffix.eq_ignore_ascii_case("csv").then(|| stem.to_owned())
        });
        names.extend(stems);
        if page.len() < PAGE || names.len() >= MAX_LISTED {
            break;
        }
        after = page.into_iter().next_back().map(|entry| entry.name);
    }
    Ok(names.into_iter().take(MAX_LISTED).map(|name| ListedTable { schema: None, name }).collect())
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
    use towpath_servers::{MariaDb, Postgres};
    use towpath_transfer::clock::ManualClock;
    use towpath_transport::files::Disk;

    use super::*;

    async fn list(source: &SourceConfig) -> Result<Option<Vec<String>>> {
        let files: Arc<dyn FileStore> = Arc::new(Disk);
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let listed = list_tables(source, &files, clock, &CancellationToken::new()).await?;
        Ok(listed.map(|tables| tables.iter().map(ToString::to_string).collect()))
    }

    #[tokio::test]
    async fn tables_and_views_of_sqlite_are_listed_without_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("erp.sqlite");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let sql = "CREATE TABLE sales (id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE \"ä b\" (x); \
                   CREATE TABLE sqliteish (x); CREATE VIEW all_sales AS SELECT * FROM sales";
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let source = SourceConfig::Sqlite { path: path.clone(), busy_timeout: None };
        assert_eq!(list(&source).await.unwrap().unwrap(), ["all_sales", "sales", "sqliteish", "ä b"]);
        let none = SourceConfig::Sqlite { path: dir.path().join("none.sqlite"), busy_timeout: None };
        assert_eq!(list(&none).await.unwrap_err().code(), Code::ErpMissing);
    }

    #[tokio::test]
    async fn a_folder_lists_its_csv_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["items.csv", "SALES.CSV", "notes.txt", "none"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let text = format!(
            "[[job]]\nname = \"m\"\nsource = {{ kind = \"files\", folder = '{}' }}\n[[job.table]]\nname = \"x\"\n",
            dir.path().display()
        );
        let config = crate::config::Config::parse(&text, std::path::Path::new("/agent.toml")).unwrap();
        assert_eq!(list(&config.jobs[0].source).await.unwrap().unwrap(), ["SALES", "items"]);
    }

    fn server(kind: &str, host: &str, port: u16, database: &str) -> SourceConfig {
        let (user, password) = (towpath_servers::READER, towpath_servers::PASSWORD);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        towpath_keys::write_secret(&file, password.as_bytes()).unwrap();
        let text = format!(
            "[[job]]\nname = \"m\"\nsource = {{ kind = \"{kind}\", host = \"{host}\", port = {port}, database = \"{database}\", \
             user = \"{user}\", password = 'file:{}' }}\n[[job.table]]\nname = \"x\"\n",
            file.display()
        );
        let config = crate::config::Config::parse(&text, std::path::Path::new("/agent.toml")).unwrap();
        // The file is read when the source is opened, so it outlives this function.
        let _ = folder.keep();
        config.jobs[0].source.clone()
    }

    #[tokio::test]
    async fn servers_list_what_the_login_may_read_its_own_schema_first() {
        let postgres = Postgres::get();
        let database = postgres.database();
        database.run("CREATE TABLE sales (id int)");
        database.run("CREATE VIEW open_sales AS SELECT * FROM sales");
        database.run("CREATE SCHEMA archive");
        database.run("CREATE TABLE archive.old (id int)");
        database.run(&format!("GRANT USAGE ON SCHEMA archive TO {}", towpath_servers::READER));
        database.run(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public, archive TO {}", towpath_servers::READER));
        let source = server("postgresql", &database.host, database.port, &database.name);
        assert_eq!(list(&source).await.unwrap().unwrap(), ["open_sales", "sales", "archive.old"]);

        let mariadb = MariaDb::get();
        let database = mariadb.database();
        database.run("CREATE TABLE sales (id int)");
        database.run("CREATE VIEW open_sales AS SELECT * FROM sales");
        let source = server("mariadb", &database.host, database.port, &database.name);
        let listed = list(&source).await.unwrap().unwrap();
        // Other tests' databases follow, as far as the login may see them.
        assert_eq!(listed[..2], ["open_sales", "sales"]);
    }
}
