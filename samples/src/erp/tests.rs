use std::{path::Path, time::Duration};

use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};
use tempfile::TempDir;
use towpath_transfer::{
    Code, Disposition,
    decimal::DecimalSum,
    digest::{Sha256Digest, Sha256Hasher},
};

use super::{
    schema::{Kind, columns, quote},
    *,
};

fn small(company: u32) -> ErpOptions {
    ErpOptions { rows: 3_000, seed: 7, company }
}

async fn made(options: &ErpOptions) -> (TempDir, std::path::PathBuf, Vec<Expected>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("erp.sqlite");
    let contents = generate(&path, options, |_| {}).await.unwrap();
    (folder, path, contents)
}

async fn open(path: &Path) -> SqliteConnection {
    let connect = SqliteConnectOptions::new().filename(path).create_if_missing(false);
    SqliteConnection::connect_with(&connect).await.unwrap()
}

async fn number(conn: &mut SqliteConnection, sql: &str) -> i64 {
    sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(conn).await.unwrap().get(0)
}

/// SHA-256 of every row of a table, in order, with the storage class of every value.
async fn hash(conn: &mut SqliteConnection, table: &str) -> Sha256Digest {
    let columns = columns(conn, table).await.unwrap();
    let values: Vec<_> = columns.iter().map(|c| format!("typeof({0}) || quote({0})", quote(&c.name))).collect();
    let sql = format!("SELECT {} FROM {} ORDER BY 1", values.join(" || ' ' || "), quote(table));
    let mut hasher = Sha256Hasher::new();
    for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(conn).await.unwrap() {
        hasher.update(row.get::<String, _>(0).as_bytes());
        hasher.update(b"\n");
    }
    hasher.finish()
}

async fn hashes(path: &Path) -> Vec<Sha256Digest> {
    let mut conn = open(path).await;
    let mut hashes = Vec::new();
    for table in TABLES {
        hashes.push(hash(&mut conn, table).await);
    }
    hashes
}

/// Reads every value back and sums it as text, which shares nothing with how the generator sums.
async fn counted(path: &Path) -> Vec<Expected> {
    let mut conn = open(path).await;
    let mut contents = Vec::new();
    for table in TABLES {
        let rows = number(&mut conn, &format!("SELECT COUNT(*) FROM {table}")).await;
        let mut totals = Vec::new();
        for column in columns(&mut conn, table).await.unwrap() {
            let name = quote(&column.name);
            let text = match column.kind {
                Kind::Integer => format!("CAST({name} AS TEXT)"),
                Kind::Decimal(scale) => format!("printf('%.{scale}f', {name})"),
                Kind::ExactText(_) => name.clone(),
                _ => continue,
            };
            let sql = format!("SELECT {text} FROM {table} WHERE {name} IS NOT NULL");
            let mut sum = DecimalSum::new();
            for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut conn).await.unwrap() {
                sum.add_str(row.get(0)).unwrap();
            }
            totals.push(Total { column: column.name, count: sum.count(), sum: sum.finish() });
        }
        contents.push(Expected { table: (*table).to_owned(), rows: u64::try_from(rows).unwrap(), totals });
    }
    contents
}

#[tokio::test]
async fn the_same_seed_gives_the_same_company_and_another_one_another() {
    let (_first, first, contents) = made(&small(1)).await;
    let (_again, again, same) = made(&small(1)).await;
    let (_other, other, _) = made(&small(2)).await;
    assert_eq!(contents, same);
    let (first, other) = (hashes(&first).await, hashes(&other).await);
    assert_eq!(first, hashes(&again).await);
    for ((table, one), two) in TABLES.iter().zip(first).zip(other) {
        // The buildings are the same for all companies, and nothing is nothing.
        assert_eq!(one == two, ["warehouses", "serial_numbers"].contains(table), "{table}");
    }
}

#[tokio::test]
async fn rows_and_totals_are_what_the_database_holds() {
    let (_folder, path, contents) = made(&small(1)).await;
    assert_eq!(contents, counted(&path).await);
    assert_eq!(contents.iter().map(|expected| expected.table.as_str()).collect::<Vec<_>>(), TABLES);
    let sales = &contents[8];
    assert_eq!((sales.table.as_str(), sales.rows), ("sales", 3_000));
    assert!(!sales.sum("amount").unwrap().is_zero());
    let empty = contents.iter().filter(|expected| expected.rows == 0).map(|expected| expected.table.as_str());
    assert_eq!(empty.collect::<Vec<_>>(), ["serial_numbers"]);
}

#[tokio::test]
async fn the_database_is_sound_and_has_exactly_the_listed_tables() {
    let (_folder, path, _) = made(&small(1)).await;
    let mut conn = open(&path).await;
    let tables = sqlx::query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid");
    let tables: Vec<String> = tables.fetch_all(&mut conn).await.unwrap().iter().map(|row| row.get(0)).collect();
    let (mut found, mut listed) = (tables, TABLES.iter().chain([&IMPORT_TABLE]).copied().collect::<Vec<_>>());
    found.sort();
    listed.sort_unstable();
    assert_eq!(found, listed);
    let check = |sql| sqlx::query(sql);
    assert_eq!(check("PRAGMA integrity_check").fetch_one(&mut conn).await.unwrap().get::<String, _>(0), "ok");
    assert!(check("PRAGMA foreign_key_check").fetch_all(&mut conn).await.unwrap().is_empty());
    assert_eq!(check("PRAGMA journal_mode").fetch_one(&mut conn).await.unwrap().get::<String, _>(0), "wal");
}

#[tokio::test]
async fn every_value_fits_the_type_its_column_is_declared_with() {
    let (_folder, path, _) = made(&small(1)).await;
    touch(&path, &TouchOptions { prices: u32::MAX, ..TouchOptions::default() }).await.unwrap();
    let mut conn = open(&path).await;
    let mut checked = 0;
    for table in TABLES {
        let declared = sqlx::query("SELECT name, type FROM pragma_table_info(?)").bind(table).fetch_all(&mut conn).await.unwrap();
        for (name, declared) in declared.iter().map(|row| (quote(row.get(0)), row.get::<String, _>(1))) {
            let Some((base, size)) = declared.trim_end_matches(')').split_once('(') else { continue };
            let broken = match size.split_once(',') {
                Some((precision, scale)) => {
                    let digits = precision.parse::<usize>().unwrap() - scale.parse::<usize>().unwrap();
                    format!("abs({name}) >= 1{}", "0".repeat(digits))
                }
                None => format!("length({name}) > {size}"),
            };
            assert_eq!(
                number(&mut conn, &format!("SELECT COUNT(*) FROM {table} WHERE {broken}")).await,
                0,
                "{table} {name} {base}"
            );
            checked += 1;
        }
    }
    assert!(checked > 40);
}

#[tokio::test]
async fn everything_awkward_really_occurs() {
    let (_folder, path, _) = made(&small(1)).await;
    let mut conn = open(&path).await;
    for (what, from) in [
        ("umlauts", "items WHERE name LIKE '%ü%'"),
        ("double quotes", "items WHERE instr(name, '\"')"),
        ("a text in quotes", "items WHERE name LIKE '\"%\"'"),
        ("single quotes", "customers WHERE instr(name, '''')"),
        ("line feeds", "items WHERE instr(name, char(10))"),
        ("CR LF", "items WHERE instr(name, char(13, 10))"),
        ("a lone CR", "items WHERE instr(name, char(13)) AND NOT instr(name, char(10))"),
        ("semicolons", "items WHERE instr(name, ';')"),
        ("commas", "items WHERE instr(name, ',')"),
        ("tabs", "items WHERE instr(name, char(9))"),
        ("supplementary planes", "items WHERE instr(name, char(0x1F600)) AND instr(name, char(0x20BB7))"),
        ("the last code point", "items WHERE instr(name, char(0x10FFFF))"),
        ("leading and trailing spaces", "items WHERE name LIKE '  %  '"),
        ("a control character", "items WHERE instr(name, char(26))"),
        ("a byte order mark", "items WHERE unicode(name) = 0xFEFF"),
        ("a text like NULL", "items WHERE name = 'NULL'"),
        ("empty texts", "items WHERE description = ''"),
        ("NULL texts", "items WHERE description IS NULL"),
        ("single spaces", "items WHERE name_2 = ' '"),
        ("long texts", "items WHERE length(description) = 60000"),
        ("leading zeros", "customers WHERE postcode LIKE '0%'"),
        ("empty blobs", "items WHERE typeof(picture) = 'blob' AND length(picture) = 0"),
        ("all bytes", "items WHERE length(picture) = 256"),
        ("NULL blobs", "items WHERE picture IS NULL"),
        ("whole decimals as INTEGER", "sales WHERE typeof(quantity) = 'integer'"),
        ("decimals as REAL", "sales WHERE typeof(quantity) = 'real'"),
        ("returns", "sales WHERE quantity < 0 AND amount < 0 AND is_return = 1"),
        ("NULL decimals", "sales WHERE discount_percent IS NULL"),
        ("zero decimals", "sales WHERE discount_percent = 0"),
        ("negative stock", "stock WHERE quantity < 0"),
        ("decimals beyond a double", "bill_of_material WHERE typeof(exact_factor) = 'text' AND length(exact_factor) >= 31"),
        ("negative ones of those", "bill_of_material WHERE exact_factor LIKE '-%' AND length(exact_factor) >= 32"),
        ("no end", "item_prices WHERE valid_to = '9999-12-31'"),
        ("dates before 1900", "company WHERE founded < '1900-01-01'"),
        ("old dates in a large table", "items WHERE introduced_on < '1900-01-01'"),
        ("NULL dates", "items WHERE introduced_on IS NULL"),
        ("times that no clock showed", "items WHERE created_at = '2024-03-31 02:30:00'"),
        ("milliseconds", "sales WHERE booked_at LIKE '%.___'"),
        ("microseconds and a T", "erp_notes WHERE \"geändert am\" LIKE '%T%.______'"),
        ("booleans", "sales WHERE typeof(is_return) = 'integer' AND is_return = 0"),
        ("NULL booleans", "purchase_orders WHERE confirmed IS NULL"),
        ("doubles", "items WHERE weight_kg = 0.1 + 0.2 AND weight_kg <> 0.3"),
        ("large doubles", "items WHERE weight_kg > 1e308"),
        ("small doubles", "items WHERE weight_kg > 0 AND weight_kg < 1e-320"),
        ("the largest integer", "erp_notes WHERE \"Zähler\" = 9223372036854775807"),
        ("the smallest integer", "erp_notes WHERE \"Zähler\" = -9223372036854775807 - 1"),
        ("a column without type", "pragma_table_info('erp_notes') WHERE name = 'order' AND type = ''"),
        ("a quote in a column's name", "erp_notes WHERE \"Breite 19\"\"\" > 0 AND \"select\" IS NOT NULL"),
        ("a text in the column without type", "erp_notes WHERE typeof(\"order\") = 'text' AND \"order\" = '00042'"),
    ] {
        assert!(number(&mut conn, &format!("SELECT COUNT(*) FROM {from}")).await > 0, "no {what}");
    }
    for text in super::words::AWKWARD {
        let found = sqlx::query("SELECT COUNT(*) FROM items WHERE name = ?").bind(text).fetch_one(&mut conn).await.unwrap();
        assert_eq!(found.get::<i64, _>(0), 1, "{text:?}");
    }
    let years = "SELECT COUNT(DISTINCT substr(sale_date, 1, 4)) FROM sales";
    assert_eq!(number(&mut conn, years).await, 12);
    assert!(number(&mut conn, "SELECT MAX(n) FROM (SELECT COUNT(*) n FROM sales GROUP BY order_no)").await > 1);
}

#[tokio::test]
async fn a_day_changes_three_tables_and_tells_by_how_much() {
    let (_folder, path, mut contents) = made(&small(1)).await;
    let mut before = hashes(&path).await;
    for day in ["2025-12-31", "2026-01-01", "2026-01-02", "2026-01-03", "2026-01-05"] {
        let touched = touch(&path, &TouchOptions::default()).await.unwrap();
        assert_eq!(touched.day.to_string(), day);
        touched.add_to(&mut contents).unwrap();
        assert_eq!(contents, counted(&path).await);
        let after = hashes(&path).await;
        for ((table, old), new) in TABLES.iter().zip(before).zip(&after) {
            assert_eq!(old != *new, TOUCHED.contains(table), "{table}");
        }
        before = after;
    }
    assert_eq!(contents[8].rows, 3_000 + 5 * 150);
    let mut conn = open(&path).await;
    let prices = "SELECT COUNT(*) FROM item_prices WHERE price_list = 'STD' AND valid_to = '9999-12-31'";
    assert_eq!(number(&mut conn, prices).await, 100);
    assert_eq!(number(&mut conn, "SELECT COUNT(*) - COUNT(DISTINCT order_no || '/' || line_no) FROM sales").await, 0);
}

#[tokio::test]
async fn the_same_day_is_repeatable_and_may_be_empty_or_larger_than_the_tables() {
    let (_one, one, mut contents) = made(&small(1)).await;
    let (_two, two, _) = made(&small(1)).await;
    let all = TouchOptions { sales: 10, stock: u32::MAX, prices: u32::MAX, ..TouchOptions::default() };
    let touched = touch(&one, &all).await.unwrap();
    assert_eq!(touched, touch(&two, &all).await.unwrap());
    assert_eq!(hashes(&one).await, hashes(&two).await);
    touched.add_to(&mut contents).unwrap();
    assert_eq!(contents, counted(&one).await);
    touch(&one, &TouchOptions { seed: 2, sales: 0, stock: 0, prices: 0 }).await.unwrap();
    assert_eq!(contents, counted(&one).await);
}

#[tokio::test]
async fn a_reader_keeps_its_snapshot_while_a_day_is_written() {
    let (_folder, path, _) = made(&small(1)).await;
    let mut reader = open(&path).await;
    let mut snapshot = reader.begin().await.unwrap();
    assert_eq!(number(&mut snapshot, "SELECT COUNT(*) FROM sales").await, 3_000);
    let busy = TouchOptions::default();
    let day = tokio::time::timeout(Duration::from_secs(60), touch(&path, &busy));
    day.await.expect("the writer is not blocked").unwrap();
    assert_eq!(number(&mut snapshot, "SELECT COUNT(*) FROM sales").await, 3_000);
    snapshot.commit().await.unwrap();
    assert_eq!(number(&mut reader, "SELECT COUNT(*) FROM sales").await, 3_150);
}

#[tokio::test]
async fn an_erp_without_sales_has_everything_else() {
    let options = ErpOptions { rows: 0, ..small(3) };
    let (_folder, path, mut contents) = made(&options).await;
    assert_eq!(contents, counted(&path).await);
    assert_eq!(contents[8].rows, 0);
    touch(&path, &TouchOptions::default()).await.unwrap().add_to(&mut contents).unwrap();
    assert_eq!(contents, counted(&path).await);
}

#[tokio::test]
async fn progress_rises_to_the_number_of_rows() {
    let folder = TempDir::new().unwrap();
    let mut seen = Vec::new();
    generate(&folder.path().join("erp.sqlite"), &small(1), |rows| seen.push(rows)).await.unwrap();
    assert!(seen.len() > 10 && seen.is_sorted());
    assert_eq!(seen.last(), Some(&3_000));
}

#[tokio::test]
async fn nothing_is_overwritten_and_what_a_broken_run_left_is_replaced() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("erp.sqlite");
    std::fs::write(folder.path().join("erp.sqlite.part"), "half").unwrap();
    generate(&path, &small(1), |_| {}).await.unwrap();
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["erp.sqlite"]);
    assert_eq!(generate(&path, &small(1), |_| {}).await.unwrap_err().code(), Code::FileFailed);
    let nowhere = folder.path().join("missing").join("erp.sqlite");
    assert_eq!(generate(&nowhere, &small(1), |_| {}).await.unwrap_err().code(), Code::FileFailed);
}

#[tokio::test]
async fn another_writer_is_told_apart_from_a_broken_database() {
    let (_folder, path, _) = made(&small(1)).await;
    let mut writer = open(&path).await;
    let work = writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let locked = super::touch::touch_within(&path, &TouchOptions::default(), Duration::ZERO).await.unwrap_err();
    assert_eq!((locked.code(), locked.disposition()), (Code::ErpLocked, Disposition::Retry));
    work.rollback().await.unwrap();
    touch(&path, &TouchOptions::default()).await.unwrap();
}

#[tokio::test]
async fn both_run_on_a_runtime_of_several_threads() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("erp.sqlite");
    let made = path.clone();
    let contents = tokio::spawn(async move { generate(&made, &small(1), |_| {}).await });
    assert_eq!(contents.await.unwrap().unwrap().len(), TABLES.len());
    let touched = tokio::spawn(async move { touch(&path, &TouchOptions::default()).await });
    assert_eq!(touched.await.unwrap().unwrap().changes.len(), TOUCHED.len());
}

#[tokio::test]
async fn too_many_rows_and_a_missing_or_foreign_database_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("erp.sqlite");
    let options = ErpOptions { rows: MAX_SALES_LINES + 1, ..small(1) };
    assert_eq!(generate(&path, &options, |_| {}).await.unwrap_err().code(), Code::LimitExceeded);
    assert_eq!(touch(&path, &TouchOptions::default()).await.unwrap_err().code(), Code::ErpMissing);
    std::fs::write(&path, "").unwrap();
    assert_eq!(touch(&path, &TouchOptions::default()).await.unwrap_err().code(), Code::ErpQuery);
}
