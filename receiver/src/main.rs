//! `towpath-receiver`

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_receiver::cli::run(std::env::args_os())
}
