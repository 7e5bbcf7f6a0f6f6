//! Files of our own: the seam between every stage and the disk.
//!
//! The trait is blocking; a caller on the runtime wraps longer work in [`blocking`]. [`Disk`] is the
//! real thing, [`MemoryFiles`] forgets at [`MemoryFiles::power_loss`] whatever was not synced, and [`FaultFiles`] fails
//! before or after any effect.

mod begun;
#[cfg(target_os = "linux")]
mod below;
mod disk;
mod fault;
mod memory;

#[cfg(test)]
mod conformance;

use std::{
    ffi::OsString,
    fmt::Debug,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use tokio::task::JoinError;
use towpath_transfer::{
    Code, Failure,
    beside::{beside, waits_here},
};

/// Bytes of a file that are in memory at once while it is read from its start to its end.
const CHUNK_BYTES: usize = 256 * 1024;

pub use begun::{is_begun, remove_begun};
#[cfg(target_os = "linux")]
pub use below::DiskBelow;
pub use disk::Disk;
pub use fault::{FaultFiles, FileFault, FileOp, FilePlan};
pub use memory::MemoryFiles;

/// What a file's name gets appended while it is being written by [`write_whole`].
pub const TEMP_SUFFIX: &str = ".tmp";

/// A file opened for reading.
pub trait ReadFile: Read + Seek + Send {
    /// The file's length now, in bytes.
    ///
    /// # Errors
    /// Where the length cannot be read.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// Where the length cannot be read.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A file opened for writing. What is written is safe only after [`WriteFile::sync_all`], and the file's name only after
/// [`FileStore::sync_dir`] of its folder.
pub trait WriteFile: Write + Seek + Send {
    /// Returns when content and length would survive a power loss.
    ///
    /// # Errors
    /// Where the disk refuses; what was written since the last success may then be lost.
    fn sync_all(&mut self) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros, to `len` bytes. The position stays.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
}

/// What kind of thing a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A plain file.
    File,
    /// A folder.
    Dir,
    /// A link, device, socket or pipe; Towpath never follows, reads or writes one.
    Other,
}

/// What is known about a name, without following links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// File, folder or neither.
    pub kind: FileKind,
    /// Length in bytes; 0 for a folder.
    pub len: u64,
    /// When the content last changed, where the store knows.
    pub modified: Option<Timestamp>,
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// The name without its folder.
    pub name: String,
    /// What it stands for.
    pub stat: FileStat,
}

/// A folder that is being read from its beginning to its end.
pub trait FolderWalk: Send {
    /// The next entries, at most `limit` (and at least one where `limit` is 0) and in no order; none at the end. A name that comes
    /// or goes meanwhile may be among them or not; every other name is, once. Names that are not UTF-8 are not ours and are left out.
    ///
    /// # Errors
    /// As the disk reports.
    fn next(&mut self, limit: usize) -> io::Result<Vec<FileEntry>>;
}

/// A tree of files and folders that is ours.
///
/// Nothing here is durable by itself: content needs [`WriteFile::sync_all`], and a name that appears, changes or goes needs
/// [`FileStore::sync_dir`] of the folder it is in; only [`FileStore::create_dir_all`] syncs what it makes.
/// After a rename between two folders, sync the target first, so that the file is never in neither.
pub trait FileStore: Debug + Send + Sync {
    /// Creates a file for writing, and empties it where it exists. Its folder must exist.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] without the folder, or as the disk reports.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Opens an existing file for writing at its start; what is there stays.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] without the file, or as the disk reports.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file for writing at its end, and creates it where it does not exist.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] without the folder, or as the disk reports.
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] without the file, or as the disk reports.
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// What the name stands for; links are not followed.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] without it, or as the disk reports.
    fn stat(&self, path: &Path) -> io::Result<FileStat>;

    /// At most `limit` entries of a folder, sorted by name (by bytes), that come after the name `after`. A short answer is the last
    /// page. Memory is bounded by `limit`. Names that are not UTF-8 are not ours and are left out. A disk is read whole for each page,
    /// so that whoever wants every name of a large folder and not their order takes [`FileStore::walk`].
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] without the folder, or as the disk reports.
    fn list(&self, dir: &Path, after: Option<&str>, limit: usize) -> io::Result<Vec<FileEntry>>;

    /// Every entry of a folder, page by page, in memory bounded by a page; the folder is read once, however large it is.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] without the folder, or as the disk reports.
    fn walk(&self, dir: &Path) -> io::Result<Box<dyn FolderWalk>>;

    /// Renames a file or folder in one step; a file at `to` is replaced. It lasts from the next [`FileStore::sync_dir`] on.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] without `from`, or as the disk reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames a file to a name that is free, in one step and within one volume: nothing is ever replaced, also where somebody else
    /// takes the name at the same moment. Where both names stand for one file already, as a crash in the middle can leave it on a
    /// volume without such a rename, `from` goes and the rename is done.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where the name is taken, [`io::ErrorKind::NotFound`] without `from`, or as the disk reports.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file, which only we could open so far, to whoever the folder belongs to: it may be read by those who may list
    /// `folder`, and written by those who may write there.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] without the file or the folder, or as the disk reports.
    fn share(&self, path: &Path, folder: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] without it (see [`ignore_missing`]), or as the disk reports.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    ///
    /// # Errors
    /// [`io::ErrorKind::DirectoryNotEmpty`], [`io::ErrorKind::NotFound`], or as the disk reports.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder and everything below it; links are removed, not followed.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] without it (see [`ignore_missing`]), or as the disk reports.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Creates a folder and every missing folder above it, each durable in its parent before the next is made.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotADirectory`] or [`io::ErrorKind::AlreadyExists`] where a file is in the way, or as the disk reports.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Returns when every name that appeared in, changed in or went from this folder is durable.
    ///
    /// # Errors
    /// As the disk reports.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Bytes that can still be written on the volume that holds `path`, which must exist.
    ///
    /// # Errors
    /// As the disk reports.
    fn free_space(&self, path: &Path) -> io::Result<u64>;
}

/// The disk for what strangers may name below `root`, which exists; see `DiskBelow`, which needs Linux. Elsewhere a link in a folder's
/// place is found by looking before, as the views of [`crate::server::stored`] do.
///
/// # Errors
/// As the disk reports, or without `/proc`.
pub fn disk_below(root: &Path) -> io::Result<Arc<dyn FileStore>> {
    #[cfg(target_os = "linux")]
    let files = DiskBelow::new(root)?;
    #[cfg(not(target_os = "linux"))]
    let files = std::fs::metadata(root).map(|_| Disk)?;
    Ok(Arc::new(files))
}

/// Runs file work on a thread that may block. The work runs to its end also where nobody waits for it any more.
///
/// # Errors
/// Where the work panicked, or the runtime ends.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    // Where nothing else goes on meanwhile another thread would only be a detour.
    if waits_here() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// As [`blocking`] for work that hands on what it reads, a few pieces ahead, and waits where nobody takes them.
///
/// # Errors
/// As there.
pub async fn feeding<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    beside(tokio::task::spawn_blocking(work)).await
}

/// Makes "it is not there" a success, for removals that may run twice.
///
/// # Errors
/// Every other error.
pub fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes a small file so that its name never stands for anything but the old or the whole new content, whatever fails:
/// temporary name in the same folder, sync, rename, sync of the folder. Two writers of one name must not run at once.
///
/// # Errors
/// As the store reports; the temporary file is then removed where that is possible.
pub fn write_whole(store: &dyn FileStore, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = temp_name(path)?;
    let written = store.create(&temp).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let done = written.and_then(|()| publish(store, &temp, path));
    if done.is_err() {
        // What failed is reported; a temporary file that stays behind is overwritten by the next attempt.
        let _ = store.remove(&temp);
    }
    done
}

/// Gives a synced file its final name, durably. Both names must be in the same folder; a file at `name` is replaced.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for two folders, or as the store reports.
pub fn publish(store: &dyn FileStore, temp: &Path, name: &Path) -> io::Result<()> {
    let folder = name.parent().filter(|folder| temp.parent() == Some(folder));
    let folder = folder.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "published from another folder"))?;
    store.rename(temp, name)?;
    store.sync_dir(folder)
}

/// Makes the name of a file or folder durable that is found where it should be. Whoever has given it that name may have stopped
/// before it was: what is relied on from here on must not go with the next power loss.
///
/// # Errors
/// As the store reports.
pub fn hold(store: &dyn FileStore, path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| store.sync_dir(folder))
}

/// Reads a file of at most `limit` bytes into memory.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`] beyond the limit, or as the store reports.
pub fn read_whole(store: &dyn FileStore, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = store.open(path)?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("the file is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// As [`read_whole`]; `None` where there is no such file.
///
/// # Errors
/// As there.
pub fn read_if_there(store: &dyn FileStore, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    match read_whole(store, path, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Gives the first `most` bytes of a file piece by piece, for a digest.
///
/// # Errors
/// As the store reports.
pub fn each_chunk(store: &dyn FileStore, path: &Path, most: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = store.open(path)?.take(most);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => take(chunk.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Says what was tried with which file, and gives the error its code: a full disk passes by itself, and so may everything else
/// but a missing permission and a file of a form that cannot be right.
#[must_use]
pub fn file_failure(what: &str, path: &Path, error: io::Error) -> Failure {
    io_failure(format!("{what} {}", path.display()), error)
}

/// [`file_failure`] for a message that names the file already.
pub(crate) fn io_failure(message: String, error: io::Error) -> Failure {
    use io::ErrorKind as Kind;
    let failure = match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => Failure::retry(Code::DiskFull, message),
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem | Kind::InvalidInput | Kind::FileTooLarge | Kind::Unsupported => {
            Failure::park(Code::FileFailed, message)
        }
        _ => Failure::retry(Code::FileFailed, message),
    };
    failure.caused_by(error)
}

fn temp_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path without a file name"))?;
    let mut temp = OsString::from(".");
    temp.push(name);
    temp.push(TEMP_SUFFIX);
    Ok(path.with_file_name(temp))
}
