//! The real clock and the real randomness. Only a program's `main` builds them.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use ring::rand::SecureRandom;
use towpath_transfer::{
    Entropy,
    clock::{Clock, Sleep},
};

/// The system's clocks. Its sleeps need a Tokio runtime with time.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place where monotonic time enters a program")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place where the wall clock enters a program")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The operating system's random numbers, by `ring`.
#[expect(clippy::disallowed_types, reason = "this is the one place where randomness enters a program")]
#[derive(Debug, Clone)]
pub struct SystemEntropy(ring::rand::SystemRandom);

impl SystemEntropy {
    /// Randomness fit for secrets.
    #[must_use]
    #[expect(clippy::disallowed_types, reason = "this is the one place where randomness enters a program")]
    pub fn new() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for SystemEntropy {
    #[expect(clippy::expect_used, reason = "a program whose system has no randomness must not go on with predictable secrets")]
    fn fill(&self, dest: &mut [u8]) {
        self.0.fill(dest).expect("the operating system gives random numbers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_clock_runs_and_the_randomness_differs() {
        let clock = SystemClock::new();
        let before = clock.monotonic();
        clock.sleep(Duration::from_millis(1)).await;
        assert!(clock.monotonic() >= before + Duration::from_millis(1));
        assert!(clock.now() > Timestamp::UNIX_EPOCH);
        let (mut one, mut other) = ([0; 16], [0; 16]);
        SystemEntropy::new().fill(&mut one);
        SystemEntropy::new().fill(&mut other);
        assert_ne!(one, other);
    }
}
