//! Listings.

use std::{fmt, io, path::PathBuf, sync::Arc};

use async_trait::async_trait;

use super::{attributes_of, folder_attributes, on_disk, told};
use crate::{
    files::FileStore,
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

/// A folder on disk, page by page. One that does not exist is empty.
pub struct StoredListing {
    files: Arc<dyn FileStore>,
    folder: PathBuf,
    shows: fn(&str, FileKind) -> bool,
    after: Option<String>,
    over: bool,
}

impl fmt::Debug for StoredListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredListing").field("folder", &self.folder).field("after", &self.after).finish_non_exhaustive()
    }
}

impl StoredListing {
    /// The names in `folder` that `shows` lets a peer see.
    #[must_use]
    pub fn new(files: Arc<dyn FileStore>, folder: PathBuf, shows: fn(&str, FileKind) -> bool) -> Self {
        Self { files, folder, shows, after: None, over: false }
    }
}

#[async_trait]
impl VirtualListing for StoredListing {
    async fn next_page(&mut self, most: usize) -> FsResult<Vec<Entry>> {
        let most = most.max(1);
        while !self.over {
            let (files, folder, after) = (Arc::clone(&self.files), self.folder.clone(), self.after.clone());
            let page = on_disk(move || match files.list(&folder, after.as_deref(), most) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                other => other.map_err(|e| told(&e)),
            });
            let page = page.await?;
            // A page may be short by a name that went meanwhile, so that only an empty one is the end.
            self.over = page.is_empty();
            self.after = page.last().map(|entry| entry.name.clone()).or_else(|| self.after.take());
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
