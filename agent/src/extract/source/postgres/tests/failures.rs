//! Every failure, caused.

use std::{process::Command, time::Duration};

use towpath_transfer::{Code, Disposition};

use super::*;
use crate::extract::source::Feed;

async fn refused(config: ServerConfig) -> (Code, Disposition, String) {
    told(&open(config).await.unwrap_err())
}

fn told(failure: &Failure) -> (Code, Disposition, String) {
    let mut text = failure.message().to_owned();
    let mut source = std::error::Error::source(failure);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    (failure.code(), failure.disposition(), text)
}

async fn wire(snapshot: &mut dyn SourceSnapshot, table: &TableConfig) -> Vec<towpath_transfer::manifest::Column> {
    conformance::to_wire(&snapshot.columns(table).await.unwrap())
}

async fn failed(snapshot: &mut dyn SourceSnapshot, table: &TableConfig) -> (Code, Disposition, String) {
    let columns = wire(snapshot, table).await;
    let (mut sink, _feed) = RowSink::new(columns.len());
    told(&snapshot.rows(&conformance::all_of(table, &columns), &mut sink).await.unwrap_err())
}

#[tokio::test]
async fn a_login_that_is_refused() {
    let bench = PostgresBench::new();
    secret(bench.dir.path(), "wrong");
    let (code, disposition, text) = refused(bench.config()).await;
    assert_eq!((code, disposition), (Code::ErpRefused, Disposition::Park));
    assert!(text.contains("password authentication failed"), "{text}");
    let (code, ..) = refused(ServerConfig { password: None, ..bench.config() }).await;
    assert_eq!(code, Code::ErpRefused);
    let absent = Some(Secret::Variable("TOWPATH_TEST_NO_SUCH_VARIABLE".to_owned()));
    let (code, _, text) = refused(ServerConfig { password: absent, ..bench.config() }).await;
    assert_eq!(code, Code::SecretUnusable);
    assert!(text.contains("the password of the database user reader"), "{text}");
}

#[tokio::test]
async fn a_database_or_server_that_is_not_there() {
    let bench = PostgresBench::new();
    let (code, disposition, text) = refused(ServerConfig { database: "no_such".to_owned(), ..bench.config() }).await;
    assert_eq!((code, disposition), (Code::ErpMissing, Disposition::Retry), "{text}");
    let unknown = ServerConfig { host: "no-such-host.invalid".to_owned(), ..bench.config() };
    let (code, disposition, text) = refused(unknown).await;
    assert_eq!((code, disposition), (Code::ErpMissing, Disposition::Retry), "{text}");
    // Nobody gives this port to a test.
    let (code, disposition, text) = refused(ServerConfig { port: 1, ..bench.config() }).await;
    assert_eq!((code, disposition), (Code::ErpMissing, Disposition::Retry), "{text}");
}

#[tokio::test]
async fn a_server_that_never_answers() {
    let bench = PostgresBench::new();
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = ServerConfig { host: "127.0.0.1".to_owned(), port: deaf.local_addr().unwrap().port(), ..bench.config() };
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let source = PostgresSource::new(config, clock.clone());
    let cancel = CancellationToken::new();
    let opening = source.open(&cancel);
    let time = async {
        loop {
            clock.advance(CONNECT);
            tokio::task::yield_now().await;
        }
    };
    let failure = tokio::select! {
        opened = opening => opened.unwrap_err(),
        () = time => unreachable!(),
    };
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpMissing, Disposition::Retry));
    assert!(failure.message().contains("within 30s"), "{failure}");
}

#[tokio::test]
async fn a_certificate_that_is_not_accepted() {
    let bench = PostgresBench::new();
    let verify = ServerConfig { tls: Tls::Verify, ca: Some(bench.database.ca.clone()), ..bench.config() };
    // Another name than the certificate's, for the same address.
    let other_name = ServerConfig { host: "127.0.0.2".to_owned(), ..verify.clone() };
    let system_only = ServerConfig { ca: None, ..verify.clone() };
    let server = Postgres::get();
    let other_ca = bench.dir.path().join("other.crt");
    make_certificate(&other_ca);
    drop(server);
    let other_ca = ServerConfig { ca: Some(other_ca), ..verify.clone() };
    for config in [system_only, other_ca] {
        let (code, disposition, text) = refused(config).await;
        assert_eq!((code, disposition), (Code::ErpRefused, Disposition::Park), "{text}");
        assert!(text.contains("certificate"), "{text}");
    }
    // The server listens on 127.0.0.1 only; a relay in between gives it another address.
    let relay = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = relay.local_addr().unwrap().port();
    let to = bench.database.port;
    tokio::spawn(async move {
        let (mut client, _) = relay.accept().await.unwrap();
        let mut server = tokio::net::TcpStream::connect(("127.0.0.1", to)).await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
    });
    let (code, _, text) = refused(ServerConfig { port, ..other_name }).await;
    assert_eq!(code, Code::ErpRefused, "{text}");
    assert!(text.contains("not valid for"), "{text}");
    for ca in ["missing.crt", "password"] {
        let config = ServerConfig { ca: Some(bench.dir.path().join(ca)), ..verify.clone() };
        assert_eq!(refused(config).await.0, Code::ConfigInvalid, "{ca}");
    }
}

fn make_certificate(at: &std::path::Path) {
    let made = Command::new("openssl")
        .args(["req", "-new", "-x509", "-days", "30", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-subj", "/CN=localhost", "-keyout"])
        .arg(at.with_extension("key"))
        .arg("-out")
        .arg(at)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn a_server_with_tls_only() {
    let bench = PostgresBench::private();
    let variable = bench.server.variable();
    let (folder, _) = variable.rsplit_once(':').unwrap();
    let rules = "local all all trust\nhostssl all all all scram-sha-256\n";
    std::fs::write(format!("{folder}/data/pg_hba.conf"), rules).unwrap();
    bench.database.run_as("postgres", "SELECT pg_reload_conf()");
    // The server takes the new rules when it gets to it.
    let off = ServerConfig { tls: Tls::Off, ..bench.config() };
    let failure = loop {
        if let Err(failure) = open(off.clone()).await {
            break failure;
        }
    };
    let (code, disposition, text) = told(&failure);
    assert_eq!((code, disposition), (Code::ErpRefused, Disposition::Park));
    assert!(text.contains("no encryption"), "{text}");
    bench.open().await;
}

#[tokio::test]
async fn a_server_without_tls() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let bench = PostgresBench::new();
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut client, _) = server.accept().await.unwrap();
        // What asks for TLS has eight bytes, and this is the answer of a server that has none.
        client.read_exact(&mut [0; 8]).await.unwrap();
        client.write_all(b"N").await.unwrap();
        drop(client.read(&mut [0; 1]).await);
    });
    let verify = ServerConfig { tls: Tls::Verify, ca: Some(bench.database.ca.clone()), port, ..bench.config() };
    let (code, disposition, text) = refused(verify).await;
    assert_eq!((code, disposition), (Code::ErpRefused, Disposition::Park));
    assert!(text.contains("cannot be encrypted"), "{text}");
}

#[tokio::test]
async fn a_right_that_is_missing() {
    let bench = PostgresBench::new();
    let user = format!("{}_nobody", bench.database.name);
    bench.database.run("CREATE TABLE secret (id int)");
    bench.database.run_as("postgres", &format!("CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'"));
    let mut snapshot = open(ServerConfig { user, ..bench.config() }).await.unwrap();
    // Preparing looks at names and types only; the rights are looked at when rows are read.
    let (code, disposition, text) = failed(snapshot.as_mut(), &conformance::whole("secret")).await;
    assert_eq!((code, disposition), (Code::ErpRefused, Disposition::Park), "{text}");
    assert!(text.contains("permission denied for table secret"), "{text}");
}

#[tokio::test]
async fn a_statement_that_takes_too_long() {
    let bench = PostgresBench::new();
    let config = ServerConfig { statement_timeout: Duration::from_millis(300), ..bench.config() };
    // On a slow machine an earlier statement may be the one that takes too long.
    let extract = async {
        let mut snapshot = open(config).await?;
        let slow = conformance::query("SELECT pg_sleep(600)::text");
        let columns = conformance::to_wire(&snapshot.columns(&slow).await?);
        let (mut sink, _feed) = RowSink::new(columns.len());
        snapshot.rows(&conformance::all_of(&slow, &columns), &mut sink).await
    };
    let (code, disposition, text) = told(&extract.await.unwrap_err());
    assert_eq!((code, disposition), (Code::ErpLocked, Disposition::Retry), "{text}");
    assert!(text.contains("300ms") && text.contains("statement_timeout"), "{text}");
}

#[tokio::test]
async fn a_table_that_is_locked() {
    let bench = PostgresBench::new();
    bench.database.run("CREATE TABLE t (id int)");
    let database = bench.database.clone();
    let holder = std::thread::spawn(move || {
        // Ended from outside as soon as the test has seen what it wants.
        drop(std::panic::catch_unwind(|| database.run("BEGIN; LOCK TABLE t; SELECT pg_sleep(600)")));
    });
    let locked = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                  WHERE l.mode = 'AccessExclusiveLock' AND l.granted AND l.relation = 't'::regclass AND a.datname = current_database()";
    while bench.database.run(locked).trim() != "1" {}
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let source = PostgresSource::with_lock_timeout(bench.config(), clock, Duration::from_millis(200));
    let mut snapshot = source.open(&CancellationToken::new()).await.unwrap();
    let (code, disposition, text) = told(&snapshot.columns(&conformance::whole("t")).await.unwrap_err());
    assert_eq!((code, disposition), (Code::ErpLocked, Disposition::Retry), "{text}");
    assert!(text.contains("locked what preparing table t needs") && text.contains("200ms"), "{text}");
    bench.database.run_as(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%LOCK TABLE%' AND pid <> pg_backend_pid() \
         AND datname = current_database()",
    );
    holder.join().unwrap();
}

#[tokio::test]
async fn queries_that_are_no_reading() {
    let bench = PostgresBench::new();
    bench.database.run("CREATE TABLE t (id int)");
    let mut snapshot = bench.open().await;
    for (sql, said) in [
        ("SELECT 1; SELECT 2", "multiple commands"),
        ("SELECT $1::int", "parameters"),
        ("DELETE FROM t RETURNING id", "syntax error"),
        ("WITH gone AS (DELETE FROM t RETURNING id) SELECT * FROM gone", "top level"),
        ("SHOW server_version", "syntax error"),
        ("SELECT 1) x, (SELECT 2", "syntax error"),
        ("", "no columns"),
    ] {
        let (code, disposition, text) = told(&snapshot.columns(&conformance::query(sql)).await.unwrap_err());
        assert_eq!((code, disposition), (Code::ErpQuery, Disposition::Park), "{sql}: {text}");
        assert!(text.contains(said), "{sql}: {text}");
    }
    let (code, _, text) = failed(snapshot.as_mut(), &conformance::query("SELECT 1 / (random() * 0)::int")).await;
    assert_eq!(code, Code::ErpQuery, "{text}");
    assert!(text.contains("division by zero"), "{text}");
}

#[tokio::test]
async fn the_server_goes_in_the_middle() {
    let bench = PostgresBench::private();
    let mut snapshot = bench.open().await;
    let many = conformance::query("SELECT repeat('x', 1000) FROM generate_series(1, 100000000)");
    let columns = wire(snapshot.as_mut(), &many).await;
    let (mut sink, mut feed) = RowSink::new(1);
    let process = bench.server.process().unwrap().to_string();
    let read = conformance::all_of(&many, &columns);
    let reading = snapshot.rows(&read, &mut sink);
    let taking = async {
        assert!(matches!(feed.recv().await, Some(Feed::Rows(_))));
        // SIGQUIT is PostgreSQL's immediate shutdown.
        assert!(Command::new("kill").args(["-QUIT", &process]).status().unwrap().success());
        while feed.recv().await.is_some() {}
    };
    let failure = tokio::select! {
        read = reading => read.unwrap_err(),
        () = taking => unreachable!("the sink is still there"),
    };
    let (code, disposition, text) = told(&failure);
    assert_eq!((code, disposition), (Code::ErpMissing, Disposition::Retry), "{text}");
    let again = snapshot.totals(&read).await.unwrap_err();
    assert_eq!(again.code(), Code::Internal);
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let bench = PostgresBench::new();
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let config = bench.config();
    let limit = config.statement_timeout + GRACE;
    let mut snapshot = PostgresSource::new(config, clock.clone()).open(&CancellationToken::new()).await.unwrap();
    let slow = conformance::query("SELECT pg_sleep(600)::text");
    let columns = wire(snapshot.as_mut(), &slow).await;
    let (mut sink, _feed) = RowSink::new(1);
    let read = conformance::all_of(&slow, &columns);
    let failure = {
        let reading = snapshot.rows(&read, &mut sink);
        let time = async {
            while !is_sleeping(&bench).await {}
            loop {
                clock.advance(limit);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            read = reading => read.unwrap_err(),
            () = time => unreachable!(),
        }
    };
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpMissing, Disposition::Retry));
    drop(snapshot);
    while is_sleeping(&bench).await {}
}

/// Whether the server works on our query of ten minutes.
async fn is_sleeping(bench: &PostgresBench) -> bool {
    let database = bench.database.clone();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'towpath-agent' \
               AND state = 'active' AND query LIKE 'COPY%'";
    tokio::task::spawn_blocking(move || database.run_as("postgres", sql).trim() != "0").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_ends_the_work_at_the_server() {
    for sql in ["SELECT pg_sleep(600)::text", "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b"]
    {
        let bench = PostgresBench::new();
        let slow = conformance::query(sql);
        let mut snapshot = bench.open().await;
        let columns = wire(snapshot.as_mut(), &slow).await;
        let (mut sink, _feed) = RowSink::new(1);
        let read = conformance::all_of(&slow, &columns);
        let cancel = CancellationToken::new();
        let reading = cancel.run_until_cancelled(snapshot.rows(&read, &mut sink));
        let stop = async {
            while !is_sleeping(&bench).await {}
            cancel.cancel();
        };
        let (ended, ()) = tokio::join!(reading, stop);
        assert!(ended.is_none());
        let again = snapshot.columns(&conformance::query("SELECT 1")).await.unwrap_err();
        assert!(again.message().contains("given up"), "{again}");
        drop(snapshot);
        while is_sleeping(&bench).await {}
    }
}

#[test]
fn without_a_runtime_the_server_finds_out_by_itself() {
    let bench = PostgresBench::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let slow = conformance::query("SELECT pg_sleep(600)::text");
    let mut snapshot = runtime.block_on(bench.open());
    runtime.block_on(async {
        let columns = wire(snapshot.as_mut(), &slow).await;
        let (mut sink, _feed) = RowSink::new(1);
        let read = conformance::all_of(&slow, &columns);
        tokio::select! {
            _ = snapshot.rows(&read, &mut sink) => unreachable!("it takes ten minutes"),
            () = async { while !is_sleeping(&bench).await {} } => {}
        }
    });
    // The process ends: its socket closes, and nothing else can be done.
    drop(snapshot);
    while runtime.block_on(is_sleeping(&bench)) {}
}
