//! Where the running service puts what happens. Nobody waits for the disk: one writer takes what was put here and appends it.

use std::{
    collections::VecDeque,
    fmt,
    future::pending,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use towpath_journal::{Filter, Journal, MAX_LIST};
use towpath_transfer::{AgentName, Clock, Code, Failure, TenantName, TransferId, failure::Result};

use super::{Action, Entry, Who, throttle::Throttle};
use crate::registry::Registry;

/// The rows that may wait to be written; what comes then is lost, and counted.
pub const QUEUE_ROWS: usize = 10_000;
/// The rows of one transaction.
const BATCH_ROWS: usize = 500;
/// The questions for unknown transfers that may wait to be looked at; of what comes then it is noted who has asked.
pub(super) const QUEUE_ASKED: usize = 1_000;
/// As many of them as one end may have there, so that one that asks for ever more ids leaves room for what others have asked.
pub(super) const QUEUE_ASKED_OF_ONE: usize = 100;
/// The questions that are looked at between two batches of rows.
const LOOK_UPS: usize = 50;
/// How many look-ups may fail in a row; then no further one is made that time, and of what waits it is noted who has asked.
pub(super) const LOOK_UP_FAILURES: usize = 3;
/// How long look-ups may take when the service ends, all together; of what is left then it is noted who has asked. With the grace of
/// the shutdown before it and the last writes behind it this ends before the service manager kills.
pub(super) const CLOSING_LOOK_UP: Duration = Duration::from_secs(5);
/// What is said of a question that does not fit.
const DROPPED: &str = "more transfers that are not there than are looked up";
/// How often the trail says that rows are missing.
const GAP_PERIOD: Duration = Duration::from_secs(60);
/// How often what was held back is looked at, and how long the writer rests after it has failed.
const TICK: Duration = Duration::from_secs(5);

/// The way into the audit trail. Clones share it.
#[derive(Clone)]
pub struct Trail {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    waiting: Mutex<Waiting>,
    wake: Notify,
    /// What is being written; it stays here until it is.
    writing: tokio::sync::Mutex<Vec<Entry>>,
}

#[derive(Default)]
struct Waiting {
    rows: VecDeque<Entry>,
    asked: VecDeque<Asked>,
    throttle: Throttle,
    /// Rows that did not fit.
    lost: u64,
    /// When a gap was told last, by the monotonic clock.
    gap_told: Option<Duration>,
}

/// Somebody has asked for a transfer that is not there for them.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) at: Timestamp,
    pub(super) who: Who,
    pub(super) tenant: TenantName,
    /// The agent, where it was one: to it also the other agents' transfers are someone else's.
    pub(super) agent: Option<AgentName>,
    pub(super) id: TransferId,
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trail").field("waiting", &self.lock().rows.len()).finish_non_exhaustive()
    }
}

impl Asked {
    /// Whether the same end has asked, with whatever key and from wherever.
    fn is_of_same(&self, other: &Self) -> bool {
        (&self.tenant, self.who.role, &self.who.name) == (&other.tenant, other.who.role, &other.who.name)
    }

    /// What became of it.
    fn entry(self, action: Action, code: Code) -> Entry {
        Entry::new(self.at, self.who, action).of(&self.tenant).transfer(self.id).failed(code)
    }
}

impl Waiting {
    fn push(&mut self, entry: Entry) {
        if self.rows.len() >= QUEUE_ROWS {
            self.lost = self.lost.saturating_add(1);
        } else {
            self.rows.push_back(entry);
        }
    }

    fn note(&mut self, entry: Entry, now: Duration) {
        if let Some(entry) = self.throttle.take(entry, now) {
            self.push(entry);
        }
    }
}

impl Trail {
    /// A trail into `registry`. Nothing is written before [`Trail::run`] or [`Trail::flush`].
    #[must_use]
    pub fn new(registry: Registry, journal: Arc<dyn Journal>, clock: Arc<dyn Clock>) -> Self {
        let (waiting, wake, writing) = (Mutex::default(), Notify::new(), tokio::sync::Mutex::default());
        Self { inner: Arc::new(Inner { registry, journal, clock, waiting, wake, writing }) }
    }

    /// The time that entries carry.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Notes what the relay itself has done. Never waits.
    pub fn record(&self, entry: Entry) {
        self.lock().push(entry);
        self.inner.wake.notify_one();
    }

    /// Notes what somebody else has done or tried; what is alike within a minute is counted. Never waits.
    pub fn note(&self, entry: Entry) {
        let now = self.inner.clock.monotonic();
        self.lock().note(entry, now);
        self.inner.wake.notify_one();
    }

    /// Whether it is someone else's is looked up later: the answer takes as long either way. Whoever asks for more than can be looked
    /// up is noted for that, because what was dropped may be just what it was after.
    pub(super) fn asked(&self, asked: Asked) {
        let now = self.inner.clock.monotonic();
        let mut waiting = self.lock();
        let of_same = waiting.asked.iter().filter(|other| other.is_of_same(&asked)).count();
        if waiting.asked.len() >= QUEUE_ASKED || of_same >= QUEUE_ASKED_OF_ONE {
            let entry = Entry::new(asked.at, asked.who, Action::Unchecked).of(&asked.tenant).detail(DROPPED);
            waiting.note(entry.failed(Code::LimitExceeded), now);
        } else {
            waiting.asked.push_back(asked);
        }
        drop(waiting);
        self.inner.wake.notify_one();
    }

    /// Writes until `shutdown` is cancelled, and then waits for no look-up. Where writing fails it goes on trying; what cannot wait
    /// any longer is counted.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = self.inner.wake.notified(), if !failing => {}
                () = self.inner.clock.sleep(TICK) => {}
                () = shutdown.cancelled() => return,
            }
            match self.flush_until(false, shutdown.cancelled()).await {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("the audit trail is written again");
                }
                Ok(()) => {}
                Err(failure) => {
                    if !failing {
                        unwritten(&failure);
                    }
                    failing = true;
                }
            }
        }
    }

    /// Writes everything there is, once, at the end of the service. Questions are looked at for at most `CLOSING_LOOK_UP`; of those
    /// that are left it is noted who has asked.
    pub async fn close(&self) {
        let mut writing = self.inner.writing.lock().await;
        // What waits comes first: the service manager kills whoever takes too long, and a look-up may take as long as it likes.
        self.take_due(true);
        if let Err(failure) = self.write(&mut writing).await {
            unwritten(&failure);
        }
        self.look_up(usize::MAX, self.inner.clock.sleep(CLOSING_LOOK_UP)).await;
        self.leave_unchecked(Code::Cancelled);
        self.take_due(true);
        self.record(Entry::new(self.now(), Who::relay(), Action::Stopped));
        let written = match self.write(&mut writing).await {
            Ok(()) => self.tell_gap(true).await,
            failed => failed,
        };
        if let Err(failure) = written {
            let lost = writing.len() + self.lock().rows.len();
            tracing::error!(
                code = %failure.code(), error = failure.report(), lost,
                "the service ends with rows that its audit trail will not have"
            );
        }
    }

    /// Writes what waits; with `everything` also what is held back to be counted.
    ///
    /// # Errors
    /// [`Code::FileFailed`], [`Code::DiskFull`]; nothing is lost then, and the next call tries again.
    pub async fn flush(&self, everything: bool) -> Result<()> {
        self.flush_until(everything, pending()).await
    }

    /// As [`Trail::flush`]; once `stop` is over nothing more is looked up.
    async fn flush_until(&self, everything: bool, stop: impl Future<Output = ()>) -> Result<()> {
        let mut writing = self.inner.writing.lock().await;
        self.take_due(everything);
        let written = self.write(&mut writing).await;
        // Afterwards, and so many at a time: whoever asks without end must not keep anything else from being written. Where nothing
        // can be, everything that waits is looked at: the next try comes only after a while, and honest questions must not pile up.
        self.look_up(if written.is_ok() { LOOK_UPS } else { QUEUE_ASKED }, stop).await;
        written?;
        self.take_due(everything);
        self.write(&mut writing).await?;
        self.tell_gap(everything).await
    }

    async fn write(&self, writing: &mut Vec<Entry>) -> Result<()> {
        loop {
            if writing.is_empty() {
                writing.extend(self.next_batch());
            }
            if writing.is_empty() {
                return Ok(());
            }
            self.inner.registry.audit_append(writing).await?;
            writing.clear();
        }
    }

    fn take_due(&self, everything: bool) {
        let now = self.inner.clock.monotonic();
        let mut waiting = self.lock();
        for entry in waiting.throttle.due(now, everything) {
            waiting.push(entry);
        }
    }

    fn next_batch(&self) -> Vec<Entry> {
        let mut waiting = self.lock();
        let most = waiting.rows.len().min(BATCH_ROWS);
        waiting.rows.drain(..most).collect()
    }

    /// Says in the trail itself that it is not whole, at most once in [`GAP_PERIOD`].
    async fn tell_gap(&self, everything: bool) -> Result<()> {
        let now = self.inner.clock.monotonic();
        let lost = {
            let mut waiting = self.lock();
            let soon = waiting.gap_told.is_some_and(|told| now.saturating_sub(told) < GAP_PERIOD);
            if waiting.lost == 0 || (soon && !everything) {
                return Ok(());
            }
            waiting.gap_told = Some(now);
            std::mem::take(&mut waiting.lost)
        };
        let entry = Entry::new(self.now(), Who::relay(), Action::Gap).detail(format!("{lost} rows could not be written"));
        let told = self.inner.registry.audit_append(&[entry.failed(Code::FileFailed)]).await;
        if told.is_err() {
            let mut waiting = self.lock();
            waiting.lost = waiting.lost.saturating_add(lost);
        }
        told
    }

    /// Looks at so many questions at most. Once `stop` is over the rest stays, with the one that was being looked at; after
    /// [`LOOK_UP_FAILURES`] in a row the rest is left unchecked, because each of them may take long to fail.
    async fn look_up(&self, most: usize, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let (mut in_a_row, mut told) = (0, false);
        for _ in 0..most {
            let Some(asked) = self.lock().asked.pop_front() else { return };
            let foreign = tokio::select! {
                biased;
                () = &mut stop => {
                    self.lock().asked.push_front(asked);
                    return;
                }
                foreign = self.is_foreign(&asked) => foreign,
            };
            match foreign {
                Ok(foreign) => {
                    in_a_row = 0;
                    if foreign {
                        self.note(asked.entry(Action::Foreign, Code::NotFound));
                    }
                }
                Err(failure) => {
                    in_a_row += 1;
                    if !told {
                        told = true;
                        tracing::warn!(code = %failure.code(), error = failure.report(), "whose a transfer is could not be looked up");
                    }
                    self.note(asked.entry(Action::Unchecked, failure.code()));
                    if in_a_row >= LOOK_UP_FAILURES {
                        return self.leave_unchecked(failure.code());
                    }
                }
            }
        }
        self.inner.wake.notify_one();
    }

    /// Notes of every question that waits who has asked it, and why it is not looked at.
    fn leave_unchecked(&self, code: Code) {
        let now = self.inner.clock.monotonic();
        let mut waiting = self.lock();
        let left = std::mem::take(&mut waiting.asked);
        let unchecked = left.len();
        for asked in left {
            waiting.note(asked.entry(Action::Unchecked, code), now);
        }
        drop(waiting);
        if unchecked > 0 {
            tracing::warn!(%code, unchecked, "whose these transfers are is not looked up; the audit trail says who has asked for them");
        }
    }

    async fn is_foreign(&self, asked: &Asked) -> Result<bool> {
        let filter = Filter { id: Some(asked.id), ..Filter::default() };
        let found = self.inner.journal.list(&filter, MAX_LIST, None).await.map_err(Failure::from)?;
        Ok(found.iter().any(|record| {
            record.key.tenant != asked.tenant || asked.agent.as_ref().is_some_and(|agent| *agent != record.key.agent)
        }))
    }

    /// How many questions wait.
    #[cfg(test)]
    pub(super) fn asks(&self) -> usize {
        self.lock().asked.len()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unwritten(failure: &Failure) {
    tracing::error!(code = %failure.code(), error = failure.report(), "the audit trail cannot be written; it is tried again");
}
