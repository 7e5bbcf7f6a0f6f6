//! A server on loopback, keys, and clients that misbehave.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes};
use russh::{
    client,
    keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock, RemotePath, clock::Sleep, public_key::PublicKeyLine};
use towpath_transport::server::{
    Attributes, Authenticator, Ended, Entry, FileKind, FsError, FsResult, HostKey, Limits, OpenOptions, Replace, Session,
    SetAttributes, SshServer, SshServerConfig, VirtualFile, VirtualFs, VirtualListing,
};

/// The longest that any step of a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the step takes too long")
}

#[derive(Debug)]
pub(crate) struct RealClock(std::time::Instant);

impl RealClock {
    #[expect(clippy::disallowed_methods, reason = "the server is tested in real time")]
    pub(crate) fn new() -> Self {
        Self(std::time::Instant::now())
    }
}

impl Clock for RealClock {
    #[expect(clippy::disallowed_methods, reason = "the server is tested in real time")]
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A user's key, made by `ssh-keygen`, in its own folder.
pub(crate) struct UserKey {
    pub(crate) path: PathBuf,
    pub(crate) private: Arc<PrivateKey>,
    pub(crate) public: PublicKeyLine,
    _folder: tempfile::TempDir,
}

impl UserKey {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id");
        let made =
            std::process::Command::new("ssh-keygen").args(arguments).args(["-q", "-N", "", "-C", "", "-f"]).arg(&path).status();
        assert!(made.unwrap().success());
        let private = Arc::new(PrivateKey::from_openssh(std::fs::read_to_string(&path).unwrap()).unwrap());
        let public = std::fs::read_to_string(path.with_extension("pub")).unwrap().parse().unwrap();
        Self { path, private, public, _folder: folder }
    }

    pub(crate) fn ed25519() -> Self {
        Self::new(&["-t", "ed25519"])
    }
}

/// Lets in the keys it was given.
pub(crate) struct Keys {
    pub(crate) session: Session,
    pub(crate) accepted: Vec<PublicKeyLine>,
}

#[async_trait]
impl Authenticator for Keys {
    async fn authenticate(&self, _user: &str, key: &PublicKeyLine, _peer: SocketAddr) -> Option<Session> {
        self.accepted.contains(key).then(|| self.session.clone())
    }
}

pub(crate) struct TestServer {
    pub(crate) server: SshServer,
    pub(crate) address: SocketAddr,
    pub(crate) revoked: CancellationToken,
    pub(crate) ended: mpsc::UnboundedReceiver<Ended>,
}

pub(crate) async fn start(
    session: Session,
    revoked: CancellationToken,
    keys: &[&UserKey],
    limits: Limits,
    clock: Arc<dyn Clock>,
) -> TestServer {
    let accepted = keys.iter().map(|key| key.public.clone()).collect();
    start_with(Arc::new(Keys { session, accepted }), revoked, limits, clock).await
}

pub(crate) async fn start_with(
    authenticator: Arc<dyn Authenticator>,
    revoked: CancellationToken,
    limits: Limits,
    clock: Arc<dyn Clock>,
) -> TestServer {
    let config = SshServerConfig { host_keys: vec![HostKey::ed25519_from_seed(&[7; 32])], limits, clock };
    let server = SshServer::new(config, authenticator).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (report, ended) = mpsc::unbounded_channel();
    let accepting = server.clone();
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let serving = accepting.serve_stream(stream, peer);
            let report = report.clone();
            tokio::spawn(async move {
                let _ = report.send(serving.await);
            });
        }
    });
    TestServer { server, address, revoked, ended }
}

impl TestServer {
    /// A server over a tenant's view in real time.
    pub(crate) async fn over(view: Arc<dyn VirtualFs>, key: &UserKey, limits: Limits) -> Self {
        let revoked = CancellationToken::new();
        start(Session::new(view, revoked.clone()), revoked, &[key], limits, Arc::new(RealClock::new())).await
    }

    pub(crate) async fn next_end(&mut self) -> Ended {
        soon(self.ended.recv()).await.unwrap()
    }
}

/// A stream whose reading can be stopped, as by a peer that never reads.
pub(crate) struct Deaf<S> {
    stream: S,
    pub(crate) deaf: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Deaf<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.deaf.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        // What arrives at the very moment of going deaf is not heard either.
        if self.deaf.load(Ordering::SeqCst) { Poll::Pending } else { poll }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Deaf<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

pub(crate) struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _key: &russh::keys::PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

pub(crate) type Ssh = client::Handle<Trusting>;

pub(crate) async fn connect(address: SocketAddr) -> (Ssh, Arc<AtomicBool>) {
    connect_stream(TcpStream::connect(address).await.unwrap()).await
}

/// A connection over a stream that is there already.
pub(crate) async fn connect_stream(stream: TcpStream) -> (Ssh, Arc<AtomicBool>) {
    connect_with(stream, client::Config::default()).await
}

/// A connection whose window is so wide that the network fills up before it.
pub(crate) async fn connect_wide(address: SocketAddr) -> (Ssh, Arc<AtomicBool>) {
    connect_wide_over(TcpStream::connect(address).await.unwrap()).await
}

/// The same over a network of any kind.
pub(crate) async fn connect_wide_over(stream: impl Network) -> (Ssh, Arc<AtomicBool>) {
    connect_with(stream, client::Config { window_size: 1 << 30, ..client::Config::default() }).await
}

/// What SSH can be spoken over.
pub(crate) trait Network: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Network for S {}

async fn connect_with(stream: impl Network, config: client::Config) -> (Ssh, Arc<AtomicBool>) {
    let deaf = Arc::new(AtomicBool::new(false));
    let stream = Deaf { stream, deaf: Arc::clone(&deaf) };
    let ssh = soon(client::connect_stream(Arc::new(config), stream, Trusting)).await.unwrap();
    (ssh, deaf)
}

/// One login attempt; `hash` matters for RSA keys only, where `None` means SHA-1.
pub(crate) async fn offer(ssh: &mut Ssh, key: &UserKey, hash: Option<HashAlg>) -> Result<bool, russh::Error> {
    let key = PrivateKeyWithHashAlg::new(Arc::clone(&key.private), hash);
    Ok(soon(ssh.authenticate_publickey("tester", key)).await?.success())
}

/// A client that speaks SFTP byte by byte.
pub(crate) struct Raw {
    pub(crate) ssh: Ssh,
    pub(crate) deaf: Arc<AtomicBool>,
    pub(crate) stream: russh::ChannelStream<client::Msg>,
}

impl Raw {
    pub(crate) async fn login(address: SocketAddr, key: &UserKey) -> Self {
        Self::login_over(connect(address).await, key).await
    }

    pub(crate) async fn login_over((mut ssh, deaf): (Ssh, Arc<AtomicBool>), key: &UserKey) -> Self {
        assert!(offer(&mut ssh, key, None).await.unwrap());
        let stream = Self::channel(&ssh).await;
        Self { ssh, deaf, stream }
    }

    pub(crate) async fn channel(ssh: &Ssh) -> russh::ChannelStream<client::Msg> {
        let channel = soon(ssh.channel_open_session()).await.unwrap();
        soon(channel.request_subsystem(false, "sftp")).await.unwrap();
        let mut stream = channel.into_stream();
        stream.write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).await.unwrap();
        let version = read_frame(&mut stream).await.unwrap();
        assert_eq!(version.first(), Some(&2));
        stream
    }

    /// Sends a request of `kind` with id 1 and returns the answer without its id.
    pub(crate) async fn ask(&mut self, kind: u8, body: &[u8]) -> (u8, Bytes) {
        self.send(kind, body).await;
        self.answer().await.expect("an answer")
    }

    pub(crate) async fn send(&mut self, kind: u8, body: &[u8]) {
        let frame = frame(kind, body);
        soon(self.stream.write_all(&frame)).await.unwrap();
    }

    /// The next answer: its type and what follows the id. `None` at the end of the channel.
    pub(crate) async fn answer(&mut self) -> Option<(u8, Bytes)> {
        let frame = read_frame(&mut self.stream).await?;
        Some((frame[0], frame.slice(5..)))
    }

    /// Sends a request whose answer is a status, and returns its code.
    pub(crate) async fn status(&mut self, kind: u8, body: &[u8]) -> u32 {
        let (kind, body) = self.ask(kind, body).await;
        assert_eq!(kind, 101, "not a status");
        u32::from_be_bytes(body[..4].try_into().unwrap())
    }

    /// Opens a file and returns its handle as it goes into further requests.
    pub(crate) async fn open(&mut self, path: &str, flags: u32) -> Result<Bytes, u32> {
        let (kind, body) = self.ask(3, &[text(path), flags.to_be_bytes().to_vec(), vec![0; 4]].concat()).await;
        if kind == 102 { Ok(body) } else { Err(u32::from_be_bytes(body[..4].try_into().unwrap())) }
    }
}

async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Bytes> {
    let mut length = [0; 4];
    soon(stream.read_exact(&mut length)).await.ok()?;
    let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    soon(stream.read_exact(&mut frame)).await.ok()?;
    Some(frame.into())
}

pub(crate) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32(u32::try_from(body.len() + 5).unwrap());
    out.put_u8(kind);
    out.put_u32(1);
    out.put_slice(body);
    out
}

pub(crate) fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

/// Runs OpenSSH's `program` against the server; `input` is its standard input. Returns status, output and errors.
pub(crate) async fn openssh(
    program: &str,
    address: SocketAddr,
    key: &Path,
    arguments: &[&str],
    input: &str,
) -> (bool, String, String) {
    let mut child = Command::new(program)
        .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
        .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
        .arg("-o")
        .arg(format!("Port={}", address.port()))
        .arg("-i")
        .arg(key)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = soon(child.wait_with_output()).await.unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into(), String::from_utf8_lossy(&output.stderr).into())
}

/// Runs a batch of `sftp` commands that must all succeed, and returns what it printed.
pub(crate) async fn sftp(address: SocketAddr, key: &UserKey, options: &[&str], batch: &str) -> String {
    let arguments = [options, &["-b", "-", "tester@127.0.0.1"]].concat();
    let (good, out, errors) = openssh("sftp", address, &key.path, &arguments, batch).await;
    assert!(good, "{batch}\n{out}\n{errors}");
    out
}

/// A view in which every file is `size` bytes of zeros, and which counts what happens to it.
#[derive(Default)]
pub(crate) struct Counting {
    pub(crate) size: u64,
    pub(crate) entries: usize,
    pub(crate) open: Arc<AtomicUsize>,
    pub(crate) closed: Arc<AtomicUsize>,
    pub(crate) abandoned: Arc<AtomicUsize>,
    pub(crate) written: Arc<AtomicUsize>,
    /// Where set, writes wait until it is cancelled.
    pub(crate) held: Option<CancellationToken>,
    pub(crate) waiting: Arc<AtomicUsize>,
}

impl Counting {
    fn attributes(&self) -> Attributes {
        Attributes { size: self.size, mode: 0o644, ..Attributes::default() }
    }
}

#[async_trait]
impl VirtualFs for Counting {
    async fn stat(&self, path: &RemotePath) -> FsResult<Attributes> {
        let kind = if path.file_name().is_none() { FileKind::Directory } else { FileKind::File };
        Ok(Attributes { kind, ..self.attributes() })
    }

    async fn open(&self, path: &RemotePath, _: OpenOptions, _: &SetAttributes) -> FsResult<Box<dyn VirtualFile>> {
        if path.file_name().is_none_or(|name| name.as_str() == "missing") {
            return Err(FsError::NotFound);
        }
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(CountingFile {
            attributes: self.attributes(),
            open: Arc::clone(&self.open),
            closed: Arc::clone(&self.closed),
            abandoned: Arc::clone(&self.abandoned),
            written: Arc::clone(&self.written),
            held: self.held.clone(),
            waiting: Arc::clone(&self.waiting),
        }))
    }

    async fn list(&self, _: &RemotePath) -> FsResult<Box<dyn VirtualListing>> {
        Ok(Box::new(CountingListing { left: self.entries }))
    }

    async fn make_dir(&self, _: &RemotePath, _: &SetAttributes) -> FsResult<()> {
        Err(FsError::Denied)
    }

    async fn remove_dir(&self, _: &RemotePath) -> FsResult<()> {
        Err(FsError::Denied)
    }

    async fn remove(&self, _: &RemotePath) -> FsResult<()> {
        Err(FsError::Denied)
    }

    async fn rename(&self, _: &RemotePath, _: &RemotePath, _: Replace) -> FsResult<()> {
        Err(FsError::Denied)
    }

    async fn set_attributes(&self, _: &RemotePath, _: &SetAttributes, _: bool) -> FsResult<()> {
        Ok(())
    }
}

struct CountingFile {
    attributes: Attributes,
    open: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    abandoned: Arc<AtomicUsize>,
    written: Arc<AtomicUsize>,
    held: Option<CancellationToken>,
    waiting: Arc<AtomicUsize>,
}

impl Drop for CountingFile {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl VirtualFile for CountingFile {
    async fn read_at(&mut self, offset: u64, length: usize) -> FsResult<Bytes> {
        let left = usize::try_from(self.attributes.size.saturating_sub(offset)).unwrap();
        Ok(vec![0; length.min(left)].into())
    }

    async fn write_at(&mut self, _: u64, data: Bytes) -> FsResult<()> {
        if let Some(held) = &self.held {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            held.cancelled().await;
        }
        self.written.fetch_add(data.len(), Ordering::SeqCst);
        Ok(())
    }

    async fn stat(&mut self) -> FsResult<Attributes> {
        Ok(self.attributes)
    }

    async fn set_attributes(&mut self, _: &SetAttributes) -> FsResult<()> {
        Ok(())
    }

    async fn sync(&mut self) -> FsResult<()> {
        Ok(())
    }

    async fn close(self: Box<Self>) -> FsResult<()> {
        self.closed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn abandon(self: Box<Self>) {
        self.abandoned.fetch_add(1, Ordering::SeqCst);
    }
}

struct CountingListing {
    left: usize,
}

#[async_trait]
impl VirtualListing for CountingListing {
    async fn next_page(&mut self, most: usize) -> FsResult<Vec<Entry>> {
        let page = most.min(self.left);
        self.left -= page;
        let entry = |number| Entry { name: format!("file-{number}"), attributes: Attributes::default() };
        Ok((self.left..self.left + page).map(entry).collect())
    }
}

/// Waits until `condition` holds, giving way to the other tasks meanwhile.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            // There is no event to wait for: the condition is in the operating system or another task.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
