//! `config`: works without state, enrolment and network.

use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use towpath_host::{
    config::{self, CheckReport},
    counted,
    program::{self, Threads},
    secret,
};
use towpath_journal::system::SystemClock;
use towpath_keys::SystemSecrets;
use towpath_transfer::{Code, Failure, failure::Result};
use towpath_transport::files::{Disk, FileStore};

use super::{
    args::{Args, ConfigCommand, OutputArgs},
    output, tables,
};
use crate::{
    config::{EXAMPLE, LoadedConfig, schema},
    extract::check_source,
};

pub(super) fn run(args: &Args, command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Example => output::line(EXAMPLE.trim_end()),
        ConfigCommand::Schema => output::line(schema()?.trim_end()),
        ConfigCommand::Check { file_only, output: OutputArgs { json } } => check(args, *file_only, *json),
        ConfigCommand::Show => {
            let loaded = LoadedConfig::read(&args.config_file()?)?;
            let text = toml::to_string(&loaded.config)
                .map_err(|error| Failure::park(Code::Internal, "writing the configuration as TOML").caused_by(error))?;
            let state = args.state_folder(&loaded.config)?;
            output::line(&format!("# from {}, state in {}\n{}", loaded.file.display(), state.display(), text.trim_end()))
        }
    }
}

#[derive(Serialize)]
struct CheckView<'a> {
    #[serde(flatten)]
    report: CheckReport<'a>,
    jobs: usize,
    tables: usize,
}

fn check(args: &Args, file_only: bool, json: bool) -> Result<()> {
    let loaded = LoadedConfig::checked(&args.config_file()?, json)?;
    if !file_only {
        let proxy = &loaded.config.network.proxy;
        if !proxy.login.as_ref().is_some_and(|(_, password)| secret::is_unseen(password)) {
            proxy.load(&SystemSecrets)?;
        }
        program::block_on(Threads::Many, check_sources(&loaded, json))?;
    }
    let tables: usize = loaded.config.jobs.iter().map(|job| job.tables.len()).sum();
    let (jobs, file, warnings) = (loaded.config.jobs.len(), &*loaded.file, &loaded.config.warnings());
    let unseen = &if file_only { Vec::new() } else { loaded.config.unseen() };
    if json {
        return output::json(&CheckView {
            report: CheckReport { file, valid: true, mistakes: &[], warnings, unseen },
            jobs,
            tables,
        });
    }
    config::tell(warnings, unseen);
    let (jobs, tables) = (counted(jobs, "job", "jobs"), counted(tables, "table", "tables"));
    output::line(&format!("{}: the configuration is valid ({jobs}, {tables})", file.display()))
}

/// Prepares every query, reads no rows, and tells of every table that cannot be read; the first of them is the failure. Sources that
/// only the service can open are left out.
async fn check_sources(loaded: &LoadedConfig, json: bool) -> Result<()> {
    let mut first = None;
    let files: Arc<dyn FileStore> = Arc::new(Disk);
    for job in loaded.config.jobs.iter().filter(|job| !job.source.is_unseen()) {
        let check = check_source(job, &files, Arc::new(SystemClock::new()), &CancellationToken::new()).await?;
        if !json {
            tables::tell_source(&format!("{}:", job.name), Some(&check.snapshot.into()), &check.warnings)?;
        }
        for table in check.tables {
            match table.columns {
                Ok(_) if json => {}
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
