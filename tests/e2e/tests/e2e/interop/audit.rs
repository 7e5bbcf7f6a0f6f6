//! What ssh-audit says of the relay.

use std::{path::PathBuf, process::Command};

use serde_json::Value;
use towpath_testkit::World;

use super::python;
use crate::executable;

/// What it finds fault with on principle, as any curve of NIST: the second host key, for clients that know no Ed25519.
const ON_PRINCIPLE: [&str; 1] = ["ecdsa-sha2-nistp256"];

/// The algorithms of each kind, and those among them with a failure.
fn judged(report: &Value) -> (Vec<&str>, Vec<&str>) {
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for kind in ["kex", "key", "enc", "mac"] {
        for one in report[kind].as_array().unwrap() {
            let name = one["algorithm"].as_str().unwrap();
            all.push(name);
            if one["notes"].get("fail").is_some() {
                failed.push(name);
            }
        }
    }
    (all, failed)
}

#[test]
fn interop_ssh_audit_finds_no_failure() {
    let world = World::new(executable());
    let _relay = world.serve_relay();
    let program = PathBuf::from(python()).with_file_name("ssh-audit");
    let output = Command::new(program).args(["--json", "--port", &world.port.to_string(), "127.0.0.1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    let (all, failed) = judged(&report);
    assert_eq!(failed, ON_PRINCIPLE, "{report:#}");
    for expected in ["kex-strict-s-v00@openssh.com", "ssh-ed25519", "curve25519-sha256"] {
        assert!(all.contains(&expected), "{expected} is not offered: {all:?}");
    }
    assert_eq!(report["cves"], Value::Array(Vec::new()), "{report:#}");
    assert_eq!(report["compression"], serde_json::json!(["none"]), "{report:#}");
}
