//! Rejected transfers, kept for a person to look at. Nothing leads from here into the app database.

use std::path::{Path, PathBuf};

use serde::Serialize;
use towpath_transfer::{
    AgentName, Code, Failure, TransferId,
    manifest::{MANIFEST_NAME, SIGNATURE_NAME},
    packed::{MD5SUMS_NAME, PACKED_NAME},
};
use towpath_transport::files::{FileKind, FileStore, file_failure, ignore_missing};

use crate::{
    kept,
    layout::Layout,
    parts::Limits,
    uplink::decide::{QuarantineReason, REASON_NAME},
};

/// The largest `reason.json`, in bytes.
const MAX_REASON_BYTES: usize = 256 * 1024;
/// Agents and transfers that one listing looks at.
const MAX_ENTRIES: usize = 10_000;

/// A transfer in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// The agent, as the relay named it.
    pub agent: AgentName,
    /// The transfer.
    pub transfer: TransferId,
    /// Where it lies.
    pub folder: PathBuf,
    /// Why; `None` where the reason was lost.
    pub reason: Option<QuarantineReason>,
}

/// A file of a transfer in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuarantinedFile {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
}

/// Everything in quarantine, by agent, oldest first. Blocking.
///
/// # Errors
/// As the disk reports.
pub fn list(files: &dyn FileStore, layout: &Layout) -> Result<Vec<Quarantined>, Failure> {
    let mut found = Vec::new();
    for agent in names::<AgentName>(files, &layout.quarantine())? {
        for transfer in names::<TransferId>(files, &layout.quarantine().join(agent.as_str()))? {
            let folder = layout.quarantined(&agent, transfer);
            let reason = reason(files, &folder)?;
            found.push(Quarantined { agent: agent.clone(), transfer, folder, reason });
        }
    }
    Ok(found)
}

/// One transfer in quarantine with its files. Blocking.
///
/// # Errors
/// `not-found`, `request-invalid` where several agents have a transfer of this id, as the disk reports.
pub fn show(
    files: &dyn FileStore,
    layout: &Layout,
    transfer: TransferId,
    agent: Option<&AgentName>,
) -> Result<(Quarantined, Vec<QuarantinedFile>), Failure> {
    let matches = |entry: &Quarantined| entry.transfer == transfer && agent.is_none_or(|agent| entry.agent == *agent);
    let mut found = list(files, layout)?.into_iter().filter(matches);
    let missing = || Failure::park(Code::NotFound, format!("there is no transfer {transfer} in quarantine"));
    let entry = found.next().ok_or_else(missing)?;
    if let Some(other) = found.next() {
        let told = format!("both {} and {} have a transfer {transfer} in quarantine; add --agent", entry.agent, other.agent);
        return Err(Failure::park(Code::RequestInvalid, told));
    }
    let files = plain_files(files, &entry.folder)?;
    Ok((entry, files))
}

/// Removes a transfer from quarantine after a person has looked at it. It stays rejected. Blocking.
///
/// # Errors
/// As [`show`].
pub fn release(
    files: &dyn FileStore,
    layout: &Layout,
    transfer: TransferId,
    agent: Option<&AgentName>,
) -> Result<Quarantined, Failure> {
    let (entry, _) = show(files, layout, transfer, agent)?;
    files.remove_dir_all(&entry.folder).map_err(|e| file_failure("removing", &entry.folder, e))?;
    Ok(entry)
}

/// Removes the oldest transfers of an agent beyond the limits; their names are UUIDv7 and sort by time. The newest stays for a person to
/// look at, without what it has packed where that alone is too much. What somebody else has put there is left alone. Blocking.
///
/// # Errors
/// As the disk reports.
pub fn bound(files: &dyn FileStore, layout: &Layout, agent: &AgentName, limits: &Limits) -> Result<(), Failure> {
    let kept = names::<TransferId>(files, &layout.quarantine().join(agent.as_str()))?;
    let mut room = limits.quarantined_bytes;
    for (age, transfer) in kept.into_iter().rev().enumerate() {
        let folder = layout.quarantined(agent, transfer);
        let size: u64 = plain_files(files, &folder)?.iter().map(|file| file.size).sum();
        let left = room.checked_sub(size).filter(|_| age < limits.quarantined_transfers);
        room = left.unwrap_or(0);
        match left {
            Some(_) => {}
            None if age == 0 => remove_packed(files, &folder)?,
            None => ignore_missing(files.remove_dir_all(&folder)).map_err(|e| file_failure("removing", &folder, e))?,
        }
    }
    Ok(())
}

/// Removes every file of a transfer that is no document.
fn remove_packed(files: &dyn FileStore, folder: &Path) -> Result<(), Failure> {
    const DOCUMENTS: [&str; 5] = [MANIFEST_NAME, SIGNATURE_NAME, PACKED_NAME, MD5SUMS_NAME, REASON_NAME];
    for file in plain_files(files, folder)?.iter().filter(|file| !DOCUMENTS.contains(&&*file.name)) {
        let path = folder.join(&file.name);
        ignore_missing(files.remove(&path)).map_err(|e| file_failure("removing", &path, e))?;
    }
    Ok(())
}

/// The files of a transfer; none where somebody has just released it.
fn plain_files(files: &dyn FileStore, folder: &Path) -> Result<Vec<QuarantinedFile>, Failure> {
    let listed = match files.list(folder, None, MAX_ENTRIES) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(|e| file_failure("listing", folder, e))?,
    };
    let plain = listed.into_iter().filter(|file| file.stat.kind == FileKind::File);
    Ok(plain.map(|file| QuarantinedFile { name: file.name, size: file.stat.len }).collect())
}

fn names<T: std::str::FromStr>(files: &dyn FileStore, folder: &Path) -> Result<Vec<T>, Failure> {
    match files.list(folder, None, MAX_ENTRIES) {
        Ok(entries) => {
            let folders = entries.into_iter().filter(|entry| entry.stat.kind == FileKind::Dir);
            Ok(folders.filter_map(|entry| entry.name.parse().ok()).collect())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(file_failure("listing", folder, e)),
    }
}

fn reason(files: &dyn FileStore, folder: &Path) -> Result<Option<QuarantineReason>, Failure> {
    let bytes = kept::read(files, &folder.join(REASON_NAME), MAX_REASON_BYTES)?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
