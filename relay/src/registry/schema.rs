//! The registry's tables and how an older file becomes a present one.

use sqlx::{Sqlite, Transaction};
use towpath_transfer::{Code, Failure, failure::Result};

use super::{Registry, audit_schema, commit, db};

/// The version of the tables below, kept in SQLite's `user_version`.
const VERSION: i64 = 8;
/// The version in which the audit trail became a chain.
const CHAINED: i64 = 4;

const TABLES: &[&str] = &[
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT",
    "INSERT INTO meta (key, value) VALUES ('changes', 0)",
    "CREATE TABLE tenants (
        name TEXT PRIMARY KEY,
        created INTEGER NOT NULL,
        landing TEXT,
        landing_by TEXT CHECK (landing_by IN ('operator', 'receiver')),
        CHECK ((landing IS NULL) = (landing_by IS NULL))
    ) STRICT",
    "CREATE TABLE enrolments (
        id INTEGER PRIMARY KEY,
        secret_sha256 TEXT NOT NULL UNIQUE,
        tenant TEXT NOT NULL REFERENCES tenants (name),
        role TEXT NOT NULL CHECK (role IN ('agent', 'receiver')),
        name TEXT NOT NULL,
        relay_url TEXT NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        used_key TEXT,
        used_at INTEGER
    ) STRICT",
    "CREATE INDEX enrolments_of_tenant ON enrolments (tenant, name)",
    "CREATE TABLE ends (
        tenant TEXT NOT NULL REFERENCES tenants (name),
        name TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('agent', 'receiver')),
        key TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        proof TEXT NOT NULL,
        secret_sha256 TEXT NOT NULL,
        relay_url TEXT NOT NULL,
        enrolled INTEGER NOT NULL,
        revoked INTEGER,
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE used_tokens (
        issuer TEXT NOT NULL,
        id TEXT NOT NULL,
        expires INTEGER NOT NULL,
        PRIMARY KEY (issuer, id)
    ) STRICT, WITHOUT ROWID",
    "CREATE INDEX used_tokens_by_expiry ON used_tokens (expires)",
    "CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        who TEXT NOT NULL,
        tenant TEXT,
        what TEXT NOT NULL,
        result TEXT NOT NULL
    ) STRICT",
];

/// Since version 2.
const PINNED_ANNOUNCEMENTS: &[&str] = &["CREATE TABLE pinned_announcements (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        serial INTEGER NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (tenant, name),
        FOREIGN KEY (tenant, name) REFERENCES ends (tenant, name)
    ) STRICT, WITHOUT ROWID"];

/// Since version 3. A time that is null says that nothing is expected.
const EXPECTATIONS: &[&str] = &[
    "CREATE TABLE expecting (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        heard INTEGER NOT NULL,
        PRIMARY KEY (tenant, name),
        FOREIGN KEY (tenant, name) REFERENCES ends (tenant, name)
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE expectations (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        job TEXT NOT NULL,
        expected_by INTEGER,
        PRIMARY KEY (tenant, name, job),
        FOREIGN KEY (tenant, name) REFERENCES expecting (tenant, name)
    ) STRICT, WITHOUT ROWID",
    "PRAGMA user_version = 3",
];

/// Since version 5. The key that a row follows is the one of the row before it, or the one that enrolled.
const ROTATIONS: &[&str] = &[
    "CREATE TABLE rotations (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        place INTEGER NOT NULL,
        new_key TEXT NOT NULL,
        fingerprint TEXT NOT NULL UNIQUE,
        old_until INTEGER NOT NULL,
        by_old TEXT NOT NULL,
        by_new TEXT NOT NULL,
        PRIMARY KEY (tenant, name, place),
        FOREIGN KEY (tenant, name) REFERENCES ends (tenant, name)
    ) STRICT, WITHOUT ROWID",
    "PRAGMA user_version = 5",
];

/// Since version 6. What is null is as the configuration says.
const LIMITS: &[&str] = &[
    "CREATE TABLE tenant_limits (
        tenant TEXT PRIMARY KEY REFERENCES tenants (name),
        quota INTEGER CHECK (quota > 0),
        reserve INTEGER CHECK (reserve >= 0),
        retention_ms INTEGER CHECK (retention_ms >= 0),
        journal_keeps INTEGER CHECK (journal_keeps >= 0)
    ) STRICT, WITHOUT ROWID",
    "PRAGMA user_version = 6",
];

/// Since version 7. A tenant without a ring has no releases.
const RELEASES: &[&str] = &[
    "CREATE TABLE releases (version TEXT PRIMARY KEY, added INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE release_approvals (
        version TEXT NOT NULL REFERENCES releases (version),
        ring INTEGER NOT NULL CHECK (ring BETWEEN 1 AND 9),
        approved INTEGER NOT NULL,
        PRIMARY KEY (ring, version)
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE tenant_rings (
        tenant TEXT PRIMARY KEY REFERENCES tenants (name),
        ring INTEGER NOT NULL CHECK (ring BETWEEN 1 AND 9)
    ) STRICT, WITHOUT ROWID",
    "PRAGMA user_version = 7",
];

/// Since version 8. Which receiver has named the landing, by its name; null where the operator has, and where an older program took it.
const LANDING_OF: &[&str] = &["ALTER TABLE tenants ADD COLUMN landing_of TEXT", "PRAGMA user_version = 8"];

async fn make(tx: &mut Transaction<'static, Sqlite>, statements: &[&'static str]) -> Result<()> {
    for statement in statements {
        sqlx::query(*statement).execute(&mut **tx).await.map_err(db("make the registry's tables"))?;
    }
    Ok(())
}

/// The tables of version 3, as an older program has made them.
#[cfg(test)]
pub(super) async fn make_version_3(tx: &mut Transaction<'static, Sqlite>) -> Result<()> {
    for statements in [TABLES, PINNED_ANNOUNCEMENTS, EXPECTATIONS] {
        make(tx, statements).await?;
    }
    Ok(())
}

/// Takes the tables of today back to those of version 5.
#[cfg(test)]
pub(super) const BACK_TO_VERSION_5: &[&str] = &[
    "ALTER TABLE tenants DROP COLUMN landing_of",
    "DROP TABLE tenant_rings",
    "DROP TABLE release_approvals",
    "DROP TABLE releases",
    "DROP TABLE tenant_limits",
    "PRAGMA user_version = 5",
];

impl Registry {
    pub(super) async fn migrate(&self) -> Result<()> {
        let mut tx = self.begin().await?;
        let found: i64 =
            sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *tx).await.map_err(db("read the registry's version"))?;
        match found {
            VERSION => Ok(()),
            0..VERSION => {
                let since = [(1, TABLES), (2, PINNED_ANNOUNCEMENTS), (3, EXPECTATIONS), (CHAINED, audit_schema::CHAIN)];
                for (version, statements) in since {
                    if found < version {
                        make(&mut tx, statements).await?;
                    }
                }
                if found < CHAINED {
                    audit_schema::take_over(&mut tx).await?;
                    make(&mut tx, audit_schema::CHAIN_GUARDS).await?;
                }
                for (version, statements) in [(5, ROTATIONS), (6, LIMITS), (7, RELEASES), (8, LANDING_OF)] {
                    if found < version {
                        make(&mut tx, statements).await?;
                    }
                }
                commit(tx).await
            }
            newer => {
                let message =
                    format!("the registry was written by a newer version (its tables are {newer}, this program's {VERSION})");
                Err(Failure::park(Code::FileFailed, message))
            }
        }
    }
}
