//! Where the data of programs lie that serve the whole machine.

use std::{io, path::PathBuf};

/// The folder of Towpath's data: the one that the installation was told (`DataDir` below `HKEY_LOCAL_MACHINE\SOFTWARE\Towpath`), else
/// `Towpath` in the known folder ProgramData, which a variable of the environment cannot redirect.
///
/// # Errors
/// As Windows reports; `Unsupported` elsewhere.
pub fn data() -> io::Result<PathBuf> {
    #[cfg(windows)]
    return windows::data();
    #[cfg(not(windows))]
    super::unsupported()
}

/// The known folder ProgramData, in which every program has a folder of its own for the whole machine.
///
/// # Errors
/// As Windows reports; `Unsupported` elsewhere.
pub fn program_data() -> io::Result<PathBuf> {
    #[cfg(windows)]
    return windows::program_data();
    #[cfg(not(windows))]
    super::unsupported()
}

/// The folder into which the installation package has put the program; `None` where it was not installed by one.
///
/// # Errors
/// As Windows reports; `Unsupported` elsewhere.
pub fn program() -> io::Result<Option<PathBuf>> {
    Ok(chosen()?.program)
}

/// The folders that the installation package was told, as it has written them down below `HKEY_LOCAL_MACHINE\SOFTWARE\Towpath`; the next
/// package reads them there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Of the data (`DataDir`).
    pub data: Option<PathBuf>,
    /// Of the program (`InstallDir`).
    pub program: Option<PathBuf>,
}

/// What was told to the installation package.
///
/// # Errors
/// As Windows reports; `Unsupported` elsewhere.
pub fn chosen() -> io::Result<Chosen> {
    #[cfg(windows)]
    return windows::chosen();
    #[cfg(not(windows))]
    super::unsupported()
}

/// Writes down what the next package is to read, where it is told here; for administrators.
///
/// # Errors
/// As Windows reports; `Unsupported` elsewhere.
pub fn choose(folders: &Chosen) -> io::Result<()> {
    #[cfg(windows)]
    return windows::choose(folders);
    #[cfg(not(windows))]
    {
        let _ = folders;
        super::unsupported()
    }
}

#[cfg(windows)]
#[expect(unsafe_code, reason = "registry and known folders have only this interface")]
mod windows {
    use std::{
        ffi::OsString,
        io,
        os::windows::ffi::OsStringExt as _,
        path::{Path, PathBuf},
        ptr,
    };

    use windows_sys::Win32::{
        Foundation::{ERROR_FILE_NOT_FOUND, ERROR_SUCCESS},
        System::{
            Com::CoTaskMemFree,
            Registry::{HKEY_LOCAL_MACHINE, REG_SZ, RRF_RT_REG_SZ, RRF_SUBKEY_WOW6464KEY, RegGetValueW, RegSetKeyValueW},
        },
        UI::Shell::{FOLDERID_ProgramData, SHGetKnownFolderPath},
    };

    use super::Chosen;
    use crate::wide::{units, wide};

    const KEY: &str = "SOFTWARE\\Towpath";
    const DATA: &str = "DataDir";
    const PROGRAM: &str = "InstallDir";
    /// Below ProgramData.
    const NAME: &str = "Towpath";
    /// The longest path that Windows knows, with its NUL ("Maximum Path Length Limitation").
    const MAX_PATH_CHARS: usize = 32_768;

    pub(super) fn data() -> io::Result<PathBuf> {
        match read(DATA)? {
            Some(folder) => Ok(folder),
            None => Ok(program_data()?.join(NAME)),
        }
    }

    pub(super) fn chosen() -> io::Result<Chosen> {
        Ok(Chosen { data: read(DATA)?, program: read(PROGRAM)? })
    }

    pub(super) fn choose(folders: &Chosen) -> io::Result<()> {
        for (value, folder) in [(DATA, &folders.data), (PROGRAM, &folders.program)] {
            if let Some(folder) = folder {
                write(value, folder)?;
            }
        }
        Ok(())
    }

    fn write(value: &str, folder: &Path) -> io::Result<()> {
        let (key, value, text) = (wide(KEY), wide(value), wide(folder));
        let bytes = u32::try_from(text.len() * 2).map_err(io::Error::other)?;
        // SAFETY: all three texts end with a NUL, and the value is as long as is said, with its NUL.
        let code =
            unsafe { RegSetKeyValueW(HKEY_LOCAL_MACHINE, key.as_ptr(), value.as_ptr(), REG_SZ, text.as_ptr().cast(), bytes) };
        if code == ERROR_SUCCESS { Ok(()) } else { Err(io::Error::from_raw_os_error(code.cast_signed())) }
    }

    fn read(value: &str) -> io::Result<Option<PathBuf>> {
        let (key, value) = (wide(KEY), wide(value));
        let mut text = vec![0_u16; MAX_PATH_CHARS];
        let mut bytes = u32::try_from(text.len() * 2).unwrap_or(0);
        // SAFETY: both names end with a NUL; the buffer is as long as is said; the type need not be told.
        let code = unsafe {
            RegGetValueW(
                HKEY_LOCAL_MACHINE,
                key.as_ptr(),
                value.as_ptr(),
                RRF_RT_REG_SZ | RRF_SUBKEY_WOW6464KEY,
                ptr::null_mut(),
                text.as_mut_ptr().cast(),
                &mut bytes,
            )
        };
        match code {
            ERROR_SUCCESS => Ok(Some(path(text.into_iter())).filter(|folder| folder.is_absolute())),
            ERROR_FILE_NOT_FOUND => Ok(None),
            other => Err(io::Error::from_raw_os_error(other.cast_signed())),
        }
    }

    pub(super) fn program_data() -> io::Result<PathBuf> {
        let mut text = ptr::null_mut();
        // SAFETY: the id is a constant of Windows; the text is ours to give back, also where the call fails.
        let result = unsafe { SHGetKnownFolderPath(&FOLDERID_ProgramData, 0, ptr::null_mut(), &mut text) };
        let mut told = Vec::new();
        if result == 0 && !text.is_null() {
            // SAFETY: where the call has succeeded, the text ends with a NUL.
            told = unsafe { units(text, MAX_PATH_CHARS) };
        }
        // SAFETY: the text came from the call above, and nobody else has it.
        unsafe { CoTaskMemFree(text.cast()) };
        if told.is_empty() {
            return Err(io::Error::other(format!("the folder ProgramData is not known (HRESULT {result:#010x})")));
        }
        Ok(path(told.into_iter()))
    }

    /// The path before the NUL.
    fn path(units: impl Iterator<Item = u16>) -> PathBuf {
        let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        OsString::from_wide(&units).into()
    }
}

#[cfg(windows)]
#[cfg(test)]
mod tests {
    #[test]
    fn the_folder_is_told_and_absolute() {
        assert!(super::data().unwrap().is_absolute() && super::program_data().unwrap().is_absolute());
    }
}
