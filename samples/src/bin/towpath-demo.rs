//! The demo: receiver, relay and agent as separate processes on this machine, and one cycle in front of the user.

use std::process::ExitCode;

use clap::Parser;
use towpath_samples::{demo, roles};

fn main() -> ExitCode {
    // The demo starts this same program again, once for each role.
    if let Some(code) = roles::run(std::env::args_os()) {
        return code;
    }
    demo::run(&demo::Options::parse())
}
