//! SFTP version 3 packets as a client needs them.
//!
//! Not the library's types, because a handle and a file name are bytes (section 3 of the draft) and those types carry text, and because content
//! passes here without being copied.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::MAX_FRAME_BYTES;

pub(super) use super::answer::{Attributes, Reply, Status};

const INIT: u8 = 1;
const VERSION: u8 = 2;
const OPEN: u8 = 3;
pub(super) const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
pub(super) const LSTAT: u8 = 7;
pub(super) const FSTAT: u8 = 8;
pub(super) const OPENDIR: u8 = 11;
pub(super) const READDIR: u8 = 12;
pub(super) const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
pub(super) const RMDIR: u8 = 15;
pub(super) const STAT: u8 = 17;
const RENAME: u8 = 18;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED: u8 = 200;
const EXTENDED_REPLY: u8 = 201;

pub(super) const FLAG_READ: u32 = 0x01;
pub(super) const FLAG_WRITE: u32 = 0x02;
pub(super) const FLAG_CREATE: u32 = 0x08;
pub(super) const FLAG_TRUNCATE: u32 = 0x10;

const ATTR_SIZE: u32 = 0x01;
const ATTR_OWNER: u32 = 0x02;
const ATTR_PERMISSIONS: u32 = 0x04;
const ATTR_TIMES: u32 = 0x08;
const ATTR_EXTENDED: u32 = 0x8000_0000;

/// The longest handle (section 6.3).
const MAX_HANDLE_BYTES: usize = 256;
/// Names in one answer; a frame cannot hold many more.
const MAX_NAMES: u32 = 20_000;
/// Extensions that a server may announce.
const MAX_EXTENSIONS: usize = 128;

/// A server's name for an open file or folder: bytes without a meaning to us.
pub(super) type Handle = Bytes;

fn frame(kind: u8, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.put_u32(0);
    out.put_u8(kind);
    fill(&mut out);
    seal(out)
}

fn seal(mut out: BytesMut) -> Bytes {
    let len = u32::try_from(out.len().saturating_sub(4)).unwrap_or(u32::MAX);
    if let Some(head) = out.first_chunk_mut::<4>() {
        *head = len.to_be_bytes();
    }
    out.freeze()
}

fn put_string(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

pub(super) fn init() -> Bytes {
    frame(INIT, |out| out.put_u32(3))
}

pub(super) fn open(id: u32, path: &str, flags: u32) -> Bytes {
    frame(OPEN, |out| {
        out.put_u32(id);
        put_string(out, path.as_bytes());
        out.put_u32(flags);
        out.put_u32(0);
    })
}

pub(super) fn path_request(kind: u8, id: u32, path: &str) -> Bytes {
    frame(kind, |out| {
        out.put_u32(id);
        put_string(out, path.as_bytes());
    })
}

pub(super) fn handle_request(kind: u8, id: u32, handle: &Handle) -> Bytes {
    frame(kind, |out| {
        out.put_u32(id);
        put_string(out, handle);
    })
}

pub(super) fn read(id: u32, handle: &Handle, offset: u64, len: u32) -> Bytes {
    frame(READ, |out| {
        out.put_u32(id);
        put_string(out, handle);
        out.put_u64(offset);
        out.put_u32(len);
    })
}

pub(super) fn write(id: u32, handle: &Handle, offset: u64, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len().saturating_add(handle.len()).saturating_add(32));
    out.put_u32(0);
    out.put_u8(WRITE);
    out.put_u32(id);
    put_string(&mut out, handle);
    out.put_u64(offset);
    put_string(&mut out, data);
    seal(out)
}

pub(super) fn mkdir(id: u32, path: &str) -> Bytes {
    frame(MKDIR, |out| {
        out.put_u32(id);
        put_string(out, path.as_bytes());
        out.put_u32(0);
    })
}

pub(super) fn rename(id: u32, from: &str, to: &str) -> Bytes {
    frame(RENAME, |out| {
        out.put_u32(id);
        put_string(out, from.as_bytes());
        put_string(out, to.as_bytes());
    })
}

fn extended(id: u32, name: &str, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    frame(EXTENDED, |out| {
        out.put_u32(id);
        put_string(out, name.as_bytes());
        fill(out);
    })
}

pub(super) fn posix_rename(id: u32, from: &str, to: &str) -> Bytes {
    extended(id, "posix-rename@openssh.com", |out| {
        put_string(out, from.as_bytes());
        put_string(out, to.as_bytes());
    })
}

pub(super) fn fsync(id: u32, handle: &Handle) -> Bytes {
    extended(id, "fsync@openssh.com", |out| put_string(out, handle))
}

pub(super) fn limits(id: u32) -> Bytes {
    extended(id, "limits@openssh.com", |_| {})
}

/// One SHA-256 over `len` bytes from `start` (draft-ietf-secsh-filexfer-extensions-00 section 3).
pub(super) fn check_file(id: u32, handle: &Handle, start: u64, len: u64) -> Bytes {
    extended(id, "check-file-handle", |out| {
        put_string(out, handle);
        put_string(out, b"sha256");
        out.put_u64(start);
        out.put_u64(len);
        out.put_u32(0);
    })
}

/// What a server says about itself in VERSION and `limits@openssh.com`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extensions {
    pub(super) posix_rename: bool,
    pub(super) fsync: bool,
    pub(super) check_file: bool,
    pub(super) limits: bool,
}

/// A packet that is not of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent {0}")]
pub(super) struct Malformed(&'static str);

impl Malformed {
    pub(super) const UNASKED: Self = Self("an answer to nothing");
}

const SHORT: Malformed = Malformed("a packet that ends too early");

/// Cuts what arrives into frames.
#[derive(Debug, Default)]
pub(super) struct Frames(BytesMut);

impl Frames {
    pub(super) fn push(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
    }

    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Malformed> {
        let Some(head) = self.0.first_chunk::<4>() else { return Ok(None) };
        let len = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if len > MAX_FRAME_BYTES {
            return Err(Malformed("a packet beyond the limit"));
        }
        if self.0.len() - 4 < len {
            return Ok(None);
        }
        self.0.advance(4);
        Ok(Some(self.0.split_to(len).freeze()))
    }
}

fn string(body: &mut Bytes) -> Result<Bytes, Malformed> {
    let len = usize::try_from(body.try_get_u32().map_err(|_| SHORT)?).map_err(|_| SHORT)?;
    if len > body.len() { Err(SHORT) } else { Ok(body.split_to(len)) }
}

fn number(body: &mut Bytes) -> Result<u32, Malformed> {
    body.try_get_u32().map_err(|_| SHORT)
}

pub(super) fn version(mut body: Bytes) -> Result<Extensions, Malformed> {
    if body.try_get_u8() != Ok(VERSION) || number(&mut body)? < 3 {
        return Err(Malformed("something else than SFTP version 3"));
    }
    let mut found = Extensions::default();
    for _ in 0..MAX_EXTENSIONS {
        if body.is_empty() {
            return Ok(found);
        }
        let (name, value) = (string(&mut body)?, string(&mut body)?);
        let one = value.as_ref() == b"1";
        match name.as_ref() {
            b"posix-rename@openssh.com" => found.posix_rename = one,
            b"fsync@openssh.com" => found.fsync = one,
            b"limits@openssh.com" => found.limits = one,
            b"check-file" | b"check-file-handle" => found.check_file = true,
            _ => {}
        }
    }
    Err(Malformed("too many extensions"))
}

pub(super) fn reply(mut body: Bytes) -> Result<(u32, Reply), Malformed> {
    let kind = body.try_get_u8().map_err(|_| SHORT)?;
    let id = number(&mut body)?;
    let reply = match kind {
        STATUS => {
            let code = number(&mut body)?;
            // Some servers leave out message and language.
            let message = if body.is_empty() { Bytes::new() } else { string(&mut body)? };
            let message = String::from_utf8_lossy(&message).chars().filter(|c| !c.is_control()).take(200).collect();
            Reply::Status(Status { code, message })
        }
        HANDLE => {
            let handle = string(&mut body)?;
            if handle.len() > MAX_HANDLE_BYTES {
                return Err(Malformed("a handle beyond the limit"));
            }
            // A copy, so that a handle kept for long does not keep a whole network buffer.
            Reply::Handle(Bytes::copy_from_slice(&handle))
        }
        DATA => Reply::Data(string(&mut body)?),
        NAME => Reply::Names(names(&mut body)?),
        ATTRS => Reply::Attributes(attributes(&mut body)?),
        EXTENDED_REPLY => Reply::Extended(body),
        _ => return Err(Malformed("a packet of an unknown kind")),
    };
    Ok((id, reply))
}

fn names(body: &mut Bytes) -> Result<Vec<(Bytes, Attributes)>, Malformed> {
    let count = number(body)?;
    if count > MAX_NAMES {
        return Err(Malformed("too many names at once"));
    }
    let mut names = Vec::new();
    for _ in 0..count {
        let name = string(body)?;
        string(body)?;
        names.push((name, attributes(body)?));
    }
    Ok(names)
}

fn attributes(body: &mut Bytes) -> Result<Attributes, Malformed> {
    let flags = number(body)?;
    let has = |flag: u32| flags & flag != 0;
    let mut found = Attributes::default();
    if has(ATTR_SIZE) {
        found.size = Some(body.try_get_u64().map_err(|_| SHORT)?);
    }
    if has(ATTR_OWNER) {
        body.try_get_u64().map_err(|_| SHORT)?;
    }
    if has(ATTR_PERMISSIONS) {
        found.mode = Some(number(body)?);
    }
    if has(ATTR_TIMES) {
        body.try_get_u64().map_err(|_| SHORT)?;
    }
    if has(ATTR_EXTENDED) {
        for _ in 0..number(body)? {
            string(body)?;
            string(body)?;
        }
    }
    Ok(found)
}

/// The largest read and write in the answer to `limits@openssh.com`; 0 there means that the server sets no limit.
pub(super) fn max_transfer(mut body: Bytes) -> Result<(u64, u64), Malformed> {
    let mut figure = || body.try_get_u64().map_err(|_| SHORT).map(|n| if n == 0 { u64::MAX } else { n });
    let _packet = figure()?;
    Ok((figure()?, figure()?))
}

/// The digest in the answer to `check-file-handle`. The draft puts the extension's name first; some servers leave it out.
pub(super) fn checked_digest(mut body: Bytes) -> Result<[u8; 32], Malformed> {
    let mut name = string(&mut body)?;
    if name.as_ref() == b"check-file" {
        name = string(&mut body)?;
    }
    if name.as_ref() != b"sha256" {
        return Err(Malformed("a digest of another kind"));
    }
    <[u8; 32]>::try_from(body.as_ref()).map_err(|_| Malformed("a digest of another length"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        files::FileKind,
        store::{RemoteStat, StoreErrorKind},
    };

    fn parsed(kind: u8, fill: impl FnOnce(&mut BytesMut)) -> Result<(u32, Reply), Malformed> {
        let mut frames = Frames::default();
        frames.push(&frame(kind, fill));
        reply(frames.next().unwrap().unwrap())
    }

    #[test]
    fn frames_are_cut_wherever_the_network_cut_them() {
        let one = frame(STATUS, |out| out.put_slice(&[0; 8]));
        let stream: Vec<u8> = one.iter().chain(one.iter()).copied().collect();
        let mut frames = Frames::default();
        let mut seen = 0;
        for byte in stream {
            frames.push(&[byte]);
            while let Some(body) = frames.next().unwrap() {
                assert_eq!(body.as_ref(), &one[4..]);
                seen += 1;
            }
        }
        assert_eq!(seen, 2);
        frames.push(&u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_be_bytes());
        assert!(frames.next().is_err(), "an oversized frame is refused by its length alone");
    }

    #[test]
    fn handles_are_bytes_with_a_limit() {
        let handle = [0u8, 0xff, 0x80, 7];
        let answer = parsed(HANDLE, |out| {
            out.put_u32(9);
            put_string(out, &handle);
        });
        assert_eq!(answer, Ok((9, Reply::Handle(Bytes::copy_from_slice(&handle)))));
        let long = parsed(HANDLE, |out| {
            out.put_u32(9);
            put_string(out, &[0; 257]);
        });
        assert!(long.is_err());
    }

    #[test]
    fn a_status_may_leave_out_its_words_and_its_words_are_cleaned() {
        let bare = parsed(STATUS, |out| {
            out.put_u32(1);
            out.put_u32(2);
        });
        let Ok((1, Reply::Status(status))) = bare else { panic!("{bare:?}") };
        assert_eq!(status.kind(), StoreErrorKind::NotFound);
        let wordy = parsed(STATUS, |out| {
            out.put_u32(1);
            out.put_u32(4);
            put_string(out, b"No space left\x1b[31m on device");
            put_string(out, b"en");
        });
        let Ok((1, Reply::Status(status))) = wordy else { panic!("{wordy:?}") };
        assert_eq!((status.kind(), status.message.contains('\u{1b}')), (StoreErrorKind::Full, false));
    }

    #[test]
    fn names_carry_bytes_and_attributes() {
        let answer = parsed(NAME, |out| {
            out.put_u32(3);
            out.put_u32(1);
            put_string(out, b"gr\xfcn");
            put_string(out, b"long");
            out.put_u32(ATTR_SIZE | ATTR_OWNER | ATTR_PERMISSIONS | ATTR_TIMES | ATTR_EXTENDED);
            out.put_u64(5);
            out.put_u64(0);
            out.put_u32(0o100_644);
            out.put_u64(0);
            out.put_u32(1);
            put_string(out, b"k");
            put_string(out, b"v");
        });
        let Ok((3, Reply::Names(names))) = answer else { panic!("{answer:?}") };
        assert_eq!(names[0].0.as_ref(), b"gr\xfcn");
        assert_eq!(names[0].1.stat(), RemoteStat { kind: FileKind::File, size: 5 });
    }

    #[test]
    fn nothing_reads_past_the_end() {
        for kind in [STATUS, HANDLE, DATA, NAME, ATTRS] {
            assert!(parsed(kind, |out| out.put_slice(&[0, 0, 0, 1, 0, 0, 0])).is_err());
            assert!(parsed(kind, |out| out.put_slice(&[0xff; 12])).is_err() || kind == STATUS);
        }
        assert!(reply(Bytes::new()).is_err() && version(Bytes::from_static(&[2, 0, 0, 0, 2])).is_err());
        assert!(max_transfer(Bytes::from_static(&[0; 20])).is_err());
        assert!(checked_digest(Bytes::from_static(&[0; 3])).is_err());
    }

    #[test]
    fn a_version_announces_what_is_used() {
        let body = frame(VERSION, |out| {
            out.put_u32(3);
            for (name, value) in [("posix-rename@openssh.com", "1"), ("fsync@openssh.com", "1"), ("check-file", "sha256")] {
                put_string(out, name.as_bytes());
                put_string(out, value.as_bytes());
            }
        });
        let found = version(body.slice(4..)).unwrap();
        assert_eq!(found, Extensions { posix_rename: true, fsync: true, check_file: true, limits: false });
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_fail_otherwise_than_by_an_error(bytes: Vec<u8>, kind in 101u8..=105) {
            let _ = version(Bytes::from(bytes.clone()));
            let _ = checked_digest(Bytes::from(bytes.clone()));
            let mut frames = Frames::default();
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.next() {}
            let body: Vec<u8> = [kind].into_iter().chain(bytes).collect();
            let _ = reply(Bytes::from(body));
        }
    }
}
