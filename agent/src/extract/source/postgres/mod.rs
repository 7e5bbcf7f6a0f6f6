//! PostgreSQL as a source: one read-only transaction of isolation `repeatable read` is the snapshot of all tables, and rows come
//! by COPY, as text, as they are read.
//!
//! Every setting on which the form of values depends is set within that transaction, so that neither the server's configuration
//! nor a pooler's earlier guest changes what is sent.

mod columns;
mod connect;
mod copy;
mod error;
mod rights;
mod session;
mod totals;
mod types;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use sqlx::Row as _;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{
    Clock, Failure,
    manifest::{Snapshot, SqlType},
};

use self::{
    copy::{CopyReader, Field},
    error::Server,
    session::{Backend, Session},
    types::Held,
};
use super::{Read, RowSink, Source, SourceColumn, SourceSnapshot, TableTotals, select::Dialect};
use crate::config::{ServerConfig, TableConfig};

/// How long the server may take to answer and to let us in.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a statement waits for a lock. Only `ALTER TABLE`, `TRUNCATE`, `VACUUM FULL` and the like make a reader wait.
const LOCK: Duration = Duration::from_secs(30);
/// How much longer than a statement may take the server may be silent.
const GRACE: Duration = Duration::from_secs(60);
/// How often the server looks whether we are still there while it works (PostgreSQL 14 or later).
const CHECK: Duration = Duration::from_secs(1);
/// The largest timeout that PostgreSQL takes, in milliseconds.
const MAX_TIMEOUT_MS: u128 = i32::MAX as u128;

const DIALECT: Dialect = Dialect { quotes: ('"', '"'), schema: None, literal };

/// A PostgreSQL server and a database of it.
pub(crate) struct PostgresSource {
    config: ServerConfig,
    server: Arc<Server>,
    clock: Arc<dyn Clock>,
}

impl PostgresSource {
    /// The server is connected to when the source is opened.
    pub(crate) fn new(config: ServerConfig, clock: Arc<dyn Clock>) -> Self {
        Self::with_lock_timeout(config, clock, LOCK)
    }

    fn with_lock_timeout(config: ServerConfig, clock: Arc<dyn Clock>, lock_timeout: Duration) -> Self {
        let shown = format!("the PostgreSQL database {} at {}:{}", config.database, config.host, config.port);
        let server = Server { shown, tls: config.tls, statement_timeout: config.statement_timeout, lock_timeout };
        Self { config, server: Arc::new(server), clock }
    }
}

impl fmt::Debug for PostgresSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSource").field("server", &self.server.shown).finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for PostgresSource {
    // Whoever is cancelled drops what is under way, and that ends it at the server.
    async fn open(&self, _: &CancellationToken) -> Result<Box<dyn SourceSnapshot>, Failure> {
        let doing = "beginning a transaction";
        let options = connect::options(&self.config).await?;
        let connection = connect::connect(&options, &self.server, &*self.clock, CONNECT).await?;
        let mut session = Session::new(connection, options, Arc::clone(&self.server), Arc::clone(&self.clock));
        session.query(doing, begin(&self.server)).await?;
        set_where_known(&mut session).await?;
        let snapshot = take_snapshot(&mut session, doing).await?;
        let warnings = rights::warnings(&mut session).await?;
        Ok(Box::new(PostgresSnapshot { session, snapshot, warnings }))
    }
}

/// The transaction and everything on which the form of values or the end of a statement depends.
fn begin(server: &Server) -> String {
    let milliseconds = |limit: Duration| limit.as_millis().min(MAX_TIMEOUT_MS);
    // A limit below one millisecond would be none.
    let statement = match server.statement_timeout {
        Duration::ZERO => 0,
        limit => milliseconds(limit).max(1),
    };
    format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {statement}; \
         SET LOCAL lock_timeout = {lock}; SET LOCAL idle_in_transaction_session_timeout = 0; \
         SET LOCAL client_encoding = 'UTF8'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; \
         SET LOCAL timezone = 'UTC'; SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'; \
         SET LOCAL standard_conforming_strings = on; SET LOCAL xmloption = 'content'",
        lock = milliseconds(server.lock_timeout)
    )
}

/// Settings that not every version or system has.
async fn set_where_known(session: &mut Session) -> Result<(), Failure> {
    let doing = "setting up a transaction";
    for (name, value) in [("transaction_timeout", 0), ("client_connection_check_interval", CHECK.as_millis())] {
        session.query(doing, "SAVEPOINT towpath".to_owned()).await?;
        let set =
            format!("SELECT pg_catalog.set_config(name, '{value}', true) FROM pg_catalog.pg_settings WHERE name = '{name}'");
        let ended = match session.query(doing, set).await {
            Ok(_) => "RELEASE SAVEPOINT towpath",
            // Some systems know the setting and cannot have it. A lost connection fails again here.
            Err(_) => "ROLLBACK TO SAVEPOINT towpath",
        };
        session.query(doing, ended.to_owned()).await?;
    }
    Ok(())
}

/// The first statement of the transaction that reads has taken the snapshot; this asks for its name.
async fn take_snapshot(session: &mut Session, doing: &str) -> Result<Snapshot, Failure> {
    // `txid_current_snapshot` is known to all versions, and standbys have it.
    let sql = "SELECT pg_catalog.txid_current_snapshot()::text, pg_catalog.pg_backend_pid()::text, \
               (SELECT backend_start::text FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()), \
               pg_catalog.now()::text, pg_catalog.current_setting('server_version')";
    let rows = session.query(doing, sql.to_owned()).await?;
    let text = |index: usize| {
        let found = rows.first().ok_or(sqlx::Error::RowNotFound).and_then(|row| row.try_get::<String, _>(index));
        found.map_err(|error| session.server.failure(doing, error))
    };
    let backend = Backend { process: text(1)?, started: text(2)? };
    let id = format!("{} at {}, PostgreSQL {}", text(0)?, text(3)?, text(4)?);
    session.backend = Some(backend);
    Ok(Snapshot { id, isolation: "repeatable read".to_owned(), consistent: true })
}

#[derive(Debug)]
struct PostgresSnapshot {
    session: Session,
    snapshot: Snapshot,
    warnings: Vec<String>,
}

#[async_trait]
impl SourceSnapshot for PostgresSnapshot {
    fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    async fn close(&mut self) {
        self.session.close().await;
    }

    async fn columns(&mut self, table: &TableConfig) -> Result<Vec<SourceColumn>, Failure> {
        let doing = format!("preparing table {}", table.name);
        // An error would end the transaction, and with it the snapshot of the other tables.
        self.session.query(&doing, "SAVEPOINT towpath".to_owned()).await?;
        match self.prepared(table, &doing).await {
            Ok(columns) => {
                self.session.query(&doing, "RELEASE SAVEPOINT towpath".to_owned()).await?;
                Ok(columns)
            }
            Err(failure) => {
                // Where this fails too, the first failure is the one to tell.
                drop(self.session.query(&doing, "ROLLBACK TO SAVEPOINT towpath".to_owned()).await);
                Err(failure)
            }
        }
    }

    async fn rows(&mut self, read: &Read<'_>, sink: &mut RowSink) -> Result<(), Failure> {
        let doing = format!("reading table {}", read.table.name);
        let (sql, held) = self.select(read, &doing).await?;
        let fields = read.columns.iter().zip(held).map(|(column, held)| Field { held, wanted: column.sql_type }).collect();
        self.session.copy(&doing, &sql, CopyReader::new(fields), sink).await
    }

    async fn totals(&mut self, read: &Read<'_>) -> Result<TableTotals, Failure> {
        let doing = format!("summing table {}", read.table.name);
        let (sql, held) = self.select(read, &doing).await?;
        totals::of(&mut self.session, &doing, &sql, read.columns, &held).await
    }
}

impl PostgresSnapshot {
    async fn prepared(&mut self, table: &TableConfig, doing: &str) -> Result<Vec<SourceColumn>, Failure> {
        let described = columns::describe(&mut self.session, doing, &DIALECT.all_columns(table)).await?;
        if table.query.is_some() {
            // Within brackets only what reads can stand, and only that can be copied and summed.
            columns::describe(&mut self.session, doing, &format!("SELECT * FROM {}", DIALECT.from(table))).await?;
        }
        let found = columns::look_up(&mut self.session, doing, described, table.query.is_none()).await?;
        for filtered in found.filtered {
            let warning = format!(
                "the login sees only those rows of table {filtered} that a row security policy shows it (row_security_active); \
                 the others are not sent"
            );
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        Ok(found.columns)
    }

    /// The statement for these rows, and what its columns hold.
    async fn select(&mut self, read: &Read<'_>, doing: &str) -> Result<(String, Vec<Held>), Failure> {
        let sql = DIALECT.rows(read);
        let described = columns::describe(&mut self.session, doing, &sql).await?;
        if described.len() != read.columns.len() {
            return Err(self.session.server.refused(doing, "its columns are not what they were"));
        }
        Ok((sql, described.into_iter().map(|column| column.held).collect()))
    }
}

/// A value as a literal of its type, so that it is compared as one: a text column that holds numbers is an error, not a
/// comparison of texts. Texts are compared by their characters' numbers, as the watermark's greatest value was found.
fn literal(sql_type: SqlType, value: &str) -> String {
    let quoted = format!("'{}'", value.replace('\'', "''"));
    match sql_type {
        SqlType::BigInt => format!("BIGINT {quoted}"),
        SqlType::Decimal { .. } => format!("NUMERIC {quoted}"),
        SqlType::Double => format!("DOUBLE PRECISION {quoted}"),
        SqlType::Text => format!("TEXT {quoted} COLLATE \"C\""),
        SqlType::Boolean => format!("BOOLEAN {quoted}"),
        SqlType::Date => format!("DATE {quoted}"),
        SqlType::Time => format!("TIME {quoted}"),
        SqlType::Timestamp => format!("TIMESTAMP {quoted}"),
        SqlType::TimestampTz => format!("TIMESTAMP WITH TIME ZONE {quoted}"),
        SqlType::Binary => {
            let bytes = BASE64_STANDARD.decode(value).unwrap_or_default();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("BYTEA '\\x{hex}'")
        }
    }
}
