//! Files that somebody else has open for a moment. A virus scanner or an indexer of Windows opens what was just written, and as long
//! as it does, the file cannot be renamed, removed or opened by its owner.

use std::{io, time::Duration};

/// How often it is tried in all.
pub const ATTEMPTS: u32 = 10;
/// The pause after the first attempt; each further one is twice as long, up to [`MAX_PAUSE`].
pub const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause. All of them together are less than 1.5 s.
pub const MAX_PAUSE: Duration = Duration::from_millis(250);

/// `ERROR_ACCESS_DENIED` of winerror.h: also what a rename or a removal gets while somebody else has the file open.
const ACCESS_DENIED: i32 = 5;
/// `ERROR_SHARING_VIOLATION` of winerror.h.
const SHARING_VIOLATION: i32 = 32;
/// `ERROR_LOCK_VIOLATION` of winerror.h.
const LOCK_VIOLATION: i32 = 33;

/// Opens a file, and tries again for a while where Windows says that somebody else has it. Blocking.
///
/// # Errors
/// The last one of `open`.
pub fn opened<T>(open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    on_windows(open, |code| matches!(code, SHARING_VIOLATION | LOCK_VIOLATION))
}

/// Renames or removes a file or a folder, and tries again for a while where somebody else may have it open. Blocking. What may not
/// be done at all fails a little later for it.
///
/// # Errors
/// The last one of `change`.
pub fn changed<T>(change: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    on_windows(change, |code| matches!(code, ACCESS_DENIED | SHARING_VIOLATION | LOCK_VIOLATION))
}

#[cfg(windows)]
#[expect(clippy::disallowed_methods, reason = "nobody tells when somebody else's program closes a file")]
fn on_windows<T>(work: impl FnMut() -> io::Result<T>, passes: fn(i32) -> bool) -> io::Result<T> {
    again(work, passes, &mut |pause| std::thread::sleep(pause))
}

#[cfg(not(windows))]
fn on_windows<T>(mut work: impl FnMut() -> io::Result<T>, _: fn(i32) -> bool) -> io::Result<T> {
    work()
}

/// Until it is done, fails otherwise than by what passes, or was tried [`ATTEMPTS`] times.
#[cfg(any(windows, test))]
fn again<T>(mut work: impl FnMut() -> io::Result<T>, passes: fn(i32) -> bool, rest: &mut dyn FnMut(Duration)) -> io::Result<T> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match work() {
            Err(error) if error.raw_os_error().is_some_and(passes) => rest(pause),
            other => return other,
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(code: i32, failures: u32) -> (io::Result<u32>, Vec<Duration>) {
        let (mut calls, mut pauses) = (0, Vec::new());
        let work = || {
            calls += 1;
            if calls <= failures { Err(io::Error::from_raw_os_error(code)) } else { Ok(calls) }
        };
        let done = again(work, |code| code == SHARING_VIOLATION, &mut |pause| pauses.push(pause));
        (done, pauses)
    }

    #[test]
    fn it_is_tried_until_the_scanner_is_done_and_not_for_ever() {
        assert_eq!(tried(SHARING_VIOLATION, 0).0.unwrap(), 1);
        let (done, pauses) = tried(SHARING_VIOLATION, 3);
        assert_eq!((done.unwrap(), pauses), (4, [10, 20, 40].map(Duration::from_millis).to_vec()));
        let (given_up, pauses) = tried(SHARING_VIOLATION, u32::MAX);
        assert_eq!(given_up.unwrap_err().raw_os_error(), Some(SHARING_VIOLATION));
        assert_eq!(pauses.len(), 9);
        assert!(pauses.iter().sum::<Duration>() < Duration::from_millis(1_500) && pauses.last() == Some(&MAX_PAUSE));
    }

    #[test]
    fn what_does_not_pass_is_told_at_once() {
        let (refused, pauses) = tried(2, u32::MAX);
        assert!(refused.unwrap_err().raw_os_error() == Some(2) && pauses.is_empty());
    }
}
