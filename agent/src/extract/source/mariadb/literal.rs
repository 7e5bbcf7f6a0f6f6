//! Names and values in the SQL of MariaDB and MySQL.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::{Timestamp, tz::TimeZone};
use towpath_transfer::manifest::SqlType;

use crate::extract::source::select::Dialect;

/// Names stand in backticks and a backslash in a text is doubled, as it is with the modes that a session sets.
pub(super) const DIALECT: Dialect = Dialect { quotes: ('`', '`'), schema: None, literal };

/// A text.
pub(super) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

fn literal(sql_type: SqlType, value: &str) -> String {
    match sql_type {
        SqlType::BigInt | SqlType::Decimal { .. } | SqlType::Double | SqlType::Boolean => value.to_owned(),
        SqlType::Text => text(value),
        SqlType::Date => format!("DATE{}", text(value)),
        SqlType::Time => format!("TIME{}", text(value)),
        SqlType::Timestamp => format!("TIMESTAMP{}", text(&value.replace('T', " "))),
        // The session is in UTC, and a literal has no offset.
        SqlType::TimestampTz => match value.parse::<Timestamp>() {
            Ok(instant) => format!("TIMESTAMP{}", text(&TimeZone::UTC.to_datetime(instant).to_string().replace('T', " "))),
            Err(_) => text(value),
        },
        SqlType::Binary => match BASE64_STANDARD.decode(value) {
            Ok(bytes) => format!("X'{}'", bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>()),
            Err(_) => text(value),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_values() {
        for (sql_type, value, expected) in [
            (SqlType::BigInt, "-5", "-5"),
            (SqlType::Decimal { precision: 4, scale: 2 }, "0.50", "0.50"),
            (SqlType::Double, "1e300", "1e300"),
            (SqlType::Boolean, "true", "true"),
            (SqlType::Text, r"it's \ 'x", r"'it''s \\ ''x'"),
            (SqlType::Date, "2024-02-29", "DATE'2024-02-29'"),
            (SqlType::Time, "23:59:59.5", "TIME'23:59:59.5'"),
            (SqlType::Timestamp, "2024-02-29T23:59:59.5", "TIMESTAMP'2024-02-29 23:59:59.5'"),
            (SqlType::TimestampTz, "2024-02-29T23:59:59.25+00:00", "TIMESTAMP'2024-02-29 23:59:59.25'"),
            (SqlType::TimestampTz, "2024-03-01T01:30:00+02:00", "TIMESTAMP'2024-02-29 23:30:00'"),
            (SqlType::Binary, "AP8=", "X'00FF'"),
        ] {
            assert_eq!(literal(sql_type, value), expected);
        }
        assert_eq!(DIALECT.name("a`b\""), "`a``b\"`");
    }
}
