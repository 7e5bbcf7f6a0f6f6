//! The tables of the audit trail, and how a trail from before it was a chain becomes one.

use sqlx::{Sqlite, Transaction};
use towpath_transfer::failure::Result;

use super::{audit::insert, db};
use crate::audit::{
    Action, MAX_DETAIL_CHARS, MAX_TEXT_CHARS,
    chain::{Link, Row},
    cut,
};

/// The rows that are read at once from an older table.
const PAGE_ROWS: i64 = 1_000;

/// Since version 4, before the old rows are taken over.
pub(super) const CHAIN: &[&str] = &[
    "ALTER TABLE audit RENAME TO audit_before",
    "CREATE TABLE audit (
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        role TEXT NOT NULL,
        name TEXT NOT NULL,
        key TEXT NOT NULL,
        address TEXT NOT NULL,
        tenant TEXT NOT NULL,
        action TEXT NOT NULL,
        detail TEXT NOT NULL,
        transfer TEXT NOT NULL,
        result TEXT NOT NULL,
        hash TEXT NOT NULL
    ) STRICT",
    "CREATE TABLE audit_anchor (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        id INTEGER NOT NULL,
        hash TEXT NOT NULL
    ) STRICT",
    "INSERT INTO audit_anchor (one, id, hash) VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000')",
];

/// The same, afterwards. They keep mistakes out; who writes the file by other means is noticed by the chain. The figures are
/// `SHORTEST_KEEP` in microseconds and `FEWEST_ROWS`.
pub(super) const CHAIN_GUARDS: &[&str] = &[
    "DROP TABLE audit_before",
    "CREATE TRIGGER audit_appends BEFORE INSERT ON audit
        WHEN NEW.id IS NOT coalesce((SELECT max(id) FROM audit), (SELECT id FROM audit_anchor)) + 1
        BEGIN SELECT RAISE(ABORT, 'the audit trail is only appended to'); END",
    "CREATE TRIGGER audit_stays BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit trail is never changed'); END",
    "CREATE TRIGGER audit_loses_its_oldest BEFORE DELETE ON audit
        WHEN OLD.id > (SELECT id FROM audit_anchor)
        BEGIN SELECT RAISE(ABORT, 'only the oldest rows of the audit trail are removed'); END",
    "CREATE TRIGGER audit_anchor_moves BEFORE UPDATE ON audit_anchor
        WHEN NEW.one IS NOT 1 OR NEW.id < OLD.id OR NOT EXISTS (
            SELECT 1 FROM audit AS last, (SELECT id, at FROM audit ORDER BY id DESC LIMIT 1) AS newest
            WHERE last.id = NEW.id AND last.hash = NEW.hash
              AND (last.at <= newest.at - 2592000000000 OR last.id <= newest.id - 1000)
        )
        BEGIN SELECT RAISE(ABORT, 'only the oldest rows of the audit trail are removed'); END",
    "CREATE TRIGGER audit_anchor_is_one BEFORE INSERT ON audit_anchor
        BEGIN SELECT RAISE(ABORT, 'the audit trail has one beginning'); END",
    "CREATE TRIGGER audit_anchor_stays BEFORE DELETE ON audit_anchor
        BEGIN SELECT RAISE(ABORT, 'the audit trail has one beginning'); END",
    "PRAGMA user_version = 4",
];

/// Makes the rows from before the first ones of the chain.
pub(super) async fn take_over(tx: &mut Transaction<'static, Sqlite>) -> Result<()> {
    type Before = (i64, i64, String, Option<String>, String, String);
    let (mut head, mut after) = (Link::first(), i64::MIN);
    loop {
        let rows: Vec<Before> =
            sqlx::query_as("SELECT id, at, who, tenant, what, result FROM audit_before WHERE id > ? ORDER BY id LIMIT ?")
                .bind(after)
                .bind(PAGE_ROWS)
                .fetch_all(&mut **tx)
                .await
                .map_err(db("read the audit trail from before"))?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.0;
        for (_, at, who, tenant, what, result) in rows {
            let (role, name) = if who == "operator" { (who, String::new()) } else { (String::new(), who) };
            let row = Row {
                id: 0,
                at,
                role,
                name: cut(&name, MAX_TEXT_CHARS),
                key: String::new(),
                address: String::new(),
                tenant: tenant.unwrap_or_default(),
                action: Action::Earlier.to_string(),
                detail: cut(&what, MAX_DETAIL_CHARS),
                transfer: String::new(),
                result: cut(&result, MAX_TEXT_CHARS),
                hash: String::new(),
            };
            head = insert(tx, head, row).await?;
        }
    }
}
