//! The whole of the receiver over memory, with the real import target: what is imported, what is rejected, and what a stop
//! at any point changes.

mod merge;
mod shares;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use towpath_journal::{FailPoints, Observer, Point, StageReport, TransferRecord, WakeUp};
use towpath_keys::{AllowedSigners, Identity, Namespace};
use towpath_transfer::{
    AgentName, Code, Failure, Stage, TransferId, TransferKey, TransferState,
    digest::Sha256Digest,
    manifest::{MANIFEST_NAME, SIGNATURE_NAME},
    packed::{MD5SUMS_NAME, PACKED_NAME, PackedList},
    receipt::{Receipt, ReceiptStage},
    state::{Place, Rejection},
};
use towpath_transport::files::{FaultFiles, FileFault, FileOp, FilePlan, FileStore as _, write_whole};

use crate::{
    agents::TrustPolicy,
    parts::{Parts, TableFilter},
    quarantine,
    service::{Service, ServiceSettings},
    testing::{Bench, Folder, ITEMS, Plain, Sent, folder, id, identity, manifest, peer, sealed, sent, table},
};

/// Tells the test how each lease ended.
struct Watcher(mpsc::UnboundedSender<&'static str>);

impl Observer for Watcher {
    fn stage_finished(&self, report: &StageReport<'_>) {
        let _ = self.0.send(report.result.as_str());
    }
}

/// Runs the receiver until every one of `keys` is over. Pauses pass at once.
async fn run(bench: &Bench, parts: &Arc<Parts>, keys: &[TransferKey]) -> Vec<&'static str> {
    run_with(bench, parts, keys, || ()).await
}

async fn run_with(bench: &Bench, parts: &Arc<Parts>, keys: &[TransferKey], on_retry: impl Fn()) -> Vec<&'static str> {
    let (events, mut watched) = mpsc::unbounded_channel();
    let shutdown = CancellationToken::new();
    let service = Service::new(Arc::clone(parts), ServiceSettings::default(), Arc::new(Watcher(events)), Arc::new(Notify::new()));
    let serving = tokio::spawn(service.run(shutdown.clone()));
    let mut seen = Vec::new();
    while !over(parts, keys).await {
        match watched.try_recv() {
            Ok(event) => {
                if event == "retrying" {
                    on_retry();
                }
                seen.push(event);
            }
            Err(_) => {
                // The receiver pauses: the scan until the next one, a stage until its next try.
                bench.clock.advance(std::time::Duration::from_millis(100));
                tokio::task::yield_now().await;
            }
        }
        assert!(!seen.contains(&"parked"), "a transfer was parked: {seen:?}");
    }
    shutdown.cancel();
    serving.await.unwrap();
    seen
}

async fn over(parts: &Parts, keys: &[TransferKey]) -> bool {
    for key in keys {
        if !parts.journal.get(key).await.unwrap().is_some_and(|record| record.is_over()) {
            return false;
        }
    }
    true
}

async fn record(bench: &Bench, key: &TransferKey) -> TransferRecord {
    bench.parts.journal.get(key).await.unwrap().unwrap()
}

fn receipt(bench: &Bench, id: TransferId) -> Receipt {
    let posted: Vec<_> = bench.relay.receipts().into_iter().filter(|receipt| receipt.transfer == id).collect();
    assert_eq!(posted.len(), 1, "the relay has two receipts that differ, or none");
    let signed = &posted[0].signed;
    let key = bench.parts.identity.public_key();
    towpath_keys::verify(signed.signature.as_bytes(), Namespace::Receipt, signed.receipt.as_bytes(), key).unwrap();
    signed.parse().unwrap()
}

/// Lands a folder, lets the receiver decide, and expects a rejection.
async fn rejected(bench: &Bench, parts: &Arc<Parts>, agent: &str, id: TransferId, folder: &Folder) -> Rejection {
    bench.land(agent, id, folder);
    let key = Bench::key(agent, id);
    run(bench, parts, std::slice::from_ref(&key)).await;
    let TransferState::Rejected { rejection } = record(bench, &key).await.state else { panic!("it was not rejected") };
    let receipt = receipt(bench, id);
    assert_eq!((receipt.stage, receipt.reason.as_ref()), (ReceiptStage::Rejected, Some(&rejection)));
    assert!(bench.files.stat(&parts.layout.landed(&key)).is_err(), "it still lies on the landing");
    let (kept, _) = quarantine::show(&*bench.files, &parts.layout, id, None).unwrap();
    assert_eq!(kept.reason.unwrap().rejection, rejection);
    rejection
}

async fn imported(bench: &Bench, parts: &Arc<Parts>, agent: &str, id: TransferId, folder: &Folder) {
    bench.land(agent, id, folder);
    let key = Bench::key(agent, id);
    run(bench, parts, std::slice::from_ref(&key)).await;
    assert_eq!(record(bench, &key).await.state, TransferState::Imported);
    assert_eq!(receipt(bench, id).stage, ReceiptStage::Imported);
    assert!(bench.files.stat(&parts.layout.landed(&key)).is_err(), "it still lies on the landing");
}

const CONTENT: &str = "SELECT coalesce(n, 'NULL') || '/' || t FROM items ORDER BY rowid";
const IMPORTS: &str = "SELECT transfer FROM towpath_imports ORDER BY sequence";

#[tokio::test]
async fn a_whole_transfer_is_imported_and_signed_for() {
    let bench = Bench::new().await;
    imported(&bench, &bench.parts, "erp", id(1), &folder(&sent(1), &bench.erp)).await;
    assert_eq!(bench.query("erp", "main", CONTENT).await, ["1.50/a", "NULL/", "2.25/x,\"y"]);
    let receipt = receipt(&bench, id(1));
    assert_eq!((receipt.rows[0].table.as_str(), receipt.rows[0].rows), ("items", 3));
    assert_eq!(receipt.signer, bench.parts.identity.fingerprint());
}

#[tokio::test]
async fn what_was_begun_beside_the_receipts_goes_when_it_is_over() {
    let bench = Bench::new().await;
    let receipts = bench.parts.layout.receipts(&Bench::key("erp", id(1)));
    let begun = receipts.join(".rejected.json.sig.tmp");
    bench.files.create_dir_all(&receipts).unwrap();
    // A receiver that was killed while it rejected, and after which the cause of that is gone.
    write_whole(&*bench.files, &begun, b"-----BEGIN SSH").unwrap();
    imported(&bench, &bench.parts, "erp", id(1), &folder(&sent(1), &bench.erp)).await;
    bench.files.power_loss();
    assert!(bench.files.stat(&begun).is_err());
    let kept = crate::kept::receipt(&*bench.files, &bench.parts.layout, &Bench::key("erp", id(1)), ReceiptStage::Imported);
    assert!(kept.unwrap().is_some());
}

struct StopAt {
    stage: Stage,
    point: Point,
    reached: Notify,
}

#[async_trait]
impl FailPoints for StopAt {
    async fn hit(&self, _: Place, stage: Stage, point: Point, _: &TransferKey) {
        if (stage, point) == (self.stage, self.point) {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// Stops the receiver at a point as a power cut does, and starts it again.
async fn stopped_at(stage: Stage, point: Point, land: impl Fn(&Bench), expected: ReceiptStage) -> Bench {
    let bench = Bench::new().await;
    land(&bench);
    let stop = Arc::new(StopAt { stage, point, reached: Notify::new() });
    let until = Arc::clone(&stop);
    let parts = bench.parts_with(|parts| parts.fail_points = stop);
    let (events, _watched) = mpsc::unbounded_channel();
    let service = Service::new(parts, ServiceSettings::default(), Arc::new(Watcher(events)), Arc::new(Notify::new()));
    let serving = tokio::spawn(service.run(CancellationToken::new()));
    until.reached.notified().await;
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    bench.files.power_loss();
    bench.parts.journal.break_leases().await.unwrap();

    let key = Bench::key("erp", id(1));
    run(&bench, &bench.parts, std::slice::from_ref(&key)).await;
    assert_eq!(receipt(&bench, id(1)).stage, expected, "{stage} {point}");
    towpath_journal::verify(&*bench.parts.journal, &key).await.unwrap();
    bench
}

const STAGES: [Stage; 3] = [Stage::Verify, Stage::Import, Stage::Receipt];

#[tokio::test]
async fn stopped_anywhere_it_imports_once() {
    for stage in STAGES {
        for point in Point::ALL {
            let land = |bench: &Bench| bench.land("erp", id(1), &folder(&sent(1), &bench.erp));
            let bench = stopped_at(stage, *point, land, ReceiptStage::Imported).await;
            assert_eq!(bench.query("erp", "main", IMPORTS).await, [id(1).to_string()], "{stage} {point}");
            assert_eq!(bench.query("erp", "main", CONTENT).await.len(), 3, "{stage} {point}");
        }
    }
}

#[tokio::test]
async fn stopped_anywhere_it_rejects_once() {
    for stage in [Stage::Verify, Stage::Receipt] {
        for point in Point::ALL {
            let land = |bench: &Bench| {
                let mut bad = folder(&sent(1), &bench.erp);
                bad.get_mut(MD5SUMS_NAME).unwrap()[0] ^= 1;
                bench.land("erp", id(1), &bad);
            };
            let bench = stopped_at(stage, *point, land, ReceiptStage::Rejected).await;
            assert_eq!(quarantine::list(&*bench.files, &bench.parts.layout).unwrap().len(), 1, "{stage} {point}");
            assert!(!bench.database("erp", "main").exists());
        }
    }
}

/// A landing whose disk failed after the rename of the manifest has its name all the same, and the relay and the scan find it.
#[tokio::test]
async fn a_manifest_that_is_found_is_durable_before_anything_relies_on_it() {
    for stage in STAGES {
        for point in Point::ALL {
            let land = |bench: &Bench| {
                bench.land("erp", id(1), &folder(&sent(1), &bench.erp));
                let landed = bench.parts.layout.landed(&Bench::key("erp", id(1)));
                let (whole, part) = (landed.join(MANIFEST_NAME), landed.join("manifest.json.part"));
                bench.files.rename(&whole, &part).unwrap();
                bench.files.sync_dir(&landed).unwrap();
                bench.files.rename(&part, &whole).unwrap();
            };
            stopped_at(stage, *point, land, ReceiptStage::Imported).await;
        }
    }
}

#[tokio::test]
async fn what_has_landed_goes_for_good_when_it_is_over() {
    let bench = Bench::new().await;
    imported(&bench, &bench.parts, "erp", id(1), &folder(&sent(1), &bench.erp)).await;
    bench.files.power_loss();
    assert!(bench.files.stat(&bench.parts.layout.landed(&Bench::key("erp", id(1)))).is_err());
}

/// A try that could not make the move to quarantine durable has made it all the same, and the next one finds nothing to move.
#[tokio::test]
async fn what_is_rejected_is_in_quarantine_for_good_whichever_sync_fails() {
    for failing in 1..=2 {
        let bench = Bench::new().await;
        let key = Bench::key("erp", id(1));
        let folders = [bench.parts.layout.quarantine().join("erp"), bench.parts.layout.landing_agent(&key.agent)];
        let mut syncs = 0;
        let plan = Box::new(move |op, path: &Path| {
            let counts = op == FileOp::SyncDir && folders.iter().any(|folder| path == folder);
            syncs += usize::from(counts);
            (counts && syncs == failing).then_some(FileFault::Before(std::io::ErrorKind::StorageFull))
        });
        let parts = bench.parts_with(|parts| parts.files = Arc::new(FaultFiles::new(bench.files.clone(), plan)));
        let mut bad = folder(&sent(1), &bench.erp);
        bad.get_mut(MD5SUMS_NAME).unwrap()[0] ^= 1;
        rejected(&bench, &parts, "erp", id(1), &bad).await;
        bench.files.power_loss();
        assert!(bench.files.stat(&bench.parts.layout.landed(&key)).is_err(), "sync {failing}");
        assert_eq!(quarantine::list(&*bench.files, &bench.parts.layout).unwrap().len(), 1, "sync {failing}");
    }
}

#[tokio::test]
async fn landing_ten_times_imports_once() {
    let bench = Bench::new().await;
    let whole = folder(&sent(1), &bench.erp);
    imported(&bench, &bench.parts, "erp", id(1), &whole).await;
    for _ in 1..10 {
        bench.land("erp", id(1), &whole);
        assert_eq!(super::scan::scan(&bench.parts, &towpath_journal::WakeUp::new()).await.unwrap(), 0);
        assert!(bench.files.stat(&bench.parts.layout.landed(&Bench::key("erp", id(1)))).is_err());
        assert_eq!(receipt(&bench, id(1)).stage, ReceiptStage::Imported);
    }
    assert_eq!(bench.query("erp", "main", IMPORTS).await.len(), 1);
}

#[tokio::test]
async fn every_kind_of_tampering_is_rejected_with_its_code() {
    type Change = fn(&mut Folder);
    let cases: [(&str, &[Code], Change); 12] = [
        ("a packed byte", &[Code::DigestMismatch], |f| {
            let bytes = f.get_mut("items.csv.bz2").unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
        ("bytes behind the packed file", &[Code::DigestMismatch], |f| {
            f.get_mut("items.csv.bz2").unwrap().extend_from_slice(b"more");
        }),
        ("a packed file cut off", &[Code::DigestMismatch], |f| {
            f.get_mut("items.csv.bz2").unwrap().pop();
        }),
        ("a packed size", &[Code::DigestMismatch], |f| {
            let mut list = PackedList::parse(&f[PACKED_NAME]).unwrap();
            list.files[0].size += 1;
            f.insert(PACKED_NAME.into(), list.to_bytes().unwrap());
        }),
        ("the packed list's form", &[Code::PackedListInvalid], |f| f.get_mut(PACKED_NAME).unwrap().push(b' ')),
        ("a manifest byte", &[Code::SignatureInvalid], |f| {
            let text = String::from_utf8(f[MANIFEST_NAME].clone()).unwrap();
            f.insert(MANIFEST_NAME.into(), text.replace("03:04:05", "03:04:06").into_bytes());
        }),
        ("the manifest's form", &[Code::ManifestInvalid], |f| {
            f.get_mut(MANIFEST_NAME).unwrap().truncate(40);
        }),
        ("the signature", &[Code::SignatureInvalid], |f| {
            let bytes = f.get_mut(SIGNATURE_NAME).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
        }),
        ("the signature is missing", &[Code::TransferIncomplete], |f| {
            f.remove(SIGNATURE_NAME);
        }),
        ("MD5SUMS", &[Code::ContentInvalid], |f| {
            let first = &mut f.get_mut(MD5SUMS_NAME).unwrap()[0];
            *first = if *first == b'0' { b'1' } else { b'0' };
        }),
        ("MD5SUMS is missing", &[Code::TransferIncomplete], |f| {
            f.remove(MD5SUMS_NAME);
        }),
        ("a file is missing", &[Code::TransferIncomplete], |f| {
            f.remove("items.csv.bz2");
        }),
    ];
    let bench = Bench::new().await;
    for ((what, codes, change), n) in cases.into_iter().zip(1..) {
        let mut altered = folder(&sent(n), &bench.erp);
        change(&mut altered);
        let rejection = rejected(&bench, &bench.parts, "erp", id(n), &altered).await;
        assert!(codes.contains(&rejection.code), "{what}: {rejection:?}");
    }
    assert!(!bench.database("erp", "main").exists());
    // The next one is a new transfer, and it is taken.
    imported(&bench, &bench.parts, "erp", id(100), &folder(&sent(100), &bench.erp)).await;
}

#[tokio::test]
async fn a_manifest_that_the_disk_has_lost_is_nobodys_fault() {
    let bench = Bench::new().await;
    let (files, key) = (folder(&sent(1), &bench.erp), Bench::key("erp", id(1)));
    bench.land("erp", id(1), &files);
    assert_eq!(crate::uplink::scan::scan(&bench.parts, &WakeUp::new()).await.unwrap(), 1);
    bench.files.remove_dir_all(&bench.parts.layout.landed(&key)).unwrap();
    // The relay hands it on once more.
    let seen = run_with(&bench, &bench.parts, std::slice::from_ref(&key), || bench.land("erp", id(1), &files)).await;
    assert!(seen.contains(&"retrying"), "{seen:?}");
    assert_eq!(record(&bench, &key).await.state, TransferState::Imported);
    assert_eq!(receipt(&bench, id(1)).stage, ReceiptStage::Imported);
}

#[tokio::test]
async fn a_signed_manifest_that_lies_about_its_content_is_rejected() {
    let bench = Bench::new().await;
    let short = Plain { csv: "n,t\r\n1.50,a\r\n".into(), ..table("items", ITEMS) };
    let lie = sealed(&manifest(&sent(1)), &[short], &bench.erp);
    let rejection = rejected(&bench, &bench.parts, "erp", id(1), &lie).await;
    assert!(matches!(rejection.code, Code::ContentInvalid | Code::DigestMismatch), "{rejection:?}");
}

#[tokio::test]
async fn only_approved_agents_in_their_own_folders_are_believed() {
    let bench = Bench::new().await;
    let stranger = identity(2);
    // Nobody has approved this agent.
    let mut other = sent(1);
    other.agent = "other";
    let rejection = rejected(&bench, &bench.parts, "other", id(1), &folder(&other, &stranger)).await;
    assert_eq!(rejection.code, Code::AgentUnapproved);
    // An unapproved key in the name of an approved agent.
    let rejection = rejected(&bench, &bench.parts, "erp", id(2), &folder(&sent(2), &stranger)).await;
    assert_eq!(rejection.code, Code::SignatureInvalid);
    // An approved agent's transfer under another agent's name, another transfer's id and another tenant.
    for (agent, n) in [("other", 3), ("erp", 4)] {
        let rejection = rejected(&bench, &bench.parts, agent, id(n), &folder(&sent(5), &bench.erp)).await;
        assert_eq!(rejection.code, Code::ManifestInvalid);
    }
    let mut foreign = manifest(&sent(6));
    foreign.tenant = "elsewhere".parse().unwrap();
    let rejection = rejected(&bench, &bench.parts, "erp", id(6), &sealed(&foreign, &sent(6).tables, &bench.erp)).await;
    assert_eq!(rejection.code, Code::ManifestInvalid);
}

#[tokio::test]
async fn limits_and_tables_of_the_configuration_hold() {
    let bench = Bench::with(|parts| parts.limits.unpacked_file_bytes = 10).await;
    let rejection = rejected(&bench, &bench.parts, "erp", id(1), &folder(&sent(1), &bench.erp)).await;
    assert_eq!(rejection.code, Code::LimitExceeded);
    let bench = Bench::with(|parts| parts.tables = TableFilter::Named(vec!["sales".into()])).await;
    let rejection = rejected(&bench, &bench.parts, "erp", id(1), &folder(&sent(1), &bench.erp)).await;
    assert_eq!(rejection.code, Code::ImportRefused);
}

#[tokio::test]
async fn imports_follow_the_sequence_of_their_job() {
    let bench = Bench::new().await;
    imported(&bench, &bench.parts, "erp", id(2), &folder(&sent(2), &bench.erp)).await;
    let rejection = rejected(&bench, &bench.parts, "erp", id(1), &folder(&sent(1), &bench.erp)).await;
    assert_eq!(rejection.code, Code::Superseded);
    // Another job is another ERP company, with an order of its own.
    let mut other = sent(3);
    (other.job, other.sequence) = ("other", 1);
    imported(&bench, &bench.parts, "erp", id(3), &folder(&other, &bench.erp)).await;
    assert_eq!(bench.query("erp", "main", IMPORTS).await, [id(2).to_string()]);
    assert_eq!(bench.query("erp", "other", IMPORTS).await, [id(3).to_string()]);
}

#[tokio::test]
async fn unchanged_tables_need_their_base() {
    let bench = Bench::new().await;
    let mut unchanged = sent(2);
    unchanged.tables[0].base = Some(id(1));
    unchanged.tables.push(table("sales", "n,t\r\n7,s\r\n"));
    let rejection = rejected(&bench, &bench.parts, "erp", id(2), &folder(&unchanged, &bench.erp)).await;
    assert_eq!(rejection.code, Code::BaseMissing);
    assert!(rejection.detail.contains("items"), "{rejection:?}");

    imported(&bench, &bench.parts, "erp", id(3), &folder(&sent(3), &bench.erp)).await;
    let mut next = unchanged.clone();
    (next.id, next.sequence) = (id(4), 4);
    imported(&bench, &bench.parts, "erp", id(4), &folder(&next, &bench.erp)).await;
    let rows: Vec<u64> = receipt(&bench, id(4)).rows.iter().map(|rows| rows.rows).collect();
    assert_eq!(rows, [3, 1]);
    assert_eq!(bench.query("erp", "main", CONTENT).await.len(), 3);
    // The same rows are no base once the content has changed.
    let mut changed = sent(5);
    changed.tables = vec![table("items", "n,t\r\n9,z\r\n")];
    imported(&bench, &bench.parts, "erp", id(5), &folder(&changed, &bench.erp)).await;
    (next.id, next.sequence) = (id(6), 6);
    let rejection = rejected(&bench, &bench.parts, "erp", id(6), &folder(&next, &bench.erp)).await;
    assert_eq!(rejection.code, Code::BaseMissing);
    assert_eq!(bench.query("erp", "main", CONTENT).await, ["9/z"]);
}

#[tokio::test]
async fn agents_with_equal_job_names_have_databases_of_their_own() {
    let bench = Bench::new().await;
    let other = identity(2);
    let signers = bench.temp.path().join("allowed_signers");
    AllowedSigners::load(&signers).unwrap().add("other", &[Namespace::Manifest], other.public_key()).unwrap();
    imported(&bench, &bench.parts, "erp", id(1), &folder(&sent(1), &bench.erp)).await;
    let mut theirs = sent(1);
    theirs.agent = "other";
    theirs.tables = vec![table("items", "n,t\r\n5,o\r\n")];
    // Even the transfer's id may be the same.
    bench.land("other", id(1), &folder(&theirs, &other));
    let key = Bench::key("other", id(1));
    run(&bench, &bench.parts, std::slice::from_ref(&key)).await;
    assert_eq!(record(&bench, &key).await.state, TransferState::Imported);
    assert_eq!(bench.query("other", "main", CONTENT).await, ["5/o"]);
    assert_eq!(bench.query("erp", "main", CONTENT).await.len(), 3);
}

#[tokio::test]
async fn a_full_disk_of_our_own_is_no_rejection() {
    // The decision cannot be written, neither that it was imported nor that it is rejected.
    for good in [true, false] {
        let bench = Bench::new().await;
        let mut landed = folder(&sent(1), &bench.erp);
        if !good {
            landed.remove(MD5SUMS_NAME);
        }
        bench.land("erp", id(1), &landed);
        bench.files.set_space(Some(0));
        let key = Bench::key("erp", id(1));
        let seen = run_with(&bench, &bench.parts, std::slice::from_ref(&key), || bench.files.set_space(None)).await;
        assert!(seen.contains(&"retrying"), "{seen:?}");
        let receipt = receipt(&bench, id(1));
        let expected = if good { ReceiptStage::Imported } else { ReceiptStage::Rejected };
        assert_eq!(receipt.stage, expected);
        if good {
            assert_eq!(bench.query("erp", "main", IMPORTS).await.len(), 1);
        } else {
            assert_eq!(receipt.reason.unwrap().code, Code::TransferIncomplete);
        }
    }
}

#[tokio::test]
async fn a_relay_that_was_restored_to_before_the_transfer_gets_the_receipt_later() {
    let bench = Bench::new().await;
    bench.relay.fail_before(Failure::park(Code::NotFound, "posting a receipt: the relay says: there is no such transfer"));
    bench.land("erp", id(1), &folder(&sent(1), &bench.erp));
    let key = Bench::key("erp", id(1));
    let seen = run(&bench, &bench.parts, std::slice::from_ref(&key)).await;
    assert_eq!(seen.iter().filter(|event| **event == "retrying").count(), 1);
    assert_eq!(bench.relay.receipts().len(), 1);
}

#[tokio::test]
async fn a_relay_that_loses_answers_gets_one_receipt() {
    let bench = Bench::new().await;
    let lost = || Failure::retry(Code::RelayUnreachable, "posting a receipt");
    bench.relay.fail_before(lost());
    bench.relay.fail_after(lost());
    bench.land("erp", id(1), &folder(&sent(1), &bench.erp));
    let key = Bench::key("erp", id(1));
    let seen = run(&bench, &bench.parts, std::slice::from_ref(&key)).await;
    assert_eq!(seen.iter().filter(|event| **event == "retrying").count(), 2);
    assert_eq!(receipt(&bench, id(1)).stage, ReceiptStage::Imported);
}

#[tokio::test]
async fn tables_of_the_app_are_left_alone() {
    let bench = Bench::new().await;
    imported(&bench, &bench.parts, "erp", id(1), &folder(&sent(1), &bench.erp)).await;
    // A table of that name that Towpath has not made is a rejection; it stays as it was.
    bench.query("erp", "main", "CREATE TABLE sales (n)").await;
    let mut more = sent(2);
    more.tables.push(table("sales", "n,t\r\n7,s\r\n"));
    let rejection = rejected(&bench, &bench.parts, "erp", id(2), &folder(&more, &bench.erp)).await;
    assert_eq!(rejection.code, Code::ImportRefused);
    assert_eq!(bench.query("erp", "main", IMPORTS).await, [id(1).to_string()]);
}

#[tokio::test]
async fn quarantine_keeps_the_newest() {
    let bench = Bench::with(|parts| parts.limits.quarantined_transfers = 2).await;
    for n in 1..=4 {
        let mut bad = folder(&sent(n), &bench.erp);
        bad.remove(MD5SUMS_NAME);
        rejected(&bench, &bench.parts, "erp", id(n), &bad).await;
    }
    let kept: Vec<TransferId> =
        quarantine::list(&*bench.files, &bench.parts.layout).unwrap().iter().map(|entry| entry.transfer).collect();
    assert_eq!(kept, [id(3), id(4)]);
    quarantine::release(&*bench.files, &bench.parts.layout, id(3), Some(&"erp".parse().unwrap())).unwrap();
    let gone = quarantine::show(&*bench.files, &bench.parts.layout, id(3), None).unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn quarantine_keeps_to_its_bytes_and_the_newest_documents_whatever_it_has() {
    let large = |n| {
        let mut bad = folder(&sent(n), &identity(1));
        bad.remove(MD5SUMS_NAME);
        bad.insert("items.csv.bz2".into(), vec![n; 10_000]);
        bad
    };
    // What one takes: its documents are small.
    let bench = Bench::with(|parts| parts.limits.quarantined_bytes = 30_000).await;
    let kept = || {
        let listed = quarantine::list(&*bench.files, &bench.parts.layout).unwrap();
        listed.iter().map(|entry| entry.transfer).collect::<Vec<_>>()
    };
    for n in 1..=4 {
        rejected(&bench, &bench.parts, "erp", id(n), &large(n)).await;
    }
    assert_eq!(kept(), [id(3), id(4)]);
    // What a person has put beside them is left alone.
    let agent = bench.parts.layout.quarantine().join("erp");
    bench.files.create_dir_all(&agent.join("keep")).unwrap();
    for theirs in ["case.tgz", "keep/large"] {
        write_whole(&*bench.files, &agent.join(theirs), &[0; 10_000]).unwrap();
    }
    let parts = bench.parts_with(|parts| parts.limits.quarantined_bytes = 9_999);
    crate::tidy::tidy(&parts).await.unwrap();
    assert_eq!(kept(), [id(4)]);
    rejected(&bench, &parts, "erp", id(5), &large(5)).await;
    assert_eq!(kept(), [id(5)]);
    let (_, files) = quarantine::show(&*bench.files, &bench.parts.layout, id(5), None).unwrap();
    let names: Vec<&str> = files.iter().map(|file| &*file.name).collect();
    assert_eq!(names, [MANIFEST_NAME, SIGNATURE_NAME, PACKED_NAME, "reason.json"]);
    assert!(["case.tgz", "keep/large"].iter().all(|theirs| bench.files.stat(&agent.join(theirs)).is_ok()));
}

async fn first_use(peers: &[(&str, &Identity)]) -> Bench {
    let bench = Bench::with(|parts| parts.policy = TrustPolicy::FirstUse).await;
    bench.relay.set_peers(peers.iter().map(|(name, identity)| peer(name, identity)).collect());
    bench
}

#[tokio::test]
async fn first_use_pins_once_and_never_replaces() {
    let (young, liar) = (identity(2), identity(3));
    let bench = first_use(&[("young", &young), ("erp", &liar)]).await;
    let mut first = sent(1);
    first.agent = "young";
    // While the relay cannot be asked the transfer waits.
    bench.relay.fail_before(Failure::retry(Code::RelayUnreachable, "asking for peers"));
    imported(&bench, &bench.parts, "young", id(1), &folder(&first, &young)).await;
    let signers = bench.parts.trust.signers().unwrap();
    assert_eq!(signers.lookup("young", Namespace::Manifest).collect::<Vec<_>>(), [young.public_key()]);

    // What a person has taken back no first use gives again, whichever key the relay names.
    crate::agents::remove(&bench.temp.path().join("allowed_signers"), &"young".parse().unwrap()).unwrap();
    for (n, named) in [(5, &young), (6, &liar)] {
        bench.relay.set_peers(vec![peer("young", named)]);
        let again = Sent { agent: "young", ..sent(n) };
        let rejection = rejected(&bench, &bench.parts, "young", id(n), &folder(&again, named)).await;
        assert_eq!(rejection.code, Code::AgentUnapproved);
    }
    bench.relay.set_peers(vec![peer("erp", &liar)]);

    // The relay names another key for an agent whose key is pinned.
    let rejection = rejected(&bench, &bench.parts, "erp", id(2), &folder(&sent(2), &liar)).await;
    assert_eq!(rejection.code, Code::SignatureInvalid);
    assert_eq!(bench.parts.trust.signers().unwrap().lookup("erp", Namespace::Manifest).count(), 1);

    // An agent that the relay does not name, and one whose proof is wrong, are believed no more than without first use.
    let mut unnamed = sent(3);
    unnamed.agent = "unnamed";
    let rejection = rejected(&bench, &bench.parts, "unnamed", id(3), &folder(&unnamed, &young)).await;
    assert_eq!(rejection.code, Code::AgentUnapproved);
    let mut forged = peer("forged", &young);
    forged.proof = peer("forged", &liar).proof;
    bench.relay.set_peers(vec![forged]);
    let mut theirs = sent(4);
    theirs.agent = "forged";
    let rejection = rejected(&bench, &bench.parts, "forged", id(4), &folder(&theirs, &young)).await;
    assert_eq!(rejection.code, Code::AgentUnapproved);
}

#[tokio::test]
async fn what_is_not_a_transfer_is_left_alone() {
    let bench = Bench::new().await;
    let root = bench.parts.layout.landing().join("uplink");
    for strange in ["UPPER", "a b", "erp/not-an-id", "erp/01922C1E-8A4F-7D3A-9B5E-0C1D2E3F4A01"] {
        bench.files.create_dir_all(&root.join(strange)).unwrap();
    }
    // A transfer without its manifest is not there yet.
    let mut partial = folder(&sent(1), &bench.erp);
    partial.remove(MANIFEST_NAME);
    bench.land("erp", id(1), &partial);
    let wake = towpath_journal::WakeUp::new();
    assert_eq!(super::scan::scan(&bench.parts, &wake).await.unwrap(), 0);
    let agent: AgentName = "erp".parse().unwrap();
    assert!(bench.files.stat(&bench.parts.layout.landing_agent(&agent).join("not-an-id")).is_ok());
}

/// Fails one operation once, on the first path that the test picks.
fn once(op: FileOp, pick: impl Fn(&Path) -> bool + Send + 'static) -> FilePlan {
    let mut left = true;
    Box::new(move |found, path| {
        let hit = left && found == op && pick(path);
        left &= !hit;
        hit.then_some(FileFault::Before(std::io::ErrorKind::Other))
    })
}

#[tokio::test]
async fn a_rejection_that_was_signed_is_quarantined_all_the_same() {
    let bench = Bench::new().await;
    let plan = once(FileOp::Rename, |path| path.starts_with("/state/quarantine"));
    let files = FaultFiles::new(bench.files.clone(), plan);
    let parts = bench.parts_with(|parts| parts.files = Arc::new(files));
    let mut bad = folder(&sent(1), &bench.erp);
    bad.remove(MD5SUMS_NAME);
    assert_eq!(rejected(&bench, &parts, "erp", id(1), &bad).await.code, Code::TransferIncomplete);
}

#[tokio::test]
async fn what_was_imported_is_never_signed_for_as_rejected() {
    let bench = Bench::new().await;
    let plan = once(FileOp::Rename, |path| path.ends_with("imported.json"));
    let files = FaultFiles::new(bench.files.clone(), plan);
    let parts = bench.parts_with(|parts| parts.files = Arc::new(files));
    let whole = folder(&sent(1), &bench.erp);
    bench.land("erp", id(1), &whole);
    let key = Bench::key("erp", id(1));
    // Between the commit and the receipt, what has landed is spoilt.
    let spoil = || bench.land("erp", id(1), &Folder::from([(MANIFEST_NAME.to_owned(), b"spoilt".to_vec())]));
    let seen = run_with(&bench, &parts, std::slice::from_ref(&key), spoil).await;
    assert!(seen.contains(&"retrying"), "{seen:?}");
    let receipt = receipt(&bench, id(1));
    assert_eq!(receipt.stage, ReceiptStage::Imported);
    assert_eq!(receipt.manifest, Some(Sha256Digest::of(&whole[MANIFEST_NAME])));
    assert_eq!(bench.query("erp", "main", IMPORTS).await, [id(1).to_string()]);
}

#[tokio::test]
async fn every_effect_on_the_disk_may_fail_once() {
    // More than an import or a rejection has; the last ones fail nothing.
    const EFFECTS: usize = 36;
    for n in 1..=EFFECTS {
        for fault in [FileFault::Before(std::io::ErrorKind::Other), FileFault::After(std::io::ErrorKind::Other)] {
            let bench = Bench::new().await;
            let files = FaultFiles::new(bench.files.clone(), fault.on_effect(n));
            let parts = bench.parts_with(|parts| parts.files = Arc::new(files));
            bench.land("erp", id(1), &folder(&sent(1), &bench.erp));
            let mut bad = folder(&sent(2), &bench.erp);
            bad.remove(MD5SUMS_NAME);
            bench.land("erp", id(2), &bad);
            run(&bench, &parts, &[Bench::key("erp", id(1)), Bench::key("erp", id(2))]).await;
            assert_eq!(receipt(&bench, id(1)).stage, ReceiptStage::Imported, "{n} {fault:?}");
            assert_eq!(receipt(&bench, id(2)).stage, ReceiptStage::Rejected, "{n} {fault:?}");
            assert_eq!(bench.query("erp", "main", IMPORTS).await, [id(1).to_string()], "{n} {fault:?}");
            assert_eq!(quarantine::list(&*bench.files, &parts.layout).unwrap().len(), 1, "{n} {fault:?}");
        }
    }
}
