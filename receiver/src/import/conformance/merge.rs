//! Rows that are merged by key, and keys that tables have.

use towpath_transfer::{
    Code, Disposition,
    digest::Sha256Digest,
    manifest::{Mode, SqlType},
};

use super::{Bench, batch, column, content, id, import, items, merged, record, scope, table};
use crate::import::{
    MAX_BATCH_ROWS,
    OldRows::{Kept, Removed},
};

pub(super) async fn all(bench: &dyn Bench) {
    rows_are_replaced_and_added_by_key(bench).await;
    without_a_base_the_table_starts_empty(bench).await;
    a_key_may_have_several_columns_or_all(bench).await;
    two_rows_of_one_key_are_refused(bench).await;
    nothing_is_merged_into_what_is_not_there(bench).await;
    a_merge_of_many_rows_is_one(bench).await;
}

async fn rows_are_replaced_and_added_by_key(bench: &dyn Bench) {
    let scope = scope("merge");
    let items = items();
    import(bench, &scope, 1, &items, Removed, &[&[Some("1"), Some("a")], &[Some("2"), Some("b")]]).await.unwrap();
    // The later of two rows counts, in one batch and over several.
    let (mut open, ledger) = bench.target().begin(&scope, id(2)).await.unwrap();
    open.start_table(&merged(&items), ledger.tables.get(&items.table), Kept).await.unwrap();
    let first: &[super::Fields<'_>] = &[&[Some("2"), Some("x")], &[Some("3"), Some("x")], &[Some("3"), Some("y")]];
    open.insert(batch(2, first)).await.unwrap();
    open.insert(batch(2, &[&[Some("2"), None], &[Some("-4"), Some("")]])).await.unwrap();
    assert_eq!(content(bench, &scope).await, ["1/a", "2/b"]);
    assert_eq!(open.finish_table(id(2), Sha256Digest::of(b"2")).await.unwrap(), 4);
    open.commit(&record(2, &items, 4)).await.unwrap();
    assert_eq!(content(bench, &scope).await, ["-4/", "1/a", "2/NULL", "3/y"]);
    let (open, ledger) = bench.target().begin(&scope, id(3)).await.unwrap();
    drop(open);
    let state = &ledger.tables[&items.table];
    assert_eq!((state.transfer, state.rows, state.mode), (id(2), 4, Mode::Merge));
    assert_eq!((&state.key, state.sha256), (&items.key, Sha256Digest::of(b"2")));
    // A merge of nothing changes nothing but the ledger.
    assert_eq!(import(bench, &scope, 3, &merged(&items), Kept, &[]).await.unwrap(), 4);
    assert_eq!(content(bench, &scope).await, ["-4/", "1/a", "2/NULL", "3/y"]);
}

async fn without_a_base_the_table_starts_empty(bench: &dyn Bench) {
    let scope = scope("empty");
    let items = merged(&items());
    for n in 1..=2 {
        let rows: &[super::Fields<'_>] = &[&[Some("1"), Some("a")], &[Some("1"), Some("b")]];
        assert_eq!(import(bench, &scope, n, &items, Removed, rows).await.unwrap(), 1);
        assert_eq!(content(bench, &scope).await, ["1/b"]);
    }
    assert_eq!(import(bench, &scope, 3, &items, Removed, &[&[Some("2"), Some("c")]]).await.unwrap(), 1);
    assert_eq!(content(bench, &scope).await, ["2/c"]);
}

async fn a_key_may_have_several_columns_or_all(bench: &dyn Bench) {
    let scope = scope("wide");
    let types = [
        ("b", SqlType::BigInt),
        ("d", SqlType::Decimal { precision: 30, scale: 4 }),
        ("t", SqlType::Text),
        ("o", SqlType::Boolean),
        ("a", SqlType::Date),
        ("i", SqlType::Time),
        ("s", SqlType::Timestamp),
        ("z", SqlType::TimestampTz),
        ("x", SqlType::Binary),
    ];
    let names: Vec<&str> = types.iter().map(|(name, _)| *name).collect();
    let wide = table("wide", types.iter().map(|(name, of)| column(name, *of, false)).collect(), &names);
    let row = |last: &'static str| {
        ["1", "-1.2500", "ä\t\\", "true", "1899-12-31", "23:59:59.5", "2024-01-02T03:04:05", "2024-01-02T03:04:05+01:00", last]
            .map(Some)
    };
    import(bench, &scope, 1, &wide, Removed, &[&row("AAE="), &row("")]).await.unwrap();
    assert_eq!(import(bench, &scope, 2, &merged(&wide), Kept, &[&row("AAE="), &row("AQ=="), &row("AQ==")]).await.unwrap(), 3);
    let doubled = import(bench, &scope, 3, &wide, Removed, &[&row("AAE="), &row("AAE=")]).await.unwrap_err();
    assert_eq!(doubled.code(), Code::ContentInvalid);
}

async fn two_rows_of_one_key_are_refused(bench: &dyn Bench) {
    let scope = scope("doubled");
    let items = items();
    import(bench, &scope, 1, &items, Removed, &[&[Some("1"), Some("a")]]).await.unwrap();
    let (mut open, ledger) = bench.target().begin(&scope, id(2)).await.unwrap();
    open.start_table(&items, ledger.tables.get(&items.table), Removed).await.unwrap();
    let refused = open.insert(batch(2, &[&[Some("2"), Some("a")], &[Some("2"), Some("a")]])).await.unwrap_err();
    assert_eq!((refused.code(), refused.disposition()), (Code::ContentInvalid, Disposition::Park));
    assert!(refused.message().contains("items") && refused.message().contains("(k)"), "{refused}");
    drop(open);
    let refused = import(bench, &scope, 2, &items, Removed, &[&[Some("2"), None], &[Some("2"), Some("b")]]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ContentInvalid);
    assert_eq!(content(bench, &scope).await, ["1/a"]);
}

async fn nothing_is_merged_into_what_is_not_there(bench: &dyn Bench) {
    let scope = scope("nothing");
    let items = items();
    let missing = import(bench, &scope, 1, &merged(&items), Kept, &[]).await.unwrap_err();
    assert_eq!((missing.code(), missing.disposition()), (Code::BaseMissing, Disposition::Park));
    import(bench, &scope, 1, &items, Removed, &[]).await.unwrap();
    let _ = bench.sql(&scope, "DROP TABLE items").await;
    assert_eq!(import(bench, &scope, 2, &merged(&items), Kept, &[]).await.unwrap_err().code(), Code::BaseMissing);
}

async fn a_merge_of_many_rows_is_one(bench: &dyn Bench) {
    let scope = scope("many");
    let items = items();
    for (n, mode, old, from) in [(1, &items, Removed, 0), (2, &merged(&items), Kept, 2_500)] {
        let (mut open, ledger) = bench.target().begin(&scope, id(n)).await.unwrap();
        open.start_table(mode, ledger.tables.get(&items.table), old).await.unwrap();
        for start in (from..from + 5_000).step_by(MAX_BATCH_ROWS) {
            let numbers: Vec<String> = (start..start + MAX_BATCH_ROWS).map(|k| k.to_string()).collect();
            let text = format!("import {n}");
            let rows: Vec<[Option<&str>; 2]> = numbers.iter().map(|k| [Some(&**k), Some(&*text)]).collect();
            let rows: Vec<super::Fields<'_>> = rows.iter().map(|row| &row[..]).collect();
            open.insert(batch(2, &rows)).await.unwrap();
        }
        let counted = open.finish_table(id(n), Sha256Digest::of(&[n])).await.unwrap();
        open.commit(&record(n, &items, counted)).await.unwrap();
    }
    let found = bench.sql(&scope, "SELECT t || ' ' || count(*) || ' ' || min(k) FROM items GROUP BY t ORDER BY t").await;
    assert_eq!(found, ["import 1 2500 0", "import 2 5000 2500"]);
}
