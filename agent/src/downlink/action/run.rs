//! Runs a program after a delivery: an argument list and never a shell, with a time limit, its output kept.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    task::JoinSet,
};
use towpath_transfer::{Clock, Code, Failure, FileName, failure::Result, manifest::MAX_RETURN_FILES};
use towpath_transport::files::FileStore;

use super::{ActionFile, ActionOf, tail::Tail};
use crate::{blocking::blocking, config::RunConfig, small_file, uplink::folder};

/// The most bytes of output that are kept of all runs for one transfer together: the last ones.
pub const MAX_OUTPUT_BYTES: usize = 256 * 1024;
/// How long output is still read after the program has ended: something that it has left running may hold the pipe.
pub const OUTPUT_GRACE: Duration = Duration::from_secs(2);
/// Bytes of output read at a time.
const CHUNK: usize = 8 * 1024;
/// The longest last line of output that stands in a failure, in characters.
const MAX_LAST_LINE: usize = 200;
/// The largest note of finished runs, in bytes.
const MAX_NOTE_BYTES: usize = MAX_RETURN_FILES * 512;
/// What the agent's own lines in the output begin with.
const OWN_LINE: &str = "# ";

/// Runs the program: for each file where its arguments name `{file}`, else once. A file for which it has succeeded is not given to
/// it again because another one fails.
///
/// # Errors
/// `action-failed` (retry) where it cannot be started, ends with another status than 0, or takes longer than its time limit.
pub async fn run(files: &Arc<dyn FileStore>, clock: &dyn Clock, config: &RunConfig, of: &ActionOf) -> Result<()> {
    let log = Log { files, path: &of.log, tail: Arc::new(Mutex::new(Tail::new(MAX_OUTPUT_BYTES))) };
    if !config.is_per_file() {
        let only = match of.files.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        let done = once(clock, config, of, only, &log).await;
        log.write().await?;
        return done;
    }
    let mut finished: Vec<FileName> = folder::noted(&**files, &of.done, MAX_NOTE_BYTES)?.unwrap_or_default();
    for file in &of.files {
        if finished.contains(&file.name) {
            continue;
        }
        let done = once(clock, config, of, Some(file), &log).await;
        log.write().await?;
        done?;
        finished.push(file.name.clone());
        folder::note(&**files, &of.done, &finished)?;
    }
    Ok(())
}

/// What the programs have printed, and when.
struct Log<'a> {
    files: &'a Arc<dyn FileStore>,
    path: &'a Path,
    tail: Arc<Mutex<Tail>>,
}

impl Log<'_> {
    fn push(&self, bytes: &[u8]) {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }

    fn text(&self) -> String {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    async fn write(&self) -> Result<()> {
        let (files, path, text) = (Arc::clone(self.files), self.path.to_owned(), self.text());
        blocking(move || small_file::write(&*files, &path, text.as_bytes())).await
    }

    fn last_line(&self) -> String {
        let text = self.text();
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        let last = last.filter(|line| !line.starts_with(OWN_LINE)).unwrap_or_default();
        last.chars().filter(|c| !c.is_control()).take(MAX_LAST_LINE).collect()
    }
}

async fn once(clock: &dyn Clock, config: &RunConfig, of: &ActionOf, file: Option<&ActionFile>, log: &Log<'_>) -> Result<()> {
    let program = config.program.display();
    let failed = |what: String| Failure::retry(Code::ActionFailed, format!("the program {program} {what}"));
    let arguments = config.arguments_for(of, file);
    log.push(format!("{OWN_LINE}{} {program} {}\n", clock.now(), arguments.join(" ")).as_bytes());
    let mut child = match command(config, of, file, &arguments).spawn() {
        Ok(child) => child,
        Err(error) => {
            log.push(format!("{OWN_LINE}{} cannot be started: {error}\n", clock.now()).as_bytes());
            return Err(failed("cannot be started".into()).caused_by(error));
        }
    };
    let mut group = Group { id: child.id(), armed: true };
    let mut pipes = JoinSet::new();
    if let Some(out) = child.stdout.take() {
        pipes.spawn(drain(out, Arc::clone(&log.tail)));
    }
    if let Some(err) = child.stderr.take() {
        pipes.spawn(drain(err, Arc::clone(&log.tail)));
    }
    let ended = wait(clock, &mut child, config.timeout).await;
    if !matches!(ended, Ok(Some(_))) {
        group.kill();
        // Reaped here, or by the runtime where that fails.
        let _ = child.wait().await;
    }
    // What a program leaves running on purpose when it ends by itself is its own affair.
    group.armed = false;
    tokio::select! {
        () = async { while pipes.join_next().await.is_some() {} } => {}
        () = clock.sleep(OUTPUT_GRACE) => {}
    }
    drop(pipes);
    let what = match &ended {
        Ok(Some(status)) => format!("ended with {status}"),
        Ok(None) => format!("took longer than {} s and was ended with its children", config.timeout.as_secs_f64()),
        Err(_) => "cannot be waited for".to_owned(),
    };
    let last = log.last_line();
    log.push(format!("{OWN_LINE}{} {what}\n", clock.now()).as_bytes());
    let last = if last.is_empty() { last } else { format!("; the last it said: {last}") };
    match ended {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(_) => Err(failed(format!("{what}{last}"))),
        Err(error) => Err(failed(what).caused_by(error)),
    }
}

fn command(config: &RunConfig, of: &ActionOf, file: Option<&ActionFile>, arguments: &[String]) -> Command {
    let mut command = Command::new(&config.program);
    command.args(arguments).current_dir(&of.folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("TOWPATH_TRANSFER", of.transfer.to_string()).env("TOWPATH_KIND", of.kind.as_str());
    command.env("TOWPATH_FOLDER", &of.folder);
    match file {
        Some(file) => command.env("TOWPATH_FILE", &file.delivered),
        None => command.env_remove("TOWPATH_FILE"),
    };
    command.kill_on_drop(true);
    // A group of its own, so that its children can be ended with it.
    #[cfg(unix)]
    command.process_group(0);
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

/// Reads to the end, so that a program that says much is never held up; memory stays bounded.
async fn drain(mut from: impl AsyncRead + Unpin, tail: Arc<Mutex<Tail>>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(count) = from.read(&mut chunk).await {
        if count == 0 {
            return;
        }
        tail.lock().unwrap_or_else(PoisonError::into_inner).push(chunk.get(..count).unwrap_or_default());
    }
}

/// The program and every process it has started, ended when this is dropped before the program has ended.
struct Group {
    id: Option<u32>,
    armed: bool,
}

impl Group {
    #[cfg(unix)]
    fn kill(&mut self) {
        self.armed = false;
        let group = self.id.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group
            && let Err(error) = rustix::process::kill_process_group(group, rustix::process::Signal::KILL)
        {
            tracing::warn!(%error, "the program's processes were not ended");
        }
    }

    /// Windows has no process groups that can be ended; its own tool ends a tree.
    #[cfg(not(unix))]
    fn kill(&mut self) {
        self.armed = false;
        let Some(id) = self.id else { return };
        let mut tool = std::process::Command::new("taskkill");
        tool.args(["/T", "/F", "/PID", &id.to_string()]);
        if let Err(error) = tool.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status() {
            tracing::warn!(%error, "the program's processes were not ended");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.armed {
            self.kill();
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
