//! What the operator has said that one tenant may have; the configuration says the rest.

use std::time::Duration;

use sqlx::{Sqlite, Transaction};
use towpath_host::{Bytes, Pause};
use towpath_transfer::{Code, Failure, TenantName, beside::beside, failure::Result};

use super::{MAX_TENANTS, Registry, changed, corrupt, db, parsed};
use crate::scope::TenantScope;

/// The largest quota, reserve or number: what a signed 64-bit column holds.
const MOST: u64 = i64::MAX as u64;

/// What was said of one tenant; `None` is as the configuration says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TenantLimits {
    /// Bytes that it may have in the spool.
    pub quota: Option<u64>,
    /// Bytes of the spool that no other tenant can use up; without it none.
    pub reserve: Option<u64>,
    /// How long the files of a transfer stay after its end.
    pub retention: Option<Duration>,
    /// Ended transfers that the journal keeps, and their receipts with them.
    pub journal_keeps: Option<u64>,
}

/// What is said anew: of each value nothing, that it is as the configuration says, or what it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitsChange {
    /// [`TenantLimits::quota`].
    pub quota: Option<Option<u64>>,
    /// [`TenantLimits::reserve`].
    pub reserve: Option<Option<u64>>,
    /// [`TenantLimits::retention`].
    pub retention: Option<Option<Duration>>,
    /// [`TenantLimits::journal_keeps`].
    pub journal_keeps: Option<Option<u64>>,
}

/// What there is to be shared out, as the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of all tenants together.
    pub total: u64,
    /// Bytes of a tenant of which nothing else is said.
    pub quota: u64,
}

impl TenantLimits {
    /// The same after a change.
    #[must_use]
    pub fn with(self, change: &LimitsChange) -> Self {
        Self {
            quota: change.quota.unwrap_or(self.quota),
            reserve: change.reserve.unwrap_or(self.reserve),
            retention: change.retention.unwrap_or(self.retention),
            journal_keeps: change.journal_keeps.unwrap_or(self.journal_keeps),
        }
    }

    fn check(&self, budget: &Budget) -> Result<()> {
        let refused = |why: String| Err(Failure::park(Code::RequestInvalid, format!("these limits cannot be: {why}")));
        if self.quota == Some(0) {
            return refused("a quota is at least 1B".to_owned());
        }
        if [self.quota, self.reserve, self.journal_keeps].into_iter().flatten().any(|number| number > MOST) {
            return refused(format!("no figure is larger than {MOST}"));
        }
        let (quota, reserve) = (self.quota.unwrap_or(budget.quota), self.reserve.unwrap_or(0));
        if reserve > quota {
            let (reserve, quota) = (Bytes(reserve), Bytes(quota));
            return refused(format!("a reserve of {reserve} is more than the tenant may use, its quota of {quota}"));
        }
        Ok(())
    }
}

impl LimitsChange {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The change in the words of the command line, for the audit trail.
    #[must_use]
    pub fn in_words(&self) -> String {
        fn word<T>(name: &str, change: Option<Option<T>>, shown: impl Fn(T) -> String) -> Option<String> {
            change.map(|to| format!("{name} {}", to.map_or_else(|| "default".to_owned(), shown)))
        }
        let bytes = |bytes| Bytes(bytes).to_string();
        let words = [
            word("quota", self.quota, bytes),
            word("reserve", self.reserve, bytes),
            word("retention", self.retention, |time| Pause(time).to_string()),
            word("journal-keeps", self.journal_keeps, |number| number.to_string()),
        ];
        words.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

type Stored = (Option<i64>, Option<i64>, Option<i64>, Option<i64>);

pub(super) fn decode((quota, reserve, retention_ms, journal_keeps): Stored) -> Result<TenantLimits> {
    let number = |value: Option<i64>| value.map(u64::try_from).transpose().map_err(|e| corrupt("a tenant's limit")(e.into()));
    Ok(TenantLimits {
        quota: number(quota)?,
        reserve: number(reserve)?,
        retention: number(retention_ms)?.map(Duration::from_millis),
        journal_keeps: number(journal_keeps)?,
    })
}

/// Writes what is said of a tenant, where it can be kept.
pub(super) async fn store(
    tx: &mut Transaction<'static, Sqlite>,
    tenant: &TenantName,
    limits: &TenantLimits,
    budget: &Budget,
) -> Result<()> {
    limits.check(budget)?;
    let int = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    sqlx::query(
        "INSERT INTO tenant_limits (tenant, quota, reserve, retention_ms, journal_keeps) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET quota = ?2, reserve = ?3, retention_ms = ?4, journal_keeps = ?5",
    )
    .bind(tenant.as_str())
    .bind(limits.quota.map(int))
    .bind(limits.reserve.map(int))
    .bind(limits.retention.map(millis))
    .bind(limits.journal_keeps.map(int))
    .execute(&mut **tx)
    .await
    .map_err(db("write a tenant's limits"))?;
    if limits.reserve.is_none_or(|reserve| reserve == 0) {
        return Ok(());
    }
    let reserves: Vec<i64> = sqlx::query_scalar("SELECT reserve FROM tenant_limits WHERE reserve > 0 LIMIT ?")
        .bind(MAX_TENANTS)
        .fetch_all(&mut **tx)
        .await
        .map_err(db("add up the reserves"))?;
    let sum = reserves.into_iter().filter_map(|reserve| u64::try_from(reserve).ok()).fold(0, u64::saturating_add);
    if sum > budget.total {
        let (sum, total) = (Bytes(sum), Bytes(budget.total));
        let message = format!(
            "the reserves of all tenants together would be {sum}, more than there is (spool.limit, {total}): lower another one \
             or raise that"
        );
        return Err(Failure::park(Code::RequestInvalid, message));
    }
    Ok(())
}

impl Registry {
    /// Says anew what a tenant may have, and returns all that is said of it then. A running relay follows within seconds.
    ///
    /// # Errors
    /// [`Code::RequestInvalid`] for a quota of nothing, a reserve above the quota, and reserves that are more than there is together.
    pub async fn change_limits(&self, scope: &TenantScope, change: &LimitsChange, budget: &Budget) -> Result<TenantLimits> {
        beside(async {
            let mut tx = self.begin().await?;
            let found: Option<Stored> =
                sqlx::query_as("SELECT quota, reserve, retention_ms, journal_keeps FROM tenant_limits WHERE tenant = ?")
                    .bind(scope.tenant().as_str())
                    .fetch_optional(&mut *tx)
                    .await
                    .map_err(db("read a tenant's limits"))?;
            let limits = found.map(decode).transpose()?.unwrap_or_default().with(change);
            store(&mut tx, scope.tenant(), &limits, budget).await?;
            changed(&mut tx).await?;
            self.commit_noted(tx).await?;
            Ok(limits)
        })
        .await
    }

    /// What is said of tenants, by name; of every other tenant nothing is.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn limits(&self) -> Result<Vec<(TenantName, TenantLimits)>> {
        beside(async {
            type Named = (String, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
            let rows: Vec<Named> = sqlx::query_as(
                "SELECT tenant, quota, reserve, retention_ms, journal_keeps FROM tenant_limits ORDER BY tenant LIMIT ?",
            )
            .bind(MAX_TENANTS)
            .fetch_all(&self.pool)
            .await
            .map_err(db("list the tenants' limits"))?;
            let row = |(tenant, a, b, c, d): Named| Ok((parsed("a tenant's name", &tenant)?, decode((a, b, c, d))?));
            rows.into_iter().map(row).collect()
        })
        .await
    }
}
