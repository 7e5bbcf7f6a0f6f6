//! What differs from database to database. What stands here for databases other than PostgreSQL, MariaDB and SQLite is from their
//! manuals.

use std::time::Duration;

use towpath_transfer::manifest::SqlType;

use crate::config::OdbcIsolation;

/// `NO_CACHE` and `FORWARD_CURSOR`: rows come one after the other instead of all at once, with drivers that can do that
/// (<https://dev.mysql.com/doc/connector-odbc/en/connector-odbc-configuration-connection-parameters.html>).
const MYSQL_STREAMS: &str = "3145728";

/// A database, by what its driver calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dbms {
    PostgreSql,
    /// MariaDB and MySQL.
    MySql,
    SqlServer,
    Oracle,
    /// Db2 for Linux, UNIX and Windows; the one of IBM i is another database.
    Db2,
    Hana,
    Sqlite,
    Other(String),
}

/// How a transaction is begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begin {
    /// Statements of the session, while each is a transaction of its own.
    pub(super) session: Vec<String>,
    /// Statements of the transaction that stays open until the end.
    pub(super) transaction: Vec<String>,
    /// The isolation, in the database's own word.
    pub(super) isolation: &'static str,
    /// Whether all that is read is of one state.
    pub(super) consistent: bool,
    /// What an administrator should know.
    pub(super) warning: Option<&'static str>,
}

impl Dbms {
    /// By `SQL_DBMS_NAME`.
    pub(super) fn of_name(name: &str) -> Self {
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("postgresql") {
            Self::PostgreSql
        } else if lower.starts_with("mariadb") || lower.starts_with("mysql") {
            Self::MySql
        } else if lower.starts_with("microsoft sql server") {
            Self::SqlServer
        } else if lower.starts_with("oracle") {
            Self::Oracle
        } else if lower.starts_with("db2") && !lower.contains("400") {
            Self::Db2
        } else if lower == "hdb" {
            Self::Hana
        } else if lower.starts_with("sqlite") {
            Self::Sqlite
        } else {
            Self::Other(name.to_owned())
        }
    }

    /// Its name, for people.
    pub(super) fn shown(&self) -> &str {
        match self {
            Self::PostgreSql => "PostgreSQL",
            Self::MySql => "MariaDB",
            Self::SqlServer => "SQL Server",
            Self::Oracle => "Oracle",
            Self::Db2 => "Db2",
            Self::Hana => "SAP HANA",
            Self::Sqlite => "SQLite",
            Self::Other(name) => name,
        }
    }

    /// Settings in the connection string without which the usual driver would buffer whole results or change values.
    pub(super) fn driver_settings(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::PostgreSql => &[
                ("UseDeclareFetch", "1"),
                ("Protocol", "7.4-2"),
                ("BoolsAsChar", "0"),
                ("ByteaAsLongVarBinary", "1"),
                ("LFConversion", "0"),
            ],
            Self::MySql => &[("CHARSET", "utf8mb4"), ("OPTION", MYSQL_STREAMS)],
            Self::Sqlite => &[("StepAPI", "1"), ("NoCreat", "1"), ("BigInt", "1")],
            Self::SqlServer | Self::Oracle | Self::Db2 | Self::Hana | Self::Other(_) => &[],
        }
    }

    /// Whether no text is longer than its column says; then texts are fetched many rows at once. PostgreSQL's driver makes up
    /// lengths, SQLite does not keep to them, and of a database that is not known nothing can be said.
    pub(super) const fn keeps_lengths(&self) -> bool {
        matches!(self, Self::MySql | Self::SqlServer | Self::Oracle | Self::Db2 | Self::Hana)
    }

    /// Whether no number and no date is longer than its type says.
    pub(super) const fn keeps_types(&self) -> bool {
        !matches!(self, Self::Sqlite | Self::Other(_))
    }

    /// A value that stands for itself only where a statement's text arrives as it was sent.
    pub(super) fn echo(&self, text: &str) -> Option<String> {
        match self {
            Self::SqlServer => Some(format!("SELECT N'{text}'")),
            Self::Oracle => Some(format!("SELECT '{text}' FROM DUAL")),
            Self::Db2 => Some(format!("SELECT '{text}' FROM SYSIBM.SYSDUMMY1")),
            Self::Hana => Some(format!("SELECT '{text}' FROM DUMMY")),
            Self::PostgreSql => Some(format!("SELECT CAST('{text}' AS VARCHAR)")),
            Self::MySql | Self::Sqlite => Some(format!("SELECT '{text}'")),
            Self::Other(_) => None,
        }
    }

    /// Statements that make a session say values in one way only, and end a statement after `timeout`.
    pub(super) fn prepare_session(&self, name: &str, timeout: Duration) -> Vec<String> {
        let (millis, seconds) = (timeout.as_millis(), seconds(timeout));
        match self {
            Self::PostgreSql => vec![format!("SET statement_timeout = {millis}"), "SET TimeZone = 'UTC'".to_owned()],
            Self::MySql if name.to_ascii_lowercase().starts_with("mariadb") => {
                vec![format!("SET SESSION max_statement_time = {seconds}"), "SET SESSION time_zone = '+00:00'".to_owned()]
            }
            Self::MySql => {
                vec![format!("SET SESSION max_execution_time = {millis}"), "SET SESSION time_zone = '+00:00'".to_owned()]
            }
            Self::Oracle => ["NUMERIC_CHARACTERS = '.,'", "DATE_FORMAT = 'YYYY-MM-DD HH24:MI:SS'"]
                .iter()
                .chain(&["TIMESTAMP_FORMAT = 'YYYY-MM-DD HH24:MI:SS.FF'"])
                .chain(&["TIMESTAMP_TZ_FORMAT = 'YYYY-MM-DD HH24:MI:SS.FF TZH:TZM'"])
                .map(|setting| format!("ALTER SESSION SET NLS_{setting}"))
                .collect(),
            Self::Sqlite => vec!["PRAGMA query_only = 1".to_owned()],
            // FreeTDS asks for what its configuration says, which is 64,512 bytes in most samples, and the server then cuts longer values
            // without a word. This is the most, and what Microsoft's driver asks for anyway (Transact-SQL, SET TEXTSIZE).
            Self::SqlServer => vec!["SET TEXTSIZE 2147483647".to_owned()],
            Self::Db2 | Self::Hana | Self::Other(_) => Vec::new(),
        }
    }

    /// The timeout that the driver is asked to keep for each statement, in seconds; `None` where the session does it, or nobody can.
    pub(super) fn driver_timeout(&self, timeout: Duration) -> Option<usize> {
        match self {
            Self::PostgreSql | Self::MySql | Self::Sqlite => None,
            Self::SqlServer | Self::Oracle | Self::Db2 | Self::Hana | Self::Other(_) => usize::try_from(seconds(timeout)).ok(),
        }
    }

    /// Whether the driver must not know of the transaction: SQLite's gives rows one after the other only outside of one.
    pub(super) fn begins_by_sql(&self) -> bool {
        *self == Self::Sqlite
    }

    /// How to begin with the isolation that is asked for; `None` where the database has no such isolation. `snapshots` says whether
    /// an SQL Server allows `SNAPSHOT`. [`OdbcIsolation::Best`] never takes locks that an ERP would wait for.
    pub(super) fn begin(&self, asked: OdbcIsolation, snapshots: bool) -> Option<Begin> {
        use OdbcIsolation::{Best, ReadCommitted, RepeatableRead, Serializable, Snapshot};
        let standard = |isolation: &'static str, consistent| Begin {
            session: Vec::new(),
            transaction: vec![format!("SET TRANSACTION ISOLATION LEVEL {}", isolation.to_ascii_uppercase())],
            isolation,
            consistent,
            warning: (!consistent).then_some(NOT_ONE_STATE),
        };
        let in_session = |begin: Begin| Begin { session: begin.transaction, transaction: Vec::new(), ..begin };
        Some(match (self, asked) {
            (Self::SqlServer, Best | Snapshot) if snapshots => in_session(standard("snapshot", true)),
            (Self::SqlServer, Best) => Begin { warning: Some(NO_SNAPSHOT), ..in_session(standard("read committed", false)) },
            (_, Snapshot) => return None,
            (Self::PostgreSql, _) => {
                let isolation = match asked {
                    Serializable => "serializable",
                    ReadCommitted => "read committed",
                    _ => "repeatable read",
                };
                let level = isolation.to_ascii_uppercase();
                let session = format!("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level} READ ONLY");
                let standard = standard(isolation, asked != ReadCommitted);
                Begin { session: vec![session], transaction: Vec::new(), ..standard }
            }
            (Self::MySql, _) => {
                let isolation = match asked {
                    Serializable => "serializable",
                    ReadCommitted => "read committed",
                    _ => "repeatable read",
                };
                let level = isolation.to_ascii_uppercase();
                let with = if isolation == "repeatable read" { "WITH CONSISTENT SNAPSHOT, READ ONLY" } else { "READ ONLY" };
                Begin {
                    session: vec![format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}")],
                    transaction: vec![format!("START TRANSACTION {with}")],
                    ..standard(isolation, asked != ReadCommitted)
                }
            }
            (Self::Sqlite, _) => Begin { transaction: vec!["BEGIN".to_owned()], ..standard("serializable", true) },
            (Self::Oracle, Best | RepeatableRead) => {
                Begin { transaction: vec!["SET TRANSACTION READ ONLY".to_owned()], ..standard("read only", true) }
            }
            (Self::Db2, Best | ReadCommitted) => db2("CS", "cursor stability", false),
            (Self::Db2, RepeatableRead) => db2("RS", "read stability", false),
            (Self::Db2, Serializable) => db2("RR", "repeatable read", true),
            (Self::Hana, Best | RepeatableRead) => standard("repeatable read", true),
            (Self::Other(_), Best) => Begin { transaction: Vec::new(), ..standard("of the driver", false) },
            (Self::SqlServer, Serializable) => in_session(standard("serializable", true)),
            // With locks, rows that are new in a table already read are in no other table either way, but here they may be.
            (Self::SqlServer, RepeatableRead) => in_session(standard("repeatable read", false)),
            (Self::SqlServer, ReadCommitted) => in_session(standard("read committed", false)),
            (Self::Oracle | Self::Hana | Self::Other(_), Serializable) => standard("serializable", true),
            (Self::Other(_), RepeatableRead) => standard("repeatable read", false),
            (Self::Oracle | Self::Hana | Self::Other(_), ReadCommitted) => standard("read committed", false),
        })
    }

    /// What tells the session's id, and the statement with which another session ends what this one does; `@` is the id.
    pub(super) const fn kill(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::PostgreSql => Some(("SELECT pg_backend_pid()", "SELECT pg_cancel_backend(@)")),
            Self::MySql => Some(("SELECT CONNECTION_ID()", "KILL QUERY @")),
            Self::SqlServer => Some(("SELECT @@SPID", "KILL @")),
            Self::Oracle | Self::Db2 | Self::Hana | Self::Sqlite | Self::Other(_) => None,
        }
    }

    /// What identifies the state that the transaction reads, beyond the time.
    pub(super) const fn state(&self) -> Option<&'static str> {
        match self {
            Self::PostgreSql => Some("SELECT CAST(txid_current_snapshot() AS VARCHAR)"),
            // A transaction of SQLite takes its snapshot at its first read.
            Self::Sqlite => Some("SELECT count(*) FROM sqlite_master"),
            Self::MySql => Some("SELECT CONNECTION_ID()"),
            Self::SqlServer => Some("SELECT @@SPID"),
            Self::Oracle | Self::Db2 | Self::Hana | Self::Other(_) => None,
        }
    }

    /// A query whose value is more than 0 where the login may write, and how that was found out.
    pub(super) const fn may_write(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::PostgreSql => Some((
                "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
                 AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' \
                 AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')",
                "has_table_privilege",
            )),
            // Who may read the server's own tables sees the rights of others too.
            Self::MySql => Some((
                "SELECT COUNT(*) FROM (SELECT grantee, privilege_type FROM information_schema.user_privileges UNION ALL \
                 SELECT grantee, privilege_type FROM information_schema.schema_privileges WHERE DATABASE() LIKE table_schema \
                 UNION ALL SELECT grantee, privilege_type FROM information_schema.table_privileges WHERE table_schema = DATABASE()) p \
                 WHERE privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'DROP', 'ALTER') \
                 AND grantee = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')",
                "information_schema.user_privileges, schema_privileges and table_privileges",
            )),
            Self::SqlServer => Some((
                "SELECT COALESCE(IS_SRVROLEMEMBER('sysadmin'), 0) + COALESCE(HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', 'INSERT'), 0) \
                 + COALESCE(HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', 'UPDATE'), 0) \
                 + COALESCE(HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', 'DELETE'), 0)",
                "HAS_PERMS_BY_NAME of the database",
            )),
            Self::Oracle => Some((
                "SELECT (SELECT COUNT(*) FROM session_privs WHERE privilege IN ('INSERT ANY TABLE', 'UPDATE ANY TABLE', \
                 'DELETE ANY TABLE')) + (SELECT COUNT(*) FROM user_tables) + (SELECT COUNT(*) FROM user_tab_privs_recd \
                 WHERE privilege IN ('INSERT', 'UPDATE', 'DELETE')) FROM DUAL",
                "SESSION_PRIVS, USER_TABLES and USER_TAB_PRIVS_RECD",
            )),
            Self::Db2 | Self::Hana | Self::Sqlite | Self::Other(_) => None,
        }
    }

    /// The query for tables of the current database that are not part of a transaction.
    pub(super) const fn outside_snapshot(&self) -> Option<&'static str> {
        match self {
            Self::MySql => Some(
                "SELECT COUNT(*) FROM information_schema.tables t JOIN information_schema.engines e ON e.engine = t.engine \
                 WHERE t.table_schema = DATABASE() AND t.table_type = 'BASE TABLE' AND e.transactions <> 'YES'",
            ),
            _ => None,
        }
    }

    /// The schema of a table for which none is said.
    pub(super) const fn schema(&self) -> Option<&'static str> {
        match self {
            Self::Sqlite => Some("main"),
            _ => None,
        }
    }

    /// The exact sum of the column `name` as an expression.
    pub(super) fn sum(&self, name: &str, sql_type: SqlType) -> Option<String> {
        let scale = match sql_type {
            SqlType::BigInt => 0,
            SqlType::Decimal { scale, .. } => scale,
            _ => return None,
        };
        Some(match self {
            Self::PostgreSql => format!("SUM(CAST({name} AS NUMERIC))"),
            Self::MySql => format!("SUM(CAST({name} AS DECIMAL(65, {scale})))"),
            Self::SqlServer | Self::Hana => format!("SUM(CAST({name} AS DECIMAL(38, {scale})))"),
            Self::Db2 => format!("SUM(CAST({name} AS DECIMAL(31, {scale})))"),
            // All digits, whatever they are; the driver would round them to 15 or write an exponent.
            Self::Oracle => format!("TO_CHAR(SUM({name}), 'TM9', 'NLS_NUMERIC_CHARACTERS=''.,''')"),
            Self::Sqlite | Self::Other(_) if scale == 0 => format!("SUM(CAST({name} AS DECIMAL(31, 0)))"),
            Self::Sqlite | Self::Other(_) => format!("SUM({name})"),
        })
    }

    /// The function that counts rows without an end at 2^31.
    pub(super) const fn count(&self) -> &'static str {
        match self {
            Self::SqlServer => "COUNT_BIG",
            _ => "COUNT",
        }
    }
}

const NOT_ONE_STATE: &str = "the tables of a transfer are not of one state of the database at this isolation, because each \
                             statement reads what is committed when it begins";
const NO_SNAPSHOT: &str = "the tables of a transfer are not of one state of the database, because it does not allow SNAPSHOT \
                           isolation: have its administrator run ALTER DATABASE ... SET ALLOW_SNAPSHOT_ISOLATION ON, or set \
                           isolation = \"serializable\", for which the ERP's writers wait";

/// Db2 sets the isolation of a session with a special register.
fn db2(level: &str, isolation: &'static str, consistent: bool) -> Begin {
    Begin {
        session: vec![format!("SET CURRENT ISOLATION = {level}")],
        transaction: Vec::new(),
        isolation,
        consistent,
        warning: (!consistent).then_some(NOT_ONE_STATE),
    }
}

/// Whole seconds, at least one.
fn seconds(timeout: Duration) -> u64 {
    timeout.as_secs().saturating_add(u64::from(timeout.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_known_by_what_its_driver_calls_it() {
        for (name, dbms) in [
            ("PostgreSQL", Dbms::PostgreSql),
            ("MariaDB", Dbms::MySql),
            ("MySQL", Dbms::MySql),
            ("Microsoft SQL Server", Dbms::SqlServer),
            ("Oracle", Dbms::Oracle),
            ("DB2/LINUXX8664", Dbms::Db2),
            ("DB2/400 SQL", Dbms::Other("DB2/400 SQL".to_owned())),
            ("HDB", Dbms::Hana),
            ("SQLite", Dbms::Sqlite),
            ("Pervasive.SQL", Dbms::Other("Pervasive.SQL".to_owned())),
        ] {
            assert_eq!(Dbms::of_name(name), dbms);
        }
    }

    #[test]
    fn isolation_as_each_database_calls_it() {
        let begun = |dbms: Dbms, asked, snapshots| dbms.begin(asked, snapshots).map(|begin| (begin.isolation, begin.consistent));
        use OdbcIsolation::*;
        let other = || Dbms::Other("X".to_owned());
        for (dbms, asked, snapshots, expected) in [
            (Dbms::SqlServer, Best, true, Some(("snapshot", true))),
            (Dbms::SqlServer, Snapshot, true, Some(("snapshot", true))),
            (Dbms::SqlServer, Best, false, Some(("read committed", false))),
            (Dbms::SqlServer, Snapshot, false, None),
            (Dbms::SqlServer, Serializable, false, Some(("serializable", true))),
            (Dbms::SqlServer, RepeatableRead, true, Some(("repeatable read", false))),
            (Dbms::PostgreSql, Best, false, Some(("repeatable read", true))),
            (Dbms::PostgreSql, ReadCommitted, false, Some(("read committed", false))),
            (Dbms::PostgreSql, Snapshot, false, None),
            (Dbms::MySql, Best, false, Some(("repeatable read", true))),
            (Dbms::Oracle, Best, false, Some(("read only", true))),
            (Dbms::Oracle, Serializable, false, Some(("serializable", true))),
            (Dbms::Db2, Best, false, Some(("cursor stability", false))),
            (Dbms::Db2, Serializable, false, Some(("repeatable read", true))),
            (Dbms::Hana, Best, false, Some(("repeatable read", true))),
            (Dbms::Sqlite, Best, false, Some(("serializable", true))),
            (other(), Best, false, Some(("of the driver", false))),
            (other(), Serializable, false, Some(("serializable", true))),
        ] {
            assert_eq!(begun(dbms.clone(), asked, snapshots), expected, "{dbms:?} {asked:?}");
            let warned = dbms.begin(asked, snapshots).is_some_and(|begin| begin.warning.is_some());
            assert_eq!(warned, expected.is_some_and(|(_, consistent)| !consistent), "{dbms:?} {asked:?}");
        }
        assert_eq!(Dbms::Oracle.begin(Best, false).unwrap().transaction, ["SET TRANSACTION READ ONLY"]);
        let begin = Dbms::SqlServer.begin(Best, true).unwrap();
        assert_eq!(begin.session, ["SET TRANSACTION ISOLATION LEVEL SNAPSHOT"]);
    }

    #[test]
    fn an_sql_server_cuts_no_long_value() {
        let statements = Dbms::SqlServer.prepare_session("Microsoft SQL Server", Duration::from_secs(2));
        assert_eq!(statements, ["SET TEXTSIZE 2147483647"]);
    }

    #[test]
    fn a_timeout_is_never_less_than_said_and_never_none() {
        assert_eq!(Dbms::SqlServer.driver_timeout(Duration::from_millis(1)), Some(1));
        assert_eq!(Dbms::SqlServer.driver_timeout(Duration::from_millis(1_500)), Some(2));
        assert_eq!(
            Dbms::PostgreSql.prepare_session("PostgreSQL", Duration::from_millis(1_500))[0],
            "SET statement_timeout = 1500"
        );
        assert_eq!(Dbms::MySql.prepare_session("MySQL", Duration::from_secs(2))[0], "SET SESSION max_execution_time = 2000");
    }
}
