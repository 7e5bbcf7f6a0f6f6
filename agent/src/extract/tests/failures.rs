use async_trait::async_trait;
use towpath_transfer::{Disposition, decimal::Decimal};
use towpath_transport::files::{FaultFiles, FileFault, FileOp, MemoryFiles};

use super::*;
use crate::extract::source::{Feed, Read, RowSink, SourceColumn, SourceSnapshot, TableTotals, Value};

async fn fails(place: &Place, table: TableConfig) -> Failure {
    let failure = place.extract(vec![table]).await.unwrap_err();
    assert!(place.listed().is_empty(), "{:?}", place.listed());
    failure
}

#[tokio::test]
async fn a_database_that_is_not_there_or_is_none() {
    let place = Place::new("CREATE TABLE a (x)").await;
    let mut request = place.request(vec![whole("a")]);
    let other = place.database.with_file_name("none.sqlite");
    let SourceConfig::Sqlite { path, .. } = &mut request.job.source else { panic!("another kind") };
    path.clone_from(&other);
    let failure = run(request.clone()).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpMissing, Disposition::Retry));
    assert!(failure.message().contains("none.sqlite"), "{failure}");
    assert!(!other.exists());
    std::fs::write(&other, "this is no database, though it is long enough to be looked at as one".repeat(100)).unwrap();
    let failure = run(request.clone()).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpQuery, Disposition::Park));
    assert!(failure.message().contains("is not an SQLite database"), "{failure}");
    std::fs::remove_file(&other).unwrap();
    std::fs::create_dir(&other).unwrap();
    assert_eq!(run(request).await.unwrap_err().code(), Code::ErpMissing);
}

#[tokio::test]
async fn a_locked_database_is_tried_again() {
    let place = Place::new("CREATE TABLE a (x)").await;
    let mut writer = place.connect().await;
    sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut writer).await.unwrap();
    let failure = fails(&place, whole("a")).await;
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpLocked, Disposition::Retry));
    assert!(failure.message().contains("locked by another program"), "{failure}");
    sqlx::raw_sql("ROLLBACK").execute(&mut writer).await.unwrap();
    place.extract(vec![whole("a")]).await.unwrap();
}

#[tokio::test]
async fn a_database_that_a_crash_left_unfinished_is_tried_again() {
    let place = Place::new("PRAGMA page_size = 512; CREATE TABLE a (t TEXT);").await;
    let mut writer = place.connect().await;
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO a SELECT hex(zeroblob(400)) FROM n";
    sqlx::raw_sql(rows).execute(&mut writer).await.unwrap();
    // The cache is too small for the change, so that half of it is in the file, and what was there in the journal.
    let spill = "PRAGMA cache_size = 5; PRAGMA cache_spill = 5; BEGIN; UPDATE a SET t = t || 'x'";
    sqlx::raw_sql(spill).execute(&mut writer).await.unwrap();
    let crashed = place.database.with_file_name("crashed.sqlite");
    std::fs::copy(&place.database, &crashed).unwrap();
    let journal = |path: &Path| path.with_file_name(format!("{}-journal", path.file_name().unwrap().to_str().unwrap()));
    std::fs::copy(journal(&place.database), journal(&crashed)).unwrap();
    let mut request = place.request(vec![whole("a")]);
    let SourceConfig::Sqlite { path, .. } = &mut request.job.source else { panic!("another kind") };
    path.clone_from(&crashed);
    let failure = run(request.clone()).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpLocked, Disposition::Retry), "{}", failure.report());
    assert!(failure.message().contains("must be opened by the ERP"), "{failure}");
    // Its own program puts it back into order.
    let mut own = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&crashed)).await.unwrap();
    sqlx::raw_sql("SELECT count(*) FROM a").execute(&mut own).await.unwrap();
    assert_eq!(table(&run(request).await.unwrap().files[0]).rows, 500);
}

#[tokio::test]
async fn what_is_no_query_is_parked_with_table_and_reason() {
    let place = Place::new("CREATE TABLE a (x INTEGER)").await;
    for (sql, said) in [
        ("SELECT y FROM a", "no such column: y"),
        ("SELECT x FROM b", "no such table: b"),
        ("SELEC x", "syntax error"),
        ("SELECT ?", "has parameters"),
        ("DELETE FROM a", "gives no columns"),
        ("-- nothing", "gives no columns"),
        ("SELECT 1; DELETE FROM a", "syntax error"),
        ("SELECT x FROM a) UNION SELECT 1 --", "syntax error"),
        ("PRAGMA user_version", "no such table: PRAGMA"),
        ("SELECT x, x FROM a", "another column has the same name"),
        ("SELECT x AS \"a\tb\" FROM a", "control characters"),
        ("SELECT abs(-9223372036854775807 - 1) AS n", "integer overflow"),
    ] {
        let failure = fails(&place, query("bad one", sql)).await;
        let report = failure.report();
        assert_eq!((failure.code(), failure.disposition()), (Code::ErpQuery, Disposition::Park), "{report}");
        assert!(report.contains("bad one") && report.contains(said), "{sql}: {report}");
    }
    let failure = fails(&place, whole("missing")).await;
    assert!(failure.report().contains("no such table: main.missing"), "{}", failure.report());
    let failure = fails(&place, typed(whole("a"), &[("y", "TEXT")])).await;
    assert_eq!(failure.code(), Code::ConfigInvalid);
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_parked_with_its_place() {
    let place = Place::new(
        "CREATE TABLE v (id INTEGER, d DECIMAL(5,2), t TEXT, i INTEGER, b BLOB, day DATE, f BOOLEAN, n VARCHAR(9) NOT NULL);
        INSERT INTO v (id, d, n) VALUES (1, 1.25, ''), (2, 0.125, '');
        INSERT INTO v (id, t, n) VALUES (3, 'a' || char(0) || 'b', ''), (4, CAST(x'61ff' AS TEXT), ''), (5, x'00', '');
        INSERT INTO v (id, i, n) VALUES (6, 'seven', ''), (7, 1.5, '');
        INSERT INTO v (id, d, n) VALUES (8, 1000, ''), (9, 'x', ''), (10, 9e99, '');
        INSERT INTO v (id, day, n) VALUES (11, '31.12.2024', ''), (12, 20241231, '');
        INSERT INTO v (id, f, n) VALUES (13, 2, '');",
    )
    .await;
    for (sql, place_in, said) in [
        ("id < 3", "column d, row 2", "0.125 has more digits after the point than a DECIMAL(5,2) has"),
        ("id = 3", "column t, row 1", "NUL"),
        ("id = 4", "column t, row 1", "not UTF-8"),
        ("id = 5", "column t, row 1", "a binary value of 1 bytes is not a TEXT"),
        ("id = 6", "column i, row 1", "\"seven\" is not a BIGINT"),
        ("id = 7", "column i, row 1", "1.5 has more digits after the point than a BIGINT"),
        ("id = 8", "column d, row 1", "1000 has more digits before the point than a DECIMAL(5,2) has"),
        ("id = 9", "column d, row 1", "\"x\" is not a DECIMAL(5,2)"),
        ("id = 10", "column d, row 1", "too large to be exact"),
        ("id = 11", "column day, row 1", "\"31.12.2024\" is not a DATE"),
        ("id = 12", "column day, row 1", "20241231 is not a DATE"),
        ("id = 13", "column f, row 1", "2 is not a BOOLEAN"),
    ] {
        let table = if sql == "id = 5" {
            "SELECT 'x' AS id, t, d, i FROM (SELECT id, x'00' AS t, d, i FROM v WHERE id = 5)".to_owned()
        } else {
            format!("SELECT * FROM v WHERE {sql}")
        };
        let table = if sql == "id = 5" { typed(query("v", &table), &[("t", "TEXT")]) } else { query("v", &table) };
        let failure = fails(&place, table).await;
        assert_eq!((failure.code(), failure.disposition()), (Code::ErpValue, Disposition::Park), "{}", failure.report());
        assert!(failure.message().starts_with(&format!("table v, {place_in}: ")), "{failure}");
        assert!(failure.message().contains(said), "{failure}");
    }
}

/// A source that gives other rows or totals than the database has.
#[derive(Debug)]
struct Altered {
    inner: Arc<dyn Source>,
    change: Change,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    DropRow(usize),
    RepeatRow(usize),
    Integer {
        from: i64,
        to: i64,
    },
    NoText,
    Sum(i64),
    /// One row without end.
    Endless,
}

#[derive(Debug)]
struct AlteredSnapshot {
    inner: Box<dyn SourceSnapshot>,
    change: Change,
}

#[async_trait]
impl Source for Altered {
    async fn open(&self, cancel: &CancellationToken) -> Result<Box<dyn SourceSnapshot>, Failure> {
        Ok(Box::new(AlteredSnapshot { inner: self.inner.open(cancel).await?, change: self.change }))
    }
}

impl Change {
    async fn alter(self, row: &[Value<'_>], number: usize, sink: &mut RowSink) -> Result<(), Failure> {
        let times = match self {
            Change::DropRow(at) if at == number => 0,
            Change::RepeatRow(at) if at == number => 2,
            Change::Endless => usize::MAX,
            _ => 1,
        };
        for _ in 0..times {
            for value in row {
                sink.push(match (self, value) {
                    (Change::Integer { from, to }, Value::Integer(value)) if *value == from => Value::Integer(to),
                    (Change::NoText, Value::Text(_)) => Value::Null,
                    _ => *value,
                });
            }
            sink.end_row().await?;
        }
        Ok(())
    }
}

#[async_trait]
impl SourceSnapshot for AlteredSnapshot {
    fn snapshot(&self) -> Snapshot {
        self.inner.snapshot()
    }

    async fn columns(&mut self, table: &TableConfig) -> Result<Vec<SourceColumn>, Failure> {
        self.inner.columns(table).await
    }

    async fn rows(&mut self, read: &Read<'_>, sink: &mut RowSink) -> Result<(), Failure> {
        let (mut between, mut feed) = RowSink::new(read.columns.len());
        self.inner.rows(read, &mut between).await?;
        // The tables of these tests fit the channel.
        between.finish().await?;
        let mut number = 0;
        while let Some(Feed::Rows(batch)) = feed.recv().await {
            let values: Vec<Value<'_>> = batch.values().collect();
            for row in values.chunks(read.columns.len()) {
                number += 1;
                self.change.alter(row, number, sink).await?;
            }
        }
        Ok(())
    }

    async fn totals(&mut self, read: &Read<'_>) -> Result<TableTotals, Failure> {
        let mut totals = self.inner.totals(read).await?;
        if let Change::Sum(by) = self.change {
            let mut sum = DecimalSum::new();
            sum.add(&Decimal::from(by)).unwrap();
            sum.add(totals.columns[0].sum.as_ref().unwrap()).unwrap();
            totals.columns[0].sum = Some(sum.finish());
        }
        Ok(totals)
    }
}

fn altered(request: &ExtractRequest, change: Change) -> Altered {
    Altered { inner: source_of(&request.job, &parts().files, parts().clock), change }
}

/// The failure of an extract whose source loses the row of this number.
pub(super) async fn without_row(request: ExtractRequest, number: usize) -> Failure {
    let source = altered(&request, Change::DropRow(number));
    let (events, _) = mpsc::channel(1);
    extract_from(&source, &parts(), request, events, CancellationToken::new()).await.unwrap_err()
}

#[tokio::test]
async fn any_difference_from_the_database_parks_the_transfer() {
    let place = Place::new("CREATE TABLE s (id INTEGER, t TEXT); INSERT INTO s VALUES (1, 'a'), (2, 'b'), (3, NULL);").await;
    for (change, said) in [
        (Change::DropRow(2), "2 rows were read, the database counts 3"),
        (Change::RepeatRow(3), "4 rows were read, the database counts 3"),
        (Change::Integer { from: 2, to: 3 }, "column id add up to 7, the database says 6"),
        (Change::NoText, "column t has 0 values where the database counts 2"),
        (Change::Sum(-6), "column id add up to 6, the database says 0"),
    ] {
        let request = place.request(vec![whole("s")]);
        let source = altered(&request, change);
        let (events, mut heard) = mpsc::channel(100);
        let failure = extract_from(&source, &parts(), request, events, CancellationToken::new()).await.unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (Code::ExtractMismatch, Disposition::Park));
        assert!(failure.message().starts_with("table s ") && failure.message().contains(said), "{failure}");
        assert!(place.listed().is_empty());
        while let Some(event) = heard.recv().await {
            assert!(!matches!(event, ExtractEvent::FileFinished(_) | ExtractEvent::TableFinished { .. }));
        }
    }
}

#[tokio::test]
async fn cancelling_ends_an_endless_table_and_leaves_nothing() {
    let place = Place::new("CREATE TABLE s (id INTEGER, t TEXT); INSERT INTO s VALUES (1, 'a');").await;
    let request = place.request(vec![whole("s")]);
    let source = altered(&request, Change::Endless);
    let (events, mut heard) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let stop = async {
        // Progress shows that rows flow.
        while let Some(event) = heard.recv().await {
            if matches!(event, ExtractEvent::Rows { rows, .. } if rows > 50_000) {
                cancel.cancel();
            }
        }
    };
    let (parts, token) = (parts(), cancel.clone());
    let (result, ()) = tokio::join!(extract_from(&source, &parts, request, events, token), stop);
    assert_eq!(result.unwrap_err().code(), Code::Cancelled);
    assert!(place.listed().is_empty());
}

#[tokio::test]
async fn cancelling_interrupts_the_database_itself() {
    let place = Place::new("CREATE TABLE s (id INTEGER)").await;
    // It counts for hours before its first row.
    let sql =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000000) SELECT count(*) AS c FROM n";
    let cancel = CancellationToken::new();
    let (events, mut heard) = mpsc::channel(10);
    let stop = async {
        while let Some(event) = heard.recv().await {
            if matches!(event, ExtractEvent::TableStarted { .. }) {
                cancel.cancel();
            }
        }
    };
    let (parts, request) = (parts(), place.request(vec![query("long", sql)]));
    let (result, ()) = tokio::join!(extract(&parts, request, events, cancel.clone()), stop);
    assert_eq!(result.unwrap_err().code(), Code::Cancelled);
    // Nobody reads any more: a writer that needs the whole file gets it.
    place.run("PRAGMA busy_timeout = 20000; BEGIN EXCLUSIVE; COMMIT").await;
}

#[tokio::test]
async fn a_full_disk_and_every_other_fault_of_it_is_told_and_leaves_nothing_half() {
    let place = Place::new(
        "CREATE TABLE a (t TEXT); INSERT INTO a SELECT hex(randomblob(500)) FROM (SELECT 1 UNION SELECT 2), sqlite_schema;",
    )
    .await;
    let memory = MemoryFiles::new();
    let folder = PathBuf::from("/transfer");
    memory.create_dir_all(&folder).unwrap();
    let mut request = place.request(vec![whole("a")]);
    request.folder.clone_from(&folder);
    let with = |files: Arc<dyn FileStore>| ExtractParts { files, ..parts() };
    let attempt = async |files: Arc<dyn FileStore>| {
        let (events, _) = mpsc::channel(1);
        extract(&with(files), request.clone(), events, CancellationToken::new()).await
    };
    memory.set_space(Some(100));
    let failure = attempt(Arc::new(memory.clone())).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::DiskFull, Disposition::Retry));
    assert!(memory.list(&folder, None, 10).unwrap().is_empty());
    memory.set_space(None);
    for op in [FileOp::OpenWrite, FileOp::Write, FileOp::Sync, FileOp::Rename, FileOp::SyncDir] {
        let files = FaultFiles::new(
            Arc::new(memory.clone()),
            Box::new(move |at, _| (at == op).then_some(FileFault::Before(std::io::ErrorKind::Other))),
        );
        let failure = attempt(Arc::new(files)).await.unwrap_err();
        assert_eq!(failure.code(), Code::FileFailed, "{op:?} {}", failure.report());
    }
    // Whatever was left is replaced, and what is there afterwards survives a power loss.
    let extracted = attempt(Arc::new(memory.clone())).await.unwrap();
    memory.power_loss();
    let names: Vec<String> = memory.list(&folder, None, 10).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["a.csv.bz2"]);
    assert_eq!(memory.stat(&folder.join("a.csv.bz2")).unwrap().len, extracted.packed[0].size);
}

#[tokio::test]
async fn a_field_over_the_limit_of_the_wire_is_refused() {
    let place = Place::new("CREATE TABLE a (b BLOB); INSERT INTO a VALUES (zeroblob(52000000));").await;
    let failure = fails(&place, whole("a")).await;
    assert_eq!((failure.code(), failure.disposition()), (Code::LimitExceeded, Disposition::Park));
    assert!(failure.message().contains("row 1 of table a"), "{failure}");
}
