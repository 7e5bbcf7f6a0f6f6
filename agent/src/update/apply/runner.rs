//! What carries an update out: a service made for it, started at boot as long as it is under way, and removed at its end.
//!
//! It is not one of the package's, because the package is what changes; and it runs the kept copy of the program that has prepared the
//! update, because that one is known to work.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
pub(super) use linux::{NAME, remove, write};
#[cfg(windows)]
pub(super) use windows::{NAME, file, remove, write};

/// The kept copy of the program.
pub(super) fn kept_program(kept: &Path) -> PathBuf {
    kept.join(if cfg!(windows) { "program.exe" } else { "program" })
}
