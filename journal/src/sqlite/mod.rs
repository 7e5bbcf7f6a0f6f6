//! The journal on disk, in SQLite: WAL, `synchronous=FULL`, one writer.

mod open;
mod rows;
mod schema;
mod sequences;
mod statements;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};
use towpath_transfer::{
    AgentName, Clock, Code, Direction, Entropy, Failure, Sequence, Stage, TenantName, TransferEvent, TransferKey, state::Place,
};

use crate::{
    error::{JournalError, Result},
    machine::{MachineBinding, machine_digest},
    prune::{Prune, Spent},
    record::{
        Count, Created, Filter, History, Lease, NewTransfer, Order, Release, SequenceChoice, Sharer, TransferRecord, Wanted,
    },
    row::{Row, micros, turned_back},
    sequences::Sequences,
    traits::{Journal, MAX_ACQUIRE, MAX_LIST, MAX_PRUNE},
};

pub use open::is_usable;

use rows::{direction_name, get, int, number, time};
use statements::{DUE, LONGEST_DUE, listing, spent};

/// The journal in a SQLite file. Several processes may have the same file open; each waits for the others' short
/// transactions.
#[derive(Debug, Clone)]
pub struct SqliteJournal {
    place: Place,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// One connection: SQLite has one writer, and a queue in the pool is fairer than the busy handler's polling.
    writer: SqlitePool,
    /// Listings and look-ups do not wait for writers.
    readers: SqlitePool,
}

/// Turns an error of SQLite into ours, by what a caller can do about it.
fn failed(what: &'static str) -> impl Fn(sqlx::Error) -> JournalError {
    move |error| {
        // Primary result codes of https://www.sqlite.org/rescode.html.
        let code = error.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<i64>().ok());
        let failure = match code.map(|code| code & 0xff) {
            Some(13) => Failure::retry(Code::DiskFull, what),
            Some(11 | 26) => Failure::park(Code::JournalFailed, format!("{what}: the file is damaged")),
            _ => Failure::retry(Code::JournalFailed, what),
        };
        JournalError::Storage(failure.caused_by(error))
    }
}

const READ: &str = "read the journal";
const WRITE: &str = "write the journal";

impl SqliteJournal {
    fn now(&self) -> Timestamp {
        micros(self.clock.now())
    }

    /// A transaction that holds the write lock from its start, so that it never fails half-way for want of it.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed("begin to write the journal"))
    }

    /// Changes a row in one transaction and writes the event that `how` returns, where it returns one.
    async fn change<T: Send>(
        &self,
        key: &TransferKey,
        how: impl FnOnce(&mut Row, Timestamp) -> Result<(T, Option<String>)> + Send,
    ) -> Result<T> {
        let mut transaction = self.begin().await?;
        let now = self.now();
        let row = rows::load(&mut transaction, key, self.place).await?;
        let mut row = row.ok_or_else(|| JournalError::NotFound(Box::new(key.clone())))?;
        let seq = row.record.events;
        let (value, event) = how(&mut row, now)?;
        rows::update(&mut transaction, &row).await?;
        if let Some(event) = event {
            rows::insert_event(&mut transaction, row.record.serial, seq, now, &event).await?;
        }
        transaction.commit().await.map_err(failed(WRITE))?;
        Ok(value)
    }

    async fn add_event(
        &self,
        key: &TransferKey,
        lease: Option<&Lease>,
        expected: u64,
        event: &TransferEvent,
    ) -> Result<TransferRecord> {
        self.change(key, |row, now| {
            let json = row.append(lease, expected, event, now)?;
            Ok((row.record.clone(), Some(json)))
        })
        .await
    }

    async fn sequence_of(&self, connection: &mut SqliteConnection, new: &NewTransfer) -> Result<Option<Sequence>> {
        let (tenant, agent, direction) = (&new.key.tenant, &new.key.agent, new.direction);
        let known = sequences::known(connection, tenant, agent, direction).await?;
        let taken = match new.sequence {
            SequenceChoice::Given(Some(number)) => sequences::taken(connection, tenant, agent, direction, number).await?,
            SequenceChoice::Given(None) | SequenceChoice::Next | SequenceChoice::NextOfJob => false,
        };
        let (sequence, after) = known.clone().choose(new, taken)?;
        if after != known {
            sequences::keep(connection, (tenant, agent, direction), &after).await?;
        }
        Ok(sequence)
    }
}

/// How the statements name who is passed over; no name has a slash.
fn passed_over(sharer: &Sharer) -> String {
    let tenant = &sharer.tenant;
    sharer.agent.as_ref().map_or_else(|| tenant.to_string(), |agent| format!("{tenant}/{agent}"))
}

fn limited(limit: usize, most: usize) -> i64 {
    i64::try_from(limit.min(most)).unwrap_or(i64::MAX)
}

#[async_trait]
impl Journal for SqliteJournal {
    fn place(&self) -> Place {
        self.place
    }

    async fn create(&self, new: NewTransfer) -> Result<Created> {
        let mut transaction = self.begin().await?;
        let now = self.now();
        if let Some(row) = rows::load(&mut transaction, &new.key, self.place).await? {
            return Ok(Created::Existing(row.record));
        }
        if new.sequence == SequenceChoice::NextOfJob
            && let Some(row) = rows::open_of_job(&mut transaction, &new, self.place).await?
        {
            return Ok(Created::Existing(row.record));
        }
        let sequence = self.sequence_of(&mut transaction, &new).await?;
        let mut row = Row::new(new, self.place, 0, sequence, now);
        rows::insert(&mut transaction, &mut row).await?;
        transaction.commit().await.map_err(failed(WRITE))?;
        Ok(Created::New(row.record))
    }

    async fn acquire_wanted(&self, wanted: &Wanted, limit: usize, ttl: Duration) -> Result<Vec<Lease>> {
        let names: Vec<String> = wanted.without.iter().map(passed_over).collect();
        let names = serde_json::to_string(&names).map_err(|e| JournalError::storage("write names as JSON", e))?;
        let mut transaction = self.begin().await?;
        let now = self.now();
        let statement = match wanted.order {
            Order::Created => DUE,
            Order::Due => LONGEST_DUE,
        };
        let due = sqlx::query(statement)
            .bind(wanted.stage.as_str())
            .bind(now.as_microsecond())
            .bind(turned_back(now).as_microsecond())
            .bind(limited(limit, MAX_ACQUIRE))
            .bind(names)
            .bind(wanted.direction.map(direction_name))
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed(READ))?;
        let mut leases = Vec::with_capacity(due.len());
        for found in &due {
            let mut row = rows::decode(found, self.place)?;
            leases.push(row.lease(ttl, &*self.entropy, now));
            rows::update(&mut transaction, &row).await?;
        }
        transaction.commit().await.map_err(failed(WRITE))?;
        Ok(leases)
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Timestamp> {
        self.change(lease.key(), |row, now| Ok((row.renew(lease, ttl, now)?, None))).await
    }

    async fn append(&self, lease: &Lease, expected: u64, event: &TransferEvent) -> Result<TransferRecord> {
        self.add_event(lease.key(), Some(lease), expected, event).await
    }

    async fn append_unleased(&self, key: &TransferKey, expected: u64, event: &TransferEvent) -> Result<TransferRecord> {
        self.add_event(key, None, expected, event).await
    }

    async fn release(&self, lease: &Lease, how: Release) -> Result<()> {
        self.change(lease.key(), |row, now| Ok((row.release(lease, how, now)?, None))).await
    }

    async fn unpark(&self, key: &TransferKey) -> Result<TransferRecord> {
        self.change(key, |row, now| {
            row.unpark(now);
            Ok((row.record.clone(), None))
        })
        .await
    }

    async fn break_leases(&self) -> Result<u64> {
        let mut transaction = self.begin().await?;
        let now = self.now();
        let done = sqlx::query(
            "UPDATE transfers SET lease_token = NULL, lease_until = NULL, not_before = NULL, due = ?1, since = ?1
             WHERE lease_token IS NOT NULL",
        )
        .bind(now.as_microsecond())
        .execute(&mut *transaction)
        .await
        .map_err(failed(WRITE))?;
        transaction.commit().await.map_err(failed(WRITE))?;
        Ok(done.rows_affected())
    }

    async fn get(&self, key: &TransferKey) -> Result<Option<TransferRecord>> {
        let mut connection = self.readers.acquire().await.map_err(failed(READ))?;
        Ok(rows::load(&mut connection, key, self.place).await?.map(|row| row.record))
    }

    async fn list(&self, filter: &Filter, limit: usize, before: Option<u64>) -> Result<Vec<TransferRecord>> {
        let found = sqlx::query(listing(filter))
            .bind(before.map_or(i64::MAX, int))
            .bind(filter.tenant.as_ref().map(|name| name.as_str()))
            .bind(filter.agent.as_ref().map(|name| name.as_str()))
            .bind(filter.direction.map(direction_name))
            .bind(filter.job.as_ref().map(|name| name.as_str()))
            .bind(filter.state.as_deref())
            .bind(filter.stage.map(Stage::as_str))
            .bind(filter.parked)
            .bind(filter.ended)
            .bind(filter.sequence_below.map(|sequence| int(sequence.0)))
            .bind(limited(limit, MAX_LIST))
            .bind(filter.id.map(|id| id.to_string()))
            .fetch_all(&self.readers)
            .await
            .map_err(failed(READ))?;
        found.iter().map(|row| Ok(rows::decode(row, self.place)?.record)).collect()
    }

    async fn history(&self, key: &TransferKey) -> Result<History> {
        // One read transaction, so that start and events are of the same moment.
        let mut transaction = self.readers.begin().await.map_err(failed(READ))?;
        let row = rows::load(&mut transaction, key, self.place).await?;
        let row = row.ok_or_else(|| JournalError::NotFound(Box::new(key.clone())))?;
        let found = sqlx::query("SELECT seq, at, event FROM events WHERE transfer = ?1 ORDER BY seq")
            .bind(int(row.record.serial))
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed(READ))?;
        let entries = found.iter().map(rows::decode_event).collect::<Result<_>>()?;
        Ok(History { start: row.start, entries })
    }

    async fn last_sequence(&self, tenant: &TenantName, agent: &AgentName, direction: Direction) -> Result<Option<Sequence>> {
        let mut connection = self.readers.acquire().await.map_err(failed(READ))?;
        let known = sequences::known(&mut connection, tenant, agent, direction).await?;
        Ok(Some(known.last).filter(|last| *last > 0).map(Sequence))
    }

    async fn counts(&self) -> Result<Vec<Count>> {
        let found = sqlx::query(
            "SELECT word, stage, parked, count(*) AS transfers, min(changed) AS oldest FROM transfers
             GROUP BY word, stage, parked ORDER BY word, stage, parked",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed(READ))?;
        let stage_of = |name: &str| Stage::ALL.iter().copied().find(|stage| stage.as_str() == name);
        let count = |row| {
            let stage = get::<Option<&str>>(row, "stage")?.and_then(stage_of);
            let (state, parked) = (get(row, "word")?, get(row, "parked")?);
            Ok(Count { state, stage, parked, transfers: number(row, "transfers")?, oldest_change: time(row, "oldest")? })
        };
        found.iter().map(count).collect()
    }

    async fn withdraw(&self, key: &TransferKey) -> Result<bool> {
        let mut transaction = self.begin().await?;
        let Some(row) = rows::load(&mut transaction, key, self.place).await?.filter(Row::is_untouched) else { return Ok(false) };
        rows::delete(&mut transaction, row.record.serial).await?;
        transaction.commit().await.map_err(failed(WRITE))?;
        Ok(true)
    }

    async fn begin_anew(&self, new: NewTransfer) -> Result<bool> {
        let mut transaction = self.begin().await?;
        let now = self.now();
        let Some(row) = rows::load(&mut transaction, &new.key, self.place).await?.filter(Row::is_untouched) else {
            return Ok(false);
        };
        rows::delete(&mut transaction, row.record.serial).await?;
        let sequence = match row.number_of_the_same(&new) {
            Some(own) => Some(own),
            None => self.sequence_of(&mut transaction, &new).await?,
        };
        rows::insert(&mut transaction, &mut Row::new(new, self.place, 0, sequence, now)).await?;
        transaction.commit().await.map_err(failed(WRITE))?;
        Ok(true)
    }

    async fn prune(&self, what: &Prune) -> Result<u64> {
        let mut transaction = self.begin().await?;
        let found = sqlx::query(spent(what))
            .bind(what.older_than.as_microsecond())
            .bind(int(what.keep))
            .bind(limited(what.limit, MAX_PRUNE))
            .bind(what.tenant.as_ref().map(|name| name.as_str()))
            .bind(format!("{:?}", what.spared))
            .bind(what.direction.map(direction_name))
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed(READ))?;
        let mut pruned = BTreeMap::<_, Vec<u64>>::new();
        for row in &found {
            let record = rows::decode(row, self.place)?.record;
            if let (Some(Sequence(number)), Spent::Over) = (record.sequence, what.spent) {
                let line = (record.key.tenant.clone(), record.key.agent.clone(), record.direction);
                pruned.entry(line).or_default().push(number);
            }
            rows::delete(&mut transaction, record.serial).await?;
        }
        for ((tenant, agent, direction), numbers) in pruned {
            let known = sequences::known(&mut transaction, &tenant, &agent, direction).await?;
            let known = numbers.into_iter().fold(known, Sequences::pruned);
            sequences::keep(&mut transaction, (&tenant, &agent, direction), &known).await?;
        }
        transaction.commit().await.map_err(failed(WRITE))?;
        Ok(found.len() as u64)
    }

    async fn health(&self) -> Result<()> {
        // The write lock and a real write that is taken back: a read-only file or a full disk shows here.
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE about SET place = place").execute(&mut *transaction).await.map_err(failed(WRITE))?;
        transaction.rollback().await.map_err(failed(WRITE))
    }
}

#[async_trait]
impl MachineBinding for SqliteJournal {
    async fn bind_or_check(&self, machine_id: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        let digest = machine_digest(machine_id).to_string();
        sqlx::query("INSERT INTO machine (one, digest, bound) VALUES (1, ?1, ?2) ON CONFLICT DO NOTHING")
            .bind(&digest)
            .bind(self.now().as_microsecond())
            .execute(&mut *transaction)
            .await
            .map_err(failed(WRITE))?;
        let bound = sqlx::query("SELECT digest FROM machine").fetch_one(&mut *transaction).await.map_err(failed(READ))?;
        if get::<&str>(&bound, "digest")? != digest {
            return Err(JournalError::HostMoved);
        }
        transaction.commit().await.map_err(failed(WRITE))
    }

    async fn rebind(&self, machine_id: &str) -> Result<()> {
        sqlx::query(
            "INSERT INTO machine (one, digest, bound) VALUES (1, ?1, ?2)
             ON CONFLICT DO UPDATE SET digest = excluded.digest, bound = excluded.bound",
        )
        .bind(machine_digest(machine_id).to_string())
        .bind(self.now().as_microsecond())
        .execute(&self.writer)
        .await
        .map_err(failed(WRITE))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
