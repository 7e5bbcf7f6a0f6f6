//! The disk below one folder, where no link leads anywhere.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Seek as _, SeekFrom},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Component, Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{
    Disk, FileEntry, FileKind, FileStat, FileStore, FolderWalk, ReadFile, WriteFile,
    disk::{DiskFile, DiskWalk, list_with, private, stat_of},
};

/// The disk below a root, for what strangers may name, also while somebody on this machine changes it.
///
/// Every folder on the way from the root to a name is opened as a folder and not by a link, and what is done is done in the folder
/// that was opened: whoever puts a link in a folder's place, at whatever moment, is refused or late. The root itself and the folders
/// directly in it may be links, so that they can be on another volume. A file with a second name may be somebody else's: but for files
/// directly in the root, which nobody but this program names, it is [`FileKind::Other`], is not opened, and gives way to a new one.
///
/// Needs `/proc` for reaching a folder that is open.
#[derive(Debug)]
pub struct DiskBelow {
    root: PathBuf,
    open: OwnedFd,
}

/// A name in a folder that stays the same while this lives.
struct Spot {
    path: PathBuf,
    is_named_by_others: bool,
    _folder: OwnedFd,
}

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A path by which the system reaches an open folder, whatever its name stands for now. The dot makes it the folder itself where a link is not
/// followed.
fn through(folder: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}/.", folder.as_raw_fd()).into()
}

fn has_second_name(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.nlink() > 1
}

fn second_name() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the file has a second name, so that it may be somebody else's")
}

/// As [`stat_of`], with what has a second name as neither file nor folder.
fn stat_below(metadata: &Metadata) -> FileStat {
    let stat = stat_of(metadata);
    if has_second_name(metadata) { FileStat { kind: FileKind::Other, len: 0, ..stat } } else { stat }
}

/// Opens a file that has one name.
fn sole(spot: &Spot, options: &mut OpenOptions) -> io::Result<File> {
    let file = private(options).open(&spot.path)?;
    if spot.is_named_by_others && has_second_name(&file.metadata()?) { Err(second_name()) } else { Ok(file) }
}

impl DiskBelow {
    /// The disk below `root`, which exists.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] without the root or without `/proc`, or as the disk reports.
    pub fn new(root: &Path) -> io::Result<Self> {
        let open = openat(CWD, root, FOLDER, Mode::empty())?;
        fs::metadata(through(&open))?;
        Ok(Self { root: root.to_owned(), open })
    }

    fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "a path that is not below this root");
        let below = path.strip_prefix(&self.root).map_err(|_| outside())?;
        let mut at = self.open.try_clone()?;
        for (depth, part) in below.components().enumerate() {
            let Component::Normal(name) = part else { return Err(outside()) };
            let links = if depth == 0 { OFlags::empty() } else { OFlags::NOFOLLOW };
            at = openat(&at, name, FOLDER | links, Mode::empty())?;
        }
        Ok(at)
    }

    fn spot(&self, path: &Path) -> io::Result<Spot> {
        let (folder, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if path != self.root => (self.folder(parent)?, Some(name)),
            _ => (self.folder(path)?, None),
        };
        let open = through(&folder);
        let is_named_by_others = path.parent() != Some(&self.root);
        Ok(Spot { path: name.map_or_else(|| open.clone(), |name| open.join(name)), is_named_by_others, _folder: folder })
    }

    fn opened(&self, path: &Path, options: &mut OpenOptions) -> io::Result<DiskFile> {
        Ok(DiskFile(sole(&self.spot(path)?, options)?))
    }
}

impl FileStore for DiskBelow {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let spot = self.spot(path)?;
        // Emptied only once it is known whose it is.
        let file = match sole(&spot, OpenOptions::new().write(true).create(true).truncate(false)) {
            Err(_) if spot.is_named_by_others && fs::symlink_metadata(&spot.path).is_ok_and(|there| has_second_name(&there)) => {
                fs::remove_file(&spot.path)?;
                sole(&spot, OpenOptions::new().write(true).create_new(true))?
            }
            other => other?,
        };
        file.set_len(0)?;
        Ok(Box::new(DiskFile(file)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(self.opened(path, OpenOptions::new().write(true))?))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut file = self.opened(path, OpenOptions::new().write(true).create(true).truncate(false))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let file = self.opened(path, OpenOptions::new().read(true))?;
        if file.0.metadata()?.is_file() { Ok(Box::new(file)) } else { Err(io::ErrorKind::IsADirectory.into()) }
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let spot = self.spot(path)?;
        let metadata = fs::symlink_metadata(&spot.path)?;
        Ok(if spot.is_named_by_others { stat_below(&metadata) } else { stat_of(&metadata) })
    }

    fn list(&self, dir: &Path, after: Option<&str>, limit: usize) -> io::Result<Vec<FileEntry>> {
        let folder = self.folder(dir)?;
        list_with(&through(&folder), after, limit, stat_below)
    }

    fn walk(&self, dir: &Path) -> io::Result<Box<dyn FolderWalk>> {
        let folder = self.folder(dir)?;
        Ok(Box::new(DiskWalk { entries: fs::read_dir(through(&folder))?, stat: stat_below }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(&self.spot(from)?.path, &self.spot(to)?.path)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        // One name reached by two open folders looks like two names.
        if from == to {
            return self.stat(from).and(Err(io::ErrorKind::AlreadyExists.into()));
        }
        Disk.rename_new(&self.spot(from)?.path, &self.spot(to)?.path)
    }

    fn share(&self, path: &Path, folder: &Path) -> io::Result<()> {
        let open = self.folder(folder)?;
        let spot = self.spot(path)?;
        if stat_below(&fs::symlink_metadata(&spot.path)?).kind != FileKind::File {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Disk.share(&spot.path, &through(&open))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(&self.spot(path)?.path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Disk.remove_dir(&self.spot(path)?.path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        Disk.remove_dir_all(&self.spot(path)?.path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        match self.folder(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(drop),
        }
        if let Some(parent) = path.parent().filter(|parent| parent.starts_with(&self.root)) {
            self.create_dir_all(parent)?;
        }
        let spot = self.spot(path)?;
        Disk.create_dir_all(&spot.path)?;
        self.folder(path).map(drop)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let folder = self.folder(path)?;
        Disk.sync_dir(&through(&folder))
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        Disk.free_space(&self.spot(path)?.path)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::files::{read_whole, write_whole};

    /// A root with a folder that is ours, and a folder outside that is not.
    fn world() -> (tempfile::TempDir, DiskBelow, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("spool/ours")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("f"), b"secret").unwrap();
        let below = DiskBelow::new(&root).unwrap();
        (dir, below, root.join("spool"), outside)
    }

    fn refused<T>(result: io::Result<T>) {
        let kind = result.err().unwrap().kind();
        assert!(matches!(kind, io::ErrorKind::NotADirectory | io::ErrorKind::NotFound | io::ErrorKind::InvalidInput), "{kind}");
    }

    #[test]
    fn a_link_in_place_of_a_folder_is_refused_by_every_operation() {
        let (_dir, below, spool, outside) = world();
        symlink(&outside, spool.join("link")).unwrap();
        write_whole(&below, &spool.join("ours/g"), b"ours").unwrap();
        for path in [spool.join("link/f"), outside.join("f"), spool.join("ours/../link/f")] {
            refused(below.create(&path));
            refused(below.open_write(&path));
            refused(below.open_append(&path));
            refused(below.open(&path));
            refused(below.stat(&path));
            refused(below.rename(&path, &spool.join("ours/f")));
            refused(below.rename(&spool.join("ours/g"), &path));
            refused(below.rename_new(&spool.join("ours/g"), &path));
            refused(below.share(&path, &spool));
            refused(below.remove(&path));
            refused(below.remove_dir(&path));
            refused(below.remove_dir_all(&path));
            refused(below.create_dir_all(&path.join("new")));
            refused(below.free_space(&path));
        }
        let link = spool.join("link");
        refused(below.list(&link, None, 10));
        refused(below.walk(&link));
        refused(below.sync_dir(&link));
        refused(below.create_dir_all(&link));
        assert_eq!(below.stat(&link).unwrap().kind, FileKind::Other);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        below.remove_dir_all(&link).unwrap();
        assert_eq!(fs::read(outside.join("f")).unwrap(), b"secret", "the link has gone, and not what it led to");
    }

    #[test]
    fn the_folders_in_the_root_may_be_on_another_volume() {
        let (dir, below, spool, _) = world();
        fs::rename(&spool, dir.path().join("elsewhere")).unwrap();
        symlink(dir.path().join("elsewhere"), &spool).unwrap();
        write_whole(&below, &spool.join("ours/g"), b"ours").unwrap();
        assert_eq!(fs::read(dir.path().join("elsewhere/ours/g")).unwrap(), b"ours");
    }

    #[test]
    fn a_second_name_of_somebodys_file_is_neither_read_nor_written() {
        let (_dir, below, spool, outside) = world();
        let planted = spool.join("ours/planted");
        fs::hard_link(outside.join("f"), &planted).unwrap();
        assert_eq!(below.stat(&planted).unwrap().kind, FileKind::Other);
        assert_eq!(below.list(&spool.join("ours"), None, 10).unwrap().remove(0).stat.kind, FileKind::Other);
        assert_eq!(below.walk(&spool.join("ours")).unwrap().next(10).unwrap().remove(0).stat.kind, FileKind::Other);
        for kind in [
            below.open(&planted).err().unwrap().kind(),
            below.open_write(&planted).err().unwrap().kind(),
            below.open_append(&planted).err().unwrap().kind(),
        ] {
            assert_eq!(kind, io::ErrorKind::PermissionDenied);
        }
        io::Write::write_all(&mut below.create(&planted).unwrap(), b"ours").unwrap();
        // What a program has beside its folders may have a second name, in a backup.
        let own = spool.parent().unwrap().join("own");
        write_whole(&below, &own, b"own").unwrap();
        fs::hard_link(&own, outside.join("backup")).unwrap();
        assert_eq!((read_whole(&below, &own, 10).unwrap(), below.stat(&own).unwrap().kind), (b"own".to_vec(), FileKind::File));
        assert_eq!(fs::read(outside.join("f")).unwrap(), b"secret");
        assert_eq!(read_whole(&below, &planted, 10).unwrap(), b"ours", "the name stands for a file of our own now");
    }

    #[test]
    fn nobody_is_faster_who_changes_a_folder_and_a_link() {
        const ROUNDS: usize = 2_000;
        let (_dir, below, spool, outside) = world();
        let (ours, aside, link) = (spool.join("ours"), spool.join("aside"), spool.join("link"));
        fs::write(ours.join("f"), b"ours").unwrap();
        symlink(&outside, &link).unwrap();
        fs::write(outside.join("theirs"), b"secret").unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    fs::rename(&ours, &aside).unwrap();
                    fs::rename(&link, &ours).unwrap();
                    fs::rename(&ours, &link).unwrap();
                    fs::rename(&aside, &ours).unwrap();
                }
            });
            let (mut seen, mut done) = (0, 0);
            for _ in 0..ROUNDS {
                if let Ok(content) = read_whole(&below, &ours.join("f"), 10) {
                    assert_eq!(content, b"ours");
                    seen += 1;
                }
                if let Ok(entries) = below.list(&ours, None, 10) {
                    assert!(entries.iter().all(|entry| entry.name != "theirs"));
                }
                done += usize::from(write_whole(&below, &ours.join("g"), b"mine").is_ok());
                done += usize::from(below.rename(&ours.join("g"), &ours.join("h")).is_ok());
                done += usize::from(below.remove(&ours.join("h")).is_ok());
                done += usize::from(below.remove_dir_all(&ours.join("g")).is_ok());
            }
            over.store(true, Ordering::SeqCst);
            println!("of {ROUNDS} rounds {seen} have read, {done} of four times as many changes were made");
        });
        let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!((left.len(), fs::read(outside.join("f")).unwrap()), (2, b"secret".to_vec()), "{left:?}");
    }
}
