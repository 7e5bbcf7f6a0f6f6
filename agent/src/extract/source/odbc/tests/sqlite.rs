//! SQLite's driver (libsqliteodbc 0.9998). With unixODBC it takes statements in ASCII only, so that tables and columns with other
//! names cannot be read; floating-point numbers in a DECIMAL column come with the 15 digits that SQLite makes a text of; and there is
//! no statement timeout, and no way to end a statement from outside. A source of kind "sqlite" has none of these limits.

use towpath_transfer::Code;

use super::benches::{SqliteBench, row};
use crate::extract::source::conformance::{Bench as _, all, query, whole};

#[tokio::test]
async fn conforms() {
    all(&SqliteBench::new().await).await;
}

#[tokio::test]
async fn values_of_all_types_come_out_as_they_went_in() {
    let bench = SqliteBench::new().await;
    let create =
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n DECIMAL(38,10), f REAL, b BOOLEAN, v VARCHAR(5), x TEXT, by BLOB, d DATE,
        ti TIME, ts DATETIME);
        INSERT INTO t VALUES (1, '-12345678901234567890.0123456789x', 0.1, 1, 'Größe \"XL\"; 𝄞', printf('%.*c', 1000000, 'x')
        || char(13, 10, 9) || '𝄞', x'00ff80', '1600-02-29', '23:59:59.999999', '9999-12-31 23:59:59.123456');
        UPDATE t SET n = -12.5; INSERT INTO t VALUES (2, 9007199254740993, 1e300, 0, '', '', x'', '0001-01-01', '00:00:00',
        '1753-01-01 00:00:00'); INSERT INTO t (id) VALUES (9223372036854775807)";
    bench.run(create).await;
    let (types, rows) = bench.config.read(&query("SELECT * FROM t ORDER BY id")).await;
    let found: Vec<&str> = types.iter().map(|(_, sql_type)| sql_type.as_str()).collect();
    let expected =
        ["BIGINT", "DECIMAL(38,10)", "DOUBLE PRECISION", "BOOLEAN", "TEXT", "TEXT", "BINARY", "DATE", "TIME", "TIMESTAMP"];
    assert_eq!(found, expected);
    let long = format!("{}\r\n\t𝄞", "x".repeat(1_000_000));
    let first = [
        "1",
        "-12.5",
        "0.1",
        "true",
        "Größe \"XL\"; 𝄞",
        &long,
        "AP+A",
        "1600-02-29",
        "23:59:59.999999",
        "9999-12-31T23:59:59.123456",
    ];
    assert_eq!(rows[0], row(first.map(Some)));
    let second = ["2", "9007199254740993", "1e300", "false", "", "", "", "0001-01-01", "00:00:00", "1753-01-01T00:00:00"];
    assert_eq!(rows[1], row(second.map(Some)));
    let mut third = [None; 10];
    third[0] = Some("9223372036854775807");
    assert_eq!(rows[2], row(third));
    let columns: Vec<String> = (0..300).map(|n| format!("\"c {n}\" INTEGER")).collect();
    let values: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    bench
        .run(&format!("CREATE TABLE \"select\" ({}); INSERT INTO \"select\" VALUES ({})", columns.join(", "), values.join(", ")))
        .await;
    assert_eq!(bench.config.rows("select").await, [values.into_iter().map(Some).collect::<Vec<_>>()]);
}

#[tokio::test]
async fn a_name_that_would_not_arrive_is_refused() {
    let bench = SqliteBench::new().await;
    bench.run("CREATE TABLE t (id INTEGER, \"Größe\" TEXT); INSERT INTO t VALUES (1, 'x')").await;
    let mut snapshot = bench.config.open().await.unwrap();
    let failure = snapshot.columns(&query("SELECT \"Größe\" FROM t")).await.unwrap_err();
    assert_eq!(failure.code(), Code::ErpQuery);
    assert!(failure.message().contains("in ASCII only"), "{failure}");
    let failure = snapshot.columns(&whole("t")).await.unwrap_err();
    assert!(failure.message().contains("in ASCII only"), "{failure}");
}
