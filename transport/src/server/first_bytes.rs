//! What a peer speaks, told by its first bytes, which stay readable.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use towpath_transfer::Clock;

/// A peer that says nothing (or no more) for this long is greeted as SSH, where the server may speak first.
pub const SILENCE: Duration = Duration::from_secs(2);

/// How many bytes decide.
const DECISIVE_BYTES: usize = 4;
/// Every SSH identification begins so (RFC 4253 section 4.2).
const SSH: &[u8; DECISIVE_BYTES] = b"SSH-";
/// The content type of a TLS handshake record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A TLS handshake.
    Tls,
    /// An SSH identification, or a peer that waits for ours.
    Ssh,
    /// Anything else, such as a plain HTTP request; the caller decides.
    Other,
}

/// Reads at most four bytes of `stream` and tells what it speaks; works on a TCP stream and inside TLS alike.
///
/// # Errors
/// Those of `stream`; [`io::ErrorKind::UnexpectedEof`] where it ends before its first byte.
pub async fn sniff<S: AsyncRead + Unpin>(mut stream: S, clock: &dyn Clock) -> io::Result<(Kind, Rewound<S>)> {
    let mut head = Head::default();
    let mut silence = clock.sleep(SILENCE);
    let kind = loop {
        if let Some(kind) = head.verdict() {
            break kind;
        }
        let mut byte = [0u8; 1];
        // Reading is cancel-safe: a byte is either in `byte` or still in the stream.
        let read = tokio::select! {
            biased;
            read = stream.read(&mut byte) => read?,
            () = &mut silence => break Kind::Ssh,
        };
        match (read, byte) {
            (0, _) if head.filled == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            (0, _) => break Kind::Other,
            (_, [byte]) => head.push(byte),
        }
    };
    Ok((kind, Rewound { head, taken: 0, stream }))
}

#[derive(Debug, Default)]
struct Head {
    bytes: [u8; DECISIVE_BYTES],
    filled: usize,
}

impl Head {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.filled) {
            *slot = byte;
            self.filled += 1;
        }
    }

    fn seen(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    fn verdict(&self) -> Option<Kind> {
        match self.seen() {
            [] => None,
            [TLS_HANDSHAKE, ..] => Some(Kind::Tls),
            seen if seen == SSH => Some(Kind::Ssh),
            seen if SSH.starts_with(seen) => None,
            _ => Some(Kind::Other),
        }
    }
}

/// A stream whose first bytes were looked at and are read again by the next reader.
#[derive(Debug)]
pub struct Rewound<S> {
    head: Head,
    taken: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = this.head.seen().get(this.taken..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let some = rest.get(..rest.len().min(buf.remaining())).unwrap_or_default();
        buf.put_slice(some);
        this.taken += some.len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use towpath_transfer::clock::ManualClock;

    use super::*;

    fn clock() -> ManualClock {
        ManualClock::new(jiff::Timestamp::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn the_first_bytes_decide_and_are_read_again() {
        for (given, expected) in [
            (&b"SSH-2.0-x\r\n"[..], Kind::Ssh),
            (b"\x16\x03\x01", Kind::Tls),
            (b"GET / HTTP/1.1\r\n", Kind::Other),
            (b"SSL", Kind::Other),
            (b"SS", Kind::Other),
            (b"\0", Kind::Other),
        ] {
            let (mut peer, ours) = tokio::io::duplex(64);
            peer.write_all(given).await.unwrap();
            peer.shutdown().await.unwrap();
            let (kind, mut stream) = sniff(ours, &clock()).await.unwrap();
            assert_eq!(kind, expected, "{given:?}");
            let mut again = Vec::new();
            stream.read_to_end(&mut again).await.unwrap();
            assert_eq!(again, given);
        }
    }

    #[tokio::test]
    async fn a_silent_peer_is_greeted_as_ssh_after_two_seconds() {
        for said in [&b""[..], b"SS"] {
            let (mut peer, ours) = tokio::io::duplex(64);
            peer.write_all(said).await.unwrap();
            let time = clock();
            let watch = time.clone();
            let sniffing = tokio::spawn(async move { sniff(ours, &time).await });
            while watch.sleepers() == 0 {
                tokio::task::yield_now().await;
            }
            watch.advance(Duration::from_millis(1999));
            tokio::task::yield_now().await;
            assert!(!sniffing.is_finished());
            watch.advance(Duration::from_millis(1));
            let (kind, mut stream) = sniffing.await.unwrap().unwrap();
            assert_eq!(kind, Kind::Ssh);
            peer.write_all(b"later").await.unwrap();
            let mut again = vec![0; said.len() + 5];
            stream.read_exact(&mut again).await.unwrap();
            assert_eq!(again, [said, b"later"].concat());
        }
    }

    #[tokio::test]
    async fn a_peer_that_leaves_at_once_is_an_error() {
        let (peer, ours) = tokio::io::duplex(64);
        drop(peer);
        assert_eq!(sniff(ours, &clock()).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
