//! Finds out what is wrong.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use towpath_alert::{Finding, OpenAlert, Trouble};
use towpath_journal::TransferRecord;
use towpath_transfer::{Code, JobName, TransferState, failure::Result};

use crate::{
    blocking::blocking, config::JobConfig, downlink::poll::open_downlinks, parts::Parts, pause::Pause, schedule::expected_by,
    update::Standing, uplink::replan::newest, view::FailureView,
};

/// How long a transfer may stay rejected that the agent follows with one in full by itself.
pub const REPLAN_GRACE: Duration = Duration::from_secs(5 * 60);
/// What the alert of return files is called that wait for a person.
const RETURN_FILES: &str = "return-files";
/// And of those that are tried without success.
const RETURN_FILES_LATE: &str = "return-files-late";
/// What the alert of an update that did not work is called.
const UPDATE: &str = "update";

/// What is wrong and what is well, by names that stay the same. `open` is what was raised before. While the agent is paused nothing
/// is known, so that whatever was stays.
///
/// # Errors
/// As journal and disk report.
pub async fn findings(parts: &Parts, open: &[OpenAlert]) -> Result<BTreeMap<String, Finding>> {
    let config = parts.config.now();
    let (now, late_after) = (parts.clock.now(), config.alert.late_after);
    let names =
        config.jobs.iter().map(|job| named(&job.name)).chain([RETURN_FILES, RETURN_FILES_LATE, UPDATE].map(str::to_owned));
    if Pause::read(&*parts.files, &parts.layout, now).is_some() {
        return Ok(names.map(|name| (name, Finding::Unknown)).collect());
    }
    let mut found = BTreeMap::new();
    for job in &config.jobs {
        let raised = open.iter().find(|alert| alert.job.as_ref() == Some(&job.name)).map(|alert| alert.code);
        let newest = newest(parts, &job.name).await?;
        let missing = missing(parts, job, late_after, now).await?;
        let failed = newest.as_ref().and_then(|record| failed(parts, &job.name, record, late_after, now));
        let finding = match failed.or(missing) {
            Some(trouble) => Finding::Wrong(Box::new(trouble)),
            None => judged(newest.as_ref(), raised),
        };
        found.insert(named(&job.name), finding);
    }
    found.extend(return_files(parts, late_after, now).await?.map(|(name, finding)| (name.to_owned(), finding)));
    found.insert(UPDATE.to_owned(), update(parts).await?);
    Ok(found)
}

/// What the alert of a job is called.
fn named(job: &JobName) -> String {
    format!("job:{job}")
}

/// Whether a job is well of which nothing is known to be wrong: one whose run has failed is so when a run has come to its end.
fn judged(newest: Option<&TransferRecord>, raised: Option<Code>) -> Finding {
    match newest.map(|record| &record.state) {
        None | Some(TransferState::Imported) => Finding::Well,
        // The run that was missing is at the relay.
        Some(TransferState::Accepted { .. }) if raised == Some(Code::RunLate) => Finding::Well,
        _ => Finding::Unknown,
    }
}

fn failed(parts: &Parts, job: &JobName, record: &TransferRecord, late_after: Duration, now: Timestamp) -> Option<Trouble> {
    let id = record.key.id;
    let (code, summary) = match &record.state {
        TransferState::Rejected { rejection } if rejection.code != Code::BaseMissing || lasts(record, REPLAN_GRACE, now) => {
            (rejection.code, format!("job {job}: transfer {id} was rejected: {}", rejection.detail))
        }
        state if state.is_final() => return None,
        _ => {
            let (code, why) = cause(record);
            if record.parked {
                (code, format!("job {job}: transfer {id} waits for a person: {why}"))
            } else if record.last_failure.is_some() && lasts(record, late_after, now) {
                (code, format!("job {job}: transfer {id} has not got further since {}: {why}", record.changed))
            } else {
                return None;
            }
        }
    };
    Some(trouble(parts, Some(job), code, summary, record.changed, Some(record)))
}

/// Whether a transfer has stood where it is for so long.
fn lasts(record: &TransferRecord, limit: Duration, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(record.changed)).is_ok_and(|past| past >= limit)
}

/// Why a transfer's last try has failed.
fn cause(record: &TransferRecord) -> (Code, String) {
    let failure = record.last_failure.as_ref();
    let code = failure.map_or(Code::Internal, |failure| failure.code);
    (code, failure.map_or_else(String::new, |failure| FailureView::from(failure).report))
}

async fn missing(parts: &Parts, job: &JobConfig, late_after: Duration, now: Timestamp) -> Result<Option<Trouble>> {
    let by = expected_by(parts, job, late_after).await?;
    Ok(by.filter(|by| *by < now).map(|by| {
        let summary = format!("job {}: a run was to be at the relay by {by} and is not", job.name);
        trouble(parts, Some(&job.name), Code::RunLate, summary, by, None)
    }))
}

/// Return files that wait for a person, and those that have failed for `late_after` and are still tried. What was offered once and is not
/// at the relay is none of them: the receiver sends it again, or nobody has ever sent it.
async fn return_files(parts: &Parts, late_after: Duration, now: Timestamp) -> Result<[(&'static str, Finding); 2]> {
    let open = open_downlinks(parts).await?;
    let is_late = |record: &TransferRecord| {
        let fails = record.last_failure.as_ref().is_some_and(|failure| failure.code != Code::NotFound);
        fails && !record.parked && lasts(record, late_after, now)
    };
    let found = |what: &str, of_these: Vec<&TransferRecord>| {
        let Some(oldest) = of_these.iter().min_by_key(|record| record.changed) else { return Finding::Well };
        let (code, why) = cause(oldest);
        let summary = format!("return files {what} ({} transfers), since {}: {why}", of_these.len(), oldest.changed);
        Finding::Wrong(Box::new(trouble(parts, None, code, summary, oldest.changed, Some(oldest))))
    };
    let parked = found("wait for a person", open.iter().filter(|record| record.parked).collect());
    let late = found("have not got further", open.iter().filter(|record| is_late(record)).collect());
    Ok([(RETURN_FILES, parked), (RETURN_FILES_LATE, late)])
}

/// An update that was undone, or that nothing works after; well again when another version is installed.
async fn update(parts: &Parts) -> Result<Finding> {
    let standing = blocking(|| Ok(Standing::look())).await?;
    let Some((code, attempt)) = standing.trouble() else { return Ok(Finding::Well) };
    Ok(Finding::Wrong(Box::new(trouble(parts, None, code, attempt.to_string(), attempt.at, None))))
}

fn trouble(
    parts: &Parts,
    job: Option<&JobName>,
    code: Code,
    summary: String,
    since: Timestamp,
    record: Option<&TransferRecord>,
) -> Trouble {
    Trouble {
        agent: parts.agent.clone(),
        tenant: parts.tenant.clone(),
        job: job.cloned(),
        code,
        summary,
        since,
        transfer: record.map(|record| record.key.id),
    }
}
