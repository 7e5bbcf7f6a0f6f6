//! What a server answers, and which error an answer is.

use bytes::Bytes;
use towpath_transfer::RemotePath;

use super::wire::Handle;
use crate::{
    files::FileKind,
    store::{RemoteStat, StoreError, StoreErrorKind, StoreResult},
};

/// The status of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u32,
    pub(super) message: String,
}

impl Status {
    pub(super) fn is_eof(&self) -> bool {
        self.code == 1
    }

    /// Codes above 8 are of later versions, but some servers send them nevertheless.
    pub(super) fn kind(&self) -> StoreErrorKind {
        let said = self.message.to_ascii_lowercase();
        match self.code {
            2 | 10 => StoreErrorKind::NotFound,
            3 | 12 => StoreErrorKind::Denied,
            6 | 7 => StoreErrorKind::ConnectionLost,
            8 => StoreErrorKind::Unsupported,
            11 => StoreErrorKind::Exists,
            14 | 15 => StoreErrorKind::Full,
            _ if said.contains("no space") || said.contains("quota") || said.contains("disk full") => StoreErrorKind::Full,
            _ if said.contains("already exists") || said.contains("file exists") => StoreErrorKind::Exists,
            _ => StoreErrorKind::Refused,
        }
    }
}

/// Attributes of a file, as far as they matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    pub(super) mode: Option<u32>,
}

impl Attributes {
    /// A server that sends no mode gets a file for everything that has a size.
    pub(super) fn stat(&self) -> RemoteStat {
        let kind = match (self.mode.map(|mode| mode & 0o170_000), self.size) {
            (Some(0o040_000), _) => FileKind::Dir,
            (Some(0o100_000), _) | (None, Some(_)) => FileKind::File,
            _ => FileKind::Other,
        };
        RemoteStat { kind, size: if kind == FileKind::File { self.size.unwrap_or(0) } else { 0 } }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Status(Status),
    Handle(Handle),
    Data(Bytes),
    Names(Vec<(Bytes, Attributes)>),
    Attributes(Attributes),
    Extended(Bytes),
}

impl Reply {
    /// For operations that answer with a status and nothing else.
    pub(super) fn done(self, what: &str, path: &RemotePath) -> StoreResult<()> {
        match self {
            Self::Status(Status { code: 0, .. }) => Ok(()),
            other => Err(other.refused(what, path)),
        }
    }

    /// The error that this answer is, where another was expected.
    pub(super) fn refused(self, what: &str, path: &RemotePath) -> StoreError {
        match self {
            Self::Status(status) if status.code > 1 => {
                let message = format!("{what} {path}: the server says {:?}", status.message);
                StoreError::new(status.kind(), message)
            }
            _ => {
                StoreError::new(StoreErrorKind::Protocol, format!("{what} {path}: the server's answer does not fit the request"))
            }
        }
    }
}
