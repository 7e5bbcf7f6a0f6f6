//! Answers in the form of SFTP version 3.

use bytes::{BufMut as _, Bytes};
use russh_sftp::protocol::{
    Attrs, Data, ExtendedReply, File, FileAttributes, FileMode, Handle, Name, Packet, Status, StatusCode,
};

use super::vfs::{Attributes, Entry, FileKind, FsError, SetAttributes, Space};

/// What an operation answers.
#[derive(Debug)]
pub(super) enum Reply {
    Done,
    End,
    Handle(u32),
    Data(Bytes),
    Attributes(Attributes),
    Path(String),
    Entries(Vec<Entry>),
    Extended(Vec<u8>),
}

impl Reply {
    pub(super) fn into_packet(self, id: u32) -> Packet {
        match self {
            Self::Done => status(id, StatusCode::Ok, "Success"),
            Self::End => status(id, StatusCode::Eof, "End of file"),
            Self::Handle(number) => Packet::Handle(Handle { id, handle: number.to_string() }),
            Self::Data(data) => Packet::Data(Data { id, data: data.into() }),
            Self::Attributes(attributes) => Packet::Attrs(Attrs { id, attrs: to_wire(&attributes) }),
            // REALPATH and READLINK answer with one name and no attributes (section 6.11).
            Self::Path(path) => {
                let attrs = FileAttributes::empty();
                Packet::Name(Name { id, files: vec![File { longname: path.clone(), filename: path, attrs }] })
            }
            Self::Entries(entries) => Packet::Name(Name { id, files: entries.into_iter().map(to_file).collect() }),
            Self::Extended(data) => Packet::ExtendedReply(ExtendedReply { id, data }),
        }
    }
}

/// The answer to a refused operation.
pub(super) fn refusal(id: u32, error: &FsError) -> Packet {
    let code = match error {
        FsError::NotFound => StatusCode::NoSuchFile,
        FsError::Denied => StatusCode::PermissionDenied,
        FsError::Unsupported => StatusCode::OpUnsupported,
        FsError::Exists | FsError::Full(_) | FsError::Failure(_) => StatusCode::Failure,
    };
    status(id, code, &error.to_string())
}

/// The answer to a packet that cannot be read.
pub(super) fn bad_message(id: u32) -> Packet {
    status(id, StatusCode::BadMessage, "Bad message")
}

fn status(id: u32, status_code: StatusCode, message: &str) -> Packet {
    Packet::Status(Status { id, status_code, error_message: message.to_owned(), language_tag: "en".to_owned() })
}

/// What a peer wants set; owner and group, and the two times, only come in pairs.
pub(super) fn from_wire(attributes: &FileAttributes) -> SetAttributes {
    SetAttributes {
        size: attributes.size,
        owner: attributes.uid.zip(attributes.gid),
        mode: attributes.permissions,
        times: attributes.atime.zip(attributes.mtime),
    }
}

fn to_wire(attributes: &Attributes) -> FileAttributes {
    let kind = match attributes.kind {
        FileKind::File => FileMode::REG.bits(),
        FileKind::Directory => FileMode::DIR.bits(),
        FileKind::Symlink => FileMode::LNK.bits(),
        FileKind::Other => 0,
    };
    FileAttributes {
        size: Some(attributes.size),
        uid: Some(attributes.uid),
        gid: Some(attributes.gid),
        permissions: Some(kind | attributes.mode & 0o7777),
        atime: Some(attributes.accessed),
        mtime: Some(attributes.modified),
        ..FileAttributes::empty()
    }
}

fn to_file(entry: Entry) -> File {
    File { longname: long_name(&entry), attrs: to_wire(&entry.attributes), filename: entry.name }
}

/// The line that clients show for `ls -l` (section 7 recommends the columns of a Unix `ls`).
fn long_name(entry: &Entry) -> String {
    let Attributes { kind, size, mode, uid, gid, modified, .. } = entry.attributes;
    let kind = match kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Other => '?',
    };
    let bit = |shift: u32, letter: char| if mode >> shift & 1 == 1 { letter } else { '-' };
    let permissions: String = (0..9).rev().zip("rwxrwxrwx".chars()).map(|(shift, letter)| bit(shift, letter)).collect();
    let time = jiff::Timestamp::from_second(i64::from(modified)).unwrap_or_default().strftime("%b %e %Y");
    format!("{kind}{permissions}    1 {uid:<8} {gid:<8} {size:>8} {time} {}", entry.name)
}

/// The answer to `statvfs@openssh.com` (OpenSSH's PROTOCOL, section 4.4).
pub(super) fn space(space: &Space) -> Vec<u8> {
    let mut out = Vec::with_capacity(11 * 8);
    for field in [
        space.block_size,
        space.fragment_size,
        space.blocks,
        space.blocks_free,
        space.blocks_available,
        space.files,
        space.files_free,
        space.files_available,
        space.id,
        space.flags,
        space.name_max,
    ] {
        out.put_u64(field);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Lack;

    #[test]
    fn a_long_name_looks_like_ls() {
        let attributes = Attributes { size: 5, mode: 0o100_644, uid: 1, gid: 2, modified: 86_400, ..Attributes::default() };
        let line = long_name(&Entry { name: "a b".to_owned(), attributes });
        assert_eq!(line, "-rw-r--r--    1 1        2               5 Jan  2 1970 a b");
    }

    #[test]
    fn every_refusal_has_its_code() {
        for (error, code) in [
            (FsError::NotFound, StatusCode::NoSuchFile),
            (FsError::Denied, StatusCode::PermissionDenied),
            (FsError::Exists, StatusCode::Failure),
            (FsError::Full(Lack::Disk), StatusCode::Failure),
            (FsError::Full(Lack::Quota), StatusCode::Failure),
            (FsError::Unsupported, StatusCode::OpUnsupported),
            (FsError::Failure("x".to_owned()), StatusCode::Failure),
        ] {
            let Packet::Status(status) = refusal(7, &error) else { panic!("not a status") };
            assert_eq!((status.id, status.status_code, status.error_message), (7, code, error.to_string()));
        }
    }
}
