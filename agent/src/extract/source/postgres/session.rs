//! One connection: at most one statement at a time, a limit to the server's silence, and an end that reaches the server.

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream::BoxStream};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqlSafeStr as _,
    postgres::{PgConnectOptions, PgRow, PgStatement},
};
use towpath_transfer::{Clock, Code, Failure};

use super::{
    connect,
    copy::{Broken, CopyReader},
    error::Server,
};
use crate::extract::source::RowSink;

/// How long ending what is under way at the server may take.
const END: Duration = Duration::from_secs(10);

/// What the server does for us now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// A statement is under way, or was when its caller gave it up.
    Busy,
    /// The connection cannot be used any more, and the server knows.
    Spoiled,
}

/// Which of the server's processes works for us.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    pub(super) process: String,
    /// Tells it from a later process that was given the same number.
    pub(super) started: String,
}

/// A connection. Dropped while a statement is under way, it ends the statement at the server, too.
pub(super) struct Session {
    /// Taken when the session is dropped.
    connection: Option<PgConnection>,
    state: State,
    options: PgConnectOptions,
    /// Known once the session has begun.
    pub(super) backend: Option<Backend>,
    pub(super) server: Arc<Server>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("server", &self.server.shown).field("state", &self.state).finish_non_exhaustive()
    }
}

/// Why a COPY ended early.
enum Ended {
    Sql(sqlx::Error),
    Broken(Broken),
    Sink(Failure),
}

impl Session {
    pub(super) fn new(connection: PgConnection, options: PgConnectOptions, server: Arc<Server>, clock: Arc<dyn Clock>) -> Self {
        Self { connection: Some(connection), state: State::Idle, options, backend: None, server, clock }
    }

    /// Runs statements as they are and returns their rows, all of whose values come as text.
    pub(super) async fn query(&mut self, doing: &str, sql: String) -> Result<Vec<PgRow>, Failure> {
        let (clock, limit) = (Arc::clone(&self.clock), self.server.silence());
        let rows = within(&*clock, limit, sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(self.start(doing)?)).await;
        self.finish(doing, rows)
    }

    /// Prepares one statement, which runs nothing.
    pub(super) async fn prepare(&mut self, doing: &str, sql: &str) -> Result<PgStatement, Failure> {
        let (clock, limit) = (Arc::clone(&self.clock), self.server.silence());
        let sql = AssertSqlSafe(sql.to_owned()).into_sql_str();
        let prepared = within(&*clock, limit, self.start(doing)?.prepare(sql)).await;
        self.finish(doing, prepared)
    }

    /// Reads the rows of the query `sql` into `sink`.
    pub(super) async fn copy(
        &mut self,
        doing: &str,
        sql: &str,
        mut reader: CopyReader,
        sink: &mut RowSink,
    ) -> Result<(), Failure> {
        let (clock, limit) = (Arc::clone(&self.clock), self.server.silence());
        let statement = format!("COPY (\n{sql}\n) TO STDOUT (FORMAT text, ENCODING 'UTF8')");
        let connection = self.start(doing)?;
        let copied = async {
            let mut stream = within(&*clock, limit, connection.copy_out_raw(&statement)).await.map_err(Ended::Sql)?;
            while let Some(chunk) = next(&*clock, limit, &mut stream).await.map_err(Ended::Sql)? {
                reader.take(&chunk).map_err(Ended::Broken)?;
                while reader.row(sink).map_err(Ended::Broken)? {
                    sink.end_row().await.map_err(Ended::Sink)?;
                }
            }
            reader.finish().map_err(Ended::Broken)
        };
        match copied.await {
            Ok(()) => {
                self.state = State::Idle;
                Ok(())
            }
            Err(Ended::Sql(error)) => {
                let failure = self.finish::<()>(doing, Err(error));
                // The driver does not read what follows an error of COPY.
                self.state = if self.state == State::Busy { State::Busy } else { State::Spoiled };
                failure
            }
            // The server goes on sending until it is ended.
            Err(Ended::Broken(broken)) => {
                let told = format!("{} sent what is no row of COPY while {doing}", self.server.shown);
                Err(Failure::park(Code::Internal, told).caused_by(broken))
            }
            Err(Ended::Sink(failure)) => Err(failure),
        }
    }

    fn start(&mut self, doing: &str) -> Result<&mut PgConnection, Failure> {
        match (self.state, &mut self.connection) {
            (State::Idle, Some(connection)) => {
                self.state = State::Busy;
                Ok(connection)
            }
            _ => {
                let told = format!("{doing} cannot follow a statement that was given up");
                Err(Failure::park(Code::Internal, told))
            }
        }
    }

    fn finish<T>(&mut self, doing: &str, result: Result<T, sqlx::Error>) -> Result<T, Failure> {
        self.state = match &result {
            Ok(_) | Err(sqlx::Error::Database(_)) => State::Idle,
            // What has not answered in time may still be at work.
            Err(sqlx::Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => State::Busy,
            Err(_) => State::Spoiled,
        };
        result.map_err(|error| self.server.failure(doing, error))
    }
}

impl Session {
    /// Ends the session, and at the server what it was doing, within [`END`].
    pub(super) async fn close(&mut self) {
        if let Some(ending) = self.ending() {
            ending.await;
        }
    }

    /// What ends the session; `None` where it has been ended.
    fn ending(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let connection = self.connection.take()?;
        let (options, server, clock) = (self.options.clone(), Arc::clone(&self.server), Arc::clone(&self.clock));
        let backend = self.backend.take().filter(|_| self.state == State::Busy);
        Some(async move {
            let ending = async {
                let Some(backend) = backend else {
                    // It says goodbye, so that the server's log has no broken connection. What it says is of no use to anybody.
                    drop(connection.close().await);
                    return;
                };
                drop(connection);
                if let Ok(mut other) = connect::connect(&options, &server, &*clock, END).await {
                    let sql = format!(
                        "SELECT pg_catalog.pg_terminate_backend(pid)::pg_catalog.text FROM pg_catalog.pg_stat_activity \
                         WHERE pid = {} AND backend_start = '{}'",
                        backend.process, backend.started
                    );
                    // Where it fails, the server finds the closed connection by itself.
                    drop(sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut other).await);
                    drop(other.close().await);
                }
            };
            tokio::select! {
                () = ending => {}
                () = clock.sleep(END) => {}
            }
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Without a runtime the connection just closes; the server notices that within `CHECK` or with the next row.
        let (Some(ending), Ok(runtime)) = (self.ending(), tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(ending);
    }
}

async fn next(
    clock: &dyn Clock,
    limit: Option<Duration>,
    stream: &mut BoxStream<'_, Result<Bytes, sqlx::Error>>,
) -> Result<Option<Bytes>, sqlx::Error> {
    // Most rows are there already, and need no clock.
    match stream.next().now_or_never() {
        Some(ready) => ready.transpose(),
        None => within(clock, limit, async { stream.next().await.transpose() }).await,
    }
}

/// What `work` gives, or the error of a server that has not answered within `limit`.
async fn within<T>(
    clock: &dyn Clock,
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, sqlx::Error>> + Send,
) -> Result<T, sqlx::Error> {
    let Some(limit) = limit else { return work.await };
    tokio::select! {
        biased;
        done = work => done,
        () = clock.sleep(limit) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}
