//! The ERP of a tenant: what it has, how that changes, and every state it ever had.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use towpath_testkit::seams::rows_of;
use towpath_transfer::{TenantName, beside::beside};

use crate::dice::Dice;

/// The tables: one without a key, one that is sent whole, and one of which changed rows are sent.
pub const TABLES: [&str; 3] = ["items", "stock", "moves"];
/// Rows that each table has at first.
const ROWS: u64 = 12;

/// Every table with its rows as text, sorted.
pub type Content = Vec<(&'static str, Vec<String>)>;

/// What stands in every row and file of a tenant, and nowhere else.
#[must_use]
pub fn marker(tenant: &TenantName) -> String {
    format!("only-of-{tenant}")
}

/// The statements that make the database.
#[must_use]
pub fn made(tenant: &TenantName) -> String {
    let mark = marker(tenant);
    format!(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, price DECIMAL(12,2));
         CREATE TABLE stock (item INTEGER NOT NULL, place TEXT, pieces INTEGER);
         CREATE TABLE moves (id INTEGER PRIMARY KEY, changed INTEGER NOT NULL, note TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO items SELECT i, '{mark} \"' || i || '\", ü', CASE WHEN i % 7 THEN i || '.25' END FROM n;
         INSERT INTO stock SELECT id, CASE WHEN id % 3 THEN '{mark} hall ' || id ELSE '' END, id * 3 FROM items;
         INSERT INTO moves SELECT id, id, '{mark}' FROM items;"
    )
}

/// The part of the agent's configuration that names the tables.
#[must_use]
pub fn configured(deletes: bool) -> String {
    let compare = if deletes { "1s" } else { "168h" };
    format!(
        "[[job.table]]\nname = \"items\"\n[[job.table]]\nname = \"stock\"\n[[job.table]]\nname = \"moves\"\nkey = [\"id\"]\n\
         [job.table.incremental]\nwatermark = [\"changed\"]\ncompare_keys = \"{compare}\"\n"
    )
}

/// One ERP.
#[derive(Debug)]
pub struct Erp {
    connection: SqliteConnection,
    mark: String,
    deletes: bool,
    states: Vec<Content>,
}

impl Erp {
    /// Opens the database that was made.
    ///
    /// # Panics
    /// Where that fails.
    pub async fn open(path: &Path, tenant: &TenantName, deletes: bool) -> Self {
        // What these databases lose with the power is nobody's concern here.
        let options = SqliteConnectOptions::new().filename(path).pragma("synchronous", "OFF");
        let connection = beside(SqliteConnection::connect_with(&options)).await.unwrap();
        let mut erp = Self { connection, mark: marker(tenant), deletes, states: Vec::new() };
        erp.note().await;
        erp
    }

    async fn note(&mut self) -> usize {
        let content = content(&mut self.connection).await;
        self.states.push(content);
        self.states.len() - 1
    }

    /// Changes some rows and returns the number of the state that the ERP then has.
    ///
    /// # Panics
    /// Where the database refuses.
    pub async fn change(&mut self, dice: &mut Dice) -> usize {
        let now = ROWS + self.states.len() as u64;
        let mark = &self.mark;
        let mut sql = String::new();
        for _ in 0..dice.within(1..4) {
            let one = dice.within(1..ROWS + 1);
            sql.push_str(&match dice.below(if self.deletes { 6 } else { 5 }) {
                0 => format!("UPDATE items SET price = {now} || '.50' WHERE id = {one};"),
                1 => format!("DELETE FROM stock WHERE item = {one};"),
                2 => format!("INSERT INTO stock VALUES ({one}, '{mark} yard', {now});"),
                3 => format!("INSERT INTO moves (changed, note) VALUES ({now}, '{mark} new {now}');"),
                4 => format!("UPDATE moves SET changed = {now}, note = '{mark} again {now}' WHERE id = {one};"),
                _ => format!("DELETE FROM moves WHERE id = {one};"),
            });
        }
        beside(sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection)).await.unwrap();
        self.note().await
    }

    /// What it had in a state.
    #[must_use]
    pub fn state(&self, number: usize) -> Option<&Content> {
        self.states.get(number)
    }

    /// The state it has now.
    #[must_use]
    pub fn now(&self) -> usize {
        self.states.len().saturating_sub(1)
    }
}

/// What the tables of a database have.
pub async fn content(connection: &mut SqliteConnection) -> Content {
    let mut content = Vec::new();
    for table in TABLES {
        let mut rows = beside(rows_of(connection, &format!("SELECT * FROM {table}"))).await;
        rows.sort();
        content.push((table, rows));
    }
    content
}
