//! Time and randomness as parameters, so that a simulation can own both.

use std::{fmt::Debug, future::Future, pin::Pin, time::Duration};

use jiff::Timestamp;

/// A pending [`Clock::sleep`].
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a program gets the time from. Only `main` builds the real one.
pub trait Clock: Debug + Send + Sync {
    /// The wall clock. It may jump in either direction; nothing that decides correctness may depend on it.
    fn now(&self) -> Timestamp;

    /// Time since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;

    /// Completes after `duration` of [`Clock::monotonic`] time.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// Where a program gets unpredictable bytes from. Only `main` builds the real one.
pub trait Entropy: Debug + Send + Sync {
    /// Fills `dest` with bytes fit for secrets.
    fn fill(&self, dest: &mut [u8]);
}

/// A clock for tests: it stands still until it is told to move, and a sleep ends when the clock has been moved past it.
#[derive(Debug, Clone)]
pub struct ManualClock {
    inner: std::sync::Arc<std::sync::Mutex<ManualState>>,
}

#[derive(Debug)]
struct ManualState {
    wall: Timestamp,
    elapsed: Duration,
    sleepers: Vec<(Duration, std::task::Waker)>,
}

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        let state = ManualState { wall: start, elapsed: Duration::ZERO, sleepers: Vec::new() };
        Self { inner: std::sync::Arc::new(std::sync::Mutex::new(state)) }
    }

    /// Moves both times forward and wakes every sleep that is over.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        state.elapsed = state.elapsed.saturating_add(by);
        state.wall = state.wall.saturating_add(by).unwrap_or(Timestamp::MAX);
        let elapsed = state.elapsed;
        let (due, waiting) = std::mem::take(&mut state.sleepers).into_iter().partition(|(until, _)| *until <= elapsed);
        state.sleepers = waiting;
        drop(state);
        let due: Vec<(Duration, std::task::Waker)> = due;
        for (_, waker) in due {
            waker.wake();
        }
    }

    /// Sets the wall clock alone, as an administrator or NTP does.
    pub fn set_wall(&self, to: Timestamp) {
        self.lock().wall = to;
    }

    /// How many sleeps are pending; a test waits for this instead of for time to pass.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.lock().sleepers.len()
    }

    /// For how long the clock can be moved before the first pending sleep is over; `None` where nothing sleeps. A sleep that was
    /// given up counts until its time.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let state = self.lock();
        state.sleepers.iter().map(|(until, _)| until.saturating_sub(state.elapsed)).min()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ManualState> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().wall
    }

    fn monotonic(&self) -> Duration {
        self.lock().elapsed
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let clock = self.clone();
        let until = self.monotonic().saturating_add(duration);
        Box::pin(std::future::poll_fn(move |cx| {
            let mut state = clock.lock();
            if state.elapsed >= until {
                return std::task::Poll::Ready(());
            }
            state.sleepers.retain(|(at, waker)| *at != until || !waker.will_wake(cx.waker()));
            state.sleepers.push((until, cx.waker().clone()));
            std::task::Poll::Pending
        }))
    }
}

/// Repeatable bytes for tests (SplitMix64); never for secrets.
#[derive(Debug)]
pub struct SeededEntropy {
    state: std::sync::Mutex<u64>,
}

impl SeededEntropy {
    /// The same seed gives the same bytes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: std::sync::Mutex::new(seed) }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, dest: &mut [u8]) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for chunk in dest.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            for (to, from) in chunk.iter_mut().zip(z.to_le_bytes()) {
                *to = from;
            }
        }
    }
}
