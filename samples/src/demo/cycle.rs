//! The cycle itself: make an ERP, start three programs, enrol two ends, send, compare.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use towpath_transfer::{
    Clock as _, TransferId, TransferKey,
    manifest::Manifest,
    packed::{PACKED_NAME, PackedList},
    state::Place,
};

use super::{
    DemoError, Options, compare, io,
    program::{Program, Server},
    recommend,
    report::{Report, TableLine},
    story, timing,
};
use crate::{
    erp::{self, ErpOptions, Expected},
    ports::free_port,
};

const TENANT: &str = "acme";
const AGENT: &str = "erp";
const RECEIVER: &str = "app";
const JOB: &str = "main";

/// The folder of the demo and the three programs in it.
pub(super) struct Stage {
    /// Everything lies below it.
    pub(super) dir: PathBuf,
    relay: Program,
    /// Beside the app.
    pub(super) receiver: Program,
    /// On the ERP host.
    pub(super) agent: Program,
}

impl Stage {
    /// The ERP's database.
    pub(super) fn erp(&self) -> PathBuf {
        self.dir.join("erp.sqlite")
    }

    /// Where return files are delivered.
    pub(super) fn delivery(&self) -> PathBuf {
        self.dir.join("erp-import")
    }

    /// The app's database.
    fn app(&self) -> PathBuf {
        self.receiver.state.join("import").join(AGENT).join(format!("{JOB}.sqlite"))
    }
}

/// Runs the whole demo.
pub(super) async fn run(options: &Options) -> Result<(), DemoError> {
    let temporary = match &options.dir {
        Some(dir) => {
            claim(dir)?;
            None
        }
        None => Some(tempfile::Builder::new().prefix("towpath-demo-").tempdir().map_err(io("making a temporary folder failed"))?),
    };
    let dir = match (&options.dir, &temporary) {
        (Some(dir), _) => std::path::absolute(dir).map_err(io("finding the folder failed"))?,
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => return Err(DemoError::Program("no folder".into())),
    };
    let stage = Stage {
        relay: Program::new(&dir, "relay")?,
        receiver: Program::new(&dir, "receiver")?,
        agent: Program::new(&dir, "agent")?,
        dir,
    };
    story::chapter(&format!("Towpath demo in {}", stage.dir.display()));
    let expected = make_erp(&stage, options.rows).await?;
    let relay = start_relay(&stage).await?;
    let receiver = start_receiver(&stage).await?;
    enrol_agent(&stage).await?;
    let (report, key, took) = send(&stage, &expected).await?;
    if let Some(path) = &options.report {
        let text = serde_json::to_vec_pretty(&report).map_err(|e| io("writing the report failed")(e.into()))?;
        std::fs::write(path, text).map_err(io(format!("writing {} failed", path.display())))?;
    }
    story::chapter(&format!("Done in {:.1} s.", took.as_secs_f64()));
    if !options.exit || options.dir.is_some() {
        the_files(&stage, &key);
    }
    if !options.exit {
        let (_, folder) = the_transfer(&stage.agent.state.join("transfers"))?;
        what_next(&stage, &folder, temporary.is_some());
        tokio::signal::ctrl_c().await.map_err(io("waiting for Ctrl-C failed"))?;
    }
    stop(relay, receiver).await?;
    if report.ok { Ok(()) } else { Err(DemoError::Differs) }
}

/// The folder must be ours alone: the demo never mixes with what is there.
fn claim(dir: &Path) -> Result<(), DemoError> {
    std::fs::create_dir_all(dir).map_err(io(format!("creating {} failed", dir.display())))?;
    let mut entries = std::fs::read_dir(dir).map_err(io(format!("reading {} failed", dir.display())))?;
    if entries.next().is_some() {
        return Err(DemoError::Program(format!("{} is not empty: name a new folder", dir.display())));
    }
    Ok(())
}

async fn make_erp(stage: &Stage, rows: u64) -> Result<Vec<Expected>, DemoError> {
    story::chapter("The ERP");
    let clock = towpath_journal::system::SystemClock::new();
    let start = clock.monotonic();
    let bar = indicatif::ProgressBar::new(rows);
    let options = ErpOptions { rows, ..ErpOptions::default() };
    let expected = erp::generate(&stage.erp(), &options, |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    let total: u64 = expected.iter().map(|table| table.rows).sum();
    let told = format!(
        "a wholesaler's database: {} tables, {} rows, {} sales lines",
        expected.len(),
        story::grouped(total),
        story::grouped(rows)
    );
    story::told_in(&told, clock.monotonic().saturating_sub(start));
    Ok(expected)
}

async fn start_relay(stage: &Stage) -> Result<Server, DemoError> {
    story::chapter("The relay");
    let port = free_port().map_err(io("finding a free port failed"))?;
    stage.relay.configure(&format!(
        "[relay]\npublic_url = \"https://127.0.0.1:{port}\"\nlisten = [\"127.0.0.1:{port}\"]\nadmin = \"127.0.0.1:0\"\n"
    ))?;
    let server = stage.relay.serve(&["serve"]).await?;
    story::tell(&format!("listens on {}: SSH and HTTPS on one port", server.listening.listen.join(", ")));
    stage.relay.run(&["tenant", "create", TENANT]).await?;
    story::tell(&format!("has a tenant, {TENANT}"));
    Ok(server)
}

async fn start_receiver(stage: &Stage) -> Result<Server, DemoError> {
    story::chapter("The receiver");
    let port = free_port().map_err(io("finding a free port failed"))?;
    let landing = format!("127.0.0.1:{port}");
    stage.receiver.configure(&format!("[landing]\nlisten = \"{landing}\"\n"))?;
    let code = enrolment_code(stage, "receiver", RECEIVER).await?;
    stage.receiver.run(&["enrol", &code, "--landing", &landing]).await?;
    story::tell("has made its key pair and enrolled with a one-time code");
    let server = stage.receiver.serve(&["serve"]).await?;
    story::tell(&format!("takes files over SFTP on {}", server.listening.listen.join(", ")));
    Ok(server)
}

async fn enrolment_code(stage: &Stage, role: &str, name: &str) -> Result<String, DemoError> {
    stage.relay.run(&["enrolment", "create", "--tenant", TENANT, "--role", role, "--name", name]).await
}

async fn enrol_agent(stage: &Stage) -> Result<(), DemoError> {
    story::chapter("The agent");
    let delivery = stage.delivery();
    std::fs::create_dir_all(&delivery).map_err(io(format!("creating {} failed", delivery.display())))?;
    let config = erp::job_toml(JOB, &stage.erp()) + &recommend::delivery_toml(&delivery, &stage.erp());
    stage.agent.configure(&config)?;
    let code = enrolment_code(stage, "agent", AGENT).await?;
    stage.agent.run(&["enrol", &code]).await?;
    story::tell("has made its 2048-bit key pair and enrolled with a one-time code");
    let agent = fingerprint(&stage.agent)?;
    stage.receiver.run(&["agent", "approve", &agent]).await?;
    story::tell(&format!("the receiver's operator approves the agent's key  {agent}"));
    let receiver = fingerprint(&stage.receiver)?;
    stage.agent.run(&["receiver", "approve", &receiver]).await?;
    story::tell(&format!("the agent's operator approves the receiver's key {receiver}"));
    Ok(())
}

/// What the operators read to each other on the telephone.
fn fingerprint(program: &Program) -> Result<String, DemoError> {
    let path = program.state.join("key.pub");
    let line = std::fs::read_to_string(&path).map_err(io(format!("reading {} failed", path.display())))?;
    let key: towpath_transfer::public_key::PublicKeyLine =
        line.parse().map_err(|e| DemoError::Program(format!("{}: {e}", path.display())))?;
    Ok(key.fingerprint().to_string())
}

async fn send(stage: &Stage, expected: &[Expected]) -> Result<(Report, TransferKey, Duration), DemoError> {
    story::chapter("One night's transfer");
    let clock = towpath_journal::system::SystemClock::new();
    let start = clock.monotonic();
    stage.agent.run_in_front(&["send", "--job", JOB, "--wait"]).await?;
    let took = clock.monotonic().saturating_sub(start);
    story::told_in("extract → pack → push → accept → forward → verify → import → receipt", took);

    let (id, folder) = the_transfer(&stage.agent.state.join("transfers"))?;
    let checked = stage.agent.run(&["receipts", "verify", &id.to_string()]).await;
    let chain_holds = match &checked {
        Ok(text) => {
            text.lines().for_each(story::tell);
            true
        }
        Err(error) => {
            story::tell(&error.to_string());
            false
        }
    };
    let tables = compare_tables(stage, &folder, expected).await?;
    let key = TransferKey { tenant: parsed(TENANT)?, agent: parsed(AGENT)?, id };
    let back = recommend::run(stage, &stage.app()).await?;
    let places = [
        (Place::Agent, stage.agent.state.as_path()),
        (Place::Relay, &stage.relay.state),
        (Place::Receiver, &stage.receiver.state),
    ];
    let mut seconds = timing::stages(&key, &places).await?;
    seconds.extend(timing::stages(&back.key, &places).await?);
    let receipts = ["accepted.json", "imported.json"].map(|name| folder.join("receipts").join(name));
    let all_there = receipts.iter().all(|path| path.is_file());
    let report = Report {
        ok: chain_holds && all_there && back.agrees && tables.iter().all(TableLine::agrees),
        tables,
        downlink: vec![back.line],
        receipts: receipts.into(),
        seconds,
    };
    story::table(&report);
    Ok((report, key, clock.monotonic().saturating_sub(start)))
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, DemoError> {
    text.parse().map_err(|e: T::Err| DemoError::Program(e.to_string()))
}

fn the_transfer(transfers: &Path) -> Result<(TransferId, PathBuf), DemoError> {
    let reading = || format!("reading {} failed", transfers.display());
    let entries: Vec<_> = std::fs::read_dir(transfers).and_then(Iterator::collect).map_err(io(reading()))?;
    let ids = entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse::<TransferId>().ok());
    let id = ids.max().ok_or_else(|| DemoError::Program("the agent has made no transfer".into()))?;
    Ok((id, transfers.join(id.to_string())))
}

async fn compare_tables(stage: &Stage, folder: &Path, expected: &[Expected]) -> Result<Vec<TableLine>, DemoError> {
    let read = |name: &str| std::fs::read(folder.join(name)).map_err(io(format!("reading {name} failed")));
    let manifest = Manifest::parse(&read("manifest.json")?).map_err(|e| DemoError::Program(e.to_string()))?;
    let packed = PackedList::parse(&read(PACKED_NAME)?).map_err(|e| DemoError::Program(e.to_string()))?;
    let app = stage.app();
    let mut lines = Vec::new();
    for table in expected {
        let found = compare::table(&app, table).await?;
        let file = manifest.files.iter().find(|f| f.table().is_some_and(|t| t.table.as_str() == table.table));
        let packed_name = file.and_then(|f| towpath_transfer::packed::packed_name(&f.name).ok());
        let packed_bytes = packed.files.iter().find(|p| Some(&p.name) == packed_name.as_ref()).map_or(0, |p| p.size);
        lines.push(TableLine {
            name: table.table.clone(),
            rows_erp: table.rows,
            rows_app: found.rows,
            csv_bytes: file.map_or(0, |f| f.size),
            packed_bytes,
            totals_agree: found.totals_agree,
        });
    }
    Ok(lines)
}

fn the_files(stage: &Stage, key: &TransferKey) {
    let spool = stage.relay.state.join("spool").join(TENANT).join(AGENT).join("uplink").join(key.id.to_string());
    story::chapter("Where the files lie:");
    story::tell(&format!("the ERP            {}", stage.erp().display()));
    story::tell(&format!("manifest, receipts {}", stage.agent.state.join("transfers").join(key.id.to_string()).display()));
    story::tell(&format!("packed files       {}", spool.display()));
    story::tell(&format!("the app database   {}", stage.app().display()));
    story::tell(&format!("return files       {}", stage.delivery().display()));
}

fn what_next(stage: &Stage, folder: &Path, temporary: bool) {
    story::chapter("What to try next, in another terminal:");
    let agent = stage.agent.command_line();
    story::tell("send again: unchanged tables send no bytes");
    story::tell(&format!("  {agent} send --wait"));
    story::tell("see what the agent knows");
    story::tell(&format!("  {agent} status"));
    story::tell("check a receipt with no Towpath at hand");
    let receipt = folder.join("receipts").join("imported.json");
    story::tell(&format!(
        "  ssh-keygen -Y verify -f '{}' -I {RECEIVER} -n towpath-receipt@1 -s '{1}.sig' < '{1}'",
        stage.agent.state.join("allowed_signers").display(),
        receipt.display()
    ));
    let going = if temporary { ", and everything here is removed" } else { "" };
    story::chapter(&format!("Ctrl-C ends the demo{going}."));
}

async fn stop(relay: Server, receiver: Server) -> Result<(), DemoError> {
    let (relay, receiver) = tokio::join!(relay.stop(), receiver.stop());
    relay.and(receiver)
}
