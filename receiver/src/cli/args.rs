//! The command line's form and its help.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use towpath_host::{Pause, logs::LogFormat};
use towpath_transfer::{AgentName, JobName, ReturnKind, TransferId, public_key::Fingerprint};

use crate::downlink::take::{DEFAULT_JOB, DEFAULT_KIND};

/// Takes what the relay forwards, checks it, imports it into the app's database, and signs for it; sends files back to the ERP.
///
/// First steps:
///   1. towpath-receiver enrol CODE --landing HOST:PORT    the code comes from: towpath-relay enrolment create
///   2. systemctl start towpath-receiver                   or in a terminal: towpath-receiver serve
///   3. towpath-receiver agent list                        compare the fingerprint with the one on the ERP host
///   4. towpath-receiver agent approve FINGERPRINT
///   5. towpath-receiver send orders.csv                   sends a file to the ERP; `sent` says how far it has come
#[derive(Debug, Parser)]
#[command(name = "towpath-receiver", version, verbatim_doc_comment, arg_required_else_help = true)]
pub(super) struct Args {
    /// The configuration file.
    #[arg(long, global = true, env = "TOWPATH_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The folder of key, journal, landing, exports and receipts.
    #[arg(long, global = true, env = "TOWPATH_STATE", value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    /// How log lines look; JSON where they do not go to a terminal. TOWPATH_LOG says which (such as "debug").
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub(super) log_format: Option<LogFormat>,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Enrol with the relay, once; makes the key where there is none.
    ///
    /// The same code may be used again with the same key until it expires. The private key never leaves this machine.
    #[command(after_help = "Example:\n  towpath-receiver enrol towpath1-… --landing app.example.com:2222")]
    Enrol(EnrolArgs),
    /// Run: take transfers, check them, import them, hand over the receipts.
    Serve(ServeArgs),
    /// Which agents are believed.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Send files to the ERP.
    ///
    /// The files are copied first; after that the originals are not needed. A running `serve` sends them at once, or else the next
    /// one does. A folder from which every file is sent by itself is configured as [[export]].
    #[command(after_help = "Examples:\n  towpath-receiver send orders.csv\n  \
        towpath-receiver send prices.csv notes.pdf --kind price-list --to erp --wait --timeout 10m")]
    Send(SendArgs),
    /// What was sent to the ERP: every file, and how far it has come.
    Sent(StatusArgs),
    /// The signed receipts of transfers in both directions.
    #[command(subcommand)]
    Receipts(ReceiptsCommand),
    /// What stands in the journal: what is under way, what waits for a person, what is done.
    Status(StatusArgs),
    /// Everything that happened to one transfer here.
    Show(TransferArgs),
    /// Try a transfer again at once that waits for a person or for its next try.
    Retry(RetryArgs),
    /// Make the tables of an agent's job this receiver's own, after it was enrolled anew with another key.
    ///
    /// Each agent's job has its tables in the app database, and they belong to the receiver that has imported them first; another one
    /// is refused as app-taken. Adopt them only where that other receiver is gone, or each will replace what the other has imported.
    #[command(after_help = "Example:\n  towpath-receiver adopt erp main")]
    Adopt(AdoptArgs),
    /// Check the folder of a transfer without network and without importing anything.
    ///
    /// Checks the signature against the approved keys, every size and digest, and every row and control total. Exit status 1
    /// and the reason where anything is wrong. Run as root, it goes on as the owner of the state folder, who must be able to read
    /// the folder: what others have sent is not parsed as root.
    #[command(after_help = "Example:\n  towpath-receiver verify /var/lib/towpath/receiver/quarantine/erp/01922c1e-…")]
    Verify(VerifyArgs),
    /// Rejected transfers, kept for a person to look at.
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// The configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write manual pages and shell completions into a folder, as the packages have them.
    #[command(hide = true)]
    Manual {
        /// The folder.
        folder: PathBuf,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct EnrolArgs {
    /// The enrolment code; `-` reads it from standard input, where it does not stay in the shell's history.
    #[arg(value_name = "CODE|-")]
    pub(super) code: String,
    /// How the relay reaches this receiver's own SFTP landing. Without it (and without `advertise` in the configuration)
    /// the relay's operator says where to deliver: towpath-relay tenant app-server.
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) landing: Option<String>,
    /// Print the result as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct ServeArgs {
    /// Listen here instead of the configured address; port 0 takes a free one, which is written to listening.json.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) listen: Option<std::net::SocketAddr>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct SendArgs {
    /// The files, which travel together as one transfer.
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// What return files these are; the agent's configuration says for each kind where it is delivered.
    #[arg(long, value_name = "KIND", default_value = DEFAULT_KIND)]
    pub(super) kind: ReturnKind,
    /// The agent they are for; not needed where one is approved.
    #[arg(long, value_name = "AGENT")]
    pub(super) to: Option<AgentName>,
    /// The ERP company they are for.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_JOB)]
    pub(super) job: JobName,
    /// End when the agent's signed receipt is here: 0 where it says delivered, 1 otherwise. Where no `serve` runs, this command
    /// serves until then.
    #[arg(long)]
    pub(super) wait: bool,
    /// Stop waiting after this time; the transfer goes on with `serve`.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub(super) timeout: Pause,
    /// Print the result as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// `receipts`
#[derive(Debug, Subcommand)]
pub(super) enum ReceiptsCommand {
    /// Check who has signed what about a transfer, and say what that proves. Needs no network.
    ///
    /// Exit status 1 where a document is wrong, or missing that should be there.
    Verify(ReceiptsArgs),
}

#[derive(Debug, ClapArgs)]
pub(super) struct ReceiptsArgs {
    /// The transfer's id; without it the newest that has ended.
    pub(super) transfer: Option<TransferId>,
    /// Its agent, where several have a transfer of this id.
    #[arg(long, value_name = "NAME")]
    pub(super) agent: Option<AgentName>,
    /// Print the result as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// `agent`
#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// The approved agents, and those that the relay names.
    List {
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Believe the manifests and receipts of the agent with this key, after its fingerprint was compared with the ERP host's
    /// (there: towpath-agent key show), and what earlier keys have signed that this one has followed.
    Approve {
        /// Such as SHA256:jn9…
        fingerprint: Fingerprint,
        /// No earlier key: one was stolen. Run `agent remove` before. What is under way and signed by an earlier one is rejected.
        #[arg(long)]
        only: bool,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Believe an agent no more, until one of its keys is approved again; its next transfers are rejected.
    Remove {
        /// The agent's name.
        name: AgentName,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct StatusArgs {
    /// How many transfers to show, newest first.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(super) limit: usize,
    /// Print the result as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct TransferArgs {
    /// The transfer's id.
    pub(super) transfer: TransferId,
    /// Its agent, where several have a transfer of this id.
    #[arg(long, value_name = "NAME")]
    pub(super) agent: Option<AgentName>,
    /// Print the result as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct RetryArgs {
    /// The transfer's id.
    pub(super) transfer: TransferId,
    /// Its agent, where several have a transfer of this id.
    #[arg(long, value_name = "NAME")]
    pub(super) agent: Option<AgentName>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct AdoptArgs {
    /// The agent.
    pub(super) agent: AgentName,
    /// The ERP company.
    pub(super) job: JobName,
}

#[derive(Debug, ClapArgs)]
pub(super) struct VerifyArgs {
    /// The folder with manifest.json.
    pub(super) dir: PathBuf,
    /// The approved keys; those of the state folder where it is not said.
    #[arg(long, value_name = "FILE")]
    pub(super) allowed_signers: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// `quarantine`
#[derive(Debug, Subcommand)]
pub(super) enum QuarantineCommand {
    /// What is in quarantine, and why.
    List {
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// One transfer, with its files.
    Show(TransferArgs),
    /// Remove a transfer after a person has looked. It stays rejected: the agent holds the signed receipt and sends anew.
    Release(RetryArgs),
}

/// `config`
#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether the configuration is valid, with every mistake, and which folders it means.
    Check {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a configuration with every default and what it means.
    Example,
}
