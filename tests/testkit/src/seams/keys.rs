//! The files of an agent's key on a disk that can lose them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use towpath_agent::{key_files::KeyFiles, layout::Layout};
use towpath_keys::{Identity, KeyKind};
use towpath_transfer::{Code, Entropy, Failure, failure::Result};
use towpath_transport::files::{FileStore, file_failure, ignore_missing, read_if_there, write_whole};

/// The longest file of a key, in bytes.
const MAX_BYTES: u64 = 1 << 10;

/// Every key that a host ever had: its files name them, because a private key leaves its own file in no other way.
#[derive(Clone, Default)]
pub(super) struct Made(Arc<Mutex<BTreeMap<String, Identity>>>);

impl Made {
    pub(super) fn note(&self, identity: &Identity) -> Vec<u8> {
        let line = identity.public_line().to_string();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone(), identity.clone());
        line.into_bytes()
    }

    fn find(&self, line: &[u8]) -> Option<Identity> {
        let line = str::from_utf8(line).ok()?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(line).cloned()
    }
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Made")
    }
}

/// The key in use and the one that is to follow, each in one file, with the steps that the files of a real host go through.
#[derive(Debug, Clone)]
pub struct DiskKeys {
    pub(super) files: Arc<dyn FileStore>,
    pub(super) layout: Layout,
    pub(super) made: Made,
}

impl DiskKeys {
    /// Writes the key that enrols.
    ///
    /// # Errors
    /// As the disk reports.
    pub(super) fn begin(&self, identity: &Identity) -> Result<()> {
        let path = self.layout.key();
        write_whole(&*self.files, &path, &self.made.note(identity)).map_err(|e| file_failure("writing", &path, e))
    }

    fn read(&self, path: &std::path::Path) -> Result<Option<Identity>> {
        let bytes = read_if_there(&*self.files, path, MAX_BYTES).map_err(|e| file_failure("reading", path, e))?;
        let damaged = || Failure::park(Code::KeyInvalid, format!("the key file {} cannot be used", path.display()));
        bytes.map(|bytes| self.made.find(&bytes).ok_or_else(damaged)).transpose()
    }
}

impl KeyFiles for DiskKeys {
    fn load(&self) -> Result<Identity> {
        let path = self.layout.key();
        self.read(&path)?.ok_or_else(|| Failure::park(Code::KeyMissing, format!("there is no key file {}", path.display())))
    }

    fn has_next(&self) -> bool {
        self.files.stat(&self.layout.next_key()).is_ok()
    }

    fn next(&self, kind: KeyKind, entropy: &dyn Entropy) -> Result<Identity> {
        let path = self.layout.next_key();
        if let Some(there) = self.read(&path)? {
            return Ok(there);
        }
        let made = Identity::generate(kind, entropy)?;
        write_whole(&*self.files, &path, &self.made.note(&made)).map_err(|e| file_failure("writing", &path, e))?;
        Ok(made)
    }

    fn put_next_in_place(&self) -> Result<()> {
        let (from, to) = (self.layout.next_key(), self.layout.key());
        self.read(&from)?.ok_or_else(|| Failure::park(Code::KeyMissing, "there is no key that is to follow"))?;
        let moved = self.files.rename(&from, &to).and_then(|()| self.files.sync_dir(self.layout.state()));
        moved.map_err(|e| file_failure("writing", &to, e))
    }

    fn remove_next(&self) -> Result<()> {
        let path = self.layout.next_key();
        let removed = ignore_missing(self.files.remove(&path)).and_then(|()| self.files.sync_dir(self.layout.state()));
        removed.map_err(|e| file_failure("removing", &path, e))
    }
}
