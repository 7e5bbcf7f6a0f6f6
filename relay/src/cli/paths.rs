//! Where configuration and state lie.

use std::{env, path::PathBuf};

use directories::ProjectDirs;
use towpath_transfer::{Code, Failure, failure::Result};

use super::args::{Args, Command};
use crate::config::{self, Config};

/// The name of this program's configuration file and state folder.
const NAME: &str = "relay";

/// The configuration: the file that is named, or the one in its usual place, or the defaults.
pub(super) fn config(args: &Args) -> Result<Config> {
    let mut config = match &args.config {
        Some(path) => Config::load(path)?,
        None => match usual_config() {
            Some(path) if path.exists() => Config::load(&path)?,
            _ => Config::default(),
        },
    };
    if let Some(url) = &args.public_url {
        config.relay.public_url = config::public_url(url).map_err(|why| Failure::park(Code::ConfigInvalid, why))?;
    }
    if let Command::Serve(options) = &args.command {
        if !options.listen.is_empty() {
            config.relay.listen.clone_from(&options.listen);
        }
        config.relay.admin = options.admin.unwrap_or(config.relay.admin);
    }
    Ok(config)
}

/// The state folder: named, configured, given by systemd, or the usual one.
pub(super) fn state(args: &Args, config: &Config) -> Result<PathBuf> {
    let given = args.state.clone().or_else(|| config.relay.state.clone()).or_else(|| first_of("STATE_DIRECTORY"));
    let usual = || {
        if is_root() { Some(PathBuf::from("/var/lib/towpath").join(NAME)) } else { own().map(|dirs| dirs.data_dir().join(NAME)) }
    };
    let unknown = || Failure::park(Code::ConfigInvalid, "it is not known where the state shall lie: say --state DIR");
    given.or_else(usual).ok_or_else(unknown)
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
