//! What happens to one stored transfer, as functions that every store shares: a store reads a [`Row`], changes it here
//! and writes it back, in one transaction.

use std::time::Duration;

use jiff::Timestamp;
use towpath_transfer::{Entropy, Sequence, Stage, TransferEvent, TransferKey, TransferState, state::Place};

use crate::{
    error::{JournalError, Result},
    record::{Lease, LeaseToken, NewTransfer, Release, SequenceChoice, TransferRecord},
};

/// The longest pause and the longest lease: 24 hours. Whoever wants to wait longer is asked again.
pub const MAX_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// By how much the wall clock may be turned back before pauses and leases set in what is now the future are void.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// From this many events on a transfer may only go forward: it cannot be claimed or pushed again.
pub const MAX_EVENTS: u64 = 1_000;
/// The largest event, in bytes of JSON.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// A lease as the store keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) token: LeaseToken,
    pub(crate) until: Timestamp,
}

/// A transfer as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) record: TransferRecord,
    pub(crate) start: TransferState,
    pub(crate) held: Option<Held>,
    /// When it can be leased: the end of its lease or pause.
    pub(crate) due: Timestamp,
    /// When `due` was set, to notice a wall clock that was turned back.
    pub(crate) since: Timestamp,
}

/// Cuts a time to what every store can keep.
pub(crate) fn micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// `now` plus a pause of at most [`MAX_PAUSE`].
pub(crate) fn later(now: Timestamp, pause: Duration) -> Timestamp {
    micros(now.saturating_add(pause.min(MAX_PAUSE)).unwrap_or(Timestamp::MAX))
}

/// Times `since` after this were set before the clock was turned back.
pub(crate) fn turned_back(now: Timestamp) -> Timestamp {
    now.saturating_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX)
}

impl Row {
    pub(crate) fn new(new: NewTransfer, place: Place, serial: u64, sequence: Option<Sequence>, now: Timestamp) -> Self {
        let record = TransferRecord {
            serial,
            key: new.key,
            direction: new.direction,
            job: new.job,
            sequence,
            place,
            state: new.state.clone(),
            events: 0,
            created: now,
            changed: now,
            attempts: 0,
            last_failure: None,
            parked: false,
            not_before: None,
        };
        Self { record, start: new.state, held: None, due: now, since: now }
    }

    /// Whether somebody works on it, or did when he was stopped.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Whether nothing has happened to it yet, and nobody is at work on it.
    pub(crate) fn is_untouched(&self) -> bool {
        self.record.events == 0 && !self.is_held()
    }

    /// Its number, where `new` is to have that one of the same line.
    pub(crate) fn number_of_the_same(&self, new: &NewTransfer) -> Option<Sequence> {
        let same = self.record.direction == new.direction && new.sequence == SequenceChoice::Given(self.record.sequence);
        self.record.sequence.filter(|_| same)
    }

    pub(crate) fn is_due(&self, stage: Stage, now: Timestamp) -> bool {
        self.record.stage() == Some(stage) && !self.record.parked && (self.due <= now || self.since > turned_back(now))
    }

    /// What comes first by [`crate::Order::Due`]: whatever a clock that was turned back has made due, then what is due for longest.
    pub(crate) fn turn(&self, now: Timestamp) -> (bool, Timestamp) {
        (self.since <= turned_back(now), self.due)
    }

    pub(crate) fn lease(&mut self, ttl: Duration, entropy: &dyn Entropy, now: Timestamp) -> Lease {
        let mut token = [0; 16];
        entropy.fill(&mut token);
        let held = Held { token: LeaseToken(token), until: later(now, ttl) };
        self.record.attempts = self.record.attempts.saturating_add(1);
        self.record.not_before = None;
        self.hold(held, now);
        Lease { record: self.record.clone(), token: held.token, until: held.until }
    }

    pub(crate) fn renew(&mut self, lease: &Lease, ttl: Duration, now: Timestamp) -> Result<Timestamp> {
        let held = self.check(lease)?;
        let until = later(now, ttl);
        self.hold(Held { until, ..held }, now);
        Ok(until)
    }

    /// Applies an event and returns its JSON.
    pub(crate) fn append(
        &mut self,
        lease: Option<&Lease>,
        expected: u64,
        event: &TransferEvent,
        now: Timestamp,
    ) -> Result<String> {
        if let Some(lease) = lease {
            self.check(lease)?;
        }
        if self.record.events != expected {
            return Err(JournalError::Conflict { key: self.key(), expected, actual: self.record.events });
        }
        let next = self.record.state.clone().apply(event);
        let next = next.map_err(|source| JournalError::Illegal { key: self.key(), source })?;
        if self.record.events >= MAX_EVENTS && goes_back(event) {
            return Err(JournalError::Limit { key: self.key(), what: "the number of events", limit: MAX_EVENTS });
        }
        let json = serde_json::to_string(event).map_err(|e| JournalError::storage("write an event as JSON", e))?;
        if json.len() > MAX_EVENT_BYTES {
            return Err(JournalError::Limit { key: self.key(), what: "an event", limit: MAX_EVENT_BYTES as u64 });
        }
        self.record.state = next;
        self.record.events += 1;
        self.record.changed = now;
        self.record.last_failure = None;
        self.fresh(now);
        Ok(json)
    }

    pub(crate) fn release(&mut self, lease: &Lease, how: Release, now: Timestamp) -> Result<()> {
        if self.held.is_none() {
            // Released before and the answer was lost, or the lease was broken: there is nothing left to end.
            return Ok(());
        }
        self.check(lease)?;
        self.held = None;
        if self.record.events != lease.record.events {
            self.pause(None, now);
            return Ok(());
        }
        match how {
            Release::Done => self.pause(None, now),
            Release::WaitUntil { at } => {
                self.record.attempts = 0;
                self.record.last_failure = None;
                self.pause(Some(at), now);
            }
            Release::RetryAt { at, failure } => {
                self.record.last_failure = Some(failure);
                self.pause(Some(at), now);
            }
            Release::Park { failure } => {
                self.record.last_failure = Some(failure);
                self.record.parked = true;
                self.pause(None, now);
            }
        }
        Ok(())
    }

    pub(crate) fn unpark(&mut self, now: Timestamp) {
        self.fresh(now);
    }

    pub(crate) fn break_lease(&mut self, now: Timestamp) {
        self.held = None;
        self.pause(None, now);
    }

    fn key(&self) -> Box<TransferKey> {
        Box::new(self.record.key.clone())
    }

    fn check(&self, lease: &Lease) -> Result<Held> {
        let held = self.held.filter(|held| held.token == lease.token);
        held.ok_or_else(|| JournalError::LeaseLost(self.key()))
    }

    fn hold(&mut self, held: Held, now: Timestamp) {
        self.held = Some(held);
        self.due = held.until;
        self.since = now;
    }

    /// Nothing is known of the present stage yet. A running lease goes on.
    fn fresh(&mut self, now: Timestamp) {
        self.record.attempts = 0;
        self.record.parked = false;
        self.record.not_before = None;
        if self.held.is_none() {
            self.pause(None, now);
        }
    }

    fn pause(&mut self, until: Option<Timestamp>, now: Timestamp) {
        let until = until.map(|at| micros(at).clamp(now, later(now, MAX_PAUSE)));
        self.record.not_before = until;
        self.due = until.unwrap_or(now);
        self.since = now;
    }
}

fn goes_back(event: &TransferEvent) -> bool {
    use TransferEvent as E;
    matches!(event, E::Claimed { .. } | E::PushAgain | E::ForwardAgain | E::FetchAgain | E::Refetch { .. } | E::NotifyAgain)
}
