//! The rules of [`ImportTarget`], as a suite that runs over every target. What has landed is read by another way than the target's
//! own: another connection, or the database's own client.

mod keys;
mod merge;
mod owners;
mod tables;
mod values;

use async_trait::async_trait;
use towpath_transfer::{
    Failure, Sequence, TransferId,
    digest::Sha256Digest,
    manifest::{Column, Mode, SqlType, Table},
    receipt::TableRows,
};

pub(super) use crate::testing::owner;

use super::{ImportRecord, ImportScope, ImportTarget, OldRows, Owner, RowBatch};

/// Which database a bench has: values have other texts in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Sqlite,
    Postgres,
}

/// A target with an empty database, `owner("acme", 1)`'s.
#[async_trait]
pub(super) trait Bench: Send + Sync {
    fn kind(&self) -> Kind;

    fn target(&self) -> &dyn ImportTarget;

    /// The same database, as another receiver has it.
    fn target_of(&self, owner: Owner) -> Box<dyn ImportTarget>;

    /// Runs SQL in the schema of `scope`, as the app would, and returns the one column of what it finds.
    async fn sql(&self, scope: &ImportScope, sql: &str) -> Vec<String>;
}

/// A row, as the CSV has it.
pub(super) type Fields<'a> = &'a [Option<&'a str>];

pub(super) fn id(n: u8) -> TransferId {
    format!("01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a{n:02x}").parse().unwrap()
}

pub(super) fn scope(job: &str) -> ImportScope {
    ImportScope { agent: "erp".parse().unwrap(), job: job.parse().unwrap() }
}

pub(super) fn column(name: &str, sql_type: SqlType, nullable: bool) -> Column {
    Column { name: name.parse().unwrap(), sql_type, nullable }
}

pub(super) fn table(name: &str, columns: Vec<Column>, key: &[&str]) -> Table {
    let mut table = Table::whole(name.parse().unwrap(), columns, 0, Vec::new());
    table.key = key.iter().map(|name| name.parse().unwrap()).collect();
    table
}

/// `k BIGINT, t TEXT` with the key `k`.
pub(super) fn items() -> Table {
    table("items", vec![column("k", SqlType::BigInt, false), column("t", SqlType::Text, true)], &["k"])
}

pub(super) fn merged(table: &Table) -> Table {
    Table { mode: Mode::Merge, ..table.clone() }
}

pub(super) fn record(n: u8, table: &Table, rows: u64) -> ImportRecord {
    ImportRecord {
        transfer: id(n),
        sequence: Sequence(n.into()),
        manifest: Sha256Digest::of(&[n]),
        imported: "2026-01-02T03:04:05Z".parse().unwrap(),
        rows: vec![TableRows::new(table.table.clone(), rows)],
    }
}

pub(super) fn batch(width: usize, rows: &[Fields<'_>]) -> RowBatch {
    let mut batch = RowBatch::new(width);
    rows.iter().flat_map(|row| row.iter()).for_each(|field| batch.push(*field));
    batch
}

/// Transfer `n` with one table, every row in a batch of its own.
pub(super) async fn import(
    bench: &dyn Bench,
    scope: &ImportScope,
    n: u8,
    table: &Table,
    old: OldRows,
    rows: &[Fields<'_>],
) -> Result<u64, Failure> {
    import_by(bench.target(), scope, n, table, old, rows).await
}

/// The same, by any receiver.
pub(super) async fn import_by(
    target: &dyn ImportTarget,
    scope: &ImportScope,
    n: u8,
    table: &Table,
    old: OldRows,
    rows: &[Fields<'_>],
) -> Result<u64, Failure> {
    let (mut import, ledger) = target.begin(scope, id(n)).await?;
    assert_eq!(ledger.this, None);
    import.start_table(table, ledger.tables.get(&table.table), old).await?;
    for row in rows {
        import.insert(batch(table.columns.len(), &[row])).await?;
    }
    let counted = import.finish_table(id(n), Sha256Digest::of(&[n])).await?;
    import.commit(&record(n, table, counted)).await?;
    Ok(counted)
}

/// The rows of `items` in order of the key, as the app sees them.
pub(super) async fn content(bench: &dyn Bench, scope: &ImportScope) -> Vec<String> {
    bench.sql(scope, "SELECT k || '/' || coalesce(t, 'NULL') FROM items ORDER BY k").await
}

/// Runs every rule.
pub(super) async fn all(bench: &dyn Bench) {
    tables::all(bench).await;
    owners::all(bench).await;
    merge::all(bench).await;
    keys::all(bench).await;
    values::all(bench).await;
}
