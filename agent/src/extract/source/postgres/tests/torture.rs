//! Every type and every awkward value, against literals.

use towpath_transfer::{Code, manifest::Column};

use super::*;

/// Type, literal, type on the wire, text on the wire.
const VALUES: &[(&str, &str, &str, Option<&str>)] = &[
    ("int2", "-32768", "BIGINT", Some("-32768")),
    ("int4", "2147483647", "BIGINT", Some("2147483647")),
    ("int8", "-9223372036854775808", "BIGINT", Some("-9223372036854775808")),
    ("int8", "9223372036854775807", "BIGINT", Some("9223372036854775807")),
    ("int8", "NULL", "BIGINT", None),
    ("oid", "4294967295", "BIGINT", Some("4294967295")),
    ("numeric(12,2)", "-0.05", "DECIMAL(12,2)", Some("-0.05")),
    ("numeric(12,2)", "1.5", "DECIMAL(12,2)", Some("1.50")),
    (
        "numeric(38,10)",
        "9999999999999999999999999999.9999999999",
        "DECIMAL(38,10)",
        Some("9999999999999999999999999999.9999999999"),
    ),
    (
        "numeric(38,0)",
        "-99999999999999999999999999999999999999",
        "DECIMAL(38,0)",
        Some("-99999999999999999999999999999999999999"),
    ),
    (
        "numeric(60,20)",
        "1234567890123456789012345678901234567890.00000000000000000001",
        "DECIMAL(60,20)",
        Some("1234567890123456789012345678901234567890.00000000000000000001"),
    ),
    ("numeric(3,-2)", "12345", "DECIMAL(5,0)", Some("12300")),
    ("numeric(2,5)", "0.00012", "DECIMAL(5,5)", Some("0.00012")),
    ("numeric", "0.1000", "TEXT", Some("0.1000")),
    ("numeric", "'NaN'", "TEXT", Some("NaN")),
    ("float4", "0.1", "DOUBLE PRECISION", Some("0.1")),
    ("float8", "0.1", "DOUBLE PRECISION", Some("0.1")),
    ("float8", "0.30000000000000004", "DOUBLE PRECISION", Some("0.30000000000000004")),
    ("float8", "1e300", "DOUBLE PRECISION", Some("1e300")),
    ("float8", "5e-324", "DOUBLE PRECISION", Some("5e-324")),
    ("float8", "'-0'", "DOUBLE PRECISION", Some("-0")),
    ("float8", "'NaN'", "DOUBLE PRECISION", Some("NaN")),
    ("float8", "'-Infinity'", "DOUBLE PRECISION", Some("-Infinity")),
    ("bool", "true", "BOOLEAN", Some("true")),
    ("bool", "false", "BOOLEAN", Some("false")),
    ("bool", "NULL", "BOOLEAN", None),
    ("text", "''", "TEXT", Some("")),
    ("text", "NULL", "TEXT", None),
    ("text", "'\\N'", "TEXT", Some("\\N")),
    ("text", "'\\.'", "TEXT", Some("\\.")),
    ("text", "'NULL'", "TEXT", Some("NULL")),
    ("text", "E'a\\tb\\nc\\r\\nd\\\\e\\bf\\fg\\x0bh\\x01i\\x7f'", "TEXT", Some("a\tb\nc\r\nd\\e\u{8}f\u{c}g\u{b}h\u{1}i\u{7f}")),
    ("text", "'\"quoted\", it''s; 1,5\t'", "TEXT", Some("\"quoted\", it's; 1,5\t")),
    ("text", "'Größe 漢字 👩‍🚒 \u{10ffff}'", "TEXT", Some("Größe 漢字 👩‍🚒 \u{10ffff}")),
    ("varchar(10)", "' x '", "TEXT", Some(" x ")),
    ("char(5)", "'ab'", "TEXT", Some("ab   ")),
    ("\"char\"", "'z'", "TEXT", Some("z")),
    ("name", "'tab'", "TEXT", Some("tab")),
    ("date", "'0001-01-01'", "DATE", Some("0001-01-01")),
    ("date", "'1899-12-31'", "DATE", Some("1899-12-31")),
    ("date", "'9999-12-31'", "DATE", Some("9999-12-31")),
    ("time", "'00:00:00'", "TIME", Some("00:00:00")),
    ("time", "'23:59:59.999999'", "TIME", Some("23:59:59.999999")),
    ("timetz", "'12:00:00+02'", "TEXT", Some("12:00:00+02")),
    ("timestamp", "'1753-01-01 00:00:00.000001'", "TIMESTAMP", Some("1753-01-01T00:00:00.000001")),
    ("timestamp", "'9999-12-31 23:59:59'", "TIMESTAMP", Some("9999-12-31T23:59:59")),
    ("timestamp(0)", "'2024-02-29 12:00:00.6'", "TIMESTAMP", Some("2024-02-29T12:00:01")),
    ("timestamptz", "'2024-03-31 02:30:00.5 Europe/Vienna'", "TIMESTAMP WITH TIME ZONE", Some("2024-03-31T01:30:00.5+00:00")),
    ("timestamptz", "'1800-01-01 00:00:00+05:30'", "TIMESTAMP WITH TIME ZONE", Some("1799-12-31T18:30:00+00:00")),
    ("interval", "'1 year 2 days 03:04:05.6'", "TEXT", Some("1 year 2 days 03:04:05.6")),
    ("bytea", "''", "BINARY", Some("")),
    ("bytea", "'\\x00ff0a5c'", "BINARY", Some("AP8KXA==")),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "TEXT", Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
    ("json", "'{\"a\" : 1.10}'", "TEXT", Some("{\"a\" : 1.10}")),
    ("jsonb", "'{\"b\":2,\"a\" : 1.10}'", "TEXT", Some("{\"a\": 1.10, \"b\": 2}")),
    ("int4[]", "'{1,NULL,3}'", "TEXT", Some("{1,NULL,3}")),
    ("text[]", "ARRAY['a,b', '\"', '']", "TEXT", Some("{\"a,b\",\"\\\"\",\"\"}")),
    ("inet", "'10.0.0.1/8'", "TEXT", Some("10.0.0.1/8")),
    ("macaddr", "'08:00:2B:01:02:03'", "TEXT", Some("08:00:2b:01:02:03")),
    ("xml", "'<a>&amp;</a>'", "TEXT", Some("<a>&amp;</a>")),
    ("int4range", "'[1,5]'", "TEXT", Some("[1,6)")),
    ("money", "'12.50'", "TEXT", Some("$12.50")),
    ("point", "'(1.5,2)'", "TEXT", Some("(1.5,2)")),
    ("bit(4)", "'0101'", "TEXT", Some("0101")),
    ("tsvector", "'b a'", "TEXT", Some("'a' 'b'")),
    ("mood", "'so so'", "TEXT", Some("so so")),
    ("price", "7.5", "DECIMAL(12,2)", Some("7.50")),
    ("pair", "ROW(1, 'a b')", "TEXT", Some("(1,\"a b\")")),
];

#[tokio::test]
async fn every_value_comes_out_as_it_was_put_in() {
    let bench = PostgresBench::new();
    let columns: Vec<String> = VALUES.iter().enumerate().map(|(n, (kind, ..))| format!("c{n} {kind}")).collect();
    let literals: Vec<&str> = VALUES.iter().map(|(_, literal, ..)| *literal).collect();
    bench.database.run(&format!(
        "CREATE TYPE mood AS ENUM ('so so', 'good'); CREATE DOMAIN price AS numeric(12,2); CREATE TYPE pair AS (a int, b text); \
         CREATE TABLE torture ({}); INSERT INTO torture VALUES ({})",
        columns.join(", "),
        literals.join(", ")
    ));
    // A session that is set up otherwise sends the same.
    bench.database.run_as(
        "postgres",
        &format!(
            "ALTER DATABASE {0} SET datestyle = 'German'; ALTER DATABASE {0} SET timezone = 'Asia/Kathmandu'; \
             ALTER DATABASE {0} SET intervalstyle = 'iso_8601'; ALTER DATABASE {0} SET bytea_output = 'escape'; \
             ALTER DATABASE {0} SET extra_float_digits = 0; ALTER DATABASE {0} SET standard_conforming_strings = off; \
             ALTER DATABASE {0} SET lc_monetary = 'C'",
            bench.database.name
        ),
    );
    let mut snapshot = bench.open().await;
    for table in [conformance::whole("torture"), conformance::query("SELECT * FROM torture")] {
        let columns = conformance::to_wire(&snapshot.columns(&table).await.unwrap());
        let read = conformance::all_of(&table, &columns);
        let found = conformance::rows_of(snapshot.as_mut(), &read).await;
        assert_eq!(found.len(), 1);
        for ((column, found), (kind, literal, sql_type, expected)) in columns.iter().zip(&found[0]).zip(VALUES) {
            assert_eq!(column.sql_type.to_string(), *sql_type, "{kind}");
            assert_eq!(found.as_deref(), *expected, "{kind} {literal}");
        }
        assert_sums(snapshot.as_mut(), &read, &found).await;
    }
}

/// The database's own count and sum of each column are those of the one row.
async fn assert_sums(snapshot: &mut dyn SourceSnapshot, read: &Read<'_>, rows: &[Vec<Option<String>>]) {
    let totals = snapshot.totals(read).await.unwrap();
    assert_eq!(totals.rows, rows.len() as u64);
    for (at, (column, total)) in read.columns.iter().zip(&totals.columns).enumerate() {
        let values: Vec<&str> = rows.iter().filter_map(|row| row[at].as_deref()).collect();
        assert_eq!(total.count, values.len() as u64, "{}", column.name);
        let mut sum = towpath_transfer::decimal::DecimalSum::new();
        if column.sql_type.has_total() {
            values.iter().for_each(|value| sum.add_str(value).unwrap());
            assert_eq!(total.sum, Some(sum.finish()), "{}", column.name);
        } else {
            assert_eq!(total.sum, None, "{}", column.name);
        }
    }
}

#[tokio::test]
async fn large_texts_and_all_bytes() {
    let bench = PostgresBench::new();
    bench.database.run(
        "CREATE TABLE large (id int, long text, tabs text, bytes bytea); INSERT INTO large SELECT n, repeat('ä', 524288), \
         repeat(E'\\t\\\\', 300000), (SELECT string_agg(set_byte('\\x00', 0, b), '' ORDER BY b) FROM generate_series(0, 255) b) \
         FROM generate_series(1, 3) n",
    );
    let table = conformance::query("SELECT * FROM large ORDER BY id");
    let mut snapshot = bench.open().await;
    let columns = conformance::to_wire(&snapshot.columns(&table).await.unwrap());
    let found = conformance::rows_of(snapshot.as_mut(), &conformance::all_of(&table, &columns)).await;
    let all: Vec<u8> = (0..=255).collect();
    for (row, id) in found.iter().zip(["1", "2", "3"]) {
        assert_eq!(row[0].as_deref(), Some(id));
        assert!(row[1].as_deref() == Some(&"ä".repeat(524_288)));
        assert!(row[2].as_deref() == Some(&"\t\\".repeat(300_000)));
        assert_eq!(row[3].as_deref(), Some(BASE64_STANDARD.encode(&all).as_str()));
    }
    assert_eq!(found.len(), 3);
}

#[tokio::test]
async fn names_of_any_kind_and_many_columns() {
    let bench = PostgresBench::new();
    let names = ["select", "with space", "Größe \"XL\"", "it's", "ORDER", "漢字", "a;b--c", "\\t"];
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{}\" int", name.replace('"', "\"\""))).collect();
    let many: Vec<String> = (0..1_600).map(|n| format!("c{n} int DEFAULT {n}")).collect();
    bench.database.run(&format!(
        "CREATE SCHEMA \"Mein \"\"Schema\"; CREATE TABLE \"Mein \"\"Schema\".\"Ä. b\" ({}); \
         INSERT INTO \"Mein \"\"Schema\".\"Ä. b\" VALUES (1, 2, 3, 4, 5, 6, 7, 8); CREATE TABLE wide ({}); INSERT INTO wide VALUES (0)",
        quoted.join(", "),
        many.join(", ")
    ));
    let mut snapshot = bench.open().await;
    let mut table = conformance::whole("Ä. b");
    table.schema = Some("Mein \"Schema".to_owned());
    let columns = conformance::to_wire(&snapshot.columns(&table).await.unwrap());
    assert_eq!(columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), names);
    let reversed: Vec<Column> = columns.iter().rev().cloned().collect();
    let read = Read { table: &table, columns: &reversed, all: false, since: None };
    let found = conformance::rows_of(snapshot.as_mut(), &read).await;
    let expected: Vec<Option<String>> = (1..=8).rev().map(|n| Some(n.to_string())).collect();
    assert_eq!(found, [expected]);
    assert_sums(snapshot.as_mut(), &read, &found).await;
    let wide = conformance::whole("wide");
    let columns = conformance::to_wire(&snapshot.columns(&wide).await.unwrap());
    assert_eq!(columns.len(), 1_600);
    let read = conformance::all_of(&wide, &columns);
    let found = conformance::rows_of(snapshot.as_mut(), &read).await;
    assert_eq!(found[0][1_599].as_deref(), Some("1599"));
    assert_sums(snapshot.as_mut(), &read, &found).await;
}

#[tokio::test]
async fn types_that_the_configuration_says() {
    let bench = PostgresBench::new();
    bench.database.run(
        "CREATE TABLE t (free numeric, words text, truth bool, real float8, cents float4); \
         INSERT INTO t VALUES (1.10, ' +12.5', true, 1e-05, 0.1), (-2, '.5', false, 0.30000000000000004, 123456.7), (NULL, NULL, NULL, NULL, NULL)",
    );
    let table = conformance::query("SELECT * FROM t ORDER BY free");
    let mut snapshot = bench.open().await;
    let mut columns = conformance::to_wire(&snapshot.columns(&table).await.unwrap());
    for (column, sql_type) in
        columns.iter_mut().zip(["DECIMAL(30,10)", "DECIMAL(8,2)", "BIGINT", "DECIMAL(38,20)", "DECIMAL(12,4)"])
    {
        column.sql_type = sql_type.parse().unwrap();
    }
    let read = conformance::all_of(&table, &columns);
    let found = conformance::rows_of(snapshot.as_mut(), &read).await;
    let row = |texts: [&str; 5]| texts.map(|text| Some(text.to_owned())).to_vec();
    let first = row(["-2", "0.5", "0", "0.30000000000000004", "123456.7"]);
    assert_eq!(found, [first, row(["1.10", "12.5", "1", "0.00001", "0.1"]), vec![None; 5]]);
    assert_sums(snapshot.as_mut(), &read, &found).await;
}

#[tokio::test]
async fn values_without_a_form_on_the_wire() {
    let bench = PostgresBench::new();
    for (kind, literal) in [
        ("numeric(12,2)", "'NaN'"),
        ("numeric", "'Infinity'"),
        ("date", "'infinity'"),
        ("date", "'0044-03-15 BC'"),
        ("timestamp", "'-infinity'"),
        ("timestamptz", "'12000-01-01 00:00:00+00'"),
        ("time", "'24:00:00'"),
        ("text", "'12,5'"),
        ("float8", "1e+20"),
    ] {
        let mut snapshot = bench.open().await;
        let table = conformance::query(&format!("SELECT {literal}::{kind} AS x"));
        let mut columns = conformance::to_wire(&snapshot.columns(&table).await.unwrap());
        if !kind.starts_with(['d', 't']) || kind == "text" {
            columns[0].sql_type = "DECIMAL(12,2)".parse().unwrap();
        }
        let read = conformance::all_of(&table, &columns);
        let (mut sink, mut feed) = RowSink::new(1);
        snapshot.rows(&read, &mut sink).await.unwrap();
        sink.finish().await.unwrap();
        let Some(crate::extract::source::Feed::Rows(batch)) = feed.recv().await else { panic!("no rows") };
        let value = batch.values().next().unwrap();
        assert!(crate::extract::value::to_wire(value, columns[0].sql_type, &mut String::new()).is_err(), "{kind} {literal}");
        // The database must not put another reason before that of whoever writes the values.
        match snapshot.totals(&read).await {
            Ok(totals) => assert_eq!(totals.rows, 1),
            Err(failure) => assert_eq!(failure.code(), Code::ErpValue, "{kind} {literal}"),
        }
    }
}
