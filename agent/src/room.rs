//! Whether there is room on the agent's disk for what is about to be fetched.

use std::io::ErrorKind;

use towpath_transfer::{Code, Failure, failure::Result};
use towpath_transport::files::file_failure;

use crate::parts::Parts;

/// Bytes that must stay free on the agent's disk.
pub const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// Whether `needed` bytes more have room beside the reserve; `what` is the plural of what needs them. Blocking.
///
/// # Errors
/// `disk-full` (retry); `file-failed` where the disk cannot be asked.
pub(crate) fn check(parts: &Parts, needed: u64, what: &str) -> Result<()> {
    let state = parts.layout.state();
    let needed = needed.saturating_add(RESERVE_BYTES);
    let free = match parts.files.free_space(state) {
        Ok(free) => free,
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        Err(error) => return Err(file_failure("asking for the free space of", state, error)),
    };
    if free >= needed {
        return Ok(());
    }
    let message = format!("{what} need {needed} bytes on the disk of {}, and {free} are free", state.display());
    Err(Failure::retry(Code::DiskFull, message))
}
