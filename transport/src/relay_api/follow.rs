//! Following the relay's announcements: its next keys are pinned before it shows them.

use std::{fmt::Debug, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{
    Clock, Code, Failure,
    announcement::{RelayKeys, SignedAnnouncement},
    digest::Sha256Digest,
    failure::Result,
    public_key::PublicKeyLine,
};

use super::RelayApi;
use crate::{dial::Trust, pins::Pins};

/// How often the relay is asked although nothing hints at a new announcement.
pub const FOLLOW_INTERVAL: Duration = Duration::from_hours(1);
/// How long it is not asked after an attempt that failed, whatever hints there are.
pub const RETRY_PAUSE: Duration = Duration::from_secs(60);
/// How long is waited before a hint is followed where a hint was the reason for the attempt before.
const HINT_PAUSE: Duration = Duration::from_secs(10);
/// Announcements taken one right after the other; the second time tells the relay what was pinned.
const ROUNDS: u32 = 3;

/// The pins of one relay that every connection of this program uses.
#[derive(Debug, Clone)]
pub struct RelayPins {
    host_keys: Pins<PublicKeyLine>,
    spki: Option<Pins<Sha256Digest>>,
}

impl RelayPins {
    /// These keys, for now. Where no certificate is pinned now, the system's trust store decides, also later.
    #[must_use]
    pub fn new(keys: &RelayKeys) -> Self {
        let spki = (!keys.spki_pins.is_empty()).then(|| Pins::new(keys.spki_pins.clone()));
        Self { host_keys: Pins::new(keys.ssh_host_keys.clone()), spki }
    }

    /// The SSH host keys.
    #[must_use]
    pub fn host_keys(&self) -> &Pins<PublicKeyLine> {
        &self.host_keys
    }

    /// Whom TLS trusts.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.spki.clone().map_or(Trust::Public, Trust::Following)
    }

    /// Believes these keys from now on.
    pub fn set(&self, keys: &RelayKeys) {
        self.host_keys.set(keys.ssh_host_keys.clone());
        if let Some(spki) = self.spki.as_ref().filter(|_| !keys.spki_pins.is_empty()) {
            spki.set(keys.spki_pins.clone());
        }
    }
}

/// Where an end keeps what it pins of its relay.
pub trait Keeper: Debug + Send + Sync {
    /// The serial of the announcement that is pinned; 0 before the first. Blocking.
    ///
    /// # Errors
    /// As the disk reports.
    fn pinned(&self) -> Result<u64>;

    /// Checks an announcement, and keeps and uses its keys where it is newer than the pinned one. Returns the serial that is
    /// pinned now. Blocking.
    ///
    /// # Errors
    /// [`Code::AnnouncementInvalid`] where it is not believed: nothing has changed then. As the disk reports.
    fn take(&self, signed: &SignedAnnouncement) -> Result<u64>;
}

/// Asks one relay for its announcements.
#[derive(Debug, Clone)]
pub struct Follower {
    relay: Arc<dyn RelayApi>,
    keeper: Arc<dyn Keeper>,
    hints: watch::Receiver<u64>,
    clock: Arc<dyn Clock>,
}

impl Follower {
    /// Follows `relay` for `keeper`. `hints` has the serial of the newest announcement, as far as it is known
    /// ([`super::HttpRelayApi::announced`]).
    #[must_use]
    pub fn new(relay: Arc<dyn RelayApi>, keeper: Arc<dyn Keeper>, hints: watch::Receiver<u64>, clock: Arc<dyn Clock>) -> Self {
        Self { relay, keeper, hints, clock }
    }

    /// Asks once, and tells the relay what was pinned. Returns the serial that is pinned now; a relay that announces nothing
    /// changes nothing.
    ///
    /// # Errors
    /// Those of the relay and of [`Keeper::take`].
    pub async fn ask(&self) -> Result<u64> {
        let keeper = Arc::clone(&self.keeper);
        let mut pinned = blocking(move || keeper.pinned()).await?;
        for _ in 0..ROUNDS {
            let signed = match self.relay.announcement(pinned).await {
                Err(failure) if failure.code() == Code::NotFound => return Ok(pinned),
                other => other?,
            };
            let keeper = Arc::clone(&self.keeper);
            let now = blocking(move || keeper.take(&signed)).await?;
            if now == pinned {
                break;
            }
            tracing::info!(announcement = now, "pinned the keys that the relay has announced");
            pinned = now;
        }
        Ok(pinned)
    }

    /// Asks, and warns where that fails: it must not keep anything else from going on.
    pub async fn ask_or_warn(&self) -> Option<u64> {
        match self.ask().await {
            Ok(pinned) => Some(pinned),
            Err(failure) => {
                let report = failure.report();
                tracing::warn!(code = %failure.code(), "the relay's announcement of its keys was not followed: {report}");
                None
            }
        }
    }

    /// Asks at once, then whenever an answer of the relay says that there is a newer announcement, and every
    /// [`FOLLOW_INTERVAL`], until `shutdown` is cancelled.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut was_hinted = false;
        loop {
            // A relay that hints at more than it has must not be asked without end.
            let hinted = *self.hints.borrow_and_update();
            let asked = async {
                match self.ask_or_warn().await {
                    Some(pinned) => {
                        let hints = &mut self.hints;
                        let newer = async {
                            if hints.wait_for(|serial| *serial > pinned.max(hinted)).await.is_err() {
                                std::future::pending::<()>().await;
                            }
                        };
                        tokio::select! {
                            () = newer => {}
                            () = self.clock.sleep(FOLLOW_INTERVAL) => return false,
                        }
                        // It may hint at the next one with each that it gives.
                        if was_hinted {
                            self.clock.sleep(HINT_PAUSE).await;
                        }
                        true
                    }
                    None => {
                        self.clock.sleep(RETRY_PAUSE).await;
                        false
                    }
                }
            };
            was_hinted = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                hinted = asked => hinted,
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = crate::files::blocking(work).await;
    done.map_err(|error| Failure::retry(Code::Internal, "following the relay's announcement").caused_by(error))?
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    };

    use jiff::Timestamp;
    use towpath_transfer::clock::ManualClock;

    use super::*;
    use crate::relay_api::MemoryRelay;

    /// Believes whatever is a number.
    #[derive(Debug, Default)]
    struct Numbers {
        pinned: AtomicU64,
        taken: Mutex<Vec<String>>,
    }

    impl Keeper for Numbers {
        fn pinned(&self) -> Result<u64> {
            Ok(self.pinned.load(Ordering::SeqCst))
        }

        fn take(&self, signed: &SignedAnnouncement) -> Result<u64> {
            self.taken.lock().unwrap().push(signed.announcement.clone());
            let serial = signed.announcement.parse().map_err(|_| Failure::park(Code::AnnouncementInvalid, "on purpose"))?;
            self.pinned.store(serial, Ordering::SeqCst);
            Ok(serial)
        }
    }

    fn signed(text: &str) -> SignedAnnouncement {
        SignedAnnouncement { announcement: text.into(), signature: String::new() }
    }

    struct Bench {
        relay: MemoryRelay,
        keeper: Arc<Numbers>,
        hints: watch::Sender<u64>,
        clock: ManualClock,
        follower: Follower,
    }

    fn bench() -> Bench {
        let (relay, keeper, hints) = (MemoryRelay::new(), Arc::new(Numbers::default()), watch::Sender::new(0));
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let follower = Follower::new(Arc::new(relay.clone()), keeper.clone(), hints.subscribe(), Arc::new(clock.clone()));
        Bench { relay, keeper, hints, clock, follower }
    }

    #[tokio::test]
    async fn what_was_pinned_is_told_and_a_relay_without_announcements_is_left_alone() {
        let bench = bench();
        assert_eq!(bench.follower.ask().await.unwrap(), 0);
        bench.relay.set_announcement(signed("4"));
        assert_eq!(bench.follower.ask().await.unwrap(), 4);
        assert_eq!(bench.relay.pinned(), Some(4));
        bench.relay.set_announcement(signed("nonsense"));
        assert_eq!(bench.follower.ask().await.unwrap_err().code(), Code::AnnouncementInvalid);
        assert_eq!(bench.keeper.pinned.load(Ordering::SeqCst), 4);
    }

    async fn until(what: impl Fn() -> bool) {
        while !what() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_hint_is_followed_at_once_and_an_hour_without_one_too() {
        let bench = bench();
        bench.relay.set_announcement(signed("1"));
        let stop = CancellationToken::new();
        let running = tokio::spawn(bench.follower.clone().run(stop.clone()));
        until(|| bench.relay.pinned() == Some(1)).await;
        bench.relay.set_announcement(signed("2"));
        bench.hints.send_replace(2);
        until(|| bench.relay.pinned() == Some(2)).await;
        bench.relay.set_announcement(signed("3"));
        // The clock is turned until the follower sleeps and wakes.
        while bench.relay.pinned() != Some(3) {
            bench.clock.advance(FOLLOW_INTERVAL);
            tokio::task::yield_now().await;
        }
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn a_relay_that_hints_at_the_next_one_with_each_is_not_asked_without_pause() {
        let bench = bench();
        let stop = CancellationToken::new();
        let running = tokio::spawn(bench.follower.clone().run(stop.clone()));
        let next = |serial: u64| {
            bench.relay.set_announcement(signed(&serial.to_string()));
            bench.hints.send_replace(serial);
        };
        next(1);
        until(|| bench.relay.pinned() == Some(1)).await;
        for serial in 2..100 {
            next(serial);
            for _ in 0..10 {
                // As much time as it would need.
                tokio::task::spawn_blocking(|| ()).await.unwrap();
            }
        }
        let taken = bench.keeper.taken.lock().unwrap().len();
        assert!(taken <= 2 * ROUNDS as usize, "at the start, and for one hint: {taken}");
        while bench.relay.pinned() != Some(99) {
            bench.clock.advance(HINT_PAUSE);
            tokio::task::yield_now().await;
        }
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn after_a_failure_hints_do_not_make_it_ask_again_and_again() {
        let bench = bench();
        bench.relay.set_announcement(signed("nonsense"));
        bench.hints.send_replace(9);
        let stop = CancellationToken::new();
        let running = tokio::spawn(bench.follower.clone().run(stop.clone()));
        let taken = || bench.keeper.taken.lock().unwrap().len();
        until(|| taken() == 1).await;
        for _ in 0..100 {
            bench.hints.send_modify(|serial| *serial += 1);
            tokio::task::yield_now().await;
        }
        assert_eq!(taken(), 1);
        bench.relay.set_announcement(signed("200"));
        while bench.relay.pinned() != Some(200) {
            bench.clock.advance(RETRY_PAUSE);
            tokio::task::yield_now().await;
        }
        stop.cancel();
        running.await.unwrap();
    }

    #[test]
    fn pins_change_for_everybody_and_a_publicly_trusted_relay_stays_one() {
        let keys = |serial: u64, pin: &str| RelayKeys {
            serial,
            ssh_host_keys: vec![],
            receipt_keys: vec![],
            spki_pins: if pin.is_empty() { vec![] } else { vec![Sha256Digest::of(pin.as_bytes())] },
        };
        let pins = RelayPins::new(&keys(0, "old"));
        let (Trust::Following(seen), other) = (pins.trust(), pins.clone()) else { panic!("a certificate is pinned") };
        other.set(&keys(1, "new"));
        assert_eq!(*seen.get(), [Sha256Digest::of(b"new")]);
        // Nobody is trusted instead of the pinned ones because nothing is named.
        other.set(&keys(2, ""));
        assert_eq!(*seen.get(), [Sha256Digest::of(b"new")]);
        let public = RelayPins::new(&keys(0, ""));
        public.set(&keys(1, "new"));
        assert_eq!(public.trust(), Trust::Public);
    }
}
