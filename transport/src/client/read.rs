//! Reading a file from front to back, with requests running ahead.

use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;
use towpath_transfer::RemotePath;

use super::{
    OpenFile, SftpStore, WINDOW,
    pipe::Pending,
    wire::{self, FLAG_READ, Reply},
};
use crate::store::{RemoteRead, StoreError, StoreErrorKind, StoreResult};

pub(super) async fn open(store: &SftpStore, path: &RemotePath, offset: u64) -> StoreResult<Box<dyn RemoteRead>> {
    let file = store.open_handle("reading", path, FLAG_READ).await?;
    let size = file.size().await?.unwrap_or(0);
    Ok(Box::new(Reading { file: Some(file), waiting: VecDeque::new(), next: offset, size }))
}

struct Asked {
    offset: u64,
    len: usize,
    pending: Pending,
}

struct Reading {
    /// Gone at the end of the file.
    file: Option<OpenFile>,
    /// Requests without an answer, in the order of the file.
    waiting: VecDeque<Asked>,
    /// Where the next request begins.
    next: u64,
    /// The length when the file was opened: requests run ahead up to it, and one by one beyond it, where a file that
    /// grows has more.
    size: u64,
}

async fn ask(file: &OpenFile, offset: u64, len: usize) -> StoreResult<Asked> {
    let wanted = u32::try_from(len).unwrap_or(u32::MAX);
    let pending = file.pipe().send(|id| wire::read(id, &file.handle, offset, wanted)).await?;
    Ok(Asked { offset, len, pending })
}

#[async_trait]
impl RemoteRead for Reading {
    async fn next(&mut self) -> StoreResult<Option<Bytes>> {
        let Some(file) = self.file.as_ref() else { return Ok(None) };
        let len = file.pipe().read_bytes();
        while self.waiting.is_empty() || self.waiting.len() < WINDOW && self.next < self.size {
            self.waiting.push_back(ask(file, self.next, len).await?);
            self.next = self.next.saturating_add(len as u64);
        }
        let Some(asked) = self.waiting.pop_front() else { return Ok(None) };
        match asked.pending.reply().await? {
            Reply::Data(data) if data.is_empty() || data.len() > asked.len => {
                let message = format!("reading {}: the server sent {} bytes for {}", file.path, data.len(), asked.len);
                Err(StoreError::new(StoreErrorKind::Protocol, message))
            }
            Reply::Data(data) => {
                if data.len() < asked.len {
                    // A short answer is not the end: the rest is asked for before anything after it is used.
                    let rest = ask(file, asked.offset.saturating_add(data.len() as u64), asked.len - data.len()).await?;
                    self.waiting.push_front(rest);
                }
                Ok(Some(data))
            }
            Reply::Status(status) if status.is_eof() => {
                self.waiting.clear();
                if let Some(file) = self.file.take() {
                    file.close("reading").await?;
                }
                Ok(None)
            }
            other => Err(other.refused("reading", &file.path)),
        }
    }
}
