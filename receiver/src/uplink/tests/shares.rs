//! Who holds up whom: nobody, but for an agent its own.

use std::collections::BTreeSet;

use towpath_journal::{NewTransfer, SequenceChoice};
use towpath_transfer::Direction;

use super::*;
use crate::service::{AT_ONCE, AT_ONCE_PER_AGENT};

/// Steps of a stage that never end, for transfers of an agent or direction.
struct Hangs {
    stage: Stage,
    these: BTreeSet<TransferId>,
}

#[async_trait]
impl FailPoints for Hangs {
    async fn hit(&self, _: Place, stage: Stage, _: Point, key: &TransferKey) {
        if stage == self.stage && self.these.contains(&key.id) {
            std::future::pending::<()>().await;
        }
    }
}

/// Runs the receiver until `key` is over, while `hangs` hold their places.
async fn over_beside(bench: &Bench, hangs: Hangs, key: &TransferKey) {
    let parts = bench.parts_with(|parts| parts.fail_points = Arc::new(hangs));
    let (service, shutdown) = (ServiceSettings::default(), CancellationToken::new());
    let service = Service::new(Arc::clone(&parts), service, Arc::new(towpath_journal::NoObserver), Arc::new(Notify::new()));
    let serving = tokio::spawn(service.run(shutdown));
    while !over(&parts, std::slice::from_ref(key)).await {
        bench.clock.advance(std::time::Duration::from_millis(100));
        tokio::task::yield_now().await;
    }
    serving.abort();
}

#[tokio::test]
async fn an_agent_whose_transfers_never_end_holds_up_no_other() {
    assert_eq!((AT_ONCE, AT_ONCE_PER_AGENT), (8, 4));
    for stage in [Stage::Verify, Stage::Import, Stage::Receipt] {
        // Its transfers are found first.
        let bench = Bench::new().await;
        let depot = identity(2);
        let signers = bench.temp.path().join("allowed_signers");
        AllowedSigners::load(&signers).unwrap().add("depot", &crate::parts::AGENT_NAMESPACES, depot.public_key()).unwrap();
        let many = 1..=u8::try_from(AT_ONCE).unwrap() + 1;
        for n in many.clone() {
            let of_depot = Sent { agent: "depot", ..sent(n) };
            bench.land("depot", id(n), &folder(&of_depot, &depot));
        }
        bench.land("erp", id(100), &folder(&sent(100), &bench.erp));
        let key = Bench::key("erp", id(100));
        over_beside(&bench, Hangs { stage, these: many.map(id).collect() }, &key).await;
        assert_eq!(record(&bench, &key).await.state, TransferState::Imported, "{stage}");
    }
}

#[tokio::test]
async fn a_decision_is_handed_over_however_many_return_files_of_its_agent_are_awaited() {
    let bench = Bench::new().await;
    let many = 1..=u8::try_from(AT_ONCE).unwrap() + 1;
    for n in many.clone() {
        let manifest = Sha256Digest::of(&[n]);
        let notified = NewTransfer {
            key: Bench::key("erp", id(n)),
            direction: Direction::Downlink,
            job: None,
            state: TransferState::Notified { manifest },
            sequence: SequenceChoice::Next,
        };
        bench.parts.journal.create(notified).await.unwrap();
    }
    bench.land("erp", id(100), &folder(&sent(100), &bench.erp));
    let key = Bench::key("erp", id(100));
    over_beside(&bench, Hangs { stage: Stage::Receipt, these: many.map(id).collect() }, &key).await;
    assert_eq!(receipt(&bench, id(100)).stage, ReceiptStage::Imported);
}
