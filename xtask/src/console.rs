//! What the chores tell the person who runs them.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

/// Prints a line on standard output. A closed pipe is not a failure of the chore.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _closed = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints a line on standard error.
pub(crate) fn complain(line: &str) {
    let _closed = writeln!(std::io::stderr().lock(), "{line}");
}

/// A stop watch for the lines that say how long a step took.
#[derive(Debug)]
pub(crate) struct Watch(Instant);

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "a chore tells the person who waits how long it took; nothing depends on it")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> String {
        seconds(self.0.elapsed())
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_tenths_of_seconds() {
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
    }
}
