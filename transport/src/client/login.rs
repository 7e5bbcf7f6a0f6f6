//! From a bare stream to an SFTP channel: host key, authentication, subsystem.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use russh::{
    Channel, ChannelMsg, Preferred, Signer,
    client::{self, AuthResult, DisconnectReason},
    compression,
    keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey, PublicKeyBase64, PublicKeyOrCertificate},
};
use tokio::io::{AsyncRead, AsyncWrite};
use towpath_transfer::public_key::{Fingerprint, PublicKeyLine};

use super::{
    KEEPALIVE_MAX,
    stream::{CHANNEL_WINDOW_BYTES, Line},
};
use crate::{
    pins::Pins,
    store::{StoreError, StoreErrorKind, StoreResult},
};

/// Who logs in, and whom it trusts.
#[derive(Clone)]
pub struct SftpLogin<S> {
    /// The user's name at the server.
    pub user: String,
    /// The key to offer: Ed25519 or RSA. RSA keys sign with SHA-2 only (RFC 8332).
    pub public_key: PublicKey,
    /// Signs with that key.
    pub signer: S,
    /// The server's host key must be one of these when the connection is made.
    pub host_keys: Pins<PublicKeyLine>,
}

impl<S> fmt::Debug for SftpLogin<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SftpLogin({})", self.user)
    }
}

/// Who logs in, asked for anew at each connection: an end's key may be changed while it runs.
pub struct Logins<S>(Arc<dyn Fn() -> SftpLogin<S> + Send + Sync>);

impl<S> Logins<S> {
    /// As `login` says at the moment of a connection.
    pub fn new(login: impl Fn() -> SftpLogin<S> + Send + Sync + 'static) -> Self {
        Self(Arc::new(login))
    }

    /// The login of now.
    #[must_use]
    pub fn now(&self) -> SftpLogin<S> {
        (self.0)()
    }
}

impl<S: Clone + Send + Sync + 'static> From<SftpLogin<S>> for Logins<S> {
    /// Always the same one.
    fn from(login: SftpLogin<S>) -> Self {
        Self::new(move || login.clone())
    }
}

impl<S> Clone for Logins<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Accepts pinned host keys only, and remembers the one it has refused.
pub(super) struct PinnedHost {
    pinned: Arc<[PublicKeyLine]>,
    refused: Arc<Mutex<Option<String>>>,
    line: Line,
    /// How long a server was silent that is given up.
    silence: Duration,
}

impl client::Handler for PinnedHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let found = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => PublicKeyLine::from_blob(&key.public_key_bytes()),
            PublicKeyOrCertificate::Certificate(_) => return Ok(false),
        };
        if found.as_ref().is_ok_and(|key| self.pinned.contains(key)) {
            return Ok(true);
        }
        let shown = found.map_or_else(|_| "a key that cannot be read".to_owned(), |key| key.fingerprint().to_string());
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(false)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<russh::Error>) -> Result<(), russh::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => {
                if matches!(error, russh::Error::KeepaliveTimeout) {
                    let silence = self.silence.as_secs();
                    self.line.ends(format!(
                        "nothing came from the server for {silence} seconds, although it was asked; the line is dead"
                    ));
                }
                Err(error)
            }
        }
    }
}

const HOST_KEY_ALGORITHMS: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

fn config(pinned: &[PublicKeyLine], interval: Duration) -> client::Config {
    let is_pinned = |algorithm: &Algorithm| {
        let name = if matches!(algorithm, Algorithm::Rsa { .. }) { "ssh-rsa" } else { algorithm.as_str() };
        pinned.iter().any(|key| key.algorithm() == name)
    };
    // A server with several host keys shows the first that we ask for, so those that are pinned come first; the others are
    // asked for too, so that a wrong key can be named.
    let (mut key, others): (Vec<_>, Vec<_>) = HOST_KEY_ALGORITHMS.into_iter().partition(is_pinned);
    key.extend(others);
    // Compressed requests would be shorter than those that are counted at the entrance of the session.
    let compression = Cow::Borrowed(&[compression::NONE][..]);
    client::Config {
        preferred: Preferred { key: Cow::Owned(key), compression, ..Preferred::DEFAULT },
        window_size: CHANNEL_WINDOW_BYTES,
        keepalive_interval: Some(interval),
        keepalive_max: KEEPALIVE_MAX,
        ..client::Config::default()
    }
}

pub(super) async fn log_in<T, S>(
    stream: T,
    login: SftpLogin<S>,
    interval: Duration,
    line: Line,
) -> StoreResult<(client::Handle<PinnedHost>, Channel<client::Msg>)>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Signer + Send,
    S::Error: std::error::Error + Send + Sync + 'static,
{
    let refused = Arc::new(Mutex::new(None));
    let pinned = login.host_keys.get();
    // The first silence is that before the first question.
    let silence = interval.saturating_mul(u32::try_from(KEEPALIVE_MAX).unwrap_or(u32::MAX).saturating_add(1));
    let handler = PinnedHost { pinned: Arc::clone(&pinned), refused: Arc::clone(&refused), line, silence };
    let connected = client::connect_stream(Arc::new(config(&pinned, interval)), stream, handler).await;
    let mut session = connected.map_err(|error| {
        let shown = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        match shown {
            Some(shown) => unknown_host(&shown, &pinned),
            None => broken("agreeing on keys with the SSH server", error),
        }
    })?;
    authenticate(&mut session, login).await?;
    let channel = open_sftp(&session).await?;
    Ok((session, channel))
}

fn unknown_host(shown: &str, pinned: &[PublicKeyLine]) -> StoreError {
    let pinned: Vec<Fingerprint> = pinned.iter().map(PublicKeyLine::fingerprint).collect();
    let message = match pinned.as_slice() {
        [] => format!("the server shows host key {shown}, and none is pinned"),
        some => {
            let some: Vec<String> = some.iter().map(Fingerprint::to_string).collect();
            format!("the server shows host key {shown}, but pinned is {}", some.join(" or "))
        }
    };
    StoreError::new(StoreErrorKind::HostKeyUnknown, message)
}

fn broken(what: &str, error: russh::Error) -> StoreError {
    use russh::Error as E;
    let kind = match error {
        E::HUP | E::Disconnect | E::IO(_) | E::SendError | E::RecvError | E::Join(_) => StoreErrorKind::ConnectionLost,
        E::ConnectionTimeout | E::KeepaliveTimeout | E::InactivityTimeout | E::Elapsed(_) => StoreErrorKind::TimedOut,
        _ => StoreErrorKind::Protocol,
    };
    StoreError::new(kind, what).caused_by(error)
}

async fn authenticate<S>(session: &mut client::Handle<PinnedHost>, login: SftpLogin<S>) -> StoreResult<()>
where
    S: Signer + Send,
    S::Error: std::error::Error + Send + Sync + 'static,
{
    const WHAT: &str = "authenticating at the SSH server";
    let refused = |why: &str| {
        let message = format!("the SSH server does not let {} in with the key {}{why}", login.user, shown(&login.public_key));
        StoreError::new(StoreErrorKind::AuthenticationRefused, message)
    };
    let hashes: &[Option<HashAlg>] = if login.public_key.algorithm().is_rsa() {
        match session.best_supported_rsa_hash().await.map_err(|error| broken(WHAT, error))? {
            Some(Some(HashAlg::Sha512)) => &[Some(HashAlg::Sha512)],
            Some(Some(_)) => &[Some(HashAlg::Sha256)],
            Some(None) => return Err(refused(": it takes RSA signatures only with SHA-1, which is not safe")),
            None => &[Some(HashAlg::Sha512), Some(HashAlg::Sha256)],
        }
    } else {
        &[None]
    };
    let mut signer = login.signer;
    for hash in hashes {
        let answer = session.authenticate_publickey_with(&*login.user, login.public_key.clone(), *hash, &mut signer).await;
        match answer {
            Ok(AuthResult::Success) => return Ok(()),
            Ok(AuthResult::Failure { .. }) if session.is_closed() => {
                return Err(StoreError::new(StoreErrorKind::ConnectionLost, format!("{WHAT}: the connection ended")));
            }
            Ok(AuthResult::Failure { .. }) => {}
            Err(error) if session.is_closed() => {
                return Err(StoreError::new(StoreErrorKind::ConnectionLost, WHAT).caused_by(error));
            }
            Err(error) => return Err(StoreError::new(StoreErrorKind::Internal, WHAT).caused_by(error)),
        }
    }
    let message = format!("the SSH server does not let {} in with the key {}", login.user, shown(&login.public_key));
    Err(StoreError::new(StoreErrorKind::AuthenticationRefused, message))
}

fn shown(key: &PublicKey) -> String {
    PublicKeyLine::from_blob(&key.public_key_bytes()).map_or_else(|e| e.to_string(), |key| key.fingerprint().to_string())
}

async fn open_sftp(session: &client::Handle<PinnedHost>) -> StoreResult<Channel<client::Msg>> {
    const WHAT: &str = "starting SFTP";
    let unsupported = || StoreError::new(StoreErrorKind::Unsupported, "the SSH server does not offer SFTP to this user");
    let opened = session.channel_open_session().await;
    let mut channel = opened.map_err(|error| match error {
        russh::Error::ChannelOpenFailure(_) => unsupported(),
        other => broken(WHAT, other),
    })?;
    channel.request_subsystem(true, "sftp").await.map_err(|error| broken(WHAT, error))?;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => return Ok(channel),
            Some(ChannelMsg::Failure) => return Err(unsupported()),
            Some(ChannelMsg::WindowAdjusted { .. } | ChannelMsg::ExtendedData { .. }) => {}
            Some(_) | None => return Err(StoreError::new(StoreErrorKind::ConnectionLost, format!("{WHAT}: the channel ended"))),
        }
    }
}
