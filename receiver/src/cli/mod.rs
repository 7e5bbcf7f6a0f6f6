//! The command line: `towpath-receiver`.

mod adopt;
mod agent;
mod args;
mod enrol;
mod quarantine;
mod receipts;
mod send;
mod sent;
mod serve;
mod tables;
mod transfer;
mod verify;

use std::{ffi::OsString, process::ExitCode};

use towpath_host::{
    config::CheckReport,
    folders, logs, manual, output, owner,
    program::{self, Threads},
};
use towpath_transfer::Failure;

use crate::{
    config::{self, Config},
    host::Host,
};
use args::{Args, Command, ConfigCommand, ReceiptsCommand};

/// The name of this program's configuration file and state folder.
const NAME: &str = "receiver";

/// What this program is called in logs.
const PROGRAM: &str = "towpath-receiver";

/// Runs the program with its command line, the program's own name first.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    program::run(args, execute)
}

fn execute(args: Args) -> Result<(), Failure> {
    if let Command::Config(ConfigCommand::Example) = &args.command {
        return output::line(config::EXAMPLE.trim_end());
    }
    if let Command::Manual { folder } = &args.command {
        return manual::write::<Args>(folder);
    }
    // The file that is named, or the one in its usual place, or the defaults.
    let file = args.config.clone().or_else(|| folders::usual_config(NAME).filter(|path| path.exists()));
    let config = match (&file, &args.command) {
        (None, _) => Config::defaults()?,
        (Some(path), Command::Config(ConfigCommand::Check { json })) => Config::checked(path, *json)?,
        (Some(path), _) => Config::read(path)?,
    };
    let state = folders::state(NAME, [args.state.as_deref(), config.state.as_deref()])?;
    if let Command::Config(ConfigCommand::Check { json }) = args.command {
        let (warnings, unseen) = (&config.warnings(), &config.unseen());
        if json {
            let file = &file.unwrap_or_default();
            return output::json(&CheckReport { file, valid: true, mistakes: &[], warnings, unseen });
        }
        towpath_host::config::tell(warnings, unseen);
        return output::line(&format!("the configuration is valid; the state lies in {}", state.display()));
    }
    let was_root = owner::is_root();
    owner::become_owner_of(&state)?;
    let serving = matches!(args.command, Command::Serve(_));
    logs::start(PROGRAM, args.log_format, serving, None).apply(&config.log);
    let threads = if serving { Threads::Many } else { Threads::One };
    program::block_on(threads, async {
        // Looking at a folder needs no state, and must not make one.
        if let Command::Verify(options) = &args.command {
            return verify::verify(&config, &state, options, was_root && !owner::is_root());
        }
        dispatch(&Host::open(config, &state)?, args.command).await
    })
}

async fn dispatch(host: &Host, command: Command) -> Result<(), Failure> {
    match command {
        Command::Enrol(options) => enrol::enrol(host, options).await,
        Command::Serve(options) => serve::serve(host, &options).await,
        Command::Agent(command) => agent::run(host, command).await,
        Command::Send(options) => send::send(host, &options).await,
        Command::Sent(options) => sent::sent(host, &options).await,
        Command::Receipts(ReceiptsCommand::Verify(options)) => receipts::verify(host, &options).await,
        Command::Status(options) => transfer::status(host, &options).await,
        Command::Show(options) => transfer::show(host, &options).await,
        Command::Adopt(options) => adopt::adopt(host, options).await,
        Command::Retry(options) => transfer::retry(host, &options).await,
        Command::Quarantine(command) => quarantine::run(host, &command),
        Command::Verify(_) | Command::Config(_) | Command::Manual { .. } => Ok(()),
    }
}
