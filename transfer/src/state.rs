//! The life of a transfer, as a pure function of its events.
//!
//! Every program drives the part of this life that happens on its machine; the words are the same everywhere. Recovery
//! replays [`TransferState::apply`] over the journal's events, so that there is one account of what may follow what.
//!
//! ```text
//! agent      planned → extract → pack → push → receipt → imported | rejected
//! relay      claimed → accept → forward → receipt → imported | rejected → removed
//!                           ↑ forwarded, and no receipt came: forward again
//! receiver   landed → verify → import → receipt → imported | rejected
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{digest::Sha256Digest, failure::Code, name::FileName};

/// Which way a transfer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the ERP to the app.
    Uplink,
    /// From the app to the ERP.
    Downlink,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uplink => "uplink",
            Self::Downlink => "downlink",
        })
    }
}

/// The work a transfer waits for. The same word is the module, the span, the metric label and the column in tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Agent: read the ERP's tables in one snapshot.
    Extract,
    /// Agent: finish the packed files and their list.
    Pack,
    /// Agent: put everything on the relay and say `complete`.
    Push,
    /// Relay: compare every file with what `complete` named.
    Accept,
    /// Relay: put everything on the tenant's app server.
    Forward,
    /// Receiver: check signature, digests, sizes, rows and totals.
    Verify,
    /// Receiver: import in one transaction.
    Import,
    /// The signed receipt travels back.
    Receipt,
    /// Relay: the retention time is over, the copy goes.
    Remove,
}

impl Stage {
    /// Every stage, in the order of the way.
    pub const ALL: &[Self] = &[
        Self::Extract,
        Self::Pack,
        Self::Push,
        Self::Accept,
        Self::Forward,
        Self::Verify,
        Self::Import,
        Self::Receipt,
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
            Self::Remove => "remove",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two digests that name exactly what travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// SHA-256 of `manifest.json`.
    pub manifest: Sha256Digest,
    /// SHA-256 of `packed.json`.
    pub packed: Sha256Digest,
}

/// Why a receiver refused a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rejection {
    /// The operator error code.
    pub code: Code,
    /// One sentence for a person.
    pub detail: String,
}

/// How a transfer ended at the receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "result", rename_all = "lowercase", deny_unknown_fields)]
pub enum Outcome {
    /// Every table is in the app database.
    Imported,
    /// Nothing of it is in the app database.
    Rejected(Rejection),
}

/// A file that `complete` named and that is not there as named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MissingFile {
    /// The file's name in the transfer's folder.
    pub name: FileName,
    /// What is wrong with it, in a few words.
    pub problem: String,
}

/// Where a transfer stands on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase", deny_unknown_fields)]
pub enum TransferState {
    /// Agent: id and sequence are reserved.
    Planned,
    /// Agent: the manifest is written and signed.
    Extracted {
        /// SHA-256 of `manifest.json`.
        manifest: Sha256Digest,
    },
    /// Agent: everything to send is on disk.
    Packed {
        /// What travels.
        identity: Identity,
    },
    /// Agent: the relay has it all and was told so; its receipts are awaited.
    Pushed {
        /// What travels.
        identity: Identity,
    },
    /// Relay: the agent said `complete`; the folder is frozen.
    Claimed {
        /// What travels.
        identity: Identity,
    },
    /// Relay: something differs from what `complete` named; the folder is open again.
    Incomplete {
        /// The files to send again.
        missing: Vec<MissingFile>,
    },
    /// Relay and agent: the relay has checked every file and signed for it.
    Accepted {
        /// What travels.
        identity: Identity,
    },
    /// Relay: the app server has every file.
    Forwarded {
        /// What travels.
        identity: Identity,
    },
    /// Receiver: `manifest.json` is there, so everything else is.
    Landed,
    /// Receiver: everything agrees with the signed manifest.
    Verified {
        /// SHA-256 of `manifest.json`.
        manifest: Sha256Digest,
    },
    /// Receiver: imported or rejected; the receipt is signed and must reach the relay.
    Decided {
        /// How it ended.
        outcome: Outcome,
    },
    /// The end: imported.
    Imported,
    /// The end: rejected.
    Rejected {
        /// Why.
        rejection: Rejection,
    },
    /// The end: given up before it was pushed.
    Abandoned {
        /// Why.
        reason: String,
    },
    /// Relay: ended, and its copy removed.
    Removed {
        /// How it ended.
        outcome: Outcome,
    },
}

/// Something that has happened to a transfer, durable once it is in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
pub enum TransferEvent {
    /// Agent: the snapshot is read, the manifest signed.
    Extracted {
        /// SHA-256 of `manifest.json`.
        manifest: Sha256Digest,
    },
    /// Agent: the packed list is written.
    Packed {
        /// SHA-256 of `packed.json`.
        packed: Sha256Digest,
    },
    /// Agent: `complete` was answered.
    Pushed,
    /// Agent: the relay asks for files again.
    PushAgain,
    /// Relay: `complete` was said (again).
    Claimed {
        /// What travels.
        identity: Identity,
    },
    /// Relay: not everything is there.
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
    /// Receiver: all checks passed.
    Verified {
        /// SHA-256 of `manifest.json`.
        manifest: Sha256Digest,
    },
    /// Receiver: imported or rejected, receipt signed and on disk.
    Decided {
        /// How it ended.
        outcome: Outcome,
    },
    /// The signed receipt has arrived (agent, relay) or was handed over (receiver).
    Settled {
        /// How it ended.
        outcome: Outcome,
    },
    /// Agent: given up before it was pushed.
    Abandoned {
        /// Why.
        reason: String,
    },
    /// Relay: the copy is gone.
    Removed,
}

/// An event that cannot follow a state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{event:?} cannot follow {state:?}")]
pub struct IllegalTransition {
    /// The state.
    pub state: Box<TransferState>,
    /// The event.
    pub event: Box<TransferEvent>,
}

impl TransferState {
    /// What follows when `event` has happened.
    ///
    /// # Errors
    /// [`IllegalTransition`] where the event cannot have happened.
    pub fn apply(self, event: &TransferEvent) -> Result<Self, IllegalTransition> {
        use TransferEvent as E;
        use TransferState as S;
        let next = match (&self, event) {
            (S::Planned, E::Extracted { manifest }) => S::Extracted { manifest: *manifest },
            (S::Extracted { manifest }, E::Packed { packed }) => {
                S::Packed { identity: Identity { manifest: *manifest, packed: *packed } }
            }
            (S::Packed { identity }, E::Pushed) => S::Pushed { identity: *identity },
            (S::Pushed { identity }, E::PushAgain) => S::Packed { identity: *identity },
            (S::Pushed { identity } | S::Claimed { identity }, E::Accepted) => S::Accepted { identity: *identity },
            (S::Planned | S::Extracted { .. } | S::Packed { .. }, E::Abandoned { reason }) => {
                S::Abandoned { reason: reason.clone() }
            }
            (S::Incomplete { .. }, E::Claimed { identity }) => S::Claimed { identity: *identity },
            (S::Claimed { .. }, E::FoundIncomplete { missing }) => S::Incomplete { missing: missing.clone() },
            (S::Accepted { identity }, E::Forwarded) => S::Forwarded { identity: *identity },
            (S::Forwarded { identity }, E::ForwardAgain) => S::Accepted { identity: *identity },
            (S::Landed, E::Verified { manifest }) => S::Verified { manifest: *manifest },
            (S::Landed, E::Decided { outcome: outcome @ Outcome::Rejected(_) })
            | (S::Verified { .. }, E::Decided { outcome }) => S::Decided { outcome: outcome.clone() },
            // The receipt can overtake the relay's own note that it has forwarded.
            (S::Pushed { .. } | S::Accepted { .. } | S::Forwarded { .. }, E::Settled { outcome }) => S::ended(outcome),
            (S::Decided { outcome }, E::Settled { outcome: settled }) if outcome == settled => S::ended(outcome),
            (S::Imported, E::Removed) => S::Removed { outcome: Outcome::Imported },
            (S::Rejected { rejection }, E::Removed) => S::Removed { outcome: Outcome::Rejected(rejection.clone()) },
            _ => return Err(IllegalTransition { state: Box::new(self), event: Box::new(event.clone()) }),
        };
        Ok(next)
    }

    fn ended(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Imported => Self::Imported,
            Outcome::Rejected(rejection) => Self::Rejected { rejection: rejection.clone() },
        }
    }

    /// The work this state waits for, where the program at `place` does it; `None` where it waits for someone else.
    #[must_use]
    pub fn stage(&self, place: Place) -> Option<Stage> {
        use TransferState as S;
        match (place, self) {
            (Place::Agent, S::Planned) => Some(Stage::Extract),
            (Place::Agent, S::Extracted { .. }) => Some(Stage::Pack),
            (Place::Agent, S::Packed { .. }) => Some(Stage::Push),
            (Place::Agent, S::Pushed { .. } | S::Accepted { .. }) | (Place::Receiver, S::Decided { .. }) => Some(Stage::Receipt),
            (Place::Relay, S::Claimed { .. }) => Some(Stage::Accept),
            (Place::Relay, S::Accepted { .. }) => Some(Stage::Forward),
            (Place::Relay, S::Imported | S::Rejected { .. }) => Some(Stage::Remove),
            (Place::Receiver, S::Landed) => Some(Stage::Verify),
            (Place::Receiver, S::Verified { .. }) => Some(Stage::Import),
            _ => None,
        }
    }

    /// The state's one word, as it stands in tables and logs.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Extracted { .. } => "extracted",
            Self::Packed { .. } => "packed",
            Self::Pushed { .. } => "pushed",
            Self::Claimed { .. } => "claimed",
            Self::Incomplete { .. } => "incomplete",
            Self::Accepted { .. } => "accepted",
            Self::Forwarded { .. } => "forwarded",
            Self::Landed => "landed",
            Self::Verified { .. } => "verified",
            Self::Decided { .. } => "decided",
            Self::Imported => "imported",
            Self::Rejected { .. } => "rejected",
            Self::Abandoned { .. } => "abandoned",
            Self::Removed { .. } => "removed",
        }
    }

    /// Whether nothing can follow any more but the removal of a copy.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Imported | Self::Rejected { .. } | Self::Abandoned { .. } | Self::Removed { .. })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(of: u8) -> Sha256Digest {
        Sha256Digest::of(&[of])
    }

    fn replay(start: TransferState, events: &[TransferEvent]) -> TransferState {
        events.iter().try_fold(start, TransferState::apply).unwrap()
    }

    #[test]
    fn the_way_of_an_uplink_on_each_machine() {
        let identity = Identity { manifest: digest(1), packed: digest(2) };
        let settled = TransferEvent::Settled { outcome: Outcome::Imported };
        let agent = replay(
            TransferState::Planned,
            &[
                TransferEvent::Extracted { manifest: digest(1) },
                TransferEvent::Packed { packed: digest(2) },
                TransferEvent::Pushed,
                TransferEvent::PushAgain,
                TransferEvent::Pushed,
                TransferEvent::Accepted,
                settled.clone(),
            ],
        );
        assert_eq!(agent, TransferState::Imported);

        let missing = vec![MissingFile { name: "a.csv.bz2".parse().unwrap(), problem: "is not there".into() }];
        let relay = replay(
            TransferState::Claimed { identity },
            &[
                TransferEvent::FoundIncomplete { missing },
                TransferEvent::Claimed { identity },
                TransferEvent::Accepted,
                TransferEvent::Forwarded,
                TransferEvent::ForwardAgain,
                TransferEvent::Forwarded,
                settled.clone(),
                TransferEvent::Removed,
            ],
        );
        assert_eq!(relay, TransferState::Removed { outcome: Outcome::Imported });

        let receiver = replay(
            TransferState::Landed,
            &[TransferEvent::Verified { manifest: digest(1) }, TransferEvent::Decided { outcome: Outcome::Imported }, settled],
        );
        assert_eq!(receiver, TransferState::Imported);
    }

    #[test]
    fn nothing_is_imported_unverified_and_no_end_is_undone() {
        let imported = TransferEvent::Decided { outcome: Outcome::Imported };
        assert!(TransferState::Landed.apply(&imported).is_err());
        let rejected = Outcome::Rejected(Rejection { code: Code::SignatureInvalid, detail: "unsigned".into() });
        let decided = TransferState::Decided { outcome: Outcome::Imported };
        assert!(decided.apply(&TransferEvent::Settled { outcome: rejected }).is_err());
        assert!(TransferState::Imported.apply(&TransferEvent::Pushed).is_err());
    }

    #[test]
    fn only_what_was_forwarded_is_forwarded_again() {
        let identity = Identity { manifest: digest(1), packed: digest(2) };
        let again = TransferState::Forwarded { identity }.apply(&TransferEvent::ForwardAgain).unwrap();
        assert_eq!((again.stage(Place::Relay), &again), (Some(Stage::Forward), &TransferState::Accepted { identity }));
        for state in [TransferState::Claimed { identity }, again, TransferState::Imported, TransferState::Pushed { identity }] {
            assert!(state.apply(&TransferEvent::ForwardAgain).is_err());
        }
    }
}
