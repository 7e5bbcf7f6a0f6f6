//! A mistake in a configuration file, as a person wants to read it.

use towpath_transfer::{Code, Failure};

/// How many letters may differ for a key to be proposed instead of an unknown one.
const NEAR: usize = 3;

/// The mistake with file, line and column, and the key that was probably meant.
pub(super) fn explain(error: &toml::de::Error, text: &str, name: &str) -> Failure {
    let (line, column) = place(text, error.span().map_or(0, |span| span.start));
    let message = error.message();
    let guess = unknown(message).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    Failure::park(Code::ConfigInvalid, format!("{name}:{line}:{column}: {message}{guess}"))
}

fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The nearest expected key, out of serde's own words: ``unknown field `x`, expected one of `a`, `b` ``.
fn unknown(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("unknown field `")?;
    let (given, expected) = rest.split_once('`')?;
    let candidates = expected.split('`').skip(1).step_by(2);
    candidates.map(|key| (distance(given, key), key)).filter(|(far, _)| *far <= NEAR).min().map(|(_, key)| key)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let here = (diagonal + usize::from(x != *y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = here;
            left = here;
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
    fn distances_are_those_of_levenshtein() {
        for (a, b, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("limt", "limit", 1), ("same", "same", 0)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
