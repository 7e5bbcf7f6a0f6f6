//! The way to a server: TCP, directly or through a proxy, and TLS around it where that is wanted.
//!
//! [`Dialer`] makes one connection; [`ways`] finds out which of several ways is open.

mod addresses;
pub mod block;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod http_connect;
mod no_proxy;
pub mod proxy;
pub mod settings;
mod socks5;
pub mod tls;
pub mod ways;

#[cfg(test)]
mod tests;

use std::{fmt, io, net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use towpath_transfer::{Clock, failure::Result};

pub use self::{
    addresses::{MAX_ADDRESSES, NEXT_ADDRESS},
    block::Block,
    http_connect::MAX_HEAD_BYTES,
    no_proxy::MAX_ENTRIES as MAX_NO_PROXY_ENTRIES,
    proxy::{Proxies, Proxy},
    tls::Trust,
};

use self::addresses::first_to_answer;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// How long a TCP connection may take to be made, name resolution included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a proxy may take to open a tunnel, in which time it connects to the far side itself.
pub const PROXY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
pub const TLS_TIMEOUT: Duration = Duration::from_secs(15);
/// The ALPN protocol that asks the relay for SSH inside TLS.
pub const ALPN_SSH: &[u8] = b"ssh";
/// What Towpath calls itself to proxies and web services.
pub const USER_AGENT: &str = concat!("towpath/", env!("CARGO_PKG_VERSION"));

/// The port on which a relay takes SSH beside its own one, as the design of the protocol says.
const SECOND_PORT: u16 = 80;
/// The port of a relay to which the second one belongs.
const HTTPS_PORT: u16 = 443;

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

/// One way to the relay's SFTP, written `ssh:443` or `tls:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Way {
    /// What is spoken.
    pub route: Route,
    /// The relay's port.
    pub port: u16,
}

/// Text that is not a [`Way`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a way is \"ssh:443\" (SSH on that port) or \"tls:443\" (SSH inside TLS)")]
pub struct InvalidWay;

impl Way {
    /// The ways to a relay at `port`, the best first: SSH, SSH inside TLS, and, where the port is 443, SSH on 80, on which such a
    /// relay listens too.
    #[must_use]
    pub fn usual(port: u16) -> Vec<Self> {
        let mut ways = vec![Self { route: Route::Ssh, port }, Self { route: Route::SshInTls, port }];
        if port == HTTPS_PORT {
            ways.push(Self { route: Route::Ssh, port: SECOND_PORT });
        }
        ways
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.route {
            Route::Ssh => "ssh",
            Route::SshInTls => "tls",
        };
        write!(f, "{word}:{}", self.port)
    }
}

impl FromStr for Way {
    type Err = InvalidWay;

    fn from_str(text: &str) -> Result<Self, InvalidWay> {
        let (word, port) = text.split_once(':').ok_or(InvalidWay)?;
        let route = match word {
            "ssh" => Route::Ssh,
            "tls" => Route::SshInTls,
            _ => return Err(InvalidWay),
        };
        let port = Some(port).filter(|port| port.bytes().all(|b| b.is_ascii_digit())).and_then(|port| port.parse().ok());
        port.filter(|port| *port != 0).map(|port| Self { route, port }).ok_or(InvalidWay)
    }
}

/// `host:port` as it stands in a request, addresses of version 6 in brackets.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Makes connections.
#[derive(Clone)]
pub struct Dialer {
    tls: Arc<rustls::ClientConfig>,
    proxies: Arc<Proxies>,
    clock: Arc<dyn Clock>,
}

impl Dialer {
    /// A dialer that trusts TLS servers as `trust` says, and goes without a proxy.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::RelayCertificate`] where the system's trust store cannot be used.
    pub fn new(trust: &Trust, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::speaking(&[ALPN_SSH], trust, clock)
    }

    /// A dialer that offers these protocols inside TLS.
    pub(crate) fn speaking(alpn: &[&[u8]], trust: &Trust, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut tls = tls::client_config(trust)?;
        tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self { tls: Arc::new(tls), proxies: Arc::default(), clock })
    }

    /// A dialer with a TLS configuration of a test's own.
    #[cfg(test)]
    pub(crate) fn of_config(tls: rustls::ClientConfig, clock: Arc<dyn Clock>) -> Self {
        Self { tls: Arc::new(tls), proxies: Arc::default(), clock }
    }

    /// The same dialer, through the proxies that lead out.
    #[must_use]
    pub fn through(self, proxies: Proxies) -> Self {
        Self { proxies: Arc::new(proxies), ..self }
    }

    /// Connects to `host:port` for SSH.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unreachable`]; [`StoreErrorKind::TimedOut`] after [`CONNECT_TIMEOUT`], [`PROXY_TIMEOUT`] or [`TLS_TIMEOUT`];
    /// [`StoreErrorKind::ProxyRefused`]; [`StoreErrorKind::Certificate`] where the server's certificate is not the pinned or a trusted one.
    pub async fn dial(&self, route: Route, host: &str, port: u16) -> StoreResult<BoxStream> {
        match route {
            Route::Ssh => Ok(Box::new(self.tcp(host, port).await?)),
            Route::SshInTls => {
                let stream = self.tls(host, port).await?;
                if stream.get_ref().1.alpn_protocol() != Some(ALPN_SSH) {
                    let message =
                        format!("agreeing on TLS with {}: the server does not offer SSH inside TLS", authority(host, port));
                    return Err(StoreError::new(StoreErrorKind::Unreachable, message));
                }
                Ok(Box::new(stream))
            }
        }
    }

    /// A TCP connection, or a tunnel: the proxy's answer is read to its end and not a byte further, so that the connection to the
    /// proxy is itself the tunnel.
    pub(crate) async fn tcp(&self, host: &str, port: u16) -> StoreResult<TcpStream> {
        let target = authority(host, port);
        let proxy = self.proxies.to(host, port);
        let (what, address) = match proxy {
            None => (format!("connecting to {target}"), (host, port)),
            Some(proxy) => (format!("connecting to the proxy {proxy}"), proxy.address()),
        };
        let mut tcp = self.within(CONNECT_TIMEOUT, &what, connect(&*self.clock, address)).await?;
        // Answers to small requests must not wait for more to send; where this cannot be set it is only slower.
        let _ = tcp.set_nodelay(true);
        if let Some(proxy) = proxy {
            let what = format!("asking the proxy {proxy} for {target}");
            tokio::select! {
                opened = proxy.open(&mut tcp, host, port) => opened?,
                () = self.clock.sleep(PROXY_TIMEOUT) => return Err(no_answer(&what, PROXY_TIMEOUT)),
            }
        }
        Ok(tcp)
    }

    /// TLS with the protocols that this dialer offers.
    pub(crate) async fn tls(&self, host: &str, port: u16) -> StoreResult<TlsStream<TcpStream>> {
        let tcp = self.tcp(host, port).await?;
        let what = format!("agreeing on TLS with {}", authority(host, port));
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| StoreError::new(StoreErrorKind::Unreachable, what.clone()).caused_by(error))?;
        self.within(TLS_TIMEOUT, &what, TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp)).await
    }

    async fn within<T>(&self, limit: Duration, what: &str, work: impl Future<Output = io::Result<T>>) -> StoreResult<T> {
        tokio::select! {
            result = work => result.map_err(|error| {
                let kind = if tls::is_certificate_error(&error) { StoreErrorKind::Certificate } else { StoreErrorKind::Unreachable };
                StoreError::new(kind, what).caused_by(tls::in_words(error))
            }),
            () = self.clock.sleep(limit) => Err(no_answer(what, limit)),
        }
    }
}

/// Connects to the first address of a name that answers; that there is none is an error of its own.
async fn connect(clock: &dyn Clock, address: (&str, u16)) -> io::Result<TcpStream> {
    let unknown = |error: io::Error| io::Error::new(error.kind(), NoAddress(error));
    let found: Vec<SocketAddr> = lookup_host(address).await.map_err(unknown)?.collect();
    if found.is_empty() {
        return Err(unknown(io::Error::new(io::ErrorKind::NotFound, "the name server knows no address of it")));
    }
    first_to_answer(clock, found, TcpStream::connect).await
}

/// A name that has no address, in the words of this system, of which each says it in its own.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct NoAddress(io::Error);

fn no_answer(what: &str, limit: Duration) -> StoreError {
    StoreError::new(StoreErrorKind::TimedOut, format!("{what}: no answer within {} seconds", limit.as_secs()))
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialer({:?})", self.proxies)
    }
}
