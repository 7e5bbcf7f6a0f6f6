//! No more bytes a second than the customer's line can spare.

use std::{
    fmt,
    num::NonZeroU64,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use towpath_transfer::{Clock, RemotePath, clock::Sleep};

use super::{Connect, Progress, Put, RemoteEntry, RemoteRead, RemoteStat, RemoteStore, Source, StoreResult};

/// The longest time after which a rate that has changed counts for what waits already.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The most bytes a second at a time, asked at each piece of a file; `None` for no limit.
pub type Rate = Arc<dyn Fn() -> Option<NonZeroU64> + Send + Sync>;

/// An allowance of bytes a second. Clones share it.
#[derive(Clone)]
pub struct Pace(Arc<Allowance>);

struct Allowance {
    rate: Rate,
    clock: Arc<dyn Clock>,
    owed: Mutex<Owed>,
}

/// What was let through and is not yet paid for.
struct Owed {
    bytes: u64,
    /// The monotonic time at which it was that much.
    at: Duration,
}

impl Pace {
    /// An allowance of `rate`, which may change at any time: that counts at once, also in the middle of a file.
    pub fn new(rate: Rate, clock: Arc<dyn Clock>) -> Self {
        let owed = Mutex::new(Owed { bytes: 0, at: clock.monotonic() });
        Self(Arc::new(Allowance { rate, clock, owed }))
    }

    /// What to wait for before `bytes` may go: until what went before is paid for.
    fn take(&self, bytes: u64) -> Option<Sleep> {
        let first = self.0.book(bytes)?;
        let allowance = Arc::clone(&self.0);
        Some(Box::pin(async move {
            let mut wait = first;
            loop {
                allowance.clock.sleep(wait.min(LOOK_AGAIN)).await;
                match allowance.book(bytes) {
                    Some(longer) => wait = longer,
                    None => return,
                }
            }
        }))
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pace({:?} B/s)", (self.0.rate)().map(NonZeroU64::get))
    }
}

impl Allowance {
    /// Books `bytes` where all before them is paid for; else how long that takes at the present rate.
    fn book(&self, bytes: u64) -> Option<Duration> {
        let rate = (self.rate)();
        let now = self.clock.monotonic();
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rate) = rate else {
            *owed = Owed { bytes: 0, at: now };
            return None;
        };
        let due = owed.at.saturating_add(cost(owed.bytes, rate));
        if due > now {
            let paid = u128::from(rate.get()) * now.saturating_sub(owed.at).as_nanos() / NANOS;
            owed.bytes = owed.bytes.saturating_sub(u64::try_from(paid).unwrap_or(u64::MAX));
            // What is left is owed from here on, so that another rate counts for it and not for what was paid.
            owed.at = due.saturating_sub(cost(owed.bytes, rate));
            return Some(due - now);
        }
        // Whoever looked a little late has not lost that time; a line that was idle has saved none.
        let at = if now.saturating_sub(due) < LOOK_AGAIN && owed.bytes > 0 { due } else { now };
        *owed = Owed { bytes, at };
        None
    }
}

const NANOS: u128 = 1_000_000_000;

fn cost(bytes: u64, rate: NonZeroU64) -> Duration {
    let nanos = u128::from(bytes) * NANOS / u128::from(rate.get());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Holds the content of files, both ways together, to a pace. Names, listings and the protocol's own bytes are not counted.
#[derive(Debug, Clone)]
pub struct RateLimit {
    inner: Arc<dyn RemoteStore>,
    pace: Pace,
}

impl RateLimit {
    /// Not faster than `pace` through `inner`.
    pub fn new(inner: Arc<dyn RemoteStore>, pace: Pace) -> Self {
        Self { inner, pace }
    }
}

/// Makes connections that share a pace.
#[derive(Debug, Clone)]
pub struct PacedConnect {
    inner: Arc<dyn Connect>,
    pace: Pace,
}

impl PacedConnect {
    /// The connections of `inner`, all together not faster than `pace`.
    pub fn new(inner: Arc<dyn Connect>, pace: Pace) -> Self {
        Self { inner, pace }
    }
}

#[async_trait]
impl Connect for PacedConnect {
    async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
        Ok(Arc::new(RateLimit::new(self.inner.connect().await?, self.pace.clone())))
    }
}

struct Paced<'p> {
    progress: &'p dyn Progress,
    pace: &'p Pace,
}

impl Progress for Paced<'_> {
    fn advanced(&self, done: u64, total: u64) {
        self.progress.advanced(done, total);
    }

    fn pause(&self, bytes: u64) -> Option<Sleep> {
        match (self.progress.pause(bytes), self.pace.take(bytes)) {
            (Some(theirs), Some(ours)) => Some(Box::pin(async move {
                theirs.await;
                ours.await;
            })),
            (theirs, ours) => theirs.or(ours),
        }
    }
}

struct PacedRead {
    inner: Box<dyn RemoteRead>,
    pace: Pace,
}

#[async_trait]
impl RemoteRead for PacedRead {
    async fn next(&mut self) -> StoreResult<Option<Bytes>> {
        let chunk = self.inner.next().await?;
        if let Some(pause) = chunk.as_ref().and_then(|bytes| self.pace.take(bytes.len() as u64)) {
            pause.await;
        }
        Ok(chunk)
    }
}

#[async_trait]
impl RemoteStore for RateLimit {
    async fn put_new(&self, part: &RemotePath, source: Arc<dyn Source>, progress: &dyn Progress) -> StoreResult<Put> {
        self.inner.put_new(part, source, &Paced { progress, pace: &self.pace }).await
    }

    async fn publish(&self, part: &RemotePath, name: &RemotePath) -> StoreResult<()> {
        self.inner.publish(part, name).await
    }

    async fn stat(&self, path: &RemotePath) -> StoreResult<RemoteStat> {
        self.inner.stat(path).await
    }

    async fn open(&self, path: &RemotePath, offset: u64) -> StoreResult<Box<dyn RemoteRead>> {
        let inner = self.inner.open(path, offset).await?;
        Ok(Box::new(PacedRead { inner, pace: self.pace.clone() }))
    }

    async fn list(&self, dir: &RemotePath, limit: usize) -> StoreResult<Vec<RemoteEntry>> {
        self.inner.list(dir, limit).await
    }

    async fn make_dir_all(&self, dir: &RemotePath) -> StoreResult<()> {
        self.inner.make_dir_all(dir).await
    }

    async fn remove(&self, path: &RemotePath) -> StoreResult<()> {
        self.inner.remove(path).await
    }

    async fn remove_dir(&self, dir: &RemotePath) -> StoreResult<()> {
        self.inner.remove_dir(dir).await
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use towpath_transfer::clock::ManualClock;

    use super::*;
    use crate::store::{BytesSource, MemoryStore, NoProgress, conformance, read_remote};

    fn fixed(clock: &ManualClock, rate: u64) -> Pace {
        Pace::new(Arc::new(move || NonZeroU64::new(rate)), Arc::new(clock.clone()))
    }

    /// Runs `work` and moves the clock whenever the work waits for it; answers how long that took by the clock.
    async fn timed<T>(clock: &ManualClock, work: impl Future<Output = T>) -> (T, Duration) {
        let start = clock.monotonic();
        let mut work = std::pin::pin!(work);
        loop {
            if let std::task::Poll::Ready(done) = futures::poll!(&mut work) {
                return (done, clock.monotonic() - start);
            }
            tokio::task::yield_now().await;
            clock.advance(Duration::from_millis(10));
        }
    }

    #[tokio::test]
    async fn a_megabyte_at_a_hundred_kilobytes_a_second_takes_ten_seconds_each_way() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let store = RateLimit::new(Arc::new(MemoryStore::new()), fixed(&clock, 100_000));
        let path: RemotePath = "/f".parse().unwrap();
        let bytes = conformance::pattern(1_000_000, 1);
        let (put, up) = timed(&clock, store.put_new(&path, BytesSource::new(bytes.clone()), &NoProgress)).await;
        put.unwrap();
        let (back, down) = timed(&clock, read_remote(&store, &path, 1_000_000)).await;
        assert!(back.unwrap() == bytes);
        for took in [up, down] {
            assert!((9_500..10_600).contains(&took.as_millis()), "{took:?}");
        }
    }

    #[tokio::test]
    async fn conforms_where_the_rate_is_no_hindrance() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let store = RateLimit::new(Arc::new(MemoryStore::new()), fixed(&clock, u64::MAX));
        let subject = conformance::Subject { store: Arc::new(store), base: RemotePath::root() };
        conformance::all(&subject).await.unwrap();
    }
    /// A rate that is `first` for so many seconds, and `then` from there on.
    fn changing(clock: &ManualClock, first: u64, seconds: u64, then: u64) -> Pace {
        let (of, start) = (clock.clone(), clock.monotonic());
        let rate = move || {
            let is_first = of.monotonic().saturating_sub(start) < Duration::from_secs(seconds);
            NonZeroU64::new(if is_first { first } else { then })
        };
        Pace::new(Arc::new(rate), Arc::new(clock.clone()))
    }

    #[tokio::test]
    async fn a_rate_that_changes_counts_in_the_middle_of_a_file() {
        let path: RemotePath = "/f".parse().unwrap();
        for (first, seconds, then, expected) in [
            // Half at 100 kB/s, half at 50 kB/s.
            (100_000, 5, 50_000, 15_000),
            // From then on without a limit, also for a piece that would have waited for minutes.
            (1_000, 20, 0, 20_000),
            (0, 0, 100_000, 10_000),
        ] {
            let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
            let store = RateLimit::new(Arc::new(MemoryStore::new()), changing(&clock, first, seconds, then));
            let bytes = conformance::pattern(1_000_000, 1);
            let (put, took) = timed(&clock, store.put_new(&path, BytesSource::new(bytes.clone()), &NoProgress)).await;
            put.unwrap();
            let took = took.as_millis();
            assert!((expected - 1_200..expected + 1_700).contains(&took), "{first} and then {then}: {took} ms");
        }
    }

    #[derive(Debug)]
    struct One(Arc<dyn RemoteStore>);

    #[async_trait]
    impl Connect for One {
        async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
            Ok(Arc::clone(&self.0))
        }
    }

    #[tokio::test]
    async fn connections_and_both_ways_share_one_pace() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let connect = PacedConnect::new(Arc::new(One(Arc::new(MemoryStore::new()))), fixed(&clock, 100_000));
        let (one, other) = (connect.connect().await.unwrap(), connect.connect().await.unwrap());
        let (up, down): (RemotePath, RemotePath) = ("/up".parse().unwrap(), "/down".parse().unwrap());
        let bytes = conformance::pattern(500_000, 1);
        let there = connect.inner.connect().await.unwrap();
        there.put_new(&down, BytesSource::new(bytes.clone()), &NoProgress).await.unwrap();
        let both = async {
            let put = one.put_new(&up, BytesSource::new(bytes.clone()), &NoProgress);
            let (put, read) = futures::join!(put, read_remote(&*other, &down, 500_000));
            put.unwrap();
            read.unwrap()
        };
        let (read, took) = timed(&clock, both).await;
        assert!(read == bytes);
        assert!((9_000..11_000).contains(&took.as_millis()), "{took:?}");
    }
}
