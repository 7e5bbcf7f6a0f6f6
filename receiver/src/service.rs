//! The receiver at work: one driver for each stage, the scan that finds what has landed, and the watch over the export folders.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use towpath_journal::{DriverSettings, Observer, StageDriver, Step, WakeUp};

use crate::{
    downlink::{
        export::Export,
        notify::Notify as NotifyStep,
        receipt::Awaited,
        take,
        watch::{WATCH_INTERVAL, Watcher},
    },
    parts::Parts,
    restored::{COMPARE_INTERVAL, compare},
    tidy::tidy,
    uplink::{import::Import, receipt::Receipt, scan::scan, verify::Verify},
};

/// How long running steps may go on at shutdown, and again, how long those that are interrupted may take; together they
/// stay below the 30 s in which the whole program ends.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(12);
/// How many transfers each stage works on at once. An import has 4 MB for bzip2, as much for rows, and a connection to the app database.
pub const AT_ONCE: usize = 8;
/// How many of these may be one agent's, so that one whose files are large, or never end, holds up none of the others.
pub const AT_ONCE_PER_AGENT: usize = 4;
/// How often old things are cleared away.
pub const TIDY_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The figures of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceSettings {
    /// How often the landing is looked at without a hint. Default 5 s.
    pub scan: Duration,
    /// How often the app databases are compared with what was signed for, also at the start. Default 5 min.
    pub compare: Duration,
    /// Of every stage's driver.
    pub drivers: DriverSettings,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        let drivers = DriverSettings {
            concurrency: AT_ONCE,
            per_agent: AT_ONCE_PER_AGENT,
            shutdown_grace: SHUTDOWN_GRACE,
            ..DriverSettings::default()
        };
        Self { scan: Duration::from_secs(5), compare: COMPARE_INTERVAL, drivers }
    }
}

/// The receiver's stages over its parts, without a network of its own.
pub struct Service {
    parts: Arc<Parts>,
    settings: ServiceSettings,
    observer: Arc<dyn Observer>,
    arrived: Arc<Notify>,
    wake: WakeUp,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("parts", &self.parts).field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Service {
    /// A service over `parts`. `arrived` is told when something may have landed.
    #[must_use]
    pub fn new(parts: Arc<Parts>, settings: ServiceSettings, observer: Arc<dyn Observer>, arrived: Arc<Notify>) -> Self {
        Self { parts, settings, observer, arrived, wake: WakeUp::new() }
    }

    /// Works until `shutdown` is cancelled. Dropping the future instead stops everything where it stands, as a crash would.
    pub async fn run(self, shutdown: CancellationToken) {
        let steps: [Arc<dyn Step>; 6] = [
            Arc::new(Verify(Arc::clone(&self.parts))),
            Arc::new(Import(Arc::clone(&self.parts))),
            Arc::new(Export(Arc::clone(&self.parts))),
            Arc::new(NotifyStep(Arc::clone(&self.parts))),
            Arc::new(Receipt(Arc::clone(&self.parts))),
            Arc::new(Awaited(Arc::clone(&self.parts))),
        ];
        let mut drivers = JoinSet::new();
        for step in steps {
            let parts = &self.parts;
            let driver = StageDriver::new(
                Arc::clone(&parts.journal),
                step,
                Arc::clone(&parts.clock),
                Arc::clone(&parts.entropy),
                self.wake.clone(),
                self.settings.drivers,
            );
            let driver = driver.observed_by(Arc::clone(&self.observer)).with_failpoints(Arc::clone(&parts.fail_points));
            drivers.spawn(driver.run(shutdown.clone()));
        }
        tokio::join!(self.look(&shutdown), self.watch(&shutdown), self.clear(&shutdown), self.compare(&shutdown));
        while drivers.join_next().await.is_some() {}
    }

    async fn look(&self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            if let Err(failure) = scan(&self.parts, &self.wake).await {
                tracing::error!(code = %failure.code(), error = %failure.report(), "looking at the landing failed");
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = self.arrived.notified() => {}
                () = self.parts.clock.sleep(self.settings.scan) => {}
            }
        }
    }

    /// Takes what is in the export folders. First of all, and then hourly, what was taken is noted that the journal does not know.
    async fn watch(&self, shutdown: &CancellationToken) {
        let mut watcher = Watcher::new(Arc::clone(&self.parts));
        let mut adopt_at = Duration::ZERO;
        while !shutdown.is_cancelled() {
            let now = self.parts.clock.monotonic();
            if now >= adopt_at {
                adopt_at = now.saturating_add(TIDY_INTERVAL);
                match take::adopt(&self.parts).await {
                    Ok(0) => {}
                    Ok(_) => self.wake.hint(),
                    Err(failure) => {
                        tracing::error!(code = %failure.code(), error = %failure.report(), "looking at what was taken failed");
                    }
                }
            }
            watcher.look(&self.wake).await;
            // Without folders only what was taken is left to look after.
            let pause = if self.parts.exports.is_empty() { TIDY_INTERVAL } else { WATCH_INTERVAL };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = self.parts.clock.sleep(pause) => {}
            }
        }
    }

    /// Looks whether the app databases have everything that was signed for.
    async fn compare(&self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                compared = compare(&self.parts) => {
                    if let Err(failure) = compared {
                        tracing::error!(code = %failure.code(), error = %failure.report(), "comparing the app databases failed");
                    }
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = self.parts.clock.sleep(self.settings.compare) => {}
            }
        }
    }

    async fn clear(&self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            if let Err(failure) = tidy(&self.parts).await {
                tracing::error!(code = %failure.code(), error = %failure.report(), "clearing away old things failed");
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = self.parts.clock.sleep(TIDY_INTERVAL) => {}
            }
        }
    }
}
