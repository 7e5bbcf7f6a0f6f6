//! When a file is whole.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use towpath_transport::files::{FaultFiles, FileOp};

use super::*;

const STABLE_FOR: Duration = Duration::from_secs(10);

fn stable(bench: &mut Bench) {
    bench.config.complete = Complete::Stable { stable_for: STABLE_FOR };
}

fn marked(bench: &mut Bench) {
    bench.config.complete = Complete::Marker { marker_suffix: ".ready".into() };
}

/// Opens the source while time passes; `between` happens before the second look.
async fn open_with(bench: &Bench, between: impl FnMut() + Send + 'static) -> Result<Box<dyn SourceSnapshot>, Failure> {
    let looks = AtomicUsize::new(0);
    let between = Mutex::new(between);
    let plan = move |op: FileOp, path: &Path| {
        if op == FileOp::List && path == Path::new(FOLDER) && looks.fetch_add(1, Ordering::SeqCst) == 1 {
            between.lock().unwrap()();
        }
        None
    };
    let source = bench.source_over(Arc::new(FaultFiles::new(Arc::new(bench.files.clone()), Box::new(plan))));
    let cancel = CancellationToken::new();
    let passing = async {
        loop {
            bench.clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        opened = source.open(&cancel) => opened,
        () = passing => unreachable!("the clock never stops"),
    }
}

fn waits(opened: Result<Box<dyn SourceSnapshot>, Failure>) -> String {
    let failure = opened.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpMissing, Disposition::Retry));
    failure.message().to_owned()
}

async fn count(opened: Result<Box<dyn SourceSnapshot>, Failure>) -> String {
    opened.unwrap().snapshot().id.split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_file_is_whole_when_two_looks_find_the_same() {
    let mut bench = Bench::new(vec![TableConfig { files: Some("items*.csv".into()), ..table("items") }]);
    stable(&mut bench);
    let said = waits(bench.open().await);
    assert_eq!(said, "waiting for files in /erp/out: table items: there is no file items*.csv");
    bench.put("items-1.csv", "a\n1\n");
    bench.put("items-2.csv", "a\n2\n");
    let since = bench.clock.monotonic();
    assert_eq!(count(open_with(&bench, || {}).await).await, "2");
    assert!(bench.clock.monotonic() - since >= STABLE_FOR);
    let said = |text: &str| format!("waiting for files in /erp/out: table items: {text}");
    // Longer; the same length at another time; new; gone.
    let files = bench.files.clone();
    let path = bench.path("items-2.csv");
    let grown = move || write_whole(&files, &path, b"a\n2\n3\n").unwrap();
    assert_eq!(waits(open_with(&bench, grown).await), said("items-2.csv is still being written"));
    let (files, clock, path) = (bench.files.clone(), bench.clock.clone(), bench.path("items-1.csv"));
    let touched = move || {
        clock.advance(Duration::from_millis(1));
        write_whole(&files, &path, b"a\n7\n").unwrap();
    };
    assert_eq!(waits(open_with(&bench, touched).await), said("items-1.csv is still being written"));
    let (files, path) = (bench.files.clone(), bench.path("items-3.csv"));
    let another = move || write_whole(&files, &path, b"a\n4\n").unwrap();
    assert_eq!(waits(open_with(&bench, another).await), said("items-3.csv is still being written"));
    let (files, path) = (bench.files.clone(), bench.path("items-3.csv"));
    assert_eq!(count(open_with(&bench, move || files.remove(&path).unwrap()).await).await, "2");
}

#[tokio::test]
async fn clocks_that_differ_do_not_matter() {
    let mut bench = Bench::new(vec![table("items")]);
    stable(&mut bench);
    // The share's clock is a day ahead, or a year behind.
    for start in ["2026-03-02T12:00:00Z", "2025-03-01T12:00:00Z"] {
        let theirs = ManualClock::new(start.parse().unwrap());
        bench.files = MemoryFiles::with_clock(Arc::new(theirs));
        bench.files.create_dir_all(Path::new(FOLDER)).unwrap();
        bench.put("items.csv", "a\n1\n");
        assert_eq!(count(open_with(&bench, || {}).await).await, "1");
        let (files, path) = (bench.files.clone(), bench.path("items.csv"));
        let said = waits(open_with(&bench, move || write_whole(&files, &path, b"a\n1\n2\n").unwrap()).await);
        assert!(said.ends_with("items.csv is still being written"), "{said}");
    }
}

#[tokio::test]
async fn a_file_is_whole_when_its_marker_is_there() {
    let mut bench = Bench::new(vec![TableConfig { files: Some("items*".into()), ..table("items") }]);
    marked(&mut bench);
    bench.put("items-1.csv", "a\n1\n");
    bench.put(".ready", "");
    let said = waits(bench.open().await);
    assert_eq!(said, "waiting for files in /erp/out: table items: items-1.csv has no marker items-1.csv.ready");
    bench.put("items-1.csv.ready", "");
    // A marker is no file of the table, and nothing is waited for.
    let since = bench.clock.monotonic();
    assert_eq!(count(bench.open().await).await, "1");
    assert_eq!(bench.clock.monotonic(), since);
    bench.put("items-2.csv", "a\n1\n");
    bench.put("items-3.csv", "a\n1\n");
    bench.put("items-3.csv.ready", "");
    assert!(waits(bench.open().await).ends_with("items-2.csv has no marker items-2.csv.ready"));
}

#[tokio::test]
async fn files_that_are_merged_go_up_to_the_first_that_is_not_whole() {
    let moves =
        TableConfig { files: Some("moves*.csv".into()), each_file: EachFile::Merges, key: vec!["a".into()], ..table("moves") };
    let mut bench = Bench::new(vec![moves]);
    marked(&mut bench);
    for name in ["moves-1.csv", "moves-1.csv.ready", "moves-2.csv", "moves-3.csv", "moves-3.csv.ready"] {
        bench.put(name, "a\n1\n");
    }
    assert_eq!(count(bench.open().await).await, "1");
    bench.files.remove(&bench.path("moves-1.csv")).unwrap();
    assert!(waits(bench.open().await).ends_with("moves-2.csv has no marker moves-2.csv.ready"));
}

#[tokio::test]
async fn every_table_waits_until_all_have_their_files() {
    let mut bench = Bench::new(vec![table("items"), table("sales")]);
    bench.put("items.csv", "a\n1\n");
    assert_eq!(waits(bench.open().await), "waiting for files in /erp/out: table sales: there is no file sales.csv");
    bench.put("sales.csv", "a\n1\n");
    let snapshot = bench.open().await.unwrap();
    let told = snapshot.snapshot();
    assert!(!told.consistent && told.id.starts_with("2 files of 8 bytes at 2026-03-01T12:00:00Z, their list "), "{told:?}");
    assert!(snapshot.warnings()[0].contains("only the ERP knows whether they fit each other"));
    bench.tables.pop();
    let snapshot = bench.open().await.unwrap();
    assert!(snapshot.snapshot().consistent && snapshot.warnings().is_empty());
}

#[tokio::test]
async fn waiting_ends_when_it_is_cancelled() {
    let mut bench = Bench::new(vec![table("items")]);
    stable(&mut bench);
    bench.put("items.csv", "a\n1\n");
    let cancel = CancellationToken::new();
    let source = bench.source();
    let mut opening = Box::pin(source.open(&cancel));
    while bench.clock.sleepers() == 0 {
        assert!(futures::poll!(&mut opening).is_pending());
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    assert_eq!(opening.await.unwrap_err().code(), Code::Cancelled);
}

#[tokio::test]
async fn there_are_not_too_many_files_of_a_table() {
    let mut bench = Bench::new(vec![TableConfig { files: Some("items*.csv".into()), ..table("items") }]);
    for n in 0..=super::super::find::MAX_FILES_PER_TABLE {
        drop(bench.files.create(&bench.path(&format!("items{n:04}.csv"))).unwrap());
    }
    let failure = bench.open().await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::LimitExceeded, Disposition::Park));
    assert!(failure.message().ends_with("holds more than 1000 files of table items"), "{failure}");
    // Those that are merged go a thousand at a time.
    bench.tables[0].each_file = EachFile::Merges;
    assert_eq!(count(bench.open().await).await, "1000");
}
