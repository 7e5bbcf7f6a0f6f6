//! Columns and values as SQLite keeps them.

use std::fmt::Write as _;

use base64::{Engine, engine::general_purpose::STANDARD};
use sqlx::{Sqlite, query::Query, sqlite::SqliteArguments};
use towpath_transfer::manifest::{Column, SqlType};

use super::super::names::quote;

/// Definitions of columns, as `CREATE TABLE` has them.
pub(super) fn definitions(columns: &[Column]) -> String {
    columns.iter().map(definition).collect::<Vec<_>>().join(", ")
}

fn definition(column: &Column) -> String {
    let declared = match column.sql_type {
        SqlType::BigInt => "BIGINT".to_owned(),
        SqlType::Decimal { precision, scale } => format!("DECIMAL_TEXT({precision},{scale})"),
        SqlType::Double => "DOUBLE PRECISION".to_owned(),
        SqlType::Text => "TEXT".to_owned(),
        SqlType::Boolean => "BOOLEAN".to_owned(),
        SqlType::Date => "DATE_TEXT".to_owned(),
        SqlType::Time => "TIME_TEXT".to_owned(),
        SqlType::Timestamp => "TIMESTAMP_TEXT".to_owned(),
        SqlType::TimestampTz => "TIMESTAMPTZ_TEXT".to_owned(),
        SqlType::Binary => "BLOB".to_owned(),
    };
    let null = if column.nullable { "" } else { " NOT NULL" };
    format!("{} {declared}{null}", quote(column.name.as_str()))
}

/// `into` is the quoted table with its columns, `conflict` what follows the rows.
pub(super) fn insert_statement(into: &str, conflict: &str, width: usize, rows: usize) -> String {
    let mut row = String::with_capacity(2 * width + 2);
    for at in 0..width {
        row.push_str(if at == 0 { "(?" } else { ",?" });
    }
    row.push(')');
    let mut sql = String::with_capacity(rows * (row.len() + 1) + 32 + into.len() + conflict.len());
    // Writing to a String cannot fail.
    let _ = write!(sql, "INSERT INTO {into} VALUES ");
    for at in 0..rows {
        if at > 0 {
            sql.push(',');
        }
        sql.push_str(&row);
    }
    let _ = write!(sql, " {conflict}");
    sql
}

pub(super) type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Binds a value as its type's storage class; `None` where the text is not of the type.
pub(super) fn bind<'q>(query: Bound<'q>, column: &Column, field: Option<&str>) -> Option<Bound<'q>> {
    let Some(text) = field else {
        return Some(query.bind(None::<String>));
    };
    Some(match column.sql_type {
        SqlType::BigInt => query.bind(text.parse::<i64>().ok()?),
        // SQLite stores NaN as NULL: the value would be lost.
        SqlType::Double => query.bind(text.parse::<f64>().ok().filter(|value| !value.is_nan())?),
        SqlType::Boolean => query.bind(match text {
            "true" => 1i64,
            "false" => 0,
            _ => return None,
        }),
        SqlType::Binary => query.bind(STANDARD.decode(text).ok()?),
        SqlType::Decimal { .. } | SqlType::Text | SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz => {
            query.bind(text.to_owned())
        }
    })
}
