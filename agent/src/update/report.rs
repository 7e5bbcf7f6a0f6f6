//! How updates have ended, as whoever applies them tells the agent: a file that root writes and everybody reads.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_transfer::{Code, Failure, failure::Result, release::ReleaseVersion};
use towpath_transport::files::Disk;

use crate::small_file;

/// The most versions that are remembered as not working; the oldest are forgotten first.
pub const MAX_REFUSED: usize = 50;
/// The longest reason, in characters.
const MAX_WHY_CHARS: usize = 1000;
/// Larger than any that is written.
const MAX_BYTES: usize = 64 * 1024;

/// How an update has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new version works.
    Installed,
    /// It did not, and the one before works again.
    RolledBack,
    /// Neither works.
    Failed,
}

/// An update that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The version before.
    pub from: ReleaseVersion,
    /// The version that was to follow.
    pub to: ReleaseVersion,
    /// When it had ended.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// Why; empty where it works.
    #[serde(default)]
    pub why: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, at, outcome, why } = self;
        match outcome {
            Outcome::Installed => write!(f, "updated from {from} to {to} at {at}"),
            Outcome::RolledBack => write!(f, "update to {to} undone at {at}, {from} runs again: {why}"),
            Outcome::Failed => write!(f, "update to {to} failed at {at}, and so did going back to {from}: {why}"),
        }
    }
}

/// An update that was not begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postponed {
    /// The version that waits, where that is known.
    pub to: Option<ReleaseVersion>,
    /// When it was looked at.
    pub at: Timestamp,
    /// What it waits for.
    pub why: String,
    /// Whether that is for good: what lies ready is not taken, however often it is looked at.
    #[serde(default)]
    pub refused: bool,
}

/// What is known of the updates of this host. Fields may be added: the version before reads it as well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The last update that was tried.
    #[serde(default)]
    pub last: Option<Attempt>,
    /// What waits, where the last look has begun nothing.
    #[serde(default)]
    pub postponed: Option<Postponed>,
    /// The versions that did not work here.
    #[serde(default)]
    pub refused: Vec<ReleaseVersion>,
    /// The version whose package is kept, to go back to it.
    #[serde(default)]
    pub kept: Option<ReleaseVersion>,
}

impl Report {
    /// Where it lies in root's folder.
    #[must_use]
    pub fn path(kept: &Path) -> PathBuf {
        kept.join("report.json")
    }

    /// Reads it; an empty one where there is none. Blocking.
    ///
    /// # Errors
    /// `file-failed`, also where it is damaged: it may name versions that do not work.
    pub fn read(kept: &Path) -> Result<Self> {
        let path = Self::path(kept);
        let Some(bytes) = small_file::read(&Disk, &path, MAX_BYTES)? else { return Ok(Self::default()) };
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::park(Code::FileFailed, format!("reading {}", path.display())).caused_by(error))
    }

    /// Takes note of how an update has ended.
    pub fn note(&mut self, mut attempt: Attempt) {
        if attempt.outcome != Outcome::Installed && !self.refused.contains(&attempt.to) {
            self.refused.push(attempt.to);
            let over = self.refused.len().saturating_sub(MAX_REFUSED);
            self.refused.drain(..over);
        }
        self.postponed = None;
        attempt.why = attempt.why.chars().take(MAX_WHY_CHARS).collect();
        self.last = Some(attempt);
    }

    /// What a person should know, as long as nothing newer has followed: an update that did not work, with what it means.
    #[must_use]
    pub fn trouble(&self, installed: ReleaseVersion) -> Option<(Code, &Attempt)> {
        let last = self.last.as_ref()?;
        match last.outcome {
            Outcome::RolledBack if installed == last.from => Some((Code::UpdateRolledBack, last)),
            Outcome::Failed if installed <= last.to => Some((Code::UpdateFailed, last)),
            _ => None,
        }
    }
}
