//! The figures of a driver.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use towpath_transfer::Entropy;

/// The longest pause before something that may have mended itself is tried again, so that everything goes on within a minute after
/// its cause is gone: this pause, the driver's poll, the [pause of whoever asks how it stands](LONGEST_TROUBLED_POLL), and ten seconds for
/// the work itself.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause between two questions to a relay that reports trouble, unless the configured one is longer.
pub const LONGEST_TROUBLED_POLL: Duration = Duration::from_secs(15);

/// Exponential backoff with full jitter: a pause is random between nothing and `base * factor^(attempts - 1)`, at most
/// `cap`, so that many that failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest pause after the first failure. Default 1 s.
    pub base: Duration,
    /// By what it grows with each further failure. Default 2.
    pub factor: u32,
    /// What it never exceeds, and what the wish of the other side is cut to. Default [`LONGEST_PAUSE`], 30 s.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_secs(1), factor: 2, cap: LONGEST_PAUSE }
    }
}

impl Backoff {
    /// The longest pause after so many failures.
    #[must_use]
    pub fn ceiling(&self, attempts: u32) -> Duration {
        let growth = self.factor.checked_pow(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(growth).min(self.cap)
    }

    /// The pause after so many failures.
    #[must_use]
    pub fn pause(&self, attempts: u32, entropy: &dyn Entropy) -> Duration {
        spread(self.ceiling(attempts), entropy)
    }

    /// The pause that the other side has asked for. One beyond the cap is cut to something between half the cap and the cap: the
    /// cause may be gone long before, and not everybody who was told the same may come back together.
    #[must_use]
    pub fn asked_for(&self, wish: Duration, entropy: &dyn Entropy) -> Duration {
        if wish <= self.cap { wish } else { self.cap / 2 + spread(self.cap / 2, entropy) }
    }
}

/// Something between nothing and `longest`, each as likely as any other.
fn spread(longest: Duration, entropy: &dyn Entropy) -> Duration {
    let mut random = [0; 8];
    entropy.fill(&mut random);
    let ceiling = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    // The high half of the product of a 64-bit fraction and the ceiling is even over 0..=ceiling, near enough.
    let product = u128::from(u64::from_le_bytes(random)) * (u128::from(ceiling) + 1);
    Duration::from_nanos(u64::try_from(product >> 64).unwrap_or(ceiling))
}

/// The figures of a driver, with their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverSettings {
    /// How many transfers of the stage are worked on at once; at least one. Default 4.
    pub concurrency: usize,
    /// How many transfers of one tenant are worked on at once; at least one, and never more than `concurrency`. Default
    /// `usize::MAX`: no bound of its own.
    pub per_tenant: usize,
    /// How many transfers of one agent are worked on at once; as `per_tenant`. Default `usize::MAX`: no bound of its own.
    pub per_agent: usize,
    /// How long a lease lasts without renewal; it is renewed at a third of this. Default 60 s.
    pub lease_ttl: Duration,
    /// The pauses after failures, of steps and of the journal.
    pub backoff: Backoff,
    /// How often the journal is asked without a hint. Default 1 s.
    pub poll: Duration,
    /// How long running steps may go on at shutdown. Default 20 s.
    pub shutdown_grace: Duration,
    /// How long steps that were interrupted then may take to give their leases back. Default 5 s.
    pub release_grace: Duration,
    /// After so many failed tries in a row a transfer is parked. Default 1,000,000: more than half a year, so
    /// that no outage parks anything by itself.
    pub max_attempts: u32,
}

impl DriverSettings {
    /// How many transfers are worked on at once.
    pub(super) fn at_once(&self) -> usize {
        self.concurrency.max(1)
    }

    /// How many of these may be one tenant's, and how many one agent's.
    pub(super) fn shares(&self) -> [usize; 2] {
        [self.per_tenant, self.per_agent].map(|share| share.clamp(1, self.at_once()))
    }
}

impl Default for DriverSettings {
    fn default() -> Self {
        Self {
            concurrency: 4,
            per_tenant: usize::MAX,
            per_agent: usize::MAX,
            lease_ttl: Duration::from_secs(60),
            backoff: Backoff::default(),
            poll: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(20),
            release_grace: Duration::from_secs(5),
            max_attempts: 1_000_000,
        }
    }
}

/// Tells drivers that there may be something to do. A hint carries no data and may be lost without harm: the journal
/// is asked regularly anyway. All drivers of a program share one.
///
/// Whoever began to wait first is woken first. A watch channel, which knows its waiters in several lists and draws one for each, would wake
/// the drivers of a program in another order each time, and no run of the simulation could be had again.
#[derive(Debug, Clone, Default)]
pub struct WakeUp {
    hints: Arc<Hints>,
}

#[derive(Debug, Default)]
struct Hints {
    count: AtomicU64,
    told: Notify,
}

impl WakeUp {
    /// A handle to share.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Something may be due.
    pub fn hint(&self) {
        self.hints.count.fetch_add(1, Ordering::SeqCst);
        self.hints.told.notify_waiters();
    }

    /// Sees every hint from now on; several may show as one.
    pub(super) fn subscribe(&self) -> Hinted {
        Hinted { hints: Arc::clone(&self.hints), seen: self.hints.count.load(Ordering::SeqCst) }
    }
}

/// What one driver has seen of the hints.
#[derive(Debug)]
pub(super) struct Hinted {
    hints: Arc<Hints>,
    seen: u64,
}

impl Hinted {
    /// Every hint until now has been seen.
    pub(super) fn mark_unchanged(&mut self) {
        self.seen = self.hints.count.load(Ordering::SeqCst);
    }

    /// Waits for a hint that was not seen. May be dropped and asked again.
    pub(super) async fn changed(&mut self) {
        loop {
            // Made before the count is looked at: it hears of every hint from then on (`Notify::notify_waiters`).
            let told = self.hints.told.notified();
            let count = self.hints.count.load(Ordering::SeqCst);
            if count != self.seen {
                self.seen = count;
                return;
            }
            told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::clock::SeededEntropy;

    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_are_spread_below_it() {
        let backoff = Backoff::default();
        let ceilings: Vec<u64> = [1, 2, 3, 6, 7, 40, u32::MAX].map(|n| backoff.ceiling(n).as_secs()).to_vec();
        assert_eq!(ceilings, [1, 2, 4, 30, 30, 30, 30]);
        let entropy = SeededEntropy::new(7);
        let pauses: Vec<Duration> = (0..1_000).map(|_| backoff.pause(20, &entropy)).collect();
        assert!(pauses.iter().all(|pause| *pause <= backoff.cap));
        let low = pauses.iter().filter(|pause| **pause < backoff.cap / 2).count();
        assert!((400..600).contains(&low), "{low} of 1,000 in the lower half");
        let asked: Vec<Duration> = (0..1_000).map(|_| backoff.asked_for(Duration::from_secs(3_600), &entropy)).collect();
        assert!(asked.iter().all(|pause| (backoff.cap / 2..=backoff.cap).contains(pause)));
        assert!(asked.iter().max() > asked.iter().min());
        assert_eq!(backoff.asked_for(Duration::from_secs(7), &entropy), Duration::from_secs(7));
        let still = Backoff { base: Duration::ZERO, ..backoff };
        assert_eq!(still.pause(1, &entropy), Duration::ZERO);
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let settings = DriverSettings::default();
        assert_eq!((settings.concurrency, settings.max_attempts), (4, 1_000_000));
        assert_eq!((settings.lease_ttl, settings.poll, settings.shutdown_grace), {
            (Duration::from_secs(60), Duration::from_secs(1), Duration::from_secs(20))
        });
        assert_eq!(settings.release_grace, Duration::from_secs(5));
        let pauses = LONGEST_PAUSE + LONGEST_TROUBLED_POLL + settings.poll;
        assert!(pauses <= Duration::from_secs(50), "a minute leaves too little for the work itself");
    }
}
