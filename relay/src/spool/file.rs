//! Open files of the spool.
//!
//! A file under a `.part` name is written in place and stays, so that it can be resumed. Every other name is written
//! under a hidden name and gets its own at CLOSE, synced; without CLOSE it never existed.

use std::{
    io::{self, Read as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use towpath_transfer::{FileName, TransferId};
use towpath_transport::{
    files::{FileKind, FileStore, ReadFile, WriteFile, publish},
    server::{Attributes, FsError, FsResult, OpenOptions, SetAttributes, VirtualFile},
};

use super::{
    Spool,
    gate::Gate,
    view::{attributes, on_disk, told},
};
use crate::scope::AgentScope;

/// A file open for reading.
pub(super) struct SpoolReader {
    file: Option<Box<dyn ReadFile>>,
    attributes: Attributes,
}

impl SpoolReader {
    pub(super) fn open(files: &Arc<dyn FileStore>, disk: &Path) -> FsResult<Self> {
        let stat = files.stat(disk).map_err(|e| told(&e))?;
        if stat.kind != FileKind::File {
            return Err(FsError::NotFound);
        }
        let file = files.open(disk).map_err(|e| told(&e))?;
        Ok(Self { file: Some(file), attributes: attributes(&stat)? })
    }
}

fn read_at(file: &mut dyn ReadFile, offset: u64, length: usize) -> io::Result<Bytes> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// The handle's file was lost with a blocking task that never came back.
fn lost() -> FsError {
    FsError::Failure("the file is closed".to_owned())
}

#[async_trait]
impl VirtualFile for SpoolReader {
    async fn read_at(&mut self, offset: u64, length: usize) -> FsResult<Bytes> {
        let mut file = self.file.take().ok_or_else(lost)?;
        let (file, read) = on_disk(move || {
            let read = read_at(&mut *file, offset, length).map_err(|e| told(&e));
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

/// What is needed to open a file for writing; the gate is held alone meanwhile.
pub(super) struct Opening {
    pub(super) spool: Arc<Spool>,
    pub(super) scope: AgentScope,
    pub(super) gate: Arc<Gate>,
    pub(super) id: TransferId,
    pub(super) name: FileName,
    pub(super) in_place: bool,
    pub(super) options: OpenOptions,
    /// How many files the folder has, where that is known.
    pub(super) files: Option<usize>,
}

/// Which file a handle writes, and by what right.
struct Hold {
    spool: Arc<Spool>,
    scope: AgentScope,
    gate: Arc<Gate>,
    id: TransferId,
    name: FileName,
    token: u64,
    disk: PathBuf,
    /// The name the file gets at CLOSE, where it is hidden until then.
    target: Option<PathBuf>,
}

impl Hold {
    /// Whether this handle may still write; to be asked with the gate held.
    async fn check(&self) -> FsResult<()> {
        self.spool.check_open(&self.scope, self.id, &self.gate).await?;
        if self.gate.writes(&self.name, self.token) {
            return Ok(());
        }
        Err(FsError::Failure("the file was opened, renamed or removed by another request meanwhile".to_owned()))
    }

    /// Gives the hidden file its name, durably. Blocking.
    fn publish(&self) -> FsResult<()> {
        let Some(target) = &self.target else { return Ok(()) };
        let replaced = self.spool.files.stat(target).map_or(0, |stat| stat.len);
        publish(&*self.spool.files, &self.disk, target).map_err(|e| told(&e))?;
        self.spool.quota.shrink(self.scope.tenant(), replaced);
        Ok(())
    }

    /// Ends the writing without a file, where it was hidden; `true` where one went. Blocking.
    fn discard(&self, length: u64) -> bool {
        let gone = self.target.is_some() && self.spool.files.remove(&self.disk).is_ok();
        if gone {
            self.spool.quota.shrink(self.scope.tenant(), length);
        }
        gone
    }
}

/// A file open for writing.
pub(super) struct SpoolWriter {
    hold: Hold,
    file: Option<Box<dyn WriteFile>>,
    readable: bool,
    append: bool,
    length: u64,
}

impl SpoolWriter {
    /// Opens the file and says how many files the folder has then. Blocking.
    pub(super) fn open(opening: Opening) -> FsResult<(Self, usize)> {
        let Opening { spool, scope, gate, id, name, in_place, options, files } = opening;
        let named = spool.path(&scope, id, name.as_str());
        let disk = if in_place { named.clone() } else { spool.hidden(&scope, id, &name) };
        let found = |path: &Path| match spool.files.stat(path) {
            Ok(stat) if stat.kind == FileKind::File => Ok(Some(stat.len)),
            Ok(_) => Err(FsError::NotFound),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(told(&e)),
        };
        if !spool.files.stat(&spool.folder(&scope, id)).is_ok_and(|stat| stat.kind == FileKind::Dir) {
            return Err(FsError::NotFound);
        }
        let (existing, unfinished) = (found(&named)?, if in_place { None } else { found(&disk)? });
        match existing {
            Some(_) if options.create && options.exclusive => return Err(FsError::Exists),
            None if !options.create => return Err(FsError::NotFound),
            _ => {}
        }
        let mut count = match files {
            Some(files) => files,
            None => spool.list(&scope, id, usize::MAX).map_err(|e| super::view::unavailable(&e))?.len(),
        };
        let most = spool.quota.limits().files_per_transfer;
        if existing.is_none() && count >= most {
            return Err(FsError::Failure(format!("a transfer has at most {most} files")));
        }
        spool.quota.grow(scope.tenant(), 0)?;
        let token = gate.take_over(&name);
        // A file that is changed and not replaced is hidden from now on, like every name that is being written.
        let keeps = existing.is_some() && !options.truncate;
        if keeps && !in_place {
            spool.files.rename(&named, &disk).map_err(|e| told(&e))?;
            spool.quota.shrink(scope.tenant(), unfinished.unwrap_or(0));
        }
        let opened = if keeps { spool.files.open_write(&disk) } else { spool.files.create(&disk) };
        let file = opened.map_err(|e| told(&e))?;
        if !keeps {
            let emptied = if in_place { existing } else { unfinished };
            spool.quota.shrink(scope.tenant(), emptied.unwrap_or(0));
        }
        count += usize::from(existing.is_none());
        let length = if keeps { existing.unwrap_or(0) } else { 0 };
        let target = (!in_place).then_some(named);
        let (readable, append) = (options.read, options.append);
        let file = Some(file);
        let hold = Hold { spool, scope, gate, id, name, token, disk, target };
        Ok((Self { hold, file, readable, append, length }, count))
    }

    /// Writes, and says how long the file is then. Blocking.
    fn write(
        spool: &Spool,
        scope: &AgentScope,
        file: &mut dyn WriteFile,
        at: u64,
        data: &[u8],
        length: u64,
    ) -> (u64, FsResult<()>) {
        let end = at.saturating_add(data.len() as u64);
        let more = end.saturating_sub(length);
        if let Err(full) = spool.quota.grow(scope.tenant(), more) {
            return (length, Err(full));
        }
        let written = file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(data)).and_then(|()| file.flush());
        match written {
            Ok(()) => (length.max(end), Ok(())),
            Err(e) => {
                // Part of it may be there; what is not gives its room back.
                let real = file.seek(SeekFrom::End(0)).unwrap_or(length).clamp(length, length.saturating_add(more));
                spool.quota.shrink(scope.tenant(), length.saturating_add(more).saturating_sub(real));
                (real, Err(told(&e)))
            }
        }
    }
}

#[async_trait]
impl VirtualFile for SpoolWriter {
    async fn read_at(&mut self, offset: u64, length: usize) -> FsResult<Bytes> {
        if !self.readable {
            return Err(FsError::Denied);
        }
        let (spool, disk) = (Arc::clone(&self.hold.spool), self.hold.disk.clone());
        on_disk(move || {
            let mut file = spool.files.open(&disk).map_err(|e| told(&e))?;
            read_at(&mut *file, offset, length).map_err(|e| told(&e))
        })
        .await
    }

    async fn write_at(&mut self, offset: u64, data: Bytes) -> FsResult<()> {
        let _shared = self.hold.gate.shared().await;
        self.hold.check().await?;
        let mut file = self.file.take().ok_or_else(lost)?;
        let (spool, scope, length) = (Arc::clone(&self.hold.spool), self.hold.scope.clone(), self.length);
        let at = if self.append { length } else { offset };
        let (file, (length, written)) = on_disk(move || {
            let written = Self::write(&spool, &scope, &mut *file, at, &data, length);
            Ok((file, written))
        })
        .await?;
        self.file = Some(file);
        self.length = length;
        written
    }

    async fn stat(&mut self) -> FsResult<Attributes> {
        Ok(Attributes {
            kind: towpath_transport::server::FileKind::File,
            mode: 0o644,
            size: self.length,
            ..Attributes::default()
        })
    }

    async fn set_attributes(&mut self, _: &SetAttributes) -> FsResult<()> {
        Ok(())
    }

    async fn sync(&mut self) -> FsResult<()> {
        let mut file = self.file.take().ok_or_else(lost)?;
        let (file, synced) = on_disk(move || {
            let synced = file.sync_all().map_err(|e| told(&e));
            Ok((file, synced))
        })
        .await?;
        self.file = Some(file);
        synced
    }

    async fn close(mut self: Box<Self>) -> FsResult<()> {
        let mut names = self.hold.gate.alone().await;
        let allowed = self.hold.check().await;
        let (hold, file, length) = (self.hold, self.file.take(), self.length);
        let (gone, done) = on_disk(move || {
            let mine = hold.gate.writes(&hold.name, hold.token);
            hold.gate.done(&hold.name, hold.token);
            let synced = allowed.and_then(|()| file.ok_or_else(lost)?.sync_all().map_err(|e| told(&e)));
            let done = synced.and_then(|()| hold.publish());
            Ok((done.is_err() && mine && hold.discard(length), done))
        })
        .await?;
        if gone {
            names.files = None;
        }
        done
    }

    async fn abandon(mut self: Box<Self>) {
        let mut names = self.hold.gate.alone().await;
        names.files = None;
        let (hold, length) = (self.hold, self.length);
        drop(self.file.take());
        // The task runs to its end also where nobody waits for it any more.
        let _ = on_disk(move || {
            if hold.gate.writes(&hold.name, hold.token) {
                hold.gate.done(&hold.name, hold.token);
                hold.discard(length);
            }
            Ok(())
        })
        .await;
    }
}
