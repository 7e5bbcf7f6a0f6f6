//! What is done with everything below a folder.

use std::sync::{Arc, Mutex};

use super::{DirData, FileData, Folder, Names, Node, lock};

/// Everything below a folder once more, all of it synced.
pub(super) fn copy(folder: &Folder) -> Folder {
    let node = |node: &Node| match node {
        Node::Dir(below) => Node::Dir(copy(below)),
        Node::File(content) => {
            let data = lock(content);
            let (live, synced) = (Arc::clone(&data.live), Arc::clone(&data.live));
            Node::File(Arc::new(Mutex::new(FileData { live, synced, modified: data.modified })))
        }
    };
    let dir = lock(folder);
    let live: Names = dir.live.iter().map(|(name, below)| (name.clone(), node(below))).collect();
    Arc::new(Mutex::new(DirData { synced: live.clone(), live, modified: dir.modified }))
}

/// Forgets everything below a folder that was not synced.
pub(super) fn forget(folder: &Folder) {
    let mut dir = lock(folder);
    dir.live = dir.synced.clone();
    for node in dir.live.values() {
        match node {
            Node::Dir(below) => forget(below),
            Node::File(content) => {
                let mut data = lock(content);
                data.live = Arc::clone(&data.synced);
            }
        }
    }
}

/// The bytes of all files below a folder.
pub(super) fn used(folder: &Folder) -> u64 {
    let size = |node: &Node| match node {
        Node::Dir(below) => used(below),
        Node::File(content) => lock(content).live.len() as u64,
    };
    lock(folder).live.values().map(size).sum()
}
