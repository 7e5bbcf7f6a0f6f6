//! The far folder over SFTP version 3 (draft-ietf-secsh-filexfer-02) and OpenSSH's extensions.
//!
//! One connection carries any number of operations at once. Requests run ahead of their answers, at most [`MAX_IN_FLIGHT`] of them over the
//! connection and [`WINDOW`] for one file, so that memory stays bounded at any line speed. When the connection ends, every
//! operation under way fails at once.

mod answer;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod login;
mod pipe;
mod put;
mod read;
mod stream;
mod wire;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use russh::{Signer, client};
use tokio::io::{AsyncRead, AsyncWrite};
use towpath_transfer::{Clock, RemotePath};

pub use login::{Logins, SftpLogin};

use self::{
    login::PinnedHost,
    pipe::Pipe,
    stream::SessionStream,
    wire::{Attributes, Handle, Reply},
};
use crate::{
    dial::{Dialer, Route},
    files::FileKind,
    store::{
        Connect, Progress, Put, RemoteEntry, RemoteRead, RemoteStat, RemoteStore, Source, StoreError, StoreErrorKind, StoreResult,
    },
};

/// Bytes asked for or sent by one request; less where the server's `limits@openssh.com` says so.
pub const CHUNK_BYTES: usize = 32 * 1024;
/// Requests without an answer that one file may have.
pub const WINDOW: usize = 64;
/// Requests without an answer that one connection may have.
pub const MAX_IN_FLIGHT: usize = 256;
/// The largest answer that is read, in bytes: OpenSSH's limit of 256 KiB, and its header.
pub const MAX_FRAME_BYTES: usize = 256 * 1024 + 1024;
/// Key exchange, authentication and the start of SFTP together take at most this long.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// A server that owes answers and sends nothing for this long is given up.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause after which a silent server is asked whether it is still there.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Keepalives without an answer before the connection is given up; with the interval, after 45 s, so that another one can be going on
/// within the minute.
pub const KEEPALIVE_MAX: usize = 2;

/// A far folder over one SFTP connection. Clones share the connection, which ends with the last of them.
#[derive(Clone)]
pub struct SftpStore {
    connection: Arc<Connection>,
}

struct Connection {
    pipe: Arc<Pipe>,
    /// Dropped with the connection's last user; the session then ends by itself.
    _session: client::Handle<PinnedHost>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.pipe.lose(StoreErrorKind::ConnectionLost, "closed by this side");
    }
}

impl SftpStore {
    /// Logs in over a stream that reaches an SSH server, and starts SFTP.
    ///
    /// # Errors
    /// [`StoreErrorKind::HostKeyUnknown`], with the fingerprint found and those pinned; [`StoreErrorKind::AuthenticationRefused`];
    /// [`StoreErrorKind::TimedOut`] after [`LOGIN_TIMEOUT`]; [`StoreErrorKind::Unsupported`] without SFTP; [`StoreErrorKind::Protocol`] where the peer is no
    /// SSH server or no algorithm is common to both; [`StoreErrorKind::ConnectionLost`].
    pub async fn connect<T, S>(stream: T, login: SftpLogin<S>, clock: Arc<dyn Clock>) -> StoreResult<Self>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Signer + Send,
        S::Error: std::error::Error + Send + Sync + 'static,
    {
        Self::connect_asking(stream, login, clock, KEEPALIVE_INTERVAL).await
    }

    /// As [`SftpStore::connect`]; a server that is silent for `interval` is asked whether it is still there.
    async fn connect_asking<T, S>(stream: T, login: SftpLogin<S>, clock: Arc<dyn Clock>, interval: Duration) -> StoreResult<Self>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Signer + Send,
        S::Error: std::error::Error + Send + Sync + 'static,
    {
        let (stream, line) = SessionStream::new(stream);
        let waker = Arc::clone(&clock);
        let work = async {
            // Whoever gives up waiting for the login ends the session too.
            let guard = line.kill.clone().drop_guard();
            let (session, channel) = login::log_in(stream, login, interval, line.clone()).await?;
            let pipe = Pipe::start(channel, line, guard, clock).await?;
            Ok(Self { connection: Arc::new(Connection { pipe, _session: session }) })
        };
        tokio::select! {
            result = work => result,
            () = waker.sleep(LOGIN_TIMEOUT) => {
                let message = format!("logging in over SSH: no answer within {} seconds", LOGIN_TIMEOUT.as_secs());
                Err(StoreError::new(StoreErrorKind::TimedOut, message))
            }
        }
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.pipe().is_lost()
    }

    fn pipe(&self) -> &Arc<Pipe> {
        &self.connection.pipe
    }

    async fn attributes(&self, what: &str, path: &RemotePath, kind: u8) -> StoreResult<Attributes> {
        let text = path.to_string();
        match self.pipe().request(|id| wire::path_request(kind, id, &text)).await? {
            Reply::Attributes(attributes) => Ok(attributes),
            other => Err(other.refused(what, path)),
        }
    }

    async fn plain(&self, what: &str, path: &RemotePath, frame: impl FnOnce(u32) -> bytes::Bytes) -> StoreResult<()> {
        self.pipe().request(frame).await?.done(what, path)
    }

    async fn open_handle(&self, what: &str, path: &RemotePath, flags: u32) -> StoreResult<OpenFile> {
        let text = path.to_string();
        match self.pipe().request(|id| wire::open(id, &text, flags)).await? {
            Reply::Handle(handle) => Ok(OpenFile { store: self.clone(), handle, path: path.clone(), open: true }),
            other => Err(other.refused(what, path)),
        }
    }

    async fn open_dir(&self, dir: &RemotePath) -> StoreResult<OpenFile> {
        let text = dir.to_string();
        match self.pipe().request(|id| wire::path_request(wire::OPENDIR, id, &text)).await? {
            Reply::Handle(handle) => Ok(OpenFile { store: self.clone(), handle, path: dir.clone(), open: true }),
            other => Err(other.refused("listing", dir)),
        }
    }
}

impl fmt::Debug for SftpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_closed() { "SftpStore(closed)" } else { "SftpStore" })
    }
}

/// A handle at the server, closed when it is dropped.
struct OpenFile {
    store: SftpStore,
    handle: Handle,
    path: RemotePath,
    open: bool,
}

impl OpenFile {
    fn pipe(&self) -> &Arc<Pipe> {
        self.store.pipe()
    }

    async fn size(&self) -> StoreResult<Option<u64>> {
        match self.pipe().request(|id| wire::handle_request(wire::FSTAT, id, &self.handle)).await? {
            Reply::Attributes(attributes) => Ok(attributes.size),
            other => Err(other.refused("looking at", &self.path)),
        }
    }

    /// Closes the handle and waits for the answer: some servers report a full disk only here.
    async fn close(mut self, what: &str) -> StoreResult<()> {
        self.open = false;
        let reply = self.pipe().request(|id| wire::handle_request(wire::CLOSE, id, &self.handle)).await?;
        reply.done(what, &self.path)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.open {
            self.store.pipe().forget_handle(&self.handle);
        }
    }
}

#[async_trait]
impl RemoteStore for SftpStore {
    async fn put_new(&self, part: &RemotePath, source: Arc<dyn Source>, progress: &dyn Progress) -> StoreResult<Put> {
        put::put_new(self, part, source, progress).await
    }

    async fn publish(&self, part: &RemotePath, name: &RemotePath) -> StoreResult<()> {
        let (from, to) = (part.to_string(), name.to_string());
        let posix = self.pipe().extensions().posix_rename;
        let rename =
            || self.pipe().request(|id| if posix { wire::posix_rename(id, &from, &to) } else { wire::rename(id, &from, &to) });
        let Err(refusal) = rename().await?.done("publishing", name) else { return Ok(()) };
        let part_is_gone = self.stat(part).await.is_err_and(|error| error.kind() == StoreErrorKind::NotFound);
        match (part_is_gone, self.stat(name).await.is_ok()) {
            // The answer to an earlier attempt was lost.
            (true, true) => Ok(()),
            (false, true) if !posix => {
                self.remove(name).await?;
                rename().await?.done("publishing", name)
            }
            _ => Err(refusal),
        }
    }

    async fn stat(&self, path: &RemotePath) -> StoreResult<RemoteStat> {
        Ok(self.attributes("looking at", path, wire::LSTAT).await?.stat())
    }

    async fn open(&self, path: &RemotePath, offset: u64) -> StoreResult<Box<dyn RemoteRead>> {
        read::open(self, path, offset).await
    }

    async fn list(&self, dir: &RemotePath, limit: usize) -> StoreResult<Vec<RemoteEntry>> {
        let open = self.open_dir(dir).await?;
        let mut entries = Vec::new();
        let mut seen = 0usize;
        loop {
            let page = match self.pipe().request(|id| wire::handle_request(wire::READDIR, id, &open.handle)).await? {
                Reply::Names(page) => page,
                Reply::Status(status) if status.is_eof() => break,
                other => return Err(other.refused("listing", dir)),
            };
            for (raw, attributes) in page {
                if raw.as_ref() == b"." || raw.as_ref() == b".." {
                    continue;
                }
                seen += 1;
                if seen > limit {
                    return Err(StoreError::new(StoreErrorKind::Limit, format!("{dir} has more than {limit} entries")));
                }
                let name = std::str::from_utf8(&raw).ok().and_then(|text| text.parse().ok());
                entries.extend(name.map(|name| RemoteEntry { name, stat: attributes.stat() }));
            }
        }
        open.close("listing").await?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    async fn make_dir_all(&self, dir: &RemotePath) -> StoreResult<()> {
        // Links are followed here: an app server's landing may well be one.
        let is_dir = async |path: &RemotePath| -> StoreResult<bool> {
            match self.attributes("looking at", path, wire::STAT).await {
                Ok(attributes) if attributes.stat().kind == FileKind::Dir => Ok(true),
                Ok(_) => Err(StoreError::new(StoreErrorKind::Exists, format!("making {dir}: {path} is there and is no folder"))),
                Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        };
        if is_dir(dir).await? {
            return Ok(());
        }
        let mut path = RemotePath::root();
        for name in dir.components() {
            path =
                path.join(name.clone()).map_err(|e| StoreError::new(StoreErrorKind::Internal, "making a folder").caused_by(e))?;
            if is_dir(&path).await? {
                continue;
            }
            let text = path.to_string();
            if let Err(refusal) = self.plain("making", &path, |id| wire::mkdir(id, &text)).await
                && !is_dir(&path).await?
            {
                return Err(refusal);
            }
        }
        Ok(())
    }

    async fn remove(&self, path: &RemotePath) -> StoreResult<()> {
        let text = path.to_string();
        let removed = self.plain("removing", path, |id| wire::path_request(wire::REMOVE, id, &text)).await;
        ignore_missing(removed)
    }

    async fn remove_dir(&self, dir: &RemotePath) -> StoreResult<()> {
        let text = dir.to_string();
        ignore_missing(self.plain("removing", dir, |id| wire::path_request(wire::RMDIR, id, &text)).await)
    }
}

fn ignore_missing(result: StoreResult<()>) -> StoreResult<()> {
    match result {
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Connects to one server by one route, for [`crate::store::Retry`].
pub struct SftpConnect<S> {
    dialer: Dialer,
    route: Route,
    host: String,
    port: u16,
    logins: Logins<S>,
    clock: Arc<dyn Clock>,
}

impl<S> SftpConnect<S> {
    /// Logs in at `host:port` as `logins` says at that moment, each time anew.
    pub fn new(
        dialer: Dialer,
        route: Route,
        host: impl Into<String>,
        port: u16,
        logins: impl Into<Logins<S>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { dialer, route, host: host.into(), port, logins: logins.into(), clock }
    }
}

impl<S> fmt::Debug for SftpConnect<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SftpConnect({}@{}:{} {:?})", self.logins.now().user, self.host, self.port, self.route)
    }
}

#[async_trait]
impl<S> Connect for SftpConnect<S>
where
    S: Signer + Clone + Send + Sync,
    S::Error: std::error::Error + Send + Sync + 'static,
{
    async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
        let stream = self.dialer.dial(self.route, &self.host, self.port).await?;
        let store = SftpStore::connect(stream, self.logins.now(), Arc::clone(&self.clock)).await?;
        Ok(Arc::new(store))
    }
}
