//! Lines that are dead without a word, and lines that are slow and alive.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock, RemotePath, clock::SeededEntropy, public_key::PublicKeyLine};

use super::{
    ed25519, login,
    own_server::{peer, server},
    real_clock,
};
use crate::{
    client::{KEEPALIVE_INTERVAL, SftpStore},
    server::SshServer,
    store::{
        BytesSource, Connect, NoProgress, Progress, RemoteStore, Retry, RetryPolicy, StoreError, StoreErrorKind, StoreResult,
        conformance::pattern, read_remote,
    },
};

/// What the short forms ask after; a server that answers no more is gone after three times this.
const SHORT: Duration = Duration::from_secs(1);
/// Bytes that a line holds at each of its ends: less than one piece of a file with its header.
const BUFFER_BYTES: usize = 32 * 1024;
const FILE_BYTES: usize = 8_000_000;
/// So much of a file has passed when the line dies; more is on its way then than the buffers hold.
const DIES_AT: u64 = 1_000_000;

/// Carries bytes one way, at most so many a second.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, bytes_per_second: u64) {
    let clock = real_clock();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        clock.sleep(Duration::from_nanos(1_000_000_000 * read as u64 / bytes_per_second)).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

struct Far {
    dir: tempfile::TempDir,
    server: SshServer,
    pinned: PublicKeyLine,
    /// After how long without a word the server is asked whether it is there.
    interval: Duration,
}

impl Far {
    fn new(interval: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (server, pinned) = server(dir.path());
        Self { dir, server, pinned, interval }
    }

    async fn log_in(&self, near: DuplexStream) -> SftpStore {
        SftpStore::connect_asking(near, login("erp", ed25519(1), vec![self.pinned.clone()]), real_clock(), self.interval)
            .await
            .unwrap()
    }

    fn line(&self) -> (DuplexStream, DuplexStream, DuplexStream) {
        let ((near, middle), (beyond, far)) = (tokio::io::duplex(BUFFER_BYTES), tokio::io::duplex(BUFFER_BYTES));
        let server = self.server.clone();
        tokio::spawn(async move { server.serve_stream(far, peer()).await });
        (near, middle, beyond)
    }

    /// Over a line that is dead from the moment at which the token is cancelled.
    async fn mortal(&self) -> (SftpStore, CancellationToken) {
        let (near, mut middle, mut beyond) = self.line();
        let dies = CancellationToken::new();
        let dead = dies.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut middle, &mut beyond) => {}
                // Neither side hears that the other is gone.
                () = dead.cancelled() => std::future::pending().await,
            }
        });
        (self.log_in(near).await, dies)
    }

    async fn slow(&self, up: u64, down: u64) -> SftpStore {
        let (near, middle, beyond) = self.line();
        let ((from, back), (answers, to)) = (tokio::io::split(middle), tokio::io::split(beyond));
        tokio::spawn(async move { tokio::join!(carry(from, to, up), carry(answers, back, down)) });
        self.log_in(near).await
    }
}

/// Lets the line die at [`DIES_AT`].
struct Kills {
    dies: CancellationToken,
    clock: Arc<dyn Clock>,
    at: OnceLock<Duration>,
}

impl Kills {
    fn new(dies: CancellationToken) -> Self {
        Self { dies, clock: real_clock(), at: OnceLock::new() }
    }

    fn now(&self) {
        self.at.get_or_init(|| {
            self.dies.cancel();
            self.clock.monotonic()
        });
    }

    fn since(&self) -> Duration {
        self.clock.monotonic().saturating_sub(*self.at.get().expect("it has died"))
    }
}

impl Progress for Kills {
    fn advanced(&self, done: u64, _total: u64) {
        if done >= DIES_AT {
            self.now();
        }
    }
}

fn path() -> RemotePath {
    "/f".parse().unwrap()
}

/// How an operation ends over a line that dies while nothing else is under way, and how long after its death.
async fn idle(far: &Far) -> (StoreError, Duration) {
    let (store, dies) = far.mortal().await;
    assert_eq!(store.stat(&path()).await.unwrap_err().kind(), StoreErrorKind::NotFound);
    let kills = Kills::new(dies);
    kills.now();
    let error = store.stat(&path()).await.unwrap_err();
    (error, kills.since())
}

/// The same in the middle of an upload, with more to send than the line holds.
async fn uploading(far: &Far) -> (StoreError, Duration) {
    let (store, dies) = far.mortal().await;
    let kills = Kills::new(dies);
    let source = BytesSource::new(pattern(FILE_BYTES, 1));
    let error = store.put_new(&"/up".parse().unwrap(), source, &kills).await.unwrap_err();
    (error, kills.since())
}

/// The same in the middle of a download.
async fn downloading(far: &Far) -> (StoreError, Duration) {
    std::fs::write(far.dir.path().join("down"), pattern(FILE_BYTES, 1)).unwrap();
    let (store, dies) = far.mortal().await;
    let kills = Kills::new(dies);
    let mut reader = store.open(&"/down".parse().unwrap(), 0).await.unwrap();
    let mut done = 0;
    let error = loop {
        match reader.next().await {
            Ok(bytes) => done += bytes.expect("the file is longer than what has passed").len() as u64,
            Err(error) => break error,
        }
        kills.advanced(done, FILE_BYTES as u64);
    };
    (error, kills.since())
}

/// Each of them at once; after how long each was given up must be more than the one and less than the other.
async fn given_up(interval: Duration, more_than: Duration, less_than: Duration) {
    let far = Far::new(interval);
    let (idle, up, down) = tokio::join!(Box::pin(idle(&far)), Box::pin(uploading(&far)), Box::pin(downloading(&far)));
    for (what, (error, after)) in [("with nothing under way", idle), ("in an upload", up), ("in a download", down)] {
        println!("a line that died {what} was given up after {after:?}: {error}");
        assert_eq!(error.kind(), StoreErrorKind::ConnectionLost, "{what}: {error}");
        let said = format!("nothing came from the server for {} seconds", (interval * 3).as_secs());
        assert!(error.to_string().contains(&said), "{what}: {error}");
        assert!(more_than < after && after < less_than, "{what}: {after:?}");
    }
}

#[tokio::test]
async fn a_line_that_is_dead_is_given_up_whatever_is_under_way() {
    // Three questions and no answer; the rest is for a machine with much else to do.
    given_up(SHORT, SHORT * 2, SHORT * 20).await;
}

#[tokio::test]
async fn long_a_line_that_is_dead_is_given_up_after_45_seconds_whatever_is_under_way() {
    given_up(KEEPALIVE_INTERVAL, Duration::from_secs(44), Duration::from_secs(50)).await;
}

/// The first line dies in the middle of the upload; the others live.
struct FirstDies {
    far: Far,
    first: CancellationToken,
    made: AtomicBool,
}

impl std::fmt::Debug for FirstDies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FirstDies")
    }
}

#[async_trait]
impl Connect for FirstDies {
    async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
        let (store, dies) = self.far.mortal().await;
        if !self.made.swap(true, Ordering::SeqCst) {
            let first = self.first.clone();
            tokio::spawn(async move {
                first.cancelled().await;
                dies.cancel();
            });
        }
        Ok(Arc::new(store))
    }
}

/// An upload over a line that dies in its middle, from its death to its end over another one.
async fn resumed(interval: Duration) -> Duration {
    let first = CancellationToken::new();
    let kills = Kills::new(first.clone());
    let lines = Arc::new(FirstDies { far: Far::new(interval), first, made: AtomicBool::new(false) });
    let connect: Arc<dyn Connect> = Arc::<FirstDies>::clone(&lines);
    let store = Retry::new(connect, RetryPolicy::default(), real_clock(), Arc::new(SeededEntropy::new(1)));
    let bytes = pattern(FILE_BYTES, 1);
    let put = store.put_new(&path(), BytesSource::new(bytes.clone()), &kills).await.unwrap();
    let after = kills.since();
    println!("an upload whose line died was whole over another one after {after:?}: {put:?}");
    assert!(put.resumed_from >= DIES_AT, "what arrived was kept: {put:?}");
    assert!(std::fs::read(lines.far.dir.path().join("f")).unwrap() == bytes);
    after
}

#[tokio::test]
async fn an_upload_over_a_line_that_dies_goes_on_over_another_one() {
    assert!(resumed(SHORT).await < SHORT * 20);
}

#[tokio::test]
async fn long_an_upload_over_a_line_that_dies_goes_on_over_another_one_within_a_minute() {
    assert!(resumed(KEEPALIVE_INTERVAL).await < Duration::from_secs(60));
}

/// A file up and a file down at once over one line of so many bytes a second.
async fn over_a_slow_line(interval: Duration, (up, down): (u64, u64), (sent, fetched): (usize, usize)) {
    let far = Far::new(interval);
    let (out, back) = (pattern(sent, 1), pattern(fetched, 2));
    std::fs::write(far.dir.path().join("down"), &back).unwrap();
    let store = far.slow(up, down).await;
    let (path, down_path, clock) = (path(), "/down".parse().unwrap(), real_clock());
    let (put, got) =
        tokio::join!(store.put_new(&path, BytesSource::new(out.clone()), &NoProgress), read_remote(&store, &down_path, fetched));
    println!("{sent} bytes up at {up} a second and {fetched} down at {down} in {:?}", clock.monotonic());
    put.unwrap();
    assert!(got.unwrap() == back);
    assert!(std::fs::read(far.dir.path().join("f")).unwrap() == out);
}

#[tokio::test]
async fn a_slow_line_is_not_given_up() {
    // A file that is longer on its way than a silence may be.
    over_a_slow_line(SHORT, (75_000, 75_000), (400_000, 400_000)).await;
}

#[tokio::test]
async fn long_a_line_of_five_kilobytes_a_second_is_not_given_up() {
    over_a_slow_line(KEEPALIVE_INTERVAL, (5_000, 5_000), (1_000_000, 1_000_000)).await;
}
