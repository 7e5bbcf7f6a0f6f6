//! The way to a server: who logs in, over what, and who the server must be.

use std::time::Duration;

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use towpath_host::database::certificate_authority;
use towpath_transfer::{Clock, Code, Failure};

use super::error::Server;
use crate::{
    blocking::blocking,
    config::{ServerConfig, Tls},
};

/// How we are called in `pg_stat_activity` and the server's log.
pub(super) const APPLICATION: &str = "towpath-agent";
/// Statements that stay prepared; tables are read one after the other, so few are needed twice.
const STATEMENTS: usize = 8;

/// The options of the connection. Reads the password and the certificate authority.
///
/// Variables that PostgreSQL's own clients heed (`PGHOST`, `PGPASSWORD`, …) and `.pgpass` have no effect on what the
/// configuration says.
pub(super) async fn options(config: &ServerConfig) -> Result<PgConnectOptions, Failure> {
    let config = config.clone();
    blocking(move || {
        let what = format!("the password of the database user {}", config.user);
        let password = match &config.password {
            Some(secret) => towpath_keys::read_secret(secret, &what)?,
            None => String::new(),
        };
        // A Unix socket does not leave this machine, and no certificate names it.
        let mode = match config.tls {
            _ if config.host.starts_with('/') => PgSslMode::Disable,
            Tls::Off => PgSslMode::Disable,
            Tls::Prefer => PgSslMode::Prefer,
            Tls::Verify => PgSslMode::VerifyFull,
        };
        let ca = config.ca.as_deref().map_or_else(|| Ok(Vec::new()), certificate_authority)?;
        Ok(PgConnectOptions::new_without_pgpass()
            .host(&config.host)
            .port(config.port)
            .username(&config.user)
            .password(&password)
            .database(&config.database)
            .ssl_mode(mode)
            .ssl_root_cert_from_pem(ca)
            .application_name(APPLICATION)
            // Poolers refuse it before the session begins; it is set within the transaction.
            .extra_float_digits(None)
            .statement_cache_capacity(STATEMENTS)
            .disable_statement_logging())
    })
    .await
}

/// Connects and logs in, within `limit`.
pub(super) async fn connect(
    options: &PgConnectOptions,
    server: &Server,
    clock: &dyn Clock,
    limit: Duration,
) -> Result<PgConnection, Failure> {
    tokio::select! {
        biased;
        connected = PgConnection::connect_with(options) => connected.map_err(|error| server.unreached(error)),
        () = clock.sleep(limit) => {
            let told = format!("{} does not answer within {limit:?}", server.shown);
            Err(Failure::retry(Code::ErpMissing, told))
        }
    }
}
