//! What ssh-audit says of our SSH servers, and which host keys an SSH client meets there.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};
use towpath_testkit::{AGENT, TENANT, World};

use super::python;
use crate::executable;

/// The host key that ssh-audit calls a failure, as it does any curve of NIST; offered on request (ADR 22).
const ECDSA: &str = "ecdsa-sha2-nistp256";

/// Asserts what ssh-audit says of the server at `port`: strict key exchange, no known vulnerability, no compression, and no
/// failure but those of `failing`.
fn assert_audited(port: u16, failing: &[&str]) {
    let program = PathBuf::from(python()).with_file_name("ssh-audit");
    let output = Command::new(program).args(["--json", "--port", &port.to_string(), "127.0.0.1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
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
    assert_eq!(failed, failing, "{report:#}");
    assert_eq!(all.contains(&ECDSA), failing.contains(&ECDSA), "{all:?}");
    for expected in ["kex-strict-s-v00@openssh.com", "ssh-ed25519", "curve25519-sha256"] {
        assert!(all.contains(&expected), "{expected} is not offered: {all:?}");
    }
    assert_eq!(report["cves"], json!([]), "{report:#}");
    assert_eq!(report["compression"], json!(["none"]), "{report:#}");
}

#[test]
fn interop_ssh_audit_finds_no_failure() {
    let (world, end, _, _relay, _receiver) = World::running(executable(), 1);
    assert_audited(world.port, &[]);
    assert_audited(end.port, &[]);
}

#[test]
fn interop_the_ecdsa_host_key_is_offered_on_request() {
    let world = World::new(executable());
    let (end, _) = world.end(TENANT, 1, 1);
    let known = world.dir.path().join("known_hosts");
    let login = |algorithm: &str| -> Output {
        let mut sftp = Command::new("sftp");
        sftp.args(["-b", "/dev/null", "-F", "none", "-P", &world.port.to_string(), "-i"]).arg(end.agent.state.join("key"));
        for option in ["IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=yes"] {
            sftp.args(["-o", option]);
        }
        sftp.arg("-o").arg(format!("HostKeyAlgorithms={algorithm}"));
        sftp.arg("-o").arg(format!("UserKnownHostsFile={}", known.display())).arg(format!("{TENANT}.{AGENT}@127.0.0.1"));
        sftp.output().unwrap_or_else(|e| panic!("sftp: {e}; run cargo xtask test, which installs it"))
    };

    let relay = world.serve_relay();
    world.create_tenant(TENANT);
    world.enrol(&end);
    let keys = world.relay.run(&["keys"]).succeeded().stdout;
    let lines = keys.lines().filter_map(|line| line.strip_prefix("host\t"));
    let lines: Vec<String> = lines.map(|key| format!("[127.0.0.1]:{} {key}\n", world.port)).collect();
    assert_eq!(lines.len(), 2, "both keys are to be pinned: {keys}");
    std::fs::write(&known, lines.concat()).unwrap();
    assert!(login("ssh-ed25519").status.success());
    let refused = login(ECDSA);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("no matching host key type"), "{said}");
    drop(relay);

    world.configure_relay("[ssh]\necdsa_host_key = true\n");
    let _relay = world.serve_relay();
    for algorithm in [ECDSA, "ssh-ed25519"] {
        let output = login(algorithm);
        assert!(output.status.success(), "{algorithm}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_audited(world.port, &[ECDSA]);
    // An agent that has enrolled before goes on.
    let _receiver = end.receiver.serve(&["serve"]);
    end.send().succeeded();
}
