//! Transfers as `--json` shows them. These forms are stable: fields may be added, none change their meaning.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use towpath_journal::{History, TransferRecord};
use towpath_transfer::{
    Code, Failure, Stage, TransferEvent, TransferState,
    failure::{FailureRecord, Result},
    packed::packed_name,
    receipt::ReceiptStage,
    state::Rejection,
};

use crate::{parts::Parts, small_file, uplink::folder};

/// One transfer in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TransferView {
    /// Its id.
    pub transfer: String,
    /// Its job.
    pub job: Option<String>,
    /// Its position among the agent's transfers.
    pub sequence: Option<u64>,
    /// The word of its state.
    pub state: &'static str,
    /// The stage it waits for.
    pub stage: Option<Stage>,
    /// Whether it waits for a person.
    pub parked: bool,
    /// When it was planned.
    pub created: Timestamp,
    /// When it last got further.
    pub changed: Timestamp,
    /// How often its present stage was begun.
    pub attempts: u32,
    /// Before this time its stage is not tried again.
    pub next_try: Option<Timestamp>,
    /// Why the last try failed.
    pub failure: Option<FailureView>,
    /// Why the receiver rejected it.
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
    /// The receiver's sentence.
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
    /// Its tables, once they are read.
    pub tables: Vec<TableView>,
    /// The files of its receipts, as far as they are here.
    pub receipts: Vec<String>,
    /// Seconds from each stage's begin to its end: extract, pack, push, accept, receipt.
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

/// One table of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableView {
    /// The table.
    pub table: String,
    /// Its CSV file.
    pub file: String,
    /// Its rows.
    pub rows: u64,
    /// The length of its CSV in bytes.
    pub csv_bytes: u64,
    /// The length of its packed file in bytes; 0 where nothing was sent.
    pub packed_bytes: u64,
    /// Whether nothing was sent because the app has exactly this content.
    pub unchanged: bool,
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
    let files = &*parts.files;
    let manifest = if small_file::exists(files, &parts.layout.manifest(id)) {
        Some(folder::manifest(files, &parts.layout, id)?)
    } else {
        None
    };
    let packed = if small_file::exists(files, &parts.layout.packed(id)) {
        folder::packed_list(files, &parts.layout, id)?.files
    } else {
        Vec::new()
    };
    let mut tables = Vec::new();
    for entry in manifest.iter().flat_map(|(manifest, _)| &manifest.files) {
        let Some(table) = entry.table() else { continue };
        let name = packed_name(&entry.name)
            .map_err(|error| Failure::park(Code::Internal, format!("the packed name of {}", entry.name)).caused_by(error))?;
        tables.push(TableView {
            table: table.table.to_string(),
            file: entry.name.to_string(),
            rows: table.rows,
            csv_bytes: entry.size,
            packed_bytes: packed.iter().find(|file| file.name == name).map_or(0, |file| file.size),
            unchanged: entry.unchanged,
        });
    }
    let kept =
        [ReceiptStage::Accepted, ReceiptStage::Imported, ReceiptStage::Rejected].map(|stage| parts.layout.receipt(id, stage));
    let kept = kept.into_iter().filter(|path| small_file::exists(files, path));
    Ok(TransferDetail {
        view: record.into(),
        folder: parts.layout.transfer(id).display().to_string(),
        manifest: manifest.as_ref().map(|(_, digest)| digest.to_string()),
        snapshot: manifest.and_then(|(manifest, _)| manifest.snapshot).map(|snapshot| SnapshotView {
            id: snapshot.id,
            isolation: snapshot.isolation,
            consistent: snapshot.consistent,
        }),
        tables,
        receipts: kept.map(|path| path.display().to_string()).collect(),
        seconds: seconds(record, &history),
        events: history.entries.into_iter().map(|entry| EventView { at: entry.at, event: entry.event }).collect(),
    })
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
            _ => Stage::Receipt,
        };
        let took = entry.at.duration_since(before).as_secs_f64().max(0.0);
        *sums.entry(stage.as_str()).or_insert(0.0) += took;
        before = entry.at;
    }
    sums
}
