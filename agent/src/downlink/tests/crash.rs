//! The program is stopped at every point of every stage; it starts again, and each file was delivered once.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use towpath_journal::Point;
use towpath_transfer::{Code, Direction, Stage, TransferState, receipt::ReceiptStage};
use towpath_transport::files::{FaultFiles, FileFault, FileOp};

use super::world::{FOLDER, Returns};
use crate::downlink::{decide, stage_files};

/// Each stage, and how often it runs for one transfer: `deliver` stages, places and acts.
const STAGES: [(Stage, u32); 4] = [(Stage::Pull, 1), (Stage::Verify, 1), (Stage::Deliver, 3), (Stage::Acknowledge, 1)];

fn once() -> Vec<(String, Vec<u8>)> {
    vec![("notes.txt".to_owned(), b"by hand".to_vec()), ("orders.csv".to_owned(), b"item\r\n1\r\n".to_vec())]
}

async fn stopped_everywhere(erp_takes: bool, power_is_cut: bool) {
    for (stage, times) in STAGES {
        for (point, nth) in Point::ALL.iter().flat_map(|point| (1..=times).map(move |nth| (*point, nth))) {
            let shown = format!("{stage} {point} {nth}, takes: {erp_takes}, cut: {power_is_cut}");
            let mut returns = Returns::new();
            let id = returns.orders().await;
            returns.stop_at(id, stage, point, nth).await;
            if erp_takes {
                returns.erp_takes();
            }
            if power_is_cut {
                returns.world.files.power_loss();
            }
            let record = returns.world.finish(id).await;
            assert_eq!(record.state, TransferState::Delivered, "{shown}");
            assert_eq!(returns.ever_delivered(), once(), "{shown}");
            assert_eq!(returns.world.far.downlinks.acknowledged().len(), 1, "{shown}");
            towpath_journal::verify(&*returns.world.parts.journal, &record.key).await.unwrap();
        }
    }
}

#[tokio::test]
async fn each_file_is_delivered_once_wherever_it_stops() {
    stopped_everywhere(false, false).await;
}

#[tokio::test]
async fn each_file_is_delivered_once_also_when_the_erp_takes_it_at_once() {
    stopped_everywhere(true, false).await;
}

#[tokio::test]
async fn each_file_is_delivered_once_also_when_the_power_is_cut() {
    stopped_everywhere(false, true).await;
}

#[tokio::test]
async fn each_file_is_delivered_once_when_the_erp_takes_it_and_the_power_is_cut() {
    stopped_everywhere(true, true).await;
}

/// Every single effect on the disk fails, before and after it has happened, while files get their names.
#[tokio::test]
async fn a_failing_disk_between_two_renames_delivers_nothing_twice() {
    for cut in [false, true] {
        for n in 1..=6 {
            for fault in [FileFault::Before(std::io::ErrorKind::Other), FileFault::After(std::io::ErrorKind::Other)] {
                let mut returns = Returns::new();
                let id = returns.orders().await;
                returns.stop_at(id, Stage::Deliver, Point::AfterJournal, 1).await;
                let TransferState::Staged { files, .. } = returns.world.record(id).await.state else { panic!("not staged") };
                let mut broken = returns.world.parts.clone();
                broken.files = Arc::new(FaultFiles::new(returns.world.files.clone(), fault.on_effect(n)));
                let placed = stage_files::place(&broken, id, Path::new(FOLDER), &files);
                assert_eq!(placed.is_err(), n <= 4, "effect {n}");
                if cut {
                    returns.world.files.power_loss();
                } else {
                    returns.erp_takes();
                }
                let record = returns.world.finish(id).await;
                assert_eq!(record.state, TransferState::Delivered, "effect {n} {fault:?}");
                assert_eq!(returns.ever_delivered(), once(), "effect {n} {fault:?} cut: {cut}");
            }
        }
    }
}

/// A try that could not make its receipt durable has left it all the same, and the next one finds it.
#[tokio::test]
async fn a_receipt_that_is_found_is_durable_before_the_journal_relies_on_it() {
    for failing in 1..=2 {
        let mut returns = Returns::new();
        let id = returns.orders().await;
        let receipts = returns.world.parts.layout.of(Direction::Downlink).receipts(id);
        let mut syncs = 0;
        let plan = Box::new(move |op, path: &Path| {
            syncs += usize::from(op == FileOp::SyncDir && path == receipts);
            (op == FileOp::SyncDir && path == receipts && syncs == failing)
                .then_some(FileFault::Before(std::io::ErrorKind::StorageFull))
        });
        returns.world.parts.files = Arc::new(FaultFiles::new(returns.world.files.clone(), plan));
        returns.stop_at(id, Stage::Acknowledge, Point::BeforeEffect, 1).await;
        returns.world.files.power_loss();
        let kept = decide::kept(&returns.world.parts, id, ReceiptStage::Delivered).unwrap();
        assert!(kept.is_some(), "the receipt is lost where sync {failing} of its folder fails");
        assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered, "sync {failing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_for_which_nobody_waits_any_more_is_let_end() {
    let mut returns = Returns::new();
    returns.world.threads = true;
    let id = returns.orders().await;
    let (go_on, wait) = mpsc::channel::<()>();
    let (reached, mut stood) = (Arc::new(AtomicBool::new(false)), false);
    let there = Arc::clone(&reached);
    let plan = move |op, path: &Path| {
        if op == FileOp::OpenWrite
            && path.starts_with(stage_files::hidden(Path::new(FOLDER), id))
            && !std::mem::replace(&mut stood, true)
        {
            there.store(true, Ordering::SeqCst);
            // Until the sender is dropped.
            let _ = wait.recv();
        }
        None
    };
    let files = std::mem::replace(&mut returns.world.parts.files, returns.world.files.clone());
    returns.world.parts.files = Arc::new(FaultFiles::new(files, Box::new(plan)));
    returns.world.drive(id, |_| reached.load(Ordering::SeqCst)).await;
    // The stages begin anew, and the thread of before still stands in the middle of its copy.
    returns.world.parts.files = returns.world.files.clone();
    assert_eq!(returns.failed(id).await, (Code::DeliveryFailed, false));
    let why = returns.world.record(id).await.last_failure.unwrap().report;
    assert!(why.contains("an earlier try still works on the files"), "{why}");
    assert!(returns.delivered().is_empty());
    drop(go_on);
    assert_eq!(returns.retry(id).await.state, TransferState::Delivered);
    assert_eq!(returns.ever_delivered(), once());
}
