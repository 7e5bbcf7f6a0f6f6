//! Failures: what this layer tried, why it failed, and whether trying again can help.

use std::{error::Error, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;

macro_rules! codes {
    ($($(#[$doc:meta])+ $variant:ident = $text:literal,)+) => {
        /// An operator error code. Each has a page `docs/errors/<code>.md` that says cause and remedy.
        // The variants are not renamed one by one: the OpenAPI schema would keep their Rust names, because utoipa does not read the
        // literals of a macro.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "kebab-case")]
        pub enum Code {
            $($(#[$doc])+ $variant,)+
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code as it stands in logs, messages and the name of its page.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

codes! {
    /// The configuration file has a mistake.
    ConfigInvalid = "config-invalid",
    /// There is no configuration file.
    ConfigMissing = "config-missing",
    /// The program is not enrolled yet.
    NotEnrolled = "not-enrolled",
    /// The key file is missing.
    KeyMissing = "key-missing",
    /// Other users could read the key file.
    KeyPermissions = "key-permissions",
    /// The key file cannot be parsed, or the key is of a kind or size that is not accepted.
    KeyInvalid = "key-invalid",
    /// The journal belongs to another machine.
    HostMoved = "host-moved",
    /// Another process works on the same state folder.
    AlreadyRunning = "already-running",
    /// The journal cannot be read or written.
    JournalFailed = "journal-failed",
    /// A file or folder of our own cannot be read or written.
    FileFailed = "file-failed",
    /// The disk is full, or below its reserve.
    DiskFull = "disk-full",
    /// The ERP database is not there.
    ErpMissing = "erp-missing",
    /// The ERP database is locked by another program.
    ErpLocked = "erp-locked",
    /// The ERP database refused the login, or the login may not do what an extract needs.
    ErpRefused = "erp-refused",
    /// The ERP database refused a query.
    ErpQuery = "erp-query",
    /// A value in the ERP database does not fit the type of its column.
    ErpValue = "erp-value",
    /// The columns of a table are not what they were, and its configuration says to stop.
    SchemaChanged = "schema-changed",
    /// An ERP lacks tables or columns of the planning data contract, or has them with other types.
    ContractUnmet = "contract-unmet",
    /// Rows or totals of an extract differ from what the database counts and sums in the same snapshot.
    ExtractMismatch = "extract-mismatch",
    /// The relay does not answer.
    RelayUnreachable = "relay-unreachable",
    /// The relay's certificate is not the pinned or a trusted one.
    RelayCertificate = "relay-certificate",
    /// The relay answered something that is not of the protocol.
    RelayProtocol = "relay-protocol",
    /// An SSH host key is not the pinned one.
    HostKeyUnknown = "host-key-unknown",
    /// The other side does not accept our key or token.
    AuthenticationRefused = "authentication-refused",
    /// This agent was revoked.
    AgentRevoked = "agent-revoked",
    /// The clocks of the two sides differ.
    ClockSkew = "clock-skew",
    /// Too many requests or failed attempts; come back later.
    RateLimited = "rate-limited",
    /// An enrolment code that cannot be read.
    EnrolmentCodeInvalid = "enrolment-code-invalid",
    /// An enrolment code that this relay does not know.
    EnrolmentUnknown = "enrolment-unknown",
    /// An enrolment code that another key has used.
    EnrolmentUsed = "enrolment-used",
    /// An enrolment code that is too old.
    EnrolmentExpired = "enrolment-expired",
    /// An enrolment's proof of possession is wrong.
    EnrolmentProofInvalid = "enrolment-proof-invalid",
    /// A change of an end's key that is not proven, or that does not follow from its present key.
    RotationInvalid = "rotation-invalid",
    /// The receiver does not know this agent's key.
    AgentUnapproved = "agent-unapproved",
    /// This agent has not pinned the receiver's key.
    ReceiverUnapproved = "receiver-unapproved",
    /// There is no such thing, or it belongs to someone else.
    NotFound = "not-found",
    /// A request whose form or content is wrong.
    RequestInvalid = "request-invalid",
    /// A transfer's folder may not be changed any more.
    TransferFrozen = "transfer-frozen",
    /// Files of a transfer are missing or differ from what `complete` named.
    TransferIncomplete = "transfer-incomplete",
    /// Bytes differ from the digest that was promised for them.
    DigestMismatch = "digest-mismatch",
    /// A manifest that is not of the protocol.
    ManifestInvalid = "manifest-invalid",
    /// A packed list that is not of the protocol or belongs to another manifest.
    PackedListInvalid = "packed-list-invalid",
    /// A signature that is missing, malformed or not by the expected key.
    SignatureInvalid = "signature-invalid",
    /// A receipt that is malformed or not signed by the expected key.
    ReceiptInvalid = "receipt-invalid",
    /// A packed file that cannot be unpacked, or is larger than declared.
    UnpackFailed = "unpack-failed",
    /// CSV that is not of the protocol, or does not agree with its manifest.
    ContentInvalid = "content-invalid",
    /// Another transfer has the same sequence number: the agent's state was copied or rolled back.
    SequenceForked = "sequence-forked",
    /// A newer transfer of the same job was imported already.
    Superseded = "superseded",
    /// A table builds on a transfer that the app does not have.
    BaseMissing = "base-missing",
    /// The app database stands before what was imported and signed for.
    AppRestored = "app-restored",
    /// The app database holds the tables of another receiver.
    AppTaken = "app-taken",
    /// The relay's registry or journal stands before what ends know.
    RelayRestored = "relay-restored",
    /// The relay's spool, or the tenant's share of it, is full.
    SpoolFull = "spool-full",
    /// The tenant has no app server.
    AppServerMissing = "app-server-missing",
    /// The tenant's app server does not answer.
    AppServerUnreachable = "app-server-unreachable",
    /// The tenant's app server refused an operation.
    AppServerRefused = "app-server-refused",
    /// A table that this receiver is not configured to import.
    ImportRefused = "import-refused",
    /// The app database refused the import.
    ImportFailed = "import-failed",
    /// The app server does not have the return files that were announced, or has others.
    ExportMissing = "export-missing",
    /// A file that is to be sent back to the ERP cannot be read, or has a name or size that cannot travel.
    ExportRefused = "export-refused",
    /// Return files wait for an agent that has not come for long.
    AgentSilent = "agent-silent",
    /// The agent's configuration has no delivery for return files of this kind.
    DeliveryMissing = "delivery-missing",
    /// The delivery folder is missing or cannot be written to.
    DeliveryFailed = "delivery-failed",
    /// What is to follow a delivery has failed: the program, or the load into the ERP's table.
    ActionFailed = "action-failed",
    /// The proxy refuses, or wants something that the agent cannot give.
    ProxyRefused = "proxy-refused",
    /// The relay's announcement of its keys is not signed by a pinned key, or not of the protocol.
    AnnouncementInvalid = "announcement-invalid",
    /// A secret that the configuration refers to cannot be read, or other users could read it.
    SecretUnusable = "secret-unusable",
    /// The agent is paused, and was asked for something that a pause holds back.
    Paused = "paused",
    /// No agent works on the state folder, and only a running one could answer.
    NotRunning = "not-running",
    /// A job's transfer was expected and has not come.
    RunLate = "run-late",
    /// The audit trail is not what was written.
    AuditBroken = "audit-broken",
    /// The program or webhook that is to hear of an alert could not be called.
    AlertFailed = "alert-failed",
    /// The system's service manager refused, or there is none.
    ServiceFailed = "service-failed",
    /// A check of this host has found something that a person has to mend.
    CheckFailed = "check-failed",
    /// A release document that is not of the protocol, or not signed by the maker of this program.
    ReleaseInvalid = "release-invalid",
    /// A version that this agent does not take.
    UpdateRefused = "update-refused",
    /// An update did not work, and the version before it is installed again.
    UpdateRolledBack = "update-rolled-back",
    /// An update did not work, and neither does what is installed now.
    UpdateFailed = "update-failed",
    /// An operation was given up because the program shuts down or was told to.
    Cancelled = "cancelled",
    /// A limit of the protocol was exceeded.
    LimitExceeded = "limit-exceeded",
    /// A fault in Towpath itself.
    Internal = "internal",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that is not an operator error code.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[error("{0:?} is not an error code of Towpath")]
pub struct UnknownCode(String);

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        Self::ALL.iter().find(|code| code.as_str() == text).copied().ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disposition {
    /// The cause may pass by itself: try again after a pause.
    Retry,
    /// Only a person can mend it: park until released.
    Park,
}

/// Something that was tried and failed.
///
/// [`fmt::Display`] says what this layer tried and why it failed; the cause stays in [`Error::source`] and is printed
/// once, at the edge, with [`Failure::report`].
#[derive(Debug)]
pub struct Failure {
    code: Code,
    disposition: Disposition,
    message: String,
    retry_after: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The result of a step that can fail.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure whose cause may pass by itself.
    pub fn retry(code: Code, message: impl Into<String>) -> Self {
        Self { code, disposition: Disposition::Retry, message: message.into(), retry_after: None, source: None }
    }

    /// A failure that only a person can mend.
    pub fn park(code: Code, message: impl Into<String>) -> Self {
        Self { disposition: Disposition::Park, ..Self::retry(code, message) }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same without its cause, where that could quote what must not be told.
    #[must_use]
    pub fn without_cause(mut self) -> Self {
        self.source = None;
        self
    }

    /// The other side asked for this pause before the next try.
    #[must_use]
    pub fn after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// The operator error code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        self.disposition
    }

    /// The pause the other side asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What was tried and why it failed, without causes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Message, causes and code in one line, for the edge.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        format!("{text} [{}]", self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

/// What a journal keeps of a [`Failure`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureRecord {
    /// The operator error code.
    pub code: Code,
    /// Whether it was tried again or parked.
    pub disposition: Disposition,
    /// Message and causes.
    pub report: String,
}

impl From<&Failure> for FailureRecord {
    fn from(failure: &Failure) -> Self {
        Self { code: failure.code, disposition: failure.disposition, report: failure.report() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_parse_back() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert_eq!(serde_json::to_string(code).unwrap(), format!("{:?}", code.as_str()));
        }
        assert!("no-such-code".parse::<Code>().is_err());
    }

    #[test]
    fn the_report_names_every_cause_once() {
        let io = std::io::Error::other("no route to host");
        let failure = Failure::retry(Code::RelayUnreachable, "connecting to relay.example:443 failed").caused_by(io);
        assert_eq!(failure.report(), "connecting to relay.example:443 failed: no route to host [relay-unreachable]");
        assert_eq!(failure.to_string(), "connecting to relay.example:443 failed");
    }
}
