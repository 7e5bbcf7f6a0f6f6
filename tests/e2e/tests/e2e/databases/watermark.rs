//! An incremental table: whatever is written and however late it is committed, the app has what the ERP has in the end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{
    Installation, Target,
    erp::{Database, Erp, Way},
};

/// Rows that the writers write.
const ROWS: u64 = 10_000;
/// Transfers while they write.
const RUNS: usize = 100;
/// Writers at once.
const WRITERS: u64 = 4;
/// Rows of one transaction; they share their time of change to the microsecond.
const ROWS_AT_ONCE: u64 = 20;

const TABLES: &str = "[[job.table]]\nname = \"stock\"\nkey = [\"id\"]\n[job.table.incremental]\nwatermark = [\"changed\"]\n\
                      overlap = \"1m\"\ncompare_keys = \"2s\"\n";

/// Inserts, updates and deletes rows of its own, each transaction held open a little after its rows have their time.
fn write(erp: &Erp, writer: u64, rows: u64, done: &AtomicBool) {
    let mut at = 0;
    while at < rows {
        let first = writer * 1_000_000 + at;
        let last = first + ROWS_AT_ONCE - 1;
        let hold = match erp.database {
            Database::MariaDb(..) => format!("DO sleep({}.0{})", 0, 1 + writer * 2),
            _ => format!("SELECT pg_sleep(0.0{})", 1 + writer * 2),
        };
        let touched = if at >= ROWS_AT_ONCE {
            let old = first - ROWS_AT_ONCE;
            format!(
                "UPDATE stock SET amount = amount + 1, changed = now(6) WHERE id BETWEEN {old} AND {first} - 1; DELETE FROM stock WHERE id = {old}; "
            )
        } else {
            String::new()
        };
        let values: Vec<String> = (first..=last).map(|id| format!("({id}, {id}.5, now(6))")).collect();
        let sql = format!("BEGIN; INSERT INTO stock VALUES {}; {touched}{hold}; COMMIT;", values.join(", "));
        let sql = if matches!(erp.database, Database::MariaDb(..)) {
            sql
        } else {
            sql.replace("now(6)", "clock_timestamp()::timestamp(0)")
        };
        erp.run(&sql);
        at += ROWS_AT_ONCE;
        if done.load(Ordering::Relaxed) {
            return;
        }
    }
}

fn what_the_erp_has(erp: &Erp) -> Vec<String> {
    let sql = match erp.database {
        Database::MariaDb(..) => "SELECT concat(id, ' ', amount) FROM stock ORDER BY id",
        _ => "SELECT id || ' ' || amount FROM stock ORDER BY id",
    };
    erp.run(sql).lines().map(str::to_owned).collect()
}

fn ends_equal(erp: Erp, target: Target, rows: u64, runs: usize) {
    let changed = if matches!(erp.database, Database::MariaDb(..)) { "DATETIME(6)" } else { "TIMESTAMP" };
    erp.run(&format!("CREATE TABLE stock (id BIGINT NOT NULL PRIMARY KEY, amount DECIMAL(14,2) NOT NULL, changed {changed})"));
    let installation = Installation::new(&erp.job(TABLES), target);
    let (erp, done) = (Arc::new(erp), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (erp, done) = (Arc::clone(&erp), Arc::clone(&done));
            std::thread::spawn(move || write(&erp, writer, rows / WRITERS, &done))
        })
        .collect();
    for _ in 0..runs {
        installation.send();
    }
    for writer in writers {
        writer.join().unwrap();
    }
    // What was deleted since the keys were compared last is found by the next comparison, at the latest.
    let expected = what_the_erp_has(&erp);
    let found = || -> Vec<String> {
        let rows = installation.rows("stock", &["id", "amount"], "id");
        rows.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect()
    };
    let equal = towpath_testkit::eventually("the app's table equals the ERP's", || {
        installation.send();
        (found() == expected).then_some(expected.len())
    });
    assert!(equal > 0);
    let mode = {
        let (_, folder) = installation.end.newest();
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        manifest["files"][0]["content"]["mode"].clone()
    };
    assert_eq!(mode, "merge", "the last transfer was not incremental");
}

#[test]
fn postgres_late_commits_and_equal_times_lose_nothing() {
    ends_equal(Erp::postgres(Way::Native), Target::Sqlite, ROWS / 10, RUNS / 10);
}

#[test]
fn mariadb_late_commits_and_equal_times_lose_nothing() {
    ends_equal(Erp::mariadb(Way::Native), Target::Postgres, ROWS / 10, RUNS / 10);
}

#[test]
fn long_postgres_late_commits_and_equal_times_lose_nothing() {
    ends_equal(Erp::postgres(Way::Native), Target::Postgres, ROWS, RUNS);
}

#[test]
fn long_mariadb_late_commits_and_equal_times_lose_nothing() {
    ends_equal(Erp::mariadb(Way::Native), Target::Sqlite, ROWS, RUNS);
}
