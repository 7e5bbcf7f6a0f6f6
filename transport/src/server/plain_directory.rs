//! A directory of this machine as it is, links and all.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, Timespec, Timestamps};

use super::{
    path::PathForm,
    vfs::{
        Attributes, Capabilities, Entry, FileKind, FsError, FsResult, Lack, OpenOptions, Replace, SetAttributes, Space,
        VirtualFile, VirtualFs, VirtualListing,
    },
};

/// The permission bits that a peer may set.
const MODE_BITS: u32 = 0o7777;

/// A [`VirtualFs`] over a directory, with symbolic links, hard links, modes and times.
///
/// For tests and for judging the server by other people's test suites, which need a general-purpose tree. **Not for
/// production views**: it is no jail (a symbolic link leads anywhere this process may go), it publishes a file as soon as
/// it is opened for writing, and it has no quota.
#[derive(Debug, Clone)]
pub struct PlainDirectory {
    root: PathBuf,
}

impl PlainDirectory {
    /// The directory `root` as the session's root; with `/`, paths mean the same on both sides.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn local<P: PathForm>(&self, path: &P) -> PathBuf {
        self.root.join(path.to_string().trim_start_matches('/'))
    }
}

/// Does file work on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> FsResult<T> {
    match crate::files::blocking(work).await {
        Ok(result) => result.map_err(|error| refused(&error)),
        Err(_) => Err(FsError::Failure("Failure".to_owned())),
    }
}

fn refused(error: &io::Error) -> FsError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FsError::NotFound,
        io::ErrorKind::PermissionDenied => FsError::Denied,
        io::ErrorKind::AlreadyExists => FsError::Exists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FsError::Full(Lack::Disk),
        io::ErrorKind::DirectoryNotEmpty => FsError::Failure("Directory not empty".to_owned()),
        io::ErrorKind::IsADirectory => FsError::Failure("Is a directory".to_owned()),
        _ => FsError::Failure("Failure".to_owned()),
    }
}

fn attributes_of(metadata: &Metadata) -> Attributes {
    let kind = match metadata.file_type() {
        kind if kind.is_file() => FileKind::File,
        kind if kind.is_dir() => FileKind::Directory,
        kind if kind.is_symlink() => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let seconds = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
    Attributes {
        kind,
        size: metadata.size(),
        mode: metadata.mode() & MODE_BITS,
        uid: metadata.uid(),
        gid: metadata.gid(),
        accessed: seconds(metadata.atime()),
        modified: seconds(metadata.mtime()),
    }
}

fn set_on_path(path: &Path, wanted: &SetAttributes, follow: bool) -> io::Result<()> {
    // Where it is not there, every change must fail alike.
    let metadata = if follow { fs::metadata(path)? } else { fs::symlink_metadata(path)? };
    if let Some(size) = wanted.size {
        File::options().write(true).open(path)?.set_len(size)?;
    }
    if let Some(mode) = wanted.mode
        && (follow || !metadata.is_symlink())
    {
        fs::set_permissions(path, fs::Permissions::from_mode(mode & MODE_BITS))?;
    }
    if let Some((uid, gid)) = wanted.owner {
        if follow {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
        } else {
            std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
        }
    }
    if let Some((accessed, modified)) = wanted.times {
        let time = |seconds: u32| Timespec { tv_sec: i64::from(seconds), tv_nsec: 0 };
        let times = Timestamps { last_access: time(accessed), last_modification: time(modified) };
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        rustix::fs::utimensat(CWD, path, &times, flags)?;
    }
    Ok(())
}

fn set_on_file(file: &File, wanted: &SetAttributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        file.set_len(size)?;
    }
    if let Some(mode) = wanted.mode {
        file.set_permissions(fs::Permissions::from_mode(mode & MODE_BITS))?;
    }
    if let Some((uid, gid)) = wanted.owner {
        std::os::unix::fs::fchown(file, Some(uid), Some(gid))?;
    }
    if let Some((accessed, modified)) = wanted.times {
        let time = |seconds: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(seconds));
        file.set_times(fs::FileTimes::new().set_accessed(time(accessed)).set_modified(time(modified)))?;
    }
    Ok(())
}

fn open_local(path: &Path, options: OpenOptions, mode: u32) -> io::Result<File> {
    let mut open = File::options();
    open.read(options.read).write(options.write && !options.append).append(options.append);
    open.truncate(options.truncate && !options.append).mode(mode & 0o777);
    if options.create && options.exclusive {
        open.create_new(true)
    } else {
        open.create(options.create && options.write)
    };
    let file = open.open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if options.truncate && options.append {
        file.set_len(0)?;
    }
    Ok(file)
}

/// A rename that leaves an existing name alone. Linking and unlinking is the portable way for files; directories cannot be
/// linked, and there the check and the rename are two steps.
fn rename_refusing(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(from)?.is_dir() {
        if fs::symlink_metadata(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        return fs::rename(from, to);
    }
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

#[async_trait]
impl<P: PathForm> VirtualFs<P> for PlainDirectory {
    fn capabilities(&self) -> Capabilities {
        Capabilities { hard_links: true, space: true, copy_data: true }
    }

    async fn stat(&self, path: &P) -> FsResult<Attributes> {
        let path = self.local(path);
        blocking(move || fs::metadata(path).map(|metadata| attributes_of(&metadata))).await
    }

    async fn lstat(&self, path: &P) -> FsResult<Attributes> {
        let path = self.local(path);
        blocking(move || fs::symlink_metadata(path).map(|metadata| attributes_of(&metadata))).await
    }

    async fn open(&self, path: &P, options: OpenOptions, attributes: &SetAttributes) -> FsResult<Box<dyn VirtualFile>> {
        let path = self.local(path);
        let mode = attributes.mode.unwrap_or(0o666);
        let file = blocking(move || open_local(&path, options, mode)).await?;
        Ok(Box::new(PlainFile { file: Arc::new(file), append: options.append }))
    }

    async fn list(&self, path: &P) -> FsResult<Box<dyn VirtualListing>> {
        let path = self.local(path);
        let entries = blocking(move || fs::read_dir(path)).await?;
        Ok(Box::new(PlainListing { entries: Some(entries) }))
    }

    async fn make_dir(&self, path: &P, attributes: &SetAttributes) -> FsResult<()> {
        let path = self.local(path);
        let mode = attributes.mode.unwrap_or(0o777) & 0o777;
        blocking(move || fs::DirBuilder::new().mode(mode).create(path)).await
    }

    async fn remove_dir(&self, path: &P) -> FsResult<()> {
        let path = self.local(path);
        blocking(move || fs::remove_dir(path)).await
    }

    async fn remove(&self, path: &P) -> FsResult<()> {
        let path = self.local(path);
        blocking(move || fs::remove_file(path)).await
    }

    async fn rename(&self, from: &P, to: &P, replace: Replace) -> FsResult<()> {
        let (from, to) = (self.local(from), self.local(to));
        blocking(move || match replace {
            Replace::Allow => fs::rename(from, to),
            Replace::Refuse => rename_refusing(&from, &to),
        })
        .await
    }

    async fn set_attributes(&self, path: &P, attributes: &SetAttributes, follow: bool) -> FsResult<()> {
        let (path, wanted) = (self.local(path), *attributes);
        blocking(move || set_on_path(&path, &wanted, follow)).await
    }

    async fn read_link(&self, path: &P) -> FsResult<String> {
        let path = self.local(path);
        let target = blocking(move || fs::read_link(path)).await?;
        target.into_os_string().into_string().map_err(|_| FsError::NotFound)
    }

    async fn symlink(&self, target: &str, link: &P) -> FsResult<()> {
        let (target, link) = (target.to_owned(), self.local(link));
        blocking(move || std::os::unix::fs::symlink(target, link)).await
    }

    async fn hard_link(&self, existing: &P, new: &P) -> FsResult<()> {
        let (existing, new) = (self.local(existing), self.local(new));
        blocking(move || fs::hard_link(existing, new)).await
    }

    async fn space(&self, path: &P) -> FsResult<Space> {
        let path = self.local(path);
        let found = blocking(move || Ok(rustix::fs::statvfs(path)?)).await?;
        let read_only = found.f_flag.contains(StatVfsMountFlags::RDONLY);
        let no_suid = found.f_flag.contains(StatVfsMountFlags::NOSUID);
        Ok(Space {
            block_size: found.f_bsize,
            fragment_size: found.f_frsize,
            blocks: found.f_blocks,
            blocks_free: found.f_bfree,
            blocks_available: found.f_bavail,
            files: found.f_files,
            files_free: found.f_ffree,
            files_available: found.f_favail,
            id: found.f_fsid,
            flags: u64::from(read_only) | u64::from(no_suid) << 1,
            name_max: found.f_namemax,
        })
    }
}

struct PlainFile {
    file: Arc<File>,
    append: bool,
}

impl PlainFile {
    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&File) -> io::Result<T> + Send + 'static) -> FsResult<T> {
        let file = Arc::clone(&self.file);
        blocking(move || work(&file)).await
    }
}

#[async_trait]
impl VirtualFile for PlainFile {
    async fn read_at(&mut self, offset: u64, length: usize) -> FsResult<Bytes> {
        self.with(move |file| {
            let mut buffer = vec![0; length];
            let mut filled = 0;
            while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
                match file.read_at(room, offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX))) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            buffer.truncate(filled);
            Ok(Bytes::from(buffer))
        })
        .await
    }

    async fn write_at(&mut self, offset: u64, data: Bytes) -> FsResult<()> {
        let append = self.append;
        self.with(move |mut file| if append { io::Write::write_all(&mut file, &data) } else { file.write_all_at(&data, offset) })
            .await
    }

    async fn stat(&mut self) -> FsResult<Attributes> {
        self.with(|file| file.metadata().map(|metadata| attributes_of(&metadata))).await
    }

    async fn set_attributes(&mut self, attributes: &SetAttributes) -> FsResult<()> {
        let wanted = *attributes;
        self.with(move |file| set_on_file(file, &wanted)).await
    }

    async fn sync(&mut self) -> FsResult<()> {
        self.with(File::sync_all).await
    }

    async fn close(self: Box<Self>) -> FsResult<()> {
        Ok(())
    }
}

struct PlainListing {
    /// Away only while a page is being read on a blocking thread.
    entries: Option<fs::ReadDir>,
}

#[async_trait]
impl VirtualListing for PlainListing {
    async fn next_page(&mut self, most: usize) -> FsResult<Vec<Entry>> {
        let Some(mut entries) = self.entries.take() else { return Ok(Vec::new()) };
        let (page, entries) = blocking(move || {
            let mut page = Vec::new();
            while page.len() < most {
                let Some(entry) = entries.next().transpose()? else { break };
                // What is removed meanwhile or has no UTF-8 name cannot be named to the peer.
                if let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) {
                    page.push(Entry { name, attributes: attributes_of(&metadata) });
                }
            }
            Ok((page, entries))
        })
        .await?;
        self.entries = Some(entries);
        Ok(page)
    }
}
