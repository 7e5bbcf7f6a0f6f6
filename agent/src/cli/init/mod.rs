//! `init`: sets this host up, by questions at a terminal or by answers given beforehand.

mod args;
mod dialog;
mod relay;
mod source;
mod try_out;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use towpath_host::{
    config, owner,
    program::{self, Threads},
};
use towpath_transfer::{Code, Failure, failure::Result};

pub(super) use self::args::InitArgs;
use self::{dialog::Dialog, try_out::DryTable};
use super::{
    args::{Args, OutputArgs, SendArgs, WaitArgs},
    base, doctor, output, send, service,
    service_args::{InstallArgs, ServiceCommand},
};
use crate::{
    blocking::blocking,
    config::{Config, LoadedConfig, TableConfig},
    doctor::{Check, Outcome},
    host::{Host, not_enrolled},
    setup::{Answers, NONE, SourceKind, configuration, network_of},
};

/// The steps, as they are counted in front of a person.
const STEPS: usize = 7;

/// What came of it.
#[derive(Serialize)]
struct SetUpView {
    configuration: String,
    /// Whether the file was there before; then nothing in it was changed.
    configuration_kept: bool,
    state: String,
    tenant: String,
    name: String,
    fingerprint: String,
    /// The receiver whose receipts are believed.
    receiver: Option<String>,
    job: String,
    /// What the dry run has read; empty without one.
    tables: Vec<DryTable>,
    /// Whether the first transfer was sent and imported.
    sent: bool,
    /// Whether the service was installed and runs.
    service: bool,
}

/// A set-up under way.
struct SetUp<'a> {
    args: &'a Args,
    file: PathBuf,
    /// Whether the file is there and without a job, as an installation package has written it.
    replaces: bool,
    /// The state folder, once it is known: whoever has become the service's user meanwhile would look for one of its own.
    state: Option<PathBuf>,
    dialog: Dialog,
    answers: Answers,
    /// The tables beside those of the profile.
    chosen: Vec<TableConfig>,
}

pub(super) fn run(args: &Args, init: &InitArgs) -> Result<()> {
    let file = std::path::absolute(args.config_file()?)
        .map_err(|error| Failure::park(Code::ConfigInvalid, "the path of the configuration file").caused_by(error))?;
    // The answers may be root's alone.
    let answers = init.merged()?;
    let state = LoadedConfig::read(&file).ok().map(|loaded| args.state_folder(&loaded.config)).transpose()?;
    if let Some(state) = &state {
        // Then nothing is written outside the state folder, which may belong to the service's user by now.
        owner::become_owner_of(state)?;
    }
    program::block_on(Threads::Many, async {
        let dialog = Dialog::new(init.answers.is_some() || init.output.json, program::stop_signal()?);
        SetUp { args, file, replaces: false, state, dialog, answers, chosen: Vec::new() }.run(&init.output).await
    })
}

impl SetUp<'_> {
    async fn run(mut self, output: &OutputArgs) -> Result<()> {
        let kept = self.kept()?;
        let host = match &kept {
            Some(config) => self.host(config.clone())?,
            None => self.host(self.network()?)?,
        };
        if !self.dialog.is_there() {
            self.refuse_gaps(kept.is_some(), host.enrolment()?.is_some())?;
        }
        output::say(&format!(
            "configuration  {}{}",
            self.file.display(),
            if kept.is_some() { " (is there, and stays as it is)" } else { "" }
        ));
        output::say(&format!("state          {}", host.layout.state().display()));
        #[cfg(windows)]
        if self.replaces && crate::service::windows::status()?.is_some_and(|standing| standing.running) {
            crate::service::windows::stop()?;
            output::say("the service has stopped: it has begun with that file, and starts anew with what comes of this");
        }
        self.step(1, "the relay");
        let host = self.enrolled(host).await?;
        self.step(2, "the receiver");
        let receiver = self.receiver(&host).await?;
        let kept_it = kept.is_some();
        let config = match kept {
            Some(config) => {
                output::say(&format!("the jobs stand in {} already", self.file.display()));
                config
            }
            None => self.new_config(&host).await?,
        };
        let host = self.host(config)?;
        self.step(5, "a dry run: everything is read once, nothing is sent");
        let tables = self.dry_run(&host).await?;
        if !kept_it {
            self.write()?;
        }
        self.step(6, "the first transfer");
        let sent = self.first_transfer(&host, receiver.is_some()).await?;
        self.step(7, "the service");
        let service = self.service(&host).await?;
        let enrolment = host.enrolment()?.ok_or_else(|| not_enrolled(&host.layout))?;
        let view = SetUpView {
            configuration: self.file.display().to_string(),
            configuration_kept: kept_it,
            state: host.layout.state().display().to_string(),
            tenant: enrolment.tenant.to_string(),
            name: enrolment.name.to_string(),
            fingerprint: host.identity()?.fingerprint().to_string(),
            receiver,
            job: host.settings().jobs.first().map(|job| job.name.to_string()).unwrap_or_default(),
            tables,
            sent,
            service,
        };
        if output.json { output::json(&view) } else { tell(&view) }
    }

    /// Job and tables, asked for and found to be there.
    async fn new_config(&mut self, host: &Host) -> Result<Config> {
        self.step(3, "the ERP");
        let listed = self.source(host).await?;
        self.step(4, "what is sent, and when");
        self.chosen = self.tables(listed.as_deref().unwrap_or_default()).await?;
        let tables = self.chosen.clone();
        self.schedule(&tables).await?;
        self.config(&tables)
    }

    /// The configuration that is there already, with its jobs. One that an installation package has written without any is gone on
    /// from, and replaced at the end.
    fn kept(&mut self) -> Result<Option<Config>> {
        match LoadedConfig::read(&self.file) {
            Ok(loaded) if loaded.config.jobs.is_empty() => {
                if let Some(network) = network_of(&config::read_text(&self.file)?) {
                    self.answers = std::mem::take(&mut self.answers).or(network);
                    self.replaces = true;
                    return Ok(None);
                }
                let shown = self.file.display();
                let message = format!("{shown} is there and has no [[job]]: add one, or move the file away and set up anew");
                Err(Failure::park(Code::ConfigInvalid, message))
            }
            Ok(loaded) => Ok(Some(loaded.config)),
            Err(failure) if failure.code() == Code::ConfigMissing => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// What is known before the ERP is asked for: how the relay is reached, and whom to believe.
    fn network(&self) -> Result<Config> {
        let Answers { trust, proxy, proxy_user, proxy_password, .. } = self.answers.clone();
        let network = Answers { trust, proxy, proxy_user, proxy_password, ..Answers::default() };
        let stand_in = Answers { source: Some(SourceKind::Sqlite), path: Some("not-asked-yet".into()), ..network };
        self.parsed(&stand_in, &[placeholder()?])
    }

    /// The configuration that the answers make, with these tables.
    fn config(&self, tables: &[TableConfig]) -> Result<Config> {
        self.parsed(&self.answers, tables)
    }

    fn parsed(&self, answers: &Answers, tables: &[TableConfig]) -> Result<Config> {
        let text = configuration(answers, tables);
        // The person has not written this file: where in it a mistake stands means nothing to them.
        Config::parse(&text, &self.file).map_err(|mistake| {
            let meant = mistake.meant.map(|meant| format!(" - did you mean `{meant}`?")).unwrap_or_default();
            Failure::park(Code::ConfigInvalid, format!("{}{meant}", mistake.problem))
        })
    }

    fn host(&self, config: Config) -> Result<Host> {
        let state = self.state.clone().map_or_else(|| self.args.state_folder(&config), Ok)?;
        Host::new(LoadedConfig { file: self.file.clone(), config }, &state, base()?)
    }

    fn write(&self) -> Result<()> {
        let folder = self.file.parent().unwrap_or(&self.file);
        let failed = |error| Failure::park(Code::FileFailed, format!("writing {} failed", self.file.display())).caused_by(error);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let text = configuration(&self.answers, &self.chosen);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
        let begun = self.file.with_extension("toml.new");
        let path = if self.replaces { &begun } else { &self.file };
        if self.replaces && begun.exists() {
            std::fs::remove_file(&begun).map_err(failed)?;
        }
        let mut new = options.open(path).map_err(failed)?;
        std::io::Write::write_all(&mut new, text.as_bytes()).and_then(|()| new.sync_all()).map_err(failed)?;
        if self.replaces {
            std::fs::rename(&begun, &self.file).map_err(failed)?;
        }
        output::say(&format!("written: {}", self.file.display()));
        Ok(())
    }

    async fn first_transfer(&self, host: &Host, receiver: bool) -> Result<bool> {
        if host.settings().jobs.iter().any(|job| job.source.is_unseen()) {
            output::say("not sent: only the service can read the ERP; once it runs: towpath-agent send --wait");
            return Ok(false);
        }
        let question = "Send the first transfer now? The receiver's operator must have approved this agent's key";
        let wanted = match self.answers.send {
            Some(wanted) => wanted,
            None => receiver && self.dialog.is_there() && self.dialog.yes(question, true).await?,
        };
        if !wanted {
            output::say("not sent; later: towpath-agent send --wait");
            return Ok(false);
        }
        let wait = WaitArgs { wait: true, timeout: FIRST_TRANSFER_TIMEOUT };
        match send::run(host, &SendArgs { job: None, full: false, wait, output: OutputArgs { json: false } }).await {
            Ok(()) => Ok(true),
            // Everything is set up; what holds the first transfer up is no reason to begin anew.
            Err(failure) if self.dialog.is_there() => {
                output::say(&format!("the first transfer: {}\nhelp: see docs/errors/{}.md", failure.report(), failure.code()));
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }

    /// The service comes last: from then on the state folder belongs to its user.
    async fn service(&self, host: &Host) -> Result<bool> {
        let question = "Install the service and start it? It runs by the schedule, and starts with this host";
        let wanted = match self.answers.service {
            Some(wanted) => wanted,
            None => self.dialog.is_there() && may_install() && self.dialog.yes(question, true).await?,
        };
        if wanted && !may_install() {
            // A set-up that was repeated goes on as the service's user, who can look whether everything is done.
            let runs = service::run(self.args, &ServiceCommand::Status(OutputArgs { json: false }));
            return runs.map(|()| true);
        }
        if !wanted {
            output::say("not installed; later, as root: towpath-agent service install --now");
            return Ok(false);
        }
        let install = InstallArgs { user: crate::service::installation::DEFAULT_USER.to_owned(), now: true, dry_run: false };
        match service::run(self.args, &ServiceCommand::Install(install)) {
            Ok(()) => {
                // It is installed and runs: that nobody could look through its eyes takes nothing of that back.
                if let Err(failure) = look_as_the_service(std::env::current_exe(), &self.file, host.layout.state()).await {
                    output::say(&not_looked(&failure));
                }
                Ok(true)
            }
            Err(failure) if self.dialog.is_there() => {
                output::say(&format!("the service: {}\nhelp: see docs/errors/{}.md", failure.report(), failure.code()));
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }

    fn step(&self, number: usize, what: &str) {
        output::say(&format!("\n[{number}/{STEPS}] {what}"));
    }
}

/// What root may read and write, the service perhaps may not: it looks by itself, and what is wrong is told now and not at night.
/// Another process asks it, one that goes on as the service's user.
async fn look_as_the_service(program: std::io::Result<PathBuf>, file: &Path, state: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Looked {
        checks: Vec<Check>,
    }
    let failed = |message: &str| Failure::park(Code::CheckFailed, message.to_owned());
    let program = program.map_err(|error| failed("finding this program").caused_by(error))?;
    let mut doctor = std::process::Command::new(program);
    doctor.arg("--config").arg(file).arg("--state").arg(state).args(["doctor", "--json"]);
    doctor.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::inherit());
    let run = move || doctor.output().map_err(|error| failed("starting towpath-agent doctor").caused_by(error));
    let output = blocking(run).await?;
    let looked: Looked = serde_json::from_slice(&output.stdout)
        .map_err(|error| failed("reading what towpath-agent doctor says").caused_by(error))?;
    let wrong: Vec<_> = looked.checks.iter().filter(|check| check.outcome == Outcome::Failed).collect();
    if wrong.is_empty() {
        output::say("the service reaches everything that it needs (towpath-agent doctor)");
        return Ok(());
    }
    for check in wrong {
        doctor::tell(check)?;
    }
    output::say("the service runs, and cannot do all its work before this is mended; look again with: towpath-agent doctor");
    Ok(())
}

/// What is told where the service could not be looked at.
fn not_looked(failure: &Failure) -> String {
    format!(
        "warning: the service runs, and whether it reaches everything that it needs could not be looked at: {}\n\
         look yourself: towpath-agent doctor",
        failure.report()
    )
}

/// Whether this process may still install a service; Windows says so itself.
fn may_install() -> bool {
    #[cfg(unix)]
    return owner::is_root();
    #[cfg(not(unix))]
    true
}

/// How long the first transfer is waited for; it goes on all the same.
const FIRST_TRANSFER_TIMEOUT: std::time::Duration = std::time::Duration::from_hours(1);

/// A job has a table; before any is chosen, this one.
fn placeholder() -> Result<TableConfig> {
    crate::setup::table_config("not-asked-yet", &[])
}

fn tell(view: &SetUpView) -> Result<()> {
    output::say("");
    output::line(&format!("agent {} of tenant {} is set up", view.name, view.tenant))?;
    if view.receiver.is_none() {
        output::hint("next: compare the receiver's key with its operator, then: towpath-agent receiver approve SHA256:…")?;
    }
    if !view.sent {
        output::line(&format!("next: its operator approves this agent: towpath-receiver agent approve {}", view.fingerprint))?;
        output::hint("next: send the first transfer: towpath-agent send --wait")?;
    }
    if !view.service {
        output::hint("next: leave it running: towpath-agent service install --now (or towpath-agent run in a terminal)")?;
    }
    output::hint("whenever you want to know: towpath-agent status, towpath-agent doctor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_that_could_not_be_looked_at_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let look = async |program: std::io::Result<PathBuf>| {
            look_as_the_service(program, Path::new("agent.toml"), folder.path()).await.unwrap_err()
        };
        let none = look(Ok(folder.path().join("none"))).await;
        let told = not_looked(&none);
        assert!(told.starts_with("warning: the service runs") && told.contains("starting towpath-agent doctor"), "{told}");
        assert!(told.ends_with("look yourself: towpath-agent doctor"), "{told}");
        // A program that says nothing of what it has found.
        #[cfg(unix)]
        assert!(look(Ok("true".into())).await.message().contains("reading what towpath-agent doctor says"));
        assert!(look(Err(std::io::ErrorKind::NotFound.into())).await.message().contains("finding this program"));
    }
}
