//! The relay's part of the way from the app to the ERP: fetch, pack, queue, offer, and take the acknowledgement.

pub mod acknowledge;
pub mod alarm;
mod arrivals;
pub mod fetch;
pub mod pack;
pub mod queue;

#[cfg(test)]
mod tests;

use std::time::Duration;

use towpath_journal::{JournalError, Lease, Observer, StageReport};
use towpath_transfer::{Code, Failure, Stage, api::MAX_OFFERS, state::Place};

pub use arrivals::{Arrivals, MAX_POLLS_PER_AGENT, Waiting};

use crate::{
    admin::Metrics,
    audit::{Entry, Trail},
    scope::AgentScope,
};

/// The figures of the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownlinkSettings {
    /// Transfers fetched at once.
    pub fetch_at_once: usize,
    /// Transfers of one tenant fetched at once; at least one. Whoever's app server does not answer holds no more places.
    pub fetch_per_tenant: usize,
    /// Transfers packed at once.
    pub pack_at_once: usize,
    /// Transfers that may be on their way to one agent at once.
    pub waiting: usize,
    /// How long a transfer may be queued before that is an alarm.
    pub alarm_after: Duration,
}

impl Default for DownlinkSettings {
    fn default() -> Self {
        Self {
            fetch_at_once: 16,
            fetch_per_tenant: 4,
            pack_at_once: 2,
            waiting: MAX_OFFERS,
            alarm_after: Duration::from_hours(24),
        }
    }
}

/// Passes on what the stages report, notes it in the audit trail, and hints the agent for which something was queued.
#[derive(Debug)]
pub(crate) struct Announcer {
    pub(crate) next: Metrics,
    pub(crate) arrivals: Arrivals,
    pub(crate) trail: Trail,
}

impl Observer for Announcer {
    fn stage_started(&self, place: Place, stage: Stage, lease: &Lease) {
        self.next.stage_started(place, stage, lease);
    }

    fn stage_finished(&self, report: &StageReport<'_>) {
        // Also where the answer of the journal was lost: the list says what there is.
        if report.stage == Stage::Queue {
            self.arrivals.hint(&AgentScope::of_key(report.key));
        }
        if let Some(entry) = Entry::of_stage(self.trail.now(), report) {
            self.trail.record(entry);
        }
        self.next.stage_finished(report);
    }

    fn journal_failed(&self, place: Place, stage: Stage, error: &JournalError) {
        self.next.journal_failed(place, stage, error);
    }
}

/// The app server does not have what was announced; its receiver lays it out again.
fn missing(what: &str) -> Failure {
    Failure::retry(Code::ExportMissing, format!("fetch return files from the app server: {what}"))
}

fn wrong_state(lease: &Lease) -> Failure {
    let word = lease.record.state.word();
    Failure::park(Code::Internal, format!("a {word} transfer was leased for a stage it is not in"))
}
