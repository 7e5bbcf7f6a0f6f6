//! The sequence numbers of each tenant, agent and direction.

use sqlx::SqliteConnection;
use towpath_transfer::{AgentName, Direction, Sequence, TenantName};

use super::{
    failed,
    rows::{direction_name, get, int, json, number, to_json},
};
use crate::{error::Result, sequences::Sequences};

const WHAT: &str = "read and write sequence numbers in the journal";

/// What is known; nothing of a line that was never seen.
pub(super) async fn known(
    connection: &mut SqliteConnection,
    tenant: &TenantName,
    agent: &AgentName,
    direction: Direction,
) -> Result<Sequences> {
    let found = sqlx::query("SELECT last, floor, gaps FROM sequences WHERE tenant = ?1 AND agent = ?2 AND direction = ?3")
        .bind(tenant.as_str())
        .bind(agent.as_str())
        .bind(direction_name(direction))
        .fetch_optional(connection)
        .await
        .map_err(failed(WHAT))?;
    let Some(row) = found else { return Ok(Sequences::default()) };
    Ok(Sequences { last: number(&row, "last")?, floor: number(&row, "floor")?, gaps: json(get(&row, "gaps")?, "gaps")? })
}

/// Keeps what is known.
pub(super) async fn keep(
    connection: &mut SqliteConnection,
    (tenant, agent, direction): (&TenantName, &AgentName, Direction),
    sequences: &Sequences,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO sequences (tenant, agent, direction, last, floor, gaps) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET last = excluded.last, floor = excluded.floor, gaps = excluded.gaps, written = written + 1",
    )
    .bind(tenant.as_str())
    .bind(agent.as_str())
    .bind(direction_name(direction))
    .bind(int(sequences.last))
    .bind(int(sequences.floor))
    .bind(to_json(&sequences.gaps)?)
    .execute(connection)
    .await
    .map_err(failed(WHAT))?;
    Ok(())
}

/// Whether a stored transfer has a number.
pub(super) async fn taken(
    connection: &mut SqliteConnection,
    tenant: &TenantName,
    agent: &AgentName,
    direction: Direction,
    sequence: Sequence,
) -> Result<bool> {
    // A number beyond what the column holds is nobody's; `Sequences::choose` refuses it.
    let Ok(sequence) = i64::try_from(sequence.0) else { return Ok(false) };
    let found =
        sqlx::query("SELECT 1 FROM transfers WHERE tenant = ?1 AND agent = ?2 AND direction = ?3 AND sequence = ?4 LIMIT 1")
            .bind(tenant.as_str())
            .bind(agent.as_str())
            .bind(direction_name(direction))
            .bind(sequence)
            .fetch_optional(connection)
            .await
            .map_err(failed(WHAT))?;
    Ok(found.is_some())
}
