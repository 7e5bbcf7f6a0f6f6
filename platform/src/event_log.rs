//! The Event Log of Windows.

use std::io;

/// The longest message, in characters; longer ones are cut. Windows takes 31,839.
pub const MAX_MESSAGE_CHARS: usize = 30_000;

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something is for a person to do.
    Error,
    /// Something may become one.
    Warning,
    /// Something went well.
    Information,
}

/// Makes a source of events known, so that the Event Log shows their text. Needs an administrator.
///
/// # Errors
/// As Windows reports; `Unsupported` elsewhere.
pub fn register(source: &str) -> io::Result<()> {
    #[cfg(windows)]
    return windows::register(source);
    #[cfg(not(windows))]
    {
        let _ = source;
        super::unsupported()
    }
}

/// Forgets a source; one that is not known is forgotten already.
///
/// # Errors
/// As [`register`].
pub fn unregister(source: &str) -> io::Result<()> {
    #[cfg(windows)]
    return windows::unregister(source);
    #[cfg(not(windows))]
    {
        let _ = source;
        super::unsupported()
    }
}

/// Writes an event.
///
/// # Errors
/// As [`register`].
pub fn report(source: &str, level: Level, message: &str) -> io::Result<()> {
    #[cfg(windows)]
    return windows::report(source, level, message);
    #[cfg(not(windows))]
    {
        let _ = (source, level, message);
        super::unsupported()
    }
}

#[cfg(windows)]
#[expect(unsafe_code, reason = "Event Log and registry have only this interface")]
mod windows {
    use std::{io, ptr};

    use windows_sys::Win32::{
        Foundation::{ERROR_FILE_NOT_FOUND, ERROR_SUCCESS},
        System::{
            EventLog::{
                DeregisterEventSource, EVENTLOG_ERROR_TYPE, EVENTLOG_INFORMATION_TYPE, EVENTLOG_WARNING_TYPE,
                RegisterEventSourceW, ReportEventW,
            },
            Registry::{
                HKEY_LOCAL_MACHINE, KEY_SET_VALUE, REG_DWORD, REG_EXPAND_SZ, REG_OPTION_NON_VOLATILE, RegCloseKey,
                RegCreateKeyExW, RegDeleteTreeW, RegSetValueExW,
            },
        },
    };

    use super::{Level, MAX_MESSAGE_CHARS};
    use crate::wide::wide;

    const SOURCES: &str = "SYSTEM\\CurrentControlSet\\Services\\EventLog\\Application\\";
    /// A file of every Windows that has, among others, the message "%1" under the number [`EVENT`].
    const MESSAGES: &str = "%SystemRoot%\\System32\\EventCreate.exe";
    /// The number of every event of ours: [`MESSAGES`] has 1 to 1000.
    const EVENT: u32 = 1;
    /// Error, warning and information.
    const TYPES: u32 = 7;

    pub(super) fn register(source: &str) -> io::Result<()> {
        let (path, mut key) = (wide(format!("{SOURCES}{source}")), ptr::null_mut());
        // SAFETY: the path ends with a NUL; the key is ours and closed below; class, security and disposition may be null.
        let code = unsafe {
            RegCreateKeyExW(
                HKEY_LOCAL_MACHINE,
                path.as_ptr(),
                0,
                ptr::null(),
                REG_OPTION_NON_VOLATILE,
                KEY_SET_VALUE,
                ptr::null(),
                &mut key,
                ptr::null_mut(),
            )
        };
        succeeded(code)?;
        let (file, types) = (wide(MESSAGES), TYPES.to_le_bytes());
        let bytes: Vec<u8> = file.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let values = [("EventMessageFile", REG_EXPAND_SZ, &*bytes), ("TypesSupported", REG_DWORD, &types)];
        let mut set = Ok(());
        for (name, kind, value) in values {
            let (name, length) = (wide(name), u32::try_from(value.len()).unwrap_or(0));
            // SAFETY: the key is open, the name ends with a NUL, and the value is as long as is said.
            let code = unsafe { RegSetValueExW(key, name.as_ptr(), 0, kind, value.as_ptr(), length) };
            set = set.and(succeeded(code));
        }
        // SAFETY: the key is open and not used any more.
        unsafe { RegCloseKey(key) };
        set
    }

    pub(super) fn unregister(source: &str) -> io::Result<()> {
        let path = wide(format!("{SOURCES}{source}"));
        // SAFETY: the path ends with a NUL.
        let code = unsafe { RegDeleteTreeW(HKEY_LOCAL_MACHINE, path.as_ptr()) };
        if code == ERROR_FILE_NOT_FOUND { Ok(()) } else { succeeded(code) }
    }

    pub(super) fn report(source: &str, level: Level, message: &str) -> io::Result<()> {
        let source = wide(source);
        // SAFETY: the name ends with a NUL; the machine is this one where it is null.
        let log = unsafe { RegisterEventSourceW(ptr::null(), source.as_ptr()) };
        if log.is_null() {
            return Err(io::Error::last_os_error());
        }
        let kind = match level {
            Level::Error => EVENTLOG_ERROR_TYPE,
            Level::Warning => EVENTLOG_WARNING_TYPE,
            Level::Information => EVENTLOG_INFORMATION_TYPE,
        };
        let message: String = message.chars().filter(|c| *c != '\0').take(MAX_MESSAGE_CHARS).collect();
        let message = wide(&message);
        let texts = [message.as_ptr()];
        // SAFETY: the log is open; there is one text, which ends with a NUL; user and data may be null.
        let done = unsafe { ReportEventW(log, kind, 0, EVENT, ptr::null_mut(), 1, 0, texts.as_ptr(), ptr::null()) };
        let outcome = if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        // SAFETY: the log is open and not used any more.
        unsafe { DeregisterEventSource(log) };
        outcome
    }

    fn succeeded(code: u32) -> io::Result<()> {
        if code == ERROR_SUCCESS { Ok(()) } else { Err(io::Error::from_raw_os_error(code.cast_signed())) }
    }
}

#[cfg(windows)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_made_used_and_forgotten() {
        register("TowpathTest").unwrap();
        report("TowpathTest", Level::Information, "all is well").unwrap();
        unregister("TowpathTest").unwrap();
        unregister("TowpathTest").unwrap();
    }
}
