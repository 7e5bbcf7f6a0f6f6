//! How many bytes lie below a folder.

use std::{
    io,
    path::{Path, PathBuf},
};

use towpath_transfer::{TenantName, failure::Result};
use towpath_transport::{
    files::{FileKind, FileStore, file_failure},
    server::stored::is_hidden_name,
};

use super::{PAGE, root_of};

/// Folders below the spool's root: tenant, agent, direction, transfer.
pub(super) const DEPTH: usize = 4;

/// What is done with hidden files, which somebody writes or a process that was stopped has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hidden {
    Counted,
    Removed,
}

/// The bytes below a folder, down to `depth` folders; 0 where there is none. Blocking.
pub(super) fn walk(files: &dyn FileStore, dir: &Path, depth: usize, hidden: Hidden) -> io::Result<u64> {
    let (mut sum, mut after) = (0u64, None::<String>);
    loop {
        let page = match files.list(dir, after.as_deref(), PAGE) {
            // A running relay may remove it this moment.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(sum),
            other => other?,
        };
        for entry in &page {
            let path = dir.join(&entry.name);
            match entry.stat.kind {
                FileKind::Dir if depth > 0 => sum = sum.saturating_add(walk(files, &path, depth - 1, hidden)?),
                FileKind::File if hidden == Hidden::Removed && is_hidden_name(&entry.name) => files.remove(&path)?,
                FileKind::File => sum = sum.saturating_add(entry.stat.len),
                FileKind::Dir | FileKind::Other => {}
            }
        }
        if page.len() < PAGE {
            return Ok(sum);
        }
        after = page.last().map(|entry| entry.name.clone());
    }
}

/// Every name in a folder. Blocking.
pub(super) fn names(files: &dyn FileStore, dir: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let page = files.list(dir, names.last().map(String::as_str), PAGE)?;
        let last = page.len() < PAGE;
        names.extend(page.into_iter().map(|entry| entry.name));
        if last {
            return Ok(names);
        }
    }
}

/// The bytes that a tenant has in the spool below the folder `state`, as they lie on the disk, for a process beside the relay.
/// Blocking.
///
/// # Errors
/// [`towpath_transfer::Code::FileFailed`].
pub fn used_on_disk(files: &dyn FileStore, state: &Path, tenant: &TenantName) -> Result<u64> {
    let folder: PathBuf = root_of(state).join(tenant.as_str());
    walk(files, &folder, DEPTH - 1, Hidden::Counted).map_err(|e| file_failure("count what is in", &folder, e))
}
