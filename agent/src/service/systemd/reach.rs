//! Whether the service's user reaches a file, by what owners and permission bits say.

use std::{
    fs::{self, Metadata},
    io::ErrorKind,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use towpath_host::owner::UserIds;

/// The permission bits of the owner; those of the group and of others lie three and six bits lower.
const READ: u32 = 0o400;
const EXECUTE: u32 = 0o100;

/// What to say of a program that the service could not start, where that is so. Further groups of the user and access control lists
/// are not looked at, so this is a note: `doctor` asks the running service itself.
pub(super) fn program(path: &Path, user: &str, ids: UserIds) -> Option<String> {
    // A program is executed, one that is a script read as well.
    note(path, "start", user, ids, EXECUTE)
}

/// The same of a secret that it could not read.
pub(super) fn secret(path: &Path, user: &str, ids: UserIds) -> Option<String> {
    note(path, "read", user, ids, READ)
}

/// Whether a user may pass through a folder.
pub(super) fn passes(folder: &Metadata, ids: UserIds) -> bool {
    allows(folder, ids, EXECUTE)
}

fn note(path: &Path, to_do: &str, user: &str, ids: UserIds, wanted: u32) -> Option<String> {
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        // A secret that is missing was told of when it was to be given.
        Err(error) if error.kind() == ErrorKind::NotFound && wanted == READ => return None,
        Err(error) => return Some(format!("note: {user} could not {to_do} {shown}: {error}")),
    };
    // What the links on the way lead to decides.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let closed = real.ancestors().skip(1).find(|folder| {
        let found = fs::metadata(folder);
        found.is_ok_and(|found| !passes(&found, ids))
    });
    if let Some(folder) = closed {
        let folder = folder.display();
        return Some(format!(
            "note: {user} could not {to_do} {shown}: {folder} is closed to it; put the file where it is let in"
        ));
    }
    if !metadata.is_file() {
        return Some(format!("note: {user} could not {to_do} {shown}: it is no file"));
    }
    let mode = metadata.mode() & 0o777;
    (!allows(&metadata, ids, wanted))
        .then(|| format!("note: {user} could not {to_do} {shown}: its permissions ({mode:04o}) do not let it"))
}

/// Whether a user may do what `wanted`, a bit of the owner's, says.
fn allows(found: &Metadata, ids: UserIds, wanted: u32) -> bool {
    if ids.uid == 0 {
        return true;
    }
    let shift = if found.uid() == ids.uid {
        0
    } else if found.gid() == ids.gid {
        3
    } else {
        6
    };
    found.mode() & (wanted >> shift) != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Nobody's: neither owner nor group of anything here.
    const OTHER: UserIds = UserIds { uid: 54_321, gid: 54_321 };

    #[test]
    fn what_keeps_a_user_from_a_program_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, open) = (folder.path().join("home"), fs::Permissions::from_mode(0o755));
        fs::set_permissions(folder.path(), open.clone()).unwrap();
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(&inner, open.clone()).unwrap();
        let tell = inner.join("tell");
        let said = |ids| program(&tell, "towpath", ids);
        assert!(said(OTHER).unwrap().contains("No such file"));
        fs::write(&tell, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&tell, fs::Permissions::from_mode(0o644)).unwrap();
        let reached = folder.path().ancestors().all(|folder| fs::metadata(folder).unwrap().mode() & 0o001 != 0);
        // A folder for temporary files may lie in a private one.
        if reached {
            assert!(said(OTHER).unwrap().contains("its permissions (0644) do not let it"));
            fs::set_permissions(&tell, open).unwrap();
            assert_eq!(said(OTHER), None);
        }
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o700)).unwrap();
        let closed = said(OTHER).unwrap();
        assert!(closed.starts_with("note: towpath could not start ") && closed.contains("is closed to it"), "{closed}");
        let metadata = fs::metadata(&inner).unwrap();
        let (uid, gid) = (metadata.uid(), metadata.gid());
        assert!(allows(&metadata, UserIds { uid, gid: 0 }, EXECUTE) && !allows(&metadata, UserIds { uid: OTHER.uid, gid }, READ));
        assert_eq!(secret(&folder.path().join("none"), "towpath", OTHER), None, "that was told already");
    }
}
