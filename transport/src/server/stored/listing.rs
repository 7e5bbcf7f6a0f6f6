//! Listings.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

use super::{attributes_of, folder_attributes, on_disk, reader::lost, told};
use crate::{
    files::{FileEntry, FileStore, FolderWalk},
    server::vfs::{Entry, FileKind, FsResult, VirtualListing},
};

/// Folders that are not on disk.
#[derive(Debug)]
pub struct FixedListing(Vec<Entry>);

impl FixedListing {
    /// Folders of these names.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        Self(names.iter().map(|name| Entry { name: (*name).to_owned(), attributes: folder_attributes() }).collect())
    }
}

#[async_trait]
impl VirtualListing for FixedListing {
    async fn next_page(&mut self, most: usize) -> FsResult<Vec<Entry>> {
        let rest = self.0.split_off(most.min(self.0.len()));
        Ok(std::mem::replace(&mut self.0, rest))
    }
}

/// A folder on disk, page by page and in no order. One that does not exist is empty.
pub struct StoredListing {
    files: Arc<dyn FileStore>,
    folder: PathBuf,
    shows: fn(&str, FileKind) -> bool,
    reading: Reading,
}

/// How far the folder was read. It is open only between the first page and the last.
enum Reading {
    NotBegun,
    /// At its place in the folder.
    At(Box<dyn FolderWalk>),
    Over,
    /// A page could not be read, and what follows it cannot be told from an end.
    Lost,
}

impl fmt::Debug for StoredListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredListing").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl StoredListing {
    /// The names in `folder` that `shows` lets a peer see.
    #[must_use]
    pub fn new(files: Arc<dyn FileStore>, folder: PathBuf, shows: fn(&str, FileKind) -> bool) -> Self {
        Self { files, folder, shows, reading: Reading::NotBegun }
    }
}

/// The folder's next entries, and where it is then. Blocking.
fn next_entries(reading: Reading, files: &dyn FileStore, folder: &Path, most: usize) -> io::Result<(Vec<FileEntry>, Reading)> {
    let mut walk = match reading {
        Reading::NotBegun => match files.walk(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Reading::Over)),
            other => other?,
        },
        Reading::At(walk) => walk,
        Reading::Over | Reading::Lost => return Ok((Vec::new(), reading)),
    };
    let page = walk.next(most)?;
    let reading = if page.is_empty() { Reading::Over } else { Reading::At(walk) };
    Ok((page, reading))
}

#[async_trait]
impl VirtualListing for StoredListing {
    async fn next_page(&mut self, most: usize) -> FsResult<Vec<Entry>> {
        while !matches!(self.reading, Reading::Over) {
            let reading = std::mem::replace(&mut self.reading, Reading::Lost);
            if matches!(reading, Reading::Lost) {
                return Err(lost());
            }
            let (files, folder) = (Arc::clone(&self.files), self.folder.clone());
            let read = on_disk(move || next_entries(reading, &*files, &folder, most).map_err(|e| told(&e)));
            let (page, reading) = read.await?;
            self.reading = reading;
            let seen = page.into_iter().filter_map(|entry| {
                let attributes = attributes_of(&entry.stat).ok()?;
                (self.shows)(&entry.name, attributes.kind).then_some(Entry { name: entry.name, attributes })
            });
            let entries: Vec<Entry> = seen.collect();
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    }
}
