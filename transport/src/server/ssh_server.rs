//! The SSH server around the SFTP loop.

use std::{
    borrow::Cow,
    future::Future,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::future::{FusedFuture as _, FutureExt as _};
use russh::{
    Disconnect, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex,
    keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey},
    mac,
    server::{Config, Handle},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use towpath_transfer::{Clock, Code, Failure};

use super::{
    attempts::Attempts,
    connection::{Connection, HandlerError, Shared},
    keys::HostKey,
    limits::Limits,
    lobby::{Grace, Lobby, Ticket},
    session::Authenticator,
    users::Users,
    wire::{Outflow, ReadGate, Surplus, Wire},
};

/// How long every refused login takes, so that its cause cannot be told from its time.
const REJECTION_TIME: Duration = Duration::from_millis(300);
/// What a peer may send on a channel before it waits for us, in bytes.
const WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// The longest SSH packet that a peer sends, in bytes.
const PACKET_BYTES: u32 = 32 * 1024;
/// Replies that one connection holds on their way out; each is at most one SFTP frame.
const REPLIES_IN_FLIGHT: usize = 8;
/// A silent peer is asked this often within [`Limits::silence`] before it counts as gone.
const KEEPALIVES: u32 = 3;

/// What a server is made of.
#[derive(Debug)]
pub struct SshServerConfig {
    /// Its host keys, at least one; at most one of a kind is used.
    pub host_keys: Vec<HostKey>,
    /// What it grants.
    pub limits: Limits,
    /// Where time comes from; only the timers inside the SSH library have their own.
    pub clock: Arc<dyn Clock>,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed it.
    ByPeer,
    /// No login within [`Limits::login_grace`].
    Grace,
    /// A newer connection took its place before it had logged in.
    Displaced,
    /// More keys offered than [`Limits::key_offers`].
    TooManyOffers,
    /// Its user has [`Limits::sessions_per_user`] connections already. It may try again: that is no refusal of its key.
    TooManyConnections,
    /// Its address has failed too often, and its key is not a valid one.
    Refused,
    /// More requests than [`Limits::queue_bytes`], or [`Limits::queue_bytes_in_all`], were waiting.
    QueueFull,
    /// The peer has taken nothing for [`Limits::silence`].
    Stalled,
    /// The login was revoked.
    Revoked,
    /// The server shuts down.
    Shutdown,
    /// The connection broke or the peer violated the protocol.
    Failed(String),
}

/// An SSH server that offers SFTP and nothing else. It owns no socket: the caller accepts streams and hands them in.
#[derive(Clone)]
pub struct SshServer {
    inner: Arc<Inner>,
}

struct Inner {
    config: RwLock<Arc<Config>>,
    limits: Arc<Limits>,
    clock: Arc<dyn Clock>,
    authenticator: Arc<dyn Authenticator>,
    lobby: Arc<Lobby>,
    attempts: Arc<Attempts>,
    users: Arc<Users>,
    surplus: Arc<Surplus>,
    shutdown: CancellationToken,
    connections: TaskTracker,
}

impl std::fmt::Debug for SshServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshServer").field("limits", &self.inner.limits).finish_non_exhaustive()
    }
}

impl SshServer {
    /// A server that serves nobody yet.
    ///
    /// # Errors
    /// Parks with [`Code::ConfigInvalid`] when there is no host key, or a limit makes no sense.
    pub fn new(config: SshServerConfig, authenticator: Arc<dyn Authenticator>) -> Result<Self, Failure> {
        let SshServerConfig { host_keys, limits, clock } = config;
        check(&host_keys, &limits)?;
        let keys = host_keys.into_iter().map(HostKey::into_private).collect();
        let inner = Inner {
            config: RwLock::new(Arc::new(ssh_config(keys, &limits))),
            lobby: Lobby::new(&limits, Arc::clone(&clock)),
            attempts: Arc::new(Attempts::new(&limits, Arc::clone(&clock))),
            users: Users::new(limits.sessions_per_user),
            surplus: Surplus::new(limits.queue_bytes_in_all),
            limits: Arc::new(limits),
            clock,
            authenticator,
            shutdown: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Shows these host keys to new connections; those that exist go on with theirs.
    ///
    /// # Errors
    /// Parks with [`Code::ConfigInvalid`] when there is none.
    pub fn set_host_keys(&self, host_keys: Vec<HostKey>) -> Result<(), Failure> {
        check(&host_keys, &self.inner.limits)?;
        let keys = host_keys.into_iter().map(HostKey::into_private).collect();
        let config = Arc::new(ssh_config(keys, &self.inner.limits));
        *self.inner.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Takes a place among the connections that have not logged in. A caller that first finds out what a stream speaks
    /// takes it before that, and hangs up on [`Ticket::expired`].
    #[must_use]
    pub fn admit(&self, peer: SocketAddr) -> Ticket {
        self.inner.lobby.enter(peer.ip())
    }

    /// The failed logins, for whoever checks logins of another kind beside this server: they count together.
    #[must_use]
    pub fn attempts(&self) -> Arc<Attempts> {
        Arc::clone(&self.inner.attempts)
    }

    /// What it grants.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Serves one connection to its end; the future may be spawned. A TCP stream should have Nagle's algorithm turned off. When it completes, every file is closed or abandoned
    /// and no operation runs any more. Dropping it cuts the connection.
    pub fn serve_stream<S>(&self, stream: S, peer: SocketAddr) -> impl Future<Output = Ended> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.serve_admitted(stream, peer, self.admit(peer))
    }

    /// [`SshServer::serve_stream`] for a connection that already has its place.
    pub fn serve_admitted<S>(&self, stream: S, peer: SocketAddr, ticket: Ticket) -> impl Future<Output = Ended> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let running = inner.connections.token();
        // Boxed because the future of a whole SSH session is large and callers keep thousands.
        Box::pin(serve(inner, stream, peer, ticket, running))
    }

    /// Ends every connection, the present and the coming ones, and returns when the last one is over.
    pub async fn shutdown(&self) {
        self.inner.shutdown.cancel();
        self.inner.connections.close();
        self.inner.connections.wait().await;
    }

    /// How many connections are being served, logged in or not.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.connections.len()
    }
}

fn check(host_keys: &[HostKey], limits: &Limits) -> Result<(), Failure> {
    let invalid = |message: &str| Err(Failure::park(Code::ConfigInvalid, message));
    if host_keys.is_empty() {
        return invalid("starting the SSH server failed: it has no host key");
    }
    if limits.frame_bytes > super::FRAME_BYTES || limits.frame_bytes < super::LEAST_FRAME_BYTES {
        return invalid(
            "starting the SSH server failed: `frame_bytes` must lie between 34000 (which every client may send) and 262144",
        );
    }
    if limits.channels.saturating_mul(limits.frame_bytes + 4) > limits.queue_pause_bytes {
        return invalid("starting the SSH server failed: `queue_pause_bytes` must hold one frame for each channel");
    }
    if limits.queue_pause_bytes > limits.queue_bytes {
        return invalid("starting the SSH server failed: `queue_pause_bytes` must not be over `queue_bytes`");
    }
    Ok(())
}

/// Only what has no known weakness, and no Diffie-Hellman over a group of numbers: with one packet, for which nobody has computed anything,
/// a stranger would have us compute for 50 ms (CVE-2002-20001). The strict key exchange (CVE-2023-48795) is offered to every client; `ssh-rsa` is in
/// no list, so that clients are told to sign with SHA-2.
fn ssh_config(keys: Vec<PrivateKey>, limits: &Limits) -> Config {
    const KEX: &[kex::Name] = &[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ];
    const KEYS: &[Algorithm] = &[
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ];
    const CIPHERS: &[cipher::Name] =
        &[cipher::AES_256_GCM, cipher::AES_128_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR, cipher::AES_128_CTR];
    const MACS: &[mac::Name] = &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM, mac::HMAC_SHA512, mac::HMAC_SHA256];
    Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-Towpath")),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: REJECTION_TIME,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys,
        window_size: WINDOW_BYTES,
        maximum_packet_size: PACKET_BYTES,
        channel_buffer_size: 1,
        event_buffer_size: REPLIES_IN_FLIGHT,
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            key: Cow::Borrowed(KEYS),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        // The question for methods that every client asks first counts too.
        max_auth_attempts: limits.key_offers.saturating_add(1),
        inactivity_timeout: None,
        keepalive_interval: Some(limits.silence / KEEPALIVES),
        keepalive_max: usize::try_from(KEEPALIVES - 1).unwrap_or(1),
        ..Config::default()
    }
}

async fn serve<S>(inner: Arc<Inner>, stream: S, peer: SocketAddr, ticket: Ticket, _running: TaskTrackerToken) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (kill, stop) = (CancellationToken::new(), CancellationToken::new());
    // Dropping this future cuts the connection, whose task would otherwise live on.
    let _kill_on_drop = kill.clone().drop_guard();
    let _stop_on_drop = stop.clone().drop_guard();
    let Limits { queue_pause_bytes, queue_bytes, .. } = *inner.limits;
    let gate = ReadGate::new(queue_pause_bytes, queue_bytes, Arc::clone(&inner.surplus));
    let outflow = Outflow::new(Arc::clone(&inner.clock));
    let displaced = ticket.displacement();
    let grace = ticket.grace();
    let (login, mut logged_in) = watch::channel(None);
    let shared = Arc::new(Shared {
        limits: Arc::clone(&inner.limits),
        authenticator: Arc::clone(&inner.authenticator),
        attempts: Arc::clone(&inner.attempts),
        users: Arc::clone(&inner.users),
        peer,
        gate: Arc::clone(&gate),
        outflow: Arc::clone(&outflow),
        stop: stop.clone(),
        kill: kill.clone(),
        login,
        loops: TaskTracker::new(),
    });
    let loops = shared.loops.clone();
    let wire = Wire::new(stream, kill.clone(), gate, Arc::clone(&outflow));
    let handle = Arc::new(std::sync::Mutex::new(None::<Handle>));
    let config = Arc::clone(&inner.config.read().unwrap_or_else(PoisonError::into_inner));
    let session = run(config, wire, Connection::new(shared, ticket), Arc::clone(&handle)).fuse();
    let mut session = std::pin::pin!(session);

    let ended = tokio::select! {
        biased;
        ended = &mut session => ended,
        ended = supervise(&inner, &mut logged_in, &displaced, &grace, &outflow) => ended,
    };
    stop.cancel();
    if !session.is_terminated() && logged_in.borrow().is_some() {
        // A goodbye waits behind full windows and key exchanges; it gets its time and no more.
        let farewell = async {
            let handle = handle.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(handle) = handle {
                let _ = handle.disconnect(Disconnect::ByApplication, "closed by the server".to_owned(), "en".to_owned()).await;
            }
            session.as_mut().await;
        };
        tokio::select! {
            () = farewell => {}
            () = inner.clock.sleep(inner.limits.goodbye) => {}
        }
    }
    kill.cancel();
    if !session.is_terminated() {
        session.await;
    }
    loops.close();
    loops.wait().await;
    tracing::debug!(%peer, ?ended, "an SSH connection ended");
    ended
}

async fn run<S>(
    config: Arc<Config>,
    wire: Wire<S>,
    connection: Connection,
    handle: Arc<std::sync::Mutex<Option<Handle>>>,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let session = async {
        let running = russh::server::run_stream(config, wire, connection).await?;
        *handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(running.handle());
        running.await
    };
    match session.await {
        Ok(()) => Ended::ByPeer,
        Err(HandlerError::Ended(ended)) => ended,
        Err(HandlerError::Ssh(russh::Error::Disconnect | russh::Error::HUP)) => Ended::ByPeer,
        Err(HandlerError::Ssh(russh::Error::IO(error))) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ended::ByPeer,
        Err(HandlerError::Ssh(russh::Error::KeepaliveTimeout)) => Ended::Stalled,
        Err(HandlerError::Ssh(error)) => Ended::Failed(error.to_string()),
    }
}

/// Completes when the connection must end although the peer goes on; without a login that is when the `grace` is over.
async fn supervise(
    inner: &Inner,
    logged_in: &mut watch::Receiver<Option<CancellationToken>>,
    displaced: &CancellationToken,
    grace: &Grace,
    outflow: &Outflow,
) -> Ended {
    let login = async {
        match logged_in.wait_for(Option::is_some).await.map(|login| login.clone()) {
            Ok(Some(revoked)) => revoked,
            // The connection is gone without a login; its own end is reported, not this one.
            _ => std::future::pending().await,
        }
    };
    let revoked = tokio::select! {
        biased;
        revoked = login => revoked,
        () = inner.shutdown.cancelled() => return Ended::Shutdown,
        () = displaced.cancelled() => return Ended::Displaced,
        () = grace.over() => return Ended::Grace,
    };
    let stalled = async {
        loop {
            match inner.limits.silence.checked_sub(outflow.lasts()) {
                Some(left) if !left.is_zero() => inner.clock.sleep(left).await,
                _ => break,
            }
        }
    };
    tokio::select! {
        biased;
        () = revoked.cancelled() => Ended::Revoked,
        () = inner.shutdown.cancelled() => Ended::Shutdown,
        () = stalled => Ended::Stalled,
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::clock::ManualClock;

    use super::*;
    use crate::server::Session;

    struct Nobody;

    #[async_trait::async_trait]
    impl Authenticator for Nobody {
        async fn authenticate(&self, _: &str, _: &towpath_transfer::public_key::PublicKeyLine, _: SocketAddr) -> Option<Session> {
            None
        }
    }

    fn server(host_keys: Vec<HostKey>, limits: Limits) -> Result<SshServer, Failure> {
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        SshServer::new(SshServerConfig { host_keys, limits, clock }, Arc::new(Nobody))
    }

    #[test]
    fn a_server_that_could_not_work_is_refused() {
        let key = || vec![HostKey::ed25519_from_seed(&[1; 32])];
        assert!(server(key(), Limits::default()).is_ok());
        assert_eq!(server(Vec::new(), Limits::default()).unwrap_err().code(), Code::ConfigInvalid);
        for limits in [
            Limits { frame_bytes: 1000, ..Limits::default() },
            Limits { frame_bytes: 300_000, ..Limits::default() },
            Limits { channels: 100, ..Limits::default() },
            Limits { queue_bytes: 1, ..Limits::default() },
        ] {
            assert_eq!(server(key(), limits).unwrap_err().code(), Code::ConfigInvalid);
        }
    }

    #[tokio::test]
    async fn the_grace_of_a_login_counts_from_its_place_on() {
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let host_keys = vec![HostKey::ed25519_from_seed(&[1; 32])];
        let config = SshServerConfig { host_keys, limits: Limits::default(), clock: clock.clone() };
        let server = SshServer::new(config, Arc::new(Nobody)).unwrap();
        let peer = SocketAddr::from(([192, 0, 2, 1], 1));
        let ticket = server.admit(peer);
        // What comes before SSH, such as TLS.
        clock.advance(Duration::from_secs(12));
        let (_peer, ours) = tokio::io::duplex(1024);
        let mut serving = Box::pin(server.serve_admitted(ours, peer, ticket));
        assert!(futures::poll!(&mut serving).is_pending());
        clock.advance(Duration::from_millis(17_999));
        assert!(futures::poll!(&mut serving).is_pending());
        clock.advance(Duration::from_millis(1));
        assert_eq!(serving.await, Ended::Grace);
    }

    #[tokio::test]
    async fn dropping_the_future_cuts_the_connection() {
        use tokio::io::AsyncReadExt as _;
        let server = server(vec![HostKey::ed25519_from_seed(&[1; 32])], Limits::default()).unwrap();
        let (mut peer, ours) = tokio::io::duplex(1024);
        let mut serving = Box::pin(server.serve_stream(ours, SocketAddr::from(([192, 0, 2, 1], 1))));
        assert!(futures::poll!(&mut serving).is_pending());
        assert_eq!(server.connections(), 1);
        drop(serving);
        assert_eq!(server.connections(), 0);
        let mut greeting = Vec::new();
        peer.read_to_end(&mut greeting).await.unwrap();
        assert!(greeting.starts_with(b"SSH-2.0-Towpath\r\n"));
    }

    #[test]
    fn no_key_exchange_is_offered_that_costs_us_much_and_a_stranger_nothing() {
        let config = ssh_config(Vec::new(), &Limits::default());
        let names: Vec<&str> = config.preferred.kex.iter().map(AsRef::as_ref).collect();
        assert!(
            names.contains(&"curve25519-sha256") && !names.iter().any(|name| name.starts_with("diffie-hellman")),
            "{names:?}"
        );
    }
}
