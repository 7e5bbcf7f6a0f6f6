//! The CSV of the wire: RFC 4180 with one meaning for every byte.
//!
//! UTF-8 without byte order mark, a header row, `,` between fields, CRLF after every row, also the last. NULL is an
//! empty field without quotes, the empty string is `""`. With one column an empty line is one NULL. Spaces belong to
//! the field. These are the rules of PostgreSQL's `COPY … (FORMAT csv, HEADER)`, whose lines end in LF on Unix. COPY FROM
//! reads this format; only a line `\.` within a quoted field is the end of data to PostgreSQL before 18, whoever wrote it.
//!
//! [`Writer`] quotes a field only where it must: if it is empty and not NULL, holds `,` `"` CR or LF, begins with U+FEFF
//! (a byte order mark, were it the first of the file), or is `\.` in a table of one column (where COPY takes it for the end
//! of data and quotes it too). Equal tables give equal bytes. [`Reader`] also takes fields that are quoted without need,
//! because they mean one thing only; everything else that a writer would not write is an error, named by line and record.

mod batch;
mod error;
mod reader;
mod scan;
mod writer;

pub use self::{
    batch::{MAX_BATCH_BYTES, MAX_BATCH_ROWS, RowBatch},
    error::{CsvError, Problem},
    reader::{Reader, Row},
    writer::Writer,
};

/// The longest field by default, in bytes of its value.
pub const MAX_FIELD_BYTES: usize = 64 * 1024 * 1024;
/// The longest record by default, in bytes of its CSV form with line end; room for a field of quotes only.
pub const MAX_RECORD_BYTES: usize = 192 * 1024 * 1024;
/// The most columns by default.
pub const MAX_COLUMNS: usize = 4_096;

/// What a reader takes and a writer gives at most. Both check the same, so what was written can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest field, in bytes of its value.
    pub field_bytes: usize,
    /// The longest record, in bytes of its CSV form with line end. A reader holds one record in memory.
    pub record_bytes: usize,
    /// The most columns.
    pub columns: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { field_bytes: MAX_FIELD_BYTES, record_bytes: MAX_RECORD_BYTES, columns: MAX_COLUMNS }
    }
}

#[cfg(test)]
mod tests;
