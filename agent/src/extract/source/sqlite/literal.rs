//! Values of the wire as literals that SQLite compares with what it has stored.
//!
//! SQLite has no types for dates and times: they are texts, in several forms, and compared as texts. A literal here is never
//! after a stored text of the same or a later time, so that no row is missing; a few rows of before may come as well.

use jiff::civil;
use towpath_transfer::manifest::SqlType;

use crate::extract::source::select::plain_literal;

/// The literal for a value.
pub(in crate::extract::source) fn literal(sql_type: SqlType, value: &str) -> String {
    let text = |text: &str| plain_literal(SqlType::Text, text);
    match sql_type {
        // With an affinity of its own, so that a column of texts is compared as numbers.
        SqlType::BigInt | SqlType::Decimal { .. } => format!("CAST({} AS NUMERIC)", text(value)),
        SqlType::Date | SqlType::Time | SqlType::Timestamp => text(&shortest(value)),
        SqlType::TimestampTz => text(&day_before(value).unwrap_or_default()),
        _ => plain_literal(sql_type, value),
    }
}

/// The shortest form that a time can be stored in, with the space that sorts before `T`: every longer form of it begins with it.
fn shortest(value: &str) -> String {
    let spaced = value.replacen('T', " ", 1);
    let mut short = spaced.as_str();
    if short.contains('.') {
        short = short.trim_end_matches('0').trim_end_matches('.');
    }
    if short.matches(':').count() == 2 {
        short = short.strip_suffix(":00").unwrap_or(short);
    }
    short.strip_suffix(" 00:00").unwrap_or(short).to_owned()
}

/// The day before that of the instant in UTC: whatever the offset in which a later instant is stored, its text is greater.
fn day_before(value: &str) -> Option<String> {
    let (civil, offset) = value.split_at_checked(value.len().checked_sub(6)?)?;
    let civil: civil::DateTime = civil.parse().ok()?;
    // An offset is less than a day, both that of the value and that of a stored one.
    let days = if offset.starts_with('-') { 1 } else { 2 };
    let day = civil.date().checked_sub(jiff::Span::new().days(days)).unwrap_or(civil::Date::ZERO);
    Some(day.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_a_later_time_sorts_before_its_literal() {
        let stored = [
            (SqlType::Timestamp, "2026-01-02T00:00:00.000", vec!["2026-01-02", "2026-01-02 00:00", "2026-01-02T00:00:00"]),
            (SqlType::Timestamp, "2026-01-02T12:30:00", vec!["2026-01-02 12:30", "2026-01-02T12:30", "2026-01-02 12:30:00.0"]),
            (SqlType::Timestamp, "2026-01-02T12:30:05.250", vec!["2026-01-02 12:30:05.25", "2026-01-02 12:30:05.2500"]),
            (SqlType::Date, "2026-01-02", vec!["2026-01-02", "2026-01-02 00:00:00.000", "2026-01-03"]),
            (SqlType::Time, "07:30:00", vec!["07:30", "07:30:00", "07:30:00.5"]),
            (SqlType::Time, "00:00:00", vec!["00:00"]),
            (
                SqlType::TimestampTz,
                "2026-01-02T00:30:00+02:00",
                vec!["2026-01-01 22:30:00Z", "2026-01-01T22:30+00", "2025-12-31T22:30:00-23:59", "2026-01-02 22:29:00+23:59"],
            ),
            (SqlType::TimestampTz, "2026-01-02T23:30:00-05:00", vec!["2026-01-03T04:30:00Z", "2026-01-02T04:31:00-23:59"]),
        ];
        for (sql_type, value, forms) in stored {
            let literal = literal(sql_type, value);
            let compared = literal.trim_matches('\'');
            for form in forms {
                assert!(form >= compared, "{form} sorts before {compared}");
            }
        }
        assert_eq!(literal(SqlType::BigInt, "-5"), "CAST('-5' AS NUMERIC)");
        assert_eq!(literal(SqlType::Text, "it's"), "'it''s'");
        assert_eq!(literal(SqlType::Timestamp, "2026-01-02T12:30:00"), "'2026-01-02 12:30'");
    }
}
