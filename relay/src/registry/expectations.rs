//! By when each agent's jobs are expected, as the agents have said themselves.

use jiff::Timestamp;
use sqlx::{Row as _, Sqlite, Transaction, sqlite::SqliteRow};
use towpath_transfer::{AgentName, JobName, TenantName, api::Expectations, beside::beside, failure::Result};

use super::{Registry, commit, db, parsed, time};
use crate::scope::AgentScope;

/// The most jobs of all agents together that are looked at; the first ones by tenant, agent and job.
pub const MAX_EXPECTED: u32 = 100_000;

/// One job of an agent that is enrolled and not revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The tenant.
    pub tenant: TenantName,
    /// The agent.
    pub agent: AgentName,
    /// The job.
    pub job: JobName,
    /// By when it must be here; absent where nothing is expected.
    pub by: Option<Timestamp>,
    /// When the agent has said so, or has said again that nothing has changed.
    pub heard: Timestamp,
}

impl Expected {
    /// Whether it should be here and is not.
    #[must_use]
    pub fn is_late(&self, now: Timestamp) -> bool {
        self.by.is_some_and(|by| by < now)
    }

    fn from_row(row: &SqliteRow) -> Result<Self> {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(db("read what is expected"));
        let by: Option<i64> = row.try_get("expected_by").map_err(db("read what is expected"))?;
        Ok(Self {
            tenant: parsed("a tenant's name", &text("tenant")?)?,
            agent: parsed("an agent's name", &text("name")?)?,
            job: parsed("a job's name", &text("job")?)?,
            by: by.map(time).transpose()?,
            heard: time(row.try_get("heard").map_err(db("read what is expected"))?)?,
        })
    }
}

impl Registry {
    /// Keeps what an agent says of all its jobs, in the place of what it has said before.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`].
    pub async fn expect(&self, agent: &AgentScope, expectations: &Expectations) -> Result<()> {
        beside(async {
            let (tenant, name) = (agent.tenant().tenant(), agent.agent());
            let mut tx = self.begin().await?;
            forget_jobs(&mut tx, tenant, name).await?;
            sqlx::query("INSERT INTO expecting (tenant, name, heard) VALUES (?, ?, ?) ON CONFLICT (tenant, name) DO UPDATE SET heard = excluded.heard")
                .bind(tenant.as_str())
                .bind(name.as_str())
                .bind(self.now())
                .execute(&mut *tx)
                .await
                .map_err(db("note when an agent was heard of"))?;
            for expected in &expectations.jobs {
                sqlx::query("INSERT INTO expectations (tenant, name, job, expected_by) VALUES (?, ?, ?, ?)")
                    .bind(tenant.as_str())
                    .bind(name.as_str())
                    .bind(expected.job.as_str())
                    .bind(expected.expected_by.map(Timestamp::as_microsecond))
                    .execute(&mut *tx)
                    .await
                    .map_err(db("note what is expected of an agent"))?;
            }
            commit(tx).await
        })
        .await
    }

    /// Every job of every agent that is not revoked, at most [`MAX_EXPECTED`].
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`].
    pub async fn expected(&self) -> Result<Vec<Expected>> {
        beside(async {
            let sql = "SELECT x.tenant, x.name, x.job, x.expected_by, h.heard FROM expectations x
                       JOIN expecting h ON h.tenant = x.tenant AND h.name = x.name
                       JOIN ends e ON e.tenant = x.tenant AND e.name = x.name
                       WHERE e.revoked IS NULL ORDER BY 1, 2, 3 LIMIT ?";
            let rows = sqlx::query(sql).bind(MAX_EXPECTED).fetch_all(&self.pool).await.map_err(db("list what is expected"))?;
            rows.iter().map(Expected::from_row).collect()
        })
        .await
    }
}

async fn forget_jobs(tx: &mut Transaction<'static, Sqlite>, tenant: &TenantName, name: &AgentName) -> Result<()> {
    let done = sqlx::query("DELETE FROM expectations WHERE tenant = ? AND name = ?")
        .bind(tenant.as_str())
        .bind(name.as_str())
        .execute(&mut **tx)
        .await;
    done.map(|_| ()).map_err(db("forget what was expected of an agent"))
}

/// An end that enrols, also once more, has not said yet what is expected of it.
pub(super) async fn forget(tx: &mut Transaction<'static, Sqlite>, tenant: &TenantName, name: &AgentName) -> Result<()> {
    forget_jobs(tx, tenant, name).await?;
    let done = sqlx::query("DELETE FROM expecting WHERE tenant = ? AND name = ?")
        .bind(tenant.as_str())
        .bind(name.as_str())
        .execute(&mut **tx)
        .await;
    done.map(|_| ()).map_err(db("forget when an agent was heard of"))
}
