//! Plans transfers: one open transfer for each job at a time, and on what it builds.

use towpath_journal::{Created, Filter, NewTransfer, SequenceChoice, TransferRecord};
use towpath_transfer::{
    Code, Direction, Failure, JobName, TransferEvent, TransferId, TransferState, manifest::Manifest, state::Rejection,
};

use super::folder;
use crate::{parts::Parts, small_file};

/// The most transfers of a job that may wait for a person with their payload on the disk before no further one is planned.
pub const MAX_PARKED_PER_JOB: usize = 10;

/// What planning found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// A new transfer.
    New(TransferRecord),
    /// One that is open already; it is gone on with, whatever was asked.
    Open(TransferRecord),
}

impl Plan {
    /// The transfer.
    #[must_use]
    pub fn record(&self) -> &TransferRecord {
        match self {
            Self::New(record) | Self::Open(record) => record,
        }
    }
}

/// Plans a transfer of a job. `full` sends every table, also those the app has already.
///
/// Transfers of the job that were parked before they were packed are abandoned: the new one carries newer content. So are those
/// whose number the relay knows from another transfer: nothing can make it take them.
///
/// # Errors
/// `limit-exceeded` (park) where [`MAX_PARKED_PER_JOB`] others of the job wait for a person; as journal and disk report.
pub async fn plan(parts: &Parts, job: &JobName, full: bool) -> Result<Plan, Failure> {
    if let Some(open) = open_transfer(parts, job).await? {
        return Ok(Plan::Open(open));
    }
    abandon_parked(parts, job).await?;
    let id = TransferId::new(&*parts.clock, &*parts.entropy);
    if full {
        // Noted before the transfer exists: a crash between the two leaves a note that nobody reads.
        small_file::write(&*parts.files, &parts.layout.full_marker(id), b"full\n")?;
    }
    let new = NewTransfer {
        key: parts.key(id),
        direction: Direction::Uplink,
        job: Some(job.clone()),
        state: TransferState::Planned,
        sequence: SequenceChoice::NextOfJob,
    };
    match parts.journal.create(new).await? {
        Created::New(record) => {
            tracing::info!(transfer = %id, %job, full, "planned");
            Ok(Plan::New(record))
        }
        // Another process, as `send` beside `run`, has planned the job since it was looked for.
        Created::Existing(record) => {
            if full {
                folder::forget_work(&*parts.files, &parts.layout, id)?;
            }
            Ok(Plan::Open(record))
        }
    }
}

/// The transfers of a job.
pub(super) fn of_job(parts: &Parts, job: &JobName) -> Filter {
    Filter {
        tenant: Some(parts.tenant.clone()),
        agent: Some(parts.agent.clone()),
        direction: Some(Direction::Uplink),
        job: Some(job.clone()),
        ..Filter::default()
    }
}

/// The job's transfer that has not ended and waits for nobody.
///
/// # Errors
/// As the journal reports.
pub async fn open_transfer(parts: &Parts, job: &JobName) -> Result<Option<TransferRecord>, Failure> {
    let filter = Filter { ended: Some(false), parked: Some(false), ..of_job(parts, job) };
    Ok(parts.journal.list(&filter, 1, None).await?.into_iter().next())
}

async fn abandon_parked(parts: &Parts, job: &JobName) -> Result<(), Failure> {
    let filter = Filter { ended: Some(false), parked: Some(true), ..of_job(parts, job) };
    let parked = parts.journal.list(&filter, towpath_journal::MAX_LIST, None).await?;
    let (superseded, kept): (Vec<_>, Vec<_>) = parked.into_iter().partition(gives_way);
    if kept.len() >= MAX_PARKED_PER_JOB {
        let message = format!(
            "{} transfers of job {job} wait for you, and no more than {MAX_PARKED_PER_JOB} may: mend the cause that `towpath-agent status` \
             names, then run: towpath-agent retry ID",
            kept.len()
        );
        return Err(Failure::park(Code::LimitExceeded, message));
    }
    for record in superseded {
        let reason = "a newer transfer of the job was begun while this one waited for a person".to_owned();
        parts.journal.append_unleased(&record.key, record.events, &TransferEvent::Abandoned { reason }).await?;
        folder::remove_payload(&*parts.files, &parts.layout, record.key.id)?;
    }
    Ok(())
}

/// Whether a parked transfer is worth nothing once there is a newer one.
fn gives_way(record: &TransferRecord) -> bool {
    let forked = || record.last_failure.as_ref().is_some_and(|failure| failure.code == Code::SequenceForked);
    match record.state {
        TransferState::Planned | TransferState::Extracted { .. } => true,
        TransferState::Packed { .. } => forked(),
        _ => false,
    }
}

/// What a transfer builds on.
#[derive(Debug, Clone, PartialEq)]
pub struct Basis {
    /// The manifest of the job's last imported transfer before it; `None` on the first one, and where it is not kept any more.
    pub previous: Option<Manifest>,
    /// Whether everything is to be sent in full all the same: because that was asked for, or because the app has lost its base.
    pub full: bool,
}

/// What a transfer builds on.
///
/// # Errors
/// As journal and disk report.
pub async fn basis(parts: &Parts, record: &TransferRecord) -> Result<Basis, Failure> {
    let (Some(job), Some(sequence)) = (&record.job, record.sequence) else { return Ok(Basis { previous: None, full: true }) };
    let asked = small_file::exists(&*parts.files, &parts.layout.full_marker(record.key.id));
    let earlier = Filter { sequence_below: Some(sequence), ended: Some(true), ..of_job(parts, job) };
    let recent = parts.journal.list(&earlier, towpath_journal::MAX_LIST, None).await?;
    // An abandoned transfer never reached the app and says nothing about what it has.
    let mut decided = recent.iter().filter(|one| !matches!(one.state, TransferState::Abandoned { .. })).peekable();
    let full = asked || decided.peek().is_some_and(|last| base_missing(last).is_some());
    let Some(base) = decided.find(|one| one.state == TransferState::Imported) else { return Ok(Basis { previous: None, full }) };
    match folder::manifest(&*parts.files, &parts.layout, base.key.id) {
        Ok((manifest, _)) => Ok(Basis { previous: Some(manifest), full }),
        Err(failure) => {
            tracing::warn!(
                code = %failure.code(), transfer = %record.key.id, base = %base.key.id, "everything is sent in full: {}", failure.report()
            );
            Ok(Basis { previous: None, full: true })
        }
    }
}

/// Why a transfer was rejected, where that was because the app does not have what it builds on.
#[must_use]
pub fn base_missing(record: &TransferRecord) -> Option<&Rejection> {
    match &record.state {
        TransferState::Rejected { rejection } if rejection.code == Code::BaseMissing => Some(rejection),
        _ => None,
    }
}
