//! A folder in memory, page by page.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    super::{FileEntry, FileStore as _, FolderWalk},
    MemoryFiles,
};

/// A folder is remembered by its path, so that a folder that goes meanwhile has nothing more.
pub(super) struct MemoryWalk {
    files: MemoryFiles,
    dir: PathBuf,
    after: Option<String>,
}

impl MemoryWalk {
    pub(super) fn new(files: &MemoryFiles, dir: &Path) -> Self {
        Self { files: files.clone(), dir: dir.to_owned(), after: None }
    }
}

impl FolderWalk for MemoryWalk {
    fn next(&mut self, limit: usize) -> io::Result<Vec<FileEntry>> {
        let page = match self.files.list(&self.dir, self.after.as_deref(), limit.max(1)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        self.after = page.last().map(|entry| entry.name.clone()).or_else(|| self.after.take());
        Ok(page)
    }
}
