//! The landing's SSH server: one user, one key, SFTP and nothing else.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{net::TcpListener, sync::Mutex, task::JoinSet};
use tokio_util::sync::CancellationToken;
use towpath_keys::HostKeys;
use towpath_transfer::{Clock, Code, Failure, public_key::PublicKeyLine};
use towpath_transport::{
    files::{FileStore, blocking},
    server::{Authenticator, HostKey, Limits, Session, SshServer, SshServerConfig},
};

use super::{Landing, LandingView};
use crate::enrolment::Enrolment;

/// The one user of the landing.
pub const LANDING_USER: &str = "relay";
/// The pause after the system has refused to accept a connection, for want of file handles most often.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// How often it is looked whether the relay's key is still the enrolled one: sessions of another one end within five seconds.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// The landing's SSH server, listening.
#[derive(Debug)]
pub struct LandingServer {
    server: SshServer,
    admitted: Arc<RelayOnly>,
    listener: TcpListener,
    address: SocketAddr,
    clock: Arc<dyn Clock>,
}

impl LandingServer {
    /// Listens on `listen`, as `host:port`; port 0 takes a free one. `limits` are those of logins and sessions.
    ///
    /// # Errors
    /// `config-invalid` where the address cannot be listened on; `key-invalid`.
    pub async fn bind(
        listen: &str,
        host_keys: &HostKeys,
        landing: Arc<Landing>,
        enrolment: PathBuf,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let failed = |e| towpath_host::listen::failed(listen, "[landing] listen", e);
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        // Its one client is the relay, which knows Ed25519 and pins both keys.
        let keys: Result<Vec<HostKey>, Failure> = host_keys.offered(false).into_iter().map(HostKey::try_from).collect();
        let config = SshServerConfig { host_keys: keys?, limits, clock: Arc::clone(&clock) };
        let files = Arc::clone(&landing.files);
        let admitted = Arc::new(RelayOnly { landing, files, enrolment, believed: Mutex::default() });
        let server = SshServer::new(config, Arc::clone(&admitted) as Arc<dyn Authenticator>)?;
        Ok(Self { server, admitted, listener, address, clock })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is cancelled; returns when the last connection is over.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        let mut watch = std::pin::pin!(self.admitted.watch(&*self.clock));
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = &mut watch => {}
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
#[derive(Debug)]
struct RelayOnly {
    landing: Arc<Landing>,
    files: Arc<dyn FileStore>,
    enrolment: PathBuf,
    believed: Mutex<Option<Believed>>,
}

/// The key that the relay has logged in with, and what ends the sessions that it has opened.
#[derive(Debug)]
struct Believed {
    key: PublicKeyLine,
    sessions: CancellationToken,
}

impl RelayOnly {
    /// The key that is believed now, read anew, so that a new enrolment counts at once; and the end of its sessions. Sessions of
    /// another key end here. The server bounds how often a stranger may ask.
    ///
    /// # Errors
    /// Those of [`Enrolment::load`].
    async fn believed(&self) -> Result<(PublicKeyLine, CancellationToken), Failure> {
        let mut believed = self.believed.lock().await;
        let (files, path) = (Arc::clone(&self.files), self.enrolment.clone());
        let stopping = |e| Failure::retry(Code::Internal, "reading the enrolment").caused_by(e);
        let key = match blocking(move || Enrolment::load(&*files, &path)).await.map_err(stopping)? {
            Ok(enrolment) => Some(enrolment.forward_key),
            // A file that cannot be read for a moment says nothing about the key.
            Err(failure) if failure.code() != Code::NotEnrolled => return Err(failure),
            Err(_) => None,
        };
        if let Some(other) = believed.take_if(|believed| key.as_ref() != Some(&believed.key)) {
            tracing::warn!(key = %other.key.fingerprint(), "sessions on the landing end: their key is not the enrolled relay's any more");
            other.sessions.cancel();
        }
        let key = key.ok_or_else(|| Failure::park(Code::NotEnrolled, "this receiver is not enrolled any more"))?;
        let begin = || Believed { key: key.clone(), sessions: CancellationToken::new() };
        let sessions = believed.get_or_insert_with(begin).sessions.clone();
        Ok((key, sessions))
    }

    /// Ends the sessions of a key that is not believed any more, for as long as the future lives.
    async fn watch(&self, clock: &dyn Clock) {
        loop {
            clock.sleep(WATCH_PERIOD).await;
            if self.believed.lock().await.is_some()
                && let Err(failure) = self.believed().await
            {
                tracing::error!(code = %failure.code(), error = %failure.report(), "the relay's key could not be read; it is looked for again");
            }
        }
    }
}

#[async_trait]
impl Authenticator for RelayOnly {
    async fn authenticate(&self, user: &str, key: &PublicKeyLine, peer: SocketAddr) -> Option<Session> {
        let (admitted, sessions) = match self.believed().await {
            Ok(believed) => believed,
            Err(failure) => {
                tracing::error!(%peer, code = %failure.code(), error = %failure.report(), "nobody can log in on the landing");
                return None;
            }
        };
        if user != LANDING_USER || admitted != *key {
            tracing::warn!(%peer, fingerprint = %key.fingerprint(), "a login on the landing was refused");
            return None;
        }
        Some(Session::new(Arc::new(LandingView::new(Arc::clone(&self.landing))), sessions))
    }
}
