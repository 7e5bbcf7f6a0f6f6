//! How long each stage took, from the three journals.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use towpath_journal::{
    Journal as _, SqliteJournal,
    system::{SystemClock, SystemEntropy},
};
use towpath_transfer::{Direction, TransferEvent, TransferKey, state::Place};

use super::DemoError;

/// Seconds from the event before to the event that ends each stage.
pub(super) async fn stages(key: &TransferKey, journals: &[(Place, &Path)]) -> Result<BTreeMap<String, f64>, DemoError> {
    let mut seconds = BTreeMap::new();
    for (place, state) in journals {
        let path = state.join("journal.sqlite");
        let journal = SqliteJournal::open(&path, *place, Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new())).await?;
        let Some(record) = journal.get(key).await? else { continue };
        let mut before = record.created;
        for entry in journal.history(key).await?.entries {
            let stage = match record.direction {
                Direction::Uplink => uplink(*place, &entry.event).map(str::to_owned),
                Direction::Downlink => downlink(*place, &entry.event).map(|stage| format!("downlink/{stage}")),
            };
            if let Some(stage) = stage {
                let took = entry.at.duration_since(before).as_secs_f64();
                *seconds.entry(stage).or_default() += took.max(0.0);
            }
            before = entry.at;
        }
    }
    Ok(seconds)
}

fn uplink(place: Place, event: &TransferEvent) -> Option<&'static str> {
    match (place, event) {
        (Place::Agent, TransferEvent::Extracted { .. }) => Some("extract"),
        (Place::Agent, TransferEvent::Packed { .. }) => Some("pack"),
        (Place::Agent, TransferEvent::Pushed) => Some("push"),
        (Place::Relay, TransferEvent::Accepted) => Some("accept"),
        (Place::Relay, TransferEvent::Forwarded) => Some("forward"),
        (Place::Receiver, TransferEvent::Verified { .. }) => Some("verify"),
        (Place::Receiver, TransferEvent::Decided { .. }) => Some("import"),
        (Place::Receiver, TransferEvent::Settled { .. }) => Some("receipt"),
        _ => None,
    }
}

fn downlink(place: Place, event: &TransferEvent) -> Option<&'static str> {
    match (place, event) {
        (Place::Receiver, TransferEvent::Exported { .. }) => Some("export"),
        (Place::Receiver, TransferEvent::Notified) => Some("notify"),
        (Place::Relay, TransferEvent::Fetched) => Some("fetch"),
        (Place::Relay, TransferEvent::Packed { .. }) => Some("pack"),
        (Place::Relay, TransferEvent::Queued) => Some("queue"),
        (Place::Agent, TransferEvent::Pulled) => Some("pull"),
        (Place::Agent, TransferEvent::Verified { .. }) => Some("verify"),
        (Place::Agent, TransferEvent::Staged { .. } | TransferEvent::Placed | TransferEvent::Decided { .. }) => Some("deliver"),
        (Place::Agent, TransferEvent::Settled { .. }) => Some("acknowledge"),
        _ => None,
    }
}
