//! The landing's SSH server: one user, one key, SFTP and nothing else.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use towpath_keys::HostKeys;
use towpath_transfer::{Clock, Code, Failure, public_key::PublicKeyLine};
use towpath_transport::{
    files::FileStore,
    server::{Authenticator, HostKey, Limits, Session, SshServer, SshServerConfig},
};

use super::{Landing, LandingView};
use crate::enrolment::Enrolment;

/// The one user of the landing.
pub const LANDING_USER: &str = "relay";
/// The pause after the system has refused to accept a connection, for want of file handles most often.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The landing's SSH server, listening.
#[derive(Debug)]
pub struct LandingServer {
    server: SshServer,
    listener: TcpListener,
    address: SocketAddr,
    clock: Arc<dyn Clock>,
}

impl LandingServer {
    /// Listens on `listen`, as `host:port`; port 0 takes a free one.
    ///
    /// # Errors
    /// `config-invalid` where the address cannot be listened on; `key-invalid`.
    pub async fn bind(
        listen: &str,
        host_keys: &HostKeys,
        landing: Arc<Landing>,
        enrolment: PathBuf,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let failed = |e| Failure::park(Code::ConfigInvalid, format!("listening on {listen} failed")).caused_by(e);
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        // Its one client is the relay, which knows Ed25519 and pins both keys.
        let keys: Result<Vec<HostKey>, Failure> = host_keys.offered(false).into_iter().map(HostKey::try_from).collect();
        let config = SshServerConfig { host_keys: keys?, limits: Limits::default(), clock: Arc::clone(&clock) };
        let files = Arc::clone(&landing.files);
        let server = SshServer::new(config, Arc::new(RelayOnly { landing, files, enrolment }))?;
        Ok(Self { server, listener, address, clock })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is cancelled; returns when the last connection is over.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        // A small answer must not wait for more to send; where the system refuses, it is only slower.
                        let _ = stream.set_nodelay(true);
                        connections.spawn(self.server.serve_stream(stream, peer));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection failed");
                        self.clock.sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        self.server.shutdown().await;
        while connections.join_next().await.is_some() {}
    }
}

/// Lets in the relay this receiver is enrolled with, and nobody else.
struct RelayOnly {
    landing: Arc<Landing>,
    files: Arc<dyn FileStore>,
    enrolment: PathBuf,
}

#[async_trait]
impl Authenticator for RelayOnly {
    async fn authenticate(&self, user: &str, key: &PublicKeyLine, peer: SocketAddr) -> Option<Session> {
        // Read anew, so that a new enrolment counts at once; the server bounds how often a stranger may ask.
        let (files, path) = (Arc::clone(&self.files), self.enrolment.clone());
        let loaded = towpath_transport::files::blocking(move || Enrolment::load(&*files, &path)).await.ok()?;
        let admitted = match loaded {
            Ok(enrolment) => enrolment.forward_key,
            Err(failure) => {
                tracing::error!(%peer, code = %failure.code(), error = %failure.report(), "nobody can log in on the landing");
                return None;
            }
        };
        if user != LANDING_USER || admitted != *key {
            tracing::warn!(%peer, fingerprint = %key.fingerprint(), "a login on the landing was refused");
            return None;
        }
        Some(Session::new(Arc::new(LandingView::new(Arc::clone(&self.landing))), CancellationToken::new()))
    }
}
