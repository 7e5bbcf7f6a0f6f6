//! Reads the files of one table, on a thread that may block.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{
    Code, Failure,
    digest::Sha256Digest,
    manifest::{Column, Label, SqlType},
};
use towpath_transport::files::{FileKind, FileStore};

use super::{
    cancelled,
    decode::Text,
    find::Found,
    records::{Marks, Place, Record, Records},
    second::Second,
    values::{Converter, shown},
};
use crate::{
    config::TableConfig,
    extract::source::{RowBatch, TableTotals},
};

/// Records between two looks at whether the extract was cancelled.
const RECORDS_BETWEEN_LOOKS: u64 = 1_024;

/// Files that are read one after the other as one table.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) files: Arc<dyn FileStore>,
    pub(super) cancel: CancellationToken,
    pub(super) table: TableConfig,
    /// The names of all fields, in the order of the files.
    pub(super) header: Vec<String>,
    /// The columns that are wanted.
    pub(super) columns: Vec<Column>,
    pub(super) found: Vec<Found>,
}

/// Paths and digests of what was read.
pub(super) type Digests = Vec<(PathBuf, Sha256Digest)>;

impl Reading {
    /// The names of the fields: the configured ones, else the first record of the files, which must be the same in all of them.
    pub(super) fn find_header(&self) -> Result<Vec<String>, Failure> {
        let csv = &self.table.csv;
        if !csv.header {
            return Ok(csv.columns.clone());
        }
        let mut first: Option<(&Found, Vec<String>)> = None;
        for found in &self.found {
            self.go_on()?;
            let mut records = self.records(found)?;
            let names = self.first_record(&mut records, found)?;
            match &first {
                Some((before, header)) if *header != names => return Err(self.other_columns(found, &names, before, header)),
                Some(_) => {}
                None => first = Some((found, names)),
            }
        }
        let names = first.map(|(_, names)| names).unwrap_or_default();
        if csv.columns.is_empty() {
            return Ok(names);
        }
        if csv.columns.len() == names.len() {
            return Ok(csv.columns.clone());
        }
        let (table, there, said) = (&self.table.name, names.len(), csv.columns.len());
        let why = format!("table {table}: its files have {there} columns, and the configuration names {said}");
        Err(Failure::park(Code::ErpQuery, why))
    }

    /// Every row, many at a time. Ends early where nobody takes them.
    ///
    /// # Errors
    /// `erp-value` with file, line and column; `erp-locked` (retry) where a file has changed since it was found; `limit-exceeded`;
    /// `erp-missing` where a file cannot be read.
    pub(super) fn rows(&self, to: &mpsc::Sender<RowBatch>) -> Result<Digests, Failure> {
        let wanted = self.wanted()?;
        let mut converters: Vec<(usize, &Column, Converter<'_>)> =
            wanted.iter().map(|(column, at)| (*at, *column, Converter::new(&self.table, column))).collect();
        let mut batch = RowBatch::default();
        let mut digests = Digests::with_capacity(self.found.len());
        for found in &self.found {
            let mut records = self.records(found)?;
            let names = self.table.csv.header.then(|| self.first_record(&mut records, found)).transpose()?;
            self.same_header(names, found)?;
            self.file_rows(&mut records, found, &mut converters, &mut batch, to)?;
            digests.push((found.path.clone(), self.same_file(records.finish(), found)?));
        }
        to.blocking_send(batch).map_err(|_| cancelled())?;
        Ok(digests)
    }

    /// Rows, values and sums by the other way of reading.
    ///
    /// # Errors
    /// As [`Reading::rows`]; `erp-locked` where the bytes are others than `before` says.
    pub(super) fn totals(&self, before: &[(PathBuf, Sha256Digest)]) -> Result<TableTotals, Failure> {
        let own = |(column, at)| (column, at, own_type(&self.table, column));
        let own = self.wanted()?.into_iter().map(own).collect();
        let mut second = Second::new(&self.table.csv, own);
        for found in &self.found {
            let place = self.place(found);
            let read = second.add(self.open(found)?, &place, self.header.len(), &|| self.go_on())?;
            let digest = self.same_file(read, found)?;
            if before.iter().any(|(path, known)| *path == found.path && *known != digest) {
                return Err(place.changed("its bytes are others"));
            }
        }
        Ok(second.finish())
    }

    fn file_rows(
        &self,
        records: &mut Records,
        found: &Found,
        converters: &mut [(usize, &Column, Converter<'_>)],
        batch: &mut RowBatch,
        to: &mpsc::Sender<RowBatch>,
    ) -> Result<(), Failure> {
        let (place, width) = (self.place(found), self.header.len());
        let mut record = Record::default();
        let mut blank = None;
        let mut read: u64 = 0;
        while records.read(&mut record)? {
            read += 1;
            if read.is_multiple_of(RECORDS_BETWEEN_LOOKS) {
                self.go_on()?;
            }
            if width > 1 && record.is_blank() {
                blank.get_or_insert(record.line);
                continue;
            }
            if let Some(line) = blank {
                return Err(place.wrong_line(line, "the line is empty, and others follow"));
            }
            if record.len() != width {
                let why = format!("there are {} fields; the table has {width} columns", record.len());
                return Err(place.wrong_line(record.line, &why));
            }
            for (at, column, converter) in converters.iter_mut() {
                let (text, quoted) = record.field(*at).unwrap_or_default();
                let value = converter.convert(text, quoted);
                batch.push(value.map_err(|why| place.wrong_value(record.line, column.name.as_str(), &why))?);
            }
            if batch.is_full() {
                to.blocking_send(std::mem::take(batch)).map_err(|_| cancelled())?;
            }
        }
        Ok(())
    }

    /// The wanted columns and which field each is.
    fn wanted(&self) -> Result<Vec<(&Column, usize)>, Failure> {
        let mut wanted = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let at = self.header.iter().position(|name| name == column.name.as_str());
            wanted.push((column, at.ok_or_else(|| self.no_column(column))?));
        }
        Ok(wanted)
    }

    fn no_column(&self, column: &Column) -> Failure {
        Failure::park(Code::Internal, format!("table {} has no column {}", self.table.name, column.name))
    }

    fn first_record(&self, records: &mut Records, found: &Found) -> Result<Vec<String>, Failure> {
        let mut record = Record::default();
        if records.read(&mut record)? {
            return Ok(record.texts());
        }
        Err(self.place(found).wrong_line(1, "the file is empty; its first line should name the columns"))
    }

    fn same_header(&self, names: Option<Vec<String>>, found: &Found) -> Result<(), Failure> {
        match names {
            Some(names) if self.table.csv.columns.is_empty() && names != self.header => {
                let (table, path) = (&self.table.name, found.path.display());
                let why = format!(
                    "table {table}: the columns of {path} are not those of the newest files; write them alike, or, where it lies in \
                     the archive and is not wanted any more, move it away"
                );
                Err(Failure::park(Code::ErpQuery, why))
            }
            _ => Ok(()),
        }
    }

    fn other_columns(&self, found: &Found, names: &[String], before: &Found, header: &[String]) -> Failure {
        let (table, one, other) = (&self.table.name, found.path.display(), before.path.display());
        let at = names.iter().zip(header).take_while(|(here, there)| here == there).count();
        let named = |names: &[String]| names.get(at).map_or_else(|| "no name".to_owned(), |name| shown(name));
        let (here, there) = (named(names), named(header));
        let why = format!(
            "table {table}: column {} of {one} is {here}, that of {other} is {there}; all files must have the same columns",
            at + 1
        );
        Failure::park(Code::ErpQuery, why)
    }

    fn records(&self, found: &Found) -> Result<Records, Failure> {
        Ok(Records::new(self.open(found)?, self.place(found), Marks::of(&self.table.csv)))
    }

    fn open(&self, found: &Found) -> Result<Text, Failure> {
        self.go_on()?;
        self.unchanged(found)?;
        let file = self.files.open(&found.path).map_err(|error| self.place(found).unread(error))?;
        Ok(Text::new(file, self.table.csv.encoding))
    }

    /// The file has still the length and the time with which it was found.
    fn unchanged(&self, found: &Found) -> Result<(), Failure> {
        let place = self.place(found);
        let stat = self.files.stat(&found.path).map_err(|error| place.unread(error))?;
        if (stat.kind, stat.modified) == (FileKind::File, found.modified) && stat.len == found.len {
            return Ok(());
        }
        Err(place.changed("its length or its time of change is another"))
    }

    fn same_file(&self, (digest, len): (Sha256Digest, u64), found: &Found) -> Result<Sha256Digest, Failure> {
        if len != found.len {
            return Err(self.place(found).changed(&format!("{len} bytes of {} were read", found.len)));
        }
        self.unchanged(found)?;
        Ok(digest)
    }

    fn place(&self, found: &Found) -> Place {
        Place { table: Label::clone(&self.table.name), file: found.path.display().to_string() }
    }

    fn go_on(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }
}

/// The type that a column has in the files, whatever becomes of its values.
pub(super) fn own_type(table: &TableConfig, column: &Column) -> SqlType {
    table.types.get(column.name.as_str()).copied().unwrap_or(SqlType::Text)
}
