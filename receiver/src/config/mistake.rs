//! What is wrong in a configuration file, and where.

use std::{fmt, ops::Range, path::PathBuf};

use thiserror::Error;
use towpath_transfer::{Code, Failure};

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
    pub(super) fn at(file: impl Into<PathBuf>, text: &str, span: Option<Range<usize>>, problem: impl Into<String>) -> Self {
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
    pub(super) fn from_toml(file: impl Into<PathBuf>, text: &str, error: &toml::de::Error) -> Self {
        let problem = error.message().trim_end().replace('\n', ", ");
        Self { meant: suggestion(&problem), ..Self::at(file, text, error.span(), problem) }
    }
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
}
