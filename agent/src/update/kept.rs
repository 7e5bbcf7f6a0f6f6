//! Root's folder of updates: everybody may read it, and nobody but root (on Windows administrators and the system) writes it.

use std::{fs, io, path::Path};

use towpath_transfer::failure::Result;
use towpath_transport::files::file_failure;

/// Makes the folder where there is none, and closes it to everybody else who would write.
///
/// # Errors
/// As the disk reports; `file-failed` on Windows, where everybody may make folders in ProgramData, for one that somebody else has made.
pub fn claim(kept: &Path) -> Result<()> {
    let failed = |error: io::Error| file_failure("making the folder", kept, error);
    fs::create_dir_all(kept).map_err(failed)?;
    close(kept).map_err(failed)
}

#[cfg(unix)]
fn close(kept: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(kept, fs::Permissions::from_mode(0o755))
}

#[cfg(windows)]
fn close(kept: &Path) -> io::Result<()> {
    use towpath_platform::acl;
    if !acl::is_of_administrators(kept)? {
        let advice = "it was made by somebody who is no administrator; look at what is in it, and remove it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, advice));
    }
    acl::publish(kept)
}
