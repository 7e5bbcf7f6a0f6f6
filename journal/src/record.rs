//! What the journal keeps of a transfer, and what callers hand in and get back.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use towpath_transfer::{
    AgentName, Direction, JobName, Sequence, Stage, TenantName, TransferEvent, TransferId, TransferKey, TransferState,
    failure::FailureRecord, state::Place,
};

/// A transfer as it stands in the journal. Times have microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferRecord {
    /// Position in this journal, in order of creation; never used again.
    pub serial: u64,
    /// The transfer's full name.
    pub key: TransferKey,
    /// Which way it travels.
    pub direction: Direction,
    /// The agent's job it belongs to, where that is known here.
    pub job: Option<JobName>,
    /// Its position among the agent's transfers of this direction, where that is known here.
    pub sequence: Option<Sequence>,
    /// The machine whose journal this is.
    pub place: Place,
    /// Where it stands: always the replay of its events.
    pub state: TransferState,
    /// How many events it has, which is the sequence number the next one gets.
    pub events: u64,
    /// When it was created here.
    pub created: Timestamp,
    /// When its last event was appended, or its creation.
    pub changed: Timestamp,
    /// How often its present stage was begun since its last event or wait.
    pub attempts: u32,
    /// Why the last try of its present stage failed.
    pub last_failure: Option<FailureRecord>,
    /// Whether it waits for a person ([`crate::Journal::unpark`]).
    pub parked: bool,
    /// Before this time its stage is not tried again.
    pub not_before: Option<Timestamp>,
}

impl TransferRecord {
    /// The work it waits for on this machine.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.state.stage(self.place)
    }

    /// How long ago something has happened to it; nothing where the clock was put back since.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.changed)).unwrap_or(Duration::ZERO)
    }

    /// Whether it has ended and nothing is left to do with it on this machine, so that it may be pruned.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state.is_final() && self.stage().is_none()
    }
}

/// How a new transfer gets its sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceChoice {
    /// The number its origin gave it, where that is known.
    Given(Option<Sequence>),
    /// One more than the highest this journal has ever seen of the tenant, agent and direction; 1 if there was none.
    Next,
    /// As [`SequenceChoice::Next`], where no transfer of the same tenant, agent, direction and job is open and waits for nobody; else
    /// that one is what [`crate::Journal::create`] finds. So of several processes that begin a job at once one does.
    NextOfJob,
}

/// A transfer to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTransfer {
    /// The transfer's full name.
    pub key: TransferKey,
    /// Which way it travels.
    pub direction: Direction,
    /// The agent's job it belongs to, where that is known here.
    pub job: Option<JobName>,
    /// The state it starts in on this machine.
    pub state: TransferState,
    /// Its sequence number.
    pub sequence: SequenceChoice,
}

/// What [`crate::Journal::create`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It was created now.
    New(TransferRecord),
    /// It was there already; nothing was changed.
    Existing(TransferRecord),
}

impl Created {
    /// The record, new or not.
    #[must_use]
    pub fn record(&self) -> &TransferRecord {
        match self {
            Self::New(record) | Self::Existing(record) => record,
        }
    }

    /// The record, new or not.
    #[must_use]
    pub fn into_record(self) -> TransferRecord {
        match self {
            Self::New(record) | Self::Existing(record) => record,
        }
    }

    /// Whether it was created now.
    #[must_use]
    pub fn is_new(&self) -> bool {
        matches!(self, Self::New(_))
    }
}

/// 128 random bits that prove who holds a lease.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LeaseToken(pub(crate) [u8; 16]);

impl fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The right to work on a transfer until a time, and to append what came of it.
///
/// A lease that has expired still appends as long as nobody else has taken the transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The transfer as it was when it was leased, or after the holder's own last append.
    pub record: TransferRecord,
    /// Proves the right.
    pub token: LeaseToken,
    /// When others may take the transfer.
    pub until: Timestamp,
}

impl Lease {
    /// The transfer.
    #[must_use]
    pub fn key(&self) -> &TransferKey {
        &self.record.key
    }

    /// Which try of the present stage this is, from 1.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.record.attempts
    }
}

/// How a lease ends. Where something else was appended meanwhile, the lease just ends: what the holder learnt was
/// about a state the transfer has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// What came of it was appended; the next stage is due at once.
    Done,
    /// Nothing went wrong and there is nothing to append yet: ask again at a time.
    WaitUntil {
        /// When.
        at: Timestamp,
    },
    /// It failed and is tried again at a time.
    RetryAt {
        /// When.
        at: Timestamp,
        /// Why.
        failure: FailureRecord,
    },
    /// It failed and waits for a person.
    Park {
        /// Why.
        failure: FailureRecord,
    },
}

/// One event of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Its number, from 0 without gaps.
    pub seq: u64,
    /// When it was appended.
    pub at: Timestamp,
    /// What happened.
    pub event: TransferEvent,
}

/// Everything that happened to a transfer on this machine. Never longer than a few more than [`crate::MAX_EVENTS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The state it started in.
    pub start: TransferState,
    /// Its events, oldest first.
    pub entries: Vec<HistoryEntry>,
}

/// In which order transfers that are due are handed out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// In order of creation: of two, the older one goes first as often as it is due.
    #[default]
    Created,
    /// The one that has been due for longest: every one has its turn, however many there are and however often they are due again.
    Due,
}

/// A tenant, or one agent of it, whose transfers have their share of what is done at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sharer {
    /// The tenant.
    pub tenant: TenantName,
    /// The agent; all of the tenant where absent.
    pub agent: Option<AgentName>,
}

impl Sharer {
    /// A whole tenant.
    #[must_use]
    pub fn tenant(key: &TransferKey) -> Self {
        Self { tenant: key.tenant.clone(), agent: None }
    }

    /// An agent.
    #[must_use]
    pub fn agent(key: &TransferKey) -> Self {
        Self { tenant: key.tenant.clone(), agent: Some(key.agent.clone()) }
    }

    /// Whether a transfer is its own.
    #[must_use]
    pub fn has(&self, key: &TransferKey) -> bool {
        self.tenant == key.tenant && self.agent.as_ref().is_none_or(|agent| *agent == key.agent)
    }
}

/// Which transfers to lease, of those that are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// They wait for this stage.
    pub stage: Stage,
    /// Of this direction; of both where absent.
    pub direction: Option<Direction>,
    /// Which come first.
    pub order: Order,
    /// Whose are passed over.
    pub without: Vec<Sharer>,
}

impl Wanted {
    /// Everything that waits for a stage, in order of creation.
    #[must_use]
    pub const fn of(stage: Stage) -> Self {
        Self { stage, direction: None, order: Order::Created, without: Vec::new() }
    }

    /// Whether it means a transfer of this key and direction that waits for the stage.
    pub(crate) fn means(&self, key: &TransferKey, direction: Direction) -> bool {
        self.direction.is_none_or(|wanted| wanted == direction) && !self.without.iter().any(|sharer| sharer.has(key))
    }
}

/// Which transfers to list: those that agree with every part that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this tenant.
    pub tenant: Option<TenantName>,
    /// Of this agent.
    pub agent: Option<AgentName>,
    /// With this id; ends choose ids, so that several may have it.
    pub id: Option<TransferId>,
    /// Of this direction.
    pub direction: Option<Direction>,
    /// Of this job.
    pub job: Option<JobName>,
    /// In the state of this word ([`TransferState::word`]).
    pub state: Option<String>,
    /// Waiting for this stage.
    pub stage: Option<Stage>,
    /// Parked, or not.
    pub parked: Option<bool>,
    /// Ended ([`TransferState::is_final`]), or not.
    pub ended: Option<bool>,
    /// With a sequence number below this.
    pub sequence_below: Option<Sequence>,
}

impl Filter {
    /// Whether a record agrees.
    #[must_use]
    pub fn matches(&self, record: &TransferRecord) -> bool {
        fn agrees<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        agrees(self.tenant.as_ref(), &record.key.tenant)
            && agrees(self.agent.as_ref(), &record.key.agent)
            && agrees(self.id.as_ref(), &record.key.id)
            && agrees(self.direction.as_ref(), &record.direction)
            && self.job.as_ref().is_none_or(|job| record.job.as_ref() == Some(job))
            && self.state.as_deref().is_none_or(|word| word == record.state.word())
            && self.stage.is_none_or(|stage| record.stage() == Some(stage))
            && agrees(self.parked.as_ref(), &record.parked)
            && agrees(self.ended.as_ref(), &record.state.is_final())
            && self.sequence_below.is_none_or(|below| record.sequence.is_some_and(|sequence| sequence < below))
    }
}

/// How many transfers stand alike; for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The word of their state ([`TransferState::word`]).
    pub state: String,
    /// The stage they wait for.
    pub stage: Option<Stage>,
    /// Whether they wait for a person.
    pub parked: bool,
    /// How many.
    pub transfers: u64,
    /// The longest unchanged of them.
    pub oldest_change: Timestamp,
}
