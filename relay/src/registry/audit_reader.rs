//! The audit trail, page by page.

use sqlx::{Sqlite, Transaction};
use towpath_transfer::{beside::beside, failure::Result};

use super::db;
use crate::audit::chain::{Link, Row};

/// The rows of one page of [`AuditReader`].
pub const PAGE_ROWS: i64 = 1_000;
/// Reads the trail page by page.
#[derive(Debug)]
pub struct AuditReader {
    pub(super) tx: Transaction<'static, Sqlite>,
    pub(super) before: Link,
    pub(super) after: i64,
    pub(super) last: i64,
}

impl AuditReader {
    /// The row before the first one.
    #[must_use]
    pub fn before(&self) -> Link {
        self.before
    }

    /// The next rows, at most [`PAGE_ROWS`]; none at the end.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`].
    pub async fn page(&mut self) -> Result<Vec<Row>> {
        beside(async {
            let sql = "SELECT id, at, role, name, key, address, tenant, action, detail, transfer, result, hash
                   FROM audit WHERE id > ? AND id <= ? ORDER BY id LIMIT ?";
            let rows: Vec<Row> = sqlx::query_as(sql)
                .bind(self.after)
                .bind(self.last)
                .bind(PAGE_ROWS)
                .fetch_all(&mut *self.tx)
                .await
                .map_err(db("read the audit trail"))?;
            self.after = rows.last().map_or(self.after, |row| row.id);
            Ok(rows)
        })
        .await
    }
}
