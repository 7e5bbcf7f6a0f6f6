//! The far folder: what a stage needs from an SFTP server, as a contract, and policy in decorators around it.
//!
//! [`crate::client::SftpStore`] is the real thing, [`MemoryStore`] the same over any [`crate::files::FileStore`]. [`Retry`],
//! [`RateLimit`] and [`FaultStore`] wrap either. One suite, [`conformance`], holds all of them to this contract.

#[doc(hidden)]
pub mod conformance;
mod error;
mod fault;
mod fetch;
mod memory;
mod rate_limit;
mod retry;

use std::{fmt::Debug, io, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use towpath_transfer::{FileName, RemotePath, clock::Sleep};

use crate::files::{FileKind, FileStore, ReadFile};

pub use error::{Far, StoreError, StoreErrorKind};
pub use fault::{FaultStore, StoreFault, StoreOp, StorePlan};
pub use fetch::{Allow, FETCH_BATCH_BYTES, FetchError, fetch};
pub use memory::{BytesSource, MemoryStore};
pub use rate_limit::{Pace, PacedConnect, Rate, RateLimit};
pub use retry::{Connect, Retry, RetryPolicy};

/// The result of an operation on a far folder.
pub type StoreResult<T> = Result<T, StoreError>;

/// Bytes to send that can be read again from the start, so that a broken connection costs nothing but time.
pub trait Source: Debug + Send + Sync {
    /// Opens the bytes. Blocking; the content must be the same each time.
    ///
    /// # Errors
    /// As the disk reports.
    fn open(&self) -> io::Result<Box<dyn ReadFile>>;
}

/// A file of our own as a [`Source`].
#[derive(Debug, Clone)]
pub struct FileSource {
    files: Arc<dyn FileStore>,
    path: PathBuf,
}

impl FileSource {
    /// The file at `path` in `files`.
    pub fn new(files: Arc<dyn FileStore>, path: impl Into<PathBuf>) -> Arc<Self> {
        Arc::new(Self { files, path: path.into() })
    }
}

impl Source for FileSource {
    fn open(&self) -> io::Result<Box<dyn ReadFile>> {
        self.files.open(&self.path)
    }
}

/// Told how far a [`RemoteStore::put_new`] is, and asked whether it may go on.
pub trait Progress: Send + Sync {
    /// `done` of `total` bytes are at the far side, including those found there. Called often; `done` never falls within one
    /// attempt, and starts again where an attempt does.
    fn advanced(&self, done: u64, total: u64);

    /// Asked before `bytes` more bytes are read and sent; the sender waits for the sleep it gets.
    fn pause(&self, bytes: u64) -> Option<Sleep> {
        let _ = bytes;
        None
    }
}

/// A [`Progress`] that nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn advanced(&self, _done: u64, _total: u64) {}
}

/// What [`RemoteStore::put_new`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    /// The whole file's length in bytes.
    pub size: u64,
    /// How many of them were there already and were not sent again.
    pub resumed_from: u64,
}

/// What is known about a far name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteStat {
    /// File, folder or neither.
    pub kind: FileKind,
    /// Length in bytes; 0 for what is not a file.
    pub size: u64,
}

/// One name in a far folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteEntry {
    /// The name without its folder.
    pub name: FileName,
    /// What it stands for.
    pub stat: RemoteStat,
}

/// A far file that is being read from front to back.
#[async_trait]
pub trait RemoteRead: Send {
    /// The next bytes, never empty, in order and without a gap; `None` at the end. Requests run ahead of the reader, within a
    /// fixed bound of memory. Dropping the reader lets go of the far file.
    ///
    /// # Errors
    /// As [`RemoteStore`] says; after an error the reader is of no further use.
    async fn next(&mut self) -> StoreResult<Option<Bytes>>;
}

/// A folder tree on another machine, below a root of its own.
///
/// **Durability.** Where the server offers `fsync@openssh.com` content is durable when [`RemoteStore::put_new`] returns. SFTP cannot make names durable, so
/// success here is never a reason to remove the only other copy: a sender keeps its own until it holds the next stage's signed receipt.
///
/// **Repeating.** Every operation may be repeated after any error, also after a lost answer, and then leads to the same end.
///
/// **Errors.** [`StoreErrorKind::NotFound`] where a name or its folder is missing, [`StoreErrorKind::Denied`] where the far side does not allow it,
/// [`StoreErrorKind::ConnectionLost`] promptly for every operation under way when the connection ends, and the others as they say.
/// A far side may answer a full disk or a name that exists with [`StoreErrorKind::Refused`], because SFTP version 3 has no word for them.
#[async_trait]
pub trait RemoteStore: Debug + Send + Sync {
    /// Makes `part` hold exactly the bytes of `source`, resuming what an earlier attempt left there. The folder must exist. Where the server offers
    /// `check-file`, what is there is compared by SHA-256 with the beginning of `source`; elsewhere it is
    /// fetched back and compared here. A part that differs or is longer than `source` is written anew. `part` is a name that nobody else reads.
    ///
    /// The length is checked at the end; a source that gets shorter while it is read is [`StoreErrorKind::Source`].
    ///
    /// # Errors
    /// As above; what was written stays, for the next attempt.
    async fn put_new(&self, part: &RemotePath, source: Arc<dyn Source>, progress: &dyn Progress) -> StoreResult<Put>;

    /// Gives a whole part its name in one step, so that no reader ever finds half a file; what has the name is replaced.
    /// Repeated after it was done, it succeeds when `part` is gone and `name` is there.
    ///
    /// Uses `posix-rename@openssh.com`. Where the server does not offer it and `name` is taken, `name` is removed first: between the two there is
    /// no file of that name, which is safe because the part is whole and the next attempt goes on from there.
    ///
    /// # Errors
    /// As above.
    async fn publish(&self, part: &RemotePath, name: &RemotePath) -> StoreResult<()>;

    /// What the name stands for; links are not followed.
    ///
    /// # Errors
    /// As above.
    async fn stat(&self, path: &RemotePath) -> StoreResult<RemoteStat>;

    /// Reads a file from `offset` on. An offset at or beyond the end gives no bytes.
    ///
    /// # Errors
    /// As above.
    async fn open(&self, path: &RemotePath, offset: u64) -> StoreResult<Box<dyn RemoteRead>>;

    /// Every entry of a folder, sorted by name. Names that are not a [`FileName`] cannot be ours and are left out, but are counted.
    ///
    /// # Errors
    /// [`StoreErrorKind::Limit`] where the folder has more than `limit` entries, and as above.
    async fn list(&self, dir: &RemotePath, limit: usize) -> StoreResult<Vec<RemoteEntry>>;

    /// Makes a folder and every missing folder above it; one that exists is a success.
    ///
    /// # Errors
    /// As above; [`StoreErrorKind::Exists`] or [`StoreErrorKind::Refused`] where a file is in the way.
    async fn make_dir_all(&self, dir: &RemotePath) -> StoreResult<()>;

    /// Removes a file; one that is gone already is a success.
    ///
    /// # Errors
    /// As above.
    async fn remove(&self, path: &RemotePath) -> StoreResult<()>;

    /// Removes an empty folder; one that is gone already is a success.
    ///
    /// # Errors
    /// As above; [`StoreErrorKind::Refused`] where it is not empty.
    async fn remove_dir(&self, dir: &RemotePath) -> StoreResult<()>;
}

/// Reads a far file of at most `limit` bytes into memory.
///
/// # Errors
/// [`StoreErrorKind::Limit`] beyond the limit, and as [`RemoteStore`] says.
pub async fn read_remote(store: &dyn RemoteStore, path: &RemotePath, limit: usize) -> StoreResult<Vec<u8>> {
    let mut reader = store.open(path, 0).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next().await? {
        if bytes.len().saturating_add(chunk.len()) > limit {
            return Err(StoreError::new(StoreErrorKind::Limit, format!("{path} is larger than {limit} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
