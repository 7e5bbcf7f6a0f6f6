//! Transfers as `--json` shows them. These forms are stable: fields may be added, none change their meaning.

mod difference;
mod table;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use towpath_journal::{History, TransferRecord};
use towpath_keys::chain::RECEIPTS;
use towpath_transfer::{
    Code, Direction, Stage, TransferEvent, TransferState,
    failure::{FailureRecord, Result},
    manifest::{Manifest, Snapshot},
    state::Rejection,
};

pub use self::difference::{Change, Difference, Side, TableDifference, TotalDifference, difference};
use self::table::imported_rows;
pub use self::table::{TableView, table_views, tables, warnings};
use crate::{downlink::stage_files, parts::Parts, small_file, uplink::folder};

/// The most of a program's output that is shown, in bytes; more than is kept.
const MAX_LOG_BYTES: usize = 1024 * 1024;

/// One transfer in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TransferView {
    /// Its id.
    pub transfer: String,
    /// Which way it travels.
    pub direction: Direction,
    /// Its job; of return files it stands in their manifest.
    pub job: Option<String>,
    /// Its position among the agent's transfers.
    pub sequence: Option<u64>,
    /// The word of its state.
    pub state: &'static str,
    /// The stage it waits for.
    pub stage: Option<Stage>,
    /// Whether it waits for a person.
    pub parked: bool,
    /// When it was planned, or offered.
    pub created: Timestamp,
    /// When it last got further.
    pub changed: Timestamp,
    /// How often its present stage was begun.
    pub attempts: u32,
    /// Before this time its stage is not tried again.
    pub next_try: Option<Timestamp>,
    /// Why the last try failed.
    pub failure: Option<FailureView>,
    /// Why it was rejected: by the receiver, or here.
    pub rejection: Option<RejectionView>,
}

/// A failure with its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureView {
    /// The operator error code.
    pub code: Code,
    /// What was tried and why it failed.
    pub report: String,
}

/// A rejection with its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectionView {
    /// The operator error code.
    pub code: Code,
    /// One sentence about it.
    pub detail: String,
}

impl From<&FailureRecord> for FailureView {
    /// The recorded report ends with the code, which stands beside it here.
    fn from(failure: &FailureRecord) -> Self {
        let report = failure.report.strip_suffix(&format!(" [{}]", failure.code)).unwrap_or(&failure.report);
        Self { code: failure.code, report: report.to_owned() }
    }
}

impl From<&Rejection> for RejectionView {
    fn from(rejection: &Rejection) -> Self {
        Self { code: rejection.code, detail: rejection.detail.clone() }
    }
}

impl From<&TransferRecord> for TransferView {
    fn from(record: &TransferRecord) -> Self {
        let rejection = match &record.state {
            TransferState::Rejected { rejection } => Some(rejection.into()),
            _ => None,
        };
        let ended = record.state.is_final();
        let failure = record.last_failure.as_ref().filter(|_| !ended);
        Self {
            transfer: record.key.id.to_string(),
            direction: record.direction,
            job: record.job.as_ref().map(ToString::to_string),
            sequence: record.sequence.map(|sequence| sequence.0),
            state: record.state.word(),
            stage: record.stage(),
            parked: record.parked,
            created: record.created,
            changed: record.changed,
            attempts: record.attempts,
            next_try: record.not_before.filter(|_| !ended),
            failure: failure.map(Into::into),
            rejection,
        }
    }
}

/// One transfer with its tables, times and receipts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TransferDetail {
    /// As in a list.
    #[serde(flatten)]
    pub view: TransferView,
    /// Its folder.
    pub folder: String,
    /// SHA-256 of its manifest, once that is written.
    pub manifest: Option<String>,
    /// The database snapshot it was read in.
    pub snapshot: Option<SnapshotView>,
    /// What an administrator should know of the source it was read from.
    pub warnings: Vec<String>,
    /// Its tables, once they are read.
    pub tables: Vec<TableView>,
    /// What return files these are.
    pub kind: Option<String>,
    /// The folder they were delivered to.
    pub delivery_folder: Option<String>,
    /// Its return files, once their manifest is here.
    pub files: Vec<FileView>,
    /// The file of what the program has printed that followed the delivery.
    pub action_log: Option<String>,
    /// The files of its receipts, as far as they are here.
    pub receipts: Vec<String>,
    /// Seconds from each stage's begin to its end: extract, pack, push, accept, receipt; pull, verify, deliver, acknowledge.
    pub seconds: BTreeMap<&'static str, f64>,
    /// What happened to it, oldest first.
    pub events: Vec<EventView>,
}

/// The snapshot of an extract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotView {
    /// What identifies it.
    pub id: String,
    /// The isolation that was reached.
    pub isolation: String,
    /// Whether all tables come from one state of the database.
    pub consistent: bool,
}

impl From<Snapshot> for SnapshotView {
    fn from(snapshot: Snapshot) -> Self {
        Self { id: snapshot.id, isolation: snapshot.isolation, consistent: snapshot.consistent }
    }
}

/// One return file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileView {
    /// Its name in the manifest.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its name in the delivery folder.
    pub placed: Option<String>,
}

/// One event of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventView {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: TransferEvent,
}

/// Everything about one transfer.
///
/// # Errors
/// As journal and disk report; a manifest that is not written or not kept any more is left out.
pub async fn detail(parts: &Parts, record: &TransferRecord) -> Result<TransferDetail> {
    let id = record.key.id;
    let history = parts.journal.history(&record.key).await?;
    let (files, layout) = (&*parts.files, parts.layout.of(record.direction));
    let is_downlink = record.direction == Direction::Downlink;
    // What others have sent may be anything; that it is shown as far as it can be read is enough.
    let manifest = if small_file::exists(files, &layout.manifest(id)) {
        let read = folder::manifest(files, &layout, id);
        if is_downlink { read.ok() } else { Some(read?) }
    } else {
        None
    };
    let packed = if !is_downlink && small_file::exists(files, &layout.packed(id)) {
        folder::packed_list(files, &layout, id)?.files
    } else {
        Vec::new()
    };
    let entries = manifest.iter().flat_map(|(manifest, _)| &manifest.files);
    let imported = if is_downlink { Vec::new() } else { imported_rows(parts, record) };
    let tables = table_views(entries.clone(), &packed, &imported)?;
    let staged = history.entries.iter().rev().find_map(|entry| match &entry.event {
        TransferEvent::Staged { folder, files } => Some((folder.clone(), files.clone())),
        _ => None,
    });
    let placed = match &staged {
        Some((_, chosen)) => stage_files::placed(parts, id, chosen)?,
        None => Vec::new(),
    };
    let return_files = entries.filter(|_| is_downlink).map(|entry| FileView {
        file: entry.name.to_string(),
        bytes: entry.size,
        placed: placed.iter().find(|file| file.name == entry.name).map(|file| file.placed.to_string()),
    });
    let return_files: Vec<FileView> = return_files.collect();
    let kept = RECEIPTS.map(|stage| layout.receipt(id, stage));
    let kept = kept.into_iter().filter(|path| small_file::exists(files, path));
    let log = Some(layout.action_log(id)).filter(|path| small_file::exists(files, path));
    Ok(TransferDetail {
        view: TransferView { job: job_of(record, manifest.as_ref().map(|(manifest, _)| manifest)), ..TransferView::from(record) },
        folder: layout.transfer(id).display().to_string(),
        manifest: manifest.as_ref().map(|(_, digest)| digest.to_string()),
        kind: manifest.as_ref().and_then(|(manifest, _)| manifest.kind.as_ref()).map(ToString::to_string),
        snapshot: manifest.and_then(|(manifest, _)| manifest.snapshot).map(Into::into),
        warnings: if is_downlink { Vec::new() } else { warnings(parts, record)? },
        tables,
        delivery_folder: staged.map(|(folder, _)| folder),
        files: return_files,
        action_log: log.map(|path| path.display().to_string()),
        receipts: kept.map(|path| path.display().to_string()).collect(),
        seconds: seconds(record, &history),
        events: history.entries.into_iter().map(|entry| EventView { at: entry.at, event: entry.event }).collect(),
    })
}

/// The job of return files is known when their manifest is here.
fn job_of(record: &TransferRecord, manifest: Option<&Manifest>) -> Option<String> {
    let job = record.job.as_ref().or_else(|| manifest.map(|manifest| &manifest.job));
    job.map(ToString::to_string)
}

/// What the program has printed that followed a delivery; nothing where there was none.
///
/// # Errors
/// As the disk reports.
pub fn action_output(parts: &Parts, record: &TransferRecord) -> Result<Option<String>> {
    let path = parts.layout.of(record.direction).action_log(record.key.id);
    let bytes = small_file::read(&*parts.files, &path, MAX_LOG_BYTES)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// From the event before to the event that ends a stage; a stage that ran twice counts its times together.
fn seconds(record: &TransferRecord, history: &History) -> BTreeMap<&'static str, f64> {
    let mut sums = BTreeMap::new();
    let mut before = record.created;
    for entry in &history.entries {
        let stage = match entry.event {
            TransferEvent::Extracted { .. } => Stage::Extract,
            TransferEvent::Packed { .. } => Stage::Pack,
            TransferEvent::Pushed => Stage::Push,
            TransferEvent::Accepted => Stage::Accept,
            TransferEvent::Pulled => Stage::Pull,
            TransferEvent::Verified { .. } => Stage::Verify,
            TransferEvent::Staged { .. } | TransferEvent::Placed | TransferEvent::Decided { .. } => Stage::Deliver,
            TransferEvent::Settled { .. } if record.direction == Direction::Downlink => Stage::Acknowledge,
            _ => Stage::Receipt,
        };
        let took = entry.at.duration_since(before).as_secs_f64().max(0.0);
        *sums.entry(stage.as_str()).or_insert(0.0) += took;
        before = entry.at;
    }
    sums
}

/// What a person does about a parked transfer.
#[must_use]
pub fn what_next(code: Option<Code>, id: &str) -> String {
    match code {
        Some(Code::SequenceForked) => {
            "a retry cannot help, because a transfer keeps its number: give the other host that sends under \
             this name a fresh state folder and an enrolment of its own, then run here: towpath-agent send"
                .to_owned()
        }
        Some(Code::AgentRevoked) => "a retry cannot help: ask the relay's operator to enrol this host anew".to_owned(),
        _ => format!("when it is mended, run: towpath-agent retry {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_advised_only_where_it_can_help() {
        assert!(what_next(Some(Code::HostKeyUnknown), "7").ends_with("towpath-agent retry 7"));
        assert!(what_next(None, "7").ends_with("towpath-agent retry 7"));
        assert!(what_next(Some(Code::SequenceForked), "7").ends_with("towpath-agent send"));
        assert!(what_next(Some(Code::AgentRevoked), "7").contains("enrol this host anew"));
    }
}
