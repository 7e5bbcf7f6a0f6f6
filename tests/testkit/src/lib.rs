//! What end-to-end tests stand on: the three programs as real processes on loopback, with folders of their own, and a
//! comparison of two databases value by value.
//!
//! Everything here panics where a test cannot go on, and says what it tried.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail and say why")]

mod compare;
mod packing;
mod program;
pub mod seams;
#[cfg(target_os = "linux")]
mod systemd;
mod telling;
mod terminal;
mod world;

pub use compare::{assert_same_tables, query_text, query_texts};
pub use packing::pack;
pub use program::{Outcome, Program, Server};
#[cfg(target_os = "linux")]
pub use systemd::Machine;
pub use telling::{Posted, TellingProgram, WebhookListener};
pub use terminal::Terminal;
pub use world::{AGENT, End, JOB, RECEIVER, TENANT, World};

use std::time::{Duration, Instant};

/// How long anything on this machine may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Looks until `found` says something, at most [`PATIENCE`].
///
/// # Panics
/// Where it never does.
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    #[expect(clippy::disallowed_methods, reason = "a test's own patience is real time")]
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "gave up waiting until {what}");
        #[expect(clippy::disallowed_methods, reason = "looks at another process, which gives no signal")]
        std::thread::sleep(Duration::from_millis(20));
    }
}
