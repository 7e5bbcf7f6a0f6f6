//! Suppliers and customers, what is bought from whom, bills of material, and the tables nobody cleaned up.

use sqlx::SqliteConnection;
use towpath_transfer::failure::Result;

use super::{
    ErpOptions,
    calendar::{self, NEVER_AT, ODD_DAYS, SPRING_GAP},
    expected::Expected,
    insert::{Inserter, Unscaled, Value, row},
    masters::Item,
    random::Random,
    sizes::Sizes,
    words::{self, AWKWARD},
};

pub(super) async fn suppliers(conn: &mut SqliteConnection, options: &ErpOptions, sizes: &Sizes) -> Result<Expected> {
    let mut random = Random::new(options.seed, options.company, "suppliers");
    let mut into = Inserter::open(conn, "suppliers").await?;
    for id in 1..=sizes.suppliers {
        let (city, country) = words::city(&mut random);
        let terms = match id % 5 {
            0 => Some(""),
            1 => Some("30 Tage netto;\r\n2 % Skonto, 14 Tage"),
            2 => Some("ab Werk \"EXW\", frei ab 500,00 €"),
            _ => None,
        };
        let since = if id % 10 == 1 { random.pick(ODD_DAYS).to_owned() } else { calendar::past(&mut random) };
        let city = (!random.percent(5)).then_some(city);
        let values = row![70_000 + id, words::firm(&mut random), city, country, terms, since, random.percent(3)];
        into.push(conn, values).await?;
    }
    into.finish(conn).await
}

pub(super) async fn supplier_items(
    conn: &mut SqliteConnection,
    options: &ErpOptions,
    sizes: &Sizes,
    items: &[Item],
) -> Result<Expected> {
    let mut random = Random::new(options.seed, options.company, "supplier_items");
    let mut into = Inserter::open(conn, "supplier_items").await?;
    for item in items {
        let first = random.between(1, sizes.suppliers);
        for nth in 0..random.between(1, 2) {
            let supplier = 70_000 + (first + nth - 1) % sizes.suppliers + 1;
            let number = format!("{}/{:05}", random.pick(&["Ä", "BZ", " x", "0"]), random.below(100_000));
            let lead = random.percent(90).then(|| random.between(0, 120));
            let minimum = if random.percent(60) { 1_000 } else { random.between(1, 500) * 500 };
            let price = item.cost.unwrap_or(item.price / 2) + random.between(0, 99);
            let values = row![supplier, item.id, number, lead, Unscaled(minimum), Unscaled(price), nth == 0];
            into.push(conn, values).await?;
        }
    }
    into.finish(conn).await
}

pub(super) async fn customers(conn: &mut SqliteConnection, options: &ErpOptions, sizes: &Sizes) -> Result<Expected> {
    let mut random = Random::new(options.seed, options.company, "customers");
    let mut into = Inserter::open(conn, "customers").await?;
    for id in 1..=sizes.customers {
        let (city, country) = words::city(&mut random);
        let name = if id % 50 == 9 { random.pick(AWKWARD).to_owned() } else { words::firm(&mut random) };
        let street = random.percent(85).then(|| format!("{}straße {}", words::person(&mut random), random.between(1, 250)));
        // A postcode is text: the leading zero counts.
        let postcode = match random.below(10) {
            0 => None,
            1 => Some(String::new()),
            _ => Some(format!("{:05}", random.below(99_999))),
        };
        let limit = random.percent(70).then(|| Unscaled(random.between(0, 99_999_999)));
        let discount = Unscaled(random.pick(&[0, 0, 0, 250, 333, 500, 1_250]));
        let since = if id % 40 == 11 { Some(random.pick(ODD_DAYS).to_owned()) } else { Some(calendar::past(&mut random)) };
        let since = since.filter(|_| !random.percent(5));
        let values = row![id, name, street, postcode, city, country, limit, discount, since, random.percent(2)];
        into.push(conn, values).await?;
    }
    into.finish(conn).await
}

pub(super) async fn bill_of_material(conn: &mut SqliteConnection, options: &ErpOptions, items: &[Item]) -> Result<Expected> {
    let mut random = Random::new(options.seed, options.company, "bill_of_material");
    let mut into = Inserter::open(conn, "bill_of_material").await?;
    // The first fifth of the items is assembled from the rest.
    let parents = items.len() / 5;
    let children = i64::try_from(items.len() - parents).unwrap_or(0);
    let first_child = i64::try_from(parents).unwrap_or(0) + 1;
    for parent in items.iter().take(parents) {
        for position in 1..=random.between(1, 8) {
            let child = first_child + random.between(0, children - 1);
            let quantity = Unscaled(random.between(1, 40) * 250);
            into.push(conn, row![parent.id, position * 10, child, quantity, factor(parent.id, &mut random)]).await?;
        }
    }
    into.finish(conn).await
}

/// Up to 30 digits, ten of them after the point: twice as many as a double holds.
fn factor(parent: i64, random: &mut Random) -> Value {
    let wide = |random: &mut Random| i128::from(random.between(100_000_000_000_000, 999_999_999_999_999));
    match parent % 6 {
        0 => Value::Null,
        1 => Value::Decimal(3_333_333_333),
        2 => Value::Decimal(wide(random) * 1_000_000_000_000_000 + wide(random)),
        3 => Value::Decimal(-wide(random) * 1_000_000_000_000_000 - 1),
        4 => Value::Decimal(0),
        _ => Value::Decimal(i128::from(random.between(1, 50)) * 5_000_000_000),
    }
}

pub(super) async fn serial_numbers(conn: &mut SqliteConnection) -> Result<Expected> {
    Inserter::open(conn, "serial_numbers").await?.finish(conn).await
}

pub(super) async fn erp_notes(conn: &mut SqliteConnection, options: &ErpOptions, sizes: &Sizes) -> Result<Expected> {
    let mut random = Random::new(options.seed, options.company, "erp_notes");
    let mut into = Inserter::open(conn, "erp_notes").await?;
    for id in 1..=sizes.notes {
        let order = match id % 4 {
            0 => None,
            1 => Some(""),
            2 => Some(random.pick(AWKWARD)),
            _ => Some("00042"),
        };
        let counter = match id {
            // Their sum does not fit the type they have.
            1 | 2 => Some(i64::MAX),
            3 => Some(i64::MAX - 1),
            4 => Some(i64::MIN),
            _ => random.percent(80).then(|| random.between(-9_007_199_254_740_993, 9_007_199_254_740_993)),
        };
        let changed = match id % 6 {
            0 => None,
            1 => Some(NEVER_AT.to_owned()),
            2 => Some(SPRING_GAP.to_owned()),
            3 => Some("0001-01-01 00:00:00".to_owned()),
            4 => Some(format!("{}T08:15:30.123456", calendar::past(&mut random))),
            _ => Some(format!("{} 23:59:59.999", calendar::past(&mut random))),
        };
        let select = random.percent(75).then(|| random.pick(AWKWARD));
        let area = random.percent(70).then(|| Unscaled(random.between(-9_999_999_999, 9_999_999_999)));
        let width = random.percent(70).then(|| Unscaled(random.between(1, 99_999_999)));
        let reading = random.percent(80).then(|| f64::from(i32::try_from(random.between(-9_999, 9_999)).unwrap_or(0)) / 7.0);
        let attachment = random.percent(30).then(|| words::person(&mut random).as_bytes().to_vec());
        let by = words::person(&mut random);
        into.push(conn, row![id, by, order, select, area, width, counter, reading, changed, attachment]).await?;
    }
    into.finish(conn).await
}
