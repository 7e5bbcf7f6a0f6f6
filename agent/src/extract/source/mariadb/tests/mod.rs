//! Against a real MariaDB.

mod engines;
mod failures;
mod values;

use std::{path::PathBuf, time::Duration};

use sqlx::{ConnectOptions as _, mysql::MySqlConnectOptions};
use towpath_servers::{MariaDb, MariaDbDatabase, PASSWORD, READER, WRITER};
use towpath_transfer::{
    Code, Disposition, Secret,
    clock::ManualClock,
    manifest::{Column, SqlType},
};

use super::*;
use crate::{
    config::{DEFAULT_STATEMENT_TIMEOUT, Tls},
    extract::source::conformance::{self, Bench, all_of, query, rows_of, to_wire, whole},
};

/// A database of a test's own, and a folder with a password.
struct Place {
    server: MariaDb,
    database: MariaDbDatabase,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self::on(MariaDb::get())
    }

    fn on(server: MariaDb) -> Self {
        let database = server.database();
        let folder = tempfile::tempdir().unwrap();
        Self { server, database, folder }
    }

    fn password(&self, password: &str) -> Secret {
        let path: PathBuf = self.folder.path().join("password");
        std::fs::write(&path, password).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        Secret::File(path)
    }

    /// By TCP, as [`READER`].
    fn config(&self) -> ServerConfig {
        ServerConfig {
            host: self.database.host.clone(),
            port: self.database.port,
            database: self.database.name.clone(),
            user: READER.to_owned(),
            password: Some(self.password(PASSWORD)),
            tls: Tls::Prefer,
            ca: None,
            statement_timeout: DEFAULT_STATEMENT_TIMEOUT,
        }
    }

    async fn open(&self) -> Box<dyn SourceSnapshot> {
        open(self.config()).await.unwrap()
    }

    /// How many statements are at work in the database at this moment.
    fn at_work(&self) -> u32 {
        let asked = format!(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{}' AND command IN ('Query', 'Execute', 'Prepare') \
             AND id <> CONNECTION_ID()",
            self.database.name
        );
        self.database.run_as("root", &asked).trim().parse().unwrap()
    }

    /// Waits until so many statements are at work.
    async fn until_at_work(&self, expected: u32) {
        while self.at_work() != expected {
            tokio::task::yield_now().await;
        }
    }
}

async fn rows(snapshot: &mut dyn SourceSnapshot, table: &TableConfig, columns: &[Column]) -> Vec<Vec<Option<String>>> {
    rows_of(snapshot, &all_of(table, columns)).await
}

fn source(config: ServerConfig) -> MariaDbSource {
    MariaDbSource::new(config, Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH)))
}

async fn open(config: ServerConfig) -> Result<Box<dyn SourceSnapshot>, Failure> {
    source(config).open(&CancellationToken::new()).await
}

struct MariaDbBench(Place);

#[async_trait]
impl Bench for MariaDbBench {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(source(self.0.config()))
    }

    fn missing(&self) -> Arc<dyn Source> {
        Arc::new(source(ServerConfig { host: "/no/such/socket".to_owned(), ..self.0.config() }))
    }

    fn writer(&self) -> Option<Arc<dyn Source>> {
        Some(Arc::new(source(ServerConfig { user: WRITER.to_owned(), ..self.0.config() })))
    }

    async fn run(&self, sql: &str) {
        self.0.database.run(sql);
    }

    fn many_rows(&self) -> &'static str {
        "SELECT seq AS i FROM seq_1_to_300000000"
    }
}

#[tokio::test]
async fn does_what_every_source_does() {
    conformance::all(&MariaDbBench(Place::new())).await;
}

#[tokio::test]
async fn by_socket_too() {
    let place = Place::new();
    let socket = place.database.socket.to_str().unwrap().to_owned();
    for tls in [Tls::Off, Tls::Prefer] {
        let mut snapshot = open(ServerConfig { host: socket.clone(), tls, ..place.config() }).await.unwrap();
        assert_eq!(snapshot.columns(&query("SELECT 1 AS one")).await.unwrap()[0].name, "one");
        snapshot.close().await;
    }
}

#[tokio::test]
async fn the_snapshot_tells_what_it_is() {
    let place = Place::new();
    let mut snapshot = place.open().await;
    let told = snapshot.snapshot();
    assert!(told.consistent);
    assert_eq!(told.isolation, "repeatable read, consistent snapshot");
    assert!(told.id.starts_with("mariadb 10.") && told.id.contains("Z, server "), "{}", told.id);
    // The settings are those of the source, not of the server.
    let asked = query(
        "SELECT @@sql_mode AS modes, @@time_zone AS zone, @@tx_isolation AS isolation, @@tx_read_only AS ro, @@max_statement_time AS t, \
         @@net_write_timeout AS n, @@lock_wait_timeout AS l, @@character_set_results AS c",
    );
    let columns = to_wire(&snapshot.columns(&asked).await.unwrap());
    let found = rows(snapshot.as_mut(), &asked, &columns).await.remove(0);
    let found: Vec<&str> = found.iter().map(|text| text.as_deref().unwrap()).collect();
    assert_eq!(found, [session::SQL_MODE, "+00:00", "REPEATABLE-READ", "1", "3600", "3600", "30", "utf8mb4"]);
    snapshot.close().await;
}

#[tokio::test]
async fn a_login_that_may_write_is_told() {
    let place = Place::new();
    assert_eq!(place.open().await.warnings(), Vec::<String>::new());
    let writer = open(ServerConfig { user: WRITER.to_owned(), ..place.config() }).await.unwrap().warnings();
    assert_eq!(writer.len(), 1);
    assert!(writer[0].contains("`writer`@`%`") || writer[0].contains("writer@%"), "{}", writer[0]);
    assert!(
        writer[0].contains("may write (ALL PRIVILEGES on `t\\\\_%`.*)") || writer[0].contains("may write (ALL PRIVILEGES on"),
        "{}",
        writer[0]
    );
    // Through a role.
    let name = &place.database.name;
    place.database.run_as(
        "root",
        &format!(
            "CREATE ROLE role_{name}; GRANT UPDATE ON {name}.* TO role_{name}; CREATE USER user_{name} IDENTIFIED BY '{PASSWORD}'; \
             GRANT SELECT ON {name}.* TO user_{name}; GRANT role_{name} TO user_{name}; SET DEFAULT ROLE role_{name} FOR user_{name};"
        ),
    );
    let warnings = open(ServerConfig { user: format!("user_{name}"), ..place.config() }).await.unwrap().warnings();
    assert!(warnings[0].contains(&format!("may write (UPDATE on `{name}`.*)")), "{warnings:?}");
}

#[tokio::test]
async fn nothing_can_be_written() {
    let place = Place::new();
    place.database.run("CREATE TABLE t (a INT)");
    let mut snapshot = open(ServerConfig { user: WRITER.to_owned(), ..place.config() }).await.unwrap();
    for sql in ["DELETE FROM t", "INSERT INTO t VALUES (1) RETURNING a", "SELECT 1 AS a; DELETE FROM t", "DROP TABLE t", "COMMIT"]
    {
        let failure = snapshot.columns(&query(sql)).await.unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (Code::ErpQuery, Disposition::Park), "{sql}");
    }
    // Also not where nobody has looked at the query before.
    let table = query("INSERT INTO t VALUES (1) RETURNING a");
    let columns = [Column { name: "a".parse().unwrap(), sql_type: SqlType::BigInt, nullable: true }];
    let (mut sink, _feed) = RowSink::new(1);
    assert_eq!(snapshot.rows(&all_of(&table, &columns), &mut sink).await.unwrap_err().code(), Code::ErpQuery);
    assert_eq!(place.database.run("SELECT COUNT(*) FROM t").trim(), "0");
}
