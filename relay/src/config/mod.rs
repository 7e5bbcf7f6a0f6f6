//! The configuration file: TOML, every key known, every mistake with its place. `default.toml` is the defaults, as the
//! test below holds, and what `towpath-relay config example` prints.

mod audit;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use towpath_alert::{AlertConfig, RawAlert};
use towpath_host::{Bytes, ConfigMistake, LogConfig, Pause, config, ssh::Wrong};
use towpath_transfer::{Failure, api::MAX_OFFERS};
use url::Url;

pub use audit::AuditSection;
pub use towpath_host::SshSection;

use crate::{api::WebLimits, downlink::DownlinkSettings, spool::SpoolLimits};

/// The public URL of a relay that was not told its own: only programs on the same machine reach it.
pub const DEFAULT_PUBLIC_URL: &str = "https://localhost";
/// The defaults, commented.
pub const EXAMPLE: &str = include_str!("default.toml");

/// Everything that can be configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses and the public URL.
    pub relay: RelaySection,
    /// How much is logged, and where besides.
    pub log: LogConfig,
    /// Who is told of runs that are late.
    #[serde(skip)]
    pub alert: AlertConfig,
    /// The same as it is written, until it is checked.
    #[serde(rename = "alert")]
    raw_alert: RawAlert,
    /// The certificate.
    pub tls: TlsSection,
    /// How much there may be.
    pub spool: SpoolSection,
    /// The stages.
    pub uplink: UplinkSection,
    /// The way back.
    pub downlink: DownlinkSection,
    /// Enrolment codes.
    pub enrolment: EnrolmentSection,
    /// The audit trail.
    pub audit: AuditSection,
    /// SSH logins and sessions.
    pub ssh: SshSection,
    /// TLS and the web service.
    pub web: WebSection,
}

/// `[relay]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelaySection {
    /// How agents and receivers reach the relay: `https://host[:port]`.
    pub public_url: String,
    /// Addresses that take SSH and TLS, and send who speaks plain HTTP to the public URL.
    pub listen: Vec<SocketAddr>,
    /// The address of `/readyz` and `/metrics`.
    pub admin: SocketAddr,
    /// Where the state lies, where neither `--state` nor the environment say.
    pub state: Option<PathBuf>,
}

/// `[tls]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSection {
    /// PEM file with the certificate and its chain; without one the relay signs its own.
    pub certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub key: Option<PathBuf>,
    /// Whether enrolment codes carry the certificate's pin: always for a self-signed one, and where this says so.
    pub pin: bool,
}

/// `[spool]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolSection {
    /// All tenants together.
    pub limit: Bytes,
    /// One tenant of which nothing else is said.
    pub tenant_limit: Bytes,
    /// What must stay free on the disk.
    pub reserve: Bytes,
    /// Transfers of one agent that are not complete.
    pub open_transfers: usize,
    /// Files of one transfer.
    pub files_per_transfer: usize,
    /// How long a transfer's files stay after its end.
    pub retention: Pause,
    /// How long a transfer that is never completed may lie untouched.
    pub abandoned: Pause,
}

/// `[uplink]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UplinkSection {
    /// Transfers accepted at once.
    pub accept_at_once: usize,
    /// Transfers forwarded at once.
    pub forward_at_once: usize,
    /// Transfers of one tenant forwarded at once.
    pub forward_per_tenant: usize,
    /// Ended transfers that the journal keeps of each tenant of which nothing else is said.
    pub journal_keeps: u64,
}

/// `[downlink]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DownlinkSection {
    /// Transfers fetched at once.
    pub fetch_at_once: usize,
    /// Transfers of one tenant fetched at once.
    pub fetch_per_tenant: usize,
    /// Transfers packed at once.
    pub pack_at_once: usize,
    /// Transfers on their way to one agent.
    pub waiting: usize,
    /// How long a transfer may be queued before that is an alarm.
    pub alarm_after: Pause,
}

/// `[enrolment]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnrolmentSection {
    /// How long a code can be used.
    pub expires: Pause,
}

/// `[web]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSection {
    /// TLS connections at once.
    pub connections: usize,
    /// For the TLS handshake.
    pub handshake: Pause,
    /// The largest body.
    pub body: Bytes,
    /// For one request.
    pub request: Pause,
    /// Requests at once.
    pub requests: usize,
    /// Long polls at once.
    pub polls: usize,
    /// Long polls of one tenant at once.
    pub polls_per_tenant: usize,
    /// Requests of one end at once.
    pub requests_per_end: usize,
    /// Requests of one tenant at once.
    pub requests_per_tenant: usize,
    /// Connections of one end at once.
    pub connections_per_end: usize,
    /// Connections of one tenant at once.
    pub connections_per_tenant: usize,
}

impl Default for RelaySection {
    fn default() -> Self {
        Self {
            public_url: DEFAULT_PUBLIC_URL.to_owned(),
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 443)), SocketAddr::from(([0, 0, 0, 0], 80))],
            admin: SocketAddr::from(([127, 0, 0, 1], 9443)),
            state: None,
        }
    }
}

impl Default for SpoolSection {
    fn default() -> Self {
        Self {
            limit: Bytes::gib(200),
            tenant_limit: Bytes::gib(50),
            reserve: Bytes::gib(2),
            open_transfers: 20,
            files_per_transfer: 10_004,
            retention: Pause::days(7),
            abandoned: Pause::days(14),
        }
    }
}

impl Default for UplinkSection {
    fn default() -> Self {
        Self { accept_at_once: 4, forward_at_once: 64, forward_per_tenant: 8, journal_keeps: 100_000 }
    }
}

impl Default for DownlinkSection {
    fn default() -> Self {
        let settings = DownlinkSettings::default();
        Self {
            fetch_at_once: settings.fetch_at_once,
            fetch_per_tenant: settings.fetch_per_tenant,
            pack_at_once: settings.pack_at_once,
            waiting: settings.waiting,
            alarm_after: Pause(settings.alarm_after),
        }
    }
}

impl Default for EnrolmentSection {
    fn default() -> Self {
        Self { expires: Pause::days(1) }
    }
}

impl Default for WebSection {
    fn default() -> Self {
        let limits = WebLimits::default();
        Self {
            connections: 2_000,
            handshake: Pause(Duration::from_secs(10)),
            body: Bytes(limits.body_bytes as u64),
            request: Pause(limits.request_time),
            requests: limits.requests,
            polls: limits.polls,
            polls_per_tenant: limits.polls_per_tenant,
            requests_per_end: limits.requests_per_end,
            requests_per_tenant: limits.requests_per_tenant,
            connections_per_end: limits.connections_per_end,
            connections_per_tenant: limits.connections_per_tenant,
        }
    }
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// `config-missing`; `config-invalid` with file, line and column.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        Ok(Self::parse(&config::read_text(path)?, path)?)
    }

    /// As [`Config::load`], for a person who asks what is wrong: every mistake is told, on standard error or as JSON on standard output.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn checked(path: &Path, json: bool) -> Result<Self, Failure> {
        config::checked(path, EXAMPLE, json, &|text| Self::parse(text, path))
    }

    /// Reads and checks the text of a configuration; `file` stands for it in messages.
    ///
    /// # Errors
    /// The first [`ConfigMistake`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigMistake> {
        let mut parsed: Self = config::parse(text, file)?;
        parsed.log = parsed.log.resolved(file.parent().unwrap_or(Path::new("")));
        let at = |span, problem: String| ConfigMistake::at(file, text, span, problem);
        let raw_alert = std::mem::take(&mut parsed.raw_alert);
        if let Some(span) = raw_alert.late_after_span() {
            return Err(at(Some(span), "late_after belongs to each agent's configuration".into()));
        }
        parsed.alert = raw_alert.check(file.parent().unwrap_or(Path::new("")), &at)?;
        let wrong = |(place, why): Wrong| ConfigMistake::at(file, text, config::place(text, &place), why);
        parsed.check().map_err(wrong)?;
        Ok(parsed)
    }

    /// What the form alone does not say. The public URL gets its one spelling, because tokens name it.
    fn check(&mut self) -> Result<(), Wrong> {
        self.relay.public_url = public_url(&self.relay.public_url).map_err(|why| (["relay", "public_url"], why))?;
        if self.relay.listen.is_empty() || self.relay.listen.len() > MAX_LISTENERS {
            return Err((["relay", "listen"], format!("`listen` needs 1 to {MAX_LISTENERS} addresses")));
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            let there = if self.tls.key.is_some() { "key" } else { "certificate" };
            return Err((["tls", there], "`certificate` and `key` belong together".to_owned()));
        }
        let (spool, web) = (&self.spool, &self.web);
        for (section, key, is_nothing) in [
            ("spool", "open_transfers", spool.open_transfers == 0),
            ("spool", "files_per_transfer", spool.files_per_transfer == 0),
            ("spool", "limit", spool.limit.0 == 0),
            ("spool", "tenant_limit", spool.tenant_limit.0 == 0),
            ("uplink", "forward_per_tenant", self.uplink.forward_per_tenant == 0),
            ("downlink", "fetch_per_tenant", self.downlink.fetch_per_tenant == 0),
            ("web", "connections", web.connections == 0),
            ("web", "body", web.body.0 == 0),
            ("web", "requests", web.requests == 0),
            ("web", "polls", web.polls == 0),
            ("web", "polls_per_tenant", web.polls_per_tenant == 0),
            ("web", "requests_per_end", web.requests_per_end == 0),
            ("web", "requests_per_tenant", web.requests_per_tenant == 0),
            ("web", "connections_per_end", web.connections_per_end == 0),
            ("web", "connections_per_tenant", web.connections_per_tenant == 0),
        ] {
            if is_nothing {
                return Err(([section, key], format!("`{key}` is at least 1")));
            }
        }
        self.audit.check()?;
        self.ssh.check()?;
        if self.downlink.waiting == 0 || self.downlink.waiting > MAX_OFFERS {
            return Err((["downlink", "waiting"], format!("`waiting` is 1 to {MAX_OFFERS}")));
        }
        Ok(())
    }

    /// What the spool may hold.
    #[must_use]
    pub fn spool_limits(&self) -> SpoolLimits {
        SpoolLimits {
            total_bytes: self.spool.limit.0,
            tenant_bytes: self.spool.tenant_limit.0,
            reserve_bytes: self.spool.reserve.0,
            open_transfers: self.spool.open_transfers,
            files_per_transfer: self.spool.files_per_transfer,
        }
    }

    /// The figures of the way back.
    #[must_use]
    pub fn downlink_settings(&self) -> DownlinkSettings {
        DownlinkSettings {
            fetch_at_once: self.downlink.fetch_at_once,
            fetch_per_tenant: self.downlink.fetch_per_tenant,
            pack_at_once: self.downlink.pack_at_once,
            waiting: self.downlink.waiting,
            alarm_after: self.downlink.alarm_after.0,
        }
    }

    /// What the web service grants.
    #[must_use]
    pub fn web_limits(&self) -> WebLimits {
        WebLimits {
            body_bytes: usize::try_from(self.web.body.0).unwrap_or(usize::MAX),
            request_time: self.web.request.0,
            requests: self.web.requests,
            polls: self.web.polls,
            polls_per_tenant: self.web.polls_per_tenant,
            requests_per_end: self.web.requests_per_end,
            requests_per_tenant: self.web.requests_per_tenant,
            connections_per_end: self.web.connections_per_end,
            connections_per_tenant: self.web.connections_per_tenant,
            ..WebLimits::default()
        }
    }
}

/// The most addresses one relay listens on.
const MAX_LISTENERS: usize = 16;

/// The one spelling of the relay's URL: `https://host[:port]`, lower case, without a slash at its end.
pub(crate) fn public_url(text: &str) -> Result<String, String> {
    let refused = || format!("{text:?} is not the relay's public URL: expected https://host or https://host:port");
    let url = Url::parse(text).map_err(|_| refused())?;
    let plain = url.scheme() == "https"
        && url.host().is_some()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if plain { Ok(url.as_str().trim_end_matches('/').to_owned()) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    use towpath_transfer::{Code, failure::Result};

    fn parse(text: &str) -> Result<Config> {
        Ok(Config::parse(text, Path::new("relay.toml"))?)
    }

    #[test]
    fn the_example_is_the_defaults() {
        assert_eq!(parse(EXAMPLE).unwrap(), Config::default());
        // Every key is there, and not only as a comment, so that the file teaches all of them.
        let table: toml::Table = EXAMPLE.parse().unwrap();
        let keys = table.values().filter_map(toml::Value::as_table).map(toml::Table::len).sum::<usize>();
        assert_eq!(keys, 49);
    }

    #[test]
    fn a_limit_of_nothing_is_a_mistake() {
        for (section, key, nothing) in [
            ("spool", "limit", "\"0GiB\""),
            ("spool", "tenant_limit", "\"0B\""),
            ("spool", "open_transfers", "0"),
            ("spool", "files_per_transfer", "0"),
            ("uplink", "forward_per_tenant", "0"),
            ("downlink", "fetch_per_tenant", "0"),
            ("web", "body", "\"0KiB\""),
            ("web", "connections", "0"),
            ("web", "requests", "0"),
            ("web", "polls", "0"),
            ("web", "polls_per_tenant", "0"),
            ("web", "requests_per_end", "0"),
            ("web", "requests_per_tenant", "0"),
            ("web", "connections_per_end", "0"),
            ("web", "connections_per_tenant", "0"),
        ] {
            let report = parse(&format!("[{section}]\n{key} = {nothing}\n")).unwrap_err().report();
            assert!(report.contains("relay.toml:2:") && report.contains(&format!("`{key}` is at least 1")), "{report}");
        }
    }

    #[test]
    fn a_mistake_is_shown_with_its_place_and_a_guess() {
        let failure = parse("[relay]\n\n[spool]\nlimt = \"5 GiB\"\n").unwrap_err();
        assert_eq!(failure.code(), Code::ConfigInvalid);
        let report = failure.report();
        assert!(report.contains("relay.toml:4:1"), "{report}");
        assert!(report.contains("did you mean `limit`"), "{report}");
        let report = parse("[spool]\nlimit = \"5 Gibs\"\n").unwrap_err().report();
        assert!(report.contains("relay.toml:2:9") && report.contains("GiB"), "{report}");
    }

    #[test]
    fn alerts_are_as_the_agents_without_the_time() {
        let config = parse("[alert]\nprogram = \"tell\"\n").unwrap();
        assert_eq!(config.alert.program.as_deref(), Some(Path::new("tell")));
        let report = parse("[alert]\nlate_after = \"2h\"\n").unwrap_err().report();
        assert!(report.contains("relay.toml:2:14") && report.contains("each agent"), "{report}");
    }

    #[test]
    fn contradictions_are_refused() {
        for bad in [
            "[tls]\ncertificate = \"a.pem\"",
            "[relay]\npublic_url = \"http://x\"",
            "[relay]\npublic_url = \"https://x/y\"",
            "[relay]\nlisten = []",
            "[spool]\nopen_transfers = 0",
            "[downlink]\nwaiting = 0",
            "[downlink]\nwaiting = 1001",
            "[audit]\nkeep = \"29d\"",
            "[audit]\nrows = 999",
            "[ssh]\nframe = \"33KiB\"",
            "[ssh]\nframe = \"257KiB\"",
            "[ssh]\nrefusal = \"2h\"",
        ] {
            assert_eq!(parse(bad).unwrap_err().code(), Code::ConfigInvalid, "{bad}");
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let text = "[relay]\nlisten = []\npublic_ulr = \"x\"\n[spool]\nopen_transfers = 0\n[downlink]\nwaiting = \"5\"\nlimit = \"1GiB\"\n";
        let mistakes = towpath_host::config::every_mistake(text, Path::new("relay.toml"), EXAMPLE, &|text| {
            Config::parse(text, Path::new("relay.toml"))
        });
        let told: Vec<String> = mistakes.unwrap_err().iter().map(ToString::to_string).collect();
        let expected = [
            ("relay.toml:2:10: ", "1 to 16 addresses"),
            ("relay.toml:3:1: ", "did you mean `public_url`?"),
            ("relay.toml:5:18: ", "at least 1"),
            ("relay.toml:7:11: ", "without quotes"),
            ("relay.toml:8:1: ", "`limit` belongs to [spool]"),
        ];
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (told, (place, word)) in told.iter().zip(expected) {
            assert!(told.starts_with(place) && told.contains(word), "{told}");
        }
    }

    #[test]
    fn the_public_url_has_one_spelling() {
        assert_eq!(public_url("HTTPS://Relay.Example:443/").unwrap(), "https://relay.example");
        assert_eq!(public_url("https://127.0.0.1:8443").unwrap(), "https://127.0.0.1:8443");
    }
}
