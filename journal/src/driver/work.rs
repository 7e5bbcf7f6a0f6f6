//! One lease, from acquiring to release.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock, Code, Disposition, Entropy, Failure, TransferEvent, TransferKey, failure::FailureRecord};
use tracing::Instrument as _;

use super::{DriverSettings, FailPoints, Observer, Point, StageReport, StageResult, Step, StepOutcome, WakeUp};
use crate::{
    error::JournalError,
    record::{Lease, Release, TransferRecord},
    row::{MAX_PAUSE, later},
    traits::Journal,
};

/// How often a release is tried; after that the lease is left to expire.
const RELEASE_TRIES: u32 = 3;

/// The shortest pause of a transfer, so that a step that always asks for none does not spin.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// For how long a lease is given back whose transfer a task of the same driver still works on.
pub(super) const HAND_BACK_PAUSE: Duration = Duration::from_secs(1);

/// What all workers of a driver share.
pub(super) struct Worker {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) step: Arc<dyn Step>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) wake: WakeUp,
    pub(super) settings: DriverSettings,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) failpoints: Arc<dyn FailPoints>,
}

/// What came of the step before the journal is told.
enum Outcome {
    Appended(TransferEvent, Box<TransferRecord>),
    Waiting(Duration),
    Failed(Failure),
    Overtaken(JournalError),
    Interrupted,
}

impl Worker {
    /// Works on a lease and returns at which monotonic time its transfer is due again, where it pauses.
    pub(super) async fn work(self: Arc<Self>, mut lease: Lease, interrupt: CancellationToken) -> Option<Duration> {
        let (place, stage) = (self.step.place(), self.step.stage());
        let span = tracing::info_span!("stage", %stage, transfer = %lease.key(), attempt = lease.attempts());
        async {
            let (started, attempts) = (self.clock.monotonic(), lease.attempts());
            self.observer.stage_started(place, stage, &lease);
            let outcome = self.outcome(&lease, &interrupt).await;
            let duration = self.clock.monotonic().saturating_sub(started);
            let (result, release, pause) = self.judge(&outcome, attempts);
            if let Outcome::Appended(_, record) = &outcome {
                lease.record = (**record).clone();
            }
            self.release(&lease, release, &interrupt).await;
            let due = pause.map(|pause| self.clock.monotonic().saturating_add(pause));
            self.observer.stage_finished(&StageReport { place, stage, key: lease.key(), attempts, duration, result });
            if let Outcome::Appended(..) = &outcome {
                self.wake.hint();
            }
            due
        }
        .instrument(span)
        .await
    }

    /// Gives a lease back with which nothing was done. Where the journal fails at that, the lease runs out by itself.
    pub(super) async fn hand_back(&self, lease: &Lease) {
        tracing::warn!(
            stage = %self.step.stage(),
            transfer = %lease.key(),
            "the lease of a running step has run out early, by a step of the clock or a journal that stood still"
        );
        let at = later(self.clock.now(), HAND_BACK_PAUSE);
        if let Err(error @ JournalError::Storage(_)) = self.journal.release(lease, Release::WaitUntil { at }).await {
            self.journal_failed(&error);
        }
    }

    pub(super) fn journal_failed(&self, error: &JournalError) {
        self.observer.journal_failed(self.step.place(), self.step.stage(), error);
    }

    async fn outcome(&self, lease: &Lease, interrupt: &CancellationToken) -> Outcome {
        self.hit(Point::BeforeEffect, lease.key()).await;
        let step = AssertUnwindSafe(self.step.step(lease)).catch_unwind();
        let stepped = tokio::select! {
            biased;
            stepped = step => stepped.unwrap_or_else(|panic| Err(panicked(&*panic))),
            lost = self.keep(lease) => return Outcome::Overtaken(lost),
            () = interrupt.cancelled() => return Outcome::Interrupted,
        };
        let event = match stepped {
            Ok(StepOutcome::Event(event)) => event,
            Ok(StepOutcome::Wait(pause)) => return Outcome::Waiting(pause.clamp(MIN_PAUSE, MAX_PAUSE)),
            Err(failure) => return Outcome::Failed(failure),
        };
        self.hit(Point::AfterEffect, lease.key()).await;
        match self.journal.append(lease, lease.record.events, &event).await {
            Ok(record) => {
                self.hit(Point::AfterJournal, lease.key()).await;
                Outcome::Appended(event, Box::new(record))
            }
            Err(error @ (JournalError::LeaseLost(_) | JournalError::Conflict { .. } | JournalError::NotFound(_))) => {
                Outcome::Overtaken(error)
            }
            Err(error) => {
                if matches!(error, JournalError::Storage(_)) {
                    self.journal_failed(&error);
                }
                Outcome::Failed(error.into())
            }
        }
    }

    /// Renews the lease while the step runs; returns when it is lost.
    async fn keep(&self, lease: &Lease) -> JournalError {
        let ttl = self.settings.lease_ttl;
        let mut good_until = self.clock.monotonic().saturating_add(ttl);
        loop {
            self.clock.sleep(ttl / 3).await;
            let asked = self.clock.monotonic();
            match self.journal.renew(lease, ttl).await {
                Ok(_) => good_until = asked.saturating_add(ttl),
                Err(error @ JournalError::Storage(_)) => {
                    self.journal_failed(&error);
                    if self.clock.monotonic() >= good_until {
                        return error;
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// What is reported, how the lease ends, and how long the transfer pauses.
    fn judge<'a>(&self, outcome: &'a Outcome, attempts: u32) -> (StageResult<'a>, Release, Option<Duration>) {
        let now = self.clock.now();
        match outcome {
            Outcome::Appended(event, record) => (StageResult::Appended { event, record }, Release::Done, None),
            Outcome::Waiting(pause) => {
                (StageResult::Waiting(*pause), Release::WaitUntil { at: later(now, *pause) }, Some(*pause))
            }
            Outcome::Failed(failure) => {
                let mut kept = FailureRecord::from(failure);
                if failure.disposition() == Disposition::Park || attempts >= self.settings.max_attempts {
                    kept.disposition = Disposition::Park;
                    return (StageResult::Parked(failure), Release::Park { failure: kept }, None);
                }
                let (backoff, entropy) = (self.settings.backoff, &*self.entropy);
                let wish = failure.retry_after().map(|wish| backoff.asked_for(wish, entropy));
                let pause = wish.unwrap_or_else(|| backoff.pause(attempts, entropy));
                let pause = pause.clamp(MIN_PAUSE, MAX_PAUSE);
                let release = Release::RetryAt { at: later(now, pause), failure: kept };
                (StageResult::Retrying { failure, pause }, release, Some(pause))
            }
            Outcome::Overtaken(error) => (StageResult::Overtaken(error), Release::Done, None),
            Outcome::Interrupted => (StageResult::Interrupted, Release::WaitUntil { at: now }, None),
        }
    }

    async fn release(&self, lease: &Lease, how: Release, interrupt: &CancellationToken) {
        for tries in 1..=RELEASE_TRIES {
            let Err(error) = self.journal.release(lease, how.clone()).await else { return };
            if !matches!(error, JournalError::Storage(_)) {
                // Another worker has it by now; there is nothing left to end.
                return;
            }
            self.journal_failed(&error);
            if tries == RELEASE_TRIES {
                return;
            }
            tokio::select! {
                biased;
                () = self.clock.sleep(self.settings.backoff.pause(tries, &*self.entropy)) => {}
                () = interrupt.cancelled() => {}
            }
        }
    }

    async fn hit(&self, point: Point, key: &TransferKey) {
        self.failpoints.hit(self.step.place(), self.step.stage(), point, key).await;
    }
}

/// A step that panicked is a fault of ours: a person looks at it, and the driver goes on.
fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failure::park(Code::Internal, format!("the step panicked: {}", text.unwrap_or("without a message")))
}
