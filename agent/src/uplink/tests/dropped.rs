//! Files that an ERP drops, from the folder over the receipt into the archive.

use std::{io::ErrorKind, path::Path, sync::Arc};

use towpath_journal::Point;
use towpath_transfer::{Code, Stage, TransferState, manifest::Mode, state::Rejection};
use towpath_transport::files::{FaultFiles, FileFault, FileOp, FileStore, write_whole};

use super::world::World;
use crate::{chain, config::Config, extract::ExtractParts, parts::SourceExtractor};

const CONFIG: &str = "[receipt]\npoll = \"1s\"\n[[job]]\nname = \"main\"\n[job.source]\nkind = \"files\"\nfolder = \"/erp\"\n\
    [[job.table]]\nname = \"items\"\nfiles = \"items*.csv\"\n[[job.table]]\nname = \"moves\"\nfiles = \"moves*.csv\"\n\
    each_file = \"merges\"\nkey = [\"no\"]\n[job.table.types]\nno = \"BIGINT\"\n";

fn world() -> World {
    let mut world = World::new();
    let files: Arc<dyn FileStore> = world.files.clone();
    files.create_dir_all(Path::new("/erp")).unwrap();
    let extract = ExtractParts { files, clock: Arc::clone(&world.parts.clock), workers: 1, ..crate::extract::tests::parts() };
    world.parts.extractor = Arc::new(SourceExtractor { parts: extract, config: world.parts.config.clone() });
    world.parts.config = crate::config::SharedConfig::new(Config::parse(CONFIG, Path::new("/etc/agent.toml")).unwrap());
    world.threads = true;
    world
}

fn put(world: &World, name: &str, text: &str) {
    write_whole(&*world.files, &Path::new("/erp").join(name), text.as_bytes()).unwrap();
}

fn put_both(world: &World, number: u32) {
    put(world, "items.csv", &format!("no,name\n{number},x\n"));
    put(world, "moves.csv", &format!("no,qty\n{number},1\n"));
}

fn names(world: &World, folder: &str) -> Vec<String> {
    world.files.list(Path::new(folder), None, 100).unwrap().into_iter().map(|entry| entry.name).collect()
}

/// The archived files without what says when they went.
fn archived(world: &World) -> Vec<String> {
    names(world, "/erp/archive").iter().map(|name| name.split_once('_').unwrap().1.to_owned()).collect()
}

#[tokio::test]
async fn files_wait_for_their_receipt_and_go_once() {
    let mut world = world();
    let id = world.plan(false).await;
    let waiting = world.drive(id, |record| record.last_failure.is_some()).await;
    let failure = waiting.last_failure.unwrap();
    assert_eq!((failure.code, waiting.parked), (Code::ErpMissing, false));
    assert!(failure.report.contains("table items: there is no file items*.csv; table moves: there is no file moves*.csv"));
    put_both(&world, 1);
    world.crash_at(id, Stage::Receipt, Point::BeforeEffect).await;
    assert_eq!(names(&world, "/erp"), ["archive", "items.csv", "moves.csv"]);
    assert_eq!(world.finish(id).await.state, TransferState::Imported);
    assert_eq!(
        (names(&world, "/erp"), archived(&world)),
        (vec!["archive".to_owned()], vec!["items.csv".into(), "moves.csv".into()])
    );
    assert!(chain::verify(&world.parts, id).await.unwrap().ok);
    // Only items are new: of moves nothing goes, and the app keeps what it has.
    put(&world, "items-2.csv", "no,name\n2,y\n");
    let second = world.send().await;
    assert_eq!(second.state, TransferState::Imported);
    let manifest = world.manifest(second.key.id);
    let moves = &manifest.files[1];
    assert_eq!((moves.table().unwrap().mode, moves.table().unwrap().rows, moves.base), (Mode::Merge, 0, Some(id)));
    assert_eq!(archived(&world).len(), 3);
    // In full: all moves there ever were.
    put_both(&world, 3);
    let full = world.plan(true).await;
    assert_eq!(world.finish(full).await.state, TransferState::Imported);
    let manifest = world.manifest(full);
    assert_eq!((manifest.files[1].table().unwrap().rows, manifest.files[1].base), (2, None));
    assert_eq!(manifest.files[0].table().unwrap().rows, 1);
    assert_eq!(world.far.imports(), [id, second.key.id, full]);
}

#[tokio::test]
async fn files_of_a_rejected_transfer_go_with_the_next() {
    let world = world();
    put_both(&world, 1);
    world.far.reject(Some(Rejection { code: Code::ContentInvalid, detail: "two rows have one key".into() }));
    assert_eq!(world.send().await.state.word(), "rejected");
    assert_eq!(names(&world, "/erp"), ["archive", "items.csv", "moves.csv"]);
    world.far.reject(None);
    put(&world, "items-2.csv", "no,name\n2,y\n");
    let next = world.send().await;
    assert_eq!(next.state, TransferState::Imported);
    assert_eq!(world.manifest(next.key.id).files[0].table().unwrap().rows, 2);
    assert_eq!(archived(&world), ["items-2.csv", "items.csv", "moves.csv"]);
}

#[tokio::test]
async fn nothing_is_lost_and_nothing_goes_twice_wherever_it_stops() {
    for stage in [Stage::Extract, Stage::Push, Stage::Receipt] {
        for point in Point::ALL {
            let mut world = world();
            put_both(&world, 1);
            let id = world.plan(false).await;
            world.crash_at(id, stage, *point).await;
            assert_eq!(world.finish(id).await.state, TransferState::Imported, "{stage} {point}");
            assert_eq!(names(&world, "/erp"), ["archive"], "{stage} {point}");
            assert_eq!(archived(&world), ["items.csv", "moves.csv"], "{stage} {point}");
            put_both(&world, 2);
            let next = world.send().await;
            assert_eq!(world.far.imports(), [id, next.key.id], "{stage} {point}");
            assert_eq!(world.manifest(next.key.id).files[1].table().unwrap().rows, 1, "{stage} {point}");
            assert_eq!(archived(&world).len(), 4, "{stage} {point}");
        }
    }
}

#[tokio::test]
async fn a_transfer_is_open_until_its_files_are_in_the_archive() {
    let mut world = world();
    put_both(&world, 1);
    let mut refusals = 3;
    let plan = move |op: FileOp, path: &Path| {
        let is_move = op == FileOp::Rename && path.starts_with("/erp/archive");
        refusals -= i32::from(is_move && refusals > 0);
        (is_move && refusals > 0).then_some(FileFault::Before(ErrorKind::PermissionDenied))
    };
    world.parts.files = Arc::new(FaultFiles::new(world.files.clone(), Box::new(plan)));
    let id = world.plan(false).await;
    let waiting = world.drive(id, |record| record.last_failure.is_some()).await;
    assert_eq!((waiting.state.word(), waiting.parked), ("accepted", false));
    assert_eq!(waiting.last_failure.unwrap().code, Code::FileFailed);
    // No other transfer takes the files meanwhile.
    assert_eq!(world.plan(false).await, id);
    assert_eq!(world.finish(id).await.state, TransferState::Imported);
    assert_eq!(archived(&world), ["items.csv", "moves.csv"]);
}

#[tokio::test]
async fn a_note_that_is_damaged_leaves_the_files() {
    let mut world = world();
    put_both(&world, 1);
    let id = world.plan(false).await;
    world.crash_at(id, Stage::Push, Point::BeforeEffect).await;
    write_whole(&*world.files, &world.parts.layout.taken(id), b"{").unwrap();
    assert_eq!(world.finish(id).await.state, TransferState::Imported);
    assert_eq!(names(&world, "/erp"), ["archive", "items.csv", "moves.csv"]);
}
