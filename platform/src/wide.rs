//! Text as Windows takes it, and memory that it gives.

use std::{ffi::OsStr, os::windows::ffi::OsStrExt as _};

use windows_sys::Win32::Foundation::LocalFree;

/// UTF-16 with a NUL at its end.
pub(crate) fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
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
