//! Each way to the relay by itself, and what the relay says when it is reached.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use jiff::SignedDuration;
use towpath_host::counted;
use towpath_keys::Identity;
use towpath_transfer::{Clock, Code, failure::Result};
use towpath_transport::{
    dial::{Block, Proxy, Route, Way, block::NO_NAME},
    relay_api::{HttpRelayApi, MAX_CLOCK_SKEW, RelayApi as _, RelayPins},
    store::{Connect, Far, StoreError, StoreErrorKind, StoreResult},
};

use super::{
    Told,
    check::{Check, Subject, said},
    local::State,
    remedy,
};
use crate::{enrolment::Enrolment, host::Host, network::Network, own_key::OwnKey};

/// How long one way to the relay may take: longer than a connection and a login may, so that these say by themselves where it hangs.
pub const WAY_TIMEOUT: Duration = Duration::from_secs(50);

/// What leads to the relay.
struct Probe<'a> {
    host: &'a Host,
    network: Network,
    ways: Vec<(Way, Arc<dyn Connect>)>,
    /// At the port of its URL.
    direct: HttpRelayApi,
    /// By whichever way is open.
    any: HttpRelayApi,
}

/// What came of one way.
struct Tried {
    way: Way,
    came_of_it: StoreResult<()>,
}

pub(super) async fn checks(host: &Host, state: &State, told: &mut Told<'_>) -> Result<()> {
    let subject = Subject::new("network", "network", "preparing the ways to the relay");
    let (enrolment, identity) = match (&state.enrolment, &state.identity) {
        (Some(enrolment), Some(identity)) => (enrolment, identity),
        (None, _) => return told.add(subject.skipped("the relay is not known before this agent is enrolled")),
        (Some(_), None) => return told.add(subject.skipped("without its key this agent cannot log in at the relay")),
    };
    let probe = match Probe::new(host, enrolment, identity) {
        Ok(probe) => probe,
        Err(failure) => return told.add(subject.failed(&failure)),
    };
    told.add(probe.name().await)?;
    let (tried, (https, clock)) = tokio::join!(probe.every_way(), probe.https());
    let is_open = tried.iter().any(Tried::is_open);
    for one in &tried {
        told.add(probe.way(one, is_open))?;
    }
    let reached = https.code.is_none();
    told.add(https)?;
    told.add(clock)?;
    told.add(login(enrolment, identity, &tried))?;
    told.add(probe.token(reached || is_open).await)
}

impl<'a> Probe<'a> {
    fn new(host: &'a Host, enrolment: &Enrolment, identity: &Identity) -> Result<Self> {
        let pins = RelayPins::new(&enrolment.relay_keys());
        let network = host.network(&enrolment.relay_url)?;
        let key = OwnKey::new(identity.clone())?;
        let ways = network.each_way(&pins.trust(), &Host::sftp_logins(enrolment, &key, &pins))?;
        let direct = network.web_forgetting(host.relay(enrolment, &key, &pins)?, false);
        let any = network.web_forgetting(host.relay(enrolment, &key, &pins)?, true);
        Ok(Self { host, network, ways, direct, any })
    }

    fn clock(&self) -> &dyn Clock {
        &**self.host.clock()
    }

    /// Whether the first name on the way has an address.
    async fn name(&self) -> Check {
        let (relay, port) = self.network.relay();
        let (what, host, port) = match self.network.proxy_to(port) {
            Some(proxy) => {
                (format!("the proxy {proxy}, which resolves the relay's name itself"), proxy.address().0, proxy.address().1)
            }
            None => ("the relay".to_owned(), relay, port),
        };
        let subject = Subject::new("name", "name", format!("resolving {host}, the name of {what}"));
        subject
            .within(self.clock(), WAY_TIMEOUT, async |subject| match tokio::net::lookup_host((host, port)).await {
                Ok(found) => {
                    let mut found: Vec<String> = found.map(|address| address.ip().to_string()).collect();
                    found.dedup();
                    subject.ok(format!("{host} is {}", found.join(", ")))
                }
                Err(error) => subject.wrong(Code::RelayUnreachable, format!("{host} has no address: {error}"), no_name()),
            })
            .await
    }

    async fn every_way(&self) -> Vec<Tried> {
        join_all(self.ways.iter().map(async |(way, connect)| {
            let came_of_it = tokio::select! {
                done = connect.connect() => done.map(drop),
                () = self.clock().sleep(WAY_TIMEOUT) => {
                    let late = format!("there was no result within {} seconds", WAY_TIMEOUT.as_secs());
                    Err(StoreError::new(StoreErrorKind::TimedOut, late))
                }
            };
            Tried { way: *way, came_of_it }
        }))
        .await
    }

    /// A way that is blocked is no failure where another one is open.
    fn way(&self, tried: &Tried, other_is_open: bool) -> Check {
        let way = tried.way;
        let what = match way.route {
            Route::Ssh => "SSH",
            Route::SshInTls => "SSH inside TLS",
        };
        let subject = Subject::new(format!("way:{way}"), format!("way {way}"), self.told_way(what, way.port));
        let error = match &tried.came_of_it {
            Ok(()) => return subject.ok("it is open"),
            Err(error) => error,
        };
        let code = code_of(error);
        if tried.is_open() {
            return subject.ok("it is open, as far as the relay's server");
        }
        let (found, remedy) = match Block::of(error) {
            // Whoever answers has another host key.
            Block::Nothing => (error.report(), remedy::of(code)),
            block => self.hop(&block, way.port, &error.report()),
        };
        if other_is_open {
            subject.warning(Some(code), found, format!("{remedy}; another way is open"))
        } else {
            subject.wrong(code, found, remedy)
        }
    }

    fn told_way(&self, what: &str, port: u16) -> String {
        let (host, _) = self.network.relay();
        let through = self.network.proxy_to(port).map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
        format!("{what} to {host} on port {port}{through}")
    }

    /// The web service, and the relay's clock as its answer tells it.
    async fn https(&self) -> (Check, Check) {
        let (_, port) = self.network.relay();
        let subject = Subject::new("way:https", "way https", self.told_way("HTTPS", port));
        let web = subject
            .within(self.clock(), WAY_TIMEOUT, async |subject| match self.direct.health().await {
                Ok(()) => subject.ok("it is open, and the relay says that it is well"),
                Err(failure) => {
                    let (found, remedy) = self.hop(&Block::of(&failure), port, &said(&failure));
                    subject.wrong(failure.code(), found, remedy)
                }
            })
            .await;
        (web, clock(self.direct.clock_offset()))
    }

    /// Whether the relay takes a token of ours.
    async fn token(&self, is_reached: bool) -> Check {
        let subject = Subject::new("token", "web service", "asking the relay for the receivers, with a token signed by the key");
        if !is_reached {
            return subject.skipped("the relay was not reached");
        }
        subject
            .within(self.clock(), WAY_TIMEOUT, async |subject| match self.any.peers().await {
                Ok(peers) => {
                    let others = counted(peers.peers.len(), "other", "others");
                    subject.ok(format!("the relay knows this agent, and {others} of its tenant"))
                }
                Err(failure) => subject.failed(&failure),
            })
            .await
    }

    /// Which hop blocks a way, and what to do about it.
    fn hop(&self, block: &Block, port: u16, report: &str) -> (String, String) {
        let (relay, _) = self.network.relay();
        match self.network.proxy_to(port) {
            Some(proxy) => at_proxy(block, proxy, relay, port, report),
            None => direct(block, relay, port, report),
        }
    }
}

/// The relay's clock minus this host's, where it is known.
fn clock(offset: Option<SignedDuration>) -> Check {
    let subject = Subject::new("clock", "clock", "comparing this host's clock with the relay's");
    match offset {
        None => subject.skipped("the relay has not told its time"),
        Some(offset) if offset.abs() > MAX_CLOCK_SKEW => {
            let remedy = "set the clock, and let it be kept right: timedatectl set-ntp true (docs/errors/clock-skew.md)";
            subject.warning(
                Some(Code::ClockSkew),
                format!("they differ by {:#}; transfers work, and their times are wrong", offset.abs()),
                remedy,
            )
        }
        Some(offset) => subject.ok(format!("they differ by {:#}", offset.abs())),
    }
}

fn no_name() -> String {
    format!("{NO_NAME} (docs/errors/relay-unreachable.md)")
}

fn direct(block: &Block, relay: &str, port: u16, report: &str) -> (String, String) {
    let page = "docs/errors/relay-unreachable.md";
    let allow = format!("have the firewall let TCP from this host to {relay} port {port} pass");
    match block {
        Block::Name => (format!("{relay} has no address: {report}"), no_name()),
        Block::Refused => (
            format!("nothing listens on {relay} port {port}, or a firewall refuses: {report}"),
            format!("ask the relay's operator whether it listens there; if it does, {allow} ({page})"),
        ),
        Block::Dropped => (
            format!("a firewall drops what goes to {relay} port {port}, or the host is off: {report}"),
            format!("{allow} ({page})"),
        ),
        Block::NoRoute => (
            format!("there is no route to {relay}: {report}"),
            format!("see this host's network and its gateway; where a proxy leads out, name it in [network] proxy ({page})"),
        ),
        Block::Cut => (
            format!("a connection is made, and something in between cuts it or swallows what is said: {report}"),
            format!("{allow} without looking into it: no inspection, no protocol filter ({page})"),
        ),
        Block::Other => (
            format!("what answers on {relay} port {port} is no relay: {report}"),
            format!("see who answers there (a transparent proxy, a captive portal), and {allow} untouched ({page})"),
        ),
        Block::Certificate(shown) => certificate(shown.as_ref(), report),
        _ => (report.to_owned(), remedy::of(Code::RelayUnreachable)),
    }
}

fn at_proxy(block: &Block, proxy: &Proxy, relay: &str, port: u16, report: &str) -> (String, String) {
    let page = "docs/errors/proxy-refused.md";
    match block {
        Block::Name | Block::Refused | Block::Dropped | Block::NoRoute => (
            format!("the proxy {proxy} itself is not reached: {report}"),
            format!(
                "see that [network] proxy, or the variable HTTPS_PROXY, names the right host and port, and that the proxy runs ({page})"
            ),
        ),
        Block::ProxyScheme(schemes) => {
            let offered = if schemes.is_empty() { "none that it names".to_owned() } else { schemes.join(", ") };
            (
                format!("the proxy wants a login by {offered}, and not by Basic: {report}"),
                format!(
                    "ask the proxy's administrator to let this host reach {relay}:{port} without a login, or to offer Basic; or run a \
                     helper on this host that speaks NTLM or Kerberos (cntlm, px) and name it as [network] proxy ({page})"
                ),
            )
        }
        Block::ProxyLogin => (
            report.to_owned(),
            format!("set proxy_user and proxy_password in [network] to what the proxy's administrator gives ({page})"),
        ),
        Block::Proxy => (
            report.to_owned(),
            format!("ask the proxy's administrator to allow CONNECT to {relay}:{port} from this host ({page})"),
        ),
        Block::Cut => (
            format!("the proxy opens a connection, and then it is cut or nothing comes through: {report}"),
            format!("ask the proxy's administrator to let {relay}:{port} through without looking into it ({page})"),
        ),
        Block::Other => (
            format!("the proxy does not lead to the relay, something else answers: {report}"),
            format!("ask the proxy's administrator to let {relay}:{port} through without looking into it ({page})"),
        ),
        Block::Certificate(shown) => certificate(shown.as_ref(), report),
        _ => (report.to_owned(), format!("ask the proxy's administrator whether it reaches {relay}:{port} ({page})")),
    }
}

fn certificate(shown: Option<&towpath_transport::dial::tls::Shown>, report: &str) -> (String, String) {
    let page = "docs/errors/relay-certificate.md";
    match shown.filter(|shown| !shown.is_self_signed()) {
        Some(shown) => (
            format!("something in between opens TLS, with a certificate that is issued by {}: {report}", shown.issuer),
            format!(
                "have the relay's host taken out of TLS inspection there, or, where the relay has this certificate itself, enrol again ({page})"
            ),
        ),
        None => (
            format!("the certificate is not the one that is pinned: {report}"),
            format!(
                "ask the relay's operator whether its certificate was replaced; if so, enrol again, if not, someone is in between ({page})"
            ),
        ),
    }
}

fn login(enrolment: &Enrolment, identity: &Identity, tried: &[Tried]) -> Check {
    let user = &enrolment.sftp_user;
    let subject = Subject::new("login", "SFTP", format!("logging in as {user} with the key {}", identity.fingerprint()));
    if tried.iter().any(|one| one.came_of_it.is_ok()) {
        return subject.ok("the relay shows a pinned host key and lets this agent in");
    }
    let said_no = tried.iter().find_map(|one| one.came_of_it.as_ref().err().filter(|error| Block::of(*error) == Block::Nothing));
    match said_no {
        Some(error) => {
            let code = code_of(error);
            subject.wrong(code, error.report(), remedy::of(code))
        }
        None => subject.skipped("no way for SSH is open"),
    }
}

fn code_of(error: &StoreError) -> Code {
    StoreError::new(error.kind(), "").into_failure(Far::Relay).code()
}

impl Tried {
    /// Whether the relay's own server was reached, whatever it says.
    fn is_open(&self) -> bool {
        match &self.came_of_it {
            Ok(()) => true,
            Err(error) => Block::of(error) == Block::Nothing && error.kind() != StoreErrorKind::HostKeyUnknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath_transport::dial::tls::Shown;

    use super::*;

    #[test]
    fn clocks_that_differ_are_a_warning() {
        use super::super::Outcome;

        assert_eq!(clock(None).outcome, Outcome::Skipped);
        assert_eq!(clock(Some(MAX_CLOCK_SKEW)).outcome, Outcome::Ok);
        let check = clock(Some(-MAX_CLOCK_SKEW - SignedDuration::from_secs(1)));
        assert_eq!((check.outcome, check.code), (Outcome::Warning, Some(Code::ClockSkew)));
        assert!(check.remedy.unwrap().contains("timedatectl set-ntp true"), "{}", check.found);
    }

    #[test]
    fn each_block_names_its_hop_and_what_to_do() {
        let shown = |issuer: &str| Some(Shown { subject: "CN=relay".to_owned(), issuer: issuer.to_owned() });
        for (block, found, todo) in [
            (Block::Name, "has no address", "name server"),
            (Block::Refused, "nothing listens on relay.example port 443, or a firewall refuses", "whether it listens there"),
            (
                Block::Dropped,
                "a firewall drops what goes to relay.example port 443",
                "let TCP from this host to relay.example port 443",
            ),
            (Block::NoRoute, "no route", "gateway"),
            (Block::Cut, "cuts it or swallows", "no inspection"),
            (Block::Other, "is no relay", "captive portal"),
            (Block::Certificate(shown("CN=Inspector")), "issued by CN=Inspector", "taken out of TLS inspection"),
            (Block::Certificate(shown("CN=relay")), "not the one that is pinned", "whether its certificate was replaced"),
            (Block::Certificate(None), "not the one that is pinned", "enrol again"),
            (Block::Unknown, "the report", "relay-unreachable"),
        ] {
            let (said, remedy) = direct(&block, "relay.example", 443, "the report");
            assert!(said.contains(found) && said.contains("the report") && remedy.contains(todo), "{block:?}: {said}; {remedy}");
        }
        let proxy = Proxy::parse("http://user:secret@proxy:3128").unwrap();
        for (block, report, found, todo) in [
            (Block::Refused, "x", "the proxy http://proxy:3128 itself is not reached", "that the proxy runs"),
            (Block::ProxyScheme(vec!["NTLM".to_owned(), "Negotiate".to_owned()]), "x", "a login by NTLM, Negotiate", "cntlm"),
            (Block::ProxyScheme(Vec::new()), "x", "none that it names", "offer Basic"),
            (Block::ProxyLogin, "it answers 407", "407", "set proxy_user"),
            (Block::Proxy, "it answers 403", "403", "allow CONNECT to relay.example:443"),
            (Block::Cut, "x", "nothing comes through", "without looking into it"),
            (Block::Other, "x", "something else answers", "without looking into it"),
            (Block::Certificate(shown("CN=Inspector")), "x", "issued by CN=Inspector", "TLS inspection"),
            (Block::Unknown, "it answers 502", "502", "whether it reaches"),
        ] {
            let (said, remedy) = at_proxy(&block, &proxy, "relay.example", 443, report);
            assert!(said.contains(found) && remedy.contains(todo), "{block:?}: {said}; {remedy}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
