//! The stream under the SSH session: it takes what the session writes without letting it wait, and it can be ended from outside.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What the server may send before it must wait for us, in bytes: the SSH channel's window.
pub(super) const CHANNEL_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Bytes on their way out from which on no further request is handed to the session. What the session says of its own accord, such as that the
/// server may send more, waits behind them, on a slow line for long; the network's own buffers keep a fast one busy.
const CONGESTED_BYTES: u64 = 64 * 1024;
/// Bytes on their way out over which the session itself has to wait. Only a server gets there that asks for ever more and takes no
/// answer, because requests wait earlier.
const OUTGOING_BYTES_MOST: usize = 8 * 1024 * 1024;
/// A buffer larger than this is given back when it has run empty.
const BUFFER_KEPT_BYTES: usize = 64 * 1024;
/// Why a session has ended that says nothing of it itself.
const ENDED: &str = "the server closed it, or the line broke";

/// What those who use a session know of its stream. Clones are of the same one.
#[derive(Clone)]
pub(super) struct Line {
    /// Ends the session, without waiting for the server; cancelled too when the session has ended.
    pub(super) kill: CancellationToken,
    outflow: watch::Receiver<Outflow>,
    why: Arc<OnceLock<String>>,
}

impl Line {
    /// Notes why the session ends, before it does. The first reason counts.
    pub(super) fn ends(&self, why: String) {
        // One that was noted earlier is the cause of this one.
        let _ = self.why.set(why);
    }

    /// Why a session has ended that this side has not ended.
    pub(super) fn why(&self) -> &str {
        self.why.get().map_or(ENDED, String::as_str)
    }

    /// Admits requests to the session.
    pub(super) fn entrance(&self) -> Entrance {
        Entrance { outflow: self.outflow.clone(), handed: 0 }
    }
}

#[derive(Clone, Copy, Default)]
struct Outflow {
    /// Bytes that the session has written, ever.
    taken: u64,
    /// Of these, the bytes that the network has not taken.
    waiting: u64,
}

/// Lets requests into the session as the network takes earlier ones.
pub(super) struct Entrance {
    outflow: watch::Receiver<Outflow>,
    /// The bytes that the session will have written, ever, with what it was given so far.
    handed: u64,
}

impl Entrance {
    /// Completes when there is room, also for a single request of more bytes than that; the request is then handed to the session. False where the
    /// session ends meanwhile.
    pub(super) async fn admit(&mut self, bytes: usize) -> bool {
        let handed = self.handed;
        let has_room = |flow: &Outflow| handed.saturating_sub(flow.taken).saturating_add(flow.waiting) < CONGESTED_BYTES;
        let Ok(taken) = self.outflow.wait_for(has_room).await.map(|flow| flow.taken) else { return false };
        // The session adds to what it is given and never takes away, so it has often written more than that.
        self.handed = handed.max(taken).saturating_add(bytes as u64);
        true
    }
}

/// A session of the SSH library does nothing else while it writes: it neither reads, and two sides that both send much would wait for each
/// other for ever, nor does it count how often the server was asked in vain whether it is there. So writes are buffered here, and go out
/// whenever the session reads or writes; the buffer stays small because requests wait for [`Entrance::admit`]. The library also
/// ends a session politely, which waits behind a peer that does not read; a cancelled token does not wait.
pub(super) struct SessionStream<T> {
    stream: T,
    outgoing: BytesMut,
    outflow: watch::Sender<Outflow>,
    kill: CancellationToken,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<T> SessionStream<T> {
    pub(super) fn new(stream: T) -> (Self, Line) {
        let kill = CancellationToken::new();
        let (sender, outflow) = watch::channel(Outflow::default());
        let killed = Box::pin(kill.clone().cancelled_owned());
        let line = Line { kill: kill.clone(), outflow, why: Arc::default() };
        (Self { stream, outgoing: BytesMut::new(), outflow: sender, kill, killed }, line)
    }

    /// An error once the token is cancelled; until then the caller is woken when it is.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.kill.is_cancelled() || self.killed.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "ended by this side"));
        }
        Ok(())
    }
}

impl<T> Drop for SessionStream<T> {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

impl<T: AsyncWrite + Unpin> SessionStream<T> {
    /// Sends what is buffered as far as the network takes it; ready when nothing is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(sent) => {
                    self.outgoing.advance(sent);
                    let waiting = self.outgoing.len() as u64;
                    self.outflow.send_modify(|flow| flow.waiting = waiting);
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if self.outgoing.capacity() > BUFFER_KEPT_BYTES {
            self.outgoing = BytesMut::new();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for SessionStream<T> {
    /// The session always has a read pending, so this is where it is woken.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let drained = self.poll_drain(cx);
        match (Pin::new(&mut self.stream).poll_read(cx, buf), drained) {
            // What the server said before it went is heard first.
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (read, _) => read,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for SessionStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        if self.outgoing.len() >= OUTGOING_BYTES_MOST {
            match self.poll_drain(cx) {
                Poll::Ready(drained) => drained?,
                Poll::Pending if self.outgoing.len() >= OUTGOING_BYTES_MOST => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        let room = OUTGOING_BYTES_MOST.saturating_sub(self.outgoing.len());
        let taken = buf.get(..room.min(buf.len())).unwrap_or_default();
        self.outgoing.extend_from_slice(taken);
        let (taken, waiting) = (taken.len(), self.outgoing.len() as u64);
        self.outflow.send_modify(|flow| *flow = Outflow { taken: flow.taken.saturating_add(taken as u64), waiting });
        Poll::Ready(Ok(taken))
    }

    /// Starts the sending and does not wait for its end: waiting is what this type is there to avoid.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        match self.poll_drain(cx) {
            Poll::Ready(drained) => Poll::Ready(drained),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    /// What a server does not take now is not waited for: a session that was given up would never end.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        match self.poll_drain(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Ready(Ok(())),
        }
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Ready(shut) => Poll::Ready(shut),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn writing_does_not_keep_from_reading_and_requests_wait_for_room() {
        let (mut peer, ours) = tokio::io::duplex(1024);
        let (mut stream, line) = SessionStream::new(ours);
        let (mut entrance, frame) = (line.entrance(), vec![7; 32 * 1024]);
        peer.write_all(b"answer").await.unwrap();
        let mut handed = 0;
        while let std::task::Poll::Ready(admitted) = poll!(std::pin::pin!(entrance.admit(frame.len()))) {
            assert!(admitted);
            handed += frame.len();
        }
        assert_eq!(handed as u64, CONGESTED_BYTES, "what the session has not written yet counts too");
        // The session adds to what it is given.
        let written = handed + 4096;
        stream.write_all(&vec![7; written]).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).await.unwrap();
        assert!(poll!(std::pin::pin!(entrance.admit(1))).is_pending(), "the network has taken next to nothing");
        let reading = tokio::spawn(async move { stream.read_u8().await });
        peer.read_exact(&mut vec![0; written]).await.unwrap();
        assert!(entrance.admit(frame.len() * 2).await, "reading sends what waits");
        drop(peer);
        assert!(reading.await.unwrap().is_err());
        assert!(!entrance.admit(1).await, "the session has ended with no room for more");
        assert!(line.kill.is_cancelled());
    }

    #[tokio::test]
    async fn the_bytes_on_their_way_out_are_bounded_and_an_end_does_not_wait_for_them() {
        let (_peer, ours) = tokio::io::duplex(1);
        let (mut stream, line) = SessionStream::new(ours);
        let flood = vec![7; OUTGOING_BYTES_MOST + 2];
        assert!(poll!(std::pin::pin!(stream.write_all(&flood))).is_pending());
        assert_eq!(stream.outgoing.len(), OUTGOING_BYTES_MOST);
        stream.shutdown().await.unwrap();
        line.kill.cancel();
        assert_eq!(stream.write_all(&flood).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
