//! Sending a file, from where an earlier attempt stopped.

use std::{
    collections::VecDeque,
    io::{self, Read, Seek, SeekFrom},
    sync::Arc,
};

use towpath_transfer::{RemotePath, digest::Sha256Hasher};

use super::{
    OpenFile, SftpStore, WINDOW,
    pipe::Pending,
    wire::{self, FLAG_CREATE, FLAG_READ, FLAG_TRUNCATE, FLAG_WRITE, Reply},
};
use crate::{
    files::{FileKind, ReadFile},
    store::{Progress, Put, RemoteStore, Source, StoreError, StoreErrorKind, StoreResult},
};

/// Bytes read from our own disk at a time.
const READ_BYTES: usize = 256 * 1024;
/// Bytes that one `check-file` request covers, so that the server answers well within the time allowed.
const CHECK_BYTES: u64 = 64 * 1024 * 1024;

/// The file to send, whose reads run where they may block.
struct Reader {
    file: Box<dyn ReadFile>,
    part: RemotePath,
}

impl Reader {
    async fn open(source: Arc<dyn Source>, part: &RemotePath) -> StoreResult<(Self, u64)> {
        let opened = blocking(part, move || {
            let file = source.open()?;
            let len = file.len()?;
            Ok((file, len))
        });
        let (file, len) = opened.await?;
        Ok((Self { file, part: part.clone() }, len))
    }

    async fn seek(self, to: u64) -> StoreResult<Self> {
        let Self { mut file, part } = self;
        let file = blocking(&part, move || {
            file.seek(SeekFrom::Start(to))?;
            Ok(file)
        });
        Ok(Self { file: file.await?, part })
    }

    /// The next `len` bytes, which must be there.
    async fn read(self, len: usize) -> StoreResult<(Self, Vec<u8>)> {
        let Self { mut file, part } = self;
        let read = blocking(&part, move || {
            let mut bytes = vec![0; len];
            file.read_exact(&mut bytes)?;
            Ok((file, bytes))
        });
        let (file, bytes) = read.await?;
        Ok((Self { file, part }, bytes))
    }

    async fn digest(self, len: u64) -> StoreResult<(Self, [u8; 32])> {
        let Self { mut file, part } = self;
        let digested = blocking(&part, move || {
            let mut hasher = Sha256Hasher::new();
            let mut left = len;
            let mut buffer = vec![0; READ_BYTES];
            while left > 0 {
                let step = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
                let bytes = buffer.get_mut(..step).unwrap_or_default();
                file.read_exact(bytes)?;
                hasher.update(bytes);
                left -= step as u64;
            }
            Ok((file, *hasher.finish().as_bytes()))
        });
        let (file, digest) = digested.await?;
        Ok((Self { file, part }, digest))
    }
}

async fn blocking<T: Send + 'static>(part: &RemotePath, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> StoreResult<T> {
    let message = format!("reading the file to send as {part}");
    match crate::files::blocking(work).await {
        Ok(result) => result.map_err(|error| StoreError::new(StoreErrorKind::Source, message).caused_by(error)),
        Err(error) => Err(StoreError::new(StoreErrorKind::Internal, message).caused_by(error)),
    }
}

pub(super) async fn put_new(
    store: &SftpStore,
    part: &RemotePath,
    source: Arc<dyn Source>,
    progress: &dyn Progress,
) -> StoreResult<Put> {
    let (reader, size) = Reader::open(source, part).await?;
    let there = match store.stat(part).await {
        Ok(stat) if stat.kind == FileKind::File => stat.size,
        Ok(_) => return Err(StoreError::new(StoreErrorKind::Exists, format!("writing {part}: it is there and is no file"))),
        Err(error) if error.kind() == StoreErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let (reader, resumed_from) = match there {
        0 => (reader, 0),
        longer if longer > size => (reader, 0),
        there if store.pipe().extensions().check_file => agreeing(store, part, reader, there).await?,
        there => fetched_back(store, part, reader, there).await?,
    };
    let reader = reader.seek(resumed_from).await?;
    let flags = if resumed_from == 0 { FLAG_WRITE | FLAG_CREATE | FLAG_TRUNCATE } else { FLAG_WRITE | FLAG_CREATE };
    let file = store.open_handle("writing", part, flags).await?;
    let mut sending = Sending { file: &file, waiting: VecDeque::new(), sent: resumed_from, done: resumed_from, size, progress };
    sending.all(reader).await?;
    if store.pipe().extensions().fsync {
        file.pipe().request(|id| wire::fsync(id, &file.handle)).await?.done("syncing", part)?;
    }
    let now = file.size().await?;
    if now.is_some_and(|now| now != size) {
        let message = format!("writing {part}: it has {} bytes instead of {size}", now.unwrap_or_default());
        return Err(StoreError::new(StoreErrorKind::Refused, message));
    }
    file.close("writing").await?;
    Ok(Put { size, resumed_from })
}

/// How much of what is there agrees with the source: all of it or, for this purpose, nothing.
async fn agreeing(store: &SftpStore, part: &RemotePath, mut reader: Reader, there: u64) -> StoreResult<(Reader, u64)> {
    let file = store.open_handle("comparing", part, FLAG_READ).await?;
    let mut start = 0;
    while start < there {
        let len = CHECK_BYTES.min(there - start);
        let pending = file.pipe().send(|id| wire::check_file(id, &file.handle, start, len)).await?;
        let (back, ours) = reader.digest(len).await?;
        reader = back;
        let theirs = match pending.reply().await? {
            Reply::Extended(body) => wire::checked_digest(body).ok(),
            // A server that cannot compare this file after all: sending it anew is always right.
            _ => None,
        };
        if theirs != Some(ours) {
            tracing::info!(%part, there, "what is there differs from the file to send, which is sent anew");
            return Ok((reader, 0));
        }
        start += len;
    }
    file.close("comparing").await?;
    Ok((reader, there))
}

/// The same where the server cannot compare: what is there is fetched back and compared here. A length alone proves nothing,
/// because after a power cut the tail of a part can be zeros.
async fn fetched_back(store: &SftpStore, part: &RemotePath, reader: Reader, there: u64) -> StoreResult<(Reader, u64)> {
    let mut remote = store.open(part, 0).await?;
    let mut theirs = Sha256Hasher::new();
    let mut left = there;
    while left > 0 {
        let Some(bytes) = remote.next().await? else { break };
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        theirs.update(bytes.get(..wanted).unwrap_or_default());
        left -= wanted as u64;
    }
    let (reader, ours) = reader.digest(there).await?;
    if left == 0 && *theirs.finish().as_bytes() == ours {
        return Ok((reader, there));
    }
    tracing::info!(%part, there, "what is there differs from the file to send, which is sent anew");
    Ok((reader, 0))
}

struct Sending<'s> {
    file: &'s OpenFile,
    /// Writes without an answer, oldest first, with their lengths.
    waiting: VecDeque<(u64, Pending)>,
    sent: u64,
    done: u64,
    size: u64,
    progress: &'s dyn Progress,
}

impl Sending<'_> {
    async fn all(&mut self, mut reader: Reader) -> StoreResult<()> {
        self.progress.advanced(self.done, self.size);
        while self.sent < self.size {
            let step = usize::try_from(self.size - self.sent).unwrap_or(READ_BYTES).min(READ_BYTES);
            let (back, bytes) = reader.read(step).await?;
            reader = back;
            for chunk in bytes.chunks(self.file.pipe().write_bytes()) {
                self.one(chunk).await?;
            }
        }
        while !self.waiting.is_empty() {
            self.settle().await?;
        }
        Ok(())
    }

    async fn one(&mut self, chunk: &[u8]) -> StoreResult<()> {
        if let Some(pause) = self.progress.pause(chunk.len() as u64) {
            pause.await;
        }
        while self.waiting.len() >= WINDOW {
            self.settle().await?;
        }
        let (offset, handle) = (self.sent, &self.file.handle);
        let pending = self.file.pipe().send(|id| wire::write(id, handle, offset, chunk)).await?;
        self.waiting.push_back((chunk.len() as u64, pending));
        self.sent += chunk.len() as u64;
        Ok(())
    }

    /// Waits for the oldest answer.
    async fn settle(&mut self) -> StoreResult<()> {
        let Some((len, pending)) = self.waiting.pop_front() else { return Ok(()) };
        pending.reply().await?.done("writing", &self.file.path)?;
        self.done += len;
        self.progress.advanced(self.done, self.size);
        Ok(())
    }
}
