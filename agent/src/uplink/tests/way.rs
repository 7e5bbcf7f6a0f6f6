//! The way of an uplink, and what the relay and the ERP may do to it.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use towpath_journal::{Filter, NewTransfer, Point, SequenceChoice};
use towpath_transfer::{
    Code, Direction, Disposition, Failure, Sequence, Stage, TransferEvent, TransferId, TransferState,
    digest::Sha256Digest,
    receipt::ReceiptStage,
    state::{Identity, Outcome, Rejection},
};
use towpath_transport::{
    files::{FileStore as _, read_whole, write_whole},
    store::{Connect, FaultStore, RemoteStore, StoreErrorKind, StoreFault, StoreOp, StoreResult},
};

use super::world::{CONFIG, Far, World};
use crate::{
    chain,
    config::Config,
    parts::Parts,
    small_file,
    uplink::{
        folder,
        plan::{MAX_PARKED_PER_JOB, open_transfer, plan},
        prune::prune,
        replan,
    },
    view::{detail, tables},
};

fn base_missing() -> Rejection {
    Rejection { code: Code::BaseMissing, detail: "table items is not at its base".into() }
}

async fn events(world: &World, record: &towpath_journal::TransferRecord) -> Vec<TransferEvent> {
    let history = world.parts.journal.history(&record.key).await.unwrap();
    history.entries.into_iter().map(|entry| entry.event).collect()
}

#[tokio::test]
async fn a_transfer_goes_its_way_and_keeps_what_proves_it() {
    let world = World::new();
    let record = world.send().await;
    let id = record.key.id;
    assert_eq!(record.state, TransferState::Imported);
    assert_eq!(world.far.imports(), [id]);
    let names = ["MD5SUMS", "items.csv.bz2", "manifest.json", "manifest.json.sig", "packed.json", "sales.csv.bz2"];
    assert_eq!(world.far.names(id), names);
    let kept: Vec<String> =
        world.files.list(&world.parts.layout.transfer(id), None, 100).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(kept, ["MD5SUMS", "manifest.json", "manifest.json.sig", "packed.json", "receipts"]);
    assert!(world.files.stat(&world.parts.layout.work_of(id)).is_err());
    assert!(matches!(
        events(&world, &record).await.as_slice(),
        [
            TransferEvent::Extracted { .. },
            TransferEvent::Packed { .. },
            TransferEvent::Pushed,
            TransferEvent::Accepted,
            TransferEvent::Settled { .. }
        ]
    ));
    let sums = small_file::read(&*world.files, &world.parts.layout.md5sums(id), 10_000).unwrap().unwrap();
    assert!(String::from_utf8(sums).unwrap().ends_with("  sales.csv\n"));
    let chain = chain::verify(&world.parts, id).await.unwrap();
    let documents: Vec<&str> = chain.links.iter().map(|link| link.document.as_str()).collect();
    assert_eq!(documents, ["manifest.json", "packed.json", "accepted.json", "imported.json"]);
    assert!(chain.ok, "{chain:?}");
    assert!(chain.links[3].says.contains("receiver app signed"), "{}", chain.links[3].says);
    assert!(chain.problem().is_none());
}

#[tokio::test]
async fn what_the_app_has_is_not_sent_again() {
    let world = World::new();
    let first = world.send().await.key.id;
    world.erp.change("sales", "id\r\n7\r\n8\r\n");
    let second = world.send().await;
    assert_eq!(second.state, TransferState::Imported);
    let manifest = world.manifest(second.key.id);
    let told: Vec<(bool, Option<_>)> = manifest.files.iter().map(|file| (file.unchanged, file.base)).collect();
    assert_eq!(told, [(true, Some(first)), (false, None)]);
    assert!(!world.far.names(second.key.id).contains(&"items.csv.bz2".to_owned()));
    assert!(chain::verify(&world.parts, second.key.id).await.unwrap().ok);
    // The base of the third is whichever has brought the table.
    let third = world.send().await;
    let bases: Vec<_> = world.manifest(third.key.id).files.iter().map(|file| file.base).collect();
    assert_eq!(bases, [Some(first), Some(second.key.id)]);
    assert_eq!(manifest.sequence.0 + 1, world.manifest(third.key.id).sequence.0);
    let full = world.plan(true).await;
    world.finish(full).await;
    assert!(world.manifest(full).files.iter().all(|file| !file.unchanged));
}

#[tokio::test]
async fn a_lost_base_leads_to_one_transfer_in_full() {
    let world = World::new();
    world.send().await;
    world.far.reject(Some(base_missing()));
    let rejected = world.send().await;
    assert_eq!(rejected.state, TransferState::Rejected { rejection: base_missing() });
    let job = "main".parse().unwrap();
    let next = replan::of_job(&world.parts, &job).await.unwrap().unwrap();
    assert_eq!(replan::after(&world.parts, &rejected).await.unwrap().unwrap().key, next.key);
    let next = world.finish(next.key.id).await;
    assert!(world.manifest(next.key.id).files.iter().all(|file| !file.unchanged));
    // That one was in full, so nothing better can follow.
    assert_eq!(next.state.word(), "rejected");
    assert_eq!(replan::of_job(&world.parts, &job).await.unwrap(), None);
    // And whatever is sent by hand now is in full as well.
    world.far.reject(None);
    let by_hand = world.send().await;
    assert_eq!(by_hand.state, TransferState::Imported);
    assert!(world.manifest(by_hand.key.id).files.iter().all(|file| !file.unchanged));
}

#[tokio::test]
async fn columns_are_compared_with_the_last_import_also_where_everything_is_sent() {
    let world = World::new();
    let asked = || world.erp.asked.lock().unwrap().last().copied().unwrap();
    let first = world.send().await.key.id;
    assert_eq!(asked(), (None, false));
    let full = world.plan(true).await;
    world.finish(full).await;
    assert_eq!(asked(), (Some(first), true));
    world.far.reject(Some(base_missing()));
    world.send().await;
    assert_eq!(asked(), (Some(full), false));
    // After this rejection what was imported last is still what columns are compared with.
    world.far.reject(None);
    world.send().await;
    assert_eq!(asked(), (Some(full), true));
}

#[tokio::test]
async fn what_is_read_from_another_database_is_sent_as_a_whole_once() {
    let world = World::new();
    let incremental = "key = [\"id\"]\nincremental = { watermark = [\"id\"] }\n";
    let configure = |path: &str| {
        let text = CONFIG.replace("erp.sqlite", path).replace("name = \"items\"\n", &format!("name = \"items\"\n{incremental}"));
        world.parts.config.replace(Config::parse(&text, Path::new("/etc/agent.toml")).unwrap());
    };
    let anew = || world.erp.anew.lock().unwrap().last().cloned().unwrap();
    let (none, items) = (BTreeSet::new(), BTreeSet::from(["items".to_owned()]));
    // What was imported before it was incremental says nothing, and neither does one of an earlier version.
    world.send().await;
    configure("test.sqlite");
    let first = world.send().await;
    assert_eq!((first.state, anew()), (TransferState::Imported, none.clone()));
    configure("erp.sqlite");
    world.far.reject(Some(base_missing()));
    world.send().await;
    assert_eq!(anew(), items);
    // The app has what came from the other one until an import has succeeded.
    world.far.reject(None);
    world.send().await;
    assert_eq!(anew(), items);
    world.send().await;
    assert_eq!(anew(), none);
}

#[tokio::test]
async fn what_a_source_says_of_itself_is_kept_with_the_transfer() {
    let world = World::new();
    let quiet = world.send().await;
    assert!(detail(&world.parts, &quiet).await.unwrap().warnings.is_empty());
    world.erp.warnings.lock().unwrap().push("the login may write".to_owned());
    let told = world.send().await;
    let shown = detail(&world.parts, &told).await.unwrap();
    assert_eq!(shown.warnings, ["the login may write"]);
    assert!(shown.snapshot.unwrap().consistent);
    assert_eq!(shown.tables[0].app_rows, Some(2));
    assert_eq!(tables(&world.parts, &told).unwrap().len(), 2);
    assert!(!world.far.names(told.key.id).contains(&"warnings.json".to_owned()));
}

#[tokio::test]
async fn a_damaged_folder_of_the_rejected_transfer_does_not_end_the_job() {
    let world = World::new();
    world.send().await;
    world.far.reject(Some(base_missing()));
    let rejected = world.send().await;
    world.far.reject(None);
    write_whole(&*world.files, &world.parts.layout.manifest(rejected.key.id), b"{").unwrap();
    let next = replan::of_job(&world.parts, &"main".parse().unwrap()).await.unwrap().unwrap();
    let next = world.finish(next.key.id).await;
    assert_eq!(next.state, TransferState::Imported);
    assert!(world.manifest(next.key.id).files.iter().all(|file| !file.unchanged));
}

#[tokio::test]
async fn a_lost_manifest_of_the_base_means_in_full() {
    let world = World::new();
    let first = world.send().await.key.id;
    world.files.remove(&world.parts.layout.manifest(first)).unwrap();
    let second = world.send().await;
    assert!(world.manifest(second.key.id).files.iter().all(|file| !file.unchanged));
}

#[tokio::test]
async fn a_job_has_one_open_transfer() {
    let world = World::new();
    let id = world.plan(false).await;
    assert_eq!(world.plan(true).await, id);
    assert!(open_transfer(&world.parts, &"main".parse().unwrap()).await.unwrap().is_some());
    world.finish(id).await;
    assert!(open_transfer(&world.parts, &"main".parse().unwrap()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_lost_answer_to_complete_changes_nothing() {
    let world = World::new();
    world.far.lose_answers(2);
    let record = world.send().await;
    assert_eq!(record.state, TransferState::Imported);
    assert_eq!((world.far.imports().len(), world.far.completes()), (1, 3));
}

#[tokio::test]
async fn what_the_relay_finds_wrong_is_sent_again() {
    let mut world = World::new();
    let id = world.plan(false).await;
    world.crash_at(id, Stage::Push, Point::AfterJournal).await;
    let damaged = world.far.folder(id).join("sales.csv.bz2");
    write_whole(&*world.far.files, &damaged, b"packed id\r\n6\r\n").unwrap();
    world.far.find_wrong(id, "sales.csv.bz2");
    let record = world.finish(id).await;
    assert_eq!(record.state, TransferState::Imported);
    assert!(events(&world, &record).await.contains(&TransferEvent::PushAgain));
    assert_eq!(world.far.imports(), [id]);
}

#[tokio::test]
async fn what_an_extract_begun_anew_has_left_behind_is_put_right() {
    let world = World::new();
    let id = world.plan(false).await;
    let far = world.far.folder(id);
    world.far.files.create_dir_all(&far).unwrap();
    // Of the same length and other content; of a table that is gone; half of a file that is gone.
    for (name, bytes) in [("sales.csv.bz2", "packed id\r\n6\r\n"), ("gone.csv.bz2", "x"), ("half.csv.bz2.part", "y")] {
        write_whole(&*world.far.files, &far.join(name), bytes.as_bytes()).unwrap();
    }
    let record = world.finish(id).await;
    assert_eq!(record.state, TransferState::Imported);
    assert!(!world.far.names(id).iter().any(|name| name.starts_with("gone") || name.starts_with("half")));
}

#[tokio::test]
async fn a_signature_of_equal_length_from_an_earlier_extract_is_replaced() {
    let mut world = World::new();
    let id = world.plan(false).await;
    world.crash_at(id, Stage::Push, Point::BeforeEffect).await;
    let far = world.far.folder(id);
    world.far.files.create_dir_all(&far).unwrap();
    for name in ["MD5SUMS", "packed.json", "manifest.json.sig", "manifest.json"] {
        let own = world.parts.layout.transfer(id).join(name);
        let stale = vec![b'x'; read_whole(&*world.files, &own, 100_000).unwrap().len()];
        write_whole(&*world.far.files, &far.join(name), &stale).unwrap();
    }
    assert_eq!(world.finish(id).await.state, TransferState::Imported);
    for name in ["MD5SUMS", "packed.json", "manifest.json.sig", "manifest.json"] {
        let own = read_whole(&*world.files, &world.parts.layout.transfer(id).join(name), 100_000).unwrap();
        assert!(read_whole(&*world.far.files, &far.join(name), 100_000).unwrap() == own, "{name} is still the stale one");
    }
}

#[tokio::test]
async fn a_missing_erp_waits_for_a_person_and_a_locked_one_is_tried_again() {
    let world = World::new();
    world.erp.failures.lock().unwrap().extend([
        Failure::park(Code::ErpMissing, "opening the ERP database failed"),
        Failure::retry(Code::ErpLocked, "the ERP database is locked"),
    ]);
    let id = world.plan(false).await;
    let locked = world.drive(id, |record| record.last_failure.is_some()).await;
    assert_eq!((locked.last_failure.unwrap().code, locked.parked), (Code::ErpLocked, false));
    let missing = world.finish(id).await;
    assert_eq!((missing.last_failure.unwrap().code, missing.parked), (Code::ErpMissing, true));
    world.parts.journal.unpark(&world.parts.key(id)).await.unwrap();
    assert_eq!(world.finish(id).await.state, TransferState::Imported);
    assert_eq!(*world.erp.extracts.lock().unwrap(), 3);
}

#[tokio::test]
async fn a_mismatch_is_parked_and_the_next_transfer_takes_its_place() {
    let world = World::new();
    world.erp.failures.lock().unwrap().push(Failure::park(Code::ExtractMismatch, "sales: 7 rows read, 8 counted"));
    let parked = world.send().await;
    assert_eq!((parked.parked, parked.last_failure.unwrap().code), (true, Code::ExtractMismatch));
    let next = world.send().await;
    assert_eq!(next.state, TransferState::Imported);
    assert_ne!(next.key, parked.key);
    assert_eq!(world.record(parked.key.id).await.state.word(), "abandoned");
}

#[tokio::test]
async fn an_unknown_host_key_parks_and_an_unreachable_relay_is_tried_again() {
    let world = World::new();
    world.far.refuse_connections(Some(StoreErrorKind::Unreachable));
    let id = world.plan(false).await;
    let waiting = world.drive(id, |record| record.last_failure.is_some()).await;
    assert_eq!((waiting.last_failure.unwrap().code, waiting.parked), (Code::RelayUnreachable, false));
    world.far.refuse_connections(Some(StoreErrorKind::HostKeyUnknown));
    let parked = world.finish(id).await;
    assert_eq!((parked.last_failure.unwrap().code, parked.parked), (Code::HostKeyUnknown, true));
    world.far.refuse_connections(None);
    world.parts.journal.unpark(&world.parts.key(id)).await.unwrap();
    assert_eq!(world.finish(id).await.state, TransferState::Imported);
}

#[tokio::test]
async fn what_waits_for_a_person_does_not_pile_up_without_bound() {
    let world = World::new();
    world.far.refuse_connections(Some(StoreErrorKind::HostKeyUnknown));
    let mut waiting = Vec::new();
    for _ in 0..MAX_PARKED_PER_JOB {
        let parked = world.send().await;
        assert!(parked.parked);
        waiting.push(parked.key);
    }
    let job = "main".parse().unwrap();
    let refused = plan(&world.parts, &job, false).await.unwrap_err();
    assert_eq!((refused.code(), refused.disposition()), (Code::LimitExceeded, Disposition::Park));
    for word in ["10 transfers", "towpath-agent status", "towpath-agent retry"] {
        assert!(refused.report().contains(word), "{}", refused.report());
    }
    world.far.refuse_connections(None);
    world.parts.journal.unpark(&waiting[0]).await.unwrap();
    assert_eq!(world.finish(waiting[0].id).await.state, TransferState::Imported);
    assert_eq!(world.send().await.state, TransferState::Imported);
}

#[tokio::test]
async fn a_transfer_whose_number_is_taken_gives_way_to_the_next() {
    let world = World::new();
    world.far.refuse_complete(Some(Code::SequenceForked));
    let mut last = None;
    for _ in 0..=MAX_PARKED_PER_JOB {
        let forked = world.send().await;
        assert_eq!((forked.parked, forked.last_failure.unwrap().code), (true, Code::SequenceForked));
        last = Some(forked.key.id);
    }
    world.far.refuse_complete(None);
    assert_eq!(world.send().await.state, TransferState::Imported);
    let last = last.unwrap();
    assert_eq!(world.record(last).await.state.word(), "abandoned");
    assert!(!small_file::exists(&*world.files, &world.parts.layout.transfer(last).join("sales.csv.bz2")));
}

#[tokio::test]
async fn a_job_that_is_not_configured_any_more_waits_for_a_person() {
    let mut world = World::new();
    let id = world.plan(false).await;
    let mut config = (*world.parts.config.now()).clone();
    config.jobs.clear();
    world.parts.config = crate::config::SharedConfig::new(config);
    let parked = world.finish(id).await;
    assert_eq!((parked.parked, parked.last_failure.unwrap().code), (true, Code::ConfigInvalid));
}

#[tokio::test]
async fn only_the_newest_transfers_are_kept() {
    let world = World::new();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(world.send().await.key.id);
    }
    let stray = world.parts.layout.transfers().join("not-a-transfer");
    world.files.create_dir_all(&stray).unwrap();
    world.clock.advance(std::time::Duration::from_secs(3_600));
    assert_eq!(prune(&world.parts, 2).await.unwrap(), 2);
    let here = |parts: &Parts, id| small_file::exists(&*parts.files, &parts.layout.manifest(id));
    assert_eq!(ids.iter().map(|id| here(&world.parts, *id)).collect::<Vec<_>>(), [false, false, true, true]);
    assert!(world.files.stat(&stray).is_ok());
    assert_eq!(world.parts.journal.list(&Filter::default(), 10, None).await.unwrap().len(), 2);
    assert_eq!(prune(&world.parts, 2).await.unwrap(), 0);
    let kept = folder::kept_receipt(&*world.files, &world.parts.layout, ids[3], ReceiptStage::Imported).unwrap();
    assert!(kept.is_some());
}

#[tokio::test]
async fn what_a_kill_left_of_a_transfer_that_gave_way_is_cleared_away() {
    let world = World::new();
    world.far.refuse_complete(Some(Code::SequenceForked));
    let id = world.plan(true).await;
    let parked = world.finish(id).await;
    assert!(parked.parked);
    let payload = world.parts.layout.transfer(id).join("sales.csv.bz2");
    let noted = world.parts.layout.full_marker(id);
    assert!(small_file::exists(&*world.files, &payload) && small_file::exists(&*world.files, &noted));
    // The journal has the last event, and the power fails before anything is removed.
    let given_up = TransferEvent::Abandoned { reason: "a newer one".to_owned() };
    world.parts.journal.append_unleased(&parked.key, parked.events, &given_up).await.unwrap();
    prune(&world.parts, 100).await.unwrap();
    assert!(!small_file::exists(&*world.files, &payload) && !small_file::exists(&*world.files, &noted));
    assert!(small_file::exists(&*world.files, &world.parts.layout.manifest(id)));
}

#[tokio::test]
async fn what_a_restored_relay_does_not_know_any_more_is_pushed_again() {
    // Before its acceptance, and after it.
    for stage in [Stage::Push, Stage::Receipt] {
        let mut world = World::new();
        let id = world.plan(false).await;
        world.far.withhold_imports(true);
        world.crash_at(id, stage, Point::AfterJournal).await;
        world.far.withhold_imports(false);
        world.far.forget(id);
        let record = world.finish(id).await;
        assert_eq!(record.state, TransferState::Imported, "{stage}");
        let again = events(&world, &record).await.into_iter().filter(|event| *event == TransferEvent::PushAgain);
        assert_eq!(again.count(), 1, "{stage}");
        assert!(!world.far.names(id).is_empty(), "{stage}");
    }
}

/// A relay whose power goes, once, as it is about to name a file, and that has not made durable that there is a part of it.
#[derive(Debug)]
struct PowerLoss {
    far: Arc<Far>,
    part: std::path::PathBuf,
    is_over: Arc<Mutex<bool>>,
}

#[async_trait]
impl Connect for PowerLoss {
    async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
        let (files, part, is_over) = (Arc::clone(&self.far.files), self.part.clone(), Arc::clone(&self.is_over));
        let plan = Box::new(move |op, path: &towpath_transfer::RemotePath| {
            let mut is_over = is_over.lock().unwrap();
            let goes =
                op == StoreOp::Publish && part.ends_with(format!("{}.part", path.components().last().unwrap())) && !*is_over;
            if goes {
                *is_over = true;
                files.remove(&part).unwrap();
            }
            goes.then_some(StoreFault::Before(StoreErrorKind::ConnectionLost))
        });
        Ok(Arc::new(FaultStore::new(self.far.connect().await?, plan)))
    }
}

#[tokio::test]
async fn a_part_that_is_gone_with_the_relays_power_is_sent_again() {
    for name in ["items.csv.bz2", "MD5SUMS", "manifest.json"] {
        let mut world = World::new();
        let id = world.plan(false).await;
        let (part, is_over) = (world.far.folder(id).join(format!("{name}.part")), Arc::new(Mutex::new(false)));
        world.parts.stores = Arc::new(PowerLoss { far: Arc::clone(&world.far), part, is_over: Arc::clone(&is_over) });
        let record = world.finish(id).await;
        assert!(*is_over.lock().unwrap());
        assert_eq!((record.state, record.parked), (TransferState::Imported, false), "{name}");
    }
}

#[tokio::test]
async fn what_a_restored_relay_has_lost_after_its_acceptance_is_pushed_again() {
    let mut world = World::new();
    let id = world.plan(false).await;
    world.far.withhold_imports(true);
    world.crash_at(id, Stage::Receipt, Point::AfterJournal).await;
    world.far.withhold_imports(false);
    assert!(matches!(world.record(id).await.state, TransferState::Accepted { .. }));
    world.far.files.remove(&world.far.folder(id).join("sales.csv.bz2")).unwrap();
    world.far.find_wrong(id, "sales.csv.bz2");
    let record = world.finish(id).await;
    assert_eq!(record.state, TransferState::Imported);
    assert!(world.far.names(id).contains(&"sales.csv.bz2".to_owned()));
}

#[tokio::test]
async fn many_runs_push_out_no_number_of_a_return_file_that_is_late() {
    let world = World::new();
    let of = |number: u64, state| {
        let (key, direction) =
            (world.parts.key(TransferId::new(&*world.parts.clock, &*world.parts.entropy)), Direction::Downlink);
        NewTransfer { key, direction, job: None, state, sequence: SequenceChoice::Given(Some(Sequence(number))) }
    };
    let decided = TransferState::Decided { outcome: Outcome::Delivered };
    let newest = world.parts.journal.create(of(6, decided)).await.unwrap().into_record();
    let ended = TransferEvent::Settled { outcome: Outcome::Delivered };
    world.parts.journal.append_unleased(&newest.key, newest.events, &ended).await.unwrap();
    for _ in 0..3 {
        world.send().await;
    }
    world.clock.advance(Duration::from_secs(3_600));
    prune(&world.parts, 1).await.unwrap();
    let digest = Sha256Digest::of(b"manifest");
    let offered = TransferState::Offered { identity: Identity { manifest: digest, packed: digest } };
    world.parts.journal.create(of(5, offered)).await.unwrap();
}

#[tokio::test]
async fn a_job_that_runs_often_pushes_out_no_base_of_one_that_runs_seldom() {
    let mut world = World::new();
    let second = CONFIG[CONFIG.find("[[job]]").unwrap()..].replace("\"main\"", "\"often\"");
    let config = Config::parse(&format!("{CONFIG}{second}"), Path::new("/etc/agent.toml")).unwrap();
    world.parts.config = crate::config::SharedConfig::new(config);
    let first = world.send().await.key.id;
    for _ in 0..3 {
        let id = plan(&world.parts, &"often".parse().unwrap(), false).await.unwrap().record().key.id;
        assert_eq!(world.finish(id).await.state, TransferState::Imported);
    }
    world.clock.advance(Duration::from_secs(3_600));
    prune(&world.parts, 1).await.unwrap();
    let kept = world.parts.journal.list(&Filter::default(), 10, None).await.unwrap();
    assert_eq!(kept.len(), 2, "{kept:?}");
    world.send().await;
    assert_eq!(world.erp.asked.lock().unwrap().last(), Some(&(Some(first), false)));
}
