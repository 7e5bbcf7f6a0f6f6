//! A tenant's view in memory, which holds what the packet loop promises to every view.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use towpath_transport::server::{
    Attributes, Capabilities, Entry, FileKind, FsError, FsResult, Lack, OpenOptions, PathForm, Replace, SetAttributes, Space,
    TRANSFER_BYTES, VirtualFile, VirtualFs, VirtualListing,
};

/// No file grows beyond this, in bytes.
const MOST_BYTES: usize = 16 * 1024;

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Files by their path; folders there are none but the root.
#[derive(Debug, Default)]
pub(crate) struct FlatView {
    files: Files,
}

fn lock(files: &Files) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a view is given must be in its one form.
fn checked<P: PathForm>(path: &P) -> String {
    let text = path.to_string();
    assert!(text.starts_with('/') && !text.contains('\0'), "{text:?}");
    assert!(text == "/" || text.split('/').skip(1).all(|name| !matches!(name, "" | "." | "..")), "{text:?}");
    let again = P::parse(text.as_bytes()).map(|path| path.to_string());
    assert_eq!(again.as_ref(), Ok(&text));
    text
}

fn attributes(size: usize) -> Attributes {
    Attributes { size: size as u64, mode: 0o644, ..Attributes::default() }
}

impl FlatView {
    pub(crate) fn new() -> Arc<Self> {
        let view = Self::default();
        lock(&view.files).insert("/a".to_owned(), b"content of a".to_vec());
        Arc::new(view)
    }

    fn known(&self, path: &impl Display) -> FsResult<usize> {
        lock(&self.files).get(&path.to_string()).map(Vec::len).ok_or(FsError::NotFound)
    }
}

#[async_trait]
impl<P: PathForm> VirtualFs<P> for FlatView {
    fn capabilities(&self) -> Capabilities {
        Capabilities { hard_links: true, space: true, copy_data: true }
    }

    async fn stat(&self, path: &P) -> FsResult<Attributes> {
        match checked(path).as_str() {
            "/" => Ok(Attributes { kind: FileKind::Directory, mode: 0o755, ..Attributes::default() }),
            _ => self.known(path).map(attributes),
        }
    }

    async fn open(&self, path: &P, options: OpenOptions, _: &SetAttributes) -> FsResult<Box<dyn VirtualFile>> {
        assert!(options.read || options.write);
        let path = checked(path);
        let mut files = lock(&self.files);
        match (files.get_mut(&path), options.create && options.write) {
            (Some(_), true) if options.exclusive => return Err(FsError::Exists),
            (Some(content), _) if options.truncate && options.write => content.clear(),
            (Some(_), _) => {}
            (None, true) => drop(files.insert(path.clone(), Vec::new())),
            (None, false) => return Err(FsError::NotFound),
        }
        Ok(Box::new(Open { files: Arc::clone(&self.files), path, append: options.append }))
    }

    async fn list(&self, path: &P) -> FsResult<Box<dyn VirtualListing>> {
        if checked(path) != "/" {
            return Err(FsError::NotFound);
        }
        let entry = |(name, content): (&String, &Vec<u8>)| Entry { name: name.clone(), attributes: attributes(content.len()) };
        Ok(Box::new(Page(lock(&self.files).iter().map(entry).collect())))
    }

    async fn make_dir(&self, path: &P, _: &SetAttributes) -> FsResult<()> {
        checked(path);
        Err(FsError::Exists)
    }

    async fn remove_dir(&self, path: &P) -> FsResult<()> {
        checked(path);
        Err(FsError::Denied)
    }

    async fn remove(&self, path: &P) -> FsResult<()> {
        lock(&self.files).remove(&checked(path)).map(drop).ok_or(FsError::NotFound)
    }

    async fn rename(&self, from: &P, to: &P, replace: Replace) -> FsResult<()> {
        let (from, to) = (checked(from), checked(to));
        let mut files = lock(&self.files);
        if replace == Replace::Refuse && files.contains_key(&to) {
            return Err(FsError::Exists);
        }
        let content = files.remove(&from).ok_or(FsError::NotFound)?;
        files.insert(to, content);
        Ok(())
    }

    async fn set_attributes(&self, path: &P, _: &SetAttributes, _: bool) -> FsResult<()> {
        checked(path);
        self.known(path).map(drop)
    }

    async fn hard_link(&self, existing: &P, new: &P) -> FsResult<()> {
        let (existing, new) = (checked(existing), checked(new));
        let mut files = lock(&self.files);
        let content = files.get(&existing).cloned().ok_or(FsError::NotFound)?;
        files.insert(new, content);
        Ok(())
    }

    async fn space(&self, path: &P) -> FsResult<Space> {
        checked(path);
        Ok(Space::default())
    }
}

struct Page(Vec<Entry>);

#[async_trait]
impl VirtualListing for Page {
    async fn next_page(&mut self, most: usize) -> FsResult<Vec<Entry>> {
        assert!(most > 0);
        Ok(self.0.split_off(self.0.len().saturating_sub(most)))
    }
}

struct Open {
    files: Files,
    path: String,
    append: bool,
}

impl Open {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> FsResult<T>) -> FsResult<T> {
        lock(&self.files).get_mut(&self.path).ok_or(FsError::NotFound).and_then(work)
    }
}

#[async_trait]
impl VirtualFile for Open {
    async fn read_at(&mut self, offset: u64, length: usize) -> FsResult<Bytes> {
        assert!(length <= TRANSFER_BYTES);
        self.with(|content| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
            let end = start.saturating_add(length).min(content.len());
            Ok(Bytes::copy_from_slice(content.get(start..end).unwrap_or_default()))
        })
    }

    async fn write_at(&mut self, offset: u64, data: Bytes) -> FsResult<()> {
        let append = self.append;
        self.with(|content| {
            let start = if append { content.len() } else { usize::try_from(offset).unwrap_or(usize::MAX) };
            let end = start.saturating_add(data.len());
            if end > MOST_BYTES {
                return Err(FsError::Full(Lack::Disk));
            }
            content.resize(end.max(content.len()), 0);
            content.splice(start..end, data);
            Ok(())
        })
    }

    async fn stat(&mut self) -> FsResult<Attributes> {
        self.with(|content| Ok(attributes(content.len())))
    }

    async fn set_attributes(&mut self, wanted: &SetAttributes) -> FsResult<()> {
        let size = wanted.size.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        self.with(|content| match size {
            Some(size) if size > MOST_BYTES => Err(FsError::Full(Lack::Disk)),
            Some(size) => {
                content.resize(size, 0);
                Ok(())
            }
            None => Ok(()),
        })
    }

    async fn sync(&mut self) -> FsResult<()> {
        Ok(())
    }

    async fn close(self: Box<Self>) -> FsResult<()> {
        Ok(())
    }
}
