//! `config`: works without state, enrolment and network.

use towpath_transfer::{Code, Failure, failure::Result};

use super::{
    args::{Args, ConfigCommand},
    output, paths,
};
use crate::config::{EXAMPLE, LoadedConfig};

pub(super) fn run(args: &Args, command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Example => output::line(EXAMPLE.trim_end()),
        ConfigCommand::Check => {
            let loaded = LoadedConfig::read(&paths::config_file(args)?)?;
            let tables: usize = loaded.config.jobs.iter().map(|job| job.tables.len()).sum();
            let jobs = loaded.config.jobs.len();
            output::line(&format!("{}: the configuration is valid ({jobs} jobs, {tables} tables)", loaded.file.display()))
        }
        ConfigCommand::Show => {
            let loaded = LoadedConfig::read(&paths::config_file(args)?)?;
            let text = toml::to_string(&loaded.config)
                .map_err(|error| Failure::park(Code::Internal, "writing the configuration as TOML").caused_by(error))?;
            let state = paths::state(args, Some(&loaded.config))?;
            output::line(&format!("# from {}, state in {}\n{}", loaded.file.display(), state.display(), text.trim_end()))
        }
    }
}
