//! `cargo xtask simulate`: seeds of the simulation, each the same every time.

use std::process::Stdio;

use clap::Args;

use crate::repository;

/// Which seeds, and what is told of them.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What the simulation itself is told: `--seed S`, `--seeds N`, `--json` and others, which `-- --help` lists.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs the seeds. True when nothing was wrong with any of them.
///
/// # Errors
/// Cargo that does not start.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let root = repository::root()?;
    let mut command = repository::cargo(&root, &["run", "--quiet", "--locked", "--package", "towpath-simulation", "--"]);
    command.args(&options.arguments);
    let status = command.stdin(Stdio::null()).status().map_err(|e| format!("starting the simulation failed: {e}"))?;
    Ok(status.success())
}
