//! Bad networks: packets that are lost, a cable that is cut, a slow line, a host that vanishes, and proxies that refuse and cut.
//! A transfer each way is under way meanwhile. Both arrive whole, and what has arrived once is not sent again.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use towpath_testkit::{
    AGENT, Cable, End, JOB, Manner, NOISE, Passed, RoughProxy, Server, TENANT, World, assert_same_tables, eventually,
    eventually_within, lasted, let_it_last, noise, noisy_erp, noisy_job, query_text, recovers,
};
use towpath_transfer::digest::Sha256Digest;

use crate::executable;

const KIND: &str = "orders";
/// How long a transfer over a bad network may take; many times what it takes on an idle machine.
const LONG: Duration = Duration::from_secs(280);
/// More than logins and questions need: when so many bytes have passed one way, payload moves.
const MOVING: u64 = 100_000;
/// What goes over the wire beside the files: logins, questions and answers, acknowledgements of TCP, in bytes.
const BESIDE: u64 = 300_000;

/// One installation and what it is to carry.
struct Scene {
    world: World,
    end: End,
    delivery: PathBuf,
    /// Bytes of each of the two payloads.
    bytes: usize,
    sent: u64,
}

/// What is under way.
struct UnderWay {
    up: Server,
    down: String,
}

impl Scene {
    fn new(bytes: usize) -> Self {
        let world = World::new(executable());
        let (mut end, _) = world.end(TENANT, 1, 1);
        end.erp = world.dir.path().join("noise.sqlite");
        let delivery = world.dir.path().join("erp-in");
        fs::create_dir_all(&delivery).unwrap();
        let scene = Self { world, end, delivery, bytes, sent: 0 };
        scene.configure("");
        scene
    }

    /// The agent's configuration, with what is said of the network.
    fn configure(&self, network: &str) {
        self.end.agent.configure(&format!(
            "{network}[receipt]\npoll = \"1s\"\n{}\n[[delivery]]\nkind = \"{KIND}\"\nfolder = '{}'\n",
            noisy_job(JOB, &self.end.erp),
            self.delivery.display()
        ));
    }

    /// Puts agent and relay at the two ends of a cable.
    fn wire(&mut self, cable: &Cable, more: &str) {
        let (address, at_relay) = (Cable::RELAY, cable.at_relay());
        self.world.relay = self.world.relay.started_by(&at_relay);
        self.world.relay.configure(&format!(
            "[relay]\npublic_url = \"https://{address}\"\nlisten = [\"{address}:443\"]\nadmin = \"127.0.0.1:9443\"\n{more}"
        ));
        self.end.agent = self.end.agent.started_by(&cable.at_agent());
        self.end.receiver = self.end.receiver.started_by(&at_relay);
    }

    /// Starts relay and receiver, and enrols.
    fn start(&self) -> [Server; 2] {
        let relay = self.world.serve_relay();
        self.world.create_tenant(TENANT);
        self.world.enrol(&self.end);
        [relay, self.end.receiver.serve(&["serve"])]
    }

    /// Sets a transfer under way in each direction.
    fn send(&mut self) -> UnderWay {
        self.sent += 1;
        noisy_erp(&self.end.erp, self.sent, self.bytes);
        let up = self.end.agent.start(&["send", "--job", JOB, "--wait"]);
        let file = self.world.dir.path().join("orders.csv");
        fs::write(&file, self.returned()).unwrap();
        let send = ["send", file.to_str().unwrap(), "--kind", KIND, "--to", AGENT, "--json"];
        let told = self.end.receiver.run(&send).succeeded().json();
        UnderWay { up, down: told["transfer"].as_str().unwrap().to_owned() }
    }

    fn returned(&self) -> Vec<u8> {
        noise(1_000 + self.sent, self.bytes)
    }

    /// Waits until so much of both payloads is at the other side.
    fn under_way(&self, part: usize) {
        let wanted = part as u64;
        eventually_within(LONG, "a part of the way up is at the relay", || (self.at_relay() >= wanted).then_some(()));
        eventually_within(LONG, "a part of the way back is at the agent", || (self.at_agent() >= wanted).then_some(()));
    }

    /// Bytes of the newest transfer that lie at the relay.
    fn at_relay(&self) -> u64 {
        let Some(id) = self.end.transfers().pop().filter(|_| self.end.transfers().len() as u64 == self.sent) else { return 0 };
        bytes_in(&self.world.spool(TENANT, &id))
    }

    /// Bytes of return files that lie at the agent.
    fn at_agent(&self) -> u64 {
        bytes_in(&self.end.agent.state.join("downlink"))
    }

    /// Waits until payload moves again, by the bytes that have passed since; or until the way up is over, where little was left.
    fn goes_on(&self, what: &str, under_way: &mut UnderWay, passed: impl Fn() -> (u64, u64)) {
        recovers(what, || {
            let (up, down) = passed();
            (up.max(down) >= MOVING || under_way.up.ended().is_some()).then_some(())
        });
    }

    /// Waits for the end of both; then everything is there, whole and once.
    fn arrives(&self, mut under_way: UnderWay) {
        let status = eventually_within(LONG, "the way up ends", || under_way.up.ended());
        assert!(status.success(), "{}", fs::read_to_string(&self.end.agent.log).unwrap_or_default());
        self.has_arrived(&under_way.down);
    }

    /// The way up is over; once the return file is, everything is there, whole and once.
    fn has_arrived(&self, down: &str) {
        let log = || fs::read_to_string(&self.end.agent.log).unwrap_or_default();
        eventually_within(LONG, "the way back ends", || {
            let shown = self.end.receiver.run(&["show", down, "--json"]).succeeded().json();
            assert_ne!(shown["parked"], true, "{shown}\n{}", log());
            (shown["state"] == "delivered").then_some(())
        });
        assert_same_tables(&self.end.erp, &self.end.app(), &[NOISE]);
        let imports = query_text(&self.end.app(), "SELECT count(*) FROM towpath_imports");
        assert_eq!((imports, self.end.transfers().len() as u64), (self.sent.to_string(), self.sent));
        let visible = |path: &PathBuf| !path.file_name().unwrap().to_str().unwrap().starts_with('.');
        let delivered =
            fs::read_dir(&self.delivery).unwrap().map(|entry| entry.unwrap().path()).filter(visible).collect::<Vec<_>>();
        let [file] = &delivered[..] else { panic!("not one file was delivered: {delivered:?}") };
        let (sent, got) = (Sha256Digest::of(&self.returned()), Sha256Digest::of(&fs::read(file).unwrap()));
        assert_eq!(got, sent, "the return file is another than the one that was sent");
        fs::remove_file(file).unwrap();
        let _ = self.end.agent.run(&["receipts", "verify"]).succeeded();
        let _ = self.end.receiver.run(&["receipts", "verify", down]).succeeded();
    }

    /// What went over the wire each way for one payload each way, with everything beside it, as hundredths of the payload.
    fn not_again(&self, what: &str, up: u64, down: u64, most: u64) {
        let part = |bytes: u64| bytes.saturating_sub(BESIDE) * 100 / self.bytes as u64;
        note(&format!("{what}: {} % of the payload went up, {} % came back", part(up), part(down)));
        assert!(
            part(up) <= most && part(down) <= most,
            "{what}: more than {most} % of {} went over the wire: {up}, {down}",
            self.bytes
        );
    }
}

/// Leaves a figure in the test's output, for docs/testing.md.
#[expect(clippy::print_stderr, reason = "the figure is what the test is run for by hand")]
fn note(figure: &str) {
    eprintln!("measured: {figure}");
}

/// The bytes of all files below a folder, as far as they can be seen: files come and go meanwhile.
fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_in(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

fn since(cable: &Cable, before: Passed) -> (u64, u64) {
    let now = cable.passed();
    (now.up - before.up, now.down - before.down)
}

#[test]
fn interop_a_third_of_all_packets_is_lost() {
    let cable = Cable::new();
    let mut scene = Scene::new(500_000);
    scene.wire(&cable, "");
    let _programs = scene.start();
    cable.lose(30);
    let _agent = scene.end.run();
    let before = cable.passed();
    let under_way = scene.send();
    let ((), took) = lasted(|| scene.arrives(under_way));
    note(&format!("30 % loss: 500 kB each way in {} s", took.as_secs()));
    // What is counted has come through; TCP sends a packet twice also where only its acknowledgement was lost.
    let (up, down) = since(&cable, before);
    scene.not_again("30 % loss", up, down, 150);
}

#[test]
fn interop_the_cable_is_cut_in_mid_file_and_mended() {
    let cable = Cable::new();
    let mut scene = Scene::new(3_000_000);
    scene.wire(&cable, "");
    let _programs = scene.start();
    cable.slow(500_000);
    let _agent = scene.end.run();
    let before = cable.passed();
    let mut under_way = scene.send();
    scene.under_way(scene.bytes / 2);
    cable.cut();
    let_it_last(Duration::from_secs(4));
    let cut_at = cable.passed();
    cable.mend();
    scene.goes_on("a cut of 4 s", &mut under_way, || since(&cable, cut_at));
    scene.arrives(under_way);
    // More than half of each was there: whoever begins anew needs more than 150 %.
    let (up, down) = since(&cable, before);
    scene.not_again("cut in mid-file", up, down, 125);
}

#[test]
fn interop_five_kilobytes_a_second() {
    let cable = Cable::new();
    let mut scene = Scene::new(60_000);
    scene.wire(&cable, "");
    let _programs = scene.start();
    cable.slow(5_000);
    let _agent = scene.end.run();
    let under_way = scene.send();
    let ((), took) = lasted(|| scene.arrives(under_way));
    note(&format!("5 kB/s: 60 kB each way in {} s", took.as_secs()));
}

/// What the relay says of the connections that it serves.
fn ssh_sessions(cable: &Cable) -> u64 {
    let said = cable.told_at_relay(&["curl", "-sS", "http://127.0.0.1:9443/metrics"]).stdout;
    let said = String::from_utf8(said).unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix("towpath_relay_connections{kind=\"ssh\"} "));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

/// A host whose line is dead says nothing when it goes: the relay finds out by its silence and makes room, so that the host can
/// come back from elsewhere and go on where it was.
fn the_host_vanishes(silence: &str) {
    let cable = Cable::new();
    let mut scene = Scene::new(3_000_000);
    scene.wire(&cable, &format!("[ssh]\nsilence = \"{silence}\"\nsessions_per_agent = 2\n"));
    let _programs = scene.start();
    cable.slow(500_000);
    let agent = scene.end.run();
    let before = cable.passed();
    let under_way = scene.send();
    scene.under_way(scene.bytes / 2);
    assert!(ssh_sessions(&cable) > 0);
    cable.agent_comes_back_elsewhere();
    agent.kill();
    let UnderWay { up, down } = under_way;
    up.kill();
    let ((), took) = lasted(|| {
        eventually_within(LONG, "the relay gives the dead sessions up", || (ssh_sessions(&cable) == 0).then_some(()));
    });
    note(&format!("half-open: with a silence of {silence} the dead sessions were gone after {} s", took.as_secs()));
    let _agent = scene.end.run();
    // It goes on with what is open, by itself; whoever waits for it finds it in work or at its end.
    let id = scene.end.transfers().pop().unwrap();
    eventually_within(LONG, "the way up ends", || {
        let shown = scene.end.agent.run(&["show", &id, "--json"]).succeeded().json();
        (shown["state"] == "imported").then_some(())
    });
    scene.has_arrived(&down);
    let (up, down) = since(&cable, before);
    scene.not_again("a host that vanishes", up, down, 125);
}

#[test]
fn interop_a_host_vanishes_and_comes_back_elsewhere() {
    the_host_vanishes("6s");
}

#[test]
fn long_interop_a_host_vanishes_for_as_long_as_the_relay_is_patient() {
    the_host_vanishes("90s");
}

/// The agent's log says this, from here on.
fn says(end: &End, from: usize, words: &str) {
    eventually(&format!("the agent says {words:?}"), || {
        let log = fs::read(&end.agent.log).unwrap();
        String::from_utf8_lossy(&log[from..]).contains(words).then_some(())
    });
}

fn log_length(end: &End) -> usize {
    fs::metadata(&end.agent.log).map_or(0, |log| usize::try_from(log.len()).unwrap())
}

const SLOWLY: &str = "[bandwidth]\nmax_bytes_per_second = 600000\n";

#[test]
fn a_proxy_refuses_for_a_while_and_then_lets_everything_through() {
    let mut scene = Scene::new(1_500_000);
    let proxy = RoughProxy::start(Manner::Passes);
    scene.configure(&format!("{}{SLOWLY}", proxy.toml()));
    let _programs = scene.start();
    let _agent = scene.end.run();
    let before = proxy.told();
    let mut under_way = scene.send();
    scene.under_way(scene.bytes / 2);
    for (status, word) in [(407, "wants a user and a password"), (502, "it answers 502")] {
        let from = log_length(&scene.end);
        proxy.become_one_that(Manner::Answers(status));
        says(&scene.end, from, word);
    }
    let refused_at = proxy.told();
    proxy.become_one_that(Manner::Passes);
    let passed = || (proxy.told().up - refused_at.up, proxy.told().down - refused_at.down);
    scene.goes_on("a proxy that refused", &mut under_way, passed);
    scene.arrives(under_way);
    let told = proxy.told();
    assert!(told.refused > 0, "{told:?}");
    scene.not_again("a proxy that refuses", told.up - before.up, told.down - before.down, 125);
}

#[test]
fn a_proxy_cuts_what_is_idle() {
    let mut scene = Scene::new(200_000);
    let proxy = RoughProxy::start(Manner::CutsIdle(Duration::from_secs(1)));
    scene.configure(&proxy.toml());
    let _programs = scene.start();
    let _agent = scene.end.run();
    // The agent waits for return files on a connection that is silent for up to a minute.
    eventually("the proxy has cut the question for return files again and again", || (proxy.told().cut >= 3).then_some(()));
    for _ in 0..2 {
        let under_way = scene.send();
        scene.arrives(under_way);
    }
}

#[test]
fn a_proxy_cuts_in_mid_file_again_and_again() {
    let mut scene = Scene::new(2_000_000);
    let proxy = RoughProxy::start(Manner::CutsAfter(600_000));
    scene.configure(&proxy.toml());
    let _programs = scene.start();
    let _agent = scene.end.run();
    let before = proxy.told();
    let under_way = scene.send();
    let ((), took) = lasted(|| scene.arrives(under_way));
    let told = proxy.told();
    note(&format!("a proxy that cuts each tunnel after 600 kB: {} cuts, 2 MB each way in {} s", told.cut, took.as_secs()));
    assert!(told.cut >= 5, "{told:?}");
    // No tunnel lives long enough for a payload, so whoever begins anew never ends. Each cut swallows what is on its way just then,
    // up to the buffers of two sockets; that is what is sent again.
    scene.not_again("a proxy that cuts", told.up - before.up, told.down - before.down, 250);
}
