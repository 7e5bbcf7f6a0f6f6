//! The stream under an SSH connection: it can be cut from outside, and it can stop reading while requests pile up.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use towpath_transfer::Clock;

/// Counts the bytes of requests that wait in one connection, and holds back reading from the network over a mark.
///
/// Reading goes on over the mark while a reply waits to be sent: the reply may wait for the peer's window adjustment or
/// its part of a key exchange, which arrive on the same stream. That is the deadlock which this type exists to avoid.
#[derive(Debug)]
pub(super) struct ReadGate {
    pause_at: usize,
    queued: AtomicUsize,
    blocked_writers: AtomicUsize,
    reader: AtomicWaker,
}

impl ReadGate {
    pub(super) fn new(pause_at: usize) -> Arc<Self> {
        let (queued, blocked_writers) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { pause_at, queued, blocked_writers, reader: AtomicWaker::new() })
    }

    /// Adds to what waits and returns the sum.
    pub(super) fn add(&self, bytes: usize) -> usize {
        self.queued.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes)
    }

    pub(super) fn remove(&self, bytes: usize) {
        let before = self.queued.fetch_sub(bytes, Ordering::SeqCst);
        if before >= self.pause_at {
            self.reader.wake();
        }
    }

    /// Keeps the gate open while the returned guard lives.
    pub(super) fn writer_waits(&self) -> WriterWaits<'_> {
        self.blocked_writers.fetch_add(1, Ordering::SeqCst);
        self.reader.wake();
        WriterWaits(self)
    }

    fn is_closed(&self) -> bool {
        self.queued.load(Ordering::SeqCst) >= self.pause_at && self.blocked_writers.load(Ordering::SeqCst) == 0
    }
}

/// A reply waits to be sent.
#[derive(Debug)]
pub(super) struct WriterWaits<'a>(&'a ReadGate);

impl Drop for WriterWaits<'_> {
    fn drop(&mut self) {
        self.0.blocked_writers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Since when a write has been waiting for the peer to take bytes.
#[derive(Debug)]
pub(super) struct WriteStall {
    clock: Arc<dyn Clock>,
    /// Milliseconds of the monotonic clock, plus one; zero while nothing waits.
    since: AtomicU64,
}

impl WriteStall {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, since: AtomicU64::new(0) })
    }

    /// For how long the present write has waited without a single byte taken.
    pub(super) fn lasts(&self) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(self.millis().saturating_sub(since)),
        }
    }

    fn note<T>(&self, outcome: &Poll<io::Result<T>>) {
        if outcome.is_ready() {
            self.since.store(0, Ordering::Relaxed);
        } else if self.since.load(Ordering::Relaxed) == 0 {
            self.since.store(self.millis(), Ordering::Relaxed);
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// A stream with a kill switch, a read gate and a watch on stalled writes.
pub(super) struct Wire<S> {
    stream: S,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    kill: CancellationToken,
    gate: Arc<ReadGate>,
    stall: Arc<WriteStall>,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, kill: CancellationToken, gate: Arc<ReadGate>, stall: Arc<WriteStall>) -> Self {
        Self { stream, killed: Box::pin(kill.clone().cancelled_owned()), kill, gate, stall }
    }

    /// An error once the switch is thrown; until then the caller is woken when it is.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.kill.is_cancelled() || self.killed.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was cut by the server"));
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        if self.gate.is_closed() {
            self.gate.reader.register(cx.waker());
            // The gate may have opened between the look and the registration.
            if self.gate.is_closed() {
                return Poll::Pending;
            }
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.stall.note(&outcome);
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.stall.note(&outcome);
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use towpath_transfer::clock::ManualClock;

    use super::*;

    fn wire(stream: tokio::io::DuplexStream) -> (Wire<tokio::io::DuplexStream>, CancellationToken, Arc<ReadGate>, ManualClock) {
        let (kill, gate) = (CancellationToken::new(), ReadGate::new(100));
        let clock = ManualClock::new(jiff::Timestamp::UNIX_EPOCH);
        let stall = WriteStall::new(Arc::new(clock.clone()));
        (Wire::new(stream, kill.clone(), Arc::clone(&gate), stall), kill, gate, clock)
    }

    #[tokio::test]
    async fn the_switch_ends_a_read_and_a_write_that_wait() {
        let (_peer, ours) = tokio::io::duplex(4);
        let (wire, kill, _, _) = wire(ours);
        let (mut reader, mut writer) = tokio::io::split(wire);
        let reading = tokio::spawn(async move { reader.read_u8().await });
        tokio::task::yield_now().await;
        kill.cancel();
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(writer.write_all(b"12345678").await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn reading_pauses_over_the_mark_unless_a_writer_waits() {
        let (mut peer, ours) = tokio::io::duplex(16);
        let (mut wire, _kill, gate, _) = wire(ours);
        peer.write_all(b"ab").await.unwrap();
        assert_eq!(gate.add(100), 100);
        assert!(futures::poll!(std::pin::pin!(wire.read_u8())).is_pending());
        {
            let _waits = gate.writer_waits();
            assert_eq!(wire.read_u8().await.unwrap(), b'a');
        }
        assert!(futures::poll!(std::pin::pin!(wire.read_u8())).is_pending());
        let reading = tokio::spawn(async move { wire.read_u8().await });
        tokio::task::yield_now().await;
        gate.remove(1);
        assert_eq!(reading.await.unwrap().unwrap(), b'b');
    }

    #[tokio::test]
    async fn a_write_that_nobody_takes_is_timed() {
        let (mut peer, ours) = tokio::io::duplex(4);
        let (mut wire, _kill, _, clock) = wire(ours);
        let stall = Arc::clone(&wire.stall);
        wire.write_all(b"1234").await.unwrap();
        clock.advance(Duration::from_secs(500));
        assert_eq!(stall.lasts(), Duration::ZERO);
        assert!(futures::poll!(std::pin::pin!(wire.write_u8(5))).is_pending());
        clock.advance(Duration::from_secs(90));
        assert_eq!(stall.lasts(), Duration::from_secs(90));
        peer.read_u8().await.unwrap();
        wire.write_u8(5).await.unwrap();
        assert_eq!(stall.lasts(), Duration::ZERO);
    }
}
