//! What PostgreSQL's errors mean to an operator.

use std::{io, time::Duration};

use towpath_transfer::{Code, Failure};

use crate::config::Tls;

/// How a server is called in messages, and the limits that its errors speak of.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) shown: String,
    pub(super) tls: Tls,
    pub(super) statement_timeout: Duration,
    pub(super) lock_timeout: Duration,
}

impl Server {
    /// The failure to open a connection.
    pub(super) fn unreached(&self, error: sqlx::Error) -> Failure {
        let shown = &self.shown;
        match &error {
            sqlx::Error::Tls(_) => Failure::park(
                Code::ErpRefused,
                format!("the connection to {shown} cannot be encrypted as tls = \"verify\" demands"),
            ),
            // rustls hands its refusals on as errors of reading.
            sqlx::Error::Io(inner) if inner.kind() == io::ErrorKind::InvalidData && self.tls != Tls::Off => {
                Failure::park(Code::ErpRefused, format!("the TLS certificate of {shown} was not accepted: {inner}"))
            }
            sqlx::Error::Configuration(_) => {
                return Failure::park(Code::ConfigInvalid, format!("{shown} cannot be connected to")).caused_by(error);
            }
            sqlx::Error::Database(_) => return self.failure("logging in", error),
            _ => Failure::retry(Code::ErpMissing, format!("{shown} does not answer")),
        }
        .caused_by(error)
    }

    /// The failure of `doing` something on an open connection.
    pub(super) fn failure(&self, doing: &str, error: sqlx::Error) -> Failure {
        let shown = &self.shown;
        let failure = match &error {
            sqlx::Error::Database(inner) => self.by_state(doing, inner.code().as_deref().unwrap_or_default()),
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => {
                Failure::retry(Code::ErpMissing, format!("the connection to {shown} was lost while {doing}"))
            }
            _ => Failure::park(Code::ErpQuery, format!("{shown} answered what was not expected while {doing}")),
        };
        failure.caused_by(error)
    }

    /// By SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>): two characters are the class, three more
    /// the condition.
    fn by_state(&self, doing: &str, state: &str) -> Failure {
        let shown = &self.shown;
        let class = state.get(..2).unwrap_or_default();
        match (class, state) {
            (_, "57014") => {
                let limit = self.statement_timeout;
                let told = format!("{shown} cancelled {doing}: a statement may take {limit:?} (`statement_timeout`)");
                Failure::retry(Code::ErpLocked, told)
            }
            (_, "55P03") => {
                let limit = self.lock_timeout;
                let told =
                    format!("another program has locked what {doing} needs; {shown} gave up after {limit:?} (lock_timeout)");
                Failure::retry(Code::ErpLocked, told)
            }
            // Serialisation, deadlock, and what a standby cancels to keep up with its primary; a transaction that became too old.
            ("40", _) | (_, "25P04" | "72000") => {
                let told = format!("{shown} gave {doing} up in favour of other transactions; it will be tried again");
                Failure::retry(Code::ErpLocked, told)
            }
            (_, "3D000") => Failure::retry(Code::ErpMissing, format!("{shown} does not exist")),
            (_, "57P03") => Failure::retry(Code::ErpMissing, format!("{shown} is starting up or shutting down")),
            (_, "53300") => Failure::retry(Code::ErpMissing, format!("{shown} has no free connection")),
            ("53" | "58", _) => {
                Failure::retry(Code::ErpMissing, format!("the server of {shown} lacks what it needs for {doing}"))
            }
            // A database that takes nobody now, because it is being restored or moved; a view that is not filled yet.
            (_, "55000" | "55006") => Failure::retry(Code::ErpMissing, format!("{shown} is not ready for {doing}")),
            ("08" | "57", _) | (_, "25P03") => {
                Failure::retry(Code::ErpMissing, format!("{shown} ended the connection while {doing}"))
            }
            ("28", _) => Failure::park(Code::ErpRefused, format!("{shown} refused the login")),
            (_, "42501") => Failure::park(Code::ErpRefused, format!("the login of {shown} has not the right that {doing} needs")),
            (_, "25006") => Failure::park(Code::ErpQuery, format!("{shown} is only read, but {doing} would change it")),
            (_, "22021" | "22P02" | "22P05") => {
                Failure::park(Code::ErpValue, format!("{shown} has a value that {doing} cannot convert"))
            }
            ("XX", _) => Failure::park(Code::ErpQuery, format!("{shown} is damaged, or its server has a fault; {doing} failed")),
            _ => Failure::park(Code::ErpQuery, format!("{shown} refused {doing}")),
        }
    }

    /// A query that PostgreSQL takes and we do not.
    pub(super) fn refused(&self, doing: &str, why: &str) -> Failure {
        Failure::park(Code::ErpQuery, format!("{doing} of {} failed: {why}", self.shown))
    }

    /// How long the server may say nothing before it counts as lost: a statement ends by its own limit first. `None` where
    /// statements have no limit.
    pub(super) fn silence(&self) -> Option<Duration> {
        (!self.statement_timeout.is_zero()).then(|| self.statement_timeout.saturating_add(super::GRACE))
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::Disposition;

    use super::*;

    #[test]
    fn each_state_has_a_code_and_a_way_on() {
        let server = Server {
            shown: "erp".to_owned(),
            tls: Tls::Off,
            statement_timeout: Duration::from_secs(90),
            lock_timeout: Duration::from_secs(30),
        };
        for (state, code, disposition) in [
            ("57014", Code::ErpLocked, Disposition::Retry),
            ("55P03", Code::ErpLocked, Disposition::Retry),
            ("40001", Code::ErpLocked, Disposition::Retry),
            ("40P01", Code::ErpLocked, Disposition::Retry),
            ("57P01", Code::ErpMissing, Disposition::Retry),
            ("57P03", Code::ErpMissing, Disposition::Retry),
            ("53300", Code::ErpMissing, Disposition::Retry),
            ("53100", Code::ErpMissing, Disposition::Retry),
            ("58030", Code::ErpMissing, Disposition::Retry),
            ("08006", Code::ErpMissing, Disposition::Retry),
            ("25P03", Code::ErpMissing, Disposition::Retry),
            ("55000", Code::ErpMissing, Disposition::Retry),
            ("3D000", Code::ErpMissing, Disposition::Retry),
            ("28P01", Code::ErpRefused, Disposition::Park),
            ("28000", Code::ErpRefused, Disposition::Park),
            ("42501", Code::ErpRefused, Disposition::Park),
            ("42P01", Code::ErpQuery, Disposition::Park),
            ("25006", Code::ErpQuery, Disposition::Park),
            ("22012", Code::ErpQuery, Disposition::Park),
            ("XX001", Code::ErpQuery, Disposition::Park),
            ("22P02", Code::ErpValue, Disposition::Park),
            ("", Code::ErpQuery, Disposition::Park),
        ] {
            let failure = server.by_state("reading", state);
            assert_eq!((failure.code(), failure.disposition()), (code, disposition), "{state}");
        }
        assert!(server.by_state("reading", "57014").message().contains("90s"));
        assert!(server.by_state("reading", "55P03").message().contains("30s"));
    }

    #[test]
    fn a_server_may_be_silent_as_long_as_a_statement_and_a_grace() {
        let server =
            |limit| Server { shown: String::new(), tls: Tls::Off, statement_timeout: limit, lock_timeout: Duration::ZERO };
        assert_eq!(server(Duration::from_secs(1)).silence(), Some(Duration::from_secs(1) + super::super::GRACE));
        assert_eq!(server(Duration::ZERO).silence(), None);
    }
}
