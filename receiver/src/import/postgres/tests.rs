//! What only PostgreSQL has; everything else is in the suite of every target.

use std::path::PathBuf;

use async_trait::async_trait;
use towpath_host::Tls;
use towpath_servers::{PASSWORD, Postgres, PostgresDatabase, READER, WRITER};
use towpath_transfer::{Code, Disposition, Secret, digest::Sha256Digest, manifest::SqlType};

use super::{
    super::{
        OldRows,
        conformance::{self, Bench, Kind, batch, column, content, id, import, items, merged, owner, record, scope, table},
    },
    *,
};

struct Server {
    server: Postgres,
    database: PostgresDatabase,
    target: PostgresTarget,
    _folder: tempfile::TempDir,
    password: PathBuf,
}

impl Server {
    fn over(server: Postgres) -> Self {
        let database = server.database();
        // Who makes schemas needs a right that the owner of a database has.
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("password");
        write_secret(&password, &format!("{PASSWORD}\n"));
        let target = PostgresTarget::new(Self::config(&database, &password), owner("acme", 1));
        Self { server, database, target, _folder: folder, password }
    }

    fn new() -> Self {
        Self::over(Postgres::get())
    }

    fn config(database: &PostgresDatabase, password: &std::path::Path) -> ServerConfig {
        ServerConfig {
            host: database.host.clone(),
            port: database.port,
            database: database.name.clone(),
            user: WRITER.to_owned(),
            password: Some(Secret::File(password.to_owned())),
            tls: Tls::Prefer,
            ca: None,
        }
    }

    /// A target that differs in its configuration.
    fn with(&self, change: impl FnOnce(&mut ServerConfig)) -> PostgresTarget {
        let mut config = Self::config(&self.database, &self.password);
        change(&mut config);
        PostgresTarget::new(config, owner("acme", 1))
    }

    async fn begin_fails(&self, target: &PostgresTarget) -> Failure {
        target.begin(&scope("main"), id(1)).await.map(|_| ()).unwrap_err()
    }
}

fn write_secret(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[async_trait]
impl Bench for Server {
    fn kind(&self) -> Kind {
        Kind::Postgres
    }

    fn target(&self) -> &dyn ImportTarget {
        &self.target
    }

    fn target_of(&self, owner: Owner) -> Box<dyn ImportTarget> {
        Box::new(PostgresTarget::new(self.target.server.clone(), owner))
    }

    async fn sql(&self, scope: &ImportScope, sql: &str) -> Vec<String> {
        let (database, schema, sql) = (self.database.clone(), quote(&names::schema(scope)), sql.to_owned());
        let found = tokio::task::spawn_blocking(move || database.run(&format!("SET search_path TO {schema}; {sql}"))).await;
        found.unwrap().lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn the_suite_holds() {
    conformance::all(&Server::new()).await;
}

#[tokio::test]
async fn columns_have_real_types() {
    let bench = Server::new();
    let every = [
        SqlType::BigInt,
        SqlType::Decimal { precision: 12, scale: 2 },
        SqlType::Decimal { precision: 1_000, scale: 500 },
        SqlType::Double,
        SqlType::Text,
        SqlType::Boolean,
        SqlType::Date,
        SqlType::Time,
        SqlType::Timestamp,
        SqlType::TimestampTz,
        SqlType::Binary,
    ];
    let columns = every.iter().enumerate().map(|(at, of)| column(&format!("c{at}"), *of, at > 0)).collect();
    let every = table("every", columns, &[]);
    let huge = format!("-{}.{}", "9".repeat(500), "9".repeat(500));
    let mut row = vec![None; every.columns.len()];
    (row[0], row[2]) = (Some("1"), Some(&*huge));
    import(&bench, &scope("main"), 1, &every, OldRows::Removed, &[&row]).await.unwrap();
    let types = "SELECT format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END \
                 FROM pg_attribute WHERE attrelid = 'every'::regclass AND attnum > 0 ORDER BY attnum";
    let expected = [
        "bigint NOT NULL",
        "numeric(12,2)",
        "numeric(1000,500)",
        "double precision",
        "text",
        "boolean",
        "date",
        "time without time zone",
        "timestamp without time zone",
        "timestamp with time zone",
        "bytea",
    ];
    assert_eq!(bench.sql(&scope("main"), types).await, expected);
    assert_eq!(bench.sql(&scope("main"), "SELECT c2 FROM every").await, [huge]);
}

#[tokio::test]
async fn what_it_cannot_keep_is_refused_and_nothing_is_there() {
    let bench = Server::new();
    let scope = scope("main");
    for (n, (sql_type, value)) in [
        (SqlType::Timestamp, "2024-01-02T03:04:05.1234567"),
        (SqlType::Time, "03:04:05.000000001"),
        (SqlType::TimestampTz, "2024-01-02T03:04:05+23:59"),
        (SqlType::Date, "0000-01-01"),
        (SqlType::Text, "a\0b"),
    ]
    .into_iter()
    .enumerate()
    {
        let one = table("one", vec![column("c", sql_type, true)], &[]);
        let n = u8::try_from(n + 1).unwrap();
        let refused = import(&bench, &scope, n, &one, OldRows::Removed, &[&[None], &[Some(value)]]).await.unwrap_err();
        assert_eq!((refused.code(), refused.disposition()), (Code::ImportRefused, Disposition::Park), "{value}");
        assert!(refused.message().contains("\"c\"") && refused.message().contains("one"), "{refused}");
    }
    for bad in [table(&"ü".repeat(32), items().columns, &[]), table("t", vec![column("ctid", SqlType::Text, true)], &[])] {
        let refused = import(&bench, &scope, 9, &bad, OldRows::Removed, &[]).await.unwrap_err();
        assert_eq!(refused.code(), Code::ImportRefused);
    }
    // Nothing was committed, not even the schema.
    let schemas = bench.database.run("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'erp%'");
    assert_eq!(schemas.trim(), "0");
}

#[tokio::test]
async fn logins_and_servers_that_are_wrong_are_told_apart() {
    let bench = Server::new();
    let wrong = bench.password.with_file_name("wrong");
    write_secret(&wrong, "wrong");
    type Change = Box<dyn FnOnce(&mut ServerConfig)>;
    let (socket, ca) = (bench.database.socket.clone(), bench.database.ca.clone());
    let other_ca = bench.password.with_file_name("other.pem");
    std::fs::write(&other_ca, "nothing").unwrap();
    let cases: [(&str, Code, Disposition, Change); 7] = [
        ("password", Code::ImportFailed, Disposition::Park, Box::new(|c| c.password = Some(Secret::File(wrong)))),
        (
            "no variable",
            Code::SecretUnusable,
            Disposition::Retry,
            Box::new(|c| c.password = Some(Secret::Variable("TOWPATH_NO".into()))),
        ),
        ("database", Code::ImportFailed, Disposition::Retry, Box::new(|c| c.database = "nowhere".into())),
        ("port", Code::ImportFailed, Disposition::Retry, Box::new(|c| c.port = 1)),
        ("right", Code::ImportFailed, Disposition::Park, Box::new(|c| c.user = READER.into())),
        ("authority", Code::ImportFailed, Disposition::Park, Box::new(|c| c.tls = Tls::Verify)),
        ("ca", Code::ConfigInvalid, Disposition::Park, Box::new(|c| (c.tls, c.ca) = (Tls::Verify, Some(other_ca)))),
    ];
    for (what, code, disposition, change) in cases {
        let failure = bench.begin_fails(&bench.with(change)).await;
        assert_eq!((failure.code(), failure.disposition()), (code, disposition), "{what}: {}", failure.report());
    }
    for target in [
        bench.with(|c| (c.tls, c.ca) = (Tls::Verify, Some(ca))),
        bench.with(|c| c.tls = Tls::Off),
        bench.with(|c| c.host = socket.display().to_string()),
    ] {
        target.begin(&scope("main"), id(1)).await.unwrap();
    }
}

#[tokio::test]
async fn a_schema_may_be_made_by_somebody_else() {
    let bench = Server::new();
    let name = &bench.database.name;
    bench
        .database
        .run_as("postgres", &format!("ALTER DATABASE {name} OWNER TO postgres; REVOKE CREATE ON DATABASE {name} FROM PUBLIC"));
    let refused = bench.begin_fails(&bench.target).await;
    assert_eq!((refused.code(), refused.disposition()), (Code::ImportFailed, Disposition::Park));
    assert!(refused.report().contains("permission denied"), "{}", refused.report());
    bench.database.run_as("postgres", &format!("CREATE SCHEMA erp__main AUTHORIZATION {WRITER}"));
    import(&bench, &scope("main"), 1, &items(), OldRows::Removed, &[&[Some("1"), None]]).await.unwrap();
    assert_eq!(content(&bench, &scope("main")).await, ["1/NULL"]);
}

#[tokio::test]
async fn a_view_of_the_app_stays_until_the_columns_change() {
    let bench = Server::new();
    let scope = scope("main");
    import(&bench, &scope, 1, &items(), OldRows::Removed, &[&[Some("1"), Some("a")]]).await.unwrap();
    let _ = bench.sql(&scope, "CREATE VIEW seen AS SELECT k FROM items").await;
    import(&bench, &scope, 2, &items(), OldRows::Removed, &[&[Some("2"), Some("b")]]).await.unwrap();
    assert_eq!(bench.sql(&scope, "SELECT k FROM seen").await, ["2"]);
    let narrow = table("items", vec![column("k", SqlType::BigInt, false)], &["k"]);
    let kept = import(&bench, &scope, 3, &narrow, OldRows::Removed, &[]).await.unwrap_err();
    assert_eq!((kept.code(), kept.disposition()), (Code::ImportFailed, Disposition::Park));
    assert!(kept.report().contains("depend"), "{}", kept.report());
    let _ = bench.sql(&scope, "DROP VIEW seen").await;
    assert_eq!(import(&bench, &scope, 3, &narrow, OldRows::Removed, &[&[Some("3")]]).await.unwrap(), 1);
}

#[tokio::test]
async fn rows_that_the_app_refuses_are_no_fault_of_the_content() {
    let bench = Server::new();
    let scope = scope("main");
    import(&bench, &scope, 1, &items(), OldRows::Removed, &[]).await.unwrap();
    let _ = bench.sql(&scope, "CREATE UNIQUE INDEX one_t ON items (t); ALTER TABLE items ADD CHECK (k > 0)").await;
    let doubled: &[conformance::Fields<'_>] = &[&[Some("1"), Some("a")], &[Some("2"), Some("a")]];
    for (of, rows) in [(items(), doubled), (merged(&items()), doubled), (items(), &[&[Some("-1"), None]])] {
        let failure = import(&bench, &scope, 2, &of, OldRows::Removed, rows).await.unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (Code::ImportFailed, Disposition::Park));
    }
}

#[tokio::test]
async fn an_encoding_without_every_character_is_refused() {
    let bench = Server::new();
    let name = format!("{}_latin", bench.database.name);
    bench.database.run_as("postgres", &format!("CREATE DATABASE {name} OWNER {WRITER} ENCODING 'LATIN1' TEMPLATE template0"));
    let failure = bench.begin_fails(&bench.with(|c| c.database = name)).await;
    assert_eq!((failure.code(), failure.disposition()), (Code::ImportFailed, Disposition::Park));
    assert!(failure.message().contains("LATIN1"), "{failure}");
}

/// A backend that dies takes every other one of its server with it; the server comes back by itself.
#[tokio::test]
async fn a_server_that_dies_in_the_middle_is_tried_again() {
    let bench = Server::over(Postgres::start());
    let scope = scope("main");
    let items = items();
    import(&bench, &scope, 1, &items, OldRows::Removed, &[&[Some("1"), Some("a")]]).await.unwrap();
    let (mut open, ledger) = bench.target.begin(&scope, id(2)).await.unwrap();
    open.start_table(&items, ledger.tables.get(&items.table), OldRows::Removed).await.unwrap();
    open.insert(batch(2, &[&[Some("2"), Some("b")]])).await.unwrap();
    let process = "SELECT pid FROM pg_stat_activity WHERE application_name = 'towpath-receiver'";
    let process = bench.database.run_as("postgres", process).trim().to_owned();
    assert!(bench.server.process().is_some_and(|server| server.to_string() != process));
    assert!(std::process::Command::new("kill").args(["-KILL", &process]).status().unwrap().success());
    // The connection's end shows with one of the next batches, at the latest with the commit.
    let mut failure = None;
    for _ in 0..100 {
        if let Err(error) = open.insert(batch(2, &[&[Some("3"), Some("c")]])).await {
            failure = Some(error);
            break;
        }
    }
    let failure = failure.expect("the server lives on");
    assert_eq!((failure.code(), failure.disposition()), (Code::ImportFailed, Disposition::Retry), "{}", failure.report());
    drop(open);
    // While it recovers it refuses every login in a way that passes.
    let mut opened = bench.target.begin(&scope, id(2)).await;
    while let Err(failure) = opened {
        assert_eq!(failure.disposition(), Disposition::Retry, "{}", failure.report());
        tokio::task::yield_now().await;
        opened = bench.target.begin(&scope, id(2)).await;
    }
    let (mut open, ledger) = opened.unwrap();
    assert_eq!((ledger.this, ledger.tables[&items.table].transfer), (None, id(1)));
    assert_eq!(content(&bench, &scope).await, ["1/a"]);
    open.start_table(&items, ledger.tables.get(&items.table), OldRows::Removed).await.unwrap();
    open.insert(batch(2, &[&[Some("2"), Some("b")]])).await.unwrap();
    open.finish_table(id(2), Sha256Digest::of(b"2")).await.unwrap();
    open.commit(&record(2, &items, 1)).await.unwrap();
    assert_eq!(content(&bench, &scope).await, ["2/b"]);
}

/// Reported: how many rows a second go in. Judged: that memory does not grow with them.
#[tokio::test]
async fn long_memory_is_flat_for_millions_of_rows() {
    /// More than the program has before the first row, and what it may take while rows pass.
    const MOST_KIB: u64 = 32 * 1024;
    let rows = std::env::var("TOWPATH_SPEED_ROWS").map_or(1_000_000, |rows| rows.parse::<u64>().unwrap());
    let bench = Server::new();
    let scope = scope("main");
    let clock = towpath_journal::system::SystemClock::new();
    let columns = vec![
        column("k", SqlType::BigInt, false),
        column("order", SqlType::Text, false),
        column("day", SqlType::Date, true),
        column("amount", SqlType::Decimal { precision: 14, scale: 2 }, true),
        column("note", SqlType::Text, true),
    ];
    let sales = table("sales", columns, &["k"]);
    let mut before = None;
    for (n, of, old) in [(1, sales.clone(), OldRows::Removed), (2, merged(&sales), OldRows::Kept)] {
        let start = towpath_transfer::Clock::monotonic(&clock);
        let (mut open, ledger) = bench.target.begin(&scope, id(n)).await.unwrap();
        open.start_table(&of, ledger.tables.get(&of.table), old).await.unwrap();
        let per_batch = u64::try_from(super::super::MAX_BATCH_ROWS).unwrap();
        for first in (0..rows).step_by(super::super::MAX_BATCH_ROWS) {
            let mut batch = super::super::RowBatch::new(5);
            for k in first..rows.min(first + per_batch) {
                for field in
                    [k.to_string(), format!("SO-{}", k / 3), "2024-02-29".into(), format!("{}.25", k % 10_000), "x\ty".repeat(12)]
                {
                    batch.push(Some(&field));
                }
            }
            open.insert(batch).await.unwrap();
            // The first batches bring what stays: buffers, and the code itself.
            if first == 20 * per_batch && before.is_none() {
                before = Some(high_water());
            }
        }
        assert_eq!(open.finish_table(id(n), Sha256Digest::of(&[n])).await.unwrap(), rows);
        open.commit(&record(n, &of, rows)).await.unwrap();
        let seconds = (towpath_transfer::Clock::monotonic(&clock) - start).as_secs_f64();
        println!("{:?}: {rows} rows in {seconds:.1} s, {} KiB at most", of.mode, high_water());
    }
    let (before, after) = (before.unwrap_or(0), high_water());
    assert!(after < before + MOST_KIB, "{before} KiB after some rows, {after} KiB after {rows}");
}

/// The most memory that this process has had resident, in KiB.
fn high_water() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
