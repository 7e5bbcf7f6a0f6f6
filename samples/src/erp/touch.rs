//! A day in the ERP: new sales, changed stock, a few new prices; every other table stays as it was.

use std::{path::Path, time::Duration};

use jiff::civil::Date;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use towpath_transfer::{Code, Failure, decimal::Decimal, failure::Result};

use super::{
    calendar::{self, NEVER},
    expected::{Expected, Total},
    insert::{Inserter, Unscaled, row},
    masters::Item,
    movements::SalesDesk,
    random::Random,
    sizes::Sizes,
};

/// The tables that [`touch`] changes.
pub const TOUCHED: &[&str] = &["sales", "stock", "item_prices"];

/// How much happens in a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TouchOptions {
    /// The same seed on the same day does the same.
    pub seed: u64,
    /// New sales lines.
    pub sales: u32,
    /// Stock quantities that change; at most as many as there are.
    pub stock: u32,
    /// Items that get a new price; at most as many as there are.
    pub prices: u32,
}

impl Default for TouchOptions {
    fn default() -> Self {
        Self { seed: 1, sales: 150, stock: 60, prices: 15 }
    }
}

/// What a day has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// The day; the working day after the last one with sales.
    pub day: Date,
    /// By how much rows and totals of the tables in [`TOUCHED`] have changed.
    pub changes: Vec<Expected>,
}

impl Touched {
    /// Brings what the tables held before up to date.
    ///
    /// # Errors
    /// As [`Expected::add`].
    pub fn add_to(&self, contents: &mut [Expected]) -> Result<()> {
        for change in &self.changes {
            for expected in contents.iter_mut().filter(|expected| expected.table == change.table) {
                expected.add(change)?;
            }
        }
        Ok(())
    }
}

/// How long [`touch`] waits for another writer.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Simulates a day in the ERP at `path`, in one transaction. Readers are not blocked and see all of it or nothing.
///
/// # Errors
/// `erp-missing` where there is no database, `erp-locked` where another program writes for longer than [`LOCK_WAIT`],
/// `erp-query` where it is not a sample ERP.
pub async fn touch(path: &Path, options: &TouchOptions) -> Result<Touched> {
    touch_within(path, options, LOCK_WAIT).await
}

pub(super) async fn touch_within(path: &Path, options: &TouchOptions, wait: Duration) -> Result<Touched> {
    let connect = SqliteConnectOptions::new().filename(path).create_if_missing(false).busy_timeout(wait);
    let mut conn = SqliteConnection::connect_with(&connect)
        .await
        .map_err(|e| Failure::park(Code::ErpMissing, format!("cannot open the sample ERP {}", path.display())).caused_by(e))?;
    let mut work = conn.begin_with("BEGIN IMMEDIATE").await.map_err(failed("begin a day"))?;
    let touched = day(&mut work, options).await?;
    work.commit().await.map_err(failed("end a day"))?;
    conn.close().await.map_err(failed("end a day"))?;
    Ok(touched)
}

fn failed(what: &'static str) -> impl FnOnce(sqlx::Error) -> Failure {
    move |e| {
        let message = format!("cannot {what} in the sample ERP");
        // SQLite's primary result code 5 is SQLITE_BUSY; extended codes carry it in their low byte.
        let code = e.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<u32>().ok());
        if code.is_some_and(|code| code & 0xff == 5) {
            return Failure::retry(Code::ErpLocked, message).caused_by(e);
        }
        Failure::park(Code::ErpQuery, message).caused_by(e)
    }
}

async fn day(conn: &mut SqliteConnection, options: &TouchOptions) -> Result<Touched> {
    let last: Option<String> = scalar(conn, "SELECT MAX(sale_date) FROM sales").await?;
    let last = last.and_then(|text| text.parse().ok()).unwrap_or(calendar::LAST_DAY);
    let day = calendar::next_working_day(last);
    let company = u32::try_from(scalar::<i64>(conn, "SELECT company_id FROM company").await?).unwrap_or(0);
    let random = |topic: &str| Random::new(options.seed, company, &format!("{day} {topic}"));
    let changes = vec![
        sell(conn, day, company, options.sales, random("sales")).await?,
        move_stock(conn, day, options.stock, random("stock")).await?,
        raise_prices(conn, day, options.prices, random("prices")).await?,
    ];
    Ok(Touched { day, changes })
}

async fn sell(conn: &mut SqliteConnection, day: Date, company: u32, lines: u32, random: Random) -> Result<Expected> {
    const ITEMS: &str = "SELECT i.item_id, CAST(ROUND(p.price * 10000) AS INTEGER), CAST(ROUND(i.cost_price * 10000) AS INTEGER) \
        FROM items i JOIN item_prices p ON p.item_id = i.item_id AND p.price_list = 'STD' AND p.valid_to = '9999-12-31' \
        ORDER BY i.item_id";
    let items = sqlx::query(ITEMS).fetch_all(&mut *conn).await.map_err(failed("read the prices"))?;
    let items: Vec<Item> = items.iter().map(|row| Item { id: row.get(0), price: row.get(1), cost: row.get(2) }).collect();
    let last = scalar::<Option<i64>>(conn, "SELECT MAX(sale_id) FROM sales").await?.unwrap_or(0);
    let customers = scalar(conn, "SELECT COUNT(*) FROM customers").await?;
    let warehouses = scalar(conn, "SELECT COUNT(*) FROM warehouses").await?;
    let sizes = Sizes { customers, warehouses, ..Sizes::of(0) };
    let mut desk = SalesDesk::new(random, company, &items, &sizes, last);
    let mut into = Inserter::open(conn, "sales").await?;
    let day = calendar::text(day);
    for _ in 0..lines {
        into.push(conn, desk.sell(&day)).await?;
    }
    into.finish(conn).await
}

async fn move_stock(conn: &mut SqliteConnection, day: Date, changes: u32, mut random: Random) -> Result<Expected> {
    let ids: i64 = scalar(conn, "SELECT COUNT(*) FROM stock").await?;
    let (mut sum, day) = (0_i128, day.to_string());
    for id in distinct(&mut random, ids, changes) {
        let old: i64 = sqlx::query("SELECT CAST(ROUND(quantity * 1000) AS INTEGER) FROM stock WHERE stock_id = ?")
            .bind(id)
            .fetch_one(&mut *conn)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(failed("read the stock"))?;
        let change = if random.percent(70) { -random.between(1, 20_000) } else { random.between(1, 80) * 1_000 };
        sqlx::query("UPDATE stock SET quantity = ?, changed_at = ? WHERE stock_id = ?")
            .bind((old + change) as f64 / 1_000.0)
            .bind(calendar::at(&mut random, &day))
            .bind(id)
            .execute(&mut *conn)
            .await
            .map_err(failed("change the stock"))?;
        sum += i128::from(change);
    }
    let sum = Decimal::new(sum, 3).map_err(|e| Failure::park(Code::LimitExceeded, "cannot sum the stock").caused_by(e))?;
    Ok(Expected { table: "stock".into(), rows: 0, totals: vec![Total { column: "quantity".into(), count: 0, sum }] })
}

async fn raise_prices(conn: &mut SqliteConnection, day: Date, changes: u32, mut random: Random) -> Result<Expected> {
    let items: i64 = scalar(conn, "SELECT COUNT(*) FROM items").await?;
    let mut next: i64 = scalar(conn, "SELECT MAX(price_id) FROM item_prices").await?;
    let mut into = Inserter::open(conn, "item_prices").await?;
    let day = calendar::text(day);
    for item in distinct(&mut random, items, changes) {
        let (id, old): (i64, i64) = sqlx::query_as(
            "SELECT price_id, CAST(ROUND(price * 10000) AS INTEGER) FROM item_prices \
             WHERE item_id = ? AND price_list = 'STD' AND valid_to = '9999-12-31'",
        )
        .bind(item)
        .fetch_one(&mut *conn)
        .await
        .map_err(failed("read the prices"))?;
        sqlx::query("UPDATE item_prices SET valid_to = ? WHERE price_id = ?")
            .bind(day.as_ref())
            .bind(id)
            .execute(&mut *conn)
            .await
            .map_err(failed("end a price"))?;
        next += 1;
        let price = Unscaled(old + old * random.between(1, 9) / 100 + 1);
        into.push(conn, row![next, item, "STD", Unscaled(0), price, &day, NEVER]).await?;
    }
    into.finish(conn).await
}

/// Up to `count` different ids of 1 to `last`: every id from a drawn one on, in equal steps.
fn distinct(random: &mut Random, last: i64, count: u32) -> impl Iterator<Item = i64> + use<> {
    let count = i64::from(count).min(last);
    let step = if count > 0 { last / count } else { 0 };
    let start = random.between(0, (last - 1).max(0));
    (0..count).map(move |nth| 1 + (start + nth * step) % last)
}

async fn scalar<T>(conn: &mut SqliteConnection, sql: &'static str) -> Result<T>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    let row = sqlx::query(sql).fetch_one(conn).await.map_err(failed("look up the last day"))?;
    row.try_get(0).map_err(failed("look up the last day"))
}
