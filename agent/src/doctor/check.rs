//! What a check says.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use towpath_transfer::{Clock, Code, Failure, failure::FailureRecord};

use super::remedy;
use crate::view::FailureView;

/// The longest text of a check, in characters; what is longer is cut.
pub const MAX_TEXT_CHARS: usize = 1000;

/// How a check has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All is well.
    Ok,
    /// The agent works, and a person should know something.
    Warning,
    /// It keeps the agent from its work, or soon will.
    Failed,
    /// It could not be looked at; the check says why.
    Skipped,
}

impl Outcome {
    /// The sign for people.
    #[must_use]
    pub const fn sign(self) -> char {
        match self {
            Self::Ok => '✓',
            Self::Warning => '!',
            Self::Failed => '✗',
            Self::Skipped => '-',
        }
    }
}

/// One check. This form is stable: fields may be added, none change their meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it is called by programs, such as `way:ssh:443`: the same in every version.
    pub id: String,
    /// What it is called by people.
    pub title: String,
    /// How it has ended.
    pub outcome: Outcome,
    /// What was tried.
    pub tried: String,
    /// What was found, or why it was not looked for.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remedy: Option<String>,
    /// The code of what is wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<Code>,
    /// The user that was refused or let in, where that matters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
}

/// A check before it has ended.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    id: String,
    title: String,
    tried: String,
}

impl Subject {
    pub(super) fn new(id: impl Into<String>, title: impl Into<String>, tried: impl Into<String>) -> Self {
        Self { id: id.into(), title: title.into(), tried: tried.into() }
    }

    fn ended(self, outcome: Outcome, found: impl Into<String>) -> Check {
        let found = cut(found.into());
        Check { id: self.id, title: self.title, outcome, tried: cut(self.tried), found, remedy: None, code: None, user: None }
    }

    pub(super) fn ok(self, found: impl Into<String>) -> Check {
        self.ended(Outcome::Ok, found)
    }

    pub(super) fn skipped(self, why: impl Into<String>) -> Check {
        self.ended(Outcome::Skipped, why)
    }

    pub(super) fn warning(self, code: Option<Code>, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { code, remedy: Some(cut(remedy.into())), ..self.ended(Outcome::Warning, found) }
    }

    pub(super) fn wrong(self, code: Code, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { code: Some(code), remedy: Some(cut(remedy.into())), ..self.ended(Outcome::Failed, found) }
    }

    /// As [`Subject::wrong`], with the remedy that belongs to the failure's code.
    pub(super) fn failed(self, failure: &Failure) -> Check {
        self.wrong(failure.code(), said(failure), remedy::of(failure.code()))
    }

    /// Gives `work` up after `limit`.
    pub(super) async fn within(self, clock: &dyn Clock, limit: Duration, work: impl AsyncFnOnce(Self) -> Check) -> Check {
        let late = self.clone();
        tokio::select! {
            check = work(self) => check,
            () = clock.sleep(limit) => late.wrong(
                Code::CheckFailed,
                format!("there was no result within {} seconds", limit.as_secs()),
                "see whether a drive, a server or a database that it needs hangs, and run doctor again",
            ),
        }
    }
}

/// Message and causes without the code, which stands beside them.
pub(super) fn said(failure: &Failure) -> String {
    FailureView::from(&FailureRecord::from(failure)).report
}

fn cut(text: String) -> String {
    if text.chars().count() <= MAX_TEXT_CHARS {
        return text;
    }
    text.chars().take(MAX_TEXT_CHARS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use towpath_transfer::clock::ManualClock;

    use super::*;

    #[test]
    fn texts_have_a_limit() {
        let check = Subject::new("x", "x", "y".repeat(5_000)).wrong(Code::Internal, "ä".repeat(5_000), "z");
        assert_eq!([check.tried.chars().count(), check.found.chars().count()], [MAX_TEXT_CHARS; 2]);
        assert!(check.found.ends_with('…'));
        let failure = Failure::park(Code::DiskFull, "writing").caused_by("no space");
        let check = Subject::new("x", "x", "y").failed(&failure);
        assert_eq!((check.found.as_str(), check.code), ("writing: no space", Some(Code::DiskFull)));
        assert_eq!(serde_json::from_str::<Check>(&serde_json::to_string(&check).unwrap()).unwrap(), check);
    }

    #[tokio::test]
    async fn what_never_ends_is_given_up() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let work = Subject::new("x", "x", "y").within(&clock, Duration::from_secs(7), async |_| std::future::pending().await);
        let pass = async {
            loop {
                clock.advance(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        };
        let check = tokio::select! {
            check = work => check,
            () = pass => unreachable!("time passes for ever"),
        };
        assert_eq!((check.outcome, check.found.as_str()), (Outcome::Failed, "there was no result within 7 seconds"));
    }
}
