//! Count and exact sum by SQL.
//!
//! `SUM` of whole numbers and of decimals is exact as long as it fits into 65 digits, which is all that a decimal can have here. So
//! only columns of up to 43 digits are summed as they are, which leaves room for 10^22 rows. Wider ones, and texts that the
//! configuration calls decimals, are cut into limbs of 18 digits, which are whole numbers of 64 bits.

use sqlx::{Column as _, Statement as _};
use towpath_transfer::{
    Code, Failure,
    decimal::{Decimal, DecimalSum, InvalidDecimal},
    manifest::{Column, SqlType},
};

use super::{error, literal::DIALECT, session::Session, types::Kind};
use crate::extract::source::{ColumnTotals, Read, TableTotals};

/// The widest decimals whose sum cannot overflow.
const PLAIN_DIGITS: usize = 43;
/// The most digits after the point that both servers have in a decimal.
const MAX_SCALE: usize = 30;
/// Digits of a limb; with its sign it is a 64-bit integer.
const LIMB_DIGITS: usize = 18;
/// Digits that a `BIGINT` can have.
const BIG_INT_DIGITS: usize = 19;
/// Results of one statement; the servers give at most 4,096.
const RESULTS_AT_ONCE: usize = 1_000;

/// What is asked of one column.
struct Asked {
    count: String,
    sum: Sum,
}

/// How a column is summed.
enum Sum {
    None,
    One(String),
    /// The limb at each position, the lowest first, of a number without its point.
    Limbs {
        limbs: Vec<String>,
        scale: usize,
    },
}

impl Asked {
    fn of(column: &Column, kind: Kind) -> Self {
        let name = DIALECT.name(column.name.as_str());
        let (precision, scale) = match column.sql_type {
            SqlType::BigInt => (BIG_INT_DIGITS, 0),
            SqlType::Decimal { precision, scale } => (usize::from(precision), usize::from(scale)),
            _ => return Self { count: format!("COUNT({name})"), sum: Sum::None },
        };
        let sum = match kind {
            Kind::Signed | Kind::Unsigned | Kind::Bit => Sum::One(format!("SUM({name} + 0)")),
            Kind::Decimal if precision <= PLAIN_DIGITS => Sum::One(format!("SUM({name})")),
            Kind::Float => {
                let exact = format!("CAST({name} AS DECIMAL(65,{}))", scale.min(MAX_SCALE));
                if precision <= PLAIN_DIGITS { Sum::One(format!("SUM({exact})")) } else { limbs(&exact, precision, scale) }
            }
            _ => limbs(&name, precision, scale),
        };
        Self { count: format!("COUNT({name})"), sum }
    }

    fn results(&self) -> Vec<&str> {
        let mut results = vec![self.count.as_str()];
        match &self.sum {
            Sum::None => {}
            Sum::One(sum) => results.push(sum),
            Sum::Limbs { limbs, .. } => results.extend(limbs.iter().map(String::as_str)),
        }
        results
    }
}

/// The limbs of what `value` is as text: spaces, a sign, digits, and perhaps a point and more digits.
fn limbs(value: &str, precision: usize, scale: usize) -> Sum {
    let count = precision.div_ceil(LIMB_DIGITS).max(1);
    let width = count * LIMB_DIGITS;
    let text = format!("TRIM(CAST({value} AS CHAR))");
    let size = format!("TRIM(LEADING '+' FROM TRIM(LEADING '-' FROM {text}))");
    let whole = format!("SUBSTRING_INDEX({size}, '.', 1)");
    let digits = if scale == 0 {
        whole
    } else {
        // A point of our own makes sure that there is a second part.
        let fraction = format!("SUBSTRING_INDEX(SUBSTRING_INDEX(CONCAT({size}, '.'), '.', 2), '.', -1)");
        format!("CONCAT({whole}, RPAD(LEFT({fraction}, {scale}), {scale}, '0'))")
    };
    let padded = format!("RIGHT(CONCAT('{}', {digits}), {width})", "0".repeat(width));
    let limb = |position: usize| {
        let start = width - (position + 1) * LIMB_DIGITS + 1;
        format!("SUM(IF({text} LIKE '-%', -1, 1) * CAST(SUBSTRING({padded}, {start}, {LIMB_DIGITS}) AS SIGNED))")
    };
    Sum::Limbs { limbs: (0..count).map(limb).collect(), scale }
}

/// Rows, counts and sums of what is read.
pub(super) async fn of(session: &mut Session, read: &Read<'_>) -> Result<TableTotals, Failure> {
    let doing = format!("summing table {}", read.table.name);
    // How the columns are stored decides how they are summed.
    let prepared = session.prepare(&doing, DIALECT.rows(read)).await?;
    let kinds = prepared.columns().iter().map(|column| Kind::of(column.type_info()));
    let asked: Vec<Asked> = read.columns.iter().zip(kinds).map(|(column, kind)| Asked::of(column, kind)).collect();
    if asked.len() != read.columns.len() {
        return Err(error::refused(session.shown(), &doing, "the table has other columns than before"));
    }
    let from = format!("FROM {}{}", DIALECT.from(read.table), DIALECT.condition(read));
    let mut totals = TableTotals { rows: 0, columns: Vec::with_capacity(asked.len()) };
    for part in parts(&asked) {
        let results: Vec<&str> = part.iter().flat_map(Asked::results).collect();
        let all: Vec<&str> = std::iter::once("COUNT(*)").chain(results).collect();
        let found = session.texts(&doing, format!("SELECT {} {from}", all.join(", "))).await?;
        let mut results = found.into_iter().flatten();
        let unexpected = |_| error::refused(session.shown(), &doing, "the server gave another answer than was asked for");
        totals.rows = count(&mut results).map_err(unexpected)?;
        for asked in part {
            let count = count(&mut results).map_err(unexpected)?;
            let sum = sum(&asked.sum, &mut results).map_err(|error| {
                Failure::park(Code::LimitExceeded, format!("{doing} of the ERP database {} failed", session.shown()))
                    .caused_by(error)
            })?;
            totals.columns.push(ColumnTotals { count, sum });
        }
    }
    Ok(totals)
}

/// Columns that fit into one statement each; at least one statement, for the rows.
fn parts(asked: &[Asked]) -> Vec<&[Asked]> {
    let mut parts = Vec::new();
    let (mut start, mut results) = (0, 0);
    for (at, one) in asked.iter().enumerate() {
        let more = one.results().len();
        if results > 0 && results + more > RESULTS_AT_ONCE {
            parts.extend(asked.get(start..at));
            (start, results) = (at, 0);
        }
        results += more;
    }
    parts.extend(asked.get(start..));
    parts
}

fn count(results: &mut impl Iterator<Item = Option<String>>) -> Result<u64, ()> {
    results.next().flatten().and_then(|count| count.parse().ok()).ok_or(())
}

fn sum(asked: &Sum, results: &mut impl Iterator<Item = Option<String>>) -> Result<Option<Decimal>, InvalidDecimal> {
    let mut sum = DecimalSum::new();
    // The sum of no values is NULL.
    let mut next = || results.next().flatten().unwrap_or_else(|| "0".to_owned());
    match asked {
        Sum::None => return Ok(None),
        Sum::One(_) => sum.add_str(&next())?,
        Sum::Limbs { limbs, scale } => {
            for position in 0..limbs.len() {
                sum.add(&limb(&next(), position * LIMB_DIGITS, *scale)?)?;
            }
        }
    }
    Ok(Some(sum.finish()))
}

/// `limb` times 10^`power`, with the point before the last `scale` digits.
fn limb(limb: &str, power: usize, scale: usize) -> Result<Decimal, InvalidDecimal> {
    let (sign, digits) = limb.strip_prefix('-').map_or(("", limb), |digits| ("-", digits));
    let Some(places) = scale.checked_sub(power) else {
        return format!("{limb}{}", "0".repeat(power - scale)).parse();
    };
    let padded = format!("{}{digits}", "0".repeat((places + 1).saturating_sub(digits.len())));
    let (whole, fraction) = padded.split_at_checked(padded.len().saturating_sub(places)).unwrap_or((&padded, ""));
    let point = if places == 0 { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}").parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limbs_have_their_places() {
        for (text, power, scale, expected) in [
            ("12", 0, 0, "12"),
            ("12", 0, 3, "0.012"),
            ("-5", 18, 3, "-5000000000000000"),
            ("7", 18, 20, "0.07"),
            ("0", 36, 0, "0"),
        ] {
            let expected: Decimal = expected.parse().unwrap();
            assert_eq!(limb(text, power, scale).unwrap().normalized(), expected.normalized());
        }
    }

    #[test]
    fn no_statement_has_more_results_than_the_server_gives() {
        let column =
            |precision| Column { name: "c".parse().unwrap(), sql_type: SqlType::Decimal { precision, scale: 2 }, nullable: true };
        let asked: Vec<Asked> = (0..1_017).map(|_| Asked::of(&column(65), Kind::Decimal)).collect();
        let parts = parts(&asked);
        assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), 1_017);
        assert!(parts.iter().all(|part| part.iter().flat_map(Asked::results).count() <= RESULTS_AT_ONCE));
        let asked = vec![Asked::of(&column(1_000), Kind::Text)];
        assert_eq!(super::parts(&asked).len(), 1);
        assert_eq!(super::parts(&[]).len(), 1);
    }
}
