//! Tenants and where their app servers take SFTP.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};
use towpath_transfer::{AgentName, Code, Failure, RemotePath, TenantName, api::Landing, beside::beside, failure::Result};

use super::{
    Registry, changed, corrupt, db,
    limits::{self, Budget, LimitsChange, TenantLimits},
    parsed, time,
};
use crate::scope::TenantScope;

/// The most tenants of one relay.
pub const MAX_TENANTS: i64 = 10_000;
/// The most host keys pinned for one app server.
const MAX_HOST_KEYS: usize = 8;

/// Who said where an app server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LandingOrigin {
    /// The relay's operator; a receiver's enrolment does not change it.
    Operator,
    /// A receiver of the tenant, when it enrolled.
    Receiver,
}

impl LandingOrigin {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Receiver => "receiver",
        }
    }
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// Its name.
    pub name: TenantName,
    /// When it was created.
    pub created: Timestamp,
    /// Where its app server takes SFTP.
    pub landing: Option<Landing>,
    /// What the operator has said that it may have.
    pub limits: TenantLimits,
}

impl Registry {
    /// Creates a tenant.
    ///
    /// # Errors
    /// [`Code::RequestInvalid`] where there is one of this name, or the landing is not usable; [`Code::LimitExceeded`]
    /// beyond [`MAX_TENANTS`].
    pub async fn create_tenant(&self, name: &TenantName, landing: Option<&Landing>) -> Result<TenantScope> {
        self.create_limited_tenant(name, landing, None).await
    }

    /// The same, with what it may have.
    ///
    /// # Errors
    /// Those of [`Registry::create_tenant`] and of [`Registry::change_limits`]; nothing is created then.
    pub async fn create_limited_tenant(
        &self,
        name: &TenantName,
        landing: Option<&Landing>,
        limits: Option<(&LimitsChange, &Budget)>,
    ) -> Result<TenantScope> {
        beside(async {
            let encoded = landing.map(encode).transpose()?;
            let by = landing.map(|_| LandingOrigin::Operator.as_str());
            let mut tx = self.begin().await?;
            let count: i64 =
                sqlx::query_scalar("SELECT count(*) FROM tenants").fetch_one(&mut *tx).await.map_err(db("count the tenants"))?;
            if count >= MAX_TENANTS {
                return Err(Failure::park(Code::LimitExceeded, format!("a relay has at most {MAX_TENANTS} tenants")));
            }
            let inserted = sqlx::query(
                "INSERT INTO tenants (name, created, landing, landing_by) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(name.as_str())
            .bind(self.now())
            .bind(encoded)
            .bind(by)
            .execute(&mut *tx)
            .await
            .map_err(db("create a tenant"))?;
            if inserted.rows_affected() == 0 {
                return Err(Failure::park(Code::RequestInvalid, format!("there is a tenant {name} already")));
            }
            if let Some((change, budget)) = limits.filter(|(change, _)| !change.is_empty()) {
                limits::store(&mut tx, name, &TenantLimits::default().with(change), budget).await?;
            }
            changed(&mut tx).await?;
            self.commit_noted(tx).await?;
            Ok(TenantScope::proven(name.clone()))
        })
        .await
    }

    /// The scope of a tenant for the operator of this machine, who owns the registry's file.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn operator_scope(&self, name: &TenantName) -> Result<TenantScope> {
        beside(async {
            let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM tenants WHERE name = ?")
                .bind(name.as_str())
                .fetch_optional(&self.pool)
                .await
                .map_err(db("look for a tenant"))?;
            let missing = || Failure::park(Code::NotFound, format!("there is no tenant {name}: see `towpath-relay tenant list`"));
            found.map(|_| TenantScope::proven(name.clone())).ok_or_else(missing)
        })
        .await
    }

    /// Every tenant, by name.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn tenants(&self) -> Result<Vec<TenantRow>> {
        beside(async {
            type Stored = (String, i64, Option<String>);
            let rows: Vec<Stored> = sqlx::query_as("SELECT name, created, landing FROM tenants ORDER BY name LIMIT ?")
                .bind(MAX_TENANTS)
                .fetch_all(&self.pool)
                .await
                .map_err(db("list the tenants"))?;
            let mut limits: HashMap<TenantName, TenantLimits> = self.limits().await?.into_iter().collect();
            let row = |(name, created, landing): Stored| {
                let landing = landing.as_deref().map(decode).transpose()?;
                let name: TenantName = parsed("a tenant's name", &name)?;
                let limits = limits.remove(&name).unwrap_or_default();
                Ok(TenantRow { name, created: time(created)?, landing, limits })
            };
            rows.into_iter().map(row).collect()
        })
        .await
    }

    /// Says where a tenant's app server is, in the operator's word, which no receiver changes.
    ///
    /// # Errors
    /// [`Code::RequestInvalid`] where the landing is not usable.
    pub async fn set_landing(&self, scope: &TenantScope, landing: &Landing) -> Result<()> {
        beside(async {
            let mut tx = self.begin().await?;
            write_landing(&mut tx, scope, landing, LandingOrigin::Operator, None).await?;
            changed(&mut tx).await?;
            self.commit_noted(tx).await
        })
        .await
    }

    /// Where a tenant's app server takes SFTP.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn landing(&self, scope: &TenantScope) -> Result<Option<Landing>> {
        beside(async {
            let found: Option<Option<String>> = sqlx::query_scalar("SELECT landing FROM tenants WHERE name = ?")
                .bind(scope.tenant().as_str())
                .fetch_optional(&self.pool)
                .await
                .map_err(db("read a tenant's app server"))?;
            found.flatten().as_deref().map(decode).transpose()
        })
        .await
    }
}

/// Says where a tenant's app server is, in the word of `receiver`, which enrols. What the operator has said stays; so does, unless this is
/// the `first` use of its code, what a receiver has. With its first use a receiver stands for the landing, also where another one has
/// named the same before.
///
/// # Errors
/// [`Code::EnrolmentUsed`] where the code was used with another landing; [`Code::RequestInvalid`] where it is not usable, or is another
/// tenant's.
pub(super) async fn name_landing(
    tx: &mut Transaction<'static, Sqlite>,
    scope: &TenantScope,
    receiver: &AgentName,
    landing: &Landing,
    first: bool,
) -> Result<()> {
    let known: Option<(Option<String>, Option<String>)> =
        sqlx::query_as("SELECT landing, landing_by FROM tenants WHERE name = ?")
            .bind(scope.tenant().as_str())
            .fetch_optional(&mut **tx)
            .await
            .map_err(db("read a tenant's app server"))?;
    let (known, by) = known.unwrap_or_default();
    if by.as_deref() == Some(LandingOrigin::Operator.as_str()) {
        tracing::warn!(tenant = %scope, "a receiver's landing was ignored: the operator has named another app server");
        return Ok(());
    }
    match known.as_deref().map(decode).transpose()? {
        Some(known) if known == *landing && !first => Ok(()),
        Some(_) if !first => {
            let message = "the enrolment code was used with another landing before: ask for a new code, or have the relay's operator say \
                           where to deliver (towpath-relay tenant app-server)";
            Err(Failure::park(Code::EnrolmentUsed, message))
        }
        _ => {
            refuse_of_others(tx, scope, landing).await?;
            write_landing(tx, scope, landing, LandingOrigin::Receiver, Some(receiver)).await
        }
    }
}

/// Refuses a landing that is the app server of another tenant, too: it lets the relay in, whose key is one for all tenants, and would take
/// this tenant's files for the other's. Only the operator can know that two tenants share a server.
async fn refuse_of_others(tx: &mut Transaction<'static, Sqlite>, scope: &TenantScope, landing: &Landing) -> Result<()> {
    let others: Vec<String> = sqlx::query_scalar("SELECT landing FROM tenants WHERE name <> ? AND landing IS NOT NULL")
        .bind(scope.tenant().as_str())
        .fetch_all(&mut **tx)
        .await
        .map_err(db("read the tenants' app servers"))?;
    for other in &others {
        let other = decode(other)?;
        let same_place = other.port == landing.port && other.host.eq_ignore_ascii_case(&landing.host);
        if same_place || landing.host_keys.iter().any(|key| other.host_keys.contains(key)) {
            let message = "the app server is known to this relay as somebody else's: have the relay's operator say where to deliver \
                           (towpath-relay tenant app-server), then enrol again";
            tracing::warn!(tenant = %scope, host = ?landing.host, "a receiver's landing was refused: it is another tenant's app server");
            return Err(Failure::park(Code::RequestInvalid, message));
        }
    }
    Ok(())
}

async fn write_landing(
    tx: &mut Transaction<'static, Sqlite>,
    scope: &TenantScope,
    landing: &Landing,
    origin: LandingOrigin,
    receiver: Option<&AgentName>,
) -> Result<()> {
    let done = sqlx::query("UPDATE tenants SET landing = ?1, landing_by = ?2, landing_of = ?3 WHERE name = ?4")
        .bind(encode(landing)?)
        .bind(origin.as_str())
        .bind(receiver.map(AgentName::as_str))
        .bind(scope.tenant().as_str())
        .execute(&mut **tx)
        .await;
    done.map(drop).map_err(db("set a tenant's app server"))
}

/// Forgets the landing that `revoked` has named: its host gets nothing more. Where an older program has not kept which receiver named
/// it, it may have been any.
pub(super) async fn forget_landing(
    tx: &mut Transaction<'static, Sqlite>,
    scope: &TenantScope,
    revoked: &AgentName,
) -> Result<()> {
    let sql = "UPDATE tenants SET landing = NULL, landing_by = NULL, landing_of = NULL
                   WHERE name = ?1 AND landing_by = 'receiver' AND coalesce(landing_of, ?2) = ?2
                   AND EXISTS (SELECT 1 FROM ends WHERE tenant = ?1 AND name = ?2 AND role = 'receiver')";
    let done = sqlx::query(sql).bind(scope.tenant().as_str()).bind(revoked.as_str()).execute(&mut **tx).await;
    done.map(drop).map_err(db("forget a tenant's app server"))
}

fn encode(landing: &Landing) -> Result<String> {
    check_landing(landing)?;
    serde_json::to_string(landing).map_err(|e| Failure::park(Code::Internal, "write a landing as JSON").caused_by(e))
}

fn decode(text: &str) -> Result<Landing> {
    serde_json::from_str(text).map_err(|e| corrupt("a landing")(e.into()))
}

/// Refuses a landing that no connection could be made to.
///
/// # Errors
/// [`Code::RequestInvalid`] with what is wrong.
pub fn check_landing(landing: &Landing) -> Result<()> {
    let refused = |why: &str| Err(Failure::park(Code::RequestInvalid, format!("the app server's address cannot be used: {why}")));
    let plain = |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if !plain(&landing.host, 253) || landing.host.contains(['/', '@', '?', '#']) {
        return refused("its host is not a name or address");
    }
    if landing.port == 0 {
        return refused("its port is 0");
    }
    if !plain(&landing.user, 128) {
        return refused("its user is not 1 to 128 printable ASCII characters");
    }
    if RemotePath::parse(landing.folder.as_bytes()).is_err() {
        return refused("its folder is not a path");
    }
    if landing.host_keys.is_empty() || landing.host_keys.len() > MAX_HOST_KEYS {
        return refused("it needs 1 to 8 host keys to pin");
    }
    Ok(())
}
