//! A relay in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::watch;
use towpath_transfer::{
    AgentName, Code, Failure, TransferId,
    announcement::SignedAnnouncement,
    api::{
        Acknowledgement, AppReceipt, Complete, DownlinkState, Downlinks, EnrolmentAnswer, EnrolmentRequest, Expectations, Export,
        ExportStatus, KeyRotation, Offer, Peers, Releases, UplinkState, UplinkStatus,
    },
    digest::Sha256Digest,
    failure::Result,
};

use super::RelayApi;

/// Answers from memory: what a test has put there, `claimed` for a transfer that is called complete, and `announced` for one that
/// is exported. Clones share it. It has no clock: a long poll is answered when the list changes, however long that takes.
#[derive(Debug, Clone)]
pub struct MemoryRelay {
    state: Arc<Mutex<State>>,
    offers: Arc<watch::Sender<Vec<Offer>>>,
}

impl Default for MemoryRelay {
    fn default() -> Self {
        Self { state: Arc::default(), offers: Arc::new(watch::Sender::new(Vec::new())) }
    }
}

#[derive(Debug, Default)]
struct State {
    enrolment: Option<EnrolmentAnswer>,
    peers: Vec<towpath_transfer::api::Peer>,
    completed: BTreeMap<TransferId, Complete>,
    uplinks: BTreeMap<TransferId, UplinkStatus>,
    receipts: Vec<AppReceipt>,
    acknowledged: Vec<(TransferId, Acknowledgement)>,
    exports: BTreeMap<TransferId, (Export, ExportStatus)>,
    announcement: Option<SignedAnnouncement>,
    pinned: Option<u64>,
    expectations: Option<Expectations>,
    releases: Releases,
    rotations: Vec<KeyRotation>,
    failures: VecDeque<(When, Failure)>,
    meanwhile: Meanwhile,
}

/// What happens while a call is under way.
#[derive(Default)]
struct Meanwhile(Option<Box<dyn FnOnce() + Send>>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meanwhile").field(&self.0.is_some()).finish()
    }
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

    /// Does this while the next question for the other ends is under way.
    pub fn while_asked_for_peers(&self, meanwhile: impl FnOnce() + Send + 'static) {
        self.lock().meanwhile = Meanwhile(Some(Box::new(meanwhile)));
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

    /// The releases that are approved from now on.
    pub fn set_releases(&self, releases: Releases) {
        self.lock().releases = releases;
    }

    /// What waits for the agent from now on; a long poll learns of it at once.
    pub fn set_offers(&self, offers: Vec<Offer>) {
        self.offers.send_replace(offers);
    }

    /// Every acknowledgement, each once however often it came.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<(TransferId, Acknowledgement)> {
        self.lock().acknowledged.clone()
    }

    /// What a receiver has told of a transfer.
    #[must_use]
    pub fn exported(&self, transfer: TransferId) -> Option<Export> {
        self.lock().exports.get(&transfer).map(|(export, _)| export.clone())
    }

    /// Where an exported transfer stands from now on. Nothing happens where it was not exported.
    pub fn set_export_status(&self, status: ExportStatus) {
        if let Some((_, known)) = self.lock().exports.get_mut(&status.transfer) {
            *known = status;
        }
    }

    /// Forgets an exported transfer, as a relay does that was restored from an old backup.
    pub fn forget_export(&self, transfer: TransferId) {
        self.lock().exports.remove(&transfer);
    }

    /// The relay's keys from now on.
    pub fn set_announcement(&self, announcement: SignedAnnouncement) {
        self.lock().announcement = Some(announcement);
    }

    /// The serial that whoever asked for the announcement last has said to have pinned.
    #[must_use]
    pub fn pinned(&self) -> Option<u64> {
        self.lock().pinned
    }

    /// The changes of keys it was told of, each once.
    #[must_use]
    pub fn rotations(&self) -> Vec<KeyRotation> {
        self.lock().rotations.clone()
    }

    /// What the agent has said last that is to be expected of it.
    #[must_use]
    pub fn expected(&self) -> Option<Expectations> {
        self.lock().expectations.clone()
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
        let meanwhile = self.lock().meanwhile.0.take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        self.call(|state| Ok(Peers { peers: state.peers.clone() }))
    }

    async fn rotate_key(&self, rotation: &KeyRotation) -> Result<KeyRotation> {
        self.call(|state| {
            let known = state.rotations.iter().find(|known| known.old_key == rotation.old_key);
            match known {
                Some(known) if known.new_key == rotation.new_key => return Ok(known.clone()),
                Some(_) => return Err(Failure::park(Code::RotationInvalid, "another key follows the old one already")),
                None => {}
            }
            state.rotations.push(rotation.clone());
            Ok(rotation.clone())
        })
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

    async fn downlinks(&self, _wait: Duration, unless: Option<Sha256Digest>) -> Result<Downlinks> {
        let known = unless.unwrap_or_else(|| Downlinks::of(Vec::new()).version);
        let mut offers = self.offers.subscribe();
        let changed = offers.wait_for(|offers| Downlinks::of(offers.clone()).version != known).await;
        let list =
            changed.map(|offers| offers.clone()).map_err(|e| Failure::park(Code::Internal, "waiting for offers").caused_by(e))?;
        self.call(|_| Ok(Downlinks::of(list)))
    }

    async fn acknowledge(&self, transfer: TransferId, acknowledgement: &Acknowledgement) -> Result<()> {
        let unknown = || Failure::park(Code::NotFound, format!("acknowledging transfer {transfer}: the relay does not know it"));
        let known = self.offers.borrow().iter().any(|offer| offer.transfer == transfer);
        self.call(|state| {
            let acknowledged = (transfer, acknowledgement.clone());
            if !known && !state.acknowledged.contains(&acknowledged) {
                return Err(unknown());
            }
            if !state.acknowledged.contains(&acknowledged) {
                state.acknowledged.push(acknowledged);
            }
            self.offers.send_if_modified(|offers| {
                let before = offers.len();
                offers.retain(|offer| offer.transfer != transfer);
                offers.len() != before
            });
            Ok(())
        })
    }

    async fn export(&self, export: &Export) -> Result<ExportStatus> {
        self.call(|state| {
            let transfer = export.transfer;
            let (known, status) = state.exports.entry(transfer).or_insert_with(|| {
                let status = ExportStatus { transfer, state: DownlinkState::Announced, trouble: None, receipts: vec![] };
                (export.clone(), status)
            });
            if known == export {
                return Ok(status.clone());
            }
            Err(Failure::park(Code::TransferFrozen, format!("transfer {transfer} was announced as something else")))
        })
    }

    async fn export_status(&self, agent: &AgentName, transfer: TransferId) -> Result<ExportStatus> {
        let unknown = || Failure::park(Code::NotFound, format!("asking for transfer {transfer}: the relay does not know it"));
        self.call(|state| {
            let known = state.exports.get(&transfer).filter(|(export, _)| export.agent == *agent);
            known.map(|(_, status)| status.clone()).ok_or_else(unknown)
        })
    }

    async fn expect(&self, expectations: &Expectations) -> Result<()> {
        self.call(|state| {
            state.expectations = Some(expectations.clone());
            Ok(())
        })
    }

    async fn releases(&self) -> Result<Releases> {
        self.call(|state| Ok(state.releases.clone()))
    }

    async fn announcement(&self, pinned: u64) -> Result<SignedAnnouncement> {
        let unknown = || Failure::park(Code::NotFound, "asking for the relay's keys: it announces none");
        self.call(|state| {
            state.pinned = Some(pinned);
            state.announcement.clone().ok_or_else(unknown)
        })
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::{
        Sequence,
        receipt::SignedReceipt,
        state::{Announced, Identity},
    };

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
    async fn a_long_poll_learns_of_an_offer_and_an_acknowledgement_takes_it_away_once() {
        let relay = MemoryRelay::new();
        let transfer: TransferId = ID.parse().unwrap();
        let identity = Identity { manifest: Sha256Digest::of(b"m"), packed: Sha256Digest::of(b"p") };
        let waiting = tokio::spawn({
            let relay = relay.clone();
            async move { relay.downlinks(Duration::from_secs(55), None).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        relay.set_offers(vec![Offer { transfer, sequence: Sequence(1), identity }]);
        let list = waiting.await.unwrap().unwrap();
        assert_eq!(list.downlinks.len(), 1);
        let waiting = tokio::spawn({
            let (relay, version) = (relay.clone(), list.version);
            async move { relay.downlinks(Duration::from_secs(55), Some(version)).await }
        });
        let signed = SignedReceipt { receipt: "r".into(), signature: "s".into() };
        let acknowledgement = Acknowledgement { signed };
        for _ in 0..2 {
            relay.acknowledge(transfer, &acknowledgement).await.unwrap();
        }
        assert_eq!(relay.acknowledged(), [(transfer, acknowledgement.clone())]);
        assert!(waiting.await.unwrap().unwrap().downlinks.is_empty());
        let other: TransferId = "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5c".parse().unwrap();
        assert_eq!(relay.acknowledge(other, &acknowledgement).await.unwrap_err().code(), Code::NotFound);
    }

    #[tokio::test]
    async fn an_export_is_idempotent_and_can_be_forgotten() {
        let relay = MemoryRelay::new();
        let (agent, transfer): (AgentName, TransferId) = ("erp".parse().unwrap(), ID.parse().unwrap());
        let announced = Announced { path: "/d/manifest.json".parse().unwrap(), size: 1, manifest: Sha256Digest::of(b"m") };
        let export = Export { transfer, agent: agent.clone(), sequence: Sequence(1), announced };
        for _ in 0..2 {
            assert_eq!(relay.export(&export).await.unwrap().state, DownlinkState::Announced);
        }
        let other = Export { sequence: Sequence(2), ..export.clone() };
        assert_eq!(relay.export(&other).await.unwrap_err().code(), Code::TransferFrozen);
        assert_eq!(relay.exported(transfer), Some(export));
        assert!(relay.export_status(&agent, transfer).await.is_ok());
        assert_eq!(relay.export_status(&"other".parse().unwrap(), transfer).await.unwrap_err().code(), Code::NotFound);
        relay.forget_export(transfer);
        assert_eq!(relay.export_status(&agent, transfer).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(relay.announcement(0).await.unwrap_err().code(), Code::NotFound);
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
