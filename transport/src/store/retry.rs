//! A far folder that survives broken connections.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::Mutex;
use towpath_transfer::{Clock, Entropy, RemotePath, clock::Sleep};

use super::{Progress, Put, RemoteEntry, RemoteRead, RemoteStat, RemoteStore, Source, StoreError, StoreErrorKind, StoreResult};

/// Makes connections to one far folder.
#[async_trait]
pub trait Connect: fmt::Debug + Send + Sync {
    /// A new connection.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unreachable`] and [`StoreErrorKind::TimedOut`], which are tried again; everything else is final.
    async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>>;
}

/// How often, and after which pauses, an operation is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in a row that may fail; a file that gets further starts the count anew.
    pub attempts: u32,
    /// The first pause; each next one is twice as long. The real pause is between half of it and the whole.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl RetryPolicy {
    /// Attempts of the default policy.
    pub const ATTEMPTS: u32 = 5;
    /// First pause of the default policy.
    pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
    /// Longest pause of the default policy.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

    fn pause(&self, failed: u32, entropy: &dyn Entropy) -> Duration {
        let doubled = self.first_pause.saturating_mul(2u32.saturating_pow(failed.saturating_sub(1)));
        let whole = doubled.min(self.longest_pause);
        let mut byte = [0];
        entropy.fill(&mut byte);
        // Many agents that lost the same relay must not come back in step.
        whole / 2 + (whole / 2).saturating_mul(u32::from(byte[0])) / 255
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: Self::ATTEMPTS, first_pause: Self::FIRST_PAUSE, longest_pause: Self::LONGEST_PAUSE }
    }
}

/// Connects when there is something to do, and tries an operation again on a new connection where the old one was lost or none could be made.
/// Every other error is returned at once. Clones share the connection.
#[derive(Clone)]
pub struct Retry {
    shared: Arc<Shared>,
}

struct Shared {
    connect: Arc<dyn Connect>,
    policy: RetryPolicy,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    current: Mutex<Option<Arc<dyn RemoteStore>>>,
}

type Work<'w, T> = &'w (dyn Fn(Arc<dyn RemoteStore>) -> BoxFuture<'w, StoreResult<T>> + Send + Sync);

impl Retry {
    /// Connections come from `connect`; the first is made by the first operation.
    pub fn new(connect: Arc<dyn Connect>, policy: RetryPolicy, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { shared: Arc::new(Shared { connect, policy, clock, entropy, current: Mutex::new(None) }) }
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Retry({:?})", self.shared.connect)
    }
}

fn worth_another_try(kind: StoreErrorKind) -> bool {
    matches!(kind, StoreErrorKind::Unreachable | StoreErrorKind::ConnectionLost | StoreErrorKind::TimedOut)
}

impl Shared {
    /// The lock is held while connecting, so that many operations that lost one connection make one new one.
    async fn connection(&self) -> StoreResult<Arc<dyn RemoteStore>> {
        let mut current = self.current.lock().await;
        if let Some(store) = current.as_ref() {
            return Ok(Arc::clone(store));
        }
        let store = self.connect.connect().await?;
        *current = Some(Arc::clone(&store));
        Ok(store)
    }

    async fn drop_connection(&self, broken: &Arc<dyn RemoteStore>) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|store| Arc::ptr_eq(store, broken)) {
            *current = None;
        }
    }

    async fn attempt<T>(&self, work: Work<'_, T>) -> StoreResult<T> {
        let store = self.connection().await?;
        let result = work(Arc::clone(&store)).await;
        if result.as_ref().is_err_and(|error| error.kind().ends_connection()) {
            self.drop_connection(&store).await;
        }
        result
    }

    /// `reached` grows as the work gets further, and so restarts the count of attempts.
    async fn run<T>(&self, reached: &AtomicU64, work: Work<'_, T>) -> StoreResult<T> {
        let mut failed = 0;
        let mut best = reached.load(Ordering::Relaxed);
        loop {
            let error = match self.attempt(work).await {
                Err(error) if worth_another_try(error.kind()) => error,
                other => return other,
            };
            let now = reached.load(Ordering::Relaxed);
            failed = if now > best { 1 } else { failed + 1 };
            best = best.max(now);
            failed = self.pause(failed, error).await?;
        }
    }

    async fn pause(&self, failed: u32, error: StoreError) -> StoreResult<u32> {
        if failed >= self.policy.attempts {
            return Err(error);
        }
        let pause = self.policy.pause(failed, self.entropy.as_ref());
        tracing::info!(failed, ?pause, error = %error, "the connection failed; trying again");
        self.clock.sleep(pause).await;
        Ok(failed)
    }

    async fn simple<T>(&self, work: Work<'_, T>) -> StoreResult<T> {
        self.run(&AtomicU64::new(0), work).await
    }
}

/// Notes how far an attempt got.
struct Reached<'p> {
    progress: &'p dyn Progress,
    most: &'p AtomicU64,
}

impl Progress for Reached<'_> {
    fn advanced(&self, done: u64, total: u64) {
        self.most.fetch_max(done, Ordering::Relaxed);
        self.progress.advanced(done, total);
    }

    fn pause(&self, bytes: u64) -> Option<Sleep> {
        self.progress.pause(bytes)
    }
}

#[async_trait]
impl RemoteStore for Retry {
    async fn put_new(&self, part: &RemotePath, source: Arc<dyn Source>, progress: &dyn Progress) -> StoreResult<Put> {
        let most = AtomicU64::new(0);
        let reached = &Reached { progress, most: &most };
        let source = &source;
        let work = move |store: Arc<dyn RemoteStore>| -> BoxFuture<'_, StoreResult<Put>> {
            Box::pin(async move { store.put_new(part, Arc::clone(source), reached).await })
        };
        self.shared.run(&most, &work).await
    }

    async fn publish(&self, part: &RemotePath, name: &RemotePath) -> StoreResult<()> {
        self.shared.simple(&move |store| Box::pin(async move { store.publish(part, name).await })).await
    }

    async fn stat(&self, path: &RemotePath) -> StoreResult<RemoteStat> {
        self.shared.simple(&move |store| Box::pin(async move { store.stat(path).await })).await
    }

    async fn open(&self, path: &RemotePath, offset: u64) -> StoreResult<Box<dyn RemoteRead>> {
        let inner = self.shared.simple(&move |store| Box::pin(async move { store.open(path, offset).await })).await?;
        let shared = Arc::clone(&self.shared);
        Ok(Box::new(RetryRead { shared, path: path.clone(), position: offset, failed: 0, inner: Some(inner) }))
    }

    async fn list(&self, dir: &RemotePath, limit: usize) -> StoreResult<Vec<RemoteEntry>> {
        self.shared.simple(&move |store| Box::pin(async move { store.list(dir, limit).await })).await
    }

    async fn make_dir_all(&self, dir: &RemotePath) -> StoreResult<()> {
        self.shared.simple(&move |store| Box::pin(async move { store.make_dir_all(dir).await })).await
    }

    async fn remove(&self, path: &RemotePath) -> StoreResult<()> {
        self.shared.simple(&move |store| Box::pin(async move { store.remove(path).await })).await
    }

    async fn remove_dir(&self, dir: &RemotePath) -> StoreResult<()> {
        self.shared.simple(&move |store| Box::pin(async move { store.remove_dir(dir).await })).await
    }
}

/// Opens the file again where the last connection left it.
struct RetryRead {
    shared: Arc<Shared>,
    path: RemotePath,
    position: u64,
    failed: u32,
    inner: Option<Box<dyn RemoteRead>>,
}

impl RetryRead {
    async fn once(&mut self) -> StoreResult<Option<Bytes>> {
        if self.inner.is_none() {
            let (path, position) = (&self.path, self.position);
            let work = move |store: Arc<dyn RemoteStore>| -> BoxFuture<'_, StoreResult<Box<dyn RemoteRead>>> {
                Box::pin(async move { store.open(path, position).await })
            };
            self.inner = Some(self.shared.attempt(&work).await?);
        }
        match self.inner.as_mut() {
            Some(inner) => inner.next().await,
            None => Ok(None),
        }
    }
}

#[async_trait]
impl RemoteRead for RetryRead {
    async fn next(&mut self) -> StoreResult<Option<Bytes>> {
        loop {
            let broken = self.shared.current.lock().await.clone();
            let error = match self.once().await {
                Err(error) if worth_another_try(error.kind()) => error,
                other => {
                    if let Ok(Some(chunk)) = &other {
                        self.position += chunk.len() as u64;
                        self.failed = 0;
                    }
                    return other;
                }
            };
            // A reader that breaks says nothing to `attempt`, so its connection is given up here.
            if self.inner.take().is_some()
                && let Some(broken) = broken
            {
                self.shared.drop_connection(&broken).await;
            }
            self.failed = self.shared.pause(self.failed + 1, error).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use jiff::Timestamp;
    use towpath_transfer::clock::{ManualClock, SeededEntropy};

    use super::*;
    use crate::store::{
        BytesSource, FaultStore, MemoryStore, NoProgress, StoreFault, StoreOp, conformance::Subject, conformance::all,
        conformance::pattern, read_remote,
    };

    #[derive(Debug)]
    struct Line {
        store: Arc<dyn RemoteStore>,
        made: AtomicUsize,
        refuse: usize,
    }

    #[async_trait]
    impl Connect for Line {
        async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
            if self.made.fetch_add(1, Ordering::Relaxed) < self.refuse {
                return Err(StoreError::new(StoreErrorKind::Unreachable, "connecting"));
            }
            Ok(Arc::clone(&self.store))
        }
    }

    async fn ready<T>(clock: &ManualClock, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            if let std::task::Poll::Ready(done) = futures::poll!(&mut work) {
                return done;
            }
            // The runtime lets a task that never yields do only so much at a time.
            tokio::task::yield_now().await;
            clock.advance(Duration::from_millis(50));
        }
    }

    fn retry(store: Arc<dyn RemoteStore>, refuse: usize) -> (Retry, ManualClock, Arc<Line>) {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let line = Arc::new(Line { store, made: AtomicUsize::new(0), refuse });
        let entropy = Arc::new(SeededEntropy::new(1));
        let retry = Retry::new(line.clone(), RetryPolicy::default(), Arc::new(clock.clone()), entropy);
        (retry, clock, line)
    }

    #[tokio::test]
    async fn conforms_over_a_line_that_loses_every_third_answer() {
        let mut calls = 0;
        let plan = move |_: StoreOp, _: &RemotePath| {
            calls += 1;
            match calls % 6 {
                0 => Some(StoreFault::Before(StoreErrorKind::ConnectionLost)),
                3 => Some(StoreFault::After(StoreErrorKind::TimedOut)),
                _ => None,
            }
        };
        // A lost answer to a put hides what was resumed, so the suite's puts are left alone.
        let mut plan: crate::store::StorePlan = Box::new(plan);
        let spare_puts = move |op: StoreOp, path: &RemotePath| (op != StoreOp::PutNew).then(|| plan(op, path)).flatten();
        let (store, clock, line) = retry(Arc::new(FaultStore::new(Arc::new(MemoryStore::new()), Box::new(spare_puts))), 2);
        let subject = Subject { store: Arc::new(store), base: RemotePath::root() };
        ready(&clock, all(&subject)).await.unwrap();
        assert!(line.made.load(Ordering::Relaxed) > 20);
    }

    #[tokio::test]
    async fn a_file_cut_again_and_again_arrives_whole_and_no_byte_goes_twice() {
        let mut cut = 0;
        let plan = move |op: StoreOp, _: &RemotePath| {
            cut += 70_000;
            matches!(op, StoreOp::PutNew | StoreOp::Open).then_some(StoreFault::CutAt(cut))
        };
        let memory = Arc::new(MemoryStore::new());
        let (store, clock, _) = retry(Arc::new(FaultStore::new(memory.clone(), Box::new(plan))), 0);
        let path: RemotePath = "/f".parse().unwrap();
        let bytes = pattern(1_000_000, 1);
        let put = ready(&clock, store.put_new(&path, BytesSource::new(bytes.clone()), &NoProgress)).await.unwrap();
        assert!(put.resumed_from > 900_000);
        assert!(read_remote(memory.as_ref(), &path, 1_000_000).await.unwrap() == bytes);
    }

    #[tokio::test]
    async fn reading_goes_on_where_the_connection_was_lost() {
        let memory = Arc::new(MemoryStore::new());
        let path: RemotePath = "/f".parse().unwrap();
        let bytes = pattern(1_000_000, 1);
        memory.put_new(&path, BytesSource::new(bytes.clone()), &NoProgress).await.unwrap();
        let mut cut = 0;
        let plan = move |_: StoreOp, _: &RemotePath| {
            cut += 70_000;
            Some(StoreFault::CutAt(cut))
        };
        let (store, clock, line) = retry(Arc::new(FaultStore::new(memory, Box::new(plan))), 0);
        assert!(ready(&clock, read_remote(&store, &path, 1_000_000)).await.unwrap() == bytes);
        assert!(line.made.load(Ordering::Relaxed) > 10, "each loss makes a new connection");
    }

    #[tokio::test]
    async fn it_gives_up_in_the_end_and_at_once_where_trying_is_no_use() {
        let (store, clock, line) = retry(Arc::new(MemoryStore::new()), usize::MAX);
        let path: RemotePath = "/f".parse().unwrap();
        let error = ready(&clock, store.stat(&path)).await.unwrap_err();
        assert_eq!((error.kind(), line.made.load(Ordering::Relaxed)), (StoreErrorKind::Unreachable, 5));
        let (store, clock, line) = retry(Arc::new(MemoryStore::new()), 0);
        let error = ready(&clock, store.stat(&path)).await.unwrap_err();
        assert_eq!((error.kind(), line.made.load(Ordering::Relaxed)), (StoreErrorKind::NotFound, 1));
        assert_eq!(clock.monotonic(), Duration::ZERO);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (policy, entropy) = (RetryPolicy::default(), SeededEntropy::new(7));
        for (failed, whole) in [(1, 500), (2, 1000), (3, 2000), (7, 30_000), (60, 30_000)] {
            let pause = policy.pause(failed, &entropy).as_millis();
            assert!((whole / 2..=whole).contains(&pause), "{failed}: {pause}");
        }
    }
}
