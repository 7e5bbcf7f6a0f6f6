//! Alerts: what is wrong is told once to a program, a webhook or both, and once more when it is well again.
//!
//! A watch finds out what is wrong and says so to a [`Desk`], as often as it likes. The desk keeps in a file what was raised and who
//! was told of it, so that neither a restart nor a crash makes an alert be lost; [`Means`] is how it tells. The agent and the relay
//! have one desk each.

mod book;
mod config;
mod desk;
mod means;

pub use book::{MAX_BOOK_BYTES, OpenAlert, open_alerts};
pub use config::{AlertConfig, DEFAULT_LATE_AFTER, LEAST_LATE_AFTER, MAX_ARGUMENTS, MAX_LATE_AFTER, RawAlert};
pub use desk::{Desk, DeskParts, FIRST_PAUSE, LONGEST_PAUSE};
pub use means::{MAX_PROGRAM_OUTPUT, Means, PROGRAM_TIMEOUT, SystemMeans, Told, Way};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_transfer::{AgentName, Code, JobName, TenantName, TransferId};

/// The version of [`Alert`].
pub const VERSION: u32 = 1;
/// The longest summary, in characters; the rest is cut off.
pub const MAX_SUMMARY_CHARS: usize = 500;

/// What an alert says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Something is wrong.
    Raised,
    /// It is well again.
    Recovered,
    /// Nothing is wrong: somebody tries whether alerts arrive.
    Test,
}

impl Kind {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Recovered => "recovered",
            Self::Test => "test",
        }
    }
}

/// What a program reads from its standard input and a webhook gets as its body. Fields may be added, none change their meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// [`VERSION`].
    pub version: u32,
    /// What it says.
    pub alert: Kind,
    /// The agent.
    pub agent: AgentName,
    /// Its tenant.
    pub tenant: TenantName,
    /// The job; absent where it is not about one.
    pub job: Option<JobName>,
    /// The operator error code.
    pub code: Code,
    /// One line for a person.
    pub summary: String,
    /// Since when something is wrong.
    pub since: Timestamp,
    /// The transfer that failed, where there is one.
    pub transfer: Option<TransferId>,
    /// The page of the code.
    pub help: String,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The agent.
    pub agent: AgentName,
    /// Its tenant.
    pub tenant: TenantName,
    /// The job; absent where it is not about one.
    pub job: Option<JobName>,
    /// The operator error code.
    pub code: Code,
    /// One line for a person.
    pub summary: String,
    /// Since when.
    pub since: Timestamp,
    /// The transfer that failed, where there is one.
    pub transfer: Option<TransferId>,
}

impl Trouble {
    /// What is told of it.
    #[must_use]
    pub fn alert(&self, alert: Kind) -> Alert {
        let what = self.job.as_ref().map_or_else(|| "return files".to_owned(), |job| format!("job {job}"));
        let text = match alert {
            Kind::Recovered => format!("{what} of {}/{} is well again; it was: {}", self.tenant, self.agent, self.summary),
            Kind::Raised | Kind::Test => self.summary.clone(),
        };
        Alert {
            version: VERSION,
            alert,
            agent: self.agent.clone(),
            tenant: self.tenant.clone(),
            job: self.job.clone(),
            code: self.code,
            summary: one_line(&text),
            since: self.since,
            transfer: self.transfer,
            help: format!("docs/errors/{}.md", self.code),
        }
    }
}

/// A text that fits a subject or an argument: one line, bounded.
fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= MAX_SUMMARY_CHARS {
        return line;
    }
    line.chars().take(MAX_SUMMARY_CHARS - 1).chain(['…']).collect()
}

/// What a watch has found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Something is wrong.
    Wrong(Box<Trouble>),
    /// All is well.
    Well,
    /// Not known: whatever was, stays.
    Unknown,
}
