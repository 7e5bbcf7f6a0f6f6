use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use towpath_transfer::FileName;

use super::*;
use crate::{
    files::{FaultFiles, FileFault, FileOp, MemoryFiles, read_whole, write_whole},
    server::{Lack, OpenOptions, Replace, VirtualFile, VirtualListing as _},
};

const WRITE: OpenOptions = OpenOptions { read: true, write: true, append: false, create: true, truncate: true, exclusive: false };
const ROOM: u64 = 20;

#[derive(Debug)]
struct Folder {
    memory: MemoryFiles,
    files: Arc<dyn FileStore>,
    gate: FolderGate,
    used: AtomicU64,
    published: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl UploadFolder for Folder {
    fn files(&self) -> &Arc<dyn FileStore> {
        &self.files
    }

    fn path(&self) -> PathBuf {
        "/in".into()
    }

    fn gate(&self) -> &FolderGate {
        &self.gate
    }

    fn most_files(&self) -> usize {
        3
    }

    fn grow(&self, bytes: u64) -> FsResult<()> {
        let grown = self.used.load(Ordering::SeqCst) + bytes;
        if grown > ROOM {
            return Err(FsError::Full(Lack::Disk));
        }
        self.used.store(grown, Ordering::SeqCst);
        Ok(())
    }

    fn shrink(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
    }

    fn published(&self, name: &FileName) {
        self.published.lock().unwrap().push(name.to_string());
    }
}

fn fixture() -> (Arc<Folder>, Uploads) {
    let memory = MemoryFiles::new();
    memory.create_dir_all(Path::new("/in")).unwrap();
    let files: Arc<dyn FileStore> = Arc::new(memory.clone());
    let folder =
        Arc::new(Folder { memory, files, gate: FolderGate::default(), used: AtomicU64::default(), published: Mutex::default() });
    (Arc::clone(&folder), Uploads::into(folder))
}

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

async fn put(uploads: &Uploads, text: &str, bytes: &'static [u8]) -> FsResult<()> {
    let mut file = uploads.open(name(text), WRITE).await?;
    match file.write_at(0, Bytes::from_static(bytes)).await {
        Ok(()) => file.close().await,
        Err(e) => {
            file.abandon().await;
            Err(e)
        }
    }
}

fn stored(folder: &Folder, text: &str) -> Option<Vec<u8>> {
    read_whole(&folder.memory, &Path::new("/in").join(text), 100).ok()
}

fn used(folder: &Folder) -> u64 {
    folder.used.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_name_appears_whole_and_durable_at_close_and_never_without_it() {
    let (folder, uploads) = fixture();
    let mut file = uploads.open(name("a"), WRITE).await.unwrap();
    file.write_at(0, Bytes::from_static(b"some")).await.unwrap();
    assert_eq!(stored(&folder, "a"), None);
    assert_eq!(file.read_at(1, 2).await.unwrap(), "om");
    file.close().await.unwrap();
    folder.memory.power_loss();
    assert_eq!(stored(&folder, "a").unwrap(), b"some");
    assert_eq!(*folder.published.lock().unwrap(), ["a"]);

    let mut file = uploads.open(name("a"), WRITE).await.unwrap();
    file.write_at(0, Bytes::from_static(b"other bytes")).await.unwrap();
    file.abandon().await;
    assert_eq!((stored(&folder, "a").unwrap(), used(&folder)), (b"some".to_vec(), 4));
}

#[tokio::test]
async fn a_part_stays_and_gets_its_name_by_rename() {
    let (folder, uploads) = fixture();
    let mut file = uploads.open(name("a.part"), WRITE).await.unwrap();
    file.write_at(0, Bytes::from_static(b"begun")).await.unwrap();
    file.abandon().await;
    let resume = OpenOptions { truncate: false, append: true, ..WRITE };
    let mut file = uploads.open(name("a.part"), resume).await.unwrap();
    file.write_at(0, Bytes::from_static(b", ended")).await.unwrap();
    uploads.rename(name("a.part"), name("a"), Replace::Allow).await.unwrap();
    let late = file.write_at(0, Bytes::from_static(b"too late")).await;
    assert!(matches!(late, Err(FsError::Failure(_))), "{late:?}");
    folder.memory.power_loss();
    assert_eq!((stored(&folder, "a").unwrap(), used(&folder)), (b"begun, ended".to_vec(), 12));
    assert_eq!(uploads.rename(name("a"), name("a"), Replace::Refuse).await, Err(FsError::Exists));
    assert_eq!(uploads.rename(name("b"), name("c"), Replace::Allow).await, Err(FsError::NotFound));
}

#[tokio::test]
async fn of_two_writers_the_later_one_has_the_name() {
    let (folder, uploads) = fixture();
    let mut first = uploads.open(name("a"), WRITE).await.unwrap();
    first.write_at(0, Bytes::from_static(b"first")).await.unwrap();
    let mut second = uploads.open(name("a"), WRITE).await.unwrap();
    assert!(first.write_at(5, Bytes::from_static(b"x")).await.is_err());
    assert!(first.close().await.is_err());
    second.write_at(0, Bytes::from_static(b"second")).await.unwrap();
    second.close().await.unwrap();
    assert_eq!((stored(&folder, "a").unwrap(), used(&folder)), (b"second".to_vec(), 6));
}

#[tokio::test]
async fn room_is_taken_and_given_back_to_the_byte() {
    let (folder, uploads) = fixture();
    put(&uploads, "a", b"0123456789").await.unwrap();
    put(&uploads, "b", b"01234").await.unwrap();
    assert_eq!(put(&uploads, "c", b"0123456789").await, Err(FsError::Full(Lack::Disk)));
    assert_eq!(used(&folder), 15);
    put(&uploads, "b", b"012").await.unwrap();
    assert_eq!(used(&folder), 13, "what is replaced gives its room back");
    uploads.rename(name("b"), name("a"), Replace::Allow).await.unwrap();
    assert_eq!(used(&folder), 3);
    uploads.remove(name("a")).await.unwrap();
    assert_eq!((used(&folder), uploads.remove(name("a")).await), (0, Err(FsError::NotFound)));
}

#[tokio::test]
async fn files_are_counted_also_after_a_restart() {
    let (folder, uploads) = fixture();
    for n in ["a", "b", "c"] {
        put(&uploads, n, b"1").await.unwrap();
    }
    assert!(matches!(put(&uploads, "d", b"1").await, Err(FsError::Failure(_))));
    put(&uploads, "c", b"2").await.unwrap();
    let again = Folder {
        memory: folder.memory.clone(),
        files: Arc::clone(&folder.files),
        gate: FolderGate::default(),
        used: AtomicU64::new(3),
        published: Mutex::default(),
    };
    let uploads = Uploads::into(Arc::new(again));
    assert!(matches!(put(&uploads, "d", b"1").await, Err(FsError::Failure(_))));
    uploads.remove(name("a")).await.unwrap();
    put(&uploads, "d", b"1").await.unwrap();
}

#[tokio::test]
async fn readers_and_listings_show_what_a_peer_may_see() {
    let (folder, uploads) = fixture();
    put(&uploads, "a", b"bytes").await.unwrap();
    write_whole(&folder.memory, Path::new("/in/.own"), b"x").unwrap();
    folder.memory.create_dir_all(Path::new("/in/b")).unwrap();
    let mut reader = StoredReader::open(&folder.memory, Path::new("/in/a")).unwrap();
    assert_eq!(reader.read_at(3, 100).await.unwrap(), "es");
    assert_eq!(reader.write_at(0, Bytes::new()).await, Err(FsError::Denied));
    assert_eq!(StoredReader::open(&folder.memory, Path::new("/in/b")).err(), Some(FsError::NotFound));
    let names = async |shows: fn(&str, FileKind) -> bool| {
        let mut listing = StoredListing::new(Arc::clone(&folder.files), "/in".into(), shows);
        let mut names = Vec::new();
        loop {
            let page = listing.next_page(1).await.unwrap();
            if page.is_empty() {
                return names;
            }
            names.extend(page.into_iter().map(|entry| entry.name));
        }
    };
    assert_eq!(names(|name, _| visible_name(name).is_some()).await, ["a", "b"]);
    assert_eq!(names(|_, kind| kind == FileKind::Directory).await, ["b"]);
    let mut fixed = FixedListing::new(&["x", "y"]);
    assert_eq!((fixed.next_page(1).await.unwrap().len(), fixed.next_page(5).await.unwrap().len()), (1, 1));
    assert!(fixed.next_page(5).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_listing_that_has_failed_does_not_look_ended() {
    let (folder, uploads) = fixture();
    for file in ["a", "b"] {
        put(&uploads, file, b"x").await.unwrap();
    }
    let mut pages = 0;
    let plan = move |op: FileOp, _: &Path| {
        pages += usize::from(op == FileOp::List);
        (pages == 3).then_some(FileFault::Before(io::ErrorKind::Other))
    };
    let files = Arc::new(FaultFiles::new(Arc::clone(&folder.files), Box::new(plan)));
    let mut listing = StoredListing::new(files, "/in".into(), |_, _| true);
    assert_eq!(listing.next_page(1).await.unwrap().len(), 1);
    for _ in 0..2 {
        assert!(matches!(listing.next_page(1).await, Err(FsError::Failure(_))));
    }
}

#[test]
fn a_gate_lives_as_long_as_somebody_has_it() {
    let (gates, last) = (Gates::<u32, FolderGate>::default(), LastGate::default());
    let one = gates.of(&1);
    assert!(Arc::ptr_eq(&one, &last.of(&1, &gates)));
    drop(one);
    let kept = Arc::downgrade(&last.of(&1, &gates));
    assert!(kept.upgrade().is_some(), "the last one stays");
    last.of(&2, &gates);
    assert!(kept.upgrade().is_none());
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_is_not_a_folder_that_is_gone() {
    let (folder, _) = fixture();
    let failing = FaultFiles::new(
        folder.files.clone(),
        Box::new(|op, path| (op == FileOp::Stat && path == Path::new("/in")).then_some(FileFault::Before(io::ErrorKind::Other))),
    );
    let (used, published) = (AtomicU64::default(), Mutex::default());
    let folder = Folder { memory: folder.memory.clone(), files: Arc::new(failing), gate: FolderGate::default(), used, published };
    let refused = Uploads::into(Arc::new(folder)).open(name("a.part"), WRITE).await.err();
    assert!(matches!(refused, Some(FsError::Failure(_))), "{refused:?}");
    let (empty, uploads) = fixture();
    empty.memory.remove_dir(Path::new("/in")).unwrap();
    assert_eq!(uploads.open(name("a.part"), WRITE).await.err(), Some(FsError::NotFound));
}
