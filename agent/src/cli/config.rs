//! `config`: works without state, enrolment and network.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use towpath_host::program::{self, Threads};
use towpath_journal::system::SystemClock;
use towpath_transfer::{Code, Failure, failure::Result};
use towpath_transport::files::{Disk, FileStore};

use super::{
    args::{Args, ConfigCommand},
    output, tables,
};
use crate::{
    config::{EXAMPLE, LoadedConfig},
    extract::check_source,
};

pub(super) fn run(args: &Args, command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Example => output::line(EXAMPLE.trim_end()),
        ConfigCommand::Check { file_only } => {
            let loaded = LoadedConfig::read(&args.config_file()?)?;
            if !file_only {
                program::block_on(Threads::Many, check_sources(&loaded))?;
            }
            let tables: usize = loaded.config.jobs.iter().map(|job| job.tables.len()).sum();
            let jobs = loaded.config.jobs.len();
            output::line(&format!("{}: the configuration is valid ({jobs} jobs, {tables} tables)", loaded.file.display()))
        }
        ConfigCommand::Show => {
            let loaded = LoadedConfig::read(&args.config_file()?)?;
            let text = toml::to_string(&loaded.config)
                .map_err(|error| Failure::park(Code::Internal, "writing the configuration as TOML").caused_by(error))?;
            let state = args.state_folder(&loaded.config)?;
            output::line(&format!("# from {}, state in {}\n{}", loaded.file.display(), state.display(), text.trim_end()))
        }
    }
}

/// Prepares every query, reads no rows, and tells of every table that cannot be read; the first of them is the failure.
async fn check_sources(loaded: &LoadedConfig) -> Result<()> {
    let mut first = None;
    let files: Arc<dyn FileStore> = Arc::new(Disk);
    for job in &loaded.config.jobs {
        let check = check_source(job, &files, Arc::new(SystemClock::new()), &CancellationToken::new()).await?;
        tables::tell_source(job.name.as_str(), Some(&check.snapshot.into()), &check.warnings)?;
        for table in check.tables {
            match table.columns {
                Ok(columns) => {
                    output::line(&format!(
                        "{}: table {} has {} columns, into {}",
                        job.name,
                        table.table,
                        columns.len(),
                        table.file
                    ))?;
                }
                Err(failure) => {
                    output::say(&format!("{}: table {}: {}", job.name, table.table, failure.report()));
                    first.get_or_insert(failure);
                }
            }
        }
    }
    first.map_or(Ok(()), Err)
}
