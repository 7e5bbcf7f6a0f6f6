//! The enrolled ends: agents and receivers, their keys, and whether they are revoked.

use jiff::Timestamp;
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};
use towpath_keys::{PublicKey, TokenClaims, verify_token};
use towpath_transfer::{
    AgentName, Code, Failure, TenantName,
    api::{KeyRotation, Peer, Role},
    beside::beside,
    digest::Sha256Digest,
    failure::Result,
    public_key::{Fingerprint, PublicKeyLine},
};

use super::{Registry, changed, db, parsed, rotations, time};
use crate::scope::{Caller, TenantScope};

/// The most ends of one tenant, revoked ones included.
pub const MAX_ENDS: i64 = 1_000;

/// One enrolled end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its tenant.
    pub tenant: TenantName,
    /// Its name within the tenant.
    pub name: AgentName,
    /// What it is.
    pub role: Role,
    /// The key it enrolled with.
    pub key: PublicKeyLine,
    /// The keys that have followed it.
    pub rotations: Vec<KeyRotation>,
    /// Its armoured enrolment proof.
    pub proof: String,
    /// SHA-256 of the secret it enrolled with.
    pub secret_sha256: Sha256Digest,
    /// The relay URL its proof names.
    pub relay_url: String,
    /// When it enrolled.
    pub enrolled: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

impl End {
    /// The fingerprint of the key it has now.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.newest_key().fingerprint()
    }

    /// What the other end of its tenant is told of it.
    #[must_use]
    pub fn to_peer(&self) -> Peer {
        Peer {
            name: self.name.clone(),
            role: self.role,
            public_key: self.key.clone(),
            secret_sha256: self.secret_sha256,
            relay_url: self.relay_url.clone(),
            proof: self.proof.clone(),
            rotations: self.rotations.clone(),
        }
    }

    /// The right that goes with `key`, one of its own, which somebody has just proven to hold.
    pub(crate) fn caller(self, key: &PublicKeyLine) -> Result<Caller> {
        if self.revoked.is_some() {
            return Err(Failure::park(Code::AgentRevoked, format!("{}.{} was revoked", self.tenant, self.name)));
        }
        let keys = self.keys().cloned().collect();
        Ok(Caller::proven(self.tenant, self.name, self.role, key.clone(), keys))
    }

    pub(super) fn from_row(row: &SqliteRow) -> Result<Self> {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(db("read an end"));
        let number = |column: &str| row.try_get::<Option<i64>, _>(column).map_err(db("read an end"));
        Ok(Self {
            tenant: parsed("a tenant's name", &text("tenant")?)?,
            name: parsed("an end's name", &text("name")?)?,
            role: parsed("an end's role", &text("role")?)?,
            key: parsed("an end's key", &text("key")?)?,
            rotations: Vec::new(),
            proof: text("proof")?,
            secret_sha256: parsed("the digest of a secret", &text("secret_sha256")?)?,
            relay_url: text("relay_url")?,
            enrolled: time(number("enrolled")?.unwrap_or(0))?,
            revoked: number("revoked")?.map(time).transpose()?,
        })
    }
}

/// The one answer to a user that is not known and to a key that is not its own.
fn refused() -> Failure {
    Failure::park(Code::AuthenticationRefused, "the key or token was not accepted")
}

/// By which of the end's keys a token is signed, and what it says.
fn proven_by(
    end: &End,
    token: &str,
    audience: &str,
    now: Timestamp,
    leeway: std::time::Duration,
) -> Result<(PublicKeyLine, TokenClaims)> {
    let mut told = refused();
    for line in end.live_keys(now) {
        match verify_token(token, &PublicKey::try_from(line)?, audience, now, leeway).map_err(Failure::from) {
            Ok(claims) => return Ok((line.clone(), claims)),
            // It is signed by this key, and something else is wrong with it.
            Err(failure) if failure.code() != Code::AuthenticationRefused => return Err(failure),
            Err(failure) => told = failure,
        }
    }
    Err(told)
}

impl Registry {
    /// Checks the token of a web service call and takes it, so that it cannot be used again.
    ///
    /// # Errors
    /// [`Code::AuthenticationRefused`], [`Code::ClockSkew`], [`Code::AgentRevoked`] (only to whoever holds the revoked
    /// key), [`Code::RateLimited`] beyond [`super::MAX_LIVE_TOKENS`].
    pub async fn authenticate_token(&self, token: &str, audience: &str, leeway: std::time::Duration) -> Result<Caller> {
        beside(async {
            let issuer = towpath_keys::unverified_issuer(token).map_err(Failure::from)?;
            let end = self.find_user(&issuer).await?.ok_or_else(refused)?;
            let (key, claims) = proven_by(&end, token, audience, self.clock.now(), leeway)?;
            let caller = end.caller(&key)?;
            self.take_token(&claims, leeway).await?;
            Ok(caller)
        })
        .await
    }

    /// Checks the key that an SSH login offers for `user`. The SSH library checks that the peer holds it.
    ///
    /// # Errors
    /// [`Code::AuthenticationRefused`], [`Code::AgentRevoked`].
    pub async fn authenticate_key(&self, user: &str, key: &PublicKeyLine) -> Result<Caller> {
        beside(async {
            let now = self.clock.now();
            let end = self.find_user(user).await?.filter(|end| end.live_keys(now).any(|live| live == key)).ok_or_else(refused)?;
            end.caller(key)
        })
        .await
    }

    pub(super) async fn find_user(&self, user: &str) -> Result<Option<End>> {
        let Some((tenant, name)) = user.split_once('.') else { return Ok(None) };
        let (Ok(tenant), Ok(name)) = (tenant.parse::<TenantName>(), name.parse::<AgentName>()) else { return Ok(None) };
        self.end(&TenantScope::proven(tenant), &name).await
    }

    /// One end of a tenant, revoked or not.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn end(&self, scope: &TenantScope, name: &AgentName) -> Result<Option<End>> {
        beside(async {
            let mut connection = self.pool.acquire().await.map_err(db("look for an end"))?;
            self.end_in(&mut connection, scope, name).await
        })
        .await
    }

    pub(super) async fn end_in(
        &self,
        connection: &mut SqliteConnection,
        scope: &TenantScope,
        name: &AgentName,
    ) -> Result<Option<End>> {
        let row = sqlx::query("SELECT tenant, name, role, key, proof, secret_sha256, relay_url, enrolled, revoked FROM ends WHERE tenant = ? AND name = ?")
            .bind(scope.tenant().as_str())
            .bind(name.as_str())
            .fetch_optional(&mut *connection)
            .await
            .map_err(db("look for an end"))?;
        let Some(row) = row else { return Ok(None) };
        let mut found = [End::from_row(&row)?];
        rotations::read(connection, &mut found, scope, Some(name)).await?;
        let [end] = found;
        Ok(Some(end))
    }

    /// The ends of a tenant, by name; at most [`MAX_ENDS`].
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn ends(&self, scope: &TenantScope) -> Result<Vec<End>> {
        beside(async {
            let mut connection = self.pool.acquire().await.map_err(db("list the ends"))?;
            let rows = sqlx::query("SELECT tenant, name, role, key, proof, secret_sha256, relay_url, enrolled, revoked FROM ends WHERE tenant = ? ORDER BY name LIMIT ?")
                .bind(scope.tenant().as_str())
                .bind(MAX_ENDS)
                .fetch_all(&mut *connection)
                .await
                .map_err(db("list the ends"))?;
            let mut ends = rows.iter().map(End::from_row).collect::<Result<Vec<_>>>()?;
            rotations::read(&mut connection, &mut ends, scope, None).await?;
            Ok(ends)
        })
        .await
    }

    /// The ends of a tenant that have a role and are not revoked.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn peers(&self, scope: &TenantScope, role: Role) -> Result<Vec<Peer>> {
        beside(async {
            let ends = self.ends(scope).await?;
            Ok(ends.iter().filter(|end| end.role == role && end.revoked.is_none()).map(End::to_peer).collect())
        })
        .await
    }

    /// Revokes an end; a running service ends its sessions, and with a receiver goes the landing that it has named. Repeating it
    /// changes nothing more.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn revoke(&self, scope: &TenantScope, name: &AgentName) -> Result<()> {
        beside(async {
            let mut tx = self.begin().await?;
            let done = sqlx::query("UPDATE ends SET revoked = coalesce(revoked, ?) WHERE tenant = ? AND name = ?")
                .bind(self.now())
                .bind(scope.tenant().as_str())
                .bind(name.as_str())
                .execute(&mut *tx)
                .await
                .map_err(db("revoke an end"))?;
            if done.rows_affected() == 0 {
                return Err(Failure::park(Code::NotFound, format!("tenant {scope} has no agent or receiver {name}")));
            }
            super::tenants::forget_landing(&mut tx, scope, name).await?;
            changed(&mut tx).await?;
            self.commit_noted(tx).await
        })
        .await
    }
}
