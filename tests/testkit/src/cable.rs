//! Two machines with a cable between them, made of network namespaces, and what can happen to a cable.

use std::{
    cell::RefCell,
    io::Write as _,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// The relay's address, in a network that nobody else sees.
const RELAY: &str = "10.213.0.1";
/// The agent's first address there.
const AGENT_HOST: &str = "10.213.0.2";
/// The one it comes back with after [`Cable::agent_comes_back_elsewhere`].
const AGENT_ELSEWHERE: &str = "10.213.0.3";

/// One process may hold several cables.
static CABLES: AtomicU32 = AtomicU32::new(0);

/// Two machines with a cable between them, and a firewall and a meter at the relay's end of it. Removed when dropped.
#[derive(Debug)]
pub struct Cable {
    relay: String,
    agent: String,
    incoming: RefCell<Vec<String>>,
    outgoing: RefCell<Vec<String>>,
}

/// Bytes of TCP that have come through, headers included, without those that the firewall has swallowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// From the agent to the relay.
    pub up: u64,
    /// From the relay to the agent.
    pub down: u64,
}

impl Cable {
    /// The relay's address.
    pub const RELAY: &'static str = RELAY;
    /// The agent's address.
    pub const AGENT_HOST: &'static str = AGENT_HOST;

    /// A cable on which everything passes.
    ///
    /// # Panics
    /// Where this process may not make namespaces.
    #[must_use]
    pub fn new() -> Self {
        let id = format!("{}-{}", std::process::id(), CABLES.fetch_add(1, Ordering::Relaxed));
        let cable = Self {
            relay: format!("towpath-{id}-relay"),
            agent: format!("towpath-{id}-agent"),
            incoming: RefCell::default(),
            outgoing: RefCell::default(),
        };
        let (relay, agent) = (cable.relay.as_str(), cable.agent.as_str());
        for arguments in [
            format!("netns add {relay}"),
            format!("netns add {agent}"),
            format!("-n {relay} link add cable type veth peer name cable netns {agent}"),
            format!("-n {relay} addr add {RELAY}/24 dev cable"),
            format!("-n {agent} addr add {AGENT_HOST}/24 dev cable"),
            format!("-n {relay} link set lo up"),
            format!("-n {agent} link set lo up"),
            format!("-n {relay} link set cable up"),
            format!("-n {agent} link set cable up"),
        ] {
            ip(&arguments);
        }
        // Later than the firewall's chains: what those swallow is not counted.
        cable.nft(
            "table inet passed {\ncounter from_agent { }\ncounter to_agent { }\n\
             chain in {\ntype filter hook input priority 100\niifname \"cable\" meta l4proto tcp counter name \"from_agent\"\n}\n\
             chain out {\ntype filter hook output priority 100\noifname \"cable\" meta l4proto tcp counter name \"to_agent\"\n}\n}\n",
        );
        cable
    }

    /// What starts a program on the relay's machine.
    #[must_use]
    pub fn at_relay(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.relay]
    }

    /// What starts a program on the agent's machine.
    #[must_use]
    pub fn at_agent(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.agent]
    }

    /// Replaces the firewall's rules for what comes from the agent.
    pub fn close(&self, rules: &[&str]) {
        self.incoming.replace(rules.iter().map(|rule| format!("ip saddr {AGENT_HOST} {rule}")).collect());
        self.filter();
    }

    /// Loses so many of a hundred packets, each way.
    pub fn lose(&self, of_a_hundred: u32) {
        let rule = format!("iifname \"cable\" numgen random mod 100 < {of_a_hundred} drop");
        self.outgoing.replace(vec![rule.replace("iifname", "oifname")]);
        self.incoming.replace(vec![rule]);
        self.filter();
    }

    /// Swallows everything between the relay and the agent's first address, without a word to either.
    pub fn cut(&self) {
        self.incoming.replace(vec![format!("ip saddr {AGENT_HOST} drop")]);
        self.outgoing.replace(vec![format!("ip daddr {AGENT_HOST} drop")]);
        self.filter();
    }

    /// Lets everything pass again.
    pub fn mend(&self) {
        self.incoming.replace(Vec::new());
        self.outgoing.replace(Vec::new());
        self.filter();
    }

    /// Lets so many bytes a second through, each way.
    ///
    /// # Panics
    /// Where the kernel has no token bucket (`sch_tbf`).
    pub fn slow(&self, bytes_per_second: u32) {
        for name in [&self.relay, &self.agent] {
            // A bucket holds at least a few whole packets; the queue is as long as a modem's.
            let bucket = (bytes_per_second / 100).max(4_000);
            let shape = format!("rate {}bit burst {bucket} latency 800ms", u64::from(bytes_per_second) * 8);
            let arguments = format!("netns exec {name} tc qdisc replace dev cable root tbf {shape}");
            ip(&arguments);
        }
    }

    /// The agent's machine gets another address, and nothing that was sent to or from the former one arrives any more: what was
    /// connected there is gone without having said so.
    pub fn agent_comes_back_elsewhere(&self) {
        self.cut();
        ip(&format!("-n {} addr del {AGENT_HOST}/24 dev cable", self.agent));
        ip(&format!("-n {} addr add {AGENT_ELSEWHERE}/24 dev cable", self.agent));
    }

    /// What has come through since the cable was made.
    ///
    /// # Panics
    /// Where nft does not tell.
    #[must_use]
    pub fn passed(&self) -> Passed {
        let [ip, arguments @ ..] = self.at_relay();
        let mut command = Command::new(ip);
        command.args(arguments).args(["nft", "-j", "list", "counters", "table", "inet", "passed"]);
        let told: serde_json::Value = serde_json::from_slice(&done(&mut command).stdout).expect("nft speaks JSON");
        let bytes = |name: &str| {
            let counters = told.get("nftables").and_then(|all| all.as_array()).expect("a list");
            let named =
                counters.iter().filter_map(|one| one.get("counter")).find(|one| one.get("name").is_some_and(|n| n == name));
            named.and_then(|one| one.get("bytes")).and_then(serde_json::Value::as_u64).expect("a counter that is there")
        };
        Passed { up: bytes("from_agent"), down: bytes("to_agent") }
    }

    /// What a program says that is run on the relay's machine.
    #[must_use]
    pub fn told_at_relay(&self, program: &[&str]) -> Output {
        let [ip, arguments @ ..] = self.at_relay();
        let mut command = Command::new(ip);
        command.args(arguments).args(program);
        done(&mut command)
    }

    fn filter(&self) {
        let text = |rules: &RefCell<Vec<String>>| rules.borrow().join("\n");
        self.nft(&format!(
            "add table inet firewall\ndelete table inet firewall\ntable inet firewall {{\n\
             chain in {{\ntype filter hook input priority 0\n{}\n}}\n\
             chain out {{\ntype filter hook output priority 0\n{}\n}}\n}}\n",
            text(&self.incoming),
            text(&self.outgoing)
        ));
    }

    fn nft(&self, text: &str) {
        let [ip, arguments @ ..] = self.at_relay();
        let mut command = Command::new(ip);
        command.args(arguments).args(["nft", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "nft refused {text}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Default for Cable {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in [&self.relay, &self.agent] {
            // Where making them failed there is nothing to remove.
            let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
        }
    }
}

fn ip(arguments: &str) {
    let _ = done(Command::new("ip").args(arguments.split(' ')));
}

fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; run cargo xtask test, which installs it"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{command:?} failed: {said}\nThis test makes network namespaces of its own, for which it must be run by root with \
         CAP_SYS_ADMIN and CAP_NET_ADMIN"
    );
    output
}
