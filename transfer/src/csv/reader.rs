//! Reading, one record at a time.

use std::{
    fmt,
    io::{self, Read},
};

use super::{
    CsvError, Limits, Problem,
    scan::{Scan, Span, undouble},
};

/// The buffer for ordinary records, in bytes.
const BUFFER_BYTES: usize = 128 * 1024;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads the CSV of the wire from `R`, which needs no buffer of its own.
///
/// Holds one record at a time, which grows with the bytes that arrive up to [`Limits::record_bytes`]. After an error
/// there are no more rows.
pub struct Reader<R> {
    inner: R,
    limits: Limits,
    header: Vec<String>,
    buffer: Vec<u8>,
    /// The record being read begins here.
    start: usize,
    /// Bytes of the buffer that were read.
    end: usize,
    at_end: bool,
    scan: Scan,
    /// Where the spans of the last record end up after undoubling.
    spans: Vec<Span>,
    /// The physical line on which the next record begins.
    line: u64,
    /// Records read, with the header.
    records: u64,
    /// The file has ended, or an error has.
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header, with the default [`Limits`].
    ///
    /// # Errors
    /// [`CsvError`], also where there is no header, a column without a name or a byte order mark.
    pub fn new(inner: R) -> Result<Self, CsvError> {
        Self::with_limits(inner, Limits::default())
    }

    /// Reads the header, with limits of its own.
    ///
    /// # Errors
    /// As [`Reader::new`].
    pub fn with_limits(inner: R, limits: Limits) -> Result<Self, CsvError> {
        let mut reader = Self {
            inner,
            limits,
            header: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            at_end: false,
            scan: Scan::new(),
            spans: Vec::new(),
            line: 1,
            records: 0,
            ended: false,
        };
        let limit = limits.columns;
        let Some(row) = reader.read_record(limit, Problem::TooManyColumns { limit })? else {
            return Err(CsvError::Read { line: 1, record: 0, problem: Problem::NoHeader });
        };
        let mut header = Vec::with_capacity(row.len());
        for (name, column) in row.iter().zip(1..) {
            match name {
                Some(name) if !name.is_empty() => header.push(name.to_owned()),
                _ => return Err(CsvError::Read { line: 1, record: 0, problem: Problem::UnnamedColumn { column } }),
            }
        }
        reader.header = header;
        Ok(reader)
    }

    /// The names of the columns: at least one, none empty.
    #[must_use]
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// Rows read so far, without the header.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.records.saturating_sub(1)
    }

    /// The physical line, from 1, on which the next row begins.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The reader below. After the last row it was read to its end.
    #[must_use]
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next row, with as many fields as the header; `None` after the last.
    ///
    /// # Errors
    /// [`CsvError`] for the first thing that is not CSV of the wire.
    pub fn read_row(&mut self) -> Result<Option<Row<'_>>, CsvError> {
        let expected = self.header.len();
        self.read_record(expected, Problem::FieldCount { expected, found: expected + 1 })
    }

    fn read_record(&mut self, most: usize, too_many: Problem) -> Result<Option<Row<'_>>, CsvError> {
        if self.ended {
            return Ok(None);
        }
        // Only a whole record takes it back.
        self.ended = true;
        self.scan.reset();
        let Some(length) = self.find_record(most, too_many)? else { return Ok(None) };
        let start = self.start;
        self.start += length;
        self.records += 1;
        self.take_fields(start, length)?;
        let record = self.buffer.get(start..start + length).unwrap_or_default();
        let lines = if self.spans.iter().any(|span| span.quoted) { line_feeds(record) } else { 1 };
        let text = match std::str::from_utf8(record) {
            Ok(text) => text,
            Err(error) => {
                let line = self.line + line_feeds(record.get(..error.valid_up_to()).unwrap_or_default());
                return Err(CsvError::Read { line, record: self.records - 1, problem: Problem::NotUtf8 });
            }
        };
        self.line += lines;
        self.ended = false;
        Ok(Some(Row { text, fields: &self.spans }))
    }

    /// The length of the record at `start`; `None` at the end of the file.
    fn find_record(&mut self, most: usize, too_many: Problem) -> Result<Option<usize>, CsvError> {
        loop {
            let record = self.buffer.get(self.start..self.end).unwrap_or_default();
            let found = self.scan.advance(record, most, too_many);
            let limit = self.limits.record_bytes;
            match found {
                Ok(found) if found.unwrap_or(record.len()) > limit => return Err(self.problem(Problem::RecordTooLong { limit })),
                Ok(Some(length)) => return Ok(Some(length)),
                Ok(None) if self.at_end && record.is_empty() => return Ok(None),
                Ok(None) if self.at_end => return Err(self.problem(self.scan.at_end())),
                Ok(None) => self.fill()?,
                Err(problem) => return Err(self.problem(problem)),
            }
        }
    }

    /// Checks the fields of the record and takes out doubled quotes.
    fn take_fields(&mut self, start: usize, length: usize) -> Result<(), CsvError> {
        self.spans.clear();
        self.spans.extend_from_slice(self.scan.fields());
        let (expected, found) = (self.header.len(), self.spans.len());
        let record = self.buffer.get_mut(start..start + length).unwrap_or_default();
        let problem = if self.records == 1 && record.starts_with(BYTE_ORDER_MARK) {
            Some(Problem::ByteOrderMark)
        } else if self.records > 1 && found != expected {
            Some(Problem::FieldCount { expected, found })
        } else if self.spans.iter().any(|span| span.end - span.start - span.doubled > self.limits.field_bytes) {
            Some(Problem::FieldTooLong { limit: self.limits.field_bytes })
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(CsvError::Read { line: self.line, record: self.records - 1, problem });
        }
        for span in self.spans.iter_mut().filter(|span| span.doubled > 0) {
            let field = record.get_mut(span.start..span.end).unwrap_or_default();
            span.end = span.start + undouble(field);
        }
        Ok(())
    }

    /// Reads more behind the record that is not whole yet.
    fn fill(&mut self) -> Result<(), CsvError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            // What a huge record took is given back after it.
            if self.buffer.len() > BUFFER_BYTES && self.end < BUFFER_BYTES {
                self.buffer.truncate(BUFFER_BYTES);
                self.buffer.shrink_to_fit();
            }
        }
        if self.end == self.buffer.len() {
            let most = self.limits.record_bytes.saturating_add(BUFFER_BYTES);
            self.buffer.resize(self.buffer.len().saturating_mul(2).min(most), 0);
        }
        loop {
            match self.inner.read(self.buffer.get_mut(self.end..).unwrap_or_default()) {
                Ok(count) => {
                    self.at_end = count == 0;
                    self.end += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(CsvError::Io(error)),
            }
        }
    }

    /// A problem where the scan stopped.
    fn problem(&self, problem: Problem) -> CsvError {
        let scanned = self.buffer.get(self.start..self.start + self.scan.at()).unwrap_or_default();
        CsvError::Read { line: self.line + line_feeds(scanned), record: self.records, problem }
    }
}

fn line_feeds(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

impl<R> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("header", &self.header).field("line", &self.line).finish_non_exhaustive()
    }
}

/// One record; valid until the next is read.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    text: &'a str,
    fields: &'a [Span],
}

impl<'a> Row<'a> {
    /// How many fields there are: as many as columns.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Never: a record has at least one field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The field of that column, counted from 0; `None` where there is no such column, `Some(None)` for NULL.
    #[must_use]
    pub fn get(&self, column: usize) -> Option<Option<&'a str>> {
        self.fields.get(column).map(|span| self.value(*span))
    }

    /// The fields in order; `None` is NULL.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<&'a str>> + use<'a> {
        let row = *self;
        row.fields.iter().map(move |span| row.value(*span))
    }

    fn value(&self, span: Span) -> Option<&'a str> {
        if span.is_null() {
            return None;
        }
        // A span begins and ends beside an ASCII character, so it is always within the text.
        Some(self.text.get(span.start..span.end).unwrap_or_default())
    }
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
