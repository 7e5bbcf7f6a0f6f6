//! Configuration files: TOML, every key known, every mistake with its place and what was probably meant.

use std::{
    fmt,
    io::Read as _,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use thiserror::Error;
use towpath_transfer::{Code, Failure};

/// The largest configuration file, in bytes.
pub const MAX_CONFIG_BYTES: usize = 1024 * 1024;

/// The largest number of letters by which a misspelt key may differ from the one that is suggested.
const MAX_MISSPELLING: usize = 3;

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct ConfigMistake {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: String,
    /// The key that was probably meant.
    pub meant: Option<String>,
}

impl fmt::Display for ConfigMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.problem)?;
        match &self.meant {
            Some(meant) => write!(f, " - did you mean `{meant}`?"),
            None => Ok(()),
        }
    }
}

impl From<ConfigMistake> for Failure {
    fn from(mistake: ConfigMistake) -> Self {
        Self::park(Code::ConfigInvalid, mistake.to_string())
    }
}

impl ConfigMistake {
    /// A mistake at a place in `text`.
    #[must_use]
    pub fn at(file: impl Into<PathBuf>, text: &str, span: Option<Range<usize>>, problem: impl Into<String>) -> Self {
        let start = span.map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            file: file.into(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            problem: problem.into(),
            meant: None,
        }
    }

    /// What the TOML reader found.
    #[must_use]
    pub fn from_toml(file: impl Into<PathBuf>, text: &str, error: &toml::de::Error) -> Self {
        let problem = error.message().trim_end().replace('\n', ", ");
        Self { meant: suggestion(&problem), ..Self::at(file, text, error.span(), problem) }
    }
}

/// Reads the text of a configuration file.
///
/// # Errors
/// `config-missing` where there is no such file; `config-invalid` where it cannot be read, is not UTF-8 or is larger than
/// [`MAX_CONFIG_BYTES`].
pub fn read_text(file: &Path) -> Result<String, Failure> {
    let tried = |code| Failure::park(code, format!("reading the configuration {} failed", file.display()));
    let opened = std::fs::File::open(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => tried(Code::ConfigMissing).caused_by(error),
        _ => tried(Code::ConfigInvalid).caused_by(error),
    })?;
    let mut text = String::new();
    let limit = MAX_CONFIG_BYTES as u64 + 1;
    opened.take(limit).read_to_string(&mut text).map_err(|error| tried(Code::ConfigInvalid).caused_by(error))?;
    if text.len() > MAX_CONFIG_BYTES {
        return Err(tried(Code::ConfigInvalid).caused_by(format!("it is larger than {MAX_CONFIG_BYTES} bytes")));
    }
    Ok(text)
}

/// Parses the text of a configuration file; `file` names it in mistakes.
///
/// # Errors
/// The first [`ConfigMistake`].
pub fn parse<T: DeserializeOwned>(text: &str, file: &Path) -> Result<T, ConfigMistake> {
    toml::from_str(text).map_err(|error| ConfigMistake::from_toml(file, text, &error))
}

/// The expected name closest to the one given, from serde's "unknown field `x`, expected one of `a`, `b`".
fn suggestion(problem: &str) -> Option<String> {
    if !problem.starts_with("unknown field") && !problem.starts_with("unknown variant") {
        return None;
    }
    let mut quoted = problem.split('`').skip(1).step_by(2);
    let given = quoted.next()?;
    let near = |name: &str| distance(given, name);
    let (meant, letters) = quoted.map(|name| (name, near(name))).min_by_key(|(_, letters)| *letters)?;
    (letters <= MAX_MISSPELLING && letters < given.chars().count()).then(|| meant.to_owned())
}

/// Levenshtein's distance in characters.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (b, cell) in to.iter().zip(row.iter_mut().skip(1)) {
            let best = (diagonal + usize::from(a != *b)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn only_near_names_are_suggested() {
        let problem = "unknown field `tabel`, expected one of `name`, `schedule`, `source`, `table`";
        assert_eq!(suggestion(problem).as_deref(), Some("table"));
        assert_eq!(suggestion("unknown field `zzzzzzzz`, expected `name`"), None);
        assert_eq!(suggestion("missing field `name`"), None);
    }

    #[test]
    fn places_count_characters_and_lines() {
        let text = "ä = 1\nöö = x\n";
        let at = text.find('x').unwrap();
        let mistake = ConfigMistake::at("f", text, Some(at..at + 1), "bad");
        assert_eq!((mistake.line, mistake.column), (2, 6));
    }

    #[test]
    fn missing_large_and_misspelt_files_are_told_apart() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Sample {
            #[serde(rename = "listen")]
            _listen: Option<String>,
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.toml");
        assert_eq!(read_text(&file).unwrap_err().code(), Code::ConfigMissing);
        std::fs::write(&file, "#".repeat(MAX_CONFIG_BYTES + 1)).unwrap();
        assert_eq!(read_text(&file).unwrap_err().code(), Code::ConfigInvalid);
        let mistake = parse::<Sample>("\nlitsen = \"x\"\n", Path::new("x.toml")).unwrap_err().to_string();
        assert!(mistake.starts_with("x.toml:2:1: ") && mistake.ends_with("did you mean `listen`?"), "{mistake}");
    }
}
