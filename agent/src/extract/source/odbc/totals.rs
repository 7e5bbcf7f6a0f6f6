//! Count and exact sum by SQL.

use towpath_transfer::{
    Code, Failure,
    decimal::{Decimal, DecimalSum},
    manifest::{Column, SqlType},
};

use super::{OdbcSnapshot, dbms::Dbms, worker::Work};
use crate::extract::source::{ColumnTotals, Read, TableTotals, select::Dialect, sqlite};

/// Columns that one statement sums, each by two results; of the databases that are known, Oracle has the lowest limit: 1,000 results.
const COLUMNS_AT_ONCE: usize = 400;

/// Rows, counts and sums of what `read` names.
pub(super) async fn of(snapshot: &mut OdbcSnapshot, read: &Read<'_>, doing: &str) -> Result<TableTotals, Failure> {
    if snapshot.opened.dbms == Dbms::Sqlite {
        let sql = snapshot.opened.dialect.rows(read);
        let totals = sqlite::totals::of(&mut Integers { snapshot, doing }, &sql, read.columns).await;
        return totals.map_err(|error| error.into_failure(|failure| failure, doing));
    }
    let mut totals = TableTotals { rows: 0, columns: Vec::with_capacity(read.columns.len()) };
    for part in read.columns.chunks(COLUMNS_AT_ONCE) {
        let sql = statement(&snapshot.opened.dbms, &snapshot.opened.dialect, read, part);
        let row = snapshot.ask(doing, |reply| Work::Ask { sql, doing: doing.to_owned(), reply }).await?;
        let mut results = row.into_iter();
        totals.rows = count(results.next(), doing)?;
        for column in part {
            let count = count(results.next(), doing)?;
            let sum = match column.sql_type {
                SqlType::BigInt | SqlType::Decimal { .. } => Some(sum(results.next().flatten(), doing)?),
                _ => None,
            };
            totals.columns.push(ColumnTotals { count, sum });
        }
    }
    Ok(totals)
}

fn statement(dbms: &Dbms, dialect: &Dialect, read: &Read<'_>, part: &[Column]) -> String {
    let mut results = vec![format!("{}(*)", dbms.count())];
    for column in part {
        let name = dialect.name(column.name.as_str());
        // Some databases do not count texts of any length.
        results.push(format!("{}(CASE WHEN {name} IS NOT NULL THEN 1 END)", dbms.count()));
        results.extend(dbms.sum(&name, column.sql_type));
    }
    format!("SELECT {} FROM {}{}", results.join(", "), dialect.from(read.table), dialect.condition(read))
}

fn count(result: Option<Option<String>>, doing: &str) -> Result<u64, Failure> {
    let text = result.flatten().unwrap_or_default();
    text.trim().parse().map_err(|_| unreadable(doing, &text))
}

/// The sum of no values is 0.
fn sum(result: Option<String>, doing: &str) -> Result<Decimal, Failure> {
    let Some(text) = result else { return Ok(DecimalSum::new().finish()) };
    let trimmed = text.trim();
    // Oracle and Db2 write no zero before the point.
    let (sign, size) = trimmed.strip_prefix('-').map_or(("", trimmed), |size| ("-", size));
    let zero = if size.starts_with('.') { "0" } else { "" };
    let number = format!("{sign}{zero}{}", size.trim_end_matches('.'));
    number.parse::<Decimal>().map(|sum| sum.normalized()).map_err(|_| unreadable(doing, &text))
}

fn unreadable(doing: &str, text: &str) -> Failure {
    Failure::park(Code::ErpQuery, format!("{doing} failed: the database gave {text:?} where a number should be"))
}

/// Rows of whole numbers for the sums of SQLite.
struct Integers<'a> {
    snapshot: &'a mut OdbcSnapshot,
    doing: &'a str,
}

impl sqlite::totals::Ask for Integers<'_> {
    type Error = Failure;

    async fn integers(&mut self, sql: String) -> Result<Vec<Option<i64>>, Failure> {
        let doing = self.doing;
        let row = self.snapshot.ask(doing, |reply| Work::Ask { sql, doing: doing.to_owned(), reply }).await?;
        row.into_iter().map(|text| text.map(|text| text.parse().map_err(|_| unreadable(doing, &text))).transpose()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::TableConfig, extract::source::select::plain_literal};

    #[test]
    fn sums_as_databases_write_them() {
        for (written, expected) in [("12.50", "12.5"), (".5", "0.5"), ("-.05", "-0.05"), ("3.", "3"), (" 7 ", "7"), ("0", "0")] {
            assert_eq!(sum(Some(written.to_owned()), "summing").unwrap().to_string(), expected);
        }
        assert_eq!(sum(None, "summing").unwrap().to_string(), "0");
        for wrong in ["1,5", "1E+40", ""] {
            assert_eq!(sum(Some(wrong.to_owned()), "summing").unwrap_err().code(), Code::ErpQuery, "{wrong}");
        }
    }

    #[test]
    fn each_database_sums_without_rounding() {
        let dialect = Dialect { quotes: ('"', '"'), schema: None, literal: plain_literal };
        let table = TableConfig::whole("t".parse().unwrap());
        let column = |name: &str, sql_type| Column { name: name.parse().unwrap(), sql_type, nullable: true };
        let columns = [column("n", SqlType::Decimal { precision: 12, scale: 2 }), column("x", SqlType::Text)];
        let read = Read { table: &table, columns: &columns, all: true, since: None };
        let count = |dbms: Dbms| statement(&dbms, &dialect, &read, &columns);
        assert_eq!(
            count(Dbms::SqlServer),
            "SELECT COUNT_BIG(*), COUNT_BIG(CASE WHEN \"n\" IS NOT NULL THEN 1 END), SUM(CAST(\"n\" AS DECIMAL(38, 2))), \
             COUNT_BIG(CASE WHEN \"x\" IS NOT NULL THEN 1 END) FROM \"t\""
        );
        assert!(count(Dbms::Oracle).contains("TO_CHAR(SUM(\"n\"), 'TM9', 'NLS_NUMERIC_CHARACTERS=''.,''')"));
        assert!(count(Dbms::Db2).contains("SUM(CAST(\"n\" AS DECIMAL(31, 2)))"));
        assert!(count(Dbms::Other("X".to_owned())).contains(", SUM(\"n\"), "));
    }
}
