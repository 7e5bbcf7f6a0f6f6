//! Secrets that can be read on this machine only (Data Protection API, machine scope).
//!
//! Any process of this machine can read them again: the access control list of the file that holds one is what keeps users apart.

use std::io;

/// The longest secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// What `secret` is kept as.
///
/// # Errors
/// As Windows reports; `InvalidInput` beyond [`MAX_SECRET_BYTES`]; `Unsupported` elsewhere.
pub fn protect(secret: &[u8]) -> io::Result<Vec<u8>> {
    #[cfg(windows)]
    return windows::call(secret, windows::Way::Protect);
    #[cfg(not(windows))]
    {
        let _ = secret;
        super::unsupported()
    }
}

/// The secret that [`protect`] was given on this machine.
///
/// # Errors
/// As [`protect`]; also where it was made on another machine or has been changed.
pub fn unprotect(kept: &[u8]) -> io::Result<Vec<u8>> {
    #[cfg(windows)]
    return windows::call(kept, windows::Way::Unprotect);
    #[cfg(not(windows))]
    {
        let _ = kept;
        super::unsupported()
    }
}

#[cfg(windows)]
mod windows {
    use std::{io, ptr, slice};

    use windows_sys::Win32::Security::Cryptography::{
        CRYPT_INTEGER_BLOB, CRYPTPROTECT_LOCAL_MACHINE, CRYPTPROTECT_UI_FORBIDDEN, CryptProtectData, CryptUnprotectData,
    };

    use super::MAX_SECRET_BYTES;
    use crate::wide::Local;

    /// How much longer what is kept may be than the secret.
    const OVERHEAD: usize = 4 * 1024;

    #[derive(Clone, Copy)]
    pub(super) enum Way {
        Protect,
        Unprotect,
    }

    #[expect(unsafe_code, reason = "the Data Protection API has only this interface")]
    pub(super) fn call(bytes: &[u8], way: Way) -> io::Result<Vec<u8>> {
        let limit = if matches!(way, Way::Protect) { MAX_SECRET_BYTES } else { MAX_SECRET_BYTES + OVERHEAD };
        let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= limit);
        let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the secret is too long"))?;
        let input = CRYPT_INTEGER_BLOB { cbData: length, pbData: bytes.as_ptr().cast_mut() };
        let mut output = CRYPT_INTEGER_BLOB { cbData: 0, pbData: ptr::null_mut() };
        let (none, flags) = (ptr::null(), CRYPTPROTECT_LOCAL_MACHINE | CRYPTPROTECT_UI_FORBIDDEN);
        let done = match way {
            // SAFETY: `input` describes `bytes`, which outlives the call and is only read; `output` is ours; the others may be null.
            Way::Protect => unsafe { CryptProtectData(&input, none, ptr::null(), ptr::null(), ptr::null(), flags, &mut output) },
            Way::Unprotect => {
                let flags = CRYPTPROTECT_UI_FORBIDDEN;
                // SAFETY: as above; no description is asked for.
                unsafe { CryptUnprotectData(&input, ptr::null_mut(), ptr::null(), ptr::null(), ptr::null(), flags, &mut output) }
            }
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        let _memory = Local(output.pbData.cast());
        if output.cbData == 0 || output.pbData.is_null() {
            return Ok(Vec::new());
        }
        let length = usize::try_from(output.cbData).unwrap_or(0);
        // SAFETY: the call has succeeded, so that `pbData` points to `cbData` bytes, which live until `_memory` is dropped.
        Ok(unsafe { slice::from_raw_parts(output.pbData, length) }.to_vec())
    }
}

#[cfg(windows)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_back_and_what_is_kept_does_not_show_it() {
        let kept = protect(b"a password").unwrap();
        assert!(!kept.windows(10).any(|bytes| bytes == b"a password"));
        assert_eq!(unprotect(&kept).unwrap(), b"a password");
        assert!(unprotect(b"not kept").is_err());
        assert_eq!(protect(&vec![0; MAX_SECRET_BYTES + 1]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
