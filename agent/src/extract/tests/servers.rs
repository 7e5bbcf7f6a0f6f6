//! The whole extract over real database servers: memory that does not depend on the table, and one snapshot while others write.

use towpath_servers::{PASSWORD, Postgres, READER};
use towpath_transfer::Secret;

use super::*;
use crate::config::{DEFAULT_STATEMENT_TIMEOUT, ServerConfig, Tls};

/// What the agent may hold, whatever the size of a table.
const MEMORY_LIMIT: u64 = 64 * 1024 * 1024;
/// Rows of the large table; each has about 100 bytes of CSV.
const MANY: u64 = 4_000_000;

/// A request for `tables` of a server's database, and the folders that it works in.
pub(super) struct Asked {
    dir: tempfile::TempDir,
    pub(super) request: ExtractRequest,
}

impl Asked {
    /// `source` makes the configuration from the server's login.
    pub(super) fn of(source: impl FnOnce(Secret) -> SourceConfig, tables: Vec<TableConfig>) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (password, folder) = (dir.path().join("password"), dir.path().join("transfer"));
        std::fs::write(&password, PASSWORD).unwrap();
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::create_dir(&folder).unwrap();
        let job = JobConfig::new("main".parse().unwrap(), source(Secret::File(password)), tables);
        let request = ExtractRequest { job, folder, previous: None, full: false, anew: BTreeSet::new(), form: Form::Packed };
        Self { dir, request }
    }

    /// Extracts again, into the same folder.
    pub(super) async fn extract(&self) -> Extracted {
        assert!(self.dir.path().exists());
        run(self.request.clone()).await.unwrap()
    }
}

fn postgres(database: &towpath_servers::PostgresDatabase, tables: Vec<TableConfig>) -> Asked {
    let source = |password| {
        SourceConfig::PostgreSql(ServerConfig {
            host: database.host.clone(),
            port: database.port,
            database: database.name.clone(),
            user: READER.to_owned(),
            password: Some(password),
            tls: Tls::Verify,
            ca: Some(database.ca.clone()),
            statement_timeout: DEFAULT_STATEMENT_TIMEOUT,
        })
    };
    Asked::of(source, tables)
}

/// The most memory that this process has held so far.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Extracts a table `many` of [`MANY`] rows. For a process of its own, as each test has where the suite runs.
pub(super) async fn assert_flat(asked: &Asked) {
    let extracted = asked.extract().await;
    assert_eq!(table(&extracted.files[0]).rows, MANY);
    let (size, peak) = (extracted.files[0].size, peak_memory());
    println!("{MANY} rows, {size} bytes of CSV, {peak} bytes of memory at most");
    assert!(size > 380_000_000, "{size}");
    assert!(peak < MEMORY_LIMIT, "{peak}");
}

/// Takes an extract again and again while `write` goes on moving an amount from table `a` to table `b`, each time in one transaction;
/// the two tables must always add up to the same.
pub(super) async fn assert_one_snapshot(asked: &Asked, write: impl Fn() + Send + 'static) {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let writer = std::thread::spawn(move || {
        while !stopped.is_cancelled() {
            write();
        }
    });
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        let extracted = asked.extract().await;
        let sum = |at: usize| table(&extracted.files[at]).totals[0].sum.to_string().parse::<i64>().unwrap();
        assert_eq!(sum(0) + sum(1), 1_000_000);
        seen.insert(sum(0));
    }
    stop.cancel();
    writer.join().unwrap();
    println!("50 extracts saw {} states", seen.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_memory_with_postgresql() {
    let server = Postgres::get();
    let database = server.database();
    database.run(&format!(
        "CREATE TABLE many AS SELECT n::bigint AS id, 'SO-' || n AS order_no, date '2020-01-01' + n % 1500 AS day, n % 977 AS customer, \
         ((n % 40) + 0.125)::numeric(12,3) AS quantity, (n * 31 % 100000 / 100.0)::numeric(12,4) AS price, md5(n::text) AS note, \
         timestamptz '2024-01-01 12:00:00+00' + n * interval '1 second' AS booked FROM generate_series(1, {MANY}) n"
    ));
    assert_flat(&postgres(&database, vec![whole("many")])).await;
}

#[tokio::test]
async fn postgresql_is_read_in_one_snapshot() {
    let server = Postgres::get();
    let database = server.database();
    database.run("CREATE TABLE a (amount bigint); CREATE TABLE b (amount bigint); INSERT INTO a VALUES (1000000); INSERT INTO b VALUES (0)");
    let asked = postgres(&database, vec![whole("a"), whole("b")]);
    let move_some = "UPDATE a SET amount = amount - 1; SELECT pg_sleep(0.001); UPDATE b SET amount = amount + 1";
    assert_one_snapshot(&asked, move || drop(database.run(move_some))).await;
}
