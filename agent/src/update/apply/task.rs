//! The task of Windows that the package has made: it looks now and then for an update that lies ready.

use std::path::Path;

use towpath_transfer::failure::Result;

use crate::service::{
    installation::Installation,
    tasks::{self, Task},
};

/// Its name.
pub const NAME: &str = r"Towpath\Agent update";
/// How often it looks, in minutes; where nothing lies ready, or updates are off, that is all it does.
pub const EVERY_MINUTES: u32 = 15;
/// After how long it is ended, in hours.
const LIMIT_HOURS: u32 = 1;

/// Makes it, or changes the one that is there.
///
/// # Errors
/// `service-failed`.
pub fn make(kept: &Path, of: &Installation) -> Result<()> {
    let (config, state) = (of.config.to_string_lossy(), of.state.to_string_lossy());
    let task = Task {
        description: "Towpath agent: applies an update as [update] of its configuration says.",
        program: &of.executable,
        arguments: &["--config", &config, "--state", &state, "update", "apply", "--as-configured"],
        every_minutes: EVERY_MINUTES,
        limit_hours: LIMIT_HOURS,
    };
    tasks::register(NAME, &task, &kept.join("task.xml"))
}

/// Removes it. Without its program it would do nothing, so that it may stay where it cannot be removed.
pub fn remove() {
    if let Err(failure) = tasks::remove(NAME) {
        tracing::debug!(code = %failure.code(), error = %failure.report(), "the task of updates was not removed");
    }
}
