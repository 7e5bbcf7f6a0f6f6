//! `[audit]`: how long the audit trail is kept.

use serde::Deserialize;
use towpath_host::Pause;

use super::Wrong;
use crate::audit::{AuditSettings, FEWEST_ROWS, SHORTEST_KEEP};

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditSection {
    /// How long rows are kept.
    pub keep: Pause,
    /// The most rows.
    pub rows: u64,
}

impl Default for AuditSection {
    fn default() -> Self {
        let settings = AuditSettings::default();
        Self { keep: Pause(settings.keep), rows: settings.rows }
    }
}

impl AuditSection {
    /// What the form alone does not say.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        if self.keep.0 < SHORTEST_KEEP {
            return Err((["audit", "keep"], "`keep` is at least 30d".to_owned()));
        }
        if self.rows < FEWEST_ROWS {
            return Err((["audit", "rows"], format!("`rows` is at least {FEWEST_ROWS}")));
        }
        Ok(())
    }

    /// The figures for the trail.
    #[must_use]
    pub fn settings(&self) -> AuditSettings {
        AuditSettings { keep: self.keep.0, rows: self.rows }
    }
}
