//! The pause switch: while it is on nothing begins, and everything open waits where it is.

use std::{fmt, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Code, Failure, failure::Result};
use towpath_transport::files::{FileStore, file_failure};

use crate::{layout::Layout, parts::Parts, small_file, work::Worker};

/// How often the agent that runs looks whether it is to pause, or to go on.
pub const LOOK: Duration = Duration::from_secs(1);
/// The most characters of a reason, and of who has paused the agent.
pub const MAX_TEXT_CHARS: usize = 200;
/// The longest pause that ends by itself.
pub const MAX_PAUSE_DAYS: i64 = 366;
/// Larger than any that is written.
const MAX_BYTES: usize = 8 * 1024;

/// A pause of the whole agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it began.
    pub since: Timestamp,
    /// When it ends by itself; `None` where somebody must resume the agent.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Who has paused the agent, as far as that is known.
    pub by: String,
    /// Why, where that was said.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Pause {
    /// A pause from now on; texts beyond [`MAX_TEXT_CHARS`] are cut.
    #[must_use]
    pub fn new(now: Timestamp, until: Option<Timestamp>, by: &str, reason: Option<&str>) -> Self {
        let cut = |text: &str| text.chars().filter(|c| !c.is_control()).take(MAX_TEXT_CHARS).collect::<String>();
        Self { since: now, until, by: cut(by), reason: reason.map(cut).filter(|reason| !reason.is_empty()) }
    }

    /// The pause in force; one that is over is none. One that cannot be read counts: whoever has paused the agent relies on it.
    #[must_use]
    pub fn read(files: &dyn FileStore, layout: &Layout, now: Timestamp) -> Option<Self> {
        let path = layout.pause();
        let damaged = |why: &dyn fmt::Display| {
            let reason = format!("{} cannot be read: {why}", path.display());
            Self::new(Timestamp::UNIX_EPOCH, None, "somebody", Some(&reason))
        };
        let pause = match small_file::read(files, &path, MAX_BYTES) {
            Ok(None) => return None,
            Ok(Some(bytes)) => serde_json::from_slice::<Self>(&bytes).unwrap_or_else(|error| damaged(&error)),
            Err(failure) => damaged(&failure.report()),
        };
        pause.until.is_none_or(|until| until > now).then_some(pause)
    }

    /// Puts the pause in force, in the place of any other.
    ///
    /// # Errors
    /// As the disk reports.
    pub fn begin(&self, files: &dyn FileStore, layout: &Layout) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::park(Code::Internal, "writing the pause as JSON").caused_by(error))?;
        small_file::write(files, &layout.pause(), &bytes)
    }

    /// Ends the pause in force and returns it; `None` where there was none.
    ///
    /// # Errors
    /// As the disk reports.
    pub fn end(files: &dyn FileStore, layout: &Layout, now: Timestamp) -> Result<Option<Self>> {
        let pause = Self::read(files, layout, now);
        let path = layout.pause();
        match files.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file_failure("removing", &path, error)),
            _ => {
                files.sync_dir(layout.state()).map_err(|error| file_failure("syncing", layout.state(), error))?;
                Ok(pause)
            }
        }
    }

    /// Refuses work that a person asks for.
    ///
    /// # Errors
    /// `paused` where the agent is.
    pub fn refuse(files: &dyn FileStore, layout: &Layout, now: Timestamp) -> Result<()> {
        Self::read(files, layout, now).map_or(Ok(()), |pause| Err(pause.refusal()))
    }

    /// Why nothing is done while the pause is in force.
    #[must_use]
    pub fn refusal(&self) -> Failure {
        Failure::park(Code::Paused, format!("the agent is {self}; end the pause with: towpath-agent resume"))
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |at: Timestamp| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M %Z").to_string();
        write!(f, "paused by {} since {}", self.by, told(self.since))?;
        match self.until {
            Some(until) => write!(f, " until {}", told(until))?,
            None => write!(f, " until somebody resumes it")?,
        }
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

/// Works until `stop` is cancelled, but not while the agent is paused: then no stage begins, and `work` is ended and begun anew
/// afterwards. `work` is to end when its token is cancelled.
pub async fn work_unless_paused(
    parts: &Parts,
    mut worker: Worker,
    stop: &CancellationToken,
    work: impl AsyncFn(CancellationToken),
) {
    let mut told: Option<Pause> = None;
    while !stop.is_cancelled() {
        if let Some(pause) = Pause::read(&*parts.files, &parts.layout, parts.clock.now()) {
            if told.as_ref() != Some(&pause) {
                tracing::warn!(code = %Code::Paused, "{pause}");
                told = Some(pause);
            }
            look_again(parts, stop).await;
            continue;
        }
        if told.take().is_some() {
            tracing::info!("the pause is over; going on");
        }
        if let Err(failure) = worker.go_on().await {
            tracing::error!(code = %failure.code(), "cannot go on after a pause: {}", failure.report());
            look_again(parts, stop).await;
            continue;
        }
        let open = stop.child_token();
        let until_paused = async {
            while !stop.is_cancelled() && Pause::read(&*parts.files, &parts.layout, parts.clock.now()).is_none() {
                look_again(parts, stop).await;
            }
            open.cancel();
            worker.rest().await;
        };
        tokio::join!(work(open.clone()), until_paused);
    }
    worker.stop().await;
}

async fn look_again(parts: &Parts, stop: &CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = parts.clock.sleep(LOOK) => {}
    }
}

#[cfg(test)]
mod tests;
