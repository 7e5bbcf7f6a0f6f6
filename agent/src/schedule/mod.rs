//! `run`: plans each job when its schedule says so, and lets the stages work.

mod calendar;
mod expect;
mod runs;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use towpath_journal::WakeUp;
use towpath_transfer::{Failure, failure::Result};

use self::{
    calendar::{Begun, Calendar, Kept, PutOff},
    runs::{lateness, put_off},
};
use crate::{
    config::{JobConfig, outside},
    parts::Parts,
    pause::Pause,
    service::heart::Heart,
    uplink::{Plan, plan, prune::prune_or_warn, replan},
};

pub use self::{
    expect::expected_by,
    runs::{Run, last_run, next_runs},
};

/// How often the clock is looked at: it may jump, and the host may have slept.
pub const TICK: Duration = Duration::from_secs(30);
/// How often old transfers are removed.
pub const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
/// A job that is seen for the first time so soon after it was due is begun all the same.
const FRESH: Duration = Duration::from_secs(60);
/// How late a run of a job that does not catch up may begin: a busy host, or a restart, is no reason to leave it out.
pub const LATE_WITHOUT_CATCH_UP: Duration = Duration::from_secs(5 * 60);

/// Plans what is due until `shutdown` is cancelled.
pub async fn run(parts: Arc<Parts>, wake: WakeUp, heart: Heart, shutdown: CancellationToken) {
    let mut pruned = parts.clock.monotonic();
    let mut changes = parts.config.changes();
    while !shutdown.is_cancelled() {
        heart.works();
        for job in &parts.config.now().jobs {
            match plan_if_due(&parts, job).await {
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
            _ = changes.next() => {}
            () = parts.clock.sleep(until_next(&parts)) => {}
        }
    }
}

fn until_next(parts: &Parts) -> Duration {
    let now = parts.clock.now();
    let config = parts.config.now();
    let next = config.jobs.iter().filter_map(|job| next_begin(parts, job, now).ok()?).map(|run| run.begins).min();
    next.map_or(TICK, |begins| runs::since(now, begins)).clamp(Duration::from_millis(1), TICK)
}

/// The next run of a job that has not begun; it may be overdue, and one that waits for the end of a blackout begins then. `None`
/// without a schedule.
///
/// # Errors
/// As the disk reports.
pub fn upcoming(parts: &Parts, job: &JobConfig, now: Timestamp) -> Result<Option<Run>> {
    let calendar = Calendar::read(parts)?;
    Ok(match calendar.of(&job.name) {
        Some(kept) => {
            let kept = restored(parts, job, kept.clone(), now);
            open_run(parts, job, &kept, kept.settled.min(now)).map(|run| {
                // What is too late already is left out at the next look, and not put off.
                if is_left_out(job, &newest_of(parts, job, run, now), now) { run } else { put_off(job, run, now) }
            })
        }
        None => next_runs(job, &parts.agent, now).next(),
    })
}

/// The next run of a job that begins after `now`. `None` without a schedule.
///
/// # Errors
/// As the disk reports.
pub fn next_begin(parts: &Parts, job: &JobConfig, now: Timestamp) -> Result<Option<Run>> {
    let waiting = upcoming(parts, job, now)?.filter(|run| run.begins > now);
    Ok(waiting.or_else(|| next_runs(job, &parts.agent, now).next()))
}

/// The first run that is due after `after`, other than one that was begun by the clock of another time zone.
fn open_run(parts: &Parts, job: &JobConfig, kept: &Kept, after: Timestamp) -> Option<Run> {
    next_runs(job, &parts.agent, after).find(|run| !kept.is_repeated(job, run))
}

/// What is kept of a job, by a clock that may have been put right since.
fn restored(parts: &Parts, job: &JobConfig, kept: Kept, now: Timestamp) -> Kept {
    if kept.former.is_none() {
        return kept;
    }
    let next = open_run(parts, job, &kept, kept.settled);
    kept.restored(next.as_ref(), now)
}

/// Of the runs since `run`, that one included, the newest whose time has come: the one that is made up for.
fn newest_of(parts: &Parts, job: &JobConfig, run: Run, now: Timestamp) -> Run {
    last_run(job, &parts.agent, now).filter(|newest| newest.due > run.due).unwrap_or(run)
}

/// Whether it is too late for a run whose time has come.
fn is_left_out(job: &JobConfig, newest: &Run, now: Timestamp) -> bool {
    !job.catch_up && lateness(job, newest.begins, now) > LATE_WITHOUT_CATCH_UP
}

/// Plans a job where a run of it is to begin, or where the app lacks what its newest transfer builds on.
///
/// A run is answered by any transfer of the job that was made since it was due, also by hand; of several that were missed one is made
/// up for. While a transfer of the job is open its next run waits, and in a blackout none begins, nor does what the app lacks. A job that was never sent begins with the next run.
///
/// # Errors
/// As journal and disk report.
pub async fn plan_if_due(parts: &Parts, job: &JobConfig) -> Result<bool, Failure> {
    let now = parts.clock.now();
    if Pause::read(&*parts.files, &parts.layout, now).is_some() {
        return Ok(false);
    }
    // Blackouts leave time in every week, so that this waits no longer than that.
    let is_free = outside(&job.blackout, now, &job.zone()) <= now;
    if is_free && replan::of_job(parts, &job.name).await?.is_some() {
        return Ok(true);
    }
    if job.schedule.is_none() {
        return Ok(false);
    }
    let calendar = Calendar::read(parts)?;
    let newest = replan::newest(parts, &job.name).await?;
    let kept = calendar.of(&job.name).cloned().unwrap_or_else(|| Kept::first_seen(newest.as_ref(), now));
    let mut kept = restored(parts, job, kept.reconciled(newest.as_ref(), now), now);
    let next = open_run(parts, job, &kept, kept.settled);
    kept.note_look(next.as_ref(), now);
    let begun = match next.filter(|run| run.begins <= now) {
        Some(run) if plan::open_transfer(parts, &job.name).await?.is_none() => begin(parts, job, &mut kept, run, now).await?,
        _ => false,
    };
    calendar.keep(parts, &job.name, kept)?;
    Ok(begun)
}

/// Begins a run whose time has come, or leaves it out where it is too late for that.
async fn begin(parts: &Parts, job: &JobConfig, kept: &mut Kept, run: Run, now: Timestamp) -> Result<bool> {
    let newest = newest_of(parts, job, run, now);
    if is_left_out(job, &newest, now) {
        tracing::info!(job = %job.name, due = %newest.due, "left out: its time passed while the agent did not work");
        // One that is due already may begin later by its jitter or a blackout, and is not missed.
        (kept.settled, kept.skipped) = (newest.due, Some(newest.due));
        return Ok(false);
    }
    let until = put_off(job, newest, now).begins;
    if until > now {
        // The relay expects it from then on, also when that is over and it is on its way.
        kept.put_off = Some(PutOff { first: run.due, last: newest.due, until });
        return Ok(false);
    }
    let record = match plan(parts, &job.name, false).await? {
        Plan::New(record) => record,
        // Somebody has sent it by hand in this moment; that this was in time is seen at the next look.
        Plan::Open(_) => return Ok(false),
    };
    if lateness(job, newest.begins, now) > LATE_WITHOUT_CATCH_UP {
        tracing::info!(job = %job.name, due = %newest.due, "made up for: its time passed while the agent did not work");
    }
    (kept.settled, kept.former) = (record.created.max(now), None);
    // It waits no more, where the blackout was taken out of the configuration meanwhile.
    kept.put_off = kept.put_off.filter(|put_off| put_off.until <= now);
    kept.last = Some(Begun { due: run.due, local: newest.local, begun: now });
    Ok(true)
}

#[cfg(test)]
mod tests;
