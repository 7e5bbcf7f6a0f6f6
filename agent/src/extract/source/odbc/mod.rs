//! ODBC as a source: every database for which somebody gives a driver.
//!
//! ODBC blocks, so each connection lives on a thread of its own ([`worker`]), which the async side asks one thing after the
//! other. What differs between databases stands in [`dbms`]: how a read-only snapshot is taken, how values are written in SQL, how
//! sums stay exact. All text travels as UTF-16, in both directions: that is what Windows has, and with unixODBC it is the only form
//! that does not depend on the locale of the process.
//!
//! There is no safe call that cancels a statement on another thread. Where the database has SQL for it, a second connection ends the
//! statement; elsewhere the thread is left to itself until the driver comes back, at the latest after the statement timeout.

mod connect;
mod dbms;
mod error;
mod fetch;
mod literal;
mod session;
mod stop;
mod totals;
mod types;
mod worker;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock, Code, Failure, manifest::Snapshot};

use self::{
    session::Opened,
    stop::Stop,
    worker::{Reply, Work, Worker},
};
use super::{Read, RowSink, Source, SourceColumn, SourceSnapshot, TableTotals};
use crate::config::{OdbcConfig, TableConfig};

/// How long the end of a connection is waited for.
const END_WITHIN: Duration = Duration::from_secs(2);

/// A database with an ODBC driver.
pub(crate) struct OdbcSource {
    config: OdbcConfig,
    clock: Arc<dyn Clock>,
}

impl OdbcSource {
    /// Nothing is connected until the source is opened.
    pub(crate) fn new(config: OdbcConfig, clock: Arc<dyn Clock>) -> Self {
        Self { config, clock }
    }
}

impl fmt::Debug for OdbcSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OdbcSource").field("connection", &self.config.connection).finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for OdbcSource {
    async fn open(&self, _: &CancellationToken) -> Result<Box<dyn SourceSnapshot>, Failure> {
        let (thread, opened) = worker::start(self.config.clone(), Arc::clone(&self.clock))?;
        let opened = opened.await.map_err(|_| driver_failed("opening it"))??;
        Ok(Box::new(OdbcSnapshot { thread: Some(thread), opened, clock: Arc::clone(&self.clock) }))
    }
}

/// What the driver does is not in our hands; the thread ends where it does what ODBC does not allow.
fn driver_failed(doing: &str) -> Failure {
    Failure::retry(Code::Internal, format!("the ODBC driver failed in a way that ODBC does not know while {doing}"))
}

struct OdbcSnapshot {
    /// The thread ends when this goes.
    thread: Option<Worker>,
    opened: Opened,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for OdbcSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OdbcSnapshot").field("snapshot", &self.opened.snapshot).finish_non_exhaustive()
    }
}

impl OdbcSnapshot {
    /// Has the thread do something. Where the answer is not waited for, what the database does for it is ended.
    async fn ask<T>(&mut self, doing: &str, work: impl FnOnce(Reply<T>) -> Work) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let stop = Stop::unless_defused(&self.opened.killer);
        // Where the thread is gone, so is the other end of the answer.
        match &self.thread {
            Some(thread) => drop(thread.work.send(work(reply))),
            None => drop(reply),
        }
        let answer = answer.await;
        stop.defuse();
        answer.map_err(|_| driver_failed(doing))?
    }
}

#[async_trait]
impl SourceSnapshot for OdbcSnapshot {
    fn snapshot(&self) -> Snapshot {
        self.opened.snapshot.clone()
    }

    fn warnings(&self) -> Vec<String> {
        self.opened.warnings.clone()
    }

    async fn columns(&mut self, table: &TableConfig) -> Result<Vec<SourceColumn>, Failure> {
        let doing = format!("preparing table {}", table.name);
        let table = Box::new(table.clone());
        self.ask(&doing, |reply| Work::Columns { table, reply }).await
    }

    async fn rows(&mut self, read: &Read<'_>, sink: &mut RowSink) -> Result<(), Failure> {
        let doing = format!("reading table {}", read.table.name);
        let sql = self.opened.dialect.rows(read);
        let (columns, into) = (read.columns.to_vec(), sink.twin());
        let work = |reply| Work::Rows { sql, doing: doing.clone(), columns, into, reply };
        self.ask(&doing, work).await
    }

    async fn totals(&mut self, read: &Read<'_>) -> Result<TableTotals, Failure> {
        let doing = format!("summing table {}", read.table.name);
        totals::of(self, read, &doing).await
    }

    async fn close(&mut self) {
        let Some(Worker { work, ended }) = self.thread.take() else { return };
        drop(work);
        tokio::select! {
            // An error is the end too.
            _ = ended => {}
            () = self.clock.sleep(END_WITHIN) => tracing::debug!("an ODBC driver goes on with what was given up"),
        }
    }
}
