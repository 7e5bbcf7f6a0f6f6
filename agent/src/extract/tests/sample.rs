//! Tables as an ERP has them, of a size.

use super::*;

/// Numbers of every size, scale and storage; the extract itself compares its sums with those of SQL.
#[tokio::test]
async fn sums_by_sql_and_by_us_agree_whatever_is_stored() {
    let place = Place::new(
        "CREATE TABLE n (i BIGINT, d2 DECIMAL(17,2), d4 DECIMAL(12,4), d10 DECIMAL(30,10), d0 DECIMAL(18,0), d20 DECIMAL(38,20), t VARCHAR(80));
        WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000)
        INSERT INTO n SELECT
            CASE n % 3 WHEN 0 THEN random() WHEN 1 THEN 9223372036854775807 - n ELSE NULL END,
            printf('%d.%02d', random() % 10000000000000, abs(random() % 100)),
            printf('%d.%04d', random() % 10000000, abs(random() % 10000)),
            CASE n % 4 WHEN 0 THEN printf('%d.%07d', random() % 100000000, abs(random() % 10000000)) WHEN 1 THEN 1e15 + n
                WHEN 2 THEN 0.1 * (n % 1000) / 1000 ELSE -n END,
            CASE n % 2 WHEN 0 THEN 1e17 + n * 1024 ELSE n END,
            CASE n % 3 WHEN 0 THEN n / 1e7 WHEN 1 THEN n / 1e3 ELSE 1.5 / (1 << (n % 20)) END,
            CASE n % 5 WHEN 0 THEN NULL WHEN 1 THEN printf(' +%d.5000 ', n) WHEN 2 THEN printf('-.%09d', n) WHEN 3 THEN n
                ELSE printf('-00%d%d%d.%d', abs(random()), abs(random()), n, n) END
        FROM c;
        UPDATE n SET d10 = round(d10, 10), d20 = round(d20, 15);",
    )
    .await;
    let table_of = typed(whole("n"), &[("t", "DECIMAL(60,12)")]);
    let extracted = place.extract(vec![table_of]).await.unwrap();
    let rows = read(&place.folder, &extracted.files[0]);
    assert_eq!(rows.len(), 20_000);
    assert!(table(&extracted.files[0]).totals.iter().all(|total| total.count > 10_000));
}

#[tokio::test]
async fn the_widest_decimals_are_summed() {
    let digits = "9".repeat(950);
    let place = Place::new(&format!("CREATE TABLE w (t TEXT); INSERT INTO w VALUES ('{digits}.5'), ('-1'), ('0.25');")).await;
    let extracted = place.extract(vec![typed(whole("w"), &[("t", "DECIMAL(1000,40)")])]).await.unwrap();
    let sum = table(&extracted.files[0]).totals[0].sum.to_string();
    assert_eq!(sum, format!("{}8.75", "9".repeat(949)));
}

/// Reported, not judged: how many rows a second go through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_speed_of_many_rows() {
    let rows = std::env::var("TOWPATH_SPEED_ROWS").map_or(200_000, |rows| rows.parse::<u64>().unwrap());
    let place = Place::new(&format!(
        "CREATE TABLE sales (id INTEGER PRIMARY KEY, order_no VARCHAR(20), day DATE, customer INTEGER, item INTEGER,
            quantity DECIMAL(12,3), price DECIMAL(12,4), amount DECIMAL(14,2), currency CHAR(3), booked TIMESTAMP);
        WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows})
        INSERT INTO sales SELECT n, 'SO-' || (n / 3), date('2020-01-01', (n % 1500) || ' days'), n % 977, n * 7919 % 5003,
            (n % 40) + 0.125, (n * 31 % 100000) / 10000.0, (n * 17 % 1000000) / 100.0, 'EUR', '2024-01-01 12:00:' || printf('%02d', n % 60)
        FROM c;",
    ))
    .await;
    let clock = towpath_journal::system::SystemClock::new();
    let start = Clock::monotonic(&clock);
    let extracted = place.extract(vec![whole("sales")]).await.unwrap();
    let seconds = (Clock::monotonic(&clock) - start).as_secs_f64();
    let (rows, packed) = (table(&extracted.files[0]).rows, extracted.packed[0].size);
    println!(
        "{rows} rows in {seconds:.2} s: {:.0} rows/s, {} bytes, packed {packed}",
        rows as f64 / seconds,
        extracted.files[0].size
    );
}
