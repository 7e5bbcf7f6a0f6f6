//! Every SFTP request as an operation on the view.

use std::sync::Arc;

use bytes::Bytes;
use russh_sftp::protocol::{FileAttributes, Open, OpenFlags, Packet};
use towpath_transfer::digest::Sha256Hasher;

use super::{
    extension::{self, CheckRange, CopyRange, Fields, malformed, unknown_handle},
    handles::{HandleBudget, Handles, Opened},
    limits::{Limits, TRANSFER_BYTES},
    path::PathForm,
    reply::{self, Reply, from_wire},
    session::Watch,
    vfs::{FsError, FsResult, OpenOptions, Replace, SetAttributes, VirtualFile, VirtualFs},
};

/// The longest target of a symbolic link, in bytes (`PATH_MAX` of Linux, without the NUL).
const MAX_LINK_BYTES: usize = 4095;

/// One SFTP channel's view and open handles.
pub(super) struct Operations<P: PathForm> {
    fs: Arc<dyn VirtualFs<P>>,
    handles: Handles<P>,
    budget: Arc<HandleBudget>,
    limits: Arc<Limits>,
    watch: Watch,
}

impl<P: PathForm> Operations<P> {
    pub(super) fn new(fs: Arc<dyn VirtualFs<P>>, budget: Arc<HandleBudget>, limits: Arc<Limits>, watch: Watch) -> Self {
        Self { fs, handles: Handles::new(), budget, limits, watch }
    }

    pub(super) fn extensions(&self) -> std::collections::HashMap<String, String> {
        extension::announced(self.fs.capabilities())
    }

    /// Does what one request asks.
    pub(super) async fn answer(&mut self, packet: Packet) -> FsResult<Reply> {
        match packet {
            Packet::Read(read) => self.read(&read.handle, read.offset, read.len).await,
            Packet::Write(write) => {
                let file = self.handles.file(number(&write.handle)?)?;
                done(file.write_at(write.offset, Bytes::from(write.data)).await)
            }
            Packet::Open(open) => self.open(&open).await,
            Packet::Close(close) => done(self.handles.close(number(&close.handle)?).await),
            Packet::OpenDir(open) => self.open_listing(path(&open.path)?).await,
            Packet::ReadDir(read) => {
                let entries = self.handles.listing(number(&read.handle)?)?.next_page(self.limits.page_entries).await?;
                Ok(if entries.is_empty() { Reply::End } else { Reply::Entries(entries) })
            }
            Packet::Stat(stat) => self.fs.stat(&path(&stat.path)?).await.map(Reply::Attributes),
            Packet::Lstat(stat) => self.fs.lstat(&path(&stat.path)?).await.map(Reply::Attributes),
            Packet::Fstat(stat) => self.handles.file(number(&stat.handle)?)?.stat().await.map(Reply::Attributes),
            Packet::SetStat(set) => done(self.fs.set_attributes(&path(&set.path)?, &from_wire(&set.attrs), true).await),
            Packet::FSetStat(set) => {
                let file = self.handles.file(number(&set.handle)?)?;
                done(file.set_attributes(&from_wire(&set.attrs)).await)
            }
            Packet::Remove(remove) => done(self.fs.remove(&path(&remove.filename)?).await),
            Packet::MkDir(make) => done(self.fs.make_dir(&path(&make.path)?, &from_wire(&make.attrs)).await),
            Packet::RmDir(remove) => done(self.fs.remove_dir(&path(&remove.path)?).await),
            Packet::RealPath(real) => {
                let path = self.fs.canonical(&path(&real.path)?).await?;
                Ok(Reply::Path(path.to_string()))
            }
            Packet::Rename(rename) => {
                let (from, to) = (path(&rename.oldpath)?, path(&rename.newpath)?);
                done(self.fs.rename(&from, &to, Replace::Refuse).await)
            }
            Packet::ReadLink(link) => self.fs.read_link(&path(&link.path)?).await.map(Reply::Path),
            // OpenSSH sends the target first, against the draft, and every client has followed it (its PROTOCOL, 4.1).
            Packet::Symlink(link) => symlink(self.fs.as_ref(), &link.linkpath, &link.targetpath).await,
            Packet::Extended(extended) => self.extended(&extended.request, &extended.data).await,
            _ => Err(FsError::Unsupported),
        }
    }

    /// Nothing that is still open is published.
    pub(super) async fn abandon(&mut self) {
        self.handles.abandon().await;
    }

    async fn read(&mut self, handle: &str, offset: u64, length: u32) -> FsResult<Reply> {
        let file = self.handles.file(number(handle)?)?;
        if length == 0 {
            return Ok(Reply::Data(Bytes::new()));
        }
        let length = usize::try_from(length).map_or(TRANSFER_BYTES, |length| length.min(TRANSFER_BYTES));
        let data = file.read_at(offset, length).await?;
        Ok(if data.is_empty() { Reply::End } else { Reply::Data(data) })
    }

    async fn open(&mut self, open: &Open) -> FsResult<Reply> {
        let path: P = path(&open.filename)?;
        let has = |flag| open.pflags.contains(flag);
        let options = OpenOptions {
            read: has(OpenFlags::READ),
            write: has(OpenFlags::WRITE) || has(OpenFlags::APPEND),
            append: has(OpenFlags::APPEND),
            create: has(OpenFlags::CREATE),
            truncate: has(OpenFlags::TRUNCATE),
            exclusive: has(OpenFlags::EXCLUDE),
        };
        if !options.read && !options.write {
            return Err(malformed());
        }
        let place = self.budget.take()?;
        let file = self.fs.open(&path, options, &from_wire(&open.attrs)).await?;
        Ok(Reply::Handle(self.handles.insert(Opened::File(file), path, place)))
    }

    async fn open_listing(&mut self, path: P) -> FsResult<Reply> {
        let place = self.budget.take()?;
        let listing = self.fs.list(&path).await?;
        Ok(Reply::Handle(self.handles.insert(Opened::Listing(listing), path, place)))
    }

    /// Copies between two open files. Where the end is not given it is the source's end as it is now, so that a file which
    /// is copied onto its own end does not grow for ever.
    async fn copy(&mut self, range: CopyRange) -> FsResult<Reply> {
        if range.from == range.to {
            return Err(malformed());
        }
        let end = match range.length {
            Some(length) => range.start.saturating_add(length),
            None => self.handles.file(range.from)?.stat().await?.size,
        };
        let (mut from, mut to) = (range.start, range.target);
        while from < end {
            if self.watch.is_over() {
                return Err(session_over());
            }
            let wanted = usize::try_from(end - from).map_or(TRANSFER_BYTES, |left| left.min(TRANSFER_BYTES));
            let data = self.handles.file(range.from)?.read_at(from, wanted).await?;
            if data.is_empty() {
                break;
            }
            let read = u64::try_from(data.len()).unwrap_or(u64::MAX);
            self.handles.file(range.to)?.write_at(to, data).await?;
            (from, to) = (from.saturating_add(read), to.saturating_add(read));
        }
        Ok(Reply::Done)
    }

    async fn extended(&mut self, request: &str, data: &[u8]) -> FsResult<Reply> {
        let mut fields = Fields::new(data);
        match request {
            "posix-rename@openssh.com" => {
                let (from, to) = (fields.path::<P>()?, fields.path::<P>()?);
                done(self.fs.rename(&from, &to, Replace::Allow).await)
            }
            "hardlink@openssh.com" => {
                let (existing, new) = (fields.path::<P>()?, fields.path::<P>()?);
                done(self.fs.hard_link(&existing, &new).await)
            }
            "fsync@openssh.com" => done(self.handles.file(fields.handle()?)?.sync().await),
            "limits@openssh.com" => Ok(Reply::Extended(extension::limits(&self.limits))),
            "lsetstat@openssh.com" => {
                let path = fields.path::<P>()?;
                done(self.fs.set_attributes(&path, &attributes(fields.rest())?, false).await)
            }
            "copy-data" if self.fs.capabilities().copy_data => self.copy(CopyRange::read(&mut fields)?).await,
            "statvfs@openssh.com" => space(self.fs.as_ref(), &fields.path::<P>()?).await,
            "fstatvfs@openssh.com" => space(self.fs.as_ref(), self.handles.path(fields.handle()?)?).await,
            // Paramiko's name for it is `check-file`.
            "check-file-handle" | "check-file" => {
                let file = self.handles.file(fields.handle()?)?;
                check(file, CheckRange::read(&mut fields)?, &self.watch, self.limits.frame_bytes).await
            }
            "check-file-name" => {
                let path = fields.path::<P>()?;
                let range = CheckRange::read(&mut fields)?;
                let _place = self.budget.take()?;
                let options = OpenOptions { read: true, ..OpenOptions::default() };
                let mut file = self.fs.open(&path, options, &SetAttributes::default()).await?;
                let answer = check(file.as_mut(), range, &self.watch, self.limits.frame_bytes).await;
                file.close().await?;
                answer
            }
            _ => Err(FsError::Unsupported),
        }
    }
}

async fn symlink<P: PathForm>(fs: &dyn VirtualFs<P>, target: &str, link: &str) -> FsResult<Reply> {
    if target.is_empty() || target.len() > MAX_LINK_BYTES || target.contains(['\0', '\u{fffd}']) {
        return Err(FsError::NotFound);
    }
    done(fs.symlink(target, &path(link)?).await)
}

async fn space<P: PathForm>(fs: &dyn VirtualFs<P>, path: &P) -> FsResult<Reply> {
    Ok(Reply::Extended(reply::space(&fs.space(path).await?)))
}

/// Digests a range of a file, in one piece or by blocks. A session that ends stops it between two reads.
async fn check(file: &mut dyn VirtualFile, range: CheckRange, watch: &Watch, frame_bytes: usize) -> FsResult<Reply> {
    let mut answer = CheckRange::answer();
    let mut offset = range.start;
    let mut left = range.length.unwrap_or(u64::MAX);
    let mut hasher = Sha256Hasher::new();
    let mut in_block = 0u64;
    loop {
        if watch.is_over() {
            return Err(session_over());
        }
        let room = range.block.map_or(u64::MAX, |block| block - in_block).min(left);
        let wanted = usize::try_from(room).map_or(TRANSFER_BYTES, |room| room.min(TRANSFER_BYTES));
        let data = if wanted == 0 { Bytes::new() } else { file.read_at(offset, wanted).await? };
        let read = u64::try_from(data.len()).unwrap_or(u64::MAX);
        hasher.update(&data);
        (offset, left, in_block) = (offset.saturating_add(read), left.saturating_sub(read), in_block + read);
        let at_end = data.is_empty();
        let block_full = range.block.is_some_and(|block| in_block >= block);
        // A range without a single byte still has the digest of nothing.
        if block_full || at_end && (in_block > 0 || offset == range.start) {
            let digest = std::mem::replace(&mut hasher, Sha256Hasher::new()).finish();
            answer.extend_from_slice(digest.as_bytes());
            in_block = 0;
        }
        if at_end {
            return Ok(Reply::Extended(answer));
        }
        if answer.len() + 64 > frame_bytes {
            return Err(FsError::Failure("Too many blocks: ask for larger ones".to_owned()));
        }
    }
}

fn session_over() -> FsError {
    FsError::Failure("The session has ended".to_owned())
}

fn done(result: FsResult<()>) -> FsResult<Reply> {
    result.map(|()| Reply::Done)
}

fn path<P: PathForm>(text: &str) -> FsResult<P> {
    // The decoder has put U+FFFD where bytes were not UTF-8; both path forms refuse that character.
    P::parse(text.as_bytes())
}

fn number(handle: &str) -> FsResult<u32> {
    handle.parse().map_err(|_| unknown_handle())
}

fn attributes(data: &[u8]) -> FsResult<SetAttributes> {
    let mut data = Bytes::copy_from_slice(data);
    let attributes: FileAttributes = russh_sftp::de::from_bytes(&mut data).map_err(|_| malformed())?;
    Ok(from_wire(&attributes))
}
