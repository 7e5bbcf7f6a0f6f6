//! How two transfers of a job differ, by what their manifests say. The rows themselves are not kept once the app has them.

use jiff::Timestamp;
use serde::Serialize;
use towpath_transfer::{
    Code, Direction, Failure,
    decimal::{Decimal, DecimalSum},
    digest::Sha256Digest,
    failure::Result,
    manifest::{Drift, FileEntry, Label, Manifest, Mode, Table},
};

use crate::extract::drift;

/// How the tables of two transfers differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The one that counts as before.
    pub from: Side,
    /// The one that counts as after.
    pub to: Side,
    /// Every table of either, those of `to` in their order first.
    pub tables: Vec<TableDifference>,
}

/// One of the two transfers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The transfer.
    pub transfer: String,
    /// When its manifest was made.
    pub created: Timestamp,
}

/// How one table differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableDifference {
    /// The table.
    pub table: Label,
    /// In one word.
    pub change: Change,
    /// Its rows before.
    pub rows_before: Option<u64>,
    /// Its rows after.
    pub rows_after: Option<u64>,
    /// How its columns differ.
    pub columns: Vec<Drift>,
    /// Columns of numbers whose count or sum differs.
    pub totals: Vec<TotalDifference>,
}

/// How a table differs, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Only the later transfer has it.
    Added,
    /// Only the earlier transfer has it.
    Removed,
    /// Byte for byte the same.
    Same,
    /// Not the same.
    Changed,
    /// One of the two has its changed rows only, so that rows and sums are of different things.
    ChangedRowsOnly,
}

impl Change {
    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Same => "the same",
            Self::Changed => "changed",
            Self::ChangedRowsOnly => "changed rows only",
        }
    }
}

/// How the control totals of a column differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TotalDifference {
    /// The column.
    pub column: Label,
    /// Values that are not NULL, before.
    pub count_before: u64,
    /// Values that are not NULL, after.
    pub count_after: u64,
    /// Their exact sum before.
    pub sum_before: Decimal,
    /// Their exact sum after.
    pub sum_after: Decimal,
    /// The sum after less the sum before, exactly.
    pub difference: Decimal,
}

/// Compares two manifests.
///
/// # Errors
/// `request-invalid` where one is of return files or they are of different jobs.
pub fn difference(from: &Manifest, to: &Manifest) -> Result<Difference> {
    let refused = |why: String| Failure::park(Code::RequestInvalid, why);
    if let Some(returned) = [from, to].into_iter().find(|manifest| manifest.direction != Direction::Uplink) {
        return Err(refused(format!("transfer {} is of return files, and only tables can be compared", returned.transfer)));
    }
    if from.job != to.job {
        return Err(refused(format!("the transfers are of different jobs, {} and {}", from.job, to.job)));
    }
    let (before, after) = (tables(from), tables(to));
    let find = |tables: &[(&FileEntry, &Table)], name: &Label| -> Option<Found> {
        tables
            .iter()
            .find(|(_, table)| table.table == *name)
            .map(|(file, table)| Found { sha256: file.sha256, table: (*table).clone() })
    };
    let mut names: Vec<&Label> = after.iter().map(|(_, table)| &table.table).collect();
    names
        .extend(before.iter().map(|(_, table)| &table.table).filter(|name| after.iter().all(|(_, table)| table.table != **name)));
    let tables = names.into_iter().map(|name| one(name, find(&before, name).as_ref(), find(&after, name).as_ref())).collect();
    let side = |manifest: &Manifest| Side { transfer: manifest.transfer.to_string(), created: manifest.created };
    Ok(Difference { from: side(from), to: side(to), tables })
}

struct Found {
    sha256: Sha256Digest,
    table: Table,
}

fn tables(manifest: &Manifest) -> Vec<(&FileEntry, &Table)> {
    manifest.files.iter().filter_map(|file| Some((file, file.table()?))).collect()
}

fn one(name: &Label, before: Option<&Found>, after: Option<&Found>) -> TableDifference {
    let rows = |found: Option<&Found>| found.map(|found| found.table.rows);
    let (rows_before, rows_after) = (rows(before), rows(after));
    let (change, columns, totals) = match (before, after) {
        (Some(before), Some(after)) => {
            let partial = [before, after].iter().any(|found| found.table.mode == Mode::Merge);
            let change = match (partial, before.sha256 == after.sha256) {
                (true, _) => Change::ChangedRowsOnly,
                (false, true) => Change::Same,
                (false, false) => Change::Changed,
            };
            let totals = if change == Change::Changed { totals(&before.table, &after.table) } else { Vec::new() };
            (change, drift::between(&before.table.columns, &after.table.columns), totals)
        }
        (None, _) => (Change::Added, Vec::new(), Vec::new()),
        (Some(_), None) => (Change::Removed, Vec::new(), Vec::new()),
    };
    TableDifference { table: name.clone(), change, rows_before, rows_after, columns, totals }
}

fn totals(before: &Table, after: &Table) -> Vec<TotalDifference> {
    let differs = |after: &towpath_transfer::manifest::ControlTotal| {
        let before = before.totals.iter().find(|total| total.column == after.column)?;
        if before.count == after.count && before.sum == after.sum {
            return None;
        }
        Some(TotalDifference {
            column: after.column.clone(),
            count_before: before.count,
            count_after: after.count,
            sum_before: before.sum.clone(),
            sum_after: after.sum.clone(),
            difference: less(&after.sum, &before.sum)?,
        })
    };
    after.totals.iter().filter_map(differs).collect()
}

/// `a` less `b`; `None` beyond what a [`Decimal`] holds, which no two sums of columns are apart.
fn less(a: &Decimal, b: &Decimal) -> Option<Decimal> {
    let text = b.to_string();
    let negated = match text.strip_prefix('-') {
        Some(positive) => positive.to_owned(),
        None => format!("-{text}"),
    };
    let mut sum = DecimalSum::new();
    sum.add(a).ok()?;
    sum.add(&negated.parse().ok()?).ok()?;
    Some(sum.finish())
}

#[cfg(test)]
mod tests {
    use towpath_transfer::{
        Sequence, TransferId,
        clock::{ManualClock, SeededEntropy},
        digest::Md5Digest,
        manifest::{Column, Content, ControlTotal, SqlType},
    };

    use super::*;

    /// A table: its name, its rows, its bytes, and its columns of numbers with their sums.
    type Sample<'a> = (&'a str, u64, &'a str, &'a [(&'a str, &'a str)]);

    fn manifest(seed: u64, tables: &[Sample<'_>]) -> Manifest {
        let label = |text: &str| -> Label { text.parse().unwrap() };
        let files = tables.iter().map(|(name, rows, bytes, sums)| {
            let column = |name: &str| Column { name: label(name), sql_type: SqlType::BigInt, nullable: true };
            let total = |column: &str, sum: &str| ControlTotal { column: label(column), count: *rows, sum: sum.parse().unwrap() };
            let columns = sums.iter().map(|(name, _)| column(name)).collect();
            let totals = sums.iter().map(|(name, sum)| total(name, sum)).collect();
            FileEntry {
                name: format!("{name}.csv").parse().unwrap(),
                media_type: "text/csv".into(),
                size: bytes.len() as u64,
                md5: Md5Digest::from_bytes([0; 16]),
                sha256: Sha256Digest::of(bytes.as_bytes()),
                unchanged: false,
                base: None,
                content: Content::Table(Table::whole(label(name), columns, *rows, totals)),
            }
        });
        let clock = ManualClock::new("2026-03-01T12:00:00Z".parse().unwrap());
        Manifest {
            version: 1,
            transfer: TransferId::new(&clock, &SeededEntropy::new(seed)),
            direction: Direction::Uplink,
            tenant: "acme".parse().unwrap(),
            agent: "erp".parse().unwrap(),
            job: "main".parse().unwrap(),
            created: "2026-03-01T12:00:00Z".parse().unwrap(),
            sequence: Sequence(seed),
            snapshot: None,
            kind: None,
            files: files.collect(),
        }
    }

    #[test]
    fn tables_rows_columns_and_sums_are_compared() {
        let before = manifest(1, &[("items", 2, "a", &[("price", "1.50")]), ("gone", 1, "x", &[]), ("same", 3, "s", &[])]);
        let after =
            manifest(2, &[("new", 4, "n", &[]), ("items", 3, "b", &[("price", "-0.25"), ("stock", "7")]), ("same", 3, "s", &[])]);
        let found = difference(&before, &after).unwrap();
        let told: Vec<_> = found.tables.iter().map(|table| (table.table.as_str(), table.change)).collect();
        let expected = [("new", Change::Added), ("items", Change::Changed), ("same", Change::Same), ("gone", Change::Removed)];
        assert_eq!(told, expected);
        let items = &found.tables[1];
        assert_eq!((items.rows_before, items.rows_after), (Some(2), Some(3)));
        assert_eq!(items.columns.iter().map(ToString::to_string).collect::<Vec<_>>(), ["column stock was added, BIGINT"]);
        let [total] = items.totals.as_slice() else { panic!("{:?}", items.totals) };
        assert_eq!((total.column.as_str(), total.difference.to_string()), ("price", "-1.75".to_owned()));
    }

    #[test]
    fn sums_of_changed_rows_are_not_compared_with_those_of_a_table() {
        let (before, mut after) =
            (manifest(1, &[("items", 2, "a", &[("n", "5")])]), manifest(2, &[("items", 1, "b", &[("n", "1")])]));
        let Content::Table(table) = &mut after.files[0].content else { panic!("no table") };
        table.mode = Mode::Merge;
        let found = difference(&before, &after).unwrap();
        assert_eq!((found.tables[0].change, found.tables[0].totals.len()), (Change::ChangedRowsOnly, 0));
    }

    #[test]
    fn return_files_and_other_jobs_are_refused() {
        let (before, mut after) = (manifest(1, &[]), manifest(2, &[]));
        after.job = "other".parse().unwrap();
        assert_eq!(difference(&before, &after).unwrap_err().code(), Code::RequestInvalid);
        after.direction = Direction::Downlink;
        assert!(difference(&after, &before).unwrap_err().report().contains("return files"));
    }
}
