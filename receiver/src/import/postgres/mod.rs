//! PostgreSQL as import target: one schema for each agent and job.
//!
//! Tables are emptied with `DELETE`, not `TRUNCATE`: a reader of the app goes on seeing the old rows until the commit, and waits for
//! nothing. What is deleted is dead until autovacuum, or the next import, takes its place.

mod connect;
mod error;
mod import;
mod ledger;
mod names;
#[cfg(test)]
mod tests;
mod values;

use std::{io, time::Duration};

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, PgConnection};
use towpath_transfer::{Code, Failure, TransferId, digest::Sha256Digest};

use self::{error::Database, import::PostgresImport};
use super::{Import, ImportScope, ImportTarget, LOCK_TIMEOUT, Ledger, Owner, ledger::not_taken, names::quote};
use crate::config::ServerConfig;

/// How long connecting and logging in may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one statement may take; a batch of rows is one, and so is the merge of a whole table.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3_600);
/// How long a server may say nothing after a statement must have ended, until it counts as lost.
const GRACE: Duration = Duration::from_secs(30);
/// How long the server waits for the next statement, so that a receiver that is gone does not hold its locks for ever.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// After how many seconds without a word the server asks a receiver whether it is still there, how often, and how many times.
const KEEP_ALIVE: [u32; 3] = [60, 10, 6];
/// The encoding that has every character the wire has.
const ENCODING: &str = "UTF8";

/// Imports into a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresTarget {
    server: ServerConfig,
    owner: Owner,
}

impl PostgresTarget {
    /// Schemas are made in the database of `server` as they are needed, and are `owner`'s. Nothing is connected to yet; the password
    /// is read anew for each import.
    #[must_use]
    pub fn new(server: ServerConfig, owner: Owner) -> Self {
        Self { server, owner }
    }

    /// The name of the schema of an agent's job: `<agent>__<job>`, which no other pair has. Where PostgreSQL would cut that off, or
    /// keeps such names for itself, it is shortened with a digest, or has `_` before it.
    #[must_use]
    pub fn schema(scope: &ImportScope) -> String {
        names::schema(scope)
    }

    /// Opens a transaction that has the schema for itself, and the ledger complete. Returns the schema's name, too.
    async fn open(&self, scope: &ImportScope) -> Result<(PgConnection, Database, String), Failure> {
        let schema = names::schema(scope);
        let database = Database::new(&self.server, &schema);
        let options = connect::options(&self.server).await?;
        let mut connection = connect::connect(&options, &database).await?;
        let opening = |e| database.failure("opening the import", e);
        within(sqlx::raw_sql(AssertSqlSafe(settings())).execute(&mut connection)).await.map_err(opening)?;
        check_encoding(&mut connection, &database).await?;
        lock(&mut connection, &schema).await.map_err(|e| database.failure("waiting for another import to end", e))?;
        make_schema(&mut connection, &schema).await.map_err(|e| database.failure("making the schema", e))?;
        Ok((connection, database, schema))
    }
}

#[async_trait]
impl ImportTarget for PostgresTarget {
    async fn begin(&self, scope: &ImportScope, transfer: TransferId) -> Result<(Box<dyn Import>, Ledger), Failure> {
        let (mut connection, database, schema) = self.open(scope).await?;
        let quoted = quote(&schema);
        let owner = ledger::owner(&mut connection, &database, &quoted).await?;
        if self.owner.may_take(owner.as_ref(), &database.shown)? {
            ledger::own(&mut connection, &database, &quoted, &self.owner).await?;
        }
        let ledger = ledger::read(&mut connection, &database, &quoted, transfer).await?;
        Ok((Box::new(PostgresImport::new(connection, database, &schema)), ledger))
    }

    async fn adopt(&self, scope: &ImportScope) -> Result<bool, Failure> {
        let (mut connection, database, schema) = self.open(scope).await?;
        let quoted = quote(&schema);
        let owner = ledger::owner(&mut connection, &database, &quoted).await?.ok_or_else(|| not_taken(&database.shown))?;
        if self.owner.is(&owner) {
            return Ok(false);
        }
        ledger::own(&mut connection, &database, &quoted, &self.owner).await?;
        let committed = within(sqlx::raw_sql("COMMIT").execute(&mut connection)).await;
        committed.map(|_| true).map_err(|e| database.failure("committing the adoption", e))
    }
}

/// Begins the transaction, whatever the login or the server has set otherwise. A commit is durable before it is answered: a server
/// that answers earlier would let the receipt say what a power cut undoes.
fn settings() -> String {
    let [idle, interval, count] = KEEP_ALIVE;
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
         SET LOCAL lock_timeout = '{}s';
         SET LOCAL statement_timeout = '{}s';
         SET LOCAL idle_in_transaction_session_timeout = '{}s';
         SET LOCAL tcp_keepalives_idle = {idle};
         SET LOCAL tcp_keepalives_interval = {interval};
         SET LOCAL tcp_keepalives_count = {count};
         SET LOCAL client_min_messages = warning;
         SET LOCAL TimeZone = 'UTC';
         SET LOCAL DateStyle = 'ISO, YMD';
         SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';",
        LOCK_TIMEOUT.as_secs(),
        STATEMENT_TIMEOUT.as_secs(),
        IDLE_TIMEOUT.as_secs(),
    )
}

async fn check_encoding(connection: &mut PgConnection, database: &Database) -> Result<(), Failure> {
    let asked = within(sqlx::query_scalar("SELECT current_setting('server_encoding')").fetch_one(connection)).await;
    let found: String = asked.map_err(|e| database.failure("asking for the encoding", e))?;
    if found == ENCODING {
        return Ok(());
    }
    let told = format!("{} is encoded in {found}; make one with ENCODING '{ENCODING}'", database.shown);
    Err(Failure::park(Code::ImportFailed, told))
}

/// Imports into one schema follow each other, whichever receiver they come from. The lock ends with the transaction.
async fn lock(connection: &mut PgConnection, schema: &str) -> Result<(), sqlx::Error> {
    let digest = Sha256Digest::of(format!("towpath import {schema}").as_bytes());
    let number = digest.as_bytes().first_chunk().map_or(0, |first| i64::from_be_bytes(*first));
    within(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(number).execute(connection)).await.map(|_| ())
}

/// Looks first, because a login that may not create schemas may not do it `IF NOT EXISTS` either.
async fn make_schema(connection: &mut PgConnection, schema: &str) -> Result<(), sqlx::Error> {
    let looking = sqlx::query("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1").bind(schema.to_owned());
    if within(looking.fetch_optional(&mut *connection)).await?.is_none() {
        let sql = format!("CREATE SCHEMA {}", quote(schema));
        within(sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection)).await?;
    }
    within(sqlx::raw_sql(AssertSqlSafe(ledger::definition(&quote(schema)))).execute(connection)).await.map(|_| ())
}

/// Waits for a statement's end; the server ends one that takes too long, unless the server is gone.
async fn within<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let ended = tokio::time::timeout(STATEMENT_TIMEOUT + GRACE, statement).await;
    ended.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())))
}
