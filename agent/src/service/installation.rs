//! What of this host belongs to the service: made from the configuration, for the unit and for the owners of files.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use towpath_transfer::Secret;
#[cfg(unix)]
use towpath_transfer::{Code, Failure, failure::Result};

use crate::config::{Config, DEFAULT_ARCHIVE, LoadConfig, LoadedConfig, SourceConfig};

/// The user of the service where nobody says otherwise.
#[cfg(not(windows))]
pub const DEFAULT_USER: &str = "towpath";
/// The user of the service where nobody says otherwise: the virtual account that Windows has for every service.
#[cfg(windows)]
pub const DEFAULT_USER: &str = r"NT SERVICE\TowpathAgent";

/// A service that is to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// This program's file.
    pub executable: PathBuf,
    /// The configuration file, absolute.
    pub config: PathBuf,
    /// The state folder, absolute, and where there are links in its path, what they lead to: see `resolved`.
    pub state: PathBuf,
    /// The user it runs as.
    pub user: String,
    /// The folders beside the state folder in which it makes or moves files: of deliveries, of dropped files and their archive, of
    /// SQLite databases, which keep files beside them, and of the log file.
    pub writable: BTreeSet<PathBuf>,
    /// Those of them that are somebody else's: all but one that is only the log file's.
    pub others: BTreeSet<PathBuf>,
    /// The log file, where it lies outside of the state folder.
    pub log: Option<PathBuf>,
    /// Programs that it starts, as far as they are named by a path.
    pub programs: BTreeSet<PathBuf>,
    /// Files with a secret that the configuration refers to.
    pub secrets: BTreeSet<PathBuf>,
    /// Every path that it has to see.
    pub seen: BTreeSet<PathBuf>,
    /// Whether code of others runs in it or is started by it: ODBC drivers, programs that follow a delivery.
    pub foreign_code: bool,
}

impl Installation {
    /// What the configuration names.
    #[must_use]
    pub fn new(executable: PathBuf, loaded: &LoadedConfig, state: PathBuf, user: &str) -> Self {
        let config = &loaded.config;
        let mut others = BTreeSet::new();
        let mut seen = BTreeSet::from([executable.clone(), loaded.file.clone(), state.clone()]);
        let log = config.log.file.clone().filter(|file| !file.starts_with(&state));
        let started = config.deliveries.iter().filter_map(|delivery| delivery.run.as_ref().map(|run| &run.program));
        let started: Vec<&PathBuf> = started.chain(&config.alert.program).collect();
        for delivery in &config.deliveries {
            others.insert(delivery.folder.clone());
            if let Some(LoadConfig::Sqlite { path, .. }) = &delivery.load {
                others.extend(path.parent().map(Path::to_owned));
            }
        }
        for job in &config.jobs {
            match &job.source {
                SourceConfig::Sqlite { path, .. } => others.extend(path.parent().map(Path::to_owned)),
                SourceConfig::Files(files) => {
                    others.insert(files.folder.clone());
                    others.insert(files.archive.clone().unwrap_or_else(|| files.folder.join(DEFAULT_ARCHIVE)));
                }
                SourceConfig::PostgreSql(server) | SourceConfig::MariaDb(server) => {
                    seen.extend(server.ca.clone());
                    seen.insert(PathBuf::from(&server.host));
                }
                SourceConfig::Odbc(_) => {}
            }
        }
        let odbc = config.jobs.iter().any(|job| matches!(job.source, SourceConfig::Odbc(_)));
        let foreign_code = odbc || !started.is_empty();
        // A bare name is looked for where the system looks for programs.
        let programs: BTreeSet<PathBuf> = started.into_iter().filter(|program| program.is_absolute()).cloned().collect();
        let secrets = secrets(config);
        let mut writable = others.clone();
        writable.extend(log.iter().filter_map(|file| file.parent()).map(Path::to_owned));
        seen.extend(writable.iter().chain(&secrets).chain(&programs).cloned());
        // What lies behind a link has to be seen as well.
        let real: Vec<PathBuf> =
            seen.iter().filter(|path| path.is_absolute()).filter_map(|path| path.canonicalize().ok()).collect();
        seen.extend(real);
        let (config, user) = (loaded.file.clone(), user.to_owned());
        Self { executable, config, state, user, writable, others, log, programs, secrets, seen, foreign_code }
    }

    /// Whether the log file's folder is also one of deliveries, sources or archives.
    pub(super) fn log_folder_is_others(&self) -> bool {
        self.log.as_deref().and_then(Path::parent).is_some_and(|folder| self.others.contains(folder))
    }

    /// Whether it has to see something below one of these folders.
    pub(super) fn sees_below(&self, folders: &[&str]) -> bool {
        self.seen.iter().any(|path| folders.iter().any(|folder| path.starts_with(folder)))
    }
}

/// Whether an entry of a log file's folder is that file, or one that was put aside: `x.log`, `x.log.1` and so on.
pub(crate) fn is_of_log(file: &Path, entry: &std::ffi::OsStr) -> bool {
    let (Some(name), entry) = (file.file_name(), entry.as_encoded_bytes()) else { return false };
    let Some(rest) = entry.strip_prefix(name.as_encoded_bytes()) else { return false };
    rest.is_empty() || rest.strip_prefix(b".").is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// Whether a folder may be given to the service: something of an agent is in it, or nothing at all, or it is not there.
///
/// # Errors
/// As the disk reports.
pub fn is_agents_or_empty(folder: &Path, ours: &[&Path]) -> io::Result<bool> {
    if ours.iter().any(|path| path.exists()) {
        return Ok(true);
    }
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// The folder itself where its path has links, because a link is not given to anybody and the unit grants what it names. What is not
/// there yet keeps its name.
///
/// # Errors
/// `service-failed` for a link to nothing, and where the system does not tell.
#[cfg(unix)]
pub fn resolved(folder: &Path) -> Result<PathBuf> {
    let failed = |error| {
        let message = format!("where the state folder {} leads to cannot be told", folder.display());
        Failure::park(Code::ServiceFailed, message).caused_by(error)
    };
    let folder = std::path::absolute(folder).map_err(failed)?;
    for there in folder.ancestors() {
        match there.canonicalize() {
            Ok(real) => {
                let missing = folder.strip_prefix(there).unwrap_or(Path::new(""));
                return Ok(real.components().chain(missing.components()).collect());
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !there.is_symlink() => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(folder)
}

fn secrets(config: &Config) -> BTreeSet<PathBuf> {
    let file = |secret: &Secret| match secret {
        Secret::File(path) => Some(path.clone()),
        _ => None,
    };
    config.secrets().into_iter().filter_map(|(_, secret)| file(secret)).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_log_file_and_what_was_put_aside_of_it_are_its_own() {
        let of = |entry: &str| is_of_log(Path::new("/var/log/towpath/agent.log"), OsStr::new(entry));
        assert!(["agent.log", "agent.log.1", "agent.log.12"].into_iter().all(of));
        assert!(!["agent.log.", "agent.log.gz", "agent.log.1.gz", "agent.logs", "syslog", "1"].into_iter().any(of));
    }
}
