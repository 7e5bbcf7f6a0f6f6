//! A sample ERP: a wholesaler's SQLite database with years of sales, made from a seed.
//!
//! [`generate`] makes it, [`touch`] simulates a day in it, and both tell with [`Expected`] what the tables must hold, so
//! that a test or the demo can compare extract, receipt and app with something that never went through a database.
//! [`job_toml`] is the extract profile. The schema is `samples/erp/schema.sql`; its head says what is awkward about it.

mod calendar;
mod expected;
mod insert;
mod masters;
mod movements;
mod partners;
mod random;
mod schema;
mod sizes;
mod touch;
mod words;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use towpath_transfer::{Code, Failure, failure::Result};

use self::sizes::Sizes;
pub use self::{
    expected::{Expected, Total},
    schema::{DECLARED_TYPES, IMPORT_TABLE, IMPORT_TRANSFER_COLUMN, TABLES, job_toml},
    touch::{LOCK_WAIT, TOUCHED, TouchOptions, Touched, touch},
};

/// Sales lines where nothing else is asked for.
pub const DEFAULT_SALES_LINES: u64 = 200_000;
/// The most sales lines that [`generate`] makes; about 6 GB of database.
pub const MAX_SALES_LINES: u64 = 50_000_000;

/// Which ERP to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErpOptions {
    /// Number of sales lines, up to [`MAX_SALES_LINES`]. The other tables grow with it up to 200,000 and then no more.
    pub rows: u64,
    /// The same seed, rows and company give the same data.
    pub seed: u64,
    /// Number of the company (the agent's job); each has data of its own.
    pub company: u32,
}

impl Default for ErpOptions {
    fn default() -> Self {
        Self { rows: DEFAULT_SALES_LINES, seed: 1, company: 1 }
    }
}

/// Makes the sample ERP at `path`, which must not exist yet, and tells what each table of [`TABLES`] holds, in that order.
///
/// The database appears under its name only when it is whole: it is written as `<path>.part`, and what a broken run left
/// there is replaced. It is left in WAL mode, so that its writers and readers do not block each other. `progress` is told
/// the sales lines written so far, from time to time and at the end. Memory does not depend on the number of rows.
///
/// # Errors
/// `limit-exceeded` for more rows than [`MAX_SALES_LINES`]; `file-failed` where `path` exists or cannot be written.
pub async fn generate(path: &Path, options: &ErpOptions, mut progress: impl FnMut(u64)) -> Result<Vec<Expected>> {
    if options.rows > MAX_SALES_LINES {
        let message = format!("a sample ERP has at most {MAX_SALES_LINES} sales lines, not {}", options.rows);
        return Err(Failure::park(Code::LimitExceeded, message));
    }
    if tokio::fs::try_exists(path).await.map_err(failed("look for", path))? {
        let message = format!("cannot make a sample ERP at {}: there is a file already", path.display());
        return Err(Failure::park(Code::FileFailed, message));
    }
    let part = part_of(path);
    match tokio::fs::remove_file(&part).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed("replace", &part)(e)),
        _ => {}
    }
    // Nobody misses a half-made sample: no rollback journal and no fsync until it is whole.
    let connect = SqliteConnectOptions::new()
        .filename(&part)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Off)
        .synchronous(SqliteSynchronous::Off)
        .foreign_keys(false)
        .disable_statement_logging();
    let mut conn = SqliteConnection::connect_with(&connect).await.map_err(failed("open", &part))?;
    let mut work = conn.begin().await.map_err(failed("write", &part))?;
    sqlx::raw_sql(schema::SCHEMA).execute(&mut *work).await.map_err(failed("make the tables of", &part))?;
    let contents = fill(&mut work, options, &mut progress).await?;
    sqlx::raw_sql(schema::INDEXES).execute(&mut *work).await.map_err(failed("make the indexes of", &part))?;
    work.commit().await.map_err(failed("write", &part))?;
    let settle = "PRAGMA synchronous = FULL; PRAGMA journal_mode = WAL;";
    sqlx::raw_sql(settle).execute(&mut conn).await.map_err(failed("finish", &part))?;
    conn.close().await.map_err(failed("finish", &part))?;
    tokio::fs::rename(&part, path).await.map_err(failed("rename to its final name", &part))?;
    Ok(contents)
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn failed<E>(what: &'static str, path: &Path) -> impl FnOnce(E) -> Failure + use<E>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let message = format!("cannot {what} the sample ERP {}", path.display());
    move |e| Failure::park(Code::FileFailed, message).caused_by(e)
}

/// Fills every table, in the order of [`TABLES`].
async fn fill(conn: &mut SqliteConnection, options: &ErpOptions, progress: &mut impl FnMut(u64)) -> Result<Vec<Expected>> {
    let sizes = Sizes::of(options.rows);
    let company = masters::company(conn, options).await?;
    let (items, catalogue) = masters::items(conn, options, &sizes).await?;
    Ok(vec![
        company,
        items,
        masters::item_prices(conn, options, &catalogue).await?,
        masters::warehouses(conn, &sizes).await?,
        masters::stock(conn, options, &sizes, &catalogue).await?,
        partners::suppliers(conn, options, &sizes).await?,
        partners::supplier_items(conn, options, &sizes, &catalogue).await?,
        partners::customers(conn, options, &sizes).await?,
        movements::sales(conn, options, &sizes, &catalogue, progress).await?,
        movements::sales_orders(conn, options, &sizes, &catalogue).await?,
        movements::purchase_orders(conn, options, &sizes, &catalogue).await?,
        partners::bill_of_material(conn, options, &catalogue).await?,
        partners::serial_numbers(conn).await?,
        partners::erp_notes(conn, options, &sizes).await?,
    ])
}
