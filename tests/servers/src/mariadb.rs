//! MariaDB.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    PASSWORD, READER, WRITER,
    process::{Running, command, find, folder, free_port, is_root, succeed, unique},
};

/// How often another port is tried.
const TRIES: usize = 5;

/// A MariaDB server on loopback with TLS, and a Unix socket.
#[derive(Debug)]
pub struct MariaDb {
    folder: PathBuf,
    port: u16,
    /// Absent where another process has started it. The server ends before its folder goes.
    own: Option<(Running, TempDir)>,
}

/// A database of a test's own.
#[derive(Debug, Clone)]
pub struct MariaDbDatabase {
    /// The server's loopback name.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// Its Unix socket.
    pub socket: PathBuf,
    /// The certificate authority of its TLS certificate, which is for `localhost`.
    pub ca: PathBuf,
    /// The database.
    pub name: String,
    client: PathBuf,
}

impl MariaDb {
    /// `folder:port` of a server that is running already.
    pub const VARIABLE: &'static str = "TOWPATH_TEST_MARIADB";

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
        Self::try_start().unwrap_or_else(|problem| panic!("MariaDB: {problem}"))
    }

    /// Starts one.
    ///
    /// # Errors
    /// Says what is missing or went wrong.
    pub fn try_start() -> Result<Self, String> {
        let folder = folder("root")?;
        let data = folder.path().join("data");
        let mut install = command(&find(&["mariadb-install-db"], &[], "mariadb-server")?, None);
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
        // A server that starts removes the temporary tables of all others that share its folder for them.
        install.arg(format!("--tmpdir={}", folder.path().display()));
        install.arg(format!("--datadir={}", data.display())).arg(user());
        succeed(&mut install)?;
        certificate(folder.path())?;
        let mut problem = String::new();
        for _ in 0..TRIES {
            let port = free_port()?;
            match serve(folder.path(), &data, port) {
                Ok(running) => {
                    let server = Self { folder: folder.path().to_owned(), port, own: Some((running, folder)) };
                    server.client(
                        "mysql",
                        &format!(
                            "CREATE USER '{WRITER}'@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON `t\\_%`.* TO '{WRITER}'@'%'; \
                         CREATE USER '{READER}'@'%' IDENTIFIED BY '{PASSWORD}'; GRANT SELECT ON *.* TO '{READER}'@'%';"
                        ),
                    )?;
                    return Ok(server);
                }
                Err(other) => problem = other,
            }
        }
        Err(problem)
    }

    /// What [`MariaDb::VARIABLE`] must be for others to find this server.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{}:{}", self.folder.display(), self.port)
    }

    /// The id of the server's process, where this process has started it.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.own.as_ref().map(|(running, _)| running.id())
    }

    /// A new database in which [`WRITER`] may do everything. It stays until the server ends.
    #[must_use]
    pub fn database(&self) -> MariaDbDatabase {
        let name = unique("t");
        if let Err(problem) = self.client("mysql", &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")) {
            panic!("making a database failed: {problem}");
        }
        MariaDbDatabase {
            host: "localhost".to_owned(),
            port: self.port,
            socket: self.folder.join("socket"),
            ca: self.folder.join("server.crt"),
            name,
            client: client_program().unwrap_or_else(|problem| panic!("{problem}")),
        }
    }

    fn client(&self, database: &str, sql: &str) -> Result<String, String> {
        client(&client_program()?, &self.folder.join("socket"), "root", database, sql)
    }
}

impl MariaDbDatabase {
    /// Runs SQL as [`WRITER`], all of it in one session, and returns what the client prints: values without decoration.
    pub fn run(&self, sql: &str) -> String {
        self.run_as(WRITER, sql)
    }

    /// Runs SQL as `root` or another login.
    pub fn run_as(&self, user: &str, sql: &str) -> String {
        client(&self.client, &self.socket, user, &self.name, sql).unwrap_or_else(|problem| panic!("{problem}"))
    }
}

fn client_program() -> Result<PathBuf, String> {
    find(&["mariadb", "mysql"], &[], "mariadb-client")
}

fn user() -> &'static str {
    if is_root() { "--user=root" } else { "--skip-symbolic-links" }
}

fn client(program: &Path, socket: &Path, user: &str, database: &str, sql: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(["--no-defaults", "--default-character-set=utf8mb4", "--batch", "--skip-column-names", "--protocol=socket"]);
    command.arg(format!("--socket={}", socket.display())).arg(format!("--user={user}"));
    if user != "root" {
        command.arg(format!("--password={PASSWORD}"));
    }
    command.args(["--execute", sql, database]);
    succeed(&mut command)
}

/// Makes a certificate for `localhost` that is its own authority.
fn certificate(folder: &Path) -> Result<(), String> {
    let mut request = Command::new(find(&["openssl"], &[], "openssl")?);
    request.args(["req", "-new", "-x509", "-days", "3650", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    request.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    // A certificate that says it is an authority is not taken for a server's; as what a client trusts it need not say so.
    request.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    request.arg("-keyout").arg(folder.join("server.key")).arg("-out").arg(folder.join("server.crt"));
    succeed(&mut request).map(drop)
}

fn serve(folder: &Path, data: &Path, port: u16) -> Result<Running, String> {
    let mut server = command(&find(&["mariadbd", "mysqld"], &[], "mariadb-server")?, None);
    let socket = folder.join("socket");
    let at = |name: &str, path: &Path| format!("--{name}={}", path.display());
    server.arg("--no-defaults").arg(user()).arg(at("datadir", data)).arg(at("socket", &socket));
    server.arg(at("pid-file", &folder.join("pid"))).arg(at("tmpdir", folder));
    server.arg(at("ssl-cert", &folder.join("server.crt"))).arg(at("ssl-key", &folder.join("server.key")));
    server.args(["--bind-address=127.0.0.1", "--character-set-server=utf8mb4", "--default-time-zone=+00:00"]);
    server.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M", "--max-allowed-packet=64M"]);
    server.args(["--sync-binlog=0", "--max-connections=200", "--innodb-fast-shutdown=2"]).arg(format!("--port={port}"));
    let program = client_program()?;
    Running::start(server, "-TERM", &folder.join("mariadb.log"), || {
        client(&program, &socket, "root", "mysql", "SELECT 1").is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_and_ends() {
        let server = MariaDb::start();
        let database = server.database();
        database.run("CREATE TABLE t (x text); INSERT INTO t VALUES ('Größe')");
        assert_eq!(database.run_as(READER, "SELECT x FROM t").trim(), "Größe");
        let process = server.process().unwrap();
        drop(server);
        assert!(!Path::new(&format!("/proc/{process}")).exists());
    }
}
