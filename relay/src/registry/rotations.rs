//! The keys that have followed the ones with which ends enrolled.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};
use towpath_keys::{RotatingEnd, verify_rotation};
use towpath_transfer::{
    AgentName, Code, Failure,
    api::{KeyRotation, MAX_KEY_OVERLAP, MAX_LIVE_KEYS, MAX_ROTATIONS},
    beside::beside,
    failure::Result,
    id::sftp_user,
    public_key::{Fingerprint, PublicKeyLine},
};

use super::{End, Registry, changed, commit, db, parsed, time};
use crate::scope::{Caller, TenantScope};

/// The most rotations of all ends of a tenant, whose chains its receivers are told: some 5 MB at the most, and as many lines of their
/// `allowed_signers`.
pub(super) const MAX_TENANT_ROTATIONS: i64 = 1_000;
/// By how much the clocks of an end and the relay may differ in the end of an overlap.
const OVERLAP_SLACK: SignedDuration = SignedDuration::from_mins(5);

impl End {
    /// The key it has now.
    #[must_use]
    pub fn newest_key(&self) -> &PublicKeyLine {
        self.rotations.last().map_or(&self.key, |rotation| &rotation.new_key)
    }

    /// Every key it ever had, the first one first. What they have signed stays signed.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKeyLine> {
        std::iter::once(&self.key).chain(self.rotations.iter().map(|rotation| &rotation.new_key))
    }

    /// The keys that are let in at a time: the newest, and those before it that no change has retired yet. Whoever retires a key
    /// retires those before it, too.
    pub fn live_keys(&self, now: Timestamp) -> impl Iterator<Item = &PublicKeyLine> {
        let replaced = self.rotations.iter().rev().take_while(move |rotation| rotation.old_until > now);
        std::iter::once(self.newest_key()).chain(replaced.map(|rotation| &rotation.old_key))
    }

    /// Whether it has, or had, the key with this fingerprint.
    #[must_use]
    pub fn has_key(&self, key: &Fingerprint) -> bool {
        self.keys().any(|known| known.fingerprint() == *key)
    }

    fn user(&self) -> String {
        sftp_user(&self.tenant, &self.name)
    }

    /// Why a rotation does not follow here, where it does not.
    fn check(&self, rotation: &KeyRotation) -> Result<()> {
        if self.revoked.is_some() {
            return Err(Failure::park(Code::AgentRevoked, format!("{} was revoked", self.user())));
        }
        if *self.newest_key() != rotation.old_key {
            let newest = self.newest_key().fingerprint();
            return Err(refused(&format!("the key to be replaced is not the newest one, which is {newest}")));
        }
        if rotation.old_until.subsec_nanosecond() != 0 {
            return Err(refused("the time until which the old key is good has whole seconds"));
        }
        if self.rotations.len() >= MAX_ROTATIONS {
            return Err(refused(&format!("an end changes its key at most {MAX_ROTATIONS} times; enrol it anew")));
        }
        verify_rotation(RotatingEnd { relay_url: &self.relay_url, user: &self.user() }, rotation).map(|_| ())
    }
}

fn refused(why: &str) -> Failure {
    Failure::park(Code::RotationInvalid, format!("the change of the key was refused: {why}"))
}

impl Registry {
    /// Gives the calling end a new key, after `first`, which is done only where the change is good and was not made before. The answer is
    /// what counts: where the old key was followed by this one before, that change.
    ///
    /// # Errors
    /// [`Code::RotationInvalid`] where it is not proven, does not follow from the end's newest key, names a key that is or was
    /// enrolled, would make more than [`MAX_LIVE_KEYS`] keys good at a time, or keeps the old one for more than
    /// [`MAX_KEY_OVERLAP`]; [`Code::AgentRevoked`]; those of `first`.
    pub async fn rotate(
        &self,
        caller: &Caller,
        rotation: &KeyRotation,
        first: impl Future<Output = Result<()>>,
    ) -> Result<KeyRotation> {
        let end = self.end(caller.scope(), caller.name()).await?.ok_or_else(crate::scope::not_found)?;
        if let Some(known) = known(&end, rotation) {
            return Ok(known);
        }
        let now = self.clock.now();
        let longest = SignedDuration::try_from(MAX_KEY_OVERLAP).unwrap_or(SignedDuration::MAX).saturating_add(OVERLAP_SLACK);
        if rotation.old_until.duration_since(now) > longest {
            return Err(refused("the old key would stay good for too long"));
        }
        if rotation.old_until > now && end.live_keys(now).count() >= MAX_LIVE_KEYS {
            return Err(refused(&format!("{MAX_LIVE_KEYS} keys of this end are good at the moment; wait until one is retired")));
        }
        end.check(rotation)?;
        beside(async {
            let mut connection = self.pool.acquire().await.map_err(db("look for a key"))?;
            check_room(&mut connection, caller.scope(), rotation).await
        })
        .await?;
        first.await?;
        self.add_rotation(caller.scope(), caller.name(), rotation).await
    }

    /// Does again what a registry that was put back has forgotten; `false` where there is nothing to do, or it does not follow.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn rotate_again(&self, scope: &TenantScope, name: &AgentName, rotation: &KeyRotation) -> Result<bool> {
        match self.end(scope, name).await? {
            Some(end) if known(&end, rotation).is_none() && end.check(rotation).is_ok() => {}
            _ => return Ok(false),
        }
        match self.add_rotation(scope, name, rotation).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.code() == Code::RotationInvalid => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn add_rotation(&self, scope: &TenantScope, name: &AgentName, rotation: &KeyRotation) -> Result<KeyRotation> {
        beside(async {
            let mut tx = self.begin().await?;
            // Looked at again: two that ask at once are one after the other here.
            let end = self.end_in(&mut tx, scope, name).await?.ok_or_else(crate::scope::not_found)?;
            if let Some(known) = known(&end, rotation) {
                return Ok(known);
            }
            end.check(rotation)?;
            check_room(&mut tx, scope, rotation).await?;
            sqlx::query(
                "INSERT INTO rotations (tenant, name, place, new_key, fingerprint, old_until, by_old, by_new) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(scope.tenant().as_str())
            .bind(name.as_str())
            .bind(i64::try_from(end.rotations.len()).unwrap_or(i64::MAX))
            .bind(rotation.new_key.to_string())
            .bind(rotation.new_key.fingerprint().to_string())
            .bind(rotation.old_until.as_microsecond())
            .bind(&rotation.by_old)
            .bind(&rotation.by_new)
            .execute(&mut *tx)
            .await
            .map_err(db("change an end's key"))?;
            changed(&mut tx).await?;
            commit(tx).await?;
            Ok(rotation.clone())
        })
        .await
    }

    /// Whether a session of `user` that has logged in with this key is to end: revoked, not known any more, or the key is retired.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn is_out(&self, user: &str, key: &Fingerprint) -> Result<Option<Code>> {
        let now = self.clock.now();
        Ok(match self.find_user(user).await? {
            Some(end) if end.revoked.is_none() => {
                let live = end.live_keys(now).any(|live| live.fingerprint() == *key);
                (!live).then_some(Code::AuthenticationRefused)
            }
            _ => Some(Code::AgentRevoked),
        })
    }
}

/// Why the registry cannot take the new key, where it cannot.
pub(super) async fn check_room(connection: &mut SqliteConnection, scope: &TenantScope, rotation: &KeyRotation) -> Result<()> {
    let sql =
        "SELECT EXISTS (SELECT 1 FROM ends WHERE fingerprint = ?1) OR EXISTS (SELECT 1 FROM rotations WHERE fingerprint = ?1),
                      (SELECT count(*) FROM rotations JOIN ends USING (tenant, name)
                       WHERE rotations.tenant = ?2 AND ends.revoked IS NULL)";
    let (known, of_tenant): (i64, i64) = sqlx::query_as(sql)
        .bind(rotation.new_key.fingerprint().to_string())
        .bind(scope.tenant().as_str())
        .fetch_one(connection)
        .await
        .map_err(db("look for a key"))?;
    if known != 0 {
        return Err(refused("the new key is or was enrolled already"));
    }
    if of_tenant >= MAX_TENANT_ROTATIONS {
        let most = format!("the ends of a tenant change their keys at most {MAX_TENANT_ROTATIONS} times");
        return Err(refused(&format!("{most}; enrol anew, and have the old end revoked")));
    }
    Ok(())
}

/// The change that was made from the same key to the same one.
fn known(end: &End, rotation: &KeyRotation) -> Option<KeyRotation> {
    let same = |known: &&KeyRotation| known.old_key == rotation.old_key && known.new_key == rotation.new_key;
    end.rotations.iter().find(same).cloned()
}

/// Gives each of these ends of a tenant, or the one named, the keys that have followed its first.
pub(super) async fn read(
    connection: &mut SqliteConnection,
    ends: &mut [End],
    scope: &TenantScope,
    name: Option<&AgentName>,
) -> Result<()> {
    let what = "read the changes of an end's key";
    let sql = "SELECT name, new_key, old_until, by_old, by_new FROM rotations
               WHERE tenant = ?1 AND (?2 IS NULL OR name = ?2) ORDER BY name, place";
    let rows = sqlx::query(sql).bind(scope.tenant().as_str()).bind(name.map(AgentName::as_str));
    let rows = rows.fetch_all(connection).await.map_err(db(what))?;
    let mut of: BTreeMap<AgentName, Vec<&SqliteRow>> = BTreeMap::new();
    for row in &rows {
        let name: String = row.try_get("name").map_err(db(what))?;
        of.entry(parsed("an end's name", &name)?).or_default().push(row);
    }
    for end in ends {
        for row in of.remove(&end.name).unwrap_or_default() {
            let text = |column: &str| row.try_get::<String, _>(column).map_err(db(what));
            let rotation = KeyRotation {
                old_key: end.newest_key().clone(),
                new_key: parsed("an end's key", &text("new_key")?)?,
                old_until: time(row.try_get("old_until").map_err(db(what))?)?,
                by_old: text("by_old")?,
                by_new: text("by_new")?,
            };
            end.rotations.push(rotation);
        }
    }
    Ok(())
}
