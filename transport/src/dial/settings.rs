//! What a configuration file says of the proxy, and how that becomes [`Proxies`].

use std::path::Path;

use towpath_transfer::{Code, Failure, Secret, failure::Result, secret::SecretSources};

use super::proxy::{Proxies, Proxy};

/// What stands for no proxy at all, whatever the environment says.
pub const NO_PROXY_WORD: &str = "none";

/// The proxy of a configuration file, its password not read yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// Where to find the proxy.
    pub proxy: ProxyChoice,
    /// The user and where the password is, for a proxy that the file names.
    pub login: Option<(String, Secret)>,
}

/// Where to find the proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ProxyChoice {
    /// In the environment.
    #[default]
    Environment,
    /// There is none.
    Direct,
    /// Here.
    Named(Proxy),
}

/// A mistake in the settings and the key it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsMistake {
    /// `proxy`, `proxy_user` or `proxy_password`.
    pub key: &'static str,
    /// What is wrong.
    pub problem: String,
}

impl ProxySettings {
    /// Reads the three settings; a relative path in `file:…` counts from `folder`.
    ///
    /// # Errors
    /// The first [`SettingsMistake`].
    pub fn parse(
        proxy: Option<&str>,
        user: Option<&str>,
        password: Option<&str>,
        folder: &Path,
    ) -> Result<Self, SettingsMistake> {
        let mistake = |key, problem: &str| SettingsMistake { key, problem: problem.to_owned() };
        let proxy = match proxy {
            None => ProxyChoice::Environment,
            Some(NO_PROXY_WORD) => ProxyChoice::Direct,
            Some(text) => {
                let proxy = Proxy::parse(text).map_err(|why| mistake("proxy", &format!("{why}, or \"{NO_PROXY_WORD}\"")))?;
                ProxyChoice::Named(proxy)
            }
        };
        let login = match (user, password) {
            (None, None) => None,
            (Some(_), None) => return Err(mistake("proxy_user", "a user needs `proxy_password`")),
            (None, Some(_)) => return Err(mistake("proxy_password", "a password needs `proxy_user`")),
            (Some(user), Some(password)) => {
                let ProxyChoice::Named(proxy) = &proxy else {
                    return Err(mistake("proxy_user", "user and password belong to a `proxy` that is named here"));
                };
                // The user is checked here, where its place is known; the password when it is read.
                proxy.clone().with_login(user, "-").map_err(|why| mistake("proxy_user", &why.to_string()))?;
                let secret = Secret::parse(password, folder).map_err(|why| mistake("proxy_password", &why.to_string()))?;
                Some((user.to_owned(), secret))
            }
        };
        Ok(Self { proxy, login })
    }

    /// The proxies, with their passwords read from `sources`.
    ///
    /// # Errors
    /// `config-invalid` where the environment names no proxy that can be used; `secret-unusable` where the password cannot.
    pub fn load(&self, sources: &dyn SecretSources) -> Result<Proxies> {
        let proxy = match &self.proxy {
            ProxyChoice::Environment => return Proxies::from_environment(&|name| sources.variable(name)),
            ProxyChoice::Direct => return Ok(Proxies::direct()),
            ProxyChoice::Named(proxy) => proxy.clone(),
        };
        let Some((user, secret)) = &self.login else { return Ok(Proxies::always(proxy)) };
        let unusable =
            |why: &str| Failure::retry(Code::SecretUnusable, format!("the password of the proxy {proxy} cannot be used: {why}"));
        let password = secret.read(&format!("the password of the proxy {proxy}"), sources)?;
        let with = proxy.clone().with_login(user, &password).map_err(|why| unusable(&why.to_string()))?;
        Ok(Proxies::always(with))
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::secret::MAX_SECRET_FILE_BYTES;

    use super::*;

    fn parse(proxy: Option<&str>, user: Option<&str>, password: Option<&str>) -> Result<ProxySettings, SettingsMistake> {
        ProxySettings::parse(proxy, user, password, Path::new("/etc/towpath"))
    }

    /// One file with this content, and two variables.
    struct Given<'a>(&'a str);

    impl SecretSources for Given<'_> {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "SECRET" || name == "HTTPS_PROXY").then(|| "http://from.environment".to_owned())
        }
        fn file(&self, path: &Path, limit: u64) -> Result<Vec<u8>> {
            assert_eq!((path, limit), (Path::new("/etc/towpath/secret"), MAX_SECRET_FILE_BYTES));
            Ok(self.0.as_bytes().to_vec())
        }
        fn credential(&self, _: &str, _: u64) -> Result<Vec<u8>> {
            Err(Failure::park(Code::SecretUnusable, "there is none"))
        }
        fn unprotect(&self, _: &[u8]) -> Result<Vec<u8>> {
            Err(Failure::park(Code::SecretUnusable, "not on this system"))
        }
    }

    fn load(settings: &ProxySettings, content: &str) -> Result<Proxies> {
        settings.load(&Given(content))
    }

    #[test]
    fn nothing_said_is_the_environment_and_none_is_none() {
        let proxies = load(&parse(None, None, None).unwrap(), "").unwrap();
        assert_eq!(proxies.to("relay", 443).unwrap().to_string(), "http://from.environment:80");
        assert_eq!(load(&parse(Some("none"), None, None).unwrap(), "").unwrap(), Proxies::direct());
    }

    #[test]
    fn a_password_comes_from_a_file_or_the_environment() {
        let expected = |password: &str| Proxies::always(Proxy::parse("http://p:1").unwrap().with_login("u", password).unwrap());
        let from_file = parse(Some("http://p:1"), Some("u"), Some("file:secret")).unwrap();
        for (content, password) in [("pass", "pass"), ("pass\n", "pass"), ("pass\r\n", "pass"), (" p ", " p ")] {
            assert_eq!(load(&from_file, content).unwrap(), expected(password));
        }
        for bad in ["", "\n", "a\nb", "\n\n"] {
            assert_eq!(load(&from_file, bad).unwrap_err().code(), Code::SecretUnusable, "{bad:?}");
        }
        let from_variable = parse(Some("http://p:1"), Some("u"), Some("env:SECRET")).unwrap();
        assert_eq!(load(&from_variable, "").unwrap(), expected("http://from.environment"));
        let missing = parse(Some("http://p:1"), Some("u"), Some("env:OTHER")).unwrap();
        assert!(load(&missing, "").unwrap_err().report().contains("no variable OTHER"));
    }

    #[test]
    fn a_password_in_clear_is_never_shown() {
        let settings = parse(Some("http://p:1"), Some("u"), Some("clear:hunter2")).unwrap();
        assert_eq!(
            load(&settings, "").unwrap(),
            Proxies::always(Proxy::parse("http://p:1").unwrap().with_login("u", "hunter2").unwrap())
        );
        let mistake = parse(Some("http://p:1"), Some("u"), Some("hunter2")).unwrap_err();
        let bad = parse(Some("http://p:1"), Some("u"), Some("clear:hunter2\nx")).unwrap();
        let failed = load(&bad, "").unwrap_err();
        for shown in [format!("{settings:?}"), format!("{mistake:?}"), format!("{:?}{}", failed, failed.report())] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn mistakes_name_their_key() {
        for (proxy, user, password, key) in [
            (Some("ftp://p"), None, None, "proxy"),
            (Some("http://p"), Some("u"), None, "proxy_user"),
            (Some("http://p"), None, Some("env:X"), "proxy_password"),
            (None, Some("u"), Some("env:X"), "proxy_user"),
            (Some("none"), Some("u"), Some("env:X"), "proxy_user"),
            (Some("http://p"), Some("a:b"), Some("env:X"), "proxy_user"),
            (Some("http://p"), Some("u"), Some("secret"), "proxy_password"),
            (Some("http://p"), Some("u"), Some("file:"), "proxy_password"),
        ] {
            assert_eq!(parse(proxy, user, password).unwrap_err().key, key, "{proxy:?} {user:?} {password:?}");
        }
    }
}
