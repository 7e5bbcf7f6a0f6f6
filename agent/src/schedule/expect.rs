//! When the relay must have a job's next transfer.

use std::time::Duration;

use jiff::Timestamp;
use towpath_journal::{CLOCK_TOLERANCE, Filter, MAX_LIST, TransferRecord};
use towpath_transfer::{Direction, TransferState, failure::Result};

use super::{calendar::Calendar, next_runs, open_run, restored};
use crate::{
    config::{JobConfig, outside},
    parts::Parts,
    pause::Pause,
};

/// When the relay must have a transfer of the job at the latest: `late_after` after the oldest run began that no transfer answers
/// which the relay has; of a run that waits for the end of a blackout that end counts. `None` without a schedule, and while the agent is paused until somebody resumes it; of a pause that ends by
/// itself the end counts.
///
/// # Errors
/// As journal and disk report.
pub async fn expected_by(parts: &Parts, job: &JobConfig, late_after: Duration) -> Result<Option<Timestamp>> {
    if job.schedule.is_none() {
        return Ok(None);
    }
    let now = parts.clock.now();
    let calendar = Calendar::read(parts)?;
    let kept = calendar.of(&job.name).map(|kept| restored(parts, job, kept.clone(), now));
    let kept = kept.as_ref();
    let known = kept.map_or(now, |kept| kept.skipped.map_or(kept.since, |skipped| skipped.max(kept.since)));
    let answered = accepted(parts, job, now).await?;
    let after =
        answered.map_or(known, |answered| kept.and_then(|kept| kept.skipped).map_or(answered, |skipped| skipped.max(answered)));
    let run = match kept {
        Some(kept) => open_run(parts, job, kept, after),
        None => next_runs(job, &parts.agent, after).next(),
    };
    let Some(run) = run else { return Ok(None) };
    let begins = kept.map_or(run.begins, |kept| kept.begins(&run));
    let begins = match Pause::read(&*parts.files, &parts.layout, now) {
        Some(Pause { until: None, .. }) => return Ok(None),
        Some(Pause { until: Some(until), .. }) => outside(&job.blackout, begins.max(until), &job.zone()),
        None => begins,
    };
    Ok(begins.checked_add(late_after).ok())
}

/// When the newest transfer was made that the relay has; one from the future was made while the clock was wrong.
async fn accepted(parts: &Parts, job: &JobConfig, now: Timestamp) -> Result<Option<Timestamp>> {
    let filter = Filter {
        tenant: Some(parts.tenant.clone()),
        agent: Some(parts.agent.clone()),
        direction: Some(Direction::Uplink),
        job: Some(job.name.clone()),
        ..Filter::default()
    };
    let soon = now.checked_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX);
    let records = parts.journal.list(&filter, MAX_LIST, None).await?;
    Ok(records.iter().find(|record| has_arrived(record) && record.created <= soon).map(|record| record.created))
}

fn has_arrived(record: &TransferRecord) -> bool {
    matches!(record.state, TransferState::Accepted { .. } | TransferState::Imported | TransferState::Rejected { .. })
}
