//! What happens between verification and delivery, and which transfers are let pass.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use towpath_journal::{Point, TransferRecord};
use towpath_transfer::{Code, Direction, Failure, Stage, TransferId, TransferState, clock::ManualClock, failure::Result};
use towpath_transport::files::{FileStore, read_whole, write_whole};

use super::world::Returns;
use crate::{
    config::ActionConfig,
    downlink::action::{ActionOf, Actions},
};

const LOAD: &str = "[[delivery]]\nkind = \"recommended-orders\"\nfolder = \"/erp/in\"\n[delivery.load]\nkind = \"sqlite\"\n\
                    path = \"/erp/erp.sqlite\"\ntable = \"order_import\"\ntransfer_column = \"transfer\"\n";
const ORDERS: &[u8] = b"item\r\n1\r\n2\r\n";

/// Reads what a load would load.
#[derive(Debug)]
struct Reading {
    files: Arc<dyn FileStore>,
    read: Mutex<Vec<Vec<u8>>>,
}

#[async_trait]
impl Actions for Reading {
    async fn act(&self, _: &ActionConfig, of: &ActionOf) -> Result<()> {
        let read = of.files.iter().map(|file| read_whole(&*self.files, &file.plain, 10_000).unwrap());
        self.read.lock().unwrap().extend(read);
        Ok(())
    }
}

#[tokio::test]
async fn what_is_loaded_is_what_was_signed_whatever_the_disk_has_made_of_it() {
    for damage in [Some(&b"item\r\n1\r\n"[..]), Some(b"item\r\n1\r\n9\r\n"), None] {
        let mut returns = Returns::with(LOAD);
        let reading = Arc::new(Reading { files: returns.world.files.clone(), read: Mutex::default() });
        returns.world.parts.actions = reading.clone();
        let id = returns.offer(&returns.sent(1, &[("orders.csv", ORDERS)]));
        returns.take().await;
        // Staged, and placed; then it waits, for days perhaps, for the ERP's database.
        returns.stop_at(id, Stage::Deliver, Point::AfterJournal, 2).await;
        let plain = returns.world.parts.layout.of(Direction::Downlink).plain(id).join("orders.csv");
        match damage {
            Some(bytes) => write_whole(&*returns.world.files, &plain, bytes).unwrap(),
            None => returns.world.files.remove(&plain).unwrap(),
        }
        assert_eq!(returns.world.finish(id).await.state, TransferState::Delivered);
        assert_eq!(*reading.read.lock().unwrap(), [ORDERS], "{damage:?}");
    }
}

#[tokio::test]
async fn nothing_is_delivered_of_a_receiver_that_was_taken_back_since() {
    let mut returns = Returns::new();
    let id = returns.orders().await;
    returns.stop_at(id, Stage::Verify, Point::AfterJournal, 1).await;
    let trust = returns.world.parts.trust.clone();
    assert_eq!(trust.withdraw(&returns.world.parts.agent, "app").unwrap(), 1);
    assert_eq!(returns.failed(id).await, (Code::ReceiverUnapproved, false));
    assert!(returns.delivered().is_empty());
    trust.approve("app", returns.world.far.receiver_key.public_key()).unwrap();
    assert_eq!(returns.retry(id).await.state, TransferState::Delivered);
}

/// An ERP that keeps each try waiting, and then refuses some transfers.
#[derive(Debug)]
struct Hanging {
    clock: ManualClock,
    refused: Vec<TransferId>,
}

#[async_trait]
impl Actions for Hanging {
    async fn act(&self, _: &ActionConfig, of: &ActionOf) -> Result<()> {
        if self.refused.contains(&of.transfer) {
            // Longer than the longest pause before the next try of another one.
            self.clock.advance(Duration::from_secs(40));
            return Err(Failure::retry(Code::ActionFailed, "the database is locked"));
        }
        Ok(())
    }
}

#[tokio::test]
async fn two_that_fail_for_long_each_time_let_a_third_pass() {
    let mut returns = Returns::new();
    let refused: Vec<TransferId> = (1..=2).map(|number| returns.offer(&returns.sent(number, &[("a.csv", b"a")]))).collect();
    returns.world.parts.actions = Arc::new(Hanging { clock: returns.world.clock.clone(), refused: refused.clone() });
    returns.take().await;
    for id in &refused {
        let has_acted = |record: &TransferRecord| record.last_failure.as_ref().is_some_and(|why| why.code == Code::ActionFailed);
        returns.world.drive(*id, has_acted).await;
    }
    let third = returns.offer(&returns.sent(3, &[("b.csv", b"b")]));
    returns.take().await;
    assert_eq!(returns.world.finish(third).await.state, TransferState::Delivered);
    assert!(returns.world.files.stat(Path::new("/erp/in/b.csv")).is_ok());
}
