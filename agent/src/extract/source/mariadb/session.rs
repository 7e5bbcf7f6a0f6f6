//! A connection with the settings of an extract, and how it ends.

use std::{fmt, path::Path, pin::pin, sync::Arc, time::Duration};

use futures::{
    TryStreamExt as _,
    future::{Either, select},
};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _, SqlSafeStr as _,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow, MySqlSslMode, MySqlStatement},
};
use towpath_transfer::{Clock, Code, Failure, manifest::Snapshot};

use super::{error, types};
use crate::{
    blocking::blocking,
    config::{DEFAULT_BUSY_TIMEOUT, ServerConfig, Tls},
};

/// How long connecting and logging in may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How long the end of a connection, or of a statement that is not wanted any more, is waited for.
const END_WITHIN: Duration = Duration::from_secs(2);
/// What a statement may take longer than the server lets it, before the server is taken for dead.
const SILENT_AFTER: Duration = Duration::from_secs(60);
/// How long a lock on a table's structure is waited for; rows are read without locks.
const LOCK_WAIT: Duration = DEFAULT_BUSY_TIMEOUT;
/// The least that the server is told to wait for us while we pack, whatever the statement timeout is.
const LEAST_PATIENCE: Duration = Duration::from_secs(600);
/// The most that servers take for a timeout in seconds: a year.
const MOST_SECONDS: u64 = 31_536_000;
/// The longest result of `GROUP_CONCAT`, which else is cut off without an error: the longest field of the wire.
const GROUP_CONCAT_BYTES: usize = towpath_transfer::csv::MAX_FIELD_BYTES;
/// The modes under which queries run, whatever the server's own are: MariaDB's defaults. Backslashes are special in texts and
/// `"` stands around texts.
pub(super) const SQL_MODE: &str = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION";

/// A connection to one server.
pub(super) struct Session {
    /// Absent once it has been closed.
    connection: Option<MySqlConnection>,
    end: End,
    /// Whether the server is at work for us, or has more rows than we have taken.
    busy: bool,
    shown: String,
    user: String,
    version: String,
    limit: Duration,
}

/// What is needed to end a statement from outside.
#[derive(Clone)]
struct End {
    options: MySqlConnectOptions,
    clock: Arc<dyn Clock>,
    /// The connection's number at the server.
    id: u64,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("server", &self.shown)
            .field("user", &self.user)
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Connects, logs in and sets what an extract needs. No transaction is begun.
    pub(super) async fn open(config: &ServerConfig, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let shown = shown(config);
        let options = options(config).await?;
        let opening = async {
            let failed = |error| error::failure(&shown, "opening it", error);
            let connection = options.connect().await.map_err(failed)?;
            let end = End { options: options.clone(), clock: Arc::clone(&clock), id: 0 };
            let mut session = Self {
                connection: Some(connection),
                end,
                busy: false,
                shown: shown.clone(),
                user: config.user.clone(),
                version: String::new(),
                limit: config.statement_timeout.saturating_add(SILENT_AFTER),
            };
            session.settle(config.statement_timeout).await?;
            Ok(session)
        };
        within(clock.as_ref(), CONNECT_WITHIN, opening).await.unwrap_or_else(|| Err(error::silent(&shown, "opening it")))
    }

    async fn settle(&mut self, statement_timeout: Duration) -> Result<(), Failure> {
        const DOING: &str = "preparing the session";
        let [version, id, user] = self.row(DOING, "SELECT VERSION(), CONNECTION_ID(), CURRENT_USER()").await?;
        self.version = version.unwrap_or_default();
        self.user = user.unwrap_or_default();
        self.end.id = id.and_then(|id| id.parse().ok()).unwrap_or_default();
        let seconds = |duration: Duration| duration.as_secs().clamp(1, MOST_SECONDS);
        let (lock, patience) = (seconds(statement_timeout.min(LOCK_WAIT)), seconds(statement_timeout.max(LEAST_PATIENCE)));
        let timeout = if self.is_mariadb() {
            format!("max_statement_time = {}", statement_timeout.as_secs_f64().clamp(0.001, MOST_SECONDS as f64))
        } else {
            format!("max_execution_time = {}", statement_timeout.as_millis().clamp(1, u128::from(u32::MAX)))
        };
        let settings = format!(
            "SET SESSION sql_mode = '{SQL_MODE}', SESSION lock_wait_timeout = {lock}, SESSION innodb_lock_wait_timeout = {lock}, \
             SESSION net_write_timeout = {patience}, SESSION wait_timeout = {patience}, \
             SESSION group_concat_max_len = {GROUP_CONCAT_BYTES}, SESSION {timeout}"
        );
        self.run(DOING, &settings).await
    }

    /// Begins the transaction that is the snapshot of all tables.
    pub(super) async fn begin(&mut self) -> Result<Snapshot, Failure> {
        const DOING: &str = "taking the snapshot";
        // Also for what follows, should a query end the transaction.
        self.run(DOING, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
        self.run(DOING, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        let [time] = self.row(DOING, "SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')").await?;
        let names = "'server_uid', 'server_uuid', 'server_id', 'hostname'";
        let mut facts = self.texts(DOING, format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")).await?;
        // Only where the server writes a binary log is there a position; this one belongs to the snapshot itself.
        facts.extend(self.texts(DOING, "SHOW SESSION STATUS LIKE 'Binlog_snapshot_%'".to_owned()).await?);
        let fact = |name: &str| {
            let row =
                facts.iter().find(|row| row.first().and_then(Option::as_deref).is_some_and(|n| n.eq_ignore_ascii_case(name)));
            row.and_then(|row| row.get(1)).and_then(Option::as_deref).filter(|value| !value.is_empty())
        };
        let server = fact("server_uuid").or(fact("server_uid")).or(fact("hostname")).or(fact("server_id")).unwrap_or("unknown");
        let brand = if self.is_mariadb() { "mariadb" } else { "mysql" };
        let mut id = format!("{brand} {} at {}, server {server}", self.version, time.unwrap_or_default());
        if let (Some(file), Some(position)) = (fact("Binlog_snapshot_file"), fact("Binlog_snapshot_position")) {
            id = format!("{id}, binary log {file}:{position}");
        }
        // https://mariadb.com/kb/en/start-transaction/: the clause has its effect under this isolation.
        Ok(Snapshot { id, isolation: "repeatable read, consistent snapshot".to_owned(), consistent: true })
    }

    pub(super) fn is_mariadb(&self) -> bool {
        self.version.contains("MariaDB")
    }

    /// The server, for messages.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// The account as which the server takes the login.
    pub(super) fn user(&self) -> String {
        self.user.clone()
    }

    /// Runs a statement that gives no rows.
    pub(super) async fn run(&mut self, doing: &str, sql: &str) -> Result<(), Failure> {
        self.texts(doing, sql.to_owned()).await.map(drop)
    }

    /// One row of a few texts.
    pub(super) async fn row<const N: usize>(&mut self, doing: &str, sql: &str) -> Result<[Option<String>; N], Failure> {
        let rows = self.texts(doing, sql.to_owned()).await?;
        let row = rows.into_iter().next().and_then(|row| <[Option<String>; N]>::try_from(row).ok());
        row.ok_or_else(|| error::refused(&self.shown, doing, "the server gave another answer than was asked for"))
    }

    /// The few rows of a statement, as texts.
    pub(super) async fn texts(&mut self, doing: &str, sql: String) -> Result<Vec<Vec<Option<String>>>, Failure> {
        let connection = connected(&mut self.connection, &self.shown, doing)?;
        self.busy = true;
        let mut rows = Vec::new();
        let mut found = sqlx::raw_sql(AssertSqlSafe(sql)).fetch(connection);
        let ended = loop {
            match found.try_next().await {
                Ok(Some(row)) => rows.push(texts_of(&row)),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(found);
        self.busy = false;
        ended.map_err(|error| error::failure(&self.shown, doing, error))?;
        Ok(rows)
    }

    /// Prepares a statement without running it. Only one statement can stand in it.
    pub(super) async fn prepare(&mut self, doing: &str, sql: String) -> Result<MySqlStatement, Failure> {
        let connection = connected(&mut self.connection, &self.shown, doing)?;
        self.busy = true;
        let prepared = connection.prepare(AssertSqlSafe(sql).into_sql_str()).await;
        self.busy = false;
        prepared.map_err(|error| error::failure(&self.shown, doing, error))
    }

    /// Begins to read rows by the binary protocol.
    pub(super) fn fetch(&mut self, doing: &str, sql: String) -> Result<Rows<'_>, Failure> {
        let connection = connected(&mut self.connection, &self.shown, doing)?;
        self.busy = true;
        // Rows are taken from the socket one by one as they are asked for; the server waits.
        let rows = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch(connection);
        Ok(Rows { rows, busy: &mut self.busy, shown: &self.shown })
    }

    /// What ends waiting for a server that has not ended a statement though it should have.
    pub(super) fn watch(&self) -> Watch {
        Watch { clock: Arc::clone(&self.end.clock), limit: self.limit, shown: self.shown.clone() }
    }

    /// Ends what the server still does for us, and the connection.
    pub(super) async fn close(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if std::mem::take(&mut self.busy) {
            self.end.kill().await;
        } else {
            // The server notices anyway; saying so spares it a line in its log.
            within(self.end.clock.as_ref(), END_WITHIN, connection.close()).await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A server that computes does not notice that nobody listens any more.
        if self.connection.is_some()
            && self.busy
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let end = self.end.clone();
            drop(runtime.spawn(async move { end.kill().await }));
        }
    }
}

impl End {
    /// Ends the connection with what it is doing, from a second one. Any login may do that to its own.
    async fn kill(&self) {
        let killing = async {
            let mut connection = self.options.connect().await?;
            sqlx::raw_sql(AssertSqlSafe(format!("KILL CONNECTION {}", self.id))).execute(&mut connection).await?;
            connection.close().await
        };
        match within(self.clock.as_ref(), END_WITHIN, killing).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!(%error, "a statement could not be ended at the ERP database; its timeout ends it"),
            None => tracing::warn!("a statement could not be ended at the ERP database in time; its timeout ends it"),
        }
    }
}

/// Ends waiting for a server that does not answer any more.
pub(super) struct Watch {
    clock: Arc<dyn Clock>,
    limit: Duration,
    shown: String,
}

impl Watch {
    /// Gives `work` up when it has taken longer than the server would have let a statement take.
    pub(super) async fn over<T>(&self, doing: &str, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let done = within(self.clock.as_ref(), self.limit, work).await;
        done.unwrap_or_else(|| Err(error::silent(&self.shown, doing)))
    }
}

/// Rows on their way.
pub(super) struct Rows<'a> {
    rows: futures::stream::BoxStream<'a, Result<MySqlRow, sqlx::Error>>,
    busy: &'a mut bool,
    shown: &'a str,
}

impl Rows<'_> {
    pub(super) async fn next(&mut self, doing: &str) -> Result<Option<MySqlRow>, Failure> {
        let next = self.rows.try_next().await;
        if !matches!(next, Ok(Some(_))) {
            *self.busy = false;
        }
        next.map_err(|error| error::failure(self.shown, doing, error))
    }
}

fn connected<'a>(
    connection: &'a mut Option<MySqlConnection>,
    shown: &str,
    doing: &str,
) -> Result<&'a mut MySqlConnection, Failure> {
    let closed = || Failure::park(Code::Internal, format!("{doing} of the ERP database {shown} after its connection was closed"));
    connection.as_mut().ok_or_else(closed)
}

fn texts_of(row: &MySqlRow) -> Vec<Option<String>> {
    let text = |index| row.try_get_raw(index).ok().and_then(types::raw).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (0..row.len()).map(text).collect()
}

/// `None` where `work` takes longer than `limit`.
async fn within<T>(clock: &dyn Clock, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    match select(pin!(work), clock.sleep(limit)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

fn shown(config: &ServerConfig) -> String {
    if config.host.starts_with('/') {
        format!("{} at {}", config.database, config.host)
    } else {
        format!("{} at {}:{}", config.database, config.host, config.port)
    }
}

async fn options(config: &ServerConfig) -> Result<MySqlConnectOptions, Failure> {
    let (secret, user, ca) = (config.password.clone(), config.user.clone(), config.ca.clone());
    let read = move || {
        let what = format!("the password of {user}");
        let password = secret.map(|secret| towpath_keys::read_secret(&secret, &what));
        Ok((password.transpose()?, ca.as_deref().map(read_ca).transpose()?))
    };
    let (password, ca) = blocking(read).await?;
    let mut options = MySqlConnectOptions::new()
        .username(&config.user)
        .database(&config.database)
        .charset("utf8mb4")
        .timezone("+00:00".to_owned())
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .statement_cache_capacity(0)
        .ssl_mode(match config.tls {
            Tls::Off => MySqlSslMode::Disabled,
            Tls::Prefer => MySqlSslMode::Preferred,
            Tls::Verify => MySqlSslMode::VerifyIdentity,
        })
        .disable_statement_logging();
    options = match config.host.strip_prefix('/') {
        Some(_) => options.socket(&config.host),
        None => options.host(&config.host).port(config.port),
    };
    if let Some(password) = &password {
        options = options.password(password);
    }
    Ok(match ca {
        Some(ca) => options.ssl_ca_from_pem(ca),
        None => options,
    })
}

fn read_ca(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| {
        let told = format!("the certificate authority {} of the source cannot be read", path.display());
        Failure::park(Code::ConfigInvalid, told).caused_by(error)
    })
}
