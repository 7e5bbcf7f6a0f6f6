//! Ways out of a customer's network: proxies of other makes, and a firewall that closes one way after the other.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use towpath_samples::{
    erp::{self, TouchOptions},
    ports::free_port,
};
use towpath_testkit::{Cable, End, JOB, Program, TENANT, World, assert_same_tables, eventually, query_text};

use crate::{executable, tables};

const ROWS: u64 = 200;
const USER: &str = "towpath";
const PASSWORD: &str = "tow-and-path";
/// What the proxy does not accept; no message may repeat it.
const OTHER_PASSWORD: &str = "tow-and-other-path";

/// A program of another project; ended when dropped.
pub(crate) struct Other {
    child: Child,
    log: PathBuf,
}

impl Other {
    fn start(mut command: Command, log: &Path) -> Self {
        let file = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}; run cargo xtask test, which installs it"));
        Self { child, log: log.to_owned() }
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // One that has ended by itself needs no signal, and is reaped all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn tinyproxy(dir: &Path, listen: &str, port: u16, allow: &str, more: &str, launcher: &[&str]) -> Other {
    let config = dir.join("tinyproxy.conf");
    let text = format!("Port {port}\nListen {listen}\nAllow {allow}\nTimeout 60\nMaxClients 50\nLogLevel Info\n{more}\n");
    std::fs::write(&config, text).unwrap();
    let mut words = launcher.iter().copied().chain(["tinyproxy", "-d", "-c"]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).arg(&config);
    let mut proxy = Other::start(command, &dir.join("tinyproxy.log"));
    eventually("tinyproxy listens", || {
        let ended = proxy.child.try_wait().unwrap();
        assert!(ended.is_none(), "tinyproxy ended: {}", proxy.log());
        proxy.log().contains("Accepting connections").then_some(())
    });
    proxy
}

/// The agent's configuration with what the network is like.
fn configure(end: &End, more: &str) {
    end.agent.configure(&format!("{more}\n[receipt]\npoll = \"100ms\"\n{}", erp::job_toml(JOB, &end.erp)));
}

fn through(proxy: &str) -> String {
    format!("[network]\nproxy = \"{proxy}\"\nproxy_user = \"{USER}\"\nproxy_password = \"env:PROXY_PASSWORD\"\n")
}

/// Its ways, as `status` shows them.
fn ways(agent: &Program) -> serde_json::Value {
    agent.run(&["status", "--json"]).succeeded().json()["ways"].clone()
}

/// Everything from enrolment to the receipt through the proxy at `url`; what it was asked for is in `log`.
fn everything_goes_through(url: &str, log: impl Fn() -> String, world: &World, end: &mut End) {
    let _relay = world.serve_relay();
    world.create_tenant(TENANT);
    configure(end, &through(url));
    let code = world.enrolment_code(TENANT, "agent", "refused");
    let refused = end.agent.with("PROXY_PASSWORD", OTHER_PASSWORD).run(&["enrol", &code]).failed_with("proxy-refused");
    assert!(
        refused.stderr.contains("does not accept this user and password") && !refused.stderr.contains(OTHER_PASSWORD),
        "{refused:?}"
    );
    end.agent.run(&["enrol", &code]).failed_with("no variable PROXY_PASSWORD");

    end.agent = end.agent.with("PROXY_PASSWORD", PASSWORD);
    world.enrol(end);
    let _receiver = end.receiver.serve(&["serve"]);
    let before = log().matches(&format!("127.0.0.1:{}", world.port)).count();
    let sent = end.send().succeeded().json();
    assert_eq!(sent["transfers"][0]["state"], "imported", "{sent}");
    assert_same_tables(&end.erp, &end.app(), &tables());
    let asked = log().matches(&format!("127.0.0.1:{}", world.port)).count() - before;
    assert!(asked >= 2, "SFTP and web service were to go through the proxy: {}", log());
    let ways = ways(&end.agent);
    assert_eq!((ways["ssh"]["proxy"].as_str(), ways["https"]["proxy"].as_str()), (Some(url), Some(url)), "{ways}");
}

#[test]
fn interop_everything_goes_through_tinyproxy_with_a_password() {
    let world = World::new(executable());
    let (mut end, _) = world.end(TENANT, ROWS, 1);
    let port = free_port().unwrap();
    let limits = format!("BasicAuth {USER} {PASSWORD}\nConnectPort {}", world.port);
    let proxy = tinyproxy(world.dir.path(), "127.0.0.1", port, "127.0.0.1", &limits, &[]);
    let url = format!("http://127.0.0.1:{port}");
    everything_goes_through(&url, || proxy.log(), &world, &mut end);
    drop(proxy);

    // The same proxy allows no CONNECT to the relay's port any more.
    let limits = format!("BasicAuth {USER} {PASSWORD}\nConnectPort 443");
    let _proxy = tinyproxy(world.dir.path(), "127.0.0.1", port, "127.0.0.1", &limits, &[]);
    let told = end.agent.run(&["receiver", "list"]).succeeded().stderr;
    assert!(told.contains("it answers 403") && told.contains("[proxy-refused]"), "{told}");
}

#[test]
fn interop_everything_goes_through_a_socks5_server_with_a_password() {
    let world = World::new(executable());
    let (mut end, _) = world.end(TENANT, ROWS, 1);
    let port = free_port().unwrap();
    let mut command = Command::new("microsocks");
    command.args(["-i", "127.0.0.1", "-p", &port.to_string(), "-u", USER, "-P", PASSWORD]);
    let proxy = Other::start(command, &world.dir.path().join("microsocks.log"));
    eventually("microsocks listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    everything_goes_through(&format!("socks5://127.0.0.1:{port}"), || proxy.log(), &world, &mut end);
}

#[test]
fn a_browser_is_sent_to_the_public_url_and_nothing_else_is_told() {
    let world = World::new(executable());
    let _relay = world.serve_relay();
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert!(answer.contains(&format!("location: https://127.0.0.1:{}/healthz\r\n", world.port)), "{answer}");
}

const RELAY: &str = Cable::RELAY;
const AGENT_HOST: &str = Cable::AGENT_HOST;
const PROXY_PORT: u16 = 3128;

/// SSH that is not inside TLS is swallowed on this port, by its first bytes: `SSH-`.
const NO_SSH_ON_443: &str = "tcp dport 443 @ih,0,32 0x5353482d drop";
const NO_443: &str = "tcp dport 443 reject with tcp reset";
const NO_80: &str = "tcp dport 80 reject with tcp reset";

struct Scene {
    end: End,
    sent: u64,
}

impl Scene {
    /// Changes the ERP, so that each transfer has something of its own to carry.
    fn a_day_passes(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = TouchOptions { seed: self.sent, ..TouchOptions::default() };
        runtime.block_on(erp::touch(&self.end.erp, &options)).unwrap();
    }

    /// What was sent is there, whole and once.
    fn arrived(&mut self) {
        self.sent += 1;
        assert_same_tables(&self.end.erp, &self.end.app(), &tables());
        let imports = query_text(&self.end.app(), "SELECT count(*) FROM towpath_imports");
        assert_eq!((imports, self.end.transfers().len() as u64), (self.sent.to_string(), self.sent));
    }

    /// Sends something new; returns the ways it took.
    fn sends(&mut self) -> (String, String) {
        self.a_day_passes();
        self.end.send().succeeded();
        self.arrived();
        let ways = ways(&self.end.agent);
        let way = |channel: &str| ways[channel]["way"].as_str().unwrap().to_owned();
        (way("ssh"), way("https"))
    }
}

#[test]
fn interop_transfers_arrive_while_a_firewall_closes_one_way_after_the_other() {
    let cable = Cable::new();
    let mut world = World::new(executable());
    world.relay = world.relay.started_by(&cable.at_relay());
    world.relay.configure(&format!(
        "[relay]\npublic_url = \"https://{RELAY}\"\nlisten = [\"{RELAY}:443\", \"{RELAY}:80\"]\nadmin = \"127.0.0.1:0\"\n"
    ));
    let (mut end, _) = world.end(TENANT, ROWS, 1);
    end.agent = end.agent.started_by(&cable.at_agent());
    end.receiver = end.receiver.started_by(&cable.at_relay());
    let _relay = world.serve_relay();
    world.create_tenant(TENANT);
    world.enrol(&end);
    let _receiver = end.receiver.serve(&["serve"]);
    let mut scene = Scene { end, sent: 0 };
    let (_, https) = scene.sends();
    assert!(https.starts_with("https:"), "{https}");

    cable.close(&[NO_SSH_ON_443]);
    let (ssh, https) = scene.sends();
    assert_ne!(ssh, "ssh:443");
    assert!(https.starts_with("https:"), "{https}");
    let status = ways(&scene.end.agent);
    assert_eq!(status["ssh"]["blocked"][0]["way"], "ssh:443", "{status}");

    // While a transfer is on its way, 443 is closed for everything.
    scene.a_day_passes();
    configure(&scene.end, "[bandwidth]\nmax_bytes_per_second = 20000\n");
    let mut sending = scene.end.agent.start(&["send", "--job", JOB, "--wait"]);
    let uplinks = world.relay.state.join("spool").join(TENANT).join(towpath_testkit::AGENT).join("uplink");
    eventually("the relay has a part of the transfer", || {
        let begun = scene.end.transfers().pop().filter(|_| scene.end.transfers().len() as u64 > scene.sent)?;
        std::fs::read_dir(uplinks.join(begun)).ok()?.next().map(|_| ())
    });
    cable.close(&[NO_443]);
    assert!(sending.wait().success(), "{}", std::fs::read_to_string(&scene.end.agent.log).unwrap());
    scene.arrived();
    configure(&scene.end, "");
    assert_eq!(scene.sends(), ("ssh:80".to_owned(), "https:80".to_owned()));

    cable.close(&[NO_80]);
    let (ssh, https) = scene.sends();
    assert!(ssh.ends_with(":443") && https == "https:443", "{ssh} {https}");

    // Nothing leads out any more but a proxy, which the environment names.
    cable.close(&[NO_443, NO_80]);
    let allow = format!("ConnectPort 443\nConnectPort 80\nBasicAuth {USER} {PASSWORD}");
    let _proxy = tinyproxy(world.dir.path(), RELAY, PROXY_PORT, AGENT_HOST, &allow, &cable.at_relay());
    let proxy = format!("http://{USER}:{PASSWORD}@{RELAY}:{PROXY_PORT}");
    scene.end.agent = scene.end.agent.with("HTTPS_PROXY", proxy);
    let (_, https) = scene.sends();
    assert!(https.starts_with("https:"), "{https}");
    let status = ways(&scene.end.agent);
    assert_eq!(status["ssh"]["proxy"].as_str(), Some(format!("http://{RELAY}:{PROXY_PORT}").as_str()), "{status}");
}
