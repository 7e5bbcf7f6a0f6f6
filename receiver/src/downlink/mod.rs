//! The downlink, as the receiver does it: what is sent back is taken, exported, and told to the relay; then the agent's
//! receipt is awaited.

mod claim;
pub mod export;
pub mod notify;
pub mod receipt;
pub mod take;
pub mod watch;

#[cfg(test)]
mod tests;

use std::{
    io::{self, Read as _, Write as _},
    path::Path,
};

use towpath_transfer::{
    Code, Failure, TransferKey,
    digest::{FileDigests, FileHasher},
};
use towpath_transport::files::{FileStore, file_failure, ignore_missing};

use crate::parts::Parts;

/// Bytes that are copied at a time.
const CHUNK: usize = 256 * 1024;

/// Copies a file of at most `limit` bytes, durable but for its name. `unread` says what it means that the source cannot be read.
fn copy(
    files: &dyn FileStore,
    from: &Path,
    to: &Path,
    limit: u64,
    unread: &dyn Fn(io::Error) -> Failure,
) -> Result<FileDigests, Failure> {
    let unwritten = |e| file_failure("writing", to, e);
    let mut source = files.open(from).map_err(unread)?;
    let mut target = files.create(to).map_err(unwritten)?;
    let mut hasher = FileHasher::new();
    let mut buffer = vec![0; CHUNK];
    let mut left = limit;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(unread(e)),
        };
        left = left.checked_sub(read as u64).ok_or_else(|| too_large(from, limit))?;
        let bytes = buffer.get(..read).unwrap_or_default();
        hasher.update(bytes);
        target.write_all(bytes).map_err(unwritten)?;
    }
    target.sync_all().map_err(unwritten)?;
    Ok(hasher.finish())
}

fn too_large(path: &Path, limit: u64) -> Failure {
    Failure::park(Code::ExportRefused, format!("{} is larger than {limit} bytes", path.display()))
}

fn remove_tree(files: &dyn FileStore, path: &Path) -> Result<(), Failure> {
    ignore_missing(files.remove_dir_all(path)).map_err(|e| file_failure("removing", path, e))
}

fn exists(files: &dyn FileStore, path: &Path) -> Result<bool, Failure> {
    match files.stat(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(file_failure("looking for", path, e)),
    }
}

/// Gives a folder that is whole its name, durably. What is in it must be synced.
fn publish_folder(files: &dyn FileStore, begun: &Path, whole: &Path) -> Result<(), Failure> {
    files.sync_dir(begun).map_err(|e| file_failure("syncing", begun, e))?;
    files.rename(begun, whole).map_err(|e| file_failure("naming", whole, e))?;
    let parent = whole.parent().unwrap_or(whole);
    files.sync_dir(parent).map_err(|e| file_failure("syncing", parent, e))
}

/// Removes both copies of what was sent back, durably, so that none comes back with a power cut. May be repeated.
///
/// # Errors
/// As the disk reports.
pub fn remove_copies(parts: &Parts, key: &TransferKey) -> Result<(), Failure> {
    let layout = &parts.layout;
    let copies = [layout.laid_out(key), layout.laying_out(key), layout.export(key), layout.export_begun(key)];
    for folder in &copies {
        remove_tree(&*parts.files, folder)?;
    }
    for parent in [layout.downlink_agent(&key.agent), layout.exports_for(&key.agent)] {
        if exists(&*parts.files, &parent)? {
            parts.files.sync_dir(&parent).map_err(|e| file_failure("syncing", &parent, e))?;
        }
    }
    Ok(())
}
