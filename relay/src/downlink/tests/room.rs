//! Room on the disk, and who waits for a fetch that takes long.

use super::*;

#[tokio::test]
async fn what_the_disk_cannot_hold_beside_its_reserve_is_not_begun() {
    let total: u64 = plain().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let reserve_bytes = 1 << 20;
    let way = Way::with(SpoolLimits { reserve_bytes, ..small_limits() }).await;
    way.announce().await;
    let (files, id, scope) = (&way.world.files, way.laid.id, way.agent.caller.as_agent().unwrap());
    let leave = |free: u64| files.set_space(Some(files.used() + reserve_bytes + free));
    leave(total - 1);
    let failure = way.world.work(Stage::Fetch).await.remove(0).unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::SpoolFull, Disposition::Retry));
    assert_eq!(way.state().await, (DownlinkState::Announced, Some((Code::SpoolFull, false))));
    assert_eq!(way.used(), 0, "the disk has more than its reserve, and not enough for all that is announced");
    assert!(way.world.relay.spool().list(Room::Fetched, &scope, id, 10).unwrap().is_empty());
    files.set_space(None);
    way.world.work(Stage::Fetch).await;
    let fetched = way.used();
    leave(total / 2);
    assert_eq!(way.world.work(Stage::Pack).await.remove(0).unwrap_err().code(), Code::SpoolFull);
    assert_eq!(way.used(), fetched, "what could not all be packed goes");
    way.assert_counted();
    files.set_space(None);
    for stage in [Stage::Pack, Stage::Queue] {
        way.world.work(stage).await;
    }
    way.assert_taken().await;
}

#[tokio::test]
async fn a_disk_that_fills_up_during_a_fetch_ends_it_before_its_reserve_is_used() {
    const MIB: usize = 1 << 20;
    let reserve_bytes = 64 * MIB as u64;
    let most = 64 * MIB as u64;
    let mut way = Way::with(SpoolLimits { total_bytes: most, tenant_bytes: most, reserve_bytes, ..small_limits() }).await;
    let large = vec![("large.bin", vec![7; 12 * MIB])];
    way.laid = Laid::with(&way.world, &way.receiver, &way.agent, 1, large, |_| {});
    way.announce().await;
    let (world, files, scope) = (&way.world, &way.world.files, way.agent.caller.as_agent().unwrap());
    let folder = world.relay.spool().folder(Room::Fetched, &scope, way.laid.id);
    let written = || files.list(&folder, None, 10).unwrap_or_default().iter().map(|entry| entry.stat.len).sum::<u64>();
    let (step, _) = world.relay.steps().into_iter().find(|(step, _)| step.stage() == Stage::Fetch).unwrap();
    let lease = world.journal.acquire(Stage::Fetch, 1, Duration::from_secs(60)).await.unwrap().remove(0);
    let mut fetching = Box::pin(step.step(&lease));
    let mut begun = false;
    let outcome = loop {
        if let std::task::Poll::Ready(outcome) = futures::poll!(&mut fetching) {
            break outcome;
        }
        if !begun && written() > 0 {
            begun = true;
            // Somebody else has filled the disk: there is room for the rest, and no more beside the reserve.
            files.set_space(Some(files.used() + reserve_bytes / 2));
        }
        tokio::task::yield_now().await;
    };
    drop(fetching);
    assert!(begun, "there was a middle");
    let failure = outcome.as_ref().unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::SpoolFull, Disposition::Retry), "{failure}");
    assert_eq!((written(), way.used()), (0, 0), "what was written goes, so that others can work");
    way.assert_counted();
    world.record(&lease, &outcome).await;
    files.set_space(None);
    way.world.work(Stage::Fetch).await;
    assert_eq!(way.state().await, (DownlinkState::Fetched, None));
    way.assert_counted();
}

/// An agent has made an uplink's folder of the name that a downlink has, whose app server is so slow that the fetch has the folder for ever.
#[tokio::test]
async fn a_fetch_that_does_not_end_holds_up_nobody_else() {
    let way = Way::new().await;
    let (world, id, scope) = (&way.world, way.laid.id, way.agent.caller.as_agent().unwrap());
    let (view, none) = (world.view(&way.agent), SetAttributes::default());
    let up = RemotePath::parse(format!("/uplink/{id}").as_bytes()).unwrap();
    view.make_dir(&up, &none).await.unwrap();
    let busy = world.id();
    let other = RemotePath::parse(format!("/uplink/{busy}").as_bytes()).unwrap();
    view.make_dir(&other, &none).await.unwrap();
    way.announce().await;
    world.clock.advance(DAY * 15);
    let (fetching, uploading) = (world.relay.spool().freeze(&scope, id).await, world.relay.spool().freeze(&scope, busy).await);
    world.relay.tidy().await.unwrap();
    let there = async |path: &RemotePath| world.view(&way.agent).stat(path).await.is_ok();
    assert_eq!((there(&up).await, there(&other).await), (true, true), "what somebody has is left");
    let complete = Complete { manifest: Sha256Digest::of(b"a"), packed: Sha256Digest::of(b"b") };
    let claimed = world.service().complete(&way.agent.caller, id, &complete).await.unwrap_err();
    assert_eq!(claimed.code(), Code::TransferFrozen);
    assert_eq!(view.open(&down(id, "manifest.json"), READ, &none).await.err(), Some(FsError::NotFound));
    drop((fetching, uploading));
    world.relay.tidy().await.unwrap();
    assert_eq!((there(&up).await, there(&other).await), (true, false), "the one that is open and old goes now");
}
