//! What only the file can show; the contract itself is in `conformance`.

use proptest::prelude::*;
use sqlx::Row as _;
use towpath_transfer::clock::{ManualClock, SeededEntropy};

use super::{statements::LIST_OF_STATE, *};
use crate::{Filter, MemoryJournal, conformance, conformance::Fixture, verify};

async fn open(folder: &std::path::Path, clock: &ManualClock, place: Place) -> Result<SqliteJournal> {
    SqliteJournal::open(&folder.join("journal.db"), place, Arc::new(clock.clone()), Arc::new(SeededEntropy::new(1))).await
}

fn clock() -> ManualClock {
    ManualClock::new(conformance::start())
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicUsize::new(0);
    conformance::all(async || {
        let folder = folder.path().join(count.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string());
        std::fs::create_dir(&folder).unwrap();
        let clock = clock();
        let journal = Arc::new(open(&folder, &clock, Place::Agent).await.unwrap());
        Fixture { journal: Arc::clone(&journal) as _, binding: Some(journal), clock }
    })
    .await;
}

#[tokio::test]
async fn it_survives_a_restart() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let journal = open(folder.path(), &clock, Place::Agent).await.unwrap();
    let created = journal.create(conformance::planned(1, SequenceChoice::Next)).await.unwrap().into_record();
    let lease = journal.acquire(Stage::Extract, 1, Duration::from_secs(60)).await.unwrap().pop().unwrap();
    // The file is opened again while the first process still has it, as after a kill whose lock is not yet gone.
    let again = open(folder.path(), &clock, Place::Agent).await.unwrap();
    assert_eq!(again.get(&created.key).await.unwrap().as_ref(), Some(&lease.record));
    assert_eq!(again.break_leases().await.unwrap(), 1);
    journal.close().await;
    again.health().await.unwrap();
    again.close().await;
    assert!(again.health().await.is_err());
}

#[tokio::test]
async fn the_settings_are_those_promised() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), &clock(), Place::Relay).await.unwrap();
    let ask = async |pool: &SqlitePool, pragma: &'static str| -> String {
        let row = sqlx::query(pragma).fetch_one(pool).await.unwrap();
        row.try_get::<String, _>(0).or_else(|_| row.try_get::<i64, _>(0).map(|n| n.to_string())).unwrap()
    };
    for pool in [&journal.writer, &journal.readers] {
        assert_eq!(ask(pool, "PRAGMA journal_mode").await, "wal");
        assert_eq!(ask(pool, "PRAGMA synchronous").await, "2");
        assert_eq!(ask(pool, "PRAGMA foreign_keys").await, "1");
        assert_eq!(ask(pool, "PRAGMA busy_timeout").await, "10000");
        assert_eq!(ask(pool, "PRAGMA user_version").await, "3");
    }
    assert_eq!(ask(&journal.readers, "PRAGMA query_only").await, "1");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), &clock(), Place::Relay).await.unwrap();
    journal.health().await.unwrap();
    journal.create(conformance::planned(1, SequenceChoice::Next)).await.unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        files += 1;
    }
    assert_eq!(files, 3, "the file, its write-ahead log and its index");
}

#[tokio::test]
async fn a_newer_schema_a_foreign_place_and_a_damaged_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), &clock(), Place::Relay).await.unwrap();
    let foreign = open(folder.path(), &clock(), Place::Agent).await.unwrap_err();
    assert!(foreign.to_string().contains("journal of the relay"), "{foreign}");
    sqlx::raw_sql("UPDATE compatible SET since = 99; PRAGMA user_version = 99").execute(&journal.writer).await.unwrap();
    journal.close().await;
    let newer = Failure::from(open(folder.path(), &clock(), Place::Relay).await.unwrap_err());
    assert_eq!((newer.code(), newer.disposition()), (Code::JournalFailed, towpath_transfer::Disposition::Park));
    assert!(newer.message().contains("newer version of Towpath"), "{newer}");

    std::fs::write(folder.path().join("other.db"), [7u8; 8192]).unwrap();
    let path = folder.path().join("other.db");
    let opened = SqliteJournal::open(&path, Place::Relay, Arc::new(clock()), Arc::new(SeededEntropy::new(1))).await;
    let damaged = Failure::from(opened.unwrap_err());
    assert!(damaged.message().contains("damaged"), "{}", damaged.report());

    let nowhere = open(&folder.path().join("missing"), &clock(), Place::Relay).await.unwrap_err();
    assert!(Failure::from(nowhere).message().contains("make or open"));
}

#[tokio::test]
async fn who_only_looks_makes_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let look = async |name: &str, place| {
        let path = folder.path().join(name);
        SqliteJournal::look(&path, place, Arc::new(clock()), Arc::new(SeededEntropy::new(1))).await
    };
    assert!(look("journal.db", Place::Relay).await.is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path, Place::Relay, Arc::new(clock()), Arc::new(SeededEntropy::new(1))).await.unwrap();
    // Beside the one that works, and after it.
    for bound in [false, true] {
        let looking = look("journal.db", Place::Relay).await.unwrap();
        looking.check_machine("one").await.unwrap();
        assert!(looking.bind_or_check("one").await.is_err());
        assert!(looking.list(&Filter::default(), 1, None).await.unwrap().is_empty());
        let other = looking.check_machine("two").await;
        assert_eq!(matches!(other, Err(JournalError::HostMoved)), bound, "{other:?}");
        looking.close().await;
        if !bound {
            journal.bind_or_check("one").await.unwrap();
            journal.close().await;
        }
    }
    assert!(look("journal.db", Place::Agent).await.unwrap_err().to_string().contains("journal of the relay"));
    std::fs::write(folder.path().join("empty.db"), "").unwrap();
    assert!(look("empty.db", Place::Relay).await.unwrap_err().to_string().contains("or empty"));
}

#[tokio::test]
async fn a_full_disk_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), &clock(), Place::Agent).await.unwrap();
    let pages: i64 = sqlx::query("PRAGMA page_count").fetch_one(&journal.writer).await.unwrap().try_get(0).unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).execute(&journal.writer).await.unwrap();
    let mut number = 0;
    let full = loop {
        number += 1;
        if let Err(error) = journal.create(conformance::planned(number, SequenceChoice::Next)).await {
            break error;
        }
    };
    assert_eq!(full.code(), Code::DiskFull);
    assert_eq!(journal.get(&conformance::key(number)).await.unwrap(), None);
    // The limit was the connection's own; it is given up for one that can begin a transaction, and that one has room.
    journal.create(conformance::planned(number, SequenceChoice::Next)).await.unwrap();
}

#[tokio::test]
async fn the_program_before_works_with_what_a_newer_one_has_only_added_to() {
    let folder = tempfile::tempdir().unwrap();
    let newer = open(folder.path(), &clock(), Place::Agent).await.unwrap();
    newer.create(conformance::planned(1, SequenceChoice::Next)).await.unwrap();
    let migrated = "UPDATE compatible SET since = 3;
        CREATE TABLE later (x INTEGER) STRICT;
        ALTER TABLE transfers ADD COLUMN later INTEGER NOT NULL DEFAULT 0;
        PRAGMA user_version = 4";
    sqlx::raw_sql(migrated).execute(&newer.writer).await.unwrap();
    newer.close().await;
    let older = open(folder.path(), &clock(), Place::Agent).await.unwrap();
    let second = older.create(conformance::planned(2, SequenceChoice::Next)).await.unwrap().into_record();
    assert_eq!(older.list(&Filter::default(), 10, None).await.unwrap().len(), 2);
    older.append_unleased(&second.key, 0, &TransferEvent::Abandoned { reason: "test".into() }).await.unwrap();
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&older.writer).await.unwrap();
    assert_eq!(version, 4, "it stays what it is");

    // One that says that it cannot be, or says nothing that makes sense, is left alone.
    for since in [4, 0, -1] {
        sqlx::query("UPDATE compatible SET since = ?").bind(since).execute(&older.writer).await.unwrap();
        let refused = Failure::from(open(folder.path(), &clock(), Place::Agent).await.unwrap_err());
        assert!(refused.message().contains("newer version of Towpath"), "{refused}");
    }
}

/// The program of schema 2 prunes without a word of gaps, and what it has pruned must not count as never used afterwards.
#[tokio::test]
async fn gaps_that_an_older_program_has_not_kept_up_are_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), &clock(), Place::Relay).await.unwrap();
    let given = |number: u64| conformance::planned(number, SequenceChoice::Given(Some(Sequence(number))));
    for number in [9, 4] {
        let key = journal.create(given(number)).await.unwrap().into_record().key;
        journal.append_unleased(&key, 0, &TransferEvent::Abandoned { reason: "test".into() }).await.unwrap();
    }
    let over = Prune::over(Timestamp::MAX, 0);
    assert_eq!(journal.prune(&Prune { limit: 1, ..over.clone() }).await.unwrap(), 1);
    let known = async || {
        let key = conformance::key(4);
        sequences::known(&mut journal.begin().await.unwrap(), &key.tenant, &key.agent, Direction::Uplink).await.unwrap()
    };
    assert_eq!((known().await.floor, known().await.gaps.len()), (9, 1));
    // As that program does it.
    let older = "DELETE FROM transfers WHERE sequence = 4;
        INSERT INTO sequences (tenant, agent, direction, last, floor) SELECT tenant, agent, direction, 9, 9 FROM sequences WHERE true
        ON CONFLICT DO UPDATE SET last = excluded.last, floor = excluded.floor";
    sqlx::raw_sql(older).execute(&journal.writer).await.unwrap();
    assert_eq!((known().await.floor, known().await.gaps.len()), (9, 0));
    assert!(journal.create(given(4)).await.is_err(), "it was used");
    // From then on gaps are kept again.
    let key = journal.create(given(20)).await.unwrap().into_record().key;
    journal.append_unleased(&key, 0, &TransferEvent::Abandoned { reason: "test".into() }).await.unwrap();
    assert_eq!(journal.prune(&over).await.unwrap(), 1);
    assert_eq!((known().await.floor, known().await.gaps.len()), (20, 1));
}

#[tokio::test]
async fn a_record_that_disagrees_with_its_events_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), &clock(), Place::Agent).await.unwrap();
    let record = journal.create(conformance::planned(1, SequenceChoice::Next)).await.unwrap().into_record();
    let event = TransferEvent::Abandoned { reason: "test".into() };
    journal.append_unleased(&record.key, 0, &event).await.unwrap();
    verify(&journal, &record.key).await.unwrap();
    for damage in [
        r#"UPDATE transfers SET state = '{"state":"landed"}'"#,
        r#"UPDATE transfers SET state = '{"state":"abandoned","reason":"test"}', events = 2"#,
        "UPDATE transfers SET events = 1; UPDATE events SET seq = 1",
        "DELETE FROM events",
        "UPDATE transfers SET state = 'nonsense'",
    ] {
        sqlx::raw_sql(damage).execute(&journal.writer).await.unwrap();
        let found = Failure::from(verify(&journal, &record.key).await.unwrap_err());
        assert_eq!(found.code(), Code::JournalFailed, "{damage}");
        assert_eq!(found.disposition(), towpath_transfer::Disposition::Park, "{damage}");
    }
}

#[tokio::test]
async fn acquiring_never_scans_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), &clock(), Place::Agent).await.unwrap();
    let explain = format!("EXPLAIN QUERY PLAN {DUE}");
    let query = sqlx::query(sqlx::AssertSqlSafe(explain)).bind("extract").bind(0).bind(0).bind(10).bind("[\"acme\"]");
    let plan: Vec<String> =
        query.fetch_all(&journal.readers).await.unwrap().iter().map(|row| row.try_get("detail").unwrap()).collect();
    assert!(plan.iter().any(|line| line.contains("transfers_due")), "{plan:#?}");
    assert!(plan.iter().any(|line| line.contains("transfers_since")), "{plan:#?}");
    assert!(!plan.iter().any(|line| line.starts_with("SCAN transfers")), "{plan:#?}");
}

#[tokio::test]
async fn the_transfers_of_one_state_are_found_by_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), &clock(), Place::Relay).await.unwrap();
    let explain = format!("EXPLAIN QUERY PLAN {LIST_OF_STATE}");
    let query = sqlx::query(sqlx::AssertSqlSafe(explain)).bind(i64::MAX);
    let plan: Vec<String> =
        query.fetch_all(&journal.readers).await.unwrap().iter().map(|row| row.try_get("detail").unwrap()).collect();
    assert!(plan.iter().any(|line| line.contains("SEARCH") && line.contains("transfers_alike (word=?")), "{plan:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_workers_share_the_work_without_overlap() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let journals = [
        open(folder.path(), &clock, Place::Agent).await.unwrap(),
        // Another process on the same file, with other random numbers.
        SqliteJournal::open(
            &folder.path().join("journal.db"),
            Place::Agent,
            Arc::new(clock.clone()),
            Arc::new(SeededEntropy::new(2)),
        )
        .await
        .unwrap(),
    ];
    const TRANSFERS: u64 = 40;
    for number in 0..TRANSFERS {
        journals[0].create(conformance::planned(number, SequenceChoice::Next)).await.unwrap();
    }
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let journal = journals[worker % 2].clone();
        workers.spawn(async move {
            let mut done = 0;
            while let Some(lease) = journal.acquire(Stage::Extract, 1, Duration::from_secs(60)).await.unwrap().pop() {
                let event = TransferEvent::Abandoned { reason: "test".into() };
                journal.append(&lease, 0, &event).await.unwrap();
                journal.release(&lease, Release::Done).await.unwrap();
                done += 1;
            }
            done
        });
    }
    let done: u64 = workers.join_all().await.into_iter().sum();
    assert_eq!(done, TRANSFERS);
    for number in 0..TRANSFERS {
        verify(&journals[0], &conformance::key(number)).await.unwrap();
    }
}

/// Two processes that begin the same job at once, again and again, never have two of it open.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_begin_a_job_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(conformance::start());
    let path = folder.path().join("journal.db");
    let mut journals = Vec::new();
    for seed in 1..=2 {
        let entropy = Arc::new(SeededEntropy::new(seed));
        journals.push(SqliteJournal::open(&path, Place::Agent, Arc::new(clock.clone()), entropy).await.unwrap());
    }
    for round in 0..20 {
        let mut begun = tokio::task::JoinSet::new();
        for (of, journal) in (0..).zip(journals.iter().cycle().take(6)) {
            let (journal, new) = (journal.clone(), conformance::planned(round * 100 + of, SequenceChoice::NextOfJob));
            begun.spawn(async move { journal.create(new).await.unwrap() });
        }
        let begun = begun.join_all().await;
        let new: Vec<_> = begun.iter().filter(|created| created.is_new()).collect();
        assert_eq!(new.len(), 1, "round {round}");
        assert!(begun.iter().all(|created| created.record().key == new[0].record().key));
        let event = TransferEvent::Abandoned { reason: "test".into() };
        journals[0].append_unleased(&new[0].record().key, 0, &event).await.unwrap();
    }
}

/// One operation of the comparison of both stores.
#[derive(Debug, Clone)]
enum Op {
    Create { number: u64, sequence: Option<u64>, downlink: bool },
    Acquire { stage: usize, limit: usize },
    Append { lease: usize, event: usize, off: bool },
    Message { number: u64, event: usize },
    Renew { lease: usize },
    Release { lease: usize, how: usize },
    Unpark { number: u64 },
    BreakLeases,
    Withdraw { number: u64 },
    BeginAnew { number: u64, sequence: u64 },
    Prune { keep: u64, limit: usize },
    Advance { seconds: u64 },
    TurnBack { seconds: u64 },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let number = 0..6u64;
    let op = prop_oneof![
        3 => (number.clone(), prop::option::of(0..5u64), any::<bool>())
            .prop_map(|(number, sequence, downlink)| Op::Create { number, sequence, downlink }),
        4 => (0..4usize, 0..3usize).prop_map(|(stage, limit)| Op::Acquire { stage, limit }),
        5 => (0..4usize, 0..7usize, prop::bool::weighted(0.1))
            .prop_map(|(lease, event, off)| Op::Append { lease, event, off }),
        2 => (number.clone(), 0..7usize).prop_map(|(number, event)| Op::Message { number, event }),
        1 => (0..4usize).prop_map(|lease| Op::Renew { lease }),
        3 => (0..4usize, 0..4usize).prop_map(|(lease, how)| Op::Release { lease, how }),
        1 => number.clone().prop_map(|number| Op::Unpark { number }),
        1 => number.clone().prop_map(|number| Op::Withdraw { number }),
        1 => (number, 1..5u64).prop_map(|(number, sequence)| Op::BeginAnew { number, sequence }),
        1 => Just(Op::BreakLeases),
        1 => (0..3u64, 0..3usize).prop_map(|(keep, limit)| Op::Prune { keep, limit }),
        2 => (0..90u64).prop_map(|seconds| Op::Advance { seconds }),
        1 => (0..900u64).prop_map(|seconds| Op::TurnBack { seconds }),
    ];
    prop::collection::vec(op, 1..60)
}

fn event(which: usize) -> TransferEvent {
    let digest = towpath_transfer::digest::Sha256Digest::of(b"x");
    let outcome = towpath_transfer::state::Outcome::Imported;
    [
        TransferEvent::Extracted { manifest: digest },
        TransferEvent::Packed { packed: digest },
        TransferEvent::Pushed,
        TransferEvent::PushAgain,
        TransferEvent::Accepted,
        TransferEvent::Settled { outcome },
        TransferEvent::Abandoned { reason: "test".into() },
    ][which]
        .clone()
}

/// Does an operation and shows everything that can be seen of it.
async fn run(journal: &dyn Journal, clock: &ManualClock, leases: &mut Vec<Lease>, op: &Op) -> String {
    let at = clock.now().saturating_add(Duration::from_secs(20)).unwrap();
    let failure = towpath_transfer::failure::FailureRecord {
        code: Code::Internal,
        disposition: towpath_transfer::Disposition::Retry,
        report: "test".into(),
    };
    let held = |which: usize| leases.get(which).cloned();
    match op {
        Op::Create { number, sequence, downlink } => {
            let mut new = conformance::planned(
                *number,
                sequence.map_or(SequenceChoice::Next, |n| match n {
                    0 => SequenceChoice::Given(None),
                    n => SequenceChoice::Given(Some(Sequence(n))),
                }),
            );
            if *downlink {
                new.direction = Direction::Downlink;
            }
            format!("{:?}", journal.create(new).await)
        }
        Op::Acquire { stage, limit } => {
            let got = journal.acquire(Stage::ALL[[0, 1, 2, 7][*stage]], *limit, Duration::from_secs(60)).await.unwrap();
            let shown = format!("{got:?}");
            for lease in got {
                leases.insert(0, lease);
            }
            leases.truncate(4);
            shown
        }
        Op::Append { lease, event: which, off } => match held(*lease) {
            Some(lease) => {
                let expected = journal.get(lease.key()).await.unwrap().map_or(0, |record| record.events) + u64::from(*off);
                format!("{:?}", journal.append(&lease, expected, &event(*which)).await)
            }
            None => String::new(),
        },
        Op::Message { number, event: which } => {
            let key = conformance::key(*number);
            let expected = journal.get(&key).await.unwrap().map_or(0, |record| record.events);
            format!("{:?}", journal.append_unleased(&key, expected, &event(*which)).await)
        }
        Op::Renew { lease } => match held(*lease) {
            Some(lease) => format!("{:?}", journal.renew(&lease, Duration::from_secs(60)).await),
            None => String::new(),
        },
        Op::Release { lease, how } => match held(*lease) {
            Some(lease) => {
                let how = [
                    Release::Done,
                    Release::WaitUntil { at },
                    Release::RetryAt { at, failure: failure.clone() },
                    Release::Park { failure },
                ][*how]
                    .clone();
                format!("{:?}", journal.release(&lease, how).await)
            }
            None => String::new(),
        },
        Op::Unpark { number } => format!("{:?}", journal.unpark(&conformance::key(*number)).await),
        Op::BreakLeases => format!("{:?}", journal.break_leases().await),
        Op::BeginAnew { number, sequence } => {
            let new = conformance::planned(*number, SequenceChoice::Given(Some(Sequence(*sequence))));
            format!("{:?}", journal.begin_anew(new).await)
        }
        Op::Withdraw { number } => format!("{:?}", journal.withdraw(&conformance::key(*number)).await),
        Op::Prune { keep, limit } => {
            format!("{:?}", journal.prune(&Prune { limit: *limit, ..Prune::over(clock.now(), *keep) }).await)
        }
        Op::Advance { .. } | Op::TurnBack { .. } => String::new(),
    }
}

async fn everything(journal: &dyn Journal) -> String {
    let list = journal.list(&Filter::default(), 100, None).await.unwrap();
    let mut shown = format!("{list:?}{:?}", journal.counts().await.unwrap());
    for record in &list {
        verify(journal, &record.key).await.unwrap();
        shown.push_str(&format!("{:?}", journal.history(&record.key).await.unwrap()));
    }
    let line = conformance::key(0);
    for direction in [Direction::Uplink, Direction::Downlink] {
        shown.push_str(&format!("{:?}", journal.last_sequence(&line.tenant, &line.agent, direction).await.unwrap()));
    }
    shown
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_the_memory_journal_does(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
            let disk = open(folder.path(), &clock, Place::Agent).await.unwrap();
            let memory = MemoryJournal::new(Place::Agent, Arc::new(clock.clone()), Arc::new(SeededEntropy::new(1)));
            let (mut of_disk, mut of_memory) = (Vec::new(), Vec::new());
            for op in &ops {
                match op {
                    Op::Advance { seconds } => clock.advance(Duration::from_secs(*seconds)),
                    Op::TurnBack { seconds } => {
                        clock.set_wall(clock.now().saturating_sub(Duration::from_secs(*seconds)).unwrap());
                    }
                    _ => {}
                }
                let seen = run(&disk, &clock, &mut of_disk, op).await;
                assert_eq!(seen, run(&memory, &clock, &mut of_memory, op).await, "{op:?} of {ops:#?}");
            }
            assert_eq!(everything(&disk).await, everything(&memory).await);
            disk.close().await;
        });
    }
}
