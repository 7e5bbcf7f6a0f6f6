//! One table: its rows on their way to the writer, its totals, and what becomes of the files.

use std::{num::NonZeroUsize, sync::Arc};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towpath_keys::PseudonymKey;
use towpath_transfer::{
    Code, Failure, FileName,
    manifest::{Content, Drift, FileEntry, Table, Watermark},
    packed::{PackedFile, packed_name},
};

use super::{
    ExtractEvent, ExtractParts, ExtractRequest, Form,
    columns::Columns,
    course::Course,
    folder::{Place, blocking, joined, keys_name},
    source::{Read, RowSink, SourceSnapshot, TableTotals},
    totals, unless_cancelled,
    watermark::Tracker,
    writer::{WriteTable, Written, cells},
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
    /// The key of the pseudonyms, where a table has any.
    pub(super) pseudonyms: Option<PseudonymKey>,
    /// When the extract began.
    pub(super) now: Timestamp,
}

/// A table before its rows are read.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    pub(super) table: &'a TableConfig,
    pub(super) name: FileName,
    pub(super) columns: Columns,
    pub(super) drift: Vec<Drift>,
    pub(super) course: Course,
}

/// What became of one file.
pub(super) type Extract = (FileEntry, Option<PackedFile>);

impl Run<'_> {
    /// Extracts one table, and its keys where it is time for them. Afterwards each file is whole under its name, or there is none.
    pub(super) async fn table(&self, snapshot: &mut dyn SourceSnapshot, plan: &Planned<'_>) -> Result<Vec<Extract>, Failure> {
        let table = &plan.table.name;
        self.tell(ExtractEvent::TableStarted { table: table.clone() }).await?;
        let tracker = Tracker::new(&plan.columns.sent, &plan.columns.watermark, &plan.course.through, self.now);
        let (written, place) = self.file(snapshot, plan, &plan.name, &plan.columns, Some(tracker)).await?;
        let entry = self.entry(plan, &written);
        let packed = self.keep(&entry, place, &written).await?;
        let event = ExtractEvent::TableFinished {
            table: table.clone(),
            rows: written.totals.rows,
            bytes: written.digests.size,
            packed: packed.as_ref().map_or(0, |file| file.size),
            unchanged: entry.unchanged,
        };
        self.tell(event).await?;
        let mut extracts = vec![(entry, packed)];
        if plan.course.keys {
            extracts.push(self.keys(snapshot, plan).await?);
        }
        Ok(extracts)
    }

    /// All keys that the table has at the ERP.
    async fn keys(&self, snapshot: &mut dyn SourceSnapshot, plan: &Planned<'_>) -> Result<Extract, Failure> {
        let name = keys_name(&plan.name, plan.table)?;
        let columns = plan.columns.keys();
        let (written, place) = self.file(snapshot, plan, &name, &columns, None).await?;
        let content = Content::Keys(self.content(plan, &columns, &written));
        let entry = file_entry(name, &written, content);
        let packed = self.keep(&entry, place, &written).await?;
        Ok((entry, packed))
    }

    /// Writes one file under its temporary name, and compares it with what the database says. With a tracker it is the table, which
    /// is read from its watermark on and shows its progress; without one the keys, of which all are read.
    async fn file(
        &self,
        snapshot: &mut dyn SourceSnapshot,
        plan: &Planned<'_>,
        name: &FileName,
        columns: &Columns,
        tracker: Option<Tracker>,
    ) -> Result<(Written, Place), Failure> {
        let file_name = match self.request.form {
            Form::Packed => packed_name(name).map_err(|e| Failure::park(Code::ConfigInvalid, e.to_string()))?,
            Form::Plain => name.clone(),
        };
        let place = Place::new(&self.request.folder, file_name, &self.parts.attempts);
        let since = plan.course.since.as_ref().filter(|_| tracker.is_some());
        let rows = Read { table: plan.table, columns: &columns.read, all: columns.all, since };
        // What becomes a pseudonym is counted and never summed.
        let counted = Read { columns: &columns.sent, ..rows };
        let writing = WriteTable {
            files: Arc::clone(&self.parts.files),
            place: place.clone(),
            form: self.request.form,
            workers: NonZeroUsize::new(self.parts.workers).unwrap_or(NonZeroUsize::MIN),
            table: plan.table.name.clone(),
            cells: cells(columns, self.pseudonyms.as_ref())?,
            nul: plan.table.nul,
            events: tracker.is_some().then(|| self.events.clone()),
            tracker,
        };
        let (written, database) = self.write(snapshot, writing, &rows, &counted).await?;
        if let Err(mismatch) = totals::compare(&plan.table.name, &columns.sent, &written.totals, &database) {
            self.discard(place).await?;
            return Err(mismatch);
        }
        Ok((written, place))
    }

    /// Reads and writes at once, and asks the database for its totals while the last rows are being packed.
    async fn write(
        &self,
        snapshot: &mut dyn SourceSnapshot,
        writing: WriteTable,
        rows: &Read<'_>,
        counted: &Read<'_>,
    ) -> Result<(Written, TableTotals), Failure> {
        let (mut sink, feed) = RowSink::new(rows.columns.len());
        let place = writing.place.clone();
        let writer = tokio::task::spawn_blocking(move || writing.run(feed));
        let reading = unless_cancelled(self.cancel, async {
            snapshot.rows(rows, &mut sink).await?;
            sink.finish().await?;
            snapshot.totals(counted).await
        });
        // A database quotes values in its errors, and of these tables none may be told.
        let hidden = |failure: Failure| if rows.table.pseudonymise.is_empty() { failure } else { failure.without_cause() };
        let read = reading.await.map_err(hidden);
        // Now the sink is gone: a writer that has not seen the end of the table gives it up.
        let written = joined(writer).await;
        match (read, written) {
            (Ok(database), Ok(written)) => Ok((written, database)),
            // Each side ends when the other does; only one of them knows why.
            (Ok(_), Err(failure)) => Err(failure),
            (Err(failure), Err(other)) if failure.code() == Code::Cancelled && !self.cancel.is_cancelled() => Err(other),
            (Err(failure), Err(_)) => Err(failure),
            (Err(failure), Ok(_)) => {
                self.discard(place).await?;
                Err(failure)
            }
        }
    }

    /// What the manifest says of a file's rows.
    fn content(&self, plan: &Planned<'_>, columns: &Columns, written: &Written) -> Table {
        let control = totals::control_totals(&columns.sent, &written.totals);
        let whole = Table::whole(plan.table.name.clone(), columns.sent.clone(), written.totals.rows, control);
        let fingerprint = self.pseudonyms.as_ref().map(PseudonymKey::fingerprint);
        Table {
            key: columns.key.clone(),
            pseudonym_key: fingerprint.filter(|_| !columns.pseudonymised.is_empty()),
            pseudonymised: columns.pseudonymised.clone(),
            nul_replaced: written.nul_replaced,
            ..whole
        }
    }

    fn entry(&self, plan: &Planned<'_>, written: &Written) -> FileEntry {
        let (columns, course) = (&plan.columns, &plan.course);
        let after = course.since.iter().flat_map(|since| &since.0).map(|value| value.value.clone()).collect();
        let watermark = || Watermark { columns: columns.watermark.clone(), after, through: written.through.clone() };
        let content = Table {
            mode: course.mode,
            watermark: (!columns.watermark.is_empty()).then(watermark),
            compared: course.compared,
            drift: plan.drift.clone(),
            ..self.content(plan, columns, written)
        };
        let same = course.same_as.filter(|(_, sha256)| *sha256 == written.digests.sha256).map(|(transfer, _)| transfer);
        FileEntry {
            unchanged: same.is_some(),
            base: same.or(course.base),
            ..file_entry(plan.name.clone(), written, Content::Table(content))
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

/// A file whose bytes travel and that builds on nothing.
fn file_entry(name: FileName, written: &Written, content: Content) -> FileEntry {
    FileEntry {
        name,
        media_type: MEDIA_TYPE.to_owned(),
        size: written.digests.size,
        md5: written.digests.md5,
        sha256: written.digests.sha256,
        unchanged: false,
        base: None,
        content,
    }
}
