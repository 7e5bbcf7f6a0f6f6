//! The way to a server: plain TCP, or TLS around SSH where a firewall lets nothing else through.
//!
//! A way through a proxy belongs between the two steps of [`Dialer::dial`], in place of the direct TCP connection.

pub mod tls;

#[cfg(test)]
mod tests;

use std::{fmt, io, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use towpath_transfer::{Clock, failure::Result};

pub use tls::Trust;

use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// How long a TCP connection may take to be made, name resolution included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a TLS handshake may take.
pub const TLS_TIMEOUT: Duration = Duration::from_secs(15);
/// The ALPN protocol that asks the relay for SSH inside TLS.
pub const ALPN_SSH: &[u8] = b"ssh";

/// A connection, whatever it is made of.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection, whatever it is made of.
pub type BoxStream = Box<dyn Stream>;

/// What is spoken on the TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// SSH.
    Ssh,
    /// SSH inside TLS with ALPN `ssh`.
    SshInTls,
}

/// Makes connections.
#[derive(Clone)]
pub struct Dialer {
    tls: Arc<rustls::ClientConfig>,
    clock: Arc<dyn Clock>,
}

impl Dialer {
    /// A dialer that trusts TLS servers as `trust` says.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::RelayCertificate`] where the system's trust store cannot be used.
    pub fn new(trust: &Trust, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut tls = tls::client_config(trust)?;
        tls.alpn_protocols = vec![ALPN_SSH.to_vec()];
        Ok(Self { tls: Arc::new(tls), clock })
    }

    /// Connects to `host:port` for SSH.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unreachable`]; [`StoreErrorKind::TimedOut`] after [`CONNECT_TIMEOUT`] or [`TLS_TIMEOUT`]; [`StoreErrorKind::Certificate`] where the
    /// server's certificate is not the pinned or a trusted one.
    pub async fn dial(&self, route: Route, host: &str, port: u16) -> StoreResult<BoxStream> {
        let tcp = self.within(CONNECT_TIMEOUT, &format!("connecting to {host}:{port}"), TcpStream::connect((host, port))).await?;
        // Answers to small requests must not wait for more to send; where this cannot be set it is only slower.
        let _ = tcp.set_nodelay(true);
        match route {
            Route::Ssh => Ok(Box::new(tcp)),
            Route::SshInTls => Ok(Box::new(self.wrap(host, port, tcp).await?)),
        }
    }

    async fn wrap(&self, host: &str, port: u16, tcp: TcpStream) -> StoreResult<tokio_rustls::client::TlsStream<TcpStream>> {
        let what = format!("agreeing on TLS with {host}:{port}");
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| StoreError::new(StoreErrorKind::Unreachable, what.clone()).caused_by(error))?;
        let stream = self.within(TLS_TIMEOUT, &what, TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp)).await?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_SSH) {
            let message = format!("{what}: the server does not offer SSH inside TLS");
            return Err(StoreError::new(StoreErrorKind::Unreachable, message));
        }
        Ok(stream)
    }

    async fn within<T>(&self, limit: Duration, what: &str, work: impl Future<Output = io::Result<T>>) -> StoreResult<T> {
        tokio::select! {
            result = work => result.map_err(|error| {
                let kind = if tls::is_certificate_error(&error) { StoreErrorKind::Certificate } else { StoreErrorKind::Unreachable };
                StoreError::new(kind, what).caused_by(error)
            }),
            () = self.clock.sleep(limit) => {
                Err(StoreError::new(StoreErrorKind::TimedOut, format!("{what}: no answer within {} seconds", limit.as_secs())))
            }
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}
