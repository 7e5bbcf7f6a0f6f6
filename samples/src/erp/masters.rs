//! Master data: company, items and their prices, warehouses and stock.

use sqlx::SqliteConnection;
use towpath_transfer::failure::Result;

use super::{
    ErpOptions,
    calendar::{self, NEVER, NEVER_AT, ODD_DAYS, SPRING_GAP},
    expected::Expected,
    insert::{Inserter, Unscaled, row},
    random::Random,
    sizes::Sizes,
    words::{self, AWKWARD},
};

/// What sales have to know of an item. Prices are in ten-thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) id: i64,
    pub(super) price: i64,
    pub(super) cost: Option<i64>,
}

/// A scrap of binary that is no text in any encoding.
const PICTURE: &[u8] = &[0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', 0, 0, 0xff, 0xfe, 0xc3, 0x28];

pub(super) async fn company(conn: &mut SqliteConnection, options: &ErpOptions) -> Result<Expected> {
    let mut random = Random::new(options.seed, options.company, "company");
    let mut into = Inserter::open(conn, "company").await?;
    let name = format!("{} Nr. {}", words::firm(&mut random), options.company);
    let frame = Unscaled(random.between(1, 9_999_999_999_999));
    into.push(conn, row![i64::from(options.company), name, "1848-03-18", currency(options.company), frame]).await?;
    into.finish(conn).await
}

/// The currency of a company's books.
pub(super) fn currency(company: u32) -> &'static str {
    if company.is_multiple_of(3) { "CHF" } else { "EUR" }
}

pub(super) async fn items(conn: &mut SqliteConnection, options: &ErpOptions, sizes: &Sizes) -> Result<(Expected, Vec<Item>)> {
    let mut random = Random::new(options.seed, options.company, "items");
    let mut into = Inserter::open(conn, "items").await?;
    let mut items = Vec::new();
    for id in 1..=sizes.items {
        let awkward = usize::try_from(id - 1).ok().and_then(|at| AWKWARD.get(at)).copied();
        let name = awkward.map_or_else(|| words::item_name(&mut random), ToOwned::to_owned);
        let price = random.between(100, 3_000_000);
        let cost = (!random.percent(4)).then(|| price * random.between(40, 80) / 100);
        items.push(Item { id, price, cost });
        let ean = random.percent(80).then(|| random.between(4_000_000_000_000, 4_999_999_999_999));
        let unit = random.pick(&["Stk", "m", "kg", "Pak"]);
        let category = random.between(-1, 42);
        let weight = weight(id, &mut random);
        let pack = random.percent(70).then(|| Unscaled(random.between(1, 500_000)));
        let active = !random.percent(10);
        let introduced = if id % 50 == 7 { Some(random.pick(ODD_DAYS).to_owned()) } else { Some(calendar::past(&mut random)) };
        let introduced = introduced.filter(|_| !random.percent(5));
        let discontinued = if active { random.percent(30).then(|| NEVER.to_owned()) } else { Some(calendar::past(&mut random)) };
        let day = calendar::past(&mut random);
        let created = match id % 50 {
            3 => NEVER_AT.to_owned(),
            4 => SPRING_GAP.to_owned(),
            _ => calendar::at(&mut random, &day),
        };
        let item_no = format!("{}-{id:06}", options.company);
        let values = row![
            id,
            item_no,
            name,
            name_2(id),
            description(id, &mut random),
            unit,
            ean,
            category,
            weight,
            pack,
            cost.map(Unscaled),
            active,
            introduced,
            discontinued,
            created,
            picture(id),
        ];
        into.push(conn, values).await?;
    }
    Ok((into.finish(conn).await?, items))
}

/// NULL, the empty text and a single space are three different things.
fn name_2(id: i64) -> Option<&'static str> {
    match id % 7 {
        0 => Some(""),
        1 => Some(" "),
        2 => Some("auf Rolle"),
        _ => None,
    }
}

fn description(id: i64, random: &mut Random) -> Option<String> {
    match id % 20 {
        0 => Some(String::new()),
        1 => Some(random.pick(AWKWARD).to_owned()),
        2 if id < 20 => Some(words::long_text()),
        2..=12 => Some(format!("{}.\n{}; Karton à {} Stück", words::item_name(random), random.pick(AWKWARD), random.below(900))),
        _ => None,
    }
}

fn weight(id: i64, random: &mut Random) -> Option<f64> {
    match id % 40 {
        1 => Some(0.1 + 0.2),
        2 => Some(1e-7),
        3 => Some(1.797_693_134_862_315_7e308),
        4 => Some(5e-324),
        5 => Some(-1.0 / 3.0),
        6..=30 => Some(f64::from(u32::try_from(random.below(500_000)).unwrap_or(0)) / 1_000.0),
        _ => None,
    }
}

/// NULL, no bytes at all, and bytes of every kind.
fn picture(id: i64) -> Option<Vec<u8>> {
    match id % 25 {
        1 => Some(Vec::new()),
        2 => Some(PICTURE.to_vec()),
        3 => Some((0..=u8::MAX).collect()),
        _ => None,
    }
}

pub(super) async fn item_prices(conn: &mut SqliteConnection, options: &ErpOptions, items: &[Item]) -> Result<Expected> {
    let mut random = Random::new(options.seed, options.company, "item_prices");
    let mut into = Inserter::open(conn, "item_prices").await?;
    let mut id = 0_i64;
    for item in items {
        if random.percent(40) {
            id += 1;
            let old = Unscaled(item.price * random.between(80, 99) / 100);
            let to = calendar::past(&mut random);
            into.push(conn, row![id, item.id, "STD", Unscaled(0), old, "2014-01-01", to]).await?;
        }
        id += 1;
        let from = calendar::past(&mut random);
        into.push(conn, row![id, item.id, "STD", Unscaled(0), Unscaled(item.price), from, NEVER]).await?;
        if random.percent(25) {
            id += 1;
            let (from, price) = (calendar::past(&mut random), Unscaled(item.price * 85 / 100));
            into.push(conn, row![id, item.id, "Händler", Unscaled(100_000), price, from, NEVER]).await?;
        }
    }
    into.finish(conn).await
}

const WAREHOUSES: &[(&str, &str, f64, f64)] = &[
    ("HL", "Hauptlager Köln", 50.938_361, 6.959_974),
    ("NORD", "Außenlager Lübeck \"Hafen\"", 53.866_44, 10.684_738),
    ("SÜD", "Lager München, Halle 3; Tor 2", 48.137_154, 11.576_124),
    ("CH", "Zürich", 47.376_887, 8.541_694),
    ("KONS", "Konsignation\nKunde Jäger", -33.868_82, 151.209_295_5),
    ("SPERR", "Sperrlager", 0.0, -0.1),
];

pub(super) async fn warehouses(conn: &mut SqliteConnection, sizes: &Sizes) -> Result<Expected> {
    let mut into = Inserter::open(conn, "warehouses").await?;
    for (id, (code, name, latitude, longitude)) in (1..=sizes.warehouses).zip(WAREHOUSES) {
        let opens = (id % 3 != 0).then_some(if id == 1 { "00:00:00" } else { "06:30:00" });
        into.push(conn, row![id, *code, *name, *latitude, *longitude, opens, id == 6]).await?;
    }
    into.finish(conn).await
}

pub(super) async fn stock(conn: &mut SqliteConnection, options: &ErpOptions, sizes: &Sizes, items: &[Item]) -> Result<Expected> {
    let mut random = Random::new(options.seed, options.company, "stock");
    let mut into = Inserter::open(conn, "stock").await?;
    let mut id = 0_i64;
    for item in items {
        for warehouse in 1..=sizes.warehouses {
            // Every item is in the main warehouse, and half of them in each of the others.
            if warehouse > 1 && random.percent(50) {
                continue;
            }
            id += 1;
            let quantity = match random.below(100) {
                0..=3 => -random.between(1, 25_500),
                4..=13 => 0,
                14..=80 => random.between(1, 900) * 1_000,
                _ => random.between(1, 99_999_999),
            };
            let reserved = random.percent(30).then(|| Unscaled(random.between(0, 20_000)));
            let bin = random.percent(90).then(|| format!("{}-{:02}-{}", random.pick(&["A", "B", "Ü"]), id % 60, warehouse));
            let counted = random.percent(60).then(|| calendar::past(&mut random));
            let day = calendar::past(&mut random);
            let changed = calendar::at(&mut random, &day);
            into.push(conn, row![id, item.id, warehouse, bin, Unscaled(quantity), reserved, counted, changed]).await?;
        }
    }
    into.finish(conn).await
}
