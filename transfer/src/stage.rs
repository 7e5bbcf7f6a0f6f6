//! The stages of a transfer's way, and the machines they run on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The work a transfer waits for. The same word is the module, the span, the metric label and the column in tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Agent: read the ERP's tables in one snapshot.
    Extract,
    /// Agent (uplink) and relay (downlink): finish the packed files and their list.
    Pack,
    /// Agent: put everything on the relay and say `complete`.
    Push,
    /// Relay: compare every file with what `complete` named.
    Accept,
    /// Relay: put everything on the tenant's app server.
    Forward,
    /// Receiver (uplink) and agent (downlink): check signature, digests, sizes, and what the content says.
    Verify,
    /// Receiver: import in one transaction.
    Import,
    /// The signed receipt travels back.
    Receipt,
    /// Receiver: digest and sign the return files, and lay them out for the relay.
    Export,
    /// Receiver: tell the relay what it may fetch.
    Notify,
    /// Relay: fetch the return files from the app server.
    Fetch,
    /// Relay: sign for the packed files and show them to the agent.
    Queue,
    /// Agent: fetch the packed files from the relay.
    Pull,
    /// Agent: put the files into the ERP's folder, whole, and do what is to follow.
    Deliver,
    /// Agent: hand the relay the signed receipt.
    Acknowledge,
    /// Relay: the retention time is over, the copy goes.
    Remove,
}

impl Stage {
    /// Every stage, in the order of the ways.
    pub const ALL: &[Self] = &[
        Self::Extract,
        Self::Pack,
        Self::Push,
        Self::Accept,
        Self::Forward,
        Self::Verify,
        Self::Import,
        Self::Receipt,
        Self::Export,
        Self::Notify,
        Self::Fetch,
        Self::Queue,
        Self::Pull,
        Self::Deliver,
        Self::Acknowledge,
        Self::Remove,
    ];

    /// The stage's one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Extract => "extract",
            Self::Pack => "pack",
            Self::Push => "push",
            Self::Accept => "accept",
            Self::Forward => "forward",
            Self::Verify => "verify",
            Self::Import => "import",
            Self::Receipt => "receipt",
            Self::Export => "export",
            Self::Notify => "notify",
            Self::Fetch => "fetch",
            Self::Queue => "queue",
            Self::Pull => "pull",
            Self::Deliver => "deliver",
            Self::Acknowledge => "acknowledge",
            Self::Remove => "remove",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The machine that looks at a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The ERP host.
    Agent,
    /// The comms server.
    Relay,
    /// The app server.
    Receiver,
}
