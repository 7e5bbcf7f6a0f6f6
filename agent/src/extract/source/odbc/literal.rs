//! Values of the wire in the SQL of each database.

use towpath_transfer::manifest::SqlType;

use super::dbms::Dbms;
use crate::extract::source::{select::plain_literal, sqlite};

impl Dbms {
    /// How a value of the wire is written in SQL.
    pub(super) const fn literal(&self) -> fn(SqlType, &str) -> String {
        match self {
            Self::PostgreSql => postgres_literal,
            Self::Sqlite => sqlite::literal,
            Self::MySql => mysql_literal,
            Self::SqlServer => sql_server_literal,
            Self::Oracle => oracle_literal,
            Self::Db2 | Self::Hana | Self::Other(_) => odbc_literal,
        }
    }
}

fn doubled(value: &str) -> String {
    value.replace('\'', "''")
}

/// By type, so that a column of texts is refused instead of being compared as text.
fn postgres_literal(sql_type: SqlType, value: &str) -> String {
    let text = doubled(value);
    match sql_type {
        SqlType::Date => format!("DATE '{text}'"),
        SqlType::Time => format!("TIME '{text}'"),
        SqlType::Timestamp => format!("TIMESTAMP '{text}'"),
        SqlType::TimestampTz => format!("TIMESTAMPTZ '{text}'"),
        SqlType::Decimal { .. } => format!("NUMERIC '{text}'"),
        _ => plain_literal(sql_type, value),
    }
}

/// By type, so that a column of texts is compared by its dates. A backslash escapes in MariaDB and MySQL, unless somebody has
/// switched that off.
fn mysql_literal(sql_type: SqlType, value: &str) -> String {
    let text = doubled(&value.replace('T', " "));
    match sql_type {
        SqlType::Date => format!("DATE '{text}'"),
        SqlType::Time => format!("TIME '{text}'"),
        SqlType::Timestamp => format!("TIMESTAMP '{text}'"),
        _ => plain_literal(sql_type, &value.replace('\\', "\\\\")),
    }
}

/// By type, because `datetime` has no more than three digits after the second, and texts without `N` are of the server's code page.
/// A `datetime` of .6766667 s is told as .677 and compared as what it is, so a moment is taken a millisecond early: rows that are
/// read again do no harm, rows that are missed do.
fn sql_server_literal(sql_type: SqlType, value: &str) -> String {
    let text = doubled(value);
    match sql_type {
        SqlType::Text => format!("N'{text}'"),
        SqlType::Date => format!("CAST('{text}' AS DATE)"),
        SqlType::Time => format!("CAST('{text}' AS TIME(7))"),
        SqlType::Timestamp => format!("DATEADD(MILLISECOND, -1, CAST('{text}' AS DATETIME2(7)))"),
        SqlType::TimestampTz => format!("CAST('{text}' AS DATETIMEOFFSET(7))"),
        _ => plain_literal(sql_type, value),
    }
}

fn oracle_literal(sql_type: SqlType, value: &str) -> String {
    let text = doubled(&value.replace('T', " "));
    match sql_type {
        SqlType::Date => format!("DATE '{text}'"),
        SqlType::Timestamp => format!("TIMESTAMP '{text}'"),
        // The offset follows a blank.
        SqlType::TimestampTz => match text.split_at_checked(text.len().saturating_sub(6)) {
            Some((civil, offset)) => format!("TIMESTAMP '{civil} {offset}'"),
            None => plain_literal(sql_type, value),
        },
        _ => plain_literal(sql_type, value),
    }
}

/// The escapes of ODBC, which every driver must know
/// (<https://learn.microsoft.com/en-us/sql/odbc/reference/develop-app/date-time-and-timestamp-escape-sequences>).
fn odbc_literal(sql_type: SqlType, value: &str) -> String {
    let text = doubled(&value.replace('T', " "));
    match sql_type {
        SqlType::Date => format!("{{d '{text}'}}"),
        SqlType::Time => format!("{{t '{text}'}}"),
        SqlType::Timestamp => format!("{{ts '{text}'}}"),
        _ => plain_literal(sql_type, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_sql() {
        for (dbms, sql_type, value, expected) in [
            (Dbms::MySql, SqlType::Text, "a\\'b", "'a\\\\''b'"),
            (Dbms::SqlServer, SqlType::Text, "it's", "N'it''s'"),
            (
                Dbms::SqlServer,
                SqlType::Timestamp,
                "2024-01-02T03:04:05.678",
                "DATEADD(MILLISECOND, -1, CAST('2024-01-02T03:04:05.678' AS DATETIME2(7)))",
            ),
            (Dbms::PostgreSql, SqlType::Timestamp, "2024-01-02T03:04:05", "TIMESTAMP '2024-01-02T03:04:05'"),
            (Dbms::PostgreSql, SqlType::Decimal { precision: 5, scale: 2 }, "-1.5", "NUMERIC '-1.5'"),
            (Dbms::MySql, SqlType::Timestamp, "2024-01-02T03:04:05", "TIMESTAMP '2024-01-02 03:04:05'"),
            (Dbms::SqlServer, SqlType::BigInt, "-5", "-5"),
            (Dbms::Oracle, SqlType::Timestamp, "2024-01-02T03:04:05", "TIMESTAMP '2024-01-02 03:04:05'"),
            (Dbms::Oracle, SqlType::TimestampTz, "2024-01-02T03:04:05+01:00", "TIMESTAMP '2024-01-02 03:04:05 +01:00'"),
            (Dbms::Oracle, SqlType::Date, "2024-01-02", "DATE '2024-01-02'"),
            (Dbms::Db2, SqlType::Timestamp, "2024-01-02T03:04:05", "{ts '2024-01-02 03:04:05'}"),
            (Dbms::Hana, SqlType::Text, "Tor's", "'Tor''s'"),
        ] {
            assert_eq!(dbms.literal()(sql_type, value), expected);
        }
    }
}
