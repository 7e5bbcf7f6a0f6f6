//! What can be wrong with CSV, and where.

use std::io;

use thiserror::Error;

use crate::{
    Code, Failure,
    codec::{CodecError, io_failure},
};

/// Why CSV could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CsvError {
    /// The file or decoder below failed.
    #[error("reading or writing failed")]
    Io(#[source] io::Error),
    /// What was read is not CSV of the wire.
    #[error("line {line}, record {record}: {problem}")]
    Read {
        /// The physical line, from 1.
        line: u64,
        /// The record; 0 is the header.
        record: u64,
        /// What is wrong there.
        problem: Problem,
    },
    /// What should be written cannot be; the row left no bytes behind.
    #[error("record {record} cannot be written: {problem}")]
    Write {
        /// The record; 0 is the header.
        record: u64,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file is empty, or rows were written before the header.
    #[error("there is no header")]
    NoHeader,
    /// The header was written already.
    #[error("there is a header already")]
    SecondHeader,
    /// The header has no column.
    #[error("there are no columns")]
    NoColumns,
    /// A column has no name.
    #[error("column {column} of the header has no name")]
    UnnamedColumn {
        /// From 1.
        column: usize,
    },
    /// The file begins with a byte order mark.
    #[error("the file begins with a byte order mark")]
    ByteOrderMark,
    /// Over [`super::Limits::columns`].
    #[error("there are more than {limit} columns")]
    TooManyColumns {
        /// The limit.
        limit: usize,
    },
    /// A record with fewer or more fields than the header.
    #[error("the record has {} fields, the header {expected}", count(*.found, *.expected))]
    FieldCount {
        /// As many as the header has.
        expected: usize,
        /// As many as there are; counting stops at one too many.
        found: usize,
    },
    /// Over [`super::Limits::field_bytes`].
    #[error("a field is longer than {limit} bytes")]
    FieldTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Over [`super::Limits::record_bytes`].
    #[error("the record is longer than {limit} bytes")]
    RecordTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A quote in a field that does not begin with one.
    #[error("a quote stands in a field without quotes")]
    StrayQuote,
    /// Something other than a comma or a line end follows a closing quote.
    #[error("text follows a closing quote")]
    TextAfterQuote,
    /// A carriage return outside quotes without a line feed after it.
    #[error("a carriage return is not followed by a line feed")]
    BareCarriageReturn,
    /// A line feed outside quotes without a carriage return before it.
    #[error("a line feed does not follow a carriage return")]
    BareLineFeed,
    /// The file ends within quotes.
    #[error("the file ends within a quoted field")]
    UnclosedQuote,
    /// The last line has no line end, so the file may be cut off.
    #[error("the file ends without CRLF")]
    MissingLineEnd,
    /// Bytes that are not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
}

/// Counting stops at one field too many.
fn count(found: usize, expected: usize) -> String {
    if found > expected { format!("at least {found}") } else { found.to_string() }
}

impl Problem {
    const fn is_limit(self) -> bool {
        matches!(self, Self::TooManyColumns { .. } | Self::FieldTooLong { .. } | Self::RecordTooLong { .. })
    }
}

impl CsvError {
    /// What is wrong with the CSV; `None` where the file below failed.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        match self {
            Self::Io(_) => None,
            Self::Read { problem, .. } | Self::Write { problem, .. } => Some(*problem),
        }
    }

    /// This error as the failure of what was `tried`, with its code and disposition. Where CSV was read through an
    /// [`crate::codec::Unpacker`] and that failed, it is the failure of the unpacking.
    #[must_use]
    pub fn into_failure(self, tried: impl Into<String>) -> Failure {
        match self {
            Self::Io(error) => match error.downcast::<CodecError>() {
                Ok(codec) => codec.into_failure(tried),
                Err(error) => io_failure(tried, error),
            },
            Self::Read { problem, .. } | Self::Write { problem, .. } if problem.is_limit() => {
                Failure::park(Code::LimitExceeded, tried).caused_by(self)
            }
            Self::Read { .. } => Failure::park(Code::ContentInvalid, tried).caused_by(self),
            Self::Write { .. } => Failure::park(Code::Internal, tried).caused_by(self),
        }
    }
}

impl From<CsvError> for Failure {
    fn from(error: CsvError) -> Self {
        error.into_failure("reading or writing CSV failed")
    }
}
