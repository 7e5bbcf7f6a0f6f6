//! As many as there may be at once, and for as long as they may: the figures of the limits, to the last one.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpSocket, TcpStream},
};
use tokio_util::sync::CancellationToken;
use towpath_transfer::clock::ManualClock;
use towpath_transport::server::{Ended, Limits, Session};

use super::support::{Counting, Raw, TestServer, UserKey, connect_stream, connect_wide_over, frame, soon, start, until};

const READ: u32 = 1;
/// Connections that have not logged in: over all addresses, and of one.
const UNAUTHENTICATED: usize = 100;
const OF_AN_ADDRESS: usize = 20;
/// For how long a peer may take nothing.
const SILENCE: Duration = Duration::from_secs(90);

/// A server with the default limits, by a clock that stands still.
async fn by_default(view: Counting, key: &UserKey) -> (TestServer, ManualClock) {
    let clock = ManualClock::new(jiff::Timestamp::UNIX_EPOCH);
    let revoked = CancellationToken::new();
    let session = Session::new(Arc::new(view), revoked.clone());
    (start(session, revoked, &[key], Limits::default(), Arc::new(clock.clone())).await, clock)
}

/// A connection from the address of this number on the loopback.
async fn connected_from(server: &TestServer, address: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 2, 0, address), 0))).unwrap();
    soon(socket.connect(server.address)).await.unwrap()
}

/// Whether the server has hung up; what it says first, its version, is skipped.
fn is_over(stream: &TcpStream) -> bool {
    loop {
        let mut said = [0; 1024];
        match stream.try_read(&mut said) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

#[tokio::test]
async fn the_hundred_and_first_without_a_login_drops_the_oldest_of_all() {
    let key = UserKey::ed25519();
    let (mut server, _standing_clock) = by_default(Counting::default(), &key).await;
    // Who is logged in has no place among them.
    let mut member = Raw::login_over(connect_stream(connected_from(&server, 250).await).await, &key).await;
    let mut silent = Vec::new();
    for number in 0..UNAUTHENTICATED {
        // One address after the other, so that none has more than it may, and one by one, so that it is known who is the oldest.
        silent.push(connected_from(&server, u8::try_from(number % (UNAUTHENTICATED / OF_AN_ADDRESS)).unwrap() + 1).await);
        until(|| server.server.connections() == number + 2).await;
    }
    assert!(server.ended.try_recv().is_err(), "a hundred fit, twenty of each address");

    // The next one is from an address of its own; it drops the oldest and gets in.
    let newest = connected_from(&server, 200).await;
    assert_eq!(server.next_end().await, Ended::Displaced);
    soon(silent[0].read_to_end(&mut Vec::new())).await.unwrap();
    let mut newest = Raw::login_over(connect_stream(newest).await, &key).await;
    assert!(newest.open("x", READ).await.is_ok());
    // With its login it has left them, so that one more fits, and the one after that drops the next oldest.
    silent.push(connected_from(&server, 201).await);
    until(|| server.server.connections() == UNAUTHENTICATED + 2).await;
    assert!(server.ended.try_recv().is_err());
    silent.push(connected_from(&server, 202).await);
    assert_eq!(server.next_end().await, Ended::Displaced);
    soon(silent[1].read_to_end(&mut Vec::new())).await.unwrap();
    for (number, stream) in silent.iter().enumerate().skip(2) {
        assert!(!is_over(stream), "{number} was not the oldest");
    }
    assert_eq!(server.server.connections(), UNAUTHENTICATED + 2);
    assert!(member.open("x", READ).await.is_ok(), "who is logged in is not pushed out");
}

/// The server's side of a stream, which says whether the other side takes anything.
struct Telling<S> {
    stream: S,
    full: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Telling<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Telling<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.full.store(poll.is_pending(), Ordering::SeqCst);
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// The network is in memory, so that it takes nothing any more once it is full. There is one thread, so that the server has noted since
// when before anybody else sees that it is full.
#[tokio::test]
async fn a_peer_has_ninety_seconds_to_take_a_byte_and_not_a_moment_less() {
    const MOMENT: Duration = Duration::from_millis(1);
    let key = UserKey::ed25519();
    let view = Counting { size: 1 << 40, ..Counting::default() };
    let abandoned = Arc::clone(&view.abandoned);
    let (server, clock) = by_default(view, &key).await;
    let (theirs, ours) = tokio::io::duplex(64 * 1024);
    let full = Arc::new(AtomicBool::new(false));
    let ours = Telling { stream: ours, full: Arc::clone(&full) };
    let serving = tokio::spawn(server.server.serve_stream(ours, SocketAddr::from(([192, 0, 2, 1], 1))));
    let mut raw = Raw::login_over(connect_wide_over(theirs).await, &key).await;
    let handle = raw.open("x", READ).await.unwrap();
    // As long as everything is taken no time counts, however little there is to take.
    for passed in [Duration::from_hours(1), Duration::from_secs(30)] {
        clock.advance(passed);
        assert!(raw.open("x", READ).await.is_ok());
    }
    raw.deaf.store(true, Ordering::SeqCst);
    let read = frame(5, &[&handle[..], &[0; 8], &[0, 3, 0, 0]].concat());
    soon(raw.stream.write_all(&read.repeat(8))).await.unwrap();
    until(|| full.load(Ordering::SeqCst)).await;
    clock.advance(SILENCE - MOMENT);
    // It has been looked at, and has a moment yet.
    until(|| clock.next_due() == Some(MOMENT)).await;
    clock.advance(MOMENT);
    // What is left is the goodbye, which nobody takes either.
    let goodbye = Limits::default().goodbye;
    until(|| clock.next_due() == Some(goodbye)).await;
    clock.advance(goodbye);
    assert_eq!(soon(serving).await.unwrap(), Ended::Stalled);
    assert_eq!(abandoned.load(Ordering::SeqCst), 3);
}
