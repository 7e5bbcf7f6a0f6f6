//! The forms in which a ledger keeps things as text, the same in every database.

use serde::{Deserialize, Serialize};
use towpath_transfer::{
    Code, Failure,
    manifest::{Label, Mode},
    receipt::TableRows,
};

use super::{ImportRecord, Owner, TableState};

impl Owner {
    /// Whether a schema is nobody's yet, by what its `towpath_owner` says: tenant and receiver.
    ///
    /// # Errors
    /// `app-taken` where it is another receiver's; `shown` says which schema.
    pub(super) fn may_take(&self, found: Option<&(String, String)>, shown: &str) -> Result<bool, Failure> {
        let Some(found) = found else { return Ok(true) };
        if self.is(found) {
            return Ok(false);
        }
        let (tenant, receiver) = found;
        let told = format!(
            "{shown} holds the tables of another receiver: tenant {tenant:?}, key {receiver:?}; this one is of tenant {}, key {}",
            self.tenant, self.receiver
        );
        Err(Failure::park(Code::AppTaken, told))
    }

    /// Whether the row of a schema means this receiver.
    pub(super) fn is(&self, (tenant, receiver): &(String, String)) -> bool {
        tenant == self.tenant.as_str() && *receiver == self.receiver.to_string()
    }
}

/// There is nothing to adopt.
pub(super) fn not_taken(shown: &str) -> Failure {
    Failure::park(Code::NotFound, format!("{shown} holds no tables of any receiver"))
}

/// What a row of `towpath_imports` has, beside the transfer.
pub(super) struct ImportText<'a> {
    pub(super) sequence: i64,
    pub(super) manifest: &'a str,
    pub(super) imported: &'a str,
    pub(super) rows: &'a str,
}

impl ImportText<'_> {
    /// The record; `None` where the text is not a ledger's.
    pub(super) fn read(&self, transfer: towpath_transfer::TransferId) -> Option<ImportRecord> {
        Some(ImportRecord {
            transfer,
            sequence: towpath_transfer::Sequence(u64::try_from(self.sequence).ok()?),
            manifest: self.manifest.parse().ok()?,
            imported: self.imported.parse().ok()?,
            rows: read_rows(self.rows)?,
        })
    }
}

/// What a row of `towpath_tables` has.
pub(super) struct TableText<'a> {
    pub(super) name: &'a str,
    pub(super) transfer: &'a str,
    pub(super) sha256: &'a str,
    pub(super) columns: &'a str,
    pub(super) rows: i64,
    pub(super) key: &'a str,
    pub(super) mode: &'a str,
}

impl TableText<'_> {
    /// The table's name and state; `None` where the text is not a ledger's.
    pub(super) fn read(&self) -> Option<(Label, TableState)> {
        let state = TableState {
            transfer: self.transfer.parse().ok()?,
            sha256: self.sha256.parse().ok()?,
            columns: serde_json::from_str(self.columns).ok()?,
            rows: u64::try_from(self.rows).ok()?,
            key: serde_json::from_str(self.key).ok()?,
            mode: mode(self.mode)?,
        };
        Some((self.name.parse().ok()?, state))
    }
}

/// A value as the text that a ledger keeps.
pub(super) fn text(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| Failure::park(Code::Internal, "writing the import ledger failed").caused_by(e))
}

/// A number as the signed one that a database keeps.
pub(super) fn signed(number: u64) -> Result<i64, Failure> {
    i64::try_from(number).map_err(|e| Failure::park(Code::ImportRefused, "a number is beyond what a database keeps").caused_by(e))
}

/// The word for a mode.
pub(super) const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Replace => "replace",
        Mode::Merge => "merge",
    }
}

fn mode(word: &str) -> Option<Mode> {
    [Mode::Replace, Mode::Merge].into_iter().find(|mode| mode_word(*mode) == word)
}

/// The ledger's first form had pairs of a table and its rows.
#[derive(Deserialize)]
#[serde(untagged)]
enum Counted {
    Pair(Label, u64),
    Whole(TableRows),
}

fn read_rows(text: &str) -> Option<Vec<TableRows>> {
    let counted: Vec<Counted> = serde_json::from_str(text).ok()?;
    let whole = counted.into_iter().map(|counted| match counted {
        Counted::Pair(table, rows) => TableRows::new(table, rows),
        Counted::Whole(whole) => whole,
    });
    Some(whole.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_transfer::manifest::{Drift, SqlType};

    #[test]
    fn both_forms_of_row_counts_are_read() {
        let items = TableRows::new("items".parse().unwrap(), 2);
        assert_eq!(read_rows(r#"[["items",2]]"#).unwrap(), std::slice::from_ref(&items));
        let drift = vec![Drift::Added { column: "c".parse().unwrap(), to: SqlType::Text }];
        let drifted = TableRows { drift, ..items };
        assert_eq!(read_rows(&text(&[&drifted]).unwrap()).unwrap(), [drifted]);
        assert_eq!(read_rows("[2]"), None);
    }

    #[test]
    fn modes_have_the_words_of_the_manifest() {
        for known in [Mode::Replace, Mode::Merge] {
            assert_eq!(text(&known).unwrap(), format!("{:?}", mode_word(known)));
            assert_eq!(mode(mode_word(known)), Some(known));
        }
        assert_eq!(mode("append"), None);
    }
}
