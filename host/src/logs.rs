//! The log of every program: text on a terminal, the journal where a service manager reads standard error, one JSON object a line
//! elsewhere, and a file beside that.
//!
//! One event is one line, whatever stands in its values. An event that tells of a [`towpath_transfer::Failure`] has its code in the
//! field `code`. Nothing here ever fails the program or holds it up: what cannot be written is dropped, counted and told.

mod config;
mod event_log;
mod file;
#[cfg(unix)]
mod journald;
mod layer;
mod line;

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

pub use self::{
    config::{DEFAULT_FILES, DEFAULT_MAX_BYTES, LEAST_MAX_BYTES, Level, LogConfig, MAX_FILES},
    event_log::EventLog,
    file::{FLUSH_LIMIT, QUEUE_LINES},
    line::{Line, MAX_FIELDS, MAX_VALUE_BYTES, Value},
};
use self::{file::LogFile, layer::LineLayer};

/// The variable whose filter counts before the configured level.
pub const FILTER_VARIABLE: &str = "TOWPATH_LOG";
/// What a command beside a service says: only what is wrong.
const COMMAND_FILTER: &str = "warn";

/// The form of log lines on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object per line.
    Json,
}

/// Takes log lines. Must return quickly, and never fail.
pub trait Sink: Send + Sync {
    /// One event.
    fn write(&self, line: &Line);
}

/// The log that this process writes. Clones share it.
#[derive(Clone)]
pub struct Handle {
    filter: Option<reload::Handle<EnvFilter, Registry>>,
    file: Arc<RwLock<Option<LogFile>>>,
    serving: bool,
}

/// The one log of this process.
static LOG: OnceLock<Handle> = OnceLock::new();

/// Begins to log: to standard error in this form, or as it suits where none is said. A command beside a service says only what is
/// wrong, and writes no file. `system` takes the place of standard error where no form is said: the event log of a Windows service.
pub fn start(program: &'static str, format: Option<LogFormat>, serving: bool, system: Option<Box<dyn Sink>>) -> Handle {
    let from_environment = EnvFilter::try_from_env(FILTER_VARIABLE).ok();
    let is_fixed = from_environment.is_some() || !serving;
    let default = if serving { Level::default().as_str() } else { COMMAND_FILTER };
    let (filter, handle) = reload::Layer::new(from_environment.unwrap_or_else(|| EnvFilter::new(default)));
    let file = Arc::new(RwLock::new(None));
    let sink = system.filter(|_| format.is_none()).unwrap_or_else(|| standard_error(program, format, serving));
    let layer = LineLayer::new(sink, Arc::clone(&file));
    let started = Handle { filter: Some(handle).filter(|_| !is_fixed), file, serving };
    // Another subscriber is there already only where a test has set one.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
    let _ = LOG.set(started.clone());
    started
}

/// The log of this process, once it has begun.
#[must_use]
pub fn handle() -> Option<Handle> {
    LOG.get().cloned()
}

/// Waits, at most [`FLUSH_LIMIT`], until what was logged is in the file. For the end of a program.
pub fn flush() {
    if let Some(handle) = LOG.get() {
        handle.flush();
    }
}

impl Handle {
    /// Puts a configuration in force, at the start and at every reload. A command beside a service has neither level nor file of it.
    pub fn apply(&self, config: &LogConfig) {
        if !self.serving {
            return;
        }
        self.set_level(config.level);
        let mut file = self.file.write().unwrap_or_else(PoisonError::into_inner);
        if file.as_ref().map(LogFile::settings) != config.file_settings().as_ref() {
            *file = config.file_settings().map(LogFile::start);
        }
    }

    /// Logs from this level on. Says whether that is so: the environment's filter counts before it.
    pub fn set_level(&self, level: Level) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.reload(EnvFilter::new(level.as_str())).is_ok())
    }

    /// As [`flush`].
    pub fn flush(&self) {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(file) = file {
            file.flush();
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("serving", &self.serving).finish_non_exhaustive()
    }
}

/// Where standard error leads.
fn standard_error(program: &'static str, format: Option<LogFormat>, serving: bool) -> Box<dyn Sink> {
    #[cfg(unix)]
    if format.is_none()
        && serving
        && let Some(journal) = journald::Journal::of_standard_error(program)
    {
        return Box::new(journal);
    }
    #[cfg(not(unix))]
    let _ = program;
    let terminal = io::stderr().is_terminal();
    let json = match format {
        Some(format) => format == LogFormat::Json,
        None => !terminal && serving,
    };
    Box::new(StandardError { json, colours: terminal && std::env::var_os("NO_COLOR").is_none() })
}

/// Lines on standard error.
struct StandardError {
    json: bool,
    colours: bool,
}

impl Sink for StandardError {
    fn write(&self, line: &Line) {
        let text = if self.json { line.json() } else { line.text(self.colours) };
        // Where standard error is closed there is nobody to tell.
        let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
    }
}
