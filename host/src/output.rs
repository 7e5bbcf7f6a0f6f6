//! What is printed: results on standard output, everything else on standard error. Only the programs' `cli` calls this.

use std::io::{self, Write as _};

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;
use towpath_transfer::{Code, Failure};

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

/// The text of a table for people.
#[must_use]
pub fn table_text(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(head.iter().map(|word| word.to_uppercase()));
    table.add_rows(rows);
    table.trim_fmt()
}

/// A word to a person beside the result.
pub fn say(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// The failure that ended the program, once.
pub fn failed(failure: &Failure) {
    say(&format!("error: {}\nhelp: see docs/errors/{}.md", failure.report(), failure.code()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_enough_is_no_failure() {
        assert!(written(Ok(())).is_ok());
        assert!(written(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert_eq!(written(Err(io::ErrorKind::StorageFull.into())).unwrap_err().code(), Code::FileFailed);
    }
}
