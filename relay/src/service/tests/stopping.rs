//! A relay that stops dead at a point, and another process that goes on over the same state.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use towpath_journal::{FailPoints, Journal as _, Point};
use towpath_transfer::{Stage, TransferKey, TransferState, state::Place};

use super::World;

/// Stops a stage for good at one point, and says so.
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

/// Says whenever a stage is in the journal.
#[derive(Default)]
struct Journalled(Notify);

#[async_trait]
impl FailPoints for Journalled {
    async fn hit(&self, _: Place, _: Stage, point: Point, _: &TransferKey) {
        if point == Point::AfterJournal {
            self.0.notify_one();
        }
    }
}

impl World {
    /// Runs every stage, until the answer is dropped.
    pub(crate) fn start(&self) -> JoinSet<()> {
        self.relay.drivers().into_iter().map(|driver| driver.run(CancellationToken::new())).collect()
    }

    /// Runs until the point is reached, and then loses the process and everything that was not synced.
    pub(crate) async fn stop_at(&mut self, stage: Stage, point: Point) {
        let stop = Arc::new(StopAt { stage, point, reached: Notify::new() });
        self.restart(stop.clone());
        let mut drivers = self.start();
        stop.reached.notified().await;
        drivers.shutdown().await;
        self.files.power_loss();
        self.clock.advance(Duration::from_secs(5));
        self.journal.break_leases().await.unwrap();
    }

    /// Another process goes on until the transfer is in the state.
    pub(crate) async fn go_on(&mut self, key: &TransferKey, until: impl Fn(&TransferState) -> bool) {
        let journalled = Arc::new(Journalled::default());
        self.restart(journalled.clone());
        let mut drivers = self.start();
        while !until(&self.journal.get(key).await.unwrap().unwrap().state) {
            journalled.0.notified().await;
        }
        drivers.shutdown().await;
        self.journal.break_leases().await.unwrap();
        towpath_journal::verify(&*self.journal, key).await.unwrap();
    }
}
