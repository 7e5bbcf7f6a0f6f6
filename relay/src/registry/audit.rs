//! The audit trail's table: rows are appended, never changed, and only the oldest are removed.

use std::time::Duration;

use sqlx::{FromRow, QueryBuilder, Row as _, Sqlite, Transaction, sqlite::SqliteRow};
use towpath_transfer::{Code, Failure, TenantName, TransferId, beside::beside, digest::Sha256Digest, failure::Result};

use super::{Registry, audit_reader::AuditReader, commit, db};
use crate::audit::{
    Action, AuditSettings, Entry, FEWEST_ROWS, MAX_TEXT_CHARS, SHORTEST_KEEP, Standing, Who,
    chain::{Broken, Link, Row, Verified, Verifier},
    cut,
};

/// The most rows that one transaction removes.
const PRUNE_ROWS: i64 = 10_000;

const COLUMNS: &str = "id, at, role, name, key, address, tenant, action, detail, transfer, result, hash";

/// Which rows are shown.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// From this time on.
    pub since: Option<jiff::Timestamp>,
    /// Up to this time.
    pub until: Option<jiff::Timestamp>,
    /// Of this tenant.
    pub tenant: Option<TenantName>,
    /// Of this action.
    pub action: Option<Action>,
    /// About this transfer.
    pub transfer: Option<TransferId>,
}

impl FromRow<'_, SqliteRow> for Row {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            at: row.try_get("at")?,
            role: row.try_get("role")?,
            name: row.try_get("name")?,
            key: row.try_get("key")?,
            address: row.try_get("address")?,
            tenant: row.try_get("tenant")?,
            action: row.try_get("action")?,
            detail: row.try_get("detail")?,
            transfer: row.try_get("transfer")?,
            result: row.try_get("result")?,
            hash: row.try_get("hash")?,
        })
    }
}

impl Registry {
    /// The same registry, of which the next change by the operator is in the trail as well, in the same transaction: where the trail
    /// cannot be written nothing changes.
    #[must_use]
    pub fn noting(&self, entry: Entry) -> Self {
        Self { note: Some(entry.into()), ..self.clone() }
    }

    /// Commits a change with what [`Registry::noting`] has named.
    pub(super) async fn commit_noted(&self, mut tx: Transaction<'static, Sqlite>) -> Result<()> {
        if let Some(entry) = &self.note {
            append(&mut tx, std::slice::from_ref(&**entry)).await?;
        }
        commit(tx).await
    }

    /// The same note with what only the change itself knows.
    pub(super) fn with_detail(&self, detail: &str) -> Self {
        let note = self.note.as_ref().map(|entry| Entry::clone(entry).detail(detail).into());
        Self { note, ..self.clone() }
    }

    /// Does something outside of the registry that has to be in the trail. Where the trail cannot be written it is not begun; where it
    /// fails that is in the trail. The work must not change the registry itself, which is locked meanwhile.
    ///
    /// # Errors
    /// Those of the work; [`Code::FileFailed`], [`Code::DiskFull`].
    pub async fn audited<T>(&self, entry: Entry, work: impl Future<Output = Result<T>>) -> Result<T> {
        beside(async {
            let mut tx = self.begin().await?;
            append(&mut tx, std::slice::from_ref(&entry)).await?;
            match work.await {
                Ok(done) => {
                    let unsaid = |e: Failure| {
                        Failure::retry(e.code(), "it is done, but could not be noted in the audit trail").caused_by(e)
                    };
                    commit(tx).await.map_err(unsaid).map(|()| done)
                }
                Err(failure) => {
                    let _ = tx.rollback().await;
                    self.audit_append(&[entry.failed(failure.code())]).await?;
                    Err(failure)
                }
            }
        })
        .await
    }

    /// Appends to the trail, all or nothing.
    ///
    /// # Errors
    /// [`Code::FileFailed`], [`Code::DiskFull`].
    pub async fn audit_append(&self, entries: &[Entry]) -> Result<()> {
        beside(async {
            let mut tx = self.begin().await?;
            append(&mut tx, entries).await?;
            commit(tx).await
        })
        .await
    }

    /// The newest rows that a filter lets through, newest first.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn audit_rows(&self, filter: &AuditFilter, limit: u32) -> Result<Vec<Row>> {
        beside(async {
            let mut query = QueryBuilder::<Sqlite>::new(format!("SELECT {COLUMNS} FROM audit WHERE true"));
            if let Some(since) = filter.since {
                query.push(" AND at >= ").push_bind(since.as_microsecond());
            }
            if let Some(until) = filter.until {
                query.push(" AND at <= ").push_bind(until.as_microsecond());
            }
            if let Some(tenant) = &filter.tenant {
                query.push(" AND tenant = ").push_bind(tenant.to_string());
            }
            if let Some(action) = filter.action {
                query.push(" AND action = ").push_bind(action.as_str());
            }
            if let Some(transfer) = filter.transfer {
                query.push(" AND transfer = ").push_bind(transfer.to_string());
            }
            query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
            query.build_query_as().fetch_all(&self.pool).await.map_err(db("read the audit trail"))
        })
        .await
    }

    /// Reads the trail from its beginning, as it is at this moment, without holding anybody up. With a filter's times only the rows
    /// from the first to the last that lie between them.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn audit_reader(&self, filter: &AuditFilter) -> Result<AuditReader> {
        beside(async {
            let what = db("read the audit trail");
            let mut tx = self.pool.begin().await.map_err(&what)?;
            let mut before = anchor(&mut tx).await?;
            if let Some(since) = filter.since {
                let found: Option<(i64, String)> = sqlx::query_as(
                    "SELECT id, hash FROM audit WHERE id = (SELECT min(id) FROM audit WHERE at >= ?1) - 1
                 OR (id = (SELECT max(id) FROM audit) AND NOT EXISTS (SELECT 1 FROM audit WHERE at >= ?1))",
                )
                .bind(since.as_microsecond())
                .fetch_optional(&mut *tx)
                .await
                .map_err(&what)?;
                if let Some((id, hash)) = found {
                    before = Link { id, hash: stored(&hash) };
                }
            }
            let last: Option<i64> = match filter.until {
                None => None,
                Some(until) => {
                    let last: Option<i64> = sqlx::query_scalar("SELECT max(id) FROM audit WHERE at <= ?")
                        .bind(until.as_microsecond())
                        .fetch_one(&mut *tx)
                        .await
                        .map_err(&what)?;
                    Some(last.unwrap_or(0))
                }
            };
            Ok(AuditReader { tx, before, after: before.id, last: last.unwrap_or(i64::MAX) })
        })
        .await
    }

    /// Computes every hash of the trail again, one page of rows after the other. `expected` is a head that was noted before.
    ///
    /// # Errors
    /// [`Code::FileFailed`]. What does not fit is the inner error.
    pub async fn verify_audit(&self, expected: Option<Link>) -> Result<std::result::Result<Verified, Broken>> {
        beside(async {
            let mut reader = self.audit_reader(&AuditFilter::default()).await?;
            let mut verifier = Verifier::new(reader.before(), expected);
            loop {
                let page = reader.page().await?;
                if page.is_empty() {
                    return Ok(verifier.finish(true));
                }
                if let Err(broken) = page.iter().try_for_each(|row| verifier.take(row)) {
                    return Ok(Err(broken));
                }
            }
        })
        .await
    }

    /// The last row.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn audit_head(&self) -> Result<Link> {
        beside(async {
            let mut tx = self.pool.begin().await.map_err(db("read the audit trail"))?;
            head(&mut tx).await
        })
        .await
    }

    /// Whether the trail still goes through a head that was noted. Only that row is looked at.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn audit_standing(&self, noted: Link) -> Result<Standing> {
        beside(async {
            let what = db("read the audit trail");
            let mut tx = self.pool.begin().await.map_err(&what)?;
            let (before, end) = (anchor(&mut tx).await?, head(&mut tx).await?);
            if noted.id < before.id || noted == before {
                return Ok(Standing::Held);
            }
            let there: Option<String> = sqlx::query_scalar("SELECT hash FROM audit WHERE id = ?")
                .bind(noted.id)
                .fetch_optional(&mut *tx)
                .await
                .map_err(&what)?;
            let held = there.is_some_and(|hash| hash == noted.hash.to_string());
            Ok(if held { Standing::Held } else { Standing::Lost(end.id) })
        })
        .await
    }

    /// Removes the oldest rows that are older than they are kept, or too many, and returns how many. The trail says so itself.
    ///
    /// # Errors
    /// [`Code::FileFailed`], [`Code::DiskFull`].
    pub async fn prune_audit(&self, settings: AuditSettings) -> Result<u64> {
        beside(async {
            let mut removed = 0;
            loop {
                let some = self.prune_some(settings).await?;
                removed += some;
                if some < PRUNE_ROWS.unsigned_abs() {
                    return Ok(removed);
                }
            }
        })
        .await
    }

    async fn prune_some(&self, settings: AuditSettings) -> Result<u64> {
        let what = db("shorten the audit trail");
        let (keep, most) = (settings.keep.max(SHORTEST_KEEP), settings.rows.max(FEWEST_ROWS));
        let now = self.clock.now();
        let old = now.saturating_sub(keep).unwrap_or(jiff::Timestamp::MIN).as_microsecond();
        let mut tx = self.begin().await?;
        let (before, head) = (anchor(&mut tx).await?, head(&mut tx).await?);
        let young: Option<i64> = sqlx::query_scalar("SELECT id FROM audit WHERE at >= ? ORDER BY id LIMIT 1")
            .bind(old)
            .fetch_optional(&mut *tx)
            .await
            .map_err(&what)?;
        let too_old = young.map_or(head.id, |id| id.saturating_sub(1));
        // One more row will tell of the removal.
        let too_many = head.id.saturating_add(1).saturating_sub(i64::try_from(most).unwrap_or(i64::MAX));
        let last = too_old.max(too_many).min(before.id.saturating_add(PRUNE_ROWS));
        if last <= before.id {
            return Ok(0);
        }
        let hash: String =
            sqlx::query_scalar("SELECT hash FROM audit WHERE id = ?").bind(last).fetch_one(&mut *tx).await.map_err(&what)?;
        let link = Link { id: last, hash: stored(&hash) };
        let why = if too_many > too_old { format!("more than {most} rows") } else { format!("older than {} days", days(keep)) };
        let told = Entry::new(now, Who::relay(), Action::Pruned).detail(link.pruned_detail(&why));
        append(&mut tx, &[told]).await?;
        sqlx::query("UPDATE audit_anchor SET id = ?, hash = ?").bind(last).bind(&hash).execute(&mut *tx).await.map_err(&what)?;
        sqlx::query("DELETE FROM audit WHERE id <= ?").bind(last).execute(&mut *tx).await.map_err(&what)?;
        commit(tx).await?;
        let removed = last.saturating_sub(before.id).unsigned_abs();
        tracing::info!(removed, through = last, why, "the oldest rows of the audit trail were removed");
        Ok(removed)
    }
}

fn days(time: Duration) -> u64 {
    time.as_secs() / (24 * 60 * 60)
}

/// What was removed last; nothing yet where its row is 0.
async fn anchor(tx: &mut Transaction<'static, Sqlite>) -> Result<Link> {
    let (id, hash): (i64, String) = sqlx::query_as("SELECT id, hash FROM audit_anchor")
        .fetch_one(&mut **tx)
        .await
        .map_err(db("read where the audit trail begins"))?;
    Ok(Link { id, hash: stored(&hash) })
}

/// The last row.
async fn head(tx: &mut Transaction<'static, Sqlite>) -> Result<Link> {
    let last: Option<(i64, String)> = sqlx::query_as("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1")
        .fetch_optional(&mut **tx)
        .await
        .map_err(db("read the end of the audit trail"))?;
    match last {
        Some((id, hash)) => Ok(Link { id, hash: stored(&hash) }),
        None => anchor(tx).await,
    }
}

/// A stored hash. One that somebody has spoilt must not keep later rows from being written: the check of the chain tells of it.
fn stored(hash: &str) -> Sha256Digest {
    hash.parse().unwrap_or_else(|_| Sha256Digest::of(hash.as_bytes()))
}

async fn append(tx: &mut Transaction<'static, Sqlite>, entries: &[Entry]) -> Result<()> {
    let mut head = head(tx).await?;
    for entry in entries {
        let row = Row {
            id: 0,
            at: entry.at.as_microsecond(),
            role: entry.who.role.to_owned(),
            name: cut(&entry.who.name, MAX_TEXT_CHARS),
            key: entry.who.key.map(|key| key.to_string()).unwrap_or_default(),
            address: entry.who.address.map(|address| address.to_string()).unwrap_or_default(),
            tenant: cut(&entry.tenant, MAX_TEXT_CHARS),
            action: entry.action.to_string(),
            detail: entry.detail.clone(),
            transfer: entry.transfer.clone(),
            result: entry.result.to_owned(),
            hash: String::new(),
        };
        head = insert(tx, head, row).await?;
    }
    Ok(())
}

/// Puts a row behind the one before; its number and hash are made here.
pub(super) async fn insert(tx: &mut Transaction<'static, Sqlite>, before: Link, mut row: Row) -> Result<Link> {
    row.id =
        before.id.checked_add(1).ok_or_else(|| Failure::park(Code::LimitExceeded, "the audit trail has no further number"))?;
    let hash = row.digest(&before.hash);
    sqlx::query("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(row.id)
        .bind(row.at)
        .bind(&row.role)
        .bind(&row.name)
        .bind(&row.key)
        .bind(&row.address)
        .bind(&row.tenant)
        .bind(&row.action)
        .bind(&row.detail)
        .bind(&row.transfer)
        .bind(&row.result)
        .bind(hash.to_string())
        .execute(&mut **tx)
        .await
        .map_err(db("write the audit trail"))?;
    Ok(Link { id: row.id, hash })
}
