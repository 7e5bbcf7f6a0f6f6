//! The audit trail: who did what to which transfer, and how it ended. The rows are a chain of hashes in the registry, so that a
//! change of what was written shows; [`Trail`] is where the running service puts what happens, [`chain`] is how a row is hashed.

pub mod chain;
mod noted;
mod throttle;
mod trail;
mod witness;

#[cfg(test)]
mod asked_tests;
#[cfg(test)]
mod closing_tests;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use jiff::Timestamp;
use towpath_journal::{StageReport, StageResult};
use towpath_transfer::{Code, Stage, TenantName, TransferEvent, TransferId, api::Role, failure::Result, public_key::Fingerprint};

pub use noted::{NotedHead, Standing};
pub use throttle::{MOST_ALIKE, MOST_OF_STRANGERS, MOST_WINDOWS, WINDOW};
pub use trail::{QUEUE_ROWS, Trail};
pub use witness::Witness;

use crate::scope::Caller;

/// The longest detail of a row, in characters.
pub const MAX_DETAIL_CHARS: usize = 500;
/// The longest text in any other column, in characters.
pub const MAX_TEXT_CHARS: usize = 120;
/// The shortest time for which rows may be kept.
pub const SHORTEST_KEEP: Duration = Duration::from_hours(30 * 24);
/// The fewest rows that may be the most that are kept.
pub const FEWEST_ROWS: u64 = 1_000;
/// The result of what was done.
pub const OK: &str = "ok";

/// How long the trail is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditSettings {
    /// Rows go when they are older.
    pub keep: Duration,
    /// The most rows; the oldest go first.
    pub rows: u64,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { keep: Duration::from_hours(400 * 24), rows: 5_000_000 }
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What was done or tried.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word that stands in the trail; it never changes.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

actions! {
    /// A row from before the trail was a chain; its detail says what was done.
    Earlier = "earlier",
    /// The service has started.
    Started = "started",
    /// The service has stopped and has written everything. A start without this before it follows a crash.
    Stopped = "stopped",
    /// An SSH login: one row for each session, or that it was refused.
    Login = "login",
    /// A token of the web service was refused.
    Token = "token",
    /// An enrolment code was used, or refused.
    Enrol = "enrol",
    /// An end has taken a new key; its detail has both fingerprints.
    Rotate = "rotate",
    /// The sessions of an end were ended because it was revoked, or its key was retired.
    SessionsEnded = "sessions-ended",
    /// The operator made a tenant.
    TenantCreate = "tenant-create",
    /// The operator said what a tenant may have; its detail has what was changed.
    TenantLimits = "tenant-limits",
    /// The operator named a tenant's app server.
    AppServer = "app-server",
    /// The operator put a tenant into a ring, or took it out.
    TenantRing = "tenant-ring",
    /// The operator handed a release of the agent to the relay.
    ReleaseAdd = "release-add",
    /// The operator approved a release for a ring.
    ReleaseApprove = "release-approve",
    /// The operator took an approval back.
    ReleaseWithdraw = "release-withdraw",
    /// The operator removed a release.
    ReleaseRemove = "release-remove",
    /// The operator made an enrolment code.
    CodeCreate = "code-create",
    /// The operator withdrew an enrolment code that nobody has used.
    CodeRevoke = "code-revoke",
    /// The operator revoked an end.
    Revoke = "revoke",
    /// The operator had a transfer tried again.
    Retry = "retry",
    /// The operator announced a next key of the relay.
    KeyAnnounce = "key-announce",
    /// The operator switched to the next key.
    KeySwitch = "key-switch",
    /// The operator took a next key back.
    KeyWithdraw = "key-withdraw",
    /// An upload was refused: a share or the disk is full, or too many transfers are open.
    Upload = "upload",
    /// An agent has said that a transfer is complete.
    Complete = "complete",
    /// The relay has accepted an uplink.
    Accept = "accept",
    /// The relay has handed an uplink to the app server.
    Forward = "forward",
    /// A receiver has posted its receipt.
    Receipt = "receipt",
    /// A receiver has announced return files.
    Export = "export",
    /// The relay has fetched return files from the app server.
    Fetch = "fetch",
    /// The relay has packed return files.
    Pack = "pack",
    /// The relay has queued return files for their agent.
    Queue = "queue",
    /// An agent has posted its receipt for return files.
    Acknowledge = "acknowledge",
    /// The relay has removed the files of a transfer that has ended.
    Remove = "remove",
    /// An end has asked for a transfer that is someone else's. It was told what it is told of one that does not exist.
    Foreign = "foreign",
    /// Whether what an end has asked for is someone else's was not looked up: it has asked for too much at once, that has
    /// failed, or the service has ended before.
    Unchecked = "unchecked",
    /// So many rows could not be written.
    Gap = "gap",
    /// The oldest rows were removed.
    Pruned = "pruned",
    /// Revocations and used codes that the registry did not know any more were carried out again.
    Restored = "restored",
    /// The end of the trail that was noted beside the database is not there any more.
    Lost = "lost",
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|action| action.as_str() == text);
        found.ok_or_else(|| {
            let words: Vec<&str> = Self::ALL.iter().map(|action| action.as_str()).collect();
            format!("an action is one of {}", words.join(", "))
        })
    }
}

/// Who did it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    /// `operator`, `agent`, `receiver`, `relay`, or nothing for somebody who has proven nothing.
    pub role: &'static str,
    /// The end's name within its tenant, or what the system calls the operator.
    pub name: String,
    /// The key that was proven or offered.
    pub key: Option<Fingerprint>,
    /// Where the call came from, as the connection says.
    pub address: Option<IpAddr>,
}

impl Who {
    /// The relay itself.
    #[must_use]
    pub fn relay() -> Self {
        Self { role: "relay", ..Self::default() }
    }

    /// Whoever runs a command on the relay's host.
    #[must_use]
    pub fn operator() -> Self {
        Self { role: "operator", name: system_user(), ..Self::default() }
    }

    /// Somebody who has proven nothing.
    #[must_use]
    pub fn nobody(key: Option<Fingerprint>, address: Option<IpAddr>) -> Self {
        Self { key, address: address.map(|address| address.to_canonical()), ..Self::default() }
    }

    /// An enrolled end.
    #[must_use]
    pub fn caller(caller: &Caller) -> Self {
        let role = match caller.role() {
            Role::Agent => "agent",
            Role::Receiver => "receiver",
        };
        let address = caller.address().map(|address| address.to_canonical());
        Self { role, name: caller.name().to_string(), key: Some(caller.key().fingerprint()), address }
    }

    /// Whether it has proven who it is.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        !self.role.is_empty()
    }
}

/// The user that this process runs as, and the one that had logged in before it became that; as Linux says it.
#[cfg(target_os = "linux")]
fn system_user() -> String {
    use std::os::unix::fs::MetadataExt as _;

    let user = std::fs::metadata("/proc/self").map(|found| format!("uid {}", found.uid())).unwrap_or_default();
    // The largest number stands for nobody: a service manager's child never logged in.
    let login = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse::<u32>().ok());
    match login.filter(|login| *login != u32::MAX) {
        Some(login) => format!("{user}, login {login}"),
        None => user,
    }
}

#[cfg(not(target_os = "linux"))]
fn system_user() -> String {
    String::new()
}

/// What happened, before it is a row of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// Who did it.
    pub who: Who,
    /// Whose things.
    pub tenant: String,
    /// What was done.
    pub action: Action,
    /// More of it, for people.
    pub detail: String,
    /// Which transfer.
    pub transfer: String,
    /// [`OK`], or an error code.
    pub result: &'static str,
}

impl Entry {
    /// Something that was done and has succeeded.
    #[must_use]
    pub fn new(at: Timestamp, who: Who, action: Action) -> Self {
        Self { at, who, tenant: String::new(), action, detail: String::new(), transfer: String::new(), result: OK }
    }

    /// Of this tenant.
    #[must_use]
    pub fn of(self, tenant: &TenantName) -> Self {
        Self { tenant: tenant.to_string(), ..self }
    }

    /// About this transfer.
    #[must_use]
    pub fn transfer(self, id: TransferId) -> Self {
        Self { transfer: id.to_string(), ..self }
    }

    /// With more words; cut to [`MAX_DETAIL_CHARS`].
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: cut(&detail.into(), MAX_DETAIL_CHARS), ..self }
    }

    /// Refused to somebody who says that it is `user`. Only who holds a revoked key has proven that.
    #[must_use]
    pub fn refused_to(self, user: &str, code: Code) -> Self {
        let tenant = user.split_once('.').and_then(|(tenant, _)| tenant.parse::<TenantName>().ok());
        // The name is not trusted text; its quoted form is.
        let entry = self.detail(format!("user {:?}", cut(user, MAX_TEXT_CHARS))).failed(code);
        match tenant {
            Some(tenant) if code == Code::AgentRevoked => entry.of(&tenant),
            _ => entry,
        }
    }

    /// Refused or failed with this code.
    #[must_use]
    pub fn failed(self, code: Code) -> Self {
        Self { result: code.as_str(), ..self }
    }

    /// As it was tried.
    #[must_use]
    pub fn tried<T>(self, tried: &Result<T>) -> Self {
        match tried {
            Ok(_) => self,
            Err(failure) => self.failed(failure.code()),
        }
    }

    /// What the relay itself did at a stage, where that is for the trail: not each try, but that it is done or waits for a person.
    #[must_use]
    pub fn of_stage(at: Timestamp, report: &StageReport<'_>) -> Option<Self> {
        let action = match report.stage {
            Stage::Accept => Action::Accept,
            Stage::Forward => Action::Forward,
            Stage::Fetch => Action::Fetch,
            Stage::Pack => Action::Pack,
            Stage::Queue => Action::Queue,
            Stage::Remove => Action::Remove,
            _ => return None,
        };
        let entry = Self::new(at, Who::relay(), action).of(&report.key.tenant).transfer(report.key.id);
        let entry = entry.detail(format!("agent {}", report.key.agent));
        match &report.result {
            StageResult::Appended { event: TransferEvent::FoundIncomplete { .. }, .. } => {
                Some(entry.failed(Code::TransferIncomplete))
            }
            StageResult::Appended { .. } => Some(entry),
            StageResult::Parked(failure) => Some(entry.failed(failure.code())),
            _ => None,
        }
    }
}

/// A text of at most so many characters.
pub(crate) fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}
