//! The profile of Tryton over a database that Tryton itself has made: what the app gets is what Tryton's own models say.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::Value;
use towpath_servers::{PASSWORD, Postgres, PostgresDatabase, READER, WRITER};
use towpath_testkit::{End, JOB, TENANT, World, query_texts};
use towpath_transfer::decimal::Decimal;

use super::{python, run};
use crate::executable;

/// The tables of the planning data contract, with their keys.
const TABLES: &[(&str, &[&str])] = &[
    ("items", &["item_id"]),
    ("locations", &["location_id"]),
    ("suppliers", &["supplier_id"]),
    ("stock_on_hand", &["item_id", "location_id"]),
    ("sales_history", &["entry_id"]),
    ("open_purchase_orders", &["line_id"]),
    ("open_sales_orders", &["line_id"]),
    ("bills_of_material", &["line_id"]),
];

/// A table by key, and each row by column; NULL is absent.
type Rows = BTreeMap<Vec<String>, BTreeMap<String, String>>;

/// Lets Tryton make a database and do some business in it, and returns what it says of itself.
fn made(database: &PostgresDatabase, folder: &Path) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/interop/tryton.py");
    let expected = folder.join("expected.json");
    let password = PASSWORD.replace(' ', "%20").replace(';', "%3B");
    let server = format!("postgresql://{WRITER}:{password}@{}:{}/", database.host, database.port);
    let mut tryton = Command::new(python());
    // Tryton asks the catalogue some hundred times; PostgreSQL takes each of these for a question that is worth compiling.
    tryton.env("TRYTOND_DATABASE__URI", server).env("PGOPTIONS", "-c jit=off").env("PYTHONDONTWRITEBYTECODE", "1");
    run(tryton.arg(script).arg(&database.name).arg(&expected));
    serde_json::from_slice(&std::fs::read(&expected).unwrap()).unwrap()
}

fn configure(end: &End, database: &PostgresDatabase) {
    end.agent.configure(&format!(
        "[receipt]\npoll = \"100ms\"\n[[job]]\nname = \"{JOB}\"\nprofile = \"tryton\"\n[job.source]\nkind = \"postgresql\"\n\
         host = \"{}\"\nport = {}\ndatabase = \"{}\"\nuser = \"{READER}\"\npassword = \"env:TOWPATH_TEST_PASSWORD\"\n\
         tls = \"verify\"\nca = \"{}\"\n",
        database.host,
        database.port,
        database.name,
        database.ca.display(),
    ));
}

/// A value as it is compared: a number without the zeros at its end, a time without those of its fraction.
fn plain(value: &Value, kind: &str) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::Bool(is) => (if *is { "1" } else { "0" }).to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(match kind {
        kind if kind.starts_with("DECIMAL") => text.parse::<Decimal>().unwrap().normalized().to_string(),
        "TIMESTAMP" if text.contains('.') => text.trim_end_matches('0').to_owned(),
        _ => text,
    })
}

fn by_key(rows: impl Iterator<Item = BTreeMap<String, String>>, key: &[&str]) -> Rows {
    rows.map(|row| (key.iter().map(|column| row[*column].clone()).collect(), row)).collect()
}

/// The app's table and Tryton's rows agree in every value of every column.
fn agree(app: &Path, table: &str, key: &[&str], expected: &Value) {
    let columns = query_texts(app, &format!("SELECT name || ' ' || type FROM pragma_table_info('{table}') ORDER BY cid"));
    let kinds: BTreeMap<&str, &str> = columns.iter().filter_map(|column| column.split_once(' ')).collect();
    let fields: Vec<String> = kinds.keys().map(|name| format!("'{name}', \"{name}\"")).collect();
    let texts = query_texts(app, &format!("SELECT json_object({}) FROM \"{table}\"", fields.join(", ")));
    let rows = |rows: Vec<Value>| -> Vec<BTreeMap<String, String>> {
        let row = |row: Value| {
            let values = row.as_object().unwrap_or_else(|| panic!("{table}: {row}"));
            let value = |(name, value): (&String, &Value)| {
                let kind = kinds.get(name.as_str()).unwrap_or_else(|| panic!("{table} has no column {name}"));
                Some((name.clone(), plain(value, kind)?))
            };
            values.iter().filter_map(value).collect()
        };
        rows.into_iter().map(row).collect()
    };
    let app = rows(texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect());
    let tryton = rows(expected.as_array().unwrap_or_else(|| panic!("Tryton says nothing of {table}")).clone());
    assert!(!tryton.is_empty(), "Tryton has no {table}");
    assert_eq!(app.len(), tryton.len(), "{table}");
    assert_eq!(by_key(app.into_iter(), key), by_key(tryton.into_iter(), key), "{table}");
}

#[test]
fn interop_tryton_s_tables_are_what_tryton_says() {
    let world = World::new(executable());
    let server = Postgres::get();
    let database = server.database();
    let expected = made(&database, world.dir.path());
    let (mut end, _) = world.end(TENANT, 1, 1);
    end.agent = end.agent.with("TOWPATH_TEST_PASSWORD", PASSWORD);
    configure(&end, &database);

    let checked = end.agent.run(&["extract", "--check", "--json"]).succeeded().json();
    for (table, _) in TABLES {
        let report = checked["tables"].as_array().unwrap().iter().find(|one| one["table"] == *table).unwrap();
        assert!(report["state"] == "complete" || report["state"] == "usable", "{report}");
    }
    assert!(checked["erp_tables"].as_array().unwrap().iter().all(|table| table.get("problem").is_none()), "{checked}");

    let _relay = world.serve_relay();
    world.create_tenant(TENANT);
    world.enrol(&end);
    let _receiver = end.receiver.serve(&["serve"]);
    let _ = end.send().succeeded();
    for (table, key) in TABLES {
        agree(&end.app(), table, key, &expected[*table]);
    }

    // A module that is not there, and a column that another version has not.
    database.run("ALTER TABLE sale_sale RENAME COLUMN warehouse TO depot; ALTER TABLE production_bom_output RENAME TO other");
    let said = end.agent.run(&["extract", "--check"]).failed_with("contract-unmet");
    for told in [
        "open_sales_orders",
        "bills_of_material",
        "the ERP's table sale_sale: it has no warehouse; it comes with the module sale",
        "the ERP's table production_bom_output: ",
    ] {
        assert!(said.stdout.contains(told), "{told}\n{}", said.stdout);
    }
}
