//! What happens to a transfer.

use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256Digest,
    state::{Announced, Identity, MissingFile, Outcome, PlacedFile},
};

/// Something that has happened to a transfer, durable once it is in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
pub enum TransferEvent {
    /// Agent: the snapshot is read, the manifest signed.
    Extracted {
        /// SHA-256 of `manifest.json`.
        manifest: Sha256Digest,
    },
    /// Agent (uplink) or relay (downlink): the packed list is written.
    Packed {
        /// SHA-256 of `packed.json`.
        packed: Sha256Digest,
    },
    /// Agent: `complete` was answered.
    Pushed,
    /// Agent: the relay asks for files again, or does not know the transfer any more.
    PushAgain,
    /// Relay: `complete` was said (again).
    Claimed {
        /// What travels.
        identity: Identity,
    },
    /// Relay: not everything is there, or not any more.
    FoundIncomplete {
        /// The files to send again.
        missing: Vec<MissingFile>,
    },
    /// Relay signed, or agent holds, the `accepted` receipt.
    Accepted,
    /// Relay: the app server has it.
    Forwarded,
    /// Relay: no receipt has come; the app server may have lost it, so it is forwarded once more.
    ForwardAgain,
    /// Receiver (uplink) or agent (downlink): all checks passed.
    Verified {
        /// SHA-256 of `manifest.json`.
        manifest: Sha256Digest,
    },
    /// Receiver: imported or rejected; agent: delivered or rejected. The receipt is signed and on disk.
    Decided {
        /// How it ended.
        outcome: Outcome,
    },
    /// The signed receipt has arrived, or was handed over by the machine that signed it.
    Settled {
        /// How it ended.
        outcome: Outcome,
    },
    /// Agent: given up before it was pushed.
    Abandoned {
        /// Why.
        reason: String,
    },
    /// Receiver: the files are laid out, the manifest is signed.
    Exported {
        /// SHA-256 of `manifest.json`.
        manifest: Sha256Digest,
    },
    /// Receiver: the relay was told.
    Notified,
    /// Receiver: the relay does not know it any more, and is told once more.
    NotifyAgain,
    /// Relay: every file is here, with the digest that the manifest names.
    Fetched,
    /// Relay: what was fetched is not there as it was; it is fetched once more.
    FetchAgain,
    /// Relay: what was packed or queued is gone from its disk; it is fetched once more.
    Refetch {
        /// What and where, as it was announced.
        announced: Announced,
    },
    /// Relay: the agent can see it.
    Queued,
    /// Agent: every packed file is here.
    Pulled,
    /// Agent: every file lies whole on the volume of the delivery folder, still under a hidden name.
    Staged {
        /// The delivery folder, an absolute path.
        folder: String,
        /// The name each file gets there.
        files: Vec<PlacedFile>,
    },
    /// Agent: every file has its name; the ERP may have taken it already.
    Placed,
    /// Relay: the copy is gone.
    Removed,
}
