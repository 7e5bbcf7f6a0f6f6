//! The stream under an SSH connection: it can be cut from outside, and it can stop reading while requests pile up.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use futures::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use towpath_transfer::Clock;

/// The bytes of requests that wait in all connections of a server together, beyond what each may have waiting before it is no longer
/// read from.
#[derive(Debug)]
pub(super) struct Surplus {
    limit: i64,
    /// Below nothing for a moment, where what has just arrived is taken before it is counted here.
    bytes: AtomicI64,
}

impl Surplus {
    /// What a connection may have beyond the mark, however many bytes the others have there: reading stops at the next look, and until
    /// then no honest peer comes so far.
    const OF_EACH: usize = 1024 * 1024;

    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: signed(limit), bytes: AtomicI64::new(0) })
    }

    /// Adds to it; `false` where that is more than may be.
    fn add(&self, bytes: usize) -> bool {
        let bytes = signed(bytes);
        self.bytes.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes) <= self.limit
    }

    fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(signed(bytes), Ordering::SeqCst);
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Counts the bytes of requests that wait in one connection, and holds back reading from the network over a mark.
///
/// Reading goes on over the mark while a reply waits to be sent: the reply may wait for the peer's window adjustment or
/// its part of a key exchange, which arrive on the same stream. That is the deadlock which this type exists to avoid.
#[derive(Debug)]
pub(super) struct ReadGate {
    pause_at: usize,
    most: usize,
    surplus: Arc<Surplus>,
    queued: AtomicUsize,
    blocked_writers: AtomicUsize,
    reader: AtomicWaker,
}

impl ReadGate {
    /// Holds back from `pause_at` bytes on, and takes at most `most`.
    pub(super) fn new(pause_at: usize, most: usize, surplus: Arc<Surplus>) -> Arc<Self> {
        let (queued, blocked_writers) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { pause_at, most, surplus, queued, blocked_writers, reader: AtomicWaker::new() })
    }

    /// Adds to what waits; `false` where that is more than may wait, here or in all connections.
    pub(super) fn add(&self, bytes: usize) -> bool {
        let before = self.queued.fetch_add(bytes, Ordering::SeqCst);
        let now = before.saturating_add(bytes);
        let is_room = self.surplus.add(self.over(now).saturating_sub(self.over(before)));
        now <= self.most && (is_room || self.over(now) <= Surplus::OF_EACH)
    }

    pub(super) fn remove(&self, bytes: usize) {
        let before = self.queued.fetch_sub(bytes, Ordering::SeqCst);
        self.surplus.remove(self.over(before).saturating_sub(self.over(before.saturating_sub(bytes))));
        if before >= self.pause_at {
            self.reader.wake();
        }
    }

    fn over(&self, queued: usize) -> usize {
        queued.saturating_sub(self.pause_at)
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.queued.load(Ordering::SeqCst)
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

/// Bytes on their way out from which on no further reply is sent.
const CONGESTED_BYTES: usize = 512 * 1024;
/// Bytes on their way out over which the session itself has to wait; a peer that takes its bytes never gets there.
const OUTGOING_BYTES_MOST: usize = 8 * 1024 * 1024;
/// A buffer larger than this is given back when it has run empty.
const BUFFER_KEPT_BYTES: usize = 64 * 1024;

/// What is known of the bytes on their way out: how many wait, and since when the peer has taken none.
#[derive(Debug)]
pub(super) struct Outflow {
    clock: Arc<dyn Clock>,
    waiting: AtomicUsize,
    drained: Notify,
    /// Milliseconds of the monotonic clock, plus one; zero while nothing waits.
    since: AtomicU64,
}

impl Outflow {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, waiting: AtomicUsize::new(0), drained: Notify::new(), since: AtomicU64::new(0) })
    }

    /// For how long bytes have waited without a single one taken.
    pub(super) fn lasts(&self) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(self.millis().saturating_sub(since)),
        }
    }

    /// Completes when there is room for a reply.
    pub(super) async fn has_room(&self) {
        let mut drained = std::pin::pin!(self.drained.notified());
        loop {
            drained.as_mut().enable();
            if self.waiting.load(Ordering::SeqCst) < CONGESTED_BYTES {
                return;
            }
            drained.as_mut().await;
            drained.set(self.drained.notified());
        }
    }

    fn note_waiting(&self, bytes: usize) {
        let before = self.waiting.swap(bytes, Ordering::SeqCst);
        if before >= CONGESTED_BYTES && bytes < CONGESTED_BYTES {
            self.drained.notify_waiters();
        }
    }

    fn note_progress(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    fn note_stall(&self) {
        if self.since.load(Ordering::Relaxed) == 0 {
            self.since.store(self.millis(), Ordering::Relaxed);
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// A stream with a kill switch, a read gate and writes that do not keep the session from reading.
///
/// A session of russh does not read while it writes. Were both ends like that and both had much to say, both would wait
/// for ever; so writes are buffered here, and go out whenever the session reads or writes. The buffer stays small because
/// replies wait for [`Outflow::has_room`].
pub(super) struct Wire<S> {
    stream: S,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    kill: CancellationToken,
    gate: Arc<ReadGate>,
    outflow: Arc<Outflow>,
    outgoing: BytesMut,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, kill: CancellationToken, gate: Arc<ReadGate>, outflow: Arc<Outflow>) -> Self {
        let killed = Box::pin(kill.clone().cancelled_owned());
        Self { stream, killed, kill, gate, outflow, outgoing: BytesMut::new() }
    }

    /// An error once the switch is thrown; until then the caller is woken when it is.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.kill.is_cancelled() || self.killed.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was cut by the server"));
        }
        Ok(())
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    /// Sends what is buffered as far as the peer takes it; ready when nothing is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.outgoing) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(taken)) => {
                    self.outgoing.advance(taken);
                    self.outflow.note_progress();
                    self.outflow.note_waiting(self.outgoing.len());
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.outflow.note_stall();
                    return Poll::Pending;
                }
            }
        }
        if self.outgoing.capacity() > BUFFER_KEPT_BYTES {
            self.outgoing = BytesMut::new();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        if let Poll::Ready(drained) = self.poll_drain(cx) {
            drained?;
        }
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
        if let Poll::Ready(drained) = self.poll_drain(cx) {
            drained?;
        }
        let room = OUTGOING_BYTES_MOST - self.outgoing.len().min(OUTGOING_BYTES_MOST);
        let taken = buf.get(..room.min(buf.len())).unwrap_or_default();
        if taken.is_empty() && !buf.is_empty() {
            return Poll::Pending;
        }
        self.outgoing.extend_from_slice(taken);
        self.outflow.note_waiting(self.outgoing.len());
        Poll::Ready(Ok(taken.len()))
    }

    /// Starts the sending and does not wait for its end: waiting is what this type is there to avoid.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        match self.poll_drain(cx) {
            Poll::Ready(drained) => Poll::Ready(drained),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        std::task::ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use towpath_transfer::clock::ManualClock;

    use super::*;

    fn wire(stream: tokio::io::DuplexStream) -> (Wire<tokio::io::DuplexStream>, CancellationToken, Arc<ReadGate>, ManualClock) {
        let (kill, gate) = (CancellationToken::new(), ReadGate::new(100, 200, Surplus::new(150)));
        let clock = ManualClock::new(jiff::Timestamp::UNIX_EPOCH);
        let outflow = Outflow::new(Arc::new(clock.clone()));
        (Wire::new(stream, kill.clone(), Arc::clone(&gate), outflow), kill, gate, clock)
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
        assert!(gate.add(100));
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

    #[test]
    fn so_much_waits_in_one_connection_and_in_all_of_them() {
        const MIB: usize = 1024 * 1024;
        let surplus = Surplus::new(5 * MIB);
        let gate = || ReadGate::new(MIB, 5 * MIB, Arc::clone(&surplus));
        let (one, other, third) = (gate(), gate(), gate());
        assert!(one.add(5 * MIB), "as much as one may");
        assert!(!one.add(1));
        one.remove(1);
        assert!(other.add(MIB) && other.add(MIB), "with the other as much as all may");
        assert!(!other.add(1));
        other.remove(1);
        assert!(third.add(MIB + Surplus::OF_EACH), "nobody else's bytes end a connection that has hardly any");
        assert!(!third.add(1));
        one.remove(4 * MIB);
        assert!(third.add(MIB));
        for (gate, left) in [(&one, MIB), (&other, 2 * MIB), (&third, 3 * MIB + 1)] {
            gate.remove(left);
        }
        assert_eq!(surplus.bytes.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn bytes_that_nobody_takes_are_timed() {
        let (mut peer, ours) = tokio::io::duplex(4);
        let (mut wire, _kill, _, clock) = wire(ours);
        let outflow = Arc::clone(&wire.outflow);
        wire.write_all(b"1234").await.unwrap();
        wire.flush().await.unwrap();
        clock.advance(Duration::from_secs(500));
        assert_eq!(outflow.lasts(), Duration::ZERO);
        wire.write_u8(5).await.unwrap();
        wire.flush().await.unwrap();
        clock.advance(Duration::from_secs(90));
        assert_eq!(outflow.lasts(), Duration::from_secs(90));
        assert_eq!(peer.read_u8().await.unwrap(), b'1');
        assert!(futures::poll!(std::pin::pin!(wire.read_u8())).is_pending());
        assert_eq!(outflow.lasts(), Duration::ZERO, "reading sends what waits");
        let mut rest = [0; 4];
        peer.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"234\x05");
    }

    #[tokio::test]
    async fn writing_does_not_keep_from_reading_and_replies_wait_for_room() {
        let (mut peer, ours) = tokio::io::duplex(64 * 1024);
        let (mut wire, _kill, _, _) = wire(ours);
        let outflow = Arc::clone(&wire.outflow);
        peer.write_all(b"request").await.unwrap();
        wire.write_all(&vec![7; 1024 * 1024]).await.unwrap();
        let mut request = [0; 7];
        wire.read_exact(&mut request).await.unwrap();
        let mut room = std::pin::pin!(outflow.has_room());
        assert!(futures::poll!(room.as_mut()).is_pending());
        let reading = tokio::spawn(async move { wire.read_u8().await });
        let mut taken = vec![0; 1024 * 1024];
        peer.read_exact(&mut taken).await.unwrap();
        room.await;
        assert!(taken.iter().all(|byte| *byte == 7));
        drop(peer);
        assert!(reading.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn the_bytes_on_their_way_out_are_bounded() {
        let (_peer, ours) = tokio::io::duplex(1);
        let (mut wire, _kill, _, _) = wire(ours);
        let flood = vec![7; OUTGOING_BYTES_MOST + 2];
        assert!(futures::poll!(std::pin::pin!(wire.write_all(&flood))).is_pending());
        assert_eq!(wire.outgoing.len(), OUTGOING_BYTES_MOST);
    }
}
