//! Alarm: return files that wait for an agent that does not come. Nothing is removed; somebody is told.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use jiff::Timestamp;
use towpath_journal::{Filter, Journal, MAX_LIST, TransferRecord};
use towpath_transfer::{Code, Failure, TenantName, TransferKey, TransferState, failure::Result};

use crate::scope::AgentScope;

/// How often the same agent is warned about.
pub const WARN_AGAIN: Duration = Duration::from_hours(24);

/// What waits too long for one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// How many transfers.
    pub transfers: u64,
    /// The one that has waited longest.
    pub oldest: TransferKey,
    /// Since when.
    pub since: Timestamp,
}

/// Whether a transfer has been queued for `after` or longer.
#[must_use]
pub fn is_overdue(record: &TransferRecord, now: Timestamp, after: Duration) -> bool {
    let queued = matches!(record.state, TransferState::Queued { .. });
    queued && Duration::try_from(now.duration_since(record.changed)).is_ok_and(|waited| waited >= after)
}

/// Who was warned about, and when. It knows only agents for which something is overdue.
#[derive(Debug)]
pub struct Alarm {
    after: Duration,
    warned: HashMap<AgentScope, Timestamp>,
}

impl Alarm {
    /// An alarm that counts a transfer as overdue that has been queued for `after`.
    #[must_use]
    pub fn new(after: Duration) -> Self {
        Self { after, warned: HashMap::new() }
    }

    /// Looks at everything that is queued, warns where that is due, and returns how many transfers of each tenant are overdue
    /// and which agents were warned about.
    ///
    /// # Errors
    /// [`Code::JournalFailed`].
    pub async fn ring(&mut self, journal: &dyn Journal, now: Timestamp) -> Result<(BTreeMap<TenantName, u64>, Vec<AgentScope>)> {
        let overdue = self.overdue(journal, now).await?;
        let mut tenants = BTreeMap::new();
        self.warned.retain(|scope, _| overdue.contains_key(scope));
        let mut warned = Vec::new();
        for (scope, found) in overdue {
            *tenants.entry(scope.tenant().tenant().clone()).or_default() += found.transfers;
            let last = self.warned.get(&scope);
            let again = |last: &Timestamp| Duration::try_from(now.duration_since(*last)).is_ok_and(|past| past >= WARN_AGAIN);
            if last.is_none_or(again) {
                let (transfers, oldest, since) = (found.transfers, found.oldest, found.since);
                tracing::warn!(
                    agent = %scope, code = %Code::AgentSilent, transfers, %oldest, %since,
                    "return files wait for an agent that has not taken them"
                );
                self.warned.insert(scope.clone(), now);
                warned.push(scope);
            }
        }
        Ok((tenants, warned))
    }

    async fn overdue(&self, journal: &dyn Journal, now: Timestamp) -> Result<BTreeMap<AgentScope, Overdue>> {
        let filter = Filter { state: Some("queued".to_owned()), ..Filter::default() };
        let (mut found, mut below) = (BTreeMap::<AgentScope, Overdue>::new(), None);
        loop {
            let page = journal.list(&filter, MAX_LIST, below).await.map_err(Failure::from)?;
            for record in page.iter().filter(|record| is_overdue(record, now, self.after)) {
                let new = Overdue { transfers: 0, oldest: record.key.clone(), since: record.changed };
                let entry = found.entry(AgentScope::of_record(record)).or_insert(new);
                entry.transfers += 1;
                if record.changed < entry.since {
                    (entry.oldest, entry.since) = (record.key.clone(), record.changed);
                }
            }
            if page.len() < MAX_LIST {
                return Ok(found);
            }
            below = page.last().map(|record| record.serial);
        }
    }
}
