//! Back to an earlier stage: the other side does not know, or have, what it was given, and is given it again.

use std::time::Duration;

use jiff::Timestamp;
use towpath_transfer::{Code, Failure, TransferEvent};

use super::{Backoff, LONGEST_PAUSE, StepOutcome};
use crate::{record::Lease, row::turned_back};

/// How many events each round adds to a transfer, at least: that back, and that forth again.
const EVENTS_OF_A_ROUND: u64 = 2;
/// After so many rounds it is not the other side's bad day any more.
const ROUNDS_OF_A_BAD_DAY: u32 = 100;
/// The pause between two rounds from then on. A transfer may go back [`crate::MAX_EVENTS`] times less a few, so that it lasts for weeks.
const PAUSE_AFTER_A_BAD_DAY: Duration = Duration::from_secs(60 * 60);

/// A step back. The first is made at once, further ones after growing pauses: whoever asks for a transfer again and again does not get
/// it without end, and is not given up for weeks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// What takes the transfer back.
    pub event: TransferEvent,
    /// How many events a transfer has that has never gone back, at least.
    pub events_once: u64,
    /// The operator error code, where it has to wait for long.
    pub code: Code,
    /// Why it goes back, as the beginning of a sentence.
    pub why: &'static str,
}

impl Again {
    /// Goes back, or waits until the time has come.
    ///
    /// # Errors
    /// Its code (retry) where the pause is longer than the usual ones, so that it is seen.
    pub fn step(self, lease: &Lease, now: Timestamp) -> Result<StepOutcome, Failure> {
        let rounds = self.rounds(lease.record.events);
        // A change that lies ahead was made by a clock that was wrong, and is not waited for.
        let is_ahead = lease.record.changed > turned_back(now);
        let left = if is_ahead { Duration::ZERO } else { pause(rounds).saturating_sub(lease.record.age(now)) };
        if left > LONGEST_PAUSE {
            let told = format!("{}, {rounds} times by now; it is given again in {} s", self.why, left.as_secs());
            return Err(Failure::retry(self.code, told));
        }
        if !left.is_zero() {
            return Ok(StepOutcome::Wait(left));
        }
        tracing::warn!(transfer = %lease.key(), "{}: it is given again", self.why);
        Ok(StepOutcome::Event(self.event))
    }

    /// How often a transfer has gone back that has so many events.
    fn rounds(&self, events: u64) -> u64 {
        events.saturating_sub(self.events_once) / EVENTS_OF_A_ROUND
    }
}

/// How long to wait before a transfer goes back once more that went back so many times.
fn pause(rounds: u64) -> Duration {
    match u32::try_from(rounds).unwrap_or(u32::MAX) {
        0 => Duration::ZERO,
        rounds if rounds <= ROUNDS_OF_A_BAD_DAY => Backoff::default().ceiling(rounds),
        _ => PAUSE_AFTER_A_BAD_DAY,
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::{Direction, TransferId, TransferKey, TransferState, state::Place};

    use super::*;
    use crate::record::{LeaseToken, TransferRecord};

    #[test]
    fn whoever_asks_without_end_is_answered_ever_more_seldom_and_for_weeks() {
        let pauses = [0, 1, 2, 3, 6, 100, 101, u64::MAX].map(|rounds| pause(rounds).as_secs());
        assert_eq!(pauses, [0, 1, 2, 4, 30, 30, 3_600, 3_600]);
        let in_all: Duration = (0..crate::MAX_EVENTS / 2).map(pause).sum();
        assert!(in_all > Duration::from_secs(14 * 24 * 60 * 60), "{in_all:?}");
    }

    #[test]
    fn only_what_came_after_the_first_way_counts() {
        let again = Again { event: TransferEvent::PushAgain, events_once: 3, code: Code::NotFound, why: "it is not known" };
        // Pushed; accepted; and after one, two and many further pushes.
        let rounds = [3, 4, 5, 7, 9, 15, 999].map(|events| again.rounds(events));
        assert_eq!(rounds, [0, 0, 1, 2, 3, 6, 498]);
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_noted_is_not_waited_for() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let went_back = |hours: i64| {
            let changed = now + jiff::SignedDuration::from_hours(hours);
            let id: TransferId = "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b".parse().unwrap();
            let record = TransferRecord {
                serial: 1,
                key: TransferKey { tenant: "acme".parse().unwrap(), agent: "erp".parse().unwrap(), id },
                direction: Direction::Uplink,
                job: None,
                sequence: None,
                place: Place::Agent,
                state: TransferState::Delivered,
                events: 999,
                created: now,
                changed,
                attempts: 1,
                last_failure: None,
                parked: false,
                not_before: None,
            };
            let lease = Lease { record, token: LeaseToken([0; 16]), until: now };
            let again = Again { event: TransferEvent::PushAgain, events_once: 3, code: Code::NotFound, why: "it is not known" };
            again.step(&lease, now).map_err(|failure| failure.code())
        };
        assert_eq!(went_back(24), Ok(StepOutcome::Event(TransferEvent::PushAgain)));
        assert_eq!(went_back(0), Err(Code::NotFound), "after so many rounds an hour is waited");
        assert_eq!(went_back(-1), Ok(StepOutcome::Event(TransferEvent::PushAgain)));
    }
}
