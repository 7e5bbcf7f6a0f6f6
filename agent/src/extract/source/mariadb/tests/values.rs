//! What was put in comes out, value by value.

use super::*;
use crate::extract::{
    source::{Since, SinceValue},
    totals::{Adder, compare},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

/// Columns, rows as the wire has them, and whether the totals of the database are those of the rows.
async fn read(place: &Place, table: &TableConfig, types: &[(&str, &str)]) -> (Vec<Column>, Vec<Vec<Option<String>>>) {
    let mut snapshot = place.open().await;
    let mut columns = to_wire(&snapshot.columns(table).await.unwrap());
    for (name, sql_type) in types {
        let column = columns.iter_mut().find(|column| column.name.as_str() == *name).unwrap();
        column.sql_type = sql_type.parse().unwrap();
    }
    let found = rows(snapshot.as_mut(), table, &columns).await;
    let mut adders: Vec<Adder> = columns.iter().map(Adder::new).collect();
    for row in &found {
        for (value, adder) in row.iter().zip(&mut adders) {
            value.iter().for_each(|text| adder.add(text).unwrap());
        }
    }
    let written = TableTotals { rows: found.len() as u64, columns: adders.into_iter().map(Adder::finish).collect() };
    let database = snapshot.totals(&all_of(table, &columns)).await.unwrap();
    compare(&table.name, &columns, &written, &database).unwrap();
    snapshot.close().await;
    (columns, found)
}

/// How a column is declared, its type on the wire, and values as SQL and as the wire has them.
type Torture = (&'static str, &'static str, Vec<(String, String)>);

fn column(declared: &'static str, sql_type: &'static str, values: &[(&str, &str)]) -> Torture {
    (declared, sql_type, values.iter().map(|(sql, wire)| ((*sql).to_owned(), (*wire).to_owned())).collect())
}

fn numbers() -> Vec<Torture> {
    let nines = |count: usize| "9".repeat(count);
    let (n65, n38) = (nines(65), format!("0.{}", nines(38)));
    let n35 = format!("{}.{}", nines(35), nines(30));
    vec![
        column("TINYINT(1)", "BIGINT", &[("0", "0"), ("1", "1"), ("-128", "-128"), ("127", "127")]),
        column("TINYINT(1) UNSIGNED", "BIGINT", &[("255", "255"), ("128", "128")]),
        column("BOOLEAN", "BIGINT", &[("TRUE", "1"), ("FALSE", "0")]),
        column("SMALLINT", "BIGINT", &[("-32768", "-32768"), ("32767", "32767")]),
        column("SMALLINT UNSIGNED", "BIGINT", &[("65535", "65535")]),
        column("MEDIUMINT", "BIGINT", &[("-8388608", "-8388608"), ("8388607", "8388607")]),
        column("MEDIUMINT UNSIGNED", "BIGINT", &[("16777215", "16777215")]),
        column("INT", "BIGINT", &[("-2147483648", "-2147483648"), ("2147483647", "2147483647")]),
        column("INT(10) UNSIGNED ZEROFILL", "BIGINT", &[("4294967295", "4294967295"), ("7", "7")]),
        column(
            "BIGINT",
            "BIGINT",
            &[("-9223372036854775808", "-9223372036854775808"), ("9223372036854775807", "9223372036854775807")],
        ),
        column(
            "BIGINT UNSIGNED",
            "DECIMAL(20,0)",
            &[("18446744073709551615", "18446744073709551615"), ("9223372036854775808", "9223372036854775808"), ("0", "0")],
        ),
        column("BIT(1)", "DECIMAL(20,0)", &[("b'1'", "1"), ("b'0'", "0")]),
        column("BIT(9)", "DECIMAL(20,0)", &[("b'100000001'", "257")]),
        column("BIT(64)", "DECIMAL(20,0)", &[("18446744073709551615", "18446744073709551615")]),
        column("YEAR", "BIGINT", &[("1901", "1901"), ("2155", "2155"), ("'0000'", "0")]),
        column(
            "DECIMAL(12,2)",
            "DECIMAL(12,2)",
            &[("12.50", "12.50"), ("-0.05", "-0.05"), ("0", "0.00"), ("-9999999999.99", "-9999999999.99")],
        ),
        column("DECIMAL(5,2) UNSIGNED", "DECIMAL(5,2)", &[("999.99", "999.99")]),
        column("NUMERIC(43,3)", "DECIMAL(43,3)", &[("0.001", "0.001"), ("-0.001", "-0.001")]),
        column("DECIMAL(65,0)", "DECIMAL(65,0)", &[(&n65, &n65), (&n65, &n65), (&n65, &n65), ("-1", "-1")]),
        column("DECIMAL(65,30)", "DECIMAL(65,30)", &[(&n35, &n35), (&format!("-{n35}"), &format!("-{n35}")), (&n35, &n35)]),
        column("DECIMAL(38,38)", "DECIMAL(38,38)", &[(&n38, &n38), (&n38, &n38)]),
        column(
            "FLOAT",
            "DOUBLE PRECISION",
            &[
                ("0.1", "0.10000000149011612"),
                ("16777217", "16777216"),
                ("-123456.789", "-123456.7890625"),
                ("3.402823466e38", "3.4028234663852886e38"),
                ("1.4e-45", "1.401298464324817e-45"),
            ],
        ),
        column(
            "DOUBLE",
            "DOUBLE PRECISION",
            &[
                ("0.1", "0.1"),
                ("1.7976931348623157e308", "1.7976931348623157e308"),
                ("2.2250738585072014e-308", "2.2250738585072014e-308"),
                ("-123456789.12345678", "-123456789.12345678"),
                ("0.30000000000000004", "0.30000000000000004"),
            ],
        ),
    ]
}

fn times() -> Vec<Torture> {
    vec![
        column(
            "DATE",
            "DATE",
            &[
                ("'0001-01-01'", "0001-01-01"),
                ("'1582-10-10'", "1582-10-10"),
                ("'1899-12-31'", "1899-12-31"),
                ("'9999-12-31'", "9999-12-31"),
            ],
        ),
        column(
            "DATETIME",
            "TIMESTAMP",
            &[("'9999-12-31 23:59:59'", "9999-12-31T23:59:59"), ("'2024-02-29'", "2024-02-29T00:00:00")],
        ),
        column(
            "DATETIME(6)",
            "TIMESTAMP",
            &[
                ("'1000-01-01 00:00:00.000001'", "1000-01-01T00:00:00.000001"),
                ("'2024-02-29 12:00:00.5'", "2024-02-29T12:00:00.5"),
            ],
        ),
        // The session that writes is two hours ahead.
        column(
            "TIMESTAMP(6) NULL",
            "TIMESTAMP WITH TIME ZONE",
            &[
                ("'2024-06-01 14:00:00.25'", "2024-06-01T12:00:00.25+00:00"),
                ("'1970-01-01 02:00:01'", "1970-01-01T00:00:01+00:00"),
                ("'2038-01-19 05:14:07.999999'", "2038-01-19T03:14:07.999999+00:00"),
            ],
        ),
        column("TIME", "TIME", &[("'00:00:00'", "00:00:00"), ("'23:59:59'", "23:59:59")]),
        column("TIME(6)", "TIME", &[("'12:34:56.000007'", "12:34:56.000007")]),
    ]
}

fn texts() -> Vec<Torture> {
    let all: Vec<u8> = (0..=255).collect();
    let hex: String = all.iter().map(|byte| format!("{byte:02X}")).collect();
    let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let point = [&[0; 4][..], &[1, 1, 0, 0, 0], &1.0_f64.to_le_bytes(), &2.0_f64.to_le_bytes()].concat();
    let megabyte = "ä".repeat(524_288);
    vec![
        column("CHAR(5)", "TEXT", &[("'ab   '", "ab"), ("''", ""), ("' ab'", " ab")]),
        column(
            "VARCHAR(80)",
            "TEXT",
            &[
                (r#"'Größe "XL", it''s; \r\n\ta\\b'"#, "Größe \"XL\", it's; \r\n\ta\\b"),
                ("''", ""),
                ("'NULL'", "NULL"),
                ("'\u{1F600}e\u{301}\u{10FFFF}'", "\u{1F600}e\u{301}\u{10FFFF}"),
            ],
        ),
        column("VARCHAR(20) COLLATE utf8mb4_bin", "TEXT", &[("'Ä '", "Ä ")]),
        column("VARCHAR(20) CHARACTER SET latin1", "TEXT", &[("'äß€'", "äß€")]),
        column("VARCHAR(20) CHARACTER SET utf16", "TEXT", &[("'\u{1F600}'", "\u{1F600}")]),
        column("TINYTEXT", "TEXT", &[("'x'", "x")]),
        column("LONGTEXT", "TEXT", &[("REPEAT('ä', 524288)", &megabyte)]),
        column("ENUM('x', 'ä,b', '')", "TEXT", &[("'ä,b'", "ä,b"), ("''", "")]),
        column("SET('a', 'b')", "TEXT", &[("'b,a'", "a,b"), ("''", "")]),
        column("JSON", "TEXT", &[(r#"'{"a": [1, 2.50, null]}'"#, r#"{"a": [1, 2.50, null]}"#)]),
        column("INET6", "TEXT", &[("'::ffff:192.0.2.1'", "::ffff:192.0.2.1")]),
        column("UUID", "TEXT", &[("'123e4567-e89b-12d3-a456-426655440000'", "123e4567-e89b-12d3-a456-426655440000")]),
        column("BINARY(4)", "BINARY", &[("X'0001'", &base64(&[0, 1, 0, 0]))]),
        column("VARBINARY(300)", "BINARY", &[(&format!("X'{hex}'"), &base64(&all)), ("''", "")]),
        column("LONGBLOB", "BINARY", &[("REPEAT(X'00', 1000000)", &base64(&vec![0; 1_000_000]))]),
        column("CHAR(2) CHARACTER SET binary", "BINARY", &[("X'FFFE'", &base64(&[0xff, 0xfe]))]),
        column("POINT", "BINARY", &[("ST_GeomFromText('POINT(1 2)')", &base64(&point))]),
    ]
}

#[tokio::test]
async fn every_type_comes_out_as_it_was_put_in() {
    let place = Place::new();
    let columns: Vec<Torture> = [numbers(), times(), texts()].concat();
    let height = columns.iter().map(|(.., values)| values.len()).max().unwrap() + 1;
    let declared: Vec<String> = columns.iter().enumerate().map(|(n, (declared, ..))| format!("c{n} {declared}")).collect();
    // The last row is NULL throughout.
    let values =
        |row: usize| columns.iter().map(move |(.., values)| values.get(row).map_or("NULL", |(sql, _)| sql)).collect::<Vec<_>>();
    let insert: String =
        (0..height).map(|row| format!("INSERT INTO torture VALUES ({row}, {});\n", values(row).join(", "))).collect();
    let create = format!("CREATE TABLE torture (id INT PRIMARY KEY, {});", declared.join(", "));
    place.database.run(&format!("SET time_zone = '+02:00'; {create}\n{insert}"));
    for table in [whole("torture"), query("SELECT * FROM torture ORDER BY id")] {
        let (found, rows) = read(&place, &table, &[]).await;
        assert!(found[1].nullable);
        assert_eq!(found[0].nullable, table.query.is_some());
        for (at, (declared, sql_type, values)) in columns.iter().enumerate() {
            // In a query the server counts a digit before the point where there is none.
            let sql_type = if table.query.is_some() { sql_type.replace("(38,38)", "(39,38)") } else { (*sql_type).to_owned() };
            assert_eq!(found[at + 1].sql_type.to_string(), sql_type, "{declared}");
            for (row, of_row) in rows.iter().enumerate() {
                let expected = values.get(row).map(|(_, wire)| wire);
                assert!(
                    of_row[at + 1].as_ref() == expected,
                    "{declared}, row {row}: {:.100?} is not {:.100?}",
                    of_row[at + 1],
                    expected
                );
            }
        }
        assert_eq!(rows.len(), height);
    }
}

#[tokio::test]
async fn the_configuration_may_say_another_type() {
    let place = Place::new();
    place.database.run(
        "SET sql_mode = ''; CREATE TABLE t (id INT, flag TINYINT(1), b BIT(1), text VARCHAR(40), wide TEXT, d DOUBLE, n VARCHAR(20), day DATE, \
         t TIME, at TIMESTAMP NULL, utc TIMESTAMP NULL, z DATETIME); \
         INSERT INTO t VALUES (1, 1, b'1', ' +12.5000 ', '-123456789012345678901234567890.123456789012345678901234567890', 12.5, '007', \
         '0000-00-00', '-838:59:59', '2024-06-01 12:00:00', '2024-06-01 12:00:00', '0000-00-00 00:00:00'), \
         (2, 0, b'0', '-.5', '0', -0.25, '-12', '2024-00-00', '100:00:00.5', NULL, NULL, NULL);",
    );
    let types = [
        ("flag", "BOOLEAN"),
        ("b", "BOOLEAN"),
        ("text", "DECIMAL(30,4)"),
        ("wide", "DECIMAL(90,40)"),
        ("d", "DECIMAL(60,4)"),
        ("n", "BIGINT"),
        ("day", "TEXT"),
        ("t", "TEXT"),
        ("utc", "TIMESTAMP"),
        ("z", "TEXT"),
    ];
    let (_, rows) = read(&place, &whole("t"), &types).await;
    let texts: Vec<Vec<&str>> =
        rows.iter().map(|row| row.iter().map(|text| text.as_deref().unwrap_or("NULL")).collect()).collect();
    assert_eq!(
        texts,
        [
            [
                "1",
                "true",
                "true",
                "12.5000",
                "-123456789012345678901234567890.123456789012345678901234567890",
                "12.5",
                "7",
                "0000-00-00",
                "-838:59:59",
                "2024-06-01T12:00:00+00:00",
                "2024-06-01T12:00:00",
                "0000-00-00 00:00:00"
            ],
            ["2", "false", "false", "-0.5", "0", "-0.25", "-12", "2024-00-00", "100:00:00", "NULL", "NULL", "NULL"],
        ]
    );
}

#[tokio::test]
async fn the_digits_of_expressions_are_found() {
    let place = Place::new();
    place
        .database
        .run("CREATE TABLE t (id INT, price DECIMAL(12,2), rate DECIMAL(10,4)); INSERT INTO t VALUES (1, 12.50, 1.1950)");
    let sql = "WITH x AS (SELECT * FROM t) SELECT id, price * rate AS gross, SUM(price) AS `sum ``x`, 1.50 AS fixed, CAST(price AS DECIMAL(65,30)) AS \
               wide, 0.5 AS half, COUNT(*) AS n FROM x GROUP BY id; -- done";
    let (columns, rows) = read(&place, &query(&sql.replace("; -- done", " ;\n")), &[]).await;
    let types: Vec<String> = columns.iter().map(|column| column.sql_type.to_string()).collect();
    assert_eq!(types, ["BIGINT", "DECIMAL(22,6)", "DECIMAL(34,2)", "DECIMAL(3,2)", "DECIMAL(65,30)", "DECIMAL(2,1)", "BIGINT"]);
    assert_eq!(rows[0][1].as_deref(), Some("14.937500"));
    // A query that would take minutes is not run for that.
    let slow =
        query("SELECT SUM(a.seq * 1.5) AS s FROM seq_1_to_300000000 a JOIN seq_1_to_300000000 b GROUP BY b.seq ORDER BY 1");
    assert_eq!(place.open().await.columns(&slow).await.unwrap()[0].sql_type.to_string(), "DECIMAL(44,1)");
}

#[tokio::test]
async fn names_of_every_kind_many_columns_and_no_rows() {
    let place = Place::new();
    let columns: Vec<String> = (0..300).map(|n| format!("`c ``{n}\" ö` INT DEFAULT {n}")).collect();
    place.database.run(&format!(
        "CREATE TABLE `sélect ``x` (`select` INT NOT NULL, `Größe \"XL\"` DECIMAL(9,3), `a.b` TEXT, {}); INSERT INTO `sélect ``x` (`select`) VALUES (5);
         CREATE TABLE none (`from` DECIMAL(65,2), x TEXT);",
        columns.join(", ")
    ));
    let (found, rows) = read(&place, &whole("sélect `x"), &[]).await;
    assert_eq!((found.len(), rows.len()), (303, 1));
    assert_eq!(found[1].name.as_str(), "Größe \"XL\"");
    assert_eq!(found[1].sql_type.to_string(), "DECIMAL(9,3)");
    assert!(!found[0].nullable);
    assert_eq!(rows[0][302].as_deref(), Some("299"));
    let (found, rows) = read(&place, &whole("none"), &[]).await;
    assert_eq!((found.len(), rows.len()), (2, 0));
    let of_schema = TableConfig { schema: Some(place.database.name.clone()), ..whole("none") };
    assert_eq!(read(&place, &of_schema, &[]).await.0, found);
}

#[tokio::test]
async fn watermarks_of_every_type() {
    let place = Place::new();
    place.database.run(
        "SET time_zone = '+00:00'; CREATE TABLE t (id INT, n BIGINT UNSIGNED, d DECIMAL(30,10), f DOUBLE, s VARCHAR(20) COLLATE utf8mb4_bin, \
         day DATE, clock TIME(3), at DATETIME(6), inst TIMESTAMP(6) NULL, raw VARBINARY(4));
         INSERT INTO t VALUES (1, 1, 0.5, 0.5, 'a''\\\\', '2024-01-01', '01:00:00', '2024-01-01 00:00:00.5', '2024-01-01 00:00:00.5', X'01'),
         (2, 18446744073709551615, 1.5, 1.5, 'b', '2024-01-02', '02:00:00.5', '2024-01-02 00:00:00.5', '2024-01-02 00:00:00.5', X'02FF'),
         (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);",
    );
    let mut snapshot = place.open().await;
    let table = whole("t");
    let all = to_wire(&snapshot.columns(&table).await.unwrap());
    for (column, value, ids) in [
        ("n", "18446744073709551615", vec!["2", "3"]),
        ("d", "0.5000000001", vec!["2", "3"]),
        ("f", "0.5", vec!["1", "2", "3"]),
        ("s", "a'\\", vec!["1", "2", "3"]),
        ("s", "a'\\x", vec!["2", "3"]),
        ("day", "2024-01-02", vec!["2", "3"]),
        ("clock", "02:00:00.5", vec!["2", "3"]),
        ("at", "2024-01-02T00:00:00.5", vec!["2", "3"]),
        ("at", "2024-01-02T00:00:00.500001", vec!["3"]),
        ("inst", "2024-01-02T01:00:00.5+01:00", vec!["2", "3"]),
        ("raw", "Av8=", vec!["2", "3"]),
    ] {
        let sql_type = all.iter().find(|one| one.name.as_str() == column).unwrap().sql_type;
        let since = Since(vec![SinceValue { column: column.to_owned(), sql_type, value: value.to_owned() }]);
        let wanted = [all[0].clone()];
        let read = Read { table: &table, columns: &wanted, all: false, since: Some(&since) };
        let (mut sink, mut feed) = RowSink::new(1);
        snapshot.rows(&read, &mut sink).await.unwrap();
        sink.finish().await.unwrap();
        let Some(crate::extract::source::Feed::Rows(batch)) = feed.recv().await else { panic!("no rows") };
        let found: Vec<String> = batch
            .values()
            .map(|value| {
                let mut scratch = String::new();
                crate::extract::value::to_wire(value, SqlType::BigInt, &mut scratch).unwrap().unwrap().to_owned()
            })
            .collect();
        assert_eq!(found, ids, "{column} {value}");
        assert_eq!(snapshot.totals(&read).await.unwrap().rows, ids.len() as u64);
    }
}
