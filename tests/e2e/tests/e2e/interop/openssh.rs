//! A plain OpenSSH server as app server: the relay writes through it into a folder that the receiver watches.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use towpath_samples::ports::free_port;
use towpath_testkit::{AGENT, RECEIVER, TENANT, World, assert_same_tables, eventually};

use super::{orders, returned, run};
use crate::{executable, tables};

const SSHD: &str = "/usr/sbin/sshd";

/// An `sshd` that lets one key in, to SFTP only.
struct Sshd {
    child: Child,
    port: u16,
    host_key: String,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // One that is over already needs no signal, and is reaped all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sshd {
    fn new(folder: &Path, admitted: &str) -> Self {
        assert!(Path::new(SSHD).exists(), "{SSHD} is missing: install the package openssh-server, or run cargo xtask test");
        // Where root's sshd separates its privileges; the package's service makes it at boot. Others need none.
        let _ = fs::create_dir_all("/run/sshd");
        fs::create_dir(folder).unwrap();
        let at = |name: &str| folder.join(name);
        run(Command::new("ssh-keygen").args(["-q", "-N", "", "-C", "", "-t", "ed25519", "-f"]).arg(at("host_key")));
        fs::write(at("authorized_keys"), format!("restrict,command=\"internal-sftp\" {admitted}\n")).unwrap();
        let (port, root) = (free_port().unwrap(), folder.display());
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {root}/host_key\nAuthorizedKeysFile {root}/authorized_keys\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\nSubsystem sftp internal-sftp\n"
        );
        fs::write(at("config"), config).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let mut command = Command::new(SSHD);
        command.args(["-D", "-e", "-f"]).arg(at("config")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut sshd = Self { child: command.spawn().unwrap(), port, host_key: fs::read_to_string(at("host_key.pub")).unwrap() };
        eventually("sshd listens", || {
            let said = fs::read_to_string(at("log")).unwrap();
            assert!(sshd.child.try_wait().unwrap().is_none(), "sshd ended: {said}");
            said.contains("Server listening").then_some(())
        });
        sshd
    }
}

fn user() -> String {
    run(Command::new("id").arg("-un")).trim().to_owned()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn interop_openssh_is_a_landing_place() {
    let world = World::new(executable());
    let (end, _) = world.end(TENANT, 1_500, 1);
    end.receiver.configure("[landing]\nlisten = \"none\"\nscan = \"100ms\"\n");
    let _relay = world.serve_relay();
    world.create_tenant(TENANT);
    let code = world.enrolment_code(TENANT, "receiver", RECEIVER);
    let _ = end.receiver.run(&["enrol", &code]).succeeded();
    let code = world.enrolment_code(TENANT, "agent", AGENT);
    let _ = end.agent.run(&["enrol", &code]).succeeded();
    end.approve_agent();
    end.approve_receiver();

    let keys = world.relay.run(&["keys"]).succeeded().stdout;
    let forward = keys.lines().find_map(|line| line.strip_prefix("forward\t")).unwrap();
    let sshd = Sshd::new(&world.dir.path().join("sshd"), forward);
    let _receiver = end.receiver.serve(&["serve"]);
    let landing = end.receiver.state.join("landing");
    let url = format!("sftp://{}@127.0.0.1:{}{}", user(), sshd.port, landing.display());
    let _ = world.relay.run(&["tenant", "app-server", TENANT, &url, "--app-host-key", sshd.host_key.trim()]).succeeded();

    let sent = end.send().succeeded().json();
    assert_eq!(sent["transfers"][0]["state"], "imported", "{sent}");
    assert_same_tables(&end.erp, &end.app(), &tables());
    let listening: serde_json::Value =
        serde_json::from_slice(&fs::read(end.receiver.state.join("listening.json")).unwrap()).unwrap();
    assert_eq!(listening["listen"], serde_json::json!([]), "the receiver must not listen itself");
    let left = landing.join("uplink").join(AGENT);
    eventually("the landing is cleared", || files_in(&left).is_empty().then_some(()));

    // The way back: the relay fetches what the receiver lays into the folder.
    let orders = orders(&world);
    let (_, queued) = returned(&world, &end, AGENT, &orders);
    let unpacked = Command::new("bunzip2").arg("-c").arg(queued.join("orders.csv.bz2")).output().unwrap();
    assert!(unpacked.stdout == fs::read(&orders).unwrap(), "what the relay has fetched and packed differs");
}
