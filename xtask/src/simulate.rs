//! `cargo xtask simulate`: seeds of the simulation, each the same every time.

use std::process::Stdio;

use clap::Args;

use crate::repository;

/// What the simulation is asked for; it knows its options itself.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Its options: `--help` tells them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Runs the seeds. True when nothing was wrong with any of them.
///
/// # Errors
/// Cargo that does not start.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let root = repository::root()?;
    let mut command = repository::cargo(&root, &["run", "--quiet", "--locked", "--package", "towpath-simulation", "--"]);
    command.args(&options.options);
    let status = command.stdin(Stdio::null()).status().map_err(|e| format!("starting the simulation failed: {e}"))?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::{Chore, Cli};

    #[test]
    fn everything_is_passed_on() {
        for given in [&["--seed=7", "--seeds=2"] as &[&str], &["--faults", "3", "--story", "--trace", "--json"], &["--help"]] {
            let Chore::Simulate(asked) = Cli::parse_from([&["xtask", "simulate"], given].concat()).chore else {
                panic!("another chore");
            };
            assert_eq!(asked.options, given);
        }
    }
}
