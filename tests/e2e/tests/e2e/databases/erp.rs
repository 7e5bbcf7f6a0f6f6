//! ERP databases that a test fills by SQL, each in its own dialect.

use std::path::PathBuf;

use towpath_servers::{MariaDb, MariaDbDatabase, PASSWORD, Postgres, PostgresDatabase, READER};
use towpath_testkit::JOB;

use super::private;

/// A database and the server that must outlive it.
pub(super) enum Database {
    Postgres(PostgresDatabase, #[expect(dead_code, reason = "it is kept running")] Postgres),
    MariaDb(MariaDbDatabase, #[expect(dead_code, reason = "it is kept running")] MariaDb),
    Sqlite(PathBuf),
}

/// By which way the agent reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Native,
    Odbc,
}

/// An ERP.
pub(super) struct Erp {
    pub(super) database: Database,
    pub(super) way: Way,
    dir: tempfile::TempDir,
}

impl Erp {
    pub(super) fn postgres(way: Way) -> Self {
        let server = Postgres::get();
        Self::new(Database::Postgres(server.database(), server), way)
    }

    pub(super) fn mariadb(way: Way) -> Self {
        let server = MariaDb::get();
        Self::new(Database::MariaDb(server.database(), server), way)
    }

    pub(super) fn sqlite(way: Way) -> Self {
        let mut erp = Self::new(Database::Sqlite(PathBuf::new()), way);
        erp.database = Database::Sqlite(erp.dir.path().join("erp.sqlite"));
        erp
    }

    fn new(database: Database, way: Way) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let password = dir.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        private(&password);
        Self { database, way, dir }
    }

    /// Runs SQL in the ERP.
    pub(super) fn run(&self, sql: &str) -> String {
        match &self.database {
            Database::Postgres(database, _) => database.run(sql),
            Database::MariaDb(database, _) => database.run(sql),
            Database::Sqlite(path) => {
                let output =
                    std::process::Command::new("sqlite3").arg("-cmd").arg(".timeout 60000").arg(path).arg(sql).output().unwrap();
                assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8(output.stdout).unwrap()
            }
        }
    }

    /// The agent's `[[job]]` with its source; `tables` follows.
    pub(super) fn job(&self, tables: &str) -> String {
        let password = self.dir.path().join("password");
        let server = |kind: &str, host: &str, port: u16, database: &str| {
            format!(
                "kind = \"{kind}\"\nhost = \"{host}\"\nport = {port}\ndatabase = \"{database}\"\nuser = \"{READER}\"\npassword = \"file:{}\"\n",
                password.display()
            )
        };
        let odbc = |driver: &str, rest: &str, login: bool| {
            let login =
                if login { format!("user = \"{READER}\"\npassword = \"file:{}\"\n", password.display()) } else { String::new() };
            format!("kind = \"odbc\"\nconnection = \"Driver={};{rest}\"\n{login}", driver_file(driver))
        };
        let source = match (&self.database, self.way) {
            (Database::Postgres(database, _), Way::Native) => server("postgresql", &database.host, database.port, &database.name),
            (Database::MariaDb(database, _), Way::Native) => server("mariadb", "127.0.0.1", database.port, &database.name),
            (Database::Sqlite(path), Way::Native) => format!("kind = \"sqlite\"\npath = \"{}\"\n", path.display()),
            (Database::Postgres(database, _), Way::Odbc) => {
                odbc("psqlodbcw.so", &format!("Server=127.0.0.1;Port={};Database={}", database.port, database.name), true)
            }
            (Database::MariaDb(database, _), Way::Odbc) => {
                odbc("libmaodbc.so", &format!("Server=127.0.0.1;Port={};Database={}", database.port, database.name), true)
            }
            (Database::Sqlite(path), Way::Odbc) => odbc("libsqlite3odbc.so", &format!("Database={}", path.display()), false),
        };
        format!("[[job]]\nname = \"{JOB}\"\n[job.source]\n{source}{tables}")
    }

    /// A name, quoted.
    pub(super) fn name(&self, name: &str) -> String {
        match self.database {
            Database::MariaDb(..) => format!("`{}`", name.replace('`', "``")),
            _ => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    /// A text as a literal.
    pub(super) fn text(&self, text: &str) -> String {
        let quoted = text.replace('\'', "''");
        match self.database {
            Database::MariaDb(..) => format!("'{}'", quoted.replace('\\', "\\\\")),
            _ => format!("'{quoted}'"),
        }
    }

    /// A text that is repeated, too long for a literal.
    pub(super) fn repeated(&self, text: &str, times: usize) -> String {
        match self.database {
            Database::Sqlite(_) => format!("replace(hex(zeroblob({times})), '00', {})", self.text(text)),
            _ => format!("repeat({}, {times})", self.text(text)),
        }
    }

    /// Bytes.
    pub(super) fn bytes(&self, bytes: &[u8]) -> String {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self.database {
            Database::Postgres(..) => format!("'\\x{hex}'::bytea"),
            _ => format!("x'{hex}'"),
        }
    }
}

/// Where Debian keeps an ODBC driver.
fn driver_file(name: &str) -> String {
    let folders = ["/usr/lib/x86_64-linux-gnu/odbc", "/usr/lib/aarch64-linux-gnu/odbc"];
    let found = folders.iter().map(|folder| format!("{folder}/{name}")).find(|file| std::path::Path::new(file).exists());
    found.unwrap_or_else(|| panic!("the ODBC driver {name} is not installed"))
}
