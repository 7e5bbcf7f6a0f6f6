//! Programs of other people: an argument list and never a shell, in a process group of their own, with a time limit, their output
//! kept.

mod arguments;
mod group;
mod tail;

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, Command},
    task::JoinSet,
};
use towpath_transfer::{Clock, Code, Failure, failure::Result};

pub use self::arguments::{filled, unknown_placeholder};
use self::{group::Group, tail::Tail};

/// How long output is still read after the program has ended: something that it has left running may hold the pipe.
pub const OUTPUT_GRACE: Duration = Duration::from_secs(2);
/// Bytes of output read at a time.
const CHUNK: usize = 8 * 1024;
/// The longest last line of output that stands in a failure, in characters.
const MAX_LAST_LINE: usize = 200;
/// What lines in the output begin with that are not the program's.
const OWN_LINE: &str = "# ";

/// One run of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The program's file, or a name that the system finds.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The folder it is run in; absent for this process' own.
    pub folder: Option<PathBuf>,
    /// Variables of its environment beside those of this process; without a value the variable is taken away.
    pub environment: Vec<(&'static str, Option<OsString>)>,
    /// What it reads from its standard input; empty for nothing at all.
    pub input: Vec<u8>,
    /// How long it may take.
    pub timeout: Duration,
    /// The code of the failure where it does not succeed.
    pub code: Code,
}

/// What programs have printed, the last bytes of it. Clones share it.
#[derive(Debug, Clone)]
pub struct Output(Arc<Mutex<Tail>>);

impl Output {
    /// Keeps the last `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Tail::new(limit))))
    }

    /// What is kept. Bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    fn push(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }

    /// A line that is not the program's.
    fn note(&self, clock: &dyn Clock, what: &str) {
        self.push(format!("{OWN_LINE}{} {what}\n", clock.now()).as_bytes());
    }

    fn last_line(&self) -> String {
        let text = self.text();
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        let last = last.filter(|line| !line.starts_with(OWN_LINE)).unwrap_or_default();
        last.chars().filter(|c| !c.is_control()).take(MAX_LAST_LINE).collect()
    }
}

/// Runs a program to its end. A program that this future is dropped over is ended with its children.
///
/// # Errors
/// The call's code (retry) where it cannot be started, ends with another status than 0, or takes longer than its time limit; then
/// it is ended with its children.
pub async fn run(clock: &dyn Clock, call: &Call, output: &Output) -> Result<()> {
    let (status, last) = to_end(clock, call, output).await?;
    if status.success() { Ok(()) } else { Err(failed(call, &format!("ended with {status}{last}"))) }
}

fn failed(call: &Call, what: &str) -> Failure {
    Failure::retry(call.code, format!("the program {} {what}", call.program.display()))
}

/// As [`run`], for a program whose status says more than that it has failed.
///
/// # Errors
/// The call's code (retry) where it cannot be started, or takes longer than its time limit; then it is ended with its children.
pub async fn run_to_status(clock: &dyn Clock, call: &Call, output: &Output) -> Result<ExitStatus> {
    to_end(clock, call, output).await.map(|(status, _)| status)
}

/// How it has ended, and the last that it has said, in the words of a failure.
async fn to_end(clock: &dyn Clock, call: &Call, output: &Output) -> Result<(ExitStatus, String)> {
    let program = call.program.display();
    output.note(clock, &format!("{program} {}", call.arguments.join(" ")));
    let mut child = match command(call).spawn() {
        Ok(child) => child,
        Err(error) => {
            output.note(clock, &format!("cannot be started: {error}"));
            return Err(failed(call, "cannot be started").caused_by(error));
        }
    };
    let mut group = Group::of(&mut child);
    let mut pipes = JoinSet::new();
    if let Some(input) = child.stdin.take() {
        pipes.spawn(feed(input, call.input.clone()));
    }
    if let Some(out) = child.stdout.take() {
        pipes.spawn(drain(out, output.clone()));
    }
    if let Some(err) = child.stderr.take() {
        pipes.spawn(drain(err, output.clone()));
    }
    let ended = wait(clock, &mut child, call.timeout).await;
    if matches!(ended, Ok(Some(_))) {
        // What a program leaves running on purpose when it ends by itself is its own affair.
        group.release();
    } else {
        group.end();
        // By itself as well, where there is no group. It has ended already where that fails.
        let _ = child.start_kill();
        // Reaped here, or by the runtime where that fails.
        let _ = child.wait().await;
    }
    tokio::select! {
        () = async { while pipes.join_next().await.is_some() {} } => {}
        () = clock.sleep(OUTPUT_GRACE) => {}
    }
    drop(pipes);
    let what = match &ended {
        Ok(Some(status)) => format!("ended with {status}"),
        Ok(None) => format!("took longer than {} s and was ended with its children", call.timeout.as_secs_f64()),
        Err(_) => "cannot be waited for".to_owned(),
    };
    let last = output.last_line();
    output.note(clock, &what);
    let last = if last.is_empty() { last } else { format!("; the last it said: {last}") };
    match ended {
        Ok(Some(status)) => Ok((status, last)),
        Ok(None) => Err(failed(call, &format!("{what}{last}"))),
        Err(error) => Err(failed(call, &what).caused_by(error)),
    }
}

fn command(call: &Call) -> Command {
    let mut command = Command::new(&call.program);
    let input = if call.input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.args(&call.arguments).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(folder) = &call.folder {
        command.current_dir(folder);
    }
    for (name, value) in &call.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.kill_on_drop(true);
    Group::prepare(&mut command);
    command
}

/// The exit status; `None` where the time is over before.
async fn wait(clock: &dyn Clock, child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    tokio::select! {
        biased;
        status = child.wait() => status.map(Some),
        () = clock.sleep(limit) => Ok(None),
    }
}

/// Writes everything and closes the pipe. A program that does not read it is within its rights.
async fn feed(mut to: ChildStdin, input: Vec<u8>) {
    let _ = to.write_all(&input).await;
    let _ = to.shutdown().await;
}

/// Reads to the end, so that a program that says much is never held up; memory stays bounded.
async fn drain(mut from: impl AsyncRead + Unpin, output: Output) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(count) = from.read(&mut chunk).await {
        if count == 0 {
            return;
        }
        output.push(chunk.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use towpath_transfer::clock::ManualClock;

    use super::*;

    fn call(script: &str, input: &[u8]) -> Call {
        Call {
            program: "/bin/sh".into(),
            arguments: ["-c", script, "sh", "a b", "$(exit 9)"].map(str::to_owned).to_vec(),
            folder: None,
            environment: vec![("TOWPATH_SAID", Some("hello".into())), ("HOME", None)],
            input: input.to_vec(),
            timeout: Duration::from_secs(600),
            code: Code::AlertFailed,
        }
    }

    /// Runs it by a clock that stands still, so that no limit is reached however slow the machine.
    async fn said(script: &str, input: &[u8]) -> (Result<()>, String) {
        let output = Output::new(4096);
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        (run(&clock, &call(script, input), &output).await, output.text())
    }

    #[tokio::test]
    async fn a_program_gets_its_input_its_arguments_and_its_environment() {
        let (done, text) = said("cat; echo \"|$1|$2|$TOWPATH_SAID|${HOME-none}\"", b"{\"a\": 1}").await;
        done.unwrap();
        assert!(text.contains("{\"a\": 1}|a b|$(exit 9)|hello|none\n"), "{text}");
        let (done, text) = said("wc -c", b"").await;
        done.unwrap();
        assert!(text.contains("\n0\n"), "without input there is nothing to read: {text}");
    }

    #[tokio::test]
    async fn a_program_that_does_not_read_its_input_is_not_held_against_it() {
        let (done, _) = said("exec <&-; exit 0", &vec![b'x'; 1024 * 1024]).await;
        done.unwrap();
    }

    #[tokio::test]
    async fn a_failure_has_the_code_of_the_call_and_the_last_words() {
        let (done, _) = said("echo nobody is there >&2; exit 4", b"").await;
        let failure = done.unwrap_err();
        assert_eq!(failure.code(), Code::AlertFailed);
        let report = failure.report();
        assert!(report.contains("exit status: 4") && report.contains("the last it said: nobody is there"), "{report}");
    }
}
