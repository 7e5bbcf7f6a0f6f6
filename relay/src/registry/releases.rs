//! Which releases there are, and which tenants may have them: ring by ring.
//!
//! A tenant is in one ring, or in none. A release is approved for rings; a tenant's agents see what is approved for theirs, and
//! follow the newest of it.

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};
use towpath_transfer::{Code, Failure, TenantName, api::MAX_RELEASES, beside::beside, failure::Result, release::ReleaseVersion};

use super::{MAX_TENANTS, Registry, changed, corrupt, db, parsed, time};
use crate::scope::TenantScope;

/// The highest ring; the lowest is 1, and 0 stands for none.
pub const MAX_RING: u8 = 9;

/// A release that the operator has handed to this relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRow {
    /// Its version.
    pub version: ReleaseVersion,
    /// When it was taken.
    pub added: Timestamp,
    /// The rings that it is approved for, in order.
    pub rings: Vec<u8>,
}

fn unknown(version: ReleaseVersion) -> Failure {
    Failure::park(Code::NotFound, format!("there is no release {version} here: see `towpath-relay release list`"))
}

/// A ring as it is kept; what it stands for where it is 0 is not.
fn check_ring(ring: u8, least: u8) -> Result<i64> {
    if (least..=MAX_RING).contains(&ring) {
        return Ok(i64::from(ring));
    }
    Err(Failure::park(Code::RequestInvalid, format!("a ring is a number from {least} to {MAX_RING}")))
}

fn ring_of(stored: i64) -> Result<u8> {
    u8::try_from(stored).map_err(|error| corrupt("a ring")(error.into()))
}

async fn require(tx: &mut Transaction<'static, Sqlite>, version: ReleaseVersion) -> Result<()> {
    let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM releases WHERE version = ?")
        .bind(version.to_string())
        .fetch_optional(&mut **tx)
        .await
        .map_err(db("look for a release"))?;
    found.map(drop).ok_or_else(|| unknown(version))
}

impl Registry {
    /// Whether there is a release of this version, or room for one.
    ///
    /// # Errors
    /// [`Code::RequestInvalid`] where there is; [`Code::LimitExceeded`] beyond [`MAX_RELEASES`].
    pub async fn check_release_room(&self, version: ReleaseVersion) -> Result<()> {
        let releases = self.releases().await?;
        if releases.iter().any(|row| row.version == version) {
            return Err(Failure::park(Code::RequestInvalid, format!("release {version} is here already")));
        }
        if releases.len() >= MAX_RELEASES {
            let message = format!("a relay keeps at most {MAX_RELEASES} releases: remove one that no agent needs any more");
            return Err(Failure::park(Code::LimitExceeded, message));
        }
        Ok(())
    }

    /// Takes note of a release that lies on the shelf. Nobody sees it before it is approved.
    ///
    /// # Errors
    /// Those of [`Registry::check_release_room`].
    pub async fn add_release(&self, version: ReleaseVersion) -> Result<()> {
        self.check_release_room(version).await?;
        beside(async {
            let mut tx = self.begin().await?;
            sqlx::query("INSERT INTO releases (version, added) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(version.to_string())
                .bind(self.now())
                .execute(&mut *tx)
                .await
                .map_err(db("add a release"))?;
            self.commit_noted(tx).await
        })
        .await
    }

    /// Forgets a release with its approvals.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn remove_release(&self, version: ReleaseVersion) -> Result<()> {
        beside(async {
            let mut tx = self.begin().await?;
            require(&mut tx, version).await?;
            for statement in ["DELETE FROM release_approvals WHERE version = ?", "DELETE FROM releases WHERE version = ?"] {
                let done = sqlx::query(statement).bind(version.to_string()).execute(&mut *tx).await;
                done.map_err(db("remove a release"))?;
            }
            changed(&mut tx).await?;
            self.commit_noted(tx).await
        })
        .await
    }

    /// Lets the agents of a ring have a release. Repeating changes nothing.
    ///
    /// # Errors
    /// [`Code::NotFound`] without the release; [`Code::RequestInvalid`] for a ring that is none.
    pub async fn approve_release(&self, version: ReleaseVersion, ring: u8) -> Result<()> {
        let ring = check_ring(ring, 1)?;
        beside(async {
            let mut tx = self.begin().await?;
            require(&mut tx, version).await?;
            sqlx::query("INSERT INTO release_approvals (version, ring, approved) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
                .bind(version.to_string())
                .bind(ring)
                .bind(self.now())
                .execute(&mut *tx)
                .await
                .map_err(db("approve a release"))?;
            changed(&mut tx).await?;
            self.commit_noted(tx).await
        })
        .await
    }

    /// Takes an approval back. Agents that have followed it stay with it.
    ///
    /// # Errors
    /// [`Code::NotFound`] without the release, or where it was not approved for this ring.
    pub async fn withdraw_release(&self, version: ReleaseVersion, ring: u8) -> Result<()> {
        let ring = check_ring(ring, 1)?;
        beside(async {
            let mut tx = self.begin().await?;
            require(&mut tx, version).await?;
            let done = sqlx::query("DELETE FROM release_approvals WHERE version = ? AND ring = ?")
                .bind(version.to_string())
                .bind(ring)
                .execute(&mut *tx)
                .await
                .map_err(db("withdraw a release"))?;
            if done.rows_affected() == 0 {
                return Err(Failure::park(Code::NotFound, format!("release {version} is not approved for ring {ring}")));
            }
            changed(&mut tx).await?;
            self.commit_noted(tx).await
        })
        .await
    }

    /// Every release, the oldest version first.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn releases(&self) -> Result<Vec<ReleaseRow>> {
        beside(async {
            let rows: Vec<(String, i64, Option<i64>)> = sqlx::query_as(
                "SELECT r.version, r.added, a.ring FROM releases r LEFT JOIN release_approvals a ON a.version = r.version
                 ORDER BY r.version, a.ring",
            )
            .fetch_all(&self.pool)
            .await
            .map_err(db("list the releases"))?;
            let mut releases: Vec<ReleaseRow> = Vec::new();
            for (version, added, ring) in rows {
                let version = parsed("a version", &version)?;
                if releases.last().is_none_or(|last| last.version != version) {
                    releases.push(ReleaseRow { version, added: time(added)?, rings: Vec::new() });
                }
                if let (Some(last), Some(ring)) = (releases.last_mut(), ring) {
                    last.rings.push(ring_of(ring)?);
                }
            }
            // As text 1.10.0 stands before 1.9.0.
            releases.sort_by_key(|row| row.version);
            Ok(releases)
        })
        .await
    }

    /// The versions that are approved for a tenant's ring, the oldest first.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn approved_releases(&self, scope: &TenantScope) -> Result<Vec<ReleaseVersion>> {
        beside(async {
            let rows: Vec<String> = sqlx::query_scalar(
                "SELECT a.version FROM release_approvals a JOIN tenant_rings t ON t.ring = a.ring WHERE t.tenant = ?",
            )
            .bind(scope.tenant().as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(db("list a tenant's releases"))?;
            let mut versions: Vec<ReleaseVersion> = rows.iter().map(|text| parsed("a version", text)).collect::<Result<_>>()?;
            versions.sort_unstable();
            Ok(versions)
        })
        .await
    }

    /// Puts a tenant into a ring; 0 takes it out of every one.
    ///
    /// # Errors
    /// [`Code::RequestInvalid`] for a ring that is none.
    pub async fn set_ring(&self, scope: &TenantScope, ring: u8) -> Result<()> {
        let ring = check_ring(ring, 0)?;
        beside(async {
            let mut tx = self.begin().await?;
            let statement = if ring == 0 {
                "DELETE FROM tenant_rings WHERE tenant = ?1"
            } else {
                "INSERT INTO tenant_rings (tenant, ring) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET ring = ?2"
            };
            let done = sqlx::query(statement).bind(scope.tenant().as_str()).bind(ring).execute(&mut *tx).await;
            done.map_err(db("set a tenant's ring"))?;
            changed(&mut tx).await?;
            self.commit_noted(tx).await
        })
        .await
    }

    /// The tenants that are in a ring, by name.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn rings(&self) -> Result<Vec<(TenantName, u8)>> {
        beside(async {
            let rows: Vec<(String, i64)> = sqlx::query_as("SELECT tenant, ring FROM tenant_rings ORDER BY tenant LIMIT ?")
                .bind(MAX_TENANTS)
                .fetch_all(&self.pool)
                .await
                .map_err(db("list the tenants' rings"))?;
            rows.into_iter().map(|(tenant, ring)| Ok((parsed("a tenant's name", &tenant)?, ring_of(ring)?))).collect()
        })
        .await
    }
}
