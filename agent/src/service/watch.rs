//! Watches the service while it runs, and tells the service manager of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::tz::TimeZone;
use towpath_host::Notifier;
use towpath_journal::{JournalError, Lease, LogObserver, Observer, StageReport, Turn};
use towpath_transfer::{Clock, Stage, state::Place};

use super::heart::{Heart, Hearts};
use crate::{parts::Parts, pause::Pause, schedule};

/// How often the status is made anew.
pub const STATUS_PAUSE: Duration = Duration::from_secs(5);

/// What goes on in the service. It also writes each stage's end to the log.
#[derive(Debug)]
pub struct Watch {
    hearts: Hearts,
    stages: Mutex<BTreeMap<&'static str, Running>>,
    log: LogObserver,
}

/// A stage of the service.
#[derive(Debug)]
struct Running {
    heart: Heart,
    steps: usize,
}

impl Watch {
    /// Nothing goes on yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { hearts: Hearts::new(clock), stages: Mutex::default(), log: LogObserver }
    }

    /// The heart of a loop beside the stages.
    #[must_use]
    pub fn heart(&self, name: &'static str) -> Heart {
        self.hearts.of(name)
    }

    /// Tells `notifier` how the service stands, and answers the watchdog as long as every loop turns, until it is dropped.
    pub async fn tell(&self, parts: &Parts, zone: &TimeZone, notifier: &Notifier) {
        if !notifier.is_heard() {
            return std::future::pending().await;
        }
        let pause = notifier.watchdog_pause().map_or(STATUS_PAUSE, |pause| pause.min(STATUS_PAUSE));
        let (mut said, mut hung) = (String::new(), false);
        loop {
            let hanging = self.hearts.hanging();
            for (name, long) in hanging.iter().filter(|_| !hung) {
                let seconds = long.as_secs();
                tracing::error!("the loop {name:?} has hung for {seconds} s: the service manager is left to restart the program");
            }
            hung = !hanging.is_empty();
            if !hung && notifier.watchdog_pause().is_some() {
                notifier.alive();
            }
            let status = self.status(parts, zone);
            if status != said {
                notifier.status(&status);
                said = status;
            }
            parts.clock.sleep(pause).await;
        }
    }

    /// One line for people.
    fn status(&self, parts: &Parts, zone: &TimeZone) -> String {
        let now = parts.clock.now();
        let config = parts.config.now();
        if let Some(pause) = Pause::read(&*parts.files, &parts.layout, now) {
            return pause.to_string();
        }
        let runs = config.jobs.iter().filter_map(|job| Some((schedule::next_begin(parts, job, now).ok()??.begins, &job.name)));
        let next = match runs.min() {
            Some((begins, job)) => format!("next run: {job} at {}", begins.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z")),
            None => "no run is scheduled".to_owned(),
        };
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let working = stages.iter().filter(|(_, running)| running.steps > 0);
        let working: Vec<String> = working.map(|(stage, running)| format!("{stage} ({})", running.steps)).collect();
        if working.is_empty() { next } else { format!("{next}; in work: {}", working.join(", ")) }
    }

    fn stage(&self, stage: Stage, change: impl FnOnce(&mut Running)) {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let name = stage.as_str();
        change(stages.entry(name).or_insert_with(|| Running { heart: self.hearts.of(name), steps: 0 }));
    }
}

impl Observer for Watch {
    fn stage_started(&self, place: Place, stage: Stage, lease: &Lease) {
        self.log.stage_started(place, stage, lease);
        self.stage(stage, |running| running.steps += 1);
    }

    fn stage_finished(&self, report: &StageReport<'_>) {
        self.log.stage_finished(report);
        self.stage(report.stage, |running| running.steps = running.steps.saturating_sub(1));
    }

    fn journal_failed(&self, place: Place, stage: Stage, error: &JournalError) {
        self.log.journal_failed(place, stage, error);
    }

    fn turned(&self, _: Place, stage: Stage, turn: Turn) {
        self.stage(stage, |running| match turn {
            Turn::Working => running.heart.works(),
            Turn::Resting => running.heart.rests(),
        });
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use towpath_transfer::Stage;

    use super::*;
    use crate::{service::heart::HEART_LIMIT, uplink::tests::world::World};

    #[tokio::test]
    async fn the_watchdog_is_answered_as_long_as_every_loop_turns() {
        let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
        let path = folder.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        heard.set_nonblocking(true).unwrap();
        let notifier = Notifier::to(path.as_os_str(), Some(Duration::from_secs(20)));
        let watch = Watch::new(Arc::clone(&world.parts.clock));
        let (schedule, zone) = (watch.heart("schedule"), TimeZone::UTC);
        let mut telling = Box::pin(watch.tell(&world.parts, &zone, &notifier));
        // Polled once, it says what there is to say and then waits for the clock.
        let mut told = async |forward: Duration| {
            world.clock.advance(forward);
            assert!(futures::poll!(&mut telling).is_pending());
            let mut messages = Vec::new();
            let mut bytes = [0; 4_096];
            while let Ok(length) = heard.recv(&mut bytes) {
                messages.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
            messages
        };
        schedule.works();
        assert_eq!(told(Duration::ZERO).await, ["WATCHDOG=1", "STATUS=next run: main at 2026-03-02 02:00 UTC"]);
        watch.turned(Place::Agent, Stage::Push, Turn::Resting);
        watch.stage(Stage::Push, |running| running.steps += 1);
        assert_eq!(told(STATUS_PAUSE).await, ["WATCHDOG=1", "STATUS=next run: main at 2026-03-02 02:00 UTC; in work: push (1)"]);
        assert_eq!(told(STATUS_PAUSE).await, ["WATCHDOG=1"], "what has not changed is not said again");
        assert!(told(HEART_LIMIT).await.is_empty(), "the schedule hangs");
        watch.turned(Place::Agent, Stage::Push, Turn::Working);
        schedule.rests();
        assert_eq!(told(STATUS_PAUSE).await, ["WATCHDOG=1"], "it goes round again");
        assert!(told(HEART_LIMIT).await.is_empty(), "a stage hangs");
    }
}
