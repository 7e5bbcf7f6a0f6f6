//! A table in a manifest: its columns, its totals, and how its rows go into the app.

use std::{collections::HashSet, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Label, MAX_COLUMNS, SqlType};
use crate::{decimal::Decimal, digest::Sha256Digest};

/// A table as wire CSV.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The table's name, as the import target will know it.
    pub table: Label,
    /// How the CSV is written.
    pub dialect: Dialect,
    /// The columns, in the order of the header row.
    pub columns: Vec<Column>,
    /// Number of rows without the header.
    pub rows: u64,
    /// One for each numeric column.
    pub totals: Vec<ControlTotal>,
    /// How the rows go into the app's table.
    #[serde(skip_serializing_if = "Mode::is_replace", default)]
    pub mode: Mode,
    /// The columns whose values no two rows share, none of them NULL. Empty where there is no key.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub key: Vec<Label>,
    /// The range of the watermark column(s), where the table is sent incrementally.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub watermark: Option<Watermark>,
    /// When the ERP's keys were last sent with an incremental table, or the whole table.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub compared: Option<Timestamp>,
    /// How the columns differ from those of the job's last import.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub drift: Vec<Drift>,
    /// Columns whose values are keyed hashes of the ERP's.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub pseudonymised: Vec<Label>,
    /// What tells the key of these hashes from others: values of two manifests can be compared only where it is the same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pseudonym_key: Option<Sha256Digest>,
    /// How many texts had NUL characters that were replaced by U+FFFD.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub nul_replaced: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// How the rows of a file go into the app's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are the table. With a key, two rows of the same key are an error.
    #[default]
    Replace,
    /// By key: a row that is there is replaced, one that is not is added; of two rows of the same key in the file the later
    /// counts. Where the file names a base, the app's table must be what the base has left; without one it is emptied first.
    Merge,
}

impl Mode {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn is_replace(&self) -> bool {
        *self == Self::Replace
    }
}

/// One way in which a table's columns differ from those of the import before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "lowercase", deny_unknown_fields)]
pub enum Drift {
    /// A column that was not there.
    Added {
        /// The column.
        column: Label,
        /// Its type.
        to: SqlType,
    },
    /// A column that is not there any more.
    Removed {
        /// The column.
        column: Label,
        /// The type it had.
        from: SqlType,
    },
    /// A column of another type.
    Changed {
        /// The column.
        column: Label,
        /// The type it had.
        from: SqlType,
        /// The type it has.
        to: SqlType,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { column, to } => write!(f, "column {column} was added, {to}"),
            Self::Removed { column, from } => write!(f, "column {column} was removed, {from}"),
            Self::Changed { column, from, to } => write!(f, "column {column} changed from {from} to {to}"),
        }
    }
}

/// How the CSV is written. Version 1 knows one dialect, the wire CSV of [`crate::csv`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// RFC 4180, UTF-8, header row, CRLF, NULL unquoted, empty string quoted.
    #[serde(rename = "towpath-csv-1")]
    Wire1,
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The column's name.
    pub name: Label,
    /// Its type.
    #[serde(rename = "type")]
    pub sql_type: SqlType,
    /// Whether NULL may occur.
    pub nullable: bool,
}

/// Count and exact sum of a numeric column's values that are not NULL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlTotal {
    /// The column.
    pub column: Label,
    /// How many values are not NULL.
    pub count: u64,
    /// Their exact sum.
    pub sum: Decimal,
}

/// The range of an incremental table's watermark values, as CSV text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watermark {
    /// The watermark columns; their values are compared in this order.
    pub columns: Vec<Label>,
    /// The least values that were read, of all columns or the first ones; empty where the whole table was.
    pub after: Vec<String>,
    /// The greatest values that were ever read; empty where there was none.
    pub through: Vec<String>,
}

impl Table {
    /// A table that is sent whole and has no key.
    #[must_use]
    pub fn whole(table: Label, columns: Vec<Column>, rows: u64, totals: Vec<ControlTotal>) -> Self {
        Self {
            table,
            dialect: Dialect::Wire1,
            columns,
            rows,
            totals,
            mode: Mode::Replace,
            key: Vec::new(),
            watermark: None,
            compared: None,
            drift: Vec::new(),
            pseudonymised: Vec::new(),
            pseudonym_key: None,
            nul_replaced: 0,
        }
    }

    /// What contradicts itself in it, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.columns.is_empty() || self.columns.len() > MAX_COLUMNS {
            return Err(format!("a table has 1 to {MAX_COLUMNS} columns"));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.columns.iter().find(|c| !seen.insert(c.name.as_str().to_lowercase())) {
            return Err(format!("column {} stands twice", twice.name));
        }
        let expected = self.columns.iter().filter(|c| c.sql_type.has_total()).map(|c| &c.name);
        if !expected.eq(self.totals.iter().map(|t| &t.column)) {
            return Err("there must be one control total for each numeric column, in column order".into());
        }
        if let Some(total) = self.totals.iter().find(|t| t.count > self.rows) {
            return Err(format!("column {} has more values than the table has rows", total.column));
        }
        if let Some(watermark) = &self.watermark {
            let n = watermark.columns.len();
            let known = watermark.columns.iter().all(|name| self.columns.iter().any(|c| c.name == *name));
            if n == 0 || !known || watermark.after.len() > n || ![0, n].contains(&watermark.through.len()) {
                return Err("the watermark does not fit the columns".into());
            }
        }
        self.check_key()?;
        if self.pseudonymised.iter().any(|name| !self.columns.iter().any(|c| c.name == *name && c.sql_type == SqlType::Text)) {
            return Err("a pseudonymised column is not there, or is no text".into());
        }
        if self.pseudonymised.is_empty() != self.pseudonym_key.is_none() {
            return Err("pseudonymised columns and the key of their hashes are named together".into());
        }
        Ok(())
    }

    fn check_key(&self) -> Result<(), String> {
        let mut seen = HashSet::new();
        for name in &self.key {
            let column = self.columns.iter().find(|column| column.name == *name);
            let Some(column) = column.filter(|_| seen.insert(name)) else {
                return Err(format!("the key names {name}, which is no column or stands twice"));
            };
            if column.nullable || column.sql_type == SqlType::Double {
                return Err(format!("column {name} can be NULL or is floating-point, so it is no part of a key"));
            }
        }
        if self.mode == Mode::Merge && self.key.is_empty() {
            return Err("rows are merged by key, and there is none".into());
        }
        Ok(())
    }
}
