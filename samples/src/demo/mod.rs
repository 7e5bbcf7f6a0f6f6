//! One cycle of the whole product on this machine, told line by line.

mod compare;
mod cycle;
mod program;
mod recommend;
mod report;
mod story;
mod timing;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use thiserror::Error;
use towpath_transfer::Failure;

use crate::erp;

/// Starts receiver, relay and agent as separate processes, enrols both ends, sends a sample ERP's tables and compares
/// what arrived, value total by value total; then recommends orders from them and sends those back to the ERP.
#[derive(Debug, Clone, Parser)]
#[command(name = "towpath-demo", version, after_help = "Example:\n  towpath-demo --rows 20000 --exit --report report.json")]
pub struct Options {
    /// Sales lines in the sample ERP.
    #[arg(long, default_value_t = erp::DEFAULT_SALES_LINES, value_parser = clap::value_parser!(u64).range(1..=erp::MAX_SALES_LINES))]
    pub rows: u64,
    /// Keep everything in this folder, which must be empty or not exist; otherwise a temporary one is used and removed.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Do not stay up at the end.
    #[arg(long)]
    pub exit: bool,
    /// Write the result as JSON to this file.
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// Why the demo could not go on.
#[derive(Debug, Error)]
pub(crate) enum DemoError {
    /// A part of the product failed.
    #[error("{}", .0.report())]
    Failure(#[from] Failure),
    /// The journal of one of the programs could not be read.
    #[error("reading a journal failed")]
    Journal(#[from] towpath_journal::JournalError),
    /// A database could not be read.
    #[error("reading a database failed")]
    Database(#[from] sqlx::Error),
    /// A file or process.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program ended with an error, or said something unexpected.
    #[error("{0}")]
    Program(String),
    /// A row or total differs.
    #[error("the app database does not agree with the ERP")]
    Differs,
}

/// Says what was tried when an I/O operation failed.
pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> DemoError {
    let what = what.into();
    |source| DemoError::Io { what, source }
}

/// Runs the demo; the exit status is 0 only when every row and total agrees.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            story::failed(&DemoError::Io { what: "starting the runtime failed".into(), source: error });
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cycle::run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            story::failed(&error);
            ExitCode::FAILURE
        }
    }
}
