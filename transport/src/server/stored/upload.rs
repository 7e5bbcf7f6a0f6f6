//! Changes of one folder of uploads.

use std::{fmt::Debug, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use towpath_transfer::FileName;

use super::{
    FolderGate, file_length, on_disk, told,
    writer::{Opening, Writer},
};
use crate::{
    files::{FileStore, publish},
    server::vfs::{FsError, FsResult, OpenOptions, Replace, VirtualFile},
};

/// What one folder of uploads allows, and what it is told.
#[async_trait]
pub trait UploadFolder: Debug + Send + Sync + 'static {
    /// Where its files are kept.
    fn files(&self) -> &Arc<dyn FileStore>;

    /// The folder on disk.
    fn path(&self) -> PathBuf;

    /// Who changes it now.
    fn gate(&self) -> &FolderGate;

    /// How many files it may have, those still being written included.
    fn most_files(&self) -> usize;

    /// Whether it may be changed; asked with the gate held, before every change.
    ///
    /// # Errors
    /// What the peer is told where it may not.
    async fn check_open(&self) -> FsResult<()> {
        Ok(())
    }

    /// Takes room for `bytes` more; with 0, asks whether there is any. Blocking.
    ///
    /// # Errors
    /// [`FsError::Full`] with what there is no room in; nothing is taken then.
    fn grow(&self, bytes: u64) -> FsResult<()>;

    /// Gives room back.
    fn shrink(&self, _bytes: u64) {}

    /// A file has got this name, durably.
    fn published(&self, _name: &FileName) {}
}

/// Takes uploads into one folder.
///
/// A file under a `.part` name is written in place and stays, so that it can be resumed. Every other name is written under
/// a hidden name and gets its own at CLOSE, synced; without CLOSE it never existed.
#[derive(Debug)]
pub struct Uploads {
    folder: Arc<dyn UploadFolder>,
}

impl Uploads {
    /// Uploads into `folder`.
    #[must_use]
    pub fn into(folder: Arc<dyn UploadFolder>) -> Self {
        Self { folder }
    }

    /// Opens a file for writing; whoever wrote it before writes no more.
    ///
    /// # Errors
    /// As the options and the folder demand, and as the disk reports.
    pub async fn open(&self, name: FileName, options: OpenOptions) -> FsResult<Box<dyn VirtualFile>> {
        let mut names = self.folder.gate().alone().await;
        self.folder.check_open().await?;
        let opening = Opening { folder: Arc::clone(&self.folder), name, options, files: names.files };
        let (writer, files) = on_disk(move || Writer::open(opening)).await?;
        names.files = Some(files);
        Ok(Box::new(writer))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// [`FsError::NotFound`] without it, those of the folder, and as the disk reports.
    pub async fn remove(&self, name: FileName) -> FsResult<()> {
        let mut names = self.folder.gate().alone().await;
        self.folder.check_open().await?;
        let folder = Arc::clone(&self.folder);
        on_disk(move || {
            let path = folder.path().join(name.as_str());
            let length = file_length(&**folder.files(), &path)?.ok_or(FsError::NotFound)?;
            folder.gate().withdraw(&name);
            folder.files().remove(&path).map_err(|e| told(&e))?;
            folder.shrink(length);
            Ok(())
        })
        .await?;
        names.files = names.files.map(|files| files.saturating_sub(1));
        Ok(())
    }

    /// Gives the file `old` the name `new`, durably.
    ///
    /// # Errors
    /// [`FsError::NotFound`] without it, [`FsError::Exists`], those of the folder, and as the disk reports.
    pub async fn rename(&self, old: FileName, new: FileName, replace: Replace) -> FsResult<()> {
        let mut names = self.folder.gate().alone().await;
        self.folder.check_open().await?;
        let folder = Arc::clone(&self.folder);
        let replaced = on_disk(move || {
            let (files, path) = (&**folder.files(), folder.path());
            let (source, target) = (path.join(old.as_str()), path.join(new.as_str()));
            file_length(files, &source)?.ok_or(FsError::NotFound)?;
            let existing = file_length(files, &target)?;
            if existing.is_some() && replace == Replace::Refuse {
                return Err(FsError::Exists);
            }
            // An open handle must not change a file under the name it gets now.
            folder.gate().withdraw(&old);
            folder.gate().withdraw(&new);
            // Whoever wrote it may have gone without CLOSE, and its bytes may not have reached the disk.
            let synced = files.open_write(&source).and_then(|mut file| file.sync_all());
            synced.and_then(|()| publish(files, &source, &target)).map_err(|e| told(&e))?;
            folder.published(&new);
            let replaced = existing.filter(|_| source != target);
            folder.shrink(replaced.unwrap_or(0));
            Ok(replaced.is_some())
        });
        if replaced.await? {
            names.files = names.files.map(|files| files.saturating_sub(1));
        }
        Ok(())
    }
}
