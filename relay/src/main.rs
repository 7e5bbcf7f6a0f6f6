//! `towpath-relay`

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_relay::cli::run(std::env::args_os())
}
