//! The enrolled ends: agents and receivers, their keys, and whether they are revoked.

use jiff::Timestamp;
use sqlx::{Row as _, sqlite::SqliteRow};
use towpath_keys::{PublicKey, verify_token};
use towpath_transfer::{
    AgentName, Code, Failure, TenantName,
    api::{Peer, Role},
    digest::Sha256Digest,
    failure::Result,
    public_key::{Fingerprint, PublicKeyLine},
};

use super::{Registry, changed, db, parsed, time};
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
    /// Its key.
    pub key: PublicKeyLine,
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
    /// The fingerprint of its key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
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
        }
    }

    /// The right that goes with its key, which somebody has just proven to hold.
    fn caller(self) -> Result<Caller> {
        if self.revoked.is_some() {
            return Err(Failure::park(Code::AgentRevoked, format!("{}.{} was revoked", self.tenant, self.name)));
        }
        Ok(Caller::proven(self.tenant, self.name, self.role, self.key))
    }

    pub(super) fn from_row(row: &SqliteRow) -> Result<Self> {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(db("read an end"));
        let number = |column: &str| row.try_get::<Option<i64>, _>(column).map_err(db("read an end"));
        Ok(Self {
            tenant: parsed("a tenant's name", &text("tenant")?)?,
            name: parsed("an end's name", &text("name")?)?,
            role: parsed("an end's role", &text("role")?)?,
            key: parsed("an end's key", &text("key")?)?,
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

impl Registry {
    /// Checks the token of a web service call and takes it, so that it cannot be used again.
    ///
    /// # Errors
    /// [`Code::AuthenticationRefused`], [`Code::ClockSkew`], [`Code::AgentRevoked`] (only to whoever holds the revoked
    /// key), [`Code::RateLimited`] beyond [`super::MAX_LIVE_TOKENS`].
    pub async fn authenticate_token(&self, token: &str, audience: &str, leeway: std::time::Duration) -> Result<Caller> {
        let issuer = towpath_keys::unverified_issuer(token).map_err(Failure::from)?;
        let end = self.find_user(&issuer).await?.ok_or_else(refused)?;
        let key = PublicKey::try_from(&end.key)?;
        let claims = verify_token(token, &key, audience, self.clock.now(), leeway).map_err(Failure::from)?;
        let caller = end.caller()?;
        self.take_token(&claims, leeway).await?;
        Ok(caller)
    }

    /// Checks the key that an SSH login offers for `user`. The SSH library checks that the peer holds it.
    ///
    /// # Errors
    /// [`Code::AuthenticationRefused`], [`Code::AgentRevoked`].
    pub async fn authenticate_key(&self, user: &str, key: &PublicKeyLine) -> Result<Caller> {
        let end = self.find_user(user).await?.filter(|end| end.key == *key).ok_or_else(refused)?;
        end.caller()
    }

    /// Whether the user of a session is revoked, or not known any more.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn is_revoked(&self, user: &str) -> Result<bool> {
        Ok(self.find_user(user).await?.is_none_or(|end| end.revoked.is_some()))
    }

    async fn find_user(&self, user: &str) -> Result<Option<End>> {
        let Some((tenant, name)) = user.split_once('.') else { return Ok(None) };
        let (Ok(tenant), Ok(name)) = (tenant.parse::<TenantName>(), name.parse::<AgentName>()) else { return Ok(None) };
        self.end(&TenantScope::proven(tenant), &name).await
    }

    /// One end of a tenant, revoked or not.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn end(&self, scope: &TenantScope, name: &AgentName) -> Result<Option<End>> {
        let row = sqlx::query("SELECT tenant, name, role, key, proof, secret_sha256, relay_url, enrolled, revoked FROM ends WHERE tenant = ? AND name = ?")
            .bind(scope.tenant().as_str())
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(db("look for an end"))?;
        row.as_ref().map(End::from_row).transpose()
    }

    /// The ends of a tenant, by name; at most [`MAX_ENDS`].
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn ends(&self, scope: &TenantScope) -> Result<Vec<End>> {
        let rows = sqlx::query("SELECT tenant, name, role, key, proof, secret_sha256, relay_url, enrolled, revoked FROM ends WHERE tenant = ? ORDER BY name LIMIT ?")
            .bind(scope.tenant().as_str())
            .bind(MAX_ENDS)
            .fetch_all(&self.pool)
            .await
            .map_err(db("list the ends"))?;
        rows.iter().map(End::from_row).collect()
    }

    /// The ends of a tenant that have a role and are not revoked.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn peers(&self, scope: &TenantScope, role: Role) -> Result<Vec<Peer>> {
        let ends = self.ends(scope).await?;
        Ok(ends.iter().filter(|end| end.role == role && end.revoked.is_none()).map(End::to_peer).collect())
    }

    /// Revokes an end; a running service ends its sessions. Repeating changes nothing.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn revoke(&self, scope: &TenantScope, name: &AgentName) -> Result<()> {
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
        changed(&mut tx).await?;
        self.commit_noted(tx).await
    }
}
