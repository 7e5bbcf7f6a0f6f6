//! Who may open a file: its owner, the system and administrators, and the service, by its access control list.

use std::{ffi::OsStr, io, path::Path};

/// What an account may do with a file, or with a folder and what is made in it from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Read, and enter a folder.
    Read,
    /// Everything.
    Full,
}

/// Lets only the owner, SYSTEM, the administrators, and where named one account more, such as `NT SERVICE\TowpathAgent`, open a file,
/// or a folder and what is made in it from now on. What the folder above would grant does not count any more.
///
/// # Errors
/// As Windows reports; `NotFound` also for an account that Windows does not know; `InvalidInput` for a link, and for a file that has
/// other names as well: who may write in a folder decides what lies behind them. `Unsupported` elsewhere.
pub fn restrict_to_owner(path: &Path, also: Option<(&str, Right)>) -> io::Result<()> {
    #[cfg(windows)]
    return windows::restrict(path, also);
    #[cfg(not(windows))]
    {
        let _ = (path, also);
        super::unsupported()
    }
}

/// As [`restrict_to_owner`], for what has this name in a folder: also where the folder is changed into a link meanwhile, nothing is
/// changed that lies elsewhere.
///
/// # Errors
/// As [`restrict_to_owner`]; `InvalidInput` also for a folder that is a link, and for what lies elsewhere.
pub fn restrict_to_owner_in(folder: &Path, name: &OsStr, also: Option<(&str, Right)>) -> io::Result<()> {
    #[cfg(windows)]
    return windows::restrict_in(folder, name, also);
    #[cfg(not(windows))]
    {
        let _ = (folder, name, also);
        super::unsupported()
    }
}

/// Lets everybody on this machine read a folder and what is made in it from now on, and nobody but the owner, SYSTEM and the
/// administrators change it.
///
/// # Errors
/// As Windows reports; `InvalidInput` for a link; `Unsupported` elsewhere.
pub fn publish(path: &Path) -> io::Result<()> {
    #[cfg(windows)]
    return windows::publish(path);
    #[cfg(not(windows))]
    {
        let _ = path;
        super::unsupported()
    }
}

/// Whether nobody but the owner, SYSTEM, the administrators, service accounts and this process's own user, which may be a managed
/// account of the domain, may open it.
///
/// # Errors
/// As Windows reports; `Unsupported` elsewhere.
pub fn is_private(path: &Path) -> io::Result<bool> {
    #[cfg(windows)]
    return windows::is_private(path);
    #[cfg(not(windows))]
    {
        let _ = path;
        super::unsupported()
    }
}

/// Whether it has a list of its own, as [`restrict_to_owner`] gives it, to which a list of the folder above adds nothing.
///
/// # Errors
/// As Windows reports; `Unsupported` elsewhere.
pub fn is_protected(path: &Path) -> io::Result<bool> {
    #[cfg(windows)]
    return windows::is_protected(path);
    #[cfg(not(windows))]
    {
        let _ = path;
        super::unsupported()
    }
}

/// Whether it, and not what a link at its place leads to, belongs to this process's user, SYSTEM, the administrators or a service account: nobody else can then have put it there
/// beforehand and keep the right to change who may open it.
///
/// # Errors
/// As Windows reports; `Unsupported` elsewhere.
pub fn is_of_trusted(path: &Path) -> io::Result<bool> {
    #[cfg(windows)]
    return windows::is_of_trusted(path);
    #[cfg(not(windows))]
    {
        let _ = path;
        super::unsupported()
    }
}

/// As [`is_of_trusted`], but for service accounts: what one of them has made beforehand is not to be used by administrators.
///
/// # Errors
/// As Windows reports; `Unsupported` elsewhere.
pub fn is_of_administrators(path: &Path) -> io::Result<bool> {
    #[cfg(windows)]
    return windows::is_of_administrators(path);
    #[cfg(not(windows))]
    {
        let _ = path;
        super::unsupported()
    }
}

#[cfg(windows)]
#[expect(unsafe_code, reason = "access control lists have only this interface")]
mod windows;

#[cfg(windows)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_restricted_is_private_and_still_ours() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "x").unwrap();
        assert!(!is_protected(&file).unwrap(), "what is made in a folder has the list of the folder");
        restrict_to_owner(&file, None).unwrap();
        assert!(is_private(&file).unwrap() && is_protected(&file).unwrap() && is_of_trusted(&file).unwrap());
        assert!(is_of_administrators(&file).unwrap());
        assert_eq!(std::fs::read(&file).unwrap(), b"x");
        publish(folder.path()).unwrap();
        assert!(!is_private(folder.path()).unwrap(), "everybody may read it");
        assert!(restrict_to_owner(&folder.path().join("none"), None).is_err());
    }

    #[test]
    fn what_has_other_names_or_lies_elsewhere_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, file) = (folder.path().join("state"), folder.path().join("sam"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(&file, "x").unwrap();
        let refused = |done: io::Result<()>| assert_eq!(done.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        refused(restrict_to_owner_in(&inner, r"..\sam".as_ref(), None));
        assert!(!is_protected(&file).unwrap());
        std::fs::hard_link(&file, inner.join("key")).unwrap();
        refused(restrict_to_owner(&inner.join("key"), None));
        refused(restrict_to_owner_in(&inner, "key".as_ref(), None));
        assert!(!is_protected(&file).unwrap());
        std::fs::remove_file(&file).unwrap();
        restrict_to_owner_in(&inner, "key".as_ref(), None).unwrap();
    }
}
