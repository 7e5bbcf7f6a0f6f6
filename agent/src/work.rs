//! Who does the work of a state folder: this process where it can have the lock, else the one that has it.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use towpath_host::StateLock;
use towpath_journal::{Observer, TransferRecord, WakeUp};
use towpath_keys::Identity;
use towpath_transfer::{Code, Direction, Failure, Stage, TransferId, TransferState, failure::Result};

use crate::{
    engine::Engine,
    parts::Parts,
    pause::Pause,
    uplink::{prune::prune_or_warn, replan},
    view::FailureView,
};

/// How often the journal is looked at while another process, or this one, works.
pub const LOOK: Duration = Duration::from_millis(100);

/// This program, as it is named to people.
pub(crate) const PROGRAM: &str = "towpath-agent";

/// Work on a state folder, by this process or by another.
pub struct Worker {
    parts: Arc<Parts>,
    wake: WakeUp,
    observer: Arc<dyn Observer>,
    /// Held while this process does the work, also while it rests.
    lock: Option<StateLock>,
    engine: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Worker {
    /// Begins to work where no other process does.
    ///
    /// # Errors
    /// `file-failed` where the lock cannot be made, `journal-failed`.
    pub async fn start(parts: Arc<Parts>, wake: WakeUp, observer: Arc<dyn Observer>) -> Result<Self> {
        let mut worker = Self { parts, wake, observer, lock: None, engine: None };
        worker.take_over().await?;
        Ok(worker)
    }

    /// Begins to work, unless the agent is paused, and refuses where another process does.
    ///
    /// # Errors
    /// `already-running`, and as [`Worker::start`].
    pub async fn start_alone(parts: Arc<Parts>, wake: WakeUp, observer: Arc<dyn Observer>) -> Result<Self> {
        let lock = StateLock::take(&parts.layout.lock(), PROGRAM).map_err(taken)?;
        let mut worker = Self { parts, wake, observer, lock: None, engine: None };
        worker.lock = Some(lock);
        if worker.pause().is_none() {
            worker.go_on().await?;
        }
        Ok(worker)
    }

    /// Whether this process does the work.
    #[must_use]
    pub fn works(&self) -> bool {
        self.lock.is_some()
    }

    /// Hints that something is due.
    pub fn hint(&self) {
        self.wake.hint();
    }

    async fn take_over(&mut self) -> Result<()> {
        if self.lock.is_none()
            && let Some(lock) = StateLock::try_take(&self.parts.layout.lock())?
        {
            self.lock = Some(lock);
            self.follow_key()?;
            self.go_on().await?;
        }
        Ok(())
    }

    /// Goes on with the key that is in the state folder now: whoever had the lock may have changed it meanwhile, and the one that this
    /// process began with is retired soon.
    fn follow_key(&self) -> Result<()> {
        let known = &self.parts.identity;
        match Identity::load(&self.parts.layout.key()) {
            Ok(identity) if identity.fingerprint() != known.now().fingerprint() => known.replace(identity),
            Err(failure) if failure.code() != Code::KeyMissing => Err(failure),
            _ => Ok(()),
        }
    }

    /// The pause in force.
    fn pause(&self) -> Option<Pause> {
        Pause::read(&*self.parts.files, &self.parts.layout, self.parts.clock.now())
    }

    /// Begins to work, after the start or a rest, where this process has the lock and does not work already.
    ///
    /// # Errors
    /// `journal-failed`.
    pub async fn go_on(&mut self) -> Result<()> {
        if self.lock.is_none() || self.engine.is_some() {
            return Ok(());
        }
        // Whoever held leases is gone: the lock says so.
        self.parts.journal.break_leases().await?;
        prune_or_warn(&self.parts).await;
        let engine = Engine::new(Arc::clone(&self.parts), self.wake.clone()).observed_by(Arc::clone(&self.observer));
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(engine.run(shutdown.clone()));
        self.engine = Some((shutdown, task));
        Ok(())
    }

    /// Lets running steps finish, gives leases back and begins nothing more; the lock stays.
    pub async fn rest(&mut self) {
        let Some((shutdown, task)) = self.engine.take() else { return };
        shutdown.cancel();
        if let Err(error) = task.await {
            tracing::error!(%error, "the stages ended unexpectedly");
        }
    }

    /// Lets running steps finish, gives leases back and lets go of the lock.
    pub async fn stop(mut self) {
        self.rest().await;
    }

    /// Waits until a transfer has come as far as `goal`, waits for a person, or `limit` is over. A transfer that was rejected
    /// because the app lacks its base is followed by one in full, once, and that one is waited for.
    ///
    /// # Errors
    /// `cancelled` by `shutdown`; `paused` where somebody pauses the agent; at once what a person had better mend, as a missing ERP database; the transfer's own trouble when `limit` is over, and as the journal reports.
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
            if let Some(failure) = for_a_person(&record) {
                return Err(failure);
            }
            if let Some(pause) = self.pause() {
                return Err(pause.refusal());
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

/// What to do instead, where another process has the lock.
fn taken(failure: Failure) -> Failure {
    if failure.code() != Code::AlreadyRunning {
        return failure;
    }
    let message = format!("{failure}; leave the work to it (towpath-agent send hands transfers over), or stop it first");
    Failure::park(Code::AlreadyRunning, message)
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({})", if self.works() { "works" } else { "watches" })
    }
}

/// Somebody who waits in front of the program can do more than waiting can about a database that is missing or locked, a folder
/// that nobody has configured, or a program that fails.
fn for_a_person(record: &TransferRecord) -> Option<Failure> {
    let failure = record.last_failure.as_ref().filter(|_| record.not_before.is_some())?;
    let hopeless = match record.stage()? {
        Stage::Extract => matches!(failure.code, Code::ErpMissing | Code::ErpLocked | Code::SecretUnusable),
        Stage::Pull | Stage::Verify => {
            matches!(failure.code, Code::ReceiverUnapproved | Code::SignatureInvalid | Code::ManifestInvalid)
        }
        Stage::Deliver => matches!(failure.code, Code::DeliveryMissing | Code::DeliveryFailed | Code::ActionFailed),
        _ => false,
    };
    let next = if record.direction == Direction::Uplink { "send" } else { "receive" };
    hopeless.then(|| {
        let (id, why) = (record.key.id, FailureView::from(failure).report);
        Failure::retry(
            failure.code,
            format!("{why}; transfer {id} is tried again by `towpath-agent run`, or by the next `{next}`"),
        )
    })
}

fn too_late(record: &TransferRecord, limit: Duration) -> Failure {
    let (id, word) = (record.key.id, record.state.word());
    let seconds = limit.as_secs();
    match &record.last_failure {
        Some(failure) => {
            let message = format!("transfer {id} is still {word} after {seconds} s and is tried again later");
            Failure::retry(failure.code, message).caused_by(FailureView::from(failure).report)
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

#[cfg(test)]
mod tests {
    use towpath_journal::NoObserver;
    use towpath_transfer::clock::SeededEntropy;

    use super::*;
    use crate::{layout::Layout, uplink::tests::world::World};

    /// Seconds that pass by the clock of a test no sooner than the work is done, however slow the machine: its clock moves with
    /// every turn of the loop, and threads that work on files do not.
    const FOR_EVER: u64 = 1 << 40;

    /// A world whose state folder is on the disk, because the lock is.
    fn world() -> (World, tempfile::TempDir) {
        use towpath_transport::files::FileStore as _;
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new();
        world.files.create_dir_all(folder.path()).unwrap();
        world.parts.layout = Layout::new(folder.path());
        (world, folder)
    }

    /// Follows a transfer while time passes.
    async fn follow(world: &World, worker: &mut Worker, id: TransferId, goal: Goal, limit: u64) -> Result<TransferRecord> {
        let clock = world.clock.clone();
        let shutdown = CancellationToken::new();
        let pump = async {
            loop {
                clock.advance(Duration::from_millis(20));
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            done = worker.follow(id, goal, Duration::from_secs(limit), &shutdown) => done,
            () = pump => unreachable!("the clock never stops"),
        }
    }

    async fn start(world: &World) -> Worker {
        Worker::start(Arc::new(world.parts.clone()), WakeUp::new(), Arc::new(NoObserver)).await.unwrap()
    }

    #[tokio::test]
    async fn the_one_with_the_lock_works_and_the_other_watches_and_takes_over() {
        let (world, _folder) = world();
        let mut first = start(&world).await;
        let mut second = start(&world).await;
        assert_eq!((first.works(), second.works()), (true, false));
        let alone = Worker::start_alone(Arc::new(world.parts.clone()), WakeUp::new(), Arc::new(NoObserver)).await;
        let alone = alone.unwrap_err();
        assert_eq!(alone.code(), Code::AlreadyRunning);
        assert!(alone.report().contains("stop it first"), "{}", alone.report());
        let id = world.plan(false).await;
        assert_eq!(follow(&world, &mut second, id, Goal::Settled, FOR_EVER).await.unwrap().state, TransferState::Imported);
        assert!(!second.works());
        // The first ends as a process does that is killed.
        if let (Some(lock), Some((_, task))) = (first.lock.take(), first.engine.take()) {
            task.abort();
            drop(lock);
        }
        let id = world.plan(true).await;
        assert_eq!(follow(&world, &mut second, id, Goal::Pushed, FOR_EVER).await.unwrap().key.id, id);
        assert!(second.works());
    }

    #[tokio::test]
    async fn whoever_takes_over_goes_on_with_the_key_that_is_there_then() {
        let (world, _folder) = world();
        let first = start(&world).await;
        let mut second = start(&world).await;
        let changed =
            Identity::load_or_create(&world.parts.layout.key(), towpath_keys::KeyKind::Ed25519, &SeededEntropy::new(77)).unwrap();
        second.take_over().await.unwrap();
        assert_ne!(world.parts.identity.now().fingerprint(), changed.fingerprint(), "the first still works");
        drop(first);
        second.take_over().await.unwrap();
        assert!(second.works());
        assert_eq!(world.parts.identity.now().fingerprint(), changed.fingerprint());
    }

    #[tokio::test]
    async fn a_lost_base_is_followed_to_the_transfer_in_full() {
        let (world, _folder) = world();
        let mut worker = start(&world).await;
        let id = world.plan(false).await;
        follow(&world, &mut worker, id, Goal::Settled, FOR_EVER).await.unwrap();
        let rejection = towpath_transfer::state::Rejection { code: Code::BaseMissing, detail: "lost".into() };
        world.far.reject(Some(rejection));
        let second = world.plan(false).await;
        let ended = follow(&world, &mut worker, second, Goal::Settled, FOR_EVER).await.unwrap();
        assert_ne!(ended.key.id, second);
        assert_eq!(ended.state.word(), "rejected");
    }

    #[tokio::test]
    async fn a_missing_erp_ends_the_waiting_at_once_and_an_unreachable_relay_at_the_limit() {
        let (world, _folder) = world();
        let mut worker = start(&world).await;
        let locked = |_| Failure::retry(Code::ErpLocked, "the ERP database is locked");
        world.erp.failures.lock().unwrap().extend((0..50).map(locked));
        let id = world.plan(false).await;
        let failure = follow(&world, &mut worker, id, Goal::Pushed, FOR_EVER).await.unwrap_err();
        assert_eq!(failure.code(), Code::ErpLocked);
        assert_eq!(failure.report().matches("[erp-locked]").count(), 1, "{}", failure.report());
        world.erp.failures.lock().unwrap().clear();
        world.far.refuse_connections(Some(towpath_transport::store::StoreErrorKind::Unreachable));
        world.parts.journal.unpark(&world.parts.key(id)).await.unwrap();
        // Until the relay was tried there is nothing to tell but that it takes long.
        loop {
            let failure = follow(&world, &mut worker, id, Goal::Pushed, 1).await.unwrap_err();
            match failure.code() {
                Code::RelayUnreachable => break,
                other => assert_eq!(other, Code::Cancelled),
            }
        }
        let none = TransferId::new(&world.clock, &SeededEntropy::new(77));
        assert_eq!(follow(&world, &mut worker, none, Goal::Pushed, FOR_EVER).await.unwrap_err().code(), Code::NotFound);
    }

    #[tokio::test]
    async fn whoever_is_told_to_stop_stops() {
        let (world, _folder) = world();
        let mut worker = start(&world).await;
        let id = world.plan(false).await;
        let stop = CancellationToken::new();
        stop.cancel();
        let failure = worker.follow(id, Goal::Settled, Duration::from_secs(60), &stop).await.unwrap_err();
        assert_eq!(failure.code(), Code::Cancelled);
    }
}
