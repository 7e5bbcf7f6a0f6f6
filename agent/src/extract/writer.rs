//! The writing half of a table: values become CSV, the CSV is hashed and packed, and both lie on the disk.
//!
//! It runs on a thread of its own, since hashing and waiting for the disk block.

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    sync::Arc,
};

use tokio::sync::mpsc;
use towpath_transfer::{
    Code, Failure,
    codec::{CodecError, PackedDigests, Packer},
    csv,
    digest::{FileDigests, FileHasher},
    manifest::{Column, Label},
};
use towpath_transport::files::{FileStore, WriteFile, file_failure};

use super::{
    ExtractEvent, Form,
    folder::Place,
    source::{Feed, RowBatch, TableTotals},
    totals::Adder,
    value::{Refused, to_wire},
};

/// What is written, and to where.
pub(super) struct WriteTable {
    pub(super) files: Arc<dyn FileStore>,
    pub(super) place: Place,
    pub(super) form: Form,
    pub(super) workers: NonZeroUsize,
    pub(super) table: Label,
    pub(super) columns: Vec<Column>,
    pub(super) events: mpsc::Sender<ExtractEvent>,
}

/// A table that lies whole and synced under its temporary name.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) digests: FileDigests,
    pub(super) packed: Option<PackedDigests>,
    pub(super) totals: TableTotals,
}

impl WriteTable {
    /// Writes what comes out of `feed` until its end. On failure the temporary file is removed.
    pub(super) fn run(self, feed: mpsc::Receiver<Feed>) -> Result<Written, Failure> {
        let written = self.write(feed);
        if written.is_err() {
            self.place.discard(self.files.as_ref());
        }
        written
    }

    fn write(&self, mut feed: mpsc::Receiver<Feed>) -> Result<Written, Failure> {
        let temp = &self.place.temp;
        let tried = || format!("writing {} failed", self.place.path.display());
        let file = self.files.create(temp).map_err(|error| file_failure("creating", temp, error))?;
        let output = Output::new(file, self.form, self.workers).map_err(|error| error.into_failure(tried()))?;
        let mut csv = csv::Writer::new(Tee { hasher: FileHasher::new(), output });
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        csv.write_header(&names).map_err(|error| error.into_failure(tried()))?;
        let mut adders: Vec<Adder> = self.columns.iter().map(Adder::new).collect();
        let mut scratch = String::new();
        loop {
            match feed.blocking_recv() {
                Some(Feed::Rows(batch)) => self.batch(&batch, &mut csv, &mut adders, &mut scratch)?,
                Some(Feed::End) => break,
                None => return Err(Failure::retry(Code::Cancelled, "the table was given up")),
            }
            let progress = ExtractEvent::Rows { table: self.table.clone(), rows: csv.rows() };
            // Progress may be missed; whoever listens is asked to keep up with the other events only.
            drop(self.events.try_send(progress));
        }
        let rows = csv.rows();
        let Tee { hasher, output } = csv.finish().map_err(|error| error.into_failure(tried()))?;
        let (mut file, packed) = output.finish().map_err(|error| error.into_failure(tried()))?;
        file.sync_all().map_err(|error| file_failure("syncing", temp, error))?;
        let columns = adders.into_iter().map(Adder::finish).collect();
        Ok(Written { digests: hasher.finish(), packed, totals: TableTotals { rows, columns } })
    }

    fn batch(
        &self,
        batch: &RowBatch,
        csv: &mut csv::Writer<Tee>,
        adders: &mut [Adder],
        scratch: &mut String,
    ) -> Result<(), Failure> {
        let mut values = batch.values();
        while values.size_hint().0 > 0 {
            let row = csv.rows() + 1;
            // The columns end first, so that no value of the next row is taken.
            for ((column, adder), value) in self.columns.iter().zip(adders.iter_mut()).zip(values.by_ref()) {
                let refused = |why: &dyn std::error::Error| self.refused(column, row, why);
                match to_wire(value, column.sql_type, scratch).map_err(|why| refused(&why))? {
                    Some(text) => {
                        adder.add(text).map_err(|why| refused(&why))?;
                        csv.field(Some(text));
                    }
                    None if column.nullable => csv.field(None),
                    None => return Err(refused(&Refused::UnexpectedNull)),
                }
            }
            csv.end_row().map_err(|error| error.into_failure(format!("writing row {row} of table {} failed", self.table)))?;
        }
        Ok(())
    }

    fn refused(&self, column: &Column, row: u64, why: &dyn std::error::Error) -> Failure {
        Failure::park(Code::ErpValue, format!("table {}, column {}, row {row}: {why}", self.table, column.name))
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
