//! The desk: keeps the book, and tells what is owed.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock, Code, Disposition, Entropy, Failure, TransferId, failure::Result};
use towpath_transport::files::FileStore;

use crate::{
    Finding, OpenAlert,
    book::{Book, Change, Notice},
    means::{Means, Told, Way},
};

/// The pause after the first try that failed; it doubles with each further one.
pub const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause between two tries.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// What a desk touches.
#[derive(Clone)]
pub struct DeskParts {
    /// The disk.
    pub files: Arc<dyn FileStore>,
    /// The file of the book.
    pub path: PathBuf,
    /// How somebody is told.
    pub means: Arc<dyn Means>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The most alerts that are open at once; further ones wait until there is room.
    pub most: usize,
}

/// Takes what a watch finds, and tells it. One desk works on a file at a time. Clones share it.
#[derive(Clone)]
pub struct Desk {
    parts: DeskParts,
    book: Arc<Mutex<Kept>>,
    owed: [Arc<Notify>; 2],
}

struct Kept {
    book: Book,
    /// Whether the file has something else than the book.
    unwritten: bool,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Desk({})", self.parts.path.display())
    }
}

impl Desk {
    /// Opens the book. One that cannot be read is begun anew: to tell something twice is better than to tell nothing. Blocking.
    #[must_use]
    pub fn open(parts: DeskParts) -> Self {
        let book = Book::read(&*parts.files, &parts.path).unwrap_or_else(|failure| {
            tracing::error!(code = %failure.code(), error = %failure.report(), "what was alerted of is not known any more, and is told anew");
            Book::default()
        });
        let book = Arc::new(Mutex::new(Kept { book, unwritten: false }));
        Self { parts, book, owed: Default::default() }
    }

    /// Takes what a watch has found out of everything it watches, by names of its own. What it does not name is not watched any
    /// more and forgotten. It is on the disk before anybody is told.
    pub async fn look(&self, found: BTreeMap<String, Finding>) {
        let id = || TransferId::new(&*self.parts.clock, &*self.parts.entropy).to_string();
        let changes = {
            let mut kept = self.kept();
            let before = kept.book.clone();
            let changes = kept.book.look(found, self.parts.most, &id);
            kept.unwritten |= kept.book != before;
            changes
        };
        for change in &changes {
            match change {
                Change::Raised(trouble) => tracing::warn!(
                    code = %trouble.code, tenant = %trouble.tenant, agent = %trouble.agent, job = trouble.job.as_ref().map(tracing::field::display),
                    since = %trouble.since, "alert: {}", trouble.summary
                ),
                Change::Recovered(trouble) => tracing::info!(
                    tenant = %trouble.tenant, agent = %trouble.agent, job = trouble.job.as_ref().map(tracing::field::display), since = %trouble.since,
                    "the alert is over: {}", trouble.summary
                ),
            }
        }
        self.write().await;
        for owed in &self.owed {
            owed.notify_one();
        }
    }

    /// What is open.
    #[must_use]
    pub fn open_alerts(&self) -> Vec<OpenAlert> {
        self.kept().book.open()
    }

    /// Whether somebody still has to be told of something, or it is not yet on the disk that everybody was.
    #[must_use]
    pub fn owes(&self) -> bool {
        let kept = self.kept();
        kept.unwritten || Way::ALL.iter().any(|way| !kept.book.owed(*way).is_empty())
    }

    /// Tells what is owed until `shutdown` is cancelled; what is being told then is told again at the next start.
    pub async fn run(&self, shutdown: CancellationToken) {
        let work = async { tokio::join!(self.tell_by(Way::Program), self.tell_by(Way::Webhook)) };
        tokio::select! {
            _ = work => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// One way at a time, so that one that fails does not hold up the other.
    async fn tell_by(&self, way: Way) {
        let [program, webhook] = &self.owed;
        let owed = if way == Way::Program { program } else { webhook };
        let mut tries: HashMap<String, u32> = HashMap::new();
        let mut failed = 0u32;
        loop {
            let mut notices = self.kept().book.owed(way);
            tries.retain(|id, _| notices.iter().any(|notice| notice.id == *id));
            // One that fails for ever must not stand before the others.
            notices.sort_by_key(|notice| tries.get(&notice.id).copied().unwrap_or(0));
            let Some(notice) = notices.into_iter().next() else {
                failed = 0;
                owed.notified().await;
                continue;
            };
            match self.try_once(way, &notice).await {
                Ok(()) => failed = 0,
                Err(failure) => {
                    *tries.entry(notice.id).or_default() += 1;
                    let pause = pause(failed, &failure);
                    failed = failed.saturating_add(1);
                    let seconds = pause.as_secs();
                    tracing::warn!(
                        code = %Code::AlertFailed, way = way.as_str(), tries = failed, pause = seconds, error = %failure.report(),
                        "an alert was not told; it is tried again"
                    );
                    self.parts.clock.sleep(pause).await;
                }
            }
        }
    }

    async fn try_once(&self, way: Way, notice: &Notice) -> Result<()> {
        match self.parts.means.tell(way, &notice.id, &notice.alert).await {
            Ok(Told::Told) => {
                let alert = notice.alert.alert.as_str();
                tracing::info!(way = way.as_str(), alert, id = notice.id, "an alert was told");
            }
            Ok(Told::NotConfigured) => {}
            Err(failure) if failure.disposition() == Disposition::Park => tracing::error!(
                code = %Code::AlertFailed, way = way.as_str(), error = %failure.report(), "an alert was not told, and is given up"
            ),
            Err(failure) => return Err(failure),
        }
        {
            let mut kept = self.kept();
            kept.book.told(way, notice);
            kept.unwritten = true;
        }
        self.write().await;
        Ok(())
    }

    /// Writes the book where that is due. A disk that does not take it costs an alert told twice, after a restart.
    async fn write(&self) {
        let (desk, files, path) = (self.clone(), Arc::clone(&self.parts.files), self.parts.path.clone());
        let written = tokio::task::spawn_blocking(move || {
            // Held while it is written, so that an older book never takes the place of a newer one.
            let mut kept = desk.kept();
            if !kept.unwritten {
                return Ok(());
            }
            kept.book.write(&*files, &path)?;
            kept.unwritten = false;
            Ok::<(), Failure>(())
        });
        let failure = match written.await {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure,
            Err(error) => Failure::retry(Code::Internal, "writing what was alerted of").caused_by(error),
        };
        tracing::warn!(code = %failure.code(), error = %failure.report(), "what was alerted of could not be written; it is tried again");
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause that the far side asks for, or one that doubles.
fn pause(failed: u32, failure: &Failure) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(failed.min(16)));
    failure.retry_after().unwrap_or(doubled).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests;
