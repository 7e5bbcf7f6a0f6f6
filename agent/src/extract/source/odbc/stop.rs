//! Ending what a database does for us: by SQL of another connection, where the database has such SQL.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::connect;

/// How often a statement is ended that does not end; it may just not have begun.
const TRIES: usize = 5;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Ends the statement of one session.
pub(super) struct Killer {
    /// The whole connection string, with the password.
    connection: String,
    /// What ends the session's statement; `None` where the database has nothing for it.
    sql: Option<String>,
    /// Pieces of work that were asked for.
    asked: AtomicU64,
    /// Pieces of work that are finished.
    finished: Mutex<u64>,
    changed: Condvar,
}

impl fmt::Debug for Killer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Killer").field("sql", &self.sql).finish_non_exhaustive()
    }
}

impl Killer {
    /// `sql` ends the statement of the session that `connection` has opened.
    pub(super) fn new(connection: String, sql: Option<String>) -> Arc<Self> {
        Arc::new(Self { connection, sql, asked: AtomicU64::new(0), finished: Mutex::new(0), changed: Condvar::new() })
    }

    /// The whole connection string, with the password.
    pub(super) fn connection(&self) -> &str {
        &self.connection
    }

    /// The session has finished a piece of work.
    pub(super) fn finished(&self) {
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Ends the session's statement now. That it could not be ended is told to the log only: the session ends by itself later.
    pub(super) fn kill(&self) {
        let Some(sql) = &self.sql else { return };
        let killed = connect::connect(&self.connection).and_then(|connection| connection.execute(sql, (), None).map(drop));
        if let Err(error) = killed {
            tracing::warn!(%error, "a statement of the ERP database could not be ended; it goes on until its timeout");
        }
    }

    fn kill_until_finished(&self, number: u64) {
        for _ in 0..TRIES {
            if *self.finished.lock().unwrap_or_else(PoisonError::into_inner) >= number {
                return;
            }
            self.kill();
            let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.changed.wait_timeout_while(finished, PAUSE, |finished| *finished < number);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Ends the session's statement when it is dropped, unless it was defused before.
#[derive(Debug)]
pub(super) struct Stop(Option<(Arc<Killer>, u64)>);

impl Stop {
    /// For the next piece of work.
    pub(super) fn unless_defused(killer: &Arc<Killer>) -> Self {
        let number = killer.asked.fetch_add(1, Ordering::Relaxed) + 1;
        Self(Some((Arc::clone(killer), number)))
    }

    /// The work is done.
    pub(super) fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        let Some((killer, number)) = self.0.take() else { return };
        if killer.sql.is_none() {
            return;
        }
        let thread = thread::Builder::new().name("odbc-stop".to_owned()).spawn(move || killer.kill_until_finished(number));
        if let Err(error) = thread {
            tracing::warn!(%error, "a statement of the ERP database could not be ended; it goes on until its timeout");
        }
    }
}
