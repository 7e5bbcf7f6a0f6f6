//! What follows a rejection that the agent itself can mend: the app lacks what a transfer builds on.

use towpath_journal::{Filter, TransferRecord};
use towpath_transfer::{Direction, Failure, JobName};

use super::{folder, plan};
use crate::parts::Parts;

/// Plans a transfer in full where `record` was rejected because the app lacks its base and was not in full itself; so this
/// happens once.
///
/// # Errors
/// As journal and disk report.
pub async fn after(parts: &Parts, record: &TransferRecord) -> Result<Option<TransferRecord>, Failure> {
    let (Some(_), Some(job)) = (plan::base_missing(record), &record.job) else { return Ok(None) };
    if parts.config.now().job(job).is_none() || was_in_full(parts, record) {
        return Ok(None);
    }
    Ok(Some(plan::plan(parts, job, true).await?.record().clone()))
}

/// Where the folder is damaged nobody knows; then it counts as not in full, because a job that is never planned again is worse than
/// one transfer too many.
fn was_in_full(parts: &Parts, record: &TransferRecord) -> bool {
    let id = record.key.id;
    match folder::manifest(&*parts.files, &parts.layout, id) {
        Ok((manifest, _)) => manifest.files.iter().all(|file| file.base.is_none()),
        Err(failure) => {
            tracing::warn!(transfer = %id, code = %failure.code(), "everything is sent in full: {}", failure.report());
            false
        }
    }
}

/// As [`after`], for the newest transfer of a job.
///
/// # Errors
/// As journal and disk report.
pub async fn of_job(parts: &Parts, job: &JobName) -> Result<Option<TransferRecord>, Failure> {
    match newest(parts, job).await? {
        Some(record) => after(parts, &record).await,
        None => Ok(None),
    }
}

/// The newest transfer of a job.
///
/// # Errors
/// As the journal reports.
pub async fn newest(parts: &Parts, job: &JobName) -> Result<Option<TransferRecord>, Failure> {
    let filter = Filter {
        tenant: Some(parts.tenant.clone()),
        agent: Some(parts.agent.clone()),
        direction: Some(Direction::Uplink),
        job: Some(job.clone()),
        ..Filter::default()
    };
    Ok(parts.journal.list(&filter, 1, None).await?.into_iter().next())
}
