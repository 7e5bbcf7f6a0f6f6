//! `service`: installs this agent as a service of the host, and starts and stops it.

use std::path::Path;

use towpath_transfer::{Code, Failure, failure::Result};

#[cfg(unix)]
use super::service_args::ServiceCommand;
use super::{args::Args, output, service_args::InstallArgs};
#[cfg(unix)]
use crate::service::{
    systemd::{self, Systemd},
    unit::{self, UNIT},
};
use crate::{config::LoadedConfig, service::installation::Installation};

#[cfg(windows)]
pub(super) use super::service_windows::run;

#[cfg(unix)]
pub(super) fn run(args: &Args, command: &ServiceCommand) -> Result<()> {
    match command {
        ServiceCommand::Install(install) => self::install(args, install),
        ServiceCommand::Uninstall => {
            // Where they lie is told as far as it is known; a broken configuration keeps nobody from removing the service.
            let loaded = args.config_file().and_then(|file| LoadedConfig::read(&file));
            on_host(|systemd| systemd.uninstall())?;
            if let Ok(loaded) = loaded
                && let Ok(state) = args.state_folder(&loaded.config)
            {
                tell(&format!(
                    "left as they are: {}, and key, journal and transfers in {}",
                    loaded.file.display(),
                    state.display()
                ));
            }
            Ok(())
        }
        ServiceCommand::Start => on_host(|systemd| systemd.start()).and_then(|()| output::line("the service runs")),
        ServiceCommand::Stop => on_host(|systemd| systemd.stop()).and_then(|()| output::line("the service has stopped")),
        ServiceCommand::Restart => on_host(|systemd| systemd.restart()).and_then(|()| output::line("the service runs")),
        ServiceCommand::Status(json) => status(json.json),
    }
}

#[cfg(unix)]
fn on_host(act: impl FnOnce(&Systemd<'_>) -> Result<()>) -> Result<()> {
    act(&Systemd::of_this_host(&tell)?)
}

/// A step that is done. Whoever closes standard output is not told, and the work goes on.
pub(super) fn tell(text: &str) {
    let _ = output::line(text);
}

#[cfg(unix)]
fn install(args: &Args, install: &InstallArgs) -> Result<()> {
    let of = installation(args, install)?;
    if install.dry_run {
        return dry_run(&of, install.now);
    }
    on_host(|systemd| systemd.install(&of, install.now))
}

/// What is to be installed.
pub(super) fn installation(args: &Args, install: &InstallArgs) -> Result<Installation> {
    let file = absolute(&args.config_file()?)?;
    let loaded = LoadedConfig::read(&file)?;
    let state = args.state_folder(&loaded.config)?;
    #[cfg(unix)]
    let state = crate::service::installation::resolved(&state)?;
    let executable = std::env::current_exe();
    let executable = executable
        .map_err(|error| Failure::park(Code::ServiceFailed, "it is not known where this program lies").caused_by(error))?;
    Ok(Installation::new(executable, &loaded, state, &install.user))
}

#[cfg(unix)]
fn dry_run(of: &Installation, start: bool) -> Result<()> {
    let text = unit::text(of)?;
    let (user, state, config) = (&of.user, of.state.display(), of.config.display());
    let mut steps = vec![
        format!("make the system user {user}, where there is none"),
        format!("give {state} to {user}, with everything in it"),
        format!("let {user}, and nobody else but root, read {config}"),
    ];
    steps.extend(of.secrets.iter().map(|secret| format!("give {} to {user}", secret.display())));
    if let Some(folder) = of.log.as_deref().and_then(Path::parent) {
        steps.push(format!("give the log file's folder {} to {user}, where nothing else lies in it", folder.display()));
    }
    steps.push(format!("let {user} pass through a folder named towpath above these, where it is closed"));
    steps.push(format!("write /etc/systemd/system/{UNIT}, which is printed below"));
    steps.push("systemctl daemon-reload".to_owned());
    steps.push(format!("systemctl enable {UNIT}"));
    if start {
        steps.push(format!("systemctl restart {UNIT}, and wait until it is ready"));
    }
    for (number, step) in steps.iter().enumerate() {
        output::line(&format!("{}. {step}", number + 1))?;
    }
    output::line(&format!("\n{}", text.trim_end()))
}

fn absolute(path: &Path) -> Result<std::path::PathBuf> {
    let failed = |error| Failure::park(Code::ServiceFailed, format!("{} has no absolute path", path.display())).caused_by(error);
    std::path::absolute(path).map_err(failed)
}

#[cfg(unix)]
fn status(json: bool) -> Result<()> {
    let status = systemd::status()?;
    if json {
        output::json(&status)?;
    } else if status.installed {
        output::line(&format!(
            "{}, {}",
            status.state,
            if status.enabled { "starts with this host" } else { "is not started at boot" }
        ))?;
        if let (Some(pid), Some(user)) = (status.pid, &status.user) {
            output::line(&format!("process {pid} of {user}, started again {} times", status.restarts))?;
        }
        if let Some(says) = &status.says {
            output::line(says)?;
        }
    }
    match (status.installed, status.running) {
        (_, true) => Ok(()),
        (true, false) => {
            Err(Failure::park(Code::NotRunning, "the service does not run; start it with: towpath-agent service start"))
        }
        (false, false) => Err(Failure::park(
            Code::NotRunning,
            "the service is not installed; install it with: towpath-agent service install --now",
        )),
    }
}
