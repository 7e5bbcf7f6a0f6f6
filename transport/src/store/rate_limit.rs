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

use super::{Progress, Put, RemoteEntry, RemoteRead, RemoteStat, RemoteStore, Source, StoreResult};

/// Holds the content of files, both ways together, to a rate. Names, listings and the protocol's own bytes are not counted.
/// Clones share the allowance.
#[derive(Clone)]
pub struct RateLimit {
    inner: Arc<dyn RemoteStore>,
    allowance: Arc<Allowance>,
}

struct Allowance {
    bytes_per_second: NonZeroU64,
    clock: Arc<dyn Clock>,
    /// The monotonic time at which everything let through so far is paid for.
    paid_until: Mutex<Duration>,
}

impl RateLimit {
    /// At most `bytes_per_second` through `inner`.
    pub fn new(inner: Arc<dyn RemoteStore>, bytes_per_second: NonZeroU64, clock: Arc<dyn Clock>) -> Self {
        let paid_until = Mutex::new(clock.monotonic());
        Self { inner, allowance: Arc::new(Allowance { bytes_per_second, clock, paid_until }) }
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RateLimit({} B/s, {:?})", self.allowance.bytes_per_second, self.inner)
    }
}

impl Allowance {
    /// Books `bytes` and says how long to wait before they may go: until what went before is paid for.
    fn take(&self, bytes: u64) -> Option<Sleep> {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = self.clock.monotonic();
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = paid_until.saturating_sub(now);
        *paid_until = now.saturating_add(wait).saturating_add(cost);
        drop(paid_until);
        (!wait.is_zero()).then(|| self.clock.sleep(wait))
    }
}

struct Paced<'p> {
    progress: &'p dyn Progress,
    allowance: &'p Allowance,
}

impl Progress for Paced<'_> {
    fn advanced(&self, done: u64, total: u64) {
        self.progress.advanced(done, total);
    }

    fn pause(&self, bytes: u64) -> Option<Sleep> {
        match (self.progress.pause(bytes), self.allowance.take(bytes)) {
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
    allowance: Arc<Allowance>,
}

#[async_trait]
impl RemoteRead for PacedRead {
    async fn next(&mut self) -> StoreResult<Option<Bytes>> {
        let chunk = self.inner.next().await?;
        if let Some(pause) = chunk.as_ref().and_then(|bytes| self.allowance.take(bytes.len() as u64)) {
            pause.await;
        }
        Ok(chunk)
    }
}

#[async_trait]
impl RemoteStore for RateLimit {
    async fn put_new(&self, part: &RemotePath, source: Arc<dyn Source>, progress: &dyn Progress) -> StoreResult<Put> {
        self.inner.put_new(part, source, &Paced { progress, allowance: &self.allowance }).await
    }

    async fn publish(&self, part: &RemotePath, name: &RemotePath) -> StoreResult<()> {
        self.inner.publish(part, name).await
    }

    async fn stat(&self, path: &RemotePath) -> StoreResult<RemoteStat> {
        self.inner.stat(path).await
    }

    async fn open(&self, path: &RemotePath, offset: u64) -> StoreResult<Box<dyn RemoteRead>> {
        let inner = self.inner.open(path, offset).await?;
        Ok(Box::new(PacedRead { inner, allowance: Arc::clone(&self.allowance) }))
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
        let rate = NonZeroU64::new(100_000).unwrap();
        let store = RateLimit::new(Arc::new(MemoryStore::new()), rate, Arc::new(clock.clone()));
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
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let store = RateLimit::new(Arc::new(MemoryStore::new()), NonZeroU64::MAX, clock);
        let subject = conformance::Subject { store: Arc::new(store), base: RemotePath::root() };
        conformance::all(&subject).await.unwrap();
    }
}
