//! The configuration file: TOML, every key known, every mistake with its place. The example is the defaults, as a test
//! holds.

mod exports;
mod import;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use towpath_host::Spanned;
use towpath_host::{Bytes, ConfigMistake, LogConfig, Pause, SecretText, SshSection, config, secret};
use towpath_transfer::{Failure, Secret, manifest::Label};
use towpath_transport::dial::settings::ProxySettings;

use self::import::RawImport;
pub use self::import::{ImportConfig, ServerConfig};
use crate::{
    agents::TrustPolicy,
    downlink::{receipt::SHORTEST_POLL, watch::ExportFolder},
    enrolment::parse_landing,
    landing::LandingLimits,
    parts::{Limits, TableFilter},
};

/// A commented configuration file with every default.
pub const EXAMPLE: &str = include_str!("example.toml");
/// The most tables that may be named.
pub const MAX_TABLES: usize = 10_000;
/// The most often the landing may be looked at.
pub const LEAST_SCAN: Duration = Duration::from_millis(100);
/// What stands for no landing of our own.
const NO_LISTEN: &str = "none";

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How agents come to be believed.
    pub trust: TrustPolicy,
    /// The state folder, where the file names one.
    pub state: Option<PathBuf>,
    /// How much is logged, and where besides.
    pub log: LogConfig,
    /// The proxy for the relay's web service.
    pub proxy: ProxySettings,
    /// Where the landing listens; `None` where another SFTP server writes into its folder.
    pub listen: Option<String>,
    /// How the relay reaches the landing.
    pub advertise: Option<(String, u16)>,
    /// How often the landing is looked at.
    pub scan: Duration,
    /// What may lie on the landing.
    pub landing: LandingLimits,
    /// SSH logins and sessions of the landing.
    pub ssh: SshSection,
    /// Where tables go.
    pub import: ImportConfig,
    /// Which tables are imported.
    pub tables: TableFilter,
    /// The folders that are watched for return files.
    pub exports: Vec<ExportFolder>,
    /// The other limits.
    pub limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    #[serde(default)]
    trust: TrustPolicy,
    #[serde(default)]
    state: RawState,
    #[serde(default)]
    log: LogConfig,
    #[serde(default)]
    network: RawNetwork,
    #[serde(default)]
    landing: RawLanding,
    #[serde(default)]
    ssh: SshSection,
    import: Option<Spanned<RawImport>>,
    #[serde(default)]
    quarantine: RawQuarantine,
    #[serde(default)]
    send: RawSend,
    #[serde(default, rename = "export")]
    exports: Vec<Spanned<exports::RawExport>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawState {
    folder: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    proxy: Option<Spanned<String>>,
    proxy_user: Option<Spanned<String>>,
    proxy_password: Option<Spanned<SecretText>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLanding {
    listen: Option<Spanned<String>>,
    advertise: Option<Spanned<String>>,
    scan: Option<Spanned<Pause>>,
    reserve: Option<Bytes>,
    transfers: Option<Spanned<usize>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSend {
    file: Option<Bytes>,
    open: Option<Spanned<usize>>,
    poll: Option<Spanned<Pause>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQuarantine {
    transfers: Option<Spanned<usize>>,
    size: Option<Bytes>,
}

impl Config {
    /// The defaults, as without a file.
    ///
    /// # Errors
    /// None that a released program has: the empty text is a configuration.
    pub fn defaults() -> Result<Self, Failure> {
        Ok(Self::parse("", Path::new("(defaults)"))?)
    }

    /// Reads `file`. Relative paths in it count from its folder.
    ///
    /// # Errors
    /// `config-missing` where there is no such file, `config-invalid` with line and column where it has a mistake.
    pub fn read(file: &Path) -> Result<Self, Failure> {
        Ok(Self::parse(&config::read_text(file)?, file)?)
    }

    /// As [`Config::read`], for a person who asks what is wrong: every mistake is told, on standard error or as JSON on standard output.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn checked(file: &Path, json: bool) -> Result<Self, Failure> {
        config::checked(file, EXAMPLE, json, &|text| Self::parse(text, file))
    }

    /// What is allowed and better done otherwise. No password is in it.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let clear = self.secrets().filter(|(_, secret)| secret.is_clear());
        let told = |(setting, _): (&str, _)| {
            format!(
                "{setting} stands in the configuration itself (\"clear:\"); put it into a file of its own and write \"file:PATH\""
            )
        };
        clear.map(told).collect()
    }

    /// What only the service can look at.
    #[must_use]
    pub fn unseen(&self) -> Vec<String> {
        let remedy = "its log says so where it cannot be used (journalctl -u towpath-receiver)";
        secret::unseen(self.secrets(), remedy)
    }

    /// Every reference to a password, with the setting it belongs to.
    fn secrets(&self) -> impl Iterator<Item = (&'static str, &Secret)> {
        let database = match &self.import {
            ImportConfig::PostgreSql(server) => server.password.as_ref(),
            ImportConfig::Sqlite(_) => None,
        };
        let proxy = self.proxy.login.as_ref().map(|(_, secret)| secret);
        [("[import] password", database), ("[network] proxy_password", proxy)]
            .into_iter()
            .filter_map(|(setting, secret)| Some((setting, secret?)))
    }

    /// Reads the text of a configuration file; `file` names it in mistakes, and its folder resolves relative paths.
    ///
    /// # Errors
    /// The first [`ConfigMistake`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigMistake> {
        let raw: RawConfig = config::parse(text, file)?;
        let check = Check { file, text };
        let folder = file.parent().unwrap_or(Path::new(""));
        let (defaults, landing) = (Limits::default(), LandingLimits::default());
        let transfers = check.count(raw.landing.transfers, landing.transfers)?;
        let section = raw.import.as_ref().map(Spanned::span);
        let mut import = raw.import.map(Spanned::into_inner).unwrap_or_default();
        let (tables, unpacked_file) = (import.tables.take(), import.unpacked_file.take());
        let offered = "a landing offers its Ed25519 host key alone, which every relay knows";
        let mut ssh = raw.ssh.check();
        if ssh.is_ok() && raw.ssh.ecdsa_host_key {
            ssh = Err((["ssh", "ecdsa_host_key"], offered.to_owned()));
        }
        ssh.map_err(|(place, why)| ConfigMistake::at(file, text, config::place(text, &place), why))?;
        let advertise = raw.landing.advertise.map(|text| check.advertise(&text)).transpose()?;
        Ok(Self {
            trust: raw.trust,
            state: raw.state.folder.map(|state| folder.join(state)),
            log: raw.log.resolved(folder),
            proxy: check.proxy(&raw.network, folder)?,
            listen: check.listen(raw.landing.listen)?,
            advertise,
            scan: check.scan(raw.landing.scan)?,
            landing: LandingLimits {
                reserve_bytes: raw.landing.reserve.map_or(landing.reserve_bytes, |amount| amount.0),
                transfers,
                ..landing
            },
            ssh: raw.ssh,
            import: check.import(import, section.as_ref(), folder)?,
            tables: check.tables(tables)?,
            exports: check.exports(raw.exports, folder)?,
            limits: Limits {
                unpacked_file_bytes: unpacked_file.map_or(defaults.unpacked_file_bytes, |amount| amount.0),
                quarantined_transfers: check.count(raw.quarantine.transfers, defaults.quarantined_transfers)?,
                quarantined_bytes: raw.quarantine.size.map_or(defaults.quarantined_bytes, |amount| amount.0),
                landed_transfers: transfers,
                export_file_bytes: raw.send.file.map_or(defaults.export_file_bytes, |amount| amount.0),
                open_exports: check.count(raw.send.open, defaults.open_exports)?,
                receipt_poll: check.poll(raw.send.poll, defaults.receipt_poll)?,
            },
        })
    }
}

struct Check<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Check<'_> {
    fn at<T>(&self, value: &Spanned<T>, problem: impl Into<String>) -> ConfigMistake {
        ConfigMistake::at(self.file, self.text, Some(value.span()), problem)
    }

    fn count(&self, raw: Option<Spanned<usize>>, default: usize) -> Result<usize, ConfigMistake> {
        const MOST: usize = 10_000;
        match raw {
            None => Ok(default),
            Some(value) if (1..=MOST).contains(value.get_ref()) => Ok(value.into_inner()),
            Some(value) => Err(self.at(&value, format!("this must be 1 to {MOST}"))),
        }
    }

    fn proxy(&self, raw: &RawNetwork, folder: &Path) -> Result<ProxySettings, ConfigMistake> {
        let text = |value: &'_ Option<Spanned<String>>| value.as_ref().map(|value| value.get_ref().clone());
        let (proxy, user) = (text(&raw.proxy), text(&raw.proxy_user));
        let password = raw.proxy_password.as_ref().map(|password| password.get_ref().text());
        let parsed = ProxySettings::parse(proxy.as_deref(), user.as_deref(), password, folder);
        parsed.map_err(|mistake| {
            let place = match mistake.key {
                "proxy_user" => raw.proxy_user.as_ref().map(Spanned::span),
                "proxy_password" => raw.proxy_password.as_ref().map(Spanned::span),
                _ => raw.proxy.as_ref().map(Spanned::span),
            };
            ConfigMistake::at(self.file, self.text, place, mistake.problem)
        })
    }

    fn listen(&self, raw: Option<Spanned<String>>) -> Result<Option<String>, ConfigMistake> {
        let Some(value) = raw else { return Ok(Some("0.0.0.0:2222".to_owned())) };
        if value.get_ref() == NO_LISTEN {
            return Ok(None);
        }
        if value.get_ref().parse::<std::net::SocketAddr>().is_err() {
            return Err(self.at(&value, "this must be an address and a port, such as \"0.0.0.0:2222\", or \"none\""));
        }
        Ok(Some(value.into_inner()))
    }

    fn advertise(&self, value: &Spanned<String>) -> Result<(String, u16), ConfigMistake> {
        parse_landing(value.get_ref()).map_err(|failure| self.at(value, failure.message()))
    }

    fn scan(&self, raw: Option<Spanned<Pause>>) -> Result<Duration, ConfigMistake> {
        match raw {
            None => Ok(crate::service::ServiceSettings::default().scan),
            Some(value) if value.get_ref().0 >= LEAST_SCAN => Ok(value.into_inner().0),
            Some(value) => Err(self.at(&value, "scan must be at least 100ms")),
        }
    }

    fn poll(&self, raw: Option<Spanned<Pause>>, default: Duration) -> Result<Duration, ConfigMistake> {
        match raw {
            None => Ok(default),
            Some(value) if value.get_ref().0 >= SHORTEST_POLL => Ok(value.into_inner().0),
            Some(value) => Err(self.at(&value, format!("poll must be at least {}ms", SHORTEST_POLL.as_millis()))),
        }
    }

    fn tables(&self, raw: Option<Spanned<Vec<Label>>>) -> Result<TableFilter, ConfigMistake> {
        let Some(value) = raw else { return Ok(TableFilter::All) };
        if value.get_ref().len() > MAX_TABLES {
            return Err(self.at(&value, format!("there are more than {MAX_TABLES} tables")));
        }
        if value.get_ref().is_empty() {
            return Err(self.at(&value, "no table could be imported; leave `tables` out to import every table"));
        }
        Ok(TableFilter::Named(value.into_inner().iter().map(|name| name.as_str().to_owned()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::Code;

    use super::*;
    use crate::downlink::watch::Complete;

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("/etc/towpath/receiver.toml")).unwrap()
    }

    fn mistake(text: &str) -> String {
        Config::parse(text, Path::new("receiver.toml")).unwrap_err().to_string()
    }

    #[test]
    fn the_example_is_the_defaults() {
        assert_eq!(parse(EXAMPLE), parse(""));
        for key in ["trust", "listen", "scan", "reserve", "transfers", "unpacked_file", "file", "open", "poll"] {
            assert!(EXAMPLE.lines().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
        }
        // What is commented out is understood too.
        let all: String = EXAMPLE
            .lines()
            .map(|line| {
                line.strip_prefix("# ")
                    .filter(|rest| !rest.starts_with(' ') && (rest.contains(" = ") || rest.starts_with("[[")))
                    .unwrap_or(line)
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let config = parse(&all);
        assert_eq!(config.advertise, Some(("app.example.com".to_owned(), 2222)));
        assert_eq!(config.tables, TableFilter::Named(vec!["items".into(), "sales".into()]));
        assert_eq!(config.import, ImportConfig::Sqlite(Some(PathBuf::from("/srv/app/data"))));
        // The settings of the other kind of app database are further in.
        let all = EXAMPLE.replace("kind = \"sqlite\"", "kind = \"postgresql\"").replace("\n#   ", "\n").replace("\n\"", "\n# \"");
        let ImportConfig::PostgreSql(server) = parse(&all.replace("tls = \"prefer\"", "tls = \"verify\"")).import else {
            panic!("no server")
        };
        assert_eq!((&*server.database, server.port), ("app", 5432));
        assert_eq!(server.ca, Some(PathBuf::from("/etc/towpath/db-ca.pem")));
        let example = ExportFolder {
            folder: "/srv/app/export".into(),
            kind: "recommended-orders".parse().unwrap(),
            agent: Some("erp".parse().unwrap()),
            job: "main".parse().unwrap(),
            complete: Complete::Stable(Duration::from_secs(10)),
        };
        assert_eq!(config.exports, [example]);
    }

    #[test]
    fn every_documented_piece_loads() {
        let pages = include_str!("../../../docs/operations.md");
        let pieces: Vec<&str> =
            pages.split("```toml receiver\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
        assert!(!pieces.is_empty());
        for piece in pieces {
            assert_ne!(parse(piece), parse(""), "{piece}");
        }
    }

    #[test]
    fn relative_paths_count_from_the_file() {
        let config = parse("[state]\nfolder = \"s\"\n[import]\nfolder = \"i\"\n[landing]\nlisten = \"none\"\n");
        assert_eq!(config.state.as_deref(), Some(Path::new("/etc/towpath/s")));
        assert_eq!(config.import, ImportConfig::Sqlite(Some(PathBuf::from("/etc/towpath/i"))));
        assert_eq!(config.listen, None);
    }

    #[test]
    fn mistakes_have_place_and_suggestion() {
        let said = mistake("trust = \"approve\"\n[landing]\nlisen = \"x\"\n");
        assert!(said.starts_with("receiver.toml:3:1: unknown field `lisen`"), "{said}");
        assert!(said.ends_with("did you mean `listen`?"), "{said}");
        assert!(mistake("trust = \"aprove\"\n").contains("did you mean `approve`?"));
        for (text, place) in [
            ("[landing]\nlisten = \"2222\"\n", "receiver.toml:2:10: "),
            ("[network]\nproxy = \"ftp://p\"\n", "receiver.toml:2:9: "),
            ("[network]\nproxy = \"http://p\"\nproxy_user = \"u\"\n", "receiver.toml:3:14: "),
            ("[network]\nproxy = \"http://p\"\nproxy_password = \"env:X\"\n", "receiver.toml:3:18: "),
            ("[landing]\nadvertise = \"host\"\n", "receiver.toml:2:13: "),
            ("[landing]\nscan = \"1ms\"\n", "receiver.toml:2:8: "),
            ("[landing]\ntransfers = 0\n", "receiver.toml:2:13: "),
            ("[quarantine]\ntransfers = 10001\n", "receiver.toml:2:13: "),
            ("[landing]\nreserve = \"much\"\n", "receiver.toml:2:11: "),
            ("[send]\nopen = 0\n", "receiver.toml:2:8: "),
            ("[send]\npoll = \"1ms\"\n", "receiver.toml:2:8: "),
            ("[import]\ntables = []\n", "receiver.toml:2:10: "),
        ] {
            assert!(mistake(text).starts_with(place), "{}", mistake(text));
        }
        let many: Vec<String> = (0..=MAX_TABLES).map(|n| format!("\"t{n}\"")).collect();
        assert!(mistake(&format!("[import]\ntables = [{}]\n", many.join(","))).contains("more than 10000 tables"));
    }

    #[test]
    fn a_password_in_clear_is_warned_of_and_never_shown() {
        let text = "[network]\nproxy = \"http://p:1\"\nproxy_user = \"u\"\nproxy_password = \"clear:hunter2\"\n\
                    [import]\nkind = \"postgresql\"\ndatabase = \"d\"\nuser = \"u\"\npassword = \"clear:hunter2\"\n";
        let config = parse(text);
        assert_eq!(config.warnings().len(), 2);
        assert!(!format!("{config:?}{:?}", config.warnings()).contains("hunter2"));
        assert!(parse(EXAMPLE).warnings().is_empty());
        for bad in ["\"hunter2\"", "hunter2", "[\"hunter2\"]"] {
            assert!(!mistake(&text.replace("\"clear:hunter2\"", bad)).contains("hunter2"));
        }
    }

    #[test]
    fn a_password_that_only_the_service_sees_is_told() {
        let text = "[network]\nproxy = \"http://p:1\"\nproxy_user = \"u\"\nproxy_password = \"systemd:proxy\"\n\
                    [import]\nkind = \"postgresql\"\ndatabase = \"d\"\nuser = \"u\"\npassword = \"systemd:app\"\n";
        let told = parse(text).unseen();
        assert!(told[0].starts_with("[import] password (systemd:app) was not looked at: "), "{told:?}");
        assert!(told[1].starts_with("[network] proxy_password (systemd:proxy) ") && told.len() == 2, "{told:?}");
        assert!(parse(&text.replace("systemd:", "file:")).unseen().is_empty());
    }

    #[test]
    fn every_mistake_is_told() {
        let text = "trust = \"aprove\"\n[landing]\nscan = \"1ms\"\nport = 1\n[import]\nkind = \"postgresql\"\ndatabase = \"d\"\n[[export]]\nfolder = \"\"\nkind = \"k\"\n";
        let read = |text: &str| Config::parse(text, Path::new("receiver.toml"));
        let told = config::every_mistake(text, Path::new("receiver.toml"), EXAMPLE, &read).unwrap_err();
        let places: Vec<_> = told.iter().map(|mistake| (mistake.line, mistake.column)).collect();
        assert_eq!(places, [(1, 9), (3, 8), (4, 1), (5, 1), (9, 10)], "{told:#?}");
    }

    #[test]
    fn a_file_may_be_missing_and_the_example_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("receiver.toml");
        assert_eq!(Config::read(&file).unwrap_err().code(), Code::ConfigMissing);
        std::fs::write(&file, EXAMPLE).unwrap();
        assert_eq!(Config::read(&file).unwrap(), Config::defaults().unwrap());
    }
}
