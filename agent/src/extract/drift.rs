//! How a table's columns differ from those of the job's last import, and what the configuration says of it.

use towpath_transfer::{
    Code, Failure,
    manifest::{Column, Drift, Label},
};

use crate::config::{DriftPolicy, Policy};

/// The differences, by name as it is written: what was added or changed in the order of the columns, then what was removed. The
/// order of columns and whether they may be NULL are none.
pub(crate) fn between(before: &[Column], now: &[Column]) -> Vec<Drift> {
    let find = |columns: &[Column], name: &Label| columns.iter().find(|column| column.name == *name).cloned();
    let new = now.iter().filter_map(|column| match find(before, &column.name) {
        None => Some(Drift::Added { column: column.name.clone(), to: column.sql_type }),
        Some(old) if old.sql_type != column.sql_type => {
            Some(Drift::Changed { column: old.name, from: old.sql_type, to: column.sql_type })
        }
        Some(_) => None,
    });
    let gone = before.iter().filter(|column| find(now, &column.name).is_none());
    new.chain(gone.map(|column| Drift::Removed { column: column.name.clone(), from: column.sql_type })).collect()
}

/// What follows from a change.
pub(crate) fn policy(policy: &DriftPolicy, change: &Drift) -> Policy {
    match change {
        Drift::Added { .. } => policy.added,
        Drift::Removed { .. } => policy.removed,
        Drift::Changed { .. } => policy.changed,
    }
}

/// Stops where a table's policy says so, naming every change of every such table.
///
/// # Errors
/// `schema-changed` (park).
pub(super) fn stop<'a>(tables: impl Iterator<Item = (&'a Label, &'a DriftPolicy, &'a [Drift])>) -> Result<(), Failure> {
    let stops =
        |(_, says, drift): &(&Label, &DriftPolicy, &[Drift])| drift.iter().any(|change| policy(says, change) == Policy::Stop);
    let told: Vec<String> = tables
        .filter(stops)
        .map(|(table, _, drift)| {
            let changes: Vec<String> = drift.iter().map(ToString::to_string).collect();
            format!("table {table}: {}", changes.join(", "))
        })
        .collect();
    if told.is_empty() {
        return Ok(());
    }
    let message = format!("the columns are not those of the last import, and `drift` says to stop: {}", told.join("; "));
    Err(Failure::park(Code::SchemaChanged, message))
}

#[cfg(test)]
mod tests {
    use towpath_transfer::{Disposition, manifest::SqlType};

    use super::*;

    fn column(name: &str, sql_type: SqlType) -> Column {
        Column { name: name.parse().unwrap(), sql_type, nullable: true }
    }

    #[test]
    fn columns_are_compared_by_name_and_type() {
        let before = [column("a", SqlType::Text), column("b", SqlType::BigInt), column("c", SqlType::Date)];
        let moved = [column("c", SqlType::Date), column("a", SqlType::Text), column("b", SqlType::BigInt)];
        assert!(between(&before, &moved).is_empty());
        let now = [column("A", SqlType::Text), column("c", SqlType::Timestamp), column("b", SqlType::BigInt)];
        let told: Vec<String> = between(&before, &now).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["column A was added, TEXT", "column c changed from DATE to TIMESTAMP", "column a was removed, TEXT"]);
    }

    #[test]
    fn a_stop_names_every_change_of_every_table_that_says_so() {
        let (items, sales): (Label, Label) = ("items".parse().unwrap(), "sales".parse().unwrap());
        let drift = between(&[column("a", SqlType::Text)], &[column("b", SqlType::Text)]);
        let lenient = DriftPolicy::default();
        let strict = DriftPolicy { removed: Policy::Stop, ..lenient };
        stop([(&items, &lenient, drift.as_slice()), (&sales, &strict, &[])].into_iter()).unwrap();
        let failure = stop([(&items, &strict, drift.as_slice()), (&sales, &strict, &drift)].into_iter()).unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (Code::SchemaChanged, Disposition::Park));
        for part in ["table items: column b was added, TEXT, column a was removed, TEXT", "; table sales: "] {
            assert!(failure.message().contains(part), "{failure}");
        }
    }
}
