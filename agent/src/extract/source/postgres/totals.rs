//! Count and exact sum by SQL: `sum` of `numeric` neither rounds nor overflows.

use sqlx::{Row as _, postgres::PgRow};
use towpath_transfer::{
    Code, Failure,
    decimal::Decimal,
    manifest::{Column, SqlType},
};

use super::{session::Session, types::Held};
use crate::extract::source::{ColumnTotals, TableTotals};

/// Columns that one statement sums; PostgreSQL gives at most 1,664 results, and one column takes up to two.
const COLUMNS_AT_ONCE: usize = 500;

/// Rows, counts and sums of the query `sql`, whose columns hold `held`.
pub(super) async fn of(
    session: &mut Session,
    doing: &str,
    sql: &str,
    columns: &[Column],
    held: &[Held],
) -> Result<TableTotals, Failure> {
    let names: Vec<String> = (0..columns.len()).map(|n| format!("c{n}")).collect();
    let from = format!("FROM (\n{sql}\n) AS towpath({})", names.join(", "));
    let mut totals = TableTotals { rows: 0, columns: Vec::with_capacity(columns.len()) };
    let all: Vec<(usize, (&Column, &Held))> = columns.iter().zip(held).enumerate().collect();
    for part in all.chunks(COLUMNS_AT_ONCE) {
        let mut results = vec!["count(*)::text".to_owned()];
        for (index, (column, held)) in part {
            results.push(format!("count(c{index})::text"));
            if column.sql_type.has_total() {
                results.push(format!("sum({})::text", number(*index, **held)));
            }
        }
        let found = session.query(doing, format!("SELECT {} {from}", results.join(", "))).await?;
        let mut results = Results { row: found.first(), at: 0, session, doing };
        totals.rows = results.count()?;
        for (_, (column, _)) in part {
            totals.columns.push(ColumnTotals { count: results.count()?, sum: results.sum(column.sql_type)? });
        }
    }
    Ok(totals)
}

/// SQL: the value as a number that sums exactly.
fn number(index: usize, held: Held) -> String {
    match held {
        Held::Integer => format!("c{index}::int8"),
        Held::Numeric => format!("c{index}"),
        Held::Boolean => format!("c{index}::int4::int8"),
        // `float8::numeric` rounds to 15 digits; the text has all of them.
        _ => format!("c{index}::text::numeric"),
    }
}

/// Results of a statement, read one after the other.
struct Results<'a> {
    row: Option<&'a PgRow>,
    at: usize,
    session: &'a Session,
    doing: &'a str,
}

impl Results<'_> {
    fn text(&mut self) -> Result<Option<String>, Failure> {
        let index = self.at;
        self.at += 1;
        let found = self.row.ok_or(sqlx::Error::RowNotFound).and_then(|row| row.try_get(index));
        found.map_err(|error| self.session.server.failure(self.doing, error))
    }

    fn count(&mut self) -> Result<u64, Failure> {
        let text = self.text()?;
        let count = text.as_deref().and_then(|count| count.parse().ok());
        count.ok_or_else(|| self.session.server.refused(self.doing, "the count is no number"))
    }

    /// Nothing where NaN or an infinity is among the values: they have no form on the wire, which whoever writes them says better.
    fn sum(&mut self, sql_type: SqlType) -> Result<Option<Decimal>, Failure> {
        if !sql_type.has_total() {
            return Ok(None);
        }
        let Some(text) = self.text()? else { return Ok(Some(0.into())) };
        if matches!(text.as_str(), "NaN" | "Infinity" | "-Infinity") {
            return Ok(None);
        }
        let sum: Decimal = text
            .parse()
            .map_err(|error| Failure::park(Code::LimitExceeded, format!("{} failed", self.doing)).caused_by(error))?;
        Ok(Some(sum.normalized()))
    }
}
