//! Any SFTP client in the agent's place: the commands of `docs/operations.md`, run as they stand there.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use towpath_keys::{Identity, TokenClaims};
use towpath_samples::erp;
use towpath_testkit::{AGENT, End, JOB, Program, TENANT, World, assert_same_tables, eventually, pack, query_text};
use towpath_transfer::{Clock as _, TransferId, digest::Sha256Digest};

use super::{orders, python, returned, run};
use crate::{executable, tables};

const PAGE: &str = include_str!("../../../../../docs/operations.md");
/// What all clients need first.
const KEYS: &str = "Keys for each client";
const COMPLETE: &str = "Saying complete without an agent";
/// The name of the second agent, whose key is of the kind that old libraries can use.
const SECOND: &str = "erp-ed25519";
/// Seconds that a client may take; one that hangs fails.
const SECONDS: &str = "240";

/// A client by its heading on the page; its job has the last word of it as name.
const CLIENTS: [&str; 6] = ["With sftp", "With lftp", "With psftp", "With rclone", "With paramiko", "With asyncssh"];
/// Debian's curl cannot use RSA keys.
const CURL: &str = "With curl";

/// The commands under a heading of the page, with their language.
fn commands(heading: &str) -> Vec<(&'static str, String)> {
    let mut lines = PAGE.lines().skip_while(|line| *line != format!("### {heading}")).skip(1);
    let mut found = Vec::new();
    while let Some(line) = lines.next().filter(|line| !line.starts_with('#')) {
        if let Some(language) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push((language, block.join("\n") + "\n"));
        }
    }
    assert!(!found.is_empty(), "the page has no commands under {heading:?}");
    found
}

fn job(client: &str) -> &str {
    client.strip_prefix("With ").unwrap()
}

/// One client with a transfer of its own.
struct Visit<'w> {
    world: &'w World,
    end: &'w End,
    agent: &'static str,
    client: &'static str,
    id: TransferId,
    /// Its working folder.
    folder: PathBuf,
}

impl<'w> Visit<'w> {
    fn new(world: &'w World, end: &'w End, agent: &'static str, client: &'static str, id: TransferId) -> Self {
        let folder = world.dir.path().join("clients").join(job(client));
        fs::create_dir_all(folder.join("bin")).unwrap();
        fs::create_dir(folder.join("returned")).unwrap();
        let relay = folder.join("bin/towpath-relay");
        let command = world.relay.command(&[]);
        let words: Vec<&str> =
            [command.get_program()].into_iter().chain(command.get_args()).map(|w| w.to_str().unwrap()).collect();
        fs::write(&relay, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" "))).unwrap();
        fs::set_permissions(&relay, fs::Permissions::from_mode(0o755)).unwrap();
        Self { world, end, agent, client, id, folder }
    }

    fn from(&self) -> PathBuf {
        self.end.agent.state.join("transfers").join(self.id.to_string())
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.world.port)
    }

    /// Runs commands about a transfer as a person would, in a home of their own.
    fn run(&self, language: &str, commands: &str, id: TransferId) {
        let mut command = Command::new("timeout");
        command.arg(SECONDS);
        match language {
            "sh" => command.args(["sh", "-eu", "-c", commands]),
            "python" => command.arg(python()).args(["-c", commands]),
            other => panic!("{}: nobody knows how to run {other:?}", self.client),
        };
        let path = format!("{}:{}", self.folder.join("bin").display(), std::env::var("PATH").unwrap());
        command
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("HOME", &self.folder)
            .env_remove("SSH_AUTH_SOCK")
            .env("host", "127.0.0.1")
            .env("port", self.world.port.to_string())
            .env("url", self.url())
            .env("user", format!("{TENANT}.{}", self.agent))
            .env("state", &self.end.agent.state)
            .env("id", id.to_string())
            .env("from", self.from())
            .env("to", self.folder.join("returned"));
        run(&mut command);
    }

    /// The commands of the page that come first in every shell.
    fn keys() -> String {
        commands(KEYS).into_iter().map(|(_, text)| text).collect()
    }

    /// Runs the page's commands of this client: the first put, the second get.
    fn follow_the_page(&self, which: usize, id: TransferId) {
        let (language, commands) = commands(self.client).swap_remove(which);
        if language == "sh" {
            self.run("sh", &(Self::keys() + &commands), id);
        } else {
            self.run("sh", &Self::keys(), id);
            self.run(language, &commands, id);
        }
    }

    fn put(&self) {
        self.follow_the_page(0, self.id);
    }

    /// Gets a return file and compares it with what the relay has queued in `queued`.
    fn get(&self, returned: TransferId, queued: &Path) {
        self.follow_the_page(1, returned);
        let (got, expected) = (contents(&self.folder.join("returned")), contents(queued));
        assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{}", self.client);
        assert!(got == expected, "{}: what was got differs from what lies at the relay", self.client);
    }

    /// Says `complete` with the page's own commands, whose token is signed by openssl.
    fn complete(&self) {
        let (language, commands) = commands(COMPLETE).swap_remove(0);
        self.run(language, &commands, self.id);
    }

    /// A call of the web service by curl, with a token that our own code has signed.
    fn call(&self, path: &str, more: &[&str]) -> serde_json::Value {
        let identity = Identity::load(&self.end.agent.state.join("key")).unwrap();
        let (clock, entropy) = (towpath_journal::system::SystemClock::new(), towpath_journal::system::SystemEntropy::new());
        let claims = TokenClaims::new(format!("{TENANT}.{}", self.agent), self.url(), clock.now(), &entropy);
        let authorization = format!("Authorization: Bearer {}", identity.token(&claims).unwrap());
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail-with-body", "--insecure", "-H", &authorization]).args(more);
        let said = run(curl.arg(format!("{}{path}", self.url())));
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"))
    }

    /// Waits for the receiver's receipt and compares what was imported.
    fn is_imported(&self) {
        let receipts = self.world.relay.state.join("receipts").join(TENANT).join(self.agent).join(self.id.to_string());
        eventually("the receiver has imported it", || {
            assert!(!receipts.join("rejected.json").exists(), "what {} has put was rejected", job(self.client));
            receipts.join("imported.json.sig").exists().then_some(())
        });
        // The receipt is kept before the journal says so.
        eventually("the relay says that it is imported", || {
            let status = self.call(&format!("/v1/uplinks/{}", self.id), &[]);
            (status["state"] == "imported").then_some(())
        });
        let app = self.end.receiver.state.join("import").join(self.agent).join(format!("{}.sqlite", job(self.client)));
        assert_same_tables(&self.end.erp, &app, &tables());
        assert_eq!(query_text(&app, "SELECT count(*) FROM towpath_imports"), "1", "{}", self.client);
    }
}

/// The files of a folder by name.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// A second agent of the tenant, with a key of the other kind.
fn second_agent(world: &World, end: &End) -> End {
    let agent = Program::new(executable(), &world.dir.path().join(TENANT), "agent", SECOND);
    agent.configure(&erp::job_toml(job(CURL), &end.erp));
    let code = world.enrolment_code(TENANT, "agent", SECOND);
    let _ = agent.run(&["enrol", "--key-type", "ed25519", &code]).succeeded();
    let second = End { tenant: TENANT.to_owned(), agent, receiver: end.receiver.clone(), port: end.port, erp: end.erp.clone() };
    second.approve_agent();
    second.approve_receiver();
    second
}

#[test]
fn interop_any_client_can_stand_in_for_the_agent() {
    let (world, end, _, _relay, _receiver) = World::running(executable(), 1_500);
    let jobs: Vec<&str> = CLIENTS.map(job).into_iter().chain([JOB]).collect();
    end.agent.configure(&jobs.iter().map(|job| erp::job_toml(job, &end.erp)).collect::<String>());
    let second = second_agent(&world, &end);

    let orders = orders(&world);
    let back = &returned(&world, &end, AGENT, &orders);
    let back_to_curl = &returned(&world, &end, SECOND, &orders);

    let ids = pack(&end.agent, &jobs);
    let of_curl = pack(&second.agent, &[job(CURL)])[0];
    let mut visits: Vec<Visit<'_>> =
        CLIENTS.iter().zip(&ids).map(|(client, id)| Visit::new(&world, &end, AGENT, client, *id)).collect();
    visits.push(Visit::new(&world, &second, SECOND, CURL, of_curl));
    std::thread::scope(|scope| {
        for visit in &visits {
            scope.spawn(move || {
                visit.put();
                if visit.client == CURL {
                    let digest = |name: &str| Sha256Digest::of(&fs::read(visit.from().join(name)).unwrap());
                    let body = format!(r#"{{"manifest": "{}", "packed": "{}"}}"#, digest("manifest.json"), digest("packed.json"));
                    visit.call(&format!("/v1/uplinks/{}/complete", visit.id), &["--json", &body]);
                } else {
                    visit.complete();
                }
                visit.is_imported();
                let (id, queued) = if visit.client == CURL { back_to_curl } else { back };
                visit.get(*id, queued);
            });
        }
    });

    // The agent itself, when it is back, finds its transfers done and takes the receipts.
    let went_on = end.agent.run(&["send", "--wait", "--json"]).succeeded().json();
    let states: Vec<&serde_json::Value> = went_on["transfers"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, vec!["imported"; jobs.len()], "{went_on}");
    for id in &ids {
        let _ = end.agent.run(&["receipts", "verify", &id.to_string()]).succeeded();
    }
}

/// The page names every client that is tested, and the headings that lead to it.
#[test]
fn the_page_has_commands_for_both_ways() {
    for client in CLIENTS.into_iter().chain([CURL]) {
        let found = commands(client);
        let directions: Vec<bool> = found.iter().map(|(_, text)| text.contains("/downlink/")).collect();
        assert_eq!(directions, [false, true], "{client}: what puts, then what gets");
    }
    assert_eq!((commands(KEYS).len(), commands(COMPLETE).len()), (2, 1));
}
