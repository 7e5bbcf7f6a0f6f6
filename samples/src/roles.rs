//! One executable that can be each of the three programs: `<exe> role agent|relay|receiver ARGUMENTS…`.

use std::{ffi::OsString, iter, process::ExitCode};

/// The word that makes an executable one of the programs.
pub const ROLE: &str = "role";

/// Runs as one of the programs where the arguments ask for it; `None` where they do not.
#[must_use]
pub fn run(arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments;
    let _executable = arguments.next();
    if arguments.next()? != ROLE {
        return None;
    }
    let role = arguments.next()?;
    let program = |name: &str| iter::once(OsString::from(name));
    match role.to_str()? {
        "agent" => Some(towpath_agent::cli::run(program("towpath-agent").chain(arguments))),
        "relay" => Some(towpath_relay::cli::run(program("towpath-relay").chain(arguments))),
        "receiver" => Some(towpath_receiver::cli::run(program("towpath-receiver").chain(arguments))),
        _ => None,
    }
}
