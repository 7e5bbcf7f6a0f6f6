//! psqlodbc. It tells neither that a `timestamptz` has an offset, which is a timestamp of UTC here, nor the digits of a `numeric`
//! that has none, which is text.

use super::benches::{PostgresBench, row};
use crate::extract::source::conformance::{all, all_of, query, rows_of, to_wire, whole};

#[tokio::test]
async fn conforms() {
    all(&PostgresBench::new()).await;
}

const TYPES: &str = "CREATE TABLE t (id BIGINT PRIMARY KEY, i2 SMALLINT, i4 INTEGER, n NUMERIC(38,10), nn NUMERIC, f8 FLOAT8,
    f4 FLOAT4, b BOOLEAN, c CHAR(3), v VARCHAR(40), vv VARCHAR, x TEXT, by BYTEA, d DATE, ti TIME, ts TIMESTAMP, tz TIMESTAMPTZ,
    u UUID, j JSONB, m MONEY, a INTEGER[]);
    INSERT INTO t VALUES (1, -32768, 2147483647, 9999999999999999999999999999.9999999999,
    123456789012345678901234567890.123456789, 0.1, 0.1, true, 'ä', 'Größe \"XL\"; 𝄞', repeat('ä', 300), E'a\\r\\n\\tb\\nc',
    '\\x00ff80', '1600-02-29', '23:59:59.999999', '9999-12-31 23:59:59.123456', '2024-01-01 10:00:00+02',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\": 1}', 12.5, '{1,2}');
    INSERT INTO t VALUES (2, 0, 0, -9999999999999999999999999999.9999999999, -0.5, 1e300, -3.4e38, false, '', '', '', '', '',
    '0001-01-01', '00:00:00', '1753-01-01 00:00:00', '1899-12-31 23:59:59.5+00', NULL, NULL, NULL, NULL);
    INSERT INTO t (id) VALUES (9223372036854775807)";

#[tokio::test]
async fn values_of_all_types_come_out_as_they_went_in() {
    let bench = PostgresBench::new();
    bench.database.run(TYPES);
    let (types, rows) = bench.config.read(&query("SELECT * FROM t ORDER BY id")).await;
    let found: Vec<&str> = types.iter().map(|(_, sql_type)| sql_type.as_str()).collect();
    let expected = [
        "BIGINT",
        "BIGINT",
        "BIGINT",
        "DECIMAL(38,10)",
        "TEXT",
        "DOUBLE PRECISION",
        "DOUBLE PRECISION",
        "BOOLEAN",
        "TEXT",
        "TEXT",
        "TEXT",
        "TEXT",
        "BINARY",
        "DATE",
        "TIME",
        "TIMESTAMP",
        "TIMESTAMP",
        "TEXT",
        "TEXT",
        "TEXT",
        "TEXT",
    ];
    assert_eq!(found, expected);
    let long = "ä".repeat(300);
    let first = [
        "1",
        "-32768",
        "2147483647",
        "9999999999999999999999999999.9999999999",
        "123456789012345678901234567890.123456789",
        "0.1",
        "0.1",
        "true",
        "ä  ",
        "Größe \"XL\"; 𝄞",
        &long,
        "a\r\n\tb\nc",
        "AP+A",
        "1600-02-29",
        "23:59:59.999999",
        "9999-12-31T23:59:59.123456",
        "2024-01-01T08:00:00",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "{\"a\": 1}",
        "$12.50",
        "{1,2}",
    ];
    assert_eq!(rows[0], row(first.map(Some)));
    let mut second = [
        "2",
        "0",
        "0",
        "-9999999999999999999999999999.9999999999",
        "-0.5",
        "1e300",
        "-3.4e38",
        "false",
        "   ",
        "",
        "",
        "",
        "",
        "0001-01-01",
        "00:00:00",
        "1753-01-01T00:00:00",
        "1899-12-31T23:59:59.5",
        "",
        "",
        "",
        "",
    ]
    .map(Some);
    second[17..].fill(None);
    assert_eq!(rows[1], row(second));
    let mut third = [None; 21];
    third[0] = Some("9223372036854775807");
    assert_eq!(rows[2], row(third));
    assert_eq!(rows.len(), 3);
}

#[tokio::test]
async fn rows_of_numbers_and_dates_are_fetched_many_at_once() {
    let bench = PostgresBench::new();
    bench.database.run(
        "CREATE TABLE t (i BIGINT, n NUMERIC(12,2), f FLOAT8, r FLOAT4, b BOOLEAN, d DATE, ti TIME, ts TIMESTAMP);
         INSERT INTO t SELECT i, i / 4.0, i / 4.0, 0.1, i % 2 = 0, '2024-02-29', '23:59:59.999999', '9999-12-31 23:59:59.999999'
         FROM generate_series(1, 3000) i; INSERT INTO t (i) VALUES (3001)",
    );
    let (_, rows) = bench.config.read(&query("SELECT * FROM t ORDER BY i")).await;
    assert_eq!(rows.len(), 3_001);
    for (i, found) in (1..=3_000_u32).zip(&rows) {
        let (number, quarter) = (i.to_string(), format!("{}", f64::from(i) / 4.0));
        let decimal = format!("{:.2}", f64::from(i) / 4.0);
        let truth = if i % 2 == 0 { "true" } else { "false" };
        let expected = [&number, &decimal, &quarter, "0.1", truth, "2024-02-29", "23:59:59.999999", "9999-12-31T23:59:59.999999"];
        assert_eq!(*found, row(expected.map(Some)));
    }
    assert_eq!(rows[3_000], row([Some("3001"), None, None, None, None, None, None, None]));
}

#[tokio::test]
async fn long_texts_binary_values_and_names_are_whole() {
    let bench = PostgresBench::new();
    bench.database.run(
        "CREATE TABLE \"Größe \"\"X\"\" select\" (\"order\" INTEGER, \"Straße und Nr.\" TEXT, \"b\" BYTEA);
         INSERT INTO \"Größe \"\"X\"\" select\" VALUES (1, repeat('x', 1000000) || '𝄞', NULL);
         INSERT INTO \"Größe \"\"X\"\" select\" SELECT 2, repeat('𝄞', 20000), string_agg(decode(lpad(to_hex(i), 2, '0'), 'hex'), '')
         FROM (SELECT i FROM generate_series(0, 255) i ORDER BY i) s",
    );
    let (types, mut rows) = bench.config.read(&whole("Größe \"X\" select")).await;
    assert_eq!(types[1].0, "Straße und Nr.");
    rows.sort();
    assert_eq!(rows[0][1].as_deref(), Some(format!("{}𝄞", "x".repeat(1_000_000)).as_str()));
    assert_eq!(rows[1][1].as_deref(), Some("𝄞".repeat(20_000).as_str()));
    let all: Vec<u8> = (0..=255).collect();
    let mut scratch = String::new();
    let bytes = crate::extract::source::Value::Bytes(&all);
    let encoded = crate::extract::value::to_wire(bytes, towpath_transfer::manifest::SqlType::Binary, &mut scratch).unwrap();
    assert_eq!(rows[1][2].as_deref(), encoded);
    let columns: Vec<String> = (0..300).map(|n| format!("c{n} INTEGER")).collect();
    let values: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    bench.database.run(&format!("CREATE TABLE w ({}); INSERT INTO w VALUES ({})", columns.join(", "), values.join(", ")));
    let wide = bench.config.rows("w").await;
    assert_eq!(wide, [values.into_iter().map(Some).collect::<Vec<_>>()]);
}

#[tokio::test]
async fn a_login_that_may_write_and_a_driver_that_buffers_are_told() {
    let bench = PostgresBench::new();
    bench.database.run("CREATE TABLE t (x INTEGER)");
    let snapshot = bench.config.open().await.unwrap();
    assert_eq!(snapshot.warnings(), Vec::<String>::new());
    assert_eq!((snapshot.snapshot().isolation.as_str(), snapshot.snapshot().consistent), ("repeatable read", true));
    let mut odbc = bench.config.odbc.clone();
    odbc.user = Some(towpath_servers::WRITER.to_owned());
    odbc.connection.push_str(";UseDeclareFetch=0");
    let snapshot = super::benches::source(odbc).open(&tokio_util::sync::CancellationToken::new()).await.unwrap();
    let warnings = snapshot.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("may write (has_table_privilege)"), "{warnings:?}");
    assert!(warnings[1].contains("UseDeclareFetch=0"), "{warnings:?}");
}

#[tokio::test]
async fn a_number_of_any_digits_keeps_them_where_the_job_says_its_type() {
    let bench = PostgresBench::new();
    bench.database.run("CREATE TABLE t (n NUMERIC); INSERT INTO t VALUES (12345678901234567890.125)");
    let mut snapshot = bench.config.open().await.unwrap();
    let table = whole("t");
    let mut columns = to_wire(&snapshot.columns(&table).await.unwrap());
    columns[0].sql_type = "DECIMAL(30,3)".parse().unwrap();
    let rows = rows_of(snapshot.as_mut(), &all_of(&table, &columns)).await;
    assert_eq!(rows, [row([Some("12345678901234567890.125")])]);
    let totals = snapshot.totals(&all_of(&table, &columns)).await.unwrap();
    assert_eq!(totals.columns[0].sum.as_ref().unwrap().to_string(), "12345678901234567890.125");
}
