//! When a file of an export folder counts as whole, and what is left where it is.

use std::{path::Path, time::Duration};

use towpath_journal::WakeUp;
use towpath_keys::AllowedSigners;
use towpath_transfer::Code;
use towpath_transport::files::{FileStore as _, read_whole};

use super::world::{Answer, FOLDER, downlinks, kept_manifest, marked, nothing_left, over, put, stable, watched, watching};
use crate::{
    agents::addressee,
    downlink::watch::{Complete, Watcher},
    parts::AGENT_NAMESPACES,
    testing::{Bench, identity},
};

/// One look after `seconds`; how many files it took.
async fn look(bench: &Bench, watcher: &mut Watcher, seconds: u64) -> usize {
    bench.clock.advance(Duration::from_secs(seconds));
    watcher.look(&WakeUp::new()).await
}

fn names(bench: &Bench) -> Vec<String> {
    let entries = bench.files.list(Path::new(FOLDER), None, 100).unwrap();
    entries.into_iter().map(|entry| entry.name).filter(|name| name != ".taken").collect()
}

#[tokio::test]
async fn a_file_that_grows_is_left_until_it_has_stayed_the_same() {
    let bench = watching(stable()).await;
    let mut watcher = Watcher::new(bench.parts.clone());
    for grown in 1..=5 {
        put(&bench, "orders.csv", &vec![b'x'; grown * 100]);
        assert_eq!(look(&bench, &mut watcher, 9).await, 0, "{grown}");
    }
    // The same length is not enough while the time of change is another.
    put(&bench, "orders.csv", &[b'y'; 500]);
    assert_eq!(look(&bench, &mut watcher, 0).await, 0);
    assert_eq!(look(&bench, &mut watcher, 9).await, 0);
    assert_eq!(look(&bench, &mut watcher, 1).await, 1);
    nothing_left(&bench);
    let ended = over(&bench, &bench.parts, 1, &Answer::Delivered).await;
    assert_eq!(kept_manifest(&bench.parts, &ended[0].key).files[0].size, 500);
}

#[tokio::test]
async fn a_file_that_is_written_after_it_was_claimed_is_waited_for() {
    let bench = watching(stable()).await;
    let mut watcher = Watcher::new(bench.parts.clone());
    put(&bench, "orders.csv", b"begun");
    assert_eq!(look(&bench, &mut watcher, 0).await, 0);
    // The journal does not answer, so that the claim stays; meanwhile the app writes on.
    bench.files.set_space(Some(1_000));
    put(&bench, "filler", &[b'x'; 700]);
    assert_eq!(look(&bench, &mut watcher, 10).await, 0);
    let claimed = bench.files.list(Path::new("/app/export/.taken"), None, 10).unwrap();
    assert!(!names(&bench).contains(&"orders.csv".to_owned()), "{claimed:?}");
    let own = claimed.iter().find(|entry| !entry.name.contains('.')).unwrap();
    let path = Path::new("/app/export/.taken").join(&own.name).join("orders.csv");
    bench.files.set_space(None);
    towpath_transport::files::write_whole(&*bench.files, &path, b"begun and ended").unwrap();
    bench.files.remove(&Path::new(FOLDER).join("filler")).unwrap();
    assert_eq!(look(&bench, &mut watcher, 1).await, 0);
    assert_eq!(look(&bench, &mut watcher, 10).await, 1);
    let ended = over(&bench, &bench.parts, 1, &Answer::Delivered).await;
    assert_eq!(kept_manifest(&bench.parts, &ended[0].key).files[0].size, 15);
}

#[tokio::test]
async fn a_marker_says_that_a_file_is_whole_and_goes_with_it() {
    let bench = watching(marked()).await;
    let mut watcher = Watcher::new(bench.parts.clone());
    put(&bench, "orders.csv", b"x");
    put(&bench, "lonely.csv.ready", b"");
    assert_eq!(look(&bench, &mut watcher, 1_000).await, 0);
    put(&bench, "orders.csv.ready", b"");
    assert_eq!(look(&bench, &mut watcher, 0).await, 1);
    // A marker without its file stays until the file is there, and vouches once.
    assert_eq!(names(&bench), ["lonely.csv.ready"]);
    put(&bench, "lonely.csv", b"y");
    assert_eq!(look(&bench, &mut watcher, 0).await, 1);
    put(&bench, "lonely.csv", b"the next one");
    assert_eq!(look(&bench, &mut watcher, 1_000).await, 0);
    assert_eq!(names(&bench), ["lonely.csv"]);
    let ended = over(&bench, &bench.parts, 2, &Answer::Delivered).await;
    let mut sent: Vec<String> =
        ended.iter().map(|record| kept_manifest(&bench.parts, &record.key).files[0].name.to_string()).collect();
    sent.sort();
    assert_eq!(sent, ["lonely.csv", "orders.csv"]);
}

#[tokio::test]
async fn what_cannot_travel_stays_and_the_others_go() {
    let bench = watching(watched(Complete::Stable(Duration::ZERO))).await;
    let left = ["CON.csv", "MD5SUMS", "colon:name.csv", "manifest.json", "still.part", "still.tmp"];
    for name in left {
        put(&bench, name, b"x");
    }
    put(&bench, ".hidden", b"x");
    bench.files.create_dir_all(&Path::new(FOLDER).join("folder")).unwrap();
    put(&bench, "orders.csv", b"x");
    let mut watcher = Watcher::new(bench.parts.clone());
    assert_eq!(look(&bench, &mut watcher, 1).await, 1);
    for _ in 0..3 {
        assert_eq!(look(&bench, &mut watcher, 1).await, 0);
    }
    let mut expected = vec![".hidden"];
    expected.extend(left);
    expected.push("folder");
    expected.sort_unstable();
    assert_eq!(names(&bench), expected);
    assert_eq!(downlinks(&bench.parts).await.len(), 1);
}

#[tokio::test]
async fn a_file_that_is_too_large_stays() {
    let bench = Bench::with(|parts| {
        parts.exports = watched(Complete::Stable(Duration::ZERO));
        parts.limits.export_file_bytes = 10;
        parts.limits.open_exports = 1;
    })
    .await;
    put(&bench, "large.csv", &[b'x'; 11]);
    put(&bench, "one.csv", b"x");
    put(&bench, "two.csv", b"x");
    let mut watcher = Watcher::new(bench.parts.clone());
    // Beyond the limit of what may be under way nothing is taken, and nothing is lost.
    assert_eq!(look(&bench, &mut watcher, 1).await, 1);
    assert_eq!(look(&bench, &mut watcher, 1).await, 0);
    assert_eq!(names(&bench), ["large.csv", "two.csv"]);
    over(&bench, &bench.parts, 2, &Answer::Delivered).await;
    assert_eq!(names(&bench), ["large.csv"]);
}

#[tokio::test]
async fn a_folder_that_is_missing_is_taken_up_when_it_comes() {
    let bench = Bench::with(|parts| parts.exports = watched(Complete::Stable(Duration::ZERO))).await;
    let mut watcher = Watcher::new(bench.parts.clone());
    assert_eq!(look(&bench, &mut watcher, 1).await, 0);
    assert!(bench.files.stat(Path::new(FOLDER)).is_err(), "the folder is not ours to make");
    put(&bench, "orders.csv", b"x");
    assert_eq!(look(&bench, &mut watcher, 1).await, 1);
}

#[tokio::test]
async fn without_one_approved_agent_nothing_is_taken() {
    let bench = watching(watched(Complete::Stable(Duration::ZERO))).await;
    let pins = bench.temp.path().join("allowed_signers");
    let approve = |name: &str, seed| {
        AllowedSigners::load(&pins).unwrap().add(name, &AGENT_NAMESPACES, identity(seed).public_key()).unwrap()
    };
    approve("second", 2);
    put(&bench, "orders.csv", b"x");
    let mut watcher = Watcher::new(bench.parts.clone());
    assert_eq!(look(&bench, &mut watcher, 1).await, 0);
    assert_eq!(names(&bench), ["orders.csv"]);
    let signers = || AllowedSigners::load(&pins).unwrap();
    assert_eq!(addressee(&signers(), None).unwrap_err().code(), Code::RequestInvalid);
    assert_eq!(addressee(&signers(), Some(&"second".parse().unwrap())).unwrap().as_str(), "second");
    assert_eq!(addressee(&signers(), Some(&"third".parse().unwrap())).unwrap_err().code(), Code::AgentUnapproved);
    crate::agents::remove(&pins, &"second".parse().unwrap()).unwrap();
    assert_eq!(look(&bench, &mut watcher, 1).await, 1);
    crate::agents::remove(&pins, &"erp".parse().unwrap()).unwrap();
    assert_eq!(addressee(&signers(), None).unwrap_err().code(), Code::AgentUnapproved);
}

#[tokio::test]
async fn the_bytes_are_those_that_were_claimed_and_the_name_is_free_again() {
    let bench = watching(marked()).await;
    let mut watcher = Watcher::new(bench.parts.clone());
    for content in [b"first".as_slice(), b"second"] {
        put(&bench, "orders.csv", content);
        put(&bench, "orders.csv.ready", b"");
        assert_eq!(look(&bench, &mut watcher, 1).await, 1);
    }
    let mut taken: Vec<Vec<u8>> = Vec::new();
    for record in downlinks(&bench.parts).await {
        let path = crate::downlink::take::file_path(&bench.parts.layout, &record.key, &"orders.csv".parse().unwrap());
        taken.push(read_whole(&*bench.files, &path, 100).unwrap());
    }
    assert_eq!(taken, [b"second".to_vec(), b"first".to_vec()]);
}
