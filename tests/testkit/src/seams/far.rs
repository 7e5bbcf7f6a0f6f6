//! A far folder without a network: the contract of an SFTP client straight over what an SFTP server shows.

use std::{
    fmt,
    io::{Read as _, Seek as _, SeekFrom},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{FileName, RemotePath};
use towpath_transport::{
    files::{FileKind, ReadFile},
    server::{self, FsError, FsResult, OpenOptions, Replace, SetAttributes, VirtualFile, VirtualFs},
    store::{Progress, Put, RemoteEntry, RemoteRead, RemoteStat, RemoteStore, Source, StoreError, StoreErrorKind, StoreResult},
};

use super::power::Life;

/// How much is moved at a time, in bytes; as much as one SFTP request carries.
const CHUNK: usize = 32 * 1024;
/// Entries asked for at a time.
const PAGE: usize = 128;

const READ: OpenOptions =
    OpenOptions { read: true, write: false, append: false, create: false, truncate: false, exclusive: false };
const RESUME: OpenOptions =
    OpenOptions { read: false, write: true, append: false, create: true, truncate: false, exclusive: false };
const ANEW: OpenOptions = OpenOptions { truncate: true, ..RESUME };

/// A session's view as a [`RemoteStore`]. It lasts as long as the machine behind it, unless it is ended.
#[derive(Clone)]
pub struct ViewStore {
    view: Arc<dyn VirtualFs>,
    life: Life,
    ended: CancellationToken,
}

impl fmt::Debug for ViewStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ViewStore")
    }
}

impl ViewStore {
    /// A connection to `view`, which is on a machine that has this `life`.
    #[must_use]
    pub fn new(view: Arc<dyn VirtualFs>, life: Life) -> Self {
        Self { view, life, ended: CancellationToken::new() }
    }

    /// The same, until `ended` is cancelled.
    #[must_use]
    pub fn until(self, ended: CancellationToken) -> Self {
        Self { ended, ..self }
    }

    /// The operation, unless the machine crashes or the session ends meanwhile: then nobody knows whether it was done.
    async fn call<T>(&self, what: &str, path: &RemotePath, operation: impl Future<Output = FsResult<T>>) -> StoreResult<T> {
        let lost = || Err(StoreError::new(StoreErrorKind::ConnectionLost, format!("{what} {path}")));
        tokio::select! {
            biased;
            () = self.life.over() => lost(),
            () = self.ended.cancelled() => lost(),
            done = operation => done.map_err(|error| told(what, path, error)),
        }
    }

    /// How much of `part` can be kept: all of it where it is a beginning of the source, else nothing.
    async fn kept(&self, part: &RemotePath, source: &mut dyn ReadFile, size: u64) -> FsResult<u64> {
        let there = match self.view.stat(part).await {
            Ok(found) if found.size <= size => found.size,
            Ok(_) | Err(FsError::NotFound) => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut file = self.view.open(part, READ, &SetAttributes::default()).await?;
        let mut at = 0;
        while at < there {
            let far = file.read_at(at, CHUNK).await?;
            let mut near = vec![0; far.len()];
            if far.is_empty() || source.read_exact(&mut near).is_err() || far != near {
                at = 0;
                break;
            }
            at += far.len() as u64;
        }
        file.close().await?;
        Ok(at)
    }
}

fn told(what: &str, path: &RemotePath, error: FsError) -> StoreError {
    let kind = match &error {
        FsError::NotFound => StoreErrorKind::NotFound,
        FsError::Denied => StoreErrorKind::Denied,
        FsError::Exists => StoreErrorKind::Exists,
        FsError::Full(_) => StoreErrorKind::Full,
        FsError::Unsupported => StoreErrorKind::Unsupported,
        FsError::Failure(_) => StoreErrorKind::Refused,
    };
    StoreError::new(kind, format!("{what} {path}")).caused_by(error)
}

fn source_failed(part: &RemotePath) -> impl Fn(std::io::Error) -> StoreError {
    let message = format!("reading the file to send as {part}");
    move |error| StoreError::new(StoreErrorKind::Source, message.clone()).caused_by(error)
}

fn kind(kind: server::FileKind) -> FileKind {
    match kind {
        server::FileKind::File => FileKind::File,
        server::FileKind::Directory => FileKind::Dir,
        server::FileKind::Symlink | server::FileKind::Other => FileKind::Other,
    }
}

fn remote(found: server::Attributes) -> RemoteStat {
    let kind = kind(found.kind);
    RemoteStat { kind, size: if kind == FileKind::File { found.size } else { 0 } }
}

fn gone_is_fine<T: Default>(done: StoreResult<T>) -> StoreResult<T> {
    match done {
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(T::default()),
        other => other,
    }
}

#[async_trait]
impl RemoteStore for ViewStore {
    async fn put_new(&self, part: &RemotePath, source: Arc<dyn Source>, progress: &dyn Progress) -> StoreResult<Put> {
        let (what, reading) = ("writing", source_failed(part));
        let mut reader = source.open().map_err(&reading)?;
        let size = reader.len().map_err(&reading)?;
        let resumed_from = self.call(what, part, self.kept(part, &mut *reader, size)).await?;
        reader.seek(SeekFrom::Start(resumed_from)).map_err(&reading)?;
        let options = if resumed_from == 0 { ANEW } else { RESUME };
        let mut file = self.call(what, part, self.view.open(part, options, &SetAttributes::default())).await?;
        let mut done = resumed_from;
        progress.advanced(done, size);
        while done < size {
            let step = usize::try_from(size - done).map_or(CHUNK, |left| left.min(CHUNK));
            if let Some(pause) = progress.pause(step as u64) {
                pause.await;
            }
            let mut bytes = vec![0; step];
            reader.read_exact(&mut bytes).map_err(&reading)?;
            self.call(what, part, file.write_at(done, bytes.into())).await?;
            done += step as u64;
            progress.advanced(done, size);
        }
        self.call(what, part, file.sync()).await?;
        self.call(what, part, file.close()).await?;
        Ok(Put { size, resumed_from })
    }

    async fn publish(&self, part: &RemotePath, name: &RemotePath) -> StoreResult<()> {
        match self.call("publishing", name, self.view.rename(part, name, Replace::Allow)).await {
            Err(error) if error.kind() == StoreErrorKind::NotFound => self.stat(name).await.map(|_| ()),
            other => other,
        }
    }

    async fn stat(&self, path: &RemotePath) -> StoreResult<RemoteStat> {
        self.call("looking at", path, self.view.stat(path)).await.map(remote)
    }

    async fn open(&self, path: &RemotePath, offset: u64) -> StoreResult<Box<dyn RemoteRead>> {
        let file = self.call("reading", path, self.view.open(path, READ, &SetAttributes::default())).await?;
        Ok(Box::new(ViewRead { store: self.clone(), path: path.clone(), file, at: offset }))
    }

    async fn list(&self, dir: &RemotePath, limit: usize) -> StoreResult<Vec<RemoteEntry>> {
        let mut listing = self.call("listing", dir, self.view.list(dir)).await?;
        let (mut entries, mut seen) = (Vec::new(), 0);
        loop {
            let page = self.call("listing", dir, listing.next_page(PAGE)).await?;
            if page.is_empty() {
                entries.sort_by(|a: &RemoteEntry, b| a.name.as_str().cmp(b.name.as_str()));
                return Ok(entries);
            }
            seen += page.len();
            if seen > limit {
                return Err(StoreError::new(StoreErrorKind::Limit, format!("{dir} has more than {limit} entries")));
            }
            let ours = page.into_iter().filter_map(|entry| {
                let name: FileName = entry.name.parse().ok()?;
                Some(RemoteEntry { name, stat: remote(entry.attributes) })
            });
            entries.extend(ours);
        }
    }

    async fn make_dir_all(&self, dir: &RemotePath) -> StoreResult<()> {
        let mut above = RemotePath::root();
        for name in dir.components() {
            let message = || format!("making {dir}");
            above = above.join(name.clone()).map_err(|e| StoreError::new(StoreErrorKind::Internal, message()).caused_by(e))?;
            match self.call("making", &above, self.view.make_dir(&above, &SetAttributes::default())).await {
                Err(error) if error.kind() == StoreErrorKind::Exists => {
                    if self.stat(&above).await?.kind != FileKind::Dir {
                        return Err(error);
                    }
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn remove(&self, path: &RemotePath) -> StoreResult<()> {
        gone_is_fine(self.call("removing", path, self.view.remove(path)).await)
    }

    async fn remove_dir(&self, dir: &RemotePath) -> StoreResult<()> {
        gone_is_fine(self.call("removing", dir, self.view.remove_dir(dir)).await)
    }
}

struct ViewRead {
    store: ViewStore,
    path: RemotePath,
    file: Box<dyn VirtualFile>,
    at: u64,
}

#[async_trait]
impl RemoteRead for ViewRead {
    async fn next(&mut self) -> StoreResult<Option<Bytes>> {
        let bytes = self.store.call("reading", &self.path, self.file.read_at(self.at, CHUNK)).await?;
        self.at += bytes.len() as u64;
        Ok((!bytes.is_empty()).then_some(bytes))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use towpath_transport::{server::PlainDirectory, store::conformance};

    use super::*;

    #[tokio::test]
    async fn it_keeps_the_contract_of_every_remote_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = ViewStore::new(Arc::new(PlainDirectory::new(folder.path())), Life::new());
        let base = format!("{}/base", folder.path().display()).parse().unwrap();
        store.make_dir_all(&base).await.unwrap();
        let subject = conformance::Subject { store: Arc::new(store), base };
        conformance::all(&subject).await.unwrap();
    }
}
