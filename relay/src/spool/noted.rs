//! What a session was refused, as the audit trail has it.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use towpath_transfer::{Code, TransferId};
use towpath_transport::server::Lack;

use super::reason;
use crate::audit::{Action, Witness};

/// The transfers that a session has missed last: many files of one are asked for in a row, and are noted once.
#[derive(Debug, Default)]
pub(super) struct Missed(Mutex<BTreeSet<TransferId>>);

impl Missed {
    /// Each transfer among the names of a path that led to nothing may be someone else's.
    pub(super) fn note<'a>(&self, witness: Option<&Witness>, names: impl Iterator<Item = &'a str>) {
        let Some(witness) = witness else { return };
        let ids: BTreeSet<TransferId> = names.filter_map(|name| name.parse().ok()).collect();
        if ids.is_empty() {
            return;
        }
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids.difference(&last) {
            witness.missed(*id);
        }
        *last = ids;
    }
}

/// An upload is refused.
pub(super) fn note_refused(witness: Option<&Witness>, id: TransferId, code: Code) {
    if let Some(witness) = witness {
        witness.note(witness.entry(Action::Upload).transfer(id).failed(code));
    }
}

/// There is no room, and in what stands in the detail.
pub(super) fn note_full(witness: Option<&Witness>, id: TransferId, lack: Lack) {
    if let Some(witness) = witness {
        witness.note(witness.entry(Action::Upload).transfer(id).detail(reason(lack)).failed(Code::SpoolFull));
    }
}
