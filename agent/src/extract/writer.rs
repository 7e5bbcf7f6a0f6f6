//! The writing half of a table: values become CSV, the CSV is hashed and packed, and both lie on the disk.
//!
//! It runs on a thread of its own, since hashing and waiting for the disk block.

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    sync::Arc,
};

use tokio::sync::mpsc;
use towpath_keys::PseudonymKey;
use towpath_transfer::{
    Code, Failure,
    codec::{CodecError, PackedDigests, Packer},
    csv,
    digest::{FileDigests, FileHasher},
    manifest::{Column, Label, SqlType},
};
use towpath_transport::files::{FileStore, WriteFile, file_failure};

use super::{
    ExtractEvent, Form,
    columns::Columns,
    folder::Place,
    source::{Feed, RowBatch, TableTotals, Value},
    totals::Adder,
    value::{Refused, nul_replaced, to_wire},
    watermark::Tracker,
};
use crate::config::NulPolicy;

/// What is written, and to where.
pub(super) struct WriteTable {
    pub(super) files: Arc<dyn FileStore>,
    pub(super) place: Place,
    pub(super) form: Form,
    pub(super) workers: NonZeroUsize,
    pub(super) table: Label,
    pub(super) cells: Vec<Cell>,
    pub(super) nul: NulPolicy,
    /// Who is told how far it is, if anybody.
    pub(super) events: Option<mpsc::Sender<ExtractEvent>>,
    /// Finds the greatest watermark, where that is wanted.
    pub(super) tracker: Option<Tracker>,
}

/// One column on its way from the value to the text.
#[derive(Debug)]
pub(super) struct Cell {
    /// As the manifest has it.
    column: Column,
    /// The type its values have at the ERP.
    read: SqlType,
    /// Makes pseudonyms of them.
    hidden: Option<PseudonymKey>,
    is_key: bool,
}

/// The cells of these columns.
///
/// # Errors
/// Where values are to become pseudonyms and there is no key.
pub(super) fn cells(columns: &Columns, pseudonyms: Option<&PseudonymKey>) -> Result<Vec<Cell>, Failure> {
    let cell = |(read, sent): (&Column, &Column)| {
        let hidden = if columns.pseudonymised.contains(&sent.name) {
            Some(pseudonyms.ok_or_else(|| Failure::park(Code::Internal, "pseudonyms without a key"))?.clone())
        } else {
            None
        };
        Ok(Cell { column: sent.clone(), read: read.sql_type, hidden, is_key: columns.key.contains(&sent.name) })
    };
    columns.read.iter().zip(&columns.sent).map(cell).collect()
}

/// What is filled anew for each value, and what is counted.
#[derive(Debug, Default)]
struct Scratch {
    text: String,
    pseudonym: String,
    nul_replaced: u64,
}

/// A table that lies whole and synced under its temporary name.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) digests: FileDigests,
    pub(super) packed: Option<PackedDigests>,
    pub(super) totals: TableTotals,
    /// The greatest watermark, of before and of these rows; empty where there is none.
    pub(super) through: Vec<String>,
    /// Texts in which NUL characters were replaced.
    pub(super) nul_replaced: u64,
}

impl WriteTable {
    /// Writes what comes out of `feed` until its end. On failure the temporary file is removed.
    pub(super) fn run(mut self, feed: mpsc::Receiver<Feed>) -> Result<Written, Failure> {
        let written = self.write(feed);
        if written.is_err() {
            self.place.discard(self.files.as_ref());
        }
        written
    }

    fn write(&mut self, mut feed: mpsc::Receiver<Feed>) -> Result<Written, Failure> {
        let temp = &self.place.temp;
        let path = self.place.path.display().to_string();
        let tried = || format!("writing {path} failed");
        let file = self.files.create(temp).map_err(|error| file_failure("creating", temp, error))?;
        let output = Output::new(file, self.form, self.workers).map_err(|error| error.into_failure(tried()))?;
        let mut csv = csv::Writer::new(Tee { hasher: FileHasher::new(), output });
        let names: Vec<&str> = self.cells.iter().map(|cell| cell.column.name.as_str()).collect();
        csv.write_header(&names).map_err(|error| error.into_failure(tried()))?;
        let mut adders: Vec<Adder> = self.cells.iter().map(|cell| Adder::new(&cell.column)).collect();
        let mut scratch = Scratch::default();
        let mut tracker = self.tracker.take();
        loop {
            match feed.blocking_recv() {
                Some(Feed::Rows(batch)) => self.batch(&batch, &mut csv, &mut adders, &mut tracker, &mut scratch)?,
                Some(Feed::End) => break,
                None => return Err(Failure::retry(Code::Cancelled, "the table was given up")),
            }
            if let Some(events) = &self.events {
                // Progress may be missed; whoever listens is asked to keep up with the other events only.
                drop(events.try_send(ExtractEvent::Rows { table: self.table.clone(), rows: csv.rows() }));
            }
        }
        let rows = csv.rows();
        let Tee { hasher, output } = csv.finish().map_err(|error| error.into_failure(tried()))?;
        let (mut file, packed) = output.finish().map_err(|error| error.into_failure(tried()))?;
        file.sync_all().map_err(|error| file_failure("syncing", temp, error))?;
        let columns = adders.into_iter().map(Adder::finish).collect();
        Ok(Written {
            digests: hasher.finish(),
            packed,
            totals: TableTotals { rows, columns },
            through: tracker.map(Tracker::finish).unwrap_or_default(),
            nul_replaced: scratch.nul_replaced,
        })
    }

    fn batch(
        &self,
        batch: &RowBatch,
        csv: &mut csv::Writer<Tee>,
        adders: &mut [Adder],
        tracker: &mut Option<Tracker>,
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let mut values = batch.values();
        while values.size_hint().0 > 0 {
            let row = csv.rows() + 1;
            // The cells end first, so that no value of the next row is taken.
            for (at, ((cell, adder), value)) in self.cells.iter().zip(adders.iter_mut()).zip(values.by_ref()).enumerate() {
                let refused = |why: &dyn std::error::Error| self.refused(&cell.column, row, why);
                match cell.wire(value, self.nul, scratch).map_err(|why| refused(&why))? {
                    Some(text) => {
                        adder.add(text).map_err(|why| refused(&why))?;
                        csv.field(Some(text));
                        if let Some(tracker) = tracker.as_mut() {
                            tracker.value(at, text);
                        }
                    }
                    None if cell.column.nullable => csv.field(None),
                    None if cell.is_key => return Err(refused(&Refused::NullInKey)),
                    None => return Err(refused(&Refused::UnexpectedNull)),
                }
            }
            csv.end_row().map_err(|error| error.into_failure(format!("writing row {row} of table {} failed", self.table)))?;
            if let Some(tracker) = tracker.as_mut() {
                tracker.end_row();
            }
        }
        Ok(())
    }

    fn refused(&self, column: &Column, row: u64, why: &dyn std::error::Error) -> Failure {
        Failure::park(Code::ErpValue, format!("table {}, column {}, row {row}: {why}", self.table, column.name))
    }
}

impl Cell {
    /// The text that travels; `None` for NULL. Of a value that becomes a pseudonym nothing is told but its type.
    fn wire<'a>(&self, value: Value<'a>, nul: NulPolicy, scratch: &'a mut Scratch) -> Result<Option<&'a str>, Refused> {
        let plain = match value {
            Value::Text(bytes) if nul == NulPolicy::Replace && self.read == SqlType::Text && bytes.contains(&0) => {
                scratch.nul_replaced += 1;
                nul_replaced(bytes, &mut scratch.text).map(Some)
            }
            value => to_wire(value, self.read, &mut scratch.text),
        };
        let Some(key) = &self.hidden else { return plain };
        let Some(plain) = plain.map_err(Refused::without_value)? else { return Ok(None) };
        scratch.pseudonym.clear();
        key.push_pseudonym(plain, &mut scratch.pseudonym);
        Ok(Some(&scratch.pseudonym))
    }
}

/// Hashes what it passes on.
struct Tee {
    hasher: FileHasher,
    output: Output,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Where the CSV goes.
enum Output {
    Packed(Box<Packer<Box<dyn WriteFile>>>),
    Plain(Box<dyn WriteFile>),
}

impl Output {
    fn new(file: Box<dyn WriteFile>, form: Form, workers: NonZeroUsize) -> Result<Self, CodecError> {
        Ok(match form {
            Form::Packed => Self::Packed(Box::new(Packer::new(file, workers)?)),
            Form::Plain => Self::Plain(file),
        })
    }

    fn finish(self) -> Result<(Box<dyn WriteFile>, Option<PackedDigests>), CodecError> {
        Ok(match self {
            Self::Packed(packer) => {
                let (file, digests) = packer.finish()?;
                (file, Some(digests))
            }
            Self::Plain(file) => (file, None),
        })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Packed(packer) => packer.write(bytes),
            Self::Plain(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Packed(packer) => packer.flush(),
            Self::Plain(file) => file.flush(),
        }
    }
}
