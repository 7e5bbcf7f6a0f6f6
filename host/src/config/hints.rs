//! What people who are new to TOML fall over, and what to do instead.

use std::ops::Range;

/// Marks that word processors put in the place of plain quotes.
const PRINTED_QUOTES: &[char] = &['“', '”', '„', '‟', '‘', '’', '‚', '«', '»', '″'];
/// Spaces that look like one and are none to TOML.
const ODD_SPACES: &[char] = &['\u{a0}', '\u{2003}', '\u{2009}', '\u{200b}', '\u{202f}', '\u{feff}'];
/// What numbers are called in messages.
const NUMBERS: &[&str] = &["u8", "u16", "u32", "u64", "usize", "i8", "i16", "i32", "i64", "isize", "f32", "f64"];

/// A hint for a text that is no TOML, from the line that it stands in. It never has a part of the line in it but the key, because
/// the line may hold a password.
pub(super) fn of_syntax(line: &str, problem: &str) -> Option<String> {
    let hint = |text: &str| Some(text.to_owned());
    if line.contains(PRINTED_QUOTES) {
        return hint("these are the quotes of a word processor; TOML knows \" and ' only");
    }
    if line.contains(ODD_SPACES) {
        return hint("there is a space in this line that is none, copied from a document; write it anew");
    }
    if has_windows_path(line) || problem.contains("escape") {
        return hint(WINDOWS_PATH);
    }
    let (key, value) = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()))?;
    let is_word = value.starts_with(|c: char| c.is_alphabetic() || matches!(c, '/' | '\\' | '.' | '~'));
    if is_word && !matches!(value, "true" | "false") {
        return Some(format!("a text stands in quotes: {key} = \"…\""));
    }
    if value.is_empty() {
        return Some(format!("`{key}` has no value; leave the line out, or put # before it"));
    }
    None
}

/// A hint for a line that is no `key = value` at all.
pub(super) fn of_no_statement(line: &str) -> Option<String> {
    let line = line.trim();
    let key = line.split([':', ' ']).next().unwrap_or_default();
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    (is_key && !line.contains('=') && line.contains(':')).then(|| format!("TOML writes {key} = …, not {key}: …"))
}

const WINDOWS_PATH: &str =
    "in double quotes \\ begins a special character; put a Windows path into single quotes: 'C:\\Users\\erp'";

/// Whether a Windows path stands in double quotes.
fn has_windows_path(line: &str) -> bool {
    line.match_indices('"').any(|(at, _)| {
        let mut after = line.get(at + 1..).unwrap_or_default().chars();
        let (first, second, third) = (after.next(), after.next(), after.next());
        let drive = first.is_some_and(|c| c.is_ascii_alphabetic()) && second == Some(':') && third == Some('\\');
        drive || (first == Some('\\') && second == Some('\\'))
    })
}

/// What is wrong with a text that became another by TOML's special characters, such as "C:\new\table".
pub(super) fn of_text(text: &str) -> Option<(&'static str, &'static str)> {
    let mut chars = text.chars();
    let (first, second) = (chars.next(), chars.next());
    let is_drive = first.is_some_and(|c| c.is_ascii_alphabetic()) && second == Some(':');
    let is_path = is_drive || first == Some('\\');
    let problem = "this path has a line end, a tab or another control character in it";
    (is_path && text.chars().any(char::is_control)).then_some((problem, WINDOWS_PATH))
}

/// A hint for what serde says of a value.
pub(super) fn of_value(problem: &str, key: Option<&str>) -> Option<String> {
    let (given, expected) = problem.strip_prefix("invalid type: ")?.rsplit_once(", expected ")?;
    let key = key.unwrap_or("key");
    let is_text = given.starts_with("string");
    let is_number = given.starts_with("integer") || given.starts_with("floating");
    if is_text && NUMBERS.contains(&expected) {
        return Some(format!("a number stands without quotes: {key} = 123"));
    }
    if is_text && expected == "a boolean" {
        return Some(format!("without quotes: {key} = true or {key} = false"));
    }
    if (is_number || given.starts_with("boolean")) && expected.contains("string") {
        return Some(format!("put it in quotes: {key} = \"…\""));
    }
    if expected.contains("sequence") {
        return Some(match given {
            "map" => format!("there may be several, so it is written with two brackets: [[{key}]]"),
            _ => format!("it is a list, in brackets: {key} = [\"…\"]"),
        });
    }
    (given == "sequence" && expected == A_SECTION).then(|| format!("there is only one, written with one bracket: [{key}]"))
}

/// What a section is called in messages.
pub(super) const A_SECTION: &str = "a section";

/// A message without the names that our own types have.
pub(super) fn in_plain_words(problem: &str) -> String {
    match problem.split_once("expected struct ") {
        Some((before, name)) => {
            let rest = name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            format!("{before}expected {A_SECTION}{rest}")
        }
        None => problem.to_owned(),
    }
}

/// The sections of an example file, commented out or not, in which a key stands.
pub(super) fn sections_with(example: &str, key: &str) -> Vec<String> {
    let mut section = String::new();
    let mut found: Vec<String> = Vec::new();
    for line in example.lines() {
        let line = line.trim_start_matches('#').trim();
        if let Some(name) = header(line) {
            section = name;
        } else if line.split_once(" = ").is_some_and(|(name, _)| name == key) && !found.contains(&section) {
            found.push(section.clone());
        }
    }
    found
}

fn header(line: &str) -> Option<String> {
    let name = line.strip_prefix('[')?;
    let name = name.split(']').next()?.trim_start_matches('[');
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    let doubled = line.starts_with("[[");
    is_name.then(|| if doubled { format!("[[{name}]]") } else { format!("[{name}]") })
}

/// The line in which a place stands, without its end.
pub(super) fn line_at(text: &str, at: usize) -> Range<usize> {
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |line| line + 1);
    let end = text.get(at..).and_then(|after| after.find('\n')).map_or(text.len(), |length| at + length);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traps_of_syntax_have_a_hint_without_the_value() {
        for (line, word) in [
            ("password = “hunter2”", "word processor"),
            ("password\u{a0}= \"hunter2\"", "copied from a document"),
            (r#"password = "C:\hunter2""#, "single quotes"),
            (r#"password = "\\hunter2\x""#, "single quotes"),
            ("password = hunter2", "password = \"…\""),
            ("password = /hunter2", "in quotes"),
            ("password = ", "has no value"),
        ] {
            let hint = of_syntax(line, "").unwrap();
            assert!(hint.contains(word) && !hint.contains("hunter2"), "{line}: {hint}");
        }
        assert_eq!(of_syntax("a = 1 2", ""), None);
        assert!(of_syntax(r#"a = "\s""#, "missing escaped value").is_some());
        assert_eq!(of_no_statement("kind: hunter2").as_deref(), Some("TOML writes kind = …, not kind: …"));
    }

    #[test]
    fn texts_that_became_others_are_found() {
        assert!(of_text("C:\new\table").is_some());
        assert!(of_text("C:/new/table").is_none() && of_text("a\tb").is_none());
    }

    #[test]
    fn values_of_another_type_have_a_hint() {
        for (problem, hint) in [
            ("invalid type: string \"5432\", expected u16", "a number stands without quotes: port = 123"),
            ("invalid type: string \"yes\", expected a boolean", "port = true or"),
            ("invalid type: integer `5`, expected a string", "put it in quotes: port = \"…\""),
            ("invalid type: map, expected a sequence", "[[port]]"),
            ("invalid type: string \"a\", expected a sequence", "port = [\"…\"]"),
            ("invalid type: sequence, expected a section", "[port]"),
        ] {
            assert!(of_value(problem, Some("port")).unwrap().contains(hint), "{problem}");
        }
        assert_eq!(in_plain_words("invalid type: map, expected struct RawJob"), "invalid type: map, expected a section");
    }

    #[test]
    fn keys_are_known_by_the_example() {
        let example = "top = 1\n[a]\nx = 1\n# [[b]]\n# x = 2\n# Prose [c] is none\n# y = 1\n";
        assert_eq!(sections_with(example, "x"), ["[a]", "[[b]]"]);
        assert_eq!(sections_with(example, "y"), ["[[b]]"]);
        assert_eq!(sections_with(example, "top"), [""]);
        assert!(sections_with(example, "z").is_empty());
    }
}
