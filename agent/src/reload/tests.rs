use std::{path::Path, sync::Arc};

use tokio_util::sync::CancellationToken;
use towpath_journal::Filter;
use towpath_keys::{Identity, KeyKind};
use towpath_transfer::{Code, TransferId, state::TransferState};
use towpath_transport::files::Disk;

use super::*;
use crate::{
    control::{Answer, Answers as _, Request, Running},
    layout::Layout,
    rotation::KeyRotator,
    schedule,
    service::heart::Heart,
    uplink::tests::world::World,
};

/// A running agent whose configuration lies in a file.
struct Bench {
    world: World,
    reloader: Reloader,
    folder: tempfile::TempDir,
    wake: WakeUp,
}

const JOB: &str = "[[job]]\nname = \"main\"\nschedule = \"02:00\"\ntime_zone = \"UTC\"\n[job.source]\nkind = \"sqlite\"\npath = \"erp.sqlite\"\n\
                   [[job.table]]\nname = \"items\"\n";

impl Bench {
    fn new(text: &str) -> Self {
        let (world, folder, wake) = (World::new(), tempfile::tempdir().unwrap(), WakeUp::new());
        let file = folder.path().join("agent.toml");
        world.parts.config.replace(Config::parse(text, &file).unwrap());
        let reloader = Reloader::new(file, world.parts.config.clone(), wake.clone());
        Self { world, reloader, folder, wake }
    }

    fn running(&self) -> Running {
        let (parts, relay) = (&self.world.parts, Arc::clone(&self.world.far));
        let key = Identity::create_file(&Layout::new(self.folder.path()).key(), KeyKind::Ed25519, &*parts.entropy).unwrap();
        parts.identity.replace(key).unwrap();
        let rotator = KeyRotator {
            keys: Arc::new(Layout::new(self.folder.path())),
            layout: Layout::new(self.folder.path()),
            files: Arc::new(Disk),
            own: parts.identity.clone(),
            trust: Arc::clone(&parts.trust),
            agent: parts.agent.clone(),
            relay_url: "https://relay.example".into(),
            user: "acme.erp".into(),
            relay: Arc::new(move |_| Ok(relay.clone())),
            now: Arc::new(|| "2026-03-01T12:00:00Z".parse().unwrap()),
            clock: Arc::clone(&parts.clock),
            entropy: Arc::clone(&parts.entropy),
            one: Arc::default(),
        };
        Running {
            parts: Arc::new(parts.clone()),
            wake: self.wake.clone(),
            reloader: self.reloader.clone(),
            rotator,
            version: "0.1.0".into(),
        }
    }

    fn write(&self, text: &str) {
        std::fs::write(self.folder.path().join("agent.toml"), text).unwrap();
    }

    async fn reload(&self, text: &str) -> Result<Reloaded> {
        self.write(text);
        self.reloader.reload().await
    }

    async fn changed(&self, text: &str) -> Vec<String> {
        self.reload(text).await.unwrap().changed
    }
}

#[tokio::test]
async fn changes_are_in_force_and_named() {
    let bench = Bench::new(JOB);
    assert_eq!(bench.reload(JOB).await.unwrap(), Reloaded { file: bench.reloader.file.clone(), ..Reloaded::default() });
    let delivery = "[[delivery]]\nkind = \"orders\"\nfolder = \"in\"\n";
    let text = format!("trust = \"first-use\"\n[extract]\nworkers = 3\n[bandwidth]\nmax_bytes_per_second = 9\n{JOB}{delivery}");
    assert_eq!(bench.changed(&text).await, ["[bandwidth]", "[extract]", "`trust`", "delivery orders (new)"]);
    let now = bench.world.parts.config.now();
    assert_eq!((now.extract.workers, now.deliveries.len()), (3, 1));
    let other = JOB.replace("02:00", "03:00");
    assert_eq!(
        bench.changed(&format!("{other}{}", delivery.replace("\"in\"", "\"other\""))).await,
        ["[bandwidth]", "[extract]", "`trust`", "job main", "delivery orders"]
    );
    let renamed = JOB.replace("\"main\"", "\"second\"");
    assert_eq!(bench.changed(&renamed).await, ["job second (new)", "job main (removed)", "delivery orders (removed)"]);
    let source = renamed.replace("erp.sqlite", "other.sqlite");
    assert_eq!(bench.changed(&source).await, ["job second"]);
}

#[tokio::test]
async fn what_is_built_once_needs_a_restart_and_says_so_until_then() {
    let bench = Bench::new(JOB);
    let text = format!("[state]\nfolder = \"/elsewhere\"\n[network]\nproxy = \"http://p:1\"\n[extract]\nworkers = 5\n{JOB}");
    for changed in [&["[extract]"][..], &[]] {
        let reloaded = bench.reload(&text).await.unwrap();
        assert_eq!(reloaded.changed, changed);
        assert_eq!(reloaded.needs_restart, ["[state]", "[network]"]);
    }
    let now = bench.world.parts.config.now();
    assert_eq!((now.state.folder.as_deref(), now.network == Default::default()), (None, true), "in force is what is used");
    assert!(bench.reload(JOB).await.unwrap().needs_restart.is_empty());
}

#[tokio::test]
async fn a_password_that_is_not_shown_is_a_change_all_the_same() {
    let text = |password: &str| {
        format!(
            "[[job]]\nname = \"main\"\n[job.source]\nkind = \"odbc\"\nconnection = \"DSN=x\"\npassword = \"clear:{password}\"\n\
             [[job.table]]\nname = \"t\"\n"
        )
    };
    let bench = Bench::new(&text("hunter2"));
    let reloaded = bench.reload(&text("hunter3")).await.unwrap();
    assert_eq!(reloaded.changed, ["job main"]);
    assert!(!format!("{reloaded:?}").contains("hunter"));
}

#[tokio::test]
async fn a_log_file_that_is_named_is_written_from_then_on() {
    let bench = Bench::new(JOB);
    let log = towpath_host::logs::start("test", Some(towpath_host::logs::LogFormat::Text), true, None);
    assert_eq!(bench.changed(&format!("[log]\nfile = \"agent.log\"\n{JOB}")).await, ["[log]"]);
    let file = bench.folder.path().join("agent.log");
    // Its first line says so; each look waits for the thread that writes.
    while !std::fs::read_to_string(&file).unwrap_or_default().contains("the configuration was read again") {
        log.flush();
    }
}

#[tokio::test]
async fn a_mistake_leaves_the_old_one_in_force() {
    let bench = Bench::new(JOB);
    let before = bench.world.parts.config.now();
    let failure = bench.reload(&JOB.replace("schedule", "schedul")).await.unwrap_err();
    assert_eq!(failure.code(), Code::ConfigInvalid);
    assert!(failure.report().contains("agent.toml:3:1: unknown field `schedul`"), "{}", failure.report());
    std::fs::remove_file(&bench.reloader.file).unwrap();
    assert_eq!(bench.reloader.reload().await.unwrap_err().code(), Code::ConfigMissing);
    assert_eq!(bench.world.parts.config.now(), before);
}

#[tokio::test]
async fn a_command_gets_the_answer() {
    let bench = Bench::new(JOB);
    let running = bench.running();
    bench.write(&JOB.replace("02:00", "03:00"));
    let Answer::Reloaded(reloaded) = running.answer(Request::Reload).await.unwrap() else { panic!("another answer") };
    assert_eq!(reloaded.changed, ["job main"]);
    bench.write("nonsense");
    let failure = running.answer(Request::Reload).await.unwrap_err();
    assert!(failure.report().contains("agent.toml:1:"), "{}", failure.report());
}

#[tokio::test]
async fn a_schedule_that_is_changed_counts_at_once() {
    let bench = Bench::new(&JOB.replace("02:00", "23:00"));
    let (parts, stop) = (Arc::new(bench.world.parts.clone()), CancellationToken::new());
    // The loop sleeps by a clock that does not move: only a change wakes it.
    let heart = Heart::unwatched(&parts.clock);
    let loops = tokio::spawn(schedule::run(Arc::clone(&parts), bench.wake.clone(), heart, stop.clone()));
    let newest = async || parts.journal.list(&Filter::default(), 1, None).await.unwrap().first().map(|one| one.key.id);
    assert_eq!(newest().await, None);
    // The world's clock stands at noon.
    bench.changed(&JOB.replace("02:00", "12:00")).await;
    let planned: TransferId = loop {
        match newest().await {
            Some(id) => break id,
            None => tokio::task::yield_now().await,
        }
    };
    stop.cancel();
    loops.await.unwrap();
    assert_eq!(bench.world.finish(planned).await.state, TransferState::Imported);
}

#[tokio::test]
async fn a_transfer_of_a_job_that_is_removed_waits_for_a_person_and_goes_on_when_it_is_back() {
    let bench = Bench::new(JOB);
    let id = bench.world.plan(false).await;
    bench.reload("").await.unwrap();
    let record = bench.world.drive(id, |record| record.parked).await;
    assert_eq!(record.last_failure.unwrap().code, Code::ConfigInvalid);
    bench.reload(JOB).await.unwrap();
    bench.world.parts.journal.unpark(&bench.world.parts.key(id)).await.unwrap();
    assert_eq!(bench.world.finish(id).await.state, TransferState::Imported);
}

#[tokio::test]
async fn a_transfer_that_is_packed_goes_on_without_its_job() {
    let bench = Bench::new(JOB);
    let id = bench.world.plan(false).await;
    bench.world.drive(id, |record| !matches!(record.state, TransferState::Planned)).await;
    bench.reload("").await.unwrap();
    assert_eq!(bench.world.finish(id).await.state, TransferState::Imported);
}

#[test]
fn names_of_files_and_secrets_in_other_places_are_compared_as_well() {
    let read = |text: &str| Config::parse(text, Path::new("agent.toml")).unwrap();
    assert_eq!(changes(&read(JOB), &read(&JOB.replace("items", "goods"))).unwrap(), ["job main"]);
    assert!(changes(&read(JOB), &read(JOB)).unwrap().is_empty());
}

#[tokio::test]
async fn the_agent_that_runs_goes_on_with_the_key_that_a_command_asks_for() {
    let bench = Bench::new(JOB);
    let asked = Request::RotateKey { overlap: std::time::Duration::from_secs(3600), kind: KeyKind::Ed25519 };
    let running = bench.running();
    let before = bench.world.parts.identity.now().fingerprint();
    let Answer::Rotated(rotated) = running.answer(asked).await.unwrap() else { panic!("another answer") };
    assert_eq!(rotated.old, before);
    assert_eq!(bench.world.parts.identity.now().fingerprint(), rotated.new);
}
