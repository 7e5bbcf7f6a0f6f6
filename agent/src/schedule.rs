//! `run`: plans each job at its time of day, once a day, and lets the stages work.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use tokio_util::sync::CancellationToken;
use towpath_journal::{CLOCK_TOLERANCE, TransferRecord, WakeUp};
use towpath_transfer::{Code, Failure, failure::Result};

use crate::{
    config::{DailyTime, JobConfig},
    parts::Parts,
    uplink::{plan, prune::prune_or_warn, replan},
};

/// How often the clock is looked at: it may jump, and the host may have slept.
pub const TICK: Duration = Duration::from_secs(30);
/// How often old transfers are removed.
pub const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// The last time of day `at` that is not after `now`. A time that a change to summer time leaves out counts as the one an hour
/// later; one that exists twice counts once, the first time.
#[must_use]
pub fn latest_due(at: DailyTime, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let today = now.to_zoned(zone.clone()).date();
    let due = |date: jiff::civil::Date| date.to_datetime(at.time()).to_zoned(zone.clone()).ok().map(|due| due.timestamp());
    due(today).filter(|due| *due <= now).or_else(|| today.yesterday().ok().and_then(due))
}

/// The first time of day `at` after `now`.
#[must_use]
pub fn next_due(at: DailyTime, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let today = now.to_zoned(zone.clone()).date();
    let due = |date: jiff::civil::Date| date.to_datetime(at.time()).to_zoned(zone.clone()).ok().map(|due| due.timestamp());
    due(today).filter(|due| *due > now).or_else(|| today.checked_add(1.day()).ok().and_then(due))
}

/// Plans what is due until `shutdown` is cancelled.
pub async fn run(parts: Arc<Parts>, zone: TimeZone, wake: WakeUp, shutdown: CancellationToken) {
    let mut pruned = parts.clock.monotonic();
    while !shutdown.is_cancelled() {
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
    let times = config.jobs.iter().filter_map(|job| next_due(job.schedule?, now, zone));
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
    let Some(at) = job.schedule else { return Ok(false) };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DailyTime {
        text.parse().unwrap()
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_day_has_one_time() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let now = time("2026-01-15T00:59:59Z");
        assert_eq!(latest_due(at("02:00"), now, &zone), Some(time("2026-01-14T01:00:00Z")));
        assert_eq!(next_due(at("02:00"), now, &zone), Some(time("2026-01-15T01:00:00Z")));
        let now = time("2026-01-15T01:00:00Z");
        assert_eq!(latest_due(at("02:00"), now, &zone), Some(now));
        assert_eq!(next_due(at("02:00"), now, &zone), Some(time("2026-01-16T01:00:00Z")));
    }

    #[test]
    fn the_clock_changes_neither_skip_a_day_nor_send_twice() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        // 02:30 does not exist on 29 March 2026: clocks go from 02:00 to 03:00.
        assert_eq!(next_due(at("02:30"), time("2026-03-29T00:00:00Z"), &zone), Some(time("2026-03-29T01:30:00Z")));
        // 02:30 exists twice on 25 October 2026.
        let first = time("2026-10-25T00:30:00Z");
        assert_eq!(latest_due(at("02:30"), time("2026-10-25T01:45:00Z"), &zone), Some(first));
        assert_eq!(next_due(at("02:30"), first, &zone), Some(time("2026-10-26T01:30:00Z")));
    }
}
