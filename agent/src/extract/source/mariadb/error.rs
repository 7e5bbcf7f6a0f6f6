//! What the errors of MariaDB and MySQL mean to an operator.

use std::io;

use sqlx::mysql::MySqlDatabaseError;
use towpath_transfer::{Code, Failure};

/// The failure of `doing` something at the server `shown`.
///
/// Numbers are those of the servers: <https://mariadb.com/kb/en/mariadb-error-code-reference/> and
/// <https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html>.
pub(super) fn failure(shown: &str, doing: &str, error: sqlx::Error) -> Failure {
    let failure = match number_of(&error) {
        Some(number) => by_number(number, shown, doing),
        None => without_number(&error, shown, doing),
    };
    failure.caused_by(error)
}

/// A query that the server takes and we do not.
pub(super) fn refused(shown: &str, doing: &str, why: &str) -> Failure {
    Failure::park(Code::ErpQuery, format!("{doing} of the ERP database {shown} failed: {why}"))
}

/// A server of which nothing was heard for longer than a statement may take.
pub(super) fn silent(shown: &str, doing: &str) -> Failure {
    Failure::retry(
        Code::ErpMissing,
        format!("the ERP database {shown} does not answer; {doing} was given up and will be tried again"),
    )
}

fn by_number(number: u16, shown: &str, doing: &str) -> Failure {
    match number {
        // No access to the database, wrong password or user, host not let in or blocked, rights to statement, table, column or
        // routine missing, login without password plugin that fits, TLS wanted, password expired, account locked.
        1044 | 1045 | 1129 | 1130 | 1142 | 1143 | 1227 | 1251 | 1275 | 1370 | 1524 | 1698 | 1820 | 1862 | 1873 | 3118 | 3159
        | 4151 => Failure::park(
            Code::ErpRefused,
            format!("the ERP database {shown} refused the login or a right that it needs; {doing} failed"),
        ),
        // No such database.
        1049 => Failure::retry(Code::ErpMissing, format!("the ERP database {shown} is not there; {doing} failed")),
        // Too many connections, shutting down, starting, and the network between.
        1040 | 1053 | 1080 | 1081 | 1152 | 1158..=1161 | 1184 | 1189 | 1190 | 2002 | 2003 | 2006 | 2013 => {
            Failure::retry(Code::ErpMissing, format!("the ERP database {shown} cannot be reached now; {doing} failed"))
        }
        // Lock timeout and deadlock; statement timeout of MariaDB and of MySQL.
        1205 | 1213 => Failure::retry(
            Code::ErpLocked,
            format!("the ERP database {shown} is locked by another program; {doing} was given up and will be tried again"),
        ),
        1969 | 3024 => Failure::retry(
            Code::ErpLocked,
            format!("{doing} took longer than the statement_timeout of the source {shown}; it will be tried again"),
        ),
        // A table was altered after the snapshot, a record changed, or the login has used up what it may use for now.
        1020 | 1203 | 1226 | 1412 => Failure::retry(
            Code::ErpLocked,
            format!("the ERP database {shown} does not allow {doing} at this moment; it will be tried again"),
        ),
        // The query or the connection was killed.
        1317 | 1927 => Failure::retry(Code::Cancelled, format!("{doing} was ended at the ERP database {shown}")),
        1021 | 1114 => {
            Failure::retry(Code::DiskFull, format!("the ERP database {shown} had no room for temporary data while {doing}"))
        }
        1037 | 1038 | 1041 => {
            Failure::retry(Code::ErpLocked, format!("the ERP database {shown} had not enough memory for {doing}"))
        }
        _ => Failure::park(Code::ErpQuery, format!("the ERP database {shown} refused {doing}")),
    }
}

fn without_number(error: &sqlx::Error, shown: &str, doing: &str) -> Failure {
    let refused = |why: &str| Failure::park(Code::ErpRefused, format!("{doing} at the ERP database {shown} failed: {why}"));
    match error {
        // The TLS library tells of a certificate that it does not accept in this way.
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            refused("its TLS is not what the source's settings accept")
        }
        sqlx::Error::Io(_) => {
            Failure::retry(Code::ErpMissing, format!("the ERP database {shown} cannot be reached now; {doing} failed"))
        }
        sqlx::Error::Tls(_) => refused("its TLS is not what the source's settings accept"),
        sqlx::Error::Configuration(_) => refused("it takes this login over TLS only, which is off or which it does not have"),
        sqlx::Error::Protocol(said) if said.contains("authentication plugin") || said.contains("auth plugin") => refused(
            "the login's way of authentication is none of mysql_native_password, caching_sha2_password and sha256_password",
        ),
        _ => Failure::park(Code::ErpQuery, format!("the ERP database {shown} could not be read while {doing}")),
    }
}

fn number_of(error: &sqlx::Error) -> Option<u16> {
    match error {
        sqlx::Error::Database(inner) => inner.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::Disposition;

    use super::*;

    #[test]
    fn numbers_have_codes() {
        for (number, code, disposition) in [
            (1045, Code::ErpRefused, Disposition::Park),
            (1698, Code::ErpRefused, Disposition::Park),
            (1049, Code::ErpMissing, Disposition::Retry),
            (1040, Code::ErpMissing, Disposition::Retry),
            (2013, Code::ErpMissing, Disposition::Retry),
            (1205, Code::ErpLocked, Disposition::Retry),
            (1213, Code::ErpLocked, Disposition::Retry),
            (1969, Code::ErpLocked, Disposition::Retry),
            (3024, Code::ErpLocked, Disposition::Retry),
            (1412, Code::ErpLocked, Disposition::Retry),
            (1317, Code::Cancelled, Disposition::Retry),
            (1114, Code::DiskFull, Disposition::Retry),
            (1038, Code::ErpLocked, Disposition::Retry),
            (1064, Code::ErpQuery, Disposition::Park),
            (1146, Code::ErpQuery, Disposition::Park),
        ] {
            let failure = by_number(number, "erp", "reading it");
            assert_eq!((failure.code(), failure.disposition()), (code, disposition), "{number}");
            assert!(failure.message().contains("erp"), "{number}");
        }
    }

    #[test]
    fn what_is_no_message_of_the_server_has_codes_too() {
        let io = |kind| sqlx::Error::Io(io::Error::from(kind));
        for (error, code) in [
            (io(io::ErrorKind::ConnectionRefused), Code::ErpMissing),
            (io(io::ErrorKind::InvalidData), Code::ErpRefused),
            (sqlx::Error::Tls("none".into()), Code::ErpRefused),
            (sqlx::Error::Configuration("RSA".into()), Code::ErpRefused),
            (sqlx::Error::Protocol("unknown authentication plugin: client_ed25519".into()), Code::ErpRefused),
            (sqlx::Error::Protocol("expected 0x00".into()), Code::ErpQuery),
        ] {
            assert_eq!(failure("erp", "opening it", error).code(), code);
        }
        assert_eq!(silent("erp", "opening it").code(), Code::ErpMissing);
    }
}
