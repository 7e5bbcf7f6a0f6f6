//! The columns of a table: as they are read, and as the manifest has them.

use std::collections::HashSet;

use towpath_transfer::{
    Code, Failure,
    manifest::{Column, InvalidLabel, Label, MAX_COLUMNS, SqlType},
};

use super::{source::SourceColumn, watermark};
use crate::config::TableConfig;

/// The columns of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    /// With the types that their values have at the ERP.
    pub(super) read: Vec<Column>,
    /// As the manifest has them: in the same order, and text where values become pseudonyms.
    pub(super) sent: Vec<Column>,
    /// Whether these are all columns of the source, in its own order.
    pub(super) all: bool,
    /// The key.
    pub(super) key: Vec<Label>,
    /// The columns whose values become pseudonyms.
    pub(super) pseudonymised: Vec<Label>,
    /// The watermark, where only changed rows are sent.
    pub(super) watermark: Vec<Label>,
}

impl Columns {
    /// The source's columns without those that are left out, with the types that the configuration says.
    ///
    /// # Errors
    /// `config-invalid` for a setting that names a column the source has not, or one that is not fit for it; `erp-query` for a
    /// column whose name cannot travel; `limit-exceeded` for too many.
    pub(super) fn new(table: &TableConfig, source: Vec<SourceColumn>) -> Result<Self, Failure> {
        if source.is_empty() || source.len() > MAX_COLUMNS {
            let why = format!("it has {} columns; a table has 1 to {MAX_COLUMNS}", source.len());
            return Err(refused(table, Code::LimitExceeded, &why));
        }
        let watermark: &[String] = table.incremental.as_ref().map_or(&[], |incremental| &incremental.watermark);
        let types: Vec<String> = table.types.keys().cloned().collect();
        known(table, "types", &types, &source)?;
        known(table, "omit", &table.omit, &source)?;
        known(table, "pseudonymise", &table.pseudonymise, &source)?;
        known(table, "key", &table.key, &source)?;
        known(table, "watermark", watermark, &source)?;
        let all = table.omit.is_empty();
        let mut seen = HashSet::new();
        let (mut read, mut sent) = (Vec::new(), Vec::new());
        for column in source.into_iter().filter(|column| !table.omit.contains(&column.name)) {
            let named = |why: String| {
                let told = format!("column {:?}: {why}; give it another name in a query", column.name);
                refused(table, Code::ErpQuery, &told)
            };
            if !seen.insert(column.name.to_lowercase()) {
                return Err(named("another column has the same name".to_owned()));
            }
            let name: Label = column.name.parse().map_err(|error: InvalidLabel| named(error.to_string()))?;
            let sql_type = table.types.get(&column.name).copied().unwrap_or(column.sql_type);
            let nullable = column.nullable && !table.key.contains(&column.name);
            let sent_type = if table.pseudonymise.contains(&column.name) { SqlType::Text } else { sql_type };
            sent.push(Column { name: name.clone(), sql_type: sent_type, nullable });
            read.push(Column { name, sql_type, nullable });
        }
        if sent.is_empty() {
            return Err(refused(table, Code::ConfigInvalid, "`omit` leaves no column"));
        }
        let columns = Self {
            read,
            sent,
            all,
            key: labels(table, &table.key)?,
            pseudonymised: labels(table, &table.pseudonymise)?,
            watermark: labels(table, watermark)?,
        };
        columns.check(table)?;
        Ok(columns)
    }

    /// What is set fits the types of the columns.
    fn check(&self, table: &TableConfig) -> Result<(), Failure> {
        if let Some(name) = self.key.iter().find(|name| self.type_of(name) == Some(SqlType::Double)) {
            let why = format!("the key's column {name} is floating-point, so that rows cannot be told apart by it");
            return Err(refused(table, Code::ConfigInvalid, &why));
        }
        let Some(incremental) = &table.incremental else { return Ok(()) };
        let types: Vec<(&Label, SqlType)> = self.watermark.iter().filter_map(|name| Some((name, self.type_of(name)?))).collect();
        watermark::check(&types, incremental.overlap).map_err(|why| refused(table, Code::ConfigInvalid, &why))
    }

    fn type_of(&self, name: &Label) -> Option<SqlType> {
        self.sent.iter().find(|column| column.name == *name).map(|column| column.sql_type)
    }

    /// The watermark's columns.
    pub(super) fn watermark_columns(&self) -> Vec<Column> {
        let of = |name: &Label| self.sent.iter().find(|column| column.name == *name).cloned();
        self.watermark.iter().filter_map(of).collect()
    }

    /// The key alone, as the file of all keys has it.
    pub(super) fn keys(&self) -> Self {
        let only = |columns: &[Column]| -> Vec<Column> {
            self.key.iter().filter_map(|name| columns.iter().find(|column| column.name == *name)).cloned().collect()
        };
        Self {
            read: only(&self.read),
            sent: only(&self.sent),
            all: false,
            key: self.key.clone(),
            pseudonymised: self.pseudonymised.iter().filter(|name| self.key.contains(name)).cloned().collect(),
            watermark: Vec::new(),
        }
    }
}

/// A setting's columns are those of the source; where only the case differs, that is said.
fn known(table: &TableConfig, setting: &str, names: &[String], source: &[SourceColumn]) -> Result<(), Failure> {
    let Some(unknown) = names.iter().find(|name| source.iter().all(|column| column.name != **name)) else { return Ok(()) };
    let lower = unknown.to_lowercase();
    let meant = source.iter().find(|column| column.name.to_lowercase() == lower);
    let meant = meant.map(|column| format!("; did you mean {}?", column.name)).unwrap_or_default();
    let why = format!("`{setting}` names the column {unknown}, which it does not have{meant}");
    Err(refused(table, Code::ConfigInvalid, &why))
}

fn labels(table: &TableConfig, names: &[String]) -> Result<Vec<Label>, Failure> {
    let label = |name: &String| name.parse().map_err(|error: InvalidLabel| refused(table, Code::ErpQuery, &error.to_string()));
    names.iter().map(label).collect()
}

fn refused(table: &TableConfig, code: Code, why: &str) -> Failure {
    Failure::park(code, format!("table {}: {why}", table.name))
}

#[cfg(test)]
mod tests {
    use towpath_transfer::Disposition;

    use super::*;
    use crate::config::{IncrementalConfig, Overlap};

    fn source() -> Vec<SourceColumn> {
        [("No", SqlType::BigInt), ("name", SqlType::Text), ("born", SqlType::Date), ("ratio", SqlType::Double)]
            .map(|(name, sql_type)| SourceColumn { name: name.to_owned(), sql_type, nullable: true })
            .into()
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn table() -> TableConfig {
        TableConfig::whole("people".parse().unwrap())
    }

    #[test]
    fn what_is_left_out_and_hidden_is_so_in_every_form() {
        let table =
            TableConfig { omit: names(&["born"]), pseudonymise: names(&["No", "name"]), key: names(&["name", "No"]), ..table() };
        let columns = Columns::new(&table, source()).unwrap();
        let shown = |columns: &[Column]| -> Vec<String> {
            columns.iter().map(|c| format!("{} {}{}", c.name, c.sql_type, if c.nullable { "" } else { "!" })).collect()
        };
        assert_eq!(shown(&columns.read), ["No BIGINT!", "name TEXT!", "ratio DOUBLE PRECISION"]);
        assert_eq!(shown(&columns.sent), ["No TEXT!", "name TEXT!", "ratio DOUBLE PRECISION"]);
        assert!(!columns.all);
        let keys = columns.keys();
        assert_eq!(shown(&keys.sent), ["name TEXT!", "No TEXT!"]);
        assert_eq!(shown(&keys.read), ["name TEXT!", "No BIGINT!"]);
        assert_eq!(keys.pseudonymised.len(), 2);
        assert!(Columns::new(&self::table(), source()).unwrap().all);
    }

    #[test]
    fn settings_that_fit_no_column_are_named() {
        let incremental = |watermark: &[&str]| {
            Some(IncrementalConfig {
                watermark: names(watermark),
                overlap: Overlap::Equal,
                compare_keys: crate::config::DEFAULT_COMPARE_KEYS,
            })
        };
        let key = names(&["No"]);
        for (table, said) in [
            (TableConfig { omit: names(&["x"]), ..table() }, "`omit` names the column x"),
            (TableConfig { omit: names(&["no"]), ..table() }, "did you mean No?"),
            (TableConfig { pseudonymise: names(&["x"]), ..table() }, "`pseudonymise` names the column x"),
            (TableConfig { key: names(&["x"]), ..table() }, "`key` names the column x"),
            (TableConfig { key: names(&["ratio"]), ..table() }, "ratio is floating-point"),
            (TableConfig { key: key.clone(), incremental: incremental(&["x"]), ..table() }, "`watermark` names the column x"),
            (TableConfig { key: key.clone(), incremental: incremental(&["name"]), ..table() }, "name is of type TEXT"),
            (TableConfig { omit: names(&["No", "name", "born", "ratio"]), ..table() }, "leaves no column"),
        ] {
            let failure = Columns::new(&table, source()).unwrap_err();
            assert_eq!((failure.code(), failure.disposition()), (Code::ConfigInvalid, Disposition::Park), "{failure}");
            assert!(failure.message().starts_with("table people: ") && failure.message().contains(said), "{failure}");
        }
        assert_eq!(Columns::new(&table(), Vec::new()).unwrap_err().code(), Code::LimitExceeded);
        let twice = [source(), source()].concat();
        assert_eq!(Columns::new(&table(), twice).unwrap_err().code(), Code::ErpQuery);
    }
}
