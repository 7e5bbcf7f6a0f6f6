//! `import`: every table of a transfer in one database transaction, exactly once, in the agent's sequence.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use tokio::sync::mpsc;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_transfer::{
    Code, Failure, JobName, Stage, TransferEvent, TransferKey,
    csv::Row,
    digest::Sha256Digest,
    manifest::{FileEntry, Table},
    packed::PackedFile,
    receipt::TableRows,
    state::{Outcome, Place},
};

use super::{
    check::{Opened, open_file},
    content::{self, RowSink},
    decide,
    verify::{blocking, open, reject},
};
use crate::{
    import::{ImportRecord, ImportScope, Ledger, RowBatch},
    parts::Parts,
};

/// How many batches may wait between the reader and the database.
const BATCHES_AHEAD: usize = 4;

/// The stage.
#[derive(Debug, Clone)]
pub struct Import(pub Arc<Parts>);

#[async_trait]
impl Step for Import {
    fn place(&self) -> Place {
        Place::Receiver
    }

    fn stage(&self) -> Stage {
        Stage::Import
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        self.import(lease.key().clone()).await.map(StepOutcome::Event)
    }
}

enum Begun {
    Decided(Outcome),
    Opened(Arc<Opened>),
    /// It cannot be opened; with the job whose import was begun before, where one was.
    Unreadable(Failure, Option<JobName>),
}

/// An import that is in the database.
struct Done {
    manifest: Sha256Digest,
    rows: Vec<TableRows>,
}

impl From<ImportRecord> for Done {
    fn from(record: ImportRecord) -> Self {
        let rows = record.rows.into_iter().map(|(table, rows)| TableRows::new(table, rows)).collect();
        Self { manifest: record.manifest, rows }
    }
}

impl Import {
    async fn import(&self, key: TransferKey) -> Result<TransferEvent, Failure> {
        let (parts, of) = (Arc::clone(&self.0), key.clone());
        let begun = blocking(move || {
            // Decided before, and stopped before the journal knew.
            if let Some(outcome) = decide::decided_before(&parts, &of)? {
                return Ok(Begun::Decided(outcome));
            }
            match open(&parts, &of) {
                Ok(opened) => {
                    decide::note_import(&parts, &of, &opened.manifest.job)?;
                    Ok(Begun::Opened(Arc::new(opened)))
                }
                Err(failure) => Ok(Begun::Unreadable(failure, decide::noted_import(&parts, &of)?)),
            }
        });
        let (done, opened) = match begun.await? {
            Begun::Decided(outcome) => return Ok(TransferEvent::Decided { outcome }),
            Begun::Opened(opened) => (self.in_one_transaction(&key, &opened).await, Some(opened)),
            Begun::Unreadable(failure, job) => (self.committed_before(&key, job, failure).await, None),
        };
        let parts = Arc::clone(&self.0);
        blocking(move || match done {
            Ok(done) => {
                let outcome = decide::imported(&parts, &key, done.manifest, done.rows)?;
                Ok(TransferEvent::Decided { outcome })
            }
            Err(failure) => reject(&parts, &key, opened.as_deref(), failure),
        })
        .await
    }

    /// What has landed cannot be used any more. Where its import was committed before, that import stands and is signed for;
    /// otherwise the failure does.
    async fn committed_before(&self, key: &TransferKey, job: Option<JobName>, failure: Failure) -> Result<Done, Failure> {
        let Some(job) = job else { return Err(failure) };
        let scope = ImportScope { agent: key.agent.clone(), job };
        let (_, ledger) = self.0.target.begin(&scope, key.id).await?;
        ledger.this.map(Done::from).ok_or(failure)
    }

    async fn in_one_transaction(&self, key: &TransferKey, opened: &Arc<Opened>) -> Result<Done, Failure> {
        let manifest = &opened.manifest;
        let scope = ImportScope { agent: key.agent.clone(), job: manifest.job.clone() };
        let (mut import, ledger) = self.0.target.begin(&scope, key.id).await?;
        if let Some(before) = ledger.this {
            // Committed, and stopped before the receipt was signed.
            return Ok(before.into());
        }
        if let Some(last) = ledger.last_sequence.filter(|last| *last >= manifest.sequence) {
            let told =
                format!("number {} of job {} is imported already, and this is number {}", last, manifest.job, manifest.sequence);
            return Err(Failure::park(Code::Superseded, told));
        }
        let mut packed = opened.packed.files.iter();
        let mut rows = Vec::new();
        for entry in &manifest.files {
            let Some(table) = entry.table() else { continue };
            let counted = if entry.unchanged {
                check_base(&ledger, entry, table)?;
                match import.count_table(&table.table).await? {
                    Some(counted) if counted == table.rows => counted,
                    _ => return Err(base_missing(entry, table)),
                }
            } else {
                let packed =
                    packed.next().ok_or_else(|| Failure::park(Code::PackedListInvalid, "the packed list is too short"))?;
                import.start_table(table, ledger.tables.get(&table.table)).await?;
                self.stream(&mut *import, key, entry, packed).await?;
                import.finish_table(key.id, entry.sha256).await?
            };
            if counted != table.rows {
                let told = format!("table {} has {counted} rows in the database and {} in its manifest", table.table, table.rows);
                return Err(Failure::park(Code::ImportFailed, told));
            }
            rows.push((table.table.clone(), counted));
        }
        let record = ImportRecord {
            transfer: key.id,
            sequence: manifest.sequence,
            manifest: opened.digest,
            imported: self.0.clock.now(),
            rows,
        };
        import.commit(&record).await?;
        Ok(record.into())
    }

    /// Reads a packed file on a thread of its own and inserts what it reads, a few batches ahead at most.
    async fn stream(
        &self,
        import: &mut dyn crate::import::Import,
        key: &TransferKey,
        entry: &FileEntry,
        packed: &PackedFile,
    ) -> Result<(), Failure> {
        let (sender, mut receiver) = mpsc::channel(BATCHES_AHEAD);
        let folder = self.0.layout.landed(key);
        let reader = read_into(Arc::clone(&self.0), folder, entry.clone(), packed.clone(), sender);
        let reading = tokio::spawn(blocking(reader));
        while let Some(batch) = receiver.recv().await {
            import.insert(batch).await?;
        }
        // The reader's verdict comes after its last row: only now is it known that the bytes were the promised ones.
        let joined = reading.await.map_err(|e| Failure::park(Code::Internal, "a worker failed").caused_by(e))?;
        joined.map(|_| ())
    }
}

fn read_into(
    parts: Arc<Parts>,
    folder: PathBuf,
    entry: FileEntry,
    packed: PackedFile,
    sender: mpsc::Sender<RowBatch>,
) -> impl FnOnce() -> Result<u64, Failure> {
    move || {
        let mut source = open_file(&*parts.files, &folder, &packed.name)?;
        let columns = entry.table().map_or(0, |table| table.columns.len());
        let mut sink = BatchSink { batch: RowBatch::new(columns), columns, sender };
        let rows = content::read(&mut *source, &packed, &entry, &mut sink)?;
        sink.flush()?;
        Ok(rows)
    }
}

struct BatchSink {
    batch: RowBatch,
    columns: usize,
    sender: mpsc::Sender<RowBatch>,
}

impl BatchSink {
    fn flush(&mut self) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.batch, RowBatch::new(self.columns));
        // The other side is gone only when the import has failed; its own failure is the one that is reported.
        self.sender.blocking_send(full).map_err(|_| Failure::retry(Code::Cancelled, "the import was given up"))
    }
}

impl RowSink for BatchSink {
    fn row(&mut self, row: &Row<'_>) -> Result<(), Failure> {
        row.iter().for_each(|field| self.batch.push(field));
        if self.batch.is_full() { self.flush() } else { Ok(()) }
    }
}

/// An unchanged table must be in the database with exactly the content it is said to have.
fn check_base(ledger: &Ledger, entry: &FileEntry, table: &Table) -> Result<(), Failure> {
    match ledger.tables.get(&table.table) {
        Some(state) if state.sha256 == entry.sha256 && state.columns == table.columns => Ok(()),
        _ => Err(base_missing(entry, table)),
    }
}

fn base_missing(entry: &FileEntry, table: &Table) -> Failure {
    let base = entry.base.map_or_else(String::new, |base| format!(" of transfer {base}"));
    let told = format!("table {} is unchanged since an import{base} that this app database does not have", table.table);
    Failure::park(Code::BaseMissing, told)
}
