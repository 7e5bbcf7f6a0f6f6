//! What a program brings to the driver: its steps, and who watches them.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use towpath_transfer::{Direction, Failure, Stage, TransferEvent, TransferKey, state::Place};

use crate::{
    error::JournalError,
    record::{Lease, Order, TransferRecord},
};

/// What came of a step that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// The effect is durable; this is to be appended.
    Event(TransferEvent),
    /// There is nothing to append yet; ask again after this time (at most [`crate::MAX_PAUSE`]).
    Wait(Duration),
}

/// The work of one stage.
///
/// A step must be idempotent: it can have run before, wholly or in part, without the journal knowing. It may be dropped
/// at any await point (shutdown, a lost lease), and it does not touch the journal itself.
#[async_trait]
pub trait Step: Send + Sync {
    /// The machine it runs on; the place of the journal.
    fn place(&self) -> Place;

    /// The stage it does.
    fn stage(&self) -> Stage;

    /// The direction whose transfers it does; both, where one step does both.
    fn direction(&self) -> Option<Direction> {
        None
    }

    /// Which of those that are due it does first.
    fn order(&self) -> Order {
        Order::Created
    }

    /// Does the work for one transfer.
    ///
    /// # Errors
    /// A [`Failure`] of disposition retry is tried again after a pause (its own `retry_after`, where it has one); one
    /// of disposition park waits for a person.
    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure>;
}

/// Where in a stage a failpoint lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// The transfer is leased and nothing was done.
    BeforeEffect,
    /// The step has done its work and the journal does not know.
    AfterEffect,
    /// The event is appended and the lease not released.
    AfterJournal,
}

impl Point {
    /// Every point, in order.
    pub const ALL: &[Self] = &[Self::BeforeEffect, Self::AfterEffect, Self::AfterJournal];

    /// The point's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeEffect => "before-effect",
            Self::AfterEffect => "after-effect",
            Self::AfterJournal => "after-journal",
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a test stops the program. An implementation ends the process, or never returns so that the test can drop the
/// driver.
#[async_trait]
pub trait FailPoints: Send + Sync {
    /// Called at each point of each stage. [`Point::AfterEffect`] and [`Point::AfterJournal`] are passed only by a
    /// step that came to an event.
    async fn hit(&self, place: Place, stage: Stage, point: Point, key: &TransferKey);
}

/// The failpoints of a program in service: none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFailPoints;

#[async_trait]
impl FailPoints for NoFailPoints {
    async fn hit(&self, _: Place, _: Stage, _: Point, _: &TransferKey) {}
}

/// How a lease of a stage ended.
#[derive(Debug)]
pub enum StageResult<'a> {
    /// An event was appended; the record is the one after it.
    Appended {
        /// The event.
        event: &'a TransferEvent,
        /// The transfer after it.
        record: &'a TransferRecord,
    },
    /// Nothing to append yet; asked again after this time.
    Waiting(Duration),
    /// It failed and is tried again after a pause.
    Retrying {
        /// Why.
        failure: &'a Failure,
        /// The pause.
        pause: Duration,
    },
    /// It failed and waits for a person.
    Parked(&'a Failure),
    /// Another worker has the transfer, or a message moved it on; what this one did is repeated where that is needed.
    Overtaken(&'a JournalError),
    /// The program shuts down; the transfer is due at once.
    Interrupted,
}

impl StageResult<'_> {
    /// One word for a metric's label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Appended { .. } => "done",
            Self::Waiting(_) => "waiting",
            Self::Retrying { .. } => "retrying",
            Self::Parked(_) => "parked",
            Self::Overtaken(_) => "overtaken",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One lease of a stage, from acquiring to release.
#[derive(Debug)]
pub struct StageReport<'a> {
    /// The machine.
    pub place: Place,
    /// The stage.
    pub stage: Stage,
    /// The transfer.
    pub key: &'a TransferKey,
    /// Which try this was, from 1.
    pub attempts: u32,
    /// How long the work took, by the monotonic clock.
    pub duration: Duration,
    /// How it ended.
    pub result: StageResult<'a>,
}

/// Watches the driver, for metrics and logs. Must return quickly; it cannot change anything.
pub trait Observer: Send + Sync {
    /// A transfer was leased and its step begins.
    fn stage_started(&self, place: Place, stage: Stage, lease: &Lease) {
        let _ = (place, stage, lease);
    }

    /// The step is over and its outcome in the journal, as far as the journal took it.
    fn stage_finished(&self, report: &StageReport<'_>) {
        let _ = report;
    }

    /// The journal failed at something that is tried again.
    fn journal_failed(&self, place: Place, stage: Stage, error: &JournalError) {
        let _ = (place, stage, error);
    }

    /// The driver's loop goes round: a loop that says [`Turn::Working`] and then nothing more hangs.
    fn turned(&self, place: Place, stage: Stage, turn: Turn) {
        let _ = (place, stage, turn);
    }
}

/// What the loop of a driver does now. Its steps run beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It asks the journal for work, which is over soon.
    Working,
    /// It waits for the end of a step, a hint or a time; or it has ended.
    Resting,
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}
