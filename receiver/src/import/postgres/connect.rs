//! The way to a server: who logs in, over what, and who the server must be.

use std::io;

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use towpath_host::{Tls, database::certificate_authority};
use towpath_transfer::Failure;

use super::{CONNECT_TIMEOUT, error::Database};
use crate::{config::ServerConfig, uplink::verify::blocking};

/// How we are called in `pg_stat_activity` and the server's log.
const APPLICATION: &str = "towpath-receiver";

/// The options of the connection. Reads the password and the certificate authority.
///
/// Variables that PostgreSQL's own clients heed (`PGHOST`, `PGPASSWORD`, …) and `.pgpass` have no effect on what the configuration
/// says.
pub(super) async fn options(server: &ServerConfig) -> Result<PgConnectOptions, Failure> {
    let server = server.clone();
    blocking(move || {
        let what = format!("the password of the database user {}", server.user);
        let password = match &server.password {
            Some(secret) => towpath_keys::read_secret(secret, &what)?,
            None => String::new(),
        };
        // A Unix socket does not leave this machine, and no certificate names it.
        let mode = match server.tls {
            _ if server.host.starts_with('/') => PgSslMode::Disable,
            Tls::Off => PgSslMode::Disable,
            Tls::Prefer => PgSslMode::Prefer,
            Tls::Verify => PgSslMode::VerifyFull,
        };
        let ca = server.ca.as_deref().map_or_else(|| Ok(Vec::new()), certificate_authority)?;
        Ok(PgConnectOptions::new_without_pgpass()
            .host(&server.host)
            .port(server.port)
            .username(&server.user)
            .password(&password)
            .database(&server.database)
            .ssl_mode(mode)
            .ssl_root_cert_from_pem(ca)
            .application_name(APPLICATION)
            // Poolers refuse settings at the start of a session, and lose prepared statements.
            .extra_float_digits(None)
            .statement_cache_capacity(0)
            .disable_statement_logging())
    })
    .await
}

/// Connects and logs in.
pub(super) async fn connect(options: &PgConnectOptions, database: &Database) -> Result<PgConnection, Failure> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(options)).await;
    let connected = connecting.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())));
    connected.map_err(|error| database.unreached(error))
}
