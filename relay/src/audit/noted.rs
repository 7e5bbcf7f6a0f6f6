//! The head of the trail, noted beside the database. A registry that was put back from a backup has a trail that is shorter but whole;
//! what was noted here, and nobody puts back, tells that its end is gone.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use towpath_transfer::{Clock, Code, Failure, failure::Result};
use towpath_transport::files::{FileStore, file_failure, read_if_there, write_whole};

use super::{Action, Entry, Who, chain::Link};
use crate::{registry::Registry, spool::blocking};

const NAME: &str = "audit-head";
/// A hash, a number and a line feed are shorter.
const MAX_HEAD_BYTES: u64 = 200;

/// The note.
#[derive(Debug, Clone)]
pub struct NotedHead {
    files: Arc<dyn FileStore>,
    path: PathBuf,
    clock: Arc<dyn Clock>,
}

/// How a noted head stands to the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The trail goes through it, or begins later.
    Held,
    /// It is not there, or another row is. The trail ends with this row.
    Lost(i64),
}

impl NotedHead {
    /// The note in the folder `state`.
    #[must_use]
    pub fn new(files: Arc<dyn FileStore>, state: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { files, path: state.join(NAME), clock }
    }

    /// What is noted; nothing before the relay has run for the first time.
    ///
    /// # Errors
    /// [`Code::FileFailed`]; [`Code::AuditBroken`] where the file does not hold a head.
    pub async fn read(&self) -> Result<Option<Link>> {
        let (files, path) = (Arc::clone(&self.files), self.path.clone());
        let bytes = blocking(move || read_if_there(&*files, &path, MAX_HEAD_BYTES)).await?;
        let Some(bytes) = bytes.map_err(|e| file_failure("read", &self.path, e))? else { return Ok(None) };
        let parsed = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_ascii().parse().ok());
        let unreadable = || Failure::park(Code::AuditBroken, format!("{} does not hold a head", self.path.display()));
        parsed.map(Some).ok_or_else(unreadable)
    }

    /// Notes the trail's end of now. Where it does not go through the end that was noted before, the log and the trail itself say so
    /// first, once, and true is returned.
    ///
    /// # Errors
    /// [`Code::FileFailed`], [`Code::DiskFull`].
    pub async fn follow(&self, registry: &Registry) -> Result<bool> {
        // In this order: rows that come meanwhile are behind what was noted.
        let noted = self.read().await;
        let lost = match &noted {
            Ok(None) => None,
            Ok(Some(link)) => match registry.audit_standing(*link).await? {
                Standing::Held => None,
                Standing::Lost(end) => {
                    Some(format!("row {} {} is not there; the trail ended with row {end}", link.id, link.hash))
                }
            },
            Err(failure) if failure.code() == Code::AuditBroken => {
                Some("what was noted beside the database is no head".to_owned())
            }
            Err(_) => return noted.map(|_| false),
        };
        if let Some(lost) = &lost {
            tracing::error!(
                code = %Code::RelayRestored, lost,
                "rows of the audit trail are gone: the registry was put back from a backup, or somebody has cut them off"
            );
            let entry = Entry::new(self.clock.now(), Who::relay(), Action::Lost).detail(lost);
            registry.audit_append(&[entry.failed(Code::RelayRestored)]).await?;
        }
        let head = registry.audit_head().await?;
        if noted.is_ok_and(|noted| noted != Some(head)) || lost.is_some() {
            let (files, path) = (Arc::clone(&self.files), self.path.clone());
            let text = format!("{head}\n");
            blocking(move || write_whole(&*files, &path, text.as_bytes()).map_err(|e| file_failure("write", &path, e))).await??;
        }
        Ok(lost.is_some())
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::digest::Sha256Digest;
    use towpath_transport::files::MemoryFiles;

    use super::*;
    use crate::{registry::AuditFilter, service::tests::World};

    struct Scene {
        world: World,
        files: MemoryFiles,
        noted: NotedHead,
    }

    impl Scene {
        async fn new() -> Self {
            let (world, files) = (World::new().await, MemoryFiles::new());
            let noted = NotedHead::new(Arc::new(files.clone()), "/".as_ref(), Arc::new(world.clock.clone()));
            let scene = Self { world, files, noted };
            scene.append().await;
            scene
        }

        fn registry(&self) -> &Registry {
            self.world.service().registry()
        }

        async fn append(&self) {
            let entry = Entry::new(self.world.clock.now(), Who::relay(), Action::Started);
            self.registry().audit_append(&[entry]).await.unwrap();
        }

        fn write(&self, text: &str) {
            write_whole(&self.files, "/audit-head".as_ref(), text.as_bytes()).unwrap();
        }

        async fn told(&self) -> Vec<String> {
            let filter = AuditFilter { action: Some(Action::Lost), ..AuditFilter::default() };
            self.registry().audit_rows(&filter, 10).await.unwrap().into_iter().map(|row| row.detail).collect()
        }
    }

    #[tokio::test]
    async fn what_grows_behind_the_noted_head_is_followed_durably() {
        let scene = Scene::new().await;
        assert_eq!(scene.noted.read().await.unwrap(), None);
        for _ in 0..3 {
            assert!(!scene.noted.follow(scene.registry()).await.unwrap());
            assert_eq!(scene.noted.read().await.unwrap(), Some(scene.registry().audit_head().await.unwrap()));
            scene.append().await;
        }
        let before = scene.noted.read().await.unwrap();
        scene.files.power_loss();
        assert_eq!(scene.noted.read().await.unwrap(), before);
        assert!(scene.told().await.is_empty());
    }

    #[tokio::test]
    async fn an_end_that_is_gone_is_told_once_by_the_trail_itself() {
        let scene = Scene::new().await;
        let head = scene.registry().audit_head().await.unwrap();
        let later = Link { id: head.id + 7, hash: Sha256Digest::of(b"the day") };
        let anew = Link { id: head.id, hash: Sha256Digest::of(b"written anew") };
        for (text, said) in [
            (later.to_string(), format!("row {} {} is not there; the trail ended with row {}", later.id, later.hash, head.id)),
            (anew.to_string(), format!("row {} {} is not there; the trail ended with row {}", anew.id, anew.hash, head.id + 1)),
            ("nothing".to_owned(), "what was noted beside the database is no head".to_owned()),
        ] {
            scene.write(&text);
            assert!(scene.noted.follow(scene.registry()).await.unwrap());
            assert!(!scene.noted.follow(scene.registry()).await.unwrap(), "once");
            assert_eq!(scene.told().await.first(), Some(&said));
        }
        let verified = scene.registry().verify_audit(None).await.unwrap().unwrap();
        assert_eq!((verified.lost, scene.told().await.len()), (3, 3));
    }
}
