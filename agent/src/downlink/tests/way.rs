//! The way of return files, and what may stand in it on this host.

use std::{path::Path, sync::atomic::Ordering};

use towpath_journal::Point;
use towpath_keys::Namespace;
use towpath_transfer::{Code, Direction, Stage, TransferEvent, TransferState, receipt::ReceiptStage};
use towpath_transport::files::{FileStore as _, read_whole, write_whole};

use super::world::{DELIVERY, FOLDER, Returns};
use crate::{
    chain,
    config::Trust,
    downlink::{poll, stage_files},
    uplink::tests::world::World,
    view,
};

fn names(files: &[(String, Vec<u8>)]) -> Vec<&str> {
    files.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn return_files_are_delivered_acted_on_and_signed_for() {
    let returns = Returns::new();
    let id = returns.orders().await;
    let world = &returns.world;
    let record = world.finish(id).await;
    assert_eq!(record.state, TransferState::Delivered);
    assert_eq!(names(&returns.delivered()), ["notes.txt", "orders.csv"]);
    assert_eq!(returns.delivered()[1].1, b"item\r\n1\r\n");
    let asked = returns.actions.asked.lock().unwrap().clone();
    assert_eq!(asked, [(id, vec![Path::new(FOLDER).join("orders.csv"), Path::new(FOLDER).join("notes.txt")])]);
    let acknowledged = world.far.downlinks.acknowledged();
    assert_eq!(acknowledged.len(), 1);
    let receipt = acknowledged[0].1.signed.parse().unwrap();
    assert_eq!(
        (receipt.stage, receipt.direction, receipt.key()),
        (ReceiptStage::Delivered, Direction::Downlink, record.key.clone())
    );
    // Manifest and receipt stay, the payload goes, also from the delivery folder's hidden place.
    let layout = world.parts.layout.of(Direction::Downlink);
    let kept: Vec<String> =
        world.files.list(&layout.transfer(id), None, 100).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(kept, ["MD5SUMS", "manifest.json", "manifest.json.sig", "packed.json", "receipts"]);
    assert!(world.files.stat(&stage_files::hidden(Path::new(FOLDER), id)).is_err());
    let chain = chain::verify(&world.parts, id).await.unwrap();
    assert!(chain.ok && chain.links.iter().any(|link| link.document == "delivered.json"), "{chain:?}");
    let signers = world.parts.trust.signers().unwrap();
    assert!(signers.lookup("erp", Namespace::Receipt).any(|key| key == world.parts.identity.now().public_key()));
    let detail = view::detail(&world.parts, &record).await.unwrap();
    assert_eq!((detail.kind.as_deref(), detail.view.job.as_deref()), (Some("recommended-orders"), Some("main")));
    assert_eq!(detail.delivery_folder.as_deref(), Some(FOLDER));
    assert_eq!(
        detail.files.iter().map(|file| file.placed.as_deref()).collect::<Vec<_>>(),
        [Some("orders.csv"), Some("notes.txt")]
    );
    assert_eq!(detail.seconds.keys().copied().collect::<Vec<_>>(), ["acknowledge", "deliver", "pull", "verify"]);
}

#[tokio::test]
async fn a_name_that_is_taken_is_never_overwritten() {
    let mut returns = Returns::new();
    let folder = Path::new(FOLDER);
    let files = returns.world.files.clone();
    write_whole(&*files, &folder.join("orders.csv"), b"the ERP's own").unwrap();
    let id = returns.orders().await;
    // Another one comes after the name was chosen.
    returns.stop_at(id, Stage::Deliver, Point::AfterJournal, 1).await;
    assert_eq!(returns.world.record(id).await.state.word(), "staged");
    write_whole(&*files, &folder.join("orders (2).csv"), b"as well").unwrap();
    let record = returns.world.finish(id).await;
    assert_eq!(record.state, TransferState::Delivered);
    let delivered = returns.delivered();
    assert_eq!(names(&delivered), ["notes.txt", "orders (2).csv", "orders (3).csv", "orders.csv"]);
    assert_eq!((delivered[1].1.as_slice(), delivered[3].1.as_slice()), (b"as well".as_slice(), b"the ERP's own".as_slice()));
    assert_eq!(delivered[2].1, b"item\r\n1\r\n");
    assert_eq!(returns.actions.asked.lock().unwrap()[0].1[0], folder.join("orders (3).csv"));
    let detail = view::detail(&returns.world.parts, &record).await.unwrap();
    assert_eq!(detail.files[0].placed.as_deref(), Some("orders (3).csv"));
}

#[tokio::test]
async fn a_failing_action_is_tried_again_and_nothing_is_signed_before_it_succeeds() {
    let returns = Returns::new();
    returns.actions.failures.store(2, Ordering::SeqCst);
    let id = returns.orders().await;
    assert_eq!(returns.failed(id).await, (Code::ActionFailed, false));
    assert_eq!(returns.world.record(id).await.state.word(), "placed");
    assert!(returns.world.far.downlinks.acknowledged().is_empty());
    assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
    assert_eq!(returns.actions.asked.lock().unwrap().len(), 3);
    assert_eq!(returns.delivered().len(), 2);
}

#[tokio::test]
async fn what_nobody_has_configured_waits_and_goes_on() {
    let mut returns = Returns::with("");
    let id = returns.orders().await;
    assert_eq!(returns.failed(id).await, (Code::DeliveryMissing, false));
    assert_eq!(returns.world.record(id).await.state.word(), "verified");
    returns.configure(&DELIVERY.replace("folder = \"/erp/in\"", "folder = \"/erp/gone\""));
    returns.world.parts.journal.unpark(&returns.world.parts.key(id)).await.unwrap();
    let missing = |record: &towpath_journal::TransferRecord| {
        record.last_failure.as_ref().is_some_and(|why| why.code == Code::DeliveryFailed)
    };
    returns.world.drive(id, missing).await;
    // A folder that is not there is never made: it may be a drive that comes back.
    assert!(returns.world.files.stat(Path::new("/erp/gone")).is_err());
    returns.configure(DELIVERY);
    assert_eq!(returns.retry(id).await.state, TransferState::Delivered);
}

#[tokio::test]
async fn a_full_disk_is_waited_for_here_and_there() {
    let returns = Returns::new();
    // It is noted that something waits as long as half of the reserve is free.
    returns.world.files.set_space(Some(40_000_000));
    let id = returns.orders().await;
    assert_eq!(returns.failed(id).await, (Code::DiskFull, false));
    returns.world.files.set_space(Some(30_000_000));
    returns.offer(&returns.sent(2, &[("more.csv", b"item")]));
    let taken = poll::take(&returns.world.parts, &returns.offers()).await.unwrap();
    assert_eq!((taken.new.len(), taken.left, taken.full.unwrap().code), (0, 1, Code::DiskFull));
    returns.world.files.set_space(None);
    assert_eq!(returns.take().await.new.len(), 1);
    assert_eq!(returns.retry(id).await.state, TransferState::Delivered);
}

#[tokio::test]
async fn an_interrupted_try_needs_no_more_room_than_the_first() {
    const SIZE: u64 = 90_000;
    const RESERVE: u64 = 1_000_000;
    // What the descriptions take, and the end of the payload.
    const LITTLE: u64 = 20_000;
    let bytes: Vec<u8> = (0..SIZE / 4).flat_map(|n| (n as u32).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let returns = Returns::with(&format!("{DELIVERY}\n[state]\nreserve = \"{RESERVE} B\"\n"));
    let files = &returns.world.files;
    let leave_free = |free: u64| files.set_space(Some(files.used() + RESERVE + free));
    let sent = returns.sent(1, &[("orders.csv", &bytes)]);
    let packed = sent.packed["orders.csv.bz2"].clone();
    assert!(packed.len() as u64 > 2 * LITTLE);
    let id = returns.offer(&sent);
    returns.take().await;
    // All but the end of the payload has come, and then there is room for the rest and for all of it unpacked.
    let folder = returns.world.parts.layout.of(Direction::Downlink).transfer(id);
    files.create_dir_all(&folder).unwrap();
    write_whole(&**files, &folder.join("orders.csv.bz2.part"), &packed[..packed.len() - 1_000]).unwrap();
    leave_free(SIZE + LITTLE);
    returns.world.drive(id, |record| record.state.word() == "verified").await;
    // The files were being staged, and what was staged lies there still.
    let hidden = stage_files::hidden(Path::new(FOLDER), id);
    files.create_dir_all(&hidden).unwrap();
    write_whole(&**files, &hidden.join("orders.csv"), &bytes).unwrap();
    leave_free(LITTLE);
    assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
    assert_eq!(returns.delivered()[0].1, bytes);
}

#[tokio::test]
async fn as_much_stays_free_as_is_configured() {
    let mut returns = Returns::new();
    let id = returns.orders().await;
    returns.world.files.set_space(Some(1_000_000));
    let mut config = (*returns.world.parts.config.now()).clone();
    config.state.reserve = towpath_host::Bytes(990_000);
    returns.world.parts.config = crate::config::SharedConfig::new(config.clone());
    assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
    let another = returns.offer(&returns.sent(2, &[("more.csv", b"item")]));
    returns.take().await;
    config.state.reserve = towpath_host::Bytes(1_000_000);
    returns.world.parts.config = crate::config::SharedConfig::new(config);
    assert_eq!(returns.failed(another).await, (Code::DiskFull, false));
}

#[tokio::test]
async fn files_go_to_the_folder_that_was_configured_when_they_were_staged() {
    let mut returns = Returns::new();
    let id = returns.orders().await;
    returns.stop_at(id, Stage::Deliver, Point::AfterJournal, 1).await;
    returns.world.files.create_dir_all(Path::new("/erp/new")).unwrap();
    returns.configure(&DELIVERY.replace("/erp/in", "/erp/new"));
    assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
    assert_eq!(returns.delivered().len(), 2);
    assert!(returns.in_folder("/erp/new").is_empty());
}

#[tokio::test]
async fn a_volume_that_is_gone_is_not_taken_for_a_delivery() {
    let mut returns = Returns::new();
    let id = returns.orders().await;
    returns.stop_at(id, Stage::Deliver, Point::AfterJournal, 1).await;
    // The drive is not mounted: its mount point is an empty folder.
    let files = returns.world.files.clone();
    files.rename(Path::new(FOLDER), Path::new("/erp/unmounted")).unwrap();
    files.create_dir_all(Path::new(FOLDER)).unwrap();
    assert_eq!(returns.failed(id).await, (Code::DeliveryFailed, false));
    assert_eq!(returns.world.record(id).await.state.word(), "staged");
    files.remove_dir_all(Path::new(FOLDER)).unwrap();
    files.rename(Path::new("/erp/unmounted"), Path::new(FOLDER)).unwrap();
    assert_eq!(returns.retry(id).await.state, TransferState::Delivered);
    assert_eq!(returns.delivered().len(), 2);
}

#[tokio::test]
async fn what_the_disk_has_spoilt_is_fetched_or_unpacked_again() {
    let mut returns = Returns::new();
    let id = returns.orders().await;
    let layout = returns.world.parts.layout.of(Direction::Downlink);
    let files = returns.world.files.clone();
    returns.stop_at(id, Stage::Pull, Point::AfterJournal, 1).await;
    let packed = layout.transfer(id).join("orders.csv.bz2");
    let mut bytes = read_whole(&*files, &packed, 10_000).unwrap();
    bytes[20] ^= 1;
    write_whole(&*files, &packed, &bytes).unwrap();
    write_whole(&*files, &layout.signature(id), b"rot").unwrap();
    files.remove(&layout.transfer(id).join("notes.txt.bz2")).unwrap();
    returns.stop_at(id, Stage::Verify, Point::AfterJournal, 1).await;
    write_whole(&*files, &layout.plain(id).join("orders.csv"), b"item\r\n2\r\n").unwrap();
    files.remove(&layout.plain(id).join("notes.txt")).unwrap();
    assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
    assert_eq!(returns.delivered()[1].1, b"item\r\n1\r\n");
}

#[tokio::test]
async fn a_manifest_that_the_disk_spoils_is_fetched_again_at_every_stage() {
    for (stage, nth) in [(Stage::Pull, 1), (Stage::Verify, 1), (Stage::Deliver, 1), (Stage::Deliver, 2)] {
        for spoilt in [Some(b"rot".as_slice()), None] {
            let mut returns = Returns::new();
            let id = returns.orders().await;
            let layout = returns.world.parts.layout.of(Direction::Downlink);
            let files = returns.world.files.clone();
            returns.stop_at(id, stage, Point::AfterJournal, nth).await;
            match spoilt {
                Some(bytes) => write_whole(&*files, &layout.manifest(id), bytes).unwrap(),
                None => files.remove(&layout.manifest(id)).unwrap(),
            }
            assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered, "{stage:?} {nth}");
            assert_eq!(returns.delivered().len(), 2);
        }
    }
}

#[tokio::test]
async fn an_unapproved_receiver_is_believed_once_it_is_approved() {
    let returns = Returns::new();
    let stranger = crate::uplink::tests::world::identity(99);
    let key = stranger.public_key().clone();
    let mut sent = returns.sent(1, &[("orders.csv", b"x")]);
    sent.signer = Some(stranger);
    let id = returns.offer(&sent);
    returns.take().await;
    assert_eq!(returns.failed(id).await, (Code::ReceiverUnapproved, false));
    // Nothing of the payload is fetched for a stranger.
    let layout = returns.world.parts.layout.of(Direction::Downlink);
    assert!(returns.world.files.stat(&layout.transfer(id).join("orders.csv.bz2")).is_err());
    returns.world.parts.trust.approve("app-2", &key).unwrap();
    assert_eq!(returns.retry(id).await.state, TransferState::Delivered);
}

#[tokio::test]
async fn at_first_use_the_receiver_that_the_relay_names_is_believed() {
    let mut returns = Returns::new();
    let trusting = World::with_trust(Trust::FirstUse);
    let mut config = (*returns.world.parts.config.now()).clone();
    config.trust = Trust::FirstUse;
    returns.world.parts.config = crate::config::SharedConfig::new(config);
    returns.world.parts.trust = trusting.parts.trust.clone();
    let id = returns.orders().await;
    assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
    let signers = trusting.parts.trust.signers().unwrap();
    let receiver = returns.world.far.receiver_key.public_key();
    for namespace in [Namespace::Receipt, Namespace::Manifest] {
        assert!(signers.lookup("app", namespace).any(|key| key == receiver), "{namespace}");
    }
}

#[tokio::test]
async fn a_receiver_that_was_approved_for_receipts_only_goes_on_to_be_believed() {
    let returns = Returns::new();
    let id = returns.orders().await;
    let receiver = returns.world.far.receiver_key.public_key().clone();
    let known = |namespace| returns.world.parts.trust.signers().unwrap().lookup("app", namespace).any(|key| *key == receiver);
    assert!(known(Namespace::Receipt) && !known(Namespace::Manifest));
    assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
    assert!(known(Namespace::Manifest));
    let pinned = crate::trust::pinned_receivers(&returns.world.parts.trust.signers().unwrap(), &returns.world.parts.agent);
    assert_eq!(pinned.len(), 1);
}

#[tokio::test]
async fn the_journal_tells_the_way() {
    let returns = Returns::new();
    let id = returns.orders().await;
    let record = returns.world.finish(id).await;
    let history = returns.world.parts.journal.history(&record.key).await.unwrap();
    let events: Vec<TransferEvent> = history.entries.into_iter().map(|entry| entry.event).collect();
    assert!(matches!(
        events.as_slice(),
        [
            TransferEvent::Pulled,
            TransferEvent::Verified { .. },
            TransferEvent::Staged { .. },
            TransferEvent::Placed,
            TransferEvent::Decided { .. },
            TransferEvent::Settled { .. }
        ]
    ));
    towpath_journal::verify(&*returns.world.parts.journal, &record.key).await.unwrap();
}
