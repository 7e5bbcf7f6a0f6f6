//! What every [`RemoteStore`] does, whatever is behind it.
//!
//! Each check works below a folder of its own, so that they can run over a server that is shared.

use std::{error::Error, sync::Arc};

use towpath_transfer::RemotePath;

use super::{BytesSource, NoProgress, Progress, Put, RemoteStore, StoreErrorKind, StoreResult, read_remote};
use crate::files::FileKind;

/// What a check ends with; an assertion that fails panics.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// The store under test.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The store.
    pub store: Arc<dyn RemoteStore>,
    /// An existing folder that the checks may fill.
    pub base: RemotePath,
}

impl Subject {
    async fn folder(&self, name: &str) -> Result<Folder, Box<dyn Error + Send + Sync>> {
        let dir = self.base.clone().join(name.parse()?)?;
        self.store.make_dir_all(&dir).await?;
        Ok(Folder { store: Arc::clone(&self.store), dir })
    }
}

struct Folder {
    store: Arc<dyn RemoteStore>,
    dir: RemotePath,
}

impl Folder {
    fn at(&self, name: &str) -> Result<RemotePath, Box<dyn Error + Send + Sync>> {
        Ok(self.dir.clone().join(name.parse()?)?)
    }

    async fn put(&self, path: &RemotePath, bytes: &[u8]) -> StoreResult<Put> {
        self.store.put_new(path, BytesSource::new(bytes.to_vec()), &NoProgress).await
    }

    async fn read(&self, path: &RemotePath) -> StoreResult<Vec<u8>> {
        read_remote(self.store.as_ref(), path, 64 * 1024 * 1024).await
    }
}

/// Bytes that differ from place to place.
#[must_use]
pub fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()
    };
    let mut bytes = Vec::with_capacity(len.saturating_add(4));
    while bytes.len() < len {
        bytes.extend_from_slice(&next());
    }
    bytes.truncate(len);
    bytes
}

fn kind<T>(result: StoreResult<T>) -> Option<StoreErrorKind> {
    result.err().map(|error| error.kind())
}

/// Runs every check.
///
/// # Errors
/// The first operation that fails where it must not.
pub async fn all(subject: &Subject) -> Outcome {
    every_size_travels_both_ways(subject).await?;
    a_part_is_resumed_or_rewritten(subject).await?;
    publish_replaces_and_repeats(subject).await?;
    missing_things_are_not_found(subject).await?;
    listing_is_sorted_and_bounded(subject).await?;
    folders_come_and_go(subject).await?;
    reading_starts_anywhere_and_stops_any_time(subject).await?;
    progress_grows_to_the_whole(subject).await?;
    many_at_once(subject).await
}

async fn every_size_travels_both_ways(subject: &Subject) -> Outcome {
    let folder = subject.folder("sizes").await?;
    for len in [0, 1, 32_767, 32_768, 32_769, 262_144, 3_000_001] {
        let (part, name) = (folder.at(&format!("{len}.part"))?, folder.at(&format!("{len}"))?);
        let bytes = pattern(len, 1);
        assert_eq!(folder.put(&part, &bytes).await?, Put { size: len as u64, resumed_from: 0 });
        folder.store.publish(&part, &name).await?;
        assert_eq!(folder.store.stat(&name).await?.size, len as u64);
        assert!(folder.read(&name).await? == bytes, "{len} bytes came back changed");
        assert_eq!(kind(folder.store.stat(&part).await), Some(StoreErrorKind::NotFound));
    }
    Ok(())
}

async fn a_part_is_resumed_or_rewritten(subject: &Subject) -> Outcome {
    let folder = subject.folder("resume").await?;
    let part = folder.at("f.part")?;
    let whole = pattern(200_000, 2);
    let (beginning, _) = whole.split_at(100_000);
    folder.put(&part, beginning).await?;
    assert_eq!(folder.put(&part, &whole).await?, Put { size: 200_000, resumed_from: 100_000 });
    assert_eq!(folder.put(&part, &whole).await?, Put { size: 200_000, resumed_from: 200_000 }, "nothing is sent twice");
    assert!(folder.read(&part).await? == whole);
    assert_eq!(folder.put(&part, beginning).await?.resumed_from, 0, "a longer part is written anew");
    assert!(folder.read(&part).await? == beginning);
    let other = pattern(200_000, 3);
    assert_eq!(folder.put(&part, &other).await?.resumed_from, 0, "a wrong prefix is written anew");
    assert!(folder.read(&part).await? == other);
    Ok(())
}

async fn publish_replaces_and_repeats(subject: &Subject) -> Outcome {
    let folder = subject.folder("publish").await?;
    let (part, name) = (folder.at("f.part")?, folder.at("f")?);
    for text in [b"first", b"again"] {
        folder.put(&part, text).await?;
        folder.store.publish(&part, &name).await?;
        folder.store.publish(&part, &name).await?;
        assert_eq!(folder.read(&name).await?, text);
    }
    let none = (folder.at("none.part")?, folder.at("none")?);
    assert_eq!(kind(folder.store.publish(&none.0, &none.1).await), Some(StoreErrorKind::NotFound));
    Ok(())
}

async fn missing_things_are_not_found(subject: &Subject) -> Outcome {
    let folder = subject.folder("missing").await?;
    let (none, below) = (folder.at("none")?, folder.at("none")?.join("f".parse()?)?);
    let not_found = Some(StoreErrorKind::NotFound);
    assert_eq!(kind(folder.store.stat(&none).await), not_found);
    assert_eq!(kind(folder.store.stat(&below).await), not_found);
    assert_eq!(kind(folder.store.open(&none, 0).await), not_found);
    assert_eq!(kind(folder.store.list(&none, 10).await), not_found);
    assert_eq!(kind(folder.put(&below, b"x").await), not_found);
    folder.store.remove(&none).await?;
    folder.store.remove_dir(&none).await?;
    Ok(())
}

async fn listing_is_sorted_and_bounded(subject: &Subject) -> Outcome {
    let folder = subject.folder("list").await?;
    assert!(folder.store.list(&folder.dir, 0).await?.is_empty());
    for name in ["c", "a", "grün", "B"] {
        folder.put(&folder.at(name)?, name.as_bytes()).await?;
    }
    folder.store.make_dir_all(&folder.at("d")?).await?;
    let entries = folder.store.list(&folder.dir, 5).await?;
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["B", "a", "c", "d", "grün"]);
    let kinds: Vec<FileKind> = entries.iter().map(|entry| entry.stat.kind).collect();
    assert_eq!(kinds, [FileKind::File, FileKind::File, FileKind::File, FileKind::Dir, FileKind::File]);
    assert_eq!(entries.last().map(|entry| entry.stat.size), Some("grün".len() as u64));
    assert_eq!(kind(folder.store.list(&folder.dir, 4).await), Some(StoreErrorKind::Limit));
    Ok(())
}

async fn folders_come_and_go(subject: &Subject) -> Outcome {
    let folder = subject.folder("folders").await?;
    let deep = folder.at("a")?.join("b".parse()?)?.join("c".parse()?)?;
    folder.store.make_dir_all(&deep).await?;
    folder.store.make_dir_all(&deep).await?;
    assert_eq!(folder.store.stat(&deep).await?.kind, FileKind::Dir);
    let file = deep.clone().join("f".parse()?)?;
    folder.put(&file, b"x").await?;
    assert!(folder.store.make_dir_all(&file).await.is_err(), "a file is in the way");
    assert!(folder.store.remove_dir(&deep).await.is_err(), "the folder is not empty");
    folder.store.remove(&file).await?;
    folder.store.remove(&file).await?;
    folder.store.remove_dir(&deep).await?;
    folder.store.remove_dir(&deep).await?;
    assert_eq!(kind(folder.store.stat(&deep).await), Some(StoreErrorKind::NotFound));
    Ok(())
}

async fn reading_starts_anywhere_and_stops_any_time(subject: &Subject) -> Outcome {
    let folder = subject.folder("read").await?;
    let path = folder.at("f")?;
    let bytes = pattern(1_000_000, 4);
    folder.put(&path, &bytes).await?;
    for offset in [0usize, 1, 32_768, 999_999, 1_000_000, 2_000_000] {
        let mut reader = folder.store.open(&path, offset as u64).await?;
        let mut got = Vec::new();
        while let Some(chunk) = reader.next().await? {
            assert!(!chunk.is_empty());
            got.extend_from_slice(&chunk);
        }
        assert!(got == bytes.get(offset..).unwrap_or_default(), "from {offset} on the bytes differ");
        assert!(reader.next().await?.is_none(), "the end stays the end");
    }
    // More abandoned readers than a server allows open handles.
    for _ in 0..150 {
        let mut reader = folder.store.open(&path, 0).await?;
        assert!(reader.next().await?.is_some());
    }
    Ok(())
}

async fn progress_grows_to_the_whole(subject: &Subject) -> Outcome {
    #[derive(Default)]
    struct Seen(std::sync::Mutex<Vec<(u64, u64)>>);
    impl Progress for Seen {
        fn advanced(&self, done: u64, total: u64) {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((done, total));
        }
    }
    let folder = subject.folder("progress").await?;
    let seen = Seen::default();
    folder.store.put_new(&folder.at("f")?, BytesSource::new(pattern(500_000, 5)), &seen).await?;
    let seen = seen.0.into_inner()?;
    assert!(seen.is_sorted() && seen.iter().all(|(_, total)| *total == 500_000));
    assert!(seen.len() > 4, "progress is told on the way");
    assert_eq!(seen.last(), Some(&(500_000, 500_000)));
    Ok(())
}

async fn many_at_once(subject: &Subject) -> Outcome {
    let folder = subject.folder("many").await?;
    let jobs = (0..20u32).map(|n| {
        let folder = &folder;
        async move {
            let (part, name) = (folder.at(&format!("{n}.part"))?, folder.at(&format!("{n}"))?);
            let bytes = pattern(100_000 + n as usize, n);
            folder.put(&part, &bytes).await?;
            folder.store.publish(&part, &name).await?;
            assert!(folder.read(&name).await? == bytes, "file {n} came back changed");
            Outcome::Ok(())
        }
    });
    futures::future::try_join_all(jobs).await?;
    assert_eq!(folder.store.list(&folder.dir, 20).await?.len(), 20);
    Ok(())
}
