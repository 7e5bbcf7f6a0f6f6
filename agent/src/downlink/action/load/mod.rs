//! Loads delivered rows into a table of the ERP: one transaction, which also notes the transfer, so that it happens once.
//!
//! A database joins by a [`LoadTarget`] of its own; what is read, and what counts as done, is the same for all.

mod sqlite;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::mpsc;
use towpath_transfer::{
    Clock, Code, Failure, TransferId,
    csv::{Reader, RowBatch},
    failure::Result,
    name::FileName,
};
use towpath_transport::files::{FileStore, feeding, file_failure};

use super::{ActionFile, ActionOf};
use crate::config::LoadConfig;

/// Batches of rows that may wait for the database.
pub const BATCHES_AHEAD: usize = 4;
/// What the name of a file that is loaded ends with.
const CSV_SUFFIX: &str = ".csv";

/// A database that rows are loaded into.
#[async_trait]
pub trait LoadTarget: Send + Sync {
    /// Opens the one transaction of a load; `None` where the transfer was loaded before.
    ///
    /// # Errors
    /// `action-failed` (retry) where the database is missing, locked, or lacks the table or its column for the transfer.
    async fn begin(&self, transfer: TransferId) -> Result<Option<Box<dyn Load>>>;
}

/// An open transaction. Dropped without [`Load::commit`], nothing of it has happened.
#[async_trait]
pub trait Load: Send {
    /// Takes rows with these columns from here on.
    ///
    /// # Errors
    /// `action-failed` (retry) where the table has no such column.
    async fn columns(&mut self, names: &[String]) -> Result<()>;

    /// Inserts rows. Values are text, or NULL; the database gives them the types of its columns.
    ///
    /// # Errors
    /// `action-failed` (retry) where the database refuses them.
    async fn insert(&mut self, batch: RowBatch) -> Result<()>;

    /// Notes the transfer and makes everything durable.
    ///
    /// # Errors
    /// `action-failed` (retry): then nothing has happened, or, where the answer was lost, everything; the next
    /// [`LoadTarget::begin`] tells.
    async fn commit(self: Box<Self>, at: Timestamp, rows: u64) -> Result<()>;
}

/// The database that the configuration names.
#[must_use]
pub fn target(config: &LoadConfig) -> Box<dyn LoadTarget> {
    match config {
        LoadConfig::Sqlite { path, table, transfer_column } => {
            Box::new(sqlite::SqliteLoad::new(path.clone(), table.clone(), transfer_column.clone()))
        }
    }
}

/// Loads every CSV file of a transfer from the agent's own copies, whatever the ERP does with the delivered ones.
///
/// # Errors
/// `action-failed` (retry); then nothing of it is in the database.
pub async fn load(files: &Arc<dyn FileStore>, clock: &dyn Clock, target: &dyn LoadTarget, of: &ActionOf) -> Result<()> {
    let csv: Vec<&ActionFile> = of.files.iter().filter(|file| is_csv(&file.name)).collect();
    if csv.is_empty() {
        return Err(failed("none of the delivered files is a CSV file (*.csv), so there is nothing to load"));
    }
    let Some(mut load) = target.begin(of.transfer).await? else {
        tracing::info!(transfer = %of.transfer, "loaded before; nothing is loaded twice");
        return Ok(());
    };
    let mut rows = 0;
    for file in csv {
        rows += one_file(files, &mut *load, file).await?;
    }
    load.commit(clock.now(), rows).await?;
    tracing::info!(transfer = %of.transfer, rows, "loaded into the ERP's table");
    Ok(())
}

fn is_csv(name: &FileName) -> bool {
    name.case_folded().ends_with(CSV_SUFFIX)
}

fn failed(what: impl Into<String>) -> Failure {
    Failure::retry(Code::ActionFailed, what)
}

enum Read {
    Columns(Vec<String>),
    Rows(RowBatch),
}

/// Reads on a thread of its own and inserts what it reads, a few batches ahead at most. Returns the number of rows.
async fn one_file(files: &Arc<dyn FileStore>, load: &mut dyn Load, file: &ActionFile) -> Result<u64> {
    let (sender, mut receiver) = mpsc::channel(BATCHES_AHEAD);
    let (files, path, name) = (Arc::clone(files), file.plain.clone(), file.name.clone());
    let reading = tokio::spawn(feeding(move || read(&*files, &path, &name, &sender)));
    while let Some(next) = receiver.recv().await {
        match next {
            Read::Columns(names) => load.columns(&names).await?,
            Read::Rows(batch) => load.insert(batch).await?,
        }
    }
    let failed = |error| Failure::park(Code::Internal, "a worker failed").caused_by(error);
    reading.await.map_err(failed)?.map_err(failed)?
}

fn read(files: &dyn FileStore, path: &Path, name: &FileName, sender: &mpsc::Sender<Read>) -> Result<u64> {
    // The other side is gone only when the load has failed; its own failure is the one that is reported.
    let send = |read| sender.blocking_send(read).map_err(|_| Failure::retry(Code::Cancelled, "the load was given up"));
    let wrong = |error| failed(format!("{name} is not CSV as it travels: RFC 4180 in UTF-8, with a header row")).caused_by(error);
    let file = files.open(path).map_err(|error| file_failure("opening", path, error))?;
    let mut reader = Reader::new(file).map_err(wrong)?;
    let columns = reader.header().to_vec();
    let width = columns.len();
    send(Read::Columns(columns))?;
    let mut batch = RowBatch::new(width);
    while let Some(row) = reader.read_row().map_err(wrong)? {
        row.iter().for_each(|field| batch.push(field));
        if batch.is_full() {
            send(Read::Rows(std::mem::replace(&mut batch, RowBatch::new(width))))?;
        }
    }
    if !batch.is_empty() {
        send(Read::Rows(batch))?;
    }
    Ok(reader.rows())
}

#[cfg(test)]
mod tests;
