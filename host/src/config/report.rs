//! How the check of a configuration file is told.

use std::path::Path;

use serde::Serialize;
use towpath_transfer::{Code, Failure};

use super::{ConfigMistake, every_mistake, read_text};
use crate::output;

/// What `config check --json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct CheckReport<'a> {
    /// The file.
    pub file: &'a Path,
    /// Whether it can be used.
    pub valid: bool,
    /// What is wrong, in the order of the places.
    pub mistakes: &'a [ConfigMistake],
    /// What is allowed, and better done otherwise.
    pub warnings: &'a [String],
    /// What this process cannot look at.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub unseen: &'a [String],
}

/// Tells a person what is better done otherwise, and what was not looked at.
pub fn tell(warnings: &[String], unseen: &[String]) {
    for warning in warnings {
        output::say(&format!("warning: {warning}"));
    }
    for unseen in unseen {
        output::say(&format!("note: {unseen}"));
    }
}

/// Reads a configuration file by `read` for a person who asks what is wrong with it: every mistake is told. `example` is the
/// program's example file.
///
/// # Errors
/// As [`read_text`]; `config-invalid` after the mistakes were told.
pub fn checked<T>(file: &Path, example: &str, json: bool, read: &dyn Fn(&str) -> Result<T, ConfigMistake>) -> Result<T, Failure> {
    let text = read_text(file)?;
    match every_mistake(&text, file, example, read) {
        Ok(config) => Ok(config),
        Err(mistakes) => Err(refused(file, &mistakes, json)?),
    }
}

/// Tells of the mistakes of a file, as JSON on standard output or as lines on standard error, and makes the failure of them.
///
/// # Errors
/// Where standard output cannot be written.
pub fn refused(file: &Path, mistakes: &[ConfigMistake], json: bool) -> Result<Failure, Failure> {
    if json {
        output::json(&CheckReport { file, valid: false, mistakes, warnings: &[], unseen: &[] })?;
    }
    match mistakes {
        [only] => Ok(only.clone().into()),
        several => {
            for mistake in several.iter().filter(|_| !json) {
                output::say(&mistake.to_string());
            }
            let most = if several.len() >= super::MAX_MISTAKES { "at least " } else { "" };
            let told = format!("{} has {most}{} mistakes", file.display(), several.len());
            Ok(Failure::park(Code::ConfigInvalid, told))
        }
    }
}
