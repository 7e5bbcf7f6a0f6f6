//! Whether there is room on a disk for what is about to come to it.

use std::path::Path;

use towpath_transfer::{Code, Failure, failure::Result};
use towpath_transport::files::{FileStore, file_failure};

use crate::parts::Parts;

/// Bytes that must stay free on the agent's disk unless the configuration says otherwise (`state.reserve`).
pub const DEFAULT_RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes that taking one offer may cost before anything is known to be signed: a row of the journal, and the refusal with its folders.
const OFFER_BYTES: u64 = 64 * 1024;

/// Whether `needed` bytes more have room in the state folder beside the reserve; `what` is the plural of what needs them. Blocking.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_here(parts: &Parts, needed: u64, what: &str) -> Result<()> {
    check(&*parts.files, parts.layout.state(), parts.config.now().state.reserve.0, needed, what)
}

/// Whether what comes of a relay's mere word has room: half of the reserve is kept from it. Below that not even what waits
/// is noted.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_for_offers(parts: &Parts) -> Result<()> {
    let half = parts.config.now().state.reserve.0 / 2;
    check(&*parts.files, parts.layout.state(), half, OFFER_BYTES, "offers of return files")
}

/// Whether `needed` bytes more have room in a folder beside `reserve` bytes; `what` is the plural of what needs them. Blocking.
///
/// # Errors
/// `disk-full` (retry); `file-failed` where the disk cannot be asked.
pub(crate) fn check(files: &dyn FileStore, folder: &Path, reserve: u64, needed: u64, what: &str) -> Result<()> {
    let needed = needed.saturating_add(reserve);
    let free = files.free_space(folder).map_err(|error| file_failure("asking for the free space of", folder, error))?;
    if free >= needed {
        return Ok(());
    }
    let message = format!("{what} need {needed} bytes on the disk of {}, and {free} are free", folder.display());
    Err(Failure::retry(Code::DiskFull, message))
}
