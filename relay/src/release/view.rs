//! `/update` of an agent's root: the releases that are approved for its tenant, to be read and nothing else.

use std::{path::PathBuf, sync::Arc};

use towpath_transfer::{FileName, RemotePath, release::ReleaseVersion};
use towpath_transport::{
    files::FileStore,
    server::{
        Attributes, FileKind, FsError, FsResult, VirtualFile, VirtualListing,
        stored::{
            FixedListing, StoredListing, StoredReader, attributes_of, folder_attributes, on_disk, stat_in_folder, told,
            visible_name,
        },
    },
};

use super::Shelf;
use crate::{registry::Registry, scope::TenantScope};

/// The folder's name.
pub(crate) const UPDATE: &str = "update";

/// Whether a path leads into it.
pub(crate) fn is_update(path: &RemotePath) -> bool {
    path.components().first().is_some_and(|name| name.as_str() == UPDATE)
}

/// What one tenant's agents see of the releases. The registry is asked each time, so that what is approved or withdrawn counts for
/// sessions that are open.
#[derive(Debug, Clone)]
pub struct Offered {
    shelf: Shelf,
    registry: Registry,
    tenant: TenantScope,
}

/// What a path can mean.
enum Place {
    Root,
    Release(ReleaseVersion),
    File(ReleaseVersion, FileName),
}

fn locate(path: &RemotePath) -> FsResult<Place> {
    let names: Vec<&str> = path.components().iter().map(FileName::as_str).collect();
    let version = |text: &str| text.parse().map_err(|_| FsError::NotFound);
    match names.as_slice() {
        [UPDATE] => Ok(Place::Root),
        [UPDATE, release] => Ok(Place::Release(version(release)?)),
        [UPDATE, release, name] => Ok(Place::File(version(release)?, visible_name(name).ok_or(FsError::NotFound)?)),
        _ => Err(FsError::NotFound),
    }
}

impl Offered {
    /// To this tenant.
    #[must_use]
    pub fn new(shelf: Shelf, registry: Registry, tenant: TenantScope) -> Self {
        Self { shelf, registry, tenant }
    }

    /// Whether there is anything.
    pub(crate) async fn is_any(&self) -> bool {
        self.approved().await.is_ok_and(|versions| !versions.is_empty())
    }

    async fn approved(&self) -> FsResult<Vec<ReleaseVersion>> {
        self.registry.approved_releases(&self.tenant).await.map_err(|failure| {
            tracing::warn!(code = %failure.code(), error = %failure.report(), "the registry could not be asked for releases");
            FsError::Failure("the relay cannot answer now; try again later".to_owned())
        })
    }

    /// Where a path lies on disk; nothing where it is the folder of all. What is not approved does not exist.
    async fn disk(&self, path: &RemotePath) -> FsResult<Option<PathBuf>> {
        let place = locate(path)?;
        let approved = self.approved().await?;
        let folder =
            |version: &ReleaseVersion| approved.contains(version).then(|| self.shelf.folder(*version)).ok_or(FsError::NotFound);
        match &place {
            Place::Root if approved.is_empty() => Err(FsError::NotFound),
            Place::Root => Ok(None),
            Place::Release(version) => folder(version).map(Some),
            Place::File(version, name) => folder(version).map(|folder| Some(folder.join(name.as_str()))),
        }
    }

    fn files(&self) -> Arc<dyn FileStore> {
        Arc::clone(&self.shelf.files)
    }

    pub(crate) async fn stat(&self, path: &RemotePath) -> FsResult<Attributes> {
        let Some(disk) = self.disk(path).await? else { return Ok(folder_attributes()) };
        let files = self.files();
        on_disk(move || attributes_of(&stat_in_folder(&*files, &disk).map_err(|error| told(&error))?)).await
    }

    /// Opens a file for reading.
    pub(crate) async fn open(&self, path: &RemotePath) -> FsResult<Box<dyn VirtualFile>> {
        let disk = self.disk(path).await?.ok_or(FsError::Denied)?;
        let files = self.files();
        Ok(Box::new(on_disk(move || StoredReader::open(&*files, &disk)).await?))
    }

    pub(crate) async fn list(&self, path: &RemotePath) -> FsResult<Box<dyn VirtualListing>> {
        let Some(disk) = self.disk(path).await? else {
            let versions: Vec<String> = self.approved().await?.iter().map(ToString::to_string).collect();
            return Ok(Box::new(FixedListing::new(&versions.iter().map(String::as_str).collect::<Vec<_>>())));
        };
        if self.stat(path).await?.kind != FileKind::Directory {
            return Err(FsError::Failure("Not a directory".to_owned()));
        }
        let shows = |name: &str, kind: FileKind| kind == FileKind::File && visible_name(name).is_some();
        Ok(Box::new(StoredListing::new(self.files(), disk, shows)))
    }
}
