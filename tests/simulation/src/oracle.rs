//! What must hold when everything has come to rest. Each rule tells what it found wrong, and nothing where all is well.

mod disks;
mod downlinks;
mod keys;
mod uplinks;

use towpath_journal::{Journal as _, verify};
use towpath_testkit::seams::Machine;
use towpath_transfer::Direction;

use crate::world::{World, known};

/// What a rule found wrong.
pub(crate) type Wrong = Vec<String>;

/// Asks every rule.
pub async fn ask(world: &World) -> Wrong {
    let mut wrong: Wrong = world.wrong.iter().cloned().collect();
    wrong.extend(disks::nothing_of_others(world));
    wrong.extend(keys::signed_by_known_keys(world).await);
    wrong.extend(keys::keys_are_known_and_retired(world).await);
    wrong.extend(keys::revoked_stay_out(world).await);
    if !wrong.is_empty() {
        // Whatever has not come to rest is wrong in every other way as well.
        return wrong;
    }
    wrong.extend(uplinks::each_ended_once(world).await);
    wrong.extend(uplinks::apps_have_what_erps_had(world).await);
    wrong.extend(downlinks::each_delivered_once(world).await);
    wrong.extend(disks::nothing_left(world).await);
    wrong.extend(disks::nothing_open(world));
    wrong.extend(world.tasks_left());
    wrong.extend(journals(world).await);
    wrong
}

/// Every journal can be replayed and holds no lease, and nobody knows a transfer of another tenant.
async fn journals(world: &World) -> Wrong {
    let mut wrong = Wrong::new();
    for machine in world.all_machines() {
        for direction in [Direction::Uplink, Direction::Downlink] {
            for record in known(machine, direction).await {
                if let Err(error) = verify(&*machine.journal, &record.key).await {
                    wrong.push(format!("{}: {error}", machine.host));
                }
                if machine.host.tenant.as_ref().is_some_and(|tenant| *tenant != record.key.tenant) {
                    wrong.push(format!("{}: knows {}", machine.host, record.key));
                }
            }
        }
        // Whoever waits for what a revoked end will never say asks again and again.
        if !world.is_concerned(&machine.host) {
            wrong.extend(leases(machine).await);
        }
    }
    wrong
}

async fn leases(machine: &Machine) -> Option<String> {
    let held = machine.journal.break_leases().await.unwrap_or(0);
    (held > 0).then(|| format!("{}: {held} leases are held though nothing is to be done", machine.host))
}
