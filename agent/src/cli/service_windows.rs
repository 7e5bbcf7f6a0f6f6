//! `service`, and `run --service`, on Windows.

use serde_json::json;
use towpath_host::logs;
use towpath_transfer::{Code, Failure, failure::Result};

use super::{
    args::Args,
    output, package,
    service::{installation, tell},
    service_args::ServiceCommand,
};
use crate::service::windows;

pub(super) fn run(args: &Args, command: &ServiceCommand) -> Result<()> {
    match command {
        ServiceCommand::Install(install) => {
            let of = installation(args, install)?;
            if install.dry_run {
                let (user, executable) = (&of.user, of.executable.display());
                return output::line(&format!(
                    "1. make the service {}: {executable} --config {} --state {} run --service, as {user}\n\
                     2. let {user} and administrators, and nobody else, open state folder, configuration and secret files\n\
                     3. make the source {} of the Event Log",
                    windows::SERVICE,
                    of.config.display(),
                    of.state.display(),
                    windows::SERVICE,
                ));
            }
            windows::install(&of, install.now, &tell)
        }
        ServiceCommand::Uninstall => match windows::uninstall()? {
            true => {
                output::line("stopped and removed the service; configuration, key, journal and transfers are left as they are")
            }
            false => output::line("the service is not installed"),
        },
        ServiceCommand::Start => windows::start().and_then(|()| output::line("the service runs")),
        ServiceCommand::Stop => windows::stop().and_then(|()| output::line("the service has stopped")),
        ServiceCommand::Restart => windows::restart().and_then(|()| output::line("the service runs")),
        ServiceCommand::Status(form) => status(form.json),
        ServiceCommand::SetUp(asked) => package::set_up(args, asked),
        ServiceCommand::BeforeRemoval => package::before_removal(),
        ServiceCommand::UndoRemoval => package::undo_removal(args),
        ServiceCommand::RemoveData => package::remove_data(args),
    }
}

fn status(as_json: bool) -> Result<()> {
    let standing = windows::status()?;
    if as_json {
        output::json(&json!({
            "installed": standing.is_some(),
            "enabled": standing.as_ref().is_some_and(|s| s.automatic),
            "running": standing.as_ref().is_some_and(|s| s.running),
            "state": standing.as_ref().map(|s| s.state),
            "pid": standing.as_ref().and_then(|s| s.pid),
            "user": standing.as_ref().and_then(|s| s.account.clone()),
        }))?;
    } else if let Some(standing) = &standing {
        let boot = if standing.automatic { "starts with this host" } else { "is not started at boot" };
        output::line(&format!("{}, {boot}", standing.state))?;
    }
    match standing {
        Some(standing) if standing.running => Ok(()),
        Some(_) => Err(Failure::park(Code::NotRunning, "the service does not run; start it with: towpath-agent service start")),
        None => Err(Failure::park(
            Code::NotRunning,
            "the service is not installed; install it with: towpath-agent service install --now",
        )),
    }
}

/// `run --service`: what Windows starts.
pub(super) fn dispatch(args: Args) -> Result<()> {
    windows::dispatch(move |stop, ready| {
        let events = Box::new(logs::EventLog(windows::SERVICE));
        let log = logs::start(super::PROGRAM, args.log_format, true, Some(events));
        let host = super::host(&args)?;
        log.apply(&host.settings().log);
        super::program::block_on(super::Threads::Many, super::run::run_until(&host, stop, ready))
    })
}
