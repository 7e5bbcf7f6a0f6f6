//! Compares an ERP database with an app database, value by value, without a line of the product's own extract or import.

use std::path::Path;

use futures::TryStreamExt as _;
use sqlx::{
    AssertSqlSafe, Connection as _, Row as _, SqliteConnection, TypeInfo as _, ValueRef as _,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use towpath_transfer::decimal::Decimal;

use crate::world::block_on;

/// Asserts that every one of `tables` has the same columns and the same rows in the same order in both databases.
/// Decimals are compared as numbers, however each database stores them; everything else as the value it is.
///
/// # Panics
/// At the first difference, with its place.
pub fn assert_same_tables(erp: &Path, app: &Path, tables: &[&str]) {
    block_on(async {
        let mut erp = open(erp).await;
        let mut app = open(app).await;
        for table in tables {
            same_table(&mut erp, &mut app, table).await;
        }
    });
}

/// The one text a query finds.
///
/// # Panics
/// Where the query fails or finds nothing.
#[must_use]
pub fn query_text(database: &Path, sql: &str) -> String {
    query_texts(database, sql).into_iter().next().unwrap_or_else(|| panic!("nothing found by {sql}"))
}

/// The texts a query finds.
///
/// # Panics
/// Where the query fails.
#[must_use]
pub fn query_texts(database: &Path, sql: &str) -> Vec<String> {
    block_on(async {
        let mut connection = open(database).await;
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await;
        let rows = rows.unwrap_or_else(|e| panic!("{sql}: {e}"));
        rows.iter().map(|row| value(row, 0).map_or_else(|| "NULL".into(), |v| v.text())).collect()
    })
}

async fn open(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    SqliteConnection::connect_with(&options).await.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

async fn same_table(erp: &mut SqliteConnection, app: &mut SqliteConnection, table: &str) {
    let columns = columns(erp, table).await;
    let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    let app_names: Vec<String> = self::columns(app, table).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, app_names, "columns of {table}");
    let quoted = format!("\"{}\"", table.replace('"', "\"\""));
    let left_sql = format!("SELECT * FROM {quoted}");
    let right_sql = format!("SELECT * FROM {quoted} ORDER BY rowid");
    let mut left = sqlx::query(AssertSqlSafe(left_sql)).fetch(erp);
    let mut right = sqlx::query(AssertSqlSafe(right_sql)).fetch(app);
    let mut number = 0u64;
    loop {
        number += 1;
        match (left.try_next().await.unwrap(), right.try_next().await.unwrap()) {
            (None, None) => return,
            (Some(left), Some(right)) => same_row(&left, &right, &columns, &format!("{table}, row {number}")),
            (left, _) => panic!("{table}: row {number} is only in {}", if left.is_some() { "the ERP" } else { "the app" }),
        }
    }
}

async fn columns(connection: &mut SqliteConnection, table: &str) -> Vec<(String, String)> {
    let rows =
        sqlx::query("SELECT name, type FROM pragma_table_info(?)").bind(table.to_owned()).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| (row.get::<String, _>(0), row.get::<String, _>(1).to_uppercase())).collect()
}

fn same_row(left: &SqliteRow, right: &SqliteRow, columns: &[(String, String)], place: &str) {
    for (at, (name, declared)) in columns.iter().enumerate() {
        let (erp, app) = (value(left, at), value(right, at));
        let same = match (&erp, &app) {
            (None, None) => true,
            (Some(erp), Some(app)) => same_value(erp, app, declared),
            _ => false,
        };
        assert!(same, "{place}, column {name} ({declared}): {erp:?} in the ERP, {app:?} in the app");
    }
}

fn same_value(erp: &Value, app: &Value, declared: &str) -> bool {
    if declared.starts_with("DECIMAL") || declared.starts_with("NUMERIC") {
        return erp.decimal() == app.decimal();
    }
    if declared == "TIMESTAMP" || declared == "DATETIME" {
        // The wire has one form for a point in time; the ERP writes a space or a T.
        return erp.text().replacen(' ', "T", 1) == app.text();
    }
    match (erp, app) {
        // A text that the profile declares to be a decimal keeps its value, not its zeros.
        (Value::Text(erp), Value::Text(app)) if erp != app => {
            erp.parse::<Decimal>().ok().zip(app.parse::<Decimal>().ok()).is_some_and(|(erp, app)| erp == app)
        }
        _ => erp == app,
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Integer(value) => value.to_string(),
            Self::Real(value) => value.to_string(),
            Self::Text(value) => value.clone(),
            Self::Blob(value) => format!("{value:?}"),
        }
    }

    fn decimal(&self) -> Decimal {
        self.text().parse().unwrap_or_else(|e| panic!("{self:?} is no decimal: {e}"))
    }
}

fn value(row: &SqliteRow, at: usize) -> Option<Value> {
    let raw = row.try_get_raw(at).unwrap();
    if raw.is_null() {
        return None;
    }
    Some(match raw.type_info().name() {
        "INTEGER" | "BOOLEAN" | "INT8" => Value::Integer(row.try_get_unchecked(at).unwrap()),
        "REAL" => Value::Real(row.try_get_unchecked(at).unwrap()),
        "TEXT" | "DATE" | "TIME" | "DATETIME" => Value::Text(row.try_get_unchecked(at).unwrap()),
        "BLOB" => Value::Blob(row.try_get_unchecked(at).unwrap()),
        other => panic!("a value of type {other}"),
    })
}
