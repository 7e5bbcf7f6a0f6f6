//! What schemathesis says of the web service, as an agent, as a receiver, and without a token. `judge.py` makes the tokens.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use towpath_journal::system::SystemEntropy;
use towpath_keys::{Identity, KeyKind, sign_enrolment};
use towpath_testkit::{AGENT, End, RECEIVER, TENANT, World, eventually};
use towpath_transfer::{
    Sequence,
    api::{Acknowledgement, AppReceipt, Complete, EnrolmentCode, EnrolmentRequest, Export, Role},
    digest::Sha256Digest,
    state::Announced,
};

use super::{python, returned};
use crate::{duplicates::receipt, executable};

/// Seconds that one run may take.
const SECONDS: &str = "240";
/// Random requests to each call, of each of the two kinds: such as the document describes, and such as break it.
const EXAMPLES: &str = "10";
/// The least answers of one run: less means that it was not what it should be.
const LEAST_ANSWERS: usize = 400;
/// What would come between the judge and the service, who says most things wrong: the limits of logins have tests of their own.
const LIMITS: &str = "[ssh]\nlogin_grace = \"10m\"\nunauthenticated = 1000\nunauthenticated_per_address = 1000\nkey_offers = 100000\n\
                      failures_per_minute = 100000\n";

/// A call, and what must be among the answers to an agent, to a receiver, and to nobody.
type Row = (&'static str, &'static [u16], &'static [u16], &'static [u16]);

/// How often each status and error code was the answer, by call.
type Found = BTreeMap<String, BTreeMap<(u16, String), usize>>;

const ENROLMENT: &[u16] = &[200, 400, 403, 415];

#[rustfmt::skip]
const CALLS: &[Row] = &[
    ("GET /healthz", &[200], &[200], &[200]),
    ("GET /v1/announcement", &[200, 400, 401], &[200, 400, 401], &[401]),
    ("GET /v1/app/exports/{transfer}", &[400, 401, 404], &[200, 400, 401, 404], &[401]),
    ("GET /v1/downlinks", &[200, 400, 401], &[400, 401, 404], &[401]),
    ("GET /v1/peers", &[200, 401], &[200, 401], &[401]),
    ("GET /v1/releases", &[200, 401], &[401, 404], &[401]),
    ("GET /v1/uplinks/{transfer}", &[200, 401, 404], &[401, 404], &[401]),
    ("POST /v1/app/exports", &[400, 401, 404, 415], &[202, 400, 401, 409, 415], &[401]),
    ("POST /v1/app/receipts", &[400, 401, 404, 415], &[204, 400, 401, 404, 415], &[401]),
    ("POST /v1/downlinks/{transfer}/acknowledge", &[204, 400, 401, 404, 415], &[400, 401, 404, 415], &[401]),
    ("POST /v1/enrolments", ENROLMENT, ENROLMENT, ENROLMENT),
    ("POST /v1/keys", &[400, 401, 409, 415], &[400, 401, 404, 415], &[401]),
    ("POST /v1/uplinks/{transfer}/complete", &[202, 400, 401, 409, 415], &[400, 401, 404, 415], &[401]),
    ("PUT /v1/expectations", &[204, 400, 401, 415], &[400, 401, 404, 415], &[401]),
];

/// An installation that has carried a transfer each way, with a return file that waits, so that no poll does.
fn carried(world: &World) -> (End, BTreeMap<&'static str, Value>) {
    let (end, _) = world.end(TENANT, 20, 1);
    world.create_tenant(TENANT);
    world.enrol(&end);
    let _receiver = end.receiver.serve(&["serve"]);
    end.send().succeeded();
    let (up, _) = end.newest();

    let folder = world.dir.path().join("delivered");
    let config = fs::read_to_string(&end.agent.config).unwrap();
    let delivery = format!("\n[[delivery]]\nkind = \"orders\"\nfolder = '{}'\n", folder.display());
    fs::create_dir(&folder).unwrap();
    end.agent.configure(&(config + &delivery));
    let file = world.dir.path().join("orders.csv");
    fs::write(&file, "item_no,quantity\r\nA-1,1\r\n").unwrap();
    let sent =
        end.receiver.run(&["send", file.to_str().unwrap(), "--kind", "orders", "--to", AGENT, "--json"]).succeeded().json();
    let down = sent["transfer"].as_str().unwrap().to_owned();
    let queued = world.relay.state.join("spool").join(TENANT).join(AGENT).join("downlink").join(&down);
    let manifest = eventually("the return file is queued", || fs::read(queued.join("manifest.json")).ok());
    let running = end.agent.start(&["run"]);
    eventually("it is delivered", || {
        let state = end.receiver.run(&["show", &down, "--json"]).succeeded().json()["state"].clone();
        (state == "delivered").then_some(())
    });
    running.kill();
    let _ = returned(world, &end, AGENT, &file);
    let examples = examples(world, &end, &up, &down, &manifest);
    (end, examples)
}

/// For each call something that the relay knows, with which it succeeds for whom it is.
fn examples(world: &World, end: &End, up: &str, down: &str, manifest: &[u8]) -> BTreeMap<&'static str, Value> {
    let spool = world.spool(TENANT, up);
    let digest = |file: &str| Sha256Digest::of(&fs::read(spool.join(file)).unwrap());
    let complete = Complete { manifest: digest("manifest.json"), packed: digest("packed.json") };
    let receipts = |id: &str| world.relay.state.join("receipts").join(TENANT).join(AGENT).join(id);
    let agent = AGENT.parse().unwrap();
    let imported = AppReceipt { agent, transfer: up.parse().unwrap(), signed: receipt(&receipts(up), "imported") };
    let delivered = Acknowledgement { signed: receipt(&receipts(down), "delivered") };
    let announced = Announced {
        path: format!("/downlink/{AGENT}/{down}/manifest.json").parse().unwrap(),
        size: manifest.len() as u64,
        manifest: Sha256Digest::of(manifest),
    };
    let export = Export { transfer: down.parse().unwrap(), agent: AGENT.parse().unwrap(), sequence: Sequence(1), announced };

    let another = Identity::load_or_create(&world.dir.path().join("another"), KeyKind::Ed25519, &SystemEntropy::new()).unwrap();
    let code: EnrolmentCode = world.enrolment_code(TENANT, "agent", "another").parse().unwrap();
    let enrolment = EnrolmentRequest {
        tenant: code.tenant.clone(),
        role: Role::Agent,
        secret: code.secret.clone(),
        public_key: another.public_line().clone(),
        proof: sign_enrolment(&another, code.secret.as_bytes(), &code.relay_url).unwrap(),
        landing: None,
    };
    let old = fs::read_to_string(end.agent.state.join("key.pub")).unwrap();
    let rotation = json!({"old_key": old.trim(), "new_key": another.public_line().to_string(),
        "old_until": "2100-01-01T00:00:00Z", "by_old": "no signature", "by_new": "no signature"});
    let job = json!({"job": "main", "expected_by": "2100-01-01T00:00:00Z"});
    BTreeMap::from([
        ("GET /v1/announcement", json!({"pinned": 1})),
        ("GET /v1/app/exports/{transfer}", json!({"transfer": down, "agent": AGENT})),
        ("GET /v1/uplinks/{transfer}", json!({"transfer": up})),
        ("POST /v1/app/exports", json!({"body": export})),
        ("POST /v1/app/receipts", json!({"body": imported})),
        ("POST /v1/downlinks/{transfer}/acknowledge", json!({"transfer": down, "body": delivered})),
        ("POST /v1/enrolments", json!({"body": enrolment})),
        ("POST /v1/keys", json!({"body": rotation})),
        ("POST /v1/uplinks/{transfer}/complete", json!({"transfer": up, "body": complete})),
        ("PUT /v1/expectations", json!({"body": {"jobs": [job]}})),
    ])
}

/// Lets schemathesis judge with what `told` says: what it said itself, and the answers to each call, with how often.
fn judged(folder: &Path, url: &str, told: &Value) -> (String, Found) {
    fs::create_dir(folder).unwrap();
    let (told_at, answers) = (folder.join("told.json"), folder.join("answers"));
    let mut told = told.clone();
    told["answers"] = json!(answers);
    fs::write(&told_at, told.to_string()).unwrap();
    let mut command = Command::new("timeout");
    command.arg(SECONDS).arg(PathBuf::from(python()).with_file_name("st"));
    command.args(["run", &format!("{url}/openapi.json"), "--url", url, "--tls-verify", "false", "--no-color", "--no-shrink"]);
    // The same requests each time. Whoever says a valid thing with an invalid signature is refused, so that is no fault.
    command.args(["--generation-deterministic", "--max-examples", EXAMPLES, "--continue-on-failure"]);
    // A busy machine is no fault either.
    command.args(["--suppress-health-check", "all", "--request-timeout", "60", "--request-retries", "2"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--checks", "all", "--exclude-checks", "positive_data_acceptance"]);
    command.current_dir(folder).env("HOME", folder).env("NO_PROXY", "127.0.0.1").env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/interop"));
    let output = command.env("SCHEMATHESIS_HOOKS", "judge").env("TOWPATH_JUDGE", told_at).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("schemathesis: {e}; run cargo xtask test, which installs it"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} found with {told}: {said}", output.status);
    let mut found = Found::new();
    for line in fs::read_to_string(answers).unwrap().lines() {
        let (call, status, code): (String, u16, Option<String>) = serde_json::from_str(line).unwrap();
        *found.entry(call).or_default().entry((status, code.unwrap_or_default())).or_default() += 1;
    }
    (said, found)
}

#[test]
fn interop_schemathesis_finds_no_error_and_no_undocumented_answer() {
    let world = World::new(executable());
    world.configure_relay(LIMITS);
    let _relay = world.serve_relay();
    let (end, examples) = carried(&world);
    let url = format!("https://127.0.0.1:{}", world.port);
    let as_end = |name: &str, state: &Path| json!({"url": url, "examples": examples, "issuer": format!("{TENANT}.{name}"), "key": state.join("key")});
    let ends =
        [as_end(AGENT, &end.agent.state), as_end(RECEIVER, &end.receiver.state), json!({"url": url, "examples": examples})];
    let judged = std::thread::scope(|scope| {
        let run = |(n, told)| {
            let folder = world.dir.path().join(format!("judge-{n}"));
            let url = &url;
            scope.spawn(move || judged(&folder, url, told))
        };
        let runs: Vec<_> = ends.iter().enumerate().map(run).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
    });

    for (n, (said, found)) in judged.iter().enumerate() {
        let answers: usize = found.values().flat_map(BTreeMap::values).sum();
        assert!(answers >= LEAST_ANSWERS, "{answers} answers: {said}");
        let calls: BTreeSet<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(calls, CALLS.iter().map(|row| row.0).collect(), "{said}");
        for row in CALLS {
            let (call, wanted) = (row.0, [row.1, row.2, row.3][n]);
            let statuses: BTreeSet<u16> = found[call].keys().map(|(status, _)| *status).collect();
            // What stands between the judge and the call, or hides it.
            assert!(!statuses.contains(&429) && statuses.iter().all(|status| *status < 500), "{call}: {:?}", found[call]);
            for status in wanted {
                assert!(statuses.contains(status), "run {n}, {call}: no {status} in {:?}\n{said}", found[call]);
            }
        }
    }
}
