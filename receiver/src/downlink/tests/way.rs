//! What is sent, and whose word counts.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use towpath_journal::{FailPoints, Point};
use towpath_keys::{Namespace, RotatingEnd, sign_rotation};
use towpath_transfer::{
    Clock as _, Code, Failure, Sequence, Stage, TransferKey, TransferState,
    api::{DownlinkState, ExportStatus, Peer},
    digest::Sha256Digest,
    manifest::{Content, MANIFEST_NAME, Manifest, SIGNATURE_NAME},
    packed::MD5SUMS_NAME,
    receipt::ReceiptStage,
    state::{Place, Rejection},
};
use towpath_transport::files::{FileStore as _, read_whole, write_whole};

use super::world::{
    Answer, ERP_SEED, ORDERS, answer, kept_manifest, no_copies, over, put, receipt, request, send, signed, start, until,
};
use crate::{
    chain,
    downlink::take::{self, Source},
    kept,
    testing::{Bench, RELAY_SEED, folder, id, identity, peer, sent},
};

/// A relay that takes its time to say how a transfer stands.
struct SlowAnswers(towpath_transfer::clock::ManualClock);

#[async_trait]
impl FailPoints for SlowAnswers {
    async fn hit(&self, _: Place, stage: Stage, point: Point, _: &TransferKey) {
        if (stage, point) == (Stage::Receipt, Point::BeforeEffect) {
            self.0.sleep(Duration::from_secs(2)).await;
        }
    }
}

#[tokio::test]
async fn the_newest_is_asked_for_however_many_wait_before_it() {
    let bench = Bench::new().await;
    for n in 1..=40 {
        send(&bench, &bench.parts, id(n)).await;
    }
    until(&bench, &bench.parts, 40, &Answer::Nothing, is_notified).await;
    let newest = Bench::key("erp", id(40));
    let erp = identity(ERP_SEED);
    let manifest = bench.relay.exported(newest.id).unwrap().announced.manifest;
    let delivered = signed(&receipt(&newest, ReceiptStage::Delivered, manifest, &erp), &erp);
    for transfer in (1..=40).map(id) {
        let receipts = if transfer == newest.id { vec![delivered.clone()] } else { Vec::new() };
        bench.relay.set_export_status(ExportStatus { transfer, state: DownlinkState::Announced, trouble: None, receipts });
    }
    let parts = bench.parts_with(|parts| parts.fail_points = Arc::new(SlowAnswers(bench.clock.clone())));
    let (serving, shutdown) = start(&parts);
    while !parts.journal.get(&newest).await.unwrap().unwrap().is_over() {
        bench.clock.advance(Duration::from_millis(100));
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    serving.abort();
}

fn is_notified(record: &towpath_journal::TransferRecord) -> bool {
    matches!(record.state, TransferState::Notified { .. })
}

#[tokio::test]
async fn a_file_is_signed_laid_out_announced_and_delivered() {
    let bench = Bench::new().await;
    let parts = &bench.parts;
    let key = send(&bench, parts, id(1)).await.key;
    until(&bench, parts, 1, &Answer::Nothing, is_notified).await;

    let laid = parts.layout.laid_out(&key);
    let read = |name: &str| read_whole(&*bench.files, &laid.join(name), 100_000).unwrap();
    assert_eq!(read("orders.csv"), ORDERS);
    let bytes = read(MANIFEST_NAME);
    towpath_keys::verify(&read(SIGNATURE_NAME), Namespace::Manifest, &bytes, parts.identity.public_key()).unwrap();
    let manifest = Manifest::parse(&bytes).unwrap();
    assert_eq!((manifest.transfer, manifest.sequence, manifest.job.as_str()), (id(1), Sequence(1), "main"));
    assert_eq!(manifest.kind.as_ref().map(|kind| kind.as_str()), Some("recommended-orders"));
    let file = &manifest.files[0];
    assert_eq!((file.name.as_str(), file.media_type.as_str(), &file.content), ("orders.csv", "text/csv", &Content::File));
    assert_eq!(file.sha256, Sha256Digest::of(ORDERS));
    assert_eq!(String::from_utf8(read(MD5SUMS_NAME)).unwrap(), format!("{}  orders.csv\n", file.md5));

    let export = bench.relay.exported(id(1)).unwrap();
    assert_eq!(export.announced.path.to_string(), format!("/downlink/erp/{}/{MANIFEST_NAME}", id(1)));
    assert_eq!((export.announced.size, export.announced.manifest), (bytes.len() as u64, Sha256Digest::of(&bytes)));
    assert_eq!((export.sequence, export.agent.as_str()), (Sequence(1), "erp"));

    let ended = over(&bench, parts, 1, &Answer::Delivered).await;
    assert_eq!(ended[0].state, TransferState::Delivered);
    no_copies(&bench, parts, &key);
    assert_eq!(kept_manifest(parts, &key), manifest);
    let chain = chain::verify(parts, &ended[0]).unwrap();
    let documents: Vec<&str> = chain.links.iter().map(|link| link.document.as_str()).collect();
    assert_eq!(documents, [MANIFEST_NAME, "accepted.json", "delivered.json"]);
    assert!(chain.ok && chain.links[2].says.starts_with("agent erp signed"), "{chain:?}");
    // The next one has the next number.
    assert_eq!(send(&bench, parts, id(2)).await.sequence, Some(Sequence(2)));
}

#[tokio::test]
async fn a_rejection_ends_it_too_and_says_why() {
    let bench = Bench::new().await;
    let key = send(&bench, &bench.parts, id(1)).await.key;
    let ended = over(&bench, &bench.parts, 1, &Answer::Rejected).await;
    let rejection = Rejection { code: Code::DigestMismatch, detail: "it differs".into() };
    assert_eq!(ended[0].state, TransferState::Rejected { rejection });
    no_copies(&bench, &bench.parts, &key);
    let chain = chain::verify(&bench.parts, &ended[0]).unwrap();
    assert!(chain.ok && chain.links.last().unwrap().says.contains("nothing of this transfer was delivered"), "{chain:?}");
}

#[tokio::test]
async fn a_receipt_that_must_not_be_believed_parks_and_everything_stays() {
    const STRANGER: u64 = 50;
    let cases: [Answer; 8] = [
        // By a stranger, by the relay in the agent's name, and by this receiver itself.
        Answer::Changed(|_| (), STRANGER),
        Answer::Changed(|_| (), RELAY_SEED),
        Answer::Changed(|_| (), 99),
        Answer::Changed(|receipt| receipt.signer = identity(STRANGER).fingerprint(), ERP_SEED),
        Answer::Changed(|receipt| receipt.manifest = Some(Sha256Digest::of(b"other")), ERP_SEED),
        Answer::Changed(|receipt| receipt.transfer = id(9), ERP_SEED),
        Answer::Changed(|receipt| receipt.tenant = "elsewhere".parse().unwrap(), ERP_SEED),
        // The agent cannot say that the relay has it.
        Answer::Changed(|receipt| receipt.stage = ReceiptStage::Accepted, ERP_SEED),
    ];
    for (wrong, n) in cases.iter().zip(1..) {
        let bench = Bench::new().await;
        let key = send(&bench, &bench.parts, id(n)).await.key;
        let parked = until(&bench, &bench.parts, 1, wrong, |record| record.parked).await;
        assert_eq!(parked[0].last_failure.as_ref().unwrap().code, Code::ReceiptInvalid, "{n}: {parked:?}");
        assert!(bench.files.stat(&bench.parts.layout.laid_out(&key)).is_ok());
        assert!(bench.files.stat(&bench.parts.layout.export(&key)).is_ok());
        // A person has seen to it.
        answer(&bench, &bench.parts, &Answer::Delivered).await;
        bench.parts.journal.unpark(&key).await.unwrap();
        assert_eq!(over(&bench, &bench.parts, 1, &Answer::Delivered).await[0].state, TransferState::Delivered, "{n}");
    }
}

#[tokio::test]
async fn a_receipt_by_a_newer_key_is_believed_also_where_somebody_else_has_just_approved_the_key() {
    const NEWER: u64 = 60;
    let bench = Bench::new().await;
    send(&bench, &bench.parts, id(1)).await;
    // A transfer on its way up has followed the agent to its newer key meanwhile: for this one nothing is left to be approved.
    let (erp, newer) = (identity(ERP_SEED), identity(NEWER));
    let end = RotatingEnd { relay_url: "https://relay.test", user: "acme.erp" };
    let change = sign_rotation(end, &erp, &newer, bench.parts.clock.now()).unwrap();
    bench.relay.set_peers(vec![Peer { rotations: vec![change], ..peer("erp", &erp) }]);
    let parts = Arc::clone(&bench.parts);
    bench.relay.while_asked_for_peers(move || {
        parts.trust.follow(&"erp".parse().unwrap(), newer.public_key(), identity(1).public_key()).unwrap();
    });
    let answered = Answer::Changed(|_| (), NEWER);
    let ended = until(&bench, &bench.parts, 1, &answered, |record| record.parked || record.is_over()).await;
    assert_eq!(ended[0].state, TransferState::Delivered, "{ended:?}");
}

#[tokio::test]
async fn two_ends_of_one_transfer_park_it() {
    let bench = Bench::new().await;
    let key = send(&bench, &bench.parts, id(1)).await.key;
    let notified = until(&bench, &bench.parts, 1, &Answer::Nothing, is_notified).await;
    let TransferState::Notified { manifest } = notified[0].state else { panic!("it is not notified") };
    let erp = identity(ERP_SEED);
    let both = [ReceiptStage::Delivered, ReceiptStage::Rejected].map(|stage| signed(&receipt(&key, stage, manifest, &erp), &erp));
    let mut status = towpath_transport::relay_api::RelayApi::export_status(&bench.relay, &key.agent, key.id).await.unwrap();
    status.receipts = both.to_vec();
    bench.relay.set_export_status(status);
    let parked = until(&bench, &bench.parts, 1, &Answer::Nothing, |record| record.parked).await;
    assert_eq!(parked[0].last_failure.as_ref().unwrap().code, Code::ReceiptInvalid);
    // Neither of them counts later either.
    assert!(kept::receipt(&*bench.files, &bench.parts.layout, &key, ReceiptStage::Delivered).unwrap().is_none());
}

#[tokio::test]
async fn an_agent_that_is_believed_no_more_cannot_end_a_transfer() {
    let bench = Bench::new().await;
    let key = send(&bench, &bench.parts, id(1)).await.key;
    until(&bench, &bench.parts, 1, &Answer::Nothing, is_notified).await;
    let pins = bench.temp.path().join("allowed_signers");
    crate::agents::remove(&pins, &key.agent).unwrap();
    let parked = until(&bench, &bench.parts, 1, &Answer::Delivered, |record| record.parked).await;
    assert_eq!(parked[0].last_failure.as_ref().unwrap().code, Code::AgentUnapproved);
}

#[tokio::test]
async fn a_relay_that_loses_answers_is_told_once() {
    let bench = Bench::new().await;
    let lost = || Failure::retry(Code::RelayUnreachable, "calling the relay");
    for _ in 0..3 {
        bench.relay.fail_before(lost());
        bench.relay.fail_after(lost());
    }
    send(&bench, &bench.parts, id(1)).await;
    assert_eq!(over(&bench, &bench.parts, 1, &Answer::Delivered).await[0].state, TransferState::Delivered);
}

#[tokio::test]
async fn a_relay_that_forgets_is_told_again_exactly_the_same() {
    let bench = Bench::new().await;
    send(&bench, &bench.parts, id(1)).await;
    until(&bench, &bench.parts, 1, &Answer::Nothing, is_notified).await;
    let first = bench.relay.exported(id(1)).unwrap();
    for _ in 0..3 {
        bench.relay.forget_export(id(1));
        let known = || bench.relay.exported(id(1)).is_some();
        until(&bench, &bench.parts, 1, &Answer::Nothing, |record| is_notified(record) && known()).await;
        assert_eq!(bench.relay.exported(id(1)).unwrap(), first);
    }
    over(&bench, &bench.parts, 1, &Answer::Delivered).await;
}

#[tokio::test]
async fn a_relay_that_refuses_is_seen_and_waits_for_a_person() {
    let bench = Bench::new().await;
    let key = send(&bench, &bench.parts, id(1)).await.key;
    bench.relay.fail_before(Failure::park(Code::NotFound, "the relay knows no agent erp"));
    let parked = until(&bench, &bench.parts, 1, &Answer::Nothing, |record| record.parked).await;
    assert_eq!((parked[0].state.word(), parked[0].last_failure.as_ref().unwrap().code), ("exported", Code::NotFound));
    bench.parts.journal.unpark(&key).await.unwrap();
    over(&bench, &bench.parts, 1, &Answer::Delivered).await;
}

#[tokio::test]
async fn trouble_at_the_relay_is_seen_here_and_passes_by_itself() {
    for parked in [false, true] {
        let bench = Bench::new().await;
        send(&bench, &bench.parts, id(1)).await;
        let trouble = Answer::Trouble(Code::AgentSilent, parked);
        let seen = until(&bench, &bench.parts, 1, &trouble, |record| record.last_failure.is_some()).await;
        let failure = seen[0].last_failure.clone().unwrap();
        assert_eq!((failure.code, seen[0].parked), (Code::AgentSilent, false));
        assert!(failure.report.contains("the relay reports at fetch"), "{}", failure.report);
        over(&bench, &bench.parts, 1, &Answer::Delivered).await;
    }
}

#[tokio::test]
async fn what_the_relay_does_not_find_is_laid_out_again_the_same() {
    for spoil in [0, 1, 2] {
        let bench = Bench::new().await;
        let key = send(&bench, &bench.parts, id(1)).await.key;
        until(&bench, &bench.parts, 1, &Answer::Nothing, is_notified).await;
        let laid = bench.parts.layout.laid_out(&key);
        let read = || read_whole(&*bench.files, &laid.join(MANIFEST_NAME), 100_000).unwrap();
        let before = read();
        match spoil {
            0 => bench.files.remove_dir_all(&laid).unwrap(),
            1 => write_whole(&*bench.files, &laid.join("orders.csv"), b"something else").unwrap(),
            _ => bench.files.remove(&laid.join(SIGNATURE_NAME)).unwrap(),
        }
        let trouble = Answer::Trouble(Code::ExportMissing, false);
        until(&bench, &bench.parts, 1, &trouble, |record| record.last_failure.is_some()).await;
        assert_eq!(read(), before, "{spoil}");
        assert_eq!(read_whole(&*bench.files, &laid.join("orders.csv"), 1_000).unwrap(), ORDERS);
        over(&bench, &bench.parts, 1, &Answer::Delivered).await;
    }
}

#[tokio::test]
async fn copies_that_were_changed_are_never_passed_off_as_what_was_announced() {
    let bench = Bench::new().await;
    let key = send(&bench, &bench.parts, id(1)).await.key;
    until(&bench, &bench.parts, 1, &Answer::Nothing, is_notified).await;
    bench.files.remove_dir_all(&bench.parts.layout.laid_out(&key)).unwrap();
    let copy = take::file_path(&bench.parts.layout, &key, &"orders.csv".parse().unwrap());
    write_whole(&*bench.files, &copy, b"something else").unwrap();
    let trouble = Answer::Trouble(Code::ExportMissing, false);
    let parked = until(&bench, &bench.parts, 1, &trouble, |record| record.parked).await;
    assert_eq!(parked[0].last_failure.as_ref().unwrap().code, Code::DigestMismatch);
}

#[tokio::test]
async fn what_cannot_travel_is_refused_and_leaves_nothing() {
    let bench = Bench::with(|parts| {
        parts.limits.export_file_bytes = 100;
        parts.limits.open_exports = 2;
    })
    .await;
    let parts = &bench.parts;
    for bad in
        ["", "a/b", "CON", "aux.csv", "a:b.csv", "dot.", " a", "manifest.json", "MD5SUMS", "Packed.json", "x.part", ".hidden"]
    {
        assert_eq!(take::travelling_name(bad).unwrap_err().code(), Code::ExportRefused, "{bad:?}");
    }
    assert_eq!(take::travelling_name(&"n".repeat(198)).unwrap_err().code(), Code::ExportRefused);
    let (small, large) = (put(&bench, "small.csv", b"x"), put(&bench, "large.csv", &[b'x'; 101]));
    let source = |name: &str, path: &std::path::Path| Source { name: name.parse().unwrap(), path: path.to_owned() };
    let missing = std::path::Path::new("/app/export/none.csv");
    let folder = std::path::Path::new("/app/export");
    let refused: [Vec<Source>; 6] = [
        vec![],
        vec![source("large.csv", &large)],
        vec![source("a.csv", &small), source("A.csv", &small)],
        vec![source("none.csv", missing)],
        vec![source("folder", folder)],
        (0..=1_000).map(|n| source(&format!("{n}.csv"), &small)).collect(),
    ];
    for sources in refused {
        let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
        let failure = take::take(parts, id(1), &request(parts, &names), &sources).unwrap_err();
        assert_eq!(failure.code(), Code::ExportRefused, "{failure}");
        no_copies(&bench, parts, &Bench::key("erp", id(1)));
    }
    for n in 1..=2 {
        take::take(parts, id(n), &request(parts, &["small.csv"]), &[source("small.csv", &small)]).unwrap();
    }
    let failure = take::take(parts, id(3), &request(parts, &["small.csv"]), &[source("small.csv", &small)]).unwrap_err();
    assert_eq!(failure.code(), Code::LimitExceeded);
    bench.files.set_space(Some(0));
    let bench = Bench::new().await;
    put(&bench, "small.csv", b"some bytes");
    bench.files.set_space(Some(5));
    let wanted = request(&bench.parts, &["small.csv"]);
    let failure = take::take(&bench.parts, id(1), &wanted, &[source("small.csv", &small)]).unwrap_err();
    assert_eq!(failure.code(), Code::DiskFull);
    no_copies(&bench, &bench.parts, &Bench::key("erp", id(1)));
}

#[tokio::test]
async fn a_full_disk_passes() {
    let bench = Bench::new().await;
    send(&bench, &bench.parts, id(1)).await;
    bench.files.set_space(Some(0));
    let full = until(&bench, &bench.parts, 1, &Answer::Delivered, |record| record.last_failure.is_some()).await;
    assert_eq!((full[0].last_failure.as_ref().unwrap().code, full[0].parked), (Code::DiskFull, false));
    bench.files.set_space(None);
    over(&bench, &bench.parts, 1, &Answer::Delivered).await;
}

#[tokio::test]
async fn several_files_travel_as_one_transfer() {
    let bench = Bench::new().await;
    let names = ["orders.csv", "Notes.PDF", "raw", "prices.xlsx"];
    let sources: Vec<Source> =
        names.iter().map(|name| Source { name: name.parse().unwrap(), path: put(&bench, name, name.as_bytes()) }).collect();
    let wanted = request(&bench.parts, &names);
    take::take(&bench.parts, id(1), &wanted, &sources).unwrap();
    take::note(&bench.parts, id(1), &wanted).await.unwrap();
    let ended = over(&bench, &bench.parts, 1, &Answer::Delivered).await;
    let manifest = kept_manifest(&bench.parts, &ended[0].key);
    let types: Vec<&str> = manifest.files.iter().map(|file| file.media_type.as_str()).collect();
    let sheet = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
    assert_eq!(types, ["text/csv", "application/pdf", "application/octet-stream", sheet]);
}

#[tokio::test]
async fn the_chain_of_what_was_imported_holds_with_and_without_its_manifest() {
    let bench = Bench::new().await;
    bench.land("erp", id(1), &folder(&sent(1), &bench.erp));
    let key = Bench::key("erp", id(1));
    let (serving, shutdown) = super::world::start(&bench.parts);
    let record = loop {
        match bench.parts.journal.get(&key).await.unwrap() {
            Some(record) if record.is_over() => break record,
            _ => {
                bench.clock.advance(std::time::Duration::from_millis(100));
                tokio::task::yield_now().await;
            }
        }
    };
    shutdown.cancel();
    serving.await.unwrap();
    let chain = chain::verify(&bench.parts, &record).unwrap();
    let documents: Vec<&str> = chain.links.iter().map(|link| link.document.as_str()).collect();
    assert_eq!(documents, [MANIFEST_NAME, "imported.json"], "{chain:?}");
    assert!(chain.ok && chain.links[1].says.starts_with("receiver app signed"), "{chain:?}");
    // A state from before the manifest was kept.
    let receipts = bench.parts.layout.receipts(&key);
    for name in [MANIFEST_NAME, SIGNATURE_NAME] {
        bench.files.remove(&receipts.join(name)).unwrap();
    }
    let chain = chain::verify(&bench.parts, &record).unwrap();
    assert!(chain.ok && chain.links[0].says.contains("the manifest with SHA-256"), "{chain:?}");
    let path = receipts.join("imported.json");
    let text = read_whole(&*bench.files, &path, 100_000).unwrap();
    write_whole(&*bench.files, &path, &[text.as_slice(), b" "].concat()).unwrap();
    assert_eq!(chain::verify(&bench.parts, &record).unwrap().problem().unwrap().code(), Code::ReceiptInvalid);
}

#[tokio::test]
async fn the_chain_says_what_was_changed_afterwards() {
    let bench = Bench::new().await;
    let key = send(&bench, &bench.parts, id(1)).await.key;
    let ended = over(&bench, &bench.parts, 1, &Answer::Delivered).await.remove(0);
    let receipts = bench.parts.layout.receipts(&key);
    for (name, code) in [
        (MANIFEST_NAME, Code::SignatureInvalid),
        ("accepted.json", Code::ReceiptInvalid),
        ("delivered.json", Code::ReceiptInvalid),
    ] {
        let path = receipts.join(name);
        let text = read_whole(&*bench.files, &path, 100_000).unwrap();
        write_whole(&*bench.files, &path, &[text.as_slice(), b" "].concat()).unwrap();
        let chain = chain::verify(&bench.parts, &ended).unwrap();
        assert_eq!(chain.problem().unwrap().code(), code, "{chain:?}");
        bench.files.remove(&path).unwrap();
        assert!(chain::verify(&bench.parts, &ended).unwrap().problem().unwrap().message().contains("missing"), "{name}");
        write_whole(&*bench.files, &path, &text).unwrap();
        assert!(chain::verify(&bench.parts, &ended).unwrap().ok);
    }
}
