//! Count and exact sum by SQL.
//!
//! SQLite's own `sum` is exact for 64-bit integers only, so every value is made into integers first:
//!
//! - A whole number, stored as integer or as floating point, is summed in two halves of 32 bits.
//! - Floating point with a fraction in a `DECIMAL(p,s)` is k/10^s for an integer k below 10^15 exactly if dividing k by 10^s
//!   gives the stored number again: IEEE 754 division is rounded correctly, 10^s is exact up to 10^22, and two decimals
//!   of 15 digits are never the same double. k is summed in two halves.
//! - What is left (text, and floating point with 16 or 17 digits) is rare. Where there is any, a second statement makes
//!   texts of digits of it and sums them in limbs of nine digits.

use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};
use thiserror::Error;
use towpath_transfer::{
    Code, Failure,
    decimal::{Decimal, DecimalSum, InvalidDecimal},
    manifest::{Column, SqlType},
};

use super::super::{ColumnTotals, TableTotals};

/// Columns that one statement sums; SQLite gives at most 2,000 results, and one column takes up to seven.
const COLUMNS_AT_ONCE: usize = 200;
/// Results of one statement that sums limbs.
const LIMBS_AT_ONCE: usize = 500;
/// Digits of a limb; a sum of nine billion limbs is still a 64-bit integer.
const LIMB_DIGITS: usize = 9;
/// Digits that a `BIGINT` can have.
const BIG_INT_DIGITS: usize = 19;
/// The largest scale for which the quotient k/10^s is looked for: beyond it no fraction has a k below 10^15 worth looking for.
const MAX_QUOTIENT_SCALE: usize = 15;
/// Significant digits that a double always keeps.
const REAL_DIGITS: usize = 15;
/// How many zeros may follow the point of a double before its first digit; the smallest double has 323.
const MAX_LEADING_ZEROS: usize = 323;

/// Why there is no sum.
#[derive(Debug, Error)]
pub(in crate::extract::source) enum NoTotals<E> {
    #[error("a statement failed")]
    Sql(E),
    #[error(transparent)]
    Digits(#[from] InvalidDecimal),
}

impl<E> NoTotals<E> {
    /// The failure of `doing` it; `failure` tells what becomes of a statement that failed.
    pub(in crate::extract::source) fn into_failure(self, failure: impl FnOnce(E) -> Failure, doing: &str) -> Failure {
        match self {
            Self::Sql(error) => failure(error),
            Self::Digits(error) => Failure::park(Code::LimitExceeded, format!("{doing} failed")).caused_by(error),
        }
    }
}

/// Asks SQLite, by whichever way.
pub(in crate::extract::source) trait Ask {
    /// Why there is no answer.
    type Error: Send;

    /// The only row of a statement whose results are whole numbers or NULL.
    fn integers(&mut self, sql: String) -> impl Future<Output = Result<Vec<Option<i64>>, Self::Error>> + Send;
}

impl Ask for SqliteConnection {
    type Error = sqlx::Error;

    async fn integers(&mut self, sql: String) -> Result<Vec<Option<i64>>, sqlx::Error> {
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(self).await?;
        (0..row.len()).map(|index| row.try_get(index)).collect()
    }
}

/// A column that is summed.
struct Summed {
    index: usize,
    scale: usize,
    precision: usize,
    sum: DecimalSum,
    /// Values that the first statement could not sum.
    left: u64,
}

impl Summed {
    fn of(index: usize, column: &Column) -> Option<Self> {
        let (precision, scale) = match column.sql_type {
            SqlType::BigInt => (BIG_INT_DIGITS, 0),
            SqlType::Decimal { precision, scale } => (usize::from(precision), usize::from(scale)),
            _ => return None,
        };
        Some(Self { index, scale, precision, sum: DecimalSum::new(), left: 0 })
    }

    fn column(&self) -> String {
        format!("c{}", self.index)
    }

    /// SQL: the value where it is a whole number of 64 bits, else NULL.
    fn whole(&self) -> String {
        let c = self.column();
        format!(
            "CASE typeof({c}) WHEN 'integer' THEN {c} WHEN 'real' THEN CASE WHEN {c} = CAST({c} AS INTEGER) THEN CAST({c} AS INTEGER) END END"
        )
    }

    /// SQL: k where the value is k/10^s and no whole number, else NULL.
    fn quotient(&self) -> Option<String> {
        if !(1..=MAX_QUOTIENT_SCALE).contains(&self.scale) {
            return None;
        }
        let (c, ten) = (self.column(), format!("1e{}", self.scale));
        let k = format!("CAST(round({c} * {ten}) AS INTEGER)");
        Some(format!(
            "CASE WHEN typeof({c}) = 'real' AND abs({c}) * {ten} < 1e15 AND {c} <> CAST({c} AS INTEGER) AND {k} / {ten} = {c} THEN {k} END"
        ))
    }

    /// SQL: the value's text where it is neither, else NULL.
    fn text(&self) -> String {
        let c = self.column();
        let zeros: String = (1..=self.scale.min(MAX_LEADING_ZEROS))
            .map(|zeros| format!(" WHEN abs({c}) >= 1e-{zeros} THEN {}", zeros - 1))
            .collect();
        let zeros = if zeros.is_empty() { "0".to_owned() } else { format!("CASE{zeros} ELSE 0 END") };
        let places =
            format!("max(0, {REAL_DIGITS} + CASE WHEN abs({c}) >= 1 THEN -length(CAST(abs({c}) AS INTEGER)) ELSE {zeros} END)");
        // The fewest digits that read back as the stored number are the ones that were once written.
        let tried = |more: usize| format!("printf('%!.*f', {places} + {more}, {c})");
        let real = format!(
            "CASE WHEN CAST({0} AS REAL) = {c} THEN {0} WHEN CAST({1} AS REAL) = {c} THEN {1} ELSE {2} END",
            tried(0),
            tried(1),
            tried(2)
        );
        let not_quotient = self.quotient().map_or_else(String::new, |quotient| format!(" AND ({quotient}) IS NULL"));
        format!(
            "CASE WHEN typeof({c}) = 'text' THEN trim({c}, ' ') WHEN typeof({c}) = 'real' AND ({whole}) IS NULL{not_quotient} THEN {real} END",
            whole = self.whole()
        )
    }

    fn limbs(&self) -> usize {
        self.precision.div_ceil(LIMB_DIGITS).max(1)
    }

    /// Adds what a sum in two halves of 32 bits is, with `scale` digits after the point.
    fn add_halves(&mut self, high: Option<i64>, low: Option<i64>, scale: usize) -> Result<(), InvalidDecimal> {
        let unscaled = (i128::from(high.unwrap_or(0)) << 32) + i128::from(low.unwrap_or(0));
        self.sum.add(&Decimal::new(unscaled, scale)?)
    }

    fn add_limb(&mut self, limb: i64, position: usize) -> Result<(), InvalidDecimal> {
        if limb == 0 {
            return Ok(());
        }
        let power = position * LIMB_DIGITS;
        let value = match self.scale.checked_sub(power) {
            Some(scale) => Decimal::new(limb.into(), scale)?,
            None => format!("{limb}{:0<width$}", "", width = power - self.scale).parse()?,
        };
        self.sum.add(&value)
    }
}

/// Rows, counts and sums of the query `sql`, whose columns are `columns`.
pub(in crate::extract::source) async fn of<A: Ask + Send>(
    database: &mut A,
    sql: &str,
    columns: &[Column],
) -> Result<TableTotals, NoTotals<A::Error>> {
    let names: Vec<String> = (0..columns.len()).map(|n| format!("c{n}")).collect();
    // Names of our own, for a name that the database does not know would silently be a text to SQLite.
    let from = format!("WITH towpath({}) AS (\n{sql}\n)", names.join(", "));
    let mut rows = 0;
    let mut totals = Vec::with_capacity(columns.len());
    let mut left = Vec::new();
    let numbered: Vec<(usize, &Column)> = columns.iter().enumerate().collect();
    for part in numbered.chunks(COLUMNS_AT_ONCE) {
        let mut summed: Vec<Summed> = part.iter().filter_map(|(index, column)| Summed::of(*index, column)).collect();
        let found = database.integers(first_statement(&from, part, &summed)).await.map_err(NoTotals::Sql)?;
        let mut results = Results(found.into_iter());
        rows = results.count();
        for _ in part {
            totals.push(ColumnTotals { count: results.count(), sum: None });
        }
        for column in &mut summed {
            let mut read = results.count();
            let (high, low) = (results.number(), results.number());
            column.add_halves(high, low, 0)?;
            if column.quotient().is_some() {
                read += results.count();
                let (high, low) = (results.number(), results.number());
                column.add_halves(high, low, column.scale)?;
            }
            column.left = totals.get(column.index).map_or(0, |total| total.count).saturating_sub(read);
        }
        left.append(&mut summed);
    }
    for column in &mut left {
        if column.left > 0 {
            sum_limbs(database, &from, column).await?;
        }
        if let Some(total) = totals.get_mut(column.index) {
            total.sum = Some(std::mem::take(&mut column.sum).finish());
        }
    }
    Ok(TableTotals { rows, columns: totals })
}

fn first_statement(from: &str, part: &[(usize, &Column)], summed: &[Summed]) -> String {
    let halves = |x: &str| format!("count({x}), sum({x} >> 32), sum({x} & 4294967295)");
    let mut results = vec!["count(*)".to_owned()];
    let mut inner: Vec<String> = Vec::new();
    for (index, _) in part {
        results.push(format!("count(c{index})"));
        inner.push(format!("c{index}"));
    }
    for column in summed {
        let index = column.index;
        inner.push(format!("{} AS w{index}", column.whole()));
        results.push(halves(&format!("w{index}")));
        if let Some(quotient) = column.quotient() {
            inner.push(format!("{quotient} AS q{index}"));
            results.push(halves(&format!("q{index}")));
        }
    }
    // The limit keeps SQLite from writing the inner expressions into each of the outer ones.
    format!("{from} SELECT {} FROM (SELECT {} FROM towpath LIMIT -1)", results.join(", "), inner.join(", "))
}

async fn sum_limbs<A: Ask>(database: &mut A, from: &str, column: &mut Summed) -> Result<(), NoTotals<A::Error>> {
    let limbs: Vec<usize> = (0..column.limbs()).collect();
    for part in limbs.chunks(LIMBS_AT_ONCE) {
        let found = database.integers(limbs_statement(from, column, part)).await.map_err(NoTotals::Sql)?;
        let mut results = Results(found.into_iter());
        for position in part {
            let limb = results.number().unwrap_or(0);
            column.add_limb(limb, *position)?;
        }
    }
    Ok(())
}

fn limbs_statement(from: &str, column: &Summed, limbs: &[usize]) -> String {
    let lead = "0".repeat(column.limbs() * LIMB_DIGITS);
    let scale = column.scale;
    let results: Vec<String> = limbs
        .iter()
        .map(|limb| format!("sum(sign * CAST(substr(digits, -{}, {LIMB_DIGITS}) AS INTEGER))", (limb + 1) * LIMB_DIGITS))
        .collect();
    let fraction = if scale == 0 { "''".to_owned() } else { format!("substr(fraction || '{}', 1, {scale})", "0".repeat(scale)) };
    format!(
        "{from} SELECT {results} FROM (SELECT sign, '{lead}' || whole || {fraction} AS digits FROM (\
         SELECT sign, CASE point WHEN 0 THEN size ELSE substr(size, 1, point - 1) END AS whole, \
         CASE point WHEN 0 THEN '' ELSE substr(size, point + 1) END AS fraction FROM (\
         SELECT sign, size, instr(size, '.') AS point FROM (\
         SELECT CASE substr(value, 1, 1) WHEN '-' THEN -1 ELSE 1 END AS sign, ltrim(value, '+-') AS size FROM (\
         SELECT {text} AS value FROM towpath LIMIT -1) WHERE value IS NOT NULL LIMIT -1) LIMIT -1) LIMIT -1) LIMIT -1)",
        results = results.join(", "),
        text = column.text()
    )
}

/// Results of a statement, read one after the other.
struct Results(std::vec::IntoIter<Option<i64>>);

impl Results {
    fn number(&mut self) -> Option<i64> {
        self.0.next().flatten()
    }

    fn count(&mut self) -> u64 {
        self.number().and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    }
}
