//! What can be typed about transfers that were made.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use towpath_transfer::{Direction, JobName, TransferId};

use super::args::{OutputArgs, WaitArgs};

/// Reads a transfer's id as it is typed.
pub(super) fn transfer(text: &str) -> Result<TransferId, &'static str> {
    text.parse().map_err(|_| "an id has 36 characters, and all of them are needed; see: towpath-agent history")
}

#[derive(Debug, ClapArgs)]
pub(super) struct HistoryArgs {
    /// Only uplinks, or only return files.
    #[arg(long, value_name = "WAY", value_enum)]
    pub(super) direction: Option<Way>,
    /// Only uplinks of this job.
    #[arg(long, value_name = "NAME")]
    pub(super) job: Option<JobName>,
    /// At most so many, up to 1000.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) limit: usize,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// A direction, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Way {
    /// From the ERP to the app.
    Uplink,
    /// Return files.
    Downlink,
}

impl From<Way> for Direction {
    fn from(way: Way) -> Self {
        match way {
            Way::Uplink => Self::Uplink,
            Way::Downlink => Self::Downlink,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct ShowArgs {
    /// The transfer's id.
    #[arg(value_parser = transfer)]
    pub(super) transfer: TransferId,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// What has changed between two transfers of a job: tables, columns, rows and sums.
///
/// By what their manifests say; the rows themselves are not kept once the app has them.
///
/// Example: towpath-agent diff 01890a5d-ac96-7b7c-8c8e-000000000001 01890a5d-ac96-7b7c-8c8e-000000000002
#[derive(Debug, ClapArgs)]
#[command(verbatim_doc_comment)]
pub(super) struct DiffArgs {
    /// The earlier transfer's id.
    #[arg(value_parser = transfer)]
    pub(super) from: TransferId,
    /// The later transfer's id.
    #[arg(value_parser = transfer)]
    pub(super) to: TransferId,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Pack what somebody who helps from afar needs to know into one file, without secrets.
///
/// Configuration, the checks of `doctor`, status, the newest transfers and the end of the log file; no key, no password, no
/// enrolment code and no row of the ERP. It works also where nothing else does.
///
/// Example: towpath-agent support-bundle --out agent.zip
#[derive(Debug, ClapArgs)]
#[command(verbatim_doc_comment)]
pub(super) struct SupportArgs {
    /// The file, which must not be there yet; without it one that is named by the time, in the present folder.
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Do not try to reach the relay.
    #[arg(long)]
    pub(super) offline: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(super) struct RetryArgs {
    /// The transfer's id.
    #[arg(value_parser = transfer)]
    pub(super) transfer: TransferId,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}
