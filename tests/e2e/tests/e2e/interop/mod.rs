//! The ordinary tools agree: ssh-keygen, md5sum and bunzip2 check what Towpath wrote, with no Towpath at hand; other people's
//! SFTP clients and servers stand in the places of ours.

mod audit;
mod clients;
mod openssh;
mod service;
mod tls;
mod tryton;

use std::{
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use towpath_testkit::{AGENT, End, TENANT, World, eventually};
use towpath_transfer::TransferId;

use crate::executable;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; run cargo xtask test, which installs it"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}: {said}", output.status);
    said
}

/// The Python that `cargo xtask test` has given the modules of the tests.
fn python() -> OsString {
    std::env::var_os("TOWPATH_INTEROP_PYTHON")
        .unwrap_or_else(|| panic!("TOWPATH_INTEROP_PYTHON names no Python with the tests' modules: run cargo xtask test"))
}

/// A return file of a few megabytes.
fn orders(world: &World) -> PathBuf {
    let path = world.dir.path().join("orders.csv");
    let lines = (0..200_000_u32).map(|number| format!("{number},{}\r\n", number.wrapping_mul(2_654_435_761)));
    std::fs::write(&path, lines.collect::<String>()).unwrap();
    path
}

/// Lets the receiver send a file back, and waits until the relay has queued it: the transfer, and its folder at the relay.
fn returned(world: &World, end: &End, agent: &str, file: &Path) -> (TransferId, PathBuf) {
    let sent = end.receiver.run(&["send", file.to_str().unwrap(), "--to", agent, "--json"]).succeeded().json();
    let id: TransferId = sent["transfer"].as_str().unwrap_or_else(|| panic!("{sent}")).parse().unwrap();
    let agents = world.relay.state.join("spool").join(&end.tenant);
    let folder = agents.join(agent).join("downlink").join(id.to_string());
    eventually("the relay has queued the return file", || folder.join("manifest.json").is_file().then_some(()));
    (id, folder)
}

fn keygen_verifies(signers: &Path, identity: &str, namespace: &str, document: &Path) {
    let signature = document.with_extension("json.sig");
    let said = run(Command::new("ssh-keygen")
        .args(["-Y", "verify", "-f"])
        .arg(signers)
        .args(["-I", identity, "-n", namespace, "-s"])
        .arg(signature)
        .stdin(Stdio::from(File::open(document).unwrap())));
    assert!(said.contains("Good"), "{said}");
}

#[test]
fn interop_manifest_receipts_and_files_with_ordinary_tools() {
    let (world, end, _, _relay, _receiver) = World::running(executable(), 500);
    end.send().succeeded();
    let (id, folder) = end.newest();
    let of_the_agent = end.agent.state.join("allowed_signers");
    let of_the_receiver = end.receiver.state.join("allowed_signers");
    let principal = |path: &Path, namespace: &str| {
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|l| l.contains(namespace)).unwrap_or_else(|| panic!("{namespace}: {text}"));
        line.split_whitespace().next().unwrap().split(',').next().unwrap().to_owned()
    };
    let signer = principal(&of_the_receiver, "towpath-manifest@1");
    keygen_verifies(&of_the_receiver, &signer, "towpath-manifest@1", &folder.join("manifest.json"));
    for receipt in ["accepted.json", "imported.json"] {
        let document = folder.join("receipts").join(receipt);
        let found = run(Command::new("ssh-keygen")
            .args(["-Y", "find-principals", "-f"])
            .arg(&of_the_agent)
            .arg("-s")
            .arg(document.with_extension("json.sig")));
        keygen_verifies(&of_the_agent, found.lines().next().unwrap(), "towpath-receipt@1", &document);
    }

    let plain = world.dir.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    let spool = world.spool(&end.tenant, &id);
    for entry in std::fs::read_dir(&spool).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(stem) = name.strip_suffix(".bz2") else { continue };
        run(Command::new("bunzip2").arg("-t").arg(&path));
        let target = File::create(plain.join(stem)).unwrap();
        let status = Command::new("bunzip2").arg("-c").arg(&path).stdout(target).status().unwrap();
        assert!(status.success());
    }
    let checked = run(Command::new("md5sum").args(["-c", "--strict"]).arg(spool.join("MD5SUMS")).current_dir(&plain));
    assert!(checked.lines().count() > 5 && checked.lines().all(|line| line.ends_with("OK")), "{checked}");
}

/// What an agent's user can do over SFTP with OpenSSH's own client: its folder and nothing else.
#[test]
fn interop_every_wrong_path_answers_as_not_existing() {
    let (world, end, _, _relay, _receiver) = World::running(executable(), 300);
    end.send().succeeded();
    let (id, _) = end.newest();
    let (other, _) = world.end("bolt", 100, 2);
    world.create_tenant("bolt");
    world.enrol(&other);

    let known = world.dir.path().join("known_hosts");
    let host_keys = std::fs::read_dir(world.relay.state.join("host_keys")).unwrap();
    let mut lines = String::new();
    for entry in host_keys {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "pub") {
            lines.push_str(&format!("[127.0.0.1]:{} {}", world.port, std::fs::read_to_string(&path).unwrap().trim()));
            lines.push('\n');
        }
    }
    std::fs::write(&known, lines).unwrap();
    let sftp = |user: &str, key: &Path, batch: &str| {
        let commands = world.dir.path().join("batch");
        std::fs::write(&commands, format!("{batch}\n")).unwrap();
        let output = Command::new("sftp")
            .args(["-q", "-P", &world.port.to_string(), "-i"])
            .arg(key)
            .args(["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o"])
            .arg(format!("UserKnownHostsFile={}", known.display()))
            .arg("-b")
            .arg(&commands)
            .arg(format!("{user}@127.0.0.1"))
            .output()
            .unwrap_or_else(|e| panic!("sftp: {e}; run cargo xtask test, which installs it"));
        (
            output.status.success(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let user = format!("{TENANT}.{AGENT}");
    let key = end.agent.state.join("key");
    let (fine, said) = sftp(&user, &key, &format!("ls -1 /uplink/{id}"));
    assert!(fine && said.contains("manifest.json"), "{said}");

    let missing = "/uplink/01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b/manifest.json";
    let stranger = format!("bolt.{AGENT}");
    let strangers_key = other.agent.state.join("key");
    for path in [
        missing.to_owned(),
        format!("/uplink/{id}/manifest.json"),
        format!("/../{TENANT}/{AGENT}/uplink/{id}/manifest.json"),
        format!("../../{TENANT}/{AGENT}/uplink/{id}/manifest.json"),
        format!("/uplink/../../../{TENANT}/{AGENT}/uplink/{id}/manifest.json"),
        "/etc/passwd".to_owned(),
        "/registry.sqlite".to_owned(),
        format!("/uplink/{}/manifest.json", id.to_uppercase()),
        format!("/uplink//./{id}/manifest.json"),
        format!("/uplink/{id}%2fmanifest.json"),
    ] {
        let (fine, said) = sftp(&stranger, &strangers_key, &format!("get \"{path}\" {}/stolen", world.dir.path().display()));
        assert!(!fine && said.to_lowercase().contains("no such file") || said.contains("not found"), "{path}: {said}");
        assert!(!world.dir.path().join("stolen").exists(), "{path}");
    }
    let (fine, said) = sftp(&user, &strangers_key, "ls /");
    assert!(!fine, "another tenant's key must not log in: {said}");
}
