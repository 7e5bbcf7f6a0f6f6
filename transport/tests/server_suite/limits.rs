//! Every limit of the server, exceeded; and peers that stop listening.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use russh::{
    client::AuthResult,
    keys::{HashAlg, PrivateKeyWithHashAlg},
};
use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, net::TcpStream};
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock as _, clock::ManualClock, digest::Sha256Digest};
use towpath_transport::server::{Ended, Limits, PlainDirectory, Session};

use super::support::{
    Counting, PATIENCE, Raw, RealClock, Ssh, TestServer, UserKey, connect, connect_wide, frame, offer, soon, start, text, until,
};

/// The answer "Success", with its length field.
const STATUS_BYTES: usize = 4 + 1 + 4 + 4 + (4 + 7) + (4 + 2);
const READ: u32 = 1;
const WRITE_CREATE: u32 = 2 | 8;
const NO_SUCH_FILE: u32 = 2;
const FAILURE: u32 = 4;
const BAD_MESSAGE: u32 = 5;
const UNSUPPORTED: u32 = 8;

async fn on_manual_clock(view: Counting, key: &UserKey) -> (TestServer, ManualClock) {
    let clock = ManualClock::new(jiff::Timestamp::UNIX_EPOCH);
    let revoked = CancellationToken::new();
    let session = Session::new(Arc::new(view), revoked.clone());
    (start(session, revoked, &[key], Limits::default(), Arc::new(clock.clone())).await, clock)
}

/// By when an oversized frame has closed its channel, in real time.
const OVERSIZED_CLOSES_WITHIN: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_oversized_frame_closes_the_channel_unread_within_a_second() {
    let key = UserKey::ed25519();
    let view = Counting::default();
    let open = Arc::clone(&view.open);
    let (server, _standing_clock) = on_manual_clock(view, &key).await;
    let mut raw = Raw::login(server.address, &key).await;
    let length = (256 * 1024 + 1_u32).to_be_bytes();
    // A payload that would open files, were it read as requests of its own; and the length alone, of whose payload nothing was sent.
    let files = frame(3, &[text("x"), READ.to_be_bytes().to_vec(), vec![0; 4]].concat()).repeat(1_000);
    for payload in [&files[..], &[]] {
        let clock = RealClock::new();
        raw.stream.write_all(&[&length[..], payload].concat()).await.unwrap();
        assert!(raw.answer().await.is_none());
        let lasted = clock.monotonic();
        println!("an oversized frame of which {} bytes came has closed its channel after {lasted:?}", payload.len());
        assert!(lasted < OVERSIZED_CLOSES_WITHIN, "{lasted:?}");
        // The connection lives on, and so may another channel.
        raw.stream = Raw::channel(&raw.ssh).await;
        let handle = raw.open("x", READ).await.unwrap();
        assert_eq!(open.load(Ordering::SeqCst), 1, "nothing of the payload was done");
        assert_eq!(raw.status(4, &handle).await, 0);
    }
}

#[tokio::test]
async fn a_frame_is_as_long_as_it_is_configured() {
    let key = UserKey::ed25519();
    for (longest, limits) in [(40_000, Limits { frame_bytes: 40_000, ..Limits::default() }), (262_144, Limits::default())] {
        let server = TestServer::over(Arc::new(Counting::default()), &key, limits).await;
        let mut raw = Raw::login(server.address, &key).await;
        let handle = raw.open("x", WRITE_CREATE).await.unwrap();
        let written = |bytes: usize| [&handle[..], &[0; 8], &text(vec![7; bytes])].concat();
        // Kind, number, handle, offset and two lengths take the rest of the frame.
        let rest = written(0).len() + 5;
        assert_eq!(raw.status(6, &written(longest - rest)).await, 0, "{longest} bytes are accepted");
        raw.send(6, &written(longest - rest + 1)).await;
        assert!(raw.answer().await.is_none(), "one more than {longest} is refused");
    }
}

#[tokio::test]
async fn the_hundred_and_first_handle_is_refused_and_none_leaks() {
    let key = UserKey::ed25519();
    let view = Counting::default();
    let (open, closed, abandoned) = (Arc::clone(&view.open), Arc::clone(&view.closed), Arc::clone(&view.abandoned));
    let mut server = TestServer::over(Arc::new(view), &key, Limits::default()).await;
    let mut raw = Raw::login(server.address, &key).await;
    let mut handles = Vec::new();
    for _ in 0..100 {
        handles.push(raw.open("x", READ).await.unwrap());
    }
    assert_eq!(raw.open("x", READ).await, Err(FAILURE));
    assert_eq!(open.load(Ordering::SeqCst), 100);
    assert_eq!(raw.status(4, &handles[0]).await, 0);
    assert_eq!(raw.status(4, &handles[0]).await, FAILURE, "a closed handle means nothing");
    assert_eq!(raw.open("missing", READ).await, Err(NO_SUCH_FILE));
    assert!(raw.open("x", READ).await.is_ok(), "a failed open holds no place");
    for _ in 0..2000 {
        assert_eq!(raw.status(4, &handles[1]).await, 0);
        handles[1] = raw.open("x", READ).await.unwrap();
    }
    drop(raw);
    server.next_end().await;
    assert_eq!(open.load(Ordering::SeqCst), 0);
    assert_eq!((closed.load(Ordering::SeqCst), abandoned.load(Ordering::SeqCst)), (2001, 100));
}

#[tokio::test]
async fn requests_that_wait_are_bounded_and_the_network_waits_with_them() {
    let key = UserKey::ed25519();
    let held = CancellationToken::new();
    let view = Counting { held: Some(held.clone()), ..Counting::default() };
    let (written, waiting) = (Arc::clone(&view.written), Arc::clone(&view.waiting));
    let server = TestServer::over(Arc::new(view), &key, Limits::default()).await;
    let mut raw = Raw::login(server.address, &key).await;
    let handle = raw.open("x", WRITE_CREATE).await.unwrap();
    let write = frame(6, &[&handle[..], &[0; 8], &text(vec![7; 32 * 1024])].concat());
    // Far more than fits into the queue and every buffer on the way, while the disk stands still.
    let (mut reader, mut writer) = tokio::io::split(raw.stream);
    let writing = tokio::spawn(async move {
        for _ in 0..2000 {
            writer.write_all(&write).await.unwrap();
        }
    });
    until(|| waiting.load(Ordering::SeqCst) == 1).await;
    held.cancel();
    let mut statuses = vec![0; 2000 * STATUS_BYTES];
    soon(reader.read_exact(&mut statuses)).await.unwrap();
    soon(writing).await.unwrap();
    assert_eq!(written.load(Ordering::SeqCst), 2000 * 32 * 1024);
}

#[tokio::test]
async fn over_the_cap_the_session_ends() {
    let key = UserKey::ed25519();
    let limits = Limits { frame_bytes: 34_000, queue_pause_bytes: 140_000, queue_bytes: 150_000, ..Limits::default() };
    let view = Counting { size: u64::MAX / 2, ..Counting::default() };
    let (open, abandoned) = (Arc::clone(&view.open), Arc::clone(&view.abandoned));
    let mut server = TestServer::over(Arc::new(view), &key, limits).await;
    let mut raw = Raw::login(server.address, &key).await;
    let handle = raw.open("x", READ).await.unwrap();
    // Reads whose answers nobody takes: the replies wait for the window, so the requests are read on, up to the cap.
    let read = frame(5, &[&handle[..], &[0; 8], &[0, 0, 0x80, 0]].concat());
    let flood = tokio::spawn(async move { while raw.stream.write_all(&read.repeat(100)).await.is_ok() {} });
    assert_eq!(server.next_end().await, Ended::QueueFull);
    assert_eq!((open.load(Ordering::SeqCst), abandoned.load(Ordering::SeqCst)), (0, 1));
    soon(flood).await.unwrap();
}

#[tokio::test]
async fn what_waits_in_all_connections_has_a_cap_as_well() {
    let key = UserKey::ed25519();
    let limits = Limits { frame_bytes: 34_000, queue_pause_bytes: 140_000, queue_bytes_in_all: 2_500_000, ..Limits::default() };
    let mut server = TestServer::over(Arc::new(Counting { size: u64::MAX / 2, ..Counting::default() }), &key, limits).await;
    let mut connections = Vec::new();
    // Each of them alone may have as much waiting.
    for bytes in [1_500_000, 1_600_000] {
        let mut raw = Raw::login(server.address, &key).await;
        let handle = raw.open("x", READ).await.unwrap();
        let read = frame(5, &[&handle[..], &[0; 8], &[0, 0, 0x80, 0]].concat());
        // The last of it finds the connection closed, where it is this one that ends.
        let _ = soon(raw.stream.write_all(&read.repeat(bytes / read.len()))).await;
        connections.push(raw);
    }
    assert_eq!(server.next_end().await, Ended::QueueFull);
}

#[tokio::test]
async fn the_login_grace_ends_silent_and_drip_fed_connections() {
    let key = UserKey::ed25519();
    let (mut server, clock) = on_manual_clock(Counting::default(), &key).await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let mut drip = TcpStream::connect(server.address).await.unwrap();
    drip.write_all(b"SSH-2.0-dr").await.unwrap();
    let (_exchanged_keys, _) = connect(server.address).await;
    until(|| clock.sleepers() >= 3).await;
    clock.advance(Duration::from_secs(29));
    drip.write_all(b"ip").await.unwrap();
    let (mut logged_in, _) = connect(server.address).await;
    assert!(offer(&mut logged_in, &key, None).await.unwrap());
    clock.advance(Duration::from_secs(1));
    for _ in 0..3 {
        assert_eq!(server.next_end().await, Ended::Grace);
    }
    clock.advance(Duration::from_secs(60));
    assert!(logged_in.channel_open_session().await.is_ok(), "a login has no such end");
}

#[tokio::test]
async fn a_flood_of_connections_pushes_itself_out() {
    let key = UserKey::ed25519();
    let mut server = TestServer::over(Arc::new(Counting::default()), &key, Limits::default()).await;
    let mut flood = Vec::new();
    for _ in 0..20 {
        flood.push(TcpStream::connect(server.address).await.unwrap());
    }
    until(|| server.server.connections() == 20).await;
    let mut raw = Raw::login(server.address, &key).await;
    assert_eq!(server.next_end().await, Ended::Displaced);
    flood.push(TcpStream::connect(server.address).await.unwrap());
    until(|| server.server.connections() == 21).await;
    assert!(raw.open("x", READ).await.is_ok(), "who is logged in is not pushed out");
}

#[tokio::test]
async fn every_key_offer_counts_until_the_login() {
    let key = UserKey::ed25519();
    let others: Vec<UserKey> = (0..7).map(|_| UserKey::ed25519()).collect();
    let mut server = TestServer::over(Arc::new(Counting::default()), &key, Limits::default()).await;
    let (mut ssh, _) = connect(server.address).await;
    for other in &others[..5] {
        assert!(!offer(&mut ssh, other, None).await.unwrap());
    }
    assert!(offer(&mut ssh, &key, None).await.unwrap(), "the sixth may still be the right one");
    let (mut ssh, _) = connect(server.address).await;
    for other in &others[..6] {
        assert!(!offer(&mut ssh, other, None).await.unwrap());
    }
    assert!(!offer(&mut ssh, &key, None).await.unwrap_or(false), "the seventh is too late even if it is right");
    assert!(matches!(server.next_end().await, Ended::TooManyOffers | Ended::ByPeer | Ended::Failed(_)));
}

/// How many authentication methods the server still names after a wrong key.
async fn ways_left_after(mut ssh: Ssh, key: &UserKey) -> usize {
    let key = PrivateKeyWithHashAlg::new(Arc::clone(&key.private), None);
    match soon(ssh.authenticate_publickey("tester", key)).await.unwrap() {
        AuthResult::Failure { remaining_methods, .. } => remaining_methods.len(),
        AuthResult::Success => panic!("a wrong key got in"),
    }
}

#[tokio::test]
async fn an_address_that_fails_too_often_is_refused_and_its_neighbour_is_not() {
    let key = UserKey::ed25519();
    let wrong = UserKey::ed25519();
    let (server, clock) = on_manual_clock(Counting::default(), &key).await;
    for _ in 0..5 {
        let (mut ssh, _) = connect(server.address).await;
        assert!(!offer(&mut ssh, &wrong, None).await.unwrap());
        assert!(!offer(&mut ssh, &wrong, None).await.unwrap());
    }
    let (ssh, _) = connect(server.address).await;
    assert_eq!(ways_left_after(ssh, &wrong).await, 0, "a refused address is told that no way is left");
    let mut neighbour = Raw::login(server.address, &key).await;
    assert!(neighbour.open("x", READ).await.is_ok());
    clock.advance(Duration::from_mins(2));
    let (ssh, _) = connect(server.address).await;
    assert_eq!(ways_left_after(ssh, &wrong).await, 1);
    let (mut ssh, _) = connect(server.address).await;
    assert!(!offer(&mut ssh, &wrong, None).await.unwrap());
    assert!(offer(&mut ssh, &key, None).await.unwrap(), "after the refusal a wrong key does not end the connection");
}

#[tokio::test]
async fn sha1_signatures_and_short_rsa_keys_are_refused() {
    let (rsa, short) = (UserKey::new(&["-t", "rsa", "-b", "2048"]), UserKey::new(&["-t", "rsa", "-b", "1024"]));
    let ecdsa = UserKey::new(&["-t", "ecdsa", "-b", "256"]);
    let revoked = CancellationToken::new();
    let session = Session::new(Arc::new(Counting::default()), revoked.clone());
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let server = start(session, revoked, &[&rsa, &short, &ecdsa], Limits::default(), clock).await;
    for (key, hash, expected) in [
        (&rsa, None, false),
        (&rsa, Some(HashAlg::Sha256), true),
        (&rsa, Some(HashAlg::Sha512), true),
        (&short, Some(HashAlg::Sha512), false),
        (&ecdsa, None, false),
    ] {
        let (mut ssh, _) = connect(server.address).await;
        assert_eq!(offer(&mut ssh, key, hash).await.unwrap(), expected, "{} {hash:?}", key.public.algorithm());
    }
}

#[tokio::test]
async fn a_user_has_only_so_many_connections() {
    let key = UserKey::ed25519();
    let limits = Limits { sessions_per_user: 2, ..Limits::default() };
    let mut server = TestServer::over(Arc::new(Counting::default()), &key, limits).await;
    let first = Raw::login(server.address, &key).await;
    let _second = Raw::login(server.address, &key).await;
    let (mut third, _) = connect(server.address).await;
    // The connection ends; a key that is refused would be given up, and is a good one.
    let refused = offer(&mut third, &key, None).await;
    assert!(!refused.is_ok_and(|accepted| accepted));
    assert_eq!(server.next_end().await, Ended::TooManyConnections);
    drop(first);
    until(|| server.server.connections() == 1).await;
    Raw::login(server.address, &key).await;
}

#[tokio::test]
async fn a_connection_has_only_so_many_channels() {
    let key = UserKey::ed25519();
    let server = TestServer::over(Arc::new(Counting::default()), &key, Limits::default()).await;
    let raw = Raw::login(server.address, &key).await;
    let mut more = Vec::new();
    for _ in 0..3 {
        more.push(Raw::channel(&raw.ssh).await);
    }
    assert!(raw.ssh.channel_open_session().await.is_err());
    more.pop().unwrap().shutdown().await.unwrap();
    soon(async {
        while raw.ssh.channel_open_session().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn revocation_ends_the_session_and_no_later_write_lands() {
    let key = UserKey::ed25519();
    let held = CancellationToken::new();
    let view = Counting { held: Some(held.clone()), ..Counting::default() };
    let (written, waiting) = (Arc::clone(&view.written), Arc::clone(&view.waiting));
    let (closed, abandoned) = (Arc::clone(&view.closed), Arc::clone(&view.abandoned));
    let (mut server, _standing_clock) = on_manual_clock(view, &key).await;
    let mut raw = Raw::login(server.address, &key).await;
    let handle = raw.open("x", WRITE_CREATE).await.unwrap();
    for _ in 0..10 {
        raw.send(6, &[&handle[..], &[0; 8], &text(b"data")].concat()).await;
    }
    raw.send(4, &handle).await;
    until(|| waiting.load(Ordering::SeqCst) == 1).await;
    server.revoked.cancel();
    held.cancel();
    assert_eq!(server.next_end().await, Ended::Revoked, "at once, by a clock that stands still");
    assert_eq!(written.load(Ordering::SeqCst), 4, "only the write that was running");
    assert_eq!((closed.load(Ordering::SeqCst), abandoned.load(Ordering::SeqCst)), (0, 1), "nothing is published");
}

/// A logged-in peer that has stopped reading while the server has much to send.
async fn deafened(server: &TestServer, key: &UserKey) -> Raw {
    let mut raw = Raw::login(server.address, key).await;
    let handle = raw.open("x", READ).await.unwrap();
    raw.deaf.store(true, Ordering::SeqCst);
    for _ in 0..400 {
        raw.send(5, &[&handle[..], &[0; 8], &[0, 3, 0, 0]].concat()).await;
    }
    raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_blocks_nobody_and_is_cut_when_revoked() {
    let key = UserKey::ed25519();
    let view = Counting { size: 1 << 40, ..Counting::default() };
    let abandoned = Arc::clone(&view.abandoned);
    let mut server = TestServer::over(Arc::new(view), &key, Limits::default()).await;
    let deaf = deafened(&server, &key).await;
    let mut other = Raw::login(server.address, &key).await;
    assert!(other.open("x", READ).await.is_ok());
    server.revoked.cancel();
    for _ in 0..2 {
        assert_eq!(server.next_end().await, Ended::Revoked);
    }
    assert_eq!(abandoned.load(Ordering::SeqCst), 2);
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_nothing_over_tcp_is_gone_after_ninety_seconds() {
    let key = UserKey::ed25519();
    let (mut server, clock) = on_manual_clock(Counting { size: 1 << 40, ..Counting::default() }, &key).await;
    let mut raw = Raw::login_over(connect_wide(server.address).await, &key).await;
    let handle = raw.open("x", READ).await.unwrap();
    raw.deaf.store(true, Ordering::SeqCst);
    for _ in 0..400 {
        raw.send(5, &[&handle[..], &[0; 8], &[0, 3, 0, 0]].concat()).await;
    }
    let mut passed = Duration::ZERO;
    let ended = async {
        loop {
            tokio::select! {
                ended = server.ended.recv() => return ended.unwrap(),
                // The kernel's buffers fill up first; time may pass meanwhile.
                () = tokio::time::sleep(Duration::from_millis(20)) => {
                    passed += Duration::from_secs(10);
                    clock.advance(Duration::from_secs(10));
                }
            }
        }
    };
    assert_eq!(soon(ended).await, Ended::Stalled);
    assert!(passed >= Limits::default().silence, "{passed:?}");
}

/// One login that falls silent and one that is idle and answers: how the first of them ends, and whether the other lives on.
async fn silent_and_idle(silence: Duration) -> (Ended, usize, bool) {
    let key = UserKey::ed25519();
    let view = Counting::default();
    let abandoned = Arc::clone(&view.abandoned);
    let mut server = TestServer::over(Arc::new(view), &key, Limits { silence, ..Limits::default() }).await;
    let mut half_open = Raw::login(server.address, &key).await;
    let mut idle = Raw::login(server.address, &key).await;
    let _handle = half_open.open("x", WRITE_CREATE).await.unwrap();
    half_open.deaf.store(true, Ordering::SeqCst);
    let ended = tokio::time::timeout(silence + PATIENCE, server.ended.recv()).await.expect("it is noticed").unwrap();
    let abandoned = abandoned.load(Ordering::SeqCst);
    (ended, abandoned, idle.ssh.channel_open_session().await.is_ok() && idle.open("x", READ).await.is_ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_login_is_noticed() {
    // The SSH library asks by the real time. On a machine that stands still for longer than the silence, the idle one is silent too:
    // then it is given more.
    let mut found = None;
    for silence in [900, 5_000, 20_000].map(Duration::from_millis) {
        let seen = tokio::spawn(silent_and_idle(silence)).await;
        if seen.as_ref().ok() == Some(&(Ended::Stalled, 1, true)) {
            return;
        }
        found = Some(seen);
    }
    panic!("the silent one must be noticed, and who answers keepalives may be idle for ever: {found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_a_silent_login_is_gone_after_ninety_seconds() {
    let clock = RealClock::new();
    let seen = silent_and_idle(Limits::default().silence).await;
    let lasted = clock.monotonic();
    println!("a login that answers nothing any more was gone after {lasted:?}; one that answers and does nothing was not");
    assert_eq!(seen, (Ended::Stalled, 1, true));
    // Ninety, whatever the default says.
    assert!(Duration::from_secs(89) < lasted && lasted < Duration::from_secs(95), "{lasted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stalls_in_a_key_exchange_is_cut_when_revoked() {
    let key = UserKey::ed25519();
    let mut server = TestServer::over(Arc::new(Counting::default()), &key, Limits::default()).await;
    let mut raw = Raw::login(server.address, &key).await;
    let _handle = raw.open("x", WRITE_CREATE).await.unwrap();
    raw.deaf.store(true, Ordering::SeqCst);
    raw.ssh.rekey_soon().await.unwrap();
    // Anything sent now makes the client begin the exchange that it will not finish.
    raw.ssh.send_keepalive(false).await.unwrap();
    server.revoked.cancel();
    assert_eq!(server.next_end().await, Ended::Revoked);
    assert!(Limits::default().goodbye < Duration::from_secs(5), "it is waited for no longer than this");
}

#[tokio::test]
async fn shutdown_ends_everybody() {
    let key = UserKey::ed25519();
    let mut server = TestServer::over(Arc::new(Counting::default()), &key, Limits::default()).await;
    let mut raw = Raw::login(server.address, &key).await;
    let _handle = raw.open("x", WRITE_CREATE).await.unwrap();
    let _silent = TcpStream::connect(server.address).await.unwrap();
    until(|| server.server.connections() == 2).await;
    soon(server.server.shutdown()).await;
    for _ in 0..2 {
        assert_eq!(server.next_end().await, Ended::Shutdown);
    }
    assert!(raw.answer().await.is_none());
}

#[tokio::test]
async fn wrong_paths_and_names_answer_like_missing_files() {
    let key = UserKey::ed25519();
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("known"), b"x").unwrap();
    let inside = root.path().join("root");
    std::fs::create_dir(&inside).unwrap();
    let server = TestServer::over(Arc::new(PlainDirectory::new(&inside)), &key, Limits::default()).await;
    let mut raw = Raw::login(server.address, &key).await;
    for bad in [&b"../known"[..], b"/../known", b"a/../../known", b"known\0", b"\xff\xfe", b"a\\b", b"con", b"x:y", &[b'a'; 5000]]
    {
        let bad = text(bad);
        for kind in [7, 11, 13, 15, 17, 19] {
            assert_eq!(raw.status(kind, &bad).await, NO_SUCH_FILE, "{kind} {bad:?}");
        }
        let open = [&bad[..], &WRITE_CREATE.to_be_bytes(), &[0; 4]].concat();
        assert_eq!(raw.status(3, &open).await, NO_SUCH_FILE);
        assert_eq!(raw.status(14, &[&bad[..], &[0; 4]].concat()).await, NO_SUCH_FILE);
        assert_eq!(raw.status(18, &[&bad[..], &text("y")].concat()).await, NO_SUCH_FILE);
        assert_eq!(raw.status(18, &[&text("y")[..], &bad].concat()).await, NO_SUCH_FILE);
        assert_eq!(raw.status(200, &[&text("posix-rename@openssh.com")[..], &bad, &text("y")].concat()).await, NO_SUCH_FILE);
    }
    assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 0, "nothing was made");
}

#[tokio::test]
async fn plain_rename_refuses_and_posix_rename_replaces() {
    let key = UserKey::ed25519();
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("a"), b"new").unwrap();
    std::fs::write(root.path().join("b"), b"old").unwrap();
    let server = TestServer::over(Arc::new(PlainDirectory::new(root.path())), &key, Limits::default()).await;
    let mut raw = Raw::login(server.address, &key).await;
    let names = [text("a"), text("b")].concat();
    assert_eq!(raw.status(18, &names).await, FAILURE);
    assert_eq!(raw.status(200, &[text("posix-rename@openssh.com"), names].concat()).await, 0);
    assert_eq!(std::fs::read(root.path().join("b")).unwrap(), b"new");
}

#[tokio::test]
async fn check_file_gives_the_digests_of_a_range() {
    let key = UserKey::ed25519();
    let root = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(root.path().join("a"), &content).unwrap();
    let server = TestServer::over(Arc::new(PlainDirectory::new(root.path())), &key, Limits::default()).await;
    let mut raw = Raw::login(server.address, &key).await;
    let handle = raw.open("a", READ).await.unwrap();
    let request = |name: &str, target: &[u8], start: u64, length: u64, block: u32| {
        [&text(name)[..], target, &text("sha256"), &start.to_be_bytes(), &length.to_be_bytes(), &block.to_be_bytes()].concat()
    };
    let digest = |parts: &[&[u8]]| {
        let digests: Vec<u8> = parts.iter().flat_map(|part| *Sha256Digest::of(part).as_bytes()).collect();
        [&text("check-file")[..], &text("sha256"), &digests].concat()
    };
    for (given, expected) in [
        (request("check-file-handle", &handle, 0, 0, 0), digest(&[&content])),
        (request("check-file", &handle, 5, 1_000_000, 0), digest(&[&content[5..1_000_005]])),
        (
            request("check-file-name", &text("a"), 2_799_000, 0, 512),
            digest(&[&content[2_799_000..2_799_512], &content[2_799_512..]]),
        ),
        (request("check-file-name", &text("a"), 0, 512, 256), digest(&[&content[..256], &content[256..512]])),
        (request("check-file-handle", &handle, 99_000_000, 0, 0), digest(&[&[]])),
    ] {
        let (kind, body) = raw.ask(200, &given).await;
        assert_eq!((kind, &body[..]), (201, &expected[..]));
    }
    assert_eq!(raw.status(200, &request("check-file-handle", &handle, 0, 0, 256)).await, FAILURE, "too many blocks");
    assert_eq!(raw.status(200, &request("check-file-name", &text("none"), 0, 0, 0)).await, NO_SUCH_FILE);
}

#[tokio::test]
async fn a_large_directory_comes_in_pages() {
    let key = UserKey::ed25519();
    let view = Counting { entries: 100_000, ..Counting::default() };
    let server = TestServer::over(Arc::new(view), &key, Limits::default()).await;
    let mut raw = Raw::login(server.address, &key).await;
    let (kind, handle) = raw.ask(11, &text("/")).await;
    assert_eq!(kind, 102);
    let mut seen = 0;
    loop {
        let (kind, body) = raw.ask(12, &handle).await;
        if kind == 101 {
            break;
        }
        assert!(body.len() < 64 * 1024);
        seen += u32::from_be_bytes(body[..4].try_into().unwrap());
    }
    assert_eq!(seen, 100_000);
}

#[tokio::test]
async fn what_is_not_understood_is_answered_or_ends_the_channel() {
    let key = UserKey::ed25519();
    let server = TestServer::over(Arc::new(Counting::default()), &key, Limits::default()).await;
    let mut raw = Raw::login(server.address, &key).await;
    assert_eq!(raw.status(3, &[0, 0, 0, 200]).await, BAD_MESSAGE);
    assert_eq!(raw.status(77, b"").await, UNSUPPORTED);
    assert_eq!(raw.status(104, &[255; 8]).await, UNSUPPORTED, "answers are not taken from clients");
    assert_eq!(raw.status(200, &text("copy-data")).await, UNSUPPORTED);
    assert_eq!(raw.status(5, &[&text("nonsense")[..], &[0; 12]].concat()).await, FAILURE);
    raw.stream.write_all(&[0, 0, 0, 1, 3]).await.unwrap();
    assert!(raw.answer().await.is_none(), "a request without an id has no answer");
}

#[tokio::test]
async fn copying_a_file_onto_its_own_end_ends() {
    let key = UserKey::ed25519();
    let root = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(root.path().join("a"), &content).unwrap();
    let server = TestServer::over(Arc::new(PlainDirectory::new(root.path())), &key, Limits::default()).await;
    let mut raw = Raw::login(server.address, &key).await;
    let (from, to) = (raw.open("a", READ).await.unwrap(), raw.open("a", WRITE_CREATE).await.unwrap());
    let copy = |from: &[u8], to: &[u8]| {
        [&text("copy-data")[..], from, &[0; 16], to, &u64::try_from(content.len()).unwrap().to_be_bytes()].concat()
    };
    assert_eq!(raw.status(200, &copy(&from, &to)).await, 0);
    assert!(std::fs::read(root.path().join("a")).unwrap() == [&content[..], &content].concat());
    assert_eq!(raw.status(200, &copy(&to, &to)).await, FAILURE);
}
