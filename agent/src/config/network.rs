//! `[network]`: the proxy, and the ways to the relay.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_host::{ConfigMistake, SecretText, Spanned};
use towpath_transport::dial::{
    Way,
    settings::{NO_PROXY_WORD, ProxyChoice, ProxySettings},
};

/// The most ways that may be named.
pub const MAX_WAYS: usize = 16;

/// `[network]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(into = "Shown")]
pub struct NetworkConfig {
    /// The proxy for both connections to the relay.
    pub proxy: ProxySettings,
    /// The ways to the relay's SFTP, the best first; empty for the usual ones of the relay's port.
    pub ways: Vec<Way>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Network")]
pub(super) struct RawNetwork {
    /// The proxy out of this network: http://host:3128, socks5://host:1080, or none.
    proxy: Option<Spanned<String>>,
    /// The user at the proxy.
    proxy_user: Option<Spanned<String>>,
    /// Where the user's password is.
    proxy_password: Option<Spanned<SecretText>>,
    /// Ways to the relay's SFTP, the best first, such as ssh:443 and tls:443; the usual ones of the relay's port where it is not said.
    ways: Option<Spanned<Vec<Spanned<String>>>>,
}

impl NetworkConfig {
    /// The ways to a relay whose URL has this port, the best first.
    #[must_use]
    pub fn ways_to(&self, port: u16) -> Vec<Way> {
        if self.ways.is_empty() { Way::usual(port) } else { self.ways.clone() }
    }
}

impl RawNetwork {
    /// The settings, checked; `at` makes a mistake at a place.
    pub(super) fn check(
        self,
        folder: &Path,
        at: impl Fn(Option<std::ops::Range<usize>>, String) -> ConfigMistake,
    ) -> Result<NetworkConfig, ConfigMistake> {
        let text = |value: &'_ Option<Spanned<String>>| value.as_ref().map(|value| value.get_ref().clone());
        let (proxy, user) = (text(&self.proxy), text(&self.proxy_user));
        let password = self.proxy_password.as_ref().map(|password| password.get_ref().text());
        let proxy = ProxySettings::parse(proxy.as_deref(), user.as_deref(), password, folder);
        let proxy = proxy.map_err(|mistake| {
            let place = match mistake.key {
                "proxy_user" => self.proxy_user.as_ref().map(Spanned::span),
                "proxy_password" => self.proxy_password.as_ref().map(Spanned::span),
                _ => self.proxy.as_ref().map(Spanned::span),
            };
            at(place, mistake.problem)
        })?;
        let Some(named) = self.ways else { return Ok(NetworkConfig { proxy, ways: Vec::new() }) };
        let span = Some(named.span());
        let named = named.into_inner();
        if named.is_empty() || named.len() > MAX_WAYS {
            return Err(at(span, format!("there are 1 to {MAX_WAYS} ways; leave `ways` out for the usual ones")));
        }
        let mut ways = Vec::new();
        for text in named {
            let way: Way = text.get_ref().parse().map_err(|error| at(Some(text.span()), format!("{error}")))?;
            if ways.contains(&way) {
                return Err(at(Some(text.span()), format!("{way} is named twice")));
            }
            ways.push(way);
        }
        Ok(NetworkConfig { proxy, ways })
    }
}

/// What `config show` shows: no user and no password that stand in a URL.
#[derive(Serialize)]
struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_password: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ways: Vec<String>,
}

impl From<NetworkConfig> for Shown {
    fn from(network: NetworkConfig) -> Self {
        let proxy = match network.proxy.proxy {
            ProxyChoice::Environment => None,
            ProxyChoice::Direct => Some(NO_PROXY_WORD.to_owned()),
            ProxyChoice::Named(proxy) => Some(proxy.to_string()),
        };
        let ways = network.ways.iter().map(Way::to_string).collect();
        let (proxy_user, password) = network.proxy.login.unzip();
        Self { proxy, proxy_user, proxy_password: password.map(|reference| reference.to_string()), ways }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use towpath_transfer::Secret;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> NetworkConfig {
        Config::parse(&format!("[network]\n{text}"), Path::new("/etc/towpath/agent.toml")).unwrap().network
    }

    fn mistake(text: &str) -> String {
        Config::parse(&format!("[network]\n{text}"), Path::new("agent.toml")).unwrap_err().to_string()
    }

    #[test]
    fn proxy_and_ways_are_read() {
        let network = parse(
            "proxy = \"http://p:3128\"\nproxy_user = \"u\"\nproxy_password = \"file:secret\"\nways = [\"tls:443\", \"ssh:80\"]\n",
        );
        assert_eq!(network.proxy.login, Some(("u".into(), Secret::File(PathBuf::from("/etc/towpath/secret")))));
        let ways: Vec<String> = network.ways_to(8443).iter().map(Way::to_string).collect();
        assert_eq!(ways, ["tls:443", "ssh:80"]);
        assert_eq!(parse("").ways_to(443), Way::usual(443));
        assert_eq!(parse("proxy = \"none\"").proxy.proxy, ProxyChoice::Direct);
    }

    #[test]
    fn the_example_shows_what_can_be_set() {
        let section = crate::config::EXAMPLE.split("[network]\n").nth(1).unwrap().split("\n[").next().unwrap();
        let settings: Vec<&str> =
            section.lines().filter_map(|line| line.strip_prefix("# ").filter(|l| l.contains(" = "))).collect();
        let network = parse(&settings.join("\n"));
        assert_eq!(network.ways, Way::usual(443));
        assert!(network.proxy.login.is_some());
    }

    #[test]
    fn mistakes_have_their_place() {
        for (text, place, word) in [
            ("proxy = \"ftp://p\"\n", "agent.toml:2:9: ", "a proxy looks like"),
            ("proxy = \"http://p\"\nproxy_user = \"u\"\n", "agent.toml:3:14: ", "proxy_password"),
            ("proxy = \"http://p\"\nproxy_user = \"u\"\nproxy_password = \"x\"\n", "agent.toml:4:18: ", "file:PATH"),
            ("ways = []\n", "agent.toml:2:8: ", "1 to 16"),
            ("ways = [\"ssh:443\", \"http:80\"]\n", "agent.toml:2:20: ", "a way is"),
            ("ways = [\"ssh:443\", \"ssh:443\"]\n", "agent.toml:2:20: ", "twice"),
            ("proxi = \"x\"\n", "agent.toml:2:1: ", "did you mean `proxy`?"),
        ] {
            let said = mistake(text);
            assert!(said.starts_with(place) && said.contains(word), "{said}");
        }
        let many: Vec<String> = (1..=17).map(|port| format!("\"ssh:{port}\"")).collect();
        assert!(mistake(&format!("ways = [{}]\n", many.join(","))).contains("1 to 16"));
    }

    #[test]
    fn a_password_in_the_url_is_not_shown() {
        let config = Config::parse("[network]\nproxy = \"http://u:hunter2@p:3128\"\n", Path::new("agent.toml")).unwrap();
        let shown = toml::to_string(&config).unwrap();
        assert!(shown.contains("proxy = \"http://p:3128\"") && !shown.contains("hunter2"), "{shown}");
        assert!(!format!("{config:?}").contains("hunter2"));
        let login = "[network]\nproxy = \"http://p:3128\"\nproxy_user = \"u\"\nproxy_password = \"clear:hunter2\"\n";
        let config = Config::parse(login, Path::new("agent.toml")).unwrap();
        let shown = toml::to_string(&config).unwrap();
        assert!(shown.contains("proxy_password = \"clear:(not shown)\"") && !shown.contains("hunter2"), "{shown}");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
