//! `[job.source]`: where a job's rows come from.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use towpath_host::{ConfigMistake, SecretText, Spanned, secret::secret};
use towpath_transfer::Secret;

use super::time::{self, Long};
pub use towpath_host::database::{POSTGRES_PORT, Tls};

/// How long a source waits for a locked database unless the job says otherwise.
pub const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one statement may take unless the job says otherwise.
pub const DEFAULT_STATEMENT_TIMEOUT: Duration = Duration::from_secs(3_600);
/// How long a dropped file must not have changed to be whole unless the job says otherwise.
pub const DEFAULT_STABLE_FOR: Duration = Duration::from_secs(10);
/// What the name of a marker has after the name of its file unless the job says otherwise.
pub const DEFAULT_MARKER_SUFFIX: &str = ".ready";
/// The folder in a folder of dropped files into which they go unless the job says otherwise.
pub const DEFAULT_ARCHIVE: &str = "archive";
/// The port of MariaDB and MySQL.
pub const MYSQL_PORT: u16 = 3306;

/// Where a job's rows come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum SourceConfig {
    /// An SQLite database file.
    Sqlite {
        /// The file; a relative path counts from the configuration file's folder.
        path: PathBuf,
        /// How long to wait for a lock; [`DEFAULT_BUSY_TIMEOUT`] where absent.
        #[serde(with = "time::optional_duration", skip_serializing_if = "Option::is_none")]
        busy_timeout: Option<Duration>,
    },
    /// A PostgreSQL server.
    PostgreSql(ServerConfig),
    /// A MariaDB or MySQL server.
    MariaDb(ServerConfig),
    /// Anything with an ODBC driver.
    Odbc(OdbcConfig),
    /// A folder into which the ERP puts CSV files.
    Files(FolderConfig),
}

/// A database server and the login for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerConfig {
    /// Name or address; a path beginning with `/` is a Unix socket (for PostgreSQL the folder it lies in).
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The user.
    pub user: String,
    /// Where the user's password is, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "reference")]
    pub password: Option<Secret>,
    /// Whether the connection is encrypted.
    pub tls: Tls,
    /// The certificate authority that the server's certificate is checked against, PEM; the system's where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How long one statement may take.
    #[serde(with = "time::duration")]
    pub statement_timeout: Duration,
}

/// A connection by ODBC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OdbcConfig {
    /// The connection string, without the password.
    pub connection: String,
    /// The user, added as `UID`, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where the user's password is; added as `PWD`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "reference")]
    pub password: Option<Secret>,
    /// The isolation that is asked for.
    pub isolation: OdbcIsolation,
    /// How long one statement may take.
    #[serde(with = "time::duration")]
    pub statement_timeout: Duration,
}

/// The isolation that an ODBC source asks its database for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OdbcIsolation {
    /// The best that the database has without locks that its writers wait for: `SNAPSHOT` on SQL Server where it is allowed, else
    /// repeatable read where that is a snapshot, else read committed.
    #[default]
    Best,
    /// `SNAPSHOT` of SQL Server; an error where it is not allowed.
    Snapshot,
    /// Serializable; on databases that lock, the ERP's writers wait.
    Serializable,
    /// Repeatable read.
    RepeatableRead,
    /// Read committed: the tables need not fit each other, and the manifest says so.
    ReadCommitted,
}

/// A folder of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FolderConfig {
    /// The folder; it must exist.
    pub folder: PathBuf,
    /// When a file is whole.
    #[serde(flatten)]
    pub complete: Complete,
    /// Where files go once the app has them; `archive` in the folder where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<PathBuf>,
}

/// When a dropped file is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "complete", rename_all = "lowercase")]
pub enum Complete {
    /// When neither its length nor its time of change has changed for so long.
    Stable {
        /// For how long.
        #[serde(with = "time::duration")]
        stable_for: Duration,
    },
    /// When a second file of its name with this suffix is there.
    Marker {
        /// The suffix.
        marker_suffix: String,
    },
}

fn reference<S: Serializer>(secret: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(ToString::to_string).serialize(to)
}

// One flat table for every kind of source: an internally tagged enum would lose the place of a mistake.
/// Where a job's rows come from.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Source", extend("allOf" = needs()))]
pub(super) struct RawSource {
    /// What it is.
    kind: SourceKind,
    /// For sqlite: the database file.
    path: Option<Spanned<PathBuf>>,
    /// For sqlite: how long to wait when another program has locked the database; 30s where it is not said.
    busy_timeout: Option<Spanned<Long>>,
    /// For postgresql and mariadb: name, address or Unix socket; localhost where it is not said.
    host: Option<Spanned<String>>,
    /// 5432 for PostgreSQL and 3306 for MariaDB where it is not said.
    port: Option<Spanned<u16>>,
    /// For postgresql and mariadb: the database.
    database: Option<Spanned<String>>,
    /// A login that may only read.
    user: Option<Spanned<String>>,
    /// Where its password is.
    password: Option<Spanned<SecretText>>,
    /// Whether the connection is encrypted.
    tls: Option<Spanned<Tls>>,
    /// With tls = verify: the authority that the server's certificate is checked against, PEM.
    ca: Option<Spanned<PathBuf>>,
    /// How long one statement may take; 1h where it is not said.
    statement_timeout: Option<Spanned<Long>>,
    /// For odbc: the connection string, without the password.
    connection: Option<Spanned<String>>,
    /// For odbc: the isolation that is asked for.
    isolation: Option<Spanned<OdbcIsolation>>,
    /// For files: the folder into which the ERP puts them.
    folder: Option<Spanned<PathBuf>>,
    /// For files: when one is whole.
    complete: Option<Spanned<CompleteKind>>,
    /// With complete = stable: for how long a file must not have changed; 10s where it is not said.
    stable_for: Option<Spanned<Long>>,
    /// With complete = marker: what the second file's name has after the file's; .ready where it is not said.
    marker_suffix: Option<Spanned<String>>,
    /// For files: where they go once the app has them, on the same volume.
    archive: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum SourceKind {
    /// An SQLite database file.
    Sqlite,
    /// A PostgreSQL server.
    PostgreSql,
    /// A MariaDB or MySQL server.
    MariaDb,
    /// Anything with an ODBC driver.
    Odbc,
    /// A folder into which the ERP puts CSV files.
    Files,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum CompleteKind {
    /// When neither its length nor its time of change has changed for so long.
    Stable,
    /// When a second file has its name and the suffix.
    Marker,
}

/// What each kind cannot do without, for the schema.
fn needs() -> serde_json::Value {
    let needs = [
        ("sqlite", &["path"][..]),
        ("postgresql", &["database", "user"]),
        ("mariadb", &["database", "user"]),
        ("odbc", &["connection"]),
        ("files", &["folder"]),
    ];
    let rule = |(kind, keys)| serde_json::json!({ "if": { "properties": { "kind": { "const": kind } }, "required": ["kind"] }, "then": { "required": keys } });
    needs.map(rule).into_iter().collect()
}

impl SourceConfig {
    /// The source's kind, as the configuration file names it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::PostgreSql(_) => "postgresql",
            Self::MariaDb(_) => "mariadb",
            Self::Odbc(_) => "odbc",
            Self::Files(_) => "files",
        }
    }
}

pub(super) use towpath_host::secret::At;

/// A setting and where it stands, if it does.
type Place = (&'static str, Range<usize>);

fn duration(long: Spanned<Long>) -> Duration {
    long.into_inner().0
}

impl RawSource {
    /// The source, checked; relative paths count from `folder`, `span` is where the section stands.
    pub(super) fn check(self, span: Range<usize>, folder: &Path, at: At<'_>) -> Result<SourceConfig, ConfigMistake> {
        self.no_foreign_settings(at)?;
        let needs = |what: &str| at(Some(span.clone()), what.to_owned());
        Ok(match self.kind {
            SourceKind::Sqlite => {
                let path = self.path.ok_or_else(|| needs("a source of kind \"sqlite\" needs `path`, the database file"))?;
                SourceConfig::Sqlite { path: folder.join(path.into_inner()), busy_timeout: self.busy_timeout.map(duration) }
            }
            SourceKind::PostgreSql => SourceConfig::PostgreSql(self.server(POSTGRES_PORT, &needs, folder, at)?),
            SourceKind::MariaDb => SourceConfig::MariaDb(self.server(MYSQL_PORT, &needs, folder, at)?),
            SourceKind::Odbc => SourceConfig::Odbc(self.odbc(&needs, folder, at)?),
            SourceKind::Files => SourceConfig::Files(self.files(&needs, folder, at)?),
        })
    }

    /// Refuses settings of other kinds, which would have no effect.
    fn no_foreign_settings(&self, at: At<'_>) -> Result<(), ConfigMistake> {
        fn place<T>(name: &'static str, value: Option<&Spanned<T>>) -> Option<Place> {
            value.map(|value| (name, value.span()))
        }
        let sqlite = [place("path", self.path.as_ref()), place("busy_timeout", self.busy_timeout.as_ref())];
        let server = [
            place("host", self.host.as_ref()),
            place("port", self.port.as_ref()),
            place("database", self.database.as_ref()),
            place("tls", self.tls.as_ref()),
            place("ca", self.ca.as_ref()),
        ];
        let login = [place("user", self.user.as_ref()), place("password", self.password.as_ref())];
        let timeout = [place("statement_timeout", self.statement_timeout.as_ref())];
        let odbc = [place("connection", self.connection.as_ref()), place("isolation", self.isolation.as_ref())];
        let files = [
            place("folder", self.folder.as_ref()),
            place("complete", self.complete.as_ref()),
            place("stable_for", self.stable_for.as_ref()),
            place("marker_suffix", self.marker_suffix.as_ref()),
            place("archive", self.archive.as_ref()),
        ];
        let (kind, foreign): (_, Vec<&[Option<Place>]>) = match self.kind {
            SourceKind::Sqlite => ("sqlite", vec![&server, &login, &timeout, &odbc, &files]),
            SourceKind::PostgreSql => ("postgresql", vec![&sqlite, &odbc, &files]),
            SourceKind::MariaDb => ("mariadb", vec![&sqlite, &odbc, &files]),
            SourceKind::Odbc => ("odbc", vec![&sqlite, &server, &files]),
            SourceKind::Files => ("files", vec![&sqlite, &server, &login, &timeout, &odbc]),
        };
        match foreign.into_iter().flatten().flatten().next() {
            Some((name, span)) => Err(at(Some(span.clone()), format!("a source of kind \"{kind}\" has no `{name}`"))),
            None => Ok(()),
        }
    }

    fn server(
        self,
        port: u16,
        needs: &dyn Fn(&str) -> ConfigMistake,
        folder: &Path,
        at: At<'_>,
    ) -> Result<ServerConfig, ConfigMistake> {
        let tls = self.tls.map(Spanned::into_inner).unwrap_or_default();
        if let Some(ca) = self.ca.as_ref().filter(|_| tls != Tls::Verify) {
            return Err(at(Some(ca.span()), "a `ca` has an effect only with tls = \"verify\"".to_owned()));
        }
        Ok(ServerConfig {
            host: self.host.map_or_else(|| "localhost".to_owned(), Spanned::into_inner),
            port: self.port.map_or(port, Spanned::into_inner),
            database: self.database.ok_or_else(|| needs("a database server needs `database`"))?.into_inner(),
            user: self.user.ok_or_else(|| needs("a database server needs `user`, one that may only read"))?.into_inner(),
            password: secret(self.password, folder, at)?,
            tls,
            ca: self.ca.map(|ca| folder.join(ca.into_inner())),
            statement_timeout: self.statement_timeout.map_or(DEFAULT_STATEMENT_TIMEOUT, duration),
        })
    }

    fn odbc(self, needs: &dyn Fn(&str) -> ConfigMistake, folder: &Path, at: At<'_>) -> Result<OdbcConfig, ConfigMistake> {
        let connection =
            self.connection.ok_or_else(|| needs("a source of kind \"odbc\" needs `connection`, its connection string"))?;
        let has_password = |part: &str| {
            let key = part.split('=').next().unwrap_or_default().trim();
            ["pwd", "password"].iter().any(|name| key.eq_ignore_ascii_case(name))
        };
        if connection.get_ref().split(';').any(has_password) {
            let told =
                "the password does not stand in the connection string: use `password = \"file:PATH\"` or another reference";
            return Err(at(Some(connection.span()), told.to_owned()));
        }
        Ok(OdbcConfig {
            connection: connection.into_inner(),
            user: self.user.map(Spanned::into_inner),
            password: secret(self.password, folder, at)?,
            isolation: self.isolation.map(Spanned::into_inner).unwrap_or_default(),
            statement_timeout: self.statement_timeout.map_or(DEFAULT_STATEMENT_TIMEOUT, duration),
        })
    }

    fn files(self, needs: &dyn Fn(&str) -> ConfigMistake, folder: &Path, at: At<'_>) -> Result<FolderConfig, ConfigMistake> {
        let files = self.folder.ok_or_else(|| needs("a source of kind \"files\" needs `folder`"))?.into_inner();
        let complete = match self.complete.map_or(CompleteKind::Stable, Spanned::into_inner) {
            CompleteKind::Stable => {
                if let Some(suffix) = self.marker_suffix {
                    let told = "`marker_suffix` has an effect only with complete = \"marker\"";
                    return Err(at(Some(suffix.span()), told.to_owned()));
                }
                Complete::Stable { stable_for: self.stable_for.map_or(DEFAULT_STABLE_FOR, duration) }
            }
            CompleteKind::Marker => {
                let suffix = self.marker_suffix.map_or_else(|| DEFAULT_MARKER_SUFFIX.to_owned(), Spanned::into_inner);
                if suffix.is_empty() || suffix.contains(['/', '\\']) {
                    return Err(needs("`marker_suffix` must be the end of a file name"));
                }
                Complete::Marker { marker_suffix: suffix }
            }
        };
        let files = folder.join(files);
        let archive = self.archive.map(|archive| folder.join(archive.into_inner()));
        Ok(FolderConfig { folder: files, complete, archive })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn text(source: &str) -> String {
        format!("[[job]]\nname = \"main\"\n[job.source]\n{source}\n[[job.table]]\nname = \"items\"\n")
    }

    fn source(settings: &str) -> SourceConfig {
        Config::parse(&text(settings), Path::new("/etc/towpath/agent.toml")).unwrap().jobs.remove(0).source
    }

    fn mistake(settings: &str) -> String {
        Config::parse(&text(settings), Path::new("agent.toml")).unwrap_err().to_string()
    }

    #[test]
    fn a_server_has_defaults() {
        let SourceConfig::PostgreSql(server) = source("kind = \"postgresql\"\ndatabase = \"erp\"\nuser = \"reader\"") else {
            panic!("another kind");
        };
        assert_eq!((server.host.as_str(), server.port, server.tls), ("localhost", POSTGRES_PORT, Tls::Prefer));
        assert_eq!((server.password, server.ca, server.statement_timeout), (None, None, DEFAULT_STATEMENT_TIMEOUT));
        let settings = "kind = \"mariadb\"\nhost = \"db\"\ndatabase = \"erp\"\nuser = \"reader\"\npassword = \"file:pw\"\n\
                        tls = \"verify\"\nca = \"ca.pem\"\nstatement_timeout = \"5m\"";
        let SourceConfig::MariaDb(server) = source(settings) else { panic!("another kind") };
        assert_eq!((server.port, server.password), (MYSQL_PORT, Some(Secret::File("/etc/towpath/pw".into()))));
        assert_eq!((server.ca, server.statement_timeout), (Some("/etc/towpath/ca.pem".into()), Duration::from_secs(300)));
    }

    #[test]
    fn odbc_and_files_have_defaults() {
        let SourceConfig::Odbc(odbc) = source("kind = \"odbc\"\nconnection = \"DSN=erp\"") else { panic!("another kind") };
        assert_eq!((odbc.connection.as_str(), odbc.isolation), ("DSN=erp", OdbcIsolation::Best));
        let SourceConfig::Files(files) = source("kind = \"files\"\nfolder = \"drop\"") else { panic!("another kind") };
        assert_eq!(files.folder, Path::new("/etc/towpath/drop"));
        assert_eq!(files.complete, Complete::Stable { stable_for: DEFAULT_STABLE_FOR });
        let marked = "kind = \"files\"\nfolder = \"/drop\"\ncomplete = \"marker\"\narchive = \"done\"";
        let SourceConfig::Files(files) = source(marked) else { panic!("another kind") };
        assert_eq!(files.complete, Complete::Marker { marker_suffix: DEFAULT_MARKER_SUFFIX.to_owned() });
        assert_eq!(files.archive.as_deref(), Some(Path::new("/etc/towpath/done")));
    }

    #[test]
    fn what_has_no_effect_and_passwords_in_clear_are_refused() {
        for (settings, said) in [
            ("kind = \"sqlite\"\npath = \"x\"\nhost = \"y\"", "agent.toml:6:8: a source of kind \"sqlite\" has no `host`"),
            (
                "kind = \"sqlite\"\npath = \"x\"\nstatement_timeout = \"1h\"",
                "agent.toml:6:21: a source of kind \"sqlite\" has no",
            ),
            ("kind = \"odbc\"\nconnection = \"DSN=x\"\nfolder = \"y\"", "\"odbc\" has no `folder`"),
            ("kind = \"files\"\nfolder = \"y\"\nuser = \"x\"", "\"files\" has no `user`"),
            ("kind = \"postgresql\"\nuser = \"x\"", "needs `database`"),
            ("kind = \"postgresql\"\ndatabase = \"x\"", "needs `user`"),
            ("kind = \"mariadb\"\ndatabase = \"x\"\nuser = \"x\"\npassword = \"secret\"", "so that it does not stand here"),
            ("kind = \"mariadb\"\ndatabase = \"x\"\nuser = \"x\"\nca = \"x\"", "only with tls"),
            ("kind = \"odbc\"\nconnection = \"DSN=x; pwd = secret\"", "does not stand in the connection string"),
            ("kind = \"odbc\"", "needs `connection`"),
            ("kind = \"files\"", "needs `folder`"),
            ("kind = \"files\"\nfolder = \"x\"\nmarker_suffix = \".ok\"", "only with complete"),
            ("kind = \"files\"\nfolder = \"x\"\ncomplete = \"marker\"\nmarker_suffix = \"/\"", "end of a file name"),
        ] {
            assert!(mistake(settings).contains(said), "{settings}: {}", mistake(settings));
        }
    }
}
