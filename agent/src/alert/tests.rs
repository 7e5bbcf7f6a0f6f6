//! What is wrong, by a journal in memory and a clock that stands still.

use towpath_alert::{Finding, OpenAlert};
use towpath_journal::TransferRecord;
use towpath_transfer::state::Rejection;
use towpath_transport::files::FileStore as _;

use super::*;
use crate::{downlink::tests::world::Returns, uplink::tests::world::World};

async fn found(world: &World, open: &[OpenAlert]) -> Finding {
    findings(&world.parts, open).await.unwrap().remove("job:main").unwrap()
}

fn code(finding: &Finding) -> Option<Code> {
    match finding {
        Finding::Wrong(trouble) => Some(trouble.code),
        Finding::Well | Finding::Unknown => None,
    }
}

fn open(code: Code, world: &World) -> OpenAlert {
    let (job, summary, since) = (Some("main".parse().unwrap()), String::new(), world.clock.now());
    OpenAlert { job, code, summary, since, transfer: None, told: true }
}

#[tokio::test]
async fn a_job_is_well_until_a_run_is_rejected_and_again_when_one_is_imported() {
    let world = World::new();
    assert_eq!(found(&world, &[]).await, Finding::Well);
    let id = world.plan(false).await;
    assert_eq!(found(&world, &[]).await, Finding::Unknown);
    world.finish(id).await;
    assert_eq!(found(&world, &[]).await, Finding::Well);
    world.far.reject(Some(Rejection { code: Code::ManifestInvalid, detail: "no".into() }));
    let id = world.plan(false).await;
    world.finish(id).await;
    assert_eq!(code(&found(&world, &[]).await), Some(Code::ManifestInvalid));
    world.far.reject(None);
    let id = world.plan(false).await;
    // The next run has begun; whether it ends well is not known yet.
    assert_eq!(found(&world, &[open(Code::ManifestInvalid, &world)]).await, Finding::Unknown);
    world.finish(id).await;
    assert_eq!(found(&world, &[open(Code::ManifestInvalid, &world)]).await, Finding::Well);
}

#[tokio::test]
async fn a_run_that_is_not_at_the_relay_in_time_is_missing() {
    let world = World::new();
    let id = world.plan(false).await;
    world.finish(id).await;
    let by = expectations(&world.parts).await.unwrap().jobs.remove(0).expected_by.unwrap();
    world.clock.set_wall(by);
    assert_eq!(found(&world, &[]).await, Finding::Well);
    world.clock.set_wall(by.checked_add(Duration::from_secs(1)).unwrap());
    assert_eq!(code(&found(&world, &[]).await), Some(Code::RunLate));
}

#[tokio::test]
async fn a_pause_lets_everything_stand() {
    let world = World::new();
    let id = world.plan(false).await;
    world.finish(id).await;
    let pause = crate::pause::Pause::new(world.clock.now(), None, "ann", None);
    pause.begin(&*world.parts.files, &world.parts.layout).unwrap();
    assert_eq!(found(&world, &[]).await, Finding::Unknown);
    assert_eq!(expectations(&world.parts).await.unwrap().jobs[0].expected_by, None);
}

#[tokio::test]
async fn return_files_that_do_not_get_further_are_told() {
    let returns = Returns::new();
    let id = returns.offer(&returns.sent(1, &[("orders.csv", b"x")]));
    returns.put(id, "manifest.json.sig", b"not a signature");
    returns.take().await;
    assert_eq!(returns.failed(id).await, (Code::SignatureInvalid, false));
    let found = async |name| findings(&returns.world.parts, &[]).await.unwrap().remove(name).unwrap();
    assert_eq!(found("return-files-late").await, Finding::Well);
    returns.world.clock.advance(returns.world.parts.config.now().alert.late_after);
    let Finding::Wrong(trouble) = found("return-files-late").await else { panic!("it is well") };
    assert_eq!((trouble.code, trouble.transfer), (Code::SignatureInvalid, Some(id)));
    assert!(trouble.summary.starts_with("return files have not got further (1 transfers)"), "{}", trouble.summary);
    assert_eq!(found("return-files").await, Finding::Well, "nothing waits for a person");
    // The relay does not have it any more.
    returns.world.far.files.remove(&returns.far_file(id, "manifest.json.sig")).unwrap();
    returns.world.parts.journal.unpark(&returns.world.parts.key(id)).await.unwrap();
    let missing = |record: &TransferRecord| record.last_failure.as_ref().is_some_and(|failure| failure.code == Code::NotFound);
    returns.world.drive(id, missing).await;
    assert_eq!(found("return-files-late").await, Finding::Well);
}
