//! The tables, and how an older file becomes a newer one.

use sqlx::{Row as _, SqliteConnection};
use towpath_transfer::state::Place;

use super::failed;
use crate::error::{JournalError, Result};

/// One migration per schema version, applied in order; each sets `user_version` itself, in its own transaction. A
/// released migration is never edited.
///
/// **One version back.** An update that does not work is undone, and then the program before it finds a journal that the newer one has
/// migrated. So a migration adds (a table, an index, a column with a default) and says which is the oldest schema whose programs can work
/// with the result, in a table that every program from this one on looks at:
/// `CREATE TABLE compatible (one INTEGER PRIMARY KEY CHECK (one = 1), since INTEGER NOT NULL)`. What a newer program writes into columns
/// that are there already (states, events) must be read by that older one: a new event is first understood by one version and written by
/// the next. What the older one does not keep up must not be believed afterwards: here it is the gaps, so a trigger removes them when a
/// program writes the line that does not count up `written`. A release with a migration that cannot keep to this names itself as `follows` of the one after it, and is told so.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE about (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        place TEXT NOT NULL
    ) STRICT;
    CREATE TABLE machine (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        digest TEXT NOT NULL,
        bound INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE transfers (
        serial INTEGER PRIMARY KEY AUTOINCREMENT,
        tenant TEXT NOT NULL,
        agent TEXT NOT NULL,
        id TEXT NOT NULL,
        direction TEXT NOT NULL,
        job TEXT,
        sequence INTEGER,
        start TEXT NOT NULL,
        state TEXT NOT NULL,
        word TEXT NOT NULL,
        stage TEXT,
        ended INTEGER NOT NULL,
        over INTEGER NOT NULL,
        events INTEGER NOT NULL,
        created INTEGER NOT NULL,
        changed INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        last_failure TEXT,
        parked INTEGER NOT NULL,
        not_before INTEGER,
        due INTEGER NOT NULL,
        since INTEGER NOT NULL,
        lease_token BLOB,
        lease_until INTEGER,
        UNIQUE (tenant, agent, id),
        UNIQUE (tenant, agent, direction, sequence)
    ) STRICT;
    CREATE INDEX transfers_due ON transfers (stage, due) WHERE parked = 0;
    CREATE INDEX transfers_since ON transfers (stage, since) WHERE parked = 0;
    CREATE INDEX transfers_leased ON transfers (serial) WHERE lease_token IS NOT NULL;
    CREATE INDEX transfers_over ON transfers (serial) WHERE over = 1;
    CREATE INDEX transfers_alike ON transfers (word, stage, parked, changed);
    CREATE TABLE events (
        transfer INTEGER NOT NULL REFERENCES transfers (serial) ON DELETE CASCADE,
        seq INTEGER NOT NULL,
        at INTEGER NOT NULL,
        event TEXT NOT NULL,
        PRIMARY KEY (transfer, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE sequences (
        tenant TEXT NOT NULL,
        agent TEXT NOT NULL,
        direction TEXT NOT NULL,
        last INTEGER NOT NULL,
        floor INTEGER NOT NULL,
        PRIMARY KEY (tenant, agent, direction)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
",
    "
    CREATE INDEX transfers_over_of_tenant ON transfers (tenant, serial) WHERE over = 1;
    CREATE INDEX transfers_by_id ON transfers (id, serial);
    PRAGMA user_version = 2;
",
    "
    ALTER TABLE sequences ADD COLUMN gaps TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE sequences ADD COLUMN written INTEGER NOT NULL DEFAULT 0;
    CREATE TRIGGER gaps_are_stale AFTER UPDATE OF floor ON sequences WHEN NEW.written = OLD.written
    BEGIN
        UPDATE sequences SET gaps = '[]' WHERE tenant = NEW.tenant AND agent = NEW.agent AND direction = NEW.direction;
    END;
    CREATE TABLE compatible (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        since INTEGER NOT NULL
    ) STRICT;
    INSERT INTO compatible VALUES (1, 2);
    PRAGMA user_version = 3;
",
];

/// Brings the file to the newest schema and checks that it is the journal of `place`.
pub(super) async fn migrate(connection: &mut SqliteConnection, place: Place) -> Result<()> {
    let what = "prepare the tables of the journal";
    // Several processes may open the file at once; the lock makes one of them migrate and the others find it done.
    let mut transaction = sqlx::Connection::begin_with(connection, "BEGIN IMMEDIATE").await.map_err(failed(what))?;
    let pending = pending(&mut transaction, what).await?;
    for migration in pending {
        sqlx::raw_sql(*migration).execute(&mut *transaction).await.map_err(failed(what))?;
    }
    let name = place_name(place);
    sqlx::query("INSERT INTO about (one, place) VALUES (1, ?1) ON CONFLICT DO NOTHING")
        .bind(name)
        .execute(&mut *transaction)
        .await
        .map_err(failed(what))?;
    check_owner(&mut transaction, name, what).await?;
    transaction.commit().await.map_err(failed(what))
}

/// Checks that the file has the newest schema and is the journal of `place`.
pub(super) async fn check(connection: &mut SqliteConnection, place: Place) -> Result<()> {
    let what = "look at the tables of the journal";
    if !pending(connection, what).await?.is_empty() {
        return Err(JournalError::corrupt(
            "the journal is of an older version of Towpath, or empty; the next start brings it up to date",
        ));
    }
    check_owner(connection, place_name(place), what).await
}

async fn pending(connection: &mut SqliteConnection, what: &'static str) -> Result<&'static [&'static str]> {
    let found = sqlx::query("PRAGMA user_version").fetch_one(&mut *connection).await.map_err(failed(what))?;
    let found: i64 = found.try_get(0).map_err(failed(what))?;
    let known = MIGRATIONS.len();
    if let Some(pending) = usize::try_from(found).ok().and_then(|found| MIGRATIONS.get(found..)) {
        return Ok(pending);
    }
    if works_with(connection, known).await {
        return Ok(&[]);
    }
    Err(JournalError::corrupt(format!(
        "the journal has schema version {found}, this program knows versions up to {known}: it was written by a newer \
         version of Towpath; install that version, or a newer one"
    )))
}

/// Whether the newer program that has migrated the file has said that programs of this schema can work with it.
async fn works_with(connection: &mut SqliteConnection, known: usize) -> bool {
    let since = sqlx::query_scalar::<_, i64>("SELECT since FROM compatible WHERE one = 1").fetch_one(connection).await;
    since.ok().and_then(|since| usize::try_from(since).ok()).is_some_and(|since| since >= 1 && since <= known)
}

async fn check_owner(connection: &mut SqliteConnection, name: &str, what: &'static str) -> Result<()> {
    let owner = sqlx::query("SELECT place FROM about").fetch_one(connection).await.map_err(failed(what))?;
    let owner: String = owner.try_get(0).map_err(failed(what))?;
    if owner != name {
        return Err(JournalError::corrupt(format!("the file is the journal of the {owner}, not of the {name}")));
    }
    Ok(())
}

const fn place_name(place: Place) -> &'static str {
    match place {
        Place::Agent => "agent",
        Place::Relay => "relay",
        Place::Receiver => "receiver",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_migration_sets_its_own_version() {
        for (version, migration) in (1..).zip(MIGRATIONS) {
            assert!(migration.contains(&format!("PRAGMA user_version = {version};")));
        }
    }

    #[test]
    fn each_migration_says_whose_programs_can_work_with_it() {
        for migration in MIGRATIONS.iter().skip(2) {
            assert!(migration.contains("INTO compatible VALUES (1, ") || migration.contains("UPDATE compatible SET since = "));
        }
    }
}
