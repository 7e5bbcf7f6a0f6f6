//! Keys and rights: everything is signed by whom it should be, what was retired or revoked gets nowhere.

use std::collections::{BTreeMap, BTreeSet};

use towpath_keys::signer_of;
use towpath_relay::registry::End;
use towpath_testkit::seams::{Agent, rows_of};
use towpath_transfer::{Clock as _, Direction, TenantName, TransferState, beside::beside, public_key::Fingerprint};
use towpath_transport::files::read_whole;

use super::{Wrong, disks, uplinks};
use crate::{
    erp,
    world::{Revoked, World, known},
};

/// The longest signature, in bytes.
const LONGEST: u64 = 1 << 14;

async fn ends(world: &World, tenant: &TenantName) -> Vec<End> {
    let scope = world.relay.registry.operator_scope(tenant).await.unwrap();
    world.relay.registry.ends(&scope).await.unwrap()
}

/// Every signature on every disk is by the relay or by a key that an end of the tenant has or had, as the relay knows them.
pub(super) async fn signed_by_known_keys(world: &World) -> Wrong {
    let mut known: BTreeMap<&TenantName, BTreeSet<Fingerprint>> = BTreeMap::new();
    for one in &world.ends {
        let keys = ends(world, &one.tenant).await;
        let keys = keys.iter().flat_map(End::keys).map(|key| key.fingerprint());
        known.insert(&one.tenant, keys.chain([world.relay.receipt_key.fingerprint()]).collect());
    }
    let mut wrong = Wrong::new();
    for machine in world.all_machines() {
        for path in disks::all_files(machine).into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "sig")) {
            let Some(keys) = disks::owner(world, machine, &path).and_then(|tenant| known.get(tenant)) else { continue };
            // One that is only half there is none.
            let Some(signer) = read_whole(&machine.disk, &path, LONGEST).ok().and_then(|bytes| signer_of(&bytes).ok()) else {
                continue;
            };
            if !keys.contains(&signer.fingerprint()) {
                wrong.push(format!(
                    "{}: {} is signed by {}, whom nobody knows",
                    machine.host,
                    path.display(),
                    signer.fingerprint()
                ));
            }
        }
    }
    wrong
}

/// Agent and relay know the same newest key, and whatever was retired is refused.
pub(super) async fn keys_are_known_and_retired(world: &World) -> Wrong {
    let mut wrong = Wrong::new();
    let now = world.clock.now();
    for one in &world.ends {
        let own = &one.agent.enrolment;
        let revoked = world.revoked.iter().any(|revoked| revoked.name == own.name && revoked.user == own.sftp_user);
        for end in ends(world, &one.tenant).await.into_iter().filter(|end| end.name == own.name) {
            let on_disk = one.agent.key_on_disk().fingerprint();
            if !revoked && end.fingerprint() != on_disk {
                let known = end.fingerprint();
                wrong.push(format!("{}: has the key {on_disk}, and the relay knows {known}", one.agent.machine.host));
            }
            for (number, rotation) in end.rotations.iter().enumerate() {
                let mut later = end.rotations.iter().skip(number);
                if !later.any(|later| later.old_until <= now) {
                    continue;
                }
                let answer = world.relay.registry.authenticate_key(&own.sftp_user, &rotation.old_key).await;
                if answer.is_ok() {
                    let key = rotation.old_key.fingerprint();
                    wrong.push(format!("relay: lets {} in with the key {key}, which is retired", own.sftp_user));
                }
            }
        }
    }
    wrong
}

/// Whoever was revoked is refused, and nothing of it has come in since.
pub(super) async fn revoked_stay_out(world: &World) -> Wrong {
    let mut wrong = Wrong::new();
    for (number, revoked) in world.revoked.iter().enumerate() {
        let Some(ends) = world.ends.get(revoked.tenant) else { continue };
        let agent = revoked.agent.as_ref().unwrap_or(&ends.agent);
        for key in self::ends(world, &ends.tenant).await.iter().filter(|end| end.name == revoked.name).flat_map(End::keys) {
            if world.relay.registry.authenticate_key(&revoked.user, key).await.is_ok() {
                wrong.push(format!("relay: lets {} in, which was revoked", revoked.user));
            }
        }
        let Some(had) = &revoked.had else { continue };
        let has = world.had(number).await;
        for id in has.uplinks.difference(&had.uplinks) {
            wrong.push(format!("relay: has taken {} of {} since it was revoked", world.story.name(*id), revoked.user));
        }
        for path in has.files.difference(&had.files) {
            wrong.push(format!("relay: {} has come from {} since it was revoked", path.display(), revoked.user));
        }
        wrong.extend(imported(world, revoked, agent).await);
    }
    for (ends, rights) in world.ends.iter().zip(&world.rights) {
        let caller = ends.receiver.caller();
        if rights.receiver_is_out && world.relay.registry.authenticate_key(&caller.user, &caller.key).await.is_ok() {
            wrong.push(format!("relay: lets {} in, which was revoked", caller.user));
        }
    }
    wrong
}

/// What is wrong with what was imported of a revoked agent: each once, whole, and only what the relay had of it.
async fn imported(world: &World, revoked: &Revoked, agent: &Agent) -> Wrong {
    let mut wrong = Wrong::new();
    let (Some(ends), Some(erp)) = (world.ends.get(revoked.tenant), world.erps.get(revoked.tenant)) else { return wrong };
    let Some(mut app) = uplinks::app(ends, &revoked.name).await else { return wrong };
    let ledger = beside(rows_of(&mut app, "SELECT transfer FROM towpath_imports ORDER BY sequence")).await;
    let had = revoked.had.iter().flat_map(|had| &had.uplinks).map(ToString::to_string).collect::<BTreeSet<_>>();
    let distinct: BTreeSet<&String> = ledger.iter().collect();
    if distinct.len() != ledger.len() || !distinct.iter().all(|id| had.contains(*id)) {
        wrong.push(format!("{}: imported are {ledger:?}, and the relay had {had:?} when it was revoked", revoked.user));
    }
    for record in known(&agent.machine, Direction::Uplink).await {
        let id = record.key.id.to_string();
        if record.state == TransferState::Imported && !ledger.contains(&id) {
            wrong.push(format!("{}: {} was not imported, and the agent believes so", revoked.user, record.key));
        }
    }
    let newest = ledger.last().and_then(|id| id.parse().ok());
    let state = newest.and_then(|id| world.wires.read_from(id));
    let found = erp::content(&mut app).await;
    if state.and_then(|state| erp.state(state)) != Some(&found) {
        wrong.push(format!("{}: the app has {found:?}, which was read from state {state:?}", revoked.user));
    }
    wrong
}
