//! What goes wrong, and what is given up.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use towpath_servers::Postgres;
use towpath_transfer::{Code, Disposition, Failure};

use super::benches::{Config, MariaDbBench, PostgresBench, SqliteBench, source, with};
use crate::{
    config::{OdbcConfig, OdbcIsolation, TableConfig},
    extract::source::{
        RowSink, SourceSnapshot,
        conformance::{all_of, query, to_wire, whole},
    },
};

async fn refused(odbc: OdbcConfig) -> Failure {
    source(odbc).open(&CancellationToken::new()).await.unwrap_err()
}

#[tokio::test]
async fn a_login_that_is_refused_is_parked_and_its_password_not_told() {
    let (postgres, mariadb) = (PostgresBench::new(), MariaDbBench::new());
    for config in [&postgres.config, &mariadb.config] {
        let wrong = Config::new(config.odbc.connection.clone(), "reader", "not-the-password");
        let failure = refused(wrong.odbc.clone()).await;
        assert_eq!((failure.code(), failure.disposition()), (Code::ErpRefused, Disposition::Park), "{failure}");
        assert!(!format!("{failure} {failure:?}").contains("not-the-password"), "{failure:?}");
    }
}

#[tokio::test]
async fn a_password_may_have_any_characters() {
    let (postgres, mariadb) = (PostgresBench::new(), MariaDbBench::new());
    let user = format!("odd_{}", postgres.database.name);
    postgres.database.run_as("postgres", &format!("CREATE ROLE {user} LOGIN PASSWORD 'a;b{{c=d ä+%'"));
    let config = Config::new(postgres.config.odbc.connection.clone(), &user, "a;b{c=d ä+%");
    config.open().await.unwrap();
    let user = format!("odd_{}", mariadb.database.name);
    mariadb
        .database
        .run_as("root", &format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'a;b{{c=d ä+%'; GRANT SELECT ON *.* TO '{user}'@'%'"));
    Config::new(mariadb.config.odbc.connection.clone(), &user, "a;b{c=d ä+%").open().await.unwrap();
}

#[tokio::test]
async fn a_driver_that_is_not_installed_is_told_with_what_to_do() {
    for connection in ["Driver={No Such Driver};Server=x", "Driver=/usr/lib/none.so", "DSN=towpath-none"] {
        let failure = refused(Config::new(connection.to_owned(), "", "").odbc.clone()).await;
        assert_eq!((failure.code(), failure.disposition()), (Code::ConfigInvalid, Disposition::Park), "{failure}");
        assert!(failure.message().contains("install the driver"), "{failure}");
    }
}

#[tokio::test]
async fn an_isolation_that_the_database_has_not_is_refused() {
    let bench = PostgresBench::new();
    let mut odbc = bench.config.odbc.clone();
    odbc.isolation = OdbcIsolation::Snapshot;
    let failure = refused(odbc.clone()).await;
    assert_eq!(failure.code(), Code::ConfigInvalid, "{failure}");
    odbc.isolation = OdbcIsolation::ReadCommitted;
    let snapshot = source(odbc).open(&CancellationToken::new()).await.unwrap();
    assert!(!snapshot.snapshot().consistent);
    assert_eq!(snapshot.snapshot().isolation, "read committed");
    assert!(snapshot.warnings().iter().any(|warning| warning.contains("not of one state")));
}

/// Takes so long that nobody waits for it, and gives no row before.
const POSTGRES_LONG: &str = "SELECT count(*) AS n FROM generate_series(1, 1000000000000) i WHERE i % 7 = 3";
const MARIADB_LONG: &str = "SELECT COUNT(*) AS n FROM seq_1_to_1000000000000 s WHERE s.seq % 7 = 3";

async fn read(snapshot: &mut dyn SourceSnapshot, table: &TableConfig) -> Result<(), Failure> {
    let columns = to_wire(&snapshot.columns(table).await?);
    let (mut sink, _feed) = RowSink::new(columns.len());
    snapshot.rows(&all_of(table, &columns), &mut sink).await
}

#[tokio::test]
async fn a_statement_has_a_timeout() {
    let (postgres, mariadb) = (PostgresBench::new(), MariaDbBench::new());
    for (config, sql) in [(&postgres.config, POSTGRES_LONG), (&mariadb.config, MARIADB_LONG)] {
        let odbc = OdbcConfig { statement_timeout: Duration::from_millis(1_000), ..config.odbc.clone() };
        // On a slow machine an earlier statement may take the second.
        let reading = async {
            let mut snapshot = source(odbc).open(&CancellationToken::new()).await?;
            read(snapshot.as_mut(), &query(sql)).await
        };
        let failure = reading.await.unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (Code::ErpLocked, Disposition::Retry), "{failure:?}");
    }
}

/// Waits until the database runs a statement with `part` in it, or none.
async fn until(running: bool, look: impl Fn() -> String) {
    loop {
        let found = look();
        if (found.trim() != "0") == running {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_ends_on_the_server_too() {
    let (postgres, mariadb) = (PostgresBench::new(), MariaDbBench::new());
    let name = &postgres.database.name;
    let in_postgres = || {
        let sql =
            format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND usename = 'reader' AND state = 'active'");
        postgres.database.run_as("postgres", &sql)
    };
    let name = &mariadb.database.name;
    let in_mariadb = || {
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{name}' AND user = 'reader' AND command <> 'Sleep'"
        );
        mariadb.database.run_as("root", &sql)
    };
    let cases: [(&Config, &str, &(dyn Fn() -> String + Sync)); 2] =
        [(&postgres.config, POSTGRES_LONG, &in_postgres), (&mariadb.config, MARIADB_LONG, &in_mariadb)];
    for (config, sql, look) in cases {
        let mut snapshot = config.open().await.unwrap();
        let table = query(sql);
        tokio::select! {
            done = read(snapshot.as_mut(), &table) => panic!("{done:?}"),
            () = until(true, look) => {}
        }
        until(false, look).await;
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_tried_again() {
    let server = Postgres::start();
    let database = server.database();
    database.run("CREATE TABLE t (x INTEGER)");
    let bench = PostgresBench::new();
    let connection =
        bench.config.odbc.connection.replace(&format!("Port={}", bench.database.port), &format!("Port={}", database.port));
    let connection = connection.replace(&bench.database.name, &database.name);
    let odbc = OdbcConfig { connection, ..bench.config.odbc.clone() };
    let mut snapshot = source(odbc.clone()).open(&CancellationToken::new()).await.unwrap();
    snapshot.columns(&whole("t")).await.unwrap();
    drop(server);
    let failure = read(snapshot.as_mut(), &whole("t")).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpMissing, Disposition::Retry), "{failure:?}");
    // Nobody gives this port to a test.
    let connection = odbc.connection.replace(&format!("Port={}", database.port), "Port=1");
    assert_eq!(refused(OdbcConfig { connection, ..odbc }).await.code(), Code::ErpMissing);
}

#[tokio::test]
async fn a_query_that_fails_while_it_runs_names_its_table() {
    let bench = SqliteBench::new().await;
    let mut snapshot = bench.config.open().await.unwrap();
    // A query that fails while it is run, not before.
    let failure = read(snapshot.as_mut(), &query("SELECT abs(-9223372036854775807 - 1) AS x")).await.unwrap_err();
    assert_eq!(failure.code(), Code::ErpQuery, "{failure:?}");
    assert!(failure.message().contains("by_query"), "{failure}");
}

#[tokio::test]
async fn parameters_are_refused() {
    let (postgres, mariadb, sqlite) = (PostgresBench::new(), MariaDbBench::new(), SqliteBench::new().await);
    for config in [&postgres.config, &mariadb.config, &sqlite.config] {
        let mut snapshot = config.open().await.unwrap();
        let failure = snapshot.columns(&query("SELECT ? AS x")).await.unwrap_err();
        assert_eq!(failure.code(), Code::ErpQuery);
        assert!(failure.message().contains("parameters"), "{failure}");
    }
}

#[tokio::test]
async fn a_transaction_is_for_reading_only() {
    let (postgres, sqlite) = (PostgresBench::new(), SqliteBench::new().await);
    postgres.database.run("CREATE TABLE t (x INTEGER); CREATE FUNCTION f() RETURNS INTEGER LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING x'; ALTER FUNCTION f() SECURITY DEFINER");
    let writer = OdbcConfig { user: Some(towpath_servers::WRITER.to_owned()), ..postgres.config.odbc.clone() };
    let mut snapshot = source(writer).open(&CancellationToken::new()).await.unwrap();
    let failure = read(snapshot.as_mut(), &query("SELECT f() AS x")).await.unwrap_err();
    assert_eq!(failure.code(), Code::ErpQuery, "{failure:?}");
    drop(snapshot);
    let missing = with(&sqlite.config.odbc, "erp.sqlite", "none.sqlite");
    assert_eq!(refused(missing).await.code(), Code::ErpMissing);
    assert!(!sqlite.config.folder().join("none.sqlite").exists());
    drop(Arc::new(sqlite));
}
