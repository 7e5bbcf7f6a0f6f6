//! An open file of [`super::MemoryFiles`].

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    sync::{Arc, Mutex, MutexGuard},
};

use super::{Content, FileData, Folder, Node, State, lock};
use crate::files::{ReadFile, WriteFile};

pub(super) struct MemoryFile {
    pub(super) shared: Arc<Mutex<State>>,
    pub(super) content: Content,
    pub(super) life: u64,
    pub(super) position: u64,
    /// Counts the open files.
    pub(super) _handle: Arc<()>,
}

impl MemoryFile {
    /// Every operation goes through the state's lock, so that none runs across a power loss.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.shared);
        if state.life == self.life { Ok(state) } else { Err(io::Error::other("the file was open when the power went")) }
    }

    fn resize(&self, state: &State, data: &mut FileData, len: u64) -> io::Result<()> {
        let grows = len.saturating_sub(data.live.len() as u64);
        if state.limit.is_some_and(|limit| limit < self.used_without(state).saturating_add(len)) && grows > 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        Arc::make_mut(&mut data.live).resize(len, 0);
        Ok(())
    }

    /// The bytes of every other file; this one's lock is already held.
    fn used_without(&self, state: &State) -> u64 {
        fn walk(folder: &Folder, but: &Content) -> u64 {
            let size = |node: &Node| match node {
                Node::Dir(below) => walk(below, but),
                Node::File(content) if Arc::ptr_eq(content, but) => 0,
                Node::File(content) => lock(content).live.len() as u64,
            };
            lock(folder).live.values().map(size).sum()
        }
        walk(&state.root, &self.content)
    }
}

impl Read for MemoryFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let state = self.state()?;
        let data = lock(&self.content);
        let start = usize::try_from(self.position).unwrap_or(usize::MAX);
        let mut rest = data.live.get(start..).unwrap_or_default();
        let count = rest.read(buf)?;
        drop((data, state));
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for MemoryFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let state = self.state()?;
        let mut data = lock(&self.content);
        let end = self.position.saturating_add(buf.len() as u64);
        if end > data.live.len() as u64 {
            self.resize(&state, &mut data, end)?;
        }
        let (Ok(start), Ok(stop)) = (usize::try_from(self.position), usize::try_from(end)) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        if let Some(target) = Arc::make_mut(&mut data.live).get_mut(start..stop) {
            target.copy_from_slice(buf);
        }
        data.modified = state.now();
        drop((data, state));
        self.position = end;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for MemoryFile {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        let len = lock(&self.content).live.len() as u64;
        let to = match pos {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => len.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl ReadFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        let _state = self.state()?;
        Ok(lock(&self.content).live.len() as u64)
    }
}

impl WriteFile for MemoryFile {
    fn sync_all(&mut self) -> io::Result<()> {
        let _state = self.state()?;
        let mut data = lock(&self.content);
        data.synced = Arc::clone(&data.live);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let state = self.state()?;
        let mut data = lock(&self.content);
        data.modified = state.now();
        self.resize(&state, &mut data, len)
    }
}
