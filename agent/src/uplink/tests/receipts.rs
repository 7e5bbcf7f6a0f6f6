//! Receipts that must not be believed, and those that say no.

use towpath_journal::{Point, TransferRecord};
use towpath_keys::Namespace;
use towpath_transfer::{
    Code, Stage, TransferEvent, TransferState,
    api::Trouble,
    receipt::{Receipt, ReceiptStage, SignedReceipt},
    state::Rejection,
};
use towpath_transport::files::{FileStore as _, write_whole};

use super::world::{World, identity};
use crate::{chain, config::Trust, trust::pinned_receivers};

async fn parked_with(world: &World, code: Code) {
    let record = world.send().await;
    let why = record.last_failure.clone().map(|failure| failure.code);
    assert_eq!((record.parked, why), (true, Some(code)), "{record:?}");
    // The payload stays until a receipt is believed.
    assert!(world.files.stat(&world.parts.layout.transfer(record.key.id).join("sales.csv.bz2")).is_ok());
}

#[tokio::test]
async fn a_changed_receipt_is_not_believed() {
    let world = World::new();
    world.far.forge_receipts(true);
    parked_with(&world, Code::ReceiptInvalid).await;
}

#[tokio::test]
async fn a_receipt_for_something_else_is_not_believed() {
    let wrong: [fn(&mut Receipt); 5] = [
        |receipt| receipt.manifest = Some(towpath_transfer::digest::Sha256Digest::of(b"other")),
        |receipt| receipt.agent = "other".parse().unwrap(),
        |receipt| receipt.tenant = "other".parse().unwrap(),
        |receipt| receipt.signer = identity(99).fingerprint(),
        |receipt| receipt.direction = towpath_transfer::Direction::Downlink,
    ];
    for change in wrong {
        let world = World::new();
        world.far.change_receipts(Some(change));
        parked_with(&world, Code::ReceiptInvalid).await;
    }
}

#[tokio::test]
async fn what_is_good_beside_a_receipt_that_is_none_counts() {
    for garbage in ["{}", "not a receipt", ""] {
        let world = World::new();
        world.far.show_before(Some(SignedReceipt { receipt: garbage.into(), signature: String::new() }));
        assert_eq!(world.send().await.state, TransferState::Imported, "{garbage}");
    }
}

/// A transfer whose payload has gone, and of which the journal does not know that it has ended.
async fn ended_unknown_to_the_journal(world: &mut World) -> TransferRecord {
    let id = world.plan(false).await;
    world.crash_at(id, Stage::Receipt, Point::AfterJournal).await;
    world.crash_at(id, Stage::Receipt, Point::AfterEffect).await;
    world.record(id).await
}

#[tokio::test]
async fn a_receipt_that_is_here_counts_also_where_the_relay_has_forgotten_the_transfer() {
    let mut world = World::new();
    let record = ended_unknown_to_the_journal(&mut world).await;
    let id = record.key.id;
    assert_eq!(record.state.word(), "accepted");
    assert!(world.files.stat(&world.parts.layout.transfer(id).join("sales.csv.bz2")).is_err());
    world.far.forget(id);
    assert_eq!(world.finish(id).await.state, TransferState::Imported);
}

#[tokio::test]
async fn so_it_does_where_it_was_to_be_pushed_again() {
    let mut world = World::new();
    // An earlier version asked the relay first, which had forgotten it.
    let record = ended_unknown_to_the_journal(&mut world).await;
    let id = record.key.id;
    world.parts.journal.append_unleased(&record.key, record.events, &TransferEvent::PushAgain).await.unwrap();
    world.far.forget(id);
    assert_eq!(world.finish(id).await.state, TransferState::Imported);
}

#[tokio::test]
async fn receipts_that_contradict_each_other_end_nothing_however_often_it_is_tried() {
    let world = World::new();
    let id = world.plan(false).await;
    let key = world.parts.key(id);
    let rejected = Receipt {
        version: 1,
        transfer: id,
        tenant: key.tenant.clone(),
        agent: key.agent.clone(),
        direction: towpath_transfer::Direction::Uplink,
        stage: ReceiptStage::Rejected,
        manifest: None,
        rows: Vec::new(),
        reason: Some(Rejection { code: Code::Superseded, detail: "no".into() }),
        time: "2026-03-01T12:00:00Z".parse().unwrap(),
        signer: world.far.receiver_key.fingerprint(),
    };
    let bytes = rejected.to_bytes().unwrap();
    let signature = world.far.receiver_key.sign(Namespace::Receipt, &bytes).unwrap();
    world.far.show_before(Some(SignedReceipt { receipt: String::from_utf8(bytes).unwrap(), signature }));
    for _ in 0..3 {
        let record = world.finish(id).await;
        assert_eq!((record.parked, record.last_failure.map(|failure| failure.code)), (true, Some(Code::ReceiptInvalid)));
        assert!(world.files.stat(&world.parts.layout.transfer(id).join("sales.csv.bz2")).is_ok());
        world.parts.journal.unpark(&key).await.unwrap();
    }
}

#[tokio::test]
async fn a_receipt_by_the_relay_is_none_by_the_receiver() {
    let world = World::new();
    // The relay's own key signs for the receiver: pinned, but not as a receiver.
    world.far.change_receipts(Some(|receipt| {
        if receipt.stage == ReceiptStage::Accepted {
            receipt.stage = ReceiptStage::Imported;
        } else {
            receipt.agent = "other".parse().unwrap();
        }
    }));
    parked_with(&world, Code::ReceiverUnapproved).await;
}

#[tokio::test]
async fn an_unapproved_receiver_is_believed_once_it_is_approved() {
    let world = World::with_trust(Trust::FirstUse);
    let mut approving = World::with_trust(Trust::FirstUse);
    let mut config = (*approving.parts.config.now()).clone();
    config.trust = Trust::Approve;
    approving.parts.config = crate::config::SharedConfig::new(config);
    parked_with(&approving, Code::ReceiverUnapproved).await;
    let id = approving.parts.journal.list(&towpath_journal::Filter::default(), 1, None).await.unwrap()[0].key.id;
    approving.parts.trust.pin("app", Namespace::Receipt, approving.far.receiver_key.public_key()).unwrap();
    approving.parts.journal.unpark(&approving.parts.key(id)).await.unwrap();
    assert_eq!(approving.finish(id).await.state, TransferState::Imported);

    // At first use nobody is asked.
    assert!(pinned_receivers(&world.parts.trust.signers().unwrap(), &world.parts.agent).is_empty());
    assert_eq!(world.send().await.state, TransferState::Imported);
    let pinned = pinned_receivers(&world.parts.trust.signers().unwrap(), &world.parts.agent);
    assert_eq!(pinned.iter().map(|receiver| receiver.name.as_str()).collect::<Vec<_>>(), ["app"]);
    // What a person has taken back is not believed at what would be a first use once more.
    assert_eq!(world.parts.trust.withdraw(&world.parts.agent, "app").unwrap(), 1);
    assert_eq!(world.parts.trust.withdraw(&world.parts.agent, "app").unwrap_err().code(), Code::NotFound);
    let record = world.send().await;
    assert_eq!((record.parked, record.last_failure.map(|failure| failure.code)), (true, Some(Code::ReceiverUnapproved)));
}

#[tokio::test]
async fn a_rejection_is_the_end_and_says_why() {
    let world = World::new();
    let rejection = Rejection { code: Code::DigestMismatch, detail: "sales.csv.bz2 was changed".into() };
    world.far.reject(Some(rejection.clone()));
    let rejected = world.send().await;
    assert_eq!(rejected.state, TransferState::Rejected { rejection });
    let folder = world.parts.layout.transfer(rejected.key.id);
    assert!(world.files.stat(&folder.join("sales.csv.bz2")).is_err());
    let chain = chain::verify(&world.parts, rejected.key.id).await.unwrap();
    assert!(chain.ok && chain.links.last().unwrap().says.contains("digest-mismatch"), "{chain:?}");
    world.far.reject(None);
    assert_eq!(world.send().await.state, TransferState::Imported);
}

#[tokio::test]
async fn trouble_at_the_relay_is_seen_here() {
    let world = World::new();
    let trouble = |parked| {
        let (code, detail) = (Code::AppServerUnreachable, "connecting failed".to_owned());
        Some(Trouble { code, stage: Stage::Forward, parked, detail })
    };
    world.far.set_trouble(trouble(false));
    let id = world.plan(false).await;
    let record = world.drive(id, |record| record.last_failure.is_some()).await;
    assert_eq!((record.state.word(), record.parked), ("accepted", false));
    let failure = record.last_failure.unwrap();
    assert_eq!(failure.code, Code::AppServerUnreachable);
    assert!(failure.report.contains("the relay reports at forward"), "{}", failure.report);
    world.far.set_trouble(trouble(true));
    assert!(world.finish(id).await.parked);
    world.far.set_trouble(None);
    world.parts.journal.unpark(&world.parts.key(id)).await.unwrap();
    assert_eq!(world.finish(id).await.state, TransferState::Imported);
}

#[tokio::test]
async fn the_chain_says_what_was_changed_afterwards() {
    let world = World::new();
    let id = world.send().await.key.id;
    let layout = &world.parts.layout;
    let change = |path: &std::path::Path| {
        let text = towpath_transport::files::read_whole(&*world.files, path, 1_000_000).unwrap();
        write_whole(&*world.files, path, &[text.as_slice(), b" "].concat()).unwrap();
        text
    };
    for (path, code) in [
        (layout.manifest(id), Code::SignatureInvalid),
        (layout.packed(id), Code::PackedListInvalid),
        (layout.receipt(id, ReceiptStage::Accepted), Code::ReceiptInvalid),
        (layout.receipt(id, ReceiptStage::Imported), Code::ReceiptInvalid),
    ] {
        let before = change(&path);
        let chain = chain::verify(&world.parts, id).await.unwrap();
        assert!(!chain.ok, "{path:?}");
        assert_eq!(chain.problem().unwrap().code(), code, "{path:?} {chain:?}");
        write_whole(&*world.files, &path, &before).unwrap();
        assert!(chain::verify(&world.parts, id).await.unwrap().ok);
    }
    world.files.remove(&layout.receipt(id, ReceiptStage::Imported)).unwrap();
    let chain = chain::verify(&world.parts, id).await.unwrap();
    assert!(chain.problem().unwrap().report().contains("is missing"));
    assert_eq!(chain.problem().unwrap().report().matches("receipt-invalid").count(), 1);
    let none = towpath_transfer::TransferId::new(&world.clock, &towpath_transfer::clock::SeededEntropy::new(5));
    assert_eq!(chain::verify(&world.parts, none).await.unwrap_err().code(), Code::NotFound);
}
