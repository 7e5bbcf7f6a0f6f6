//! Stops a program at one point of one stage, for a test that then lets its machine crash.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use towpath_journal::{FailPoints, Point};
use towpath_transfer::{Stage, TransferKey, state::Place};

/// A point of a stage of a program.
pub type Spot = (Place, Stage, Point);

/// Failpoints of which one never returns, once.
#[derive(Debug)]
pub struct StopAt {
    spot: Option<Spot>,
    nth: u32,
    hits: Mutex<BTreeMap<Spot, u32>>,
}

impl StopAt {
    /// Stops at the `nth` hit, from 1, of a point.
    #[must_use]
    pub fn new(spot: Spot, nth: u32) -> Self {
        Self { spot: Some(spot), nth, hits: Mutex::default() }
    }

    /// Stops nowhere.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { spot: None, nth: 0, hits: Mutex::default() }
    }

    /// How often a point was passed, the hit included that stopped.
    #[must_use]
    pub fn hits(&self, spot: Spot) -> u32 {
        self.hits.lock().unwrap_or_else(PoisonError::into_inner).get(&spot).copied().unwrap_or(0)
    }

    /// Whether the program stands at the point.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.spot.is_some_and(|spot| self.hits(spot) >= self.nth)
    }

    fn count(&self, spot: Spot) -> u32 {
        let mut hits = self.hits.lock().unwrap_or_else(PoisonError::into_inner);
        let count = hits.entry(spot).or_default();
        *count += 1;
        *count
    }
}

#[async_trait]
impl FailPoints for StopAt {
    async fn hit(&self, place: Place, stage: Stage, point: Point, _: &TransferKey) {
        let spot = (place, stage, point);
        if self.count(spot) == self.nth && self.spot == Some(spot) {
            pending::<()>().await;
        }
    }
}
