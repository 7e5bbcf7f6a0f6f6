//! The configuration file: TOML, unknown keys refused, every mistake with its line and column.
//!
//! `example.toml` is the whole file with comments. Its settings are the defaults; a test holds that.

mod delivery;
mod load;
mod network;
mod time;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use towpath_transfer::{
    JobName, ReturnKind,
    manifest::{Label, SqlType},
    name::{FileName, InvalidName},
};

pub use self::{
    delivery::{
        ActionConfig, DEFAULT_RUN_TIMEOUT, DEFAULT_TRANSFER_COLUMN, DeliveryConfig, DownlinkConfig, LoadConfig, MAX_ARGUMENTS,
        MAX_DELIVERIES, MAX_RUN_TIMEOUT, Poll, RunConfig, SHORTEST_POLL,
    },
    load::LoadedConfig,
    network::{MAX_WAYS, NetworkConfig},
    time::{DailyTime, parse_duration},
};

/// The configuration file with every setting, its default and a comment.
pub const EXAMPLE: &str = include_str!("example.toml");
/// The most jobs one agent has.
pub const MAX_JOBS: usize = 100;
/// The most tables one job has.
pub const MAX_TABLES: usize = towpath_transfer::manifest::MAX_FILES;
/// How long a source waits for a locked database unless the job says otherwise.
pub const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// The most packing threads that may be configured.
pub const MAX_WORKERS: usize = 64;

/// The agent's whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Whom the agent believes to be the receiver.
    pub trust: Trust,
    /// Where the agent keeps what it must not lose.
    pub state: StateConfig,
    /// How the relay is reached.
    pub network: NetworkConfig,
    /// How much of the host an extract may use.
    pub extract: ExtractConfig,
    /// How the way to the relay is used.
    pub push: PushConfig,
    /// How receipts are fetched.
    pub receipt: ReceiptConfig,
    /// How return files are asked for.
    pub downlink: DownlinkConfig,
    /// The ERP companies on this host.
    #[serde(rename = "job")]
    pub jobs: Vec<JobConfig>,
    /// Where return files go.
    #[serde(rename = "delivery", skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<DeliveryConfig>,
}

/// Whom the agent believes to be the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// A person compares the fingerprint and approves it: `towpath-agent receiver approve`.
    #[default]
    Approve,
    /// The receiver that the relay names first is believed and pinned.
    FirstUse,
}

/// `[state]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateConfig {
    /// The state folder; without it `--state`, `TOWPATH_STATE` or the system's usual place decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

/// `[extract]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExtractConfig {
    /// Threads that pack, 1 to [`MAX_WORKERS`].
    pub workers: usize,
}

impl Default for ExtractConfig {
    fn default() -> Self {
        Self { workers: 2 }
    }
}

/// `[push]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PushConfig {
    /// The most bytes a second that are uploaded; 0 for no limit.
    pub max_bytes_per_second: u64,
}

/// `[receipt]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiptConfig {
    /// How often the relay is asked for receipts that are still missing.
    #[serde(with = "time::duration")]
    pub poll: Duration,
}

impl Default for ReceiptConfig {
    fn default() -> Self {
        Self { poll: Duration::from_secs(5) }
    }
}

/// One ERP company: where it is read from, what is read, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobConfig {
    /// The job's name, unique on this host.
    pub name: JobName,
    /// When `run` sends it, in local time, every day; absent for `send` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<DailyTime>,
    /// Where the rows come from.
    pub source: SourceConfig,
    /// What is read.
    #[serde(rename = "table")]
    pub tables: Vec<TableConfig>,
}

/// Where a job's rows come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum SourceConfig {
    /// An SQLite database file.
    Sqlite {
        /// The file; a relative path counts from the configuration file's folder.
        path: PathBuf,
        /// How long to wait for a lock; [`DEFAULT_BUSY_TIMEOUT`] where absent.
        #[serde(with = "time::optional_duration", skip_serializing_if = "Option::is_none")]
        busy_timeout: Option<Duration>,
    },
}

/// One table of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableConfig {
    /// The table's name on the wire, and in the ERP where there is no query.
    pub name: Label,
    /// What is read instead of the whole table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The types of columns whose type the database does not say well enough, by column name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, SqlType>,
    /// The CSV file's name; `<name>.csv` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileName>,
}

impl TableConfig {
    /// The CSV file's name.
    ///
    /// # Errors
    /// [`InvalidName`] where there is no `file` and the table's name cannot be part of a file name. Configuration that
    /// was loaded has been checked for this.
    pub fn csv_name(&self) -> Result<FileName, InvalidName> {
        match &self.file {
            Some(file) => Ok(file.clone()),
            None => format!("{}.csv", self.name).parse(),
        }
    }
}

impl SourceConfig {
    /// The source's kind, as the configuration file names it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
        }
    }

    fn resolve(self, folder: &Path) -> Self {
        match self {
            Self::Sqlite { path, busy_timeout } => Self::Sqlite { path: folder.join(path), busy_timeout },
        }
    }
}

impl Config {
    /// The job of this name.
    #[must_use]
    pub fn job(&self, name: &JobName) -> Option<&JobConfig> {
        self.jobs.iter().find(|job| job.name == *name)
    }

    /// Where return files of a kind and job go: what is said for the job counts before what is said for all.
    #[must_use]
    pub fn delivery(&self, kind: &ReturnKind, job: &JobName) -> Option<&DeliveryConfig> {
        let of_kind = || self.deliveries.iter().filter(|delivery| delivery.kind == *kind);
        of_kind()
            .find(|delivery| delivery.job.as_ref() == Some(job))
            .or_else(|| of_kind().find(|delivery| delivery.job.is_none()))
    }
}
