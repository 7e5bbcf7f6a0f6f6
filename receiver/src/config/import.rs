//! `[import]`: the app database.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use towpath_host::Spanned;
use towpath_host::{
    Bytes, ConfigMistake, SecretText,
    database::{POSTGRES_PORT, Tls},
    secret::secret,
};
use towpath_transfer::{Secret, manifest::Label};

use super::Check;

/// Where tables go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportConfig {
    /// SQLite files below a folder; `import` in the state folder where none is named.
    Sqlite(Option<PathBuf>),
    /// A database of a PostgreSQL server.
    PostgreSql(ServerConfig),
}

/// A database server and the login for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Name or address; a path beginning with `/` is the folder of a Unix socket.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The user.
    pub user: String,
    /// Where the user's password is, if it has one.
    pub password: Option<Secret>,
    /// Whether the connection is encrypted.
    pub tls: Tls,
    /// The certificate authority that the server's certificate is checked against, PEM; the system's where absent.
    pub ca: Option<PathBuf>,
}

/// One flat table for every kind of target: an internally tagged enum would lose the place of a mistake.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawImport {
    #[serde(default)]
    kind: Kind,
    folder: Option<Spanned<PathBuf>>,
    host: Option<Spanned<String>>,
    port: Option<Spanned<u16>>,
    database: Option<Spanned<String>>,
    user: Option<Spanned<String>>,
    password: Option<Spanned<SecretText>>,
    tls: Option<Spanned<Tls>>,
    ca: Option<Spanned<PathBuf>>,
    pub(super) tables: Option<Spanned<Vec<Label>>>,
    pub(super) unpacked_file: Option<Bytes>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Sqlite,
    PostgreSql,
}

impl RawImport {
    /// The settings of one kind that stand here, with their places.
    fn of(&self, kind: Kind) -> Vec<(&'static str, Range<usize>)> {
        fn place<T>(name: &'static str, value: Option<&Spanned<T>>) -> Option<(&'static str, Range<usize>)> {
            value.map(|value| (name, value.span()))
        }
        let settings = match kind {
            Kind::Sqlite => vec![place("folder", self.folder.as_ref())],
            Kind::PostgreSql => vec![
                place("host", self.host.as_ref()),
                place("port", self.port.as_ref()),
                place("database", self.database.as_ref()),
                place("user", self.user.as_ref()),
                place("password", self.password.as_ref()),
                place("tls", self.tls.as_ref()),
                place("ca", self.ca.as_ref()),
            ],
        };
        settings.into_iter().flatten().collect()
    }
}

impl Check<'_> {
    /// The target, checked; `span` is where the section stands, relative paths count from `folder`.
    pub(super) fn import(
        &self,
        raw: RawImport,
        span: Option<&Range<usize>>,
        folder: &Path,
    ) -> Result<ImportConfig, ConfigMistake> {
        let at = |place: Option<Range<usize>>, problem: String| ConfigMistake::at(self.file, self.text, place, problem);
        let (name, other) = match raw.kind {
            Kind::Sqlite => ("sqlite", Kind::PostgreSql),
            Kind::PostgreSql => ("postgresql", Kind::Sqlite),
        };
        if let Some((setting, place)) = raw.of(other).into_iter().next() {
            return Err(at(Some(place), format!("an import of kind \"{name}\" has no `{setting}`")));
        }
        if raw.kind == Kind::Sqlite {
            return Ok(ImportConfig::Sqlite(raw.folder.map(|import| folder.join(import.into_inner()))));
        }
        let needs = |what: &str| at(span.cloned(), format!("an import of kind \"postgresql\" needs {what}"));
        let tls = raw.tls.map(Spanned::into_inner).unwrap_or_default();
        if let Some(ca) = raw.ca.as_ref().filter(|_| tls != Tls::Verify) {
            return Err(at(Some(ca.span()), "a `ca` has an effect only with tls = \"verify\"".to_owned()));
        }
        Ok(ImportConfig::PostgreSql(ServerConfig {
            host: raw.host.map_or_else(|| "localhost".to_owned(), Spanned::into_inner),
            port: raw.port.map_or(POSTGRES_PORT, Spanned::into_inner),
            database: raw.database.ok_or_else(|| needs("`database`"))?.into_inner(),
            user: raw.user.ok_or_else(|| needs("`user`, one that owns what Towpath makes and nothing else"))?.into_inner(),
            password: secret(raw.password, folder, &at)?,
            tls,
            ca: raw.ca.map(|ca| folder.join(ca.into_inner())),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(import: &str) -> Result<ImportConfig, String> {
        let text = format!("[import]\n{import}");
        Config::parse(&text, Path::new("/etc/towpath/receiver.toml")).map(|config| config.import).map_err(|e| e.to_string())
    }

    #[test]
    fn a_server_has_defaults() {
        let server = ServerConfig {
            host: "localhost".into(),
            port: 5432,
            database: "app".into(),
            user: "towpath".into(),
            password: None,
            tls: Tls::Prefer,
            ca: None,
        };
        let least = "kind = \"postgresql\"\ndatabase = \"app\"\nuser = \"towpath\"\n";
        assert_eq!(parse(least).unwrap(), ImportConfig::PostgreSql(server.clone()));
        let whole = format!(
            "{least}host = \"db\"\nport = 6432\npassword = \"file:pw\"\ntls = \"verify\"\nca = \"ca.pem\"\ntables = [\"t\"]\n"
        );
        let server = ServerConfig {
            host: "db".into(),
            port: 6432,
            password: Some(Secret::File("/etc/towpath/pw".into())),
            tls: Tls::Verify,
            ca: Some("/etc/towpath/ca.pem".into()),
            ..server
        };
        assert_eq!(parse(&whole).unwrap(), ImportConfig::PostgreSql(server));
        assert_eq!(parse("").unwrap(), ImportConfig::Sqlite(None));
        assert_eq!(parse("kind = \"sqlite\"\nfolder = \"d\"\n").unwrap(), ImportConfig::Sqlite(Some("/etc/towpath/d".into())));
    }

    #[test]
    fn mistakes_have_their_place() {
        let server = "kind = \"postgresql\"\ndatabase = \"app\"\nuser = \"towpath\"\n";
        for (import, told) in [
            ("host = \"db\"\n".to_owned(), ":2:8: an import of kind \"sqlite\" has no `host`"),
            (format!("{server}folder = \"d\"\n"), ":5:10: an import of kind \"postgresql\" has no `folder`"),
            ("kind = \"postgresql\"\nuser = \"u\"\n".to_owned(), "needs `database`"),
            ("kind = \"postgresql\"\ndatabase = \"d\"\n".to_owned(), "needs `user`"),
            (format!("{server}password = \"secret\"\n"), ":5:12: a secret is \"file:PATH\""),
            (format!("{server}ca = \"ca.pem\"\n"), ":5:6: a `ca` has an effect only"),
            (format!("{server}port = 65536\n"), ":5:8: "),
            ("kind = \"postgres\"\n".to_owned(), "did you mean `postgresql`?"),
        ] {
            let said = parse(&import).unwrap_err();
            assert!(said.contains(told), "{said}");
        }
    }
}
