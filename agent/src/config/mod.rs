//! The configuration file: TOML, unknown keys refused, every mistake with its line and column.
//!
//! `example.toml` is the whole file with comments. Its settings are the defaults; a test holds that.

mod bandwidth;
mod cron;
mod csv;
mod delivery;
mod load;
mod local;
mod network;
mod optional_char;
mod profile;
mod schedule;
#[cfg(test)]
mod schema_tests;
mod secrets;
mod shared;
mod source;
mod table;
mod time;
mod timing;
mod update;
mod window;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_alert::AlertConfig;
use towpath_host::{Bytes, LogConfig};
use towpath_transfer::{JobName, ReturnKind};

pub use self::{
    bandwidth::{BandwidthConfig, BandwidthLimit, BandwidthWindow},
    csv::{CsvConfig, Encoding},
    delivery::{
        ActionConfig, DEFAULT_RUN_TIMEOUT, DEFAULT_TRANSFER_COLUMN, DeliveryConfig, DownlinkConfig, LoadConfig, MAX_ARGUMENTS,
        MAX_DELIVERIES, MAX_RUN_TIMEOUT, Poll, RunConfig, SHORTEST_POLL,
    },
    load::{LoadedConfig, schema},
    network::{MAX_WAYS, NetworkConfig},
    profile::{ErpTable, MAX_PARAMETER_CHARS, Parameter, Profile},
    schedule::{InvalidSchedule, MAX_JITTER, Occurrence, Occurrences, Schedule, Zone},
    shared::{Changes, SharedConfig},
    source::{
        Complete, DEFAULT_ARCHIVE, DEFAULT_BUSY_TIMEOUT, DEFAULT_MARKER_SUFFIX, DEFAULT_STABLE_FOR, DEFAULT_STATEMENT_TIMEOUT,
        FolderConfig, MYSQL_PORT, OdbcConfig, OdbcIsolation, POSTGRES_PORT, ServerConfig, SourceConfig, Tls,
    },
    table::{
        DEFAULT_COMPARE_KEYS, DriftPolicy, EachFile, IncrementalConfig, MAX_KEY_COLUMNS, MAX_TABLES, NulPolicy, Overlap, Policy,
        TableConfig,
    },
    time::parse_duration,
    update::{UpdateConfig, UpdateMode},
    window::{InvalidWindow, MAX_WINDOWS, Window, outside},
};
use crate::room::DEFAULT_RESERVE_BYTES;

/// The configuration file with every setting, its default and a comment.
pub const EXAMPLE: &str = include_str!("example.toml");
/// The most jobs one agent has.
pub const MAX_JOBS: usize = 100;
/// The most packing threads that may be configured.
pub const MAX_WORKERS: usize = 64;

/// The agent's whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Whom the agent believes to be the receiver.
    pub trust: Trust,
    /// Where the agent keeps what it must not lose.
    pub state: StateConfig,
    /// How much is logged, and where besides.
    pub log: LogConfig,
    /// Who is told of what is wrong, and when a run is missing.
    pub alert: AlertConfig,
    /// How the relay is reached.
    pub network: NetworkConfig,
    /// How much of the host an extract may use.
    pub extract: ExtractConfig,
    /// How much of the line the agent takes.
    pub bandwidth: BandwidthConfig,
    /// How receipts are fetched.
    pub receipt: ReceiptConfig,
    /// How return files are asked for.
    pub downlink: DownlinkConfig,
    /// Whether a new version is taken from the relay.
    pub update: UpdateConfig,
    /// The ERP companies on this host.
    #[serde(rename = "job")]
    pub jobs: Vec<JobConfig>,
    /// Where return files go.
    #[serde(rename = "delivery", skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<DeliveryConfig>,
}

/// Whom the agent believes to be the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// A person compares the fingerprint and approves it: `towpath-agent receiver approve`.
    #[default]
    Approve,
    /// The receiver that the relay names first is believed and pinned.
    FirstUse,
}

/// `[state]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateConfig {
    /// The state folder; without it `--state`, `TOWPATH_STATE` or the system's usual place decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// What stays free on the disks that return files and new versions come to.
    pub reserve: Bytes,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self { folder: None, reserve: Bytes(DEFAULT_RESERVE_BYTES) }
    }
}

/// `[extract]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExtractConfig {
    /// Threads that pack, 1 to [`MAX_WORKERS`].
    #[schemars(range(min = 1, max = MAX_WORKERS))]
    pub workers: usize,
}

impl Default for ExtractConfig {
    fn default() -> Self {
        Self { workers: 2 }
    }
}

/// `[receipt]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiptConfig {
    /// How often the relay is asked for receipts that are still missing.
    #[serde(with = "time::duration")]
    #[schemars(with = "time::Long")]
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
    /// When `run` sends it; absent for `send` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The time zone of schedule and blackouts; this host's own where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<Zone>,
    /// A run begins up to so much later than it is due, at most [`MAX_JITTER`].
    #[serde(with = "time::duration", skip_serializing_if = "Duration::is_zero")]
    pub jitter: Duration,
    /// When no run begins, at most [`MAX_WINDOWS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blackout: Vec<Window>,
    /// Whether what was due while the host was off or paused is made up for, once.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub catch_up: bool,
    /// The profile whose tables are among `tables`: its name, or the path of its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What the profile leaves to the job.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub profile_parameters: BTreeMap<String, String>,
    /// Where the rows come from.
    pub source: SourceConfig,
    /// What is read: the profile's tables, as far as the job does not say otherwise of one, and the job's own.
    #[serde(rename = "table")]
    pub tables: Vec<TableConfig>,
}

impl JobConfig {
    /// A job of these tables, sent by hand only.
    #[must_use]
    pub const fn new(name: JobName, source: SourceConfig, tables: Vec<TableConfig>) -> Self {
        Self {
            name,
            schedule: None,
            time_zone: None,
            jitter: Duration::ZERO,
            blackout: Vec::new(),
            catch_up: true,
            profile: None,
            profile_parameters: BTreeMap::new(),
            source,
            tables,
        }
    }

    /// The time zone of schedule and blackouts. The host's own is asked for each time, because it may be changed.
    #[must_use]
    pub fn zone(&self) -> TimeZone {
        self.time_zone.as_ref().map_or_else(TimeZone::system, |zone| zone.get().clone())
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
