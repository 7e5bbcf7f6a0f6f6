//! Runs seeds, and tells the story of those that fail; `cargo xtask simulate`.

use std::process::ExitCode;

fn main() -> ExitCode {
    if towpath_simulation::cli::answer() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
