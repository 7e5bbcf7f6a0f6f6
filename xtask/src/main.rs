//! `cargo xtask`: the chores of this repository. `test` is the whole check, `tidy` its fences, `simulate` and `fuzz` the searches for what nobody
//! thought of, `package` what is installed, `bench` the figures.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod console;
mod fuzz;
mod needs;
mod package;
mod repository;
mod simulate;
mod suite;
mod tidy;

/// The chores of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Check formats, fences, lints and docs, then run all tests.
    Test(suite::Options),
    /// Check the fences between the rooms and the form of every file.
    Tidy,
    /// Run a whole installation with everything that can go wrong, as a seed draws it.
    Simulate(simulate::Options),
    /// Let libFuzzer look for input that breaks a parser.
    Fuzz(fuzz::Options),
    /// Make the packages that administrators install.
    Package(package::Options),
    /// Measure our speed beside that of the usual tools.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Test(options) => suite::run(&options),
        Chore::Tidy => tidy::run(),
        Chore::Simulate(options) => simulate::run(&options),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::Package(options) => package::run(&options),
        Chore::Bench(options) => bench::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            console::complain(&format!("xtask: {problem}"));
            ExitCode::from(2)
        }
    }
}
