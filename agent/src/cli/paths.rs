//! Where configuration and state lie.

use std::{env, path::PathBuf};

use directories::ProjectDirs;
use towpath_transfer::{Code, Failure, failure::Result};

use super::args::Args;
use crate::config::Config;

/// The name of this program's configuration file and state folder.
const NAME: &str = "agent";

/// The configuration file: named, given by systemd, or in its usual place.
pub(super) fn config_file(args: &Args) -> Result<PathBuf> {
    let file = format!("{NAME}.toml");
    if let Some(named) = &args.config {
        return Ok(named.clone());
    }
    if let Some(folder) = first_of("CONFIGURATION_DIRECTORY") {
        return Ok(folder.join(file));
    }
    let usual = if is_root() { Some(PathBuf::from("/etc/towpath")) } else { own().map(|dirs| dirs.config_dir().to_owned()) };
    let unknown = || Failure::park(Code::ConfigMissing, "it is not known where the configuration lies: say --config FILE");
    usual.map(|folder| folder.join(file)).ok_or_else(unknown)
}

/// The state folder: named, configured, given by systemd, or the usual one.
pub(super) fn state(args: &Args, config: Option<&Config>) -> Result<PathBuf> {
    let configured = config.and_then(|config| config.state.folder.clone());
    let given = args.state.clone().or(configured).or_else(|| first_of("STATE_DIRECTORY"));
    let usual = || {
        if is_root() { Some(PathBuf::from("/var/lib/towpath").join(NAME)) } else { own().map(|dirs| dirs.data_dir().join(NAME)) }
    };
    let unknown = || Failure::park(Code::ConfigInvalid, "it is not known where the state shall lie: say --state DIR");
    let folder = given.or_else(usual).ok_or_else(unknown)?;
    // Paths in results must mean the same to whoever reads them elsewhere.
    std::path::absolute(&folder).map_err(|error| unknown().caused_by(error))
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
