//! Files open for writing.

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use towpath_transfer::{FileName, packed::PART_SUFFIX};

use super::{
    UploadFolder, file_length, hidden_name, on_disk,
    reader::{lost, read_at},
    told,
};
use crate::{
    files::{FileKind, FileStore, WriteFile, publish},
    server::vfs::{Attributes, FileKind as Kind, FsError, FsResult, OpenOptions, SetAttributes, VirtualFile},
};

/// Entries read at once where a folder's files are counted.
const PAGE: usize = 500;

/// What is needed to open a file for writing; the gate is held alone meanwhile.
pub(super) struct Opening {
    pub(super) folder: Arc<dyn UploadFolder>,
    pub(super) name: FileName,
    pub(super) options: OpenOptions,
    /// How many files the folder has, where that is known.
    pub(super) files: Option<usize>,
}

/// Which file a handle writes, and by what right.
struct Hold {
    folder: Arc<dyn UploadFolder>,
    name: FileName,
    token: u64,
    disk: PathBuf,
    /// The name the file gets at CLOSE, where it is hidden until then.
    target: Option<PathBuf>,
}

impl Hold {
    fn is_mine(&self) -> bool {
        self.folder.gate().writes(&self.name, self.token)
    }

    /// Whether this handle may still write; to be asked with the gate held.
    async fn check(&self) -> FsResult<()> {
        self.folder.check_open().await?;
        if self.is_mine() {
            return Ok(());
        }
        Err(FsError::Failure("the file was opened, renamed or removed by another request meanwhile".to_owned()))
    }

    fn done(&self) {
        self.folder.gate().done(&self.name, self.token);
    }

    /// Gives the hidden file its name, durably. Blocking.
    fn publish(&self) -> FsResult<()> {
        let Some(target) = &self.target else { return Ok(()) };
        let files = &**self.folder.files();
        let replaced = files.stat(target).map_or(0, |stat| stat.len);
        publish(files, &self.disk, target).map_err(|e| told(&e))?;
        self.folder.shrink(replaced);
        self.folder.published(&self.name);
        Ok(())
    }

    /// Ends the writing without a file, where it was hidden. Blocking.
    fn discard(&self, length: u64) {
        // What stays behind is emptied by the next one that writes this name.
        if self.target.is_some() && self.folder.files().remove(&self.disk).is_ok() {
            self.folder.shrink(length);
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

impl Writer {
    /// Opens the file and says how many files the folder has then. Blocking.
    pub(super) fn open(opening: Opening) -> FsResult<(Self, usize)> {
        let Opening { folder, name, options, files: counted } = opening;
        let (files, path) = (Arc::clone(folder.files()), folder.path());
        // A disk that cannot be read now is not a folder that is gone: only the second is for the peer to mend.
        if files.stat(&path).map_err(|e| told(&e))?.kind != FileKind::Dir {
            return Err(FsError::NotFound);
        }
        let in_place = name.as_str().ends_with(PART_SUFFIX);
        let named = path.join(name.as_str());
        let disk = if in_place { named.clone() } else { path.join(hidden_name(&name)) };
        let existing = file_length(&*files, &named)?;
        let unfinished = if in_place { None } else { file_length(&*files, &disk)? };
        match existing {
            Some(_) if options.create && options.exclusive => return Err(FsError::Exists),
            None if !options.create => return Err(FsError::NotFound),
            _ => {}
        }
        let most = folder.most_files();
        let count = counted.map_or_else(|| count(&*files, &path, most), Ok)?;
        if existing.is_none() && count >= most {
            return Err(FsError::Failure(format!("a transfer has at most {most} files")));
        }
        folder.grow(0)?;
        let token = folder.gate().take_over(&name);
        // A file that is changed and not replaced is hidden from now on, like every name that is being written.
        let keeps = existing.is_some() && !options.truncate;
        if keeps && !in_place {
            files.rename(&named, &disk).map_err(|e| told(&e))?;
            folder.shrink(unfinished.unwrap_or(0));
        }
        let opened = if keeps { files.open_write(&disk) } else { files.create(&disk) };
        let file = Some(opened.map_err(|e| told(&e))?);
        if !keeps {
            folder.shrink(if in_place { existing } else { unfinished }.unwrap_or(0));
        }
        let length = if keeps { existing.unwrap_or(0) } else { 0 };
        let target = (!in_place).then_some(named);
        let hold = Hold { folder, name, token, disk, target };
        let writer = Self { hold, file, readable: options.read, append: options.append, length };
        Ok((writer, count + usize::from(existing.is_none())))
    }
}

/// How many files a folder has, counted no further than is needed to know that they are more than `most`. Blocking.
fn count(files: &dyn FileStore, folder: &Path, most: usize) -> FsResult<usize> {
    let mut walk = files.walk(folder).map_err(|e| told(&e))?;
    let mut count = 0;
    loop {
        let page = walk.next(PAGE).map_err(|e| told(&e))?;
        count += page.iter().filter(|entry| entry.stat.kind == FileKind::File).count();
        if page.is_empty() || count > most {
            return Ok(count);
        }
    }
}

/// Writes, and says how long the file is then. Blocking.
fn write(folder: &dyn UploadFolder, file: &mut dyn WriteFile, at: u64, data: &[u8], length: u64) -> (u64, FsResult<()>) {
    let end = at.saturating_add(data.len() as u64);
    let more = end.saturating_sub(length);
    if let Err(full) = folder.grow(more) {
        return (length, Err(full));
    }
    let written = file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(data)).and_then(|()| file.flush());
    match written {
        Ok(()) => (length.max(end), Ok(())),
        Err(e) => {
            // Part of it may be there; what is not gives its room back.
            let real = real_length(file).unwrap_or(length).clamp(length, length.saturating_add(more));
            folder.shrink(length.saturating_add(more).saturating_sub(real));
            (real, Err(told(&e)))
        }
    }
}

fn real_length(file: &mut dyn WriteFile) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

#[async_trait]
impl VirtualFile for Writer {
    async fn read_at(&mut self, offset: u64, length: usize) -> FsResult<Bytes> {
        if !self.readable {
            return Err(FsError::Denied);
        }
        let (files, disk) = (Arc::clone(self.hold.folder.files()), self.hold.disk.clone());
        on_disk(move || {
            let mut file = files.open(&disk).map_err(|e| told(&e))?;
            read_at(&mut *file, offset, length)
        })
        .await
    }

    async fn write_at(&mut self, offset: u64, data: Bytes) -> FsResult<()> {
        let _shared = self.hold.folder.gate().shared().await;
        self.hold.check().await?;
        let mut file = self.file.take().ok_or_else(lost)?;
        let (folder, length) = (Arc::clone(&self.hold.folder), self.length);
        let at = if self.append { length } else { offset };
        let (file, (length, written)) = on_disk(move || {
            let written = write(&*folder, &mut *file, at, &data, length);
            Ok((file, written))
        })
        .await?;
        self.file = Some(file);
        self.length = length;
        written
    }

    async fn stat(&mut self) -> FsResult<Attributes> {
        Ok(Attributes { kind: Kind::File, mode: 0o644, size: self.length, ..Attributes::default() })
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
        let mut names = self.hold.folder.gate().alone().await;
        let allowed = self.hold.check().await;
        let (hold, file, length) = (self.hold, self.file.take(), self.length);
        let done = on_disk(move || {
            let mine = hold.is_mine();
            hold.done();
            let synced = allowed.and_then(|()| file.ok_or_else(lost)?.sync_all().map_err(|e| told(&e)));
            let done = synced.and_then(|()| hold.publish());
            if done.is_err() && mine {
                hold.discard(length);
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
        let mut names = self.hold.folder.gate().alone().await;
        names.files = None;
        let (hold, length) = (self.hold, self.length);
        drop(self.file.take());
        // The task runs to its end also where nobody waits for it any more.
        let _ = on_disk(move || {
            if hold.is_mine() {
                hold.done();
                hold.discard(length);
            }
            Ok(())
        })
        .await;
    }
}
