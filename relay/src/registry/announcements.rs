//! Which announcement of the relay's keys each end has pinned, as it has said itself.

use std::fmt;

use jiff::Timestamp;
use sqlx::{Row as _, Sqlite, Transaction};
use towpath_transfer::{AgentName, TenantName, api::Role, beside::beside, failure::Result};

use super::{Registry, commit, db, parsed, time};
use crate::scope::Caller;

/// An end that is enrolled and not revoked, and how far it follows the relay's announcements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    /// Its tenant.
    pub tenant: TenantName,
    /// Its name within the tenant.
    pub name: AgentName,
    /// What it is.
    pub role: Role,
    /// The announcement it has pinned; 0 where it has not said so yet.
    pub pinned: u64,
    /// When it said so last that this had changed.
    pub since: Option<Timestamp>,
}

impl fmt::Display for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.tenant, self.name)
    }
}

impl Registry {
    /// Notes that an end has pinned the announcement of this serial. The newest word counts, also where the serial is lower: an
    /// end that was restored from a backup has pinned what it says.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`].
    pub async fn announcement_pinned(&self, caller: &Caller, serial: u64) -> Result<()> {
        beside(async {
            let (tenant, name) = (caller.scope().tenant().clone(), caller.name().clone());
            let serial = i64::try_from(serial).unwrap_or(i64::MAX);
            let known: Option<i64> = sqlx::query_scalar("SELECT serial FROM pinned_announcements WHERE tenant = ? AND name = ?")
                .bind(tenant.as_str())
                .bind(name.as_str())
                .fetch_optional(&self.pool)
                .await
                .map_err(db("look for what an end has pinned"))?;
            // Every end asks every hour, and mostly for nothing new.
            if known.unwrap_or(0) == serial {
                return Ok(());
            }
            let mut tx = self.begin().await?;
            sqlx::query("INSERT INTO pinned_announcements (tenant, name, serial, at) VALUES (?, ?, ?, ?) ON CONFLICT (tenant, name) DO UPDATE SET serial = excluded.serial, at = excluded.at")
                .bind(tenant.as_str())
                .bind(name.as_str())
                .bind(serial)
                .bind(self.now())
                .execute(&mut *tx)
                .await
                .map_err(db("note what an end has pinned"))?;
            commit(tx).await
        })
        .await
    }

    /// The ends that are not revoked, those that are furthest behind first, at most `limit`.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`].
    pub async fn followers(&self, limit: u32) -> Result<Vec<Follower>> {
        beside(async { self.followers_below(i64::MAX as u64, limit).await }).await
    }

    /// Of [`Registry::followers`] those that have not pinned the announcement `serial` or a later one.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`].
    pub async fn followers_below(&self, serial: u64, limit: u32) -> Result<Vec<Follower>> {
        beside(async {
            let sql = "SELECT e.tenant, e.name, e.role, coalesce(p.serial, 0) AS serial, p.at FROM ends e
                       LEFT JOIN pinned_announcements p ON p.tenant = e.tenant AND p.name = e.name
                       WHERE e.revoked IS NULL AND coalesce(p.serial, 0) < ? ORDER BY 4, 1, 2 LIMIT ?";
            let rows = sqlx::query(sql)
                .bind(i64::try_from(serial).unwrap_or(i64::MAX))
                .bind(limit)
                .fetch_all(&self.pool)
                .await
                .map_err(db("list what the ends have pinned"))?;
            let what = "read what an end has pinned";
            rows.iter()
                .map(|row| {
                    let serial: i64 = row.try_get("serial").map_err(db(what))?;
                    let at: Option<i64> = row.try_get("at").map_err(db(what))?;
                    Ok(Follower {
                        tenant: parsed("a tenant's name", row.try_get("tenant").map_err(db(what))?)?,
                        name: parsed("an end's name", row.try_get("name").map_err(db(what))?)?,
                        role: parsed("an end's role", row.try_get("role").map_err(db(what))?)?,
                        pinned: u64::try_from(serial).unwrap_or(0),
                        since: at.map(time).transpose()?,
                    })
                })
                .collect()
        })
        .await
    }
}

/// An end that enrols, also once more, has pinned what enrolment tells and no announcement.
pub(super) async fn forget(tx: &mut Transaction<'static, Sqlite>, tenant: &TenantName, name: &AgentName) -> Result<()> {
    let done = sqlx::query("DELETE FROM pinned_announcements WHERE tenant = ? AND name = ?")
        .bind(tenant.as_str())
        .bind(name.as_str())
        .execute(&mut **tx)
        .await;
    done.map(|_| ()).map_err(db("forget what an end had pinned"))
}
