//! The clock of one machine, which somebody sets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use towpath_transfer::{Clock, clock::Sleep};

/// A clock that shows another time than that of all, and runs like it. Clones share what it shows.
#[derive(Debug, Clone)]
pub struct Skewed {
    clock: Arc<dyn Clock>,
    millis: Arc<AtomicI64>,
}

impl Skewed {
    /// A clock that shows the time of all.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, millis: Arc::default() }
    }

    /// Shows this much more than the time of all from now on, or less.
    pub fn set(&self, millis: i64) {
        self.millis.store(millis, Ordering::SeqCst);
    }
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        let skew = SignedDuration::from_millis(self.millis.load(Ordering::SeqCst));
        self.clock.now().saturating_add(skew).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.clock.sleep(duration)
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::clock::ManualClock;

    use super::*;

    #[test]
    fn only_the_wall_clock_is_another() {
        let common = ManualClock::new("2026-03-01T02:00:00Z".parse().unwrap());
        let clock = Skewed::new(Arc::new(common.clone()));
        clock.clone().set(-3_600_000);
        common.advance(Duration::from_secs(1));
        assert_eq!((clock.now().to_string().as_str(), clock.monotonic()), ("2026-03-01T01:00:01Z", Duration::from_secs(1)));
    }
}
