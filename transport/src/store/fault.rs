//! A far folder that fails by plan: before or after the effect, or in the middle of a file.

use std::{
    fmt,
    io::{self, Read, Seek, SeekFrom},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use towpath_transfer::RemotePath;

use super::{Progress, Put, RemoteEntry, RemoteRead, RemoteStat, RemoteStore, Source, StoreError, StoreErrorKind, StoreResult};
use crate::files::ReadFile;

/// The operations of [`RemoteStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreOp {
    /// `put_new`.
    PutNew,
    /// `publish`, named by the final name.
    Publish,
    /// `stat`.
    Stat,
    /// `open`.
    Open,
    /// `list`.
    List,
    /// `make_dir_all`.
    MakeDirAll,
    /// `remove`.
    Remove,
    /// `remove_dir`.
    RemoveDir,
}

impl StoreOp {
    /// Whether the operation changes anything; a simulation that fails each effect in turn counts these.
    #[must_use]
    pub const fn is_effect(self) -> bool {
        !matches!(self, Self::Stat | Self::Open | Self::List)
    }
}

/// How an operation is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// Nothing happens, and the error is returned.
    Before(StoreErrorKind),
    /// It happens, and the error is returned nevertheless: the lost answer.
    After(StoreErrorKind),
    /// The connection is lost where the file's byte at this position would have travelled. Other operations than `put_new` and
    /// `open`, and files that are not longer, are not touched.
    CutAt(u64),
}

impl StoreFault {
    /// A plan that makes the `n`th effect fail so, counted from 1, and nothing else.
    #[must_use]
    pub fn on_effect(self, n: usize) -> StorePlan {
        let mut effects = 0usize;
        Box::new(move |op, _| {
            effects += usize::from(op.is_effect());
            (op.is_effect() && effects == n).then_some(self)
        })
    }
}

/// Asked before each operation; `None` lets it through.
pub type StorePlan = Box<dyn FnMut(StoreOp, &RemotePath) -> Option<StoreFault> + Send>;

/// Fails the operations of another store by plan.
pub struct FaultStore {
    inner: Arc<dyn RemoteStore>,
    plan: Mutex<StorePlan>,
}

impl FaultStore {
    /// Puts `plan` before `inner`.
    pub fn new(inner: Arc<dyn RemoteStore>, plan: StorePlan) -> Self {
        Self { inner, plan: Mutex::new(plan) }
    }

    fn fault(&self, op: StoreOp, path: &RemotePath) -> Option<StoreFault> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)(op, path)
    }

    async fn run<T>(&self, op: StoreOp, path: &RemotePath, work: impl Future<Output = StoreResult<T>> + Send) -> StoreResult<T> {
        match self.fault(op, path) {
            None | Some(StoreFault::CutAt(_)) => work.await,
            Some(StoreFault::Before(kind)) => Err(planned(kind, op, path)),
            Some(StoreFault::After(kind)) => {
                work.await?;
                Err(planned(kind, op, path))
            }
        }
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({:?})", self.inner)
    }
}

fn planned(kind: StoreErrorKind, op: StoreOp, path: &RemotePath) -> StoreError {
    StoreError::new(kind, format!("{op:?} {path}: failed by plan"))
}

#[async_trait]
impl RemoteStore for FaultStore {
    async fn put_new(&self, part: &RemotePath, source: Arc<dyn Source>, progress: &dyn Progress) -> StoreResult<Put> {
        match self.fault(StoreOp::PutNew, part) {
            None => self.inner.put_new(part, source, progress).await,
            Some(StoreFault::Before(kind)) => Err(planned(kind, StoreOp::PutNew, part)),
            Some(StoreFault::After(kind)) => {
                self.inner.put_new(part, source, progress).await?;
                Err(planned(kind, StoreOp::PutNew, part))
            }
            Some(StoreFault::CutAt(at)) => {
                let long = source.open().and_then(|file| file.len()).is_ok_and(|len| len > at);
                if !long {
                    return self.inner.put_new(part, source, progress).await;
                }
                self.inner.put_new(part, Arc::new(CutSource { inner: source, at }), progress).await.map_err(|error| {
                    match error.kind() {
                        StoreErrorKind::Source => planned(StoreErrorKind::ConnectionLost, StoreOp::PutNew, part),
                        _ => error,
                    }
                })
            }
        }
    }

    async fn publish(&self, part: &RemotePath, name: &RemotePath) -> StoreResult<()> {
        self.run(StoreOp::Publish, name, self.inner.publish(part, name)).await
    }

    async fn stat(&self, path: &RemotePath) -> StoreResult<RemoteStat> {
        self.run(StoreOp::Stat, path, self.inner.stat(path)).await
    }

    async fn open(&self, path: &RemotePath, offset: u64) -> StoreResult<Box<dyn RemoteRead>> {
        let cut = match self.fault(StoreOp::Open, path) {
            None => return self.inner.open(path, offset).await,
            Some(StoreFault::Before(kind) | StoreFault::After(kind)) => return Err(planned(kind, StoreOp::Open, path)),
            Some(StoreFault::CutAt(at)) => at,
        };
        let inner = self.inner.open(path, offset).await?;
        Ok(Box::new(CutRead { inner, left: cut.saturating_sub(offset), cut: false, path: path.clone() }))
    }

    async fn list(&self, dir: &RemotePath, limit: usize) -> StoreResult<Vec<RemoteEntry>> {
        self.run(StoreOp::List, dir, self.inner.list(dir, limit)).await
    }

    async fn make_dir_all(&self, dir: &RemotePath) -> StoreResult<()> {
        self.run(StoreOp::MakeDirAll, dir, self.inner.make_dir_all(dir)).await
    }

    async fn remove(&self, path: &RemotePath) -> StoreResult<()> {
        self.run(StoreOp::Remove, path, self.inner.remove(path)).await
    }

    async fn remove_dir(&self, dir: &RemotePath) -> StoreResult<()> {
        self.run(StoreOp::RemoveDir, dir, self.inner.remove_dir(dir)).await
    }
}

#[derive(Debug)]
struct CutSource {
    inner: Arc<dyn Source>,
    at: u64,
}

impl Source for CutSource {
    fn open(&self) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(CutFile { inner: self.inner.open()?, position: 0, at: self.at }))
    }
}

struct CutFile {
    inner: Box<dyn ReadFile>,
    position: u64,
    at: u64,
}

impl Read for CutFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.at.saturating_sub(self.position)).unwrap_or(usize::MAX);
        if left == 0 && !buf.is_empty() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let step = buf.len().min(left);
        let count = self.inner.read(buf.get_mut(..step).unwrap_or_default())?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for CutFile {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.position = self.inner.seek(pos)?;
        Ok(self.position)
    }
}

impl ReadFile for CutFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

struct CutRead {
    inner: Box<dyn RemoteRead>,
    left: u64,
    /// The byte at which the line breaks was seen.
    cut: bool,
    path: RemotePath,
}

#[async_trait]
impl RemoteRead for CutRead {
    async fn next(&mut self) -> StoreResult<Option<Bytes>> {
        let lost = || planned(StoreErrorKind::ConnectionLost, StoreOp::Open, &self.path);
        if self.cut {
            return Err(lost());
        }
        let Some(mut chunk) = self.inner.next().await? else { return Ok(None) };
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        self.cut = chunk.len() > left;
        if self.cut && left == 0 {
            return Err(lost());
        }
        chunk.truncate(left);
        self.left -= chunk.len() as u64;
        Ok(Some(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{BytesSource, MemoryStore, NoProgress, read_remote};

    /// Puts and publishes a file with one fault, then again without; answers whether the fault was seen.
    async fn with(fault: StoreFault, n: usize) -> bool {
        let memory: Arc<dyn RemoteStore> = Arc::new(MemoryStore::new());
        let store = FaultStore::new(Arc::clone(&memory), fault.on_effect(n));
        let (part, name): (RemotePath, RemotePath) = ("/f.part".parse().unwrap(), "/f".parse().unwrap());
        let source = BytesSource::new(vec![7; 100_000]);
        let mut failed = false;
        for store in [&store as &dyn RemoteStore, memory.as_ref()] {
            let put = store.put_new(&part, source.clone(), &NoProgress).await;
            let done = match put {
                Ok(_) => store.publish(&part, &name).await,
                Err(error) => Err(error),
            };
            failed |= done.is_err_and(|error| error.kind() == StoreErrorKind::ConnectionLost);
        }
        assert_eq!(read_remote(memory.as_ref(), &name, 100_000).await.unwrap(), vec![7; 100_000]);
        failed
    }

    #[tokio::test]
    async fn each_effect_fails_where_it_is_told_to_and_can_be_repeated() {
        for n in 1..=2 {
            for fault in [StoreFault::Before(StoreErrorKind::ConnectionLost), StoreFault::After(StoreErrorKind::ConnectionLost)] {
                assert!(with(fault, n).await, "effect {n} {fault:?}");
            }
        }
        assert!(with(StoreFault::CutAt(50_000), 1).await);
        assert!(!with(StoreFault::CutAt(100_000), 1).await, "a file that is not longer is not cut");
        assert!(!with(StoreFault::Before(StoreErrorKind::ConnectionLost), 3).await);
    }
}
