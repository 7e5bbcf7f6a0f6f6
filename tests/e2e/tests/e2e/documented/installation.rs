//! An installation on which the commands of a page are run as they stand there.

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use regex::Regex;
use snapbox::{Assert, IntoData as _, Redactions};
use towpath_samples::{erp, roles::ROLE};
use towpath_testkit::{End, JOB, Program, Server, TENANT, TellingProgram, WebhookListener, World, eventually};

use crate::executable;

const ROWS: u64 = 300;

pub(super) struct Installation {
    pub(super) world: World,
    pub(super) end: End,
    /// What runs in the background, by what it is.
    pub(super) servers: BTreeMap<&'static str, Server>,
    /// Where commands are run.
    pub(super) folder: PathBuf,
    /// The programs by their names.
    bin: PathBuf,
    /// The port behind a firewall.
    blocked: u16,
    /// The newest code of each role.
    codes: BTreeMap<&'static str, String>,
    webhook: WebhookListener,
}

impl Installation {
    /// Programs, and an ERP; nothing is set up.
    pub(super) fn bare() -> Self {
        let world = World::new(executable());
        let (end, _) = world.end(TENANT, ROWS, 1);
        let (folder, bin) = (world.dir.path().join("here"), world.dir.path().join("bin"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(&bin).unwrap();
        for (name, program) in [("agent", &end.agent), ("relay", &world.relay), ("receiver", &end.receiver)] {
            let path = bin.join(format!("towpath-{name}"));
            let (config, state, exe) = (program.config.display(), program.state.display(), executable().display());
            // By the environment, so that messages name commands as they are on a host where everything lies in its usual place.
            let places = format!("TOWPATH_CONFIG='{config}' TOWPATH_STATE='{state}'");
            let script = format!("#!/bin/sh\nexport {places}\nexec '{exe}' {ROLE} {name} \"$@\"\n");
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let (servers, codes) = (BTreeMap::new(), BTreeMap::new());
        Self { world, end, servers, folder, bin, blocked: firewall(), codes, webhook: WebhookListener::start() }
    }

    /// Both ends are enrolled, the relay and the receiver serve, and the agent has sent its first transfer, past a firewall that closes
    /// its best way.
    pub(super) fn at_work() -> Self {
        let mut installed = Self::bare();
        let Self { world, end, .. } = &installed;
        let relay = world.serve_relay();
        world.create_tenant(TENANT);
        world.enrol(end);
        let receiver = end.receiver.serve(&["serve"]);
        installed.servers.extend([("relay", relay), ("receiver", receiver)]);
        installed.configure_agent();
        installed.end.send().succeeded();
        installed
    }

    /// The configuration that the pages speak of.
    pub(super) fn configure_agent(&self) {
        let (port, blocked, webhook) = (self.world.port, self.blocked, self.webhook.url("/towpath"));
        let program = TellingProgram::new(&self.folder).toml();
        let delivered = self.delivered();
        std::fs::create_dir_all(&delivered).unwrap();
        let schedule = "schedule = \"30 2 * * *\"\ntime_zone = \"Europe/Berlin\"\n";
        let job = erp::job_toml(JOB, &self.end.erp).replace("schedule = \"02:00\"\n", schedule);
        assert!(job.contains(schedule), "{job}");
        self.end.agent.configure(&format!(
            "[network]\nproxy = \"none\"\nways = [\"ssh:{blocked}\", \"tls:{port}\", \"ssh:{port}\"]\n[receipt]\npoll = \"100ms\"\n\
             [alert]\n{program}webhook = \"{webhook}\"\n[[delivery]]\nkind = \"recommended-orders\"\nfolder = \"{}\"\n{job}",
            delivered.display()
        ));
    }

    /// Starts the agent's service, also anew, and waits until it answers.
    pub(super) fn serve_agent(&mut self) {
        self.servers.remove("agent");
        self.servers.insert("agent", self.end.run());
        eventually("the service answers", || {
            let report = self.end.agent.run(&["doctor", "--json"]).json();
            let checks = report["checks"].as_array().unwrap().clone();
            checks.iter().any(|check| check["id"] == "service" && check["outcome"] == "ok").then_some(())
        });
    }

    /// Where return files go.
    pub(super) fn delivered(&self) -> PathBuf {
        self.folder.join("import")
    }

    /// What stands on the pages, and what it is here.
    fn places(&self) -> Vec<(&'static str, String)> {
        let shown = |path: &Path| path.display().to_string();
        let Self { world, end, folder, .. } = self;
        vec![
            ("/etc/towpath/relay.toml", shown(&world.relay.config)),
            ("/etc/towpath/agent.toml", shown(&end.agent.config)),
            ("/etc/towpath", shown(&folder.join("etc"))),
            ("/var/lib/towpath/agent", shown(&end.agent.state)),
            ("/srv/erp/import", shown(&self.delivered())),
            ("/srv/erp/erp.sqlite", shown(&end.erp)),
            ("app.example.com:2222", format!("127.0.0.1:{}", end.port)),
        ]
    }

    /// A command of a page as it is run here.
    fn real(&self, command: &str) -> String {
        let by_agent = command.starts_with("towpath-agent");
        let mut real = self.places().into_iter().fold(command.to_owned(), |text, (shown, here)| text.replace(shown, &here));
        if real.contains("SHA256:…") {
            let other = if by_agent { &self.end.receiver } else { &self.end.agent };
            real = real.replace("SHA256:…", &fingerprint(other));
        }
        if real.contains("AAAA…") {
            let keys = self.world.relay.run(&["keys"]).succeeded().stdout;
            let key = keys.lines().find_map(|line| line.strip_prefix("forward\t")).unwrap();
            real = real.replace("ssh-ed25519 AAAA…", key);
        }
        let mut transfers = self.end.transfers().into_iter();
        let word = |word: &str| match word {
            "CODE" => self.codes[if by_agent { "agent" } else { "receiver" }].clone(),
            "DIR" => self.folder.join("out").display().to_string(),
            _ if is_id(word) => transfers.next().unwrap(),
            _ => word.to_owned(),
        };
        real.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }

    /// What a command has said here, as a page would show it.
    fn documented(&self, said: &str) -> String {
        let (port, blocked) = (self.world.port, self.blocked);
        let mut places: Vec<(String, &str)> = vec![
            ("127.0.0.1 is 127.0.0.1".into(), "relay.example.com is 192.0.2.7"),
            (format!("https://127.0.0.1:{port}"), "https://relay.example.com"),
            (format!("ssh:{blocked}"), "ssh:443"),
            (format!("tls:{port}"), "tls:443"),
            (format!("ssh:{port}"), "ssh:80"),
            (format!("port {blocked}"), "port 443"),
        ];
        let mut paths = self.places();
        // What lies in a folder before the folder.
        paths.sort_by_key(|(_, here)| std::cmp::Reverse(here.len()));
        places.extend(paths.into_iter().map(|(shown, here)| (here, shown)));
        places.push(("127.0.0.1".into(), "relay.example.com"));
        places.into_iter().fold(said.to_owned(), |text, (here, shown)| text.replace(&here, shown))
    }

    /// Runs a command and compares it with what the page shows. The error says what is different.
    pub(super) fn run(&mut self, command: &str, output: &str) -> Result<(), String> {
        let server = match command {
            "towpath-relay serve" => Some(("relay", self.world.serve_relay())),
            "towpath-receiver serve" => Some(("receiver", self.end.receiver.serve(&["serve"]))),
            _ => None,
        };
        if let Some((role, server)) = server {
            self.servers.insert(role, server);
            return Ok(());
        }
        let path = format!("{}:{}", self.bin.display(), std::env::var("PATH").unwrap());
        let real = self.real(command);
        // As on a terminal, both outputs in one.
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec 2>&1\n{real}")]).current_dir(&self.folder).env("PATH", path).env("TZ", "UTC");
        let ran = shell.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(ran.stdout).unwrap();
        if let Some(code) = said.lines().find(|line| line.starts_with("towpath1-")) {
            self.codes.insert(if command.contains("--role agent") { "agent" } else { "receiver" }, code.to_owned());
        }
        let said = self.documented(&said);
        let fails = output.lines().any(|line| line.starts_with("error: "));
        if ran.status.success() == fails {
            return Err(format!("`{real}` ended with {}:\n{said}", ran.status));
        }
        if output.is_empty() {
            return Ok(());
        }
        let redactions = redactions();
        let assert = Assert::new().redact_with(redactions.clone()).normalize_paths(false);
        let shown = redactions.redact(output);
        assert.try_eq(None, said.clone().into_data(), shown.into_data()).map_err(|error| format!("{error}\nIt says:\n{said}"))
    }

    /// Whether a command that stands in the text exists, with all its options.
    pub(super) fn exists(&self, command: &str) -> Result<(), String> {
        let (program, rest) = command.split_once(' ').unwrap();
        let program = match program {
            "towpath-agent" => &self.end.agent,
            "towpath-relay" => &self.world.relay,
            _ => &self.end.receiver,
        };
        let is_word = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
        let mut words: Vec<&str> = rest.split(' ').take_while(is_word).collect();
        words.push("--help");
        let help = program.run(&words);
        if !help.status.success() {
            return Err(help.stderr);
        }
        let unknown = rest.split([' ', '=']).filter(|word| word.starts_with("--")).find(|option| !help.stdout.contains(option));
        unknown.map_or(Ok(()), |option| Err(format!("its help has no {option}")))
    }
}

fn fingerprint(program: &Program) -> String {
    program.run(&["status", "--json"]).succeeded().json()["fingerprint"].as_str().unwrap().to_owned()
}

/// What a page shows as an example, and is another with each run.
fn redactions() -> Redactions {
    let mut redactions = Redactions::new();
    for (placeholder, form) in [
        ("[ID]", "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"),
        ("[FINGERPRINT]", "SHA256:[A-Za-z0-9+/]{43}"),
        ("[TIME]", r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)? UTC"),
        ("[TIMESTAMP]", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"),
        ("[NEXT]", r"next run (?<redacted>\d{4}-\d\d-\d\d \d\d:\d\d [A-Z]+)"),
        ("[SIZE]", r"\d+ MiB"),
        ("[USER]", r"it runs as (?<redacted>[^,]+),"),
        ("[WHY]", r"(was blocked at .* UTC|swallows what is said): (?<redacted>.*?)( \[relay-unreachable\])?\n"),
        ("[ANNOUNCEMENT]", r"announcement (?<redacted>\d+)"),
        ("[SECONDS]", r"they differ by (?<redacted>\d+s)"),
        ("[CODE]", "towpath1-[A-Za-z0-9_-]+"),
    ] {
        redactions.insert(placeholder, Regex::new(form).unwrap()).unwrap();
    }
    redactions
}

fn is_id(word: &str) -> bool {
    word.len() == 36 && word.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

/// A firewall that takes connections, listens to the first words, and cuts them.
fn firewall() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Whatever it was, it does not pass.
            let _ = stream.read(&mut [0; 1024]);
        }
    });
    port
}
