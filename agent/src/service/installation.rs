//! What of this host belongs to the service: made from the configuration, for the unit and for the owners of files.

use std::{
    collections::BTreeSet,
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
    /// The folders beside the state folder in which it makes or moves files: of deliveries, of dropped files and their archive, and
    /// of SQLite databases, which keep files beside them.
    pub writable: BTreeSet<PathBuf>,
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
        let mut writable = BTreeSet::new();
        let mut seen = BTreeSet::from([executable.clone(), loaded.file.clone(), state.clone()]);
        for delivery in &config.deliveries {
            writable.insert(delivery.folder.clone());
            seen.extend(delivery.run.iter().map(|run| run.program.clone()));
            if let Some(LoadConfig::Sqlite { path, .. }) = &delivery.load {
                writable.extend(path.parent().map(Path::to_owned));
            }
        }
        for job in &config.jobs {
            match &job.source {
                SourceConfig::Sqlite { path, .. } => writable.extend(path.parent().map(Path::to_owned)),
                SourceConfig::Files(files) => {
                    writable.insert(files.folder.clone());
                    writable.insert(files.archive.clone().unwrap_or_else(|| files.folder.join(DEFAULT_ARCHIVE)));
                }
                SourceConfig::PostgreSql(server) | SourceConfig::MariaDb(server) => {
                    seen.extend(server.ca.clone());
                    seen.insert(PathBuf::from(&server.host));
                }
                SourceConfig::Odbc(_) => {}
            }
        }
        let odbc = config.jobs.iter().any(|job| matches!(job.source, SourceConfig::Odbc(_)));
        let foreign_code = odbc || config.deliveries.iter().any(|delivery| delivery.run.is_some());
        let secrets = secrets(config);
        seen.extend(writable.iter().chain(&secrets).cloned());
        let (config, user) = (loaded.file.clone(), user.to_owned());
        Self { executable, config, state, user, writable, secrets, seen, foreign_code }
    }

    /// Whether it has to see something below one of these folders.
    pub(super) fn sees_below(&self, folders: &[&str]) -> bool {
        self.seen.iter().any(|path| folders.iter().any(|folder| path.starts_with(folder)))
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
