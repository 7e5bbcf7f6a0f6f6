//! The Event Log of Windows, where the program is a service there.

use towpath_platform::event_log::{Level as EventLevel, report};
use tracing::Level;

use super::{Sink, line::Line};

/// Events of one source.
#[derive(Debug, Clone, Copy)]
pub struct EventLog(pub &'static str);

impl Sink for EventLog {
    fn write(&self, line: &Line) {
        // Where it cannot be written there is nobody else to tell; the file, if one is configured, has the line.
        let _ = report(self.0, level(line.level), &line.story());
    }
}

fn level(level: Level) -> EventLevel {
    match level {
        Level::ERROR => EventLevel::Error,
        Level::WARN => EventLevel::Warning,
        _ => EventLevel::Information,
    }
}
