//! A client that speaks SSH byte by byte: one key exchange and one cipher, and no opinion of what it is made to send.

use std::net::SocketAddr;

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral},
    digest::{SHA256, digest},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::support::{soon, text};

const VERSION: &str = "SSH-2.0-wire";
const DISCONNECT: u8 = 1;
const SERVICE_REQUEST: u8 = 5;
const SERVICE_ACCEPT: u8 = 6;
const KEXINIT: u8 = 20;
const NEWKEYS: u8 = 21;
const ECDH_INIT: u8 = 30;
const ECDH_REPLY: u8 = 31;
const USERAUTH_REQUEST: u8 = 50;
const TAG: usize = 16;

/// One direction's cipher, aes256-gcm@openssh.com (RFC 5647).
struct Seal {
    key: LessSafeKey,
    nonce: [u8; 12],
}

impl Seal {
    /// The nonce of the next packet.
    fn next(&mut self) -> Nonce {
        let nonce = self.nonce;
        let count = u64::from_be_bytes(nonce[4..].try_into().unwrap());
        self.nonce[4..].copy_from_slice(&count.wrapping_add(1).to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

pub(crate) struct Wire {
    stream: TcpStream,
    theirs: String,
    sending: Option<Seal>,
    receiving: Option<Seal>,
    /// The hash of the first key exchange; empty before it.
    pub(crate) session: Vec<u8>,
    /// The hash of the last one.
    pub(crate) exchange: Vec<u8>,
}

impl Wire {
    /// A connection whose keys are exchanged and that may log in.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{VERSION}\r\n").as_bytes()).await.unwrap();
        let mut theirs = Vec::new();
        while !theirs.ends_with(b"\r\n") {
            theirs.push(soon(stream.read_u8()).await.unwrap());
        }
        let theirs = String::from_utf8(theirs).unwrap().trim_end().to_owned();
        let (session, exchange) = (Vec::new(), Vec::new());
        let mut wire = Self { stream, theirs, sending: None, receiving: None, session, exchange };
        wire.exchange_keys().await;
        let accepted = wire.ask(&[&[SERVICE_REQUEST][..], &text("ssh-userauth")].concat()).await.unwrap();
        assert_eq!(accepted[0], SERVICE_ACCEPT);
        wire
    }

    pub(crate) async fn exchange_keys(&mut self) {
        let lists = ["curve25519-sha256", "ssh-ed25519", "aes256-gcm@openssh.com", "aes256-gcm@openssh.com"];
        let rest = ["hmac-sha2-256", "hmac-sha2-256", "none", "none", "", ""];
        let lists: Vec<u8> = lists.iter().chain(&rest).flat_map(text).collect();
        let ours = [&[KEXINIT][..], &[9; 16], &lists, &[0; 5]].concat();
        self.send(&ours).await;
        let theirs = self.receive().await.unwrap();
        assert_eq!(theirs[0], KEXINIT);
        #[expect(clippy::disallowed_types, reason = "the library takes no other randomness")]
        let private = EphemeralPrivateKey::generate(&X25519, &ring::rand::SystemRandom::new()).unwrap();
        let public = private.compute_public_key().unwrap();
        let reply = self.ask(&[&[ECDH_INIT][..], &text(&public)].concat()).await.unwrap();
        assert_eq!(reply[0], ECDH_REPLY);
        let (host_key, rest) = string(&reply[1..]);
        let (point, _) = string(rest);
        let shared = agree_ephemeral(private, &UnparsedPublicKey::new(&X25519, point), mpint).unwrap();
        let names = [text(VERSION), text(&self.theirs), text(&ours), text(&theirs)].concat();
        let keys = [text(host_key), text(&public), text(point)].concat();
        self.exchange = hash(&[&names, &keys, &shared]);
        if self.session.is_empty() {
            self.session = self.exchange.clone();
        }
        let derive = |letter| hash(&[&shared, &self.exchange, &[letter], &self.session]);
        let seal = |nonce: u8, key: u8| Seal {
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &derive(key)).unwrap()),
            nonce: derive(nonce)[..12].try_into().unwrap(),
        };
        let (sending, receiving) = (seal(b'A', b'C'), seal(b'B', b'D'));
        assert_eq!(self.ask(&[NEWKEYS]).await.unwrap(), [NEWKEYS]);
        (self.sending, self.receiving) = (Some(sending), Some(receiving));
    }

    /// Sends a packet.
    pub(crate) async fn send(&mut self, payload: &[u8]) {
        let (block, clear) = if self.sending.is_some() { (16, 0) } else { (8, 4) };
        let mut padding = block - (clear + 1 + payload.len()) % block;
        if padding < 4 {
            padding += block;
        }
        let length = u32::try_from(1 + payload.len() + padding).unwrap().to_be_bytes();
        let mut packet = [&[u8::try_from(padding).unwrap()][..], payload, &vec![0; padding]].concat();
        if let Some(seal) = &mut self.sending {
            let nonce = seal.next();
            seal.key.seal_in_place_append_tag(nonce, Aad::from(length), &mut packet).unwrap();
        }
        // Where the other side has gone the next read says so.
        let _ = self.stream.write_all(&[&length[..], &packet].concat()).await;
    }

    /// The next packet; nothing where the other side ends the connection.
    pub(crate) async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        soon(self.stream.read_exact(&mut length)).await.ok()?;
        let tag = if self.receiving.is_some() { TAG } else { 0 };
        let mut packet = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() + tag];
        soon(self.stream.read_exact(&mut packet)).await.ok()?;
        if let Some(seal) = &mut self.receiving {
            let nonce = seal.next();
            seal.key.open_in_place(nonce, Aad::from(length), &mut packet).unwrap();
        }
        let end = packet.len() - tag - usize::from(packet[0]);
        let payload = packet[1..end].to_vec();
        (payload[0] != DISCONNECT).then_some(payload)
    }

    pub(crate) async fn ask(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        self.send(payload).await;
        self.receive().await
    }

    /// The kind of the answer to a request for authentication.
    pub(crate) async fn login(&mut self, request: &[u8]) -> Option<u8> {
        self.ask(request).await.map(|answer| answer[0])
    }
}

/// An offer of a key (RFC 4252 section 7), without a signature.
pub(crate) fn offered(user: &str, service: &str, algorithm: &str, blob: &[u8]) -> Vec<u8> {
    request(user, service, 0, algorithm, blob)
}

/// The same with the signature that `sign` makes over what is to be signed in a session.
pub(crate) fn signed(session: &[u8], user: &str, algorithm: &str, blob: &[u8], sign: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let unsigned = request(user, "ssh-connection", 1, algorithm, blob);
    let signature = [text(algorithm), text(sign(&[text(session), unsigned.clone()].concat()))].concat();
    [unsigned, text(signature)].concat()
}

fn request(user: &str, service: &str, signed: u8, algorithm: &str, blob: &[u8]) -> Vec<u8> {
    let head = [text(user), text(service), text("publickey")].concat();
    [&[USERAUTH_REQUEST][..], &head, &[signed], &text(algorithm), &text(blob)].concat()
}

/// A string (RFC 4251 section 5) and what follows it.
pub(crate) fn string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = u32::from_be_bytes(bytes[..4].try_into().unwrap());
    bytes[4..].split_at(usize::try_from(length).unwrap())
}

/// A positive number (RFC 4251 section 5).
pub(crate) fn mpint(bytes: &[u8]) -> Vec<u8> {
    let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    let sign = if bytes.first().is_some_and(|first| *first >= 0x80) { &[0][..] } else { &[] };
    text([sign, bytes].concat())
}

fn hash(parts: &[&[u8]]) -> Vec<u8> {
    digest(&SHA256, &parts.concat()).as_ref().to_vec()
}
