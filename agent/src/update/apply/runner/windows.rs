//! A task of Windows.

use std::path::{Path, PathBuf};

use towpath_transfer::failure::Result;

use super::{
    super::{Open, public_file},
    kept_program,
};
use crate::service::tasks::Task;

/// Its name.
pub(in super::super) const NAME: &str = r"Towpath\Agent update under way";
/// How often it is begun again where it has ended before the update has, in minutes.
const EVERY_MINUTES: u32 = 5;
/// After how long it is ended, in hours: longer than every step of an update may take.
const LIMIT_HOURS: u32 = 2;

/// The task as the scheduler reads it.
pub(in super::super) fn file(kept: &Path) -> PathBuf {
    kept.join("under-way.xml")
}

/// Writes it, durably. It is made of that before it is started.
pub(in super::super) fn write(_units: &Path, kept: &Path, open: &Open) -> Result<()> {
    let (program, config, state) = (kept_program(kept), open.config_file.to_string_lossy(), open.state.to_string_lossy());
    let task = Task {
        description: "Towpath agent: an update that is under way. Made for it, and removed at its end.",
        program: &program,
        arguments: &["--config", &config, "--state", &state, "update", "apply", "--go-on"],
        every_minutes: EVERY_MINUTES,
        limit_hours: LIMIT_HOURS,
    };
    public_file::write(&file(kept), &task.to_bytes(), 0o644)
}

/// Removes it. The program that it runs is this one, which Windows does not let be removed: the next update replaces it.
pub(in super::super) fn remove(_units: &Path, kept: &Path) -> Result<()> {
    public_file::remove(&file(kept))
}
