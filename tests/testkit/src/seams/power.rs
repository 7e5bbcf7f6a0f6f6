//! The power of a machine: what a program does to its files ends when it does, whichever thread still wants to.

use std::{
    io,
    path::Path,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use tokio_util::sync::CancellationToken;
use towpath_transport::files::{FileEntry, FileStat, FileStore, FolderWalk, MemoryFiles, ReadFile, WriteFile};

/// From one start of a program to the next crash of its machine.
#[derive(Debug, Clone)]
pub struct Life {
    on: Arc<RwLock<bool>>,
    over: CancellationToken,
}

impl Life {
    /// A machine that has just been switched on.
    #[must_use]
    pub fn new() -> Self {
        Self { on: Arc::new(RwLock::new(true)), over: CancellationToken::new() }
    }

    /// Switches the machine off, between two operations on its files.
    pub fn end(&self) {
        *self.on.write().unwrap_or_else(PoisonError::into_inner) = false;
        self.over.cancel();
    }

    /// Whether the machine is off.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Waits until the machine is off.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Keeps the machine on for one operation.
    fn on(&self) -> io::Result<RwLockReadGuard<'_, bool>> {
        let on = self.on.read().unwrap_or_else(PoisonError::into_inner);
        if *on { Ok(on) } else { Err(io::Error::other("the machine is off")) }
    }
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}

/// The files of a machine as one life of its program has them. Threads that outlive the program reach nothing.
#[derive(Debug, Clone)]
pub struct PoweredFiles {
    files: MemoryFiles,
    life: Life,
}

impl PoweredFiles {
    /// `files` for as long as `life` lasts.
    #[must_use]
    pub fn new(files: MemoryFiles, life: Life) -> Self {
        Self { files, life }
    }
}

impl FileStore for PoweredFiles {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let _on = self.life.on()?;
        self.files.create(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let _on = self.life.on()?;
        self.files.open_write(path)
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let _on = self.life.on()?;
        self.files.open_append(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let _on = self.life.on()?;
        self.files.open(path)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let _on = self.life.on()?;
        self.files.stat(path)
    }

    fn list(&self, dir: &Path, after: Option<&str>, limit: usize) -> io::Result<Vec<FileEntry>> {
        let _on = self.life.on()?;
        self.files.list(dir, after, limit)
    }

    fn walk(&self, dir: &Path) -> io::Result<Box<dyn FolderWalk>> {
        let _on = self.life.on()?;
        self.files.walk(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _on = self.life.on()?;
        self.files.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _on = self.life.on()?;
        self.files.rename_new(from, to)
    }

    fn share(&self, path: &Path, folder: &Path) -> io::Result<()> {
        let _on = self.life.on()?;
        self.files.share(path, folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let _on = self.life.on()?;
        self.files.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let _on = self.life.on()?;
        self.files.remove_dir(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let _on = self.life.on()?;
        self.files.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let _on = self.life.on()?;
        self.files.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let _on = self.life.on()?;
        self.files.sync_dir(path)
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let _on = self.life.on()?;
        self.files.free_space(path)
    }
}

#[cfg(test)]
mod tests {
    use towpath_transport::files::write_whole;

    use super::*;

    #[test]
    fn a_life_that_is_over_reaches_nothing_and_the_next_finds_what_was_synced() {
        let disk = MemoryFiles::new();
        let (first, second) = (Life::new(), Life::new());
        let before = PoweredFiles::new(disk.clone(), first.clone());
        write_whole(&before, Path::new("/kept"), b"x").unwrap();
        let mut open = before.create(Path::new("/lost")).unwrap();
        first.end();
        disk.power_loss();
        assert!(first.is_over() && open.write_all(b"y").is_err());
        assert!(before.stat(Path::new("/kept")).is_err() && before.create(Path::new("/late")).is_err());
        let after = PoweredFiles::new(disk, second);
        let names: Vec<String> = after.list(Path::new("/"), None, 9).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["kept"]);
    }
}
