//! The driver of a stage: it alone loops, leases, appends, retries and backs off.

mod again;
mod settings;
mod step;
#[cfg(test)]
mod tests;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock, Entropy, TransferKey};

use crate::{
    error::JournalError,
    record::{Lease, Sharer, Wanted},
    traits::Journal,
};

pub use again::Again;
pub use settings::{Backoff, DriverSettings, LONGEST_PAUSE, LONGEST_TROUBLED_POLL, WakeUp};
pub use step::{FailPoints, NoFailPoints, NoObserver, Observer, Point, StageReport, StageResult, Step, StepOutcome, Turn};

use work::{HAND_BACK_PAUSE, Worker};

/// The most times of pauses a driver remembers; beyond them it relies on its poll.
const MAX_AGENDA: usize = 1_024;

/// Drives one stage of one program until it is told to stop.
pub struct StageDriver {
    worker: Worker,
}

impl fmt::Debug for StageDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, stage) = (self.worker.step.place(), self.worker.step.stage());
        f.debug_struct("StageDriver").field("place", &place).field("stage", &stage).finish_non_exhaustive()
    }
}

impl StageDriver {
    /// A driver of `step` over `journal`. `wake` is shared with whoever learns that something may be due.
    #[must_use]
    pub fn new(
        journal: Arc<dyn Journal>,
        step: Arc<dyn Step>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        wake: WakeUp,
        settings: DriverSettings,
    ) -> Self {
        let (observer, failpoints) = (Arc::new(NoObserver), Arc::new(NoFailPoints));
        Self { worker: Worker { journal, step, clock, entropy, wake, settings, observer, failpoints } }
    }

    /// Lets `observer` watch.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn Observer>) -> Self {
        self.worker.observer = observer;
        self
    }

    /// Passes `failpoints` at each point; for tests.
    #[must_use]
    pub fn with_failpoints(mut self, failpoints: Arc<dyn FailPoints>) -> Self {
        self.worker.failpoints = failpoints;
        self
    }

    /// Works until `shutdown` is cancelled, then acquires nothing more, lets running steps finish within
    /// [`DriverSettings::shutdown_grace`], and gives the leases of the others back. Dropping the future instead stops
    /// everything where it stands, as a crash would.
    pub async fn run(self, shutdown: CancellationToken) {
        let worker = Arc::new(self.worker);
        let mut running = Running::default();
        let mut hints = worker.wake.subscribe();
        let mut journal_failures = 0u32;
        let (place, stage) = (worker.step.place(), worker.step.stage());
        while !shutdown.is_cancelled() {
            worker.observer.turned(place, stage, Turn::Working);
            // Marked as seen before the journal is asked, so that a hint meanwhile leads to asking again.
            hints.mark_unchanged();
            running.collect();
            running.forget_until(worker.clock.monotonic());
            match running.fill(&worker).await {
                Ok(()) => journal_failures = 0,
                Err(error) => {
                    journal_failures = journal_failures.saturating_add(1);
                    worker.journal_failed(&error);
                }
            }
            let full = running.set.len() >= worker.settings.at_once();
            let pause = match journal_failures {
                0 => running.next(worker.clock.monotonic()).min(worker.settings.poll),
                failures => worker.settings.backoff.pause(failures, &*worker.entropy),
            };
            worker.observer.turned(place, stage, Turn::Resting);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                Some(done) = running.set.join_next_with_id(), if !running.set.is_empty() => running.note(done),
                () = hints.changed(), if !full && journal_failures == 0 => {}
                () = worker.clock.sleep(pause), if !full => {}
            }
        }
        running.drain(&worker).await;
    }
}

/// The steps under way, and when those that pause are due again.
#[derive(Default)]
struct Running {
    /// Each task says at which monotonic time its transfer is due again, where it pauses.
    set: JoinSet<Option<Duration>>,
    /// The transfer of each task in the set.
    keys: HashMap<Id, TransferKey>,
    agenda: BTreeSet<Duration>,
    interrupt: CancellationToken,
}

impl Running {
    /// Begins what is due, as long as places are free, with no more of any tenant or agent than its share. Where a question could ask
    /// for less than is free, so that it does not bring more of one of them, another one follows.
    async fn fill(&mut self, worker: &Arc<Worker>) -> Result<(), JournalError> {
        let settings = &worker.settings;
        loop {
            let free = settings.at_once().saturating_sub(self.set.len());
            if free == 0 {
                return Ok(());
            }
            let (without, room) = self.shares(settings.shares());
            let asked = free.min(room);
            let step = &worker.step;
            let wanted = Wanted { stage: step.stage(), direction: step.direction(), order: step.order(), without };
            let leases = worker.journal.acquire_wanted(&wanted, asked, settings.lease_ttl).await?;
            let all = leases.len() < asked || asked == free;
            for lease in leases {
                self.begin(worker, lease).await;
            }
            if all {
                return Ok(());
            }
        }
    }

    /// The tenants and agents that have their share, and how many transfers fit into what every other one has left of it.
    fn shares(&self, of_each: [usize; 2]) -> (Vec<Sharer>, usize) {
        let (mut full, mut room) = (Vec::new(), usize::MAX);
        for (sharer, share) in [Sharer::tenant, Sharer::agent].into_iter().zip(of_each) {
            let mut running = BTreeMap::<Sharer, usize>::new();
            for key in self.keys.values() {
                *running.entry(sharer(key)).or_default() += 1;
            }
            let most = running.values().filter(|count| **count < share).max().copied().unwrap_or_default();
            room = room.min(share.saturating_sub(most));
            full.extend(running.into_iter().filter(|(_, count)| *count >= share).map(|(sharer, _)| sharer));
        }
        (full, room)
    }

    /// Begins the work on a lease. Where a task still works on the transfer, its lease has run out without its knowing
    /// (the wall clock was set, or the journal stood still): two must not do the same work at once, so the new lease is
    /// given back for a while, in which the task ends or learns that it has lost its own.
    async fn begin(&mut self, worker: &Arc<Worker>, lease: Lease) {
        if self.keys.values().any(|key| key == lease.key()) {
            worker.hand_back(&lease).await;
            self.remember(worker.clock.monotonic().saturating_add(HAND_BACK_PAUSE));
            return;
        }
        let key = lease.key().clone();
        let task = self.set.spawn(Arc::clone(worker).work(lease, self.interrupt.clone()));
        self.keys.insert(task.id(), key);
    }

    /// Notes every task that is over, so that its transfer does not count as worked on.
    fn collect(&mut self) {
        while let Some(done) = self.set.try_join_next_with_id() {
            self.note(done);
        }
    }

    fn remember(&mut self, due: Duration) {
        if self.agenda.len() < MAX_AGENDA {
            self.agenda.insert(due);
        }
    }

    fn note(&mut self, done: Result<(Id, Option<Duration>), JoinError>) {
        self.keys.remove(&done.as_ref().map_or_else(JoinError::id, |(id, _)| *id));
        match done {
            Ok((_, Some(due))) => self.remember(due),
            Ok(_) => {}
            // A step's own panic is caught where it runs; this is one of an observer or a failpoint.
            Err(error) => {
                tracing::error!(%error, "a worker of a stage ended unexpectedly; its transfer goes on when its lease ends");
            }
        }
    }

    fn forget_until(&mut self, now: Duration) {
        while self.agenda.first().is_some_and(|due| *due <= now) {
            self.agenda.pop_first();
        }
    }

    fn next(&self, now: Duration) -> Duration {
        self.agenda.first().map_or(Duration::MAX, |due| due.saturating_sub(now))
    }

    /// Waits for the running steps, then interrupts them, then drops what does not react.
    async fn drain(mut self, worker: &Worker) {
        for grace in [worker.settings.shutdown_grace, worker.settings.release_grace] {
            let grace = worker.clock.sleep(grace);
            let all = async { while self.set.join_next().await.is_some() {} };
            tokio::select! {
                biased;
                () = all => return,
                () = grace => self.interrupt.cancel(),
            }
        }
        self.set.abort_all();
    }
}
