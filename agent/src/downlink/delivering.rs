//! One at a time: file work on a delivery folder goes on where nobody waits for it any more, as after a pause, and two at once would take
//! each other's files away half written.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use towpath_transfer::{Code, Failure, TransferId, failure::Result};

/// The transfers whose files are being put into a delivery folder. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Delivering(Arc<Mutex<HashSet<TransferId>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    of: Delivering,
    id: TransferId,
}

impl Delivering {
    /// Begins with the files of a transfer. Whatever works on them holds the turn to its end.
    ///
    /// # Errors
    /// `delivery-failed` (retry) while an earlier try still works on them.
    pub fn begin(&self, id: TransferId) -> Result<Turn> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return Ok(Turn { of: self.clone(), id });
        }
        let message = format!("an earlier try still works on the files of transfer {id}; its end is waited for");
        Err(Failure::retry(Code::DeliveryFailed, message))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.of.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
