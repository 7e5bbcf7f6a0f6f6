//! How much the spool holds, and how much it may hold: in all, per tenant, and with a reserve left on the disk.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use towpath_transfer::TenantName;
use towpath_transport::{
    files::{FileKind, FileStore},
    server::{FsError, FsResult, stored::is_hidden_name},
};

use super::PAGE;
use crate::scope::TenantScope;

/// The disk is asked for its free space again after so many bytes.
const ASK_AGAIN_BYTES: u64 = 4 * 1024 * 1024;
/// Folders below the spool's root: tenant, agent, direction, transfer.
const DEPTH: usize = 4;

/// How much the spool may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Bytes of all tenants.
    pub total_bytes: u64,
    /// Bytes of one tenant.
    pub tenant_bytes: u64,
    /// Bytes that must stay free on the disk.
    pub reserve_bytes: u64,
    /// Transfers of one agent that have a folder and are not complete.
    pub open_transfers: usize,
    /// Files of one transfer, those still being written included.
    pub files_per_transfer: usize,
}

/// Counts bytes against [`SpoolLimits`].
#[derive(Debug)]
pub struct Quota {
    files: Arc<dyn FileStore>,
    root: PathBuf,
    limits: SpoolLimits,
    used: Mutex<Used>,
    /// Bytes granted since the disk was last asked.
    unasked: AtomicU64,
}

#[derive(Debug, Default)]
struct Used {
    total: u64,
    tenants: HashMap<TenantName, u64>,
}

impl Quota {
    pub(super) fn new(files: Arc<dyn FileStore>, root: PathBuf, limits: SpoolLimits) -> Self {
        // The first growth asks the disk.
        Self { files, root, limits, used: Mutex::default(), unasked: AtomicU64::new(ASK_AGAIN_BYTES) }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &SpoolLimits {
        &self.limits
    }

    /// Bytes of all tenants.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().total
    }

    /// Bytes of one tenant.
    #[must_use]
    pub fn used_by(&self, scope: &TenantScope) -> u64 {
        self.lock().tenants.get(scope.tenant()).copied().unwrap_or(0)
    }

    /// Whether the disk has less than its reserve. Blocking.
    #[must_use]
    pub fn below_reserve(&self) -> bool {
        // A disk that cannot be asked has no reserve; writing to it will tell.
        self.files.free_space(&self.root).is_ok_and(|free| free < self.limits.reserve_bytes)
    }

    /// Takes room for `bytes` more. Blocking, now and then.
    ///
    /// # Errors
    /// [`FsError::Full`]; nothing is taken then.
    pub fn grow(&self, scope: &TenantScope, bytes: u64) -> FsResult<()> {
        if self.unasked.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes) >= ASK_AGAIN_BYTES {
            if self.below_reserve() {
                // Asked again at the next try, so that the spool recovers as soon as space returns.
                self.unasked.store(ASK_AGAIN_BYTES, Ordering::SeqCst);
                return Err(FsError::Full);
            }
            self.unasked.store(0, Ordering::SeqCst);
        }
        let mut used = self.lock();
        let total = used.total.saturating_add(bytes);
        let tenant = used.tenants.get(scope.tenant()).copied().unwrap_or(0).saturating_add(bytes);
        if total > self.limits.total_bytes || tenant > self.limits.tenant_bytes {
            return Err(FsError::Full);
        }
        used.total = total;
        used.tenants.insert(scope.tenant().clone(), tenant);
        Ok(())
    }

    /// Gives room back.
    pub fn shrink(&self, scope: &TenantScope, bytes: u64) {
        let mut used = self.lock();
        used.total = used.total.saturating_sub(bytes);
        let left = used.tenants.get(scope.tenant()).copied().unwrap_or(0).saturating_sub(bytes);
        if left == 0 {
            used.tenants.remove(scope.tenant());
        } else {
            used.tenants.insert(scope.tenant().clone(), left);
        }
    }

    /// Counts everything there is, and removes hidden files that an earlier process did not finish.
    pub(super) fn scan(&self) -> io::Result<()> {
        let mut found = Used::default();
        for tenant in self.names(&self.root)? {
            let Ok(name) = tenant.parse::<TenantName>() else { continue };
            let bytes = self.walk(&self.root.join(&tenant), DEPTH - 1, true)?;
            found.total = found.total.saturating_add(bytes);
            found.tenants.insert(name, bytes);
        }
        *self.lock() = found;
        Ok(())
    }

    /// The bytes of one transfer's folder; 0 where there is none.
    pub(super) fn size_of(&self, folder: &Path) -> io::Result<u64> {
        match self.walk(folder, 0, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            other => other,
        }
    }

    fn walk(&self, dir: &Path, depth: usize, tidy: bool) -> io::Result<u64> {
        let (mut sum, mut after) = (0u64, None::<String>);
        loop {
            let page = self.files.list(dir, after.as_deref(), PAGE)?;
            for entry in &page {
                let path = dir.join(&entry.name);
                match entry.stat.kind {
                    FileKind::Dir if depth > 0 => sum = sum.saturating_add(self.walk(&path, depth - 1, tidy)?),
                    FileKind::File if tidy && is_hidden_name(&entry.name) => self.files.remove(&path)?,
                    FileKind::File => sum = sum.saturating_add(entry.stat.len),
                    FileKind::Dir | FileKind::Other => {}
                }
            }
            if page.len() < PAGE {
                return Ok(sum);
            }
            after = page.last().map(|entry| entry.name.clone());
        }
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        loop {
            let page = self.files.list(dir, names.last().map(String::as_str), PAGE)?;
            let last = page.len() < PAGE;
            names.extend(page.into_iter().map(|entry| entry.name));
            if last {
                return Ok(names);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
