use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use towpath_journal::{NoObserver, WakeUp};
use towpath_transport::{
    files::FileStore as _,
    store::{Pace, PacedConnect},
};

use super::*;
use crate::{
    layout::Layout,
    uplink::{
        self,
        tests::world::{World, at},
    },
};

/// A world whose state folder is on the disk, because the lock is.
fn world() -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new();
    world.files.create_dir_all(folder.path()).unwrap();
    world.parts.layout = Layout::new(folder.path());
    (world, folder)
}

fn pause(world: &World, until: Option<Timestamp>) {
    Pause::new(world.parts.clock.now(), until, "me", Some("ERP update")).begin(&*world.parts.files, &world.parts.layout).unwrap();
}

#[test]
fn a_pause_is_kept_ends_by_itself_or_is_ended() {
    let world = World::new();
    let (files, layout) = (&*world.parts.files, &world.parts.layout);
    let now = at("2026-03-01T12:00:00Z");
    assert_eq!(Pause::read(files, layout, now), None);
    assert_eq!(Pause::end(files, layout, now).unwrap(), None);
    let kept = Pause::new(now, Some(at("2026-03-01T14:00:00Z")), "me", Some("ERP update"));
    kept.begin(files, layout).unwrap();
    assert_eq!(Pause::read(files, layout, now), Some(kept.clone()));
    assert_eq!(Pause::read(files, layout, at("2026-03-01T14:00:00Z")), None);
    let refused = Pause::refuse(files, layout, now).unwrap_err();
    assert_eq!(refused.code(), Code::Paused);
    for told in ["paused by me since ", " until ", "(ERP update)", "towpath-agent resume"] {
        assert!(refused.to_string().contains(told), "{refused}");
    }
    assert_eq!(Pause::end(files, layout, now).unwrap(), Some(kept));
    assert!(Pause::refuse(files, layout, now).is_ok());
}

#[test]
fn texts_are_cut_and_a_damaged_pause_counts() {
    let world = World::new();
    let (files, layout) = (&*world.parts.files, &world.parts.layout);
    let now = at("2026-03-01T12:00:00Z");
    let long = "x\n".repeat(MAX_TEXT_CHARS * 2);
    let pause = Pause::new(now, None, &long, Some(&long));
    assert_eq!((pause.by.len(), pause.reason.as_ref().map(String::len)), (MAX_TEXT_CHARS, Some(MAX_TEXT_CHARS)));
    pause.begin(files, layout).unwrap();
    assert_eq!(Pause::read(files, layout, now), Some(pause));
    small_file::write(files, &layout.pause(), b"{").unwrap();
    assert!(Pause::read(files, layout, now).unwrap().to_string().contains("cannot be read"));
    Pause::end(files, layout, now).unwrap();
    assert_eq!(Pause::read(files, layout, now), None);
}

/// Tells of each file that is on its way to the relay, and pauses the agent at the first.
struct PauseAtFirst {
    layout: Layout,
    files: Arc<dyn FileStore>,
    clock: Arc<dyn towpath_transfer::Clock>,
    /// After how long the pause ends by itself.
    lasting: Option<Duration>,
    seen: AtomicU32,
}

impl crate::parts::Watcher for PauseAtFirst {
    fn progress(&self, _: towpath_transfer::TransferId, progress: &crate::parts::Progress) {
        if matches!(progress, crate::parts::Progress::Sent { .. }) && self.seen.fetch_add(1, Ordering::SeqCst) == 0 {
            let now = self.clock.now();
            Pause::new(now, self.lasting.map(|lasting| now + lasting), "me", None).begin(&*self.files, &self.layout).unwrap();
        }
    }
}

/// Lets time pass while `work_unless_paused` works, until `wanted` says that it is enough.
async fn drive(world: &World, begun: &Mutex<u32>, wanted: &mut (dyn AsyncWanted + Send)) {
    let stop = CancellationToken::new();
    let parts = Arc::new(world.parts.clone());
    let worker = Worker::start_alone(Arc::clone(&parts), WakeUp::new(), Arc::new(NoObserver)).await.unwrap();
    let work = work_unless_paused(&parts, worker, &stop, async |open| {
        *begun.lock().unwrap() += 1;
        open.cancelled().await;
    });
    let watch = async {
        while !wanted.is_enough(world).await {
            world.clock.advance(Duration::from_millis(50));
            tokio::task::yield_now().await;
        }
        stop.cancel();
        // What the drivers wait for at their end goes by the clock.
        loop {
            world.clock.advance(Duration::from_millis(50));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = work => {}
        () = watch => {}
    }
}

#[async_trait]
trait AsyncWanted {
    async fn is_enough(&mut self, world: &World) -> bool;
}

/// The transfer is imported; while the agent is paused for the first time, it is watched that nothing moves, and then resumed.
struct ResumedAndImported {
    id: towpath_transfer::TransferId,
    looks: u32,
    by_itself: bool,
    watcher: Arc<PauseAtFirst>,
    seen: u32,
}

/// Looks of 50 ms until every step has ended that ran when the pause began: 20 s to finish, 5 s to give the lease back.
const RESTING_LOOKS: u32 = 20 * 30;
/// Looks of a pause that is long enough to see that nothing goes on in it.
const PAUSED_LOOKS: u32 = 20 * 90;

#[async_trait]
impl AsyncWanted for ResumedAndImported {
    async fn is_enough(&mut self, world: &World) -> bool {
        let parts = &world.parts;
        let record = world.record(self.id).await;
        if Pause::read(&*parts.files, &parts.layout, parts.clock.now()).is_some() {
            self.looks += 1;
            let seen = self.watcher.seen.load(Ordering::SeqCst);
            if self.looks <= RESTING_LOOKS {
                self.seen = seen;
            }
            assert!(!record.state.is_final() && self.seen == seen, "nothing goes on while the agent is paused");
            if self.looks == PAUSED_LOOKS && !self.by_itself {
                Pause::end(&*parts.files, &parts.layout, parts.clock.now()).unwrap();
            }
        }
        assert!(!record.parked, "{record:?}");
        record.state.is_final()
    }
}

async fn paused_in_the_middle_of_a_push(by_itself: bool) {
    let (mut world, _folder) = world();
    // So slow that the push lasts for minutes, whatever the machine does.
    let slow = Pace::new(Arc::new(|| std::num::NonZeroU64::new(5)), world.parts.clock.clone());
    world.parts.stores = Arc::new(PacedConnect::new(world.parts.stores.clone(), slow));
    let watcher = Arc::new(PauseAtFirst {
        layout: world.parts.layout.clone(),
        files: world.parts.files.clone(),
        clock: world.parts.clock.clone(),
        lasting: by_itself.then_some(Duration::from_secs(1_800)),
        seen: AtomicU32::new(0),
    });
    world.parts.watcher = watcher.clone();
    let id = world.plan(false).await;
    let begun = Mutex::new(0);
    let mut wanted = ResumedAndImported { id, looks: 0, by_itself, watcher: watcher.clone(), seen: 0 };
    drive(&world, &begun, &mut wanted).await;
    assert!(wanted.looks >= PAUSED_LOOKS && watcher.seen.load(Ordering::SeqCst) > 0);
    assert_eq!(world.record(id).await.state.word(), "imported");
    assert_eq!(world.far.imports(), [id], "once");
    assert_eq!(*begun.lock().unwrap(), 2, "the loops beside the stages were ended and begun anew");
}

#[tokio::test]
async fn a_pause_in_the_middle_of_a_push_lets_it_go_on_after_it_was_resumed() {
    paused_in_the_middle_of_a_push(false).await;
}

#[tokio::test]
async fn a_pause_that_ends_by_itself_lets_everything_go_on() {
    paused_in_the_middle_of_a_push(true).await;
}

struct Paused(u32);

#[async_trait]
impl AsyncWanted for Paused {
    async fn is_enough(&mut self, _: &World) -> bool {
        self.0 += 1;
        self.0 > PAUSED_LOOKS
    }
}

#[tokio::test]
async fn an_agent_that_is_started_while_paused_begins_nothing_and_still_stops() {
    let (world, _folder) = world();
    pause(&world, None);
    let id = world.plan(false).await;
    let begun = Mutex::new(0);
    drive(&world, &begun, &mut Paused(0)).await;
    assert_eq!(*begun.lock().unwrap(), 0);
    assert_eq!((world.record(id).await.state.word(), *world.erp.extracts.lock().unwrap()), ("planned", 0));
}

#[tokio::test]
async fn whoever_waits_for_a_transfer_is_told_of_the_pause() {
    let (world, _folder) = world();
    let id = uplink::plan(&world.parts, &"main".parse().unwrap(), false).await.unwrap().record().key.id;
    pause(&world, None);
    let parts = Arc::new(world.parts.clone());
    let mut worker = Worker::start_alone(parts, WakeUp::new(), Arc::new(NoObserver)).await.unwrap();
    let stop = CancellationToken::new();
    let failure = worker.follow(id, crate::work::Goal::Settled, Duration::from_secs(60), &stop).await.unwrap_err();
    assert_eq!(failure.code(), Code::Paused);
}
