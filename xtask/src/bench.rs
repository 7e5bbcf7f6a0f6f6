//! `cargo xtask bench`: our speed beside that of the usual tools, on the same bytes and in the same run.
//!
//! Each benchmark is a program in `xtask/benches`. It prints its own lines; a ratio measured in one run says more than two
//! times that were taken on different days.

use std::process::Stdio;

use clap::Args;

use crate::{console::say, repository};

/// Every benchmark, in the order in which they run.
const BENCHMARKS: &[&str] = &["packing"];

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Benchmarks to run; all of them where none is named.
    names: Vec<String>,
}

/// Runs the benchmarks. True when all of them could be measured.
///
/// # Errors
/// A name that is no benchmark, or cargo that does not start.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let chosen = choose(&options.names)?;
    let root = repository::root()?;
    let mut measured = true;
    for name in chosen {
        say(&format!("== {name}"));
        let mut command =
            repository::cargo(&root, &["bench", "--quiet", "--locked", "--package", "towpath-xtask", "--bench", name]);
        let status = command.stdin(Stdio::null()).status().map_err(|e| format!("starting cargo bench failed: {e}"))?;
        measured &= status.success();
    }
    Ok(measured)
}

fn choose(names: &[String]) -> Result<Vec<&'static str>, String> {
    if names.is_empty() {
        return Ok(BENCHMARKS.to_vec());
    }
    let known = |name: &String| BENCHMARKS.iter().find(|known| *known == name).copied();
    let unknown = |name: &String| format!("{name} is no benchmark; there are: {}", BENCHMARKS.join(", "));
    names.iter().map(|name| known(name).ok_or_else(|| unknown(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_benchmarks_or_those_named() {
        assert_eq!(choose(&[]), Ok(BENCHMARKS.to_vec()));
        assert_eq!(choose(&["packing".to_owned()]), Ok(vec!["packing"]));
        assert!(choose(&["pecking".to_owned()]).unwrap_err().contains("there are: packing"));
    }

    #[test]
    fn every_benchmark_is_a_program() {
        let folder = repository::root().unwrap().join("xtask/benches");
        assert!(BENCHMARKS.iter().all(|name| folder.join(format!("{name}.rs")).is_file()));
    }
}
