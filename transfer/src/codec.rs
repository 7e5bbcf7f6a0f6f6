//! bzip2, the form in which files travel: packed by several threads, unpacked under a cap.
//!
//! A packed file is one or more bzip2 streams one after the other, as `bzip2`, `pbzip2` and `cat a.bz2 b.bz2` make them;
//! `bunzip2` reads what [`Packer`] writes, and [`Unpacker`] reads all of what they write or fails.

mod pack;
mod unpack;

use std::io;

use thiserror::Error;

pub use self::{
    pack::{BLOCK_BYTES, MAX_WORKERS, PackedDigests, Packer},
    unpack::{DEFAULT_UNPACK_LIMIT, MAX_EMPTY_STREAMS, Unpacker, unpack},
};
use crate::{Code, Failure};

/// Why packing or unpacking ended before its time.
///
/// [`Packer`] and [`Unpacker`] are [`io::Write`] and [`io::Read`]: there this error travels inside an [`io::Error`], and
/// `CodecError::from(io_error)` takes it out again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The file or connection below failed.
    #[error("reading or writing failed")]
    Io(#[source] io::Error),
    /// No bytes, so not even an empty bzip2 stream.
    #[error("the packed file is empty")]
    Empty,
    /// The first bytes are not those of a bzip2 stream.
    #[error("the packed file is not bzip2")]
    NotBzip2,
    /// Something that is not a bzip2 stream follows this many whole ones.
    #[error("the packed file holds something else after {streams} bzip2 streams")]
    TrailingGarbage {
        /// The whole streams before it.
        streams: u64,
    },
    /// The input ended within a stream.
    #[error("the packed file ends within a bzip2 stream")]
    Truncated,
    /// A stream whose content or check sum is wrong.
    #[error("a bzip2 stream is damaged")]
    Corrupt,
    /// There is more than the caller wanted to unpack.
    #[error("the unpacked content is larger than the limit of {limit} bytes")]
    LimitExceeded {
        /// The limit, in bytes.
        limit: u64,
    },
    /// Over [`MAX_EMPTY_STREAMS`].
    #[error("the packed file holds more than {MAX_EMPTY_STREAMS} empty bzip2 streams")]
    TooManyEmptyStreams,
    /// The few megabytes that bzip2 needs could not be had.
    #[error("there was not enough memory to unpack")]
    OutOfMemory,
    /// A worker thread could not be started.
    #[error("a packing thread could not be started")]
    WorkerStart(#[source] io::Error),
    /// A worker thread ended before its work was done.
    #[error("a packing thread has failed")]
    WorkerLost,
    /// An earlier call failed; what came out so far is no whole file.
    #[error("an earlier read or write of this file had failed")]
    FailedBefore,
}

impl CodecError {
    /// This error as the failure of what was `tried`, with its code and disposition.
    #[must_use]
    pub fn into_failure(self, tried: impl Into<String>) -> Failure {
        match self {
            Self::Io(error) => io_failure(tried, error),
            Self::LimitExceeded { .. } => Failure::park(Code::LimitExceeded, tried).caused_by(self),
            Self::OutOfMemory | Self::WorkerStart(_) | Self::WorkerLost => Failure::retry(Code::Internal, tried).caused_by(self),
            Self::FailedBefore => Failure::park(Code::Internal, tried).caused_by(self),
            Self::Empty
            | Self::NotBzip2
            | Self::TrailingGarbage { .. }
            | Self::Truncated
            | Self::Corrupt
            | Self::TooManyEmptyStreams => Failure::park(Code::UnpackFailed, tried).caused_by(self),
        }
    }
}

/// A failure of the file below: it may pass by itself.
pub(crate) fn io_failure(tried: impl Into<String>, error: io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
        _ => Code::FileFailed,
    };
    Failure::retry(code, tried).caused_by(error)
}

impl From<CodecError> for Failure {
    fn from(error: CodecError) -> Self {
        error.into_failure("packing or unpacking a file failed")
    }
}

impl From<io::Error> for CodecError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(inner) => inner,
            Err(other) => Self::Io(other),
        }
    }
}

impl From<CodecError> for io::Error {
    fn from(error: CodecError) -> Self {
        let kind = match error {
            CodecError::Io(inner) => return inner,
            CodecError::Truncated => io::ErrorKind::UnexpectedEof,
            CodecError::LimitExceeded { .. } => io::ErrorKind::FileTooLarge,
            CodecError::OutOfMemory => io::ErrorKind::OutOfMemory,
            CodecError::WorkerStart(_) | CodecError::WorkerLost | CodecError::FailedBefore => io::ErrorKind::Other,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests;
