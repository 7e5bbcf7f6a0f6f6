//! While somebody commits changes of two tables in one transaction, no extract shows the one without the other.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use towpath_testkit::{PATIENCE, Program};

use super::erp::{Database, Erp, Way};
use crate::executable;

/// Extracts in one test.
const EXTRACTS: usize = 50;
/// Rows after which the writer takes its rows back, so that extracts stay quick.
const MOST_MOVES: u64 = 500;
/// The pause between two looks at the writer.
const LOOK: std::time::Duration = std::time::Duration::from_millis(5);

/// Moves money between two tables as long as it is told to, and counts what it has committed.
fn write(erp: &Erp, stop: &AtomicBool, moves: &AtomicU64) {
    let begin = match erp.database {
        Database::Sqlite(_) => "BEGIN IMMEDIATE",
        _ => "BEGIN",
    };
    while !stop.load(Ordering::Relaxed) {
        // One call of a client costs more than the transactions: several of them go with each.
        let moved: String = (0..20)
            .map(|_| {
                let n = moves.fetch_add(1, Ordering::Relaxed) + 1;
                let undo = if n.is_multiple_of(MOST_MOVES) { "DELETE FROM debit; DELETE FROM credit; " } else { "" };
                format!("{begin}; {undo}INSERT INTO debit VALUES ({n}, -12.5); INSERT INTO credit VALUES ({n}, 12.5); COMMIT; ")
            })
            .collect();
        erp.run(&moved);
    }
}

fn never_one_without_the_other(erp: Erp, isolation: &str) {
    let engine = if matches!(erp.database, Database::MariaDb(..)) { " ENGINE=InnoDB" } else { "" };
    if matches!(erp.database, Database::Sqlite(_)) {
        erp.run("PRAGMA journal_mode = WAL");
    }
    for table in ["debit", "credit"] {
        erp.run(&format!("CREATE TABLE {table} (id BIGINT NOT NULL PRIMARY KEY, amount DECIMAL(12,2) NOT NULL){engine}"));
    }
    let dir = tempfile::tempdir().unwrap();
    let agent = Program::new(executable(), dir.path(), "agent", "agent");
    agent.configure(&erp.job("[[job.table]]\nname = \"debit\"\n[[job.table]]\nname = \"credit\"\n"));
    let (erp, stop, moves) = (Arc::new(erp), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = std::thread::spawn({
        let (erp, stop, moves) = (Arc::clone(&erp), Arc::clone(&stop), Arc::clone(&moves));
        move || write(&erp, &stop, &moves)
    });
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..EXTRACTS {
        let before = moves.load(Ordering::Relaxed);
        let out = dir.path().join(format!("out-{round}"));
        agent.run(&["extract", "--out", out.to_str().unwrap()]).succeeded();
        let rows = |table: &str| {
            let text = std::fs::read_to_string(out.join(format!("{table}.csv"))).unwrap();
            let ids: Vec<String> = text.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect();
            ids
        };
        let (mut debit, mut credit) = (rows("debit"), rows("credit"));
        debit.sort();
        credit.sort();
        assert_eq!(debit, credit, "extract {round} shows a change of one table without the other's");
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest["snapshot"]["consistent"], true, "{manifest}");
        let reached = manifest["snapshot"]["isolation"].as_str().unwrap();
        assert!(reached.starts_with(isolation), "{manifest}");
        seen.insert(debit);
        // Each extract reads another state: the writer has gone on meanwhile.
        #[expect(clippy::disallowed_methods, reason = "a test's own patience is real time")]
        let begun = std::time::Instant::now();
        while moves.load(Ordering::Relaxed) < before + 1 && begun.elapsed() < PATIENCE {
            #[expect(clippy::disallowed_methods, reason = "a look now and then, while the writer works")]
            std::thread::sleep(LOOK);
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(seen.len() > EXTRACTS / 2, "the writer stood still: {} states in {EXTRACTS} extracts", seen.len());
}

#[test]
fn postgres_tables_of_one_transaction_agree() {
    never_one_without_the_other(Erp::postgres(Way::Native), "repeatable read");
}

#[test]
fn mariadb_tables_of_one_transaction_agree() {
    never_one_without_the_other(Erp::mariadb(Way::Native), "repeatable read");
}

#[test]
fn sqlite_tables_of_one_transaction_agree() {
    never_one_without_the_other(Erp::sqlite(Way::Native), "serializable");
}

#[test]
fn odbc_tables_of_one_transaction_in_postgres_agree() {
    never_one_without_the_other(Erp::postgres(Way::Odbc), "repeatable read");
}

#[test]
fn odbc_tables_of_one_transaction_in_mariadb_agree() {
    never_one_without_the_other(Erp::mariadb(Way::Odbc), "repeatable read");
}

#[test]
fn odbc_tables_of_one_transaction_in_sqlite_agree() {
    never_one_without_the_other(Erp::sqlite(Way::Odbc), "serializable");
}
