//! Configuration files: TOML, every key known, every mistake with its place and what was probably meant.

mod every;
mod hints;
mod outline;
mod report;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    io::Read as _,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use toml::de::{DeTable, DeValue};
use towpath_transfer::{Code, Failure};

pub use every::{MAX_MISTAKES, every_mistake};
pub use report::{CheckReport, checked, refused, tell};

use self::outline::Outline;

/// The largest configuration file, in bytes.
pub const MAX_CONFIG_BYTES: usize = 1024 * 1024;

/// The largest number of letters by which a misspelt key may differ from the one that is suggested.
const MAX_MISSPELLING: usize = 3;

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize)]
pub struct ConfigMistake {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: String,
    /// The key or value that was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meant: Option<String>,
    /// What to do, where the mistake is one that people make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Box<str>>,
    /// Where in the text it begins, in bytes; `None` where that is not known.
    #[serde(skip)]
    start: Option<usize>,
}

impl fmt::Display for ConfigMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.problem)?;
        if let Some(meant) = &self.meant {
            write!(f, " - did you mean `{meant}`?")?;
        }
        match &self.hint {
            Some(hint) => write!(f, " - {hint}"),
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
        let known = span.map(|span| span.start.min(text.len()));
        let start = known.unwrap_or(0);
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            file: file.into(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            problem: problem.into(),
            meant: None,
            hint: None,
            start: known,
        }
    }

    /// The mistake, with the nearest of `names` where `given` is likely a misspelling of it.
    #[must_use]
    pub fn meaning<'a>(self, given: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { meant: closest(given, names).map(str::to_owned), ..self }
    }

    /// What the TOML reader found.
    #[must_use]
    pub fn from_toml(file: impl Into<PathBuf>, text: &str, error: &toml::de::Error) -> Self {
        let problem = hints::in_plain_words(&error.message().trim_end().replace('\n', ", "));
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.get(hints::line_at(text, start)).unwrap_or_default();
        let is_syntax = DeTable::parse(text).is_err();
        let hint = match &*problem {
            outline::DUPLICATE => Some(Outline::of(text).hint_of_duplicate(text, start)),
            _ if is_syntax => hints::of_syntax(line, &problem).or_else(|| hints::of_no_statement(line)),
            _ => None,
        };
        let hint = hint.map(String::into_boxed_str);
        Self { meant: suggestion(&problem), hint, ..Self::at(file, text, error.span(), problem) }
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
    let mut bytes = Vec::new();
    let limit = MAX_CONFIG_BYTES as u64 + 1;
    opened.take(limit).read_to_end(&mut bytes).map_err(|error| tried(Code::ConfigInvalid).caused_by(error))?;
    if bytes.len() > MAX_CONFIG_BYTES {
        return Err(tried(Code::ConfigInvalid).caused_by(format!("it is larger than {MAX_CONFIG_BYTES} bytes")));
    }
    as_text(bytes).map_err(|why| Failure::park(Code::ConfigInvalid, format!("{}{why}", file.display())))
}

/// The text of a file in UTF-8, without a byte order mark.
fn as_text(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) || bytes.iter().take(4).any(|byte| *byte == 0) {
        return Err(": the file is saved as UTF-16 (\"Unicode\"); save it as UTF-8".to_owned());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Err(error) => {
            let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
            let start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let column = String::from_utf8_lossy(good.get(start..).unwrap_or_default()).chars().count() + 1;
            Err(format!(":{line}:{column}: this character is not UTF-8; save the file as UTF-8"))
        }
    }
}

/// Parses the text of a configuration file; `file` names it in mistakes.
///
/// # Errors
/// The first [`ConfigMistake`].
pub fn parse<T: DeserializeOwned>(text: &str, file: &Path) -> Result<T, ConfigMistake> {
    let parsed = toml::from_str(text).map_err(|error| ConfigMistake::from_toml(file, text, &error))?;
    // Only what has a backslash can have lost it.
    match text.contains('\\').then(|| DeTable::parse(text).ok()).flatten().and_then(|table| changed_path(table.get_ref())) {
        Some((span, problem, hint)) => {
            Err(ConfigMistake { hint: Some(hint.into()), ..ConfigMistake::at(file, text, Some(span), problem) })
        }
        None => Ok(parsed),
    }
}

/// The first Windows path whose backslashes TOML has taken for something else.
fn changed_path(table: &DeTable<'_>) -> Option<(Range<usize>, &'static str, &'static str)> {
    fn of_value(value: &toml::Spanned<DeValue<'_>>) -> Option<(Range<usize>, &'static str, &'static str)> {
        match value.get_ref() {
            DeValue::String(text) => hints::of_text(text).map(|(problem, hint)| (value.span(), problem, hint)),
            DeValue::Array(values) => values.iter().find_map(of_value),
            DeValue::Table(table) => changed_path(table),
            _ => None,
        }
    }
    table.iter().find_map(|(_, value)| of_value(value))
}

/// Where the value of a setting stands, such as `["relay", "listen"]`; of its section where it is not there, `None` where that is
/// not there either.
#[must_use]
pub fn place(text: &str, path: &[&str]) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut found = None;
    for name in path {
        let Some((_, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else { break };
        found = Some(value.span());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    found
}

/// The expected name closest to the one given, from serde's "unknown field `x`, expected one of `a`, `b`".
fn suggestion(problem: &str) -> Option<String> {
    if !problem.starts_with("unknown field") && !problem.starts_with("unknown variant") {
        return None;
    }
    let mut quoted = problem.split('`').skip(1).step_by(2);
    let given = quoted.next()?;
    closest(given, quoted).map(str::to_owned)
}

/// The name of `names` that `given` is likely a misspelling of.
pub fn closest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |name: &str| distance(given, name);
    let (meant, letters) = names.into_iter().map(|name| (name, near(name))).min_by_key(|(_, letters)| *letters)?;
    (letters <= MAX_MISSPELLING && letters < given.chars().count()).then_some(meant)
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
