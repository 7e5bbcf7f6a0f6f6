//! Stage `extract`: the ERP's tables, in one snapshot, become packed files and a signed manifest.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towpath_journal::{Lease, Step, StepOutcome, TransferRecord};
use towpath_keys::Namespace;
use towpath_transfer::{
    Code, Direction, Failure, Stage, TransferEvent, TransferId,
    digest::Sha256Digest,
    manifest::{FileEntry, Manifest},
    md5sums,
    state::Place,
};

use super::{archive, eager::EagerPusher, folder, origins::Origins, plan};
use crate::{
    config::{JobConfig, Policy},
    extract::{ExtractEvent, ExtractRequest, Extracted, Form, drift},
    parts::{Parts, Progress},
    small_file,
};

/// Events of an extract that may wait to be looked at; the extract pauses when there are more.
pub const MAX_WAITING_EVENTS: usize = 64;

/// Stage `extract`.
#[derive(Debug, Clone)]
pub struct ExtractStep {
    /// What it touches.
    pub parts: Arc<Parts>,
}

#[async_trait]
impl Step for ExtractStep {
    fn place(&self) -> Place {
        Place::Agent
    }

    fn stage(&self) -> Stage {
        Stage::Extract
    }

    /// A crash in here starts the extract anew under the same id: nothing of an unfinished one is used.
    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let parts = &*self.parts;
        let record = &lease.record;
        let id = record.key.id;
        let job = configured(parts, record)?;
        folder::start_afresh(&*parts.files, &parts.layout, id)?;
        let plan::Basis { previous, full } = plan::basis(parts, record).await?;
        let folder = parts.layout.transfer(id);
        let origins = Origins::of(&job)?;
        let anew = elsewhere(parts, &origins, previous.as_ref())?;
        let request = ExtractRequest { job: job.clone(), folder, previous, full, anew, form: Form::Packed };
        let extracted = self.read(lease, request).await?;
        remark(id, &job, &extracted);
        if !extracted.warnings.is_empty() {
            folder::note(&*parts.files, &parts.layout.warnings(id), &extracted.warnings)?;
        }
        if let Some(taken) = &extracted.taken {
            archive::note(&*parts.files, &parts.layout, id, taken)?;
        }
        origins.note(&*parts.files, &parts.layout, id)?;
        let digest = write_manifest(parts, record, &extracted)?;
        folder::note(&*parts.files, &parts.layout.extracted(id), &extracted.packed)?;
        Ok(StepOutcome::Event(TransferEvent::Extracted { manifest: digest }))
    }
}

impl ExtractStep {
    async fn read(&self, lease: &Lease, request: ExtractRequest) -> Result<Extracted, Failure> {
        let parts = &self.parts;
        let id = lease.record.key.id;
        let (events, mut seen) = mpsc::channel(MAX_WAITING_EVENTS);
        // Dropped with this future, so that an interrupted step leaves no extract behind.
        let cancel = CancellationToken::new();
        let _guard = cancel.clone().drop_guard();
        let mut eager = EagerPusher::start(Arc::clone(parts), id);
        let watch = async {
            while let Some(event) = seen.recv().await {
                if let ExtractEvent::FileFinished(file) = &event {
                    eager.offer(file.clone());
                }
                if let Some(progress) = progress(event) {
                    parts.watcher.progress(id, &progress);
                }
            }
        };
        let (extracted, ()) = tokio::join!(parts.extractor.extract(request, events, cancel.clone()), watch);
        // What is not sent yet is sent by `push`, which goes on where this one stops.
        eager.stop().await;
        extracted
    }
}

/// The tables whose rows came from somewhere else at the last import.
fn elsewhere(parts: &Parts, origins: &Origins, previous: Option<&Manifest>) -> Result<BTreeSet<String>, Failure> {
    let Some(base) = previous.map(|previous| previous.transfer) else { return Ok(BTreeSet::new()) };
    let before = Origins::noted(&*parts.files, &parts.layout, base)?;
    let anew = before.map(|before| origins.elsewhere(&before)).unwrap_or_default();
    for table in &anew {
        tracing::info!(%table, %base, "all of it is sent: it was read from another database, or by another query, for the last import");
    }
    Ok(anew)
}

/// Says once for each transfer what a person should know of its source and of its columns.
fn remark(id: TransferId, job: &JobConfig, extracted: &Extracted) {
    for warning in &extracted.warnings {
        tracing::warn!(transfer = %id, job = %job.name, "{warning}");
    }
    if !extracted.snapshot.consistent {
        let isolation = &extracted.snapshot.isolation;
        tracing::warn!(transfer = %id, job = %job.name, %isolation, "the tables are not of one state of the database");
    }
    for table in extracted.files.iter().filter_map(FileEntry::table) {
        let says = job.tables.iter().find(|config| config.name == table.table).map(|config| config.drift).unwrap_or_default();
        for change in table.drift.iter().filter(|change| drift::policy(&says, change) != Policy::Accept) {
            tracing::warn!(transfer = %id, job = %job.name, table = %table.table, "{change}");
        }
    }
}

fn configured(parts: &Parts, record: &TransferRecord) -> Result<JobConfig, Failure> {
    let name = record.job.as_ref().ok_or_else(|| Failure::park(Code::Internal, "a planned transfer without a job"))?;
    parts.config.now().job(name).cloned().ok_or_else(|| {
        let message = format!("transfer {} belongs to job {name}, which is not configured any more", record.key.id);
        Failure::park(Code::ConfigInvalid, message)
    })
}

pub(crate) fn progress(event: ExtractEvent) -> Option<Progress> {
    match event {
        ExtractEvent::TableStarted { table } => Some(Progress::TableStarted { table }),
        ExtractEvent::Rows { table, rows } => Some(Progress::Rows { table, rows }),
        ExtractEvent::TableFinished { table, rows, unchanged, .. } => Some(Progress::TableFinished { table, rows, unchanged }),
        ExtractEvent::FileFinished(_) => None,
    }
}

/// MD5SUMS, the signature and the manifest, in this order and durable. Returns the manifest's digest.
fn write_manifest(parts: &Parts, record: &TransferRecord, extracted: &Extracted) -> Result<Sha256Digest, Failure> {
    let id = record.key.id;
    let internal = |what: &str| Failure::park(Code::Internal, format!("transfer {id}: {what}"));
    let manifest = Manifest {
        version: 1,
        transfer: id,
        direction: Direction::Uplink,
        tenant: parts.tenant.clone(),
        agent: parts.agent.clone(),
        job: record.job.clone().ok_or_else(|| internal("it has no job"))?,
        created: parts.clock.now(),
        sequence: record.sequence.ok_or_else(|| internal("it has no sequence number"))?,
        snapshot: Some(extracted.snapshot.clone()),
        kind: None,
        files: extracted.files.clone(),
    };
    let bytes = manifest.to_bytes().map_err(|error| internal("the manifest cannot be written").caused_by(error))?;
    let signature = parts.identity.now().sign(Namespace::Manifest, &bytes)?;
    let files = &*parts.files;
    small_file::write(files, &parts.layout.md5sums(id), md5_list(&manifest.files)?.as_bytes())?;
    small_file::write(files, &parts.layout.signature(id), signature.as_bytes())?;
    small_file::write(files, &parts.layout.manifest(id), &bytes)?;
    Ok(Sha256Digest::of(&bytes))
}

/// MD5SUMS of the files whose bytes travel.
pub(crate) fn md5_list(files: &[FileEntry]) -> Result<String, Failure> {
    let sent = files.iter().filter(|file| !file.unchanged).map(|file| (&file.md5, &file.name));
    md5sums::write(sent).map_err(|error| Failure::park(Code::Internal, "MD5SUMS cannot be written").caused_by(error))
}
