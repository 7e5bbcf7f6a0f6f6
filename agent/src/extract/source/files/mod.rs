//! A folder into which the ERP puts CSV files.
//!
//! All whole files whose names match are one table, in the order of their names. Which files these are, and how long, is fixed when
//! the source is opened; a file that changes afterwards is an error that passes. Files are only read; they move to the archive when
//! the app has what was in them ([`Taken`]), so that a transfer that was rejected or given up loses nothing: its files go with the
//! next one.

mod decode;
mod find;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod read;
mod records;
mod second;
mod taken;
mod values;

#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{
    Clock, Code, Failure,
    digest::Sha256Hasher,
    manifest::{Snapshot, SqlType},
};
use towpath_transport::files::{FileStore, file_failure};

pub use self::taken::{MAX_TAKEN_BYTES, Taken, TakenFile, archive};
use self::{
    find::{Dropped, Folder, Found, Wanted},
    read::{Digests, Reading},
};
use super::{Read, RowSink, Source, SourceColumn, SourceSnapshot, TableTotals};
use crate::{
    blocking::blocking,
    config::{CsvConfig, DEFAULT_ARCHIVE, EachFile, FolderConfig, TableConfig},
};

/// Batches of rows that wait between the thread that reads and the sink.
const BATCHES_AHEAD: usize = 1;

/// A folder of files.
pub(crate) struct FilesSource {
    config: FolderConfig,
    tables: Vec<TableConfig>,
    files: Arc<dyn FileStore>,
    clock: Arc<dyn Clock>,
}

impl FilesSource {
    /// The folder is looked at when the source is opened.
    pub(crate) fn new(config: FolderConfig, tables: Vec<TableConfig>, files: Arc<dyn FileStore>, clock: Arc<dyn Clock>) -> Self {
        Self { config, tables, files, clock }
    }
}

impl fmt::Debug for FilesSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilesSource").field("folder", &self.config.folder).finish_non_exhaustive()
    }
}

fn cancelled() -> Failure {
    Failure::retry(Code::Cancelled, "reading the files was cancelled")
}

#[async_trait]
impl Source for FilesSource {
    /// Looks for files, twice where the second look says whether they are whole.
    async fn open(&self, cancel: &CancellationToken) -> Result<Box<dyn SourceSnapshot>, Failure> {
        let archive = self.config.archive.clone().unwrap_or_else(|| self.config.folder.join(DEFAULT_ARCHIVE));
        let wanted = self.tables.iter().map(Wanted::of).collect::<Result<Vec<_>, _>>()?;
        let looking = Looking {
            files: Arc::clone(&self.files),
            config: self.config.clone(),
            wanted,
            archive,
            merges: self.tables.iter().map(|table| table.each_file == EachFile::Merges).collect(),
            cancel: cancel.clone(),
        };
        let (looking, mut dropped, mut last) = looking.at(None).await?;
        if let Some(pause) = find::pause(&self.config.complete) {
            let waited = cancel.run_until_cancelled(self.clock.sleep(pause)).await;
            waited.ok_or_else(cancelled)?;
            (_, dropped, last) = looking.clone().at(Some(dropped)).await?;
        }
        let tables = self.tables.iter().zip(looking.wanted.iter().cloned()).zip(dropped.into_iter().zip(last));
        let tables = tables.map(|((config, wanted), (dropped, last))| OneTable {
            config: config.clone(),
            wanted,
            held_up: find::holds_up(&dropped),
            fresh: dropped.whole,
            last,
            archived: None,
            header: None,
            digests: Digests::new(),
        });
        Ok(Box::new(FilesSnapshot { at: self.clock.now(), tables: tables.collect(), looking }))
    }
}

/// What a look needs.
#[derive(Clone)]
struct Looking {
    files: Arc<dyn FileStore>,
    config: FolderConfig,
    wanted: Vec<Wanted>,
    archive: PathBuf,
    merges: Vec<bool>,
    cancel: CancellationToken,
}

type Looked = (Looking, Vec<Dropped>, Vec<Option<Found>>);

impl Looking {
    /// What there is of each table, and the last archived file of those that are merged.
    async fn at(self, before: Option<Vec<Dropped>>) -> Result<Looked, Failure> {
        blocking(move || {
            let dropped = self.folder().look(before.as_deref())?;
            // Only now that the folder is there: in the place of a share that is not, nothing must be made.
            let made = self.files.create_dir_all(&self.archive);
            made.map_err(|error| file_failure("making the archive", &self.archive, error))?;
            let mut last = Vec::with_capacity(self.wanted.len());
            for (wanted, merges) in self.wanted.iter().zip(&self.merges) {
                last.push(if *merges { self.folder().archived(&self.archive, wanted, true)?.pop() } else { None });
            }
            let waits: Vec<String> = (self.wanted.iter().zip(&dropped).zip(&last))
                .filter_map(|((wanted, dropped), last)| find::waits_for(wanted, dropped, last.is_some()))
                .collect();
            if waits.is_empty() { Ok((self, dropped, last)) } else { Err(self.waits(&waits)) }
        })
        .await
    }

    fn folder(&self) -> Folder<'_> {
        Folder { files: &*self.files, config: &self.config, wanted: &self.wanted, cancel: &self.cancel }
    }

    fn waits(&self, waits: &[String]) -> Failure {
        let said = format!("waiting for files in {}: {}", self.config.folder.display(), waits.join("; "));
        Failure::retry(Code::ErpMissing, said)
    }
}

struct OneTable {
    config: TableConfig,
    wanted: Wanted,
    /// What was found whole.
    fresh: Vec<Found>,
    /// What is not whole, and holds up whatever comes after it, in words.
    held_up: Option<String>,
    /// The last archived file, of a table that is merged.
    last: Option<Found>,
    /// All archived files, once they were wanted.
    archived: Option<Vec<Found>>,
    header: Option<Vec<String>>,
    /// What was read.
    digests: Digests,
}

struct FilesSnapshot {
    looking: Looking,
    at: Timestamp,
    tables: Vec<OneTable>,
}

impl fmt::Debug for FilesSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilesSnapshot").field("folder", &self.looking.config.folder).finish_non_exhaustive()
    }
}

impl FilesSnapshot {
    fn fresh(&self) -> impl Iterator<Item = &Found> {
        self.tables.iter().flat_map(|table| &table.fresh)
    }

    /// The tables that go without what is not whole.
    fn held_up(&self) -> Vec<String> {
        let said = |table: &OneTable| table.held_up.as_ref().map(|files| format!("table {}: {files}", table.config.name));
        self.tables.iter().filter_map(said).collect()
    }

    fn table(&mut self, config: &TableConfig) -> Result<&mut OneTable, Failure> {
        let unknown = || Failure::park(Code::Internal, format!("table {} was not opened", config.name));
        self.tables.iter_mut().find(|table| table.config.name == config.name).ok_or_else(unknown)
    }

    /// What is to be read: all of a table, or what is new.
    async fn reading(&mut self, read: &Read<'_>) -> Result<Reading, Failure> {
        let is_new_only = read.since.is_some();
        if is_new_only && self.fresh().next().is_none() {
            let held_up = self.held_up();
            let waits =
                if held_up.is_empty() { vec![format!("table {}: there is no new file", read.table.name)] } else { held_up };
            return Err(self.looking.waits(&waits));
        }
        let looking = self.looking.clone();
        let header = self.header(read.table).await?;
        let table = self.table(read.table)?;
        let merges = table.config.each_file == EachFile::Merges;
        if merges && !is_new_only && table.archived.is_none() {
            let (wanted, looking) = (table.wanted.clone(), looking.clone());
            let archived = blocking(move || looking.folder().archived(&looking.archive, &wanted, false)).await?;
            table.archived = Some(archived);
        }
        let before = if is_new_only { None } else { table.archived.as_ref() };
        let found = before.into_iter().flatten().chain(&table.fresh).cloned().collect();
        Ok(table.reading(&looking, header, read.columns.to_vec(), found))
    }

    async fn header(&mut self, config: &TableConfig) -> Result<Vec<String>, Failure> {
        let looking = self.looking.clone();
        let table = self.table(config)?;
        if let Some(header) = &table.header {
            return Ok(header.clone());
        }
        let found = if table.fresh.is_empty() { table.last.iter().cloned().collect() } else { table.fresh.clone() };
        let reading = table.reading(&looking, Vec::new(), Vec::new(), found);
        let header = blocking(move || reading.find_header()).await?;
        Ok(table.header.insert(header).clone())
    }
}

impl OneTable {
    fn reading(
        &self,
        looking: &Looking,
        header: Vec<String>,
        columns: Vec<towpath_transfer::manifest::Column>,
        found: Vec<Found>,
    ) -> Reading {
        let (files, cancel) = (Arc::clone(&looking.files), looking.cancel.clone());
        Reading { files, cancel, table: self.config.clone(), header, columns, found }
    }
}

#[async_trait]
impl SourceSnapshot for FilesSnapshot {
    fn snapshot(&self) -> Snapshot {
        let (mut count, mut bytes) = (0_u64, 0_u64);
        let mut listed = Sha256Hasher::new();
        for found in self.fresh() {
            count += 1;
            bytes += found.len;
            listed.update(format!("{}\0{}\0{:?}\n", found.name, found.len, found.modified).as_bytes());
        }
        Snapshot {
            id: format!("{count} files of {bytes} bytes at {}, their list {}", self.at, listed.finish()),
            isolation: "files as they lie".to_owned(),
            // Several files were written one after the other, and nothing says whether the ERP has changed in between.
            consistent: count <= 1,
        }
    }

    fn warnings(&self) -> Vec<String> {
        let held_up = |files| format!("{files}; it is not sent, and neither is what comes after it");
        let mut warnings: Vec<String> = self.held_up().into_iter().map(held_up).collect();
        if self.tables.len() > 1 {
            let said = "the tables are files that the ERP has written one after the other: only the ERP knows whether they fit each \
                        other";
            warnings.push(said.to_owned());
        }
        warnings
    }

    async fn columns(&mut self, table: &TableConfig) -> Result<Vec<SourceColumn>, Failure> {
        formats_are_right(table)?;
        let header = self.header(table).await?;
        let column = |name: String| SourceColumn {
            sql_type: table.types.get(&name).copied().unwrap_or(SqlType::Text),
            nullable: !table.key.contains(&name),
            name,
        };
        Ok(header.into_iter().map(column).collect())
    }

    async fn rows(&mut self, read: &Read<'_>, sink: &mut RowSink) -> Result<(), Failure> {
        let reading = self.reading(read).await?;
        let (to, mut batches) = mpsc::channel(BATCHES_AHEAD);
        let thread = tokio::task::spawn_blocking(move || reading.rows(&to));
        while let Some(batch) = batches.recv().await {
            let mut values = batch.values();
            while values.size_hint().0 > 0 {
                values.by_ref().take(read.columns.len()).for_each(|value| sink.push(value));
                sink.end_row().await?;
            }
        }
        let ended = thread.await.map_err(|error| Failure::park(Code::Internal, "reading files failed").caused_by(error))?;
        self.table(read.table)?.digests = ended?;
        Ok(())
    }

    async fn totals(&mut self, read: &Read<'_>) -> Result<TableTotals, Failure> {
        let reading = self.reading(read).await?;
        let before = self.table(read.table)?.digests.clone();
        blocking(move || reading.totals(&before)).await
    }

    fn taken(&self) -> Option<Taken> {
        let mut files = Vec::new();
        for table in &self.tables {
            for found in &table.fresh {
                if let Some((name, len, modified)) = found.marker.clone() {
                    // Before its file: a marker that stays would say of the next file of this name that it is whole.
                    files.push(TakenFile { name, len, modified, sha256: None });
                }
                let digest = table.digests.iter().find(|(path, _)| *path == found.path).map(|(_, digest)| *digest)?;
                files.push(TakenFile {
                    name: found.name.clone(),
                    len: found.len,
                    modified: found.modified,
                    sha256: Some(digest),
                });
            }
        }
        let (folder, archive) = (self.looking.config.folder.clone(), self.looking.archive.clone());
        // Their order in the archive is that of their names, also after the clock was put back.
        let last = self.tables.iter().filter_map(|table| taken::archived_at(&table.last.as_ref()?.path)).max();
        let after = last.and_then(|last| last.checked_add(Duration::from_secs(1)).ok());
        Some(Taken { folder, archive, at: after.map_or(self.at, |after| after.max(self.at)), files })
    }
}

/// Timestamps with and without offset cannot be read by one format.
fn formats_are_right(table: &TableConfig) -> Result<(), Failure> {
    let has_offset = CsvConfig::has_offset(&table.csv);
    for (column, sql_type) in &table.types {
        let needs = match sql_type {
            SqlType::TimestampTz if !has_offset => "needs an offset (%z or %:z)",
            SqlType::Timestamp if has_offset => "has no place for the offset",
            _ => continue,
        };
        let format = &table.csv.timestamp;
        let why = format!("table {}: column {column} is a {sql_type}, which {needs} of the format {format:?}", table.name);
        return Err(Failure::park(Code::ConfigInvalid, why));
    }
    Ok(())
}
