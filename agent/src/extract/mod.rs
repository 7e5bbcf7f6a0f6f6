//! Extract: every table of a job from one state of the ERP database, as packed wire CSV in the transfer's folder.
//!
//! Rows flow through bounded channels: the source reads ahead of the writer by [`source::BATCHES_WAITING`] batches, the writer
//! turns values into CSV, hashes and packs it, and a finished file is told at once, so that it can be pushed while the
//! next table is read. Memory does not depend on the number of rows. Rows and sums are taken from the very values that are
//! written, and asked of the database in the same snapshot; where the two differ, the extract is parked.
//!
//! Before the first row is read, the columns of all tables are compared with those of the job's last import, and it is decided
//! of each table whether it goes whole or only its changed rows do.

mod columns;
mod course;
pub(crate) mod drift;
mod folder;
mod listing;
mod pseudonyms;
pub mod source;
mod table;
mod totals;
mod value;
mod watermark;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{
    Clock, Code, Failure, FileName,
    manifest::{Column, FileEntry, Label, Manifest, Snapshot},
    packed::PackedFile,
};
use towpath_transport::files::FileStore;

use self::{
    columns::Columns,
    course::Imported,
    source::{Source, SourceSnapshot, files::Taken, source_of},
    table::Planned,
};
pub use self::{
    folder::{Attempts, file_names},
    listing::{ListedTable, MAX_LISTED, list_tables},
    pseudonyms::{KeyFile, Pseudonyms},
};
use crate::config::JobConfig;

/// What an extract works with.
#[derive(Debug, Clone)]
pub struct ExtractParts {
    /// Where the files are written.
    pub files: Arc<dyn FileStore>,
    /// Tells when the snapshot was taken.
    pub clock: Arc<dyn Clock>,
    /// The key of pseudonyms.
    pub pseudonyms: Arc<dyn Pseudonyms>,
    /// Threads that pack, at least one; each takes about 12 MiB.
    pub workers: usize,
    /// Counts the files that the program has written.
    pub attempts: Attempts,
}

/// In which form the files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `<name>.csv.bz2`, as they travel. The folder belongs to the transfer: what an earlier attempt left in it is removed.
    Packed,
    /// `<name>.csv`, for people. The folder may hold anything else.
    Plain,
}

/// What is extracted, and where to.
#[derive(Debug, Clone)]
pub struct ExtractRequest {
    /// The source and its tables.
    pub job: JobConfig,
    /// The folder of the files; it exists.
    pub folder: PathBuf,
    /// The last manifest of the job that was imported: what columns are compared with, and what tables build on.
    pub previous: Option<Manifest>,
    /// Whether every row is sent, whatever the app has. Otherwise tables that are as they were then are not written, and of
    /// incremental tables only changed rows.
    pub full: bool,
    /// The tables of which every row is sent in any case.
    pub anew: BTreeSet<String>,
    /// The form of the files.
    pub form: Form,
}

/// What was extracted. Every file named here is on the disk, synced, under its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Extracted {
    /// How the source was read.
    pub snapshot: Snapshot,
    /// What an administrator should know of the source.
    pub warnings: Vec<String>,
    /// What goes away once the app has it.
    pub taken: Option<Taken>,
    /// One for each table, in the order of the configuration; after an incremental table its keys, where they were compared.
    pub files: Vec<FileEntry>,
    /// The packed files, in the same order, without those of unchanged tables. Empty for [`Form::Plain`].
    pub packed: Vec<PackedFile>,
}

/// What happens during an extract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtractEvent {
    /// A table is about to be read.
    TableStarted {
        /// The table.
        table: Label,
    },
    /// Progress. Left out where the channel is full.
    Rows {
        /// The table.
        table: Label,
        /// Rows written so far.
        rows: u64,
    },
    /// A packed file is whole, synced and checked, and will not change any more.
    FileFinished(PackedFile),
    /// A table is done.
    TableFinished {
        /// The table.
        table: Label,
        /// Its rows.
        rows: u64,
        /// Its size as CSV.
        bytes: u64,
        /// Its size packed; 0 where nothing will be sent, and for [`Form::Plain`].
        packed: u64,
        /// Whether the receiver has it already, so that nothing will be sent.
        unchanged: bool,
    },
}

/// Extracts a job.
///
/// Running it again into the same folder replaces what an earlier attempt has left. A receiver of `events` that is
/// dropped does not disturb; one that does not take events holds the extract up.
///
/// # Errors
/// `erp-missing`, `erp-locked` (retry); `erp-refused`, `erp-query`, `erp-value`, `extract-mismatch`, `schema-changed`,
/// `config-invalid`, `limit-exceeded` (park), naming the table; those of the key of pseudonyms; `file-failed`, `disk-full`; `cancelled` soon after `cancel`.
pub async fn extract(
    parts: &ExtractParts,
    request: ExtractRequest,
    events: mpsc::Sender<ExtractEvent>,
    cancel: CancellationToken,
) -> Result<Extracted, Failure> {
    let source = source_of(&request.job, &parts.files, Arc::clone(&parts.clock));
    extract_from(source.as_ref(), parts, request, events, cancel).await
}

/// [`extract`] from a source of the caller's choice.
///
/// # Errors
/// As [`extract`].
pub async fn extract_from(
    source: &dyn Source,
    parts: &ExtractParts,
    request: ExtractRequest,
    events: mpsc::Sender<ExtractEvent>,
    cancel: CancellationToken,
) -> Result<Extracted, Failure> {
    let names = file_names(&request.job.tables)?;
    folder::clear(parts, &request, &names).await?;
    let pseudonyms = pseudonyms::of_job(&parts.pseudonyms, &request.job).await?;
    pseudonyms::warn_of_another_key(pseudonyms.as_ref(), request.previous.as_ref());
    // Before the snapshot is taken, so that whatever is compared with it later is not after it.
    let now = parts.clock.now();
    let mut snapshot = unless_cancelled(&cancel, source.open(&cancel)).await?;
    let run = table::Run { parts, request: &request, events: &events, cancel: &cancel, pseudonyms, now };
    let extracted = tables(&run, snapshot.as_mut(), names).await;
    // Also a query that was given up must not go on at the database.
    snapshot.close().await;
    extracted
}

async fn tables(run: &table::Run<'_>, snapshot: &mut dyn SourceSnapshot, names: Vec<FileName>) -> Result<Extracted, Failure> {
    let plans = plan(run, snapshot, names).await?;
    drift::stop(plans.iter().map(|plan| (&plan.table.name, &plan.table.drift, plan.drift.as_slice())))?;
    let (mut files, mut packed) = (Vec::new(), Vec::new());
    for plan in &plans {
        for (file, sent) in run.table(snapshot, plan).await? {
            files.push(file);
            packed.extend(sent);
        }
    }
    Ok(Extracted { snapshot: snapshot.snapshot(), warnings: snapshot.warnings(), taken: snapshot.taken(), files, packed })
}

/// Finds out about the columns of every table, and decides how it is sent.
async fn plan<'a>(
    run: &table::Run<'a>,
    snapshot: &mut dyn SourceSnapshot,
    names: Vec<FileName>,
) -> Result<Vec<Planned<'a>>, Failure> {
    let request = run.request;
    let fingerprint = run.pseudonyms.as_ref().map(towpath_keys::PseudonymKey::fingerprint);
    let imported: HashMap<&str, Imported<'a>> = request
        .previous
        .iter()
        .flat_map(|manifest| manifest.files.iter().map(|file| (manifest.transfer, file)))
        .filter_map(|(transfer, file)| {
            let table = file.table()?;
            // Of an unchanged table the app has what an earlier transfer brought.
            let transfer = file.base.filter(|_| file.unchanged).unwrap_or(transfer);
            Some((table.table.as_str(), Imported { transfer, table, sha256: file.sha256 }))
        })
        .collect();
    let mut plans = Vec::with_capacity(names.len());
    for (table, name) in request.job.tables.iter().zip(names) {
        let source = unless_cancelled(run.cancel, snapshot.columns(table)).await?;
        let columns = Columns::new(table, source)?;
        let before = imported.get(table.name.as_str()).copied();
        let drift = before.map(|before| drift::between(&before.table.columns, &columns.sent)).unwrap_or_default();
        let full = request.full || request.anew.contains(table.name.as_str());
        let course = course::decide(table, &columns, fingerprint, before, full, run.now);
        plans.push(Planned { table, name, columns, drift, course });
    }
    Ok(plans)
}

/// What `config check` tells of a job's source.
#[derive(Debug)]
pub struct SourceCheck {
    /// How it would be read.
    pub snapshot: Snapshot,
    /// What an administrator should know of it.
    pub warnings: Vec<String>,
    /// Its tables, in the order of the configuration.
    pub tables: Vec<TableCheck>,
}

/// What `config check` tells of a table.
#[derive(Debug)]
pub struct TableCheck {
    /// The table.
    pub table: Label,
    /// Its CSV file.
    pub file: FileName,
    /// Its columns as they would be sent, or what is wrong.
    pub columns: Result<Vec<Column>, Failure>,
}

/// Opens a job's source and prepares every query of it; reads no rows.
///
/// # Errors
/// Where the source cannot be opened. What is wrong with a table stands in its [`TableCheck`].
pub async fn check_source(
    job: &JobConfig,
    files: &Arc<dyn FileStore>,
    clock: Arc<dyn Clock>,
    cancel: &CancellationToken,
) -> Result<SourceCheck, Failure> {
    let names = file_names(&job.tables)?;
    let source = source_of(job, files, clock);
    let mut snapshot = unless_cancelled(cancel, source.open(cancel)).await?;
    let mut tables = Vec::with_capacity(names.len());
    for (table, file) in job.tables.iter().zip(names) {
        let columns = unless_cancelled(cancel, snapshot.columns(table)).await;
        let columns = columns.and_then(|columns| Ok(Columns::new(table, columns)?.sent));
        tables.push(TableCheck { table: table.name.clone(), file, columns });
    }
    let check = SourceCheck { snapshot: snapshot.snapshot(), warnings: snapshot.warnings(), tables };
    snapshot.close().await;
    Ok(check)
}

/// Gives `work` up when `cancel` is cancelled.
async fn unless_cancelled<T>(cancel: &CancellationToken, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match cancel.run_until_cancelled(work).await {
        // What SQLite says when it is interrupted is not the news.
        Some(done) if !(done.is_err() && cancel.is_cancelled()) => done,
        _ => Err(Failure::retry(Code::Cancelled, "the extract was cancelled")),
    }
}
