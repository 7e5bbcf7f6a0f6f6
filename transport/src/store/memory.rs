//! A far folder that is not far: any [`FileStore`] behind the contract of [`RemoteStore`].

use std::{
    fmt,
    io::{self, Cursor, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use towpath_transfer::RemotePath;

use super::{Progress, Put, RemoteEntry, RemoteRead, RemoteStat, RemoteStore, Source, StoreError, StoreErrorKind, StoreResult};
use crate::files::{FileStat, FileStore, MemoryFiles, ReadFile, ignore_missing};

/// How much is moved at a time, in bytes; as much as one SFTP request carries.
const CHUNK: usize = 32 * 1024;
/// Entries asked for at a time.
const PAGE: usize = 256;

/// Bytes in memory as a [`Source`].
#[derive(Clone)]
pub struct BytesSource(Bytes);

impl BytesSource {
    /// A source of these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Arc<Self> {
        Arc::new(Self(bytes.into()))
    }
}

impl fmt::Debug for BytesSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BytesSource({} bytes)", self.0.len())
    }
}

impl Source for BytesSource {
    fn open(&self) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(Cursor::new(self.0.clone())))
    }
}

impl ReadFile for Cursor<Bytes> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.get_ref().len() as u64)
    }
}

/// A far folder over a [`FileStore`], for the simulation and for tests. It calls the store on the runtime's own threads, so the store had
/// better be [`MemoryFiles`].
#[derive(Debug, Clone)]
pub struct MemoryStore {
    files: Arc<dyn FileStore>,
    root: PathBuf,
}

impl MemoryStore {
    /// An empty far folder.
    #[must_use]
    pub fn new() -> Self {
        Self { files: Arc::new(MemoryFiles::new()), root: PathBuf::from("/") }
    }

    /// The folder `root` of `files`, which must exist.
    pub fn over(files: Arc<dyn FileStore>, root: impl Into<PathBuf>) -> Self {
        Self { files, root: root.into() }
    }

    fn local(&self, path: &RemotePath) -> PathBuf {
        let mut local = self.root.clone();
        local.extend(path.components().iter().map(|name| Path::new(name.as_str())));
        local
    }

    /// How much of `part` can be kept: all of it where it is a beginning of the source, else nothing.
    fn kept(&self, part: &Path, source: &mut dyn ReadFile, total: u64) -> io::Result<u64> {
        let mut there = match self.files.open(part) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
            other => other?,
        };
        let len = there.len()?;
        if len > total {
            return Ok(0);
        }
        let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut left = len;
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let (Some(a), Some(b)) = (a.get_mut(..step), b.get_mut(..step)) else { return Ok(0) };
            there.read_exact(a)?;
            source.read_exact(b)?;
            if a != b {
                source.seek(SeekFrom::Start(0))?;
                return Ok(0);
            }
            left -= step as u64;
        }
        Ok(len)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

fn failed(what: &str, path: &RemotePath) -> impl Fn(io::Error) -> StoreError {
    let message = format!("{what} {path}");
    move |error| {
        let kind = match error.kind() {
            ErrorKind::NotFound => StoreErrorKind::NotFound,
            ErrorKind::PermissionDenied => StoreErrorKind::Denied,
            ErrorKind::AlreadyExists => StoreErrorKind::Exists,
            ErrorKind::StorageFull => StoreErrorKind::Full,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => StoreErrorKind::ConnectionLost,
            _ => StoreErrorKind::Refused,
        };
        StoreError::new(kind, message.clone()).caused_by(error)
    }
}

fn source_failed(part: &RemotePath) -> impl Fn(io::Error) -> StoreError {
    let message = format!("reading the file to send as {part}");
    move |error| StoreError::new(StoreErrorKind::Source, message.clone()).caused_by(error)
}

fn remote(stat: FileStat) -> RemoteStat {
    RemoteStat { kind: stat.kind, size: stat.len }
}

#[async_trait]
impl RemoteStore for MemoryStore {
    async fn put_new(&self, part: &RemotePath, source: Arc<dyn Source>, progress: &dyn Progress) -> StoreResult<Put> {
        let (writing, reading) = (failed("writing", part), source_failed(part));
        let mut reader = source.open().map_err(&reading)?;
        let size = reader.len().map_err(&reading)?;
        let local = self.local(part);
        let resumed_from = self.kept(&local, reader.as_mut(), size).map_err(&writing)?;
        let file = if resumed_from == 0 { self.files.create(&local) } else { self.files.open_append(&local) };
        let mut file = file.map_err(&writing)?;
        let mut done = resumed_from;
        progress.advanced(done, size);
        let mut chunk = vec![0; CHUNK];
        while done < size {
            let step = usize::try_from(size - done).unwrap_or(CHUNK).min(CHUNK);
            if let Some(pause) = progress.pause(step as u64) {
                pause.await;
            }
            let bytes = chunk.get_mut(..step).unwrap_or_default();
            reader.read_exact(bytes).map_err(&reading)?;
            file.write_all(bytes).map_err(&writing)?;
            done += step as u64;
            progress.advanced(done, size);
        }
        file.sync_all().map_err(&writing)?;
        Ok(Put { size, resumed_from })
    }

    async fn publish(&self, part: &RemotePath, name: &RemotePath) -> StoreResult<()> {
        let (from, to) = (self.local(part), self.local(name));
        match self.files.rename(&from, &to) {
            Err(e) if e.kind() == ErrorKind::NotFound && self.files.stat(&to).is_ok() => {}
            other => other.map_err(failed("publishing", name))?,
        }
        match to.parent() {
            Some(folder) => self.files.sync_dir(folder).map_err(failed("publishing", name)),
            None => Ok(()),
        }
    }

    async fn stat(&self, path: &RemotePath) -> StoreResult<RemoteStat> {
        self.files.stat(&self.local(path)).map(remote).map_err(failed("looking at", path))
    }

    async fn open(&self, path: &RemotePath, offset: u64) -> StoreResult<Box<dyn RemoteRead>> {
        let reading = failed("reading", path);
        let mut file = self.files.open(&self.local(path)).map_err(&reading)?;
        file.seek(SeekFrom::Start(offset)).map_err(&reading)?;
        Ok(Box::new(MemoryRead { file: Arc::new(std::sync::Mutex::new(file)), path: path.clone() }))
    }

    async fn list(&self, dir: &RemotePath, limit: usize) -> StoreResult<Vec<RemoteEntry>> {
        let mut entries = Vec::new();
        let mut after: Option<String> = None;
        let mut seen = 0;
        loop {
            let page = self.files.list(&self.local(dir), after.as_deref(), PAGE).map_err(failed("listing", dir))?;
            seen += page.len();
            if seen > limit {
                return Err(StoreError::new(StoreErrorKind::Limit, format!("{dir} has more than {limit} entries")));
            }
            let full = page.len() == PAGE;
            after = page.last().map(|entry| entry.name.clone());
            for entry in page {
                let Ok(name) = entry.name.parse() else { continue };
                entries.push(RemoteEntry { name, stat: remote(entry.stat) });
            }
            if !full {
                return Ok(entries);
            }
        }
    }

    async fn make_dir_all(&self, dir: &RemotePath) -> StoreResult<()> {
        self.files.create_dir_all(&self.local(dir)).map_err(failed("making", dir))
    }

    async fn remove(&self, path: &RemotePath) -> StoreResult<()> {
        ignore_missing(self.files.remove(&self.local(path))).map_err(failed("removing", path))
    }

    async fn remove_dir(&self, dir: &RemotePath) -> StoreResult<()> {
        ignore_missing(self.files.remove_dir(&self.local(dir))).map_err(failed("removing", dir))
    }
}

struct MemoryRead {
    file: Arc<std::sync::Mutex<Box<dyn ReadFile>>>,
    path: RemotePath,
}

#[async_trait]
impl RemoteRead for MemoryRead {
    async fn next(&mut self) -> StoreResult<Option<Bytes>> {
        let mut chunk = vec![0; CHUNK];
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = file.read(&mut chunk).map_err(failed("reading", &self.path))?;
        chunk.truncate(count);
        Ok((count > 0).then(|| chunk.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        files::FileKind,
        store::{StoreErrorKind, conformance, read_remote},
    };

    #[tokio::test]
    async fn conforms() {
        let subject = conformance::Subject { store: Arc::new(MemoryStore::new()), base: RemotePath::root() };
        conformance::all(&subject).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_is_full_and_the_part_is_resumed_when_there_is_space() {
        let files = MemoryFiles::new();
        let store = MemoryStore::over(Arc::new(files.clone()), "/");
        files.set_space(Some(40_000));
        let part: RemotePath = "/f.part".parse().unwrap();
        let source = BytesSource::new(vec![7; 100_000]);
        let full = store.put_new(&part, source.clone(), &crate::store::NoProgress).await.unwrap_err();
        assert_eq!(full.kind(), StoreErrorKind::Full);
        files.set_space(None);
        let put = store.put_new(&part, source, &crate::store::NoProgress).await.unwrap();
        assert_eq!(put, Put { size: 100_000, resumed_from: 32_768 });
        assert_eq!(read_remote(&store, &part, 100_000).await.unwrap(), vec![7; 100_000]);
        assert_eq!(store.stat(&part).await.unwrap().kind, FileKind::File);
    }
}
