//! What a program that was stopped has begun to write, and never gave its name.

use std::{io, path::Path};

use super::{FileKind, FileStore, TEMP_SUFFIX, ignore_missing};

/// Names read from a folder at a time.
const PAGE: usize = 256;

/// Whether a file of this name is not whole: [`super::write_whole`] begins its files under such names, and whoever writes longer ones
/// does alike.
#[must_use]
pub fn is_begun(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMP_SUFFIX)
}

/// Removes from a folder what was begun there and not ended, and makes all its names durable as they are then, so that nothing
/// of it comes back with a power cut. A folder that is not there has nothing. May be repeated. Whoever is writing a file there
/// loses it, so this is for folders that nobody writes to any more.
///
/// # Errors
/// As the store reports.
pub fn remove_begun(store: &dyn FileStore, folder: &Path) -> io::Result<()> {
    let mut after: Option<String> = None;
    loop {
        let page = match store.list(folder, after.as_deref(), PAGE) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in page.iter().filter(|entry| entry.stat.kind == FileKind::File && is_begun(&entry.name)) {
            ignore_missing(store.remove(&folder.join(&entry.name)))?;
        }
        if page.len() < PAGE {
            break;
        }
        after = page.into_iter().next_back().map(|entry| entry.name);
    }
    store.sync_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{MemoryFiles, write_whole};

    #[test]
    fn what_was_begun_goes_for_good_and_nothing_else_does() {
        let (files, folder) = (MemoryFiles::new(), Path::new("/receipts"));
        remove_begun(&files, folder).unwrap();
        files.create_dir_all(&folder.join(".folder.tmp")).unwrap();
        for n in 0..2 * PAGE {
            files.create(&folder.join(format!(".{n}.json.tmp"))).unwrap();
        }
        for name in [".hidden", "plain.tmp", "whole.json"] {
            write_whole(&files, &folder.join(name), b"x").unwrap();
        }
        remove_begun(&files, folder).unwrap();
        remove_begun(&files, folder).unwrap();
        files.power_loss();
        let names: Vec<String> = files.list(folder, None, 10).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [".folder.tmp", ".hidden", "plain.tmp", "whole.json"]);
    }
}
