//! Where configuration and state lie.

use std::{env, path::PathBuf};

use directories::ProjectDirs;
use towpath_transfer::{Code, Failure};

use super::args::Args;
use crate::config::Config;

/// The name of this program's configuration file and state folder.
const NAME: &str = "receiver";

/// The configuration: the file that is named, or the one in its usual place, or the defaults.
pub(super) fn config(args: &Args) -> Result<Config, Failure> {
    match &args.config {
        Some(path) => Config::read(path),
        None => match usual_config() {
            Some(path) if path.exists() => Config::read(&path),
            _ => Config::defaults(),
        },
    }
}

/// The state folder: named, configured, given by systemd, or the usual one.
pub(super) fn state(args: &Args, config: &Config) -> Result<PathBuf, Failure> {
    let given = args.state.clone().or_else(|| config.state.clone()).or_else(|| first_of("STATE_DIRECTORY"));
    let usual = || {
        if is_root() { Some(PathBuf::from("/var/lib/towpath").join(NAME)) } else { own().map(|dirs| dirs.data_dir().join(NAME)) }
    };
    let unknown = || Failure::park(Code::ConfigInvalid, "it is not known where the state shall lie: say --state DIR");
    let state = given.or_else(usual).ok_or_else(unknown)?;
    std::path::absolute(&state)
        .map_err(|e| Failure::park(Code::ConfigInvalid, format!("{} cannot be a state folder", state.display())).caused_by(e))
}

fn usual_config() -> Option<PathBuf> {
    let file = format!("{NAME}.toml");
    if let Some(folder) = first_of("CONFIGURATION_DIRECTORY") {
        return Some(folder.join(file));
    }
    if is_root() { Some(PathBuf::from("/etc/towpath").join(file)) } else { own().map(|dirs| dirs.config_dir().join(file)) }
}

fn own() -> Option<ProjectDirs> {
    ProjectDirs::from("", "", "towpath")
}

/// systemd joins several folders with colons; the first is ours.
fn first_of(variable: &str) -> Option<PathBuf> {
    let value = env::var(variable).ok()?;
    value.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}
