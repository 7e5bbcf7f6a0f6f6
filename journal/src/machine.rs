//! The journal knows its machine, so that a copy of an ERP host does not send in the original's name.

use async_trait::async_trait;
use towpath_transfer::digest::Sha256Digest;

use crate::error::Result;

/// The record of the machine a journal was written on. Only a digest of the machine's id is kept.
#[async_trait]
pub trait MachineBinding: Send + Sync {
    /// Binds a journal that is not bound yet; otherwise checks that it is bound to this machine.
    ///
    /// # Errors
    /// [`crate::JournalError::HostMoved`] where it is bound to another machine; storage.
    async fn bind_or_check(&self, machine_id: &str) -> Result<()>;

    /// Binds the journal to this machine whatever it was bound to, because a person said so.
    ///
    /// # Errors
    /// Storage.
    async fn rebind(&self, machine_id: &str) -> Result<()>;
}

/// The digest that stands for a machine; the prefix keeps it from being looked up among digests of bare ids.
pub(crate) fn machine_digest(machine_id: &str) -> Sha256Digest {
    Sha256Digest::of(format!("towpath-machine@1\0{machine_id}").as_bytes())
}
