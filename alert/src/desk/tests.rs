//! With means that fail by plan, by a clock that stands still, and over a disk that fails.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use tokio::sync::mpsc;
use towpath_transfer::clock::{ManualClock, SeededEntropy};
use towpath_transport::files::{FaultFiles, FileFault, MemoryFiles};

use super::*;
use crate::{Alert, Kind, Trouble};

const STATE: &str = "/state";

/// Says what was told, and fails as often as it is to.
struct Planned {
    told: mpsc::UnboundedSender<(Way, String, Alert)>,
    failures: AtomicUsize,
    failure: fn() -> Failure,
}

#[async_trait]
impl Means for Planned {
    async fn tell(&self, way: Way, id: &str, alert: &Alert) -> Result<Told> {
        if way == Way::Webhook {
            return Ok(Told::NotConfigured);
        }
        let _ = self.told.send((way, id.to_owned(), alert.clone()));
        let left = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { Err((self.failure)()) } else { Ok(Told::Told) }
    }
}

struct World {
    files: Arc<dyn FileStore>,
    clock: ManualClock,
    told: mpsc::UnboundedReceiver<(Way, String, Alert)>,
    desk: Desk,
    planned: Arc<Planned>,
}

fn retry() -> Failure {
    Failure::retry(Code::AlertFailed, "nobody is there")
}

impl World {
    fn new(failures: usize, failure: fn() -> Failure) -> Self {
        let files = MemoryFiles::new();
        files.create_dir_all(Path::new(STATE)).unwrap();
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let (sender, told) = mpsc::unbounded_channel();
        let planned = Arc::new(Planned { told: sender, failures: AtomicUsize::new(failures), failure });
        let files: Arc<dyn FileStore> = Arc::new(files);
        let desk = open(&files, &clock, &planned);
        Self { files, clock, told, desk, planned }
    }

    /// The program is started anew.
    fn restart(&mut self) {
        self.desk = open(&self.files, &self.clock, &self.planned);
    }

    async fn look(&self, finding: Finding) {
        self.desk.look(BTreeMap::from([("job:main".to_owned(), finding)])).await;
    }

    /// Runs the desk until this was told, while time passes.
    async fn next(&mut self) -> (Kind, String) {
        let (clock, desk) = (self.clock.clone(), self.desk.clone());
        let pump = async {
            loop {
                clock.advance(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            told = self.told.recv() => told.map(|(_, id, alert)| (alert.alert, id)).unwrap(),
            () = desk.run(CancellationToken::new()) => unreachable!("nobody stops it"),
            () = pump => unreachable!("the clock never stops"),
        }
    }

    /// Runs the desk until nothing is owed.
    async fn settle(&mut self) {
        let (clock, desk) = (self.clock.clone(), self.desk.clone());
        let settled = async {
            while Way::ALL.iter().any(|way| !desk.kept().book.owed(*way).is_empty()) || desk.kept().unwritten {
                clock.advance(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = settled => {}
            () = desk.run(CancellationToken::new()) => unreachable!("nobody stops it"),
        }
    }

    fn all_told(&mut self) -> Vec<(Kind, String)> {
        let mut all = Vec::new();
        while let Ok((_, id, alert)) = self.told.try_recv() {
            all.push((alert.alert, id));
        }
        all
    }
}

fn open(files: &Arc<dyn FileStore>, clock: &ManualClock, planned: &Arc<Planned>) -> Desk {
    Desk::open(DeskParts {
        files: Arc::clone(files),
        path: Path::new(STATE).join("alerts.json"),
        means: Arc::clone(planned) as Arc<dyn Means>,
        clock: Arc::new(clock.clone()),
        entropy: Arc::new(SeededEntropy::new(7)),
        most: 10,
    })
}

fn wrong() -> Finding {
    Finding::Wrong(Box::new(Trouble {
        agent: "erp".parse().unwrap(),
        tenant: "acme".parse().unwrap(),
        job: Some("main".parse().unwrap()),
        code: Code::ErpMissing,
        summary: "line one\nline two".to_owned(),
        since: "2026-01-01T00:00:00Z".parse().unwrap(),
        transfer: None,
    }))
}

#[tokio::test]
async fn an_alert_is_told_once_and_a_restart_tells_nothing_anew() {
    let mut world = World::new(0, retry);
    world.look(wrong()).await;
    let (kind, id) = world.next().await;
    assert_eq!(kind, Kind::Raised);
    world.settle().await;
    world.restart();
    world.look(wrong()).await;
    world.settle().await;
    assert!(world.all_told().is_empty() && world.desk.open_alerts()[0].told);
    world.look(Finding::Well).await;
    assert_eq!(world.next().await, (Kind::Recovered, id.replace("raised", "recovered")));
    world.settle().await;
    world.restart();
    assert!(world.desk.open_alerts().is_empty());
}

#[tokio::test]
async fn what_fails_is_told_again_under_the_same_name_also_after_a_restart() {
    let mut world = World::new(3, retry);
    world.look(wrong()).await;
    let first = world.next().await;
    world.restart();
    assert_eq!(world.next().await, first);
    world.settle().await;
    assert_eq!(world.all_told(), [first.clone(), first]);
}

#[tokio::test]
async fn what_is_of_no_use_is_given_up() {
    let mut world = World::new(1, || Failure::park(Code::AlertFailed, "410"));
    world.look(wrong()).await;
    world.settle().await;
    assert_eq!(world.all_told().len(), 1);
}

#[test]
fn pauses_grow_and_are_bounded() {
    let pauses = [0, 1, 2, 30].map(|failed| pause(failed, &retry()).as_secs());
    assert_eq!(pauses, [5, 10, 20, 3600]);
    assert_eq!(pause(0, &retry().after(Duration::from_secs(90))).as_secs(), 90);
    assert_eq!(pause(9, &retry().after(Duration::from_secs(1_000_000))), LONGEST_PAUSE);
}

/// Ends the desk after each single effect on the disk, as a crash would, and goes on with what is there then.
#[tokio::test]
async fn wherever_a_crash_comes_everything_is_told_and_in_its_order() {
    for effect in 1..12 {
        for fault in [FileFault::Before(io::ErrorKind::Other), FileFault::After(io::ErrorKind::Other)] {
            let mut world = World::new(0, retry);
            let sound = Arc::clone(&world.files);
            world.files = Arc::new(FaultFiles::new(Arc::clone(&sound), fault.on_effect(effect)));
            world.restart();
            world.look(wrong()).await;
            world.next().await;
            // The process is gone; its memory with it.
            world.files = sound;
            world.restart();
            world.look(wrong()).await;
            world.settle().await;
            world.restart();
            world.look(Finding::Well).await;
            world.settle().await;
            let told: Vec<Kind> = world.all_told().into_iter().map(|(kind, _)| kind).collect();
            assert_eq!(told.last(), Some(&Kind::Recovered), "effect {effect}");
            assert_eq!(told.iter().filter(|kind| **kind == Kind::Recovered).count(), 1);
            assert!(told.len() <= 2, "told at most once more: {told:?}");
        }
    }
}
