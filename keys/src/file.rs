//! Files that must be whole, private or both.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

#[cfg(windows)]
use towpath_platform::disk;
use towpath_platform::sharing;
use towpath_transfer::{Code, Failure, failure::Result};
use zeroize::Zeroizing;

/// What other users may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: it holds a private key.
    Private,
    /// Read it, but not change it: it says whom to trust.
    Pinned,
    /// Whatever the folder allows that it lies in: somebody else guards that.
    Guarded,
}

impl Access {
    #[cfg(unix)]
    const fn mode(self) -> u32 {
        match self {
            Self::Private | Self::Guarded => 0o600,
            Self::Pinned => 0o644,
        }
    }

    /// The permission bits of group and others that must not be set.
    #[cfg(unix)]
    const fn forbidden(self) -> u32 {
        match self {
            Self::Private => 0o077,
            Self::Pinned => 0o022,
            Self::Guarded => 0,
        }
    }
}

/// What happens to a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It stays, and writing fails with [`ErrorKind::AlreadyExists`].
    Keep,
    /// It is replaced in one step.
    Replace,
}

/// Reads a whole file of at most `limit` bytes; `None` when there is none.
///
/// # Errors
/// [`Code::KeyPermissions`] when other users have more access than `access` says, with the command that mends it;
/// [`Code::KeyInvalid`] when it is too large or not a file; [`Code::FileFailed`] otherwise.
pub(crate) fn read(path: &Path, access: Access, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let shown = path.display();
    let failed = |e: io::Error| Failure::park(Code::FileFailed, format!("reading {shown} failed")).caused_by(e);
    let file = match open_without_waiting(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    // The opened file is asked, not the path, so that nobody can swap it in between.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Failure::park(Code::KeyInvalid, format!("{shown} is not a regular file")));
    }
    check_permissions(path, &metadata, access)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len().min(limit)).unwrap_or(0) + 1));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(Failure::park(Code::KeyInvalid, format!("{shown} is larger than the {limit} bytes it may have")));
    }
    Ok(Some(bytes))
}

/// Reads a file that holds a secret of somebody else's, such as a proxy's password, under the rules of a private key.
///
/// # Errors
/// [`Code::SecretUnusable`] where there is none; [`Code::KeyPermissions`] where other users may read or change it;
/// [`Code::KeyInvalid`] where it has more than `limit` bytes or is no file; [`Code::FileFailed`].
pub(crate) fn read_secret(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let missing = || Failure::park(Code::SecretUnusable, format!("there is no file {}", path.display()));
    Ok(read(path, Access::Private, limit)?.ok_or_else(missing)?.to_vec())
}

/// Writes a file that holds a secret of somebody else's, in the place of one that is there already, so that only its owner may
/// read it.
///
/// # Errors
/// `disk-full`, `file-failed`.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, Access::Private, Existing::Replace, "new").map_err(|error| write_failed(path, error))
}

/// Reads a credential that systemd has put into a folder of the service's own. Its permission bits say nothing: systemd gives the
/// service's user access by an access control list, whose mask stands where the group's bits are.
pub(crate) fn read_credential(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    Ok(read(path, Access::Guarded, limit)?.map(|bytes| bytes.to_vec()))
}

#[cfg(unix)]
fn open_without_waiting(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    // Without this flag, opening a named pipe would wait for a writer for ever.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

#[cfg(not(unix))]
fn open_without_waiting(path: &Path) -> io::Result<File> {
    sharing::opened(|| File::open(path))
}

#[cfg(unix)]
fn check_permissions(path: &Path, metadata: &fs::Metadata, access: Access) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let mode = metadata.permissions().mode() & 0o777;
    if mode & access.forbidden() == 0 {
        return Ok(());
    }
    let quoted = shell_quoted(path);
    let (what, mend) = match access {
        Access::Private => ("open to other users", format!("chmod 600 {quoted}")),
        Access::Pinned | Access::Guarded => ("writable by other users", format!("chmod go-w {quoted}")),
    };
    let message = format!("{} is {what} (mode {mode:04o}) and was not used; run: {mend}", path.display());
    Err(Failure::park(Code::KeyPermissions, message))
}

#[cfg(windows)]
fn check_permissions(path: &Path, _metadata: &fs::Metadata, access: Access) -> Result<()> {
    // What is pinned may be read by everybody; the list of its folder says who may change it.
    if access == Access::Pinned {
        return Ok(());
    }
    let shown = path.display();
    let private = towpath_platform::acl::is_private(path);
    let private =
        private.map_err(|e| Failure::park(Code::FileFailed, format!("asking who may read {shown} failed")).caused_by(e))?;
    if private {
        return Ok(());
    }
    let mend = format!("icacls \"{shown}\" /inheritance:r /grant:r *S-1-5-18:F *S-1-5-32-544:F *S-1-3-4:F");
    Err(Failure::park(Code::KeyPermissions, format!("{shown} is open to other users and was not used; run: {mend}")))
}

/// The path as a POSIX shell reads it back.
#[cfg(unix)]
#[must_use]
pub fn shell_quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-' | b'+' | b'@' | b':' | b'=' | b',');
    if !text.is_empty() && text.bytes().all(plain) && !text.starts_with('-') {
        return text;
    }
    let dash = if text.starts_with('-') { "./" } else { "" };
    format!("'{dash}{}'", text.replace('\'', r"'\''"))
}

/// The path as the shells of Windows read it back; no name there has a quotation mark. A backslash before the closing one is doubled,
/// which programs there read as one.
#[cfg(not(unix))]
#[must_use]
pub fn shell_quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let end = if text.ends_with('\\') { "\\" } else { "" };
    if text.contains(|c: char| c.is_whitespace() || "&()^;,'`$%!=+".contains(c)) { format!("\"{text}{end}\"") } else { text }
}

/// Writes a whole file: to a temporary name, fsync, then under its name in one step, then fsync of the folder.
///
/// The temporary file `.<name>.<tag>.tmp` of an earlier attempt with the same tag is removed first.
pub(crate) fn write(path: &Path, bytes: &[u8], access: Access, existing: Existing, tag: &str) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the path has no file name"))?;
    let folder = folder_of(path);
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{tag}.tmp"));
    let temporary = Temporary(folder.join(temporary_name));
    match sharing::changed(|| fs::remove_file(&temporary.0)) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = create_new(&temporary.0, access)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    match existing {
        Existing::Replace => replace(&temporary.0, path)?,
        Existing::Keep => publish_new(&temporary.0, path)?,
    }
    drop(temporary);
    sync_folder(&folder)
}

/// Gives a file another name in the same folder, in the place of whatever has it, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    replace(from, to)?;
    sync_folder(&folder_of(to))
}

#[cfg(not(windows))]
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

#[cfg(windows)]
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    sharing::changed(|| disk::rename(from, to))
}

/// Removes a file where there is one.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match sharing::changed(|| fs::remove_file(path)) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => sync_folder(&folder_of(path)),
    }
}

/// The failure for an error of [`write`].
pub(crate) fn write_failed(path: &Path, e: io::Error) -> Failure {
    let message = format!("writing {} failed", path.display());
    match e.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Failure::retry(Code::DiskFull, message).caused_by(e),
        _ => Failure::park(Code::FileFailed, message).caused_by(e),
    }
}

/// Holds the lock file of `path` until dropped, so that two programs do not change the same file at once.
pub(crate) fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let file = open_lock(&path).map_err(|e| write_failed(&path, e))?;
    file.lock().map_err(|e| write_failed(&path, e))?;
    Ok(file)
}

/// Private, because whoever can open the file could hold the lock for ever.
#[cfg(unix)]
fn open_lock(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    OpenOptions::new().create(true).truncate(false).write(true).mode(Access::Private.mode()).open(path)
}

#[cfg(not(unix))]
fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A temporary file, removed on every way out.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove; on the way out of a failure the failure matters more.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(unix)]
fn create_new(path: &Path, access: Access) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    OpenOptions::new().write(true).create_new(true).mode(access.mode()).open(path)
}

#[cfg(windows)]
fn create_new(path: &Path, access: Access) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    // Nothing is in it yet that others could read. In a folder that is the service's own it has the right list already, with the
    // account of the service.
    if access == Access::Private && !towpath_platform::acl::is_private(path)? {
        towpath_platform::acl::restrict_to_owner(path, None)?;
    }
    Ok(file)
}

/// Gives the file its name unless the name is taken, which Windows decides in one step.
#[cfg(windows)]
fn publish_new(temporary: &Path, path: &Path) -> io::Result<()> {
    sharing::changed(|| disk::rename_new(temporary, path))
}

/// Gives the file its name unless the name is taken: a hard link decides that in one step.
#[cfg(not(windows))]
fn publish_new(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
            // Some file systems have no hard links; there, a second program could slip in between the two steps.
            if fs::exists(path)? {
                return Err(ErrorKind::AlreadyExists.into());
            }
            fs::rename(temporary, path)
        }
        other => other,
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    // NTFS journals its names by itself, and each rename is written through.
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_is_private_whole_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"one", Access::Private, Existing::Keep, "t").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let error = write(&path, b"two", Access::Private, Existing::Keep, "t").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(&path, b"three", Access::Pinned, Existing::Replace, "t").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(names(folder.path()), ["key"]);
    }

    #[test]
    fn a_secret_is_read_only_where_nobody_else_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert_eq!(read_secret(&path, 10).unwrap_err().code(), Code::SecretUnusable);
        fs::write(&path, "hush\n").unwrap();
        for (mode, refused) in [(0o644, true), (0o640, true), (0o600, false), (0o400, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match read_secret(&path, 5) {
                Ok(secret) => assert!(!refused && secret == b"hush\n"),
                Err(failure) => assert!(refused && failure.code() == Code::KeyPermissions, "{mode:o}"),
            }
        }
        assert_eq!(read_secret(&path, 4).unwrap_err().code(), Code::KeyInvalid);
    }

    #[test]
    fn a_temporary_file_left_by_a_crash_does_not_stand_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(folder.path().join(".key.t.tmp"), b"half").unwrap();
        write(&path, b"whole", Access::Private, Existing::Keep, "t").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(folder.path()), ["key"]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_a_clear_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/key");
        let error = write(&path, b"x", Access::Private, Existing::Keep, "t").unwrap_err();
        assert_eq!(write_failed(&path, error).code(), Code::FileFailed);
        let full = write_failed(&path, ErrorKind::StorageFull.into());
        assert_eq!((full.code(), full.disposition()), (Code::DiskFull, towpath_transfer::Disposition::Retry));
    }

    #[test]
    fn others_permissions_are_refused_with_the_command_that_mends_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it's a key");
        fs::write(&path, b"x").unwrap();
        for mode in [0o640, 0o604, 0o660, 0o601, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let failure = read(&path, Access::Private, 10).unwrap_err();
            assert_eq!(failure.code(), Code::KeyPermissions);
            let command = failure.message().split("run: ").nth(1).unwrap().to_owned();
            assert!(command.starts_with("chmod 600 '"), "{command}");
            assert!(std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success());
            assert_eq!(read(&path, Access::Private, 10).unwrap().unwrap().as_slice(), b"x");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path, Access::Pinned, 10).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        let failure = read(&path, Access::Pinned, 10).unwrap_err();
        assert_eq!(failure.code(), Code::KeyPermissions);
        assert!(failure.message().contains("run: chmod go-w '"), "{failure}");
        assert_eq!(shell_quoted(Path::new("/etc/towpath/key")), "/etc/towpath/key");
        assert_eq!(shell_quoted(Path::new("-key")), "'./-key'");
    }

    #[test]
    fn nobody_else_can_hold_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(&folder.path().join("pins")).unwrap();
        let path = folder.path().join("pins.lock");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(File::open(&path).unwrap().try_lock().is_err());
        drop(held);
        assert!(File::open(&path).unwrap().try_lock().is_ok());
        assert_eq!(lock(&folder.path().join("none/pins")).unwrap_err().code(), Code::FileFailed);
    }

    #[test]
    fn size_and_type_are_limited() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(read(&path, Access::Private, 3).unwrap().is_none());
        write(&path, b"1234", Access::Private, Existing::Keep, "t").unwrap();
        assert_eq!(read(&path, Access::Private, 3).unwrap_err().code(), Code::KeyInvalid);
        assert!(read(&path, Access::Private, 4).is_ok());
        assert_eq!(read(folder.path(), Access::Private, 3).unwrap_err().code(), Code::KeyInvalid);
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(read(&pipe, Access::Private, 3).unwrap_err().code(), Code::KeyInvalid);
    }
}
