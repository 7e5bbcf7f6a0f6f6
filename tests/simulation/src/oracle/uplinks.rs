//! Uplinks: imported once, or rejected with a receipt.

use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use towpath_journal::TransferRecord;
use towpath_testkit::seams::{Ends, rows_of};
use towpath_transfer::{
    AgentName, Code, Direction, TransferState,
    beside::beside,
    receipt::ReceiptStage,
    state::{Outcome, Rejection},
};

use super::Wrong;
use crate::{
    erp,
    world::{Rights, World, known},
};

/// Every transfer has ended on all three machines alike, with the same receipts, and was imported once or not at all.
pub(super) async fn each_ended_once(world: &World) -> Wrong {
    let mut wrong = Wrong::new();
    for (ends, rights) in world.ends.iter().zip(&world.rights) {
        if rights.agent_is_out || rights.receiver_is_out {
            continue;
        }
        let all = known(&ends.agent.machine, Direction::Uplink).await;
        let mut imported = Vec::new();
        for record in &all {
            let name = format!("{} of {}", world.story.name(record.key.id), ends.tenant);
            wrong.extend(ended(world, ends, rights, &all, record).await.map(|problem| format!("{name}: {problem}")));
            if record.state == TransferState::Imported {
                imported.push(record.key.id.to_string());
            }
        }
        let Some(mut app) = app(ends, &ends.agent.enrolment.name).await else {
            if !imported.is_empty() {
                wrong.push(format!("{}: nothing was imported, and the agent believes in {imported:?}", ends.tenant));
            }
            continue;
        };
        let mut ledger = beside(rows_of(&mut app, "SELECT transfer FROM towpath_imports ORDER BY sequence")).await;
        imported.sort();
        ledger.sort();
        if ledger != imported {
            wrong.push(format!("{}: imported are {ledger:?}, and the agent believes in {imported:?}", ends.tenant));
        }
        for record in known(&ends.receiver.machine, Direction::Uplink).await {
            if !world.is_revoked(&record.key) && !all.iter().any(|known| known.key == record.key) {
                wrong.push(format!("{}: {} is nobody's transfer", ends.receiver.machine.host, record.key));
            }
        }
    }
    wrong
}

/// Whether the app rightly has not what a transfer builds on: an older one that waited for a person while it was extracted was
/// imported before it, and a newer one since has everything. What a transfer builds on is the last that was imported when it was
/// extracted, so that one in between was imported later.
fn lost_its_base(ends: &Ends, all: &[TransferRecord], record: &TransferRecord) -> bool {
    let imported = || all.iter().filter(|one| one.state == TransferState::Imported);
    let bases = ends.agent.bases(record.key.id);
    let base = all.iter().filter(|one| bases.contains(&one.key.id)).filter_map(|one| one.sequence).max();
    base.is_some()
        && imported().any(|one| base < one.sequence && one.sequence < record.sequence)
        && imported().any(|one| record.sequence < one.sequence)
}

/// What is wrong with one transfer.
async fn ended(world: &World, ends: &Ends, rights: &Rights, all: &[TransferRecord], record: &TransferRecord) -> Option<String> {
    let (key, state) = (&record.key, &record.state);
    let is_allowed = |rejection: &Rejection| match rejection.code {
        // It may be overtaken by a newer one.
        Code::Superseded => true,
        Code::BaseMissing => lost_its_base(ends, all, record),
        Code::AgentUnapproved => rights.was_disapproved,
        _ => false,
    };
    if matches!(state, TransferState::Abandoned { .. }) {
        let elsewhere = [ends.receiver.record(key).await, world.relay.record(key).await];
        return elsewhere
            .iter()
            .any(Option::is_some)
            .then(|| "it was given up for a newer one, and has left the agent".to_owned());
    }
    let (stage, outcome) = match state {
        TransferState::Imported => (ReceiptStage::Imported, Outcome::Imported),
        TransferState::Rejected { rejection } if is_allowed(rejection) => {
            (ReceiptStage::Rejected, Outcome::Rejected(rejection.clone()))
        }
        other => return Some(format!("the agent has it as {other:?}")),
    };
    let receiver = ends.receiver.record(key).await.map(|record| record.state);
    if receiver.as_ref() != Some(state) {
        return Some(format!("the agent has it as {state:?}, and the receiver as {receiver:?}"));
    }
    let relay = world.relay.record(key).await.map(|record| record.state);
    if relay != Some(TransferState::Removed { outcome }) {
        return Some(format!("the agent has it as {state:?}, and the relay as {relay:?}"));
    }
    let (agent, relay) = (ends.agent.receipt(key.id, stage), world.relay.receipt(key, stage));
    if agent.is_none() || agent != relay || relay != ends.receiver.receipt(key, stage) {
        return Some(format!("the {stage:?} receipts differ or are missing"));
    }
    let (agent, relay) = (ends.agent.receipt(key.id, ReceiptStage::Accepted), world.relay.receipt(key, ReceiptStage::Accepted));
    if agent.is_none() || agent != relay {
        return Some("the Accepted receipts differ or are missing".to_owned());
    }
    ends.agent.chain(key.id).await.err()
}

/// The app's tables are those that the ERP had when the newest imported transfer was read.
pub(super) async fn apps_have_what_erps_had(world: &World) -> Wrong {
    let mut wrong = Wrong::new();
    for ((ends, erp), rights) in world.ends.iter().zip(&world.erps).zip(&world.rights) {
        if rights.agent_is_out || rights.receiver_is_out {
            continue;
        }
        let all = known(&ends.agent.machine, Direction::Uplink).await;
        let newest = all.iter().rev().find(|record| record.state == TransferState::Imported);
        let (Some(newest), Some(mut app)) = (newest, app(ends, &ends.agent.enrolment.name).await) else { continue };
        let state = world.wires.read_from(newest.key.id);
        let expected = state.and_then(|state| erp.state(state));
        let found = erp::content(&mut app).await;
        if expected != Some(&found) {
            let name = world.story.name(newest.key.id);
            wrong.push(format!(
                "{}'s app has {found:?} after {name}, which was read from state {state:?}: {expected:?}",
                ends.tenant
            ));
        }
        if state != Some(erp.now()) {
            wrong.push(format!("{}'s app has state {state:?}, and the ERP is in state {}", ends.tenant, erp.now()));
        }
    }
    wrong
}

/// The app's database of an agent, where something was imported into it.
pub(super) async fn app(ends: &Ends, agent: &AgentName) -> Option<SqliteConnection> {
    let path = ends.receiver.database(agent);
    let mut app = beside(SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path))).await.ok()?;
    let ledger = beside(rows_of(&mut app, "SELECT name FROM sqlite_schema WHERE name = 'towpath_imports'")).await;
    (!ledger.is_empty()).then_some(app)
}
