//! Files of root's that everybody may read: what tells how updates have ended, the unit, the kept program.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write as _},
    path::Path,
};

use towpath_transfer::failure::Result;
use towpath_transport::files::{Disk, FileStore as _, file_failure, ignore_missing};

/// Writes a file with this mode, whole and durable. Windows has no modes: there it gets the list of the folder.
///
/// # Errors
/// As the disk reports.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    place(path, bytes, mode).map_err(|error| file_failure("writing", path, error))
}

/// Copies a file, whole and durable.
///
/// # Errors
/// As the disk reports.
pub(super) fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let source = File::open(from).map_err(|error| file_failure("reading", from, error))?;
    place(to, source, mode).map_err(|error| file_failure("writing", to, error))
}

fn place(path: &Path, mut from: impl Read, mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temp = path.as_os_str().to_owned();
    temp.push(".new");
    let mut file = opened(temp.as_ref(), mode)?;
    io::copy(&mut from, &mut file)?;
    file.flush()?;
    file.sync_all()?;
    drop(file);
    Disk.rename(temp.as_ref(), path)?;
    Disk.sync_dir(folder)
}

#[cfg(unix)]
fn opened(path: &Path, mode: u32) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    // The mode that a file is made with is cut by the process' mask.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    Ok(file)
}

#[cfg(windows)]
fn opened(path: &Path, _mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path)
}

/// Removes a file where it is there: durably on Linux, and on Windows before anything that is done after it.
///
/// # Errors
/// As the disk reports.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = Disk.remove(path).and_then(|()| path.parent().map_or(Ok(()), |folder| Disk.sync_dir(folder)));
    ignore_missing(removed).map_err(|error| file_failure("removing", path, error))
}
