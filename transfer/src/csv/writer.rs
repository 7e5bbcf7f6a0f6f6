//! Writing, without an allocation per row.

use std::{fmt, io::Write};

use super::{CsvError, Limits, Problem};

/// Rows are collected to this many bytes before they are written.
const BUFFER_BYTES: usize = 64 * 1024;

/// Writes the CSV of the wire to `W`: the header first, then rows, then [`Writer::finish`].
///
/// A row that cannot be written leaves no bytes behind, so the next can follow. After an error of `W` there is no going
/// on. Without [`Writer::finish`] the last rows are lost.
pub struct Writer<W: Write> {
    inner: W,
    limits: Limits,
    columns: usize,
    buffer: Vec<u8>,
    /// Where the row being written begins in the buffer.
    row_start: usize,
    fields: usize,
    /// What is wrong with the row being written; told at its end.
    problem: Option<Problem>,
    rows: u64,
    failed: bool,
}

impl<W: Write> Writer<W> {
    /// A writer with the default [`Limits`].
    pub fn new(inner: W) -> Self {
        Self::with_limits(inner, Limits::default())
    }

    /// A writer with limits of its own.
    pub fn with_limits(inner: W, limits: Limits) -> Self {
        let buffer = Vec::with_capacity(2 * BUFFER_BYTES);
        Self { inner, limits, columns: 0, buffer, row_start: 0, fields: 0, problem: None, rows: 0, failed: false }
    }

    /// Writes the names of the columns.
    ///
    /// # Errors
    /// [`CsvError::Write`] for no columns, too many, one without a name, or a second header.
    pub fn write_header(&mut self, names: &[&str]) -> Result<(), CsvError> {
        let limit = self.limits.columns;
        let problem = if self.columns > 0 {
            Some(Problem::SecondHeader)
        } else if names.is_empty() {
            Some(Problem::NoColumns)
        } else if names.len() > limit {
            Some(Problem::TooManyColumns { limit })
        } else {
            let unnamed = names.iter().position(|name| name.is_empty());
            unnamed.map(|at| Problem::UnnamedColumn { column: at + 1 })
        };
        if let Some(problem) = problem {
            return Err(CsvError::Write { record: 0, problem });
        }
        self.columns = names.len();
        for name in names {
            self.field(Some(name));
        }
        if let Err(error) = self.end_record(0) {
            self.columns = 0;
            return Err(error);
        }
        Ok(())
    }

    /// Writes one row; `None` is NULL.
    ///
    /// # Errors
    /// [`CsvError::Write`] where the fields are not as many as the columns or over the [`Limits`]; [`CsvError::Io`].
    pub fn write_row<'f>(&mut self, fields: impl IntoIterator<Item = Option<&'f str>>) -> Result<(), CsvError> {
        for field in fields {
            self.field(field);
        }
        self.end_row()
    }

    /// Adds one field to the row being written, which [`Writer::end_row`] ends. What is wrong with it is told there.
    pub fn field(&mut self, value: Option<&str>) {
        self.fields += 1;
        if self.fields > self.columns || self.problem.is_some() {
            return;
        }
        if self.fields > 1 {
            self.buffer.push(b',');
        }
        let Some(value) = value else { return };
        if value.len() > self.limits.field_bytes {
            self.problem = Some(Problem::FieldTooLong { limit: self.limits.field_bytes });
        } else if needs_quotes(value, self.columns) {
            push_quoted(&mut self.buffer, value);
        } else {
            self.buffer.extend_from_slice(value.as_bytes());
        }
        if self.buffer.len() - self.row_start > self.limits.record_bytes {
            self.problem = Some(Problem::RecordTooLong { limit: self.limits.record_bytes });
        }
    }

    /// Ends the row that [`Writer::field`] has begun.
    ///
    /// # Errors
    /// As [`Writer::write_row`].
    pub fn end_row(&mut self) -> Result<(), CsvError> {
        self.end_record(self.rows + 1)?;
        self.rows += 1;
        Ok(())
    }

    /// Rows written so far, without the header.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes what is still held, flushes, and gives the writer back.
    ///
    /// # Errors
    /// [`CsvError::Write`] where no header was written or a row has not ended; [`CsvError::Io`].
    pub fn finish(mut self) -> Result<W, CsvError> {
        let expected = self.columns;
        let record = self.rows + 1;
        if expected == 0 {
            return Err(CsvError::Write { record: 0, problem: Problem::NoHeader });
        }
        if self.fields > 0 {
            return Err(CsvError::Write { record, problem: Problem::FieldCount { expected, found: self.fields } });
        }
        self.write_out()?;
        self.inner.flush().map_err(CsvError::Io)?;
        Ok(self.inner)
    }

    fn end_record(&mut self, record: u64) -> Result<(), CsvError> {
        let found = std::mem::take(&mut self.fields);
        let mut problem = self.problem.take();
        self.buffer.extend_from_slice(b"\r\n");
        if self.columns == 0 {
            problem = Some(Problem::NoHeader);
        } else if found != self.columns {
            problem = Some(Problem::FieldCount { expected: self.columns, found });
        } else if self.buffer.len() - self.row_start > self.limits.record_bytes {
            problem = problem.or(Some(Problem::RecordTooLong { limit: self.limits.record_bytes }));
        }
        if let Some(problem) = problem {
            self.buffer.truncate(self.row_start);
            return Err(CsvError::Write { record, problem });
        }
        self.row_start = self.buffer.len();
        if self.buffer.len() >= BUFFER_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<(), CsvError> {
        if self.failed {
            self.buffer.clear();
            self.row_start = 0;
            return Err(CsvError::Io(std::io::Error::other("an earlier write of this file had failed")));
        }
        let written = self.inner.write_all(&self.buffer).map_err(CsvError::Io);
        self.failed = written.is_err();
        self.buffer.clear();
        self.buffer.shrink_to(2 * BUFFER_BYTES);
        self.row_start = 0;
        written
    }
}

impl<W: Write> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("columns", &self.columns).field("rows", &self.rows).finish_non_exhaustive()
    }
}

fn needs_quotes(value: &str, columns: usize) -> bool {
    value.is_empty()
        || value.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n'))
        || value.starts_with('\u{feff}')
        || (columns == 1 && value == "\\.")
}

fn push_quoted(buffer: &mut Vec<u8>, value: &str) {
    buffer.push(b'"');
    for (part, index) in value.split('"').zip(0u64..) {
        if index > 0 {
            buffer.extend_from_slice(b"\"\"");
        }
        buffer.extend_from_slice(part.as_bytes());
    }
    buffer.push(b'"');
}
