//! What can be typed.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand};
use jiff::Timestamp;
use towpath_host::{Pause, logs::LogFormat};
use towpath_transfer::{AgentName, Direction, TenantName, TransferId, api::Role, public_key::PublicKeyLine};
use url::Url;

use super::{limit_args::LimitArgs, release::ReleaseCommand};
use crate::{
    audit::{Action, chain::Link},
    keyring::KeyUse,
    registry::MAX_RING,
};

/// The relay between ERP hosts and apps: takes uplinks over SFTP, checks and forwards them, fetches return files, packs and
/// queues them, and carries the receipts of both.
///
/// A first start:
///
///   towpath-relay config example > /etc/towpath/relay.toml    and set relay.public_url
///   towpath-relay tenant create acme
///   towpath-relay enrolment create --tenant acme --role receiver    for the app server
///   towpath-relay enrolment create --tenant acme --role agent       for the ERP host
///   towpath-relay serve
#[derive(Debug, Parser)]
#[command(name = "towpath-relay", version, verbatim_doc_comment, max_term_width = 110)]
pub(super) struct Args {
    /// The configuration file; without one, /etc/towpath/relay.toml or the user's own, where there is one.
    #[arg(long, global = true, env = "TOWPATH_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The folder where the relay keeps everything.
    #[arg(long, global = true, env = "TOWPATH_STATE", value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    /// Overrides relay.public_url; the same for every command.
    #[arg(long, global = true, env = "TOWPATH_PUBLIC_URL", value_name = "URL")]
    pub(super) public_url: Option<String>,
    /// How messages on standard error look; without it, text on a terminal and JSON elsewhere.
    #[arg(long, global = true, value_name = "FORM")]
    pub(super) log_format: Option<LogFormat>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve agents and receivers until stopped (SIGTERM or ctrl-c).
    Serve(ServeArgs),
    /// The customers' instances and where their app servers are.
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// The codes with which agents and receivers enrol.
    #[command(subcommand)]
    Enrolment(EnrolmentCommand),
    /// The enrolled agents and receivers.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// The releases of the agent that this relay has for its agents, and who may have them.
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// The transfers of both directions: where each stands, what holds it up.
    #[command(subcommand)]
    Transfer(TransferCommand),
    /// Print the relay's public keys: the one that app servers admit, the one that signs receipts, its host keys.
    Keys,
    /// Change the relay's own keys while it serves: announce the next, wait until the ends have pinned it, switch.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print which runs should be here and are not, since when, and when their agents were last heard of.
    Late(LateArgs),
    /// The audit trail: who did what to which transfer, and how it ended, as a chain of hashes that shows a change.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the OpenAPI document of the web service.
    Openapi,
    /// Write manual pages and shell completions into a folder, as the packages have them.
    #[command(hide = true)]
    Manual {
        /// The folder.
        folder: PathBuf,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct ServeArgs {
    /// An address that takes SSH and TLS; may be repeated. Port 0 takes a free one, written to listening.json.
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Vec<SocketAddr>,
    /// The address of /readyz and /metrics.
    #[arg(long, value_name = "ADDR")]
    pub(super) admin: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Create a tenant.
    Create {
        /// Lower-case letters, digits and inner hyphens.
        name: TenantName,
        #[command(flatten)]
        landing: LandingArgs,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// List the tenants, what each may have and what it has.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a tenant: its app server, what it may have, who says so, and what it has.
    Show {
        /// The tenant.
        name: TenantName,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what a tenant may have, and print it; without an option, only print it.
    ///
    /// What is not named stays as it is; `default` gives a value back to the configuration. A running relay follows within seconds.
    Limits {
        /// The tenant.
        name: TenantName,
        #[command(flatten)]
        limits: LimitArgs,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Put a tenant into a ring: its agents may have what is approved for that.
    Ring {
        /// The tenant.
        name: TenantName,
        /// 1 to 9; 0 for none, which is where a new tenant is.
        #[arg(value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_RING)))]
        ring: u8,
    },
    /// Say where a tenant's app server takes SFTP: any SFTP server that admits the relay's key (`towpath-relay keys`).
    ///
    /// A receiver with a landing of its own says so itself when it enrols.
    AppServer {
        /// The tenant.
        name: TenantName,
        /// sftp://user@host[:port]/folder
        app_server: Url,
        /// A host key to pin, as one line (`ssh-ed25519 AAAA…`); may be repeated.
        #[arg(long, required = true, value_name = "KEY")]
        app_host_key: Vec<PublicKeyLine>,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct LandingArgs {
    /// Where its app server takes SFTP: sftp://user@host[:port]/folder. Not needed for a receiver with a landing of its own.
    #[arg(long, value_name = "URL", requires = "app_host_key")]
    pub(super) app_server: Option<Url>,
    /// A host key of the app server to pin, as one line (`ssh-ed25519 AAAA…`); may be repeated.
    #[arg(long, value_name = "KEY", requires = "app_server")]
    pub(super) app_host_key: Vec<PublicKeyLine>,
}

#[derive(Debug, Subcommand)]
pub(super) enum EnrolmentCommand {
    /// Make a code and print it, alone, on standard output. It is shown this once.
    Create {
        /// The tenant.
        #[arg(long)]
        tenant: TenantName,
        /// agent (on the ERP host) or receiver (beside the app).
        #[arg(long)]
        role: Role,
        /// What the end is called; without it, the role and a number.
        #[arg(long)]
        name: Option<AgentName>,
        /// How long the code can be used, such as 30m, 24h or 7d; without it, enrolment.expires of the configuration.
        #[arg(long, value_name = "TIME")]
        expires: Option<Pause>,
    },
    /// List the codes of a tenant, without their secrets.
    List {
        /// The tenant; without it, all.
        #[arg(long)]
        tenant: Option<TenantName>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a code that is lost or was seen by others, before anybody uses it; another one can be made at once.
    ///
    /// Where it was used already, revoke the end: towpath-relay agent revoke.
    Revoke {
        /// The tenant.
        #[arg(long)]
        tenant: TenantName,
        /// The name that the end would get, as `enrolment list` shows it.
        name: AgentName,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// List the enrolled agents and receivers.
    List {
        /// The tenant; without it, all.
        #[arg(long)]
        tenant: Option<TenantName>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke an agent or receiver: its sessions end within seconds, and its name is never used again.
    Revoke {
        /// The tenant.
        #[arg(long)]
        tenant: TenantName,
        /// The agent's or receiver's name.
        name: AgentName,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TransferCommand {
    /// List transfers, newest first.
    List {
        /// Of this tenant.
        #[arg(long)]
        tenant: Option<TenantName>,
        /// Of this direction: uplink (from the ERP) or downlink (return files).
        #[arg(long, value_parser = parse_direction, value_name = "DIRECTION")]
        direction: Option<Direction>,
        /// Only those that wait for a person.
        #[arg(long)]
        parked: bool,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a transfer and everything that happened to it.
    Show {
        /// Its id, or tenant/agent/id.
        transfer: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try a transfer again that waits for a person, whose next try is far off, or that was forwarded without a receipt.
    ///
    /// A downlink that is queued waits for its agent: there is nothing to try again here.
    Retry {
        /// Its id, or tenant/agent/id.
        transfer: String,
    },
}

fn parse_direction(text: &str) -> Result<Direction, &'static str> {
    [Direction::Uplink, Direction::Downlink]
        .into_iter()
        .find(|direction| direction.to_string() == text)
        .ok_or("a direction is uplink or downlink")
}

/// Ends pin the relay's keys for years. A next key is announced, signed by the present receipt key; agents and receivers pin it
/// by themselves; then it is switched to. Nothing is restarted, neither here nor there.
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// List the keys, present and next, and who has not pinned the next ones yet.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make the next key, or take the next certificate from files, and announce it. Nothing shows it yet.
    Announce {
        /// Which key.
        what: KeyUse,
        /// PEM file with the next certificate and its chain; without one the relay signs its own.
        #[arg(long, value_name = "FILE", requires = "key")]
        certificate: Option<PathBuf>,
        /// PEM file with the next certificate's private key.
        #[arg(long, value_name = "FILE", requires = "certificate")]
        key: Option<PathBuf>,
    },
    /// Use the next key from now on. Refused while an enrolled end has not pinned it.
    Switch {
        /// Which key.
        what: KeyUse,
        /// Also where ends have not pinned it, which then have to enrol again.
        #[arg(long)]
        force: bool,
    },
    /// Take a next key back before it was used.
    Withdraw {
        /// Which key.
        what: KeyUse,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Print rows, newest first.
    Show {
        /// From this time on, such as 2026-03-01 or 2026-03-01T12:00:00Z.
        #[arg(long, value_parser = parse_time, value_name = "TIME")]
        since: Option<Timestamp>,
        /// Of this tenant.
        #[arg(long)]
        tenant: Option<TenantName>,
        /// Of this action, such as login, complete or revoke.
        #[arg(long)]
        action: Option<Action>,
        /// About the transfer of this id.
        #[arg(long, value_name = "ID")]
        transfer: Option<TransferId>,
        /// At most so many rows.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compute every hash again, name the first row that does not fit, and print the head: the last row's hash and number.
    ///
    /// Whoever can write the registry can also cut the end of the trail off or write all of it anew. Note the head elsewhere now and
    /// then, and give it with --expect: that it is not there any more is then noticed.
    Verify {
        /// A head that was noted; the trail must still go through it.
        #[arg(long, value_name = "HASH@ID")]
        expect: Option<Link>,
        /// An export to check instead of the registry; - is standard input.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print rows as JSON Lines, oldest first, so that `audit verify --file` can check them without the registry.
    Export {
        /// From the first row of this time on.
        #[arg(long, value_parser = parse_time, value_name = "TIME")]
        since: Option<Timestamp>,
        /// Up to the last row of this time.
        #[arg(long, value_parser = parse_time, value_name = "TIME")]
        until: Option<Timestamp>,
    },
}

/// A time as RFC 3339, or a day, which begins at midnight UTC.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    let day = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|day| day.timestamp());
    text.parse().ok().or_else(day).ok_or_else(|| "a time is 2026-03-01T12:00:00Z, or a day, 2026-03-01".to_owned())
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum ConfigCommand {
    /// Read the configuration and say everything that is wrong with it.
    Check {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the defaults, commented: a configuration file to start from.
    Example,
}

#[derive(Debug, ClapArgs)]
pub(super) struct LateArgs {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}
