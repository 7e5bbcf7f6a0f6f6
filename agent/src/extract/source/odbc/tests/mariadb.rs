//! MariaDB Connector/ODBC. Version 3.1 holds a whole result in memory, whatever its settings.

use super::benches::{MariaDbBench, row};
use crate::extract::source::conformance::{all, query, whole};

#[tokio::test]
async fn conforms() {
    all(&MariaDbBench::new()).await;
}

const TYPES: &str =
    "CREATE TABLE t (id BIGINT PRIMARY KEY, t1 TINYINT(1), i4 INTEGER, ub BIGINT UNSIGNED, n DECIMAL(65,30), f8 DOUBLE,
    f4 FLOAT, bi BIT(1), b8 BIT(8), c CHAR(3), v VARCHAR(40), x LONGTEXT, by_ BLOB, vb VARBINARY(20), d DATE, ti TIME(6),
    dt DATETIME(6), ts TIMESTAMP(6) NULL, y YEAR, e ENUM('klein', 'groß'), j JSON, u UUID);
    INSERT INTO t VALUES (1, 1, -2147483648, 18446744073709551615,
    99999999999999999999999999999999999.999999999999999999999999999999, 0.1, 0.1, b'1', b'10000001', 'ä', 'Größe \"XL\"; 𝄞\\\\',
    'a\\r\\n\\tb\\nc', x'00ff80', x'00', '1600-02-29', '23:59:59.999999', '9999-12-31 23:59:59.999999',
    '2024-01-01 10:00:00.5', 2024, 'groß', '{\"a\": 1}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11');
    INSERT INTO t VALUES (2, 0, 0, 0, -99999999999999999999999999999999999.999999999999999999999999999999, 1e300, -3.4e38, b'0',
    b'0', '', '', '', '', '', '0001-01-01', '00:00:00', '1753-01-01 00:00:00', NULL, NULL, NULL, NULL, NULL);
    INSERT INTO t (id) VALUES (9223372036854775807)";

#[tokio::test]
async fn values_of_all_types_come_out_as_they_went_in() {
    let bench = MariaDbBench::new();
    bench.database.run(TYPES);
    let (types, rows) = bench.config.read(&query("SELECT * FROM t ORDER BY id")).await;
    let found: Vec<&str> = types.iter().map(|(_, sql_type)| sql_type.as_str()).collect();
    let expected = [
        "BIGINT",
        "BIGINT",
        "BIGINT",
        "DECIMAL(20,0)",
        "DECIMAL(65,30)",
        "DOUBLE PRECISION",
        "DOUBLE PRECISION",
        "BOOLEAN",
        "BINARY",
        "TEXT",
        "TEXT",
        "TEXT",
        "BINARY",
        "BINARY",
        "DATE",
        "TIME",
        "TIMESTAMP",
        "TIMESTAMP",
        "BIGINT",
        "TEXT",
        "TEXT",
        "TEXT",
    ];
    assert_eq!(found, expected);
    let first = [
        "1",
        "1",
        "-2147483648",
        "18446744073709551615",
        "99999999999999999999999999999999999.999999999999999999999999999999",
        "0.1",
        "0.1",
        "true",
        "gQ==",
        "ä",
        "Größe \"XL\"; 𝄞\\",
        "a\r\n\tb\nc",
        "AP+A",
        "AA==",
        "1600-02-29",
        "23:59:59.999999",
        "9999-12-31T23:59:59.999999",
        "2024-01-01T10:00:00.500000",
        "2024",
        "groß",
        "{\"a\": 1}",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ];
    assert_eq!(rows[0], row(first.map(Some)));
    let mut second = [
        "2",
        "0",
        "0",
        "0",
        "-99999999999999999999999999999999999.999999999999999999999999999999",
        "1e300",
        "-3.4e38",
        "false",
        "AA==",
        "",
        "",
        "",
        "",
        "",
        "0001-01-01",
        "00:00:00.000000",
        "1753-01-01T00:00:00.000000",
        "",
        "",
        "",
        "",
        "",
    ]
    .map(Some);
    second[17..].fill(None);
    assert_eq!(rows[1], row(second));
    let mut third = [None; 22];
    third[0] = Some("9223372036854775807");
    assert_eq!(rows[2], row(third));
    assert_eq!(rows.len(), 3);
}

#[tokio::test]
async fn rows_with_an_end_are_fetched_many_at_once() {
    let bench = MariaDbBench::new();
    bench.database.run(
        "CREATE TABLE t (i BIGINT, v VARCHAR(40), b VARBINARY(10), n DECIMAL(12,2), d DATE);
         INSERT INTO t SELECT seq, CONCAT('𝄞 ', seq), x'00ff', seq / 4, '2024-02-29' FROM seq_1_to_3000;
         INSERT INTO t (i, v) VALUES (3001, REPEAT('𝄞', 40))",
    );
    let (_, rows) = bench.config.read(&query("SELECT * FROM t ORDER BY i")).await;
    assert_eq!(rows.len(), 3_001);
    for (i, found) in (1..=3_000_u32).zip(&rows) {
        let (number, text, decimal) = (i.to_string(), format!("𝄞 {i}"), format!("{:.2}", f64::from(i) / 4.0));
        assert_eq!(*found, row([&number, &text, "AP8=", &decimal, "2024-02-29"].map(Some)));
    }
    assert_eq!(rows[3_000], row([Some("3001"), Some("𝄞".repeat(40).as_str()), None, None, None]));
}

#[tokio::test]
async fn long_texts_binary_values_and_names_are_whole() {
    let bench = MariaDbBench::new();
    bench.database.run(
        "CREATE TABLE `Größe ``X`` select` (`order` INTEGER, `Straße und Nr.` LONGTEXT, `b` LONGBLOB);
         INSERT INTO `Größe ``X`` select` VALUES (1, CONCAT(REPEAT('x', 1000000), '𝄞'), NULL);
         INSERT INTO `Größe ``X`` select` VALUES (2, REPEAT('𝄞', 20000), REPEAT(x'00ff', 50000))",
    );
    let (types, mut rows) = bench.config.read(&whole("Größe `X` select")).await;
    assert_eq!(types[1].0, "Straße und Nr.");
    rows.sort();
    assert_eq!(rows[0][1].as_deref(), Some(format!("{}𝄞", "x".repeat(1_000_000)).as_str()));
    assert_eq!(rows[1][1].as_deref(), Some("𝄞".repeat(20_000).as_str()));
    let bytes = [0x00, 0xff].repeat(50_000);
    let mut scratch = String::new();
    let bytes = crate::extract::source::Value::Bytes(&bytes);
    let encoded = crate::extract::value::to_wire(bytes, towpath_transfer::manifest::SqlType::Binary, &mut scratch).unwrap();
    assert_eq!(rows[1][2].as_deref(), encoded);
    let columns: Vec<String> = (0..300).map(|n| format!("c{n} INTEGER")).collect();
    let values: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    bench.database.run(&format!("CREATE TABLE w ({}); INSERT INTO w VALUES ({})", columns.join(", "), values.join(", ")));
    let wide = bench.config.rows("w").await;
    assert_eq!(wide, [values.into_iter().map(Some).collect::<Vec<_>>()]);
}

#[tokio::test]
async fn a_login_that_may_write_and_tables_outside_the_snapshot_are_told() {
    let bench = MariaDbBench::new();
    bench.database.run("CREATE TABLE t (x INTEGER) ENGINE = InnoDB");
    let snapshot = bench.config.open().await.unwrap();
    assert_eq!(snapshot.warnings(), Vec::<String>::new());
    assert_eq!((snapshot.snapshot().isolation.as_str(), snapshot.snapshot().consistent), ("repeatable read", true));
    bench.database.run("CREATE TABLE m (x INTEGER) ENGINE = MyISAM");
    let mut odbc = bench.config.odbc.clone();
    odbc.user = Some(towpath_servers::WRITER.to_owned());
    let snapshot = super::benches::source(odbc).open(&tokio_util::sync::CancellationToken::new()).await.unwrap();
    let warnings = snapshot.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("may write"), "{warnings:?}");
    assert!(warnings[1].contains("not of the snapshot"), "{warnings:?}");
    assert!(!snapshot.snapshot().consistent);
}
