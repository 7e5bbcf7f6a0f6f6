//! Stops at every point, every call ten times, and two programs at once: delivered once, nothing lost.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Notify;
use towpath_journal::{FailPoints, Point, SqliteJournal, TransferRecord};
use towpath_transfer::{
    AgentName, Entropy, Stage, TransferId, TransferKey, TransferState,
    announcement::SignedAnnouncement,
    api::{
        Acknowledgement, AppReceipt, Complete, Downlinks, EnrolmentAnswer, EnrolmentRequest, Export, ExportStatus, KeyRotation,
        Peers, UplinkStatus,
    },
    clock::SeededEntropy,
    digest::Sha256Digest,
    failure::Result,
    state::Place,
};
use towpath_transport::{
    files::{FaultFiles, FileFault, FileOp, FilePlan, FileStore as _, write_whole},
    relay_api::{MemoryRelay, RelayApi},
};

use super::world::{
    Answer, answer, downlinks, kept_manifest, marked, no_copies, nothing_left, over, put, send, stable, start, watching,
};
use crate::{
    chain,
    downlink::take,
    parts::Parts,
    testing::{Bench, id},
};

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

#[tokio::test]
async fn stopped_anywhere_it_is_sent_once_and_ends_once() {
    for answered in [Answer::Delivered, Answer::Rejected] {
        for stage in [Stage::Export, Stage::Notify, Stage::Receipt] {
            for point in Point::ALL {
                let bench = Bench::new().await;
                let key = send(&bench, &bench.parts, id(1)).await.key;
                let stop = Arc::new(StopAt { stage, point: *point, reached: Notify::new() });
                let until = Arc::clone(&stop);
                let parts = bench.parts_with(|parts| parts.fail_points = stop);
                let (serving, _) = start(&parts);
                let mut reached = std::pin::pin!(until.reached.notified());
                while futures_ready(reached.as_mut()).await.is_none() {
                    answer(&bench, &parts, &answered).await;
                    bench.clock.advance(Duration::from_millis(100));
                }
                serving.abort();
                assert!(serving.await.unwrap_err().is_cancelled());
                bench.files.power_loss();
                bench.parts.journal.break_leases().await.unwrap();
                let first = bench.relay.exported(id(1));

                let ended = over(&bench, &bench.parts, 1, &answered).await;
                let told = bench.relay.exported(id(1)).unwrap();
                assert!(first.is_none_or(|first| first == told), "{stage} {point}");
                towpath_journal::verify(&*bench.parts.journal, &key).await.unwrap();
                assert!(chain::verify(&bench.parts, &ended[0]).unwrap().ok, "{stage} {point}");
                no_copies(&bench, &bench.parts, &key);
            }
        }
    }
}

/// Whether a future is ready after everybody else had a turn.
async fn futures_ready<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    tokio::task::yield_now().await;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn a_receipt_that_was_kept_counts_when_the_relay_has_forgotten_everything() {
    let bench = Bench::new().await;
    let key = send(&bench, &bench.parts, id(1)).await.key;
    let stop = Arc::new(StopAt { stage: Stage::Receipt, point: Point::AfterEffect, reached: Notify::new() });
    let until = Arc::clone(&stop);
    let parts = bench.parts_with(|parts| parts.fail_points = stop);
    let (serving, _) = start(&parts);
    let mut reached = std::pin::pin!(until.reached.notified());
    while futures_ready(reached.as_mut()).await.is_none() {
        answer(&bench, &parts, &Answer::Delivered).await;
        bench.clock.advance(Duration::from_millis(100));
    }
    serving.abort();
    serving.await.unwrap_err();
    bench.relay.forget_export(id(1));
    bench.parts.journal.break_leases().await.unwrap();
    let ended = over(&bench, &bench.parts, 1, &Answer::Nothing).await;
    assert_eq!(ended[0].state, TransferState::Delivered);
    assert!(bench.relay.exported(id(1)).is_none(), "the relay was told of what has ended");
    no_copies(&bench, &bench.parts, &key);
}

/// What a try that failed has kept the next one finds, and when the copies are gone nothing else is left.
#[tokio::test]
async fn what_is_kept_is_durable_before_the_copies_go_and_nothing_that_was_begun_stays() {
    // The two files of each receipt and of the manifest, and what closes the folder.
    for failing in 1..=7 {
        let bench = Bench::new().await;
        let key = send(&bench, &bench.parts, id(1)).await.key;
        let receipts = bench.parts.layout.receipts(&key);
        let begun = receipts.join(".rejected.json.sig.tmp");
        bench.files.create_dir_all(&receipts).unwrap();
        write_whole(&*bench.files, &begun, b"-----BEGIN SSH").unwrap();
        let (mut syncs, failed) = (0, Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&failed);
        let plan = Box::new(move |op, path: &Path| {
            syncs += usize::from(op == FileOp::SyncDir && path == receipts);
            let fails = op == FileOp::SyncDir && path == receipts && syncs == failing;
            told.fetch_or(fails, Ordering::SeqCst);
            fails.then_some(FileFault::Before(std::io::ErrorKind::StorageFull))
        });
        let files = FaultFiles::new(bench.files.clone(), plan);
        let parts = bench.parts_with(|parts| parts.files = Arc::new(files));
        let ended = over(&bench, &parts, 1, &Answer::Delivered).await;
        bench.files.power_loss();
        assert!(failed.load(Ordering::SeqCst), "there is no sync {failing}");
        assert!(chain::verify(&bench.parts, &ended[0]).unwrap().ok, "sync {failing}");
        kept_manifest(&bench.parts, &key);
        assert!(bench.files.stat(&begun).is_err(), "sync {failing}");
        no_copies(&bench, &bench.parts, &key);
    }
}

/// Two files of the app, which the watcher is to take.
fn put_two(bench: &Bench, with_markers: bool) {
    for name in ["a.csv", "b.csv"] {
        put(bench, name, name.as_bytes());
        if with_markers {
            put(bench, &format!("{name}.ready"), b"");
        }
    }
}

fn each_once(bench: &Bench, parts: &Parts, ended: &[TransferRecord], what: &str) {
    let mut names: Vec<String> = Vec::new();
    for record in ended {
        assert_eq!(record.state, TransferState::Delivered, "{what}");
        names.extend(kept_manifest(parts, &record.key).files.iter().map(|file| file.name.to_string()));
        no_copies(bench, parts, &record.key);
    }
    names.sort();
    assert_eq!(names, ["a.csv", "b.csv"], "{what}");
    nothing_left(bench);
}

#[tokio::test]
async fn every_effect_on_the_disk_may_fail_once() {
    // More than two files need from the export folder to the receipt; the last ones fail nothing.
    const EFFECTS: usize = 140;
    for with_markers in [false, true] {
        // Every third is enough for each run of the suite, and both kinds of folder begin elsewhere.
        for n in (1 + usize::from(with_markers)..=EFFECTS).step_by(3) {
            for fault in [FileFault::Before(std::io::ErrorKind::Other), FileFault::After(std::io::ErrorKind::Other)] {
                let bench = watching(if with_markers { marked() } else { stable() }).await;
                put_two(&bench, with_markers);
                let files = FaultFiles::new(bench.files.clone(), fault.on_effect(n));
                let parts = bench.parts_with(|parts| parts.files = Arc::new(files));
                let ended = over(&bench, &parts, 2, &Answer::Delivered).await;
                // What failed last may be the removal of a claim, for which another look is needed.
                settle_claims(&bench, &parts).await;
                each_once(&bench, &bench.parts, &ended, &format!("{n} {fault:?} {with_markers}"));
            }
        }
    }
}

/// Lets the watcher look until nothing is claimed.
async fn settle_claims(bench: &Bench, parts: &Arc<Parts>) {
    let (serving, shutdown) = start(parts);
    while bench.files.list(Path::new("/app/export/.taken"), None, 10).is_ok_and(|entries| !entries.is_empty()) {
        bench.clock.advance(Duration::from_millis(100));
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    serving.await.unwrap();
}

/// From the nth effect on nothing works any more.
fn dead_from(n: usize, dead: Arc<AtomicBool>) -> FilePlan {
    let mut effects = 0;
    Box::new(move |op, _| {
        effects += usize::from(op.is_effect());
        let over = effects >= n;
        dead.fetch_or(over, Ordering::SeqCst);
        over.then_some(FileFault::Before(std::io::ErrorKind::Other))
    })
}

#[tokio::test]
async fn a_power_cut_at_any_effect_neither_loses_nor_doubles_a_file() {
    const EFFECTS: usize = 140;
    for with_markers in [false, true] {
        for n in (1 + usize::from(with_markers)..=EFFECTS).step_by(2) {
            let bench = watching(if with_markers { marked() } else { stable() }).await;
            put_two(&bench, with_markers);
            let dead = Arc::new(AtomicBool::new(false));
            let files = FaultFiles::new(bench.files.clone(), dead_from(n, Arc::clone(&dead)));
            let parts = bench.parts_with(|parts| parts.files = Arc::new(files));
            let (serving, _) = start(&parts);
            let done = |records: &[TransferRecord]| records.len() == 2 && records.iter().all(TransferRecord::is_over);
            while !dead.load(Ordering::SeqCst) && !done(&downlinks(&parts).await) {
                answer(&bench, &parts, &Answer::Delivered).await;
                bench.clock.advance(Duration::from_millis(100));
                tokio::task::yield_now().await;
            }
            serving.abort();
            serving.await.unwrap_err();
            bench.files.power_loss();
            bench.parts.journal.break_leases().await.unwrap();
            let ended = over(&bench, &bench.parts, 2, &Answer::Delivered).await;
            settle_claims(&bench, &bench.parts).await;
            each_once(&bench, &bench.parts, &ended, &format!("{n} {with_markers}"));
        }
    }
}

#[tokio::test]
async fn taken_ten_times_it_is_one_transfer() {
    let bench = Bench::new().await;
    let first = send(&bench, &bench.parts, id(1)).await;
    for _ in 1..10 {
        assert_eq!(send(&bench, &bench.parts, id(1)).await.serial, first.serial);
    }
    over(&bench, &bench.parts, 1, &Answer::Delivered).await;
}

#[tokio::test]
async fn what_was_taken_and_not_noted_is_noted_at_the_next_start() {
    let bench = Bench::new().await;
    let path = put(&bench, "orders.csv", b"x");
    let wanted = super::world::request(&bench.parts, &["orders.csv"]);
    take::take(&bench.parts, id(1), &wanted, &[take::Source { name: "orders.csv".parse().unwrap(), path }]).unwrap();
    bench.files.power_loss();
    let ended = over(&bench, &bench.parts, 1, &Answer::Delivered).await;
    // A copy that comes back with a power cut goes at the next start, and nothing is sent again.
    let key = &ended[0].key;
    bench.files.create_dir_all(&bench.parts.layout.export(key)).unwrap();
    bench.files.create_dir_all(&bench.parts.layout.laid_out(key)).unwrap();
    assert_eq!(take::adopt(&bench.parts).await.unwrap(), 0);
    no_copies(&bench, &bench.parts, key);
    assert_eq!(downlinks(&bench.parts).await.len(), 1);
}

/// A program that was stopped as it had given the folder its name has taken it, and the next one finds it.
#[tokio::test]
async fn what_is_found_taken_is_durable_before_it_is_noted() {
    let bench = Bench::new().await;
    let key = Bench::key("erp", id(1));
    let folder = bench.parts.layout.exports_for(&key.agent);
    let plan = Box::new(move |op, path: &Path| {
        (op == FileOp::SyncDir && path == folder).then_some(FileFault::Before(std::io::ErrorKind::Other))
    });
    let parts = bench.parts_with(|parts| parts.files = Arc::new(FaultFiles::new(bench.files.clone(), plan)));
    let path = put(&bench, "orders.csv", b"x");
    let wanted = super::world::request(&parts, &["orders.csv"]);
    take::take(&parts, id(1), &wanted, &[take::Source { name: "orders.csv".parse().unwrap(), path }]).unwrap_err();
    assert_eq!(take::adopt(&parts).await.unwrap(), 0, "what cannot be made durable is noted");
    assert_eq!(take::adopt(&bench.parts).await.unwrap(), 1);
    bench.files.power_loss();
    let ended = over(&bench, &bench.parts, 1, &Answer::Delivered).await;
    assert_eq!(ended[0].state, TransferState::Delivered);
    no_copies(&bench, &bench.parts, &key);
}

/// Makes every call of the way back ten times and answers as the last one does.
#[derive(Debug)]
struct Tenfold(MemoryRelay);

#[async_trait]
impl RelayApi for Tenfold {
    async fn enrol(&self, request: &EnrolmentRequest) -> Result<EnrolmentAnswer> {
        self.0.enrol(request).await
    }

    async fn peers(&self) -> Result<Peers> {
        self.0.peers().await
    }

    async fn rotate_key(&self, rotation: &KeyRotation) -> Result<KeyRotation> {
        self.0.rotate_key(rotation).await
    }

    async fn complete(&self, transfer: TransferId, complete: &Complete) -> Result<UplinkStatus> {
        self.0.complete(transfer, complete).await
    }

    async fn uplink(&self, transfer: TransferId) -> Result<UplinkStatus> {
        self.0.uplink(transfer).await
    }

    async fn post_receipt(&self, receipt: &AppReceipt) -> Result<()> {
        self.0.post_receipt(receipt).await
    }

    async fn downlinks(&self, wait: Duration, unless: Option<Sha256Digest>) -> Result<Downlinks> {
        self.0.downlinks(wait, unless).await
    }

    async fn acknowledge(&self, transfer: TransferId, acknowledgement: &Acknowledgement) -> Result<()> {
        self.0.acknowledge(transfer, acknowledgement).await
    }

    async fn export(&self, export: &Export) -> Result<ExportStatus> {
        for _ in 1..10 {
            self.0.export(export).await?;
        }
        self.0.export(export).await
    }

    async fn export_status(&self, agent: &AgentName, transfer: TransferId) -> Result<ExportStatus> {
        for _ in 1..10 {
            self.0.export_status(agent, transfer).await?;
        }
        self.0.export_status(agent, transfer).await
    }

    async fn expect(&self, expectations: &towpath_transfer::api::Expectations) -> Result<()> {
        self.0.expect(expectations).await
    }

    async fn releases(&self) -> Result<towpath_transfer::api::Releases> {
        self.0.releases().await
    }

    async fn announcement(&self, pinned: u64) -> Result<SignedAnnouncement> {
        self.0.announcement(pinned).await
    }
}

#[tokio::test]
async fn every_call_ten_times_changes_nothing() {
    let bench = Bench::new().await;
    let parts = bench.parts_with(|parts| parts.relay = Arc::new(Tenfold(bench.relay.clone())));
    send(&bench, &parts, id(1)).await;
    assert_eq!(over(&bench, &parts, 1, &Answer::Delivered).await[0].state, TransferState::Delivered);
}

#[tokio::test]
async fn a_second_program_may_send_beside_serve() {
    let bench = Bench::new().await;
    let path = bench.temp.path().join("journal.sqlite");
    let mut programs = Vec::new();
    for seed in [31, 32] {
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(seed));
        let clock = Arc::new(bench.clock.clone());
        let journal = SqliteJournal::open(&path, Place::Receiver, clock, Arc::clone(&entropy)).await.unwrap();
        programs.push(bench.parts_with(|parts| (parts.journal, parts.entropy) = (Arc::new(journal), entropy)));
    }
    let (serving, shutdown) = start(&programs[0]);
    for n in 1..=3 {
        send(&bench, &programs[1], id(n)).await;
    }
    let ended = loop {
        let records = downlinks(&programs[1]).await;
        if records.len() == 3 && records.iter().all(TransferRecord::is_over) {
            break records;
        }
        answer(&bench, &programs[1], &Answer::Delivered).await;
        bench.clock.advance(Duration::from_millis(100));
        tokio::task::yield_now().await;
    };
    let mut numbers: Vec<u64> = ended.iter().map(|record| record.sequence.unwrap().0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
    shutdown.cancel();
    serving.await.unwrap();
}
