//! Open files of the landing.
//!
//! A file under a `.part` name is written in place and stays, so that it can be resumed. Every other name is written
//! under a hidden name and gets its own at CLOSE, synced; without CLOSE it never existed.

use std::{
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use towpath_transfer::{FileName, manifest::MANIFEST_NAME, packed::PART_SUFFIX};
use towpath_transport::{
    files::{FileKind, ReadFile, WriteFile, publish},
    server::{Attributes, FsError, FsResult, OpenOptions, SetAttributes, VirtualFile},
};

use super::{Landing, Spot, gate::Gate, on_disk, told, view::attributes};

/// The most bytes of memory that one READ allocates before anything was read.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// A file open for reading.
pub(super) struct Reader {
    file: Option<Box<dyn ReadFile>>,
    attributes: Attributes,
}

impl Reader {
    /// Blocking.
    pub(super) fn open(landing: &Landing, disk: &Path) -> FsResult<Self> {
        let stat = landing.files.stat(disk).map_err(|e| told(&e))?;
        if stat.kind != FileKind::File {
            return Err(FsError::NotFound);
        }
        let file = landing.files.open(disk).map_err(|e| told(&e))?;
        Ok(Self { file: Some(file), attributes: attributes(&stat)? })
    }
}

fn read_at(file: &mut dyn ReadFile, offset: u64, length: usize) -> FsResult<Bytes> {
    let mut bytes = Vec::with_capacity(length.min(READ_BUFFER_BYTES));
    let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.take(length as u64).read_to_end(&mut bytes));
    read.map(|_| bytes.into()).map_err(|e| told(&e))
}

/// The handle's file was lost with a blocking task that never came back.
fn lost() -> FsError {
    FsError::Failure("the file is closed".to_owned())
}

#[async_trait]
impl VirtualFile for Reader {
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

/// Which file a handle writes, and by what right.
struct Hold {
    landing: Arc<Landing>,
    gate: Arc<Gate>,
    name: FileName,
    token: u64,
    disk: PathBuf,
    /// The name the file gets at CLOSE, where it is hidden until then.
    target: Option<PathBuf>,
}

impl Hold {
    /// Whether this handle may still write; to be asked with the gate held.
    fn check(&self) -> FsResult<()> {
        if self.gate.writes(&self.name, self.token) {
            return Ok(());
        }
        Err(FsError::Failure("the file was opened, renamed or removed by another request meanwhile".to_owned()))
    }

    /// Gives the hidden file its name, durably. Blocking.
    fn publish(&self) -> FsResult<()> {
        let Some(target) = &self.target else { return Ok(()) };
        publish(&*self.landing.files, &self.disk, target).map_err(|e| told(&e))?;
        if self.name.as_str() == MANIFEST_NAME {
            self.landing.arrived.notify_one();
        }
        Ok(())
    }

    /// Ends the writing without a file, where it was hidden. Blocking.
    fn discard(&self) {
        if self.target.is_some() {
            // What stays behind is emptied by the next one that writes this name.
            let _ = self.landing.files.remove(&self.disk);
        }
    }
}

/// A file open for writing.
pub(super) struct Writer {
    hold: Hold,
    file: Option<Box<dyn WriteFile>>,
    readable: bool,
    append: bool,
    length: u64,
}

/// What is needed to open a file for writing; the gate is held alone meanwhile.
pub(super) struct Opening {
    pub(super) landing: Arc<Landing>,
    pub(super) spot: Spot,
    pub(super) gate: Arc<Gate>,
    pub(super) name: FileName,
    pub(super) options: OpenOptions,
    /// How many files the folder has, where that is known.
    pub(super) files: Option<usize>,
}

impl Writer {
    /// Opens the file and says how many files the folder has then. Blocking.
    pub(super) fn open(opening: Opening) -> FsResult<(Self, usize)> {
        let Opening { landing, spot, gate, name, options, files } = opening;
        let in_place = name.as_str().ends_with(PART_SUFFIX);
        let named = landing.path(&spot, &name);
        let disk = if in_place { named.clone() } else { landing.hidden(&spot, &name) };
        let folder = landing.folder(&spot);
        if !landing.files.stat(&folder).is_ok_and(|stat| stat.kind == FileKind::Dir) {
            return Err(FsError::NotFound);
        }
        let existing = match landing.files.stat(&named) {
            Ok(stat) if stat.kind == FileKind::File => Some(stat.len),
            Ok(_) => return Err(FsError::NotFound),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(told(&e)),
        };
        match existing {
            Some(_) if options.create && options.exclusive => return Err(FsError::Exists),
            None if !options.create => return Err(FsError::NotFound),
            _ => {}
        }
        let most = landing.limits.files;
        let mut count = match files {
            Some(files) => files,
            None => landing.count(&folder, FileKind::File, most.saturating_add(1))?,
        };
        if existing.is_none() {
            if count >= most {
                return Err(FsError::Failure(format!("a transfer has at most {most} files")));
            }
            landing.check_room(0)?;
            count += 1;
        }
        let token = gate.take_over(&name);
        // A file that is changed and not replaced is hidden from now on, like every name that is being written.
        let keeps = existing.is_some() && !options.truncate;
        if keeps && !in_place {
            landing.files.rename(&named, &disk).map_err(|e| told(&e))?;
        }
        let opened = if keeps { landing.files.open_write(&disk) } else { landing.files.create(&disk) };
        let file = Some(opened.map_err(|e| told(&e))?);
        let length = if keeps { existing.unwrap_or(0) } else { 0 };
        let target = (!in_place).then_some(named);
        let hold = Hold { landing, gate, name, token, disk, target };
        Ok((Self { hold, file, readable: options.read, append: options.append, length }, count))
    }
}

#[async_trait]
impl VirtualFile for Writer {
    async fn read_at(&mut self, offset: u64, length: usize) -> FsResult<Bytes> {
        if !self.readable {
            return Err(FsError::Denied);
        }
        let (landing, disk) = (Arc::clone(&self.hold.landing), self.hold.disk.clone());
        on_disk(move || {
            let mut file = landing.files.open(&disk).map_err(|e| told(&e))?;
            read_at(&mut *file, offset, length)
        })
        .await
    }

    async fn write_at(&mut self, offset: u64, data: Bytes) -> FsResult<()> {
        let _shared = self.hold.gate.shared().await;
        self.hold.check()?;
        let mut file = self.file.take().ok_or_else(lost)?;
        let (landing, length) = (Arc::clone(&self.hold.landing), self.length);
        let at = if self.append { length } else { offset };
        let end = at.saturating_add(data.len() as u64);
        let (file, written) = on_disk(move || {
            let written = landing.check_room(end.saturating_sub(length)).and_then(|()| {
                let wrote = file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(&data)).and_then(|()| file.flush());
                wrote.map_err(|e| told(&e))
            });
            Ok((file, written))
        })
        .await?;
        self.file = Some(file);
        if written.is_ok() {
            self.length = length.max(end);
        }
        written
    }

    async fn stat(&mut self) -> FsResult<Attributes> {
        let kind = towpath_transport::server::FileKind::File;
        Ok(Attributes { kind, mode: 0o644, size: self.length, ..Attributes::default() })
    }

    /// Accepted and ignored, like that of a path.
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
        let gate = Arc::clone(&self.hold.gate);
        let mut names = gate.alone().await;
        let (hold, file) = (self.hold, self.file.take());
        let done = on_disk(move || {
            let allowed = hold.check();
            hold.gate.done(&hold.name, hold.token);
            let mine = allowed.is_ok();
            let synced = allowed.and_then(|()| file.ok_or_else(lost)?.sync_all().map_err(|e| told(&e)));
            let done = synced.and_then(|()| hold.publish());
            if done.is_err() && mine {
                hold.discard();
            }
            done
        })
        .await;
        if done.is_err() {
            names.files = None;
        }
        done
    }

    async fn abandon(mut self: Box<Self>) {
        let gate = Arc::clone(&self.hold.gate);
        let mut names = gate.alone().await;
        names.files = None;
        let hold = self.hold;
        drop(self.file.take());
        // The task runs to its end also where nobody waits for it any more.
        let _ = on_disk(move || {
            if hold.check().is_ok() {
                hold.gate.done(&hold.name, hold.token);
                hold.discard();
            }
            Ok(())
        })
        .await;
    }
}
