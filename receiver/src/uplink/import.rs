//! `import`: every table of a transfer in one database transaction, exactly once, in the agent's sequence.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use tokio::sync::mpsc;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_transfer::{
    Code, Failure, Stage, TransferEvent, TransferKey,
    csv::Row,
    manifest::{FileEntry, Label, Table},
    packed::PackedFile,
    receipt::TableRows,
    state::Place,
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

impl Import {
    async fn import(&self, key: TransferKey) -> Result<TransferEvent, Failure> {
        let (parts, of) = (Arc::clone(&self.0), key.clone());
        let begun = blocking(move || {
            if let Some((receipt, _)) = decide::decided(&parts, &of)?
                && let Some(outcome) = receipt.outcome()
            {
                return Ok(Err(TransferEvent::Decided { outcome }));
            }
            match open(&parts, &of) {
                Ok(opened) => Ok(Ok(opened)),
                Err(failure) => reject(&parts, &of, None, failure).map(Err),
            }
        });
        let opened = match begun.await? {
            Ok(opened) => Arc::new(opened),
            Err(event) => return Ok(event),
        };
        let done = self.in_one_transaction(&key, &opened).await;
        let parts = Arc::clone(&self.0);
        blocking(move || match done {
            Ok(rows) => {
                let outcome = decide::imported(&parts, &key, opened.digest, rows)?;
                Ok(TransferEvent::Decided { outcome })
            }
            Err(failure) => reject(&parts, &key, Some(&opened), failure),
        })
        .await
    }

    async fn in_one_transaction(&self, key: &TransferKey, opened: &Arc<Opened>) -> Result<Vec<TableRows>, Failure> {
        let manifest = &opened.manifest;
        let scope = ImportScope { agent: key.agent.clone(), job: manifest.job.clone() };
        let (mut import, ledger) = self.0.target.begin(&scope, key.id).await?;
        if let Some(before) = ledger.this {
            // Committed, and stopped before the receipt was signed.
            return Ok(table_rows(before.rows));
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
                check_base(&ledger, entry, table)?
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
            rows: rows.clone(),
        };
        import.commit(&record).await?;
        Ok(table_rows(rows))
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
        let source = open_file(&*parts.files, &folder, &packed.name)?;
        let columns = entry.table().map_or(0, |table| table.columns.len());
        let mut sink = BatchSink { batch: RowBatch::new(columns), columns, sender };
        let rows = content::read(source, &packed, &entry, &mut sink)?;
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
fn check_base(ledger: &Ledger, entry: &FileEntry, table: &Table) -> Result<u64, Failure> {
    match ledger.tables.get(&table.table) {
        Some(state) if state.sha256 == entry.sha256 && state.columns == table.columns => Ok(state.rows),
        _ => {
            let base = entry.base.map_or_else(String::new, |base| format!(" of transfer {base}"));
            let told = format!("table {} is unchanged since an import{base} that this app database does not have", table.table);
            Err(Failure::park(Code::BaseMissing, told))
        }
    }
}

fn table_rows(rows: Vec<(Label, u64)>) -> Vec<TableRows> {
    rows.into_iter().map(|(table, rows)| TableRows { table, rows }).collect()
}
