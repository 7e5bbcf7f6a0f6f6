//! The program is stopped at every point of every stage and the power is cut; it starts again.

use towpath_journal::Point;
use towpath_transfer::{Stage, TransferState};
use towpath_transport::files::{FileStore as _, write_whole};

use super::world::World;
use crate::chain;

const STAGES: [Stage; 4] = [Stage::Extract, Stage::Pack, Stage::Push, Stage::Receipt];

#[tokio::test]
async fn one_import_wherever_it_stops() {
    for stage in STAGES {
        for point in Point::ALL {
            let mut world = World::new();
            let id = world.plan(false).await;
            world.crash_at(id, stage, *point).await;
            let record = world.finish(id).await;
            assert_eq!(record.state, TransferState::Imported, "{stage} {point}");
            assert_eq!(world.far.imports(), [id], "{stage} {point}");
            assert!(chain::verify(&world.parts, id).await.unwrap().ok, "{stage} {point}");
            towpath_journal::verify(&*world.parts.journal, &record.key).await.unwrap();
            // The next one builds on it, so nothing of it was lost.
            let next = world.send().await;
            assert!(world.manifest(next.key.id).files.iter().all(|file| file.base == Some(id)), "{stage} {point}");
        }
    }
}

#[tokio::test]
async fn a_change_in_the_erp_between_two_starts_of_an_extract_does_no_harm() {
    for point in Point::ALL {
        let mut world = World::new();
        let id = world.plan(false).await;
        world.crash_at(id, Stage::Extract, *point).await;
        // The same length as before, so that only digests can tell.
        world.erp.change("sales", "id\r\n9\r\n");
        let record = world.finish(id).await;
        assert_eq!(record.state, TransferState::Imported, "{point}");
        assert_eq!(world.far.imports(), [id]);
    }
}

#[tokio::test]
async fn a_transfer_in_full_stays_one_after_a_crash() {
    for point in [Point::BeforeEffect, Point::AfterEffect] {
        let mut world = World::new();
        world.send().await;
        let id = world.plan(true).await;
        world.crash_at(id, Stage::Extract, point).await;
        world.finish(id).await;
        assert!(world.manifest(id).files.iter().all(|file| !file.unchanged), "{point}");
    }
}

#[tokio::test]
async fn a_note_of_packed_files_that_is_lost_is_made_again() {
    let mut world = World::new();
    let id = world.plan(false).await;
    world.crash_at(id, Stage::Pack, Point::BeforeEffect).await;
    world.files.remove(&world.parts.layout.extracted(id)).unwrap();
    assert_eq!(world.finish(id).await.state, TransferState::Imported);
}

#[tokio::test]
async fn what_was_begun_of_a_small_file_goes_when_the_transfer_is_over() {
    let mut world = World::new();
    let id = world.plan(false).await;
    world.crash_at(id, Stage::Push, Point::BeforeEffect).await;
    let layout = world.parts.layout.clone();
    let begun = [layout.transfer(id).join(".packed.json.tmp"), layout.receipts(id).join(".rejected.json.sig.tmp")];
    world.files.create_dir_all(&layout.receipts(id)).unwrap();
    for path in &begun {
        write_whole(&*world.files, path, b"{").unwrap();
    }
    assert_eq!(world.finish(id).await.state, TransferState::Imported);
    world.files.power_loss();
    assert!(begun.iter().all(|path| world.files.stat(path).is_err()));
}
