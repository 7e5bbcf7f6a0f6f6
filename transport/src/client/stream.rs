//! The stream under the SSH session: it reads ahead, and it can be ended from outside.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, SimplexStream, WriteHalf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What the server may send before it must wait for us, in bytes: the SSH channel's window.
pub(super) const CHANNEL_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Bytes read ahead: a whole window, and room for what is around it.
const READ_AHEAD_BYTES: usize = 3 * 1024 * 1024;

/// The SSH library does not read while it writes. Two sides that both send much would wait for each other for ever; here one of them
/// always goes on reading, as far as the window lets the other send. The library also ends a session politely, which waits behind
/// a peer that does not read; a cancelled token does not wait.
pub(super) struct SessionStream<T> {
    ahead: ReadHalf<SimplexStream>,
    writer: WriteHalf<T>,
    token: CancellationToken,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<T: AsyncRead + AsyncWrite + Send + 'static> SessionStream<T> {
    pub(super) fn new(inner: T) -> (Self, CancellationToken) {
        let token = CancellationToken::new();
        let (reader, writer) = tokio::io::split(inner);
        let (ahead, buffer) = tokio::io::simplex(READ_AHEAD_BYTES);
        tokio::spawn(read_ahead(reader, buffer, token.clone()));
        let killed = Box::pin(token.clone().cancelled_owned());
        (Self { ahead, writer, token: token.clone(), killed }, token)
    }
}

async fn read_ahead<T: AsyncRead>(mut reader: ReadHalf<T>, mut buffer: WriteHalf<SimplexStream>, token: CancellationToken) {
    tokio::select! {
        // An error of the network looks like its end, which is what the session makes of it too.
        _ = tokio::io::copy(&mut reader, &mut buffer) => {}
        () = token.cancelled() => {}
    }
    let _ = buffer.shutdown().await;
}

impl<T> SessionStream<T> {
    fn check(&self) -> io::Result<()> {
        if self.token.is_cancelled() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "ended by this side"));
        }
        Ok(())
    }
}

impl<T> Drop for SessionStream<T> {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl<T> AsyncRead for SessionStream<T> {
    /// The session always has a read pending, so this is where it is woken.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let _ = self.killed.as_mut().poll(cx);
        self.check()?;
        Pin::new(&mut self.ahead).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite> AsyncWrite for SessionStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // The session waits in a write too, and then for nothing else.
        let _ = self.killed.as_mut().poll(cx);
        self.check()?;
        Pin::new(&mut self.writer).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = self.killed.as_mut().poll(cx);
        self.check()?;
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = self.killed.as_mut().poll(cx);
        self.check()?;
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}
