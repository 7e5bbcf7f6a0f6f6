//! PostgreSQL.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    PASSWORD, READER, WRITER,
    process::{Running, command, find, folder, free_port, is_root, succeed, unique},
};

/// The user whom root becomes, because PostgreSQL refuses to run as root.
const USER: &str = "postgres";
/// How often another port is tried.
const TRIES: usize = 5;

/// A PostgreSQL server with TLS on loopback, and a Unix socket.
#[derive(Debug)]
pub struct Postgres {
    folder: PathBuf,
    port: u16,
    /// Absent where another process has started it. The server ends before its folder goes.
    own: Option<(Running, TempDir)>,
}

/// A database of a test's own.
#[derive(Debug, Clone)]
pub struct PostgresDatabase {
    /// The server's loopback name.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// The folder of its Unix socket.
    pub socket: PathBuf,
    /// The certificate authority of its TLS certificate, which is for `localhost`.
    pub ca: PathBuf,
    /// The database.
    pub name: String,
    psql: PathBuf,
}

impl Postgres {
    /// `folder:port` of a server that is running already.
    pub const VARIABLE: &'static str = "TOWPATH_TEST_POSTGRES";

    /// The server that the environment names, or one of this test's own.
    #[must_use]
    pub fn get() -> Self {
        let named = std::env::var(Self::VARIABLE).ok().and_then(|named| {
            let (folder, port) = named.rsplit_once(':')?;
            Some(Self { folder: PathBuf::from(folder), port: port.parse().ok()?, own: None })
        });
        named.unwrap_or_else(Self::start)
    }

    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        Self::try_start().unwrap_or_else(|problem| panic!("PostgreSQL: {problem}"))
    }

    /// Starts one.
    ///
    /// # Errors
    /// Says what is missing or went wrong.
    pub fn try_start() -> Result<Self, String> {
        let folder = folder(if is_root() { USER } else { "" })?;
        let data = folder.path().join("data");
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).map_err(|e| format!("writing a password failed: {e}"))?;
        let mut init = command(&program("initdb")?, Some(USER));
        init.args(["--auth-local=trust", "--auth-host=scram-sha-256", "--username=postgres", "--encoding=UTF8", "--no-locale"]);
        init.args(["--no-sync", "--no-instructions"]).arg("--pwfile").arg(&password).arg("--pgdata").arg(&data);
        succeed(&mut init)?;
        certificate(&data)?;
        let mut problem = String::new();
        for _ in 0..TRIES {
            let port = free_port()?;
            match serve(folder.path(), &data, port) {
                Ok(running) => {
                    let server = Self { folder: folder.path().to_owned(), port, own: Some((running, folder)) };
                    server.psql(
                        "postgres",
                        &format!(
                            "CREATE ROLE {WRITER} LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE {READER} LOGIN PASSWORD '{PASSWORD}'; \
                         GRANT pg_read_all_data TO {READER}; ALTER ROLE {READER} SET default_transaction_read_only = on;"
                        ),
                    )?;
                    return Ok(server);
                }
                Err(other) => problem = other,
            }
        }
        Err(problem)
    }

    /// What [`Postgres::VARIABLE`] must be for others to find this server.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{}:{}", self.folder.display(), self.port)
    }

    /// The id of the server's process, where this process has started it.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.own.as_ref().map(|(running, _)| running.id())
    }

    /// A new database, owned by [`WRITER`]. It stays until the server ends.
    #[must_use]
    pub fn database(&self) -> PostgresDatabase {
        let name = unique("t");
        let made = self
            .psql("postgres", &format!("CREATE DATABASE {name} OWNER {WRITER} TEMPLATE template0"))
            .and_then(|_| self.psql(&name, &format!("GRANT ALL ON SCHEMA public TO {WRITER}")));
        if let Err(problem) = made {
            panic!("making a database failed: {problem}");
        }
        PostgresDatabase {
            host: "localhost".to_owned(),
            port: self.port,
            socket: self.folder.clone(),
            ca: self.folder.join("data/server.crt"),
            name,
            psql: program("psql").unwrap_or_else(|problem| panic!("{problem}")),
        }
    }

    /// Closes a database to everybody and throws out who is in it, or opens it again.
    pub fn close(&self, database: &PostgresDatabase, closed: bool) {
        let name = &database.name;
        let out = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity";
        let done = self.psql("postgres", &format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {}", !closed)).and_then(|_| {
            if closed { self.psql("postgres", &format!("{out} WHERE datname = '{name}'")) } else { Ok(String::new()) }
        });
        if let Err(problem) = done {
            panic!("closing or opening a database failed: {problem}");
        }
    }

    fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        psql(&program("psql")?, &self.folder, self.port, "postgres", database, sql)
    }
}

impl PostgresDatabase {
    /// Runs SQL as [`WRITER`], all of it in one session, and returns what `psql` prints: values without decoration.
    pub fn run(&self, sql: &str) -> String {
        self.run_as(WRITER, sql)
    }

    /// Runs SQL as the superuser `postgres` or another login.
    pub fn run_as(&self, user: &str, sql: &str) -> String {
        psql(&self.psql, &self.socket, self.port, user, &self.name, sql).unwrap_or_else(|problem| panic!("{problem}"))
    }
}

fn program(name: &str) -> Result<PathBuf, String> {
    // Debian keeps the programs of every version in a folder of its own, and not all of them in PATH.
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(|entry| entry.ok().map(|entry| entry.path().join("bin"))).collect())
        .unwrap_or_default();
    versions.sort();
    versions.reverse();
    find(&[name], &versions, "postgresql")
}

fn psql(psql: &Path, socket: &Path, port: u16, user: &str, database: &str, sql: &str) -> Result<String, String> {
    let mut command = Command::new(psql);
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
    command.arg("--host").arg(socket).arg("--port").arg(port.to_string());
    command.args(["--username", user, "--dbname", database, "--command", sql]);
    succeed(&mut command)
}

/// Makes a certificate for `localhost` that is its own authority.
fn certificate(data: &Path) -> Result<(), String> {
    let openssl = find(&["openssl"], &[], "openssl")?;
    let mut request = command(&openssl, Some(USER));
    request.args(["req", "-new", "-x509", "-days", "3650", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    request.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    // A certificate that says it is an authority is not taken for a server's; as what a client trusts it need not say so.
    request.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    request.arg("-keyout").arg(data.join("server.key")).arg("-out").arg(data.join("server.crt"));
    succeed(&mut request).map(drop)
}

fn serve(folder: &Path, data: &Path, port: u16) -> Result<Running, String> {
    let mut server = command(&program("postgres")?, Some(USER));
    server.arg("-D").arg(data).arg("-k").arg(folder).args(["-p", &port.to_string(), "-h", "127.0.0.1"]);
    let settings = [
        "fsync=off",
        "synchronous_commit=off",
        "full_page_writes=off",
        "ssl=on",
        "ssl_cert_file=server.crt",
        "ssl_key_file=server.key",
        "max_connections=200",
        "shared_buffers=64MB",
        "logging_collector=off",
        "autovacuum=off",
        "max_wal_size=4GB",
    ];
    for setting in settings {
        server.args(["-c", setting]);
    }
    let client = program("psql")?;
    // SIGINT is PostgreSQL's fast shutdown: it does not wait for clients.
    Running::start(server, "-INT", &folder.join("postgres.log"), || {
        psql(&client, folder, port, "postgres", "postgres", "SELECT 1").is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_and_ends() {
        let server = Postgres::start();
        let database = server.database();
        database.run("CREATE TABLE t (x text); INSERT INTO t VALUES ('Größe')");
        assert_eq!(database.run_as(READER, "SELECT x FROM t").trim(), "Größe");
        assert!(std::fs::read_to_string(&database.ca).is_ok_and(|pem| pem.starts_with("-----BEGIN CERTIFICATE")));
        let process = server.process().unwrap();
        drop(server);
        assert!(!Path::new(&format!("/proc/{process}")).exists());
    }
}
