//! Text as Windows takes it, and memory that it gives.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::windows::ffi::OsStrExt as _,
    path::{self, Component, Path, Prefix},
};

use windows_sys::Win32::Foundation::LocalFree;

/// UTF-16 with a NUL at its end.
pub(crate) fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}

/// A path as [`wide`], in the form that may be longer than 260 characters.
///
/// # Errors
/// An empty path, or one of which Windows cannot say where it begins.
pub(crate) fn wide_path(path: &Path) -> io::Result<Vec<u16>> {
    let path = path::absolute(path)?;
    let (head, skipped) = match path.components().next() {
        Some(Component::Prefix(prefix)) => match prefix.kind() {
            Prefix::Disk(_) => (r"\\?\", 0),
            // The two backslashes before the server's name.
            Prefix::UNC(..) => (r"\\?\UNC\", 2),
            _ => ("", 0),
        },
        _ => ("", 0),
    };
    Ok(OsString::from(head).encode_wide().chain(path.as_os_str().encode_wide().skip(skipped)).chain([0]).collect())
}

/// Memory that Windows has made and that is ours to give back.
pub(crate) struct Local(pub(crate) *mut core::ffi::c_void);

impl Drop for Local {
    #[expect(unsafe_code, reason = "there is no safe way to give memory of Windows back")]
    fn drop(&mut self) {
        // SAFETY: the pointer is null or came from a function whose documentation asks for LocalFree, and nobody else has it.
        unsafe { LocalFree(self.0) };
    }
}

/// The units before the NUL, and at most `max`.
///
/// # Safety
/// `text` points to units that end with a NUL, or to at least `max`.
#[expect(unsafe_code, reason = "text of Windows is a pointer")]
pub(crate) unsafe fn units(text: *const u16, max: usize) -> Vec<u16> {
    let mut units = Vec::new();
    while units.len() < max {
        // SAFETY: nothing behind the NUL, and nothing behind `max`, is looked at.
        let at = unsafe { text.add(units.len()) };
        // SAFETY: as above.
        match unsafe { at.read() } {
            0 => break,
            unit => units.push(unit),
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_given_in_its_long_form() {
        let shown = |path: &str| String::from_utf16(&wide_path(Path::new(path)).unwrap()).unwrap();
        assert_eq!(shown(r"C:\Daten/a\..\b"), "\\\\?\\C:\\Daten\\b\0");
        assert_eq!(shown(r"\\server\share\a"), "\\\\?\\UNC\\server\\share\\a\0");
        assert_eq!(shown(r"\\?\C:\a"), "\\\\?\\C:\\a\0");
        assert!(wide_path(Path::new("")).is_err());
    }
}
