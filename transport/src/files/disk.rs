//! The real disk.

use std::{
    collections::BinaryHeap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use jiff::Timestamp;

#[cfg(windows)]
use towpath_platform::disk;
use towpath_platform::sharing;

use super::{FileEntry, FileKind, FileStat, FileStore, FolderWalk, ReadFile, WriteFile};

/// Files on disk. On Unix new files can be read by their owner only (0600), new folders entered by their owner only (0700).
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

/// A file on disk, open for one purpose.
pub(super) struct DiskFile(pub(super) File);

impl Read for DiskFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for DiskFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for DiskFile {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.0.seek(pos)
    }
}

impl ReadFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl WriteFile for DiskFile {
    fn sync_all(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

/// An open folder keeps its place, and holds 32 KiB of names at most.
pub(super) struct DiskWalk {
    pub(super) entries: fs::ReadDir,
    pub(super) stat: fn(&fs::Metadata) -> FileStat,
}

impl FolderWalk for DiskWalk {
    fn next(&mut self, limit: usize) -> io::Result<Vec<FileEntry>> {
        let mut page = Vec::new();
        while page.len() < limit.max(1) {
            let Some(entry) = self.entries.next().transpose()? else { break };
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(metadata) => page.push(FileEntry { stat: (self.stat)(&metadata), name }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(page)
    }
}

impl FileStore for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(DiskFile(sharing::opened(|| {
            private(OpenOptions::new().write(true).create(true).truncate(true)).open(path)
        })?)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(DiskFile(sharing::opened(|| private(OpenOptions::new().write(true)).open(path))?)))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        // Not the operating system's append mode, in which a seek has no effect on writes.
        let mut file = sharing::opened(|| private(OpenOptions::new().write(true).create(true).truncate(false)).open(path))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Box::new(DiskFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let file = sharing::opened(|| private(OpenOptions::new().read(true)).open(path))?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Box::new(DiskFile(file)))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        Ok(stat_of(&fs::symlink_metadata(path)?))
    }

    fn list(&self, dir: &Path, after: Option<&str>, limit: usize) -> io::Result<Vec<FileEntry>> {
        list_with(dir, after, limit, stat_of)
    }

    fn walk(&self, dir: &Path) -> io::Result<Box<dyn FolderWalk>> {
        Ok(Box::new(DiskWalk { entries: fs::read_dir(dir)?, stat: stat_of }))
    }

    #[cfg(not(windows))]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    #[cfg(windows)]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        sharing::changed(|| disk::rename(from, to))
    }

    #[cfg(target_os = "linux")]
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        use rustix::{
            fs::{CWD, RenameFlags, renameat_with},
            io::Errno,
        };
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Old kernels and some network volumes know no such rename.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_and_remove(from, to),
            Err(Errno::EXIST) => finish_or_refuse(from, to),
            other => Ok(other?),
        }
    }

    #[cfg(all(unix, not(target_os = "linux")))]
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        link_and_remove(from, to)
    }

    #[cfg(windows)]
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        sharing::changed(|| disk::rename_new(from, to))
    }

    #[cfg(unix)]
    fn share(&self, path: &Path, folder: &Path) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let rights = fs::metadata(folder)?.permissions().mode() & 0o666;
        // Others may write to the folder: what is opened gets the rights, and a link in its place is not followed.
        let file = private(OpenOptions::new().read(true)).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        file.set_permissions(fs::Permissions::from_mode(rights | 0o600))
    }

    /// New files have the rights of the folder they are made in.
    #[cfg(not(unix))]
    fn share(&self, path: &Path, folder: &Path) -> io::Result<()> {
        fs::metadata(folder)?;
        fs::metadata(path).map(drop)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        sharing::changed(|| fs::remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        sharing::changed(|| fs::remove_dir(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        sharing::changed(|| fs::remove_dir_all(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_dir_all(parent)?;
        }
        match create_private_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        self.sync_dir(parent.unwrap_or(Path::new(".")))
    }

    #[cfg(unix)]
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// NTFS journals names by itself, and each rename is written through.
    #[cfg(not(unix))]
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if fs::metadata(path)?.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    #[cfg(unix)]
    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let volume = rustix::fs::statvfs(path)?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }

    #[cfg(windows)]
    fn free_space(&self, path: &Path) -> io::Result<u64> {
        disk::free_space(path)
    }
}

/// A second name and the removal of the first: two steps, of which none replaces anything.
#[cfg(unix)]
fn link_and_remove(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => finish_or_refuse(from, to),
        other => other.and_then(|()| fs::remove_file(from)),
    }
}

/// The name is taken: by another file, or by this one because [`link_and_remove`] was stopped between its two steps.
#[cfg(unix)]
fn finish_or_refuse(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let (first, second) = (fs::symlink_metadata(from)?, fs::symlink_metadata(to)?);
    if from != to && (first.dev(), first.ino()) == (second.dev(), second.ino()) {
        fs::remove_file(from)
    } else {
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// [`FileStore::list`], with what `stat` makes of each name.
pub(super) fn list_with(
    dir: &Path,
    after: Option<&str>,
    limit: usize,
    stat: fn(&fs::Metadata) -> FileStat,
) -> io::Result<Vec<FileEntry>> {
    let mut entries = Vec::new();
    let mut after = after.map(str::to_owned);
    loop {
        let names = names_after(dir, after.as_deref(), limit - entries.len())?;
        let last_page = names.len() < limit - entries.len();
        after = names.last().cloned();
        for name in names {
            match fs::symlink_metadata(dir.join(&name)) {
                Ok(metadata) => entries.push(FileEntry { stat: stat(&metadata), name }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        // A name that went between the two looks must not make the page short: that would mean that it is the last.
        if last_page || entries.len() == limit {
            return Ok(entries);
        }
    }
}

/// The first `limit` names of a folder after `after`, sorted, in memory bounded by `limit`.
fn names_after(dir: &Path, after: Option<&str>, limit: usize) -> io::Result<Vec<String>> {
    let mut names = BinaryHeap::new();
    for entry in fs::read_dir(dir)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if limit == 0 || after.is_some_and(|after| name.as_str() <= after) {
            continue;
        }
        if names.len() < limit {
            names.push(name);
        } else if names.peek().is_some_and(|last| name < *last) {
            names.pop();
            names.push(name);
        }
    }
    Ok(names.into_sorted_vec())
}

/// Links in the last component are refused, so that nobody can lead us to write somewhere else.
#[cfg(unix)]
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    // A pipe in the place of a file must not block the opener either.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    options.mode(0o600).custom_flags(flags.bits().cast_signed())
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(unix)]
fn create_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(path)
}

#[cfg(not(unix))]
fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir(path)
}

pub(super) fn stat_of(metadata: &fs::Metadata) -> FileStat {
    let modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
    let kind = match metadata.file_type() {
        t if t.is_file() => FileKind::File,
        t if t.is_dir() => FileKind::Dir,
        _ => FileKind::Other,
    };
    FileStat { kind, len: if kind == FileKind::File { metadata.len() } else { 0 }, modified }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn new_files_and_folders_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        Disk.create_dir_all(&folder).unwrap();
        drop(Disk.create(&folder.join("f")).unwrap());
        drop(Disk.open_append(&folder.join("g")).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir.path().join("a")), mode(&folder)), (0o700, 0o700));
        assert_eq!((mode(&folder.join("f")), mode(&folder.join("g"))), (0o600, 0o600));
    }

    #[test]
    fn a_rename_that_was_stopped_between_two_names_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to, other) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("other"));
        fs::write(&from, b"one").unwrap();
        fs::write(&other, b"one").unwrap();
        assert_eq!(link_and_remove(&from, &other).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::hard_link(&from, &to).unwrap();
        Disk.rename_new(&from, &to).unwrap();
        assert!(!from.exists() && to.exists());
        link_and_remove(&to, &from).unwrap();
        assert!(from.exists() && !to.exists());
        assert_eq!(Disk.rename_new(&from, &from).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_shared_file_has_the_rights_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        drop(Disk.create(&file).unwrap());
        for (folder, expected) in [(0o755, 0o644), (0o2770, 0o660), (0o700, 0o600)] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(folder)).unwrap();
            Disk.share(&file, dir.path()).unwrap();
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, expected);
        }
    }

    #[test]
    fn links_are_seen_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), b"x").unwrap();
        let link = dir.path().join("link");
        symlink(dir.path().join("secret"), &link).unwrap();
        assert_eq!(Disk.stat(&link).unwrap().kind, FileKind::Other);
        assert!(Disk.open(&link).is_err() && Disk.create(&link).is_err() && Disk.open_append(&link).is_err());
        fs::set_permissions(dir.path().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Disk.share(&link, dir.path()).is_err() && Disk.share(dir.path(), dir.path()).is_err());
        assert_eq!(fs::metadata(dir.path().join("secret")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"x");
    }
}
