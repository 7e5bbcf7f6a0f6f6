//! `cargo xtask simulate`: seeds of the simulation, each the same every time.

use std::process::Stdio;

use clap::Args;

use crate::repository;

/// Which seeds, and what is told of them.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, from the first on; as many at once as there are cores.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// At most so many faults, the first ones of each seed, and no outages: to find which of them a failure takes.
    #[arg(long)]
    faults: Option<u64>,
    /// Tell the story of every seed, and not only of those that fail.
    #[arg(long)]
    story: bool,
    /// Tell every call across a seam.
    #[arg(long)]
    trace: bool,
    /// One JSON object for each seed, and no text.
    #[arg(long)]
    json: bool,
}

/// Runs the seeds. True when nothing was wrong with any of them.
///
/// # Errors
/// Cargo that does not start.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let root = repository::root()?;
    let mut command = repository::cargo(&root, &["run", "--quiet", "--locked", "--package", "towpath-simulation", "--"]);
    command.args(arguments(options));
    let status = command.stdin(Stdio::null()).status().map_err(|e| format!("starting the simulation failed: {e}"))?;
    Ok(status.success())
}

fn arguments(options: &Options) -> Vec<String> {
    let mut arguments = vec![format!("--seed={}", options.seed), format!("--seeds={}", options.seeds)];
    arguments.extend(options.faults.map(|faults| format!("--faults={faults}")));
    let flags = [("--story", options.story), ("--trace", options.trace), ("--json", options.json)];
    arguments.extend(flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag.to_owned()));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_passed_on() {
        let none = Options { seed: 7, seeds: 2, faults: None, story: false, trace: false, json: false };
        assert_eq!(arguments(&none), ["--seed=7", "--seeds=2"]);
        let all = Options { faults: Some(3), story: true, trace: true, json: true, ..none };
        assert_eq!(arguments(&all), ["--seed=7", "--seeds=2", "--faults=3", "--story", "--trace", "--json"]);
    }
}
