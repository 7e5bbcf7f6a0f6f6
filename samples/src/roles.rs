//! One executable that can be each of the three programs: `<exe> role agent|relay|receiver ARGUMENTS…`, or by the name of one.

use std::{
    ffi::{OsStr, OsString},
    iter,
    path::Path,
    process::ExitCode,
};

/// The word that makes an executable one of the programs.
pub const ROLE: &str = "role";

/// Runs as one of the programs where the arguments ask for it, or where it is called by the name of one (`towpath-agent`), as an
/// installed one is; `None` where neither is so.
#[must_use]
pub fn run(arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let (role, arguments) = role(arguments)?;
    let program = |name: &str| iter::once(OsString::from(name));
    match role.as_str() {
        "agent" => Some(towpath_agent::cli::run(program("towpath-agent").chain(arguments))),
        "relay" => Some(towpath_relay::cli::run(program("towpath-relay").chain(arguments))),
        "receiver" => Some(towpath_receiver::cli::run(program("towpath-receiver").chain(arguments))),
        _ => None,
    }
}

/// The role, and the arguments for it.
fn role(mut arguments: impl Iterator<Item = OsString>) -> Option<(String, impl Iterator<Item = OsString>)> {
    let executable = arguments.next()?;
    let mut arguments = arguments.peekable();
    if arguments.next_if(|word| word == ROLE).is_some() {
        let role = arguments.next()?.into_string().ok()?;
        return Some((role, arguments));
    }
    let name = Path::new(&executable).file_stem().and_then(OsStr::to_str)?;
    Some((name.strip_prefix("towpath-")?.to_owned(), arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_the_word_or_the_name() {
        let role = |words: &[&str]| {
            let (role, rest) = role(words.iter().map(OsString::from))?;
            Some((role, rest.map(|word| word.into_string().unwrap_or_default()).collect::<Vec<_>>()))
        };
        let agent = || ("agent".to_owned(), vec!["status".to_owned()]);
        assert_eq!(role(&["/x/towpath-e2e-program", ROLE, "agent", "status"]), Some(agent()));
        assert_eq!(role(&["/usr/bin/towpath-agent", "status"]), Some(agent()));
        assert_eq!(role(&["towpath-relay", ROLE, "agent", "status"]), Some(agent()), "the word counts");
        assert_eq!(role(&["other", "agent"]), None);
        assert_eq!(role(&[]), None);
        let nobody = ["/x/towpath-demo", "--exit"].map(OsString::from);
        assert!(run(nobody.into_iter()).is_none());
    }
}
