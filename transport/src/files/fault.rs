//! A file store that fails by plan, before or after the effect.

use std::{
    fmt,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{FileEntry, FileStat, FileStore, FolderWalk, ReadFile, WriteFile};

/// What was about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileOp {
    /// `create`, `open_write` or `open_append`.
    OpenWrite,
    /// `open`.
    Open,
    /// One read from an open file.
    Read,
    /// One write to an open file, or `set_len`.
    Write,
    /// `sync_all` of an open file.
    Sync,
    /// `stat`.
    Stat,
    /// `list`, `walk`, or one page of a walk.
    List,
    /// `rename` or `rename_new`, named by its target.
    Rename,
    /// `share`.
    Share,
    /// `remove`, `remove_dir` or `remove_dir_all`.
    Remove,
    /// `create_dir_all`.
    CreateDir,
    /// `sync_dir`.
    SyncDir,
    /// `free_space`.
    FreeSpace,
}

impl FileOp {
    /// Whether the operation changes anything; a simulation that fails each effect in turn counts these.
    #[must_use]
    pub const fn is_effect(self) -> bool {
        !matches!(self, Self::Open | Self::Read | Self::Stat | Self::List | Self::FreeSpace)
    }
}

/// How an operation is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFault {
    /// Nothing happens, and this error is returned.
    Before(io::ErrorKind),
    /// It happens, and this error is returned nevertheless: the lost answer.
    After(io::ErrorKind),
}

impl FileFault {
    /// A plan that makes the `n`th effect fail so, counted from 1, and nothing else.
    #[must_use]
    pub fn on_effect(self, n: usize) -> FilePlan {
        let mut effects = 0usize;
        Box::new(move |op, _| {
            effects += usize::from(op.is_effect());
            (op.is_effect() && effects == n).then_some(self)
        })
    }
}

/// Asked before each operation; `None` lets it through.
pub type FilePlan = Box<dyn FnMut(FileOp, &Path) -> Option<FileFault> + Send>;

type SharedPlan = Arc<Mutex<FilePlan>>;

/// Fails the operations of another store by plan. Clones share the plan.
#[derive(Clone)]
pub struct FaultFiles {
    inner: Arc<dyn FileStore>,
    plan: SharedPlan,
}

impl FaultFiles {
    /// Puts `plan` before `inner`.
    pub fn new(inner: Arc<dyn FileStore>, plan: FilePlan) -> Self {
        Self { inner, plan: Arc::new(Mutex::new(plan)) }
    }

    fn run<T>(&self, op: FileOp, path: &Path, work: impl FnOnce(&dyn FileStore) -> io::Result<T>) -> io::Result<T> {
        run(&self.plan, op, path, || work(self.inner.as_ref()))
    }

    fn wrap<F: ?Sized>(&self, path: &Path, file: Box<F>) -> Box<FaultFile<F>> {
        Box::new(FaultFile { inner: file, plan: Arc::clone(&self.plan), path: path.to_owned() })
    }
}

impl fmt::Debug for FaultFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultFiles({:?})", self.inner)
    }
}

fn run<T>(plan: &SharedPlan, op: FileOp, path: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let fault = plan.lock().unwrap_or_else(PoisonError::into_inner)(op, path);
    match fault {
        None => work(),
        Some(FileFault::Before(kind)) => Err(kind.into()),
        Some(FileFault::After(kind)) => work().and(Err(kind.into())),
    }
}

impl FileStore for FaultFiles {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = self.run(FileOp::OpenWrite, path, |inner| inner.create(path))?;
        Ok(self.wrap(path, file))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = self.run(FileOp::OpenWrite, path, |inner| inner.open_write(path))?;
        Ok(self.wrap(path, file))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = self.run(FileOp::OpenWrite, path, |inner| inner.open_append(path))?;
        Ok(self.wrap(path, file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let file = self.run(FileOp::Open, path, |inner| inner.open(path))?;
        Ok(self.wrap(path, file))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        self.run(FileOp::Stat, path, |inner| inner.stat(path))
    }

    fn list(&self, dir: &Path, after: Option<&str>, limit: usize) -> io::Result<Vec<FileEntry>> {
        self.run(FileOp::List, dir, |inner| inner.list(dir, after, limit))
    }

    fn walk(&self, dir: &Path) -> io::Result<Box<dyn FolderWalk>> {
        let walk = self.run(FileOp::List, dir, |inner| inner.walk(dir))?;
        Ok(self.wrap(dir, walk))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(FileOp::Rename, to, |inner| inner.rename(from, to))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(FileOp::Rename, to, |inner| inner.rename_new(from, to))
    }

    fn share(&self, path: &Path, folder: &Path) -> io::Result<()> {
        self.run(FileOp::Share, path, |inner| inner.share(path, folder))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(FileOp::Remove, path, |inner| inner.remove(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.run(FileOp::Remove, path, |inner| inner.remove_dir(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.run(FileOp::Remove, path, |inner| inner.remove_dir_all(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.run(FileOp::CreateDir, path, |inner| inner.create_dir_all(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.run(FileOp::SyncDir, path, |inner| inner.sync_dir(path))
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        self.run(FileOp::FreeSpace, path, |inner| inner.free_space(path))
    }
}

struct FaultFile<F: ?Sized> {
    inner: Box<F>,
    plan: SharedPlan,
    path: PathBuf,
}

impl<F: Read + ?Sized> Read for FaultFile<F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        run(&self.plan, FileOp::Read, &self.path, || self.inner.read(buf))
    }
}

impl<F: Write + ?Sized> Write for FaultFile<F> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        run(&self.plan, FileOp::Write, &self.path, || self.inner.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<F: Seek + ?Sized> Seek for FaultFile<F> {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.inner.seek(pos)
    }
}

impl<F: ReadFile + ?Sized> ReadFile for FaultFile<F> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

impl<F: FolderWalk + ?Sized> FolderWalk for FaultFile<F> {
    fn next(&mut self, limit: usize) -> io::Result<Vec<FileEntry>> {
        run(&self.plan, FileOp::List, &self.path, || self.inner.next(limit))
    }
}

impl<F: WriteFile + ?Sized> WriteFile for FaultFile<F> {
    fn sync_all(&mut self) -> io::Result<()> {
        run(&self.plan, FileOp::Sync, &self.path, || self.inner.sync_all())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        run(&self.plan, FileOp::Write, &self.path, || self.inner.set_len(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{MemoryFiles, read_whole, write_whole};

    /// Fails the `n`th effect of replacing a file, loses the power, and looks at what is left.
    fn after_failing(n: usize, fault: FileFault) -> (bool, Vec<u8>) {
        let memory = MemoryFiles::new();
        write_whole(&memory, Path::new("/f"), b"old").unwrap();
        let files = FaultFiles::new(Arc::new(memory.clone()), fault.on_effect(n));
        let ok = write_whole(&files, Path::new("/f"), b"new").is_ok();
        memory.power_loss();
        (ok, read_whole(&memory, Path::new("/f"), 10).unwrap())
    }

    #[test]
    fn write_whole_leaves_the_old_or_the_new_content_wherever_it_fails() {
        for n in 1..=5 {
            for fault in [FileFault::Before(io::ErrorKind::Other), FileFault::After(io::ErrorKind::StorageFull)] {
                let (ok, content) = after_failing(n, fault);
                assert!(!ok, "effect {n} was to fail");
                assert!(content == b"old" || content == b"new", "effect {n} {fault:?}: {content:?}");
            }
        }
        assert_eq!(after_failing(6, FileFault::Before(io::ErrorKind::Other)), (true, b"new".to_vec()));
    }
}
