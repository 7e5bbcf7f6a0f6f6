//! What must hold when everything has come to rest. Each rule tells what it found wrong, and nothing where all is well.

mod disks;
mod downlinks;
mod keys;
mod uplinks;

use towpath_journal::verify;
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
    wrong.extend(world.leases_held());
    wrong
}

/// Every journal can be replayed, and nobody knows a transfer of another tenant.
async fn journals(world: &World) -> Wrong {
    let mut wrong = Wrong::new();
    for machine in world.all_machines() {
        let journal = world.wires.journal_of(machine);
        for direction in [Direction::Uplink, Direction::Downlink] {
            for record in known(machine, direction).await {
                if let Err(error) = verify(&*journal, &record.key).await {
                    wrong.push(format!("{}: {error}", machine.host));
                }
                if machine.host.tenant.as_ref().is_some_and(|tenant| *tenant != record.key.tenant) {
                    wrong.push(format!("{}: knows {}", machine.host, record.key));
                }
            }
        }
    }
    wrong
}
