//! What end-to-end tests stand on: the three programs as real processes on loopback, with folders of their own, and a
//! comparison of two databases value by value.
//!
//! Everything here panics where a test cannot go on, and says what it tried.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail and say why")]

mod cable;
mod compare;
mod noise;
mod packing;
mod program;
mod rough_proxy;
pub mod seams;
mod small_disk;
#[cfg(target_os = "linux")]
mod systemd;
mod telling;
mod terminal;
mod wine;
mod world;

pub use cable::{Cable, Passed};
pub use compare::{assert_same_tables, query_text, query_texts};
pub use noise::{NOISE, noise, noisy_erp, noisy_job};
pub use packing::pack;
pub use program::{Outcome, Program, Server};
pub use rough_proxy::{Manner, RoughProxy, Told};
pub use small_disk::SmallDisk;
#[cfg(target_os = "linux")]
pub use systemd::Machine;
pub use telling::{Posted, TellingProgram, WebhookListener};
pub use terminal::Terminal;
pub use wine::Wine;
pub use world::{AGENT, End, JOB, RECEIVER, TENANT, World};

use std::time::{Duration, Instant};

/// How long anything on this machine may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Within this time after a cause is gone everything goes on by itself: what the handbook promises.
pub const RECOVERY: Duration = Duration::from_secs(60);

/// How long `work` took. Real time: what is measured is a person's wait.
pub fn lasted<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    #[expect(clippy::disallowed_methods, reason = "measures how long a program of another process takes")]
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

/// Lets a trouble last for so long; nothing is waited for by it.
pub fn let_it_last(duration: Duration) {
    #[expect(clippy::disallowed_methods, reason = "a trouble of the test's own making has a length")]
    std::thread::sleep(duration);
}

/// Looks until `found` says something, at most [`PATIENCE`].
///
/// # Panics
/// Where it never does.
pub fn eventually<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, found)
}

/// Looks until `found` says that it has gone on by itself, now that the cause is gone: within [`RECOVERY`]. Prints what it took.
///
/// # Panics
/// Where it does not.
pub fn recovers(what: &str, found: impl FnMut() -> Option<()>) {
    let ((), took) = lasted(|| eventually_within(RECOVERY, &format!("{what}: it goes on by itself"), found));
    #[expect(clippy::print_stderr, reason = "the figure is what the test is run for by hand")]
    {
        eprintln!("measured: {what}: gone on {} ms after the cause was gone", took.as_millis());
    }
}

/// Looks until `found` says something, at most for `patience`.
///
/// # Panics
/// Where it never does.
pub fn eventually_within<T>(patience: Duration, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    #[expect(clippy::disallowed_methods, reason = "a test's own patience is real time")]
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < patience, "gave up waiting until {what}");
        #[expect(clippy::disallowed_methods, reason = "looks at another process, which gives no signal")]
        std::thread::sleep(Duration::from_millis(20));
    }
}
