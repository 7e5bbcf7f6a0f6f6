//! A journal that fails on purpose, before or after the effect: after it, the effect has happened and its
//! acknowledgement is lost.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use towpath_transfer::{AgentName, Direction, Sequence, TenantName, TransferEvent, TransferKey, state::Place};

use crate::{
    error::{JournalError, Result},
    prune::Prune,
    record::{Count, Created, Filter, History, Lease, NewTransfer, Release, TransferRecord, Wanted},
    traits::Journal,
};

/// A method of [`Journal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Journal::create`].
    Create,
    /// [`Journal::acquire`] and [`Journal::acquire_wanted`].
    Acquire,
    /// [`Journal::renew`].
    Renew,
    /// [`Journal::append`].
    Append,
    /// [`Journal::append_unleased`].
    AppendUnleased,
    /// [`Journal::release`].
    Release,
    /// [`Journal::unpark`].
    Unpark,
    /// [`Journal::break_leases`].
    BreakLeases,
    /// [`Journal::get`].
    Get,
    /// [`Journal::list`].
    List,
    /// [`Journal::history`].
    History,
    /// [`Journal::last_sequence`].
    LastSequence,
    /// [`Journal::counts`].
    Counts,
    /// [`Journal::withdraw`].
    Withdraw,
    /// [`Journal::begin_anew`].
    BeginAnew,
    /// [`Journal::prune`].
    Prune,
    /// [`Journal::health`].
    Health,
}

/// On which side of the effect a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing has happened.
    Before,
    /// It has happened, and the caller is told that it has not.
    After,
}

/// Which calls fail. A closure is one: `|operation, nth| …`, with `nth` counting the calls of each operation from 1.
pub trait FaultPlan: Send + Sync {
    /// Whether the `nth` call of `operation` fails, and how.
    fn fault(&self, operation: Operation, nth: u64) -> Option<Fault>;
}

impl<F: Fn(Operation, u64) -> Option<Fault> + Send + Sync> FaultPlan for F {
    fn fault(&self, operation: Operation, nth: u64) -> Option<Fault> {
        self(operation, nth)
    }
}

/// A journal whose calls fail by a plan.
pub struct FaultJournal {
    inner: Arc<dyn Journal>,
    plan: Box<dyn FaultPlan>,
    calls: Mutex<BTreeMap<Operation, u64>>,
}

impl fmt::Debug for FaultJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultJournal").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl FaultJournal {
    /// `inner`, failing by `plan`.
    pub fn new(inner: Arc<dyn Journal>, plan: impl FaultPlan + 'static) -> Self {
        Self { inner, plan: Box::new(plan), calls: Mutex::default() }
    }

    async fn through<T>(&self, operation: Operation, effect: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let nth = {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            let nth = calls.entry(operation).or_default();
            *nth += 1;
            *nth
        };
        let broken = |side| {
            let what = format!("{operation:?} call {nth} of the journal failed {side} its effect, as planned");
            Err(JournalError::storage(what, "injected fault"))
        };
        match self.plan.fault(operation, nth) {
            None => effect.await,
            Some(Fault::Before) => broken("before"),
            Some(Fault::After) => {
                effect.await?;
                broken("after")
            }
        }
    }
}

#[async_trait]
impl Journal for FaultJournal {
    fn place(&self) -> Place {
        self.inner.place()
    }

    async fn create(&self, new: NewTransfer) -> Result<Created> {
        self.through(Operation::Create, self.inner.create(new)).await
    }

    async fn acquire_wanted(&self, wanted: &Wanted, limit: usize, ttl: Duration) -> Result<Vec<Lease>> {
        self.through(Operation::Acquire, self.inner.acquire_wanted(wanted, limit, ttl)).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Timestamp> {
        self.through(Operation::Renew, self.inner.renew(lease, ttl)).await
    }

    async fn append(&self, lease: &Lease, expected: u64, event: &TransferEvent) -> Result<TransferRecord> {
        self.through(Operation::Append, self.inner.append(lease, expected, event)).await
    }

    async fn append_unleased(&self, key: &TransferKey, expected: u64, event: &TransferEvent) -> Result<TransferRecord> {
        self.through(Operation::AppendUnleased, self.inner.append_unleased(key, expected, event)).await
    }

    async fn release(&self, lease: &Lease, how: Release) -> Result<()> {
        self.through(Operation::Release, self.inner.release(lease, how)).await
    }

    async fn unpark(&self, key: &TransferKey) -> Result<TransferRecord> {
        self.through(Operation::Unpark, self.inner.unpark(key)).await
    }

    async fn break_leases(&self) -> Result<u64> {
        self.through(Operation::BreakLeases, self.inner.break_leases()).await
    }

    async fn get(&self, key: &TransferKey) -> Result<Option<TransferRecord>> {
        self.through(Operation::Get, self.inner.get(key)).await
    }

    async fn list(&self, filter: &Filter, limit: usize, before: Option<u64>) -> Result<Vec<TransferRecord>> {
        self.through(Operation::List, self.inner.list(filter, limit, before)).await
    }

    async fn history(&self, key: &TransferKey) -> Result<History> {
        self.through(Operation::History, self.inner.history(key)).await
    }

    async fn last_sequence(&self, tenant: &TenantName, agent: &AgentName, direction: Direction) -> Result<Option<Sequence>> {
        self.through(Operation::LastSequence, self.inner.last_sequence(tenant, agent, direction)).await
    }

    async fn counts(&self) -> Result<Vec<Count>> {
        self.through(Operation::Counts, self.inner.counts()).await
    }

    async fn withdraw(&self, key: &TransferKey) -> Result<bool> {
        self.through(Operation::Withdraw, self.inner.withdraw(key)).await
    }

    async fn begin_anew(&self, new: NewTransfer) -> Result<bool> {
        self.through(Operation::BeginAnew, self.inner.begin_anew(new)).await
    }

    async fn prune(&self, what: &Prune) -> Result<u64> {
        self.through(Operation::Prune, self.inner.prune(what)).await
    }

    async fn health(&self) -> Result<()> {
        self.through(Operation::Health, self.inner.health()).await
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::{
        Code,
        clock::{ManualClock, SeededEntropy},
    };

    use super::*;
    use crate::{
        MemoryJournal, SequenceChoice,
        conformance::{self, Fixture},
    };

    fn memory(clock: &ManualClock) -> Arc<dyn Journal> {
        Arc::new(MemoryJournal::new(Place::Agent, Arc::new(clock.clone()), Arc::new(SeededEntropy::new(1))))
    }

    #[tokio::test]
    async fn without_faults_it_keeps_the_contract() {
        conformance::all(async || {
            let clock = ManualClock::new(conformance::start());
            Fixture { journal: Arc::new(FaultJournal::new(memory(&clock), |_, _| None)), binding: None, clock }
        })
        .await;
    }

    #[tokio::test]
    async fn a_fault_before_leaves_nothing_and_a_fault_after_leaves_the_effect() {
        let inner = memory(&ManualClock::new(conformance::start()));
        let journal = FaultJournal::new(Arc::clone(&inner), |operation, nth| match (operation, nth) {
            (Operation::Create, 1) => Some(Fault::Before),
            (Operation::Create, 2) => Some(Fault::After),
            _ => None,
        });
        let new = conformance::planned(1, SequenceChoice::Next);
        assert_eq!(journal.create(new.clone()).await.unwrap_err().code(), Code::JournalFailed);
        assert_eq!(inner.get(&new.key).await.unwrap(), None);
        journal.create(new.clone()).await.unwrap_err();
        assert!(inner.get(&new.key).await.unwrap().is_some());
        assert!(!journal.create(new).await.unwrap().is_new(), "repeating finds what the lost acknowledgement was for");
    }
}
