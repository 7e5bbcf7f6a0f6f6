//! SFTP and SSH, from either side.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, LazyLock},
};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use towpath_transfer::{RemotePath, clock::ManualClock, public_key::PublicKeyLine};
use towpath_transport::{
    client,
    server::{self, AnyPath, Authenticator, HostKey, Limits, PathForm, Session, SshServer, SshServerConfig, VirtualFs},
};

use crate::{block::block_on, choice, texts, view::FlatView};

const VERSION: u8 = 2;
/// Answers of the protocol (draft-ietf-secsh-filexfer-02 section 3).
const ANSWERS: [u8; 6] = [101, 102, 103, 104, 105, 201];

fn limits() -> Limits {
    Limits {
        frame_bytes: 2048,
        queue_bytes: 8192,
        queue_pause_bytes: 8192,
        open_handles: 4,
        page_entries: 2,
        ..Limits::default()
    }
}

fn channel<P: PathForm>(data: &[u8])
where
    FlatView: VirtualFs<P>,
{
    let (cut, data) = choice(data);
    let whole = block_on(server::fuzzing::answers::<P>(FlatView::new(), limits(), data, usize::MAX));
    let pieces = block_on(server::fuzzing::answers::<P>(FlatView::new(), limits(), data, cut.max(1)));
    let requests = requests(data);
    // What came in one piece with a frame that is too long is not looked at; else where it is cut does not count.
    // The first answer names the extensions in any order.
    assert!(pieces.iter().zip(&whole).skip(1).all(|(one, other)| one == other));
    assert!(whole.len() <= pieces.len());
    if whole.len() < pieces.len() {
        assert!(has_overrun(data), "{} of {}", whole.len(), pieces.len());
    }
    for (at, answer) in whole.iter().enumerate() {
        let (length, body) = answer.split_first_chunk::<4>().unwrap();
        assert_eq!(usize::try_from(u32::from_be_bytes(*length)).unwrap(), body.len());
        let (kind, rest) = body.split_first().unwrap();
        if at == 0 {
            assert_eq!(*kind, VERSION);
        } else {
            assert!(ANSWERS.contains(kind), "{kind}");
            // The answer is to the request in its place.
            let id = requests.get(at).and_then(|request| request.get(1..5));
            assert_eq!(rest.get(..4), id);
        }
    }
    // Our own client understands what our server says.
    let said: Vec<u8> = whole.iter().flatten().copied().collect();
    for meaning in client::fuzzing::meanings(&said, usize::MAX).iter().skip(1) {
        assert!(meaning.contains("Ok(("), "{meaning}");
    }
}

/// The frames of a stream, without their length fields.
fn requests(mut data: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let Some((frame, rest)) = usize::try_from(u32::from_be_bytes(*length)).ok().and_then(|n| rest.split_at_checked(n)) else {
            break;
        };
        all.push(frame);
        data = rest;
    }
    all
}

/// Whether a frame of the stream is too long, or all of it is too much at once.
fn has_overrun(mut data: &[u8]) -> bool {
    if data.len() > limits().queue_bytes {
        return true;
    }
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > limits().frame_bytes {
            return true;
        }
        data = rest.get(length..).unwrap_or_default();
    }
    false
}

pub(crate) fn server(data: &[u8]) {
    channel::<RemotePath>(data);
}

pub(crate) fn general(data: &[u8]) {
    channel::<AnyPath>(data);
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 1).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &[kind], body].concat()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()[..], bytes].concat()
}

fn extended(name: &str, rest: &[u8]) -> Vec<u8> {
    frame(200, &[&[0, 0, 0, 9][..], &text(name.as_bytes()), rest].concat())
}

fn request(kind: u8, rest: &[&[u8]]) -> Vec<u8> {
    frame(kind, &[&[0, 0, 0, 7][..], &rest.concat()].concat())
}

pub(crate) fn server_seeds() -> Vec<Vec<u8>> {
    let init = frame(1, &3_u32.to_be_bytes());
    let (a, b, first) = (text(b"/a"), text(b"b"), text(b"0"));
    let (zero, long) = ([0; 4], 5_u64.to_be_bytes());
    let flags = |flags: u32| flags.to_be_bytes();
    // Size, owner, mode and times, and an extended attribute.
    let attributes =
        [&0x8000_000f_u32.to_be_bytes()[..], &[0; 8], &[0; 8], &[0, 0, 1, 0xa4], &[0; 8], &[0, 0, 0, 1], &a, &b].concat();
    let open = request(3, &[&a, &flags(3), &zero]);
    let check = [&text(b"sha256")[..], &[0; 16], &[0, 0, 1, 0]].concat();
    let all = [
        vec![open.clone(), request(5, &[&first, &[0; 8], &[0, 1, 0, 0]]), request(4, &[&first])],
        vec![request(3, &[&b, &flags(2 | 8 | 16), &attributes]), request(6, &[&first, &long, &text(b"data")])],
        vec![open.clone(), request(8, &[&first]), request(10, &[&first, &attributes])],
        vec![request(11, &[&text(b"/")]), request(12, &[&first]), request(12, &[&first])],
        vec![request(7, &[&a]), request(17, &[&a]), request(9, &[&a, &attributes]), request(16, &[&text(b"a/./..//a")])],
        vec![request(14, &[&b, &zero]), request(15, &[&b]), request(13, &[&a]), request(18, &[&a, &b])],
        vec![request(19, &[&a]), request(20, &[&a, &b])],
        vec![
            extended("posix-rename@openssh.com", &[&a[..], &b].concat()),
            extended("hardlink@openssh.com", &[&a[..], &b].concat()),
        ],
        vec![extended("statvfs@openssh.com", &a), extended("limits@openssh.com", &[])],
        vec![extended("lsetstat@openssh.com", &[&a[..], &attributes].concat())],
        vec![open.clone(), extended("fsync@openssh.com", &first), extended("fstatvfs@openssh.com", &first)],
        vec![
            extended("check-file-name", &[&a[..], &check].concat()),
            open.clone(),
            extended("check-file-handle", &[&first[..], &check].concat()),
        ],
        vec![
            open,
            request(3, &[&b, &flags(2 | 8), &zero]),
            extended("copy-data", &[&first[..], &[0; 8], &[0; 8], &text(b"1"), &[0; 8]].concat()),
        ],
    ];
    all.iter().map(|requests| [vec![3], init.clone(), requests.concat()].concat()).collect()
}

pub(crate) fn client(data: &[u8]) {
    let (cut, data) = choice(data);
    let whole = client::fuzzing::meanings(data, usize::MAX);
    assert_eq!(client::fuzzing::meanings(data, cut.max(1)), whole, "where it is cut does not count");
    assert!(whole.len() <= data.len() / 4 + 1);
}

pub(crate) fn client_seeds() -> Vec<Vec<u8>> {
    let id = &[0, 0, 0, 7][..];
    let attributes = [&0x8000_000f_u32.to_be_bytes()[..], &[0; 8], &[0; 8], &[0, 0, 0x81, 0xa4], &[0; 8], &[0; 4]].concat();
    let version: Vec<u8> = [("posix-rename@openssh.com", "1"), ("check-file", "sha256")]
        .iter()
        .flat_map(|(name, value)| [text(name.as_bytes()), text(value.as_bytes())].concat())
        .collect();
    let name = [&text(b"items.csv")[..], &text(b"-rw-r--r-- items.csv"), &attributes].concat();
    let all = [
        frame(2, &[&[0, 0, 0, 3][..], &version].concat()),
        frame(101, &[id, &[0, 0, 0, 4], &text(b"No space left"), &text(b"en")].concat()),
        frame(102, &[id, &text(&[0, 0xff])].concat()),
        frame(103, &[id, &text(b"data")].concat()),
        frame(104, &[id, &[0, 0, 0, 2], &name, &name].concat()),
        frame(105, &[id, &attributes].concat()),
        frame(201, &[id, &text(b"check-file"), &text(b"sha256"), &[7; 32]].concat()),
        frame(201, &[id, &[0; 32]].concat()),
    ];
    all.iter().map(|one| [&[2], &one[..], &one[..]].concat()).collect()
}

#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Authenticator for Nobody {
    async fn authenticate(&self, _: &str, _: &PublicKeyLine, _: SocketAddr) -> Option<Session> {
        None
    }
}

static SERVER: LazyLock<SshServer> = LazyLock::new(|| {
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let host_keys = vec![HostKey::ed25519_from_seed(&[7; 32])];
    SshServer::new(SshServerConfig { host_keys, limits: Limits::default(), clock }, Arc::new(Nobody))
        .expect("a server can be made")
});

/// Everything that a stranger can say before a key exchange, after which it ends.
pub(crate) fn ssh(data: &[u8]) {
    block_on(async {
        let (mut peer, ours) = duplex(64 * 1024);
        peer.write_all(data).await.unwrap();
        peer.shutdown().await.unwrap();
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
        let _ended = SERVER.serve_stream(ours, address).await;
        let mut said = Vec::new();
        peer.read_to_end(&mut said).await.unwrap();
        assert!(said.starts_with(b"SSH-2.0-Towpath\r\n"), "{said:?}");
    });
    assert_eq!(SERVER.connections(), 0);
}

pub(crate) fn ssh_seeds() -> Vec<Vec<u8>> {
    let lists: [&str; 10] = [
        "curve25519-sha256,kex-strict-c-v00@openssh.com",
        "ssh-ed25519",
        "aes256-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "hmac-sha2-256",
        "hmac-sha2-256",
        "none",
        "none",
        "",
        "",
    ];
    let mut payload = vec![20];
    payload.extend([7; 16]);
    for list in lists {
        payload.extend(text(list.as_bytes()));
    }
    payload.extend([0; 5]);
    let packet = |payload: &[u8]| {
        let padding = 16 - (payload.len() + 5) % 8;
        let length = u32::try_from(payload.len() + padding + 1).unwrap_or(u32::MAX);
        [&length.to_be_bytes()[..], &[u8::try_from(padding).unwrap_or(8)], payload, &vec![0; padding]].concat()
    };
    let hello = b"SSH-2.0-OpenSSH_9.2\r\n";
    let exchange = packet(&[&[30][..], &text(&[9; 32])].concat());
    let mut all = texts(&["SSH-2.0-x\r\n", "SSH-1.5-x\n", "a banner\r\nSSH-2.0-x\r\n"]);
    all.push([&hello[..], &packet(&payload)].concat());
    all.push([&hello[..], &packet(&payload), &exchange].concat());
    all.push([&hello[..], &packet(&payload), &packet(&[2, 0, 0, 0, 0]), &exchange, &packet(&[21])].concat());
    all.push([&hello[..], &packet(&[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0])].concat());
    all
}
