//! One event, and how it looks.

use std::fmt::Write as _;

use tracing::Level;

/// The longest value of a field, in bytes; the rest is cut off.
pub const MAX_VALUE_BYTES: usize = 16 * 1024;
/// The most fields of one event, those of its spans included; further ones are left out.
pub const MAX_FIELDS: usize = 64;

/// What stands for the rest of a value that was cut off.
const CUT: &str = "…";
/// Names that a line has of its own.
const OWN_NAMES: [&str; 4] = ["timestamp", "level", "message", "target"];

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i128),
    /// A fraction.
    Number(f64),
    /// Yes or no.
    Flag(bool),
}

impl Value {
    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// When, as RFC 3339 has it.
    pub timestamp: String,
    /// How bad.
    pub level: Level,
    /// Which module tells it.
    pub target: &'static str,
    /// What happened.
    pub message: String,
    /// The rest; a name stands once.
    pub fields: Vec<(&'static str, Value)>,
}

impl Line {
    /// One line for people. What could end the line, move the cursor or pass for another field is escaped.
    #[must_use]
    pub fn text(&self, colours: bool) -> String {
        let (before, after) = match self.level {
            _ if !colours => ("", ""),
            Level::ERROR => ("\u{1b}[31m", "\u{1b}[0m"),
            Level::WARN => ("\u{1b}[33m", "\u{1b}[0m"),
            Level::INFO => ("\u{1b}[32m", "\u{1b}[0m"),
            _ => ("\u{1b}[34m", "\u{1b}[0m"),
        };
        let mut text = format!("{} {before}{:>5}{after} ", self.timestamp, self.level.as_str());
        text.push_str(&self.story());
        text
    }

    /// Message and fields, without time and level.
    #[must_use]
    pub fn story(&self) -> String {
        let mut text = escaped(&self.message);
        for (name, value) in &self.fields {
            let value = value.text();
            let plain = !value.is_empty() && !value.contains([' ', '"', '=', '\\']);
            let value = escaped(&value);
            // Writing to a string does not fail.
            let _ =
                if plain { write!(text, " {name}={value}") } else { write!(text, " {name}=\"{}\"", value.replace('"', "\\\"")) };
        }
        text
    }

    /// One JSON object on one line.
    #[must_use]
    pub fn json(&self) -> String {
        let mut text = format!(
            "{{\"timestamp\":{},\"level\":{},\"message\":{}",
            quoted(&self.timestamp),
            quoted(self.level.as_str()),
            quoted(&self.message)
        );
        for (name, value) in &self.fields {
            let value = match value {
                Value::Text(value) => quoted(value),
                Value::Number(number) if !number.is_finite() => quoted(&number.to_string()),
                other => other.text(),
            };
            let own = if OWN_NAMES.contains(name) { "_" } else { "" };
            let _ = write!(text, ",{}:{value}", quoted(&format!("{name}{own}")));
        }
        let _ = write!(text, ",\"target\":{}}}", quoted(self.target));
        text
    }
}

/// Text in JSON's form. Line separators of Unicode are escaped as well, which JSON leaves as they are.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            other => out.push(other),
        }
    }
    out
}

/// Text without anything that a terminal or a reader of lines takes for more than a character.
fn escaped(text: &str) -> String {
    crate::output::escaped(text, |c| c == '\\' || crate::output::moves(c))
}

/// Text of at most [`MAX_VALUE_BYTES`].
pub(super) fn bounded(mut text: String) -> String {
    if text.len() > MAX_VALUE_BYTES {
        let end = (0..=MAX_VALUE_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str(CUT);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, fields: Vec<(&'static str, Value)>) -> Line {
        let (timestamp, message) = ("2026-01-01T00:00:00Z".to_owned(), message.to_owned());
        Line { timestamp, level: Level::WARN, target: "towpath_x", message, fields }
    }

    #[test]
    fn a_line_for_people_and_one_for_programs() {
        let text = |value: &str| Value::Text(value.to_owned());
        let line = line(
            "is tried again",
            vec![("code", text("disk-full")), ("error", text("no space")), ("attempts", Value::Integer(3))],
        );
        assert_eq!(line.text(false), "2026-01-01T00:00:00Z  WARN is tried again code=disk-full error=\"no space\" attempts=3");
        assert!(line.text(true).contains("\u{1b}[33m WARN\u{1b}[0m is tried"), "{}", line.text(true));
        assert_eq!(
            line.json(),
            "{\"timestamp\":\"2026-01-01T00:00:00Z\",\"level\":\"WARN\",\"message\":\"is tried again\",\"code\":\"disk-full\",\
             \"error\":\"no space\",\"attempts\":3,\"target\":\"towpath_x\"}"
        );
    }

    #[test]
    fn values_from_outside_forge_neither_lines_nor_fields() {
        let evil = "a\r\n2026-01-01T00:00:00Z ERROR \u{1b}[2Jforged\u{85}\u{2028}\u{202e}x\" code=\"ok\\";
        let line = line(evil, vec![("file", Value::Text(evil.to_owned())), ("level", Value::Flag(true))]);
        for text in [line.text(false), line.json(), line.story()] {
            assert!(!text.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')), "{text:?}");
        }
        assert!(line.text(false).contains(r#"x\" code=\"ok\\""#), "{}", line.text(false));
        let json: serde_json::Value = serde_json::from_str(&line.json()).unwrap();
        assert_eq!(json["message"], evil);
        assert_eq!((&json["level"], &json["level_"]), (&"WARN".into(), &true.into()));
    }

    #[test]
    fn numbers_and_long_values_stay_within_json_and_bounds() {
        let line = line("m", vec![("nan", Value::Number(f64::NAN)), ("big", Value::Integer(i128::MAX))]);
        assert!(serde_json::from_str::<serde_json::Value>(&line.json()).is_ok(), "{}", line.json());
        let cut = bounded("ä".repeat(MAX_VALUE_BYTES));
        assert!(cut.len() <= MAX_VALUE_BYTES + CUT.len() && cut.ends_with("ä…"));
        assert_eq!(bounded("short".into()), "short");
    }
}
