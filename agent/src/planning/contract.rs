//! The contract as data.

use std::path::Path;

use serde::{Deserialize, Serialize};
use towpath_host::{ConfigMistake, config};
use towpath_transfer::manifest::{Label, SqlType};

const TEXT: &str = include_str!("../../../samples/profiles/contract.toml");

/// What an app gets of any ERP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// Grows with every change that an app has to know of.
    pub version: u32,
    /// Why there is one.
    pub about: String,
    /// What holds in all tables.
    #[serde(rename = "convention")]
    pub conventions: Vec<Convention>,
    /// The tables.
    #[serde(rename = "table")]
    pub tables: Vec<ContractTable>,
}

/// What holds in all tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Convention {
    /// What it is of.
    pub name: String,
    /// What holds.
    pub about: String,
}

/// A table of the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractTable {
    /// Its name.
    pub name: Label,
    /// Whether an app cannot do without it.
    pub required: bool,
    /// What one row of it is.
    pub about: String,
    /// The columns whose values no two rows share.
    pub key: Vec<String>,
    /// Its columns.
    #[serde(rename = "column")]
    pub columns: Vec<ContractColumn>,
}

/// A column of the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractColumn {
    /// Its name.
    pub name: String,
    /// The most that its values can be; see [`ContractColumn::holds`].
    #[serde(rename = "type")]
    pub sql_type: SqlType,
    /// Whether an app cannot do without it.
    #[serde(default)]
    pub required: bool,
    /// Whether a value may be NULL.
    #[serde(default)]
    pub nullable: bool,
    /// What it means.
    pub about: String,
}

impl Contract {
    /// The contract that this program knows.
    ///
    /// # Errors
    /// Never, while the tests of this module pass.
    pub fn get() -> Result<Self, ConfigMistake> {
        config::parse(TEXT, Path::new("contract.toml"))
    }

    /// The table of this name.
    #[must_use]
    pub fn table(&self, name: &Label) -> Option<&ContractTable> {
        self.tables.iter().find(|table| table.name == *name)
    }
}

impl ContractColumn {
    /// Whether values of a type are values of this column, too: the same type, or a narrower decimal.
    #[must_use]
    pub fn holds(&self, found: SqlType) -> bool {
        match (self.sql_type, found) {
            (SqlType::Decimal { precision, scale }, SqlType::Decimal { precision: digits, scale: places }) => {
                places <= scale && digits.saturating_sub(places) <= precision.saturating_sub(scale)
            }
            (wanted, found) => wanted == found,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_contract_is_whole() {
        let contract = Contract::get().unwrap();
        let mut names = HashSet::new();
        for table in &contract.tables {
            assert!(names.insert(table.name.clone()), "{}", table.name);
            let mut columns = HashSet::new();
            for column in &table.columns {
                let place = format!("{}.{}", table.name, column.name);
                assert!(columns.insert(&column.name), "{place}");
                assert!(column.about.ends_with('.') && !column.about.contains('|'), "{place}");
            }
            assert!(!table.key.is_empty(), "{}", table.name);
            for key in &table.key {
                let column = table.columns.iter().find(|column| column.name == *key);
                assert!(column.is_some_and(|column| column.required && !column.nullable), "{}.{key}", table.name);
            }
        }
        for wanted in [
            "items",
            "locations",
            "suppliers",
            "stock_on_hand",
            "sales_history",
            "open_purchase_orders",
            "open_sales_orders",
            "bills_of_material",
        ] {
            assert!(contract.table(&wanted.parse().unwrap()).is_some(), "{wanted}");
        }
    }

    #[test]
    fn a_column_holds_its_type_and_narrower_decimals() {
        let column = |wanted: &str| ContractColumn {
            name: "x".to_owned(),
            sql_type: wanted.parse().unwrap(),
            required: true,
            nullable: false,
            about: String::new(),
        };
        for (wanted, found, holds) in [
            ("TEXT", "TEXT", true),
            ("TEXT", "BIGINT", false),
            ("DATE", "TIMESTAMP", false),
            ("DECIMAL(38,20)", "DECIMAL(19,6)", true),
            ("DECIMAL(38,20)", "DECIMAL(38,20)", true),
            ("DECIMAL(38,20)", "DECIMAL(24,21)", false),
            ("DECIMAL(38,20)", "DECIMAL(19,0)", false),
            ("DECIMAL(38,20)", "DOUBLE PRECISION", false),
            ("DECIMAL(38,20)", "BIGINT", false),
        ] {
            assert_eq!(column(wanted).holds(found.parse().unwrap()), holds, "{wanted} {found}");
        }
    }
}
