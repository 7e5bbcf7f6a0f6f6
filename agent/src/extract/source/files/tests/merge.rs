//! Files that are merged by key, and the archive from which all is read again; the move into it, stopped anywhere.

use std::io::ErrorKind;

use towpath_transfer::manifest::Mode;
use towpath_transport::files::{FaultFiles, FileFault, FileOp};

use super::*;

const ARCHIVE: &str = "/erp/out/archive";

fn moves() -> TableConfig {
    let moves = typed("moves", &[("no", "BIGINT"), ("qty", "DECIMAL(9,2)")]);
    TableConfig { files: Some("moves*.csv".into()), each_file: EachFile::Merges, key: vec!["no".into()], ..moves }
}

fn put_away(bench: &Bench, extracted: &Extracted) {
    archive(&bench.files, extracted.taken.as_ref().unwrap()).unwrap();
    bench.clock.advance(Duration::from_secs(60));
}

fn mode(extracted: &Extracted) -> (Mode, bool, bool) {
    let entry = &extracted.files[0];
    (entry.table().unwrap().mode, entry.base.is_some(), entry.unchanged)
}

fn numbers(rows: &whole_extract::Rows) -> Vec<&str> {
    rows.iter().map(|row| row[0].as_deref().unwrap()).collect()
}

#[tokio::test]
async fn new_files_build_on_what_the_app_has_and_a_full_read_on_the_archive() {
    let bench = Bench::new(vec![moves()]);
    bench.put("moves-2.csv", "no,qty\n3,3\n");
    bench.put("moves-1.csv", "no,qty\n1,1\n2,2\n");
    let first = bench.extract().await.unwrap();
    assert_eq!(mode(&first), (Mode::Merge, false, false));
    assert_eq!(numbers(&bench.rows(&first.files[0])), ["1", "2", "3"]);
    put_away(&bench, &first);
    assert_eq!(bench.names(ARCHIVE), ["20260301-120000-001_moves-1.csv", "20260301-120000-001_moves-2.csv"]);
    assert_eq!(bench.names(FOLDER), ["archive"]);
    // Nothing new: waited for, unless everything is wanted.
    let before = whole_extract::manifest(&first);
    let files = || -> Arc<dyn FileStore> { Arc::new(bench.files.clone()) };
    let failure = bench.extract_after(Some(before.clone()), files()).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpMissing, Disposition::Retry));
    assert!(failure.message().ends_with("table moves: there is no new file"), "{failure}");
    assert_eq!(bench.only().await.len(), 3);
    // The same name again, with a newer row of a key.
    bench.put("moves-1.csv", "no,qty\n2,20\n4,4\n");
    let second = bench.extract_after(Some(before), files()).await.unwrap();
    assert_eq!(mode(&second), (Mode::Merge, true, false));
    assert_eq!(numbers(&bench.rows(&second.files[0])), ["2", "4"]);
    // In full: in the order in which they went, so that the newer row is the later one.
    assert_eq!(numbers(&bench.only().await), ["1", "2", "3", "2", "4"]);
    put_away(&bench, &second);
    assert_eq!(numbers(&bench.only().await), ["1", "2", "3", "2", "4"]);
    // What nobody has archived is not read.
    for other in ["moves-9.csv", "20260301-120000-00x_moves-9.csv", "20260301-120000-001_other.csv"] {
        write_whole(&bench.files, &Path::new(ARCHIVE).join(other), b"no,qty\n9,9\n").unwrap();
    }
    assert_eq!(bench.only().await.len(), 5);
}

#[tokio::test]
async fn what_is_merged_into_an_unchanged_table_builds_on_the_transfer_that_brought_it() {
    let mut bench = Bench::new(vec![TableConfig { each_file: EachFile::Replaces, ..moves() }]);
    let files = || -> Arc<dyn FileStore> { Arc::new(bench.files.clone()) };
    bench.put("moves.csv", "no,qty\n1,1\n");
    let first = whole_extract::manifest(&bench.extract().await.unwrap());
    let again = bench.extract_after(Some(first.clone()), files()).await.unwrap();
    assert_eq!((mode(&again), again.files[0].base), ((Mode::Replace, true, true), Some(first.transfer)));
    let transfer = "01922c1e-8a4f-7d3a-9b5e-000000000002".parse().unwrap();
    assert_ne!(transfer, first.transfer);
    let again = Manifest { transfer, ..whole_extract::manifest(&again) };
    let files = files();
    bench.tables = vec![moves()];
    let merged = bench.extract_after(Some(again), files).await.unwrap();
    assert_eq!((mode(&merged), merged.files[0].base), ((Mode::Merge, true, false), Some(first.transfer)));
}

#[tokio::test]
async fn the_archive_is_in_the_order_in_which_it_went_also_after_the_clock_was_put_back() {
    let bench = Bench::new(vec![moves()]);
    bench.put("moves.csv", "no,qty\n1,1\n2,2\n");
    let first = bench.extract().await.unwrap();
    put_away(&bench, &first);
    bench.clock.set_wall(bench.clock.now() - Duration::from_secs(7_200));
    bench.put("moves.csv", "no,qty\n2,20\n");
    let second = bench.extract_after(Some(whole_extract::manifest(&first)), Arc::new(bench.files.clone())).await.unwrap();
    put_away(&bench, &second);
    assert_eq!(bench.names(ARCHIVE), ["20260301-120000-001_moves.csv", "20260301-120001-001_moves.csv"]);
    assert_eq!(numbers(&bench.only().await), ["1", "2", "2"], "the newer row is the later one");
}

#[tokio::test]
async fn a_file_that_is_not_whole_is_named_where_the_others_go_without_it() {
    let mut bench = Bench::new(vec![moves(), table("items")]);
    bench.config.complete = Complete::Marker { marker_suffix: ".ready".into() };
    for name in ["moves-1.csv", "items.csv"] {
        bench.put(name, "no,qty\n1,1\n");
        bench.put(&format!("{name}.ready"), "");
    }
    let first = bench.extract().await.unwrap();
    assert!(first.warnings.iter().all(|said| !said.contains("moves")), "{:?}", first.warnings);
    put_away(&bench, &first);
    // The ERP has died between the file and its marker, and goes on the next day.
    for name in ["moves-2.csv", "moves-3.csv", "moves-3.csv.ready", "items.csv", "items.csv.ready"] {
        bench.put(name, if name.ends_with("csv") { "no,qty\n2,2\n" } else { "" });
    }
    let before = whole_extract::manifest(&first);
    let second = bench.extract_after(Some(before.clone()), Arc::new(bench.files.clone())).await.unwrap();
    let named = "table moves: moves-2.csv has no marker moves-2.csv.ready; it is not sent, and neither is what comes after it";
    assert!(second.warnings.iter().any(|said| said == named), "{:?}", second.warnings);
    put_away(&bench, &second);
    bench.tables.pop();
    let failure = bench.extract_after(Some(before), Arc::new(bench.files.clone())).await.unwrap_err();
    assert!(failure.message().ends_with("table moves: moves-2.csv has no marker moves-2.csv.ready"), "{failure}");
}

#[tokio::test]
async fn a_merged_table_without_a_new_file_does_not_hold_the_others_up() {
    let mut bench = Bench::new(vec![moves(), table("items")]);
    bench.put("items.csv", "a\n1\n");
    let failure = bench.open().await.unwrap_err();
    assert!(failure.message().ends_with("table moves: there is no file moves*.csv"), "{failure}");
    bench.put("moves.csv", "no,qty\n1,1\n");
    let first = bench.extract().await.unwrap();
    put_away(&bench, &first);
    bench.put("items.csv", "a\n2\n");
    let second = bench.extract_after(Some(whole_extract::manifest(&first)), Arc::new(bench.files.clone())).await.unwrap();
    assert_eq!(mode(&second), (Mode::Merge, true, false));
    assert!(bench.rows(&second.files[0]).is_empty());
    assert_eq!(second.taken.unwrap().files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["items.csv"]);
    bench.tables.pop();
    assert_eq!(bench.only().await.len(), 1);
}

/// A marked file that was sent, and what was noted of it.
async fn sent() -> (Bench, Taken) {
    let mut bench = Bench::new(vec![table("items")]);
    bench.config.complete = Complete::Marker { marker_suffix: ".ready".into() };
    bench.put("items.csv", "a\n1\n");
    bench.put("items.csv.ready", "");
    let taken = bench.extract().await.unwrap().taken.unwrap();
    // What was noted is read back as it was.
    let taken = serde_json::from_slice(&serde_json::to_vec(&taken).unwrap()).unwrap();
    (bench, taken)
}

const BOTH: [&str; 2] = ["20260301-120000-001_items.csv", "20260301-120000-001_items.csv.ready"];

#[tokio::test]
async fn the_archive_has_a_file_once_wherever_the_move_stops() {
    for fault in [FileFault::Before(ErrorKind::Other), FileFault::After(ErrorKind::Other)] {
        for with_power_loss in [false, true] {
            let mut effect = 1;
            loop {
                let (bench, taken) = sent().await;
                let failing = FaultFiles::new(Arc::new(bench.files.clone()), fault.on_effect(effect));
                let stopped = archive(&failing, &taken);
                if with_power_loss {
                    bench.files.power_loss();
                }
                if let Err(failure) = &stopped {
                    assert_eq!((failure.code(), failure.disposition()), (Code::FileFailed, Disposition::Retry));
                    assert!(failure.message().contains("/erp/out to /erp/out/archive"), "{failure}");
                    let there = [bench.names(FOLDER), bench.names(ARCHIVE)].concat();
                    assert!(there.iter().any(|name| name.ends_with("items.csv")), "{effect}: {there:?}");
                }
                archive(&bench.files, &taken).unwrap();
                bench.files.power_loss();
                assert_eq!(
                    (bench.names(ARCHIVE), bench.names(FOLDER)),
                    (BOTH.map(str::to_owned).to_vec(), vec!["archive".to_owned()]),
                    "{effect}"
                );
                if stopped.is_ok() {
                    break;
                }
                effect += 1;
            }
            assert!(effect > 4, "{effect}");
        }
    }
}

#[tokio::test]
async fn a_file_that_was_replaced_or_taken_away_stays_as_it_is() {
    // Replaced by one of another length; of the same length and time; and with a new marker.
    for (name, text, later, left) in [
        ("items.csv", "a\n2\n3\n", false, vec!["archive", "items.csv"]),
        ("items.csv", "a\n2\n", false, vec!["archive", "items.csv"]),
        ("items.csv.ready", "", true, vec!["archive", "items.csv.ready"]),
    ] {
        let (bench, taken) = sent().await;
        if later {
            bench.clock.advance(Duration::from_secs(1));
        }
        bench.put(name, text);
        archive(&bench.files, &taken).unwrap();
        assert_eq!(bench.names(FOLDER), left, "{text:?}");
        // Also when it was archived already, and the same was dropped once more.
        archive(&bench.files, &taken).unwrap();
        assert_eq!(bench.names(FOLDER), left);
    }
    let (bench, taken) = sent().await;
    archive(&bench.files, &taken).unwrap();
    bench.put("items.csv", "a\n1\n");
    archive(&bench.files, &taken).unwrap();
    assert_eq!(bench.names(FOLDER), ["archive", "items.csv"]);
    assert_eq!(bench.names(ARCHIVE), BOTH);
    let (bench, taken) = sent().await;
    bench.files.remove(&bench.path("items.csv")).unwrap();
    archive(&bench.files, &taken).unwrap();
    assert_eq!(bench.names(ARCHIVE), [BOTH[1]]);
}

#[tokio::test]
async fn one_that_is_replaced_while_it_is_moved_goes_back_also_after_a_stop() {
    for stopped in [false, true] {
        let (bench, taken) = sent().await;
        let (under, mut moved) = (bench.files.clone(), false);
        let plan = move |op, path: &Path| match op {
            FileOp::Rename if path.ends_with(BOTH[0]) => {
                // The ERP is quicker than the move.
                write_whole(&under, &Path::new(FOLDER).join("items.csv"), b"a\n2\n3\n").unwrap();
                moved = true;
                None
            }
            FileOp::Stat if stopped && moved && path.ends_with(BOTH[0]) => Some(FileFault::Before(ErrorKind::Other)),
            _ => None,
        };
        let failing = FaultFiles::new(Arc::new(bench.files.clone()), Box::new(plan));
        assert_eq!(archive(&failing, &taken).is_err(), stopped);
        archive(&bench.files, &taken).unwrap();
        assert_eq!(read_whole(&bench.files, &bench.path("items.csv"), 100).unwrap(), b"a\n2\n3\n");
        assert_eq!(bench.names(ARCHIVE), [BOTH[1]]);
    }
}

#[tokio::test]
async fn a_name_that_is_taken_in_the_archive_gets_a_number() {
    let (bench, taken) = sent().await;
    write_whole(&bench.files, &Path::new(ARCHIVE).join(BOTH[0]), b"another").unwrap();
    archive(&bench.files, &taken).unwrap();
    archive(&bench.files, &taken).unwrap();
    let expected = [BOTH[0], BOTH[1], "20260301-120000-002_items.csv"];
    let mut expected = expected.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(bench.names(ARCHIVE), expected);
    assert_eq!(bench.names(FOLDER), ["archive"]);
    // Where nothing is free any more, it is told and tried again.
    let (bench, taken) = sent().await;
    for number in 1..=999 {
        let name = format!("20260301-120000-{number:03}_items.csv");
        write_whole(&bench.files, &Path::new(ARCHIVE).join(name), b"another").unwrap();
    }
    let failure = archive(&bench.files, &taken).unwrap_err();
    assert_eq!(failure.disposition(), Disposition::Retry);
    assert!(failure.report().contains("999 other files of the name items.csv"), "{}", failure.report());
    assert!(bench.names(FOLDER).contains(&"items.csv".to_owned()));
}

#[tokio::test]
async fn an_archive_on_another_volume_is_told() {
    let (bench, taken) = sent().await;
    let crossing = FileFault::Before(ErrorKind::CrossesDevices);
    let plan = move |op, _: &Path| (op == FileOp::Rename).then_some(crossing);
    let failing = FaultFiles::new(Arc::new(bench.files.clone()), Box::new(plan));
    let failure = archive(&failing, &taken).unwrap_err();
    assert!(failure.message().ends_with("the archive must be on the volume of the folder"), "{failure}");
}
