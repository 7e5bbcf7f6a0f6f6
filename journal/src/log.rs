//! One log line per event of a stage.

use towpath_transfer::{
    Stage, TransferEvent,
    state::{Outcome, Place},
};

use crate::{JournalError, Lease, Observer, StageReport, StageResult};

/// Writes each stage's end to the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogObserver;

impl Observer for LogObserver {
    fn stage_started(&self, _: Place, stage: Stage, lease: &Lease) {
        tracing::debug!(%stage, transfer = %lease.key().id, attempts = lease.attempts(), "the step begins");
    }

    fn stage_finished(&self, report: &StageReport<'_>) {
        let key = report.key;
        let _span =
            tracing::info_span!("stage", tenant = %key.tenant, agent = %key.agent, transfer = %key.id, stage = %report.stage)
                .entered();
        let (result, attempts) = (report.result.as_str(), report.attempts);
        let milliseconds = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX);
        match &report.result {
            StageResult::Appended { event, record } => {
                let state = record.state.word();
                match event {
                    TransferEvent::Decided { outcome: Outcome::Rejected(why) } => {
                        tracing::warn!(result, state, attempts, milliseconds, code = %why.code, detail = %why.detail, "rejected");
                    }
                    _ => tracing::info!(result, state, attempts, milliseconds, "done"),
                }
            }
            StageResult::Waiting(pause) => tracing::debug!(result, attempts, pause = pause.as_secs(), "waiting"),
            StageResult::Retrying { failure, pause } => {
                let pause = pause.as_secs_f64();
                tracing::warn!(result, attempts, pause, code = %failure.code(), error = %failure.report(), "tried again later");
            }
            StageResult::Parked(failure) => {
                tracing::error!(result, attempts, code = %failure.code(), error = %failure.report(), "waits for a person");
            }
            StageResult::Overtaken(error) => tracing::warn!(result, attempts, %error, "overtaken"),
            StageResult::Interrupted => tracing::info!(result, attempts, "interrupted by the shutdown"),
        }
    }

    fn journal_failed(&self, _: Place, stage: Stage, error: &JournalError) {
        tracing::error!(%stage, code = %error.code(), %error, "the journal failed; tried again");
    }
}
