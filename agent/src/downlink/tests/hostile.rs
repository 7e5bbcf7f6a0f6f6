//! A relay, or somebody on the way, that gives other bytes than the receiver has signed.

use towpath_journal::Point;
use towpath_transfer::{
    Code, Direction, Stage, TransferId, TransferState, failure::Disposition, manifest::Manifest, receipt::ReceiptStage,
};
use towpath_transport::files::{FileStore as _, read_whole};

use super::world::{Returns, Sent, packed};
use crate::downlink::{decide, describe::largest_packed};

async fn rejected(returns: &Returns, id: TransferId, code: Code) {
    let record = returns.world.finish(id).await;
    let TransferState::Rejected { rejection } = record.state else { panic!("not rejected: {record:?}") };
    assert_eq!(rejection.code, code, "{rejection:?}");
    assert!(returns.delivered().is_empty());
    let acknowledged = returns.world.far.downlinks.acknowledged();
    assert_eq!(acknowledged.len(), 1);
    let receipt = acknowledged[0].1.signed.parse().unwrap();
    assert_eq!((receipt.stage, receipt.reason.unwrap().code), (ReceiptStage::Rejected, code));
    let layout = returns.world.parts.layout.of(Direction::Downlink);
    let left = returns.world.files.list(&layout.transfer(id), None, 100).unwrap();
    assert!(left.iter().all(|entry| !entry.name.contains(".bz2") && entry.name != "plain"), "{left:?}");
}

/// Nobody has signed it for this transfer: it is asked for again, and nothing of it is kept, signed or told.
async fn waited_for(returns: &Returns, id: TransferId, code: Code) {
    assert_eq!(returns.failed(id).await, (code, false));
    assert_eq!(returns.world.record(id).await.state.word(), "offered");
    assert_eq!(kept(returns, id), Vec::<String>::new());
    assert!(returns.delivered().is_empty());
    assert!(returns.world.far.downlinks.acknowledged().is_empty());
}

#[tokio::test]
async fn a_manifest_for_somebody_else_is_waited_for() {
    let changes: [fn(&mut Manifest); 5] = [
        |manifest| manifest.tenant = "other".parse().unwrap(),
        |manifest| manifest.agent = "other".parse().unwrap(),
        |manifest| manifest.sequence.0 += 1,
        |manifest| {
            manifest.direction = Direction::Uplink;
            manifest.kind = None;
        },
        |manifest| manifest.version = 2,
    ];
    for change in changes {
        let returns = Returns::new();
        let mut sent = returns.sent(1, &[("orders.csv", b"x")]);
        change(&mut sent.manifest);
        let sequence = returns.sent(1, &[]).manifest.sequence;
        let id = returns.offer(&sent);
        let mut offers = returns.offers();
        offers[0].sequence = sequence;
        crate::downlink::poll::take(&returns.world.parts, &offers).await.unwrap();
        waited_for(&returns, id, Code::ManifestInvalid).await;
        // It is right again.
        let mut right = returns.sent(1, &[("orders.csv", b"x")]);
        right.manifest.transfer = id;
        returns.offer(&right);
        let right = returns.offers().split_off(1);
        assert_eq!(crate::downlink::poll::take(&returns.world.parts, &right).await.unwrap().new, [id]);
        assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
    }
}

#[tokio::test]
async fn an_altered_signature_is_waited_for() {
    let returns = Returns::new();
    let sent = returns.sent(1, &[("orders.csv", b"x")]);
    let id = returns.offer(&sent);
    let other = serde_json::to_vec(&sent.manifest).unwrap();
    let signature = returns.world.far.receiver_key.sign(towpath_keys::Namespace::Manifest, &other).unwrap();
    let right = read_whole(&*returns.world.far.files, &returns.far_file(id, "manifest.json.sig"), 100_000).unwrap();
    returns.put(id, "manifest.json.sig", signature.as_bytes());
    returns.take().await;
    waited_for(&returns, id, Code::SignatureInvalid).await;
    returns.put(id, "manifest.json.sig", &right);
    assert_eq!(returns.retry(id).await.state, TransferState::Delivered);
}

/// What lies in the folder of a transfer.
fn kept(returns: &Returns, id: TransferId) -> Vec<String> {
    let layout = returns.world.parts.layout.of(Direction::Downlink);
    let entries = match returns.world.files.list(&layout.transfer(id), None, 100) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        other => other.unwrap(),
    };
    entries.into_iter().map(|entry| entry.name).collect()
}

#[tokio::test]
async fn what_nobody_approved_has_signed_never_comes_to_the_disk() {
    // By nobody at all.
    let returns = Returns::new();
    let unsigned = returns.offer(&returns.sent(1, &[("orders.csv", b"x")]));
    returns.put(unsigned, "manifest.json.sig", b"not a signature");
    // By somebody who is not approved.
    let mut sent = returns.sent(2, &[("orders.csv", b"x")]);
    sent.signer = Some(crate::uplink::tests::world::identity(99));
    let unapproved = returns.offer(&sent);
    returns.take().await;
    waited_for(&returns, unsigned, Code::SignatureInvalid).await;
    waited_for(&returns, unapproved, Code::ReceiverUnapproved).await;
}

#[tokio::test]
async fn lists_that_do_not_agree_with_what_is_signed_never_come_to_the_disk() {
    let returns = Returns::new();
    let id = returns.offer(&returns.sent(1, &[("orders.csv", b"x")]));
    returns.put(id, "MD5SUMS", &vec![b'x'; 1_000_000]);
    returns.take().await;
    rejected(&returns, id, Code::ContentInvalid).await;
    assert_eq!(kept(&returns, id), ["manifest.json", "manifest.json.sig", "receipts"]);
}

#[tokio::test]
async fn the_chain_of_what_was_rejected_is_whole() {
    type Change = fn(&mut Sent);
    let changes: [(Code, Change); 3] = [
        (Code::LimitExceeded, |sent| sent.manifest.files[0].size = u64::MAX / 2),
        (Code::PackedListInvalid, |sent| sent.listed = |list| list.files.clear()),
        (Code::DigestMismatch, |sent| drop(sent.packed.insert("orders.csv.bz2".into(), packed(b"item\r\n2\r\n")))),
    ];
    for (code, change) in changes {
        let (returns, id) = offered(change).await;
        rejected(&returns, id, code).await;
        let chain = crate::chain::verify(&returns.world.parts, id).await.unwrap();
        assert!(chain.ok, "{code}: {chain:?}");
        let shown = crate::view::detail(&returns.world.parts, &returns.world.record(id).await).await.unwrap();
        // What its sender has signed for it is still to be seen.
        assert_eq!(shown.files.len(), 1, "{code}");
    }
}

#[tokio::test]
async fn the_chain_is_whole_before_the_relay_has_the_refusal() {
    let (mut returns, id) = offered(|sent| sent.listed = |list| list.files.clear()).await;
    returns.stop_at(id, Stage::Pull, Point::AfterJournal, 1).await;
    assert_eq!(returns.world.record(id).await.state.word(), "decided");
    let chain = crate::chain::verify(&returns.world.parts, id).await.unwrap();
    assert!(chain.ok, "{chain:?}");
}

#[tokio::test]
async fn a_signature_for_receipts_is_none_for_manifests() {
    let returns = Returns::new();
    let sent = returns.sent(1, &[("orders.csv", b"x")]);
    let id = returns.offer(&sent);
    let manifest = serde_json::to_vec_pretty(&sent.manifest).unwrap();
    let signature = returns.world.far.receiver_key.sign(towpath_keys::Namespace::Receipt, &manifest).unwrap();
    returns.put(id, "manifest.json.sig", signature.as_bytes());
    returns.take().await;
    waited_for(&returns, id, Code::SignatureInvalid).await;
}

async fn offered(change: impl FnOnce(&mut Sent)) -> (Returns, TransferId) {
    let returns = Returns::new();
    let mut sent = returns.sent(1, &[("orders.csv", b"item\r\n1\r\n")]);
    change(&mut sent);
    let id = returns.offer(&sent);
    returns.take().await;
    (returns, id)
}

#[tokio::test]
async fn other_content_than_was_signed_is_rejected() {
    let (returns, id) = offered(|sent| drop(sent.packed.insert("orders.csv.bz2".into(), packed(b"item\r\n2\r\n")))).await;
    rejected(&returns, id, Code::DigestMismatch).await;
    let (returns, id) = offered(|sent| drop(sent.packed.insert("orders.csv.bz2".into(), b"not packed".to_vec()))).await;
    rejected(&returns, id, Code::UnpackFailed).await;
    let (returns, id) = offered(|sent| sent.listed = |list| list.files.clear()).await;
    rejected(&returns, id, Code::PackedListInvalid).await;
    let returns = Returns::new();
    let id = returns.offer(&returns.sent(1, &[("orders.csv", b"x")]));
    returns.put(id, "MD5SUMS", b"");
    returns.take().await;
    rejected(&returns, id, Code::ContentInvalid).await;
}

#[tokio::test]
async fn a_bomb_is_unpacked_no_further_than_the_manifest_says() {
    let (returns, id) = offered(|sent| drop(sent.packed.insert("orders.csv.bz2".into(), packed(&vec![0; 5_000_000])))).await;
    rejected(&returns, id, Code::LimitExceeded).await;
}

#[tokio::test]
async fn more_than_the_manifest_can_pack_to_is_not_even_fetched() {
    let (returns, id) = offered(|sent| {
        let size = usize::try_from(largest_packed(sent.manifest.files[0].size)).unwrap() + 1;
        sent.packed.insert("orders.csv.bz2".into(), vec![7; size]);
    })
    .await;
    rejected(&returns, id, Code::LimitExceeded).await;
}

/// What becomes of a file for which the manifest promises so many bytes, and which has fewer.
async fn promised(size: u64, unpacked_file: Option<u64>) -> Code {
    let (mut returns, id) = offered(|sent| sent.manifest.files[0].size = size).await;
    if let Some(bytes) = unpacked_file {
        let mut config = (*returns.world.parts.config.now()).clone();
        config.downlink.unpacked_file = towpath_host::Bytes(bytes);
        returns.world.parts.config = crate::config::SharedConfig::new(config);
    }
    let record = returns.world.finish(id).await;
    let TransferState::Rejected { rejection } = record.state else { panic!("not rejected: {record:?}") };
    let came = kept(&returns, id).iter().any(|name| name == "packed.json");
    assert_eq!(came, rejection.code == Code::DigestMismatch, "only what may be unpacked is fetched: {rejection:?}");
    rejection.code
}

#[tokio::test]
async fn a_file_that_may_unpack_to_more_than_the_limit_is_rejected_before_it_is_fetched() {
    let default = 20 * 1024 * 1024 * 1024;
    assert_eq!(promised(default + 1, None).await, Code::LimitExceeded);
    assert_eq!(promised(default, None).await, Code::DigestMismatch);
    assert_eq!(promised(1_001, Some(1_000)).await, Code::LimitExceeded);
    assert_eq!(promised(1_000, Some(1_000)).await, Code::DigestMismatch);
}

#[tokio::test]
async fn files_that_are_not_the_listed_ones_are_waited_for_and_never_grow() {
    let (returns, id) = offered(|_| {}).await;
    let whole = packed(b"item\r\n1\r\n");
    let layout = returns.world.parts.layout.of(Direction::Downlink);
    for wrong in [[whole.as_slice(), &vec![1; 3_000_000]].concat(), vec![9; whole.len()], whole[..10].to_vec()] {
        returns.put(id, "orders.csv.bz2", &wrong);
        returns.world.parts.journal.unpark(&returns.world.parts.key(id)).await.unwrap();
        assert_eq!(returns.failed(id).await, (Code::DigestMismatch, false));
        let left = returns.world.files.list(&layout.transfer(id), None, 100).unwrap();
        let largest = left.iter().filter(|entry| entry.name.starts_with("orders")).map(|entry| entry.stat.len).max();
        assert!(largest.unwrap_or(0) <= whole.len() as u64, "{left:?}");
    }
    returns.put(id, "orders.csv.bz2", &whole);
    assert_eq!(returns.retry(id).await.state, TransferState::Delivered);
}

#[tokio::test]
async fn descriptions_that_are_not_the_offered_ones_are_waited_for() {
    let (returns, id) = offered(|_| {}).await;
    let read = |name: &str| {
        towpath_transport::files::read_whole(&*returns.world.far.files, &returns.far_file(id, name), 100_000).unwrap()
    };
    for (name, wrong, code) in [
        ("manifest.json", b"{}".to_vec(), Code::DigestMismatch),
        ("packed.json", b"{}".to_vec(), Code::DigestMismatch),
        ("manifest.json.sig", vec![b'x'; 100_000], Code::LimitExceeded),
    ] {
        let right = read(name);
        returns.put(id, name, &wrong);
        returns.world.parts.journal.unpark(&returns.world.parts.key(id)).await.unwrap();
        let failed = |record: &towpath_journal::TransferRecord| record.last_failure.as_ref().is_some_and(|why| why.code == code);
        let record = returns.world.drive(id, failed).await;
        assert!(!record.parked, "{name}");
        returns.put(id, name, &right);
    }
    returns.world.far.files.remove(&returns.far_file(id, "orders.csv.bz2")).unwrap();
    returns.world.parts.journal.unpark(&returns.world.parts.key(id)).await.unwrap();
    returns.world.drive(id, |record| record.last_failure.as_ref().is_some_and(|why| why.code == Code::NotFound)).await;
    returns.put(id, "orders.csv.bz2", &packed(b"item\r\n1\r\n"));
    assert_eq!(returns.retry(id).await.state, TransferState::Delivered);
}

#[test]
fn only_what_is_wrong_with_the_transfer_itself_is_a_rejection() {
    use towpath_transfer::Failure;
    assert!(decide::is_rejection(&Failure::park(Code::DigestMismatch, "x")));
    for other in [
        Failure::retry(Code::DigestMismatch, "x"),
        Failure::park(Code::FileFailed, "x"),
        Failure::park(Code::SignatureInvalid, "x"),
        Failure::park(Code::ManifestInvalid, "x"),
        Failure::retry(Code::ReceiverUnapproved, "x"),
    ] {
        assert!(!decide::is_rejection(&other), "{:?} {:?}", other.code(), Disposition::Park);
    }
}

/// What a relay may answer, in its own words, to a question that comes before anything is known to be signed.
const REFUSALS: [Code; 5] =
    [Code::PackedListInvalid, Code::DigestMismatch, Code::ContentInvalid, Code::UnpackFailed, Code::LimitExceeded];

#[tokio::test]
async fn no_answer_of_the_relay_about_its_receivers_is_a_rejection() {
    for code in REFUSALS {
        let returns = Returns::new();
        let mut sent = returns.sent(1, &[("orders.csv", b"x")]);
        sent.signer = Some(crate::uplink::tests::world::identity(99));
        let id = returns.offer(&sent);
        returns.world.far.refuse_peers(Some(code));
        returns.take().await;
        waited_for(&returns, id, code).await;
        returns.world.far.refuse_peers(None);
        returns.world.parts.journal.unpark(&returns.world.parts.key(id)).await.unwrap();
        let unapproved = |record: &towpath_journal::TransferRecord| {
            record.last_failure.as_ref().is_some_and(|failure| failure.code == Code::ReceiverUnapproved)
        };
        returns.world.drive(id, unapproved).await;
        waited_for(&returns, id, Code::ReceiverUnapproved).await;
    }
}
