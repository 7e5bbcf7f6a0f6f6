//! What can be typed of the service.

use clap::{Args as ClapArgs, Subcommand};

use super::args::OutputArgs;

#[derive(Debug, Clone, Copy, ClapArgs)]
pub(super) struct RunArgs {
    /// Windows starts it so.
    #[cfg(windows)]
    #[arg(long, hide = true)]
    pub(super) service: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    Install(InstallArgs),
    /// Stop the service and remove it; configuration, key and journal stay.
    Uninstall,
    /// Start the service, and wait until it is ready.
    Start,
    /// Stop the service, and wait until it has.
    Stop,
    /// Stop the service, start it, and wait until it is ready.
    Restart,
    /// How the service stands: 0 where it runs, 1 otherwise.
    Status(OutputArgs),
    /// What the installation package of Windows does once its files are there.
    #[cfg(windows)]
    #[command(hide = true)]
    SetUp(SetUpArgs),
    /// What it does before it is taken away, or repaired.
    #[cfg(windows)]
    #[command(hide = true)]
    BeforeRemoval,
    /// What it does where that removal is taken back.
    #[cfg(windows)]
    #[command(hide = true)]
    UndoRemoval,
    /// What it does where it is removed with everything that belongs to it.
    #[cfg(windows)]
    #[command(hide = true)]
    RemoveData,
}

/// The properties of the installation package; an empty one was not given.
#[cfg(windows)]
#[derive(Debug, ClapArgs)]
pub(super) struct SetUpArgs {
    /// The enrolment code.
    #[arg(long, default_value = "")]
    pub(super) code: String,
    /// The proxy that leads out of this network.
    #[arg(long, default_value = "")]
    pub(super) proxy: String,
    /// Whether the service is started: 1, 0, or where it has something to do.
    #[arg(long, default_value = "", value_parser = ["", "0", "1"])]
    pub(super) start: String,
}

/// Install this agent as a service that starts with the host.
///
/// Makes the user that it runs as, gives it the state folder, the configuration and the secret files that it names, and writes the
/// service's unit, which denies it everything else. May be repeated, and has to be after a folder of the configuration has changed.
///
/// Example: towpath-agent service install --now
/// Example: towpath-agent service install --dry-run       shows what would be done, and the unit
#[derive(Debug, ClapArgs)]
#[command(verbatim_doc_comment)]
pub(super) struct InstallArgs {
    /// The user that it runs as; made where there is none.
    #[arg(long, value_name = "NAME", default_value = crate::service::installation::DEFAULT_USER)]
    pub(super) user: String,
    /// Start it, too, or start it anew, and wait until it is ready.
    #[arg(long)]
    pub(super) now: bool,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
}
