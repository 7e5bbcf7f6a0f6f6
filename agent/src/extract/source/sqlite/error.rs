//! What SQLite's errors mean to an operator.

use towpath_transfer::{Code, Failure};

/// Primary result codes (<https://www.sqlite.org/rescode.html>); the lowest byte of an extended code.
mod primary {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const NOMEM: i32 = 7;
    pub(super) const READONLY: i32 = 8;
    pub(super) const INTERRUPT: i32 = 9;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const PROTOCOL: i32 = 15;
    pub(super) const NOTADB: i32 = 26;
}

/// The failure of `doing` something with the database file `shown`.
pub(super) fn failure(shown: &str, doing: &str, error: sqlx::Error) -> Failure {
    let Some(code) = code_of(&error) else {
        let said = format!("the ERP database {shown} could not be read while {doing}");
        return match error {
            sqlx::Error::Io(_) => Failure::retry(Code::ErpMissing, said),
            sqlx::Error::WorkerCrashed => Failure::retry(Code::Internal, said),
            _ => Failure::park(Code::ErpQuery, said),
        }
        .caused_by(error);
    };
    let failure = match code & 0xff {
        primary::BUSY | primary::LOCKED | primary::PROTOCOL => Failure::retry(
            Code::ErpLocked,
            format!("the ERP database {shown} is locked by another program; {doing} was given up and will be tried again"),
        ),
        // Only its own program may bring a database back into order that a crash has left.
        primary::READONLY if code != primary::READONLY => Failure::retry(
            Code::ErpLocked,
            format!("the ERP database {shown} was left unfinished and must be opened by the ERP before {doing}"),
        ),
        primary::READONLY => {
            Failure::park(Code::ErpQuery, format!("the ERP database {shown} is only read, but {doing} would change it"))
        }
        primary::CANTOPEN => Failure::retry(
            Code::ErpMissing,
            format!("the ERP database {shown} cannot be opened: it is not there, is no file, or may not be read"),
        ),
        primary::IOERR => Failure::retry(Code::ErpMissing, format!("the ERP database {shown} could not be read while {doing}")),
        primary::NOTADB => Failure::park(Code::ErpQuery, format!("{shown} is not an SQLite database, or it is encrypted")),
        primary::CORRUPT => Failure::park(Code::ErpQuery, format!("the ERP database {shown} is damaged; {doing} failed")),
        primary::INTERRUPT => Failure::retry(Code::Cancelled, format!("{doing} was cancelled")),
        primary::NOMEM => Failure::retry(Code::Internal, format!("there was not enough memory for {doing}")),
        primary::FULL => Failure::retry(Code::DiskFull, format!("there was no room for temporary data while {doing}")),
        _ => Failure::park(Code::ErpQuery, format!("the ERP database {shown} refused {doing}")),
    };
    failure.caused_by(error)
}

/// A query that SQLite takes and we do not.
pub(super) fn refused(shown: &str, doing: &str, why: &str) -> Failure {
    Failure::park(Code::ErpQuery, format!("{doing} of the ERP database {shown} failed: {why}"))
}

fn code_of(error: &sqlx::Error) -> Option<i32> {
    match error {
        sqlx::Error::Database(inner) => inner.code()?.parse().ok(),
        _ => None,
    }
}
