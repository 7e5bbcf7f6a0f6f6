//! Writes rows in batches of bound parameters and sums every numeric column while it does.

use std::sync::Arc;

use sqlx::{Arguments, AssertSqlSafe, SqliteConnection, sqlite::SqliteArguments};
use towpath_transfer::{Code, Failure, decimal::Decimal, failure::Result};

use super::{
    expected::{Expected, Total},
    schema::{self, Column, Kind},
};

/// Bound parameters of one statement: enough to make the cost of a statement small, few enough to stay in the cache.
const MAX_PARAMETERS: usize = 2_000;
/// A REAL holds every decimal of up to 15 significant digits exactly (IEEE 754 double, `DBL_DIG`).
const MAX_REAL: i128 = 1_000_000_000_000_000;

/// A value on its way into a column.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Integer(i64),
    /// Without its point; the column's scale says where it stands.
    Decimal(i128),
    Text(Arc<str>),
    Double(f64),
    Boolean(bool),
    Blob(Vec<u8>),
}

/// A decimal without its point, so that it is not taken for an integer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unscaled(pub(super) i64);

macro_rules! from {
    ($($of:ty => |$value:ident| $to:expr,)+) => {
        $(impl From<$of> for Value {
            fn from($value: $of) -> Self {
                $to
            }
        })+
    };
}

from! {
    i32 => |value| Self::Integer(i64::from(value)),
    i64 => |value| Self::Integer(value),
    Unscaled => |value| Self::Decimal(i128::from(value.0)),
    &str => |value| Self::Text(Arc::from(value)),
    &Arc<str> => |value| Self::Text(Arc::clone(value)),
    String => |value| Self::Text(Arc::from(value)),
    f64 => |value| Self::Double(value),
    bool => |value| Self::Boolean(value),
    Vec<u8> => |value| Self::Blob(value),
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The values of one row, each converted into a [`Value`].
macro_rules! row {
    ($($value:expr),+ $(,)?) => {
        [$($crate::erp::insert::Value::from($value)),+]
    };
}
pub(super) use row;

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    count: u64,
    unscaled: i128,
}

/// Writes into one table. Memory is one batch, whatever the number of rows.
#[derive(Debug)]
pub(super) struct Inserter {
    table: &'static str,
    columns: Vec<(Column, Sum)>,
    batch: usize,
    full: Arc<str>,
    waiting: usize,
    arguments: SqliteArguments,
    rows: u64,
}

impl Inserter {
    pub(super) async fn open(conn: &mut SqliteConnection, table: &'static str) -> Result<Self> {
        let columns: Vec<_> = schema::columns(conn, table).await?.into_iter().map(|column| (column, Sum::default())).collect();
        let batch = (MAX_PARAMETERS / columns.len().max(1)).max(1);
        let full = statement(table, columns.len(), batch).into();
        Ok(Self { table, columns, batch, full, waiting: 0, arguments: SqliteArguments::default(), rows: 0 })
    }

    /// Rows pushed so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds a row; whether it was the last of a batch, which is now in the database.
    pub(super) async fn push<const N: usize>(&mut self, conn: &mut SqliteConnection, row: [Value; N]) -> Result<bool> {
        if N != self.columns.len() {
            let (table, columns) = (self.table, self.columns.len());
            return Err(Failure::park(Code::Internal, format!("a row of {N} values for the {columns} columns of {table}")));
        }
        for ((column, sum), value) in self.columns.iter_mut().zip(row) {
            bind(&mut self.arguments, column.kind, sum, value).map_err(|cause| {
                Failure::park(Code::Internal, format!("no value for column {} of table {}", column.name, self.table))
                    .caused_by(cause)
            })?;
        }
        self.waiting += 1;
        self.rows += 1;
        if self.waiting < self.batch {
            return Ok(false);
        }
        let full = Arc::clone(&self.full);
        self.flush(conn, full, true).await?;
        Ok(true)
    }

    /// Writes what waits and tells what the table has got.
    pub(super) async fn finish(mut self, conn: &mut SqliteConnection) -> Result<Expected> {
        if self.waiting > 0 {
            let rest = statement(self.table, self.columns.len(), self.waiting);
            self.flush(conn, rest.into(), false).await?;
        }
        let mut totals = Vec::new();
        for (column, sum) in self.columns {
            let scale = match column.kind {
                Kind::Integer => 0,
                Kind::Decimal(scale) | Kind::ExactText(scale) => scale,
                Kind::Text | Kind::Double | Kind::Boolean | Kind::Blob => continue,
            };
            totals.push(Total { column: column.name, count: sum.count, sum: decimal(sum.unscaled, scale)? });
        }
        Ok(Expected { table: self.table.to_owned(), rows: self.rows, totals })
    }

    async fn flush(&mut self, conn: &mut SqliteConnection, sql: Arc<str>, again: bool) -> Result<()> {
        let arguments = std::mem::take(&mut self.arguments);
        sqlx::query_with(AssertSqlSafe(sql), arguments)
            .persistent(again)
            .execute(conn)
            .await
            .map_err(|e| Failure::park(Code::FileFailed, format!("cannot write rows into table {}", self.table)).caused_by(e))?;
        self.waiting = 0;
        Ok(())
    }
}

fn statement(table: &str, columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    format!("INSERT INTO {} VALUES {}", schema::quote(table), vec![row; rows].join(","))
}

/// `unscaled` × 10^-`scale`, normalised.
fn decimal(unscaled: i128, scale: u32) -> Result<Decimal> {
    Decimal::new(unscaled, scale as usize)
        .map(|sum| sum.normalized())
        .map_err(|e| Failure::park(Code::LimitExceeded, "a total with too many digits").caused_by(e))
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn bind(arguments: &mut SqliteArguments, kind: Kind, sum: &mut Sum, value: Value) -> Result<(), Cause> {
    let summed = match (kind, value) {
        (_, Value::Null) => return arguments.add(Option::<i64>::None),
        (Kind::Integer, Value::Integer(value)) => {
            arguments.add(value)?;
            i128::from(value)
        }
        (Kind::Decimal(scale), Value::Decimal(unscaled)) if unscaled.abs() < MAX_REAL => {
            // Both are whole numbers that a double holds exactly, so the quotient is the double nearest to the decimal.
            arguments.add(unscaled as f64 / 10_f64.powi(i32::try_from(scale)?))?;
            unscaled
        }
        (Kind::ExactText(scale), Value::Decimal(unscaled)) => {
            arguments.add(decimal(unscaled, scale)?.to_string())?;
            unscaled
        }
        (Kind::Text, Value::Text(text)) => return arguments.add(text),
        (Kind::Double, Value::Double(value)) => return arguments.add(value),
        (Kind::Boolean, Value::Boolean(value)) => return arguments.add(value),
        (Kind::Blob, Value::Blob(bytes)) => return arguments.add(bytes),
        (kind, value) => return Err(format!("{value:?} does not fit {kind:?}").into()),
    };
    sum.count += 1;
    sum.unscaled = sum.unscaled.checked_add(summed).ok_or("the total is beyond 128 bits")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, Row};

    use super::*;

    async fn database() -> SqliteConnection {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::raw_sql("CREATE TABLE serial_numbers (n INTEGER, d DECIMAL(15,4), t VARCHAR(9))").execute(&mut conn).await.unwrap();
        conn
    }

    #[tokio::test]
    async fn full_and_partial_batches_are_written_and_summed() {
        let mut conn = database().await;
        let mut into = Inserter::open(&mut conn, "serial_numbers").await.unwrap();
        let rows = u64::try_from(into.batch).unwrap() + 3;
        let mut full = 0;
        for n in 0..i64::try_from(rows).unwrap() {
            let price = if n == 0 { None } else { Some(Unscaled(-999_999_999_999_999)) };
            full += u32::from(into.push(&mut conn, row![n, price, "a"]).await.unwrap());
        }
        let expected = into.finish(&mut conn).await.unwrap();
        let counted: i64 = sqlx::query("SELECT COUNT(*) FROM serial_numbers").fetch_one(&mut conn).await.unwrap().get(0);
        assert_eq!((full, expected.rows, counted), (1, rows, i64::try_from(rows).unwrap()));
        assert_eq!(expected.totals[0].count, rows);
        assert_eq!(expected.totals[1].count, rows - 1);
        let sum = -999_999_999_999_999 * i128::from(rows - 1);
        assert_eq!(expected.totals[1].sum, Decimal::new(sum, 4).unwrap());
        assert_eq!(expected.totals.len(), 2);
    }

    #[tokio::test]
    async fn decimals_are_the_nearest_real_or_an_integer() {
        let mut conn = database().await;
        let mut into = Inserter::open(&mut conn, "serial_numbers").await.unwrap();
        for unscaled in [1, 125_000, 30_000, 999_999_999_999_999] {
            into.push(&mut conn, row![0, Unscaled(unscaled), "a"]).await.unwrap();
        }
        into.finish(&mut conn).await.unwrap();
        let rows = sqlx::query("SELECT typeof(d), printf('%.4f', d) FROM serial_numbers").fetch_all(&mut conn).await.unwrap();
        let seen: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let real = |text: &str| ("real".to_owned(), text.to_owned());
        let whole = ("integer".to_owned(), "3.0000".to_owned());
        assert_eq!(seen, [real("0.0001"), real("12.5000"), whole, real("99999999999.9999")]);
    }

    #[tokio::test]
    async fn a_value_that_does_not_fit_its_column_is_refused() {
        let mut conn = database().await;
        let mut into = Inserter::open(&mut conn, "serial_numbers").await.unwrap();
        for row in [row!["x", Unscaled(1), "a"], row![1, Unscaled(1_000_000_000_000_000), "a"], row![1, Unscaled(1), 1.5]] {
            assert_eq!(into.push(&mut conn, row).await.unwrap_err().code(), Code::Internal);
        }
        assert_eq!(into.push(&mut conn, row![1]).await.unwrap_err().code(), Code::Internal);
        assert_eq!(Inserter::open(&mut conn, "sales").await.unwrap_err().code(), Code::ErpQuery);
    }
}
