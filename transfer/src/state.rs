//! The life of a transfer, as a pure function of its events.
//!
//! Every program drives the part of this life that happens on its machine; the words are the same everywhere. Recovery
//! replays [`TransferState::apply`] over the journal's events, so that there is one account of what may follow what.
//!
//! ```text
//! agent      planned → extract → pack → push → receipt → imported | rejected
//! relay      claimed → accept → forward → receipt → imported | rejected → removed
//!                           ↑ forwarded, and no receipt came: forward again
//!                 ↖ its files are gone (an old backup): incomplete, and the agent pushes again
//! receiver   landed → verify → import → receipt → imported | rejected
//! ```
//!
//! A return file, the other way:
//!
//! ```text
//! receiver   taken → export → notify → receipt → delivered | rejected
//! relay      announced → fetch → pack → queue → queued → delivered | rejected → removed
//! agent      offered → pull → verify → deliver (staged, placed, acted on) → acknowledge → delivered | rejected
//! ```
//!
//! A machine that was restored from a backup stands further back than the others. Whoever is ahead goes back to meet it: the
//! agent sends again what the relay has no more ([`TransferEvent::PushAgain`]), the relay asks again for what it has lost
//! ([`TransferEvent::FoundIncomplete`], [`TransferEvent::FetchAgain`], [`TransferEvent::Refetch`]) or forwards again
//! ([`TransferEvent::ForwardAgain`]), the receiver announces again ([`TransferEvent::NotifyAgain`]).

mod said;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::Sha256Digest;

pub use said::{Announced, Direction, Identity, MissingFile, Outcome, PlacedFile, Rejection};

pub use crate::{
    event::TransferEvent,
    stage::{Place, Stage},
};

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
    /// Agent (uplink): everything to send is on disk. Relay (downlink): everything to queue is.
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
    /// Receiver (uplink) and agent (downlink): everything agrees with the signed manifest.
    Verified {
        /// SHA-256 of `manifest.json`.
        manifest: Sha256Digest,
    },
    /// Receiver: imported or rejected; agent: delivered or rejected. The receipt is signed and must reach the relay.
    Decided {
        /// How it ended.
        outcome: Outcome,
    },
    /// Receiver: the files to send are on its disk, chosen by a person or taken from the export folder.
    Taken,
    /// Receiver: laid out for the relay, the manifest is signed.
    Exported {
        /// SHA-256 of `manifest.json`.
        manifest: Sha256Digest,
    },
    /// Receiver: the relay knows of it; the agent's receipt is awaited.
    Notified {
        /// SHA-256 of `manifest.json`.
        manifest: Sha256Digest,
    },
    /// Relay: the receiver has told of it.
    Announced {
        /// What and where.
        announced: Announced,
    },
    /// Relay: every file is here.
    Fetched {
        /// What and where.
        announced: Announced,
    },
    /// Relay: signed for, and visible to its agent, whose receipt is awaited.
    Queued {
        /// What travels.
        identity: Identity,
    },
    /// Agent: the relay has it for this agent.
    Offered {
        /// What travels.
        identity: Identity,
    },
    /// Agent: every packed file is here.
    Pulled {
        /// What travels.
        identity: Identity,
    },
    /// Agent: every file lies whole on the delivery folder's volume, under a hidden name.
    Staged {
        /// SHA-256 of `manifest.json`.
        manifest: Sha256Digest,
        /// The delivery folder, an absolute path: the one that was configured then.
        folder: String,
        /// The name each file gets there.
        files: Vec<PlacedFile>,
    },
    /// Agent: every file had its name in the delivery folder; what is to follow has not succeeded yet.
    Placed {
        /// SHA-256 of `manifest.json`.
        manifest: Sha256Digest,
        /// The delivery folder, an absolute path.
        folder: String,
        /// The name each file got there.
        files: Vec<PlacedFile>,
    },
    /// The end: imported.
    Imported,
    /// The end: delivered to the ERP.
    Delivered,
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
            (S::Pushed { identity } | S::Accepted { identity }, E::PushAgain) => S::Packed { identity: *identity },
            (S::Pushed { identity } | S::Claimed { identity }, E::Accepted) => S::Accepted { identity: *identity },
            (S::Planned | S::Extracted { .. } | S::Packed { .. }, E::Abandoned { reason }) => {
                S::Abandoned { reason: reason.clone() }
            }
            (S::Incomplete { .. }, E::Claimed { identity }) => S::Claimed { identity: *identity },
            (S::Claimed { .. } | S::Accepted { .. }, E::FoundIncomplete { missing }) => {
                S::Incomplete { missing: missing.clone() }
            }
            (S::Accepted { identity }, E::Forwarded) => S::Forwarded { identity: *identity },
            (S::Forwarded { identity }, E::ForwardAgain) => S::Accepted { identity: *identity },
            (S::Landed, E::Verified { manifest }) => S::Verified { manifest: *manifest },
            (
                S::Landed | S::Offered { .. } | S::Pulled { .. } | S::Verified { .. },
                E::Decided { outcome: outcome @ Outcome::Rejected(_) },
            )
            | (S::Verified { .. }, E::Decided { outcome: outcome @ Outcome::Imported })
            | (S::Placed { .. }, E::Decided { outcome: outcome @ Outcome::Delivered }) => S::Decided { outcome: outcome.clone() },
            (S::Taken, E::Exported { manifest }) => S::Exported { manifest: *manifest },
            (S::Exported { manifest }, E::Notified) => S::Notified { manifest: *manifest },
            (S::Notified { manifest }, E::NotifyAgain) => S::Exported { manifest: *manifest },
            (S::Announced { announced }, E::Fetched) => S::Fetched { announced: announced.clone() },
            (S::Fetched { announced }, E::FetchAgain) => S::Announced { announced: announced.clone() },
            (S::Packed { identity } | S::Queued { identity }, E::Refetch { announced })
                if identity.manifest == announced.manifest =>
            {
                S::Announced { announced: announced.clone() }
            }
            (S::Fetched { announced }, E::Packed { packed }) => {
                S::Packed { identity: Identity { manifest: announced.manifest, packed: *packed } }
            }
            (S::Packed { identity }, E::Queued) => S::Queued { identity: *identity },
            (S::Offered { identity }, E::Pulled) => S::Pulled { identity: *identity },
            (S::Pulled { identity }, E::Verified { manifest }) if identity.manifest == *manifest => {
                S::Verified { manifest: *manifest }
            }
            (S::Verified { manifest }, E::Staged { folder, files }) => {
                S::Staged { manifest: *manifest, folder: folder.clone(), files: files.clone() }
            }
            (S::Staged { manifest, folder, files }, E::Placed) => {
                S::Placed { manifest: *manifest, folder: folder.clone(), files: files.clone() }
            }
            // The receipt can overtake the relay's own note that it has forwarded.
            (S::Pushed { .. } | S::Accepted { .. } | S::Forwarded { .. }, E::Settled { outcome })
                if *outcome != Outcome::Delivered =>
            {
                S::ended(outcome)
            }
            (S::Queued { .. } | S::Notified { .. }, E::Settled { outcome }) if *outcome != Outcome::Imported => S::ended(outcome),
            (S::Decided { outcome }, E::Settled { outcome: settled }) if outcome == settled => S::ended(outcome),
            (S::Delivered, E::Removed) => S::Removed { outcome: Outcome::Delivered },
            (S::Imported, E::Removed) => S::Removed { outcome: Outcome::Imported },
            (S::Rejected { rejection }, E::Removed) => S::Removed { outcome: Outcome::Rejected(rejection.clone()) },
            _ => return Err(IllegalTransition { state: Box::new(self), event: Box::new(event.clone()) }),
        };
        Ok(next)
    }

    fn ended(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Imported => Self::Imported,
            Outcome::Delivered => Self::Delivered,
            Outcome::Rejected(rejection) => Self::Rejected { rejection: rejection.clone() },
        }
    }

    /// The work this state waits for, where the program at `place` does it; `None` where it waits for someone else.
    #[must_use]
    pub fn stage(&self, place: Place) -> Option<Stage> {
        use TransferState as S;
        match (place, self) {
            (Place::Agent, S::Planned) => Some(Stage::Extract),
            (Place::Agent, S::Extracted { .. }) | (Place::Relay, S::Fetched { .. }) => Some(Stage::Pack),
            (Place::Agent, S::Packed { .. }) => Some(Stage::Push),
            (Place::Agent, S::Pushed { .. } | S::Accepted { .. }) | (Place::Receiver, S::Decided { .. } | S::Notified { .. }) => {
                Some(Stage::Receipt)
            }
            (Place::Agent, S::Offered { .. }) => Some(Stage::Pull),
            (Place::Agent, S::Pulled { .. }) | (Place::Receiver, S::Landed) => Some(Stage::Verify),
            (Place::Agent, S::Verified { .. } | S::Staged { .. } | S::Placed { .. }) => Some(Stage::Deliver),
            (Place::Agent, S::Decided { .. }) => Some(Stage::Acknowledge),
            (Place::Relay, S::Claimed { .. }) => Some(Stage::Accept),
            (Place::Relay, S::Accepted { .. }) => Some(Stage::Forward),
            (Place::Relay, S::Announced { .. }) => Some(Stage::Fetch),
            (Place::Relay, S::Packed { .. }) => Some(Stage::Queue),
            (Place::Relay, S::Imported | S::Delivered | S::Rejected { .. }) => Some(Stage::Remove),
            (Place::Receiver, S::Verified { .. }) => Some(Stage::Import),
            (Place::Receiver, S::Taken) => Some(Stage::Export),
            (Place::Receiver, S::Exported { .. }) => Some(Stage::Notify),
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
            Self::Taken => "taken",
            Self::Exported { .. } => "exported",
            Self::Notified { .. } => "notified",
            Self::Announced { .. } => "announced",
            Self::Fetched { .. } => "fetched",
            Self::Queued { .. } => "queued",
            Self::Offered { .. } => "offered",
            Self::Pulled { .. } => "pulled",
            Self::Staged { .. } => "staged",
            Self::Placed { .. } => "placed",
            Self::Imported => "imported",
            Self::Delivered => "delivered",
            Self::Rejected { .. } => "rejected",
            Self::Abandoned { .. } => "abandoned",
            Self::Removed { .. } => "removed",
        }
    }

    /// Whether nothing can follow any more but the removal of a copy.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Imported | Self::Delivered | Self::Rejected { .. } | Self::Abandoned { .. } | Self::Removed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

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
    fn the_way_of_a_return_file_on_each_machine() {
        let identity = Identity { manifest: digest(1), packed: digest(2) };
        let settled = TransferEvent::Settled { outcome: Outcome::Delivered };
        let stages = |start: TransferState, place: Place, events: &[TransferEvent]| {
            let mut state = start;
            let mut seen = vec![state.stage(place)];
            for event in events {
                state = state.apply(event).unwrap();
                seen.push(state.stage(place));
            }
            (state, seen)
        };
        let receiver = [
            TransferEvent::Exported { manifest: digest(1) },
            TransferEvent::Notified,
            TransferEvent::NotifyAgain,
            TransferEvent::Notified,
            settled.clone(),
        ];
        let (state, seen) = stages(TransferState::Taken, Place::Receiver, &receiver);
        assert_eq!(state, TransferState::Delivered);
        let (export, notify, receipt) = (Some(Stage::Export), Some(Stage::Notify), Some(Stage::Receipt));
        assert_eq!(seen, [export, notify, receipt, notify, receipt, None]);

        let announced = Announced { path: "/downlink/erp/x/manifest.json".parse().unwrap(), size: 7, manifest: digest(1) };
        let relay = [
            TransferEvent::Fetched,
            TransferEvent::FetchAgain,
            TransferEvent::Fetched,
            TransferEvent::Packed { packed: digest(2) },
            TransferEvent::Queued,
            settled.clone(),
            TransferEvent::Removed,
        ];
        let (state, seen) = stages(TransferState::Announced { announced }, Place::Relay, &relay);
        assert_eq!(state, TransferState::Removed { outcome: Outcome::Delivered });
        let (fetch, pack) = (Some(Stage::Fetch), Some(Stage::Pack));
        assert_eq!(seen, [fetch, pack, fetch, pack, Some(Stage::Queue), None, Some(Stage::Remove), None]);

        let placed = vec![PlacedFile { name: "orders.csv".parse().unwrap(), placed: "orders (2).csv".parse().unwrap() }];
        let agent = [
            TransferEvent::Pulled,
            TransferEvent::Verified { manifest: digest(1) },
            TransferEvent::Staged { folder: "/erp/in".into(), files: placed },
            TransferEvent::Placed,
            TransferEvent::Decided { outcome: Outcome::Delivered },
            settled,
        ];
        let (state, seen) = stages(TransferState::Offered { identity }, Place::Agent, &agent);
        assert_eq!(state, TransferState::Delivered);
        let deliver = Some(Stage::Deliver);
        assert_eq!(seen, [Some(Stage::Pull), Some(Stage::Verify), deliver, deliver, deliver, Some(Stage::Acknowledge), None]);
    }

    #[test]
    fn nothing_is_delivered_before_it_is_placed_and_the_two_ways_do_not_mix() {
        let identity = Identity { manifest: digest(1), packed: digest(2) };
        let delivered = Outcome::Delivered;
        for state in [
            TransferState::Offered { identity },
            TransferState::Pulled { identity },
            TransferState::Verified { manifest: digest(1) },
            TransferState::Staged { manifest: digest(1), folder: "/erp".into(), files: Vec::new() },
            TransferState::Landed,
        ] {
            assert!(state.apply(&TransferEvent::Decided { outcome: delivered.clone() }).is_err());
        }
        assert!(TransferState::Pulled { identity }.apply(&TransferEvent::Verified { manifest: digest(9) }).is_err());
        let placed = TransferState::Placed { manifest: digest(1), folder: "/erp".into(), files: Vec::new() };
        let rejected = Outcome::Rejected(Rejection { code: Code::SignatureInvalid, detail: "unsigned".into() });
        assert!(placed.clone().apply(&TransferEvent::Decided { outcome: rejected.clone() }).is_err());
        assert!(placed.apply(&TransferEvent::Decided { outcome: Outcome::Imported }).is_err());
        assert!(TransferState::Offered { identity }.apply(&TransferEvent::Decided { outcome: rejected }).is_ok());
        assert!(TransferState::Queued { identity }.apply(&TransferEvent::Settled { outcome: Outcome::Imported }).is_err());
        for state in [TransferState::Forwarded { identity }, TransferState::Pushed { identity }] {
            assert!(state.apply(&TransferEvent::Settled { outcome: delivered.clone() }).is_err());
        }
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
    fn what_a_restored_relay_has_lost_is_asked_for_again() {
        let (identity, other) = (Identity { manifest: digest(1), packed: digest(2) }, digest(3));
        let missing = vec![MissingFile { name: "a.csv.bz2".parse().unwrap(), problem: "is not there".into() }];
        let found = TransferEvent::FoundIncomplete { missing: missing.clone() };
        let relay = TransferState::Forwarded { identity }.apply(&TransferEvent::ForwardAgain).unwrap().apply(&found).unwrap();
        assert_eq!((relay.stage(Place::Relay), &relay), (None, &TransferState::Incomplete { missing }));
        assert_eq!(relay.apply(&TransferEvent::Claimed { identity }), Ok(TransferState::Claimed { identity }));
        assert!(TransferState::Forwarded { identity }.apply(&found).is_err(), "what is forwarded is looked at by forwarding it");
        for agent in [TransferState::Pushed { identity }, TransferState::Accepted { identity }] {
            assert_eq!(agent.apply(&TransferEvent::PushAgain), Ok(TransferState::Packed { identity }));
        }
        let announced = |manifest| Announced { path: "/downlink/erp/x/manifest.json".parse().unwrap(), size: 7, manifest };
        let (right, wrong) = (announced(digest(1)), announced(other));
        for lost in [TransferState::Packed { identity }, TransferState::Queued { identity }] {
            assert!(lost.clone().apply(&TransferEvent::Refetch { announced: wrong.clone() }).is_err());
            let back = lost.apply(&TransferEvent::Refetch { announced: right.clone() }).unwrap();
            assert_eq!(
                (back.stage(Place::Relay), back),
                (Some(Stage::Fetch), TransferState::Announced { announced: right.clone() })
            );
        }
        for done in [TransferState::Imported, TransferState::Delivered] {
            for event in [TransferEvent::PushAgain, found.clone(), TransferEvent::Refetch { announced: right.clone() }] {
                assert!(done.clone().apply(&event).is_err());
            }
        }
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
