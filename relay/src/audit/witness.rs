//! The trail of one caller or session.

use towpath_transfer::{AgentName, Code, TenantName, TransferId, api::Role, failure::Result};

use super::{Action, Entry, Trail, Who, trail::Asked};
use crate::scope::Caller;

/// Notes what one caller does.
#[derive(Debug, Clone)]
pub struct Witness {
    trail: Trail,
    who: Who,
    tenant: TenantName,
    agent: Option<AgentName>,
}

impl Witness {
    /// Of this caller.
    #[must_use]
    pub fn of(trail: &Trail, caller: &Caller) -> Self {
        let agent = (caller.role() == Role::Agent).then(|| caller.name().clone());
        Self { trail: trail.clone(), who: Who::caller(caller), tenant: caller.scope().tenant().clone(), agent }
    }

    /// An entry that has succeeded, to be completed and given to [`Witness::note`].
    #[must_use]
    pub fn entry(&self, action: Action) -> Entry {
        Entry::new(self.trail.now(), self.who.clone(), action).of(&self.tenant)
    }

    /// Notes it.
    pub fn note(&self, entry: Entry) {
        self.trail.note(entry);
    }

    /// Notes how something about a transfer has ended. What is not there may be someone else's.
    pub fn tried<T>(&self, action: Action, id: TransferId, detail: &str, tried: &Result<T>) {
        self.note(self.entry(action).transfer(id).detail(detail).tried(tried));
        self.looked(id, tried);
    }

    /// What is not there may be someone else's; nothing else of a look is noted.
    pub fn looked<T>(&self, id: TransferId, tried: &Result<T>) {
        if tried.as_ref().is_err_and(|failure| failure.code() == Code::NotFound) {
            self.missed(id);
        }
    }

    /// Nothing was found under this id, which may be someone else's.
    pub fn missed(&self, id: TransferId) {
        let (at, who) = (self.trail.now(), self.who.clone());
        self.trail.asked(Asked { at, who, tenant: self.tenant.clone(), agent: self.agent.clone(), id });
    }
}
