//! One table: its columns, its rows on their way to the writer, its totals, and what becomes of the file.

use std::{collections::HashSet, num::NonZeroUsize, sync::Arc};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{
    Code, Failure, FileName,
    manifest::{Column, Content, FileEntry, MAX_COLUMNS, Manifest, Table},
    packed::{PackedFile, packed_name},
};

use super::{
    ExtractEvent, ExtractParts, ExtractRequest, Form,
    folder::{Place, blocking, joined},
    source::{Read, RowSink, SourceColumn, SourceSnapshot, TableTotals},
    totals, unless_cancelled,
    writer::{WriteTable, Written},
};
use crate::config::TableConfig;

/// RFC 4180.
const MEDIA_TYPE: &str = "text/csv";

/// What all tables of one extract share.
pub(super) struct Run<'a> {
    pub(super) parts: &'a ExtractParts,
    pub(super) request: &'a ExtractRequest,
    pub(super) events: &'a mpsc::Sender<ExtractEvent>,
    pub(super) cancel: &'a CancellationToken,
}

impl Run<'_> {
    /// Extracts one table. Afterwards its file is whole under its name, or there is none.
    pub(super) async fn table(
        &self,
        snapshot: &mut dyn SourceSnapshot,
        table: &TableConfig,
        name: FileName,
    ) -> Result<(FileEntry, Option<PackedFile>), Failure> {
        let columns = unless_cancelled(self.cancel, snapshot.columns(table)).await?;
        let columns = wire_columns(table, columns)?;
        self.tell(ExtractEvent::TableStarted { table: table.name.clone() }).await?;
        let file_name = match self.request.form {
            Form::Packed => packed_name(&name).map_err(|e| Failure::park(Code::ConfigInvalid, e.to_string()))?,
            Form::Plain => name.clone(),
        };
        let place = Place::new(&self.request.folder, file_name);
        let (written, database) = self.write(snapshot, table, &columns, &place).await?;
        if let Err(mismatch) = totals::compare(&table.name, &columns, &written.totals, &database) {
            self.discard(place).await?;
            return Err(mismatch);
        }
        let entry = self.entry(table, name, columns, &written);
        let packed = self.keep(&entry, place, &written).await?;
        let event = ExtractEvent::TableFinished {
            table: table.name.clone(),
            rows: written.totals.rows,
            bytes: written.digests.size,
            packed: packed.as_ref().map_or(0, |file| file.size),
            unchanged: entry.unchanged,
        };
        self.tell(event).await?;
        Ok((entry, packed))
    }

    /// Reads and writes at once, and asks the database for its totals while the last rows are being packed.
    async fn write(
        &self,
        snapshot: &mut dyn SourceSnapshot,
        table: &TableConfig,
        columns: &[Column],
        place: &Place,
    ) -> Result<(Written, TableTotals), Failure> {
        let (mut sink, feed) = RowSink::new(columns.len());
        let writing = WriteTable {
            files: Arc::clone(&self.parts.files),
            place: place.clone(),
            form: self.request.form,
            workers: NonZeroUsize::new(self.parts.workers).unwrap_or(NonZeroUsize::MIN),
            table: table.name.clone(),
            columns: columns.to_vec(),
            events: self.events.clone(),
        };
        let writer = tokio::task::spawn_blocking(move || writing.run(feed));
        let reading = unless_cancelled(self.cancel, async {
            let read = Read { table, columns, all: true, since: None };
            snapshot.rows(&read, &mut sink).await?;
            sink.finish().await?;
            snapshot.totals(&read).await
        });
        let read = reading.await;
        // Now the sink is gone: a writer that has not seen the end of the table gives it up.
        let written = joined(writer).await;
        match (read, written) {
            (Ok(database), Ok(written)) => Ok((written, database)),
            // Each side ends when the other does; only one of them knows why.
            (Ok(_), Err(failure)) => Err(failure),
            (Err(failure), Err(other)) if failure.code() == Code::Cancelled && !self.cancel.is_cancelled() => Err(other),
            (Err(failure), Err(_)) => Err(failure),
            (Err(failure), Ok(_)) => {
                self.discard(place.clone()).await?;
                Err(failure)
            }
        }
    }

    fn entry(&self, table: &TableConfig, name: FileName, columns: Vec<Column>, written: &Written) -> FileEntry {
        let control = totals::control_totals(&columns, &written.totals);
        let content = Table::whole(table.name.clone(), columns, written.totals.rows, control);
        let same = |previous: &&Manifest| {
            let before = previous.files.iter().find(|file| file.table().is_some_and(|t| t.table == content.table));
            let is_same = |before: &FileEntry| {
                let table = before.table();
                before.sha256 == written.digests.sha256
                    && table.is_some_and(|t| t.columns == content.columns && t.dialect == content.dialect)
            };
            before.is_some_and(is_same)
        };
        let base = self.request.previous.as_ref().filter(same).map(|previous| previous.transfer);
        FileEntry {
            name,
            media_type: MEDIA_TYPE.to_owned(),
            size: written.digests.size,
            md5: written.digests.md5,
            sha256: written.digests.sha256,
            unchanged: base.is_some(),
            base,
            content: Content::Table(content),
        }
    }

    /// Gives the file its name and tells of it, or removes it where the receiver has the same already.
    async fn keep(&self, entry: &FileEntry, place: Place, written: &Written) -> Result<Option<PackedFile>, Failure> {
        if entry.unchanged {
            self.discard(place).await?;
            return Ok(None);
        }
        let name = place.name.clone();
        let files = Arc::clone(&self.parts.files);
        blocking(move || place.publish(files.as_ref()).inspect_err(|_| place.discard(files.as_ref()))).await?;
        let Some(digests) = written.packed else { return Ok(None) };
        let packed = PackedFile { name, size: digests.size, sha256: digests.sha256 };
        self.tell(ExtractEvent::FileFinished(packed.clone())).await?;
        Ok(Some(packed))
    }

    async fn discard(&self, place: Place) -> Result<(), Failure> {
        let files = Arc::clone(&self.parts.files);
        blocking(move || {
            place.discard(files.as_ref());
            Ok(())
        })
        .await
    }

    async fn tell(&self, event: ExtractEvent) -> Result<(), Failure> {
        unless_cancelled(self.cancel, async {
            // Nobody has to listen.
            drop(self.events.send(event).await);
            Ok(())
        })
        .await
    }
}

/// The columns as the manifest has them: the source's, with the types that the configuration says.
pub(super) fn wire_columns(table: &TableConfig, columns: Vec<SourceColumn>) -> Result<Vec<Column>, Failure> {
    let refused = |code, why: String| Failure::park(code, format!("table {}: {why}", table.name));
    if columns.is_empty() || columns.len() > MAX_COLUMNS {
        let why = format!("it has {} columns; a table has 1 to {MAX_COLUMNS}", columns.len());
        return Err(refused(Code::LimitExceeded, why));
    }
    if let Some(unknown) = table.types.keys().find(|name| columns.iter().all(|column| column.name != **name)) {
        return Err(refused(Code::ConfigInvalid, format!("`types` names the column {unknown}, which it does not have")));
    }
    let mut seen = HashSet::new();
    columns
        .into_iter()
        .map(|column| {
            let why = |why| refused(Code::ErpQuery, format!("column {:?}: {why}; give it another name in a query", column.name));
            if !seen.insert(column.name.to_lowercase()) {
                return Err(why("another column has the same name".to_owned()));
            }
            let name = column.name.parse().map_err(|error: towpath_transfer::manifest::InvalidLabel| why(error.to_string()))?;
            let sql_type = table.types.get(&column.name).copied().unwrap_or(column.sql_type);
            Ok(Column { name, sql_type, nullable: column.nullable })
        })
        .collect()
}
