use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A writer moves money between two tables in one transaction, all the time, while extracts read: the sum over both is
/// the same in every extract, and so is the number of moves that both know of.
async fn never_one_without_the_other(mode: &str) {
    let place = Place::new(&format!(
        "PRAGMA journal_mode = {mode};
        CREATE TABLE debit (id INTEGER PRIMARY KEY, amount DECIMAL(12,2) NOT NULL);
        CREATE TABLE credit (id INTEGER PRIMARY KEY, amount DECIMAL(12,2) NOT NULL);
        INSERT INTO debit VALUES (0, -100.25); INSERT INTO credit VALUES (0, 100.25);"
    ))
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut connection = place.connect().await;
    let writer = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut moves = 0;
            while !stop.load(Ordering::Relaxed) {
                let moved = "BEGIN IMMEDIATE; INSERT INTO debit (amount) VALUES (-12.5); INSERT INTO credit (amount) VALUES (12.5); COMMIT";
                sqlx::raw_sql(moved).execute(&mut connection).await.unwrap();
                moves += 1;
                tokio::task::yield_now().await;
            }
            moves
        }
    });
    let mut seen = Vec::new();
    while seen.len() < 10 {
        let mut request = place.request(vec![whole("debit"), whole("credit")]);
        let SourceConfig::Sqlite { busy_timeout, .. } = &mut request.job.source else { panic!("another kind") };
        *busy_timeout = Some(Duration::from_secs(60));
        let extracted = run(request).await.unwrap();
        let [debit, credit] = extracted.files.as_slice() else { panic!("two tables") };
        let (debit, credit) = (table(debit), table(credit));
        assert_eq!(debit.rows, credit.rows);
        assert_eq!(format!("-{}", credit.totals[1].sum), debit.totals[1].sum.to_string());
        seen.push(credit.rows);
    }
    stop.store(true, Ordering::Relaxed);
    let moves: u64 = writer.await.unwrap();
    assert!(moves > 0 && seen.is_sorted() && *seen.last().unwrap() <= moves + 1, "{seen:?} {moves}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tables_of_one_transaction_agree_in_wal_mode() {
    never_one_without_the_other("WAL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tables_of_one_transaction_agree_in_rollback_mode() {
    never_one_without_the_other("DELETE").await;
}

#[tokio::test]
async fn what_is_committed_between_two_tables_is_not_seen() {
    let place = Place::new("PRAGMA journal_mode = WAL; CREATE TABLE a (x INTEGER); CREATE TABLE b (x INTEGER);").await;
    // The channel is full after one event: the extract waits for us before each further one.
    let (events, mut heard) = mpsc::channel(1);
    let request = place.request(vec![whole("a"), whole("b")]);
    let parts = parts();
    let write = async {
        while let Some(event) = heard.recv().await {
            if matches!(event, ExtractEvent::TableStarted { .. }) {
                place.run("INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)").await;
            }
        }
    };
    let (extracted, ()) = tokio::join!(extract(&parts, request, events, CancellationToken::new()), write);
    let rows: Vec<u64> = extracted.unwrap().files.iter().map(|file| table(file).rows).collect();
    assert_eq!(rows, [0, 0]);
}
