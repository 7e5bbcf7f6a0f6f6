//! The ledger of a schema.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow};
use towpath_transfer::{Code, Failure, Sequence, TransferId, manifest::Label};

use super::{
    super::{
        ImportRecord, Ledger, Owner, TableState,
        ledger::{ImportText, TableText},
    },
    error::Database,
    within,
};

/// Makes the ledger in a quoted schema where it is missing.
pub(super) fn definition(schema: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {schema}.towpath_imports (
            transfer text PRIMARY KEY, sequence bigint NOT NULL, manifest text NOT NULL, imported text NOT NULL, rows text NOT NULL
        );
        CREATE TABLE IF NOT EXISTS {schema}.towpath_tables (
            name text PRIMARY KEY, transfer text NOT NULL, sha256 text NOT NULL, columns text NOT NULL, rows bigint NOT NULL,
            key_columns text NOT NULL, mode text NOT NULL
        );
        CREATE TABLE IF NOT EXISTS {schema}.towpath_owner (tenant text NOT NULL, receiver text NOT NULL);"
    )
}

/// Whose the schema is: tenant and receiver.
pub(super) async fn owner(
    connection: &mut PgConnection,
    database: &Database,
    schema: &str,
) -> Result<Option<(String, String)>, Failure> {
    let sql = format!("SELECT tenant, receiver FROM {schema}.towpath_owner");
    let found = within(sqlx::query_as(AssertSqlSafe(sql)).fetch_optional(connection)).await;
    found.map_err(|e| database.failure("reading whose the schema is", e))
}

/// Makes the schema `owner`'s.
pub(super) async fn own(connection: &mut PgConnection, database: &Database, schema: &str, owner: &Owner) -> Result<(), Failure> {
    let failed = |e| database.failure("writing whose the schema is", e);
    let sql = format!("DELETE FROM {schema}.towpath_owner");
    within(sqlx::query(AssertSqlSafe(sql)).execute(&mut *connection)).await.map_err(failed)?;
    let sql = format!("INSERT INTO {schema}.towpath_owner (tenant, receiver) VALUES ($1, $2)");
    let written = sqlx::query(AssertSqlSafe(sql)).bind(owner.tenant.to_string()).bind(owner.receiver.to_string());
    within(written.execute(connection)).await.map(|_| ()).map_err(failed)
}

/// Reads it.
pub(super) async fn read(
    connection: &mut PgConnection,
    database: &Database,
    schema: &str,
    transfer: TransferId,
) -> Result<Ledger, Failure> {
    let failed = |e| database.failure("reading the import ledger", e);
    let damaged =
        |what: &str| Failure::park(Code::ImportFailed, format!("the import ledger in {} is damaged: {what}", database.shown));
    let sql = format!("SELECT sequence, manifest, imported, rows FROM {schema}.towpath_imports WHERE transfer = $1");
    let found = sqlx::query(AssertSqlSafe(sql)).bind(transfer.to_string()).fetch_optional(&mut *connection);
    let this = match within(found).await.map_err(failed)? {
        Some(row) => Some(import_record(transfer, &row).ok_or_else(|| damaged("a row of towpath_imports"))?),
        None => None,
    };
    let sql = format!("SELECT max(sequence) FROM {schema}.towpath_imports");
    let last: Option<i64> = within(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection)).await.map_err(failed)?;
    let last_sequence = last.map(|n| u64::try_from(n).map(Sequence)).transpose().map_err(|_| damaged("a negative sequence"))?;
    let sql = format!("SELECT name, transfer, sha256, columns, rows, key_columns, mode FROM {schema}.towpath_tables");
    let mut tables = BTreeMap::new();
    for row in within(sqlx::query(AssertSqlSafe(sql)).fetch_all(connection)).await.map_err(failed)? {
        let (name, state) = table_state(&row).ok_or_else(|| damaged("a row of towpath_tables"))?;
        tables.insert(name, state);
    }
    Ok(Ledger { this, last_sequence, tables })
}

fn import_record(transfer: TransferId, row: &PgRow) -> Option<ImportRecord> {
    let text = ImportText {
        sequence: row.try_get(0).ok()?,
        manifest: row.try_get(1).ok()?,
        imported: row.try_get(2).ok()?,
        rows: row.try_get(3).ok()?,
    };
    text.read(transfer)
}

fn table_state(row: &PgRow) -> Option<(Label, TableState)> {
    let text = TableText {
        name: row.try_get(0).ok()?,
        transfer: row.try_get(1).ok()?,
        sha256: row.try_get(2).ok()?,
        columns: row.try_get(3).ok()?,
        rows: row.try_get(4).ok()?,
        key: row.try_get(5).ok()?,
        mode: row.try_get(6).ok()?,
    };
    text.read()
}
