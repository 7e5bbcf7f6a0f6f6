//! Room that is taken before the bytes are there, and what the relay writes into it itself.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use towpath_host::Bytes;
use towpath_transfer::{Code, Failure, TransferId, failure::Result};
use towpath_transport::{
    files::{file_failure, write_whole},
    server::Lack,
};

use super::{Room, Spool};
use crate::scope::{AgentScope, TenantScope};

/// What there is no room in, in a sentence that says nothing of the machine or of other tenants.
pub(crate) const IN_PUBLIC: [&str; 3] = [
    "the tenant's quota at the relay is used up",
    "the relay's spool is used up, or what is left is kept for others",
    "the relay's disk is full, or down to its reserve",
];

/// The sentence for one of them.
const fn in_public(lack: Lack) -> &'static str {
    let [quota, spool, disk] = IN_PUBLIC;
    match lack {
        Lack::Quota => quota,
        Lack::Spool => spool,
        Lack::Disk | Lack::Reserve => disk,
    }
}

/// Room in the spool for a tenant's bytes that are still to come. What was not used is given back in the end.
#[derive(Debug)]
pub struct Reserved {
    spool: Arc<Spool>,
    scope: TenantScope,
    left: Mutex<u64>,
}

impl Spool {
    /// Takes room for `bytes` more that are still to be written; on the disk, too, it is held until then. Blocking.
    ///
    /// # Errors
    /// [`Code::SpoolFull`]; nothing is taken then.
    pub fn reserve(self: &Arc<Self>, scope: &TenantScope, bytes: u64) -> Result<Reserved> {
        if bytes > 0 {
            self.quota.hold(scope, bytes).map_err(|lack| self.full(scope, lack, bytes))?;
        }
        Ok(Reserved { spool: Arc::clone(self), scope: scope.clone(), left: Mutex::new(bytes) })
    }

    fn grow(&self, scope: &TenantScope, bytes: u64) -> Result<()> {
        if bytes == 0 {
            // Nothing more is asked for: what was taken before is not refused because a quota is lower now.
            return Ok(());
        }
        self.quota.grow(scope, bytes).map_err(|lack| self.full(scope, lack, bytes))
    }

    fn full(&self, scope: &TenantScope, lack: Lack, bytes: u64) -> Failure {
        let (used, quota) = (self.quota.used_by(scope), Bytes(self.quota.of(scope)));
        let what = in_public(lack);
        let message = format!("{what}: tenant {scope} needs {bytes} bytes more, and has {used} bytes of a quota of {quota}");
        Failure::retry(Code::SpoolFull, message)
    }

    /// Writes a small file of a transfer, whole and durable, into a folder that is there; it counts like every other. Blocking;
    /// repeating is safe.
    ///
    /// # Errors
    /// [`Code::SpoolFull`], [`Code::FileFailed`].
    pub fn write(&self, room: Room, scope: &AgentScope, id: TransferId, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(room, scope, id, name);
        let (old, new) = (self.length(&path)?, bytes.len() as u64);
        self.grow(scope.tenant(), new.saturating_sub(old))?;
        let written = write_whole(&*self.files, &path, bytes).map_err(|e| file_failure("write", &path, e));
        let surplus = if written.is_ok() { old.saturating_sub(new) } else { new.saturating_sub(old) };
        self.quota.shrink(scope.tenant(), surplus);
        written
    }

    /// The length of a file in bytes; 0 where there is none. Blocking.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub(crate) fn length(&self, path: &Path) -> Result<u64> {
        match self.files.stat(path) {
            Ok(stat) => Ok(stat.len),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(file_failure("look at", path, e)),
        }
    }
}

impl Reserved {
    /// Uses some of it for bytes that are written next. Where nothing is left, more is taken. The disk is asked again for what was
    /// reserved, too: it may have filled up since. Blocking, now and then.
    ///
    /// # Errors
    /// [`Code::SpoolFull`]; nothing is used then.
    pub fn take(&self, bytes: u64) -> Result<()> {
        let mut left = self.lock();
        self.ask(bytes.min(*left))?;
        self.use_up(&mut left, bytes)
    }

    /// Asks whether the disk has room for `bytes` that are written next and of which it is known only later how many they are.
    /// Uses nothing. Blocking, now and then.
    ///
    /// # Errors
    /// [`Code::SpoolFull`].
    pub fn ask(&self, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let quota = &self.spool.quota;
        quota.write_held(&self.scope, bytes).map_err(|lack| self.spool.full(&self.scope, lack, bytes))
    }

    /// Uses some of it for bytes that are on the disk already. Where nothing is left, more is taken.
    ///
    /// # Errors
    /// [`Code::SpoolFull`]; nothing is used then.
    pub fn settle(&self, bytes: u64) -> Result<()> {
        self.use_up(&mut self.lock(), bytes)
    }

    fn use_up(&self, left: &mut u64, bytes: u64) -> Result<()> {
        let own = bytes.min(*left);
        self.spool.grow(&self.scope, bytes.saturating_sub(own))?;
        self.spool.quota.written(own);
        *left = left.saturating_sub(own);
        Ok(())
    }

    /// Some of what was used is free again.
    pub fn put_back(&self, bytes: u64) {
        let mut left = self.lock();
        self.spool.quota.unwritten(bytes);
        *left = left.saturating_add(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.spool.quota.release(&self.scope, *self.lock());
    }
}
