//! Which proxy leads out of this network to a host: none, a configured one, or what the environment says.

use std::{fmt, net::IpAddr};

use percent_encoding::percent_decode_str;
use thiserror::Error;
use tokio::net::TcpStream;
use towpath_transfer::{Code, Failure, failure::Result};
use url::Url;

use super::{http_connect, no_proxy::NoProxy, socks5};
use crate::store::StoreResult;

/// The longest user name and the longest password, in bytes: SOCKS5 carries no more (RFC 1929).
pub const MAX_CREDENTIAL_BYTES: usize = 255;
/// The longest proxy URL that is read, in bytes.
pub const MAX_PROXY_URL_BYTES: usize = 2048;
/// Variables that name a proxy, the first that is set counting: as curl reads them, for both connections to the relay are
/// tunnels, whatever they carry.
pub const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// Variables that name hosts reached without a proxy, the first that is set counting.
pub const NO_PROXY_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The port of an HTTP proxy whose URL names none.
const HTTP_PORT: u16 = 80;
/// The port of a SOCKS server whose URL names none (RFC 1928 section 3).
const SOCKS_PORT: u16 = 1080;

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP with `CONNECT` (RFC 9110 section 9.3.6).
    Http,
    /// SOCKS version 5 (RFC 1928). Names are resolved by the proxy.
    Socks5,
}

/// A user and a password for a proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user; without a colon, which Basic authentication cannot carry (RFC 7617).
    pub(super) user: String,
    /// The password.
    pub(super) password: String,
}

/// What a proxy answers that wants a user and a password, or others.
#[derive(Debug, Error)]
#[error("it answers {0}")]
pub(super) struct LoginRefused(pub(super) String);

/// One proxy. It is shown without its user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: ProxyKind,
    /// A name or an address, the latter without brackets.
    host: String,
    port: u16,
    login: Option<Login>,
}

/// Text that does not name a proxy. The reason never repeats the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvalidProxy(String);

impl InvalidProxy {
    fn because(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl Proxy {
    /// Whether user and password are known.
    #[must_use]
    pub fn has_login(&self) -> bool {
        self.login.is_some()
    }

    /// Reads `http://[user:password@]host[:port]`, `socks5://…` or `socks5h://…`, or `host:port` for an HTTP proxy.
    ///
    /// # Errors
    /// [`InvalidProxy`] with the reason.
    pub fn parse(text: &str) -> Result<Self, InvalidProxy> {
        const FORM: &str = "a proxy looks like http://host:3128 or socks5://host:1080";
        let text = text.trim();
        if text.len() > MAX_PROXY_URL_BYTES {
            return Err(InvalidProxy::because(format!("a proxy's URL has at most {MAX_PROXY_URL_BYTES} bytes")));
        }
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&text).map_err(|error| InvalidProxy::because(format!("{FORM} ({error})")))?;
        let kind = match url.scheme() {
            "http" => ProxyKind::Http,
            "socks5" | "socks5h" => ProxyKind::Socks5,
            "https" => {
                return Err(InvalidProxy::because(
                    "a proxy that is itself reached over TLS (https://) is not supported: use http:// or socks5://",
                ));
            }
            _ => return Err(InvalidProxy::because(FORM)),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidProxy::because(format!("{FORM}, and ends there")));
        }
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        if !is_host(&host) {
            return Err(InvalidProxy::because(format!("{FORM}: its host name cannot be read")));
        }
        let port = url.port().unwrap_or(match kind {
            ProxyKind::Http => HTTP_PORT,
            ProxyKind::Socks5 => SOCKS_PORT,
        });
        let proxy = Self { kind, host, port, login: None };
        match (url.username(), url.password()) {
            ("", None) => Ok(proxy),
            (user, password) => proxy.with_login(&decoded(user)?, &decoded(password.unwrap_or_default())?),
        }
    }

    /// The same proxy, for a user.
    ///
    /// # Errors
    /// [`InvalidProxy`] where user or password are empty, longer than [`MAX_CREDENTIAL_BYTES`], or have characters that the proxy's
    /// protocol cannot carry.
    pub fn with_login(self, user: &str, password: &str) -> Result<Self, InvalidProxy> {
        for (what, text) in [("user", user), ("password", password)] {
            if text.is_empty() || text.len() > MAX_CREDENTIAL_BYTES {
                return Err(InvalidProxy::because(format!("a proxy's {what} has 1 to {MAX_CREDENTIAL_BYTES} bytes")));
            }
            if text.chars().any(char::is_control) {
                return Err(InvalidProxy::because(format!("a proxy's {what} has no control characters")));
            }
        }
        if self.kind == ProxyKind::Http && user.contains(':') {
            return Err(InvalidProxy::because("the user of an HTTP proxy has no colon"));
        }
        Ok(Self { login: Some(Login { user: user.to_owned(), password: password.to_owned() }), ..self })
    }

    /// User and password, for whoever keeps them where they belong. Never to be shown.
    #[must_use]
    pub fn credentials(&self) -> Option<(&str, &str)> {
        self.login.as_ref().map(|login| (login.user.as_str(), login.password.as_str()))
    }

    /// Its host and port, to be connected to.
    #[must_use]
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// For whom it is asked.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Asks the proxy, over a connection to it, for a tunnel to `host:port`. Not a byte of what comes through the tunnel is read.
    pub(super) async fn open(&self, stream: &mut TcpStream, host: &str, port: u16) -> StoreResult<()> {
        match self.kind {
            ProxyKind::Http => http_connect::open(stream, self, self.login.as_ref(), host, port).await,
            ProxyKind::Socks5 => socks5::open(stream, self, self.login.as_ref(), host, port).await,
        }
    }
}

fn decoded(text: &str) -> Result<String, InvalidProxy> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| InvalidProxy::because("the proxy's user and password are not UTF-8"))
}

fn is_host(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (!text.is_empty() && text.len() <= 255 && text.bytes().all(plain)) || text.parse::<IpAddr>().is_ok()
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ProxyKind::Http => "http",
            ProxyKind::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}", super::authority(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Which proxy leads where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    rule: Rule,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Rule {
    #[default]
    Direct,
    Always(Proxy),
    Unless(Proxy, NoProxy),
}

impl Proxies {
    /// Every host is reached without a proxy.
    #[must_use]
    pub fn direct() -> Self {
        Self::default()
    }

    /// Every host is reached through `proxy`.
    #[must_use]
    pub fn always(proxy: Proxy) -> Self {
        Self { rule: Rule::Always(proxy) }
    }

    /// What the environment says: [`PROXY_VARIABLES`] and [`NO_PROXY_VARIABLES`]. This machine itself is always reached without a
    /// proxy, to which its name would mean another machine.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] where a variable does not name a proxy.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &&str| variable(name).filter(|value| !value.trim().is_empty()).map(|value| ((*name).to_owned(), value));
        let Some((name, value)) = PROXY_VARIABLES.iter().find_map(set) else { return Ok(Self::direct()) };
        let proxy = Proxy::parse(&value)
            .map_err(|why| Failure::park(Code::ConfigInvalid, format!("the environment's {name} cannot be used: {why}")))?;
        let except = NO_PROXY_VARIABLES.iter().find_map(set).map(|(_, value)| NoProxy::parse(&value)).unwrap_or_default();
        Ok(Self { rule: Rule::Unless(proxy, except) })
    }

    /// The proxy that leads to `host:port`; `None` for none.
    #[must_use]
    pub fn to(&self, host: &str, port: u16) -> Option<&Proxy> {
        match &self.rule {
            Rule::Direct => None,
            Rule::Always(proxy) => Some(proxy),
            Rule::Unless(proxy, except) => (!is_this_machine(host) && !except.names(host, port)).then_some(proxy),
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    let name = host.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Proxy::parse(text).unwrap_err().to_string()
    }

    fn environment(variables: &[(&str, &str)]) -> Result<Proxies> {
        let owned: Vec<(String, String)> = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Proxies::from_environment(&move |name| owned.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
    }

    fn leads(proxies: &Proxies, host: &str, port: u16) -> Option<String> {
        proxies.to(host, port).map(ToString::to_string)
    }

    #[test]
    fn proxies_are_read_and_shown_without_their_password() {
        for (text, shown) in [
            ("http://proxy:3128", "http://proxy:3128"),
            ("http://proxy/", "http://proxy:80"),
            ("proxy.example:8080", "http://proxy.example:8080"),
            ("socks5://10.0.0.1", "socks5://10.0.0.1:1080"),
            ("socks5h://proxy:80", "socks5://proxy:80"),
            ("http://[fd00::1]:3128", "http://[fd00::1]:3128"),
            ("socks5://[fd00::1]", "socks5://[fd00::1]:1080"),
            (" http://u:s%40cret@proxy:1 ", "http://proxy:1"),
        ] {
            let proxy = Proxy::parse(text).unwrap();
            assert_eq!(proxy.to_string(), shown, "{text}");
            assert!(!format!("{proxy:?}").contains("cret"));
        }
        let login = Proxy::parse("http://us%25er:s%40cret@proxy:1").unwrap().login.unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("us%er", "s@cret"));
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_the_reason_keeps_the_secret() {
        for text in ["", "http://", "ftp://proxy", "http://proxy/path", "http://proxy?q", "socks4://proxy", "http://pro xy:1"] {
            assert!(refused(text).contains("a proxy looks like"), "{text}: {}", refused(text));
        }
        assert!(refused("socks5://pro%20xy:1").contains("host name"));
        assert!(refused("https://proxy:443").contains("not supported"));
        assert!(refused(&format!("http://{}:1", "p".repeat(MAX_PROXY_URL_BYTES))).contains("at most"));
        for text in ["http://u:hunter2@pro xy", "ftp://u:hunter2@proxy", "http://u:hunter2@proxy/x", "http://u:hunter2%0a@proxy"]
        {
            assert!(!refused(text).contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn user_and_password_have_limits() {
        let login = |user: &str, password: &str| Proxy::parse("http://proxy:1").unwrap().with_login(user, password);
        assert!(login("u", &"p".repeat(MAX_CREDENTIAL_BYTES)).is_ok());
        for (user, password) in
            [("u", "p".repeat(MAX_CREDENTIAL_BYTES + 1)), ("u", String::new()), ("", "p".into()), ("u\r\n", "p".into())]
        {
            assert!(login(user, &password).is_err(), "{user:?}");
        }
        assert!(login("a:b", "p").unwrap_err().to_string().contains("colon"));
        assert!(Proxy::parse("socks5://proxy").unwrap().with_login("a:b", "p").is_ok());
        assert!(refused("http://u@proxy:1").contains("password"));
        assert!(refused("http://%ff:x@proxy:1").contains("UTF-8"));
    }

    #[test]
    fn the_environment_is_read_as_curl_reads_it() {
        let none = environment(&[("HTTP_PROXY", "http://no:1"), ("HTTPS_PROXY", " ")]).unwrap();
        assert_eq!(none, Proxies::direct());
        assert_eq!(leads(&none, "relay", 443), None);
        let all = [("ALL_PROXY", "socks5://d"), ("all_proxy", "socks5://c"), ("HTTPS_PROXY", "b:1"), ("https_proxy", "a:1")];
        for (skip, expected) in ["socks5://d:1080", "socks5://c:1080", "http://b:1", "http://a:1"].iter().enumerate() {
            let found = environment(all.get(..=skip).unwrap()).unwrap();
            assert_eq!(leads(&found, "relay", 443).as_deref(), Some(*expected));
        }
        let except = environment(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", "relay.example")]).unwrap();
        assert_eq!(leads(&except, "relay.example", 443), None);
        assert_eq!(leads(&except, "other.example", 443).as_deref(), Some("http://p:1"));
        let wrong = environment(&[("HTTPS_PROXY", "https://u:hunter2@p")]).unwrap_err();
        assert_eq!(wrong.code(), Code::ConfigInvalid);
        assert!(wrong.message().contains("HTTPS_PROXY") && !wrong.report().contains("hunter2"), "{}", wrong.report());
    }

    #[test]
    fn this_machine_is_reached_without_the_environments_proxy_but_through_a_configured_one() {
        let found = environment(&[("HTTPS_PROXY", "p:1")]).unwrap();
        let configured = Proxies::always(Proxy::parse("http://p:1").unwrap());
        for host in ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1"] {
            assert_eq!(leads(&found, host, 443), None, "{host}");
            assert!(leads(&configured, host, 443).is_some(), "{host}");
        }
    }
}
