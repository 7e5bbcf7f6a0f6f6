//! `secret protect`: a password in the form that a configuration file may hold.

use super::{args::SecretCommand, output};
use towpath_transfer::failure::Result;

pub(super) fn run(command: &SecretCommand) -> Result<()> {
    match command {
        SecretCommand::Protect => output::line(&protected()?),
    }
}

#[cfg(windows)]
fn protected() -> Result<String> {
    towpath_keys::secrets::protect(&password()?)
}

/// Only Windows keeps a key for its machine that needs no password itself; nothing is asked for that could not be kept.
#[cfg(not(windows))]
fn protected() -> Result<String> {
    towpath_keys::secrets::protect("")
}

/// One line: typed without echo, or from standard input.
#[cfg(windows)]
fn password() -> Result<String> {
    use std::io::{self, IsTerminal as _, Read as _};

    use towpath_transfer::{
        Code, Failure,
        secret::{MAX_SECRET_BYTES, MAX_SECRET_FILE_BYTES},
    };

    let failed = |error| Failure::park(Code::SecretUnusable, "reading the secret failed").caused_by(error);
    let mut text = String::new();
    if io::stdin().is_terminal() {
        output::say("The secret, which is not shown:");
        text = console::Term::stderr().read_secure_line().map_err(failed)?;
    } else {
        io::stdin().lock().take(MAX_SECRET_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    }
    let line = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() || line.len() > MAX_SECRET_BYTES {
        return Err(Failure::park(Code::SecretUnusable, format!("a secret has 1 to {MAX_SECRET_BYTES} bytes")));
    }
    Ok(line.to_owned())
}
