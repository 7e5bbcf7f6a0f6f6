//! The command line: `towpath-agent`.

mod alert;
mod args;
mod check;
mod config;
mod diff;
mod doctor;
mod enrol;
mod extract;
mod history;
mod init;
mod key;
mod output;
#[cfg(windows)]
mod package;
mod pause;
mod profile;
mod progress;
mod receipts;
mod receive;
mod receiver;
mod reload;
mod run;
mod schedule;
mod secret;
mod send;
mod service;
mod service_args;
#[cfg(windows)]
mod service_windows;
mod status;
mod support;
mod tables;
mod times;
mod transfer_args;
mod update;

use std::{ffi::OsString, process::ExitCode, sync::Arc, time::Duration};

use towpath_host::{
    logs, manual, owner,
    program::{self, Threads},
};
use towpath_journal::{
    FailPoints,
    system::{SystemClock, SystemEntropy},
};
use towpath_transfer::{Code, Failure, failure::Result};

use crate::{
    config::LoadedConfig,
    host::{Base, Host, OpenHost},
    parts::{NoWatcher, Watcher},
};
use args::{Args, Command};

/// How long closing the journal may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// What this program is called in logs.
const PROGRAM: &str = "towpath-agent";

/// Runs the program with its command line, the program's own name first.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    program::run(args, execute)
}

fn execute(args: Args) -> Result<()> {
    output::repeat_with(output::repeated(&args));
    if let Command::Manual { folder } = &args.command {
        return manual::write::<Args>(folder);
    }
    if let Command::Config(command) = &args.command {
        return config::run(&args, command);
    }
    if let Command::Profile(command) = &args.command {
        return profile::run(command);
    }
    if let Command::Secret(command) = &args.command {
        return secret::run(command);
    }
    if let Command::Service(command) = &args.command {
        return service::run(&args, command);
    }
    if let Command::Doctor(asked) = &args.command {
        logs::start(PROGRAM, args.log_format, false, None);
        return doctor::run(&args, asked);
    }
    if let Command::SupportBundle(asked) = &args.command {
        logs::start(PROGRAM, args.log_format, false, None);
        return support::run(&args, asked);
    }
    if let Command::Init(init) = &args.command {
        logs::start(PROGRAM, args.log_format, false, None);
        return init::run(&args, init);
    }
    #[cfg(windows)]
    if matches!(&args.command, Command::Run(run) if run.service) {
        return service_windows::dispatch(args);
    }
    #[cfg(any(target_os = "linux", windows))]
    if let Command::Update(update::UpdateCommand::Apply(asked)) = &args.command {
        // What a task of Windows prints is seen by nobody.
        #[cfg(windows)]
        if asked.as_configured || asked.go_on {
            logs::start(PROGRAM, args.log_format, true, Some(Box::new(logs::EventLog(crate::service::windows::SERVICE))));
            return update::apply(&args, *asked);
        }
        logs::start(PROGRAM, args.log_format, asked.as_configured || asked.go_on, None);
        return update::apply(&args, *asked);
    }
    let serving = matches!(args.command, Command::Run(_));
    let log = logs::start(PROGRAM, args.log_format, serving, None);
    let host = host(&args)?;
    log.apply(&host.settings().log);
    program::block_on(Threads::Many, dispatch(host, args.command))
}

fn host(args: &Args) -> Result<Host> {
    let file = args.config_file()?;
    let config = match LoadedConfig::read(&file) {
        // Enrolment, key and pins need no configuration, unless a file is named that is not there.
        Err(failure) if failure.code() == Code::ConfigMissing && args.config.is_none() && !needs_config(&args.command) => {
            LoadedConfig { config: crate::config::Config::parse("", &file)?, file }
        }
        Err(failure) if failure.code() == Code::ConfigMissing => {
            let message = format!("{failure}; begin with: towpath-agent config example > {}", file.display());
            return Err(Failure::park(Code::ConfigMissing, message));
        }
        Err(failure) if matches!(args.command, Command::Reload(_)) => {
            let message = format!("{}; an agent that runs keeps the configuration that it has", failure.message());
            return Err(Failure::park(failure.code(), message));
        }
        other => other?,
    };
    let state = args.state_folder(&config.config)?;
    owner::become_owner_of(&state)?;
    Host::new(config, &state, base()?)
}

fn base() -> Result<Base> {
    Ok(Base { clock: Arc::new(SystemClock::new()), entropy: Arc::new(SystemEntropy::new()), fail_points: fail_points()? })
}

fn needs_config(command: &Command) -> bool {
    matches!(
        command,
        Command::Extract(_) | Command::Send(_) | Command::Receive(_) | Command::Run(_) | Command::Retry(_) | Command::Schedule(_)
    )
}

#[cfg(feature = "failpoints")]
fn fail_points() -> Result<Arc<dyn FailPoints>> {
    towpath_journal::failpoints::from_environment(towpath_transfer::state::Place::Agent)
}

#[cfg(not(feature = "failpoints"))]
#[expect(clippy::unnecessary_wraps, reason = "the one with the feature can fail")]
fn fail_points() -> Result<Arc<dyn FailPoints>> {
    Ok(Arc::new(towpath_journal::NoFailPoints))
}

async fn dispatch(host: Host, command: Command) -> Result<()> {
    match command {
        Command::Enrol(args) => enrol::run(&host, &args).await,
        Command::Receiver(command) => receiver::run(&host, &command).await,
        Command::Extract(args) => extract::run(&host, &args).await,
        Command::Send(args) => send::run(&host, &args).await,
        Command::Receive(args) => receive::run(&host, &args).await,
        Command::Run(_) => run::run(&host).await,
        Command::Schedule(args) => schedule::run(&host, &args).await,
        Command::Pause(args) => pause::pause(&host, &args),
        Command::Resume(args) => pause::resume(&host, &args),
        Command::Status(args) => status::status(&host, &args).await,
        Command::History(args) => history::history(&host, &args).await,
        Command::Show(args) => history::show(&host, &args).await,
        Command::Diff(args) => diff::run(&host, &args).await,
        Command::Retry(args) => send::retry(&host, &args).await,
        Command::Reload(args) => reload::run(&host, &args).await,
        Command::Receipts(command) => receipts::run(&host, &command).await,
        Command::Alert(command) => alert::run(&host, &command).await,
        Command::Key(command) => key::run(&host, &command).await,
        Command::Update(command) => update::run(&host, &command).await,
        Command::Moved => enrol::moved(&host).await,
        Command::Config(_)
        | Command::Doctor(_)
        | Command::Init(_)
        | Command::Manual { .. }
        | Command::Profile(_)
        | Command::Secret(_)
        | Command::Service(_)
        | Command::SupportBundle(_) => Ok(()),
    }
}

/// Opens the host, works with it, and closes it whatever came of the work.
async fn with_open<T>(host: &Host, watcher: Arc<dyn Watcher>, work: impl AsyncFnOnce(&OpenHost) -> Result<T>) -> Result<T> {
    let open = host.open(watcher).await?;
    let done = work(&open).await;
    tokio::select! {
        () = open.journal.close() => {}
        // Everything that is done stands in the journal; a query that hangs must not keep the process.
        () = host.clock().sleep(CLOSE_LIMIT) => tracing::warn!("the journal was not closed within {} s", CLOSE_LIMIT.as_secs()),
    }
    warn_of_skew(&open);
    done
}

/// As [`with_open`], without anybody watching.
async fn quietly<T>(host: &Host, work: impl AsyncFnOnce(&OpenHost) -> Result<T>) -> Result<T> {
    with_open(host, Arc::new(NoWatcher), work).await
}

/// A wrong clock on the ERP host is a warning, not an outage.
fn warn_of_skew(open: &OpenHost) {
    if let Some(skew) = open.relay.clock_skew() {
        output::say(&format!(
            "warning: the clock of this machine and the relay's differ by {skew:#}; transfers work, but their times are wrong \
             [{}]\nhelp: see docs/errors/{}.md",
            Code::ClockSkew,
            Code::ClockSkew
        ));
    }
}
