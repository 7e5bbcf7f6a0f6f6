//! Who did what, and how it ended.

use jiff::Timestamp;
use towpath_transfer::{TenantName, failure::Result};

use super::{Registry, commit, db, parsed, time};

/// The rows of the audit trail that are kept; the oldest go first.
pub const MAX_AUDIT_ROWS: i64 = 100_000;
/// The longest text in one column of the audit trail, in characters.
const MAX_AUDIT_CHARS: usize = 500;

/// One row of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// When.
    pub at: Timestamp,
    /// Who: `operator`, an end's `<tenant>.<name>`, or an address.
    pub who: String,
    /// Whose things, where that is known.
    pub tenant: Option<TenantName>,
    /// What was tried.
    pub what: String,
    /// `ok`, or an error code.
    pub result: String,
}

impl Registry {
    /// Notes that something was tried.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`].
    pub async fn audit(&self, who: &str, tenant: Option<&TenantName>, what: &str, result: &str) -> Result<()> {
        let cut = |text: &str| text.chars().take(MAX_AUDIT_CHARS).collect::<String>();
        let mut tx = self.begin().await?;
        let id = sqlx::query("INSERT INTO audit (at, who, tenant, what, result) VALUES (?, ?, ?, ?, ?)")
            .bind(self.now())
            .bind(cut(who))
            .bind(tenant.map(TenantName::as_str))
            .bind(cut(what))
            .bind(cut(result))
            .execute(&mut *tx)
            .await
            .map_err(db("write the audit trail"))?
            .last_insert_rowid();
        sqlx::query("DELETE FROM audit WHERE id <= ?")
            .bind(id.saturating_sub(MAX_AUDIT_ROWS))
            .execute(&mut *tx)
            .await
            .map_err(db("shorten the audit trail"))?;
        commit(tx).await
    }

    /// The newest rows of the audit trail.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`].
    pub async fn audit_rows(&self, limit: u32) -> Result<Vec<AuditRow>> {
        type Row = (i64, String, Option<String>, String, String);
        let rows: Vec<Row> = sqlx::query_as("SELECT at, who, tenant, what, result FROM audit ORDER BY id DESC LIMIT ?")
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(db("read the audit trail"))?;
        let row = |(at, who, tenant, what, result): Row| {
            let tenant = tenant.as_deref().map(|name| parsed("a tenant's name", name)).transpose()?;
            Ok(AuditRow { at: time(at)?, who, tenant, what, result })
        };
        rows.into_iter().map(row).collect()
    }
}
