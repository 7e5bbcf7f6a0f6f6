//! A power loss in the middle of whatever was under way: some of what was not synced is on the disk all the same.

use std::{collections::BTreeSet, sync::Arc};

use super::{Content, Folder, Names, Node, lock};

/// What a disk writes whole or not at all, in bytes.
const BLOCK: usize = 512;

type Draw<'a> = &'a mut dyn FnMut(u64) -> u64;

/// Which node it is, wherever its name is.
fn identity(node: &Node) -> usize {
    match node {
        Node::File(content) => Arc::as_ptr(content).addr(),
        Node::Dir(folder) => Arc::as_ptr(folder).cast::<u8>().addr(),
    }
}

/// Leaves of everything below `root` what the draws say.
pub(super) fn tear(root: &Folder, draw: Draw<'_>) {
    let mut live = BTreeSet::new();
    gather(root, &mut live);
    keep_names(root, draw);
    let mut kept = BTreeSet::new();
    gather_kept(root, &mut kept);
    drop_names(root, &live, &kept, draw);
    settle(root, draw);
}

fn gather(folder: &Folder, found: &mut BTreeSet<usize>) {
    for node in lock(folder).live.values() {
        found.insert(identity(node));
        if let Node::Dir(below) = node {
            gather(below, found);
        }
    }
}

/// Every node that has a name on the disk where it has one in memory: after [`keep_names`] these names stay.
fn gather_kept(folder: &Folder, found: &mut BTreeSet<usize>) {
    let dir = lock(folder);
    for (name, node) in &dir.synced {
        if dir.live.get(name).is_some_and(|live| identity(live) == identity(node)) {
            found.insert(identity(node));
        }
        if let Node::Dir(below) = node {
            gather_kept(below, found);
        }
    }
}

/// Puts some of the new names on the disk. A new folder is looked into only where its name is there.
fn keep_names(folder: &Folder, draw: Draw<'_>) {
    let mut dir = lock(folder);
    let is_new = |name: &String, node: &Node, synced: &Names| synced.get(name).is_none_or(|old| identity(old) != identity(node));
    let new: Vec<(String, Node)> = dir
        .live
        .iter()
        .filter(|(name, node)| is_new(name, node, &dir.synced))
        .map(|(n, node)| (n.clone(), node.clone()))
        .collect();
    for (name, node) in new {
        if draw(2) == 1 {
            dir.synced.insert(name, node);
        }
    }
    for node in dir.synced.values() {
        if let Node::Dir(below) = node {
            keep_names(below, draw);
        }
    }
}

/// Takes some of the names that are gone off the disk, but none of a node that has moved and would then have no name.
fn drop_names(folder: &Folder, live: &BTreeSet<usize>, kept: &BTreeSet<usize>, draw: Draw<'_>) {
    let mut dir = lock(folder);
    let gone: Vec<(String, usize)> = dir
        .synced
        .iter()
        .filter(|(name, node)| dir.live.get(*name).is_none_or(|live| identity(live) != identity(node)))
        .map(|(name, node)| (name.clone(), identity(node)))
        .collect();
    for (name, node) in gone {
        // A name that another node has in memory was kept for its old one; that is settled.
        let replaced = dir.live.contains_key(&name);
        let has_moved = live.contains(&node) && !kept.contains(&node);
        if !replaced && !has_moved && draw(2) == 1 {
            dir.synced.remove(&name);
        }
    }
    for node in dir.synced.values() {
        if let Node::Dir(below) = node {
            drop_names(below, live, kept, draw);
        }
    }
}

/// What is on the disk is what there is.
fn settle(folder: &Folder, draw: Draw<'_>) {
    let mut dir = lock(folder);
    dir.live = dir.synced.clone();
    for node in dir.live.values() {
        match node {
            Node::Dir(below) => settle(below, draw),
            Node::File(content) => tear_content(content, draw),
        }
    }
}

fn tear_content(content: &Content, draw: Draw<'_>) {
    let mut data = lock(content);
    if Arc::ptr_eq(&data.live, &data.synced) || data.live == data.synced {
        data.live = Arc::clone(&data.synced);
        return;
    }
    let lengths = [data.synced.len(), data.live.len()];
    let length = lengths.get(usize::try_from(draw(2)).unwrap_or(0)).copied().unwrap_or(0);
    let mut torn = Vec::with_capacity(length);
    while torn.len() < length {
        let end = length.min(torn.len() + BLOCK);
        let from = if draw(2) == 1 { &data.live } else { &data.synced };
        // Beyond the end of what was written there are zeros.
        torn.extend((torn.len()..end).map(|at| from.get(at).copied().unwrap_or(0)));
    }
    data.live = Arc::new(torn);
    data.synced = Arc::clone(&data.live);
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io::Write as _, path::Path};

    use super::super::MemoryFiles;
    use crate::files::{FileStore as _, read_whole, write_whole};

    /// All that can be left, over many draws.
    fn outcomes(prepare: impl Fn(&MemoryFiles), look: impl Fn(&MemoryFiles) -> String) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for seed in 0u64..64 {
            let files = MemoryFiles::new();
            prepare(&files);
            let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            files.torn_power_loss(&mut |limit| {
                bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (bits >> 33) % limit
            });
            found.insert(look(&files));
        }
        found
    }

    fn there(files: &MemoryFiles, paths: &[&str]) -> String {
        paths.iter().map(|path| if files.stat(Path::new(path)).is_ok() { 'x' } else { '-' }).collect()
    }

    #[test]
    fn what_was_synced_stays_and_each_new_name_is_there_or_not() {
        let found = outcomes(
            |files| {
                write_whole(files, Path::new("/kept"), b"k").unwrap();
                files.create(Path::new("/a")).unwrap();
                files.create(Path::new("/b")).unwrap();
            },
            |files| there(files, &["/kept", "/a", "/b"]),
        );
        assert_eq!(found, ["x--", "x-x", "xx-", "xxx"].map(str::to_owned).into());
    }

    #[test]
    fn a_moved_file_is_in_one_place_or_in_both_and_never_in_neither() {
        let found = outcomes(
            |files| {
                files.create_dir_all(Path::new("/from")).unwrap();
                files.create_dir_all(Path::new("/to")).unwrap();
                write_whole(files, Path::new("/from/f"), b"k").unwrap();
                files.rename(Path::new("/from/f"), Path::new("/to/f")).unwrap();
            },
            |files| there(files, &["/from/f", "/to/f"]),
        );
        assert_eq!(found, ["x-", "-x", "xx"].map(str::to_owned).into());
    }

    #[test]
    fn a_removed_name_may_come_back() {
        let found = outcomes(
            |files| {
                write_whole(files, Path::new("/f"), b"k").unwrap();
                files.remove(Path::new("/f")).unwrap();
            },
            |files| there(files, &["/f"]),
        );
        assert_eq!(found, ["-", "x"].map(str::to_owned).into());
    }

    #[test]
    fn unsynced_content_is_torn_block_by_block_and_synced_content_never() {
        let content = |files: &MemoryFiles, path| read_whole(files, Path::new(path), 10_000).unwrap();
        let found = outcomes(
            |files| {
                write_whole(files, Path::new("/whole"), &[7; 1_024]).unwrap();
                write_whole(files, Path::new("/f"), &[1; 1_024]).unwrap();
                files.open_write(Path::new("/f")).unwrap().write_all(&[2; 1_536]).unwrap();
            },
            |files| {
                assert_eq!(content(files, "/whole"), [7; 1_024]);
                content(files, "/f").chunks(512).map(|block| block.first().unwrap().to_string()).collect()
            },
        );
        assert!(["11", "12", "21", "22", "110", "222"].iter().all(|one| found.contains(*one)), "{found:?}");
    }
}
