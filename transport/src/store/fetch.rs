//! Fetch: a far file of known length into a file of our own, going on where an earlier attempt has ended.

use std::{
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use thiserror::Error;
use towpath_transfer::{Failure, RemotePath};

use super::{RemoteStore, StoreError};
use crate::files::{FileStore, WriteFile, blocking, ignore_missing};

/// How much is gathered before it is written, in bytes.
pub const FETCH_BATCH_BYTES: usize = 1024 * 1024;

/// Why a far file was not fetched. What was written stays, for the next attempt, unless it says otherwise.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The far folder failed.
    #[error(transparent)]
    Far(#[from] StoreError),
    /// Our own disk failed.
    #[error("writing what was fetched failed")]
    Disk(#[source] io::Error),
    /// The caller allows no more bytes.
    #[error(transparent)]
    Refused(Failure),
    /// The far file has another length. The part is removed.
    #[error("the far file has {found} bytes, or more, instead of {expected}")]
    Length {
        /// In bytes.
        expected: u64,
        /// In bytes, counted to the end or to the first one too many.
        found: u64,
    },
}

/// Asked before so many bytes are written.
pub type Allow<'a> = &'a (dyn Fn(u64) -> Result<(), Failure> + Send + Sync);

/// Makes `part` hold the far file `from` of exactly `size` bytes, durable but for its name: the folder is the caller's to sync.
/// What an earlier attempt has left in `part` is kept and gone on from; one that is longer is begun anew. Nothing is compared:
/// the caller checks the digest, and removes a part that differs.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(
    store: &dyn RemoteStore,
    from: &RemotePath,
    size: u64,
    files: &Arc<dyn FileStore>,
    part: &Path,
    allow: Allow<'_>,
) -> Result<(), FetchError> {
    let (kept, own) = (Arc::clone(files), part.to_owned());
    let (mut file, mut done) = on_disk(move || begin(&*kept, &own, size)).await?;
    let mut reader = store.open(from, done).await?;
    let mut batch = Vec::with_capacity(FETCH_BATCH_BYTES);
    loop {
        let chunk = reader.next().await?;
        let ended = chunk.is_none();
        batch.extend_from_slice(&chunk.unwrap_or_default());
        let found = done.saturating_add(batch.len() as u64);
        if found > size || (ended && found < size) {
            drop(file);
            let (files, own) = (Arc::clone(files), part.to_owned());
            on_disk(move || ignore_missing(files.remove(&own))).await?;
            return Err(FetchError::Length { expected: size, found });
        }
        if !batch.is_empty() && (ended || batch.len() >= FETCH_BATCH_BYTES) {
            allow(batch.len() as u64).map_err(FetchError::Refused)?;
            (file, batch) = on_disk(move || {
                file.write_all(&batch)?;
                batch.clear();
                Ok((file, batch))
            })
            .await?;
            done = found;
        }
        if ended {
            return on_disk(move || file.sync_all()).await;
        }
    }
}

/// The part, open at its end, and its length.
fn begin(files: &dyn FileStore, part: &Path, size: u64) -> io::Result<(Box<dyn WriteFile>, u64)> {
    let have = match files.stat(part) {
        Ok(stat) => stat.len,
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(e) => return Err(e),
    };
    if have > size {
        return Ok((files.create(part)?, 0));
    }
    Ok((files.open_append(part)?, have))
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, FetchError> {
    let worked = blocking(work).await.map_err(io::Error::other);
    worked.and_then(|done| done).map_err(FetchError::Disk)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use towpath_transfer::Code;

    use super::*;
    use crate::{
        files::{MemoryFiles, read_whole, write_whole},
        store::{MemoryStore, StoreErrorKind},
    };

    const PART: &str = "/own/orders.csv.part";

    struct Fixture {
        own: MemoryFiles,
        far: MemoryFiles,
        bytes: Vec<u8>,
        written: AtomicU64,
    }

    impl Fixture {
        fn new() -> Self {
            let (own, far) = (MemoryFiles::new(), MemoryFiles::new());
            own.create_dir_all("/own".as_ref()).unwrap();
            far.create_dir_all("/far".as_ref()).unwrap();
            let bytes: Vec<u8> = (0..3_000_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
            write_whole(&far, "/far/orders.csv".as_ref(), &bytes).unwrap();
            Self { own, far, bytes, written: AtomicU64::new(0) }
        }

        async fn fetch(&self, size: u64, most: u64) -> Result<(), FetchError> {
            let store = MemoryStore::over(Arc::new(self.far.clone()), "/far");
            let allow = |bytes: u64| {
                let sum = self.written.fetch_add(bytes, Ordering::SeqCst) + bytes;
                if sum > most { Err(Failure::retry(Code::SpoolFull, "full")) } else { Ok(()) }
            };
            let files: Arc<dyn FileStore> = Arc::new(self.own.clone());
            fetch(&store, &"/orders.csv".parse().unwrap(), size, &files, PART.as_ref(), &allow).await
        }

        fn part(&self) -> Option<Vec<u8>> {
            read_whole(&self.own, PART.as_ref(), 1 << 30).ok()
        }
    }

    #[tokio::test]
    async fn a_file_is_fetched_and_gone_on_with() {
        let fixture = Fixture::new();
        let size = fixture.bytes.len() as u64;
        assert!(matches!(fixture.fetch(size, 2_500_000).await, Err(FetchError::Refused(_))));
        let begun = fixture.part().unwrap();
        assert!(!begun.is_empty() && fixture.bytes.starts_with(&begun));
        fixture.written.store(0, Ordering::SeqCst);
        fixture.fetch(size, u64::MAX).await.unwrap();
        assert_eq!(fixture.part().unwrap(), fixture.bytes);
        assert_eq!(fixture.written.load(Ordering::SeqCst), size - begun.len() as u64, "only the rest was fetched");
        fixture.written.store(0, Ordering::SeqCst);
        fixture.fetch(size, 0).await.unwrap();
        fixture.own.power_loss();
    }

    #[tokio::test]
    async fn another_length_is_an_error_and_the_part_goes() {
        let fixture = Fixture::new();
        let size = fixture.bytes.len() as u64;
        for wrong in [size - 1, size + 1, 0] {
            let failed = fixture.fetch(wrong, u64::MAX).await.unwrap_err();
            assert!(matches!(failed, FetchError::Length { expected, .. } if expected == wrong), "{failed}");
            assert_eq!(fixture.part(), None);
        }
        write_whole(&fixture.own, PART.as_ref(), &vec![0; fixture.bytes.len() + 1]).unwrap();
        fixture.fetch(size, u64::MAX).await.unwrap();
        assert_eq!(fixture.part().unwrap(), fixture.bytes, "a longer part is begun anew");
        fixture.far.remove("/far/orders.csv".as_ref()).unwrap();
        let gone = fixture.fetch(size, u64::MAX).await.unwrap_err();
        assert!(matches!(gone, FetchError::Far(e) if e.kind() == StoreErrorKind::NotFound));
    }
}
