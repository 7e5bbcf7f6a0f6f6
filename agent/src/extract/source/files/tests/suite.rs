//! What every source must do (`conformance`), as far as files have it: there is no SQL, so each part stands here under its name.

use super::*;
use crate::extract::{source::Feed, value::to_wire};

const THINGS: &str = "id,price,name,day\r\n1,12.50,\"Größe \"\"XL\"\"\",2024-02-29\r\n2,-0.05,\"\",9999-12-31\r\n3,,,\r\n";

fn bench() -> Bench {
    let types = [("id", "BIGINT"), ("price", "DECIMAL(12,2)"), ("day", "DATE")];
    let mut things = typed("things", &types);
    things.key = vec!["id".into()];
    let bench = Bench::new(vec![things, typed("no_rows", &[("id", "BIGINT"), ("price", "DECIMAL(12,2)")])]);
    bench.put("things.csv", THINGS);
    bench.put("no_rows.csv", "id,price\r\n");
    bench
}

async fn read(snapshot: &mut dyn SourceSnapshot, table: &TableConfig, columns: &[Column]) -> whole_extract::Rows {
    let (mut sink, mut feed) = RowSink::new(columns.len());
    let read = Read { table, columns, all: false, since: None };
    let reading = async {
        snapshot.rows(&read, &mut sink).await.unwrap();
        sink.finish().await.unwrap();
    };
    let taking = async {
        let mut rows = Vec::new();
        while let Some(Feed::Rows(batch)) = feed.recv().await {
            let values: Vec<_> = batch.values().collect();
            for row in values.chunks(columns.len()) {
                let mut scratch = String::new();
                let text = |(value, column): (&super::super::super::Value<'_>, &Column)| {
                    to_wire(*value, column.sql_type, &mut scratch).unwrap().map(str::to_owned)
                };
                rows.push(row.iter().zip(columns).map(text).collect());
            }
        }
        rows
    };
    tokio::join!(reading, taking).1
}

#[tokio::test]
async fn columns_have_names_types_and_nulls() {
    let bench = bench();
    let mut snapshot = bench.open().await.unwrap();
    let found = snapshot.columns(&bench.tables[0]).await.unwrap();
    let shown: Vec<(String, String, bool)> =
        found.iter().map(|column| (column.name.clone(), column.sql_type.to_string(), column.nullable)).collect();
    let expected = [("id", "BIGINT", false), ("price", "DECIMAL(12,2)", true), ("name", "TEXT", true), ("day", "DATE", true)];
    assert_eq!(shown, expected.map(|(name, sql_type, nullable)| (name.to_owned(), sql_type.to_owned(), nullable)));
    assert!(!snapshot.snapshot().id.is_empty());
}

#[tokio::test]
async fn rows_are_all_there_and_exact_and_some_columns_are_enough() {
    let bench = bench();
    let mut snapshot = bench.open().await.unwrap();
    let columns = of(&snapshot.columns(&bench.tables[0]).await.unwrap());
    let found = read(snapshot.as_mut(), &bench.tables[0], &columns).await;
    assert_eq!(
        found,
        [
            row(&[Some("1"), Some("12.50"), Some("Größe \"XL\""), Some("2024-02-29")]),
            row(&[Some("2"), Some("-0.05"), Some(""), Some("9999-12-31")]),
            row(&[Some("3"), None, None, None]),
        ]
    );
    let some = [columns[3].clone(), columns[0].clone()];
    let found = read(snapshot.as_mut(), &bench.tables[0], &some).await;
    assert_eq!(found[0], row(&[Some("2024-02-29"), Some("1")]));
    let none = of(&snapshot.columns(&bench.tables[1]).await.unwrap());
    assert!(read(snapshot.as_mut(), &bench.tables[1], &none).await.is_empty());
}

#[tokio::test]
async fn totals_are_of_the_same_rows() {
    let bench = bench();
    let mut snapshot = bench.open().await.unwrap();
    for (table, rows, counts, sums) in [
        (&bench.tables[0], 3, vec![3, 2, 2, 2], vec![Some("6"), Some("12.45"), None, None]),
        (&bench.tables[1], 0, vec![0, 0], vec![Some("0"), Some("0")]),
    ] {
        let columns = of(&snapshot.columns(table).await.unwrap());
        let totals = snapshot.totals(&Read { table, columns: &columns, all: true, since: None }).await.unwrap();
        assert_eq!(totals.rows, rows);
        assert_eq!(totals.columns.iter().map(|total| total.count).collect::<Vec<_>>(), counts);
        let found: Vec<Option<String>> = totals.columns.iter().map(|total| total.sum.as_ref().map(ToString::to_string)).collect();
        assert_eq!(found, sums.into_iter().map(|sum| sum.map(str::to_owned)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn one_snapshot_for_everything() {
    let mut bench = bench();
    bench.tables[0].files = Some("things*.csv".into());
    let mut snapshot = bench.open().await.unwrap();
    bench.put("things-later.csv", "id,price,name,day\r\n4,1,later,\r\n");
    let columns = of(&snapshot.columns(&bench.tables[0]).await.unwrap());
    assert_eq!(read(snapshot.as_mut(), &bench.tables[0], &columns).await.len(), 3);
    let read_all = Read { table: &bench.tables[0], columns: &columns, all: true, since: None };
    assert_eq!(snapshot.totals(&read_all).await.unwrap().rows, 3);
    assert_eq!(bench.open().await.unwrap().totals(&read_all).await.unwrap().rows, 4);
}

#[tokio::test]
async fn a_sink_that_is_gone_and_a_cancellation_end_the_reading() {
    let bench = bench();
    let lines: String = (0..200_000).map(|n| format!("{n},1,x,\n")).collect();
    bench.put("things.csv", format!("id,price,name,day\n{lines}"));
    let mut snapshot = bench.open().await.unwrap();
    let columns = of(&snapshot.columns(&bench.tables[0]).await.unwrap());
    let read_all = Read { table: &bench.tables[0], columns: &columns, all: true, since: None };
    let (mut sink, feed) = RowSink::new(columns.len());
    drop(feed);
    assert_eq!(snapshot.rows(&read_all, &mut sink).await.unwrap_err().code(), Code::Cancelled);
    // Nobody takes rows, so that the reading cannot come to its end before it is cancelled.
    let cancel = CancellationToken::new();
    let mut snapshot = bench.source().open(&cancel).await.unwrap();
    snapshot.columns(&bench.tables[0]).await.unwrap();
    cancel.cancel();
    let (mut sink, _feed) = RowSink::new(columns.len());
    assert_eq!(snapshot.rows(&read_all, &mut sink).await.unwrap_err().code(), Code::Cancelled);
    assert_eq!(snapshot.totals(&read_all).await.unwrap_err().code(), Code::Cancelled);
}
