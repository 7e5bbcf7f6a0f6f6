//! A relay in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use towpath_transfer::{
    Code, Failure, TransferId,
    api::{AppReceipt, Complete, EnrolmentAnswer, EnrolmentRequest, Peers, UplinkState, UplinkStatus},
    failure::Result,
};

use super::RelayApi;

/// Answers from memory: what a test has put there, and `claimed` for a transfer that is called complete. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryRelay {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    enrolment: Option<EnrolmentAnswer>,
    peers: Vec<towpath_transfer::api::Peer>,
    completed: BTreeMap<TransferId, Complete>,
    uplinks: BTreeMap<TransferId, UplinkStatus>,
    receipts: Vec<AppReceipt>,
    failures: VecDeque<(When, Failure)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    After,
}

impl MemoryRelay {
    /// A relay that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The answer to every enrolment from now on.
    pub fn set_enrolment(&self, answer: EnrolmentAnswer) {
        self.lock().enrolment = Some(answer);
    }

    /// The other ends from now on.
    pub fn set_peers(&self, peers: Vec<towpath_transfer::api::Peer>) {
        self.lock().peers = peers;
    }

    /// Where an uplink stands from now on.
    pub fn set_uplink(&self, status: UplinkStatus) {
        self.lock().uplinks.insert(status.transfer, status);
    }

    /// What `complete` has named for a transfer.
    #[must_use]
    pub fn completed(&self, transfer: TransferId) -> Option<Complete> {
        self.lock().completed.get(&transfer).copied()
    }

    /// Every receipt that was posted, each once however often it came.
    #[must_use]
    pub fn receipts(&self) -> Vec<AppReceipt> {
        self.lock().receipts.clone()
    }

    /// One of the next calls, in the order given here, does nothing and fails.
    pub fn fail_before(&self, failure: Failure) {
        self.lock().failures.push_back((When::Before, failure));
    }

    /// One of the next calls, in the order given here, does its work and fails nevertheless: the lost answer.
    pub fn fail_after(&self, failure: Failure) {
        self.lock().failures.push_back((When::After, failure));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<T>(&self, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.lock();
        match state.failures.pop_front() {
            None => work(&mut state),
            Some((When::Before, failure)) => Err(failure),
            Some((When::After, failure)) => work(&mut state).and(Err(failure)),
        }
    }
}

#[async_trait]
impl RelayApi for MemoryRelay {
    async fn enrol(&self, _request: &EnrolmentRequest) -> Result<EnrolmentAnswer> {
        let unknown = || Failure::park(Code::EnrolmentUnknown, "enrolling: the relay does not know the enrolment code");
        self.call(|state| state.enrolment.clone().ok_or_else(unknown))
    }

    async fn peers(&self) -> Result<Peers> {
        self.call(|state| Ok(Peers { peers: state.peers.clone() }))
    }

    async fn complete(&self, transfer: TransferId, complete: &Complete) -> Result<UplinkStatus> {
        self.call(|state| {
            let frozen = state.uplinks.get(&transfer).is_some_and(|status| status.state != UplinkState::Incomplete);
            let before = state.completed.get(&transfer);
            if frozen && before.is_some_and(|before| before != complete) {
                return Err(Failure::park(Code::TransferFrozen, format!("transfer {transfer} was completed with other digests")));
            }
            state.completed.insert(transfer, *complete);
            let claimed =
                UplinkStatus { transfer, state: UplinkState::Claimed, missing: vec![], trouble: None, receipts: vec![] };
            if !frozen {
                state.uplinks.insert(transfer, claimed.clone());
            }
            Ok(state.uplinks.get(&transfer).cloned().unwrap_or(claimed))
        })
    }

    async fn uplink(&self, transfer: TransferId) -> Result<UplinkStatus> {
        let unknown = || Failure::park(Code::NotFound, format!("asking for transfer {transfer}: the relay does not know it"));
        self.call(|state| state.uplinks.get(&transfer).cloned().ok_or_else(unknown))
    }

    async fn post_receipt(&self, receipt: &AppReceipt) -> Result<()> {
        self.call(|state| {
            if !state.receipts.contains(receipt) {
                state.receipts.push(receipt.clone());
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::{digest::Sha256Digest, receipt::SignedReceipt};

    use super::*;

    const ID: &str = "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b";

    fn complete(text: &str) -> Complete {
        Complete { manifest: Sha256Digest::of(text.as_bytes()), packed: Sha256Digest::of(b"packed") }
    }

    #[tokio::test]
    async fn complete_is_idempotent_and_freezes() {
        let relay = MemoryRelay::new();
        let id: TransferId = ID.parse().unwrap();
        assert_eq!(relay.uplink(id).await.unwrap_err().code(), Code::NotFound);
        for _ in 0..2 {
            assert_eq!(relay.complete(id, &complete("a")).await.unwrap().state, UplinkState::Claimed);
        }
        assert_eq!(relay.complete(id, &complete("b")).await.unwrap_err().code(), Code::TransferFrozen);
        let mut status = relay.uplink(id).await.unwrap();
        status.state = UplinkState::Incomplete;
        relay.set_uplink(status);
        assert_eq!(relay.complete(id, &complete("b")).await.unwrap().state, UplinkState::Claimed);
        assert_eq!(relay.completed(id), Some(complete("b")));
    }

    #[tokio::test]
    async fn a_lost_answer_has_its_effect_once() {
        let relay = MemoryRelay::new();
        let lost = || Failure::retry(Code::RelayUnreachable, "posting");
        relay.fail_before(lost());
        relay.fail_after(lost());
        let signed = SignedReceipt { receipt: "r".into(), signature: "s".into() };
        let receipt = AppReceipt { agent: "erp".parse().unwrap(), transfer: ID.parse().unwrap(), signed };
        relay.post_receipt(&receipt).await.unwrap_err();
        assert!(relay.receipts().is_empty());
        relay.post_receipt(&receipt).await.unwrap_err();
        relay.post_receipt(&receipt).await.unwrap();
        assert_eq!(relay.receipts(), [receipt]);
    }
}
