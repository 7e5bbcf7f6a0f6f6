//! The keys of ends, changed by themselves.

use towpath_transfer::{api::KeyRotation, failure::Result};

use super::RelayService;
use crate::{access::Access, audit::Action, scope::Caller};

impl RelayService {
    /// The calling end takes a new key. Idempotent; the answer is what counts.
    ///
    /// # Errors
    /// Those of [`crate::registry::Registry::rotate`]; [`towpath_transfer::Code::NotFound`] to a receiver; [`towpath_transfer::Code::FileFailed`].
    pub async fn rotate_key(&self, caller: &Caller, rotation: &KeyRotation) -> Result<KeyRotation> {
        let tried = self.try_rotate(caller, rotation).await;
        let witness = self.witness(caller);
        let detail = format!("{} to {}", rotation.old_key.fingerprint(), rotation.new_key.fingerprint());
        witness.note(witness.entry(Action::Rotate).detail(detail).tried(&tried));
        tried
    }

    async fn try_rotate(&self, caller: &Caller, rotation: &KeyRotation) -> Result<KeyRotation> {
        // Agents do not follow a receiver yet: it would lock itself out.
        caller.as_agent()?;
        // First, and once for each change, so that a registry that is put back later does not undo it.
        let noted = async {
            let Some(access) = &self.access else { return Ok(()) };
            let (tenant, name) = (caller.scope().tenant().clone(), caller.name().clone());
            access.note(Access::Rotated { tenant, name, rotation: Box::new(rotation.clone()) }).await
        };
        self.registry.rotate(caller, rotation, noted).await
    }
}
