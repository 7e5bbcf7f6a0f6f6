//! Files in memory that lose at a power loss what was not synced.

mod file;
mod torn;
mod tree;
mod walk;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Component, Path},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use towpath_transfer::Clock;

use self::{
    file::MemoryFile,
    tree::{copy, forget, used},
    walk::MemoryWalk,
};
use super::{FileEntry, FileKind, FileStat, FileStore, FolderWalk, ReadFile, WriteFile};

/// A file system in memory, for tests and the simulation. Clones share it.
///
/// Content becomes durable by [`WriteFile::sync_all`], names by [`FileStore::sync_dir`]; [`MemoryFiles::power_loss`] takes back
/// everything else, as the strictest real file system may.
#[derive(Clone)]
pub struct MemoryFiles {
    shared: Arc<Mutex<State>>,
}

struct State {
    root: Folder,
    /// Handles of an earlier life must not write into this one.
    life: u64,
    limit: Option<u64>,
    clock: Option<Arc<dyn Clock>>,
    /// Held by every open file.
    handles: Arc<()>,
}

#[derive(Clone)]
enum Node {
    File(Content),
    Dir(Folder),
}

type Content = Arc<Mutex<FileData>>;
type Folder = Arc<Mutex<DirData>>;
type Names = BTreeMap<String, Node>;

#[derive(Default)]
struct FileData {
    live: Arc<Vec<u8>>,
    synced: Arc<Vec<u8>>,
    modified: Option<Timestamp>,
}

#[derive(Default)]
struct DirData {
    live: Names,
    synced: Names,
    /// When a name last appeared or went.
    modified: Option<Timestamp>,
}

/// The state's lock is taken first and held through every operation, so that the inner locks are never contended. State is
/// changed in one step, so that a poisoned lock still guards something whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryFiles {
    /// An empty file system that has a root and nothing else, and no limit.
    #[must_use]
    pub fn new() -> Self {
        let state = State { root: Folder::default(), life: 0, limit: None, clock: None, handles: Arc::default() };
        Self { shared: Arc::new(Mutex::new(state)) }
    }

    /// The same, with times of change by `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let files = Self::new();
        lock(&files.shared).clock = Some(clock);
        files
    }

    /// Sets how many bytes all files together may have; writes beyond it fail as on a full disk. `None` lifts the limit.
    pub fn set_space(&self, limit: Option<u64>) {
        lock(&self.shared).limit = limit;
    }

    /// Another file system with everything that is here now, as one has it that a backup of this one was put on: all of it synced.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = lock(&self.shared);
        let (root, clock) = (copy(&state.root), state.clock.clone());
        Self { shared: Arc::new(Mutex::new(State { root, life: 0, limit: state.limit, clock, handles: Arc::default() })) }
    }

    /// The bytes of all files together.
    #[must_use]
    pub fn used(&self) -> u64 {
        used(&lock(&self.shared).root)
    }

    /// How many files are open now.
    #[must_use]
    pub fn open_handles(&self) -> usize {
        Arc::strong_count(&lock(&self.shared).handles) - 1
    }

    /// Forgets every content and every name that was not synced, and breaks every open handle.
    pub fn power_loss(&self) {
        let mut state = lock(&self.shared);
        state.life += 1;
        forget(&state.root);
    }

    /// As [`MemoryFiles::power_loss`], but of what was not synced some is on the disk all the same: each name or not, and each
    /// block of a file's content or not. A name that was moved is never lost in both places. `draw` gives numbers below its limit.
    pub fn torn_power_loss(&self, draw: &mut dyn FnMut(u64) -> u64) {
        let mut state = lock(&self.shared);
        state.life += 1;
        torn::tear(&state.root, draw);
    }
}

impl Default for MemoryFiles {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryFiles")
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<Node> {
        let mut node = Node::Dir(Arc::clone(&self.root));
        for name in names(path)? {
            let Node::Dir(folder) = node else { return Err(io::ErrorKind::NotADirectory.into()) };
            node = lock(&folder).live.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    fn folder(&self, path: &Path) -> io::Result<Folder> {
        match self.find(path)? {
            Node::Dir(folder) => Ok(folder),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The folder that holds, or would hold, the last name of `path`, and that name.
    fn place<'p>(&self, path: &'p Path) -> io::Result<(Folder, &'p str)> {
        let mut parents = names(path)?;
        let name = parents.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut folder = Arc::clone(&self.root);
        for parent in parents {
            let next = lock(&folder).live.get(parent).cloned().ok_or(io::ErrorKind::NotFound)?;
            let Node::Dir(next) = next else { return Err(io::ErrorKind::NotADirectory.into()) };
            folder = next;
        }
        Ok((folder, name))
    }

    fn file(&self, path: &Path, create: bool) -> io::Result<Content> {
        let (folder, name) = self.place(path)?;
        let mut dir = lock(&folder);
        match dir.live.get(name) {
            Some(Node::File(content)) => Ok(Arc::clone(content)),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None if create => {
                let content = Content::default();
                lock(&content).modified = self.now();
                dir.live.insert(name.to_owned(), Node::File(Arc::clone(&content)));
                dir.modified = self.now();
                Ok(content)
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn take_out(&self, folder: &Folder, name: &str) {
        let mut dir = lock(folder);
        dir.live.remove(name);
        dir.modified = self.now();
    }

    fn put_in(&self, folder: &Folder, name: &str, node: Node) {
        let mut dir = lock(folder);
        dir.live.insert(name.to_owned(), node);
        dir.modified = self.now();
    }

    fn now(&self) -> Option<Timestamp> {
        self.clock.as_deref().map(Clock::now)
    }

    fn free(&self) -> u64 {
        self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(used(&self.root)))
    }
}

/// The names from the root down; the prefix of a Windows path and the leading separator are the root.
fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().ok_or(io::ErrorKind::InvalidInput)?),
            Component::ParentDir => return Err(io::ErrorKind::InvalidInput.into()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    Ok(names)
}

impl FileStore for MemoryFiles {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let state = lock(&self.shared);
        let content = state.file(path, true)?;
        let mut data = lock(&content);
        data.live = Arc::default();
        data.modified = state.now();
        drop(data);
        Ok(self.handle(content, &state, 0))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let state = lock(&self.shared);
        let content = state.file(path, false)?;
        Ok(self.handle(content, &state, 0))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let state = lock(&self.shared);
        let content = state.file(path, true)?;
        let end = lock(&content).live.len() as u64;
        Ok(self.handle(content, &state, end))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let state = lock(&self.shared);
        let content = state.file(path, false)?;
        Ok(Box::new(self.open_file(content, &state, 0)))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        Ok(stat_of(&lock(&self.shared).find(path)?))
    }

    fn list(&self, dir: &Path, after: Option<&str>, limit: usize) -> io::Result<Vec<FileEntry>> {
        let state = lock(&self.shared);
        let folder = state.folder(dir)?;
        let entries = lock(&folder);
        let later = entries.live.iter().filter(|(name, _)| after.is_none_or(|after| name.as_str() > after));
        Ok(later.take(limit).map(|(name, node)| FileEntry { name: name.clone(), stat: stat_of(node) }).collect())
    }

    fn walk(&self, dir: &Path) -> io::Result<Box<dyn FolderWalk>> {
        lock(&self.shared).folder(dir)?;
        Ok(Box::new(MemoryWalk::new(self, dir)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = lock(&self.shared);
        let node = state.find(from)?;
        let (target, new) = state.place(to)?;
        if names(to)?.starts_with(&names(from)?) && from != to {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let there = lock(&target).live.get(new).cloned();
        match (&node, &there) {
            (_, None) | (Node::File(_), Some(Node::File(_))) => {}
            (Node::File(_), Some(Node::Dir(_))) => return Err(io::ErrorKind::IsADirectory.into()),
            (Node::Dir(_), Some(Node::File(_))) => return Err(io::ErrorKind::NotADirectory.into()),
            (Node::Dir(_), Some(Node::Dir(old))) if lock(old).live.is_empty() => {}
            (Node::Dir(_), Some(Node::Dir(_))) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
        }
        let (source, old) = state.place(from)?;
        state.take_out(&source, old);
        state.put_in(&target, new, node);
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = lock(&self.shared);
        let Node::File(content) = state.find(from)? else { return Err(io::ErrorKind::IsADirectory.into()) };
        let (target, new) = state.place(to)?;
        let there = lock(&target).live.get(new).cloned();
        match there {
            None => {}
            // A power loss between the syncs of two folders leaves the file in both.
            Some(Node::File(other)) if Arc::ptr_eq(&other, &content) && from != to => {}
            Some(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        }
        let (source, old) = state.place(from)?;
        state.take_out(&source, old);
        state.put_in(&target, new, Node::File(content));
        Ok(())
    }

    fn share(&self, path: &Path, folder: &Path) -> io::Result<()> {
        let state = lock(&self.shared);
        state.folder(folder)?;
        state.file(path, false).map(drop)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let state = lock(&self.shared);
        let (folder, name) = state.place(path)?;
        let there = lock(&folder).live.get(name).cloned();
        match there {
            None => return Err(io::ErrorKind::NotFound.into()),
            Some(Node::Dir(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::File(_)) => state.take_out(&folder, name),
        }
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let state = lock(&self.shared);
        let gone = state.folder(path)?;
        if !lock(&gone).live.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (folder, name) = state.place(path)?;
        state.take_out(&folder, name);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let state = lock(&self.shared);
        state.folder(path)?;
        let (folder, name) = state.place(path)?;
        state.take_out(&folder, name);
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let state = lock(&self.shared);
        let mut folder = Arc::clone(&state.root);
        for name in names(path)? {
            let mut dir = lock(&folder);
            let fresh = || Node::Dir(Arc::new(Mutex::new(DirData { modified: state.now(), ..DirData::default() })));
            let Node::Dir(next) = dir.live.entry(name.to_owned()).or_insert_with(fresh).clone() else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            dir.synced.insert(name.to_owned(), Node::Dir(Arc::clone(&next)));
            drop(dir);
            folder = next;
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let state = lock(&self.shared);
        let folder = state.folder(path)?;
        let mut dir = lock(&folder);
        dir.synced = dir.live.clone();
        Ok(())
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let state = lock(&self.shared);
        state.find(path)?;
        Ok(state.free())
    }
}

impl MemoryFiles {
    fn open_file(&self, content: Content, state: &State, position: u64) -> MemoryFile {
        let (shared, handle) = (Arc::clone(&self.shared), Arc::clone(&state.handles));
        MemoryFile { shared, content, life: state.life, position, _handle: handle }
    }

    fn handle(&self, content: Content, state: &State, position: u64) -> Box<dyn WriteFile> {
        Box::new(self.open_file(content, state, position))
    }
}

fn stat_of(node: &Node) -> FileStat {
    match node {
        Node::Dir(folder) => FileStat { kind: FileKind::Dir, len: 0, modified: lock(folder).modified },
        Node::File(content) => {
            let data = lock(content);
            FileStat { kind: FileKind::File, len: data.live.len() as u64, modified: data.modified }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::files::{publish, read_whole, write_whole};

    fn whole(files: &MemoryFiles, path: &str) -> io::Result<Vec<u8>> {
        read_whole(files, Path::new(path), 1000)
    }

    #[test]
    fn a_copy_has_everything_and_goes_its_own_way() {
        let files = MemoryFiles::new();
        files.create_dir_all(Path::new("/a/b")).unwrap();
        files.create(Path::new("/a/b/unsynced")).unwrap().write_all(b"x").unwrap();
        let copy = files.copy();
        write_whole(&files, Path::new("/a/b/unsynced"), b"later").unwrap();
        write_whole(&copy, Path::new("/a/own"), b"y").unwrap();
        copy.power_loss();
        assert_eq!(whole(&copy, "/a/b/unsynced").unwrap(), b"x");
        assert_eq!(whole(&copy, "/a/own").unwrap(), b"y");
        assert_eq!(whole(&files, "/a/b/unsynced").unwrap(), b"later");
        assert!(whole(&files, "/a/own").is_err());
    }

    #[test]
    fn open_files_are_counted_until_they_are_closed() {
        let files = MemoryFiles::new();
        let (written, read) = (files.create(Path::new("/a")).unwrap(), files.open(Path::new("/a")).unwrap());
        assert_eq!((files.open_handles(), files.copy().open_handles()), (2, 0));
        files.power_loss();
        drop(written);
        assert_eq!(files.open_handles(), 1);
        drop(read);
        assert_eq!(files.open_handles(), 0);
    }

    #[test]
    fn a_power_loss_takes_what_was_not_synced() {
        let files = MemoryFiles::new();
        files.create_dir_all(Path::new("/a/b")).unwrap();
        let mut lost = files.create(Path::new("/a/b/lost")).unwrap();
        lost.write_all(b"x").unwrap();
        lost.sync_all().unwrap();
        let mut hollow = files.create(Path::new("/a/hollow")).unwrap();
        hollow.write_all(b"not synced").unwrap();
        files.sync_dir(Path::new("/a")).unwrap();
        files.power_loss();
        assert_eq!(whole(&files, "/a/b/lost").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(whole(&files, "/a/hollow").unwrap(), b"");
        assert!(hollow.write_all(b"x").is_err() && lost.sync_all().is_err());
        assert!(files.stat(Path::new("/a/b")).is_ok());
    }

    #[test]
    fn an_unsynced_rename_is_undone_and_a_published_file_stays() {
        let files = MemoryFiles::new();
        write_whole(&files, Path::new("/old"), b"old").unwrap();
        write_whole(&files, Path::new("/new"), b"new").unwrap();
        files.rename(Path::new("/new"), Path::new("/old")).unwrap();
        assert_eq!(whole(&files, "/old").unwrap(), b"new");
        files.power_loss();
        assert_eq!((whole(&files, "/old").unwrap(), whole(&files, "/new").unwrap()), (b"old".to_vec(), b"new".to_vec()));
        publish(&files, Path::new("/new"), Path::new("/old")).unwrap();
        files.power_loss();
        assert_eq!(whole(&files, "/old").unwrap(), b"new");
        assert!(whole(&files, "/new").is_err());
    }

    #[test]
    fn a_file_that_a_power_loss_has_left_in_two_folders_is_renamed_once() {
        let files = MemoryFiles::new();
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        files.create_dir_all(a).unwrap();
        files.create_dir_all(b).unwrap();
        write_whole(&files, &a.join("f"), b"x").unwrap();
        files.rename_new(&a.join("f"), &b.join("f")).unwrap();
        files.sync_dir(b).unwrap();
        files.power_loss();
        assert!(whole(&files, "/a/f").is_ok() && whole(&files, "/b/f").is_ok());
        files.rename_new(&a.join("f"), &b.join("f")).unwrap();
        assert!(whole(&files, "/a/f").is_err() && whole(&files, "/b/f").is_ok());
    }

    #[test]
    fn an_unsynced_removal_comes_back() {
        let files = MemoryFiles::new();
        write_whole(&files, Path::new("/kept"), b"x").unwrap();
        files.remove(Path::new("/kept")).unwrap();
        files.power_loss();
        assert_eq!(whole(&files, "/kept").unwrap(), b"x");
    }

    #[test]
    fn a_full_disk_refuses_and_recovers() {
        let files = MemoryFiles::new();
        files.set_space(Some(10));
        write_whole(&files, Path::new("/six"), b"123456").unwrap();
        assert_eq!(files.free_space(Path::new("/")).unwrap(), 4);
        let refused = write_whole(&files, Path::new("/five"), b"12345").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(files.list(Path::new("/"), None, 10).unwrap().len(), 1);
        files.set_space(None);
        write_whole(&files, Path::new("/five"), b"12345").unwrap();
    }
}
