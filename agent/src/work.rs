//! Who does the work of a state folder: this process where it can have the lock, else the one that has it.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use towpath_journal::{Observer, TransferRecord, WakeUp};
use towpath_transfer::{Code, Failure, TransferId, TransferState, failure::Result};

use crate::{
    lock::StateLock,
    parts::Parts,
    uplink::{Engine, prune::prune_or_warn, replan},
};

/// How often the journal is looked at while another process, or this one, works.
pub const LOOK: Duration = Duration::from_millis(100);

/// Work on a state folder, by this process or by another.
pub struct Worker {
    parts: Arc<Parts>,
    wake: WakeUp,
    observer: Arc<dyn Observer>,
    running: Option<(StateLock, CancellationToken, JoinHandle<()>)>,
}

impl Worker {
    /// Begins to work where no other process does.
    ///
    /// # Errors
    /// `file-failed` where the lock cannot be made, `journal-failed`.
    pub async fn start(parts: Arc<Parts>, wake: WakeUp, observer: Arc<dyn Observer>) -> Result<Self> {
        let mut worker = Self { parts, wake, observer, running: None };
        worker.take_over().await?;
        Ok(worker)
    }

    /// Begins to work, and refuses where another process does.
    ///
    /// # Errors
    /// `already-running`, and as [`Worker::start`].
    pub async fn start_alone(parts: Arc<Parts>, wake: WakeUp, observer: Arc<dyn Observer>) -> Result<Self> {
        let lock = StateLock::take(&parts.layout.lock())?;
        let mut worker = Self { parts, wake, observer, running: None };
        worker.run(lock).await?;
        Ok(worker)
    }

    /// Whether this process does the work.
    #[must_use]
    pub fn works(&self) -> bool {
        self.running.is_some()
    }

    /// Hints that something is due.
    pub fn hint(&self) {
        self.wake.hint();
    }

    async fn take_over(&mut self) -> Result<()> {
        if self.running.is_none()
            && let Some(lock) = StateLock::try_take(&self.parts.layout.lock())?
        {
            self.run(lock).await?;
        }
        Ok(())
    }

    async fn run(&mut self, lock: StateLock) -> Result<()> {
        // Whoever held leases is gone: the lock says so.
        self.parts.journal.break_leases().await?;
        prune_or_warn(&self.parts).await;
        let engine = Engine::new(Arc::clone(&self.parts), self.wake.clone()).observed_by(Arc::clone(&self.observer));
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(engine.run(shutdown.clone()));
        self.running = Some((lock, shutdown, task));
        Ok(())
    }

    /// Lets running steps finish, gives leases back and lets go of the lock.
    pub async fn stop(self) {
        let Some((lock, shutdown, task)) = self.running else { return };
        shutdown.cancel();
        if let Err(error) = task.await {
            tracing::error!(%error, "the stages ended unexpectedly");
        }
        drop(lock);
    }

    /// Waits until a transfer has come as far as `goal`, waits for a person, or `limit` is over. A transfer that was rejected
    /// because the app lacks its base is followed by one in full, once, and that one is waited for.
    ///
    /// # Errors
    /// `cancelled` by `shutdown`, the transfer's own trouble when `limit` is over, and as the journal reports.
    pub async fn follow(
        &mut self,
        id: TransferId,
        goal: Goal,
        limit: Duration,
        shutdown: &CancellationToken,
    ) -> Result<TransferRecord> {
        let clock = Arc::clone(&self.parts.clock);
        let until = clock.monotonic().saturating_add(limit);
        let mut id = id;
        loop {
            let key = self.parts.key(id);
            let record = self.parts.journal.get(&key).await?;
            let record = record.ok_or_else(|| Failure::park(Code::NotFound, format!("there is no transfer {id}")))?;
            if goal.is_reached(&record) {
                match replan::after(&self.parts, &record).await? {
                    Some(next) => {
                        tracing::warn!(transfer = %id, next = %next.key.id, "the app lacks what it builds on; everything is sent in full");
                        id = next.key.id;
                        self.wake.hint();
                        continue;
                    }
                    None => return Ok(record),
                }
            }
            if record.parked {
                return Ok(record);
            }
            if clock.monotonic() >= until {
                return Err(too_late(&record, limit));
            }
            self.take_over().await?;
            tokio::select! {
                () = clock.sleep(LOOK) => {}
                () = shutdown.cancelled() => {
                    let message = format!("told to stop; transfer {id} goes on with the next `towpath-agent run` or `send`");
                    return Err(Failure::park(Code::Cancelled, message));
                }
            }
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({})", if self.works() { "works" } else { "watches" })
    }
}

fn too_late(record: &TransferRecord, limit: Duration) -> Failure {
    let (id, word) = (record.key.id, record.state.word());
    let seconds = limit.as_secs();
    match &record.last_failure {
        Some(failure) => {
            let message = format!("transfer {id} is still {word} after {seconds} s and is tried again later");
            Failure::retry(failure.code, message).caused_by(failure.report.clone())
        }
        None => Failure::retry(Code::Cancelled, format!("transfer {id} is still {word} after {seconds} s; it goes on by itself")),
    }
}

/// How far a transfer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The relay has everything.
    Pushed,
    /// The receiver's receipt is here.
    Settled,
}

impl Goal {
    /// Whether a transfer is so far.
    #[must_use]
    pub fn is_reached(self, record: &TransferRecord) -> bool {
        record.state.is_final()
            || self == Self::Pushed && matches!(record.state, TransferState::Pushed { .. } | TransferState::Accepted { .. })
    }
}
