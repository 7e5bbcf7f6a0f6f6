//! Memory does not depend on the number of rows.

use std::process::{Child, Stdio};

use towpath_testkit::Program;

use super::erp::{Database, Erp, Way};
use crate::executable;

/// Rows of the long form, about 100 bytes of CSV each.
const ROWS: u64 = 4_000_000;
/// The most memory that an agent may have resident while it extracts, in KiB.
const MOST_RESIDENT_KIB: u64 = 64 * 1024;
/// The pause between two looks at a running program.
const LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// The most memory that the process ever had resident, in KiB, once it has ended well.
fn peak(mut child: Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        // The kernel keeps the high-water mark; a process that has ended has none.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let mark = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|rest| rest.trim().strip_suffix(" kB"));
        peak = mark.and_then(|kib| kib.trim().parse().ok()).unwrap_or(0).max(peak);
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "the agent ended with {ended}");
            return peak;
        }
        #[expect(clippy::disallowed_methods, reason = "a look now and then, while another program works")]
        std::thread::sleep(LOOK);
    }
}

fn fill(erp: &Erp, rows: u64) {
    let words = "'Item of the assortment with a name of some length ' ";
    match erp.database {
        Database::Postgres(..) => erp.run(&format!(
            "CREATE TABLE many AS SELECT n::bigint AS id, (n * 0.25)::numeric(14,2) AS price, {words} || n AS name, \
             DATE '2020-01-01' + (n % 2000)::int AS day FROM generate_series(1, {rows}) n"
        )),
        Database::MariaDb(..) => erp.run(&format!(
            "CREATE TABLE many (id BIGINT, price DECIMAL(14,2), name VARCHAR(80), day DATE) AS SELECT seq AS id, seq * 0.25 AS price, \
             concat({words}, seq) AS name, date_add('2020-01-01', INTERVAL seq % 2000 DAY) AS day FROM seq_1_to_{rows}"
        )),
        Database::Sqlite(_) => erp.run(&format!(
            "CREATE TABLE many (id BIGINT, price DECIMAL(14,2), name TEXT, day DATE); INSERT INTO many WITH RECURSIVE s(n) AS \
             (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {rows}) SELECT n, n * 0.25, {words} || n, \
             date('2020-01-01', (n % 2000) || ' days') FROM s"
        )),
    };
}

#[expect(clippy::print_stdout, reason = "the figure is what the long form is run for")]
fn stays_small(erp: &Erp, rows: u64) {
    fill(erp, rows);
    let dir = tempfile::tempdir().unwrap();
    let agent = Program::new(executable(), dir.path(), "agent", "agent");
    agent.configure(&erp.job("[[job.table]]\nname = \"many\"\n"));
    let out = dir.path().join("out");
    let child =
        agent.command(&["extract", "--out", out.to_str().unwrap()]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let peak = peak(child);
    let bytes = std::fs::metadata(out.join("many.csv")).unwrap().len();
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["files"][0]["content"]["rows"], rows);
    println!("{rows} rows, {bytes} bytes of CSV, at most {peak} KiB resident");
    assert!(peak > 0 && peak <= MOST_RESIDENT_KIB, "{peak} KiB resident for {bytes} bytes of CSV");
}

/// A tenth of the long form's rows: what grows with them would already be too much.
#[test]
fn postgres_extract_stays_small() {
    stays_small(&Erp::postgres(Way::Native), ROWS / 10);
}

#[test]
fn mariadb_extract_stays_small() {
    stays_small(&Erp::mariadb(Way::Native), ROWS / 10);
}

#[test]
fn odbc_extract_of_postgres_stays_small() {
    stays_small(&Erp::postgres(Way::Odbc), ROWS / 10);
}

#[test]
fn long_four_million_rows_of_postgres() {
    stays_small(&Erp::postgres(Way::Native), ROWS);
}

#[test]
fn long_four_million_rows_of_mariadb() {
    stays_small(&Erp::mariadb(Way::Native), ROWS);
}

#[test]
fn long_four_million_rows_of_sqlite() {
    stays_small(&Erp::sqlite(Way::Native), ROWS);
}

#[test]
fn long_four_million_rows_of_postgres_by_odbc() {
    stays_small(&Erp::postgres(Way::Odbc), ROWS);
}
