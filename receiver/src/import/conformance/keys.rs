//! Keys of all rows that a table may keep.

use towpath_transfer::{
    Code, Failure,
    digest::Sha256Digest,
    manifest::{SqlType, Table},
};

use super::{Bench, Fields, batch, column, content, id, import, items, merged, record, scope, table};
use crate::import::{
    ImportScope,
    OldRows::{Kept, Removed},
};

pub(super) async fn all(bench: &dyn Bench) {
    rows_that_are_not_listed_go(bench).await;
    no_keys_at_all_empty_the_table(bench).await;
    a_key_that_is_not_there_shows_in_the_count(bench).await;
    keys_are_compared_by_value(bench).await;
    a_key_that_is_listed_twice_is_refused(bench).await;
}

/// The keys of a table.
fn keys_of(table: &Table) -> Table {
    let columns = table.columns.iter().filter(|column| table.key.contains(&column.name)).cloned().collect();
    Table { key: table.key.clone(), ..Table::whole(table.table.clone(), columns, 0, Vec::new()) }
}

/// Merges `rows` into `of` and keeps only `keys`; the rows that are left.
async fn compare(
    bench: &dyn Bench,
    scope: &ImportScope,
    n: u8,
    of: &Table,
    rows: &[Fields<'_>],
    keys: &[Fields<'_>],
) -> Result<u64, Failure> {
    let (mut open, ledger) = bench.target().begin(scope, id(n)).await?;
    open.start_table(&merged(of), ledger.tables.get(&of.table), Kept).await?;
    open.insert(batch(of.columns.len(), rows)).await?;
    open.finish_table(id(n), Sha256Digest::of(&[n])).await?;
    let listed = keys_of(of);
    open.start_keys(&listed).await?;
    for key in keys {
        open.insert(batch(listed.columns.len(), &[key])).await?;
    }
    let left = open.finish_keys().await?;
    open.commit(&record(n, of, left)).await?;
    Ok(left)
}

async fn rows_that_are_not_listed_go(bench: &dyn Bench) {
    let scope = scope("listed");
    let items = items();
    import(bench, &scope, 1, &items, Removed, &[&[Some("1"), Some("a")], &[Some("2"), Some("b")], &[Some("3"), None]])
        .await
        .unwrap();
    let left = compare(bench, &scope, 2, &items, &[&[Some("4"), Some("d")]], &[&[Some("1")], &[Some("3")], &[Some("4")]]).await;
    assert_eq!(left.unwrap(), 3);
    assert_eq!(content(bench, &scope).await, ["1/a", "3/NULL", "4/d"]);
    let (open, ledger) = bench.target().begin(&scope, id(3)).await.unwrap();
    drop(open);
    assert_eq!((ledger.tables[&items.table].rows, ledger.tables[&items.table].transfer), (3, id(2)));
    // Several tables of one import have keys.
    let other = table("other", items.columns.clone(), &["k"]);
    let (mut open, ledger) = bench.target().begin(&scope, id(3)).await.unwrap();
    for one in [&items, &other] {
        open.start_table(&merged(one), ledger.tables.get(&one.table), if one.table == items.table { Kept } else { Removed })
            .await
            .unwrap();
        open.insert(batch(2, &[&[Some("1"), None], &[Some("9"), None]])).await.unwrap();
        open.finish_table(id(3), Sha256Digest::of(b"3")).await.unwrap();
        open.start_keys(&keys_of(one)).await.unwrap();
        open.insert(batch(1, &[&[Some("9")]])).await.unwrap();
        assert_eq!(open.finish_keys().await.unwrap(), 1);
    }
    open.commit(&record(3, &items, 1)).await.unwrap();
    assert_eq!(content(bench, &scope).await, ["9/NULL"]);
    assert_eq!(bench.sql(&scope, "SELECT k || '' FROM other").await, ["9"]);
}

async fn no_keys_at_all_empty_the_table(bench: &dyn Bench) {
    let scope = scope("none");
    import(bench, &scope, 1, &items(), Removed, &[&[Some("1"), Some("a")]]).await.unwrap();
    assert_eq!(compare(bench, &scope, 2, &items(), &[], &[]).await.unwrap(), 0);
    assert!(content(bench, &scope).await.is_empty());
}

async fn a_key_that_is_not_there_shows_in_the_count(bench: &dyn Bench) {
    let scope = scope("lacking");
    import(bench, &scope, 1, &items(), Removed, &[&[Some("1"), Some("a")], &[Some("2"), None]]).await.unwrap();
    assert_eq!(compare(bench, &scope, 2, &items(), &[], &[&[Some("1")], &[Some("7")]]).await.unwrap(), 1);
}

async fn keys_are_compared_by_value(bench: &dyn Bench) {
    let scope = scope("typed");
    let columns = vec![
        column("it's \"x\"", SqlType::Text, false),
        column("t", SqlType::Text, true),
        column("at", SqlType::TimestampTz, false),
        column("x", SqlType::Binary, false),
    ];
    let typed = table("select", columns, &["it's \"x\"", "at", "x"]);
    let rows: [[Option<&str>; 4]; 3] = [
        [Some("a b"), None, Some("2024-01-02T03:04:05.123456+05:30"), Some("AAE=")],
        [Some("a B"), None, Some("2024-01-02T03:04:05.123456+05:30"), Some("AAE=")],
        [Some(""), Some("t"), Some("0001-01-01T00:00:00+00:00"), Some("")],
    ];
    import(bench, &scope, 1, &typed, Removed, &[&rows[0], &rows[1], &rows[2]]).await.unwrap();
    let key = |row: &[Option<&'static str>; 4]| [row[0], row[2], row[3]];
    assert_eq!(compare(bench, &scope, 2, &typed, &[], &[&key(&rows[0]), &key(&rows[2])]).await.unwrap(), 2);
    let found = bench.sql(&scope, "SELECT '[' || \"it's \"\"x\"\"\" || ']' FROM \"select\" ORDER BY 1").await;
    assert_eq!(found, ["[]", "[a b]"]);
}

async fn a_key_that_is_listed_twice_is_refused(bench: &dyn Bench) {
    let scope = scope("twice");
    import(bench, &scope, 1, &items(), Removed, &[&[Some("1"), Some("a")]]).await.unwrap();
    let refused = compare(bench, &scope, 2, &items(), &[], &[&[Some("1")], &[Some("1")]]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ContentInvalid);
    assert_eq!(content(bench, &scope).await, ["1/a"]);
}
