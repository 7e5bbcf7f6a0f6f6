//! A database for each driver.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_servers::{MariaDb, MariaDbDatabase, PASSWORD, Postgres, PostgresDatabase, READER, WRITER};
use towpath_transfer::{Failure, Secret, clock::ManualClock};

use crate::{
    config::{OdbcConfig, OdbcIsolation, TableConfig},
    extract::source::{
        Source, SourceSnapshot,
        conformance::{Bench, all_of, rows_of, to_wire, whole},
        odbc::OdbcSource,
    },
};

/// Where Debian has its drivers.
fn driver(name: &str) -> String {
    let folders = ["/usr/lib/x86_64-linux-gnu/odbc", "/usr/lib/aarch64-linux-gnu/odbc"];
    let files = folders.map(|folder| PathBuf::from(folder).join(name));
    let found = files.into_iter().find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: `cargo xtask needs` says what to install")).display().to_string()
}

/// A configuration, and the folder with its password.
pub(super) struct Config {
    pub(super) odbc: OdbcConfig,
    folder: tempfile::TempDir,
}

impl Config {
    pub(super) fn new(connection: String, user: &str, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, password).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let odbc = OdbcConfig {
            connection,
            user: (!user.is_empty()).then(|| user.to_owned()),
            password: (!user.is_empty()).then_some(Secret::File(file)),
            isolation: OdbcIsolation::Best,
            statement_timeout: Duration::from_secs(300),
        };
        Self { odbc, folder }
    }

    pub(super) fn source(&self) -> Arc<dyn Source> {
        source(self.odbc.clone())
    }

    pub(super) async fn open(&self) -> Result<Box<dyn SourceSnapshot>, Failure> {
        self.source().open(&CancellationToken::new()).await
    }

    /// The rows of a whole table as the wire has them, by a query of the columns' order and `id`.
    pub(super) async fn rows(&self, table: &str) -> Vec<Vec<Option<String>>> {
        self.read(&whole(table)).await.1
    }

    /// The types, and the rows.
    pub(super) async fn read(&self, table: &TableConfig) -> (Vec<(String, String)>, Vec<Vec<Option<String>>>) {
        let mut snapshot = self.open().await.unwrap();
        let found = snapshot.columns(table).await.unwrap();
        let types = found.iter().map(|column| (column.name.clone(), column.sql_type.to_string())).collect();
        let columns = to_wire(&found);
        (types, rows_of(snapshot.as_mut(), &all_of(table, &columns)).await)
    }

    pub(super) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

pub(super) fn source(odbc: OdbcConfig) -> Arc<dyn Source> {
    Arc::new(OdbcSource::new(odbc, Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH))))
}

pub(super) struct PostgresBench {
    pub(super) config: Config,
    pub(super) database: PostgresDatabase,
    _server: Postgres,
}

impl PostgresBench {
    pub(super) fn new() -> Self {
        let server = Postgres::get();
        let database = server.database();
        let connection =
            format!("Driver={};Server=localhost;Port={};Database={}", driver("psqlodbcw.so"), database.port, database.name);
        Self { config: Config::new(connection, READER, PASSWORD), database, _server: server }
    }
}

#[async_trait]
impl Bench for PostgresBench {
    fn source(&self) -> Arc<dyn Source> {
        self.config.source()
    }

    fn missing(&self) -> Arc<dyn Source> {
        source(with(&self.config.odbc, &format!("Port={}", self.database.port), "Port=1"))
    }

    fn writer(&self) -> Option<Arc<dyn Source>> {
        Some(source(OdbcConfig { user: Some(WRITER.to_owned()), ..self.config.odbc.clone() }))
    }

    async fn run(&self, sql: &str) {
        self.database.run(sql);
    }
}

pub(super) struct MariaDbBench {
    pub(super) config: Config,
    pub(super) database: MariaDbDatabase,
    _server: MariaDb,
}

impl MariaDbBench {
    pub(super) fn new() -> Self {
        let server = MariaDb::get();
        let database = server.database();
        let connection =
            format!("Driver={};Server=127.0.0.1;Port={};Database={}", driver("libmaodbc.so"), database.port, database.name);
        Self { config: Config::new(connection, READER, PASSWORD), database, _server: server }
    }
}

#[async_trait]
impl Bench for MariaDbBench {
    fn source(&self) -> Arc<dyn Source> {
        self.config.source()
    }

    fn missing(&self) -> Arc<dyn Source> {
        source(with(&self.config.odbc, &format!("Port={}", self.database.port), "Port=1"))
    }

    /// Fewer than elsewhere, for this driver takes all of them into memory before it gives the first one.
    fn many_rows(&self) -> &'static str {
        "SELECT seq AS i FROM seq_1_to_200000"
    }

    fn writer(&self) -> Option<Arc<dyn Source>> {
        Some(source(OdbcConfig { user: Some(WRITER.to_owned()), ..self.config.odbc.clone() }))
    }

    async fn run(&self, sql: &str) {
        self.database.run(sql);
    }
}

pub(super) struct SqliteBench {
    pub(super) config: Config,
    path: PathBuf,
}

impl SqliteBench {
    pub(super) async fn new() -> Self {
        let mut config = Config::new(String::new(), "", "");
        let path = config.folder().join("erp.sqlite");
        config.odbc.connection = format!("Driver={};Database={}", driver("libsqlite3odbc.so"), path.display());
        let bench = Self { config, path };
        bench.run("PRAGMA journal_mode = WAL").await;
        bench
    }
}

#[async_trait]
impl Bench for SqliteBench {
    fn source(&self) -> Arc<dyn Source> {
        self.config.source()
    }

    fn missing(&self) -> Arc<dyn Source> {
        source(with(&self.config.odbc, "erp.sqlite", "none.sqlite"))
    }

    async fn run(&self, sql: &str) {
        // By another process: the driver brings a second SQLite into this one, and when the first closes the file, the system takes
        // away the locks of both.
        let done = std::process::Command::new("sqlite3")
            .args(["-bail", "-cmd", ".timeout 60000"])
            .arg(&self.path)
            .arg(sql)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

/// The configuration with another connection string.
pub(super) fn with(odbc: &OdbcConfig, from: &str, to: &str) -> OdbcConfig {
    assert!(odbc.connection.contains(from));
    OdbcConfig { connection: odbc.connection.replace(from, to), ..odbc.clone() }
}

/// Values as a row of the wire.
pub(super) fn row<const N: usize>(values: [Option<&str>; N]) -> Vec<Option<String>> {
    values.map(|value| value.map(str::to_owned)).to_vec()
}
