//! Rejected transfers, kept for a person to look at. Nothing leads from here into the app database.

use std::path::{Path, PathBuf};

use serde::Serialize;
use towpath_transfer::{AgentName, Code, Failure, TransferId};
use towpath_transport::files::{FileKind, FileStore, file_failure};

use crate::{
    kept,
    layout::Layout,
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
    let listed = files.list(&entry.folder, None, MAX_ENTRIES).map_err(|e| file_failure("listing", &entry.folder, e))?;
    let plain = listed.into_iter().filter(|file| file.stat.kind == FileKind::File);
    let files = plain.map(|file| QuarantinedFile { name: file.name, size: file.stat.len }).collect();
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
