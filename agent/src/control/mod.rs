//! The channel between the commands and the agent that runs: on this host only, for the state folder's owner and for root.
//!
//! One request for each connection, one answer to it, each a line of JSON with the [`VERSION`] of this protocol. On Unix it is a
//! socket in the state folder, on Windows a named pipe whose name comes from the folder's path. [`Listener`] is served by `run`;
//! [`ask`] is what a command does.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod running;
mod server;
#[cfg(unix)]
#[path = "unix.rs"]
mod system;
#[cfg(windows)]
#[path = "windows.rs"]
mod system;

#[cfg(test)]
mod tests;

use std::{io, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use towpath_keys::KeyKind;
use towpath_transfer::{
    Clock, Code, Disposition, Failure,
    digest::Sha256Digest,
    failure::{FailureRecord, Result},
};

pub use self::{
    running::Running,
    server::{Answers, Listener},
};
use crate::{doctor::Check, layout::Layout, reload::Reloaded, rotation::Rotated, view::FailureView};

/// The version of this protocol. The two sides come from one package and have the same, except between an update and the restart
/// of the service.
pub const VERSION: u32 = 1;
/// The longest request, in bytes.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// The longest answer, in bytes.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// The most connections that are served at once; further ones wait.
pub const MAX_CONNECTIONS: usize = 8;
/// How long it may take to connect, to send a request, and to take an answer.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the running agent may work on a request.
pub const WORK_TIMEOUT: Duration = Duration::from_secs(180);

/// What a command asks of the running agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Look for work now: something was planned or released.
    Wake,
    /// Look at what depends on the account that the agent runs as: sources, secrets, folders.
    Doctor,
    /// Read the configuration again.
    Reload,
    /// Change the agent's key.
    RotateKey {
        /// For how long the old key stays good.
        overlap: Duration,
        /// What kind of key follows.
        kind: KeyKind,
    },
    /// Say which version runs.
    Version,
    /// Begin nothing new, because an update is about to be applied; where no transfer is open.
    Hold,
    /// Begin again what is due.
    GoOn,
}

/// What the running agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done, and there is nothing to say.
    Done,
    /// What was found by the agent itself.
    Checked {
        /// The user that it runs as.
        user: String,
        /// Stands for the configuration that it works with.
        configuration: Sha256Digest,
        /// Its checks, in order.
        checks: Vec<Check>,
    },
    /// The configuration was read again.
    Reloaded(Reloaded),
    /// The key was changed.
    Rotated(Rotated),
    /// This runs.
    Version {
        /// The version of its package, as it was when this process began.
        version: String,
    },
    /// Nothing new begins, or transfers are open that keep it from that.
    Held {
        /// How many.
        open: usize,
    },
}

/// A line of either side: its version, and what it says.
#[derive(Debug, Serialize, Deserialize)]
struct Line<T> {
    version: u32,
    #[serde(flatten)]
    says: T,
}

/// The part of a line that every version has.
#[derive(Debug, Deserialize)]
struct Version {
    version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    Answer(Answer),
    Failure(FailureRecord),
}

/// What is told of a failure; the code stands beside the message, and whoever reports it again appends it again.
fn refused(failure: &Failure) -> FailureRecord {
    let record = FailureRecord::from(failure);
    FailureRecord { report: FailureView::from(&record).report, ..record }
}

fn as_failure(told: FailureRecord) -> Failure {
    match told.disposition {
        Disposition::Retry => Failure::retry(told.code, told.report),
        Disposition::Park => Failure::park(told.code, told.report),
    }
}

/// Asks the agent that runs on a state folder, and waits for its answer.
///
/// # Errors
/// `not-running` where none does; `file-failed` where this user may not ask it; `request-invalid` where it is of another version or
/// its answer cannot be read; `cancelled` where it does not answer within [`WORK_TIMEOUT`] and twice [`MESSAGE_TIMEOUT`]; and what it answers itself.
pub async fn ask(layout: &Layout, clock: &dyn Clock, request: &Request) -> Result<Answer> {
    let stream = within(clock, MESSAGE_TIMEOUT, system::connect(layout, clock)).await?;
    let stream = stream.map_err(|error| not_connected(layout, error))?;
    converse(stream, clock, request).await
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, clock: &dyn Clock, request: &Request) -> Result<Answer> {
    let line = line(Asked { request: request.clone() }, MAX_REQUEST_BYTES)?;
    let mut stream = BufReader::new(stream);
    let broken = |error: io::Error| Failure::retry(Code::NotRunning, "the running agent broke off").caused_by(error);
    within(clock, MESSAGE_TIMEOUT, stream.write_all(&line)).await?.map_err(broken)?;
    let answer = within(clock, MESSAGE_TIMEOUT + WORK_TIMEOUT, read_line(&mut stream, MAX_ANSWER_BYTES)).await?;
    match parse::<Said>(&answer.map_err(broken)?, "the running agent's answer")? {
        Said::Answer(answer) => Ok(answer),
        Said::Failure(told) => Err(as_failure(told)),
    }
}

/// The failure of every command that needs a running agent.
#[must_use]
pub fn not_running(layout: &Layout) -> Failure {
    let message = format!(
        "no towpath-agent runs on the state folder {}: start its service, or run: towpath-agent run",
        layout.state().display()
    );
    Failure::park(Code::NotRunning, message)
}

fn not_connected(layout: &Layout, error: io::Error) -> Failure {
    match error.kind() {
        // A socket without anybody behind it is what a process leaves that was killed.
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => not_running(layout),
        #[cfg(unix)]
        _ if error.get_ref().is_some_and(|why| why.is::<system::Stranger>()) => {
            let message = format!("what answers on {} is not its agent", layout.state().display());
            Failure::park(Code::FileFailed, message).caused_by(error)
        }
        _ => {
            let folder = layout.state().display();
            let message = format!(
                "the agent that runs on {folder} cannot be asked; this command must be run by the folder's owner or by the \
                 administrator"
            );
            Failure::park(Code::FileFailed, message).caused_by(error)
        }
    }
}

async fn within<T>(clock: &dyn Clock, limit: Duration, work: impl Future<Output = T>) -> Result<T> {
    tokio::select! {
        done = work => Ok(done),
        () = clock.sleep(limit) => {
            let message = format!("the running agent has not answered within {} seconds", limit.as_secs());
            Err(Failure::retry(Code::Cancelled, message))
        }
    }
}

fn line<T: Serialize>(says: T, limit: usize) -> Result<Vec<u8>> {
    let failed = |why: String| Failure::park(Code::Internal, "writing a line of the control channel").caused_by(why);
    let mut bytes = serde_json::to_vec(&Line { version: VERSION, says }).map_err(|error| failed(error.to_string()))?;
    bytes.push(b'\n');
    if bytes.len() > limit {
        return Err(failed(format!("it is longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// A line without its end.
async fn read_line(stream: &mut (impl tokio::io::AsyncBufRead + Unpin), limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(limit as u64).read_until(b'\n', &mut bytes).await?;
    match bytes.pop() {
        Some(b'\n') => Ok(bytes),
        _ if bytes.len() + 1 >= limit => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line is longer than {limit} bytes")))
        }
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The pipe of a state folder. Paths of Windows mean the same in either case.
#[cfg(any(windows, test))]
fn pipe_name(folder: &std::path::Path) -> String {
    let folder = std::fs::canonicalize(folder).or_else(|_| std::path::absolute(folder)).unwrap_or_else(|_| folder.to_owned());
    let digest = Sha256Digest::of(folder.to_string_lossy().to_lowercase().as_bytes());
    format!(r"\\.\pipe\towpath-agent-{digest}")
}

/// Looks at the version first: what another one says may have any form.
fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    let wrong = |why: &str| Failure::park(Code::RequestInvalid, format!("{what} {why}"));
    let head: Version = serde_json::from_slice(bytes).map_err(|error| wrong("is not of the control channel").caused_by(error))?;
    if head.version != VERSION {
        let why = format!(
            "is of version {} of the control channel, and this side knows {VERSION}: the command and the service come from \
             different versions of Towpath; restart the service",
            head.version
        );
        return Err(wrong(&why));
    }
    let line: Line<T> = serde_json::from_slice(bytes).map_err(|error| {
        wrong("is not known here: the command and the service come from different versions of Towpath; restart the service")
            .caused_by(error)
    })?;
    Ok(line.says)
}
