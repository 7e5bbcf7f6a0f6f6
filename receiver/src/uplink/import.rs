//! `import`: every table of a transfer in one database transaction, exactly once, in the agent's sequence.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use tokio::sync::mpsc;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_transfer::{
    Code, Failure, JobName, Sequence, Stage, TransferEvent, TransferId, TransferKey,
    csv::Row,
    digest::Sha256Digest,
    manifest::{Content, FileEntry, Label, Mode, Table},
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
    import::{Import as Transaction, ImportRecord, ImportScope, Ledger, OldRows, RowBatch, TableState},
    parts::Parts,
    restored,
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
    sequence: Sequence,
    manifest: Sha256Digest,
    rows: Vec<TableRows>,
}

impl From<ImportRecord> for Done {
    fn from(record: ImportRecord) -> Self {
        Self { sequence: record.sequence, manifest: record.manifest, rows: record.rows }
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
            Begun::Opened(opened) => {
                let job = opened.manifest.job.clone();
                (self.in_one_transaction(&key, &opened).await.map(|done| (done, job)), Some(opened))
            }
            Begun::Unreadable(failure, job) => (self.committed_before(&key, job, failure).await, None),
        };
        let parts = Arc::clone(&self.0);
        blocking(move || match done {
            Ok((done, job)) => {
                restored::note(&parts, &ImportScope { agent: key.agent.clone(), job }, key.id, done.sequence)?;
                let outcome = decide::imported(&parts, &key, done.manifest, done.rows)?;
                Ok(TransferEvent::Decided { outcome })
            }
            Err(failure) => reject(&parts, &key, opened.as_deref(), failure),
        })
        .await
    }

    /// What has landed cannot be used any more. Where its import was committed before, that import stands and is signed for;
    /// otherwise the failure does.
    async fn committed_before(
        &self,
        key: &TransferKey,
        job: Option<JobName>,
        failure: Failure,
    ) -> Result<(Done, JobName), Failure> {
        let Some(job) = job else { return Err(failure) };
        let scope = ImportScope { agent: key.agent.clone(), job };
        let (_, ledger) = self.0.target.begin(&scope, key.id).await?;
        ledger.this.map(|record| (record.into(), scope.job)).ok_or(failure)
    }

    async fn in_one_transaction(&self, key: &TransferKey, opened: &Arc<Opened>) -> Result<Done, Failure> {
        let manifest = &opened.manifest;
        let scope = ImportScope { agent: key.agent.clone(), job: manifest.job.clone() };
        let (mut import, Ledger { this, last_sequence, tables }) = self.0.target.begin(&scope, key.id).await?;
        if let Some(before) = this {
            // Committed, and stopped before the receipt was signed.
            return Ok(before.into());
        }
        if let Some(last) = last_sequence.filter(|last| *last >= manifest.sequence) {
            let told =
                format!("number {} of job {} is imported already, and this is number {}", last, manifest.job, manifest.sequence);
            return Err(Failure::park(Code::Superseded, told));
        }
        let mut packed = opened.packed.files.iter();
        let mut next = || packed.next().ok_or_else(|| Failure::park(Code::PackedListInvalid, "the packed list is too short"));
        let mut rows: Vec<TableRows> = Vec::new();
        for entry in &manifest.files {
            match &entry.content {
                Content::Table(table) if entry.unchanged => rows.push(unchanged(&mut *import, &tables, entry, table).await?),
                Content::Table(table) => rows.push(self.table(&mut *import, &tables, key, (entry, table, next()?)).await?),
                Content::Keys(keys) => {
                    let left = self.keys(&mut *import, key, (entry, keys, next()?)).await?;
                    rows.iter_mut().filter(|counted| counted.table == keys.table).for_each(|counted| counted.rows = left);
                }
                Content::File => return Err(Failure::park(Code::ImportRefused, format!("{} is not a table", entry.name))),
            }
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

    async fn table(
        &self,
        import: &mut dyn Transaction,
        known: &Tables,
        key: &TransferKey,
        of: Sent<'_>,
    ) -> Result<TableRows, Failure> {
        let (entry, table, packed) = of;
        let before = match (table.mode, entry.base) {
            (Mode::Merge, Some(base)) => Some(rows_of_base(import, known, table, base).await?),
            (Mode::Merge | Mode::Replace, _) => None,
        };
        let old = if before.is_some() { OldRows::Kept } else { OldRows::Removed };
        import.start_table(table, known.get(&table.table), old).await?;
        self.stream(import, key, entry, packed).await?;
        let counted = import.finish_table(key.id, entry.sha256).await?;
        let before = before.unwrap_or(0);
        let plausible = match table.mode {
            Mode::Replace => counted == table.rows,
            Mode::Merge => (before..=before.saturating_add(table.rows)).contains(&counted),
        };
        if !plausible {
            let told = format!("table {} has {counted} rows in the database and {} in its manifest", table.table, table.rows);
            return Err(Failure::park(Code::ImportFailed, told));
        }
        Ok(table_rows(table, counted))
    }

    /// Deletes what the ERP has no more. A table that then has fewer rows than the ERP lacks some that were sent to another one.
    async fn keys(&self, import: &mut dyn Transaction, key: &TransferKey, of: Sent<'_>) -> Result<u64, Failure> {
        let (entry, keys, packed) = of;
        import.start_keys(keys).await?;
        self.stream(import, key, entry, packed).await?;
        let left = import.finish_keys().await?;
        if left == keys.rows {
            return Ok(left);
        }
        let told = format!("table {} would have {left} rows after this import, and the ERP has {}", keys.table, keys.rows);
        Err(Failure::park(Code::BaseMissing, told))
    }

    /// Reads a packed file on a thread of its own and inserts what it reads, a few batches ahead at most.
    async fn stream(
        &self,
        import: &mut dyn Transaction,
        key: &TransferKey,
        entry: &FileEntry,
        packed: &PackedFile,
    ) -> Result<(), Failure> {
        let (sender, mut receiver) = mpsc::channel(BATCHES_AHEAD);
        let folder = self.0.layout.landed(key);
        let reader = read_into(Arc::clone(&self.0), folder, entry.clone(), packed.clone(), sender);
        let reading = tokio::spawn(towpath_transport::files::feeding(reader));
        while let Some(batch) = receiver.recv().await {
            import.insert(batch).await?;
        }
        // The reader's verdict comes after its last row: only now is it known that the bytes were the promised ones.
        let failed = |e| Failure::park(Code::Internal, "a worker failed").caused_by(e);
        reading.await.map_err(failed)?.map_err(failed)?.map(|_| ())
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
        let columns = entry.csv().map_or(0, |table| table.columns.len());
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

/// The ledger's tables.
type Tables = BTreeMap<Label, TableState>;
/// What is imported from one file: its entry, its table or keys, and the packed file.
type Sent<'a> = (&'a FileEntry, &'a Table, &'a PackedFile);

fn table_rows(table: &Table, rows: u64) -> TableRows {
    TableRows { drift: table.drift.clone(), ..TableRows::new(table.table.clone(), rows) }
}

/// An unchanged table must be in the database with exactly the content it is said to have.
async fn unchanged(import: &mut dyn Transaction, known: &Tables, entry: &FileEntry, table: &Table) -> Result<TableRows, Failure> {
    let missing = || {
        let base = entry.base.map_or_else(String::new, |base| format!(" of transfer {base}"));
        let told = format!("table {} is unchanged since an import{base} that this app database does not have", table.table);
        Failure::park(Code::BaseMissing, told)
    };
    let whole = |state: &&TableState| (state.mode, table.mode) == (Mode::Replace, Mode::Replace);
    let state = known.get(&table.table).filter(whole);
    if state.is_none_or(|state| state.sha256 != entry.sha256 || state.columns != table.columns) {
        return Err(missing());
    }
    match import.count_table(&table.table).await? {
        Some(counted) if counted == table.rows => Ok(table_rows(table, counted)),
        _ => Err(missing()),
    }
}

/// The rows of a table that is merged into: it must be what the transfer `base` has left, with the same columns and key.
async fn rows_of_base(import: &mut dyn Transaction, known: &Tables, table: &Table, base: TransferId) -> Result<u64, Failure> {
    let same = |state: &&TableState| (state.transfer, &state.columns, &state.key) == (base, &table.columns, &table.key);
    let Some(state) = known.get(&table.table).filter(same) else {
        let told = format!("table {} holds changes since transfer {base}, and in this app database it is not that", table.table);
        return Err(Failure::park(Code::BaseMissing, told));
    };
    match import.count_table(&table.table).await? {
        Some(counted) if counted == state.rows => Ok(counted),
        counted => {
            let found = counted.map_or_else(|| "is gone".to_owned(), |rows| format!("has {rows} rows"));
            let told = format!("table {} had {} rows after transfer {base}, and now it {found}", table.table, state.rows);
            Err(Failure::park(Code::BaseMissing, told))
        }
    }
}
