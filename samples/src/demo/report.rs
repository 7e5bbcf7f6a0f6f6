//! The result, as JSON and for the table.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

/// What `--report` writes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// Whether every row and total agrees, the return file is the one that was sent, and the receipt chains hold.
    pub(super) ok: bool,
    /// One line per ERP table.
    pub(super) tables: Vec<TableLine>,
    /// The return files.
    pub(super) downlink: Vec<DownlinkLine>,
    /// The signed receipts at the agent.
    pub(super) receipts: Vec<PathBuf>,
    /// Seconds per stage; those of the way back as `downlink/<stage>`.
    pub(super) seconds: BTreeMap<String, f64>,
}

/// One ERP table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TableLine {
    /// Its name.
    pub(super) name: String,
    /// Rows the ERP's generator made.
    pub(super) rows_erp: u64,
    /// Rows counted in the app database.
    pub(super) rows_app: u64,
    /// Length of its CSV.
    pub(super) csv_bytes: u64,
    /// Length of its packed CSV.
    pub(super) packed_bytes: u64,
    /// Whether count and exact sum of every numeric column agree.
    #[serde(skip)]
    pub(super) totals_agree: bool,
}

/// One return file.
#[derive(Debug, Clone, Serialize)]
pub(super) struct DownlinkLine {
    /// Its name.
    pub(super) name: String,
    /// Its length.
    pub(super) bytes: u64,
    /// Its SHA-256.
    pub(super) sha256: String,
    /// Where it was delivered on the ERP host.
    pub(super) delivered_path: PathBuf,
}

impl TableLine {
    /// Whether the table arrived as it is.
    pub(super) fn agrees(&self) -> bool {
        self.totals_agree && self.rows_erp == self.rows_app
    }
}
