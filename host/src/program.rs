//! The frame of every program: its command line in, its exit status out, and the signal to stop.

use std::{ffi::OsString, process::ExitCode};

use tokio_util::sync::CancellationToken;
use towpath_transfer::{Code, Failure, failure::Result};

use crate::{logs, output};

/// Exit status of a wrong command line; 1 is a failure, 0 success.
pub const USAGE: u8 = 2;

/// The option of every command that answers programs.
const JSON: &str = "--json";

/// Exit status after a second ctrl-c, as shells have it; elsewhere a program is then ended by a signal.
#[cfg(not(unix))]
const ENDED_AT_ONCE: i32 = 130;

/// How many threads a program works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// One: a command that is over at once.
    One,
    /// One for each core: a service, or long work.
    Many,
}

/// Reads the command line, the program's own name first, and carries it out. A failure is printed here, once.
pub fn run<A: clap::Parser>(args: impl Iterator<Item = OsString>, execute: impl FnOnce(A) -> Result<()>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let as_json = args.iter().any(|argument| argument == JSON);
    let args = match A::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are results and go to standard output; nobody is left to tell where that is closed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let done = execute(args);
    logs::flush();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::failed(&failure, as_json);
            ExitCode::FAILURE
        }
    }
}

/// Works to the end on a runtime of its own.
///
/// # Errors
/// Those of the work; [`Code::Internal`] where the system gives no threads.
pub fn block_on<T>(threads: Threads, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut runtime = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Many => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::park(Code::Internal, "starting the runtime").caused_by(error))?;
    let done = runtime.block_on(work);
    // A task that does not react any more must not keep the process.
    runtime.shutdown_background();
    done
}

/// A token that is cancelled at the first SIGTERM or ctrl-c. The second ends the process at once, as a crash would.
///
/// # Errors
/// [`Code::Internal`] where the system does not let the program listen for signals.
pub fn stop_signal() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut signals = Signals::listen()?;
    let token = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("stopping; a second signal ends the program at once");
        token.cancel();
        signals.next().await;
        end_at_once();
    });
    Ok(stop)
}

/// Hears SIGHUP, by which a service manager asks for the configuration to be read again. On a terminal the signal keeps its old
/// meaning: the terminal is gone, and the program ends with it.
#[derive(Debug)]
pub struct Hangups(#[cfg(unix)] Option<tokio::signal::unix::Signal>);

impl Hangups {
    /// Hears every one from now on; several may show as one.
    ///
    /// # Errors
    /// [`Code::Internal`] where the system does not let the program listen for signals.
    #[cfg(unix)]
    pub fn listen() -> Result<Self> {
        use std::io::IsTerminal as _;

        use tokio::signal::unix::{SignalKind, signal};
        if std::io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        let listen = signal(SignalKind::hangup());
        Ok(Self(Some(listen.map_err(|error| Failure::park(Code::Internal, "listening for signals").caused_by(error))?)))
    }

    /// There is no such signal on this system.
    ///
    /// # Errors
    /// None.
    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "on other systems it can fail")]
    pub fn listen() -> Result<Self> {
        Ok(Self())
    }

    /// Waits for the next one; for ever where there can be none.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.0
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// Ends without running anything more: what other threads do at this moment might keep an ordinary exit from ending.
#[cfg(unix)]
fn end_at_once() {
    use rustix::process::{Signal, getpid, kill_process};
    if let Err(error) = kill_process(getpid(), Signal::KILL) {
        tracing::error!(%error, "the program could not be ended");
    }
}

#[cfg(not(unix))]
fn end_at_once() {
    std::process::exit(ENDED_AT_ONCE);
}

/// The signals that ask a program to stop.
#[cfg(unix)]
struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Signals {
    fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(|error| Failure::park(Code::Internal, "listening for signals").caused_by(error));
        Ok(Self(listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// The signals that ask a program to stop.
#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC, tokio::signal::windows::CtrlBreak);

#[cfg(windows)]
impl Signals {
    fn listen() -> Result<Self> {
        use tokio::signal::windows::{ctrl_break, ctrl_c};
        let failed = |error| Failure::park(Code::Internal, "listening for ctrl-c").caused_by(error);
        Ok(Self(ctrl_c().map_err(failed)?, ctrl_break().map_err(failed)?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Args {
        word: String,
    }

    fn status(args: &[&str], done: Result<()>) -> ExitCode {
        run(args.iter().map(OsString::from), |args: Args| {
            assert_eq!(args.word, "w");
            done
        })
    }

    #[test]
    fn success_failure_and_a_wrong_command_line_have_a_status_each() {
        let failed = Failure::park(Code::Internal, "on purpose");
        assert_eq!(status(&["p", "w"], Ok(())), ExitCode::SUCCESS);
        assert_eq!(status(&["p", "w"], Err(failed)), ExitCode::FAILURE);
        assert_eq!(status(&["p"], Ok(())), ExitCode::from(USAGE));
        assert_eq!(status(&["p", "--help"], Ok(())), ExitCode::SUCCESS);
    }

    #[test]
    fn work_has_a_runtime_and_its_failure_comes_back() {
        for threads in [Threads::One, Threads::Many] {
            assert_eq!(block_on(threads, async { Ok(tokio::spawn(async { 7 }).await.ok()) }).unwrap(), Some(7));
            let failed = block_on(threads, async { Err::<(), _>(Failure::park(Code::NotFound, "nothing")) });
            assert_eq!(failed.unwrap_err().code(), Code::NotFound);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_hangup_is_heard() {
        let heard = block_on(Threads::One, async {
            let mut hangups = Hangups::listen()?;
            // Run by hand, a test has a terminal.
            if hangups.0.is_some() {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP)
                    .map_err(|error| Failure::park(Code::Internal, "raising a signal").caused_by(error))?;
                hangups.next().await;
            }
            Ok(())
        });
        assert!(heard.is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn the_signal_to_stop_is_heard() {
        let heard = block_on(Threads::One, async {
            let stop = stop_signal()?;
            let raised = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
            raised.map_err(|error| Failure::park(Code::Internal, "raising a signal").caused_by(error))?;
            stop.cancelled().await;
            Ok(())
        });
        assert!(heard.is_ok());
    }
}
