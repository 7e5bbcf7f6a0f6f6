//! A journal in memory, for simulations: deterministic, and it survives whatever happens to the program that uses it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use towpath_transfer::{
    AgentName, Clock, Direction, Entropy, Sequence, Stage, TenantName, TransferEvent, TransferKey, digest::Sha256Digest,
    state::Place,
};

use crate::{
    error::{JournalError, Result},
    machine::{MachineBinding, machine_digest},
    prune::{Prune, Spent},
    record::{
        Count, Created, Filter, History, HistoryEntry, Lease, NewTransfer, Order, Release, SequenceChoice, TransferRecord, Wanted,
    },
    row::{Row, micros},
    sequences::Sequences,
    traits::{Journal, MAX_ACQUIRE, MAX_LIST, MAX_PRUNE},
};

/// A journal in memory. It lasts as long as this value, so a simulated restart keeps it.
#[derive(Debug)]
pub struct MemoryJournal {
    place: Place,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default, Clone)]
struct Kept {
    rows: BTreeMap<u64, (Row, Vec<HistoryEntry>)>,
    serials: BTreeMap<TransferKey, u64>,
    sequences: BTreeMap<(TenantName, AgentName, Direction), Sequences>,
    last_serial: u64,
    machine: Option<Sha256Digest>,
}

impl MemoryJournal {
    /// An empty journal of the machine `place`.
    #[must_use]
    pub fn new(place: Place, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { place, clock, entropy, kept: Mutex::default() }
    }

    /// Another journal with everything that this one has now, as a backup of it has it.
    #[must_use]
    pub fn copy(&self) -> Self {
        let kept = Mutex::new(self.kept().clone());
        Self { place: self.place, clock: Arc::clone(&self.clock), entropy: Arc::clone(&self.entropy), kept }
    }

    fn now(&self) -> Timestamp {
        micros(self.clock.now())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a copy of a row and keeps it where that succeeds.
    fn change<T>(
        &self,
        key: &TransferKey,
        how: impl FnOnce(&mut Row, &mut Vec<HistoryEntry>, Timestamp) -> Result<T>,
    ) -> Result<T> {
        let now = self.now();
        let mut kept = self.kept();
        let (row, events) = kept.find(key).ok_or_else(|| JournalError::NotFound(Box::new(key.clone())))?;
        let mut changed = row.clone();
        let value = how(&mut changed, events, now)?;
        *row = changed;
        Ok(value)
    }

    fn add_event(
        &self,
        key: &TransferKey,
        lease: Option<&Lease>,
        expected: u64,
        event: &TransferEvent,
    ) -> Result<TransferRecord> {
        self.change(key, |row, events, now| {
            row.append(lease, expected, event, now)?;
            events.push(HistoryEntry { seq: expected, at: now, event: event.clone() });
            Ok(row.record.clone())
        })
    }
}

impl Kept {
    /// The number of a new transfer that takes the place of `instead`, and what is known of its line then.
    fn sequence_of(&mut self, new: &NewTransfer, instead: Option<u64>) -> Result<Option<Sequence>> {
        let line = line(&new.key, new.direction);
        let taken = matches!(new.sequence, SequenceChoice::Given(Some(number)) if self.rows.values().any(|(row, _)| {
            let record = &row.record;
            record.sequence == Some(number)
                && Some(record.serial) != instead
                && (&record.key.tenant, &record.key.agent, &record.direction) == (&line.0, &line.1, &line.2)
        }));
        let (sequence, sequences) = self.sequences.get(&line).cloned().unwrap_or_default().choose(new, taken)?;
        self.sequences.insert(line, sequences);
        Ok(sequence)
    }

    fn insert(&mut self, new: NewTransfer, place: Place, sequence: Option<Sequence>, now: Timestamp) -> TransferRecord {
        self.last_serial += 1;
        let row = Row::new(new, place, self.last_serial, sequence, now);
        let record = row.record.clone();
        self.serials.insert(record.key.clone(), record.serial);
        self.rows.insert(record.serial, (row, Vec::new()));
        record
    }

    fn find(&mut self, key: &TransferKey) -> Option<&mut (Row, Vec<HistoryEntry>)> {
        self.rows.get_mut(self.serials.get(key)?)
    }
}

fn line(key: &TransferKey, direction: Direction) -> (TenantName, AgentName, Direction) {
    (key.tenant.clone(), key.agent.clone(), direction)
}

fn is_open_of_job(record: &TransferRecord, new: &NewTransfer) -> bool {
    let of = (&record.key.tenant, &record.key.agent, &record.direction, &record.job);
    of == (&new.key.tenant, &new.key.agent, &new.direction, &new.job) && !record.state.is_final() && !record.parked
}

#[async_trait]
impl Journal for MemoryJournal {
    fn place(&self) -> Place {
        self.place
    }

    async fn create(&self, new: NewTransfer) -> Result<Created> {
        let now = self.now();
        let mut kept = self.kept();
        if let Some((row, _)) = kept.find(&new.key) {
            return Ok(Created::Existing(row.record.clone()));
        }
        if new.sequence == SequenceChoice::NextOfJob
            && let Some((row, _)) = kept.rows.values().rev().find(|(row, _)| is_open_of_job(&row.record, &new))
        {
            return Ok(Created::Existing(row.record.clone()));
        }
        let sequence = kept.sequence_of(&new, None)?;
        Ok(Created::New(kept.insert(new, self.place, sequence, now)))
    }

    async fn acquire_wanted(&self, wanted: &Wanted, limit: usize, ttl: Duration) -> Result<Vec<Lease>> {
        let now = self.now();
        let mut kept = self.kept();
        let due = kept.rows.values_mut().map(|(row, _)| row).filter(|row| row.is_due(wanted.stage, now));
        let mut due: Vec<&mut Row> = due.filter(|row| wanted.means(&row.record.key, row.record.direction)).collect();
        if wanted.order == Order::Due {
            due.sort_by_key(|row| row.turn(now));
        }
        Ok(due.into_iter().take(limit.min(MAX_ACQUIRE)).map(|row| row.lease(ttl, &*self.entropy, now)).collect())
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Timestamp> {
        self.change(lease.key(), |row, _, now| row.renew(lease, ttl, now))
    }

    async fn append(&self, lease: &Lease, expected: u64, event: &TransferEvent) -> Result<TransferRecord> {
        self.add_event(lease.key(), Some(lease), expected, event)
    }

    async fn append_unleased(&self, key: &TransferKey, expected: u64, event: &TransferEvent) -> Result<TransferRecord> {
        self.add_event(key, None, expected, event)
    }

    async fn release(&self, lease: &Lease, how: Release) -> Result<()> {
        self.change(lease.key(), |row, _, now| row.release(lease, how, now))
    }

    async fn unpark(&self, key: &TransferKey) -> Result<TransferRecord> {
        self.change(key, |row, _, now| {
            row.unpark(now);
            Ok(row.record.clone())
        })
    }

    async fn break_leases(&self) -> Result<u64> {
        let now = self.now();
        let mut kept = self.kept();
        let held = kept.rows.values_mut().map(|(row, _)| row).filter(|row| row.held.is_some());
        Ok(held.map(|row| row.break_lease(now)).count() as u64)
    }

    async fn get(&self, key: &TransferKey) -> Result<Option<TransferRecord>> {
        Ok(self.kept().find(key).map(|(row, _)| row.record.clone()))
    }

    async fn list(&self, filter: &Filter, limit: usize, before: Option<u64>) -> Result<Vec<TransferRecord>> {
        let kept = self.kept();
        let older = kept.rows.range(..before.unwrap_or(u64::MAX)).rev().map(|(_, (row, _))| &row.record);
        Ok(older.filter(|record| filter.matches(record)).take(limit.min(MAX_LIST)).cloned().collect())
    }

    async fn history(&self, key: &TransferKey) -> Result<History> {
        let mut kept = self.kept();
        let (row, events) = kept.find(key).ok_or_else(|| JournalError::NotFound(Box::new(key.clone())))?;
        Ok(History { start: row.start.clone(), entries: events.clone() })
    }

    async fn last_sequence(&self, tenant: &TenantName, agent: &AgentName, direction: Direction) -> Result<Option<Sequence>> {
        let line = (tenant.clone(), agent.clone(), direction);
        Ok(self.kept().sequences.get(&line).filter(|known| known.last > 0).map(|known| Sequence(known.last)))
    }

    async fn counts(&self) -> Result<Vec<Count>> {
        let kept = self.kept();
        let mut counts = BTreeMap::<(&str, Option<&str>, bool), Count>::new();
        for (row, _) in kept.rows.values() {
            let record = &row.record;
            let (state, stage, parked) = (record.state.word(), record.stage(), record.parked);
            let fresh = || Count { state: state.to_owned(), stage, parked, transfers: 0, oldest_change: record.changed };
            let count = counts.entry((state, stage.map(Stage::as_str), parked)).or_insert_with(fresh);
            count.transfers += 1;
            count.oldest_change = count.oldest_change.min(record.changed);
        }
        Ok(counts.into_values().collect())
    }

    async fn withdraw(&self, key: &TransferKey) -> Result<bool> {
        let mut kept = self.kept();
        if !kept.find(key).is_some_and(|(row, _)| row.is_untouched()) {
            return Ok(false);
        }
        let serial = kept.serials.remove(key);
        Ok(serial.and_then(|serial| kept.rows.remove(&serial)).is_some())
    }

    async fn begin_anew(&self, new: NewTransfer) -> Result<bool> {
        let now = self.now();
        let mut kept = self.kept();
        let Some((row, _)) = kept.find(&new.key).filter(|(row, _)| row.is_untouched()) else { return Ok(false) };
        let (serial, own) = (row.record.serial, row.number_of_the_same(&new));
        let sequence = match own {
            Some(own) => Some(own),
            None => kept.sequence_of(&new, Some(serial))?,
        };
        kept.rows.remove(&serial);
        kept.insert(new, self.place, sequence, now);
        Ok(true)
    }

    async fn prune(&self, what: &Prune) -> Result<u64> {
        let older_than = micros(what.older_than);
        let mut kept = self.kept();
        let meant = |record: &TransferRecord| {
            what.spent.matches(record)
                && what.direction.is_none_or(|direction| direction == record.direction)
                && what.tenant.as_ref().is_none_or(|tenant| *tenant == record.key.tenant)
        };
        let spared = |row: &Row| what.spared.contains(&row.record.serial);
        let may_go = |row: &Row| (what.spent == Spent::Over || !row.is_held()) && !spared(row);
        let spent: Vec<u64> = kept.rows.iter().filter(|(_, (row, _))| meant(&row.record)).map(|(serial, _)| *serial).collect();
        let spare = spent.len().saturating_sub(usize::try_from(what.keep).unwrap_or(usize::MAX));
        let old = |serial: &&u64| kept.rows.get(serial).is_some_and(|(row, _)| row.record.changed < older_than && may_go(row));
        let going: Vec<u64> = spent.iter().take(spare).filter(old).take(what.limit.min(MAX_PRUNE)).copied().collect();
        for serial in &going {
            let Some((row, _)) = kept.rows.remove(serial) else { continue };
            kept.serials.remove(&row.record.key);
            if what.spent == Spent::Incomplete {
                continue;
            }
            if let Some(Sequence(number)) = row.record.sequence {
                let known = kept.sequences.entry(line(&row.record.key, row.record.direction)).or_default();
                *known = std::mem::take(known).pruned(number);
            }
        }
        Ok(going.len() as u64)
    }

    async fn health(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl MachineBinding for MemoryJournal {
    async fn bind_or_check(&self, machine_id: &str) -> Result<()> {
        let digest = machine_digest(machine_id);
        let bound = *self.kept().machine.get_or_insert(digest);
        if bound == digest { Ok(()) } else { Err(JournalError::HostMoved) }
    }

    async fn rebind(&self, machine_id: &str) -> Result<()> {
        self.kept().machine = Some(machine_digest(machine_id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::clock::{ManualClock, SeededEntropy};

    use super::*;
    use crate::conformance::{self, Fixture};

    #[tokio::test]
    async fn it_keeps_the_contract() {
        conformance::all(async || {
            let clock = ManualClock::new(conformance::start());
            let journal = MemoryJournal::new(Place::Agent, Arc::new(clock.clone()), Arc::new(SeededEntropy::new(1)));
            let journal = Arc::new(journal);
            Fixture { journal: Arc::clone(&journal) as _, binding: Some(journal), clock }
        })
        .await;
    }
}
