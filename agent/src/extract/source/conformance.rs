//! What every source must do, whatever its database. A source gives a [`Bench`] with the same data and runs [`all`].

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use towpath_transfer::{Code, Disposition, clock::ManualClock, manifest::Column};

use super::{sqlite::SqliteSource, *};

/// A database in which the suite has put its tables, and what the suite needs to do with it.
#[async_trait]
pub(crate) trait Bench: Send + Sync {
    /// A source over the database.
    fn source(&self) -> Arc<dyn Source>;

    /// A source over a database that is not there.
    fn missing(&self) -> Arc<dyn Source>;

    /// A source with a login that may write, where the database has logins.
    fn writer(&self) -> Option<Arc<dyn Source>> {
        None
    }

    /// Runs SQL that every database understands.
    async fn run(&self, sql: &str);

    /// A query of three hundred million rows with one column of whole numbers.
    fn many_rows(&self) -> &'static str {
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000000) SELECT i FROM n"
    }
}

pub(crate) fn whole(name: &str) -> TableConfig {
    TableConfig::whole(name.parse().unwrap())
}

pub(crate) fn query(sql: &str) -> TableConfig {
    TableConfig { query: Some(sql.to_owned()), ..whole("by_query") }
}

pub(crate) fn all_of<'a>(table: &'a TableConfig, columns: &'a [Column]) -> Read<'a> {
    Read { table, columns, all: true, since: None }
}

pub(crate) async fn open(bench: &dyn Bench) -> Box<dyn SourceSnapshot> {
    bench.source().open(&CancellationToken::new()).await.unwrap()
}

pub(crate) fn to_wire(columns: &[SourceColumn]) -> Vec<Column> {
    let of = |column: &SourceColumn| Column {
        name: column.name.parse().unwrap(),
        sql_type: column.sql_type,
        nullable: column.nullable,
    };
    columns.iter().map(of).collect()
}

/// The rows as the wire has them.
async fn rows(snapshot: &mut dyn SourceSnapshot, table: &TableConfig, columns: &[Column]) -> Vec<Vec<Option<String>>> {
    rows_of(snapshot, &all_of(table, columns)).await
}

/// The rows that `read` names, as the wire has them.
pub(crate) async fn rows_of(snapshot: &mut dyn SourceSnapshot, read: &Read<'_>) -> Vec<Vec<Option<String>>> {
    let columns = read.columns;
    let (mut sink, mut feed) = RowSink::new(columns.len());
    let reading = async {
        snapshot.rows(read, &mut sink).await.unwrap();
        sink.finish().await.unwrap();
    };
    let taking = async {
        let mut rows = Vec::new();
        while let Some(Feed::Rows(batch)) = feed.recv().await {
            let values: Vec<Value<'_>> = batch.values().collect();
            for row in values.chunks(columns.len()) {
                let mut scratch = String::new();
                let text = |(value, column): (&Value<'_>, &Column)| {
                    crate::extract::value::to_wire(*value, column.sql_type, &mut scratch).unwrap().map(str::to_owned)
                };
                rows.push(row.iter().zip(columns).map(text).collect());
            }
        }
        rows
    };
    tokio::join!(reading, taking).1
}

/// The whole suite.
pub(crate) async fn all(bench: &dyn Bench) {
    let tables = "CREATE TABLE things (id INTEGER NOT NULL PRIMARY KEY, price DECIMAL(12,2), name VARCHAR(40), day DATE);
        INSERT INTO things VALUES (1, 12.50, 'Größe \"XL\"', '2024-02-29');
        INSERT INTO things VALUES (2, -0.05, '', '9999-12-31');
        INSERT INTO things VALUES (3, NULL, NULL, NULL);
        CREATE TABLE no_rows (id INTEGER, price DECIMAL(12,2));";
    bench.run(tables).await;
    columns_have_names_types_and_nulls(bench).await;
    rows_are_all_there_and_exact(bench).await;
    totals_are_of_the_same_rows(bench).await;
    one_snapshot_for_everything(bench).await;
    some_columns_in_any_order(bench).await;
    only_rows_from_the_watermark_on(bench).await;
    failures_have_codes(bench).await;
    a_wrong_table_leaves_the_others(bench).await;
    a_login_that_may_write_is_told(bench).await;
    a_sink_that_is_gone_ends_the_reading(bench).await;
}

async fn columns_have_names_types_and_nulls(bench: &dyn Bench) {
    let mut snapshot = open(bench).await;
    let found = snapshot.columns(&whole("things")).await.unwrap();
    let shown: Vec<(String, String)> = found.iter().map(|column| (column.name.clone(), column.sql_type.to_string())).collect();
    let expected = [("id", "BIGINT"), ("price", "DECIMAL(12,2)"), ("name", "TEXT"), ("day", "DATE")];
    assert_eq!(shown, expected.map(|(name, sql_type)| (name.to_owned(), sql_type.to_owned())));
    assert!(!found[0].nullable && found[1].nullable);
    let found = snapshot.columns(&query("SELECT day AS d, price FROM things ORDER BY id")).await.unwrap();
    assert_eq!(found.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["d", "price"]);
    assert_eq!(found[1].sql_type.to_string(), "DECIMAL(12,2)");
    assert!(snapshot.snapshot().consistent);
    assert!(!snapshot.snapshot().id.is_empty());
}

async fn rows_are_all_there_and_exact(bench: &dyn Bench) {
    let mut snapshot = open(bench).await;
    let table = query("SELECT id, price, name, day FROM things ORDER BY id DESC");
    let columns = to_wire(&snapshot.columns(&table).await.unwrap());
    let found = rows(snapshot.as_mut(), &table, &columns).await;
    assert_eq!(found.len(), 3);
    assert_eq!(found[0], [Some("3"), None, None, None].map(|text| text.map(str::to_owned)));
    assert_eq!(found[1][2].as_deref(), Some(""));
    assert_eq!(found[1][1].as_deref(), Some("-0.05"));
    assert_eq!(found[2][2].as_deref(), Some("Größe \"XL\""));
    let columns = to_wire(&snapshot.columns(&whole("no_rows")).await.unwrap());
    assert!(rows(snapshot.as_mut(), &whole("no_rows"), &columns).await.is_empty());
}

async fn totals_are_of_the_same_rows(bench: &dyn Bench) {
    let mut snapshot = open(bench).await;
    for (table, expected, counts, sums) in [
        (whole("things"), 3, vec![3, 2, 2, 2], vec![Some("6"), Some("12.45"), None, None]),
        (query("SELECT price FROM things WHERE id < 2"), 1, vec![1], vec![Some("12.5")]),
        (whole("no_rows"), 0, vec![0, 0], vec![Some("0"), Some("0")]),
    ] {
        let columns = to_wire(&snapshot.columns(&table).await.unwrap());
        let totals = snapshot.totals(&all_of(&table, &columns)).await.unwrap();
        assert_eq!(totals.rows, expected);
        assert_eq!(totals.columns.iter().map(|total| total.count).collect::<Vec<_>>(), counts);
        let found: Vec<Option<String>> = totals.columns.iter().map(|total| total.sum.as_ref().map(ToString::to_string)).collect();
        assert_eq!(found, sums.into_iter().map(|sum| sum.map(str::to_owned)).collect::<Vec<_>>());
    }
}

async fn one_snapshot_for_everything(bench: &dyn Bench) {
    let mut snapshot = open(bench).await;
    bench.run("INSERT INTO things VALUES (4, 1, 'later', NULL); INSERT INTO no_rows VALUES (1, 1);").await;
    for (table, expected) in [(whole("things"), 3), (whole("no_rows"), 0)] {
        let columns = to_wire(&snapshot.columns(&table).await.unwrap());
        assert_eq!(rows(snapshot.as_mut(), &table, &columns).await.len() as u64, expected);
        assert_eq!(snapshot.totals(&all_of(&table, &columns)).await.unwrap().rows, expected);
    }
    drop(snapshot);
    let mut later = open(bench).await;
    let columns = to_wire(&later.columns(&whole("no_rows")).await.unwrap());
    assert_eq!(later.totals(&all_of(&whole("no_rows"), &columns)).await.unwrap().rows, 1);
    drop(later);
    bench.run("DELETE FROM things WHERE id = 4; DELETE FROM no_rows;").await;
}

async fn failures_have_codes(bench: &dyn Bench) {
    let failure = bench.missing().open(&CancellationToken::new()).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpMissing, Disposition::Retry));
    for table in [whole("no_such_table"), query("SELECT nonsense FROM things"), query("SELEC"), query("DELETE FROM things")] {
        let failure = open(bench).await.columns(&table).await.unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (Code::ErpQuery, Disposition::Park));
        assert!(failure.message().contains(table.name.as_str()), "{failure}");
    }
}

/// Columns by name, of the whole table's.
fn chosen(columns: &[Column], names: &[&str]) -> Vec<Column> {
    let by_name = |name: &&str| columns.iter().find(|column| column.name.as_str() == *name).unwrap().clone();
    names.iter().map(by_name).collect()
}

async fn some_columns_in_any_order(bench: &dyn Bench) {
    let mut snapshot = open(bench).await;
    for table in [whole("things"), query("SELECT name, day, id, price FROM things")] {
        let columns = to_wire(&snapshot.columns(&table).await.unwrap());
        let columns = chosen(&columns, &["price", "id"]);
        let read = Read { table: &table, columns: &columns, all: false, since: None };
        let mut found = rows_of(snapshot.as_mut(), &read).await;
        found.sort_by_key(|row| row[1].clone());
        let expected = [[Some("12.50"), Some("1")], [Some("-0.05"), Some("2")], [None, Some("3")]];
        for (found, expected) in found.iter().zip(expected) {
            // A source without exact decimals has no zeros after the point.
            let found: Vec<Option<&str>> = found.iter().map(|text| text.as_deref().map(|t| t.trim_end_matches('0'))).collect();
            assert_eq!(found, expected.map(|text| text.map(|t| t.trim_end_matches('0'))));
        }
        let totals = snapshot.totals(&read).await.unwrap();
        assert_eq!((totals.rows, totals.columns.len(), totals.columns[0].count, totals.columns[1].count), (3, 2, 2, 3));
        assert_eq!(totals.columns[0].sum.as_ref().unwrap().to_string(), "12.45");
    }
}

async fn only_rows_from_the_watermark_on(bench: &dyn Bench) {
    let tables = "CREATE TABLE changes (id INTEGER NOT NULL PRIMARY KEY, stamp TIMESTAMP NULL, day DATE, version BIGINT, \
            amount DECIMAL(12,2), code VARCHAR(20));
        INSERT INTO changes VALUES (1, '2024-01-01 10:00:00', '2024-01-01', 1, 1.5, 'a');
        INSERT INTO changes VALUES (2, '2024-01-02 10:00:00', '2024-01-02', 1, 2.5, 'it''s');
        INSERT INTO changes VALUES (3, '2024-01-02 10:00:00', '2024-01-02', 2, 2.5, 'it''s');
        INSERT INTO changes VALUES (4, '2024-01-02 10:00:00', '2024-01-02', 3, 10, 'x');
        INSERT INTO changes VALUES (5, '2024-01-03 09:00:00', '2024-01-03', 1, 100.25, 'z');
        INSERT INTO changes VALUES (6, NULL, NULL, NULL, NULL, NULL);
        INSERT INTO changes VALUES (7, '2024-01-02 10:00:00', '2024-01-02', NULL, 1, 'a');";
    bench.run(tables).await;
    let mut snapshot = open(bench).await;
    for table in [whole("changes"), query("SELECT * FROM changes")] {
        let columns = to_wire(&snapshot.columns(&table).await.unwrap());
        let all = rows_of(snapshot.as_mut(), &all_of(&table, &columns)).await;
        // Each watermark is what one of the rows has on the wire.
        for (of, names, expected) in [
            ("2", &["stamp"][..], &["2", "3", "4", "5", "6", "7"][..]),
            ("2", &["day"], &["2", "3", "4", "5", "6", "7"]),
            ("3", &["version"], &["3", "4", "6", "7"]),
            ("4", &["amount"], &["4", "5", "6"]),
            ("3", &["code"], &["2", "3", "4", "5", "6"]),
            ("3", &["stamp", "version"], &["3", "4", "5", "6", "7"]),
            ("4", &["day", "version", "id"], &["4", "5", "6", "7"]),
            ("5", &["id"], &["5", "6", "7"]),
        ] {
            let row = all.iter().find(|row| row[0].as_deref() == Some(of)).unwrap();
            let value = |column: &Column| SinceValue {
                column: column.name.to_string(),
                sql_type: column.sql_type,
                value: row[columns.iter().position(|one| one.name == column.name).unwrap()].clone().unwrap(),
            };
            let since = Since(chosen(&columns, names).iter().map(value).collect());
            for (columns, all) in [(columns.clone(), true), (chosen(&columns, &["amount", "id"]), false)] {
                let read = Read { table: &table, columns: &columns, all, since: Some(&since) };
                let id = columns.iter().position(|column| column.name.as_str() == "id").unwrap();
                let mut found: Vec<String> =
                    rows_of(snapshot.as_mut(), &read).await.iter().map(|row| row[id].clone().unwrap()).collect();
                found.sort();
                // A database without types for times may give rows of before.
                assert!(found.iter().map(String::as_str).eq(expected.iter().copied()) || names.len() > 1, "{since:?}: {found:?}");
                assert!(expected.iter().all(|id| found.iter().any(|found| found == id)), "{since:?}: {found:?}");
                let totals = snapshot.totals(&read).await.unwrap();
                assert_eq!(totals.rows, found.len() as u64, "{since:?}");
                let sum: i64 = found.iter().map(|id| id.parse::<i64>().unwrap()).sum();
                assert_eq!(totals.columns[id].sum, Some(sum.into()), "{since:?}");
            }
        }
    }
}

async fn a_wrong_table_leaves_the_others(bench: &dyn Bench) {
    let mut snapshot = open(bench).await;
    for wrong in [whole("no_such_table"), query("SELEC")] {
        assert_eq!(snapshot.columns(&wrong).await.unwrap_err().code(), Code::ErpQuery);
        let columns = to_wire(&snapshot.columns(&whole("things")).await.unwrap());
        assert_eq!(rows(snapshot.as_mut(), &whole("things"), &columns).await.len(), 3);
    }
}

async fn a_login_that_may_write_is_told(bench: &dyn Bench) {
    let snapshot = open(bench).await;
    assert_eq!(snapshot.warnings(), Vec::<String>::new());
    if let Some(writer) = bench.writer() {
        let snapshot = writer.open(&CancellationToken::new()).await.unwrap();
        assert!(snapshot.warnings().iter().any(|warning| warning.contains("may")), "{:?}", snapshot.warnings());
    }
}

async fn a_sink_that_is_gone_ends_the_reading(bench: &dyn Bench) {
    let mut snapshot = open(bench).await;
    let many = query(bench.many_rows());
    let columns = to_wire(&snapshot.columns(&many).await.unwrap());
    let (mut sink, feed) = RowSink::new(1);
    drop(feed);
    assert_eq!(snapshot.rows(&all_of(&many, &columns), &mut sink).await.unwrap_err().code(), Code::Cancelled);
}

struct SqliteBench {
    _dir: tempfile::TempDir,
    path: PathBuf,
    clock: Arc<dyn Clock>,
}

impl SqliteBench {
    async fn new(mode: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("erp.sqlite");
        let bench = Self { _dir: dir, path, clock: Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH)) };
        bench.run(&format!("PRAGMA journal_mode = {mode}")).await;
        bench
    }
}

#[async_trait]
impl Bench for SqliteBench {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(SqliteSource::new(self.path.clone(), Duration::from_secs(10), Arc::clone(&self.clock)))
    }

    fn missing(&self) -> Arc<dyn Source> {
        Arc::new(SqliteSource::new(self.path.with_extension("none"), Duration::ZERO, Arc::clone(&self.clock)))
    }

    async fn run(&self, sql: &str) {
        let options = SqliteConnectOptions::new().filename(&self.path).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

#[tokio::test]
async fn sqlite_in_wal_mode() {
    all(&SqliteBench::new("WAL").await).await;
}
