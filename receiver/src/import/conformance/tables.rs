//! Whole tables: transactions, the ledger, names, columns and indexes.

use towpath_transfer::{
    Code, Disposition, Sequence,
    digest::Sha256Digest,
    manifest::{Drift, Mode, SqlType},
    receipt::TableRows,
};

use super::{Bench, Kind, batch, column, content, id, import, items, record, scope, table};
use crate::import::{OldRows::Removed, TableState};

pub(super) async fn all(bench: &dyn Bench) {
    a_table_is_what_was_imported_last(bench).await;
    nothing_is_seen_before_the_commit_and_nothing_stays_without_it(bench).await;
    an_import_is_found_and_happens_once(bench).await;
    two_at_once_follow_each_other(bench).await;
    names_stay_names(bench).await;
    what_is_not_ours_is_refused(bench).await;
    columns_may_change_and_indexes_survive_where_they_do_not(bench).await;
    a_table_that_somebody_dropped_is_made_again(bench).await;
    several_tables_are_one_import(bench).await;
}

async fn a_table_is_what_was_imported_last(bench: &dyn Bench) {
    let scope = scope("last");
    let plain = table("items", items().columns, &[]);
    assert_eq!(import(bench, &scope, 1, &plain, Removed, &[&[Some("1"), Some("a")], &[Some("1"), None]]).await.unwrap(), 2);
    assert_eq!(bench.sql(&scope, "SELECT count(*) || '' FROM items WHERE k = 1").await, ["2"]);
    assert_eq!(import(bench, &scope, 2, &plain, Removed, &[&[Some("3"), Some("")]]).await.unwrap(), 1);
    assert_eq!(content(bench, &scope).await, ["3/"]);
    assert_eq!(import(bench, &scope, 3, &plain, Removed, &[]).await.unwrap(), 0);
    assert!(content(bench, &scope).await.is_empty());
}

async fn nothing_is_seen_before_the_commit_and_nothing_stays_without_it(bench: &dyn Bench) {
    let scope = scope("dropped");
    let items = items();
    import(bench, &scope, 1, &items, Removed, &[&[Some("1"), Some("a")]]).await.unwrap();
    let (mut open, ledger) = bench.target().begin(&scope, id(2)).await.unwrap();
    assert_eq!((ledger.this, ledger.last_sequence), (None, Some(Sequence(1))));
    open.start_table(&items, ledger.tables.get(&items.table), Removed).await.unwrap();
    open.insert(batch(2, &[&[Some("2"), Some("b")], &[Some("3"), Some("c")]])).await.unwrap();
    assert_eq!(content(bench, &scope).await, ["1/a"], "a reader waits, or sees what is not there yet");
    assert_eq!(open.finish_table(id(2), Sha256Digest::of(b"2")).await.unwrap(), 2);
    assert_eq!(content(bench, &scope).await, ["1/a"]);
    drop(open);
    assert_eq!(content(bench, &scope).await, ["1/a"]);
    let (_, ledger) = bench.target().begin(&scope, id(2)).await.unwrap();
    assert_eq!(ledger.this, None);
    assert_eq!(ledger.tables[&items.table].transfer, id(1));
}

async fn an_import_is_found_and_happens_once(bench: &dyn Bench) {
    let scope = scope("once");
    let items = items();
    let mut expected = record(1, &items, 1);
    expected.rows[0].drift = vec![Drift::Added { column: "t".parse().unwrap(), to: SqlType::Text }];
    for round in 0..10 {
        let (mut open, ledger) = bench.target().begin(&scope, id(1)).await.unwrap();
        if round > 0 {
            // As after a commit whose answer was lost.
            assert_eq!(ledger.this.as_ref(), Some(&expected));
            assert_eq!(ledger.last_sequence, Some(Sequence(1)));
            let state = TableState {
                transfer: id(1),
                sha256: Sha256Digest::of(b"1"),
                columns: items.columns.clone(),
                rows: 1,
                key: items.key.clone(),
                mode: Mode::Replace,
            };
            assert_eq!(ledger.tables.get(&items.table), Some(&state));
            continue;
        }
        open.start_table(&items, None, Removed).await.unwrap();
        open.insert(batch(2, &[&[Some("1"), Some("a")]])).await.unwrap();
        open.finish_table(id(1), Sha256Digest::of(b"1")).await.unwrap();
        open.commit(&expected).await.unwrap();
    }
    assert_eq!(content(bench, &scope).await, ["1/a"]);
    assert_eq!(bench.sql(&scope, "SELECT transfer FROM towpath_imports").await, [id(1).to_string()]);
}

async fn two_at_once_follow_each_other(bench: &dyn Bench) {
    let scope = scope("two");
    let items = items();
    import(bench, &scope, 1, &items, Removed, &[]).await.unwrap();
    let (mut first, ledger) = bench.target().begin(&scope, id(2)).await.unwrap();
    let import_first = async {
        first.start_table(&items, ledger.tables.get(&items.table), Removed).await.unwrap();
        first.insert(batch(2, &[&[Some("2"), Some("b")]])).await.unwrap();
        first.finish_table(id(2), Sha256Digest::of(b"2")).await.unwrap();
        first.commit(&record(2, &items, 1)).await.unwrap();
    };
    let (second, ()) = tokio::join!(bench.target().begin(&scope, id(2)), import_first);
    let (_, ledger) = second.unwrap();
    assert_eq!(ledger.this, Some(record(2, &items, 1)));
    // Another schema does not wait.
    let (_open, _) = bench.target().begin(&scope, id(3)).await.unwrap();
    import(bench, &super::scope("other"), 1, &items, Removed, &[]).await.unwrap();
}

async fn names_stay_names(bench: &dyn Bench) {
    let scope = scope("names");
    let hostile = "it\"ems\"; DROP TABLE towpath_imports; --";
    for (n, name) in [hostile, "Größe in m²", "select", "excluded", "t", "k", "a.b", "%s$1 ?", "it's", "\\N", "\u{1f6a2}"]
        .into_iter()
        .enumerate()
    {
        let columns = ["a \"b\"", "select", "Straße", "it's", "$1", "?", "a.b", "\\", "\u{1f6a2}"];
        let one = table(name, columns.iter().map(|name| column(name, SqlType::Text, false)).collect(), &["a \"b\"", "\\"]);
        let values: Vec<Option<&str>> = columns.iter().map(|name| Some(*name)).collect();
        let n = u8::try_from(n + 1).unwrap();
        assert_eq!(import(bench, &scope, n, &one, Removed, &[&values]).await.unwrap(), 1, "{name}");
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let found = bench.sql(&scope, &format!("SELECT \"a \"\"b\"\"\" || \"\\\" || \"select\" FROM {quoted}")).await;
        assert_eq!(found, ["a \"b\"\\select"], "{name}");
        assert_eq!(
            import(bench, &scope, n + 100, &super::merged(&one), crate::import::OldRows::Kept, &[&values]).await.unwrap(),
            1,
            "{name}"
        );
    }
    assert_eq!(bench.sql(&scope, "SELECT count(*) || '' FROM towpath_imports").await, ["22"]);
}

async fn what_is_not_ours_is_refused(bench: &dyn Bench) {
    let scope = scope("theirs");
    let items = items();
    import(bench, &scope, 1, &items, Removed, &[]).await.unwrap();
    for made in ["CREATE TABLE orders (n int)", "INSERT INTO orders VALUES (7)", "CREATE VIEW seen AS SELECT * FROM orders"] {
        let _ = bench.sql(&scope, made).await;
    }
    for name in ["orders", "seen", "towpath_imports", "towpath_tables", "Towpath_x"] {
        let refused = import(bench, &scope, 2, &table(name, items.columns.clone(), &[]), Removed, &[]).await.unwrap_err();
        assert_eq!((refused.code(), refused.disposition()), (Code::ImportRefused, Disposition::Park), "{name}");
    }
    assert_eq!(bench.sql(&scope, "SELECT n || '' FROM orders").await, ["7"]);
    assert_eq!(bench.sql(&scope, "SELECT count(*) || '' FROM towpath_imports").await, ["1"]);
}

async fn columns_may_change_and_indexes_survive_where_they_do_not(bench: &dyn Bench) {
    let scope = scope("columns");
    let narrow = table("items", vec![column("k", SqlType::BigInt, false)], &["k"]);
    import(bench, &scope, 1, &narrow, Removed, &[&[Some("1")]]).await.unwrap();
    let _ = bench.sql(&scope, "CREATE INDEX by_k ON items (k)").await;
    let indexes = match bench.kind() {
        Kind::Sqlite => "SELECT name FROM sqlite_schema WHERE type = 'index' AND name NOT LIKE 'towpath%' AND tbl_name = 'items'",
        Kind::Postgres => {
            "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema AND indexname NOT LIKE 'towpath%' AND tablename = 'items'"
        }
    };
    import(bench, &scope, 2, &narrow, Removed, &[&[Some("2")], &[Some("3")]]).await.unwrap();
    assert_eq!(bench.sql(&scope, indexes).await, ["by_k"]);
    // Neither a key that goes nor one that comes costs an index.
    for (n, key) in [(3, &[][..]), (4, &["k"][..])] {
        import(bench, &scope, n, &table("items", narrow.columns.clone(), key), Removed, &[&[Some("2")], &[Some("3")]])
            .await
            .unwrap();
        assert_eq!(bench.sql(&scope, indexes).await, ["by_k"]);
    }
    import(bench, &scope, 5, &items(), Removed, &[&[Some("4"), Some("")]]).await.unwrap();
    assert_eq!(content(bench, &scope).await, ["4/"]);
    import(bench, &scope, 6, &narrow, Removed, &[&[Some("5")]]).await.unwrap();
    assert_eq!(bench.sql(&scope, "SELECT k || '' FROM items").await, ["5"]);
}

async fn a_table_that_somebody_dropped_is_made_again(bench: &dyn Bench) {
    let scope = scope("gone");
    let items = items();
    import(bench, &scope, 1, &items, Removed, &[&[Some("1"), None], &[Some("2"), None]]).await.unwrap();
    let (mut open, _) = bench.target().begin(&scope, id(2)).await.unwrap();
    assert_eq!(open.count_table(&items.table).await.unwrap(), Some(2));
    drop(open);
    let _ = bench.sql(&scope, "DROP TABLE items").await;
    let (mut open, _) = bench.target().begin(&scope, id(2)).await.unwrap();
    assert_eq!(open.count_table(&items.table).await.unwrap(), None);
    drop(open);
    assert_eq!(import(bench, &scope, 2, &items, Removed, &[&[Some("3"), None]]).await.unwrap(), 1);
    assert_eq!(content(bench, &scope).await, ["3/NULL"]);
}

async fn several_tables_are_one_import(bench: &dyn Bench) {
    let scope = scope("several");
    let (mut open, _) = bench.target().begin(&scope, id(1)).await.unwrap();
    let tables: Vec<_> = (0..3).map(|n| table(&format!("t{n}"), vec![column("n", SqlType::BigInt, true)], &[])).collect();
    for one in &tables {
        open.start_table(one, None, Removed).await.unwrap();
        open.insert(batch(1, &[&[None], &[Some("1")]])).await.unwrap();
        open.finish_table(id(1), Sha256Digest::of(b"1")).await.unwrap();
    }
    let rows = tables.iter().map(|one| TableRows::new(one.table.clone(), 2)).collect();
    open.commit(&crate::import::ImportRecord { rows, ..record(1, &tables[0], 2) }).await.unwrap();
    let (_, ledger) = bench.target().begin(&scope, id(1)).await.unwrap();
    assert_eq!((ledger.tables.len(), ledger.this.unwrap().rows.len()), (3, 3));
}
