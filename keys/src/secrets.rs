//! Where this machine keeps passwords of others.

use std::{
    env,
    path::{Path, PathBuf},
};

use towpath_transfer::{Code, Failure, Secret, failure::Result, secret::SecretSources};

use crate::file;

/// The variable in which systemd names the folder with a service's credentials (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The secrets of this machine: its environment, its files, what systemd passes to the service, and what Windows protects.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemSecrets;

impl SecretSources for SystemSecrets {
    fn variable(&self, name: &str) -> Option<String> {
        env::var(name).ok()
    }

    fn file(&self, path: &Path, limit: u64) -> Result<Vec<u8>> {
        file::read_secret(path, limit)
    }

    fn credential(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        credential(env::var_os(CREDENTIALS).map(PathBuf::from).as_deref(), name, limit)
    }

    #[cfg(windows)]
    fn unprotect(&self, protected: &[u8]) -> Result<Vec<u8>> {
        let message = "this value was not made on this machine; make it anew: towpath-agent secret protect";
        let unusable = |error| Failure::park(Code::SecretUnusable, message).caused_by(error);
        towpath_platform::dpapi::unprotect(protected).map_err(unusable)
    }

    #[cfg(not(windows))]
    fn unprotect(&self, _: &[u8]) -> Result<Vec<u8>> {
        let message = "`dpapi:` values can be read on Windows only, on the machine where they were made; \
                       here use `file:PATH`, `env:NAME` or `systemd:NAME`";
        Err(Failure::park(Code::SecretUnusable, message))
    }
}

/// The reference to a password that only this machine can read again, `dpapi:…`.
///
/// # Errors
/// `secret-unusable` where Windows refuses, and on other systems, with what to do there.
#[cfg(windows)]
pub fn protect(password: &str) -> Result<String> {
    let failed = |error| Failure::park(Code::SecretUnusable, "Windows did not protect the secret").caused_by(error);
    let protected = towpath_platform::dpapi::protect(password.as_bytes()).map_err(failed)?;
    Ok(towpath_transfer::secret::Protected::new(protected).reference())
}

/// The reference to a password that only this machine can read again, `dpapi:…`.
///
/// # Errors
/// `secret-unusable` where Windows refuses, and on other systems, with what to do there.
#[cfg(not(windows))]
pub fn protect(_: &str) -> Result<String> {
    let message = "only Windows protects secrets for one machine; here put it into a file of the service's user: \
                   `install -m 600 -o towpath /dev/stdin /etc/towpath/erp-password`, and write \"file:/etc/towpath/erp-password\"; \
                   or let systemd pass it: LoadCredential= in the unit, and \"systemd:NAME\"";
    Err(Failure::park(Code::SecretUnusable, message))
}

/// Reads a secret of this machine. `what` names it in messages. Blocking.
///
/// # Errors
/// `secret-unusable`, tried again later.
pub fn read(secret: &Secret, what: &str) -> Result<String> {
    secret.read(what, &SystemSecrets)
}

fn credential(folder: Option<&Path>, name: &str, limit: u64) -> Result<Vec<u8>> {
    let unusable = |why: String| Failure::park(Code::SecretUnusable, why);
    let folder = folder.ok_or_else(|| {
        unusable(
            "systemd passes it to the service alone (LoadCredential= in its unit), and this program was not started so"
                .to_owned(),
        )
    })?;
    file::read_credential(&folder.join(name), limit)?
        .ok_or_else(|| unusable(format!("systemd has passed no credential {name}: the unit needs LoadCredential={name}:/path")))
}

#[cfg(test)]
mod tests {
    use towpath_transfer::secret::MAX_SECRET_FILE_BYTES;

    use super::*;

    #[test]
    fn a_credential_is_a_file_in_the_folder_that_systemd_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("erp"), "hush\n").unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(folder.path().join("erp"), std::os::unix::fs::PermissionsExt::from_mode(0o440)).unwrap();
        let of = |folder: Option<&Path>, name: &str| credential(folder, name, MAX_SECRET_FILE_BYTES);
        assert_eq!(of(Some(folder.path()), "erp").unwrap(), b"hush\n");
        let none = of(Some(folder.path()), "other").unwrap_err();
        assert!(none.code() == Code::SecretUnusable && none.message().contains("LoadCredential=other:/path"), "{none}");
        assert!(of(None, "erp").unwrap_err().message().contains("LoadCredential="));
        assert_eq!(credential(Some(folder.path()), "erp", 2).unwrap_err().code(), Code::KeyInvalid);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused_with_path_mode_and_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pw");
        std::fs::write(&path, "hunter2").unwrap();
        for mode in [0o644, 0o640, 0o620, 0o602] {
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            let failure = read(&Secret::File(path.clone()), "the password").unwrap_err();
            let report = failure.report();
            assert_eq!(failure.code(), Code::SecretUnusable);
            assert!(report.contains(&format!("(mode {mode:04o})")), "{report}");
            assert!(report.contains(&format!("chmod 600 {}", path.display())) && !report.contains("hunter2"), "{report}");
        }
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(read(&Secret::File(path), "the password").unwrap(), "hunter2");
    }

    #[cfg(not(windows))]
    #[test]
    fn what_windows_protects_is_read_nowhere_else() {
        let secret = Secret::parse("dpapi:aHVudGVyMg==", Path::new("")).unwrap();
        let report = read(&secret, "the password").unwrap_err().report();
        assert!(report.contains("on Windows only") && !report.contains("aHVudGVyMg"), "{report}");
    }
}
