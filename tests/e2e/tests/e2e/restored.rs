//! A relay that was restored from last night's backup, in one process over the seams: whatever the night was in the middle of and
//! however far the day has come since, with its files, without them or with only its database put back. Nothing is lost, nothing
//! is doubled, and nobody lends a hand.

use std::{path::Path, sync::Arc, time::Duration};

use towpath_journal::{FailPoints, Point};
use towpath_testkit::{
    RECOVERY,
    seams::{Backup, Ends, Seams, Signed, Spot, StopAt, rows},
};
use towpath_transfer::{
    Clock as _, Stage, TransferId, TransferState,
    receipt::ReceiptStage,
    state::{Outcome, Place},
};
use towpath_transport::files::FileStore as _;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Where the relay has its files.
const SPOOL: &str = "/relay/spool";
const CONTENT: &[u8] = b"item_no,quantity\r\nA-1,7\r\n";
/// How long the app server is off before.
const OUTAGE: Duration = Duration::from_secs(20 * 60);

fn nowhere() -> Arc<dyn FailPoints> {
    Arc::new(StopAt::nowhere())
}

/// What is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restored {
    Everything,
    AllButTheSpool,
    TheDatabaseAlone,
}

const ALL: [Restored; 3] = [Restored::Everything, Restored::AllButTheSpool, Restored::TheDatabaseAlone];

/// How far everything had come when the relay was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Day {
    /// The receiver is off since the night.
    WithoutReceiver,
    /// The agent is off since it has sent, or since the night.
    WithoutAgent,
    /// Everything is over.
    Over,
}

const DAYS: [Day; 3] = [Day::WithoutReceiver, Day::WithoutAgent, Day::Over];

/// The relay's power goes, its disk is lost, the backup is put on a new one, and it is switched on; so is whatever was off.
async fn restore(world: &mut Seams, night: &Backup, what: Restored, off: Option<Place>) {
    world.relay.machine.crash().await;
    world.relay.machine.put_back(night, what != Restored::TheDatabaseAlone);
    if what == Restored::AllButTheSpool {
        world.relay.machine.disk.remove_dir_all(Path::new(SPOOL)).unwrap();
    }
    world.restart(Place::Relay, nowhere()).await;
    if let Some(place) = off {
        world.restart(place, nowhere()).await;
    }
}

/// The relay stands still at `spot`, or nowhere, once; returns the backup that is made then.
async fn backup_at(world: &mut Seams, stop: Option<&StopAt>) -> Backup {
    let Some(stop) = stop else { return world.relay.machine.backup() };
    world.until("the relay stands where the night finds it", async |_| stop.has_stopped()).await;
    let night = world.relay.machine.backup();
    world.relay.machine.crash().await;
    world.restart(Place::Relay, nowhere()).await;
    night
}

/// Nights of a relay in the middle of an uplink; the first knows nothing of it yet.
const UPLINK_NIGHTS: [Option<Spot>; 4] = [
    None,
    Some((Place::Relay, Stage::Accept, Point::BeforeEffect)),
    Some((Place::Relay, Stage::Accept, Point::AfterJournal)),
    Some((Place::Relay, Stage::Forward, Point::AfterJournal)),
];

#[tokio::test]
async fn an_uplink_that_was_under_way_is_imported_once() {
    for night in UPLINK_NIGHTS {
        for day in DAYS {
            for what in ALL {
                uplink(night, day, what).await;
            }
        }
    }
}

async fn uplink(at: Option<Spot>, day: Day, what: Restored) {
    let told = format!("a night at {at:?}, a day {day:?}, restored {what:?}");
    let mut world = Seams::new(&["acme"], DAY).await;
    let stop = at.map(|spot| Arc::new(StopAt::new(spot, 1)));
    let points = stop.clone().map_or_else(nowhere, |stop| stop as Arc<dyn FailPoints>);
    world.start(&points).await;
    let mut night = None;
    if at.is_none() {
        night = Some(backup_at(&mut world, None).await);
    }
    let id = world.tenant(0).agent.plan(false).await;
    let night = match night {
        Some(night) => night,
        None => backup_at(&mut world, stop.as_deref()).await,
    };
    let key = world.tenant(0).agent.key(id);
    let off = match day {
        Day::WithoutReceiver => {
            world.crash(Place::Receiver).await;
            let accepted =
                async |world: &Seams| matches!(world.tenant(0).agent.record(id).await.state, TransferState::Accepted { .. });
            world.until(&format!("the agent has the first receipt, {told}"), accepted).await;
            Some(Place::Receiver)
        }
        Day::WithoutAgent => {
            // The receiver is off until the agent is, so that the agent cannot be through before it is looked at.
            world.crash(Place::Receiver).await;
            let pushed = |state: &TransferState| matches!(state, TransferState::Pushed { .. } | TransferState::Accepted { .. });
            let sent = async |world: &Seams| pushed(&world.tenant(0).agent.record(id).await.state);
            world.until(&format!("the agent has sent, {told}"), sent).await;
            world.crash(Place::Agent).await;
            world.restart(Place::Receiver, nowhere()).await;
            let imported = async |world: &Seams| {
                world.tenant(0).receiver.record(&key).await.is_some_and(|record| record.state == TransferState::Imported)
            };
            world.until(&format!("the receiver has imported, {told}"), imported).await;
            Some(Place::Agent)
        }
        Day::Over => {
            world.until_over(&told, world.tenant(0), id).await;
            None
        }
    };
    let before = world.signed(world.tenant(0), id).imported;
    restore(&mut world, &night, what, off).await;
    let ends = world.tenant(0);
    let signed = Signed { accepted: None, imported: before };
    // Where both ends are through with it and the relay has nothing to go on with, there is nothing left to do.
    if day != Day::Over {
        world.until_over(&told, ends, id).await;
        world.check(&told, ends, id, &signed).await;
    }
    let next = ends.agent.plan(false).await;
    world.until_over(&format!("{told}, the next"), ends, next).await;
    world.check(&format!("{told}, the next"), ends, next, &Signed::default()).await;
    let imports = rows(&ends.receiver.database(&key.agent), "SELECT transfer FROM towpath_imports ORDER BY sequence").await;
    assert_eq!(imports, [id.to_string(), next.to_string()], "{told}");
    assert_eq!(ends.receiver.receipt(&key, ReceiptStage::Imported), world.signed(ends, id).imported, "{told}");
}

#[tokio::test]
async fn a_relay_that_has_lost_its_files_goes_on_within_a_minute() {
    let mut world = Seams::new(&["acme"], DAY).await;
    world.start(&nowhere()).await;
    world.crash(Place::Receiver).await;
    let id = world.tenant(0).agent.plan(false).await;
    let accepted = async |world: &Seams| matches!(world.tenant(0).agent.record(id).await.state, TransferState::Accepted { .. });
    world.until("the agent has the first receipt", accepted).await;
    // Long enough for every pause to have grown as long as it ever gets.
    let grown = world.clock.monotonic() + OUTAGE;
    world.until("the outage has lasted", async |world| world.clock.monotonic() >= grown).await;
    let now = world.relay.machine.backup();
    restore(&mut world, &now, Restored::AllButTheSpool, Some(Place::Receiver)).await;
    let start = world.clock.monotonic();
    world.until_over("the relay has lost its files", world.tenant(0), id).await;
    let took = world.clock.monotonic().saturating_sub(start);
    println!("a relay that has lost its files has gone on after {took:?}");
    assert!(took < RECOVERY, "{took:?}");
}

/// Nights of a relay in the middle of a return file.
const DOWNLINK_NIGHTS: [Option<Spot>; 5] = [
    None,
    Some((Place::Relay, Stage::Fetch, Point::BeforeEffect)),
    Some((Place::Relay, Stage::Fetch, Point::AfterJournal)),
    Some((Place::Relay, Stage::Pack, Point::AfterJournal)),
    Some((Place::Relay, Stage::Queue, Point::AfterJournal)),
];

#[tokio::test]
async fn a_return_file_that_was_under_way_is_delivered_once() {
    for night in DOWNLINK_NIGHTS {
        for day in DAYS {
            for what in ALL {
                downlink(night, day, what).await;
            }
        }
    }
}

async fn send(ends: &Ends) -> TransferId {
    ends.receiver.send(&ends.agent.enrolment.name, "orders.csv", CONTENT).await
}

async fn delivered(world: &Seams, id: TransferId) -> bool {
    world.tenant(0).agent.record_of(id).await.is_some_and(|record| record.state == TransferState::Delivered)
}

async fn told_back(world: &Seams, id: TransferId) -> bool {
    let ends = world.tenant(0);
    ends.receiver.record(&ends.agent.key(id)).await.is_some_and(|record| record.state == TransferState::Delivered)
}

async fn ended_at_the_relay(world: &Seams, id: TransferId) -> bool {
    let key = world.tenant(0).agent.key(id);
    let removed = TransferState::Removed { outcome: Outcome::Delivered };
    world.relay.record(&key).await.is_some_and(|record| record.state == TransferState::Delivered || record.state == removed)
}

async fn downlink(at: Option<Spot>, day: Day, what: Restored) {
    let told = format!("a night at {at:?}, a day {day:?}, restored {what:?}");
    let mut world = Seams::new(&["acme"], DAY).await;
    let stop = at.map(|spot| Arc::new(StopAt::new(spot, 1)));
    let points = stop.clone().map_or_else(nowhere, |stop| stop as Arc<dyn FailPoints>);
    world.start(&points).await;
    if day == Day::WithoutAgent {
        world.crash(Place::Agent).await;
    }
    let mut night = None;
    if at.is_none() {
        night = Some(backup_at(&mut world, None).await);
    }
    let id = send(world.tenant(0)).await;
    let night = match night {
        Some(night) => night,
        None => backup_at(&mut world, stop.as_deref()).await,
    };
    let key = world.tenant(0).agent.key(id);
    let off = match day {
        Day::WithoutAgent => {
            let queued = async |world: &Seams| {
                let record = world.relay.record(&key).await;
                record.is_some_and(|record| matches!(record.state, TransferState::Queued { .. }))
            };
            world.until(&format!("the relay has queued it, {told}"), queued).await;
            Some(Place::Agent)
        }
        Day::WithoutReceiver => {
            // Off as soon as the relay needs nothing more of it, so that it never hears of the end.
            let fetched = async |world: &Seams| {
                let record = world.relay.record(&key).await;
                record.is_some_and(|record| !matches!(record.state, TransferState::Announced { .. }))
            };
            world.until(&format!("the relay has fetched it, {told}"), fetched).await;
            world.crash(Place::Receiver).await;
            world.until(&format!("the agent has delivered it, {told}"), async |world| delivered(world, id).await).await;
            Some(Place::Receiver)
        }
        Day::Over => {
            world.until(&format!("the receiver knows the end, {told}"), async |world| told_back(world, id).await).await;
            None
        }
    };
    restore(&mut world, &night, what, off).await;
    if day != Day::Over {
        let over =
            async |world: &Seams| delivered(world, id).await && told_back(world, id).await && ended_at_the_relay(world, id).await;
        world.until(&format!("it is over, {told}"), over).await;
    }
    let next = send(world.tenant(0)).await;
    let over = async |world: &Seams| delivered(world, next).await && told_back(world, next).await;
    world.until(&format!("the next is over, {told}"), over).await;
    let ends = world.tenant(0);
    let all: Vec<Vec<u8>> = ends.agent.delivered().into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(all, [CONTENT, CONTENT], "{told}");
    assert!(!ends.receiver.has_export(&key), "{told}: the receiver keeps files");
}

#[tokio::test]
async fn an_app_database_that_was_put_back_is_noticed_and_brought_up_to_date() {
    let mut world = Seams::new(&["acme"], DAY).await;
    world.start(&nowhere()).await;
    let ends = world.tenant(0);
    let database = ends.receiver.database(&ends.agent.enrolment.name);
    let night = world.dir.path().join("night.sqlite");
    let first = ends.agent.plan(false).await;
    world.until_over("the night", ends, first).await;
    rows(&database, &format!("VACUUM INTO '{}'", night.display())).await;
    rows(&ends.agent.erp, "UPDATE items SET name = 'of the day' WHERE id = 7").await;
    let second = ends.agent.plan(false).await;
    world.until_over("the day", ends, second).await;
    assert_eq!(ends.receiver.lacking(), []);

    world.crash(Place::Receiver).await;
    put_database_back(&world, &night, &database).await;
    world.restart(Place::Receiver, nowhere()).await;
    world.until("it is noticed", async |world| !world.tenant(0).receiver.lacking().is_empty()).await;
    let ends = world.tenant(0);
    assert_eq!(ends.receiver.lacking().iter().map(|lacking| lacking.transfer).collect::<Vec<_>>(), [second]);
    assert_eq!(rows(&database, "SELECT transfer FROM towpath_imports").await, [first.to_string()], "nothing comes by looking");

    // Nothing has changed in the ERP since: what is sent builds on what the app lacks, and the one after that does not.
    let third = ends.agent.plan(false).await;
    let rejected =
        async |world: &Seams| matches!(world.tenant(0).agent.record(third).await.state, TransferState::Rejected { .. });
    world.until("the next is rejected", rejected).await;
    let fourth = ends.agent.plan(false).await;
    world.until_over("everything is sent again", ends, fourth).await;
    world.check("everything is sent again", ends, fourth, &Signed::default()).await;
    let imports = rows(&database, "SELECT transfer FROM towpath_imports ORDER BY sequence").await;
    assert_eq!(imports, [first.to_string(), fourth.to_string()]);
    assert_eq!(ends.receiver.lacking(), []);
}

/// Puts a backup in the place of an app database whose receiver is off.
async fn put_database_back(world: &Seams, night: &Path, database: &Path) {
    // A connection that the crash has cut off closes on a thread of its own, and then removes its log by name.
    let log = database.with_extension("sqlite-wal");
    world.until("nobody has the database open", async |_| !log.exists()).await;
    std::fs::copy(night, database).unwrap();
}
