//! Whether a job's tables are what the contract says. Reads no rows: what a database tells of its queries is all that is looked at.

use serde::Serialize;
use towpath_transfer::manifest::{Column, Label, SqlType};

use super::contract::{Contract, ContractColumn, ContractTable};
use crate::{config::ErpTable, extract::TableCheck};

/// What was found, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanningCheck {
    /// The contract's tables in its order, then the job's further ones.
    pub tables: Vec<TableReport>,
    /// What a profile reads of the ERP; empty without a profile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub erp_tables: Vec<ErpTableReport>,
}

/// How a table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has everything that the contract names.
    Complete,
    /// It has everything that an app needs, and lacks something that it may lack.
    Usable,
    /// It lacks something that an app needs, or has it with another type.
    Incomplete,
    /// The database refuses its query.
    Unreadable,
    /// The job does not read it.
    Absent,
    /// It is none of the contract's, and is sent as it is.
    Further,
}

impl State {
    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Usable => "usable",
            Self::Incomplete => "incomplete",
            Self::Unreadable => "unreadable",
            Self::Absent => "absent",
            Self::Further => "further",
        }
    }
}

/// One table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableReport {
    /// Its name.
    pub table: Label,
    /// How it stands.
    pub state: State,
    /// Whether the contract cannot do without it.
    pub required: bool,
    /// What is wrong with it as a whole, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Its columns: the contract's, then further ones.
    pub columns: Vec<ColumnReport>,
}

/// How a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    /// It is there, with a type that fits.
    Fits,
    /// It is there, with a type that does not fit.
    Differs,
    /// It is not there.
    Missing,
    /// It is there, and none of the contract's.
    Further,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColumnReport {
    /// Its name.
    pub column: String,
    /// How it stands.
    pub state: Found,
    /// Whether the contract cannot do without it.
    pub required: bool,
    /// The contract's type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<SqlType>,
    /// The type that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<SqlType>,
    /// What is wrong, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One table of the ERP that a profile reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErpTableReport {
    /// Its name.
    pub table: Label,
    /// Whether the login can read it.
    pub readable: bool,
    /// The columns that the profile reads and the table does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What is wrong, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl PlanningCheck {
    /// How many tables an app cannot be given: those that the job does not read or cannot, and those that lack something.
    #[must_use]
    pub fn unmet(&self) -> usize {
        let unmet = |table: &&TableReport| match table.state {
            State::Incomplete | State::Unreadable => true,
            State::Absent => table.required,
            State::Complete | State::Usable | State::Further => false,
        };
        self.tables.iter().filter(unmet).count()
    }
}

/// Compares what the database has told with the contract; without one every table is [`State::Further`] or unreadable.
#[must_use]
pub fn check(contract: Option<&Contract>, found: &[TableCheck], reads: &[(ErpTable, TableCheck)]) -> PlanningCheck {
    let of_contract = contract.map_or(&[][..], |contract| &contract.tables);
    let named = |table: &Label| found.iter().find(|check| check.table == *table);
    let mut tables: Vec<TableReport> = of_contract.iter().map(|wanted| compare(wanted, named(&wanted.name))).collect();
    let further = found.iter().filter(|check| of_contract.iter().all(|wanted| wanted.name != check.table));
    tables.extend(further.map(own));
    PlanningCheck { tables, erp_tables: reads.iter().map(|(wanted, check)| erp_table(wanted, check)).collect() }
}

fn compare(wanted: &ContractTable, found: Option<&TableCheck>) -> TableReport {
    let report =
        |state, problem, columns| TableReport { table: wanted.name.clone(), state, required: wanted.required, problem, columns };
    let missing = || wanted.columns.iter().map(|column| column_report(column, None)).collect();
    let Some(found) = found else {
        let problem =
            format!("the job does not read it: add a [[job.table]] of the name {:?} with a query", wanted.name.as_str());
        return report(State::Absent, Some(problem), missing());
    };
    match &found.columns {
        Err(failure) => report(State::Unreadable, Some(failure.report()), missing()),
        Ok(found) => {
            let mut columns: Vec<ColumnReport> = wanted
                .columns
                .iter()
                .map(|column| column_report(column, found.iter().find(|one| one.name.as_str() == column.name)))
                .collect();
            let is_wrong = |one: &ColumnReport| one.state == Found::Differs || (one.state == Found::Missing && one.required);
            let state = if columns.iter().any(is_wrong) {
                State::Incomplete
            } else if columns.iter().any(|one| one.state == Found::Missing) {
                State::Usable
            } else {
                State::Complete
            };
            let is_further = |one: &&Column| wanted.columns.iter().all(|column| column.name != one.name.as_str());
            columns.extend(found.iter().filter(is_further).map(further));
            report(state, None, columns)
        }
    }
}

fn column_report(wanted: &ContractColumn, found: Option<&Column>) -> ColumnReport {
    let name = &wanted.name;
    let (state, problem) = match found {
        Some(found) if wanted.holds(found.sql_type) => (Found::Fits, None),
        Some(found) => {
            let told = format!(
                "it is {}, and the contract says {}: cast it in the table's query, or, where its values are that already, say \
                 {name} = \"{}\" in [job.table.types]",
                found.sql_type, wanted.sql_type, wanted.sql_type
            );
            (Found::Differs, Some(told))
        }
        None if wanted.required => {
            (Found::Missing, Some(format!("it is missing: add it to the table's query, as {}", wanted.sql_type)))
        }
        None => (Found::Missing, Some(format!("it is missing, and an app can do without it ({})", wanted.sql_type))),
    };
    ColumnReport {
        column: name.clone(),
        state,
        required: wanted.required,
        wanted: Some(wanted.sql_type),
        found: found.map(|column| column.sql_type),
        problem,
    }
}

fn further(found: &Column) -> ColumnReport {
    ColumnReport {
        column: found.name.to_string(),
        state: Found::Further,
        required: false,
        wanted: None,
        found: Some(found.sql_type),
        problem: None,
    }
}

fn own(check: &TableCheck) -> TableReport {
    let (state, problem, columns) = match &check.columns {
        Ok(columns) => (State::Further, None, columns.iter().map(further).collect()),
        Err(failure) => (State::Unreadable, Some(failure.report()), Vec::new()),
    };
    TableReport { table: check.table.clone(), state, required: false, problem, columns }
}

fn erp_table(wanted: &ErpTable, check: &TableCheck) -> ErpTableReport {
    let of = wanted.of.as_ref().map_or_else(String::new, |of| format!("; it comes with {of}"));
    let (readable, missing, problem) = match &check.columns {
        Err(failure) => (false, Vec::new(), Some(format!("{}{of}", failure.report()))),
        Ok(found) => {
            let is_missing = |name: &&String| found.iter().all(|column| column.name.as_str() != name.as_str());
            let missing: Vec<String> = wanted.columns.iter().filter(is_missing).cloned().collect();
            let problem = (!missing.is_empty()).then(|| {
                let names = missing.join(", ");
                format!("it has no {names}{of}: this ERP is of another version, or the login may not see them")
            });
            (true, missing, problem)
        }
    };
    ErpTableReport { table: wanted.name.clone(), readable, missing, problem }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::{Code, Failure};

    use super::*;

    fn column(name: &str, sql_type: SqlType) -> Column {
        Column { name: name.parse().unwrap(), sql_type, nullable: true }
    }

    fn found(table: &ContractTable, change: impl FnOnce(&mut Vec<Column>)) -> TableCheck {
        let mut columns = table.columns.iter().map(|one| column(&one.name, one.sql_type)).collect();
        change(&mut columns);
        TableCheck { table: table.name.clone(), file: "x.csv".parse().unwrap(), columns: Ok(columns) }
    }

    fn refused(table: &str) -> TableCheck {
        let failure = Failure::park(Code::ErpQuery, "no such table: x");
        TableCheck { table: table.parse().unwrap(), file: "x.csv".parse().unwrap(), columns: Err(failure) }
    }

    #[test]
    fn each_table_stands_as_its_worst_column() {
        let contract = Contract::get().unwrap();
        let changed =
            |name: &str, change: &dyn Fn(&mut Vec<Column>)| found(contract.table(&name.parse().unwrap()).unwrap(), change);
        let checks = [
            changed("items", &|_| ()),
            changed("locations", &|columns| columns.retain(|one| one.name.as_str() != "code")),
            changed("suppliers", &|columns| columns.retain(|one| one.name.as_str() != "name")),
            changed("stock_on_hand", &|columns| columns[2].sql_type = SqlType::Double),
            changed("open_sales_orders", &|columns| columns.push(column("remark", SqlType::Text))),
            refused("sales_history"),
            refused("own"),
        ];
        let report = check(Some(&contract), &checks, &[]);
        let state = |name: &str| report.tables.iter().find(|one| one.table.as_str() == name).unwrap();
        assert_eq!(state("items").state, State::Complete);
        assert_eq!(state("locations").state, State::Usable);
        assert_eq!(state("suppliers").state, State::Incomplete);
        assert_eq!(state("open_sales_orders").state, State::Complete);
        assert_eq!(state("open_sales_orders").columns.last().unwrap().state, Found::Further);
        assert_eq!(state("bills_of_material").state, State::Absent);
        assert_eq!(state("own").state, State::Unreadable);
        let stock = state("stock_on_hand");
        assert_eq!((stock.state, stock.columns[2].state), (State::Incomplete, Found::Differs));
        let told = stock.columns[2].problem.as_ref().unwrap();
        assert!(told.starts_with("it is DOUBLE PRECISION, and the contract says DECIMAL(38,20): cast it"), "{told}");
        assert!(state("sales_history").problem.as_ref().unwrap().contains("no such table: x [erp-query]"));
        // Without suppliers' names, stock as a decimal, sales, purchase orders, and the job's own table.
        assert_eq!(report.unmet(), 5);
    }

    #[test]
    fn without_a_contract_only_what_cannot_be_read_is_wrong() {
        let contract = Contract::get().unwrap();
        let report = check(None, &[found(&contract.tables[0], |_| ()), refused("own")], &[]);
        assert_eq!(report.tables.iter().map(|one| one.state).collect::<Vec<_>>(), [State::Further, State::Unreadable]);
        assert_eq!(report.unmet(), 1);
    }

    #[test]
    fn tables_of_the_erp_are_told_with_what_brings_them() {
        let wanted = ErpTable {
            name: "sale_line".parse().unwrap(),
            schema: None,
            of: Some("the module sale".to_owned()),
            columns: vec!["id".to_owned(), "moves".to_owned()],
        };
        let there = TableCheck {
            table: wanted.name.clone(),
            file: "x.csv".parse().unwrap(),
            columns: Ok(vec![column("id", SqlType::BigInt)]),
        };
        let reads = [(wanted.clone(), there), (wanted, refused("sale_line"))];
        let report = check(None, &[], &reads).erp_tables;
        assert_eq!((report[0].readable, report[0].missing.as_slice()), (true, &["moves".to_owned()][..]));
        assert!(report[0].problem.as_ref().unwrap().starts_with("it has no moves; it comes with the module sale"));
        assert!(!report[1].readable && report[1].problem.as_ref().unwrap().contains("no such table"));
    }
}
