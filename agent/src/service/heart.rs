//! Whether the loops of the service still turn. A loop says when it begins a turn and when it rests; one that began long ago and
//! neither rests nor begins again hangs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use towpath_transfer::Clock;

/// How long one turn of a loop may take. The longest that are not stuck ask the relay, over all ways and proxies, or write to a
/// journal on a slow disk.
pub const HEART_LIMIT: Duration = Duration::from_secs(600);

/// The loops of a service, by their names. Clones see the same ones.
#[derive(Debug, Clone)]
pub struct Hearts {
    clock: Arc<dyn Clock>,
    /// When each began its turn by the monotonic clock; `None` while it rests or has ended.
    began: Arc<Mutex<BTreeMap<&'static str, Option<Duration>>>>,
}

impl Hearts {
    /// No loops yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, began: Arc::default() }
    }

    /// The heart of the loop of this name, which rests until it says otherwise.
    #[must_use]
    pub fn of(&self, name: &'static str) -> Heart {
        Heart { hearts: self.clone(), name }
    }

    /// The loops that hang, and for how long: none where all is well.
    #[must_use]
    pub fn hanging(&self) -> Vec<(&'static str, Duration)> {
        let now = self.clock.monotonic();
        let began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let since = began.iter().filter_map(|(name, began)| Some((*name, now.saturating_sub((*began)?))));
        since.filter(|(_, long)| *long >= HEART_LIMIT).collect()
    }

    fn set(&self, name: &'static str, began: Option<Duration>) {
        self.began.lock().unwrap_or_else(PoisonError::into_inner).insert(name, began);
    }
}

/// Of one loop. Dropped at its end, from when on it does not count.
#[derive(Debug)]
pub struct Heart {
    hearts: Hearts,
    name: &'static str,
}

impl Heart {
    /// Of a loop that nobody watches.
    #[must_use]
    pub fn unwatched(clock: &Arc<dyn Clock>) -> Self {
        Hearts::new(Arc::clone(clock)).of("unwatched")
    }

    /// A turn begins, or has come further.
    pub fn works(&self) {
        self.hearts.set(self.name, Some(self.hearts.clock.monotonic()));
    }

    /// The turn is over; the loop waits for a time or a hint, however long.
    pub fn rests(&self) {
        self.hearts.set(self.name, None);
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.rests();
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::clock::ManualClock;

    use super::*;

    #[test]
    fn only_a_turn_that_does_not_end_hangs() {
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let hearts = Hearts::new(Arc::new(clock.clone()));
        let (schedule, poll) = (hearts.of("schedule"), hearts.of("poll"));
        schedule.works();
        poll.works();
        poll.rests();
        clock.advance(HEART_LIMIT - Duration::from_secs(1));
        assert_eq!(hearts.hanging(), []);
        clock.advance(Duration::from_secs(1));
        assert_eq!(hearts.hanging(), [("schedule", HEART_LIMIT)]);
        schedule.works();
        assert_eq!(hearts.hanging(), []);
        clock.advance(HEART_LIMIT * 2);
        assert_eq!(hearts.hanging().len(), 1);
        drop(schedule);
        assert_eq!(hearts.hanging(), [], "a loop that has ended does not hang");
    }
}
