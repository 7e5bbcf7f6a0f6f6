//! A stream that can be ended from outside, whatever its reader waits for.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Fails every read and write once its token is cancelled. The SSH library ends a session politely, which waits behind a peer
/// that does not read; this does not wait.
pub(super) struct Killable<T> {
    inner: T,
    token: CancellationToken,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<T> Killable<T> {
    pub(super) fn new(inner: T) -> (Self, CancellationToken) {
        let token = CancellationToken::new();
        let killed = Box::pin(token.clone().cancelled_owned());
        (Self { inner, token: token.clone(), killed }, token)
    }

    fn check(&mut self) -> io::Result<()> {
        if self.token.is_cancelled() { Err(io::Error::new(io::ErrorKind::ConnectionAborted, "ended by this side")) } else { Ok(()) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Killable<T> {
    /// The session always has a read pending, so this is where it is woken.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let _ = this.killed.as_mut().poll(cx);
        this.check()?;
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Killable<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
