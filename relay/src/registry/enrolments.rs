//! Enrolment codes: made once, bound to the first key that uses them.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use sqlx::{Row as _, Sqlite, Transaction};
use towpath_keys::{PublicKey, verify_enrolment};
use towpath_transfer::{
    AgentName, Code, Failure, TenantName,
    api::{EnrolmentCode, EnrolmentRequest, Role},
    beside::beside,
    digest::Sha256Digest,
    failure::Result,
    public_key::PublicKeyLine,
};

use super::{
    Registry, changed, commit, db,
    ends::{End, MAX_ENDS},
    parsed, time,
};
use crate::scope::TenantScope;

/// The most codes of one tenant that can still be used.
pub const MAX_OPEN_ENROLMENTS: i64 = 1_000;
/// The longest life of a code: 90 days.
pub const MAX_ENROLMENT_LIFE: Duration = Duration::from_hours(90 * 24);
/// The bytes of a code's secret.
const SECRET_BYTES: usize = 32;
/// Names are tried as `agent`, `agent-2`, … up to this number.
const MAX_NAME_NUMBER: u32 = 2_000;

/// What a new code is for.
#[derive(Debug, Clone)]
pub struct NewEnrolment {
    /// What it enrols.
    pub role: Role,
    /// The name of the end; without one, the role's word and a number where that is taken.
    pub name: Option<AgentName>,
    /// How long it can be used; at most [`MAX_ENROLMENT_LIFE`].
    pub valid_for: Duration,
    /// The relay's public URL.
    pub relay_url: String,
    /// The pin of the relay's certificate, where that is not publicly trusted.
    pub spki_pin: Option<Sha256Digest>,
}

/// A code as the registry knows it: without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentRow {
    /// The tenant.
    pub tenant: TenantName,
    /// What it enrols.
    pub role: Role,
    /// The name the end gets.
    pub name: AgentName,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// Which key has used it.
    pub used_by: Option<PublicKeyLine>,
    /// When.
    pub used_at: Option<Timestamp>,
}

impl Registry {
    /// Makes a code. Its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`Code::RequestInvalid`] where the name is taken (names are never used again, because transfers are kept under
    /// them) or the life is too long; [`Code::LimitExceeded`] beyond [`MAX_OPEN_ENROLMENTS`] or [`MAX_ENDS`].
    pub async fn create_enrolment(&self, scope: &TenantScope, new: NewEnrolment) -> Result<(EnrolmentCode, AgentName)> {
        beside(async {
        if new.valid_for > MAX_ENROLMENT_LIFE || new.valid_for.is_zero() {
            let days = MAX_ENROLMENT_LIFE.as_secs() / 86_400;
            return Err(Failure::park(Code::RequestInvalid, format!("an enrolment code lives for up to {days} days")));
        }
        let mut secret = [0u8; SECRET_BYTES];
        self.entropy.fill(&mut secret);
        let secret = URL_SAFE_NO_PAD.encode(secret);
        let now = self.clock.now();
        let expires = now.saturating_add(new.valid_for).unwrap_or(Timestamp::MAX);
        let mut tx = self.begin().await?;
        check_room(&mut tx, scope, now).await?;
        let name = choose_name(&mut tx, scope, new.role, new.name, now).await?;
        sqlx::query("INSERT INTO enrolments (secret_sha256, tenant, role, name, relay_url, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(Sha256Digest::of(secret.as_bytes()).to_string())
            .bind(scope.tenant().as_str())
            .bind(new.role.to_string())
            .bind(name.as_str())
            .bind(&new.relay_url)
            .bind(now.as_microsecond())
            .bind(expires.as_microsecond())
            .execute(&mut *tx)
            .await
            .map_err(db("make an enrolment code"))?;
        self.with_detail(&format!("{} {name}", new.role)).commit_noted(tx).await?;
        let (relay_url, tenant, role) = (new.relay_url, scope.tenant().clone(), new.role);
        Ok((EnrolmentCode { relay_url, tenant, role, secret, spki_pin: new.spki_pin }, name))
        })
        .await
    }

    /// A tenant's codes, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn enrolments(&self, scope: &TenantScope, limit: u32) -> Result<Vec<EnrolmentRow>> {
        beside(async {
            let rows = sqlx::query(
                "SELECT role, name, created, expires, used_key, used_at FROM enrolments WHERE tenant = ? ORDER BY id DESC LIMIT ?",
            )
            .bind(scope.tenant().as_str())
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(db("list the enrolment codes"))?;
            let what = "read an enrolment code";
            rows.iter()
                .map(|row| {
                    let used: Option<String> = row.try_get("used_key").map_err(db(what))?;
                    let used_at: Option<i64> = row.try_get("used_at").map_err(db(what))?;
                    Ok(EnrolmentRow {
                        tenant: scope.tenant().clone(),
                        role: parsed("a role", row.try_get("role").map_err(db(what))?)?,
                        name: parsed("a name", row.try_get("name").map_err(db(what))?)?,
                        created: time(row.try_get("created").map_err(db(what))?)?,
                        expires: time(row.try_get("expires").map_err(db(what))?)?,
                        used_by: used.as_deref().map(|key| parsed("a key", key)).transpose()?,
                        used_at: used_at.map(time).transpose()?,
                    })
                })
                .collect()
        })
        .await
    }

    /// Forgets codes that ended longer ago than a code can live, and returns how many.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn prune_enrolments(&self) -> Result<u64> {
        beside(async {
            let old = self.clock.now().saturating_sub(MAX_ENROLMENT_LIFE).unwrap_or(Timestamp::MIN);
            let mut tx = self.begin().await?;
            let done = sqlx::query("DELETE FROM enrolments WHERE expires <= ?")
                .bind(old.as_microsecond())
                .execute(&mut *tx)
                .await
                .map_err(db("forget old enrolment codes"))?;
            commit(tx).await?;
            Ok(done.rows_affected())
        })
        .await
    }

    /// Uses a code. The first key that does so is enrolled; the same key gets the same end again until the code expires. A receiver's
    /// landing is taken with the first use, and later only where there is none: what proves a key says nothing about the landing, and
    /// everybody in the tenant is told the proof.
    ///
    /// # Errors
    /// [`Code::EnrolmentUnknown`], [`Code::EnrolmentExpired`], [`Code::EnrolmentUsed`] by another key or with another landing,
    /// [`Code::EnrolmentProofInvalid`], [`Code::KeyInvalid`], [`Code::AgentRevoked`].
    pub async fn redeem(&self, request: &EnrolmentRequest) -> Result<End> {
        beside(async {
            let key = PublicKey::try_from(&request.public_key)?;
            let secret = Sha256Digest::of(request.secret.as_bytes());
            let mut tx = self.begin().await?;
            let sql =
                "SELECT id, name, relay_url, expires, used_key FROM enrolments WHERE secret_sha256 = ? AND tenant = ? AND role = ?";
            let row = sqlx::query(sql)
                .bind(secret.to_string())
                .bind(request.tenant.as_str())
                .bind(request.role.to_string())
                .fetch_optional(&mut *tx)
                .await
                .map_err(db("look for an enrolment code"))?;
            let unknown = || Failure::park(Code::EnrolmentUnknown, "this relay does not know the enrolment code");
            let row = row.ok_or_else(unknown)?;
            let what = db("read an enrolment code");
            let expires: i64 = row.try_get("expires").map_err(&what)?;
            if expires <= self.now() {
                return Err(Failure::park(Code::EnrolmentExpired, "the enrolment code is too old: ask for a new one"));
            }
            let used: Option<String> = row.try_get("used_key").map_err(&what)?;
            if used.as_ref().is_some_and(|used| *used != request.public_key.to_string()) {
                return Err(Failure::park(Code::EnrolmentUsed, "another key has used the enrolment code: ask for a new one"));
            }
            let relay_url: String = row.try_get("relay_url").map_err(&what)?;
            verify_enrolment(&key, &secret, &relay_url, request.proof.as_bytes())?;
            let name: AgentName = parsed("an end's name", row.try_get("name").map_err(&what)?)?;
            let scope = TenantScope::proven(request.tenant.clone());
            let before = self.end_in(&mut tx, &scope, &name).await?;
            if before.as_ref().is_some_and(|end| end.revoked.is_some()) {
                // Before anything is taken from it, a landing least of all.
                return Err(Failure::park(Code::AgentRevoked, format!("{scope}.{name} was revoked")));
            }
            if before.is_some_and(|end| !end.live_keys(self.clock.now()).any(|live| *live == request.public_key)) {
                return Err(Failure::park(Code::AuthenticationRefused, "the key that has used the code was retired"));
            }
            super::announcements::forget(&mut tx, &request.tenant, &name).await?;
            super::expectations::forget(&mut tx, &request.tenant, &name).await?;
            if used.is_none() {
                refuse_revoked(&mut tx, &request.public_key).await?;
                let id: i64 = row.try_get("id").map_err(&what)?;
                let end = End {
                    tenant: request.tenant.clone(),
                    name: name.clone(),
                    role: request.role,
                    key: request.public_key.clone(),
                    rotations: Vec::new(),
                    proof: request.proof.clone(),
                    secret_sha256: secret,
                    relay_url,
                    enrolled: self.clock.now(),
                    revoked: None,
                };
                bind(&mut tx, id, &end).await?;
                changed(&mut tx).await?;
            }
            if let Some(landing) = &request.landing {
                super::tenants::name_landing(&mut tx, &scope, &name, landing, used.is_none()).await?;
                changed(&mut tx).await?;
            }
            commit(tx).await?;
            let end = self.end(&TenantScope::proven(request.tenant.clone()), &name).await?.ok_or_else(unknown)?;
            if end.revoked.is_some() {
                return Err(Failure::park(Code::AgentRevoked, format!("{}.{} was revoked", end.tenant, end.name)));
            }
            Ok(end)
        })
        .await
    }
}

/// A key that was revoked anywhere stays out under every name: a new end needs a new key.
async fn refuse_revoked(tx: &mut Transaction<'static, Sqlite>, key: &PublicKeyLine) -> Result<()> {
    let sql = "SELECT EXISTS (SELECT 1 FROM ends WHERE fingerprint = ?1 AND revoked IS NOT NULL)
                   OR EXISTS (SELECT 1 FROM rotations JOIN ends USING (tenant, name)
                              WHERE rotations.fingerprint = ?1 AND ends.revoked IS NOT NULL)";
    let revoked: i64 = sqlx::query_scalar(sql)
        .bind(key.fingerprint().to_string())
        .fetch_one(&mut **tx)
        .await
        .map_err(db("look for a revoked key"))?;
    if revoked != 0 {
        return Err(Failure::park(Code::AgentRevoked, "the key was revoked and cannot be enrolled again: make a new one"));
    }
    Ok(())
}

async fn check_room(tx: &mut Transaction<'static, Sqlite>, scope: &TenantScope, now: Timestamp) -> Result<()> {
    let sql = "SELECT (SELECT count(*) FROM enrolments WHERE tenant = ?1 AND used_key IS NULL AND expires > ?2),
                      (SELECT count(*) FROM ends WHERE tenant = ?1)";
    let (open, ends): (i64, i64) = sqlx::query_as(sql)
        .bind(scope.tenant().as_str())
        .bind(now.as_microsecond())
        .fetch_one(&mut **tx)
        .await
        .map_err(db("count the enrolment codes"))?;
    if open >= MAX_OPEN_ENROLMENTS || open.saturating_add(ends) >= MAX_ENDS {
        let message = format!("a tenant has at most {MAX_OPEN_ENROLMENTS} open enrolment codes and {MAX_ENDS} ends");
        return Err(Failure::park(Code::LimitExceeded, message));
    }
    Ok(())
}

async fn choose_name(
    tx: &mut Transaction<'static, Sqlite>,
    scope: &TenantScope,
    role: Role,
    wanted: Option<AgentName>,
    now: Timestamp,
) -> Result<AgentName> {
    if let Some(name) = wanted {
        if is_taken(tx, scope, &name, now).await? {
            let message = format!(
                "the name {name} is taken in tenant {scope}: by an end, or by a code that is good still (towpath-relay enrolment list); \
                 names of ends are never used again"
            );
            return Err(Failure::park(Code::RequestInvalid, message));
        }
        return Ok(name);
    }
    for number in 1..=MAX_NAME_NUMBER {
        let text = if number == 1 { role.to_string() } else { format!("{role}-{number}") };
        let name = parsed("a name", &text)?;
        if !is_taken(tx, scope, &name, now).await? {
            return Ok(name);
        }
    }
    Err(Failure::park(Code::LimitExceeded, format!("no name is left for another {role} of tenant {scope}")))
}

async fn is_taken(tx: &mut Transaction<'static, Sqlite>, scope: &TenantScope, name: &AgentName, now: Timestamp) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM ends WHERE tenant = ?1 AND name = ?2)
                   OR EXISTS (SELECT 1 FROM enrolments WHERE tenant = ?1 AND name = ?2 AND expires > ?3)";
    let taken: i64 = sqlx::query_scalar(sql)
        .bind(scope.tenant().as_str())
        .bind(name.as_str())
        .bind(now.as_microsecond())
        .fetch_one(&mut **tx)
        .await
        .map_err(db("look for a name"))?;
    Ok(taken != 0)
}

async fn bind(tx: &mut Transaction<'static, Sqlite>, enrolment: i64, end: &End) -> Result<()> {
    let at = end.enrolled.as_microsecond();
    sqlx::query("UPDATE enrolments SET used_key = ?, used_at = ? WHERE id = ?")
        .bind(end.key.to_string())
        .bind(at)
        .bind(enrolment)
        .execute(&mut **tx)
        .await
        .map_err(db("bind an enrolment code"))?;
    sqlx::query("INSERT INTO ends (tenant, name, role, key, fingerprint, proof, secret_sha256, relay_url, enrolled) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(end.tenant.as_str())
        .bind(end.name.as_str())
        .bind(end.role.to_string())
        .bind(end.key.to_string())
        .bind(end.fingerprint().to_string())
        .bind(&end.proof)
        .bind(end.secret_sha256.to_string())
        .bind(&end.relay_url)
        .bind(at)
        .execute(&mut **tx)
        .await
        .map_err(db("enrol an end"))?;
    Ok(())
}
