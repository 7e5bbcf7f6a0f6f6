//! `towpath-agent`: the program on the ERP host.

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_agent::cli::run(std::env::args_os())
}
