//! Small files of our own, read and written whole.

use std::path::Path;

use towpath_transfer::{Code, Failure};
use towpath_transport::files::{FileStore, file_failure, hold, read_if_there, write_whole};

/// Reads a file of at most `limit` bytes; `None` where there is none.
///
/// # Errors
/// As the disk reports.
pub(crate) fn read(files: &dyn FileStore, path: &Path, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
    read_if_there(files, path, limit as u64).map_err(|error| file_failure("reading", path, error))
}

/// Reads a file that must be there.
///
/// # Errors
/// `file-failed` (park) where it is missing, and as the disk reports.
pub(crate) fn read_existing(files: &dyn FileStore, path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let missing = || Failure::park(Code::FileFailed, format!("{} is missing: it was removed or lost", path.display()));
    read(files, path, limit)?.ok_or_else(missing)
}

/// Writes a file whole and durable, and its folder where that is missing.
///
/// # Errors
/// As the disk reports.
pub(crate) fn write(files: &dyn FileStore, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        files.create_dir_all(folder).map_err(|error| file_failure("making the folder", folder, error))?;
    }
    write_whole(files, path, bytes).map_err(|error| file_failure("writing", path, error))
}

/// Writes a file whole and durable unless it has exactly these bytes already.
///
/// # Errors
/// As the disk reports.
pub(crate) fn write_if_different(files: &dyn FileStore, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    match read(files, path, bytes.len()) {
        Ok(Some(there)) if there == bytes => held(files, path),
        _ => write(files, path, bytes),
    }
}

/// Makes a file durable that was found: the try that has written it may have failed before it was.
///
/// # Errors
/// As the disk reports.
pub(crate) fn held(files: &dyn FileStore, path: &Path) -> Result<(), Failure> {
    hold(files, path).map_err(|error| file_failure("syncing the folder of", path, error))
}

/// Whether there is a file of this name.
pub(crate) fn exists(files: &dyn FileStore, path: &Path) -> bool {
    files.stat(path).is_ok()
}

#[cfg(test)]
mod tests {
    use towpath_transport::files::MemoryFiles;

    use super::*;

    #[test]
    fn what_is_found_is_durable_from_then_on() {
        let (files, path, temp) = (MemoryFiles::new(), Path::new("/f"), Path::new("/f.tmp"));
        let mut file = files.create(temp).unwrap();
        file.write_all(b"same").unwrap();
        file.sync_all().unwrap();
        // Stopped between the rename and the sync of the folder.
        files.rename(temp, path).unwrap();
        write_if_different(&files, path, b"same").unwrap();
        files.power_loss();
        assert_eq!(read(&files, path, 9).unwrap().unwrap(), b"same");
    }
}
