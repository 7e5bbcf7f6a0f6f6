//! Requests beyond SFTP version 3.

use std::collections::HashMap;

use bytes::{Buf as _, BufMut as _};

use super::{
    limits::{FRAME_BYTES, Limits, TRANSFER_BYTES},
    path::PathForm,
    vfs::{Capabilities, FsError, FsResult},
};

/// The smallest block that `check-file` may be asked for, in bytes (draft-ietf-secsh-filexfer-extensions-00 section 3).
const SMALLEST_BLOCK: u64 = 256;

/// What is announced in VERSION, with the versions that OpenSSH's PROTOCOL gives.
pub(super) fn announced(capabilities: Capabilities) -> HashMap<String, String> {
    let mut names = vec![
        ("posix-rename@openssh.com", "1"),
        ("fsync@openssh.com", "1"),
        ("limits@openssh.com", "1"),
        ("lsetstat@openssh.com", "1"),
        ("check-file", "sha256"),
        ("check-file-handle", "sha256"),
        ("check-file-name", "sha256"),
    ];
    if capabilities.hard_links {
        names.push(("hardlink@openssh.com", "1"));
    }
    if capabilities.copy_data {
        names.push(("copy-data", "1"));
    }
    if capabilities.space {
        names.extend([("statvfs@openssh.com", "2"), ("fstatvfs@openssh.com", "2")]);
    }
    names.into_iter().map(|(name, version)| (name.to_owned(), version.to_owned())).collect()
}

/// The answer to `limits@openssh.com`: longest packet, read and write in bytes, and open handles.
pub(super) fn limits(limits: &Limits) -> Vec<u8> {
    let transfer = limits.frame_bytes.saturating_sub(FRAME_BYTES - TRANSFER_BYTES);
    let mut out = Vec::with_capacity(4 * 8);
    for figure in [limits.frame_bytes, transfer, transfer, limits.open_handles] {
        out.put_u64(u64::try_from(figure).unwrap_or(u64::MAX));
    }
    out
}

/// Reads the fields of an extended request.
#[derive(Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(super) fn number(&mut self) -> FsResult<u32> {
        self.0.try_get_u32().map_err(|_| malformed())
    }

    pub(super) fn long(&mut self) -> FsResult<u64> {
        self.0.try_get_u64().map_err(|_| malformed())
    }

    pub(super) fn bytes(&mut self) -> FsResult<&'a [u8]> {
        let length = usize::try_from(self.number()?).map_err(|_| malformed())?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn path<P: PathForm>(&mut self) -> FsResult<P> {
        P::parse(self.bytes()?)
    }

    pub(super) fn handle(&mut self) -> FsResult<u32> {
        std::str::from_utf8(self.bytes()?).ok().and_then(|text| text.parse().ok()).ok_or_else(unknown_handle)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

pub(super) fn malformed() -> FsError {
    FsError::Failure("Malformed request".to_owned())
}

pub(super) fn unknown_handle() -> FsError {
    FsError::Failure("Unknown handle".to_owned())
}

/// Which bytes `check-file` digests, and in which blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CheckRange {
    pub(super) start: u64,
    /// `None`: to the end of the file.
    pub(super) length: Option<u64>,
    /// `None`: one digest of everything.
    pub(super) block: Option<u64>,
}

impl CheckRange {
    /// Reads what follows the handle or name: algorithms, start, length (0: to the end) and block size (0: all).
    pub(super) fn read(fields: &mut Fields<'_>) -> FsResult<Self> {
        let algorithms = fields.bytes()?;
        if !algorithms.split(|byte| *byte == b',').any(|name| name == b"sha256") {
            return Err(FsError::Failure("Only sha256 is computed here".to_owned()));
        }
        let (start, length, block) = (fields.long()?, fields.long()?, u64::from(fields.number()?));
        if block != 0 && block < SMALLEST_BLOCK {
            return Err(FsError::Failure(format!("The smallest block is {SMALLEST_BLOCK} bytes")));
        }
        Ok(Self { start, length: (length != 0).then_some(length), block: (block != 0).then_some(block) })
    }

    /// The beginning of the answer, to which the digests are appended.
    pub(super) fn answer() -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        for text in ["check-file", "sha256"] {
            out.put_u32(u32::try_from(text.len()).unwrap_or_default());
            out.put_slice(text.as_bytes());
        }
        out
    }
}

/// What `copy-data` copies (draft-ietf-secsh-filexfer-extensions-00 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CopyRange {
    /// Handle that is read.
    pub(super) from: u32,
    pub(super) start: u64,
    /// `None`: to the end of the file.
    pub(super) length: Option<u64>,
    /// Handle that is written.
    pub(super) to: u32,
    pub(super) target: u64,
}

impl CopyRange {
    pub(super) fn read(fields: &mut Fields<'_>) -> FsResult<Self> {
        let (from, start, length) = (fields.handle()?, fields.long()?, fields.long()?);
        let (to, target) = (fields.handle()?, fields.long()?);
        Ok(Self { from, start, length: (length != 0).then_some(length), to, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_names_sha256_and_a_sane_block() {
        let request = |algorithms: &[u8], block: u32| {
            let mut data = Vec::new();
            data.put_u32(u32::try_from(algorithms.len()).unwrap());
            data.put_slice(algorithms);
            data.put_u64(5);
            data.put_u64(0);
            data.put_u32(block);
            CheckRange::read(&mut Fields::new(&data))
        };
        assert_eq!(request(b"md5,sha256", 0), Ok(CheckRange { start: 5, length: None, block: None }));
        assert_eq!(request(b"sha256", 256).unwrap().block, Some(256));
        assert!(request(b"md5", 0).is_err());
        assert!(request(b"sha256", 255).is_err());
    }

    #[test]
    fn fields_never_read_past_the_end() {
        assert!(Fields::new(&[0, 0, 0, 5, 1]).bytes().is_err());
        assert!(Fields::new(&[255; 4]).bytes().is_err());
        assert!(Fields::new(&[0; 3]).number().is_err());
        assert!(Fields::new(&[0; 7]).long().is_err());
        assert!(Fields::new(&[0, 0, 0, 1, b'x']).handle().is_err());
    }

    #[test]
    fn only_what_works_is_announced() {
        assert!(!announced(Capabilities::default()).contains_key("hardlink@openssh.com"));
        assert!(announced(Capabilities { hard_links: true, space: true, copy_data: true }).contains_key("statvfs@openssh.com"));
    }
}
