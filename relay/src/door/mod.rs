//! The one door: SSH, TLS and a browser's plain HTTP come in by it, on whatever port, and the first bytes say which is which.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod plain_http;
#[cfg(test)]
mod tests;
pub mod tls;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use towpath_transfer::Clock;
use towpath_transport::server::{
    SshServer, Ticket,
    first_bytes::{Kind, Rewound, sniff},
};

use crate::{
    admin::Metrics,
    api::{Guest, WebService},
};

/// The application protocol that says SSH inside TLS.
pub const ALPN_SSH: &[u8] = b"ssh";
/// How long accepting rests after it has failed, for instance because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the door grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorLimits {
    /// TLS connections at once, handshakes included; one more is hung up on.
    pub tls_connections: usize,
    /// For a TLS handshake, and for the first bytes after it; no longer than the grace of a login, which has begun by then.
    pub handshake: Duration,
}

/// Takes connections and hands each to whoever speaks its language. Clones share the limits.
#[derive(Clone)]
pub struct Door {
    ssh: SshServer,
    web: WebService,
    tls: Arc<RwLock<Arc<rustls::ServerConfig>>>,
    public_url: Arc<str>,
    limits: DoorLimits,
    places: Arc<Semaphore>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    connections: TaskTracker,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Door {
    /// A door to these servers; who speaks plain HTTP is sent to `public_url`.
    #[must_use]
    pub fn new(
        ssh: SshServer,
        web: WebService,
        tls: Arc<rustls::ServerConfig>,
        public_url: &str,
        limits: DoorLimits,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(limits.tls_connections.max(1)));
        Self {
            ssh,
            web,
            tls: Arc::new(RwLock::new(tls)),
            public_url: public_url.into(),
            limits,
            places,
            metrics,
            clock,
            connections: TaskTracker::new(),
        }
    }

    /// Shows this certificate to new connections; those that exist go on with theirs.
    pub fn set_certificate(&self, tls: Arc<rustls::ServerConfig>) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    /// Accepts connections until `shutdown` is cancelled.
    pub async fn accept(&self, listener: TcpListener, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (door, shutdown) = (self.clone(), shutdown.clone());
                    self.connections.spawn(async move { door.serve(stream, peer, shutdown).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    self.clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Ends every SSH connection, lets running requests finish, and returns when the last connection is over. The token
    /// given to [`Door::accept`] must be cancelled.
    pub async fn close(&self) {
        self.ssh.shutdown().await;
        self.connections.close();
        self.connections.wait().await;
    }

    async fn serve(self, stream: TcpStream, peer: SocketAddr, shutdown: CancellationToken) {
        // Small SFTP answers must not wait for each other; a stream that cannot be told so works all the same.
        let _ = stream.set_nodelay(true);
        let ticket = self.ssh.admit(peer);
        let sniffed = tokio::select! {
            sniffed = sniff(stream, &*self.clock) => sniffed,
            () = ticket.expired() => return,
            () = shutdown.cancelled() => return,
        };
        match sniffed {
            Ok((Kind::Ssh, stream)) => self.serve_ssh(stream, peer, ticket).await,
            Ok((Kind::Tls, stream)) => self.serve_tls(stream, peer, ticket, shutdown).await,
            Ok((Kind::Other, stream)) => self.serve_plain(stream, ticket, shutdown).await,
            Err(error) => tracing::debug!(%peer, %error, "a peer left before it said anything"),
        }
    }

    async fn serve_ssh<S>(&self, stream: S, peer: SocketAddr, ticket: Ticket)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _counted = self.metrics.connection("ssh");
        let ended = self.ssh.serve_admitted(stream, peer, ticket).await;
        tracing::info!(%peer, ?ended, "an SSH connection ended");
    }

    /// Keeps its ticket, so that such connections count among those that have not logged in, and stay no longer.
    async fn serve_plain(&self, stream: Rewound<TcpStream>, ticket: Ticket, shutdown: CancellationToken) {
        let _counted = self.metrics.connection("http");
        tokio::select! {
            () = plain_http::redirect(stream, &self.public_url, self.limits.handshake) => {}
            // A peer that does not take its answer is not waited for.
            () = self.clock.sleep(self.limits.handshake) => {}
            () = ticket.expired() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn serve_tls(&self, stream: Rewound<TcpStream>, peer: SocketAddr, ticket: Ticket, shutdown: CancellationToken) {
        let Ok(_place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::warn!(%peer, limit = self.limits.tls_connections, "a TLS connection was refused: too many at once");
            return;
        };
        let shaken = tokio::select! {
            shaken = self.shake_hands(stream) => shaken,
            () = self.clock.sleep(self.limits.handshake) => Err(io::ErrorKind::TimedOut.into()),
            () = ticket.expired() => return,
            () = shutdown.cancelled() => return,
        };
        match shaken {
            Ok(Inside::Ssh(stream)) => self.serve_ssh(stream, peer, ticket).await,
            Ok(Inside::Http(stream)) => {
                let _counted = self.metrics.connection("https");
                // It keeps its place among those that have not logged in until a token or a code of it was accepted.
                let guest = Guest::new(peer, ticket, self.ssh.attempts(), self.ssh.limits());
                self.web.serve(stream, guest, shutdown).await;
            }
            Err(error) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
        }
    }

    /// The handshake, and what is spoken inside: named by the application protocol, or told by the first bytes.
    async fn shake_hands(&self, stream: Rewound<TcpStream>) -> io::Result<Inside> {
        let tls = Arc::clone(&self.tls.read().unwrap_or_else(PoisonError::into_inner));
        let stream = TlsAcceptor::from(tls).accept(stream).await?;
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let stream: Box<dyn Stream> = match protocol.as_deref() {
            Some(ALPN_SSH) => return Ok(Inside::Ssh(Box::new(stream))),
            Some(_) => Box::new(stream),
            None => {
                let (kind, stream) = sniff(stream, &*self.clock).await?;
                if kind == Kind::Ssh {
                    return Ok(Inside::Ssh(Box::new(stream)));
                }
                Box::new(stream)
            }
        };
        Ok(Inside::Http(stream))
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

enum Inside {
    Ssh(Box<dyn Stream>),
    Http(Box<dyn Stream>),
}
