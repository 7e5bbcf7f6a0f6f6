//! Reads a job's tables from its source, in one snapshot, into the files of a transfer.

use std::{fmt::Debug, path::PathBuf, sync::Arc};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{
    Clock, Code, Failure,
    manifest::{FileEntry, Label, Manifest, Snapshot},
    packed::PackedFile,
};
use towpath_transport::files::FileStore;

use crate::config::JobConfig;

/// What an extract touches.
#[derive(Debug, Clone)]
pub struct ExtractParts {
    /// The disk.
    pub files: Arc<dyn FileStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Threads that pack.
    pub workers: usize,
}

/// The form in which tables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `<name>.csv.bz2`, to be sent.
    Packed,
    /// `<name>.csv`, to be looked at.
    Plain,
}

/// What is to be extracted.
#[derive(Debug, Clone)]
pub struct ExtractRequest {
    /// The job.
    pub job: JobConfig,
    /// The transfer's folder, which exists.
    pub folder: PathBuf,
    /// The job's last imported manifest; without it everything is sent in full.
    pub previous: Option<Manifest>,
    /// Packed or plain.
    pub form: Form,
}

/// What an extract has found and written.
#[derive(Debug, Clone, PartialEq)]
pub struct Extracted {
    /// The snapshot all tables were read in.
    pub snapshot: Snapshot,
    /// The tables, in the configuration's order.
    pub files: Vec<FileEntry>,
    /// The packed files of those that are not unchanged, in the same order.
    pub packed: Vec<PackedFile>,
}

/// What happens while an extract runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtractEvent {
    /// A table is being read.
    TableStarted {
        /// The table.
        table: Label,
    },
    /// So many rows of it are read.
    Rows {
        /// The table.
        table: Label,
        /// Rows so far.
        rows: u64,
    },
    /// A file is whole and durable and may be sent.
    FileFinished(PackedFile),
    /// A table is read.
    TableFinished {
        /// The table.
        table: Label,
        /// Its rows.
        rows: u64,
        /// Whether it equals the previous one, so that nothing of it is sent.
        unchanged: bool,
    },
}

/// Extracts a job's tables.
///
/// # Errors
/// A failure of the source, of the disk, or `extract-mismatch`.
pub async fn extract(
    parts: &ExtractParts,
    request: ExtractRequest,
    events: mpsc::Sender<ExtractEvent>,
    cancel: CancellationToken,
) -> Result<Extracted, Failure> {
    let _ = (parts, events, cancel);
    Err(Failure::park(Code::Internal, format!("sources of kind {} cannot be read yet", request.job.source.kind())))
}
