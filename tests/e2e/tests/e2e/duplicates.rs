//! Everything that is said or laid down once is said and laid down again, between the real programs: calls of the web service with
//! their recorded bodies and fresh tokens, and the files of a transfer on the landing. One import, one delivery.

use std::{fs, path::Path, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::runtime::Runtime;
use towpath_journal::system::{SystemClock, SystemEntropy};
use towpath_keys::{Identity, TokenClaims};
use towpath_testkit::{AGENT, Program, TENANT, World, assert_same_tables, eventually, query_text, query_texts};
use towpath_transfer::{
    Sequence, TransferId,
    api::{Acknowledgement, AppReceipt, Complete, DownlinkState, Export, UplinkState},
    digest::Sha256Digest,
    failure::Result,
    receipt::SignedReceipt,
    state::Announced,
};
use towpath_transport::{
    dial::Trust,
    relay_api::{HttpRelayApi, RelayApi as _, TokenSource},
};

use crate::{
    downlink::{Erp, Taken},
    executable, tables,
};

const KIND: &str = "recommended-orders";
const CONTENT: &str = "item_no,quantity\r\nA-1,1\r\n";
/// How often a call is made again.
const CALLS: usize = 10;
/// How often a notification is.
const NOTIFICATIONS: usize = 100;

/// Fresh tokens by a program's own key.
#[derive(Debug)]
struct Tokens {
    identity: Identity,
    issuer: String,
}

impl TokenSource for Tokens {
    fn token(&self, audience: &str, now: jiff::Timestamp) -> Result<String> {
        self.identity.token(&TokenClaims::new(self.issuer.as_str(), audience, now, &SystemEntropy::new()))
    }
}

/// The relay's web service, as this program calls it.
fn api(program: &Program) -> HttpRelayApi {
    let enrolment: serde_json::Value = serde_json::from_slice(&fs::read(program.state.join("enrolment.json")).unwrap()).unwrap();
    let text = |field: &str| enrolment[field].as_str().unwrap().to_owned();
    let identity = Identity::load(&program.state.join("key")).unwrap();
    let pin = serde_json::from_value::<Sha256Digest>(enrolment["spki_pin"].clone()).unwrap();
    let tokens = Arc::new(Tokens { identity, issuer: text("sftp_user") });
    HttpRelayApi::new(&text("relay_url"), &Trust::Pinned(vec![pin]), Some(tokens), Arc::new(SystemClock::new())).unwrap()
}

/// A signed receipt that a program has kept in a folder.
pub(crate) fn receipt(folder: &Path, stage: &str) -> SignedReceipt {
    let read = |name: String| fs::read_to_string(folder.join(name)).unwrap();
    SignedReceipt { receipt: read(format!("{stage}.json")), signature: read(format!("{stage}.json.sig")) }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Makes a call so often, ten at a time.
fn again<T>(runtime: &Runtime, times: usize, call: impl AsyncFn() -> T) -> Vec<T> {
    let mut answers = Vec::new();
    for _ in 0..times / CALLS {
        answers.extend(runtime.block_on(join_all((0..CALLS).map(|_| call()))));
    }
    answers
}

#[test]
fn everything_of_the_way_up_again_is_one_import() {
    let (world, end, _, _relay, receiver) = World::running(executable(), 200);
    receiver.kill();
    // What lies on the landing again without the relay's telling is found by looking there.
    let config = fs::read_to_string(&end.receiver.config).unwrap();
    end.receiver.configure(&config.replace("[landing]\n", "[landing]\nscan = \"200ms\"\n"));
    let _receiver = end.receiver.serve(&["serve"]);
    end.send().succeeded();
    let (name, _) = end.newest();
    let id: TransferId = name.parse().unwrap();
    let ledger = || query_texts(&end.app(), "SELECT transfer FROM towpath_imports");
    let imported = ledger();
    assert_eq!(imported, [name.as_str()]);

    let spool = world.spool(TENANT, &name);
    let digest = |file: &str| Sha256Digest::of(&fs::read(spool.join(file)).unwrap());
    let complete = Complete { manifest: digest("manifest.json"), packed: digest("packed.json") };
    let runtime = runtime();
    let (agent, receiver) = (api(&end.agent), api(&end.receiver));
    for answer in again(&runtime, NOTIFICATIONS, async || agent.complete(id, &complete).await.unwrap()) {
        assert_eq!((answer.state, answer.receipts.len()), (UplinkState::Imported, 2));
    }
    let receipts = world.relay.state.join("receipts").join(TENANT).join(AGENT).join(&name);
    let posted = AppReceipt { agent: AGENT.parse().unwrap(), transfer: id, signed: receipt(&receipts, "imported") };
    again(&runtime, NOTIFICATIONS, async || receiver.post_receipt(&posted).await.unwrap());

    // The receiver removes what has landed once it has answered for it.
    let landed = end.receiver.state.join("landing").join("uplink").join(AGENT).join(&name);
    for _ in 0..CALLS {
        lay(&spool, &landed);
        eventually("what has landed again is gone", || (!landed.exists()).then_some(()));
    }
    assert_eq!(ledger(), imported);
    assert_same_tables(&end.erp, &end.app(), &tables());
    let state = end.agent.run(&["show", &name, "--json"]).succeeded().json();
    assert_eq!(state["state"], "imported");
    let _ = end.agent.run(&["receipts", "verify"]).succeeded();
    end.send().succeeded();
    assert_eq!(query_text(&end.app(), "SELECT count(*) FROM towpath_imports"), "2");
}

/// Lays a transfer's files on the landing as the relay does, the manifest last and whole: nothing is looked at before it is there.
fn lay(spool: &Path, landed: &Path) {
    const LAST: &str = "manifest.json";
    fs::create_dir_all(landed).unwrap();
    for entry in fs::read_dir(spool).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.file_name() != LAST) {
        fs::copy(entry.path(), landed.join(entry.file_name())).unwrap();
    }
    let part = landed.join("manifest.json.part");
    fs::copy(spool.join(LAST), &part).unwrap();
    fs::rename(part, landed.join(LAST)).unwrap();
}

#[test]
fn everything_of_the_way_back_again_is_one_delivery() {
    let (world, end, _, _relay, _receiver) = World::running(executable(), 50);
    let erp = Erp::new(world.dir.path());
    let config = fs::read_to_string(&end.agent.config).unwrap();
    end.agent.configure(&format!("{config}\n[[delivery]]\nkind = \"{KIND}\"\nfolder = '{}'\n", erp.folder.display()));
    let file = world.dir.path().join("orders.csv");
    fs::write(&file, CONTENT).unwrap();
    let send = ["send", file.to_str().unwrap(), "--kind", KIND, "--to", AGENT, "--json"];
    let sent = end.receiver.run(&send).succeeded().json();
    let name = sent["transfer"].as_str().unwrap().to_owned();
    let id: TransferId = name.parse().unwrap();

    // The agent does not run yet: the files are queued.
    let queued = world.relay.state.join("spool").join(TENANT).join(AGENT).join("downlink").join(&name);
    let receiver = api(&end.receiver);
    let agent = AGENT.parse().unwrap();
    let runtime = runtime();
    eventually("it is queued", || {
        let status = runtime.block_on(receiver.export_status(&agent, id)).ok()?;
        (status.state == DownlinkState::Queued).then_some(())
    });
    let manifest = fs::read(queued.join("manifest.json")).unwrap();
    let announced = Announced {
        path: format!("/downlink/{AGENT}/{name}/manifest.json").parse().unwrap(),
        size: manifest.len() as u64,
        manifest: Sha256Digest::of(&manifest),
    };
    let export = Export { transfer: id, agent, sequence: Sequence(1), announced };
    for status in again(&runtime, NOTIFICATIONS, async || receiver.export(&export).await.unwrap()) {
        assert_eq!(status.state, DownlinkState::Queued);
    }

    let running = end.agent.start(&["run"]);
    let delivered = || {
        let state = |program: &Program| program.run(&["show", &name, "--json"]).succeeded().json()["state"].clone();
        (state(&end.receiver) == "delivered" && state(&end.agent) == "delivered").then_some(())
    };
    eventually("it is delivered", delivered);
    let receipts = world.relay.state.join("receipts").join(TENANT).join(AGENT).join(&name);
    let acknowledgement = Acknowledgement { signed: receipt(&receipts, "delivered") };
    let told = api(&end.agent);
    again(&runtime, NOTIFICATIONS, async || told.acknowledge(id, &acknowledgement).await.unwrap());
    for status in again(&runtime, NOTIFICATIONS, async || receiver.export(&export).await.unwrap()) {
        assert_eq!(status.state, DownlinkState::Delivered);
    }
    assert!(runtime.block_on(told.downlinks(Duration::ZERO, None)).unwrap().downlinks.is_empty());

    // A further file is delivered after all of that, and nothing else is.
    let further = "item_no,quantity\r\nA-2,2\r\n";
    fs::write(&file, further).unwrap();
    let _ = end.receiver.run(&send).succeeded();
    assert_eq!(erp.taken_all(2), Taken::from([(CONTENT.to_owned(), 1), (further.to_owned(), 1)]));
    running.kill();
}
