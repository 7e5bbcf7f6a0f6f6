//! What a set-up has to know.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use towpath_host::{ConfigMistake, Tls, config};
use towpath_transfer::{JobName, public_key::Fingerprint};

use crate::config::Trust;

/// What a set-up has to know. What is absent is asked, or has a default, or is an error where nobody can be asked.
///
/// The answers file is TOML with these names.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answers {
    /// The enrolment code; not needed where the host is enrolled.
    pub code: Option<String>,
    /// The proxy that leads out of the network.
    pub proxy: Option<String>,
    /// The user for the proxy.
    pub proxy_user: Option<String>,
    /// Where the proxy's password is.
    pub proxy_password: Option<String>,
    /// Whom the agent believes to be the receiver.
    pub trust: Option<Trust>,
    /// The receiver's key, as its operator reads it out.
    pub receiver: Option<Fingerprint>,
    /// The job's name.
    pub job: Option<JobName>,
    /// The kind of the source.
    pub source: Option<SourceKind>,
    /// The file of an SQLite database.
    pub path: Option<PathBuf>,
    /// The database server.
    pub host: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// The database.
    pub database: Option<String>,
    /// The login.
    pub user: Option<String>,
    /// Where the login's password is; `none` for a login without one.
    pub password: Option<String>,
    /// Whether the connection to the database is encrypted.
    pub tls: Option<Tls>,
    /// The certificate authority of the database's certificate.
    pub ca: Option<PathBuf>,
    /// The ODBC connection string.
    pub connection: Option<String>,
    /// The folder into which the ERP puts its files.
    pub folder: Option<PathBuf>,
    /// The profile; `none` for none.
    pub profile: Option<String>,
    /// The profile's parameters.
    pub parameters: BTreeMap<String, String>,
    /// The tables; `*` for all.
    pub tables: Vec<String>,
    /// When the job is sent.
    pub schedule: Option<String>,
    /// In which time zone that is meant.
    pub time_zone: Option<String>,
    /// Whether everything is read once before the configuration is written.
    pub dry_run: Option<bool>,
    /// Whether the service is installed and started.
    pub service: Option<bool>,
    /// Whether the first transfer is sent at once.
    pub send: Option<bool>,
}

/// The kinds of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// PostgreSQL.
    #[value(name = "postgresql")]
    PostgreSql,
    /// MariaDB or MySQL.
    #[value(name = "mariadb")]
    MariaDb,
    /// A file of SQLite.
    Sqlite,
    /// SQL Server, Oracle, Db2 and everything else that has an ODBC driver.
    Odbc,
    /// CSV files that the ERP puts into a folder.
    Files,
}

impl SourceKind {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 5] = [Self::PostgreSql, Self::MariaDb, Self::Sqlite, Self::Odbc, Self::Files];

    /// As the configuration file names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PostgreSql => "postgresql",
            Self::MariaDb => "mariadb",
            Self::Sqlite => "sqlite",
            Self::Odbc => "odbc",
            Self::Files => "files",
        }
    }

    /// For people.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::PostgreSql => "PostgreSQL",
            Self::MariaDb => "MariaDB or MySQL",
            Self::Sqlite => "a file of SQLite",
            Self::Odbc => "SQL Server, Oracle, Db2 or another database, by ODBC",
            Self::Files => "CSV files that the ERP puts into a folder",
        }
    }
}

impl Answers {
    /// Reads an answers file. Relative paths in it count from the folder in which the program was started, as on the command line.
    ///
    /// # Errors
    /// The first [`ConfigMistake`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigMistake> {
        config::parse(text, file)
    }

    /// These answers, and those of `other` where there are none here.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            code: self.code.or(other.code),
            proxy: self.proxy.or(other.proxy),
            proxy_user: self.proxy_user.or(other.proxy_user),
            proxy_password: self.proxy_password.or(other.proxy_password),
            trust: self.trust.or(other.trust),
            receiver: self.receiver.or(other.receiver),
            job: self.job.or(other.job),
            source: self.source.or(other.source),
            path: self.path.or(other.path),
            host: self.host.or(other.host),
            port: self.port.or(other.port),
            database: self.database.or(other.database),
            user: self.user.or(other.user),
            password: self.password.or(other.password),
            tls: self.tls.or(other.tls),
            ca: self.ca.or(other.ca),
            connection: self.connection.or(other.connection),
            folder: self.folder.or(other.folder),
            profile: self.profile.or(other.profile),
            parameters: if self.parameters.is_empty() { other.parameters } else { self.parameters },
            tables: if self.tables.is_empty() { other.tables } else { self.tables },
            schedule: self.schedule.or(other.schedule),
            time_zone: self.time_zone.or(other.time_zone),
            dry_run: self.dry_run.or(other.dry_run),
            service: self.service.or(other.service),
            send: self.send.or(other.send),
        }
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("job", &self.job).field("source", &self.source).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_counts_before_the_file() {
        let file =
            Answers::parse("host = \"a\"\nport = 1\ntables = [\"x\"]\n[parameters]\ncompany = \"1\"\n", Path::new("f")).unwrap();
        let line = Answers { host: Some("b".into()), tables: vec!["y".into()], ..Answers::default() };
        let both = line.or(file);
        assert_eq!((both.host.as_deref(), both.port, both.tables.as_slice()), (Some("b"), Some(1), &["y".to_owned()][..]));
        assert_eq!(both.parameters["company"], "1");
    }

    #[test]
    fn the_handbook_shows_answers_that_make_a_configuration() {
        let handbook = include_str!("../../../docs/agent.md");
        let blocks: Vec<&str> =
            handbook.split("```toml answers\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
        assert_eq!(blocks.len(), 1);
        let answers = Answers::parse(blocks[0], Path::new("answers.toml")).unwrap();
        assert_eq!((answers.service, answers.send), (Some(true), Some(false)));
        crate::config::Config::parse(&crate::setup::configuration(&answers, &[]), Path::new("/etc/agent.toml")).unwrap();
    }

    #[test]
    fn a_misspelt_answer_is_told_with_its_place_and_codes_are_not_shown() {
        let mistake = Answers::parse("\nschedul = \"02:00\"\n", Path::new("answers.toml")).unwrap_err().to_string();
        assert!(mistake.starts_with("answers.toml:2:1: ") && mistake.ends_with("did you mean `schedule`?"), "{mistake}");
        let answers =
            Answers { code: Some("towpath1-secret".into()), password: Some("clear:secret".into()), ..Answers::default() };
        assert!(!format!("{answers:?}").contains("secret"));
    }
}
