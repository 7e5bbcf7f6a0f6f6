//! What testssl.sh says of the relay's TLS.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use towpath_testkit::World;

use crate::executable;

/// Seconds that one run may take; it waits for most of them.
const SECONDS: &str = "300";
/// What is looked at, by three runs at once, because each of them mostly waits. The order of ciphers (`-P`) is left out: every one that is offered is good, so the client
/// chooses the one that its hardware is fast at.
const RUNS: [&[&str]; 3] = [
    // Protocols and categories of ciphers.
    &["-p", "-s"],
    // Forward secrecy, the certificate and what comes with it.
    &["-f", "-S"],
    // Every known vulnerability.
    &["-U"],
];
/// What must be said in these words: that it is not there, or that it is.
const SAID: &[(&str, &str)] = &[
    ("SSLv2", "not offered"),
    ("SSLv3", "not offered"),
    ("TLS1", "not offered"),
    ("TLS1_1", "not offered"),
    ("TLS1_2", "offered"),
    ("TLS1_3", "offered with final"),
    ("cipherlist_NULL", "not offered"),
    ("cipherlist_aNULL", "not offered"),
    ("cipherlist_EXPORT", "not offered"),
    ("cipherlist_LOW", "not offered"),
    ("cipherlist_3DES_IDEA", "not offered"),
    ("cipherlist_AVERAGE", "not offered"),
    ("cipherlist_STRONG", "offered"),
    ("PFS", "offered"),
    ("secure_renego", "supported"),
    ("cert_signatureAlgorithm", "ECDSA with SHA256"),
];
/// Vulnerabilities that must have been looked for.
const LOOKED_FOR: &[&str] = &[
    "heartbleed",
    "CCS",
    "ticketbleed",
    "ROBOT",
    "secure_client_renego",
    "CRIME_TLS",
    "BREACH",
    "POODLE_SSL",
    "fallback_SCSV",
    "SWEET32",
    "FREAK",
    "DROWN",
    "LOGJAM",
    "BEAST",
    "LUCKY13",
    "RC4",
];
/// What it finds fault with all the same, by some of its words, each with the reason why it may.
const EXPECTED: &[(&str, &str)] = &[
    // The certificate is the relay's own: peers pin its key, nobody vouches for it and nobody revokes it.
    ("cert_chain_of_trust", "self signed"),
    ("cert_revocation", "Neither CRL nor OCSP URI"),
    // It is good for 20 years, because pins are for years; the relay announces the next one before it changes it.
    ("cert_validityPeriod", " days"),
    // Of the machine's own OpenSSL, not of the relay.
    ("engine_problem", "GOST"),
    // It tries with OpenSSL's client, which leaves before a ticket of TLS 1.3 has come.
    ("sessionresumption_ticket", "connect problem"),
];

/// The findings of one run: id, severity and words.
fn findings(world: &World, checks: &[&str], report: &Path) -> Vec<(String, String, String)> {
    let mut command = Command::new("timeout");
    command.args([SECONDS, "testssl", "--quiet", "--warnings", "off", "--color", "0", "--nodns", "none"]);
    let out = command.args(checks).arg("--jsonfile").arg(report).arg(format!("127.0.0.1:{}", world.port));
    let out =
        out.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("testssl: {e}; run cargo xtask test, which installs it"));
    let said = String::from_utf8_lossy(&out.stdout);
    let text = fs::read_to_string(report).unwrap_or_else(|e| panic!("{e}: {said}"));
    let all: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}\n{said}"));
    let field = |one: &Value, name: &str| one[name].as_str().unwrap_or_else(|| panic!("{one}")).to_owned();
    all.iter().map(|one| (field(one, "id"), field(one, "severity"), field(one, "finding"))).collect()
}

#[test]
fn interop_testssl_finds_no_weak_protocol_or_cipher() {
    let world = World::new(executable());
    // It opens many connections at once and logs in on none of them.
    world.configure_relay("[ssh]\nunauthenticated = 1000\nunauthenticated_per_address = 1000\n");
    let _relay = world.serve_relay();
    let reports: Vec<_> = RUNS.iter().enumerate().map(|(n, _)| world.dir.path().join(format!("testssl-{n}.json"))).collect();
    let found: Vec<_> = std::thread::scope(|scope| {
        let runs = RUNS.iter().zip(&reports);
        let runs: Vec<_> = runs.map(|(checks, report)| scope.spawn(|| findings(&world, checks, report))).collect();
        runs.into_iter().flat_map(|run| run.join().unwrap()).collect()
    });

    let mut faults = Vec::new();
    for (id, severity, finding) in &found {
        let fine = ["OK", "INFO"].contains(&severity.as_str());
        let expected = EXPECTED.iter().any(|(of, words)| id == of && finding.contains(words));
        if !fine && !expected {
            faults.push(format!("{severity} {id}: {finding}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}\nof {found:#?}");
    let said: BTreeMap<&str, &str> = found.iter().map(|(id, _, finding)| (id.as_str(), finding.as_str())).collect();
    for (id, words) in SAID {
        assert_eq!(said.get(id), Some(words), "{id} of {found:#?}");
    }
    for id in LOOKED_FOR {
        assert!(said.contains_key(id), "{id} was not looked for: {found:#?}");
    }
}
