//! Views over a [`FileStore`]: what a program shows of its own folders to its SFTP peers, and how it takes uploads.
//!
//! A view says which paths exist and what may be done; here is what is the same for all: files that stay hidden until they
//! are whole ([`Uploads`]), reading, listing, and answers that tell nothing about the machine.

mod gate;
mod listing;
mod reader;
mod upload;
mod writer;

#[cfg(test)]
mod tests;

use std::{io, path::Path};

use towpath_transfer::FileName;

use super::vfs::{Attributes, FileKind, FsError, FsResult, Lack};
use crate::files::{self, FileStat, FileStore};

pub use gate::{FolderGate, FolderNames, Gates, LastGate};
pub use listing::{FixedListing, StoredListing};
pub use reader::StoredReader;
pub use upload::{UploadFolder, Uploads};

/// The suffix of a file that is hidden until it is whole; its name begins with a dot too, which no peer can write.
const HIDDEN_SUFFIX: &str = ".new";

/// The name under which `name` is written until it is whole.
#[must_use]
pub fn hidden_name(name: &FileName) -> String {
    format!(".{name}{HIDDEN_SUFFIX}")
}

/// Whether a name on disk is one of [`hidden_name`].
#[must_use]
pub fn is_hidden_name(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(HIDDEN_SUFFIX)
}

/// The name as a peer may see it; `None` for what is the program's own.
#[must_use]
pub fn visible_name(name: &str) -> Option<FileName> {
    if name.starts_with('.') { None } else { name.parse().ok() }
}

/// A folder that always exists, as a peer sees it.
#[must_use]
pub fn folder_attributes() -> Attributes {
    Attributes { kind: FileKind::Directory, mode: 0o755, ..Attributes::default() }
}

/// A folder or file on disk as a peer sees it.
///
/// # Errors
/// [`FsError::NotFound`] for everything else: it does not exist for a peer.
pub fn attributes_of(stat: &FileStat) -> FsResult<Attributes> {
    let seconds = stat.modified.and_then(|at| u32::try_from(at.as_second()).ok()).unwrap_or(0);
    let base = Attributes { accessed: seconds, modified: seconds, ..Attributes::default() };
    match stat.kind {
        files::FileKind::File => Ok(Attributes { kind: FileKind::File, mode: 0o644, size: stat.len, ..base }),
        files::FileKind::Dir => Ok(Attributes { kind: FileKind::Directory, mode: 0o755, ..base }),
        files::FileKind::Other => Err(FsError::NotFound),
    }
}

/// Runs file work on a blocking thread. The work runs to its end also where nobody waits for it any more.
///
/// # Errors
/// Those of the work, or that the runtime shuts down.
pub async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> FsResult<T> + Send + 'static) -> FsResult<T> {
    files::blocking(work).await.map_err(|_| FsError::Failure("the server shuts down".to_owned()))?
}

/// A disk's error as a peer is told it, without a word about the machine; what a peer cannot mend is logged.
#[must_use]
pub fn told(error: &io::Error) -> FsError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FsError::NotFound,
        io::ErrorKind::AlreadyExists => FsError::Exists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FsError::Full(Lack::Disk),
        io::ErrorKind::DirectoryNotEmpty => FsError::Failure("Directory not empty".to_owned()),
        _ => {
            tracing::warn!(%error, "the disk failed under an SFTP session");
            FsError::Failure("the server's disk failed; try again later".to_owned())
        }
    }
}

/// What is known of `path`, whose folder must be one: a link in its place, which no peer can make, leads nowhere. Blocking.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] also where the folder is none, and as the disk reports.
pub fn stat_in_folder(files: &dyn FileStore, path: &Path) -> io::Result<FileStat> {
    match path.parent().map(|folder| files.stat(folder)).transpose()? {
        Some(folder) if folder.kind != files::FileKind::Dir => Err(io::ErrorKind::NotFound.into()),
        _ => files.stat(path),
    }
}

/// The length of the file at `path`; `None` where there is none. Blocking.
fn file_length(files: &dyn FileStore, path: &Path) -> FsResult<Option<u64>> {
    match stat_in_folder(files, path) {
        Ok(stat) if stat.kind == files::FileKind::File => Ok(Some(stat.len)),
        Ok(_) => Err(FsError::NotFound),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(told(&e)),
    }
}
