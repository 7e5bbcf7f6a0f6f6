//! Runs the stages over the parts until it is told to stop.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use towpath_journal::{DriverSettings, NoObserver, Observer, StageDriver, Step, WakeUp};

use crate::{
    downlink::{acknowledge::AcknowledgeStep, deliver::DeliverStep, pull::PullStep, verify::VerifyStep},
    parts::Parts,
    uplink::{extract::ExtractStep, pack::PackStep, push::PushStep, receipt::ReceiptStep},
};

/// The figures of the drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineSettings {
    /// Extracts at once. Default 1: the ERP has other work to do.
    pub extracts: usize,
    /// Transfers packed and pushed at once. Default 2.
    pub pushes: usize,
    /// Transfers whose receipts are asked for, or handed over, at once. Default 8.
    pub receipts: usize,
    /// Return files' transfers that are fetched at once. Default 2.
    pub pulls: usize,
    /// Return files' transfers that are unpacked, and that are delivered, at once. Default 1: they reach the ERP in the order in
    /// which they were sent, as long as nothing goes wrong.
    pub deliveries: usize,
    /// Everything else.
    pub driver: DriverSettings,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { extracts: 1, pushes: 2, receipts: 8, pulls: 2, deliveries: 1, driver: DriverSettings::default() }
    }
}

/// The agent's stages and their drivers. One engine works on a state folder at a time.
#[derive(Clone)]
pub struct Engine {
    parts: Arc<Parts>,
    wake: WakeUp,
    observer: Arc<dyn Observer>,
    settings: EngineSettings,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine over these parts.
    #[must_use]
    pub fn new(parts: Arc<Parts>, wake: WakeUp) -> Self {
        Self { parts, wake, observer: Arc::new(NoObserver), settings: EngineSettings::default() }
    }

    /// Lets `observer` watch the stages.
    #[must_use]
    pub fn observed_by(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// Uses other figures.
    #[must_use]
    pub fn with_settings(self, settings: EngineSettings) -> Self {
        Self { settings, ..self }
    }

    /// Works until `shutdown` is cancelled. Dropping the future stops everything where it stands, as a crash would.
    pub async fn run(self, shutdown: CancellationToken) {
        let parts = &self.parts;
        let settings = self.settings;
        tokio::join!(
            self.driver(Arc::new(ExtractStep { parts: Arc::clone(parts) }), settings.extracts).run(shutdown.clone()),
            self.driver(Arc::new(PackStep { parts: Arc::clone(parts) }), settings.pushes).run(shutdown.clone()),
            self.driver(Arc::new(PushStep { parts: Arc::clone(parts) }), settings.pushes).run(shutdown.clone()),
            self.driver(Arc::new(ReceiptStep { parts: Arc::clone(parts) }), settings.receipts).run(shutdown.clone()),
            self.driver(Arc::new(PullStep { parts: Arc::clone(parts) }), settings.pulls).run(shutdown.clone()),
            self.driver(Arc::new(VerifyStep { parts: Arc::clone(parts) }), settings.deliveries).run(shutdown.clone()),
            self.driver(Arc::new(DeliverStep { parts: Arc::clone(parts) }), settings.deliveries).run(shutdown.clone()),
            self.driver(Arc::new(AcknowledgeStep { parts: Arc::clone(parts) }), settings.receipts).run(shutdown.clone()),
        );
    }

    fn driver(&self, step: Arc<dyn Step>, concurrency: usize) -> StageDriver {
        let parts = &self.parts;
        let settings = DriverSettings { concurrency, ..self.settings.driver };
        let (clock, entropy) = (Arc::clone(&parts.clock), Arc::clone(&parts.entropy));
        StageDriver::new(Arc::clone(&parts.journal), step, clock, entropy, self.wake.clone(), settings)
            .observed_by(Arc::clone(&self.observer))
            .with_failpoints(Arc::clone(&parts.fail_points))
    }
}
