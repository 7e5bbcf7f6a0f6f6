//! `run`: the service.

use std::sync::Arc;

use jiff::tz::TimeZone;
use towpath_journal::{Observer, StageReport, StageResult, WakeUp};
use towpath_transfer::{Code, failure::Result};

use super::{quietly, stop_signal};
use crate::{host::Host, schedule, work::Worker};

pub(super) async fn run(host: &Host) -> Result<()> {
    let stop = stop_signal()?;
    quietly(host, async |open| {
        let wake = WakeUp::new();
        let parts = Arc::clone(&open.parts);
        let worker = Worker::start_alone(Arc::clone(&parts), wake.clone(), Arc::new(Log)).await?;
        let jobs = parts.config.jobs.len();
        tracing::info!(tenant = %parts.tenant, agent = %parts.agent, jobs, state = %parts.layout.state().display(), "running");
        if let Some(skew) = open.relay.clock_skew() {
            tracing::warn!(code = %Code::ClockSkew, "the clock of this machine and the relay's differ by {skew:#}");
        }
        schedule::run(parts, TimeZone::system(), wake, stop).await;
        tracing::info!("stopping; running stages finish first");
        worker.stop().await;
        Ok(())
    })
    .await
}

/// One log line for each stage of each transfer.
struct Log;

impl Observer for Log {
    fn stage_finished(&self, report: &StageReport<'_>) {
        let (transfer, stage) = (report.key.id, report.stage);
        let ms = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX);
        match &report.result {
            StageResult::Appended { record, .. } => {
                tracing::info!(%transfer, %stage, ms, state = record.state.word(), "done");
            }
            StageResult::Waiting(_) => tracing::debug!(%transfer, %stage, "waiting"),
            StageResult::Retrying { failure, pause } => {
                let pause = pause.as_secs_f64();
                tracing::warn!(%transfer, %stage, code = %failure.code(), pause, "tried again later: {}", failure.report());
            }
            StageResult::Parked(failure) => {
                tracing::error!(%transfer, %stage, code = %failure.code(), "waits for a person: {}", failure.report());
            }
            StageResult::Overtaken(error) => tracing::warn!(%transfer, %stage, "overtaken: {error}"),
            StageResult::Interrupted => tracing::info!(%transfer, %stage, "interrupted; it goes on at the next start"),
        }
    }
}
