//! What the disks of Windows offer and the standard library does not: names that are on the disk once they are given, names that never
//! replace one, and the room that is left.

use std::{io, path::Path};

/// Gives a file or a folder another name in one step. A file that has the name already is replaced. The name is on the disk when this
/// returns, where the volume can do that and nobody has the replaced file open.
///
/// # Errors
/// As Windows reports; `Unsupported` elsewhere.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(windows)]
    return windows::rename(from, to);
    #[cfg(not(windows))]
    {
        let _ = (from, to);
        super::unsupported()
    }
}

/// As [`rename`] within one volume, to a name that is free: nothing is ever replaced, also where somebody else takes the name at the
/// same moment.
///
/// # Errors
/// `AlreadyExists` where the name is taken, also by `from` itself; as Windows reports; `Unsupported` elsewhere.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(windows)]
    return windows::rename_new(from, to);
    #[cfg(not(windows))]
    {
        let _ = (from, to);
        super::unsupported()
    }
}

/// Bytes that this user can still write on the volume that holds a path, which exists.
///
/// # Errors
/// As Windows reports; `Unsupported` elsewhere.
pub fn free_space(path: &Path) -> io::Result<u64> {
    #[cfg(windows)]
    return windows::free_space(path);
    #[cfg(not(windows))]
    {
        let _ = path;
        super::unsupported()
    }
}

#[cfg(windows)]
#[expect(unsafe_code, reason = "volumes have only this interface")]
mod windows {
    use std::{fs, io, path::Path, ptr};

    use windows_sys::{
        Win32::{
            Foundation::ERROR_ACCESS_DENIED,
            Storage::FileSystem::{
                GetDiskFreeSpaceExW, MOVE_FILE_FLAGS, MOVEFILE_REPLACE_EXISTING, MOVEFILE_WRITE_THROUGH, MoveFileExW,
            },
        },
        core::BOOL,
    };

    use crate::wide::wide_path;

    pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
        match moved(from, to, MOVEFILE_REPLACE_EXISTING) {
            // Somebody may have the old file open: the standard library's rename takes its name from it where the volume can do that,
            // and does not write it through.
            Err(error) if error.raw_os_error() == Some(ERROR_ACCESS_DENIED.cast_signed()) => {
                fs::rename(from, to)?;
                fs::OpenOptions::new().write(true).open(to).map_or(Ok(()), |file| file.sync_all())
            }
            other => other,
        }
    }

    pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
        if from == to {
            // Windows would take a file's own name for one that is free.
            fs::symlink_metadata(from)?;
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        moved(from, to, 0)
    }

    /// A rename within the volume that is written through: such a request "also causes NTFS to flush any metadata changes, such as a
    /// time stamp update or a rename operation, that result from processing the request" (`CreateFileW`, "Caching Behavior").
    fn moved(from: &Path, to: &Path, flags: MOVE_FILE_FLAGS) -> io::Result<()> {
        let (from, to) = (wide_path(from)?, wide_path(to)?);
        // SAFETY: both paths end with a NUL.
        succeeded(unsafe { MoveFileExW(from.as_ptr(), to.as_ptr(), MOVEFILE_WRITE_THROUGH | flags) })
    }

    pub(super) fn free_space(path: &Path) -> io::Result<u64> {
        // Windows is asked about a folder, and wants the name of a share to end with a separator.
        let folder = if fs::metadata(path)?.is_dir() { path } else { path.parent().unwrap_or(path) };
        let (folder, mut free) = (wide_path(&folder.join(""))?, 0);
        // SAFETY: the path ends with a NUL; what is not asked for may be null.
        succeeded(unsafe { GetDiskFreeSpaceExW(folder.as_ptr(), &mut free, ptr::null_mut(), ptr::null_mut()) })?;
        Ok(free)
    }

    fn succeeded(done: BOOL) -> io::Result<()> {
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(windows)]
#[cfg(test)]
mod tests {
    use std::{fs, io::ErrorKind};

    use super::*;

    #[test]
    fn a_name_that_is_taken_is_never_replaced_by_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two, free] = ["one", "two", "free"].map(|name| folder.path().join(name));
        fs::write(&one, "1").unwrap();
        fs::write(&two, "2").unwrap();
        for taken in [&two, &one, &folder.path().to_owned()] {
            assert_eq!(rename_new(&one, taken).unwrap_err().kind(), ErrorKind::AlreadyExists, "{}", taken.display());
        }
        rename_new(&one, &free).unwrap();
        assert!(!one.exists());
        assert_eq!(rename_new(&one, &free).unwrap_err().kind(), ErrorKind::NotFound);
        rename(&free, &two).unwrap();
        assert_eq!((fs::read_to_string(&two).unwrap().as_str(), free.exists()), ("1", false));
        assert_eq!(rename(&free, &two).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_somebody_reads_is_replaced_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let [new, old] = ["new", "old"].map(|name| folder.path().join(name));
        fs::write(&new, "new").unwrap();
        fs::write(&old, "old").unwrap();
        let reader = fs::File::open(&old).unwrap();
        rename(&new, &old).unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "new");
        drop(reader);
    }

    #[test]
    fn long_paths_are_renamed_and_their_volume_has_room() {
        let folder = tempfile::tempdir().unwrap();
        let deep = (0..8).fold(folder.path().to_owned(), |deep, _| deep.join("a folder whose name is forty letters long"));
        fs::create_dir_all(&deep).unwrap();
        let (one, two) = (deep.join("one"), deep.join("..").join("two"));
        fs::write(&one, "1").unwrap();
        rename_new(&one, &two).unwrap();
        rename(&two, &one).unwrap();
        assert_eq!(fs::read_to_string(&one).unwrap(), "1");
        assert!(free_space(&one).unwrap() > 0 && free_space(&deep).unwrap() > 0);
        assert_eq!(free_space(&two).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
