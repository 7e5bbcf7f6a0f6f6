//! The stages stopped dead at every point, and gone on with by another process over the same state.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use towpath_journal::{Journal as _, NoFailPoints, Point, Step as _};
use towpath_transfer::{
    Code, Disposition, Failure, Stage, TransferEvent, TransferKey, TransferState,
    api::{Role, UplinkState},
    receipt::{ReceiptStage, SignedReceipt},
    state::Outcome,
};
use towpath_transport::{
    files::{FaultFiles, FileOp, FileStore as _, MemoryFiles},
    store::MemoryStore,
};

use super::forward::{AppServer, AppServers, Forward, RECEIPT_OVERDUE};
use crate::{
    scope::TenantScope,
    service::tests::{DAY, Enrolled, Sent, World, receipt_of},
};

struct Story {
    world: World,
    agent: Enrolled,
    receiver: Enrolled,
    sent: Sent,
    key: TransferKey,
}

impl Story {
    /// An agent has sent everything and said so.
    async fn claimed() -> Self {
        let world = World::new().await;
        let (agent, receiver) = (world.enrol("acme", Role::Agent).await, world.enrol("acme", Role::Receiver).await);
        let sent = Sent::new(&world, &agent, 1);
        sent.push(&world, &agent).await;
        world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
        let key = agent.caller.as_agent().unwrap().key(sent.id);
        Self { world, agent, receiver, sent, key }
    }

    async fn stop_at(&mut self, stage: Stage, point: Point) {
        self.world.stop_at(stage, point).await;
    }

    async fn go_on(&mut self, until: impl Fn(&TransferState) -> bool) {
        self.world.go_on(&self.key, until).await;
    }

    fn receipt(&self, stage: ReceiptStage) -> Option<SignedReceipt> {
        self.world.relay.spool().receipt(&self.agent.caller.as_agent().unwrap(), self.sent.id, stage).unwrap()
    }

    async fn events(&self) -> Vec<TransferEvent> {
        self.world.journal.history(&self.key).await.unwrap().entries.into_iter().map(|entry| entry.event).collect()
    }

    async fn state(&self) -> UplinkState {
        self.world.service().uplink(&self.agent.caller, self.sent.id).await.unwrap().state
    }
}

#[tokio::test]
async fn stopped_anywhere_it_accepts_once_and_forwards_once() {
    for stage in [Stage::Accept, Stage::Forward] {
        for point in Point::ALL {
            let mut story = Story::claimed().await;
            story.stop_at(stage, *point).await;
            let signed = story.receipt(ReceiptStage::Accepted);
            assert_eq!(signed.is_some(), (stage, *point) != (Stage::Accept, Point::BeforeEffect), "{stage} {point}");

            story.go_on(|state| matches!(state, TransferState::Forwarded { .. })).await;
            let after = story.receipt(ReceiptStage::Accepted).unwrap();
            assert_eq!(signed.unwrap_or_else(|| after.clone()), after, "{stage} {point}: signed once");
            let events = story.events().await;
            assert_eq!(events, [TransferEvent::Accepted, TransferEvent::Forwarded], "{stage} {point}");
            let mut sent: Vec<_> = story.sent.files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
            sent.sort();
            let landed = story.world.landed("acme", story.agent.caller.name().as_str(), story.sent.id);
            assert_eq!(landed, sent, "{stage} {point}");
        }
    }
}

/// A spool whose disk failed after the rename has the name all the same, and the agent and the relay find it.
#[tokio::test]
async fn what_the_relay_signs_that_it_holds_is_durable() {
    for name in ["manifest.json", "items.csv.bz2"] {
        let mut story = Story::claimed().await;
        let (files, spool) = (story.world.files.clone(), story.world.relay.spool());
        let folder = spool.folder(crate::spool::Room::Uplink, &story.agent.caller.as_agent().unwrap(), story.sent.id);
        let (whole, part) = (folder.join(name), folder.join(format!("{name}.part")));
        files.rename(&whole, &part).unwrap();
        files.sync_dir(&folder).unwrap();
        files.rename(&part, &whole).unwrap();
        story.stop_at(Stage::Accept, Point::AfterEffect).await;
        assert!(story.receipt(ReceiptStage::Accepted).is_some());
        assert!(files.stat(&whole).is_ok(), "{name}");
    }
}

#[tokio::test]
async fn stopped_anywhere_it_removes_the_files_and_keeps_the_receipts() {
    for point in Point::ALL {
        let mut story = Story::claimed().await;
        story.go_on(|state| matches!(state, TransferState::Forwarded { .. })).await;
        let imported = receipt_of(&story.world, &story.receiver, &story.agent, &story.sent, &Outcome::Imported);
        story.world.service().app_receipt(&story.receiver.caller, &imported).await.unwrap();
        story.world.clock.advance(DAY * 7);
        story.stop_at(Stage::Remove, *point).await;
        story.go_on(|state| matches!(state, TransferState::Removed { .. })).await;
        let folder =
            story.world.relay.spool().folder(crate::spool::Room::Uplink, &story.agent.caller.as_agent().unwrap(), story.sent.id);
        let gone = story.world.files.stat(&folder).unwrap_err();
        assert_eq!(gone.kind(), std::io::ErrorKind::NotFound, "{point}");
        assert_eq!(story.world.relay.spool().quota().used(), 0, "{point}");
        assert_eq!(story.receipt(ReceiptStage::Imported), Some(imported.signed), "{point}");
        assert_eq!(story.state().await, UplinkState::Imported);
    }
}

#[tokio::test]
async fn a_receipt_that_was_kept_and_not_journalled_counts_when_it_comes_again() {
    let mut story = Story::claimed().await;
    story.go_on(|state| matches!(state, TransferState::Forwarded { .. })).await;
    let imported = receipt_of(&story.world, &story.receiver, &story.agent, &story.sent, &Outcome::Imported);
    let scope = story.agent.caller.as_agent().unwrap();
    story.world.relay.spool().keep_receipt(&scope, story.sent.id, ReceiptStage::Imported, &imported.signed).unwrap();
    story.world.files.power_loss();
    story.world.restart(Arc::new(NoFailPoints));
    assert_eq!(story.state().await, UplinkState::Forwarded);

    // The receiver has heard no answer, and posts what it has written once.
    for _ in 0..2 {
        story.world.service().app_receipt(&story.receiver.caller, &imported).await.unwrap();
        assert_eq!(story.state().await, UplinkState::Imported);
    }
    assert_eq!(story.receipt(ReceiptStage::Imported), Some(imported.signed));
    let settled = |event: &&TransferEvent| matches!(event, TransferEvent::Settled { .. });
    assert_eq!(story.events().await.iter().filter(settled).count(), 1);
}

#[tokio::test]
async fn what_the_app_server_has_lost_is_forwarded_again_after_a_while() {
    let mut story = Story::claimed().await;
    story.go_on(|state| matches!(state, TransferState::Forwarded { .. })).await;
    let landed = |story: &Story| story.world.landed("acme", story.agent.caller.name().as_str(), story.sent.id);
    let before = landed(&story);
    story.world.lose_landings();
    story.world.clock.advance(RECEIPT_OVERDUE - Duration::from_secs(1));
    story.world.relay.tidy().await.unwrap();
    assert_eq!(story.state().await, UplinkState::Forwarded, "its receipt may still come");
    story.world.clock.advance(Duration::from_secs(1));
    story.world.relay.tidy().await.unwrap();
    assert_eq!(story.state().await, UplinkState::Accepted);
    story.go_on(|state| matches!(state, TransferState::Forwarded { .. })).await;
    assert_eq!(landed(&story), before);
    story.world.relay.tidy().await.unwrap();
    assert_eq!(story.state().await, UplinkState::Forwarded, "it is given the same time again");
}

#[tokio::test]
async fn a_relay_that_begins_forwards_again_what_has_no_receipt_and_asks_for_what_it_has_lost() {
    let mut story = Story::claimed().await;
    story.go_on(|state| matches!(state, TransferState::Forwarded { .. })).await;
    story.world.clock.advance(Duration::from_secs(1));
    story.world.relay.tidy().await.unwrap();
    assert_eq!(story.state().await, UplinkState::Forwarded, "it has not begun since");

    // Its state is put back: nobody knows what became of the receipt. What lies at the app server is not sent again.
    story.world.restart(Arc::new(NoFailPoints));
    story.world.relay.tidy().await.unwrap();
    assert_eq!(story.state().await, UplinkState::Accepted);
    story.go_on(|state| matches!(state, TransferState::Forwarded { .. })).await;
    story.world.relay.tidy().await.unwrap();
    assert_eq!(story.state().await, UplinkState::Forwarded, "once is enough");

    // The same without the spool's files: nothing at all must not pass for a transfer that was forwarded.
    let scope = story.agent.caller.as_agent().unwrap();
    story.world.relay.spool().remove(crate::spool::Room::Uplink, &scope, story.sent.id).unwrap();
    story.world.lose_landings();
    story.world.clock.advance(Duration::from_secs(1));
    story.world.restart(Arc::new(NoFailPoints));
    story.world.relay.tidy().await.unwrap();
    story.go_on(|state| matches!(state, TransferState::Incomplete { .. })).await;
    let status = story.world.service().uplink(&story.agent.caller, story.sent.id).await.unwrap();
    let missing: Vec<&str> = status.missing.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(
        (status.state, missing),
        (UplinkState::Incomplete, vec!["manifest.json", "packed.json", "manifest.json.sig", "MD5SUMS"])
    );
    let signed = story.receipt(ReceiptStage::Accepted);
    story.sent.push(&story.world, &story.agent).await;
    story.world.service().complete(&story.agent.caller, story.sent.id, &story.sent.complete).await.unwrap();
    story.go_on(|state| matches!(state, TransferState::Forwarded { .. })).await;
    assert_eq!(story.receipt(ReceiptStage::Accepted), signed, "signed once");
    assert_eq!(story.world.landed("acme", story.agent.caller.name().as_str(), story.sent.id).len(), story.sent.files.len());
}

#[tokio::test]
async fn one_lost_file_is_named_and_alone_asked_for() {
    let mut story = Story::claimed().await;
    story.stop_at(Stage::Forward, Point::BeforeEffect).await;
    let scope = story.agent.caller.as_agent().unwrap();
    let lost = story.world.relay.spool().path(crate::spool::Room::Uplink, &scope, story.sent.id, "items.csv.bz2");
    story.world.files.remove(&lost).unwrap();
    story.go_on(|state| matches!(state, TransferState::Incomplete { .. })).await;
    let status = story.world.service().uplink(&story.agent.caller, story.sent.id).await.unwrap();
    let missing: Vec<&str> = status.missing.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(missing, ["items.csv.bz2"]);
}

/// An app server that is the tenant's until the first file has its name there.
#[derive(Debug)]
struct Moving {
    files: MemoryFiles,
    moved: Arc<AtomicBool>,
}

#[async_trait]
impl AppServers for Moving {
    async fn connect(&self, _: &TenantScope) -> towpath_transfer::failure::Result<AppServer> {
        let moved = Arc::clone(&self.moved);
        let plan = Box::new(move |op, path: &Path| {
            moved.fetch_or(op == FileOp::Rename && path.starts_with("/app"), Ordering::SeqCst);
            None
        });
        let files = FaultFiles::new(Arc::new(self.files.clone()), plan);
        let store = Arc::new(MemoryStore::over(Arc::new(files), "/app"));
        Ok(AppServer { store, folder: "/landing".parse().unwrap(), landing: None })
    }

    async fn check(&self, _: &TenantScope, _: &AppServer) -> towpath_transfer::failure::Result<()> {
        match self.moved.load(Ordering::SeqCst) {
            true => Err(Failure::retry(Code::AppServerMissing, "it is another one")),
            false => Ok(()),
        }
    }
}

#[tokio::test]
async fn once_the_app_server_is_another_one_nothing_more_goes_to_the_one_before() {
    let mut story = Story::claimed().await;
    story.go_on(|state| matches!(state, TransferState::Accepted { .. })).await;
    let moving = Arc::new(Moving { files: MemoryFiles::new(), moved: Arc::default() });
    moving.files.create_dir_all("/app".as_ref()).unwrap();
    let forward = Forward::new(Arc::clone(story.world.relay.spool()), moving.clone());
    let lease = story.world.journal.acquire(Stage::Forward, 1, Duration::from_secs(60)).await.unwrap().remove(0);
    let failure = forward.step(&lease).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::AppServerMissing, Disposition::Retry));
    let scope = story.agent.caller.as_agent().unwrap();
    let folder = format!("/app/landing/uplink/{}/{}", scope.agent(), story.sent.id);
    assert_eq!(moving.files.list(folder.as_ref(), None, 10).unwrap().len(), 1);
}
