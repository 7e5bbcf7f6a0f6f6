//! Where keys lie, and how they get from one place to another without ever being nowhere.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use towpath_keys::{HostKeys, Identity};
use towpath_transfer::{Code, Failure, failure::Result};
use towpath_transport::files::{FileKind, file_failure, ignore_missing, write_whole};

use super::{KeyUse, folder::KeyFolder};
use crate::door::tls::{self, Certificate};

/// The most files of one key.
const MAX_FILES: usize = 16;
/// The name of a next certificate's chain.
pub(super) const CERTIFICATE: &str = "certificate.pem";
/// The name of a next certificate's private key.
pub(super) const KEY: &str = "key.pem";

/// The announced keys that are not used yet.
#[derive(Debug, Default)]
pub(super) struct Next {
    pub(super) host: Option<HostKeys>,
    pub(super) receipt: Option<Identity>,
    pub(super) certificate: Option<Certificate>,
}

/// Held while keys are looked at and changed, by the service and by commands.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl KeyFolder {
    pub(super) fn next(&self) -> Result<Next> {
        let folder = |what| {
            let folder = self.next_folder(what);
            Ok::<_, Failure>(self.exists(&folder)?.then_some(folder))
        };
        let mut next = Next::default();
        if let Some(folder) = folder(KeyUse::Host)? {
            next.host = Some(HostKeys::load_or_generate(&folder, &*self.entropy)?);
        }
        if let Some(folder) = folder(KeyUse::Receipt)? {
            next.receipt = Some(Identity::load(&folder.join("receipt_key"))?);
        }
        if let Some(folder) = folder(KeyUse::Certificate)? {
            next.certificate = Some(Certificate::read(&folder.join(CERTIFICATE), &folder.join(KEY), true)?);
        }
        Ok(next)
    }

    /// Puts into place what a switch has decided.
    pub(super) fn finish(&self) -> Result<()> {
        for what in KeyUse::ALL {
            let from = self.switching_folder(what);
            if !self.exists(&from)? {
                continue;
            }
            match what {
                KeyUse::Host => self.move_files(&from, &self.host_folder())?,
                KeyUse::Receipt => self.move_files(&from, &self.state)?,
                KeyUse::Certificate => self.install_certificate(&from)?,
            }
            ignore_missing(self.files.remove_dir_all(&from)).map_err(|e| file_failure("removing", &from, e))?;
        }
        Ok(())
    }

    pub(super) fn move_files(&self, from: &Path, to: &Path) -> Result<()> {
        self.make_folder(to)?;
        for name in self.names(from)? {
            self.move_over(&from.join(&name), &to.join(&name))?;
        }
        Ok(())
    }

    pub(super) fn install_certificate(&self, from: &Path) -> Result<()> {
        let (mut chain, key) = (tls::read(&from.join(CERTIFICATE))?, tls::read(&from.join(KEY))?);
        let (chain_path, key_path) = self.certificate_targets()?;
        if chain_path == key_path {
            chain.extend_from_slice(&key);
        } else {
            write_whole(&*self.files, &key_path, &key).map_err(|e| file_failure("writing", &key_path, e))?;
        }
        write_whole(&*self.files, &chain_path, &chain).map_err(|e| file_failure("writing", &chain_path, e))
    }

    /// Where the certificate and its key lie: behind links, so that a link stays one.
    pub(super) fn certificate_targets(&self) -> Result<(PathBuf, PathBuf)> {
        let (chain, key, _) = tls::files(&self.tls, &self.tls_folder());
        self.make_folder(&self.tls_folder())?;
        let real = |path: PathBuf| match fs::canonicalize(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(path),
            other => other.map_err(|e| file_failure("looking for", &path, e)),
        };
        Ok((real(chain)?, real(key)?))
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        let (chain, key) = self.certificate_targets()?;
        for path in [chain, key] {
            let probe = path.with_file_name(".towpath-probe");
            let tried = self.files.create(&probe).and_then(|file| {
                drop(file);
                self.files.remove(&probe)
            });
            tried.map_err(|e| {
                let message = format!(
                    "{} cannot be written: put the announced certificate there yourself, a running relay takes it within seconds",
                    path.display()
                );
                Failure::park(Code::FileFailed, message).caused_by(e)
            })?;
        }
        Ok(())
    }

    /// Renames, durably: at the new name first, so that it is never nowhere.
    pub(super) fn move_over(&self, from: &Path, to: &Path) -> Result<()> {
        let failed = |e| file_failure("moving into place", to, e);
        self.files.rename(from, to).map_err(failed)?;
        for path in [to, from] {
            self.files.sync_dir(path.parent().unwrap_or(path)).map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn drop_next(&self, what: KeyUse) -> Result<()> {
        let (folder, hidden) = (self.next_folder(what), self.state.join("next").join(".gone"));
        ignore_missing(self.files.remove_dir_all(&hidden)).map_err(|e| file_failure("clearing", &hidden, e))?;
        self.move_over(&folder, &hidden)?;
        self.files.remove_dir_all(&hidden).map_err(|e| file_failure("removing", &hidden, e))
    }

    pub(super) fn make_folder(&self, folder: &Path) -> Result<()> {
        self.files.create_dir_all(folder).map_err(|e| file_failure("making the folder", folder, e))
    }

    pub(super) fn exists(&self, folder: &Path) -> Result<bool> {
        match self.files.stat(folder) {
            Ok(stat) => Ok(stat.kind == FileKind::Dir),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(file_failure("looking for", folder, e)),
        }
    }

    pub(super) fn names(&self, folder: &Path) -> Result<Vec<String>> {
        let entries = match self.files.list(folder, None, MAX_FILES) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(|e| file_failure("listing", folder, e))?,
        };
        let plain = entries.into_iter().filter(|entry| entry.stat.kind == FileKind::File && !entry.name.starts_with('.'));
        Ok(plain.map(|entry| entry.name).collect())
    }

    pub(super) fn lock(&self) -> Result<Lock> {
        let path = self.state.join("keys.lock");
        let failed = |e| file_failure("locking", &path, e);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(Lock { _file: file })
    }

    pub(super) fn next_folder(&self, what: KeyUse) -> PathBuf {
        self.state.join("next").join(what.as_str())
    }

    pub(super) fn switching_folder(&self, what: KeyUse) -> PathBuf {
        self.state.join("switching").join(what.as_str())
    }

    pub(super) fn host_folder(&self) -> PathBuf {
        self.state.join("host_keys")
    }

    pub(super) fn tls_folder(&self) -> PathBuf {
        self.state.join("tls")
    }

    pub(super) fn kept_path(&self) -> PathBuf {
        self.state.join("announcement.json")
    }
}
