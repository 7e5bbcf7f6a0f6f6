//! The command line: `towpath-receiver`.

mod agent;
mod args;
mod enrol;
mod quarantine;
mod serve;
mod transfer;
mod verify;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;
use towpath_host::{folders, output};
use towpath_transfer::{Code, Failure};

use crate::{
    config::{self, Config},
    host::Host,
};
use args::{Args, Command, ConfigCommand};

/// The name of this program's configuration file and state folder.
const NAME: &str = "receiver";
/// Exit status of a wrong command line.
const USAGE: u8 = 2;

/// Runs the program with its command line, the program's own name first.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are results and go to standard output; nobody is left to tell where that is closed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match execute(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::failed(&failure);
            ExitCode::FAILURE
        }
    }
}

fn execute(args: Args) -> Result<(), Failure> {
    if let Command::Config(ConfigCommand::Example) = &args.command {
        return output::line(config::EXAMPLE.trim_end());
    }
    // The file that is named, or the one in its usual place, or the defaults.
    let file = args.config.clone().or_else(|| folders::usual_config(NAME).filter(|path| path.exists()));
    let config = file.map_or_else(Config::defaults, |path| Config::read(&path))?;
    let state = folders::state(NAME, [args.state.as_deref(), config.state.as_deref()])?;
    if let Command::Config(ConfigCommand::Check) = &args.command {
        return output::line(&format!("the configuration is valid; the state lies in {}", state.display()));
    }
    let serving = matches!(args.command, Command::Serve(_));
    output::logs(args.log_format, serving);
    let mut runtime =
        if serving { tokio::runtime::Builder::new_multi_thread() } else { tokio::runtime::Builder::new_current_thread() };
    let runtime = runtime.enable_all().build();
    let runtime = runtime.map_err(|e| Failure::park(Code::Internal, "starting the runtime failed").caused_by(e))?;
    let done = runtime.block_on(async {
        // Looking at a folder needs no state, and must not make one.
        if let Command::Verify(options) = &args.command {
            return verify::verify(&config, &state, options);
        }
        dispatch(&Host::open(config, &state)?, args.command).await
    });
    // A task that does not react any more must not keep the process.
    runtime.shutdown_background();
    done
}

async fn dispatch(host: &Host, command: Command) -> Result<(), Failure> {
    match command {
        Command::Enrol(options) => enrol::enrol(host, options).await,
        Command::Serve(options) => serve::serve(host, &options).await,
        Command::Agent(command) => agent::run(host, command).await,
        Command::Status(options) => transfer::status(host, &options).await,
        Command::Show(options) => transfer::show(host, &options).await,
        Command::Retry(options) => transfer::retry(host, &options).await,
        Command::Quarantine(command) => quarantine::run(host, &command),
        Command::Verify(_) | Command::Config(_) => Ok(()),
    }
}
