//! What every [`FileStore`] does, run over the disk, the disk below a root, and memory.

use std::{
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    path::Path,
};

use super::*;

fn over_all(check: impl Fn(&dyn FileStore, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    check(&Disk, dir.path());
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    check(&*disk_below(dir.path()).unwrap(), &root);
    let memory = MemoryFiles::new();
    memory.create_dir_all(Path::new("/root")).unwrap();
    check(&memory, Path::new("/root"));
}

fn text(store: &dyn FileStore, path: &Path) -> String {
    String::from_utf8(read_whole(store, path, 1000).unwrap()).unwrap()
}

#[test]
fn create_empties_append_continues_and_open_write_keeps() {
    over_all(|store, root| {
        let path = root.join("f");
        store.create(&path).unwrap().write_all(b"first, long").unwrap();
        store.create(&path).unwrap().write_all(b"12").unwrap();
        store.open_append(&path).unwrap().write_all(b"345").unwrap();
        store.open_write(&path).unwrap().write_all(b"x").unwrap();
        assert_eq!(text(store, &path), "x2345");
        let mut file = store.open_append(&path).unwrap();
        file.set_len(3).unwrap();
        file.seek(SeekFrom::Start(1)).unwrap();
        file.write_all(b"y").unwrap();
        file.sync_all().unwrap();
        assert_eq!(text(store, &path), "xy3");
        store.open_append(&root.join("fresh")).unwrap().write_all(b"z").unwrap();
        assert_eq!(text(store, &root.join("fresh")), "z");
        assert_eq!(store.open_write(&root.join("none")).err().unwrap().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_gap_reads_as_zeros_and_reading_seeks() {
    over_all(|store, root| {
        let path = root.join("f");
        let mut file = store.create(&path).unwrap();
        file.seek(SeekFrom::Start(3)).unwrap();
        file.write_all(b"end").unwrap();
        let mut reader = store.open(&path).unwrap();
        assert_eq!((reader.len().unwrap(), reader.is_empty().unwrap()), (6, false));
        reader.seek(SeekFrom::End(-4)).unwrap();
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "\0end");
    });
}

#[test]
fn missing_things_are_not_found_and_folders_are_not_files() {
    over_all(|store, root| {
        let none = root.join("none");
        assert_eq!(store.open(&none).err().unwrap().kind(), ErrorKind::NotFound);
        assert_eq!(store.stat(&none).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.list(&none, None, 1).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.remove(&none).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.remove_dir(&none).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.remove_dir_all(&none).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.rename(&none, &root.join("x")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.create(&none.join("f")).err().unwrap().kind(), ErrorKind::NotFound);
        assert_eq!(store.free_space(&none).unwrap_err().kind(), ErrorKind::NotFound);
        ignore_missing(store.remove(&none)).unwrap();
        assert!(store.open(root).is_err() && store.create(root).is_err());
    });
}

#[test]
fn listing_is_sorted_paged_and_bounded() {
    over_all(|store, root| {
        for name in ["c", "a", "d", "E"] {
            write_whole(store, &root.join(name), name.as_bytes()).unwrap();
        }
        store.create_dir_all(&root.join("b")).unwrap();
        let names = |after, limit| -> Vec<String> {
            store.list(root, after, limit).unwrap().into_iter().map(|entry| entry.name).collect()
        };
        assert_eq!(names(None, 3), ["E", "a", "b"]);
        assert_eq!(names(Some("b"), 3), ["c", "d"]);
        assert!(names(None, 0).is_empty());
        let kinds: Vec<FileKind> = store.list(root, Some("a"), 2).unwrap().iter().map(|e| e.stat.kind).collect();
        assert_eq!(kinds, [FileKind::Dir, FileKind::File]);
        assert_eq!(store.stat(&root.join("c")).unwrap().len, 1);
    });
}

#[test]
fn a_walk_gives_every_name_once_and_keeps_its_place() {
    over_all(|store, root| {
        assert_eq!(store.walk(&root.join("none")).err().unwrap().kind(), ErrorKind::NotFound);
        for n in 0..25 {
            write_whole(store, &root.join(format!("f{n}")), b"12").unwrap();
        }
        store.create_dir_all(&root.join("folder")).unwrap();
        let mut walk = store.walk(root).unwrap();
        let mut found = Vec::new();
        loop {
            let page = walk.next(7).unwrap();
            assert!(page.len() <= 7);
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert!(walk.next(0).unwrap().is_empty(), "the end stays the end");
        found.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(found, store.list(root, None, 100).unwrap());
        // Somebody else may take names away between two pages.
        let mut walk = store.walk(root).unwrap();
        let first = walk.next(1).unwrap().remove(0).name;
        for entry in found.iter().filter(|entry| entry.stat.kind == FileKind::File) {
            store.remove(&root.join(&entry.name)).unwrap();
        }
        while let Some(entry) = walk.next(1).unwrap().pop() {
            assert_ne!(entry.name, first);
        }
    });
}

#[test]
fn rename_replaces_files_and_moves_folders() {
    over_all(|store, root| {
        write_whole(store, &root.join("a"), b"a").unwrap();
        write_whole(store, &root.join("b"), b"b").unwrap();
        store.rename(&root.join("a"), &root.join("b")).unwrap();
        assert_eq!(text(store, &root.join("b")), "a");
        store.create_dir_all(&root.join("d/e")).unwrap();
        write_whole(store, &root.join("d/e/f"), b"deep").unwrap();
        store.rename(&root.join("d"), &root.join("g")).unwrap();
        assert_eq!(text(store, &root.join("g/e/f")), "deep");
        assert!(store.rename(&root.join("g"), &root.join("g/e/h")).is_err());
        assert_eq!(publish(store, &root.join("b"), &root.join("g/b")).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_rename_to_a_free_name_replaces_nothing() {
    over_all(|store, root| {
        let (hidden, folder) = (root.join("hidden"), root.join("folder"));
        store.create_dir_all(&hidden).unwrap();
        store.create_dir_all(&folder.join("d")).unwrap();
        write_whole(store, &hidden.join("a"), b"a").unwrap();
        write_whole(store, &folder.join("taken"), b"there").unwrap();
        for taken in ["taken", "d"] {
            let refused = store.rename_new(&hidden.join("a"), &folder.join(taken)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        }
        assert_eq!(text(store, &folder.join("taken")), "there");
        store.rename_new(&hidden.join("a"), &folder.join("free")).unwrap();
        store.share(&folder.join("free"), &folder).unwrap();
        assert_eq!(text(store, &folder.join("free")), "a");
        assert_eq!(store.stat(&hidden.join("a")).unwrap_err().kind(), ErrorKind::NotFound);
        let missing = |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::NotFound);
        missing(store.rename_new(&hidden.join("a"), &folder.join("other")));
        missing(store.rename_new(&folder.join("free"), &root.join("none/other")));
        missing(store.share(&hidden.join("a"), &folder));
        missing(store.share(&folder.join("free"), &root.join("none")));
    });
}

#[test]
fn folders_are_made_whole_and_removed_only_empty_or_on_purpose() {
    over_all(|store, root| {
        let deep = root.join("x/y/z");
        store.create_dir_all(&deep).unwrap();
        store.create_dir_all(&deep).unwrap();
        store.sync_dir(&deep).unwrap();
        write_whole(store, &deep.join("f"), b"f").unwrap();
        assert!(store.create_dir_all(&deep.join("f/g")).is_err() && store.create_dir_all(&deep.join("f")).is_err());
        assert_eq!(store.remove_dir(&deep).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
        assert!(store.remove(&deep).is_err());
        store.remove(&deep.join("f")).unwrap();
        store.remove_dir(&deep).unwrap();
        store.remove_dir_all(&root.join("x")).unwrap();
        assert!(store.list(root, None, 10).unwrap().is_empty());
    });
}

#[test]
fn whole_files_have_a_limit_and_leave_no_temporary_name() {
    over_all(|store, root| {
        let path = root.join("f");
        write_whole(store, &path, b"12345").unwrap();
        assert_eq!(read_whole(store, &path, 5).unwrap(), b"12345");
        assert_eq!(read_whole(store, &path, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(store.list(root, None, 10).unwrap().len(), 1);
        assert!(store.free_space(root).unwrap() > 0);
    });
}

#[test]
fn a_failure_carries_its_code() {
    let code = |kind: ErrorKind| {
        let failure = file_failure("writing", Path::new("/x"), kind.into());
        assert_eq!(failure.message(), "writing /x");
        (failure.code(), failure.disposition())
    };
    use towpath_transfer::Disposition::{Park, Retry};
    assert_eq!(code(ErrorKind::StorageFull), (Code::DiskFull, Retry));
    assert_eq!(code(ErrorKind::PermissionDenied), (Code::FileFailed, Park));
    assert_eq!(code(ErrorKind::NotFound), (Code::FileFailed, Retry));
}
