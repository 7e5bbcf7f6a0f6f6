//! What lies on the disks: nothing of another tenant, and nothing that nobody needs any more.

use std::{
    io::Cursor,
    path::{Path, PathBuf},
};

use towpath_testkit::seams::{DELIVERY, Machine};
use towpath_transfer::{Direction, TenantName, TransferState, codec::unpack, packed::PACKED_SUFFIX, state::Place};
use towpath_transport::files::{FileKind, FileStore as _, MemoryFiles, read_whole};

use super::Wrong;
use crate::{
    erp::marker,
    world::{World, known},
};

/// The most entries of a folder, and the longest file in bytes, in a simulation.
const MOST: usize = 10_000;
const LONGEST: u64 = 1 << 24;
/// What a receiver notes of the one job of each of its agents.
const NEWEST: (&str, &str) = ("/receiver/newest/erp", "/main.json");

/// Every file of a disk below a folder.
fn files(disk: &MemoryFiles, folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in disk.list(folder, None, MOST).unwrap_or_default() {
        let path = folder.join(&entry.name);
        if entry.stat.kind == FileKind::Dir { files(disk, &path, found) } else { found.push(path) }
    }
}

pub(super) fn all_files(machine: &Machine) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&machine.disk, Path::new("/"), &mut found);
    found
}

/// Whose a file on a machine is: the machine's, or on the relay that of the tenant in whose folder it lies.
pub(super) fn owner<'a>(world: &'a World, machine: &'a Machine, path: &Path) -> Option<&'a TenantName> {
    let named = |tenant: &&TenantName| path.components().any(|part| part.as_os_str() == tenant.as_str());
    machine.host.tenant.as_ref().or_else(|| world.ends.iter().map(|ends| &ends.tenant).find(named))
}

/// No row and no file of one tenant is anywhere in the reach of another.
pub(super) fn nothing_of_others(world: &World) -> Wrong {
    let mut wrong = Wrong::new();
    let mut look = |place: String, bytes: &[u8], owner: Option<&TenantName>| {
        for ends in world.ends.iter().filter(|ends| Some(&ends.tenant) != owner) {
            if contains(bytes, marker(&ends.tenant).as_bytes()) {
                wrong.push(format!("{place} has something of {}", ends.tenant));
            }
        }
    };
    for machine in world.all_machines() {
        for path in all_files(machine) {
            let Ok(bytes) = read_whole(&machine.disk, &path, LONGEST) else { continue };
            let bytes = if path.to_string_lossy().contains(PACKED_SUFFIX) { unpacked(bytes) } else { bytes };
            look(format!("{}: {}", machine.host, path.display()), &bytes, owner(world, machine, &path));
        }
    }
    for (number, ends) in world.ends.iter().enumerate() {
        for agent in world.agents(number) {
            let database = ends.receiver.database(&agent.enrolment.name);
            let bytes = std::fs::read(&database).unwrap_or_default();
            look(format!("{}'s app database", ends.tenant), &bytes, Some(&ends.tenant));
        }
    }
    wrong
}

/// As much of a packed file as there is.
fn unpacked(bytes: Vec<u8>) -> Vec<u8> {
    let mut plain = Vec::new();
    // A part ends somewhere; what comes before that counts.
    let _ = unpack(Cursor::new(bytes), &mut plain, LONGEST);
    plain
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    let Some(first) = what.first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(what) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// Only what is kept for good is left: documents and receipts, what must survive a backup, and what the ERP has not taken.
pub(super) async fn nothing_left(world: &World) -> Wrong {
    let mut wrong = Wrong::new();
    for machine in world.machines() {
        if world.is_shut_out(&machine.host) {
            continue;
        }
        // What was rejected is kept for people to look at, up to a number for each agent.
        let uplinks = known(machine, Direction::Uplink).await;
        let rejected = uplinks.into_iter().filter(|record| matches!(record.state, TransferState::Rejected { .. }));
        let rejected: Vec<String> = rejected.map(|record| record.key.id.to_string()).collect();
        let quarantined = |path: &Path| {
            let named = |id: &String| path.components().any(|part| part.as_os_str() == id.as_str());
            path.starts_with("/receiver/quarantine") && rejected.iter().any(named)
        };
        let files = all_files(machine).into_iter().filter(|path| !is_of_revoked(world, machine, path) && !quarantined(path));
        let left = files.filter(|path| !is_kept(machine.host.place, path));
        wrong.extend(left.map(|path| format!("{}: {} is left", machine.host, path.display())));
    }
    wrong
}

/// Whether a file belongs to a transfer of an agent that was revoked, or to a tenant whose receiver was.
fn is_of_revoked(world: &World, machine: &Machine, path: &Path) -> bool {
    let named = |name: &str| path.components().any(|part| part.as_os_str() == name);
    let Some(number) = owner(world, machine, path).and_then(|owner| world.ends.iter().position(|ends| ends.tenant == *owner))
    else {
        return false;
    };
    let agents = world.revoked.iter().filter(|one| one.tenant == number);
    let mut ids = world.sent.iter().filter(|sent| world.is_revoked(&sent.key)).map(|sent| sent.key.id.to_string());
    world.rights.get(number).is_some_and(|rights| rights.receiver_is_out)
        || agents.map(|one| one.name.as_str()).any(named)
        || ids.any(|id| named(&id))
}

/// Nobody has a file open while nothing is to be done.
pub(super) fn nothing_open(world: &World) -> Wrong {
    let machines = world.machines().into_iter().filter(|machine| !world.is_shut_out(&machine.host));
    let open = machines.map(|machine| (&machine.host, machine.disk.open_handles()));
    open.filter(|(_, open)| *open > 0)
        .map(|(host, open)| format!("{host}: {open} files are open, and nobody does anything"))
        .collect()
}

/// What an agent that was killed has begun to write of a key; its next change of the key writes over it.
const BEGUN_KEY: &str = "/agent/.key.next.tmp";

fn is_kept(place: Place, path: &Path) -> bool {
    let text = path.to_string_lossy();
    if text == BEGUN_KEY {
        return place == Place::Agent;
    }
    let hidden = path.components().any(|part| part.as_os_str().to_string_lossy().starts_with('.'));
    if hidden || text.ends_with(".tmp") || text.ends_with(".part") || text.contains(PACKED_SUFFIX) {
        return false;
    }
    match place {
        Place::Agent => {
            ["/agent/transfers/", "/agent/downlink/", "/agent/enrolment.json", DELIVERY].iter().any(|kept| text.starts_with(kept))
                && !text.contains("/plain/")
                || text == "/agent/key"
        }
        // A line for each code that was used and each end that was revoked; a note for each job of an agent.
        Place::Relay => text.starts_with("/relay/receipts/") || text == "/relay/access.jsonl",
        Place::Receiver => {
            let newest = text.starts_with(NEWEST.0) && text.ends_with(NEWEST.1);
            newest || text.starts_with("/receiver/receipts/") || text == "/receiver/enrolment.json"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_good_is_told_from_what_is_left() {
        for kept in
            ["/agent/key", "/agent/transfers/x/manifest.json", "/erp-in/orders.csv", "/agent/downlink/x/receipts/delivered.json"]
        {
            assert!(is_kept(Place::Agent, Path::new(kept)), "{kept}");
        }
        for left in [
            "/agent/work/x/full",
            "/agent/key.next",
            "/agent/key.next.json",
            "/agent/transfers/x/items.csv.bz2",
            "/erp-in/.towpath/x/orders.csv",
            "/agent/downlink/x/plain/o.csv",
        ] {
            assert!(!is_kept(Place::Agent, Path::new(left)), "{left}");
        }
        assert!(!is_kept(Place::Relay, Path::new("/relay/spool/acme/erp/uplink/x/manifest.json")));
        assert!(!is_kept(Place::Receiver, Path::new("/receiver/exports/erp/x/request.json")));
    }

    #[test]
    fn bytes_are_found_wherever_they_are() {
        assert!(contains(b"xxonly", b"only") && contains(b"onlonly", b"only") && contains(b"only", b"only"));
        assert!(!contains(b"onl", b"only") && !contains(b"", b"only"));
    }
}
