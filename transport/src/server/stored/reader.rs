//! Files open for reading.

use std::{
    fmt,
    io::{Read as _, SeekFrom},
    path::Path,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{attributes_of, on_disk, stat_in_folder, told};
use crate::{
    files::{FileKind, FileStore, ReadFile},
    server::vfs::{Attributes, FsError, FsResult, SetAttributes, VirtualFile},
};

/// The most bytes of memory that one READ allocates before anything was read.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// A file open for reading.
pub struct StoredReader {
    file: Option<Box<dyn ReadFile>>,
    attributes: Attributes,
}

impl fmt::Debug for StoredReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredReader").field("attributes", &self.attributes).finish_non_exhaustive()
    }
}

impl StoredReader {
    /// Opens a file. Blocking.
    ///
    /// # Errors
    /// [`FsError::NotFound`] where it is no plain file, and what [`told`] makes of the disk's errors.
    pub fn open(files: &dyn FileStore, path: &Path) -> FsResult<Self> {
        let stat = stat_in_folder(files, path).map_err(|e| told(&e))?;
        if stat.kind != FileKind::File {
            return Err(FsError::NotFound);
        }
        let file = files.open(path).map_err(|e| told(&e))?;
        Ok(Self { file: Some(file), attributes: attributes_of(&stat)? })
    }
}

pub(super) fn read_at(file: &mut dyn ReadFile, offset: u64, length: usize) -> FsResult<Bytes> {
    let mut bytes = Vec::with_capacity(length.min(READ_BUFFER_BYTES));
    let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.take(length as u64).read_to_end(&mut bytes));
    read.map(|_| bytes.into()).map_err(|e| told(&e))
}

/// The handle's file was lost with a blocking task that never came back.
pub(super) fn lost() -> FsError {
    FsError::Failure("the file is closed".to_owned())
}

#[async_trait]
impl VirtualFile for StoredReader {
    async fn read_at(&mut self, offset: u64, length: usize) -> FsResult<Bytes> {
        let mut file = self.file.take().ok_or_else(lost)?;
        let (file, read) = on_disk(move || {
            let read = read_at(&mut *file, offset, length);
            Ok((file, read))
        })
        .await?;
        self.file = Some(file);
        read
    }

    async fn write_at(&mut self, _: u64, _: Bytes) -> FsResult<()> {
        Err(FsError::Denied)
    }

    async fn stat(&mut self) -> FsResult<Attributes> {
        if let Some(file) = &self.file {
            self.attributes.size = file.len().map_err(|e| told(&e))?;
        }
        Ok(self.attributes)
    }

    async fn set_attributes(&mut self, _: &SetAttributes) -> FsResult<()> {
        Ok(())
    }

    async fn sync(&mut self) -> FsResult<()> {
        Ok(())
    }

    async fn close(self: Box<Self>) -> FsResult<()> {
        Ok(())
    }
}
