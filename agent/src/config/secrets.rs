//! The passwords that a configuration refers to, and what is better done otherwise.

use towpath_host::{config::closest, secret};
use towpath_transfer::Secret;
use towpath_transport::dial::settings::ProxyChoice;

use super::{Config, SourceConfig};

impl Config {
    /// Every reference to a password, with the setting it belongs to.
    #[must_use]
    pub fn secrets(&self) -> Vec<(String, &Secret)> {
        let proxy = self.network.proxy.login.iter().map(|(_, secret)| ("[network] proxy_password".to_owned(), secret));
        let sources = self
            .jobs
            .iter()
            .filter_map(|job| Some((format!("[job.source] password of job {:?}", job.name.as_str()), job.source.password()?)));
        let webhook = self.alert.webhook_secret.iter().map(|secret| ("[alert] webhook_secret".to_owned(), secret));
        proxy.chain(webhook).chain(sources).collect()
    }

    /// What only the service can look at: a line for each password that systemd passes to it.
    #[must_use]
    pub fn unseen(&self) -> Vec<String> {
        secret::unseen(self.secrets(), "once it runs, have it look: towpath-agent doctor")
    }

    /// What is allowed and better done otherwise. No password is in it.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = Vec::new();
        for (setting, _) in self.secrets().into_iter().filter(|(_, secret)| secret.is_clear()) {
            warnings.push(format!(
                "{setting} stands in the configuration itself (\"clear:\"), for everybody who reads or copies the file; \
                 put it into a file of its own and write \"file:PATH\""
            ));
        }
        if matches!(&self.network.proxy.proxy, ProxyChoice::Named(proxy) if proxy.has_login()) {
            warnings.push(
                "[network] proxy has a password in its URL, for everybody who reads or copies the file; \
                 use `proxy_user` and `proxy_password`"
                    .to_owned(),
            );
        }
        for delivery in &self.deliveries {
            let Some(job) = delivery.job.as_ref().filter(|job| self.job(job).is_none()) else { continue };
            let meant = closest(job.as_str(), self.jobs.iter().map(|job| job.name.as_str()));
            let meant = meant.map(|meant| format!(" - did you mean `{meant}`?")).unwrap_or_default();
            let (kind, job) = (&delivery.kind, job.as_str());
            warnings.push(format!("[[delivery]] of kind \"{kind}\" is for job {job:?}, and no [[job]] has this name{meant}"));
        }
        warnings
    }
}

impl SourceConfig {
    /// The reference to the password of its login, where it has one.
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        match self {
            Self::PostgreSql(server) | Self::MariaDb(server) => server.password.as_ref(),
            Self::Odbc(odbc) => odbc.password.as_ref(),
            Self::Sqlite { .. } | Self::Files(_) => None,
        }
    }

    /// Whether only the service can read it, because systemd passes the password to that alone.
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        self.password().is_some_and(secret::is_unseen)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, EXAMPLE};

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("/etc/towpath/agent.toml")).unwrap()
    }

    const TABLE: &str = "[[job.table]]\nname = \"t\"\n";

    fn job(name: &str, source: &str) -> String {
        format!("[[job]]\nname = \"{name}\"\n[job.source]\n{source}\n{TABLE}")
    }

    fn all_clear() -> Config {
        let server = "database = \"d\"\nuser = \"u\"\npassword = \"clear:hunter2\"";
        parse(&format!(
            "[network]\nproxy = \"http://x:hunter2@p:1\"\n\
             [alert]\nwebhook = \"https://x.example\"\nwebhook_secret = \"clear:hunter2\"\n{}{}{}",
            job("a", &format!("kind = \"postgresql\"\n{server}")),
            job("b", &format!("kind = \"mariadb\"\n{server}")),
            job("c", "kind = \"odbc\"\nconnection = \"DSN=x\"\npassword = \"clear:hunter2\""),
        ))
    }

    #[test]
    fn passwords_that_stand_in_the_file_are_warned_of_and_shown_nowhere() {
        let config = all_clear();
        let warnings = config.warnings();
        assert_eq!(warnings.len(), 5, "{warnings:#?}");
        assert_eq!(config.secrets().len(), 4);
        let shown = [
            warnings.join("\n"),
            toml::to_string(&config).unwrap(),
            serde_json::to_string(&config).unwrap(),
            format!("{config:?}{config:#?}"),
        ];
        for shown in shown {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert!(parse(EXAMPLE).warnings().is_empty());
    }

    #[test]
    fn passwords_that_only_the_service_sees_are_told() {
        let source = |password: &str| format!("kind = \"odbc\"\nconnection = \"DSN=x\"\npassword = \"{password}\"");
        let config = parse(&format!("{}{}", job("a", &source("systemd:erp")), job("b", &source("file:erp"))));
        let told = config.unseen();
        assert!(told.len() == 1 && told[0].starts_with("[job.source] password of job \"a\" (systemd:erp) "), "{told:#?}");
        assert_eq!(config.jobs.iter().map(|job| job.source.is_unseen()).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn no_mistake_shows_a_password() {
        let source = |password: &str| job("a", &format!("kind = \"odbc\"\nconnection = \"DSN=x\"\npassword = {password}"));
        let network = |line: &str| format!("[network]\nproxy = \"http://p:1\"\nproxy_user = \"u\"\n{line}\n");
        for text in [
            source("\"hunter2\""),
            source("hunter2"),
            source("\"hunter2"),
            source("“hunter2”"),
            source("[\"hunter2\"]"),
            source("\"systemd:/hunter2\""),
            source("\"dpapi:hunter2!\""),
            source("\"C:\\\\hunter2\\qx\""),
            network("proxy_password = \"hunter2\""),
            network("proxy_password = hunter2"),
            network("proxy_pasword = \"hunter2\""),
            "[network]\nproxy = \"ftp://u:hunter2@p\"\n".to_owned(),
            job("a", "kind = \"odbc\"\nconnection = \"DSN=x;PWD=hunter2\""),
            job("a", "kind = \"sqlite\"\npath = \"x\"\npassword = \"clear:hunter2\""),
        ] {
            let mistakes = Config::every_mistake(&text, Path::new("agent.toml")).unwrap_err();
            let shown = format!("{mistakes:?}{}", serde_json::to_string(&mistakes).unwrap());
            let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            assert!(!shown.contains("hunter2") && !told.join("").contains("hunter2"), "{text}\n{shown}");
        }
    }

    #[test]
    fn a_delivery_for_a_job_that_is_not_there_is_warned_of() {
        let delivery = "[[delivery]]\nkind = \"orders\"\njob = \"mian\"\nfolder = \"in\"\n";
        let config = parse(&format!("{}{delivery}", job("main", "kind = \"sqlite\"\npath = \"x\"")));
        assert!(config.warnings()[0].ends_with("did you mean `main`?"), "{:?}", config.warnings());
    }
}
