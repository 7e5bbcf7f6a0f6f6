//! A command of root on a state folder that belongs to the service's user becomes that user before it opens anything: what root
//! makes there, the service could not open.

use std::path::Path;

use towpath_transfer::failure::Result;

/// Becomes the owner of `folder`, with the owner's group and supplementary groups and for good, where this process is root and
/// somebody else owns it. Where the folder is not there yet, or root's own, nothing changes. To be called while the process has
/// one thread of its own and has opened nothing in the folder.
///
/// # Errors
/// `service-failed` where the system does not let this process become that user, as in a container without the right to.
#[cfg(unix)]
pub fn become_owner_of(folder: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;

    if !is_root() {
        return Ok(());
    }
    match std::fs::metadata(folder) {
        Ok(metadata) if metadata.uid() != 0 => unix::become_user(metadata.uid(), metadata.gid(), folder),
        // What hinders looking at it hinders the command as well, and is said there.
        _ => Ok(()),
    }
}

/// Whether this process is root.
#[cfg(unix)]
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// There is no root on other systems.
#[cfg(not(unix))]
#[must_use]
pub fn is_root() -> bool {
    false
}

/// A user of this host, and its own group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserIds {
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The user of this name; `None` where there is none.
///
/// # Errors
/// `service-failed` where the user database cannot be asked.
#[cfg(unix)]
pub fn user(name: &str) -> Result<Option<UserIds>> {
    let found = nix::unistd::User::from_name(name).map_err(|error| {
        let message = format!("the user database cannot be asked for {name}");
        towpath_transfer::Failure::park(towpath_transfer::Code::ServiceFailed, message).caused_by(error)
    })?;
    Ok(found.map(|user| UserIds { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

/// There is nobody else to become.
///
/// # Errors
/// None on this system.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "on other systems it can fail")]
pub fn become_owner_of(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(unix)]
mod unix {
    use std::{ffi::CString, path::Path};

    use nix::unistd::{Gid, Uid, User, initgroups, setgid, setgroups, setuid};
    use towpath_transfer::{Code, Failure, failure::Result};

    /// Becomes a user; one without an entry in the user database has the group of the folder and no other.
    pub(super) fn become_user(uid: u32, gid_of_folder: u32, folder: &Path) -> Result<()> {
        let failed = |error: nix::Error| {
            let message = format!(
                "{} belongs to user id {uid}, and this command, run as root, could not become that user; run it as that user instead",
                folder.display()
            );
            Failure::park(Code::ServiceFailed, message).caused_by(error)
        };
        let uid = Uid::from_raw(uid);
        let user = User::from_uid(uid).map_err(failed)?;
        let name = user.as_ref().and_then(|user| CString::new(user.name.as_str()).ok());
        let gid = user.map_or(Gid::from_raw(gid_of_folder), |user| user.gid);
        // The groups first: whoever is not root any more cannot change them.
        match name {
            Some(name) => initgroups(&name, gid).map_err(failed)?,
            None => setgroups(&[gid]).map_err(failed)?,
        }
        setgid(gid).map_err(failed)?;
        setuid(uid).map_err(failed)?;
        tracing::debug!(%uid, %gid, "{} belongs to this user, so this command goes on as that user", folder.display());
        Ok(())
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_ones_own_or_none_at_all_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let before = nix::unistd::geteuid();
        become_owner_of(folder.path()).unwrap();
        become_owner_of(&folder.path().join("none")).unwrap();
        assert_eq!(nix::unistd::geteuid(), before);
    }
}
