//! A whole installation on loopback: one relay, and for each tenant a receiver and an agent.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use towpath_samples::{
    erp::{self, ErpOptions, Expected},
    ports::free_port,
};
use towpath_servers::{PASSWORD, PostgresDatabase, WRITER};
use towpath_transfer::public_key::PublicKeyLine;

use crate::program::{Outcome, Program, Server};

/// The tenant that tests use unless they need two.
pub const TENANT: &str = "acme";
/// The name of every agent.
pub const AGENT: &str = "erp";
/// The name of every receiver.
pub const RECEIVER: &str = "app";
/// The name of every job.
pub const JOB: &str = "main";

/// A relay with its folder.
#[derive(Debug)]
pub struct World {
    /// Removed at the end.
    pub dir: tempfile::TempDir,
    executable: PathBuf,
    /// The relay.
    pub relay: Program,
    /// The relay's port.
    pub port: u16,
}

/// One tenant's two ends.
#[derive(Debug)]
pub struct End {
    /// The tenant.
    pub tenant: String,
    /// Its agent.
    pub agent: Program,
    /// Its receiver.
    pub receiver: Program,
    /// The receiver's port.
    pub port: u16,
    /// The ERP database.
    pub erp: PathBuf,
}

impl World {
    /// A relay that is configured and not started. `executable` is the multi-role test program.
    ///
    /// # Panics
    /// Where folders cannot be made.
    #[must_use]
    pub fn new(executable: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("towpath-e2e-").tempdir().unwrap();
        let relay = Program::new(executable, dir.path(), "relay", "relay");
        let port = free_port().expect("a free port");
        let world = Self { dir, executable: executable.to_owned(), relay, port };
        world.configure_relay("");
        world
    }

    /// Writes the relay's configuration with `more` after the addresses.
    pub fn configure_relay(&self, more: &str) {
        let port = self.port;
        self.relay.configure(&format!(
            "[relay]\npublic_url = \"https://127.0.0.1:{port}\"\nlisten = [\"127.0.0.1:{port}\"]\nadmin = \"127.0.0.1:0\"\n{more}"
        ));
    }

    /// Starts the relay.
    #[must_use]
    pub fn serve_relay(&self) -> Server {
        self.relay.serve(&["serve"])
    }

    /// Makes a tenant.
    pub fn create_tenant(&self, tenant: &str) {
        let _ = self.relay.run(&["tenant", "create", tenant]).succeeded();
    }

    /// A fresh enrolment code.
    #[must_use]
    pub fn enrolment_code(&self, tenant: &str, role: &str, name: &str) -> String {
        self.relay.run(&["enrolment", "create", "--tenant", tenant, "--role", role, "--name", name]).succeeded().stdout
    }

    /// A receiver and an agent of a tenant, configured over a sample ERP of `rows` sales lines, not enrolled.
    #[must_use]
    pub fn end(&self, tenant: &str, rows: u64, company: u32) -> (End, Vec<Expected>) {
        let folder = self.dir.path().join(tenant);
        let agent = Program::new(&self.executable, &folder, "agent", "agent");
        let receiver = Program::new(&self.executable, &folder, "receiver", "receiver");
        let erp = folder.join("erp.sqlite");
        let options = ErpOptions { rows, seed: 7, company };
        let expected = block_on(erp::generate(&erp, &options, |_| ())).expect("making a sample ERP");
        agent.configure(&format!("[receipt]\npoll = \"100ms\"\n{}", erp::job_toml(JOB, &erp)));
        let port = free_port().expect("a free port");
        receiver.configure(&receiver_toml(port));
        (End { tenant: tenant.to_owned(), agent, receiver, port, erp }, expected)
    }

    /// Enrols both ends of a tenant and approves each at the other. The relay must be running.
    pub fn enrol(&self, end: &End) {
        let code = self.enrolment_code(&end.tenant, "receiver", RECEIVER);
        let landing = format!("127.0.0.1:{}", end.port);
        let _ = end.receiver.run(&["enrol", &code, "--landing", &landing]).succeeded();
        let code = self.enrolment_code(&end.tenant, "agent", AGENT);
        let _ = end.agent.run(&["enrol", &code]).succeeded();
        end.approve_agent();
        end.approve_receiver();
    }

    /// The whole installation for one tenant, with everything running.
    #[must_use]
    pub fn running(executable: &Path, rows: u64) -> (Self, End, Vec<Expected>, Server, Server) {
        let world = Self::new(executable);
        let (end, expected) = world.end(TENANT, rows, 1);
        let relay = world.serve_relay();
        world.create_tenant(TENANT);
        world.enrol(&end);
        let receiver = end.receiver.serve(&["serve"]);
        (world, end, expected, relay, receiver)
    }

    /// What the running relay's `/metrics` says.
    ///
    /// # Panics
    /// Where it does not answer.
    #[must_use]
    pub fn metrics(&self) -> String {
        let listening = std::fs::read(self.relay.state.join("listening.json")).unwrap();
        let listening: serde_json::Value = serde_json::from_slice(&listening).unwrap();
        let mut stream =
            TcpStream::connect(listening.get("admin").and_then(serde_json::Value::as_str).expect("the admin address")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer
    }

    /// Where a transfer of a tenant's agent lies on the relay.
    #[must_use]
    pub fn spool(&self, tenant: &str, transfer: &str) -> PathBuf {
        self.relay.state.join("spool").join(tenant).join(AGENT).join("uplink").join(transfer)
    }
}

/// The receiver's configuration. The section that imports is configured by stands last.
fn receiver_toml(port: u16) -> String {
    format!("[landing]\nlisten = \"127.0.0.1:{port}\"\n[send]\npoll = \"200ms\"\n")
}

impl End {
    /// Lets the receiver import into a PostgreSQL database, by the user that owns it, over TLS with a certificate that is checked.
    /// Before it is started.
    ///
    /// # Panics
    /// Where its password cannot be written.
    pub fn import_into(&self, database: &PostgresDatabase) {
        let folder = self.receiver.config.parent().expect("a configuration lies in a folder");
        let password = folder.join("db-password");
        std::fs::write(&password, PASSWORD).unwrap();
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
        let PostgresDatabase { host, port, name, ca, .. } = database;
        self.receiver.configure(&format!(
            "{}[import]\nkind = \"postgresql\"\nhost = \"{host}\"\nport = {port}\ndatabase = \"{name}\"\nuser = \"{WRITER}\"\n\
             password = \"file:{}\"\ntls = \"verify\"\nca = \"{}\"\n",
            receiver_toml(self.port),
            password.display(),
            ca.display(),
        ));
    }

    /// The schema of the job in such a database.
    #[must_use]
    pub fn schema(&self) -> String {
        format!("{AGENT}__{JOB}")
    }

    /// The receiver's operator approves the agent.
    pub fn approve_agent(&self) {
        let _ = self.receiver.run(&["agent", "approve", &fingerprint(&self.agent)]).succeeded();
    }

    /// The agent's operator approves the receiver.
    pub fn approve_receiver(&self) {
        let _ = self.agent.run(&["receiver", "approve", &fingerprint(&self.receiver)]).succeeded();
    }

    /// Starts the agent's service, and waits until it works.
    #[must_use]
    pub fn run(&self) -> Server {
        self.agent.start_until(&["run"], &["\"running\""])
    }

    /// Sends the job and waits for the receipt.
    #[must_use]
    pub fn send(&self) -> Outcome {
        self.agent.run(&["send", "--job", JOB, "--wait", "--json"])
    }

    /// The app database of the job.
    #[must_use]
    pub fn app(&self) -> PathBuf {
        self.receiver.state.join("import").join(AGENT).join(format!("{JOB}.sqlite"))
    }

    /// The agent's transfers, oldest first.
    #[must_use]
    pub fn transfers(&self) -> Vec<String> {
        names_in(&self.agent.state.join("transfers"))
    }

    /// The folder of the agent's newest transfer.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn newest(&self) -> (String, PathBuf) {
        let id = self.transfers().pop().expect("the agent has a transfer");
        let folder = self.agent.state.join("transfers").join(&id);
        (id, folder)
    }
}

/// The names in a folder, sorted; none where there is no folder.
fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn fingerprint(program: &Program) -> String {
    let line = std::fs::read_to_string(program.state.join("key.pub")).expect("the program has a key");
    line.parse::<PublicKeyLine>().expect("key.pub is a public key").fingerprint().to_string()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
