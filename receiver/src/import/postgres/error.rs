//! What PostgreSQL's errors mean to an operator.

use std::io;

use towpath_host::Tls;
use towpath_transfer::{Code, Disposition, Failure};

use crate::config::ServerConfig;

/// How a database is called in messages, and what its errors speak of.
#[derive(Debug, Clone)]
pub(super) struct Database {
    pub(super) shown: String,
    tls: Tls,
}

impl Database {
    pub(super) fn new(server: &ServerConfig, schema: &str) -> Self {
        let ServerConfig { host, port, database, tls, .. } = server;
        Self { shown: format!("the app database {database} at {host}:{port} (schema {schema})"), tls: *tls }
    }

    /// The failure to open a connection.
    pub(super) fn unreached(&self, error: sqlx::Error) -> Failure {
        let shown = &self.shown;
        let failure = match &error {
            sqlx::Error::Database(_) => return self.failure("logging in", error),
            sqlx::Error::Tls(_) => {
                let told = format!("the connection to {shown} cannot be encrypted as tls = \"verify\" demands");
                Failure::park(Code::ImportFailed, told)
            }
            // rustls hands its refusals on as errors of reading.
            sqlx::Error::Io(inner) if inner.kind() == io::ErrorKind::InvalidData && self.tls != Tls::Off => {
                Failure::park(Code::ImportFailed, format!("the TLS certificate of {shown} was not accepted: {inner}"))
            }
            sqlx::Error::Configuration(_) => Failure::park(Code::ConfigInvalid, format!("{shown} cannot be connected to")),
            _ => Failure::retry(Code::ImportFailed, format!("{shown} does not answer")),
        };
        failure.caused_by(error)
    }

    /// The failure of `doing` something on an open connection.
    pub(super) fn failure(&self, doing: &str, error: sqlx::Error) -> Failure {
        let (code, disposition) = match &error {
            sqlx::Error::Database(inner) => by_state(inner.code().as_deref().unwrap_or_default()),
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => (Code::ImportFailed, Disposition::Retry),
            _ => (Code::ImportFailed, Disposition::Park),
        };
        let told = format!("{doing} in {} failed", self.shown);
        let failure = match disposition {
            Disposition::Retry => Failure::retry(code, told),
            Disposition::Park => Failure::park(code, told),
        };
        failure.caused_by(error)
    }
}

/// By SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>): two characters are the class, three more the
/// condition. What passes by itself is tried again; what a person must mend waits for one.
fn by_state(state: &str) -> (Code, Disposition) {
    let class = state.get(..2).unwrap_or_default();
    match (class, state) {
        (_, "53100") => (Code::DiskFull, Disposition::Retry),
        // The connection ended; the transaction gave way to another; no memory, no connection; a lock; the operator, who also
        // cancels; the system. A database that is missing, or only read, is being set up or taken over.
        ("08" | "40" | "53" | "55" | "57" | "58", _) | (_, "25P03" | "25006" | "3D000") => {
            (Code::ImportFailed, Disposition::Retry)
        }
        _ => (Code::ImportFailed, Disposition::Park),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_a_way_on() {
        use Disposition::{Park, Retry};
        for (state, disposition) in [
            ("08006", Retry),
            ("40001", Retry),
            ("40P01", Retry),
            ("53200", Retry),
            ("53300", Retry),
            ("55P03", Retry),
            ("57014", Retry),
            ("57P01", Retry),
            ("57P03", Retry),
            ("58030", Retry),
            ("25P03", Retry),
            ("25006", Retry),
            ("3D000", Retry),
            ("22P02", Park),
            ("23505", Park),
            ("28P01", Park),
            ("2BP01", Park),
            ("42501", Park),
            ("42P01", Park),
            ("54000", Park),
            ("P0001", Park),
            ("XX001", Park),
            ("", Park),
        ] {
            assert_eq!(by_state(state), (Code::ImportFailed, disposition), "{state}");
        }
        assert_eq!(by_state("53100"), (Code::DiskFull, Retry));
    }
}
