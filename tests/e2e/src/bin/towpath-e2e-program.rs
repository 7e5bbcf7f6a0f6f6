//! The three programs in one executable, with their failpoints, for the end-to-end tests to start and kill.

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_samples::roles::run(std::env::args_os()).unwrap_or(ExitCode::from(2))
}
