//! Values of every type, compared with literals: what the wire has, and what a client of the app database is told.

use towpath_transfer::{
    digest::Sha256Digest,
    manifest::{SqlType, Table},
};

use super::{Bench, Kind, batch, column, id, import, record, scope, table};
use crate::import::OldRows::Removed;

pub(super) async fn all(bench: &dyn Bench) {
    every_value_is_kept(bench).await;
    null_is_not_empty(bench).await;
    three_hundred_columns_fit(bench).await;
    texts_of_a_megabyte_fit(bench).await;
}

/// A value on the wire, and the texts that SQLite and PostgreSQL have for it.
type Case = (SqlType, &'static str, &'static str, &'static str);

const fn decimal(precision: u16, scale: u16) -> SqlType {
    SqlType::Decimal { precision, scale }
}

const CASES: &[Case] = {
    use SqlType::{BigInt, Binary, Boolean, Date, Double, Text, Time, Timestamp, TimestampTz};
    &[
        (BigInt, "9223372036854775807", "9223372036854775807", "9223372036854775807"),
        (BigInt, "-9223372036854775808", "-9223372036854775808", "-9223372036854775808"),
        (BigInt, "0", "0", "0"),
        (
            decimal(38, 10),
            "1234567890123456789012345678.0123456789",
            "1234567890123456789012345678.0123456789",
            "1234567890123456789012345678.0123456789",
        ),
        (
            decimal(38, 0),
            "-99999999999999999999999999999999999999",
            "-99999999999999999999999999999999999999",
            "-99999999999999999999999999999999999999",
        ),
        (decimal(12, 4), "1.50", "1.50", "1.5000"),
        (decimal(12, 12), "-0.000000000001", "-0.000000000001", "-0.000000000001"),
        (Double, "0.1", "0.1", "0.1"),
        (Double, "1.7976931348623157e308", "1.7976931348623157e+308", "1.7976931348623157e+308"),
        (Double, "5e-324", "4.9406564584124654e-324", "5e-324"),
        (Double, "-Infinity", "-Inf", "-Infinity"),
        (Boolean, "true", "1", "true"),
        (Boolean, "false", "0", "false"),
        (Date, "9999-12-31", "9999-12-31", "9999-12-31"),
        (Date, "0001-01-01", "0001-01-01", "0001-01-01"),
        (Date, "1582-10-10", "1582-10-10", "1582-10-10"),
        (Time, "23:59:59.999999", "23:59:59.999999", "23:59:59.999999"),
        (Time, "00:00:00", "00:00:00", "00:00:00"),
        (Timestamp, "9999-12-31T23:59:59.999999", "9999-12-31T23:59:59.999999", "9999-12-31 23:59:59.999999"),
        (Timestamp, "1753-01-01T00:00:00.500000000", "1753-01-01T00:00:00.500000000", "1753-01-01 00:00:00.5"),
        // An instant: PostgreSQL tells it in the reader's time zone, here UTC.
        (TimestampTz, "2024-03-31T02:30:00.123456+02:00", "2024-03-31T02:30:00.123456+02:00", "2024-03-31 00:30:00.123456+00"),
        (TimestampTz, "9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59-12:00", "10000-01-01 11:59:59+00"),
        (TimestampTz, "1899-12-31T00:00:00-00:00", "1899-12-31T00:00:00-00:00", "1899-12-31 00:00:00+00"),
        (Binary, "AAH/XCdN", "0001ff5c274d", "\\x0001ff5c274d"),
        (Binary, "", "", "\\x"),
        (Text, "\\N", "\\N", "\\N"),
        (Text, "\\.", "\\.", "\\."),
        (Text, "\\", "\\", "\\"),
        (Text, "NULL", "NULL", "NULL"),
        (Text, "\u{feff}BOM", "\u{feff}BOM", "\u{feff}BOM"),
        (Text, "a\tb\\tc", "a\tb\\tc", "a\tb\\tc"),
        (Text, "\r\n", "\r\n", "\r\n"),
        (Text, "\n\\.\n", "\n\\.\n", "\n\\.\n"),
        (Text, "\u{8}\u{b}\u{c}\u{7f}\u{1}", "\u{8}\u{b}\u{c}\u{7f}\u{1}", "\u{8}\u{b}\u{c}\u{7f}\u{1}"),
        (Text, "\"quoted\", 'it''s'; $1 ?", "\"quoted\", 'it''s'; $1 ?", "\"quoted\", 'it''s'; $1 ?"),
        (Text, "  spaces  ", "  spaces  ", "  spaces  "),
        (
            Text,
            "\u{1f6a2}\u{10ffff}e\u{301}\u{202e}\u{fffd}",
            "\u{1f6a2}\u{10ffff}e\u{301}\u{202e}\u{fffd}",
            "\u{1f6a2}\u{10ffff}e\u{301}\u{202e}\u{fffd}",
        ),
    ]
};

/// The text of a column as hexadecimal UTF-8, so that no client spoils it; `NULL` for NULL.
fn hexadecimal(kind: Kind, name: &str, sql_type: SqlType) -> String {
    match (kind, sql_type) {
        (Kind::Sqlite, SqlType::Binary) => format!("CASE WHEN {name} IS NULL THEN 'NULL' ELSE hex(lower(hex({name}))) END"),
        (Kind::Sqlite, SqlType::Double) => format!("CASE WHEN {name} IS NULL THEN 'NULL' ELSE hex(printf('%!.17g', {name})) END"),
        (Kind::Sqlite, _) => format!("CASE WHEN {name} IS NULL THEN 'NULL' ELSE hex(CAST({name} AS TEXT)) END"),
        (Kind::Postgres, _) => format!("coalesce(upper(encode(convert_to({name}::text, 'UTF8'), 'hex')), 'NULL')"),
    }
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02X}")).collect()
}

async fn every_value_is_kept(bench: &dyn Bench) {
    let scope = scope("values");
    let name = |at: usize| format!("c{at}");
    let columns = CASES.iter().enumerate().map(|(at, case)| column(&name(at), case.0, true)).collect();
    let every = table("every", columns, &[]);
    let row: Vec<Option<&str>> = CASES.iter().map(|case| Some(case.1)).collect();
    let nulls = vec![None; CASES.len()];
    assert_eq!(import(bench, &scope, 1, &every, Removed, &[&row, &nulls]).await.unwrap(), 2);
    for (at, (sql_type, wire, sqlite, postgres)) in CASES.iter().enumerate() {
        let (name, kind) = (name(at), bench.kind());
        let sql = format!("SELECT {} FROM every ORDER BY {name} IS NULL", hexadecimal(kind, &name, *sql_type));
        let expected = if kind == Kind::Sqlite { sqlite } else { postgres };
        let found = bench.sql(&scope, &sql).await;
        assert_eq!(found[1], "NULL", "{sql_type} {wire:?}");
        if kind == Kind::Sqlite && *sql_type == SqlType::Double {
            // SQLite prints more digits than are needed; the value is compared.
            let bytes: Vec<u8> =
                (0..found[0].len()).step_by(2).map(|at| u8::from_str_radix(&found[0][at..at + 2], 16).unwrap()).collect();
            let told = String::from_utf8(bytes).unwrap();
            assert_eq!(told.parse::<f64>().unwrap().to_bits(), wire.parse::<f64>().unwrap().to_bits(), "{wire} {told}");
            continue;
        }
        assert_eq!(found[0], hex(expected), "{sql_type} {wire:?}");
    }
}

async fn null_is_not_empty(bench: &dyn Bench) {
    let scope = scope("null");
    let one = table("one", vec![column("c", SqlType::Text, true)], &[]);
    assert_eq!(import(bench, &scope, 1, &one, Removed, &[&[Some("")], &[None], &[Some("\n")], &[None]]).await.unwrap(), 4);
    let found = bench.sql(&scope, "SELECT count(*) || ' ' || count(c) || ' ' || sum(length(c)) FROM one").await;
    assert_eq!(found, ["4 2 1"]);
}

async fn three_hundred_columns_fit(bench: &dyn Bench) {
    let scope = scope("columns-300");
    let names: Vec<String> = (0..300).map(|n| format!("Spalte Nr. {n}")).collect();
    let wide = table("wide", names.iter().map(|name| column(name, SqlType::Text, true)).collect(), &[]);
    let row: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
    assert_eq!(import(bench, &scope, 1, &wide, Removed, &[&row, &row]).await.unwrap(), 2);
    let found = bench.sql(&scope, "SELECT \"Spalte Nr. 0\" || \"Spalte Nr. 150\" || \"Spalte Nr. 299\" FROM wide").await;
    assert_eq!(found, ["Spalte Nr. 0Spalte Nr. 150Spalte Nr. 299"; 2]);
}

async fn texts_of_a_megabyte_fit(bench: &dyn Bench) {
    let scope = scope("megabyte");
    let large: Table = table("large", vec![column("n", SqlType::BigInt, false), column("c", SqlType::Text, true)], &[]);
    let text = "Größe \\ \t\r\n".repeat(100_000);
    let (mut open, _) = bench.target().begin(&scope, id(1)).await.unwrap();
    open.start_table(&large, None, Removed).await.unwrap();
    for n in ["1", "2", "3"] {
        open.insert(batch(2, &[&[Some(n), Some(&text)]])).await.unwrap();
    }
    open.finish_table(id(1), Sha256Digest::of(b"1")).await.unwrap();
    open.commit(&record(1, &large, 3)).await.unwrap();
    let literal = match bench.kind() {
        Kind::Sqlite => "replace(hex(zeroblob(50000)), '00', 'Größe \\ ' || char(9, 13, 10) || 'Größe \\ ' || char(9, 13, 10))",
        Kind::Postgres => "repeat('Größe \\ ' || chr(9) || chr(13) || chr(10), 100000)",
    };
    let found = bench.sql(&scope, &format!("SELECT count(*) || '' FROM large WHERE c = {literal}")).await;
    assert_eq!(found, ["3"]);
}
