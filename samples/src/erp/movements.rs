//! Movements: years of sales, and the orders that are open now.

use std::sync::Arc;

use sqlx::SqliteConnection;
use towpath_transfer::failure::Result;

use super::{
    ErpOptions,
    calendar::{self, NEVER},
    expected::Expected,
    insert::{Inserter, Unscaled, Value, row},
    masters::{self, Item},
    random::Random,
    sizes::Sizes,
    words,
};

/// Writes sales lines one after the other: several lines make an order, and an order is of one customer and one day.
#[derive(Debug)]
pub(super) struct SalesDesk<'a> {
    random: Random,
    items: &'a [Item],
    company: u32,
    customers: u64,
    warehouses: i64,
    sale: i64,
    lines_left: i64,
    line: i64,
    order: Arc<str>,
    customer: i64,
}

impl<'a> SalesDesk<'a> {
    /// The next line is number `sale` + 1; its order takes its number from it.
    pub(super) fn new(random: Random, company: u32, items: &'a [Item], sizes: &Sizes, sale: i64) -> Self {
        Self {
            random,
            items,
            company,
            customers: u64::try_from(sizes.customers).unwrap_or(0),
            warehouses: sizes.warehouses,
            sale,
            lines_left: 0,
            line: 0,
            order: Arc::from(""),
            customer: 0,
        }
    }

    /// The current order has no further line.
    pub(super) fn close_order(&mut self) {
        self.lines_left = 0;
    }

    /// One line of the current order, or the first of a new one.
    pub(super) fn sell(&mut self, day: &Arc<str>) -> [Value; 16] {
        self.sale += 1;
        if self.lines_left == 0 {
            self.lines_left = self.random.between(1, 8);
            self.line = 0;
            self.order = Arc::from(format!("A{}-{:09}", self.company, self.sale));
            self.customer = 1 + i64::try_from(self.random.skewed(self.customers)).unwrap_or(0);
        }
        self.lines_left -= 1;
        self.line += 1;
        let random = &mut self.random;
        let at = usize::try_from(random.skewed(self.items.len() as u64)).unwrap_or(0);
        let item = self.items.get(at).copied().unwrap_or(Item { id: 1, price: 10_000, cost: None });
        let returned = random.percent(2);
        let quantity = if random.percent(10) { random.between(1, 99_999) } else { random.between(1, 50) * 1_000 };
        let quantity = if returned { -quantity } else { quantity };
        let price = item.price * random.between(90, 110) / 100;
        let discount = random.percent(60).then(|| random.pick(&[0, 0, 250, 333, 500, 1_000, 10_000]));
        let remark = words::remark(random);
        let warehouse = random.between(1, self.warehouses);
        row![
            self.sale,
            &self.order,
            self.line,
            day,
            self.customer,
            item.id,
            warehouse,
            Unscaled(quantity),
            Unscaled(price),
            discount.map(Unscaled),
            Unscaled(amount(quantity, price, discount.unwrap_or(0))),
            item.cost.map(Unscaled),
            masters::currency(self.company),
            returned,
            calendar::at(random, day),
            remark,
        ]
    }
}

/// Cents of a line: thousandths × ten-thousandths, less hundredths of a percent, rounded half away from zero.
fn amount(quantity: i64, price: i64, discount: i64) -> i64 {
    const PER_CENT: i128 = 1_000_000_000;
    let exact = i128::from(quantity) * i128::from(price) * (10_000 - i128::from(discount));
    let half = if exact < 0 { -PER_CENT / 2 } else { PER_CENT / 2 };
    i64::try_from((exact + half) / PER_CENT).unwrap_or(0)
}

/// The lines of a day on which anything is sold, at least.
const LINES_PER_DAY: usize = 10;

/// With few lines, nothing is sold on most days: orders of several lines need days of several lines. The last day counts.
fn selling_days(days: &[Arc<str>], rows: u64) -> Vec<&Arc<str>> {
    let rows = usize::try_from(rows).unwrap_or(usize::MAX).max(1);
    let step = (days.len() * LINES_PER_DAY / rows).max(1);
    days.iter().rev().step_by(step).rev().collect()
}

pub(super) async fn sales(
    conn: &mut SqliteConnection,
    options: &ErpOptions,
    sizes: &Sizes,
    items: &[Item],
    progress: &mut impl FnMut(u64),
) -> Result<Expected> {
    let random = Random::new(options.seed, options.company, "sales");
    let mut desk = SalesDesk::new(random, options.company, items, sizes, 0);
    let mut into = Inserter::open(conn, "sales").await?;
    let all_days = calendar::working_days();
    let days = selling_days(&all_days, options.rows);
    for (nth, day) in (0_u64..).zip(days.iter().copied()) {
        // The lines spread evenly over the days, to the last one.
        let until = u128::from(options.rows) * u128::from(nth + 1) / days.len().max(1) as u128;
        desk.close_order();
        while u128::from(into.rows()) < until {
            if into.push(conn, desk.sell(day)).await? {
                progress(into.rows());
            }
        }
    }
    let expected = into.finish(conn).await?;
    progress(expected.rows);
    Ok(expected)
}

pub(super) async fn sales_orders(
    conn: &mut SqliteConnection,
    options: &ErpOptions,
    sizes: &Sizes,
    items: &[Item],
) -> Result<Expected> {
    let mut random = Random::new(options.seed, options.company, "sales_orders");
    let mut into = Inserter::open(conn, "sales_orders").await?;
    for nth in 0..sizes.open_orders {
        let (order, line) = (format!("B{}-{:06}", options.company, nth / 3), nth % 3 + 1);
        let item = random.pick_item(items);
        let ordered = random.between(1, 400) * 500;
        let delivered = if random.percent(20) { ordered / 4 } else { 0 };
        let due = if random.percent(5) { NEVER.to_owned() } else { calendar::soon(&mut random) };
        let entered = calendar::at(&mut random, "2025-12-29");
        let customer = random.between(1, sizes.customers);
        let note = words::remark(&mut random);
        let (ordered, delivered, price) = (Unscaled(ordered), Unscaled(delivered), Unscaled(item.price));
        into.push(conn, row![order, line, customer, item.id, ordered, delivered, price, due, entered, note]).await?;
    }
    into.finish(conn).await
}

pub(super) async fn purchase_orders(
    conn: &mut SqliteConnection,
    options: &ErpOptions,
    sizes: &Sizes,
    items: &[Item],
) -> Result<Expected> {
    let mut random = Random::new(options.seed, options.company, "purchase_orders");
    let mut into = Inserter::open(conn, "purchase_orders").await?;
    for nth in 0..sizes.open_orders / 2 {
        let item = random.pick_item(items);
        let supplier = 70_000 + random.between(1, sizes.suppliers);
        let quantity = Unscaled(random.between(1, 2_000) * 500);
        let ordered = calendar::past(&mut random);
        let expected = random.percent(85).then(|| calendar::soon(&mut random));
        // Confirmed, refused, and not answered yet.
        let confirmed = random.percent(80).then(|| random.percent(90));
        let note = words::remark(&mut random);
        let price = item.cost.map(Unscaled);
        into.push(conn, row![500_000 + nth, supplier, item.id, quantity, price, ordered, expected, confirmed, note]).await?;
    }
    into.finish(conn).await
}

impl Random {
    fn pick_item(&mut self, items: &[Item]) -> Item {
        let at = usize::try_from(self.below(items.len() as u64)).unwrap_or(0);
        items.get(at).copied().unwrap_or(Item { id: 1, price: 10_000, cost: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_lines_fall_on_few_days_and_the_last_one_counts() {
        let days = calendar::working_days();
        for (rows, least, most) in [(0, 1, 1), (1, 1, 1), (3_000, 300, 320), (200_000, days.len(), days.len())] {
            let selling = selling_days(&days, rows);
            assert!((least..=most).contains(&selling.len()), "{rows}: {}", selling.len());
            assert_eq!(selling.last().copied(), days.last());
        }
    }

    #[test]
    fn amounts_are_rounded_to_the_cent_away_from_zero() {
        assert_eq!(amount(1_000, 12_500, 0), 125);
        assert_eq!(amount(1_000, 50, 0), 1);
        assert_eq!(amount(-1_000, 50, 0), -1);
        assert_eq!(amount(1_000, 49, 0), 0);
        assert_eq!(amount(3_000, 10_000, 333), 290);
        assert_eq!(amount(3_000, 10_000, 10_000), 0);
    }
}
