//! A journal that does not do what it is told.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use towpath_journal::{
    Count, Created, Filter, History, Journal, Lease, NewTransfer, Prune, Release, Result, SequenceChoice, TransferRecord, Wanted,
};
use towpath_transfer::{AgentName, Direction, Sequence, TenantName, TransferEvent, TransferKey, TransferState, state::Place};

use super::Wrong;

#[derive(Debug)]
pub(super) struct Broken {
    pub(super) inner: Arc<dyn Journal>,
    pub(super) what: Wrong,
    /// What all receivers have noted.
    pub(super) noted: Arc<Mutex<Vec<NewTransfer>>>,
}

impl Broken {
    /// What receivers of other tenants have noted, as if it were over: nobody works on it any more.
    fn of_others(&self, own: &NewTransfer) -> Vec<NewTransfer> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.push(own.clone());
        let others = noted.iter().filter(|one| one.key.tenant != own.key.tenant).cloned();
        let state = |direction| match direction {
            Direction::Uplink => TransferState::Imported,
            Direction::Downlink => TransferState::Delivered,
        };
        others.map(|one| NewTransfer { state: state(one.direction), sequence: SequenceChoice::Given(None), ..one }).collect()
    }
}

#[async_trait]
impl Journal for Broken {
    fn place(&self) -> Place {
        self.inner.place()
    }

    async fn create(&self, new: NewTransfer) -> Result<Created> {
        if self.what == Wrong::NotesOfOthers {
            for other in self.of_others(&new) {
                let _ = self.inner.create(other).await?;
            }
        }
        self.inner.create(new).await
    }

    async fn acquire_wanted(&self, wanted: &Wanted, limit: usize, ttl: Duration) -> Result<Vec<Lease>> {
        self.inner.acquire_wanted(wanted, limit, ttl).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Timestamp> {
        self.inner.renew(lease, ttl).await
    }

    async fn append(&self, lease: &Lease, expected: u64, event: &TransferEvent) -> Result<TransferRecord> {
        self.inner.append(lease, expected, event).await
    }

    async fn append_unleased(&self, key: &TransferKey, expected: u64, event: &TransferEvent) -> Result<TransferRecord> {
        self.inner.append_unleased(key, expected, event).await
    }

    async fn release(&self, lease: &Lease, how: Release) -> Result<()> {
        if self.what == Wrong::KeepsLeases { Ok(()) } else { self.inner.release(lease, how).await }
    }

    async fn unpark(&self, key: &TransferKey) -> Result<TransferRecord> {
        self.inner.unpark(key).await
    }

    async fn break_leases(&self) -> Result<u64> {
        self.inner.break_leases().await
    }

    async fn get(&self, key: &TransferKey) -> Result<Option<TransferRecord>> {
        self.inner.get(key).await
    }

    async fn list(&self, filter: &Filter, limit: usize, before: Option<u64>) -> Result<Vec<TransferRecord>> {
        self.inner.list(filter, limit, before).await
    }

    async fn history(&self, key: &TransferKey) -> Result<History> {
        let mut history = self.inner.history(key).await?;
        if self.what == Wrong::LosesEvents {
            history.entries.pop();
        }
        Ok(history)
    }

    async fn last_sequence(&self, tenant: &TenantName, agent: &AgentName, direction: Direction) -> Result<Option<Sequence>> {
        self.inner.last_sequence(tenant, agent, direction).await
    }

    async fn counts(&self) -> Result<Vec<Count>> {
        self.inner.counts().await
    }

    async fn withdraw(&self, key: &TransferKey) -> Result<bool> {
        self.inner.withdraw(key).await
    }

    async fn begin_anew(&self, new: NewTransfer) -> Result<bool> {
        self.inner.begin_anew(new).await
    }

    async fn prune(&self, what: &Prune) -> Result<u64> {
        self.inner.prune(what).await
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }
}
