//! `[log]`: the same section in every program's configuration.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::file::FileSettings;
use crate::Bytes;

/// How large a log file becomes unless it is said.
pub const DEFAULT_MAX_BYTES: Bytes = Bytes(10 * 1024 * 1024);
/// The smallest bound of a log file.
pub const LEAST_MAX_BYTES: Bytes = Bytes(64 * 1024);
/// How many files that were put aside are kept unless it is said.
pub const DEFAULT_FILES: usize = 5;
/// The most files that were put aside.
pub const MAX_FILES: usize = 100;

/// What is logged at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What needs a person.
    Error,
    /// What may need one.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// Every step of it.
    Debug,
}

impl Level {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// From which level on a service logs.
    pub level: Level,
    /// Also into this file, one JSON object a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A file that is larger is put aside.
    #[serde(deserialize_with = "max_bytes")]
    pub max_bytes: Bytes,
    /// So many that were put aside are kept, at most [`MAX_FILES`].
    #[serde(deserialize_with = "files")]
    pub files: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: Level::default(), file: None, max_bytes: DEFAULT_MAX_BYTES, files: DEFAULT_FILES }
    }
}

impl LogConfig {
    /// The same with a file whose relative path counts from `folder`.
    #[must_use]
    pub fn resolved(self, folder: &Path) -> Self {
        Self { file: self.file.map(|file| folder.join(file)), ..self }
    }

    pub(super) fn file_settings(&self) -> Option<FileSettings> {
        let settings = |path: &PathBuf| FileSettings { path: path.clone(), max_bytes: self.max_bytes.0, files: self.files };
        self.file.as_ref().map(settings)
    }
}

fn max_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    let bytes = Bytes::deserialize(from)?;
    if bytes < LEAST_MAX_BYTES {
        return Err(D::Error::custom(format!("max_bytes is at least {LEAST_MAX_BYTES}")));
    }
    Ok(bytes)
}

fn files<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let files = usize::deserialize(from)?;
    if files > MAX_FILES {
        return Err(D::Error::custom(format!("files is 0 to {MAX_FILES}")));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct File {
        #[serde(default)]
        log: LogConfig,
    }

    fn parse(text: &str) -> Result<LogConfig, String> {
        let file: Result<File, _> = crate::config::parse(text, Path::new("x.toml"));
        file.map(|file| file.log).map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn the_section_has_defaults_and_shows_itself_as_it_is_written() {
        assert_eq!(parse("").unwrap(), LogConfig::default());
        let text = "[log]\nlevel = \"debug\"\nfile = \"a.log\"\nmax_bytes = \"1MiB\"\nfiles = 0\n";
        let config = parse(text).unwrap().resolved(Path::new("/etc"));
        assert_eq!((config.level, config.files, config.file.as_deref()), (Level::Debug, 0, Some(Path::new("/etc/a.log"))));
        assert_eq!(parse(&format!("[log]\n{}", toml::to_string(&config).unwrap())).unwrap(), config);
        assert_eq!(Level::ALL_WORDS, ["error", "warn", "info", "debug"].map(str::to_owned));
    }

    impl Level {
        const ALL_WORDS: [&'static str; 4] =
            [Self::Error.as_str(), Self::Warn.as_str(), Self::Info.as_str(), Self::Debug.as_str()];
    }

    #[test]
    fn mistakes_have_their_place() {
        for (text, place, word) in [
            ("level = \"wran\"\n", "x.toml:2:9: ", "did you mean `warn`"),
            ("max_bytes = \"1KiB\"\n", "x.toml:2:13: ", "at least 64KiB"),
            ("max_bytes = \"lots\"\n", "x.toml:2:13: ", "amount of data"),
            ("files = 101\n", "x.toml:2:9: ", "0 to 100"),
            ("fiel = \"x\"\n", "x.toml:2:1: ", "did you mean `file`"),
        ] {
            let said = parse(&format!("[log]\n{text}")).unwrap_err();
            assert!(said.starts_with(place) && said.contains(word), "{said}");
        }
    }
}
