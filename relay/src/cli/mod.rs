//! The command line: `towpath-relay`.

mod agent;
mod args;
mod audit;
mod config_check;
mod enrolment;
mod key;
mod late;
mod limit_args;
mod release;
mod serve;
mod tenant;
mod tenant_limits;
mod transfer;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, sync::Arc};

use towpath_host::{
    folders, logs, manual, output, owner,
    program::{self, Threads},
};
use towpath_journal::system::{SystemClock, SystemEntropy};
use towpath_transfer::{Code, Failure, failure::Result};

use crate::{
    config::{self, Config},
    host::Host,
};
use args::{Args, Command, ConfigCommand};

/// The name of this program's configuration file and state folder.
const NAME: &str = "relay";

/// What this program is called in logs.
const PROGRAM: &str = "towpath-relay";

/// Runs the program with its command line, the program's own name first.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    program::run(args, execute)
}

fn execute(args: Args) -> Result<()> {
    // Three commands need neither configuration nor state.
    match &args.command {
        Command::Manual { folder } => return manual::write::<Args>(folder),
        Command::Config(ConfigCommand::Example) => return output::line(config::EXAMPLE.trim_end()),
        Command::Openapi => return output::line(crate::api::openapi_json()?.trim_end()),
        _ => {}
    }
    let config = config(&args)?;
    let state = folders::state(NAME, [args.state.as_deref(), config.relay.state.as_deref()])?;
    if let Command::Config(ConfigCommand::Check { json }) = args.command {
        let file = args.config.or_else(|| folders::usual_config(NAME)).unwrap_or_default();
        return config_check::tell(&config, &file, &state, json);
    }
    owner::become_owner_of(&state)?;
    let serving = matches!(args.command, Command::Serve(_));
    logs::start(PROGRAM, args.log_format, serving, None).apply(&config.log);
    let host = Host { config, state, clock: Arc::new(SystemClock::new()), entropy: Arc::new(SystemEntropy::new()) };
    let threads = if serving { Threads::Many } else { Threads::One };
    program::block_on(threads, dispatch(host, args.command))
}

/// The configuration: the file that is named, or the one in its usual place, or the defaults; with what the command line says.
fn config(args: &Args) -> Result<Config> {
    let file: Option<PathBuf> = args.config.clone().or_else(|| folders::usual_config(NAME).filter(|path| path.exists()));
    let mut config = match (file, &args.command) {
        (None, _) => Config::default(),
        (Some(path), Command::Config(ConfigCommand::Check { json })) => Config::checked(&path, *json)?,
        (Some(path), _) => Config::load(&path)?,
    };
    if let Some(url) = &args.public_url {
        config.relay.public_url = config::public_url(url).map_err(|why| Failure::park(Code::ConfigInvalid, why))?;
    }
    if let Command::Serve(options) = &args.command {
        if !options.listen.is_empty() {
            config.relay.listen.clone_from(&options.listen);
        }
        config.relay.admin = options.admin.unwrap_or(config.relay.admin);
    }
    Ok(config)
}

async fn dispatch(host: Host, command: Command) -> Result<()> {
    match command {
        Command::Serve(options) => serve::serve(host, options).await,
        Command::Tenant(command) => tenant::run(&host, command).await,
        Command::Enrolment(command) => enrolment::run(&host, command).await,
        Command::Agent(command) => agent::run(&host, command).await,
        Command::Transfer(command) => transfer::run(&host, command).await,
        Command::Release(command) => release::run(&host, command).await,
        Command::Keys => tenant::keys(&host),
        Command::Key(command) => key::run(&host, command).await,
        Command::Late(options) => late::run(&host, &options).await,
        Command::Audit(command) => audit::run(&host, command).await,
        Command::Config(_) | Command::Openapi | Command::Manual { .. } => Ok(()),
    }
}
