//! A transfer as a row of SQLite and back.

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};
use towpath_transfer::{Direction, Sequence, TransferKey, state::Place};

use super::failed;
use crate::{
    error::{JournalError, Result},
    record::{HistoryEntry, LeaseToken, NewTransfer, TransferRecord},
    row::{Held, Row},
};

const READ: &str = "read the journal";
const WRITE: &str = "write the journal";

/// A number of ours as SQLite keeps it. Only counters come here, and they are far below the limit.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Uplink => "uplink",
        Direction::Downlink => "downlink",
    }
}

/// A column that must hold what `T` can be.
pub(super) fn get<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(failed(READ))
}

pub(super) fn number(row: &SqliteRow, column: &str) -> Result<u64> {
    u64::try_from(get::<i64>(row, column)?).map_err(|_| corrupt(column))
}

pub(super) fn time(row: &SqliteRow, column: &str) -> Result<Timestamp> {
    Timestamp::from_microsecond(get(row, column)?).map_err(|_| corrupt(column))
}

fn maybe_time(row: &SqliteRow, column: &str) -> Result<Option<Timestamp>> {
    let micros: Option<i64> = get(row, column)?;
    micros.map(|micros| Timestamp::from_microsecond(micros).map_err(|_| corrupt(column))).transpose()
}

fn parse<T: std::str::FromStr>(row: &SqliteRow, column: &str) -> Result<T> {
    get::<&str>(row, column)?.parse().map_err(|_| corrupt(column))
}

pub(super) fn json<T: DeserializeOwned>(text: &str, column: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|_| corrupt(column))
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| JournalError::storage("write a state as JSON", e))
}

fn corrupt(column: &str) -> JournalError {
    JournalError::corrupt(format!("the journal's column {column:?} holds what this version cannot read"))
}

/// Reads a row of `SELECT * FROM transfers`.
pub(super) fn decode(row: &SqliteRow, place: Place) -> Result<Row> {
    let key = TransferKey { tenant: parse(row, "tenant")?, agent: parse(row, "agent")?, id: parse(row, "id")? };
    let direction = match get::<&str>(row, "direction")? {
        "uplink" => Direction::Uplink,
        "downlink" => Direction::Downlink,
        _ => return Err(corrupt("direction")),
    };
    let job = get::<Option<&str>>(row, "job")?.map(|job| job.parse().map_err(|_| corrupt("job"))).transpose()?;
    let sequence = get::<Option<i64>>(row, "sequence")?.map(u64::try_from).transpose().map_err(|_| corrupt("sequence"))?;
    let last_failure = get::<Option<&str>>(row, "last_failure")?.map(|text| json(text, "last_failure")).transpose()?;
    let record = TransferRecord {
        serial: number(row, "serial")?,
        key,
        direction,
        job,
        sequence: sequence.map(Sequence),
        place,
        state: json(get(row, "state")?, "state")?,
        events: number(row, "events")?,
        created: time(row, "created")?,
        changed: time(row, "changed")?,
        attempts: u32::try_from(number(row, "attempts")?).map_err(|_| corrupt("attempts"))?,
        last_failure,
        parked: get(row, "parked")?,
        not_before: maybe_time(row, "not_before")?,
    };
    let token = get::<Option<&[u8]>>(row, "lease_token")?.map(<[u8; 16]>::try_from);
    let token = token.transpose().map_err(|_| corrupt("lease_token"))?;
    let held = token.zip(maybe_time(row, "lease_until")?).map(|(token, until)| Held { token: LeaseToken(token), until });
    let start = json(get(row, "start")?, "start")?;
    Ok(Row { record, start, held, due: time(row, "due")?, since: time(row, "since")? })
}

/// Reads one event.
pub(super) fn decode_event(row: &SqliteRow) -> Result<HistoryEntry> {
    Ok(HistoryEntry { seq: number(row, "seq")?, at: time(row, "at")?, event: json(get(row, "event")?, "event")? })
}

/// The row of a key.
pub(super) async fn load(connection: &mut SqliteConnection, key: &TransferKey, place: Place) -> Result<Option<Row>> {
    let found = sqlx::query("SELECT * FROM transfers WHERE tenant = ?1 AND agent = ?2 AND id = ?3")
        .bind(key.tenant.as_str())
        .bind(key.agent.as_str())
        .bind(key.id.to_string())
        .fetch_optional(connection)
        .await
        .map_err(failed(READ))?;
    found.as_ref().map(|row| decode(row, place)).transpose()
}

/// The newest row of the same line and job that has not ended and waits for nobody.
pub(super) async fn open_of_job(connection: &mut SqliteConnection, new: &NewTransfer, place: Place) -> Result<Option<Row>> {
    let found = sqlx::query(
        "SELECT * FROM transfers WHERE tenant = ?1 AND agent = ?2 AND direction = ?3 AND job IS ?4 AND ended = 0 AND parked = 0
         ORDER BY serial DESC LIMIT 1",
    )
    .bind(new.key.tenant.as_str())
    .bind(new.key.agent.as_str())
    .bind(direction_name(new.direction))
    .bind(new.job.as_ref().map(|job| job.as_str()))
    .fetch_optional(connection)
    .await
    .map_err(failed(READ))?;
    found.as_ref().map(|row| decode(row, place)).transpose()
}

/// Writes a new row; its serial is the one SQLite gave.
pub(super) async fn insert(connection: &mut SqliteConnection, row: &mut Row) -> Result<()> {
    let record = &row.record;
    let done = sqlx::query(
        "INSERT INTO transfers (tenant, agent, id, direction, job, sequence, start, state, word, ended, over, events, created,
             changed, attempts, parked, due, since)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, '', 0, 0, 0, ?8, ?8, 0, 0, ?8, ?8)",
    )
    .bind(record.key.tenant.as_str())
    .bind(record.key.agent.as_str())
    .bind(record.key.id.to_string())
    .bind(direction_name(record.direction))
    .bind(record.job.as_ref().map(|job| job.as_str()))
    .bind(record.sequence.map(|sequence| int(sequence.0)))
    .bind(to_json(&row.start)?)
    .bind(record.created.as_microsecond())
    .execute(&mut *connection)
    .await
    .map_err(failed(WRITE))?;
    row.record.serial = u64::try_from(done.last_insert_rowid()).map_err(|_| corrupt("serial"))?;
    update(connection, row).await
}

/// Writes everything of a row that can change, and the columns that follow from its state.
pub(super) async fn update(connection: &mut SqliteConnection, row: &Row) -> Result<()> {
    let record = &row.record;
    sqlx::query(
        "UPDATE transfers SET state = ?2, word = ?3, stage = ?4, ended = ?5, over = ?6, events = ?7, changed = ?8, attempts = ?9,
             last_failure = ?10, parked = ?11, not_before = ?12, due = ?13, since = ?14, lease_token = ?15, lease_until = ?16
         WHERE serial = ?1",
    )
    .bind(int(record.serial))
    .bind(to_json(&record.state)?)
    .bind(record.state.word())
    .bind(record.stage().map(|stage| stage.as_str()))
    .bind(record.state.is_final())
    .bind(record.is_over())
    .bind(int(record.events))
    .bind(record.changed.as_microsecond())
    .bind(i64::from(record.attempts))
    .bind(record.last_failure.as_ref().map(to_json).transpose()?)
    .bind(record.parked)
    .bind(record.not_before.map(Timestamp::as_microsecond))
    .bind(row.due.as_microsecond())
    .bind(row.since.as_microsecond())
    .bind(row.held.map(|held| held.token.0.to_vec()))
    .bind(row.held.map(|held| held.until.as_microsecond()))
    .execute(connection)
    .await
    .map_err(failed(WRITE))?;
    Ok(())
}

/// Removes a row and its events.
pub(super) async fn delete(connection: &mut SqliteConnection, serial: u64) -> Result<()> {
    let done = sqlx::query("DELETE FROM transfers WHERE serial = ?1").bind(int(serial)).execute(connection).await;
    done.map(drop).map_err(failed(WRITE))
}

/// Writes an event.
pub(super) async fn insert_event(
    connection: &mut SqliteConnection,
    serial: u64,
    seq: u64,
    at: Timestamp,
    event: &str,
) -> Result<()> {
    sqlx::query("INSERT INTO events (transfer, seq, at, event) VALUES (?1, ?2, ?3, ?4)")
        .bind(int(serial))
        .bind(int(seq))
        .bind(at.as_microsecond())
        .bind(event)
        .execute(connection)
        .await
        .map_err(failed(WRITE))?;
    Ok(())
}
