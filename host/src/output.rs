//! What is printed: results on standard output, everything else on standard error. Only the programs' `cli` calls this.

use std::{
    io::{self, Write as _},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;
use towpath_transfer::{Code, Failure};

/// Whether a result was printed as JSON already.
static PRINTED_JSON: AtomicBool = AtomicBool::new(false);
/// How the commands of this program are repeated.
static REPEATED: OnceLock<Repeated> = OnceLock::new();

/// How a program is called again, so that it works with the same configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    /// What the program is called in messages.
    pub program: &'static str,
    /// The names of its commands.
    pub commands: Vec<String>,
    /// The options with which it was called and that every command takes, as a shell reads them.
    pub options: String,
}

impl Repeated {
    /// A text in which every command of the program that it names has the options as well: whoever copies a command out of a hint
    /// would otherwise be with another configuration.
    #[must_use]
    pub fn in_text(&self, text: &str) -> String {
        let mut told = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(self.program) {
            let (before, from) = rest.split_at(at);
            let after = from.strip_prefix(self.program).unwrap_or_default();
            told.push_str(before);
            told.push_str(self.program);
            let stands_alone = !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '/' | '.'));
            if stands_alone && self.is_command(after) {
                told.push(' ');
                told.push_str(&self.options);
            }
            rest = after;
        }
        told + rest
    }

    /// Whether a text goes on with a command that works on a configuration; one that makes the file's example does not.
    fn is_command(&self, text: &str) -> bool {
        let Some(text) = text.strip_prefix(' ') else { return false };
        let word = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap_or_default();
        self.commands.iter().any(|command| command == word) && !text.starts_with("config example")
    }
}

/// Lets what [`say`], [`hint`] and [`failed`] name of this program's commands be repeated so; the first call counts.
pub fn repeat_with(how: Repeated) {
    let _ = REPEATED.set(how);
}

fn repeated(text: &str) -> String {
    REPEATED.get().map_or_else(|| text.to_owned(), |how| how.in_text(text))
}

/// As [`line()`], for a line that may name commands of this program.
///
/// # Errors
/// Where standard output cannot be written.
pub fn hint(text: &str) -> Result<(), Failure> {
    line(&repeated(text))
}

/// One line, or several, of a result.
///
/// # Errors
/// Where standard output cannot be written; a pipe that its reader has closed is no failure.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(writeln!(out, "{text}").and_then(|()| out.flush()))
}

/// Whoever closes the pipe early, like `head`, has read what it wanted.
fn written(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::park(Code::FileFailed, "writing to standard output failed").caused_by(e)),
    }
}

/// A result for programs.
///
/// # Errors
/// Where standard output is closed.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    PRINTED_JSON.store(true, Ordering::Relaxed);
    line(&text.map_err(|e| Failure::park(Code::Internal, "writing a result as JSON failed").caused_by(e))?)
}

/// A result for people; `none` is said where there are no rows.
///
/// # Errors
/// Where standard output is closed.
pub fn table(head: &[&str], rows: Vec<Vec<String>>, none: &str) -> Result<(), Failure> {
    if rows.is_empty() {
        say(none);
        return Ok(());
    }
    line(&table_text(head, rows))
}

/// The text of a table for people. What a terminal takes for more than a character is escaped in the cells, for their text may come
/// from outside.
#[must_use]
pub fn table_text(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let rows = rows.into_iter().map(|row| row.iter().map(|cell| escaped(cell, moves)).collect::<Vec<_>>());
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(head.iter().map(|word| word.to_uppercase()));
    table.add_rows(rows);
    table.trim_fmt()
}

/// Text with an escape in the place of each character that is one of `these`.
pub(crate) fn escaped(text: &str, these: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if these(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Whether a terminal or a reader of lines takes a character for more than that.
pub(crate) fn moves(c: char) -> bool {
    let is_direction = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_direction || matches!(c, '\u{2028}' | '\u{2029}')
}

/// A word to a person beside the result.
pub fn say(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{}", repeated(text));
}

/// What a program prints for programs that has failed before it had a result.
#[derive(Debug, Serialize)]
struct FailedView<'a> {
    ok: bool,
    code: Code,
    error: &'a str,
}

/// The failure that ended the program, once; where JSON was asked for and nothing of it was printed yet, also as such.
pub fn failed(failure: &Failure, as_json: bool) {
    if as_json && !PRINTED_JSON.load(Ordering::Relaxed) {
        let (code, report) = (failure.code(), failure.report());
        let error = report.strip_suffix(&format!(" [{code}]")).unwrap_or(&report);
        // Where standard output is closed the same stands on standard error.
        let _ = json(&FailedView { ok: false, code, error });
    }

    say(&format!("error: {}\nhelp: see docs/errors/{}.md", failure.report(), failure.code()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_with_the_options_that_lead_to_the_same_configuration() {
        let how = Repeated {
            program: "towpath-agent",
            commands: ["send", "run", "config", "service"].map(str::to_owned).to_vec(),
            options: "--config '/a b.toml'".to_owned(),
        };
        for (text, told) in [
            ("run: towpath-agent send --wait", "run: towpath-agent --config '/a b.toml' send --wait"),
            ("`towpath-agent run`, or towpath-agent", "`towpath-agent --config '/a b.toml' run`, or towpath-agent"),
            ("no towpath-agent runs on it", "no towpath-agent runs on it"),
            ("towpath-agent config check", "towpath-agent --config '/a b.toml' config check"),
            ("towpath-agent config example > FILE", "towpath-agent config example > FILE"),
            ("journalctl -u towpath-agent -n 20", "journalctl -u towpath-agent -n 20"),
            ("/usr/bin/towpath-agent run", "/usr/bin/towpath-agent run"),
            ("my-towpath-agent run", "my-towpath-agent run"),
            ("", ""),
        ] {
            assert_eq!(how.in_text(text), told);
        }
    }

    #[test]
    fn a_cell_is_no_more_than_its_characters() {
        let cell = "a\u{1b}[2J\n999 \u{9b}\u{202e}\u{2028}\t \\ \u{e4}".to_owned();
        let text = table_text(&["one", "two"], vec![vec![cell, "b".to_owned()]]);
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(text.contains("a\\u{1b}[2J\\n999 \\u{9b}\\u{202e}\\u{2028}\\t \\ \u{e4}"), "{text:?}");
    }

    #[test]
    fn a_reader_that_has_enough_is_no_failure() {
        assert!(written(Ok(())).is_ok());
        assert!(written(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert_eq!(written(Err(io::ErrorKind::StorageFull.into())).unwrap_err().code(), Code::FileFailed);
    }
}
