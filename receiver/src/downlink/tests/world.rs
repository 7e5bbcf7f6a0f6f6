//! A receiver that sends back, the relay it tells, and the agent that signs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use towpath_journal::{Filter, NoObserver, TransferRecord};
use towpath_keys::{Identity, Namespace};
use towpath_transfer::{
    Code, Direction, TransferId, TransferKey,
    api::{DownlinkState, ExportStatus, Trouble},
    manifest::Manifest,
    receipt::{Receipt, ReceiptStage, SignedReceipt},
    state::Rejection,
};
use towpath_transport::files::{FileStore as _, write_whole};

use crate::{
    downlink::{
        take::{self, Request, Source},
        watch::{Complete, ExportFolder},
    },
    kept,
    parts::Parts,
    service::{Service, ServiceSettings},
    testing::{Bench, RELAY_SEED, identity},
};

pub(super) const FOLDER: &str = "/app/export";
pub(super) const ORDERS: &[u8] = b"item,quantity\r\n7,12\r\n";

/// Puts a file where the app writes, and makes it durable.
pub(super) fn put(bench: &Bench, name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(FOLDER).join(name);
    bench.files.create_dir_all(Path::new(FOLDER)).unwrap();
    write_whole(&*bench.files, &path, bytes).unwrap();
    path
}

pub(super) fn watched(complete: Complete) -> Vec<ExportFolder> {
    let folder = ExportFolder {
        folder: FOLDER.into(),
        kind: "recommended-orders".parse().unwrap(),
        agent: None,
        job: "main".parse().unwrap(),
        complete,
    };
    vec![folder]
}

pub(super) fn stable() -> Vec<ExportFolder> {
    watched(Complete::Stable(Duration::from_secs(10)))
}

pub(super) fn marked() -> Vec<ExportFolder> {
    watched(Complete::Marker(".ready".into()))
}

/// A receiver that watches [`FOLDER`].
pub(super) async fn watching(folders: Vec<ExportFolder>) -> Bench {
    let bench = Bench::with(|parts| parts.exports = folders).await;
    bench.files.create_dir_all(Path::new(FOLDER)).unwrap();
    bench
}

pub(super) fn request(parts: &Parts, names: &[&str]) -> Request {
    Request {
        version: 1,
        agent: "erp".parse().unwrap(),
        kind: "recommended-orders".parse().unwrap(),
        job: "main".parse().unwrap(),
        taken: parts.clock.now(),
        files: names.iter().map(|name| name.parse().unwrap()).collect(),
    }
}

/// Takes one file as `send` does.
pub(super) async fn send(bench: &Bench, parts: &Parts, id: TransferId) -> TransferRecord {
    let path = put(bench, "orders.csv", ORDERS);
    let wanted = request(parts, &["orders.csv"]);
    take::take(parts, id, &wanted, &[Source { name: "orders.csv".parse().unwrap(), path }]).unwrap();
    take::note(parts, id, &wanted).await.unwrap()
}

/// What the relay answers about a transfer that it was told of.
#[derive(Clone)]
pub(super) enum Answer {
    Delivered,
    Rejected,
    /// Every receipt as the test changes it, signed by the key it says.
    Changed(fn(&mut Receipt), u64),
    Trouble(Code, bool),
    Nothing,
}

pub(super) const ERP_SEED: u64 = 1;

pub(super) fn receipt(
    key: &TransferKey,
    stage: ReceiptStage,
    manifest: towpath_transfer::digest::Sha256Digest,
    signer: &Identity,
) -> Receipt {
    Receipt {
        version: 1,
        transfer: key.id,
        tenant: key.tenant.clone(),
        agent: key.agent.clone(),
        direction: Direction::Downlink,
        stage,
        manifest: Some(manifest),
        rows: Vec::new(),
        reason: (stage == ReceiptStage::Rejected).then(|| Rejection { code: Code::DigestMismatch, detail: "it differs".into() }),
        time: "2026-01-02T03:10:00Z".parse().unwrap(),
        signer: signer.fingerprint(),
    }
}

pub(super) fn signed(receipt: &Receipt, signer: &Identity) -> SignedReceipt {
    let bytes = receipt.to_bytes().unwrap();
    let signature = signer.sign(Namespace::Receipt, &bytes).unwrap();
    SignedReceipt { receipt: String::from_utf8(bytes).unwrap(), signature }
}

/// Answers for every transfer that the relay was told of.
pub(super) async fn answer(bench: &Bench, parts: &Parts, answer: &Answer) {
    for record in downlinks(parts).await {
        let key = record.key;
        let Some(export) = bench.relay.exported(key.id) else { continue };
        let manifest = export.announced.manifest;
        let relay = identity(RELAY_SEED);
        let accepted = signed(&receipt(&key, ReceiptStage::Accepted, manifest, &relay), &relay);
        let by_agent = |stage| {
            let erp = identity(ERP_SEED);
            signed(&receipt(&key, stage, manifest, &erp), &erp)
        };
        let (receipts, trouble) = match answer {
            Answer::Nothing => continue,
            Answer::Delivered => (vec![accepted, by_agent(ReceiptStage::Delivered)], None),
            Answer::Rejected => (vec![accepted, by_agent(ReceiptStage::Rejected)], None),
            Answer::Changed(change, seed) => {
                let signer = identity(*seed);
                let mut changed = receipt(&key, ReceiptStage::Delivered, manifest, &signer);
                change(&mut changed);
                (vec![accepted, signed(&changed, &signer)], None)
            }
            Answer::Trouble(code, parked) => {
                let stage = towpath_transfer::Stage::Fetch;
                (vec![], Some(Trouble { code: *code, stage, parked: *parked, detail: "it differs".into() }))
            }
        };
        let state = DownlinkState::Announced;
        bench.relay.set_export_status(ExportStatus { transfer: key.id, state, trouble, receipts });
    }
}

pub(super) async fn downlinks(parts: &Parts) -> Vec<TransferRecord> {
    let filter = Filter { direction: Some(Direction::Downlink), ..Filter::default() };
    parts.journal.list(&filter, 100, None).await.unwrap()
}

pub(super) fn start(parts: &Arc<Parts>) -> (JoinHandle<()>, CancellationToken) {
    let shutdown = CancellationToken::new();
    let arrived = Arc::new(Notify::new());
    let service = Service::new(Arc::clone(parts), ServiceSettings::default(), Arc::new(NoObserver), arrived);
    (tokio::spawn(service.run(shutdown.clone())), shutdown)
}

/// Lets time pass until everything that was sent is as `wanted`, and there are `number` of it.
pub(super) async fn until(
    bench: &Bench,
    parts: &Arc<Parts>,
    number: usize,
    answered: &Answer,
    wanted: impl Fn(&TransferRecord) -> bool,
) -> Vec<TransferRecord> {
    let (serving, shutdown) = start(parts);
    let records = loop {
        let records = downlinks(parts).await;
        if records.len() == number && records.iter().all(&wanted) {
            break records;
        }
        assert!(records.len() <= number, "sent twice: {records:?}");
        answer(bench, parts, answered).await;
        bench.clock.advance(Duration::from_millis(100));
        tokio::task::yield_now().await;
    };
    shutdown.cancel();
    serving.await.unwrap();
    records
}

/// Lets time pass until so many transfers are over.
pub(super) async fn over(bench: &Bench, parts: &Arc<Parts>, number: usize, answered: &Answer) -> Vec<TransferRecord> {
    until(bench, parts, number, answered, TransferRecord::is_over).await
}

/// The manifest that is kept of a transfer that has ended.
pub(super) fn kept_manifest(parts: &Parts, key: &TransferKey) -> Manifest {
    let (bytes, signature) = kept::manifest(&*parts.files, &parts.layout.receipts(key)).unwrap().unwrap();
    towpath_keys::verify(&signature, Namespace::Manifest, &bytes, parts.identity.public_key()).unwrap();
    Manifest::parse(&bytes).unwrap()
}

/// Nothing of a transfer lies anywhere but its receipts.
pub(super) fn no_copies(bench: &Bench, parts: &Parts, key: &TransferKey) {
    let layout = &parts.layout;
    for path in [layout.export(key), layout.export_begun(key), layout.laid_out(key), layout.laying_out(key)] {
        assert!(bench.files.stat(&path).is_err(), "{} is still there", path.display());
    }
}

/// The export folder and its claims are empty.
pub(super) fn nothing_left(bench: &Bench) {
    let names = |path: &str| bench.files.list(Path::new(path), None, 100).unwrap_or_default();
    let left: Vec<String> = names(FOLDER).into_iter().map(|entry| entry.name).filter(|name| name != ".taken").collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(names("/app/export/.taken").is_empty(), "{:?}", names("/app/export/.taken"));
}
