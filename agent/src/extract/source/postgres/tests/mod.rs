//! PostgreSQL as a source, over real servers.

mod failures;
mod rights;
mod torture;

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_servers::{PASSWORD, Postgres, PostgresDatabase, READER, WRITER};
use towpath_transfer::{Secret, clock::ManualClock};

use super::*;
use crate::{
    config::{DEFAULT_STATEMENT_TIMEOUT, Tls},
    extract::source::conformance::{self, Bench},
};

/// A database, and the password in a file.
pub(super) struct PostgresBench {
    pub(super) server: Postgres,
    pub(super) database: PostgresDatabase,
    pub(super) dir: tempfile::TempDir,
}

impl PostgresBench {
    pub(super) fn new() -> Self {
        Self::of(Postgres::get())
    }

    /// With a server that no other test uses.
    pub(super) fn private() -> Self {
        Self::of(Postgres::start())
    }

    fn of(server: Postgres) -> Self {
        let dir = tempfile::tempdir().unwrap();
        secret(dir.path(), PASSWORD);
        Self { database: server.database(), server, dir }
    }

    /// By TCP, as the login that may only read.
    pub(super) fn config(&self) -> ServerConfig {
        ServerConfig {
            host: self.database.host.clone(),
            port: self.database.port,
            database: self.database.name.clone(),
            user: READER.to_owned(),
            password: Some(Secret::File(self.dir.path().join("password"))),
            tls: Tls::Prefer,
            ca: None,
            statement_timeout: DEFAULT_STATEMENT_TIMEOUT,
        }
    }

    pub(super) async fn open(&self) -> Box<dyn SourceSnapshot> {
        open(self.config()).await.unwrap()
    }
}

/// A file that only we may read.
fn secret(dir: &std::path::Path, password: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join("password");
    std::fs::write(&path, password).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn source(config: ServerConfig) -> PostgresSource {
    PostgresSource::new(config, Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH)))
}

pub(super) async fn open(config: ServerConfig) -> Result<Box<dyn SourceSnapshot>, Failure> {
    source(config).open(&CancellationToken::new()).await
}

#[async_trait]
impl Bench for PostgresBench {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(source(self.config()))
    }

    fn missing(&self) -> Arc<dyn Source> {
        Arc::new(source(ServerConfig { host: self.dir.path().display().to_string(), ..self.config() }))
    }

    fn writer(&self) -> Option<Arc<dyn Source>> {
        Some(Arc::new(source(ServerConfig { user: WRITER.to_owned(), ..self.config() })))
    }

    async fn run(&self, sql: &str) {
        self.database.run(sql);
    }
}

#[tokio::test]
async fn conforms() {
    conformance::all(&PostgresBench::new()).await;
}

#[tokio::test]
async fn the_snapshot_is_read_only_and_says_what_it_is() {
    let bench = PostgresBench::new();
    bench.database.run(
        "CREATE TABLE t (id int); CREATE FUNCTION put() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING id'",
    );
    let mut snapshot = open(ServerConfig { user: WRITER.to_owned(), ..bench.config() }).await.unwrap();
    let told = snapshot.snapshot();
    assert_eq!((told.isolation.as_str(), told.consistent), ("repeatable read", true));
    assert!(told.id.contains(" at ") && told.id.contains("PostgreSQL"), "{}", told.id);
    let table = conformance::query("SELECT put()");
    let columns = conformance::to_wire(&snapshot.columns(&table).await.unwrap());
    let (mut sink, _feed) = RowSink::new(1);
    let failure = snapshot.rows(&conformance::all_of(&table, &columns), &mut sink).await.unwrap_err();
    assert_eq!(failure.code(), towpath_transfer::Code::ErpQuery);
    assert!(failure.message().contains("only read"), "{failure}");
    drop(snapshot);
    assert_eq!(bench.database.run("SELECT count(*) FROM t").trim(), "0");
}

#[tokio::test]
async fn by_unix_socket_and_by_tls() {
    let bench = PostgresBench::new();
    let socket = ServerConfig { host: bench.database.socket.display().to_string(), tls: Tls::Verify, ..bench.config() };
    let verified = ServerConfig { tls: Tls::Verify, ca: Some(bench.database.ca.clone()), ..bench.config() };
    let off = ServerConfig { tls: Tls::Off, ..bench.config() };
    let encrypted = conformance::query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    for (config, expected) in [(socket, "false"), (verified, "true"), (bench.config(), "true"), (off, "false")] {
        let mut snapshot = open(config.clone()).await.unwrap();
        let columns = conformance::to_wire(&snapshot.columns(&encrypted).await.unwrap());
        let found = conformance::rows_of(snapshot.as_mut(), &conformance::all_of(&encrypted, &columns)).await;
        assert_eq!(found, [[Some(expected.to_owned())]], "{config:?}");
    }
}
