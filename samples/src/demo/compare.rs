//! Compares the app database with what the ERP's generator knows of its own tables, by reading every value.

use std::path::Path;

use futures::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use towpath_transfer::decimal::DecimalSum;

use super::DemoError;
use crate::erp::Expected;

/// What was found of one table.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Rows in the app database.
    pub(super) rows: u64,
    /// Whether every total agrees.
    pub(super) totals_agree: bool,
}

/// Reads the table from the app database and compares rows and totals.
pub(super) async fn table(app: &Path, expected: &Expected) -> Result<Found, DemoError> {
    let mut app = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(app).read_only(true)).await?;
    let table = quote(&expected.table);
    let rows: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}"))).fetch_one(&mut app).await?;
    let mut totals_agree = true;
    for total in &expected.totals {
        let column = quote(&total.column);
        let sql = format!("SELECT CAST({column} AS TEXT) FROM {table} WHERE {column} IS NOT NULL");
        let mut values = sqlx::query(AssertSqlSafe(sql)).fetch(&mut app);
        let mut sum = DecimalSum::new();
        while let Some(row) = values.try_next().await? {
            if sum.add_str(row.try_get::<&str, _>(0)?).is_err() {
                totals_agree = false;
            }
        }
        totals_agree &= sum.count() == total.count && sum.finish() == total.sum;
    }
    Ok(Found { rows: u64::try_from(rows).unwrap_or(0), totals_agree })
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
