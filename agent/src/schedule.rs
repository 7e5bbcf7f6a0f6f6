//! `run`: plans each job at its time of day, once a day, and lets the stages work.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use tokio_util::sync::CancellationToken;
use towpath_journal::{CLOCK_TOLERANCE, TransferRecord, WakeUp};
use towpath_transfer::{Code, Failure, failure::Result};

use crate::{
    config::{JobConfig, Schedule},
    parts::Parts,
    service::heart::Heart,
    uplink::{plan, prune::prune_or_warn, replan},
};

/// How often the clock is looked at: it may jump, and the host may have slept.
pub const TICK: Duration = Duration::from_secs(30);
/// How often old transfers are removed.
pub const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// The last time at which `schedule` was due, not after `now`.
#[must_use]
pub fn latest_due(schedule: &Schedule, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    schedule.until(now, zone).next().map(|run| run.at)
}

/// The first time after `now` at which `schedule` is due.
#[must_use]
pub fn next_due(schedule: &Schedule, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    schedule.after(now, zone).next().map(|run| run.at)
}

/// Plans what is due until `shutdown` is cancelled.
pub async fn run(parts: Arc<Parts>, zone: TimeZone, wake: WakeUp, heart: Heart, shutdown: CancellationToken) {
    let mut pruned = parts.clock.monotonic();
    while !shutdown.is_cancelled() {
        heart.works();
        for job in &parts.config.now().jobs {
            match plan_if_due(&parts, job, &zone).await {
                Ok(true) => wake.hint(),
                Ok(false) => {}
                Err(failure) => tracing::error!(job = %job.name, code = %failure.code(), "not planned: {}", failure.report()),
            }
        }
        if parts.clock.monotonic().saturating_sub(pruned) >= PRUNE_EVERY {
            pruned = parts.clock.monotonic();
            prune_or_warn(&parts).await;
        }
        heart.rests();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = parts.clock.sleep(pause(&parts, &zone)) => {}
        }
    }
}

fn pause(parts: &Parts, zone: &TimeZone) -> Duration {
    let now = parts.clock.now();
    let config = parts.config.now();
    let times = config.jobs.iter().filter_map(|job| next_due(job.schedule.as_ref()?, now, zone));
    let next = times.min().and_then(|due| Duration::try_from(due.duration_since(now)).ok());
    next.unwrap_or(TICK).clamp(Duration::from_millis(1), TICK)
}

/// Plans a job where its time has come since its newest transfer was made, or where the app lacks what that one builds on.
/// A job that was never sent begins at the next time of day; one whose time passed while the host was off is made up for.
///
/// # Errors
/// As journal and disk report.
pub async fn plan_if_due(parts: &Parts, job: &JobConfig, zone: &TimeZone) -> Result<bool, Failure> {
    if replan::of_job(parts, &job.name).await?.is_some() {
        return Ok(true);
    }
    let Some(at) = &job.schedule else { return Ok(false) };
    let now = parts.clock.now();
    let Some(due) = latest_due(at, now, zone) else { return Ok(false) };
    let begins = match replan::newest(parts, &job.name).await? {
        // One that is still open is gone on with; its successor follows when it has ended.
        Some(newest) => plan::open_transfer(parts, &job.name).await?.is_none() && is_before(&newest, due, now),
        None => now.duration_since(due).unsigned_abs() <= TICK * 2,
    };
    if begins {
        plan::plan(parts, &job.name, false).await?;
    }
    Ok(begins)
}

/// Whether a transfer was made before `due`. One that lies in the future was made while the clock was ahead: taken at its word it
/// would stop the schedule until then, so it counts as older. Its successor is the newest from then on, with a right time.
fn is_before(newest: &TransferRecord, due: Timestamp, now: Timestamp) -> bool {
    let from_the_future = newest.created.duration_since(now).unsigned_abs() > CLOCK_TOLERANCE && newest.created > now;
    if from_the_future {
        tracing::warn!(
            code = %Code::ClockSkew, transfer = %newest.key.id, created = %newest.created,
            "the newest transfer lies in the future: the clock was wrong when it was made"
        );
    }
    from_the_future || newest.created < due
}
