//! Servers that stall, lie or speak something else, and servers that offer less than OpenSSH.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Buf, BufMut, BytesMut};
use jiff::Timestamp;
use russh::{Channel, ChannelId, server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towpath_transfer::{RemotePath, clock::ManualClock};

use super::{ed25519, line, login, real_clock};
use crate::{
    client::{ANSWER_TIMEOUT, KEEPALIVE_INTERVAL, LOGIN_TIMEOUT, MAX_FRAME_BYTES, SftpStore},
    store::{BytesSource, NoProgress, Put, RemoteStore, StoreErrorKind, StoreResult, read_remote},
};

/// What the server answers to a frame's kind and body.
type Script = Box<dyn FnMut(u8, &[u8]) -> Vec<u8> + Send>;

struct Scripted {
    input: BytesMut,
    script: Script,
}

impl server::Handler for Scripted {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: server::VerifiedPublicKey<'_>) -> Result<server::Auth, russh::Error> {
        Ok(server::Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<server::Msg>,
        reply: server::ChannelOpenHandle,
        _: &mut server::Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], session: &mut server::Session) -> Result<(), russh::Error> {
        self.input.extend_from_slice(data);
        while let Some(len) = self.input.first_chunk::<4>().map(|head| u32::from_be_bytes(*head) as usize) {
            if self.input.len() < len + 4 {
                break;
            }
            self.input.advance(4);
            let body = self.input.split_to(len);
            let answer = (self.script)(body[0], &body[1..]);
            if !answer.is_empty() {
                session.data(channel, answer)?;
            }
        }
        Ok(())
    }
}

fn packet(kind: u8, id: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32(u32::try_from(1 + id.len() + body.len()).unwrap());
    out.put_u8(kind);
    out.put_slice(id);
    out.put_slice(body);
    out
}

fn status(id: &[u8], code: u32) -> Vec<u8> {
    packet(101, id, &code.to_be_bytes())
}

async fn connect(script: Script, clock: Option<&ManualClock>) -> StoreResult<SftpStore> {
    connect_asking(script, clock, KEEPALIVE_INTERVAL).await
}

async fn connect_asking(script: Script, clock: Option<&ManualClock>, interval: Duration) -> StoreResult<SftpStore> {
    let config = server::Config { keys: vec![ed25519(3)], auth_rejection_time: Duration::ZERO, ..Default::default() };
    let (near, far) = tokio::io::duplex(64 * 1024);
    let handler = Scripted { input: BytesMut::new(), script };
    tokio::spawn(async move { server::run_stream(Arc::new(config), far, handler).await.unwrap().await });
    let clock: Arc<dyn towpath_transfer::Clock> = match clock {
        Some(clock) => Arc::new(clock.clone()),
        None => real_clock(),
    };
    let login = login("erp", ed25519(1), vec![line(ed25519(3).public_key())]);
    SftpStore::connect_asking(near, login, clock, interval).await
}

const VERSION: &[u8] = &[0, 0, 0, 5, 2, 0, 0, 0, 3];

/// Version, and then what `then` says.
fn after_version(mut then: impl FnMut(u8, &[u8]) -> Vec<u8> + Send + 'static) -> Script {
    Box::new(move |kind, body| if kind == 1 { VERSION.to_vec() } else { then(kind, body) })
}

fn path() -> RemotePath {
    "/f".parse().unwrap()
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up_and_so_is_one_that_stops_answering() {
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    let (near, _far) = tokio::io::duplex(1024);
    let (waiter, login) = (clock.clone(), login("erp", ed25519(1), vec![]));
    let connecting = tokio::spawn(async move { SftpStore::connect(near, login, Arc::new(waiter)).await });
    while clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    clock.advance(LOGIN_TIMEOUT);
    assert_eq!(connecting.await.unwrap().unwrap_err().kind(), StoreErrorKind::TimedOut);

    let asked = Arc::new(tokio::sync::Notify::new());
    let seen = Arc::clone(&asked);
    let script = after_version(move |_, _| {
        seen.notify_one();
        Vec::new()
    });
    let store = connect(script, Some(&clock)).await.unwrap();
    let stat = tokio::spawn({
        let store = store.clone();
        async move { store.stat(&path()).await }
    });
    asked.notified().await;
    while !stat.is_finished() {
        clock.advance(ANSWER_TIMEOUT / 8);
        tokio::task::yield_now().await;
    }
    assert_eq!(stat.await.unwrap().unwrap_err().kind(), StoreErrorKind::TimedOut);
    assert!(store.is_closed());
}

#[tokio::test]
async fn an_idle_connection_is_not_given_up() {
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    let store = connect(after_version(|_, body| status(&body[..4], 2)), Some(&clock)).await.unwrap();
    for _ in 0..50 {
        clock.advance(ANSWER_TIMEOUT / 8);
        tokio::task::yield_now().await;
    }
    assert_eq!(store.stat(&path()).await.unwrap_err().kind(), StoreErrorKind::NotFound);
}

#[tokio::test]
async fn a_server_that_answers_keepalives_may_be_idle_and_may_take_its_time_over_an_answer() {
    let (clock, interval) = (ManualClock::new(Timestamp::UNIX_EPOCH), Duration::from_millis(200));
    let store = connect_asking(after_version(|_, _| Vec::new()), Some(&clock), interval).await.unwrap();
    // The SSH library asks by the real time, and gives up after three intervals.
    real_clock().sleep(interval * 10).await;
    assert!(!store.is_closed());
    let stat = tokio::spawn(async move { store.stat(&path()).await });
    for _ in 0..10 {
        real_clock().sleep(interval).await;
        clock.advance(Duration::from_secs(10));
    }
    real_clock().sleep(interval).await;
    assert!(!stat.is_finished(), "after 100 s, with {} s allowed", ANSWER_TIMEOUT.as_secs());
    while !stat.is_finished() {
        clock.advance(ANSWER_TIMEOUT / 8);
        tokio::task::yield_now().await;
    }
    assert_eq!(stat.await.unwrap().unwrap_err().kind(), StoreErrorKind::TimedOut);
}

#[tokio::test]
async fn answers_that_are_not_of_the_protocol_end_the_connection() {
    let oversized = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_be_bytes().to_vec();
    let answers: [Vec<u8>; 4] =
        [oversized, packet(101, &[9, 9, 9, 9], &[0; 4]), packet(77, &[0; 4], &[]), packet(104, &[0; 4], &[0xff; 8])];
    for answer in answers {
        let store = connect(after_version(move |_, _| answer.clone()), None).await.unwrap();
        let error = store.stat(&path()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Protocol, "{error}");
        assert!(store.is_closed());
    }
}

#[tokio::test]
async fn an_answer_of_the_wrong_kind_is_an_error_and_not_a_success() {
    let store = connect(after_version(|_, body| packet(102, &body[..4], &[0, 0, 0, 1, 7])), None).await.unwrap();
    assert_eq!(store.stat(&path()).await.unwrap_err().kind(), StoreErrorKind::Protocol);
    let store = connect(after_version(|_, body| status(&body[..4], 0)), None).await.unwrap();
    assert_eq!(store.open(&path(), 0).await.err().unwrap().kind(), StoreErrorKind::Protocol);
}

#[tokio::test]
async fn something_else_than_sftp_or_ssh_is_told_apart() {
    let error = connect(Box::new(|_, _| vec![0, 0, 0, 5, 2, 0, 0, 0, 2]), None).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Protocol);
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let web = tokio::spawn(async move {
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        drop(far.read(&mut [0; 1024]).await);
    });
    let error = SftpStore::connect(near, login("erp", ed25519(1), vec![]), real_clock()).await.unwrap_err();
    assert!(matches!(error.kind(), StoreErrorKind::Protocol | StoreErrorKind::ConnectionLost), "{error:?}");
    web.await.unwrap();
}

/// A server of the bare version 3: files in memory, no extensions, no size in its attributes unless told, short reads.
fn bare_server(files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>) -> Script {
    let mut open = String::new();
    after_version(move |kind, body| {
        let (id, mut rest) = (&body[..4], &body[4..]);
        let mut string = || {
            let len = rest.get_u32() as usize;
            let text = rest[..len].to_vec();
            rest.advance(len);
            String::from_utf8_lossy(&text).into_owned()
        };
        let mut files = files.lock().unwrap();
        match kind {
            3 => {
                let name = string();
                let flags = rest.get_u32();
                if flags & 0x10 != 0 {
                    files.insert(name.clone(), Vec::new());
                }
                if flags & 8 == 0 && !files.contains_key(&name) {
                    return status(id, 2);
                }
                files.entry(name.clone()).or_default();
                open = name;
                packet(102, id, &[0, 0, 0, 3, 0xff, 0x00, 0xfe])
            }
            4 => status(id, 0),
            5 => {
                string();
                let (offset, len) = (rest.get_u64() as usize, rest.get_u32() as usize);
                let file = &files[&open];
                if offset >= file.len() {
                    return status(id, 1);
                }
                let part = &file[offset..file.len().min(offset + len.min(1000))];
                packet(103, id, &[&u32::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat())
            }
            6 => {
                string();
                let (offset, len) = (rest.get_u64() as usize, rest.get_u32() as usize);
                let file = files.get_mut(&open).unwrap();
                file.resize(file.len().max(offset + len), 0);
                file[offset..offset + len].copy_from_slice(&rest[..len]);
                status(id, 0)
            }
            7 | 8 | 17 => {
                let name = if kind == 8 { open.clone() } else { string() };
                match files.get(&name) {
                    Some(file) => packet(105, id, &[&1u32.to_be_bytes()[..], &(file.len() as u64).to_be_bytes()].concat()),
                    None => status(id, 2),
                }
            }
            13 => status(id, if files.remove(&string()).is_some() { 0 } else { 2 }),
            18 => {
                let (from, to) = (string(), string());
                if files.contains_key(&to) {
                    return status(id, 4);
                }
                let Some(file) = files.remove(&from) else { return status(id, 2) };
                files.insert(to, file);
                status(id, 0)
            }
            _ => status(id, 8),
        }
    })
}

#[tokio::test]
async fn a_bare_server_with_binary_handles_and_short_reads_is_enough() {
    let files = Arc::new(Mutex::new(BTreeMap::new()));
    let store = connect(bare_server(Arc::clone(&files)), None).await.unwrap();
    let part: RemotePath = "/f.part".parse().unwrap();
    let bytes = crate::store::conformance::pattern(100_000, 1);
    store.put_new(&part, BytesSource::new(bytes[..50_000].to_vec()), &NoProgress).await.unwrap();
    let put = store.put_new(&part, BytesSource::new(bytes.clone()), &NoProgress).await.unwrap();
    assert_eq!(put, Put { size: 100_000, resumed_from: 50_000 });
    assert!(read_remote(&store, &part, 100_000).await.unwrap() == bytes);
    files.lock().unwrap().insert("/f".to_owned(), b"old".to_vec());
    store.publish(&part, &path()).await.unwrap();
    store.publish(&part, &path()).await.unwrap();
    assert_eq!(files.lock().unwrap().keys().collect::<Vec<_>>(), ["/f"]);
    assert!(files.lock().unwrap()["/f"] == bytes);
}

#[tokio::test]
async fn a_source_that_gets_shorter_is_reported_as_ours() {
    #[derive(Debug)]
    struct Shrinking;
    impl crate::store::Source for Shrinking {
        fn open(&self) -> std::io::Result<Box<dyn crate::files::ReadFile>> {
            let files = crate::files::MemoryFiles::new();
            let store: &dyn crate::files::FileStore = &files;
            crate::files::write_whole(store, std::path::Path::new("/f"), &[0; 10])?;
            Ok(Box::new(Lying(store.open(std::path::Path::new("/f"))?)))
        }
    }
    struct Lying(Box<dyn crate::files::ReadFile>);
    impl std::io::Read for Lying {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buf)
        }
    }
    impl std::io::Seek for Lying {
        fn seek(&mut self, pos: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(pos)
        }
    }
    impl crate::files::ReadFile for Lying {
        fn len(&self) -> std::io::Result<u64> {
            Ok(1000)
        }
    }
    let store = connect(bare_server(Arc::default()), None).await.unwrap();
    let error = store.put_new(&path(), Arc::new(Shrinking), &NoProgress).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Source);
    assert!(!store.is_closed(), "the connection is not to blame");
}

#[tokio::test]
async fn dropping_the_store_ends_the_session() {
    let gone = Arc::new(tokio::sync::Notify::new());
    struct Tell(Arc<tokio::sync::Notify>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let tell = Tell(Arc::clone(&gone));
    let script = after_version(move |_, body| {
        let _held = &tell;
        status(&body[..4], 2)
    });
    let store = connect(script, None).await.unwrap();
    store.stat(&path()).await.unwrap_err();
    drop(store);
    gone.notified().await;
}
