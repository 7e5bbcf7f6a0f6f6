use std::time::Duration;

use super::*;

const DECIMAL: SqlType = SqlType::Decimal { precision: 20, scale: 4 };

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn column(name: &str, sql_type: SqlType) -> Column {
    Column { name: name.parse().unwrap(), sql_type, nullable: true }
}

fn greatest(types: &[SqlType], through: &[&str], rows: &[&[Option<&str>]]) -> Vec<String> {
    let columns: Vec<Column> = types.iter().enumerate().map(|(at, sql_type)| column(&format!("c{at}"), *sql_type)).collect();
    let names: Vec<Label> = columns.iter().map(|column| column.name.clone()).collect();
    let through: Vec<String> = through.iter().map(|text| (*text).to_owned()).collect();
    let mut tracker = Tracker::new(&columns, &names, &through, now());
    for row in rows {
        row.iter().enumerate().for_each(|(at, text)| {
            if let Some(text) = text {
                tracker.value(at, text);
            }
        });
        tracker.end_row();
    }
    tracker.finish()
}

#[test]
fn the_greatest_value_is_that_of_the_type_and_not_of_the_text() {
    for (sql_type, rows, expected) in [
        (SqlType::BigInt, ["9", "-5", "10"], "10"),
        (DECIMAL, ["9.5", "10.25", "10.3"], "10.3"),
        (DECIMAL, ["-1", "-2", "-0.5"], "-0.5"),
        (SqlType::Date, ["1899-12-31", "2025-12-31", "2026-01-01"], "2026-01-01"),
        (SqlType::Timestamp, ["2026-01-01T00:00:00", "2026-01-01T00:00:00.5", "2025-12-31T23:59:59"], "2026-01-01T00:00:00.5"),
        // By the instant: the last one is 12:30 in UTC.
        (
            SqlType::TimestampTz,
            ["2026-01-01T13:00:00+02:00", "2026-01-01T12:00:00+00:00", "2026-01-01T07:30:00-05:00"],
            "2026-01-01T07:30:00-05:00",
        ),
    ] {
        let rows = rows.map(|text| [Some(text)]);
        let rows: Vec<&[Option<&str>]> = rows.iter().map(<[_; 1]>::as_slice).collect();
        assert_eq!(greatest(&[sql_type], &[], &rows), [expected], "{sql_type}");
    }
}

#[test]
fn a_row_without_watermark_is_not_followed_and_what_was_before_counts() {
    assert!(greatest(&[SqlType::BigInt], &[], &[&[None]]).is_empty());
    assert_eq!(greatest(&[SqlType::BigInt], &["7"], &[]), ["7"]);
    assert_eq!(greatest(&[SqlType::BigInt], &["7"], &[&[Some("3")], &[None]]), ["7"]);
    assert_eq!(greatest(&[SqlType::BigInt], &["7"], &[&[Some("8")]]), ["8"]);
    assert!(greatest(&[], &[], &[&[], &[]]).is_empty());
}

#[test]
fn several_columns_are_compared_in_their_order() {
    let types = [SqlType::Date, SqlType::Time];
    let rows: [&[Option<&str>]; 5] = [
        &[Some("2026-01-01"), Some("23:00:00")],
        &[Some("2026-01-02"), Some("01:00:00")],
        &[Some("2026-01-02"), Some("00:30:00")],
        &[Some("2026-01-03"), None],
        &[None, Some("23:59:59")],
    ];
    assert_eq!(greatest(&types, &[], &rows), ["2026-01-02", "01:00:00"]);
}

#[test]
fn a_date_that_is_no_time_of_a_change_does_not_hide_the_changes_to_come() {
    let dates: [&[Option<&str>]; 2] = [&[Some("2026-03-02")], &[Some("9999-12-31")]];
    assert_eq!(greatest(&[SqlType::Date], &[], &dates), ["2026-03-02"]);
    let tz: [&[Option<&str>]; 2] = [&[Some("9999-12-31T23:59:59-12:00")], &[Some("2026-03-03T11:59:00+00:00")]];
    assert_eq!(greatest(&[SqlType::TimestampTz], &[], &tz), ["2026-03-03T11:59:00+00:00"]);
    assert_eq!(greatest(&[SqlType::BigInt], &[], &[&[Some("99991231")]]), ["99991231"]);
}

#[test]
fn the_overlap_goes_back_by_the_type() {
    let time = |minutes: u64| Overlap::Time(Duration::from_secs(minutes * 60));
    for (sql_type, value, overlap, expected) in [
        (SqlType::BigInt, "1000", Overlap::Count(10), "990"),
        (SqlType::BigInt, "-9223372036854775807", Overlap::Count(u64::MAX), "-9223372036854775808"),
        (SqlType::BigInt, "7", Overlap::Equal, "7"),
        (DECIMAL, "10.5", Overlap::Count(11), "-0.5"),
        (SqlType::Timestamp, "2026-01-01T00:05:00.25", time(10), "2025-12-31T23:55:00.25"),
        (SqlType::Timestamp, "2026-01-01T00:05:00.250", Overlap::Equal, "2026-01-01T00:05:00.250"),
        (SqlType::TimestampTz, "2026-01-01T00:05:00+02:00", time(10), "2025-12-31T21:55:00+00:00"),
        // A date stands for its whole day, so that a little before it is the day before.
        (SqlType::Date, "2026-01-01", time(1), "2025-12-31"),
        (SqlType::Date, "2026-01-01", time(0), "2026-01-01"),
        (SqlType::Date, "2026-01-01", Overlap::Equal, "2026-01-01"),
        (SqlType::Date, "0001-01-01", time(1), "0001-01-01"),
        (SqlType::Timestamp, "0001-01-01T00:00:00", Overlap::Time(Duration::MAX), "0001-01-01T00:00:00"),
        (SqlType::TimestampTz, "9999-12-31T23:59:59-12:00", time(24 * 60), "9999-12-31T11:59:59+00:00"),
    ] {
        let found = before(sql_type, value, overlap);
        assert_eq!(found.as_deref(), Some(expected), "{sql_type} {value} {overlap:?}");
        assert!(fits(sql_type, expected));
    }
    assert_eq!(before(SqlType::BigInt, "x", Overlap::Equal), None);
}

#[test]
fn what_can_be_no_watermark_is_said() {
    let name: Label = "changed".parse().unwrap();
    let second: Label = "at".parse().unwrap();
    let minute = Overlap::Time(Duration::from_secs(60));
    for (types, overlap, said) in [
        (vec![SqlType::Text], Overlap::Equal, "no order that every database agrees on"),
        (vec![SqlType::Double], Overlap::Equal, "no order"),
        (vec![SqlType::Time], Overlap::Equal, "begins anew every day"),
        (vec![SqlType::BigInt, SqlType::Binary], Overlap::Equal, "column at is of type BINARY"),
        (vec![SqlType::BigInt], minute, "a number such as 1000"),
        (vec![SqlType::Date, SqlType::Time], Overlap::Count(3), "a time such as"),
    ] {
        let columns: Vec<(&Label, SqlType)> = [&name, &second].into_iter().zip(types).collect();
        let why = check(&columns, overlap).unwrap_err();
        assert!(why.contains(said), "{why}");
    }
    check(&[(&name, SqlType::Date), (&second, SqlType::Time)], minute).unwrap();
    check(&[(&name, DECIMAL)], Overlap::Count(1)).unwrap();
}
