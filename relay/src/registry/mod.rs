//! What the relay knows of its tenants: their app servers, enrolment codes, enrolled ends, used token ids, and an audit
//! trail. The only room of the relay that names the database driver.
//!
//! The registry is one SQLite file. The service and short operator commands open it side by side; every change is one
//! immediate transaction, so that they see each other's work whole or not at all.

mod announcements;
mod audit;
mod audit_reader;
mod audit_schema;
mod closing;
mod ends;
mod enrolments;
mod expectations;
mod limits;
mod releases;
mod rotations;
mod schema;
mod tenants;
mod tokens;

#[cfg(test)]
mod audit_tests;
#[cfg(test)]
mod landing_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod releases_tests;
#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt,
    path::Path,
    str::FromStr as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{
    Connection as _, Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use towpath_transfer::{Clock, Code, Entropy, Failure, beside::beside, failure::Result};

pub use announcements::Follower;
pub use audit::AuditFilter;
pub use audit_reader::{AuditReader, PAGE_ROWS};
pub use ends::{End, MAX_ENDS};
pub use enrolments::{EnrolmentRow, MAX_ENROLMENT_LIFE, MAX_OPEN_ENROLMENTS, NewEnrolment};
pub use expectations::{Expected, MAX_EXPECTED};
pub use limits::{Budget, LimitsChange, TenantLimits};
pub use releases::{MAX_RING, ReleaseRow};
pub use tenants::{MAX_TENANTS, TenantRow, check_landing};
pub use tokens::MAX_LIVE_TOKENS;

use crate::audit::Entry;

/// How long a statement waits for another process' transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to a registry on disk.
const CONNECTIONS: u32 = 4;

/// The relay's tenants, codes and keys.
#[derive(Clone)]
pub struct Registry {
    pool: SqlitePool,
    /// Holds a registry in memory: the pool closes its connection where a call is dropped before its answer.
    anchor: Option<Arc<Mutex<SqliteConnection>>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// What the next change by the operator is in the audit trail.
    note: Option<Arc<Entry>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.anchor.is_some() { "Registry in memory" } else { "Registry" })
    }
}

impl Registry {
    /// Opens the registry file, and makes it where there is none.
    ///
    /// # Errors
    /// [`Code::FileFailed`] where it cannot be opened, or was written by a newer version.
    pub async fn open(path: &Path, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self> {
        beside(async {
            let options = SqliteConnectOptions::new()
                .filename(path)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(BUSY_TIMEOUT);
            let pool = SqlitePoolOptions::new()
                .max_connections(CONNECTIONS)
                .test_before_acquire(false)
                .before_acquire(|connection, _| Box::pin(towpath_journal::is_usable(connection)));
            let pool = pool.connect_with(options).await;
            let pool = pool.map_err(|e| db("open the registry")(e))?;
            Self::prepared(pool, clock, entropy).await
        })
        .await
    }

    /// A registry that lasts as long as this value and its clones; for tests and simulations.
    ///
    /// # Errors
    /// [`Code::FileFailed`], which memory does not cause.
    pub async fn in_memory(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let opening = db("open the registry in memory");
        // This form names a memory of its own that connections share, and that lasts as long as one of them.
        let options = SqliteConnectOptions::from_str("sqlite::memory:").map_err(&opening)?.foreign_keys(true);
        let anchor = SqliteConnection::connect_with(&options).await.map_err(&opening)?;
        let pool = SqlitePoolOptions::new().max_connections(1).test_before_acquire(false);
        let pool = pool.connect_with(options).await.map_err(&opening)?;
        let registry = Self::prepared(pool, clock, entropy).await?;
        Ok(Self { anchor: Some(Arc::new(Mutex::new(anchor))), ..registry })
    }

    async fn prepared(pool: SqlitePool, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let registry = Self { pool, anchor: None, clock, entropy, note: None };
        registry.migrate().await?;
        Ok(registry)
    }

    /// Whether the registry can be read and written now.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn health(&self) -> Result<()> {
        beside(async {
            let mut tx = self.begin().await?;
            sqlx::query("UPDATE meta SET value = value WHERE key = 'changes'")
                .execute(&mut *tx)
                .await
                .map_err(db("write the registry"))?;
            commit(tx).await
        })
        .await
    }

    /// Counts up whenever something changes that a running service must notice, such as a revocation.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn changes(&self) -> Result<i64> {
        beside(async {
            let value = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'changes'").fetch_one(&self.pool).await;
            value.map_err(db("read the registry's change counter"))
        })
        .await
    }

    /// Ends all connections; a later call fails.
    pub async fn close(&self) {
        beside(async {
            self.pool.close().await;
        })
        .await;
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        // A deferred transaction would fail, not wait, where it turns from reading to writing beside another.
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(db("begin a change of the registry"))
    }

    fn now(&self) -> i64 {
        self.clock.now().as_microsecond()
    }
}

async fn commit(tx: Transaction<'static, Sqlite>) -> Result<()> {
    tx.commit().await.map_err(db("commit a change of the registry"))
}

async fn changed(tx: &mut Transaction<'static, Sqlite>) -> Result<()> {
    let done = sqlx::query("UPDATE meta SET value = value + 1 WHERE key = 'changes'").execute(&mut **tx).await;
    done.map(|_| ()).map_err(db("count a change of the registry"))
}

/// A failure of the database below, which may pass by itself.
fn db(what: &'static str) -> impl Fn(sqlx::Error) -> Failure {
    move |e| {
        let full = e.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == "13");
        Failure::retry(if full { Code::DiskFull } else { Code::FileFailed }, what).caused_by(e)
    }
}

/// A stored value that does not read back as what was written.
fn corrupt(what: &'static str) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> Failure {
    move |e| Failure::park(Code::FileFailed, format!("read {what} from the registry")).caused_by(e)
}

fn parsed<T>(what: &'static str, text: &str) -> Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|e: T::Err| corrupt(what)(e.into()))
}

fn time(micros: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(micros).map_err(|e| corrupt("a time")(e.into()))
}
