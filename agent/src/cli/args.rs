//! What can be typed.

use std::{path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, Parser, Subcommand};
use towpath_host::{folders, logs::LogFormat};
use towpath_keys::KeyKind;
use towpath_transfer::{Code, Failure, JobName, TransferId, failure::Result};

use super::{
    init::InitArgs,
    receiver::ReceiverCommand,
    service_args::{RunArgs, ServiceCommand},
    transfer_args::{DiffArgs, HistoryArgs, RetryArgs, ShowArgs, SupportArgs, transfer},
    update::UpdateCommand,
};
use crate::config::Config;

/// The name of this program's configuration file and state folder.
pub(super) const NAME: &str = "agent";

/// Sends tables of an ERP to an app, and brings its answers back, checked and signed from end to end.
///
/// A first start:
///
///   towpath-agent init           asks, tries everything, writes the configuration, sends a first transfer
///   towpath-agent doctor         tells what keeps it from its work, and what to do about it
///   towpath-agent run            sends by the schedule and fetches the answers; the service does this
#[derive(Debug, Parser)]
#[command(name = "towpath-agent", version, verbatim_doc_comment, max_term_width = 110)]
pub(super) struct Args {
    /// The configuration file; without one, /etc/towpath/agent.toml or the user's own.
    #[arg(long, global = true, env = "TOWPATH_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The folder where the agent keeps key, journal and transfers.
    #[arg(long, global = true, env = "TOWPATH_STATE", value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    /// How messages on standard error look; without it, text, and JSON for `run` where there is no terminal.
    #[arg(long, global = true, value_name = "FORM")]
    pub(super) log_format: Option<LogFormat>,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Args {
    /// The configuration file: named, given by systemd, or in its usual place.
    pub(super) fn config_file(&self) -> Result<PathBuf> {
        let unknown = || Failure::park(Code::ConfigMissing, "it is not known where the configuration lies: say --config FILE");
        self.config.clone().or_else(|| folders::usual_config(NAME)).ok_or_else(unknown)
    }

    /// The state folder: named, configured, given by systemd, or the usual one.
    pub(super) fn state_folder(&self, config: &Config) -> Result<PathBuf> {
        folders::state(NAME, [self.state.as_deref(), config.state.folder.as_deref()])
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Set this host up: by questions, or by answers given beforehand.
    Init(Box<InitArgs>),
    /// Enrol this host with the relay, once.
    Enrol(EnrolArgs),
    /// Whom this agent believes to be the receiver.
    #[command(subcommand)]
    Receiver(ReceiverCommand),
    /// Read a job's tables into CSV files and a manifest, and send nothing.
    Extract(ExtractArgs),
    /// Ready tables for an ERP, and what an app for planning gets of them.
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Send now.
    Send(SendArgs),
    /// Fetch return files now, and deliver them.
    Receive(ReceiveArgs),
    /// Send every job by its schedule and deliver return files, until stopped.
    Run(RunArgs),
    /// The next runs of each job, and how the last one ended.
    Schedule(ScheduleArgs),
    /// Begin nothing until the pause is over: no run, no transfer, no question to the relay.
    Pause(PauseArgs),
    /// End the pause now.
    Resume(OutputArgs),
    /// Check this host, and say what to do about what is wrong.
    Doctor(DoctorArgs),
    /// How this agent and its jobs stand.
    Status(OutputArgs),
    /// The transfers, newest first.
    History(HistoryArgs),
    /// Everything about one transfer.
    Show(ShowArgs),
    /// What has changed between two transfers of a job: tables, columns, rows and sums.
    Diff(DiffArgs),
    /// Pack what somebody who helps from afar needs to know into one file, without secrets.
    SupportBundle(SupportArgs),
    /// Try a transfer again that waits for a person, or that pauses.
    Retry(RetryArgs),
    /// The signed receipts.
    #[command(subcommand)]
    Receipts(ReceiptsCommand),
    /// The key of this agent.
    #[command(subcommand)]
    Key(KeyCommand),
    /// New versions of this agent, from its relay.
    #[command(subcommand)]
    Update(UpdateCommand),
    /// Who is told of what is wrong.
    #[command(subcommand)]
    Alert(AlertCommand),
    /// The configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Let the agent that runs read its configuration again, without a restart.
    Reload(OutputArgs),
    /// Write manual pages and shell completions into a folder, as the packages have them.
    #[command(hide = true)]
    Manual {
        /// The folder.
        folder: PathBuf,
    },
    /// Passwords of others that the configuration refers to.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// This agent as a service of the host.
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Confirm that this agent was moved to this machine and that its old one sends no more.
    Moved,
}

#[derive(Debug, ClapArgs)]
pub(super) struct OutputArgs {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Enrol this host with the relay, once.
///
/// Makes the key pair if there is none, and proves to the relay that it holds it. May be repeated with the same code.
///
/// Example: towpath-agent enrol towpath1-eyJ1Ijoi…
/// Example: towpath-agent enrol - < code.txt        keeps the code out of the shell's history
#[derive(Debug, ClapArgs)]
#[command(verbatim_doc_comment)]
pub(super) struct EnrolArgs {
    /// The code of the relay's operator, or `-` to read it from standard input.
    pub(super) code: String,
    /// The kind of key to make, where there is none: rsa-2048, rsa-3072, rsa-4096 or ed25519.
    #[arg(long = "key-type", value_name = "KIND", default_value_t)]
    pub(super) key_type: KeyKind,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Read a job's tables into CSV files and a manifest, and send nothing.
///
/// Example: towpath-agent extract --out /tmp/look
/// Example: towpath-agent extract --check                      reads no rows, tells what is missing in the ERP
/// Example: towpath-agent extract --profile tryton --check     the same for the tables of a profile
#[derive(Debug, ClapArgs)]
#[command(verbatim_doc_comment)]
pub(super) struct ExtractArgs {
    /// The job; not needed where only one is configured.
    #[arg(long, value_name = "NAME")]
    pub(super) job: Option<JobName>,
    /// The folder for the files; made where it is missing.
    #[arg(long, value_name = "DIR", required_unless_present = "check")]
    pub(super) out: Option<PathBuf>,
    /// Ask the ERP for tables and columns only, read no rows, and tell what is missing and what to do: 0 where nothing is.
    #[arg(long, conflicts_with = "out")]
    pub(super) check: bool,
    /// The tables of this profile instead of the job's: a name of `profile list`, or a file.
    #[arg(long, value_name = "PROFILE")]
    pub(super) profile: Option<String>,
    /// A parameter of the profile; once for each.
    #[arg(long, value_name = "NAME=VALUE", requires = "profile", value_parser = parameter)]
    pub(super) parameter: Vec<(String, String)>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

pub(super) fn parameter(text: &str) -> std::result::Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("a parameter looks like NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Debug, Subcommand)]
pub(super) enum ProfileCommand {
    /// The profiles that this program has.
    List(OutputArgs),
    /// Print a profile: its parameters, and the query of each table.
    Show {
        /// A name of `profile list`, or a file.
        name: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print the planning data contract, which every profile brings.
    Contract(OutputArgs),
}

/// Send now.
///
/// Reads the tables, packs and signs them, and sends what has changed: whole tables, and of incremental ones the changed rows.
/// A transfer of the job that is still open is gone on with.
/// Without --wait it ends when the relay has everything; `run`, or the next command with --wait, fetches the receipts.
///
/// Example: towpath-agent send --wait
/// Example: towpath-agent send --job main --full --wait --json
#[derive(Debug, ClapArgs)]
#[command(verbatim_doc_comment)]
pub(super) struct SendArgs {
    /// Only this job; without it every job.
    #[arg(long, value_name = "NAME")]
    pub(super) job: Option<JobName>,
    /// Send every row of every table, also what the app has already.
    #[arg(long)]
    pub(super) full: bool,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Fetch return files now, and deliver them.
///
/// Asks the relay once, and works until everything that is open is delivered or needs a person. `run` does the same all the time.
///
/// Example: towpath-agent receive
/// Example: towpath-agent receive --wait --timeout 10m        waits for the next return files, where there are none
#[derive(Debug, ClapArgs)]
#[command(verbatim_doc_comment)]
pub(super) struct ReceiveArgs {
    /// Where there is nothing, wait until there is.
    #[arg(long)]
    pub(super) wait: bool,
    /// Stop after this time; what is open goes on with the next `run` or `receive`.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = crate::config::parse_duration)]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Clone, Copy, ClapArgs)]
pub(super) struct WaitArgs {
    /// End when the receiver's signed receipt is here, or return files are delivered: 0 where all went well, 1 otherwise.
    #[arg(long)]
    pub(super) wait: bool,
    /// Stop waiting after this time; the transfer goes on with the next `run` or `send`.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = crate::config::parse_duration)]
    pub(super) timeout: Duration,
}

/// The next runs of each job, and how the last one ended.
///
/// Example: towpath-agent schedule
/// Example: towpath-agent schedule --job main --count 20
/// Example: towpath-agent schedule --after 2026-10-24 --json    what the change of clocks does
#[derive(Debug, ClapArgs)]
#[command(verbatim_doc_comment)]
pub(super) struct ScheduleArgs {
    /// Only this job.
    #[arg(long, value_name = "NAME")]
    pub(super) job: Option<JobName>,
    /// So many runs of each job, up to 1000.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) count: u16,
    /// The runs that are due after this time instead of now: 2026-07-03, "2026-07-03 18:00", or with a zone 2026-07-03T18:00Z.
    #[arg(long, value_name = "TIME")]
    pub(super) after: Option<String>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Begin nothing until the pause is over: no run, no transfer, no question to the relay.
///
/// What is open waits where it is and goes on afterwards; a run that was due meanwhile is made up for, once, unless its job says
/// `catch_up = false`. Without a time the pause lasts until: towpath-agent resume
///
/// Example: towpath-agent pause --for 2h --reason "ERP update"
/// Example: towpath-agent pause --until 06:00
/// Example: towpath-agent pause --until "2026-07-03 18:00"
#[derive(Debug, ClapArgs)]
#[command(verbatim_doc_comment)]
pub(super) struct PauseArgs {
    /// When it ends by itself: 18:00, "2026-07-03 18:00", or with a zone 2026-07-03T18:00Z.
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<String>,
    /// How long it lasts, such as 30m or 2h.
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until", value_parser = crate::config::parse_duration)]
    pub(super) lasting: Option<Duration>,
    /// Why; shown to whoever meets the pause.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Check this host, and say what to do about what is wrong.
///
/// Looks at configuration, key, clock, name, each way to the relay, the login there, the ERP's source and the query of every table
/// (prepared, not run), the folders, schedules and last runs; what depends on the account is looked at by the running service
/// itself. Changes nothing. Ends with 0 where nothing has failed, and with 1 otherwise.
///
/// Example: towpath-agent doctor
/// Example: towpath-agent doctor --offline        leaves the network and the ERP alone
/// Example: towpath-agent doctor --json
#[derive(Debug, ClapArgs)]
#[command(verbatim_doc_comment)]
pub(super) struct DoctorArgs {
    /// Leave the network and the ERP alone.
    #[arg(long)]
    pub(super) offline: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum ReceiptsCommand {
    /// Check every signature and digest of a transfer, and say what is proven by whom.
    Verify {
        /// The transfer's id; without it the newest that has ended.
        #[arg(value_parser = transfer)]
        transfer: Option<TransferId>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print the receipts of a transfer.
    Show {
        /// The transfer's id; without it the newest that has ended.
        #[arg(value_parser = transfer)]
        transfer: Option<TransferId>,
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// The public key and its fingerprint.
    Show(OutputArgs),
    /// Make the key pair. One that is there is never overwritten.
    Generate {
        /// rsa-2048, rsa-3072, rsa-4096 or ed25519.
        #[arg(long = "type", value_name = "KIND", default_value_t)]
        kind: KeyKind,
    },
    /// Change to a new key pair, while the agent works.
    ///
    /// The new pair is made on this host, and the relay is told of it with a proof by the old one; the receiver follows by itself, so
    /// that nobody has to approve anything. Both keys are good until the old one is retired. What was begun and did not come to its
    /// end is ended by the next call, or by the agent that runs, with the key that was made first. Make a new backup of the state folder afterwards: the old key in an
    /// older backup is not let in any more.
    Rotate {
        /// How long the old key stays good: 30s, which is the least, 1h, 7d; at most 30d.
        #[arg(long, value_name = "TIME", default_value = "1d", value_parser = crate::config::parse_duration)]
        overlap: Duration,
        /// rsa-2048, rsa-3072, rsa-4096 or ed25519.
        #[arg(long = "type", value_name = "KIND", default_value_t)]
        kind: KeyKind,
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the file and, unless told otherwise, that every table can be read from its source.
    Check {
        /// Look at the file alone, and at no database.
        #[arg(long)]
        file_only: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print a file with every setting, its default and a comment.
    Example,
    /// Print what is in force.
    Show,
    /// Print the JSON Schema of the file, by which editors complete and check it.
    Schema,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum SecretCommand {
    /// Print a password in the form that only this machine can read again, for the configuration file.
    ///
    /// The password is typed without being shown, or comes from standard input. Windows only: elsewhere it says what to do instead.
    ///
    /// Example: towpath-agent secret protect
    #[command(verbatim_doc_comment)]
    Protect,
}

#[derive(Debug, Subcommand)]
pub(super) enum AlertCommand {
    /// Tell the configured program and webhook a test, now, and say what came of it.
    Test(OutputArgs),
}
