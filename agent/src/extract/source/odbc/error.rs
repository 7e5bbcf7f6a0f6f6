//! What a driver's errors mean to an operator: by SQLSTATE, and where a driver has no good one, by the database's own number.

use odbc_api::{Error, handles::Record};
use towpath_transfer::{Code, Failure};

use super::{dbms::Dbms, fetch::NoRows};

/// What is wrong, as far as the cause decides what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The driver, or the data source, is not installed.
    NoDriver,
    /// The server does not answer, or the connection is lost.
    Missing,
    /// Login or right.
    Refused,
    /// Lock, or timeout of a statement.
    Locked,
    /// Somebody else has ended the statement.
    Ended,
    /// Anything else.
    Query,
}

/// What psqlodbc says of a login that was refused; its SQLSTATE is that of a server that does not answer.
const PG_REFUSED: [&str; 4] =
    ["authentication failed", "pg_hba.conf", "not permitted to log in", "permission denied for database"];
/// Numbers of MariaDB and MySQL (<https://mariadb.com/kb/en/mariadb-error-code-reference/>).
const MYSQL_REFUSED: [i32; 9] = [1044, 1045, 1130, 1142, 1143, 1227, 1370, 1698, 1820];
const MYSQL_MISSING: [i32; 9] = [1040, 1049, 1053, 1203, 2002, 2003, 2005, 2006, 2013];
const MYSQL_LOCKED: [i32; 5] = [1205, 1213, 1969, 3024, 4025];
const MYSQL_ENDED: [i32; 2] = [1317, 1927];
/// Numbers of SQL Server (<https://learn.microsoft.com/en-us/sql/relational-databases/errors-events/database-engine-events-and-errors>).
const SQL_SERVER_REFUSED: [i32; 7] = [229, 230, 262, 297, 300, 916, 18456];
/// Also a database that is being recovered, restored, changed or set offline, has room for one user, or cannot be read on this replica;
/// a server that shuts down, pauses or upgrades itself; and Azure SQL's way to say so.
const SQL_SERVER_MISSING: [i32; 20] =
    [233, 921, 922, 924, 927, 942, 945, 952, 976, 978, 979, 983, 4060, 6005, 10054, 17142, 18401, 40197, 40501, 40613];
/// Also a snapshot that cannot be read because somebody has changed a table's definition meanwhile, as a rebuilt index does.
const SQL_SERVER_LOCKED: [i32; 3] = [1205, 1222, 3961];
const SQL_SERVER_ENDED: [i32; 1] = [596];
/// Numbers of Oracle (<https://docs.oracle.com/error-help/db/>).
const ORACLE_REFUSED: [i32; 5] = [1017, 1031, 1045, 28000, 28001];
const ORACLE_MISSING: [i32; 13] = [1033, 1034, 1089, 1090, 1092, 3113, 3114, 3135, 12154, 12170, 12514, 12528, 12541];
const ORACLE_LOCKED: [i32; 5] = [54, 1013, 1555, 8177, 30006];
/// Primary result codes of SQLite (<https://www.sqlite.org/rescode.html>).
const SQLITE_MISSING: [i32; 2] = [10, 14];
const SQLITE_LOCKED: [i32; 3] = [5, 6, 15];

/// The failure of `doing` something with the database `shown`.
pub(super) fn failure(dbms: Option<&Dbms>, shown: &str, doing: &str, error: Error) -> Failure {
    let kind = record(&error).map_or(Kind::Query, |record| kind(dbms, record));
    of_kind(kind, shown, doing).caused_by(error)
}

/// The failure of reading rows; `doing` names the table.
pub(super) fn of_rows(dbms: &Dbms, shown: &str, doing: &str, error: NoRows) -> Failure {
    match error {
        NoRows::Driver(error) => failure(Some(dbms), shown, doing, error),
        NoRows::Sink(failure) => failure,
        NoRows::TooLong(_) => Failure::park(Code::LimitExceeded, format!("{doing} failed: {error}")),
        NoRows::Longer(_) => {
            let advice = "nothing was cut off; give the column a sufficient length with CAST in a query";
            Failure::park(Code::ErpValue, format!("{doing} failed: {error}; {advice}"))
        }
    }
}

/// The connection is gone, whatever the driver said of it.
pub(super) fn gone(shown: &str, doing: &str, error: Error) -> Failure {
    of_kind(Kind::Missing, shown, doing).caused_by(error)
}

/// A query that the database takes and we do not.
pub(super) fn refused(shown: &str, doing: &str, why: &str) -> Failure {
    Failure::park(Code::ErpQuery, format!("{doing} of the ERP database {shown} failed: {why}"))
}

/// Whether the driver says no more than that something went wrong.
pub(super) fn is_vague(error: &Error) -> bool {
    record(error).is_none_or(|record| record.state.as_str() == "HY000")
}

fn record(error: &Error) -> Option<&Record> {
    match error {
        Error::Diagnostics { record, .. }
        | Error::InvalidRowArraySize { record, .. }
        | Error::UnableToRepresentNull(record)
        | Error::UnsupportedOdbcApiVersion(record)
        | Error::OracleOdbcDriverDoesNotSupport64Bit(record) => Some(record),
        _ => None,
    }
}

fn kind(dbms: Option<&Dbms>, record: &Record) -> Kind {
    let message = String::from_utf16_lossy(&record.message);
    let state = record.state.as_str();
    // While it connects nobody but the message tells whose number it is.
    let said = if dbms.is_none() { maker(&message) } else { None };
    if let Some(kind) = dbms.or(said.as_ref()).and_then(|dbms| by_number(dbms, record.native_error)) {
        return kind;
    }
    match state {
        "IM002" | "IM003" | "IM004" | "IM005" | "IM012" | "IM014" => Kind::NoDriver,
        "01000" if message.contains("Can't open lib") => Kind::NoDriver,
        "08001" | "08004" | "08006" if PG_REFUSED.iter().any(|said| message.contains(said)) => Kind::Refused,
        "28000" | "28P01" | "42501" => Kind::Refused,
        "HYT00" | "HYT01" | "40001" | "40P01" | "55P03" => Kind::Locked,
        // PostgreSQL ends a statement at its timeout as if somebody had cancelled it.
        "57014" if message.contains("timeout") => Kind::Locked,
        "57014" | "HY008" | "70100" => Kind::Ended,
        "55000" | "57P01" | "57P02" | "57P03" | "53300" => Kind::Missing,
        _ if state.starts_with("08") => Kind::Missing,
        _ => Kind::Query,
    }
}

/// Whose message it is, by the components that it begins with, as `[Microsoft][ODBC Driver 18 for SQL Server][SQL Server]`
/// (<https://learn.microsoft.com/en-us/sql/odbc/reference/develop-app/diagnostic-messages>), or by Oracle's own way to begin.
fn maker(message: &str) -> Option<Dbms> {
    let components = message.rsplit_once(']').map_or("", |(components, _)| components).to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| components.contains(part));
    if has(&["[sql server", "for sql server", "[freetds"]) {
        Some(Dbms::SqlServer)
    } else if has(&["[mysql", "[mariadb", "[ma-"]) {
        Some(Dbms::MySql)
    } else if message.split("ORA-").skip(1).any(|rest| rest.starts_with(|next: char| next.is_ascii_digit())) {
        Some(Dbms::Oracle)
    } else {
        None
    }
}

fn by_number(dbms: &Dbms, number: i32) -> Option<Kind> {
    let (refused, missing, locked, ended): (&[i32], &[i32], &[i32], &[i32]) = match dbms {
        Dbms::MySql => (&MYSQL_REFUSED, &MYSQL_MISSING, &MYSQL_LOCKED, &MYSQL_ENDED),
        Dbms::SqlServer => (&SQL_SERVER_REFUSED, &SQL_SERVER_MISSING, &SQL_SERVER_LOCKED, &SQL_SERVER_ENDED),
        Dbms::Oracle => (&ORACLE_REFUSED, &ORACLE_MISSING, &ORACLE_LOCKED, &[]),
        Dbms::Sqlite => (&[], &SQLITE_MISSING, &SQLITE_LOCKED, &[]),
        Dbms::PostgreSql | Dbms::Db2 | Dbms::Hana | Dbms::Other(_) => return None,
    };
    let of = [(refused, Kind::Refused), (missing, Kind::Missing), (locked, Kind::Locked), (ended, Kind::Ended)];
    of.into_iter().find(|(numbers, _)| numbers.contains(&number)).map(|(_, kind)| kind)
}

fn of_kind(kind: Kind, shown: &str, doing: &str) -> Failure {
    match kind {
        Kind::NoDriver => Failure::park(
            Code::ConfigInvalid,
            format!(
                "the ERP database {shown} cannot be reached, because its ODBC driver or data source is not installed here: install \
                 the driver that the maker of the database gives, for this system's architecture, and name it in `connection` as \
                 `odbcinst -q -d` or the ODBC Data Source Administrator lists it"
            ),
        ),
        Kind::Missing => Failure::retry(Code::ErpMissing, format!("the ERP database {shown} does not answer; {doing} failed")),
        Kind::Refused => {
            Failure::park(Code::ErpRefused, format!("the ERP database {shown} refused the login or a right; {doing} failed"))
        }
        Kind::Locked => Failure::retry(
            Code::ErpLocked,
            format!("{doing} of the ERP database {shown} took longer than `statement_timeout`, or another program holds a lock"),
        ),
        Kind::Ended => Failure::retry(Code::ErpLocked, format!("{doing} of the ERP database {shown} was ended from outside")),
        Kind::Query => Failure::park(Code::ErpQuery, format!("{doing} of the ERP database {shown} failed")),
    }
}

#[cfg(test)]
mod tests {
    use odbc_api::handles::State;
    use towpath_transfer::Disposition;

    use super::*;

    fn error(state: &[u8; 5], native_error: i32, message: &str) -> Error {
        let message = message.encode_utf16().collect();
        Error::Diagnostics { record: Record { state: State(*state), native_error, message }, function: "SQLExecute" }
    }

    #[test]
    fn what_to_do_follows_from_the_state_or_the_number() {
        for (dbms, state, number, message, code, disposition) in [
            (None, b"IM002", 0, "", Code::ConfigInvalid, Disposition::Park),
            (None, b"01000", 0, "[unixODBC]Can't open lib 'x' : file not found", Code::ConfigInvalid, Disposition::Park),
            (None, b"08001", 101, "Connection refused", Code::ErpMissing, Disposition::Retry),
            (None, b"08001", 101, "FATAL:  password authentication failed", Code::ErpRefused, Disposition::Park),
            (None, b"28000", 18456, "Login failed", Code::ErpRefused, Disposition::Park),
            (None, b"HYT00", 0, "timeout", Code::ErpLocked, Disposition::Retry),
            (None, b"42S02", 208, "no table", Code::ErpQuery, Disposition::Park),
            (
                None,
                b"42000",
                4060,
                "[Microsoft][ODBC Driver 18 for SQL Server][SQL Server]Cannot open database \"erp\" requested by the login.",
                Code::ErpMissing,
                Disposition::Retry,
            ),
            (None, b"42000", 927, "[FreeTDS][SQL Server]Database 'erp' cannot be opened.", Code::ErpMissing, Disposition::Retry),
            (
                None,
                b"HY000",
                12528,
                "[Oracle][ODBC][Ora]ORA-12528: TNS:listener: all appropriate instances are blocking new connections",
                Code::ErpMissing,
                Disposition::Retry,
            ),
            (None, b"HY000", 1040, "[MySQL][ODBC 8.0(w) Driver]Too many connections", Code::ErpMissing, Disposition::Retry),
            (
                None,
                b"HY000",
                2003,
                "[MySQL][ODBC 8.0(w) Driver]Can't connect to 'AURORA-ERP'",
                Code::ErpMissing,
                Disposition::Retry,
            ),
            (None, b"HY000", 927, "[Other][Driver]no such thing", Code::ErpQuery, Disposition::Park),
            (
                Some(Dbms::PostgreSql),
                b"57014",
                1,
                "canceling statement due to statement timeout",
                Code::ErpLocked,
                Disposition::Retry,
            ),
            (Some(Dbms::MySql), b"HY000", 2002, "", Code::ErpMissing, Disposition::Retry),
            (Some(Dbms::MySql), b"HY018", 1969, "", Code::ErpLocked, Disposition::Retry),
            (Some(Dbms::MySql), b"42000", 1142, "", Code::ErpRefused, Disposition::Park),
            (Some(Dbms::SqlServer), b"42000", 229, "", Code::ErpRefused, Disposition::Park),
            (Some(Dbms::SqlServer), b"42000", 1222, "", Code::ErpLocked, Disposition::Retry),
            (Some(Dbms::SqlServer), b"42000", 3961, "Snapshot isolation failed", Code::ErpLocked, Disposition::Retry),
            (Some(Dbms::SqlServer), b"42000", 927, "in the middle of a restore", Code::ErpMissing, Disposition::Retry),
            (Some(Dbms::SqlServer), b"42000", 952, "in transition", Code::ErpMissing, Disposition::Retry),
            (
                Some(Dbms::SqlServer),
                b"42000",
                976,
                "participating in an availability group",
                Code::ErpMissing,
                Disposition::Retry,
            ),
            (
                Some(Dbms::SqlServer),
                b"42000",
                978,
                "only when the application intent is read only",
                Code::ErpMissing,
                Disposition::Retry,
            ),
            (Some(Dbms::SqlServer), b"42000", 979, "not allowed for read only connections", Code::ErpMissing, Disposition::Retry),
            (Some(Dbms::Oracle), b"HY000", 12528, "blocking new connections", Code::ErpMissing, Disposition::Retry),
            (Some(Dbms::PostgreSql), b"55000", 1, "not currently accepting connections", Code::ErpMissing, Disposition::Retry),
            (Some(Dbms::Oracle), b"HY000", 1555, "snapshot too old", Code::ErpLocked, Disposition::Retry),
            (Some(Dbms::Oracle), b"42S02", 942, "", Code::ErpQuery, Disposition::Park),
            (Some(Dbms::Sqlite), b"HY000", 14, "", Code::ErpMissing, Disposition::Retry),
            (Some(Dbms::Sqlite), b"HY000", 1, "no such column", Code::ErpQuery, Disposition::Park),
        ] {
            let found = failure(dbms.as_ref(), "erp", "reading table t", error(state, number, message));
            assert_eq!((found.code(), found.disposition()), (code, disposition), "{dbms:?} {number} {message}");
        }
        let longer = of_rows(&Dbms::SqlServer, "erp", "reading table t", NoRows::Longer(3));
        assert_eq!(longer.code(), Code::ErpValue);
        assert!(longer.message().contains("table t") && longer.message().contains("column 3"), "{longer}");
        assert_eq!(of_rows(&Dbms::SqlServer, "erp", "reading", NoRows::TooLong(1)).code(), Code::LimitExceeded);
    }
}
